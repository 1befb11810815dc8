-- What a relay keeps (PROTOCOL.md, section 5). Times are milliseconds since 1970.

-- 'CSRY', so that no other program's database is taken for ours.
PRAGMA application_id = 1129534041;
PRAGMA user_version = 1;

CREATE TABLE mailboxes (
    number INTEGER PRIMARY KEY,
    key BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
    -- No sequence number from this one on was ever given out. While a relay runs it stands ahead of what was, by a reserve.
    next_sequence INTEGER NOT NULL CHECK (next_sequence > 0),
    -- When the owner closed it; kept a while so that its sequence numbers go on if it's opened again.
    closed INTEGER
) STRICT;

CREATE TABLE capabilities (
    number INTEGER PRIMARY KEY,
    mailbox INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32),
    max_envelopes INTEGER NOT NULL,
    max_bytes INTEGER NOT NULL,
    UNIQUE (mailbox, hash)
) STRICT;

-- Appended to and deleted from by number alone; where a mailbox's envelopes are is held in memory and read at the start.
CREATE TABLE envelopes (
    number INTEGER PRIMARY KEY,
    mailbox INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    capability INTEGER NOT NULL,
    received INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    body BLOB NOT NULL
) STRICT;

-- The memory of puts, which outlives their envelopes.
CREATE TABLE puts (
    mailbox INTEGER NOT NULL,
    id BLOB NOT NULL CHECK (length(id) = 16),
    digest BLOB NOT NULL CHECK (length(digest) = 32),
    expires INTEGER NOT NULL,
    how INTEGER NOT NULL,
    PRIMARY KEY (mailbox, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX puts_by_expiry ON puts (expires);
