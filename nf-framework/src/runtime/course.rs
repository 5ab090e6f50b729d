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
/// How long a device that was let go is left alone, as others are taking it away.
const LEFT_ALONE: Duration = Duration::from_secs(1);
/// How often it is looked for then.
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
    TakeDown {
        /// And its device is let go.
        away: bool,
    },
    /// It is started.
    BringUp,
    /// Its device is let go.
    LetGo,
    /// Its device is looked for, and the port started.
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
pub(super) struct Course {
    stage: Stage,
    /// How often the device went away, or was given up.
    pub(super) removals: u64,
}

impl Course {
    pub(super) fn up() -> Self {
        Self { stage: Stage::Up, removals: 0 }
    }

    pub(super) fn is_up(&self) -> bool {
        self.stage == Stage::Up
    }

    /// The next attempt is due, if there will be one.
    pub(super) fn hurry(&mut self, now: Instant) {
        if let Stage::Down { next, .. } | Stage::Away { next } = &mut self.stage {
            *next = now;
        }
    }

    /// Goes on by what was said since the last step, and by whether all queues are `home`.
    pub(super) fn step(&mut self, now: Instant, said: PortEvents, home: impl FnOnce() -> bool) -> Step {
        match self.stage {
            Stage::Up if said.removed || said.reset => {
                let away = said.removed;
                self.stage = Stage::Recalled { away };
                self.removals += u64::from(away);
                Step::Recall { away }
            }
            Stage::Recalled { away: before } => {
                let away = before || said.removed;
                self.removals += u64::from(away && !before);
                self.stage = Stage::Recalled { away };
                if !home() {
                    return Step::Wait;
                }
                self.stage = match away {
                    true => Stage::Away { next: now + LEFT_ALONE },
                    false => Stage::Down { attempts: 0, next: now },
                };
                Step::TakeDown { away }
            }
            Stage::Down { .. } if said.removed => {
                self.removals += 1;
                self.stage = Stage::Away { next: now + LEFT_ALONE };
                Step::LetGo
            }
            Stage::Down { next, .. } if now >= next => Step::BringUp,
            Stage::Away { next } if now >= next => Step::LookFor,
            Stage::Up | Stage::Down { .. } | Stage::Away { .. } => Step::Wait,
        }
    }

    /// The port was started.
    pub(super) fn came_up(&mut self) {
        self.stage = Stage::Up;
    }

    /// The port was not started.
    pub(super) fn failed(&mut self, now: Instant) -> Failed {
        match self.stage {
            Stage::Down { attempts, .. } => match PAUSES.get(attempts) {
                Some(pause) => {
                    self.stage = Stage::Down { attempts: attempts + 1, next: now + *pause };
                    if attempts == 0 { Failed::First } else { Failed::Again }
                }
                None => {
                    self.removals += 1;
                    self.stage = Stage::Away { next: now };
                    Failed::GivenUp
                }
            },
            _ => {
                self.stage = Stage::Away { next: now + LOOKS };
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

    /// Its name, what happens, whether the port is up in the end, and how often its device went away.
    type Story<'a> = (&'a str, &'a [(u64, Then)], bool, u64);

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
        let (down, away) = (Step::TakeDown { away: false }, Step::TakeDown { away: true });
        let stories: &[Story<'_>] = &[
            ("nothing happens", &[(0, Look(NOTHING, false, wait)), (1, Look(LINK, false, wait))], true, 0),
            (
                "it is reset",
                &[
                    (0, Look(RESET, false, recall)),
                    (1, Look(RESET, false, wait)),
                    (2, Look(NOTHING, true, down)),
                    (2, Look(NOTHING, true, Step::BringUp)),
                    (3, Up),
                    (4, Look(NOTHING, false, wait)),
                    (5, Look(RESET, false, recall)),
                ],
                false,
                0,
            ),
            (
                "it comes up at the third attempt",
                &[
                    (0, Look(RESET, false, recall)),
                    (0, Look(NOTHING, true, down)),
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
                0,
            ),
            (
                "it goes away and comes back",
                &[
                    (0, Look(REMOVED, false, gone)),
                    (1, Look(REMOVED, true, away)),
                    (1000, Look(NOTHING, true, wait)),
                    (1001, Look(NOTHING, true, Step::LookFor)),
                    (1002, Fails(Failed::Again)),
                    (11_001, Look(NOTHING, true, wait)),
                    (11_002, Look(NOTHING, true, Step::LookFor)),
                    (11_002, Up),
                ],
                true,
                1,
            ),
            (
                "it goes away while its queues are on their way",
                &[
                    (0, Look(RESET, false, recall)),
                    (1, Look(REMOVED, false, wait)),
                    (2, Look(REMOVED, true, away)),
                    (2, Hurry),
                    (2, Look(NOTHING, true, Step::LookFor)),
                ],
                false,
                1,
            ),
            (
                "it goes away while it does not come up",
                &[
                    (0, Look(RESET, false, recall)),
                    (0, Look(NOTHING, true, down)),
                    (0, Look(NOTHING, true, Step::BringUp)),
                    (0, Fails(Failed::First)),
                    (1, Look(REMOVED, true, Step::LetGo)),
                    (200, Look(NOTHING, true, wait)),
                    (1001, Look(NOTHING, true, Step::LookFor)),
                ],
                false,
                1,
            ),
            (
                "somebody does not want to wait",
                &[
                    (0, Hurry),
                    (0, Look(NOTHING, false, wait)),
                    (0, Look(RESET, false, recall)),
                    (1, Hurry),
                    (1, Look(NOTHING, false, wait)),
                    (2, Look(NOTHING, true, down)),
                    (2, Look(NOTHING, true, Step::BringUp)),
                    (2, Fails(Failed::First)),
                    (3, Look(NOTHING, true, wait)),
                    (3, Hurry),
                    (3, Look(NOTHING, true, Step::BringUp)),
                ],
                false,
                0,
            ),
        ];
        for (name, steps, up, removals) in stories {
            let mut course = Course::up();
            run(name, &mut course, steps);
            assert_eq!((course.is_up(), course.removals), (*up, *removals), "{name}");
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
        assert_eq!((attempts, course.removals), (11, 1));
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
