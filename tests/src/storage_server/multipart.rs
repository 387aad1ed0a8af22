use super::store::Sent;
use bytes::Bytes;

/// An upload in one request: metadata, media, and perhaps checksums that were not known before the media.
///
/// Google's client writes the parts like a form's; the media part may have no Content-Type, it is the metadata's.
pub(super) fn read(content_type: &str, body: &Bytes) -> Option<(Sent, Bytes)> {
    let boundary = content_type.strip_prefix("multipart/related; boundary=")?.trim_matches('"');
    let parts = parts(body, boundary)?;
    let [metadata, media, trailer @ ..] = parts.as_slice() else { return None };
    let mut sent: Sent = serde_json::from_slice(metadata).ok()?;
    match trailer {
        [] => {}
        [checksums] => sent.crc32c = serde_json::from_slice::<Sent>(checksums).ok()?.crc32c.or(sent.crc32c),
        _ => return None,
    }
    Some((sent, media.clone()))
}

/// The contents of the parts. Lines before the first one are not allowed here.
fn parts(body: &Bytes, boundary: &str) -> Option<Vec<Bytes>> {
    let delimiter = format!("\r\n--{boundary}");
    let mut rest = body.slice(delimiter.len() - 2..);
    if !body.starts_with(&delimiter.as_bytes()[2..]) {
        return None;
    }
    let mut parts = Vec::new();
    while !rest.starts_with(b"--") {
        let headers = find(&rest, b"\r\n\r\n")?;
        let content = rest.slice(headers + 4..);
        let end = find(&content, delimiter.as_bytes())?;
        parts.push(content.slice(..end));
        rest = content.slice(end + delimiter.len()..);
    }
    Some(parts)
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "multipart/related; boundary=x-y";

    fn upload(parts: &[(&str, &str)]) -> Bytes {
        let mut text = String::new();
        for (headers, content) in parts {
            text += &format!("--x-y\r\n{headers}\r\n\r\n{content}\r\n");
        }
        (text + "--x-y--\r\n").into()
    }

    #[test]
    fn two_parts_are_metadata_and_media() {
        let body = upload(&[("a: b", r#"{"metadata": {"k": "v"}, "crc32c": "AAAAAA=="}"#), ("c: d", "one\r\n\r\ntwo")]);
        let (sent, media) = read(TYPE, &body).unwrap();
        assert_eq!(media, "one\r\n\r\ntwo");
        assert_eq!(sent.metadata["k"], "v");
        assert_eq!(sent.crc32c.as_deref(), Some("AAAAAA=="));
    }

    #[test]
    fn a_third_part_brings_the_checksum() {
        let body = upload(&[("a: b", "{}"), ("c: d", ""), ("e: f", r#"{"crc32c": "AAAAAA=="}"#)]);
        let (sent, media) = read(TYPE, &body).unwrap();
        assert!(media.is_empty());
        assert_eq!(sent.crc32c.as_deref(), Some("AAAAAA=="));
    }

    #[test]
    fn what_is_cut_or_of_another_kind_is_no_upload() {
        let whole = upload(&[("a: b", "{}"), ("c: d", "body")]);
        assert!(read(TYPE, &whole).is_some());
        assert!(read(TYPE, &whole.slice(..whole.len() - 8)).is_none());
        assert!(read(TYPE, &upload(&[("a: b", "{}")])).is_none());
        assert!(read("application/json", &whole).is_none());
    }
}
