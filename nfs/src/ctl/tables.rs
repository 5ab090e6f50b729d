//! What every program has, as tables: the figures since its start.

use super::output::Output;
use crate::door::{
    Balance, ChainRow, Counter, Device, Drop, FunctionTopics, Occupancy, Port, Program, Stats, Topic, Worker, bytes,
    duration, share, wrapped,
};
use nf_framework::Table;
use std::io;
use std::time::Duration;

/// Columns of a terminal: no table of a program's figures is wider.
const COLUMNS: usize = 80;

pub(super) fn program(program: &Program, output: &mut Output) -> io::Result<()> {
    let state = match (program.ready, program.draining) {
        (_, true) => "draining",
        (true, _) => "ready",
        (false, _) => "not ready",
    };
    let uptime = Duration::try_from_secs_f64(program.uptime_seconds).unwrap_or_default();
    let dpdk = program.dpdk.as_ref().map_or_else(String::new, |dpdk| format!(" on DPDK {dpdk}"));
    for (name, value) in [
        ("program", format!("{} {}{dpdk}", program.name, program.version)),
        ("state", state.to_owned()),
        ("process", program.pid.to_string()),
        ("running for", duration(uptime)),
        ("workers", program.workers.to_string()),
        ("generation", program.generation.to_string()),
        ("configuration", program.config.clone().unwrap_or_else(|| "none".to_owned())),
    ] {
        output.line(&format!("{name:<15}{value}"))?;
    }
    Ok(())
}

pub(super) fn stats(stats: &Stats, output: &mut Output) -> io::Result<()> {
    ports(&stats.ports, output)?;
    output.table(workers(&stats.workers))?;
    chain(&stats.functions, output)?;
    output.table(counters("counter", &stats.counters))?;
    output.table(counters("gauge", &stats.gauges))?;
    output.table(occupancy(&stats.tables))?;
    output.table(drops(&stats.drops))?;
    output.gap()?;
    if stats.handed_over > 0 {
        output.line(&format!("{} times a packet went from one worker to another", stats.handed_over))?;
    }
    output.line(&balance(&stats.balance))
}

/// The ports, and what happened to them.
pub(super) fn ports(ports: &[Port], output: &mut Output) -> io::Result<()> {
    let heads = ["port", "link", "rx packets", "tx packets", "rx bytes", "tx bytes", "missed", "errors"];
    let mut table = Table::new(&heads);
    for port in ports {
        let device = |of: fn(&Device) -> String| port.device.as_ref().map_or("-".to_owned(), of);
        table.row([
            port.name.clone(),
            port.link_state(),
            port.received.to_string(),
            port.sent.to_string(),
            device(|device| bytes(device.rx_bytes)),
            device(|device| bytes(device.tx_bytes)),
            device(|device| (device.rx_missed + device.rx_no_mbuf).to_string()),
            device(|device| (device.rx_errors + device.tx_errors).to_string()),
        ]);
    }
    output.table(table)?;
    let sides = ports.iter().filter_map(|port| Some(format!("{} is {}", port.name, port.side.as_deref()?)));
    let sides: Vec<String> = sides.collect();
    if !sides.is_empty() {
        output.line(&sides.join(", "))?;
    }
    for port in ports {
        let times = |count: u64| if count == 1 { "once".to_owned() } else { format!("{count} times") };
        let happened = [
            (port.link_downs, "its link went down"),
            (port.removals, "its device went away"),
            (port.resets, "it was built anew"),
        ];
        let happened = happened.into_iter().filter(|(count, _)| *count > 0);
        let happened: Vec<String> = happened.map(|(count, what)| format!("{what} {}", times(count))).collect();
        if !happened.is_empty() {
            output.line(&format!("{}: {}", port.name, happened.join(", ")))?;
        }
        if let Some(count) = port.device.as_ref().map(|device| device.rx_no_mbuf).filter(|count| *count > 0) {
            output.line(&format!("{}: {count} of the missed packets found no mbuf", port.name))?;
        }
        if port.misled > 0 {
            let (name, misled) = (&port.name, port.misled);
            output.line(&format!("{name}: does not spread packets as it was told; {misled} worker(s) have seen it"))?;
        }
    }
    Ok(())
}

pub(super) fn workers(workers: &[Worker]) -> Table {
    let heads = ["worker", "lcore", "cpu", "received", "sent", "handed over", "packets/round", "idle"];
    let mut table = Table::new(&heads);
    for worker in workers {
        let or_dash = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        table.row([
            worker.worker.to_string(),
            or_dash(worker.lcore),
            or_dash(worker.cpu),
            worker.received.to_string(),
            worker.sent.to_string(),
            worker.handed_over.to_string(),
            ratio(worker.received, worker.rounds.saturating_sub(worker.idle_rounds)),
            share(worker.idle_share),
        ]);
    }
    table
}

/// A column of a table of functions.
type ChainColumn = (&'static str, fn(&ChainRow) -> Option<String>);

const WORKER: ChainColumn = ("worker", |row| row.worker.map(|n| n.to_string()));

/// What a function costs, and what it keeps.
const COST: [ChainColumn; 6] = [
    WORKER,
    ("packets", |row| row.shown().map(|n| n.to_string())),
    ("packets/call", |row| row.calls.map(|calls| ratio(row.shown().unwrap_or(0), calls))),
    ("cycles/packet", |row| row.cycles.map(|cycles| ratio(cycles, row.shown().unwrap_or(0)))),
    ("held", |row| row.held.map(|n| n.to_string())),
    ("sessions", |row| row.sessions.map(|n| n.to_string())),
];

/// What became of the packets that it saw.
const VERDICTS: [ChainColumn; 5] = [
    WORKER,
    ("passed", |row| row.passed.map(|n| n.to_string())),
    ("sent", |row| row.sent.map(|n| n.to_string())),
    ("dropped", |row| row.dropped.map(|n| n.to_string())),
    ("taken", |row| row.taken.map(|n| n.to_string())),
];

/// What each function costs, and below it what it did: side by side they would be wider than a terminal.
pub(super) fn chain(rows: &[ChainRow], output: &mut Output) -> io::Result<()> {
    output.table(of_functions(rows, &COST))?;
    let judging: Vec<ChainRow> = rows.iter().filter(|row| row.passed.is_some()).cloned().collect();
    output.table(of_functions(&judging, &VERDICTS))
}

/// Columns that nothing is said of are left out.
fn of_functions(rows: &[ChainRow], columns: &[ChainColumn]) -> Table {
    let said: Vec<&ChainColumn> =
        columns.iter().filter(|(_, cell)| rows.iter().any(|row| cell(row).is_some())).collect();
    let heads: Vec<&str> = ["function"].into_iter().chain(said.iter().map(|(head, _)| *head)).collect();
    let mut table = Table::new(&heads);
    for row in rows {
        let cells = said.iter().map(|(_, cell)| cell(row).unwrap_or_else(|| "-".to_owned()));
        table.row([row.function.clone()].into_iter().chain(cells));
    }
    table
}

/// With one digit behind the point; a dash where nothing can be divided by.
#[allow(clippy::cast_precision_loss, reason = "one digit behind the point is shown")]
fn ratio(of: u64, by: u64) -> String {
    if by == 0 { "-".to_owned() } else { format!("{:.1}", of as f64 / by as f64) }
}

pub(super) fn counters(what: &str, counters: &[Counter]) -> Table {
    let mut table = Table::new(&[what, "value"]);
    for counter in counters {
        table.row([format!("{}.{}", counter.function, counter.name), counter.value.to_string()]);
    }
    table
}

fn occupancy(tables: &[Occupancy]) -> Table {
    let mut table = Table::new(&["occupancy", "worker", "value", "room for", "full"]);
    for of in tables {
        table.row([
            format!("{}.{}", of.function, of.table),
            of.worker.map_or("-".to_owned(), |worker| worker.to_string()),
            of.entries.to_string(),
            of.limit.to_string(),
            of.share().map_or("-".to_owned(), share),
        ]);
    }
    table
}

/// The most frequent first.
pub(super) fn drops(drops: &[Drop]) -> Table {
    let mut drops: Vec<&Drop> = drops.iter().collect();
    drops.sort_by_key(|drop| std::cmp::Reverse(drop.count));
    let heads = ["dropped because", "packets", ""];
    let reasons = drops.iter().map(|drop| drop.reason.len()).max().unwrap_or(0).max(heads[0].len());
    let counts = drops.iter().map(|drop| drop.count.to_string().len()).max().unwrap_or(0).max(heads[1].len());
    let mut table = Table::new(&heads);
    for drop in drops {
        let (mut reason, mut count) = (drop.reason.clone(), drop.count.to_string());
        for help in wrapped(&drop.help, COLUMNS.saturating_sub(reasons + counts + 4)) {
            table.row([std::mem::take(&mut reason), std::mem::take(&mut count), help]);
        }
    }
    table
}

fn balance(balance: &Balance) -> String {
    let Balance { received, originated, sent, dropped, consumed, held } = *balance;
    nf_framework::Balance { received, originated, sent, dropped, consumed, held }.to_string()
}

/// Each function with its topics, as one would ask them.
pub(super) fn functions(functions: &[FunctionTopics], output: &mut Output) -> io::Result<()> {
    if functions.is_empty() {
        output.line("no function of this program can be asked anything")?;
    }
    for function in functions {
        output.gap()?;
        let silent = if function.topics.is_empty() { ": cannot be asked anything" } else { "" };
        output.line(&format!("{}{silent}", function.name))?;
        for topic in &function.topics {
            let verb = if topic.kind == "order" { "order" } else { "query" };
            output.line(&format!("  nf-ctl {verb} {} {}{}", function.name, topic.name, parameters(topic)))?;
            output.line(&format!("      {}", topic.help))?;
            for parameter in topic.parameters.iter().filter(|parameter| !parameter.help.is_empty()) {
                output.line(&format!("      {}=: {}", parameter.name, parameter.help))?;
            }
        }
    }
    Ok(())
}

fn parameters(topic: &Topic) -> String {
    topic.parameters.iter().map(|parameter| format!(" [{}=..]", parameter.name)).collect()
}
