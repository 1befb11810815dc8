//! A program on the gate's machine, as the gate's socket sees it: one question, one line of JSON for each answer (`countersign::local`).

use std::path::Path;

use approval::Digest;
use approval::outcome::Ended;
use approval::scalar::ByteString;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::local::{Answer, Ask, AskCommand, Confirm, Fault, Question, What};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::PATIENCE;

/// A command to ask for, with nothing special about it.
#[must_use]
pub fn command(argv: &[&str], directory: &Path) -> Ask {
    Ask {
        reason: "because the story wants it".to_owned(),
        agent: Some("agent".to_owned()),
        ..Ask::of(What::Command(line(argv, directory)))
    }
}

/// A command line, with nothing special about it.
#[must_use]
pub fn line(argv: &[&str], directory: &Path) -> AskCommand {
    let bytes = |text: &str| ByteString::new(text.as_bytes()).expect("no zero in it");
    AskCommand {
        argv: argv.iter().copied().map(bytes).collect(),
        directory: bytes(directory.to_str().expect("a path in UTF-8")),
        env: Vec::new(),
        stdin: None,
        wall_ms: None,
        output_bytes: None,
        memory_bytes: None,
    }
}

/// One local connection.
pub struct Local {
    read: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Local {
    /// Asks the gate of this home.
    pub async fn asks(home: &Path, question: &Question) -> Self {
        let stream = UnixStream::connect(home.join("gate.sock"))
            .await
            .expect("the gate listens");
        let (read, write) = stream.into_split();
        let mut local = Self {
            read: BufReader::new(read).lines(),
            write,
        };
        local.says(question).await;
        local
    }

    async fn says(&mut self, message: &impl Serialize) {
        let mut line = serde_json::to_vec(message).expect("JSON");
        line.push(b'\n');
        let _ = self.write.write_all(&line).await;
    }

    /// The next answer; nothing when the gate hung up.
    pub async fn hears(&mut self) -> Option<Answer> {
        let line = timeout(PATIENCE, self.read.next_line())
            .await
            .expect("the gate answers in time")
            .ok()
            .flatten()?;
        Some(serde_json::from_str(&line).expect("an answer"))
    }
}

/// A request that was asked for, and whoever waits for it.
pub struct Asking {
    /// The request.
    pub id: Digest,
    /// When it expires, ms since 1970.
    pub expires: u64,
    /// How many must approve.
    pub need: u16,
    /// What only whoever asked is shown.
    pub number: Option<String>,
    local: Local,
    /// What was heard so far.
    pub heard: Vec<Answer>,
}

/// How it ended, as the asker was told.
#[derive(Debug)]
pub struct End {
    /// The request.
    pub id: Digest,
    /// How.
    pub result: Ended,
    /// Who approved.
    pub approved_by: Vec<String>,
    /// Who or what allowed it.
    pub because: String,
    /// Who denied.
    pub denied_by: Vec<String>,
    /// What they said.
    pub reason: Option<String>,
    /// Standard output.
    pub stdout: Vec<u8>,
}

impl End {
    /// The end among what was heard.
    pub(super) fn of(heard: &[Answer]) -> Option<Self> {
        let (mut approved_by, mut because, mut stdout) = (Vec::new(), String::new(), Vec::new());
        for answer in heard {
            match answer {
                Answer::Permitted { by, because: why } => {
                    approved_by.clone_from(by);
                    because.clone_from(why);
                }
                Answer::Stdout(piece) => stdout.extend(STANDARD.decode(piece).expect("base64")),
                Answer::Ended { id, result, by, reason } => {
                    return Some(Self {
                        id: id.parse().expect("a digest"),
                        result: result.clone(),
                        approved_by,
                        because,
                        denied_by: by.clone(),
                        reason: reason.clone(),
                        stdout,
                    });
                }
                Answer::Error { message, .. } => panic!("an error instead of an end: {message}"),
                _ => {}
            }
        }
        None
    }

    /// Whether it ran to its own end with exit code 0.
    #[must_use]
    pub fn ran(&self) -> bool {
        matches!(&self.result, Ended::Ran(ran) if ran.exit == approval::outcome::Exit::Code(0) && ran.stopped.is_none())
    }
}

impl Asking {
    /// Asks, and waits until it is pending.
    ///
    /// # Errors
    /// Why the gate doesn't even ask the admins.
    pub async fn begins(home: &Path, question: &Question) -> Result<Self, (Fault, String)> {
        let mut local = Local::asks(home, question).await;
        match local.hears().await {
            Some(Answer::Pending {
                id,
                expires,
                need,
                number,
                ..
            }) => Ok(Self {
                id: id.parse().expect("a digest"),
                expires,
                need,
                number,
                local,
                heard: Vec::new(),
            }),
            Some(Answer::Error { kind, message, .. }) => Err((kind, message)),
            other => panic!("neither pending nor an error: {other:?}"),
        }
    }

    /// Waits until it is permitted.
    pub async fn is_permitted(&mut self) {
        while !self
            .heard
            .iter()
            .any(|answer| matches!(answer, Answer::Permitted { .. }))
        {
            let answer = self.local.hears().await.expect("the gate goes on");
            self.heard.push(answer);
        }
    }

    /// Waits until so many have approved.
    pub async fn has(&mut self, approvals: u16) {
        let enough = |answer: &Answer| matches!(answer, Answer::Progress { have, .. } if *have >= approvals);
        while !self.heard.iter().any(enough) {
            let answer = self.local.hears().await.expect("the gate goes on");
            self.heard.push(answer);
        }
    }

    /// Waits until the command has written something.
    pub async fn has_written(&mut self) {
        while !self.heard.iter().any(|answer| matches!(answer, Answer::Stdout(_))) {
            let answer = self.local.hears().await.expect("the gate goes on");
            self.heard.push(answer);
        }
    }

    /// Waits for the end.
    pub async fn ends(mut self) -> End {
        loop {
            if let Some(end) = self.ended() {
                return end;
            }
            let answer = self.local.hears().await.expect("the gate tells the end");
            self.heard.push(answer);
        }
    }

    /// Waits for the end, or for the gate to say that it doesn't sign any more.
    pub async fn ends_or_hears_that_the_gate_stopped(mut self) -> Option<End> {
        loop {
            if self.heard.iter().any(|answer| {
                matches!(
                    answer,
                    Answer::Error {
                        kind: Fault::Broken,
                        ..
                    }
                )
            }) {
                return None;
            }
            if let Some(end) = self.ended() {
                return Some(end);
            }
            let answer = self.local.hears().await.expect("the gate tells the end");
            self.heard.push(answer);
        }
    }

    /// Waits until the gate hangs up without a last word.
    pub async fn is_hung_up_on(&mut self) {
        while let Some(answer) = self.local.hears().await {
            assert!(!matches!(answer, Answer::Ended { .. }), "it has ended: {answer:?}");
            self.heard.push(answer);
        }
    }

    fn ended(&self) -> Option<End> {
        let end = End::of(&self.heard)?;
        assert_eq!(end.id, self.id, "the end of another request");
        Some(end)
    }

    /// Goes away.
    pub fn leaves(self) {}
}

/// An invite that somebody at the gate waits for.
pub struct Inviting {
    /// The link.
    pub link: String,
    local: Local,
}

impl Inviting {
    /// Asks for an invite.
    pub async fn begins(home: &Path, question: &Question) -> Self {
        let mut local = Local::asks(home, question).await;
        match local.hears().await {
            Some(Answer::Invite { link, .. }) => Self { link, local },
            other => panic!("no invite: {other:?}"),
        }
    }

    /// The code that the gate shows.
    pub async fn code(&mut self) -> String {
        match self.local.hears().await {
            Some(Answer::Code { code, .. }) => code,
            other => panic!("no code: {other:?}"),
        }
    }

    /// Says whether both codes are the same.
    pub async fn confirms(&mut self, confirm: bool) -> Answer {
        self.local.says(&Confirm { confirm }).await;
        self.ends().await
    }

    /// The last word.
    pub async fn ends(&mut self) -> Answer {
        self.local.hears().await.expect("a last word")
    }
}
