//! The engine with a clock: a thread of its own, and channels of fixed length to and from workers.
//!
//! Workers wait for nothing and call no system: what comes for a check they copy into a channel, what a check sends the
//! first worker takes out of one when it keeps house. What finds no room is lost as on a link, and counted.

use super::arrival::arrival;
use super::awaited::Awaited;
use super::engine::{BackendHealth, Change, Engine, HealthCounters, ProbeAddresses, Slot, Target};
use super::judge::State;
use super::passive::Traffic;
use nf_framework::{Counter, WorkerSetup};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Packets that may be on their way from each worker to the engine, and from the engine to the first.
const CHANNEL: usize = 256;
/// Bytes of the longest packet that an answer may be.
const LONGEST: usize = 1500;
/// How often the thread looks while checks are under way, and while none are. It does not wait for workers, so
/// they need not wake it.
const PAUSE: Duration = Duration::from_millis(1);
const IDLE: Duration = Duration::from_millis(10);
/// How often the traffic is listened to.
const LISTEN: Duration = Duration::from_secs(1);

/// A packet, as channels carry it.
#[derive(Clone, Copy)]
struct Packet {
    length: u16,
    bytes: [u8; LONGEST],
}

impl Packet {
    fn of(bytes: &[u8]) -> Option<Self> {
        let mut packet = Self { length: u16::try_from(bytes.len()).ok()?, bytes: [0; LONGEST] };
        packet.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(packet)
    }

    fn bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// A worker's end.
#[derive(Debug)]
pub(crate) struct Door {
    to: SyncSender<Packet>,
    /// Of the first worker: what is to be sent, and what is counted.
    from: Option<(Receiver<(Slot, Packet)>, Gauges)>,
    lost: Counter,
    awaited: Arc<Awaited>,
    shared: Arc<Shared>,
}

/// What one worker shows of all checks.
#[derive(Debug)]
pub(crate) struct Gauges {
    checks: Counter,
    failed: Counter,
    /// Backends that went down or came back.
    changes: Counter,
}

impl Gauges {
    pub(crate) fn new(worker: &mut WorkerSetup) -> Self {
        Self {
            checks: worker.counter("checks"),
            failed: worker.counter("checks-failed"),
            changes: worker.counter("backend-changes"),
        }
    }
}

impl Door {
    /// Hands an IP packet over if it is from whom a check has asked; whether it is.
    pub(crate) fn take(&mut self, packet: &[u8]) -> bool {
        if !arrival(packet).is_some_and(|arrival| self.awaited.has(&arrival)) {
            return false;
        }
        let is_taken = Packet::of(packet).is_some_and(|packet| self.to.try_send(packet).is_ok());
        self.lost.add(u64::from(!is_taken));
        true
    }

    /// The next packet that a check sends: `write` is called with the slot of its backend and the packet.
    pub(crate) fn give<R>(&mut self, write: impl FnOnce(Slot, &[u8]) -> R) -> Option<R> {
        let (from, _) = self.from.as_ref()?;
        let (slot, packet) = from.try_recv().ok()?;
        Some(write(slot, packet.bytes()))
    }

    /// A packet that a check sends could not be sent.
    pub(crate) fn lose(&mut self) {
        self.lost.add(1);
    }

    /// Shows what is counted.
    pub(crate) fn follow(&mut self) {
        let Some((_, gauges)) = &mut self.from else { return };
        let Shared { checks, failed, changes, lost, .. } = &*self.shared;
        let Gauges { checks: c, failed: f, changes: s } = gauges;
        for (shown, counted) in [(c, checks), (f, failed), (s, changes)] {
            shown.add(counted.load(Ordering::Relaxed).wrapping_sub(shown.value()));
        }
        if lost.load(Ordering::Relaxed) > 0 {
            self.lost.add(lost.swap(0, Ordering::Relaxed));
        }
    }
}

/// All checks of a program.
#[derive(Debug)]
pub(crate) struct Health {
    shared: Arc<Shared>,
    /// Without a clock somebody else says what time it is.
    has_clock: bool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    room: Mutex<Room>,
    stop: AtomicBool,
    checks: AtomicU64,
    failed: AtomicU64,
    changes: AtomicU64,
    /// Packets for which there was no room on the way to the first worker.
    lost: AtomicU64,
}

/// What the thread works in, and others look into for a moment.
#[derive(Default)]
struct Room {
    engine: Engine,
    doors: Vec<Receiver<Packet>>,
    outgoing: Option<SyncSender<(Slot, Packet)>>,
    now: Duration,
    next_listen: Duration,
    traffic: Option<Box<dyn Fn(Slot) -> Traffic + Send>>,
}

impl Health {
    /// Before anything is checked.
    pub(crate) fn new(has_clock: bool) -> Self {
        Self { shared: Arc::default(), has_clock, thread: Mutex::default() }
    }

    /// A worker's way to the checks.
    pub(crate) fn door(&self, is_first: bool, lost: Counter, gauges: Gauges) -> Door {
        let (to, taken) = sync_channel(CHANNEL);
        let mut room = self.shared.room();
        room.doors.push(taken);
        let from = is_first.then(|| {
            let (outgoing, from) = sync_channel(CHANNEL);
            room.outgoing = Some(outgoing);
            (from, gauges)
        });
        let awaited = Arc::clone(room.engine.awaited());
        Door { to, from, lost, awaited, shared: Arc::clone(&self.shared) }
    }

    /// Checks these backends from now on, and begins to, if there are any; `traffic` says what is counted of one.
    pub(crate) fn follow(
        &self,
        addresses: ProbeAddresses,
        targets: Vec<Target>,
        traffic: impl Fn(Slot) -> Traffic + Send + 'static,
    ) {
        let has_targets = !targets.is_empty();
        let mut room = self.shared.room();
        let Room { engine, outgoing, now, .. } = &mut *room;
        engine.follow(*now, addresses, targets, &mut |slot, packet| self.shared.send(outgoing.as_ref(), slot, packet));
        room.traffic = Some(Box::new(traffic));
        drop(room);
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if has_targets && self.has_clock && thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let begun = std::thread::Builder::new().name("health".to_owned()).spawn(move || shared.run());
            match begun {
                Ok(begun) => *thread = Some(begun),
                Err(error) => log::error!("load-balancer: nothing can be checked, as there is no thread: {error}"),
            }
        }
    }

    /// Does what is to be done at this time, which is what the thread does with its clock.
    pub(crate) fn turn(&self, now: Duration) {
        self.shared.turn(now);
    }

    /// What is known of each backend.
    pub(crate) fn states(&self) -> Vec<BackendHealth> {
        let room = self.shared.room();
        room.engine.states(room.now).map(|(_, state)| state).collect()
    }

    /// What all checks have come to.
    pub(crate) fn counters(&self) -> HealthCounters {
        self.shared.room().engine.counters()
    }
}

impl Default for Health {
    /// With a clock.
    fn default() -> Self {
        Self::new(true)
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            log::error!("load-balancer: the thread of the health checks has panicked");
        }
    }
}

impl Shared {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let start = Instant::now();
        // Others may have looked before: time goes on from there.
        let before = self.room().now;
        while !self.stop.load(Ordering::Relaxed) {
            let pause = self.turn(before + start.elapsed());
            std::thread::sleep(pause);
        }
    }

    /// Takes what came, does what time has come for; how long there is nothing to do.
    fn turn(&self, now: Duration) -> Duration {
        let mut room = self.room();
        let Room { engine, doors, outgoing, next_listen, traffic, .. } = &mut *room;
        let mut send = |slot, packet: &[u8]| self.send(outgoing.as_ref(), slot, packet);
        for door in doors {
            for packet in door.try_iter().take(CHANNEL) {
                engine.receive(now, packet.bytes(), &mut send);
            }
        }
        engine.poll(now, &mut send);
        if now >= *next_listen {
            *next_listen = now + LISTEN;
            if let Some(traffic) = traffic {
                engine.listen(now, &**traffic);
            }
        }
        let changes = engine.take_changes();
        changes.iter().for_each(tell);
        let counters = engine.counters();
        self.checks.store(counters.checks, Ordering::Relaxed);
        self.failed.store(counters.failed, Ordering::Relaxed);
        if !changes.is_empty() {
            let changed = changes.iter().filter(|change| change.from != State::Unknown).count();
            self.changes.fetch_add(changed as u64, Ordering::Relaxed);
        }
        let pause = if engine.is_idle() { engine.wake().map_or(IDLE, |at| at.saturating_sub(now)) } else { PAUSE };
        room.now = now;
        pause.clamp(PAUSE, IDLE)
    }

    fn send(&self, outgoing: Option<&SyncSender<(Slot, Packet)>>, slot: Slot, packet: &[u8]) {
        let is_sent = outgoing.zip(Packet::of(packet)).is_some_and(|(to, packet)| to.try_send((slot, packet)).is_ok());
        if !is_sent {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room").field("now", &self.now).finish_non_exhaustive()
    }
}

/// Writes down that a backend has become another.
fn tell(change: &Change) {
    let Change { service, name, why, held_for, .. } = change;
    match (change.to, why) {
        (State::Up, _) => log::info!("load-balancer: {service}: backend {name} is up"),
        (_, Some(why)) => {
            let kept = held_for.map(|time| format!("; kept down for {} s at least", time.as_secs_f64().ceil()));
            log::warn!("load-balancer: {service}: backend {name} is down: {why}{}", kept.unwrap_or_default());
        }
        (_, None) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{PROBE, check, target};
    use super::*;

    fn gauges() -> Gauges {
        let [checks, failed, changes] = [(); 3].map(|()| Counter::default());
        Gauges { checks, failed, changes }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn packets_go_by_the_first_worker_and_come_by_any() {
        let health = Health::new(false);
        let mut doors = [true, false].map(|is_first| health.door(is_first, Counter::default(), gauges()));
        let addresses = ProbeAddresses::new(&[PROBE.into()]).unwrap();
        let remote = ("192.0.2.1".parse().unwrap(), 80);
        let target = target(3, remote, &check("kind = 'tcp'\nfall = 1"));
        health.follow(addresses, vec![target], |_| Traffic::default());
        health.turn(seconds(2));
        assert!(doors[1].give(|_, _| ()).is_none());
        let (slot, mut syn) = doors[0].give(|slot, packet| (slot, packet.to_vec())).unwrap();
        assert_eq!((slot, syn[33]), (3, 2));
        assert!(doors[0].give(|_, _| ()).is_none());
        // Something that is for no check.
        assert!(!doors[1].take(&syn));
        // Its reset, from who it went to.
        let (source, destination) = syn[12..20].split_at_mut(4);
        source.swap_with_slice(destination);
        let (source, destination) = syn[20..24].split_at_mut(2);
        source.swap_with_slice(destination);
        let number = u32::from_be_bytes([syn[24], syn[25], syn[26], syn[27]]).wrapping_add(1).to_be_bytes();
        syn[24..28].fill(0);
        syn[28..32].copy_from_slice(&number);
        syn[33] = 0x14;
        syn[36..38].fill(0);
        let sum: u32 = [&syn[12..20], &[0, 6, 0, u8::try_from(syn.len() - 20).unwrap()], &syn[20..]]
            .concat()
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
        syn[36..38].copy_from_slice(&sum.to_be_bytes());
        assert!(doors[1].take(&syn));
        health.turn(seconds(2) + PAUSE);
        let states = health.states();
        assert_eq!((states[0].state, states[0].last.clone()), (State::Down, Some(Err(super::super::Failure::Refused))));
        doors.iter_mut().for_each(Door::follow);
        let (_, gauges) = doors[0].from.as_ref().unwrap();
        let shown = [&gauges.checks, &gauges.failed, &gauges.changes].map(Counter::value);
        assert_eq!(shown, [1, 1, 0]);
        assert_eq!(health.counters().checks, 1);
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let health = Health::new(false);
        let mut door = health.door(true, Counter::default(), gauges());
        let addresses = ProbeAddresses::new(&[PROBE.into()]).unwrap();
        let check = check("kind = 'icmp'");
        let count = u16::try_from(CHANNEL).unwrap() + 50;
        let targets = (0..count).map(|slot| target(slot, ([10, 0, 1, 2].into(), 0), &check)).collect();
        health.follow(addresses, targets, |_| Traffic::default());
        // A few at a time; nobody takes them out.
        (0..10).for_each(|_| health.turn(seconds(2)));
        door.follow();
        assert_eq!(door.lost.value(), 50);
        let mut reply = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 1, 2, 2, 2, 2, 2, 0, 80, 0xee, 0x48];
        let mut strangers = reply.clone();
        strangers[15] = 99;
        assert!(!door.take(&strangers), "nobody has asked that one");
        for _ in 0..CHANNEL + 7 {
            assert!(door.take(&reply), "it is for a check, whether there is room or not");
        }
        assert_eq!(door.lost.value(), 57);
        // What is longer than any answer.
        health.turn(seconds(2));
        reply.resize(LONGEST + 1, 0);
        assert!(door.take(&reply));
        assert_eq!(door.lost.value(), 58);
        assert!(std::iter::from_fn(|| door.give(|_, _| ())).count() == CHANNEL);
        door.lose();
        assert_eq!(door.lost.value(), 59);
    }

    #[test]
    fn a_thread_begins_with_the_first_backend_and_ends_with_its_owner() {
        let health = Health::new(true);
        health.follow(ProbeAddresses::default(), Vec::new(), |_| Traffic::default());
        assert!(health.thread.lock().unwrap().is_none());
        let targets = vec![target(0, ([10, 0, 1, 2].into(), 0), &check("kind = 'icmp'"))];
        health.follow(ProbeAddresses::default(), targets, |_| Traffic::default());
        assert!(health.thread.lock().unwrap().is_some());
        let shared = Arc::clone(&health.shared);
        drop(health);
        assert_eq!(Arc::strong_count(&shared), 1, "the thread is over");
    }
}
