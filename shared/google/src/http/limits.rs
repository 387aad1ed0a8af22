//! What the server bears.

use std::time::Duration;

/// Largest request body: an event is a few KB (protocol.md 9).
pub(super) const BODY_MAX: usize = 1 << 20;
/// A connection must have sent its request's head within so long of opening or of the last reply.
pub(super) const HEAD_WITHIN: Duration = Duration::from_secs(30);
/// A body must be there within so long.
pub(super) const BODY_WITHIN: Duration = Duration::from_secs(20);
/// An HTTP/2 connection on which nothing comes is asked so often whether it lives, and closed when it does not say.
pub(super) const IDLE_PING: Duration = Duration::from_secs(30);
/// Requests at once on one HTTP/2 connection.
pub(super) const STREAMS_MAX: u32 = 250;
/// Connections at once. Cloud Run's front end keeps few; beyond that somebody else is calling.
pub(super) const CONNECTIONS_MAX: usize = 1_024;
/// Cloud Run ends a process 10 s after SIGTERM ("Container runtime contract" of its documentation): what is left of the 8 s that a
/// stop may take is for telemetry and the exit.
pub(super) const STOP_WITHIN: Duration = Duration::from_millis(6_500);
