//! The policies that the histories go through: plain data that the model reads, and the same as a text for the roster. Between them
//! they hold each kind of rule, mode, layer and class. Not here: what they mean (`model`).

use std::fmt::Write as _;

/// The strictest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Says {
    Deny,
    Ask,
    Allow,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Word {
    Is(&'static str),
    /// `like = "*"`.
    Any,
    Rest,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    Everything,
    Command(&'static [Word]),
    /// Of this server the tool of this name, or all.
    Tool(&'static str, Option<&'static str>),
    Secret(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub(super) says: Says,
    pub(super) agents: &'static [&'static str],
    pub(super) users: &'static [&'static str],
    pub(super) what: What,
    pub(super) class: Option<&'static str>,
    /// Whether it ends half an hour after the beginning.
    pub(super) ends: bool,
    pub(super) uses: Option<u32>,
    /// The span in which they are counted, in hours.
    pub(super) per_hours: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Class {
    pub(super) name: &'static str,
    pub(super) quorum: u16,
    pub(super) veto: bool,
    pub(super) four_eyes: bool,
    pub(super) number: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Layer {
    Agent(&'static str),
    Conversation(&'static str),
    User(&'static str),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    /// What is said where no rule matches.
    pub(super) mode: Says,
    pub(super) layers: &'static [(Layer, Says)],
    pub(super) classes: &'static [Class],
    /// A person and a user who is that person.
    pub(super) persons: &'static [(&'static str, &'static str)],
    pub(super) rules: &'static [Rule],
}

/// When the histories begin, and the rules that end do.
pub(super) const BEGIN: u64 = 1_800_000_000_000;
pub(super) const END: u64 = BEGIN + 30 * 60_000;
const END_TEXT: &str = "2027-01-15T08:30:00Z";

const RULE: Rule = Rule {
    says: Says::Ask,
    agents: &[],
    users: &[],
    what: What::Everything,
    class: None,
    ends: false,
    uses: None,
    per_hours: None,
};
const CLASS: Class = Class {
    name: "plain",
    quorum: 1,
    veto: true,
    four_eyes: false,
    number: false,
};
const EMPTY: Policy = Policy {
    mode: Says::Ask,
    layers: &[],
    classes: &[],
    persons: &[],
    rules: &[],
};

const LS: What = What::Command(&[Word::Is("ls"), Word::Is("-l")]);
const DEPLOY: What = What::Command(&[Word::Is("deploy"), Word::Rest]);
const STAGING: What = What::Command(&[Word::Is("deploy"), Word::Is("staging")]);
const DEPLOY_ANY: What = What::Command(&[Word::Is("deploy"), Word::Any]);
const REBOOT: What = What::Command(&[Word::Is("sudo"), Word::Rest]);

pub(super) const POLICIES: &[Policy] = &[
    EMPTY,
    Policy {
        rules: &[
            Rule {
                says: Says::Allow,
                what: LS,
                ..RULE
            },
            Rule {
                says: Says::Allow,
                what: STAGING,
                uses: Some(2),
                per_hours: Some(1),
                ..RULE
            },
            Rule {
                says: Says::Deny,
                what: REBOOT,
                ..RULE
            },
        ],
        ..EMPTY
    },
    Policy {
        mode: Says::Allow,
        classes: &[Class {
            name: "careful",
            number: true,
            ..CLASS
        }],
        rules: &[
            Rule {
                says: Says::Deny,
                what: What::Tool("files", None),
                ..RULE
            },
            Rule {
                what: DEPLOY,
                class: Some("careful"),
                ..RULE
            },
        ],
        ..EMPTY
    },
    Policy {
        mode: Says::Deny,
        layers: &[(Layer::User("alice"), Says::Ask), (Layer::Agent("guest"), Says::Allow)],
        rules: &[
            Rule {
                says: Says::Allow,
                what: LS,
                ..RULE
            },
            Rule {
                what: What::Secret("token"),
                ..RULE
            },
            Rule {
                what: DEPLOY_ANY,
                ..RULE
            },
        ],
        ..EMPTY
    },
    Policy {
        classes: &[
            Class {
                name: "two",
                quorum: 2,
                veto: false,
                four_eyes: true,
                ..CLASS
            },
            Class {
                name: "careful",
                number: true,
                four_eyes: true,
                ..CLASS
            },
        ],
        persons: &[("bob", "tg:1")],
        rules: &[
            Rule {
                what: DEPLOY,
                class: Some("two"),
                ..RULE
            },
            Rule {
                what: What::Secret("token"),
                class: Some("careful"),
                ..RULE
            },
            Rule {
                says: Says::Allow,
                what: What::Tool("files", Some("read")),
                ..RULE
            },
        ],
        ..EMPTY
    },
    Policy {
        layers: &[
            (Layer::Agent("guest"), Says::Deny),
            (Layer::Conversation("kitchen"), Says::Allow),
        ],
        rules: &[
            Rule {
                says: Says::Allow,
                what: DEPLOY_ANY,
                uses: Some(1),
                ..RULE
            },
            Rule {
                says: Says::Allow,
                what: DEPLOY_ANY,
                uses: Some(1),
                per_hours: Some(1),
                ..RULE
            },
            Rule {
                what: What::Tool("files", Some("write")),
                ..RULE
            },
        ],
        ..EMPTY
    },
    Policy {
        classes: &[
            Class {
                name: "one",
                number: true,
                ..CLASS
            },
            Class {
                name: "more",
                quorum: 2,
                veto: false,
                ..CLASS
            },
        ],
        rules: &[
            Rule {
                says: Says::Allow,
                what: What::Tool("files", Some("read")),
                ends: true,
                ..RULE
            },
            Rule {
                says: Says::Deny,
                users: &["erin"],
                what: What::Secret("token"),
                ..RULE
            },
            Rule {
                what: DEPLOY,
                class: Some("one"),
                ..RULE
            },
            Rule {
                what: STAGING,
                class: Some("more"),
                ..RULE
            },
        ],
        ..EMPTY
    },
    Policy {
        rules: &[
            Rule {
                says: Says::Allow,
                agents: &["butler"],
                what: LS,
                ..RULE
            },
            Rule {
                says: Says::Allow,
                agents: &["boss"],
                what: LS,
                uses: Some(1),
                ..RULE
            },
            Rule {
                says: Says::Deny,
                agents: &["boss"],
                what: DEPLOY,
                ..RULE
            },
            Rule {
                says: Says::Allow,
                users: &["alice", "tg:1"],
                what: What::Secret("token"),
                uses: Some(2),
                per_hours: Some(1),
                ..RULE
            },
        ],
        ..EMPTY
    },
    Policy {
        mode: Says::Allow,
        classes: &[Class {
            name: "loose",
            veto: false,
            ..CLASS
        }],
        rules: &[
            Rule {
                class: Some("loose"),
                ends: true,
                ..RULE
            },
            Rule {
                says: Says::Deny,
                users: &["tg:1"],
                ..RULE
            },
        ],
        ..EMPTY
    },
];

impl Policy {
    /// As it stands in a roster.
    pub(super) fn text(&self) -> String {
        let mut text = format!("mode = {:?}\n", mode(self.mode));
        for (layer, says) in self.layers {
            let (field, one) = match layer {
                Layer::Agent(one) => ("agent", one),
                Layer::Conversation(one) => ("conversation", one),
                Layer::User(one) => ("user", one),
            };
            let _ = write!(text, "[[layer]]\n{field} = {one:?}\nmode = {:?}\n", mode(*says));
        }
        for class in self.classes {
            let Class {
                name,
                quorum,
                veto,
                four_eyes,
                number,
            } = class;
            let _ = write!(
                text,
                "[class.{name}]\nquorum = {quorum}\nveto = {veto}\nfour_eyes = {four_eyes}\nnumber = {number}\n"
            );
        }
        for (person, user) in self.persons {
            let _ = write!(text, "[person.{person}]\nusers = [{user:?}]\n");
        }
        for rule in self.rules {
            text += &rule.text();
        }
        text
    }
}

fn mode(says: Says) -> &'static str {
    match says {
        Says::Deny => "deny",
        Says::Ask => "allowlist",
        Says::Allow => "full",
    }
}

impl Rule {
    fn text(&self) -> String {
        let effect = format!("{:?}", self.says).to_lowercase();
        let mut text = format!("[[rule]]\neffect = {effect:?}\n");
        for (field, list) in [("agents", self.agents), ("users", self.users)] {
            if !list.is_empty() {
                let _ = writeln!(text, "{field} = {list:?}");
            }
        }
        match self.what {
            What::Everything => {}
            What::Command(words) => {
                let words: Vec<String> = words
                    .iter()
                    .map(|word| match word {
                        Word::Is(word) => format!("{word:?}"),
                        Word::Any => "{ like = \"*\" }".to_owned(),
                        Word::Rest => "{ rest = true }".to_owned(),
                    })
                    .collect();
                let _ = writeln!(text, "command = [{}]", words.join(", "));
            }
            What::Tool(server, tool) => {
                let _ = writeln!(text, "tool = \"{server}/{}\"", tool.unwrap_or_default());
            }
            What::Secret(name) => {
                let _ = writeln!(text, "secret = {name:?}");
            }
        }
        if let Some(class) = self.class {
            let _ = writeln!(text, "class = {class:?}");
        }
        if self.ends {
            let _ = writeln!(text, "until = {END_TEXT}");
        }
        if let Some(uses) = self.uses {
            let _ = writeln!(text, "uses = {uses}");
        }
        if let Some(hours) = self.per_hours {
            let _ = writeln!(text, "per = \"{hours}h\"");
        }
        text
    }
}

#[test]
fn every_policy_is_one() {
    for policy in POLICIES {
        let text = policy.text();
        assert!(
            approval::policy::Policy::parse(&text).is_ok(),
            "{:?}\n{text}",
            approval::policy::Policy::parse(&text)
        );
    }
}
