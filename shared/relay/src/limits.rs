//! Every limit that more than one module knows, with its reason. A limit is asserted at the edge where data enters.

/// Longest line of a JSONL file, and longest CSV record, in bytes: bounds the memory of a row (protocol.md 9).
pub const LINE_BYTES_MAX: usize = 1 << 20;
/// Deepest nesting of a row's JSON: bounds the stack.
pub const JSON_DEPTH_MAX: usize = 64;
/// Most columns in a row.
pub const COLUMNS_MAX: usize = 1_000;
/// Longest key in bytes. Spanner allows 8 KiB for a whole key; 1,024 leaves room in every index and log label.
pub const KEY_BYTES_MAX: usize = 1_024;
/// Largest pipeline file in bytes.
pub const PIPELINE_BYTES_MAX: usize = 1 << 20;
/// Longest answer text that is read from a model, in bytes.
pub const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Largest expansion of a gzip file, as decompressed / compressed bytes: a bomb expands 1,000-fold, text rarely 20-fold.
pub const GZIP_RATIO_MAX: u64 = 200;
/// Decompressed bytes below which [`GZIP_RATIO_MAX`] is not asked: tiny files of repeated text expand more.
pub const GZIP_RATIO_FROM_BYTES: u64 = 16 << 20;
/// Most bytes that a file may decompress to: 20 million rows of 10 KB.
pub const FILE_BYTES_MAX: u64 = 200 << 30;
/// Most rows of one file, or of a part that cannot be cut again: their key hashes (16 bytes each, about 1 GB with the set's
/// overhead) must fit in memory.
pub const FILE_ROWS_MAX: u64 = 20_000_000;
/// Rows whose columns are looked at before a run starts (a column absent from all of them refuses the run).
pub const ROWS_SCOUTED: u64 = 1_000;
/// Fewest and most rows of a shard.
pub const ROWS_PER_SHARD: std::ops::RangeInclusive<u32> = 1..=1_000;
/// Most mutations in one Spanner commit, counted per column and index entry (Spanner quotas page, "Mutations per commit").
pub const MUTATIONS_MAX: usize = 80_000;
/// Most bytes in one Spanner commit (Spanner quotas page, "Commit size").
pub const COMMIT_BYTES_MAX: usize = 100 << 20;
/// Most parts of a snapshot: a job may change 4,000 partitions of a table (BigQuery quotas page, "Partitioned tables").
pub const PARTS_MAX: u32 = 4_000;
/// Bytes and rows of a snapshot that one part is for, about 300 bytes a row: 100 million rows come to 3,600 parts.
pub const PART_BYTES_AIMED: u64 = 8 << 20;
/// See [`PART_BYTES_AIMED`].
pub const PART_ROWS_AIMED: u64 = 28_000;
/// Most bytes of a part, on average: a snapshot of larger ones is cut again. One process reads a part from its start to its
/// end, at some 10 MB/s in half a minute.
pub const PART_BYTES_MAX: u64 = 256 << 20;
/// Most rows of a part, on average: the hashes of its keys are in memory (about 50 MB with the set's overhead), and a process
/// may be at work on 16 parts.
pub const PART_ROWS_MAX: u64 = 1_000_000;
/// Most rows of a part that are in memory at once: a part with more (one key may occur any number of times) is read in pieces.
pub const PART_ROWS_AT_ONCE: u64 = 50_000;
/// Most bytes of a part that are in memory at once, as the Storage Read API sends them: what is larger is read in smaller pieces.
pub const PART_BYTES_AT_ONCE: u64 = 32 << 20;
/// Most shards of a run: a name has eight digits, and the last two numbers are not shards of rows.
pub const SHARDS_MAX: u64 = 99_999_998;
/// Jobs that may be started for one snapshot: each only after the one before it failed for a reason that passes, or to cut into
/// more parts what it took. The last one is not cut again.
pub const SNAPSHOT_ATTEMPTS_MAX: u32 = 5;
