//! A packet's whole way through a worker: received, handled by the chain, settled, sent.
//!
//! One worker runs on one lcore and shares nothing with the others. Between `receive` and
//! `send` there is no allocation, lock, system call, log or formatting.

use crate::batch::{Batch, Slots};
use crate::chain::Chain;
use crate::context::{Context, Pending};
use crate::counters::{Laps, WorkCounters, WorkerCounters, bump};
use crate::crash::in_hand::InHand;
use crate::crash::scene::Doing;
use crate::direction::Direction;
use crate::fragments::Fragments;
use crate::function::Budget;
use crate::idle::{Idle, Naps};
use crate::mailbox::{Errand, Letter, Mailbox, QueuesLetter};
use crate::partial_checksums;
use crate::position::Position;
use crate::steering::{Entrance, Sorter, hand_over};
use crate::time::Instant;
use crate::token_bucket::TokenBucket;
use crate::trace::{Place, Unwatched, Watch};
use crate::verdict::{DropReason, PortIx, Verdict};
use crate::worker_port::{Role, WorkerPort};
use dpdk_rs::{Burst, Clock, Consumer, Mbuf, Mempool, Producer, QueuePair, Ticks};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Housekeeping comes after so many rounds with packets, or so much time.
const TICK_ROUNDS: u32 = 64;
pub(crate) const TICK_TIME: Duration = Duration::from_micros(100);
/// What one tick may do.
pub(crate) const TICK_BUDGET: Budget = Budget(128);
/// A queue that takes nothing after so many packets went is full.
const MOST_IN_DOUBT: usize = 4;
/// How often packets that were set free by packets that were set free go on in one round.
const PENDING_PASSES: usize = 8;
/// How many such rounds a letter from the control thread waits for packets on their way.
const ROUNDS_TO_REST: usize = 8;

/// Where settled packets go; the refused ones stay in the burst, without empty slots.
pub(crate) trait Transmit {
    /// Whether packets are traced on their way here: the pipeline is compiled once for either, so that one without a
    /// trace does not even look.
    const TRACED: bool = false;

    fn send(&mut self, port: PortIx, burst: &mut Burst);

    /// The way to a worker that has a queue of this port, where this one has none.
    fn ring(&mut self, _port: PortIx) -> Option<&mut Producer> {
        None
    }

    /// Whether the port's queues are away.
    fn is_down(&self, _port: PortIx) -> bool {
        false
    }
}

/// The chain and all that stands around it, without the queues: the same in a worker and in
/// a test.
pub(crate) struct Pipeline {
    pub(crate) chain: Chain,
    pub(crate) inside: PortIx,
    pub(crate) outside: PortIx,
    pub(crate) pool: Mempool,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) pending: Pending,
    /// With a router: ICMP errors that functions may send.
    pub(crate) errors: Option<TokenBucket>,
    /// Where a function cares about flows: what brings a packet's fragments together.
    pub(crate) fragments: Option<Fragments>,
    /// With several workers: who owns what.
    pub(crate) sorter: Option<Sorter>,
    /// What came in from outside by a port that both ends of the chain share; mostly empty.
    inbound: Option<Box<Batch>>,
    /// One burst per port, empty between passes.
    staged: Vec<Burst>,
    dropped: Burst,
}

impl Pipeline {
    pub(crate) fn new(
        chain: Chain,
        (inside, outside): (PortIx, PortIx),
        pool: Mempool,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let staged = counters.ports.iter().map(|_| Burst::new()).collect();
        let (pending, dropped) = (Pending::new(), Burst::new());
        let inbound = Some(Box::new(Batch::with_limit(Burst::CAPACITY)));
        Self {
            chain,
            inside,
            outside,
            pool,
            counters,
            pending,
            errors: None,
            fragments: None,
            sorter: None,
            inbound,
            staged,
            dropped,
        }
    }

    /// Takes a batch that has arrived at a port, with the end of the chain that the port is, through
    /// the chain.
    #[inline]
    pub(crate) fn arrive<T: Transmit>(&mut self, batch: &mut Batch, direction: Direction, now: Instant, out: &mut T) {
        if T::TRACED {
            return self.arrive_traced(batch, direction, now, out);
        }
        self.enter(batch, direction, now, out);
    }

    /// The same, of what is marked already if it is to be traced.
    #[inline]
    pub(crate) fn enter(&mut self, batch: &mut Batch, direction: Direction, now: Instant, out: &mut impl Transmit) {
        if let (Some(forwarding), Some(inbound)) = (&mut self.chain.forwarding, &mut self.inbound) {
            forwarding.separate(batch, direction, inbound);
        }
        self.process(batch, direction, now, out);
        if let Some(mut inbound) = self.inbound.take_if(|inbound| !inbound.is_empty()) {
            self.process(&mut inbound, direction.reversed(), now, out);
            self.inbound = Some(inbound);
        }
    }

    /// Sends what the kernel has sent.
    pub(crate) fn host_sent(&mut self, batch: &mut Batch, port: PortIx, out: &mut impl Transmit) {
        if let Some(forwarding) = &mut self.chain.forwarding {
            forwarding.host_sent(batch, port);
        }
        self.settle_and_send(batch, Position::out_by(port), out);
    }

    /// Takes a batch that has arrived from one end of the chain to the other, as far as it is
    /// this worker's, and then whatever that set free.
    pub(crate) fn process(&mut self, batch: &mut Batch, direction: Direction, now: Instant, out: &mut impl Transmit) {
        if let Some(fragments) = &mut self.fragments {
            fragments.look_at(batch, direction, now, &self.counters);
        }
        loop {
            if let Some(sorter) = &mut self.sorter {
                sorter.sort(batch, direction, &self.counters);
            }
            if batch.is_empty() {
                batch.empty();
            } else {
                self.pass(batch, Position::entrance(direction, self.chain.len()), true, now, out);
                self.release_pending(batch, now, out);
            }
            // A first fragment may have set more free than fit into its batch.
            if !self.fragments.as_mut().is_some_and(|fragments| fragments.refill(batch)) {
                break;
            }
        }
    }

    /// Takes packets that another worker has handed over through the chain, each from where it
    /// came in, and leaves `handed` empty.
    pub(crate) fn take_over(&mut self, handed: &mut Burst, batch: &mut Batch, now: Instant, out: &mut impl Transmit) {
        bump(&self.counters.taken_over, handed.len() as u64);
        while let Some(entrance) = Entrance::of_first(handed) {
            for slot in 0..handed.len() {
                if handed.packet(slot).is_some_and(|packet| Entrance::read(packet) == entrance)
                    && let Some(mut packet) = handed.take(slot)
                {
                    Entrance::erase(&mut packet);
                    refuse(batch.push(packet), DropReason::HAND_OVER_FULL, &self.counters);
                }
            }
            self.pass(batch, entrance.position(self.chain.len()), entrance.arrives(), now, out);
        }
        handed.reset();
        self.release_pending(batch, now, out);
    }

    // Always: as a call it reads the position as one from memory, just written there in parts, and
    // so waits for every store before it, those to the packets among them: 1 ns per packet.
    #[inline(always)]
    fn pass<T: Transmit>(&mut self, batch: &mut Batch, position: Position, arrived: bool, now: Instant, out: &mut T) {
        if T::TRACED && batch.is_traced() {
            return self.pass_traced(batch, position, arrived, now, out);
        }
        self.walk(batch, position, arrived, now, out, &mut Unwatched);
    }

    #[inline(always)]
    pub(crate) fn walk(
        &mut self,
        batch: &mut Batch,
        position: Position,
        arrived: bool,
        now: Instant,
        out: &mut impl Transmit,
        watch: &mut impl Watch,
    ) {
        if let Some(port) = position.port_out() {
            batch.decide_all(Verdict::Send(port));
            watch.settles(batch);
            return self.settle_and_send(batch, position, out);
        }
        let cx = Context {
            now,
            position,
            inside: self.inside,
            outside: self.outside,
            pending: &mut self.pending,
            counters: &self.counters,
            pool: &self.pool,
            standing: self.chain.standing,
            errors: &mut self.errors,
            sorter: &mut self.sorter,
            crossing: Slots::default(),
            laps: Laps::begin(),
        };
        let mut hand = InHand::new(&mut *batch, cx, Doing::Batch);
        if arrived && let Some(forwarding) = &mut self.chain.forwarding {
            let WorkCounters { calls, packets, cycles } = &self.counters.ingress;
            bump(packets, hand.batch.len() as u64);
            watch.before(hand.batch, &hand.cx);
            forwarding.ingress(hand.batch, &mut hand.cx);
            watch.after(
                Place::Ingress,
                |packet: &mut _, cx: &_, note: &mut _| forwarding.trace_note(true, packet, cx, note),
                hand.batch,
                &mut hand.cx,
            );
            hand.cx.laps.end(calls, cycles);
        }
        self.chain.run(hand.batch, &mut hand.cx, watch);
        if let Some(forwarding) = &mut self.chain.forwarding {
            let WorkCounters { calls, packets, cycles } = &self.counters.egress;
            let undecided = u64::from(hand.batch.undecided_mask().count_ones());
            watch.before(hand.batch, &hand.cx);
            forwarding.egress(hand.batch, &mut hand.cx);
            watch.after(
                Place::Egress,
                |packet: &mut _, cx: &_, note: &mut _| forwarding.trace_note(false, packet, cx, note),
                hand.batch,
                &mut hand.cx,
            );
            // What has nothing to do for a batch is not called for it, as with functions.
            if undecided > 0 {
                bump(packets, undecided);
                hand.cx.laps.end(calls, cycles);
            }
        }
        watch.settles(hand.batch);
        hand.done();
        self.settle_and_send(batch, position, out);
    }

    #[inline(always)]
    fn settle_and_send(&mut self, batch: &mut Batch, position: Position, out: &mut impl Transmit) {
        match batch.all_to_one_port() {
            // Most bursts: they need not be taken apart.
            Some((port, burst)) if usize::from(port.0) < self.staged.len() => {
                transmit(port, burst, &self.counters, out);
                batch.empty();
            }
            _ => {
                self.settle(batch, position);
                self.send_staged(out);
            }
        }
    }

    /// Carries the verdicts out. What nobody decided about is dropped: fail closed.
    fn settle(&mut self, batch: &mut Batch, position: Position) {
        batch.settle(|packet, verdict| match verdict {
            Verdict::Send(port) => match self.staged.get_mut(usize::from(port.0)) {
                Some(staged) => refuse(staged.push(packet), DropReason::TX_FULL, &self.counters),
                None => discard(&mut self.dropped, packet, DropReason::NO_SUCH_PORT, &self.counters),
            },
            Verdict::Drop(reason) => discard(&mut self.dropped, packet, reason, &self.counters),
            Verdict::Next => discard(&mut self.dropped, packet, DropReason::UNDECIDED, &self.counters),
            Verdict::Turn if position.turned => {
                discard(&mut self.dropped, packet, DropReason::TURNED_TWICE, &self.counters);
            }
            Verdict::Turn => {
                let back = Position::entrance(position.direction.reversed(), self.chain.len());
                let own = match &mut self.sorter {
                    Some(sorter) => sorter.turn(packet, back.direction),
                    None => Some(packet),
                };
                if let Some(packet) = own {
                    self.pending.push(packet, Position { turned: true, ..back }, &self.counters);
                }
            }
        });
        if let Some(sorter) = &mut self.sorter {
            sorter.flush(&self.counters);
        }
        self.dropped.clear();
    }

    fn send_staged(&mut self, out: &mut impl Transmit) {
        for (port, burst) in (0..).map(PortIx).zip(&mut self.staged) {
            if !burst.is_empty() {
                transmit(port, burst, &self.counters, out);
            }
        }
    }

    /// Lets packets that were emitted, resumed or turned go on, together where they wait at
    /// the same place.
    #[inline]
    pub(crate) fn release_pending(&mut self, batch: &mut Batch, now: Instant, out: &mut impl Transmit) {
        // Mostly nothing waits.
        if self.pending.len() > 0 {
            self.release_some(batch, now, out);
        }
    }

    fn release_some(&mut self, batch: &mut Batch, now: Instant, out: &mut impl Transmit) {
        for _ in 0..PENDING_PASSES {
            let to_batch = |packet| refuse(batch.push(packet), DropReason::PENDING_FULL, &self.counters);
            let Some(position) = self.pending.pop(Burst::CAPACITY, to_batch) else { break };
            if let Some(sorter) = &mut self.sorter
                && position == Position::entrance(position.direction, self.chain.len())
            {
                sorter.sort_made(batch, position.direction, &self.counters);
            }
            self.pass(batch, position, false, now, out);
        }
        self.counters.pending.store(self.pending.len() as u64, Ordering::Relaxed);
    }

    /// Lets what is on its way arrive, so that no packet meets functions from before and after
    /// a letter. 256 packets at most wait, and 64 passes are enough unless functions pass
    /// packets to each other for ever; what a new policy does with those, it says.
    pub(crate) fn bring_to_rest(&mut self, batch: &mut Batch, now: Instant, out: &mut impl Transmit) {
        for _ in 0..ROUNDS_TO_REST {
            if self.pending.len() == 0 {
                break;
            }
            self.release_pending(batch, now, out);
        }
    }

    /// Housekeeping of every function.
    pub(crate) fn tick(&mut self, batch: &mut Batch, now: Instant, out: &mut impl Transmit) {
        self.tick_with(TICK_BUDGET, batch, now, out);
    }

    /// As [`Pipeline::tick`], where one stands for several.
    pub(crate) fn tick_with(&mut self, budget: Budget, batch: &mut Batch, now: Instant, out: &mut impl Transmit) {
        if let Some(fragments) = &mut self.fragments {
            fragments.tick(now, &self.counters);
        }
        let (chain, cx) = self.outside_of_batches(now);
        let mut hand = InHand::new((), cx, Doing::Tick);
        chain.tick(&mut hand.cx, budget);
        hand.done();
        self.release_pending(batch, now, out);
    }

    /// The chain, and a context for work that belongs to no batch.
    pub(crate) fn outside_of_batches(&mut self, now: Instant) -> (&mut Chain, Context<'_>) {
        let cx = Context {
            now,
            position: Position::entrance(Direction::Outbound, self.chain.len()),
            inside: self.inside,
            outside: self.outside,
            pending: &mut self.pending,
            counters: &self.counters,
            pool: &self.pool,
            standing: self.chain.standing,
            errors: &mut self.errors,
            sorter: &mut self.sorter,
            crossing: Slots::default(),
            laps: Laps::untimed(),
        };
        (&mut self.chain, cx)
    }

    /// Drops what still waits; the program stops.
    pub(crate) fn stop(&mut self) {
        let (chain, mut cx) = self.outside_of_batches(Instant::START);
        if let Some(forwarding) = &mut chain.forwarding {
            forwarding.stop(&mut cx);
            cx.counters.held_around.store(forwarding.held() as u64, Ordering::Relaxed);
        }
        if let Some(fragments) = &mut self.fragments {
            fragments.stop(&self.counters);
        }
        self.pending.clear(DropReason::STOPPED, &self.counters);
    }
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("chain", &self.chain).finish_non_exhaustive()
    }
}

/// Sends a burst without empty slots; what the port refuses is dropped.
#[inline]
fn transmit(port: PortIx, burst: &mut Burst, counters: &WorkerCounters, out: &mut impl Transmit) {
    if let Some(ring) = out.ring(port) {
        return hand_over(ring, burst, counters);
    }
    let packets = burst.len();
    out.send(port, burst);
    let refused = if burst.is_empty() { 0 } else { drop_refused(port, burst, counters, out) };
    if let Some(counters) = counters.ports.get(usize::from(port.0)) {
        bump(&counters.sent, (packets - refused) as u64);
    }
}

/// A driver stops at a full queue and at a packet that it cannot send, and does not say
/// which. So the first packet goes, and if then others get through it was that one.
#[cold]
fn drop_refused(port: PortIx, burst: &mut Burst, counters: &WorkerCounters, out: &mut impl Transmit) -> usize {
    if out.is_down(port) {
        counters.count_drops(burst, DropReason::PORT_DOWN);
        return burst.clear();
    }
    let (mut unsendable, mut in_doubt) = (0, 0);
    while !burst.is_empty() && in_doubt < MOST_IN_DOUBT {
        let behind = burst.len() - 1;
        drop(burst.take(0));
        in_doubt += 1;
        out.send(port, burst);
        if burst.len() < behind {
            unsendable += in_doubt;
            in_doubt = 0;
        }
    }
    counters.count_drops(burst, DropReason::TX_FULL);
    // Which of the two reasons these have is known when they are gone: who looks on does not see them.
    bump(&counters.drops[DropReason::TX_REFUSED.index()], unsendable as u64);
    bump(&counters.drops[DropReason::TX_FULL.index()], in_doubt as u64);
    unsendable + in_doubt + burst.clear()
}

#[inline]
fn discard(dropped: &mut Burst, packet: Mbuf, reason: DropReason, counters: &WorkerCounters) {
    counters.count_drop(&packet, reason);
    // A batch has no more packets than a burst has slots; one too many would be freed here.
    drop(dropped.push(packet));
}

/// Counts a packet that found no room.
#[inline]
fn refuse(result: Result<(), Mbuf>, reason: DropReason, counters: &WorkerCounters) {
    if let Err(packet) = result {
        counters.count_drop(&packet, reason);
    }
}

struct Queues<'a, const TRACED: bool>(&'a mut [WorkerPort]);

impl<const TRACED: bool> Transmit for Queues<'_, TRACED> {
    const TRACED: bool = TRACED;

    #[inline]
    fn send(&mut self, port: PortIx, burst: &mut Burst) {
        if let Some(queues) = self.0.get_mut(usize::from(port.0)).and_then(|port| port.queues.as_mut()) {
            queues.tx.send(burst);
        }
    }

    #[inline]
    fn ring(&mut self, port: PortIx) -> Option<&mut Producer> {
        self.0.get_mut(usize::from(port.0))?.to_sender.as_mut()
    }

    fn is_down(&self, port: PortIx) -> bool {
        self.0.get(usize::from(port.0)).is_some_and(|port| port.queues.is_none() && port.to_sender.is_none())
    }
}

/// Gives queues of a port back, or takes them. While they are away nothing is received, and what is to
/// be sent there is dropped.
#[cold]
fn run_errand(letter: &QueuesLetter, ports: &mut [WorkerPort], pipeline: &mut Pipeline) {
    let Some(port) = ports.get_mut(usize::from(letter.port.0)) else { return };
    match letter.errand {
        Errand::GiveBack => {
            if let Some(queues) = port.queues.take() {
                letter.berth.put(queues);
            }
        }
        Errand::Take { trusted } => {
            if let Some(queues) = letter.berth.take() {
                (port.queues, port.refused) = (Some(queues), 0);
                if let (Some(sorter), Role::Side(direction)) = (&mut pipeline.sorter, port.role) {
                    sorter.trust_anew(direction, trusted);
                }
            }
        }
    }
}

fn now_of(clock: Clock) -> impl Fn() -> Instant {
    move || Instant::from_nanoseconds(clock.elapsed_nanoseconds())
}

/// One lcore's packets, queues and functions.
pub(crate) struct Worker {
    pipeline: Pipeline,
    ports: Vec<WorkerPort>,
    /// Packets that others received and that belong here.
    as_owner: Vec<Consumer>,
    /// Packets that only the first worker can handle, this one. They are dear, and strangers can make
    /// any number of them, so they are not taken in every round but with the housekeeping.
    as_first: Vec<Consumer>,
    /// Packets that others handled and that leave by a queue of this one's.
    as_sender: Vec<(PortIx, Consumer)>,
    batch: Batch,
    /// Handed over by another worker; empty between two looks.
    handed: Burst,
    clock: Clock,
    mailbox: Arc<Mailbox>,
    rounds_to_tick: u32,
    next_tick: Instant,
    /// When the round before began, and whether it had no packets.
    round_began: Ticks,
    was_idle: bool,
}

impl Worker {
    pub(crate) fn new(
        pipeline: Pipeline,
        ports: Vec<WorkerPort>,
        (as_owner, as_first, as_sender): (Vec<Consumer>, Vec<Consumer>, Vec<(PortIx, Consumer)>),
        burst: usize,
        clock: Clock,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        let (batch, handed) = (Batch::with_limit(burst), Burst::with_limit(burst));
        let (rounds_to_tick, next_tick) = (TICK_ROUNDS, Instant::START);
        Self {
            pipeline,
            ports,
            as_owner,
            as_first,
            as_sender,
            batch,
            handed,
            clock,
            mailbox,
            rounds_to_tick,
            next_tick,
            round_began: Ticks(0),
            was_idle: true,
        }
    }

    /// Polls until told to stop, and gives the queues back.
    pub(crate) fn run(mut self, idle: Idle, stop: &AtomicBool) -> Vec<QueuePair> {
        // Nothing wakes a worker for what others hand over.
        let alone = self.as_owner.is_empty() && self.as_first.is_empty() && self.as_sender.is_empty();
        let mut naps = Naps::new(idle, alone);
        self.round_began = Ticks::now();
        while !stop.load(Ordering::Relaxed) {
            // A trace begins and ends with the housekeeping.
            if self.pipeline.chain.tracer.is_some() {
                self.rounds::<true>(&mut naps);
            } else {
                self.rounds::<false>(&mut naps);
            }
        }
        let now = self.now();
        self.housekeeping::<false>(now);
        self.pipeline.bring_to_rest(&mut self.batch, now, &mut Queues::<false>(&mut self.ports));
        self.pipeline.stop();
        // A function that panics while it is dropped must not take the queues with it.
        let Self { pipeline, ports, .. } = self;
        drop(pipeline);
        ports.into_iter().filter_map(|port| port.queues).collect()
    }

    /// Rounds until it is time for the housekeeping, and that.
    fn rounds<const TRACED: bool>(&mut self, naps: &mut Naps) {
        loop {
            let (now, idle) = self.round::<TRACED>();
            self.rounds_to_tick -= u32::from(!idle);
            let is_due = self.rounds_to_tick == 0 || now >= self.next_tick;
            if is_due {
                self.housekeeping::<TRACED>(now);
            }
            naps.after(idle, now_of(self.clock), &mut self.ports);
            if is_due {
                break;
            }
        }
    }

    fn now(&self) -> Instant {
        now_of(self.clock)()
    }

    /// The time, and how long the round before took: one reading tells both.
    #[inline]
    fn begin_round(&mut self) -> Instant {
        let reading = Ticks::now();
        let counters = &self.pipeline.counters;
        let cycles = if self.was_idle { &counters.idle_cycles } else { &counters.busy_cycles };
        bump(cycles, reading.since(self.round_began));
        self.round_began = reading;
        Instant::from_nanoseconds(self.clock.nanoseconds_at(reading))
    }

    /// One look at every port; the time, and whether there was nothing. This is the packet path.
    #[inline]
    fn round<const TRACED: bool>(&mut self) -> (Instant, bool) {
        let now = self.begin_round();
        let mut idle = true;
        for index in 0..self.ports.len() {
            let port = &mut self.ports[index];
            let Some(queues) = &mut port.queues else { continue };
            let received = self.batch.receive(&mut queues.rx);
            if received == 0 {
                continue;
            }
            idle = false;
            bump(&self.pipeline.counters.ports[index].received, received as u64);
            let role = port.role;
            if port.partial_checksums {
                partial_checksums::complete(&mut self.batch);
            }
            let out = &mut Queues::<TRACED>(&mut self.ports);
            match role {
                Role::Side(direction) => self.pipeline.arrive(&mut self.batch, direction, now, out),
                Role::Host(port) => self.pipeline.host_sent(&mut self.batch, port, out),
            }
        }
        for ring in &mut self.as_owner {
            if ring.receive(&mut self.handed) > 0 {
                idle = false;
                self.pipeline.take_over(&mut self.handed, &mut self.batch, now, &mut Queues::<TRACED>(&mut self.ports));
            }
        }
        for (port, ring) in &mut self.as_sender {
            let handed_over = ring.receive(&mut self.handed);
            if handed_over > 0 {
                idle = false;
                bump(&self.pipeline.counters.taken_over, handed_over as u64);
                if TRACED && let Some(tracer) = &mut self.pipeline.chain.tracer {
                    self.handed
                        .iter()
                        .filter(|packet| packet.is_traced())
                        .for_each(|packet| tracer.leaves(packet, *port));
                }
                transmit(*port, &mut self.handed, &self.pipeline.counters, &mut Queues::<TRACED>(&mut self.ports));
            }
        }
        self.was_idle = idle;
        bump(&self.pipeline.counters.rounds, 1);
        bump(&self.pipeline.counters.idle_rounds, u64::from(idle));
        (now, idle)
    }

    fn housekeeping<const TRACED: bool>(&mut self, now: Instant) {
        self.rounds_to_tick = TICK_ROUNDS;
        self.next_tick = now + TICK_TIME;
        for (port, counters) in self.ports.iter_mut().zip(&self.pipeline.counters.ports) {
            let refused = port.queues.as_ref().map_or(0, |queues| queues.rx.refused()) - port.refused;
            port.refused += refused;
            bump(&counters.received, refused);
            bump(&self.pipeline.counters.drops[DropReason::NOT_ONE_SEGMENT.index()], refused);
        }
        for ring in &mut self.as_first {
            if ring.receive(&mut self.handed) > 0 {
                self.pipeline.take_over(&mut self.handed, &mut self.batch, now, &mut Queues::<TRACED>(&mut self.ports));
            }
        }
        while self.mailbox.has_mail() {
            self.pipeline.bring_to_rest(&mut self.batch, now, &mut Queues::<TRACED>(&mut self.ports));
            self.mailbox.open_next(|letter| match letter {
                Letter::Chain(work) => {
                    let (chain, cx) = self.pipeline.outside_of_batches(now);
                    let mut hand = InHand::new((), cx, Doing::Letter);
                    work(chain, &mut hand.cx);
                    hand.done();
                }
                Letter::Queues(letter) => run_errand(letter, &mut self.ports, &mut self.pipeline),
            });
        }
        self.pipeline.tick(&mut self.batch, now, &mut Queues::<TRACED>(&mut self.ports));
    }
}
