//! Functions without their types, so that a chain can be named in a file.

use super::RuntimeConfig;
use super::error::RuntimeError;
use crate::chain::Chain;
use crate::changes::Table;
use crate::classifier::Prefix;
use crate::config::{ConfigError, ConfigFile};
use crate::direction::Direction;
use crate::fragments::FragmentsConfig;
use crate::function::{Destination, FileContent, Finding, Function, Invalid, NetworkFunction, SetupError, WorkerSetup};
use crate::operate::Topic;
use crate::operate::topics::AnyTopic;
use crate::report::BackendReport;
use crate::steering::{Affinity, AffinityConflict};
use dpdk_rs::{Eal, Memory};
use std::any::Any;
use std::net::IpAddr;
use std::sync::Arc;

/// A function's policy without its type.
pub(crate) type AnyPolicy = Arc<dyn Any + Send + Sync>;

/// A [`Function`] without its types.
pub(crate) trait AnyFunction: Any + Send + Sync {
    fn name(&self) -> &str;

    /// The policy that a file asks for, which takes over from the running one if there is one.
    fn prepare(&self, file: &ConfigFile, running: Option<&AnyPolicy>) -> Result<AnyPolicy, ConfigError>;

    /// The policy that the function itself wants in the place of the running one.
    fn tend(&self, running: &AnyPolicy) -> Option<AnyPolicy>;

    /// What is to be known of the table that it was made of.
    fn lint(&self, policy: &AnyPolicy) -> Vec<Finding>;

    /// What it says of a first packet.
    fn explain(&self, policy: &AnyPolicy, frame: &mut [u8], direction: Direction) -> Option<String>;

    /// What the files held that it was made of.
    fn files(&self, policy: &AnyPolicy) -> Vec<FileContent>;

    fn affinity(&self, policy: &AnyPolicy) -> Affinity;

    fn instance(&self, policy: &AnyPolicy, setup: &mut WorkerSetup) -> Result<Box<dyn NetworkFunction>, SetupError>;

    /// Whether instances adopt policies. Otherwise each new policy needs new instances.
    fn adopts(&self) -> bool;

    /// Hands an instance of this function a policy of this function.
    fn adopt(&self, instance: &mut dyn NetworkFunction, policy: &AnyPolicy);

    /// Builds what the policy needs of DPDK.
    fn build(&self, policy: &AnyPolicy, memory: &Memory) -> Result<(), SetupError>;

    /// Bytes for each instance.
    fn memory(&self, policy: &AnyPolicy) -> usize;

    /// What it takes packets for.
    fn addresses(&self, policy: &AnyPolicy) -> Vec<Prefix>;

    /// The key by which it has one of them.
    fn address_key(&self, policy: &AnyPolicy, address: IpAddr) -> String;

    /// What it is meant to stand inside of.
    fn inside_of(&self) -> &[&str];

    /// Where it sends packets.
    fn destinations(&self, policy: &AnyPolicy) -> Vec<Destination>;

    /// Whom it gives work to.
    fn backends(&self, policy: &AnyPolicy) -> Vec<BackendReport>;

    /// What it shows and lets be done.
    fn topics(&self) -> Vec<AnyTopic>;
}

impl<F: Function> AnyFunction for F {
    fn name(&self) -> &str {
        Function::name(self)
    }

    fn prepare(&self, file: &ConfigFile, running: Option<&AnyPolicy>) -> Result<AnyPolicy, ConfigError> {
        let config = file.section(Function::name(self))?;
        let policy = match running.and_then(|running| running.downcast_ref()) {
            Some(running) => self.replace(config, running),
            None => self.policy(config),
        };
        let wrong = |invalid: Invalid| file.error_at(Function::name(self), &invalid.key, invalid.message);
        Ok(Arc::new(policy.map_err(wrong)?))
    }

    fn tend(&self, running: &AnyPolicy) -> Option<AnyPolicy> {
        let next = Function::tend(self, running.downcast_ref()?)?;
        Some(Arc::new(next))
    }

    fn lint(&self, policy: &AnyPolicy) -> Vec<Finding> {
        policy.downcast_ref().map_or_else(Vec::new, |policy| Function::lint(self, policy))
    }

    fn explain(&self, policy: &AnyPolicy, frame: &mut [u8], direction: Direction) -> Option<String> {
        Function::explain(self, policy.downcast_ref()?, frame, direction)
    }

    fn files(&self, policy: &AnyPolicy) -> Vec<FileContent> {
        policy.downcast_ref().map_or_else(Vec::new, |policy| Function::files(self, policy))
    }

    fn affinity(&self, policy: &AnyPolicy) -> Affinity {
        policy.downcast_ref().map_or_else(Affinity::default, |policy| Function::affinity(self, policy))
    }

    fn instance(&self, policy: &AnyPolicy, setup: &mut WorkerSetup) -> Result<Box<dyn NetworkFunction>, SetupError> {
        let policy = Arc::clone(policy).downcast().map_err(|_| "the policy is another function's")?;
        Ok(Box::new(Function::instance(self, policy, setup)?))
    }

    fn adopts(&self) -> bool {
        true
    }

    fn adopt(&self, instance: &mut dyn NetworkFunction, policy: &AnyPolicy) {
        let instance: &mut dyn Any = instance;
        if let (Some(instance), Ok(policy)) = (instance.downcast_mut(), Arc::clone(policy).downcast()) {
            F::adopt(instance, policy);
        }
    }

    fn build(&self, policy: &AnyPolicy, memory: &Memory) -> Result<(), SetupError> {
        let policy = policy.downcast_ref().ok_or("the policy is another function's")?;
        Function::build(self, policy, memory)
    }

    fn memory(&self, policy: &AnyPolicy) -> usize {
        policy.downcast_ref().map_or(0, |policy| Function::memory(self, policy))
    }

    fn addresses(&self, policy: &AnyPolicy) -> Vec<Prefix> {
        policy.downcast_ref().map_or_else(Vec::new, |policy| Function::addresses(self, policy))
    }

    fn inside_of(&self) -> &[&str] {
        Function::inside_of(self)
    }

    fn backends(&self, policy: &AnyPolicy) -> Vec<BackendReport> {
        policy.downcast_ref().map_or_else(Vec::new, |policy| Function::backends(self, policy))
    }

    fn topics(&self) -> Vec<AnyTopic> {
        Function::topics(self).into_iter().map(Topic::without_type).collect()
    }

    fn destinations(&self, policy: &AnyPolicy) -> Vec<Destination> {
        policy.downcast_ref().map_or_else(Vec::new, |policy| Function::destinations(self, policy))
    }

    fn address_key(&self, policy: &AnyPolicy, address: IpAddr) -> String {
        policy.downcast_ref().map_or_else(String::new, |policy| Function::address_key(self, policy, address))
    }
}

/// A function with the policy that it starts with.
#[derive(Clone)]
pub struct Loaded {
    pub(crate) function: Arc<dyn AnyFunction>,
    pub(crate) policy: AnyPolicy,
    /// What the policy was made of.
    pub(crate) section: Table,
}

impl Loaded {
    /// Pairs a function with its first policy. A reload takes it as made from an empty table.
    pub fn new<F: Function>(function: F, policy: F::Policy) -> Self {
        Self { function: Arc::new(function), policy: Arc::new(policy), section: Table::new() }
    }
}

/// Builds what the policies of a chain need of DPDK.
pub(super) fn build(functions: &[Loaded], eal: &Eal) -> Result<(), RuntimeError> {
    for Loaded { function, policy, .. } in functions {
        let failed = |error| RuntimeError::Build { function: function.name().to_owned(), error };
        function.build(policy, &eal.memory()).map_err(failed)?;
    }
    Ok(())
}

/// Makes a worker's instances, on its lcore.
pub(super) fn chain(functions: &[Loaded], setup: &mut WorkerSetup) -> Result<Chain, RuntimeError> {
    let mut chain = Chain::new();
    for Loaded { function, policy, .. } in functions {
        function.name().clone_into(&mut setup.function);
        let worker = setup.index;
        let failed = |error| RuntimeError::Setup { function: function.name().to_owned(), worker, error };
        chain.push(function.name(), function.instance(policy, setup).map_err(failed)?);
    }
    Ok(chain)
}

/// What the functions of a chain need together.
pub(super) fn affinity(functions: &[Loaded]) -> Result<Affinity, AffinityConflict> {
    Affinity::compose(functions.iter().map(|loaded| (loaded.function.name(), loaded.function.affinity(&loaded.policy))))
}

/// How fragments are brought together, if a function of a chain that needs this cares about flows.
pub(super) fn fragments(config: &RuntimeConfig, affinity: Affinity) -> Option<FragmentsConfig> {
    (affinity != Affinity::Any).then_some(config.fragments)
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Loaded").field(&self.function.name()).finish()
    }
}
