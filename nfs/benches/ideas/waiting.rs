//! What a packet waits, and what the wait costs, when the core polls, sleeps, or is woken.

use crate::{Plan, median};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// One way to wait for a packet that comes every 200 microseconds or so.
#[derive(Debug, Serialize)]
pub(crate) struct Wait {
    name: &'static str,
    /// From the moment that it is there to the moment that it is handled, in microseconds.
    median_us: f64,
    ninety_ninth_us: f64,
    /// Share of a CPU that the waiting takes.
    cpu_share: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Poll,
    Sleep,
    Wake,
}

pub(crate) fn measure(plan: Plan) -> anyhow::Result<Vec<Wait>> {
    eprintln!("waiting: 3 x {:?}", plan.slice * plan.rounds);
    let mut waits = Vec::new();
    println!("one packet every 200 us            waits us: median   99th   share of a CPU");
    for (name, how) in [
        ("polled", How::Poll),
        ("asleep for 50 us at a time", How::Sleep),
        ("woken for each, as by an interrupt", How::Wake),
    ] {
        let wait = wait(name, how, plan.slice * plan.rounds)?;
        println!("{:<36} {:>15.1} {:>6.1} {:>15.2}", name, wait.median_us, wait.ninety_ninth_us, wait.cpu_share);
        waits.push(wait);
    }
    println!();
    Ok(waits)
}

/// A sender puts the time into a slot; the receiver, a core of its own, takes it out.
fn wait(name: &'static str, how: How, time: Duration) -> anyhow::Result<Wait> {
    let start = Instant::now();
    let now = move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let (slot, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let receiver = {
        let (slot, stop) = (Arc::clone(&slot), Arc::clone(&stop));
        std::thread::spawn(move || -> anyhow::Result<(Vec<f64>, f64)> {
            let (cpu, begun) = (crate::measure::own_cpu_time()?, Instant::now());
            let mut waits = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match slot.swap(0, Ordering::Acquire) {
                    0 => match how {
                        How::Poll => std::hint::spin_loop(),
                        How::Sleep => std::thread::sleep(Duration::from_micros(50)),
                        How::Wake => std::thread::park_timeout(Duration::from_millis(20)),
                    },
                    sent => waits.push((now().saturating_sub(sent)) as f64 / 1000.0),
                }
            }
            let cpu = crate::measure::own_cpu_time()? - cpu;
            Ok((waits, cpu.as_secs_f64() / begun.elapsed().as_secs_f64()))
        })
    };
    while start.elapsed() < time {
        slot.store(now().max(1), Ordering::Release);
        if how == How::Wake {
            receiver.thread().unpark();
        }
        let next = Instant::now() + Duration::from_micros(200);
        while Instant::now() < next {
            std::hint::spin_loop();
        }
    }
    stop.store(true, Ordering::Relaxed);
    receiver.thread().unpark();
    let (mut waits, cpu_share) = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
    waits.sort_by(f64::total_cmp);
    let ninety_ninth_us = waits.get(waits.len() * 99 / 100).copied().unwrap_or(f64::NAN);
    Ok(Wait { name, median_us: median(waits), ninety_ninth_us, cpu_share })
}
