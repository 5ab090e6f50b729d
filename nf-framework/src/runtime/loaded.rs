//! Functions without their types, so that a chain can be named in a file.

use crate::config::{ConfigError, ConfigFile};
use crate::function::{Function, NetworkFunction, SetupError, WorkerSetup};
use crate::steering::Affinity;
use std::any::Any;
use std::sync::Arc;

/// A function's policy without its type.
pub(crate) type AnyPolicy = Arc<dyn Any + Send + Sync>;

/// A [`Function`] without its types, so that a chain can be named in a file.
pub(crate) trait AnyFunction: Send + Sync {
    fn name(&self) -> &str;
    fn prepare(&self, file: &ConfigFile) -> Result<AnyPolicy, ConfigError>;
    fn affinity(&self, policy: &AnyPolicy) -> Affinity;
    fn instance(&self, policy: &AnyPolicy, setup: &mut WorkerSetup) -> Result<Box<dyn NetworkFunction>, SetupError>;
}

impl<F: Function> AnyFunction for F {
    fn name(&self) -> &str {
        Function::name(self)
    }

    fn prepare(&self, file: &ConfigFile) -> Result<AnyPolicy, ConfigError> {
        let config = file.section(Function::name(self))?;
        let policy = self
            .policy(config)
            .map_err(|invalid| file.error_at(Function::name(self), &invalid.key, invalid.message))?;
        Ok(Arc::new(policy))
    }

    fn affinity(&self, policy: &AnyPolicy) -> Affinity {
        policy.downcast_ref().map_or_else(Affinity::default, |policy| Function::affinity(self, policy))
    }

    fn instance(&self, policy: &AnyPolicy, setup: &mut WorkerSetup) -> Result<Box<dyn NetworkFunction>, SetupError> {
        let policy = Arc::clone(policy).downcast().map_err(|_| "the policy is another function's")?;
        Ok(Box::new(Function::instance(self, policy, setup)?))
    }
}

/// A function with the policy that it starts with.
#[derive(Clone)]
pub struct Loaded {
    pub(crate) function: Arc<dyn AnyFunction>,
    pub(crate) policy: AnyPolicy,
}

impl Loaded {
    /// Pairs a function with its first policy.
    pub fn new<F: Function>(function: F, policy: F::Policy) -> Self {
        Self { function: Arc::new(function), policy: Arc::new(policy) }
    }

    pub(super) fn affinity(&self) -> Affinity {
        self.function.affinity(&self.policy)
    }
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Loaded").field(&self.function.name()).finish()
    }
}
