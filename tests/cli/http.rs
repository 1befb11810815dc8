//! An agent that speaks HTTP: it asks, goes on, is woken, and does what was allowed, once. The gate, the relay and the admin are processes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use serde_json::{Value, json};

use super::site::Site;

/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The gate's loopback door, as a program without a library sees it.
struct Door {
    address: String,
    token: String,
}

impl Door {
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let body = body.map_or(String::new(), Value::to_string);
        let head = [
            format!("{method} {path} HTTP/1.1"),
            format!("Host: {}", self.address),
            format!("Authorization: Bearer {}", self.token),
            "Content-Type: application/json".to_owned(),
            "Connection: close".to_owned(),
            format!("Content-Length: {}", body.len()),
        ];
        write!(stream, "{}\r\n\r\n{body}", head.join("\r\n")).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn json(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let (status, body) = self.ask(method, path, body);
        (status, serde_json::from_str(&body).unwrap())
    }
}

/// Takes calls, and passes on what each says.
fn hook() -> (String, mpsc::Receiver<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/woken", listener.local_addr().unwrap());
    let (sender, calls) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut text = String::new();
            let mut byte = [0];
            let body = loop {
                stream.read_exact(&mut byte).unwrap();
                text.push(char::from(byte[0]));
                let body = text
                    .split_once("\r\n\r\n")
                    .and_then(|(_, body)| serde_json::from_str(body).ok());
                if let Some(body) = body {
                    break body;
                }
            };
            stream
                .write_all(b"HTTP/1.1 204 x\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            if sender.send(body).is_err() {
                return;
            }
        }
    });
    (url, calls)
}

/// Has the gate serve HTTP too, and call this address.
fn door(site: &mut Site, url: &str) -> Door {
    drop(site.gate.take());
    let serving = site.start("gate", &["gate", "serve", "--http", "--wake-url", url]);
    let said = serving.says("http on http://");
    site.gate = Some(serving);
    let (address, file) = said.split_once(", token in ").unwrap();
    Door {
        address: address.to_owned(),
        token: std::fs::read_to_string(file).unwrap(),
    }
}

#[test]
fn an_agent_asks_is_woken_and_does_it_once() {
    let mut site = Site::with(&["alice"]);
    let (url, calls) = hook();
    let door = door(&mut site, &url);
    let file = site.path("made").display().to_string();
    let what = json!({"command": {"argv": ["tee", "-a", file], "directory": "/", "stdin": "b25jZQo="}});

    let (status, asked) = door.json(
        "POST",
        "/v1/requests",
        Some(&json!({"what": what, "agent": "main/helper"})),
    );
    assert_eq!((status, &asked["state"]), (202, &json!("pending")));
    assert_eq!(
        asked["sentence"],
        "requesting admin permission for this action; you will be notified"
    );
    let request = format!("/v1/requests/{}", asked["id"].as_str().unwrap());
    let redeem = format!("{request}/redeem");
    assert_eq!(door.json("POST", &redeem, Some(&json!({"what": what}))).0, 409);
    assert!(!site.path("made").exists());

    let approved = site.at("alice", &["approve", &asked["id"].as_str().unwrap()[..8]]);
    assert_eq!(approved.code, 0, "{approved:?}");
    let woken = calls.recv_timeout(PATIENCE).unwrap();
    assert_eq!((&woken["id"], &woken["state"]), (&asked["id"], &json!("allowed")));
    assert_eq!(woken["asked_by"]["under"], json!(["main"]));
    assert_eq!(
        door.json("GET", &format!("{request}/wait?timeout=5"), None).1["state"],
        "allowed"
    );

    let another = json!({"what": {"command": {"argv": ["tee", "-a", file], "directory": "/", "stdin": "dHdpY2UK"}}});
    assert_eq!(door.json("POST", &redeem, Some(&another)).1["kind"], "another");
    let (status, done) = door.json("POST", &redeem, Some(&json!({"what": what})));
    assert_eq!((status, &done["exit"]), (200, &json!(0)), "{done}");
    assert_eq!(done["stdout"]["text"], "once\n");
    assert_eq!(done["because"], "approved by alice");
    let (status, again) = door.json("POST", &redeem, Some(&json!({"what": what})));
    assert_eq!((status, &again["kind"]), (409, &json!("used")));
    assert_eq!(std::fs::read_to_string(site.path("made")).unwrap(), "once\n");
    assert_eq!(door.json("GET", &request, None).1["state"], "used");
}

#[test]
fn a_denial_wakes_with_its_reason_and_what_is_taken_back_is_gone() {
    let mut site = Site::with(&["alice"]);
    let (url, calls) = hook();
    let door = door(&mut site, &url);
    let call = json!({"tool": {"server": "files", "tool": "delete", "schema": "0".repeat(64), "arguments": "{}"}});
    let ask = json!({"what": call});

    let asked = door.json("POST", "/v1/requests", Some(&ask)).1;
    let denied = site.at(
        "alice",
        &["deny", &asked["id"].as_str().unwrap()[..8], "--reason", "not today"],
    );
    assert_eq!(denied.code, 0, "{denied:?}");
    let woken = calls.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (&woken["state"], &woken["reason"]),
        (&json!("denied"), &json!("not today"))
    );
    let redeem = format!("/v1/requests/{}/redeem", asked["id"].as_str().unwrap());
    assert_eq!(door.json("POST", &redeem, Some(&ask)).0, 410);

    let asked = door.json("POST", "/v1/requests", Some(&ask)).1;
    let request = format!("/v1/requests/{}", asked["id"].as_str().unwrap());
    assert_eq!(door.json("DELETE", &request, None).1["state"], "withdrawn");
    assert_eq!(door.json("GET", &request, None).1["state"], "withdrawn");
    assert_eq!(door.json("POST", &format!("{request}/redeem"), Some(&ask)).0, 410);
}
