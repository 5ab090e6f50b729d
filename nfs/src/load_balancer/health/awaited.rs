//! Whom the last check at each port has asked: written by the engine, asked by every worker, so that a stranger's packets
//! for a probe address take nobody's room on the way to the engine. What comes when a check is over does: it is counted
//! there.

use super::arrival::{Arrival, PORTS};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// By port, from the first of [`PORTS`] on: a number of the address that was asked, 0 before one was.
#[derive(Debug)]
pub(super) struct Awaited(Box<[AtomicU64]>);

impl Default for Awaited {
    fn default() -> Self {
        Self(PORTS.map(|_| AtomicU64::new(0)).collect())
    }
}

impl Awaited {
    /// A check at this port asks somebody.
    pub(super) fn set(&self, port: u16, asked: IpAddr) {
        if let Some(place) = self.place(port) {
            place.store(number(asked), Ordering::Relaxed);
        }
    }

    /// Whether it is from whom the check at its port has asked.
    #[inline]
    pub(super) fn has(&self, arrival: &Arrival) -> bool {
        self.place(arrival.port).is_some_and(|place| place.load(Ordering::Relaxed) == number(arrival.from))
    }

    fn place(&self, port: u16) -> Option<&AtomicU64> {
        self.0.get(usize::from(port.checked_sub(*PORTS.start())?))
    }
}

/// Two of IPv6 may have the same: then one is believed that says it is the other, as it could anyway.
fn number(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => 1 << 32 | u64::from(address.to_bits()),
        IpAddr::V6(address) => address
            .segments()
            .chunks(4)
            .fold(0, |sum, half| sum ^ half.iter().fold(0, |number, segment| number << 16 | u64::from(*segment)))
            .max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_port_is_for_whom_it_has_asked_last() {
        let awaited = Awaited::default();
        for (asked, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2"), ("::", "192.0.2.1")] {
            let (asked, other) = (asked.parse().unwrap(), other.parse().unwrap());
            let from = |port, from| awaited.has(&Arrival { port, from, nobody_at: None });
            assert!(!from(61_001, asked));
            awaited.set(61_001, asked);
            assert_eq!([from(61_001, asked), from(61_001, other), from(61_000, asked)], [true, false, false]);
        }
        // A port that no check has.
        awaited.set(80, [192, 0, 2, 1].into());
        assert!(!awaited.has(&Arrival { port: 80, from: [192, 0, 2, 1].into(), nobody_at: None }));
    }
}
