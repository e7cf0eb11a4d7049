-- Of whose certificates: '' for everybody, a SPIFFE ID, or `authority:` and a subject key identifier.
ALTER TABLE renewal_requests RENAME COLUMN spiffe_id TO whose;

-- The version of the authorities that the client would believe. NULL for one that is not told of them; empty for one that has said nothing.
ALTER TABLE agent_progress ADD COLUMN authorities BLOB;
