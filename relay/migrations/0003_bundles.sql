-- Many envelopes and many puts to a row: rows of their own cost several times as much. What the old tables hold is moved by the
-- program, which then drops them.

PRAGMA user_version = 3;

-- Everything up to this sequence number is acknowledged, even if a bundle still has it.
ALTER TABLE mailboxes ADD COLUMN acknowledged INTEGER NOT NULL DEFAULT 0;

-- Neighbours in one mailbox. Heads come first, because reading them shouldn't read the bodies. A bundle of a mailbox that isn't
-- there is litter.
CREATE TABLE bundles (
    number INTEGER PRIMARY KEY,
    mailbox INTEGER NOT NULL,
    -- For each envelope: sequence, capability, received, expires (8 bytes each), length (4). Behind that, as behind bodies and
    -- records, a checksum (8).
    heads BLOB NOT NULL,
    bodies BLOB NOT NULL
) STRICT;

-- The memory of puts, which outlives their envelopes; forgotten when the last of a row has expired.
CREATE TABLE remembered (
    number INTEGER PRIMARY KEY,
    expires INTEGER NOT NULL,
    how INTEGER NOT NULL,
    -- Runs of one mailbox: its number (8 bytes), how many (4), and for each id (16) and content (8).
    records BLOB NOT NULL
) STRICT;

CREATE INDEX remembered_by_expiry ON remembered (expires);

-- How many batches were committed. The lock file says so too, written after the flush: a store that has fewer has lost some.
CREATE TABLE commits (one INTEGER PRIMARY KEY CHECK (one = 1), count INTEGER NOT NULL) STRICT;

INSERT INTO commits VALUES (1, 0);
