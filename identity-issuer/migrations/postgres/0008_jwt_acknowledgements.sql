-- The version of the keys of tokens that the client has in force. NULL for one that has said nothing of them.
ALTER TABLE agent_progress ADD COLUMN jwt BYTEA;
