//! A file's shards: cut in a stream. And the shards that say that there are none.

use crate::Splitter;
use crate::lines::Lines;
use crate::writer::{Start, Writer, header, write_shard};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::names::{self, Bucket, ShardId, ShardIndex};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Meta, ObjectsError, RecordsError, RowsError, Why};
use tasuki_relay::record::{self, Content, Failed, Header, Plan, ShardLine, Totals};
use tasuki_relay::sweep::PAGE;
use tasuki_relay::write::{Written, create_once};
use tokio::task::JoinSet;
use tracing::Instrument;

/// Shards that one split creates at once: bounds its memory.
pub const SHARDS_AT_ONCE: usize = 16;

impl Splitter {
    /// Writes every shard of the plan. All of them are confirmed when it returns `Ok`.
    pub(crate) async fn split(&self, plan: &Plan) -> Result<(), Why> {
        if let Some(why) = &plan.refused {
            return self.refuse(plan, ShardIndex(0), Some(Totals { shards: 1, rows: 0 }), why).await;
        }
        match self.split_rows(plan, Arc::new(pipeline_of(plan)?)).await {
            Ok(()) => Ok(()),
            Err(Ended::Later(why)) => Err(why),
            Err(Ended::Refused(why)) => self.refuse(plan, ShardIndex::REFUSAL, None, &why).await,
            Err(Ended::Gone) => self.source_gone(plan).await,
        }
    }

    async fn split_rows(&self, plan: &Plan, pipeline: Arc<Pipeline>) -> Result<(), Ended> {
        let started = self.clock.instant();
        let input = &plan.input;
        let meta =
            Meta { name: input.name.clone(), generation: input.generation, created: plan.run_time, size: input.size };
        let mut rows = self.rows.open(&meta).await?;
        let mut writer = Writer::new(self, plan, pipeline.clone(), Start::default())?;
        let mut lines = Lines::new(&pipeline, 0);
        loop {
            let batch = match rows.next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => {
                    let cut = writer.close().await?;
                    log(plan, &cut, started.elapsed());
                    return Ok(());
                }
                Err(error) => {
                    writer.settle().await; // shards on their way must land before anybody counts what is there
                    return Err(error.into());
                }
            };
            for row in batch {
                writer.push(lines.line(row)).await?;
            }
            if self.jobs.stop().is_cancelled() {
                return Err(Ended::Later(Why::Stopping));
            }
        }
    }

    /// The one empty shard that says that the run is refused.
    pub(crate) async fn refuse(
        &self,
        plan: &Plan,
        shard: ShardIndex,
        totals: Option<Totals>,
        why: &str,
    ) -> Result<(), Why> {
        let first = 0;
        let header = Header { totals, refused: Some(why.to_owned()), ..header(plan, shard, first, &[]) };
        write_shard(&*self.objects, header, &[]).await.map_err(|ended| ended.why())
    }

    /// The source is gone after shards were cut: the holes below the highest shard are filled with failures, and an empty
    /// shard behind it says what the run came to.
    async fn source_gone(&self, plan: &Plan) -> Result<(), Why> {
        let (mut there, mut after) = (BTreeSet::new(), None::<String>);
        loop {
            let page = self.objects.list(Bucket::Shards, &names::shards(&plan.run), after.as_deref(), PAGE).await?;
            after = page.last().map(|meta| meta.name.clone());
            there.extend(page.iter().filter_map(|meta| ShardId::parse_object(&meta.name).ok()).map(|id| id.shard.0));
            if page.len() < PAGE {
                break;
            }
        }
        if there.contains(&ShardIndex::REFUSAL.0) {
            return Ok(()); // refused already, before the file went
        }
        let size = u64::from(plan.rows_per_shard);
        let behind = there.last().map_or(0, |highest| highest + 1);
        for hole in (0..behind).filter(|shard| !there.contains(shard)) {
            let first = u64::from(hole) * size;
            let failed =
                Failed { reason: "source_gone".into(), message: "the file was gone before this row was read".into() };
            let line = |ordinal| ShardLine { ordinal, key: None, content: Content::Failed(failed.clone()) };
            let lines: Vec<ShardLine> = (first..first + size).map(line).collect();
            let encoded = record::encode_lines(&lines);
            write_shard(
                &*self.objects,
                Header { rows: size, ..header(plan, ShardIndex(hole), first, &encoded) },
                &encoded,
            )
            .await
            .map_err(|ended| ended.why())?;
        }
        if let Some(last) = behind.checked_sub(1) {
            let id = ShardId { run: plan.run.clone(), shard: ShardIndex(last) };
            let object = self.objects.read(Bucket::Shards, &id.object(), None).await?;
            let last = object
                .and_then(|object| record::decode::<Header, ShardLine>(&object.body).ok())
                .map(|(header, _)| header);
            if last.is_some_and(|last| last.totals.is_some()) {
                return Ok(()); // the source went after its last row had been read: nothing but the holes was missing
            }
        }
        let totals = Totals { shards: u64::from(behind) + 1, rows: u64::from(behind) * size };
        let why = "source_gone: the file was deleted or overwritten while it was read";
        self.refuse(plan, ShardIndex(behind), Some(totals), why).await
    }
}

/// The plan's pipeline, which was valid when it was planned.
pub(crate) fn pipeline_of(plan: &Plan) -> Result<Pipeline, Why> {
    Pipeline::parse(&plan.pipeline_text)
        .map_err(|_| Why::Systemic(format!("the pipeline of run {} is not valid here", plan.run)))
}

/// Why a split stopped.
pub(crate) enum Ended {
    Later(Why),
    Refused(String),
    Gone,
}

impl Ended {
    pub(crate) fn why(self) -> Why {
        match self {
            Ended::Later(why) => why,
            Ended::Refused(what) => Why::Systemic(what),
            Ended::Gone => Why::Unconfirmed("the source is gone".into()),
        }
    }
}

impl From<RowsError> for Ended {
    fn from(error: RowsError) -> Ended {
        match error {
            RowsError::Refused(why) => Ended::Refused(why),
            RowsError::Gone => Ended::Gone,
            RowsError::Systemic(what) => Ended::Later(Why::Systemic(what)),
            RowsError::Unknown(what) => Ended::Later(Why::Unconfirmed(what)),
        }
    }
}

impl From<RecordsError> for Ended {
    fn from(error: RecordsError) -> Ended {
        Ended::Later(Why::Unconfirmed(error.to_string()))
    }
}

impl From<ObjectsError> for Ended {
    fn from(error: ObjectsError) -> Ended {
        Ended::Later(error.into())
    }
}

/// Cuts lines into shards. The last full shard is held back until another row proves that it is not the file's last.
struct Writer<'a> {
    splitter: &'a Splitter,
    plan: &'a Plan,
    pipeline: Arc<Pipeline>,
    prompter: Option<Prompter>,
    lines: Vec<ShardLine>,
    first: u64,
    shard: u32,
    cut: Cut,
    writes: JoinSet<Result<(), Ended>>,
}

/// What a split came to.
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

impl<'a> Writer<'a> {
    fn new(splitter: &'a Splitter, plan: &'a Plan, pipeline: Arc<Pipeline>) -> Result<Writer<'a>, Ended> {
        let prompter = pipeline.run.only_changed.then(|| Prompter::new(pipeline.clone())).transpose();
        let prompter =
            prompter.map_err(|_| Ended::Later(Why::Systemic("the template does not compile here".into())))?;
        let (lines, cut, writes) = (Vec::new(), Cut::default(), JoinSet::new());
        Ok(Writer { splitter, plan, pipeline, prompter, lines, first: 0, shard: 0, cut, writes })
    }

    async fn push(&mut self, line: ShardLine) -> Result<(), Ended> {
        if self.lines.len() >= self.plan.rows_per_shard as usize {
            self.cut(None).await?;
        }
        self.lines.push(line);
        Ok(())
    }

    /// Writes the last shard, with the totals, and waits for all.
    async fn close(mut self) -> Result<Cut, Ended> {
        let totals = Totals { shards: u64::from(self.shard) + 1, rows: self.first + self.lines.len() as u64 };
        self.cut(Some(totals)).await?;
        while let Some(written) = self.writes.join_next().await {
            joined(written)?;
        }
        Ok(self.cut)
    }

    async fn cut(&mut self, totals: Option<Totals>) -> Result<(), Ended> {
        let mut lines = std::mem::take(&mut self.lines);
        let rows = lines.len() as u64;
        let mut encoded = record::encode_lines(&lines);
        let header = Header { rows, totals, ..header(self.plan, ShardIndex(self.shard), self.first, &encoded) };
        (self.first, self.shard) = (self.first + rows, self.shard + 1);
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
        let known = self.splitter.records.fingerprints(&self.pipeline, &keys).await?;
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

impl Cut {
    fn add(&mut self, lines: &[ShardLine], bytes: usize) {
        let count = |is: fn(&Content) -> bool| lines.iter().filter(|line| is(&line.content)).count() as u64;
        self.shards += 1;
        self.rows += lines.len() as u64;
        self.bad_rows += count(|content| matches!(content, Content::Failed(_)));
        self.unchanged += count(|content| matches!(content, Content::Unchanged(_)));
        self.bytes += bytes as u64;
    }
}

/// The splitter's line: one for each split. Its fields are in the telemetry's table (`tasuki_google::telemetry`).
fn log(plan: &Plan, cut: &Cut, took: Duration) {
    let Cut { shards, rows, bad_rows, unchanged, bytes } = *cut;
    tracing::info!(
        leg = "splitter", run = %plan.run, pipeline = plan.pipeline, shards, rows, bad_rows, unchanged, bytes,
        took_ms = took.as_millis() as u64, "split run {}", plan.run
    );
}

fn joined(written: Result<Result<(), Ended>, tokio::task::JoinError>) -> Result<(), Ended> {
    written.unwrap_or_else(|_| Err(Ended::Later(Why::Unconfirmed("writing a shard failed".into()))))
}

/// Creates a shard, or finds one of the same source rows there: the first written decides.
async fn write_shard(objects: &dyn Objects, header: Header, lines: &[u8]) -> Result<(), Ended> {
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
impl From<Why> for Ended {
    fn from(why: Why) -> Ended {
        Ended::Later(why)
    }
}
