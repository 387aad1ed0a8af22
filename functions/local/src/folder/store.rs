//! The blocking half: files, their times and their names.

use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};
use tasuki_relay::clock::Millis;
use tasuki_relay::names::Bucket;
use tasuki_relay::ports::{Generation, Meta, Object, ObjectsError};

/// Where files are written before they get their names.
const TMP: &str = "tmp";
/// Generations differ by at least this many nanoseconds: the finest mtime that every file system in use keeps (NTFS: 100 ns).
const GENERATION_STEP: i64 = 1_000;
/// A temporary file of this age was left by a process that was killed: nothing is written for so long.
const LITTER_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes of a file that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// What runs on the blocking threads.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    /// The last generation given: the next one is greater, also over a removal.
    last: AtomicI64,
    /// Temporary files so far: their names.
    written: AtomicU64,
    /// Held from comparing a generation to acting on it.
    swap: Mutex<()>,
}

impl Store {
    /// See [`super::FolderObjects::open`].
    pub(super) fn open(dir: &Path, now: Millis) -> io::Result<Store> {
        for folder in Bucket::ALL.map(Bucket::as_str).into_iter().chain([TMP]) {
            fs::create_dir_all(dir.join(folder))?;
        }
        let store =
            Store { dir: dir.to_owned(), last: AtomicI64::new(0), written: AtomicU64::new(0), swap: Mutex::new(()) };
        store.sweep_litter(now);
        store.probe()?;
        Ok(store)
    }

    /// Where the object is. Hidden names are refused, since a list does not show them.
    fn path(&self, bucket: Bucket, name: &str) -> Result<PathBuf, ObjectsError> {
        let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']);
        match name.split('/').all(plain) {
            true => Ok(self.dir.join(bucket.as_str()).join(name)),
            false => Err(ObjectsError::Denied(format!("{name:?} cannot be the name of a file"))),
        }
    }

    pub(super) fn create(&self, bucket: Bucket, name: &str, body: &[u8], now: Millis) -> Result<Meta, ObjectsError> {
        let path = self.path(bucket, name)?;
        if path.symlink_metadata().is_ok() {
            return Err(ObjectsError::Precondition); // Not needed for being right: it saves writing the body.
        }
        let written = self.write(body, self.generation(now, 0)).map_err(failed)?;
        let made = meta(name, &written.0.metadata().map_err(failed)?);
        link(&written.0, &path).map_err(failed)?;
        Ok(made)
    }

    pub(super) fn replace(
        &self,
        bucket: Bucket,
        name: &str,
        body: &[u8],
        expected: Generation,
        now: Millis,
    ) -> Result<Meta, ObjectsError> {
        let path = self.path(bucket, name)?;
        let written = self.write(body, self.generation(now, expected)).map_err(failed)?;
        let made = meta(name, &written.0.metadata().map_err(failed)?);
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stat(bucket, name)?.map(|live| live.generation) != Some(expected) {
            return Err(ObjectsError::Precondition);
        }
        fs::rename(&written.0, &path).map_err(failed)?;
        Ok(made)
    }

    pub(super) fn remove(&self, bucket: Bucket, name: &str, expected: Option<Generation>) -> Result<(), ObjectsError> {
        let path = self.path(bucket, name)?;
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(live) = self.stat(bucket, name)? else { return Ok(()) };
        if expected.is_some_and(|expected| expected != live.generation) {
            return Err(ObjectsError::Precondition);
        }
        self.last.fetch_max(live.generation, Ordering::SeqCst);
        present(fs::remove_file(path)).map(|_| ())
    }

    pub(super) fn stat(&self, bucket: Bucket, name: &str) -> Result<Option<Meta>, ObjectsError> {
        let found = present(self.path(bucket, name)?.metadata())?;
        Ok(found.filter(Metadata::is_file).map(|file| meta(name, &file)))
    }

    /// The object's file and what is known of it: both of one version, whatever is renamed over it meanwhile.
    fn file(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<(File, Meta)>, ObjectsError> {
        let Some(file) = present(File::open(self.path(bucket, name)?))? else { return Ok(None) };
        let found = file.metadata().map_err(failed)?;
        let known = meta(name, &found);
        let wanted = found.is_file() && generation.is_none_or(|generation| generation == known.generation);
        Ok(wanted.then_some((file, known)))
    }

    pub(super) fn read(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Option<Generation>,
    ) -> Result<Option<Object>, ObjectsError> {
        let Some((mut file, meta)) = self.file(bucket, name, generation)? else { return Ok(None) };
        let mut body = Vec::with_capacity(meta.size as usize);
        file.read_to_end(&mut body).map_err(failed)?;
        Ok(Some(Object { meta, body: body.into() }))
    }

    pub(super) fn read_range(
        &self,
        bucket: Bucket,
        name: &str,
        generation: Generation,
        offset: u64,
        most: usize,
    ) -> Result<Option<Bytes>, ObjectsError> {
        let Some((mut file, meta)) = self.file(bucket, name, Some(generation))? else { return Ok(None) };
        let most = meta.size.saturating_sub(offset).min(most as u64);
        let mut body = Vec::with_capacity(most as usize);
        if most > 0 {
            file.seek(SeekFrom::Start(offset)).map_err(failed)?;
            file.take(most).read_to_end(&mut body).map_err(failed)?;
        }
        Ok(Some(body.into()))
    }

    pub(super) fn list(
        &self,
        bucket: Bucket,
        prefix: &str,
        after: Option<&str>,
        most: usize,
    ) -> Result<Vec<Meta>, ObjectsError> {
        // Only the folder that the prefix names is walked.
        let (path, base) = match prefix.rsplit_once('/') {
            Some((folder, _)) => (self.path(bucket, folder)?, &prefix[..=folder.len()]),
            None => (self.dir.join(bucket.as_str()), ""),
        };
        let mut found = Vec::new();
        if most > 0 {
            Walk { prefix, after, most }.visit(&path, base, &mut found)?;
        }
        Ok(found)
    }

    /// See [`super::FolderObjects::create_from_file`]. The second value says whether anything was written.
    pub(super) fn copy(
        &self,
        bucket: Bucket,
        source: &Path,
        salt: &[u8],
        name_of: impl FnOnce(&str) -> String,
        overwrite: bool,
        now: Millis,
    ) -> io::Result<(Meta, bool)> {
        let (written, mut file) = self.temporary()?;
        // The salt's length stands first, so that no salt and file can be taken for another pair.
        let mut hash = Sha256::new().chain_update((salt.len() as u64).to_le_bytes()).chain_update(salt);
        let (mut from, mut buffer) = (File::open(source)?, vec![0; COPY_BYTES]);
        loop {
            match from.read(&mut buffer)? {
                0 => break,
                read => {
                    hash.update(&buffer[..read]);
                    file.write_all(&buffer[..read])?;
                }
            }
        }
        let name = name_of(&hex(&hash.finalize()));
        let path = self.path(bucket, &name).map_err(io::Error::other)?;
        file.set_modified(time(self.generation(now, 0)))?;
        file.sync_all()?;
        match link(&written.0, &path) {
            Ok(()) => return Ok((meta(&name, &file.metadata()?), true)),
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            Err(_) if !overwrite => return Ok((meta(&name, &path.metadata()?), false)),
            Err(_) => {}
        }
        let _swap = self.swap.lock().unwrap_or_else(PoisonError::into_inner);
        let live = meta(&name, &path.metadata()?);
        file.set_modified(time(self.generation(now, live.generation)))?;
        file.sync_all()?;
        fs::rename(&written.0, &path)?;
        Ok((meta(&name, &file.metadata()?), true))
    }

    /// A new generation, greater than `over` and than all that were given before; `now`, if that is.
    fn generation(&self, now: Millis, over: Generation) -> Generation {
        let now = i64::try_from(now.0).unwrap_or(i64::MAX).saturating_mul(1_000_000);
        let next = |last: i64| now.max(last.max(over).saturating_add(GENERATION_STEP));
        match self.last.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |last| Some(next(last))) {
            Ok(last) | Err(last) => next(last),
        }
    }

    /// A durable temporary file with this body and generation.
    fn write(&self, body: &[u8], generation: Generation) -> io::Result<Temporary> {
        let (written, mut file) = self.temporary()?;
        file.write_all(body)?;
        file.set_modified(time(generation))?;
        // Not `sync_data`, which costs the same here: it need not keep the mtime, and the mtime is the generation.
        file.sync_all()?;
        Ok(written)
    }

    fn temporary(&self) -> io::Result<(Temporary, File)> {
        loop {
            let count = self.written.fetch_add(1, Ordering::Relaxed);
            let path = self.dir.join(TMP).join(format!("{}-{count}", std::process::id()));
            match File::create_new(&path) {
                Ok(file) => return Ok((Temporary(path), file)),
                // Left by another process that had our number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn probe(&self) -> io::Result<()> {
        let (written, file) = self.temporary()?;
        let generation = 1_700_000_000_000_000_000 + GENERATION_STEP;
        file.set_modified(time(generation))?;
        match meta("", &written.0.metadata()?).generation == generation {
            true => Ok(()),
            false => Err(io::Error::new(
                ErrorKind::Unsupported,
                "this file system keeps the times of files too coarsely: use a folder on another one",
            )),
        }
    }

    /// Removes old temporary files. What cannot be removed is only litter.
    fn sweep_litter(&self, now: Millis) {
        for entry in fs::read_dir(self.dir.join(TMP)).into_iter().flatten().flatten() {
            let modified = entry.metadata().and_then(|file| file.modified());
            if modified.is_ok_and(|modified| now.since(Millis::of(modified)) > LITTER_AFTER) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A file under `tmp`, which goes when this does. Removing fails after a rename, as it should.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// A listing in order of names.
struct Walk<'a> {
    prefix: &'a str,
    after: Option<&'a str>,
    most: usize,
}

impl Walk<'_> {
    /// Adds what is listed of the folder at `path`, whose names begin with `base`.
    fn visit(&self, path: &Path, base: &str, found: &mut Vec<Meta>) -> Result<(), ObjectsError> {
        let mut names = Vec::new();
        for entry in present(fs::read_dir(path))?.into_iter().flatten() {
            let entry = entry.map_err(failed)?;
            let Ok(part) = entry.file_name().into_string() else { continue };
            let Some(kind) = present(entry.file_type())? else { continue };
            // A folder sorts as its names do: with the slash.
            let name = format!("{base}{part}{}", if kind.is_dir() { "/" } else { "" });
            if !part.starts_with('.') && (kind.is_dir() || kind.is_file()) && self.may_list(&name) {
                names.push(name);
            }
        }
        names.sort_unstable();
        for name in names {
            if found.len() >= self.most {
                break;
            }
            let path = path.join(&name[base.len()..]);
            match name.ends_with('/') {
                true => self.visit(&path, &name, found)?,
                false => found.extend(present(path.metadata())?.map(|file| meta(&name, &file))),
            }
        }
        Ok(())
    }

    /// Whether this file, or any in this folder, is to be listed.
    fn may_list(&self, name: &str) -> bool {
        let folder = name.ends_with('/');
        let in_prefix = name.starts_with(self.prefix) || (folder && self.prefix.starts_with(name));
        let is_after = self.after.is_none_or(|after| name > after || (folder && after.starts_with(name)));
        in_prefix && is_after
    }
}

/// Gives a temporary file its name, which must be free.
fn link(written: &Path, path: &Path) -> io::Result<()> {
    match fs::hard_link(written, path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::hard_link(written, path)
        }
        linked => linked,
    }
}

fn meta(name: &str, file: &Metadata) -> Meta {
    let past = file.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    let generation = past.and_then(|past| i64::try_from(past.as_nanos()).ok()).unwrap_or(0);
    Meta { name: name.to_owned(), generation, created: Millis(generation as u64 / 1_000_000), size: file.len() }
}

fn time(generation: Generation) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_nanos(generation.unsigned_abs())
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` for what is not there.
fn present<T>(result: io::Result<T>) -> Result<Option<T>, ObjectsError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

fn failed(error: io::Error) -> ObjectsError {
    match error.kind() {
        ErrorKind::AlreadyExists => ObjectsError::Precondition,
        ErrorKind::PermissionDenied
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::InvalidFilename
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory => ObjectsError::Denied(error.to_string()),
        _ => ObjectsError::Unknown(error.to_string()),
    }
}
