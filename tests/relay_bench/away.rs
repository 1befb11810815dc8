//! Readers who are away: what is put for them until all of it is safe, and what it costs when they come back for it.

use std::future::poll_fn;
use std::task::{Poll, ready};
use std::time::Instant;

use anyhow::{Result, bail};
use rand_core::OsRng;
use tokio::task::JoinSet;
use wire::mailbox::MailboxKey;

use crate::floor::path;
use crate::line::Line;
use crate::ours::OurLine;
use crate::peers::{JetStream, Mqtt, Redis};
use crate::server::{Kind, Server};
use crate::works::{Round, dial, greet_mosquitto};

/// Readers who are away, and those who write to them meanwhile.
pub struct Away {
    senders: Vec<Line>,
    readers: Vec<Absent>,
    /// How many wait for each reader.
    pub each: u64,
}

/// How a reader comes back.
enum Absent {
    Ours(MailboxKey),
    Mosquitto(String),
    /// Not at all: what was put is forgotten by saying this, if not when the server ends.
    Never(Option<Vec<u8>>),
}

impl Away {
    /// So many pairs whose readers were there once.
    pub async fn new(server: &Server, pairs: usize) -> Result<Self> {
        let mut away = Self {
            senders: Vec::new(),
            readers: Vec::new(),
            each: 0,
        };
        for _ in 0..pairs {
            let name = path()[1..].to_owned();
            let (sender, reader): (Line, _) = match server.kind {
                Kind::Ours | Kind::OursTls | Kind::OursPostgres => {
                    let key = MailboxKey::generate(&mut OsRng);
                    let address = OurLine::log_in(&server.door, &key).await?.allow(&key).await?;
                    let mut sender = OurLine::log_in(&server.door, &MailboxKey::generate(&mut OsRng)).await?;
                    sender.dialect.aim(&address);
                    (sender.into_dyn(), Absent::Ours(key))
                }
                Kind::Mosquitto => {
                    let mut reader = dial(server, Mqtt::new(&name, true)).await?;
                    greet_mosquitto(&mut reader, &name, true).await?;
                    let mut sender = dial(server, Mqtt::new(&name, true)).await?;
                    greet_mosquitto(&mut sender, &format!("{name}s"), false).await?;
                    (sender, Absent::Mosquitto(name))
                }
                Kind::Redis => {
                    let forget = Some(Redis::forget(&name));
                    (dial(server, Redis::new(&name)).await?, Absent::Never(forget))
                }
                Kind::JetStream | Kind::JetStreamAlways => {
                    let mut sender = dial(server, JetStream::new(&name)).await?;
                    sender.out = JetStream::hello(&name);
                    sender.heard().await?;
                    (sender, Absent::Never(None))
                }
                Kind::Floor | Kind::Nats => bail!("{} keeps nothing", server.kind.name()),
            };
            away.senders.push(sender);
            away.readers.push(reader);
        }
        Ok(away)
    }

    /// Puts so many for each reader, and waits until all are safe.
    pub async fn enqueue(&mut self, server: &Server, each: u64, window: u64) -> Result<Round> {
        let (cpu, began) = (server.spent()?, Instant::now());
        let mut tasks = JoinSet::new();
        for mut sender in self.senders.drain(..) {
            tasks.spawn(async move {
                let (mut said, mut stored) = (0, 0);
                poll_fn(|context| {
                    while stored < each {
                        while said < each && said - stored < window {
                            sender.say();
                            said += 1;
                        }
                        let _ = sender.poll_flush(context)?;
                        stored += ready!(sender.poll_hear(context))?.stored;
                    }
                    Poll::Ready(anyhow::Ok(()))
                })
                .await?;
                anyhow::Ok(sender)
            });
        }
        while let Some(sender) = tasks.join_next().await {
            self.senders.push(sender??);
        }
        self.each += each;
        Ok(Round {
            messages: each * self.senders.len() as u64,
            cpu: server.spent()? - cpu,
            wall: began.elapsed(),
            times: Vec::new(),
        })
    }

    /// Lets every reader come back and take all that waits, at once.
    pub async fn drain(&mut self, server: &Server) -> Result<Round> {
        let (cpu, began) = (server.spent()?, Instant::now());
        let (mut tasks, each) = (JoinSet::new(), self.each);
        for reader in &self.readers {
            let mut line = match reader {
                Absent::Ours(key) => {
                    let mut line = OurLine::log_in(&server.door, key).await?;
                    line.read_mailbox().await?;
                    line.into_dyn()
                }
                Absent::Mosquitto(name) => {
                    let mut line = dial(server, Mqtt::new(name, true)).await?;
                    line.out = Mqtt::hello(name, true);
                    line
                }
                // In `forget`.
                Absent::Never(_) => bail!("{} delivers nothing here", server.kind.name()),
            };
            tasks.spawn(async move {
                let mut delivered = 0;
                poll_fn(|context| {
                    loop {
                        let flushed = line.poll_flush(context)?;
                        if delivered >= each && flushed.is_ready() {
                            return Poll::Ready(anyhow::Ok(()));
                        }
                        delivered += ready!(line.poll_hear(context))?.delivered;
                    }
                })
                .await
            });
        }
        while let Some(end) = tasks.join_next().await {
            end??;
        }
        self.each = 0;
        Ok(Round {
            messages: each * self.readers.len() as u64,
            cpu: server.spent()? - cpu,
            wall: began.elapsed(),
            times: Vec::new(),
        })
    }

    /// Frees the disk of what nobody comes back for.
    pub async fn forget(mut self) -> Result<()> {
        for (sender, reader) in self.senders.iter_mut().zip(&self.readers) {
            if let Absent::Never(Some(forget)) = reader {
                sender.out.extend(forget);
                sender.flush().await?;
                sender.next().await?;
            }
        }
        Ok(())
    }
}
