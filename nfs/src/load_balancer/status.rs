//! What is known of a backend beside packets.

use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};

/// What is known of a backend: written by health checks and by commands, and read off the data path
/// by what makes the next policy of it.
#[derive(Debug)]
pub(super) struct Status {
    /// The share of its weight that it may get, in thousandths; 0 if it is down.
    share: AtomicU16,
    /// A command has taken it out.
    drained: AtomicBool,
}

/// A backend that is up, and has been for long enough.
pub(super) const WHOLE: u16 = 1000;

impl Status {
    /// Of one that has just come: it is down until a check says something else, if there is one.
    pub(super) fn new(is_checked: bool) -> Self {
        Self { share: AtomicU16::new(if is_checked { 0 } else { WHOLE }), drained: AtomicBool::new(false) }
    }

    pub(super) fn share(&self) -> u16 {
        self.share.load(Ordering::Relaxed).min(WHOLE)
    }

    pub(super) fn set_share(&self, thousandths: u16) {
        self.share.store(thousandths, Ordering::Relaxed);
    }

    pub(super) fn is_drained(&self) -> bool {
        self.drained.load(Ordering::Relaxed)
    }

    pub(super) fn set_drained(&self, drained: bool) {
        self.drained.store(drained, Ordering::Relaxed);
    }
}
