//! Whom the check at each port has asked: written by the engine, asked by every worker, so that a stranger's packets
//! for a probe address take nobody's room on the way to the engine.

use super::arrival::{Arrival, PORTS};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// By port, from the first of [`PORTS`] on: a number of the address that is asked, 0 while none is.
#[derive(Debug)]
pub(super) struct Awaited(Box<[AtomicU64]>);

impl Default for Awaited {
    fn default() -> Self {
        Self(PORTS.map(|_| AtomicU64::new(0)).collect())
    }
}

impl Awaited {
    /// The check at this port has asked somebody, or is over.
    pub(super) fn set(&self, port: u16, asked: Option<IpAddr>) {
        if let Some(place) = self.place(port) {
            place.store(asked.map_or(0, number), Ordering::Relaxed);
        }
    }

    /// Whether a check waits for such a packet.
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
    fn a_check_waits_for_whom_it_has_asked_and_until_it_is_over() {
        let awaited = Awaited::default();
        for (asked, other) in [("192.0.2.1", "192.0.2.2"), ("2001:db8::1", "2001:db8::2"), ("::", "192.0.2.1")] {
            let (asked, other) = (asked.parse().unwrap(), other.parse().unwrap());
            let from = |port, from| awaited.has(&Arrival { port, from, nobody_at: None });
            assert!(!from(61_001, asked));
            awaited.set(61_001, Some(asked));
            assert_eq!([from(61_001, asked), from(61_001, other), from(61_000, asked)], [true, false, false]);
            awaited.set(61_001, None);
            assert!(!from(61_001, asked) && !from(61_001, other));
        }
        // A port that no check has.
        awaited.set(80, Some([192, 0, 2, 1].into()));
        assert!(!awaited.has(&Arrival { port: 80, from: [192, 0, 2, 1].into(), nobody_at: None }));
    }
}
