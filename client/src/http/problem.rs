//! What the HTTP door says when it says no: a status, what is wrong and what to do, in the manner of RFC 9457.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::caller::CallError;
use crate::local::Fault;

/// Media type of everything but streams.
pub(super) const JSON: &str = "application/json";

/// Why not.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Problem {
    #[serde(serialize_with = "number")]
    pub(super) status: StatusCode,
    /// What kind, for programs.
    pub(super) kind: &'static str,
    /// What is wrong.
    pub(super) error: String,
    /// What to do.
    pub(super) hint: Option<String>,
}

fn number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &'static str, error: impl std::fmt::Display) -> Self {
        Self {
            status,
            kind,
            error: error.to_string(),
            hint: None,
        }
    }

    pub(super) fn bad(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", error).hint("see /v1/openapi.json")
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What the gate said no to. `asked` is whether something new was asked: what is refused then isn't gone, it never was.
    pub(super) fn of(kind: Fault, message: String, hint: Option<String>, asked: bool) -> Self {
        let (status, kind) = match kind {
            Fault::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            Fault::NoProgram => (StatusCode::UNPROCESSABLE_ENTITY, "no_program"),
            Fault::Refused if asked => (StatusCode::FORBIDDEN, "refused"),
            Fault::Refused => (StatusCode::GONE, "refused"),
            Fault::TooMuch => (StatusCode::TOO_MANY_REQUESTS, "too_much"),
            Fault::Unknown => (StatusCode::NOT_FOUND, "unknown"),
            Fault::NotYet => (StatusCode::CONFLICT, "not_yet"),
            Fault::Used => (StatusCode::CONFLICT, "used"),
            Fault::Another => (StatusCode::CONFLICT, "another"),
            Fault::Broken => (StatusCode::SERVICE_UNAVAILABLE, "broken"),
        };
        Self {
            status,
            kind,
            error: message,
            hint,
        }
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "broken", error).hint("ask again in a moment")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self);
        if self.status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// A value as the whole answer. Nothing of it may be kept by anything on the way, or taken for a page.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(bytes) => answer(status, JSON, bytes),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// An answer of any kind.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers: [(HeaderName, &'static str); 4] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
