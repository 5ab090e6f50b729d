//! What the rules say of the packets in a capture file, one after the other, with the connections that they
//! make: without DPDK, limits and full tables.

use super::capture_file::{self, CaptureFile, Captured, InvalidCapture};
use super::config::State;
use super::explain::{Question, Why, icmp_of};
use super::packet::{NotSeen, Seen, look_at};
use super::policy::Policy;
use super::replay::Replay;
use nf_framework::headers::{Headers, IpProtocol, Network, Transport};
use nf_framework::terms::protocol_name;
use nf_framework::{Direction, Ports, Prefix, is_inside};
use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What becomes of a captured packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explained {
    /// Its place in the file, from 1.
    pub number: usize,
    /// Since the first one.
    pub time: Duration,
    /// Protocol, ends and side.
    pub packet: String,
    /// Whether it passes.
    pub passes: bool,
    /// Why.
    pub why: Why,
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.why.to_string();
        // What speaks against rules stands behind what was decided.
        let (reasons, decision) = text.rsplit_once('\n').unwrap_or(("", &text));
        write!(f, "#{} {:.6} {}: {decision}", self.number, self.time.as_secs_f64(), self.packet)?;
        reasons.lines().try_for_each(|reason| write!(f, "\n  {reason}"))
    }
}

impl Policy {
    /// What becomes of the packets of a pcap or pcapng file. Those from these prefixes come from inside; from private
    /// addresses, if there are none. What the capture has cut off is judged by its headers, if they are there.
    ///
    /// # Errors
    ///
    /// When it is no such file, or a damaged one. One that breaks off is read as far as it goes, and the packet that is missing is said
    /// to be so.
    pub fn explain_capture(&self, capture: impl Read, inside: &[Prefix]) -> Result<Vec<Explained>, InvalidCapture> {
        let mut scene = Scene { replay: Replay::new(self), inside, fragments: HashMap::new() };
        let CaptureFile { packets, breaks_off } = capture_file::read(capture)?;
        let first = packets.first().map_or(Duration::ZERO, |packet| packet.time);
        let last = packets.last().map_or(Duration::ZERO, |packet| packet.time.saturating_sub(first));
        let explain = |(captured, number): (Captured, usize)| {
            let Captured { time, mut frame, missing } = captured;
            let time = time.saturating_sub(first);
            let (packet, why) = match missing {
                0 => scene.packet(&mut frame, (number, time)),
                _ => scene.cut_packet(frame, missing, (number, time)),
            };
            Explained { number, time, packet, passes: why.passes(), why }
        };
        let mut explained: Vec<Explained> = packets.into_iter().zip(1..).map(explain).collect();
        if breaks_off {
            let (number, packet) = (explained.len() + 1, "a packet".to_owned());
            let why = Why::Unknown("missing, as the file ends in the middle of it");
            explained.push(Explained { number, time: last, packet, passes: false, why });
        }
        Ok(explained)
    }
}

/// The packets of a capture so far.
struct Scene<'a> {
    replay: Replay<'a>,
    inside: &'a [Prefix],
    /// What first fragments have said, by addresses, protocol and identification.
    fragments: HashMap<(IpAddr, IpAddr, IpProtocol, u32), Ports>,
}

fn cut_off() -> (String, Why) {
    let why = "cut off by the capture before its headers end (tcpdump takes all of a packet unless told -s)";
    ("a packet".to_owned(), Why::Unknown(why))
}

/// How many octets of a frame the verdict takes.
fn header_octets(headers: &Headers<'_>) -> usize {
    let network = match &headers.network {
        Network::Arp(_) => 28,
        Network::Ipv4 { options, .. } => 20 + options.len(),
        Network::Ipv6 { extensions, .. } => 40 + extensions.len(),
        Network::Other(_) => 0,
    };
    // Of an ICMP message what it may quote: a header with its options, and behind it ports and sequence number.
    let quoted = headers.payload.len().min(68);
    let transport = match &headers.transport {
        Transport::Udp(_) => 8,
        Transport::Tcp { options, .. } => 20 + options.len(),
        Transport::Icmp(icmp) if icmp.message_type.has_identifier() => 8,
        Transport::Icmpv6(icmp) if icmp.message_type.has_identifier() => 8,
        Transport::Icmp(_) | Transport::Icmpv6(_) => 8 + quoted,
        Transport::Fragment(_) | Transport::Other(_) | Transport::None => 0,
    };
    14 + 4 * headers.vlan.len() + network + transport
}

impl Scene<'_> {
    /// As [`packet`](Self::packet), of a frame that has lost so many octets at its end.
    fn cut_packet(&mut self, mut frame: Vec<u8>, missing: usize, at: (usize, Duration)) -> (String, Why) {
        // Longer than any frame.
        const LONGEST: usize = 1 << 18;
        let captured = frame.len();
        frame.resize((captured + missing).min(LONGEST.max(captured)), 0);
        let Ok(mut headers) = Headers::parse(&mut frame) else { return cut_off() };
        if header_octets(&headers) > captured {
            return cut_off();
        }
        // They cannot be verified; what is in the place of the rest has others.
        headers.fill_checksums();
        let (packet, why) = self.packet(&mut frame, at);
        (packet + ", cut off by the capture", why)
    }

    /// What a packet is, in words, and what becomes of it.
    fn packet(&mut self, frame: &mut [u8], at: (usize, Duration)) -> (String, Why) {
        let beside = self.beside(frame);
        let seen = match look_at(frame, beside, None) {
            Ok(seen) => seen,
            Err(not_seen) => return (name_of(not_seen).to_owned(), self.replay.not_seen(not_seen)),
        };
        let direction = if is_inside(seen.source, self.inside) { Direction::Outbound } else { Direction::Inbound };
        let question = Question { seen: &seen, icmp: icmp_of(frame), direction, state: State::New };
        (words(&seen, direction), self.replay.judge(&question, at))
    }

    /// Of a fragment, what its first one has said.
    fn beside(&mut self, frame: &mut [u8]) -> Option<Ports> {
        let headers = Headers::parse(frame).ok()?;
        let fragment = headers.network.fragment()?;
        let (source, destination) = match &headers.network {
            Network::Ipv4 { header, .. } => (IpAddr::from(header.source), IpAddr::from(header.destination)),
            Network::Ipv6 { header, .. } => (header.source.into(), header.destination.into()),
            _ => return None,
        };
        let key = (source, destination, headers.transport.protocol()?, fragment.identification);
        let ports = match &headers.transport {
            Transport::Fragment(_) => return self.fragments.get(&key).copied(),
            Transport::Icmp(icmp) if icmp.message_type.has_identifier() => Ports::Identifier(icmp.identifier()),
            Transport::Icmpv6(icmp) if icmp.message_type.has_identifier() => Ports::Identifier(icmp.identifier()),
            transport => transport.ports().map_or(Ports::None, |(from, to)| Ports::Both(from, to)),
        };
        self.fragments.insert(key, ports);
        Some(ports)
    }
}

/// Protocol, ends and side.
fn words(seen: &Seen, direction: Direction) -> String {
    let end = |address, port: Option<u16>| match port {
        Some(port) => SocketAddr::new(address, port).to_string(),
        None => address.to_string(),
    };
    format!(
        "{} {} > {} from {}",
        protocol_name(seen.protocol),
        end(seen.source, seen.ports.map(|ports| ports.0)),
        end(seen.destination, seen.ports.map(|ports| ports.1)),
        if direction == Direction::Outbound { "inside" } else { "outside" }
    )
}

/// What is known of a packet that is not looked at further.
fn name_of(not_seen: NotSeen) -> &'static str {
    match not_seen {
        NotSeen::Arp => "arp",
        NotSeen::Other(_) => "no IP packet",
        NotSeen::Malformed => "malformed",
        NotSeen::Checksum | NotSeen::SourceRoute | NotSeen::Address => "a packet",
        NotSeen::Neighbours => "Neighbor Discovery",
        NotSeen::Error => "an ICMP error",
        NotSeen::Fragment => "a fragment",
    }
}
