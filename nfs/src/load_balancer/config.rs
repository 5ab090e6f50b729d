//! The table `[load-balancer]` of a configuration file, as it stands there.

use super::health::HealthConfig;
use crate::nat::PortRange;
use nf_framework::Prefix;
use serde::de::{Unexpected, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

/// The table `[load-balancer]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Connections of IPv4 that each worker has room for.
    #[serde(default = "usual_connections")]
    pub connections: usize,
    /// Connections of IPv6 that each worker has room for.
    #[serde(default = "usual_connections_ipv6")]
    pub connections_ipv6: usize,
    /// New flows that each worker remembers in a second; as many again of those that do not begin with a SYN.
    /// What is more goes by the table of its service, and is dropped where it would need a port or an address.
    #[serde(default = "usual_insertions")]
    pub insertions_per_second: u32,
    /// Places in the table of a service, a prime: more than a hundred for each backend keep the load even.
    #[serde(default = "usual_table_size")]
    pub table_size: u32,
    /// What flows and backends are hashed with: the same on all instances that are to agree.
    #[serde(default)]
    pub hash_seed: u64,
    /// Where packets in tunnels come from, a prefix of each family: an address in it for each flow, so that receivers
    /// spread them over their queues.
    #[serde(default)]
    pub tunnel_sources: Vec<Prefix>,
    /// The port that GUE goes to.
    #[serde(default = "usual_gue_port")]
    pub gue_port: u16,
    /// Where connections to backends come from in mode `full-nat`.
    #[serde(default)]
    pub source_addresses: Vec<IpAddr>,
    /// Where health checks come from, one of each family.
    #[serde(default)]
    pub probe_addresses: Vec<IpAddr>,
    /// How long what is remembered.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
    /// What is balanced.
    pub services: Vec<ServiceConfig>,
}

/// `[load-balancer.timeouts]`, in seconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// Of a TCP connection of which only SYNs were seen, or one packet; in the modes that translate, until its backend
    /// answers.
    pub syn: u32,
    /// Of one that goes on.
    pub established: u32,
    /// Of one that was reset, or that its client has ended.
    pub closing: u32,
    /// Of UDP, and of protocols without connections.
    pub udp: u32,
}

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self { syn: 30, established: 900, closing: 60, udp: 120 }
    }
}

/// `[[load-balancer.services]]`: an address that stands for several backends.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// What it is called, in commands and messages.
    pub name: String,
    /// Where clients send to.
    pub address: IpAddr,
    /// The protocol.
    #[serde(default)]
    pub protocol: ServiceProtocol,
    /// The port, or a range of them; all unless given. A service of fewer ports goes before one of all.
    #[serde(default)]
    pub port: Option<ServicePorts>,
    /// How packets come to backends.
    pub mode: Mode,
    /// What decides which backend a new flow goes to.
    #[serde(default)]
    pub hash: Hash,
    /// What becomes of the connections of a backend that is down.
    #[serde(default)]
    pub on_backend_down: OnBackendDown,
    /// What becomes of new flows while no backend is ready.
    #[serde(default)]
    pub when_empty: WhenEmpty,
    /// Bytes of the largest IP packet that comes through to the backends, tunnel included.
    #[serde(default = "usual_mtu")]
    pub mtu: u16,
    /// What becomes of packets that are too big for the tunnel.
    #[serde(default)]
    pub too_big: TooBig,
    /// The differentiated services code point that stands for this address, of mode `dscp`.
    pub dscp: Option<u8>,
    /// Whether backends are told the client's address by PROXY protocol version 2; of mode `full-nat` and TCP.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// Who may get new flows.
    pub backends: Vec<BackendConfig>,
    /// How it is found out whether they are up; they always are unless given.
    pub health: Option<HealthConfig>,
}

/// `[[load-balancer.services.backends]]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendConfig {
    /// What it is called in commands and messages; its address unless given.
    pub name: Option<String>,
    /// Its own address.
    pub address: IpAddr,
    /// The port that it is sent to by the modes that translate; the service's unless given.
    pub port: Option<u16>,
    /// Its share of new flows, by that of the others; none with 0, and what it has goes on.
    #[serde(default = "one")]
    pub weight: u16,
    /// As of the service, for this backend alone.
    pub dscp: Option<u8>,
    /// What connection identifiers of QUIC name it by, in hexadecimal digits; all of a service are equally long.
    pub server_id: Option<ServerId>,
}

/// The protocol of a service.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// These; without a port all others but ICMP too.
    Any,
}

/// How packets come to backends.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// By the backend's MAC address: it is on a link of the router's, has the service's address and answers clients
    /// itself.
    Dsr,
    /// IP in IP (RFC 2003, RFC 2473, RFC 4213), of whatever families.
    Ipip,
    /// GRE (RFC 2784) in IPv4 or IPv6.
    Gre,
    /// Generic UDP encapsulation, variant 1: the packet follows the UDP header.
    Gue,
    /// To the backend's address, with a code point that tells it which one it was sent to.
    Dscp,
    /// The destination is translated; answers come back through here.
    Nat,
    /// Source and destination are; the backend needs no route of its own.
    FullNat,
}

impl Mode {
    /// Whether answers come back through here, by what is kept of each connection.
    pub(super) fn translates(self) -> bool {
        matches!(self, Self::Nat | Self::FullNat)
    }

    /// Whether packets go into a tunnel.
    pub(super) fn has_tunnel(self) -> bool {
        matches!(self, Self::Ipip | Self::Gre | Self::Gue)
    }
}

/// What decides which backend a new flow goes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hash {
    /// Addresses, ports and protocol.
    #[default]
    Tuple,
    /// The client's address: all its flows go to one backend.
    Source,
    /// The port that the client sends to.
    DestinationPort,
    /// The server that a QUIC connection identifier names (RFC 9000); where none is named, as `tuple`.
    Quic,
}

/// What becomes of the connections of a backend that is down.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnBackendDown {
    /// They go on with another one, which for UDP is a new beginning, and resets TCP; in mode `full-nat` it is reset from
    /// here.
    #[default]
    Move,
    /// Their packets are dropped, unless it comes back before they have expired.
    Drop,
}

/// What becomes of new flows while no backend is ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenEmpty {
    /// Their senders are told that nobody listens.
    #[default]
    Refuse,
    /// They are dropped without a word.
    Drop,
    /// As `drop`, and while no backend of any service with this address is up the router does not answer for it, so
    /// that another instance may.
    Withdraw,
}

/// What becomes of packets that are too big for a tunnel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooBig {
    /// Their senders are told how big they may be, and they are dropped.
    #[default]
    Tell,
    /// Where the tunnel is of IPv4, it is split by the router; else as `tell`.
    Fragment,
}

fn usual_connections() -> usize {
    1 << 20
}

fn usual_connections_ipv6() -> usize {
    1 << 18
}

fn usual_insertions() -> u32 {
    500_000
}

fn usual_table_size() -> u32 {
    65_537
}

fn usual_gue_port() -> u16 {
    6080
}

pub(super) fn usual_mtu() -> u16 {
    1500
}

fn one() -> u16 {
    1
}

/// Ports of a service: `443`, or `"8000-8999"`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServicePorts {
    /// The first, not 0.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl<'de> Deserialize<'de> for ServicePorts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PortsVisitor)
    }
}

struct PortsVisitor;

impl Visitor<'_> for PortsVisitor {
    type Value = ServicePorts;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port (443) or a range of ports in quotes (\"8000-8999\")")
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<ServicePorts, E> {
        let port = u16::try_from(number).ok().filter(|port| *port > 0);
        let port = port.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))?;
        Ok(ServicePorts { first: port, last: port })
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<ServicePorts, E> {
        let PortRange { first, last } = text.parse().map_err(E::custom)?;
        Ok(ServicePorts { first, last })
    }
}

/// The octets that a QUIC connection identifier names a backend by: 1 to 15 of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ServerId {
    octets: [u8; Self::MOST],
    length: u8,
}

/// What is not a [`ServerId`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0:?} is not a server id: write 2 to 30 hexadecimal digits, two for each octet")]
pub struct InvalidServerId(String);

impl ServerId {
    /// Octets that there may be: with the one before it and one behind, an identifier has 20 at most (RFC 9000 section
    /// 17.2).
    pub const MOST: usize = 15;

    /// Of these octets; nothing if there are none, or too many.
    #[must_use]
    pub fn new(from: &[u8]) -> Option<Self> {
        let mut octets = [0; Self::MOST];
        octets.get_mut(..from.len())?.copy_from_slice(from);
        let length = u8::try_from(from.len()).ok().filter(|length| *length > 0)?;
        Some(Self { octets, length })
    }

    /// How many octets.
    #[must_use]
    pub fn len(self) -> usize {
        self.length.into()
    }

    /// None is empty.
    #[must_use]
    pub fn is_empty(self) -> bool {
        false
    }
}

impl FromStr for ServerId {
    type Err = InvalidServerId;

    fn from_str(text: &str) -> Result<Self, InvalidServerId> {
        let invalid = || InvalidServerId(text.to_owned());
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        let octets: Option<Vec<u8>> = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
        let octets = octets.filter(|_| rest.is_empty()).ok_or_else(invalid)?;
        Self::new(&octets).ok_or_else(invalid)
    }
}

impl<'de> Deserialize<'de> for ServerId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_id_is_an_even_number_of_digits_and_not_too_many() {
        for (text, expected) in [
            ("0a", Some(&[10][..])),
            ("00FFc0", Some(&[0, 255, 0xc0])),
            ("000102030405060708090a0b0c0d0e", Some(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14])),
            ("", None),
            ("0", None),
            ("0g", None),
            ("+1", None),
            ("000102030405060708090a0b0c0d0e0f", None),
        ] {
            let expected = expected.and_then(ServerId::new).ok_or_else(|| InvalidServerId(text.to_owned()));
            assert_eq!(text.parse(), expected, "{text}");
        }
    }

    #[test]
    fn ports_are_a_number_or_a_range() {
        #[derive(Deserialize)]
        struct One {
            port: ServicePorts,
        }
        for (text, expected) in [
            ("443", Ok((443, 443))),
            ("\"443\"", Ok((443, 443))),
            ("\"8000-8999\"", Ok((8000, 8999))),
            ("0", Err("invalid value: integer `0`, expected a port (443)")),
            ("65536", Err("invalid value: integer `65536`")),
            ("\"9-8\"", Err("\"9-8\" is not a range of ports")),
        ] {
            let found = toml::from_str::<One>(&format!("port = {text}"));
            match (found, expected) {
                (Ok(One { port }), Ok(expected)) => assert_eq!((port.first, port.last), expected, "{text}"),
                (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{error}"),
                (found, _) => panic!("{text}: {:?}", found.map(|one| one.port)),
            }
        }
    }
}
