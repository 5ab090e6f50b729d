//! The kernel's addresses and routes as far as they are known here, kept up from one message to
//! the next.
//!
//! Most changes say all that is needed. After some only the kernel knows what is left (a route
//! that several have stood for, or routes that went without a word with an address, a link or a
//! next-hop object); those make the mirror doubtful, and whoever has it asks for everything again.

use super::netlink;
use super::{KernelAddress, KernelError, KernelInterface, KernelNextHop, KernelRoute, KernelState};
use crate::classifier::Prefix;
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHop, RouteNextHopFlags, RouteType,
    RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a message does to the mirror.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Effect {
    None,
    Changed,
    /// It may differ from the kernel.
    Doubtful,
}

/// Addresses and routes of all interfaces.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Mirror {
    /// Names by index.
    links: BTreeMap<u32, String>,
    /// Interface, address, prefix length.
    addresses: BTreeSet<(u32, IpAddr, u8)>,
    /// By prefix and metric, in the order in which they are in force; nearly always one.
    routes: BTreeMap<Destination, Vec<Way>>,
}

/// A prefix, and the metric of a route to it.
type Destination = (Prefix, u32);

/// A route, or a part of one that has several next hops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Way {
    next_hop: NextHop,
    is_part: bool,
}

/// What packets do, by the indices of interfaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum NextHop {
    Gateway(u32, IpAddr),
    Link(u32),
    /// By an interface, but not in a way that can be followed.
    Refused(u32),
    Blackhole,
    Unreachable,
    Prohibited,
}

impl Mirror {
    /// Asks the kernel for everything. False if that changed meanwhile, and is to be asked again.
    pub(super) fn dump() -> Result<(Self, bool), KernelError> {
        let (mut mirror, mut is_consistent) = (Self::default(), true);
        let (mut links, mut address, mut route) =
            (LinkMessage::default(), AddressMessage::default(), RouteMessage::default());
        links.header.interface_family = AddressFamily::Unspec;
        address.header.family = AddressFamily::Unspec;
        route.header.address_family = AddressFamily::Unspec;
        for (what, request) in [
            ("interfaces", RouteNetlinkMessage::GetLink(links)),
            ("addresses", RouteNetlinkMessage::GetAddress(address)),
            ("routes", RouteNetlinkMessage::GetRoute(route)),
        ] {
            let consistent = netlink::dump(request, |message| mirror.learn(message));
            is_consistent &= consistent.map_err(|source| KernelError::Dump { what, source })?;
        }
        Ok((mirror, is_consistent))
    }

    /// Takes in a part of the answer to having asked for everything.
    fn learn(&mut self, message: &RouteNetlinkMessage) {
        match message {
            RouteNetlinkMessage::NewLink(link) => self.add_link(link),
            RouteNetlinkMessage::NewAddress(address) => {
                self.add_address(address);
            }
            RouteNetlinkMessage::NewRoute(route) => self.add_known_route(route),
            _ => {}
        }
    }

    /// The index of an interface, if it is there.
    pub(super) fn index(&self, interface: &KernelInterface) -> Option<u32> {
        let is_it = |(index, name): &(&u32, &String)| match interface {
            KernelInterface::Name(wanted) => *name == wanted,
            KernelInterface::Index(wanted) => *index == wanted,
        };
        self.links.iter().find(is_it).map(|(index, _)| *index)
    }

    /// The names of all interfaces, for people.
    pub(super) fn names(&self) -> String {
        self.links.values().map(String::as_str).collect::<Vec<_>>().join(", ")
    }

    /// What concerns these interfaces.
    pub(super) fn state(&self, interfaces: &[KernelInterface]) -> KernelState {
        let places: BTreeMap<u32, u16> =
            (0..).zip(interfaces).filter_map(|(place, interface)| Some((self.index(interface)?, place))).collect();
        let place = |index: &u32| places.get(index).copied();
        let addresses = self.addresses.iter().filter_map(|(index, address, prefix_length)| {
            let (address, prefix_length) = (*address, *prefix_length);
            Some(KernelAddress { interface: place(index)?, address, prefix_length })
        });
        let mut addresses: Vec<_> = addresses.collect();
        addresses.sort();
        let follow = |way: &Way| {
            Some(match way.next_hop {
                NextHop::Gateway(index, address) => KernelNextHop::Gateway { interface: place(&index)?, address },
                NextHop::Link(index) => KernelNextHop::Link { interface: place(&index)? },
                NextHop::Refused(index) => place(&index).map(|_| KernelNextHop::Unreachable)?,
                NextHop::Blackhole => KernelNextHop::Blackhole,
                NextHop::Unreachable => KernelNextHop::Unreachable,
                NextHop::Prohibited => KernelNextHop::Prohibited,
            })
        };
        let routes = self.routes.iter().filter_map(|((prefix, metric), ways)| {
            let next_hop = ways.iter().find_map(follow)?;
            Some(KernelRoute { prefix: *prefix, metric: *metric, next_hop })
        });
        KernelState { addresses, routes: routes.collect() }
    }

    /// Takes in one message, which had these flags in its header; `None` of one that could not be
    /// read.
    pub(super) fn apply(&mut self, message: Option<&RouteNetlinkMessage>, flags: u16) -> Effect {
        let Some(message) = message else { return Effect::Doubtful };
        match message {
            // Routes come and go with links, and not all of them with a word.
            RouteNetlinkMessage::NewLink(_) | RouteNetlinkMessage::DelLink(_) => Effect::Doubtful,
            RouteNetlinkMessage::NewAddress(address) => self.add_address(address),
            RouteNetlinkMessage::DelAddress(address) => match read_address(address) {
                Some((address, _)) if self.addresses.remove(&address) => Effect::Doubtful,
                _ => Effect::None,
            },
            RouteNetlinkMessage::NewRoute(route) => self.add_route(route, flags & NLM_F_REPLACE != 0),
            RouteNetlinkMessage::DelRoute(route) => self.remove_route(route),
            _ => Effect::None,
        }
    }

    fn add_link(&mut self, link: &LinkMessage) {
        let name = link.attributes.iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name.clone()),
            _ => None,
        });
        self.links.insert(link.header.index, name.unwrap_or_default());
    }

    fn add_address(&mut self, address: &AddressMessage) -> Effect {
        let changed = match read_address(address) {
            Some((address, true)) => self.addresses.insert(address),
            // One that was usable, and is so no more.
            Some((address, false)) => self.addresses.remove(&address),
            None => false,
        };
        if changed { Effect::Changed } else { Effect::None }
    }

    fn add_known_route(&mut self, message: &RouteMessage) {
        if let Some((destination, ways)) = read_route(message).filter(|(_, ways)| !ways.is_empty()) {
            self.routes.entry(destination).or_default().extend(ways);
        }
    }

    fn add_route(&mut self, message: &RouteMessage, replaces: bool) -> Effect {
        let Some((destination, ways)) = read_route(message) else { return Effect::None };
        let known = self.routes.get(&destination).map(Vec::as_slice).unwrap_or_default();
        match known {
            _ if *known == *ways => return Effect::None,
            _ if !replaces && ways.iter().all(|way| known.contains(way)) => return Effect::None,
            [] => {}
            [Way { is_part: false, .. }] if replaces => {}
            _ => return Effect::Doubtful,
        }
        if ways.is_empty() {
            self.routes.remove(&destination);
        } else {
            self.routes.insert(destination, ways);
        }
        Effect::Changed
    }

    fn remove_route(&mut self, message: &RouteMessage) -> Effect {
        let Some((destination, ways)) = read_route(message) else { return Effect::None };
        let Some(known) = self.routes.get_mut(&destination) else { return Effect::None };
        let place = match ways[..] {
            [way @ Way { is_part: false, .. }] => known.iter().position(|known| *known == way),
            _ => None,
        };
        let Some(place) = place else { return Effect::Doubtful };
        known.remove(place);
        if known.is_empty() {
            self.routes.remove(&destination);
        }
        Effect::Changed
    }
}

/// Interface, address and prefix length, and whether it may be used.
fn read_address(message: &AddressMessage) -> Option<((u32, IpAddr, u8), bool)> {
    let (mut local, mut address) = (None, None);
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Address(value) => address = Some(*value),
            AddressAttribute::Flags(value) => flags = *value,
            _ => {}
        }
    }
    let own = local.or(address)?;
    // With a peer, the prefix is the peer's, and a route says so.
    let has_peer = address.is_some_and(|address| address != own);
    let all = if own.is_ipv4() { 32 } else { 128 };
    let length = if has_peer { all } else { message.header.prefix_len };
    let is_usable = !flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed);
    Some(((message.header.index, own, length), is_usable))
}

/// Whether it is a route of the table `main` to a prefix, and to nothing else.
fn is_followed(message: &RouteMessage) -> bool {
    let header = &message.header;
    let table = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    table.unwrap_or(header.table.into()) == u32::from(RouteHeader::RT_TABLE_MAIN)
        && matches!(header.address_family, AddressFamily::Inet | AddressFamily::Inet6)
        && header.tos == 0
        && header.source_prefix_length == 0
        && !header.flags.contains(RouteFlags::Cloned)
}

/// Where a route leads, and by which ways that are alive; `None` of one that is not followed.
fn read_route(message: &RouteMessage) -> Option<(Destination, Vec<Way>)> {
    if !is_followed(message) {
        return None;
    }
    let header = &message.header;
    let is_ipv4 = header.address_family == AddressFamily::Inet;
    let mut first: IpAddr = if is_ipv4 { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let (mut metric, mut several) = (0, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => first = ip(address)?,
            RouteAttribute::Priority(value) => metric = *value,
            RouteAttribute::MultiPath(next_hops) => several = Some(next_hops),
            _ => {}
        }
    }
    let prefix = Prefix::new(first, header.destination_prefix_length).ok()?;
    let whole = |next_hop| vec![Way { next_hop, is_part: false }];
    let ways = match header.kind {
        RouteType::Unicast => match several {
            Some(next_hops) => parts(next_hops),
            None if header.flags.contains(RouteFlags::Dead) => Vec::new(),
            None => whole(next_hop(interface(&message.attributes)?, &message.attributes)),
        },
        RouteType::BlackHole => whole(NextHop::Blackhole),
        RouteType::Unreachable | RouteType::Throw => whole(NextHop::Unreachable),
        RouteType::Prohibit => whole(NextHop::Prohibited),
        _ => return None,
    };
    Some(((prefix, metric), ways))
}

fn parts(next_hops: &[RouteNextHop]) -> Vec<Way> {
    let alive = next_hops.iter().filter(|next_hop| !next_hop.flags.contains(RouteNextHopFlags::Dead));
    alive.map(|part| Way { next_hop: next_hop(part.interface_index, &part.attributes), is_part: true }).collect()
}

fn interface(attributes: &[RouteAttribute]) -> Option<u32> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

fn next_hop(interface: u32, attributes: &[RouteAttribute]) -> NextHop {
    let mut next_hop = NextHop::Link(interface);
    for attribute in attributes {
        let gateway = match attribute {
            RouteAttribute::Gateway(address) => ip(address),
            RouteAttribute::Via(RouteVia::Inet(address)) => Some((*address).into()),
            RouteAttribute::Via(RouteVia::Inet6(address)) => Some((*address).into()),
            RouteAttribute::Encap(_) | RouteAttribute::EncapType(_) | RouteAttribute::Via(_) => None,
            _ => continue,
        };
        match gateway {
            Some(address) => next_hop = NextHop::Gateway(interface, address),
            None => return NextHop::Refused(interface),
        }
    }
    next_hop
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: u16 = 0;
    const REPLACE: u16 = NLM_F_REPLACE;

    fn route(prefix: &str, metric: u32) -> RouteMessage {
        let prefix: Prefix = prefix.parse().unwrap();
        let mut message = RouteMessage::default();
        let is_ipv4 = prefix.address().is_ipv4();
        message.header.address_family = if is_ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.destination_prefix_length = prefix.length();
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        if prefix.length() > 0 {
            message.attributes.push(RouteAttribute::Destination(prefix.address().into()));
        }
        if metric > 0 {
            message.attributes.push(RouteAttribute::Priority(metric));
        }
        message
    }

    fn via(mut message: RouteMessage, interface: u32, gateway: &str) -> RouteMessage {
        message.attributes.push(RouteAttribute::Oif(interface));
        if let Ok(gateway) = gateway.parse::<IpAddr>() {
            message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        }
        message
    }

    fn several(mut message: RouteMessage, gateways: &[(u32, &str, bool)]) -> RouteMessage {
        let part = |(interface, gateway, is_dead): &(u32, &str, bool)| {
            let mut part = RouteNextHop::default();
            part.interface_index = *interface;
            part.attributes.push(RouteAttribute::Gateway(gateway.parse::<IpAddr>().unwrap().into()));
            if *is_dead {
                part.flags = RouteNextHopFlags::Dead;
            }
            part
        };
        message.attributes.push(RouteAttribute::MultiPath(gateways.iter().map(part).collect()));
        message
    }

    fn of_kind(mut message: RouteMessage, kind: RouteType) -> RouteMessage {
        message.header.kind = kind;
        message
    }

    fn with(mut message: RouteMessage, attribute: RouteAttribute) -> RouteMessage {
        message.attributes.push(attribute);
        message
    }

    /// Interfaces 5 and 6 are followed, as 0 and 1; 2 is there, too.
    fn mirror() -> Mirror {
        let links = [(2, "eth0"), (5, "tap0"), (6, "tap1")];
        Mirror { links: links.map(|(index, name)| (index, name.to_owned())).into(), ..Mirror::default() }
    }

    fn routes(mirror: &Mirror) -> Vec<String> {
        let state = mirror.state(&[KernelInterface::Name("tap0".to_owned()), KernelInterface::Index(6)]);
        let line = |route: &KernelRoute| format!("{} {} {}", route.prefix, route.metric, describe(route.next_hop));
        state.routes.iter().map(line).collect()
    }

    fn describe(next_hop: KernelNextHop) -> String {
        match next_hop {
            KernelNextHop::Gateway { interface, address } => format!("{address} at {interface}"),
            KernelNextHop::Link { interface } => format!("at {interface}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn a_route_is_read_as_what_its_packets_do() {
        let net = || route("198.51.100.0/24", 0);
        let (one, two) = ((5, "192.0.2.8", false), (6, "192.0.2.9", false));
        let dead = (5, "192.0.2.8", true);
        let elsewhere = (2, "10.0.0.1", false);
        let mut for_service = via(net(), 5, "");
        for_service.header.tos = 4;
        let mut from_prefix = via(route("2001:db8::/32", 0), 5, "");
        from_prefix.header.source_prefix_length = 64;
        let mut cached = via(route("2001:db8::/32", 0), 5, "");
        cached.header.flags = RouteFlags::Cloned;
        let mut gone = via(net(), 5, "192.0.2.9");
        gone.header.flags = RouteFlags::Dead;
        let mut large_table = via(net(), 5, "");
        large_table.header.table = RouteHeader::RT_TABLE_UNSPEC;
        let in_main = with(large_table.clone(), RouteAttribute::Table(254));
        let elsewhere_table = with(large_table, RouteAttribute::Table(1000));
        let encapsulated = RouteAttribute::EncapType(netlink_packet_route::route::RouteLwEnCapType::Mpls);
        let cases: Vec<(&str, RouteMessage, &[&str])> = vec![
            ("a gateway", via(net(), 5, "192.0.2.9"), &["198.51.100.0/24 0 192.0.2.9 at 0"]),
            ("a link", via(net(), 6, ""), &["198.51.100.0/24 0 at 1"]),
            ("the default route", via(route("0.0.0.0/0", 7), 5, "192.0.2.9"), &["0.0.0.0/0 7 192.0.2.9 at 0"]),
            ("the other default route", via(route("::/0", 1024), 5, "fe80::1"), &["::/0 1024 fe80::1 at 0"]),
            (
                "RFC 8950",
                with(via(net(), 5, ""), RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap()))),
                &["198.51.100.0/24 0 fe80::1 at 0"],
            ),
            ("another interface", via(net(), 2, "10.0.0.1"), &[]),
            ("an interface that is gone", via(net(), 9, ""), &[]),
            ("no interface", net(), &[]),
            ("blackhole", of_kind(net(), RouteType::BlackHole), &["198.51.100.0/24 0 Blackhole"]),
            (
                "of IPv6, by lo",
                of_kind(via(route("2001:db8::/32", 1), 1, ""), RouteType::BlackHole),
                &["2001:db8::/32 1 Blackhole"],
            ),
            ("unreachable", of_kind(net(), RouteType::Unreachable), &["198.51.100.0/24 0 Unreachable"]),
            ("throw", of_kind(net(), RouteType::Throw), &["198.51.100.0/24 0 Unreachable"]),
            ("prohibit", of_kind(net(), RouteType::Prohibit), &["198.51.100.0/24 0 Prohibited"]),
            ("local", of_kind(via(net(), 5, ""), RouteType::Local), &[]),
            ("the first of several", several(net(), &[one, two]), &["198.51.100.0/24 0 192.0.2.8 at 0"]),
            ("the first alive", several(net(), &[dead, two]), &["198.51.100.0/24 0 192.0.2.9 at 1"]),
            ("the first by ours", several(net(), &[elsewhere, two]), &["198.51.100.0/24 0 192.0.2.9 at 1"]),
            ("none alive", several(net(), &[dead]), &[]),
            ("dead", gone, &[]),
            (
                "encapsulated",
                with(via(net(), 5, "192.0.2.9"), encapsulated.clone()),
                &["198.51.100.0/24 0 Unreachable"],
            ),
            ("encapsulated elsewhere", with(via(net(), 2, "10.0.0.1"), encapsulated), &[]),
            ("for a type of service", for_service, &[]),
            ("from a source prefix", from_prefix, &[]),
            ("a cached one", cached, &[]),
            ("the table main by its long number", in_main, &["198.51.100.0/24 0 at 0"]),
            ("another table", elsewhere_table, &[]),
        ];
        for (description, message, expected) in cases {
            let (mut told, mut learned) = (mirror(), mirror());
            told.apply(Some(&RouteNetlinkMessage::NewRoute(message.clone())), NEW);
            learned.learn(&RouteNetlinkMessage::NewRoute(message.clone()));
            assert_eq!(routes(&told), expected, "{description}");
            assert_eq!(told, learned, "{description}");
            if !told.routes.values().flatten().any(|way| way.is_part) {
                told.apply(Some(&RouteNetlinkMessage::DelRoute(message)), NEW);
                assert_eq!(told, mirror(), "{description}, removed");
            }
        }
    }

    #[test]
    fn a_change_is_followed_or_makes_the_mirror_doubtful() {
        let add = |message| (RouteNetlinkMessage::NewRoute(message), NEW);
        let replace = |message| (RouteNetlinkMessage::NewRoute(message), REPLACE);
        let remove = |message| (RouteNetlinkMessage::DelRoute(message), NEW);
        let net = || route("198.51.100.0/24", 0);
        let (a, b) = (|| via(net(), 5, "192.0.2.8"), || via(net(), 5, "192.0.2.9"));
        let both = || several(net(), &[(5, "192.0.2.8", false), (5, "192.0.2.9", false)]);
        let link_local = |interface| via(route("fe80::/64", 256), interface, "");
        let (to_a, to_b) = ("198.51.100.0/24 0 192.0.2.8 at 0", "198.51.100.0/24 0 192.0.2.9 at 0");
        let dead = || several(net(), &[(5, "192.0.2.8", true)]);
        // description, routes that are known, message and flags, effect, what is there then
        type Case = (&'static str, Vec<RouteMessage>, (RouteNetlinkMessage, u16), Effect, Vec<&'static str>);
        let cases: Vec<Case> = vec![
            ("a new one", vec![], add(a()), Effect::Changed, vec![to_a]),
            ("the same again", vec![a()], add(a()), Effect::None, vec![to_a]),
            ("one in place of another", vec![a()], replace(b()), Effect::Changed, vec![to_b]),
            ("the same in its own place", vec![a()], replace(a()), Effect::None, vec![to_a]),
            ("several in place of one", vec![a()], replace(both()), Effect::Changed, vec![to_a]),
            ("one in place of several", vec![both()], replace(b()), Effect::Doubtful, vec![to_a]),
            ("one that is dead in place of one", vec![a()], replace(dead()), Effect::Changed, vec![]),
            ("one beside another", vec![a()], add(b()), Effect::Doubtful, vec![to_a]),
            ("one of two that is known", vec![a(), b()], add(b()), Effect::None, vec![to_a]),
            ("one goes", vec![a()], remove(a()), Effect::Changed, vec![]),
            ("one of two goes", vec![a(), b()], remove(a()), Effect::Changed, vec![to_b]),
            ("several go", vec![both()], remove(both()), Effect::Doubtful, vec![to_a]),
            ("a part goes", vec![both()], remove(a()), Effect::Doubtful, vec![to_a]),
            ("another goes", vec![a()], remove(b()), Effect::Doubtful, vec![to_a]),
            ("what is not known goes", vec![], remove(a()), Effect::None, vec![]),
            (
                "another metric is another route",
                vec![a()],
                add(via(route("198.51.100.0/24", 9), 6, "")),
                Effect::Changed,
                vec![to_a, "198.51.100.0/24 9 at 1"],
            ),
            (
                "that of another interface does not hide ours",
                vec![link_local(2), link_local(6)],
                add(link_local(6)),
                Effect::None,
                vec!["fe80::/64 256 at 1"],
            ),
            (
                "what is not followed does nothing",
                vec![a()],
                remove(of_kind(net(), RouteType::Local)),
                Effect::None,
                vec![to_a],
            ),
            (
                "a link",
                vec![a()],
                (RouteNetlinkMessage::NewLink(LinkMessage::default()), NEW),
                Effect::Doubtful,
                vec![to_a],
            ),
        ];
        assert_eq!(mirror().apply(None, NEW), Effect::Doubtful, "one that cannot be read");
        for (description, before, (message, flags), effect, expected) in cases {
            let mut mirror = mirror();
            before.into_iter().for_each(|route| mirror.learn(&RouteNetlinkMessage::NewRoute(route)));
            assert_eq!(mirror.apply(Some(&message), flags), effect, "{description}");
            assert_eq!(routes(&mirror), expected, "{description}");
        }
    }

    #[test]
    fn an_address_is_there_while_it_may_be_used() {
        let address = |local: Option<&str>, address: &str, length: u8, flags: AddressFlags| {
            let mut message = AddressMessage::default();
            message.header.index = 5;
            message.header.prefix_len = length;
            let local = local.map(|local| AddressAttribute::Local(local.parse().unwrap()));
            let address = AddressAttribute::Address(address.parse().unwrap());
            message.attributes = local.into_iter().chain([address, AddressAttribute::Flags(flags)]).collect();
            message
        };
        let fine = AddressFlags::Permanent;
        let addresses = |mirror: &Mirror| {
            let state = mirror.state(&[KernelInterface::Index(6), KernelInterface::Index(5)]);
            let line = |line: &KernelAddress| format!("{} {}/{}", line.interface, line.address, line.prefix_length);
            state.addresses.iter().map(line).collect::<Vec<_>>()
        };
        let new = |message: &AddressMessage| RouteNetlinkMessage::NewAddress(message.clone());
        let mut mirror = mirror();
        let ours = address(Some("192.0.2.1"), "192.0.2.1", 24, fine);
        let with_peer = address(Some("10.0.0.1"), "10.0.0.2", 31, fine);
        let tentative = address(None, "2001:db8::1", 64, fine | AddressFlags::Tentative);
        let found = address(None, "2001:db8::1", 64, fine);
        let duplicate = address(None, "2001:db8::1", 64, fine | AddressFlags::Dadfailed);
        let (one, two, three) = ("1 192.0.2.1/24", "1 10.0.0.1/32", "1 2001:db8::1/64");
        let gone = RouteNetlinkMessage::DelAddress(ours.clone());
        for (message, effect, expected) in [
            (new(&ours), Effect::Changed, vec![one]),
            (new(&ours), Effect::None, vec![one]),
            (new(&with_peer), Effect::Changed, vec![two, one]),
            (new(&tentative), Effect::None, vec![two, one]),
            (new(&found), Effect::Changed, vec![two, one, three]),
            (new(&duplicate), Effect::Changed, vec![two, one]),
            // Routes may have gone with it, without a word.
            (gone.clone(), Effect::Doubtful, vec![two]),
            (gone, Effect::None, vec![two]),
        ] {
            assert_eq!(mirror.apply(Some(&message), 0), effect, "{message:?}");
            assert_eq!(addresses(&mirror), expected, "{message:?}");
        }
    }
}
