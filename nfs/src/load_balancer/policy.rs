//! A validated configuration, prepared for the packet path: what instances work by.

use super::config::{
    BackendConfig, Config, Hash, Mode, OnBackendDown, ServerId, ServiceConfig, ServicePorts, ServiceProtocol, TooBig,
    WhenEmpty, usual_mtu,
};
use super::counters::{MOST_BACKENDS, Shared, Totals};
use super::encapsulate::{Ends, Tunnel};
use super::flow::Flow;
use super::flow_hash::FlowHash;
use super::health::{self, Check, ProbeAddresses};
use super::maglev::{self, Member};
use super::status::{Order, Status, WHOLE};
use nf_framework::headers::IpProtocol;
use nf_framework::{BackendReport, Invalid, NextHop, NextHops, Prefix, TooManyNextHops};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Services in one program.
const MOST_SERVICES: usize = 4096;
/// Connections keep theirs by a number of one octet.
const MOST_SOURCES: usize = 256;
/// Places of a table.
const MOST_PLACES: u32 = 5_000_011;
/// Deadlines reach about so far: see [`FlowTable`](nf_framework::FlowTable).
const LONGEST_TIMEOUT: u32 = 1_000_000;

/// What instances work by.
#[derive(Debug)]
pub struct Policy {
    pub(super) config: Arc<Config>,
    /// By [`Timer`].
    pub(super) timeouts: [Duration; Timer::COUNT],
    pub(super) hash: FlowHash,
    pub(super) services: Vec<Service>,
    /// Where health checks come from.
    pub(super) probes: ProbeAddresses,
    /// By service, of those that are checked.
    pub(super) checks: Vec<Option<Arc<Check>>>,
    /// By slot.
    pub(super) backends: Vec<Option<Backend>>,
    /// By slot: what a packet needs.
    pub(super) ways: Vec<Way>,
    /// By slot: of those that are reached by their MAC address.
    pub(super) next_hops: OnceLock<Box<[Option<NextHop>]>>,
    addresses: Addresses,
}

type Addresses = HashMap<u128, Address, BuildHasherDefault<AddressHasher>>;

/// What a connection is timed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(super) enum Timer {
    #[default]
    Syn,
    Established,
    Closing,
    Udp,
}

impl Timer {
    pub(super) const COUNT: usize = 4;
}

/// What is balanced.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) mode: Mode,
    pub(super) hash: Hash,
    pub(super) when_empty: WhenEmpty,
    /// None while no backend is ready.
    pub(super) table: Option<Arc<Table>>,
    /// Of QUIC: the backends that may be named.
    pub(super) server_ids: HashMap<ServerId, u16>,
    pub(super) server_id_length: usize,
}

/// The table of a service.
#[derive(PartialEq, Eq)]
pub(super) struct Table {
    /// What it was made of: who, with which weight, in which slot.
    members: Vec<(Vec<u8>, u32, u16)>,
    /// The slot of each place's backend.
    pub(super) places: Box<[u16]>,
}

/// Of those that have been in a configuration, one that is in it or has connections still.
#[derive(Clone, Debug)]
pub(super) struct Backend {
    pub(super) identity: Identity,
    pub(super) name: String,
    /// Its service's place; none if it is gone.
    pub(super) service: Option<u16>,
    pub(super) weight: u16,
    /// What its status said when the policy was made.
    pub(super) share: u16,
    pub(super) order: Order,
    pub(super) status: Arc<Status>,
    /// Whether the status's share is to be believed.
    is_checked: bool,
    /// What had been counted in its slot before it came.
    pub(super) since: Totals,
}

/// What makes a backend the same one over reloads: its connections go on by it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Identity {
    pub(super) service: String,
    pub(super) mode: Mode,
    pub(super) address: IpAddr,
    pub(super) port: Option<u16>,
}

/// How packets go to a backend.
#[derive(Clone, Debug)]
pub(super) struct Way {
    /// Of the modes that have one.
    pub(super) tunnel: Option<Tunnel>,
    pub(super) mode: Mode,
    pub(super) address: IpAddr,
    /// The port of the modes that translate; none if it stays.
    pub(super) port: Option<u16>,
    pub(super) dscp: u8,
    /// Octets of the largest IP packet that goes through the tunnel.
    pub(super) largest: u16,
    pub(super) is_up: bool,
    /// Whether packets of its known connections need no closer look.
    pub(super) is_usual: bool,
    pub(super) on_down: OnBackendDown,
    pub(super) proxy_protocol: bool,
    /// Whether a packet may name another backend than its flow's.
    pub(super) may_be_named: bool,
}

/// The services of an address.
#[derive(Debug, Default)]
struct Address {
    /// It is no service's, but the load balancer's own.
    is_own: bool,
    /// By protocol: ranges of ports in order, each with its service.
    ranges: [Vec<(ServicePorts, u16)>; 3],
    /// By protocol: the service of all other ports.
    others: [Option<u16>; 3],
}

/// What an address is to the load balancer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// Nothing.
    Nobody,
    /// The load balancer's own, towards backends.
    Own,
    /// It has services, but none for this protocol and port.
    NoService,
    /// The place of one.
    Service(u16),
}

impl Policy {
    /// The first policy of a program.
    pub(super) fn new(config: Config, shared: &Shared) -> Result<Self, Invalid> {
        Self::after(Arc::new(config), None, shared)
    }

    /// The policy that follows another one.
    pub(super) fn following(config: Config, running: &Self, shared: &Shared) -> Result<Self, Invalid> {
        let restart = |key: &str, changed: bool| {
            let message = "cannot change while the program runs: restart it";
            if changed { Err(Invalid::new(key, message)) } else { Ok(()) }
        };
        let before = &running.config;
        restart("connections", config.connections != before.connections)?;
        restart("connections_ipv6", config.connections_ipv6 != before.connections_ipv6)?;
        restart("insertions_per_second", config.insertions_per_second != before.insertions_per_second)?;
        restart("source_addresses", config.source_addresses != before.source_addresses)?;
        let translates = |service: &ServiceConfig| service.mode.translates();
        if let Some(place) = config.services.iter().position(translates).filter(|_| !running.translates()) {
            let message = "there is no room for answers: restart the program (with source_addresses there always is)";
            return Err(Invalid::new(format!("services[{place}].mode"), message));
        }
        Self::after(Arc::new(config), Some(running), shared)
    }

    /// The same configuration, with backends as they are now; nothing if they are as they were.
    pub(super) fn tended(&self, shared: &Shared) -> Option<Self> {
        let has_changed = |Backend { share, order, status, is_checked, .. }: &Backend| {
            (*share, *order) != (status.share(*is_checked), status.order())
        };
        if !self.backends.iter().flatten().any(has_changed) {
            return None;
        }
        Self::after(Arc::clone(&self.config), Some(self), shared).ok()
    }

    fn after(config: Arc<Config>, running: Option<&Self>, shared: &Shared) -> Result<Self, Invalid> {
        check_numbers(&config)?;
        let hash = FlowHash::new(config.hash_seed);
        let addresses = addresses(&config)?;
        let mut slots = Slots::new(&config, running, shared);
        let (mut services, mut names) = (Vec::new(), BTreeSet::new());
        for (place, service) in (0_u16..).zip(&config.services) {
            if !names.insert(&service.name) {
                let key = format!("services[{place}].name");
                return Err(Invalid::new(key, format!("there is another service {:?}", service.name)));
            }
            let members = slots.place((&config, &addresses), place, service)?;
            let before = running.and_then(|running| running.services.iter().find(|other| other.name == service.name));
            let before = before.and_then(|before| before.table.as_ref());
            let same_hash = running.is_none_or(|running| {
                (running.config.hash_seed, running.config.table_size) == (config.hash_seed, config.table_size)
            });
            let table = Table::new(members, &hash, config.table_size, before.filter(|_| same_hash));
            let ids = slots.server_ids(place, service)?;
            services.push(Service {
                name: service.name.clone(),
                mode: service.mode,
                hash: service.hash,
                when_empty: service.when_empty,
                table,
                server_id_length: ids.keys().next().map_or(0, |id| id.len()),
                server_ids: ids,
            });
        }
        let (probes, checks) = health::checks(&config, running.map_or(&[], |running| &running.checks))?;
        let Slots { backends, ways, .. } = slots;
        let of = &config.timeouts;
        let timeouts = [of.syn, of.established, of.closing, of.udp];
        let timeouts = timeouts.map(|seconds| Duration::from_secs(seconds.into()));
        let next_hops = OnceLock::new();
        Ok(Self { config, probes, checks, timeouts, hash, services, backends, ways, next_hops, addresses })
    }

    /// The backends of the configuration; those that are gone are known by no name of their own.
    pub(super) fn reports(&self, shared: &Shared) -> Vec<BackendReport> {
        let all = (0..).zip(&self.backends).filter_map(|(slot, backend)| Some((slot, backend.as_ref()?)));
        let report = |(slot, backend): (u16, &Backend)| BackendReport {
            service: backend.identity.service.clone(),
            name: backend.name.clone(),
            is_up: backend.is_checked.then(|| backend.status.is_up()),
            connections: shared.totals(slot).live,
        };
        all.filter(|(_, backend)| backend.service.is_some()).map(report).collect()
    }

    /// Writes down what runs now: a backend without checks is up, for when its checks begin.
    pub(super) fn settle(&self) {
        let unchecked = self.backends.iter().flatten().filter(|backend| !backend.is_checked);
        unchecked.for_each(|backend| backend.status.set_share(WHOLE));
    }

    /// The same configuration with every backend up, for where nobody can be asked; nothing if they are.
    pub(super) fn all_up(&self, shared: &Shared) -> Option<Self> {
        self.backends.iter().flatten().for_each(|backend| backend.status.set_share(WHOLE));
        self.tended(shared)
    }

    /// Makes known where packets go by MAC address.
    pub(super) fn find_next_hops(&self, all: &NextHops) -> Result<(), TooManyNextHops> {
        if self.next_hops.get().is_some() {
            return Ok(());
        }
        let mut known = HashMap::new();
        let mut of = |way: &Way| -> Result<Option<NextHop>, TooManyNextHops> {
            if way.mode != Mode::Dsr {
                return Ok(None);
            }
            if let Some(next_hop) = known.get(&way.address) {
                return Ok(Some(*next_hop));
            }
            let next_hop = all.at(way.address)?;
            known.insert(way.address, next_hop);
            Ok(Some(next_hop))
        };
        let next_hops = self.ways.iter().map(&mut of).collect::<Result<_, _>>()?;
        // Another call may have come first, with the same result.
        let _ = self.next_hops.set(next_hops);
        Ok(())
    }

    /// The service of an address, a protocol and a port (0 where it has none).
    pub(super) fn find(&self, address: IpAddr, protocol: IpProtocol, port: u16) -> Found {
        let Some(of) = self.addresses.get(&number(address)) else { return Found::Nobody };
        if of.is_own {
            return Found::Own;
        }
        const ANY: usize = ServiceProtocol::Any as usize;
        let this = match protocol {
            IpProtocol::TCP => ServiceProtocol::Tcp as usize,
            IpProtocol::UDP => ServiceProtocol::Udp as usize,
            _ => return of.others[ANY].map_or(Found::NoService, Found::Service),
        };
        let in_ranges = |ranges: &[(ServicePorts, u16)]| {
            let behind = ranges.partition_point(|(ports, _)| ports.first <= port);
            let (ports, service) = ranges.get(behind.checked_sub(1)?)?;
            (port <= ports.last).then_some(*service)
        };
        let found = in_ranges(&of.ranges[this]).or_else(|| in_ranges(&of.ranges[ANY]));
        found.or(of.others[this]).or(of.others[ANY]).map_or(Found::NoService, Found::Service)
    }

    /// Whether this address is of services, or the load balancer's own.
    pub(super) fn knows(&self, address: IpAddr) -> bool {
        self.addresses.contains_key(&number(address))
    }

    /// Whether packets to this address are for services.
    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.get(&number(address)).is_some_and(|of| !of.is_own)
    }

    /// Whether instances have room for what answers: there are services of modes that translate, or addresses for them.
    pub(super) fn translates(&self) -> bool {
        let translates = |service: &Service| service.mode.translates();
        !self.config.source_addresses.is_empty() || self.services.iter().any(translates)
    }

    /// Of our addresses the one with this number.
    #[inline]
    pub(super) fn source_address(&self, number: u8) -> Option<IpAddr> {
        self.config.source_addresses.get(usize::from(number)).copied()
    }

    /// The addresses that packets are taken for now.
    pub(super) fn taken(&self) -> Vec<Prefix> {
        let services = || self.config.services.iter().zip(0_u16..);
        let is_up = |place: u16| {
            let mut of = self.backends.iter().flatten().filter(|backend| backend.service == Some(place));
            of.any(|backend| backend.share > 0)
        };
        let stays = |address: IpAddr| {
            let mut of = services().filter(|(service, _)| service.address == address);
            of.any(|(service, place)| service.when_empty != WhenEmpty::Withdraw || is_up(place))
        };
        let all: BTreeSet<IpAddr> = services().map(|(service, _)| service.address).collect();
        let own = self.config.source_addresses.iter().chain(&self.config.probe_addresses).copied();
        let all: BTreeSet<IpAddr> = all.into_iter().filter(|address| stays(*address)).chain(own).collect();
        let host = |address: IpAddr| Prefix::new(address, if address.is_ipv4() { 32 } else { 128 }).ok();
        all.into_iter().filter_map(host).collect()
    }

    /// The key by which there is an address.
    pub(super) fn key_of(&self, address: IpAddr) -> Option<String> {
        let config = &self.config;
        let service = config.services.iter().position(|service| service.address == address);
        let at = |list: &[IpAddr]| list.iter().position(|of| *of == address);
        service
            .map(|place| format!("services[{place}].address"))
            .or_else(|| Some(format!("source_addresses[{}]", at(&config.source_addresses)?)))
            .or_else(|| Some(format!("probe_addresses[{}]", at(&config.probe_addresses)?)))
    }

    /// The service that a flow's client asks.
    pub(super) fn service(&self, flow: &Flow) -> Option<&Service> {
        match self.find(flow.destination, flow.protocol, flow.destination_port) {
            Found::Service(place) => self.services.get(usize::from(place)),
            _ => None,
        }
    }

    /// The slot of a backend by the names of its service and its own.
    pub(super) fn slot_named(&self, service: &str, backend: &str) -> Option<u16> {
        let is_it = |of: &Backend| of.service.is_some() && of.identity.service == service && of.name == backend;
        (0..).zip(&self.backends).find(|(_, of)| of.as_ref().is_some_and(is_it)).map(|(slot, _)| slot)
    }
}

impl Table {
    /// A table of members in any order; the earlier one if that is the same. None without members.
    fn new(
        mut members: Vec<(Vec<u8>, u32, u16)>,
        hash: &FlowHash,
        size: u32,
        before: Option<&Arc<Self>>,
    ) -> Option<Arc<Self>> {
        // On another instance they are in another order and in other slots.
        members.sort_unstable();
        if members.is_empty() {
            return None;
        }
        if let Some(before) = before.filter(|before| before.members == members) {
            return Some(Arc::clone(before));
        }
        let of = |(identity, weight, _): &(Vec<u8>, u32, u16)| Member::new(identity, *weight, hash.key(), size);
        let order: Vec<_> = members.iter().map(of).collect();
        let slot = |member: u16| members.get(usize::from(member)).map_or(u16::MAX, |(.., slot)| *slot);
        let places = maglev::fill(&order, size).into_iter().map(slot).collect();
        Some(Arc::new(Self { members, places }))
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("members", &self.members.len()).finish_non_exhaustive()
    }
}

impl Backend {
    /// Its share of new flows.
    fn effective_weight(&self) -> u32 {
        if self.order == Order::Drain { 0 } else { u32::from(self.weight) * u32::from(self.share) }
    }
}

/// Backends on their way into slots.
struct Slots<'a> {
    shared: &'a Shared,
    backends: Vec<Option<Backend>>,
    ways: Vec<Way>,
    known: HashMap<Identity, u16>,
    /// By address: who goes, each with the port that it has, by itself or its service.
    leaving: HashMap<IpAddr, Vec<(Option<u16>, Backend)>>,
}

impl<'a> Slots<'a> {
    /// Those that have connections stay, whatever the next configuration says.
    fn new(config: &Config, running: Option<&Policy>, shared: &'a Shared) -> Self {
        let (mut backends, mut ways) = (Vec::new(), Vec::new());
        for (slot, (backend, way)) in (0..).zip(running.iter().flat_map(|of| of.backends.iter().zip(&of.ways))) {
            let stays = |of: &&Backend| of.service.is_some() || shared.totals(slot).live > 0;
            let backend = backend.as_ref().filter(stays).cloned().map(|of| {
                let (share, order) = (of.status.share(of.is_checked), of.status.order());
                Backend { service: None, share, order, ..of }
            });
            let is_up = backend.as_ref().map_or(way.is_up, |of| of.share > 0);
            ways.push(Way { is_up, is_usual: is_up && !way.may_be_named, ..way.clone() });
            backends.push(backend);
        }
        let all = (0..).zip(&backends).filter_map(|(slot, of)| Some((of.as_ref()?.identity.clone(), slot)));
        let known = all.collect();
        let identities = |service: &'_ ServiceConfig| {
            let of = |backend: &BackendConfig| Identity::new(service, backend);
            service.backends.iter().map(of).collect::<Vec<_>>()
        };
        let staying: HashSet<_> = config.services.iter().flat_map(identities).collect();
        let mut leaving = HashMap::<_, Vec<_>>::new();
        let goes = |of: &&Backend| of.service.is_some() && !staying.contains(&of.identity);
        if let Some(running) = running {
            for backend in running.backends.iter().flatten().filter(goes) {
                let service = backend.service.and_then(|place| running.config.services.get(usize::from(place)));
                let port = backend.identity.port.or(service.and_then(|of| of.port).map(|ports| ports.first));
                leaving.entry(backend.identity.address).or_default().push((port, backend.clone()));
            }
        }
        Self { shared, backends, ways, known, leaving }
    }

    /// What is known of a backend that has just come: what was known of the one in whose place it is, if there is one.
    fn status(&self, identity: &Identity, port: Option<u16>, is_checked: bool) -> Status {
        let before = self.leaving.get(&identity.address).map_or(&[][..], |all| all);
        // Where it may be any of them: one that is up, as its check finds out whether that is right.
        let same = before.iter().max_by_key(|(its_port, of)| {
            (*its_port == port, of.identity.service == identity.service, of.status.share(of.is_checked))
        });
        same.map_or_else(|| Status::new(is_checked), |(_, same)| same.status.heir(same.is_checked, is_checked))
    }

    /// Puts the backends of a service into slots; those that may get new flows come back.
    fn place(
        &mut self,
        (config, addresses): (&Config, &Addresses),
        place: u16,
        service: &ServiceConfig,
    ) -> Result<Vec<(Vec<u8>, u32, u16)>, Invalid> {
        let invalid = |of: &str, message: String| Err(Invalid::new(format!("services[{place}].{of}"), message));
        check_service(config, place, service)?;
        let (mut members, mut names) = (Vec::new(), BTreeSet::new());
        let mut seen = BTreeSet::new();
        for (number, backend) in service.backends.iter().enumerate() {
            let key = |of: &str| format!("backends[{number}].{of}");
            // The port of the service is the same one, said or not.
            let port = backend.port.or(service.port.map(|ports| ports.first));
            if addresses.contains_key(&self::number(backend.address)) {
                let message =
                    format!("{} is of a service, or one of source_addresses or probe_addresses", backend.address);
                return invalid(&key("address"), message);
            }
            if !seen.insert((backend.address, port)) {
                return invalid(&key("address"), format!("{} is a backend of this service already", backend.address));
            }
            let name = backend.name.clone().unwrap_or_else(|| match backend.port {
                Some(port) => std::net::SocketAddr::new(backend.address, port).to_string(),
                None => backend.address.to_string(),
            });
            if !names.insert(name.clone()) {
                return invalid(&key("name"), format!("there is another backend {name:?}"));
            }
            let way = way(config, (place, service), (number, backend))?;
            let identity = Identity::new(service, backend);
            let Some(slot) = self.slot(&identity) else {
                let message =
                    format!("there are more than {MOST_BACKENDS}, with any that are gone and still have connections");
                return invalid("backends", message);
            };
            let known = self.backends.get(usize::from(slot)).and_then(Option::as_ref);
            let is_checked = service.health.is_some();
            let (status, since) = match known {
                Some(known) => (Arc::clone(&known.status), known.since),
                None => (Arc::new(self.status(&identity, port, is_checked)), self.shared.totals(slot)),
            };
            let share = status.share(is_checked);
            let backend = Backend {
                identity: identity.clone(),
                name,
                service: Some(place),
                weight: backend.weight,
                share,
                order: status.order(),
                status,
                is_checked,
                since,
            };
            let weight = backend.effective_weight();
            if weight > 0 {
                members.push((identity.name(), weight, slot));
            }
            self.known.insert(identity, slot);
            let is_up = share > 0;
            self.put(slot, backend, Way { is_up, is_usual: is_up && way.is_usual, ..way });
        }
        Ok(members)
    }

    /// The backends of a service that QUIC packets may name, also if they get no new flows.
    fn server_ids(&self, place: u16, service: &ServiceConfig) -> Result<HashMap<ServerId, u16>, Invalid> {
        let (mut ids, mut length) = (HashMap::new(), None);
        for (number, backend) in service.backends.iter().enumerate() {
            let Some(id) = backend.server_id else { continue };
            let key = format!("services[{place}].backends[{number}].server_id");
            if service.hash != Hash::Quic {
                return Err(Invalid::new(key, "it is for hash = \"quic\""));
            }
            if *length.get_or_insert(id.len()) != id.len() {
                return Err(Invalid::new(key, "it is not as long as the others of this service"));
            }
            let slot = self.known.get(&Identity::new(service, backend)).copied();
            if slot.is_some_and(|slot| ids.insert(id, slot).is_some()) {
                return Err(Invalid::new(key, "another backend of this service has it"));
            }
        }
        if service.hash == Hash::Quic && ids.is_empty() && !service.backends.is_empty() {
            return Err(Invalid::new(
                format!("services[{place}].hash"),
                "no backend has a server_id by which it is named",
            ));
        }
        Ok(ids)
    }

    /// The slot that a backend has, or may have.
    fn slot(&self, identity: &Identity) -> Option<u16> {
        if let Some(slot) = self.known.get(identity) {
            return Some(*slot);
        }
        let free = self.backends.iter().position(Option::is_none).unwrap_or(self.backends.len());
        u16::try_from(free).ok().filter(|_| free < MOST_BACKENDS)
    }

    fn put(&mut self, slot: u16, backend: Backend, way: Way) {
        let slot = usize::from(slot);
        if slot == self.backends.len() {
            self.backends.push(Some(backend));
            self.ways.push(way);
        } else {
            self.backends[slot] = Some(backend);
            self.ways[slot] = way;
        }
    }
}

impl Identity {
    fn new(service: &ServiceConfig, backend: &BackendConfig) -> Self {
        Self { service: service.name.clone(), mode: service.mode, address: backend.address, port: backend.port }
    }

    /// What it is known by on all instances.
    fn name(&self) -> Vec<u8> {
        let mut name = number(self.address).to_be_bytes().to_vec();
        name.extend(self.port.unwrap_or(0).to_be_bytes());
        name
    }
}

/// An address as a number: IPv4 in IPv6's form for it.
pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Hashes an address; only configured ones are in the table, so nobody can fill it.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "both halves count")]
    fn write_u128(&mut self, number: u128) {
        let halves = number as u64 ^ (number >> 64) as u64;
        let product = u128::from(halves) * 0x9e37_79b9_7f4a_7c15;
        self.0 = product as u64 ^ (product >> 64) as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Whether a host can have an address: RFC 1122 section 3.2.1.3, RFC 4291 section 2.
fn is_of_a_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !matches!(address.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(address) => {
            !address.is_multicast()
                && !address.is_loopback()
                && !address.is_unspecified()
                && address.to_ipv4_mapped().is_none()
        }
    }
}

/// Where no host has an address, each with its length: as [`is_of_a_host`] says.
const NO_HOSTS: [(IpAddr, u8); 6] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8),
    (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 3),
    // With loopback.
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), 127),
    (IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()), 96),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

/// Whether a prefix has addresses that no host has.
fn has_no_hosts(prefix: Prefix) -> bool {
    let overlaps = |(address, length)| {
        prefix.contains(address) || Prefix::new(address, length).is_ok_and(|other| other.contains(prefix.address()))
    };
    NO_HOSTS.into_iter().any(overlaps)
}

fn check_numbers(config: &Config) -> Result<(), Invalid> {
    for (key, value) in [("connections", config.connections), ("connections_ipv6", config.connections_ipv6)] {
        if !(64..=1 << 28).contains(&value) {
            return Err(Invalid::new(key, format!("{value} is not from 64 to {}", 1 << 28)));
        }
    }
    if config.insertions_per_second == 0 {
        return Err(Invalid::new("insertions_per_second", "0 would remember no connection"));
    }
    let size = config.table_size;
    if size > MOST_PLACES || !maglev::is_prime(size) {
        return Err(Invalid::new("table_size", format!("{size} is not a prime up to {MOST_PLACES}: take 65537")));
    }
    let of = &config.timeouts;
    for (key, seconds) in [("syn", of.syn), ("established", of.established), ("closing", of.closing), ("udp", of.udp)] {
        if !(1..=LONGEST_TIMEOUT).contains(&seconds) {
            let message = format!("{seconds} seconds are not from 1 to {LONGEST_TIMEOUT}");
            return Err(Invalid::new(format!("timeouts.{key}"), message));
        }
    }
    if config.gue_port == 0 {
        return Err(Invalid::new("gue_port", "nobody can listen at port 0"));
    }
    if config.source_addresses.len() > MOST_SOURCES {
        let message = format!("there are {}, and {MOST_SOURCES} at most", config.source_addresses.len());
        return Err(Invalid::new("source_addresses", message));
    }
    for (list, addresses) in
        [("source_addresses", &config.source_addresses), ("probe_addresses", &config.probe_addresses)]
    {
        for (place, address) in addresses.iter().enumerate() {
            let of_service = config.services.iter().any(|service| service.address == *address);
            let message = match () {
                () if !is_of_a_host(*address) => "is not an address that a host can have",
                () if of_service => "is an address of a service",
                () if addresses[..place].contains(address) => "stands here twice",
                () => continue,
            };
            return Err(Invalid::new(format!("{list}[{place}]"), format!("{address} {message}")));
        }
    }
    for (place, prefix) in config.tunnel_sources.iter().enumerate() {
        let earlier = &config.tunnel_sources[..place];
        if earlier.iter().any(|other| other.address().is_ipv4() == prefix.address().is_ipv4()) {
            return Err(Invalid::new(format!("tunnel_sources[{place}]"), "there is another one of this family"));
        }
        if has_no_hosts(*prefix) {
            let message = format!("{prefix} has addresses that a host cannot have");
            return Err(Invalid::new(format!("tunnel_sources[{place}]"), message));
        }
        // A host drops what seems to be from itself, and what is said of it would come to another one.
        let of_services = config.services.iter().map(|service| service.address);
        let of_backends = config.services.iter().flat_map(|service| &service.backends).map(|backend| backend.address);
        let own = config.source_addresses.iter().chain(&config.probe_addresses).copied();
        if let Some(taken) = of_services.chain(of_backends).chain(own).find(|address| prefix.contains(*address)) {
            let message = format!("{prefix} has {taken}, which is of a service, a backend, or the load balancer's own");
            return Err(Invalid::new(format!("tunnel_sources[{place}]"), message));
        }
    }
    if config.services.is_empty() || config.services.len() > MOST_SERVICES {
        return Err(Invalid::new("services", format!("there are {}, not 1 to {MOST_SERVICES}", config.services.len())));
    }
    Ok(())
}

fn check_service(config: &Config, place: u16, service: &ServiceConfig) -> Result<(), Invalid> {
    let invalid = |of: &str, message: &str| Err(Invalid::new(format!("services[{place}].{of}"), message));
    if service.name.is_empty() {
        return invalid("name", "it is empty");
    }
    if !is_of_a_host(service.address) {
        return invalid("address", &format!("{} is not an address that a host can have", service.address));
    }
    let family = service.address.is_ipv4();
    if service.mode == Mode::FullNat && !config.source_addresses.iter().any(|source| source.is_ipv4() == family) {
        return invalid("mode", "full-nat needs an address of this family in source_addresses");
    }
    if service.proxy_protocol && (service.mode != Mode::FullNat || service.protocol != ServiceProtocol::Tcp) {
        return invalid("proxy_protocol", "it goes with mode = \"full-nat\" and protocol = \"tcp\"");
    }
    if service.hash == Hash::Quic && service.protocol != ServiceProtocol::Udp {
        return invalid("hash", "QUIC goes by UDP: give protocol = \"udp\"");
    }
    if service.dscp.is_some() && service.mode != Mode::Dscp {
        return invalid("dscp", "it goes with mode = \"dscp\"");
    }
    if !service.mode.has_tunnel() {
        if service.too_big != TooBig::default() {
            return invalid("too_big", "it goes with a tunnel: mode \"ipip\", \"gre\" or \"gue\"");
        }
        if service.mtu != usual_mtu() {
            return invalid("mtu", "it goes with a tunnel: mode \"ipip\", \"gre\" or \"gue\"");
        }
    }
    // Whoever has less than a place may have none.
    let all: u64 = service.backends.iter().map(|backend| u64::from(backend.weight)).sum();
    let has_none = |weight: u16| weight > 0 && u64::from(weight) * u64::from(config.table_size) < all;
    if let Some(number) = service.backends.iter().position(|backend| has_none(backend.weight)) {
        let message = format!("it is less than one of {} places: give a greater table_size", config.table_size);
        return invalid(&format!("backends[{number}].weight"), &message);
    }
    Ok(())
}

/// How packets go to a backend that is up.
fn way(
    config: &Config,
    (place, service): (u16, &ServiceConfig),
    (number, backend): (usize, &BackendConfig),
) -> Result<Way, Invalid> {
    let invalid =
        |of: &str, message: String| Err(Invalid::new(format!("services[{place}].backends[{number}].{of}"), message));
    let is_tunnel = service.mode.has_tunnel();
    let address = backend.address;
    if !is_of_a_host(address) {
        return invalid("address", format!("{address} is not an address that a host can have"));
    }
    if !is_tunnel && address.is_ipv4() != service.address.is_ipv4() {
        return invalid("address", format!("{address} is not of the family of {}", service.address));
    }
    if let Some(port) = backend.port {
        if !service.mode.translates() {
            return invalid("port", "this mode sends to the port that the client has chosen: leave it out".to_owned());
        }
        let several = match service.port {
            None => Some("all ports".to_owned()),
            Some(ports) if ports.first != ports.last => Some(format!("the ports {}-{}", ports.first, ports.last)),
            Some(_) => None,
        };
        if let Some(several) = several {
            let message =
                format!("the service has {several}: leave it out, and backends get the port that clients chose");
            return invalid("port", message);
        }
        if port == 0 {
            return invalid("port", "0 is no port: write one from 1 to 65535".to_owned());
        }
    }
    let dscp = match backend.dscp.or(service.dscp) {
        None if service.mode == Mode::Dscp => return invalid("dscp", "mode = \"dscp\" needs one, 1 to 63".to_owned()),
        Some(_) if service.mode != Mode::Dscp => return invalid("dscp", "it goes with mode = \"dscp\"".to_owned()),
        Some(dscp @ (0 | 64..)) => return invalid("dscp", format!("{dscp} is not from 1 to 63")),
        dscp => dscp.unwrap_or(0),
    };
    let mut largest = u16::MAX;
    let mut tunnel = None;
    if is_tunnel {
        let of_family = |prefix: &&Prefix| prefix.address().is_ipv4() == address.is_ipv4();
        let Some(from) = config.tunnel_sources.iter().find(of_family) else {
            return invalid("address", format!("a tunnel to {address} needs a prefix of its family in tunnel_sources"));
        };
        let carries_ipv6 = service.address.is_ipv6();
        let may_split = service.too_big == TooBig::Fragment;
        let ends = Ends { from: *from, to: address, carries_ipv6, gue_port: config.gue_port, may_split };
        let made = Tunnel::new(service.mode, &ends);
        // What every link of the family takes.
        let least: u16 = if carries_ipv6 { 1280 } else { 576 };
        let left = usize::from(service.mtu).saturating_sub(made.overhead());
        largest = u16::try_from(left).unwrap_or(0);
        if largest < least {
            let message = format!("{} leave {largest} bytes in the tunnel, and {least} are needed", service.mtu);
            return Err(Invalid::new(format!("services[{place}].mtu"), message));
        }
        tunnel = Some(made);
    }
    Ok(Way {
        tunnel,
        mode: service.mode,
        address,
        port: backend.port,
        dscp,
        largest,
        is_up: true,
        is_usual: service.hash != Hash::Quic,
        on_down: service.on_backend_down,
        proxy_protocol: service.proxy_protocol,
        may_be_named: service.hash == Hash::Quic,
    })
}

/// A service, for people.
fn named(config: &Config, place: u16) -> String {
    let name = config.services.get(usize::from(place)).map_or("", |service| &service.name);
    format!("the service {name:?}")
}

/// The services of each address, none of which stands in another's way.
fn addresses(config: &Config) -> Result<Addresses, Invalid> {
    let mut all = Addresses::default();
    for address in config.source_addresses.iter().chain(&config.probe_addresses) {
        all.entry(number(*address)).or_default().is_own = true;
    }
    let mut ranges = BTreeMap::<(IpAddr, usize), Vec<(ServicePorts, u16)>>::new();
    for (place, service) in (0..).zip(&config.services) {
        let (address, protocol) = (service.address, service.protocol as usize);
        let of = all.entry(number(address)).or_default();
        match service.port {
            Some(ports) => ranges.entry((address, protocol)).or_default().push((ports, place)),
            None => {
                if let Some(other) = of.others[protocol].replace(place) {
                    let message = format!("{} has all ports of {address} by this protocol", named(config, other));
                    return Err(Invalid::new(format!("services[{place}].port"), message));
                }
            }
        }
    }
    for ((address, protocol), mut ranges) in ranges {
        ranges.sort_unstable_by_key(|(ports, place)| (ports.first, *place));
        if let Some([(before, other), (ports, place)]) = ranges.windows(2).find_map(|pair| {
            let pair: &[_; 2] = pair.try_into().ok()?;
            (pair[1].0.first <= pair[0].0.last).then_some(*pair)
        }) {
            let port = ports.first.max(before.first);
            let message = format!("{} has port {port} of {address} by this protocol", named(config, other));
            return Err(Invalid::new(format!("services[{place}].port"), message));
        }
        if let Some(of) = all.get_mut(&number(address)) {
            of.ranges[protocol] = ranges;
        }
    }
    Ok(all)
}
