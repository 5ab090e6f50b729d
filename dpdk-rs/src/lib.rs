//! A safe layer over DPDK: what a program needs to poll packets from a NIC and send them
//! again, in a form that cannot be misused without `unsafe`.
//!
//! It owns DPDK's rules: who may poll a queue, who frees a packet, what must outlive
//! what. It does not know what a network function is; `nf-framework` does.
//!
//! | type | stands for | rule that it keeps |
//! |---|---|---|
//! | [`Eal`] | the initialised library | one per process, stays on its thread |
//! | [`Lcore`], [`Scope`] | a pinned polling thread | joined before the scope ends |
//! | [`Mempool`] | a pool of packet buffers | freed only when every packet is home |
//! | [`Mbuf`] | one packet | one owner, one segment, freed once |
//! | [`Burst`] | up to 64 packets | inline, never allocates |
//! | [`PortBuilder`], [`Port`] | an Ethernet device | started before it has queues, stopped only without them, also to be started again |
//! | [`RxQueue`], [`TxQueue`] | one hardware queue | polled through `&mut`, not cloneable |
//! | [`RxInterrupts`] | where a thread sleeps until packets come | a wait has an end, whatever the device does |
//! | [`RssKey`], [`RssTable`] | which queue a packet comes to | set, read back, and believed only then |
//! | [`Ring`] | packets from one thread to another | one producer, one consumer |
//! | [`Memory`], [`HugeSlice`] | hugepages for tables | given back before DPDK is cleaned up |
//! | [`Acl`] | rules over keys, built whole (`rte_acl`) | never changes, reads no further than a key |
//! | [`TelemetryValue`] | what a telemetry command answers | cut to what DPDK can take, never lost unsaid |
//! | [`Clock`] | the time-stamp counter | |
//!
//! ```no_run
//! use dpdk_rs::{Burst, Eal, Mempool, MempoolConfig, PortBuilder};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (eal, _rest) = Eal::init(std::env::args())?;
//! let pool = Mempool::new(&eal, "packets", MempoolConfig::default())?;
//! let port = eal.ports().next().ok_or("no port: give one by -a or --vdev")?;
//! let (port, mut queues) = PortBuilder::new(&eal, port).queues(1).pool(&pool).start()?;
//! let mut burst = Burst::new();
//! for _ in 0..1_000_000 {
//!     queues[0].rx.receive(&mut burst);
//!     queues[0].tx.send(&mut burst);
//!     burst.clear(); // what the full queue refused
//! }
//! port.stop(queues)?;
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//!
//! Packets of several segments do not exist here: scatter and LRO are never enabled and
//! a multi-segment arrival is freed and counted ([`RxQueue::refused`]). Secondary processes
//! are not supported, but for dpdk-dumpcap, which may attach to one of these. One EAL lives per process, and DPDK cannot be initialised again
//! after [`Eal`] was dropped.

mod acl;
#[cfg(feature = "allocation-count")]
pub mod allocation_count;
mod annotation;
mod burst;
mod clock;
mod device;
mod eal;
mod errno;
mod events;
mod filter;
mod hash;
mod hint;
mod launch;
mod log_sink;
mod mbuf;
mod memory;
mod mempool;
mod packet_capture;
mod port;
mod port_error;
mod port_info;
mod queue;
mod reception;
mod ring;
mod rss;
#[cfg(feature = "rte-hash")]
pub mod rte_hash;
mod running;
mod rx_interrupt;
mod rx_interrupts;
mod settings;
mod sleep;
mod started;
mod tag_group;
mod telemetry;
mod version;
mod virtual_function;

pub use acl::{Acl, AclAlgorithm, AclError, AclField, AclRule, AclValue};
pub use burst::Burst;
pub use clock::{Clock, Ticks, monotonic_microseconds};
pub use eal::{Eal, EalError};
pub use errno::Errno;
pub use events::PortEvents;
pub use filter::{FilterError, PacketFilter};
pub use hash::HashKey;
pub use hint::prefetch;
pub use launch::{ControlJoin, LaunchError, Lcore, LcoreJoin, Scope};
pub use mbuf::{ChecksumStatus, Mbuf};
pub use memory::{HugeSlice, Memory, OutOfMemory};
pub use mempool::{Mempool, MempoolConfig, MempoolError};
pub use port::{Port, PortBuilder};
pub use port_error::PortError;
pub use port_info::{Interrupts, Link, Offloads, PortId, PortInfo, PortStats, XStat};
pub use queue::{QueuePair, RxQueue, TxQueue};
pub use ring::{Consumer, Producer, Ring, RingError};
pub use rss::{
    FlowTuple, IpVersion, PortBlocksError, RssError, RssField, RssFunctions, RssKey, RssProblem, RssTable,
    RssTableSize, RssTableSizeError, Toeplitz,
};
pub use rx_interrupts::RxInterrupts;
pub use sleep::precise_sleeps;
pub use tag_group::TagGroup;
pub use telemetry::{TelemetryError, TelemetryValue};
pub use version::Version;
