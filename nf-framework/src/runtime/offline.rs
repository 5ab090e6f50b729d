//! One worker without ports: what a configuration makes of packets that come from elsewhere, on a time of their own.

use super::configuration::Configuration;
use super::error::RuntimeError;
use super::loaded::{self, Loaded};
use super::needs::Needs;
use super::routing::Routing;
use super::{ForwardingKind, RuntimeConfig};
use crate::counters::WorkerCounters;
use crate::crash::scene::Scene;
use crate::direction::Direction;
use crate::forwarding::{Forwarding, Wire};
use crate::fragments::Fragments;
use crate::function::WorkerSetup;
use crate::headers::MacAddress;
use crate::registry::Registry;
use crate::report::{Balance, PortReport, Report};
use crate::router::RouterConfig;
use crate::token_bucket::TokenBucket;
use crate::trace::Names;
use crate::verdict::PortIx;
use crate::worker::Pipeline;
use dpdk_rs::{Eal, HashKey, Mempool};
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The MAC address of every neighbour of a router that cannot ask for any.
const NEIGHBOUR: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// Those of a router's ports that are not there, inside and outside.
const OWN: [MacAddress; 2] = [MacAddress([2, 0, 0, 0, 1, 1]), MacAddress([2, 0, 0, 0, 1, 2])];

/// A worker without ports.
#[derive(Debug)]
pub(crate) struct Portless {
    pub(crate) pipeline: Pipeline,
    /// Where it has a router: its MAC addresses, by side.
    pub(crate) stations: Option<[MacAddress; 2]>,
    pub(crate) registry: Arc<Registry>,
    config: RuntimeConfig,
    functions: Vec<Loaded>,
}

impl RuntimeConfig {
    /// Whether there is an outside port.
    pub(crate) fn has_two_sides(&self) -> bool {
        self.ports.outside.is_some()
    }

    /// The ports by their numbers: what each is to the program, and its name.
    pub(crate) fn port_names(&self) -> Vec<(String, String)> {
        let sides = [("inside", Some(&self.ports.inside)), ("outside", self.ports.outside.as_ref())];
        let sides = sides.into_iter().filter_map(|(side, name)| Some((side.to_owned(), name?.clone())));
        let hosts = self.routed().into_iter().flat_map(RouterConfig::hosts);
        sides.chain(hosts.map(|(interface, name)| (format!("host-{interface}"), name.to_owned()))).collect()
    }
}

impl RuntimeConfig {
    /// Towards which side a port of this number is, where there are two.
    pub(crate) fn side_of(&self, port: usize) -> Option<&'static str> {
        ["inside", "outside"].get(port).copied().filter(|_| self.has_two_sides())
    }

    /// What people are told of the ports of these devices, by their numbers: `net_tap0 (inside)`.
    pub(crate) fn port_labels<'a>(&self, devices: impl Iterator<Item = &'a str>) -> Vec<String> {
        let parts = self.port_names().into_iter().enumerate();
        let parts = parts.map(|(port, (part, _))| Some(part).filter(|_| port > 0 || self.has_two_sides()));
        let label = |(device, part): (&str, Option<String>)| match part {
            Some(part) => format!("{device} ({part})"),
            None => device.to_owned(),
        };
        devices.zip(parts).map(label).collect()
    }
}

impl Configuration {
    /// Bytes of the EAL's memory that a worker without ports needs, as far as functions say.
    pub(crate) fn bytes_without_ports(&self) -> u64 {
        Needs::new(&self.runtime, &self.functions, NonZero::<u16>::MIN, None, false).bytes()
    }

    /// Makes a worker without ports, on the calling thread, which is the EAL's.
    pub(crate) fn without_ports(self, eal: &Eal) -> Result<Portless, RuntimeError> {
        let Self { runtime: config, functions, .. } = self;
        let affinity = loaded::affinity(&functions)?;
        let needs = Needs::new(&config, &functions, NonZero::<u16>::MIN, None, eal.has_hugepages());
        loaded::build(&functions, eal)?;
        let pool = Mempool::new(eal, "packets", needs.pool)?;
        let registry: Arc<Registry> = Arc::default();
        let mut setup = WorkerSetup {
            index: 0,
            workers: 1,
            lcore: eal.lcores().first().copied(),
            function: String::new(),
            pool: pool.clone(),
            registry: Arc::clone(&registry),
            steering: None,
            offline: true,
        };
        let last = usize::from(config.has_two_sides());
        let routing =
            Routing::offline(&config, &functions, OWN.get(..=last).unwrap_or(&OWN), NEIGHBOUR, &eal.memory())?;
        let mut chain = loaded::chain(&functions, &mut setup)?;
        chain.forwarding = match (config.forwarding, &routing) {
            (Some(ForwardingKind::Wire), _) => Some(Box::new(Wire)),
            (Some(ForwardingKind::Router), Some(routing)) => {
                let router: Box<dyn Forwarding> = Box::new(routing.router(0, None, setup.next_hops(), chain.len()));
                Some(router)
            }
            _ => None,
        };
        let counters = Arc::new(WorkerCounters::new(config.port_names().len(), chain.len()));
        let outside = PortIx(u16::from(config.has_two_sides()));
        let mut pipeline = Pipeline::new(chain, (PortIx(0), outside), pool, counters);
        pipeline.errors = routing.as_ref().map(|routing| TokenBucket::of_errors(routing.icmp_errors_per_second()));
        // The same key on each run: what comes of a capture is to be the same.
        pipeline.fragments =
            loaded::fragments(&config, affinity).map(|config| Fragments::new(&config, HashKey::from_seed(1)));
        let stations = routing.map(|_| OWN);
        Ok(Portless { pipeline, stations, registry, config, functions })
    }
}

impl Portless {
    /// What a function of the chain says of a first packet as it comes to it.
    pub(crate) fn explain(&self, function: usize, frame: &mut [u8], direction: Direction) -> Option<(&str, String)> {
        let Loaded { function, policy, .. } = self.functions.get(function)?;
        Some((function.name(), function.explain(policy, frame, direction)?))
    }

    /// The functions of the chain, by name.
    pub(crate) fn function_names(&self) -> Vec<String> {
        self.functions.iter().map(|loaded| loaded.function.name().to_owned()).collect()
    }

    /// What is known of a panic, if there was one.
    pub(crate) fn scene(&self) -> Option<&Scene> {
        self.pipeline.counters.scene.get().map(Box::as_ref)
    }

    /// What numbers are called in traces; reasons with what they mean, as who asks has no list of them at hand.
    pub(crate) fn names(&self) -> Names {
        let reasons = self.registry.drop_reasons.list();
        Names {
            ports: self.config.port_labels(self.config.port_names().iter().map(|(_, device)| device.as_str())),
            functions: self.function_names(),
            reasons: reasons.into_iter().map(|(name, help)| format!("{name}: {help}")).collect(),
            next_hops: self.registry.next_hops.clone(),
            cycles_per_second: 0,
        }
    }

    /// The counters, as a program with ports would show them.
    pub(crate) fn report(&self) -> Report {
        let counters = &self.pipeline.counters;
        self.pipeline.chain.gauge_sessions(counters);
        let mut report = Report::new(&[], &self.function_names(), std::slice::from_ref(counters), &self.registry);
        let port = |(name, counters): (String, &crate::counters::PortCounters)| PortReport {
            name,
            received: counters.received.load(Ordering::Relaxed),
            sent: counters.sent.load(Ordering::Relaxed),
            ..PortReport::default()
        };
        report.ports = self.names().ports.into_iter().zip(&counters.ports).map(port).collect();
        let sum = |of: fn(&PortReport) -> u64| report.ports.iter().map(of).sum();
        let (received, sent) = (sum(|port| port.received), sum(|port| port.sent));
        report.balance = Balance { received, sent, ..report.balance };
        report
    }
}
