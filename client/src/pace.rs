//! How patient a party is with the relay and its peers: when something unanswered is said again. None of it decides anything; a hurried party is
//! only louder. The defaults are PROTOCOL.md 12's; tests hurry, so that nothing has to sleep.

/// Times in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// After how long a question that the relay stored is asked again for the first time; each further try waits twice as long.
    pub question_retry: u64,
    /// When an envelope that the relay hasn't answered is put again under the same id.
    pub unanswered: u64,
    /// How long at least an envelope that the relay refused stays back.
    pub refused: u64,
    /// How often a connected member says what it has.
    pub ack_every: u64,
    /// How long what was put for a member is left on its way before it is sent again.
    pub on_its_way: u64,
    /// At most one bare head in this time to a member that lacks nothing.
    pub head_every: u64,
    /// How long an event that couldn't be written waits for its next try.
    pub again: u64,
    /// How old an envelope key gets before it is replaced.
    pub rotate: u64,
    /// How long at least the key before is kept then: longer than a pairing waits for the admins.
    pub keep: u64,
    /// How long after a start the gate waits for those who asked before it; then it withdraws what they asked.
    pub orphans: u64,
    /// How long a gate to which nothing happens waits before it looks for what is due.
    pub idle: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            question_retry: 10_000,
            unanswered: 30_000,
            refused: 15_000,
            ack_every: 30_000,
            on_its_way: 3_000,
            head_every: 20_000,
            again: 1_000,
            rotate: 30 * 24 * 60 * 60 * 1000,
            keep: 48 * 60 * 60 * 1000,
            orphans: 90_000,
            idle: 1_000,
        }
    }
}
