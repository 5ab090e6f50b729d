//! What the workers' routers have in common.

use super::RuntimeConfig;
use super::config::ForwardingKind;
use super::error::RuntimeError;
use super::loaded::Loaded;
use crate::classifier::Prefix;
use crate::headers::MacAddress;
use crate::neighbours::{NeighbourTable, Neighbours};
use crate::router::{PortFacts, Router, RouterConfig, RouterError, Tables};
use dpdk_rs::{HashKey, Memory, Port, Producer};
use std::sync::{Arc, Mutex, PoisonError};

/// What the workers' routers have in common.
#[derive(Debug)]
pub(super) struct Routing {
    config: RouterConfig,
    ports: Vec<PortFacts>,
    addresses: Vec<Prefix>,
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
        memory: &Memory,
    ) -> Result<Option<Self>, RuntimeError> {
        let Some(router) = config.router.as_ref().filter(|_| config.forwarding == Some(ForwardingKind::Router)) else {
            return Ok(None);
        };
        let facts = |port: &Port| Ok(PortFacts { mac: MacAddress(port.info()?.mac_address), mtu: port.mtu()? });
        let ports = ports.iter().map(facts).collect::<Result<Vec<_>, RuntimeError>>()?;
        let addresses = addresses(functions);
        let tables = Arc::new(Tables::new(router, &ports, &addresses, memory)?);
        let owner = Neighbours::new(router.neighbours.clone(), HashKey::random());
        let neighbours = Arc::clone(owner.table());
        Ok(Some(Self { config: router.clone(), ports, addresses, tables, neighbours, owner: Mutex::new(Some(owner)) }))
    }

    /// The router of a worker, around so many functions.
    pub(super) fn router(&self, worker: usize, to_owner: Option<Producer>, functions: usize) -> Router {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| worker == 0);
        let (tables, neighbours) = (Arc::clone(&self.tables), Arc::clone(&self.neighbours));
        Router::new(tables, neighbours, owner, to_owner, functions, self.config.icmp_errors_per_second)
    }
}

/// What functions take packets for.
fn addresses(functions: &[Loaded]) -> Vec<Prefix> {
    functions.iter().flat_map(|loaded| loaded.function.addresses(&loaded.policy)).collect()
}

/// What the routers work by now.
#[derive(Debug)]
pub(super) struct InForceRouter {
    routing: Arc<Routing>,
    pub(super) config: RouterConfig,
    addresses: Vec<Prefix>,
    /// The newest last, and earlier ones only while it is not known that every worker has let them
    /// go.
    tables: Vec<Arc<Tables>>,
}

/// What the routers are about to work by.
#[derive(Debug)]
pub(super) struct NextRouter {
    config: RouterConfig,
    addresses: Vec<Prefix>,
    pub(super) tables: Arc<Tables>,
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
        Self { addresses: routing.addresses.clone(), routing: Arc::clone(routing), config, tables }
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
        let tables = Arc::new(Tables::new(config, &self.routing.ports, &addresses, memory)?);
        Ok(Some(NextRouter { config: config.clone(), addresses, tables }))
    }

    pub(super) fn publish(&mut self, next: NextRouter) {
        let NextRouter { config, addresses, tables } = next;
        (self.config, self.addresses) = (config, addresses);
        self.tables.push(tables);
    }

    /// Every worker has the newest tables: the others are freed.
    pub(super) fn settle(&mut self) {
        let superseded = self.tables.len().saturating_sub(1);
        self.tables.drain(..superseded);
    }
}
