//! Objects as files: `<dir>/{inbox,shards,answers,state}/<name>`, written in `<dir>/tmp` and then linked or renamed into place.
//!
//! A file's generation is its mtime. Creating once is `link`, which is atomic between processes as well. Overwriting and
//! removing compare under a lock of this store: only the process that holds the directory's lock does either.

mod store;

use async_trait::async_trait;
use bytes::Bytes;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use store::Store;
use tasuki_relay::clock::Clock;
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Event, Generation, Meta, Object, Objects, ObjectsError};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The four buckets as folders.
#[derive(Debug)]
pub struct FolderObjects {
    store: Arc<Store>,
    clock: Clock,
    announce: UnboundedSender<Event>,
    events: Mutex<Option<UnboundedReceiver<Event>>>,
}

impl FolderObjects {
    /// Opens the folders under `dir` and makes those that are absent.
    ///
    /// # Errors
    /// Where they cannot be made, or where the file system keeps no mtime of microseconds, which generations are.
    pub fn open(dir: &Path, clock: Clock) -> io::Result<FolderObjects> {
        let store = Store::open(dir, clock.now())?;
        let (announce, events) = unbounded_channel();
        Ok(FolderObjects { store: Arc::new(store), clock, announce, events: Mutex::new(Some(events)) })
    }

    /// The events of every object that this store writes in inbox, shards and answers, from its opening on; `None` when they
    /// were taken before.
    pub fn events(&self) -> Option<UnboundedReceiver<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Copies `source` to the name that `name_of` makes of its SHA-256 (hexadecimal, drawn from `salt` and the bytes that were
    /// copied). Where that object exists it is left alone, or overwritten if `overwrite`. Returns what stands there then.
    pub async fn create_from_file(
        &self,
        bucket: Bucket,
        source: &Path,
        salt: &[u8],
        name_of: impl FnOnce(&str) -> String + Send + 'static,
        overwrite: bool,
    ) -> io::Result<Meta> {
        let (source, salt, now) = (source.to_owned(), salt.to_owned(), self.clock.now());
        let store = self.store.clone();
        let copied = tokio::task::spawn_blocking(move || store.copy(bucket, &source, &salt, name_of, overwrite, now));
        let (meta, written) = copied.await.map_err(io::Error::other)??;
        if written {
            self.announce(bucket, &meta);
        }
        Ok(meta)
    }

    fn announce(&self, bucket: Bucket, meta: &Meta) {
        if bucket != Bucket::State {
            // Nobody may be listening: an event is a hint, and the sweep finds the object without it.
            let _ = self.announce.send(Event { bucket, name: meta.name.clone(), generation: meta.generation });
        }
    }

    /// Runs `work` on a blocking thread.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, ObjectsError> + Send + 'static,
    ) -> Result<T, ObjectsError> {
        let store = self.store.clone();
        let done = tokio::task::spawn_blocking(move || work(&store)).await;
        done.unwrap_or_else(|stopped| Err(ObjectsError::Unknown(stopped.to_string())))
    }
}

#[async_trait]
impl Objects for FolderObjects {
    async fn create(&self, bucket: Bucket, name: &str, body: Bytes) -> Result<Meta, ObjectsError> {
        let (name, now) = (name.to_owned(), self.clock.now());
        let meta = self.blocking(move |store| store.create(bucket, &name, &body, now)).await?;
        self.announce(bucket, &meta);
        Ok(meta)
    }

    async fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: Bytes,
        expected: Generation,
    ) -> Result<Meta, ObjectsError> {
        let (name, now) = (name.to_owned(), self.clock.now());
        let meta = self.blocking(move |store| store.replace(bucket, &name, &body, expected, now)).await?;
        self.announce(bucket, &meta);
        Ok(meta)
    }

    async fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError> {
        let name = name.to_owned();
        self.blocking(move |store| store.remove(bucket, &name, expected)).await
    }

    async fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError> {
        let name = name.to_owned();
        self.blocking(move |store| store.stat(bucket, &name)).await
    }

    async fn read(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, ObjectsError> {
        let name = name.to_owned();
        self.blocking(move |store| store.read(bucket, &name, generation)).await
    }

    async fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        let name = name.to_owned();
        self.blocking(move |store| store.read_range(bucket, &name, generation, offset, most)).await
    }

    async fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |store| store.list(bucket, &prefix, after.as_deref(), most)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tasuki_relay::clock::Millis;
    use tempfile::TempDir;

    const INBOX: Bucket = Bucket::Inbox;

    fn folder() -> (TempDir, FolderObjects) {
        let dir = tempfile::tempdir().unwrap();
        let objects = FolderObjects::open(dir.path(), Clock::system()).unwrap();
        (dir, objects)
    }

    fn files_in(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[tokio::test]
    async fn nothing_is_left_in_tmp() {
        let (dir, objects) = folder();
        let made = objects.create(INBOX, "p/a", Bytes::from_static(b"a")).await.unwrap();
        objects.create(INBOX, "p/a", Bytes::from_static(b"b")).await.unwrap_err();
        objects.replace(INBOX, "p/a", Bytes::from_static(b"c"), made.generation - 1).await.unwrap_err();
        objects.replace(INBOX, "p/a", Bytes::from_static(b"c"), made.generation).await.unwrap();
        assert_eq!(files_in(&dir.path().join("tmp")), 0);
    }

    #[tokio::test]
    async fn what_a_killed_process_left_in_tmp_is_removed_a_day_later() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("tmp")).unwrap();
        for (name, age) in [("old", 2 * 24), ("young", 1)] {
            let file = fs::File::create(dir.path().join("tmp").join(name)).unwrap();
            let now = std::time::UNIX_EPOCH + std::time::Duration::from_millis(Clock::system().now().0);
            file.set_modified(now - std::time::Duration::from_secs(age * 60 * 60)).unwrap();
        }
        FolderObjects::open(dir.path(), Clock::system()).unwrap();
        assert!(!dir.path().join("tmp/old").exists() && dir.path().join("tmp/young").exists());
    }

    #[tokio::test]
    async fn names_that_leave_the_folder_or_hide_are_refused() {
        let (_dir, objects) = folder();
        for name in ["", "/etc/x", "../x", "a/../../x", "a//b", "a/", "./a", "a/.hidden", "a\\b", "a\0b"] {
            let made = objects.create(INBOX, name, Bytes::new()).await;
            assert!(matches!(made, Err(ObjectsError::Denied(_))), "{name:?}: {made:?}");
            assert!(matches!(objects.read(INBOX, name, None).await, Err(ObjectsError::Denied(_))), "{name:?}");
        }
        assert!(matches!(objects.list(INBOX, "a/../", None, 1).await, Err(ObjectsError::Denied(_))));
        let long = "x".repeat(300);
        assert!(matches!(objects.create(INBOX, &long, Bytes::new()).await, Err(ObjectsError::Denied(_))));
    }

    #[tokio::test]
    async fn a_name_below_an_object_is_absent_and_cannot_be_created() {
        let (_dir, objects) = folder();
        objects.create(INBOX, "a", Bytes::new()).await.unwrap();
        assert_eq!(objects.stat(INBOX, "a/b").await, Ok(None));
        assert!(matches!(objects.create(INBOX, "a/b", Bytes::new()).await, Err(ObjectsError::Denied(_))));
        objects.create(INBOX, "c/d", Bytes::new()).await.unwrap();
        assert_eq!(objects.stat(INBOX, "c").await, Ok(None));
        assert_eq!(objects.read(INBOX, "c", None).await, Ok(None));
    }

    #[tokio::test]
    async fn hidden_files_are_not_listed() {
        let (dir, objects) = folder();
        objects.create(INBOX, "p/rows.csv", Bytes::new()).await.unwrap();
        fs::write(dir.path().join("inbox/p/.rows.csv.swp"), "junk").unwrap();
        fs::create_dir(dir.path().join("inbox/.git")).unwrap();
        fs::write(dir.path().join("inbox/.git/x"), "junk").unwrap();
        let names: Vec<_> = objects.list(INBOX, "", None, 9).await.unwrap().into_iter().map(|meta| meta.name).collect();
        assert_eq!(names, ["p/rows.csv"]);
    }

    #[tokio::test]
    async fn writes_are_announced_once_and_state_never() {
        let (_dir, objects) = folder();
        let made = objects.create(Bucket::Shards, "r/1", Bytes::new()).await.unwrap();
        objects.create(Bucket::Shards, "r/1", Bytes::new()).await.unwrap_err();
        objects.create(Bucket::State, "open/r", Bytes::new()).await.unwrap();
        let again = objects.replace(Bucket::Shards, "r/1", Bytes::new(), made.generation).await.unwrap();
        let mut events = objects.events().unwrap();
        for meta in [made, again] {
            let event = Event { bucket: Bucket::Shards, name: meta.name, generation: meta.generation };
            assert_eq!(events.try_recv().unwrap(), event);
        }
        assert!(events.try_recv().is_err());
        assert!(objects.events().is_none());
    }

    #[tokio::test]
    async fn another_store_on_the_folder_sees_the_same_generations_and_goes_on_from_them() {
        let dir = tempfile::tempdir().unwrap();
        let ahead = FolderObjects::open(dir.path(), Clock::starting_at(Millis(2_000_000_000_000))).unwrap();
        let behind = FolderObjects::open(dir.path(), Clock::starting_at(Millis(1_000_000_000_000))).unwrap();
        let made = ahead.create(INBOX, "a", Bytes::new()).await.unwrap();
        assert_eq!(made.created.0 / 1_000, 2_000_000_000);
        assert_eq!(behind.stat(INBOX, "a").await.unwrap().as_ref(), Some(&made));
        let next = behind.replace(INBOX, "a", Bytes::new(), made.generation).await.unwrap();
        assert!(next.generation > made.generation);
    }

    #[tokio::test]
    async fn one_file_is_one_object_until_it_is_overwritten() {
        let (dir, objects) = folder();
        let source = dir.path().join("source.csv");
        fs::write(&source, vec![b'x'; 3 << 20]).unwrap();
        let put = async |salt: &'static [u8], overwrite| {
            objects.create_from_file(INBOX, &source, salt, |hash| format!("p/{hash}.csv"), overwrite).await.unwrap()
        };
        let first = put(b"salt", false).await;
        assert_eq!((first.size, put(b"salt", false).await), (3 << 20, first.clone()));
        assert_ne!(put(b"another", false).await.name, first.name);
        let over = put(b"salt", true).await;
        assert_eq!(over.name, first.name);
        assert!(over.generation > first.generation);
        assert_eq!(objects.stat(INBOX, &first.name).await.unwrap(), Some(over.clone()));
        fs::write(&source, "other bytes").unwrap();
        assert_ne!(put(b"salt", false).await.name, first.name);
        let mut events = objects.events().unwrap();
        let announced: Vec<_> = std::iter::from_fn(|| events.try_recv().ok().map(|event| event.generation)).collect();
        assert_eq!(announced.len(), 4, "three names and one overwrite");
        assert!(announced.contains(&over.generation));
        assert_eq!(files_in(&dir.path().join("tmp")), 0);
    }
}
