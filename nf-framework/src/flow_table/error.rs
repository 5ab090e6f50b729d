//! Why there is no flow table.

use dpdk_rs::OutOfMemory;

/// Why there is no table.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FlowTableError {
    /// More entries than a handle can number, or none.
    #[error("a flow table has 1 to {most} entries, not {entries}")]
    Capacity {
        /// Entries asked for.
        entries: usize,
        /// Most that there can be.
        most: usize,
    },
    /// It does not fit.
    #[error("the flow table for {entries} entries of {entry_bytes} bytes has {source}")]
    Memory {
        /// Entries asked for.
        entries: usize,
        /// Bytes of one of them, all told.
        entry_bytes: usize,
        /// What did not fit.
        source: OutOfMemory,
    },
}
