//! Objects on Cloud Storage.
//!
//! Two ways lead there. Bodies go through Google's client, which checks them by CRC32C and takes a broken transfer up again;
//! stat, list and delete, which it has over gRPC only, go through the JSON API (`json.rs`). A read asks both at once, because
//! the reply with the body does not say when the object was created.
//!
//! What Google's client (1.21) does, read in its source, and what follows from it:
//!
//! * A write with `ifGenerationMatch` counts as idempotent: after a lost reply, 408, 429 or 5xx it is sent again, with the same
//!   idempotency token and the same precondition. If the first try had its effect, the second hears 412 (or 403, see below).
//!   So `Precondition` says that the object is there, **not who wrote it**: the callers read back
//!   ([`tasuki_relay::write`]). No emulator proves what the service makes of the token.
//! * Its retries last 300 s by default with waits of up to 60 s, and one attempt may last for ever: no timeout of the client's
//!   reaches uploads and downloads. Hence limits of our own, and [`CALL_LIMIT`] around each call.
//! * In an outage its throttler makes a call wait without trying, until its time is over. With so few tries there is nothing to
//!   throttle, so a breaker that no error costs anything takes its place: what does not work is told at once.
//! * A broken download is resumed at its offset in the same generation, without limit by default; here three times.
//! * The checksum of a download is compared only if the reply has one, so a reply without one is refused here.
//! * With a known CRC32C it goes out in the metadata before the body: the service refuses a body that arrives as another.
//!
//! 403 for a create or a replace may mean 412: to overwrite takes the right to delete, which a leg does not have on what it
//! hands on, and the service may check that first. What is there decides: if the precondition holds, the right is missing
//! (`Denied`), else the object is another (`Precondition`).

mod failure;
mod json;
mod transfers;
mod upload;

pub use upload::LocalFile;

use crate::connect::Endpoint;
use async_trait::async_trait;
use bytes::Bytes;
use failure::{Failure, absent_is_none};
use json::JsonApi;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Generation, Meta, Object, Objects, ObjectsError};
use transfers::{OBJECT_BYTES_MAX, Transfers};

/// A request is sent so often at most: who called comes again.
const TRIES: u32 = 3;
/// A call with all its tries: well below the 30 s after which its caller gives up
/// ([`tasuki_relay::deadline::OBJECTS_DEADLINE`]) and above a slow upload of a shard.
pub const CALL_LIMIT: Duration = Duration::from_secs(20);
/// A read of the live version begins again when that was overwritten meanwhile. A claim is, every 30 s.
const READS: u32 = 3;
/// The custom metadata that carries the W3C trace context from leg to leg.
pub const TRACEPARENT: &str = "traceparent";

/// The buckets' real names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buckets {
    /// Of [`Bucket::Inbox`].
    pub inbox: String,
    /// Of [`Bucket::Shards`].
    pub shards: String,
    /// Of [`Bucket::Answers`].
    pub answers: String,
    /// Of [`Bucket::State`].
    pub state: String,
}

impl Buckets {
    /// A bucket's real name.
    pub fn name(&self, bucket: Bucket) -> &str {
        match bucket {
            Bucket::Inbox => &self.inbox,
            Bucket::Shards => &self.shards,
            Bucket::Answers => &self.answers,
            Bucket::State => &self.state,
        }
    }
}

/// Gives the `traceparent` of what goes on at the moment, if anything is traced.
pub type Traceparent = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Why there is no client. Names the part that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the storage client cannot be set up: {0}")]
pub struct SetUpError(&'static str);

/// Four buckets of Cloud Storage. One for a process: it holds the connections.
pub struct GoogleObjects {
    transfers: Transfers,
    api: JsonApi,
    buckets: Buckets,
    traceparent: Traceparent,
    call_limit: Duration,
}

impl fmt::Debug for GoogleObjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GoogleObjects").field("buckets", &self.buckets).finish_non_exhaustive()
    }
}

impl GoogleObjects {
    /// Opens nothing yet. Every object that is created carries what `traceparent` gives then. Needs
    /// [`crate::connect::install_tls`] before.
    pub async fn new(
        endpoint: &Endpoint,
        buckets: Buckets,
        traceparent: Traceparent,
    ) -> Result<GoogleObjects, SetUpError> {
        let (transfers, api) = (Transfers::new(endpoint).await?, JsonApi::new(endpoint)?);
        Ok(GoogleObjects { transfers, api, buckets, traceparent, call_limit: CALL_LIMIT })
    }

    /// With another limit than [`CALL_LIMIT`].
    pub fn call_limit(self, call_limit: Duration) -> GoogleObjects {
        GoogleObjects { call_limit, ..self }
    }

    /// Does `what` in `bucket` within the limit.
    async fn in_time<T>(
        &self,
        what: &'static str,
        bucket: Bucket,
        call: impl Future<Output = Result<T, Failure>> + Send,
    ) -> Result<T, ObjectsError> {
        let result = tokio::time::timeout(self.call_limit, call).await;
        let result = result.unwrap_or_else(|_| Err(Failure::unconfirmed("timed out")));
        result.map_err(|failure| failure.told(what, self.buckets.name(bucket)))
    }

    /// Writes a file as an object if the live generation is `expected`; `None`: if there is none. Without a limit of time: the file
    /// may be large, and a person waits.
    pub async fn upload(
        &self,
        bucket: Bucket,
        name: &str,
        file: &LocalFile,
        expected: Option<Generation>,
    ) -> Result<Meta, ObjectsError> {
        let real = self.buckets.name(bucket);
        let written = match self.transfers.upload_file(real, name, file, expected).await {
            Err(Failure::Forbidden) => Err(self.refused(bucket, name, expected).await),
            written => written,
        };
        written.map_err(|failure| failure.told("upload", real))
    }

    /// Writes if the live generation is `expected`; `None`: if there is none.
    async fn put(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Option<Generation>,
        metadata: impl IntoIterator<Item = (&str, String)>,
    ) -> Result<Meta, Failure> {
        match self.transfers.upload(self.buckets.name(bucket), name, body, expected, metadata).await {
            Err(Failure::Forbidden) => Err(self.refused(bucket, name, expected).await),
            result => result,
        }
    }

    /// What a write that was answered 403 comes to.
    async fn refused(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Failure {
        match self.api.stat(self.buckets.name(bucket), name, None).await {
            Ok(found) if found.as_ref().map(|found| found.generation) == expected => Failure::Forbidden,
            Ok(_) => Failure::Precondition,
            Err(failure) => failure,
        }
    }

    /// What is known of a version and its body, of the same version.
    async fn whole(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, Failure> {
        let bucket = self.buckets.name(bucket);
        for _ in 0..READS {
            let stat = self.api.stat(bucket, name, generation);
            let body = async { absent_is_none(self.transfers.download(bucket, name, generation).await) };
            match futures::try_join!(stat, body)? {
                (Some(meta), Some((of, body))) if meta.generation == of => {
                    if body.len() as u64 != meta.size {
                        return Err(Failure::unconfirmed("a body of another length"));
                    }
                    return Ok(Some(Object { meta, body }));
                }
                (None, None) => return Ok(None),
                (None, _) | (_, None) if generation.is_some() => return Ok(None),
                _ => {} // it was written or removed between the two
            }
        }
        Err(Failure::unconfirmed("overwritten again and again while it was read"))
    }

    /// Through Google's client as well: it stays in that version when it takes a broken transfer up again.
    async fn range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, Failure> {
        let bucket = self.buckets.name(bucket);
        if most == 0 || offset >= OBJECT_BYTES_MAX {
            // No range says this: only whether that version is there is asked.
            return Ok(self.api.stat(bucket, name, Some(generation)).await?.map(|_| Bytes::new()));
        }
        match self.transfers.download_range(bucket, name, generation, offset, most).await {
            Err(Failure::BeyondEnd) => Ok(Some(Bytes::new())),
            result => absent_is_none(result),
        }
    }
}

#[async_trait]
impl Objects for GoogleObjects {
    async fn create(&self, bucket: Bucket, name: &str, body: Bytes) -> Result<Meta, ObjectsError> {
        let trace = (self.traceparent)().map(|context| (TRACEPARENT, context));
        self.in_time("create", bucket, self.put(bucket, name, body, None, trace)).await
    }

    async fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Generation,
    ) -> Result<Meta, ObjectsError> {
        self.in_time("replace", bucket, self.put(bucket, name, body, Some(expected), None)).await
    }

    async fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError> {
        self.in_time("remove", bucket, self.api.remove(self.buckets.name(bucket), name, expected)).await
    }

    async fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError> {
        self.in_time("stat", bucket, self.api.stat(self.buckets.name(bucket), name, None)).await
    }

    async fn read(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, ObjectsError> {
        self.in_time("read", bucket, self.whole(bucket, name, generation)).await
    }

    async fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        self.in_time("read a range", bucket, self.range(bucket, name, generation, offset, most)).await
    }

    async fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError> {
        self.in_time("list", bucket, self.api.list(self.buckets.name(bucket), prefix, after, most)).await
    }
}
