//! A stateful firewall: what begins a connection is judged by rules, what belongs to one is followed.
//!
#![doc = include_str!("README.md")]

mod answer;
mod begins;
mod candidates;
mod capture;
mod capture_file;
mod config;
mod connection;
mod cookies;
mod decided;
mod explain;
mod fate;
mod follow;
mod instance;
mod limits;
mod lint;
mod lint_sets;
mod log;
mod marks;
mod never;
mod packet;
mod policy;
mod query;
mod reasons;
mod refusal;
mod rejudge;
mod replay;
mod rule;
mod sense;
mod sets;
mod slots;
mod sources;
mod syn_proxy;
mod tcp;
mod timer;
mod traced;
mod tracking;
mod usual;
mod views;
mod worker_state;

pub use capture::Explained;
pub use capture_file::InvalidCapture;
pub use config::{
    Action, Checksums, Config, Denial, LimitConfig, Live, LogConfig, Passage, RuleConfig, SetConfig, Side, State,
    SynCookies, TimeoutsConfig,
};
pub use explain::{Explanation, Why};
pub use instance::Instance;
pub use policy::Policy;
pub use query::{ConnectionFilter, ConnectionView, RuleHits};

use limits::Limits;
use log::Events;
use nf_framework::{
    Affinity, Direction, FileContent, Finding, Function, Invalid, Memory, NoParameters, SetupError, Topic, WorkerSetup,
};
use reasons::{Counters, Reasons};
use std::sync::Arc;
use syn_proxy::SynProxy;
use tracking::Tracking;
use worker_state::WorkerState;

/// The control object.
#[derive(Clone, Copy, Debug)]
pub struct Firewall;

impl Function for Firewall {
    type Config = Config;
    type Policy = Policy;
    type Instance = Instance;

    fn name(&self) -> &'static str {
        "firewall"
    }

    fn policy(&self, config: Config) -> Result<Policy, Invalid> {
        Policy::new(config)
    }

    fn replace(&self, config: Config, running: &Policy) -> Result<Policy, Invalid> {
        Policy::following(config, running)
    }

    fn lint(&self, policy: &Policy) -> Vec<Finding> {
        policy.lint()
    }

    fn explain(&self, policy: &Policy, frame: &mut [u8], direction: Direction) -> Option<String> {
        Some(policy.explain_first(frame, direction, State::New).to_string())
    }

    fn files(&self, policy: &Policy) -> Vec<FileContent> {
        sets::files(&policy.config.sets, &policy.sets)
    }

    fn affinity(&self, _: &Policy) -> Affinity {
        Affinity::Flow
    }

    fn build(&self, policy: &Policy, memory: &Memory) -> Result<(), SetupError> {
        policy.build(memory)
    }

    fn memory(&self, policy: &Policy) -> usize {
        Tracking::bytes(&policy.config) + Limits::bytes(policy) + SynProxy::bytes(policy)
    }

    fn inside_of(&self) -> &[&str] {
        &["nat"]
    }

    fn topics(&self) -> Vec<Topic<Self>> {
        let with_filter = |topic: Topic<Self>| {
            topic
                .parameter("protocol", "tcp, udp, icmp, icmpv6 or a number")
                .parameter("address", "a prefix or an address that one end or the other has")
                .parameter("port", "a port that one end or the other has")
                .parameter("rule", "the rule that accepted it")
        };
        let connections = |instance: &mut Instance, filter: &ConnectionFilter, from| instance.list(filter, from);
        vec![
            with_filter(Topic::list("connections", "who talks to whom, and by which rule", connections)),
            Topic::state(
                "rules",
                "how often each rule has decided, in the order of the rules",
                |instance: &mut Instance, NoParameters {}: &NoParameters, _| instance.rule_hits(),
                query::added_up,
            ),
            with_filter(Topic::sweep(
                "clear",
                "ends connections, all if no filter is given",
                |instance: &mut Instance, filter, from, _| instance.clear(filter, from),
            )),
        ]
    }

    fn instance(&self, policy: Arc<Policy>, worker: &mut WorkerSetup) -> Result<Instance, SetupError> {
        let (memory, workers) = (worker.memory(), worker.workers());
        let mut tracking = Tracking::new(&policy.config, &memory, workers)?;
        let mut limits = Limits::new(&policy, &memory, workers)?;
        tracking.show(worker);
        limits.show(worker);
        let proxy = SynProxy::new(&policy, &tracking, &memory)?;
        let log = policy.config.log.as_ref().filter(|_| !worker.is_offline());
        let channel = log.map(|config| policy.log.channel(config));
        let events = Events::new(channel.transpose()?, worker.counter("log-lines-lost"));
        let (reasons, counters) = (Reasons::new(worker)?, Counters::new(worker));
        let state = WorkerState::new(policy, (tracking, limits, proxy), workers, events, reasons, counters);
        Ok(Instance::new(state))
    }

    fn adopt(instance: &mut Instance, policy: Arc<Policy>) {
        instance.adopt(policy);
    }
}
