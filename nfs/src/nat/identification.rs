//! IPv4 identifications of what leaves from an address that hosts share: RFC 6864 section 5.3.
//!
//! Two hosts may choose the same one, and a receiver would put their fragments together. So packets
//! that are fragments, or may become some, get another one, which this worker gives to no other packet
//! for as long as 16 bits allow, and no other worker at all.

use super::flow::{FlowTuple, Identification, Protocol, Seen};
use super::ports::Random;
use nf_framework::{Class, FlowTable, FlowTableError, HashKey, Instant, Memory};
use std::time::Duration;

/// Packets in fragments that are known at once.
const DATAGRAMS: usize = 4096;
/// As long as fragments are waited for: RFC 791 section 3.2, RFC 1122 section 3.3.2.
const LIFETIME: Duration = Duration::from_secs(30);

/// One worker's numbers.
#[derive(Debug)]
pub(super) struct Identifications {
    next: u16,
    step: u16,
    /// By addresses, protocol and old identification.
    datagrams: FlowTable<[u8; 16], u16>,
}

impl Identifications {
    pub(super) fn new(memory: &Memory, worker: usize, workers: usize) -> Result<Self, FlowTableError> {
        let step = u16::try_from(workers.next_power_of_two()).unwrap_or(1);
        #[allow(clippy::cast_possible_truncation, reason = "any 16 bits do")]
        let random = Random::new().next() as u16;
        let next = (random & !(step - 1)).wrapping_add(u16::try_from(worker).unwrap_or(0) % step);
        Ok(Self { next, step, datagrams: FlowTable::with_capacity(memory, DATAGRAMS, HashKey::random())? })
    }

    pub(super) fn bytes() -> usize {
        FlowTable::<[u8; 16], u16>::bytes(DATAGRAMS)
    }

    /// For a whole packet.
    #[inline]
    pub(super) fn next(&mut self) -> u16 {
        self.next = self.next.wrapping_add(self.step);
        self.next
    }

    /// For any packet; the same for all fragments of one.
    pub(super) fn of(&mut self, seen: &Seen, old: Identification, now: Instant) -> u16 {
        if !old.is_fragment {
            return self.next();
        }
        let mut key = FlowTuple {
            protocol: Protocol::Udp,
            source: seen.source,
            destination: seen.destination,
            source_port: old.value,
            destination_port: 0,
        }
        .key();
        key[12] = old.protocol;
        let deadline = now + LIFETIME;
        if let Some((handle, value)) = self.known(&key) {
            self.datagrams.touch(handle, deadline);
            return value;
        }
        let value = self.next();
        // Without room the others of its packet get another one, and it is lost.
        let _ = self.datagrams.insert(key, value, Class::EMBRYONIC, now, deadline, |_| ());
        value
    }

    fn known(&self, key: &[u8; 16]) -> Option<(nf_framework::Handle, u16)> {
        let handle = self.datagrams.lookup(key)?;
        Some((handle, *self.datagrams.entry(handle)?.1))
    }

    pub(super) fn tick(&mut self, now: Instant, budget: u32) {
        self.datagrams.expire(now, budget, |_| ());
    }
}
