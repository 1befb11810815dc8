-- The state of one party, gate or member. Everything that belongs together changes in one transaction.
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;

-- MLS group state, as OpenMLS keeps it (PROTOCOL.md section 12).
CREATE TABLE mls (key BLOB PRIMARY KEY, value BLOB NOT NULL);

-- The transcript (section 10): exact texts of signed statements.
CREATE TABLE entry (position INTEGER PRIMARY KEY, digest BLOB NOT NULL UNIQUE, kind TEXT NOT NULL, leaf BLOB NOT NULL);
CREATE TABLE checkpoint (size INTEGER PRIMARY KEY, root BLOB NOT NULL, note TEXT NOT NULL);

-- Whom we can write to. For a gate: its members' devices. For a member: the gate alone.
CREATE TABLE peer (
    party BLOB PRIMARY KEY,
    mailbox BLOB NOT NULL,
    envelope_key BLOB NOT NULL,
    capability BLOB NOT NULL,       -- lets us write to them
    issued BLOB NOT NULL,           -- hash of the one that lets them write to us
    acked_size INTEGER NOT NULL DEFAULT 0,
    acked_epoch INTEGER NOT NULL DEFAULT 0,
    heard INTEGER NOT NULL DEFAULT 0,
    follows INTEGER NOT NULL DEFAULT 1  -- seals to our newest envelope key
);

-- Sealed envelopes on their way out, sent again as stored until `kind` says they are done with.
CREATE TABLE outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    put BLOB NOT NULL UNIQUE,       -- put id (section 5)
    party BLOB NOT NULL,
    mailbox BLOB NOT NULL,
    capability BLOB NOT NULL,
    envelope BLOB NOT NULL,
    kind INTEGER NOT NULL,
    covers INTEGER NOT NULL,        -- transcript size, or MLS epoch, that acknowledges it
    about BLOB NOT NULL,            -- digest (or id) of the question inside, or empty
    question BLOB NOT NULL,         -- the question before encryption: after a change of epoch it is encrypted anew
    stored INTEGER NOT NULL DEFAULT 0,
    tries INTEGER NOT NULL DEFAULT 0,
    due INTEGER NOT NULL DEFAULT 0  -- wall time in ms of the next try
);
CREATE INDEX outbox_by_party ON outbox (party, kind);

-- Group messages that came before what they build on (section 14: at most 64).
CREATE TABLE held (id INTEGER PRIMARY KEY AUTOINCREMENT, message BLOB NOT NULL UNIQUE);

-- Invites that are open or being confirmed, at the gate; the one being answered, at a device (section 13).
CREATE TABLE pairing (mailbox BLOB PRIMARY KEY, expires INTEGER NOT NULL, state TEXT NOT NULL);

-- What a peer sent that contradicts what it sent before: kept, shown, never deleted by the program.
CREATE TABLE evidence (id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, what TEXT NOT NULL, bytes BLOB NOT NULL);

-- Answers to what we asked for that are not in the transcript (refusals, section 12).
CREATE TABLE refusal (about BLOB PRIMARY KEY, code INTEGER NOT NULL, text TEXT NOT NULL);

-- The askers' own names for what they asked, so that asking again after a broken connection finds the same request instead of making another.
CREATE TABLE ticket (ticket BLOB PRIMARY KEY, request BLOB NOT NULL, made INTEGER NOT NULL);
