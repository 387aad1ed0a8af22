//! A file of this machine as the only object of an inbox: its rows are read where it lies, and nothing is copied.

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tasuki_relay::clock::Millis;
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Generation, Meta, Object, Objects, ObjectsError};

/// A file that is open.
#[derive(Debug)]
pub(crate) struct OneFile {
    file: Arc<Mutex<File>>,
    meta: Meta,
}

impl OneFile {
    /// Opens it.
    pub(crate) fn open(path: &Path) -> Result<OneFile> {
        let named = || path.display().to_string();
        let file = File::open(path).with_context(named)?;
        let size = file.metadata().with_context(named)?.len();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let meta = Meta { name, generation: 1, created: Millis(0), size };
        Ok(OneFile { file: Arc::new(Mutex::new(file)), meta })
    }

    /// As which object it is read.
    pub(crate) fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// `most` bytes from `offset`; fewer at the end.
fn read(file: &Mutex<File>, offset: u64, most: usize) -> std::io::Result<Bytes> {
    let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::with_capacity(most);
    file.by_ref().take(most as u64).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

fn only_read() -> ObjectsError {
    ObjectsError::Denied("a file that is planned is only read".to_owned())
}

#[async_trait]
impl Objects for OneFile {
    async fn read_range(
        &self,
        _: Bucket,
        _: &str,
        _: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        let file = self.file.clone();
        let bytes = tokio::task::spawn_blocking(move || read(&file, offset, most)).await;
        match bytes {
            Ok(Ok(bytes)) => Ok(Some(bytes)),
            Ok(Err(error)) => Err(ObjectsError::Unknown(error.kind().to_string())),
            Err(_) => Err(ObjectsError::Unknown("the thread that read it ended early".to_owned())),
        }
    }
    async fn create(&self, _: Bucket, _: &str, _: Bytes) -> Result<Meta, ObjectsError> {
        Err(only_read())
    }
    async fn replace(&self, _: Bucket, _: &str, _: Bytes, _: Generation) -> Result<Meta, ObjectsError> {
        Err(only_read())
    }
    async fn remove(&self, _: Bucket, _: &str, _: Option<Generation>) -> Result<(), ObjectsError> {
        Err(only_read())
    }
    async fn stat(&self, _: Bucket, _: &str) -> Result<Option<Meta>, ObjectsError> {
        Ok(Some(self.meta.clone()))
    }
    async fn read(&self, _: Bucket, _: &str, _: Option<Generation>) -> Result<Option<Object>, ObjectsError> {
        Err(only_read())
    }
    async fn list(&self, _: Bucket, _: &str, _: Option<&str>, _: usize) -> Result<Vec<Meta>, ObjectsError> {
        Ok(vec![self.meta.clone()])
    }
}
