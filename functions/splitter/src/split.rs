//! A file's shards: cut in a stream. And the shards that say that there are none.

use crate::Splitter;
use crate::lines::Lines;
use crate::writer::{Start, Writer, header, write_shard};
use std::collections::BTreeSet;
use std::sync::Arc;
use tasuki_relay::names::{self, Bucket, ShardId, ShardIndex};
use tasuki_relay::pipeline::Pipeline;
use tasuki_relay::ports::{Meta, ObjectsError, RecordsError, RowsError, Why};
use tasuki_relay::record::{self, Content, Failed, Header, Plan, ShardLine, Totals};
use tasuki_relay::sweep::PAGE;

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
        let input = &plan.input;
        let meta =
            Meta { name: input.name.clone(), generation: input.generation, created: plan.run_time, size: input.size };
        let mut rows = self.rows.open(&meta).await?;
        let mut writer = Writer::new(self, plan, pipeline.clone(), Start::default())?;
        let mut lines = Lines::new(&pipeline, 0);
        loop {
            let batch = match rows.next().await {
                Ok(Some(batch)) => batch,
                Ok(None) => return writer.close().await,
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
            error @ (RowsError::Unknown(_) | RowsError::TooLarge) => Ended::Later(Why::Unconfirmed(error.to_string())),
        }
    }
}

impl From<RecordsError> for Ended {
    fn from(error: RecordsError) -> Ended {
        Ended::Later(match error {
            RecordsError::Systemic(what) => Why::Systemic(what),
            other => Why::Unconfirmed(other.to_string()),
        })
    }
}

impl From<ObjectsError> for Ended {
    fn from(error: ObjectsError) -> Ended {
        Ended::Later(error.into())
    }
}

impl From<Why> for Ended {
    fn from(why: Why) -> Ended {
        Ended::Later(why)
    }
}
