-- What the nodes of one relay keep together (PROTOCOL.md, section 5). Times are milliseconds since 1970.
-- Whatever changes a mailbox, its capabilities, envelopes or puts does so with the mailbox's row locked.

-- One row. The secret hides mailboxes in the hints between nodes.
CREATE TABLE relay (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    secret bytea NOT NULL CHECK (octet_length(secret) = 32)
);

CREATE SEQUENCE mailbox_numbers;
CREATE SEQUENCE capability_numbers;
CREATE SEQUENCE reader_generations;

CREATE TABLE mailboxes (
    key bytea PRIMARY KEY CHECK (octet_length(key) = 32),
    -- Names what is in it; a mailbox that is closed goes on under a new number, and what had the old one is litter.
    number bigint NOT NULL UNIQUE DEFAULT nextval('mailbox_numbers'),
    next_sequence bigint NOT NULL DEFAULT 1 CHECK (next_sequence > 0),
    -- Everything up to here is acknowledged: readers begin behind it, not among the dead rows.
    floor bigint NOT NULL DEFAULT 0,
    -- When the owner closed it; kept a while so that its sequence numbers go on if it's opened again.
    closed bigint,
    -- When the owner was last here, to within a day.
    seen bigint NOT NULL DEFAULT 0,
    -- Counted as it changes, so that a full mailbox costs no more than an empty one.
    waiting bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    remembered bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70);

CREATE TABLE capabilities (
    mailbox bigint NOT NULL,
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    number bigint NOT NULL UNIQUE DEFAULT nextval('capability_numbers'),
    max_envelopes integer NOT NULL,
    max_bytes bigint NOT NULL,
    envelopes bigint NOT NULL DEFAULT 0,
    bytes bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (mailbox, hash)
) WITH (fillfactor = 70);

CREATE TABLE envelopes (
    mailbox bigint NOT NULL,
    sequence bigint NOT NULL,
    capability bigint NOT NULL,
    received bigint NOT NULL,
    expires bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (mailbox, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

-- Sealed bytes don't shrink.
ALTER TABLE envelopes ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE INDEX envelopes_by_expiry ON envelopes (expires);

-- The memory of puts, which outlives their envelopes.
CREATE TABLE puts (
    mailbox bigint NOT NULL,
    id bytea NOT NULL CHECK (octet_length(id) = 16),
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    expires bigint NOT NULL,
    how smallint NOT NULL,
    PRIMARY KEY (mailbox, id)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX puts_by_expiry ON puts (expires);

-- Who reads a mailbox: the one row decides, whatever a node believes. Also of mailboxes that don't exist yet.
CREATE TABLE readers (
    key bytea PRIMARY KEY CHECK (octet_length(key) = 32),
    generation bigint NOT NULL,
    node bigint NOT NULL,
    since bigint NOT NULL
) WITH (fillfactor = 70);

-- Numbers of mailboxes whose contents are still to be deleted, some at a time.
CREATE TABLE litter (mailbox bigint PRIMARY KEY);
