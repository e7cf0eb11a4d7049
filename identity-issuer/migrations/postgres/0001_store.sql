-- not_before and not_after are Unix seconds, as in the certificate; all other times are Unix microseconds.

CREATE TABLE issuer (
    only_row     BIGINT PRIMARY KEY CHECK (only_row = 1),
    trust_domain TEXT NOT NULL
);

-- Append-only but for `evicted_at`: who proved what, once for each first certificate. Renewals refer to it.
CREATE TABLE attestations (
    number      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    spiffe_id   TEXT   NOT NULL,
    method      TEXT   NOT NULL,
    -- What was proved, JSON [[name, value], …]; NULL where the proof names the SPIFFE ID itself.
    attributes  TEXT,
    -- SHA-256
    proof       BYTEA  NOT NULL,
    attested_at BIGINT NOT NULL,
    evicted_at  BIGINT
);

CREATE INDEX attestations_by_spiffe_id ON attestations (spiffe_id, number);
CREATE INDEX attestations_by_eviction ON attestations (evicted_at) WHERE evicted_at IS NOT NULL;

-- Append-only: what has left an issuer, or was about to when it was stopped.
CREATE TABLE issued (
    position           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    serial             BYTEA  NOT NULL UNIQUE,
    spiffe_id          TEXT   NOT NULL,
    key_sha256         BYTEA  NOT NULL UNIQUE,
    not_before         BIGINT NOT NULL,
    not_after          BIGINT NOT NULL,
    issued_at          BIGINT NOT NULL,
    attestation        TEXT   NOT NULL,
    evidence           BYTEA,
    authority_key_id   BYTEA  NOT NULL,
    certificate        BYTEA  NOT NULL,
    -- NULL for an issuer's own.
    attestation_number BIGINT REFERENCES attestations (number)
);

CREATE INDEX issued_by_spiffe_id ON issued (spiffe_id, not_after);
CREATE INDEX issued_by_expiry ON issued (not_after, not_before);
CREATE INDEX issued_by_attestation ON issued (attestation_number, position);

CREATE TABLE join_tokens (
    token_sha256 BYTEA  PRIMARY KEY,
    spiffe_id    TEXT   NOT NULL,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT NOT NULL,
    used_at      BIGINT,
    created_by   TEXT   NOT NULL
);

CREATE INDEX join_tokens_by_expiry ON join_tokens (expires_at);
CREATE INDEX join_tokens_by_maker ON join_tokens (created_by) WHERE used_at IS NULL;

-- Proofs that are good once, until they are good no more anyway.
CREATE TABLE used_proofs (
    proof      BYTEA  PRIMARY KEY,
    expires_at BIGINT NOT NULL
);

CREATE INDEX used_proofs_by_expiry ON used_proofs (expires_at);

CREATE TABLE bans (
    spiffe_id TEXT   PRIMARY KEY,
    banned_at BIGINT NOT NULL,
    actor     TEXT   NOT NULL,
    reason    TEXT   NOT NULL
);

-- Append-only: each policy there ever was. Revision 0, the one without a rule, is not written down.
CREATE TABLE policy_revisions (
    revision   BIGINT PRIMARY KEY CHECK (revision > 0),
    created_at BIGINT NOT NULL,
    actor      TEXT   NOT NULL,
    comment    TEXT   NOT NULL,
    rule_count BIGINT NOT NULL,
    -- How many rules of the one before it leaves out, as its author wished.
    removed    BIGINT NOT NULL,
    -- JSON
    rules      TEXT   NOT NULL
);
