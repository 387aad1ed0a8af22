//! Objects in buckets: the legs meet through them alone.

use crate::clock::Millis;
use crate::names::Bucket;
use async_trait::async_trait;
use bytes::Bytes;

/// The version of an object. Every write of a name gets another one; they need not be consecutive.
pub type Generation = i64;

/// What is known of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Its name within the bucket.
    pub name: String,
    /// Its version.
    pub generation: Generation,
    /// When this version was written, by the server's clock.
    pub created: Millis,
    /// Bytes.
    pub size: u64,
}

/// An object, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// What is known of it.
    pub meta: Meta,
    /// Its bytes.
    pub body: Bytes,
}

/// Why an object call did not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ObjectsError {
    /// The object exists already (create), or its generation is another (replace). 412, and 403 for a writer without the
    /// right to delete.
    #[error("the object is there already, or another version of it")]
    Precondition,
    /// Not allowed, whatever the state of the object.
    #[error("not allowed: {0}")]
    Denied(String),
    /// Failed, perhaps after its effect. 429, 5xx, a timeout, a lost connection.
    #[error("storage did not confirm: {0}")]
    Unknown(String),
}

/// Objects in the four buckets. Immutable but for claims, `splits/`, `open/` and `control/`.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Creates `name` if it is absent.
    async fn create(&self, bucket: Bucket, name: &str, body: Bytes) -> Result<Meta, ObjectsError>;
    /// Overwrites `name` if its generation is `expected` (compare-and-swap).
    async fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Generation,
    ) -> Result<Meta, ObjectsError>;
    /// Removes `name` if its generation is `expected`, or whatever it is. An absent object is removed already.
    async fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError>;
    /// What is known of the live version; `None` when absent.
    async fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError>;
    /// The whole object, at `generation` or its live version; `None` when that is absent.
    async fn read(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, ObjectsError>;
    /// At most `most` bytes from `offset` of that version; fewer only at its end; `None` when that version is gone.
    async fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError>;
    /// At most `most` live objects whose names start with `prefix` and are greater than `after`, in order of their names.
    async fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError>;
}
