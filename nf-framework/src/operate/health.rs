//! Whether control and every worker turn, without asking them: one that hangs would not answer.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often they are looked at.
pub(crate) const LOOKS: Duration = Duration::from_millis(250);
/// How long a worker may take for a round. It takes microseconds, and up to a second to be given a CPU again on a
/// machine that is overrun.
const WORKER: Duration = Duration::from_secs(2);
/// And control between two looks for requests: it may be building a large policy, or wait for a worker.
const CONTROL: Duration = Duration::from_secs(15);

/// What moves while all is well.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Pulse {
    /// Whether all workers have begun.
    pub(crate) runs: bool,
    pub(crate) stopping: bool,
    /// Times that control has looked for requests.
    pub(crate) control: u64,
    /// Rounds, by worker.
    pub(crate) workers: Vec<u64>,
}

/// When each was last seen to move.
#[derive(Clone)]
pub(crate) struct Health {
    feel: Arc<dyn Fn() -> Pulse + Send + Sync>,
    seen: Arc<Mutex<Seen>>,
}

struct Seen {
    pulse: Pulse,
    control: Instant,
    workers: Vec<Instant>,
}

impl Health {
    pub(crate) fn new(feel: impl Fn() -> Pulse + Send + Sync + 'static) -> Self {
        let (pulse, now) = (feel(), Instant::now());
        let workers = vec![now; pulse.workers.len()];
        Self { feel: Arc::new(feel), seen: Arc::new(Mutex::new(Seen { pulse, control: now, workers })) }
    }

    /// To be called every [`LOOKS`].
    pub(crate) fn look(&self, now: Instant) {
        let pulse = (self.feel)();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if !seen.pulse.runs || pulse.control != seen.pulse.control {
            seen.control = now;
        }
        let Seen { pulse: before, workers, .. } = &mut *seen;
        for ((at, new), old) in workers.iter_mut().zip(&pulse.workers).zip(&before.workers) {
            if !before.runs || new != old {
                *at = now;
            }
        }
        seen.pulse = pulse;
    }

    /// What is wrong, in a sentence.
    pub(crate) fn fault(&self, now: Instant) -> Option<String> {
        self.look(now);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { pulse, control, workers } = &*seen;
        if pulse.stopping {
            return Some("the program is stopping".to_owned());
        }
        if !pulse.runs {
            return Some("the program is starting".to_owned());
        }
        let since = |at: &Instant| now.saturating_duration_since(*at);
        if let Some((worker, at)) = workers.iter().enumerate().find(|(_, at)| since(at) > WORKER) {
            return Some(format!("worker {worker} has not turned for {} s", since(at).as_secs()));
        }
        (since(control) > CONTROL).then(|| format!("control has not turned for {} s", since(control).as_secs()))
    }
}

impl std::fmt::Debug for Health {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Health").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_move_is_named() {
        let pulse = Arc::new(Mutex::new(Pulse { workers: vec![0, 0], ..Pulse::default() }));
        let health = Health::new({
            let pulse = Arc::clone(&pulse);
            move || pulse.lock().unwrap().clone()
        });
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let step = |seconds, runs, control, workers: [u64; 2]| {
            *pulse.lock().unwrap() = Pulse { runs, stopping: false, control, workers: workers.to_vec() };
            health.look(at(seconds));
            health.fault(at(seconds))
        };
        assert_eq!(step(100, false, 0, [0, 0]).as_deref(), Some("the program is starting"));
        assert_eq!(step(200, true, 0, [0, 0]), None);
        assert_eq!(step(202, true, 1, [1, 1]), None);
        assert_eq!(step(204, true, 2, [2, 1]), None);
        assert_eq!(step(206, true, 2, [3, 1]).as_deref(), Some("worker 1 has not turned for 4 s"));
        assert_eq!(step(207, true, 2, [4, 2]), None);
        assert_eq!(step(220, true, 2, [5, 3]).as_deref(), Some("control has not turned for 16 s"));
        pulse.lock().unwrap().stopping = true;
        health.look(at(221));
        assert_eq!(health.fault(at(221)).as_deref(), Some("the program is stopping"));
    }
}
