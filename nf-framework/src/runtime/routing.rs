//! What the workers' routers have in common.

use super::RuntimeConfig;
use super::error::RuntimeError;
use super::loaded::Loaded;
use crate::classifier::Prefix;
use crate::headers::MacAddress;
use crate::kernel::{KernelError, KernelFollower, KernelInterface, KernelState};
use crate::neighbours::{NeighbourTable, Neighbours};
use crate::next_hop::NextHops;
use crate::router::{PortFacts, PortOffloads, Router, RouterConfig, RouterError, Tables};
use dpdk_rs::{HashKey, Memory, Port, Producer};
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
        let addresses = addresses(functions);
        let tables = Arc::new(Tables::new(router, &ports, &addresses, &KernelState::default(), memory)?);
        let on_link = tables.interfaces.iter().filter(|interface| interface.host.is_some());
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
        let kernel = hosts.iter().zip(router.hosts()).map(followed).collect::<Result<_, RuntimeError>>()?;
        let owner = Neighbours::new(router.neighbours.clone(), HashKey::random());
        let neighbours = Arc::clone(owner.table());
        Ok(Some(Self {
            config: router.clone(),
            ports,
            addresses,
            kernel,
            tables,
            neighbours,
            owner: Mutex::new(Some(owner)),
        }))
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
