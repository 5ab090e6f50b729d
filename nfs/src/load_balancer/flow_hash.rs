//! By what the tables are asked.

use super::flow::{Key, KeyV4, KeyV6};
use nf_framework::HashKey;

/// Hashes flows, the same on all instances that have the same seed.
#[derive(Clone, Debug)]
pub(super) struct FlowHash(HashKey);

impl FlowHash {
    pub(super) fn new(seed: u64) -> Self {
        Self(HashKey::from_seed(seed))
    }

    pub(super) fn key(&self) -> &HashKey {
        &self.0
    }

    #[inline(always)]
    pub(super) fn v4(&self, key: &KeyV4) -> u64 {
        self.0.hash(key)
    }

    #[inline(always)]
    pub(super) fn v6(&self, key: &KeyV6) -> u64 {
        self.0.hash(key)
    }

    pub(super) fn of(&self, key: &Key) -> u64 {
        match key {
            Key::V4(key) => self.v4(key),
            Key::V6(key) => self.v6(key),
        }
    }
}
