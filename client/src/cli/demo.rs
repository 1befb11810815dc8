//! `countersign demo`: a whole approval on one machine with nothing prepared. Relay and gate are processes of their own, each party has a home of its own, and
//! everything goes through the relay's socket, past a tap that keeps what the relay sends: the same code as in earnest, nothing shortened.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use approval::Digest;
use approval::decision::Answer as Vote;
use approval::outcome::Exit;
use approval::policy::Policy;
use approval::roster::{Role, Unenrolled};
use approval::scalar::ByteString;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::Instant;

use super::Context;
use super::ask::Connection;
use super::gate::write_export;
use super::terminal::{Failure, Lines, Outcome, complain, interactive, prompt, say, say_raw};
use crate::clock::wall;
use crate::gate::{Init, init};
use crate::home::Home;
use crate::local::{Answer, Ask, AskCommand, Confirm, Question, What};
use crate::member::{Begun, Member, Notice};
use crate::party::{Kind, Party};
use crate::show;

/// The subcommand by which the demo starts the relay as a process of its own.
pub const RELAY: &str = "__relay";

/// The arguments of the relay that the demo starts: those of `countersign-relay`.
#[derive(clap::Parser)]
struct RelayArguments {
    #[command(flatten)]
    relay: countersign_relay::cli::Args,
}

/// Runs the demo's relay, in a process that ends with its parent.
pub fn relay_main() -> std::process::ExitCode {
    end_with_parent();
    let arguments = <RelayArguments as clap::Parser>::parse_from(std::env::args_os().skip(1));
    countersign_relay::cli::run(arguments.relay)
}

/// Makes this process end when the one that started it does, however that happens.
pub(super) fn end_with_parent() {
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
}

/// Names of the demo's admins.
const NAMES: [&str; 8] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi"];

/// What the demo's agent says about its request.
const REASON: &str = "checking which version is installed before I go on";

/// How long any step without a person may take.
const STEP: Duration = Duration::from_secs(60);

#[derive(Args)]
pub(super) struct Demo {
    /// Approve without asking
    #[arg(long, conflicts_with = "deny")]
    yes: bool,
    /// Deny without asking
    #[arg(long)]
    deny: bool,
    /// Keep everything in this folder, with the transcript as transcript.jsonl
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// How many admins, 1 to 8
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=8))]
    admins: u16,
    /// How many of them must approve
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=8))]
    quorum: u16,
    /// The command to ask for, after -- [default: git --version]
    #[arg(trailing_var_arg = true, value_name = "CMD")]
    command: Vec<std::ffi::OsString>,
}

/// A process of the demo, ended with it.
struct Process {
    child: Child,
}

impl Process {
    /// Starts this program with other arguments and waits for its first line.
    async fn start(arguments: &[&std::ffi::OsStr], log: &Path) -> Result<(Self, String), Failure> {
        let program = std::env::current_exe()?;
        let log = std::fs::File::create(log)?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child
            .stdout
            .take()
            .ok_or_else(|| Failure::new("a process without an output"))?;
        let mut lines = BufReader::new(stdout).lines();
        let first = tokio::time::timeout(STEP, lines.next_line())
            .await
            .map_err(|_| Failure::new("a process of the demo doesn't start"))??;
        let first = first.ok_or_else(|| {
            Failure::new("a process of the demo ended at once").hint("with --keep DIR its log stays in DIR")
        })?;
        // Its later words are of no use here, but a full pipe would stop it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((Self { child }, first))
    }

    /// Asks it to end, as an operator would, and waits.
    async fn stop(mut self) {
        if let Some(id) = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(Duration::from_secs(10), self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
    }
}

/// A wire-tapper between everybody and the relay.
struct Tap {
    url: String,
    heard: Arc<Mutex<Heard>>,
}

/// What the tap heard.
#[derive(Default)]
struct Heard {
    connections: u64,
    to_relay: u64,
    from_relay: Vec<u8>,
}

impl Tap {
    /// Opens the tap before the relay is there: the relay must know the address that everybody dials.
    async fn open() -> Result<(Self, TcpListener), Failure> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let url = format!("ws://{}", listener.local_addr()?);
        Ok((
            Self {
                url,
                heard: Arc::default(),
            },
            listener,
        ))
    }

    fn lead(&self, listener: TcpListener, relay: String) {
        let heard = Arc::clone(&self.heard);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(&relay).await else {
                    continue;
                };
                note(&heard, |heard| heard.connections += 1);
                let (near_read, near_write) = near.into_split();
                let (far_read, far_write) = far.into_split();
                let (up, down) = (Arc::clone(&heard), Arc::clone(&heard));
                tokio::spawn(pass(near_read, far_write, move |bytes| {
                    note(&up, |heard| heard.to_relay += bytes.len() as u64)
                }));
                tokio::spawn(pass(far_read, near_write, move |bytes| {
                    note(&down, |heard| heard.from_relay.extend_from_slice(bytes))
                }));
            }
        });
    }
}

fn note(heard: &Mutex<Heard>, what: impl FnOnce(&mut Heard)) {
    what(&mut heard.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
}

async fn pass(
    mut from: impl tokio::io::AsyncRead + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut told: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        told(bytes);
        if to.write_all(bytes).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

impl Demo {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        if !self.yes && !self.deny && !interactive() {
            return Err(Failure::new("nobody is at the terminal to answer").hint("add --yes or --deny"));
        }
        if self.quorum > self.admins {
            return Err(
                Failure::new(format!("{} of {} admins can't approve", self.quorum, self.admins))
                    .hint("give more --admins, or a smaller --quorum"),
            );
        }
        let temporary;
        let folder = match &self.keep {
            Some(folder) => {
                std::fs::create_dir_all(folder)?;
                if std::fs::read_dir(folder)?.next().is_some() {
                    return Err(
                        Failure::new(format!("{} isn't empty", folder.display())).hint("give --keep a new folder")
                    );
                }
                folder.clone()
            }
            None => {
                temporary = tempfile::Builder::new().prefix("countersign-demo-").tempdir()?;
                temporary.path().to_owned()
            }
        };
        self.play(context, &folder).await
    }

    async fn play(&self, context: &Context, folder: &Path) -> Outcome {
        say(&format!(
            "1. A relay, a gate and {}, each with a home of its own, on this machine",
            show::count(u64::from(self.admins), "admin")
        ));
        let (tap, listener) = Tap::open().await?;
        let authority = tap.url.trim_start_matches("ws://").to_owned();
        let store = folder.join("relay.db");
        let arguments = [
            RELAY.as_ref(),
            "--listen".as_ref(),
            "127.0.0.1:0".as_ref(),
            "--store".as_ref(),
            store.as_os_str(),
            "--name".as_ref(),
            authority.as_ref(),
        ];
        let (relay, listening) = Process::start(&arguments, &folder.join("relay.log")).await?;
        let address = listening.rsplit("ws://").next().unwrap_or_default().trim().to_owned();
        tap.lead(listener, address);
        say(&format!("   relay listening on {} (a process of its own)", tap.url));
        let home = folder.join("gate");
        let party = init(
            Home::create(Some(home.clone()))?,
            Init {
                relay: tap.url.clone(),
                name: "demo-gate".to_owned(),
                policy: self.policy()?,
                unenrolled: Unenrolled::Refuse,
            },
        )
        .await?;
        let gate = party.gate;
        party.store.close().await;
        let (gate_process, _) = Process::start(
            &[
                "--home".as_ref(),
                home.as_os_str(),
                "gate".as_ref(),
                "serve".as_ref(),
                "--with-parent".as_ref(),
            ],
            &folder.join("gate.log"),
        )
        .await?;
        say(&format!("   gate  {gate} (a process of its own)"));

        say("");
        say("2. Pairing: each admin answers an invite; both screens show the same code, then it is confirmed");
        let mut admins = Vec::new();
        for (index, name) in NAMES.iter().take(usize::from(self.admins)).enumerate() {
            let quorum = (index + 1 == usize::from(self.quorum)).then_some(self.quorum);
            enrol(folder, &home, name, quorum, &mut admins).await?;
        }

        say("");
        let shown: Vec<String> = self
            .argv()
            .iter()
            .map(|argument| approval::escape::escape_field(argument.as_encoded_bytes()))
            .collect();
        say(&format!("3. An agent asks: may I run `{}`?", shown.join(" ")));
        let code = self.approve(&home, &mut admins).await?;

        say("");
        say("5. The transcript, as a person reads it");
        let file = folder.join("transcript.jsonl");
        let party = Party::open(Home::open(Some(home.clone()))?, Kind::Gate).await?;
        let mut out = Vec::new();
        write_export(&party, &mut out).await?;
        std::fs::write(&file, &out)?;
        party.store.close().await;
        let (mut stdout, mut stderr) = (std::io::stdout(), std::io::stderr());
        crate::audit::show(&file, false, &mut stdout, &mut stderr);

        say("");
        say("6. Verified offline, trusting nobody: countersign audit verify transcript.jsonl");
        let verified = crate::audit::verify(&file, None, Some(gate), false, &mut stdout, &mut stderr);

        for admin in admins {
            admin.member.close().await;
        }
        gate_process.stop().await;
        relay.stop().await;
        say("");
        say("7. Where it went");
        self.account(&tap, &store, &out);
        match &self.keep {
            Some(folder) => say(&format!("   everything is kept in {}", folder.display())),
            None => complain("the demo's folder is deleted; --keep DIR keeps it"),
        }
        if context.json {
            complain(&serde_json::json!({"v": 1, "exit": code, "verified": verified == 0}).to_string());
        }
        Ok(if verified == 0 { code } else { verified })
    }

    fn argv(&self) -> Vec<std::ffi::OsString> {
        if self.command.is_empty() {
            vec!["git".into(), "--version".into()]
        } else {
            self.command.clone()
        }
    }

    /// The policy that a gate begins with. Where the command was chosen everything is asked: whoever chose it came to see that.
    fn policy(&self) -> Result<Option<Policy>, Failure> {
        if !self.command.is_empty() {
            return Ok(None);
        }
        let policy = Policy::parse(approval::policy::DEFAULT);
        policy.map(Some).map_err(Failure::new)
    }

    /// From the question to its end. Returns the exit code that `countersign run` would.
    async fn approve(&self, home: &Path, admins: &mut [Admin]) -> Result<u8, Failure> {
        use std::os::unix::ffi::OsStrExt;
        let here = std::env::current_dir()?;
        let command = AskCommand {
            argv: self
                .argv()
                .iter()
                .map(|argument| ByteString::new(argument.as_bytes()))
                .collect::<Result<_, _>>()?,
            directory: ByteString::new(here.as_os_str().as_bytes())?,
            env: Vec::new(),
            stdin: None,
            wall_ms: None,
            output_bytes: None,
            memory_bytes: None,
        };
        let ask = Ask {
            reason: REASON.to_owned(),
            agent: Some("demo-agent".to_owned()),
            ..Ask::of(What::Command(command))
        };
        let mut asking = Connection::open(&Home::open(Some(home.to_owned()))?, &Question::Ask(Box::new(ask))).await?;
        let request = match asking.next().await? {
            Some(Answer::Pending { id, .. }) => {
                say(&format!(
                    "   the gate signed request {} and sealed it to each admin; the agent waits",
                    id.chars().take(8).collect::<String>()
                ));
                id.parse::<Digest>()?
            }
            Some(Answer::Error { message, hint, .. }) => return Err(Failure { message, hint, code: 1 }),
            _ => return Err(Failure::new("the gate gave no answer")),
        };
        say("");
        say("4. What an admin sees");
        let mut lines = (!self.yes && !self.deny).then(Lines::of_stdin);
        let turns = if self.deny { 1 } else { usize::from(self.quorum) };
        for turn in 0..turns {
            pump(admins, |admins| {
                admins
                    .get(turn)
                    .is_some_and(|admin| admin.member.party.replay.request(&request).is_some())
            })
            .await?;
            let Some(admin) = admins.get_mut(turn) else { break };
            if turn == 0
                && let Some(open) = admin.member.party.replay.request(&request)
            {
                let now = approval::Time::of_clock(wall());
                let whole = show::whole(open, &admin.member.party.replay, None, now);
                for line in whole.lines() {
                    say(format!("   | {line}").trim_end());
                }
            }
            let (verdict, reason) = self.verdict(admin, lines.as_mut()).await;
            admin.member.decide(&request, verdict, &reason).await?;
            say(&format!(
                "   {} signed: {}",
                admin.name,
                if verdict == Vote::Approve { "approve" } else { "deny" }
            ));
            if verdict == Vote::Deny {
                break;
            }
        }
        // The admins go on taking in what comes, and are not stopped midway, which would tear what they hold.
        let code = std::cell::OnceCell::new();
        let ending = async {
            let _ = code.set(end(&mut asking).await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ending => {}
            pumped = pump(admins, |_| code.get().is_some()) => pumped?,
        }
        let code = code
            .into_inner()
            .unwrap_or_else(|| Err(Failure::new("the gate gave no answer")))?;
        // Everybody learns how it ended.
        pump(admins, |admins| {
            admins
                .iter()
                .all(|admin| admin.member.party.replay.request(&request).is_none())
        })
        .await?;
        Ok(code)
    }

    async fn verdict(&self, admin: &Admin, lines: Option<&mut Lines>) -> (Vote, String) {
        let Some(lines) = lines else {
            return (if self.deny { Vote::Deny } else { Vote::Approve }, String::new());
        };
        loop {
            prompt(&format!("   {}, approve? [y]es, [n]o REASON: ", admin.name));
            let Some(line) = lines.next_or_end().await else {
                return (Vote::Deny, "nobody answered".to_owned());
            };
            let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            match word.to_lowercase().as_str() {
                "y" | "yes" => return (Vote::Approve, String::new()),
                "n" | "no" => return (Vote::Deny, rest.trim().to_owned()),
                _ => {}
            }
        }
    }

    /// What the relay, and anybody on its wire, got to see; searched for what must not be there.
    fn account(&self, tap: &Tap, store: &Path, transcript: &[u8]) {
        let mut secrets: Vec<Vec<u8>> = vec![REASON.as_bytes().to_vec(), b"demo-gate".to_vec(), b"csid1".to_vec()];
        secrets.extend(
            self.argv()
                .iter()
                .map(|argument| argument.as_encoded_bytes().to_vec())
                .filter(|argument| argument.len() > 5),
        );
        let mut kept = Vec::new();
        for ending in ["", "-wal"] {
            let mut path = store.as_os_str().to_owned();
            path.push(ending);
            kept.extend(std::fs::read(path).unwrap_or_default());
        }
        note(&tap.heard, |heard| {
            let found = secrets
                .iter()
                .filter(|secret| contains(&heard.from_relay, secret) || contains(&kept, secret))
                .count();
            say("   agent -> gate: over a unix socket of the gate's user; gate <-> admins: sealed, through the relay");
            say("   the relay saw: random mailbox keys, sizes of 1, 2, 4, 16 or 64 KiB, times, and addresses");
            say(&format!(
                "   on its wire: {} connections, {} bytes in, {} bytes out\n   searched, with its database, for the command, the reason, names and identities: {found} found",
                heard.connections,
                heard.to_relay,
                heard.from_relay.len()
            ));
            say(&format!(
                "   the transcript of {} bytes was never there in clear",
                transcript.len()
            ));
        });
    }
}

fn contains(hay: &[u8], needle: &[u8]) -> bool {
    hay.windows(needle.len()).any(|window| window == needle)
}

/// An admin of the demo.
struct Admin {
    name: &'static str,
    member: Member,
}

/// Lets every admin take in what comes, until all is as it should be.
async fn pump(admins: &mut [Admin], done: impl Fn(&[Admin]) -> bool) -> Result<(), Failure> {
    let until = Instant::now() + STEP;
    while !done(admins) {
        if Instant::now() > until {
            return Err(Failure::new("the demo's parties don't hear from each other")
                .hint("with --keep DIR their logs stay in DIR"));
        }
        for admin in admins.iter_mut() {
            if let Ok(woken) = tokio::time::timeout(Duration::from_millis(20), admin.member.wait()).await {
                for notice in admin.member.take(woken).await? {
                    if let Notice::Evidence(what) = notice {
                        return Err(Failure::new(what));
                    }
                }
            }
        }
    }
    Ok(())
}

/// Passes the command's output on, and says how it ended.
async fn end(asking: &mut Connection) -> Result<u8, Failure> {
    while let Some(answer) = asking.next().await? {
        match answer {
            Answer::Permitted { by, .. } => say(&format!(
                "   the gate wrote the permit down, approved by {}, and runs it:",
                by.join(", ")
            )),
            Answer::Stdout(piece) | Answer::Stderr(piece) => {
                let bytes = STANDARD.decode(piece).unwrap_or_default();
                say_raw(
                    &String::from_utf8_lossy(&bytes)
                        .lines()
                        .map(|line| format!("   > {}\n", approval::escape::escape(line)))
                        .collect::<String>(),
                );
            }
            Answer::Ended { result, .. } => {
                say(&format!("   {}", show::ended(&result)));
                return Ok(match result {
                    approval::outcome::Ended::Ran(ran) => match ran.exit {
                        Exit::Code(code) => u8::try_from(code).unwrap_or(125),
                        Exit::Signal(signal) => u8::try_from(signal).map_or(125, |signal| signal.saturating_add(128)),
                    },
                    approval::outcome::Ended::Denied(_)
                    | approval::outcome::Ended::Expired(_)
                    | approval::outcome::Ended::Forbidden(_)
                    | approval::outcome::Ended::Withdrawn(_) => 126,
                    _ => 125,
                });
            }
            Answer::Error { message, hint, .. } => {
                return Err(Failure {
                    message,
                    hint,
                    code: 125,
                });
            }
            _ => {}
        }
    }
    Err(Failure::new("the gate ended the connection"))
}

/// Invites and pairs one admin; those who are in already approve it.
async fn enrol(
    folder: &Path,
    gate: &Path,
    name: &'static str,
    quorum: Option<u16>,
    admins: &mut Vec<Admin>,
) -> Result<(), Failure> {
    let quorum = quorum
        .filter(|quorum| *quorum > 1)
        .map(|k| approval::roster::Quorum { command: k, roster: k });
    let question = Question::Invite {
        person: name.to_owned(),
        role: Role::Admin,
        minutes: 10,
        quorum,
    };
    let mut inviting = Connection::open(&Home::open(Some(gate.to_owned()))?, &question).await?;
    let Some(Answer::Invite { link, .. }) = inviting.next().await? else {
        return Err(Failure::new("the gate made no invite"));
    };
    let member = Begun::read(&link)?
        .join(Home::create(Some(folder.join(name)))?, &format!("{name}-laptop"))
        .await?;
    let mut joining = vec![Admin { name, member }];
    let device = code(&mut joining).await?;
    let shown = match inviting.next().await? {
        Some(Answer::Code { code, .. }) => code,
        Some(Answer::Error { message, hint, .. }) => return Err(Failure { message, hint, code: 1 }),
        _ => return Err(Failure::new("the gate showed no code")),
    };
    say(&format!(
        "   {name:<6} the gate shows {shown}, the device shows {device}"
    ));
    inviting
        .send(&Confirm {
            confirm: shown == device,
        })
        .await?;
    match inviting.next().await? {
        Some(Answer::Joined { .. }) => say(&format!(
            "          {name} is enrolled by whoever runs the gate, being the first"
        )),
        Some(Answer::Proposed { id, .. }) => {
            let request = id.parse::<Digest>()?;
            let mut who = Vec::new();
            let need = admins
                .first()
                .and_then(|admin| admin.member.party.replay.roster())
                .map_or(1, |roster| usize::from(roster.quorum.roster));
            for turn in 0..need {
                let arrived = |admins: &[Admin]| {
                    admins
                        .get(turn)
                        .is_some_and(|admin| admin.member.party.replay.request(&request).is_some())
                };
                pump(admins, arrived).await?;
                let Some(admin) = admins.get_mut(turn) else { break };
                admin.member.decide(&request, Vote::Approve, "").await?;
                who.push(admin.name);
            }
            say(&format!(
                "          {name} is enrolled by {}: later people need the admins",
                who.join(", ")
            ));
        }
        Some(Answer::Error { message, hint, .. }) => return Err(Failure { message, hint, code: 1 }),
        _ => return Err(Failure::new("the gate gave no answer")),
    }
    admins.append(&mut joining);
    pump(admins, |admins| {
        admins
            .iter()
            .all(|admin| admin.member.enrolled() && admin.knows(admins))
    })
    .await
}

impl Admin {
    /// Whether this admin's roster has everybody in it.
    fn knows(&self, admins: &[Admin]) -> bool {
        self.member
            .party
            .replay
            .roster()
            .is_some_and(|roster| roster.people.len() == admins.len())
    }
}

/// Waits for the short code on the joining device.
async fn code(joining: &mut [Admin]) -> Result<String, Failure> {
    let until = Instant::now() + STEP;
    while Instant::now() < until {
        for admin in joining.iter_mut() {
            let woken = admin.member.wait().await;
            for notice in admin.member.take(woken).await? {
                if let Notice::Code(code) = notice {
                    return Ok(code);
                }
            }
        }
    }
    Err(Failure::new("the device saw no answer to its join request"))
}
