//! What a proxy sees of HTTP. Pure.

use std::collections::{BTreeMap, BTreeSet};

/// So many bytes of a client tell which HTTP it speaks.
pub(super) const TELLING: usize = 3;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length, kind, flags, stream (RFC 9113, 4.1).
const FRAME_HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// Requests whose replies are to be lost, by HTTP/2's streams; over HTTP/1.1, which has none: 0.
pub(super) type Doomed = BTreeSet<u32>;

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Requests {
    frames: Option<Frames>,
    /// By stream and marker: what came last, shorter than the marker.
    tails: BTreeMap<(u32, &'static [u8]), Vec<u8>>,
    counted: BTreeSet<(u32, &'static [u8])>,
}

impl Requests {
    pub(super) fn new(first: &[u8]) -> Requests {
        let is_http_2 = first.starts_with(&PREFACE[..TELLING]);
        let frames = is_http_2.then(|| Frames { skip: PREFACE.len(), rest: Vec::new() });
        Requests { frames, tails: BTreeMap::new(), counted: BTreeSet::new() }
    }

    pub(super) fn is_http_2(&self) -> bool {
        self.frames.is_some()
    }

    /// The requests in whose bodies, or over HTTP/1.1 anywhere in which, a marker ends within these bytes; with the marker.
    pub(super) fn holding(&mut self, bytes: &[u8], markers: &[&'static [u8]]) -> Vec<(u32, &'static [u8])> {
        let mut found = Vec::new();
        let Some(frames) = &mut self.frames else {
            for marker in markers {
                let place = (0, *marker);
                found.extend(ends(self.tails.entry(place).or_default(), bytes, marker).map(|_| place));
            }
            return found;
        };
        for frame in frames.whole(bytes).iter().filter(|frame| frame.kind == DATA) {
            for marker in markers {
                let place = (frame.stream, *marker);
                let tail = self.tails.entry(place).or_default();
                if ends(tail, &frame.bytes[FRAME_HEAD..], marker).count() > 0 && self.counted.insert(place) {
                    found.push(place);
                }
            }
            if frame.ends_stream() {
                self.tails.retain(|(stream, _), _| *stream != frame.stream);
            }
        }
        found
    }
}

/// An item for each end of `marker` in what came of a request; keeps what may be the start of another.
fn ends(tail: &mut Vec<u8>, bytes: &[u8], marker: &[u8]) -> std::ops::Range<usize> {
    let mut found = 0;
    tail.extend_from_slice(bytes);
    while !marker.is_empty()
        && let Some(at) = tail.windows(marker.len()).position(|window| window == marker)
    {
        tail.drain(..at + marker.len());
        found += 1;
    }
    tail.drain(..tail.len().saturating_sub(marker.len().saturating_sub(1)));
    0..found
}

/// The replies of one connection.
#[derive(Debug)]
pub(super) struct Replies(Option<Frames>);

impl Replies {
    pub(super) fn new(is_http_2: bool) -> Replies {
        Replies(is_http_2.then(Frames::default))
    }

    /// What may be passed on; `None` when a doomed reply would end with it, or over HTTP/1.1 begin: the server has answered.
    pub(super) fn before_end_of(&mut self, bytes: &[u8], doomed: &Doomed) -> Option<Vec<u8>> {
        let Some(frames) = &mut self.0 else { return doomed.is_empty().then(|| bytes.to_vec()) };
        let frames = frames.whole(bytes);
        let ends = frames.iter().any(|frame| frame.ends_stream() && doomed.contains(&frame.stream));
        (!ends).then(|| frames.into_iter().flat_map(|frame| frame.bytes).collect())
    }
}

/// Cuts a stream of bytes into HTTP/2's frames.
#[derive(Debug, Default)]
struct Frames {
    /// Bytes before the next frame.
    skip: usize,
    rest: Vec<u8>,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    /// With its head.
    bytes: Vec<u8>,
}

impl Frame {
    fn ends_stream(&self) -> bool {
        self.kind == RST_STREAM || (matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0)
    }
}

impl Frames {
    fn whole(&mut self, bytes: &[u8]) -> Vec<Frame> {
        self.rest.extend_from_slice(bytes);
        let skipped = self.skip.min(self.rest.len());
        self.rest.drain(..skipped);
        self.skip -= skipped;
        let mut frames = Vec::new();
        while let [a, b, c, kind, flags, stream @ ..] = self.rest.as_slice()
            && let Some(stream) = stream.first_chunk::<4>()
        {
            let length = FRAME_HEAD + u32::from_be_bytes([0, *a, *b, *c]) as usize;
            if self.rest.len() < length {
                break;
            }
            let (kind, flags, stream) = (*kind, *flags, u32::from_be_bytes(*stream) & !(1 << 31));
            frames.push(Frame { kind, flags, stream, bytes: self.rest.drain(..length).collect() });
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), body].concat()
    }

    #[test]
    fn a_marker_over_two_frames_is_found_in_its_stream_once() {
        let mut requests = Requests::new(PREFACE);
        let bytes = [
            PREFACE.to_vec(),
            frame(HEADERS, 4, 1, b"mark"), // compressed in general: not looked at
            frame(DATA, 0, 1, b"..ma"),
            frame(DATA, 0, 3, b"rk"),
            frame(DATA, END_STREAM, 1, b"rk mark"),
        ];
        // In pieces of any size.
        let found: Vec<_> = bytes.concat().chunks(5).flat_map(|piece| requests.holding(piece, &[b"mark"])).collect();
        assert_eq!((requests.is_http_2(), found), (true, vec![(1, &b"mark"[..])]));
    }

    #[test]
    fn a_doomed_stream_is_cut_where_it_ends_and_no_other() {
        let (mut replies, doomed) = (Replies::new(true), Doomed::from([3]));
        let passed = frame(HEADERS, END_STREAM, 1, b"x");
        assert_eq!(replies.before_end_of(&passed, &doomed), Some(passed));
        let began = frame(HEADERS, 4, 3, b"x");
        assert_eq!(replies.before_end_of(&began, &doomed), Some(began));
        assert_eq!(replies.before_end_of(&frame(HEADERS, END_STREAM, 3, b"x"), &doomed), None);
    }

    #[test]
    fn over_http_1_each_request_with_the_marker_counts_and_the_reply_is_cut_at_its_beginning() {
        let mut requests = Requests::new(b"POST / HTTP/1.1");
        let bytes = b"POST a-mark\r\nGET b\r\nPOST mark";
        let found = bytes.chunks(3).flat_map(|piece| requests.holding(piece, &[b"mark", b"GET"]));
        let found: Vec<_> = found.map(|(_, marker)| marker).collect();
        assert_eq!((requests.is_http_2(), found), (false, vec![&b"mark"[..], b"GET", b"mark"]));
        let mut replies = Replies::new(false);
        assert_eq!(replies.before_end_of(b"HTTP", &Doomed::new()), Some(b"HTTP".to_vec()));
        assert_eq!(replies.before_end_of(b"HTTP", &Doomed::from([0])), None);
    }
}
