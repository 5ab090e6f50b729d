//! The benchmarks behind `scripts/bench`: each suite runs variants of the same work in turn,
//! round after round, and reports what a packet costs in each of them.
//!
//! A suite is a list of [`measure::Variant`]s and what to compare them with; see [`io`]. It
//! prints and writes figures and judges none of them: a shared machine is not fit for that.
#![forbid(unsafe_code)]

mod io;
mod machine;
mod measure;
mod report;
mod testpmd;

use anyhow::{Context as _, bail};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Every suite that there is or will be, and what runs those that are built.
type Run = fn(&Options) -> anyhow::Result<report::Suite>;
const SUITES: [(&str, Option<Run>); 10] = [
    ("io", Some(io::run)),
    ("tables", None),
    ("custom", None),
    ("router", None),
    ("nat", None),
    ("firewall", None),
    ("load-balancer", None),
    ("chain", None),
    ("new-sessions", None),
    ("workers", None),
];

/// What the command line says.
struct Options {
    suites: Vec<String>,
    rounds: u32,
    /// How long one variant runs in one round.
    slice: Duration,
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn options() -> anyhow::Result<Options> {
    let mut args = std::env::args().skip(1);
    let (mut suites, mut rounds, mut quick, mut json) = (Vec::new(), None, false, None);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--quick" => quick = true,
            "--rounds" => {
                let count = args.next().context("--rounds needs a number")?;
                let count = count.parse().ok().filter(|count| *count > 0);
                rounds = Some(count.context("--rounds needs a number above 0")?);
            }
            "--json" => json = Some(args.next().context("--json needs a file name")?.into()),
            // Cargo adds it.
            "--bench" => {}
            _ if arg.starts_with('-') => bail!("unknown argument {arg}"),
            _ => suites.push(arg),
        }
    }
    if suites.is_empty() {
        bail!("name a suite: {}", SUITES.map(|(name, _)| name).join(", "));
    }
    let (usual_rounds, slice) = if quick { (5, 200) } else { (9, 500) };
    Ok(Options { suites, rounds: rounds.unwrap_or(usual_rounds), slice: Duration::from_millis(slice), json })
}

fn run(options: &Options) -> anyhow::Result<()> {
    let mut runs = Vec::new();
    for name in &options.suites {
        match SUITES.iter().find(|(known, _)| known == name) {
            Some((_, Some(run))) => runs.push(run),
            Some((name, None)) => println!("The suite {name} is not built yet."),
            None => bail!("there is no suite {name}; there are {}", SUITES.map(|(name, _)| name).join(", ")),
        }
    }
    // One DPDK per process, so one suite per process once there are more.
    let mut suites = Vec::new();
    for run in runs {
        let suite = run(options)?;
        println!("{suite}");
        suites.push(suite);
    }
    if let Some(file) = &options.json {
        let text = serde_json::to_string_pretty(&suites).context("JSON")?;
        std::fs::write(file, text + "\n").with_context(|| format!("{} cannot be written", file.display()))?;
        println!("written: {}", file.display());
    }
    Ok(())
}
