//! Packets through a chain on virtual time, and what became of them.

use crate::batch::Batch;
use crate::chain::Chain;
use crate::classifier::Prefix;
use crate::context::Context;
use crate::counters::{PortCounters, WorkerCounters};
use crate::direction::Direction;
use crate::forwarding::Wire;
use crate::fragments::{Fragments, FragmentsConfig};
use crate::function::{Function, NetworkFunction};
use crate::headers::MacAddress;
use crate::kernel::KernelState;
use crate::neighbours::Neighbours;
use crate::registry::Registry;
use crate::report::{Balance, Report};
use crate::router::{PortFacts, PortOffloads, Router, RouterConfig, Tables};
use crate::steering::{Links, Sorter, Steering};
use crate::testing::device::{self, Device};
use crate::time::Instant;
use crate::token_bucket::TokenBucket;
use crate::trace::{Names, Share, TraceRequest, Traces};
use crate::verdict::PortIx;
use crate::worker::{Pipeline, Transmit};
use dpdk_rs::{Burst, ChecksumStatus, Consumer, HashKey, Mempool, Producer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

const INSIDE: PortIx = PortIx(0);
const OUTSIDE: PortIx = PortIx(1);
/// With two ways to the kernel.
const PORTS: usize = 4;

/// What became of the packets of one [`Trial::send`] or [`Trial::advance`].
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Frames that left by the inside port, in order.
    pub inside: Vec<Vec<u8>>,
    /// Frames that left by the outside port, in order.
    pub outside: Vec<Vec<u8>>,
    /// Frames that went to the kernel beside a router, by the `host` ports of its interfaces.
    pub host: Vec<Vec<u8>>,
    /// Packets dropped, by the name of the reason.
    pub dropped: BTreeMap<String, u64>,
    /// Packets that functions consumed.
    pub consumed: u64,
    /// By how many the packets that functions and virtual reassembly hold have become more, or
    /// less.
    pub held: i64,
}

/// A chain in a test, with two ports and a clock that moves when told to.
#[derive(Debug)]
pub struct Trial {
    /// By worker; most trials have one.
    lanes: Vec<Lane>,
    /// Who owns what; `None` with one worker.
    steering: Option<Arc<Steering>>,
    batch: Batch,
    now: Instant,
    registry: Arc<Registry>,
    counters: Vec<Arc<WorkerCounters>>,
    pool: Mempool,
    names: Vec<String>,
    wire: Ports,
    /// What stood at the end of the last outcome.
    balance: Balance,
    drops: BTreeMap<String, u64>,
    own: BTreeMap<String, u64>,
    /// Packets that were out of the pool before.
    out: u32,
    device: Option<Device>,
}

/// One worker's part.
#[derive(Debug)]
struct Lane {
    pipeline: Pipeline,
    /// For its router.
    to_first: Option<Producer>,
    as_owner: Vec<Consumer>,
}

/// One worker's part in steering.
type Part = (Option<Arc<Steering>>, Links);

/// What left, and what the ports take.
#[derive(Debug)]
struct Ports {
    /// By port.
    sent: Vec<Vec<Vec<u8>>>,
    full: bool,
    longest: usize,
    inserts_vlans: bool,
}

/// The same while packets are traced.
struct Traced<'a>(&'a mut Ports);

impl Transmit for Traced<'_> {
    const TRACED: bool = true;

    fn send(&mut self, port: PortIx, burst: &mut Burst) {
        self.0.send(port, burst);
    }
}

impl Default for Ports {
    fn default() -> Self {
        Self { sent: vec![Vec::new(); PORTS], full: false, longest: usize::MAX, inserts_vlans: false }
    }
}

impl Transmit for Ports {
    fn send(&mut self, port: PortIx, burst: &mut Burst) {
        let Some(sent) = self.sent.get_mut(usize::from(port.0)) else { return };
        // As drivers do: it stops at the first that it cannot send.
        let mut kept = Burst::with_limit(Burst::CAPACITY);
        for packet in burst.drain() {
            if !self.full && kept.is_empty() && packet.len() <= self.longest {
                sent.push(device::on_the_link(&packet, self.inserts_vlans));
            } else {
                drop(kept.push(packet));
            }
        }
        for packet in kept.drain() {
            drop(burst.push(packet));
        }
    }
}

impl Trial {
    /// The MAC address of a router's inside interfaces.
    pub const INSIDE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 1, 1]);
    /// The MAC address of a router's outside interfaces.
    pub const OUTSIDE_MAC: MacAddress = MacAddress([2, 0, 0, 0, 1, 2]);

    /// From the chain of each worker, and its part in steering.
    pub(crate) fn new(chains: Vec<(Chain, Option<Part>)>, pool: Mempool, registry: Arc<Registry>) -> Self {
        let names = chains.first().map_or(Vec::new(), |(chain, _)| chain.names().map(str::to_owned).collect());
        let (mut lanes, mut counters, mut all_steering) = (Vec::new(), Vec::new(), None);
        for (worker, (mut chain, part)) in chains.into_iter().enumerate() {
            let of_worker = Arc::new(WorkerCounters::new(PORTS, chain.len()));
            chain.forwarding = Some(Box::new(Wire));
            let mut pipeline = Pipeline::new(chain, (INSIDE, OUTSIDE), pool.clone(), Arc::clone(&of_worker));
            let (steering, links) = part.unzip();
            let steering = steering.flatten();
            let Links { to_owner, mut as_owner, to_first, as_first, .. } = links.unwrap_or_default();
            as_owner.extend(as_first);
            pipeline.sorter = steering.clone().map(|steering| Sorter::new(steering, worker, to_owner, [false; 2]));
            all_steering = steering;
            counters.push(of_worker);
            lanes.push(Lane { pipeline, to_first, as_owner });
        }
        let several = all_steering.is_some();
        let batch = Batch::with_limit(Burst::CAPACITY);
        let out = out_of(&pool);
        let trial = Self {
            lanes,
            steering: all_steering,
            batch,
            now: Instant::START,
            registry,
            counters,
            pool,
            names,
            wire: Ports::default(),
            balance: Balance::default(),
            drops: BTreeMap::new(),
            own: BTreeMap::new(),
            out,
            device: None,
        };
        if several { trial.with_fragments(FragmentsConfig::default()) } else { trial }
    }

    /// With virtual reassembly, as a program has it whose functions care about flows, and a trial
    /// [at wrong workers](crate::testing::Lab::trial_at_wrong_workers) for such functions.
    #[must_use]
    pub fn with_fragments(mut self, config: FragmentsConfig) -> Self {
        for lane in &mut self.lanes {
            lane.pipeline.fragments = Some(Fragments::new(&config, HashKey::from_seed(1)));
        }
        self
    }

    /// Without forwarding: what no function decides about is dropped.
    #[must_use]
    pub fn without_forwarding(mut self) -> Self {
        for lane in &mut self.lanes {
            lane.pipeline.chain.forwarding = None;
        }
        self
    }

    /// With a router around the chain. The text is what stands in the table `[router]` of a
    /// configuration file, without that name: `[interfaces.lan]`, `[[routes]]`. It takes packets for
    /// `addresses` on behalf of functions, which are not asked for theirs here. Its interfaces have the
    /// MAC addresses [`Trial::INSIDE_MAC`] and [`Trial::OUTSIDE_MAC`], and an MTU of 1500 unless the
    /// text says so. It knows its interfaces, and announces its addresses, from the first
    /// [`Trial::advance`] on.
    ///
    /// # Panics
    ///
    /// When the text is wrong.
    #[must_use]
    pub fn with_router(self, text: &str, addresses: &[&str]) -> Self {
        self.with_routers(text, addresses, &[Self::INSIDE_MAC, Self::OUTSIDE_MAC])
    }

    /// As [`Trial::with_router`], with both sides on the inside port: give each a VLAN.
    ///
    /// # Panics
    ///
    /// When the text is wrong.
    #[must_use]
    pub fn with_router_on_one_port(self, text: &str, addresses: &[&str]) -> Self {
        self.with_routers(text, addresses, &[Self::INSIDE_MAC])
    }

    /// Hands the router of every worker other interfaces and routes, as a reload would; it stays on as
    /// many ports as it was on.
    ///
    /// # Panics
    ///
    /// When the text is wrong, or there is no router.
    pub fn reload_router(&mut self, text: &str, addresses: &[&str]) {
        let one_armed = self.lanes[0].pipeline.outside == INSIDE;
        let macs = [Self::INSIDE_MAC, Self::OUTSIDE_MAC];
        let (_, tables) = self.tables(text, addresses, if one_armed { &macs[..1] } else { &macs });
        for lane in &mut self.lanes {
            lane.pipeline.chain.router_mut().expect("there is a router").adopt(&tables);
        }
    }

    fn tables(&self, text: &str, addresses: &[&str], macs: &[MacAddress]) -> (RouterConfig, Arc<Tables>) {
        let config: RouterConfig = toml::from_str(text).unwrap_or_else(|error| panic!("{error}"));
        if let Err(invalid) = config.validate(macs.len() == 1) {
            panic!("{}: {}", invalid.key, invalid.message);
        }
        let offloads = self.device.map_or_else(PortOffloads::default, |_| Device::OFFLOADS);
        let facts: Vec<_> = macs.iter().map(|mac| PortFacts { mac: *mac, mtu: 1500, offloads }).collect();
        let addresses: Vec<Prefix> = addresses.iter().map(|text| text.parse().expect("a prefix")).collect();
        let tables = Tables::new(&config, &facts, &addresses, &KernelState::default(), &self.pool.memory());
        let tables = tables.unwrap_or_else(|error| panic!("{error}"));
        (config, Arc::new(tables))
    }

    fn with_routers(mut self, text: &str, addresses: &[&str], macs: &[MacAddress]) -> Self {
        let (config, tables) = self.tables(text, addresses, macs);
        let mut owner = Some(Neighbours::new(config.neighbours.clone(), HashKey::random()));
        let neighbours = owner.as_ref().map(|owner| Arc::clone(owner.table())).expect("there is an owner");
        let last = PortIx(u16::try_from(macs.len() - 1).unwrap_or(0));
        for Lane { pipeline, to_first, .. } in &mut self.lanes {
            pipeline.outside = last;
            let (tables, neighbours, functions) = (Arc::clone(&tables), Arc::clone(&neighbours), pipeline.chain.len());
            let errors = config.icmp_errors_per_second;
            let router = Router::new(
                tables,
                neighbours,
                owner.take(),
                to_first.take(),
                self.registry.next_hops.clone(),
                functions,
                errors,
            );
            pipeline.chain.forwarding = Some(Box::new(router));
            pipeline.errors = Some(TokenBucket::of_errors(errors));
        }
        self
    }

    /// With ports whose devices work for a router that is put around the chain after this: they take VLAN
    /// tags off and put them on, and say of a frame's IPv4 header what `checksum` says of the frame, which
    /// has no tag left; what they should say is [`honest_checksum`](crate::testing::honest_checksum).
    #[must_use]
    pub fn with_offloads(mut self, checksum: fn(&[u8]) -> ChecksumStatus) -> Self {
        self.device = Some(Device { checksum });
        self.wire.inserts_vlans = true;
        self
    }

    /// With ports that cannot send frames of more than so many bytes.
    pub fn set_longest_frame(&mut self, bytes: usize) {
        self.wire.longest = bytes;
    }

    /// With both ports' queues full, or no longer so.
    pub fn set_ports_full(&mut self, full: bool) {
        self.wire.full = full;
    }

    /// With a program around it that is being drained, or not.
    pub fn set_draining(&mut self, draining: bool) {
        for lane in &mut self.lanes {
            lane.pipeline.chain.standing.draining = draining;
        }
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Gives the chain frames that came in together, at most 64.
    ///
    /// # Panics
    ///
    /// When there are more, a frame is longer than a packet of the pool, or the pool is empty.
    pub fn send(&mut self, direction: Direction, frames: &[Vec<u8>]) -> Outcome {
        let port = if direction == Direction::Outbound { INSIDE } else { OUTSIDE };
        for (worker, lane) in self.lanes.iter_mut().enumerate() {
            let mut received = 0;
            for (index, frame) in frames.iter().enumerate() {
                if arrives_at(self.steering.as_deref(), self.counters.len(), direction, index, frame) != worker {
                    continue;
                }
                let mut packet = self.pool.alloc().expect("the tests' pool is empty");
                assert!(packet.set_contents(frame), "a frame of {} bytes does not fit into a packet", frame.len());
                if let Some(device) = self.device {
                    device.receive(&mut packet);
                }
                packet.set_port(dpdk_rs::PortId(port.0));
                assert!(self.batch.push(packet).is_ok(), "more than {} frames at once", Burst::CAPACITY);
                received += 1;
            }
            crate::counters::bump(&self.counters[worker].ports[usize::from(port.0)].received, received);
            if lane.pipeline.chain.tracer.is_some() {
                lane.pipeline.arrive(&mut self.batch, direction, self.now, &mut Traced(&mut self.wire));
            } else {
                lane.pipeline.arrive(&mut self.batch, direction, self.now, &mut self.wire);
            }
        }
        self.take_over();
        self.outcome()
    }

    /// Gives the router frames that the kernel sends by its first `host` port.
    ///
    /// # Panics
    ///
    /// As [`Trial::send`].
    pub fn send_from_host(&mut self, frames: &[Vec<u8>]) -> Outcome {
        let port = PortIx(OUTSIDE.0 + 1);
        let Some(lane) = self.lanes.first_mut() else { return Outcome::default() };
        for frame in frames {
            let mut packet = self.pool.alloc().expect("the tests' pool is empty");
            assert!(packet.set_contents(frame), "a frame of {} bytes does not fit into a packet", frame.len());
            assert!(self.batch.push(packet).is_ok(), "more than {} frames at once", Burst::CAPACITY);
        }
        crate::counters::bump(&self.counters[0].ports[usize::from(port.0)].received, frames.len() as u64);
        lane.pipeline.host_sent(&mut self.batch, port, &mut self.wire);
        self.outcome()
    }

    /// Lets time pass, and the functions tick at its end: as often as they would have in a program
    /// (every 100 us), but at least once and at most 256 times. Each tick has a budget of 128.
    pub fn advance(&mut self, time: Duration) -> Outcome {
        self.now = self.now + time;
        for _ in 0..(time.as_nanos() / TICK.as_nanos()).clamp(1, MOST_TICKS) {
            for lane in &mut self.lanes {
                if lane.pipeline.chain.tracer.is_some() {
                    lane.pipeline.tick(&mut self.batch, self.now, &mut Traced(&mut self.wire));
                } else {
                    lane.pipeline.tick(&mut self.batch, self.now, &mut self.wire);
                }
            }
            self.take_over();
        }
        self.outcome()
    }

    /// Hands the function at this place a new policy on every worker, as a reload would: built,
    /// then adopted, one generation later.
    ///
    /// # Panics
    ///
    /// When it cannot be built, or there is no function of this type at this place.
    pub fn publish<F: Function>(&mut self, index: usize, function: &F, policy: F::Policy) {
        let policy = Arc::new(policy);
        if let Err(error) = function.build(&policy, &self.pool.memory()) {
            panic!("the policy cannot be built: {error}");
        }
        for lane in &mut self.lanes {
            let chain = &mut lane.pipeline.chain;
            let instance = chain.function_mut::<F::Instance>(index);
            F::adopt(instance.expect("there is a function of this type at this place"), Arc::clone(&policy));
            chain.standing.generation += 1;
        }
    }

    /// Every worker takes what the others have handed over, until nothing is left.
    fn take_over(&mut self) {
        let mut handed = Burst::with_limit(Burst::CAPACITY);
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for Lane { pipeline, as_owner, .. } in &mut self.lanes {
                for ring in as_owner {
                    if ring.receive(&mut handed) > 0 {
                        quiet = false;
                        if pipeline.chain.tracer.is_some() {
                            pipeline.take_over(&mut handed, &mut self.batch, self.now, &mut Traced(&mut self.wire));
                        } else {
                            pipeline.take_over(&mut handed, &mut self.batch, self.now, &mut self.wire);
                        }
                    }
                }
            }
        }
    }

    /// Does something with a function of the chain between two bursts, as a command or a new
    /// policy would; with several workers, of the first one's. What becomes of packets by it is in
    /// the next outcome.
    ///
    /// # Panics
    ///
    /// When there is no function of this type at this place.
    pub fn command<F: NetworkFunction, R>(
        &mut self,
        index: usize,
        command: impl FnOnce(&mut F, &mut Context<'_>) -> R,
    ) -> R {
        let pipeline = &mut self.lanes[0].pipeline;
        let (chain, mut cx) = pipeline.outside_of_batches(self.now);
        let answer = chain.command(index, &mut cx, command);
        self.counters[0].pending.store(pipeline.pending.len() as u64, Ordering::Relaxed);
        answer.expect("there is a function of this type at this place")
    }

    #[cfg(test)]
    pub(crate) fn work(&mut self, mailbox: &crate::mailbox::Mailbox) {
        while mailbox.has_mail() {
            let (chain, mut cx) = self.lanes[0].pipeline.outside_of_batches(self.now);
            mailbox.open_next(|letter| match letter {
                crate::mailbox::Letter::Chain(work) => work(chain, &mut cx),
                crate::mailbox::Letter::Queues(letter) => panic!("a trial has no queues: {letter:?}"),
            });
        }
    }

    /// Traces the packets that come from now on, as [`Control::begin_trace`](crate::Control::begin_trace) does.
    ///
    /// # Panics
    ///
    /// When the filter makes no sense.
    pub fn begin_trace(&mut self, count: u32, filter: &str) {
        let request = TraceRequest { count, filter: filter.to_owned(), seconds: 1 };
        let trace = request.prepare().unwrap_or_else(|error| panic!("{error}"));
        let share = Share::new(&trace, self.names.len());
        for (worker, lane) in self.lanes.iter_mut().enumerate() {
            lane.pipeline.chain.tracer = Some(Box::new(share.tracer(worker)));
        }
    }

    /// Ends the trace. The ports are called `inside` and `outside`, and no time is told.
    pub fn end_trace(&mut self) -> Traces {
        let tracers = self.lanes.iter_mut().filter_map(|lane| lane.pipeline.chain.tracer.take());
        let names = Names {
            ports: ["inside", "outside", "host", "host"].map(str::to_owned).to_vec(),
            functions: self.names.clone(),
            reasons: self.registry.drop_reasons.list().into_iter().map(|(name, _)| name).collect(),
            next_hops: self.registry.next_hops.clone(),
            cycles_per_second: 0,
        };
        Traces::of(tracers, &names)
    }

    /// Name and help of every reason that a packet may be dropped for: the framework's, then those of the chain's functions.
    #[must_use]
    pub fn drop_reasons(&self) -> Vec<(String, String)> {
        self.registry.drop_reasons.list()
    }

    /// The counters, as a program would show them.
    #[must_use]
    pub fn report(&self) -> Report {
        for lane in &self.lanes {
            lane.pipeline.chain.gauge_sessions(&lane.pipeline.counters);
        }
        let mut report = Report::new(&[], &self.names, &self.counters, &self.registry);
        let ports = || self.counters.iter().flat_map(|worker| &worker.ports);
        let count = |of: fn(&PortCounters) -> &AtomicU64| ports().map(|port| of(port).load(Ordering::Relaxed)).sum();
        report.balance =
            Balance { received: count(|port| &port.received), sent: count(|port| &port.sent), ..report.balance };
        report
    }

    /// What came about since the last one.
    fn outcome(&mut self) -> Outcome {
        let report = self.report();
        let after = report.balance;
        assert_eq!(after.unaccounted(), 0, "the packet balance does not close: {after}");
        assert_eq!(after.held, self.held() as u64, "the functions' held() and their counters differ");
        let own = report.counters.into_iter().map(|of| (format!("{}.{}", of.function, of.name), of.value));
        for (name, count) in own {
            let before = self.own.insert(name.clone(), count).unwrap_or(0);
            assert!(before <= count, "the counter {name} goes down, from {before} to {count}: it is a gauge");
        }
        let drops: BTreeMap<String, u64> = report.drops.into_iter().map(|drop| (drop.reason, drop.count)).collect();
        let drops_before = std::mem::replace(&mut self.drops, drops.clone());
        let mut dropped = drops;
        for (reason, count) in &mut dropped {
            *count -= drops_before.get(reason).copied().unwrap_or(0);
        }
        dropped.retain(|_, count| *count > 0);
        let before = std::mem::replace(&mut self.balance, after);
        let sent = std::mem::replace(&mut self.wire.sent, vec![Vec::new(); PORTS]);
        let mut sent = sent.into_iter();
        let mut next = || sent.next().unwrap_or_default();
        let (inside, outside) = (next(), next());
        let host = sent.flatten().collect();
        let difference =
            |after: u64, before: u64| i64::try_from(i128::from(after) - i128::from(before)).unwrap_or(i64::MAX);
        Outcome {
            inside,
            outside,
            host,
            dropped,
            consumed: after.consumed - before.consumed,
            held: difference(after.held, before.held),
        }
    }

    /// Fails unless the packets that are out of the pool are those that functions hold.
    ///
    /// # Panics
    ///
    /// When they are not. Two trials at once share the pool, and see each other's packets.
    pub fn check_for_leaks(&self) {
        let out = i64::from(out_of(&self.pool)) - i64::from(self.out);
        let held = i64::try_from(self.held()).unwrap_or(i64::MAX);
        assert_eq!(out, held, "packets out of the pool, and packets that functions hold");
    }

    fn held(&self) -> usize {
        let fragments = |lane: &Lane| lane.pipeline.fragments.as_ref().map_or(0, Fragments::held);
        self.lanes.iter().map(|lane| lane.pipeline.chain.held() + lane.pipeline.pending.len() + fragments(lane)).sum()
    }
}

/// The worker that a frame arrives at: not its owner, if it has one and there are others.
fn arrives_at(steering: Option<&Steering>, workers: usize, direction: Direction, index: usize, frame: &[u8]) -> usize {
    let owner = steering.and_then(|steering| steering.owner_of_frame(direction, &mut frame.to_vec()));
    owner.map_or(index, |owner| owner + 1) % workers
}

/// How often functions tick in a program, about.
const TICK: Duration = Duration::from_micros(100);
/// Ticks for one passage of time, at most.
const MOST_TICKS: u128 = 256;

fn out_of(pool: &Mempool) -> u32 {
    pool.config().size - pool.available()
}
