//! What a line that was typed does: each answer is signed for the request that was on the screen, or for those of the
//! list that are named and were shown whole, and for nothing else.

use std::time::Instant;

use approval::Digest;
use approval::grant::Terms;
use approval::replay::Pending;

use super::super::admin::now;
use super::super::answer::{TRIES, fits, is_number, needs_others, same};
use super::super::scope::{Choice, Next};
use super::super::terminal::{Failure, complain, say_raw};
use super::super::words::{NoAnswer, Said, Word, read};
use super::Watching;
use super::screen::{Asking, Stage};
use crate::member::{Member, Saying};
use crate::show;

impl Watching {
    /// Takes in a line.
    pub(super) async fn typed(&mut self, member: &mut Member, line: &str) -> Result<(), Failure> {
        let Some(Asking { request, stage }) = self.asking.take() else {
            return self.unasked(member, line).await;
        };
        if self.unarmed_until.take().is_some_and(|until| Instant::now() < until) {
            complain("that came just as the request before this one ended: not counted");
            self.asking = Some(Asking { request, stage });
            self.ask_again();
            return Ok(());
        }
        let Some(open) = open(member, &request) else {
            complain("it is over already: nothing was signed");
            return Ok(());
        };
        let next = match stage {
            Stage::Reading(pages) => self.reading(member, &open, pages, line).await?,
            Stage::Answer => self.answer(member, &open, line).await?,
            Stage::Scope(choice) => self.scope(member, &open, *choice, line).await?,
            Stage::Number { grant, tries } => self.number(member, &open, grant, tries, line).await?,
        };
        if let Some(stage) = next {
            self.asking = Some(Asking { request, stage });
            self.ask_again();
        }
        Ok(())
    }

    /// Where nothing is asked: an answer to some of the list, or the end.
    async fn unasked(&mut self, member: &mut Member, line: &str) -> Result<(), Failure> {
        match read(line) {
            Ok(Said {
                which,
                word: Word::Quit,
            }) if which.is_empty() => self.done = true,
            Ok(Said { which, word }) if !which.is_empty() => self.several(member, &which, &word).await?,
            Ok(_) => complain("nothing is asked now"),
            Err(NoAnswer::Nothing) => {}
            Err(why) => complain(&why.to_string()),
        }
        Ok(())
    }

    /// The end must have been on the screen before anybody approves (F04); no is always an answer.
    async fn reading(
        &mut self,
        member: &mut Member,
        open: &Pending,
        mut pages: std::collections::VecDeque<String>,
        line: &str,
    ) -> Result<Option<Stage>, Failure> {
        if line.is_empty() {
            say_raw(&pages.pop_front().unwrap_or_default());
            return Ok(Some(self.after_page(&open.request().digest(), pages)));
        }
        match read(line) {
            Ok(Said { which, word }) if which.is_empty() && matches!(word, Word::Deny(_) | Word::Skip | Word::Quit) => {
                self.said(member, open, word).await
            }
            _ => {
                complain("not yet: its end wasn't shown");
                Ok(Some(Stage::Reading(pages)))
            }
        }
    }

    async fn answer(&mut self, member: &mut Member, open: &Pending, line: &str) -> Result<Option<Stage>, Failure> {
        match read(line) {
            Ok(Said { which, word }) if which.is_empty() => self.said(member, open, word).await,
            Ok(Said { which, word }) => {
                self.several(member, &which, &word).await?;
                let still = !self.done && !self.answered.contains(&open.request().digest());
                Ok(still.then_some(Stage::Answer))
            }
            Err(why) => {
                complain(&why.to_string());
                Ok(Some(Stage::Answer))
            }
        }
    }

    /// One answer to what is on the screen.
    async fn said(&mut self, member: &mut Member, open: &Pending, word: Word) -> Result<Option<Stage>, Failure> {
        let request = open.request();
        let others = show::offers(open, member.party.replay.roster());
        let choice = match word {
            Word::Once => return self.approve(member, open, None).await,
            Word::Deny(reason) => {
                self.sign(member, &request.digest(), Saying::deny(reason)).await?;
                return Ok(None);
            }
            Word::Skip => return Ok(None),
            Word::Quit => {
                self.done = true;
                return Ok(None);
            }
            Word::Always => Choice::begin(request, others),
            Word::AlwaysSame => same(&others).and_then(|terms| Choice::same(request, &terms)),
        };
        match choice {
            Ok(choice) => Ok(Some(Stage::Scope(Box::new(choice)))),
            Err(why) => {
                complain(&format!("not always: {why}"));
                Ok(Some(Stage::Answer))
            }
        }
    }

    async fn scope(
        &mut self,
        member: &mut Member,
        open: &Pending,
        mut choice: Choice,
        line: &str,
    ) -> Result<Option<Stage>, Failure> {
        match choice.typed(line, now()) {
            Next::Ask(said) => {
                said.iter().for_each(|said| complain(said));
                Ok(Some(Stage::Scope(Box::new(choice))))
            }
            Next::Chosen(terms) => self.approve(member, open, Some(terms)).await,
            Next::Left => Ok(Some(Stage::Answer)),
        }
    }

    /// Yes: signed at once, or once the number was repeated.
    async fn approve(
        &mut self,
        member: &mut Member,
        open: &Pending,
        grant: Option<Terms>,
    ) -> Result<Option<Stage>, Failure> {
        if open.request().matching.is_some() {
            return Ok(Some(Stage::Number { grant, tries: TRIES }));
        }
        let saying = Saying {
            grant,
            ..Saying::once()
        };
        self.sign_for(member, open, saying).await?;
        Ok(None)
    }

    async fn number(
        &mut self,
        member: &mut Member,
        open: &Pending,
        grant: Option<Terms>,
        tries: u8,
        line: &str,
    ) -> Result<Option<Stage>, Failure> {
        if line.eq_ignore_ascii_case("back") {
            return Ok(Some(Stage::Answer));
        }
        if fits(open.request(), line) {
            let saying = Saying {
                number: Some(line.to_owned()),
                grant,
                ..Saying::once()
            };
            self.sign_for(member, open, saying).await?;
            return Ok(None);
        }
        if !is_number(line) {
            complain("three digits, as 421");
            return Ok(Some(Stage::Number { grant, tries }));
        }
        let tries = tries.saturating_sub(1);
        if tries > 0 {
            complain("that isn't the number");
            return Ok(Some(Stage::Number { grant, tries }));
        }
        complain("not the number, for the last time: nothing was signed; if nobody asked you for this, deny it");
        Ok(None)
    }

    async fn sign_for(&mut self, member: &mut Member, open: &Pending, saying: Saying) -> Result<(), Failure> {
        let grants = saying.grant.is_some();
        self.sign(member, &open.request().digest(), saying).await?;
        if grants {
            needs_others(open.request().need).iter().for_each(|said| complain(said));
        }
        Ok(())
    }

    async fn sign(&mut self, member: &mut Member, request: &Digest, saying: Saying) -> Result<(), Failure> {
        let said = match (&saying.verdict, &saying.grant) {
            (approval::decision::Answer::Deny, _) => "signed: deny",
            (_, None) => "signed: approve",
            (_, Some(_)) => "signed: approve, and from now on",
        };
        member.answer(request, saying).await?;
        self.answered.insert(*request);
        complain(said);
        Ok(())
    }

    /// An answer to several of the list: to all that are named, or to none.
    async fn several(&mut self, member: &mut Member, which: &[usize], word: &Word) -> Result<(), Failure> {
        let saying = match word {
            Word::Once => Saying::once(),
            Word::Deny(reason) => Saying::deny(reason.clone()),
            Word::Always | Word::AlwaysSame => {
                complain("nothing was signed: always is said to one request at a time");
                return Ok(());
            }
            Word::Skip | Word::Quit => {
                complain("nothing was signed: skip and quit need no numbers");
                return Ok(());
            }
        };
        let mut requests = Vec::new();
        for number in which {
            match self.numbered_request(member, *number, word) {
                Ok(request) => requests.push(request),
                Err(why) => {
                    complain(&format!("nothing was signed: {why}"));
                    return Ok(());
                }
            }
        }
        for request in requests {
            complain(&format!("{}:", request.short()));
            self.sign(member, &request, saying.clone()).await?;
        }
        Ok(())
    }

    /// The request of this number, if it can be answered so.
    fn numbered_request(&self, member: &Member, number: usize, word: &Word) -> Result<Digest, String> {
        let id = number.checked_sub(1).and_then(|at| self.numbered.get(at));
        let id = id.ok_or_else(|| format!("there is no {number} in the list"))?;
        let open = open(member, id).ok_or_else(|| format!("{number} is over already"))?;
        if !self.wants(member, &open) {
            return Err(format!("{number} is answered already"));
        }
        if !self.shown.contains(id) {
            return Err(format!("{number} wasn't shown whole yet"));
        }
        if *word == Word::Once && open.request().matching.is_some() {
            return Err(format!("{number} wants its number: answer it alone"));
        }
        Ok(*id)
    }
}

fn open(member: &Member, id: &Digest) -> Option<Pending> {
    member
        .open_requests()
        .find(|open| open.request().digest() == *id)
        .cloned()
}
