//! `/metrics`: what Prometheus scrapes, in its text format (version 0.0.4). One table says what there is, for the
//! endpoint and for docs/metrics.md.

use super::views::{DeviceView, FateView, FunctionView, PortView, WorkerView};
use crate::neighbours::NeighbourCounters;
use crate::registry::TableReport;
use crate::report::{BackendReport, Balance, CounterReport, DropReport, WorkReport};
use std::fmt::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// All that metrics are made of, at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) program: String,
    pub(crate) version: String,
    pub(crate) dpdk: String,
    pub(crate) uptime: Duration,
    pub(crate) generation: u64,
    pub(crate) reloads: ReloadFacts,
    pub(crate) cycles_per_second: u64,
    pub(crate) ready: bool,
    pub(crate) draining: bool,
    pub(crate) ports: Vec<PortView>,
    pub(crate) workers: Vec<WorkerView>,
    pub(crate) functions: Vec<FunctionView>,
    /// Also those that did not occur, so that a series begins at 0.
    pub(crate) drops: Vec<DropReport>,
    pub(crate) counters: Vec<CounterReport>,
    pub(crate) gauges: Vec<CounterReport>,
    /// Those of one worker each.
    pub(crate) tables: Vec<TableReport>,
    /// Each with its function.
    pub(crate) backends: Vec<(String, BackendReport)>,
    pub(crate) balance: Balance,
    /// The functions and what stands around them, with what they cost.
    pub(crate) parts: Vec<(String, WorkReport)>,
    pub(crate) pool: Option<PoolFacts>,
    /// With a router.
    pub(crate) neighbours: Option<NeighbourFacts>,
    /// Of the process, by itself and as the system sees it.
    pub(crate) process: ProcessFacts,
}

/// What has become of reloads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReloadFacts {
    pub(crate) changed: u64,
    pub(crate) unchanged: u64,
    pub(crate) refused: u64,
    pub(crate) unanswered: u64,
    /// Whether what the file said the last time is in force.
    pub(crate) succeeded: bool,
    /// Since when that has been so, or until when it last was: the start counts too.
    pub(crate) last_success: SystemTime,
}

impl ReloadFacts {
    /// Of a program that has just been started.
    pub(crate) fn begin() -> Self {
        let last_success = SystemTime::now();
        Self { changed: 0, unchanged: 0, refused: 0, unanswered: 0, succeeded: true, last_success }
    }
}

/// What the router says of neighbours.
#[derive(Clone, Debug)]
pub(crate) struct NeighbourFacts {
    pub(crate) counters: NeighbourCounters,
    /// How many are in each state.
    pub(crate) states: Vec<(&'static str, u64)>,
    /// How many there is room for.
    pub(crate) limit: u64,
}

/// The packets' pool.
#[derive(Clone, Debug)]
pub(crate) struct PoolFacts {
    pub(crate) name: String,
    pub(crate) packets: u64,
    pub(crate) available: u64,
}

/// What Prometheus' own libraries tell of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessFacts {
    pub(crate) cpu_seconds: f64,
    pub(crate) resident_bytes: u64,
    pub(crate) virtual_bytes: u64,
    pub(crate) open_files: u64,
    pub(crate) start_seconds: f64,
}

/// What the values of a metric are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Counter,
    Gauge,
}

/// A row of the table: a metric, and how its values come out of the facts.
struct Metric {
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    help: &'static str,
    write: fn(&Facts, &mut Samples<'_>),
}

/// Where a metric's values are written.
struct Samples<'a> {
    metric: &'a Metric,
    out: &'a mut String,
}

impl Samples<'_> {
    /// A value, under its labels' values in the order of the table.
    fn add(&mut self, values: &[&str], value: impl fmt::Display) {
        self.out.push_str(self.metric.name);
        for (index, (label, value)) in self.metric.labels.iter().zip(values).enumerate() {
            let _ = write!(self.out, "{}{label}=\"", if index == 0 { '{' } else { ',' });
            escape(value, self.out, true);
            self.out.push('"');
        }
        let _ = writeln!(self.out, "{} {value}", if values.is_empty() { "" } else { "}" });
    }

    fn each_port<V: fmt::Display>(&mut self, facts: &Facts, of: fn(&PortView) -> Option<V>) {
        for port in &facts.ports {
            of(port).into_iter().for_each(|value| self.add(&[&port.name], value));
        }
    }

    fn each_device(&mut self, facts: &Facts, of: fn(&DeviceView) -> u64) {
        for port in &facts.ports {
            port.device.iter().for_each(|device| self.add(&[&port.name], of(device)));
        }
    }

    fn each_worker(&mut self, facts: &Facts, of: fn(&WorkerView) -> u64) {
        for worker in &facts.workers {
            let lcore = worker.lcore.map_or_else(String::new, |lcore| lcore.to_string());
            self.add(&[&worker.worker.to_string(), &lcore], of(worker));
        }
    }

    fn each_function(&mut self, facts: &Facts, of: fn(&FateView) -> u64) {
        for FunctionView { name, fate, .. } in &facts.functions {
            self.add(&[name], of(fate));
        }
    }

    fn each_part(&mut self, facts: &Facts, of: fn(&WorkReport) -> u64) {
        for (name, work) in &facts.parts {
            self.add(&[name], of(work));
        }
    }

    fn of_neighbours(&mut self, facts: &Facts, of: fn(&NeighbourCounters) -> u64) {
        facts.neighbours.iter().for_each(|neighbours| self.add(&[], of(&neighbours.counters)));
    }

    fn each_table(&mut self, facts: &Facts, of: fn(&TableReport) -> u64) {
        for table in &facts.tables {
            let worker = table.worker.map_or_else(String::new, |worker| worker.to_string());
            self.add(&[&table.function, &table.table, &worker], of(table));
        }
    }

    fn each_backend(&mut self, facts: &Facts, of: fn(&BackendReport) -> Option<u64>) {
        for (function, backend) in &facts.backends {
            of(backend).into_iter().for_each(|value| self.add(&[function, &backend.service, &backend.name], value));
        }
    }
}

/// Everything that there is, in the order in which it is shown.
#[rustfmt::skip]
const METRICS: &[Metric] = &[
    gauge("nf_build_info", &["program", "version", "dpdk"], "Always 1; what runs, in which version, and on which release of DPDK",
        |facts, to| to.add(&[&facts.program, &facts.version, &facts.dpdk], 1)),
    gauge("nf_uptime_seconds", &[], "Seconds since the program began",
        |facts, to| to.add(&[], facts.uptime.as_secs_f64())),
    gauge("nf_ready", &[], "Whether the program takes on new sessions: 1 if it does",
        |facts, to| to.add(&[], u8::from(facts.ready))),
    gauge("nf_draining", &[], "Whether the program waits for its sessions to end: 1 if it does",
        |facts, to| to.add(&[], u8::from(facts.draining))),
    gauge("nf_generation", &[], "The generation of policies that is in force; 1 at the start, and one more with each reload that changes something",
        |facts, to| to.add(&[], facts.generation)),
    counter("nf_reloads_total", &["result"], "Times that the configuration was read again, by what came of it: changed, unchanged, refused (the program runs on with what it had), unanswered (a worker does not say that it has taken over)",
        |facts, to| {
            let ReloadFacts { changed, unchanged, refused, unanswered, .. } = facts.reloads;
            let results = [("changed", changed), ("unchanged", unchanged), ("refused", refused), ("unanswered", unanswered)];
            results.into_iter().for_each(|(result, count)| to.add(&[result], count));
        }),
    gauge("nf_config_last_reload_successful", &[], "Whether the configuration as it was last read is in force: 0 after a reload that was refused or not answered; 1 before the first",
        |facts, to| to.add(&[], u8::from(facts.reloads.succeeded))),
    gauge("nf_config_last_reload_success_timestamp_seconds", &[], "When the configuration was last read and found to be in force or taken over, in seconds since 1970; before the first reload, when the program began",
        |facts, to| to.add(&[], facts.reloads.last_success.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64())),

    gauge("nf_port_info", &["port", "side", "driver"], "Always 1; towards which side the port is, and its driver",
        |facts, to| facts.ports.iter().for_each(|port| to.add(&[&port.name, port.side.unwrap_or_default(), &port.driver], 1))),
    counter("nf_port_received_packets_total", &["port"], "Packets that workers received from the port",
        |facts, to| to.each_port(facts, |port| Some(port.received))),
    counter("nf_port_sent_packets_total", &["port"], "Packets that the port took from workers",
        |facts, to| to.each_port(facts, |port| Some(port.sent))),
    gauge("nf_port_up", &["port"], "Whether the port is in use: 0 while it is being built anew, or its device is gone",
        |facts, to| to.each_port(facts, |port| Some(u8::from(!port.down)))),
    gauge("nf_port_link_up", &["port"], "Whether the port has a link; not there where nobody can know, as of a net_tap interface in another namespace",
        |facts, to| to.each_port(facts, |port| port.link.as_ref().map(|link| u8::from(link.up)))),
    gauge("nf_port_link_speed_bytes_per_second", &["port"], "What the link carries, if the device says it",
        |facts, to| to.each_port(facts, |port| port.link.as_ref()?.speed_mbps.map(|speed| u64::from(speed) * 125_000))),
    counter("nf_port_link_downs_total", &["port"], "Times that the link was seen to go down",
        |facts, to| to.each_port(facts, |port| Some(port.link_downs))),
    counter("nf_port_resets_total", &["port"], "Times that the port was built anew",
        |facts, to| to.each_port(facts, |port| Some(port.resets))),
    counter("nf_port_removals_total", &["port"], "Times that the port's device went away or was given up",
        |facts, to| to.each_port(facts, |port| Some(port.removals))),
    gauge("nf_port_misled_workers", &["port"], "Workers that found the device to spread packets otherwise than it was told",
        |facts, to| to.each_port(facts, |port| Some(port.misled))),
    counter("nf_device_received_packets_total", &["port"], "Packets that the device received, by its own counters",
        |facts, to| to.each_device(facts, |device| device.rx_packets)),
    counter("nf_device_received_bytes_total", &["port"], "Bytes of these",
        |facts, to| to.each_device(facts, |device| device.rx_bytes)),
    counter("nf_device_sent_packets_total", &["port"], "Packets that the device sent",
        |facts, to| to.each_device(facts, |device| device.tx_packets)),
    counter("nf_device_sent_bytes_total", &["port"], "Bytes of these",
        |facts, to| to.each_device(facts, |device| device.tx_bytes)),
    counter("nf_device_missed_packets_total", &["port"], "Packets that the device dropped as its queue was full: the workers were too slow",
        |facts, to| to.each_device(facts, |device| device.rx_missed)),
    counter("nf_device_no_mbuf_packets_total", &["port"], "Packets that the driver dropped as the pool was empty",
        |facts, to| to.each_device(facts, |device| device.rx_no_mbuf)),
    counter("nf_device_receive_errors_total", &["port"], "Packets that arrived broken",
        |facts, to| to.each_device(facts, |device| device.rx_errors)),
    counter("nf_device_send_errors_total", &["port"], "Packets that the device failed to send",
        |facts, to| to.each_device(facts, |device| device.tx_errors)),

    counter("nf_worker_received_packets_total", &["worker", "lcore"], "Packets that the worker received from ports",
        |facts, to| to.each_worker(facts, |worker| worker.counts.received)),
    counter("nf_worker_sent_packets_total", &["worker", "lcore"], "Packets that ports took from the worker",
        |facts, to| to.each_worker(facts, |worker| worker.counts.sent)),
    counter("nf_worker_handed_over_packets_total", &["worker", "lcore"], "Packets that the worker handed over to another one",
        |facts, to| to.each_worker(facts, |worker| worker.counts.handed_over)),
    counter("nf_worker_rounds_total", &["worker", "lcore"], "Looks of the worker at all its queues",
        |facts, to| to.each_worker(facts, |worker| worker.counts.rounds)),
    counter("nf_worker_idle_rounds_total", &["worker", "lcore"], "Looks that found nothing",
        |facts, to| to.each_worker(facts, |worker| worker.counts.idle_rounds)),
    counter("nf_worker_busy_cycles_total", &["worker", "lcore"], "Cycles of the time-stamp counter in rounds with packets",
        |facts, to| to.each_worker(facts, |worker| worker.counts.busy_cycles)),
    counter("nf_worker_idle_cycles_total", &["worker", "lcore"], "Cycles in the others: looking for packets, and sleeping",
        |facts, to| to.each_worker(facts, |worker| worker.counts.idle_cycles)),
    gauge("nf_cycles_per_second", &[], "Cycles of the time-stamp counter in a second",
        |facts, to| to.add(&[], facts.cycles_per_second)),

    counter("nf_function_seen_packets_total", &["function"], "Packets that the function was shown",
        |facts, to| to.each_function(facts, |of| of.seen)),
    counter("nf_function_passed_packets_total", &["function"], "Packets that it left to the next function",
        |facts, to| to.each_function(facts, |of| of.passed)),
    counter("nf_function_sent_packets_total", &["function"], "Packets that it sent or turned itself",
        |facts, to| to.each_function(facts, |of| of.sent)),
    counter("nf_function_dropped_packets_total", &["function"], "Packets that it dropped",
        |facts, to| to.each_function(facts, |of| of.dropped)),
    counter("nf_function_taken_packets_total", &["function"], "Packets that it took, to hold or to answer them",
        |facts, to| to.each_function(facts, |of| of.taken)),
    gauge("nf_function_held_packets", &["function"], "Packets that it holds now",
        |facts, to| to.each_function(facts, |of| of.held)),
    gauge("nf_function_sessions", &["function"], "Sessions that it has now",
        |facts, to| to.each_function(facts, |of| of.sessions)),
    counter("nf_function_own_total", &["function", "name"], "Counters of the function's own",
        |facts, to| facts.counters.iter().for_each(|of| to.add(&[&of.function, &of.name], of.value))),
    gauge("nf_function_value", &["function", "name"], "Gauges of the function's own",
        |facts, to| facts.gauges.iter().for_each(|of| to.add(&[&of.function, &of.name], of.value))),
    gauge("nf_table_entries", &["function", "table", "worker"], "Entries in a table of bounded size: functions by their names, and in parentheses what stands around them; a table that is full is full of one worker's",
        |facts, to| to.each_table(facts, |of| of.entries)),
    gauge("nf_table_entries_limit", &["function", "table", "worker"], "Entries that the table was made for; it may take some more before it refuses any",
        |facts, to| to.each_table(facts, |of| of.limit)),
    gauge("nf_backend_up", &["function", "service", "backend"], "Whether a backend is up, by its checks, whatever people have ordered; not there of one that nobody checks",
        |facts, to| to.each_backend(facts, |of| of.is_up.map(u64::from))),
    gauge("nf_backend_connections", &["function", "service", "backend"], "Connections that a backend has",
        |facts, to| to.each_backend(facts, |of| Some(of.connections))),
    counter("nf_part_calls_total", &["part"], "Bursts that a part of the work was done for: functions by their names, and in parentheses what stands around them",
        |facts, to| to.each_part(facts, |work| work.calls)),
    counter("nf_part_packets_total", &["part"], "Packets in these bursts",
        |facts, to| to.each_part(facts, |work| work.packets)),
    counter("nf_part_cycles_total", &["part"], "Cycles of the time-stamp counter that this took",
        |facts, to| to.each_part(facts, |work| work.cycles)),

    counter("nf_dropped_packets_total", &["reason"], "Packets that were dropped, by reason; docs/drops.md says what each means",
        |facts, to| facts.drops.iter().for_each(|drop| to.add(&[&drop.reason], drop.count))),
    counter("nf_originated_packets_total", &[], "Packets that functions made",
        |facts, to| to.add(&[], facts.balance.originated)),
    counter("nf_consumed_packets_total", &[], "Packets that functions kept for good",
        |facts, to| to.add(&[], facts.balance.consumed)),
    gauge("nf_held_packets", &[], "Packets that wait somewhere: in functions, for a first fragment, on their way to another worker",
        |facts, to| to.add(&[], facts.balance.held)),
    gauge("nf_mempool_packets", &["pool"], "Packets that the pool has, in use or not",
        |facts, to| facts.pool.iter().for_each(|pool| to.add(&[&pool.name], pool.packets))),
    gauge("nf_mempool_available_packets", &["pool"], "Packets in the pool that nobody uses; an empty pool receives nothing",
        |facts, to| facts.pool.iter().for_each(|pool| to.add(&[&pool.name], pool.available))),

    gauge("nf_neighbours", &["state"], "With a router: neighbours, by what is known of them (RFC 4861)",
        |facts, to| facts.neighbours.iter().flat_map(|of| &of.states).for_each(|(state, count)| to.add(&[state], count))),
    gauge("nf_neighbours_limit", &[], "Neighbours, in all states, that the table was made for; it may take some more before one makes room for another",
        |facts, to| facts.neighbours.iter().for_each(|of| to.add(&[], of.limit))),
    counter("nf_neighbour_questions_total", &[], "Questions for neighbours that were sent",
        |facts, to| to.of_neighbours(facts, |of| of.questions)),
    counter("nf_neighbour_answers_total", &[], "Questions of neighbours that were answered",
        |facts, to| to.of_neighbours(facts, |of| of.answers)),
    counter("nf_neighbour_learned_total", &[], "Neighbours whose MAC address came to be known",
        |facts, to| to.of_neighbours(facts, |of| of.learned)),
    counter("nf_neighbour_moved_total", &[], "Neighbours that were found to have another MAC address",
        |facts, to| to.of_neighbours(facts, |of| of.moved)),
    counter("nf_neighbour_failed_total", &[], "Neighbours that did not answer",
        |facts, to| to.of_neighbours(facts, |of| of.failed)),
    counter("nf_neighbour_evicted_total", &[], "Neighbours that were forgotten to make room",
        |facts, to| to.of_neighbours(facts, |of| of.evicted)),
    counter("nf_neighbour_duplicates_total", &[], "Messages by which somebody else claimed an address of the router",
        |facts, to| to.of_neighbours(facts, |of| of.duplicates)),

    counter("process_cpu_seconds_total", &[], "CPU time of all threads, in user and kernel mode; a worker that spins takes all of its CPU",
        |facts, to| to.add(&[], facts.process.cpu_seconds)),
    gauge("process_resident_memory_bytes", &[], "Memory of the process that is in RAM, without hugepages",
        |facts, to| to.add(&[], facts.process.resident_bytes)),
    gauge("process_virtual_memory_bytes", &[], "Address space of the process",
        |facts, to| to.add(&[], facts.process.virtual_bytes)),
    gauge("process_open_fds", &[], "Files and sockets that are open",
        |facts, to| to.add(&[], facts.process.open_files)),
    gauge("process_start_time_seconds", &[], "When the process began, in seconds since 1970",
        |facts, to| to.add(&[], facts.process.start_seconds)),
];

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    write: fn(&Facts, &mut Samples<'_>),
) -> Metric {
    Metric { name, kind: Kind::Counter, labels, help, write }
}

const fn gauge(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    write: fn(&Facts, &mut Samples<'_>),
) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, help, write }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
        }
    }
}

/// The text that is scraped. A metric without values is left out.
pub(crate) fn text(facts: &Facts) -> String {
    let mut out = String::with_capacity(16 * 1024);
    for metric in METRICS {
        let before = out.len();
        let _ = write!(out, "# HELP {} ", metric.name);
        escape(metric.help, &mut out, false);
        let _ = writeln!(out, "\n# TYPE {} {}", metric.name, metric.kind.name());
        let head = out.len();
        (metric.write)(facts, &mut Samples { metric, out: &mut out });
        if out.len() == head {
            out.truncate(before);
        }
    }
    out
}

/// The format's escapes: of quotes only in the values of labels.
fn escape(text: &str, out: &mut String, in_quotes: bool) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if in_quotes => out.push_str("\\\""),
            other => out.push(other),
        }
    }
}

impl ProcessFacts {
    /// Of the calling process, by proc(5); what cannot be read is 0.
    pub(crate) fn now() -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (stat, all) = (read("/proc/self/stat"), read("/proc/stat"));
        // The name, in parentheses, may have blanks in it.
        let fields: Vec<u64> = stat
            .rsplit_once(") ")
            .map(|(_, rest)| rest.split(' ').map(|field| field.trim().parse().unwrap_or(0)).collect())
            .unwrap_or_default();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let boot = all.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u32>().ok());
        let pages = field(24);
        Self {
            cpu_seconds: seconds(field(14)) + seconds(field(15)),
            resident_bytes: pages * PAGE,
            virtual_bytes: field(23),
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count().saturating_sub(1) as u64),
            start_seconds: boot.map_or(0.0, f64::from) + seconds(field(22)),
        }
    }
}

/// Bytes of a page on x86-64.
const PAGE: u64 = 4096;

/// The kernel tells times to processes in hundredths of seconds on x86-64 (`USER_HZ`).
#[allow(clippy::cast_precision_loss, reason = "a time needs no more than 52 bits")]
fn seconds(ticks: u64) -> f64 {
    ticks as f64 / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{FunctionReport, WorkerReport};
    use std::collections::{BTreeMap, BTreeSet};

    /// A sample: its metric, its labels, its value.
    type Sample = (String, BTreeMap<String, String>, f64);

    fn facts() -> Facts {
        let device = DeviceView {
            rx_packets: 1,
            tx_packets: 2,
            rx_bytes: 3,
            tx_bytes: 4,
            rx_missed: 5,
            rx_errors: 6,
            tx_errors: 7,
            rx_no_mbuf: u64::MAX,
        };
        let port = PortView {
            name: "net_\"tap\\0\n".to_owned(),
            side: Some("inside"),
            received: 11,
            sent: 12,
            misled: 0,
            link_downs: 1,
            resets: 2,
            removals: 3,
            down: false,
            link: Some(super::super::views::LinkView { up: true, speed_mbps: Some(10_000) }),
            mac: None,
            driver: "net_tap".to_owned(),
            device: Some(device),
        };
        let counts = WorkerReport { received: 1, sent: 1, rounds: 10, idle_rounds: 9, ..WorkerReport::default() };
        let worker = WorkerView::new(0, None, counts);
        let function = FunctionReport { name: "nat".to_owned(), seen: 5, dropped: 1, ..FunctionReport::default() };
        let function = FunctionView::new(&function);
        let backend = |(number, is_up): (usize, Option<bool>)| {
            let (service, name) = ("web".to_owned(), format!("b{number}"));
            ("lb".to_owned(), BackendReport { service, name, is_up, connections: 5 })
        };
        let own = |name: &str| CounterReport { function: "nat".to_owned(), name: name.to_owned(), value: 8 };
        Facts {
            program: "nat".to_owned(),
            version: "1".to_owned(),
            dpdk: "22.11".to_owned(),
            uptime: Duration::from_millis(1500),
            generation: 1,
            reloads: ReloadFacts { refused: 3, ..ReloadFacts::begin() },
            cycles_per_second: 2_000_000_000,
            ready: true,
            draining: false,
            ports: vec![port],
            workers: vec![worker],
            functions: vec![function],
            drops: vec![DropReport { reason: "policy".to_owned(), help: String::new(), count: 0 }],
            counters: vec![own("mapped")],
            gauges: vec![own("occupancy")],
            tables: vec![TableReport {
                function: "nat".to_owned(),
                table: "sessions".to_owned(),
                worker: Some(0),
                entries: 7,
                limit: 100,
            }],
            backends: [Some(false), None].into_iter().enumerate().map(backend).collect(),
            balance: Balance::default(),
            parts: vec![("(ingress)".to_owned(), WorkReport::default())],
            pool: Some(PoolFacts { name: "packets-0".to_owned(), packets: 100, available: 40 }),
            neighbours: Some(NeighbourFacts {
                counters: NeighbourCounters::default(),
                states: vec![("REACHABLE", 4)],
                limit: 4096,
            }),
            process: ProcessFacts::now(),
        }
    }

    /// The format as its documentation says it, with nothing of the writer's: lines of comments, then of values.
    fn parse(text: &str) -> Result<(BTreeMap<String, String>, Vec<Sample>), String> {
        let (mut types, mut helps, mut samples) = (BTreeMap::new(), BTreeSet::new(), Vec::<Sample>::new());
        if !text.ends_with('\n') {
            return Err("the last line does not end".to_owned());
        }
        for line in text.lines() {
            let wrong = |why: &str| Err(format!("{why}: {line}"));
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let name = rest.split(' ').next().unwrap_or_default();
                if !helps.insert(name.to_owned()) {
                    return wrong("a second HELP");
                }
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').ok_or("no type")?;
                if !["counter", "gauge"].contains(&kind) || types.insert(name.to_owned(), kind.to_owned()).is_some() {
                    return wrong("a bad TYPE");
                }
            } else {
                let end =
                    line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).ok_or("no value")?;
                let (name, mut rest) = line.split_at(end);
                let mut labels = BTreeMap::new();
                if let Some(mut inner) = rest.strip_prefix('{') {
                    loop {
                        let (label, after) = inner.split_once("=\"").ok_or("no label")?;
                        let (mut value, mut characters) = (String::new(), after.char_indices());
                        let end = loop {
                            match characters.next().ok_or("an open quote")? {
                                (_, '\\') => value.push(match characters.next().ok_or("an open escape")?.1 {
                                    'n' => '\n',
                                    other @ ('\\' | '"') => other,
                                    _ => return wrong("a bad escape"),
                                }),
                                (at, '"') => break at,
                                (_, other) => value.push(other),
                            }
                        };
                        if labels.insert(label.to_owned(), value).is_some() {
                            return wrong("a label twice");
                        }
                        match &after[end + 1..] {
                            more if more.starts_with(',') => inner = &more[1..],
                            done => {
                                rest = done.strip_prefix('}').ok_or("an open brace")?;
                                break;
                            }
                        }
                    }
                }
                let value = rest.strip_prefix(' ').ok_or("no blank")?.parse().map_err(|_| "no number")?;
                if !types.contains_key(name) || !helps.contains(name) {
                    return wrong("a value before its TYPE and HELP");
                }
                if samples.iter().any(|(of, with, _)| *of == name && *with == labels) {
                    return wrong("a series twice");
                }
                if samples.iter().rev().skip_while(|(of, ..)| *of == name).any(|(of, ..)| *of == name) {
                    return wrong("a metric's values in two places");
                }
                samples.push((name.to_owned(), labels, value));
            }
        }
        Ok((types, samples))
    }

    #[test]
    fn the_text_is_what_prometheus_reads_and_has_every_metric() {
        let (types, samples) = parse(&text(&facts())).unwrap();
        assert_eq!(types.len(), METRICS.len());
        for metric in METRICS {
            let of: Vec<&Sample> = samples.iter().filter(|(name, ..)| name == metric.name).collect();
            assert!(!of.is_empty(), "{}", metric.name);
            let labels = |(_, labels, _): &&Sample| labels.keys().cloned().collect::<BTreeSet<_>>();
            let expected: BTreeSet<String> = metric.labels.iter().map(|&label| label.to_owned()).collect();
            assert!(of.iter().all(|sample| labels(sample) == expected), "{}", metric.name);
            assert_eq!(types[metric.name], metric.kind.name());
        }
        let received = samples.iter().find(|(name, ..)| name == "nf_port_received_packets_total").unwrap();
        assert_eq!((received.1["port"].as_str(), received.2), ("net_\"tap\\0\n", 11.0));
        let count = |metric: &str| samples.iter().filter(|(name, ..)| name == metric).count();
        assert_eq!((count("nf_backend_up"), count("nf_backend_connections")), (1, 2), "one is not checked");
        let refused = |of: &&Sample| of.0 == "nf_reloads_total" && of.1["result"] == "refused";
        assert_eq!(samples.iter().find(refused).unwrap().2, 3.0);
        let cpu = samples.iter().find(|(name, ..)| name == "process_resident_memory_bytes").unwrap();
        assert!(cpu.2 > 1e5, "{cpu:?}");
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for Metric { name, kind, labels, help, .. } in METRICS {
            assert!(name.starts_with("nf_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(!help.ends_with('.') && !help.is_empty(), "{name}");
            for word in ["milliseconds", "microseconds", "kilobytes", "bits", "percent"] {
                assert!(!name.contains(word), "{name}: base units");
            }
            assert!(labels.iter().all(|label| label.chars().all(|c| c.is_ascii_lowercase())), "{name}");
        }
    }

    #[test]
    fn the_parser_finds_what_is_wrong() {
        let head = "# HELP a b\n# TYPE a counter\n";
        for wrong in ["a 1\n", "# HELP a b\n# TYPE a counter\na 1", "# TYPE a histogram\n"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        for wrong in ["a{b=\"c} 1\n", "a{b=\"\\x\"} 1\n", "a\n", "a x\n", "a 1\na 1\n", "a{b=\"1\",b=\"1\"} 1\n"] {
            assert!(parse(&format!("{head}{wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
        let known: BTreeSet<&str> = METRICS.iter().map(|metric| metric.name).collect();
        for file in ["prometheus/nf.rules.yml", "prometheus/nf.rules.test.yml", "grafana/nf.json"] {
            let path = format!("{}/../deploy/{file}", env!("CARGO_MANIFEST_DIR"));
            let text = std::fs::read_to_string(path).unwrap();
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            let asked: BTreeSet<&str> =
                words.filter(|word| word.starts_with("nf_") || word.starts_with("process_")).collect();
            assert!(asked.len() > 20, "{file}: {asked:?}");
            let unknown: Vec<_> = asked.difference(&known).collect();
            assert!(unknown.is_empty(), "{file}: {unknown:?}");
        }
    }

    /// What each label may be.
    const LABELS: &[(&str, &str)] = &[
        ("program", "`nat`, `firewall`, `load-balancer`, `nf-chain`, or the name of your own"),
        ("version", "the program's"),
        ("dpdk", "the release of DPDK that runs, such as `22.11.11`"),
        ("port", "a device of `[ports]`, as it is called there: `net_tap0`, `0000:01:10.0`"),
        ("side", "`inside` or `outside`; empty for the only port, and for one that leads to the kernel"),
        ("driver", "DPDK's name of the port's driver, such as `net_tap`, `net_iavf`"),
        ("worker", "a worker's number, from 0"),
        ("lcore", "DPDK's number of the CPU that it runs on"),
        ("function", "a name in `chain`; of tables also `(fragments)`"),
        ("part", "a name in `chain`; before and behind these `(ingress)` and `(egress)`, and `(receive, send, other)`"),
        ("name", "a counter or gauge of the function's own: its page lists them"),
        ("table", "what the entries are of: `sessions`, `subscribers`, `tcp-ports`, `connections-ipv4`"),
        ("service", "the name of a load balancer's service"),
        ("backend", "the name of one of its backends"),
        ("reason", "one of [drops.md](drops.md); those of the program's chain are there from the start, at 0"),
        ("result", "`changed`, `unchanged`, `refused`, `unanswered`"),
        ("pool", "the name of the pool of packets"),
        ("state", "`INCOMPLETE`, `REACHABLE`, `STALE`, `DELAY`, `PROBE`, `UNREACHABLE`"),
    ];

    #[test]
    fn the_list_in_the_docs_is_the_table() {
        let mut list = String::from(
            "# Metrics\n\nWhat `/metrics` has ([admin.md](admin.md)), in the order in which it comes. This list is made from the \
             table in\n`nf-framework/src/operate/metrics.rs` by its test, with `NF_WRITE_DOCS=1`.\n\n\
             | metric | kind | labels | what it says |\n|---|---|---|---|\n",
        );
        for Metric { name, kind, labels, help, .. } in METRICS {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(list, "| `{name}` | {} | {} | {help} |", kind.name(), labels.join(", "));
        }
        list.push_str("\n## Labels\n\n| label | its values |\n|---|---|\n");
        for (label, values) in LABELS {
            let _ = writeln!(list, "| `{label}` | {values} |");
        }
        list.push_str("\nHits of rules are no metrics: `nf-ctl rules` has them.\n");
        let used: BTreeSet<&str> = METRICS.iter().flat_map(|metric| metric.labels).copied().collect();
        assert_eq!(LABELS.iter().map(|(label, _)| *label).collect::<BTreeSet<_>>(), used);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
        if std::env::var_os("NF_WRITE_DOCS").is_some() {
            std::fs::write(path, &list).unwrap();
        }
        let there = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            there == list,
            "docs/metrics.md is not the table: NF_WRITE_DOCS=1 cargo test -p nf-framework the_list_in"
        );
    }
}
