//! All checks of all backends. It has no clock, no thread and no socket: time and packets come in, packets for
//! backends go out, and what is known of each backend is written to its [`Status`].
//!
//! What it keeps is bounded: as many checks are under way at once as there are [`PORTS`], each with a few kilobytes.
//! What is due when there is none left waits, those first that have waited longest: with many dead backends checks
//! come later, and never worse.

use super::arrival::{PORTS, arrival};
use super::awaited::Awaited;
use super::check::Check;
use super::failure::Failure;
use super::judge::{Judge, State};
use super::passive::{Traffic, Window};
use super::probe::{Ends, Probe};
use super::slow_start;
use crate::load_balancer::status::{Status, WHOLE};
use nf_framework::Invalid;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// A backend's number, which is its own for as long as it, or a connection to it, exists.
pub(crate) type Slot = u16;

/// Checks that begin in one go, so that their packets do not come all at once.
const MOST_BEGIN: usize = 64;
/// The first check of a backend comes within this, or within its interval.
const FIRST: Duration = Duration::from_secs(1);
/// When nobody has looked for so long, that time is taken from nobody.
const GAP: Duration = Duration::from_millis(100);
/// Checks that are over and of which answers are still counted, and not strangers' packets.
const LATE: usize = 16;
/// How often growing weights and traffic are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Where checks come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ProbeAddresses {
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
}

impl ProbeAddresses {
    /// Validates the key `probe_addresses`.
    pub(crate) fn new(addresses: &[IpAddr]) -> Result<Self, Invalid> {
        let mut this = Self::default();
        for (index, address) in addresses.iter().enumerate() {
            let invalid = |message: String| Err(Invalid::new(format!("probe_addresses[{index}]"), message));
            if address.is_unspecified() || address.is_multicast() || *address == IpAddr::V4(Ipv4Addr::BROADCAST) {
                return invalid(format!("{address} is no address of a host"));
            }
            let is_second = match address {
                IpAddr::V4(address) => this.v4.replace(*address).is_some(),
                IpAddr::V6(address) => this.v6.replace(*address).is_some(),
            };
            if is_second {
                return invalid(format!("{address} is the second of its family: one is enough"));
            }
        }
        Ok(this)
    }

    /// Whether this is one of them.
    #[inline]
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.v4 == Some(address),
            IpAddr::V6(address) => self.v6 == Some(address),
        }
    }

    /// The one from which this address can be reached.
    pub(crate) fn towards(&self, address: IpAddr) -> Option<IpAddr> {
        match address {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}

/// A backend that is checked.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) slot: Slot,
    /// The service that it stands in for.
    pub(crate) service: Arc<str>,
    /// Its own name within the service.
    pub(crate) name: String,
    /// Where a check goes: to the service's address where the backend has that, else to the backend's.
    pub(crate) remote: (IpAddr, u16),
    pub(crate) check: Arc<Check>,
    /// Where it is written how much of its weight it may get; what makes it the same backend over reloads. One
    /// that is in use when its checks begin stays so until they say otherwise.
    pub(crate) status: Arc<Status>,
}

/// A backend has become another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Change {
    pub(crate) service: Arc<str>,
    pub(crate) name: String,
    pub(crate) from: State,
    pub(crate) to: State,
    /// What it went down for.
    pub(crate) why: Option<Failure>,
    /// For how long it is kept down at least.
    pub(crate) held_for: Option<Duration>,
}

/// What is known of a backend.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendHealth {
    /// Its service's name.
    pub service: String,
    /// Its own.
    pub name: String,
    /// Whether it is ready.
    pub state: State,
    /// For how long it has been so.
    pub state_for: Duration,
    /// How many tenths of its weight it has.
    pub tenths: u8,
    /// How its last check ended.
    pub last: Option<Result<(), Failure>>,
    /// For how long it is kept down although it may answer.
    pub held_for: Option<Duration>,
    /// Checks that have ended.
    pub checks: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// How often it has gone down or come back.
    pub changes: u64,
}

/// What all checks have come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct HealthCounters {
    /// Checks that have ended.
    pub checks: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// Checks that had to wait for others to end.
    pub late: u64,
    /// Packets for a check that is over.
    pub stray: u64,
}

/// See the module's page.
pub(crate) struct Engine {
    addresses: ProbeAddresses,
    backends: BTreeMap<Slot, Backend>,
    /// When the next check of a backend is due; a turn that is not the backend's own means nothing.
    due: BinaryHeap<Reverse<(Duration, u64, Slot)>>,
    turns: u64,
    /// By port, from the first of [`PORTS`] on.
    probes: Vec<Option<(Slot, Box<Probe>)>>,
    /// Whom they ask.
    awaited: Arc<Awaited>,
    /// Which of them are under way.
    active: Vec<u16>,
    /// Ports that no check has; the one that has rested longest first.
    free: VecDeque<u16>,
    random: Random,
    changes: Vec<Change>,
    counters: HealthCounters,
    /// When somebody last looked.
    seen: Option<Duration>,
    /// It has been told whom to check.
    has_followed: bool,
    next_look: Duration,
}

struct Backend {
    target: Target,
    judge: Judge,
    turn: u64,
    /// The port of the check that it is asked by.
    asked_by: Option<u16>,
    began: Duration,
    last: Option<Result<(), Failure>>,
    checks: u64,
    failed: u64,
    window: Window,
}

impl Default for Engine {
    /// With a seed that nobody can foresee.
    fn default() -> Self {
        Self::new(ProbeAddresses::default(), crate::random::Random::new().next())
    }
}

impl Engine {
    /// Without backends. The seed makes jitter and sequence numbers that nobody else knows.
    pub(crate) fn new(addresses: ProbeAddresses, seed: u64) -> Self {
        Self {
            addresses,
            backends: BTreeMap::new(),
            due: BinaryHeap::new(),
            turns: 0,
            probes: PORTS.map(|_| None).collect(),
            awaited: Arc::default(),
            active: Vec::with_capacity(PORTS.len()),
            free: PORTS.collect(),
            random: Random(seed),
            changes: Vec::new(),
            counters: HealthCounters::default(),
            seen: None,
            has_followed: false,
            next_look: Duration::ZERO,
        }
    }

    /// Checks these backends from now on. What is known of one that was there before stays, whatever its check;
    /// what is under way for one that is not any more ends.
    pub(crate) fn follow(
        &mut self,
        now: Duration,
        addresses: ProbeAddresses,
        targets: Vec<Target>,
        outgoing: &mut dyn FnMut(Slot, &[u8]),
    ) {
        let is_late = std::mem::replace(&mut self.has_followed, true);
        self.addresses = addresses;
        let mut before = std::mem::take(&mut self.backends);
        for target in targets {
            let slot = target.slot;
            let is_known = before.get(&slot).is_some_and(|known| Arc::ptr_eq(&known.target.status, &target.status));
            let known = if is_known { before.remove(&slot) } else { None };
            let first = now + target.check.interval().min(FIRST).mul_f64(self.random.part());
            let (backend, next) = match known {
                Some(known) => {
                    let interval = target.check.interval();
                    let next = (interval != known.target.check.interval()).then(|| first.max(known.began + interval));
                    (Backend { target, ..known }, next)
                }
                None => (Backend::new(target, now, is_late), Some(first)),
            };
            backend.write_share(now);
            // One that is under way is scheduled at its end.
            let next = next.filter(|_| backend.asked_by.is_none());
            self.backends.insert(slot, backend);
            if let Some(next) = next {
                self.schedule(slot, next);
            }
        }
        for port in self.active.clone() {
            let Some((slot, probe)) = &mut self.probes[place(port)] else { continue };
            // Its backend is gone, or has left its slot to another; or no answer to it can come any more.
            let target = self.backends.get(slot).filter(|_| !before.contains_key(slot)).map(|of| &of.target);
            if target.is_some_and(|target| probe.is_between(self.addresses.towards(target.remote.0), target.remote)) {
                continue;
            }
            let slot = *slot;
            probe.abort(now, &mut |packet| outgoing(slot, packet));
            self.release(port);
            if let Some(backend) = self.backends.get_mut(&slot).filter(|backend| backend.asked_by == Some(port)) {
                backend.asked_by = None;
                self.schedule(slot, now);
            }
        }
        let backends = &self.backends;
        self.due.retain(|Reverse((_, turn, slot))| backends.get(slot).is_some_and(|backend| backend.turn == *turn));
    }

    /// Takes an IP packet that is for a check, and sends what has to be said to it.
    pub(crate) fn receive(&mut self, now: Duration, packet: &[u8], outgoing: &mut dyn FnMut(Slot, &[u8])) {
        self.forgive_gap(now);
        let Some(arrival) = arrival(packet) else { return };
        let port = arrival.port;
        match (&self.probes[place(port)], arrival.nobody_at) {
            (None, _) => self.counters.stray += 1,
            (Some((slot, probe)), Some(remote)) if probe.nobody_at(remote) => {
                let slot = *slot;
                self.end(now, slot, port, Err(Failure::Refused));
                self.release(port);
            }
            (Some(_), Some(_)) => {}
            (Some(_), None) => self.step(now, port, Some(packet), outgoing),
        }
    }

    /// Does what time has come for: begins checks, goes on with those that are under way, and ends those that
    /// have taken too long.
    pub(crate) fn poll(&mut self, now: Duration, outgoing: &mut dyn FnMut(Slot, &[u8])) {
        self.forgive_gap(now);
        for port in self.active.clone() {
            if self.probes[place(port)].as_ref().is_some_and(|(_, probe)| probe.wake() <= now) {
                self.step(now, port, None, outgoing);
            }
        }
        self.begin_due(now, outgoing);
        if now >= self.next_look {
            self.next_look = now + LOOK;
            self.backends.values().for_each(|backend| backend.write_share(now));
        }
    }

    /// When it has to be polled again, if nothing comes.
    pub(crate) fn wake(&self) -> Option<Duration> {
        let probes = self.active.iter().filter_map(|port| self.probes[place(*port)].as_ref());
        let probes = probes.map(|(_, probe)| probe.wake());
        let due = self.due.peek().map(|Reverse((at, ..))| *at).filter(|_| !self.free.is_empty());
        probes.chain(due).min()
    }

    /// Looks at what the traffic says of those backends whose checks want that. No service loses more than half of
    /// its backends so: what fails everywhere is not the backends' doing.
    pub(crate) fn listen(&mut self, now: Duration, traffic: impl Fn(Slot) -> Traffic) {
        let mut suspects = Vec::new();
        for (slot, backend) in &mut self.backends {
            let config = &backend.target.check.config;
            let Some(passive) = &config.passive else { continue };
            if backend.judge.state != State::Up {
                backend.window.forget();
            } else if let Some(bad) = backend.window.look(now, traffic(*slot), passive) {
                suspects.push((*slot, bad, passive.window.0));
            }
        }
        for (slot, bad, window) in suspects {
            let Some(service) = self.backends.get(&slot).map(|backend| Arc::clone(&backend.target.service)) else {
                continue;
            };
            let of_service = || self.backends.values().filter(|backend| backend.target.service == service);
            let down = of_service().filter(|backend| backend.judge.state != State::Up).count();
            if (down + 1) * 2 > of_service().count() {
                continue;
            }
            let Some(backend) = self.backends.get_mut(&slot) else { continue };
            let config = &backend.target.check.config;
            if let Some(from) = backend.judge.take_down(now, window, config) {
                let why = Failure::Traffic { failed: bad.failed, begun: bad.begun };
                self.changed(now, slot, from, Some(why));
            }
        }
    }

    /// What has changed since this was asked for.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Whom checks ask.
    pub(super) fn awaited(&self) -> &Arc<Awaited> {
        &self.awaited
    }

    /// What is known of each backend, by slot.
    pub(crate) fn states(&self, now: Duration) -> impl Iterator<Item = (Slot, BackendHealth)> {
        self.backends.iter().map(move |(slot, backend)| (*slot, backend.view(now)))
    }

    /// What all checks have come to.
    pub(crate) fn counters(&self) -> HealthCounters {
        self.counters
    }

    /// How many checks are under way, connections that are being ended among them.
    #[cfg(test)]
    pub(crate) fn under_way(&self) -> usize {
        self.active.len()
    }

    /// Whether none is.
    pub(crate) fn is_idle(&self) -> bool {
        self.active.is_empty()
    }

    /// Adds to the deadlines of what is under way what nobody has looked for.
    fn forgive_gap(&mut self, now: Duration) {
        let gap = self.seen.map_or(Duration::ZERO, |seen| now.saturating_sub(seen));
        self.seen = Some(now);
        if gap > GAP {
            for (_, probe) in self.probes.iter_mut().flatten() {
                probe.forgive(gap);
            }
        }
    }

    fn begin_due(&mut self, now: Duration, outgoing: &mut dyn FnMut(Slot, &[u8])) {
        for _ in 0..MOST_BEGIN {
            let Some(&Reverse((at, turn, slot))) = self.due.peek() else { return };
            if at > now {
                return;
            }
            let is_valid = self.backends.get(&slot).is_some_and(|backend| backend.turn == turn);
            if !is_valid {
                self.due.pop();
                continue;
            }
            let Some(port) = self.free.pop_front() else { return };
            self.due.pop();
            if now > at + GAP {
                self.counters.late += 1;
            }
            self.begin(now, slot, port, outgoing);
        }
    }

    fn begin(&mut self, now: Duration, slot: Slot, port: u16, outgoing: &mut dyn FnMut(Slot, &[u8])) {
        let Some(backend) = self.backends.get_mut(&slot) else {
            self.free.push_front(port);
            return;
        };
        let target = &backend.target;
        backend.began = now;
        backend.asked_by = Some(port);
        let probe = self.addresses.towards(target.remote.0).ok_or(Failure::NoAddress).and_then(|local| {
            let ends = Ends { local, port, remote: target.remote };
            Probe::new(ends, &target.check, self.random.next(), now)
        });
        match probe {
            Ok(probe) => {
                self.awaited.set(port, Some(target.remote.0));
                self.probes[place(port)] = Some((slot, Box::new(probe)));
                self.active.push(port);
                self.step(now, port, None, outgoing);
            }
            Err(failure) => {
                self.free.push_front(port);
                self.end(now, slot, port, Err(failure));
            }
        }
    }

    fn step(&mut self, now: Duration, port: u16, packet: Option<&[u8]>, outgoing: &mut dyn FnMut(Slot, &[u8])) {
        let Some((slot, probe)) = &mut self.probes[place(port)] else { return };
        let slot = *slot;
        let result = probe.step(now, packet, &mut |packet| outgoing(slot, packet));
        let is_over = probe.is_over();
        if let Some(result) = result {
            self.end(now, slot, port, result);
        }
        if is_over {
            self.release(port);
        }
    }

    /// A check of a backend has ended: what comes of it, and when the next one is due.
    fn end(&mut self, now: Duration, slot: Slot, port: u16, result: Result<(), Failure>) {
        let Some(backend) = self.backends.get_mut(&slot).filter(|backend| backend.asked_by == Some(port)) else {
            return;
        };
        let config = &backend.target.check.config;
        let failed = u64::from(result.is_err());
        backend.asked_by = None;
        backend.checks += 1;
        backend.failed += failed;
        self.counters.checks += 1;
        self.counters.failed += failed;
        let from = backend.judge.hear(now, &result, config);
        let jitter = f64::from(config.jitter) / 100.0 * (2.0 * self.random.part() - 1.0);
        let next = backend.began + config.interval.0.mul_f64(1.0 + jitter);
        backend.last = Some(result);
        if let Some(from) = from {
            let why = backend.last.clone().and_then(Result::err);
            self.changed(now, slot, from, why);
        }
        self.schedule(slot, next.max(now));
    }

    fn changed(&mut self, now: Duration, slot: Slot, from: State, why: Option<Failure>) {
        let Some(backend) = self.backends.get(&slot) else { return };
        backend.write_share(now);
        let Target { service, name, .. } = &backend.target;
        let (service, name, to) = (Arc::clone(service), name.clone(), backend.judge.state);
        self.changes.push(Change { service, name, from, to, why, held_for: backend.held_for(now) });
    }

    fn schedule(&mut self, slot: Slot, at: Duration) {
        self.turns += 1;
        if let Some(backend) = self.backends.get_mut(&slot) {
            backend.turn = self.turns;
            self.due.push(Reverse((at, self.turns, slot)));
        }
    }

    fn release(&mut self, port: u16) {
        if self.probes[place(port)].take().is_some() {
            self.active.retain(|active| *active != port);
            self.free.push_back(port);
            if let Some(port) = self.free.iter().rev().nth(LATE) {
                self.awaited.set(*port, None);
            }
        }
    }
}

impl Backend {
    /// One that nothing is known of; `is_late` if others were there before.
    fn new(target: Target, now: Duration, is_late: bool) -> Self {
        let judge = if target.status.share(true) > 0 { Judge::presumed_up(now) } else { Judge::new(now, is_late) };
        let window = Window::default();
        Self { target, judge, turn: 0, asked_by: None, began: now, last: None, checks: 0, failed: 0, window }
    }

    fn tenths(&self, now: Duration) -> u8 {
        self.judge.tenths(now, &self.target.check.config)
    }

    fn write_share(&self, now: Duration) {
        self.target.status.set_share(u16::from(self.tenths(now)) * (WHOLE / u16::from(slow_start::WHOLE)));
    }

    fn held_for(&self, now: Duration) -> Option<Duration> {
        self.judge.held_until(now, &self.target.check.config).map(|until| until.saturating_sub(now))
    }

    fn view(&self, now: Duration) -> BackendHealth {
        BackendHealth {
            service: self.target.service.to_string(),
            name: self.target.name.clone(),
            state: self.judge.state,
            state_for: now.saturating_sub(self.judge.since),
            tenths: self.tenths(now),
            last: self.last.clone(),
            held_for: self.held_for(now),
            checks: self.checks,
            failed: self.failed,
            changes: self.judge.changes,
        }
    }
}

/// Where a port stands among the probes.
fn place(port: u16) -> usize {
    usize::from(port - PORTS.start())
}

/// Steele, Lea and Flood's SplitMix64: good enough for jitter and sequence numbers.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to less than 1.
    fn part(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap_or(0)) / 4_294_967_296.0
    }
}
