//! What the traffic itself says of a backend: how many of its connections fail.

use super::config::PassiveConfig;
use std::time::Duration;

/// Connections of a backend, since it is one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Traffic {
    /// That began.
    pub(crate) begun: u64,
    /// That were reset before they were established, or not answered.
    pub(crate) failed: u64,
}

/// The window in which one backend's connections are counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    since: Duration,
    /// What there was at its beginning.
    before: Option<Traffic>,
}

impl Window {
    /// Takes what there is, and says how much of a window that is over went wrong, if it was too much.
    pub(super) fn look(&mut self, now: Duration, total: Traffic, config: &PassiveConfig) -> Option<Traffic> {
        let Some(before) = self.before else {
            *self = Self { since: now, before: Some(total) };
            return None;
        };
        let begun = total.begun.saturating_sub(before.begun);
        let failed = total.failed.saturating_sub(before.failed);
        let is_much = begun >= config.least && failed.saturating_mul(100) >= begun.saturating_mul(config.failed.into());
        if now < self.since + config.window.0 {
            return None;
        }
        *self = Self { since: now, before: Some(total) };
        is_much.then_some(Traffic { begun, failed })
    }

    /// Forgets what was counted: the backend is down.
    pub(super) fn forget(&mut self) {
        self.before = None;
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Seconds;
    use super::*;

    #[test]
    fn too_many_failures_in_a_window_are_told_at_its_end() {
        let config = PassiveConfig { failed: 50, least: 20, window: Seconds(Duration::from_secs(10)) };
        let cases = [
            ("half fail", 20, 10, true),
            ("fewer fail", 100, 49, false),
            ("too few to tell", 19, 19, false),
            ("nothing goes on", 0, 0, false),
        ];
        for (what, begun, failed, expected) in cases {
            let mut window = Window::default();
            let start = Traffic { begun: 1000, failed: 900 };
            let end = Traffic { begun: start.begun + begun, failed: start.failed + failed };
            assert_eq!(window.look(Duration::from_secs(5), start, &config), None, "{what}");
            assert_eq!(window.look(Duration::from_secs(14), end, &config), None, "{what}");
            let told = window.look(Duration::from_secs(15), end, &config);
            assert_eq!(told, expected.then_some(Traffic { begun, failed }), "{what}");
            // The next window begins with nothing.
            assert_eq!(window.look(Duration::from_secs(25), end, &config), None, "{what}");
            // So does one after the backend was down.
            window.forget();
            assert_eq!(window.look(Duration::from_secs(99), Traffic::default(), &config), None, "{what}");
            assert_eq!(window.look(Duration::from_secs(99), end, &config), None, "{what}");
        }
    }
}
