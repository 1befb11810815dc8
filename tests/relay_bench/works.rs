//! What servers are made to do, message by message: the same work for each, at most so many messages on their way at once. Not here:
//! readers who are away (`away`), crowds of sockets (`crowd`), and what the numbers mean (`bounds`).

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, bail};
use futures_util::future::try_join_all;
use rand_core::OsRng;
use tokio::task::JoinSet;
use tokio::time::sleep;
use wire::mailbox::MailboxKey;

use crate::floor::{Bare, path};
use crate::line::{Dialect, Line};
use crate::ours::{Address, OurLine};
use crate::peers::{Mqtt, Nats};
use crate::server::{Kind, Server};

/// What a round came to.
#[derive(Clone, Debug, Default)]
pub struct Round {
    pub messages: u64,
    pub cpu: Duration,
    pub wall: Duration,
    /// Of exchanges there and back, if it was about that.
    pub times: Vec<Duration>,
}

impl Round {
    /// Server processor time of a message, in microseconds.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.messages.max(1) as f64
    }

    /// Takes another's messages and times in.
    pub fn add(&mut self, other: Self) {
        self.messages += other.messages;
        self.cpu += other.cpu;
        self.wall += other.wall;
    }

    pub fn rate(&self) -> f64 {
        self.messages as f64 / self.wall.as_secs_f64().max(1e-9)
    }
}

/// When a message is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Done {
    /// When it has arrived.
    Delivered,
    /// When it has arrived and its sender knows that it is safe.
    Both,
}

/// Messages in one direction, so many on their way at once.
struct Flow {
    sender: Line,
    reader: Line,
    window: u64,
    done: Done,
    said: u64,
    delivered: u64,
    stored: u64,
}

/// What the tasks of a work share.
#[derive(Clone, Default)]
struct Board {
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Board {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Flow {
    fn finished(&self) -> u64 {
        if self.done == Done::Both {
            self.delivered.min(self.stored)
        } else {
            self.delivered
        }
    }

    fn poll(&mut self, context: &mut Context<'_>, board: &Board) -> Poll<Result<()>> {
        loop {
            let before = self.finished();
            while !board.stopped() && self.said - before < self.window {
                self.sender.say();
                self.said += 1;
            }
            let (sent, acknowledged) = (self.sender.poll_flush(context)?, self.reader.poll_flush(context)?);
            let (told, got) = (self.sender.poll_hear(context)?, self.reader.poll_hear(context)?);
            if let Poll::Ready(told) = told {
                self.stored += told.stored;
            }
            if let Poll::Ready(got) = got {
                self.delivered += got.delivered;
            }
            board.done.fetch_add(self.finished() - before, Ordering::Relaxed);
            let all_told = !self.sender.dialect.is_told_stored() || self.stored == self.said;
            if board.stopped() && self.delivered == self.said && all_told && sent.is_ready() && acknowledged.is_ready()
            {
                return self.reader.poll_flush(context);
            }
            if told.is_pending() && got.is_pending() {
                return Poll::Pending;
            }
        }
    }
}

/// Messages there and back, one on its way: each end answers what it gets.
struct Exchange {
    ends: [Line; 2],
    turn: usize,
    began: Option<Instant>,
    times: Vec<Duration>,
}

impl Exchange {
    fn poll(&mut self, context: &mut Context<'_>, board: &Board) -> Poll<Result<()>> {
        loop {
            if self.began.is_none() && self.turn == 0 {
                if board.stopped() {
                    return Poll::Ready(Ok(()));
                }
                self.began = Some(Instant::now());
                self.ends[0].say();
            }
            let mut moved = false;
            for end in 0..2 {
                let _ = self.ends[end].poll_flush(context)?;
                while let Poll::Ready(tally) = self.ends[end].poll_hear(context)? {
                    moved = true;
                    if tally.delivered == 0 {
                        continue;
                    }
                    if end == self.turn {
                        return Poll::Ready(Err(anyhow!("a message came back to its sender")));
                    }
                    board.done.fetch_add(1, Ordering::Relaxed);
                    self.turn = end;
                    if end == 1 {
                        // The acknowledgement goes with it.
                        self.ends[1].say();
                    } else if let Some(began) = self.began.take() {
                        self.times.push(began.elapsed());
                    }
                }
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }
}

/// For so long, after so much warming up.
#[derive(Clone, Copy)]
pub struct Span {
    pub warm: Duration,
    pub measured: Duration,
}

async fn watch<T: Send + 'static>(
    server: &Server,
    span: Span,
    board: &Board,
    mut tasks: JoinSet<Result<T>>,
) -> Result<(Round, Vec<T>)> {
    let look = async {
        sleep(span.warm).await;
        let (cpu, done, began) = (server.spent()?, board.done.load(Ordering::Relaxed), Instant::now());
        sleep(span.measured).await;
        let round = Round {
            wall: began.elapsed(),
            messages: board.done.load(Ordering::Relaxed) - done,
            cpu: server.spent()? - cpu,
            times: Vec::new(),
        };
        board.stop.store(true, Ordering::Relaxed);
        anyhow::Ok(round)
    };
    let round = tokio::select! {
        round = look => round?,
        // None ends before it is told to, unless something is wrong.
        Some(ended) = tasks.join_next() => match ended? {
            Err(error) => return Err(error),
            Ok(_) => bail!("a pair ended by itself"),
        },
    };
    let mut ends = Vec::new();
    while let Some(end) = tasks.join_next().await {
        ends.push(end??);
    }
    Ok((round, ends))
}

/// Many on their way at once, in so many pairs.
pub async fn stream(server: &Server, pairs: usize, window: u64, done: Done, span: Span) -> Result<Round> {
    let (board, mut tasks) = (Board::default(), JoinSet::new());
    for [sender, reader] in try_join_all((0..pairs).map(|_| pair(server, done == Done::Both))).await? {
        let mut flow = Flow {
            sender,
            reader,
            window,
            done,
            said: 0,
            delivered: 0,
            stored: 0,
        };
        let board = board.clone();
        tasks.spawn(async move { poll_fn(|context| flow.poll(context, &board)).await });
    }
    Ok(watch(server, span, &board, tasks).await?.0)
}

/// One on its way for each pair, there and back in turn.
pub async fn exchange(server: &Server, pairs: usize, span: Span) -> Result<Round> {
    let (board, mut tasks) = (Board::default(), JoinSet::new());
    for ends in try_join_all((0..pairs).map(|_| pair(server, false))).await? {
        let mut exchange = Exchange {
            ends,
            turn: 0,
            began: None,
            times: Vec::new(),
        };
        let board = board.clone();
        tasks.spawn(async move {
            poll_fn(|context| exchange.poll(context, &board)).await?;
            Ok(exchange.times)
        });
    }
    let (mut round, times) = watch(server, span, &board, tasks).await?;
    round.times = times.concat();
    Ok(round)
}

/// Two clients of a server, each of which sends to the other.
pub async fn pair(server: &Server, durable: bool) -> Result<[Line; 2]> {
    let path = path();
    let [one, other] = ["a", "b"].map(|end| format!("{}{end}", &path[1..]));
    Ok(match server.kind {
        Kind::Floor => {
            let mut ends = [dial(server, Bare).await?, dial(server, Bare).await?];
            for end in &mut ends {
                end.upgrade(&path).await?;
            }
            ends
        }
        Kind::Ours | Kind::OursTls | Kind::OursPostgres => {
            let ((mut one, to_one), (mut other, to_other)) = (party(server).await?, party(server).await?);
            one.dialect.aim(&to_other);
            other.dialect.aim(&to_one);
            [one.into_dyn(), other.into_dyn()]
        }
        Kind::Nats => {
            let mut ends = [
                dial(server, Nats::new(&other)).await?,
                dial(server, Nats::new(&one)).await?,
            ];
            for (end, own) in ends.iter_mut().zip([one, other]) {
                end.out = Nats::hello(&own);
                end.flush().await?;
                end.read_to(b"PONG\r\n").await?;
            }
            ends
        }
        Kind::Mosquitto => {
            let mut ends = [
                dial(server, Mqtt::new(&other, durable)).await?,
                dial(server, Mqtt::new(&one, durable)).await?,
            ];
            for (end, own) in ends.iter_mut().zip([one, other]) {
                greet_mosquitto(end, &own, durable).await?;
            }
            ends
        }
        Kind::Redis | Kind::JetStream | Kind::JetStreamAlways => bail!("{} delivers nothing here", server.kind.name()),
    })
}

pub async fn dial(server: &Server, dialect: impl Dialect + 'static) -> Result<Line> {
    Line::dial(&server.door, Box::new(dialect) as Box<dyn Dialect>).await
}

pub async fn greet_mosquitto(line: &mut Line, own: &str, durable: bool) -> Result<()> {
    line.out = [Mqtt::hello(own, durable), Mqtt::subscribe(own, durable)].concat();
    line.flush().await?;
    line.next().await?;
    line.next().await?;
    Ok(())
}

/// A client of ours with a mailbox that it reads, and where that is.
async fn party(server: &Server) -> Result<(OurLine, Address)> {
    let key = MailboxKey::generate(&mut OsRng);
    let mut line = OurLine::log_in(&server.door, &key).await?;
    let address = line.allow(&key).await?;
    line.read_mailbox().await?;
    Ok((line, address))
}
