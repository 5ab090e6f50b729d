//! The suite `floods`: what a router forwards while a second lcore is flooded, and what memory that
//! takes.
//!
//! Two workers on net_null, and a function between that cares about flows. The first worker forwards
//! what it owns. What comes to the second one is thrown away, and while there is a flood that comes
//! instead, as fast as it takes it; what the second cannot do by itself it gives to the first, which
//! owns the neighbours and half of the flows. Each run is a quiet slice, a flooded one, and another
//! quiet one.

use crate::flood::Flood;
use crate::io::Pass;
use crate::machine::Memory;
use crate::measure::{Plan, Variant, interleave, own_cpu_time};
use crate::ours::{NULL, Setting, config, made, start_eal, start_ports, stop_ports};
use crate::results::{Row, Sample};
use crate::routed::{Destinations, FRAME, Flow, Routed, hello, own_v6};
use crate::statistics::Spread;
use anyhow::{Context as _, ensure};
use dpdk_rs::{Eal, Mempool, MempoolConfig, PortId};
use nf_framework::{
    Affinity, Batch, Budget, Context, Control, Direction, Forwarding, ForwardingKind, NeighbourConfig, Report,
    RouterConfig, Runtime, RuntimeConfig, Steering, Tuple, Verdict,
};
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

pub(crate) const ABOUT: &str = "a router's forwarding while a second lcore is flooded, and its memory";
pub(crate) const MEBIBYTES: u64 = 192;

const QUIET: &str = "no flood";
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(5);
/// Longer than anything waits for an answer or for a first fragment.
const MOST_AWAY: Duration = Duration::from_secs(10);

pub(crate) fn notes() -> Vec<String> {
    [
        "cost is the CPU time of the first worker for each packet that it forwards while the second one is flooded: \
         goodput as a ratio to that without a flood is the inverse of the ratio",
        "net_null, IPv4, 1k routes, a function that cares about flows; the second worker has as many packets without a \
         flood, and drops them; \"as many to forward\" is no flood: half of these packets are the first one's",
        "\"no limits\": any number of questions is answered, and of neighbours looked for, in a second",
        "what was offered, what became of it, and the memory that it took is said when it has run",
    ]
    .map(str::to_owned)
    .into()
}

/// A router and what comes to its second worker.
struct Case {
    name: &'static str,
    flood: Option<Flood>,
    router: RouterConfig,
    flows: [Flow; 2],
    inside: PortId,
    rounds: RefCell<Vec<Round>>,
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let eal = start_eal(memory, 2)?;
    let cases = cases(&eal)?;
    let before = resident()?;
    let variants = cases.iter().map(|case| {
        let eal = &eal;
        let variant = Variant::new(case.name, move |slice| {
            let round = case.run(eal, [slice; 3], false)?;
            let sample = round.sample;
            case.rounds.borrow_mut().push(round);
            Ok(sample)
        });
        if case.name == QUIET { variant } else { variant.ratio(QUIET) }
    });
    let rows = interleave(variants.collect(), plan)?;
    eprintln!("{}", Round::HEAD);
    for case in &cases {
        // Until nothing of it is there.
        let last = case.run(&eal, [plan.slice, plan.slice * 10, MOST_AWAY], true)?;
        eprintln!("{}", last.line(case.name, case.rounds.borrow().get(1..).unwrap_or_default()));
    }
    eprintln!("floods: resident memory {before} KiB before, {} KiB after", resident()?);
    Ok(rows)
}

fn cases(eal: &Eal) -> anyhow::Result<Vec<Case>> {
    let pool = Mempool::new(eal, "unused", MempoolConfig { size: 4095, ..MempoolConfig::default() })?;
    let ports = start_ports(eal, NULL, &pool, 1)?;
    let inside = ports[0].0.id();
    let macs = ports.each_ref().map(|(port, _)| port.info().map(|info| info.mac_address));
    stop_ports(ports)?;
    let [mac, outside] = macs;
    let mac = mac?;
    let Routed { config: mut unlimited, flows } = Routed::new(Destinations::V4(1 << 10), [mac, outside?])?;
    for (side, interface) in (0..).zip(unlimited.interfaces.values_mut()) {
        interface.addresses.push(format!("{}/64", own_v6(side)).parse().map_err(anyhow::Error::msg)?);
    }
    let usual = RouterConfig { neighbours: NeighbourConfig::default(), ..unlimited.clone() };
    let floods = [
        (QUIET, None, false),
        ("as many to forward", Some(Flood::to_neighbour_v4(mac)), false),
        ("ARP requests", Some(Flood::arp_requests()), false),
        ("ARP requests, no limits", Some(Flood::arp_requests()), true),
        ("solicitations", Some(Flood::solicitations()), false),
        ("solicitations, no limits", Some(Flood::solicitations()), true),
        ("advertisements", Some(Flood::advertisements(mac)), false),
        ("to nobody, IPv4", Some(Flood::to_nobody_v4(mac)), false),
        ("to nobody, IPv4, no limits", Some(Flood::to_nobody_v4(mac)), true),
        ("to nobody, IPv6", Some(Flood::to_nobody_v6(mac)), false),
        ("to nobody, IPv6, no limits", Some(Flood::to_nobody_v6(mac)), true),
        ("first fragments, IPv4", Some(Flood::fragments_v4(mac, true)), false),
        ("first fragments, IPv6", Some(Flood::fragments_v6(mac, true)), false),
        ("later fragments, IPv4", Some(Flood::fragments_v4(mac, false)), false),
        ("later fragments, IPv6", Some(Flood::fragments_v6(mac, false)), false),
    ];
    let case = |(name, flood, limitless): (_, Option<Flood>, _)| -> anyhow::Result<Case> {
        if let Some(flood) = &flood {
            flood.check().context(name)?;
        }
        let router = if limitless { unlimited.clone() } else { usual.clone() };
        Ok(Case { name, flood, router, flows: flows.clone(), inside, rounds: RefCell::default() })
    };
    floods.into_iter().map(case).collect()
}

/// Known once the workers are made.
struct Inner {
    pool: Mempool,
    steering: Arc<Steering>,
}

/// What control thread and workers tell each other.
#[derive(Default)]
struct Progress {
    /// The number of the slice; [`FLOODED`] is the one with a flood.
    slice: AtomicUsize,
    /// Of the flood.
    offered: AtomicU64,
    /// By the first worker, at the beginning of each slice.
    marks: Mutex<Vec<Mark>>,
}

const FLOODED: usize = 2;

#[derive(Clone, Copy)]
struct Mark {
    forwarded: u64,
    cpu: Duration,
    at: Instant,
}

impl Mark {
    fn until(&self, end: &Self) -> Sample {
        let cpu = end.cpu.saturating_sub(self.cpu);
        Sample::new(end.forwarded - self.forwarded, cpu, end.at.duration_since(self.at))
    }
}

impl Progress {
    /// Goes on to the next slice, and waits until the first worker has.
    fn enter(&self, slice: usize, control: &Control) {
        self.slice.store(slice, Ordering::Relaxed);
        while self.marks().len() < slice && !control.stopping() {
            sleep(Duration::from_millis(1));
        }
    }

    fn marks(&self) -> std::sync::MutexGuard<'_, Vec<Mark>> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The most that was in use in a slice.
#[derive(Clone, Copy, Default)]
struct Used {
    mbufs: u32,
    neighbours: usize,
    held: u64,
}

impl Used {
    fn now(control: &Control, pool: &Mempool) -> Self {
        Self {
            mbufs: pool.config().size.saturating_sub(pool.available()),
            neighbours: control.neighbours().map_or(0, |table| table.list().count()),
            held: control.report().balance.held,
        }
    }

    fn most(self, other: Self) -> Self {
        Self {
            mbufs: self.mbufs.max(other.mbufs),
            neighbours: self.neighbours.max(other.neighbours),
            held: self.held.max(other.held),
        }
    }

    fn during(slice: Duration, control: &Control, pool: &Mempool) -> Self {
        let (start, mut most) = (Instant::now(), Self::default());
        while start.elapsed() < slice && !control.stopping() {
            sleep(LOOK.min(slice));
            most = most.most(Self::now(control, pool));
        }
        most
    }
}

/// What one run has shown.
struct Round {
    /// Of the slice with a flood.
    sample: Sample,
    /// What the first worker forwarded in its time, in relation to before: with the flood, and after it.
    goodput: f64,
    recovered: f64,
    /// Millions in a second: of the flood, and what of it, or of anything, went from worker to worker.
    offered: f64,
    handed_over: f64,
    used: [Used; 3],
    /// KiB that the process grew by in the slice with a flood.
    growth: u64,
    /// From the end of the flood until no more mbufs were in use than before it; if they ever were.
    home_after: Option<Duration>,
    report: Report,
}

impl Case {
    fn run(&self, eal: &Eal, slices: [Duration; 3], until_home: bool) -> anyhow::Result<Round> {
        let config = RuntimeConfig {
            forwarding: Some(ForwardingKind::Router),
            router: Some(self.router.clone()),
            packets: None,
            ..config(Setting { queues: Some(2), ..Setting::new(NULL) })
        };
        let (inner, progress) = (Arc::<OnceLock<Inner>>::default(), Arc::<Progress>::default());
        let known = Arc::clone(&inner);
        let function = made("flows", Affinity::Flow, move |setup| {
            let steering = setup.steering().ok_or("packets are not steered")?;
            known.get_or_init(|| Inner { pool: setup.pool().clone(), steering: Arc::clone(steering) });
            Ok(Pass)
        });
        let runtime = Runtime::new(eal, &config, vec![function])?.around(self.source(&inner, &progress));
        let (shown, report) = runtime.run(|control| -> anyhow::Result<_> {
            let pool = &inner.get().context("no worker was made")?.pool;
            // Neighbours have said who they are.
            sleep(Duration::from_millis(20));
            progress.enter(1, control);
            let before = Used::during(slices[0], control, pool);
            let (handed_over, resident_before) = (control.report().handed_over, resident()?);
            progress.enter(FLOODED, control);
            let flooded = Used::during(slices[1], control, pool);
            let resident_after = resident()?;
            progress.enter(3, control);
            let handed_over = control.report().handed_over - handed_over;
            let (start, mut home_after) = (Instant::now(), None);
            let mut after = Used::default();
            while start.elapsed() < slices[2] && !(until_home && home_after.is_some()) && !control.stopping() {
                sleep(LOOK.min(slices[2]));
                after = Used::now(control, pool);
                if home_after.is_none() && after.mbufs <= before.mbufs {
                    home_after = Some(start.elapsed());
                }
            }
            progress.enter(4, control);
            let growth = resident_after.saturating_sub(resident_before);
            Ok(([before, flooded, after], handed_over, growth, home_after))
        })?;
        let (used, handed_over, growth, home_after) = shown?;
        ensure!(report.balance.held == 0, "packets are held: {report}");
        let marks = progress.marks();
        let [first, second, third, last] = marks[..] else { anyhow::bail!("{} marks", marks.len()) };
        let (before, sample, after) = (first.until(&second), second.until(&third), third.until(&last));
        let millions = |count: u64| count as f64 * 1000.0 / sample.wall_ns as f64;
        Ok(Round {
            sample,
            goodput: before.cpu_cost() / sample.cpu_cost(),
            recovered: before.cpu_cost() / after.cpu_cost(),
            offered: millions(progress.offered.load(Ordering::Relaxed)),
            handed_over: millions(handed_over),
            used,
            growth,
            home_after,
            report,
        })
    }

    /// What writes the packets that come in, on every worker.
    fn source(
        &self,
        inner: &Arc<OnceLock<Inner>>,
        progress: &Arc<Progress>,
    ) -> impl Fn(Box<dyn Forwarding>) -> Box<dyn Forwarding> + Send + Sync + 'static {
        let (flows, flood, inside) = (self.flows.clone(), self.flood.clone(), self.inside);
        let (known, progress) = (Arc::clone(inner), Arc::clone(progress));
        // Of both families.
        let hellos = |side: u32, flow: &Flow| {
            let own = (0..).map_while(|number| flow.hello(number).map(<[u8]>::to_vec));
            own.chain([hello(false, side, 0)]).collect::<Vec<_>>()
        };
        let hellos = [hellos(0, &self.flows[0]), hellos(1, &self.flows[1])];
        let main = std::thread::current().id();
        move |inner| {
            let first = std::thread::current().id() == main;
            let steering = known.get().map(|known| Arc::clone(&known.steering));
            let owned = |side: usize| {
                let direction = [Direction::Outbound, Direction::Inbound][side];
                let owner = |frame: &mut [u8]| Some(steering.as_ref()?.owner(direction, &Tuple::of_frame(frame)?));
                flows[side].only(|frame| owner(frame) == Some(usize::from(!first)))
            };
            Box::new(Source {
                inner,
                flows: [owned(0), owned(1)],
                flood: flood.clone(),
                hellos: hellos.clone(),
                inside,
                first,
                next: 0,
                said: [0; 2],
                ticked: false,
                slice: 0,
                forwarded: 0,
                progress: Arc::clone(&progress),
            })
        }
    }
}

/// Writes the packets that arrive at a worker.
struct Source {
    inner: Box<dyn Forwarding>,
    /// What this worker owns, by side.
    flows: [Flow; 2],
    flood: Option<Flood>,
    hellos: [Vec<Vec<u8>>; 2],
    inside: PortId,
    /// Whether this is the worker that always forwards.
    first: bool,
    next: usize,
    /// By side: hellos.
    said: [usize; 2],
    ticked: bool,
    /// The slice that this worker knows of.
    slice: usize,
    forwarded: u64,
    progress: Arc<Progress>,
}

impl Forwarding for Source {
    fn separate(&mut self, batch: &mut Batch, direction: Direction, inbound: &mut Batch) {
        let slice = self.progress.slice.load(Ordering::Relaxed);
        if self.first && slice != self.slice {
            self.slice = slice;
            let cpu = own_cpu_time().expect("a thread knows its time");
            self.progress.marks().push(Mark { forwarded: self.forwarded, cpu, at: Instant::now() });
        }
        let mut offered = 0;
        for slot in batch.undecided() {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            let side = usize::from(packet.port() != self.inside);
            self.next = self.next.wrapping_add(1);
            let fits = match &self.flood {
                _ if self.first && !self.ticked => false,
                _ if self.first => match self.hellos[side].get(self.said[side]) {
                    Some(hello) => {
                        self.said[side] += 1;
                        packet.set_contents(hello)
                    }
                    None => self.flows[side].fill(self.next, packet),
                },
                Some(flood) if slice == FLOODED && side == 0 => {
                    offered += 1;
                    flood.fill(self.next, packet)
                }
                _ => false,
            };
            if !fits {
                drop(batch.take(slot));
            }
        }
        // Else the first worker would wait for the line at every batch.
        if offered > 0 {
            self.progress.offered.fetch_add(offered, Ordering::Relaxed);
        }
        self.inner.separate(batch, direction, inbound);
    }

    fn ingress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        self.inner.ingress(batch, cx);
    }

    fn egress(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let slots = batch.undecided();
        self.inner.egress(batch, cx);
        if self.first {
            // What came from the other worker has another length.
            let own = |slot: &usize| {
                matches!(batch.verdict(*slot), Verdict::Send(_))
                    && batch.packet(*slot).is_some_and(|p| p.len() == FRAME)
            };
            self.forwarded += slots.filter(own).count() as u64;
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.ticked = true;
        self.inner.tick(cx, budget);
    }

    fn stop(&mut self, cx: &mut Context<'_>) {
        self.inner.stop(cx);
    }

    fn held(&self) -> usize {
        self.inner.held()
    }
}

impl Round {
    const HEAD: &str = "floods:                        offered  between    goodput          after  mbufs in use             \
                        neigh-  held  grown  home\n\
                        floods:                        M/s      workers    median, range           before  during  after  \
                        bours         KiB    after s  what became of it";

    /// A line of the table: medians of rounds, maxima of all, and what the last long run tells.
    fn line(&self, name: &str, rounds: &[Self]) -> String {
        let spread = |of: fn(&Self) -> f64| Spread::of(rounds.iter().map(of));
        let goodput = spread(|round| round.goodput);
        let all = || rounds.iter().chain([self]);
        let most = |slice: usize| all().map(|round| round.used[slice]).fold(Used::default(), Used::most);
        let home = self.home_after.map_or("never".to_owned(), |after| format!("{:.1}", after.as_secs_f64()));
        let last = self.used[2].mbufs;
        let flooded = most(1);
        format!(
            "floods: {name:27} {:5.2}    {:5.2}      {:.2} {:.2}..{:.2}  {:.2}   {:5}   {:5}   {last:5}  {:6}  {:4}  {:5}  {home:5}  {}",
            spread(|round| round.offered).median,
            spread(|round| round.handed_over).median,
            goodput.median,
            goodput.min,
            goodput.max,
            spread(|round| round.recovered).median,
            most(0).mbufs,
            flooded.mbufs,
            flooded.neighbours,
            flooded.held,
            all().map(|round| round.growth).max().unwrap_or(0),
            self.fate(),
        )
    }

    /// The reasons under which the most was dropped.
    fn fate(&self) -> String {
        let mut drops: Vec<_> = self.report.drops.iter().collect();
        drops.sort_by_key(|drop| std::cmp::Reverse(drop.count));
        let of = |drop: &&nf_framework::DropReport| format!("{} {}", drop.reason, drop.count);
        drops.iter().take(3).map(of).collect::<Vec<_>>().join(", ")
    }
}

/// The process's memory in KiB.
pub(crate) fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().next().context("no number")?.parse()?)
}
