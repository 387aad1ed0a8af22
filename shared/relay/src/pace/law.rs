//! The law of the pace: when the next call to one model may start, as a function of what was sent and what came back.
//!
//! Pure: time is told, as the time since some start, and nothing waits here. Two states:
//!
//! * **Nothing was ever rejected.** Calls in flight are bounded by a window, which doubles quickly until the first answer tells
//!   how long one takes; from then on each answer widens it.
//! * **Something was.** Calls start evenly, at a rate. A burst of rejections cuts the rate once: by a tenth, or to what the burst
//!   before it, if it was the moment before, let through. Between bursts the rate grows: by a fixed number of calls, which
//!   brings many processes to equal shares of one quota, and by a share of itself, both faster the longer nothing is rejected.

use super::meter::Meter;
use std::f64::consts::LN_2;
use std::time::Duration;

/// Calls in flight with which a pace begins, and seconds in which they double until the first answer. Together they decide
/// how long a model without limits waits for full speed: 5,000 calls are in flight after 0.73 s.
const WINDOW_FIRST: f64 = 32.0;
const WINDOW_DOUBLES: f64 = 0.1;
/// Calls more in flight for each answer from then on. How much too fast a pace is when it meets the limit for the first time decides
/// how much of a short run is rejected: with a call for each answer 1.2 % of 15,000, with this 0.7 %.
const WINDOW_WIDENS: f64 = 0.4;
/// From when the window is what calls wait for, they also start evenly, so many times as fast as keeps it full: where all answers take
/// the same time, they would come back in the bursts in which the calls were sent, and the calls after them go out in greater ones.
/// Where something else bounds the calls, each burst is one that the model has taken before.
const WINDOW_PACE: f64 = 1.1;
/// How often the window is looked at while it widens by itself: the step of tokio's timers.
const WINDOW_STEP: Duration = Duration::from_millis(1);
/// A machine that is busy looks late, and must not make up for it in a clump: at most so many seconds count at a look.
const WINDOW_LATE: f64 = 0.004;
/// No process has so many calls in flight.
const WINDOW_MAX: f64 = 1e6;
/// After the first rejection no call starts for so many times as long as it took, and for so many seconds at least: what is in
/// flight tells how much too fast it was, and the quota recovers meanwhile. Latencies differ by less than that.
const LISTEN: f64 = 1.5;
const LISTEN_MIN: f64 = 0.02;
/// And at most so many: a rejection may come after minutes (flex waits for a place), and that is no reason to wait as long again.
const LISTEN_MAX: f64 = 10.0;
/// A first rejection that comes sooner, in seconds, measures no rate: calls start in clumps of a millisecond.
const REJECTS_IN_MIN: f64 = 0.005;
/// What an answer takes, in seconds, before there was one.
const ANSWERS_IN: f64 = 5.0;
/// The share of the rate that a burst takes. With the growth it decides how often the limit is met: see the simulation.
const CUT: f64 = 0.1;
/// Rejections of calls that were sent within so many seconds after a cut still belong to the burst: the quota is used up, and a busy
/// machine sends calls in clumps. And how long calls must have been sent for their share of rejections to tell a rate.
const BURST: f64 = 0.1;
const BURST_TELLS: f64 = 0.03;
/// What is left of the rate when nothing at all came through since the burst before.
const HALF: f64 = 0.5;
/// A burst with a greater share of rejections is an outage: what the model took before it is tried again afterwards.
const OUTAGE: f64 = 0.8;
/// With this share of what the model took before a pace comes back from an outage or from idleness, and doubles with each
/// answer's time up to the second share.
const COMEBACK: f64 = 0.125;
const NEAR: f64 = 0.8;
/// The slowest rate in calls per second: in an outage a process asks every two seconds whether it is over.
const RATE_MIN: f64 = 0.5;
/// What a rate grows by in a second: so many calls per second, and such a share of itself; twice that after so many seconds
/// without a rejection, and with their square from then on; the share at most so much.
const GROWTH: f64 = 0.25;
const GROWTH_SHARE: f64 = 0.0017;
const GROWTH_DOUBLES: f64 = 7.0;
const GROWTH_SHARE_MAX: f64 = 0.2;
/// At first the rate is a guess, from few calls where rejections are quick, and then cheap. It grows by this share
/// of itself in the time of a rejection, and by so much in a second at most.
const SEARCH: f64 = 0.05;
const SEARCH_MAX: f64 = 0.5;
/// Without a call for so many seconds what is known halves, and again after as long.
const IDLE: f64 = 10.0;
/// The weight of one more latency in their mean.
const WEIGHT: f64 = 0.1;

/// A call in flight.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    sent: Duration,
    nth: u64,
}

/// What has been learnt about one model.
#[derive(Debug)]
pub struct Law {
    in_flight: u64,
    sent: u64,
    last_sent: Duration,
    held: Duration,
    /// Means of latencies in seconds, once there is one.
    answers_in: Option<f64>,
    rejects_in: Option<f64>,
    window: Window,
    paced: Option<Paced>,
}

/// Calls in flight at most, while nothing was rejected.
#[derive(Debug)]
struct Window {
    calls: f64,
    widened: Option<Duration>,
    answered: Option<Duration>,
    /// A call waited for it since then.
    binds: bool,
    meter: Meter,
}

/// A rate, once something was rejected. Rates are calls per second.
#[derive(Debug)]
struct Paced {
    rate: f64,
    /// What the model took when it last rejected some.
    limit: f64,
    /// What it took before the bursts since which nothing was answered that was sent after them; and since when.
    before: f64,
    since: Duration,
    proven: bool,
    burst: Burst,
    /// Nothing was sent since the very first rejection.
    listening: bool,
    /// There was no burst yet since calls were answered at this rate.
    searching: bool,
    /// Since when the rate has grown without a rejection; until when it has.
    calm: Duration,
    grown: Duration,
    meter: Meter,
}

/// Rejections of calls that were sent before the cut that the first of them caused.
#[derive(Debug)]
struct Burst {
    cut: Duration,
    /// The rate until then.
    rate: f64,
    /// Calls sent from the first one that was rejected until the cut.
    sent: f64,
    rejected: f64,
    /// For so long.
    seconds: f64,
}

impl Default for Law {
    fn default() -> Law {
        Law {
            in_flight: 0,
            sent: 0,
            last_sent: Duration::ZERO,
            held: Duration::ZERO,
            answers_in: None,
            rejects_in: None,
            window: Window::default(),
            paced: None,
        }
    }
}

impl Law {
    /// The earliest time from `now` at which a call may start; `None` when a reply must come before.
    pub fn permit_at(&mut self, now: Duration) -> Option<Duration> {
        self.decay(now);
        let at = match &self.paced {
            Some(paced) => paced.meter.due(now),
            None => self.window.permit_at(now, self.in_flight)?.max(self.window.meter.due(now)),
        };
        Some(at.max(self.held))
    }

    /// A call starts.
    pub fn on_send(&mut self, now: Duration) -> Ticket {
        self.in_flight += 1;
        self.sent += 1;
        self.last_sent = now;
        if let Some(paced) = &mut self.paced {
            paced.grow(
                now,
                self.answers_in.or(self.rejects_in).unwrap_or(ANSWERS_IN),
                self.rejects_in.unwrap_or(ANSWERS_IN),
            );
            paced.meter.take(now, 1.0, paced.rate);
        } else if let (true, Some(answers_in)) = (self.window.binds, self.answers_in) {
            let rate = WINDOW_PACE * self.window.calls / answers_in.max(WINDOW_STEP.as_secs_f64());
            self.window.meter.take(now, 1.0, rate);
        }
        Ticket { sent: now, nth: self.sent }
    }

    /// An answer came, whatever it says.
    pub fn on_ok(&mut self, now: Duration, call: Ticket) {
        self.in_flight -= 1;
        mean(&mut self.answers_in, seconds(call.sent, now));
        self.window.answered(now, call.sent);
        if let Some(paced) = &mut self.paced {
            paced.answered(now, call.sent);
        }
    }

    /// Neither an answer nor a rejection came: the model's limits are not what is wrong.
    pub fn on_lost(&mut self) {
        self.in_flight -= 1;
    }

    /// The call was rejected: 429, or an "overloaded" 503. `hold` is the time that the model named, if it did: no call starts
    /// before.
    pub fn on_rejected(&mut self, now: Duration, call: Ticket, hold: Option<Duration>) {
        self.in_flight -= 1;
        let took = seconds(call.sent, now);
        let rejects_in = mean(&mut self.rejects_in, took);
        self.held = self.held.max(now + hold.unwrap_or_default());
        let sent = (self.sent - call.nth + 1) as f64;
        match &mut self.paced {
            None => {
                self.paced = Some(Paced::starting(now, sent / took.max(REJECTS_IN_MIN), sent));
                self.held = self.held.max(now + Duration::from_secs_f64((LISTEN * took).clamp(LISTEN_MIN, LISTEN_MAX)));
            }
            Some(paced) if call.sent < paced.burst.cut => paced.burst.rejected += 1.0,
            Some(paced) if seconds(paced.burst.cut, call.sent) < BURST => (),
            Some(paced) => {
                let answers_in = self.answers_in.unwrap_or(ANSWERS_IN);
                let soon = rejects_in.max(self.answers_in.unwrap_or(0.0));
                paced.cut(now, call.sent, sent, LISTEN * soon, LISTEN * answers_in);
            }
        }
    }

    /// Calls per second that may start, once something was rejected.
    pub fn rate(&self) -> Option<f64> {
        self.paced.as_ref().map(|paced| paced.rate)
    }

    /// What is known fades while nothing is asked.
    fn decay(&mut self, now: Duration) {
        let idle = seconds(self.last_sent, now);
        if self.in_flight > 0 || self.sent == 0 || idle < IDLE {
            return;
        }
        self.window = Window::default();
        if let Some(paced) = &mut self.paced {
            let left = (paced.limit * (-idle / IDLE).exp2()).max(paced.limit * COMEBACK);
            paced.rate = paced.rate.min(left).max(RATE_MIN);
            (paced.calm, paced.grown) = (now, now);
        }
    }
}

impl Default for Window {
    fn default() -> Window {
        Window { calls: WINDOW_FIRST, widened: None, answered: None, binds: false, meter: Meter::default() }
    }
}

impl Window {
    fn permit_at(&mut self, now: Duration, in_flight: u64) -> Option<Duration> {
        let since = *self.widened.get_or_insert(now);
        if self.answered.is_none() {
            let past = seconds(since, now).min(WINDOW_LATE);
            self.calls = (self.calls * (past / WINDOW_DOUBLES).exp2()).min(WINDOW_MAX);
            self.widened = Some(now);
        }
        if (in_flight as f64) < self.calls {
            return Some(now);
        }
        self.binds = self.answered.is_some();
        // Once answers come, each makes room.
        (!self.binds).then(|| now + WINDOW_STEP)
    }

    fn answered(&mut self, now: Duration, sent: Duration) {
        if sent >= *self.answered.get_or_insert(now) {
            self.calls = (self.calls + WINDOW_WIDENS).min(WINDOW_MAX);
        }
    }
}

impl Paced {
    /// After the first rejection: calls were sent at `rate`, `sent` of them since the one that was rejected.
    fn starting(now: Duration, rate: f64, sent: f64) -> Paced {
        Paced {
            rate: rate * HALF,
            limit: rate * HALF,
            before: rate * HALF,
            since: now,
            proven: false,
            burst: Burst { cut: now, rate, sent, rejected: 1.0, seconds: 0.0 },
            listening: true,
            searching: true,
            calm: now,
            grown: now,
            meter: Meter::starting(now),
        }
    }

    fn answered(&mut self, now: Duration, sent: Duration) {
        if sent < self.since {
            return;
        }
        self.proven = true;
        if self.rate < COMEBACK * self.limit {
            self.rate = COMEBACK * self.limit;
            self.meter = Meter::starting(now);
        }
    }

    /// A new burst: a call that was sent at `first` is rejected, and `sent` calls were sent since. `soon` and `late` are seconds
    /// within which replies come: of any kind, and answers.
    fn cut(&mut self, now: Duration, first: Duration, sent: f64, soon: f64, late: f64) {
        if self.proven {
            self.searching = false;
            (self.before, self.since, self.proven) = (self.limit, now, false);
        }
        let silent = seconds(self.since, now) > late;
        // The last cut was not enough: what that burst let through tells how much would have been.
        let again = seconds(self.burst.cut, first) <= soon.max(2.0 * BURST);
        let share = if self.burst.seconds < BURST_TELLS { 0.0 } else { self.burst.share() };
        let mut passed = if again { self.rate.min(self.burst.rate * (1.0 - share)) } else { self.rate };
        if silent {
            passed = passed.min(self.rate * HALF);
        }
        self.limit = if silent || (again && share > OUTAGE) { self.before } else { passed };
        self.burst = Burst { cut: now, rate: self.rate, sent, rejected: 1.0, seconds: seconds(first, now) };
        self.rate = (passed * (1.0 - CUT)).max(RATE_MIN);
        (self.calm, self.grown) = (now, now);
    }

    fn grow(&mut self, now: Duration, answers_in: f64, rejects_in: f64) {
        if std::mem::take(&mut self.listening) {
            self.limit = (self.burst.rate * (1.0 - self.burst.share())).max(RATE_MIN);
            (self.before, self.rate) = (self.limit, (self.limit * (1.0 - CUT)).max(RATE_MIN));
            (self.burst.cut, self.calm) = (now, now);
        }
        let past = seconds(self.grown, now).min(1.0);
        self.grown = now;
        if self.meter.lags(now) {
            self.calm = now; // a rate that is not used is not tried
            return;
        }
        let calm = seconds(self.calm, now) / GROWTH_DOUBLES;
        let faster = 1.0 + calm * calm;
        let share = if self.proven && self.rate < NEAR * self.limit {
            LN_2 / answers_in.max(WINDOW_DOUBLES)
        } else if self.searching {
            (SEARCH / rejects_in).min(SEARCH_MAX)
        } else {
            (GROWTH_SHARE * faster).min(GROWTH_SHARE_MAX)
        };
        self.rate += past * (GROWTH * faster + share * self.rate);
    }
}

impl Burst {
    /// The share of its calls that was rejected, cautiously: few calls tell little.
    fn share(&self) -> f64 {
        ((self.rejected - self.rejected.sqrt()) / self.sent).clamp(0.0, 1.0)
    }
}

fn seconds(from: Duration, to: Duration) -> f64 {
    to.saturating_sub(from).as_secs_f64()
}

fn mean(of: &mut Option<f64>, one: f64) -> f64 {
    let mean = of.get_or_insert(one);
    *mean += WEIGHT * (one - *mean);
    *mean
}
