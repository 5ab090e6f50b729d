//! A load balancer of layer 4: service addresses, each with backends behind it (after Maglev, NSDI 2016).
//!
#![doc = include_str!("README.md")]

mod config;
mod connections;
mod counters;
mod encapsulate;
mod flow;
mod health;
mod icmp;
mod instance;
mod maglev;
mod policy;
mod proxy_protocol;
mod query;
mod quic;
mod reasons;
mod select;
mod source_ports;
mod status;
mod translate;

pub use config::{
    BackendConfig, Config, Hash, InvalidServerId, Mode, OnBackendDown, ServerId, ServiceConfig, ServicePorts,
    ServiceProtocol, TimeoutsConfig, TooBig, WhenEmpty,
};
pub use counters::Totals;
pub use health::HealthConfig;
pub use instance::Instance;
pub use policy::Policy;
pub use query::{BackendView, ConnectionView, NoSuchBackend, ServiceView};
pub use status::Order;

use connections::Connections;
use counters::Shared;
use nf_framework::{Affinity, Function, Invalid, Memory, NextHops, Prefix, SetupError, WorkerSetup};
use reasons::{Counters, Reasons};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use translate::Translation;

/// The control object.
#[derive(Debug, Default)]
pub struct LoadBalancer {
    /// What is counted of backends.
    shared: Shared,
    /// Known from the first instance on.
    next_hops: OnceLock<NextHops>,
}

impl LoadBalancer {
    /// Before the program starts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Function for LoadBalancer {
    type Config = Config;
    type Policy = Policy;
    type Instance = Instance;

    fn name(&self) -> &'static str {
        "load-balancer"
    }

    fn policy(&self, config: Config) -> Result<Policy, Invalid> {
        Policy::new(config, &self.shared)
    }

    fn replace(&self, config: Config, running: &Policy) -> Result<Policy, Invalid> {
        Policy::following(config, running, &self.shared)
    }

    fn tend(&self, running: &Policy) -> Option<Policy> {
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

    fn instance(&self, policy: Arc<Policy>, worker: &mut WorkerSetup) -> Result<Instance, SetupError> {
        policy.find_next_hops(self.next_hops.get_or_init(|| worker.next_hops()))?;
        let backends = self.shared.of_worker(worker.index());
        let connections = Connections::new(&policy.config, &worker.memory(), backends)?;
        let translation = Translation::new(&policy, worker)?;
        let (reasons, counters) = (Reasons::new(worker)?, Counters::new(worker));
        Ok(Instance::new(policy, (connections, self.shared.clone()), translation, reasons, counters))
    }

    fn adopt(instance: &mut Instance, policy: Arc<Policy>) {
        instance.adopt(policy);
    }
}
