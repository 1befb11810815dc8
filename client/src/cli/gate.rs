//! Commands of whoever runs the gate: set it up, run it, invite, look at it, export its transcript.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use approval::export::ExportWriter;
use approval::policy::Policy;
use approval::roster::{Quorum, Role, Unenrolled};
use clap::{Args, Subcommand};

use super::terminal::{Failure, Lines, Outcome, complain, confirmed, say, say_json, say_raw};
use super::{Context, shutdown};
use crate::gate::{Init, Surroundings, init, serve};
use crate::http::{ANYWHERE, Door, Token};
use crate::local::{Answer, Confirm, Fault, Question, Status};
use crate::party::{Kind, Party};
use crate::show;
use crate::wake::{self, Wake, Webhook};

/// The relay that is dialled unless another is named.
pub(crate) const RELAY: &str = "ws://127.0.0.1:7447";

#[derive(Subcommand)]
pub(super) enum Gate {
    /// Create a gate: its keys and the first entry of its transcript
    Init(InitArgs),
    /// Run the gate
    Serve(Serve),
    /// Invite a person's device: prints a link and a QR code, and waits for the device
    Invite(Invite),
    /// How the gate is
    Status,
    /// Write the transcript to a file that anybody can verify
    Export(Export),
}

#[derive(Args)]
pub(super) struct InitArgs {
    /// The relay where the gate and its admins meet
    #[arg(long, default_value = RELAY, env = "COUNTERSIGN_RELAY", value_name = "URL")]
    relay: String,
    /// The gate's name, which its admins see [default: this machine's name]
    #[arg(long)]
    name: Option<String>,
    /// What needs no asking, and what is forbidden: a file, `none` to ask everything, or `default`: `countersign policy default` prints it
    #[arg(long, default_value = "default", value_name = "FILE|none|default")]
    policy: PathBuf,
    /// What happens to requests until the first admin is enrolled
    #[arg(long, default_value = "refuse", value_parser = parse_unenrolled, value_name = "refuse|allow")]
    until_enrolled: Unenrolled,
}

#[derive(Args)]
pub(super) struct Serve {
    /// Also answer HTTP on this machine; the token is in the file http-token of the gate's folder [default: a free port of 127.0.0.1]
    #[arg(long, env = "COUNTERSIGN_HTTP", hide_env_values = true, num_args = 0..=1, default_missing_value = ANYWHERE, value_parser = parse_http, value_name = "127.0.0.1:PORT")]
    http: Option<SocketAddr>,
    /// Call this address when something becomes of a request that nobody waits for: https, or http on this machine
    #[arg(long, value_name = "URL")]
    wake_url: Option<Webhook>,
    /// Run this program then, with what happened as JSON on its standard input; all that follows are its arguments
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_names = ["PROG", "ARGS"])]
    wake_command: Vec<OsString>,
    /// End when the process that started this one ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

#[derive(Args)]
pub(super) struct Invite {
    /// Whose device it will be: the name by which the roster knows the person
    #[arg(long, value_name = "NAME")]
    person: String,
    /// What the person may do
    #[arg(long, value_parser = parse_role, default_value = "admin", value_name = "admin|auditor")]
    role: Role,
    /// How long the invite lives, in minutes, at most 10
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// How many people must approve from then on
    #[arg(long, value_name = "K")]
    quorum: Option<u16>,
    /// No QR code
    #[arg(long)]
    no_qr: bool,
}

#[derive(Args)]
pub(super) struct Export {
    /// Where to; standard output if absent or -
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn parse_role(word: &str) -> Result<Role, String> {
    Role::from_word(word).ok_or_else(|| "admin or auditor".to_owned())
}

fn parse_unenrolled(word: &str) -> Result<Unenrolled, String> {
    Unenrolled::from_word(word).ok_or_else(|| "refuse or allow".to_owned())
}

fn parse_http(text: &str) -> Result<SocketAddr, String> {
    let address: Option<SocketAddr> = text.parse().ok();
    let here = address.filter(|address| address.ip().is_loopback());
    here.ok_or_else(|| "an address of this machine alone: 127.0.0.1:PORT or [::1]:PORT".to_owned())
}

impl Gate {
    pub(super) async fn run(self, context: &Context) -> Outcome {
        match self {
            Self::Init(args) => args.run(context).await,
            Self::Serve(serve) => serve.run(context).await,
            Self::Invite(invite) => invite.run(context).await,
            Self::Status => status(context).await,
            Self::Export(export) => export.run(context).await,
        }
    }
}

/// This machine's name as a name of the protocol, or `gate`.
pub(super) fn machine_name(default: &str) -> String {
    let uname = rustix::system::uname();
    let name: String = uname
        .nodename()
        .to_string_lossy()
        .to_lowercase()
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c))
        .take(64)
        .collect();
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        name
    } else {
        default.to_owned()
    }
}

impl InitArgs {
    async fn run(self, context: &Context) -> Outcome {
        let name = self.name.unwrap_or_else(|| machine_name("gate"));
        let policy = match self.policy.to_str() {
            Some("none") => None,
            Some("default") => Some(Policy::parse(approval::policy::DEFAULT).map_err(Failure::new)?),
            _ => Some(super::policy::read(&self.policy)?),
        };
        let party = init(
            context.new_home()?,
            Init {
                relay: self.relay,
                name,
                policy,
                unenrolled: self.until_enrolled,
            },
        )
        .await?;
        let path = party.home.path().display().to_string();
        if context.json {
            say_json(&serde_json::json!({"v": 1, "gate": party.gate.to_string(), "home": path, "relay": party.relay}));
        } else {
            say(&format!("gate {}", party.gate));
            say(&format!("home {path}"));
            say(&format!("relay {}", party.relay));
            complain(
                "next: `countersign gate serve`, then `countersign gate invite --person NAME` in another terminal",
            );
        }
        party.store.close().await;
        Ok(0)
    }
}

impl Serve {
    async fn run(self, context: &Context) -> Outcome {
        if self.with_parent {
            super::demo::end_with_parent();
        }
        let home = context.home()?;
        // Opened before the gate begins: a door that can't be opened must not be missed.
        let door = match self.http {
            Some(address) => Some((Door::open(address, Token::of(&home)?).await?, Token::path(&home))),
            None => None,
        };
        let wake = Wake {
            command: wake::Command::new(self.wake_command),
            webhook: self.wake_url,
        };
        let mut beside = tokio::task::JoinSet::new();
        let json = context.json;
        let ready = |path: &std::path::Path| {
            let http = door
                .as_ref()
                .map(|(door, token)| (door.address(), token.display().to_string()));
            let path_shown = path.display().to_string();
            match (json, http) {
                (true, None) => say_json(&serde_json::json!({"v": 1, "listening": path_shown})),
                (true, Some((address, token))) => say_json(
                    &serde_json::json!({"v": 1, "listening": path_shown, "http": format!("http://{address}"), "token": token}),
                ),
                (false, http) => {
                    say(&format!("gate listening on {path_shown}"));
                    if let Some((address, token)) = http {
                        say(&format!("http on http://{address}, token in {token}"));
                    }
                }
            }
            if let Some((door, _)) = door {
                beside.spawn(door.serve(path.to_owned()));
            }
            if !wake.is_empty() {
                beside.spawn(wake.serve(path.to_owned()));
            }
        };
        serve(home, Surroundings::default(), shutdown(), ready).await?;
        Ok(0)
    }
}

impl From<crate::http::HttpError> for Failure {
    fn from(error: crate::http::HttpError) -> Self {
        use crate::http::HttpError;
        match error {
            HttpError::Home(error) => error.into(),
            HttpError::NotLoopback(_) => Self::new(error).hint("other machines reach a gate through its relay only"),
            HttpError::Listen { .. } => Self::new(error).hint("leave the port out to get a free one"),
            HttpError::Token(_) => Self::new(error).hint("remove that file to have a new one made"),
        }
    }
}

/// What a local error means at the terminal.
pub(super) fn failure(message: String, hint: Option<String>) -> Failure {
    Failure { message, hint, code: 1 }
}

impl Invite {
    async fn run(self, context: &Context) -> Outcome {
        let quorum = self.quorum.map(|k| Quorum { command: k, roster: k });
        let question = Question::Invite {
            person: self.person.clone(),
            role: self.role,
            minutes: self.minutes,
            quorum,
        };
        let mut gate = super::ask::Connection::open(&context.home()?, &question).await?;
        let mut lines = Lines::of_stdin();
        while let Some(answer) = gate.next().await? {
            match answer {
                Answer::Invite { link, expires } => {
                    if context.json {
                        say_json(&serde_json::json!({"v": 1, "link": link, "expires": expires}));
                        continue;
                    }
                    // For a camera, so only on a screen.
                    if !self.no_qr && std::io::stdout().is_terminal() {
                        say_raw(&qr(&link));
                    }
                    say(&link);
                    let left = show::duration(expires.saturating_sub(crate::clock::wall()).next_multiple_of(1000));
                    complain(&format!(
                        "hand this over on a way that you trust; it is good once, for {left}"
                    ));
                    complain(&format!(
                        "there: countersign join '{}…'",
                        link.chars().take(16).collect::<String>()
                    ));
                }
                Answer::Code { code, device, party } => {
                    if context.json {
                        say_json(&serde_json::json!({"v": 1, "code": code, "device": device, "party": party}));
                    } else {
                        say(&format!("code {code}"));
                        complain(&format!("the device {device} ({party}) of {} answered", self.person));
                    }
                    let same = confirmed(&mut lines, "does it show the same code?").await;
                    gate.send(&Confirm { confirm: same }).await?;
                }
                Answer::Joined { person, epoch } => {
                    if context.json {
                        say_json(&serde_json::json!({"v": 1, "joined": person, "epoch": epoch}));
                    } else {
                        say(&format!("{person} is enrolled (roster epoch {epoch})"));
                    }
                    return Ok(0);
                }
                Answer::Proposed { id, need } => {
                    if context.json {
                        say_json(&serde_json::json!({"v": 1, "proposed": id, "need": need}));
                    } else {
                        let short: String = id.chars().take(8).collect();
                        say(&format!(
                            "request {short}: {} must approve {}",
                            show::persons(need),
                            self.person
                        ));
                    }
                    return Ok(0);
                }
                Answer::Error { message, hint, kind } => {
                    let hint = hint.unwrap_or_else(|| match kind {
                        Fault::Invalid => "see `countersign gate invite --help`".to_owned(),
                        _ => "this invite is over; make a new one".to_owned(),
                    });
                    return Err(failure(message, Some(hint)));
                }
                _ => {}
            }
        }
        Err(Failure::new("the gate ended the connection"))
    }
}

/// A link as a QR code, two modules to a character; black on white whatever the terminal's own colours are, as not every camera reads the inverse.
fn qr(link: &str) -> String {
    match qrcode::QrCode::with_error_correction_level(link, qrcode::EcLevel::L) {
        Ok(code) => {
            let picture = code
                .render::<qrcode::render::unicode::Dense1x2>()
                .quiet_zone(true)
                .build();
            picture
                .lines()
                .map(|line| format!("\x1b[30;107m{line}\x1b[0m\n"))
                .collect()
        }
        Err(_) => String::new(),
    }
}

/// The digest of the policy in force, which the gate's own folder holds in its transcript.
async fn policy_in_force(context: &Context) -> Result<Option<String>, Failure> {
    let party = Party::open_any(context.home()?).await?;
    let policy = party.replay.roster().and_then(|roster| roster.policy.as_ref());
    let shown = policy.map(|policy| policy.digest().to_string());
    party.store.close().await;
    Ok(shown)
}

async fn status(context: &Context) -> Outcome {
    let home = context.home()?;
    let mut gate = super::ask::Connection::open(&home, &Question::Status {}).await?;
    match gate.next().await? {
        Some(Answer::Status(status)) => {
            let policy = policy_in_force(context).await?;
            if context.json {
                let mut value = serde_json::to_value(&status)?;
                if let Some(object) = value.as_object_mut() {
                    object.insert("v".to_owned(), 1.into());
                    object.insert("policy_digest".to_owned(), policy.into());
                }
                say_json(&value);
            } else {
                say_raw(&shown(&status, policy.as_deref()));
            }
            Ok(u8::from(status.halted.is_some()))
        }
        Some(Answer::Error { message, hint, .. }) => Err(failure(message, hint)),
        _ => Err(Failure::new("the gate gave no answer")),
    }
}

fn shown(status: &Status, policy: Option<&str>) -> String {
    use std::fmt::Write as _;
    let mut text = format!("gate        {}\n", status.gate);
    let _ = writeln!(
        text,
        "relay       {} ({})",
        status.relay,
        if status.connected { "connected" } else { "not connected" }
    );
    let _ = writeln!(
        text,
        "transcript  {} entries, roster epoch {}",
        status.size, status.epoch
    );
    let _ = match policy {
        Some(digest) => writeln!(text, "policy      {}", digest.chars().take(8).collect::<String>()),
        None => writeln!(text, "policy      none: everything is asked"),
    };
    let _ = writeln!(text, "pending     {}", status.pending);
    let _ = writeln!(text, "grants      {}", status.grants);
    let confined: Vec<&str> = status.confined.iter().map(|one| one.as_str()).collect();
    let _ = match confined.as_slice() {
        [] => writeln!(text, "confined    by limits and a clean environment alone"),
        confined => writeln!(text, "confined    by {}", confined.join(", ")),
    };
    if status.clock_ahead_ms > 60_000 {
        let _ = writeln!(
            text,
            "clock       the wall clock was set back by {}; the gate's goes on",
            show::duration(status.clock_ahead_ms)
        );
    }
    for device in &status.devices {
        let heard = match device.heard {
            0 => "never heard".to_owned(),
            heard => format!(
                "heard {} ago",
                show::duration(crate::clock::wall().saturating_sub(heard))
            ),
        };
        let behind = status.size.saturating_sub(device.acked);
        let behind = match behind {
            0 => "has everything".to_owned(),
            1 => "1 entry behind".to_owned(),
            several => format!("{several} entries behind"),
        };
        let _ = writeln!(
            text,
            "device      {} of {}: {heard}, {behind}",
            device.device, device.person
        );
    }
    if status.devices.is_empty() {
        let _ = match status.unenrolled {
            Unenrolled::Refuse => writeln!(
                text,
                "device      none: everything is refused until somebody is enrolled"
            ),
            Unenrolled::Allow => writeln!(
                text,
                "device      none: everything is ALLOWED until somebody is enrolled"
            ),
        };
    }
    if status.same_user {
        let _ = writeln!(
            text,
            "WARNING     the agent can be this gate's own user, who reads its keys: give the gate a user of its own"
        );
    }
    if let Some(halted) = &status.halted {
        let _ = writeln!(
            text,
            "HALTED      {halted}\n            nothing is signed any more; keep this folder, and set up a new gate"
        );
    }
    text
}

impl Export {
    async fn run(self, context: &Context) -> Outcome {
        let party = Party::open_any(context.home()?).await?;
        let to_stdout = self.output.as_ref().is_none_or(|path| path.as_os_str() == "-");
        let size = if to_stdout {
            write_export(&party, std::io::stdout().lock()).await?
        } else {
            let path = self.output.unwrap_or_default();
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty())
                .map_or_else(|| PathBuf::from("."), PathBuf::from);
            // Whole or not at all: half a transcript would look like a tampered one.
            let mut file = tempfile::NamedTempFile::new_in(&folder)?;
            let size = write_export(&party, std::io::BufWriter::new(file.as_file_mut())).await?;
            file.as_file().sync_all()?;
            file.persist(&path)
                .map_err(|error| Failure::new(format!("{}: {}", path.display(), error.error)))?;
            size
        };
        complain(&format!("{size} entries of {}", party.gate));
        if party.kind == Kind::Member {
            complain("this is the copy that this device verified");
        }
        Ok(0)
    }
}

/// Writes a party's transcript as an export file. Returns the number of entries.
pub(crate) async fn write_export(party: &Party, to: impl Write) -> Result<u64, Failure> {
    let mut tx = party.store.begin().await?;
    let note = tx
        .last_checkpoint()
        .await?
        .ok_or_else(|| Failure::new("there is no transcript yet"))?;
    let checkpoint = approval::checkpoint::Checkpoint::verify(&note, &party.gate).map_err(Failure::new)?;
    let mut writer = ExportWriter::new(to, party.gate, checkpoint.size())?;
    let mut at = 0;
    while at < checkpoint.size() {
        let chunk = tx.entries(at, (checkpoint.size() - at).min(256)).await?;
        if chunk.is_empty() {
            return Err(Failure::new(format!("entry {at} is missing in the database")));
        }
        for signed in chunk {
            writer.entry(&signed)?;
            at += 1;
        }
    }
    writer.finish(&checkpoint)?;
    tx.commit().await?;
    Ok(checkpoint.size())
}
