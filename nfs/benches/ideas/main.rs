//! What each idea of kernel bypass is worth: the same small function on every way from the
//! wire to a program, and on DPDK with each idea taken away in turn. Run by
//! `scripts/bench ideas`.
//!
//! The function counts UDP packets by destination port and swaps the MAC addresses.

mod bypass;
mod kernel;
#[allow(dead_code, reason = "the other benchmark uses all of it")]
#[path = "../bench/measure.rs"]
mod measure;
mod waiting;

use anyhow::Context as _;
use measure::Sample;
use serde::Serialize;
use std::time::Duration;

/// One row: a way to do the work, and its figures of every round.
#[derive(Debug, Serialize)]
struct Row {
    group: &'static str,
    name: String,
    /// The number on the axis of a plot, where the group has one.
    at: Option<u32>,
    cpu_ns_per_packet: Vec<f64>,
    wall_ns_per_packet: Vec<f64>,
}

/// How often, and how long each time.
#[derive(Clone, Copy, Debug)]
struct Plan {
    rounds: u32,
    slice: Duration,
}

/// One way to do the work of a group.
struct Way<'a> {
    name: String,
    at: Option<u32>,
    run: Box<dyn FnMut(Duration) -> anyhow::Result<Sample> + 'a>,
}

impl<'a> Way<'a> {
    fn new(name: impl Into<String>, run: impl FnMut(Duration) -> anyhow::Result<Sample> + 'a) -> Self {
        Self { name: name.into(), at: None, run: Box::new(run) }
    }

    fn at(mut self, at: u32) -> Self {
        self.at = Some(at);
        self
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut plan = Plan { rounds: 7, slice: Duration::from_millis(500) };
    let mut json = None;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "ideas" => {}
            "--quick" => plan = Plan { rounds: 5, slice: Duration::from_millis(150) },
            "--json" => json = Some(arguments.next().context("--json needs a file")?),
            // This program again, as one of the ways of the first group.
            "--device" => return bypass::serve(&arguments.next().context("--device needs a device")?),
            other => anyhow::bail!("unknown argument {other} (see scripts/bench --help)"),
        }
    }
    let mut rows = Vec::new();
    match kernel::Wires::new() {
        Ok(wires) => run("ways", "from a wire of the kernel's to the program", kernel::ways(&wires)?, plan, &mut rows)?,
        Err(why) => println!("skipped: the ways through the kernel: {why}\n"),
    }
    let eal = bypass::start()?;
    run("bursts", "packets at once", bypass::bursts(&eal)?, plan, &mut rows)?;
    run("without", "on DPDK, an idea taken away", bypass::without(&eal)?, plan, &mut rows)?;
    run("copies", "a copy of each packet, by bytes", bypass::copies(&eal)?, plan, &mut rows)?;
    run("mbufs", "mbufs in rotation: from the cache, or from memory", bypass::rotations(&eal)?, plan, &mut rows)?;
    bypass::tables(&eal, plan, &mut rows)?;
    let waits = waiting::measure(plan)?;
    if let Some(file) = json {
        let all = serde_json::json!({ "rows": rows, "waiting": waits });
        std::fs::write(&file, serde_json::to_string_pretty(&all)?).with_context(|| file.clone())?;
        println!("written: {file}");
    }
    Ok(())
}

/// Runs the ways of a group in turn, round after round, and prints them. The first is what
/// the others are compared with, in the same round.
fn run(
    group: &'static str,
    title: &str,
    mut ways: Vec<Way<'_>>,
    plan: Plan,
    rows: &mut Vec<Row>,
) -> anyhow::Result<()> {
    eprintln!("{title}: {} rounds of {} x {:?}", plan.rounds, ways.len(), plan.slice);
    let mut samples: Vec<Vec<Sample>> = ways.iter().map(|_| Vec::new()).collect();
    for round in 0..=plan.rounds {
        for (way, samples) in ways.iter_mut().zip(&mut samples) {
            let sample = (way.run)(plan.slice).with_context(|| way.name.clone())?;
            anyhow::ensure!(sample.packets > 0, "{}: no packets", way.name);
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let from = rows.len();
    for (way, samples) in ways.into_iter().zip(samples) {
        rows.push(Row {
            group,
            name: way.name,
            at: way.at,
            cpu_ns_per_packet: samples.iter().map(Sample::cpu_cost).collect(),
            wall_ns_per_packet: samples.iter().map(Sample::wall_cost).collect(),
        });
    }
    print_group(title, &rows[from..]);
    Ok(())
}

fn print_group(title: &str, rows: &[Row]) {
    let width = rows.iter().map(|row| row.name.len()).max().unwrap_or(0).max(title.len());
    println!("{title:<width$}  ns/packet: CPU      min      max     wall   times the first");
    let first = rows.first().map(|row| row.cpu_ns_per_packet.clone()).unwrap_or_default();
    for row in rows {
        let cpu = &row.cpu_ns_per_packet;
        let ratios = cpu.iter().zip(&first).map(|(this, first)| this / first).collect();
        println!(
            "{:<width$}  {:>14.1} {:>8.1} {:>8.1} {:>8.1} {:>17.2}",
            row.name,
            median(cpu.clone()),
            cpu.iter().copied().fold(f64::INFINITY, f64::min),
            cpu.iter().copied().fold(0.0, f64::max),
            median(row.wall_ns_per_packet.clone()),
            median(ratios),
        );
    }
    println!();
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(f64::NAN)
}
