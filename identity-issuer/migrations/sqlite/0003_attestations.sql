-- Append-only but for `evicted_at`: who proved what, once for each first certificate. Renewals refer to it.
CREATE TABLE attestations (
    number      INTEGER PRIMARY KEY,
    spiffe_id   TEXT    NOT NULL,
    method      TEXT    NOT NULL,
    -- What was proved, JSON [[name, value], …]; the policy is asked with it again at each renewal. NULL where the proof
    -- names the SPIFFE ID itself.
    attributes  TEXT,
    -- SHA-256
    proof       BLOB    NOT NULL,
    attested_at INTEGER NOT NULL,
    evicted_at  INTEGER
) STRICT;

CREATE INDEX attestations_by_spiffe_id ON attestations (spiffe_id, number);

-- Proofs that are good once, until they are good no more anyway.
CREATE TABLE used_proofs (
    proof      BLOB    PRIMARY KEY,
    expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX used_proofs_by_expiry ON used_proofs (expires_at);

CREATE TABLE bans (
    spiffe_id TEXT    PRIMARY KEY,
    banned_at INTEGER NOT NULL,
    actor     TEXT    NOT NULL,
    reason    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- NULL for the issuer's own, and for what was issued before attestations were kept.
ALTER TABLE issued ADD COLUMN attestation_number INTEGER REFERENCES attestations (number);

CREATE INDEX issued_by_attestation ON issued (attestation_number, position);
