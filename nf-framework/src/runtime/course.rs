//! What is done about a port, and when: by what its device says, and by what came of the last attempt.

use dpdk_rs::PortEvents;
use std::time::{Duration, Instant};

/// How long control waits before the next attempt to start a port, after so many.
const PAUSES: [Duration; 10] = {
    let milliseconds = [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000];
    let mut pauses = [Duration::ZERO; 10];
    let mut at = 0;
    while at < pauses.len() {
        pauses[at] = Duration::from_millis(milliseconds[at]);
        at += 1;
    }
    pauses
};
/// How often a device is looked for that is away.
pub(super) const LOOKS: Duration = Duration::from_secs(10);

/// Where a port is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Up,
    /// The workers have been asked for its queues. `away`: the device goes.
    Recalled {
        away: bool,
    },
    /// Without queues, to be started after so many attempts.
    Down {
        attempts: usize,
        next: Instant,
    },
    /// Its device is not there, or is taken for that.
    Away {
        next: Instant,
    },
}

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Step {
    /// Nothing, until something happens or some time has gone.
    Wait,
    /// The workers are asked for the queues.
    Recall {
        /// The device goes, and does not only want to be reset.
        away: bool,
    },
    /// All queues are home: the port is stopped.
    TakeDown,
    /// It is started.
    BringUp,
    /// Its device is let go, and looked for.
    LookFor,
}

/// What came of an attempt that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failed {
    /// One of several.
    First,
    /// It will be tried again.
    Again,
    /// The device is given up for now, and looked for every [`LOOKS`].
    GivenUp,
}

/// A port's way through its stages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Course(Stage);

impl Course {
    pub(super) fn up() -> Self {
        Self(Stage::Up)
    }

    pub(super) fn is_up(&self) -> bool {
        self.0 == Stage::Up
    }

    /// The next attempt is due, if there will be one.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Stage::Down { next, .. } | Stage::Away { next } = &mut self.0 {
            *next = now;
        }
    }

    /// Goes on by what was said since the last step, and by whether all queues are `home`.
    pub(super) fn step(&mut self, now: Instant, said: PortEvents, home: impl FnOnce() -> bool) -> Step {
        match self.0 {
            Stage::Up if said.removed || said.reset => {
                self.0 = Stage::Recalled { away: said.removed };
                Step::Recall { away: said.removed }
            }
            Stage::Recalled { away } => {
                let away = away || said.removed;
                self.0 = Stage::Recalled { away };
                if !home() {
                    return Step::Wait;
                }
                self.0 = if away { Stage::Away { next: now } } else { Stage::Down { attempts: 0, next: now } };
                Step::TakeDown
            }
            Stage::Down { .. } if said.removed => {
                self.0 = Stage::Away { next: now + LOOKS };
                Step::LookFor
            }
            Stage::Down { next, .. } if now >= next => Step::BringUp,
            Stage::Away { next } if now >= next => Step::LookFor,
            Stage::Up | Stage::Down { .. } | Stage::Away { .. } => Step::Wait,
        }
    }

    /// The port was started.
    pub(super) fn came_up(&mut self) {
        self.0 = Stage::Up;
    }

    /// The port was not started.
    pub(super) fn failed(&mut self, now: Instant) -> Failed {
        match self.0 {
            Stage::Down { attempts, .. } => match PAUSES.get(attempts) {
                Some(pause) => {
                    self.0 = Stage::Down { attempts: attempts + 1, next: now + *pause };
                    if attempts == 0 { Failed::First } else { Failed::Again }
                }
                None => {
                    self.0 = Stage::Away { next: now };
                    Failed::GivenUp
                }
            },
            _ => {
                self.0 = Stage::Away { next: now + LOOKS };
                Failed::Again
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: PortEvents = PortEvents { link: false, reset: false, removed: false };
    const LINK: PortEvents = PortEvents { link: true, ..NOTHING };
    const RESET: PortEvents = PortEvents { reset: true, ..NOTHING };
    const REMOVED: PortEvents = PortEvents { removed: true, ..NOTHING };

    /// What happens at a time in milliseconds.
    enum Then {
        /// A look, by what was said, with the queues home or not.
        Look(PortEvents, bool, Step),
        Up,
        Hurry,
        Fails(Failed),
    }
    use Then::{Fails, Hurry, Look, Up};

    /// Its name, what happens, and whether the port is up in the end.
    type Story<'a> = (&'a str, &'a [(u64, Then)], bool);

    fn run(story: &str, course: &mut Course, steps: &[(u64, Then)]) {
        let start = Instant::now();
        for (number, (milliseconds, then)) in steps.iter().enumerate() {
            let now = start + Duration::from_millis(*milliseconds);
            match then {
                Look(said, home, expected) => {
                    assert_eq!(course.step(now, *said, || *home), *expected, "{story}: step {number}, {course:?}");
                }
                Up => course.came_up(),
                Hurry => course.hurry(now),
                Fails(expected) => assert_eq!(course.failed(now), *expected, "{story}: step {number}, {course:?}"),
            }
        }
    }

    #[test]
    fn a_port_goes_through_its_stages_by_what_its_device_says() {
        let (wait, recall, gone) = (Step::Wait, Step::Recall { away: false }, Step::Recall { away: true });
        let stories: &[Story<'_>] = &[
            ("nothing happens", &[(0, Look(NOTHING, false, wait)), (1, Look(LINK, false, wait))], true),
            (
                "it is reset",
                &[
                    (0, Look(RESET, false, recall)),
                    (1, Look(RESET, false, wait)),
                    (2, Look(NOTHING, true, Step::TakeDown)),
                    (2, Look(NOTHING, true, Step::BringUp)),
                    (3, Up),
                    (4, Look(NOTHING, false, wait)),
                    (5, Look(RESET, false, recall)),
                ],
                false,
            ),
            (
                "it comes up at the third attempt",
                &[
                    (0, Look(RESET, false, recall)),
                    (0, Look(NOTHING, true, Step::TakeDown)),
                    (0, Look(NOTHING, true, Step::BringUp)),
                    (50, Fails(Failed::First)),
                    (149, Look(NOTHING, true, wait)),
                    (150, Look(NOTHING, true, Step::BringUp)),
                    (150, Fails(Failed::Again)),
                    (349, Look(RESET, true, wait)),
                    (350, Look(NOTHING, true, Step::BringUp)),
                    (350, Up),
                ],
                true,
            ),
            (
                "it goes away and comes back",
                &[
                    (0, Look(REMOVED, false, gone)),
                    (1, Look(REMOVED, true, Step::TakeDown)),
                    (1, Look(NOTHING, true, Step::LookFor)),
                    (2, Fails(Failed::Again)),
                    (10_001, Look(NOTHING, true, wait)),
                    (10_002, Look(NOTHING, true, Step::LookFor)),
                    (10_002, Up),
                ],
                true,
            ),
            (
                "somebody does not want to wait",
                &[
                    (0, Hurry),
                    (0, Look(NOTHING, false, wait)),
                    (0, Look(RESET, false, recall)),
                    (1, Hurry),
                    (1, Look(NOTHING, false, wait)),
                    (2, Look(NOTHING, true, Step::TakeDown)),
                    (2, Look(NOTHING, true, Step::BringUp)),
                    (2, Fails(Failed::First)),
                    (3, Look(NOTHING, true, wait)),
                    (3, Hurry),
                    (3, Look(NOTHING, true, Step::BringUp)),
                ],
                false,
            ),
            (
                "it goes away while its queues are on their way",
                &[
                    (0, Look(RESET, false, recall)),
                    (1, Look(REMOVED, false, wait)),
                    (2, Look(NOTHING, true, Step::TakeDown)),
                    (2, Look(NOTHING, true, Step::LookFor)),
                ],
                false,
            ),
            (
                "it goes away while it does not come up",
                &[
                    (0, Look(RESET, false, recall)),
                    (0, Look(NOTHING, true, Step::TakeDown)),
                    (0, Look(NOTHING, true, Step::BringUp)),
                    (0, Fails(Failed::First)),
                    (1, Look(REMOVED, true, Step::LookFor)),
                    (1, Fails(Failed::Again)),
                    (200, Look(NOTHING, true, wait)),
                ],
                false,
            ),
        ];
        for (name, steps, up) in stories {
            let mut course = Course::up();
            run(name, &mut course, steps);
            assert_eq!(course.is_up(), *up, "{name}");
        }
    }

    #[test]
    fn attempts_are_bounded_and_then_the_device_is_looked_for_now_and_then() {
        let start = Instant::now();
        let mut course = Course::up();
        course.step(start, RESET, || false);
        course.step(start, NOTHING, || true);
        let (mut now, mut attempts) = (start, 0);
        loop {
            while course.step(now, NOTHING, || true) == Step::Wait {
                now += Duration::from_millis(20);
            }
            attempts += 1;
            let failed = course.failed(now);
            assert_eq!(failed == Failed::First, attempts == 1);
            if failed == Failed::GivenUp {
                break;
            }
        }
        assert_eq!(attempts, 11);
        let pauses: Duration = PAUSES.iter().sum();
        assert!(now >= start + pauses && now < start + pauses + Duration::from_secs(1));
        assert_eq!(course.step(now, NOTHING, || true), Step::LookFor, "by its bus");
        for _ in 0..3 {
            assert_eq!(course.failed(now), Failed::Again);
            assert_eq!(course.step(now + LOOKS - Duration::from_millis(1), NOTHING, || true), Step::Wait);
            now += LOOKS;
            assert_eq!(course.step(now, NOTHING, || true), Step::LookFor);
        }
    }
}
