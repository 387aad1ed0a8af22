-- Tasuki's own tables in Spanner (GoogleSQL). Append-only: a later change is a statement in a new numbered file.
-- The embedded store has the same tables and columns: functions/local/src/store/schema.sql.

CREATE TABLE Runs (
  run STRING(27) NOT NULL,
  pipeline STRING(31) NOT NULL,
  input STRING(MAX) NOT NULL,
  source_time TIMESTAMP NOT NULL,
  run_time TIMESTAMP NOT NULL,
  state STRING(16) NOT NULL,
  refused STRING(MAX), -- why, by the greatest shard that says so:
  refused_shard INT64,
  expected_rows INT64, -- known once the part with the totals is loaded
  expected_shards INT64,
  opened_at TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
  ended_at TIMESTAMP OPTIONS (allow_commit_timestamp = true),
) PRIMARY KEY (run);

-- A row here says that its part is loaded: it commits with the part's rows or not at all.
CREATE TABLE Ledger (
  run STRING(27) NOT NULL,
  shard INT64 NOT NULL,
  generation INT64 NOT NULL,
  committed_at TIMESTAMP NOT NULL OPTIONS (allow_commit_timestamp = true),
  shards INT64 NOT NULL,
  loaded INT64 NOT NULL,
  failed INT64 NOT NULL,
  cancelled INT64 NOT NULL,
  unchanged INT64 NOT NULL,
  superseded INT64 NOT NULL,
  paid_calls INT64 NOT NULL,
  ambiguous_calls INT64 NOT NULL,
  wasted_answers INT64 NOT NULL,
  prompt_tokens INT64 NOT NULL,
  output_tokens INT64 NOT NULL,
  thought_tokens INT64 NOT NULL,
  cached_tokens INT64 NOT NULL,
) PRIMARY KEY (run, shard),
  INTERLEAVE IN PARENT Runs ON DELETE NO ACTION;

-- A run's counts, in 16 rows, so that parts that commit at the same time rarely wait for each other.
CREATE TABLE Counters (
  run STRING(27) NOT NULL,
  slot INT64 NOT NULL,
  shards INT64 NOT NULL,
  loaded INT64 NOT NULL,
  failed INT64 NOT NULL,
  cancelled INT64 NOT NULL,
  unchanged INT64 NOT NULL,
  superseded INT64 NOT NULL,
  paid_calls INT64 NOT NULL,
  ambiguous_calls INT64 NOT NULL,
  wasted_answers INT64 NOT NULL,
  prompt_tokens INT64 NOT NULL,
  output_tokens INT64 NOT NULL,
  thought_tokens INT64 NOT NULL,
  cached_tokens INT64 NOT NULL,
) PRIMARY KEY (run, slot),
  INTERLEAVE IN PARENT Runs ON DELETE NO ACTION;

CREATE TABLE Failures (
  run STRING(27) NOT NULL,
  ordinal INT64 NOT NULL,
  key STRING(MAX), -- an integer in decimal digits
  reason STRING(MAX) NOT NULL,
  message STRING(MAX) NOT NULL,
  attempts INT64 NOT NULL,
) PRIMARY KEY (run, ordinal),
  INTERLEAVE IN PARENT Runs ON DELETE NO ACTION;

-- The foreign key's index finds the notices of one run.
CREATE TABLE Outbox (
  event_id STRING(64) NOT NULL,
  run STRING(27) NOT NULL,
  published_at TIMESTAMP OPTIONS (allow_commit_timestamp = true),
  CONSTRAINT OutboxOfRun FOREIGN KEY (run) REFERENCES Runs (run),
) PRIMARY KEY (event_id);

-- Finds the notices that are due: those without a time.
CREATE INDEX OutboxByPublishedAt ON Outbox (published_at);
