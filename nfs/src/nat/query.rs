//! What a running NAT knows, for people and programs: asked by
//! [`Control::command`](nf_framework::Control::command), a piece at a time, on each worker.

use super::flow::{FlowTuple, Protocol};
use super::instance::Instance;
use super::ports::Status;
use super::sessions::Session;
use nf_framework::{Instant, Piece};
use serde::{Deserialize, Serialize, Serializer};
use std::net::{Ipv4Addr, SocketAddrV4};

/// Slots of the table that one question looks at: packets wait meanwhile, for a fraction of a
/// millisecond.
const SLOTS: usize = 1024;

/// A session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct SessionView {
    /// Its protocol.
    pub protocol: Protocol,
    /// The inside host, and its port or identifier.
    #[serde(serialize_with = "as_text")]
    pub inside: (Ipv4Addr, u16),
    /// Where it goes; the port is 0 for ICMP.
    #[serde(serialize_with = "as_text")]
    pub remote: (Ipv4Addr, u16),
    /// What stands for the inside host outside.
    #[serde(serialize_with = "as_text")]
    pub external: (Ipv4Addr, u16),
    /// Whether both sides have taken part; others go first when the table is full.
    pub established: bool,
}

/// A mapping.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MappingView {
    /// The inside host, and its port or identifier.
    pub inside: (Ipv4Addr, u16),
    /// Whether anything came back.
    pub answered: bool,
}

/// Sessions that are meant; what is not given is all.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionFilter {
    /// Of this protocol.
    pub protocol: Option<Protocol>,
    /// Of this inside host.
    pub inside: Option<Ipv4Addr>,
    /// To this host.
    pub remote: Option<Ipv4Addr>,
    /// Behind this external address.
    pub external: Option<Ipv4Addr>,
}

/// What a clearing has done so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cleared {
    /// Sessions that were ended.
    pub sessions: usize,
    /// What to go on with; `None` when it is done.
    pub next: Option<usize>,
}

/// How full a worker is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Occupancy {
    /// Sessions that it has.
    pub sessions: usize,
    /// And has room for.
    pub capacity: usize,
    /// Inside hosts with sessions.
    pub subscribers: usize,
    /// Mappings: inside ports with an external one.
    pub mappings: usize,
    /// By address of the pools.
    pub addresses: Vec<AddressOccupancy>,
}

/// The same with its number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct OfWorker {
    worker: usize,
    #[serde(flatten)]
    occupancy: Occupancy,
}

impl OfWorker {
    pub(super) fn all(workers: Vec<Occupancy>) -> Vec<Self> {
        (0..).zip(workers).map(|(worker, occupancy)| Self { worker, occupancy }).collect()
    }
}

/// How full an address is on one worker, all protocols together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct AddressOccupancy {
    /// Which.
    pub address: Ipv4Addr,
    /// Whether it gets new mappings.
    pub active: bool,
    /// Ports and identifiers in use.
    pub in_use: u32,
    /// Given back, and not to be used yet.
    pub resting: u32,
    /// That this worker has, of each protocol.
    pub of_worker: usize,
}

/// An address with its port, as people write it.
fn as_text<S: Serializer>((address, port): &(Ipv4Addr, u16), to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&SocketAddrV4::new(*address, *port))
}

impl SessionFilter {
    fn fits(&self, flow: &FlowTuple, session: &Session) -> bool {
        self.protocol.is_none_or(|protocol| protocol == flow.protocol)
            && self.inside.is_none_or(|inside| inside == flow.source)
            && self.remote.is_none_or(|remote| remote == flow.destination)
            && self.external.is_none_or(|external| external == Ipv4Addr::from(session.address))
    }
}

impl Instance {
    /// Sessions that a filter means, out of a part of the table, each with its place there: from 0, and then from what is
    /// next, until that is `None`.
    #[must_use]
    pub fn list(&self, filter: &SessionFilter, from: usize) -> Piece<SessionView> {
        let to = from.saturating_add(SLOTS);
        let entries = self.sessions.flows.entries_in(from..to).filter_map(|(handle, key, session)| {
            let flow = FlowTuple::of_key(key).filter(|flow| filter.fits(flow, session))?;
            let view = SessionView {
                protocol: flow.protocol,
                inside: (flow.source, flow.source_port),
                remote: (flow.destination, flow.destination_port),
                external: (session.address.into(), session.port),
                established: session.is_confirmed(),
            };
            Some((handle.slot(), view))
        });
        Piece { items: entries.collect(), next: (to < self.sessions.flows.slots()).then_some(to) }
    }

    /// What an external port stands for, if it is this worker's.
    #[must_use]
    pub fn mapping(&self, protocol: Protocol, address: Ipv4Addr, port: u16) -> Option<MappingView> {
        let (_, mapping) = self.sessions.mapping(protocol, address, port)?;
        Some(MappingView { inside: (mapping.inside, mapping.port), answered: mapping.answered })
    }

    /// How full it is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let of_worker = self.sessions.ports.per_address();
        let address = |(address, status, in_use, resting)| AddressOccupancy {
            address,
            active: status == Status::Active,
            in_use,
            resting,
            of_worker,
        };
        Occupancy {
            sessions: self.sessions.len(),
            capacity: self.policy.config.sessions,
            subscribers: self.sessions.hosts(),
            mappings: self.sessions.mapped_ports(),
            addresses: self.sessions.ports.occupancy().map(address).collect(),
        }
    }

    /// Ends sessions that a filter means, in a part of the table as [`Instance::list`] goes through it.
    pub fn clear(&mut self, filter: &SessionFilter, from: usize, now: Instant) -> Cleared {
        let fits = |flow: &FlowTuple, session: &Session| filter.fits(flow, session);
        let (sessions, next) = self.sessions.clear(from, SLOTS, (&self.policy, now), fits);
        Cleared { sessions, next }
    }
}
