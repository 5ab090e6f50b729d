//! What the owner of the neighbours counts and reports, for others to read.

use crate::headers::MacAddress;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// What has happened to neighbours since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct NeighbourCounters {
    /// Questions that we sent.
    pub questions: u64,
    /// Questions of others that we answered.
    pub answers: u64,
    /// Announcements of our addresses that we sent.
    pub announcements: u64,
    /// Neighbours whose MAC address came to be known.
    pub learned: u64,
    /// Those that were then found to have another.
    pub moved: u64,
    /// Those that did not answer.
    pub failed: u64,
    /// Those that were forgotten as nobody needed them.
    pub expired: u64,
    /// Those that were forgotten to make room.
    pub evicted: u64,
    /// Messages by which somebody else claimed an address of ours.
    pub duplicates: u64,
    /// Messages that we could not send as the pool was empty.
    pub no_buffer: u64,
}

/// Somebody else claims an address of ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DuplicateAddress {
    /// Where.
    pub interface: u16,
    /// The address.
    pub address: IpAddr,
    /// Who claims it.
    pub mac: MacAddress,
}

/// [`NeighbourCounters`] while they count: written by the owner alone.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) questions: AtomicU64,
    pub(super) answers: AtomicU64,
    pub(super) announcements: AtomicU64,
    pub(super) learned: AtomicU64,
    pub(super) moved: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) duplicates: AtomicU64,
    pub(super) no_buffer: AtomicU64,
}

impl Cells {
    pub(super) fn read(&self) -> NeighbourCounters {
        let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
        NeighbourCounters {
            questions: read(&self.questions),
            answers: read(&self.answers),
            announcements: read(&self.announcements),
            learned: read(&self.learned),
            moved: read(&self.moved),
            failed: read(&self.failed),
            expired: read(&self.expired),
            evicted: read(&self.evicted),
            duplicates: read(&self.duplicates),
            no_buffer: read(&self.no_buffer),
        }
    }
}
