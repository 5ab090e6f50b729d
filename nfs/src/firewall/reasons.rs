//! Why the firewall drops packets, and what it counts.

use super::packet::NotSeen;
use super::tracking::Tracking;
use nf_framework::{Counter, DropReason, TooManyDropReasons, WorkerSetup};

macro_rules! reasons {
    ($($field:ident = $name:literal: $help:literal;)*) => {
        /// The firewall's own reasons: as the framework counts them, or as they are called.
        #[derive(Clone, Copy, Debug)]
        pub(super) struct Reasons<R = DropReason> {
            $(pub(super) $field: R,)*
        }

        impl Reasons {
            pub(super) fn new(worker: &mut WorkerSetup) -> Result<Self, TooManyDropReasons> {
                Ok(Self { $($field: worker.drop_reason($name, $help)?,)* })
            }
        }

        /// They by name, where there is no worker to count them.
        pub(super) const NAMED: Reasons<Named> = Reasons { $($field: Named { name: $name, help: $help },)* };
    };
}

reasons! {
    denied = "firewall-denied": "a rule does not accept it";
    unmatched = "firewall-default": "begins something that no rule accepts";
    no_connection = "firewall-no-connection": "belongs to no connection and begins none";
    tcp_flags = "firewall-tcp-flags": "a set of TCP flags that means nothing";
    tcp_state = "firewall-tcp-state": "a segment that its connection cannot have now";
    tcp_window = "firewall-tcp-window": "sequence numbers that its sender cannot have now";
    tcp_reset = "firewall-tcp-reset": "a reset without the exact number";
    checksum = "firewall-checksum": "a wrong checksum";
    side = "firewall-side": "of a connection whose end is on the other side";
    address = "firewall-address": "from or to what is no host, or from and to the same address";
    source_route = "firewall-source-route": "an IPv4 source route, or an IPv6 routing header with stops to come";
    unrelated = "firewall-unrelated": "an ICMP error about nothing that is known here";
    fragment = "firewall-fragment": "a fragment of a packet that was not accepted, or that may not come in fragments";
    neighbours = "firewall-neighbor-discovery": "Neighbor Discovery that has been on another link, or is in fragments";
    arp = "firewall-arp": "ARP, which the configuration does not let through";
    ether_type = "firewall-ether-type": "an Ethernet type that the configuration does not let through";
    full = "firewall-connections-full": "the table of connections is full of established ones";
    source_limit = "firewall-source-limit": "its source has as many connections as it may have";
    sources_full = "firewall-sources-full": "there is no place to count the connections of its source";
    embryonic_limit = "firewall-embryonic-limit": "as many connections of its rule are half open as may be";
    syn_cookie = "firewall-syn-cookie": "a SYN that was answered by a SYN cookie";
    syn_proxy = "firewall-syn-proxy": "the firewall opens its connection, and has said itself what there was to say";
    rate_limit = "firewall-rate-limit": "more in a second than its rule allows";
    ended = "firewall-rejudged": "of a connection that new rules do not accept";
}

/// A reason in words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Named {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

impl Reasons {
    pub(super) fn of(&self, not_seen: NotSeen) -> DropReason {
        self.own(not_seen).unwrap_or(DropReason::MALFORMED)
    }
}

impl<R: Copy> Reasons<R> {
    /// None for what is malformed: that is the framework's.
    fn own(&self, not_seen: NotSeen) -> Option<R> {
        Some(match not_seen {
            NotSeen::Malformed => return None,
            NotSeen::Arp => self.arp,
            NotSeen::Other(_) => self.ether_type,
            NotSeen::Checksum => self.checksum,
            NotSeen::SourceRoute => self.source_route,
            NotSeen::Address => self.address,
            NotSeen::Neighbours => self.neighbours,
            NotSeen::Error => self.unrelated,
            NotSeen::Fragment => self.fragment,
        })
    }
}

impl Reasons<Named> {
    pub(super) fn of_named(&self, not_seen: NotSeen) -> Named {
        let malformed = Named { name: "malformed", help: "a header is cut short, or contradicts itself or the frame" };
        self.own(not_seen).unwrap_or(malformed)
    }
}

/// What it counts beside packets.
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) accepted: Counter,
    pub(super) denied: Counter,
    pub(super) rejected: Counter,
    /// What would have been told, but for the bound of such answers.
    pub(super) untold: Counter,
    /// SYNs that were answered by one, and connections that begin by one.
    pub(super) cookies: Counter,
    pub(super) returned: Counter,
    evicted: Counter,
    expired: Counter,
    /// By a reload, a command, or a SYN after the end.
    ended: Counter,
}

impl Counters {
    pub(super) fn new(worker: &mut WorkerSetup) -> Self {
        Self {
            accepted: worker.counter("connections-accepted"),
            denied: worker.counter("packets-denied"),
            rejected: worker.counter("rejections-sent"),
            untold: worker.counter("rejections-not-sent"),
            cookies: worker.counter("syn-cookies-sent"),
            returned: worker.counter("syn-cookies-returned"),
            evicted: worker.counter("connections-evicted"),
            expired: worker.counter("connections-expired"),
            ended: worker.counter("connections-ended"),
        }
    }

    /// Takes over what the tables count.
    pub(super) fn follow(&mut self, tracking: &Tracking) {
        let tables = tracking.counters();
        let sum = |of: fn(&nf_framework::FlowTableCounters) -> u64| tables.iter().copied().map(of).sum::<u64>();
        for (counter, count) in [
            (&mut self.evicted, sum(|table| table.evicted.iter().sum())),
            (&mut self.expired, sum(|table| table.expired)),
            (&mut self.ended, sum(|table| table.removed)),
        ] {
            counter.add(count.wrapping_sub(counter.value()));
        }
    }
}
