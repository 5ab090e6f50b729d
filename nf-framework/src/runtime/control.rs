//! A running program, as its control thread sees it.

use super::configuration::Functions;
use super::error::CommandError;
use super::in_force::InForce;
use super::life::{Life, Telling};
use super::routing::{Followed, InForceRouter, NextRouter};
use super::{RuntimeConfig, Shared};
use crate::context::Context;
use crate::function::{Function, WorkerSetup};
use crate::headers::MacAddress;
use crate::kernel::KernelError;
use crate::mailbox::ask_all;
use crate::neighbours::NeighbourTable;
use crate::operate::{Asked, Inbox, ReloadFacts};
use crate::report::Report;
use crate::trace::{Taps, Tracing};
use dpdk_rs::Port;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A running program, as its control thread sees it. It stays on that thread, so there is
/// one reload at a time.
///
/// ```compile_fail,E0277
/// fn reload_twice(control: &nf_framework::Control, file: &nf_framework::config::ConfigFile) {
///     std::thread::scope(|threads| {
///         threads.spawn(|| control.reload(file));
///     });
/// }
/// ```
#[derive(Debug)]
pub struct Control {
    pub(super) shared: Arc<Shared>,
    pub(super) ports: Vec<Port>,
    /// The framework's part, which does not change.
    pub(super) config: RuntimeConfig,
    pub(super) known: Functions,
    /// What new instances are made with, by worker.
    pub(super) setups: Arc<[WorkerSetup]>,
    /// By function.
    pub(super) in_force: RefCell<Vec<InForce>>,
    pub(super) routing: Option<RefCell<InForceRouter>>,
    pub(super) kernel: RefCell<Option<Followed>>,
    pub(super) generation: Cell<u64>,
    pub(super) reloads: Cell<ReloadFacts>,
    pub(super) draining: Cell<bool>,
    /// By port.
    pub(super) lives: RefCell<Vec<Life>>,
    pub(super) telling: Telling,
    /// What is asked by the admin door.
    pub(super) inbox: Option<Inbox>,
    /// A trace that somebody at the door waits for.
    pub(super) awaited: RefCell<Option<(Asked, Tracing)>>,
    /// From when packets that are dropped were first to be written.
    pub(super) taps: RefCell<Option<Taps>>,
}

impl Control {
    /// Whether the program is stopping: a worker has ended, or it was told to.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.shared.stop.load(Ordering::Relaxed)
    }

    /// The counters of all workers, added up now.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared.report(&self.ports, &self.lives.borrow())
    }

    /// How many workers there are, one on each lcore.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.shared.counters.len()
    }

    /// The ports, in the order of [`PortIx`](crate::PortIx): link, counters.
    #[must_use]
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Runs a command on every instance of a function, on its own worker and between two
    /// bursts, and returns the answers in the order of the workers. Packets wait meanwhile:
    /// a command looks at a bounded number of entries.
    ///
    /// # Errors
    ///
    /// [`CommandError`] when there is no such function, or a worker has stopped.
    pub fn command<F, R>(
        &self,
        name: &str,
        command: impl Fn(&mut F::Instance, &mut Context<'_>) -> R + Send + Sync + 'static,
    ) -> Result<Vec<R>, CommandError>
    where
        F: Function,
        R: Send + 'static,
    {
        let index = self.find(name)?;
        let answers = ask_all(&self.shared.mailboxes, &self.shared.stop, move |_, chain, cx| {
            chain.command(index, cx, |instance: &mut F::Instance, cx| command(instance, cx))
        })?;
        answers.into_iter().collect::<Option<_>>().ok_or_else(|| CommandError::NoSuchFunction(name.to_owned()))
    }

    /// The router's neighbours, by the number of their interface.
    #[must_use]
    pub fn neighbours(&self) -> Option<Arc<NeighbourTable>> {
        Some(self.routing.as_ref()?.borrow().neighbours())
    }

    /// The name of a router's interface.
    #[must_use]
    pub fn interface(&self, number: u16) -> Option<String> {
        self.routing.as_ref()?.borrow().interface(number)
    }

    /// Has the router announce all its addresses, and those of functions, again: gratuitous ARP and
    /// unsolicited neighbor advertisements. For when this program takes over from another one, whose
    /// MAC address the neighbours still know. Nothing happens without a router.
    ///
    /// # Errors
    ///
    /// When a worker has stopped.
    pub fn announce(&self) -> Result<(), CommandError> {
        ask_all(&self.shared.mailboxes, &self.shared.stop, |_, chain, cx| {
            if let Some(router) = chain.router_mut() {
                router.announce(cx.now());
            }
        })?;
        Ok(())
    }

    /// How often each worker has looked at its ports.
    pub(crate) fn rounds(&self) -> Vec<u64> {
        self.shared.counters.iter().map(|worker| worker.rounds.load(Ordering::Relaxed)).collect()
    }

    pub(super) fn find(&self, name: &str) -> Result<usize, CommandError> {
        let index = self.shared.functions.iter().position(|known| known == name);
        index.ok_or_else(|| CommandError::NoSuchFunction(name.to_owned()))
    }

    /// Makes the addresses and routes that the kernel has got on the router's links since the last
    /// call the router's own. [`App`](crate::App) does so all the time; a program that runs by
    /// [`Runtime`](crate::Runtime) calls it now and then.
    ///
    /// # Errors
    ///
    /// When there is no memory for the routes, or a worker has stopped.
    pub fn follow_kernel(&self) -> Result<(), CommandError> {
        let news = self.kernel.borrow().as_ref().and_then(Followed::news);
        let (Some(state), Some(routing), Some(setup)) = (news, &self.routing, self.setups.first()) else {
            return Ok(());
        };
        let next = routing.borrow().follow(state, &setup.memory())?;
        log::debug!("the kernel's addresses and routes have changed: {}", next.tables);
        self.adopt(routing, next)
    }

    /// Makes a port's MAC address that of the router's interfaces on it, and announces it.
    pub(super) fn change_mac_address(&self, port: usize, mac: MacAddress) -> Result<(), CommandError> {
        let (Some(routing), Some(setup)) = (&self.routing, self.setups.first()) else { return Ok(()) };
        let next = routing.borrow().with_mac_address(port, mac, &setup.memory())?;
        for host in next.hosts_on(port).filter_map(|host| self.ports.get(host)) {
            if let Err(error) = host.set_mac_address(mac.octets()) {
                log::error!("{error}");
            }
        }
        self.adopt(routing, next)?;
        self.announce()
    }

    /// Has every worker's router work by other tables.
    fn adopt(&self, routing: &RefCell<InForceRouter>, next: NextRouter) -> Result<(), CommandError> {
        let tables = Arc::clone(&next.tables);
        routing.borrow_mut().publish(next);
        ask_all(&self.shared.mailboxes, &self.shared.stop, move |_, chain, _| {
            if let Some(router) = chain.router_mut() {
                router.adopt(&tables);
            }
        })?;
        routing.borrow_mut().settle();
        Ok(())
    }

    /// Begins to follow the kernel, if the router has links to it.
    pub(super) fn begin_to_follow(&self) -> Result<(), KernelError> {
        let interfaces = self.routing.as_ref().map_or_else(Vec::new, |routing| routing.borrow().kernel_interfaces());
        if !interfaces.is_empty() {
            *self.kernel.borrow_mut() = Some(Followed::begin(interfaces)?);
        }
        Ok(())
    }

    pub(super) fn wait_until_ready(&self) -> bool {
        while self.shared.ready.load(Ordering::Acquire) < self.shared.counters.len() {
            if self.stopping() {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.shared.go.store(true, Ordering::Release);
        true
    }
}
