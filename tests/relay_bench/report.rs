//! What all rounds came to, as a table, a picture and verdicts.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bounds::{self, Bound, Verdict, median};
use crate::crowd::Felt;
use crate::figures::{Sheet, ms, percentile, spread, us};
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

const ROWS: [(Row, &str, &Bound); 6] = [
    (Row::LiveMany, "live, 16 pairs with 16 in flight", &bounds::LIVE_MANY),
    (
        Row::LiveOne,
        "live, 64 pairs with one in flight, there and back",
        &bounds::LIVE_ONE,
    ),
    (Row::PingPong, "ping-pong, one pair", &bounds::PING_PONG),
    (
        Row::Durable,
        "live and durable, 16 pairs with 16 in flight until safe",
        &bounds::DURABLE,
    ),
    (
        Row::Enqueue,
        "durable, 16 readers who are away, 64 in flight for each",
        &bounds::ENQUEUE,
    ),
    (Row::Drain, "drain: they come back", &bounds::DRAIN),
];

const KINDS: [Kind; 5] = [Kind::Ours, Kind::Floor, Kind::Nats, Kind::Mosquitto, Kind::Redis];

/// See the module.
pub struct Report {
    versions: Vec<(String, String)>,
    rounds: BTreeMap<(Row, &'static str), Vec<Round>>,
    weights: Vec<(Kind, f64)>,
    /// Name, value, unit and note of single figures.
    others: Vec<(String, f64, &'static str, String)>,
    single: Vec<Verdict>,
}

impl Report {
    pub fn new(servers: &[Server]) -> Self {
        let versions = servers
            .iter()
            .map(|server| (server.kind.name().to_owned(), server.version.clone()))
            .collect();
        Self {
            versions,
            rounds: BTreeMap::new(),
            weights: Vec::new(),
            others: Vec::new(),
            single: Vec::new(),
        }
    }

    pub fn add(&mut self, row: Row, kind: Kind, round: Round) {
        self.rounds.entry((row, kind.name())).or_default().push(round);
    }

    pub fn weight(&mut self, kind: Kind, kib: f64) {
        self.weights.push((kind, kib));
        if kind == Kind::Ours {
            self.single.push(Verdict::new(&bounds::IDLE, &[kib]));
        }
    }

    pub fn storm(&mut self, clients: usize, time: Duration, cpu: Duration) {
        let verdict = Verdict::new(&bounds::STORM, &[ms(time) / clients as f64]);
        self.other(
            format!("{clients} clients back after"),
            time.as_secs_f64(),
            "s",
            verdict.words(),
        );
        self.other("server CPU for each", us(cpu), "us", "handshake, login and read");
        self.single.push(verdict);
    }

    pub fn flood(&mut self, felt: &Felt) {
        let p99 = Verdict::new(&bounds::FLOOD, &[ms(percentile(&mut felt.flooded.clone(), 99))]);
        let memory = Verdict::new(&bounds::FLOOD_MEMORY, &[felt.memory as f64 / 1024.0]);
        self.other(
            "honest exchange, p99, before the flood",
            ms(percentile(&mut felt.quiet.clone(), 99)),
            "ms",
            "",
        );
        self.other(
            "honest exchange, p50, in the flood",
            ms(percentile(&mut felt.flooded.clone(), 50)),
            "ms",
            "",
        );
        self.other("honest exchange, p99, in the flood", p99.median, "ms", p99.words());
        self.other("memory in the flood", memory.median, "MiB", memory.words());
        self.other("junk puts refused meanwhile", felt.junk as f64, "", "");
        self.single.extend([p99, memory]);
    }

    fn other(&mut self, name: impl Into<String>, value: f64, unit: &'static str, note: impl Into<String>) {
        self.others.push((name.into(), value, unit, note.into()));
    }

    fn of(&self, row: Row, kind: Kind) -> &[Round] {
        self.rounds.get(&(row, kind.name())).map_or(&[], Vec::as_slice)
    }

    /// Ours over the floor's, round by round.
    fn ratios(&self, row: Row, kind: Kind) -> Vec<f64> {
        let price = |row: Row, round: &Round| {
            if row == Row::PingPong {
                p50(round)
            } else {
                round.cpu_us()
            }
        };
        // What keeps is compared with what it costs the floor to pass on a single message.
        let base = if self.of(row, Kind::Floor).is_empty() {
            Row::LiveOne
        } else {
            row
        };
        let pairs = self.of(row, kind).iter().zip(self.of(base, Kind::Floor));
        pairs
            .map(|(round, floor)| price(row, round) / price(base, floor))
            .collect()
    }

    fn verdicts(&self) -> Vec<Verdict> {
        ROWS.iter()
            .map(|(row, _, bound)| Verdict::new(bound, &self.ratios(*row, Kind::Ours)))
            .collect()
    }

    /// What is too much.
    pub fn broken(self) -> Vec<Verdict> {
        let rows = self.verdicts();
        rows.into_iter()
            .chain(self.single)
            .filter(|verdict| !verdict.holds())
            .collect()
    }

    pub fn sheet(&self, machine: Vec<(String, String)>) -> Sheet {
        let mut sheet = Sheet::new(machine.into_iter().chain(self.versions.clone()).collect());
        for (row, title, bound) in ROWS {
            sheet.part(title);
            let mut bars = Vec::new();
            for kind in KINDS.into_iter().filter(|kind| !self.of(row, *kind).is_empty()) {
                self.lines(&mut sheet, row, kind);
                bars.push((kind.name().to_owned(), median(&self.ratios(row, kind))));
            }
            let verdict = Verdict::new(bound, &self.ratios(row, Kind::Ours));
            sheet.put("bound", verdict.median, "x", verdict.words());
            sheet.chart(
                format!(
                    "{title}: {}",
                    if row == Row::PingPong {
                        "p50"
                    } else {
                        "server CPU per message"
                    }
                ),
                bound.unit,
                bars,
            );
        }
        sheet.part("memory of an idle socket");
        for (kind, kib) in &self.weights {
            let note = if *kind == Kind::Ours {
                Verdict::new(&bounds::IDLE, &[*kib]).words()
            } else {
                String::new()
            };
            sheet.put(kind.name(), *kib, "KiB", note);
        }
        sheet.chart(
            "memory of an idle socket",
            "KiB",
            self.weights
                .iter()
                .map(|(kind, kib)| (kind.name().to_owned(), *kib))
                .collect(),
        );
        sheet.part("reconnect storm and flood");
        for (name, value, unit, note) in &self.others {
            sheet.put(name.clone(), *value, unit, note.clone());
        }
        sheet
    }

    fn lines(&self, sheet: &mut Sheet, row: Row, kind: Kind) {
        let rounds = self.of(row, kind);
        let (cpu, rates): (Vec<_>, Vec<_>) = rounds.iter().map(|round| (round.cpu_us(), round.rate())).unzip();
        let ratios = self.ratios(row, kind);
        let name = kind.name();
        if row == Row::PingPong {
            let mut times: Vec<_> = rounds.iter().flat_map(|round| round.times.iter().copied()).collect();
            let p50s: Vec<_> = rounds.iter().map(p50).collect();
            sheet.put(
                format!("{name}, p50"),
                median(&p50s),
                "us",
                format!("{:.2} x floor, {}", median(&ratios), spread(&ratios, "x")),
            );
            sheet.put(format!("{name}, p99"), us(percentile(&mut times, 99)), "us", "");
        } else {
            sheet.put(
                format!("{name}, CPU"),
                median(&cpu),
                "us",
                format!("{:.2} x floor, {}", median(&ratios), spread(&ratios, "x")),
            );
            sheet.put(format!("{name}, messages"), median(&rates), "/s", "");
        }
    }
}

fn p50(round: &Round) -> f64 {
    us(percentile(&mut round.times.clone(), 50))
}
