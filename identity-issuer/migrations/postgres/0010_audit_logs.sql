-- The logs of the issuers on this database: one for each, and it alone appends to it.
CREATE TABLE audit_logs (
    number       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The first line of its checkpoints (C2SP tlog-checkpoint).
    origin       TEXT    NOT NULL UNIQUE,
    -- C2SP signed-note, verifier keys
    verifier_key TEXT    NOT NULL,
    -- Drawn at each start of its issuer: whoever came later appends, whoever came before no more.
    holder       BIGINT NOT NULL,
    -- How many entries it has.
    size         BIGINT NOT NULL
);

-- Entries that are not in published tiles yet, of one transaction each, as entry bundles have them (C2SP tlog-tiles).
CREATE TABLE audit_entries (
    log     BIGINT NOT NULL REFERENCES audit_logs (number),
    -- The index of the first.
    first   BIGINT NOT NULL,
    entries BYTEA   NOT NULL
);

CREATE UNIQUE INDEX audit_entries_by_index ON audit_entries (log, first);

-- Where its entry is. NULL for what was issued before there was a log.
ALTER TABLE issued ADD COLUMN log BIGINT REFERENCES audit_logs (number);
ALTER TABLE issued ADD COLUMN log_index BIGINT;

ALTER TABLE issued_jwts ADD COLUMN log BIGINT REFERENCES audit_logs (number);
ALTER TABLE issued_jwts ADD COLUMN log_index BIGINT;

-- Of the entry that says what was asked. What that came to follows it.
ALTER TABLE revocations ADD COLUMN log BIGINT REFERENCES audit_logs (number);
ALTER TABLE revocations ADD COLUMN log_index BIGINT;
