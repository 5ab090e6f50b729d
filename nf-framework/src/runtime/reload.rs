//! New policies for a running program: all of a change or nothing, and one generation for
//! every packet.
//!
//! A reload goes through these steps, and any error before the last leaves the old policies
//! in force:
//!
//! 1. The framework's part of the file is validated. It must be what it was.
//! 2. Each function whose table has changed, or that has made its policy of files, prepares its new policy, on the
//!    control thread. If it finds the table and the files as they were, its policy stays.
//! 3. Functions whose instances cannot adopt have new ones made on every worker, which are
//!    kept beside the chain.
//! 4. One letter to each worker: between two bursts, with no packet on its way between
//!    functions, all of these functions change over.
//! 5. When every worker has answered, the old policies are freed, on the control thread.

use super::RuntimeConfig;
use super::configuration::{findings, unused, warn};
use super::control::Control;
use super::error::CommandError;
use super::in_force::InForce;
use super::loaded::{AnyFunction, AnyPolicy};
use super::routing::{NextRouter, check_addresses, ways_that_miss};
use crate::chain::Chain;
use crate::changes::{Change, Changes, Table, Value, table_of_typed};
use crate::config::{ConfigError, ConfigFile};
use crate::context::Context;
use crate::crash::panic_message;
use crate::function::{FileContent, Function, SetupError, WorkerSetup};
use crate::mailbox::{WorkerStopped, ask_all, tell_all};
use crate::router::{RouterConfig, RouterError, Tables};
use crate::steering::Affinity;
use crate::verdict::DropReason;
use std::any::{Any, TypeId};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

/// What a reload has done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reload {
    /// Nothing: the file asks for what is in force.
    Unchanged {
        /// The generation that stays.
        generation: u64,
        /// What is right in the file and of no use, as the log has it, with file and line.
        warnings: Vec<String>,
    },
    /// Every worker works by what the file says.
    Changed {
        /// The generation that is in force now.
        generation: u64,
        /// What is different.
        changes: Changes,
        /// What is right in the file and of no use, as the log has it, with file and line.
        warnings: Vec<String>,
    },
}

/// Why a reload was not carried out. All but the last leave the old policies in force.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// The file is wrong, or asks for what cannot change while the program runs.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A policy could not be prepared.
    #[error("the policy of {function} cannot be prepared: it panicked: {message}")]
    Panicked {
        /// The function.
        function: String,
        /// The panic's message.
        message: String,
    },
    /// A policy could not be built.
    #[error("the policy of {function} cannot be built: {error}")]
    Build {
        /// The function.
        function: String,
        /// What it said.
        error: SetupError,
    },
    /// The router's tables could not be built.
    #[error(transparent)]
    Router(RouterError),
    /// A new instance could not be made.
    #[error("function {function} cannot be set up on worker {worker}: {error}")]
    Setup {
        /// The function.
        function: String,
        /// Which worker.
        worker: usize,
        /// What it said.
        error: SetupError,
    },
    /// A worker did not take part while nothing was published yet.
    #[error(transparent)]
    NotStaged(WorkerStopped),
    /// The new generation is published, and a worker does not say that it has it.
    #[error("generation {generation} is published, but {source}")]
    Unanswered {
        /// The new generation.
        generation: u64,
        /// Which worker.
        source: WorkerStopped,
    },
}

/// A policy that is about to be a function's.
#[derive(Clone)]
struct Next {
    index: usize,
    function: Arc<dyn AnyFunction>,
    policy: AnyPolicy,
}

impl Control {
    /// Which generation of policies is in force: 1 at the start, and one more with each
    /// [`publish`](Self::publish) and each reload that changes something.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.get()
    }

    /// Makes what a file says the program's configuration, or nothing of it: any error but
    /// [`ReloadError::Unanswered`] leaves the old rules in force. A function whose table, and whose
    /// [files](Function::files), say what they said is not touched, and if that is so of all, no worker
    /// hears of it. The result is logged.
    ///
    /// Packets go on meanwhile, each by one generation on its whole way through the chain. (One
    /// that a function holds goes on by what is in force when it is let go.)
    ///
    /// # Errors
    ///
    /// [`ReloadError`].
    pub fn reload(&self, file: &ConfigFile) -> Result<Reload, ReloadError> {
        self.note(self.take_over(file))
    }

    /// As [`reload`](Self::reload), from a file that is still to be read.
    ///
    /// # Errors
    ///
    /// [`ReloadError`]; also when the file cannot be read or is not TOML.
    pub fn reload_from(&self, path: impl AsRef<Path>) -> Result<Reload, ReloadError> {
        self.note(ConfigFile::read(path).map_err(ReloadError::from).and_then(|file| self.take_over(&file)))
    }

    /// Hands a new policy to every instance of a function, each between two bursts, and
    /// returns when all have it. The old one is freed here, not on a worker. A reload leaves
    /// it in force as long as the function's table in the file, and its files, are the same.
    ///
    /// # Errors
    ///
    /// [`CommandError`] when there is no such function, its policy cannot be built or needs other
    /// packets on one worker than the running one, or a worker has stopped.
    pub fn publish<F: Function>(&self, name: &str, policy: Arc<F::Policy>) -> Result<(), CommandError> {
        let index = self.find(name)?;
        let function = self.in_force.borrow().get(index).map(|in_force| Arc::clone(&in_force.function));
        let function = function
            .filter(|function| {
                let function: &dyn Any = function.as_ref();
                function.type_id() == TypeId::of::<F>()
            })
            .ok_or_else(|| CommandError::NoSuchFunction(name.to_owned()))?;
        self.publish_next(Next { index, function, policy })
    }

    /// Asks each function whether its policy is to be another now, and publishes what it answers.
    /// [`App`](crate::App) does so all the time; a program that runs by [`Runtime`](crate::Runtime) calls
    /// it now and then.
    ///
    /// # Errors
    ///
    /// As of [`publish`](Self::publish); the other functions are asked next time.
    pub fn tend_functions(&self) -> Result<(), CommandError> {
        let functions = self.in_force.borrow().len();
        for index in 0..functions {
            let asked = self.in_force.borrow().get(index).and_then(|InForce { function, policies, .. }| {
                let policy = function.tend(policies.last()?)?;
                Some(Next { index, function: Arc::clone(function), policy })
            });
            asked.map_or(Ok(()), |next| self.publish_next(next))?;
        }
        Ok(())
    }

    fn publish_next(&self, next: Next) -> Result<(), CommandError> {
        let Next { index, function, policy } = &next;
        let name = || function.name().to_owned();
        let running = self.in_force.borrow().get(*index).and_then(|in_force| in_force.policies.last().cloned());
        let old = running.map_or(Affinity::Any, |running| function.affinity(&running));
        let new = function.affinity(policy);
        if old != new {
            return Err(CommandError::Affinity { function: name(), old, new });
        }
        let failed = |error| CommandError::Build { function: name(), error };
        self.build(function.as_ref(), policy).map_err(failed)?;
        let next = vec![next];
        let router = self.rebuild_router(None, &next)?;
        self.publish_all(next, router)?;
        Ok(())
    }

    /// Logs and counts what has become of a reload.
    fn note(&self, result: Result<Reload, ReloadError>) -> Result<Reload, ReloadError> {
        let mut reloads = self.reloads.get();
        *match &result {
            Ok(Reload::Unchanged { .. }) => &mut reloads.unchanged,
            Ok(Reload::Changed { .. }) => &mut reloads.changed,
            Err(ReloadError::Unanswered { .. }) => &mut reloads.unanswered,
            Err(_) => &mut reloads.refused,
        } += 1;
        reloads.succeeded = result.is_ok();
        if result.is_ok() {
            reloads.last_success = SystemTime::now();
        }
        self.reloads.set(reloads);
        match &result {
            Ok(Reload::Unchanged { generation, .. }) => {
                log::info!("nothing to reload, generation {generation} stays in force");
            }
            Ok(Reload::Changed { generation, changes, .. }) => {
                for line in changes.to_string().lines() {
                    log::info!("generation {generation}: {line}");
                }
            }
            Err(error @ ReloadError::Unanswered { .. }) => log::error!("{error}"),
            Err(error) => {
                log::error!("reload refused, generation {} stays in force: {error}", self.generation());
            }
        }
        result
    }

    fn take_over(&self, file: &ConfigFile) -> Result<Reload, ReloadError> {
        let config = self.known.framework(file)?;
        self.check_fixed(file, &config)?;
        let mut warnings = Vec::new();
        for function in self.known.unused(file, config.chain.as_deref().unwrap_or_default()) {
            warnings.push(or_panicked(function, || Ok(unused(file, function)?))?);
        }
        let (mut next, mut old, mut new) = (Vec::new(), Table::new(), Table::new());
        let mut of_files = Vec::new();
        for (index, InForce { function, section, policies }) in self.in_force.borrow().iter().enumerate() {
            let written = file.table(function.name());
            if let Some((policy, files)) =
                self.prepare(file, function.as_ref(), policies.last(), written == *section)?
            {
                next.push(Next { index, function: Arc::clone(function), policy });
                old.insert(function.name().to_owned(), Value::Table(section.clone()));
                new.insert(function.name().to_owned(), Value::Table(written));
                of_files.extend(files);
            }
        }
        for (index, InForce { function, policies, .. }) in self.in_force.borrow().iter().enumerate() {
            let next = next.iter().find(|next| next.index == index).map(|next| &next.policy);
            if let Some(policy) = next.or(policies.last()) {
                check_addresses(file, &config, function.as_ref(), policy)?;
                warnings.extend(ways_that_miss(file, &config, function.as_ref(), policy));
            }
        }
        for Next { function, policy, .. } in &next {
            warnings.extend(findings(file, function.as_ref(), policy));
        }
        // Also if it is refused in the end.
        warn(&warnings);
        let router = self.prepare_router(file, config.router.as_ref(), &next)?;
        if let (Some(routing), Some(written)) = (&self.routing, &config.router)
            && routing.borrow().config != *written
        {
            old.insert("router".to_owned(), Value::Table(table_of_typed(&routing.borrow().config)));
            new.insert("router".to_owned(), Value::Table(table_of_typed(written)));
        }
        if next.is_empty() && router.is_none() {
            return Ok(Reload::Unchanged { generation: self.generation(), warnings });
        }
        self.stage(&next)?;
        for Next { index, function, .. } in &next {
            if let Some(in_force) = self.in_force.borrow_mut().get_mut(*index) {
                in_force.section = file.table(function.name());
            }
        }
        let generation = self.publish_all(next, router).map_err(|source| {
            let generation = self.generation();
            ReloadError::Unanswered { generation, source }
        })?;
        let mut changes = Changes::between(&old, &new);
        changes.0.extend(of_files);
        Ok(Reload::Changed { generation, changes, warnings })
    }

    /// Whether what cannot change in a running program is what it was.
    fn check_fixed(&self, file: &ConfigFile, config: &RuntimeConfig) -> Result<(), ConfigError> {
        // Of the router what the owner of the neighbours was made with, and the ports to the kernel.
        let fixed_part = |config: &RuntimeConfig| {
            let router = config.router.clone().map(|mut router| {
                router.routes.clear();
                router.interfaces.retain(|_, interface| interface.host.is_some());
                for interface in router.interfaces.values_mut() {
                    (interface.vlan, interface.mtu) = (None, None);
                    interface.addresses.clear();
                }
                router
            });
            RuntimeConfig { router, ..config.clone() }
        };
        let (old, new) = (fixed_part(&self.config), fixed_part(config));
        if old == new {
            Ok(())
        } else {
            Err(fixed(file, &Changes::between(&table_of_typed(&old), &table_of_typed(&new))))
        }
    }

    /// What the routers need under a file's configuration and the functions' next policies.
    fn prepare_router(
        &self,
        file: &ConfigFile,
        config: Option<&RouterConfig>,
        next: &[Next],
    ) -> Result<Option<NextRouter>, ReloadError> {
        self.rebuild_router(config, next).map_err(|error| match error {
            RouterError::Invalid(invalid) => file.error_at("router", &invalid.key, invalid.message).into(),
            error @ RouterError::Memory(_) => ReloadError::Router(error),
        })
    }

    /// The same; `None` for the configuration that is in force.
    fn rebuild_router(&self, config: Option<&RouterConfig>, next: &[Next]) -> Result<Option<NextRouter>, RouterError> {
        let (Some(routing), Some(setup)) = (&self.routing, self.setups.first()) else { return Ok(None) };
        let routing = routing.borrow();
        let in_force = self.in_force.borrow();
        let addresses = in_force.iter().enumerate().flat_map(|(index, in_force)| {
            let next = next.iter().find(|next| next.index == index).map(|next| &next.policy);
            let policy = next.or(in_force.policies.last());
            policy.map_or_else(Vec::new, |policy| in_force.function.addresses(policy))
        });
        routing.prepare(config.unwrap_or(&routing.config), addresses.collect(), &setup.memory())
    }

    /// A function's next policy, whole, with what has changed in its files; none if nothing asks for another one.
    fn prepare(
        &self,
        file: &ConfigFile,
        function: &dyn AnyFunction,
        running: Option<&AnyPolicy>,
        same_table: bool,
    ) -> Result<Option<(AnyPolicy, Vec<Change>)>, ReloadError> {
        let before = running.map_or_else(Vec::new, |running| function.files(running));
        if same_table && before.is_empty() {
            return Ok(None);
        }
        or_panicked(function, || {
            let policy = function.prepare(file, running)?;
            let files = changed_files(function.name(), &before, &function.files(&policy));
            if same_table && files.is_empty() {
                return Ok(None);
            }
            running.map_or(Ok(()), |running| check_affinity(file, function, running, &policy))?;
            let name = || function.name().to_owned();
            self.build(function, &policy).map_err(|error| ReloadError::Build { function: name(), error })?;
            Ok(Some((policy, files)))
        })
    }

    fn build(&self, function: &dyn AnyFunction, policy: &AnyPolicy) -> Result<(), SetupError> {
        let setup = self.setups.first().ok_or("there is no worker")?;
        function.build(policy, &setup.memory())
    }

    /// Has new instances made on every worker, of the functions whose instances cannot adopt.
    fn stage(&self, next: &[Next]) -> Result<(), ReloadError> {
        let fresh: Vec<Next> = next.iter().filter(|next| !next.function.adopts()).cloned().collect();
        if fresh.is_empty() {
            return Ok(());
        }
        let (setups, names) = (Arc::clone(&self.setups), self.shared.functions.clone());
        let answers = ask_all(&self.shared.mailboxes, &self.shared.stop, move |worker, chain, _| {
            let setup = setups.get(worker).ok_or_else(|| (0, SetupError::from("the worker has no setup")))?;
            fresh.iter().try_for_each(|next| park(next, setup.clone(), chain).map_err(|error| (next.index, error)))
        });
        let staged = answers.map_err(ReloadError::NotStaged).and_then(|answers| {
            let failed = answers.into_iter().enumerate().find_map(|(worker, answer)| Some((worker, answer.err()?)));
            let Some((worker, (index, error))) = failed else { return Ok(()) };
            let function = names.get(index).cloned().unwrap_or_default();
            Err(ReloadError::Setup { function, worker, error })
        });
        if staged.is_err() {
            // A worker that is late comes to this after it has made its own.
            drop(tell_all(&self.shared.mailboxes, |_, chain, _| chain.discard_parked()));
        }
        staged
    }

    /// Makes policies a new generation and returns its number. They are in force from here on,
    /// also if a worker is late.
    fn publish_all(&self, next: Vec<Next>, router: Option<NextRouter>) -> Result<u64, WorkerStopped> {
        let generation = self.generation.get() + 1;
        self.generation.set(generation);
        let mut in_force = self.in_force.borrow_mut();
        for Next { index, policy, .. } in &next {
            if let Some(in_force) = in_force.get_mut(*index) {
                in_force.policies.push(Arc::clone(policy));
            }
        }
        let tables = router.as_ref().map(|router| Arc::clone(&router.tables));
        if let (Some(routing), Some(router)) = (&self.routing, router) {
            self.admit_vlans(&router.config);
            routing.borrow_mut().publish(router);
        }
        ask_all(&self.shared.mailboxes, &self.shared.stop, move |_, chain, cx| {
            change_over(generation, &next, tables.as_ref(), chain, cx)
        })?;
        // Letters are opened in their order, so earlier ones were answered too.
        for InForce { policies, .. } in in_force.iter_mut() {
            let superseded = policies.len().saturating_sub(1);
            policies.drain(..superseded);
        }
        if let Some(routing) = &self.routing {
            routing.borrow_mut().settle();
        }
        Ok(generation)
    }
}

/// What a function does on the control thread; if it panics, the control thread goes on.
fn or_panicked<R>(function: &dyn AnyFunction, act: impl FnOnce() -> Result<R, ReloadError>) -> Result<R, ReloadError> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|payload| {
        let (function, message) = (function.name().to_owned(), panic_message(payload.as_ref()));
        Err(ReloadError::Panicked { function, message })
    })
}

/// Which files hold something else now. That a file is named or no longer is, the table says.
fn changed_files(function: &str, before: &[FileContent], now: &[FileContent]) -> Vec<Change> {
    let change = |now: &FileContent| {
        let before = before.iter().find(|before| before.key == now.key)?;
        let new = if before.summary == now.summary { format!("{}, others", now.summary) } else { now.summary.clone() };
        let (section, key) = (Some(function.to_owned()), now.key.clone());
        let change = Change { section, key, old: Some(before.summary.clone()), new: Some(new) };
        (before.digest != now.digest).then_some(change)
    };
    now.iter().filter_map(change).collect()
}

/// On a worker: makes a new instance, for later.
fn park(next: &Next, mut setup: WorkerSetup, chain: &mut Chain) -> Result<(), SetupError> {
    next.function.name().clone_into(&mut setup.function);
    let made = catch_unwind(AssertUnwindSafe(|| next.function.instance(&next.policy, &mut setup)));
    let instance = made.map_err(|payload| format!("it panicked: {}", panic_message(payload.as_ref())))??;
    chain.park(next.index, instance);
    Ok(())
}

/// On a worker, between two bursts.
fn change_over(generation: u64, next: &[Next], tables: Option<&Arc<Tables>>, chain: &mut Chain, cx: &mut Context<'_>) {
    // All but what goes round for ever has arrived; it would meet both generations.
    cx.drop_pending(DropReason::RELOADED);
    for Next { index, function, policy } in next {
        chain.renew(*index, cx, |instance| function.adopt(instance, policy));
    }
    if let (Some(tables), Some(router)) = (tables, chain.router_mut()) {
        router.adopt(tables);
    }
    chain.standing.generation = generation;
    cx.counters.generation.store(generation, Ordering::Relaxed);
}

/// Which packets meet on one worker was settled at start: sessions are where they are.
fn check_affinity(
    file: &ConfigFile,
    function: &dyn AnyFunction,
    running: &AnyPolicy,
    next: &AnyPolicy,
) -> Result<(), ConfigError> {
    let (old, new) = (function.affinity(running), function.affinity(next));
    let message = || {
        format!("needs {new} on one worker in place of {old}, which cannot change in a running program (restart it)")
    };
    if old == new { Ok(()) } else { Err(file.error_at(function.name(), "", message())) }
}

/// The framework's part is not what it was.
fn fixed(file: &ConfigFile, changes: &Changes) -> ConfigError {
    let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
    match changes.0.as_slice() {
        [Change { section, key, old, new }, others @ ..] => {
            let others = match others.len() {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            let message = format!(
                "{} -> {} is a change that a running program cannot make (restart it){others}",
                value(old),
                value(new)
            );
            file.error_at(section.as_deref().unwrap_or_default(), key, message)
        }
        [] => file.error_at(
            "",
            "",
            "the framework's part is another, which a running program cannot change to (restart it)",
        ),
    }
}
