//! The route that does what was allowed: whole at its end, or line by line while it runs. A client that hangs up ends the command, as it does at
//! the unix socket.

use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State as Given};
use axum::http::{StatusCode, header};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use serde::Serialize;

use approval::outcome::Ended;

use super::problem::{Problem, answer, json};
use super::routes::{Answered, Gate, astray, body, gone};
use crate::caller::{Caller, exit_code};
use crate::local::{Answer, Ask, Question};

/// How much of each stream is kept for an answer that comes whole, in bytes. All of it was written, hashed and counted; the rest can be had line by line.
const KEPT_BYTES: usize = 4 << 20;

/// Media type of the answer line by line.
const LINES: &str = "application/jsonl";

/// What was written to a stream: text where it is UTF-8.
#[derive(Debug, Default, Serialize)]
pub(super) struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    /// Whether there was more.
    cut: bool,
}

/// The end of what was allowed.
#[derive(Debug, Serialize)]
pub(super) struct Redeemed {
    pub(super) id: String,
    /// As a shell would have it; null for what the gate doesn't run.
    pub(super) exit: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stdout: Option<Written>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stderr: Option<Written>,
    pub(super) because: String,
    pub(super) result: Ended,
}

/// One line of the answer that comes piece by piece.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    Permitted { because: String },
    Stdout { base64: String },
    Stderr { base64: String },
    Ended(Redeemed),
    Error(Problem),
}

pub(super) async fn redeem(Given(gate): Given<Gate>, Path(id): Path<String>, request: Request) -> Answered {
    let in_lines = request
        .headers()
        .get(header::ACCEPT)
        .is_some_and(|kinds| kinds.as_bytes().starts_with(LINES.as_bytes()));
    // The same body as for asking, so that an agent sends it twice; of it only the action counts.
    let Ask { what, .. } = body(request).await?;
    let what = Box::new(what);
    let mut caller = gate.ask(&Question::Redeem { id, what }).await?;
    // Only after the first word is it known whether there is anything to stream.
    let first = match caller.next().await? {
        Some(Answer::Error { kind, message, hint }) => return Err(Problem::of(kind, message, hint, false)),
        Some(answer) => answer,
        None => return Err(gone()),
    };
    if in_lines {
        Ok(lines(first, caller))
    } else {
        whole(first, caller).await
    }
}

async fn whole(first: Answer, mut caller: Caller) -> Answered {
    let (mut stdout, mut stderr) = (Kept::default(), Kept::default());
    let mut because = String::new();
    let mut next = Some(first);
    loop {
        match next.ok_or_else(gone)? {
            Answer::Permitted { because: told, .. } => because = told,
            Answer::Stdout(piece) => stdout.take(&piece),
            Answer::Stderr(piece) => stderr.take(&piece),
            Answer::Ended { id, result, .. } => {
                let ran = matches!(result, Ended::Ran(_));
                let redeemed = Redeemed {
                    id,
                    exit: ran.then(|| exit_code(&result)),
                    stdout: ran.then(|| stdout.written()),
                    stderr: ran.then(|| stderr.written()),
                    because,
                    result,
                };
                return Ok(json(StatusCode::OK, &redeemed));
            }
            Answer::Error { kind, message, hint } => return Err(Problem::of(kind, message, hint, false)),
            _ => return Err(astray()),
        }
        next = caller.next().await?;
    }
}

/// The beginning of a stream.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    cut: bool,
}

impl Kept {
    fn take(&mut self, piece: &str) {
        let piece = STANDARD.decode(piece).unwrap_or_default();
        let room = KEPT_BYTES.saturating_sub(self.bytes.len());
        self.cut |= piece.len() > room;
        self.bytes.extend(piece.into_iter().take(room));
    }

    fn written(self) -> Written {
        let cut = self.cut;
        match String::from_utf8(self.bytes) {
            Ok(text) => Written {
                text: Some(text),
                base64: None,
                cut,
            },
            Err(error) => Written {
                text: None,
                base64: Some(STANDARD.encode(error.as_bytes())),
                cut,
            },
        }
    }
}

/// Where the answer in lines is.
struct Streaming {
    first: Option<Answer>,
    caller: Caller,
    because: String,
    over: bool,
}

impl Streaming {
    async fn next(&mut self) -> Line {
        let answer = match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.caller.next().await,
        };
        self.over = true;
        match answer {
            Ok(Some(Answer::Ended { id, result, .. })) => Line::Ended(Redeemed {
                id,
                exit: matches!(result, Ended::Ran(_)).then(|| exit_code(&result)),
                stdout: None,
                stderr: None,
                because: std::mem::take(&mut self.because),
                result,
            }),
            Ok(Some(Answer::Error { kind, message, hint })) => Line::Error(Problem::of(kind, message, hint, false)),
            Ok(None) => Line::Error(gone()),
            Err(error) => Line::Error(Problem::from(error)),
            Ok(Some(answer)) => {
                self.over = false;
                match answer {
                    Answer::Permitted { because, .. } => {
                        self.because.clone_from(&because);
                        Line::Permitted { because }
                    }
                    Answer::Stdout(base64) => Line::Stdout { base64 },
                    Answer::Stderr(base64) => Line::Stderr { base64 },
                    _ => {
                        self.over = true;
                        Line::Error(astray())
                    }
                }
            }
        }
    }
}

fn lines(first: Answer, caller: Caller) -> Response {
    let streaming = Streaming {
        first: Some(first),
        caller,
        because: String::new(),
        over: false,
    };
    let lines = stream::unfold(streaming, |mut streaming| async move {
        if streaming.over {
            return None;
        }
        let mut bytes = serde_json::to_vec(&streaming.next().await).ok()?;
        bytes.push(b'\n');
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(bytes)), streaming))
    });
    answer(StatusCode::OK, LINES, Body::from_stream(lines))
}
