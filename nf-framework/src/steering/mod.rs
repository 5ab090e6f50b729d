//! Each packet to the worker that owns its flow.
//!
//! Workers share nothing, so all packets that need the same state must meet on one worker.
//! Which those are is the chain's [`Affinity`], put together from its functions' at start. A
//! device that honours a hash key and a table brings most packets to the right queue; whatever
//! lands on the wrong one (ICMP errors, a device that cannot hash so, one queue for many
//! workers) is handed over, through a ring for each pair of workers.
//!
//! Device and workers reckon alike: `table[toeplitz(key, addresses and ports) mod size]`.
//!
//! This module knows the headers that decide and nothing of what functions do; it keeps no
//! state of flows.

mod affinity;
mod links;
mod sorter;
mod trust;
mod tuple;

pub use affinity::{Affinity, AffinityConflict};
pub(crate) use links::{Links, connect, hand_over, ring_capacity};
pub(crate) use sorter::{Entrance, Sorter};
pub use tuple::{Ports, Tuple};

use crate::direction::Direction;
use dpdk_rs::{FlowTuple, IpVersion, Mbuf, RssField, RssKey, RssTable, RssTableSize, Toeplitz};
use std::net::IpAddr;
use std::num::NonZero;

/// Which worker owns which packets: the same on every worker, never changed.
#[derive(Clone, Debug)]
pub struct Steering {
    affinity: Affinity,
    owners: RssTable,
    inside: Side,
    outside: Side,
}

/// How the packets that come in at one end of the chain are told apart.
#[derive(Clone, Debug)]
struct Side {
    by: By,
    /// Brings a device to do the same.
    key: RssKey,
    toeplitz: Toeplitz,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    /// Addresses and ports, both directions alike.
    Flow,
    SourceAddress,
    /// As [`By::SourceAddress`] tells the packets of the other direction.
    DestinationAddress,
    /// The source port, or the identifier in its place.
    SourcePort,
    /// As [`By::SourcePort`] tells the packets of the other direction.
    DestinationPort,
    /// The block of ports that the destination port, or the identifier in its place, is in.
    DestinationPortBlock,
}

impl Steering {
    /// For so many workers, through a table of so many entries. `seed` is for what strangers
    /// shall not foresee: which hosts, or ports, share a worker. (Flows are another matter: the
    /// key that hashes both directions of a flow alike is a published one, so under
    /// [`Affinity::Flow`] a stranger can choose flows that all come to one worker.)
    ///
    /// # Errors
    ///
    /// When there are more blocks of ports than [`Affinity::TranslatedPort`] can have.
    pub fn new(
        affinity: Affinity,
        workers: NonZero<u16>,
        size: RssTableSize,
        seed: u64,
    ) -> Result<Self, dpdk_rs::PortBlocksError> {
        let (inside, outside) = match affinity {
            // What any worker may handle is still spread by flow, which keeps its packets in order.
            Affinity::Any | Affinity::Flow => (By::Flow, By::Flow),
            Affinity::InsideHost => (By::SourceAddress, By::DestinationAddress),
            Affinity::OutsideHost => (By::DestinationAddress, By::SourceAddress),
            Affinity::OutsidePort => (By::DestinationPort, By::SourcePort),
            Affinity::TranslatedPort { .. } => (By::SourceAddress, By::DestinationPortBlock),
        };
        let block_bits = if let Affinity::TranslatedPort { block_bits } = affinity { block_bits } else { 0 };
        let side = |by| Side::new(by, size, block_bits, seed);
        let (inside, outside) = (side(inside)?, side(outside)?);
        Ok(Self { affinity, owners: RssTable::balanced(size, workers, seed), inside, outside })
    }

    /// What it keeps together.
    #[must_use]
    pub fn affinity(&self) -> Affinity {
        self.affinity
    }

    /// The key that makes a device at one end of the chain choose as [`Steering::owner`] does, for
    /// whole TCP and UDP packets without VLAN tags. One for [`Affinity::InsideHost`],
    /// [`Affinity::OutsideHost`] or [`Affinity::TranslatedPort`] does so for destinations of IPv4
    /// only, one for [`Affinity::OutsidePort`] for IPv4 only: no key can serve both versions there.
    #[must_use]
    pub fn key(&self, direction: Direction) -> &RssKey {
        &self.side(direction).key
    }

    /// The worker for each value of the hash's low bits.
    #[must_use]
    pub fn owners(&self) -> &RssTable {
        &self.owners
    }

    /// The worker that owns packets of this tuple which come in at the entrance of this
    /// direction: [`Direction::Outbound`] is for those from inside. A function that gives flows
    /// addresses or ports of its own chooses such as come back to it.
    #[must_use]
    #[inline]
    pub fn owner(&self, direction: Direction, tuple: &Tuple) -> usize {
        usize::from(self.owners.entry(self.side(direction).hash(tuple)))
    }

    /// The owner of a frame that comes in there; `None` if any worker may have it, as it is no
    /// IP packet.
    #[inline]
    pub(crate) fn owner_of_frame(&self, direction: Direction, frame: &mut [u8]) -> Option<usize> {
        Tuple::of_frame(frame).map(|tuple| self.owner(direction, &tuple))
    }

    /// As [`Steering::owner_of_frame`], and a fragment's is the owner of the flow.
    #[inline]
    pub(crate) fn owner_of_packet(&self, direction: Direction, packet: &mut Mbuf) -> Option<usize> {
        Tuple::of_packet(packet).map(|tuple| self.owner(direction, &tuple))
    }

    #[inline]
    fn side(&self, direction: Direction) -> &Side {
        match direction {
            Direction::Outbound => &self.inside,
            Direction::Inbound => &self.outside,
        }
    }
}

impl Side {
    fn new(by: By, size: RssTableSize, block_bits: u8, seed: u64) -> Result<Self, dpdk_rs::PortBlocksError> {
        let of_field = |field| RssKey::of_field(field, size, seed);
        let source = of_field(RssField::SourceAddress);
        let source_port = of_field(RssField::SourcePort(IpVersion::V4));
        let (key, toeplitz) = match by {
            By::Flow => (RssKey::symmetric(), None),
            By::SourceAddress => (source, None),
            // An address counts the same wherever it stands, so the hash is always that of a source.
            By::DestinationAddress => {
                let key = of_field(RssField::DestinationAddress(IpVersion::V4));
                (key, Some(Toeplitz::new(&source)))
            }
            By::SourcePort => (source_port, None),
            // A port does too.
            By::DestinationPort => {
                (of_field(RssField::DestinationPort(IpVersion::V4)), Some(Toeplitz::new(&source_port)))
            }
            By::DestinationPortBlock => (RssKey::of_port_blocks(IpVersion::V4, block_bits.into(), size, seed)?, None),
        };
        let toeplitz = toeplitz.unwrap_or_else(|| Toeplitz::new(&key));
        Ok(Self { by, key, toeplitz })
    }

    #[inline]
    fn hash(&self, tuple: &Tuple) -> u32 {
        match self.by {
            By::Flow => self.toeplitz.hash(flow(tuple).bytes()),
            By::SourceAddress => self.hash_address(tuple.source),
            By::DestinationAddress => self.hash_address(tuple.destination),
            By::SourcePort | By::DestinationPort => match (self.by, tuple.ports) {
                (_, Ports::Identifier(port)) | (By::SourcePort, Ports::Both(port, _)) | (_, Ports::Both(_, port)) => {
                    self.hash_port(port, 8)
                }
                (_, Ports::None) => 0,
            },
            By::DestinationPortBlock => match tuple.ports {
                Ports::Both(_, port) | Ports::Identifier(port) => self.hash_port(port, 10),
                Ports::None => 0,
            },
        }
    }

    /// Of a port that stands here in what is hashed of IPv4; all else counts nothing.
    #[inline]
    fn hash_port(&self, port: u16, at: usize) -> u32 {
        let mut bytes = [0; 12];
        bytes[at..at + 2].copy_from_slice(&port.to_be_bytes());
        self.toeplitz.hash(&bytes)
    }

    #[inline]
    fn hash_address(&self, address: IpAddr) -> u32 {
        match address {
            IpAddr::V4(address) => self.toeplitz.hash(&address.octets()),
            IpAddr::V6(address) => self.toeplitz.hash(&address.octets()),
        }
    }

    /// Whether a device that does as told brings TCP and UDP of this version to their owner.
    #[inline]
    fn device_knows(&self, version: IpVersion) -> bool {
        matches!(self.by, By::Flow | By::SourceAddress) || version == IpVersion::V4
    }
}

/// As devices see it: an ICMP identifier does not count.
#[inline]
fn flow(tuple: &Tuple) -> FlowTuple {
    let addresses = match (tuple.source, tuple.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => FlowTuple::v4(source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => FlowTuple::v6(source, destination),
        // No packet has both versions.
        (source, destination) => FlowTuple::v6(mapped(source), mapped(destination)),
    };
    match tuple.ports {
        Ports::Both(source, destination) => addresses.with_ports(source, destination),
        Ports::Identifier(_) | Ports::None => addresses,
    }
}

fn mapped(address: IpAddr) -> std::net::Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}
