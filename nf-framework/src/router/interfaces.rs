//! The router's interfaces: what they are asked to be, on ports that are as they are, and which of their addresses is whose.

use super::PortOffloads;
use super::config::{InterfaceAddress, RouterConfig, Side};
use crate::classifier::Prefix;
use crate::direction::Direction;
use crate::function::Invalid;
use crate::headers::MacAddress;
use crate::neighbours::Link;
use crate::verdict::PortIx;
use std::net::{IpAddr, Ipv6Addr};

/// Interfaces that a router may have.
pub(super) const MOST_INTERFACES: u16 = 1024;
/// VLANs that there are, without 0 (no VLAN) and 4095 (reserved).
pub(super) const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;
/// What every link carries, RFC 791 and RFC 8200 section 5.
const LEAST_MTU: u16 = 68;
const LEAST_MTU_V6: u16 = 1280;

/// What a port says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PortFacts {
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u16,
    pub(crate) offloads: PortOffloads,
}

/// An interface of the router.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Interface {
    pub(crate) name: String,
    /// The way of packets that come in by it: from inside they go outbound.
    pub(crate) enters: Direction,
    pub(crate) port: PortIx,
    pub(crate) vlan: Option<u16>,
    /// Whether the port's device puts its tag on.
    pub(crate) inserts_vlans: bool,
    pub(crate) mac: MacAddress,
    pub(crate) mtu: u16,
    /// The port with the kernel at its other end.
    pub(crate) host: Option<PortIx>,
    /// Its own, a link-local one of IPv6 among them.
    pub(crate) addresses: Vec<InterfaceAddress>,
}

/// Those of a configuration, on these ports.
pub(super) fn interfaces(config: &RouterConfig, ports: &[PortFacts]) -> Result<Vec<Interface>, Invalid> {
    if config.interfaces.is_empty() || config.interfaces.len() > usize::from(MOST_INTERFACES) {
        return Err(Invalid::new("interfaces", format!("a router has from 1 to {MOST_INTERFACES} interfaces")));
    }
    let mut interfaces: Vec<Interface> = Vec::new();
    for (name, written) in &config.interfaces {
        let invalid = |key: &str, message: String| Invalid::new(format!("interfaces.{name}.{key}"), message);
        if let Some(vlan) = written.vlan.filter(|vlan| !VLANS.contains(vlan)) {
            return Err(invalid("vlan", format!("{vlan} is not from {} to {}", VLANS.start(), VLANS.end())));
        }
        let (enters, port) = match written.side {
            Side::Inside => (Direction::Outbound, 0),
            Side::Outside => (Direction::Inbound, ports.len().saturating_sub(1)),
        };
        let Some(facts) = ports.get(port) else { return Err(invalid("side", "there is no port".to_owned())) };
        let port = PortIx(u16::try_from(port).unwrap_or(0));
        if let Some(other) = interfaces.iter().find(|other| other.port == port && other.vlan == written.vlan) {
            let vlan = written.vlan.map_or("frames without a tag".to_owned(), |vlan| format!("VLAN {vlan}"));
            return Err(invalid(
                "vlan",
                format!("{vlan} on this port is the interface {:?} already (give each a VLAN of its own)", other.name),
            ));
        }
        let v6 = written.addresses.iter().any(|own| own.address.is_ipv6());
        let mtu = written.mtu.unwrap_or(facts.mtu);
        let least = if v6 { LEAST_MTU_V6 } else { LEAST_MTU };
        if mtu < least || mtu > facts.mtu {
            return Err(invalid("mtu", format!("{mtu} is not from {least} to {}, the port's", facts.mtu)));
        }
        if written.addresses.is_empty() && written.host.is_none() {
            return Err(invalid("addresses", "an interface needs at least one, or a host that has some".to_owned()));
        }
        let mut addresses = Vec::new();
        for (place, own) in written.addresses.iter().enumerate() {
            let key = format!("addresses[{place}]");
            let elsewhere =
                interfaces.iter().flat_map(|other| other.addresses.iter().map(move |theirs| (other, theirs)));
            let mut taken = elsewhere.filter(|(_, theirs)| !is_link_local(theirs.address));
            if let Some((other, theirs)) = taken.find(|(_, theirs)| overlap(theirs.prefix, own.prefix)) {
                let message =
                    format!("{own} overlaps with {theirs} of {:?}: each link has prefixes of its own", other.name);
                return Err(invalid(&key, message));
            }
            if addresses.iter().any(|earlier: &InterfaceAddress| earlier.address == own.address) {
                return Err(invalid(&key, format!("{} stands here twice", own.address)));
            }
            addresses.push(*own);
        }
        if v6 && !addresses.iter().any(|own| is_link_local(own.address)) {
            addresses.push(link_local(facts.mac));
        }
        let twice = |host: &String| {
            config.interfaces.iter().find(|(other, theirs)| *other != name && theirs.host.as_ref() == Some(host))
        };
        if let Some((other, _)) = written.host.as_ref().and_then(twice) {
            return Err(invalid("host", format!("is that of the interface {other:?} too: each needs one of its own")));
        }
        let earlier = interfaces.iter().filter(|other| other.host.is_some()).count();
        let host = written.host.as_ref().and_then(|_| u16::try_from(ports.len() + earlier).ok()).map(PortIx);
        let name = name.clone();
        let (vlan, inserts_vlans) = (written.vlan, facts.offloads.inserts_vlans);
        interfaces.push(Interface { name, enters, port, vlan, inserts_vlans, mac: facts.mac, mtu, host, addresses });
    }
    Ok(interfaces)
}

/// Whether two prefixes have an address in common.
pub(super) fn overlap(one: Prefix, other: Prefix) -> bool {
    one.contains(other.address()) || other.contains(one.address())
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.segments()[0] & 0xffc0 == 0xfe80)
}

/// The address that every IPv6 interface has.
fn link_local(mac: MacAddress) -> InterfaceAddress {
    let address = Link::link_local(mac);
    let prefix = Prefix::new(Ipv6Addr::from_segments([0xfe80, 0, 0, 0, 0, 0, 0, 0]).into(), 64);
    InterfaceAddress { address: address.into(), prefix: prefix.unwrap_or_else(|_| Prefix::from(IpAddr::from(address))) }
}

/// The interfaces that the kernel is on, in the order in which they are followed.
pub(crate) fn with_host(interfaces: &[Interface]) -> Vec<u16> {
    (0..).zip(interfaces).filter(|(_, interface)| interface.host.is_some()).map(|(index, _)| index).collect()
}

/// An address of this interface to send from; of IPv6 one that is valid beyond the link if there
/// is one.
pub(crate) fn source(interface: &Interface, v4: bool) -> Option<IpAddr> {
    let mut own = interface.addresses.iter().map(|own| own.address).filter(|address| address.is_ipv4() == v4);
    own.clone().find(|address| !is_link_local(*address)).or_else(|| own.next())
}

/// An IPv4 address of the router, or an IPv6 one.
pub(crate) fn any_source(interfaces: &[Interface], v4: bool) -> Option<IpAddr> {
    let sources = || interfaces.iter().filter_map(|interface| source(interface, v4));
    sources().find(|address| !is_link_local(*address)).or_else(|| sources().next())
}
