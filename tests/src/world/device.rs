//! A person's device in a story: a `Member` that takes in what comes, in a task of its own, and does what the story says in between.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

use approval::change::Change;
use approval::decision::{Answer as Vote, Decision};
use approval::grant::Terms;
use approval::message::{Message, RefusalCode};
use approval::{Digest, Id16, Signed, Text, Time, Verified, sign};
use countersign::clock::wall;
use countersign::home::Home;
use countersign::member::{Begun, JoinError, Member, Notice, Saying};
use countersign::party::random16;
use countersign::store::{NewPost, Outgoing};
use rand_core::OsRng;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use wire::envelope::{Content, seal};
use wire::identity::PartyId;
use wire::mailbox::MailboxId;

use super::{Copy, PATIENCE, hurried};

/// A future that borrows the member.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Deed = Box<dyn for<'a> FnOnce(&'a mut Member) -> Doing<'a, ()> + Send>;
type Condition = Box<dyn FnMut(&Member, &[Notice]) -> bool + Send>;

enum Order {
    Do(Deed),
    Until(Condition, oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// A device.
pub struct Device {
    /// The person's name, for messages of tests.
    pub name: String,
    /// Its identity.
    pub party: PartyId,
    /// Its mailbox.
    pub mailbox: MailboxId,
    home: PathBuf,
    orders: mpsc::UnboundedSender<Order>,
}

impl Device {
    /// Answers an invite from a new home.
    ///
    /// # Errors
    /// Why joining can't even begin.
    pub async fn joins(link: &str, name: &str, home: PathBuf) -> Result<Self, JoinError> {
        let begun = Begun::read(link)?;
        let member = begun
            .join(Home::create(Some(home.clone())).expect("a home"), "phone")
            .await?;
        Ok(Self::lives(member, name, home))
    }

    /// Comes back after [`Device::closes`]; without that, after its power was cut.
    pub async fn comes_back(self) -> Self {
        let Self { name, home, orders, .. } = self;
        drop(orders);
        let opened = Home::open(Some(home.clone())).expect("its home");
        let member = Member::open(opened).await.expect("its state");
        Self::lives(member, &name, home)
    }

    fn lives(mut member: Member, name: &str, home: PathBuf) -> Self {
        member.party.pace = hurried();
        let (orders, todo) = mpsc::unbounded_channel();
        let (party, mailbox) = (member.party.identity.party(), member.party.mailbox.id());
        tokio::spawn(live(member, todo));
        Self {
            name: name.to_owned(),
            party,
            mailbox,
            home,
            orders,
        }
    }

    /// Ends in good order.
    pub async fn closes(&self) {
        let (done, over) = oneshot::channel();
        let _ = self.orders.send(Order::Close(done));
        let _ = timeout(PATIENCE, over).await.expect("the device closes");
    }

    /// Does something with the member between two messages.
    pub async fn with<T: Send + 'static>(
        &self,
        deed: impl for<'a> FnOnce(&'a mut Member) -> Doing<'a, T> + Send + 'static,
    ) -> T {
        let (tell, told) = oneshot::channel();
        let deed: Deed = Box::new(move |member| {
            Box::pin(async move {
                let _ = tell.send(deed(member).await);
            })
        });
        let _ = self.orders.send(Order::Do(deed));
        timeout(PATIENCE, told)
            .await
            .expect("the device does it in time")
            .expect("the device lives")
    }

    /// Waits until something holds.
    pub async fn until(&self, what: &str, condition: impl FnMut(&Member, &[Notice]) -> bool + Send + 'static) {
        let (tell, told) = oneshot::channel();
        let _ = self.orders.send(Order::Until(Box::new(condition), tell));
        let name = &self.name;
        timeout(PATIENCE, told)
            .await
            .unwrap_or_else(|_| panic!("{name} waits in vain: {what}"))
            .unwrap_or_else(|_| panic!("{name} is gone: {what}"));
    }

    /// Waits until this request stands in its copy of the transcript as open.
    pub async fn sees(&self, request: &Digest) {
        let request = *request;
        self.until("a request", move |member, _| {
            member.party.replay.request(&request).is_some()
        })
        .await;
    }

    /// Waits until a request that it saw is over in its copy.
    pub async fn sees_the_end_of(&self, request: &Digest) {
        let request = *request;
        let ended = move |member: &Member, notices: &[Notice]| {
            let asked = notices
                .iter()
                .any(|notice| matches!(notice, Notice::Entry(entry) if entry.statement().digest() == request));
            asked && member.party.replay.request(&request).is_none()
        };
        self.until("the end of a request", ended).await;
    }

    /// Waits until so many decisions about an open request stand in its copy.
    pub async fn sees_decisions(&self, request: &Digest, count: usize) {
        let request = *request;
        let enough = move |member: &Member, _: &[Notice]| {
            member
                .party
                .replay
                .request(&request)
                .is_some_and(|open| open.decisions().len() >= count)
        };
        self.until("decisions of others", enough).await;
    }

    /// Waits for the request that the gate made of its proposal.
    pub async fn has_its_request(&self, proposal: Id16) -> Digest {
        let (tell, mut told) = mpsc::unbounded_channel();
        self.until("an answer to a proposal", move |_, notices| {
            let taken = notices.iter().find_map(|notice| match notice {
                Notice::Refused {
                    about,
                    code: RefusalCode::Taken,
                    text,
                } if about.as_bytes().starts_with(&proposal.0) => text.parse().ok(),
                _ => None,
            });
            taken.is_some_and(|request: Digest| tell.send(request).is_ok())
        })
        .await;
        told.recv().await.expect("a request")
    }

    /// Waits until this roster, by its epoch, is in force in its copy.
    pub async fn has_roster(&self, epoch: u32) {
        self.until("a roster", move |member, _| {
            member.party.replay.roster().is_some_and(|roster| roster.epoch >= epoch)
        })
        .await;
    }

    /// Waits until its copy is as long as that.
    pub async fn has(&self, entries: u64) {
        self.until("more entries", move |member, _| member.party.replay.size() >= entries)
            .await;
    }

    /// Waits for the short code.
    pub async fn code(&self) -> String {
        self.until("a code", |_, notices| {
            notices.iter().any(|notice| matches!(notice, Notice::Code(_)))
        })
        .await;
        let (tell, told) = oneshot::channel();
        let mut tell = Some(tell);
        self.until("its code", move |_, notices| {
            let code = notices.iter().find_map(|notice| match notice {
                Notice::Code(code) => Some(code.clone()),
                _ => None,
            });
            if let (Some(tell), Some(code)) = (tell.take(), code) {
                let _ = tell.send(code);
            }
            true
        })
        .await;
        told.await.expect("a code")
    }

    /// Waits until it is in the roster and in the group.
    pub async fn is_in(&self) {
        self.until("to be let in", |member, notices| {
            member.enrolled() && notices.iter().any(|notice| matches!(notice, Notice::Joined))
        })
        .await;
    }

    /// Says yes, once it sees the request.
    pub async fn approves(&self, request: &Digest) -> Digest {
        self.decides(request, Vote::Approve, "").await
    }

    /// Says no, with a reason, once it sees the request.
    pub async fn denies(&self, request: &Digest, reason: &str) -> Digest {
        self.decides(request, Vote::Deny, reason).await
    }

    /// Answers, once it sees the request. Returns the decision's digest.
    pub async fn decides(&self, request: &Digest, vote: Vote, reason: &str) -> Digest {
        self.sees(request).await;
        let (request, reason) = (*request, reason.to_owned());
        self.with(move |member| {
            Box::pin(async move { member.decide(&request, vote, &reason).await.expect("a decision") })
        })
        .await
    }

    /// Answers with all that can be said, once it sees the request. Returns the decision's digest.
    pub async fn says(&self, request: &Digest, saying: Saying) -> Digest {
        self.sees(request).await;
        let request = *request;
        self.with(move |member| Box::pin(async move { member.answer(&request, saying).await.expect("a decision") }))
            .await
    }

    /// Says yes and grants the like on these terms.
    pub async fn grants(&self, request: &Digest, terms: Terms) -> Digest {
        let grant = Some(terms);
        self.says(
            request,
            Saying {
                grant,
                ..Saying::once()
            },
        )
        .await
    }

    /// Waits until a grant stands in its copy, and says which: the one that was given beside this request.
    pub async fn has_the_grant_of(&self, request: &Digest) -> Digest {
        let request = *request;
        let (tell, mut told) = mpsc::unbounded_channel();
        self.until("a grant", move |member, _| {
            let mut standing = member.party.replay.standing().iter();
            let held = standing.find(|held| held.request().digest() == request);
            held.is_some_and(|held| tell.send(held.digest()).is_ok())
        })
        .await;
        told.recv().await.expect("a grant")
    }

    /// Takes a grant back. Returns the revocation's digest.
    pub async fn revokes(&self, grant: &Digest) -> Digest {
        let grant = *grant;
        self.with(move |member| Box::pin(async move { member.revoke(&grant, "no more").await.expect("a revocation") }))
            .await
    }

    /// Proposes a change of the roster.
    pub async fn proposes(&self, change: Change) -> Id16 {
        self.with(move |member| Box::pin(async move { member.propose(change).await.expect("a proposal") }))
            .await
    }

    /// Signs a decision without sending it.
    pub async fn signs(&self, request: &Digest, verdict: Vote) -> Verified<Decision> {
        let request = *request;
        self.with(move |member| {
            Box::pin(async move {
                let mut tx = member.party.store.begin().await.expect("its database");
                let checkpoint = tx.last_checkpoint().await.expect("its database").expect("a checkpoint");
                tx.commit().await.expect("its database");
                let party = member.party.identity.party();
                let decision = Decision {
                    party,
                    request,
                    verdict,
                    number: None,
                    grant: None,
                    reason: Text::cut(""),
                    time: Time::of_clock(wall()),
                    checkpoint,
                };
                sign(&member.party.identity, decision).expect("a decision")
            })
        })
        .await
    }

    /// Sends a decision, whoever signed it, as this device, until it is answered.
    pub async fn sends(&self, decision: Signed) {
        self.with(move |member| {
            Box::pin(async move {
                let party = &mut member.party;
                let mut turn = party.turn().await.expect("a turn");
                let gate = turn
                    .tx
                    .peer(&party.gate)
                    .await
                    .expect("its database")
                    .expect("the gate's address");
                let about = decision.digest();
                let message = Message::Decision(decision);
                let sealed = turn.encrypt(&party.leaf, &message).expect("a group message");
                let envelope =
                    seal(&gate.envelope_key, &gate.mailbox, Content::Mls, &sealed, &mut OsRng).expect("an envelope");
                let question = message.encode().expect("a message");
                let post = NewPost {
                    peer: &gate,
                    envelope: &envelope,
                    kind: Outgoing::Question,
                    covers: 0,
                    about: about.as_bytes(),
                    question: &question,
                };
                turn.tx.post(random16(), &post).await.expect("its database");
                turn.commit().await.expect("a commit");
            })
        })
        .await;
    }

    /// Encrypts so many messages to the group that never arrive anywhere.
    pub async fn speaks_in_vain(&self, times: usize) {
        self.with(move |member| {
            Box::pin(async move {
                let mut turn = member.party.turn().await.expect("a turn");
                for _ in 0..times {
                    turn.encrypt(
                        &member.party.leaf,
                        &Message::Ack {
                            epoch: 0,
                            checkpoint: None,
                        },
                    )
                    .expect("a group message");
                }
                turn.commit().await.expect("a commit");
            })
        })
        .await;
    }

    /// Waits for the gate's refusal of what it said.
    pub async fn is_refused(&self, about: &Digest) -> String {
        let about = *about;
        self.until("a refusal", move |_, notices| {
            notices
                .iter()
                .any(|notice| matches!(notice, Notice::Refused { about: of, .. } if *of == about))
        })
        .await;
        let refusal = self
            .with(move |member| Box::pin(async move { member.refusal(about.as_bytes()).await.expect("its database") }))
            .await;
        refusal.expect("a refusal").1
    }

    /// Its copy of the transcript.
    pub async fn copy(&self) -> Copy {
        self.with(|member| Box::pin(async move { Copy::of(&member.party.store, member.party.gate).await }))
            .await
    }

    /// What it holds against the gate.
    pub async fn evidence(&self) -> Vec<String> {
        self.with(|member| {
            Box::pin(async move {
                let mut tx = member.party.store.begin().await.expect("its database");
                let evidence = tx.evidence().await.expect("its database");
                tx.commit().await.expect("its database");
                evidence.into_iter().map(|evidence| evidence.what).collect()
            })
        })
        .await
    }
}

async fn live(mut member: Member, mut orders: mpsc::UnboundedReceiver<Order>) {
    let mut notices = Vec::new();
    let mut waiting: Vec<(Condition, oneshot::Sender<()>)> = Vec::new();
    loop {
        let woken = tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Do(deed)) => {
                    deed(&mut member).await;
                    continue;
                }
                Some(Order::Until(mut condition, tell)) => {
                    if condition(&member, &notices) {
                        let _ = tell.send(());
                    } else {
                        waiting.push((condition, tell));
                    }
                    continue;
                }
                Some(Order::Close(done)) => {
                    member.close().await;
                    let _ = done.send(());
                    return;
                }
                // The story dropped it: as if the power had gone.
                None => return,
            },
            woken = member.wait() => woken,
        };
        match member.take(woken).await {
            Ok(news) => notices.extend(news),
            // Nothing was kept: the relay delivers it again on the next connection.
            Err(error) => eprintln!("a device can't take something in: {error}"),
        }
        let mut still = Vec::new();
        for (mut condition, tell) in waiting {
            if condition(&member, &notices) {
                let _ = tell.send(());
            } else if !tell.is_closed() {
                still.push((condition, tell));
            }
        }
        waiting = still;
    }
}
