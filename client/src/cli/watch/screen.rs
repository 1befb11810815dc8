//! What a person who watches has before them: one request to its end, then the question; the list where several wait.

use std::collections::VecDeque;

use approval::Digest;
use approval::grant::Terms;
use approval::replay::Pending;

use super::super::admin::now;
use super::super::answer::NUMBER;
use super::super::scope::Choice;
use super::super::terminal::{Failure, Lines, bell, more, pages, prompt, say, say_raw};
use super::Watching;
use crate::member::{Member, past};
use crate::show;

/// The question under each request.
pub(super) const ASK: &str = "approve? [y]es, always, [n]o REASON, [s]kip, [q]uit: ";

/// A request that is on the screen.
pub(super) struct Asking {
    /// Its digest.
    pub(super) request: Digest,
    /// How far it has come.
    pub(super) stage: Stage,
}

/// How far a question has come.
pub(super) enum Stage {
    /// Its end hasn't been shown: these pages follow.
    Reading(VecDeque<String>),
    /// Yes or no.
    Answer,
    /// How far "always" reaches.
    Scope(Box<Choice>),
    /// The number that must be repeated, before this is signed.
    Number {
        /// What is granted beside.
        grant: Option<Terms>,
        /// How often it may still be wrong.
        tries: u8,
    },
}

impl Stage {
    /// What is asked now.
    pub(super) fn question(&self) -> String {
        match self {
            Self::Reading(pages) => more(pages.len()),
            Self::Answer => ASK.to_owned(),
            Self::Scope(choice) => choice.question(now()),
            Self::Number { .. } => NUMBER.to_owned(),
        }
    }
}

impl Watching {
    /// Asks again what was asked: something was written under it.
    pub(super) fn ask_again(&self) {
        if let Some(asking) = &self.asking {
            prompt(&asking.stage.question());
        }
    }

    /// Whether this person still has to answer. What is allowed already only waits for its agent to do it.
    pub(super) fn wants(&self, member: &Member, open: &Pending) -> bool {
        let id = open.request().digest();
        !self.answered.contains(&id)
            && !member.has_answered(open)
            && !show::is_allowed(&member.party.replay, &id, now())
    }

    /// Shows the next request that wants an answer of this person, whole, and asks.
    pub(super) async fn ask(&mut self, member: &Member, lines: &mut Lines) -> Result<(), Failure> {
        if self.silent || self.asking.is_some() {
            return Ok(());
        }
        let open = |id: &Digest| member.open_requests().find(|open| open.request().digest() == *id);
        while let Some(next) = self.queue.front().copied() {
            let Some(open) = open(&next).filter(|open| self.wants(member, open)) else {
                self.queue.pop_front();
                continue;
            };
            self.list(member);
            self.queue.pop_front();
            let past = past(&member.party, open.request()).await?;
            say("");
            let mut pages = pages(&show::whole(open, &member.party.replay, past.as_ref(), now()));
            bell();
            // Typed before this was on the screen: an answer to something else.
            lines.forget();
            say_raw(&pages.pop_front().unwrap_or_default());
            let stage = self.after_page(&next, pages);
            prompt(&stage.question());
            self.asking = Some(Asking { request: next, stage });
            return Ok(());
        }
        Ok(())
    }

    /// After a page: the next one, or the question, if that was the last.
    pub(super) fn after_page(&mut self, request: &Digest, pages: VecDeque<String>) -> Stage {
        if pages.is_empty() {
            self.shown.insert(*request);
            Stage::Answer
        } else {
            Stage::Reading(pages)
        }
    }

    /// The list of all that wait, where there are several and one of them is new.
    fn list(&mut self, member: &Member) {
        let waiting: Vec<&Pending> = member
            .open_requests()
            .filter(|open| self.wants(member, open))
            .filter(|open| self.quiet.iter().all(|(id, _)| *id != open.request().digest()))
            .collect();
        let known = |open: &&Pending| self.numbered.contains(&open.request().digest());
        if waiting.len() < 2 || waiting.iter().all(known) {
            return;
        }
        for open in &waiting {
            let id = open.request().digest();
            if !self.numbered.contains(&id) {
                self.numbered.push(id);
            }
        }
        say("");
        say(&format!("{} wait for you", waiting.len()));
        for open in waiting {
            let id = open.request().digest();
            let number = self
                .numbered
                .iter()
                .position(|other| *other == id)
                .map_or(0, |at| at + 1);
            say(&format!(
                "{number:>3}  {}",
                show::line(open, &member.party.replay, now())
            ));
        }
        say("once each was shown whole, several can be answered at once: `1,3 no` or `1 2 yes`");
    }
}
