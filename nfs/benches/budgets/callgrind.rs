//! Runs cases under callgrind, and reads what it has counted.
//!
//! Callgrind counts the instructions that a program executes, and they are the same in every
//! run. Whenever the program calls `mark` it writes a file and begins anew, so every second file
//! holds one case and nothing of what was before or after it.

use anyhow::{Context as _, bail, ensure};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Comes by time as well as by packets, so it is counted apart from the rest.
pub(crate) const TICK: &str = "nf_framework::worker::Worker::housekeeping";

/// The program whose instructions are counted.
pub(crate) struct Program(pub(crate) PathBuf);

/// One of its cases.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    /// Packets between its marks.
    pub(crate) packets: u64,
    /// Packets from one tick of a busy worker to the next.
    pub(crate) packets_per_tick: u64,
    /// The case that it adds something to: what it adds has the budget.
    pub(crate) above: Option<String>,
    pub(crate) help: String,
}

/// Functions by the way they were reached: a function that two others call is there twice.
pub(crate) struct Profile {
    pub(crate) case: Case,
    pub(crate) total: u64,
    pub(crate) nodes: Vec<Node>,
}

pub(crate) struct Node {
    /// The file that it is from: the program, or a shared library.
    pub(crate) object: String,
    pub(crate) function: String,
    /// By address.
    pub(crate) own: Vec<(u64, u64)>,
    pub(crate) calls: Vec<Call>,
}

/// All calls that one instruction makes of one function.
pub(crate) struct Call {
    pub(crate) at: u64,
    pub(crate) to: usize,
    pub(crate) count: u64,
    /// Instructions of the function and of all that it calls.
    pub(crate) cost: u64,
}

impl Program {
    /// What it can run.
    pub(crate) fn cases(&self) -> anyhow::Result<Vec<Case>> {
        let output = Command::new(&self.0).arg("--list").output().with_context(|| self.0.display().to_string())?;
        let case = |line: &str| {
            let [name, packets, packets_per_tick, above, help] = line.split('\t').collect::<Vec<_>>()[..] else {
                bail!("a line {line:?} in the list of cases")
            };
            Ok(Case {
                name: name.to_owned(),
                packets: packets.parse()?,
                packets_per_tick: packets_per_tick.parse()?,
                above: Some(above.to_owned()).filter(|above| !above.is_empty()),
                help: help.to_owned(),
            })
        };
        String::from_utf8_lossy(&output.stdout).lines().map(case).collect()
    }

    /// Counts each of these cases.
    pub(crate) fn count(&self, cases: &[Case]) -> anyhow::Result<Vec<Profile>> {
        let directory = Scratch::new()?;
        let out = directory.0.join("out");
        let status = Command::new("valgrind")
            .args(["--tool=callgrind", "--quiet", "--dump-before=cases::mark"])
            // Stacks as they are, and not who calls whom on the whole.
            .args(["--dump-instr=yes", "--separate-callers=40"])
            .args(["--compress-strings=no", "--compress-pos=no"])
            .arg(format!("--callgrind-out-file={}", out.display()))
            .arg(&self.0)
            .args(cases.iter().map(|case| &case.name))
            // The C library has a memcpy for every processor: let it take the same on all.
            .env("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load,-AVX2_Usable,-AVX2,-ERMS")
            .status()
            .context("valgrind does not start: install the package valgrind")?;
        ensure!(status.success(), "the cases did not run under valgrind: {status}");
        let read = |(index, case): (usize, &Case)| {
            let part = out.with_extension((2 * index + 2).to_string());
            let text = fs::read_to_string(&part).with_context(|| part.display().to_string())?;
            parse(case, &text).with_context(|| format!("{}: what callgrind has written", case.name))
        };
        cases.iter().enumerate().map(read).collect()
    }
}

impl Call {
    /// Of a call that is under way at both marks nothing is known: its caller has begun before.
    pub(crate) fn ended(&self) -> bool {
        self.count > 0 && self.cost > 0
    }
}

impl Profile {
    /// Instructions per packet of a worker that is always busy.
    pub(crate) fn per_packet(&self) -> f64 {
        let (_, ticks) = self.ticks();
        (self.total as f64 - ticks as f64 * (1.0 - self.tick_share())) / self.case.packets as f64
    }

    /// How many of the ticks there were a busy worker has.
    pub(crate) fn tick_share(&self) -> f64 {
        let (count, _) = self.ticks();
        (self.case.packets / self.case.packets_per_tick) as f64 / count.max(1) as f64
    }

    /// How many there were, and their instructions.
    fn ticks(&self) -> (u64, u64) {
        let calls = self.nodes.iter().flat_map(|node| &node.calls).filter(|call| self.nodes[call.to].function == TICK);
        calls.fold((0, 0), |(count, cost), call| (count + call.count, cost + call.cost))
    }
}

/// Reads the format of
/// <https://valgrind.org/docs/manual/cl-format.html>, uncompressed and with addresses.
pub(crate) fn parse(case: &Case, text: &str) -> anyhow::Result<Profile> {
    let mut profile = Profile { case: case.clone(), total: 0, nodes: Vec::new() };
    let mut known = HashMap::new();
    let (mut object, mut node) = (String::new(), 0);
    let (mut called_object, mut called, mut calls) = (None, 0, None);
    for line in text.lines() {
        let mut find = |object: &str, name: &str| {
            *known.entry((object.to_owned(), name.to_owned())).or_insert_with(|| {
                // What follows are its callers.
                let function = name.split_once('\'').map_or(name, |(function, _)| function).to_owned();
                profile.nodes.push(Node { object: object.to_owned(), function, own: Vec::new(), calls: Vec::new() });
                profile.nodes.len() - 1
            })
        };
        match line.split_once(['=', ':']) {
            Some(("ob", name)) => name.clone_into(&mut object),
            Some(("fn", name)) => node = find(&object, name),
            Some(("cob", name)) => called_object = Some(name.to_owned()),
            Some(("cfn", name)) => called = find(called_object.take().as_ref().unwrap_or(&object), name),
            Some(("calls", numbers)) => calls = numbers.split(' ').next().map(str::parse).transpose()?,
            Some(("totals", number)) => profile.total = number.trim().parse()?,
            None if line.starts_with("0x") => {
                let [address, _, cost] = line.split(' ').collect::<Vec<_>>()[..] else { bail!("a line {line:?}") };
                let (at, cost) = (u64::from_str_radix(&address[2..], 16)?, cost.parse()?);
                match calls.take() {
                    Some(count) => profile.nodes[node].calls.push(Call { at, to: called, count, cost }),
                    None => profile.nodes[node].own.push((at, cost)),
                }
            }
            _ => {}
        }
    }
    ensure!(profile.total > 0, "no totals");
    Ok(profile)
}

/// A directory that goes at the end.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("budgets-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is in the directory for what may be left behind.
        let _ = fs::remove_dir_all(&self.0);
    }
}
