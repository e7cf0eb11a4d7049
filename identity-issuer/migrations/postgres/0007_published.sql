-- The SPIFFE bundle that was published last, by whichever issuer.
CREATE TABLE bundle_sequence (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    -- SHA-256 of what is in it
    content  BYTEA  NOT NULL,
    sequence BIGINT NOT NULL
);

-- Append-only: the tokens that have left an issuer, or were about to when it was stopped. Not the tokens themselves.
CREATE TABLE issued_jwts (
    position           BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    jti                BYTEA   NOT NULL UNIQUE,
    -- `jwt_svid` or `access_token`
    kind               TEXT    NOT NULL,
    spiffe_id          TEXT    NOT NULL,
    -- JSON ["…", …]
    audience           TEXT    NOT NULL,
    -- `kid`
    key_id             TEXT    NOT NULL,
    -- Unix microseconds
    issued_at          BIGINT  NOT NULL,
    -- Unix seconds, as in the token
    expires_at         BIGINT  NOT NULL,
    -- Of the certificate by which it was asked for.
    serial             BYTEA   NOT NULL,
    attestation_number BIGINT  NOT NULL REFERENCES attestations (number)
);

CREATE INDEX issued_jwts_by_spiffe_id ON issued_jwts (spiffe_id, expires_at);
