-- How far those have come who are connected to an issuer that shares its database: for the others to tell.
CREATE TABLE agent_progress (
    attestation_number BIGINT PRIMARY KEY,
    issuer             TEXT   NOT NULL,
    -- When the stream began. A later one counts more.
    connected_at       BIGINT NOT NULL,
    revision           BIGINT NOT NULL,
    is_current         BIGINT NOT NULL,
    since              BIGINT NOT NULL,
    refused            TEXT   NOT NULL
);

CREATE INDEX agent_progress_by_issuer ON agent_progress (issuer);
