use super::Finalized;
use bytes::Bytes;
use data_encoding::BASE64;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tasuki_relay::clock::{Clock, Millis};
use tasuki_relay::ports::Generation;
use tokio::sync::mpsc::UnboundedSender;

/// With a folder, bodies from this size on go there.
const FILE_FROM: usize = 64 << 10;

/// A version of an object. The one before is gone when it is written: buckets here keep no versions.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) bucket: String,
    pub(super) name: String,
    pub(super) generation: Generation,
    created: Millis,
    pub(super) content_type: String,
    /// `gzip`, if whoever wrote it says that it is packed.
    pub(super) content_encoding: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    crc32c: u32,
    pub(super) body: Body,
}

/// What an object holds.
#[derive(Clone, Debug)]
pub(super) enum Body {
    Memory(Bytes),
    /// In a file, which is never changed; with its length.
    File(Arc<Path>, usize),
}

impl Body {
    /// In `folder`, if one is given, unless it is small.
    fn new(bytes: Bytes, folder: Option<&Path>, generation: Generation) -> std::io::Result<Body> {
        let Some(folder) = folder.filter(|_| bytes.len() >= FILE_FROM) else { return Ok(Body::Memory(bytes)) };
        let path: Arc<Path> = folder.join(generation.to_string()).into();
        std::fs::write(&path, &bytes)?;
        Ok(Body::File(path, bytes.len()))
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Body::Memory(bytes) => bytes.len(),
            Body::File(_, length) => *length,
        }
    }

    pub(super) fn bytes(&self) -> Bytes {
        match self {
            Body::Memory(bytes) => bytes.clone(),
            Body::File(path, _) => std::fs::read(path).expect("files here stay as they are").into(),
        }
    }
}

impl Stored {
    /// As the JSON API writes it: 64-bit numbers are strings.
    pub(super) fn json(&self) -> Value {
        json!({
            "kind": "storage#object",
            "bucket": self.bucket,
            "name": self.name,
            "generation": self.generation.to_string(),
            "metageneration": "1",
            "size": self.body.len().to_string(),
            "timeCreated": self.created,
            "timeFinalized": self.created,
            "updated": self.created,
            "contentType": self.content_type,
            "contentEncoding": self.content_encoding.as_deref().unwrap_or_default(),
            "storageClass": "STANDARD",
            "crc32c": self.crc32c_text(),
            "metadata": self.metadata,
        })
    }

    /// Big endian, base64.
    pub(super) fn crc32c_text(&self) -> String {
        BASE64.encode(&self.crc32c.to_be_bytes())
    }
}

/// What comes with an upload besides the body.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Sent {
    pub(super) content_type: Option<String>,
    pub(super) content_encoding: Option<String>,
    pub(super) crc32c: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
}

/// An object that is to be written, if its precondition holds.
#[derive(Clone, Debug)]
pub(super) struct Insert {
    pub(super) bucket: String,
    pub(super) name: String,
    /// 0 = no object is there.
    pub(super) if_generation: Option<Generation>,
    pub(super) sent: Sent,
}

/// A resumable upload: what has come of it, and the object when it is complete.
#[derive(Debug)]
struct Session {
    insert: Insert,
    received: Vec<u8>,
    done: Option<Stored>,
}

/// Where a resumable upload stands.
#[derive(Debug)]
pub(super) enum Progress {
    Done(Stored),
    /// So many bytes have come.
    Partial(usize),
}

/// A refusal, with the status that says it.
pub(super) type Refused = StatusCode;

#[derive(Debug)]
pub(super) struct Store {
    clock: Clock,
    buckets: BTreeMap<String, BTreeMap<String, Stored>>,
    sessions: BTreeMap<String, Session>,
    last_generation: Generation,
    last_created: Millis,
    /// By bucket: how much older than they are its objects say to be.
    pub(super) aged: BTreeMap<String, Duration>,
    pub(super) listeners: Vec<UnboundedSender<Finalized>>,
    /// Where large bodies are kept, if not in memory.
    pub(super) folder: Option<tempfile::TempDir>,
}

impl Store {
    pub(super) fn new(clock: Clock) -> Store {
        Store {
            clock,
            buckets: BTreeMap::new(),
            sessions: BTreeMap::new(),
            last_generation: 0,
            last_created: Millis::default(),
            aged: BTreeMap::new(),
            listeners: Vec::new(),
            folder: None,
        }
    }

    pub(super) fn make_bucket(&mut self, name: &str) -> Result<(), Refused> {
        match self.buckets.entry(name.to_owned()) {
            std::collections::btree_map::Entry::Occupied(_) => Err(StatusCode::CONFLICT),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(BTreeMap::new());
                Ok(())
            }
        }
    }

    pub(super) fn bucket(&self, name: &str) -> Result<&BTreeMap<String, Stored>, Refused> {
        self.buckets.get(name).ok_or(StatusCode::NOT_FOUND)
    }

    /// That version, or the live one.
    pub(super) fn find(&self, bucket: &str, name: &str, version: Option<Generation>) -> Result<&Stored, Refused> {
        let live = self.bucket(bucket)?.get(name).filter(|live| version.is_none_or(|wanted| wanted == live.generation));
        live.ok_or(StatusCode::NOT_FOUND)
    }

    /// 412 if it does not hold, 404 for an absent bucket.
    fn check(&self, insert: &Insert) -> Result<(), Refused> {
        let live = self.bucket(&insert.bucket)?.get(&insert.name).map_or(0, |live| live.generation);
        let holds = insert.if_generation.is_none_or(|wanted| wanted == live);
        if holds { Ok(()) } else { Err(StatusCode::PRECONDITION_FAILED) }
    }

    /// 400 if another checksum was sent than that of the body.
    pub(super) fn write(&mut self, insert: Insert, body: Bytes) -> Result<Stored, Refused> {
        self.check(&insert)?;
        let now = self.clock.now().max(self.last_created);
        // Like the service's: microseconds, and always more than before.
        let generation = (now.0 as Generation * 1_000).max(self.last_generation + 1);
        let Insert { bucket, name, sent, .. } = insert;
        let content_type = sent.content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        let crc32c = crc32c::crc32c(&body);
        let age = self.aged.get(&bucket).copied().unwrap_or_default();
        let created = Millis(now.0.saturating_sub(age.as_millis() as u64));
        let Sent { content_encoding, metadata, .. } = sent;
        let folder = self.folder.as_ref().map(tempfile::TempDir::path);
        let body = Body::new(body, folder, generation).map_err(|_| StatusCode::INSUFFICIENT_STORAGE)?;
        let stored =
            Stored { bucket, name, generation, created, content_type, content_encoding, metadata, crc32c, body };
        if sent.crc32c.is_some_and(|told| told != stored.crc32c_text()) {
            return Err(StatusCode::BAD_REQUEST);
        }
        (self.last_created, self.last_generation) = (now, generation);
        let place = self.buckets.entry(stored.bucket.clone()).or_default();
        place.insert(stored.name.clone(), stored.clone());
        self.listeners.retain(|listener| listener.send(Finalized::of(&stored)).is_ok());
        Ok(stored)
    }

    pub(super) fn remove(&mut self, bucket: &str, name: &str, expected: Option<Generation>) -> Result<(), Refused> {
        let live = self.find(bucket, name, None)?.generation;
        if expected.is_some_and(|expected| expected != live) {
            return Err(StatusCode::PRECONDITION_FAILED);
        }
        self.buckets.get_mut(bucket).and_then(|objects| objects.remove(name));
        Ok(())
    }

    /// At most `most` objects from `from` on, itself included, and whether there are more.
    pub(super) fn list(
        &self,
        bucket: &str,
        prefix: &str,
        from: &str,
        most: usize,
    ) -> Result<(Vec<&Stored>, bool), Refused> {
        let from = (Bound::Included(prefix.max(from)), Bound::Unbounded);
        let mut matching = self.bucket(bucket)?.range::<str, _>(from).map(|(_, stored)| stored);
        let mut matching = matching.by_ref().take_while(|stored| stored.name.starts_with(prefix));
        let page = matching.by_ref().take(most).collect();
        Ok((page, matching.next().is_some()))
    }

    /// Opens a resumable upload.
    pub(super) fn open(&mut self, insert: Insert) -> Result<String, Refused> {
        self.check(&insert)?;
        let id = format!("upload-{}", self.sessions.len() + 1);
        self.sessions.insert(id.clone(), Session { insert, received: Vec::new(), done: None });
        Ok(id)
    }

    /// The object that an upload is for.
    pub(super) fn target(&self, id: &str) -> Result<(String, String), Refused> {
        let session = self.sessions.get(id).ok_or(StatusCode::NOT_FOUND)?;
        Ok((session.insert.bucket.clone(), session.insert.name.clone()))
    }

    /// How far an upload is.
    pub(super) fn progress(&self, id: &str) -> Result<Progress, Refused> {
        let session = self.sessions.get(id).ok_or(StatusCode::NOT_FOUND)?;
        Ok(session.done.clone().map_or(Progress::Partial(session.received.len()), Progress::Done))
    }

    /// Takes bytes from `offset` on of an object of `total`. The precondition must hold at the end again.
    pub(super) fn append(&mut self, id: &str, offset: usize, chunk: &[u8], total: usize) -> Result<Progress, Refused> {
        let session = self.sessions.get_mut(id).ok_or(StatusCode::NOT_FOUND)?;
        if session.done.is_none() && offset == session.received.len() {
            session.received.extend_from_slice(chunk);
            if session.received.len() == total {
                let (insert, body) = (session.insert.clone(), std::mem::take(&mut session.received).into());
                let stored = self.write(insert, body)?;
                self.sessions.entry(id.to_owned()).and_modify(|session| session.done = Some(stored));
            }
        }
        self.progress(id)
    }
}
