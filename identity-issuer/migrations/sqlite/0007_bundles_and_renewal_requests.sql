-- What each issuer on this database has its clients trust, in its own words: nothing is believed that its authority has not signed.
CREATE TABLE issuer_bundles (
    -- 16 bytes of the SHA-256 of its authority's public key, hexadecimal
    issuer       TEXT    PRIMARY KEY,
    -- JSON; NULL once the issuer is forgotten
    statement    TEXT,
    -- By the authority's key
    signature    BLOB,
    -- The authority's certificate and those above it, PEM
    chain        TEXT,
    published_at INTEGER NOT NULL
) STRICT;

-- The latest "renew now" for each identity; for everybody where the SPIFFE ID is empty.
CREATE TABLE renewal_requests (
    spiffe_id TEXT    PRIMARY KEY,
    -- Each later than those before it, whatever the clocks say.
    asked_at  INTEGER NOT NULL,
    -- Of the certificates on record then, the last.
    position  INTEGER NOT NULL,
    within_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX renewal_requests_by_time ON renewal_requests (asked_at);
