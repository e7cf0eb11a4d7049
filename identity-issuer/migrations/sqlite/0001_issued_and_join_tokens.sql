-- not_before and not_after are Unix seconds, as in the certificate; all other times are Unix microseconds.

CREATE TABLE issuer (
    only_row     INTEGER PRIMARY KEY CHECK (only_row = 1),
    trust_domain TEXT NOT NULL
) STRICT;

-- Append-only: what has left this issuer, or was about to when it was stopped.
CREATE TABLE issued (
    position         INTEGER PRIMARY KEY,
    serial           BLOB    NOT NULL UNIQUE,
    spiffe_id        TEXT    NOT NULL,
    key_sha256       BLOB    NOT NULL UNIQUE,
    not_before       INTEGER NOT NULL,
    not_after        INTEGER NOT NULL,
    issued_at        INTEGER NOT NULL,
    attestation      TEXT    NOT NULL,
    evidence         BLOB,
    authority_key_id BLOB    NOT NULL,
    certificate      BLOB    NOT NULL
) STRICT;

CREATE INDEX issued_by_spiffe_id ON issued (spiffe_id, not_after);
CREATE INDEX issued_by_expiry ON issued (not_after, not_before);

CREATE TABLE join_tokens (
    token_sha256 BLOB    PRIMARY KEY,
    spiffe_id    TEXT    NOT NULL,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    used_at      INTEGER
) STRICT, WITHOUT ROWID;
