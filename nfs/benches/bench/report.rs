//! The figures of a suite: as a table for people, as JSON for programs.

use crate::machine::Machine;
use crate::measure::{Sample, Variant};
use serde::Serialize;
use std::fmt;

/// Least, median and most of some figures.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    fn of(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        let at = |index: usize| figures.get(index).copied().unwrap_or(f64::NAN);
        let (count, half) = (figures.len(), figures.len() / 2);
        let median = if count % 2 == 1 { at(half) } else { (at(half.wrapping_sub(1)) + at(half)) / 2.0 };
        Self { min: at(0), median, max: at(count.wrapping_sub(1)) }
    }
}

/// A variant's cost in relation to another's in the same round: below 1 is cheaper.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Ratio {
    pub(crate) base: &'static str,
    pub(crate) cost: Spread,
}

/// One variant.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) variant: &'static str,
    /// Packets of all rounds.
    pub(crate) packets: u64,
    pub(crate) cpu_ns_per_packet: Spread,
    pub(crate) wall_ns_per_packet: Spread,
    pub(crate) mpps_per_core: Spread,
    pub(crate) ratios: Vec<Ratio>,
}

/// A suite's outcome.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Suite {
    pub(crate) suite: &'static str,
    pub(crate) machine: Machine,
    pub(crate) burst: usize,
    pub(crate) rounds: u32,
    pub(crate) slice_ms: u128,
    pub(crate) rows: Vec<Row>,
    /// What must be known to read the figures.
    pub(crate) notes: Vec<String>,
}

/// The rows of a table, from each variant's samples.
pub(crate) fn rows(variants: &[Variant<'_>], samples: &[Vec<Sample>]) -> Vec<Row> {
    let costs = |samples: &[Sample]| -> Vec<f64> { samples.iter().map(Sample::cpu_cost).collect() };
    let ratio = |base: &'static str, own: &[Sample]| {
        let place = variants.iter().position(|variant| variant.name == base)?;
        let pairs = costs(own).into_iter().zip(costs(&samples[place]));
        Some(Ratio { base, cost: Spread::of(pairs.map(|(own, base)| own / base).collect()) })
    };
    let row = |(variant, own): (&Variant<'_>, &Vec<Sample>)| Row {
        variant: variant.name,
        packets: own.iter().map(|sample| sample.packets).sum(),
        cpu_ns_per_packet: Spread::of(costs(own)),
        wall_ns_per_packet: Spread::of(own.iter().map(Sample::wall_cost).collect()),
        mpps_per_core: Spread::of(costs(own).into_iter().map(|cost| 1000.0 / cost).collect()),
        ratios: variant.bases.iter().filter_map(|base| ratio(base, own)).collect(),
    };
    variants.iter().zip(samples).map(row).collect()
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cpus, kernel, dpdk, memory, compiler, linked } = &self.machine;
        writeln!(f, "suite {}", self.suite)?;
        writeln!(f, "  machine   {processor}, {cpus} CPUs, Linux {kernel}, {memory}")?;
        writeln!(f, "  DPDK      {dpdk}, linked {linked}")?;
        writeln!(f, "  compiler  {compiler}")?;
        writeln!(
            f,
            "  method    burst {}, {} rounds of {} ms for each variant in turn, after one to warm up",
            self.burst, self.rounds, self.slice_ms
        )?;
        for note in &self.notes {
            writeln!(f, "  note      {note}")?;
        }
        writeln!(f)?;
        writeln!(
            f,
            "{:<32} {:>24}  {:>7} {:>7}   {:<20}",
            "", "CPU ns per packet", "wall", "Mpps", "cost in relation to"
        )?;
        writeln!(
            f,
            "{:<32} {:>7} {:>8} {:>7}  {:>7} {:>7}   {:<20} {:>6} {:>6} {:>6}",
            "variant", "min", "median", "max", "median", "/core", "", "min", "median", "max"
        )?;
        for row in &self.rows {
            let cpu = &row.cpu_ns_per_packet;
            write!(
                f,
                "{:<32} {:>7.2} {:>8.2} {:>7.2}  {:>7.2} {:>7.1}",
                row.variant, cpu.min, cpu.median, cpu.max, row.wall_ns_per_packet.median, row.mpps_per_core.median
            )?;
            for (index, Ratio { base, cost }) in row.ratios.iter().enumerate() {
                if index > 0 {
                    write!(f, "\n{:<72}", "")?;
                }
                write!(f, "   {base:<20} {:>6.3} {:>6.3} {:>6.3}", cost.min, cost.median, cost.max)?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
