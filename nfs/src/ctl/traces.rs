//! The way of packets through a chain, a line for each step.

use super::output::Output;
use crate::door::{Step, Trace, Traces};
use std::io;

/// Columns before a step goes on in the next line.
const COLUMNS: usize = 80;

pub(super) fn show(traces: &Traces, output: &mut Output) -> io::Result<()> {
    for trace in &traces.packets {
        output.gap()?;
        show_one(trace, output)?;
    }
    if traces.lost > 0 {
        output.gap()?;
        output.line(&format!("{} more steps found no room", traces.lost))?;
    }
    Ok(())
}

fn show_one(trace: &Trace, output: &mut Output) -> io::Result<()> {
    let origin = trace.made_for.map_or(String::new(), |number| format!(", for the sake of packet {number}"));
    output.line(&format!("packet {}: {}{origin}", trace.number, trace.packet))?;
    let width = trace.steps.iter().map(|step| step.place.chars().count()).max().unwrap_or(0);
    for step in &trace.steps {
        for line in lines(step, width) {
            output.line(&line)?;
        }
    }
    Ok(())
}

fn lines(step: &Step, width: usize) -> Vec<String> {
    let notes = step.note.split("; ").filter(|note| !note.is_empty());
    let changes = step.changes.iter().map(String::as_str);
    let parts: Vec<&str> = [step.verdict.as_str()].into_iter().chain(notes).chain(changes).collect();
    let mut lines = vec![format!("{:>7} ns {:width$} ", step.nanoseconds, step.place)];
    for (index, part) in parts.iter().enumerate() {
        let end = if index + 1 < parts.len() { ";" } else { "" };
        let is_full = lines.last().is_some_and(|line| line.chars().count() + part.chars().count() + 2 > COLUMNS);
        if index > 0 && is_full {
            lines.push(" ".repeat(width + 12));
        }
        if let Some(line) = lines.last_mut() {
            *line += &format!(" {part}{end}");
        }
    }
    lines
}
