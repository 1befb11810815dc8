//! How bad a figure may be. Each bound stands beside the goal of the issue "The relay under load"; where the two differ, we aren't
//! there yet, and the bound is what holds today with some room, so that it can't get worse unnoticed.

/// Something that must not be worse.
pub struct Bound {
    pub name: &'static str,
    pub unit: &'static str,
    /// At most this.
    pub most: f64,
    /// What we want to reach.
    pub goal: f64,
}

/// Half of today's price is SQLite's: the memory of every put, also of one acknowledged at once.
pub const LIVE_MANY: Bound = Bound {
    name: "live, many in flight: CPU per message",
    unit: "x floor",
    most: 12.0,
    goal: 1.6,
};
pub const LIVE_ONE: Bound = Bound {
    name: "live, one in flight: CPU per message",
    unit: "x floor",
    most: 4.5,
    goal: 1.15,
};
pub const PING_PONG: Bound = Bound {
    name: "ping-pong p50",
    unit: "x floor",
    most: 1.5,
    goal: 1.15,
};
/// The floor keeps nothing: its price of one message in flight (7.1 us where the goals come from) says how fast the machine is. The
/// goal is mosquitto's 17.1 us, without a flush.
pub const DURABLE: Bound = Bound {
    name: "live and durable: CPU per message",
    unit: "x floor, one in flight",
    most: 2.4,
    goal: 2.4,
};
/// 0.7 of what Redis does with its log flushed always: 5.1 us over 0.7.
pub const ENQUEUE: Bound = Bound {
    name: "durable enqueue: CPU per message",
    unit: "x floor, one in flight",
    most: 2.0,
    goal: 1.0,
};
/// As in the prototype: 7 us.
pub const DRAIN: Bound = Bound {
    name: "drain: CPU per message",
    unit: "x floor, one in flight",
    most: 1.3,
    goal: 1.0,
};
pub const IDLE: Bound = Bound {
    name: "memory of an idle logged-in socket",
    unit: "KiB",
    most: 11.5,
    goal: 8.0,
};
/// 10,000 within a minute.
pub const STORM: Bound = Bound {
    name: "reconnect storm: time for each client",
    unit: "ms",
    most: 6.0,
    goal: 6.0,
};
pub const FLOOD: Bound = Bound {
    name: "flood: honest p99",
    unit: "ms",
    most: 250.0,
    goal: 250.0,
};
pub const FLOOD_MEMORY: Bound = Bound {
    name: "flood: memory",
    unit: "MiB",
    most: 1536.0,
    goal: 1536.0,
};

/// How a figure stands to its bound.
pub struct Verdict {
    pub bound: &'static Bound,
    pub median: f64,
    /// Half the distance between the best and the worst round.
    pub noise: f64,
}

impl Verdict {
    pub fn new(bound: &'static Bound, rounds: &[f64]) -> Self {
        let (best, worst) = rounds
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(best, worst), value| {
                (best.min(*value), worst.max(*value))
            });
        Self {
            bound,
            median: median(rounds),
            noise: if rounds.is_empty() { 0.0 } else { (worst - best) / 2.0 },
        }
    }

    /// Worse by no more than the noise.
    pub fn holds(&self) -> bool {
        self.median - self.noise <= self.bound.most
    }

    pub fn words(&self) -> String {
        let Bound { unit, most, goal, .. } = self.bound;
        let met = match (self.holds(), self.median <= *goal) {
            (false, _) => "TOO MUCH",
            (true, true) => "goal met",
            (true, false) => "not at its goal yet",
        };
        format!("at most {most}, goal {goal} {unit}; noise {:.2}; {met}", self.noise)
    }
}

/// The value in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
