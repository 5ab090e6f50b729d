//! The rings between workers.

use crate::counters::{WorkerCounters, bump};
use crate::verdict::{DropReason, PortIx};
use dpdk_rs::{Burst, Consumer, Eal, Producer, Ring, RingError};

/// Packets that wait in a ring at most; one more is dropped as `hand-over-full`. With many workers
/// there are many rings, so each is shorter. One less than a power of two fills its memory.
pub(crate) fn ring_capacity(workers: usize) -> u32 {
    let capacity = (4096 / workers.max(1)).clamp(64, 512);
    u32::try_from(capacity.next_power_of_two() - 1).unwrap_or(511)
}

/// One worker's ends of the rings between workers.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// By worker: packets that belong to it. None to itself.
    pub(crate) to_owner: Vec<Option<Producer>>,
    /// From each other worker: packets that belong to this one.
    pub(crate) as_owner: Vec<Consumer>,
    /// By port: packets to be sent by the worker that has a queue; `None` where this one has.
    pub(crate) to_sender: Vec<Option<Producer>>,
    /// Packets to be sent by this worker, for one that has no queue of that port.
    pub(crate) as_sender: Vec<(PortIx, Consumer)>,
    /// Packets that only the first worker can handle: what neighbours say, and what waits for them.
    pub(crate) to_first: Option<Producer>,
    /// From each other worker, at the first one: such packets.
    pub(crate) as_first: Vec<Consumer>,
}

/// Connects workers: each with each other one if packets are `steered`, each with the first one if
/// they are `routed`, and each that has no queue of a port with one that has. `queues` says how many of the workers, from the first on,
/// have a queue of each port; `name` starts the rings' names.
pub(crate) fn connect(
    eal: &Eal,
    name: &str,
    workers: usize,
    (steered, routed): (bool, bool),
    queues: &[usize],
) -> Result<Vec<Links>, RingError> {
    let capacity = ring_capacity(workers);
    let mut links: Vec<Links> = (0..workers).map(|_| Links::default()).collect();
    if steered {
        for from in 0..workers {
            for to in 0..workers {
                let ring =
                    if from == to { None } else { Some(Ring::pair(eal, &format!("{name}-{from}-{to}"), capacity)?) };
                let (producer, consumer) = ring.unzip();
                links[from].to_owner.push(producer);
                links[to].as_owner.extend(consumer);
            }
        }
    }
    for from in if routed { 1..workers } else { 1..1 } {
        let (producer, consumer) = Ring::pair(eal, &format!("{name}-{from}-first"), capacity)?;
        links[from].to_first = Some(producer);
        links[0].as_first.push(consumer);
    }
    for (port, &queues) in (0..).zip(queues) {
        for from in 0..workers {
            let ring = if from < queues {
                None
            } else {
                Some(Ring::pair(eal, &format!("{name}-{from}-port{port}"), capacity)?)
            };
            let (producer, consumer) = ring.unzip();
            links[from].to_sender.push(producer);
            if let Some(consumer) = consumer {
                links[from % queues].as_sender.push((PortIx(port), consumer));
            }
        }
    }
    Ok(links)
}

/// Puts a burst into a ring and leaves it empty; what finds no room is dropped and counted.
#[inline]
pub(crate) fn hand_over(ring: &mut Producer, burst: &mut Burst, counters: &WorkerCounters) {
    // Before the other end can count them: what is between workers is never less than nothing.
    bump(&counters.handed_over, burst.len() as u64);
    ring.send(burst);
    if !burst.is_empty() {
        bump(&counters.handed_over, 0_u64.wrapping_sub(burst.len() as u64));
        counters.count_drops(burst, DropReason::HAND_OVER_FULL);
        burst.clear();
    }
}
