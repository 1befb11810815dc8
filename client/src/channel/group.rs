//! The group itself: made, joined, changed, encrypted to and received from (`PROTOCOL.md`, section 12).
//!
//! Which commits a member believes is deliberately not here but in `commit`.

use openmls::framing::errors::{MessageDecryptionError, SecretTreeError};
use openmls::prelude::tls_codec::DeserializeBytes as _;
use openmls::prelude::{
    ContentType, LeafNodeIndex, Member, MlsGroup, MlsGroupCreateConfig, MlsGroupJoinConfig, MlsMessageBodyIn,
    MlsMessageIn, OpenMlsProvider as _, PURE_CIPHERTEXT_WIRE_FORMAT_POLICY, PastEpochDeletion, PrivateMessageIn,
    ProcessMessageError, ProcessedMessageContent, ProtocolMessage, SenderRatchetConfiguration, StagedWelcome,
    ValidationError,
};
use openmls_memory_storage::MemoryStorageError;
use wire::identity::PartyId;
use wire::limits::ENVELOPE_MESSAGE_BYTES;

use super::mls::Provider;
use super::{
    ChannelError, Context, DATA_BYTES, EPOCHS_AHEAD, Leaf, LeafKey, Membership, Mls, Refused, SUITE, key_package,
};

/// Epochs whose messages can still be opened after a commit: a decision may cross with the gate's commit.
const PAST_EPOCHS: usize = 2;

/// Messages of one sender that may arrive out of order. An insider can make every member store so many keys for each sender.
const OUT_OF_ORDER: u32 = 32;

/// Messages of one sender that may be missing at once: a week of acknowledgements that a relay kept back, after which the sender would be mute until
/// the next epoch. Stepping over them costs time (a thousand, about a millisecond).
const FORWARD: u32 = 20_000;

/// The one group of a store. Loaded together with its [`Mls`], and dropped with it. Has no text form.
pub struct Group {
    pub(super) inner: MlsGroup,
}

/// What the gate sends after [`Group::change`].
#[derive(Debug, PartialEq, Eq)]
pub struct Change {
    /// To every member there was before, those removed included.
    pub commit: Vec<u8>,
    /// To every member added, if any.
    pub welcome: Option<Vec<u8>>,
}

/// What [`Group::receive`] made of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Application data. At a gate it can be from any member; it says nothing about the roster in force now.
    Message {
        /// The party whose leaf sent it.
        from: PartyId,
        /// The data, up to [`DATA_BYTES`] if the sender keeps to the bound.
        data: Vec<u8>,
    },
    /// A commit of the gate was applied.
    Changed {
        /// The epoch now.
        epoch: u64,
        /// Somebody was removed and the past epochs were dropped with them: what others encrypted in them can't be opened
        /// any more and has to be encrypted anew.
        forgot_past: bool,
    },
    /// The gate removed this member; the group is deleted. Only another Welcome leads back.
    Removed,
    /// Of a later epoch, or a commit to a roster that isn't known yet: to be held and given again, nothing was changed.
    Early,
    /// Received before, or sent by ourselves.
    Known,
    /// Dropped, nothing was changed.
    Refused(Refused),
}

impl Group {
    /// Makes the gate's group with the gate as its only member, under the roster with this digest.
    ///
    /// # Errors
    ///
    /// [`ChannelError::GroupExists`] if the store holds a group, [`ChannelError::Broken`].
    pub fn create(mls: &mut Mls, key: &LeafKey, gate: PartyId, roster: [u8; 32]) -> Result<Self, ChannelError> {
        if mls.group_id().is_some() {
            return Err(ChannelError::GroupExists);
        }
        let config = MlsGroupCreateConfig::builder()
            .ciphersuite(SUITE)
            .capabilities(key_package::capabilities())
            .lifetime(key_package::lifetime())
            .with_group_context_extensions(Context { gate, roster }.extensions()?)
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .sender_ratchet_configuration(SenderRatchetConfiguration::new(OUT_OF_ORDER, FORWARD))
            .max_past_epochs(PAST_EPOCHS)
            .padding_size(0)
            .use_ratchet_tree_extension(true)
            .build();
        let own = Leaf {
            party: gate,
            leaf: key.public(),
        };
        let mut scratch = mls.scratch();
        let inner = MlsGroup::new(&scratch, key, &config, own.credential()).map_err(ChannelError::broken)?;
        scratch.name_group(inner.group_id());
        mls.keep(scratch);
        Ok(Self { inner })
    }

    /// The group of the store, if it holds one.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Broken`] if the rows don't make a group.
    pub fn load(mls: &Mls) -> Result<Option<Self>, ChannelError> {
        mls.group_id().map(|_| Self::load_from(mls, mls.provider())).transpose()
    }

    pub(super) fn load_from(mls: &Mls, provider: &Provider) -> Result<Self, ChannelError> {
        let id = mls
            .group_id()
            .ok_or_else(|| ChannelError::broken("no group in the store"))?;
        let inner = MlsGroup::load(provider.storage(), &id).map_err(ChannelError::broken)?;
        inner
            .map(|inner| Self { inner })
            .ok_or_else(|| ChannelError::broken("rows are missing"))
    }

    /// Joins the group of `gate` from a Welcome, in the place of any group that the store holds. Key packages are used up.
    ///
    /// A device can join before it has seen a roster. What the Welcome says was then checked only against itself: the caller
    /// must [`Group::check`] as soon as it has the roster that [`Group::roster`] names, and leave the group if that fails.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Welcome`] if it isn't for one of this device's key packages or doesn't lead into that gate's group; then
    /// nothing was changed and no key package used up. [`ChannelError::Broken`].
    pub fn join(mls: &mut Mls, own: &Leaf, gate: &PartyId, welcome: &[u8]) -> Result<Self, ChannelError> {
        if welcome.len() > ENVELOPE_MESSAGE_BYTES {
            return Err(ChannelError::Welcome(Refused::TooLong));
        }
        let message = MlsMessageIn::tls_deserialize_exact_bytes(welcome)
            .map_err(|_| ChannelError::Welcome(Refused::Malformed))?;
        let MlsMessageBodyIn::Welcome(welcome) = message.extract() else {
            return Err(ChannelError::Welcome(Refused::Malformed));
        };
        let config = MlsGroupJoinConfig::builder()
            .wire_format_policy(PURE_CIPHERTEXT_WIRE_FORMAT_POLICY)
            .sender_ratchet_configuration(SenderRatchetConfiguration::new(OUT_OF_ORDER, FORWARD))
            .max_past_epochs(PAST_EPOCHS)
            .padding_size(0)
            .use_ratchet_tree_extension(true)
            .build();
        // OpenMLS consumes the key package before it has looked at the tree: only a copy loses it to a bad Welcome.
        let mut scratch = mls.scratch_without_group();
        let staged = StagedWelcome::build_from_welcome(&scratch, &config, welcome)
            // Members keep the leaf that they came with, and it may have expired long ago.
            .and_then(|builder| builder.skip_lifetime_validation().replace_old_group().build())
            .map_err(|_| ChannelError::Welcome(Refused::Unopened))?;
        let context = Context::read(staged.group_context().extensions()).map_err(ChannelError::Welcome)?;
        let leaves = leaves(staged.members()).map_err(ChannelError::Welcome)?;
        let (sender, at) = (staged.welcome_sender_index(), staged.own_leaf_index());
        let claims_gate = leaves.first().is_some_and(|leaf| leaf.party == *gate);
        if context.gate != *gate || sender.u32() != 0 || !claims_gate {
            return Err(ChannelError::Welcome(Refused::NoGate));
        }
        if !staged
            .members()
            .any(|member| member.index == at && Leaf::of_member(&member).as_ref() == Ok(own))
        {
            return Err(ChannelError::Welcome(Refused::NotOurs));
        }
        // The gate's leaf key isn't known before the roster is; that nobody is there twice can be seen already.
        let said = Membership {
            gate: leaves.first().copied().unwrap_or(*own),
            members: leaves.clone(),
            roster: context.roster,
        };
        said.admits(&leaves).map_err(ChannelError::Welcome)?;
        let inner = staged.into_group(&scratch).map_err(ChannelError::broken)?;
        scratch.drop_key_packages();
        scratch.name_group(inner.group_id());
        mls.keep(scratch);
        Ok(Self { inner })
    }

    /// Holds the group against a verified roster: the one it names, its gate, and nobody in the tree who isn't in it.
    ///
    /// # Errors
    ///
    /// [`Refused`] says what is wrong with the group.
    pub fn check(&self, membership: &Membership) -> Result<(), Refused> {
        let context = Context::read(self.inner.extensions())?;
        if context.gate != membership.gate.party {
            return Err(Refused::Context);
        }
        if context.roster != membership.roster {
            return Err(Refused::AnotherRoster);
        }
        membership.admits(&leaves(self.inner.members())?)
    }

    /// Encrypts application data to the group. The message may leave only after the changed rows are committed.
    ///
    /// # Errors
    ///
    /// [`ChannelError::TooLong`], [`ChannelError::NotAMember`], [`ChannelError::Broken`].
    pub fn encrypt(&mut self, mls: &mut Mls, key: &LeafKey, data: &[u8]) -> Result<Vec<u8>, ChannelError> {
        if data.len() > DATA_BYTES {
            return Err(ChannelError::TooLong);
        }
        if !self.inner.is_active() {
            return Err(ChannelError::NotAMember);
        }
        let message = self
            .inner
            .create_message(mls.provider(), key, data)
            .map_err(ChannelError::broken)?;
        message.to_bytes().map_err(ChannelError::broken)
    }

    /// The gate's one way to change the group: adds, removes and the new roster's digest in a single commit, applied here at
    /// once. A party that is removed and added gets a new leaf. After a removal nothing of past epochs can be opened any more.
    ///
    /// # Errors
    ///
    /// [`ChannelError::NotTheGate`], [`ChannelError::NoSuchMember`], [`ChannelError::KeyPackage`] and [`ChannelError::Change`] (a party would have two
    /// leaves, or MLS doesn't allow it); they change nothing. [`ChannelError::Broken`].
    pub fn change(
        &mut self,
        mls: &mut Mls,
        key: &LeafKey,
        add: &[Vec<u8>],
        remove: &[PartyId],
        roster: [u8; 32],
    ) -> Result<Change, ChannelError> {
        let gate = Context::read(self.inner.extensions())
            .map_err(ChannelError::broken)?
            .gate;
        let own = self
            .inner
            .own_leaf_node()
            .map(|node| Leaf::of(node.credential(), node.signature_key().as_slice()));
        if own
            != Some(Ok(Leaf {
                party: gate,
                leaf: key.public(),
            }))
        {
            return Err(ChannelError::NotTheGate);
        }
        let packages = add
            .iter()
            .map(|bytes| mls.verified_key_package(bytes).map(|(package, _)| package))
            .collect::<Result<Vec<_>, _>>()?;
        let removed = remove
            .iter()
            .map(|party| {
                self.index_of(party)
                    .filter(|_| *party != gate)
                    .ok_or(ChannelError::NoSuchMember)
            })
            .collect::<Result<Vec<_>, _>>()?;

        let scratch = mls.scratch();
        let mut next = Self::load_from(mls, &scratch)?;
        let bundle = next
            .inner
            .commit_builder()
            .propose_removals(removed)
            .propose_adds(packages)
            .propose_group_context_extensions(Context { gate, roster }.extensions()?)
            .and_then(|builder| builder.load_psks(scratch.storage()))
            // Nobody joins by a published GroupInfo: that would be an external commit.
            .and_then(|builder| {
                builder
                    .create_group_info(false)
                    .build(scratch.rand(), scratch.crypto(), key, |_| true)
            })
            .map_err(|_| ChannelError::Change(Refused::BadCommit))?
            .stage_commit(&scratch)
            .map_err(ChannelError::broken)?;
        next.inner
            .merge_pending_commit(&scratch)
            .map_err(ChannelError::broken)?;
        if !remove.is_empty() {
            next.forget_past(&scratch)?;
        }
        let tree = next.leaves();
        let said = Membership {
            gate: Leaf {
                party: gate,
                leaf: key.public(),
            },
            members: tree.clone(),
            roster,
        };
        said.admits(&tree).map_err(ChannelError::Change)?;
        let (commit, welcome, _) = bundle.into_messages();
        let change = Change {
            commit: commit.to_bytes().map_err(ChannelError::broken)?,
            welcome: welcome
                .map(|welcome| welcome.to_bytes())
                .transpose()
                .map_err(ChannelError::broken)?,
        };
        let longest = change.commit.len().max(change.welcome.as_ref().map_or(0, Vec::len));
        if longest > ENVELOPE_MESSAGE_BYTES {
            return Err(ChannelError::Change(Refused::TooLong));
        }
        mls.keep(scratch);
        *self = next;
        Ok(change)
    }

    /// Takes in one MLS message, whatever it is and whoever sent it. `membership` says what the verified roster with a digest
    /// says, or nothing while no such roster is known.
    ///
    /// # Errors
    ///
    /// [`ChannelError::Broken`] alone; nothing in a message leads there.
    pub fn receive(
        &mut self,
        mls: &mut Mls,
        bytes: &[u8],
        membership: &dyn Fn(&[u8; 32]) -> Option<Membership>,
    ) -> Result<Received, ChannelError> {
        let message = match self.read(bytes) {
            Ok(message) => message,
            Err(refused) => return Ok(Received::Refused(refused)),
        };
        let (now, of) = (self.epoch(), message.epoch().as_u64());
        if of > now.saturating_add(EPOCHS_AHEAD) {
            return Ok(Received::Refused(Refused::TooFarAhead));
        }
        match message.content_type() {
            ContentType::Proposal => Ok(Received::Refused(Refused::Proposal)),
            _ if of > now => Ok(Received::Early),
            // Either it is the commit that ended that epoch here, or it lost against it for good.
            ContentType::Commit if of < now => Ok(Received::Known),
            // The gate follows nobody; its own commits were applied when they were made.
            ContentType::Commit if self.own_leaf().is_some_and(|own| Some(own.party) == self.gate()) => {
                Ok(Received::Refused(Refused::NotTheGate))
            }
            ContentType::Commit => self.receive_commit(mls, message, membership),
            ContentType::Application => self.receive_application(mls, message),
        }
    }

    /// The message, as far as it can be judged before it is opened.
    fn read(&self, bytes: &[u8]) -> Result<PrivateMessageIn, Refused> {
        if bytes.len() > ENVELOPE_MESSAGE_BYTES {
            return Err(Refused::TooLong);
        }
        if !self.inner.is_active() {
            return Err(Refused::NotAMember);
        }
        let message = MlsMessageIn::tls_deserialize_exact_bytes(bytes).map_err(|_| Refused::Malformed)?;
        match message.extract() {
            MlsMessageBodyIn::PrivateMessage(message) if message.group_id() == self.inner.group_id() => Ok(message),
            MlsMessageBodyIn::PrivateMessage(_) => Err(Refused::AnotherGroup),
            // OpenMLS's policy would still let external commits through in clear.
            MlsMessageBodyIn::PublicMessage(_) => Err(Refused::Unencrypted),
            _ => Err(Refused::Malformed),
        }
    }

    fn receive_application(&mut self, mls: &Mls, message: PrivateMessageIn) -> Result<Received, ChannelError> {
        // No copy is needed: OpenMLS uses a message key up only after the message was verified.
        let processed = match self
            .inner
            .process_message(mls.provider(), ProtocolMessage::from(message))
        {
            Ok(processed) => processed,
            Err(error) => return verdict(error),
        };
        let from = Leaf::of(processed.credential(), &[0; 32]).map(|leaf| leaf.party);
        match (processed.into_content(), from) {
            (ProcessedMessageContent::ApplicationMessage(message), Ok(from)) => Ok(Received::Message {
                from,
                data: message.into_bytes(),
            }),
            (ProcessedMessageContent::OwnPrivateMessage, _) => Ok(Received::Known),
            _ => Ok(Received::Refused(Refused::Unopened)),
        }
    }

    pub(super) fn forget_past(&mut self, provider: &Provider) -> Result<(), ChannelError> {
        self.inner
            .delete_past_epoch_secrets(provider, PastEpochDeletion::delete_all())
            .map_err(ChannelError::broken)
    }

    fn gate(&self) -> Option<PartyId> {
        Context::read(self.inner.extensions()).ok().map(|context| context.gate)
    }

    fn own_leaf(&self) -> Option<Leaf> {
        let node = self.inner.own_leaf_node()?;
        Leaf::of(node.credential(), node.signature_key().as_slice()).ok()
    }

    fn index_of(&self, party: &PartyId) -> Option<LeafNodeIndex> {
        let is_theirs = |member: &Member| Leaf::of_member(member).is_ok_and(|leaf| leaf.party == *party);
        self.inner.members().find(is_theirs).map(|member| member.index)
    }

    /// The epoch, which grows by one with each commit.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.inner.epoch().as_u64()
    }

    /// The digest of the roster that the group context names.
    #[must_use]
    pub fn roster(&self) -> [u8; 32] {
        // Every context was read once before it was believed; zeros are no roster's digest.
        Context::read(self.inner.extensions()).map_or([0; 32], |context| context.roster)
    }

    /// Who is in the tree, the gate first.
    #[must_use]
    pub fn leaves(&self) -> Vec<Leaf> {
        self.inner
            .members()
            .filter_map(|member| Leaf::of_member(&member).ok())
            .collect()
    }

    /// A value that all who are in the same epoch of the same group share, and nobody else knows: 32 bytes.
    #[must_use]
    pub fn epoch_authenticator(&self) -> &[u8] {
        self.inner.epoch_authenticator().as_slice()
    }
}

/// The leaves of a tree, all of which must name a party.
pub(super) fn leaves(members: impl Iterator<Item = Member>) -> Result<Vec<Leaf>, Refused> {
    members.map(|member| Leaf::of_member(&member)).collect()
}

/// What a failure of OpenMLS means for the message that caused it.
pub(super) fn verdict(error: ProcessMessageError<MemoryStorageError>) -> Result<Received, ChannelError> {
    use MessageDecryptionError::SecretTreeError as Tree;
    match error {
        ProcessMessageError::StorageError(error) => Err(ChannelError::broken(error)),
        ProcessMessageError::ValidationError(ValidationError::UnableToDecrypt(Tree(error))) => Ok(match error {
            SecretTreeError::SecretReuseError => Received::Known,
            SecretTreeError::TooDistantInThePast => Received::Refused(Refused::TooOld),
            SecretTreeError::TooDistantInTheFuture => Received::Refused(Refused::TooFarAhead),
            _ => Received::Refused(Refused::Unopened),
        }),
        ProcessMessageError::InvalidCommit(_) => Ok(Received::Refused(Refused::BadCommit)),
        _ => Ok(Received::Refused(Refused::Unopened)),
    }
}
