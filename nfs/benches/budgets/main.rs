//! Instructions per packet, and where they go: what is behind `scripts/budgets` and
//! `scripts/profile`.
//!
//! The program that is counted is another, `cases`: whatever changes here does not change how that
//! is compiled. `check` counts all of its cases with callgrind and compares with a committed file,
//! `profile` shows one by stage, by line and as a flame graph.
#![forbid(unsafe_code)]

mod budget;
mod callgrind;
mod flame;
mod perf;
mod report;
mod stacks;

use anyhow::{Context as _, bail, ensure};
use budget::{Budgets, Line, Tools};
use callgrind::{Case, Profile, Program};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../.ci/budgets.toml");
/// The exit code when the budgets are for another compiler or DPDK; see scripts/test.
const SKIPPED: u8 = 200;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match args[..] {
        [program, "check"] => check(&Program(program.into()), false),
        [program, "check", "--update"] => check(&Program(program.into()), true),
        [program, "profile", name, directory, lines_of] => profile(&Program(program.into()), name, directory, lines_of),
        [program, "time", name, lines_of] => time(&Program(program.into()), name, lines_of),
        _ => Err(anyhow::anyhow!("unknown arguments {args:?}: use scripts/budgets or scripts/profile")),
    };
    done.unwrap_or_else(|error| {
        eprintln!("budgets: {error:#}");
        ExitCode::FAILURE
    })
}

fn check(program: &Program, update: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let budgets = match fs::read_to_string(FILE) {
        Ok(text) => Some(Budgets::parse(&text)?),
        Err(_) if update => None,
        Err(error) => bail!("{FILE}: {error}"),
    };
    let tools = Tools { dpdk: dpdk_rs::Version::loaded().to_string(), rustc: rustc()? };
    let comparable = budgets.as_ref().is_some_and(|budgets| budgets.tools() == tools);
    let cases = program.cases()?;
    let counted: Vec<f64> = program.count(&cases)?.iter().map(Profile::per_packet).collect();
    let of = |name: &String| cases.iter().position(|case| case.name == *name).map_or(0.0, |index| counted[index]);
    let line = |(case, counted): (&Case, &f64)| {
        let budget = budgets.as_ref().filter(|_| comparable || !update).and_then(|budgets| budgets.of(case));
        Line::new(case.clone(), counted - case.above.as_ref().map_or(0.0, of), budget)
    };
    let lines: Vec<Line> = cases.iter().zip(&counted).map(line).collect();

    writeln!(out, "{:<16} {:>9} {:>9} {:>10}", "instructions per", "packet", "budget", "change")?;
    for line in &lines {
        writeln!(out, "{line}")?;
    }
    writeln!(out, "with {tools}")?;
    if update {
        fs::write(FILE, budget::file(&tools, &lines)).context(FILE)?;
        writeln!(out, "written: .ci/budgets.toml")?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(budgets) = budgets.as_ref().filter(|_| !comparable) {
        writeln!(out, "skipped: the budgets were measured with {}, this is {tools}", budgets.tools())?;
        return Ok(ExitCode::from(SKIPPED));
    }
    let left_over = budgets.iter().flat_map(|budgets| budgets.left_over(&cases));
    let left_over = left_over.map(|name| format!("there is a budget for {name}, and no such case"));
    let complaints: Vec<String> = lines.iter().filter_map(Line::complaint).chain(left_over).collect();
    for complaint in &complaints {
        writeln!(out, "{complaint}")?;
    }
    ensure!(complaints.is_empty(), "budgets that are not kept: {}", complaints.len());
    Ok(ExitCode::SUCCESS)
}

/// The version of the compiler, which is found as cargo finds it.
fn rustc() -> anyhow::Result<String> {
    let output = Command::new("rustc").arg("--version").output().context("rustc")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split(' ').nth(1).map(str::to_owned).with_context(|| format!("rustc --version says {text:?}"))
}

fn profile(program: &Program, name: &str, directory: &str, lines_of: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let profile = program.count(&[find(program, name)?])?.remove(0);
    let stacks = stacks::stacks(program, &profile)?;
    let title = format!("{name}: {:.1} instructions per packet", profile.per_packet());
    writeln!(out, "{title}\n\n{}", report::Report { stacks: &stacks, lines_of })?;
    for (extension, text) in [("svg", flame::svg(&title, &stacks)), ("folded", flame::folded(&stacks))] {
        let file = Path::new(directory).join(format!("{name}.{extension}"));
        fs::write(&file, text).with_context(|| file.display().to_string())?;
        writeln!(out, "written: {}", file.display())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn time(program: &Program, name: &str, lines_of: &str) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    let profile = perf::sample(program, &find(program, name)?)?;
    let stacks = stacks::stacks(program, &profile)?;
    writeln!(out, "{name}: {:.2} ns of CPU time per packet\n", profile.per_packet())?;
    writeln!(out, "{}", report::Report { stacks: &stacks, lines_of })?;
    Ok(ExitCode::SUCCESS)
}

fn find(program: &Program, name: &str) -> anyhow::Result<Case> {
    let cases = program.cases()?;
    let names = || cases.iter().map(|case| case.name.as_str()).collect::<Vec<_>>().join(", ");
    let case = cases.iter().find(|case| case.name == name);
    case.cloned().with_context(|| format!("there is no case {name}: there are {}", names()))
}
