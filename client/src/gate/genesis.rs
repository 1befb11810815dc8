//! The beginning of a gate: its keys, the genesis roster as entry 0, and an empty group. It runs in `gate` afterwards.

use approval::device::Device;
use approval::policy::Policy;
use approval::roster::{Quorum, Roster, Unenrolled};
use approval::{Name, RelayUrl, sign};

use super::GateError;
use crate::channel::Group;
use crate::clock::{Clock, System};
use crate::home::Home;
use crate::party::{Birth, Kind, Party};
use crate::store::Tx;

/// What a new gate is told.
pub struct Init {
    /// The relay that it and its devices meet at.
    pub relay: String,
    /// The gate's own name, which its admins see.
    pub name: String,
    /// What must be asked at all; without one everything. It counts from the first admin on.
    pub policy: Option<Policy>,
    /// What happens until somebody is enrolled.
    pub unenrolled: Unenrolled,
}

/// Creates a gate: keys, the genesis roster as entry 0, and an empty group.
pub async fn init(home: Home, init: Init) -> Result<Party, GateError> {
    let name: Name = init
        .name
        .parse()
        .map_err(|error| GateError::Invalid(format!("the name {:?}: {error}", init.name)))?;
    let relay: RelayUrl = init
        .relay
        .parse()
        .map_err(|error| GateError::Invalid(format!("the relay's url: {error}")))?;
    wire::login::authority(&init.relay).map_err(|error| GateError::Invalid(format!("the relay's url: {error}")))?;
    let birth = Birth {
        kind: Kind::Gate,
        gate: None,
        relay: init.relay,
    };
    let fill = async move |identity: &wire::identity::Identity, leaf: &crate::channel::LeafKey, tx: &mut Tx| {
        let created = Clock::new(Box::new(System), 0).now();
        let party = identity.party();
        let device = sign(
            identity,
            Device {
                party,
                leaf: approval::scalar::LeafKey(leaf.public()),
                name,
                created,
            },
        )?;
        let genesis = Roster {
            policy: init.policy,
            unenrolled: init.unenrolled,
            ..Roster::genesis(device, Quorum { command: 1, roster: 1 }, vec![relay], created)
        };
        let genesis = sign(identity, genesis)?;
        let mut log = approval::transcript::Log::new();
        log.append(genesis.signed().as_bytes());
        tx.add_entry(0, &genesis.digest(), "roster", genesis.signed().as_bytes())
            .await?;
        tx.add_checkpoint(&approval::checkpoint::Checkpoint::sign(identity, 1, log.root()))
            .await?;
        tx.set_meta("incarnation", &crate::party::random16()).await?;
        let mut mls = tx.mls().await?;
        Group::create(&mut mls, leaf, party, *genesis.digest().as_bytes())?;
        tx.save_mls(&mut mls).await?;
        Ok(())
    };
    Ok(Party::create(home, birth, fill).await?)
}
