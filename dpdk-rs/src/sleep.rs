//! Sleeping for less than the kernel thinks that it matters.

/// Lets sleeps of the calling thread end when they should: unless this is called Linux lets them last up to 50 µs
/// longer, to wake several threads at once (`PR_SET_TIMERSLACK`, prctl(2)). A kernel that cannot leaves them so.
pub fn precise_sleeps() {
    const NANOSECONDS: libc::c_ulong = 1;
    // SAFETY: it takes a number, and changes nothing but the calling thread's timers.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, NANOSECONDS) };
}
