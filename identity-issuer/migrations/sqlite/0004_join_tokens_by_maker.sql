-- Empty for those that were made before makers were kept.
ALTER TABLE join_tokens ADD COLUMN created_by TEXT NOT NULL DEFAULT '';

CREATE INDEX join_tokens_by_expiry ON join_tokens (expires_at);
CREATE INDEX join_tokens_by_maker ON join_tokens (created_by) WHERE used_at IS NULL;
