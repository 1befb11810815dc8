//! A flood: what honest clients of ours feel beside rude ones. The rude are slow sockets, junk puts and frames that announce far too
//! much, to numbers that are fixed beforehand.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use futures_util::future::{join_all, try_join_all};
use rand_core::OsRng;
use tokio::io::AsyncWriteExt;
use tokio::time::{sleep, timeout};
use wire::mailbox::{Capability, MailboxKey};

use crate::crowd::{ABREAST, REST};
use crate::door::Door;
use crate::line::{Line, PAYLOAD};
use crate::ours::{Address, OurLine};
use crate::server::Server;
use crate::works::pair;

/// How often an honest client says something.
const HONEST_EVERY: Duration = Duration::from_millis(200);

/// Clients that send frames which are too long.
const LOUD: usize = 8;

/// Longer than this it isn't waited for the rude to be through.
const PATIENCE: Duration = Duration::from_secs(300);

/// How much of it.
#[derive(Clone, Copy)]
pub struct Flood {
    /// Honest pairs.
    pub honest: usize,
    /// Sockets that dawdle.
    pub slow: usize,
    /// Frames that announce 16 MiB.
    pub huge: u64,
    /// Puts with a capability that nobody gave, and from how many clients: the relay soon reads each of them more slowly.
    pub junk: u64,
    pub junkers: usize,
    /// How long it takes at least.
    pub least: Duration,
}

/// What honest clients felt, and what it took.
pub struct Felt {
    pub quiet: Vec<Duration>,
    pub flooded: Vec<Duration>,
    /// The most memory of the server, in KiB.
    pub memory: u64,
    /// What was sent of both, and how long that took.
    pub junk: u64,
    pub huge: u64,
    pub took: Duration,
    /// Processor time of the server meanwhile.
    pub cpu: Duration,
}

/// Honest pairs that say something now and then, first alone, then in the flood.
pub async fn flood(server: &Server, flood: Flood) -> Result<Felt> {
    let mut honest = Vec::new();
    while honest.len() < flood.honest {
        let more = ABREAST.min(flood.honest - honest.len());
        honest.extend(try_join_all((0..more).map(|_| pair(server, false))).await?);
    }
    let quiet = converse(&mut honest, |since| since >= flood.least).await?;
    let rude = Rude::set_on(&server.door, flood);
    // Until it is in full swing.
    sleep(REST).await;
    let (cpu, began) = (server.spent()?, Instant::now());
    let over = |since| since >= PATIENCE || since >= flood.least && rude.is_through();
    let flooded = converse(&mut honest, over).await?;
    let (took, cpu) = (began.elapsed(), server.spent()? - cpu);
    let memory = server.peak()?;
    Ok(Felt {
        quiet,
        flooded,
        memory,
        junk: rude.sent.junk.load(Ordering::Relaxed),
        huge: rude.sent.huge.load(Ordering::Relaxed),
        took,
        cpu,
    })
}

/// How long each answer took, there and back, until it is over.
async fn converse(honest: &mut [[Line; 2]], over: impl Fn(Duration) -> bool + Copy) -> Result<Vec<Duration>> {
    let count = u32::try_from(honest.len())?;
    let talks = honest.iter_mut().zip(0u32..).map(|(ends, number)| async move {
        // Not all at the same moment.
        sleep(HONEST_EVERY * number / count).await;
        let (began, mut times) = (Instant::now(), Vec::new());
        while !over(began.elapsed()) {
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

/// How much the rude did so far.
#[derive(Default)]
struct Sent {
    junk: AtomicU64,
    huge: AtomicU64,
}

/// The rude, on a thread of their own that yields to the honest: their load isn't to be taken for the server's slowness.
struct Rude {
    stop: Arc<AtomicBool>,
    sent: Arc<Sent>,
    flood: Flood,
    thread: Option<JoinHandle<()>>,
}

impl Rude {
    fn set_on(door: &Door, flood: Flood) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(Sent::default()));
        let (stopped, counted, door) = (Arc::clone(&stop), Arc::clone(&sent), door.clone());
        let thread = std::thread::spawn(move || {
            // Linux gives each thread a priority of its own. If it may not be lowered, the figures are a little worse.
            let _ = rustix::process::setpriority_process(None, 5);
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(async {
                let enough = || counted.huge.load(Ordering::Relaxed) >= flood.huge;
                tokio::select! {
                    () = until(&stopped) => {}
                    _ = join_all((0..flood.slow).map(|_| dawdle(&door))) => {}
                    _ = join_all((0..flood.junkers).map(|_| over_and_over(|| junk_puts(&door, &counted.junk)))) => {}
                    _ = join_all((0..LOUD).map(|_| over_and_over(|| async {
                        if enough() {
                            sleep(REST).await;
                            return Ok(());
                        }
                        too_long(&door, &counted.huge).await
                    }))) => {}
                }
            });
        });
        Self {
            stop,
            sent,
            flood,
            thread: Some(thread),
        }
    }

    fn is_through(&self) -> bool {
        let Sent { junk, huge } = &*self.sent;
        junk.load(Ordering::Relaxed) >= self.flood.junk && huge.load(Ordering::Relaxed) >= self.flood.huge
    }
}

impl Drop for Rude {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it did is over either way.
            let _ = thread.join();
        }
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
async fn dawdle(door: &Door) {
    over_and_over(|| async move {
        let mut stream = door.open().await?;
        for byte in b"GET / HTTP/1.1\r\n" {
            stream.write_all(&[*byte]).await?;
            sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    })
    .await;
}

/// Puts with a capability that nobody gave.
async fn junk_puts(door: &Door, refused: &AtomicU64) -> Result<()> {
    let key = MailboxKey::generate(&mut OsRng);
    let mut line = OurLine::log_in(door, &key).await?;
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
async fn too_long(door: &Door, announced: &AtomicU64) -> Result<()> {
    let key = MailboxKey::generate(&mut OsRng);
    let mut line = OurLine::log_in(door, &key).await?;
    line.out = vec![0x82, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    line.flush().await?;
    announced.fetch_add(1, Ordering::Relaxed);
    for _ in 0..1024 {
        line.out.extend([0; 16 * PAYLOAD]);
        timeout(Duration::from_secs(5), line.flush()).await??;
    }
    Err(anyhow!("it was taken"))
}
