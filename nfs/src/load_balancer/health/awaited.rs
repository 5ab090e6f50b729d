//! Whom the check at each port has asked: written by the engine, asked by every worker, so that a stranger's packets
//! for a probe address take nobody's room on the way to the engine. What comes a little after a check does: it is counted
//! there.

use super::arrival::{Arrival, PORTS};
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// By port, from the first of [`PORTS`] on: a hash of the address that was asked, with a key that nobody knows; 0 if none
/// was.
#[derive(Debug)]
pub(super) struct Awaited(Box<[AtomicU64]>, RandomState);

impl Default for Awaited {
    fn default() -> Self {
        Self(PORTS.map(|_| AtomicU64::new(0)).collect(), RandomState::new())
    }
}

impl Awaited {
    /// A check at this port asks somebody, or none has for long.
    pub(super) fn set(&self, port: u16, asked: Option<IpAddr>) {
        if let Some(place) = self.place(port) {
            place.store(asked.map_or(0, |asked| self.1.hash_one(asked)), Ordering::Relaxed);
        }
    }

    /// Whether it is from whom the check at its port has asked.
    #[inline]
    pub(super) fn has(&self, arrival: &Arrival) -> bool {
        self.place(arrival.port).is_some_and(|place| place.load(Ordering::Relaxed) == self.1.hash_one(arrival.from))
    }

    fn place(&self, port: u16) -> Option<&AtomicU64> {
        self.0.get(usize::from(port.checked_sub(*PORTS.start())?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_for_whom_it_has_asked_last() {
        let awaited = Awaited::default();
        for (asked, other) in [
            ("192.0.2.1", "192.0.2.2"),
            ("2001:db8::1", "2001:db8::2"),
            ("::", "192.0.2.1"),
            ("2001:db8::1", "2001:db8:0:1::"),
        ] {
            let (asked, other) = (asked.parse().unwrap(), other.parse().unwrap());
            let from = |port, from| awaited.has(&Arrival { port, from, nobody_at: None });
            assert!(!from(61_001, asked));
            awaited.set(61_001, Some(asked));
            assert_eq!([from(61_001, asked), from(61_001, other), from(61_000, asked)], [true, false, false]);
            awaited.set(61_001, None);
            assert!(!from(61_001, asked));
        }
        // A port that no check has.
        awaited.set(80, Some([192, 0, 2, 1].into()));
        assert!(!awaited.has(&Arrival { port: 80, from: [192, 0, 2, 1].into(), nobody_at: None }));
    }
}
