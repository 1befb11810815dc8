//! A long transcript that holds: requests for commands, each approved by two of three admins, permitted and run. Written with
//! fixed keys and a fixed clock, so that it is the same each time.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use approval::action::{Action, Bound, Command, Directory, Inode, Limits, Stdin};
use approval::change::Change;
use approval::checkpoint::Checkpoint;
use approval::decide::{Verdict, decide};
use approval::decision::{Answer, Decision};
use approval::device::Device;
use approval::export::ExportWriter;
use approval::outcome::{Ended, Exit, Outcome, Ran, Stream};
use approval::request::{AskedBy, Class, Request};
use approval::roster::{Quorum, Role, Roster};
use approval::scalar::{ByteString, LeafKey};
use approval::standing::Standing;
use approval::statement::Payload;
use approval::transcript::Log;
use approval::{Digest, Id16, Signed, Text, Time, Verified, sign};
use wire::identity::Identity;

/// 2026-11-20 14:00:00Z.
const BEGINNING: u64 = 1_795_183_200_000;

/// Entries of one approval: request, two decisions, permit, outcome.
const CYCLE: u64 = 5;

/// How the cached files are called; counted up when what is in them changes.
const EDITION: u32 = 1;

/// The gate whose transcripts are exported.
pub fn gate() -> Identity {
    Identity::from_bytes(&[1; 32])
}

/// Its first roster.
pub fn genesis() -> Result<Verified<Roster>> {
    let relays = vec!["wss://relay.example.org".parse()?];
    let roster = Roster::genesis(
        device(&gate(), 1, "gate")?,
        Quorum { command: 1, roster: 1 },
        relays,
        time(BEGINNING)?,
    );
    Ok(sign(&gate(), roster)?)
}

/// An export of so many entries, from the cache or made now.
pub fn export(folder: &Path, entries: u64) -> Result<PathBuf> {
    let path = folder.join(format!("transcript-{EDITION}-{entries}.jsonl"));
    if path.exists() {
        return Ok(path);
    }
    let fresh = path.with_extension("new");
    let gate = gate();
    let mut writer = ExportWriter::new(BufWriter::new(File::create(&fresh)?), gate.party(), entries)?;
    let mut author = Author::new(&gate, genesis()?);
    writer.entry(author.roster.signed())?;
    author.write(entries, |entry| Ok(writer.entry(entry.statement)?))?;
    writer.finish(&author.checkpoint())?.flush()?;
    std::fs::rename(fresh, &path)?;
    Ok(path)
}

/// What the author wrote.
pub struct Written<'a> {
    pub index: u64,
    pub digest: Digest,
    pub kind: &'static str,
    pub statement: &'a Signed,
}

/// Writes a transcript on from its genesis, as a gate with three admins would.
pub struct Author<'a> {
    gate: &'a Identity,
    admins: [Identity; 3],
    roster: Verified<Roster>,
    log: Log,
    now: u64,
}

impl<'a> Author<'a> {
    pub fn new(gate: &'a Identity, genesis: Verified<Roster>) -> Self {
        let mut log = Log::new();
        log.append(genesis.signed().as_bytes());
        let now = genesis.created.millis();
        Self {
            gate,
            admins: [2, 3, 4].map(|seed| Identity::from_bytes(&[seed; 32])),
            roster: genesis,
            log,
            now,
        }
    }

    /// The gate's word for what is written so far.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint::sign(self.gate, self.log.size(), self.log.root())
    }

    /// Writes until there are so many entries, the genesis among them.
    pub fn write(&mut self, entries: u64, mut each: impl FnMut(Written<'_>) -> Result<()>) -> Result<()> {
        if self.log.size() < 2 && entries > 1 {
            self.enrol(&mut each)?;
        }
        while self.log.size() < entries {
            self.approval(entries.saturating_sub(self.log.size()).min(CYCLE), &mut each)?;
        }
        Ok(())
    }

    fn enrol(&mut self, each: &mut impl FnMut(Written<'_>) -> Result<()>) -> Result<()> {
        let mut contents = self.roster.contents();
        for (at, (name, admin)) in ["alice", "bob", "carol"].into_iter().zip(&self.admins).enumerate() {
            contents = contents.with_device(
                name.parse()?,
                Role::Admin,
                device(admin, at as u8 + 2, &format!("{name}-phone"))?,
            )?;
        }
        let contents = contents.with(&Change::Quorum(Quorum { command: 2, roster: 2 }))?;
        self.now += 1000;
        let roster = sign(self.gate, contents.after(&self.roster, None, time(self.now)?)?)?;
        self.append(&roster, "roster", each)?;
        self.roster = roster;
        Ok(())
    }

    /// One approval, or the beginning of one.
    fn approval(&mut self, entries: u64, each: &mut impl FnMut(Written<'_>) -> Result<()>) -> Result<()> {
        let index = self.log.size();
        self.now += 60_000;
        let request = sign(self.gate, self.request(index)?)?;
        self.append(&request, "request", each)?;
        let mut decisions = Vec::new();
        for turn in 0..2 {
            if entries < turn + 2 {
                return Ok(());
            }
            self.now += 5_000;
            let admin = &self.admins[((index + turn) % 3) as usize];
            let decision = Decision {
                party: admin.party(),
                request: request.digest(),
                verdict: Answer::Approve,
                number: None,
                grant: None,
                reason: Text::default(),
                time: time(self.now)?,
                checkpoint: self.checkpoint().as_str().to_owned(),
            };
            let decision = sign(admin, decision)?;
            self.append(&decision, "decision", each)?;
            decisions.push(decision);
        }
        if entries < 4 {
            return Ok(());
        }
        let now = time(self.now)?;
        let Verdict::Open(permit) = decide(&request, &decisions, &Standing::default(), &self.roster, now) else {
            bail!("not open")
        };
        let permit = sign(self.gate, permit.statement(Vec::new(), now))?;
        self.append(&permit, "permit", each)?;
        if entries < CYCLE {
            return Ok(());
        }
        self.now += 1200;
        let stream = |text: &str| Stream {
            sha256: Digest::of(text.as_bytes()),
            bytes: text.len() as u64,
        };
        let ran = Ran {
            exit: Exit::Code(0),
            stdout: stream("done\n"),
            stderr: stream(""),
            wall_ms: 1200,
            stopped: None,
        };
        let outcome = Outcome {
            request: request.digest(),
            permit: Some(permit.digest()),
            result: Ended::Ran(ran),
            time: time(self.now)?,
        };
        self.append(&sign(self.gate, outcome)?, "outcome", each)
    }

    fn append<T: Payload>(
        &mut self,
        statement: &Verified<T>,
        kind: &'static str,
        each: &mut impl FnMut(Written<'_>) -> Result<()>,
    ) -> Result<()> {
        let index = self.log.append(statement.signed().as_bytes());
        each(Written {
            index,
            digest: statement.digest(),
            kind,
            statement: statement.signed(),
        })
    }

    fn request(&self, index: u64) -> Result<Request> {
        let bytes = |text: &str| ByteString::new(text.as_bytes());
        let mut nonce = [0; 16];
        nonce[8..].copy_from_slice(&index.to_be_bytes());
        let inode = Inode {
            device: 0xfd01,
            number: 0x1a2b,
        };
        let command = Command {
            executable: Bound {
                path: bytes("/usr/bin/git")?,
                inode,
                sha256: Digest::of(b"git"),
            },
            argv: ["git", "push", "origin", &format!("v1.{index}")]
                .into_iter()
                .map(bytes)
                .collect::<Result<_, _>>()?,
            env: vec![
                (bytes("LANG")?, bytes("C.UTF-8")?),
                (bytes("PATH")?, bytes("/usr/local/bin:/usr/bin:/bin")?),
            ],
            directory: Directory {
                path: bytes("/srv/site")?,
                inode,
            },
            interpreter: None,
            operands: Vec::new(),
            stdin: Stdin::None,
            limits: Limits {
                wall_ms: 30_000,
                output_bytes: 1 << 26,
                memory_bytes: 0,
            },
            uid: 1000,
            marks: Vec::new(),
        };
        Ok(Request {
            gate: self.gate.party(),
            incarnation: Id16([9; 16]),
            index,
            nonce: Id16(nonce),
            roster: self.roster.digest(),
            class: Class::Command,
            risk: None,
            need: self.roster.quorum.of(Class::Command),
            veto: true,
            four_eyes: false,
            matching: None,
            action: Action::Command(command),
            asked_by: AskedBy {
                agent: "builder".parse()?,
                under: Vec::new(),
                user: Some(Text::new("Maria")?),
                conversation: None,
                platform: None,
            },
            reason: Text::new("the release is ready and its tests are green")?,
            created: time(self.now)?,
            expires: time(self.now + 600_000)?,
        })
    }
}

fn time(millis: u64) -> Result<Time> {
    Ok(Time::from_millis(millis)?)
}

fn device(identity: &Identity, leaf: u8, name: &str) -> Result<Verified<Device>> {
    let device = Device {
        party: identity.party(),
        leaf: LeafKey([leaf; 32]),
        name: name.parse()?,
        created: time(BEGINNING)?,
    };
    Ok(sign(identity, device)?)
}
