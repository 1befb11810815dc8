//! Many approvals over a relay that meddles at random, and the dice that make the same evening again from its seed.

use std::time::Duration;

use approval::outcome::Ended;
use countersign_tests::world::hand::{anew, stored, with_envelope};
use countersign_tests::world::{Does, Said, World};
use rand_core::RngCore as _;
use tokio::time::Instant;
use wire::frame::Put;

/// Random numbers from a printed seed (splitmix64). `STORY_SEED` throws the same again.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn thrown(story: &str) -> Self {
        let given = std::env::var("STORY_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| rand_core::OsRng.next_u64());
        println!("{story}: STORY_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    pub(crate) fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == 0
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for index in (1..items.len()).rev() {
            items.swap(index, self.below(index + 1));
        }
    }
}

/// Loses, lies about, repeats, damages and reorders about every third put.
fn mischief(mut dice: Dice) -> impl FnMut(&countersign_tests::world::Passing<'_>) -> Does + Send + 'static {
    let mut kept: Option<Put> = None;
    move |passing| {
        let Some(put) = passing.put() else { return Does::Pass };
        let this = Said::Up(wire::frame::ClientFrame::Put(put.clone()));
        match dice.below(18) {
            0 | 1 => Does::Drop,
            2 => stored(put),
            3 => Does::Instead(vec![this.clone(), this, anew(put)]),
            4 => {
                let mut envelope = put.envelope.to_vec();
                let at = dice.below(envelope.len());
                envelope[at] ^= 1 << dice.below(8);
                Does::Instead(vec![with_envelope(put, envelope)])
            }
            // It comes after whatever is next kept.
            5 => match kept.replace(put.clone()) {
                Some(before) => Does::Instead(vec![this, Said::Up(wire::frame::ClientFrame::Put(before))]),
                None => Does::Drop,
            },
            _ => Does::Pass,
        }
    }
}

#[tokio::test]
async fn a_relay_that_meddles_at_random_gets_nothing_run_that_wasnt_permitted_nor_twice() {
    const REQUESTS: usize = 44;
    const AT_ONCE: usize = 11;
    let began = Instant::now();
    let mut dice = Dice::thrown("soak");
    let (world, [alice, bob, carol]) = World::with(["alice", "bob", "carol"], 2).await;
    let admins = [&alice, &bob, &carol];
    world.hand.rule(mischief(Dice(dice.next())));
    let (mut permitted, mut denied) = (Vec::new(), 0);
    for round in 0..REQUESTS / AT_ONCE {
        let mut asked = Vec::new();
        for number in 0..AT_ONCE {
            let line = format!("{round}-{number}");
            asked.push((world.asks_to_tally(&line).await, line));
        }
        dice.shuffle(&mut asked);
        for (asking, line) in &asked {
            let mut order = admins;
            dice.shuffle(&mut order);
            if dice.one_in(3) {
                order[0].denies(&asking.id, line).await;
            } else {
                order[0].approves(&asking.id).await;
                order[1].approves(&asking.id).await;
                permitted.push(line.clone());
            }
        }
        for (asking, line) in asked {
            let end = asking.ends().await;
            if permitted.contains(&line) {
                assert!(end.ran(), "{line}: {end:?}");
                assert_eq!(end.stdout, format!("did {line}\n").into_bytes());
            } else {
                assert!(matches!(end.result, Ended::Denied(_)), "{line}: {end:?}");
                assert_eq!(end.reason.as_deref(), Some(line.as_str()));
                denied += 1;
            }
        }
    }
    assert!(world.hand.touched() > 0);
    world.hand.lets_go();
    let gate = world.gate.copy().await;
    for admin in admins {
        admin.has(gate.entries.len() as u64).await;
        assert_eq!(admin.copy().await.export(), gate.export());
        assert_eq!(admin.evidence().await, Vec::<String>::new());
    }
    let mut tally = world.tally();
    tally.sort();
    permitted.sort();
    assert_eq!(tally, permitted);
    let summary = world.is_sound().await;
    assert_eq!(
        (summary.requests.ran, summary.requests.denied),
        (permitted.len() as u64, denied)
    );
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
}
