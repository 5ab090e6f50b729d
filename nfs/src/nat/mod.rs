//! NAPT44: many inside hosts behind few external addresses (RFC 3022, 4787, 5382, 5508, 6888, 7857).
//!
#![doc = include_str!("README.md")]

mod config;
mod explain;
mod flow;
mod icmp;
mod instance;
mod lint;
mod log;
mod occupancy;
mod policy;
mod ports;
mod query;
mod reasons;
mod sessions;
mod tcp;
mod traced;
mod unsolicited;

pub use config::{
    Config, Filtering, FilteringConfig, ForwardConfig, ForwardProtocol, InvalidPortRange, Ipv6, LogConfig,
    OneToOneConfig, PoolConfig, Pooling, PortRange, PortSelection, TimeoutsConfig, UnsolicitedSyn,
};
pub use flow::Protocol;
pub use instance::Instance;
pub use policy::Policy;
pub use query::{AddressOccupancy, Cleared, MappingView, Occupancy, SessionFilter, SessionView};

use crate::identification::Identifications;
use crate::json_log;
use log::{Events, Log};
use nf_framework::{
    Affinity, Direction, Finding, Function, Invalid, NoParameters, Prefix, SetupError, Topic, Tuple, WorkerSetup,
};
use occupancy::Occupancies;
use ports::{BLOCK_BITS, Ports};
use reasons::{Counters, Reasons};
use sessions::Sessions;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The control object.
#[derive(Debug, Default)]
pub struct Nat {
    /// What writes mappings down, from the first instance on.
    log: Mutex<Option<Log>>,
}

impl Nat {
    /// Before the program starts.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A worker's way to what writes mappings down.
    fn events(&self, policy: &Policy, worker: &mut WorkerSetup) -> Result<Events, SetupError> {
        let lost = worker.counter("log-lines-lost");
        let Some(config) = policy.config.log.as_ref().filter(|_| !worker.is_offline()) else {
            return Ok(Events::new(None, lost));
        };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.is_none() {
            *log = Some(Log::start(config)?);
        }
        Ok(Events::new(log.as_ref().map(Log::channel), lost))
    }
}

impl Function for Nat {
    type Config = Config;
    type Policy = Policy;
    type Instance = Instance;

    fn name(&self) -> &'static str {
        "nat"
    }

    fn policy(&self, config: Config) -> Result<Policy, Invalid> {
        config.log.as_ref().map_or(Ok(()), json_log::check)?;
        Policy::new(config)
    }

    fn replace(&self, config: Config, running: &Policy) -> Result<Policy, Invalid> {
        Policy::following(config, running)
    }

    fn lint(&self, policy: &Policy) -> Vec<Finding> {
        policy.lint()
    }

    fn explain(&self, policy: &Policy, frame: &mut [u8], direction: Direction) -> Option<String> {
        policy.explain(frame, direction)
    }

    fn affinity(&self, _: &Policy) -> Affinity {
        Affinity::TranslatedPort { block_bits: BLOCK_BITS }
    }

    fn memory(&self, policy: &Policy) -> usize {
        Sessions::bytes(policy) + Identifications::bytes()
    }

    fn addresses(&self, policy: &Policy) -> Vec<Prefix> {
        let mut addresses: Vec<_> = policy.external().collect();
        addresses.sort_unstable();
        addresses.dedup();
        addresses.into_iter().filter_map(|address| Prefix::new(IpAddr::V4(address), 32).ok()).collect()
    }

    fn address_key(&self, policy: &Policy, address: IpAddr) -> String {
        policy.key_of(address).unwrap_or_default()
    }

    fn topics(&self) -> Vec<Topic<Self>> {
        let with_filter = |topic: Topic<Self>| {
            topic
                .parameter("protocol", "tcp, udp or icmp")
                .parameter("inside", "the inside host's address")
                .parameter("remote", "the address that it talks to")
                .parameter("external", "the address that stands for it outside")
        };
        vec![
            with_filter(Topic::list(
                "sessions",
                "who talks to whom, and behind which address and port",
                |instance: &mut Instance, filter, from| instance.list(filter, from),
            )),
            Topic::state(
                "occupancy",
                "how full each worker is, and the ports of each address",
                |instance: &mut Instance, NoParameters {}: &NoParameters, _| instance.occupancy(),
                query::OfWorker::all,
            ),
            with_filter(Topic::sweep(
                "clear",
                "ends sessions, all if no filter is given",
                |instance, filter, from, cx| {
                    let Cleared { sessions, next } = Instance::clear(instance, filter, from, cx.now());
                    (sessions, next)
                },
            )),
        ]
    }

    fn instance(&self, policy: Arc<Policy>, worker: &mut WorkerSetup) -> Result<Instance, SetupError> {
        // Replies come to the worker that has their destination port, whoever they are from.
        let reply = |port| Tuple {
            source: Ipv4Addr::UNSPECIFIED.into(),
            destination: Ipv4Addr::UNSPECIFIED.into(),
            ports: nf_framework::Ports::Both(0, port),
        };
        let ports = Ports::new(|port| worker.owns(Direction::Inbound, &reply(port)));
        let events = self.events(&policy, worker)?;
        let (memory, index, workers) = (worker.memory(), worker.index(), worker.workers());
        let mut sessions = Sessions::new(&policy, &memory, ports, events)?;
        let occupancies = Occupancies::new(worker, &mut sessions);
        let identifications = Identifications::new(&memory, index, workers)?;
        let (reasons, counters) = (Reasons::new(worker)?, Counters::new(worker));
        Ok(Instance::new(policy, (sessions, occupancies), identifications, reasons, counters))
    }

    fn adopt(instance: &mut Instance, policy: Arc<Policy>) {
        instance.adopt(policy);
    }
}
