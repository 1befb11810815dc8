//! The transcript as a party replays it at its start, and the state that it keeps so that it needn't read all of it again. What the state holds is
//! for `approval::replay` to say.

use approval::checkpoint::Checkpoint;
use approval::replay::{Replay, Snapshot};
use approval::transcript::leaf_hash;
use wire::identity::PartyId;

use super::PartyError;
use crate::store::{StoreError, Tx};

/// Under which name the state of the replay is kept.
const SNAPSHOT: &str = "replay";

/// How many entries are replayed at a time.
const REPLAY_CHUNK: u64 = 512;

pub(super) async fn replay(tx: &mut Tx, gate: PartyId) -> Result<Replay, PartyError> {
    let mut replay = resumed(tx, &gate).await?.unwrap_or_else(|| Replay::new(Some(gate)));
    let known = replay.size();
    loop {
        let chunk = tx.entries(replay.size(), REPLAY_CHUNK).await?;
        if chunk.is_empty() {
            break;
        }
        for signed in chunk {
            replay.next(signed.as_bytes())?;
        }
    }
    if replay.size() > known {
        keep_snapshot(tx, &replay).await?;
    }
    Ok(replay)
}

/// Keeps the state of the replay, in the transaction of the entries that led to it: the next start needn't read them all.
pub async fn keep_snapshot(tx: &mut Tx, replay: &Replay) -> Result<(), StoreError> {
    match replay.snapshot() {
        Some(snapshot) => tx.set_meta(SNAPSHOT, &snapshot.encode()).await,
        None => Ok(()),
    }
}

/// The state that was kept, if it fits the entries and the gate's checkpoint of its size. Everything in it is verified again; without it all is replayed.
async fn resumed(tx: &mut Tx, gate: &PartyId) -> Result<Option<Replay>, PartyError> {
    let Some(snapshot) = tx.meta(SNAPSHOT).await?.as_deref().and_then(Snapshot::decode) else {
        return Ok(None);
    };
    let Some(note) = tx.checkpoint_at(snapshot.size()).await? else {
        return Ok(None);
    };
    let Ok(checkpoint) = Checkpoint::verify(&note, gate) else {
        return Ok(None);
    };
    if tx.size().await? < snapshot.size() {
        return Ok(None);
    }
    let mut statements = Vec::new();
    for digest in snapshot.statements() {
        let Some(statement) = tx.statement(&digest).await? else {
            return Ok(None);
        };
        statements.push(statement);
    }
    let mut tail = Vec::new();
    let mut at = snapshot.tail();
    while at < snapshot.size() {
        let chunk = tx.entries(at, REPLAY_CHUNK.min(snapshot.size() - at)).await?;
        if chunk.is_empty() {
            return Ok(None);
        }
        at = at.saturating_add(chunk.len() as u64);
        tail.extend(chunk.iter().map(|signed| leaf_hash(signed.as_bytes())));
    }
    let resumed = snapshot.resume(&checkpoint, &tail, &statements);
    if resumed.is_none() {
        tracing::warn!("the state kept beside the transcript doesn't fit it; reading all of it");
    }
    Ok(resumed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::gate::{Init, init};
    use crate::home::Home;
    use crate::party::{Kind, Party};

    async fn opened(folder: &std::path::Path) -> Party {
        Party::open(Home::open(Some(folder.to_owned())).unwrap(), Kind::Gate)
            .await
            .unwrap()
    }

    async fn kept(party: &Party) -> Option<Vec<u8>> {
        let mut tx = party.store.begin().await.unwrap();
        let kept = tx.meta(SNAPSHOT).await.unwrap();
        tx.commit().await.unwrap();
        kept
    }

    #[tokio::test]
    async fn a_kept_state_is_resumed_and_a_bad_one_read_over() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("gate");
        let wish = Init {
            relay: "ws://127.0.0.1:1".to_owned(),
            name: "gate".to_owned(),
            policy: None,
            unenrolled: approval::roster::Unenrolled::Refuse,
        };
        let party = init(Home::create(Some(home.clone())).unwrap(), wish).await.unwrap();
        let (replay, good) = (party.replay.clone(), kept(&party).await.unwrap());
        assert_eq!(replay.size(), 1);
        let mut tx = party.store.begin().await.unwrap();
        assert_eq!(resumed(&mut tx, &party.gate).await.unwrap(), Some(replay.clone()));
        tx.commit().await.unwrap();
        party.store.close().await;

        let mut flipped = good.clone();
        flipped.iter_mut().for_each(|byte| *byte ^= 1);
        for bad in [flipped, Vec::new(), good.split_at(good.len() / 2).0.to_vec()] {
            let party = opened(&home).await;
            let mut tx = party.store.begin().await.unwrap();
            tx.set_meta(SNAPSHOT, &bad).await.unwrap();
            assert_eq!(resumed(&mut tx, &party.gate).await.unwrap(), None);
            tx.commit().await.unwrap();
            party.store.close().await;
            // Read over, and kept anew.
            let party = opened(&home).await;
            assert_eq!((&party.replay, kept(&party).await.as_ref()), (&replay, Some(&good)));
            party.store.close().await;
        }
    }

    #[tokio::test]
    async fn a_state_kept_for_more_entries_than_there_are_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let wish = |name: &str| Init {
            relay: "ws://127.0.0.1:1".to_owned(),
            name: name.to_owned(),
            policy: None,
            unenrolled: approval::roster::Unenrolled::Refuse,
        };
        let party = init(Home::create(Some(folder.path().join("gate"))).unwrap(), wish("gate"))
            .await
            .unwrap();
        let other = init(Home::create(Some(folder.path().join("other"))).unwrap(), wish("other"))
            .await
            .unwrap();
        let mut tx = party.store.begin().await.unwrap();
        // Of another gate: its checkpoint of the same size isn't this one's.
        tx.set_meta(SNAPSHOT, &kept(&other).await.unwrap()).await.unwrap();
        assert_eq!(resumed(&mut tx, &party.gate).await.unwrap(), None);
        // Of entries that are gone, although their checkpoint is still there.
        let mut longer = party.replay.clone();
        let roster = party.replay.roster().unwrap();
        let next = roster.contents().after(roster, None, roster.created).unwrap();
        longer
            .next(approval::sign(&party.identity, next).unwrap().signed().as_bytes())
            .unwrap();
        tx.add_checkpoint(&Checkpoint::sign(&party.identity, longer.size(), longer.root()))
            .await
            .unwrap();
        keep_snapshot(&mut tx, &longer).await.unwrap();
        assert_eq!(resumed(&mut tx, &party.gate).await.unwrap(), None);
        assert_eq!(replay(&mut tx, party.gate).await.unwrap(), party.replay);
    }
}
