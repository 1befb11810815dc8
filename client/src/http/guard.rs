//! Who gets through the HTTP door: programs on this machine that know the token, and no web page, whatever name it gave this machine. Looks at the
//! head of a request only, before anything of its body is read.

use std::net::SocketAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header, request::Parts};

use super::Token;
use super::problem::{JSON, Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether an address is this machine's own and no other's.
pub(super) fn is_here(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

/// What every request is held against.
pub(super) struct Guard {
    port: u16,
    token: Token,
}

impl Guard {
    pub(super) fn new(port: u16, token: Token) -> Self {
        Self { port, token }
    }

    /// Lets a request in, or says why not. The token comes last: what a web page sends is refused without a word about it.
    ///
    /// # Errors
    /// The problem to answer with.
    pub(super) fn admit(&self, head: &Parts) -> Result<(), Problem> {
        self.meant_for_us(head)?;
        from_no_page(&head.headers)?;
        self.knows_the_token(&head.headers)?;
        let typed = head.headers.contains_key(header::CONTENT_TYPE);
        if (head.method == Method::POST || typed) && !is_json(&head.headers) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "invalid",
                "the body must be application/json",
            ));
        }
        Ok(())
    }

    /// A name that somebody let point here (DNS rebinding) is in the host of the request.
    fn meant_for_us(&self, head: &Parts) -> Result<(), Problem> {
        let ours = |host: &str| {
            ["127.0.0.1", "localhost", "[::1]"]
                .iter()
                .any(|name| host == format!("{name}:{}", self.port))
        };
        let host = only(&head.headers, &header::HOST).unwrap_or_default();
        let authority = head.uri.authority().map(Authority::as_str);
        if ours(host) && authority.is_none_or(ours) {
            return Ok(());
        }
        let refused = Problem::new(StatusCode::FORBIDDEN, "stranger", "another host was meant");
        Err(refused.hint(format!("ask 127.0.0.1:{}", self.port)))
    }

    fn knows_the_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let offered = only(headers, &header::AUTHORIZATION).and_then(|value| value.split_once(' '));
        match offered {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && self.token.is(token.as_bytes()) => Ok(()),
            _ => Err(
                Problem::new(StatusCode::UNAUTHORIZED, "stranger", "the token is missing or wrong").hint(
                    "send it as `Authorization: Bearer …`; it is in the file that `countersign gate serve` names",
                ),
            ),
        }
    }
}

/// Browsers say where a request comes from; programs don't.
fn from_no_page(headers: &HeaderMap) -> Result<(), Problem> {
    let elsewhere = headers.get_all(SEC_FETCH_SITE).iter().any(|site| site != "none");
    if headers.contains_key(header::ORIGIN) || elsewhere {
        return Err(Problem::new(
            StatusCode::FORBIDDEN,
            "stranger",
            "web pages can't ask here",
        ));
    }
    Ok(())
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = only(headers, &header::CONTENT_TYPE) else {
        return false;
    };
    let mut parts = value.split(';').map(str::trim);
    parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case(JSON))
        && parts.all(|parameter| parameter.eq_ignore_ascii_case("charset=utf-8"))
}

/// The value of a header that is there exactly once: of two, one reader takes the first and another the last.
fn only<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}
