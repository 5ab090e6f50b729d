//! What is made of the results of a backend's checks: whether it is ready, and how much of its weight it has.

use super::config::HealthConfig;
use super::damping::Damping;
use super::failure::Failure;
use super::slow_start;
use std::time::Duration;

/// What is known of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum State {
    /// Nothing yet: it gets no connections. Its first check decides.
    #[default]
    Unknown,
    /// It is ready.
    Up,
    /// It is not.
    Down,
}

/// A backend before its judge.
#[derive(Clone, Debug, Default)]
pub(super) struct Judge {
    pub(super) state: State,
    /// Since when.
    pub(super) since: Duration,
    /// Whether its weight grows slowly: not that of one that was there when everything began.
    grows: bool,
    /// Checks in a row that ended otherwise than its state says.
    streak: u32,
    damping: Damping,
    /// Until when the traffic keeps it down.
    kept_down: Duration,
    /// How often it has changed between up and down.
    pub(super) changes: u64,
}

impl Judge {
    /// A backend that nobody has looked at yet; whether it has come to others that were there.
    pub(super) fn new(now: Duration, is_late: bool) -> Self {
        Self { since: now, grows: is_late, ..Self::default() }
    }

    /// A backend that was in use before anybody looked at it.
    pub(super) fn presumed_up(now: Duration) -> Self {
        Self { state: State::Up, since: now, ..Self::default() }
    }

    /// Takes the result of a check; the state that it was in, if that has changed.
    pub(super) fn hear(&mut self, now: Duration, result: &Result<(), Failure>, config: &HealthConfig) -> Option<State> {
        let is_good = result.is_ok();
        if is_good == (self.state == State::Up) {
            self.streak = 0;
            // Of one that nothing is known of yet, a failure tells all.
            return (self.state == State::Unknown).then(|| self.becomes(State::Down, now));
        }
        self.streak = self.streak.saturating_add(1);
        let is_held = self.is_held(now, config);
        match self.state {
            State::Unknown => Some(self.becomes(State::Up, now)),
            State::Up if self.streak < config.fall => None,
            State::Up => Some(self.falls(now, config)),
            State::Down if self.streak < config.rise || is_held => None,
            State::Down => {
                self.grows = true;
                self.changes += 1;
                Some(self.becomes(State::Up, now))
            }
        }
    }

    /// Takes it down for what the traffic says, for so long at least; the state that it was in, if that has changed.
    pub(super) fn take_down(&mut self, now: Duration, least: Duration, config: &HealthConfig) -> Option<State> {
        if self.state != State::Up {
            return None;
        }
        self.kept_down = now + least;
        Some(self.falls(now, config))
    }

    /// Until when it is kept down although it answers, if it is.
    pub(super) fn held_until(&self, now: Duration, config: &HealthConfig) -> Option<Duration> {
        let damped = self.damping.held_until(config.damping.0).unwrap_or(Duration::ZERO);
        (self.state == State::Down).then_some(damped.max(self.kept_down)).filter(|until| now < *until)
    }

    /// How many tenths of its weight it has.
    pub(super) fn tenths(&self, now: Duration, config: &HealthConfig) -> u8 {
        match self.state {
            State::Unknown | State::Down => 0,
            State::Up if self.grows => slow_start::tenths(now.saturating_sub(self.since), config.slow_start.0),
            State::Up => slow_start::WHOLE,
        }
    }

    fn is_held(&mut self, now: Duration, config: &HealthConfig) -> bool {
        self.damping.is_held(now, config.damping.0) || now < self.kept_down
    }

    fn falls(&mut self, now: Duration, config: &HealthConfig) -> State {
        self.damping.fell(now, config.damping.0);
        self.changes += 1;
        self.becomes(State::Down, now)
    }

    fn becomes(&mut self, state: State, now: Duration) -> State {
        self.streak = 0;
        self.since = now;
        std::mem::replace(&mut self.state, state)
    }
}

#[cfg(test)]
mod tests {
    use super::super::check::Check;
    use super::*;

    fn config(text: &str) -> HealthConfig {
        Check::new(toml::from_str(&format!("kind = 'tcp'\n{text}")).unwrap(), "health").unwrap().config
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// What a row of results, one each second, makes of a backend: `+` and `-` to `U`p, `D`own, `?`.
    fn states(judge: &mut Judge, results: &str, config: &HealthConfig, from: u64) -> String {
        let mut at = from;
        let state = |result: char| {
            let result = if result == '+' { Ok(()) } else { Err(Failure::Silent) };
            at += 1;
            let before = judge.state;
            assert_eq!(judge.hear(seconds(at), &result, config).unwrap_or(judge.state), before);
            match judge.state {
                State::Unknown => '?',
                State::Up => 'U',
                State::Down => 'D',
            }
        };
        results.chars().map(state).collect()
    }

    #[test]
    fn so_many_in_a_row_change_a_state() {
        let cases = [
            ("the first one decides", "rise = 3\nfall = 3", "+", "U"),
            ("the first one decides", "rise = 3\nfall = 3", "-", "D"),
            ("fall", "rise = 2\nfall = 3", "+---", "UUUD"),
            ("rise", "rise = 3\nfall = 1", "-+++", "DDDU"),
            ("one between begins anew", "rise = 2\nfall = 3", "+--+---", "UUUUUUD"),
            ("one between begins anew", "rise = 2\nfall = 1", "-+-++", "DDDDU"),
            ("at once", "rise = 1\nfall = 1\ndamping = 0", "+-+-+-+-", "UDUDUDUD"),
            ("held from the third time on", "rise = 1\nfall = 1\ndamping = 10", "+-+-+-+++++", "UDUDUDDDDDD"),
        ];
        for (what, text, results, expected) in cases {
            assert_eq!(states(&mut Judge::default(), results, &config(text), 0), expected, "{what}");
        }
    }

    #[test]
    fn one_that_is_held_comes_back_when_its_time_is_over_and_it_answers() {
        let config = config("rise = 1\nfall = 1\ndamping = 10");
        let mut judge = Judge::default();
        assert_eq!(states(&mut judge, "+-+-+-", &config, 0), "UDUDUD");
        let until = judge.held_until(seconds(7), &config).unwrap();
        assert!(until > seconds(20) && until < seconds(27), "{until:?}");
        let held = "+".repeat(usize::try_from(until.as_secs() - 6).unwrap());
        assert!(states(&mut judge, &held, &config, 6).chars().all(|state| state == 'D'));
        assert_eq!(states(&mut judge, "+", &config, until.as_secs()), "U");
        assert_eq!(judge.held_until(until, &config), None);
        assert_eq!(judge.changes, 6);
    }

    #[test]
    fn one_that_comes_back_or_late_begins_with_a_tenth() {
        let config = config("slow_start = 10\nrise = 1\nfall = 1");
        let mut first = Judge::new(seconds(0), false);
        assert_eq!(first.tenths(seconds(0), &config), 0);
        assert_eq!(states(&mut first, "+", &config, 0), "U");
        assert_eq!(first.tenths(seconds(1), &config), 10);
        assert_eq!(states(&mut first, "-", &config, 1), "D");
        assert_eq!(first.tenths(seconds(2), &config), 0);
        assert_eq!(states(&mut first, "+", &config, 2), "U");
        assert_eq!([3, 8, 13].map(|at| first.tenths(seconds(at), &config)), [1, 5, 10]);

        let mut late = Judge::new(seconds(0), true);
        assert_eq!(states(&mut late, "+", &config, 0), "U");
        assert_eq!(late.tenths(seconds(1), &config), 1);
    }

    #[test]
    fn what_the_traffic_takes_down_stays_down_for_a_while_however_it_answers() {
        let config = config("rise = 1");
        let mut judge = Judge::default();
        assert_eq!(judge.take_down(seconds(1), seconds(10), &config), None);
        assert_eq!(states(&mut judge, "+", &config, 0), "U");
        assert_eq!(judge.take_down(seconds(2), seconds(10), &config), Some(State::Up));
        assert_eq!(judge.held_until(seconds(2), &config), Some(seconds(12)));
        assert_eq!(states(&mut judge, "+++++++++++", &config, 2), "DDDDDDDDDUU");
    }
}
