UPDATE issued SET certificate = sha256(certificate);
ALTER TABLE issued RENAME COLUMN certificate TO certificate_sha256;

-- In the order of the bytes, whatever the language of the database, so that all that begins alike lies together; and up to the
-- position, where a page goes on.
DROP INDEX issued_by_spiffe_id;
DROP INDEX issued_by_expiry;
ALTER TABLE issued ALTER COLUMN spiffe_id TYPE TEXT COLLATE "C";
CREATE INDEX issued_by_spiffe_id ON issued (spiffe_id, not_after, position);
CREATE INDEX issued_by_expiry ON issued (not_after, not_before, position);

-- Of certificates that have left the record: the first 16 bytes of the SHA-256 of each key. None of them is certified again.
CREATE TABLE former_keys (
    key BYTEA PRIMARY KEY
);

-- How many certificates have left the record.
CREATE TABLE former_certificates (
    only_row BIGINT PRIMARY KEY CHECK (only_row = 1),
    count    BIGINT NOT NULL
);

INSERT INTO former_certificates (only_row, count) VALUES (1, 0);
