-- The loader's fine-grained role: it reads and writes rows and deletes none. `tasuki schema` grants it the target tables.

CREATE ROLE loader;

GRANT SELECT, INSERT, UPDATE ON TABLE Runs, Ledger, Counters, Failures, Outbox TO ROLE loader;
