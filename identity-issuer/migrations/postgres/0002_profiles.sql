-- By which certificate profile it was made. Until now there was one.
ALTER TABLE issued ADD COLUMN profile TEXT NOT NULL DEFAULT 'workload';
