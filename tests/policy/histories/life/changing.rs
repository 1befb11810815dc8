//! Changes of the roster: people, quorum and policy, agreed to or not; and the first admins.

use approval::outcome::{Ended, Nothing, Outcome};
use approval::permit::{Basis as Claim, Permission};
use approval::roster::{Quorum, Role};
use approval::{Digest, sign};

use super::Life;
use crate::histories::model::{Answer, DEVICES};
use crate::histories::policies::POLICIES;
use crate::histories::world::{at, roster_request};

impl Life<'_> {
    /// Another roster: asked, agreed to or not, and put in force.
    pub(super) fn change(&mut self) {
        let before = self.roster();
        if !before.is_enrolled() {
            let quorum = self.dice.below(3) + 1;
            let policy = self
                .dice
                .below(POLICIES.len() as u64 + 1)
                .checked_sub(1)
                .map(|policy| policy as usize);
            let roster = self.people.enrolled(&before, quorum as u16, policy, self.now);
            self.append(&roster).expect("the first admins, on the gate's word");
            self.floor = self.now;
            self.model.devices = [true, true, true, true, true, false];
            self.model.quorum = quorum as usize;
            self.take_policy(policy);
            self.count("enrolments");
            return;
        }
        let mut model = self.model.clone();
        let mut contents = before.contents();
        match self.dice.below(6) {
            0 | 1 => {
                let name = *self.dice.pick(&["alice", "bob", "carol"]);
                let there = contents.people.iter().any(|person| person.name.as_str() == name);
                contents.people.retain(|person| person.name.as_str() != name);
                for device in (0..6).filter(|device| DEVICES[*device] == name) {
                    model.devices[device] = !there;
                    if !there {
                        let certificate = self.people.certificates[device].clone();
                        let Ok(more) = contents.with_device(name.parse().unwrap(), Role::Admin, certificate) else {
                            return;
                        };
                        contents = more;
                    }
                }
            }
            2 => {
                for person in &mut contents.people {
                    person
                        .devices
                        .retain(|device| device.party != self.people.devices[1].party());
                }
                if contents.people.iter().any(|person| person.devices.is_empty()) {
                    return;
                }
                model.devices[1] = false;
            }
            3 => {
                let command = self.dice.below(3) as u16 + 1;
                contents.quorum = Quorum {
                    command,
                    ..contents.quorum
                };
                model.quorum = usize::from(command);
            }
            _ => {
                model.policy = self
                    .dice
                    .below(POLICIES.len() as u64 + 1)
                    .checked_sub(1)
                    .map(|policy| policy as usize);
                contents.policy = self.people.policy(model.policy);
            }
        }
        let place = (self.replay.size(), 1000 + self.replay.size());
        let asking = roster_request(self.people, contents.clone(), &before, place, self.now);
        // What 8.2 refuses in itself (a quorum that can't be reached) can't even be asked.
        let Ok(asking) = sign(&self.people.gate, asking) else {
            self.count("changes that can't be");
            return;
        };
        self.append(&asking).expect("a change may always be asked for");
        self.floor = self.now;
        let mut approvals: Vec<(&str, Digest)> = Vec::new();
        for device in [0, 1, 2, 3, 4, 5] {
            if self.dice.one_in(3) {
                continue;
            }
            let answer = Answer {
                about: 0,
                device,
                approves: true,
                right_number: true,
                grants: None,
                ours: true,
                seen: self.replay.size(),
            };
            let checkpoint = self.people.checkpoint(self.replay.size(), self.replay.root());
            let decision = self.people.decision(&answer, &asking, &checkpoint);
            assert_eq!(
                self.append(&decision).is_ok(),
                self.model.is_admin(device),
                "a say in the roster"
            );
            if self.model.is_admin(device) && approvals.iter().all(|(name, _)| *name != DEVICES[device]) {
                approvals.push((DEVICES[device], decision.digest()));
            }
        }
        let agreed = approvals.len() >= 2;
        let permission = Permission {
            request: asking.digest(),
            roster: before.digest(),
            basis: Claim::Decisions(approvals.iter().map(|(_, digest)| *digest).collect()),
            confined: Vec::new(),
            time: at(self.now),
        };
        let by_mode = Permission {
            basis: Claim::Mode(Nothing {}),
            ..permission.clone()
        };
        assert!(self.says(by_mode, self.now).is_err(), "no policy changes the roster");
        let after = contents.after(&before, Some(asking.digest()), at(self.now)).unwrap();
        let mut rogue = after.clone();
        if self.dice.one_in(2) {
            rogue.basis = None;
        }
        assert!(
            self.says(rogue, self.now).is_err(),
            "UNAUTHORISED: a roster that nobody permitted"
        );
        let permitted = self.says(permission, self.now);
        assert_eq!(
            permitted.is_ok(),
            agreed,
            "{} of 2 agreed to another roster",
            approvals.len()
        );
        if !agreed {
            let outcome = Outcome {
                request: asking.digest(),
                permit: None,
                result: Ended::Withdrawn(Nothing {}),
                time: at(self.now),
            };
            self.says(outcome, self.now).expect("it is taken back");
            self.count("changes not agreed to");
            return;
        }
        self.says(after, self.now).expect("the roster that was agreed to");
        let policy = model.policy;
        self.model.devices = model.devices;
        self.model.quorum = model.quorum;
        self.take_policy(policy);
        self.count("changes");
    }

    pub(super) fn take_policy(&mut self, policy: Option<usize>) {
        if self.model.policy != policy {
            self.model.policy = policy;
            self.model.rules_used.clear();
        }
    }
}
