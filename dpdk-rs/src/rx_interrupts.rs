//! Interrupts of receive queues, for a thread that sleeps until packets come.
//!
//! A thread that polls has no use for them, so they are off. One that wants to sleep enables those of its queues, looks at
//! every queue once more, and waits. What had come before an interrupt was enabled is found by the look. What comes
//! later raises it, and the wait ends, or does not even begin: the file that tells of it is watched all the time, by its
//! edges. So no packet is slept through where the device keeps its word, and where it does not, a wait ends by itself.

use crate::Errno;
use crate::queue::RxQueue;
use crate::rx_interrupt::checked;
use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// Interrupts that one look at them takes note of; what is left over ends the next wait.
const MOST_AT_ONCE: u8 = 8;

/// Where a thread waits for packets of its queues. A queue has an interrupt where its port was asked for them
/// ([`PortBuilder::rx_interrupts`](crate::PortBuilder::rx_interrupts)) and the device has them.
///
/// ```no_run
/// # use dpdk_rs::{Burst, Errno, RxInterrupts, RxQueue};
/// # use std::time::Duration;
/// # fn sleep(queue: &mut RxQueue, burst: &mut Burst) -> Result<(), Errno> {
/// let interrupts = RxInterrupts::new()?;
/// interrupts.enable(queue)?;
/// if queue.receive(burst) == 0 {
///     interrupts.wait(Duration::from_millis(1));
/// }
/// queue.disable_interrupt();
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RxInterrupts {
    epoll: Arc<OwnedFd>,
}

impl RxInterrupts {
    /// Without any queue.
    ///
    /// # Errors
    ///
    /// Those of `epoll_create1(2)`: the process has too many open files.
    pub fn new() -> Result<Self, Errno> {
        // SAFETY: no precondition.
        let epoll = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: just opened, and nobody else's.
        let epoll = unsafe { OwnedFd::from_raw_fd(epoll) };
        Ok(Self { epoll: Arc::new(epoll) })
    }

    /// Enables a queue's interrupt, to end a [`wait`](Self::wait) here until it is
    /// [disabled](RxQueue::disable_interrupt). It tells only of packets that come from now on.
    ///
    /// # Errors
    ///
    /// `ENOTSUP` for a queue that [has none](RxQueue::has_interrupt), and what the driver says.
    pub fn enable(&self, queue: &mut RxQueue) -> Result<(), Errno> {
        let interrupt = queue.interrupt.as_mut().ok_or(Errno(libc::ENOTSUP))?;
        interrupt.watch(&self.epoll)?;
        interrupt.enable(&queue.port, queue.queue)
    }

    /// Waits until an interrupt has been raised since the last wait, a signal comes, or so much time is over, which is
    /// counted in whole milliseconds. Says whether something came.
    #[must_use = "the queues tell what came, if anything did"]
    pub fn wait(&self, at_most: Duration) -> bool {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MOST_AT_ONCE as usize];
        let milliseconds = c_int::try_from(at_most.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: there is room for that many events, and the file is open as long as `self` is.
        let told = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), events.as_mut_ptr(), c_int::from(MOST_AT_ONCE), milliseconds)
        };
        told != 0
    }
}

impl RxQueue {
    /// Whether it can end a thread's [wait](RxInterrupts::wait).
    #[must_use]
    pub fn has_interrupt(&self) -> bool {
        self.interrupt.is_some()
    }

    /// Disables its interrupt, if it is [enabled](RxInterrupts::enable), which one that is polled has no use for.
    pub fn disable_interrupt(&mut self) {
        if let Some(interrupt) = &mut self.interrupt {
            interrupt.disable(&self.port, self.queue);
        }
    }
}
