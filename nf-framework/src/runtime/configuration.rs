//! A configuration that is read and validated as a whole.

use super::closure::FromClosure;
use super::loaded::{AnyFunction, AnyPolicy, Loaded};
use super::routing::{check_addresses, warn_of_silence, ways_that_miss};
use super::{ForwardingKind, RuntimeConfig};
use crate::config::{ConfigError, ConfigFile};
use crate::function::{Finding, Function, NetworkFunction, SetupError, WorkerSetup};
use crate::idle::Idle;
use crate::steering::Affinity;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// The functions that a program knows: a configuration's `chain` names some of them.
#[derive(Clone, Default)]
pub struct Functions(Vec<Arc<dyn AnyFunction>>);

impl Functions {
    /// None.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// And this one.
    #[must_use]
    pub fn with(mut self, function: impl Function) -> Self {
        self.0.push(Arc::new(function));
        self
    }

    /// And one whose instances a closure makes; see [`App::run`](crate::App::run).
    #[must_use]
    pub fn with_closure<C, I>(
        mut self,
        name: &'static str,
        affinity: Affinity,
        make: impl Fn(&C, &mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
    ) -> Self
    where
        C: DeserializeOwned + Send + Sync + 'static,
        I: NetworkFunction,
    {
        self.0.push(Arc::new(FromClosure::new(name, affinity, make)));
        self
    }

    /// Those of a program that knows no others.
    pub(super) fn of(loaded: &[Loaded]) -> Self {
        Self(loaded.iter().map(|loaded| Arc::clone(&loaded.function)).collect())
    }

    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|function| function.name()).collect()
    }

    fn find(&self, name: &str) -> Option<&Arc<dyn AnyFunction>> {
        self.0.iter().find(|function| function.name() == name)
    }

    /// Those that a file has a table of and its chain does not name.
    pub(super) fn unused<'a>(
        &'a self,
        file: &'a ConfigFile,
        chain: &'a [String],
    ) -> impl Iterator<Item = &'a dyn AnyFunction> {
        let unused = |function: &&dyn AnyFunction| {
            file.has(function.name()) && !chain.iter().any(|named| named == function.name())
        };
        self.0.iter().map(AsRef::as_ref).filter(unused)
    }

    /// The framework's part of a file, validated, with its chain named.
    pub(super) fn framework(&self, file: &ConfigFile) -> Result<RuntimeConfig, ConfigError> {
        let names = self.names();
        if !file.has("ports") {
            let message = "missing table (add it, with the EAL's names of ports: inside = \"...\", outside = \"...\")";
            return Err(file.error_at("ports", "", message));
        }
        let config: RuntimeConfig = file.framework(&names)?;
        if !(1..=dpdk_rs::Burst::CAPACITY).contains(&config.burst) {
            return Err(file.error_at(
                "",
                "burst",
                format!("{} is not from 1 to {}", config.burst, dpdk_rs::Burst::CAPACITY),
            ));
        }
        if config.ports.outside.as_ref() == Some(&config.ports.inside) {
            let message = "the same port as inside (leave outside away for a program with one port)";
            return Err(file.error_at("ports", "outside", message));
        }
        if config.ports.descriptors == Some(0) {
            return Err(file.error_at("ports", "descriptors", "a queue needs at least one"));
        }
        let wants_router = config.forwarding == Some(ForwardingKind::Router);
        match &config.router {
            None if wants_router => {
                return Err(file.error_at("", "forwarding", "a router needs a table [router] with its interfaces"));
            }
            Some(_) if !wants_router => {
                return Err(file.error_at("router", "", "this table is for forwarding = \"router\""));
            }
            Some(router) => router
                .validate(config.ports.outside.is_none())
                .map_err(|invalid| file.error_at("router", &invalid.key, invalid.message))?,
            None => {}
        }
        if let Some((key, why)) = config.fragments.fault() {
            return Err(file.error_at("fragments", key, why));
        }
        if let Some((key, why)) = config.admin.fault() {
            return Err(file.error_at("admin", key, why));
        }
        let known = names.join(", ");
        let chain = match config.chain {
            Some(chain) => chain,
            None if names.len() == 1 => vec![names.concat()],
            None => {
                let message = format!("missing key (list the functions from inside to outside; known: {known})");
                return Err(file.error_at("", "chain", message));
            }
        };
        for (index, name) in chain.iter().enumerate() {
            let at = |message: String| file.error_at("", &format!("chain[{index}]"), message);
            if self.find(name).is_none() {
                return Err(at(format!("there is no function {name:?} (known: {known})")));
            }
            if chain.iter().take(index).any(|earlier| earlier == name) {
                return Err(at(format!("the function {name:?} is in the chain twice (name it once)")));
            }
        }
        Ok(RuntimeConfig { chain: Some(chain), ..config })
    }
}

impl std::fmt::Debug for Functions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Functions").field(&self.names()).finish()
    }
}

/// A configuration that was read and validated as a whole: the framework's part, and every
/// function of the chain with its first policy.
#[derive(Clone, Debug)]
pub struct Configuration {
    pub(crate) runtime: RuntimeConfig,
    /// From inside to outside.
    pub(super) functions: Vec<Loaded>,
    pub(super) known: Functions,
    pub(super) idle: Idle,
}

/// Validates the table of a function that the chain does not name, and says that it is not in use: who wrote it may
/// believe that it is.
pub(super) fn unused(file: &ConfigFile, function: &dyn AnyFunction) -> Result<String, ConfigError> {
    function.prepare(file, None)?;
    let message = "this table is not in use: the chain does not name it";
    Ok(file.error_at(function.name(), "", message).to_string())
}

/// What a function finds in its table that who wrote it should know.
pub(super) fn findings(file: &ConfigFile, function: &dyn AnyFunction, policy: &AnyPolicy) -> Vec<String> {
    let said = |Finding { key, message }| file.error_at(function.name(), &key, message).to_string();
    function.lint(policy).into_iter().map(said).collect()
}

/// Into the log.
pub(super) fn warn(warnings: &[String]) {
    warnings.iter().for_each(|warning| log::warn!("{warning}"));
}

impl Configuration {
    /// Makes one from a file. Nothing is started, and nothing of the machine is looked at. The table of a function
    /// that the chain does not name is validated too, and a warning says that it is not in use.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its line.
    pub fn load(file: &ConfigFile, known: &Functions) -> Result<Self, ConfigError> {
        let runtime = known.framework(file)?;
        let named = runtime.chain.iter().flatten().filter_map(|name| known.find(name));
        let load = |function: &Arc<dyn AnyFunction>| {
            let policy = function.prepare(file, None)?;
            check_addresses(file, &runtime, function.as_ref(), &policy)?;
            warn_of_silence(&runtime, function.as_ref(), &policy);
            warn(&ways_that_miss(file, &runtime, function.as_ref(), &policy));
            warn(&findings(file, function.as_ref(), &policy));
            Ok(Loaded { function: Arc::clone(function), policy, section: file.table(function.name()) })
        };
        let functions = named.map(load).collect::<Result<_, ConfigError>>()?;
        let chain = runtime.chain.as_deref().unwrap_or_default();
        for (index, name) in chain.iter().enumerate() {
            let function = known.find(name).map(AsRef::as_ref);
            let inside_of = function.map_or(&[][..], AnyFunction::inside_of);
            if let Some(before) = chain.iter().take(index).find(|before| inside_of.contains(&before.as_str())) {
                let message = format!("{name:?} is meant to stand inside of {before:?}: name it before that one");
                log::warn!("{}", file.error_at("", &format!("chain[{index}]"), message));
            }
        }
        for function in known.unused(file, chain) {
            warn(&[unused(file, function)?]);
        }
        Ok(Self { runtime, functions, known: known.clone(), idle: Idle::default() })
    }

    /// What workers do while nothing comes, which no file says.
    #[must_use]
    pub fn idle(self, idle: Idle) -> Self {
        Self { idle, ..self }
    }

    /// The framework's part.
    #[must_use]
    pub fn runtime(&self) -> &RuntimeConfig {
        &self.runtime
    }
}
