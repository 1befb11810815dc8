//! What all rounds came to, and how that stands to the bounds. Not here: how it is shown (`table`).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bounds::{self, Bound, Verdict, median, noise};
use crate::crowd::Stranger;
use crate::deep::Depth;
use crate::figures::{ms, percentile, us};
use crate::flood::Felt;
use crate::server::{Kind, Server};
use crate::works::Round;

/// What was done with single messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Row {
    LiveMany,
    LiveOne,
    PingPong,
    Durable,
    Enqueue,
    Drain,
}

impl Row {
    pub const ALL: [Self; 6] = [
        Self::LiveMany,
        Self::LiveOne,
        Self::PingPong,
        Self::Enqueue,
        Self::Durable,
        Self::Drain,
    ];
}

/// What the rows' numbers are compared by.
pub type Price = fn(&Round) -> f64;

/// See the module.
#[derive(Default)]
pub struct Report {
    pub versions: Vec<(String, String)>,
    rounds: BTreeMap<(Row, Kind), Vec<Round>>,
    /// A flush of this disk, in each round.
    pub flushes: Vec<Duration>,
    /// KiB of ours, just started.
    pub fresh: Option<u64>,
    /// KiB for each idle socket.
    pub weights: Vec<(Kind, f64)>,
    pub strangers: Vec<(Stranger, f64)>,
    pub storm: Option<Storm>,
    pub felt: Option<Felt>,
    pub depth: Option<(u64, u64, Depth)>,
}

/// How a crowd came back.
pub struct Storm {
    pub clients: usize,
    pub time: Duration,
    /// Of the server, for each.
    pub cpu: Duration,
}

impl Report {
    pub fn new(servers: &[Server]) -> Self {
        let version = |server: &Server| (server.kind.name().to_owned(), server.version.clone());
        Self {
            versions: servers.iter().map(version).collect(),
            ..Self::default()
        }
    }

    pub fn add(&mut self, row: Row, kind: Kind, round: Round) {
        self.rounds.entry((row, kind)).or_default().push(round);
    }

    pub fn of(&self, row: Row, kind: Kind) -> &[Round] {
        self.rounds.get(&(row, kind)).map_or(&[], Vec::as_slice)
    }

    pub fn median(&self, row: Row, kind: Kind, price: Price) -> f64 {
        median(&self.of(row, kind).iter().map(price).collect::<Vec<_>>())
    }

    /// One over the other, round by round.
    pub fn ratios(&self, row: Row, kind: Kind, base: (Row, Kind), price: Price) -> Vec<f64> {
        let pairs = self.of(row, kind).iter().zip(self.of(base.0, base.1));
        pairs.map(|(round, base)| price(round) / price(base)).collect()
    }

    /// Over the floor's same work, or, as the floor keeps nothing, over what it takes it to pass on a single message.
    pub fn over_floor(&self, row: Row, kind: Kind) -> Vec<f64> {
        let keeps = self.of(row, Kind::Floor).is_empty();
        let base = (if keeps { Row::LiveOne } else { row }, Kind::Floor);
        self.ratios(row, kind, base, price(row))
    }

    /// Of the row's single verdict, or the verdicts of the one that has two.
    pub fn verdicts_of(&self, row: Row) -> Vec<Verdict> {
        let floor = |bound| Verdict::new(bound, &self.over_floor(row, Kind::Ours));
        let verdicts = match row {
            Row::LiveMany => vec![floor(&bounds::LIVE_MANY)],
            Row::LiveOne => vec![floor(&bounds::LIVE_ONE)],
            Row::PingPong => vec![floor(&bounds::PING_PONG)],
            Row::Drain => vec![floor(&bounds::DRAIN)],
            Row::Durable => {
                let base = (row, Kind::Mosquitto);
                vec![self.against(&bounds::DURABLE, row, base, Round::cpu_us, || {
                    floor(&bounds::DURABLE_ALONE)
                })]
            }
            Row::Enqueue => {
                let (redis, jetstream) = ((row, Kind::Redis), (row, Kind::JetStreamAlways));
                vec![
                    self.against(&bounds::ENQUEUE_REDIS, row, redis, Round::rate, || {
                        floor(&bounds::ENQUEUE_ALONE)
                    }),
                    self.against(&bounds::ENQUEUE_JETSTREAM, row, jetstream, Round::rate, || {
                        self.over_flushes()
                    }),
                ]
            }
        };
        if self.of(row, Kind::Ours).is_empty() {
            Vec::new()
        } else {
            verdicts
        }
    }

    /// Against a peer of the same run, or else what stands in for it.
    fn against(
        &self,
        bound: &'static Bound,
        row: Row,
        base: (Row, Kind),
        price: Price,
        other: impl FnOnce() -> Verdict,
    ) -> Verdict {
        let ratios = self.ratios(row, Kind::Ours, base, price);
        if ratios.is_empty() {
            other()
        } else {
            Verdict::new(bound, &ratios)
        }
    }

    /// What stands in for a JetStream that flushes always.
    fn over_flushes(&self) -> Verdict {
        let default = self.of(Row::Enqueue, Kind::JetStream);
        let rounds = self.of(Row::Enqueue, Kind::Ours).iter().zip(&self.flushes).enumerate();
        let ratios: Vec<_> = rounds
            .map(|(at, (ours, flush))| {
                let each = default.get(at).map_or(0.0, |round| 1.0 / round.rate());
                ours.rate() * (each + flush.as_secs_f64())
            })
            .collect();
        Verdict::new(&bounds::ENQUEUE_FLUSHES, &ratios)
    }

    /// Of everything that was measured.
    pub fn verdicts(&self) -> Vec<Verdict> {
        let mut all: Vec<_> = Row::ALL.into_iter().flat_map(|row| self.verdicts_of(row)).collect();
        let ours = self.weights.iter().filter(|(kind, _)| *kind == Kind::Ours);
        all.extend(ours.map(|(_, kib)| Verdict::new(&bounds::IDLE, &[*kib])));
        all.extend(self.strangers.iter().map(|(how, kib)| stranger(*how, *kib)));
        if let Some((_, _, depth)) = &self.depth {
            all.extend([put(depth), take(depth)]);
        }
        all.extend(self.storm.as_ref().map(Storm::verdict));
        if let Some(felt) = &self.felt {
            all.extend([p99(felt), memory(felt)]);
        }
        all
    }

    /// How much rounds of the same work differ, as hundredths: in the middle, and at most with where that is.
    pub fn noise(&self) -> String {
        let mut all: Vec<(f64, String)> = Vec::new();
        for ((row, kind), rounds) in &self.rounds {
            let values: Vec<_> = rounds.iter().map(price(*row)).collect();
            all.push((
                100.0 * noise(&values) / median(&values),
                format!("{}, {row:?}", kind.name()),
            ));
        }
        all.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (Some((middle, _)), Some((most, which))) = (all.get(all.len() / 2), all.last()) else {
            return String::new();
        };
        format!("rounds of the same work differ by ±{middle:.0} % in the middle, by ±{most:.0} % at most ({which})")
    }
}

impl Storm {
    pub fn verdict(&self) -> Verdict {
        Verdict::new(&bounds::STORM, &[ms(self.time) / self.clients as f64])
    }
}

/// What a row is about.
pub fn price(row: Row) -> Price {
    if row == Row::PingPong { p50 } else { Round::cpu_us }
}

pub fn p50(round: &Round) -> f64 {
    us(percentile(&mut round.times.clone(), 50))
}

pub fn stranger(how: Stranger, kib: f64) -> Verdict {
    let bound = match how {
        Stranger::Connected => &bounds::CONNECTED,
        Stranger::Upgraded => &bounds::UPGRADED,
    };
    Verdict::new(bound, &[kib])
}

pub fn put(depth: &Depth) -> Verdict {
    Verdict::new(&bounds::DEEP_PUT, &grown(&depth.shallow.put, &depth.deep.put))
}

pub fn take(depth: &Depth) -> Verdict {
    Verdict::new(&bounds::DEEP_TAKE, &grown(&depth.shallow.take, &depth.deep.take))
}

fn grown(shallow: &[Round], deep: &[Round]) -> Vec<f64> {
    let pairs = shallow.iter().zip(deep);
    pairs.map(|(shallow, deep)| deep.cpu_us() / shallow.cpu_us()).collect()
}

/// The noise is what they felt without a flood.
pub fn p99(felt: &Felt) -> Verdict {
    let [flooded, noise] = [&felt.flooded, &felt.quiet].map(|times| ms(percentile(&mut times.clone(), 99)));
    Verdict {
        noise,
        ..Verdict::new(&bounds::FLOOD, &[flooded])
    }
}

pub fn memory(felt: &Felt) -> Verdict {
    Verdict::new(&bounds::FLOOD_MEMORY, &[felt.memory as f64 / 1024.0])
}
