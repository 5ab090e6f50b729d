//! A load balancer of layer 4: service addresses, each with backends behind it (after Maglev, NSDI 2016).
//!
#![doc = include_str!("README.md")]

mod config;
mod connections;
mod counters;
mod encapsulate;
mod flow;
mod flow_hash;
mod health;
mod icmp;
mod instance;
mod lint;
mod maglev;
mod policy;
mod probing;
mod proxy_protocol;
mod query;
mod quic;
mod reasons;
mod reset;
mod scratch;
mod select;
mod source_ports;
mod status;
mod traced;
mod translate;
mod usual;

pub use config::{
    BackendConfig, Config, Hash, InvalidServerId, Mode, OnBackendDown, ServerId, ServiceConfig, ServicePorts,
    ServiceProtocol, TimeoutsConfig, TooBig, WhenEmpty,
};
pub use counters::Totals;
pub use health::{
    BackendHealth, Failure, HealthConfig, HealthCounters, HealthKind, PassiveConfig, Seconds, State as HealthState,
};
pub use instance::Instance;
pub use policy::Policy;
use query::OrderArguments;
pub use query::{BackendView, ConnectionView, NoSuchBackend, ServiceView};
pub use status::Order;

use connections::Connections;
use counters::Shared;
use health::{Gauges, Health, Traffic};
use nf_framework::{
    Affinity, BackendReport, Destination, Finding, Function, Invalid, Memory, NextHops, Prefix, SetupError, Topic,
    WorkerSetup,
};
use reasons::{Counters, Reasons};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;
use translate::Translation;

/// The control object.
#[derive(Debug, Default)]
pub struct LoadBalancer {
    /// What is counted of backends.
    shared: Shared,
    /// Known from the first instance on.
    next_hops: OnceLock<NextHops>,
    health: Health,
    /// The configuration that the checks are of.
    checked: Mutex<Weak<Config>>,
}

impl LoadBalancer {
    /// Before the program starts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// As [`new`](Self::new), without a clock: checks go on when [`check`](Self::check) is called, which is for tests.
    #[must_use]
    pub fn without_clock() -> Self {
        Self { health: Health::new(false), ..Self::default() }
    }

    /// Does what health checks have to do at this time, counted from whenever, in a load balancer without a clock.
    pub fn check(&self, now: Duration) {
        self.health.turn(now);
    }

    /// What health checks know of each backend that is checked.
    #[must_use]
    pub fn health(&self) -> Vec<BackendHealth> {
        self.health.states()
    }

    /// What all health checks have come to.
    #[must_use]
    pub fn health_counters(&self) -> HealthCounters {
        self.health.counters()
    }

    /// Lets health checks follow another configuration.
    fn follow(&self, running: &Policy) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(checked.as_ptr(), Arc::as_ptr(&running.config)) {
            *checked = Arc::downgrade(&running.config);
            running.settle();
            let shared = self.shared.clone();
            let traffic = move |slot| {
                let of = shared.totals(slot);
                Traffic { begun: of.begun, failed: of.failed }
            };
            self.health.follow(running.probes, health::targets(running), traffic);
        }
    }
}

impl Function for LoadBalancer {
    type Config = Config;
    type Policy = Policy;
    type Instance = Instance;

    fn name(&self) -> &'static str {
        "load-balancer"
    }

    fn lint(&self, policy: &Policy) -> Vec<Finding> {
        lint::lint(&policy.config)
    }

    fn policy(&self, config: Config) -> Result<Policy, Invalid> {
        Policy::new(config, &self.shared)
    }

    fn replace(&self, config: Config, running: &Policy) -> Result<Policy, Invalid> {
        Policy::following(config, running, &self.shared)
    }

    fn tend(&self, running: &Policy) -> Option<Policy> {
        self.follow(running);
        running.tended(&self.shared)
    }

    fn build(&self, policy: &Policy, _: &Memory) -> Result<(), SetupError> {
        // Not known before the first instance, which does it then.
        self.next_hops.get().map_or(Ok(()), |all| Ok(policy.find_next_hops(all)?))
    }

    fn affinity(&self, _: &Policy) -> Affinity {
        Affinity::OutsidePort
    }

    fn memory(&self, policy: &Policy) -> usize {
        Connections::bytes(&policy.config) + Translation::bytes(policy)
    }

    fn addresses(&self, policy: &Policy) -> Vec<Prefix> {
        policy.taken()
    }

    fn address_key(&self, policy: &Policy, address: IpAddr) -> String {
        policy.key_of(address).unwrap_or_default()
    }

    fn destinations(&self, policy: &Policy) -> Vec<Destination> {
        let services = policy.config.services.iter().enumerate();
        let of = |(place, service): (usize, &ServiceConfig)| {
            let on_link = service.mode == Mode::Dsr;
            let backends = service.backends.iter().enumerate();
            let destination = |(at, backend): (usize, &BackendConfig)| {
                let key = format!("services[{place}].backends[{at}].address");
                Destination { key, address: backend.address, on_link }
            };
            backends.map(destination).collect::<Vec<_>>()
        };
        services.flat_map(of).collect()
    }

    fn backends(&self, policy: &Policy) -> Vec<BackendReport> {
        policy.reports(&self.shared)
    }

    fn topics(&self) -> Vec<Topic<Self>> {
        vec![
            Topic::list(
                "services",
                "the services, and whether they have a backend",
                |of: &mut Instance, filter, from| of.service_piece(filter, from),
            )
            .parameter("service", "its name")
            .of_one_worker(),
            Topic::list(
                "backends",
                "the backends, their health and what they were given",
                |of: &mut Instance, filter, from| of.backend_piece(filter, from),
            )
            .parameter("service", "the service that it is of")
            .of_one_worker(),
            Topic::list("connections", "which client is on which backend", |of: &mut Instance, filter, from| {
                of.connection_piece(filter, from)
            })
            .parameter("service", "the service that it was begun by")
            .parameter("backend", "the backend that it is on")
            .parameter("client", "the client's address"),
            Topic::order(
                "order",
                "drains a backend, puts it back or takes it for down; until it is told otherwise, over reloads too",
                |of: &mut Instance, wanted: &OrderArguments, _| {
                    of.order(&wanted.service, &wanted.backend, wanted.order).map(|()| wanted.clone())
                },
                |mut answers| match answers.pop() {
                    Some(done) => done.map_err(|error| error.to_string()),
                    None => Err("no worker has answered".to_owned()),
                },
            )
            .parameter("service", "the service that it is of")
            .parameter("backend", "its name")
            .parameter("order", "serve, drain or down")
            .of_one_worker(),
        ]
    }

    fn instance(&self, policy: Arc<Policy>, worker: &mut WorkerSetup) -> Result<Instance, SetupError> {
        let all_up = if worker.is_offline() { policy.all_up(&self.shared) } else { None };
        let policy = all_up.map_or(policy, Arc::new);
        policy.find_next_hops(self.next_hops.get_or_init(|| worker.next_hops()))?;
        let backends = self.shared.of_worker(worker.index());
        let mut connections = Connections::new(&policy.config, &worker.memory(), backends)?;
        connections.show(worker);
        let translation = Translation::new(&policy, worker)?;
        let (reasons, counters) = (Reasons::new(worker)?, Counters::new(worker));
        let door = self.health.door(worker.index() == 0, worker.counter("check-packets-lost"), Gauges::new(worker));
        Ok(Instance::new(policy, (connections, self.shared.clone()), (translation, door), reasons, counters))
    }

    fn adopt(instance: &mut Instance, policy: Arc<Policy>) {
        instance.adopt(policy);
    }
}
