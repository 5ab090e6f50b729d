//! From which side a packet came, where only its addresses can tell.

use crate::classifier::Prefix;
use crate::headers::{EtherType, EthernetHeader, MAX_VLAN_TAGS};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether an address is in these prefixes; whether it is a private one, if there are none.
#[must_use]
pub fn is_inside(address: IpAddr, inside: &[Prefix]) -> bool {
    if !inside.is_empty() {
        return inside.iter().any(|prefix| prefix.contains(address));
    }
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local() || address.is_unspecified(),
        IpAddr::V6(address) => address.is_unique_local() || address.is_unicast_link_local() || address.is_unspecified(),
    }
}

/// The address that a frame is from: that of its IP header, or of the sender in ARP.
pub(super) fn source(frame: &[u8]) -> Option<IpAddr> {
    let v4 = |octets: &[u8]| Some(IpAddr::from(Ipv4Addr::from(*octets.first_chunk::<4>()?)));
    let mut at = EthernetHeader::LENGTH;
    for _ in 0..=MAX_VLAN_TAGS {
        let ether_type = EtherType::new(u16::from_be_bytes(*frame.get(at - 2..at)?.first_chunk()?));
        let payload = frame.get(at..)?;
        match ether_type {
            EtherType::IPV4 => return v4(payload.get(12..)?),
            EtherType::IPV6 => return Some(Ipv6Addr::from(*payload.get(8..)?.first_chunk::<16>()?).into()),
            EtherType::ARP => return v4(payload.get(14..)?),
            tag if tag.is_vlan() => at += 4,
            _ => return None,
        }
    }
    None
}
