//! Where the grants for an action are found without looking at all of them: first by everything that no grant can leave open,
//! then, for each way of leaving something open that occurs there, by all the rest. What is found is compared again with the
//! grant itself; nothing rests on a hash alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::Held;
use crate::action::{Action, Bound, Command, Stdin};
use crate::grant::Terms;
use crate::request::AskedBy;
use crate::scalar::{Digest, Text};

/// Positions of grants among all grants, in several orders.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    by_digest: BTreeMap<Digest, usize>,
    groups: BTreeMap<Digest, BTreeMap<Shape, BTreeMap<Digest, Vec<usize>>>>,
}

/// What a grant leaves open, and what it holds whoever asks to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    blanks: Vec<u32>,
    user: bool,
    conversation: bool,
}

impl Shape {
    fn of(terms: &Terms) -> Self {
        Self {
            blanks: terms.blanks.clone(),
            user: terms.user,
            conversation: terms.conversation,
        }
    }
}

impl Index {
    pub(super) fn position(&self, grant: &Digest) -> Option<usize> {
        self.by_digest.get(grant).copied()
    }

    /// Takes in a grant at the next position. Those in its place that were over when it was given are passed over from now on:
    /// the clock never goes back to them.
    pub(super) fn insert(&mut self, at: usize, held: &Held, all: &[Arc<Held>]) {
        self.by_digest.insert(held.digest(), at);
        if !held.is_live() {
            return;
        }
        let (request, terms) = (held.request(), &held.grant().terms);
        let shape = Shape::of(terms);
        let rest = rest(&request.action, &request.asked_by, &shape);
        let group = self
            .groups
            .entry(group(&request.action, &request.asked_by))
            .or_default();
        let place = group.entry(shape).or_default().entry(rest).or_default();
        let given = held.grant().time;
        place.retain(|other| {
            let last = all.get(*other).and_then(|other| other.grant().terms.not_after);
            last.is_none_or(|last| given <= last)
        });
        place.push(at);
    }

    /// This one will never stand again.
    pub(super) fn forget(&mut self, at: usize, held: &Held) {
        let (request, shape) = (held.request(), Shape::of(&held.grant().terms));
        let (first, second) = (
            group(&request.action, &request.asked_by),
            rest(&request.action, &request.asked_by, &shape),
        );
        let Some(group) = self.groups.get_mut(&first) else {
            return;
        };
        if let Some(places) = group.get_mut(&shape) {
            if let Some(place) = places.get_mut(&second) {
                place.retain(|other| *other != at);
            }
            places.retain(|_, place| !place.is_empty());
        }
        group.retain(|_, places| !places.is_empty());
        if group.is_empty() {
            self.groups.remove(&first);
        }
    }

    /// Positions of those that may cover this, ascending.
    pub(super) fn candidates(&self, action: &Action, asked_by: &AskedBy) -> Vec<usize> {
        let Some(shapes) = self.groups.get(&group(action, asked_by)) else {
            return Vec::new();
        };
        let mut found: Vec<usize> = shapes
            .iter()
            .filter_map(|(shape, places)| places.get(&rest(action, asked_by, shape)))
            .flatten()
            .copied()
            .collect();
        found.sort_unstable();
        found
    }
}

/// SHA-256 over fields, each with its length.
struct Fields(Sha256);

impl Fields {
    fn new() -> Self {
        Self(Sha256::new())
    }

    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn number(&mut self, number: u64) -> &mut Self {
        self.put(&number.to_be_bytes())
    }

    fn file(&mut self, file: Option<&Bound>) -> &mut Self {
        match file {
            Some(file) => self.put(file.path.as_bytes()).put(file.sha256.as_bytes()),
            None => self.put(&[]),
        }
    }

    fn text(&mut self, text: Option<&Text>) -> &mut Self {
        match text {
            Some(text) => self.number(1).put(text.as_untrusted().as_bytes()),
            None => self.number(0),
        }
    }

    fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

/// Everything that no grant leaves open.
fn group(action: &Action, asked_by: &AskedBy) -> Digest {
    let mut fields = Fields::new();
    fields
        .put(action.class().as_str().as_bytes())
        .put(asked_by.agent.as_str().as_bytes());
    fields.number(asked_by.under.len() as u64);
    for name in &asked_by.under {
        fields.put(name.as_str().as_bytes());
    }
    match action {
        Action::Command(command) => group_of_command(&mut fields, command),
        Action::Tool(call) => {
            for text in [&call.server, &call.tool] {
                fields.put(text.as_untrusted().as_bytes());
            }
            fields
                .put(call.schema.as_bytes())
                .put(call.arguments.as_untrusted().as_bytes());
        }
        Action::Secret(secret) => {
            fields.put(secret.name.as_str().as_bytes());
            for text in [&secret.host, &secret.method, &secret.path] {
                fields.put(text.as_untrusted().as_bytes());
            }
        }
        // Never granted, so nothing is found in its place.
        Action::Roster(_) => {}
    }
    fields.finish()
}

fn group_of_command(fields: &mut Fields, command: &Command) {
    fields
        .file(Some(&command.executable))
        .file(command.interpreter.as_ref());
    fields.number(command.argv.len() as u64);
    fields.put(command.argv.first().map_or(&[], |first| first.as_bytes()));
    fields.number(command.env.len() as u64);
    for (name, value) in &command.env {
        fields.put(name.as_bytes()).put(value.as_bytes());
    }
    fields.put(command.directory.path.as_bytes()).number(command.uid.into());
    match &command.stdin {
        Stdin::None => fields.number(0),
        Stdin::Bytes(input) => fields.put(input.sha256.as_bytes()).number(input.bytes),
    };
    for mark in &command.marks {
        fields.put(mark.as_str().as_bytes());
    }
}

/// What this shape doesn't leave open, beyond the group. Limits are left to the comparison: a grant covers smaller ones too.
fn rest(action: &Action, asked_by: &AskedBy, shape: &Shape) -> Digest {
    let mut fields = Fields::new();
    if shape.user {
        fields.text(asked_by.user.as_ref());
    }
    if shape.conversation {
        fields.text(asked_by.conversation.as_ref());
    }
    if let Action::Command(command) = action {
        let blank = |at: u32| shape.blanks.binary_search(&at).is_ok();
        for (at, argument) in (0_u32..).zip(&command.argv) {
            if !blank(at) {
                fields.put(argument.as_bytes());
            }
        }
        for operand in command.operands.iter().filter(|operand| !blank(operand.argument)) {
            fields.number(operand.argument.into()).file(Some(&operand.file));
        }
    }
    fields.finish()
}
