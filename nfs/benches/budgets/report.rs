//! A profile as tables: by stage of a packet's way, and by line.

use crate::stacks::{Frame, SOURCES, Stacks};
use std::collections::BTreeMap;
use std::fmt;

/// The stages in the order of a packet's way, and what functions of theirs have in their names.
/// An instruction belongs to the innermost function that is of any stage.
const STAGES: [(&str, &[&str]); 13] = [
    ("worker's round", &["::Worker::run"]),
    ("receive", &["::Batch::receive"]),
    ("driver, receive", &["rte_eth_rx_burst"]),
    ("steering", &["::steering::"]),
    ("chain", &["::Chain::run"]),
    ("function", &["NetworkFunction>::batch", "PacketFunction>::packet"]),
    ("headers", &["::headers::"]),
    ("flow table", &["::flow_table::"]),
    ("forwarding", &["Forwarding>::", "Forwarding::"]),
    ("settle", &["::Pipeline::settle", "::Pipeline::release_pending"]),
    ("send", &["::worker::transmit"]),
    ("driver, send", &["rte_eth_tx_burst"]),
    ("housekeeping", &["::Worker::housekeeping"]),
];
/// What is of no stage: the loop of a case that has no worker.
const ELSE: &str = "the case itself";
/// A driver, where it is not known who called it.
const DRIVER: &str = "driver";
/// The function that counts packets.
const METER: &str = "budgets::cases::Meter";

/// Lines that are shown, at most.
const LINES: usize = 20;
/// Letters of each, at most.
const SHOWN: usize = 80;

/// Instructions by stage and by line.
pub(crate) struct Report<'a> {
    pub(crate) stacks: &'a Stacks,
    /// Lines of files whose names begin so; what they call elsewhere counts to them.
    pub(crate) lines_of: &'a str,
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: f64 = self.stacks.values().sum();
        let share = |cost: f64| cost / total * 100.0;
        let stages = sums(self.stacks, |stack| Some(stage(stack)));
        writeln!(f, "{:>11} {:>8}  by stage", "per packet", "share")?;
        let order = STAGES.iter().map(|(name, _)| *name).chain([DRIVER, ELSE]);
        for (stage, cost) in order.filter_map(|name| stages.get(name).map(|cost| (name, cost))) {
            writeln!(f, "{cost:>11.1} {:>6.1} %  {stage}", share(*cost))?;
        }

        let lines = sums(self.stacks, |stack| line(stack, self.lines_of));
        let mut lines: Vec<(&str, f64)> = lines.into_iter().collect();
        lines.sort_by(|(_, one), (_, other)| other.total_cmp(one));
        let of = if self.lines_of.is_empty() { "" } else { " of " };
        writeln!(
            f,
            "\n{:>11} {:>8}  by line{of}{}, each with what it calls elsewhere",
            "per packet", "share", self.lines_of
        )?;
        for (line, cost) in lines.iter().take(LINES) {
            writeln!(f, "{cost:>11.1} {:>6.1} %  {line:<42} {}", share(*cost), source(line))?;
        }
        Ok(())
    }
}

/// What stands there.
fn source(line: &str) -> String {
    let text = || {
        let (file, number) = line.rsplit_once(':')?;
        let text = std::fs::read_to_string(std::path::Path::new(SOURCES).join(file)).ok()?;
        let number: usize = number.parse().ok()?;
        Some(text.lines().nth(number.checked_sub(1)?)?.trim().chars().take(SHOWN).collect())
    };
    text().unwrap_or_default()
}

fn sums<'a>(stacks: &'a Stacks, key: impl Fn(&'a [Frame]) -> Option<&'a str>) -> BTreeMap<&'a str, f64> {
    let mut sums = BTreeMap::new();
    for (stack, cost) in stacks {
        if let Some(key) = key(stack) {
            *sums.entry(key).or_default() += cost;
        }
    }
    sums
}

fn stage(stack: &[Frame]) -> &'static str {
    let of = |frame: &Frame| {
        let is = |part: &&str| frame.function.contains(part);
        if is(&METER) {
            return Some(ELSE);
        }
        // The last that fits: steering and headers have the worker's path in their names too.
        STAGES.iter().rev().find(|(_, parts)| parts.iter().any(is)).map(|(stage, _)| *stage)
    };
    let driver = stack.last().is_some_and(|frame| frame.function.starts_with("librte_"));
    stack.iter().rev().find_map(of).unwrap_or(if driver { DRIVER } else { ELSE })
}

/// The innermost line of these files.
fn line<'a>(stack: &'a [Frame], of: &str) -> Option<&'a str> {
    stack.iter().rev().find_map(|frame| frame.line.as_deref().filter(|line| line.starts_with(of)))
}
