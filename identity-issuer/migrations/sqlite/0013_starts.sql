-- When an issuer started last, in seconds, and more than at each start before: what it numbers begins with it.
CREATE TABLE starts (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    latest   INTEGER NOT NULL
) STRICT;
