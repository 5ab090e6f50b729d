//! Counters added up over all workers, and as tables for people.

use crate::counters::{PortCounters, WorkCounters, WorkerCounters};
use crate::registry::{Registry, TableReport};
use crate::table::Table;
use dpdk_rs::{Port, PortStats};
use serde::Serialize;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of a program at one moment.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Report {
    /// By port, in the order of [`PortIx`](crate::PortIx).
    pub ports: Vec<PortReport>,
    /// By function, from inside to outside.
    pub functions: Vec<FunctionReport>,
    /// By drop reason; those that did not occur are left out.
    pub drops: Vec<DropReport>,
    /// The functions' own counters.
    pub counters: Vec<CounterReport>,
    /// The functions' own gauges: what there is now, and not what has happened.
    pub gauges: Vec<CounterReport>,
    /// How full the functions' tables are, and those around them.
    pub tables: Vec<TableReport>,
    /// How often a packet was handed over from one worker to another: to its owner, or to one that
    /// has a queue to send it by.
    pub handed_over: u64,
    /// By worker.
    pub workers: Vec<WorkerReport>,
    /// What stands before the first function: the router finds each packet's way.
    pub ingress: WorkReport,
    /// What stands behind the last function.
    pub egress: WorkReport,
    /// All else of rounds with packets: receiving, sending, sorting by owners, housekeeping.
    pub rest: WorkReport,
    /// Cycles of the time-stamp counter in a second; 0 if nobody said.
    pub cycles_per_second: u64,
    /// Where all packets went.
    pub balance: Balance,
    /// The policies that every worker works by: 1 at the start, and one more with each that
    /// was published.
    pub generation: u64,
}

/// One port.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct PortReport {
    /// Its name.
    pub name: String,
    /// Packets that workers received from it.
    pub received: u64,
    /// Packets that it took from workers.
    pub sent: u64,
    /// Workers that found its device to spread packets otherwise than it was told; since then they
    /// find every packet's owner themselves.
    pub misled: u64,
    /// The device's own counters, if it answers.
    pub device: Option<PortStats>,
    /// How often its link was seen to go down.
    pub link_downs: u64,
    /// How often it was built anew: its device was reset, or came back.
    pub resets: u64,
    /// How often its device went away, or was given up.
    pub removals: u64,
    /// Whether it is down now, to be built anew.
    pub down: bool,
}

/// One function.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct FunctionReport {
    /// Its name.
    pub name: String,
    /// How often it was given a batch.
    pub calls: u64,
    /// How long it took over those, in cycles of the time-stamp counter.
    pub cycles: u64,
    /// Packets that it was shown.
    pub seen: u64,
    /// Packets that it sent or turned itself.
    pub sent: u64,
    /// Packets that it dropped.
    pub dropped: u64,
    /// Packets that it took out of their batch.
    pub taken: u64,
    /// Packets that it holds now.
    pub held: u64,
    /// Sessions that it has, as it says itself.
    pub sessions: u64,
}

impl FunctionReport {
    /// Packets that it left to the next function.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.seen.saturating_sub(self.sent + self.dropped + self.taken)
    }

    /// How often it was called, for how many packets, and how long that took.
    #[must_use]
    pub fn work(&self) -> WorkReport {
        WorkReport { calls: self.calls, packets: self.seen, cycles: self.cycles }
    }
}

/// How often a part of the work was done, for how many packets, and how long that took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WorkReport {
    /// Times, each for a burst.
    pub calls: u64,
    /// Packets in all of them.
    pub packets: u64,
    /// Cycles of the time-stamp counter. Where others use the CPU too, what they took is in it.
    pub cycles: u64,
}

impl WorkReport {
    /// How many packets came together; the more, the less each costs. `None` before the first call.
    #[must_use]
    pub fn packets_per_call(&self) -> Option<f64> {
        ratio(self.packets, self.calls)
    }

    /// What a packet costs. `None` before the first one.
    #[must_use]
    pub fn cycles_per_packet(&self) -> Option<f64> {
        ratio(self.cycles, self.packets)
    }
}

#[allow(clippy::cast_precision_loss, reason = "for people, who read a few digits")]
fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

/// One worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct WorkerReport {
    /// Packets that it received from ports.
    pub received: u64,
    /// Packets that ports took from it.
    pub sent: u64,
    /// How often it handed a packet over to another worker.
    pub handed_over: u64,
    /// How often it looked at all its ports.
    pub rounds: u64,
    /// How often it found nothing there.
    pub idle_rounds: u64,
    /// Cycles of the time-stamp counter in rounds with packets.
    pub busy_cycles: u64,
    /// Those in the others: looking for packets, and sleeping.
    pub idle_cycles: u64,
}

impl WorkerReport {
    fn new(counters: &WorkerCounters) -> Self {
        let sum = |of: fn(&PortCounters) -> &AtomicU64| {
            counters.ports.iter().map(|port| of(port).load(Ordering::Relaxed)).sum()
        };
        Self {
            received: sum(|port| &port.received),
            sent: sum(|port| &port.sent),
            handed_over: counters.handed_over.load(Ordering::Relaxed),
            rounds: counters.rounds.load(Ordering::Relaxed),
            idle_rounds: counters.idle_rounds.load(Ordering::Relaxed),
            busy_cycles: counters.busy_cycles.load(Ordering::Relaxed),
            idle_cycles: counters.idle_cycles.load(Ordering::Relaxed),
        }
    }
}

/// One drop reason.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct DropReport {
    /// Its name.
    pub reason: String,
    /// When it happens.
    pub help: String,
    /// How often it did.
    pub count: u64,
}

/// One counter, or gauge, of a function's own.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct CounterReport {
    /// The function.
    pub function: String,
    /// The counter's name.
    pub name: String,
    /// Its value.
    pub value: u64,
}

/// A server that a function gives work to: [`Function::backends`](crate::Function::backends).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackendReport {
    /// The service that it is of.
    pub service: String,
    /// What it is called; once in its service.
    pub name: String,
    /// What its checks say, whatever people have ordered; `None` if nobody checks it.
    pub is_up: Option<bool>,
    /// Connections that it has.
    pub connections: u64,
}

/// Where all packets went. It closes while nothing moves: what came in went out, or is held.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Balance {
    /// From ports.
    pub received: u64,
    /// Made by functions.
    pub originated: u64,
    /// To ports.
    pub sent: u64,
    /// Under all reasons together.
    pub dropped: u64,
    /// Kept for good by functions.
    pub consumed: u64,
    /// In functions, waiting for their next one or for a first fragment, or on their way to another
    /// worker.
    pub held: u64,
}

impl Balance {
    /// What is missing (or too much, if negative) on the side of the packets that went; 0
    /// when the balance closes.
    #[must_use]
    pub fn unaccounted(&self) -> i128 {
        let sum = |parts: &[u64]| parts.iter().map(|part| i128::from(*part)).sum::<i128>();
        sum(&[self.received, self.originated]) - sum(&[self.sent, self.dropped, self.consumed, self.held])
    }
}

impl Report {
    pub(crate) fn new(
        ports: &[Port],
        functions: &[String],
        workers: &[Arc<WorkerCounters>],
        registry: &Registry,
    ) -> Self {
        let sum = |of: &dyn Fn(&WorkerCounters) -> Option<&AtomicU64>| -> u64 {
            workers
                .iter()
                .filter_map(|worker| of(worker))
                .map(|counter| counter.load(Ordering::Relaxed))
                .fold(0, u64::wrapping_add)
        };
        let ports: Vec<PortReport> = ports
            .iter()
            .enumerate()
            .map(|(index, port)| PortReport {
                name: port.name().to_owned(),
                received: sum(&|worker| Some(&worker.ports.get(index)?.received)),
                sent: sum(&|worker| Some(&worker.ports.get(index)?.sent)),
                misled: sum(&|worker| Some(&worker.ports.get(index)?.misled)),
                device: port.stats().ok(),
                ..PortReport::default()
            })
            .collect();
        let functions: Vec<FunctionReport> = functions
            .iter()
            .enumerate()
            .map(|(index, name)| FunctionReport {
                name: name.clone(),
                calls: sum(&|worker| Some(&worker.functions.get(index)?.calls)),
                cycles: sum(&|worker| Some(&worker.functions.get(index)?.cycles)),
                seen: sum(&|worker| Some(&worker.functions.get(index)?.seen)),
                sent: sum(&|worker| Some(&worker.functions.get(index)?.sent)),
                dropped: sum(&|worker| Some(&worker.functions.get(index)?.dropped)),
                taken: sum(&|worker| Some(&worker.functions.get(index)?.taken)),
                held: sum(&|worker| Some(&worker.functions.get(index)?.held)),
                sessions: sum(&|worker| Some(&worker.functions.get(index)?.sessions)),
            })
            .collect();
        let drops: Vec<DropReport> = all_drops(workers, registry).into_iter().filter(|drop| drop.count > 0).collect();
        let own = |(function, name, value)| CounterReport { function, name, value };
        let counters = registry.counters().into_iter().map(own).collect();
        let gauges = registry.gauges().into_iter().map(own).collect();
        let tables = registry.tables();
        // In this order, so that what moves meanwhile counts as on its way.
        let taken_over = sum(&|worker| Some(&worker.taken_over));
        let handed_over = sum(&|worker| Some(&worker.handed_over));
        let balance = Balance {
            received: ports.iter().map(|port| port.received).sum(),
            originated: sum(&|worker| Some(&worker.originated)),
            sent: ports.iter().map(|port| port.sent).sum(),
            dropped: drops.iter().map(|drop| drop.count).sum(),
            consumed: sum(&|worker| Some(&worker.consumed)),
            held: functions
                .iter()
                .map(|function| function.held)
                .fold(sum(&|worker| Some(&worker.pending)), u64::wrapping_add)
                .wrapping_add(sum(&|worker| Some(&worker.held_around)))
                .wrapping_add(sum(&|worker| Some(&worker.fragments)))
                .wrapping_add(handed_over.wrapping_sub(taken_over)),
        };
        let by_worker: Vec<_> = workers.iter().map(|worker| WorkerReport::new(worker)).collect();
        let work = |of: fn(&WorkerCounters) -> &WorkCounters| WorkReport {
            calls: sum(&|worker| Some(&of(worker).calls)),
            packets: sum(&|worker| Some(&of(worker).packets)),
            cycles: sum(&|worker| Some(&of(worker).cycles)),
        };
        let (ingress, egress) = (work(|worker| &worker.ingress), work(|worker| &worker.egress));
        let measured = functions.iter().map(|function| function.cycles).sum::<u64>() + ingress.cycles + egress.cycles;
        let rest = WorkReport {
            calls: by_worker.iter().map(|worker| worker.rounds.saturating_sub(worker.idle_rounds)).sum(),
            packets: balance.received,
            cycles: by_worker.iter().map(|worker| worker.busy_cycles).sum::<u64>().saturating_sub(measured),
        };
        let generation = workers.iter().map(|worker| worker.generation.load(Ordering::Relaxed)).min().unwrap_or(0);
        Self {
            ports,
            functions,
            drops,
            counters,
            gauges,
            tables,
            handed_over,
            workers: by_worker,
            ingress,
            egress,
            rest,
            cycles_per_second: 0,
            balance,
            generation,
        }
    }

    /// The parts of the work with their names, in the order in which a packet from inside meets them; those
    /// that are not functions stand in parentheses.
    #[must_use]
    pub fn parts(&self) -> Vec<(&str, WorkReport)> {
        let functions = self.functions.iter().map(|function| (function.name.as_str(), function.work()));
        let around = [("(ingress)", self.ingress)].into_iter();
        around.chain(functions).chain([("(egress)", self.egress), ("(receive, send, other)", self.rest)]).collect()
    }

    /// How many packets were dropped under a reason.
    #[must_use]
    pub fn dropped(&self, reason: &str) -> u64 {
        self.drops.iter().find(|drop| drop.reason == reason).map_or(0, |drop| drop.count)
    }

    /// What a function's own counter stands at.
    #[must_use]
    pub fn counter(&self, function: &str, name: &str) -> Option<u64> {
        let mut counters = self.counters.iter();
        counters.find(|counter| counter.function == function && counter.name == name).map(|counter| counter.value)
    }
}

/// How often packets were dropped for each reason that there is, also if none were.
pub(crate) fn all_drops(workers: &[Arc<WorkerCounters>], registry: &Registry) -> Vec<DropReport> {
    let count = |index: usize| {
        let drops = workers.iter().filter_map(|worker| worker.drops.get(index));
        drops.map(|drops| drops.load(Ordering::Relaxed)).fold(0, u64::wrapping_add)
    };
    let reasons = registry.drop_reasons.list().into_iter().enumerate();
    reasons.map(|(index, (reason, help))| DropReport { reason, help, count: count(index) }).collect()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ports = Table::new(&["port", "received", "sent", "missed", "no mbuf"]);
        for port in &self.ports {
            let device = |of: fn(&PortStats) -> u64| port.device.as_ref().map_or("-".to_owned(), |d| of(d).to_string());
            ports.row([
                port.name.clone(),
                port.received.to_string(),
                port.sent.to_string(),
                device(|device| device.rx_missed),
                device(|device| device.rx_no_mbuf),
            ]);
        }
        write!(f, "{ports}")?;
        if self.workers.len() > 1 {
            let mut workers = Table::new(&["worker", "received", "sent", "handed over"]);
            for (number, worker) in self.workers.iter().enumerate() {
                let WorkerReport { received, sent, handed_over, .. } = *worker;
                workers.row([number as u64, received, sent, handed_over].map(|number| number.to_string()));
            }
            write!(f, "{workers}")?;
        }
        if !self.functions.is_empty() {
            let mut functions =
                Table::new(&["function", "seen", "passed", "sent", "dropped", "taken", "held", "sessions"]);
            for function in &self.functions {
                let FunctionReport { seen, sent, dropped, taken, held, sessions, .. } = *function;
                let numbers = [seen, function.passed(), sent, dropped, taken, held, sessions];
                functions.row([function.name.clone()].into_iter().chain(numbers.map(|number| number.to_string())));
            }
            write!(f, "{functions}")?;
        }
        let parts = self.parts();
        if parts.iter().any(|(_, work)| work.calls > 0) {
            let mut chain = Table::new(&["part", "calls", "packets", "packets per call", "cycles per packet"]);
            let places = |number: Option<f64>, places| number.map_or("-".to_owned(), |n| format!("{n:.places$}"));
            for (name, work) in parts {
                let (calls, packets) = (work.calls.to_string(), work.packets.to_string());
                let (together, cost) = (places(work.packets_per_call(), 1), places(work.cycles_per_packet(), 0));
                chain.row([name.to_owned(), calls, packets, together, cost]);
            }
            write!(f, "{chain}")?;
        }
        if !self.counters.is_empty() {
            let mut counters = Table::new(&["counter", "value"]);
            for counter in &self.counters {
                counters.row([format!("{}.{}", counter.function, counter.name), counter.value.to_string()]);
            }
            write!(f, "{counters}")?;
        }
        if !self.gauges.is_empty() {
            let mut gauges = Table::new(&["gauge", "value"]);
            for gauge in &self.gauges {
                gauges.row([format!("{}.{}", gauge.function, gauge.name), gauge.value.to_string()]);
            }
            write!(f, "{gauges}")?;
        }
        if !self.drops.is_empty() {
            let mut drops = Table::new(&["dropped because", "packets", ""]);
            for drop in &self.drops {
                drops.row([drop.reason.clone(), drop.count.to_string(), drop.help.clone()]);
            }
            write!(f, "{drops}")?;
        }
        for port in self.ports.iter().filter(|port| port.misled > 0) {
            writeln!(
                f,
                "{} does not spread packets as it was told; {} worker(s) have seen it\n",
                port.name, port.misled
            )?;
        }
        for port in &self.ports {
            let PortReport { name, link_downs, resets, removals, down, .. } = port;
            let times = |count: &u64| if *count == 1 { "once".to_owned() } else { format!("{count} times") };
            let parts =
                [(link_downs, "its link went down"), (removals, "its device went away"), (resets, "it was built anew")];
            let said: Vec<String> = parts
                .into_iter()
                .filter(|(count, _)| **count > 0)
                .map(|(count, what)| format!("{what} {}", times(count)))
                .chain(down.then(|| "it is down".to_owned()))
                .collect();
            if !said.is_empty() {
                writeln!(f, "{name}: {}\n", said.join(", "))?;
            }
        }
        if self.handed_over > 0 {
            writeln!(
                f,
                "{} times a packet was handed over: to its owner, or to a worker that can send it\n",
                self.handed_over
            )?;
        }
        write!(f, "{}", self.balance)
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { received, originated, sent, dropped, consumed, held } = self;
        write!(
            f,
            "balance: {received} received + {originated} originated = \
             {sent} sent + {dropped} dropped + {consumed} consumed + {held} held"
        )?;
        match self.unaccounted() {
            0 => Ok(()),
            missing => write!(f, " + {missing} unaccounted for"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_says_what_is_missing() {
        let closed = Balance { received: 10, originated: 2, sent: 5, dropped: 4, consumed: 2, held: 1 };
        let text = "balance: 10 received + 2 originated = 5 sent + 4 dropped + 2 consumed + 1 held";
        for (balance, unaccounted, expected) in [
            (closed, 0, text.to_owned()),
            (Balance { received: 13, ..closed }, 3, text.replace("10 ", "13 ") + " + 3 unaccounted for"),
            (Balance { sent: 6, ..closed }, -1, text.replace("5 sent", "6 sent") + " + -1 unaccounted for"),
        ] {
            assert_eq!((balance.unaccounted(), balance.to_string()), (unaccounted, expected));
        }
        let huge = Balance { received: u64::MAX, originated: u64::MAX, ..Balance::default() };
        assert_eq!(huge.unaccounted(), 2 * i128::from(u64::MAX));
    }

    #[test]
    fn a_report_is_tables_with_numbers_to_the_right() {
        let device = PortStats { rx_missed: 1_234_567, ..PortStats::default() };
        let port = PortReport {
            name: "net_null0".into(),
            received: 7,
            sent: 1_000_000,
            device: Some(device),
            ..PortReport::default()
        };
        let function = FunctionReport {
            name: "8".into(),
            seen: 12,
            held: 1_234_567,
            calls: 8,
            cycles: 12_345,
            ..FunctionReport::default()
        };
        let report = Report {
            ports: vec![port, PortReport { name: "a".into(), ..PortReport::default() }],
            functions: vec![function, FunctionReport { name: "firewall".into(), ..FunctionReport::default() }],
            drops: vec![DropReport { reason: "policy".into(), help: "a rule".into(), count: 3 }],
            counters: vec![CounterReport { function: "firewall".into(), name: "hits".into(), value: 3 }],
            gauges: Vec::new(),
            handed_over: 5,
            workers: vec![
                WorkerReport { received: 7, sent: 1_000_000, handed_over: 5, ..WorkerReport::default() },
                WorkerReport::default(),
            ],
            rest: WorkReport { calls: 4, packets: 128, cycles: 6400 },
            generation: 1,
            ..Report::default()
        };
        let expected = "\
port       received     sent   missed  no mbuf
net_null0         7  1000000  1234567        0
a                 0        0        -        -

worker  received     sent  handed over
0              7  1000000            5
1              0        0            0

function  seen  passed  sent  dropped  taken     held  sessions
8           12      12     0        0      0  1234567         0
firewall     0       0     0        0      0        0         0

part                    calls  packets  packets per call  cycles per packet
(ingress)                   0        0                 -                  -
8                           8       12               1.5               1029
firewall                    0        0                 -                  -
(egress)                    0        0                 -                  -
(receive, send, other)      4      128              32.0                 50

counter        value
firewall.hits      3

dropped because  packets
policy                 3  a rule

5 times a packet was handed over: to its owner, or to a worker that can send it

balance: 0 received + 0 originated = 0 sent + 0 dropped + 0 consumed + 0 held";
        assert_eq!(report.to_string(), expected);
        assert_eq!((report.dropped("policy"), report.dropped("other")), (3, 0));
        assert_eq!((report.counter("firewall", "hits"), report.counter("8", "hits")), (Some(3), None));
    }

    #[test]
    fn counters_of_all_workers_are_added_up() {
        let workers: Vec<_> = (0..3).map(|_| Arc::new(WorkerCounters::new(2, 2))).collect();
        for (count, worker) in (1..).zip(&workers) {
            worker.functions[1].seen.store(count, Ordering::Relaxed);
            worker.functions[1].held.store(10 * count, Ordering::Relaxed);
            worker.drops[7].store(count, Ordering::Relaxed);
            worker.functions[1].sessions.store(100 * count, Ordering::Relaxed);
            worker.generation.store(5 - count, Ordering::Relaxed);
            worker.pending.store(100, Ordering::Relaxed);
            worker.fragments.store(1000, Ordering::Relaxed);
            worker.ports[0].received.store(count, Ordering::Relaxed);
            worker.ports[1].received.store(10 * count, Ordering::Relaxed);
            worker.ports[1].sent.store(2 * count, Ordering::Relaxed);
            worker.handed_over.store(3 * count, Ordering::Relaxed);
            worker.functions[1].calls.store(count, Ordering::Relaxed);
            worker.functions[1].cycles.store(100 * count, Ordering::Relaxed);
            worker.egress.calls.store(count, Ordering::Relaxed);
            worker.egress.cycles.store(10 * count, Ordering::Relaxed);
            worker.rounds.store(5 * count, Ordering::Relaxed);
            worker.idle_rounds.store(3 * count, Ordering::Relaxed);
            worker.busy_cycles.store(200 * count, Ordering::Relaxed);
        }
        let report = Report::new(&[], &["a".to_owned(), "b".to_owned()], &workers, &Registry::default());
        assert_eq!((report.functions[0].seen, report.functions[1].seen), (0, 6));
        assert_eq!(report.functions[1].sessions, 600);
        assert_eq!(report.generation, 2, "of the worker that is behind");
        assert_eq!((report.drops.len(), report.dropped("policy")), (1, 6));
        assert_eq!((report.balance.dropped, report.balance.held), (6, 3360 + 18));
        assert_eq!(report.functions[1].work(), WorkReport { calls: 6, packets: 6, cycles: 600 });
        assert_eq!(report.egress, WorkReport { calls: 6, packets: 0, cycles: 60 });
        assert_eq!(report.rest, WorkReport { calls: 12, packets: 0, cycles: 1200 - 660 });
        let worker = |count: u64| WorkerReport {
            received: 11 * count,
            sent: 2 * count,
            handed_over: 3 * count,
            rounds: 5 * count,
            idle_rounds: 3 * count,
            busy_cycles: 200 * count,
            idle_cycles: 0,
        };
        assert_eq!(report.workers, [1, 2, 3].map(worker));
    }
}
