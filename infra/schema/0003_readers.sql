-- The splitter's fine-grained role, which reads the target tables for pipelines with only_changed and nothing else, and the
-- operator's, which reads everything. `tasuki schema` grants both the target tables.

CREATE ROLE splitter;

CREATE ROLE reader;

GRANT SELECT ON TABLE Runs, Ledger, Counters, Failures, Outbox TO ROLE reader;
