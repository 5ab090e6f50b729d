//! Where routes lead, those of the configuration and those of the kernel.

use super::config::{Refuse, RouteConfig};
use super::interfaces::{Interface, is_link_local};
use super::target::Way;
use crate::classifier::{Prefix, is_host};
use crate::function::Invalid;
use crate::kernel::{KernelNextHop, KernelRoute};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Where packets are sent to: a router, on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gateway {
    pub(crate) interface: u16,
    pub(crate) address: IpAddr,
}

/// The way of a route of the configuration, the one of this number.
pub(super) fn route_way(
    (index, route, earlier): (usize, &RouteConfig, &mut BTreeMap<Prefix, usize>),
    interfaces: &[Interface],
    next_hops: &mut Vec<Gateway>,
) -> Result<Way, Invalid> {
    let invalid = |key: &str, message: String| Invalid::new(format!("routes[{index}].{key}"), message);
    let named = |name: &String| {
        let position = interfaces.iter().position(|interface| interface.name == *name);
        position.and_then(|position| u16::try_from(position).ok()).ok_or_else(|| {
            let have: Vec<&str> = interfaces.iter().map(|interface| interface.name.as_str()).collect();
            invalid("interface", format!("there is no interface {name:?} (there are: {})", have.join(", ")))
        })
    };
    let interface = route.interface.as_ref().map(named).transpose()?;
    let special = || SPECIAL.iter().filter_map(|(prefix, _)| prefix.parse::<Prefix>().ok());
    let is_part = |special: Prefix| special.length() <= route.to.length() && special.contains(route.to.address());
    if special().any(is_part) {
        return Err(invalid("to", format!("{} is never forwarded, whatever a route says", route.to)));
    }
    let on_link = |interface: &&Interface| interface.addresses.iter().any(|own| own.prefix == route.to);
    if let Some(other) = interfaces.iter().find(on_link) {
        return Err(invalid("to", format!("{} is the link of the interface {:?}", route.to, other.name)));
    }
    if let Some(earlier) = earlier.insert(route.to, index) {
        return Err(invalid("to", format!("{} stands in routes[{earlier}] already", route.to)));
    }
    match (route.refuse, route.via, interface) {
        (Some(refuse), None, None) => Ok(match refuse {
            Refuse::Blackhole => Way::Blackhole,
            Refuse::Unreachable => Way::None,
            Refuse::Prohibited => Way::Prohibited,
        }),
        (None, None, Some(interface)) => Ok(Way::Connected(interface)),
        (None, Some(via), interface) => {
            if via.is_ipv4() != route.to.address().is_ipv4() {
                return Err(invalid("via", format!("{via} is of another IP version than {}", route.to)));
            }
            if interfaces
                .iter()
                .flat_map(|interface| &interface.addresses)
                .any(|own| own.broadcast().is_some_and(|broadcast| via == broadcast || via == own.prefix.address()))
            {
                return Err(invalid(
                    "via",
                    format!("{via} is the first or the last address of a link, which no host has"),
                ));
            }
            if !is_host(via) {
                return Err(invalid("via", format!("{via} is not an address that a host can have")));
            }
            if interfaces.iter().flat_map(|interface| &interface.addresses).any(|own| own.address == via) {
                return Err(invalid("via", format!("{via} is this router's own address")));
            }
            let near = |interface: &Interface| interface.addresses.iter().any(|own| own.prefix.contains(via));
            let found = if is_link_local(via) { None } else { interfaces.iter().position(near) };
            let found = found.and_then(|position| u16::try_from(position).ok());
            let interface = match (interface, found) {
                (Some(interface), _) => interface,
                (None, Some(found)) => found,
                (None, None) => {
                    let message = format!("{via} is on no interface's prefix (name the interface that it is on)");
                    return Err(invalid("via", message));
                }
            };
            let hop = Gateway { interface, address: via };
            by_next_hop(hop, next_hops).ok_or_else(|| invalid("via", "more than 65536 next hops".to_owned()))
        }
        _ => Err(invalid(
            "to",
            "a route has either via, with an interface or without, or interface, or refuse".to_owned(),
        )),
    }
}

/// Whether routes to a prefix are of any use.
pub(super) fn is_forwarded(prefix: Prefix) -> bool {
    !is_link_local(prefix.address()) && !prefix.address().is_multicast()
}

/// The way of one of the kernel's routes; `None` if it leads by no interface of the router's, or there are too many next hops.
pub(super) fn kernel_way(route: &KernelRoute, of_kernel: &[u16], next_hops: &mut Vec<Gateway>) -> Option<Way> {
    let interface = |place: u16| of_kernel.get(usize::from(place)).copied();
    match route.next_hop {
        KernelNextHop::Blackhole => Some(Way::Blackhole),
        KernelNextHop::Unreachable => Some(Way::None),
        KernelNextHop::Prohibited => Some(Way::Prohibited),
        KernelNextHop::Link { interface: place } => Some(Way::Connected(interface(place)?)),
        KernelNextHop::Gateway { interface: place, address } => {
            by_next_hop(Gateway { interface: interface(place)?, address }, next_hops)
        }
    }
}

/// By a next hop, which may be known; `None` if there are too many.
fn by_next_hop(hop: Gateway, next_hops: &mut Vec<Gateway>) -> Option<Way> {
    let position = next_hops.iter().position(|known| *known == hop).unwrap_or(next_hops.len());
    let index = u16::try_from(position).ok()?;
    if position == next_hops.len() {
        next_hops.push(hop);
    }
    Some(Way::Via(index))
}

/// What is never forwarded: RFC 6890 where it says that a router must not.
pub(super) const SPECIAL: [(&str, Way); 11] = [
    ("0.0.0.0/8", Way::Martian),
    ("127.0.0.0/8", Way::Martian),
    ("169.254.0.0/16", Way::LinkLocal),
    ("224.0.0.0/4", Way::Multicast),
    ("240.0.0.0/4", Way::Martian),
    ("255.255.255.255/32", Way::Broadcast),
    ("::/128", Way::Martian),
    ("::1/128", Way::Martian),
    ("::ffff:0:0/96", Way::Martian),
    ("fe80::/10", Way::LinkLocal),
    ("ff00::/8", Way::Multicast),
];
