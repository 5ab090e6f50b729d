//! IPv4 identifications of what leaves from an address that hosts share: RFC 6864 section 5.3.
//!
//! Two hosts may choose the same one, and a receiver would put their fragments together. So packets
//! that are fragments, or may become some, get another one, which this worker gives to no other packet
//! for as long as 16 bits allow, and no other worker at all.

use crate::random::Random;
use nf_framework::{Class, FlowTable, FlowTableError, HashKey, Instant, Memory};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Packets in fragments that are known at once.
const DATAGRAMS: usize = 4096;
/// As long as fragments are waited for: RFC 791 section 3.2, RFC 1122 section 3.3.2.
const LIFETIME: Duration = Duration::from_secs(30);

/// The identification of a packet where it means something: RFC 6864 section 4.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identification {
    pub(crate) value: u16,
    pub(crate) protocol: u8,
    pub(crate) is_fragment: bool,
}

/// One worker's numbers.
#[derive(Debug)]
pub(crate) struct Identifications {
    next: u16,
    step: u16,
    /// By addresses, protocol and old identification.
    datagrams: FlowTable<[u8; 16], u16>,
}

impl Identifications {
    pub(crate) fn new(memory: &Memory, worker: usize, workers: usize) -> Result<Self, FlowTableError> {
        let step = u16::try_from(workers.next_power_of_two()).unwrap_or(1);
        #[allow(clippy::cast_possible_truncation, reason = "any 16 bits do")]
        let random = Random::new().next() as u16;
        let next = (random & !(step - 1)).wrapping_add(u16::try_from(worker).unwrap_or(0) % step);
        Ok(Self { next, step, datagrams: FlowTable::with_capacity(memory, DATAGRAMS, HashKey::random())? })
    }

    pub(crate) fn bytes() -> usize {
        FlowTable::<[u8; 16], u16>::bytes(DATAGRAMS)
    }

    /// For a whole packet.
    #[inline]
    pub(crate) fn next(&mut self) -> u16 {
        self.next = self.next.wrapping_add(self.step);
        self.next
    }

    /// For any packet between these; the same for all fragments of one.
    pub(crate) fn of(&mut self, (source, destination): (Ipv4Addr, Ipv4Addr), old: Identification, now: Instant) -> u16 {
        if !old.is_fragment {
            return self.next();
        }
        let mut key = [0; 16];
        key[..4].copy_from_slice(&source.octets());
        key[4..8].copy_from_slice(&destination.octets());
        key[8..10].copy_from_slice(&old.value.to_be_bytes());
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

    pub(crate) fn tick(&mut self, now: Instant, budget: u32) {
        if !self.datagrams.is_empty() {
            self.datagrams.expire(now, budget, |_| ());
        }
    }
}
