//! A port call that hangs is a port call that was not confirmed.

use crate::names::{Bucket, RunId, ShardIndex};
use crate::pipeline::Pipeline;
use crate::ports::{
    Announcement, Checked, Fingerprints, Generation, Loaded, Meta, Object, Objects, ObjectsError, Order, Part, PartRow,
    Records, RecordsError, RowsError, RunRow, Snapshots, Taking,
};
use crate::record::{Header, Key, Snapshot};
use crate::source::Source;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// An object call may take so long: well below the lease, far above a slow upload of a shard.
pub const OBJECTS_DEADLINE: Duration = Duration::from_secs(30);
/// A transaction may take so long (protocol.md 5).
pub const RECORDS_DEADLINE: Duration = Duration::from_secs(60);
/// A call about a snapshot may take so long: a dry run of a large query, or the rows of each part counted.
pub const SNAPSHOTS_DEADLINE: Duration = Duration::from_secs(120);
/// Reading [`crate::limits::PART_ROWS_AT_ONCE`] rows may take so long: 10 MB/s for rows of 60 KB.
pub const PART_DEADLINE: Duration = Duration::from_secs(300);

/// A port whose every call ends within a limit.
pub struct Deadline<P: ?Sized>(pub Arc<P>);

async fn objects<T>(call: impl Future<Output = Result<T, ObjectsError>>) -> Result<T, ObjectsError> {
    timeout(OBJECTS_DEADLINE, call).await.unwrap_or_else(|_| Err(ObjectsError::Unknown("timed out".into())))
}

async fn records<T>(call: impl Future<Output = Result<T, RecordsError>>) -> Result<T, RecordsError> {
    timeout(RECORDS_DEADLINE, call).await.unwrap_or_else(|_| Err(RecordsError::Unknown("timed out".into())))
}

async fn snapshots<T>(limit: Duration, call: impl Future<Output = Result<T, RowsError>>) -> Result<T, RowsError> {
    timeout(limit, call).await.unwrap_or_else(|_| Err(RowsError::Unknown("timed out".into())))
}

#[async_trait]
impl Snapshots for Deadline<dyn Snapshots> {
    async fn check(&self, source: &Source) -> Result<Checked, RowsError> {
        snapshots(SNAPSHOTS_DEADLINE, self.0.check(source)).await
    }
    async fn take(&self, order: &Order) -> Result<Taking, RowsError> {
        snapshots(SNAPSHOTS_DEADLINE, self.0.take(order)).await
    }
    async fn read(&self, snapshot: &Snapshot, part: u32, rows: Range<u64>) -> Result<Vec<PartRow>, RowsError> {
        snapshots(PART_DEADLINE, self.0.read(snapshot, part, rows)).await
    }
}

#[async_trait]
impl Objects for Deadline<dyn Objects> {
    async fn create(&self, bucket: Bucket, name: &str, body: Bytes) -> Result<Meta, ObjectsError> {
        objects(self.0.create(bucket, name, body)).await
    }
    async fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Generation,
    ) -> Result<Meta, ObjectsError> {
        objects(self.0.replace(bucket, name, body, expected)).await
    }
    async fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError> {
        objects(self.0.remove(bucket, name, expected)).await
    }
    async fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError> {
        objects(self.0.stat(bucket, name)).await
    }
    async fn read(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, ObjectsError> {
        objects(self.0.read(bucket, name, generation)).await
    }
    async fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        objects(self.0.read_range(bucket, name, generation, offset, most)).await
    }
    async fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError> {
        objects(self.0.list(bucket, prefix, after, most)).await
    }
}

#[async_trait]
impl<P: Fingerprints + ?Sized> Fingerprints for Deadline<P> {
    async fn fingerprints(&self, pipeline: &Pipeline, keys: &[Key]) -> Result<BTreeMap<Key, String>, RecordsError> {
        records(self.0.fingerprints(pipeline, keys)).await
    }
}

#[async_trait]
impl Records for Deadline<dyn Records> {
    async fn load(&self, part: &Part) -> Result<Loaded, RecordsError> {
        records(self.0.load(part)).await
    }
    async fn finish(&self, run: &RunId) -> Result<Option<RunRow>, RecordsError> {
        records(self.0.finish(run)).await
    }
    async fn ledgered(&self, run: &RunId, shards: &[ShardIndex]) -> Result<BTreeSet<ShardIndex>, RecordsError> {
        records(self.0.ledgered(run, shards)).await
    }
    async fn park(&self, header: &Header, marker: Generation) -> Result<(), RecordsError> {
        records(self.0.park(header, marker)).await
    }
    async fn resume(&self, run: &RunId) -> Result<(), RecordsError> {
        records(self.0.resume(run)).await
    }
    async fn unpublished(&self, run: Option<&RunId>) -> Result<Vec<Announcement>, RecordsError> {
        records(self.0.unpublished(run)).await
    }
    async fn mark_published(&self, event_id: &str) -> Result<(), RecordsError> {
        records(self.0.mark_published(event_id)).await
    }
}
