-- How many rules of the one before a revision leaves out, as its author wished. 0 where that was not kept yet.
ALTER TABLE policy_revisions ADD COLUMN removed INTEGER NOT NULL DEFAULT 0;

CREATE INDEX attestations_by_eviction ON attestations (evicted_at) WHERE evicted_at IS NOT NULL;
