//! Polling threads: closures on lcores, joined before the scope that launched them ends.

use crate::{Eal, Errno};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_uint, c_void};
use std::marker::PhantomData;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::{fmt, io};

/// An EAL lcore: a thread that is pinned to the CPUs which `-l` or `--lcores` gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Lcore(u32);

impl Lcore {
    /// The lcore's number, as on the command line.
    #[must_use]
    pub fn id(self) -> u32 {
        self.0
    }

    /// NUMA node of its CPU, for memory close to it.
    #[must_use]
    pub fn socket(self) -> u32 {
        // SAFETY: an `Lcore` comes from `lcores`, so its id is below RTE_MAX_LCORE.
        unsafe { dpdk_sys::rte_lcore_to_socket_id(self.0) }
    }

    /// The CPU that it is pinned to; `None` if it may use several.
    #[must_use]
    pub fn cpu(self) -> Option<u32> {
        let mut cpus = self.cpus();
        let cpu = cpus.next()?;
        cpus.next().is_none().then_some(cpu)
    }

    /// The CPUs that it may use.
    fn cpus(self) -> impl Iterator<Item = u32> {
        // SAFETY: an `Lcore` comes from `lcores`, so its id is below RTE_MAX_LCORE; the EAL has set it up.
        (0..CPUS).filter(move |cpu| unsafe { dpdk_sys::shim_lcore_has_cpu(self.0, *cpu) })
    }
}

impl fmt::Display for Lcore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lcore {}", self.0)
    }
}

pub(crate) fn lcores(_eal: &Eal) -> Vec<Lcore> {
    // SAFETY: the EAL is up.
    let main = unsafe { dpdk_sys::rte_get_main_lcore() };
    let mut lcores = vec![Lcore(main)];
    let mut id = c_uint::MAX;
    loop {
        // SAFETY: the EAL is up; with skip_main and without wrap it counts up to RTE_MAX_LCORE.
        id = unsafe { dpdk_sys::rte_get_next_lcore(id, 1, 0) };
        if id >= dpdk_sys::RTE_MAX_LCORE {
            return lcores;
        }
        lcores.push(Lcore(id));
    }
}

/// Why a closure was not launched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaunchError {
    /// It runs something else already.
    #[error("{0} is busy with what was launched on it before")]
    Busy(Lcore),
    /// DPDK refused.
    #[error("{lcore} cannot be launched: {errno}")]
    Refused {
        /// Which.
        lcore: Lcore,
        /// Why.
        errno: Errno,
    },
}

/// CPUs that a set of CPUs has room for.
const CPUS: u32 = libc::CPU_SETSIZE.cast_unsigned();
/// The nice value of what leaves a CPU to all others (setpriority(2)).
const NICEST: i32 = 19;

/// CPUs that a thread may run on.
#[derive(Clone, Copy)]
pub(crate) struct Affinity(libc::cpu_set_t);

impl Affinity {
    /// Of the calling thread.
    pub(crate) fn current() -> Self {
        // SAFETY: a cpu_set_t is an array of bits, for which zero is a value.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` is ours and of the size given; thread 0 is the caller.
        let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        if result != 0 {
            log::warn!("CPU affinity unknown: {}", std::io::Error::last_os_error());
        }
        Self(set)
    }

    /// Those of these that no lcore uses; `None` if there are none.
    fn beside(mut self, lcores: &[Lcore]) -> Option<Self> {
        for cpu in lcores.iter().flat_map(|lcore| lcore.cpus()) {
            // SAFETY: the set is ours, and `cpu` below CPU_SETSIZE.
            unsafe { libc::CPU_CLR(cpu as usize, &mut self.0) };
        }
        // SAFETY: the set is only read.
        let left = unsafe { libc::CPU_COUNT(&self.0) };
        (left > 0).then_some(self)
    }

    fn apply(&self) {
        // SAFETY: as above, and only read.
        let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const self.0) };
        if result != 0 {
            log::warn!("CPU affinity not restored: {}", std::io::Error::last_os_error());
        }
    }
}

impl fmt::Debug for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Affinity(..)")
    }
}

/// What a launched closure left: its value, or the payload of its panic.
type Outcome<T> = Arc<Mutex<Option<thread::Result<T>>>>;
/// A closure without its type, ready to run. It catches its own panics.
type Job<'scope> = Box<dyn FnOnce() + Send + 'scope>;
/// The main lcore's job, waiting for the scope's closure to return.
type MainJob<'scope> = Rc<RefCell<Option<Job<'scope>>>>;
/// The worker lcores that closures were launched on, in order.
type Launches = Rc<RefCell<Vec<Lcore>>>;
/// Takes the panic of a closure that nobody joined.
type PanicOf<'scope> = Box<dyn FnOnce() -> Option<Box<dyn Any + Send>> + 'scope>;

/// Launches closures on lcores and control threads; see [`Eal::scope`].
///
/// Launching belongs to the main lcore, so a scope does not go to another thread:
///
/// ```compile_fail,E0277
/// # use dpdk_rs::{Eal, Lcore};
/// fn elsewhere(eal: &Eal, lcore: Lcore) {
///     eal.scope(|scope| {
///         let _ = scope.control("control", || scope.launch(lcore, || ()).is_ok());
///     });
/// }
/// ```
///
/// Pools, ports and scopes are made on the main lcore, so a closure has no use for the EAL:
///
/// ```compile_fail,E0277
/// # use dpdk_rs::{Eal, Lcore};
/// fn on_an_lcore(eal: &Eal, lcore: Lcore) {
///     eal.scope(|scope| {
///         let _ = scope.launch(lcore, || eal.ports().count());
///     });
/// }
/// ```
pub struct Scope<'scope, 'env: 'scope> {
    threads: &'scope thread::Scope<'scope, 'env>,
    /// Of control threads.
    affinity: Affinity,
    /// Whether the lcores leave them no CPU.
    crowded: bool,
    main: Lcore,
    main_job: MainJob<'scope>,
    launches: Launches,
    panics: RefCell<Vec<PanicOf<'scope>>>,
    /// Launching and waiting belong to the main lcore: neither `Send` nor `Sync`.
    _main_thread: PhantomData<*const ()>,
}

impl fmt::Debug for Scope<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("launches", &self.launches).finish_non_exhaustive()
    }
}

impl Eal {
    /// Runs `f`, which may launch closures on lcores, and returns when all of them have
    /// returned. The closures may borrow what lives outside of the scope.
    ///
    /// A closure launched on the main lcore runs on this thread after `f` has returned, or
    /// when it is joined: with `-l 0` the main lcore is the one that polls. What must run
    /// beside it goes to a thread of its own, by [`Scope::control`].
    ///
    /// # Panics
    ///
    /// When `f` panics, or a closure that nobody joined.
    pub fn scope<'env, F, R>(&self, f: F) -> R
    where
        F: for<'scope> FnOnce(&Scope<'scope, 'env>) -> R,
    {
        thread::scope(|threads| {
            let lcores = lcores(self);
            let beside = self.affinity().beside(&lcores);
            let scope = Scope {
                threads,
                affinity: beside.unwrap_or(*self.affinity()),
                crowded: beside.is_none(),
                main: lcores[0],
                main_job: MainJob::default(),
                launches: Launches::default(),
                panics: RefCell::default(),
                _main_thread: PhantomData,
            };
            // Lcores are waited for before the borrows of their closures end, also on panic.
            let wait_for_all = WaitForAll { launches: &scope.launches, open: self.scopes() };
            self.scopes().set(self.scopes().get() + 1);
            let result = f(&scope);
            run_main_job(&scope.main_job);
            drop(wait_for_all);
            for panic_of in scope.panics.take() {
                if let Some(payload) = panic_of() {
                    panic::resume_unwind(payload);
                }
            }
            result
        })
    }
}

impl<'scope> Scope<'scope, '_> {
    /// Runs `f` on an lcore of [`Eal::lcores`].
    ///
    /// # Errors
    ///
    /// [`LaunchError::Busy`] if the lcore runs something already.
    pub fn launch<F, T>(&self, lcore: Lcore, f: F) -> Result<LcoreJoin<'scope, T>, LaunchError>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let outcome: Outcome<T> = Outcome::default();
        let left = Arc::clone(&outcome);
        let job: Job<'scope> = Box::new(move || {
            let result = panic::catch_unwind(AssertUnwindSafe(f));
            *left.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        });
        let place = if lcore == self.main {
            let mut waiting = self.main_job.borrow_mut();
            if waiting.is_some() {
                return Err(LaunchError::Busy(lcore));
            }
            *waiting = Some(job);
            Place::Main(Rc::clone(&self.main_job))
        } else {
            remote_launch(lcore, job)?;
            let mut launches = self.launches.borrow_mut();
            launches.push(lcore);
            Place::Worker { launches: Rc::clone(&self.launches), later: launches.len() }
        };
        let unjoined = Arc::clone(&outcome);
        self.panics.borrow_mut().push(Box::new(move || {
            unjoined.lock().unwrap_or_else(PoisonError::into_inner).take().and_then(Result::err)
        }));
        Ok(LcoreJoin { lcore, place, outcome })
    }

    /// Runs `f` on an ordinary thread with the CPU affinity from before the EAL pinned the
    /// main lcore, without the CPUs of the lcores if that leaves any, and unknown to the EAL: for
    /// signals, configuration, counters.
    ///
    /// # Errors
    ///
    /// What the operating system says when it has no thread left.
    pub fn control<F, T>(&self, name: &str, f: F) -> io::Result<ControlJoin<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let affinity = self.affinity;
        thread::Builder::new()
            .name(name.to_owned())
            .spawn_scoped(self.threads, move || {
                affinity.apply();
                f()
            })
            .map(ControlJoin)
    }

    /// As [`control`](Self::control), for what strangers can make work: where the lcores leave no CPU to
    /// it, it gets what they do not need (nice 19), some 1.5 % of one that polls.
    ///
    /// # Errors
    ///
    /// What the operating system says when it has no thread left.
    pub fn background<F, T>(&self, name: &str, f: F) -> io::Result<ControlJoin<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let crowded = self.crowded;
        self.control(name, move || {
            if crowded {
                // SAFETY: it takes numbers; thread 0 is the caller, which alone it changes on Linux (setpriority(2)).
                let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICEST) };
                if result != 0 {
                    log::debug!("a thread's priority stays as it is: {}", std::io::Error::last_os_error());
                }
            }
            f()
        })
    }
}

/// Where a closure runs.
enum Place<'scope> {
    /// On the main lcore, when it is waited for.
    Main(MainJob<'scope>),
    /// On a worker lcore. Launches from `later` on came after it.
    Worker { launches: Launches, later: usize },
}

/// Waits for a closure on an lcore.
pub struct LcoreJoin<'scope, T> {
    lcore: Lcore,
    place: Place<'scope>,
    outcome: Outcome<T>,
}

impl<T> fmt::Debug for LcoreJoin<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LcoreJoin").field("lcore", &self.lcore).finish_non_exhaustive()
    }
}

impl<T> LcoreJoin<'_, T> {
    /// The closure's value.
    ///
    /// # Errors
    ///
    /// The payload of its panic, as from [`std::thread::JoinHandle::join`].
    pub fn join(self) -> thread::Result<T> {
        match &self.place {
            Place::Main(job) => run_main_job(job),
            // It has returned if another could be launched after it; that one is not waited for.
            Place::Worker { launches, later } if launches.borrow().iter().skip(*later).any(|l| *l == self.lcore) => {}
            Place::Worker { .. } => wait(self.lcore),
        }
        let outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
        outcome.unwrap_or_else(|| Err(Box::new("the lcore's closure did not run")))
    }
}

/// Waits for a control thread.
#[derive(Debug)]
pub struct ControlJoin<'scope, T>(thread::ScopedJoinHandle<'scope, T>);

impl<T> ControlJoin<'_, T> {
    /// The closure's value.
    ///
    /// # Errors
    ///
    /// The payload of its panic.
    pub fn join(self) -> thread::Result<T> {
        self.0.join()
    }
}

struct WaitForAll<'a> {
    launches: &'a RefCell<Vec<Lcore>>,
    open: &'a Cell<u32>,
}

impl Drop for WaitForAll<'_> {
    fn drop(&mut self) {
        for lcore in self.launches.take() {
            wait(lcore);
        }
        self.open.set(self.open.get() - 1);
    }
}

fn run_main_job(job: &RefCell<Option<Job<'_>>>) {
    let job = job.borrow_mut().take();
    if let Some(job) = job {
        job();
    }
}

fn wait(lcore: Lcore) {
    // SAFETY: a worker lcore's id, on the main lcore (`Scope` and `LcoreJoin` are not
    // `Send`); returns at once if nothing is running there.
    unsafe { dpdk_sys::rte_eal_wait_lcore(lcore.0) };
}

/// Hands the job to a worker lcore; the caller waits for it before 'scope ends.
fn remote_launch<'scope>(lcore: Lcore, job: Job<'scope>) -> Result<(), LaunchError> {
    let job: *mut Job<'scope> = Box::into_raw(Box::new(job));
    // SAFETY: `run` takes exactly this pointer. Its borrows are alive until the lcore has been
    // waited for, which `WaitForAll` does before 'scope ends. On the main lcore, as above.
    let code = unsafe { dpdk_sys::rte_eal_remote_launch(Some(run), job.cast::<c_void>(), lcore.0) };
    match Errno::check(code) {
        Ok(_) => Ok(()),
        Err(errno) => {
            // SAFETY: the launch failed, so the pointer is still ours alone.
            drop(unsafe { Box::from_raw(job) });
            Err(if errno.0 == libc::EBUSY { LaunchError::Busy(lcore) } else { LaunchError::Refused { lcore, errno } })
        }
    }
}

/// What the EAL calls on the lcore. Nothing unwinds into it: jobs catch their panics.
unsafe extern "C" fn run(job: *mut c_void) -> c_int {
    // SAFETY: `remote_launch` gave this pointer away, once.
    let job = unsafe { Box::from_raw(job.cast::<Job<'_>>()) };
    job();
    0
}
