-- By which rule of the policy; empty where none gave it, or rules were not kept yet.
ALTER TABLE issued ADD COLUMN rule TEXT NOT NULL DEFAULT '';

-- How far revocations have come, and what tells this row of them from that of another database.
CREATE TABLE revocation_epoch (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    lineage  BYTEA  NOT NULL,
    epoch    BIGINT NOT NULL
);

-- What somebody had revoked, and why.
CREATE TABLE revocations (
    number     BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    revoked_at BIGINT NOT NULL,
    -- CRLReason (RFC 5280 §5.3.1)
    reason     BIGINT NOT NULL,
    actor      TEXT   NOT NULL,
    comment    TEXT   NOT NULL,
    kind       TEXT   NOT NULL,
    target     TEXT   NOT NULL
);

-- What that came to. Numbered without gaps, in the order of the commits.
CREATE TABLE revoked (
    epoch            BIGINT PRIMARY KEY,
    revocation       BIGINT NOT NULL REFERENCES revocations (number),
    -- 0 a certificate, 1 a key, 2 an authority
    kind             BIGINT NOT NULL,
    -- Of whoever signed the certificate, or of the authority; empty for a key
    authority_key_id BYTEA  NOT NULL,
    -- The serial number, or the SHA-256 of the key
    value            BYTEA  NOT NULL,
    not_after        BIGINT NOT NULL
);

CREATE UNIQUE INDEX revoked_by_value ON revoked (value, kind, authority_key_id);
CREATE INDEX revoked_authorities ON revoked (authority_key_id) WHERE kind = 2;
CREATE INDEX revoked_by_expiry ON revoked (not_after);
CREATE INDEX revoked_by_revocation ON revoked (revocation);

-- The epoch of revocations that is in force there; NULL where it does not ask for them.
ALTER TABLE agent_progress ADD COLUMN revocations BIGINT;
