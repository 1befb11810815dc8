//! Speaking with our relay: everything that a real client does (login, capability, quotas, acknowledgement), except that the
//! envelopes hold nothing.

use anyhow::{Context, Result, bail};
use rand_core::{OsRng, RngCore};
use wire::frame::{ClientFrame, RelayFrame, VERSION};
use wire::limits::{CAPABILITY_BYTES_MAX, CAPABILITY_ENVELOPES_MAX};
use wire::login::{self, RelayName};
use wire::mailbox::{Capability, MailboxKey};

use crate::door::Door;
use crate::line::{Dialect, Heard, Line, PAYLOAD, websocket_frame, websocket_message};

/// Before the envelope of a put: type, id, mailbox, capability, ttl.
const PUT_HEADER: usize = 1 + 16 + 32 + 32 + 4;

/// Where the id is in it.
const ID: std::ops::Range<usize> = 1..17;

/// Types of frames, as the bytes of a connection under load are told apart.
const STORED: u8 = 0x83;
const REFUSED: u8 = 0x84;
const DELIVER: u8 = 0x85;

/// How long an envelope waits at most: so short that the relay's forgetting of ids is part of what is measured.
const TTL: u32 = 60;

/// For envelopes that are to wait while a mailbox is filled.
pub const PATIENT_TTL: u32 = 3600;

/// A client of ours.
#[derive(Default)]
pub struct Ours {
    /// A whole put frame; only its id changes.
    put: Vec<u8>,
    random: Random,
    /// The last sequence number delivered.
    pub sequence: u64,
    /// What is delivered isn't acknowledged for now.
    pub holds: bool,
    /// Refusals are counted and not the end.
    pub forgives: bool,
    pub refused: u64,
}

/// Ids as scattered as a client's, which cost the load nothing: SplitMix64.
#[derive(Default)]
struct Random(u64);

impl Random {
    fn next_id(&mut self) -> [u8; 16] {
        let mut id = [0; 16];
        for half in id.chunks_exact_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            half.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
        }
        id
    }
}

pub type OurLine = Line<Ours>;

/// Where a client's messages go.
pub struct Address {
    pub mailbox: [u8; 32],
    pub capability: Capability,
}

impl Ours {
    /// Sends to this address from now on.
    pub fn aim(&mut self, address: &Address) {
        self.aim_for(address, TTL);
    }

    /// The same, with another time to live, in seconds.
    pub fn aim_for(&mut self, address: &Address, ttl: u32) {
        self.put = vec![0; PUT_HEADER + PAYLOAD];
        self.put[0] = 0x02;
        self.random = Random(OsRng.next_u64());
        self.put[17..49].copy_from_slice(&address.mailbox);
        self.put[49..81].copy_from_slice(&*address.capability.to_bytes());
        self.put[81..85].copy_from_slice(&ttl.to_be_bytes());
    }
}

impl Dialect for Ours {
    fn say(&mut self, out: &mut Vec<u8>) {
        let id = self.random.next_id();
        self.put[ID].copy_from_slice(&id);
        websocket_frame(out, self.put.len(), |out| out.extend(&self.put));
    }

    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, Heard)>> {
        let Some((length, content)) = websocket_message(bytes, out)? else {
            return Ok(None);
        };
        let heard = match content.first() {
            Some(&DELIVER) => {
                let sequence = content.get(1..9).context("a sequence number")?;
                self.sequence = u64::from_be_bytes(sequence.try_into()?);
                Heard::Delivered
            }
            Some(&STORED) => Heard::Stored,
            Some(&REFUSED) if self.forgives => {
                self.refused += 1;
                Heard::Stored
            }
            Some(&REFUSED) => bail!("refused, reason {:?}", content.get(17)),
            _ => Heard::Other,
        };
        Ok(Some((length, heard)))
    }

    fn acknowledge(&mut self, out: &mut Vec<u8>) {
        if self.holds {
            return;
        }
        websocket_frame(out, 9, |out| {
            out.push(0x04);
            out.extend(self.sequence.to_be_bytes());
        });
    }

    fn is_told_stored(&self) -> bool {
        true
    }
}

impl OurLine {
    /// Dials and logs in.
    pub async fn log_in(door: &Door, key: &MailboxKey) -> Result<Self> {
        let mut line = Self::dial(door, Box::default()).await?;
        line.upgrade("/").await?;
        let RelayFrame::Challenge { nonce, .. } = line.frame().await? else {
            bail!("no challenge")
        };
        let signature = login::sign(key, VERSION, &RelayName::from_address(door.address), &nonce);
        line.ask(&ClientFrame::Login {
            version: VERSION,
            mailbox: *key.id().as_bytes(),
            signature,
        })
        .await?;
        let RelayFrame::Welcome { .. } = line.frame().await? else {
            bail!("no welcome")
        };
        Ok(line)
    }

    /// Lets somebody put into this client's mailbox, as much as may wait at all.
    pub async fn allow(&mut self, key: &MailboxKey) -> Result<Address> {
        let capability = Capability::generate(&mut OsRng);
        let (max_envelopes, max_bytes) = (CAPABILITY_ENVELOPES_MAX, CAPABILITY_BYTES_MAX);
        self.ask(&ClientFrame::Allow {
            capability: capability.hash(),
            max_envelopes,
            max_bytes,
        })
        .await?;
        let RelayFrame::Done(_) = self.frame().await? else {
            bail!("not allowed")
        };
        Ok(Address {
            mailbox: *key.id().as_bytes(),
            capability,
        })
    }

    /// Becomes the mailbox's reader; says how many wait in it.
    pub async fn read_mailbox(&mut self) -> Result<u64> {
        self.ask(&ClientFrame::Read).await?;
        let RelayFrame::Reading { waiting, .. } = self.frame().await? else {
            bail!("not reading")
        };
        Ok(waiting)
    }

    async fn ask(&mut self, frame: &ClientFrame) -> Result<()> {
        let frame = frame.encode();
        websocket_frame(&mut self.out, frame.len(), |out| out.extend(&frame));
        self.flush().await
    }

    async fn frame(&mut self) -> Result<RelayFrame> {
        let bytes = self.next().await?;
        let content = websocket_message(&bytes, &mut Vec::new())?
            .context("a message")?
            .1
            .to_vec();
        Ok(RelayFrame::decode(content.into())?)
    }
}
