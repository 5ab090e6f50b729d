//! Our side: an EAL with pairs of devices, the bare loop, and the whole worker as a program
//! runs it.

use crate::machine::{Memory, forwarding_cpus};
use crate::measure::{lcores_cpu_time, own_cpu_time};
use crate::results::Sample;
use crate::testpmd::{CACHE, DESCRIPTORS, MBUFS};
use anyhow::{Context as _, ensure};
use dpdk_rs::{Burst, Eal, Mempool, MempoolConfig, Port, PortBuilder, QueuePair};
use nf_framework::{
    AdminConfig, Affinity, Control, ForwardingKind, FragmentsConfig, Function, Invalid, Loaded, NetworkFunction,
    PortsConfig, Report, Runtime, RuntimeConfig, SetupError, SteeringKind, WorkerSetup,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Two devices, and their numbers in testpmd.
#[derive(Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) names: [&'static str; 2],
    pub(crate) numbers: [u16; 2],
}

/// Takes each packet from the pool and puts it back; nobody looks at its bytes.
pub(crate) const NULL: Pair = Pair { names: ["net_null0", "net_null1"], numbers: [0, 1] };
/// Each receives what was sent to it: packets circulate and the pool is not touched.
pub(crate) const RING: Pair = Pair { names: ["net_ring0", "net_ring1"], numbers: [2, 3] };

/// The devices of both sides, in the order of their numbers.
pub(crate) fn devices() -> Vec<&'static str> {
    [NULL.names, RING.names].concat()
}

pub(crate) fn start_eal(memory: Memory, lcores: usize) -> anyhow::Result<Eal> {
    let lcores = (0..).zip(forwarding_cpus().into_iter().take(lcores));
    let lcores: Vec<String> = lcores.map(|(lcore, cpu): (usize, _)| format!("{lcore}@{cpu}")).collect();
    let devices = devices().into_iter().map(|device| format!("--vdev={device}"));
    let arguments = ["bench".to_owned(), format!("--lcores={}", lcores.join(","))];
    let (eal, _) = Eal::init(arguments.into_iter().chain(memory.eal_arguments()).chain(devices))?;
    Ok(eal)
}

/// A port of two, with its queues.
pub(crate) type Open = (Port, Vec<QueuePair>);

pub(crate) fn start_ports(eal: &Eal, pair: Pair, pool: &Mempool, queues: u16) -> anyhow::Result<[Open; 2]> {
    start_ports_as(eal, pair, |port| port.queues(queues).pool(pool))
}

pub(crate) fn start_ports_as<'a>(
    eal: &'a Eal,
    pair: Pair,
    with: impl Fn(PortBuilder<'a>) -> PortBuilder<'a>,
) -> anyhow::Result<[Open; 2]> {
    let start = |name| -> anyhow::Result<Open> {
        let id = eal.port_by_name(name).with_context(|| format!("no port {name}"))?;
        Ok(with(PortBuilder::new(eal, id).descriptors(DESCRIPTORS, DESCRIPTORS)).start()?)
    };
    Ok([start(pair.names[0])?, start(pair.names[1])?])
}

pub(crate) fn stop_ports(ports: [Open; 2]) -> anyhow::Result<()> {
    for (port, queues) in ports {
        port.stop(queues)?;
    }
    Ok(())
}

/// What `RxQueue` and `TxQueue` cost by themselves, on the main lcore.
pub(crate) fn bare(eal: &Eal, pair: Pair, burst: usize, slice: Duration) -> anyhow::Result<Sample> {
    let config = MempoolConfig { size: MBUFS, cache: CACHE, ..MempoolConfig::default() };
    let pool = Mempool::new(eal, "bare", config)?;
    bare_with(eal, start_ports(eal, pair, &pool, 1)?, burst, |_| (), slice)
}

/// The same with something done to each burst.
pub(crate) fn bare_with(
    eal: &Eal,
    mut ports: [Open; 2],
    burst: usize,
    work: impl Fn(&mut Burst) + Send,
    slice: Duration,
) -> anyhow::Result<Sample> {
    let stop = AtomicBool::new(false);
    let lcore = eal.lcores()[0];
    let before = own_cpu_time()?;
    let (packets, wall) = eal.scope(|scope| {
        scope.control("bench", || {
            std::thread::sleep(slice);
            stop.store(true, Ordering::Relaxed);
        })?;
        let start = Instant::now();
        let forwarding = scope.launch(lcore, || forward(&mut ports, burst, work, &stop))?;
        let packets = forwarding.join().map_err(|_| anyhow::anyhow!("the loop panicked"))?;
        anyhow::Ok((packets, start.elapsed()))
    })?;
    let cpu = own_cpu_time()?.saturating_sub(before);
    stop_ports(ports)?;
    Ok(Sample::new(packets, cpu, wall))
}

/// The bare loop: what came in on one port goes out by the other, until told to stop.
#[inline(never)]
fn forward(ports: &mut [Open; 2], burst: usize, work: impl Fn(&mut Burst), stop: &AtomicBool) -> u64 {
    let mut burst = Burst::with_limit(burst);
    let mut packets = 0;
    let [(_, first), (_, second)] = ports;
    let ([first], [second]) = (&mut first[..], &mut second[..]) else { return 0 };
    while !stop.load(Ordering::Relaxed) {
        for (from, to) in [(&mut first.rx, &mut second.tx), (&mut second.rx, &mut first.tx)] {
            packets += from.receive(&mut burst) as u64;
            work(&mut burst);
            to.send(&mut burst);
            burst.clear();
        }
    }
    packets
}

/// How a worker is run.
#[derive(Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) pair: Pair,
    pub(crate) burst: usize,
    /// Queues of each port, if not as usual.
    pub(crate) queues: Option<u16>,
}

impl Setting {
    pub(crate) fn new(pair: Pair) -> Self {
        Self { pair, burst: Burst::USUAL, queues: None }
    }
}

/// The whole worker, as a program runs it, on every lcore there is.
pub(crate) fn worker(eal: &Eal, setting: Setting, chain: Vec<Loaded>, slice: Duration) -> anyhow::Result<Sample> {
    Ok(worker_with_report(eal, setting, chain, slice)?.0)
}

pub(crate) fn worker_with_report(
    eal: &Eal,
    setting: Setting,
    chain: Vec<Loaded>,
    slice: Duration,
) -> anyhow::Result<(Sample, Report)> {
    let (sample, report) = timed(Runtime::new(eal, &config(setting), chain)?, slice)?;
    ensure_forwarded(&report)?;
    Ok((sample, report))
}

/// Nothing was dropped.
pub(crate) fn ensure_forwarded(report: &Report) -> anyhow::Result<()> {
    ensure!(report.balance.dropped == report.dropped("stopped"), "packets were dropped: {report}");
    // What an instance drops that was made for another run has no name in this one.
    ensure!(report.balance.unaccounted() == 0, "packets were dropped or held: {}", report.balance);
    Ok(())
}

/// Two ports and `Wire`.
pub(crate) fn config(setting: Setting) -> RuntimeConfig {
    let [inside, outside] = setting.pair.names.map(str::to_owned);
    let ports = PortsConfig {
        outside: Some(outside),
        descriptors: Some(DESCRIPTORS),
        queues: setting.queues,
        steering: SteeringKind::Software,
        ..PortsConfig::new(inside)
    };
    RuntimeConfig {
        chain: None,
        forwarding: Some(ForwardingKind::Wire),
        ports,
        burst: setting.burst,
        packets: Some(MBUFS),
        fragments: FragmentsConfig::default(),
        admin: AdminConfig::default(),
        router: None,
    }
}

/// What its workers cost while they run.
pub(crate) fn timed(runtime: Runtime<'_>, slice: Duration) -> anyhow::Result<(Sample, Report)> {
    timed_while(runtime, |_| std::thread::sleep(slice)).map(|(sample, report, ())| (sample, report))
}

/// The same for as long as control takes for something.
pub(crate) fn timed_while<T: Send>(
    runtime: Runtime<'_>,
    control: impl FnOnce(&Control) -> T + Send,
) -> anyhow::Result<(Sample, Report, T)> {
    let cpu_time = || -> anyhow::Result<Duration> { Ok(own_cpu_time()? + lcores_cpu_time(std::process::id())?) };
    let before = cpu_time()?;
    let ((wall, done), report) = runtime.run(|handle| {
        let start = Instant::now();
        let done = control(handle);
        (start.elapsed(), done)
    })?;
    let cpu = cpu_time()?.saturating_sub(before);
    Ok((Sample::new(report.balance.received, cpu, wall), report, done))
}

/// A control object that makes its instances and has no configuration.
struct Made<M> {
    name: String,
    affinity: Affinity,
    make: M,
}

impl<I, M> Function for Made<M>
where
    I: NetworkFunction,
    M: Fn(&mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
{
    type Config = ();
    type Policy = ();
    type Instance = I;

    fn name(&self) -> &str {
        &self.name
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn affinity(&self, (): &()) -> Affinity {
        self.affinity
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<I, SetupError> {
        (self.make)(worker)
    }

    fn adopt(_: &mut I, _: Arc<()>) {}
}

/// A function whose instances `make` makes.
pub(crate) fn made<I: NetworkFunction>(
    name: impl Into<String>,
    affinity: Affinity,
    make: impl Fn(&mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
) -> Loaded {
    Loaded::new(Made { name: name.into(), affinity, make }, ())
}
