//! What a client does about a quota that it does not know.

use std::time::Duration;
use tasuki_relay::pace::{Law, Ticket};

/// Decides when calls start. There is always a next one; a call that is rejected is sent again in its place.
pub trait Policy {
    /// A call in flight.
    type Call: Copy;
    /// The earliest time from `now` at which a call may start; `None` when a reply must come before.
    fn permit_at(&mut self, now: Duration) -> Option<Duration>;
    /// A call starts.
    fn send(&mut self, now: Duration) -> Self::Call;
    /// Its answer came.
    fn answered(&mut self, now: Duration, call: Self::Call);
    /// It was rejected.
    fn rejected(&mut self, now: Duration, call: Self::Call);
}

/// Tasuki's law, with calls in flight at most.
pub struct Adaptive {
    law: Law,
    in_flight: u32,
    most: u32,
}

impl Adaptive {
    /// A client that has seen nothing yet.
    pub fn new(most: u32) -> Adaptive {
        Adaptive { law: Law::default(), in_flight: 0, most }
    }
}

impl Policy for Adaptive {
    type Call = Ticket;
    fn permit_at(&mut self, now: Duration) -> Option<Duration> {
        if self.in_flight < self.most { self.law.permit_at(now) } else { None }
    }
    fn send(&mut self, now: Duration) -> Ticket {
        self.in_flight += 1;
        self.law.on_send(now)
    }
    fn answered(&mut self, now: Duration, call: Ticket) {
        self.in_flight -= 1;
        self.law.on_ok(now, call);
    }
    fn rejected(&mut self, now: Duration, call: Ticket) {
        self.in_flight -= 1;
        self.law.on_rejected(now, call, None);
    }
}
