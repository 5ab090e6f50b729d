//! What a packet waits, and what the wait costs, when the core polls, sleeps, or is woken.

use crate::measure::{Variant, own_cpu_time};
use crate::results::Sample;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// From one packet to the next.
const PERIOD: Duration = Duration::from_micros(200);

#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    Poll,
    Sleep,
    Wake,
}

pub(crate) fn variants() -> Vec<Variant<'static>> {
    let name = |how: &str| format!("a packet every 200 us: {how}");
    let polled = name("polled");
    vec![
        Variant::new(polled.clone(), |slice| wait(How::Poll, slice)),
        Variant::new(name("asleep for 50 us at a time"), |slice| wait(How::Sleep, slice)).ratio(&polled),
        Variant::new(name("woken for each, as by an interrupt"), |slice| wait(How::Wake, slice)).ratio(&polled),
    ]
}

/// A sender puts the time into a slot; the receiver, a core of its own, takes it out.
fn wait(how: How, time: Duration) -> anyhow::Result<Sample> {
    let start = Instant::now();
    let now = move || u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let (slot, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let receiver = {
        let (slot, stop) = (Arc::clone(&slot), Arc::clone(&stop));
        std::thread::spawn(move || -> anyhow::Result<(Vec<u64>, Duration)> {
            let cpu = own_cpu_time()?;
            let mut waits = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                match slot.swap(0, Ordering::Acquire) {
                    0 => match how {
                        How::Poll => std::hint::spin_loop(),
                        How::Sleep => std::thread::sleep(Duration::from_micros(50)),
                        How::Wake => std::thread::park_timeout(Duration::from_millis(20)),
                    },
                    sent => waits.push(now().saturating_sub(sent)),
                }
            }
            Ok((waits, own_cpu_time()? - cpu))
        })
    };
    while start.elapsed() < time {
        slot.store(now().max(1), Ordering::Release);
        if how == How::Wake {
            receiver.thread().unpark();
        }
        let next = Instant::now() + PERIOD;
        while Instant::now() < next {
            std::hint::spin_loop();
        }
    }
    stop.store(true, Ordering::Relaxed);
    receiver.thread().unpark();
    let (mut waits, cpu) = receiver.join().map_err(|_| anyhow::anyhow!("the receiver panicked"))??;
    waits.sort_unstable();
    let median = waits.get(waits.len() / 2).copied().unwrap_or(0);
    // So that the wall time per packet is what a packet waits.
    Ok(Sample::new(waits.len() as u64, cpu, Duration::from_nanos(median) * u32::try_from(waits.len())?))
}
