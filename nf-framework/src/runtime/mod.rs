//! Brings a program up and down: ports, pool, a worker on every lcore, and a control thread
//! beside them.

mod ask;
mod check;
mod closure;
mod config;
mod configuration;
mod control;
mod course;
mod drain;
mod error;
mod in_force;
mod life;
mod loaded;
mod needs;
mod offline;
mod ports;
mod reload;
mod routing;
mod serve;
mod tend;
mod tracing;

pub use check::Check;
pub use config::{ForwardingKind, PortsConfig, RuntimeConfig, SteeringKind};
pub use configuration::{Configuration, Functions};
pub use control::Control;
pub use drain::{Drained, InUse};
pub use error::{CommandError, RuntimeError};
pub use loaded::Loaded;
pub(crate) use offline::Portless;
pub use reload::{Reload, ReloadError};
pub use serve::{AdminOrder, ReloadOrder};
pub use tend::RebuildError;

use crate::counters::{WorkerCounters, bump};
use crate::crash::in_hand::Outermost;
use crate::crash::{CrashReports, panic_message};
use crate::direction::Direction;
use crate::forwarding::{Forwarding, Wire};
use crate::fragments::{Fragments, FragmentsConfig};
use crate::function::WorkerSetup;
use crate::idle::Idle;
use crate::mailbox::Mailbox;
use crate::operate::{self, AdminDoor, Health, Inbox, Pulse, ReloadFacts};
use crate::partial_checksums;
use crate::registry::Registry;
use crate::report::{DropReport, Report, all_drops};
use crate::steering::{Links, Sorter, Steering, connect};
use crate::token_bucket::TokenBucket;
use crate::verdict::{DropReason, PortIx};
use crate::worker::{Pipeline, Worker};
use crate::worker_port::{Role, WorkerPort};
use dpdk_rs::{Clock, Eal, HashKey, Lcore, Mempool, Port, QueuePair};
use in_force::InForce;
use life::{Life, Telling};
use needs::Needs;
use ports::{PortPlan, StartedPort};
use routing::{InForceRouter, Routing};
use std::cell::{Cell, RefCell};
use std::num::NonZero;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What workers, control thread and the thread that started them have in common.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    go: AtomicBool,
    ready: AtomicUsize,
    failures: Mutex<Vec<RuntimeError>>,
    registry: Arc<Registry>,
    counters: Vec<Arc<WorkerCounters>>,
    mailboxes: Vec<Arc<Mailbox>>,
    functions: Vec<String>,
    cycles_per_second: u64,
}

/// A program that is ready to run: its ports are started.
#[derive(Debug)]
pub struct Runtime<'eal> {
    eal: &'eal Eal,
    config: RuntimeConfig,
    functions: Vec<Loaded>,
    /// Those that a reload may name, beside the ones of the chain.
    known: Functions,
    pool: Mempool,
    ports: Vec<Port>,
    /// By worker.
    seats: Vec<Seat>,
    steering: Option<Arc<Steering>>,
    routing: Option<Arc<Routing>>,
    /// Where a function cares about flows.
    fragments: Option<FragmentsConfig>,
    /// Whether the device of each end brings packets to their owners.
    trusted: [bool; 2],
    lcores: Vec<Lcore>,
    shared: Arc<Shared>,
    around: Around,
    idle: Idle,
    crash_reports: Option<CrashReports>,
    lives: Vec<Life>,
    telling: Telling,
    door: Option<AdminDoor>,
}

/// What stands around the forwarding on every worker, made there.
type Wrap = dyn Fn(Box<dyn Forwarding>) -> Box<dyn Forwarding> + Send + Sync;

#[derive(Clone, Default)]
struct Around(Option<Arc<Wrap>>);

impl std::fmt::Debug for Around {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Around").field(&self.0.is_some()).finish()
    }
}

/// What a worker has to itself.
#[derive(Debug)]
struct Seat {
    /// By port; `None` where the port has fewer queues than there are workers.
    queues: Vec<Option<QueuePair>>,
    links: Links,
}

impl<'eal> Runtime<'eal> {
    /// As [`Runtime::new`], of a configuration that was loaded as a whole. A program that is
    /// to be [reloaded](Control::reload) is made this way.
    ///
    /// # Errors
    ///
    /// [`RuntimeError`]; what was started is stopped again.
    pub fn configured(eal: &'eal Eal, configuration: Configuration) -> Result<Self, RuntimeError> {
        let Configuration { runtime, functions, known, idle } = configuration;
        Ok(Self { known, ..Self::with_idle(eal, &runtime, functions, idle)? })
    }

    /// Makes the pool and starts the ports, with a queue pair for each lcore.
    ///
    /// # Errors
    ///
    /// [`RuntimeError`]; what was started is stopped again.
    pub fn new(eal: &'eal Eal, config: &RuntimeConfig, functions: Vec<Loaded>) -> Result<Self, RuntimeError> {
        Self::with_idle(eal, config, functions, Idle::default())
    }

    /// As [`Runtime::new`], of workers that do this while nothing comes.
    ///
    /// # Errors
    ///
    /// [`RuntimeError`]; what was started is stopped again.
    pub fn with_idle(
        eal: &'eal Eal,
        config: &RuntimeConfig,
        functions: Vec<Loaded>,
        idle: Idle,
    ) -> Result<Self, RuntimeError> {
        if !(1..=dpdk_rs::Burst::CAPACITY).contains(&config.burst) {
            return Err(RuntimeError::Burst(config.burst));
        }
        if config.ports.descriptors == Some(0) {
            return Err(RuntimeError::NoDescriptors);
        }
        if let Some((key, why)) = config.fragments.fault() {
            return Err(RuntimeError::Fragments { key, why });
        }
        let name_of = |loaded: &Loaded| loaded.function.name().to_owned();
        let names: Vec<String> = functions.iter().map(name_of).collect();
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|n| n == *name)) {
            return Err(RuntimeError::TwoFunctions(twice.1.clone()));
        }
        let lcores = eal.lcores();
        let workers = workers_of(eal);
        let affinity = loaded::affinity(&functions)?;
        let plan = PortPlan::new(eal, config, workers, affinity)?;
        let needs = Needs::new(config, &functions, workers, Some(&plan), eal.has_hugepages());
        needs.check_packets()?;
        loaded::build(&functions, eal)?;
        // A program's second runtime gets a pool of its own: a device may still hold packets
        // of the first one's.
        static RUNTIMES: AtomicU32 = AtomicU32::new(0);
        let number = RUNTIMES.fetch_add(1, Ordering::Relaxed);
        let pool = Mempool::new(eal, &format!("packets-{number}"), needs.pool)?;
        let started = plan.start(eal, &config.ports, &pool, workers, idle)?;
        let name = format!("links-{number}");
        let routed = config.forwarding == Some(ForwardingKind::Router);
        let links = connect(eal, &name, lcores.len(), (plan.steering.is_some(), routed), &plan.queues())?;
        let mut seats: Vec<Seat> = links.into_iter().map(|links| Seat { queues: Vec::new(), links }).collect();
        let (mut ports, mut trusted) = (Vec::new(), [false; 2]);
        for (place, StartedPort { port, queues, trusted: of_port }) in started.into_iter().enumerate() {
            ports.push(port);
            if let Some(trusted) = trusted.get_mut(place).filter(|_| place < plan.sides) {
                *trusted = of_port;
            }
            let mut queues = queues.into_iter();
            seats.iter_mut().for_each(|seat| seat.queues.push(queues.next()));
        }
        let routing = Routing::new(config, &functions, &ports, plan.sides, &eal.memory())?.map(Arc::new);
        let lives = ports.iter().zip(&plan.ports).map(|(port, plan)| Life::new(port, plan)).collect();
        let shared = Shared {
            stop: AtomicBool::new(false),
            go: AtomicBool::new(false),
            ready: AtomicUsize::new(0),
            failures: Mutex::default(),
            registry: Arc::default(),
            counters: lcores.iter().map(|_| Arc::new(WorkerCounters::new(ports.len(), names.len()))).collect(),
            mailboxes: lcores.iter().map(|_| Arc::new(Mailbox::new())).collect(),
            functions: names.clone(),
            cycles_per_second: Clock::new(eal).hertz(),
        };
        let config = RuntimeConfig { chain: Some(names), ..config.clone() };
        let known = Functions::of(&functions);
        let (steering, shared) = (plan.steering, Arc::new(shared));
        let (sides, kind) = (plan.sides, config.ports.steering);
        let telling = Telling { steering: steering.clone(), sides, kind, workers };
        let fragments = loaded::fragments(&config, affinity);
        Ok(Self {
            eal,
            config,
            functions,
            known,
            pool,
            ports,
            seats,
            steering,
            routing,
            fragments,
            trusted,
            lcores,
            shared,
            around: Around::default(),
            idle,
            crash_reports: None,
            lives,
            telling,
            door: None,
        })
    }

    /// Puts something around what forwards, made by `wrap` on every worker: where a benchmark
    /// writes the next headers into packets that leave. A router in it is not reloaded.
    #[must_use]
    pub fn around(mut self, wrap: impl Fn(Box<dyn Forwarding>) -> Box<dyn Forwarding> + Send + Sync + 'static) -> Self {
        self.around = Around(Some(Arc::new(wrap)));
        self
    }

    /// Where it is written down what is known when a worker panics; unless this is called, nowhere. The place that a
    /// panic comes from is known only in a program that [`App`](crate::App) runs.
    #[must_use]
    pub fn crash_reports(self, reports: CrashReports) -> Self {
        Self { crash_reports: Some(reports), ..self }
    }

    /// Has the program be looked at and told what to do by this door, as long as it runs: `control` has to call
    /// [`Control::serve`] again and again.
    #[must_use]
    pub fn admin(self, door: AdminDoor) -> Self {
        Self { door: Some(door), ..self }
    }

    /// Runs the workers, and `control` beside them on an ordinary thread; when it returns,
    /// or a worker ends, everything stops. Returns what `control` returned and the final
    /// counters.
    ///
    /// # Errors
    ///
    /// [`RuntimeError::Setup`] and [`RuntimeError::WorkerPanicked`] among others.
    ///
    /// # Panics
    ///
    /// When `control` panics.
    pub fn run<T: Send>(self, control: impl FnOnce(&Control) -> T + Send) -> Result<(T, Report), RuntimeError> {
        let Self {
            eal,
            config,
            functions,
            known,
            pool,
            ports,
            seats,
            steering,
            routing,
            fragments,
            trusted,
            lcores,
            shared,
            around,
            idle,
            crash_reports,
            lives,
            telling,
            door,
        } = self;
        let (server, inbox) = door.map_or((None, None), |AdminDoor { server, inbox, desk }| {
            operate::offer(eal, &desk);
            (server, Some(inbox))
        });
        let (forwarding, burst) = (config.forwarding, config.burst);
        let sides = 1 + usize::from(config.ports.outside.is_some());
        let come_by = |port: &Port| port.info().is_ok_and(|info| partial_checksums::come_by(&info.driver));
        let partial_checksums: Vec<bool> = ports.iter().map(come_by).collect();
        let clock = Clock::new(eal);
        let in_force = RefCell::new(functions.iter().map(InForce::new).collect());
        let setup = |(index, lcore): (usize, &Lcore)| WorkerSetup {
            index,
            workers: lcores.len(),
            lcore: Some(*lcore),
            function: String::new(),
            pool: pool.clone(),
            registry: Arc::clone(&shared.registry),
            steering: steering.clone(),
            offline: false,
        };
        let setups: Arc<[WorkerSetup]> = lcores.iter().enumerate().map(setup).collect();
        let health = shared.health(inbox.as_ref());
        let (control_end, worker_ends) = eal.scope(|scope| {
            let door = server.map(|server| scope.background("admin", move || server.run(&health)));
            if let Some(Err(error)) = &door {
                log::error!("the admin door is not served: {error}");
            }
            let controller = {
                let (shared, setups) = (Arc::clone(&shared), Arc::clone(&setups));
                let routing = routing.as_ref().map(InForceRouter::new);
                scope.control("control", move || {
                    let control_shared = Arc::clone(&shared);
                    let _stop = StopAtEnd(&control_shared.stop);
                    let (generation, draining) = (Cell::new(1), Cell::new(false));
                    let routing = routing.map(RefCell::new);
                    let kernel = RefCell::new(None);
                    let handle = Control {
                        shared,
                        ports,
                        config,
                        known,
                        setups,
                        in_force,
                        routing,
                        kernel,
                        generation,
                        reloads: Cell::new(ReloadFacts::begin()),
                        draining,
                        lives: RefCell::new(lives),
                        telling,
                        inbox,
                        awaited: RefCell::new(None),
                        taps: RefCell::new(None),
                    };
                    let value = match handle.begin_to_follow() {
                        Ok(()) => handle.wait_until_ready().then(|| control(&handle)),
                        Err(error) => {
                            handle.shared.fail(error.into());
                            None
                        }
                    };
                    (value, handle.ports, handle.in_force, handle.lives.into_inner())
                })
            };
            if controller.is_err() {
                // Nobody would tell the workers to begin, or to stop.
                shared.stop.store(true, Ordering::Relaxed);
            }
            let mut joins = Vec::new();
            for ((lcore, setup), seat) in lcores.iter().copied().zip(setups.iter()).zip(seats) {
                let functions = functions.clone();
                let routing = routing.clone();
                let partial_checksums = partial_checksums.clone();
                let plan = Plan {
                    setup: setup.clone(),
                    functions,
                    forwarding,
                    routing,
                    fragments,
                    partial_checksums,
                    sides,
                    burst,
                    clock,
                    seat,
                    trusted,
                    around: around.clone(),
                    idle,
                };
                let worker_shared = Arc::clone(&shared);
                match scope.launch(lcore, move || work(plan, &worker_shared)) {
                    Ok(join) => joins.push(join),
                    Err(error) => {
                        shared.stop.store(true, Ordering::Relaxed);
                        shared.fail(error.into());
                    }
                }
            }
            drop(functions);
            // The main lcore is the first: it works while it is waited for, and the others meanwhile.
            let ends: Vec<_> = joins.into_iter().map(dpdk_rs::LcoreJoin::join).collect();
            let control_end = controller.map(dpdk_rs::ControlJoin::join);
            // Control has closed it. Whatever became of it, the program has forwarded.
            if let Some(Ok(Err(_))) = door.map(|door| door.map(dpdk_rs::ControlJoin::join)) {
                log::error!("the admin door was not served to the end: it panicked");
            }
            (control_end, ends)
        });
        for (worker, end) in worker_ends.iter().enumerate() {
            if let Err(payload) = end {
                shared.fail(RuntimeError::WorkerPanicked { worker, message: panic_message(payload.as_ref()) });
            }
        }
        shared.count_lost_between_workers();
        // The policies go here, after every worker has let them go.
        let (value, ports, _in_force, lives) = control_end?.unwrap_or_else(|payload| panic::resume_unwind(payload));
        let report = shared.report(&ports, &lives);
        for (worker, payload) in
            worker_ends.iter().enumerate().filter_map(|(worker, end)| Some((worker, end.as_ref().err()?)))
        {
            if let (Some(reports), Some(counters)) = (&crash_reports, shared.counters.get(worker)) {
                let (message, scene) = (panic_message(payload.as_ref()), counters.scene.get());
                reports.write(worker, &message, scene.map(Box::as_ref), &shared.functions, &report);
            }
        }
        let of_workers = worker_ends.into_iter().flatten().flatten();
        let mut queues: Vec<QueuePair> = of_workers.chain(lives.iter().flat_map(Life::queues)).collect();
        let failure = shared.failures.lock().unwrap_or_else(PoisonError::into_inner).drain(..).next();
        for port in ports {
            let (of_port, others) = queues.into_iter().partition(|pair| pair.port() == port.id());
            queues = others;
            // A worker that failed has taken its queues with it; the port goes with the last one.
            if let Err(error) = port.stop(of_port)
                && failure.is_none()
            {
                return Err(error.into());
            }
        }
        match (failure, value) {
            (None, Some(value)) => Ok((value, report)),
            (Some(failure), _) => Err(failure),
            (None, None) => Err(RuntimeError::NotReady),
        }
    }
}

/// What a worker needs to begin.
struct Plan {
    setup: WorkerSetup,
    functions: Vec<Loaded>,
    forwarding: Option<ForwardingKind>,
    routing: Option<Arc<Routing>>,
    fragments: Option<FragmentsConfig>,
    /// By port: whether its packets' checksums may be partial.
    partial_checksums: Vec<bool>,
    /// How many of the ports are ends of the chain.
    sides: usize,
    burst: usize,
    clock: Clock,
    seat: Seat,
    trusted: [bool; 2],
    around: Around,
    idle: Idle,
}

/// A worker's life, on its lcore. Returns its queues.
fn work(plan: Plan, shared: &Shared) -> Vec<QueuePair> {
    let _stop = StopAtEnd(&shared.stop);
    let _outermost = shared.counters.get(plan.setup.index).map(|counters| Outermost(&counters.scene));
    let Plan {
        mut setup,
        functions,
        forwarding,
        routing,
        fragments,
        partial_checksums,
        sides,
        burst,
        clock,
        seat,
        trusted,
        around,
        idle,
    } = plan;
    let Seat { queues, links } = seat;
    let mut chain = match loaded::chain(&functions, &mut setup) {
        Ok(chain) => chain,
        Err(error) => {
            shared.fail(error);
            return queues.into_iter().flatten().collect();
        }
    };
    // The control thread is the one that keeps policies, so that it is the one that frees them.
    drop(functions);
    let (Some(counters), Some(mailbox)) = (shared.counters.get(setup.index), shared.mailboxes.get(setup.index)) else {
        return queues.into_iter().flatten().collect();
    };
    let Links { to_owner, as_owner, to_sender, as_sender, to_first, as_first } = links;
    chain.forwarding = match (forwarding, &routing) {
        (Some(ForwardingKind::Wire), _) => Some(Box::new(Wire)),
        (Some(ForwardingKind::Router), Some(routing)) => {
            Some(Box::new(routing.router(setup.index, to_first, setup.next_hops(), chain.len())))
        }
        _ => None,
    };
    let errors = routing.as_ref().map(|routing| TokenBucket::of_errors(routing.icmp_errors_per_second()));
    if let Some(wrap) = &around.0 {
        chain.forwarding = chain.forwarding.map(|forwarding| wrap(forwarding));
    }
    let last = if sides > 1 { PortIx(1) } else { PortIx(0) };
    let mut pipeline = Pipeline::new(chain, (PortIx(0), last), setup.pool.clone(), Arc::clone(counters));
    pipeline.errors = errors;
    pipeline.fragments = fragments.map(|config| {
        let mut fragments = Fragments::new(&config, HashKey::random());
        fragments.show(&mut setup);
        fragments
    });
    pipeline.sorter = setup.steering.map(|steering| Sorter::new(steering, setup.index, to_owner, trusted));
    let of_sides = [Direction::Outbound, Direction::Inbound].map(Role::Side).into_iter().take(sides);
    let hosts = (0..).map(PortIx).skip(sides).map(Role::Host);
    let ports = queues.into_iter().zip(to_sender).zip(of_sides.chain(hosts));
    let ports = ports.zip(partial_checksums).map(|(((queues, to_sender), role), partial_checksums)| WorkerPort {
        queues,
        to_sender,
        role,
        partial_checksums,
        refused: 0,
    });
    let worker =
        Worker::new(pipeline, ports.collect(), (as_owner, as_first, as_sender), burst, clock, Arc::clone(mailbox));

    shared.ready.fetch_add(1, Ordering::AcqRel);
    while !shared.go.load(Ordering::Acquire) && !shared.stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(1));
    }
    worker.run(idle, &shared.stop)
}

/// Stops all when one ends, however it ends.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn fail(&self, error: RuntimeError) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }

    /// Drops, as far as counters go, what was in the rings between workers when they ended.
    fn count_lost_between_workers(&self) {
        let sum = |of: fn(&WorkerCounters) -> &AtomicU64| {
            self.counters.iter().map(|worker| of(worker).load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
        };
        let left = sum(|worker| &worker.handed_over).wrapping_sub(sum(|worker| &worker.taken_over));
        if let Some(first) = self.counters.first() {
            bump(&first.drops[DropReason::STOPPED.index()], left);
            bump(&first.taken_over, left);
        }
    }

    /// What tells from outside whether all goes on.
    fn health(self: &Arc<Self>, inbox: Option<&Inbox>) -> Health {
        let (shared, turns) = (Arc::clone(self), inbox.map(Inbox::turns).unwrap_or_default());
        Health::new(move || Pulse {
            runs: shared.go.load(Ordering::Relaxed),
            stopping: shared.stop.load(Ordering::Relaxed),
            control: turns.load(Ordering::Relaxed),
            workers: shared.counters.iter().map(|worker| worker.rounds.load(Ordering::Relaxed)).collect(),
        })
    }

    /// What one worker has counted; of ports nothing.
    fn report_of(&self, worker: usize) -> Report {
        let of = self.counters.get(worker..=worker).unwrap_or_default();
        let mut report = Report::new(&[], &self.functions, of, &self.registry);
        report.rest.packets = report.workers.iter().map(|worker| worker.received).sum();
        report.cycles_per_second = self.cycles_per_second;
        report
    }

    fn drops(&self) -> Vec<DropReport> {
        all_drops(&self.counters, &self.registry)
    }

    fn report(&self, ports: &[Port], lives: &[Life]) -> Report {
        let mut report = Report::new(ports, &self.functions, &self.counters, &self.registry);
        report.cycles_per_second = self.cycles_per_second;
        report.ports.iter_mut().zip(lives).for_each(|(port, life)| life.write(port));
        report
    }
}

/// One for each lcore.
fn workers_of(eal: &Eal) -> NonZero<u16> {
    u16::try_from(eal.lcores().len()).ok().and_then(NonZero::new).unwrap_or(NonZero::<u16>::MIN)
}
