//! Whose attention a request asks for, and when: first those whom its class of risk names, the others after a while, and
//! everybody again before it is too late (PROTOCOL.md 16, `first` and `after`). Display only: nobody's answer counts less.

use approval::policy::Policy;
use approval::request::Request;
use approval::{Name, Time};

/// The last reminder comes so long before the end, in milliseconds.
const LAST: u64 = 60_000;

/// Until when this person is left alone with a request; none where they are asked at once.
pub fn quiet_until(policy: Option<&Policy>, request: &Request, person: &Name) -> Option<Time> {
    let class = policy?.class(request.risk.as_ref()?)?;
    if class.first.is_empty() || class.first.contains(person) {
        return None;
    }
    let end = request.created.millis().checked_add(class.after_ms?)?;
    Time::from_millis(end).ok()
}

/// How many reminders of a request are due: one at half of its life, one a minute before its end. A life too short for
/// both has the first alone, and one below a minute none.
pub fn reminders(request: &Request, now: Time) -> u8 {
    let (created, end) = (request.created.millis(), request.expires.millis());
    if end.saturating_sub(created) < LAST {
        return 0;
    }
    let half = created + end.saturating_sub(created) / 2;
    let last = end.saturating_sub(LAST);
    let now = now.millis();
    u8::from(now >= half) + u8::from(last > half && now >= last)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::show::example::{self, NOON};

    const POLICY: &str = "[class.deploy]\nfirst = [\"alice\"]\nafter = \"5m\"\n[class.plain]\n";

    fn quiet(risk: Option<&str>, person: &str) -> Option<u64> {
        let mut request = example::request(&["deploy"]);
        request.risk = risk.map(|risk| risk.parse().unwrap());
        let policy = Policy::parse(POLICY).unwrap();
        quiet_until(Some(&policy), &request, &person.parse().unwrap()).map(Time::millis)
    }

    #[test]
    fn those_who_are_named_first_are_asked_at_once_and_the_others_later() {
        assert_eq!(quiet(Some("deploy"), "alice"), None);
        assert_eq!(quiet(Some("deploy"), "bob"), Some(NOON + 300_000));
    }

    #[test]
    fn where_nobody_is_named_everybody_is_asked() {
        assert_eq!(quiet(None, "bob"), None);
        assert_eq!(quiet(Some("plain"), "bob"), None);
        assert_eq!(quiet(Some("gone"), "bob"), None);
        let request = example::request(&["deploy"]);
        assert_eq!(quiet_until(None, &request, &"bob".parse().unwrap()), None);
    }

    #[test]
    fn reminders_come_at_half_time_and_a_minute_before_the_end() {
        let request = example::request(&["true"]);
        let due = |after: u64| reminders(&request, Time::from_millis(NOON + after).unwrap());
        assert_eq!((due(0), due(299_999), due(300_000)), (0, 0, 1));
        assert_eq!((due(539_999), due(540_000), due(700_000)), (1, 2, 2));
    }

    #[test]
    fn a_short_life_has_one_reminder() {
        let mut request = example::request(&["true"]);
        request.expires = Time::from_millis(NOON + 90_000).unwrap();
        let due = |after: u64| reminders(&request, Time::from_millis(NOON + after).unwrap());
        assert_eq!((due(44_999), due(45_000), due(89_000)), (0, 1, 1));
        request.expires = Time::from_millis(NOON + 59_000).unwrap();
        assert_eq!(reminders(&request, request.expires), 0);
    }
}
