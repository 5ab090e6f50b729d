//! What a router works by: its interfaces, and where packets go. Built whole off the data path,
//! then only read.

use super::config::{InterfaceAddress, RouterConfig};
use super::interfaces::{Interface, PortFacts, VLANS, interfaces, is_link_local, overlap, with_host};
use super::target::{Target, Way};
use super::trie::Trie;
use super::ways::{Gateway, SPECIAL, is_forwarded, kernel_way, route_way};
use super::{Found, PortOffloads};
use crate::batch::Slots;
use crate::classifier::Prefix;
use crate::direction::Direction;
use crate::function::Invalid;
use crate::headers::MacAddress;
use crate::kernel::{KernelAddress, KernelState};
use crate::neighbours::Link;
use dpdk_rs::{Memory, OutOfMemory};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

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
            of_family.map(|(prefix, way)| (*prefix, u32::from(target(*way)))).collect()
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
            v4: Trie::new(memory, Target::NONE.into(), &targets(true))?,
            v6: Trie::new(memory, Target::NONE.into(), &targets(false))?,
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
        Target::from(match address {
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

fn own_address(known: &KernelAddress) -> Option<InterfaceAddress> {
    format!("{}/{}", known.address, known.prefix_length).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{KernelNextHop, KernelRoute};
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
