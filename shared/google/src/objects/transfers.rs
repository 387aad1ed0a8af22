use super::failure::Failure;
use super::{SetUpError, TRIES};
use crate::connect::Endpoint;
use bytes::{Bytes, BytesMut};
use google_cloud_gax::exponential_backoff::ExponentialBackoffBuilder;
use google_cloud_gax::retry_policy::RetryPolicyExt;
use google_cloud_gax::retry_throttler::CircuitBreaker;
use google_cloud_storage::builder::storage::ReadObject;
use google_cloud_storage::client::Storage;
use google_cloud_storage::model_ext::{ObjectHighlights, ReadRange};
use google_cloud_storage::read_object::ReadObjectResponse;
use google_cloud_storage::read_resume_policy::{ReadResumePolicyExt, Recommended};
use google_cloud_storage::retry_policy::RetryableErrors;
use std::time::{Duration, SystemTime};
use tasuki_relay::clock::Millis;
use tasuki_relay::ports::{Generation, Meta};

/// No try begins later than this after the first.
const RETRY_FOR: Duration = Duration::from_secs(8);
/// A file goes up in one call that may last hours: it is resumed so often.
const FILE_TRIES: u32 = 10;
/// Waits between tries, with full jitter. Cloud Storage takes about one change a second of one name.
const WAIT_FIRST: Duration = Duration::from_millis(200);
const WAIT_MAX: Duration = Duration::from_secs(2);
/// A download that broke off is resumed so often.
const RESUMES: u32 = 3;
/// Bodies from this size on go up resumably, so that a break in the middle costs a part of them.
const RESUMABLE_FROM: usize = 8 << 20;
/// No object is larger (Cloud Storage quotas page, "Maximum object size"): 5 TiB.
pub(super) const OBJECT_BYTES_MAX: u64 = 5 << 40;
/// Of every object: no browser makes a page of what a user's file or a model's answer holds.
const CONTENT_TYPE: &str = "application/octet-stream";

/// Bodies, up and down, through Google's client.
#[derive(Debug)]
pub(super) struct Transfers {
    client: Storage,
}

impl Transfers {
    pub(super) async fn new(endpoint: &Endpoint) -> Result<Transfers, SetUpError> {
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
        Ok(Transfers { client })
    }

    /// Writes if the live generation is `expected`; `None`: if there is none.
    pub(super) async fn upload(
        &self,
        bucket: &str,
        name: &str,
        body: Bytes,
        expected: Option<Generation>,
        metadata: impl IntoIterator<Item = (&str, String)>,
    ) -> Result<Meta, Failure> {
        let resumable = body.len() >= RESUMABLE_FROM;
        let checksum = crc32c::crc32c(&body);
        let written = self
            .client
            .write_object(resource(bucket), name, body)
            .set_if_generation_match(expected.unwrap_or(0)) // 0: no object is there
            .set_content_type(CONTENT_TYPE)
            .set_metadata(metadata)
            .with_known_crc32c(checksum)
            .send_unbuffered()
            .await;
        match written.map_err(Failure::from) {
            Ok(object) => written_meta(object),
            Err(Failure::Absent) if resumable => Err(Failure::unconfirmed("the upload's session is gone")),
            Err(failure) => Err(failure),
        }
    }

    /// The same with a file's bytes, however many: what broke is taken up again where it broke.
    pub(super) async fn send_file(
        &self,
        bucket: &str,
        name: &str,
        file: tokio::fs::File,
        checksum: u32,
        expected: Option<Generation>,
    ) -> Result<Meta, Failure> {
        let written = self
            .client
            .write_object(resource(bucket), name, file)
            .set_if_generation_match(expected.unwrap_or(0))
            .set_content_type(CONTENT_TYPE)
            .with_known_crc32c(checksum)
            .with_retry_policy(RetryableErrors.with_attempt_limit(FILE_TRIES))
            .send_unbuffered()
            .await;
        written_meta(written?)
    }

    /// The body of one version, or the live one, and which it is.
    pub(super) async fn download(
        &self,
        bucket: &str,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<(Generation, Bytes), Failure> {
        let reply = self.request(bucket, name, generation).send().await?;
        let object = reply.object();
        if object.checksums.as_ref().and_then(|checksums| checksums.crc32c).is_none() {
            return Err(Failure::unconfirmed("a body without a checksum"));
        }
        Ok((object.generation, drain(reply).await?))
    }

    /// At most `most` bytes, at least 1, from `offset` on. [`Failure::BeyondEnd`] if there are none.
    pub(super) async fn download_range(
        &self,
        bucket: &str,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Bytes, Failure> {
        let range = ReadRange::segment(offset, (most as u64).min(OBJECT_BYTES_MAX));
        let reply = self.request(bucket, name, Some(generation)).set_read_range(range).send().await?;
        let expected = length_of(&reply.object(), offset, most);
        let body = drain(reply).await?;
        // The client takes a reply with the whole object for the range.
        if body.len() as u64 != expected {
            return Err(Failure::unconfirmed("another range than was asked for"));
        }
        Ok(body)
    }

    fn request(&self, bucket: &str, name: &str, generation: Option<Generation>) -> ReadObject {
        let request = self.client.read_object(resource(bucket), name);
        match generation {
            Some(generation) => request.set_generation(generation),
            None => request,
        }
    }
}

/// A bucket as Google's client wants it.
fn resource(bucket: &str) -> String {
    format!("projects/_/buckets/{bucket}")
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
