//! How full the tables and the pools of one worker are, for whoever watches.

use super::flow::Protocol;
use super::policy::Policy;
use super::sessions::Sessions;
use nf_framework::{Instant, Occupancy, WorkerSetup};
use std::time::Duration;

/// Addresses of the pools that one tick looks at.
const ADDRESSES: usize = 64;
/// How long there is nothing to do after all have been looked at.
const PAUSE: Duration = Duration::from_millis(500);

/// What is shown. The mappings have none of their own: there is room for more than sessions can have.
#[derive(Debug)]
pub(super) struct Occupancies {
    subscribers: Occupancy,
    /// By protocol, all pools together: what is in use or rests, of addresses that get new mappings.
    ports: [Occupancy; Protocol::COUNT],
    /// What the addresses before this one have.
    sums: [(usize, usize); Protocol::COUNT],
    address: usize,
    /// When the addresses are looked at again.
    next: Instant,
}

impl Occupancies {
    pub(super) fn new(worker: &mut WorkerSetup, sessions: &mut Sessions) -> Self {
        sessions.flows.show(worker.occupancy("sessions"));
        Self {
            subscribers: worker.occupancy("subscribers"),
            ports: ["tcp-ports", "udp-ports", "icmp-identifiers"].map(|table| worker.occupancy(table)),
            sums: Default::default(),
            address: 0,
            next: Instant::START,
        }
    }

    /// Shows what there is now; of ports, a part of the addresses at a time.
    pub(super) fn follow(&mut self, sessions: &Sessions, policy: &Policy, now: Instant) {
        if now < self.next {
            return;
        }
        let to = self.address + ADDRESSES;
        sessions.ports.add_up(self.address..to, |group| policy.range_of(group), &mut self.sums);
        if to < sessions.ports.addresses() {
            self.address = to;
            return;
        }
        for (shown, (entries, limit)) in self.ports.iter_mut().zip(std::mem::take(&mut self.sums)) {
            shown.set(entries, limit);
        }
        self.subscribers.set(sessions.hosts(), policy.config.subscribers);
        (self.address, self.next) = (0, now + PAUSE);
    }
}
