//! What a router works by: its interfaces, and where packets go. Built whole off the data path,
//! then only read.

use super::config::{InterfaceAddress, Refuse, RouteConfig, RouterConfig, Side};
use super::trie::Trie;
use super::{Found, PortOffloads};
use crate::batch::Slots;
use crate::classifier::Prefix;
use crate::classifier::is_host;
use crate::direction::Direction;
use crate::function::Invalid;
use crate::headers::MacAddress;
use crate::kernel::{KernelAddress, KernelNextHop, KernelRoute, KernelState};
use crate::neighbours::Link;
use crate::verdict::PortIx;
use dpdk_rs::{Memory, OutOfMemory};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// Interfaces that a router may have.
pub(super) const MOST_INTERFACES: u16 = 1024;
/// VLANs that there are, without 0 (no VLAN) and 4095 (reserved).
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;
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

/// Where packets are sent to: a router, on an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gateway {
    pub(crate) interface: u16,
    pub(crate) address: IpAddr,
}

/// What becomes of a packet by its destination, as a number that a tree can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target(u32);

/// What a [`Target`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Nobody knows a way there.
    None,
    /// Dropped without a word.
    Blackhole,
    /// The sender is told that it is forbidden.
    Prohibited,
    /// For this host.
    Own,
    /// For a function of the chain, and for this host if none takes it.
    Function,
    /// No host has this address.
    Martian,
    Multicast,
    Broadcast,
    /// Does not leave its link.
    LinkLocal,
    /// The destination is a neighbour on this interface.
    Connected(u16),
    /// By this next hop.
    Via(u16),
}

impl Target {
    pub(crate) const NONE: Self = Self(0);
    const KINDS: [Way; 9] = [
        Way::None,
        Way::Blackhole,
        Way::Prohibited,
        Way::Own,
        Way::Function,
        Way::Martian,
        Way::Multicast,
        Way::Broadcast,
        Way::LinkLocal,
    ];
    const CONNECTED: u32 = 1 << 16;
    const VIA: u32 = 2 << 16;
    const FORWARDED: u32 = Self::CONNECTED | Self::VIA;
    /// By direction: set where packets that are forwarded leave at its end.
    const LEADS: [u32; 2] = [4 << 16, 8 << 16];

    pub(crate) fn new(way: Way) -> Self {
        match way {
            Way::Connected(interface) => Self(Self::CONNECTED | u32::from(interface)),
            Way::Via(next_hop) => Self(Self::VIA | u32::from(next_hop)),
            way => Self((0..).zip(Self::KINDS).find(|(_, kind)| *kind == way).map_or(0, |(number, _)| number)),
        }
    }

    /// The same, for packets that leave by an interface that others enter this way.
    fn leaving_where(self, enters: Direction) -> Self {
        Self(self.0 | Self::LEADS[enters.reversed() as usize])
    }

    /// Whether packets there are forwarded to the end of this direction.
    #[inline]
    pub(crate) fn leads(self, direction: Direction) -> bool {
        self.0 & Self::LEADS[direction as usize] != 0
    }

    /// The next hop, if it is one at the end of this direction.
    #[inline]
    pub(crate) fn via_towards(self, direction: Direction) -> Option<usize> {
        let leads = Self::LEADS[direction as usize];
        (self.0 & (Self::FORWARDED | leads) == Self::VIA | leads).then_some(self.0 as usize & 0xffff)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the low half is the index")]
    pub(crate) fn way(self) -> Way {
        let index = self.0 as u16;
        match self.0 & Self::FORWARDED {
            Self::CONNECTED => Way::Connected(index),
            Self::VIA => Way::Via(index),
            _ => Self::KINDS.get(usize::from(index)).copied().unwrap_or(Way::None),
        }
    }
}

/// All that a router looks up.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) next_hops: Vec<Gateway>,
    v4: Trie,
    v6: Trie,
    /// By side: the interface of frames without a tag, and of each VLAN.
    entrances: [Entrance; 2],
    /// Whether any interface is a VLAN.
    pub(crate) has_vlans: bool,
    /// Whether tags are taken off: for VLANs, or by a device as there were some when it was started.
    pub(crate) tagged: bool,
    /// By side.
    offloads: [PortOffloads; 2],
    /// Whether both sides are on one port.
    pub(crate) one_armed: bool,
    /// By interface: destinations that are neighbours by a route.
    on_link: Vec<Vec<Prefix>>,
    /// By interface: addresses of functions that its neighbours ask for.
    pub(crate) services: Vec<Vec<Prefix>>,
}

/// Which interface frames come in by.
#[derive(Debug, Default)]
struct Entrance {
    untagged: Option<u16>,
    /// By VLAN; empty without any.
    tagged: Vec<Option<u16>>,
}

/// Why there can be no such tables.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// The configuration contradicts itself, or the ports.
    #[error("router.{}: {}", .0.key, .0.message)]
    Invalid(Invalid),
    /// The routes do not fit into memory.
    #[error("no memory for the routes: {0}")]
    Memory(#[from] OutOfMemory),
}

impl Tables {
    /// `ports` are the inside and the outside one, or the only one. `of_functions` are addresses
    /// that functions take packets for.
    pub(crate) fn new(
        config: &RouterConfig,
        ports: &[PortFacts],
        of_functions: &[Prefix],
        kernel: &KernelState,
        memory: &Memory,
    ) -> Result<Self, RouterError> {
        let mut interfaces = interfaces(config, ports).map_err(RouterError::Invalid)?;
        let of_kernel = with_host(&interfaces);
        for known in &kernel.addresses {
            let index = of_kernel.get(usize::from(known.interface)).copied().unwrap_or(u16::MAX);
            let Some(own) = own_address(known) else { continue };
            let others = (0..).zip(&interfaces).filter(|(other, _)| *other != index);
            let mut theirs = others.flat_map(|(_, other)| other.addresses.iter().map(move |theirs| (other, theirs)));
            if !is_link_local(own.address)
                && let Some((other, theirs)) = theirs.find(|(_, theirs)| overlap(theirs.prefix, own.prefix))
            {
                log::warn!("the kernel's address {own} is left out: it overlaps with {theirs} of {}", other.name);
                continue;
            }
            if let Some(interface) = interfaces.get_mut(usize::from(index))
                && !interface.addresses.iter().any(|earlier| earlier.address == own.address)
            {
                interface.addresses.push(own);
            }
        }
        let interfaces = interfaces;
        let mut ways: BTreeMap<Prefix, Way> = BTreeMap::new();
        let mut next_hops = Vec::new();
        let mut earlier = BTreeMap::new();
        for (index, route) in config.routes.iter().enumerate() {
            let way =
                route_way((index, route, &mut earlier), &interfaces, &mut next_hops).map_err(RouterError::Invalid)?;
            ways.insert(route.to, way);
        }
        for (index, interface) in (0..).zip(&interfaces) {
            // A link-local prefix is on every link: the special ones below say what becomes of it.
            for own in interface.addresses.iter().filter(|own| !is_link_local(own.address)) {
                ways.entry(own.prefix).or_insert(Way::Connected(index));
            }
        }
        // After the file and the links, which no routing daemon takes away: one that announces a network
        // often has a blackhole for it.
        for route in kernel.routes.iter().filter(|route| is_forwarded(route.prefix)) {
            if let Some(way) = kernel_way(route, &of_kernel, &mut next_hops) {
                ways.entry(route.prefix).or_insert(way);
            }
        }
        ways.extend(SPECIAL.iter().filter_map(|(prefix, way)| Some((prefix.parse().ok()?, *way))));
        for own in interfaces.iter().flat_map(|interface| &interface.addresses) {
            if let Some(broadcast) = own.broadcast() {
                ways.insert(Prefix::from(IpAddr::from(broadcast)), Way::Broadcast);
                ways.insert(Prefix::from(own.prefix.address()), Way::Broadcast);
            }
        }
        for own in interfaces.iter().flat_map(|interface| &interface.addresses) {
            ways.insert(Prefix::from(own.address), Way::Own);
        }
        ways.extend(of_functions.iter().map(|prefix| (*prefix, Way::Function)));
        let target = |way: Way| {
            let interface = match way {
                Way::Connected(interface) => Some(interface),
                Way::Via(hop) => next_hops.get(usize::from(hop)).map(|hop| hop.interface),
                _ => None,
            };
            let enters =
                interface.and_then(|index| interfaces.get(usize::from(index))).map(|interface| interface.enters);
            enters.map_or(Target::new(way), |enters| Target::new(way).leaving_where(enters))
        };
        let targets = |v4: bool| -> Vec<(Prefix, u32)> {
            let of_family = ways.iter().filter(|(prefix, _)| prefix.address().is_ipv4() == v4);
            of_family.map(|(prefix, way)| (*prefix, target(*way).0)).collect()
        };
        let entrances = [Direction::Outbound, Direction::Inbound].map(|side| Entrance::new(side, &interfaces));
        let on_link = (0..).zip(&interfaces).map(|(index, _)| {
            let is_on = |(_, way): &(&Prefix, &Way)| **way == Way::Connected(index);
            let prefixes = ways.iter().filter(is_on).map(|(prefix, _)| *prefix);
            // A gateway may be outside all of them.
            let gateways = next_hops.iter().filter(|hop| hop.interface == index);
            prefixes.chain(gateways.map(|hop| Prefix::from(hop.address))).collect()
        });
        let on_link = on_link.collect();
        let has_vlans = interfaces.iter().any(|interface| interface.vlan.is_some());
        let services = |interface: &Interface| {
            let near = |prefix: &&Prefix| interface.addresses.iter().any(|own| own.prefix.contains(prefix.address()));
            of_functions.iter().filter(near).copied().collect()
        };
        Ok(Self {
            v4: Trie::new(memory, Target::NONE.0, &targets(true))?,
            v6: Trie::new(memory, Target::NONE.0, &targets(false))?,
            has_vlans,
            tagged: has_vlans || ports.iter().any(|port| port.offloads.strips_vlans),
            offloads: [ports.first(), ports.last()]
                .map(|port| port.map_or_else(Default::default, |port| port.offloads)),
            one_armed: ports.len() < 2,
            on_link,
            services: interfaces.iter().map(services).collect(),
            next_hops,
            interfaces,
            entrances,
        })
    }

    /// The interface that frames with this tag come in by, at the entrance of this direction.
    #[inline]
    pub(crate) fn entrance(&self, direction: Direction, vlan: Option<u16>) -> Option<u16> {
        let entrance = &self.entrances[direction as usize];
        match vlan {
            None => entrance.untagged,
            Some(vlan) => entrance.tagged.get(usize::from(vlan)).copied().flatten(),
        }
    }

    /// What the device of the port at the entrance of this direction does.
    #[inline]
    pub(crate) fn offloads(&self, direction: Direction) -> PortOffloads {
        self.offloads[direction as usize]
    }

    /// The station that a whole batch is for, as without VLANs all of it has come in by one interface.
    #[inline]
    pub(crate) fn station(&self, direction: Direction) -> Option<MacAddress> {
        let untagged = if self.tagged { None } else { self.entrance(direction, None) };
        Some(self.interface(untagged?)?.mac)
    }

    /// The interface of this VLAN on the only port.
    #[inline]
    pub(crate) fn side(&self, vlan: Option<u16>) -> Option<Direction> {
        [Direction::Outbound, Direction::Inbound].into_iter().find(|side| self.entrance(*side, vlan).is_some())
    }

    /// What the owner of the neighbours knows of an interface.
    pub(crate) fn link(&self, index: u16) -> Option<Link> {
        let interface = self.interface(index)?;
        let addresses: Vec<(IpAddr, u8)> =
            interface.addresses.iter().map(|own| (own.address, own.prefix.length())).collect();
        let services = self.services.get(usize::from(index)).map_or(&[][..], Vec::as_slice);
        Some(
            Link::new(interface.mac, &addresses)
                .at((interface.port.0, interface.vlan))
                .with_services(services)
                .with_on_link(&self.on_link[usize::from(index)]),
        )
    }

    pub(crate) fn interface(&self, index: u16) -> Option<&Interface> {
        self.interfaces.get(usize::from(index))
    }

    /// Writes beside each destination in these slots where packets to it go.
    #[inline]
    pub(super) fn look_up_v4(&self, slots: Slots, found: &mut Found<4>) {
        self.v4.look_up(slots, &found.destinations, &mut found.targets);
    }

    /// Writes beside each destination in these slots where packets to it go.
    #[inline]
    pub(super) fn look_up_v6(&self, slots: Slots, found: &mut Found<16>) {
        self.v6.look_up(slots, &found.destinations, &mut found.targets);
    }

    /// Where packets to this address go.
    pub(crate) fn find(&self, address: IpAddr) -> Target {
        Target(match address {
            IpAddr::V4(address) => self.v4.find(address.octets()),
            IpAddr::V6(address) => self.v6.find(address.octets()),
        })
    }
}

impl Tables {
    /// Whether an address can be one other host's, as whoever is answered has to be: RFC 1122 section
    /// 3.2.1.3. Broadcast addresses are known by their prefix alone.
    pub(crate) fn is_other_host(&self, address: IpAddr) -> bool {
        !matches!(self.find(address).way(), Way::Own | Way::Martian | Way::Multicast | Way::Broadcast)
    }
}

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: usize = self.interfaces.iter().map(|interface| interface.addresses.len()).sum();
        let bytes = self.v4.bytes() + self.v6.bytes();
        write!(f, "{addresses} addresses, {} next hops, {bytes} bytes", self.next_hops.len())
    }
}

impl From<u32> for Target {
    #[inline]
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<Target> for u32 {
    fn from(target: Target) -> Self {
        target.0
    }
}

/// The interfaces that the kernel is on, in the order in which they are followed.
pub(crate) fn with_host(interfaces: &[Interface]) -> Vec<u16> {
    (0..).zip(interfaces).filter(|(_, interface)| interface.host.is_some()).map(|(index, _)| index).collect()
}

fn own_address(known: &KernelAddress) -> Option<InterfaceAddress> {
    format!("{}/{}", known.address, known.prefix_length).parse().ok()
}

/// Whether routes to a prefix are of any use.
fn is_forwarded(prefix: Prefix) -> bool {
    !is_link_local(prefix.address()) && !prefix.address().is_multicast()
}

fn kernel_way(route: &KernelRoute, of_kernel: &[u16], next_hops: &mut Vec<Gateway>) -> Option<Way> {
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
const SPECIAL: [(&str, Way); 11] = [
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

impl Entrance {
    fn new(side: Direction, interfaces: &[Interface]) -> Self {
        let mut entrance = Self::default();
        for (index, interface) in (0..).zip(interfaces).filter(|(_, interface)| interface.enters == side) {
            match interface.vlan {
                None => entrance.untagged = Some(index),
                Some(vlan) => {
                    entrance.tagged.resize(usize::from(*VLANS.end()) + 1, None);
                    entrance.tagged[usize::from(vlan)] = Some(index);
                }
            }
        }
        entrance
    }
}

impl RouterConfig {
    /// Looks for what is wrong with it whatever the ports are.
    pub(crate) fn validate(&self, one_port: bool) -> Result<(), Invalid> {
        let facts = PortFacts { mac: MacAddress([2, 0, 0, 0, 0, 1]), mtu: u16::MAX, offloads: PortOffloads::default() };
        let ports = [facts; 2];
        self.neighbours.check().map_err(|wrong| Invalid::new(format!("neighbours.{}", wrong.key), wrong.message))?;
        let interfaces = interfaces(self, if one_port { &ports[..1] } else { &ports })?;
        let mut next_hops = Vec::new();
        let mut earlier = BTreeMap::new();
        for (index, route) in self.routes.iter().enumerate() {
            route_way((index, route, &mut earlier), &interfaces, &mut next_hops)?;
        }
        Ok(())
    }
}

fn interfaces(config: &RouterConfig, ports: &[PortFacts]) -> Result<Vec<Interface>, Invalid> {
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

fn overlap(one: Prefix, other: Prefix) -> bool {
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

fn route_way(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;

    const CONFIG: &str = "
        routes = [
            { to = '10.0.0.0/8', via = '192.0.2.9' },
            { to = '10.9.0.0/16', interface = 'wan' },
            { to = '0.0.0.0/1', via = '192.0.2.9' },
            { to = '::/1', refuse = 'prohibited' },
        ]
        [interfaces.lan]
        side = 'inside'
        addresses = ['192.0.2.1/24']
        [interfaces.wan]
        side = 'outside'
        addresses = ['198.51.100.1/24']
        host = 'net_tap2'
    ";

    fn ways(kernel: KernelState, addresses: &[&str]) -> Vec<Way> {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        lab(move |lab| {
            let config: RouterConfig = toml::from_str(CONFIG).unwrap();
            let facts = PortFacts { mac: MacAddress([2, 0, 0, 0, 0, 1]), mtu: 1500, offloads: PortOffloads::default() };
            let tables = Tables::new(&config, &[facts; 2], &[], &kernel, &lab.pool.memory()).unwrap();
            addresses.into_iter().map(|address| tables.find(address).way()).collect()
        })
    }

    const LAN: Way = Way::Connected(0);
    const WAN: Way = Way::Connected(1);

    #[test]
    fn the_longest_of_own_addresses_links_and_routes_counts() {
        let addresses = [
            "192.0.2.1",
            "192.0.2.2",
            "198.51.100.255",
            "10.1.1.1",
            "10.9.1.1",
            "8.8.8.8",
            "192.1.1.1",
            "127.0.0.1",
            "2001:db8::1",
        ];
        let expected =
            [Way::Own, LAN, Way::Broadcast, Way::Via(0), WAN, Way::Via(0), Way::None, Way::Martian, Way::Prohibited];
        assert_eq!(ways(KernelState::default(), &addresses), expected);
    }

    #[test]
    fn what_the_kernel_has_is_the_routers_as_far_as_the_file_does_not_say_otherwise() {
        let address =
            |text: &str, prefix_length| KernelAddress { interface: 0, address: text.parse().unwrap(), prefix_length };
        let route = |prefix: &str, metric, next_hop| KernelRoute { prefix: prefix.parse().unwrap(), metric, next_hop };
        let gateway = |text: &str| KernelNextHop::Gateway { interface: 0, address: text.parse().unwrap() };
        let link = KernelNextHop::Link { interface: 0 };
        let state = KernelState {
            addresses: vec![
                address("203.0.113.1", 28),
                address("2001:db8::1", 64),
                address("fe80::7", 64),
                // Of no interface, and of no host.
                KernelAddress { interface: 7, ..address("9.9.9.9", 24) },
                address("127.0.0.1", 8),
            ],
            routes: vec![
                route("10.0.0.0/8", 0, gateway("203.0.113.2")),
                route("172.16.0.0/12", 0, gateway("203.0.113.2")),
                route("172.16.0.0/12", 1, KernelNextHop::Blackhole),
                route("172.17.0.0/16", 0, KernelNextHop::Unreachable),
                route("172.18.0.0/16", 0, KernelNextHop::Prohibited),
                route("172.19.0.0/16", 0, KernelNextHop::Blackhole),
                route("172.20.0.0/16", 0, link),
                route("fe80::/64", 256, link),
                route("ff00::/8", 256, link),
                route("2001:db8:9::/48", 0, gateway("fe80::9")),
            ],
        };
        let addresses = [
            "203.0.113.1",
            "203.0.113.2",
            "203.0.113.15",
            "2001:db8::1",
            "2001:db8::2",
            "fe80::7",
            "fe80::8",
            "ff02::1",
            "9.9.9.9",
            "127.0.0.1",
            "10.1.1.1",
            "172.16.0.1",
            "172.17.0.1",
            "172.18.0.1",
            "172.19.0.1",
            "172.20.0.1",
            "2001:db8:9::1",
        ];
        let expected = [
            Way::Own,
            WAN,
            Way::Broadcast,
            Way::Own,
            WAN,
            Way::Own,
            Way::LinkLocal,
            Way::Multicast,
            Way::Via(0),
            Way::Martian,
            Way::Via(0),
            Way::Via(1),
            Way::None,
            Way::Prohibited,
            Way::Blackhole,
            WAN,
            Way::Via(2),
        ];
        assert_eq!(ways(state, &addresses), expected);
    }
}
