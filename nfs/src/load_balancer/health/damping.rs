//! What is held against a backend that goes down again and again: RFC 2439, by its figures.
//!
//! Every time that it goes down costs it a penalty of one, which halves in every half-life. One that has more than
//! [`SUPPRESS`] is held down, however well it answers, until it has less than [`REUSE`] left; so the third time in
//! short order is the first that is held against it, for two half-lives. No penalty is more than what is forgiven in
//! [`LONGEST`] half-lives, so no backend that answers stays down for longer.

use std::time::Duration;

/// More than this holds a backend down.
const SUPPRESS: f64 = 2.0;
/// Less than this lets it up again.
const REUSE: f64 = 0.75;
/// The longest that a backend is held down, in half-lives.
const LONGEST: f64 = 4.0;

/// The penalty of one backend.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Damping {
    /// At the time `since`.
    penalty: f64,
    since: Duration,
    is_held: bool,
}

impl Damping {
    /// It has gone down.
    pub(super) fn fell(&mut self, now: Duration, half_life: Duration) {
        self.decay(now, half_life);
        let most = REUSE * LONGEST.exp2();
        self.penalty = (self.penalty + 1.0).min(most);
        self.is_held |= self.penalty > SUPPRESS && !half_life.is_zero();
    }

    /// Until when it is held down, if it is.
    pub(super) fn held_until(&self, half_life: Duration) -> Option<Duration> {
        let left = (self.penalty / REUSE).log2().max(0.0);
        (self.is_held && !half_life.is_zero()).then(|| self.since + half_life.mul_f64(left))
    }

    /// Whether it is held down now.
    pub(super) fn is_held(&mut self, now: Duration, half_life: Duration) -> bool {
        self.is_held = self.held_until(half_life).is_some_and(|until| now < until);
        self.is_held
    }

    fn decay(&mut self, now: Duration, half_life: Duration) {
        let lives = now.saturating_sub(self.since).as_secs_f64() / half_life.as_secs_f64();
        // Without a half-life nothing lasts.
        self.penalty = if half_life.is_zero() { 0.0 } else { self.penalty * (-lives).exp2() };
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HALF_LIFE: Duration = Duration::from_secs(60);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_third_time_in_short_order_holds_a_backend_down_for_two_half_lives() {
        let mut damping = Damping::default();
        for (at, is_held) in [(100, false), (101, false), (102, true)] {
            damping.fell(seconds(at), HALF_LIFE);
            assert_eq!(damping.is_held(seconds(at), HALF_LIFE), is_held, "{at}");
        }
        let until = damping.held_until(HALF_LIFE).unwrap() - seconds(102);
        assert!(until > seconds(117) && until <= seconds(120), "{until:?}");
        assert!(damping.is_held(seconds(218), HALF_LIFE));
        assert!(!damping.is_held(seconds(222), HALF_LIFE));
        // Once let up, it is not held again for what it did before.
        assert!(!damping.is_held(seconds(223), HALF_LIFE));
        // But sooner than one without a past.
        damping.fell(seconds(224), HALF_LIFE);
        damping.fell(seconds(225), HALF_LIFE);
        assert!(damping.is_held(seconds(225), HALF_LIFE));
    }

    #[test]
    fn one_that_falls_now_and_then_is_not_held() {
        let mut damping = Damping::default();
        for at in (0..100).map(|fall| seconds(fall * 120)) {
            damping.fell(at, HALF_LIFE);
            assert!(!damping.is_held(at, HALF_LIFE), "{at:?}");
        }
    }

    #[test]
    fn however_often_it_falls_it_is_held_four_half_lives_at_most() {
        let mut damping = Damping::default();
        for at in (0..10_000).map(Duration::from_millis) {
            damping.fell(at, HALF_LIFE);
        }
        let until = damping.held_until(HALF_LIFE).unwrap();
        assert!(until > seconds(10 + 239) && until <= seconds(10 + 240), "{until:?}");
    }

    #[test]
    fn without_a_half_life_nothing_is_held() {
        let mut damping = Damping::default();
        for _ in 0..10 {
            damping.fell(seconds(1), Duration::ZERO);
        }
        assert!(!damping.is_held(seconds(1), Duration::ZERO));
        assert_eq!(damping.held_until(Duration::ZERO), None);
    }
}
