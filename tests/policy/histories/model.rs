//! Who may do what, said a second time and as plainly as can be: lists that are read from the front, no index, no signature, no
//! digest, and nothing of the crate that is tested. It says what PROTOCOL.md 8.7, 9, 10.4 and 16 say and knows no more of the
//! world than names and positions. Not here: what really stands in a transcript (`life`).

use super::policies::{END, Layer, POLICIES, Policy, Rule, Says, What, Word};

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thing {
    Command(Command),
    Tool(&'static str, &'static str),
    Secret(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) words: &'static [&'static str],
    /// A program that runs others.
    pub(super) runner: bool,
    /// Others can replace it.
    pub(super) writable: bool,
    pub(super) folder: &'static str,
    /// With a variable in its environment that no rule allows.
    pub(super) poisoned: bool,
    pub(super) wall_ms: u64,
}

const PLAIN: Command = Command {
    words: &[],
    runner: false,
    writable: false,
    folder: "/srv",
    poisoned: false,
    wall_ms: 1000,
};

pub(super) const THINGS: &[Thing] = &[
    Thing::Command(Command {
        words: &["deploy", "staging"],
        ..PLAIN
    }),
    Thing::Command(Command {
        words: &["deploy", "production"],
        ..PLAIN
    }),
    Thing::Command(Command {
        words: &["deploy", "staging"],
        folder: "/tmp",
        ..PLAIN
    }),
    Thing::Command(Command {
        words: &["deploy", "staging"],
        poisoned: true,
        ..PLAIN
    }),
    Thing::Command(Command {
        words: &["deploy", "production"],
        wall_ms: 2000,
        ..PLAIN
    }),
    Thing::Command(Command {
        words: &["deploy", "--force"],
        ..PLAIN
    }),
    Thing::Command(Command {
        words: &["ls", "-l"],
        ..PLAIN
    }),
    Thing::Command(Command {
        words: &["ls", "-l"],
        writable: true,
        ..PLAIN
    }),
    Thing::Command(Command {
        words: &["sudo", "reboot"],
        runner: true,
        ..PLAIN
    }),
    Thing::Tool("files", "read"),
    Thing::Tool("files", "write"),
    Thing::Secret("token"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) agent: &'static str,
    pub(super) under: &'static [&'static str],
    pub(super) user: Option<&'static str>,
    pub(super) conversation: Option<&'static str>,
}

pub(super) const ASKERS: &[Asker] = &[
    Asker {
        agent: "butler",
        under: &[],
        user: Some("erin"),
        conversation: None,
    },
    Asker {
        agent: "butler",
        under: &[],
        user: Some("alice"),
        conversation: Some("kitchen"),
    },
    Asker {
        agent: "butler",
        under: &["boss"],
        user: Some("erin"),
        conversation: Some("kitchen"),
    },
    Asker {
        agent: "guest",
        under: &[],
        user: Some("tg:1"),
        conversation: Some("kitchen"),
    },
    Asker {
        agent: "butler",
        under: &[],
        user: None,
        conversation: None,
    },
];

/// Devices by their number, with their person. The last two have no say: an auditor's and a stranger's.
pub(super) const DEVICES: [&str; 6] = ["alice", "alice", "bob", "carol", "dora", "nobody"];
pub(super) const ADMINS: [&str; 3] = ["alice", "bob", "carol"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) blanks: Vec<usize>,
    pub(super) user: bool,
    pub(super) conversation: bool,
    pub(super) not_after: Option<u64>,
    pub(super) uses: Option<u32>,
}

#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Position of the request that it is about.
    pub(super) about: usize,
    pub(super) device: usize,
    pub(super) approves: bool,
    pub(super) right_number: bool,
    pub(super) grants: Option<Terms>,
    /// Whether the checkpoint that it quotes is our gate's, and its size.
    pub(super) ours: bool,
    pub(super) seen: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Permitted,
    Over,
}

#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) thing: Thing,
    pub(super) asker: Asker,
    pub(super) demands: Demands,
    pub(super) index: u64,
    pub(super) expires: u64,
    pub(super) state: State,
}

#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) like: usize,
    pub(super) terms: Terms,
    pub(super) givers: Vec<usize>,
    pub(super) revoked: bool,
    pub(super) used: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demands {
    pub(super) risk: Option<&'static str>,
    pub(super) need: usize,
    pub(super) veto: bool,
    pub(super) four_eyes: bool,
    pub(super) number: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Basis {
    Decisions,
    Grant(usize),
    Rule(usize),
    Mode,
    Unenrolled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Open(Basis),
    Waiting,
    Denied,
    Forbidden(Option<usize>),
    Expired,
    Refused,
}

#[derive(Clone, Debug)]
pub(super) struct Model {
    /// Which devices are in the roster.
    pub(super) devices: [bool; 6],
    pub(super) quorum: usize,
    pub(super) policy: Option<usize>,
    pub(super) unenrolled_allows: bool,
    pub(super) asked: Vec<Asked>,
    pub(super) grants: Vec<Grant>,
    /// Rules of the policy in force, with the times of permits by them.
    pub(super) rules_used: Vec<(usize, u64)>,
}

impl Model {
    pub(super) fn is_admin(&self, device: usize) -> bool {
        self.devices[device] && ADMINS.contains(&DEVICES[device])
    }

    pub(super) fn admins(&self) -> Vec<&'static str> {
        ADMINS
            .into_iter()
            .filter(|name| (0..6).any(|device| self.devices[device] && DEVICES[device] == *name))
            .collect()
    }

    fn policy(&self) -> Option<&'static Policy> {
        self.policy.map(|number| &POLICIES[number])
    }

    /// What the policy says, by which rule, and how carefully it is asked.
    pub(super) fn judge(&self, thing: Thing, asker: Asker, now: u64) -> (Says, Option<usize>, Demands) {
        let mut demands = Demands {
            risk: None,
            need: self.quorum,
            veto: true,
            four_eyes: false,
            number: false,
        };
        let Some(policy) = self.policy() else {
            return (Says::Ask, None, demands);
        };
        let mut matching = Vec::new();
        let mut answers = Vec::new();
        for agent in asker.under.iter().chain([&asker.agent]) {
            let own: Vec<usize> = (0..policy.rules.len())
                .filter(|at| self.matches(*at, &policy.rules[*at], thing, asker, agent, now))
                .collect();
            let strictest = own.iter().map(|at| policy.rules[*at].says).min();
            answers.push(match strictest {
                Some(says) => (says, own.iter().copied().find(|at| policy.rules[*at].says == says)),
                None => (mode(policy, asker, agent), None),
            });
            matching.extend(own);
        }
        let strictest = answers.iter().map(|(says, _)| *says).min().unwrap();
        let (says, rule) = *answers.iter().find(|(says, _)| *says == strictest).unwrap();
        matching.sort_unstable();
        let classes: Vec<_> = matching
            .iter()
            .filter_map(|at| policy.rules[*at].class)
            .map(|name| policy.classes.iter().find(|class| class.name == name).unwrap())
            .collect();
        let most = classes.iter().map(|class| class.quorum).max();
        if let Some(class) = classes.iter().find(|class| Some(class.quorum) == most) {
            demands = Demands {
                risk: Some(class.name),
                need: usize::from(class.quorum).max(self.quorum),
                veto: class.veto,
                four_eyes: class.four_eyes,
                number: class.number,
            };
        }
        (says, rule, demands)
    }

    fn matches(&self, at: usize, rule: &Rule, thing: Thing, asker: Asker, agent: &str, now: u64) -> bool {
        let who = (rule.agents.is_empty() || rule.agents.contains(&agent))
            && (rule.users.is_empty() || asker.user.is_some_and(|user| rule.users.contains(&user)));
        let what = match (rule.what, thing) {
            (What::Everything, _) => true,
            (What::Command(words), Thing::Command(command)) => match rule.says {
                Says::Allow => fits(words, command.words, false) && !command.writable && !command.poisoned,
                Says::Deny | Says::Ask => fits(words, command.words, true),
            },
            (What::Tool(server, tool), Thing::Tool(its, name)) => server == its && tool.is_none_or(|tool| tool == name),
            (What::Secret(name), Thing::Secret(its)) => name == its,
            _ => false,
        };
        let since = rule.per_hours.map(|hours| now - hours * 3_600_000);
        let used = self
            .rules_used
            .iter()
            .filter(|(rule, time)| *rule == at && since.is_none_or(|since| *time > since))
            .count();
        let left = rule
            .uses
            .is_none_or(|uses| used < uses as usize && asker.under.is_empty());
        who && what && !(rule.ends && now >= END) && left
    }

    /// PROTOCOL.md 9, for these answers.
    pub(super) fn verdict(&self, number: usize, answers: &[Answer], now: u64) -> Verdict {
        let asked = &self.asked[number];
        if self.admins().is_empty() {
            return match self.unenrolled_allows {
                false => Verdict::Refused,
                true if now >= asked.expires => Verdict::Expired,
                true => Verdict::Open(Basis::Unenrolled),
            };
        }
        let (says, rule, demands) = self.judge(asked.thing, asked.asker, now);
        if says == Says::Deny {
            return Verdict::Forbidden(rule);
        }
        let need = demands.need.max(asked.demands.need);
        let four_eyes = demands.four_eyes || asked.demands.four_eyes;
        let deniers = self.deniers(number, answers);
        let left = self.admins().iter().filter(|name| !deniers.contains(name)).count();
        if !deniers.is_empty() && (demands.veto || asked.demands.veto || left < need) {
            return Verdict::Denied;
        }
        if now >= asked.expires {
            return Verdict::Expired;
        }
        if people(&self.approvals(number, answers, now)).len() >= need {
            return Verdict::Open(Basis::Decisions);
        }
        let stands = |grant: &Grant| {
            let like = &self.asked[grant.like];
            let givers: Vec<&str> = grant
                .givers
                .iter()
                .filter(|giver| self.is_admin(**giver))
                .map(|giver| DEVICES[*giver])
                .collect();
            let mut left: Vec<&str> = givers
                .into_iter()
                .filter(|name| !(four_eyes && self.is_asker(name, asked.asker)))
                .collect();
            left.sort_unstable();
            left.dedup();
            is_like(grant, like, asked)
                && like.demands.risk == asked.demands.risk
                && !grant.revoked
                && grant.terms.not_after.is_none_or(|last| now <= last)
                && grant.terms.uses.is_none_or(|uses| grant.used < uses)
                && left.len() >= need
        };
        if let Some(grant) = self.grants.iter().position(stands) {
            return Verdict::Open(Basis::Grant(grant));
        }
        match (says, rule) {
            (Says::Allow, Some(rule)) => Verdict::Open(Basis::Rule(rule)),
            (Says::Allow, None) => Verdict::Open(Basis::Mode),
            _ => Verdict::Waiting,
        }
    }

    fn counts(&self, number: usize, answer: &Answer) -> bool {
        answer.about == number && answer.ours && answer.seen > self.asked[number].index && self.is_admin(answer.device)
    }

    fn deniers(&self, number: usize, answers: &[Answer]) -> Vec<&'static str> {
        let denials = answers
            .iter()
            .filter(|answer| self.counts(number, answer) && !answer.approves);
        denials.map(|answer| DEVICES[answer.device]).collect()
    }

    /// Positions of the approvals that count.
    pub(super) fn approvals(&self, number: usize, answers: &[Answer], now: u64) -> Vec<(usize, &'static str)> {
        let asked = &self.asked[number];
        let (_, _, demands) = self.judge(asked.thing, asked.asker, now);
        let four_eyes = demands.four_eyes || asked.demands.four_eyes;
        let deniers = self.deniers(number, answers);
        let mut approvals = Vec::new();
        for (at, answer) in answers.iter().enumerate() {
            let name = DEVICES[answer.device];
            if answer.approves
                && self.counts(number, answer)
                && (!asked.demands.number || answer.right_number)
                && !deniers.contains(&name)
                && !(four_eyes && self.is_asker(name, asked.asker))
            {
                approvals.push((at, name));
            }
        }
        approvals
    }

    /// The approvals that carry a grant on these terms, one of each person, if it may be given now.
    pub(super) fn grantable(&self, number: usize, answers: &[Answer], terms: &Terms, now: u64) -> Option<Vec<usize>> {
        let asked = &self.asked[number];
        let verdict = self.verdict(number, answers, now);
        if asked.state != State::Open
            || !matches!(verdict, Verdict::Open(_) | Verdict::Waiting)
            || !may_cover(terms, asked.thing)
        {
            return None;
        }
        if self
            .grants
            .iter()
            .any(|grant| grant.like == number && grant.terms == *terms)
        {
            return None;
        }
        let (_, _, demands) = self.judge(asked.thing, asked.asker, now);
        let mut carry = self.approvals(number, answers, now);
        carry.retain(|(at, _)| answers[*at].grants.as_ref() == Some(terms));
        let firsts = people(&carry);
        (firsts.len() >= demands.need.max(asked.demands.need)).then_some(firsts)
    }

    fn is_asker(&self, person: &str, asker: Asker) -> bool {
        let is_pair = |pair: &(&str, &str), user: &str| *pair == (person, user);
        let listed = |user: &str| {
            self.policy()
                .is_some_and(|policy| policy.persons.iter().any(|pair| is_pair(pair, user)))
        };
        asker.user.is_some_and(|user| user == person || listed(user))
    }
}

/// Positions of each person's first.
fn people(approvals: &[(usize, &str)]) -> Vec<usize> {
    let mut seen: Vec<&str> = Vec::new();
    let mut firsts = Vec::new();
    for (at, name) in approvals {
        if !seen.contains(name) {
            seen.push(name);
            firsts.push(*at);
        }
    }
    firsts
}

/// Loosely, any word is any word; else it is neither an option nor a path.
fn fits(pattern: &[Word], words: &[&str], loosely: bool) -> bool {
    let after = || fits(&pattern[1..], &words[1..], loosely);
    match (pattern.first(), words.first()) {
        (Some(Word::Rest), _) | (None, None) => true,
        (Some(Word::Is(wanted)), Some(word)) => wanted == word && after(),
        (Some(Word::Any), Some(word)) => (loosely || !word.starts_with('-') && !word.contains('/')) && after(),
        _ => false,
    }
}

fn mode(policy: &Policy, asker: Asker, agent: &str) -> Says {
    let find = |is: &dyn Fn(Layer) -> bool| {
        policy
            .layers
            .iter()
            .find(|(layer, _)| is(*layer))
            .map(|(_, says)| *says)
    };
    let user = find(&|layer| matches!(layer, Layer::User(name) if Some(name) == asker.user));
    let conversation = find(&|layer| matches!(layer, Layer::Conversation(name) if Some(name) == asker.conversation));
    let own = find(&|layer| matches!(layer, Layer::Agent(name) if name == agent));
    user.or(conversation).or(own).unwrap_or(policy.mode)
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && !word.starts_with('-') && !word.contains(['/', ' '])
}

pub(super) fn may_cover(terms: &Terms, thing: Thing) -> bool {
    match thing {
        Thing::Command(command) if command.writable => false,
        Thing::Command(_) if terms.blanks.is_empty() => true,
        Thing::Command(command) => {
            !command.runner
                && terms
                    .blanks
                    .iter()
                    .all(|at| *at > 0 && command.words.get(*at).is_some_and(|word| is_plain(word)))
        }
        _ => terms.blanks.is_empty(),
    }
}

fn is_like(grant: &Grant, like: &Asked, asked: &Asked) -> bool {
    let Terms {
        blanks,
        user,
        conversation,
        ..
    } = &grant.terms;
    let whom = like.asker.agent == asked.asker.agent
        && like.asker.under == asked.asker.under
        && (!user || like.asker.user == asked.asker.user)
        && (!conversation || like.asker.conversation == asked.asker.conversation);
    let what = match (like.thing, asked.thing) {
        (Thing::Command(one), Thing::Command(other)) => {
            let same = |at: usize| match blanks.contains(&at) {
                true => is_plain(other.words[at]),
                false => one.words[at] == other.words[at],
            };
            one.words.len() == other.words.len()
                && (0..one.words.len()).all(same)
                && (one.runner, one.writable, one.folder, one.poisoned)
                    == (other.runner, other.writable, other.folder, other.poisoned)
                && other.wall_ms <= one.wall_ms
        }
        (one, other) => one == other,
    };
    whom && what
}
