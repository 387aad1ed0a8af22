use super::call::{Call, Op};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How a request goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status; nothing is done.
    Status(u16),
    /// Done; the connection breaks before the reply.
    LostReply,
    /// Done, then answered with this status, as a front end does that lost the reply.
    DoneThenStatus(u16),
    /// Done and answered so much later.
    Late(Duration),
    /// Neither done nor answered.
    Hang,
    /// Done; never answered.
    DoneThenHang,
    /// The connection breaks after so many bytes of the reply's body.
    CutBody(usize),
    /// A read names another checksum than its body's.
    WrongChecksum,
    /// A read names no checksum.
    NoChecksum,
}

/// Which requests go wrong.
#[derive(Clone, Debug, Default)]
pub struct On {
    op: Option<Op>,
    bucket: Option<String>,
    prefix: String,
}

impl On {
    /// All of them.
    pub fn any() -> On {
        On::default()
    }

    /// Those of one kind.
    pub fn op(op: Op) -> On {
        On { op: Some(op), ..On::default() }
    }

    /// To one bucket.
    pub fn bucket(self, bucket: &str) -> On {
        On { bucket: Some(bucket.to_owned()), ..self }
    }

    /// To objects whose names start so.
    pub fn prefix(self, prefix: &str) -> On {
        On { prefix: prefix.to_owned(), ..self }
    }

    fn matches(&self, call: &Call) -> bool {
        self.op.is_none_or(|op| op == call.op)
            && self.bucket.as_ref().is_none_or(|bucket| *bucket == call.bucket)
            && call.name.starts_with(&self.prefix)
    }
}

/// The faults to come.
#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<(On, u32, Fault)>>);

impl Faults {
    pub(super) fn add(&self, on: On, times: u32, fault: Fault) {
        self.all().push((on, times, fault));
    }

    pub(super) fn clear(&self) {
        self.all().clear();
    }

    /// How many have not been met yet.
    pub(super) fn left(&self) -> u64 {
        self.all().iter().map(|(_, times, _)| u64::from(*times)).sum()
    }

    /// What is to go wrong with this request.
    pub(super) fn meet(&self, call: &Call) -> Option<Fault> {
        let mut all = self.all();
        let (_, times, fault) = all.iter_mut().find(|(on, times, _)| *times > 0 && on.matches(call))?;
        *times -= 1;
        Some(*fault)
    }

    fn all(&self) -> MutexGuard<'_, Vec<(On, u32, Fault)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
