//! The HTTP door in front of a scripted gate: who is refused, what is passed on, and that `openapi.json` says all of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

use std::collections::BTreeSet;

use approval::outcome::{Ended, Exit, Forbidden, Nothing, Ran, Stream};
use approval::permit::Confined;
use approval::request::AskedBy;
use approval::roster::Unenrolled;
use approval::{Digest, Text};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::caller::scripted::{Scripted, Then};
use crate::home::Home;
use crate::local::{Answer, DeviceStatus, Explained, Fault, Question, Standing, State, Status, Woken, Would};

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A door, its token, and the gate behind it.
struct House {
    address: SocketAddr,
    token: String,
    gate: Scripted,
    _home: tempfile::TempDir,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for House {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn a_house(then: Then, answers: impl Fn(&Question) -> Vec<Answer> + Send + Sync + 'static) -> House {
    let gate = Scripted::gate(then, answers);
    let folder = tempfile::tempdir().unwrap();
    let home = Home::create(Some(folder.path().join("gate"))).unwrap();
    let token = Token::of(&home).unwrap();
    let revealed = token.reveal();
    let door = Door::open(ANYWHERE.parse().unwrap(), token).await.unwrap();
    House {
        address: door.address(),
        token: revealed,
        server: tokio::spawn(door.serve(gate.socket())),
        gate,
        _home: folder,
    }
}

/// A house whose gate is never asked.
async fn closed_house() -> House {
    a_house(Then::HangsUp, |question| panic!("the gate was asked {question:?}")).await
}

/// What came back.
#[derive(Debug)]
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl House {
    /// The lines of a head as an honest program sends them.
    fn head(&self, method: &str, path: &str) -> Vec<String> {
        let mut head = vec![
            format!("{method} {path} HTTP/1.1"),
            format!("Host: {}", self.address),
            format!("Authorization: Bearer {}", self.token),
            "Connection: close".to_owned(),
        ];
        if method == "POST" {
            head.push("Content-Type: application/json".to_owned());
        }
        head
    }

    async fn begin(&self, head: &[String], body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = head.join("\r\n");
        let request = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        // A refusal may come before all of it was sent.
        let _ = stream.write_all(request.as_bytes()).await;
        stream
    }

    async fn send(&self, head: &[String], body: &str) -> Reply {
        read(self.begin(head, body).await).await
    }

    async fn ask(&self, method: &str, path: &str, body: &str) -> Reply {
        self.send(&self.head(method, path), body).await
    }
}

async fn read(mut stream: TcpStream) -> Reply {
    let mut bytes = Vec::new();
    // A server that refused a body too long may reset the connection after its answer.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("no answer: {text:?}"));
    let chunked = head.to_lowercase().contains("transfer-encoding: chunked");
    Reply {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: if chunked { unchunked(body) } else { body.to_owned() },
    }
}

fn unchunked(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((length, rest)) = body.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&rest[..length]);
        body = &rest[(length + 2).min(rest.len())..];
    }
    whole
}

/// A line of a head replaced, or left out.
fn with(mut head: Vec<String>, name: &str, value: Option<&str>) -> Vec<String> {
    head.retain(|line| !line.to_lowercase().starts_with(&format!("{}:", name.to_lowercase())));
    head.extend(value.map(|value| format!("{name}: {value}")));
    head
}

fn ask() -> String {
    json!({"what": {"command": {"argv": ["ls", "-l"], "directory": "/tmp"}}, "agent": "main/helper"}).to_string()
}

/// Method, path, and a body that could be meant.
fn every_route() -> Vec<(&'static str, String, String)> {
    let what = json!({"what": {"tool": {"server": "s", "tool": "t", "schema": ID, "arguments": "{}"}}}).to_string();
    vec![
        ("POST", "/v1/requests".to_owned(), ask()),
        ("GET", format!("/v1/requests/{ID}"), String::new()),
        ("DELETE", format!("/v1/requests/{ID}"), String::new()),
        ("GET", format!("/v1/requests/{ID}/wait?timeout=0"), String::new()),
        ("POST", format!("/v1/requests/{ID}/redeem"), what),
        ("GET", "/v1/events".to_owned(), String::new()),
        (
            "POST",
            "/v1/tools".to_owned(),
            json!({"tools": [{"server": "s", "tool": "t"}]}).to_string(),
        ),
        ("POST", "/v1/explain".to_owned(), ask()),
        ("GET", "/v1/status".to_owned(), String::new()),
        ("GET", "/v1/openapi.json".to_owned(), String::new()),
    ]
}

#[tokio::test]
async fn nobody_without_the_token_is_told_anything() {
    let house = closed_house().await;
    for (method, path, body) in every_route().into_iter().chain([
        ("GET", "/".to_owned(), String::new()),
        ("GET", "/v1/nothing".to_owned(), String::new()),
        ("PUT", "/v1/requests".to_owned(), String::new()),
    ]) {
        let head = house.head(method, &path);
        for offered in [
            None,
            Some("Bearer ".to_owned()),
            Some(format!("Bearer {}", "0".repeat(64))),
            Some(format!("Bearer {}0", house.token)),
            Some(format!("Bearer {}", &house.token[..63])),
            Some(format!("Basic {}", house.token)),
            Some(house.token.clone()),
        ] {
            let reply = house
                .send(&with(head.clone(), "Authorization", offered.as_deref()), &body)
                .await;
            assert_eq!(reply.status, 401, "{method} {path} {offered:?}");
            assert!(reply.head.contains("www-authenticate: bearer"), "{}", reply.head);
            assert_eq!(reply.json()["kind"], "stranger");
        }
    }
}

#[tokio::test]
async fn a_token_in_the_address_opens_nothing() {
    let house = closed_house().await;
    for query in ["token", "access_token", "authorization"] {
        let path = format!("/v1/status?{query}={}", house.token);
        let reply = house
            .send(&with(house.head("GET", &path), "Authorization", None), "")
            .await;
        assert_eq!(reply.status, 401);
        // Nor is it passed over beside the right one: it would be in somebody's history.
        assert_eq!(house.ask("GET", &path, "").await.status, 400);
    }
    let mut twice = house.head("GET", "/v1/status");
    twice.push(format!("Authorization: Bearer {}", house.token));
    assert_eq!(house.send(&twice, "").await.status, 401);
}

#[tokio::test]
async fn a_name_that_was_made_to_point_here_is_refused() {
    let house = closed_house().await;
    let port = house.address.port();
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("127.0.0.1.nip.io:{port}"),
        format!("127.0.0.2:{port}"),
        format!("0.0.0.0:{port}"),
        format!("2130706433:{port}"),
        "127.0.0.1".to_owned(),
        "localhost:1".to_owned(),
        format!("localhost:{port}@evil.example"),
        String::new(),
    ] {
        for (method, path, body) in every_route() {
            let reply = house
                .send(&with(house.head(method, &path), "Host", Some(&host)), &body)
                .await;
            assert!(matches!(reply.status, 400 | 403), "{host}: {reply:?}");
        }
    }
    let without = with(house.head("GET", "/v1/status"), "Host", None);
    assert!(matches!(house.send(&without, "").await.status, 400 | 403));
    let mut twice = house.head("GET", "/v1/status");
    twice.push("Host: evil.example".to_owned());
    assert!(matches!(house.send(&twice, "").await.status, 400 | 403));
    // A proxy's form of address counts as a host too.
    let absolute = house.head("GET", &format!("http://evil.example:{port}/v1/status"));
    assert_eq!(house.send(&absolute, "").await.status, 403);
}

#[tokio::test]
async fn this_machine_has_three_names() {
    let house = a_house(Then::HangsUp, |_| vec![Answer::Status(Box::new(status()))]).await;
    let port = house.address.port();
    for host in ["127.0.0.1", "localhost", "[::1]"] {
        let head = with(house.head("GET", "/v1/status"), "Host", Some(&format!("{host}:{port}")));
        assert_eq!(house.send(&head, "").await.status, 200, "{host}");
    }
    let head = with(house.head("GET", "/v1/status"), "Sec-Fetch-Site", Some("none"));
    assert_eq!(house.send(&head, "").await.status, 200);
}

#[tokio::test]
async fn web_pages_are_refused_even_with_the_token() {
    let house = closed_house().await;
    let own = format!("http://{}", house.address);
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Origin", "null"),
        ("Origin", &own),
        ("Origin", ""),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Fetch-Site", "same-origin"),
        ("Sec-Fetch-Site", ""),
    ] {
        for (method, path, body) in every_route() {
            let reply = house
                .send(&with(house.head(method, &path), name, Some(value)), &body)
                .await;
            assert_eq!(reply.status, 403, "{name}: {value}");
            assert_eq!(reply.json()["kind"], "stranger");
            assert!(!reply.head.contains("access-control-"), "{}", reply.head);
        }
    }
    // Nor does a page learn by a preflight that there is a door.
    let preflight = with(house.head("OPTIONS", "/v1/requests"), "Authorization", None);
    let preflight = with(preflight, "Origin", Some("https://evil.example"));
    let reply = house.send(&preflight, "").await;
    assert_eq!(reply.status, 403);
    assert!(!reply.head.contains("access-control-"), "{}", reply.head);
}

#[tokio::test]
async fn what_a_form_can_send_is_no_question() {
    let house = closed_house().await;
    for kind in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("multipart/form-data; boundary=x"),
        Some("text/plain; application/json"),
        Some("application/jsonp"),
        Some("application/json; charset=utf-7"),
    ] {
        for (method, path, body) in every_route().into_iter().filter(|(method, ..)| *method == "POST") {
            let reply = house
                .send(&with(house.head(method, &path), "Content-Type", kind), &body)
                .await;
            assert_eq!(reply.status, 415, "{kind:?}");
        }
    }
}

#[tokio::test]
async fn a_question_is_read_up_to_its_bound_and_strictly() {
    let house = a_house(Then::HangsUp, |_| vec![pending()]).await;
    let long = json!({"what": {"command": {"argv": ["ls"], "directory": "/"}}, "reason": "x".repeat(BODY_BYTES)});
    let reply = house.ask("POST", "/v1/requests", &long.to_string()).await;
    assert_eq!((reply.status, house.gate.asked().len()), (413, 0));
    let api: Value = serde_json::from_str(include_str!("openapi.json")).unwrap();
    assert_eq!(
        api["paths"]["/v1/requests"]["post"]["responses"]["413"]["description"],
        format!("a body of more than {} MiB", BODY_BYTES >> 20)
    );
    for body in [
        "",
        "null",
        "[]",
        "{}",
        r#"{"what":{"command":{"argv":["ls"],"directory":"/","uid":0}}}"#,
        r#"{"what":{"command":{"argv":["ls"],"directory":"/"}},"approved":true}"#,
        r#"{"what":{"roster":{}}}"#,
    ] {
        let reply = house.ask("POST", "/v1/requests", body).await;
        assert_eq!((reply.status, house.gate.asked().len()), (400, 0), "{body}");
    }
    let charset = with(
        house.head("POST", "/v1/requests"),
        "Content-Type",
        Some("application/json; charset=UTF-8"),
    );
    assert_eq!(house.send(&charset, &ask()).await.status, 202);
}

#[tokio::test]
async fn the_largest_standard_input_fits() {
    let house = a_house(Then::HangsUp, |_| vec![pending()]).await;
    let stdin = "A".repeat((approval::action::STDIN_BYTES as usize).div_ceil(3) * 4);
    let largest = json!({"what": {"command": {"argv": ["tee"], "directory": "/", "stdin": stdin}}});
    let reply = house.ask("POST", "/v1/requests", &largest.to_string()).await;
    assert_eq!((reply.status, house.gate.asked().len()), (202, 1), "{}", reply.body);
}

#[tokio::test]
async fn no_other_machine_can_reach_it() {
    let folder = tempfile::tempdir().unwrap();
    let home = Home::create(Some(folder.path().join("gate"))).unwrap();
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "[2001:db8::1]:0"] {
        let opened = Door::open(address.parse().unwrap(), Token::of(&home).unwrap()).await;
        assert!(matches!(opened, Err(HttpError::NotLoopback(_))), "{address}");
    }
    for (peer, here) in [
        ("127.0.0.1:9", true),
        ("[::1]:9", true),
        ("[::ffff:127.0.0.1]:9", true),
        ("192.0.2.1:9", false),
        ("[::ffff:192.0.2.1]:9", false),
        ("0.0.0.0:9", false),
    ] {
        assert_eq!(guard::is_here(peer.parse().unwrap()), here, "{peer}");
    }
}

#[tokio::test]
async fn asking_is_answered_at_once() {
    let house = a_house(Then::HangsUp, |_| vec![pending()]).await;
    let reply = house.ask("POST", "/v1/requests", &ask()).await;
    assert_eq!(reply.status, 202);
    assert!(reply.head.contains("cache-control: no-store"));
    let told = reply.json();
    assert_eq!(told["state"], "pending");
    assert_eq!(told["number"], "421");
    assert_eq!(told["need"], 2);
    assert!(matches!(
        house.gate.asked().as_slice(),
        [Question::Request(asked)] if asked.agent.as_deref() == Some("main/helper")
    ));
}

#[tokio::test]
async fn waiting_has_a_bound() {
    let house = a_house(Then::HangsUp, |_| vec![Answer::State(Box::new(standing()))]).await;
    for (query, asked) in [("", 30_000), ("?timeout=0", 0), ("?timeout=300", 300_000)] {
        let reply = house.ask("GET", &format!("/v1/requests/{ID}/wait{query}"), "").await;
        assert_eq!(reply.status, 200);
        let last = house.gate.asked().pop();
        assert!(matches!(last, Some(Question::Wait { timeout_ms, .. }) if timeout_ms == asked));
    }
    for query in [
        "?timeout=301",
        "?timeout=-1",
        "?timeout=",
        "?timeout=1&x=1",
        "?x=1",
        "?timeout=1e2",
    ] {
        let reply = house.ask("GET", &format!("/v1/requests/{ID}/wait{query}"), "").await;
        assert_eq!(reply.status, 400, "{query}");
    }
}

#[tokio::test]
async fn each_no_has_its_status() {
    for (kind, asking, redeeming) in [
        (Fault::Invalid, 400, 400),
        (Fault::NoProgram, 422, 422),
        (Fault::Refused, 403, 410),
        (Fault::TooMuch, 429, 429),
        (Fault::Unknown, 404, 404),
        (Fault::NotYet, 409, 409),
        (Fault::Used, 409, 409),
        (Fault::Another, 409, 409),
        (Fault::Broken, 503, 503),
    ] {
        let house = a_house(Then::HangsUp, move |_| {
            let (message, hint) = ("no".to_owned(), Some("do otherwise".to_owned()));
            vec![Answer::Error { kind, message, hint }]
        })
        .await;
        let what = json!({"what": {"secret": {"name": "n", "host": "h", "method": "GET", "path": "/"}}}).to_string();
        let asked = house.ask("POST", "/v1/requests", &what).await;
        let redeemed = house.ask("POST", &format!("/v1/requests/{ID}/redeem"), &what).await;
        assert_eq!((asked.status, redeemed.status), (asking, redeeming), "{kind:?}");
        assert_eq!(asked.json()["hint"], "do otherwise");
        for reply in [&asked, &redeemed] {
            fits(
                &json!({"$ref": "#/components/schemas/Problem"}),
                &reply.json(),
                "a problem",
            );
        }
        // A new request can be of an unknown one or an old one only by its ticket.
        if !matches!(asking, 404 | 409) {
            fits_the_description("post", "/v1/requests", &asked);
        }
        fits_the_description("post", "/v1/requests/{id}/redeem", &redeemed);
    }
}

#[tokio::test]
async fn a_gate_that_is_gone_is_no_yes() {
    let house = a_house(Then::HangsUp, |_| vec![]).await;
    for (method, path, body) in every_route()
        .into_iter()
        .filter(|(_, path, _)| !path.contains("openapi") && !path.contains("events"))
    {
        assert_eq!(house.ask(method, &path, &body).await.status, 503, "{path}");
    }
    // In the middle of an answer as well.
    let cut = a_house(Then::HangsUp, |_| permitted_and(vec![])).await;
    let what = every_route().swap_remove(4).2;
    assert_eq!(
        cut.ask("POST", &format!("/v1/requests/{ID}/redeem"), &what)
            .await
            .status,
        503
    );
}

#[tokio::test]
async fn what_was_allowed_is_done_and_its_output_comes_whole() {
    let house = a_house(Then::HangsUp, |_| {
        permitted_and(vec![
            Answer::Stdout("aGVsbG8g".to_owned()),
            Answer::Stderr("/w==".to_owned()),
            Answer::Stdout("d29ybGQ=".to_owned()),
            ended(ran()),
        ])
    })
    .await;
    let reply = house
        .ask("POST", &format!("/v1/requests/{ID}/redeem"), &ask_what())
        .await;
    let told = reply.json();
    assert_eq!(told["exit"], 3);
    assert_eq!(told["stdout"], json!({"text": "hello world", "cut": false}));
    assert_eq!(told["stderr"], json!({"base64": "/w==", "cut": false}));
    assert_eq!(told["because"], "approved by alice");
}

#[tokio::test]
async fn or_line_by_line() {
    let house = a_house(Then::HangsUp, |_| {
        permitted_and(vec![Answer::Stdout("aGk=".to_owned()), ended(ran())])
    })
    .await;
    let head = with(
        house.head("POST", &format!("/v1/requests/{ID}/redeem")),
        "Accept",
        Some("application/jsonl"),
    );
    let reply = house.send(&head, &ask_what()).await;
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("content-type: application/jsonl"));
    let lines: Vec<Value> = reply
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let keys: Vec<&String> = lines.iter().flat_map(|line| line.as_object().unwrap().keys()).collect();
    assert_eq!(keys, ["permitted", "stdout", "ended"]);
    assert_eq!(lines[2]["ended"]["exit"], 3);
    for line in &lines {
        fits(&json!({"$ref": "#/components/schemas/Line"}), line, "a line");
    }
}

#[tokio::test]
async fn hanging_up_ends_what_runs() {
    let house = a_house(Then::Waits, |_| permitted_and(vec![])).await;
    let path = format!("/v1/requests/{ID}/redeem");
    for accept in ["application/json", "application/jsonl"] {
        let head = with(house.head("POST", &path), "Accept", Some(accept));
        let stream = house.begin(&head, &ask_what()).await;
        house.gate.heard.notified().await;
        drop(stream);
        house.gate.left.notified().await;
    }
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let house = a_house(Then::Waits, |_| vec![Answer::Event(woken())]).await;
    let mut stream = house.begin(&house.head("GET", "/v1/events"), "").await;
    let mut text = String::new();
    while !(text.contains("data: ") && text.ends_with("\n\n\r\n")) {
        text.push(char::from(stream.read_u8().await.unwrap()));
    }
    assert!(text.contains("content-type: text/event-stream"));
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    let told: Value = serde_json::from_str(data).unwrap();
    assert_eq!(told["sentence"], "it was allowed");
    fits(&json!({"$ref": "#/components/schemas/Woken"}), &told, "an event");
    drop(stream);
    house.gate.left.notified().await;
}

#[tokio::test]
async fn every_answer_is_described_field_by_field() {
    let house = a_house(Then::HangsUp, |question| {
        vec![match question {
            Question::Request(_) => pending(),
            Question::Wait { .. } => Answer::State(Box::new(standing())),
            Question::Cancel { id } => Answer::Cancelled { id: id.clone() },
            Question::Redeem { .. } => return permitted_and(vec![Answer::Stdout("aGk=".to_owned()), ended(ran())]),
            Question::Tools { tools, .. } => Answer::Tools { visible: tools.clone() },
            Question::Explain(_) => Answer::Explained(Box::new(explained())),
            Question::Status {} => Answer::Status(Box::new(status())),
            other => panic!("{other:?}"),
        }]
    })
    .await;
    for (method, path, body) in every_route()
        .into_iter()
        .filter(|(_, path, _)| !path.contains("events"))
    {
        let reply = house.ask(method, &path, &body).await;
        let template = path.split('?').next().unwrap().replace(ID, "{id}");
        assert!(matches!(reply.status, 200 | 202), "{path}: {reply:?}");
        fits_the_description(&method.to_lowercase(), &template, &reply);
    }
    let allowed = Answer::Allowed {
        id: ID.to_owned(),
        expires: 1,
        sentence: "it is allowed".to_owned(),
        because: "rule 3".to_owned(),
    };
    let forbidden = Answer::Ended {
        id: ID.to_owned(),
        result: Ended::Forbidden(Forbidden { rule: Some(1) }),
        by: vec![],
        reason: Some("rule 1 forbids it".to_owned()),
    };
    for (answer, state) in [(allowed, "allowed"), (forbidden, "denied")] {
        let house = a_house(Then::HangsUp, move |question| match question {
            Question::Request(_) => vec![answer.clone()],
            _ => vec![Answer::State(Box::new(standing()))],
        })
        .await;
        let reply = house.ask("POST", "/v1/requests", &ask()).await;
        assert_eq!((reply.status, &reply.json()["state"]), (200, &state.into()));
        fits_the_description("post", "/v1/requests", &reply);
    }
}

#[test]
fn every_end_is_described() {
    let nothing = Nothing {};
    for ended in [
        ran(),
        Ended::Released(nothing),
        Ended::Failed(approval::outcome::Failed { error: Text::cut("x") }),
        Ended::Unknown(nothing),
        Ended::Denied(nothing),
        Ended::Expired(nothing),
        Ended::Withdrawn(nothing),
        Ended::Forbidden(Forbidden { rule: None }),
    ] {
        let value = serde_json::to_value(&ended).unwrap();
        fits(&json!({"$ref": "#/components/schemas/Ended"}), &value, "an end");
    }
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let described: BTreeSet<String> = openapi()["paths"].as_object().unwrap().keys().cloned().collect();
    let there: BTreeSet<String> = include_str!("routes.rs")
        .lines()
        .filter_map(|line| line.trim().strip_prefix(".route(\""))
        .filter_map(|line| line.split_once('"'))
        .map(|(path, _)| path.to_owned())
        .collect();
    assert_eq!(described, there);
    let tried: BTreeSet<(String, String)> = every_route()
        .into_iter()
        .map(|(method, path, _)| {
            (
                method.to_lowercase(),
                path.split('?').next().unwrap().replace(ID, "{id}"),
            )
        })
        .collect();
    let methods = openapi()["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            methods.map(|method| (method.clone(), path.clone())).collect::<Vec<_>>()
        })
        .collect::<BTreeSet<_>>();
    assert_eq!(tried, methods);
    assert_eq!(openapi()["security"], json!([{"token": []}]));
}

#[test]
fn every_question_is_described_field_by_field() {
    let ask = crate::local::Ask {
        what: crate::local::What::Command(crate::local::AskCommand {
            argv: vec!["ls".parse_bytes()],
            directory: "/".parse_bytes(),
            env: vec![("A".parse_bytes(), b"\xff".as_slice().parse_bytes())],
            stdin: Some(String::new()),
            wall_ms: Some(1),
            output_bytes: Some(1),
            memory_bytes: Some(1),
        }),
        reason: "x".to_owned(),
        agent: Some("a".to_owned()),
        under: vec!["b".to_owned()],
        user: Some("u".to_owned()),
        conversation: None,
        platform: None,
        expires_ms: Some(1),
        ticket: Some(approval::Id16([1; 16])),
    };
    let value = serde_json::to_value(&ask).unwrap();
    fits(&json!({"$ref": "#/components/schemas/Ask"}), &value, "a question");
    let fields = |schema: &str| -> BTreeSet<String> {
        openapi()["components"]["schemas"][schema]["properties"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect()
    };
    let own = |value: &Value| -> BTreeSet<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(fields("Ask"), own(&value));
    assert_eq!(fields("Command"), own(&value["what"]["command"]));
}

trait ParseBytes {
    fn parse_bytes(&self) -> approval::ByteString;
}

impl<T: AsRef<[u8]> + ?Sized> ParseBytes for T {
    fn parse_bytes(&self) -> approval::ByteString {
        approval::ByteString::new(self.as_ref().to_vec()).unwrap()
    }
}

fn openapi() -> Value {
    serde_json::from_str(routes::OPENAPI).unwrap()
}

fn fits_the_description(method: &str, path: &str, reply: &Reply) {
    let document = openapi();
    let response = &document["paths"][path][method]["responses"][reply.status.to_string()];
    let response = resolve(&document, response);
    let schema = &response["content"]["application/json"]["schema"];
    assert!(schema.is_object(), "{method} {path} {} isn't described", reply.status);
    fits(schema, &reply.json(), &format!("{method} {path} {}", reply.status));
}

fn resolve<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    match schema["$ref"].as_str() {
        Some(to) => document.pointer(&to[1..]).unwrap_or_else(|| panic!("{to} isn't there")),
        None => schema,
    }
}

fn fits(schema: &Value, value: &Value, place: &str) {
    if let Err(problem) = check(&openapi(), schema, value, place) {
        panic!("{problem}");
    }
}

/// As much of JSON Schema as the description uses; an object's fields must all be named, whether it is closed or not.
fn check(document: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let schema = resolve(document, schema);
    let refuse = |what: &str| Err(format!("{place}: {what}: {value} against {schema}"));
    if let Some(among) = schema["oneOf"].as_array().or(schema["anyOf"].as_array()) {
        let fitting = among
            .iter()
            .filter(|one| check(document, one, value, place).is_ok())
            .count();
        return if fitting > 0 { Ok(()) } else { refuse("fits none") };
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return refuse("no type"),
    };
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    if !types.contains(&kind) {
        return refuse("another type");
    }
    if schema["enum"].as_array().is_some_and(|words| !words.contains(value))
        || schema.get("const").is_some_and(|only| only != value)
    {
        return refuse("another word");
    }
    if let Value::Array(items) = value {
        for item in items {
            check(document, &schema["items"], item, place)?;
        }
    }
    if let (Value::Object(fields), Some(properties)) = (value, schema["properties"].as_object()) {
        for (name, field) in fields {
            let Some(property) = properties.get(name) else {
                return refuse(&format!("the field {name} isn't described"));
            };
            check(document, property, field, &format!("{place}.{name}"))?;
        }
        for required in schema["required"].as_array().into_iter().flatten() {
            if !fields.contains_key(required.as_str().unwrap()) {
                return refuse(&format!("the field {required} is missing"));
            }
        }
    } else if value.is_object() && schema["additionalProperties"] == false && value != &json!({}) {
        return refuse("not empty");
    }
    Ok(())
}

fn ask_what() -> String {
    json!({"what": {"command": {"argv": ["ls", "-l"], "directory": "/tmp"}}}).to_string()
}

fn pending() -> Answer {
    Answer::Pending {
        id: ID.to_owned(),
        expires: 1_800_000_000_000,
        need: 2,
        shown: "command".to_owned(),
        number: Some("421".to_owned()),
        sentence: crate::local::ASKED.to_owned(),
    }
}

fn permitted_and(mut rest: Vec<Answer>) -> Vec<Answer> {
    let permitted = Answer::Permitted {
        by: vec!["alice".to_owned()],
        because: "approved by alice".to_owned(),
    };
    rest.insert(0, permitted);
    rest
}

fn ended(result: Ended) -> Answer {
    Answer::Ended {
        id: ID.to_owned(),
        result,
        by: Vec::new(),
        reason: None,
    }
}

fn ran() -> Ended {
    let stream = Stream {
        sha256: Digest::of(b""),
        bytes: 0,
    };
    Ended::Ran(Ran {
        exit: Exit::Code(3),
        stdout: stream,
        stderr: stream,
        wall_ms: 5,
        stopped: None,
    })
}

fn standing() -> Standing {
    Standing {
        id: ID.to_owned(),
        asked_by: woken().asked_by,
        state: State::Denied,
        sentence: "it was denied".to_owned(),
        reason: Some("not today".to_owned()),
        by: vec!["alice".to_owned()],
        expires: 1_800_000_000_000,
        number: None,
        result: Some(Ended::Denied(Nothing {})),
    }
}

fn woken() -> Woken {
    Woken {
        id: ID.to_owned(),
        asked_by: AskedBy {
            agent: "main".parse().unwrap(),
            under: vec!["outer".parse().unwrap()],
            user: Some(Text::cut("telegram:4711")),
            conversation: None,
            platform: None,
        },
        state: State::Allowed,
        sentence: "it was allowed".to_owned(),
        reason: None,
    }
}

fn explained() -> Explained {
    Explained {
        verdict: Would::Ask,
        because: "rule 2 asks".to_owned(),
        rule: Some(2),
        line: Some(12),
        risk: Some("high".to_owned()),
        need: 2,
        people: vec!["alice".to_owned(), "bob".to_owned()],
        considered: vec!["rule 2 (line 12) asks".to_owned()],
        shown: "command".to_owned(),
    }
}

fn status() -> Status {
    Status {
        gate: "csid1".to_owned(),
        relay: "ws://127.0.0.1:1".to_owned(),
        connected: true,
        halted: Some("x".to_owned()),
        size: 7,
        epoch: 1,
        pending: 1,
        grants: 1,
        policy: true,
        unenrolled: Unenrolled::Refuse,
        confined: vec![Confined::Landlock],
        same_user: true,
        clock_ahead_ms: 0,
        devices: vec![DeviceStatus {
            party: "csid1".to_owned(),
            person: "alice".to_owned(),
            device: "laptop".to_owned(),
            acked: 7,
            heard: 1,
        }],
    }
}
