//! One history: a gate's transcript and the model side by side, and at every step the question whether both say the same. What the
//! model refuses is tried all the same, with everything that a dishonest gate could claim. Not here: what should come out (`model`).

mod changing;
mod granting;
mod trying;

use std::collections::BTreeMap;

use approval::checkpoint::Checkpoint;
use approval::decision::Decision;
use approval::grant::Grant as Given;
use approval::outcome::{Ended, Forbidden, Nothing, Outcome};
use approval::replay::{FindingKind, Replay, Snapshot};
use approval::request::Request;
use approval::roster::Roster;
use approval::statement::Payload;
use approval::transcript::leaf_hash;
use approval::{Digest, Signed, Verified};

use super::dice::Dice;
use super::model::{ASKERS, Answer, Asked, Model, State, THINGS, Terms, Thing, Verdict};
use super::policies::{BEGIN, POLICIES};
use super::world::{People, at, request};

const SECOND: u64 = 1000;
const MINUTE: u64 = 60 * SECOND;

/// Where histories begin: a transcript with its roster, and what the model knows of it.
#[derive(Clone)]
pub(super) struct Beginning {
    replay: Replay,
    leaves: Vec<Signed>,
    roots: Vec<[u8; 32]>,
    model: Model,
}

/// A decision that was made, whether or not the transcript took it.
#[derive(Clone)]
struct Heard {
    answer: Answer,
    /// Whether the checkpoint is of this very log.
    of_this_log: bool,
    decision: Verified<Decision>,
    /// Its position in the transcript, if it got there: what is refused at first may come again later.
    recorded: Option<u64>,
}

/// How often what happened: a history that nothing happens in proves nothing.
pub(super) type Tally = BTreeMap<&'static str, u64>;

pub(super) struct Life<'a> {
    people: &'a People,
    dice: Dice,
    replay: Replay,
    leaves: Vec<Signed>,
    /// The root at each size from 0 on.
    roots: Vec<[u8; 32]>,
    model: Model,
    now: u64,
    /// The time of the gate's last statement.
    floor: u64,
    /// In the order of the model's, each with its permit.
    requests: Vec<Verified<Request>>,
    permits: Vec<Option<Digest>>,
    heard: Vec<Heard>,
    grants: Vec<Verified<Given>>,
    tally: Tally,
    /// Whether each step is told.
    aloud: bool,
}

impl Beginning {
    /// Enrolled with each policy and quorum, and not enrolled.
    pub(super) fn all(people: &People) -> Vec<Self> {
        let mut all = vec![Self::of(people, false, None), Self::of(people, true, None)];
        for policy in std::iter::once(None).chain((0..POLICIES.len()).map(Some)) {
            all.extend((1..=3).map(|quorum| Self::of(people, false, Some((quorum, policy)))));
        }
        all
    }

    fn of(people: &People, unenrolled_allows: bool, enrolled: Option<(u16, Option<usize>)>) -> Self {
        let genesis = people.genesis(unenrolled_allows);
        let mut begun = Self {
            replay: Replay::new(Some(people.gate.party())),
            leaves: Vec::new(),
            roots: vec![Replay::default().root()],
            model: Model {
                devices: [false; 6],
                quorum: 1,
                policy: None,
                unenrolled_allows,
                asked: Vec::new(),
                grants: Vec::new(),
                rules_used: Vec::new(),
            },
        };
        begun.append(&genesis);
        if let Some((quorum, policy)) = enrolled {
            begun.append(&people.enrolled(&genesis, quorum, policy, BEGIN));
            begun.model.devices = [true, true, true, true, true, false];
            begun.model.quorum = usize::from(quorum);
            begun.model.policy = policy;
        }
        begun
    }

    fn append(&mut self, roster: &Verified<Roster>) {
        self.replay.next(roster.signed().as_bytes()).unwrap();
        self.leaves.push(roster.signed().clone());
        self.roots.push(self.replay.root());
    }
}

impl<'a> Life<'a> {
    pub(super) fn new(people: &'a People, beginnings: &[Beginning], seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let Beginning {
            replay,
            leaves,
            roots,
            model,
        } = dice.pick(beginnings).clone();
        Self {
            people,
            dice,
            replay,
            leaves,
            roots,
            model,
            now: BEGIN + SECOND,
            floor: BEGIN,
            requests: Vec::new(),
            permits: Vec::new(),
            heard: Vec::new(),
            grants: Vec::new(),
            tally: Tally::new(),
            aloud: false,
        }
    }

    /// Tells each step on stderr.
    pub(super) fn aloud(self) -> Self {
        Self { aloud: true, ..self }
    }

    pub(super) fn live(mut self) -> Tally {
        self.ask();
        for _ in 0..self.dice.below(14) + 9 {
            match self.dice.below(44) {
                0..6 => self.ask(),
                6..20 => self.decide(),
                20..27 => self.try_one(),
                27..30 => self.grant(),
                30..34 => self.revoke(),
                34..37 => self.end(),
                37..40 => self.wait(),
                40 => self.turn_back(),
                41 => self.say_again(),
                42 => self.change(),
                _ => self.crash(),
            }
        }
        for number in 0..self.requests.len() {
            self.try_all(number);
        }
        self.tally
    }

    fn count(&mut self, what: &'static str) {
        if self.aloud {
            eprintln!("{:>3} at {}: {what}", self.replay.size(), self.now - BEGIN);
        }
        *self.tally.entry(what).or_default() += 1;
    }

    fn append<T>(&mut self, statement: &Verified<T>) -> Result<(), FindingKind> {
        let admitted = self
            .replay
            .next(statement.signed().as_bytes())
            .map_err(|finding| finding.kind)?;
        self.leaves.push(statement.signed().clone());
        self.roots.push(self.replay.root());
        drop(admitted);
        Ok(())
    }

    /// What the gate says, if the transcript takes it.
    fn says<T: Payload>(&mut self, payload: T, time: u64) -> Result<Verified<T>, FindingKind> {
        let statement = self.people.say(payload);
        self.append(&statement)?;
        self.floor = time;
        Ok(statement)
    }

    fn roster(&self) -> Verified<Roster> {
        self.replay.roster().unwrap().clone()
    }

    fn ask(&mut self) {
        let (thing, asker) = (*self.dice.pick(THINGS), *self.dice.pick(ASKERS));
        // The same again, or the like of it, is what grants and counted rules are about.
        let granted = self
            .model
            .grants
            .last()
            .map(|grant| self.model.asked[grant.like].clone());
        let (thing, asker) = match granted.as_ref().or(self.model.asked.last()) {
            Some(last) if !self.dice.one_in(3) => (
                if self.dice.one_in(3) { thing } else { last.thing },
                if self.dice.one_in(6) { asker } else { last.asker },
            ),
            _ => (thing, asker),
        };
        let (_, _, demands) = self.model.judge(thing, asker, self.now);
        let life = *self.dice.pick(&[MINUTE, 20 * MINUTE, 24 * 60 * MINUTE]);
        let asked = Asked {
            thing,
            asker,
            demands,
            index: self.replay.size(),
            expires: self.now + life,
            state: State::Open,
        };
        let nonce = self.requests.len() as u64 + 1;
        let honest = request(self.people, &asked, &self.roster(), nonce, self.now);
        if self.dice.one_in(8) {
            let mut eased = honest.clone();
            match self.dice.below(4) {
                0 => eased.need = if eased.need > 1 { eased.need - 1 } else { 2 },
                1 => eased.veto = !eased.veto,
                2 => eased.four_eyes = !eased.four_eyes,
                _ => eased.index += 1,
            }
            assert!(
                self.says(eased, self.now).is_err(),
                "a request on other terms than the policy's"
            );
        }
        let said = self.says(honest, self.now).expect("a request as the policy wants it");
        self.model.asked.push(asked);
        self.requests.push(said);
        self.permits.push(None);
        self.count("requests");
        if granted.is_some() && self.dice.one_in(2) {
            self.try_it(self.requests.len() - 1, 1);
        }
    }

    fn decide(&mut self) {
        let number = self.dice.below(self.requests.len() as u64) as usize;
        let device = *self.dice.pick(&[0, 0, 1, 2, 2, 2, 3, 3, 3, 4, 5]);
        let approves = !self.dice.one_in(5);
        let size = self.replay.size();
        let root = self.replay.root();
        let index = self.model.asked[number].index;
        let (checkpoint, ours, seen, of_this_log) = match self.dice.below(14) {
            0 => (
                self.people.checkpoint(index, self.roots[index as usize]),
                true,
                index,
                true,
            ),
            1 => (
                Checkpoint::sign(&self.people.other_gate, size, root)
                    .as_str()
                    .to_owned(),
                false,
                size,
                true,
            ),
            2 => (self.people.checkpoint(size, [7; 32]), true, size, false),
            3 => (self.people.checkpoint(size + 3, root), true, size + 3, false),
            _ => (self.people.checkpoint(size, root), true, size, true),
        };
        let grants = (approves && self.dice.one_in(2)).then(|| self.terms(number));
        let answer = Answer {
            about: number,
            device,
            approves,
            right_number: !self.dice.one_in(5),
            grants,
            ours,
            seen,
        };
        let decision = self.people.decision(&answer, &self.requests[number], &checkpoint);
        if self
            .heard
            .iter()
            .any(|heard| heard.decision.digest() == decision.digest())
        {
            return;
        }
        self.heard.push(Heard {
            answer,
            of_this_log,
            decision,
            recorded: None,
        });
        self.hear(self.heard.len() - 1);
        // Somebody who says yes to it is seldom alone.
        if approves && !self.dice.one_in(3) {
            let first = self.heard.len() - 1;
            for _ in 0..self.dice.below(3) {
                self.follow(first);
            }
            if self.heard[first].answer.grants.is_some() {
                self.grant_like(number);
            }
        }
    }

    /// Somebody else says the same.
    fn follow(&mut self, at: usize) {
        let mut answer = self.heard[at].answer.clone();
        answer.device = *self.dice.pick(&[0, 2, 3]);
        (answer.seen, answer.ours) = (self.replay.size(), true);
        let checkpoint = self.people.checkpoint(self.replay.size(), self.replay.root());
        let decision = self.people.decision(&answer, &self.requests[answer.about], &checkpoint);
        if self
            .heard
            .iter()
            .any(|heard| heard.decision.digest() == decision.digest())
        {
            return;
        }
        self.heard.push(Heard {
            answer,
            of_this_log: true,
            decision,
            recorded: None,
        });
        self.hear(self.heard.len() - 1);
    }

    /// A few, so that people happen to agree on one.
    fn terms(&mut self, number: usize) -> Terms {
        let bare = Terms {
            blanks: Vec::new(),
            user: false,
            conversation: false,
            not_after: None,
            uses: None,
        };
        let expires = self.model.asked[number].expires;
        match self.dice.below(8) {
            0 | 1 => Terms {
                blanks: vec![1],
                ..bare
            },
            2 => Terms { uses: Some(1), ..bare },
            3 => Terms {
                blanks: vec![1],
                uses: Some(2),
                user: true,
                ..bare
            },
            4 => Terms {
                conversation: true,
                not_after: Some(expires),
                ..bare
            },
            5 => Terms {
                blanks: vec![2],
                ..bare
            },
            _ => bare,
        }
    }

    /// The transcript takes a decision exactly if the model would.
    fn hear(&mut self, at: usize) {
        let Heard {
            answer,
            of_this_log,
            decision,
            recorded,
        } = self.heard[at].clone();
        let asked = &self.model.asked[answer.about];
        let takes = asked.state == State::Open
            && self.model.is_admin(answer.device)
            && answer.ours
            && of_this_log
            && answer.seen > asked.index
            && recorded.is_none();
        let took = self.append(&decision);
        assert_eq!(took.is_ok(), takes, "{took:?} of {answer:?}");
        if takes {
            self.heard[at].recorded = Some(self.replay.size() - 1);
        }
        self.count(if takes { "decisions" } else { "decisions refused" });
    }

    /// Yesterday's decision comes once more.
    fn say_again(&mut self) {
        if !self.heard.is_empty() {
            let at = self.dice.below(self.heard.len() as u64) as usize;
            self.hear(at);
        }
    }

    /// The decisions about a request, in transcript order.
    fn recorded(&self, number: usize) -> Vec<Heard> {
        let here = |heard: &&Heard| heard.recorded.is_some() && heard.answer.about == number;
        let mut recorded: Vec<Heard> = self.heard.iter().filter(here).cloned().collect();
        recorded.sort_by_key(|heard| heard.recorded);
        recorded
    }

    fn end(&mut self) {
        let number = self.dice.below(self.requests.len() as u64) as usize;
        let asked = self.model.asked[number].clone();
        let answers: Vec<Answer> = self.recorded(number).iter().map(|heard| heard.answer.clone()).collect();
        let verdict = self.model.verdict(number, &answers, self.now);
        let open = asked.state == State::Open;
        let rule = match verdict {
            Verdict::Forbidden(rule) => rule.map(|rule| rule as u32),
            _ => None,
        };
        let command = matches!(asked.thing, Thing::Command(_));
        let (result, takes) = match (self.permits[number], self.dice.below(4)) {
            (Some(_), 0) => (Ended::Released(Nothing {}), asked.state == State::Permitted && !command),
            (Some(_), _) => (Ended::Unknown(Nothing {}), asked.state == State::Permitted),
            (None, 0) => (Ended::Denied(Nothing {}), open && verdict == Verdict::Denied),
            (None, 1) => (Ended::Expired(Nothing {}), open && self.now >= asked.expires),
            (None, 2) => (
                Ended::Forbidden(Forbidden { rule }),
                open && matches!(verdict, Verdict::Forbidden(_)),
            ),
            (None, _) => (Ended::Withdrawn(Nothing {}), open),
        };
        let outcome = Outcome {
            request: self.requests[number].digest(),
            permit: self.permits[number],
            result,
            time: at(self.now),
        };
        let took = self.says(outcome, self.now).map(|_| ());
        assert_eq!(took.is_ok(), takes, "{took:?}: the end of {asked:?}, {verdict:?}");
        if takes {
            self.model.asked[number].state = State::Over;
            self.count("ended");
        }
    }

    fn wait(&mut self) {
        self.now += *self.dice.pick(&[
            1,
            SECOND,
            MINUTE - 1,
            MINUTE,
            20 * MINUTE,
            61 * MINUTE,
            25 * 60 * MINUTE,
        ]);
    }

    /// The gate's clock jumps back: what expired meanwhile comes to no life again.
    fn turn_back(&mut self) {
        let number = self.dice.below(self.requests.len() as u64) as usize;
        let before = self.floor - 1 - self.dice.below(MINUTE);
        self.forge(number, before, 3, None);
        self.count("clock jumps back");
    }

    /// The process dies; what it kept is taken up again.
    fn crash(&mut self) {
        let kept = self.replay.snapshot().unwrap().encode();
        let snapshot = Snapshot::decode(&kept).unwrap();
        let checkpoint = Checkpoint::sign(&self.people.gate, self.replay.size(), self.replay.root());
        let tail: Vec<_> = self
            .leaves
            .iter()
            .skip(usize::try_from(snapshot.tail()).unwrap())
            .map(|leaf| leaf_hash(leaf.as_bytes()))
            .collect();
        let cited: Vec<Digest> = snapshot.statements().collect();
        let statements: Vec<Signed> = self
            .leaves
            .iter()
            .filter(|leaf| cited.contains(&leaf.digest()))
            .cloned()
            .collect();
        let resumed = snapshot
            .resume(&checkpoint, &tail, &statements)
            .expect("what was kept fits");
        assert_eq!(resumed, self.replay, "another state after the crash");
        self.replay = resumed;
        self.count("crashes");
    }
}
