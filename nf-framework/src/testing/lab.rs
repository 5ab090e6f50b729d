//! One DPDK for all tests of a process.

use crate::chain::Chain;
use crate::function::{Registry, WorkerSetup};
use crate::testing::trial::Trial;
use dpdk_rs::{Eal, Mempool, MempoolConfig};
use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// Packets in the tests' pool.
const PACKETS: u32 = 4095;

/// What a test works with: the process's DPDK and a pool that is full again when it ends.
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
        let mut setup = WorkerSetup {
            index: 0,
            workers: 1,
            lcore: None,
            function: "test".to_owned(),
            pool: self.pool.clone(),
            registry: Arc::clone(&registry),
        };
        let chain = make(&mut setup);
        Trial::new(chain, self.pool.clone(), registry)
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
            let value = test(lab);
            let out = PACKETS - lab.pool.available();
            assert_eq!(out, 0, "the test leaked {out} packet(s)");
            value
        }));
        // The receiver waits below; it cannot be gone.
        let _ = answer.send(result);
    });
    let sent = jobs().lock().unwrap_or_else(PoisonError::into_inner).send(job);
    let failed: Box<dyn Any + Send> = Box::new("DPDK did not start for the tests; see above");
    let result = sent.map_err(drop).and_then(|()| answers.recv().map_err(drop));
    result.unwrap_or(Err(failed)).unwrap_or_else(|payload| panic::resume_unwind(payload))
}

/// The thread that the EAL stays on; it ends with the process.
fn jobs() -> &'static Mutex<Sender<Job>> {
    static JOBS: OnceLock<Mutex<Sender<Job>>> = OnceLock::new();
    JOBS.get_or_init(|| {
        let (sender, receiver) = channel::<Job>();
        std::thread::spawn(move || match Eal::init(eal_arguments()) {
            Ok((eal, _)) => {
                let config = MempoolConfig { size: PACKETS, ..MempoolConfig::default() };
                match Mempool::new(&eal, "lab", config) {
                    Ok(pool) => receiver.iter().for_each(|job| job(&Lab { eal: &eal, pool: &pool })),
                    Err(error) => eprintln!("{error}"),
                }
            }
            Err(error) => eprintln!("{error}"),
        });
        Mutex::new(sender)
    })
}

fn eal_arguments() -> Vec<String> {
    let given = std::env::var("NF_TEST_EAL");
    let given = given.as_deref().unwrap_or("--no-huge --no-shconf --no-telemetry --no-pci -m 128");
    // Not pinned: many test processes share the CPUs.
    let floating = format!("--lcores=0@({})", allowed_cpus());
    let level = "--log-level=error".to_owned();
    ["test".to_owned(), floating, level].into_iter().chain(given.split_whitespace().map(str::to_owned)).collect()
}

/// The CPUs that this process may run on, as a list.
fn allowed_cpus() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.map_or("0", str::trim).to_owned()
}
