-- The store's own tables (protocol.md 5). Target tables are made on demand, one per pipeline: target.rs.
-- Times are RFC 3339 text in UTC with milliseconds: they sort as text.

CREATE TABLE IF NOT EXISTS Runs (
  run             TEXT PRIMARY KEY NOT NULL,
  pipeline        TEXT NOT NULL,
  input           TEXT NOT NULL,
  source_time     TEXT NOT NULL,
  run_time        TEXT NOT NULL,
  state           TEXT NOT NULL,
  refused         TEXT,      -- why, by the greatest shard that says so:
  refused_shard   INTEGER,
  expected_rows   INTEGER,   -- known once the part with the totals is loaded
  expected_shards INTEGER,
  opened_at       TEXT NOT NULL,
  ended_at        TEXT
) STRICT, WITHOUT ROWID;

-- Costs are picodollars. A row here says that its part is loaded: it commits with the part's rows or not at all.
CREATE TABLE IF NOT EXISTS Ledger (
  run             TEXT NOT NULL REFERENCES Runs (run),
  shard           INTEGER NOT NULL,
  generation      INTEGER NOT NULL,
  committed_at    TEXT NOT NULL,
  shards          INTEGER NOT NULL,
  loaded          INTEGER NOT NULL,
  failed          INTEGER NOT NULL,
  cancelled       INTEGER NOT NULL,
  unchanged       INTEGER NOT NULL,
  superseded      INTEGER NOT NULL,
  paid_calls      INTEGER NOT NULL,
  ambiguous_calls INTEGER NOT NULL,
  wasted_answers  INTEGER NOT NULL,
  prompt_tokens   INTEGER NOT NULL,
  output_tokens   INTEGER NOT NULL,
  thought_tokens  INTEGER NOT NULL,
  cached_tokens   INTEGER NOT NULL,
  cost                   INTEGER NOT NULL DEFAULT 0,
  unpriced_calls         INTEGER NOT NULL DEFAULT 0,
  reused_answers         INTEGER NOT NULL DEFAULT 0,
  duplicate_prompts      INTEGER NOT NULL DEFAULT 0,
  retry_calls            INTEGER NOT NULL DEFAULT 0,
  retry_prompt_tokens    INTEGER NOT NULL DEFAULT 0,
  retry_output_tokens    INTEGER NOT NULL DEFAULT 0,
  retry_thought_tokens   INTEGER NOT NULL DEFAULT 0,
  retry_cached_tokens    INTEGER NOT NULL DEFAULT 0,
  retry_cost             INTEGER NOT NULL DEFAULT 0,
  salvage_calls          INTEGER NOT NULL DEFAULT 0,
  salvage_prompt_tokens  INTEGER NOT NULL DEFAULT 0,
  salvage_output_tokens  INTEGER NOT NULL DEFAULT 0,
  salvage_thought_tokens INTEGER NOT NULL DEFAULT 0,
  salvage_cached_tokens  INTEGER NOT NULL DEFAULT 0,
  salvage_cost           INTEGER NOT NULL DEFAULT 0,
  waste_calls            INTEGER NOT NULL DEFAULT 0,
  waste_prompt_tokens    INTEGER NOT NULL DEFAULT 0,
  waste_output_tokens    INTEGER NOT NULL DEFAULT 0,
  waste_thought_tokens   INTEGER NOT NULL DEFAULT 0,
  waste_cached_tokens    INTEGER NOT NULL DEFAULT 0,
  waste_cost             INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (run, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS Counters (
  run             TEXT NOT NULL REFERENCES Runs (run),
  slot            INTEGER NOT NULL,
  shards          INTEGER NOT NULL,
  loaded          INTEGER NOT NULL,
  failed          INTEGER NOT NULL,
  cancelled       INTEGER NOT NULL,
  unchanged       INTEGER NOT NULL,
  superseded      INTEGER NOT NULL,
  paid_calls      INTEGER NOT NULL,
  ambiguous_calls INTEGER NOT NULL,
  wasted_answers  INTEGER NOT NULL,
  prompt_tokens   INTEGER NOT NULL,
  output_tokens   INTEGER NOT NULL,
  thought_tokens  INTEGER NOT NULL,
  cached_tokens   INTEGER NOT NULL,
  cost                   INTEGER NOT NULL DEFAULT 0,
  unpriced_calls         INTEGER NOT NULL DEFAULT 0,
  reused_answers         INTEGER NOT NULL DEFAULT 0,
  duplicate_prompts      INTEGER NOT NULL DEFAULT 0,
  retry_calls            INTEGER NOT NULL DEFAULT 0,
  retry_prompt_tokens    INTEGER NOT NULL DEFAULT 0,
  retry_output_tokens    INTEGER NOT NULL DEFAULT 0,
  retry_thought_tokens   INTEGER NOT NULL DEFAULT 0,
  retry_cached_tokens    INTEGER NOT NULL DEFAULT 0,
  retry_cost             INTEGER NOT NULL DEFAULT 0,
  salvage_calls          INTEGER NOT NULL DEFAULT 0,
  salvage_prompt_tokens  INTEGER NOT NULL DEFAULT 0,
  salvage_output_tokens  INTEGER NOT NULL DEFAULT 0,
  salvage_thought_tokens INTEGER NOT NULL DEFAULT 0,
  salvage_cached_tokens  INTEGER NOT NULL DEFAULT 0,
  salvage_cost           INTEGER NOT NULL DEFAULT 0,
  waste_calls            INTEGER NOT NULL DEFAULT 0,
  waste_prompt_tokens    INTEGER NOT NULL DEFAULT 0,
  waste_output_tokens    INTEGER NOT NULL DEFAULT 0,
  waste_thought_tokens   INTEGER NOT NULL DEFAULT 0,
  waste_cached_tokens    INTEGER NOT NULL DEFAULT 0,
  waste_cost             INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (run, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS Failures (
  run      TEXT NOT NULL REFERENCES Runs (run),
  ordinal  INTEGER NOT NULL,
  key      ANY,              -- text or integer, as the pipeline's key_type says
  reason   TEXT NOT NULL,
  message  TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  PRIMARY KEY (run, ordinal)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS Outbox (
  event_id     TEXT PRIMARY KEY NOT NULL,
  run          TEXT NOT NULL REFERENCES Runs (run),
  published_at TEXT
) STRICT, WITHOUT ROWID;

PRAGMA user_version = 2;
