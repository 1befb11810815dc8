//! The vocabulary of the stories: a real relay on port 0 with a hand on its wire, a gate whose clock the story sets, and named people with their
//! devices. Everything runs in this process and nothing sleeps: each step waits for an event, with a deadline. What happens is in `stories/`.

pub mod asking;
pub mod clock;
pub mod copy;
pub mod device;
pub mod gate;
pub mod hand;
pub mod later;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use approval::Digest;
use approval::export::Summary;
use approval::roster::{Quorum, Role};
use countersign::local::{Answer, Ask, Fault, Question, Status};
use countersign::pace::Pace;
use countersign_relay::{Config, Relay, Store};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use wire::login::RelayName;

pub use asking::{Asking, End, Inviting, Local, command, line};
pub use clock::Hands;
pub use copy::Copy;
pub use device::Device;
pub use gate::{Gate, Wishes};
pub use hand::{Does, Hand, Passing, Said};
pub use later::Listening;

/// How long any step may take. Far longer than it does: reaching it is a failure, and never how a story goes on.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The pace of parties that nobody has time to wait for.
#[must_use]
pub fn hurried() -> Pace {
    Pace {
        question_retry: 100,
        unanswered: 250,
        refused: 50,
        ack_every: 100,
        on_its_way: 100,
        head_every: 150,
        again: 50,
        idle: 50,
        ..Pace::default()
    }
}

/// A relay, a hand on its wire, a gate, and a folder for everybody.
pub struct World {
    /// What happens on the wire.
    pub hand: Hand,
    /// The gate's clock.
    pub clock: Hands,
    /// The gate.
    pub gate: Gate,
    folder: TempDir,
    relay: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

impl World {
    /// A gate that runs, and nobody enrolled.
    pub async fn new() -> Self {
        Self::wished(Wishes::default()).await
    }

    /// The same with wishes.
    pub async fn wished(wishes: Wishes) -> Self {
        // `COUNTERSIGN_LOG=countersign=debug` shows what gate and members say of it.
        if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("COUNTERSIGN_LOG") {
            let _ = tracing_subscriber::fmt().with_env_filter(filter).try_init();
        }
        // Memory where there is some: what is flushed to it is as safe as a test needs.
        let place = Some(PathBuf::from("/dev/shm"))
            .filter(|place| place.is_dir())
            .unwrap_or_else(std::env::temp_dir);
        let folder = tempfile::Builder::new()
            .prefix("story-")
            .tempdir_in(place)
            .expect("a folder");
        let (mut hand, listener) = Hand::open().await;
        let config = Config {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            store: Store::Sqlite(folder.path().join("relay.db")),
            names: vec![RelayName::new(hand.authority()).expect("a name")],
            ..Config::default()
        };
        let relay = Relay::bind(config).await.expect("a relay");
        hand.lead(listener, relay.local_addr());
        let relay = tokio::spawn(async move { relay.run(std::future::pending()).await.expect("the relay goes on") });
        let clock = Hands::now();
        let gate = Gate::new(
            folder.path().join("gate"),
            format!("ws://{}", hand.authority()),
            clock.clone(),
            wishes,
        )
        .await;
        gate.starts().await.expect("the gate starts");
        Self {
            hand,
            clock,
            gate,
            folder,
            relay,
        }
    }

    /// A world with these admins, one device each, of whom so many must approve a command (and a change of the roster).
    pub async fn with<const N: usize>(admins: [&str; N], quorum: u16) -> (Self, [Device; N]) {
        Self::wished_with(Wishes::default(), admins, quorum).await
    }

    /// The same under a policy.
    pub async fn under<const N: usize>(policy: &'static str, admins: [&str; N], quorum: u16) -> (Self, [Device; N]) {
        let wishes = Wishes {
            policy: Some(policy),
            ..Wishes::default()
        };
        Self::wished_with(wishes, admins, quorum).await
    }

    /// The same with wishes.
    pub async fn wished_with<const N: usize>(wishes: Wishes, admins: [&str; N], quorum: u16) -> (Self, [Device; N]) {
        let world = Self::wished(wishes).await;
        let mut devices: Vec<Device> = Vec::new();
        for (index, name) in admins.into_iter().enumerate() {
            let quorum = (index + 1 == N && quorum > 1).then_some(Quorum {
                command: quorum,
                roster: quorum,
            });
            let approvers: Vec<&Device> = devices.first().into_iter().collect();
            let device = world.enrols(name, Role::Admin, quorum, &approvers).await;
            devices.push(device);
        }
        let size = world.gate.copy().await.entries.len() as u64;
        for device in &devices {
            device.has(size).await;
        }
        let devices = devices
            .try_into()
            .unwrap_or_else(|_| panic!("as many devices as names"));
        (world, devices)
    }

    /// A folder of its own in the world's folder.
    #[must_use]
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A place for one more device.
    #[must_use]
    pub fn new_home(&self, name: &str) -> PathBuf {
        (0..)
            .map(|number| self.place(&format!("{name}-{number}")))
            .find(|path| !path.exists())
            .expect("a free name")
    }

    /// Somebody at the gate invites a device.
    pub async fn invites(&self, person: &str, role: Role, quorum: Option<Quorum>) -> Inviting {
        Inviting::begins(
            &self.gate.home,
            &Question::Invite {
                person: person.to_owned(),
                role,
                minutes: 5,
                quorum,
            },
        )
        .await
    }

    /// The whole of an enrolment; the given admins approve it where that is needed.
    pub async fn enrols(&self, person: &str, role: Role, quorum: Option<Quorum>, approvers: &[&Device]) -> Device {
        let mut inviting = self.invites(person, role, quorum).await;
        let device = Device::joins(&inviting.link, person, self.new_home(person))
            .await
            .expect("a join");
        let (there, here) = (device.code().await, inviting.code().await);
        assert_eq!(there, here, "both screens show the same code");
        match inviting.confirms(true).await {
            Answer::Joined { .. } => {}
            Answer::Proposed { id, .. } => {
                let id: Digest = id.parse().expect("a digest");
                for approver in approvers {
                    approver.approves(&id).await;
                }
            }
            other => panic!("not let in: {other:?}"),
        }
        device.is_in().await;
        device
    }

    /// An agent asks for a command.
    pub async fn asks(&self, argv: &[&str]) -> Asking {
        self.asks_for(command(argv, self.folder.path())).await
    }

    /// An agent asks for a command that leaves one line in the tally each time that it runs.
    pub async fn asks_to_tally(&self, line: &str) -> Asking {
        self.asks(&["sh", "-c", &self.tallying(line)]).await
    }

    /// A shell's command that leaves one line in the tally.
    #[must_use]
    pub fn tallying(&self, line: &str) -> String {
        format!("echo {line} >> {}; echo did {line}", self.place("tally").display())
    }

    /// An agent asks for exactly this.
    pub async fn asks_for(&self, ask: Ask) -> Asking {
        Asking::begins(&self.gate.home, &Question::Ask(Box::new(ask)))
            .await
            .unwrap_or_else(|(_, why)| panic!("not even asked: {why}"))
    }

    /// An agent asks and is turned away at once.
    pub async fn is_turned_away(&self, argv: &[&str]) -> (Fault, String) {
        let question = Question::Ask(Box::new(command(argv, self.folder.path())));
        match Asking::begins(&self.gate.home, &question).await {
            Err(why) => why,
            Ok(_) => panic!("the gate asks"),
        }
    }

    /// An agent waits for an earlier request again.
    pub async fn attaches(&self, request: &Digest) -> Asking {
        Asking::begins(
            &self.gate.home,
            &Question::Attach {
                id: request.to_string(),
            },
        )
        .await
        .unwrap_or_else(|(_, why)| panic!("can't attach: {why}"))
    }

    /// Asks the gate how it is. That also makes it look at its clock.
    pub async fn status(&self) -> Status {
        match Local::asks(&self.gate.home, &Question::Status {}).await.hears().await {
            Some(Answer::Status(status)) => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// Waits until the gate refuses to sign. Says why.
    pub async fn halts(&self) -> String {
        let halted = async {
            loop {
                if let Some(why) = self.status().await.halted {
                    return why;
                }
            }
        };
        tokio::time::timeout(PATIENCE, halted)
            .await
            .expect("the gate refuses to sign")
    }

    /// The epoch of the roster in force.
    pub async fn epoch(&self) -> u32 {
        self.status().await.epoch
    }

    /// What ran, a line each time.
    #[must_use]
    pub fn tally(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.place("tally")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The transcript holds, and nothing ran that wasn't permitted there, or twice.
    ///
    /// # Panics
    /// If not.
    pub async fn is_sound(&self) -> Summary {
        let summary = self.gate.copy().await.verified();
        let tally = self.tally();
        let mut once = tally.clone();
        once.sort();
        once.dedup();
        assert_eq!(once.len(), tally.len(), "something ran twice: {tally:?}");
        let permitted = summary.requests.ran + summary.requests.unknown + summary.requests.permitted;
        assert!(
            tally.len() as u64 <= permitted,
            "{} ran and {permitted} were permitted",
            tally.len()
        );
        summary
    }
}
