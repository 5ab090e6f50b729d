//! One DPDK for all tests of a process.

use crate::chain::Chain;
use crate::eal_arguments::floating_lcore;
use crate::function::WorkerSetup;
use crate::registry::Registry;
use crate::steering::{Affinity, Steering, connect};
use crate::testing::trial::Trial;
use dpdk_rs::{Eal, Mempool, MempoolConfig, RssTableSize};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::RefCell;
use std::fmt::Write as _;
use std::io::Write as _;
use std::num::NonZero;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Packets in the tests' pool.
const PACKETS: u32 = 4095;

/// What a test works with: the process's DPDK and a pool that is as full again when it ends.
#[derive(Debug)]
pub struct Lab<'a> {
    /// The process's only one.
    pub eal: &'a Eal,
    /// The pool of [`Lab::trial`].
    pub pool: &'a Mempool,
}

impl Lab<'_> {
    /// A chain made by `make`, to be given packets; it forwards like [`Wire`](crate::Wire).
    pub fn trial(&self, make: impl FnOnce(&mut WorkerSetup) -> Chain) -> Trial {
        let registry: Arc<Registry> = Arc::default();
        let chain = make(&mut self.setup((0, 1), &registry, None));
        Trial::new(vec![(chain, None)], self.pool.clone(), registry)
    }

    /// The same chain on several workers, for functions that need what `affinity` says (take what
    /// the function itself says): *every* packet that has an owner arrives at another worker and is
    /// handed over to it, and one that has none arrives anywhere. (A fragment arrives where its
    /// addresses say, and goes to the owner of its flow.) What comes out must be what comes out of
    /// one worker ([with fragments](Trial::with_fragments)), but for the order of different flows.
    /// With [`Affinity::Any`] nothing is handed over, and packets arrive at the workers in turn.
    ///
    /// # Panics
    ///
    /// With less than two workers.
    pub fn trial_at_wrong_workers(
        &self,
        workers: u16,
        affinity: Affinity,
        mut make: impl FnMut(&mut WorkerSetup) -> Chain,
    ) -> Trial {
        assert!(workers > 1, "with one worker there is no wrong one");
        static TRIALS: AtomicU32 = AtomicU32::new(0);
        let (registry, count) = (Arc::default(), usize::from(workers));
        let size = RssTableSize::new(128).expect("a power of two");
        let some = NonZero::new(workers).expect("not zero");
        let steering = Steering::new(affinity, some, size, 1).expect("blocks of ports that are not too large");
        let steering = Arc::new(steering);
        let name = format!("trial-{}", TRIALS.fetch_add(1, Ordering::Relaxed));
        let links = connect(self.eal, &name, count, (true, true), &[]).expect("memory for rings");
        let lane = |(index, links)| {
            let steering = Some(&steering).filter(|_| affinity != Affinity::Any);
            let chain = make(&mut self.setup((index, count), &registry, steering));
            (chain, Some((steering.cloned(), links)))
        };
        let lanes = links.into_iter().enumerate().map(lane).collect();
        Trial::new(lanes, self.pool.clone(), registry)
    }

    fn setup(
        &self,
        (index, workers): (usize, usize),
        registry: &Arc<Registry>,
        steering: Option<&Arc<Steering>>,
    ) -> WorkerSetup {
        WorkerSetup {
            index,
            workers,
            lcore: None,
            function: "test".to_owned(),
            pool: self.pool.clone(),
            registry: Arc::clone(registry),
            steering: steering.cloned(),
            offline: false,
        }
    }
}

type Job = Box<dyn FnOnce(&Lab<'_>) + Send>;

/// Runs a test on the process's DPDK, one test at a time, and fails if it leaves a packet
/// out of the pool.
///
/// # Panics
///
/// When the test does, when a packet leaked, or when DPDK does not start.
pub fn lab<T: Send + 'static>(test: impl FnOnce(&Lab<'_>) -> T + Send + 'static) -> T {
    let (answer, answers) = channel();
    let job: Job = Box::new(move |lab| {
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            // One that an earlier test leaked is not this one's.
            let before = lab.pool.available();
            let value = test(lab);
            let out = before.saturating_sub(lab.pool.available());
            assert_eq!(out, 0, "the test leaked {out} packet(s)");
            value
        }));
        let said = said();
        // The receiver waits below; it cannot be gone.
        let _ = answer.send(result.map_err(|payload| (payload, said)));
    });
    let sent = jobs().lock().unwrap_or_else(PoisonError::into_inner).send(job);
    let result = sent.map_err(drop).and_then(|()| answers.recv().map_err(drop));
    let Ok(result) = result else {
        // The thread has ended, and said why before.
        panic!("DPDK did not start for the tests: {}", NOT_STARTED.get().map_or("it is gone", String::as_str));
    };
    result.unwrap_or_else(|(payload, said)| {
        let _ = write!(std::io::stderr(), "{said}");
        panic::resume_unwind(payload)
    })
}

/// Why there is no DPDK.
static NOT_STARTED: OnceLock<String> = OnceLock::new();

thread_local! {
    /// On the lab's thread: what the last panic said.
    static SAID: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps what a panic on this thread says, for the test to say on its own thread: what a
/// test's harness shows of a failure is what its own thread has written.
fn keep_what_panics_say() {
    SAID.set(Some(String::new()));
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let kept = SAID.with_borrow_mut(|said| {
            let said = said.as_mut()?;
            let _ = writeln!(said, "the test {info}");
            let backtrace = Backtrace::capture();
            if backtrace.status() == BacktraceStatus::Captured {
                let _ = writeln!(said, "{backtrace}");
            }
            Some(())
        });
        if kept.is_none() {
            usual(info);
        }
    }));
}

fn said() -> String {
    SAID.with_borrow_mut(|said| said.as_mut().map(std::mem::take)).unwrap_or_default()
}

/// The thread that the EAL stays on; it ends with the process.
fn jobs() -> &'static Mutex<Sender<Job>> {
    static JOBS: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    JOBS.get_or_init(|| {
        let (sender, receiver) = channel::<Job>();
        std::thread::spawn(move || {
            if let Err(error) = run_jobs(&receiver) {
                // Before the receiver goes, so that whoever finds it gone finds this.
                let _ = NOT_STARTED.set(error.to_string());
            }
        });
        Mutex::new(sender)
    })
}

fn run_jobs(jobs: &Receiver<Job>) -> Result<(), Box<dyn std::error::Error>> {
    let (eal, _) = Eal::init(eal_arguments())?;
    let pool = Mempool::new(&eal, "lab", MempoolConfig { size: PACKETS, ..MempoolConfig::default() })?;
    keep_what_panics_say();
    jobs.iter().for_each(|job| job(&Lab { eal: &eal, pool: &pool }));
    Ok(())
}

fn eal_arguments() -> Vec<String> {
    let given = std::env::var("NF_TEST_EAL");
    let given = given.as_deref().unwrap_or("--no-huge --no-shconf --no-telemetry --no-pci -m 128");
    // Not pinned: many test processes share the CPUs.
    let floating = floating_lcore();
    let level = "--log-level=error".to_owned();
    ["test".to_owned(), floating, level].into_iter().chain(given.split_whitespace().map(str::to_owned)).collect()
}
