//! Every object's name: built here, parsed here, nowhere else (architecture.md, invariant 1).
//!
//! ```text
//! inbox    <pipeline>/<file>
//! shards   <run>/<shard:08>.ndjson
//! answers  <run>/<shard:08>.ndjson
//! state    pipelines/<name>.toml   plans/<run>.json   plans/<run>.snapshot.json   open/<run>
//!          splits/<run>   splits/<run>/<part:04>
//!          claims/<run>/<shard:08>   ckpt/<run>/<shard:08>/<epoch:06>-<seq:06>.ndjson
//!          claims/<run>/budget       (only with [run] max_cost_usd)
//!          control/<run>/cancel     control/<run>/parked     control/<run>/max-cost
//!          cache/<fingerprint:2>/<fingerprint:30>
//! ```

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fmt::{self, Display};
use std::str::FromStr;

/// Where an object lives: one bucket per hop, so that no leg writes where it listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Dropped files. Its events start the splitter.
    Inbox,
    /// Shards. Its events start the generator.
    Shards,
    /// Answers. Its events start the loader.
    Answers,
    /// Plans, claims, checkpoints, control. Nobody listens.
    State,
}

impl Bucket {
    /// All four.
    pub const ALL: [Bucket; 4] = [Bucket::Inbox, Bucket::Shards, Bucket::Answers, Bucket::State];

    /// The bucket's short name, which is also its folder in the embedded relay.
    pub fn as_str(self) -> &'static str {
        match self {
            Bucket::Inbox => "inbox",
            Bucket::Shards => "shards",
            Bucket::Answers => "answers",
            Bucket::State => "state",
        }
    }
}

/// A name that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the name of {1}")]
pub struct NotAName(String, &'static str);

/// One run: `r` and 26 characters of base32, drawn from the input's bucket, name and generation. Never user text.
///
/// A duplicate event is the same run; an overwritten file is a new one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

const RUN_DIGITS: usize = 26;

impl RunId {
    /// The run that this version of an inbox object starts. `bucket` is the bucket's real name, so that two deployments differ.
    pub fn of(bucket: &str, name: &str, generation: i64) -> RunId {
        let digest = Sha256::digest(format!("{bucket}\0{name}\0{generation}"));
        let digits = data_encoding::BASE32_NOPAD.encode(&digest).to_ascii_lowercase();
        RunId(format!("r{}", &digits[..RUN_DIGITS]))
    }

    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = NotAName;
    fn from_str(text: &str) -> Result<RunId, NotAName> {
        let digits = text.strip_prefix('r').filter(|digits| digits.len() == RUN_DIGITS);
        match digits {
            Some(digits) if digits.bytes().all(|b| matches!(b, b'a'..=b'z' | b'2'..=b'7')) => {
                Ok(RunId(text.to_owned()))
            }
            _ => Err(NotAName(text.to_owned(), "a run")),
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = NotAName;
    fn try_from(text: String) -> Result<RunId, NotAName> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(run: RunId) -> String {
        run.0
    }
}

impl Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The number of a shard within its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardIndex(pub u32);

impl ShardIndex {
    /// The shard that says "this run is refused" beside shards that exist already.
    pub const REFUSAL: ShardIndex = ShardIndex(99_999_999);
}

impl Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08}", self.0)
    }
}

/// One shard of one run. Its shard object and its answers object have the same name in their buckets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ShardId {
    /// The run.
    pub run: RunId,
    /// The shard within it.
    pub shard: ShardIndex,
}

impl Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.run, self.shard)
    }
}

impl ShardId {
    /// `<run>/<shard:08>.ndjson`, in the shards bucket and in the answers bucket.
    pub fn object(&self) -> String {
        format!("{self}.ndjson")
    }

    /// The inverse of [`ShardId::object`].
    pub fn parse_object(name: &str) -> Result<ShardId, NotAName> {
        let not = || NotAName(name.to_owned(), "a shard");
        let (run, shard) = name.strip_suffix(".ndjson").and_then(|stem| stem.split_once('/')).ok_or_else(not)?;
        Ok(ShardId { run: run.parse().map_err(|_| not())?, shard: ShardIndex(padded(shard, 8).ok_or_else(not)?) })
    }

    /// `claims/<run>/<shard:08>`.
    pub fn claim(&self) -> String {
        format!("claims/{self}")
    }

    /// `ckpt/<run>/<shard:08>/`: the prefix of the shard's checkpoint segments.
    pub fn checkpoints(&self) -> String {
        format!("ckpt/{self}/")
    }
}

/// The name just before that of `shard` and after all lower ones: where a listing from this shard on starts.
pub fn before(run: &RunId, shard: u32) -> String {
    // ':' is the byte after '9', so this is above every name of shard - 1 and below that of shard.
    shard.checked_sub(1).map_or_else(|| format!("{run}/"), |last| format!("{run}/{:08}:", last))
}

/// A checkpoint segment: lowest (epoch, sequence) wins where two hold the same row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// The shard.
    pub shard: ShardId,
    /// How often the shard was claimed before and with the writer.
    pub epoch: u32,
    /// The writer's count.
    pub seq: u32,
}

impl Segment {
    /// `ckpt/<run>/<shard:08>/<epoch:06>-<seq:06>.ndjson`.
    pub fn object(&self) -> String {
        format!("{}{:06}-{:06}.ndjson", self.shard.checkpoints(), self.epoch, self.seq)
    }

    /// The inverse of [`Segment::object`].
    pub fn parse_object(name: &str) -> Result<Segment, NotAName> {
        let not = || NotAName(name.to_owned(), "a checkpoint");
        let mut parts =
            name.strip_prefix("ckpt/").and_then(|rest| rest.strip_suffix(".ndjson")).ok_or_else(not)?.split('/');
        let (Some(run), Some(shard), Some(segment), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(not());
        };
        let (epoch, seq) = segment.split_once('-').ok_or_else(not)?;
        Ok(Segment {
            shard: ShardId {
                run: run.parse().map_err(|_| not())?,
                shard: ShardIndex(padded(shard, 8).ok_or_else(not)?),
            },
            epoch: padded(epoch, 6).ok_or_else(not)?,
            seq: padded(seq, 6).ok_or_else(not)?,
        })
    }
}

/// A number written with exactly `digits` digits.
fn padded(text: &str, digits: usize) -> Option<u32> {
    (text.len() == digits && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// A dropped file: `<pipeline>/<file>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Dropped {
    /// The pipeline's name.
    pub pipeline: String,
    /// The file's name, without a slash.
    pub file: String,
}

impl Dropped {
    /// `<pipeline>/<file>`.
    pub fn object(&self) -> String {
        format!("{}/{}", self.pipeline, self.file)
    }

    /// The inverse of [`Dropped::object`]. A name in a deeper folder, a hidden one and a folder's placeholder are none of ours.
    pub fn parse_object(name: &str) -> Result<Dropped, NotAName> {
        match name.split_once('/') {
            Some((pipeline, file)) if is_pipeline_name(pipeline) && is_file_name(file) => {
                Ok(Dropped { pipeline: pipeline.to_owned(), file: file.to_owned() })
            }
            _ => Err(NotAName(name.to_owned(), "a dropped file (<pipeline>/<file>)")),
        }
    }
}

fn is_file_name(file: &str) -> bool {
    !file.is_empty() && !file.starts_with('.') && !file.contains(['/', '\\', '\0'])
}

/// `[a-z][a-z0-9-]{0,30}`: a pipeline's name is a folder, a prefix and a label.
pub fn is_pipeline_name(name: &str) -> bool {
    name.len() <= 31
        && name.starts_with(|first: char| first.is_ascii_lowercase())
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// `pipelines/<name>.toml`: written by the operator, read once, by the splitter.
pub fn pipeline(name: &str) -> String {
    format!("{PIPELINES}{name}.toml")
}

/// `cache/<2 digits>/<30 digits>`: the answer to the question with this fingerprint. Two levels, because folders of a disk grow slow.
pub fn cached(fingerprint: &str) -> String {
    let (first, rest) = fingerprint.split_at_checked(2).unwrap_or(("", fingerprint));
    format!("{CACHE}{first}/{rest}")
}

/// `plans/<run>.json`: what the run is.
pub fn plan(run: &RunId) -> String {
    format!("plans/{run}.json")
}

/// The inverse of [`plan`].
pub fn parse_plan(name: &str) -> Result<RunId, NotAName> {
    let run = name.strip_prefix("plans/").and_then(|rest| rest.strip_suffix(".json"));
    run.and_then(|run| run.parse().ok()).ok_or_else(|| NotAName(name.to_owned(), "a plan"))
}

/// `plans/<run>.snapshot.json`: where the rows of a run lie that reads BigQuery.
pub fn snapshot(run: &RunId) -> String {
    format!("plans/{run}.snapshot.json")
}

/// The inverse of [`snapshot`].
pub fn parse_snapshot(name: &str) -> Result<RunId, NotAName> {
    let run = name.strip_prefix("plans/").and_then(|rest| rest.strip_suffix(".snapshot.json"));
    run.and_then(|run| run.parse().ok()).ok_or_else(|| NotAName(name.to_owned(), "a snapshot"))
}

/// `run-<run>-snap-<attempt>`: the id of the job that takes the snapshot. Attempts count from 1.
pub fn snapshot_job(run: &RunId, attempt: u32) -> String {
    format!("run-{run}-snap-{attempt}")
}

/// The prefix of [`pipeline`].
pub const PIPELINES: &str = "pipelines/";

/// The prefix of [`cached`].
pub const CACHE: &str = "cache/";

/// The prefix of [`plan`].
pub const PLANS: &str = "plans/";

/// The prefix of [`open`].
pub const OPEN: &str = "open/";

/// `open/<run>`: there while the run is open.
pub fn open(run: &RunId) -> String {
    format!("{OPEN}{run}")
}

/// The inverse of [`open`].
pub fn parse_open(name: &str) -> Result<RunId, NotAName> {
    name.strip_prefix(OPEN).and_then(|run| run.parse().ok()).ok_or_else(|| NotAName(name.to_owned(), "an open run"))
}

/// `splits/<run>`: the splitter's claim.
pub fn split(run: &RunId) -> String {
    format!("splits/{run}")
}

/// `splits/<run>/<part:04>`: the splitter's claim of one part of a snapshot.
pub fn split_part(run: &RunId, part: u32) -> String {
    format!("splits/{run}/{part:04}")
}

/// The inverse of [`split_part`].
pub fn parse_split_part(name: &str) -> Result<(RunId, u32), NotAName> {
    let split = name.strip_prefix("splits/").and_then(|rest| rest.split_once('/'));
    let split = split.and_then(|(run, part)| Some((run.parse().ok()?, padded(part, 4)?)));
    split.ok_or_else(|| NotAName(name.to_owned(), "a part of a split"))
}

/// `control/<run>/cancel`.
pub fn cancel(run: &RunId) -> String {
    format!("control/{run}/cancel")
}

/// `control/<run>/parked`.
pub fn parked(run: &RunId) -> String {
    format!("control/{run}/parked")
}

/// `control/<run>/max-cost`: dollars that the run may cost, in place of what its pipeline says.
pub fn max_cost(run: &RunId) -> String {
    format!("control/{run}/max-cost")
}

/// `claims/<run>/budget`: the run's money. After all claims of shards, in the order of names.
pub fn budget(run: &RunId) -> String {
    format!("claims/{run}/budget")
}

/// `ckpt/<run>/`: the prefix of a run's checkpoints.
pub fn checkpoints(run: &RunId) -> String {
    format!("ckpt/{run}/")
}

/// Where a listing of claims starts that goes along with a listing of shards after `shard`.
pub fn claims_after(shard: &str) -> String {
    format!("claims/{}", shard.strip_suffix(".ndjson").unwrap_or(shard))
}

/// `claims/<run>/`: the prefix of a run's claims.
pub fn claims(run: &RunId) -> String {
    format!("claims/{run}/")
}

/// `<run>/`: the prefix of a run's shards, and of its answers.
pub fn shards(run: &RunId) -> String {
    format!("{run}/")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run() -> impl Strategy<Value = RunId> {
        ("[a-z]{1,8}", "[a-z/.]{1,20}", any::<i64>())
            .prop_map(|(bucket, name, generation)| RunId::of(&bucket, &name, generation))
    }

    fn shard() -> impl Strategy<Value = ShardId> {
        (run(), 0..=99_999_999u32).prop_map(|(run, shard)| ShardId { run, shard: ShardIndex(shard) })
    }

    proptest! {
        #[test]
        fn every_name_is_read_back_as_what_it_names(
            id in shard(), epoch in 0..1_000_000u32, seq in 0..1_000_000u32, part in 0..10_000u32
        ) {
            prop_assert_eq!(&ShardId::parse_object(&id.object()).unwrap(), &id);
            prop_assert_eq!(&parse_plan(&plan(&id.run)).unwrap(), &id.run);
            prop_assert_eq!(&parse_open(&open(&id.run)).unwrap(), &id.run);
            prop_assert_eq!(&parse_snapshot(&snapshot(&id.run)).unwrap(), &id.run);
            prop_assert!(parse_plan(&snapshot(&id.run)).is_err(), "a snapshot is no plan");
            prop_assert_eq!(parse_split_part(&split_part(&id.run, part)).unwrap(), (id.run.clone(), part));
            let segment = Segment { shard: id, epoch, seq };
            prop_assert_eq!(Segment::parse_object(&segment.object()).unwrap(), segment);
        }

        #[test]
        fn two_inputs_never_share_a_name(a in ("[a-z]{1,4}", "[a-z/]{1,6}", 0..50i64), b in ("[a-z]{1,4}", "[a-z/]{1,6}", 0..50i64)) {
            prop_assert_eq!(a == b, RunId::of(&a.0, &a.1, a.2) == RunId::of(&b.0, &b.1, b.2));
        }

        #[test]
        fn names_sort_as_what_they_name(a in shard(), b in shard()) {
            prop_assert_eq!(a.object().cmp(&b.object()), a.cmp(&b));
        }

        #[test]
        fn a_parsed_name_is_the_only_way_to_write_it(name in "[r]?[a-z2-7]{26}/[0-9]{7,9}\\.ndjson") {
            if let Ok(id) = ShardId::parse_object(&name) {
                prop_assert_eq!(id.object(), name);
            }
        }
    }

    #[test]
    fn a_file_in_a_deeper_folder_or_a_hidden_one_is_not_a_dropped_file() {
        for name in
            ["rows.jsonl", "themes/", "themes/a/b.jsonl", "themes/.rows.jsonl.swp", "Themes/rows.jsonl", "../x.jsonl"]
        {
            assert!(Dropped::parse_object(name).is_err(), "{name}");
        }
        assert_eq!(Dropped::parse_object("themes/製品.csv.gz").unwrap().file, "製品.csv.gz");
    }
}
