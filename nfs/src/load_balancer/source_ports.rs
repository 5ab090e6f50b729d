//! Full NAT's ports towards backends: any that comes back to this worker and is not in use towards that backend.
//!
//! Which are in use says the table of connections, so a port serves one connection with each backend, and nothing
//! is to be given back.

use crate::random::Random;
use std::ops::RangeInclusive;

/// Those that may be given out: no well-known ones, and none of the health checks'.
pub(super) const RANGE: RangeInclusive<u16> = 1024..=60_999;

/// Looks into the table for one connection.
const MOST_TRIES: usize = 64;

/// The ports of one worker.
#[derive(Debug)]
pub(super) struct SourcePorts {
    ports: Vec<u16>,
    random: Random,
}

impl SourcePorts {
    /// Of a worker that gets the packets for these ports.
    pub(super) fn new(owns: impl Fn(u16) -> bool) -> Self {
        Self { ports: RANGE.filter(|port| owns(*port)).collect(), random: Random::new() }
    }

    /// Chooses an address, by its number among so many, and a port that are free together; `None` if none is
    /// found in a bounded number of tries. Which one it is cannot be foreseen (RFC 6056).
    pub(super) fn choose(
        &mut self,
        addresses: usize,
        mut is_free: impl FnMut(usize, u16) -> bool,
    ) -> Option<(usize, u16)> {
        let all = addresses * self.ports.len();
        if all == 0 {
            return None;
        }
        let first = self.random.below(all);
        for number in 0..MOST_TRIES.min(all) {
            // Few are looked through, of many a sample is taken.
            let at = if all <= MOST_TRIES { (first + number) % all } else { self.random.below(all) };
            let (address, port) = (at % addresses, *self.ports.get(at / addresses)?);
            if is_free(address, port) {
                return Some((address, port));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Takes until none is found.
    fn take_all(ports: &mut SourcePorts, addresses: usize) -> BTreeSet<(usize, u16)> {
        let mut taken = BTreeSet::new();
        while let Some(pair) = ports.choose(addresses, |address, port| !taken.contains(&(address, port))) {
            assert!(taken.insert(pair), "{pair:?} twice");
        }
        taken
    }

    #[test]
    fn exactly_the_ports_of_a_worker_are_given_out_with_each_address() {
        for (addresses, owned) in [(1, 2000..2001), (1, 2000..2064), (2, 2000..2032), (16, 2000..2004)] {
            let mut ports = SourcePorts::new(|port| owned.contains(&port));
            let expected: BTreeSet<_> =
                (0..addresses).flat_map(|address| owned.clone().map(move |port| (address, port))).collect();
            assert_eq!(take_all(&mut ports, addresses), expected);
        }
    }

    #[test]
    fn of_many_nearly_all_are_found_and_never_one_outside_of_the_range() {
        let mut ports = SourcePorts::new(|port| port % 2 == 1);
        let all = RANGE.count() / 2;
        let taken = take_all(&mut ports, 1);
        assert!(taken.len() > all * 8 / 10, "{} of {all}", taken.len());
        assert!(taken.iter().all(|(_, port)| port % 2 == 1 && RANGE.contains(port)));
    }

    #[test]
    fn without_addresses_or_ports_there_is_none() {
        assert_eq!(SourcePorts::new(|_| true).choose(0, |_, _| true), None);
        assert_eq!(SourcePorts::new(|_| false).choose(3, |_, _| true), None);
        let mut tries = 0;
        assert_eq!(
            SourcePorts::new(|_| true).choose(3, |_, _| {
                tries += 1;
                false
            }),
            None
        );
        assert_eq!(tries, MOST_TRIES);
    }

    #[test]
    fn where_the_search_begins_is_another_place_each_time() {
        let mut ports = SourcePorts::new(|_| true);
        let first: BTreeSet<_> = (0..100).filter_map(|_| ports.choose(2, |_, _| true)).collect();
        assert!(first.len() > 90, "{}", first.len());
    }
}
