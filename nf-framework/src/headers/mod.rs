//! Packet headers as views of the packet's own bytes.
//!
//! This module owns the wire formats: what the bytes of a frame mean, layer by layer, and the
//! Internet checksum over them. It must not know where the bytes came from (an mbuf, a file, a
//! test), what a flow is, or whether a packet is welcome.
//!
//! [`Headers::parse`] walks a frame once and gives every layer at the same time, each one
//! mutable: writing a field writes the packet. Nothing is copied or allocated, no input makes it
//! panic, and what it refuses it refuses with a [`ParseError`] that can serve as a drop reason.
//!
//! Fields that the wire carries in network order are [`U16`] and [`U32`]: `get` and `set` speak
//! the machine's order. Addresses are octets as the wire has them, so `Ipv4Addr::from(ip.source)`
//! and `ip.source = address.octets()` convert for nothing.
//!
//! A later fragment has no ports among its bytes. What stood in the first fragment of its packet
//! travels beside it: ask [`Annotation::ports`](crate::Annotation::ports), or
//! [`Tuple::of_packet`](crate::Tuple::of_packet) for addresses and ports at once.
//!
//! ```
//! use nf_framework::headers::{ChecksumUpdate, Headers, Network, Transport};
//! use nf_framework::testing::Frame;
//!
//! let mut frame = Frame::new()
//!     .ipv4([192, 0, 2, 1], [198, 51, 100, 1])
//!     .udp(1000, 53)
//!     .payload(b"hello")
//!     .build();
//!
//! // Send the datagram to another port, and mend its checksum without reading its payload.
//! let mut headers = Headers::parse(&mut frame)?;
//! if let Transport::Udp(udp) = &mut headers.transport {
//!     let update = ChecksumUpdate::new().replace_u16(udp.destination_port.get(), 5353);
//!     udp.destination_port.set(5353);
//!     update.apply_udp(&mut udp.checksum);
//! }
//!
//! let headers = Headers::parse(&mut frame)?;
//! assert!(matches!(headers.network, Network::Ipv4 { .. }));
//! assert_eq!(headers.transport.ports(), Some((1000, 5353)));
//! assert_eq!(headers.payload, b"hello");
//! assert_eq!(headers.verify_checksums(), Ok(()));
//! # Ok::<(), nf_framework::headers::ParseError>(())
//! ```

mod arp;
pub mod checksum;
mod ethernet;
mod icmp;
mod icmpv6;
mod ipv4;
mod ipv6;
mod ipv6_extension;
mod mac_address;
mod parse;
mod parse_error;
mod protocol;
mod quoted;
mod tcp;
mod udp;
mod vlan;

pub use arp::{ArpOperation, ArpPacket};
pub use checksum::{ChecksumError, ChecksumUpdate, PseudoHeader};
pub use ethernet::{EtherType, EthernetHeader};
pub use icmp::{IcmpHeader, IcmpType};
pub use icmpv6::{Icmpv6Header, Icmpv6Type};
pub use ipv4::Ipv4Header;
pub use ipv6::Ipv6Header;
pub(crate) use ipv6_extension::Ipv6Extensions;
pub(crate) use ipv6_extension::upper_layer;
pub use ipv6_extension::{Ipv6FragmentHeader, MAX_IPV6_EXTENSIONS};
pub use mac_address::{InvalidMacAddress, MacAddress};
pub use parse::{Fragment, Headers, Network, Transport};
pub use parse_error::ParseError;
pub use protocol::IpProtocol;
pub use quoted::{QuotedPacket, QuotedTcp, QuotedTransport};
pub use tcp::{TcpFlags, TcpHeader};
pub use udp::UdpHeader;
pub(crate) use vlan::on_the_link;
pub use vlan::{MAX_VLAN_TAGS, VlanTag};
/// Integers in network order, as the fields of the views are: `get` and `set`.
pub use zerocopy::network_endian::{U16, U32};
