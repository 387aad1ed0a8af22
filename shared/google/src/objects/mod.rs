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

use crate::connect::Endpoint;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use failure::{Failure, absent_is_none};
use google_cloud_gax::exponential_backoff::ExponentialBackoffBuilder;
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_gax::retry_throttler::CircuitBreaker;
use google_cloud_storage::client::Storage;
use google_cloud_storage::model_ext::{ObjectHighlights, ReadRange};
use google_cloud_storage::read_object::ReadObjectResponse;
use google_cloud_storage::read_resume_policy::{ReadResumePolicyExt, Recommended};
use google_cloud_storage::retry_policy::RetryableErrors;
use json::JsonApi;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tasuki_relay::clock::Millis;
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Generation, Meta, Object, Objects, ObjectsError};

/// A request is sent so often at most: who called comes again.
const TRIES: u32 = 3;
/// No try begins later than this after the first.
const RETRY_FOR: Duration = Duration::from_secs(8);
/// Waits between tries, with full jitter. Cloud Storage takes about one change a second of one name.
const WAIT_FIRST: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// A download that broke off is resumed so often.
const RESUMES: u32 = 3;
/// A call with all its tries: well below the 30 s after which its caller gives up
/// ([`tasuki_relay::deadline::OBJECTS_DEADLINE`]) and above a slow upload of a shard.
pub const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Bodies from this size on go up resumably, so that a break in the middle costs a part of them.
const RESUMABLE_FROM: usize = 8 << 20;
/// A read of the live version begins again when that was overwritten meanwhile. A claim is, every 30 s.
const READS: u32 = 3;
/// No object is larger (Cloud Storage quotas page, "Maximum object size"): 5 TiB.
const OBJECT_BYTES_MAX: u64 = 5 << 40;
/// Of every object: no browser makes a page of what a user's file or a model's answer holds.
const CONTENT_TYPE: &str = "application/octet-stream";
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

    /// As Google's client wants it.
    fn resource(&self, bucket: Bucket) -> String {
        format!("projects/_/buckets/{}", self.name(bucket))
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
    client: Storage,
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
        let waits = ExponentialBackoffBuilder::new().with_initial_delay(WAIT_FIRST).with_maximum_delay(WAIT_MAX);
        let mut builder = Storage::builder()
            .with_credentials(endpoint.credentials.clone())
            .with_retry_policy(RetryableErrors.with_attempt_limit(TRIES).with_time_limit(RETRY_FOR))
            .with_backoff_policy(waits.clamp())
            .with_retry_throttler(CircuitBreaker::clamp(1, 0, 0))
            .with_read_resume_policy(Recommended.with_attempt_limit(RESUMES))
            .with_resumable_upload_threshold(RESUMABLE_FROM);
        if let Some(url) = &endpoint.url {
            builder = builder.with_endpoint(url);
        }
        let client = builder.build().await.map_err(|_| SetUpError("its address, its credentials, or TLS"))?;
        Ok(GoogleObjects { client, api: JsonApi::new(endpoint)?, buckets, traceparent, call_limit: CALL_LIMIT })
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

    /// Writes if the live generation is `expected`; `None`: if there is none.
    async fn put(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Option<Generation>,
        metadata: impl IntoIterator<Item = (&str, String)>,
    ) -> Result<Meta, Failure> {
        let resumable = body.len() >= RESUMABLE_FROM;
        let checksum = crc32c::crc32c(&body);
        let written = self
            .client
            .write_object(self.buckets.resource(bucket), name, body)
            .set_if_generation_match(expected.unwrap_or(0)) // 0: no object is there
            .set_content_type(CONTENT_TYPE)
            .set_metadata(metadata)
            .with_known_crc32c(checksum)
            .send_unbuffered()
            .await;
        match written.map_err(Failure::from) {
            Ok(object) => written_meta(object),
            Err(Failure::Forbidden) => Err(self.refused(bucket, name, expected).await),
            Err(Failure::Absent) if resumable => Err(Failure::unconfirmed("the upload's session is gone")),
            Err(failure) => Err(failure),
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

    /// The body of one version, or the live one, and which it is.
    async fn body(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<(Generation, Bytes), Failure> {
        let mut request = self.client.read_object(self.buckets.resource(bucket), name);
        if let Some(generation) = generation {
            request = request.set_generation(generation);
        }
        let reply = request.send().await?;
        let object = reply.object();
        if object.checksums.as_ref().and_then(|checksums| checksums.crc32c).is_none() {
            return Err(Failure::unconfirmed("a body without a checksum"));
        }
        Ok((object.generation, drain(reply).await?))
    }

    /// Through Google's client as well: it stays in that generation when it takes a broken transfer up again.
    async fn range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, Failure> {
        if most == 0 || offset >= OBJECT_BYTES_MAX {
            // No range says this: only whether that version is there is asked.
            let found = self.api.stat(self.buckets.name(bucket), name, Some(generation)).await?;
            return Ok(found.map(|_| Bytes::new()));
        }
        let range = ReadRange::segment(offset, (most as u64).min(OBJECT_BYTES_MAX));
        let request = self.client.read_object(self.buckets.resource(bucket), name).set_generation(generation);
        let reply = match request.set_read_range(range).send().await.map_err(Failure::from) {
            Ok(reply) => reply,
            Err(Failure::Absent) => return Ok(None),
            Err(Failure::BeyondEnd) => return Ok(Some(Bytes::new())),
            Err(failure) => return Err(failure),
        };
        let expected = length_of(&reply.object(), offset, most);
        let body = drain(reply).await?;
        if body.len() as u64 != expected {
            return Err(Failure::unconfirmed("another range than was asked for"));
        }
        Ok(Some(body))
    }

    async fn whole(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, Failure> {
        for _ in 0..READS {
            let stat = self.api.stat(self.buckets.name(bucket), name, generation);
            let body = async { absent_is_none(self.body(bucket, name, generation).await) };
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
}

/// How long a range must be, by the length of the whole object.
fn length_of(object: &ObjectHighlights, offset: u64, most: usize) -> u64 {
    u64::try_from(object.size).unwrap_or(0).saturating_sub(offset).min(most as u64)
}

async fn drain(mut reply: ReadObjectResponse) -> Result<Bytes, Failure> {
    let mut body = BytesMut::new();
    while let Some(chunk) = reply.next().await.transpose()? {
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn written_meta(object: google_cloud_storage::model::Object) -> Result<Meta, Failure> {
    let unreadable = || Failure::unconfirmed("a reply to a write that does not say what was written");
    let created = object.create_time.and_then(|time| SystemTime::try_from(time).ok()).ok_or_else(unreadable)?;
    if object.generation <= 0 {
        return Err(unreadable());
    }
    let size = u64::try_from(object.size).map_err(|_| unreadable())?;
    Ok(Meta { name: object.name, generation: object.generation, created: Millis::of(created), size })
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
