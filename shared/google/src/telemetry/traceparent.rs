//! The W3C trace context, level 1 (<https://www.w3.org/TR/trace-context/>), as far as it travels in an object's metadata.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};
use std::fmt;
use std::str::FromStr;

/// A `traceparent`: a trace, and the span in it that whatever comes next is a child of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// 16 bytes, never all zero.
    pub trace: [u8; 16],
    /// 8 bytes, never all zero.
    pub span: [u8; 8],
    /// Whether the trace is recorded.
    pub sampled: bool,
}

/// A text that is no `traceparent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct NotATraceparent;

impl Traceparent {
    /// The trace of a run, derived from its name. So a run is one trace whatever happens to it: a lost event that a sweep makes
    /// up for, a second delivery, an object whose metadata was not copied; and who knows the run finds its trace.
    pub fn of_run(run: &str) -> Traceparent {
        let digest: [u8; 32] = Sha256::digest(format!("trace of {run}")).into();
        let (mut trace, mut span) = ([0; 16], [0; 8]);
        trace.copy_from_slice(&digest[..16]);
        span.copy_from_slice(&digest[16..24]);
        Traceparent { trace, span, sampled: true }
    }

    /// The trace as 32 hexadecimal digits.
    pub fn trace_id(&self) -> String {
        HEXLOWER.encode(&self.trace)
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace_id(), HEXLOWER.encode(&self.span), u8::from(self.sampled))
    }
}

impl FromStr for Traceparent {
    type Err = NotATraceparent;

    /// Strict: lower-case hexadecimal, no zero id, nothing behind version 00. Of a later version the four fields of version 00
    /// are read, as the recommendation wants it.
    fn from_str(text: &str) -> Result<Traceparent, NotATraceparent> {
        let mut fields = text.split('-');
        let mut next = || fields.next().ok_or(NotATraceparent);
        let [version] = bytes(next()?)?;
        let (trace, span, [flags]) = (bytes(next()?)?, bytes(next()?)?, bytes(next()?)?);
        let ends = fields.next().is_none() || version != 0;
        if version == 0xff || !ends || trace == [0; 16] || span == [0; 8] {
            return Err(NotATraceparent);
        }
        Ok(Traceparent { trace, span, sampled: flags & 1 == 1 })
    }
}

fn bytes<const N: usize>(digits: &str) -> Result<[u8; N], NotATraceparent> {
    let decoded = HEXLOWER.decode(digits.as_bytes()).map_err(|_| NotATraceparent)?;
    decoded.try_into().map_err(|_| NotATraceparent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_read() {
        let read: Traceparent = GOOD.parse().unwrap();
        assert_eq!((read.trace_id().as_str(), read.sampled), ("4bf92f3577b34da6a3ce929d0e0e4736", true));
        assert_eq!(read.to_string(), GOOD);
        assert!(!GOOD.replace("-01", "-02").parse::<Traceparent>().unwrap().sampled);
    }

    #[test]
    fn a_later_version_may_say_more_and_this_one_may_not() {
        assert_eq!(GOOD.replacen("00", "01", 1).parse(), GOOD.parse::<Traceparent>());
        assert_eq!(format!("{}-more", GOOD.replacen("00", "cc", 1)).parse(), GOOD.parse::<Traceparent>());
        assert_eq!(format!("{GOOD}-more").parse::<Traceparent>(), Err(NotATraceparent));
    }

    #[test]
    fn what_is_no_traceparent_is_not_guessed_at() {
        let zero = GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32));
        let no_span = GOOD.replace("00f067aa0ba902b7", &"0".repeat(16));
        let short = &GOOD[..GOOD.len() - 1];
        let (upper, latest) = (GOOD.to_uppercase(), GOOD.replacen("00", "ff", 1));
        let spaced = format!(" {GOOD}");
        for bad in ["", "00", "00-", short, &zero, &no_span, &upper, &latest, &spaced, "00-x-y-01", "é"] {
            assert_eq!(bad.parse::<Traceparent>(), Err(NotATraceparent), "{bad}");
        }
    }

    #[test]
    fn a_run_has_one_trace_of_its_own() {
        let (one, other) = (Traceparent::of_run("ra"), Traceparent::of_run("rb"));
        assert_eq!(one, Traceparent::of_run("ra"));
        assert_ne!(one.trace, other.trace);
        assert_eq!(one.to_string().parse(), Ok(one));
    }
}
