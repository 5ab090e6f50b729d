//! A validated configuration, prepared for the packet path: what instances work by.

use super::config::{
    Config, Filtering, ForwardConfig, ForwardProtocol, Ipv6, OneToOneConfig, PoolConfig, Pooling, PortRange,
    PortSelection, UnsolicitedSyn,
};
use super::flow::Protocol;
use nf_framework::{HashKey, Invalid, Prefix};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Pool addresses in one program.
pub(super) const MOST_ADDRESSES: usize = 4096;
/// Pools in one program.
const MOST_POOLS: usize = 64;
/// Addresses of one_to_one, and ports of forward.
const MOST_STATIC: usize = 1 << 16;
/// Servers of one forward: each costs every packet that comes by it a hash.
const MOST_SERVERS: usize = 64;
/// Servers of all of them, counted for each port.
const MOST_SERVER_PORTS: usize = 1 << 18;
/// Prefixes in one list: a new session looks through those of every pool in a dozen steps.
const MOST_PREFIXES: usize = 4096;
/// Deadlines reach about so far: see [`FlowTable`](nf_framework::FlowTable).
const LONGEST_TIMEOUT: u32 = 1_000_000;

/// What instances work by.
#[derive(Debug)]
pub struct Policy {
    pub(super) config: Config,
    /// By [`Timer`].
    pub(super) timeouts: [Duration; Timer::COUNT],
    pub(super) port_quiet: u16,
    pub(super) pools: Vec<Pool>,
    /// Packets to these go untranslated.
    pub(super) exclude: Nets,
    /// Inside addresses by outside ones, and the opposite.
    one_to_one: HashMap<Ipv4Addr, Ipv4Addr>,
    one_to_one_by_inside: HashMap<Ipv4Addr, Ipv4Addr>,
    /// Servers by external address and port, and the opposite.
    pub(super) forward: HashMap<Endpoint, Vec<Endpoint>>,
    forwarded: HashMap<Endpoint, Endpoint>,
    /// Chooses among servers; the same on all workers and for all policies.
    server_choice: HashKey,
}

/// An address and port of a protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Endpoint {
    pub(super) protocol: Protocol,
    pub(super) address: Ipv4Addr,
    pub(super) port: u16,
}

/// Addresses that inside hosts share.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// What tells its mappings from those of other pools, for as long as the program runs.
    pub(super) group: u8,
    pub(super) addresses: Vec<Ipv4Addr>,
    pub(super) draining: Vec<Ipv4Addr>,
    pub(super) subscribers: Nets,
    pub(super) to: Nets,
    pub(super) ports: PortRange,
}

/// An IPv4 prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Net {
    first: u32,
    mask: u32,
}

/// IPv4 addresses of several prefixes, as ranges in order: what is looked up in them takes few steps, as new
/// sessions and untranslated packets do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Nets(Vec<(u32, u32)>);

/// What a session is timed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(super) enum Timer {
    Udp,
    Icmp,
    TcpOpening,
    TcpEstablished,
    TcpClosing,
}

impl Timer {
    pub(super) const COUNT: usize = 5;
}

impl Net {
    fn of(prefix: Prefix) -> Option<Self> {
        let IpAddr::V4(first) = prefix.address() else { return None };
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix.length())).unwrap_or(0);
        Some(Self { first: first.to_bits(), mask })
    }

    fn addresses(self) -> impl Iterator<Item = Ipv4Addr> {
        (self.first..=self.first | !self.mask).map(Ipv4Addr::from_bits)
    }
}

impl Nets {
    pub(super) fn new(prefixes: &[Prefix], key: &str) -> Result<Self, Invalid> {
        if prefixes.len() > MOST_PREFIXES {
            return Err(Invalid::new(key, format!("there are more than {MOST_PREFIXES} prefixes")));
        }
        let range = |net: Net| (net.first, net.first | !net.mask);
        let mut ranges: Vec<_> = nets(prefixes, key)?.into_iter().map(range).collect();
        ranges.sort_unstable();
        ranges.dedup_by(|later, earlier| {
            let overlaps = later.0 <= earlier.1;
            earlier.1 = if overlaps { earlier.1.max(later.1) } else { earlier.1 };
            overlaps
        });
        Ok(Self(ranges))
    }

    /// All but some addresses of hosts, of which none is the last that there is.
    fn without(&self, hosts: impl Iterator<Item = Ipv4Addr>) -> Self {
        let mut holes: Vec<u32> = hosts.map(Ipv4Addr::to_bits).collect();
        holes.sort_unstable();
        let mut rest = Vec::new();
        for &(mut first, last) in &self.0 {
            let from = holes.partition_point(|hole| *hole < first);
            for &hole in holes[from..].iter().take_while(|hole| **hole <= last) {
                if first < hole {
                    rest.push((first, hole - 1));
                }
                first = hole + 1;
            }
            if first <= last {
                rest.push((first, last));
            }
        }
        Self(rest)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all addresses of others are among these.
    pub(super) fn cover(&self, others: &Self) -> bool {
        others.0.iter().all(|&(first, last)| {
            let mut next = u64::from(first);
            let from = self.0.partition_point(|(_, last)| *last < first);
            for &(begin, end) in &self.0[from..] {
                if u64::from(begin) > next || next > u64::from(last) {
                    break;
                }
                next = u64::from(end) + 1;
            }
            next > u64::from(last)
        })
    }

    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// All addresses that there are.
    pub(super) fn all() -> Self {
        Self(vec![(0, u32::MAX)])
    }

    #[inline]
    pub(super) fn contains(&self, address: Ipv4Addr) -> bool {
        let address = address.to_bits();
        let behind = self.0.partition_point(|(first, _)| *first <= address);
        self.0[..behind].last().is_some_and(|(_, last)| address <= *last)
    }
}

impl Pool {
    /// Whether a packet of this inside host to this destination uses it.
    #[inline]
    fn serves(&self, source: Ipv4Addr, destination: Ipv4Addr) -> bool {
        let among = |nets: &Nets, address| nets.is_empty() || nets.contains(address);
        among(&self.subscribers, source) && among(&self.to, destination)
    }
}

impl Policy {
    /// The first policy of a program.
    pub(super) fn new(config: Config) -> Result<Self, Invalid> {
        Self::after(config, None)
    }

    /// The policy that follows another one.
    pub(super) fn following(config: Config, running: &Self) -> Result<Self, Invalid> {
        let restart = |key: &str, changed: bool| {
            let message = "cannot change while the program runs: restart it";
            if changed { Err(Invalid::new(key, message)) } else { Ok(()) }
        };
        restart("sessions", config.sessions != running.config.sessions)?;
        restart("subscribers", config.subscribers != running.config.subscribers)?;
        restart("filtering", config.filtering != running.config.filtering)?;
        restart("log", config.log != running.config.log)?;
        let next = Self::after(config, Some(running))?;
        for what in next.ends(running) {
            log::warn!("nat: a reload ends {what}");
        }
        Ok(next)
    }

    /// What ends that began under another policy.
    fn ends(&self, running: &Self) -> Vec<String> {
        let shared = |policy: &Self| {
            let pools = policy.pools.iter().flat_map(|pool| pool.addresses.iter().chain(&pool.draining));
            pools.copied().collect::<BTreeSet<_>>()
        };
        let (before, after) = (shared(running), shared(self));
        let gone = before.difference(&after).map(ToString::to_string).collect();
        let taken = self.forward.keys().filter(|external| !running.forward.contains_key(external));
        let mut taken: Vec<_> = taken.filter(|external| before.contains(&external.address)).collect();
        taken.sort_unstable_by_key(|external| (external.address, external.port, external.protocol.number()));
        let taken = taken.iter().map(|external| format!("{}:{}", external.address, external.port)).collect();
        let sentence = |what: &str, of: Vec<String>, why: &str| {
            let others = match of.len() {
                0 => return None,
                1 => String::new(),
                all => format!(" and {} more", all - 1),
            };
            Some(format!("{what} {}{others}, {why}", of[0]))
        };
        let gone = sentence("all sessions of", gone, "in no pool any more (under draining they end by themselves)");
        let taken = sentence("what inside hosts have on", taken, "which leads to a server now");
        gone.into_iter().chain(taken).collect()
    }

    fn after(config: Config, running: Option<&Self>) -> Result<Self, Invalid> {
        for (key, value) in [("sessions", config.sessions), ("subscribers", config.subscribers)] {
            if !(64..=1 << 28).contains(&value) {
                return Err(Invalid::new(key, format!("{value} is not from 64 to {}", 1 << 28)));
            }
        }
        for (key, limit) in [
            ("ports_per_subscriber", config.ports_per_subscriber),
            ("sessions_per_subscriber", config.sessions_per_subscriber),
        ] {
            if limit == Some(0) {
                return Err(Invalid::new(key, "0 would let nobody through: leave it out for no limit"));
            }
        }
        if let Some(mss) = config.mss.filter(|mss| *mss < 536) {
            return Err(Invalid::new("mss", format!("{mss} is less than every host takes, 536 (RFC 9293)")));
        }
        let timeouts = timeouts(&config)?;
        let pools = pools(&config.pools, running)?;
        let (one_to_one_by_inside, one_to_one) = one_to_one(&config.one_to_one, &pools)?;
        let (forward, forwarded) = forward(&config.forward, &one_to_one, &one_to_one_by_inside)?;
        if pools.is_empty() && one_to_one.is_empty() && forward.is_empty() {
            return Err(Invalid::new("pools", "there is nothing to translate to: give a pool, one_to_one or forward"));
        }
        let exclude = Nets::new(&config.exclude, "exclude")?;
        let policy = Self {
            timeouts,
            port_quiet: config.timeouts.port_quiet,
            exclude: Nets::none(),
            pools,
            one_to_one,
            one_to_one_by_inside,
            forward,
            forwarded,
            server_choice: running.map_or_else(HashKey::random, |running| running.server_choice.clone()),
            config,
        };
        // What is sent to our own addresses turns: it is not for anybody beyond.
        Ok(Self { exclude: exclude.without(policy.external()), ..policy })
    }

    /// The pool of a packet from inside.
    #[inline]
    pub(super) fn pool(&self, source: Ipv4Addr, destination: Ipv4Addr) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.serves(source, destination))
    }

    /// Whether packets to this address go untranslated, and those from there. External addresses do not,
    /// whatever prefix they are in.
    #[inline]
    pub(super) fn is_excluded(&self, address: Ipv4Addr) -> bool {
        self.exclude.contains(address)
    }

    /// The server that a client's packets to an external port go to.
    pub(super) fn server(&self, external: &Endpoint, client: Ipv4Addr, port: u16) -> Option<Endpoint> {
        if self.forward.is_empty() {
            return None;
        }
        let servers = self.forward.get(external)?;
        // Rendezvous hashing: who comes or goes moves nobody between the others.
        let weight = |server: &Endpoint| {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&server.address.octets());
            bytes[4..6].copy_from_slice(&server.port.to_be_bytes());
            bytes[6..10].copy_from_slice(&client.octets());
            bytes[10..12].copy_from_slice(&port.to_be_bytes());
            bytes[12..14].copy_from_slice(&external.port.to_be_bytes());
            self.server_choice.hash(&bytes)
        };
        servers.iter().copied().max_by_key(weight)
    }

    /// What stands for an inside address outside, one to one.
    #[inline]
    pub(super) fn one_to_one_outside(&self, inside: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.one_to_one.is_empty() { None } else { self.one_to_one_by_inside.get(&inside).copied() }
    }

    /// The opposite.
    #[inline]
    pub(super) fn one_to_one_inside(&self, outside: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.one_to_one.is_empty() { None } else { self.one_to_one.get(&outside).copied() }
    }

    /// The external port of a server.
    #[inline]
    pub(super) fn external_of_server(&self, server: &Endpoint) -> Option<Endpoint> {
        if self.forwarded.is_empty() { None } else { self.forwarded.get(server).copied() }
    }

    pub(super) fn filtering(&self, protocol: Protocol) -> Filtering {
        match protocol {
            Protocol::Tcp => self.config.filtering.tcp,
            Protocol::Udp | Protocol::Icmp => self.config.filtering.udp,
        }
    }

    /// Whether any packet is judged by who sent it.
    pub(super) fn filters(&self) -> bool {
        let filtering = self.config.filtering;
        [filtering.tcp, filtering.udp].iter().any(|of| *of != Filtering::EndpointIndependent)
    }

    /// All addresses that packets from outside may be for.
    pub(super) fn external(&self) -> impl Iterator<Item = Ipv4Addr> {
        let pools = self.pools.iter().flat_map(|pool| pool.addresses.iter().chain(&pool.draining));
        pools.chain(self.one_to_one.keys()).copied().chain(self.forward.keys().map(|external| external.address))
    }

    /// The key that makes an address an external one.
    pub(super) fn key_of(&self, address: IpAddr) -> Option<String> {
        let of_pools = self.config.pools.iter().enumerate().flat_map(|(index, pool)| {
            let keyed = |list: &str, prefixes: &[Prefix]| {
                let place = prefixes.iter().position(|prefix| prefix.contains(address))?;
                Some(format!("pools[{index}].{list}[{place}]"))
            };
            [keyed("addresses", &pool.addresses), keyed("draining", &pool.draining)]
        });
        let one_to_one = || self.config.one_to_one.iter().position(|config| config.outside.contains(address));
        let forward = || self.config.forward.iter().position(|config| address == config.outside);
        let of_one_to_one = || Some(format!("one_to_one[{}].outside", one_to_one()?));
        let of_forward = || Some(format!("forward[{}].outside", forward()?));
        of_pools.flatten().next().or_else(of_one_to_one).or_else(of_forward)
    }

    /// The ports that are given out of a group's addresses.
    pub(super) fn range_of(&self, group: u8) -> Option<PortRange> {
        self.pools.iter().find(|pool| pool.group == group).map(|pool| pool.ports)
    }

    pub(super) fn paired(&self) -> bool {
        self.config.pooling == Pooling::Paired
    }

    pub(super) fn preserves_ports(&self) -> bool {
        self.config.port_selection == PortSelection::Preserve
    }

    pub(super) fn refuses_syn(&self) -> bool {
        self.config.unsolicited_syn == UnsolicitedSyn::Refuse
    }

    pub(super) fn forwards_ipv6(&self) -> bool {
        self.config.ipv6 == Ipv6::Forward
    }
}

fn timeouts(config: &Config) -> Result<[Duration; Timer::COUNT], Invalid> {
    let of = &config.timeouts;
    for (key, seconds) in [
        ("udp", of.udp),
        ("icmp", of.icmp),
        ("tcp_opening", of.tcp_opening),
        ("tcp_established", of.tcp_established),
        ("tcp_closing", of.tcp_closing),
    ] {
        if !(1..=LONGEST_TIMEOUT).contains(&seconds) {
            let message = format!("{seconds} seconds are not from 1 to {LONGEST_TIMEOUT}");
            return Err(Invalid::new(format!("timeouts.{key}"), message));
        }
    }
    // It is kept in 16 bits, and compared with what is older.
    if of.port_quiet > 1 << 14 {
        let message = format!("{} seconds are not from 0 to {}", of.port_quiet, 1 << 14);
        return Err(Invalid::new("timeouts.port_quiet", message));
    }
    let seconds = [of.udp, of.icmp, of.tcp_opening, of.tcp_established, of.tcp_closing];
    Ok(seconds.map(|seconds| Duration::from_secs(seconds.into())))
}

fn nets(prefixes: &[Prefix], key: &str) -> Result<Vec<Net>, Invalid> {
    let net = |prefix: &Prefix| Net::of(*prefix).ok_or_else(|| Invalid::new(key, format!("{prefix} is not IPv4")));
    prefixes.iter().map(net).collect()
}

/// The router takes packets for an external address whatever it is otherwise: it may not be of a group, of
/// nobody, loopback or reserved (RFC 1122 section 3.2.1.3).
fn of_a_host(address: Ipv4Addr, key: &str) -> Result<(), Invalid> {
    if matches!(address.octets()[0], 0 | 127 | 224..) {
        return Err(Invalid::new(key, format!("{address} is not an address that a host can have")));
    }
    Ok(())
}

/// The addresses of several prefixes, not too many.
fn addresses(prefixes: &[Prefix], key: &str) -> Result<Vec<Ipv4Addr>, Invalid> {
    let too_many = || Invalid::new(key, format!("there are more than {MOST_ADDRESSES} addresses"));
    let mut all = Vec::new();
    for net in nets(prefixes, key)? {
        if all.len() + !net.mask as usize >= MOST_ADDRESSES {
            return Err(too_many());
        }
        all.extend(net.addresses());
    }
    Ok(all)
}

fn pools(configs: &[PoolConfig], running: Option<&Policy>) -> Result<Vec<Pool>, Invalid> {
    if configs.len() > MOST_POOLS {
        return Err(Invalid::new("pools", format!("there are more than {MOST_POOLS}")));
    }
    let mut owner = BTreeMap::new();
    let mut pools = Vec::<Pool>::new();
    for (index, config) in configs.iter().enumerate() {
        let active = addresses(&config.addresses, &format!("pools[{index}].addresses"))?;
        let draining = addresses(&config.draining, &format!("pools[{index}].draining"))?;
        let draining_alone: Vec<_> = draining.iter().copied().filter(|of| !active.contains(of)).collect();
        if draining_alone.len() < draining.len() {
            let key = format!("pools[{index}].draining");
            return Err(Invalid::new(key, "an address is either in use (addresses) or draining"));
        }
        let mut group = None;
        for address in active.iter().chain(&draining) {
            let key = format!("pools[{index}].addresses");
            of_a_host(*address, &key)?;
            if let Some(other) = owner.insert(*address, index) {
                return Err(Invalid::new(key, format!("{address} is in pool {other} already (they count from 0)")));
            }
            let before = running.and_then(|running| running.group_of(*address));
            if let (Some(group), Some(before)) = (group, before)
                && group != before
            {
                let message = format!("{address} was in another pool: it can change over by a restart only");
                return Err(Invalid::new(key, message));
            }
            group = group.or(before);
        }
        pools.push(Pool {
            // Filled in below.
            group: group.unwrap_or(u8::MAX),
            addresses: active,
            draining,
            subscribers: Nets::new(&config.subscribers, &format!("pools[{index}].subscribers"))?,
            to: Nets::new(&config.to, &format!("pools[{index}].to"))?,
            ports: config.ports,
        });
    }
    if owner.len() > MOST_ADDRESSES {
        return Err(Invalid::new("pools", format!("there are more than {MOST_ADDRESSES} addresses")));
    }
    let taken = |pools: &[Pool], group: u8| {
        pools.iter().chain(running.into_iter().flat_map(|running| &running.pools)).any(|pool| pool.group == group)
    };
    for index in 0..pools.len() {
        if pools[index].group == u8::MAX {
            let free = (0..u8::MAX).find(|group| !taken(&pools, *group));
            pools[index].group = free.ok_or_else(|| Invalid::new("pools", "too many came and went: restart"))?;
        }
        let group = pools[index].group;
        if pools[..index].iter().any(|other| other.group == group) {
            let message = "it has addresses that were together in one pool: a pool is divided by a restart only";
            return Err(Invalid::new(format!("pools[{index}]"), message));
        }
    }
    Ok(pools)
}

impl From<ForwardProtocol> for Protocol {
    fn from(protocol: ForwardProtocol) -> Self {
        match protocol {
            ForwardProtocol::Tcp => Self::Tcp,
            ForwardProtocol::Udp => Self::Udp,
        }
    }
}

impl Policy {
    fn group_of(&self, address: Ipv4Addr) -> Option<u8> {
        let has = |pool: &&Pool| pool.addresses.contains(&address) || pool.draining.contains(&address);
        self.pools.iter().find(has).map(|pool| pool.group)
    }
}

type OneToOne = HashMap<Ipv4Addr, Ipv4Addr>;

fn one_to_one(configs: &[OneToOneConfig], pools: &[Pool]) -> Result<(OneToOne, OneToOne), Invalid> {
    let (mut by_inside, mut by_outside) = (OneToOne::new(), OneToOne::new());
    for (index, config) in configs.iter().enumerate() {
        let key = |of: &str| format!("one_to_one[{index}].{of}");
        let net =
            |prefix: Prefix, of| Net::of(prefix).ok_or_else(|| Invalid::new(key(of), format!("{prefix} is not IPv4")));
        let (inside, outside) = (net(config.inside, "inside")?, net(config.outside, "outside")?);
        if inside.mask != outside.mask {
            return Err(Invalid::new(
                key("outside"),
                format!("{} has not the length of {}", config.outside, config.inside),
            ));
        }
        if by_inside.len() + !inside.mask as usize >= MOST_STATIC {
            return Err(Invalid::new(key("inside"), format!("there are more than {MOST_STATIC} addresses")));
        }
        for (inside, outside) in inside.addresses().zip(outside.addresses()) {
            of_a_host(outside, &key("outside"))?;
            if by_inside.insert(inside, outside).is_some() {
                return Err(Invalid::new(key("inside"), format!("{inside} has an outside address already")));
            }
            if by_outside.insert(outside, inside).is_some() {
                return Err(Invalid::new(key("outside"), format!("{outside} stands for another inside address")));
            }
            if pools.iter().any(|pool| pool.addresses.contains(&outside) || pool.draining.contains(&outside)) {
                return Err(Invalid::new(key("outside"), format!("{outside} is an address of a pool")));
            }
        }
    }
    Ok((by_inside, by_outside))
}

type Forward = (HashMap<Endpoint, Vec<Endpoint>>, HashMap<Endpoint, Endpoint>);

fn forward(configs: &[ForwardConfig], one_to_one: &OneToOne, by_inside: &OneToOne) -> Result<Forward, Invalid> {
    let (mut by_external, mut by_server) = (HashMap::new(), HashMap::new());
    for (index, config) in configs.iter().enumerate() {
        let invalid = |of: &str, message: String| Err(Invalid::new(format!("forward[{index}].{of}"), message));
        let protocol = config.protocol.into();
        of_a_host(config.outside, &format!("forward[{index}].outside"))?;
        if one_to_one.contains_key(&config.outside) {
            return invalid("outside", format!("{} is an address of one_to_one", config.outside));
        }
        if config.to.is_empty() {
            return invalid("to", "there is no server".to_owned());
        }
        if let Some(to) = config.to.iter().find(|to| by_inside.contains_key(to.ip())) {
            return invalid("to", format!("{} answers from the address that one_to_one gives it", to.ip()));
        }
        if config.to.len() > MOST_SERVERS {
            return invalid("to", format!("there are more than {MOST_SERVERS} servers"));
        }
        if by_external.len() + config.ports.len() as usize > MOST_STATIC {
            return invalid("ports", format!("there are more than {MOST_STATIC} ports"));
        }
        if by_server.len() + config.ports.len() as usize * config.to.len() > MOST_SERVER_PORTS {
            return invalid("to", format!("there are more than {MOST_SERVER_PORTS} servers, counted for each port"));
        }
        for (place, to) in config.to.iter().enumerate() {
            let (first, count) = (to.port(), config.ports.len());
            if first == 0 {
                return invalid(
                    &format!("to[{place}]"),
                    format!("there is no port 0 (write {}:80 or the like)", to.ip()),
                );
            }
            if u32::from(first) + count - 1 > u32::from(u16::MAX) {
                let message = format!(
                    "{} are {count} ports, and from {first} to 65535 there are {}",
                    config.ports,
                    u32::from(u16::MAX - first) + 1
                );
                return invalid(&format!("to[{place}]"), message);
            }
        }
        for port in config.ports.first..=config.ports.last {
            let external = Endpoint { protocol, address: config.outside, port };
            let mut servers = Vec::new();
            for to in &config.to {
                let port = to.port() + (port - config.ports.first);
                let server = Endpoint { protocol, address: *to.ip(), port };
                if by_server.insert(server, external).is_some() {
                    // Its own packets could not be told from each other's.
                    return invalid("to", format!("{}:{port} has an external port already", to.ip()));
                }
                servers.push(server);
            }
            if by_external.insert(external, servers).is_some() {
                return invalid("ports", format!("{}:{port} leads to other servers already", config.outside));
            }
        }
    }
    Ok((by_external, by_server))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::Function as _;

    #[test]
    fn addresses_are_found_in_the_prefixes_that_have_them() {
        for (prefixes, holes, expected) in [
            (&[][..], &[][..], &[][..]),
            (&["10.0.0.4/30"], &[], &[4..=7]),
            (&["10.0.0.4/30", "10.0.0.0/30"], &[], &[0..=7]),
            (&["10.0.0.8/31", "10.0.0.0/29", "10.0.0.2", "10.0.0.0", "10.0.0.8/31"], &[], &[0..=9]),
            (&["10.0.0.0/28", "10.0.0.0/30", "10.0.0.12/30", "10.0.0.20"], &[], &[0..=15, 20..=20]),
            // Holes at an end, beside each other, twice, outside, and one that takes all.
            (&["10.0.0.0/29", "10.0.0.16"], &[0, 3, 3, 4, 7, 9, 16], &[1..=2, 5..=6]),
            (&["10.0.0.4/30"], &[1, 8], &[4..=7]),
        ] {
            let prefixes: Vec<Prefix> = prefixes.iter().map(|text| text.parse().unwrap()).collect();
            let host = |number| Ipv4Addr::from_bits(0x0a00_0000 + number);
            let nets = Nets::new(&prefixes, "key").unwrap().without(holes.iter().copied().map(host));
            let found: Vec<u32> = (0..32).filter(|number| nets.contains(host(*number))).collect();
            let expected: Vec<u32> = expected.iter().cloned().flatten().collect();
            assert_eq!(found, expected, "{prefixes:?} without {holes:?}");
            assert_eq!(nets.is_empty(), expected.is_empty());
        }
        let every = Nets::new(&["0.0.0.0/0".parse().unwrap()], "key").unwrap();
        assert!([0, 1 << 31, u32::MAX].iter().all(|address| every.contains(Ipv4Addr::from_bits(*address))));
    }

    #[test]
    fn what_a_reload_ends_is_said() {
        let policy = |text: &str| crate::nat::Nat::new().policy(toml::from_str(text).unwrap()).unwrap();
        let drain = "in no pool any more (under draining they end by themselves)";
        let forward = |outside: &str, ports: &str| {
            let to = "192.168.1.1:80";
            format!(
                "forward = [{{ protocol = \"tcp\", outside = \"{outside}\", ports = \"{ports}\", to = [\"{to}\"] }}]"
            )
        };
        let pool = "[[pools]]\naddresses = [\"198.51.100.8/30\"]\ndraining = [\"198.51.100.20\"]";
        let running = policy(pool);
        for (text, expected) in [
            (pool.to_owned(), vec![]),
            (format!("exclude = [\"0.0.0.0/0\"]\n{pool}"), vec![]),
            // One may be drained, and stand in another pool.
            (
                "[[pools]]\naddresses = [\"198.51.100.20\"]\ndraining = [\"198.51.100.8/31\", \"198.51.100.10/31\"]"
                    .to_owned(),
                vec![],
            ),
            (
                "[[pools]]\naddresses = [\"198.51.100.8/30\"]".to_owned(),
                vec![format!("all sessions of 198.51.100.20, {drain}")],
            ),
            (
                "[[pools]]\naddresses = [\"198.51.100.9\"]".to_owned(),
                vec![format!("all sessions of 198.51.100.8 and 3 more, {drain}")],
            ),
            (format!("{}\n{pool}", forward("198.51.100.30", "80")), vec![]),
            (
                format!("{}\n{pool}", forward("198.51.100.9", "80-82")),
                vec!["what inside hosts have on 198.51.100.9:80 and 2 more, which leads to a server now".to_owned()],
            ),
        ] {
            assert_eq!(policy(&text).ends(&running), expected, "{text}");
            // What was there stays.
            assert_eq!(policy(&text).ends(&policy(&text)), [""; 0], "{text}");
        }
    }
}
