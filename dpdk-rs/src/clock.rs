//! Time, read from the processor's time-stamp counter: one instruction, no system call.

use crate::Eal;
use std::time::Duration;

/// A reading of the time-stamp counter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Ticks(pub u64);

impl Ticks {
    /// The counter now.
    #[must_use]
    #[inline]
    pub fn now() -> Self {
        Self(read())
    }

    /// Ticks since an earlier reading.
    #[must_use]
    #[inline]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.wrapping_sub(earlier.0)
    }
}

/// Reads the counter and knows its rate. Copy it to wherever time is read; one reading
/// costs about 10 ns, so read once per burst.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: u64,
    /// Nanoseconds per tick, times 2^32.
    scale: u64,
    hertz: u64,
}

impl Clock {
    /// A clock that starts now, at the rate that the EAL measured.
    #[must_use]
    pub fn new(_eal: &Eal) -> Self {
        // SAFETY: the EAL is up, which is all this asks for.
        let hertz = unsafe { dpdk_sys::rte_get_tsc_hz() }.max(1);
        let scale = u64::try_from((1_000_000_000u128 << 32) / u128::from(hertz)).unwrap_or(u64::MAX);
        Self { start: read(), scale, hertz }
    }

    /// Time since this clock was made.
    #[must_use]
    #[inline]
    pub fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_nanoseconds())
    }

    /// Nanoseconds since this clock was made; wraps after 584 years.
    #[must_use]
    #[inline]
    pub fn elapsed_nanoseconds(&self) -> u64 {
        self.nanoseconds_at(Ticks::now())
    }

    /// Nanoseconds between the making of this clock and a reading.
    #[must_use]
    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the product fits for as long as the count of nanoseconds does")]
    pub fn nanoseconds_at(&self, reading: Ticks) -> u64 {
        let ticks = reading.0.wrapping_sub(self.start);
        ((u128::from(ticks) * u128::from(self.scale)) >> 32) as u64
    }

    /// Ticks per second.
    #[must_use]
    pub fn hertz(&self) -> u64 {
        self.hertz
    }
}

/// Microseconds on the kernel's `CLOCK_MONOTONIC`, by which other processes of the machine can compare
/// moments: a service manager does. Takes a system call, or nearly one.
#[must_use]
pub fn monotonic_microseconds() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours and a timespec; every Linux has this clock, and zeros would stay if one had not.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let (seconds, nanoseconds) = (time.tv_sec.cast_unsigned(), time.tv_nsec.cast_unsigned());
    seconds * 1_000_000 + nanoseconds / 1000
}

#[inline]
fn read() -> u64 {
    // SAFETY: every x86-64 processor has the instruction.
    unsafe { core::arch::x86_64::_rdtsc() }
}
