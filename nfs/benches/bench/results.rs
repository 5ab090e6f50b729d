//! What a run has found: kept as JSON, read again to compare.

use crate::machine::Machine;
use crate::statistics::{Draw, Spread, all, quiet};
use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::Duration;

/// Raised when a reader of the old JSON would misread the new.
const FORMAT: u32 = 1;

/// All of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) format: u32,
    /// When it began, in UTC.
    pub(crate) taken: String,
    pub(crate) quick: bool,
    pub(crate) machine: Machine,
    /// How many threads wanted to run over the last minute, when it began and when it ended: what
    /// is above 1 to 2 at the end were others.
    pub(crate) load: [f64; 2],
    pub(crate) suites: Vec<Suite>,
    pub(crate) absent: Vec<Absent>,
}

/// A suite without figures, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Absent {
    pub(crate) suite: String,
    pub(crate) why: String,
    /// Whether there should have been figures.
    #[serde(default)]
    pub(crate) failed: bool,
}

/// A suite's figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Suite {
    pub(crate) name: String,
    /// What it measures, in one line.
    pub(crate) about: String,
    pub(crate) processes: usize,
    pub(crate) rounds: usize,
    pub(crate) slice_ms: u64,
    pub(crate) memory: String,
    pub(crate) rows: Vec<Row>,
    /// What must be known to read the figures.
    pub(crate) notes: Vec<String>,
}

/// One variant of a suite's work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// What its cost is shown in relation to.
    pub(crate) relations: Vec<Relation>,
    pub(crate) points: Vec<Point>,
    /// By process, by round.
    pub(crate) samples: Vec<Vec<Sample>>,
    /// What the probe takes when nobody disturbs it; nothing if there was none.
    #[serde(default)]
    probe_ns: u64,
    /// For readers of the JSON: made from the samples, and never read here.
    #[serde(default, skip_deserializing)]
    summary: Option<Summary>,
}

/// What one variant did in one slice.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) packets: u64,
    /// CPU time of the threads that forward, in nanoseconds.
    pub(crate) cpu_ns: u64,
    pub(crate) wall_ns: u64,
    /// How long the probe took, before or after, whichever was longer.
    #[serde(default)]
    pub(crate) probe_ns: u64,
}

impl Sample {
    pub(crate) fn new(packets: u64, cpu: Duration, wall: Duration) -> Self {
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        Self { packets, cpu_ns: nanoseconds(cpu), wall_ns: nanoseconds(wall), probe_ns: 0 }
    }

    pub(crate) fn probed(self, probe: Duration) -> Self {
        Self { probe_ns: u64::try_from(probe.as_nanos()).unwrap_or(u64::MAX), ..self }
    }

    /// CPU time per packet, in nanoseconds.
    pub(crate) fn cpu_cost(&self) -> f64 {
        self.cpu_ns as f64 / self.packets as f64
    }

    /// Time per packet, in nanoseconds.
    pub(crate) fn wall_cost(&self) -> f64 {
        self.wall_ns as f64 / self.packets as f64
    }
}

/// A figure made of several rows' costs in the same round.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Relation {
    /// own / base
    Ratio { base: String },
    /// own - base, in nanoseconds
    Net { base: String },
    /// 1 + (own - base) / unit, where the unit is testpmd macswap
    Score { base: String, unit: String },
    /// (own - less) / (base - less)
    NetRatio { base: String, less: String },
}

impl Relation {
    /// As a column says it.
    pub(crate) fn label(&self) -> String {
        match self {
            Self::Ratio { base } => format!("/ {base}"),
            Self::Net { base } => format!("ns more than {base}"),
            Self::Score { base, .. } => format!("score over {base}"),
            Self::NetRatio { base, .. } => format!("/ {base}, net"),
        }
    }
}

/// What a plot shows of a row.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Point {
    pub(crate) axis: Axis,
    pub(crate) series: String,
    pub(crate) x: f64,
}

/// What a cost is plotted over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Axis {
    Flows,
    /// For the suites whose functions look rules up.
    Rules,
    Burst,
    Mbufs,
    Workers,
    Functions,
    /// Length of the frames.
    Bytes,
}

#[derive(Clone, Debug, Serialize)]
struct Summary {
    /// Of quiet rounds.
    cost: f64,
    cpu_ns_per_packet: Spread,
    wall_ns_per_packet: Spread,
    mpps_per_core: Spread,
    relations: Vec<(String, Related)>,
}

/// A relation, and what it was in single rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Related {
    pub(crate) figure: f64,
    pub(crate) rounds: Spread,
}

impl Row {
    pub(crate) fn new(name: String, relations: Vec<Relation>, points: Vec<Point>, samples: Vec<Sample>) -> Self {
        Self { name, relations, points, samples: vec![samples], probe_ns: 0, summary: None }
    }

    /// The least that the probe took.
    fn least_probe(&self) -> u64 {
        self.samples.iter().flatten().map(|sample| sample.probe_ns).min().unwrap_or(0)
    }

    /// Whether the probe was disturbed neither before nor after.
    fn is_quiet(&self, sample: &Sample) -> bool {
        const PERCENT: u64 = 106;
        sample.probe_ns * 100 <= self.probe_ns * PERCENT
    }

    fn each(&self, figure: impl Fn(&Sample) -> f64) -> Spread {
        Spread::of(self.samples.iter().flatten().map(figure))
    }

    /// How many rounds each process has.
    pub(crate) fn rounds(&self) -> Vec<usize> {
        self.samples.iter().map(Vec::len).collect()
    }

    /// What it costs in quiet rounds, of those in the draw.
    pub(crate) fn cost(&self, draw: &Draw) -> f64 {
        /// One is an accident.
        const ENOUGH: usize = 2;
        let drawn = || draw.iter().filter_map(|(process, round)| self.samples.get(*process)?.get(*round));
        let undisturbed = || drawn().filter(|sample| self.is_quiet(sample));
        if undisturbed().count() < ENOUGH {
            return quiet(drawn().map(Sample::cpu_cost));
        }
        quiet(undisturbed().map(Sample::cpu_cost))
    }

    pub(crate) fn cpu(&self) -> Spread {
        self.each(Sample::cpu_cost)
    }

    pub(crate) fn wall(&self) -> Spread {
        self.each(Sample::wall_cost)
    }
}

impl Suite {
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// A relation of what the rows cost in the rounds of a draw; `None` if a row is not there.
    pub(crate) fn figure(&self, row: &Row, relation: &Relation, draw: &Draw) -> Option<f64> {
        let cost = |name: &str| Some(self.row(name)?.cost(draw));
        let own = row.cost(draw);
        Some(match relation {
            Relation::Ratio { base } => own / cost(base)?,
            Relation::Net { base } => own - cost(base)?,
            Relation::Score { base, unit } => 1.0 + (own - cost(base)?) / cost(unit)?,
            Relation::NetRatio { base, less } => {
                let less = cost(less)?;
                (own - less) / (cost(base)? - less)
            }
        })
    }

    /// A relation of all rounds' costs, and its least and most of one round.
    pub(crate) fn relation(&self, row: &Row, relation: &Relation) -> Option<Related> {
        let all = all(&row.rounds());
        let rounds = all.iter().map(|round| self.figure(row, relation, &[*round]));
        let rounds = Spread::of(rounds.collect::<Option<Vec<f64>>>()?);
        Some(Related { figure: self.figure(row, relation, &all)?, rounds })
    }

    /// The part of all slices that nobody disturbed, as far as the probe tells.
    pub(crate) fn undisturbed(&self) -> f64 {
        let part = |row: &Row| {
            let samples = || row.samples.iter().flatten();
            samples().filter(|sample| row.is_quiet(sample)).count() as f64 / samples().count() as f64
        };
        self.rows.iter().map(part).sum::<f64>() / self.rows.len() as f64
    }

    /// Has every row know what the probe takes when nobody disturbs it.
    pub(crate) fn calibrate(&mut self) {
        let least = self.rows.iter().map(Row::least_probe).min().unwrap_or(0);
        self.rows.iter_mut().for_each(|row| row.probe_ns = least);
    }

    /// CPU time in relation to real time, in the row where that is least: what a thread had of its
    /// CPU. Where several forward it is more than one's.
    pub(crate) fn share(&self) -> f64 {
        Spread::of(self.rows.iter().map(|row| row.cpu().median / row.wall().median)).min.min(1.0)
    }

    /// Adds what another process has measured of the same.
    pub(crate) fn merge(&mut self, other: Self) {
        self.processes += other.processes;
        if !self.memory.contains(&other.memory) {
            self.memory = format!("{} in one process, {} in another", self.memory, other.memory);
        }
        for (row, more) in self.rows.iter_mut().zip(other.rows) {
            row.samples.extend(more.samples);
        }
        self.calibrate();
    }

    fn summarise(&mut self) {
        let summary = |row: &Row| {
            let relation = |relation: &Relation| Some((relation.label(), self.relation(row, relation)?));
            Summary {
                cost: row.cost(&all(&row.rounds())),
                cpu_ns_per_packet: row.cpu(),
                wall_ns_per_packet: row.wall(),
                mpps_per_core: row.each(|sample| 1000.0 / sample.cpu_cost()),
                relations: row.relations.iter().filter_map(relation).collect(),
            }
        };
        let summaries: Vec<Summary> = self.rows.iter().map(summary).collect();
        for (row, summary) in self.rows.iter_mut().zip(summaries) {
            row.summary = Some(summary);
        }
    }
}

impl Results {
    pub(crate) fn new(taken: String, quick: bool, machine: Machine) -> Self {
        Self { format: FORMAT, taken, quick, machine, load: [0.0; 2], suites: Vec::new(), absent: Vec::new() }
    }

    pub(crate) fn suite(&self, name: &str) -> Option<&Suite> {
        self.suites.iter().find(|suite| suite.name == name)
    }

    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let results: Self = serde_json::from_str(&text)
            .with_context(|| format!("{} does not hold the figures of scripts/bench", path.display()))?;
        anyhow::ensure!(results.format == FORMAT, "{} is of another version of scripts/bench", path.display());
        Ok(results)
    }

    pub(crate) fn write(&mut self, path: &Path) -> anyhow::Result<()> {
        self.suites.iter_mut().for_each(Suite::summarise);
        let text = serde_json::to_string_pretty(self).context("JSON")?;
        std::fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))
    }
}
