//! What a configuration needs of the machine: for starting, and for saying so beforehand.

use super::RuntimeConfig;
use super::error::RuntimeError;
use super::loaded::{Loaded, affinity, fragments};
use super::ports::PortPlan;
use crate::router::RouterConfig;
use crate::steering::ring_capacity;
use dpdk_rs::{MempoolConfig, PortBuilder};
use std::num::NonZero;

/// What a configuration needs with so many workers.
#[derive(Debug)]
pub(super) struct Needs {
    /// The packets' pool.
    pub(super) pool: MempoolConfig,
    /// Bytes of that pool.
    pub(super) packet_bytes: u64,
    /// Bytes of the rings between workers.
    pub(super) ring_bytes: u64,
    /// Bytes for the instances of each function on all workers, by its name.
    pub(super) functions: Vec<(String, u64)>,
    /// Packets that the receive queues take when they are filled.
    filled: u32,
}

impl Needs {
    /// Without a plan, every worker has a queue of each port.
    pub(super) fn new(
        config: &RuntimeConfig,
        functions: &[Loaded],
        workers: NonZero<u16>,
        plan: Option<&PortPlan>,
        hugepages: bool,
    ) -> Self {
        let ports = 1 + usize::from(config.ports.outside.is_some());
        let hosts = config.router.iter().flat_map(RouterConfig::hosts).count();
        let workers = usize::from(workers.get());
        let of_sides = || [vec![workers; ports], vec![1; hosts]].concat();
        let queues = plan.map_or_else(of_sides, PortPlan::queues);
        let usual = config.ports.descriptors.unwrap_or(PortBuilder::DESCRIPTORS);
        let descriptors = plan.map_or_else(|| vec![(usual, usual); queues.len()], PortPlan::descriptors);
        let in_queues = |of: fn(&(u16, u16)) -> usize| -> usize {
            queues.iter().zip(&descriptors).map(|(queues, descriptors)| queues * of(descriptors)).sum()
        };
        let steered = plan.is_some_and(|plan| plan.steering.is_some());
        let filled = in_queues(|(rx, _)| usize::from(*rx));
        let full = in_queues(|(rx, tx)| usize::from(*rx) + usize::from(*tx));
        let rings = rings(&queues, workers, steered, config.router.is_some());
        let fragments = affinity(functions).ok().and_then(|affinity| fragments(config, affinity));
        let waiting = config.router.as_ref().map_or(0, |router| router.neighbours.waiting as usize);
        let held = workers * fragments.map_or(0, |fragments| fragments.held) + waiting;
        let size = config.packets.unwrap_or_else(|| packets_needed(full, workers, rings, held));
        let of_function = |loaded: &Loaded| {
            let bytes = loaded.function.memory(&loaded.policy) as u64;
            (loaded.function.name().to_owned(), bytes.saturating_mul(workers as u64))
        };
        let pool = MempoolConfig {
            size,
            cache: MempoolConfig::default().cache.min(size / 2),
            data_room: data_room(config.ports.mtu),
            ..MempoolConfig::default()
        };
        Self {
            pool,
            packet_bytes: pool.bytes(hugepages),
            ring_bytes: (rings * ring_bytes(workers)) as u64,
            functions: functions.iter().map(of_function).collect(),
            filled: u32::try_from(filled).unwrap_or(u32::MAX),
        }
    }

    /// Whether the pool can fill the receive queues.
    pub(super) fn check_packets(&self) -> Result<(), RuntimeError> {
        let (have, need) = (self.pool.size, self.filled);
        if have < need { Err(RuntimeError::TooFewPackets { have, need }) } else { Ok(()) }
    }

    /// Bytes of the EAL's memory: packets, rings and tables. What drivers take for their queues
    /// comes on top; it is little.
    pub(super) fn bytes(&self) -> u64 {
        self.functions.iter().fold(self.packet_bytes + self.ring_bytes, |sum, (_, bytes)| sum.saturating_add(*bytes))
    }
}

/// How many rings there are between workers: to owners, to the one that has the neighbours, and to
/// those that have a queue.
fn rings(queues: &[usize], workers: usize, steered: bool, routed: bool) -> usize {
    let to_owners = if steered { workers * (workers - 1) } else { 0 };
    let to_first = if routed { workers - 1 } else { 0 };
    to_owners + to_first + queues.iter().map(|queues| workers.saturating_sub(*queues)).sum::<usize>()
}

/// A ring's slots, and what DPDK keeps beside them (struct rte_ring).
fn ring_bytes(workers: usize) -> usize {
    (ring_capacity(workers) as usize + 1) * size_of::<*const ()>() + 512
}

/// Every descriptor may hold a packet, every worker a full cache and its bursts, every ring
/// between workers what it has room for, and so many wait for a first fragment or for a neighbour.
fn packets_needed(in_queues: usize, workers: usize, rings: usize, held: usize) -> u32 {
    let needed = in_queues + workers * (512 + 1024) + rings * ring_capacity(workers) as usize + held;
    let needed = u32::try_from(needed).unwrap_or(u32::MAX >> 1);
    // A power of two less one is what the pool's ring wastes least with.
    needed.next_power_of_two().max(2) - 1
}

/// With the headroom of 128 bytes it fits into the 16 bits that DPDK has for it.
const LARGEST_DATA_ROOM: u16 = u16::MAX - 128;

/// Room for a frame of the MTU, in steps that drivers take.
fn data_room(mtu: Option<u16>) -> u16 {
    let room = (u32::from(mtu.unwrap_or(0)) + 64).next_multiple_of(1024);
    u16::try_from(room).unwrap_or(u16::MAX).clamp(MempoolConfig::default().data_room, LARGEST_DATA_ROOM)
}
