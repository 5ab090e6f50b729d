//! What the workers' routers have in common.

use super::config::ForwardingKind;
use super::error::RuntimeError;
use super::loaded::Loaded;
use super::RuntimeConfig;
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
    pub(super) tables: Arc<Tables>,
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
        let tables = Arc::new(Tables::new(router, &ports, &addresses(functions), memory)?);
        let owner = Neighbours::new(router.neighbours.clone(), HashKey::random());
        let neighbours = Arc::clone(owner.table());
        Ok(Some(Self { config: router.clone(), ports, tables, neighbours, owner: Mutex::new(Some(owner)) }))
    }

    /// Tables for other functions' policies, or another configuration.
    pub(super) fn rebuild(
        &self,
        config: &RouterConfig,
        functions: &[Prefix],
        memory: &Memory,
    ) -> Result<Arc<Tables>, RouterError> {
        Ok(Arc::new(Tables::new(config, &self.ports, functions, memory)?))
    }

    /// The router of a worker, around so many functions.
    pub(super) fn router(&self, worker: usize, to_owner: Option<Producer>, functions: usize) -> Router {
        let owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner).take_if(|_| worker == 0);
        let (tables, neighbours) = (Arc::clone(&self.tables), Arc::clone(&self.neighbours));
        Router::new(tables, neighbours, owner, to_owner, functions, self.config.icmp_errors_per_second)
    }
}

/// What functions take packets for.
pub(super) fn addresses(functions: &[Loaded]) -> Vec<Prefix> {
    functions.iter().flat_map(|loaded| loaded.function.addresses(&loaded.policy)).collect()
}
