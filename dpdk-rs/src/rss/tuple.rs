//! What a device hashes of a packet.

use std::net::{Ipv4Addr, Ipv6Addr};

/// The family of a packet's addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum IpVersion {
    /// Addresses of 4 bytes.
    V4,
    /// Addresses of 16 bytes.
    V6,
}

impl IpVersion {
    /// Bytes of an address.
    pub(crate) const fn address_len(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

/// Addresses, and ports if they count, in the order in which receive side scaling hashes
/// them: source address, destination address, source port, destination port, in network
/// order.
///
/// Devices hash TCP and UDP with their ports, if the [functions](super::RssFunctions) for that
/// are on, and all else by addresses alone: ICMP, and every fragment, the first too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FlowTuple {
    bytes: [u8; 36],
    version: IpVersion,
    ports: bool,
}

impl FlowTuple {
    /// A packet of IPv4, by its addresses.
    #[inline]
    #[must_use]
    pub fn v4(source: impl Into<Ipv4Addr>, destination: impl Into<Ipv4Addr>) -> Self {
        let mut bytes = [0; 36];
        bytes[..4].copy_from_slice(&source.into().octets());
        bytes[4..8].copy_from_slice(&destination.into().octets());
        Self { bytes, version: IpVersion::V4, ports: false }
    }

    /// A packet of IPv6, by its addresses.
    #[inline]
    #[must_use]
    pub fn v6(source: impl Into<Ipv6Addr>, destination: impl Into<Ipv6Addr>) -> Self {
        let mut bytes = [0; 36];
        bytes[..16].copy_from_slice(&source.into().octets());
        bytes[16..32].copy_from_slice(&destination.into().octets());
        Self { bytes, version: IpVersion::V6, ports: false }
    }

    /// The same with the ports of TCP or UDP.
    #[inline]
    #[must_use]
    pub fn with_ports(mut self, source: u16, destination: u16) -> Self {
        let at = 2 * self.version.address_len();
        self.bytes[at..at + 2].copy_from_slice(&source.to_be_bytes());
        self.bytes[at + 2..at + 4].copy_from_slice(&destination.to_be_bytes());
        self.ports = true;
        self
    }

    /// The other direction of the same flow.
    #[must_use]
    pub fn reversed(mut self) -> Self {
        let (addresses, ports) = self.bytes.split_at_mut(2 * self.version.address_len());
        addresses.rotate_left(self.version.address_len());
        ports[..4].rotate_left(2);
        self
    }

    /// What is hashed: 8 or 12 bytes for IPv4, 32 or 36 for IPv6.
    #[inline]
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        let addresses = 2 * self.version.address_len();
        &self.bytes[..if self.ports { addresses + 4 } else { addresses }]
    }
}
