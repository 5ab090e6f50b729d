//! What a running load balancer knows, and what it is told, by people and programs: through
//! [`Control::command`](nf_framework::Control::command). Services and backends are the same on every worker, and one
//! of them may be asked; a connection is known by the worker that has it.

use super::connections::Stage;
use super::counters::{Shared, Totals};
use super::flow::Flow;
use super::instance::Instance;
use super::status::{Order, WHOLE};
use nf_framework::headers::IpProtocol;
use std::net::{IpAddr, SocketAddr};

/// A service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceView {
    /// What it is called.
    pub name: String,
    /// Where clients send to.
    pub address: IpAddr,
    /// Whether a backend is ready for new flows.
    pub is_ready: bool,
    /// Its backends, also those that are gone and still have connections.
    pub backends: Vec<BackendView>,
}

/// A backend of a service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendView {
    /// What it is called.
    pub name: String,
    /// Its own address.
    pub address: IpAddr,
    /// Its share of new flows by the configuration; 0 if it stands there no more.
    pub weight: u16,
    /// How much of that it may get, in thousandths; 0 if it is down.
    pub share: u16,
    /// What people want of it.
    pub order: Order,
    /// What all workers have counted of it.
    pub totals: Totals,
}

/// A connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionView {
    /// The service that it was begun by.
    pub service: String,
    /// The backend that it is on.
    pub backend: String,
    /// Whether its client has been heard of more than once; others make room first.
    pub established: bool,
}

/// What a command names and is not there.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("there is no backend {backend:?} of a service {service:?}")]
pub struct NoSuchBackend {
    service: String,
    backend: String,
}

impl Instance {
    /// All services.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceView> {
        let shared = &self.state.shared;
        let of = |service: &super::policy::Service, address| ServiceView {
            name: service.name.clone(),
            address,
            is_ready: service.table.is_some(),
            backends: self.backends(&service.name, shared),
        };
        let policy = &self.policy;
        policy
            .services
            .iter()
            .zip(&policy.config.services)
            .map(|(service, config)| of(service, config.address))
            .collect()
    }

    fn backends(&self, service: &str, shared: &Shared) -> Vec<BackendView> {
        let all = (0..).zip(&self.policy.backends);
        let of = all.filter_map(|(slot, backend)| Some((slot, backend.as_ref()?)));
        let of = of.filter(|(_, backend)| backend.identity.service == service);
        of.map(|(slot, backend)| BackendView {
            name: backend.name.clone(),
            address: backend.identity.address,
            weight: backend.service.map_or(0, |_| backend.weight),
            share: backend.share.min(WHOLE),
            order: backend.order,
            totals: shared.totals(slot).since(&backend.since),
        })
        .collect()
    }

    /// The connection of a client to a service's address, if this worker has it.
    #[must_use]
    pub fn connection(&self, protocol: IpProtocol, client: SocketAddr, service: SocketAddr) -> Option<ConnectionView> {
        let flow = Flow {
            source: client.ip(),
            destination: service.ip(),
            protocol,
            source_port: client.port(),
            destination_port: service.port(),
        };
        let (_, connection) = self.state.connections.find(&flow.key())?;
        let backend = self.policy.backends.get(usize::from(connection.backend))?.as_ref()?;
        Some(ConnectionView {
            service: backend.identity.service.clone(),
            backend: backend.name.clone(),
            established: !matches!(connection.stage, Stage::Begun | Stage::Midway),
        })
    }

    /// Says what a backend is to do: it is drained, put back, or taken for down. All workers follow with the next look
    /// at what has changed, some 20 ms later.
    ///
    /// # Errors
    ///
    /// When there is none of this name.
    pub fn order(&self, service: &str, backend: &str, order: Order) -> Result<(), NoSuchBackend> {
        let slot = self.policy.slot_named(service, backend);
        let of = slot.and_then(|slot| self.policy.backends.get(usize::from(slot))?.as_ref());
        let none = || NoSuchBackend { service: service.to_owned(), backend: backend.to_owned() };
        of.ok_or_else(none)?.status.set_order(order);
        Ok(())
    }
}
