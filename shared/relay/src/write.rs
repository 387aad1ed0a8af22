//! Create-once with read-back: a write that was not confirmed is decided by a read, never by its error.

use crate::names::Bucket;
use crate::ports::{Meta, Object, Objects, ObjectsError};
use bytes::Bytes;

/// How a create-once ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Written {
    /// This call created it.
    Won(Meta),
    /// It holds these bytes, whoever wrote them: perhaps this call, whose reply was lost.
    Identical(Meta),
    /// It holds other bytes.
    Foreign(Object),
}

/// Creates an object, or tells what is there instead.
///
/// # Errors
/// `Denied` when the object is absent and may not be created; `Unknown` when neither the write nor the read-back was
/// confirmed: then nothing may be cleaned up or acknowledged.
pub async fn create_once(
    objects: &dyn Objects,
    bucket: Bucket,
    name: &str,
    body: Bytes,
) -> Result<Written, ObjectsError> {
    let error = match objects.create(bucket, name, body.clone()).await {
        Ok(meta) => return Ok(Written::Won(meta)),
        Err(error) => error,
    };
    match objects.read(bucket, name, None).await? {
        Some(found) if found.body == body => Ok(Written::Identical(found.meta)),
        Some(found) => Ok(Written::Foreign(found)),
        None if error == ObjectsError::Precondition => Err(ObjectsError::Unknown("said to exist, yet absent".into())),
        None => Err(error),
    }
}
