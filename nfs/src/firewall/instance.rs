//! The packet path of one worker.

use super::answer::{self, Told};
use super::config::{Action, Checksums, Live, LogConfig, Passage, State};
use super::connection::{Connection, Course, Ends, FlowKey, Generation, KeyV4, KeyV6, NO_SLOT};
use super::limits::Limits;
use super::log::{Event, Events, What};
use super::packet::{
    Flow, Kind, NotSeen, Quoted, Says, Seen, Usual, is_sound, look, usual_segment, usual_v4, usual_v6,
};
use super::policy::{Decision, Policy};
use super::reasons::{Counters, Reasons};
use super::syn_proxy::{self, SynProxy};
use super::tcp::{self, Judgement, Tcp};
use super::timer::Timer;
use super::tracking::{Place, Refusal, Table, Tracking};
use super::views::Asked;
use nf_framework::headers::{IpProtocol, TcpFlags};
use nf_framework::{
    Batch, Budget, Context, Deadline, Direction, DropReason, Handle, Key, Mbuf, NetworkFunction, TokenBucket, Verdict,
};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

/// What handles the packets of one worker.
#[derive(Debug)]
pub struct Instance {
    pub(super) policy: Arc<Policy>,
    pub(super) tracking: Tracking,
    /// By slot: packets that began or were about a connection, and that its rule decided about.
    pub(super) hits: Vec<u64>,
    pub(super) limits: Limits,
    /// Where a rule has SYN cookies.
    pub(super) proxy: Option<SynProxy>,
    /// Of answers to what is rejected.
    answers: TokenBucket,
    events: Events,
    workers: usize,
    pub(super) reasons: Reasons,
    pub(super) counters: Counters,
    /// Of a batch; at hand between batches.
    scratch: Option<Box<Scratch>>,
}

/// As many as a batch has slots.
const MOST: usize = 64;

/// The packets of a batch that are usual, by family, and those that rules are to be asked about.
#[derive(Debug)]
struct Scratch {
    v4: Looked<KeyV4>,
    v6: Looked<KeyV6>,
    /// Slot, and whether it only waits for what those before it begin.
    asked: Vec<(usize, Seen, bool)>,
    questions: Vec<Asked>,
    decisions: Vec<Decision>,
}

#[derive(Debug)]
struct Looked<K> {
    keys: [K; MOST],
    courses: [Course; MOST],
    found: [Option<Handle>; MOST],
    count: usize,
    /// Those of the batch that they are of, a bit for each slot.
    slots: u64,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    Pass,
    Drop(DropReason),
    /// The rules are asked.
    Ask(Seen, State),
    /// It belongs to nothing, or to what is over; but a packet before it in the batch, which the rules are still to be
    /// asked about, may begin what it belongs to.
    Wait(Seen, DropReason),
}

impl<K: Copy> Looked<K> {
    fn new(key: K) -> Self {
        Self { keys: [key; MOST], courses: [Course::default(); MOST], found: [None; MOST], count: 0, slots: 0 }
    }

    fn clear(&mut self) {
        (self.count, self.slots) = (0, 0);
    }

    #[inline(always)]
    fn push(&mut self, slot: usize, usual: Usual<K>, direction: Direction) {
        let at = self.count % MOST;
        (self.keys[at], self.courses[at]) = (usual.key, Course::new(usual.from_low, direction));
        self.count += 1;
        self.slots |= 1 << (slot % MOST);
    }

    #[inline(always)]
    fn has(&self, slot: usize) -> bool {
        self.slots >> (slot % MOST) & 1 == 1
    }

    /// What was found for the next packet, of those that were pushed, in their order.
    #[inline(always)]
    fn next(&self, next: &mut usize) -> Option<(Handle, Course)> {
        let at = *next % MOST;
        *next += 1;
        Some((self.found[at]?, self.courses[at]))
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            v4: Looked::new([0; 16]),
            v6: Looked::new([0; 40]),
            asked: Vec::with_capacity(MOST),
            questions: Vec::with_capacity(MOST),
            decisions: Vec::with_capacity(MOST),
        }
    }
}

impl NetworkFunction for Instance {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let Some(mut scratch) = self.scratch.take() else { return };
        self.tracking.reckon(&self.policy, cx.now());
        self.judge(batch, cx, &mut scratch);
        self.scratch = Some(scratch);
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.tracking.tick(cx.now(), budget.0);
        self.limits.tick(cx.now(), budget.0);
        if let Some(proxy) = &mut self.proxy {
            proxy.tick(cx.now());
        }
        self.events.tick();
        self.counters.follow(&self.tracking);
    }

    fn sessions(&self) -> u64 {
        let (v4, v6) = self.tracking.lengths();
        (v4 + v6) as u64
    }
}

impl Instance {
    pub(super) fn new(
        policy: Arc<Policy>,
        (tracking, limits, proxy): (Tracking, Limits, Option<SynProxy>),
        workers: usize,
        events: Events,
        reasons: Reasons,
        counters: Counters,
    ) -> Self {
        let scratch = Some(Box::default());
        let mut instance = Self {
            tracking,
            hits: Vec::new(),
            limits,
            proxy,
            answers: bucket_of_answers(&policy, workers),
            events,
            workers,
            reasons,
            counters,
            scratch,
            policy,
        };
        instance.make_room();
        instance
    }

    pub(super) fn adopt(&mut self, policy: Arc<Policy>) {
        if policy.config.live == Live::Rejudge {
            self.tracking.outdate();
        }
        if policy.config.rejections_per_second != self.policy.config.rejections_per_second {
            self.answers = bucket_of_answers(&policy, self.workers);
        }
        self.policy = policy;
        self.limits.adopt(&self.policy, self.workers);
        self.make_room();
    }

    /// A place for each slot of a rule.
    fn make_room(&mut self) {
        let slots = self.policy.slots();
        self.hits.resize(slots.max(self.hits.len()), 0);
        self.tracking.adopt(&self.policy.config, slots, self.workers);
        if let Some(proxy) = &mut self.proxy {
            proxy.adopt(slots);
        }
    }

    /// In the order in which the packets came, so that those of one connection stay in theirs.
    fn judge(&mut self, batch: &mut Batch, cx: &mut Context<'_>, scratch: &mut Scratch) {
        let Scratch { v4, v6, asked, questions, decisions } = scratch;
        v4.clear();
        v6.clear();
        let direction = cx.direction();
        let mut all = 0;
        for (slot, packet) in batch.undecided_packets() {
            all += 1;
            if let Some(usual) = usual_v4(packet.data()) {
                v4.push(slot, usual, direction);
            } else if let Some(usual) = usual_v6(packet.data()) {
                v6.push(slot, usual, direction);
            }
        }
        self.tracking.v4.lookup_batch(&v4.keys[..v4.count.min(MOST)], &mut v4.found);
        if v6.count > 0 {
            self.tracking.v6.lookup_batch(&v6.keys[..v6.count.min(MOST)], &mut v6.found);
        }
        let by =
            Bearings { generation: self.tracking.generation(), verify: self.policy.config.checksums == Checksums::All };
        let Tracking { v4: table_v4, v6: table_v6, deadlines, .. } = &mut self.tracking;
        // Nearly always all packets are usual and of one family.
        let passed = if v4.count == all {
            pass_known(table_v4, deadlines, batch, v4, (by, false))
        } else if v6.count == all {
            pass_known(table_v6, deadlines, batch, v6, (by, true))
        } else {
            0
        };
        if passed == all {
            return;
        }
        asked.clear();
        questions.clear();
        let (mut next_v4, mut next_v6) = (passed.min(v4.count), passed.min(v6.count));
        for slot in batch.undecided().skip(passed) {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            let Tracking { v4: table_v4, v6: table_v6, deadlines, .. } = &mut self.tracking;
            let known = if v4.has(slot) {
                let found = v4.next(&mut next_v4);
                found.is_some_and(|found| known(table_v4, deadlines, packet, found, (by, false)))
            } else if v6.has(slot) {
                let found = v6.next(&mut next_v6);
                found.is_some_and(|found| known(table_v6, deadlines, packet, found, (by, true)))
            } else {
                false
            };
            if known {
                continue;
            }
            match self.closer(packet, !asked.is_empty(), cx) {
                Fate::Pass => {}
                Fate::Drop(reason) => batch.decide(slot, Verdict::Drop(reason)),
                Fate::Wait(_, reason) if asked.is_empty() => batch.decide(slot, Verdict::Drop(reason)),
                Fate::Wait(seen, _) => {
                    let state = if matches!(seen.kind, Kind::Error(_)) { State::Related } else { State::New };
                    asked.push((slot, seen, true));
                    questions.push(question(&seen, state, direction));
                }
                Fate::Ask(seen, state) => {
                    asked.push((slot, seen, false));
                    questions.push(question(&seen, state, direction));
                }
            }
        }
        if asked.is_empty() {
            return;
        }
        decisions.clear();
        decisions.extend(questions.iter().map(|_| Decision::default()));
        self.policy.decide(questions, decisions);
        for ((slot, seen, waits), (question, decision)) in asked.iter().zip(questions.iter().zip(decisions.iter())) {
            let Some(packet) = batch.packet_mut(*slot) else { continue };
            let fate = match seen.kind {
                // Another packet of this batch may have begun it.
                Kind::Flow(flow, says) => self.of_flow(packet, seen, (&flow, says), false, cx),
                Kind::Error(quoted) if *waits => self.error(seen, &quoted, false, cx),
                _ => Fate::Ask(*seen, question.state),
            };
            let reason = match fate {
                Fate::Pass => None,
                Fate::Drop(reason) | Fate::Wait(_, reason) => Some(reason),
                Fate::Ask(..) => self.answered(packet, seen, question.state, *decision, cx),
            };
            if let Some(reason) = reason {
                batch.decide(*slot, Verdict::Drop(reason));
            }
        }
    }

    /// Any packet; whether others before it wait for the rules.
    #[cold]
    fn closer(&mut self, packet: &mut Mbuf, others_wait: bool, cx: &mut Context<'_>) -> Fate {
        if self.proxy.is_some() {
            let verify = self.policy.config.checksums == Checksums::All;
            if self.carry_renumbered(packet, verify, cx) {
                return Fate::Pass;
            }
        }
        let seen = match look(packet) {
            Ok(seen) => seen,
            Err(not_seen) => return self.not_seen(not_seen),
        };
        match seen.kind {
            Kind::Neighbours => Fate::Pass,
            Kind::Message => Fate::Ask(seen, State::New),
            Kind::Error(quoted) => self.error(&seen, &quoted, others_wait, cx),
            _ if seen.fragment && self.refuses_fragments() => Fate::Drop(self.reasons.fragment),
            Kind::Flow(flow, says) => self.of_flow(packet, &seen, (&flow, says), others_wait, cx),
        }
    }

    fn refuses_fragments(&self) -> bool {
        self.policy.config.fragments == Passage::Drop
    }

    fn not_seen(&self, not_seen: NotSeen) -> Fate {
        let passes = match not_seen {
            NotSeen::Arp => self.policy.config.arp == Passage::Accept,
            NotSeen::Other(ether_type) => self.policy.config.lets_through(ether_type),
            _ => false,
        };
        if passes { Fate::Pass } else { Fate::Drop(self.reasons.of(not_seen)) }
    }

    /// A packet of a connection, or that begins one.
    fn of_flow(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        (flow, says): (&Flow, Says),
        others_wait: bool,
        cx: &mut Context<'_>,
    ) -> Fate {
        let found = self.tracking.find(&flow.key).map(|place| (place, *flow));
        let found = match (found, says) {
            // Its request may be among those.
            (None, Says::LaterOfQuery(_)) if others_wait => return Fate::Wait(*seen, self.reasons.fragment),
            (None, Says::LaterOfQuery(other)) => self.tracking.find(&other.key).map(|place| (place, other)),
            (found, _) => found,
        };
        match found {
            Some((place, _)) if others_wait && self.may_be_replaced(place) => {
                Fate::Wait(*seen, self.reasons.no_connection)
            }
            Some((place, flow)) => self.follow(packet, place, seen, (&flow, says), cx),
            None => self.beginning(seen, says),
        }
    }

    /// Whether a SYN that the rules are still to be asked about may take a connection's place.
    fn may_be_replaced(&self, place: Place) -> bool {
        self.tracking.get(place).is_some_and(|connection| connection.tcp.is_over())
    }

    /// A packet without a connection.
    fn beginning(&self, seen: &Seen, says: Says) -> Fate {
        match says {
            Says::Tcp(segment) => match tcp::event(segment.flags) {
                None => Fate::Wait(*seen, self.reasons.tcp_flags),
                Some(tcp::Event::Syn) => Fate::Ask(*seen, State::New),
                // As its SYN would have been.
                Some(tcp::Event::Ack) if self.returned(seen).is_some() => {
                    Fate::Ask(Seen { key: seen.key.tcp_flags(TcpFlags::SYN), ..*seen }, State::New)
                }
                Some(tcp::Event::Ack) if self.policy.config.mid_stream => Fate::Ask(*seen, State::New),
                Some(_) => Fate::Wait(*seen, self.reasons.no_connection),
            },
            Says::Query { asks: true } | Says::Datagram => Fate::Ask(*seen, State::New),
            Says::Query { asks: false } => Fate::Wait(*seen, self.reasons.no_connection),
            Says::Later | Says::LaterOfQuery(_) => Fate::Wait(*seen, self.reasons.fragment),
        }
    }

    /// A packet of a connection.
    fn follow(
        &mut self,
        packet: &mut Mbuf,
        place: Place,
        seen: &Seen,
        (flow, says): (&Flow, Says),
        cx: &mut Context<'_>,
    ) -> Fate {
        let Some(connection) = self.tracking.get(place).copied() else { return self.beginning(seen, says) };
        let Some(side) = connection.side(Course::new(flow.from_low, cx.direction())) else {
            return Fate::Drop(self.reasons.side);
        };
        if connection.generation() != self.tracking.generation() && !self.rejudge(place, flow) {
            return Fate::Drop(self.reasons.ended);
        }
        // It stays as it is until the rules have accepted what is to take its place.
        if let Says::Tcp(segment) = says
            && (connection.tcp.begins_anew(side, &segment) || connection.tcp.is_over() && self.returned(seen).is_some())
        {
            return self.beginning(seen, says);
        }
        // A new rule may have another slot.
        let slot = self.tracking.get(place).map_or(NO_SLOT, |connection| connection.slot);
        if connection.is_limited() && !self.limits.packet(slot, begun_by(seen, side), cx.now()) {
            return Fate::Drop(self.reasons.rate_limit);
        }
        let says = if connection.is_proxied() {
            match self.proxied(packet, (place, seen, side), says, cx) {
                ControlFlow::Continue(says) => says,
                ControlFlow::Break(fate) => return fate,
            }
        } else {
            says
        };
        let Some(connection) = self.tracking.get_mut(place) else { return Fate::Drop(self.reasons.ended) };
        match says {
            Says::Tcp(segment) => {
                let Some(event) = tcp::event(segment.flags) else { return Fate::Drop(self.reasons.tcp_flags) };
                match connection.tcp.follow(side, event, &segment) {
                    Judgement::Follows => {}
                    Judgement::Ignored => return Fate::Pass,
                    Judgement::BeginsAnew => return Fate::Ask(*seen, State::New),
                    Judgement::WrongState => return Fate::Drop(self.reasons.tcp_state),
                    Judgement::OutOfWindow => return Fate::Drop(self.reasons.tcp_window),
                    Judgement::InexactReset => return Fate::Drop(self.reasons.tcp_reset),
                }
            }
            Says::Query { asks } if asks != (side == tcp::ORIGINATOR) => return Fate::Drop(self.reasons.no_connection),
            // It tells nothing that its first one has not told.
            Says::Later | Says::LaterOfQuery(_) => return Fate::Pass,
            Says::Query { .. } | Says::Datagram => connection.hear(side),
        }
        self.tracking.settle(place, flow.protocol);
        Fate::Pass
    }

    /// Whether a connection that other rules have accepted would be by these; it ends if not. Those that the last reload
    /// has kept are not asked about, whatever one before it was to do with them.
    #[cold]
    fn rejudge(&mut self, place: Place, flow: &Flow) -> bool {
        let generation = self.tracking.generation();
        if self.policy.config.live == Live::Keep {
            return self.tracking.get_mut(place).map(|connection| connection.set_generation(generation)).is_some();
        }
        let Some(connection) = self.tracking.get(place).copied() else { return false };
        let Some(key) = first_key(&flow.key, &connection) else { return false };
        let (state, direction, vlan) = (State::New, connection.direction(), connection.vlan());
        let decision = self.policy.decide_one(&Asked { key, state, direction, dscp: 0, vlan, fragment: false });
        if decision.action != Action::Accept {
            self.tracking.end(place);
            return false;
        }
        let limited = self.is_limited(decision.slot);
        let slot = decision.slot.unwrap_or(NO_SLOT);
        if connection.slot != slot {
            self.tracking.move_to(place, slot);
        }
        if let Some(connection) = self.tracking.get_mut(place) {
            connection.set_generation(generation);
            connection.set_limited(limited);
        }
        true
    }

    fn is_limited(&self, slot: Option<u16>) -> bool {
        slot.is_some_and(|slot| self.limits.are_of_packets(slot))
    }

    /// An ICMP error: about a packet of a connection, going the way back to its sender.
    fn error(&mut self, seen: &Seen, quoted: &Quoted, others_wait: bool, cx: &Context<'_>) -> Fate {
        let unrelated = Fate::Drop(self.reasons.unrelated);
        let found = self.tracking.find(&quoted.flow.key).filter(|place| !others_wait || !self.may_be_replaced(*place));
        let found = found.and_then(|place| Some((place, self.tracking.get(place).copied()?)));
        let Some((place, connection)) = found else { return Fate::Wait(*seen, self.reasons.unrelated) };
        let Some(side) = connection.side(Course::new(quoted.flow.from_low, cx.direction().reversed())) else {
            return unrelated;
        };
        let sequence = quoted.sequence.map(|sequence| sequence.wrapping_add(self.ahead(place, side)));
        let was_sent = sequence.is_none_or(|sequence| connection.tcp.may_have_sent(side, sequence));
        if !quoted.goes_back || !was_sent {
            return unrelated;
        }
        if connection.generation() != self.tracking.generation() && !self.rejudge(place, &quoted.flow) {
            return Fate::Drop(self.reasons.ended);
        }
        Fate::Ask(*seen, State::Related)
    }

    /// What becomes of a packet that the rules have decided about; the reason if it is dropped.
    fn answered(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        state: State,
        decision: Decision,
        cx: &mut Context<'_>,
    ) -> Option<DropReason> {
        for slot in [decision.slot, self.policy.slot_of(decision.logged_by)].into_iter().flatten() {
            if let Some(hits) = self.hits.get_mut(usize::from(slot)) {
                *hits += 1;
            }
        }
        if decision.logged_by.is_some() {
            self.write_down(What::Logged, decision.logged_by, seen, cx);
        }
        let now = cx.now();
        let reason = match decision.action {
            Action::Accept => self.accepted(packet, seen, state, decision, cx).err(),
            Action::Drop | Action::Log | Action::Reject => {
                self.counters.denied.add(1);
                Some(if decision.slot.is_some() { self.reasons.denied } else { self.reasons.unmatched })
            }
        };
        let what = match (decision.action, reason) {
            (Action::Accept, None) => What::Accepted,
            (Action::Accept, Some(reason)) if reason == self.reasons.syn_proxy => What::Accepted,
            // Nobody has shown that it is there.
            (Action::Accept, Some(reason)) if reason == self.reasons.syn_cookie => return Some(reason),
            (Action::Accept, Some(_)) => What::Limited,
            (Action::Reject, _) => What::Rejected,
            (Action::Drop | Action::Log, _) => What::Dropped,
        };
        if what == What::Rejected {
            match answer::reject(packet, cx, || self.answers.take(now)) {
                Told::Sent => self.counters.rejected.add(1),
                Told::Bounded => self.counters.untold.add(1),
                Told::Nothing => {}
            }
        }
        let is_wanted = |log: &LogConfig| if what == What::Accepted { log.accepted } else { log.denied };
        if self.policy.config.log.as_ref().is_some_and(is_wanted) {
            self.write_down(what, decision.rule, seen, cx);
        }
        reason
    }

    fn write_down(&mut self, what: What, rule: Option<usize>, seen: &Seen, cx: &Context<'_>) {
        if self.events.are_heard() {
            self.events.tell(Event::new(what, self.policy.quoted(rule), seen, cx.direction()));
        }
    }

    /// A packet that a rule accepts, or that is related; why it is dropped all the same.
    fn accepted(
        &mut self,
        packet: &mut Mbuf,
        seen: &Seen,
        state: State,
        Decision { rule, slot, .. }: Decision,
        cx: &mut Context<'_>,
    ) -> Result<(), DropReason> {
        let now = cx.now();
        let returned = self.returned(seen);
        if let (None, Kind::Flow(flow, Says::Tcp(segment))) = (&returned, &seen.kind)
            && self.wants_cookies(rule)
        {
            return Err(self.offer_cookie(packet, seen, (flow, segment), cx));
        }
        if let Some(slot) = slot
            && (!self.limits.connection(slot, seen.source, now)
                || state == State::New && !self.limits.packet(slot, seen.source, now))
        {
            return Err(self.reasons.rate_limit);
        }
        let (flow, says) = match seen.kind {
            Kind::Flow(flow, says) => (flow, says),
            Kind::Error(quoted) => {
                self.renumber_quoted(packet, &quoted, cx);
                return Ok(());
            }
            _ => return Ok(()),
        };
        if cx.draining() {
            return Err(DropReason::DRAINING);
        }
        let Some((segment, offer)) = returned else { return self.begin(seen, &flow, says, slot, cx).map(drop) };
        let place = self.begin(seen, &flow, Says::Tcp(syn_proxy::syn_of(&segment, &offer)), slot, cx)?;
        self.ask_server(packet, place, segment.acknowledgment.wrapping_sub(1), cx);
        Err(self.reasons.syn_proxy)
    }

    fn begin(
        &mut self,
        seen: &Seen,
        flow: &Flow,
        says: Says,
        slot: Option<u16>,
        cx: &Context<'_>,
    ) -> Result<Place, DropReason> {
        let tcp = match says {
            Says::Tcp(segment) if segment.flags.contains(TcpFlags::SYN) => Tcp::begun(&segment),
            Says::Tcp(segment) => Tcp::picked_up(&segment),
            _ => Tcp::default(),
        };
        let mut connection = Connection::new(tcp, flow.from_low, cx.direction());
        connection.slot = slot.unwrap_or(NO_SLOT);
        connection.set_generation(self.tracking.generation());
        connection.set_vlan(seen.vlan);
        connection.set_limited(self.is_limited(slot));
        let timer = connection.timer(flow.protocol);
        let now = cx.now();
        let timeout = self.policy.timeouts.get(timer as usize).map_or(now, |timeout| now + *timeout);
        let is_tcp = flow.protocol == IpProtocol::TCP;
        let embryonic = slot.filter(|_| is_tcp).and_then(|slot| self.limits.embryonic(slot));
        let begun = self.tracking.begin(&flow.key, connection, seen.source, embryonic, (timeout, now));
        let place = begun.map_err(|refusal| match refusal {
            Refusal::Full => self.reasons.full,
            Refusal::SourceLimit => self.reasons.source_limit,
            Refusal::SourcesFull => self.reasons.sources_full,
            Refusal::EmbryonicLimit => self.reasons.embryonic_limit,
        })?;
        self.tracking.settle(place, flow.protocol);
        self.counters.accepted.add(1);
        Ok(place)
    }
}

/// Who began a connection that this packet of a side is of.
fn begun_by(seen: &Seen, side: usize) -> IpAddr {
    if side == tcp::ORIGINATOR { seen.source } else { seen.destination }
}

fn bucket_of_answers(policy: &Policy, workers: usize) -> TokenBucket {
    let share = policy.config.rejections_per_second.div_ceil(u32::try_from(workers).unwrap_or(u32::MAX));
    TokenBucket::new(share, share.div_ceil(10))
}

/// What a connection is judged by that lets usual packets through.
#[derive(Clone, Copy)]
struct Bearings {
    generation: Generation,
    /// Whether all checksums are verified.
    verify: bool,
}

/// Lets the first of a batch's packets through, all of which are usual, up to one that needs a closer look; how many.
/// By itself, so that all that it needs is in registers.
#[inline(never)]
fn pass_known<K: Ends>(
    table: &mut Table<K>,
    deadlines: &[Deadline; Timer::COUNT],
    batch: &mut Batch,
    looked: &Looked<K>,
    by: (Bearings, bool),
) -> usize {
    let mut passed = 0;
    for (_, packet) in batch.undecided_packets() {
        let at = passed % MOST;
        let Some(handle) = looked.found[at] else { break };
        if !known(table, deadlines, packet, (handle, looked.courses[at]), by) {
            break;
        }
        passed += 1;
    }
    passed
}

/// Lets a usual packet through of a connection in which nothing new happens.
#[inline(always)]
fn known<K: Ends>(
    table: &mut Table<K>,
    deadlines: &[Deadline; Timer::COUNT],
    packet: &mut Mbuf,
    (handle, course): (Handle, Course),
    (by, six): (Bearings, bool),
) -> bool {
    let Some(mut entry) = table.entry_mut(handle) else { return false };
    let Some(side) = entry.value.side(course) else { return false };
    if entry.value.generation() != by.generation || entry.value.is_laborious() {
        return false;
    }
    let is_tcp = entry.key.protocol() == IpProtocol::TCP;
    if by.verify && !is_sound(packet) {
        return false;
    }
    if is_tcp {
        let segment = usual_segment(packet.data(), six);
        let carried = segment.is_some_and(|(sequence, acknowledgment, window, payload)| {
            entry.value.tcp.carry(side, sequence, acknowledgment, window, payload)
        });
        if carried {
            entry.touch(deadlines[Timer::TcpEstablished as usize]);
        }
        return carried;
    }
    let assured = entry.value.is_assured();
    // An answer, or what follows one, tells something new.
    if !assured && (side == tcp::RESPONDER) != entry.value.is_answered() {
        return false;
    }
    let timer = if assured { Timer::UdpAnswered } else { Timer::Udp };
    entry.touch(deadlines[timer as usize]);
    true
}

fn question(seen: &Seen, state: State, direction: Direction) -> Asked {
    Asked { key: seen.key, state, direction, dscp: seen.dscp, vlan: seen.vlan, fragment: seen.fragment }
}

/// What rules would have been asked about the first packet of a connection.
fn first_key(key: &FlowKey, connection: &Connection) -> Option<Key> {
    let ((low, high), protocol) = match key {
        FlowKey::V4(key) => (key.ends(), key.protocol()),
        FlowKey::V6(key) => (key.ends(), key.protocol()),
    };
    let (from, to) = if connection.low_began() { (low, high) } else { (high, low) };
    let key = match (from.0, to.0) {
        (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) => Key::ipv4(source, destination, protocol),
        (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) => Key::ipv6(source, destination, protocol),
        _ => return None,
    };
    Some(match protocol {
        IpProtocol::TCP => key.ports(from.1, to.1).tcp_flags(connection.tcp.first_flags()),
        IpProtocol::UDP => key.ports(from.1, to.1),
        // Of queries only the kind is known: an echo, or with 1 in the answerer's place a timestamp.
        IpProtocol::ICMP => key.icmp(if to.1 == 0 { 8 } else { 13 }, 0),
        IpProtocol::ICMPV6 => key.icmp(128, 0),
        _ => key,
    })
}
