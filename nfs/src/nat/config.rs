//! The table `[nat]` of a configuration file, as it stands there.

pub use crate::json_log::LogConfig;
use nf_framework::Prefix;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::str::FromStr;

/// The table `[nat]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Sessions that each worker has room for.
    #[serde(default = "usual_sessions")]
    pub sessions: usize,
    /// Inside hosts with sessions that each worker has room for.
    #[serde(default = "usual_subscribers")]
    pub subscribers: usize,
    /// External addresses; the first pool that fits a packet is taken.
    #[serde(default)]
    pub pools: Vec<PoolConfig>,
    /// External ports and identifiers that one inside host may have at once, RFC 6888 REQ-4; in each pool, so
    /// that who uses several has them several times.
    pub ports_per_subscriber: Option<u32>,
    /// Sessions that one inside host may have at once, in each pool.
    pub sessions_per_subscriber: Option<u32>,
    /// Who may answer, or begin to talk to, an inside host: RFC 4787 section 5, RFC 5382 section 4.3.
    #[serde(default)]
    pub filtering: FilteringConfig,
    /// Whether all external ports of an inside host are of one address, RFC 4787 REQ-2.
    #[serde(default)]
    pub pooling: Pooling,
    /// How external ports are chosen.
    #[serde(default)]
    pub port_selection: PortSelection,
    /// Whether a port below 1024 becomes one below 1024, RFC 4787 REQ-3 a.
    #[serde(default = "yes")]
    pub keep_range: bool,
    /// Whether an even port becomes an even one, RFC 4787 REQ-4; RFC 7857 section 9 prefers random ones.
    #[serde(default)]
    pub keep_parity: bool,
    /// What becomes of a TCP connection from outside that nobody inside waits for.
    #[serde(default)]
    pub unsolicited_syn: UnsolicitedSyn,
    /// The longest TCP segment that a connection may agree on, in bytes without headers; theirs unless
    /// given.
    pub mss: Option<u16>,
    /// What becomes of IPv6 packets.
    #[serde(default)]
    pub ipv6: Ipv6,
    /// Destinations to which packets from inside go untranslated, RFC 6888 REQ-6, 4096 prefixes at most; external
    /// addresses are never among them.
    #[serde(default)]
    pub exclude: Vec<Prefix>,
    /// Inside addresses with an outside address of their own.
    #[serde(default)]
    pub one_to_one: Vec<OneToOneConfig>,
    /// External ports that lead to inside servers.
    #[serde(default)]
    pub forward: Vec<ForwardConfig>,
    /// How long what is remembered.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// Where mappings are written down as they come and go; nowhere unless given.
    pub log: Option<LogConfig>,
}

/// `[[nat.pools]]`: addresses that inside hosts share.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolConfig {
    /// IPv4 prefixes or single addresses.
    pub addresses: Vec<Prefix>,
    /// Those of them that get no new mappings and keep the ones that they have. (An address that
    /// stands in neither list loses its mappings at once.)
    #[serde(default)]
    pub draining: Vec<Prefix>,
    /// The inside hosts that use this pool, 4096 prefixes at most; all unless given.
    #[serde(default)]
    pub subscribers: Vec<Prefix>,
    /// The destinations that it is used towards, 4096 prefixes at most; all unless given. So each outside interface can have
    /// a pool of its own, for the destinations that are routed there.
    #[serde(default)]
    pub to: Vec<Prefix>,
    /// Ports that are given out, for sources from 1024 on if `keep_range` is set.
    #[serde(default)]
    pub ports: PortRange,
}

/// `[nat.filtering]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilteringConfig {
    /// Of TCP.
    pub tcp: Filtering,
    /// Of UDP, and of ICMP queries.
    pub udp: Filtering,
}

/// Which outside hosts reach an inside host by its external port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filtering {
    /// All, as soon as it has sent anything from there: RFC 6888 REQ-7.
    #[default]
    EndpointIndependent,
    /// Those whose address it has sent to.
    AddressDependent,
    /// Those whose address and port it has sent to.
    AddressAndPortDependent,
}

/// Which external address a new mapping gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pooling {
    /// The one that its host has already.
    #[default]
    Paired,
    /// Any that has a port left, the host's own first.
    Arbitrary,
}

/// Which external port a new mapping gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PortSelection {
    /// One that nobody can guess, RFC 6056.
    #[default]
    Random,
    /// The inside port, if it is free.
    Preserve,
}

/// What becomes of a SYN from outside that nobody inside waits for: RFC 5382 REQ-4.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnsolicitedSyn {
    /// Its sender is told "port unreachable" after six seconds, unless the inside host has begun the
    /// same connection meanwhile.
    #[default]
    Refuse,
    /// It is dropped at once, without a word.
    Silent,
}

/// What becomes of IPv6 packets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ipv6 {
    /// They are dropped.
    #[default]
    Drop,
    /// They go on as they are, in both directions.
    Forward,
}

/// `[[nat.one_to_one]]`: all packets of an inside address, of whatever protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneToOneConfig {
    /// The inside address, or a prefix of them.
    pub inside: Prefix,
    /// The outside address, or a prefix of the same length.
    pub outside: Prefix,
}

/// `[[nat.forward]]`: an external port, or several, that lead to inside servers.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardConfig {
    /// Of TCP or of UDP.
    pub protocol: ForwardProtocol,
    /// The external address; it may be one of a pool.
    pub outside: Ipv4Addr,
    /// The external ports.
    pub ports: PortRange,
    /// The servers, 64 at most, each with the port that the first external one leads to; of several, one is
    /// chosen by the client's address and port.
    pub to: Vec<SocketAddrV4>,
}

/// The protocols that have ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ForwardProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// `[nat.timeouts]`, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// Of UDP: RFC 4787 REQ-5.
    pub udp: u32,
    /// Of a TCP connection that is not established yet: RFC 5382 REQ-5, RFC 7857 section 2.
    pub tcp_opening: u32,
    /// Of one that is: two hours and four minutes, RFC 5382 REQ-5.
    pub tcp_established: u32,
    /// Of one that was reset, or that both sides have ended: RFC 7857 section 2.2.
    pub tcp_closing: u32,
    /// Of ICMP queries: RFC 5508 REQ-2.
    pub icmp: u32,
    /// How long a port that was given back stays unused: RFC 6888 REQ-8.
    pub port_quiet: u16,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self { udp: 300, tcp_opening: 240, tcp_established: 7440, tcp_closing: 240, icmp: 60, port_quiet: 120 }
    }
}

fn usual_sessions() -> usize {
    1 << 16
}

fn usual_subscribers() -> usize {
    1 << 12
}

fn yes() -> bool {
    true
}

/// Ports from one to another, both included: `1024-65535`, or `80` alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortRange {
    /// The first, not 0.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

/// What is not a [`PortRange`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a range of ports: write \"1024-65535\", or \"80\" for one, from 1 to 65535")]
pub struct InvalidPortRange(String);

impl Default for PortRange {
    fn default() -> Self {
        Self { first: 1024, last: u16::MAX }
    }
}

impl PortRange {
    /// How many ports there are in it.
    #[must_use]
    pub fn len(self) -> u32 {
        u32::from(self.last) - u32::from(self.first) + 1
    }

    /// No range is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }
}

impl FromStr for PortRange {
    type Err = InvalidPortRange;

    fn from_str(text: &str) -> Result<Self, InvalidPortRange> {
        let invalid = || InvalidPortRange(text.to_owned());
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(invalid);
        let (first, last) = (port(first)?, port(last)?);
        if first <= last { Ok(Self { first, last }) } else { Err(invalid()) }
    }
}

impl<'de> Deserialize<'de> for PortRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(PortRangeVisitor)
    }
}

/// Says to whoever writes a number what a range looks like.
struct PortRangeVisitor;

impl Visitor<'_> for PortRangeVisitor {
    type Value = PortRange;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a range of ports in quotes (\"1024-65535\", or \"80\" for one)")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<PortRange, E> {
        text.parse().map_err(E::custom)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}
