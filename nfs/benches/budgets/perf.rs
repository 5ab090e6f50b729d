//! Where the time of a case goes: perf looks again and again at what the processor is about.
//!
//! Where there are no hardware counters, as in most virtual machines, a timer does as well. It
//! sees what waits for memory, which callgrind does not; and it sees no callers, as optimised code
//! keeps no frame pointers.

use crate::callgrind::{Case, Node, Profile, Program, Scratch};
use anyhow::{Context as _, ensure};
use std::collections::BTreeMap;
use std::process::Command;

/// Looks per second.
const FREQUENCY: u64 = 10_000;
/// As many times the packets of a count.
const LONGER: u64 = 1024;
/// Where Linux puts a program on x86-64 if told not to draw a random place.
const BASE: u64 = 0x5555_5555_4000;

/// A case, with nanoseconds in place of instructions.
pub(crate) fn sample(program: &Program, case: &Case) -> anyhow::Result<Profile> {
    let directory = Scratch::new()?;
    let data = directory.0.join("perf.data");
    let packets = case.packets * LONGER;
    let status = Command::new("perf")
        .args(["record", "--quiet", "--event=cpu-clock:u", &format!("--freq={FREQUENCY}")])
        .arg(format!("--output={}", data.display()))
        .args(["--", "setarch", "--addr-no-randomize"])
        .arg(&program.0)
        .args(["--packets", &packets.to_string(), &case.name])
        .status()
        .context("perf does not start: install the package linux-perf")?;
    ensure!(status.success(), "the case did not run under perf: {status}");
    let output = Command::new("perf").args(["script", "--fields=ip,dso", "--input"]).arg(&data).output()?;
    ensure!(output.status.success(), "perf script: {}", String::from_utf8_lossy(&output.stderr).trim());
    let own = program.0.display().to_string();
    let (mut total, mut nodes) = (0, BTreeMap::<String, BTreeMap<u64, u64>>::new());
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let Some((address, object)) = line.trim().split_once(" (") else { continue };
        let object = object.trim_end_matches(')');
        let address = u64::from_str_radix(address, 16)?;
        let address = if object == own { address.wrapping_sub(BASE) } else { address };
        let nanoseconds = 1_000_000_000 / FREQUENCY;
        *nodes.entry(object.to_owned()).or_default().entry(address).or_default() += nanoseconds;
        total += nanoseconds;
    }
    let node = |(object, own): (String, BTreeMap<u64, u64>)| Node {
        // The library is all that is known.
        function: "0x".to_owned(),
        object,
        own: own.into_iter().collect(),
        calls: Vec::new(),
    };
    let nodes = nodes.into_iter().map(node).collect();
    Ok(Profile { case: Case { packets, ..case.clone() }, total, nodes })
}
