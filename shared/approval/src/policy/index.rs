//! Finding the few rules that may match among many: commands argument by argument, tools and secrets by name, and
//! everything by asker. It finds each rule that matches and some that don't: whether one does, the rule itself says
//! (`rule`), so that a fault here can't allow anything. Not here: any judgement.

use std::collections::{BTreeMap, BTreeSet};

use super::glob::Glob;
use super::programs::{last_part, names_of};
use super::rule::{Asker, Element, Pattern, Rule, Says, What, Who, names_of_command};
use crate::action::{Action, Command};
use crate::scalar::ByteString;

#[derive(Debug, Default)]
pub(super) struct Index {
    /// Every agent, user, conversation and platform of the rules, numbered from 1.
    askers: BTreeMap<String, u32>,
    anything: Leaf,
    /// By the program as written: only there is it allowed.
    allowed: BTreeMap<Vec<u8>, Node>,
    /// By the program's last part, as it is and without its version: either is enough to deny or to ask.
    guarded: BTreeMap<Vec<u8>, Node>,
    servers: BTreeMap<String, Server>,
    secrets: BTreeMap<String, Leaf>,
}

#[derive(Debug, Default)]
struct Server {
    whole: Leaf,
    tools: BTreeMap<String, Leaf>,
}

/// What may follow the arguments so far.
#[derive(Debug, Default)]
struct Node {
    literals: BTreeMap<Vec<u8>, Node>,
    globs: BTreeMap<Glob, Node>,
    rest: Leaf,
    end: Leaf,
}

/// Agent, user, conversation and platform by number; 0 for anybody.
type Key = [u32; 4];

/// The rules for one and the same action, by asker.
#[derive(Debug, Default)]
struct Leaf(BTreeMap<Key, Vec<u32>>);

/// So many keys for one rule: lists of people times lists of conversations must not fill the memory.
const KEYS: usize = 64;

impl Index {
    pub(super) fn of(rules: &[Rule]) -> Self {
        let mut index = Self::default();
        for (number, rule) in (0..).zip(rules) {
            let keys = index.keys(&rule.who);
            index.each_leaf(rule, |leaf| {
                for key in &keys {
                    leaf.insert(*key, number, rules);
                }
            });
        }
        index
    }

    /// The numbers of the rules that may match, ascending, none twice.
    pub(super) fn candidates(&self, action: &Action, asker: Asker<'_>) -> Vec<u32> {
        let mut found = Vec::new();
        let keys = self.keys_of(asker);
        let mut visit = |leaf: &Leaf| leaf.find(&keys, &mut found);
        visit(&self.anything);
        match action {
            Action::Command(command) => self.visit_command(command, &mut visit),
            Action::Tool(call) => {
                if let Some(server) = self.servers.get(call.server.as_untrusted()) {
                    visit(&server.whole);
                    server.tools.get(call.tool.as_untrusted()).into_iter().for_each(visit);
                }
            }
            Action::Secret(secret) => self.secrets.get(secret.name.as_str()).into_iter().for_each(visit),
            Action::Roster(_) => {}
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    fn visit_command(&self, command: &Command, visit: &mut impl FnMut(&Leaf)) {
        let path = command.executable.path.as_bytes();
        let arguments = command.argv.get(1..).unwrap_or_default();
        for node in [path, last_part(path)]
            .iter()
            .filter_map(|name| self.allowed.get(*name))
        {
            node.visit(Says::Allow, arguments, visit);
        }
        let names: BTreeSet<&[u8]> = names_of_command(command).collect();
        for node in names.iter().filter_map(|name| self.guarded.get(*name)) {
            // As `Deny` does, `Ask` matches loosely.
            node.visit(Says::Deny, arguments, visit);
        }
    }

    /// Wherever this rule stands: at one place, but for a program with a version.
    fn each_leaf(&mut self, rule: &Rule, mut insert: impl FnMut(&mut Leaf)) {
        match &rule.what {
            What::Anything => insert(&mut self.anything),
            What::Command(pattern) => {
                let program = pattern.program.as_bytes();
                let (nodes, names) = match rule.says {
                    Says::Allow => (&mut self.allowed, BTreeSet::from([program])),
                    Says::Deny | Says::Ask => (&mut self.guarded, BTreeSet::from(names_of(program))),
                };
                for name in names {
                    insert(nodes.entry(name.to_vec()).or_default().leaf(pattern));
                }
            }
            What::Tool { server, tool } => {
                let server = self.servers.entry(server.clone()).or_default();
                insert(match tool {
                    None => &mut server.whole,
                    Some(tool) => server.tools.entry(tool.clone()).or_default(),
                });
            }
            What::Secret(name) => insert(self.secrets.entry(name.as_str().to_owned()).or_default()),
        }
    }

    /// One key for each combination of those named; if these are too many, for those of one list alone.
    fn keys(&mut self, who: &Who) -> Vec<Key> {
        let named = who.lists().map(|list| match list {
            None => vec![0],
            Some(list) => list.iter().map(|one| self.number(one)).collect(),
        });
        let mut keys = vec![Key::default()];
        let all = who.combinations() <= KEYS;
        for (place, numbers) in named.iter().enumerate() {
            if *numbers == [0] {
                continue;
            }
            let with = |key: &Key, number: u32| {
                let mut key = *key;
                key.iter_mut().skip(place).take(1).for_each(|slot| *slot = number);
                key
            };
            keys = keys
                .iter()
                .flat_map(|key| numbers.iter().map(move |number| with(key, *number)))
                .collect();
            if !all {
                break;
            }
        }
        keys
    }

    fn number(&mut self, one: &str) -> u32 {
        let next = u32::try_from(self.askers.len()).unwrap_or(u32::MAX).saturating_add(1);
        *self.askers.entry(one.to_owned()).or_insert(next)
    }

    /// Every key under which a rule for this asker may stand: at most sixteen.
    fn keys_of(&self, asker: Asker<'_>) -> Vec<Key> {
        let number = |one: Option<&str>| one.and_then(|one| self.askers.get(one)).copied().unwrap_or(0);
        let own = [
            number(Some(asker.agent)),
            number(asker.user),
            number(asker.conversation),
            number(asker.platform),
        ];
        let mut keys: Vec<Key> = (0..16u32)
            .map(|chosen| {
                let mut key = own;
                for (place, slot) in key.iter_mut().enumerate() {
                    *slot *= (chosen >> place) & 1;
                }
                key
            })
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

impl Who {
    fn lists(&self) -> [Option<&BTreeSet<String>>; 4] {
        [
            self.agents.as_ref(),
            self.users.as_ref(),
            self.conversations.as_ref(),
            self.platforms.as_ref(),
        ]
    }

    fn combinations(&self) -> usize {
        let sizes = self.lists().into_iter().flatten().map(|list| list.len());
        sizes.fold(1, usize::saturating_mul)
    }
}

impl Leaf {
    fn insert(&mut self, key: Key, number: u32, rules: &[Rule]) {
        let here = self.0.entry(key).or_default();
        let rule = |number: u32| rules.get(number as usize);
        // After one that always matches where this one does, and says the same, this one changes nothing.
        let repeated = rule(number).is_some_and(|new| {
            here.iter()
                .filter_map(|earlier| rule(*earlier))
                .any(|old| old.is_steady() && old.says == new.says && old.class == new.class)
        });
        if !repeated {
            here.push(number);
        }
    }

    fn find(&self, keys: &[Key], found: &mut Vec<u32>) {
        for numbers in keys.iter().filter_map(|key| self.0.get(key)) {
            found.extend(numbers);
        }
    }
}

impl Rule {
    /// Whether its place in the index says all about when it matches.
    fn is_steady(&self) -> bool {
        self.until.is_none() && self.uses.is_none() && self.who.combinations() <= KEYS
    }
}

impl Node {
    fn leaf(&mut self, pattern: &Pattern) -> &mut Leaf {
        let mut node = self;
        for element in &pattern.arguments {
            node = node.child(element);
        }
        if pattern.rest { &mut node.rest } else { &mut node.end }
    }

    fn child(&mut self, element: &Element) -> &mut Self {
        match element {
            Element::Literal(literal) => self.literals.entry(literal.as_bytes().to_vec()).or_default(),
            Element::Like(glob) => self.globs.entry(glob.clone()).or_default(),
        }
    }

    /// Recursion ends with the arguments of the longest rule: 63.
    fn visit(&self, says: Says, arguments: &[ByteString], visit: &mut impl FnMut(&Leaf)) {
        visit(&self.rest);
        let Some((next, after)) = arguments.split_first() else {
            visit(&self.end);
            return;
        };
        if let Some(node) = self.literals.get(next.as_bytes()) {
            node.visit(says, after, visit);
        }
        let liked = |glob: &Glob| says.likes(glob, next.as_bytes());
        for (_, node) in self.globs.iter().filter(|(glob, _)| liked(glob)) {
            node.visit(says, after, visit);
        }
    }
}
