//! A packet in words, and what would become of it as the first one that an empty firewall sees.
//!
//! It is made into a frame and judged as the packets of a capture are, so that whatever the packet path asks of a frame is
//! asked of it too.

use super::config::State;
use super::explain::{Question, Why};
use super::packet::{is_error_v4, is_error_v6, look_at};
use super::policy::Policy;
use super::reasons::NAMED;
use super::replay::Replay;
use super::rule::is_icmp;
use super::terms::{DscpTerm, FlagsTerm, IcmpTerm, InvalidTerm, ProtocolTerm, VlanTerm, protocol_name};
use nf_framework::headers::{Headers, IcmpType, Icmpv6Type, IpProtocol, TcpFlags};
use nf_framework::{Direction, IcmpMatch, Prefix, is_inside};
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// A packet that begins something, in words (its side as its source says, unless they name it):
/// `tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside`,
/// `icmp 10.0.0.5 > 198.51.100.7 echo-request`, `udp [2001:db8::1]:53 > [2001:db8::2]:53 from outside dscp ef`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Described {
    protocol: IpProtocol,
    source: IpAddr,
    destination: IpAddr,
    /// Of TCP and UDP.
    ports: Option<(u16, u16)>,
    /// Of TCP.
    flags: TcpFlags,
    /// Of ICMP, type and code.
    icmp: Option<(u8, u8)>,
    direction: Direction,
    /// Why it is taken to come from that side, if nobody has said so.
    taken: Option<String>,
    dscp: u8,
    vlan: u16,
    /// It is the first one of a longer packet.
    fragment: bool,
    /// It is an ICMP error about a live connection.
    related: bool,
}

impl Described {
    /// Whether there is such a packet; why not otherwise.
    fn check(&self) -> Result<(), String> {
        let name = protocol_name(self.protocol);
        if self.related && !self.is_error() {
            return Err(format!("{name} is not related to a connection: ICMP errors are, such as 3/1 related"));
        }
        if self.source.is_ipv6() && self.protocol.is_ipv6_extension() {
            return Err(format!(
                "{name} is an extension header of IPv6, behind which a protocol stands: name that one"
            ));
        }
        Ok(())
    }

    /// The same packet, with the side that its source says, unless it was written: addresses in these prefixes are
    /// inside; private ones, if there are none.
    #[must_use]
    pub fn seen_from(mut self, inside: &[Prefix]) -> Self {
        if self.taken.is_some() {
            self.take_side(inside);
        }
        self
    }

    /// From which side the packet is taken to come, and why, if that was not written.
    #[must_use]
    pub fn taken_from(&self) -> Option<String> {
        self.taken.clone()
    }

    fn take_side(&mut self, inside: &[Prefix]) {
        let (source, is) = (self.source, is_inside(self.source, inside));
        self.direction = if is { Direction::Outbound } else { Direction::Inbound };
        let not = if is { "" } else { "not " };
        let why =
            if inside.is_empty() { format!("{not}a private address") } else { format!("{not}among those inside") };
        let side = if is { "inside" } else { "outside" };
        let message =
            format!("taken to come from {side}, as {source} is {why} (write \"from inside\" or \"from outside\")");
        self.taken = Some(message);
    }
}

/// What is not a description of a packet, and what is missing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{problem} (write, for example, \"tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside\")")]
pub struct InvalidDescription {
    problem: String,
}

impl FromStr for Described {
    type Err = InvalidDescription;

    fn from_str(text: &str) -> Result<Self, InvalidDescription> {
        let wrong = |problem: String| InvalidDescription { problem };
        let mut words = text.split_whitespace();
        let mut next = |what: &str| words.next().ok_or_else(|| wrong(format!("{what} is missing")));
        let term: ProtocolTerm =
            next("the protocol")?.parse().map_err(|error: InvalidTerm| wrong(error.to_string()))?;
        let protocol = term.0;
        let has_ports = [IpProtocol::TCP, IpProtocol::UDP].contains(&protocol);
        let source = end(next("the source")?, has_ports)?;
        if next("the \">\" between source and destination")? != ">" {
            return Err(wrong("the \">\" between source and destination is missing".to_owned()));
        }
        let destination = end(next("the destination")?, has_ports)?;
        if source.0.is_ipv4() != destination.0.is_ipv4() {
            return Err(wrong(format!("{} and {} are of two families", source.0, destination.0)));
        }
        let is_icmp = is_icmp(protocol);
        let mut described = Self {
            protocol,
            source: source.0,
            destination: destination.0,
            ports: has_ports.then_some((source.1, destination.1)),
            flags: TcpFlags::SYN,
            icmp: is_icmp.then_some(if protocol == IpProtocol::ICMP { (8, 0) } else { (128, 0) }),
            direction: Direction::Outbound,
            taken: None,
            dscp: 0,
            vlan: 0,
            fragment: false,
            related: false,
        };
        described.take_side(&[]);
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| wrong(format!("what follows {word:?} is missing")));
            match word {
                "from" => {
                    described.taken = None;
                    described.direction = match value()? {
                        "inside" => Direction::Outbound,
                        "outside" => Direction::Inbound,
                        side => return Err(wrong(format!("{side:?} is no side: inside or outside"))),
                    }
                }
                "dscp" => {
                    let parsed: Result<DscpTerm, _> = value()?.parse();
                    described.dscp = parsed.map_err(|error| wrong(error.to_string()))?.0;
                }
                "vlan" => {
                    let parsed: Result<VlanTerm, _> = value()?.parse();
                    described.vlan = parsed.map_err(|error| wrong(error.to_string()))?.0;
                }
                "flags" if protocol != IpProtocol::TCP => {
                    return Err(wrong(format!("{} has no TCP flags", protocol_name(protocol))));
                }
                "flags" => {
                    let parsed: Result<FlagsTerm, _> = value()?.replace(',', " ").parse();
                    described.flags = parsed.map_err(|error| wrong(error.to_string()))?.0.set;
                }
                "fragment" => described.fragment = true,
                "related" => described.related = true,
                _ if is_icmp => {
                    let parsed: Result<IcmpTerm, _> = word.parse();
                    let of = parsed.map_err(|error| wrong(error.to_string()))?.of(protocol);
                    let Some(IcmpMatch { types, codes }) = of else {
                        return Err(wrong(format!("{} has no type {word}", protocol_name(protocol))));
                    };
                    described.icmp = Some((*types.start(), *codes.start()));
                }
                _ => return Err(wrong(format!("{word:?} says nothing: from, vlan, dscp, flags, fragment or related"))),
            }
        }
        described.check().map_err(wrong)?;
        Ok(described)
    }
}

/// An address with a port, if there is to be one; that of IPv6 stands in brackets then.
fn end(text: &str, has_port: bool) -> Result<(IpAddr, u16), InvalidDescription> {
    let wrong = |what: &str| InvalidDescription { problem: format!("{text:?} is not {what}") };
    if !has_port {
        return text.parse().map(|address| (address, 0)).map_err(|_| wrong("an address"));
    }
    let socket: Result<SocketAddr, _> = text.parse();
    let socket = socket.map_err(|_| wrong("an address with a port, as in 10.0.0.5:4321 or [2001:db8::1]:4321"))?;
    Ok((socket.ip(), socket.port()))
}

impl Described {
    /// Whether it is an ICMP message of its family, and which.
    fn message(&self) -> Option<(u8, u8)> {
        let own = if self.source.is_ipv4() { IpProtocol::ICMP } else { IpProtocol::ICMPV6 };
        self.icmp.filter(|_| self.protocol == own)
    }

    /// Whether it is an error about another packet.
    fn is_error(&self) -> bool {
        self.message().is_some_and(|(number, _)| match self.source {
            IpAddr::V4(_) => is_error_v4(IcmpType(number)),
            IpAddr::V6(_) => is_error_v6(Icmpv6Type(number)),
        })
    }

    /// The packet in a frame. What the words do not say of it is as a host on the link has it.
    fn frame(&self) -> Vec<u8> {
        let transport = self.transport();
        let (protocol, class) = (self.protocol.0, self.dscp << 2);
        let mut frame = vec![0; 12];
        if self.vlan != 0 {
            frame.extend([0x81, 0]);
            frame.extend(self.vlan.to_be_bytes());
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let [high, low] = length(20 + transport.len());
                let more = if self.fragment { 0x20 } else { 0 };
                frame.extend([8, 0, 0x45, class, high, low, 0, 1, more, 0, self.hops(), protocol, 0, 0]);
                frame.extend([source.octets(), destination.octets()].concat());
            }
            (source, destination) => {
                let part: &[u8] = if self.fragment { &[protocol, 0, 0, 1, 0, 0, 0, 1] } else { &[] };
                let next = if self.fragment { IpProtocol::IPV6_FRAGMENT.0 } else { protocol };
                let [high, low] = length(part.len() + transport.len());
                frame.extend([0x86, 0xdd, 0x60 | class >> 4, class << 4, 0, 0, high, low, next, self.hops()]);
                for address in [source, destination] {
                    if let IpAddr::V6(address) = address {
                        frame.extend(address.octets());
                    }
                }
                frame.extend(part);
            }
        }
        frame.extend(transport);
        if let Ok(mut headers) = Headers::parse(&mut frame) {
            headers.fill_checksums();
        }
        frame
    }

    /// Neighbor Discovery has not been on another link (RFC 4861 section 6.1), and Multicast Listener Discovery goes no
    /// further than one (RFC 2710 section 3).
    fn hops(&self) -> u8 {
        match self.message() {
            Some((133..=137, _)) if self.source.is_ipv6() => 255,
            Some((130..=132 | 143, _)) if self.source.is_ipv6() => 1,
            _ => 64,
        }
    }

    /// What stands behind the IP header.
    fn transport(&self) -> Vec<u8> {
        let [from, to] = self.ports.map_or([[0; 2]; 2], |(from, to)| [from, to].map(u16::to_be_bytes));
        let mut octets = [from, to].concat();
        match (self.protocol, self.message()) {
            (IpProtocol::TCP, _) => {
                octets.extend([0, 0, 0, 0, 0, 0, 0, 0, 0x50, self.flags.0, 0xff, 0xff, 0, 0, 0, 0]);
            }
            // Of a fragment the whole datagram's length; a checksum of 0 would be none.
            (IpProtocol::UDP, _) => octets.extend([0, if self.fragment { 64 } else { 8 }, 0xff, 0xff]),
            (_, Some((number, code))) => {
                octets = vec![number, code, 0, 0, 0, 0, 0, 0];
                if self.is_error() {
                    octets.extend(self.quoted());
                }
            }
            // As much as those begin with that have ports and are not known further.
            _ => octets.resize(16, 0),
        }
        if self.fragment {
            // Something is left for the later ones, and this one has whole units of 8.
            octets.resize((octets.len() + 1).next_multiple_of(8), 0);
        }
        octets
    }

    /// A packet that an error may be about: one that its receiver has sent.
    fn quoted(&self) -> Vec<u8> {
        let (source, destination) = (self.destination, self.source);
        let (protocol, ports, icmp) = (IpProtocol::UDP, Some((1, 1)), None);
        let (fragment, vlan) = (false, 0);
        Self { protocol, source, destination, ports, icmp, fragment, vlan, ..self.clone() }.frame().split_off(14)
    }
}

fn length(octets: usize) -> [u8; 2] {
    u16::try_from(octets).unwrap_or(u16::MAX).to_be_bytes()
}

impl Policy {
    /// What becomes of a packet that is the first one an empty firewall sees, and why.
    #[must_use]
    pub fn explain(&self, packet: &Described) -> Why {
        let mut replay = Replay::new(self);
        let seen = match look_at(&mut packet.frame(), None, None) {
            Ok(seen) => seen,
            Err(not_seen) => return replay.not_seen(not_seen),
        };
        let state = if packet.related { State::Related } else { State::New };
        let question = Question { seen: &seen, icmp: packet.message(), direction: packet.direction, state };
        let why = replay.judge(&question, (1, Duration::ZERO));
        if packet.is_error() && why.reason() == Some(NAMED.unrelated.name) {
            let why = "an ICMP error about nothing (write \"related\" for one about a live connection)";
            return Why::Dropped { reason: NAMED.unrelated.name, why };
        }
        why
    }
}
