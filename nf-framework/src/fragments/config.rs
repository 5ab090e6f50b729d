//! How much virtual reassembly remembers, and for how long.

use super::table::Limits;
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;
use std::time::Duration;

/// The table `[fragments]` of a configuration: how much each worker remembers of packets that
/// come in fragments. It counts where a function of the chain cares about flows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct FragmentsConfig {
    /// Seconds from the first fragment of a packet to arrive until what is still held of it is
    /// dropped, 1 to 60 (RFC 8200 section 4.5 has hosts wait 60).
    pub timeout: u64,
    /// Packets of which not all fragments have come, at once: 64 to 1048576, rounded up to a power
    /// of two. Each takes 350 bytes.
    pub datagrams: usize,
    /// Fragments held because their first one has not come, at once: 64 to 65536.
    pub held: usize,
}

impl Default for FragmentsConfig {
    fn default() -> Self {
        Self { timeout: 2, datagrams: 4096, held: 1024 }
    }
}

impl FragmentsConfig {
    const TIMEOUT: RangeInclusive<u64> = 1..=60;
    const DATAGRAMS: RangeInclusive<usize> = 64..=1 << 20;
    const HELD: RangeInclusive<usize> = 64..=1 << 16;

    /// The key of a value that cannot be, and why not.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        fn outside<T: PartialOrd + std::fmt::Display>(value: T, range: &RangeInclusive<T>) -> Option<String> {
            let (from, to) = (range.start(), range.end());
            (!range.contains(&value)).then(|| format!("{value} is not from {from} to {to}"))
        }
        let timeout = outside(self.timeout, &Self::TIMEOUT).map(|why| ("timeout", why));
        let datagrams = || outside(self.datagrams, &Self::DATAGRAMS).map(|why| ("datagrams", why));
        let held = || outside(self.held, &Self::HELD).map(|why| ("held", why));
        timeout.or_else(datagrams).or_else(held)
    }

    pub(super) fn limits(&self) -> Limits {
        Limits { timeout: Duration::from_secs(self.timeout), datagrams: self.datagrams, held: self.held }
    }
}
