//! Rates, out of two samples.
//!
//! A counter that stands lower than before began anew in between, at nothing: what it stands at is what it counted
//! since. Of a program that was started anew so are all of them, and the time that it has run is the time between.

use super::sample::Sample;
use crate::door::Backend;
use crate::door::{ChainRow, Counter, Device, Drop, Occupancy, Port, Program, Worker};
use std::time::{Duration, Instant};

/// What a program does between two moments.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Picture {
    /// Who it is.
    pub program: Program,
    /// Ports, as the program has them.
    pub ports: Vec<PortLine>,
    /// Workers by number.
    pub workers: Vec<WorkerLine>,
    /// From inside to outside.
    pub chain: Vec<ChainLine>,
    /// The most frequent first.
    pub drops: Vec<DropLine>,
    /// Gauges of functions.
    pub gauges: Vec<Counter>,
    /// How full tables are.
    pub occupancy: Vec<OccupancyLine>,
    /// Servers of load balancers.
    pub backends: Vec<BackendLine>,
}

/// A port.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PortLine {
    /// As it stands.
    pub port: Port,
    /// Packets a second that workers received.
    pub received: f64,
    /// Packets a second that it took.
    pub sent: f64,
    /// Bits a second by its device; `None` if that does not say.
    pub bits: Option<(f64, f64)>,
    /// Packets a second that nobody took in time, or for which there was no mbuf.
    pub missed: f64,
    /// Broken packets, and those that could not be sent, a second.
    pub errors: f64,
}

/// A worker.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct WorkerLine {
    /// As it stands.
    pub worker: Worker,
    /// Packets a second from ports.
    pub received: f64,
    /// Packets a second to ports.
    pub sent: f64,
    /// Packets a second to other workers.
    pub handed_over: f64,
    /// Packets in a round that found any; `None` if none did.
    pub per_round: Option<f64>,
    /// The share of its time in which it had no packets; `None` if nobody knows.
    pub idle: Option<f64>,
}

/// A function.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ChainLine {
    /// As it stands.
    pub row: ChainRow,
    /// Packets a second that it was shown.
    pub packets: f64,
    /// Packets in a call.
    pub per_call: Option<f64>,
    /// Cycles for a packet.
    pub cycles: Option<f64>,
    /// Packets a second that it dropped.
    pub dropped: f64,
}

/// A reason.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct DropLine {
    /// As it stands.
    pub reason: Drop,
    /// Packets a second.
    pub packets: f64,
}

/// A server.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct BackendLine {
    /// As it stands.
    pub backend: Backend,
    /// Packets a second.
    pub packets: f64,
    /// Bits a second.
    pub bits: f64,
    /// New connections a second.
    pub begun: f64,
}

/// A table, of all workers that have one.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct OccupancyLine {
    /// All of them together.
    pub all: Occupancy,
    /// How full the fullest is, which will be the first to refuse anything.
    pub fullest: Option<f64>,
}

/// What was counted between two moments.
#[derive(Clone, Copy, Debug)]
struct Between {
    seconds: f64,
    /// The earlier sample counts from nothing.
    anew: bool,
}

impl Between {
    fn count(self, old: u64, new: u64) -> u64 {
        if self.anew { new } else { new.checked_sub(old).unwrap_or(new) }
    }

    fn rate(self, old: u64, new: u64) -> f64 {
        if self.seconds > 0.0 { float(self.count(old, new)) / self.seconds } else { 0.0 }
    }

    /// How much of one there is for each of the other.
    fn ratio(self, of: (u64, u64), by: (u64, u64)) -> Option<f64> {
        let by = self.count(by.0, by.1);
        (by > 0).then(|| float(self.count(of.0, of.1)) / float(by))
    }
}

#[allow(clippy::cast_precision_loss, reason = "three digits are shown")]
fn float(count: u64) -> f64 {
    count as f64
}

impl Picture {
    /// What was done from one sample to the next.
    #[must_use]
    pub fn between(old: &Sample, new: &Sample) -> Self {
        let anew = old.program.pid != new.program.pid || new.program.uptime_seconds < old.program.uptime_seconds;
        let between = |at: fn(&Sample) -> Instant| {
            let passed = at(new).saturating_duration_since(at(old)).as_secs_f64();
            Between { seconds: if anew { passed.min(new.program.uptime_seconds) } else { passed }, anew }
        };
        Self::of(between, old, new)
    }

    /// What was done since the program began, which is all that is known at first.
    #[must_use]
    pub fn since_start(sample: &Sample) -> Self {
        Self::of(|_| Between { seconds: sample.program.uptime_seconds, anew: true }, sample, sample)
    }

    /// Of answers at each of these moments.
    fn of(between: impl Fn(fn(&Sample) -> Instant) -> Between, old: &Sample, new: &Sample) -> Self {
        let stats = between(|sample| sample.at.stats);
        // What a function did is a part of the statistics where there is no chain.
        let functions = if new.chain.is_empty() { stats } else { between(|sample| sample.at.chain) };
        Self {
            program: new.program.clone(),
            ports: ports(stats, &old.stats.ports, &new.stats.ports),
            workers: workers(stats, &old.stats.workers, &new.stats.workers),
            chain: chain(functions, rows(old), rows(new)),
            drops: drops(stats, &old.stats.drops, &new.stats.drops),
            gauges: new.stats.gauges.clone(),
            occupancy: occupancy(&new.stats.tables),
            backends: backends(between(|sample| sample.at.backends), &old.backends, &new.backends),
        }
    }

    /// How long the program has run.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        Duration::try_from_secs_f64(self.program.uptime_seconds).unwrap_or_default()
    }
}

/// The functions with what they cost, or at least with what they did.
fn rows(sample: &Sample) -> &[ChainRow] {
    if sample.chain.is_empty() { &sample.stats.functions } else { &sample.chain }
}

/// The old one of each new one; an empty one where it has just come.
fn pairs<T: Clone + Default, K: PartialEq>(old: &[T], new: &[T], key: impl Fn(&T) -> K) -> Vec<(T, T)> {
    let before = |item: &T| old.iter().find(|old| key(old) == key(item)).cloned().unwrap_or_default();
    new.iter().map(|item| (before(item), item.clone())).collect()
}

fn ports(between: Between, old: &[Port], new: &[Port]) -> Vec<PortLine> {
    let line = |(old, new): (Port, Port)| {
        let device = |of: fn(&Device) -> u64| match (&old.device, &new.device) {
            (Some(old), Some(new)) => between.rate(of(old), of(new)),
            // What it counted before it was seen says nothing of now.
            (None, Some(new)) if between.anew => between.rate(0, of(new)),
            _ => 0.0,
        };
        PortLine {
            received: between.rate(old.received, new.received),
            sent: between.rate(old.sent, new.sent),
            bits: new.device.as_ref().map(|_| (8.0 * device(|d| d.rx_bytes), 8.0 * device(|d| d.tx_bytes))),
            missed: device(|d| d.rx_missed) + device(|d| d.rx_no_mbuf),
            errors: device(|d| d.rx_errors) + device(|d| d.tx_errors),
            port: new,
        }
    };
    pairs(old, new, |port| port.name.clone()).into_iter().map(line).collect()
}

fn workers(between: Between, old: &[Worker], new: &[Worker]) -> Vec<WorkerLine> {
    let line = |(old, new): (Worker, Worker)| {
        let busy = |worker: &Worker| worker.rounds.saturating_sub(worker.idle_rounds);
        let time = |worker: &Worker| worker.idle_cycles.saturating_add(worker.busy_cycles);
        let idle = between.ratio((old.idle_cycles, new.idle_cycles), (time(&old), time(&new)));
        WorkerLine {
            received: between.rate(old.received, new.received),
            sent: between.rate(old.sent, new.sent),
            handed_over: between.rate(old.handed_over, new.handed_over),
            per_round: between.ratio((old.received, new.received), (busy(&old), busy(&new))),
            idle: idle.map(|share| share.min(1.0)),
            worker: new,
        }
    };
    pairs(old, new, |worker| worker.worker).into_iter().map(line).collect()
}

fn chain(between: Between, old: &[ChainRow], new: &[ChainRow]) -> Vec<ChainLine> {
    let line = |(old, new): (ChainRow, ChainRow)| {
        let shown = |row: &ChainRow| row.shown().unwrap_or(0);
        let of = |field: fn(&ChainRow) -> Option<u64>| Some((field(&old).unwrap_or(0), field(&new)?));
        let ratio = |one, by| between.ratio(of(one)?, of(by)?);
        ChainLine {
            packets: between.rate(shown(&old), shown(&new)),
            per_call: ratio(ChainRow::shown, |row| row.calls),
            cycles: ratio(|row| row.cycles, ChainRow::shown),
            dropped: between.rate(old.dropped.unwrap_or(0), new.dropped.unwrap_or(0)),
            row: new,
        }
    };
    pairs(old, new, |row| (row.function.clone(), row.worker)).into_iter().map(line).collect()
}

fn drops(between: Between, old: &[Drop], new: &[Drop]) -> Vec<DropLine> {
    let pairs = pairs(old, new, |drop| drop.reason.clone());
    let line = |(old, new): (Drop, Drop)| DropLine { packets: between.rate(old.count, new.count), reason: new };
    let mut lines: Vec<DropLine> = pairs.into_iter().map(line).collect();
    lines.sort_by(|a, b| b.packets.total_cmp(&a.packets).then(b.reason.count.cmp(&a.reason.count)));
    lines
}

fn occupancy(tables: &[Occupancy]) -> Vec<OccupancyLine> {
    let mut lines: Vec<OccupancyLine> = Vec::new();
    for table in tables {
        let is_same =
            |line: &&mut OccupancyLine| (&line.all.function, &line.all.table) == (&table.function, &table.table);
        match lines.iter_mut().find(is_same) {
            Some(OccupancyLine { all, fullest }) => {
                all.entries += table.entries;
                all.limit += table.limit;
                *fullest = [*fullest, table.share()].into_iter().flatten().reduce(f64::max);
            }
            None => lines.push(OccupancyLine { all: table.clone(), fullest: table.share() }),
        }
    }
    lines
}

fn backends(between: Between, old: &[Backend], new: &[Backend]) -> Vec<BackendLine> {
    let line = |(old, new): (Backend, Backend)| BackendLine {
        packets: between.rate(old.packets, new.packets),
        bits: 8.0 * between.rate(old.bytes, new.bytes),
        begun: between.rate(old.begun, new.begun),
        backend: new,
    };
    let key = |backend: &Backend| (backend.service.clone(), backend.name.clone());
    pairs(old, new, key).into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::door::Stats;
    use crate::top::sample::Answered;

    /// A program after so many seconds, of which all counters stand at `n` and multiples of it.
    fn sample(start: Instant, pid: u32, seconds: f64, n: u64) -> Sample {
        let device = Device { rx_bytes: 1000 * n, tx_bytes: 500 * n, rx_missed: n, ..Device::default() };
        let port = Port { name: "a".into(), received: 10 * n, sent: n, device: Some(device), ..Port::default() };
        let worker = Worker {
            received: 320 * n,
            rounds: 100 * n,
            idle_rounds: 90 * n,
            busy_cycles: n,
            idle_cycles: 3 * n,
            ..Worker::default()
        };
        let row = ChainRow {
            function: "nat".into(),
            calls: Some(10 * n),
            packets: Some(320 * n),
            cycles: Some(32_000 * n),
            dropped: Some(n),
            ..ChainRow::default()
        };
        let reason = |reason: &str, count| Drop { reason: reason.into(), count, ..Drop::default() };
        let drops = vec![reason("old", 1_000_000), reason("new", 5 * n)];
        let backend = Backend { name: "b1".into(), packets: n, bytes: 100 * n, begun: 2 * n, ..Backend::default() };
        Sample {
            at: Answered::at_once(start + Duration::from_secs_f64(seconds)),
            program: Program { pid, uptime_seconds: seconds, ..Program::default() },
            stats: Stats { ports: vec![port], workers: vec![worker], drops, ..Stats::default() },
            chain: vec![row],
            backends: vec![backend],
        }
    }

    #[test]
    fn tables_of_workers_are_added_up_and_the_fullest_is_known() {
        let table = |table: &str, worker, entries, limit| Occupancy {
            function: "nat".into(),
            table: table.into(),
            worker,
            entries,
            limit,
        };
        let tables = [
            table("a", Some(0), 10, 100),
            table("b", None, 0, 0),
            table("a", Some(1), 90, 100),
            table("a", Some(2), 0, 0),
        ];
        let lines = occupancy(&tables);
        let shown: Vec<_> = lines.iter().map(|line| (line.all.entries, line.all.limit, line.fullest)).collect();
        assert_eq!(shown, [(100, 200, Some(0.9)), (0, 0, None)]);
    }

    #[test]
    fn rates_are_of_the_time_between_two_samples() {
        let start = Instant::now();
        let picture = Picture::between(&sample(start, 7, 10.0, 100), &sample(start, 7, 12.0, 300));
        let port = &picture.ports[0];
        assert_eq!((port.received, port.sent, port.missed), (1000.0, 100.0, 100.0));
        assert_eq!(port.bits, Some((800_000.0, 400_000.0)));
        let worker = &picture.workers[0];
        assert_eq!((worker.received, worker.per_round, worker.idle), (32_000.0, Some(32.0), Some(0.75)));
        let function = &picture.chain[0];
        assert_eq!((function.packets, function.per_call, function.cycles), (32_000.0, Some(32.0), Some(100.0)));
        let drops: Vec<_> = picture.drops.iter().map(|drop| (drop.reason.reason.as_str(), drop.packets)).collect();
        assert_eq!(drops, [("new", 500.0), ("old", 0.0)]);
        let backend = &picture.backends[0];
        assert_eq!((backend.packets, backend.bits, backend.begun), (100.0, 80_000.0, 200.0));
    }

    #[test]
    fn each_answer_has_its_own_time() {
        let start = Instant::now();
        let (old, mut new) = (sample(start, 7, 10.0, 100), sample(start, 7, 12.0, 300));
        (new.at.chain, new.at.backends) = (start + Duration::from_secs(14), start + Duration::from_secs(20));
        let picture = Picture::between(&old, &new);
        let rates = (picture.ports[0].received, picture.chain[0].packets, picture.backends[0].packets);
        assert_eq!(rates, (1000.0, 16_000.0, 20.0), "in 2, 4 and 10 s");
    }

    #[test]
    fn nothing_is_divided_by_nothing() {
        let start = Instant::now();
        let same = sample(start, 7, 10.0, 100);
        let picture = Picture::between(&same, &same);
        assert_eq!((picture.ports[0].received, picture.workers[0].idle, picture.chain[0].cycles), (0.0, None, None));
        let later = sample(start, 7, 11.0, 100);
        let picture = Picture::between(&same, &later);
        assert_eq!((picture.ports[0].received, picture.workers[0].per_round), (0.0, None));
    }

    #[test]
    fn a_program_that_was_started_anew_counts_from_nothing() {
        let start = Instant::now();
        let mut new = sample(start, 8, 20.0, 40);
        new.program.uptime_seconds = 4.0;
        let picture = Picture::between(&sample(start, 7, 10.0, 30), &new);
        assert_eq!(picture.ports[0].received, 100.0, "10 for each of 40, in 4 s");
        assert_eq!(picture.ports[0].bits, Some((80_000.0, 40_000.0)));
        assert_eq!(Picture::since_start(&new).ports[0].received, 100.0);
        // One with the same process number.
        new.program.pid = 7;
        assert_eq!(Picture::between(&sample(start, 7, 10.0, 30), &new).ports[0].received, 100.0);
    }

    #[test]
    fn a_counter_that_began_anew_counts_from_nothing() {
        let start = Instant::now();
        let (old, mut new) = (sample(start, 7, 10.0, 100), sample(start, 7, 11.0, 200));
        new.stats.ports[0].device = Some(Device { rx_bytes: 10, tx_bytes: 100_000, ..Device::default() });
        let picture = Picture::between(&old, &new);
        assert_eq!(picture.ports[0].bits, Some((80.0, 400_000.0)), "its device was reset, and the port was not");
        assert_eq!(picture.ports[0].received, 1000.0);
        // What comes meanwhile has counted from nothing; a device is believed from its second sample on.
        let (mut old, new) = (sample(start, 7, 10.0, 100), sample(start, 7, 11.0, 200));
        (old.stats.ports, old.stats.drops) = (Vec::new(), Vec::new());
        let picture = Picture::between(&old, &new);
        assert_eq!((picture.ports[0].received, picture.ports[0].bits), (2000.0, Some((0.0, 0.0))));
        assert_eq!(picture.drops[0].packets, 1_000_000.0);
    }
}
