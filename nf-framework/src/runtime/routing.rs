//! What the workers' routers have in common.

use super::error::RuntimeError;
use super::loaded::{AnyFunction, AnyPolicy, Loaded};
use super::{ForwardingKind, RuntimeConfig};
use crate::classifier::Prefix;
use crate::config::{ConfigError, ConfigFile};
use crate::direction::Direction;
use crate::function::Destination;
use crate::headers::MacAddress;
use crate::kernel::{KernelError, KernelFollower, KernelInterface, KernelNextHop, KernelState};
use crate::neighbours::{NeighbourTable, Neighbours};
use crate::next_hop::NextHops;
use crate::operate::views::{InterfaceView, PageView, RouteView};
use crate::router::{Interface, PortFacts, PortOffloads, Refuse, Router, RouterConfig, RouterError, Tables, with_host};
use crate::verdict::PortIx;
use dpdk_rs::{HashKey, Memory, Port, Producer};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What the workers' routers have in common.
#[derive(Debug)]
pub(super) struct Routing {
    config: RouterConfig,
    ports: Vec<PortFacts>,
    addresses: Vec<Prefix>,
    /// The kernel's ends of the ports to it.
    pub(super) kernel: Vec<KernelInterface>,
    tables: Arc<Tables>,
    neighbours: Arc<NeighbourTable>,
    /// For the first worker to take.
    owner: Mutex<Option<Neighbours>>,
}

impl Routing {
    /// `None` unless the configuration has a router.
    pub(super) fn new(
        config: &RuntimeConfig,
        functions: &[Loaded],
        ports: &[Port],
        sides: usize,
        memory: &Memory,
    ) -> Result<Option<Self>, RuntimeError> {
        let Some(router) = config.routed() else { return Ok(None) };
        let facts = |port: &Port| {
            let (mac, mtu) = (MacAddress(port.info()?.mac_address), port.mtu()?);
            Ok(PortFacts { mac, mtu, offloads: PortOffloads::new(port.rx_offloads(), port.tx_offloads()) })
        };
        let (sides, hosts) = ports.split_at_checked(sides).unwrap_or((ports, &[]));
        let ports = sides.iter().map(facts).collect::<Result<Vec<_>, RuntimeError>>()?;
        let mut routing = Self::of_ports(router, functions, ports, memory)?;
        let on_link = routing.tables.interfaces.iter().filter(|interface| interface.host.is_some());
        for (host, interface) in hosts.iter().zip(on_link) {
            host.set_mac_address(interface.mac.octets())?;
        }
        let followed = |(port, (interface, _)): (&Port, (&str, &str))| {
            let index = port.info()?.kernel_interface.ok_or_else(|| RuntimeError::NoKernelInterface {
                key: format!("[router] interfaces.{interface}.host"),
                name: port.name().to_owned(),
            })?;
            Ok(KernelInterface::Index(index.get()))
        };
        routing.kernel = hosts.iter().zip(router.hosts()).map(followed).collect::<Result<_, RuntimeError>>()?;
        Ok(Some(routing))
    }

    /// On ports of which this is known, with no kernel beside them.
    fn of_ports(
        router: &RouterConfig,
        functions: &[Loaded],
        ports: Vec<PortFacts>,
        memory: &Memory,
    ) -> Result<Self, RuntimeError> {
        let addresses = addresses(functions);
        let tables = Arc::new(Tables::new(router, &ports, &addresses, &KernelState::default(), memory)?);
        let owner = Neighbours::new(router.neighbours.clone(), HashKey::random());
        let neighbours = Arc::clone(owner.table());
        let (config, owner) = (router.clone(), Mutex::new(Some(owner)));
        Ok(Self { config, ports, addresses, kernel: Vec::new(), tables, neighbours, owner })
    }

    /// On ports that are not there, with these MAC addresses: every neighbour is at `neighbour`.
    pub(super) fn offline(
        config: &RuntimeConfig,
        functions: &[Loaded],
        macs: &[MacAddress],
        neighbour: MacAddress,
        memory: &Memory,
    ) -> Result<Option<Self>, RuntimeError> {
        const ETHERNET_MTU: u16 = 1500;
        let Some(router) = config.routed() else { return Ok(None) };
        let mtu = config.ports.mtu.unwrap_or(ETHERNET_MTU);
        let facts = |mac: &MacAddress| PortFacts { mac: *mac, mtu, offloads: PortOffloads::default() };
        let routing = Self::of_ports(router, functions, macs.iter().map(facts).collect(), memory)?;
        let mut owner = routing.owner.lock().unwrap_or_else(PoisonError::into_inner);
        owner.iter_mut().for_each(|owner| owner.stand_in(neighbour));
        drop(owner);
        Ok(Some(routing))
    }

    /// That each worker sends.
    pub(super) fn icmp_errors_per_second(&self) -> u32 {
        self.config.icmp_errors_per_second
    }

    /// The router of a worker, around so many functions.
    pub(super) fn router(
        &self,
        worker: usize,
        to_owner: Option<Producer>,
        chosen: NextHops,
        functions: usize,
    ) -> Router {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| worker == 0);
        let (tables, neighbours) = (Arc::clone(&self.tables), Arc::clone(&self.neighbours));
        Router::new(tables, neighbours, owner, to_owner, chosen, functions, self.config.icmp_errors_per_second)
    }
}

/// Looks whether a function takes packets for what it cannot have.
pub(super) fn check_addresses(
    file: &ConfigFile,
    config: &RuntimeConfig,
    function: &dyn AnyFunction,
    policy: &AnyPolicy,
) -> Result<(), ConfigError> {
    let Some(router) = config.routed() else { return Ok(()) };
    let addresses = function.addresses(policy);
    for (address, what) in router.not_for_functions() {
        if addresses.iter().any(|prefix| prefix.contains(address)) {
            let key = function.address_key(policy, address);
            return Err(file.error_at(function.name(), &key, format!("{address} is {what} (leave it out)")));
        }
    }
    Ok(())
}

/// Names where a function sends packets that the router cannot bring there.
pub(super) fn ways_that_miss(
    file: &ConfigFile,
    config: &RuntimeConfig,
    function: &dyn AnyFunction,
    policy: &AnyPolicy,
) -> Vec<String> {
    let Some(router) = config.routed() else { return Vec::new() };
    let missed = |Destination { key, address, on_link }| {
        let why = router.no_way_to(address, on_link)?;
        Some(file.error_at(function.name(), &key, format!("{address} cannot be reached: {why}")).to_string())
    };
    function.destinations(policy).into_iter().filter_map(missed).collect()
}

/// Says whom nobody answers for. On a wire between two routers that know each other nobody has to.
pub(super) fn warn_of_silence(config: &RuntimeConfig, function: &dyn AnyFunction, policy: &AnyPolicy) {
    let addresses = function.addresses(policy);
    if let (Some(ForwardingKind::Wire), Some(first)) = (config.forwarding, addresses.first()) {
        let others = match addresses.len() {
            1 => String::new(),
            all => format!(" and {} more", all - 1),
        };
        log::warn!(
            "[{}]: on a wire nobody answers ARP or Neighbor Discovery for {first}{others}: neighbours need a route there \
             by a host that they find (forwarding = \"router\" answers them)",
            function.name()
        );
    }
}

/// What functions take packets for.
fn addresses(functions: &[Loaded]) -> Vec<Prefix> {
    functions.iter().flat_map(|loaded| loaded.function.addresses(&loaded.policy)).collect()
}

/// The kernel's addresses and routes, as they change.
#[derive(Debug)]
pub(super) struct Followed {
    /// The newest that nobody has taken yet.
    news: Arc<Mutex<Option<KernelState>>>,
    _follower: KernelFollower,
}

impl Followed {
    pub(super) fn begin(interfaces: Vec<KernelInterface>) -> Result<Self, KernelError> {
        let news: Arc<Mutex<Option<KernelState>>> = Arc::default();
        let writer = Arc::clone(&news);
        let write = move |state| *writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
        let (follower, first) = KernelFollower::start(interfaces, write)?;
        news.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(first);
        Ok(Self { news, _follower: follower })
    }

    pub(super) fn news(&self) -> Option<KernelState> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What the routers work by now.
#[derive(Debug)]
pub(super) struct InForceRouter {
    routing: Arc<Routing>,
    pub(super) config: RouterConfig,
    ports: Vec<PortFacts>,
    addresses: Vec<Prefix>,
    kernel: KernelState,
    /// The newest last, and earlier ones only while it is not known that every worker has let them
    /// go.
    tables: Vec<Arc<Tables>>,
}

/// What the routers are about to work by.
#[derive(Debug)]
pub(super) struct NextRouter {
    pub(super) config: RouterConfig,
    ports: Vec<PortFacts>,
    addresses: Vec<Prefix>,
    kernel: KernelState,
    pub(super) tables: Arc<Tables>,
}

impl NextRouter {
    /// The ports to the kernel for the interfaces on a port.
    pub(super) fn hosts_on(&self, port: usize) -> impl Iterator<Item = usize> {
        let here = self.tables.interfaces.iter().filter(move |interface| usize::from(interface.port.0) == port);
        here.filter_map(|interface| Some(usize::from(interface.host?.0)))
    }
}

impl InForceRouter {
    pub(super) fn neighbours(&self) -> Arc<NeighbourTable> {
        Arc::clone(&self.routing.neighbours)
    }

    /// The name of an interface.
    pub(super) fn interface(&self, index: u16) -> Option<String> {
        Some(self.tables.last()?.interface(index)?.name.clone())
    }

    /// The interfaces, whose ports have these names.
    pub(super) fn interface_views(&self, ports: &[String]) -> Vec<InterfaceView> {
        let name = |port: PortIx| ports.get(usize::from(port.0)).cloned();
        let view = |interface: &Interface| InterfaceView {
            name: interface.name.clone(),
            side: if interface.enters == Direction::Outbound { "inside" } else { "outside" },
            port: name(interface.port).unwrap_or_default(),
            vlan: interface.vlan,
            mac: interface.mac.to_string(),
            mtu: interface.mtu,
            addresses: interface.addresses.iter().map(ToString::to_string).collect(),
            host: interface.host.and_then(name),
        };
        self.tables.last().map_or_else(Vec::new, |tables| tables.interfaces.iter().map(view).collect())
    }

    /// Some of the routes that are in force: the file's, the interfaces', the functions' and the kernel's. They are
    /// numbered in this order, with those that others stand in the way of.
    pub(super) fn route_page(&self, from: usize, limit: usize) -> PageView<RouteView> {
        let interfaces = self.tables.last().map_or(&[][..], |tables| &tables.interfaces);
        let name = |interface: u16| interfaces.get(usize::from(interface)).map(|interface| interface.name.clone());
        let own = interfaces.iter().flat_map(|interface| interface.addresses.iter().map(move |own| (interface, *own)));
        let of_file: BTreeSet<Prefix> = self.config.routes.iter().map(|route| route.to).collect();
        let connected: BTreeSet<Prefix> = own.clone().map(|(_, own)| own.prefix).collect();
        let plain = |prefix: Prefix, kind, origin| RouteView {
            prefix: prefix.to_string(),
            kind,
            via: None,
            interface: None,
            origin,
        };
        let file = self.config.routes.iter().map(|route| {
            let kind = match (route.refuse, route.via) {
                (Some(Refuse::Blackhole), _) => "blackhole",
                (Some(Refuse::Unreachable), _) => "unreachable",
                (Some(Refuse::Prohibited), _) => "prohibited",
                (None, Some(_)) => "via",
                (None, None) => "connected",
            };
            Some(RouteView { via: route.via, interface: route.interface.clone(), ..plain(route.to, kind, "file") })
        });
        let links = own.clone().map(|(interface, own)| {
            let view =
                RouteView { interface: Some(interface.name.clone()), ..plain(own.prefix, "connected", "interface") };
            (!of_file.contains(&own.prefix)).then_some(view)
        });
        let ours = own.clone().map(|(interface, own)| {
            let view = plain(Prefix::from(own.address), "own", "interface");
            Some(RouteView { interface: Some(interface.name.clone()), ..view })
        });
        let functions = self.addresses.iter().map(|prefix| Some(plain(*prefix, "function", "function")));
        let of_kernel = with_host(interfaces);
        let kernel = self.kernel.routes.iter().enumerate().map(|(index, route)| {
            // The first of a prefix is the one that is in force.
            let is_later = index.checked_sub(1).and_then(|before| self.kernel.routes.get(before));
            if is_later.is_some_and(|before| before.prefix == route.prefix)
                || of_file.contains(&route.prefix)
                || connected.contains(&route.prefix)
            {
                return None;
            }
            let at = |interface: u16| of_kernel.get(usize::from(interface)).copied().and_then(name);
            let (kind, via, interface) = match route.next_hop {
                KernelNextHop::Gateway { interface, address } => ("via", Some(address), at(interface)),
                KernelNextHop::Link { interface } => ("connected", None, at(interface)),
                KernelNextHop::Blackhole => ("blackhole", None, None),
                KernelNextHop::Unreachable => ("unreachable", None, None),
                KernelNextHop::Prohibited => ("prohibited", None, None),
            };
            Some(RouteView { via, interface, ..plain(route.prefix, kind, "kernel") })
        });
        let all = file.chain(links).chain(ours).chain(functions).chain(kernel);
        let mut items = Vec::new();
        for (number, route) in all.enumerate().skip(from) {
            let Some(route) = route else { continue };
            if items.len() == limit {
                return PageView { items, next: Some(number.to_string()) };
            }
            items.push(route);
        }
        PageView { items, next: None }
    }

    pub(super) fn new(routing: &Arc<Routing>) -> Self {
        let (config, tables) = (routing.config.clone(), vec![Arc::clone(&routing.tables)]);
        let (addresses, kernel) = (routing.addresses.clone(), KernelState::default());
        let ports = routing.ports.clone();
        Self { routing: Arc::clone(routing), config, ports, addresses, kernel, tables }
    }

    /// Tables for this configuration and these addresses of functions; `None` if they are what they
    /// were.
    pub(super) fn prepare(
        &self,
        config: &RouterConfig,
        addresses: Vec<Prefix>,
        memory: &Memory,
    ) -> Result<Option<NextRouter>, RouterError> {
        if *config == self.config && addresses == self.addresses {
            return Ok(None);
        }
        self.build(config.clone(), self.ports.clone(), addresses, self.kernel.clone(), memory).map(Some)
    }

    /// Tables for what the kernel says now.
    pub(super) fn follow(&self, kernel: KernelState, memory: &Memory) -> Result<NextRouter, RouterError> {
        self.build(self.config.clone(), self.ports.clone(), self.addresses.clone(), kernel, memory)
    }

    /// Tables for a port that has another MAC address.
    pub(super) fn with_mac_address(
        &self,
        port: usize,
        mac: MacAddress,
        memory: &Memory,
    ) -> Result<NextRouter, RouterError> {
        let mut ports = self.ports.clone();
        ports.iter_mut().skip(port).take(1).for_each(|facts| facts.mac = mac);
        self.build(self.config.clone(), ports, self.addresses.clone(), self.kernel.clone(), memory)
    }

    fn build(
        &self,
        config: RouterConfig,
        ports: Vec<PortFacts>,
        addresses: Vec<Prefix>,
        kernel: KernelState,
        memory: &Memory,
    ) -> Result<NextRouter, RouterError> {
        let tables = Arc::new(Tables::new(&config, &ports, &addresses, &kernel, memory)?);
        Ok(NextRouter { config, ports, addresses, kernel, tables })
    }

    /// The kernel's ends of the ports to it, to be followed.
    pub(super) fn kernel_interfaces(&self) -> Vec<KernelInterface> {
        self.routing.kernel.clone()
    }

    pub(super) fn publish(&mut self, next: NextRouter) {
        let NextRouter { config, ports, addresses, kernel, tables } = next;
        (self.config, self.ports, self.addresses, self.kernel) = (config, ports, addresses, kernel);
        self.tables.push(tables);
    }

    /// Every worker has the newest tables: the others are freed.
    pub(super) fn settle(&mut self) {
        let superseded = self.tables.len().saturating_sub(1);
        self.tables.drain(..superseded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::function::{Function, Invalid, PacketFunction, SetupError, WorkerSetup};
    use crate::runtime::{Configuration, Functions};
    use crate::{Context, Mbuf, Verdict};

    /// Takes packets for these addresses.
    struct Services;

    impl Function for Services {
        type Config = std::collections::BTreeMap<String, Vec<Prefix>>;
        type Policy = Self::Config;
        type Instance = Nothing;

        fn name(&self) -> &'static str {
            "services"
        }

        fn policy(&self, config: Self::Config) -> Result<Self::Policy, Invalid> {
            Ok(config)
        }

        fn addresses(&self, policy: &Self::Policy) -> Vec<Prefix> {
            policy.values().flatten().copied().collect()
        }

        fn address_key(&self, policy: &Self::Policy, address: std::net::IpAddr) -> String {
            let key = policy.iter().find(|(_, prefixes)| prefixes.iter().any(|prefix| prefix.contains(address)));
            key.map_or_else(String::new, |(key, _)| key.clone())
        }

        fn instance(&self, _: Arc<Self::Policy>, _: &mut WorkerSetup) -> Result<Nothing, SetupError> {
            Ok(Nothing)
        }

        fn adopt(_: &mut Nothing, _: Arc<Self::Policy>) {}
    }

    struct Nothing;

    impl PacketFunction for Nothing {
        fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
            Verdict::Next
        }
    }

    const PORTS: &str = "[ports]\ninside = 'a'\noutside = 'b'\n";
    const ROUTER: &str = "
[router.interfaces.lan]
side = 'inside'
addresses = ['192.0.2.1/24', '2001:db8:1::1/64']
[router.interfaces.wan]
side = 'outside'
addresses = ['198.51.100.1/24', '203.0.113.0/31']
[[router.routes]]
to = '0.0.0.0/0'
via = '198.51.100.254'
[[router.routes]]
to = '2001:db8:9::/48'
via = '2001:db8:1::9'
[[router.routes]]
to = '10.0.0.0/8'
refuse = 'blackhole'
";

    fn load(text: &str) -> Result<(), String> {
        let file = ConfigFile::parse("f.toml", text).unwrap();
        Configuration::load(&file, &Functions::new().with(Services)).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn a_function_takes_packets_for_no_next_router_and_no_network() {
        for (services, why) in [
            ("mine = ['198.51.100.254']", "198.51.100.254 is the next router of routes[0] (leave it out)"),
            ("mine = ['198.51.100.240/28']", "198.51.100.254 is the next router of routes[0] (leave it out)"),
            ("mine = ['2001:db8:1::9']", "2001:db8:1::9 is the next router of routes[1] (leave it out)"),
            (
                "mine = ['198.51.100.0/25']",
                "198.51.100.0 is the first address of 198.51.100.0/24 on the interface \"wan\", which stands for the \
                 network (leave it out)",
            ),
            (
                "mine = ['192.0.2.255']",
                "192.0.2.255 is the last address of 192.0.2.0/24 on the interface \"lan\", its broadcast address (leave \
                 it out)",
            ),
        ] {
            let text = format!("forwarding = 'router'\n{PORTS}{ROUTER}[services]\nother = []\n{services}\n");
            let line = text.lines().count();
            assert_eq!(load(&text), Err(format!("f.toml:{line}: [services] mine: {why}")), "{services}");
        }
    }

    #[test]
    fn a_function_may_take_packets_for_the_routers_own_addresses_and_for_networks_that_are_routed() {
        for services in [
            "mine = ['198.51.100.1', '192.0.2.1', '203.0.113.0/31', '2001:db8:1::/128']",
            "mine = ['198.51.100.16/28', '203.0.113.64/28', '10.0.0.0/24']",
        ] {
            let text = format!("forwarding = 'router'\n{PORTS}{ROUTER}[services]\n{services}\n");
            assert_eq!(load(&text), Ok(()), "{services}");
        }
        // Where there is no router, nobody knows of the others.
        for forwarding in ["", "forwarding = 'wire'\n"] {
            assert_eq!(load(&format!("{forwarding}{PORTS}[services]\nmine = ['198.51.100.254']\n")), Ok(()));
        }
    }
}
