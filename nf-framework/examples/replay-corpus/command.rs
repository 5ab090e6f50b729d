//! The arguments of a program that replays captures, and what it prints.

use crate::replay::{self, Options, Run, Subject, Summary};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

#[derive(Parser)]
#[command(name = "replay-corpus", about = "Replays captures through a router with functions in it")]
struct Arguments {
    /// Where the captures are (pcap and pcapng), at any depth
    directory: PathBuf,
    /// Change bits and bytes of the frames, and make their checksums right half of the time
    #[arg(long)]
    flip: bool,
    /// What the changes are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Does what the arguments say.
pub(crate) fn run(subject: fn() -> Box<dyn Subject>) -> ExitCode {
    let arguments = Arguments::parse();
    let flip = arguments.flip.then_some(arguments.seed);
    let begun = Instant::now();
    match replay::replay(&arguments.directory, &Options { flip, subject }) {
        Ok(summary) => {
            let arrived: u64 = summary.runs.iter().map(|run| run.balance.received).sum();
            print(&summary, flip);
            println!("{:<34}{:>12.0}", "packets a second", arrived as f64 / begun.elapsed().as_secs_f64());
            conclude(&summary)
        }
        Err(error) => {
            eprintln!("{}: {error}", arguments.directory.display());
            ExitCode::FAILURE
        }
    }
}

fn print(summary: &Summary, flip: Option<u64>) {
    for fault in &summary.faults {
        println!("not read to its end: {fault}");
    }
    let line = |what: &str, count: usize| println!("{what:<34}{count:>12}");
    line("files", summary.files);
    line("  not read, or not to their end", summary.faults.len());
    line("Ethernet frames", summary.frames);
    if let Some(seed) = flip {
        line(&format!("  changed, with seed {seed}"), summary.changed);
    }
    line("  too long for a packet, left out", summary.too_long);
    for (link_type, count) in &summary.other_links {
        line(&format!("of link type {link_type}, left out"), *count);
    }
    println!("\n{:<34}{:>12}{:>20}", "", "one worker", "two, wrong ones");
    let both = |what: &str, of: &dyn Fn(&Run) -> u64| {
        println!("{what:<34}{:>12}{:>20}", of(&summary.runs[0]), of(&summary.runs[1]));
    };
    both("received", &|run| run.balance.received);
    both("originated", &|run| run.balance.originated);
    both("sent", &|run| run.balance.sent);
    both("consumed", &|run| run.balance.consumed);
    both("held, at most", &|run| run.most_held);
    both("held, at the end", &|run| run.balance.held);
    both("handed over", &|run| run.handed_over);
    both("dropped", &|run| run.balance.dropped);
    for reason in summary.runs.iter().flat_map(|run| run.drops.keys()).collect::<std::collections::BTreeSet<_>>() {
        both(&format!("  {reason}"), &|run| run.drops.get(reason).copied().unwrap_or(0));
    }
    for name in summary.runs[0].counters.keys() {
        both(name, &|run| run.counters.get(name).copied().unwrap_or(0));
    }
}

fn conclude(summary: &Summary) -> ExitCode {
    if summary.frames == 0 {
        println!("there was nothing to replay");
        return ExitCode::FAILURE;
    }
    if summary.failures.is_empty() {
        println!("no panic, no leak, and the balance is exact after each file");
        return ExitCode::SUCCESS;
    }
    for failure in &summary.failures {
        println!("failed: {failure}");
    }
    println!("{} failed", summary.failures.len());
    ExitCode::FAILURE
}
