//! The suite `ideas`: what each idea of kernel bypass is worth. The same small function on every
//! way from a wire to a program, and on DPDK with each idea taken away in turn.
//!
//! The function counts UDP packets by destination port and swaps the MAC addresses.

mod bypass;
mod kernel;
mod waiting;

pub(crate) use bypass::serve;

use crate::machine::Memory;
use crate::measure::{Plan, interleave};
use crate::results::Row;

pub(crate) const ABOUT: &str = "what each idea of kernel bypass is worth";
pub(crate) const MEBIBYTES: u64 = bypass::MEBIBYTES;

pub(crate) fn notes() -> Vec<String> {
    [
        "from the wire: a veth pair whose other end a program on another CPU keeps busy; what is sent goes to a second \
         pair that nobody reads. The kernel does its drivers' receiving on the source's CPU, so its ways look cheaper \
         than on a NIC. Cost is the CPU time of a program that sleeps for packets, and the time that packets took of \
         one that polls",
        "the others: packets go round a ring, 2048 mbufs unless said, bursts of 32 unless said",
        "a packet every 200 us: CPU is what the receiving core takes for each packet, its waiting included; wall is the \
         median wait of a packet",
    ]
    .map(str::to_owned)
    .to_vec()
}

pub(crate) fn run(plan: Plan, memory: Memory) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    match kernel::Wires::new() {
        // Each starts a program of its own in every round, which takes longer than the work.
        Ok(wires) => rows.extend(interleave(kernel::variants(&wires)?, Plan { rounds: plan.rounds.min(7), ..plan })?),
        Err(why) => eprintln!("skipped: the ways through the kernel: {why:#}"),
    }
    // Before the EAL pins this thread, and with it every thread that it starts.
    rows.extend(interleave(waiting::variants(), plan)?);
    let eal = bypass::start(memory)?;
    for variants in [bypass::bursts(&eal)?, bypass::taken_away(&eal)?, bypass::copies(&eal)?, bypass::rotations(&eal)?]
    {
        rows.extend(interleave(variants, plan)?);
    }
    rows.extend(interleave(bypass::tables(&eal)?, plan)?);
    Ok(rows)
}
