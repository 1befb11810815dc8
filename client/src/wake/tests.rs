//! Waking: a program that is run, an address that is called, and what neither may do.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use super::*;

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use approval::request::AskedBy;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::caller::scripted::{Scripted, Then};
use crate::local::State;

fn woken(id: &str) -> Woken {
    Woken {
        id: id.to_owned(),
        asked_by: AskedBy {
            agent: "main".parse().unwrap(),
            under: Vec::new(),
            user: None,
            conversation: None,
            platform: None,
        },
        state: State::Allowed,
        sentence: "alice approved; go on".to_owned(),
        reason: None,
    }
}

fn shell(script: &str, arguments: &[&Path]) -> Command {
    let words = ["sh", "-c", script, "sh"].into_iter().map(OsString::from);
    let arguments = arguments.iter().map(|path| path.as_os_str().to_owned());
    Command::new(words.chain(arguments)).unwrap()
}

#[tokio::test]
async fn a_program_is_told_what_happened_and_nothing_of_ours() {
    let folder = tempfile::tempdir().unwrap();
    let (event, env) = (folder.path().join("event"), folder.path().join("env"));
    let gate = Scripted::gate(Then::Waits, |question| {
        assert!(matches!(question, Question::Events {}));
        vec![Answer::Event(woken("one"))]
    });
    let done = folder.path().join("done");
    let made = std::process::Command::new("mkfifo").arg(&done).status().unwrap();
    assert!(made.success());
    let script = r#"cat >"$1"; /usr/bin/env >"$2"; echo >"$3""#;
    let wake = Wake {
        command: Some(shell(script, &[&event, &env, &done])),
        webhook: None,
    };
    let serving = tokio::spawn(wake.serve(gate.socket()));
    tokio::fs::read(&done).await.unwrap();
    serving.abort();
    let told: Value = serde_json::from_slice(&std::fs::read(&event).unwrap()).unwrap();
    assert_eq!(
        (&told["id"], &told["state"], &told["v"]),
        (&"one".into(), &"allowed".into(), &1.into())
    );
    assert_eq!(told["sentence"], "alice approved; go on");
    // The shell's own variables, and none of ours.
    for line in std::fs::read_to_string(&env).unwrap().lines() {
        let (name, _) = line.split_once('=').unwrap();
        assert!(["PATH", "PWD", "OLDPWD", "SHLVL", "_"].contains(&name), "{line}");
    }
}

#[tokio::test]
async fn a_program_that_hangs_is_ended_with_all_that_it_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let command = shell(r#"sleep 1000 & echo $! >"$1"; sleep 1000"#, &[&file]);
    command.within(Duration::from_millis(500)).run(b"{}".to_vec()).await;
    let pid: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    // Killed for certain; buried by whoever inherits it.
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    assert!(state.is_err() || state.unwrap().contains(") Z "), "{pid} still runs");
}

#[tokio::test]
async fn a_program_that_reads_nothing_holds_nobody_up() {
    let long = vec![b'x'; 1 << 20];
    shell("exit 1", &[]).run(long).await;
    Command::new([OsString::from("/nowhere/at/all")])
        .unwrap()
        .run(Vec::new())
        .await;
    assert!(Command::new([]).is_none() && Command::new([OsString::new()]).is_none());
}

/// A server that answers each call with the next of these statuses, and keeps what was sent.
async fn server(statuses: &'static [u16]) -> (std::net::SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        let mut calls = Vec::new();
        for status in statuses {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut text = String::new();
            while !text.ends_with("\r\n\r\n") {
                text.push(char::from(stream.read_u8().await.unwrap()));
            }
            let length = text
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .unwrap();
            let mut body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut body).await.unwrap();
            text.push_str(&String::from_utf8(body).unwrap());
            calls.push(text);
            let answer = format!("HTTP/1.1 {status} x\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:1/\r\n\r\n");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        calls
    });
    (address, serving)
}

fn webhook(address: std::net::SocketAddr) -> Webhook {
    let webhook: Webhook = format!("http://{address}/hook?agent=main").parse().unwrap();
    webhook.backing_off(Duration::from_millis(1))
}

#[tokio::test]
async fn an_address_is_called_until_it_takes_it() {
    let (address, serving) = server(&[503, 429, 204]).await;
    webhook(address).call(message(&woken("one")).unwrap().into()).await;
    let calls = serving.await.unwrap();
    assert_eq!(calls.len(), 3);
    for call in &calls {
        let (head, body) = call.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /hook?agent=main HTTP/1.1"), "{head}");
        assert!(head.contains(&format!("host: {address}")), "{head}");
        assert!(head.contains("content-type: application/json"), "{head}");
        assert_eq!(serde_json::from_str::<Value>(body).unwrap()["id"], "one");
    }
}

#[tokio::test]
async fn an_address_that_refuses_or_redirects_is_not_followed() {
    for refusal in [&[404], &[401]] {
        let (address, serving) = server(refusal).await;
        // Returns after one call: a second would find nobody and be tried again, but a refusal isn't.
        webhook(address).call(b"{}".to_vec().into()).await;
        assert_eq!(serving.await.unwrap().len(), 1);
    }
    let (address, serving) = server(&[302, 302, 302, 302, 302]).await;
    webhook(address).call(b"{}".to_vec().into()).await;
    assert_eq!(serving.await.unwrap().len(), 5);
}

#[tokio::test]
async fn the_whole_way_from_the_gate_to_the_address() {
    let gate = Scripted::gate(Then::Waits, |_| {
        vec![Answer::Event(woken("one")), Answer::Event(woken("two"))]
    });
    let (address, serving) = server(&[200, 200]).await;
    let wake = Wake {
        command: None,
        webhook: Some(webhook(address)),
    };
    let waking = tokio::spawn(wake.serve(gate.socket()));
    let calls = serving.await.unwrap();
    waking.abort();
    assert!(calls[0].contains(r#""id":"one""#) && calls[1].contains(r#""id":"two""#));
}

#[tokio::test]
async fn a_gate_that_restarts_is_listened_to_again() {
    // Hangs up after each event: every further one is a new connection.
    let gate = Arc::new(Scripted::gate(Then::HangsUp, |_| vec![Answer::Event(woken("again"))]));
    let (address, serving) = server(&[200, 200]).await;
    let wake = Wake {
        command: None,
        webhook: Some(webhook(address)),
    };
    let waking = tokio::spawn(wake.serve(gate.socket()));
    assert_eq!(serving.await.unwrap().len(), 2);
    waking.abort();
}

#[test]
fn plain_http_stays_on_this_machine() {
    for good in [
        "http://127.0.0.1:1234/x",
        "http://localhost/x",
        "http://[::1]:1/",
        "https://agent.example/x",
    ] {
        assert!(good.parse::<Webhook>().is_ok(), "{good}");
    }
    for bad in [
        "http://agent.example/x",
        "http://192.0.2.1/",
        "http://127.0.0.1.nip.io/",
        "http://localhost.example/",
    ] {
        assert!(matches!(bad.parse::<Webhook>(), Err(WebhookError::Plain(_))), "{bad}");
    }
    for bad in ["http://user:secret@127.0.0.1/", "https://token@agent.example/"] {
        assert!(matches!(bad.parse::<Webhook>(), Err(WebhookError::Secret)), "{bad}");
    }
    for bad in [
        "",
        "agent.example",
        "/x",
        "ftp://127.0.0.1/",
        "http://",
        "file:///etc/passwd",
        "http:///x",
    ] {
        assert!(
            matches!(bad.parse::<Webhook>(), Err(WebhookError::Malformed(_))),
            "{bad}"
        );
    }
}
