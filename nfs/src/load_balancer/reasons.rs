//! Why the load balancer drops packets, and what it counts.

use super::connections::Connections;
use nf_framework::{Counter, DropReason, TooManyDropReasons, WorkerSetup};

macro_rules! reasons {
    ($($(#[$doc:meta])* $field:ident = $name:literal: $help:literal;)*) => {
        /// The load balancer's own reasons.
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
    no_service = "lb-no-service": "for an address of services, by a protocol or port that none has";
    no_backend = "lb-no-backend": "for a service of which no backend is ready";
    backend_down = "lb-backend-down": "of a connection whose backend is down, which the configuration does not move";
    too_big = "lb-too-big": "too big for the tunnel to its backend";
    icmp = "lb-icmp": "ICMP for a service address that is neither an echo request nor about a flow of a service";
    icmp_checksum = "lb-icmp-checksum": "an echo request with a wrong checksum";
    no_connection = "lb-no-connection": "for an address of the load balancer's own, and of no connection or check";
    not_translated = "lb-not-translated": "of a protocol or kind that the mode of its service cannot translate";
    connections_full = "lb-connections-full": "its mode needs an entry, and the table is full of live connections";
    too_many_new = "lb-too-many-new": "its mode needs an entry, and too many began in this second";
    ports_exhausted = "lb-ports-exhausted": "no source port is free towards its backend";
}

/// What it counts beside packets.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) begun: Counter,
    /// They got another backend, as theirs is down.
    pub(super) moved: Counter,
    /// Packets of new flows that nothing was remembered of.
    pub(super) without_entry: Counter,
    /// Packets of QUIC connections that named another backend than the one that their addresses were known for.
    pub(super) renamed: Counter,
    evicted: Counter,
    expired: Counter,
}

impl Counters {
    pub(super) fn new(worker: &mut WorkerSetup) -> Self {
        Self {
            begun: worker.counter("connections-begun"),
            moved: worker.counter("connections-moved"),
            without_entry: worker.counter("packets-without-entry"),
            renamed: worker.counter("quic-connections-migrated"),
            evicted: worker.counter("connections-evicted"),
            expired: worker.counter("connections-expired"),
        }
    }

    /// Takes over what the tables count.
    pub(super) fn follow(&mut self, connections: &Connections) {
        let (v4, v6) = (connections.v4.counters(), connections.v6.counters());
        let evicted: u64 = v4.evicted.iter().chain(&v6.evicted).sum();
        for (counter, count) in [(&mut self.evicted, evicted), (&mut self.expired, v4.expired + v6.expired)] {
            counter.add(count.wrapping_sub(counter.value()));
        }
    }
}
