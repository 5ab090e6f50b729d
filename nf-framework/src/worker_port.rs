//! What a worker has of a port.

use crate::direction::Direction;
use crate::verdict::PortIx;
use dpdk_rs::{Producer, QueuePair};

/// What a port is to a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// The end of the chain where packets that go this way come in.
    Side(Direction),
    /// The way to the kernel.
    Host(PortIx),
}

/// A worker's part in one port, and the end of the chain that the port is.
pub(crate) struct WorkerPort {
    /// `None` where there are more workers than queues: others then receive and send for it. And while
    /// the port is down.
    pub(crate) queues: Option<QueuePair>,
    pub(crate) to_sender: Option<Producer>,
    pub(crate) role: Role,
    /// Whether its driver hands over packets whose checksums are to be completed.
    pub(crate) partial_checksums: bool,
    pub(crate) refused: u64,
}
