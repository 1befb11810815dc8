//! How much of the admins' attention may be asked for: bounds on what is open and on how fast it is asked, so that nobody approves out of weariness
//! (abuse case D36). A refusal for one of these reasons writes nothing. Deliberately not here: the protocol's own bound on open requests, which the
//! replay holds.

use std::collections::HashMap;

use approval::action::Action;
use approval::replay::{OPEN_REQUESTS, Replay};
use approval::request::AskedBy;

/// Bounds on asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attention {
    /// Open requests of one agent with all that work for it. More than a person reads with care before lunch.
    pub agent: usize,
    /// Open requests of one user of one platform: one who is named can't fill the agent's share.
    pub user: usize,
    /// Requests in a minute of one agent with all that work for it, where people are asked or the policy says no: one a second is a machine that
    /// doesn't read the answers.
    pub minute: u32,
    /// Open requests altogether. What the protocol allows, less some that remain for changes of the roster: an agent must not keep the admins from
    /// throwing somebody out.
    pub all: usize,
}

impl Default for Attention {
    fn default() -> Self {
        Self {
            agent: 20,
            user: 10,
            minute: 60,
            all: OPEN_REQUESTS - 8,
        }
    }
}

/// Agents whose haste is remembered at once. Names cost nothing: whoever makes more of them up loses the oldest, and meets the other bounds.
const AGENTS: usize = 1024;

/// A minute, in ms.
const MINUTE: u64 = 60_000;

/// What an agent has left, by the token-bucket rule; counted in ms so that nothing is lost to rounding.
struct Bucket {
    /// As many ms as `minute` requests cost altogether is full.
    left: u64,
    at: u64,
}

/// How fast each agent asked.
#[derive(Default)]
pub(super) struct Haste(HashMap<String, Bucket>);

impl Haste {
    /// Takes one request's worth from an agent's share at this time, in ms. False if there is nothing left.
    pub(super) fn takes(&mut self, asked_by: &AskedBy, now: u64, bounds: &Attention) -> bool {
        let Some(cost) = MINUTE.checked_div(u64::from(bounds.minute)) else {
            return false;
        };
        let agent = outermost(asked_by);
        if self.0.len() >= AGENTS
            && !self.0.contains_key(agent)
            && let Some(oldest) = self
                .0
                .iter()
                .min_by_key(|(_, bucket)| bucket.at)
                .map(|(name, _)| name.clone())
        {
            self.0.remove(&oldest);
        }
        let bucket = self
            .0
            .entry(agent.to_owned())
            .or_insert(Bucket { left: MINUTE, at: now });
        bucket.left = bucket.left.saturating_add(now.saturating_sub(bucket.at)).min(MINUTE);
        bucket.at = now;
        match bucket.left.checked_sub(cost) {
            Some(left) => {
                bucket.left = left;
                true
            }
            None => false,
        }
    }
}

/// The agent that answers for all that work for it: a helper's requests count as its own.
fn outermost(asked_by: &AskedBy) -> &str {
    asked_by.under.first().unwrap_or(&asked_by.agent).as_str()
}

/// Why one request more would be too much, if so: what is open already.
pub(super) fn too_many(replay: &Replay, asked_by: &AskedBy, bounds: &Attention) -> Option<(String, &'static str)> {
    let open: Vec<&AskedBy> = replay
        .open()
        .filter(|open| open.permit().is_none() && !matches!(open.request().action, Action::Roster(_)))
        .map(|open| &open.request().asked_by)
        .collect();
    if open.len() >= bounds.all {
        return Some((
            "too many requests are pending".to_owned(),
            "wait until some are answered or expire",
        ));
    }
    let agents = open
        .iter()
        .filter(|other| outermost(other) == outermost(asked_by))
        .count();
    if agents >= bounds.agent {
        let agent = outermost(asked_by);
        return Some((
            format!("too many requests of {agent} are pending: {agents}"),
            "wait until some are answered, redeemed or expire, or cancel some",
        ));
    }
    let same_user = |other: &&&AskedBy| other.user == asked_by.user && other.platform == asked_by.platform;
    let users = open.iter().filter(same_user).count();
    if asked_by.user.is_some() && users >= bounds.user {
        return Some((
            format!("too many requests for this user are pending: {users}"),
            "wait until some are answered, redeemed or expire, or cancel some",
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn asked_by(agent: &str, under: &[&str]) -> AskedBy {
        AskedBy {
            agent: agent.parse().unwrap(),
            under: under.iter().map(|name| name.parse().unwrap()).collect(),
            user: None,
            conversation: None,
            platform: None,
        }
    }

    #[test]
    fn one_a_second_and_a_minutes_worth_at_once() {
        let (bounds, agent) = (Attention::default(), asked_by("main", &[]));
        let mut haste = Haste::default();
        let granted = (0..100).filter(|_| haste.takes(&agent, 5_000, &bounds)).count();
        assert_eq!(granted, 60);
        assert!(!haste.takes(&agent, 5_999, &bounds));
        assert!(haste.takes(&agent, 6_000, &bounds));
        assert!(!haste.takes(&agent, 6_000, &bounds));
        assert!(haste.takes(&asked_by("other", &[]), 6_000, &bounds));
    }

    #[test]
    fn helpers_draw_on_the_share_of_the_agent_above_all() {
        let bounds = Attention {
            minute: 2,
            ..Attention::default()
        };
        let mut haste = Haste::default();
        assert!(haste.takes(&asked_by("helper-1", &["main"]), 0, &bounds));
        assert!(haste.takes(&asked_by("helper-2", &["main", "helper-1"]), 0, &bounds));
        assert!(!haste.takes(&asked_by("main", &[]), 0, &bounds));
        assert!(
            haste.takes(&asked_by("helper-1", &[]), 0, &bounds),
            "an agent of the same name elsewhere"
        );
    }

    #[test]
    fn made_up_names_dont_fill_the_memory() {
        let bounds = Attention::default();
        let mut haste = Haste::default();
        for number in 0..2 * AGENTS as u64 {
            assert!(haste.takes(&asked_by(&format!("a{number}"), &[]), number, &bounds));
        }
        assert!(haste.0.len() <= AGENTS);
    }

    #[test]
    fn none_a_minute_is_none() {
        let bounds = Attention {
            minute: 0,
            ..Attention::default()
        };
        assert!(!Haste::default().takes(&asked_by("main", &[]), 0, &bounds));
    }
}
