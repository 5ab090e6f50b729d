//! Runs every suite in a process of its own, several times, and watches over it.

use crate::machine::{self, Machine, Memory, allowed_cpus};
use crate::measure::Plan;
use crate::results::{Absent, Results, Row, Suite};
use crate::{Built, Length, testpmd};
use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A process that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// What a process of a suite has found.
#[derive(Serialize, Deserialize)]
struct Found {
    memory: String,
    rows: Vec<Row>,
    /// What the suite has said of itself meanwhile.
    #[serde(skip)]
    notes: Vec<String>,
}

/// The process of a suite: measures, and says what came out. Whether all went well.
pub(crate) fn child(built: &Built, plan: Plan) -> bool {
    let said = found(built, plan).and_then(|found| Ok(serde_json::to_string(&found)?));
    match &said {
        Ok(found) => println!("result {found}"),
        Err(error) => println!("error {error:#}"),
    }
    said.is_ok()
}

fn found(built: &Built, plan: Plan) -> anyhow::Result<Found> {
    // The other end is closed when the parent ends, however it does; testpmd ends likewise with us.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1);
    });
    let need = (built.mebibytes)(plan.quick);
    let memory = match Memory::choose(need + testpmd::MEBIBYTES) {
        // It is one piece, with holes.
        Memory::Ordinary(_) => Memory::Ordinary(2 * need),
        huge => huge,
    };
    let rows = (built.run)(plan, memory)?;
    Ok(Found { memory: memory.describe().to_owned(), rows, notes: Vec::new() })
}

/// Measures the suites that are built; the others are absent.
pub(crate) fn measure(
    suites: &[&(&'static str, Option<Built>)],
    quick: bool,
    length: Length,
) -> anyhow::Result<Results> {
    let date = Command::new("date").args(["-u", "+%F %T UTC"]).output().context("date")?;
    let taken = String::from_utf8_lossy(&date.stdout).trim().to_owned();
    let mut results = Results::new(taken, quick, Machine::new());
    let absent = |suite: &str, why: String| Absent { suite: suite.to_owned(), why, failed: false };
    let cpus = allowed_cpus().len();
    for (name, built) in suites {
        match built {
            None => results.absent.push(absent(name, "not built yet: it joins with its function".to_owned())),
            Some(Built { cpus: needed, .. }) if cpus < *needed => {
                results.absent.push(absent(name, format!("not measured: it needs {needed} CPUs, and there is {cpus}")));
            }
            Some(Built { kernel: true, .. }) if !is_root() => {
                results.absent.push(absent(name, "not measured: it needs root, for network namespaces".to_owned()));
            }
            Some(_) => {}
        }
    }
    results.load[0] = machine::load();
    let start = Instant::now();
    for pass in 1..=length.processes {
        for (name, built) in suites.iter().filter_map(|(name, built)| Some((name, built.as_ref()?))) {
            if results.absent.iter().any(|absent| absent.suite == *name) {
                continue;
            }
            let say = |what: &str| {
                let seconds = start.elapsed().as_secs();
                println!("[{seconds:>4} s] {name}, process {pass} of {}: {what}", length.processes);
            };
            match run(name, built, quick, length.plan, say) {
                Ok(found) => add(&mut results, name, built, length.plan, found),
                Err(error) => {
                    say(&format!("failed: {error:#}"));
                    results.suites.retain(|suite| suite.name != *name);
                    let (failed, what) = if built.kernel { (false, "not measured") } else { (true, "failed") };
                    results.absent.push(Absent { failed, ..absent(name, format!("{what}: {error:#}")) });
                }
            }
        }
    }
    results.load[1] = machine::load();
    Ok(results)
}

/// Whether this process may do everything.
fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|of_process| of_process.uid() == 0)
}

/// This program once more, also when cargo has put another one in its place meanwhile.
pub(crate) fn this_program() -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("bench");
    command
}

fn add(results: &mut Results, name: &str, built: &Built, plan: Plan, found: Found) {
    let mut suite = Suite {
        name: name.to_owned(),
        about: built.about.to_owned(),
        processes: 1,
        rounds: plan.rounds,
        slice_ms: u64::try_from(plan.slice.as_millis()).unwrap_or(u64::MAX),
        memory: found.memory,
        rows: found.rows,
        notes: (built.notes)().into_iter().chain(found.notes).collect(),
    };
    match results.suites.iter_mut().find(|known| known.name == name) {
        Some(known) => known.merge(suite),
        None => {
            suite.calibrate();
            results.suites.push(suite);
        }
    }
}

/// One process, from its start to its end.
fn run(name: &str, built: &Built, quick: bool, plan: Plan, say: impl Fn(&str)) -> anyhow::Result<Found> {
    let mut command = this_program();
    command.args(["--child", name, "--rounds", &plan.rounds.to_string()]).args(quick.then_some("--quick"));
    if built.huge_malloc {
        command.env("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1");
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("no process")?;
    let output = BufReader::new(child.stdout.take().context("stdout")?);
    let mut child = Watched(child);
    let (lines, received) = channel();
    std::thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
    say("starts");
    let (mut said, mut notes) = (None, Vec::new());
    loop {
        match received.recv_timeout(PATIENCE) {
            Ok(line) => {
                if let Some(found) = line.strip_prefix("result ") {
                    let found: Found = serde_json::from_str(found).context("its figures")?;
                    return Ok(Found { notes, ..found });
                }
                if let Some(note) = line.strip_prefix("note ") {
                    notes.push(note.to_owned());
                }
                if let Some(error) = line.strip_prefix("error ") {
                    bail!("{error}");
                }
                // The first variant of a round, now and then.
                if let Some(round) = line.strip_prefix("progress 1 ")
                    && said.is_none_or(|said: Instant| said.elapsed() > Duration::from_secs(5))
                {
                    said = Some(Instant::now());
                    say(round);
                }
            }
            Err(RecvTimeoutError::Timeout) => bail!("nothing heard of it for {} s", PATIENCE.as_secs()),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended: {}", child.0.wait()?),
        }
    }
}

/// Does not outlive the wish for it.
struct Watched(Child);

impl Drop for Watched {
    fn drop(&mut self) {
        // It ends when its input does.
        drop(self.0.stdin.take());
        for _ in 0..100 {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
