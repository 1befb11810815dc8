//! `countersign demo`: a whole approval on one machine with nothing prepared. Relay and gate are processes of their own, each party has a home of its own, and
//! everything goes through the relay's socket, past a tap that keeps what the relay sends: the same code as in earnest, nothing shortened.

mod admin;
mod process;
mod question;
mod tap;

use std::path::{Path, PathBuf};
use std::time::Duration;

use approval::policy::Policy;
use approval::roster::Unenrolled;
use clap::Args;

use super::Context;
use super::gate::write_export;
use super::terminal::{Failure, Outcome, complain, interactive, say};
use crate::gate::{Init, init};
use crate::home::Home;
use crate::party::{Kind, Party};
use crate::show;
use admin::enrol;
use process::Process;
use tap::Tap;

pub(super) use process::end_with_parent;
pub use process::{RELAY, relay_main};

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
}
