//! Lines cut into shards, which are created once, with bounded parallelism.

use crate::Splitter;
use crate::split::Ended;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::names::{Bucket, ShardIndex};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Objects, Why};
use tasuki_relay::prompt::Prompter;
use tasuki_relay::record::{self, Content, Header, Key, Plan, ShardLine, Totals};
use tasuki_relay::write::{Written, create_once};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Instrument;

/// Shards that one split creates at once: bounds its memory.
pub const SHARDS_AT_ONCE: usize = 16;

/// A header for lines as they come from the source: their digest is that of the source rows.
pub(crate) fn header(plan: &Plan, shard: ShardIndex, first: u64, source: &[u8]) -> Header {
    Header {
        run: plan.run.clone(),
        shard,
        pipeline: plan.pipeline.clone(),
        input: plan.input.name.clone(),
        first,
        rows: 0,
        digest: data_encoding::HEXLOWER.encode(&Sha256::digest(source)),
        source_time: plan.source_time,
        run_time: plan.run_time,
        totals: None,
        refused: None,
        wasted_answers: 0,
        wasted: Default::default(),
    }
}

/// Where a writer starts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Start {
    /// Its first ordinal.
    pub first: u64,
    /// Its first shard.
    pub shard: u32,
    /// The shards below this one are there.
    pub absent: u32,
    /// What the first shard says of the whole run; a file tells it with its last, when it is known.
    pub totals: Option<Totals>,
}

/// Cuts lines into shards. The last full shard is held back until another row proves that it is not the file's last.
pub(crate) struct Writer<'a> {
    splitter: &'a Splitter,
    plan: &'a Plan,
    pipeline: Arc<Pipeline>,
    prompter: Option<Prompter>,
    lines: Vec<ShardLine>,
    at: Start,
    cut: Cut,
    started: Instant,
    writes: JoinSet<Result<(), Ended>>,
}

impl<'a> Writer<'a> {
    pub fn new(
        splitter: &'a Splitter,
        plan: &'a Plan,
        pipeline: Arc<Pipeline>,
        start: Start,
    ) -> Result<Writer<'a>, Ended> {
        let prompter = pipeline.run.only_changed.then(|| Prompter::new(pipeline.clone())).transpose();
        let prompter =
            prompter.map_err(|_| Ended::Later(Why::Systemic("the template does not compile here".into())))?;
        let (lines, cut, writes, started) = (Vec::new(), Cut::default(), JoinSet::new(), splitter.clock.instant());
        Ok(Writer { splitter, plan, pipeline, prompter, lines, at: start, cut, started, writes })
    }

    pub async fn push(&mut self, line: ShardLine) -> Result<(), Ended> {
        if self.lines.len() >= self.plan.rows_per_shard as usize {
            self.cut(None).await?;
        }
        self.lines.push(line);
        Ok(())
    }

    /// Writes a file's last shard, with the totals, and waits for all.
    pub async fn close(mut self) -> Result<(), Ended> {
        let totals = Totals { shards: u64::from(self.at.shard) + 1, rows: self.at.first + self.lines.len() as u64 };
        self.cut(Some(totals)).await?;
        self.confirm().await
    }

    /// Writes the last shard of a part, and waits for all.
    pub async fn close_part(mut self) -> Result<(), Ended> {
        self.cut(None).await?;
        self.confirm().await
    }

    async fn confirm(&mut self) -> Result<(), Ended> {
        while let Some(written) = self.writes.join_next().await {
            joined(written)?;
        }
        self.cut.log(self.plan, self.started.elapsed());
        Ok(())
    }

    /// Waits for what is on its way, however it goes.
    pub async fn settle(&mut self) {
        while self.writes.join_next().await.is_some() {}
    }

    async fn cut(&mut self, totals: Option<Totals>) -> Result<(), Ended> {
        let mut lines = std::mem::take(&mut self.lines);
        let (at, rows) = (self.at, lines.len() as u64);
        self.at = Start { first: at.first + rows, shard: at.shard + 1, totals: None, ..at };
        if at.shard < at.absent {
            return Ok(());
        }
        let mut encoded = record::encode_lines(&lines);
        let totals = totals.or(at.totals);
        let header = Header { rows, totals, ..header(self.plan, ShardIndex(at.shard), at.first, &encoded) };
        if self.mark_unchanged(&mut lines).await? {
            encoded = record::encode_lines(&lines);
        }
        self.cut.add(&lines, encoded.len());
        if self.writes.len() >= SHARDS_AT_ONCE
            && let Some(written) = self.writes.join_next().await
        {
            joined(written)?;
        }
        let objects = self.splitter.objects.clone();
        let write = async move { write_shard(&*objects, header, &encoded).await };
        self.writes.spawn(write.in_current_span());
        Ok(())
    }

    /// With `only_changed`: rows whose answer in the target has the same fingerprint are not asked again.
    async fn mark_unchanged(&self, lines: &mut [ShardLine]) -> Result<bool, Ended> {
        let Some(prompter) = &self.prompter else { return Ok(false) };
        let asked = |line: &ShardLine| matches!(line.content, Content::Row(_));
        let keys: Vec<Key> = lines.iter().filter(|line| asked(line)).filter_map(|line| line.key.clone()).collect();
        let known = self.splitter.stored.fingerprints(&self.pipeline, &keys).await?;
        let mut any = false;
        for line in lines {
            let (Content::Row(row), Some(key)) = (&line.content, &line.key) else { continue };
            let Ok(ask) = prompter.ask(row.clone()) else { continue };
            let fingerprint = prompter.fingerprint(&ask.prompt);
            if known.get(key) == Some(&fingerprint) {
                line.content = Content::Unchanged(fingerprint);
                any = true;
            }
        }
        Ok(any)
    }
}

/// What a split, or its part of a snapshot, came to.
#[derive(Default)]
struct Cut {
    shards: u64,
    rows: u64,
    /// Rows that failed here: a bad line, a missing or doubled key.
    bad_rows: u64,
    unchanged: u64,
    /// Of the shards' lines.
    bytes: u64,
}

impl Cut {
    fn add(&mut self, lines: &[ShardLine], bytes: usize) {
        let count = |is: fn(&Content) -> bool| lines.iter().filter(|line| is(&line.content)).count() as u64;
        self.shards += 1;
        self.rows += lines.len() as u64;
        self.bad_rows += count(|content| matches!(content, Content::Failed(_)));
        self.unchanged += count(|content| matches!(content, Content::Unchanged(_)));
        self.bytes += bytes as u64;
    }

    /// The splitter's line: one for each file, and for each part of a snapshot. Its fields are in the telemetry's table
    /// (`tasuki_google::telemetry`).
    fn log(&self, plan: &Plan, took: Duration) {
        let Cut { shards, rows, bad_rows, unchanged, bytes } = *self;
        tracing::info!(
            leg = "splitter", run = %plan.run, pipeline = plan.pipeline, shards, rows, bad_rows, unchanged, bytes,
            took_ms = took.as_millis() as u64, "split run {}", plan.run
        );
    }
}

fn joined(written: Result<Result<(), Ended>, tokio::task::JoinError>) -> Result<(), Ended> {
    written.unwrap_or_else(|_| Err(Ended::Later(Why::Unconfirmed("writing a shard failed".into()))))
}

/// Creates a shard, or finds one of the same source rows there: the first written decides.
pub(crate) async fn write_shard(objects: &dyn Objects, header: Header, lines: &[u8]) -> Result<(), Ended> {
    let mut body = record::encode_lines(std::slice::from_ref(&header));
    body.extend_from_slice(lines);
    let id = header.id();
    let written = create_once(objects, Bucket::Shards, &id.object(), Bytes::from(body)).await;
    match written.map_err(|error| Ended::Later(error.into()))? {
        Written::Won(_) | Written::Identical(_) => Ok(()),
        Written::Foreign(found) => match record::decode::<Header, serde_json::Value>(&found.body) {
            Ok((there, _)) if there.digest == header.digest && there.rows == header.rows => Ok(()),
            _ => Err(Ended::Refused(format!(
                "split_nondeterministic: shard {id} holds other rows than the file gives now"
            ))),
        },
    }
}
