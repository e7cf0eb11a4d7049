-- What each issuer on this database has its clients trust. An issuer is named by a hash of its authority's key.
CREATE TABLE issuer_bundles (
    issuer       TEXT    NOT NULL,
    trust_domain TEXT    NOT NULL,
    -- PEM
    certificates TEXT    NOT NULL,
    published_at INTEGER NOT NULL,
    -- Nothing that the issuer has issued lives longer.
    good_until   INTEGER NOT NULL,
    PRIMARY KEY (issuer, trust_domain)
) STRICT;

-- The latest "renew now" for each identity; for everybody where the SPIFFE ID is empty.
CREATE TABLE renewal_requests (
    spiffe_id TEXT    PRIMARY KEY,
    asked_at  INTEGER NOT NULL,
    within_ms INTEGER NOT NULL
) STRICT;

CREATE INDEX renewal_requests_by_time ON renewal_requests (asked_at);
