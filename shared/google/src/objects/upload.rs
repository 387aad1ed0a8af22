//! A file of this machine that is to be an object: read once for its digests and once to be sent, never whole in memory.

use super::failure::Failure;
use super::transfers::Transfers;
use bytes::Bytes;
use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tasuki_relay::ports::{Generation, Meta};

/// Bytes that are read at once.
const PIECE: usize = 1 << 20;

/// A file with its digests.
#[derive(Clone, Debug)]
pub struct LocalFile {
    path: PathBuf,
    sha256: String,
    crc32c: u32,
}

impl LocalFile {
    /// Reads the file at `path`.
    pub async fn read(path: &Path, salt: &[u8]) -> io::Result<LocalFile> {
        let (path, salt) = (path.to_owned(), salt.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            // The salt's length stands first, so that no salt and file can be taken for another pair.
            let mut hash = Sha256::new().chain_update((salt.len() as u64).to_le_bytes()).chain_update(&salt);
            let (mut file, mut piece, mut crc32c) = (std::fs::File::open(&path)?, vec![0; PIECE], 0);
            loop {
                let read = file.read(&mut piece)?;
                if read == 0 {
                    return Ok(LocalFile { path, sha256: HEXLOWER.encode(&hash.finalize()), crc32c });
                }
                hash.update(&piece[..read]);
                crc32c = crc32c::crc32c_append(crc32c, &piece[..read]);
            }
        });
        read.await.map_err(io::Error::other)?
    }

    /// SHA-256 of the salt and the bytes, in hexadecimal.
    pub fn sha256(&self) -> &str {
        &self.sha256
    }
}

impl Transfers {
    /// Sends the file if the live generation is `expected`; `None`: if there is none. A file that was changed after it was read is
    /// refused by the service, because its checksum is another.
    pub(super) async fn upload_file(
        &self,
        bucket: &str,
        name: &str,
        file: &LocalFile,
        expected: Option<Generation>,
    ) -> Result<Meta, Failure> {
        let open = tokio::fs::File::open(&file.path).await;
        let open = open.map_err(|error| Failure::Unconfirmed(format!("the file: {}", error.kind())))?;
        if open.metadata().await.is_ok_and(|meta| meta.len() == 0) {
            return self.upload(bucket, name, Bytes::new(), expected, None).await;
        }
        self.send_file(bucket, name, open, file.crc32c, expected).await
    }
}
