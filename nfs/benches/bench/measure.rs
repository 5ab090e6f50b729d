//! What a packet costs: variants run in turn, in slices of time, round after round.

use anyhow::Context as _;
use std::path::Path;
use std::time::Duration;

/// What one variant did in one slice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) packets: u64,
    /// CPU time of the one thread that forwards.
    pub(crate) cpu: Duration,
    pub(crate) wall: Duration,
}

impl Sample {
    /// CPU time per packet, in nanoseconds.
    pub(crate) fn cpu_cost(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e9 / self.packets as f64
    }

    /// Time per packet, in nanoseconds.
    pub(crate) fn wall_cost(&self) -> f64 {
        self.wall.as_secs_f64() * 1e9 / self.packets as f64
    }
}

/// One way to do the work of a suite.
pub(crate) struct Variant<'a> {
    pub(crate) name: &'static str,
    /// The names of those that its cost is shown in relation to.
    pub(crate) bases: &'static [&'static str],
    /// Runs it for so long.
    pub(crate) run: Box<dyn FnMut(Duration) -> anyhow::Result<Sample> + 'a>,
}

/// Runs every variant once in every round: what disturbs the machine for longer than a
/// slice disturbs all of them. A first round warms up and is not counted. Returns the
/// samples by variant.
pub(crate) fn interleave(
    variants: &mut [Variant<'_>],
    rounds: u32,
    slice: Duration,
) -> anyhow::Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); variants.len()];
    for round in 0..=rounds {
        for (variant, samples) in variants.iter_mut().zip(&mut samples) {
            let sample = (variant.run)(slice).context(variant.name)?;
            anyhow::ensure!(sample.packets > 0, "{}: no packets", variant.name);
            if round > 0 {
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// CPU time that the calling thread has had.
pub(crate) fn own_cpu_time() -> anyhow::Result<Duration> {
    // The kernel brings a running thread's account up to date at its ticks, and when it sleeps.
    std::thread::sleep(Duration::from_millis(1));
    cpu_time(Path::new("/proc/thread-self/schedstat"))
}

/// CPU time that a sleeping thread has had, from its schedstat.
pub(crate) fn cpu_time(schedstat: &Path) -> anyhow::Result<Duration> {
    let text = std::fs::read_to_string(schedstat).with_context(|| schedstat.display().to_string())?;
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok());
    Ok(Duration::from_nanos(nanoseconds.with_context(|| format!("{}: {text:?}", schedstat.display()))?))
}
