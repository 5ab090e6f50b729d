//! What a running load balancer knows, and what it is told, by people and programs: through
//! [`Control::command`](nf_framework::Control::command). Services and backends are the same on every worker, and one
//! of them may be asked; a connection is known by the worker that has it.

use super::connections::Stage;
use super::counters::{Shared, Totals};
use super::flow::Flow;
use super::instance::Instance;
use super::status::{Order, WHOLE};
use nf_framework::Piece;
use nf_framework::headers::IpProtocol;
use serde::{Deserialize, Serialize};
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

/// Slots of the tables that one question looks at: packets wait meanwhile, for a fraction of a millisecond.
const SLOTS: usize = 1024;
/// Services or backends that one question looks at.
const NAMES: usize = 256;

/// Those that are meant; what is not given is all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceFilter {
    service: Option<String>,
}

/// Connections that are meant; what is not given is all.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectionFilter {
    service: Option<String>,
    backend: Option<String>,
    client: Option<IpAddr>,
}

/// A service in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct ServiceItem {
    service: String,
    address: IpAddr,
    /// Whether a backend is ready for new flows.
    ready: bool,
    backends: usize,
}

/// A backend in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct BackendItem {
    service: String,
    backend: String,
    address: IpAddr,
    weight: u16,
    /// How much of that it may get, in thousandths; 0 if it is down.
    share: u16,
    up: bool,
    order: Order,
    #[serde(flatten)]
    totals: Totals,
}

/// A connection in a list.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct ConnectionItem {
    protocol: &'static str,
    client: SocketAddr,
    address: SocketAddr,
    service: String,
    backend: String,
    established: bool,
}

/// What is wanted of a backend.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OrderArguments {
    pub(super) service: String,
    pub(super) backend: String,
    pub(super) order: Order,
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

    /// Services, from one on.
    pub(super) fn service_piece(&self, filter: &ServiceFilter, from: usize) -> Piece<ServiceItem> {
        let all = self.policy.services.iter().zip(&self.policy.config.services).enumerate();
        let some = all.skip(from).take(NAMES);
        let items = some.filter(|(_, (service, _))| filter.service.as_ref().is_none_or(|name| *name == service.name));
        let item = |(place, (service, config)): (usize, (&super::policy::Service, &super::config::ServiceConfig))| {
            let backends = self.policy.backends.iter().flatten();
            let item = ServiceItem {
                service: service.name.clone(),
                address: config.address,
                ready: service.table.is_some(),
                backends: backends.filter(|backend| backend.identity.service == service.name).count(),
            };
            (place, item)
        };
        let to = from.saturating_add(NAMES);
        Piece { items: items.map(item).collect(), next: (to < self.policy.services.len()).then_some(to) }
    }

    /// Backends of all services, from one on.
    pub(super) fn backend_piece(&self, filter: &ServiceFilter, from: usize) -> Piece<BackendItem> {
        let some = (0..).zip(&self.policy.backends).skip(from).take(NAMES);
        let there = some.filter_map(|(slot, backend)| Some((slot, backend.as_ref()?)));
        let meant = there
            .filter(|(_, backend)| filter.service.as_ref().is_none_or(|service| *service == backend.identity.service));
        let items = meant.map(|(slot, backend)| {
            let share = backend.share.min(WHOLE);
            let item = BackendItem {
                service: backend.identity.service.clone(),
                backend: backend.name.clone(),
                address: backend.identity.address,
                weight: backend.service.map_or(0, |_| backend.weight),
                share,
                up: share > 0,
                order: backend.order,
                totals: self.state.shared.totals(slot).since(&backend.since),
            };
            (usize::from(slot), item)
        });
        let to = from.saturating_add(NAMES);
        Piece { items: items.collect(), next: (to < self.policy.backends.len()).then_some(to) }
    }

    /// Connections, from a slot of the tables on, which stand one behind the other.
    pub(super) fn connection_piece(&self, filter: &ConnectionFilter, from: usize) -> Piece<ConnectionItem> {
        let (v4, v6) = (&self.state.connections.v4, &self.state.connections.v6);
        let (to, first) = (from.saturating_add(SLOTS), v4.slots());
        let of_v4 = v4.entries_in(from..to.min(first)).map(|(handle, key, of)| (handle.slot(), Flow::of_v4(key), of));
        let slots = from.saturating_sub(first)..to.saturating_sub(first);
        let of_v6 = v6.entries_in(slots).map(|(handle, key, of)| (first + handle.slot(), Flow::of_v6(key), of));
        let items = of_v4.chain(of_v6).filter_map(|(place, flow, connection)| {
            let backend = self.policy.backends.get(usize::from(connection.backend))?.as_ref()?;
            let is = |wanted: &Option<String>, name: &String| wanted.as_ref().is_none_or(|wanted| wanted == name);
            if !is(&filter.service, &backend.identity.service)
                || !is(&filter.backend, &backend.name)
                || filter.client.is_some_and(|client| client != flow.source)
            {
                return None;
            }
            let item = ConnectionItem {
                protocol: if flow.protocol == IpProtocol::TCP { "tcp" } else { "udp" },
                client: SocketAddr::new(flow.source, flow.source_port),
                address: SocketAddr::new(flow.destination, flow.destination_port),
                service: backend.identity.service.clone(),
                backend: backend.name.clone(),
                established: !matches!(connection.stage, Stage::Begun | Stage::Midway),
            };
            Some((place, item))
        });
        Piece { items: items.collect(), next: (to < first + v6.slots()).then_some(to) }
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
