-- How far those have come who are connected to an issuer that shares its database: for the others to tell.
CREATE TABLE agent_progress (
    attestation_number INTEGER PRIMARY KEY,
    issuer             TEXT    NOT NULL,
    -- When the stream began. A later one counts more.
    connected_at       INTEGER NOT NULL,
    revision           INTEGER NOT NULL,
    is_current         INTEGER NOT NULL,
    since              INTEGER NOT NULL,
    refused            TEXT    NOT NULL
) STRICT;

CREATE INDEX agent_progress_by_issuer ON agent_progress (issuer);
