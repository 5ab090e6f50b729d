//! The benchmarks behind `scripts/bench`: each suite runs variants of the same work in turn,
//! round after round, and reports what a packet costs in each of them.
//!
//! A suite is a module that gives [`measure::Variant`]s to [`measure::interleave`], and a line in
//! [`SUITES`]. It runs in a process of its own, as there is one DPDK for each, started and watched
//! over by [`parent`]. Figures are kept as [`results`], and shown by [`table`], [`report`] with
//! [`plot`], and [`compare`]; [`goals`] says what of them is aimed at. Nothing here fails because
//! of a figure: a shared machine is not fit for that.
#![forbid(unsafe_code)]

mod chain;
mod classifier;
mod compare;
mod custom;
mod firewall;
mod firewall_floods;
#[path = "../shared/firewall_rules.rs"]
mod firewall_rules;
mod flood;
mod floods;
mod goals;
mod ideas;
mod io;
mod linux;
mod load_balancer;
mod load_balancer_floods;
mod machine;
mod measure;
mod namespace;
mod nat;
mod nat_floods;
mod operated;
mod ours;
mod parent;
mod plot;
#[path = "../shared/port_block.rs"]
mod port_block;
mod report;
mod results;
#[path = "../shared/routed.rs"]
mod routed;
mod router;
mod scored;
mod served;
mod source;
mod statistics;
mod table;
mod tables;
mod testpmd;
mod workers;

use anyhow::{Context as _, bail};
use clap::Parser;
use machine::Memory;
use measure::Plan;
use results::{Results, Row};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// A suite that is built.
struct Built {
    about: &'static str,
    run: fn(Plan, Memory) -> anyhow::Result<Vec<Row>>,
    notes: fn() -> Vec<String>,
    /// MiB of hugepages, that of testpmd not counted.
    mebibytes: fn(quick: bool) -> u64,
    /// CPUs without which there is nothing to measure.
    cpus: usize,
    /// Whether it takes root, and what a kernel may lack: without, it is absent, and nothing has failed.
    kernel: bool,
    /// Whether malloc shall ask for transparent huge pages.
    huge_malloc: bool,
}

const IO: Built = Built {
    about: io::ABOUT,
    run: io::run,
    notes: io::notes,
    mebibytes: |_| io::MEBIBYTES,
    cpus: 1,
    kernel: false,
    huge_malloc: false,
};
const TABLES: Built = Built {
    about: tables::ABOUT,
    run: tables::run,
    notes: tables::notes,
    mebibytes: tables::mebibytes,
    cpus: 1,
    kernel: false,
    huge_malloc: true,
};
const CLASSIFIER: Built = Built {
    about: classifier::ABOUT,
    run: classifier::run,
    notes: classifier::notes,
    mebibytes: |_| classifier::MEBIBYTES,
    cpus: 1,
    kernel: false,
    huge_malloc: false,
};
const CUSTOM: Built = Built {
    about: custom::ABOUT,
    run: custom::run,
    notes: custom::notes,
    mebibytes: |_| custom::MEBIBYTES,
    cpus: 1,
    kernel: false,
    huge_malloc: false,
};
const CHAIN: Built = Built {
    about: chain::ABOUT,
    run: chain::run,
    notes: chain::notes,
    mebibytes: |_| chain::MEBIBYTES,
    cpus: 1,
    kernel: false,
    huge_malloc: false,
};
const ROUTER: Built = Built {
    about: router::ABOUT,
    run: router::run,
    notes: router::notes,
    mebibytes: |_| router::MEBIBYTES,
    cpus: 1,
    kernel: false,
    huge_malloc: false,
};
const NAT: Built = Built {
    about: nat::ABOUT,
    run: nat::run,
    notes: nat::notes,
    mebibytes: nat::mebibytes,
    cpus: 1,
    kernel: false,
    huge_malloc: true,
};
const FIREWALL: Built = Built {
    about: firewall::ABOUT,
    run: firewall::run,
    notes: firewall::notes,
    mebibytes: |_| firewall::MEBIBYTES,
    cpus: 1,
    kernel: false,
    huge_malloc: true,
};
const LOAD_BALANCER: Built = Built {
    about: load_balancer::ABOUT,
    run: load_balancer::run,
    notes: load_balancer::notes,
    mebibytes: load_balancer::mebibytes,
    cpus: 1,
    kernel: false,
    huge_malloc: true,
};
const NEW_SESSIONS: Built = Built {
    about: nat::ABOUT_NEW,
    run: nat::run_new,
    notes: nat::notes_new,
    mebibytes: |_| nat::MEBIBYTES_NEW,
    cpus: 1,
    kernel: false,
    huge_malloc: true,
};
const FLOODS: Built = Built {
    about: floods::ABOUT,
    run: floods::run,
    notes: floods::notes,
    mebibytes: |_| floods::MEBIBYTES,
    cpus: 2,
    kernel: false,
    huge_malloc: false,
};
const NAT_FLOODS: Built = Built {
    about: nat_floods::ABOUT,
    run: nat_floods::run,
    notes: nat_floods::notes,
    mebibytes: |_| nat_floods::MEBIBYTES,
    cpus: 2,
    kernel: false,
    huge_malloc: false,
};
const LOAD_BALANCER_FLOODS: Built = Built {
    about: load_balancer_floods::ABOUT,
    run: load_balancer_floods::run,
    notes: load_balancer_floods::notes,
    mebibytes: |_| load_balancer_floods::MEBIBYTES,
    cpus: 2,
    kernel: false,
    huge_malloc: false,
};
const FIREWALL_FLOODS: Built = Built {
    about: firewall_floods::ABOUT,
    run: firewall_floods::run,
    notes: firewall_floods::notes,
    mebibytes: |_| firewall_floods::MEBIBYTES,
    cpus: 2,
    kernel: false,
    huge_malloc: false,
};
const OPERATED: Built = Built {
    about: operated::ABOUT,
    run: operated::run,
    notes: operated::notes,
    mebibytes: |_| operated::MEBIBYTES,
    cpus: 2,
    kernel: false,
    huge_malloc: false,
};
const WORKERS: Built = Built {
    about: workers::ABOUT,
    run: workers::run,
    notes: workers::notes,
    mebibytes: |_| workers::MEBIBYTES,
    cpus: 2,
    kernel: false,
    huge_malloc: false,
};

const LINUX: Built = Built {
    about: linux::ABOUT,
    run: linux::run,
    notes: linux::notes,
    mebibytes: |_| linux::MEBIBYTES,
    cpus: 2,
    kernel: true,
    huge_malloc: false,
};

const IDEAS: Built = Built {
    cpus: 2,
    kernel: false,
    about: ideas::ABOUT,
    run: ideas::run,
    notes: ideas::notes,
    mebibytes: |_| ideas::MEBIBYTES,
    huge_malloc: false,
};

/// Suites that are run only when they are named: they teach, or need the machine to themselves.
const ONLY_NAMED: [&str; 6] = ["operated", "floods", "nat-floods", "load-balancer-floods", "firewall-floods", "ideas"];

/// Every suite that there is or will be.
static SUITES: [(&str, Option<Built>); 18] = [
    ("io", Some(IO)),
    ("tables", Some(TABLES)),
    ("classifier", Some(CLASSIFIER)),
    ("custom", Some(CUSTOM)),
    ("router", Some(ROUTER)),
    ("nat", Some(NAT)),
    ("firewall", Some(FIREWALL)),
    ("load-balancer", Some(LOAD_BALANCER)),
    ("chain", Some(CHAIN)),
    ("new-sessions", Some(NEW_SESSIONS)),
    ("workers", Some(WORKERS)),
    ("linux", Some(LINUX)),
    ("operated", Some(OPERATED)),
    ("floods", Some(FLOODS)),
    ("nat-floods", Some(NAT_FLOODS)),
    ("load-balancer-floods", Some(LOAD_BALANCER_FLOODS)),
    ("firewall-floods", Some(FIREWALL_FLOODS)),
    ("ideas", Some(IDEAS)),
];

/// What scripts/bench passes on. Its own --help teaches.
#[derive(Parser)]
#[command(name = "bench")]
struct Options {
    /// Suites, all of them unless named
    suites: Vec<String>,
    /// One process of short rounds for each suite
    #[arg(long)]
    quick: bool,
    /// Rounds in each process
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Directory for figures and report
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench"))]
    out: PathBuf,
    /// Show what has changed since these figures
    #[arg(long, value_name = "BASE.json")]
    compare: Option<PathBuf>,
    /// Measure nothing, show these figures
    #[arg(long, value_name = "RESULTS.json")]
    from: Option<PathBuf>,
    /// Print how many MiB of hugepages the suites need
    #[arg(long)]
    mebibytes: bool,
    /// Be the process of this suite
    #[arg(long, hide = true)]
    child: Option<String>,
    /// Be a process with so many workers
    #[arg(long, hide = true)]
    serve_workers: Option<usize>,
    /// Be a process that forwards on this kind of device
    #[arg(long, hide = true)]
    serve_device: Option<String>,
    /// Be a process with a worker between the two interfaces of the suite linux
    #[arg(long, hide = true)]
    serve_interfaces: bool,
    /// Added by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

/// How long all of it takes.
#[derive(Clone, Copy)]
struct Length {
    processes: usize,
    plan: Plan,
}

impl Options {
    fn length(&self) -> Length {
        // Short slices and many of them: others on the machine then disturb all variants of a round
        // alike, and a round's figures in relation to each other hold.
        let (processes, rounds, slice) = if self.quick { (1, 7, 50) } else { (3, 24, 50) };
        let rounds = self.rounds.map_or(rounds, usize::from);
        Length { processes, plan: Plan { quick: self.quick, rounds, slice: Duration::from_millis(slice) } }
    }

    /// The suites that are asked for, in the order of [`SUITES`].
    fn chosen(&self) -> anyhow::Result<Vec<&'static (&'static str, Option<Built>)>> {
        if let Some(unknown) = self.suites.iter().find(|name| SUITES.iter().all(|(known, _)| known != *name)) {
            bail!("there is no suite {unknown}; there are {}", SUITES.each_ref().map(|(name, _)| *name).join(", "));
        }
        let usual = |name: &str| self.suites.is_empty() && !ONLY_NAMED.contains(&name);
        Ok(SUITES.iter().filter(|(name, _)| usual(name) || self.suites.iter().any(|s| s == name)).collect())
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(complete) => ExitCode::from(u8::from(!complete)),
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all suites that are built have given figures.
fn run(options: &Options) -> anyhow::Result<bool> {
    if let Some(workers) = options.serve_workers {
        return workers::serve(workers).map(|()| true);
    }
    if let Some(device) = &options.serve_device {
        return ideas::serve(device).map(|()| true);
    }
    if options.serve_interfaces {
        return linux::serve().map(|()| true);
    }
    let Length { plan, .. } = options.length();
    if let Some(name) = &options.child {
        let built = SUITES.iter().find(|(known, _)| known == name).and_then(|(_, built)| built.as_ref());
        return Ok(parent::child(built.context("no such suite")?, plan));
    }
    let chosen = options.chosen()?;
    if options.mebibytes && options.from.is_some() {
        println!("0");
        return Ok(true);
    }
    if options.mebibytes {
        let most =
            chosen.iter().filter_map(|(_, built)| built.as_ref()).map(|built| (built.mebibytes)(options.quick)).max();
        println!("{}", most.map_or(0, |most| most + testpmd::MEBIBYTES));
        return Ok(true);
    }
    // Before anything is measured that could be lost.
    let base = options.compare.as_deref().map(Results::read).transpose()?;
    let mut results = match &options.from {
        Some(file) => Results::read(file)?,
        None => parent::measure(&chosen, options.quick, options.length())?,
    };
    let comparison = base.map(|base| compare::Comparison::new(&base, &results));
    print!("{}", table::Tables(&results));
    if let Some(comparison) = &comparison {
        println!("\n{comparison}");
    }
    std::fs::create_dir_all(&options.out).with_context(|| options.out.display().to_string())?;
    let write = |name: &str, write: &mut dyn FnMut(&Path) -> anyhow::Result<()>| {
        let path = options.out.join(name);
        write(&path).map(|()| println!("{}", path.display()))
    };
    println!("\nwritten:");
    write("results.json", &mut |path| results.write(path))?;
    let report = report::html(&results, comparison.as_ref());
    write("report.html", &mut |path| std::fs::write(path, &report).context("the report cannot be written"))?;
    Ok(!results.absent.iter().any(|absent| absent.failed))
}
