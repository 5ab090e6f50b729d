//! Why a port does not do what was asked.

use crate::Errno;
use crate::port_info::{Offloads, PortId};

/// Why a port does not do what was asked. `port` is its name as the EAL knows it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// DPDK knows no such port.
    #[error("there is no {0}; there are: {1}")]
    NoSuchPort(PortId, String),
    /// A [`Port`](crate::Port) for it exists.
    #[error("port {port} is in use already")]
    InUse {
        /// Its name.
        port: String,
    },
    /// No pool was named to receive into.
    #[error("port {port} was given no mempool to receive into")]
    NoPool {
        /// Its name.
        port: String,
    },
    /// No queues were asked for; DPDK would configure one that nobody sets up.
    #[error("port {port} was asked to start without queues")]
    NoQueues {
        /// Its name.
        port: String,
    },
    /// The device has fewer queues than asked for.
    #[error("port {port} ({driver}) has {have} {kind} queue(s), {need} are needed: one for each worker lcore")]
    TooFewQueues {
        /// Its name.
        port: String,
        /// Its driver.
        driver: String,
        /// Receive or transmit.
        kind: &'static str,
        /// What it has.
        have: u16,
        /// What was asked for.
        need: u16,
    },
    /// The device cannot have this MTU.
    #[error("port {port} ({driver}) takes an MTU from {min} to {max}, not {mtu}")]
    Mtu {
        /// Its name.
        port: String,
        /// Its driver.
        driver: String,
        /// Smallest.
        min: u16,
        /// Largest.
        max: u16,
        /// Asked for.
        mtu: u16,
    },
    /// The device cannot have so many descriptors, or so few.
    #[error("port {port} ({driver}) takes {min} to {max} {kind} descriptors, not {asked}")]
    Descriptors {
        /// Its name.
        port: String,
        /// Its driver.
        driver: String,
        /// Receive or transmit.
        kind: &'static str,
        /// Fewest.
        min: u16,
        /// Most.
        max: u16,
        /// Asked for.
        asked: u16,
    },
    /// A frame of this MTU would not fit into one buffer of the pool.
    #[error(
        "an MTU of {mtu} needs packets of {need} bytes, but those of the mempool {pool:?} hold {have}: port {port}"
    )]
    DataRoom {
        /// Its name.
        port: String,
        /// The MTU asked for, or the device's own.
        mtu: u16,
        /// Bytes needed.
        need: u32,
        /// Bytes there.
        have: u16,
        /// The pool's name.
        pool: String,
    },
    /// The device lacks offloads that were asked for.
    #[error("port {port} ({driver}) has no {kind} offload {}; it has: {}", missing.names(kind), have.names(kind))]
    Offloads {
        /// Its name.
        port: String,
        /// Its driver.
        driver: String,
        /// Receive or transmit.
        kind: &'static str,
        /// Those that it lacks of what was asked for.
        missing: Offloads,
        /// Those that it has.
        have: Offloads,
    },
    /// Offloads that break what a packet is here: one segment, of any pool.
    #[error(
        "port {port}: the {kind} offloads {} are not for packets of one segment from any mempool",
        unsound.names(kind)
    )]
    UnsoundOffloads {
        /// Its name.
        port: String,
        /// Receive or transmit.
        kind: &'static str,
        /// Those that it must not have.
        unsound: Offloads,
    },
    /// [`Port::stop`](crate::Port::stop) or [`Port::take_down`](crate::Port::take_down) did not get every queue pair of the port.
    #[error("port {port} cannot stop: {missing} of its {queues} queue pairs were not given back")]
    QueuesOut {
        /// Its name.
        port: String,
        /// Queue pairs not there.
        missing: usize,
        /// Queue pairs in all.
        queues: u16,
    },
    /// It is up, and what was asked is for a port that was taken down.
    #[error("port {port} is up")]
    Up {
        /// Its name.
        port: String,
    },
    /// The physical function of a virtual one does not answer.
    #[error(
        "port {port} ({driver}): its physical function does not answer (is it up? on the hypervisor: ip link set PF up)"
    )]
    NoAnswer {
        /// Its name.
        port: String,
        /// Its driver.
        driver: String,
    },
    /// DPDK refused.
    #[error("port {port}: {step}: {errno}")]
    Refused {
        /// Its name.
        port: String,
        /// What was tried.
        step: &'static str,
        /// Why not.
        errno: Errno,
    },
}
