//! Crowds of sockets: what they weigh at rest, how they come back all at once, and what honest ones feel beside rude ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures_util::future::{join_all, try_join_all};
use rand_core::OsRng;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wire::mailbox::{Capability, MailboxKey};

use crate::line::{Line, PAYLOAD};
use crate::ours::{Address, OurLine};
use crate::server::{Kind, Server};
use crate::works::pair;

/// How many come at once when they needn't hurry.
const ABREAST: usize = 64;

/// How long a crowd rests before it is weighed.
const REST: Duration = Duration::from_millis(500);

/// How often an honest client says something.
const HONEST_EVERY: Duration = Duration::from_millis(200);

/// Clients that put what they may not, and clients that send frames which are too long.
const RUDE: usize = 8;

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
        match server.kind {
            Kind::Ours => {
                let keys: Vec<_> = (0..ABREAST).map(|_| MailboxKey::generate(&mut OsRng)).collect();
                crowd
                    .lines
                    .extend(try_join_all(keys.iter().map(|key| come(server.address, key))).await?);
                crowd.keys.extend(keys);
            }
            Kind::Redis => return Err(anyhow!("redis-server has no crowd here")),
            _ => crowd.lines.extend(
                try_join_all((0..ABREAST / 2).map(|_| pair(server, false)))
                    .await?
                    .into_iter()
                    .flatten(),
            ),
        }
    }
    for line in &mut crowd.lines {
        line.rest();
    }
    Ok(crowd)
}

async fn come(server: SocketAddr, key: &MailboxKey) -> Result<Line> {
    let mut line = OurLine::log_in(server, key).await?;
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
        let server = server.address;
        tasks.spawn(async move { come(server, &key).await });
    }
    let mut back = Vec::new();
    while let Some(line) = tasks.join_next().await {
        back.push(line??);
    }
    Ok((began.elapsed(), (server.spent()? - cpu) / count))
}

/// What honest clients felt, and what it took.
pub struct Felt {
    pub quiet: Vec<Duration>,
    pub flooded: Vec<Duration>,
    /// The most memory of the server meanwhile, in KiB.
    pub memory: u64,
    /// Puts refused.
    pub junk: u64,
}

/// Honest pairs that say something now and then, first alone, then beside slow sockets, junk and frames too long.
pub async fn flood(server: &Server, pairs: usize, slow: usize, each: Duration) -> Result<Felt> {
    let mut honest = Vec::new();
    while honest.len() < pairs {
        let more = ABREAST.min(pairs - honest.len());
        honest.extend(try_join_all((0..more).map(|_| pair(server, false))).await?);
    }
    let quiet = converse(&mut honest, each).await?;
    let rude = Rude::set_on(server.address, slow);
    // Until it is in full swing.
    sleep(REST).await;
    let flooded = converse(&mut honest, each).await;
    let memory = server.memory()?;
    let junk = rude.call_off();
    Ok(Felt {
        quiet,
        flooded: flooded?,
        memory,
        junk,
    })
}

/// How long each answer took, there and back.
async fn converse(honest: &mut [[Line; 2]], each: Duration) -> Result<Vec<Duration>> {
    let count = u32::try_from(honest.len())?;
    let talks = honest.iter_mut().zip(0u32..).map(|(ends, number)| async move {
        // Not all at the same moment.
        sleep(HONEST_EVERY * number / count).await;
        let (began, mut times) = (Instant::now(), Vec::new());
        while began.elapsed() < each {
            times.push(say_and_answer(ends).await?);
            sleep(HONEST_EVERY).await;
        }
        anyhow::Ok(times)
    });
    Ok(try_join_all(talks).await?.concat())
}

async fn say_and_answer(ends: &mut [Line; 2]) -> Result<Duration> {
    let began = Instant::now();
    for (from, to) in [(0, 1), (1, 0)] {
        ends[from].say();
        ends[from].flush().await?;
        while ends[to].heard().await?.delivered == 0 {}
    }
    let took = began.elapsed();
    // The acknowledgement of the answer, which the next question would have taken along.
    ends[0].flush().await?;
    Ok(took)
}

/// The rude, on a thread of their own: their load isn't to be taken for the server's slowness.
struct Rude {
    stop: Arc<AtomicBool>,
    junk: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Rude {
    fn set_on(server: SocketAddr, slow: usize) -> Self {
        let (stop, junk) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&junk));
        let thread = std::thread::spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                tokio::select! {
                    () = until(&stopped) => {}
                    _ = join_all((0..slow).map(|_| dawdle(server))) => {}
                    _ = join_all((0..RUDE).map(|_| over_and_over(|| junk_puts(server, &counted)))) => {}
                    _ = join_all((0..RUDE).map(|_| over_and_over(|| too_long(server)))) => {}
                }
            });
        });
        Self {
            stop,
            junk,
            thread: Some(thread),
        }
    }

    fn call_off(mut self) -> u64 {
        self.end();
        self.junk.load(Ordering::Relaxed)
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it did is over either way.
            let _ = thread.join();
        }
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.end();
    }
}

async fn until(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        sleep(Duration::from_millis(20)).await;
    }
}

/// Being thrown out is part of it.
async fn over_and_over<F: Future<Output = Result<()>>>(rudeness: impl Fn() -> F) {
    loop {
        let _ = rudeness().await;
        sleep(Duration::from_millis(5)).await;
    }
}

/// A request that never ends, a byte at a time.
async fn dawdle(server: SocketAddr) {
    over_and_over(|| async move {
        let mut stream = TcpStream::connect(server).await?;
        for byte in b"GET / HTTP/1.1\r\n" {
            stream.write_all(&[*byte]).await?;
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    })
    .await;
}

/// Puts with a capability that nobody gave.
async fn junk_puts(server: SocketAddr, refused: &AtomicU64) -> Result<()> {
    let key = MailboxKey::generate(&mut OsRng);
    let mut line = OurLine::log_in(server, &key).await?;
    line.dialect.aim(&Address {
        mailbox: *key.id().as_bytes(),
        capability: Capability::generate(&mut OsRng),
    });
    line.dialect.forgives = true;
    loop {
        for _ in 0..ABREAST {
            line.say();
        }
        let mut answered = 0;
        while answered < ABREAST as u64 {
            answered += line.heard().await?.stored;
        }
        refused.fetch_add(answered, Ordering::Relaxed);
    }
}

/// A message of sixteen MiB, as far as it gets.
async fn too_long(server: SocketAddr) -> Result<()> {
    let key = MailboxKey::generate(&mut OsRng);
    let mut line = OurLine::log_in(server, &key).await?;
    line.out = vec![0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    for _ in 0..1024 {
        line.out.extend([0; 16 * PAYLOAD]);
        timeout(Duration::from_secs(5), line.flush()).await??;
    }
    Ok(())
}
