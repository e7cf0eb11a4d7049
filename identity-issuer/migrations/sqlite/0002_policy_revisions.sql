-- Append-only: each policy there ever was. Revision 0, the one without a rule, is not written down.
CREATE TABLE policy_revisions (
    revision   INTEGER PRIMARY KEY CHECK (revision > 0),
    created_at INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    comment    TEXT    NOT NULL,
    rule_count INTEGER NOT NULL,
    -- JSON
    rules      TEXT    NOT NULL
) STRICT;
