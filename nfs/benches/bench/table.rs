//! Figures as tables for people at a terminal.

use crate::goals;
use crate::results::{Relation, Results, Row, Suite};
use crate::statistics::all;
use std::fmt;

/// All of a run.
pub(crate) struct Tables<'a>(pub(crate) &'a Results);

impl fmt::Display for Tables<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Results { taken, machine, load, suites, absent, .. } = self.0;
        writeln!(
            f,
            "\n{:<9} {taken}, load average {:.1} when it began and {:.1} when it ended",
            "taken", load[0], load[1]
        )?;
        for (name, value) in machine.lines() {
            writeln!(f, "{name:<9} {value}")?;
        }
        for suite in suites {
            write!(f, "\n{}", OfSuite(suite))?;
        }
        let goals = goals::reached(self.0);
        if !goals.is_empty() {
            write!(
                f,
                "\nwhere it stands\n{:<58} {:>8} {:>8} {:>8} {:>9}  {:<26} best peer\n",
                "", "hot", "16k", "256k", "aim", ""
            )?;
        }
        for goal in goals {
            let [hot, middle, cold] =
                goal.figures.map(|figure| figure.map_or("-".to_owned(), |figure| format!("{figure:.2}")));
            let aim = goal.aim.map_or(String::new(), |aim| aim.to_string());
            writeln!(
                f,
                "{:<58} {hot:>8} {middle:>8} {cold:>8} {aim:>9}  {:<26} {}",
                goal.work, goal.verdict, goal.peer
            )?;
        }
        for absent in absent {
            writeln!(f, "suite {}: {}", absent.suite, absent.why)?;
        }
        Ok(())
    }
}

struct OfSuite<'a>(&'a Suite);

impl fmt::Display for OfSuite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suite = self.0;
        writeln!(f, "suite {}: {}", suite.name, suite.about)?;
        writeln!(f, "  method  {}; {}", method(suite), suite.memory)?;
        writeln!(f, "  others  {}", others(suite))?;
        for note in &suite.notes {
            writeln!(f, "  note    {note}")?;
        }
        writeln!(
            f,
            "{:<46} {:>33}  {:>7} {:>7}   quiet rounds (least to most of one)",
            "", "CPU ns per packet", "wall", "Mpps"
        )?;
        writeln!(
            f,
            "{:<46} {:>8} {:>7} {:>8} {:>7}  {:>7} {:>7}",
            "", "quiet", "min", "median", "max", "median", "/core"
        )?;
        suite.rows.iter().try_for_each(|row| of_row(f, suite, row))
    }
}

/// How a suite was measured, in words.
pub(crate) fn method(suite: &Suite) -> String {
    let Suite { processes, rounds, slice_ms, .. } = suite;
    let processes = if *processes == 1 { "1 process".to_owned() } else { format!("{processes} processes") };
    format!("{processes}, {rounds} rounds of {slice_ms} ms in each for each variant in turn, after one to warm up")
}

/// How much of the machine others had meanwhile.
pub(crate) fn others(suite: &Suite) -> String {
    const ALONE: f64 = 0.9;
    let share = suite.share();
    let mut text = format!(
        "a thread that wanted to forward had {:.0} % of its CPU, in the row where that was least",
        share * 100.0
    );
    let undisturbed = suite.undisturbed() * 100.0;
    text += &format!("; {undisturbed:.0} % of the slices were undisturbed, and quiet rounds are of those");
    if share < ALONE {
        text += ": others used the machine";
        if suite.name == "workers" {
            text += ", and figures with hand-over are none, as a worker whose partner is kept from its CPU polls";
        }
    }
    text
}

fn of_row(f: &mut fmt::Formatter<'_>, suite: &Suite, row: &Row) -> fmt::Result {
    let (quiet, cpu, wall) = (row.cost(&all(&row.rounds())), row.cpu(), row.wall());
    write!(
        f,
        "{:<46} {:>8.2} {:>7.2} {:>8.2} {:>7.2}  {:>7.2} {:>7.1}",
        row.name,
        quiet,
        cpu.min,
        cpu.median,
        cpu.max,
        wall.median,
        1000.0 / quiet
    )?;
    let said = row.relations.iter().filter_map(|relation| said(suite, row, relation));
    for (index, said) in said.enumerate() {
        write!(f, "{}{said}", if index == 0 { "   ".to_owned() } else { format!("\n{:<100}", "") })?;
    }
    writeln!(f)
}

/// A relation with its figures; `None` where a row is missing.
pub(crate) fn said(suite: &Suite, row: &Row, relation: &Relation) -> Option<String> {
    let of = suite.relation(row, relation)?;
    // What both names begin with need not be said again.
    let prefix = row.name.split_once(": ").map_or("", |(prefix, _)| prefix);
    let short = |base: &'_ String| {
        base.strip_prefix(prefix).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(base).to_owned()
    };
    Some(match relation {
        Relation::Net { base } => {
            format!("{:+.2} ns ({:+.2} to {:+.2}) over {}", of.figure, of.rounds.min, of.rounds.max, short(base))
        }
        Relation::Score { .. } => format!("score {:.2} ({:.2} to {:.2})", of.figure, of.rounds.min, of.rounds.max),
        Relation::Ratio { base } => {
            format!("{:.3} ({:.3} to {:.3}) of {}", of.figure, of.rounds.min, of.rounds.max, short(base))
        }
        Relation::NetRatio { base, .. } => {
            format!("{:.2} ({:.2} to {:.2}) of {}, net", of.figure, of.rounds.min, of.rounds.max, short(base))
        }
    })
}
