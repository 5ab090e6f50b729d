//! What has changed from one run to another, and how sure that is.

use crate::results::{Relation, Results, Row, Suite};
use crate::statistics::{Change, Draw, all};
use std::fmt;

/// Two runs side by side.
pub(crate) struct Comparison {
    /// Of the older figures.
    pub(crate) base: String,
    /// Why the two cannot be compared; empty if they can.
    pub(crate) differences: Vec<String>,
    /// What both were made with, if that differs: it may be the question.
    pub(crate) builds: Option<[String; 2]>,
    pub(crate) lines: Vec<Line>,
    /// Rows that only one of the two has.
    pub(crate) unmatched: usize,
    /// Whether one of the two has one process for each suite.
    pub(crate) single: bool,
}

/// One figure of one row.
pub(crate) struct Line {
    pub(crate) suite: String,
    pub(crate) row: String,
    pub(crate) figure: String,
    pub(crate) old: f64,
    pub(crate) new: f64,
    pub(crate) change: Change,
}

impl Comparison {
    pub(crate) fn new(base: &Results, new: &Results) -> Self {
        let build = |of: &Results| format!("{}, linked {}", of.machine.compiler, of.machine.linked);
        let builds = [build(base), build(new)];
        let mut differences = base.machine.differences(&new.machine);
        let (mut lines, mut unmatched) = (Vec::new(), 0);
        for suite in &new.suites {
            let Some(old) = base.suite(&suite.name) else {
                unmatched += suite.rows.len();
                continue;
            };
            if old.memory != suite.memory {
                differences.push(format!("memory of {}: {} / {}", suite.name, old.memory, suite.memory));
            }
            for row in &suite.rows {
                match old.row(&row.name) {
                    Some(old_row) => lines.extend(of_row([old, suite], [old_row, row])),
                    None => unmatched += 1,
                }
            }
        }
        let here =
            |suite: &Suite, row: &Row| new.suite(&suite.name).is_some_and(|suite| suite.row(&row.name).is_some());
        unmatched +=
            base.suites.iter().map(|suite| suite.rows.iter().filter(|row| !here(suite, row)).count()).sum::<usize>();
        let single = base.suites.iter().chain(&new.suites).any(|suite| suite.processes == 1);
        Self {
            base: base.taken.clone(),
            differences,
            builds: (builds[0] != builds[1]).then_some(builds),
            lines,
            unmatched,
            single,
        }
    }

    /// The changes, the largest first.
    pub(crate) fn real(&self) -> Vec<&Line> {
        let mut real: Vec<&Line> = self.lines.iter().filter(|line| line.change.is_real()).collect();
        real.sort_by(|one, other| other.change.ratio.ln().abs().total_cmp(&one.change.ratio.ln().abs()));
        real
    }

    /// What must be known to read it, in sentences.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if !self.differences.is_empty() {
            remarks.push(format!(
                "NOT COMPARABLE: machine or memory differ ({}); scores travel, within limits, and nanoseconds do not",
                self.differences.join("; ")
            ));
        }
        if let Some([old, new]) = &self.builds {
            remarks.push(format!("made with {old}, then with {new}"));
        }
        if self.single {
            remarks.push(
                "a quick run starts each suite once, so its intervals are too narrow: they know nothing of what \
                 differs from start to start, such as where memory lies"
                    .to_owned(),
            );
        }
        if self.unmatched > 0 {
            remarks.push(format!("{} rows are in one of the two only", self.unmatched));
        }
        remarks.push(
            "changed: by more than 3 %, and 99 of 100 resamples (processes, then rounds) are on one side; of a hundred \
             rows without a change one may be among them. Figures in relation to testpmd or a base of the same round \
             hold better than plain nanoseconds"
                .to_owned(),
        );
        remarks
    }
}

/// A row's score or ratios; its plain cost if it has neither.
fn of_row(suites: [&Suite; 2], rows: [&Row; 2]) -> Vec<Line> {
    let rounds = rows.map(Row::rounds);
    let line = |name: String, figure: &dyn Fn(usize, &Draw) -> f64| Line {
        suite: suites[1].name.clone(),
        row: rows[1].name.clone(),
        figure: name,
        old: figure(0, &all(&rounds[0])),
        new: figure(1, &all(&rounds[1])),
        change: Change::between(
            (|draw: &Draw| figure(0, draw), &rounds[0]),
            (|draw: &Draw| figure(1, draw), &rounds[1]),
        ),
    };
    let compared = |relation: &&Relation| matches!(relation, Relation::Score { .. } | Relation::Ratio { .. });
    let lines = rows[1].relations.iter().filter(compared).map(|relation| {
        let figure = |of: usize, draw: &Draw| suites[of].figure(rows[of], relation, draw).unwrap_or(f64::NAN);
        line(relation.label(), &figure)
    });
    let lines: Vec<Line> = lines.filter(|line| line.change.ratio.is_finite()).collect();
    if lines.is_empty() { vec![line("CPU ns per packet".to_owned(), &|of, draw| rows[of].cost(draw))] } else { lines }
}

impl Line {
    /// As "+4.2 % (+3.1 to +5.0)".
    pub(crate) fn percent(&self) -> String {
        let percent = |ratio: f64| (ratio - 1.0) * 100.0;
        let Change { ratio, interval: [low, high], .. } = self.change;
        format!("{:+.1} % ({:+.1} to {:+.1})", percent(ratio), percent(low), percent(high))
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "compared with the figures of {}", self.base)?;
        for remark in self.remarks() {
            writeln!(f, "  {remark}")?;
        }
        let real = self.real();
        if real.is_empty() {
            return writeln!(f, "nothing changed in {} figures", self.lines.len());
        }
        writeln!(f, "changed: {} of {} figures", real.len(), self.lines.len())?;
        for line in real {
            writeln!(
                f,
                "  {:<8} {:<44} {:<36} {:>8.3} -> {:>8.3}  {:<28} sure to {:.1} %",
                line.suite,
                line.row,
                line.figure,
                line.old,
                line.new,
                line.percent(),
                line.change.sure * 100.0
            )?;
        }
        Ok(())
    }
}
