//! What can be asked at the HTTP door. Each route is one question to the gate (`local`) and the answer to it as JSON; `openapi.json` describes all.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Path, Request, State as Given};
use axum::http::{StatusCode, Uri};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures_util::stream;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::BODY_BYTES;
use super::guard::Guard;
use super::problem::{JSON, Problem, answer, json};
use super::redeem::redeem;
use crate::caller::Caller;
use crate::local::{Answer, Ask, Question, State, ToolName};

/// How long a body may take to come.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The longest that is waited for an answer, in seconds, and how long unless the client says otherwise.
const MAX_WAIT: u64 = 300;
const WAIT: u64 = 30;

/// How often an event stream says that it is alive.
const ALIVE: Duration = Duration::from_secs(15);

/// The description of all this.
pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// What a route answers with.
pub(super) type Answered = Result<Response, Problem>;

/// The gate behind the door.
#[derive(Clone)]
pub(super) struct Gate(Arc<PathBuf>);

impl Gate {
    pub(super) fn at(socket: PathBuf) -> Self {
        Self(Arc::new(socket))
    }

    /// Asks, for the answers one after the other.
    pub(super) async fn ask(&self, question: &Question) -> Result<Caller, Problem> {
        Ok(Caller::open(&self.0, question).await?)
    }

    /// Asks what has one answer.
    async fn one(&self, question: &Question) -> Result<Answer, Problem> {
        let asked = matches!(question, Question::Request(_) | Question::Explain(_));
        match self.ask(question).await?.next().await? {
            Some(Answer::Error { kind, message, hint }) => Err(Problem::of(kind, message, hint, asked)),
            Some(answer) => Ok(answer),
            None => Err(gone()),
        }
    }
}

/// The gate hung up in the middle.
pub(super) fn gone() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "broken",
        "the gate ended the connection",
    )
    .hint("ask again; what it took is in its transcript")
}

/// It said something that doesn't answer the question.
pub(super) fn astray() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "broken",
        "the gate gave another answer than the one asked for",
    )
}

/// All routes, behind the guard: also what isn't there is told only to those who may ask.
pub(super) fn router(gate: Gate, guard: Arc<Guard>) -> Router {
    Router::new()
        .route("/v1/requests", post(request))
        .route("/v1/requests/{id}", get(standing).delete(cancel))
        .route("/v1/requests/{id}/wait", get(wait))
        .route("/v1/requests/{id}/redeem", post(redeem))
        .route("/v1/events", get(events))
        .route("/v1/tools", post(tools))
        .route("/v1/explain", post(explain))
        .route("/v1/status", get(status))
        .route("/v1/openapi.json", get(openapi))
        .fallback(async || Problem::new(StatusCode::NOT_FOUND, "unknown", "no such route").hint("see /v1/openapi.json"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid", "not with this method").hint("see /v1/openapi.json")
        })
        .layer(from_fn(move |request: Request, next: Next| {
            let guard = Arc::clone(&guard);
            async move {
                let (head, body) = request.into_parts();
                match guard.admit(&head) {
                    Ok(()) => next.run(Request::from_parts(head, body)).await,
                    Err(problem) => problem.into_response(),
                }
            }
        }))
        .with_state(gate)
}

/// The question in a body.
pub(super) async fn body<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    no_query(request.uri())?;
    let read = tokio::time::timeout(BODY_DEADLINE, to_bytes(request.into_body(), BODY_BYTES));
    let bytes = match read.await {
        Err(_) => {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                "invalid",
                "the body took too long",
            ));
        }
        Ok(Err(error)) if is_too_long(&error) => {
            let error = format!("a body longer than {BODY_BYTES} bytes");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid", error));
        }
        Ok(Err(error)) => return Err(Problem::bad(error)),
        Ok(Ok(bytes)) => bytes,
    };
    serde_json::from_slice(&bytes).map_err(|error| Problem::bad(format!("not what this route takes: {error}")))
}

fn is_too_long(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

/// Nothing is asked in an address, where it would end up in histories and logs.
fn no_query(uri: &Uri) -> Result<(), Problem> {
    match uri.query() {
        None => Ok(()),
        Some(_) => Err(Problem::bad("this route takes no query")),
    }
}

/// How something that was asked is, as soon as that is known.
#[derive(Debug, Serialize)]
pub(super) struct Asked {
    pub(super) id: String,
    pub(super) state: State,
    pub(super) sentence: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) need: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) number: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) because: Option<String>,
}

impl Asked {
    fn new(id: String, state: State, sentence: String) -> Self {
        Self {
            id,
            state,
            sentence,
            expires: None,
            need: None,
            number: None,
            because: None,
        }
    }
}

async fn request(Given(gate): Given<Gate>, request: Request) -> Answered {
    let ask: Ask = body(request).await?;
    Ok(match gate.one(&Question::Request(Box::new(ask))).await? {
        Answer::Pending {
            id,
            expires,
            need,
            number,
            sentence,
            shown: _,
        } => {
            let pending = Asked {
                expires: Some(expires),
                need: Some(need),
                number,
                ..Asked::new(id, State::Pending, sentence)
            };
            json(StatusCode::ACCEPTED, &pending)
        }
        Answer::Allowed {
            id,
            expires,
            sentence,
            because,
        } => {
            let allowed = Asked {
                expires: Some(expires),
                because: Some(because),
                ..Asked::new(id, State::Allowed, sentence)
            };
            json(StatusCode::OK, &allowed)
        }
        // It never will be: the policy forbids it, or the ticket is of a request that is over.
        Answer::Ended { id, .. } => return how(&gate, id, 0).await,
        // Asked again with the ticket of a request that is further on.
        Answer::State(standing) => json(StatusCode::OK, &standing),
        _ => return Err(astray()),
    })
}

async fn standing(Given(gate): Given<Gate>, Path(id): Path<String>, uri: Uri) -> Answered {
    no_query(&uri)?;
    how(&gate, id, 0).await
}

async fn wait(Given(gate): Given<Gate>, Path(id): Path<String>, uri: Uri) -> Answered {
    let bad = || Problem::bad(format!("the query is timeout=SECONDS, at most {MAX_WAIT}"));
    let seconds = match uri.query() {
        None => WAIT,
        Some(query) => query
            .strip_prefix("timeout=")
            .and_then(|seconds| seconds.parse().ok())
            .filter(|seconds| *seconds <= MAX_WAIT)
            .ok_or_else(bad)?,
    };
    how(&gate, id, seconds * 1000).await
}

async fn how(gate: &Gate, id: String, timeout_ms: u64) -> Answered {
    match gate.one(&Question::Wait { id, timeout_ms }).await? {
        Answer::State(standing) => Ok(json(StatusCode::OK, &standing)),
        _ => Err(astray()),
    }
}

async fn cancel(Given(gate): Given<Gate>, Path(id): Path<String>, uri: Uri) -> Answered {
    no_query(&uri)?;
    match gate.one(&Question::Cancel { id }).await? {
        Answer::Cancelled { id } => Ok(json(
            StatusCode::OK,
            &serde_json::json!({"id": id, "state": State::Withdrawn}),
        )),
        _ => Err(astray()),
    }
}

/// The question of `/v1/tools`: [`Question::Tools`] in a body of its own.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Offer {
    #[serde(default)]
    agent: Option<String>,
    #[serde(default)]
    under: Vec<String>,
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    conversation: Option<String>,
    #[serde(default)]
    platform: Option<String>,
    tools: Vec<ToolName>,
}

async fn tools(Given(gate): Given<Gate>, request: Request) -> Answered {
    let Offer {
        agent,
        under,
        user,
        conversation,
        platform,
        tools,
    } = body(request).await?;
    let question = Question::Tools {
        agent,
        under,
        user,
        conversation,
        platform,
        tools,
    };
    match gate.one(&question).await? {
        Answer::Tools { visible } => Ok(json(StatusCode::OK, &serde_json::json!({"visible": visible}))),
        _ => Err(astray()),
    }
}

async fn explain(Given(gate): Given<Gate>, request: Request) -> Answered {
    let ask: Ask = body(request).await?;
    match gate.one(&Question::Explain(Box::new(ask))).await? {
        Answer::Explained(explained) => Ok(json(StatusCode::OK, &explained)),
        _ => Err(astray()),
    }
}

async fn status(Given(gate): Given<Gate>, uri: Uri) -> Answered {
    no_query(&uri)?;
    match gate.one(&Question::Status {}).await? {
        Answer::Status(status) => Ok(json(StatusCode::OK, &status)),
        _ => Err(astray()),
    }
}

async fn openapi(uri: Uri) -> Answered {
    no_query(&uri)?;
    Ok(answer(StatusCode::OK, JSON, OPENAPI))
}

/// Server-sent events: one for each request that nobody waits for and of which something became.
async fn events(Given(gate): Given<Gate>, uri: Uri) -> Answered {
    no_query(&uri)?;
    let caller = gate.ask(&Question::Events {}).await?;
    let begun = Bytes::from_static(b": listening\n\n");
    let told = stream::unfold(caller, |mut caller| async move {
        let text = match tokio::time::timeout(ALIVE, caller.next()).await {
            Err(_) => ": alive\n\n".to_owned(),
            Ok(Ok(Some(Answer::Event(woken)))) => {
                let woken = serde_json::to_string(&woken).ok()?;
                format!("event: request\ndata: {woken}\n\n")
            }
            // The gate ends: so does the stream, and who listens connects again.
            Ok(_) => return None,
        };
        Some((Bytes::from(text), caller))
    });
    let all = futures_util::StreamExt::chain(stream::iter([begun]), told);
    let all = futures_util::StreamExt::map(all, Ok::<_, std::convert::Infallible>);
    Ok(answer(StatusCode::OK, "text/event-stream", Body::from_stream(all)))
}
