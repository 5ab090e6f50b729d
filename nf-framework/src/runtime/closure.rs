//! A function whose instances a closure makes from the configuration.

use super::loaded::{AnyFunction, AnyPolicy};
use crate::classifier::Prefix;
use crate::config::{ConfigError, ConfigFile};
use crate::direction::Direction;
use crate::function::{Destination, FileContent, Finding, NetworkFunction, SetupError, WorkerSetup};
use crate::operate::topics::AnyTopic;
use crate::report::BackendReport;
use crate::steering::Affinity;
use dpdk_rs::Memory;
use serde::de::DeserializeOwned;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

/// Its instances cannot adopt: a reload makes new ones.
pub(super) struct FromClosure<C, M> {
    name: &'static str,
    affinity: Affinity,
    make: M,
    config: PhantomData<fn() -> C>,
}

impl<C, M> FromClosure<C, M> {
    pub(super) fn new(name: &'static str, affinity: Affinity, make: M) -> Self {
        Self { name, affinity, make, config: PhantomData }
    }
}

impl<C, I, M> AnyFunction for FromClosure<C, M>
where
    C: DeserializeOwned + Send + Sync + 'static,
    I: NetworkFunction,
    M: Fn(&C, &mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        self.name
    }

    fn prepare(&self, file: &ConfigFile, _: Option<&AnyPolicy>) -> Result<AnyPolicy, ConfigError> {
        Ok(Arc::new(file.section::<C>(self.name)?))
    }

    fn tend(&self, _: &AnyPolicy) -> Option<AnyPolicy> {
        None
    }

    fn lint(&self, _: &AnyPolicy) -> Vec<Finding> {
        Vec::new()
    }

    fn explain(&self, _: &AnyPolicy, _: &mut [u8], _: Direction) -> Option<String> {
        None
    }

    fn files(&self, _: &AnyPolicy) -> Vec<FileContent> {
        Vec::new()
    }

    fn instance(&self, policy: &AnyPolicy, setup: &mut WorkerSetup) -> Result<Box<dyn NetworkFunction>, SetupError> {
        let config = policy.downcast_ref().ok_or("the configuration is another function's")?;
        Ok(Box::new((self.make)(config, setup)?))
    }

    fn adopts(&self) -> bool {
        false
    }

    fn affinity(&self, _: &AnyPolicy) -> Affinity {
        self.affinity
    }

    fn adopt(&self, _: &mut dyn NetworkFunction, _: &AnyPolicy) {}

    fn build(&self, _: &AnyPolicy, _: &Memory) -> Result<(), SetupError> {
        Ok(())
    }

    fn addresses(&self, _: &AnyPolicy) -> Vec<Prefix> {
        Vec::new()
    }

    fn address_key(&self, _: &AnyPolicy, _: IpAddr) -> String {
        String::new()
    }

    fn inside_of(&self) -> &[&str] {
        &[]
    }

    fn destinations(&self, _: &AnyPolicy) -> Vec<Destination> {
        Vec::new()
    }

    fn memory(&self, _: &AnyPolicy) -> usize {
        0
    }

    fn backends(&self, _: &AnyPolicy) -> Vec<BackendReport> {
        Vec::new()
    }

    fn topics(&self) -> Vec<AnyTopic> {
        Vec::new()
    }
}
