//! Reading bodies of replies.

use crate::ports::Fault;
use bytes::{Bytes, BytesMut};
use reqwest::Response;
use serde::{Deserialize, Deserializer};

/// Longest reply in bytes: an answer may have 64 KiB ([`crate::limits::ANSWER_BYTES_MAX`]), thoughts and escapes several
/// times that; more than this is no reply to us.
const REPLY_BYTES_MAX: usize = 4 << 20;

/// The body of a response; `None` when it is longer than [`REPLY_BYTES_MAX`].
pub(super) async fn read(mut response: Response) -> reqwest::Result<Option<Bytes>> {
    let Some(first) = response.chunk().await? else { return Ok(Some(Bytes::new())) };
    let Some(second) = response.chunk().await? else { return Ok((first.len() <= REPLY_BYTES_MAX).then_some(first)) };
    let mut whole = BytesMut::from(first);
    whole.extend_from_slice(&second);
    while whole.len() <= REPLY_BYTES_MAX {
        match response.chunk().await? {
            Some(more) => whole.extend_from_slice(&more),
            None => return Ok(Some(whole.freeze())),
        }
    }
    Ok(None)
}

pub(super) fn too_long() -> Fault {
    Fault::Garbled("it is longer than 4 MiB".to_owned())
}

/// Says where, never what: serde's own words quote the text.
pub(crate) fn garbled(error: &serde_json::Error) -> Fault {
    let what = if error.is_data() { "JSON of another shape" } else { "not JSON" };
    Fault::Garbled(format!("{what}, at line {} column {}", error.line(), error.column()))
}

/// null is the same as absent.
pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}
