//! Why the NAT drops packets, and what it counts.

use super::sessions::{Refusal, Sessions};
use nf_framework::{Counter, DropReason, Gauge, TooManyDropReasons, WorkerSetup};

/// As a trace calls it too.
pub(super) const UNSOLICITED_SYN: &str = "nat-unsolicited-syn";

macro_rules! reasons {
    ($($(#[$doc:meta])* $field:ident = $name:tt: $help:literal;)*) => {
        /// The NAT's own reasons.
        #[derive(Clone, Copy, Debug)]
        pub(super) struct Reasons {
            $($(#[$doc])* pub(super) $field: DropReason,)*
        }

        impl Reasons {
            pub(super) fn new(worker: &mut WorkerSetup) -> Result<Self, TooManyDropReasons> {
                Ok(Self { $($field: worker.drop_reason($name, $help)?,)* })
            }
        }
    };
}

reasons! {
    ipv6 = "nat-ipv6": "an IPv6 packet, which the configuration does not forward";
    protocol = "nat-protocol": "of a protocol that is only translated one to one";
    no_session = "nat-no-session": "from inside, begins no session and belongs to none";
    no_pool = "nat-no-pool": "from inside, and no pool is for this host and destination";
    no_mapping = "nat-no-mapping": "for an external port or identifier that nobody inside has";
    filtered = "nat-filtered": "for an external port, from a host that its owner has not sent to";
    not_translated = "nat-not-translated": "from outside for an address that is none of the NAT's";
    spoofed = "nat-spoofed": "from outside with an external address of ours as its source";
    subscriber_limit = "nat-subscriber-limit": "its host has as many ports or sessions as it may have";
    ports_exhausted = "nat-ports-exhausted": "no external port is free for its host";
    sessions_full = "nat-sessions-full": "the table of sessions is full of established ones";
    subscribers_full = "nat-subscribers-full": "the table of inside hosts is full";
    icmp_checksum = "nat-icmp-checksum": "an ICMP error with a wrong checksum, or about a header with one";
    icmp_fragment = "nat-icmp-fragment": "an ICMP error in fragments";
    unsolicited_syn = UNSOLICITED_SYN: "a TCP connection from outside that nobody inside waited for";
}

impl Reasons {
    pub(super) fn of(&self, refusal: Refusal) -> DropReason {
        match refusal {
            Refusal::NoSession => self.no_session,
            Refusal::Draining => DropReason::DRAINING,
            Refusal::SubscriberLimit => self.subscriber_limit,
            Refusal::PortsExhausted => self.ports_exhausted,
            Refusal::SessionsFull => self.sessions_full,
            Refusal::SubscribersFull => self.subscribers_full,
        }
    }
}

/// What it counts beside packets, and the mappings that there are now.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) sessions_created: Counter,
    sessions_evicted: Counter,
    sessions_expired: Counter,
    /// By a reload or a command.
    sessions_ended: Counter,
    mappings: Gauge,
    pub(super) hairpins: Counter,
    pub(super) forwarded: Counter,
}

impl Counters {
    pub(super) fn new(worker: &mut WorkerSetup) -> Self {
        Self {
            sessions_created: worker.counter("sessions-created"),
            sessions_evicted: worker.counter("sessions-evicted"),
            sessions_expired: worker.counter("sessions-expired"),
            sessions_ended: worker.counter("sessions-ended"),
            mappings: worker.gauge("mappings"),
            hairpins: worker.counter("hairpin-packets"),
            forwarded: worker.counter("forwarded-packets"),
        }
    }

    /// Takes over what the tables count.
    pub(super) fn follow(&mut self, sessions: &Sessions) {
        let table = sessions.flows.counters();
        for (counter, count) in [
            (&mut self.sessions_evicted, table.evicted.iter().sum()),
            (&mut self.sessions_expired, table.expired),
            (&mut self.sessions_ended, table.removed),
        ] {
            counter.add(count.wrapping_sub(counter.value()));
        }
        self.mappings.set(sessions.mapped_ports() as u64);
    }
}
