//! Opening a party that has a long transcript: what every `countersign approve` and every start of a gate begins with.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use countersign::gate::{Init, init};
use countersign::home::Home;
use countersign::party::{Kind, Party};
use countersign::store::Store;

use crate::figures::{Sheet, ms, spread};
use crate::machine::folder;
use crate::transcript::Author;

/// Rounds, of which the best is given.
const ROUNDS: usize = 3;

pub fn measure(sheet: &mut Sheet, quick: bool) -> Result<()> {
    let sizes = if quick { [100, 1_000] } else { [10_000, 100_000] };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    sheet.part("opening a gate or a device");
    let mut bars = Vec::new();
    for size in sizes {
        let folder = tempfile::tempdir_in(folder()?)?;
        let (first, later, database) = runtime.block_on(open(folder.path(), size))?;
        let best = later.iter().min().copied().unwrap_or_default();
        let rounds: Vec<f64> = later.iter().map(|time| ms(*time)).collect();
        sheet.put(
            format!("{size} entries, all replayed"),
            ms(first),
            "ms",
            "without a snapshot",
        );
        sheet.put(
            format!("{size} entries, the next time"),
            ms(best),
            "ms",
            spread(&rounds, "ms"),
        );
        sheet.put(
            format!("{size} entries, the database alone"),
            ms(database),
            "ms",
            "part of both: SQLite's quick_check reads all of it",
        );
        bars.push((format!("{size} entries, all replayed"), ms(first)));
        bars.push((format!("{size} entries, the next time"), ms(best)));
    }
    sheet.chart("opening a gate or a device", "ms", bars);
    Ok(())
}

async fn open(folder: &Path, size: u64) -> Result<(Duration, Vec<Duration>, Duration)> {
    let home = folder.join("gate");
    let party = init(
        Home::create(Some(home.clone()))?,
        Init {
            relay: "ws://127.0.0.1:1".to_owned(),
            name: "bench-gate".to_owned(),
            policy: None,
            unenrolled: approval::roster::Unenrolled::Refuse,
        },
    )
    .await?;
    fill(&party, size).await?;
    party.store.close().await;
    let mut times = Vec::new();
    for _ in 0..=ROUNDS {
        let home = Home::open(Some(home.clone()))?;
        let began = Instant::now();
        let party = Party::open(home, Kind::Gate).await?;
        times.push(began.elapsed());
        anyhow::ensure!(party.replay.size() == size, "another size");
        party.store.close().await;
    }
    let path = Home::open(Some(home))?.database();
    let began = Instant::now();
    let store = Store::open(&path).await?;
    let database = began.elapsed();
    store.close().await;
    let later = times.split_off(1);
    Ok((times[0], later, database))
}

/// Writes entries into a new gate's database, as if it had lived for long.
async fn fill(party: &Party, size: u64) -> Result<()> {
    let genesis = party.replay.roster().context("a genesis")?.clone();
    let mut author = Author::new(&party.identity, genesis);
    while party_size(party).await? < size {
        // Whole approvals: nothing stays open in between.
        let until = ((party_size(party).await? + 10_000 - 2) / 5 * 5 + 2).min(size);
        let mut rows = Vec::new();
        author.write(until, |entry| {
            rows.push((entry.index, entry.digest, entry.kind, entry.statement.clone()));
            Ok(())
        })?;
        let mut tx = party.store.begin().await?;
        for (index, digest, kind, statement) in rows {
            tx.add_entry(index, &digest, kind, statement.as_bytes()).await?;
        }
        tx.add_checkpoint(&author.checkpoint()).await?;
        tx.commit().await?;
    }
    Ok(())
}

async fn party_size(party: &Party) -> Result<u64> {
    let mut tx = party.store.begin().await?;
    let size = tx.size().await?;
    tx.commit().await?;
    Ok(size)
}
