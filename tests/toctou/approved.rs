//! A permit for a command, from one gate and one admin who says yes. Not here: what becomes of it.

use approval::action::{Action, Command};
use approval::checkpoint::Checkpoint;
use approval::decide::{Permit, Verdict, decide};
use approval::decision::{Answer, Decision};
use approval::device::{Certificate, Device};
use approval::request::{AskedBy, Class, Request};
use approval::roster::{Person, Quorum, Role, Roster, Unenrolled};
use approval::scalar::{LeafKey, Text};
use approval::standing::Standing;
use approval::{Digest, Id16, Time, Verified, sign};
use rand_core::OsRng;
use wire::identity::Identity;

/// Everybody who has a part in it.
pub struct Team {
    gate: Identity,
    admin: Identity,
    roster: Verified<Roster>,
}

fn time(millis: u64) -> Time {
    Time::from_millis(millis).unwrap()
}

fn device(identity: &Identity, leaf: u8) -> Certificate {
    let device = Device {
        party: identity.party(),
        leaf: LeafKey([leaf; 32]),
        name: "device".parse().unwrap(),
        created: time(0),
    };
    Certificate::from(sign(identity, device).unwrap())
}

impl Team {
    pub fn new() -> Self {
        let (gate, admin) = (Identity::generate(&mut OsRng), Identity::generate(&mut OsRng));
        let roster = Roster {
            gate: gate.party(),
            epoch: 1,
            previous: Some(Digest([0; 32])),
            basis: None,
            gate_device: device(&gate, 1),
            people: vec![Person {
                name: "zoe".parse().unwrap(),
                role: Role::Admin,
                devices: vec![device(&admin, 2)],
            }],
            quorum: Quorum { command: 1, roster: 1 },
            policy: None,
            unenrolled: Unenrolled::Refuse,
            relays: Vec::new(),
            created: time(0),
        };
        let roster = sign(&gate, roster).unwrap();
        Self { gate, admin, roster }
    }

    /// The command's request, and leave to run it once.
    pub fn permit(&self, command: Command) -> (Permit, Verified<Request>) {
        let request = Request {
            gate: self.gate.party(),
            incarnation: Id16([1; 16]),
            index: 2,
            nonce: Id16([2; 16]),
            roster: self.roster.digest(),
            class: Class::Command,
            risk: None,
            need: 1,
            veto: true,
            four_eyes: false,
            matching: None,
            action: Action::Command(command),
            asked_by: AskedBy {
                agent: "agent".parse().unwrap(),
                under: Vec::new(),
                user: None,
                conversation: None,
                platform: None,
            },
            reason: Text::new("because").unwrap(),
            created: time(0),
            expires: time(60_000),
        };
        let request = sign(&self.gate, request).unwrap();
        let decision = Decision {
            party: self.admin.party(),
            request: request.digest(),
            verdict: Answer::Approve,
            number: None,
            grant: None,
            reason: Text::new("").unwrap(),
            time: time(1),
            checkpoint: Checkpoint::sign(&self.gate, 3, [7; 32]).as_str().to_owned(),
        };
        let decision = sign(&self.admin, decision).unwrap();
        match decide(&request, &[decision], &Standing::default(), &self.roster, time(2)) {
            Verdict::Open(permit) => (permit, request),
            verdict => panic!("{verdict:?}"),
        }
    }
}
