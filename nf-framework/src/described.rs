//! A packet in words.
//!
//! It is made into a frame and judged as all frames are, so that whatever the packet path asks of a frame is asked of it too.

use crate::classifier::{IcmpMatch, Prefix};
use crate::direction::Direction;
use crate::headers::{Headers, IcmpType, Icmpv6Type, IpProtocol, TcpFlags};
use crate::offline::is_inside;
use crate::terms::{DscpTerm, FlagsTerm, IcmpTerm, InvalidTerm, ProtocolTerm, VlanTerm, protocol_name};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

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

const EXAMPLE: &str = "tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside";

/// What is not a description of a packet, and what is missing.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{problem} (write, for example, {EXAMPLE:?})")]
pub struct InvalidDescription {
    problem: String,
}

/// What `--explain` is asked about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AskedPackets {
    /// A packet in words.
    Described(Described),
    /// Those of this capture file.
    Capture(PathBuf),
}

/// Why there are no packets to say something of.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoPackets {
    /// It is several words, and they describe no packet.
    #[error(transparent)]
    Description(#[from] InvalidDescription),
    /// It is one word, and no file.
    #[error("{0}: no such file, and no packet (write, for example, {EXAMPLE:?})")]
    Nothing(String),
    /// It is no file to read.
    #[error("{0}: this is a directory (name the capture file in it)")]
    Directory(String),
}

impl AskedPackets {
    /// The packets that a text means: a file's, if there is one of that name. The side of one in words is that which its
    /// source says, as of [`Described::seen_from`], unless it is written.
    ///
    /// # Errors
    ///
    /// [`NoPackets`]. What is in the file is not looked at.
    pub fn new(text: &str, inside: &[Prefix]) -> Result<Self, NoPackets> {
        let path = Path::new(text);
        match () {
            () if path.is_dir() => Err(NoPackets::Directory(text.to_owned())),
            () if path.exists() => Ok(Self::Capture(path.to_owned())),
            () if text.split_whitespace().nth(1).is_none() => Err(NoPackets::Nothing(text.to_owned())),
            () => Ok(Self::Described(text.parse::<Described>()?.seen_from(inside))),
        }
    }
}

/// What may stand behind the addresses, beside an ICMP type.
const WORDS: [&str; 6] = ["from", "vlan", "dscp", "flags", "fragment", "related"];

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
        let is_icmp = [IpProtocol::ICMP, IpProtocol::ICMPV6].contains(&protocol);
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
        let mut said = Vec::new();
        while let Some(word) = words.next() {
            let what = if WORDS.contains(&word) { word } else { "the type" };
            if said.contains(&what) {
                return Err(wrong(format!("{what} is said twice")));
            }
            said.push(what);
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
                    let are_several = types.start() != types.end();
                    if are_several || codes.start() != codes.end() && codes != (0..=u8::MAX) {
                        let what = if are_several { "types" } else { "codes" };
                        return Err(wrong(format!("{word:?} names several {what}: a packet has one, as in 3/1")));
                    }
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
    /// The side that it comes from.
    #[must_use]
    pub fn direction(&self) -> Direction {
        self.direction
    }

    /// Whether it is said to be an error about a live connection.
    #[must_use]
    pub fn is_related(&self) -> bool {
        self.related
    }

    /// Of an ICMP message of its family, type and code.
    fn message(&self) -> Option<(u8, u8)> {
        let own = if self.source.is_ipv4() { IpProtocol::ICMP } else { IpProtocol::ICMPV6 };
        self.icmp.filter(|_| self.protocol == own)
    }

    /// Whether it is an ICMP error about another packet.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.message().is_some_and(|(number, _)| match self.source {
            IpAddr::V4(_) => IcmpType(number).is_error(),
            IpAddr::V6(_) => Icmpv6Type(number).is_error(),
        })
    }

    /// The packet in a frame. What the words do not say of it is as a host on the link has it; its MAC addresses are zeros.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
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
