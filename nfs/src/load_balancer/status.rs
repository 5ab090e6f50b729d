//! What is known of a backend beside packets.

use std::sync::atomic::{AtomicU8, AtomicU16, Ordering};

/// What people want of a backend; it holds until they want something else, over reloads too.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[repr(u8)]
pub enum Order {
    /// It serves, if it is up.
    #[default]
    Serve,
    /// It gets no new flows and keeps those that it has.
    Drain,
    /// It is down, whatever a health check says.
    Down,
}

/// What is known of a backend: written by health checks and by commands, and read off the data path
/// by what makes the next policy of it.
#[derive(Debug)]
pub(super) struct Status {
    /// The share of its weight that it may get, in thousandths; 0 if it is down.
    share: AtomicU16,
    /// An [`Order`].
    order: AtomicU8,
}

/// A backend that is up, and has been for long enough.
pub(super) const WHOLE: u16 = 1000;

impl Status {
    /// Of one that has just come: it is down until a check says something else, if there is one.
    pub(super) fn new(is_checked: bool) -> Self {
        Self { share: AtomicU16::new(if is_checked { 0 } else { WHOLE }), order: AtomicU8::default() }
    }

    /// Of one that has come in the place of this one, at the same address.
    pub(super) fn heir(&self, was_checked: bool, is_checked: bool) -> Self {
        let share = if was_checked && is_checked { self.share.load(Ordering::Relaxed) } else { WHOLE };
        Self { share: AtomicU16::new(share), order: AtomicU8::new(self.order() as u8) }
    }

    /// What checks say, if there are any, unless it is down by an order.
    pub(super) fn share(&self, is_checked: bool) -> u16 {
        match self.order() {
            Order::Down => 0,
            _ if is_checked => self.share.load(Ordering::Relaxed).min(WHOLE),
            _ => WHOLE,
        }
    }

    /// What checks say, whatever people want.
    pub(super) fn is_up(&self) -> bool {
        self.share.load(Ordering::Relaxed) > 0
    }

    /// For what checks it.
    pub(super) fn set_share(&self, thousandths: u16) {
        self.share.store(thousandths, Ordering::Relaxed);
    }

    pub(super) fn order(&self) -> Order {
        match self.order.load(Ordering::Relaxed) {
            order if order == Order::Drain as u8 => Order::Drain,
            order if order == Order::Down as u8 => Order::Down,
            _ => Order::Serve,
        }
    }

    pub(super) fn set_order(&self, order: Order) {
        self.order.store(order as u8, Ordering::Relaxed);
    }
}
