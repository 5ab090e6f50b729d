//! What a packet costs: variants run in turn, in slices of time, round after round.

use crate::results::{Axis, Point, Relation, Row, Sample};
use anyhow::Context as _;
use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long and how often every variant runs, in one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) slice: Duration,
}

/// One way to do the work of a suite.
pub(crate) struct Variant<'a> {
    pub(crate) name: String,
    relations: Vec<Relation>,
    points: Vec<Point>,
    /// Runs it for so long.
    run: Box<dyn FnMut(Duration) -> anyhow::Result<Sample> + 'a>,
}

impl<'a> Variant<'a> {
    pub(crate) fn new(name: impl Into<String>, run: impl FnMut(Duration) -> anyhow::Result<Sample> + 'a) -> Self {
        Self { name: name.into(), relations: Vec::new(), points: Vec::new(), run: Box::new(run) }
    }

    /// Runs it, and forgets what it cost.
    pub(crate) fn once(&mut self, time: Duration) -> anyhow::Result<()> {
        (self.run)(time).map(drop)
    }

    pub(crate) fn related(mut self, relation: Relation) -> Self {
        self.relations.push(relation);
        self
    }

    pub(crate) fn ratio(self, base: impl Into<String>) -> Self {
        self.related(Relation::Ratio { base: base.into() })
    }

    pub(crate) fn net(self, base: impl Into<String>) -> Self {
        self.related(Relation::Net { base: base.into() })
    }

    /// Score and nanoseconds over a base.
    pub(crate) fn score(self, base: &str, unit: &str) -> Self {
        self.related(Relation::Score { base: base.to_owned(), unit: unit.to_owned() }).net(base)
    }

    /// Its place in a plot.
    pub(crate) fn at(mut self, axis: Axis, series: impl Into<String>, x: f64) -> Self {
        self.points.push(Point { axis, series: series.into(), x });
        self
    }
}

/// Runs every variant once in every round: what disturbs the machine for longer than a slice
/// disturbs all of them. A short first round warms up and is not counted. Between two slices a probe
/// tells whether somebody disturbs.
pub(crate) fn interleave(mut variants: Vec<Variant<'_>>, plan: Plan) -> anyhow::Result<Vec<Row>> {
    let mut samples = vec![Vec::new(); variants.len()];
    let mut before = probe();
    for round in 0..=plan.rounds {
        let slice = if round == 0 { plan.slice / 5 } else { plan.slice };
        for (number, (variant, samples)) in (1..).zip(variants.iter_mut().zip(&mut samples)) {
            // For the process that watches over this one: it shows the first of each round.
            println!("progress {number} round {round} of {}", plan.rounds);
            let sample = some_packets(&mut variant.run, slice).with_context(|| variant.name.clone())?;
            let after = probe();
            let sample = sample.probed(before.max(after));
            before = after;
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    let row = |(variant, samples): (Variant<'_>, _)| Row::new(variant.name, variant.relations, variant.points, samples);
    Ok(variants.into_iter().zip(samples).map(row).collect())
}

/// On a busy machine a thread may not have had its CPU for all of a short slice.
fn some_packets(run: &mut dyn FnMut(Duration) -> anyhow::Result<Sample>, slice: Duration) -> anyhow::Result<Sample> {
    const TRIES: usize = 5;
    for _ in 0..TRIES {
        let sample = run(slice)?;
        if sample.packets > 0 {
            return Ok(sample);
        }
    }
    anyhow::bail!("no packets")
}

/// How long some instructions take here and now that wait neither for memory nor for each other:
/// half as long again while a sibling of this CPU is busy, which no account of CPU time shows.
fn probe() -> Duration {
    let once = || {
        let start = Instant::now();
        let mut of = black_box([1_u64, 2, 3, 4]);
        for _ in 0..PROBE {
            of[0] = of[0].wrapping_mul(5).wrapping_add(1);
            of[1] = of[1].wrapping_mul(7).wrapping_add(3);
            of[2] ^= of[2] << 3;
            of[3] = of[3].wrapping_add(of[3] >> 1);
        }
        black_box(of);
        start.elapsed()
    };
    // One may be interrupted.
    once().min(once())
}

/// Some tenths of a millisecond.
const PROBE: u32 = 200_000;

/// CPU time that the calling thread has had.
pub(crate) fn own_cpu_time() -> anyhow::Result<Duration> {
    settle();
    cpu_time(Path::new("/proc/thread-self/schedstat"))
}

/// CPU time that the lcores of a process have had which were launched by its main one. They
/// must be asleep.
pub(crate) fn lcores_cpu_time(process: u32) -> anyhow::Result<Duration> {
    let tasks = format!("/proc/{process}/task");
    let mut sum = Duration::ZERO;
    for task in std::fs::read_dir(&tasks).with_context(|| tasks.clone())? {
        let task = task?.path();
        // "lcore-worker-1" up to DPDK 22.11, then "dpdk-worker1".
        if std::fs::read_to_string(task.join("comm")).unwrap_or_default().contains("worker") {
            sum += cpu_time(&task.join("schedstat"))?;
        }
    }
    Ok(sum)
}

/// Waits until threads that have nothing to do are asleep: the kernel brings a thread's account
/// up to date at its ticks, and then.
pub(crate) fn settle() {
    std::thread::sleep(Duration::from_millis(1));
}

/// CPU time that a sleeping thread has had, from its schedstat.
pub(crate) fn cpu_time(schedstat: &Path) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(schedstat).with_context(|| schedstat.display().to_string())?;
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.with_context(|| format!("{}: {text:?}", schedstat.display()))?))
}
