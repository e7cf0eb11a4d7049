-- The SHA-256 of the certificate. In rows that were written before, the certificate itself, until they leave.
ALTER TABLE issued RENAME COLUMN certificate TO certificate_sha256;

-- Of certificates that have left the record: the first 16 bytes of the SHA-256 of each key. None of them is certified again.
CREATE TABLE former_keys (
    key BLOB PRIMARY KEY
) STRICT, WITHOUT ROWID;

-- How many certificates have left the record.
CREATE TABLE former_certificates (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    count    INTEGER NOT NULL
) STRICT;

INSERT INTO former_certificates (only_row, count) VALUES (1, 0);
