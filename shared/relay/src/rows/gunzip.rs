//! Gzip of any number of members, unpacked piece by piece and capped.

use super::Caps;
use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;
use std::io::Write;

/// Compressed bytes that are unpacked at a time: they expand 1,032-fold at most, so a piece has 4 MB at most.
const SLICE_BYTES: usize = 4 << 10;

pub(super) struct Gunzip {
    decoder: MultiGzDecoder<Vec<u8>>,
    waiting: Bytes,
    caps: Caps,
    packed: u64,
    unpacked: u64,
}

impl Gunzip {
    pub(super) fn new(caps: Caps) -> Gunzip {
        let decoder = MultiGzDecoder::new(Vec::new());
        Gunzip { decoder, waiting: Bytes::new(), caps, packed: 0, unpacked: 0 }
    }

    /// Takes the next compressed bytes, once [`Gunzip::pull`] has said that there are none.
    pub(super) fn feed(&mut self, chunk: Bytes) {
        self.waiting = chunk;
    }

    /// The next piece, never empty; `None` when more compressed bytes are needed. The error says what is wrong with the file.
    pub(super) fn pull(&mut self) -> Result<Option<Bytes>, String> {
        while !self.waiting.is_empty() {
            let slice = self.waiting.split_to(SLICE_BYTES.min(self.waiting.remaining()));
            self.decoder.write_all(&slice).map_err(|_| self.damaged())?;
            self.packed += slice.len() as u64;
            let piece = self.piece()?;
            if piece.is_some() {
                return Ok(piece);
            }
        }
        Ok(None)
    }

    /// What was still held back at the end of the file.
    pub(super) fn finish(&mut self) -> Result<Option<Bytes>, String> {
        self.decoder.try_finish().map_err(|_| {
            format!("ends at byte {} with its gzip data cut off or damaged: pack or copy it again", self.packed)
        })?;
        self.piece()
    }

    fn damaged(&self) -> String {
        format!("holds damaged gzip data after byte {}: pack or copy it again", self.packed)
    }

    fn piece(&mut self) -> Result<Option<Bytes>, String> {
        let piece = std::mem::take(self.decoder.get_mut());
        self.unpacked += piece.len() as u64;
        let Caps { bytes, ratio, ratio_from_bytes, .. } = self.caps;
        if self.unpacked > bytes {
            return Err(format!("unpacks to more than {bytes} bytes: split it into several files"));
        }
        if self.unpacked >= ratio_from_bytes && self.unpacked > ratio.saturating_mul(self.packed) {
            return Err(format!("unpacks to more than {ratio} times its size: drop it unpacked"));
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}
