//! Crowds of sockets: what they weigh at rest, logged in or not yet, and how they come back all at once.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use futures_util::future::try_join_all;
use rand_core::OsRng;
use tokio::task::JoinSet;
use tokio::time::sleep;
use wire::mailbox::MailboxKey;

use crate::door::{Door, Stream};
use crate::floor::Bare;
use crate::line::Line;
use crate::ours::OurLine;
use crate::server::{Kind, Server};
use crate::works::{dial, pair};

/// How many come at once when they needn't hurry.
pub const ABREAST: usize = 64;

/// How long a crowd rests before it is weighed.
pub const REST: Duration = Duration::from_millis(500);

/// A crowd that is there.
pub struct Crowd {
    lines: Vec<Line>,
    /// Ours come back as who they were.
    keys: Vec<MailboxKey>,
}

/// What a crowd at rest takes of the server's memory, in KiB for each socket. The server should be fresh: memory once used may
/// be used again without being seen.
pub async fn weigh(server: &Server, sockets: usize) -> Result<(f64, Crowd)> {
    // What the first connections bring about isn't theirs.
    drop(gather(server, ABREAST).await?);
    sleep(REST).await;
    let before = server.memory()?;
    let crowd = gather(server, sockets).await?;
    sleep(REST).await;
    let each = server.memory()?.saturating_sub(before) as f64 / sockets as f64;
    Ok((each, crowd))
}

async fn gather(server: &Server, sockets: usize) -> Result<Crowd> {
    let mut crowd = Crowd {
        lines: Vec::new(),
        keys: Vec::new(),
    };
    while crowd.lines.len() < sockets {
        if server.kind.is_ours() {
            let keys: Vec<_> = (0..ABREAST).map(|_| MailboxKey::generate(&mut OsRng)).collect();
            let coming = keys.iter().map(|key| come(&server.door, key));
            crowd.lines.extend(try_join_all(coming).await?);
            crowd.keys.extend(keys);
        } else if server.kind == Kind::Redis {
            bail!("redis-server has no crowd here");
        } else {
            let pairs = try_join_all((0..ABREAST / 2).map(|_| pair(server, false))).await?;
            crowd.lines.extend(pairs.into_iter().flatten());
        }
    }
    for line in &mut crowd.lines {
        line.rest();
    }
    Ok(crowd)
}

async fn come(door: &Door, key: &MailboxKey) -> Result<Line> {
    let mut line = OurLine::log_in(door, key).await?;
    line.read_mailbox().await?;
    Ok(line.into_dyn())
}

/// How long it takes until all of ours are back that left at once, and processor time for each.
pub async fn storm(server: &Server, crowd: Crowd) -> Result<(Duration, Duration)> {
    let Crowd { lines, keys } = crowd;
    drop(lines);
    let (cpu, began) = (server.spent()?, Instant::now());
    let count = u32::try_from(keys.len())?;
    let mut tasks = JoinSet::new();
    for key in keys {
        let door = server.door.clone();
        tasks.spawn(async move { come(&door, &key).await });
    }
    let mut back = Vec::new();
    while let Some(line) = tasks.join_next().await {
        back.push(line??);
    }
    Ok((began.elapsed(), (server.spent()? - cpu) / count))
}

/// How far those come who never log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// They connect and say nothing.
    Connected,
    /// They make a websocket of it and leave the challenge unanswered.
    Upgraded,
}

/// One of them, there as long as it is kept.
#[expect(dead_code, reason = "kept open, never spoken to")]
enum Silent {
    Connected(Stream),
    Upgraded(Line),
}

/// What a stranger takes of our memory, in KiB. They must all be there before the first is thrown out.
pub async fn weigh_strangers(server: &Server, strangers: usize, how: Stranger) -> Result<f64> {
    drop(silent(server, ABREAST, how).await?);
    sleep(REST).await;
    let before = server.memory()?;
    let there = silent(server, strangers, how).await?;
    sleep(REST).await;
    let each = server.memory()?.saturating_sub(before) as f64 / there.len() as f64;
    Ok(each)
}

async fn silent(server: &Server, count: usize, how: Stranger) -> Result<Vec<Silent>> {
    let mut there = Vec::new();
    while there.len() < count {
        let more = (0..ABREAST).map(|_| async move {
            Ok::<_, anyhow::Error>(match how {
                Stranger::Connected => Silent::Connected(server.door.open().await?),
                Stranger::Upgraded => {
                    let mut line = dial(server, Bare).await?;
                    line.upgrade("/").await?;
                    line.rest();
                    Silent::Upgraded(line)
                }
            })
        });
        there.extend(try_join_all(more).await?);
    }
    Ok(there)
}
