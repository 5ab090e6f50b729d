//! Ports, and the like, that nobody can foresee.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Numbers that strangers cannot foresee: SipHash of a counter, under a key of the system's.
#[derive(Debug)]
pub(crate) struct Random {
    key: RandomState,
    count: u64,
}

impl Random {
    pub(crate) fn new() -> Self {
        Self { key: RandomState::new(), count: 0 }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.count += 1;
        self.key.hash_one(self.count)
    }

    /// A number below the limit.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        #[allow(clippy::cast_possible_truncation, reason = "below the limit")]
        let scaled = ((u128::from(self.next()) * limit as u128) >> 64) as usize;
        scaled
    }
}
