-- What the gate keeps about a request beside the transcript: until it ends what is needed to carry it out, afterwards (for a week) what became of it, so
-- that whoever asked without waiting can still be told.
CREATE TABLE asked (
    request BLOB PRIMARY KEY,
    asynchronous INTEGER NOT NULL,  -- asked without waiting: it outlives every connection, and is redeemed
    number TEXT,                    -- the digits that only whoever asked is told (PROTOCOL.md section 8.3)
    stdin BLOB,                     -- what the command will read
    standing TEXT,                  -- how it ended, as JSON
    ended INTEGER                   -- wall time in ms
) WITHOUT ROWID;
CREATE INDEX asked_by_end ON asked (ended) WHERE ended IS NOT NULL;
