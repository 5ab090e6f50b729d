//! Medians, and how sure a difference is.

use serde::{Deserialize, Serialize};

/// Least, median and most of some figures, and between what the middle half of them is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
    pub(crate) quartiles: [f64; 2],
}

impl Spread {
    pub(crate) fn of(figures: impl IntoIterator<Item = f64>) -> Self {
        let sorted = sorted(figures);
        let end = |figure: Option<&f64>| figure.copied().unwrap_or(f64::NAN);
        let half = sorted.len() / 2;
        let quartiles = [middle(&sorted[..sorted.len() - half]), middle(&sorted[half..])];
        Self { min: end(sorted.first()), median: middle(&sorted), max: end(sorted.last()), quartiles }
    }
}

fn sorted(figures: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted
}

fn middle(sorted: &[f64]) -> f64 {
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    (at(sorted.len().wrapping_sub(1) / 2) + at(sorted.len() / 2)) / 2.0
}

/// What counts as the cost of a row whose undisturbed rounds cost this: what a tenth of them is below. Others
/// on a machine only ever add to a cost, and what they add differs from minute to minute, so the
/// quiet rounds are those that another run finds again; the very least one would be an outlier's.
pub(crate) fn quiet(costs: impl IntoIterator<Item = f64>) -> f64 {
    const PART: usize = 10;
    let sorted = sorted(costs);
    let steps = sorted.len().saturating_sub(1);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let (low, high) = (at(steps / PART), at(steps.div_ceil(PART)));
    low + (high - low) * (steps % PART) as f64 / PART as f64
}

/// Which rounds of which processes count, some of them more than once.
pub(crate) type Draw = [(usize, usize)];

/// The same random numbers on every run (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is above 0 and small.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap_or(0)
    }

    pub(crate) fn shuffle<T>(&mut self, of: &mut [T]) {
        for last in (1..of.len()).rev() {
            of.swap(last, self.below(last + 1));
        }
    }
}

/// Each round once.
pub(crate) fn all(rounds: &[usize]) -> Vec<(usize, usize)> {
    (0..).zip(rounds).flat_map(|(process, rounds)| (0..*rounds).map(move |round| (process, round))).collect()
}

/// How a figure has changed from one measurement to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    /// The new figure in relation to the old one.
    pub(crate) ratio: f64,
    /// Where the ratio is in 99 of 100 cases.
    pub(crate) interval: [f64; 2],
    /// The part of all resamples on the same side of 1 as the ratio, from 0.5 to 1.
    pub(crate) sure: f64,
}

impl Change {
    const RESAMPLES: usize = 2000;

    /// From what gives both figures for a draw of rounds, and the number of rounds in each process. A
    /// bootstrap in two steps: processes are drawn with replacement and then rounds of each, so that
    /// what differs from one start of a program to the next (where its memory lies) counts as chance
    /// as it should.
    pub(crate) fn between(
        (old, old_rounds): (impl Fn(&Draw) -> f64, &[usize]),
        (new, new_rounds): (impl Fn(&Draw) -> f64, &[usize]),
    ) -> Self {
        let mut random = Random(1);
        let mut draw = |rounds: &[usize]| -> Vec<(usize, usize)> {
            let processes = rounds.iter().map(|_| random.below(rounds.len())).collect::<Vec<_>>();
            let rounds = processes.iter().flat_map(|process| vec![(*process, rounds[*process]); rounds[*process]]);
            rounds.collect::<Vec<_>>().into_iter().map(|(process, of)| (process, random.below(of))).collect()
        };
        let ratio = new(&all(new_rounds)) / old(&all(old_rounds));
        let ratios = sorted((0..Self::RESAMPLES).map(|_| new(&draw(new_rounds)) / old(&draw(old_rounds))));
        let above = ratios.iter().filter(|resampled| **resampled > 1.0).count() as f64 / Self::RESAMPLES as f64;
        let at = |thousandths: usize| ratios.get(thousandths * Self::RESAMPLES / 1000).copied().unwrap_or(f64::NAN);
        Self { ratio, interval: [at(5), at(995)], sure: above.max(1.0 - above) }
    }

    /// Whether it is worth a look: surely not 1, and further from it than two runs of the same
    /// program are from each other.
    pub(crate) fn is_real(&self) -> bool {
        const NOTHING: f64 = 0.03;
        let [low, high] = self.interval;
        (low > 1.0 || high < 1.0) && (self.ratio - 1.0).abs() > NOTHING
    }
}
