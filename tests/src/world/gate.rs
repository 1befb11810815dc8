//! The gate in a story: `countersign::gate::serve` on a thread and a runtime of its own, so that it can end as a process does, in good order or not.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;

use approval::policy::Policy;
use approval::roster::Unenrolled;
use countersign::gate::{Attention, GateError, Init, Surroundings, init, serve};
use countersign::home::Home;
use countersign::runner::Launcher;
use countersign::store::Store;
use tokio::sync::oneshot;
use wire::identity::PartyId;
use wire::mailbox::MailboxId;

use super::{Copy, Hands, PATIENCE, hurried};
use crate::program::program;

/// What a gate is like from its beginning.
#[derive(Clone)]
pub struct Wishes {
    /// The policy of its genesis.
    pub policy: Option<&'static str>,
    /// What happens until somebody is enrolled.
    pub unenrolled: Unenrolled,
    /// How much may be asked.
    pub attention: Attention,
}

impl Default for Wishes {
    /// Everything is asked, nobody is there, and a story may ask as much as it likes.
    fn default() -> Self {
        Self {
            policy: None,
            unenrolled: Unenrolled::Refuse,
            attention: Attention {
                agent: usize::MAX,
                user: usize::MAX,
                minute: 60_000,
                ..Attention::default()
            },
        }
    }
}

/// A gate.
pub struct Gate {
    /// Its identity.
    pub party: PartyId,
    /// Its mailbox.
    pub mailbox: MailboxId,
    /// Its home.
    pub home: PathBuf,
    clock: Hands,
    attention: Attention,
    running: Mutex<Option<Running>>,
}

struct Running {
    orderly: oneshot::Sender<()>,
    crash: oneshot::Sender<()>,
    thread: JoinHandle<Result<(), GateError>>,
}

impl Gate {
    /// Makes a gate that isn't running yet.
    pub(super) async fn new(home: PathBuf, relay: String, clock: Hands, wishes: Wishes) -> Self {
        let made = init(
            Home::create(Some(home.clone())).expect("a home"),
            Init {
                relay,
                name: "gate".to_owned(),
                policy: wishes.policy.map(|text| Policy::parse(text).expect("a policy")),
                unenrolled: wishes.unenrolled,
            },
        )
        .await
        .expect("a gate");
        let (party, mailbox) = (made.gate, made.mailbox.id());
        made.store.close().await;
        Self {
            party,
            mailbox,
            home,
            clock,
            attention: wishes.attention,
            running: Mutex::default(),
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// What it says when it can't.
    pub async fn starts(&self) -> Result<(), String> {
        let (orderly, ending) = oneshot::channel();
        let (crash, crashing) = oneshot::channel();
        let (ready, listening) = oneshot::channel();
        let surroundings = Surroundings {
            clock: Box::new(self.clock.clone()),
            launcher: Launcher::at(program("countersign")),
            pace: hurried(),
            attention: self.attention,
        };
        let home = self.home.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            let ended = runtime.block_on(async {
                let serving = serve(
                    Home::open(Some(home))?,
                    surroundings,
                    async {
                        let _ = ending.await;
                    },
                    |_| {
                        let _ = ready.send(());
                    },
                );
                tokio::select! {
                    ended = serving => ended,
                    _ = crashing => Ok(()),
                }
            });
            // What is still running on it ends here, wherever it is.
            runtime.shutdown_background();
            ended
        });
        if listening.await.is_ok() {
            *self.running() = Some(Running { orderly, crash, thread });
            return Ok(());
        }
        match thread.join().expect("a gate doesn't panic") {
            Err(error) => Err(error.to_string()),
            Ok(()) => Err("it ended".to_owned()),
        }
    }

    /// Ends it in good order.
    pub async fn stops(&self) {
        let running = self.running().take();
        if let Some(Running { orderly, thread, crash }) = running {
            let _ = orderly.send(());
            joined(thread).await;
            drop(crash);
            self.is_let_go_of().await;
        }
    }

    /// Ends it where it is.
    pub async fn crashes(&self) {
        let running = self.running().take();
        if let Some(Running { orderly, thread, crash }) = running {
            let _ = crash.send(());
            joined(thread).await;
            drop(orderly);
            self.is_let_go_of().await;
        }
    }

    /// Ends it in good order and starts it again.
    pub async fn restarts(&self) {
        self.stops().await;
        self.starts().await.expect("the gate starts again");
    }

    /// Its transcript, as an auditor gets it while the gate runs.
    pub async fn copy(&self) -> Copy {
        let store = Store::open(&self.home.join("state.db")).await.expect("its database");
        let copy = Copy::of(&store, self.party).await;
        store.close().await;
        copy
    }

    /// Copies its whole folder to another place, as a backup does.
    pub fn is_copied_to(&self, place: &Path) {
        std::fs::create_dir_all(place).expect("a folder");
        std::fs::set_permissions(place, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("its mode");
        for file in std::fs::read_dir(&self.home).expect("its home") {
            let file = file.expect("a file");
            if file.file_type().expect("its type").is_file() {
                std::fs::copy(file.path(), place.join(file.file_name())).expect("a copy");
            }
        }
    }

    /// Puts an old copy of its folder back.
    pub fn is_restored_from(&self, place: &Path) {
        for file in std::fs::read_dir(&self.home).expect("its home") {
            let path = file.expect("a file").path();
            if path.is_file() {
                std::fs::remove_file(path).expect("room");
            }
        }
        for file in std::fs::read_dir(place).expect("the copy") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), self.home.join(file.file_name())).expect("a copy");
        }
    }

    /// Waits until its lock is free. A program that another story's gate is just starting has this process's files, the lock among them, for a moment
    /// between its fork and its exec; gates that are processes of their own can't meet that.
    async fn is_let_go_of(&self) {
        let free = async {
            while Home::open(Some(self.home.clone()))
                .and_then(|home| home.try_lock("gate.lock"))
                .expect("its home")
                .is_none()
            {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, free).await.expect("the lock is free");
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn joined(thread: JoinHandle<Result<(), GateError>>) {
    let ended = tokio::task::spawn_blocking(move || thread.join())
        .await
        .expect("a thread to wait on");
    ended.expect("a gate doesn't panic").expect("the gate ends well");
}
