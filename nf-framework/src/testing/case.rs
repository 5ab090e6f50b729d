//! Tables of cases: what is sent into a chain, and what has to become of it.

use crate::chain::Chain;
use crate::direction::Direction;
use crate::function::WorkerSetup;
use crate::testing::lab::lab;
use crate::testing::trial::{Outcome, Trial};
use std::fmt::Write as _;
use std::time::Duration;

/// One case: what is sent into a chain, and what has to become of it.
#[derive(Clone, Debug)]
pub struct Case {
    name: String,
    wait: Duration,
    direction: Direction,
    frames: Vec<Vec<u8>>,
    expected: Outcome,
}

impl Case {
    /// A case; the name is a sentence that says what holds.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            wait: Duration::ZERO,
            direction: Direction::Outbound,
            frames: Vec::new(),
            expected: Outcome::default(),
        }
    }

    /// So much time passes first; what leaves during it counts for this case.
    #[must_use]
    pub fn after(mut self, time: Duration) -> Self {
        self.wait = time;
        self
    }

    /// This frame comes in from inside; several go in together.
    #[must_use]
    pub fn outbound(self, frame: Vec<u8>) -> Self {
        self.comes_in(Direction::Outbound, frame)
    }

    /// This frame comes in from outside; several go in together.
    #[must_use]
    pub fn inbound(self, frame: Vec<u8>) -> Self {
        self.comes_in(Direction::Inbound, frame)
    }

    fn comes_in(mut self, direction: Direction, frame: Vec<u8>) -> Self {
        assert!(
            self.frames.is_empty() || self.direction == direction,
            "the frames of {:?} come in from both sides: a batch comes from one",
            self.name
        );
        self.direction = direction;
        self.frames.push(frame);
        self
    }

    /// All that came in leaves on the other side as it was.
    #[must_use]
    pub fn leaves_unchanged(mut self) -> Self {
        assert!(!self.frames.is_empty(), "{:?} says what leaves before it says what comes in", self.name);
        match self.direction {
            Direction::Outbound => self.expected.outside.extend(self.frames.clone()),
            Direction::Inbound => self.expected.inside.extend(self.frames.clone()),
        }
        self
    }

    /// This frame leaves by the outside port.
    #[must_use]
    pub fn leaves_outside(mut self, frame: Vec<u8>) -> Self {
        self.expected.outside.push(frame);
        self
    }

    /// This frame leaves by the inside port.
    #[must_use]
    pub fn leaves_inside(mut self, frame: Vec<u8>) -> Self {
        self.expected.inside.push(frame);
        self
    }

    /// One packet is dropped under this reason.
    #[must_use]
    pub fn dropped(mut self, reason: &str) -> Self {
        *self.expected.dropped.entry(reason.to_owned()).or_default() += 1;
        self
    }

    /// One packet is consumed by a function.
    #[must_use]
    pub fn consumed(mut self) -> Self {
        self.expected.consumed += 1;
        self
    }

    /// Functions hold this many packets more than before (fewer, if negative).
    #[must_use]
    pub fn held(mut self, change: i64) -> Self {
        self.expected.held = change;
        self
    }
}

/// Puts the cases through one chain, one after the other, so that it keeps its state from
/// case to case.
///
/// # Panics
///
/// When a case turns out differently, naming it and showing both, or leaks a packet.
pub fn trial<M, I>(make: M, cases: I)
where
    M: FnOnce(&mut WorkerSetup) -> Chain + Send + 'static,
    I: IntoIterator<Item = Case>,
{
    let cases: Vec<Case> = cases.into_iter().collect();
    lab(move |lab| lab.trial(make).check(cases));
}

impl Trial {
    /// Puts the cases through this trial's chain, one after the other, as [`trial`] does.
    ///
    /// # Panics
    ///
    /// When a case turns out differently, naming it and showing both, or leaks a packet.
    pub fn check(&mut self, cases: impl IntoIterator<Item = Case>) {
        for case in cases {
            let waited = self.advance(case.wait);
            let outcome = waited.followed_by(self.send(case.direction, &case.frames));
            assert!(outcome == case.expected, "{}", differs(&case, &outcome));
            self.check_for_leaks();
        }
    }
}

impl Outcome {
    fn followed_by(mut self, later: Self) -> Self {
        self.inside.extend(later.inside);
        self.outside.extend(later.outside);
        self.host.extend(later.host);
        for (reason, count) in later.dropped {
            *self.dropped.entry(reason).or_default() += count;
        }
        self.consumed += later.consumed;
        self.held += later.held;
        self
    }
}

fn differs(case: &Case, outcome: &Outcome) -> String {
    let mut text = format!("{:?} does not hold\n", case.name);
    for (title, what) in [("expected", &case.expected), ("found", outcome)] {
        let _ = writeln!(text, "{title}:");
        for (port, frames) in [("inside", &what.inside), ("outside", &what.outside), ("host", &what.host)] {
            for frame in frames {
                let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
                let _ = writeln!(text, "  leaves {port}: {hex}");
            }
        }
        let Outcome { dropped, consumed, held, .. } = what;
        let _ = writeln!(text, "  dropped {dropped:?}, consumed {consumed}, held {held:+}");
    }
    text
}
