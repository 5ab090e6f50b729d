//! What the router says of a packet that is being traced.

use super::tables::Tables;
use super::target::Way;
use crate::headers::{Headers, Network};
use crate::next_hop::NextHops;
use crate::trace::{Note, TracedPacket};
use crate::verdict::{DropReason, Verdict};
use std::fmt::Write as _;
use std::net::IpAddr;

/// What the router's first half drops a packet for when it has found its way.
const ON_ITS_WAY: [DropReason; 6] = [
    DropReason::BLACKHOLE,
    DropReason::NO_LISTENER,
    DropReason::NO_ROUTE,
    DropReason::PROHIBITED,
    DropReason::SAME_SIDE,
    DropReason::TTL_EXPIRED,
];

/// Where its first half found that a packet goes, and what its second half sends it to.
pub(super) fn note(tables: &Tables, next_hops: &NextHops, first: bool, packet: &mut TracedPacket<'_>, note: &mut Note) {
    if first && matches!(packet.verdict, Some(Verdict::Drop(reason)) if !ON_ITS_WAY.contains(&reason)) {
        // Nobody has looked for it.
        return;
    }
    let chosen = packet.annotation.next_hop.and_then(|next_hop| next_hops.address(next_hop));
    let destination = Headers::parse(packet.frame).ok().and_then(|headers| match headers.network {
        Network::Ipv4 { header, .. } => Some(IpAddr::from(header.destination)),
        Network::Ipv6 { header, .. } => Some(IpAddr::from(header.destination)),
        _ => None,
    });
    let Some(address) = chosen.or(destination) else { return };
    let interface = |index: u16| tables.interface(index).map_or("?", |interface| interface.name.as_str());
    let what = if first { "route" } else { "next hop" };
    // A note is cut off where it is full, so nothing can go wrong.
    let _ = match tables.find(address).way() {
        Way::Connected(index) => write!(note, "{what} {address} on {}", interface(index)),
        Way::Via(index) => match tables.next_hops.get(usize::from(index)) {
            Some(gateway) => write!(note, "{what} {} on {}", gateway.address, interface(gateway.interface)),
            None => Ok(()),
        },
        Way::None => write!(note, "no route to {address}"),
        Way::Blackhole => write!(note, "the route to {address} is a blackhole"),
        Way::Prohibited => write!(note, "the route to {address} is prohibited"),
        Way::Own => write!(note, "{address} is the router's own"),
        Way::Function => write!(note, "{address} is a function's"),
        Way::Martian | Way::Multicast | Way::Broadcast | Way::LinkLocal => Ok(()),
    };
}
