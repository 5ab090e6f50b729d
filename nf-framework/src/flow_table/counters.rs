//! What a flow table counts.

use super::{Class, layout};

/// What a table has counted since it was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowTableCounters {
    /// New entries.
    pub inserted: u64,
    /// Insertions of keys that were there.
    pub existing: u64,
    /// Insertions that found no room.
    pub refused: u64,
    /// Entries that were evicted, by their class.
    pub evicted: [u64; Class::COUNT],
    /// Entries that expired.
    pub expired: u64,
    /// Entries that were removed by their owner.
    pub removed: u64,
    /// New entries by the number of groups between their home and their place: 0 is home, 1
    /// to 3 the same row, 4 to 7 the other row.
    pub distance: [u64; layout::PROBES],
}

pub(super) fn bump(counters: &mut [u64], which: usize) {
    if let Some(counter) = counters.get_mut(which) {
        *counter += 1;
    }
}
