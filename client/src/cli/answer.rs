//! `countersign approve` and `deny`: answers to requests that are named. Each is shown whole before it is answered, and how
//! far "always" reaches is said in one sentence before it is signed. Answering what comes is in `watch`.

use std::time::Duration;

use approval::Digest;
use approval::grant::Terms;
use approval::replay::{Did, Entry, Pending};
use approval::request::{Request, matching};
use clap::Args;
use tokio::time::Instant;

use super::Context;
use super::admin::{Outage, look, now};
use super::scope::{Choice, Next, Scope};
use super::terminal::{Failure, Lines, Outcome, complain, interactive, prompt, say, say_json, show_whole};
use super::words::{Word, word};
use crate::member::{Member, Notice, Saying, past};
use crate::show;

/// How long to wait for the gate to take what was signed.
pub(super) const TAKEN: Duration = Duration::from_secs(15);

/// Exit code where an answer came too late or wasn't taken.
pub(super) const NOT_TAKEN: u8 = 4;

/// How often a number may be typed wrong.
pub(super) const TRIES: u8 = 3;

/// What is asked where a number must be repeated.
pub(super) const NUMBER: &str = "the three digits shown where it was asked, or back: ";

#[derive(Args)]
pub(super) struct Approve {
    /// The requests' ids, which may be shortened, and the answer: once (also if nothing is said), always, always same (as another admin would), or deny and why
    #[arg(required = true, value_name = "ID")]
    words: Vec<String>,
    /// A remark for the transcript; of a denial the reason, which the agent is told
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
    /// The three digits shown where it was asked, if it wants them
    #[arg(long, value_name = "DIGITS")]
    number: Option<String>,
    #[command(flatten)]
    scope: Scope,
}

#[derive(Args)]
pub(super) struct Deny {
    /// The requests' ids; may be shortened
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Why: the agent is told, and the transcript keeps it
    #[arg(long, default_value = "", hide_default_value = true)]
    reason: String,
}

/// What is to be said to which requests.
struct Answer {
    ids: Vec<String>,
    word: Word,
    reason: String,
    number: Option<String>,
    scope: Scope,
}

impl Approve {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let (ids, said) = sorted(&self.words)?;
        let scoped = !self.scope.is_empty();
        match &said {
            Word::Always | Word::AlwaysSame if ids.len() > 1 => {
                return Err(Failure::new("`always` is said to one request at a time").hint("name one id"));
            }
            Word::AlwaysSame if scoped => {
                return Err(Failure::new("`always same` takes the other admin's scope").hint("leave the options away"));
            }
            Word::Once | Word::Deny(_) if scoped => {
                return Err(Failure::new("a scope without `always`").hint("say `always`, or leave the options away"));
            }
            Word::Deny(_) if self.number.is_some() => {
                return Err(Failure::new("a denial repeats no number").hint("leave --number away"));
            }
            _ if self.number.is_some() && ids.len() > 1 => {
                return Err(Failure::new("a number belongs to one request").hint("name one id"));
            }
            _ => {}
        }
        let (word, reason) = match said {
            Word::Deny(words) if self.reason.is_empty() => (Word::Deny(words.clone()), words),
            word => (word, self.reason),
        };
        let answer = Answer {
            ids,
            word,
            reason,
            number: self.number,
            scope: self.scope,
        };
        answer.give(context).await
    }
}

impl Deny {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        let answer = Answer {
            ids: self.ids,
            word: Word::Deny(self.reason.clone()),
            reason: self.reason,
            number: None,
            scope: Scope::default(),
        };
        answer.give(context).await
    }
}

/// The ids and the answer behind them. What is neither is refused before anything is answered: a word typed wrong must not
/// leave an approval behind.
fn sorted(words: &[String]) -> Result<(Vec<String>, Word), Failure> {
    let is_answer = |text: &String| {
        let said = word(text);
        said.is_ok() || text.eq_ignore_ascii_case("always")
    };
    let is_id = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let at = words
        .iter()
        .position(|text| !is_id(text) && is_answer(text))
        .unwrap_or(words.len());
    let (ids, answer) = words.split_at_checked(at).unwrap_or((words, &[]));
    let said = match answer {
        [] => Word::Once,
        answer => word(&answer.join(" ")).map_err(|why| Failure::new(why).hint(ANSWERS))?,
    };
    if matches!(said, Word::Skip | Word::Quit) {
        return Err(Failure::new("that answers nothing").hint(ANSWERS));
    }
    let mut unique: Vec<String> = Vec::new();
    for id in ids {
        let id = id.trim_end_matches(',');
        if !is_id(id) {
            let shown = approval::escape::escape(id);
            return Err(Failure::new(format!(
                "`{shown}` is neither an id nor an answer; nothing was answered"
            ))
            .hint(ANSWERS)
            .code(2));
        }
        if !unique.iter().any(|other| other == id) {
            unique.push(id.to_owned());
        }
    }
    if unique.is_empty() {
        return Err(Failure::new("no request is named").hint("`countersign inbox` lists them"));
    }
    Ok((unique, said))
}

const ANSWERS: &str = "give ids in hex digits and then once, always, always same, or deny and why";

impl Answer {
    async fn give(self, context: &Context) -> Outcome {
        let mut member = Member::open(context.home()?).await?;
        look(&mut member, false).await?;
        // All of them before the first is answered: where one is named wrong, nothing is signed.
        let mut requests: Vec<Digest> = Vec::new();
        for id in &self.ids {
            let found = show::find(member.open_requests(), id);
            let request = found.map(|open| open.request().digest()).map_err(|missing| {
                Failure::new(missing)
                    .hint("see `countersign inbox`; a request that is over can't be answered")
                    .code(NOT_TAKEN)
            })?;
            if !requests.contains(&request) {
                requests.push(request);
            }
        }
        let mut lines = interactive().then(Lines::of_stdin);
        let mut code = 0;
        for request in requests {
            code = code.max(self.to_one(context, &mut member, &request, lines.as_mut()).await?);
        }
        member.close().await;
        Ok(code)
    }

    async fn to_one(
        &self,
        context: &Context,
        member: &mut Member,
        id: &Digest,
        mut lines: Option<&mut Lines>,
    ) -> Outcome {
        let Some(open) = member
            .party
            .replay
            .request(id)
            .filter(|open| open.permit().is_none())
            .cloned()
        else {
            say(&format!("{}: it is over already: nothing was signed", id.short()));
            return Ok(NOT_TAKEN);
        };
        // A program has read it with `show --json`; somebody at a terminal sees it here, whatever else is printed.
        if !context.json || lines.is_some() {
            let past = past(&member.party, open.request()).await?;
            let whole = show::whole(&open, &member.party.replay, past.as_ref(), now());
            if !show_whole(lines.as_deref_mut(), &whole, context.json).await {
                return Err(Failure::new("its end wasn't shown: nothing was signed"));
            }
        }
        let mut saying = match &self.word {
            Word::Deny(_) => Saying::deny(self.reason.clone()),
            _ => Saying {
                reason: self.reason.clone(),
                ..Saying::once()
            },
        };
        if matches!(self.word, Word::Always | Word::AlwaysSame) {
            saying.grant = Some(self.terms(member, &open, lines.as_deref_mut()).await?);
        }
        if !matches!(self.word, Word::Deny(_)) {
            saying.number = self.number(open.request(), lines).await?;
        }
        let granted = saying.grant.is_some();
        let decision = member.answer(id, saying).await?;
        wait_until_taken(member, id, &decision, granted, context).await
    }

    /// How far it is granted, chosen by whoever signs and said in one sentence.
    async fn terms(&self, member: &Member, open: &Pending, lines: Option<&mut Lines>) -> Result<Terms, Failure> {
        let request = open.request();
        let others = show::offers(open, member.party.replay.roster());
        let never = |why: String| Failure::new(why).hint("approve it `once`");
        if self.word == Word::AlwaysSame {
            let terms = same(&others)
                .map_err(|why| Failure::new(why).hint("see `countersign show` for who would grant what"))?;
            Choice::same(request, &terms).map_err(never)?;
            complain(&show::terms::sentence(request, &terms, now()));
            return Ok(terms);
        }
        let mut choice = Choice::begin(request, others).map_err(never)?;
        if self.scope.is_bounded() {
            let terms = self.scope.terms(request, now())?;
            complain(&show::terms::sentence(request, &terms, now()));
            return Ok(terms);
        }
        let required = || {
            Failure::new("how far `always` reaches isn't said")
                .hint("give at least one of --for, --until, --uses and --without-end")
        };
        let Some(lines) = lines.filter(|_| self.scope.is_empty()) else {
            return Err(required());
        };
        loop {
            prompt(&choice.question(now()));
            let line = lines.next_or_end().await.ok_or_else(required)?;
            match choice.typed(&line, now()) {
                Next::Ask(said) => said.iter().for_each(|said| complain(said)),
                Next::Chosen(terms) => return Ok(terms),
                Next::Left => return Err(Failure::new("nothing was signed")),
            }
        }
    }

    /// The number that this request wants, if it wants one.
    async fn number(&self, request: &Request, lines: Option<&mut Lines>) -> Result<Option<String>, Failure> {
        if request.matching.is_none() {
            return match &self.number {
                Some(_) => Err(Failure::new("this request wants no number").hint("leave --number away")),
                None => Ok(None),
            };
        }
        if let Some(number) = &self.number {
            return if fits(request, number) {
                Ok(Some(number.clone()))
            } else {
                Err(wrong())
            };
        }
        let Some(lines) = lines else {
            return Err(
                Failure::new("this request wants the number shown where it was asked").hint("give it with --number")
            );
        };
        let mut tries = TRIES;
        while tries > 0 {
            prompt(NUMBER);
            let Some(line) = lines.next_or_end().await else { break };
            match line.trim() {
                "back" => break,
                number if fits(request, number) => return Ok(Some(number.to_owned())),
                number if is_number(number) => {
                    tries -= 1;
                    complain("that isn't the number");
                }
                _ => complain("three digits, as 421"),
            }
        }
        Err(wrong())
    }
}

fn wrong() -> Failure {
    Failure::new("not the number shown where it was asked: nothing was signed")
        .hint("look there; if you weren't asked by anybody, deny it")
}

/// Three digits.
pub(super) fn is_number(text: &str) -> bool {
    text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether this is the number that the request wants.
pub(super) fn fits(request: &Request, number: &str) -> bool {
    is_number(number) && request.matching == Some(matching(&request.nonce, number))
}

/// What all others who would grant it agree on.
pub(super) fn same(others: &[(String, Terms)]) -> Result<Terms, String> {
    let Some((_, first)) = others.first() else {
        return Err("nobody else has said what they would grant".to_owned());
    };
    if others.iter().any(|(_, terms)| terms != first) {
        let names: Vec<String> = others.iter().map(|(name, _)| name.clone()).collect();
        return Err(format!(
            "{} would grant different things: choose with always",
            show::and(&names)
        ));
    }
    Ok(first.clone())
}

/// What a grant needs beside one's own word.
pub(super) fn needs_others(need: u16) -> Option<String> {
    (need > 1)
        .then(|| format!("the grant stands once {need} people give exactly this one: the others say `always same`"))
}

/// What became of a grant that was offered.
pub(super) fn granted(entry: &Entry) -> Option<String> {
    (entry.did() == Did::Granted).then(|| {
        let id = entry.statement().digest().short();
        format!("granted as {id}; `countersign revoke {id}` takes it back")
    })
}

async fn wait_until_taken(
    member: &mut Member,
    request: &Digest,
    decision: &Digest,
    grants: bool,
    context: &Context,
) -> Outcome {
    let verdict = |text: &str, code: u8| {
        if context.json {
            say_json(
                &serde_json::json!({"v": 1, "request": request, "decision": decision, "result": text, "exit": code}),
            );
        } else {
            say(text);
        }
        Ok(code)
    };
    let until = Instant::now() + TAKEN;
    let mut seen = false;
    let mut outage = Outage::default();
    loop {
        let woken = tokio::select! {
            woken = member.wait() => woken,
            () = tokio::time::sleep_until(until) => {
                return verdict("signed; the gate hasn't taken it yet, it is sent again by `countersign watch` or `inbox`", 0);
            }
        };
        for notice in member.take(woken).await? {
            match notice {
                Notice::Entry(entry) => {
                    seen |= entry.statement().digest() == *decision;
                    if entry.request().is_some_and(|(_, about)| about == *request) {
                        granted(&entry).iter().for_each(|said| complain(said));
                        match (entry.did(), seen) {
                            (Did::Permitted | Did::Changed, true) => return verdict("approved: it is permitted", 0),
                            (Did::Ended, true) => {
                                return verdict(
                                    &show::entry(&entry, &member.party.replay, &show::basis::Names::new()),
                                    0,
                                );
                            }
                            (Did::Permitted | Did::Ended | Did::Changed, false) => {
                                return verdict("too late: another answer was faster", NOT_TAKEN);
                            }
                            _ => {}
                        }
                    }
                }
                Notice::Refused { about, text, .. } if about == *decision => {
                    return verdict(&format!("not taken: {}", approval::escape::escape(&text)), NOT_TAKEN);
                }
                Notice::Connected => outage.over(),
                Notice::Offline(reason) => outage.say(&reason),
                Notice::Evidence(what) => complain(&format!("WARNING: {what}")),
                _ => {}
            }
        }
        // The decision and what follows from it come in one message: still open means that more are needed.
        if seen
            && let Some(open) = member
                .party
                .replay
                .request(request)
                .filter(|open| open.permit().is_none())
        {
            if grants {
                needs_others(open.request().need).iter().for_each(|said| complain(said));
            }
            return verdict(&format!("taken; {}", show::line(open, &member.party.replay, now())), 0);
        }
        if let Some((_, text)) = member.refusal(decision.as_bytes()).await? {
            return verdict(&format!("not taken: {}", approval::escape::escape(&text)), NOT_TAKEN);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
    use super::*;
    use crate::show::example;

    fn read(line: &str) -> Result<(Vec<String>, Word), Failure> {
        sorted(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    fn ids(ids: &[&str]) -> Vec<String> {
        ids.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ids_come_first_and_then_the_answer() {
        assert_eq!(read("3f2a91bc").unwrap(), (ids(&["3f2a91bc"]), Word::Once));
        assert_eq!(read("3f2a, abcd once").unwrap(), (ids(&["3f2a", "abcd"]), Word::Once));
        assert_eq!(read("3f2a always").unwrap(), (ids(&["3f2a"]), Word::Always));
        assert_eq!(read("3f2a always same").unwrap(), (ids(&["3f2a"]), Word::AlwaysSame));
        let denied = read("3f2a 3f2a dead deny too late for once").unwrap();
        assert_eq!(
            denied,
            (ids(&["3f2a", "dead"]), Word::Deny("too late for once".to_owned()))
        );
    }

    #[test]
    fn a_word_typed_wrong_answers_nothing() {
        for line in [
            "3f2a alwasy",
            "3f2a yess",
            "once",
            "always 3f2a",
            "3f2a once but not twice",
            "3f2a skip",
            "3f2a xyz dead",
            "3f2a always please",
        ] {
            assert!(read(line).is_err(), "{line}");
        }
    }

    #[test]
    fn a_number_is_three_digits_and_the_right_ones() {
        let mut request = example::request(&["deploy"]);
        request.matching = Some(matching(&request.nonce, "042"));
        assert!(fits(&request, "042"));
        for wrong in ["42", "0042", "421", "", "04２", " 042"] {
            assert!(!fits(&request, wrong), "{wrong}");
        }
        request.matching = None;
        assert!(!fits(&request, "042"));
    }

    #[test]
    fn the_same_is_what_all_who_offer_agree_on() {
        let offer = |name: &str, uses| (name.to_owned(), Terms { uses, ..Terms::exact() });
        assert!(same(&[]).is_err());
        assert_eq!(
            same(&[offer("bob", Some(2)), offer("carol", Some(2))]).unwrap().uses,
            Some(2)
        );
        let unlike = same(&[offer("bob", Some(2)), offer("carol", None)]).unwrap_err();
        assert!(unlike.starts_with("bob and carol would grant different things"));
    }
}
