//! How bad a figure may be. Each bound is the goal of the issue "The relay under load", unless `until` says that we aren't there yet:
//! then it is what holds today with some room, so that it can't get worse unnoticed. To tighten one, lower its `until` or strike it out.

/// Something that must not be worse.
pub struct Bound {
    pub name: &'static str,
    pub unit: &'static str,
    /// What we want to reach.
    pub goal: f64,
    /// What must hold.
    pub bound: f64,
    /// Whether more is better.
    pub least: bool,
}

pub const fn at_most(name: &'static str, goal: f64, unit: &'static str) -> Bound {
    Bound {
        name,
        unit,
        goal,
        bound: goal,
        least: false,
    }
}

pub const fn at_least(name: &'static str, goal: f64, unit: &'static str) -> Bound {
    Bound {
        least: true,
        ..at_most(name, goal, unit)
    }
}

impl Bound {
    /// Not there yet.
    pub const fn until(self, bound: f64) -> Self {
        Self { bound, ..self }
    }
}

pub const LIVE_MANY: Bound = at_most("live, many in flight: CPU per message", 1.6, "x floor").until(3.0);
pub const LIVE_ONE: Bound = at_most("live, one in flight: CPU per message", 1.15, "x floor").until(1.6);
pub const PING_PONG: Bound = at_most("ping-pong p50", 1.15, "x floor").until(1.4);

pub const ENQUEUE_REDIS: Bound = at_least("durable enqueue: rate", 0.7, "x Redis, AOF always").until(0.5);
/// Where there is no Redis, the floor's price of one message in flight (7.1 us where the goals come from) says how fast the machine is:
/// 0.7 of what Redis did is 5.1 us over 0.7.
pub const ENQUEUE_ALONE: Bound = at_most("durable enqueue: CPU per message", 1.0, "x floor, one in flight").until(1.5);
pub const ENQUEUE_JETSTREAM: Bound = at_least("durable enqueue: rate", 20.0, "x JetStream, sync always").until(12.0);
/// Debian's nats-server can't flush always: what it needs for a message without, and one flush of this disk.
pub const ENQUEUE_FLUSHES: Bound =
    at_least("durable enqueue: rate", 20.0, "x JetStream and a flush for each").until(10.0);

pub const DURABLE: Bound = at_most("live and durable: CPU per message", 1.0, "x mosquitto QoS 1");
/// Where there is no mosquitto: its 17.1 us, as above.
pub const DURABLE_ALONE: Bound = at_most("live and durable: CPU per message", 2.4, "x floor, one in flight");

/// As in the prototype: 7 us.
pub const DRAIN: Bound = at_most("drain: CPU per message", 1.0, "x floor, one in flight");

pub const IDLE: Bound = at_most("memory of an idle logged-in socket", 8.0, "KiB");
pub const CONNECTED: Bound = at_most("memory of a connection that says nothing", 8.0, "KiB");
pub const UPGRADED: Bound = at_most("memory of a websocket before login", 8.0, "KiB");

pub const DEEP_PUT: Bound = at_most("full mailbox: CPU per put", 1.2, "x the nearly empty").until(1.5);
pub const DEEP_TAKE: Bound = at_most("full mailbox: CPU per delivery and ack", 1.2, "x the nearly empty").until(1.5);

/// 10,000 within a minute.
pub const STORM: Bound = at_most("reconnect storm: time for each client", 6.0, "ms");
pub const FLOOD: Bound = at_most("flood: honest p99", 250.0, "ms");
pub const FLOOD_MEMORY: Bound = at_most("flood: memory", 1536.0, "MiB");

/// How a figure stands to its bound.
#[derive(Clone)]
pub struct Verdict {
    pub bound: &'static Bound,
    pub median: f64,
    /// Half the distance between the best and the worst round.
    pub noise: f64,
}

impl Verdict {
    pub fn new(bound: &'static Bound, rounds: &[f64]) -> Self {
        Self {
            bound,
            median: median(rounds),
            noise: noise(rounds),
        }
    }

    /// Worse by no more than the noise.
    pub fn holds(&self) -> bool {
        if self.bound.least {
            self.median + self.noise >= self.bound.bound
        } else {
            self.median - self.noise <= self.bound.bound
        }
    }

    pub fn reaches(&self) -> bool {
        if self.bound.least {
            self.median >= self.bound.goal
        } else {
            self.median <= self.bound.goal
        }
    }

    pub fn words(&self) -> String {
        let Bound { bound, goal, least, .. } = self.bound;
        let met = match (self.holds(), self.reaches()) {
            (false, _) => "TOO BAD",
            (true, true) => "goal met",
            (true, false) => "not at its goal yet",
        };
        let side = if *least { "at least" } else { "at most" };
        format!("{met}: {side} {bound}, goal {goal}; noise {:.2}", self.noise)
    }
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}

/// Half the distance between the least and the most.
pub fn noise(values: &[f64]) -> f64 {
    let (least, most) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
            (least.min(*value), most.max(*value))
        });
    if values.is_empty() { 0.0 } else { (most - least) / 2.0 }
}
