//! What stands around the NAT: links, the router's two halves, virtual reassembly; and a burst's way
//! through all of it.

use crate::nat_model::bytes::{
    Change, ETHERNET, ICMP, Ip, TCP, checksum, fill_checksums, fill_header_checksum, rewrite,
};
use crate::nat_model::fragments::{Fragments, Ports};
use crate::nat_model::model::{Model, SessionKey, Verdict};
use crate::nat_model::seen::{Seen, is_error, number};
use crate::nat_model::setting::{Prefix, contains};
use crate::nat_model::{Nanoseconds, Side};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Stations: the router's, and the one on each link that everything goes through.
pub(crate) const ROUTER: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 1], [2, 0, 0, 0, 1, 2]];
pub(crate) const NEXT: [[u8; 6]; 2] = [[0x02, 0, 0, 0, 0, 0x11], [0x02, 0, 0, 0, 0, 0x22]];
/// The router's addresses.
pub(crate) const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1)];
pub(crate) const NEXT_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 2, 9), Ipv4Addr::new(198, 51, 100, 9)];
/// Where inside hosts are.
pub(crate) const INSIDE: Prefix = (Ipv4Addr::new(10, 0, 0, 0), 8);

/// The router's configuration; no limit of ICMP errors binds.
pub(crate) const CONFIGURATION: &str = r#"
icmp_errors_per_second = 1000000
neighbours = { reachable_seconds = 3600, unused_seconds = 86400 }

[interfaces.lan]
side = "inside"
addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]

[interfaces.wan]
side = "outside"
addresses = ["198.51.100.1/24", "2001:db8:2::1/64"]

[[routes]]
to = "10.0.0.0/8"
via = "192.0.2.9"

[[routes]]
to = "0.0.0.0/0"
via = "198.51.100.9"

[[routes]]
to = "2001:db8:9::/48"
via = "2001:db8:2::9"

[[routes]]
to = "2001:db8:8::/48"
via = "2001:db8:1::9"
"#;

fn at(side: Side) -> usize {
    usize::from(side == Side::Outside)
}

/// What is to become of a burst, or of time that passes.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// Frames, in order on each side.
    pub(crate) frames: Vec<(Side, Vec<u8>)>,
    /// Drops, each under one of several reasons; mostly there is only one.
    pub(crate) dropped: Vec<Vec<&'static str>>,
    /// Whether all that left did so in the order of its arrival.
    pub(crate) in_order: bool,
}

/// A packet on its way.
#[derive(Clone, Debug)]
struct Packet {
    bytes: Vec<u8>,
    of_fragment: Ports,
    /// Whether its hops have been counted.
    counted: bool,
}

/// A packet that goes on when the rest of its burst has gone.
#[derive(Debug)]
struct Pending {
    packet: Packet,
    /// From which side it meets the NAT.
    from: Side,
    /// As it was sent, if it has turned.
    turned: Option<Vec<u8>>,
    /// Nobody knows yet what it was translated to.
    unforeseen: bool,
}

pub(crate) struct World {
    pub(crate) nat: Model,
    pub(crate) fragments: Fragments,
    pub(crate) now: Nanoseconds,
}

/// Where a packet is routed to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    To(Side),
    /// To an address of the NAT.
    Nat,
}

impl World {
    pub(crate) fn new(nat: Model) -> Self {
        Self { nat, fragments: Fragments::default(), now: 0 }
    }

    pub(crate) fn held(&self) -> usize {
        self.nat.held() + self.fragments.held()
    }

    fn way(&self, destination: Ipv4Addr) -> Way {
        if self.nat.setting.is_external(destination) {
            Way::Nat
        } else if contains(INSIDE, destination) || contains((OWN[0], 24), destination) {
            Way::To(Side::Inside)
        } else {
            Way::To(Side::Outside)
        }
    }

    /// A burst that comes in from this side.
    pub(crate) fn burst(&mut self, side: Side, frames: &[Vec<u8>], seen: &Seen) -> Expected {
        let mut expected = Expected { in_order: true, ..Expected::default() };
        let mut pending = Vec::new();
        for frame in frames {
            for packet in self.arrive(side, frame, &mut expected) {
                if let Some(packet) = self.route(side, packet, &mut expected) {
                    self.pass(packet, side, None, seen, &mut expected, &mut pending);
                }
            }
        }
        // What has turned, and errors of the router's second half, go behind the burst.
        while !pending.is_empty() {
            expected.in_order = false;
            for Pending { packet, from, turned, unforeseen } in std::mem::take(&mut pending) {
                if unforeseen {
                    accept(&packet, seen, &mut expected);
                } else {
                    self.pass(packet, from, turned, seen, &mut expected, &mut pending);
                }
            }
        }
        self.nat.burst_is_over();
        let cancelled = std::mem::take(&mut self.nat.cancelled);
        expected.dropped.extend(vec![vec!["nat-unsolicited-syn"]; cancelled]);
        expected
    }

    /// A frame is looked at: which packets set out by it, with what is known of fragments.
    fn arrive(&mut self, side: Side, frame: &[u8], expected: &mut Expected) -> Vec<Packet> {
        let whole = |bytes: &[u8]| Packet { bytes: bytes.to_vec(), of_fragment: None, counted: false };
        let Some(ether_type) = frame.get(12..ETHERNET) else {
            expected.dropped.push(vec!["malformed"]);
            return Vec::new();
        };
        let packet = &frame[ETHERNET..];
        match ether_type {
            [0x08, 0x00] => {
                let looked = self.fragments.look_at(side, packet, self.now);
                expected.dropped.extend(looked.dropped.iter().map(|reason| vec![*reason]));
                let packets = looked.on.into_iter();
                packets.map(|(bytes, ports)| Packet { of_fragment: ports, ..whole(&bytes) }).collect()
            }
            [0x86, 0xdd] if self.nat.setting.forward_ipv6 => {
                let mut packet = packet.to_vec();
                packet[7] -= 1;
                expected.frames.push((side.other(), framed(side.other(), [0x86, 0xdd], &packet)));
                Vec::new()
            }
            [0x86, 0xdd] => {
                expected.dropped.push(vec!["nat-ipv6"]);
                Vec::new()
            }
            _ => {
                expected.dropped.push(vec!["not-ip"]);
                Vec::new()
            }
        }
    }

    /// The router's first half.
    fn route(&mut self, side: Side, mut packet: Packet, expected: &mut Expected) -> Option<Packet> {
        let mut drop = |reason| {
            expected.dropped.push(vec![reason]);
            None
        };
        let Some(ip) = Ip::read(&packet.bytes) else { return drop("malformed") };
        if checksum(&packet.bytes[..ip.header]) != 0 {
            return drop("bad-checksum");
        }
        match self.way(ip.destination) {
            Way::Nat => {}
            Way::To(to) if to == side => return drop("same-side"),
            Way::To(_) => {
                if !count_down(&mut packet) {
                    expected.dropped.push(vec!["ttl-expired"]);
                    if let Some(error) = error(11, 0, OWN[at(side)], ip.source, &packet) {
                        expected.in_order = false;
                        expected.frames.push((side, framed(side, [8, 0], &error)));
                    }
                    return None;
                }
            }
        }
        Some(packet)
    }

    /// Through the NAT, from this side, and the router's second half.
    fn pass(
        &mut self,
        packet: Packet,
        from: Side,
        turned: Option<Vec<u8>>,
        seen: &Seen,
        expected: &mut Expected,
        pending: &mut Vec<Pending>,
    ) {
        let Packet { of_fragment, counted, .. } = packet;
        let verdict = match from {
            Side::Inside => self.nat.outbound(&packet.bytes, of_fragment, seen),
            Side::Outside => self.nat.inbound(&packet.bytes, of_fragment, turned.is_some(), seen),
        };
        match verdict {
            Verdict::Pass(bytes) => {
                let packet = Packet { bytes, of_fragment, counted };
                self.leave(packet, from, expected, pending);
            }
            Verdict::Turn(_) if turned.is_some() => expected.dropped.push(vec!["turned-twice"]),
            Verdict::Turn(bytes) => {
                // Its ports are those of after the translation.
                let translated = of_fragment.map(|ports| self.turned_ports(&packet, ports));
                let unforeseen = translated == Some(None);
                let turned = Some(packet.bytes);
                let packet = Packet { bytes, of_fragment: translated.flatten(), counted };
                pending.push(Pending { packet, from: from.other(), turned, unforeseen });
            }
            Verdict::Drop(reasons) => expected.dropped.push(reasons),
            Verdict::Refuse(reasons) => {
                expected.dropped.push(reasons);
                let source = Ip::read(&packet.bytes).map(|ip| ip.source);
                if let Some(source) = source
                    && let Some(error) = error(3, 13, OWN[at(from)], source, &packet)
                {
                    expected.in_order = false;
                    expected.frames.push((from, framed(from, [8, 0], &error)));
                }
            }
            Verdict::Hold => self.nat.note_sent(turned),
        }
    }

    /// The ports of a fragment that turned: the source is the external one. Nothing if nobody knows that.
    fn turned_ports(&self, packet: &Packet, ports: (u16, u16)) -> Ports {
        let ip = Ip::read(&packet.bytes)?;
        let icmp = ip.protocol == ICMP;
        let key = (ip.protocol, (ip.source, ports.0), (ip.destination, if icmp { 0 } else { ports.1 }));
        let external = self.nat.external_of(&key);
        let external = external.or_else(|| self.nat.setting.external_of_server(ip.protocol, (ip.source, ports.0)));
        if self.nat.setting.outside_of(ip.source).is_some() || ip.offset == 0 {
            return Some(ports);
        }
        let port = external?.1;
        Some(if icmp { (port, port) } else { (port, ports.1) })
    }

    /// The router's second half.
    fn leave(&mut self, mut packet: Packet, from: Side, expected: &mut Expected, pending: &mut Vec<Pending>) {
        let ip = Ip::read(&packet.bytes).expect("it has been routed");
        let to = match self.way(ip.destination) {
            Way::To(to) if to == from.other() => to,
            _ => return expected.dropped.push(vec!["same-side"]),
        };
        if !packet.counted && !count_down(&mut packet) {
            expected.dropped.push(vec!["ttl-expired"]);
            if let Some(bytes) = error(11, 0, OWN[at(from)], ip.source, &packet) {
                let packet = Packet { bytes, of_fragment: None, counted: true };
                pending.push(Pending { packet, from: to, turned: None, unforeseen: false });
            }
            return;
        }
        expected.frames.push((to, framed(to, [8, 0], &packet.bytes)));
    }

    /// Time passes, up to this moment.
    pub(crate) fn advance(&mut self, now: Nanoseconds, seen: &Seen) -> Expected {
        self.now = now;
        let mut expected = Expected::default();
        let expired = self.fragments.expire(now);
        expected.dropped.extend(vec![vec!["fragment-expired"]; expired]);
        let before: BTreeSet<_> = self.nat.sessions.keys().copied().collect();
        for released in self.nat.tick(now) {
            expected.dropped.push(vec!["nat-unsolicited-syn"]);
            let Some((bytes, from, sent)) = released.answer else { continue };
            let packet = Packet { bytes, of_fragment: None, counted: false };
            let Some(ip) = Ip::read(&packet.bytes) else { continue };
            if let Some(sent) = sent {
                self.answer_inside(&packet, &sent, from, &before, seen, &mut expected);
            } else if let Some(bytes) = error(3, 3, from, ip.source, &packet) {
                expected.frames.push((Side::Outside, framed(Side::Outside, [8, 0], &bytes)));
            }
        }
        expected
    }

    /// A SYN that turned is answered: its sender hears about what it sent, if the NAT knows it still.
    fn answer_inside(
        &mut self,
        packet: &Packet,
        sent: &[u8],
        from: Ipv4Addr,
        before: &BTreeSet<SessionKey>,
        seen: &Seen,
        expected: &mut Expected,
    ) {
        let serial = number(sent).map_or(0, |(serial, _)| serial);
        let ip = Ip::read(sent).expect("it was routed");
        let port = |at| u16::from_be_bytes([sent[ip.header + at], sent[ip.header + at + 1]]);
        let inside = (ip.source, port(0));
        let key = (TCP, inside, (ip.destination, port(2)));
        let setting = &self.nat.setting;
        let is_static = setting.outside_of(inside.0).is_some() || setting.external_of_server(TCP, inside).is_some();
        let told = seen.refusal(serial);
        // It may have ended in this time, before the answer or after it; or unseen, and another has its port.
        if !is_static && self.nat.sessions.get(&key).is_none_or(|session| session.doubtful) {
            match told {
                Some((side, bytes)) if before.contains(&key) => {
                    expected.frames.push((*side, framed(*side, [8, 0], bytes)));
                }
                _ => expected.dropped.push(vec!["nat-no-mapping"]),
            }
            return;
        }
        // All but the source is as the NAT has changed it; a new identification nobody has seen before.
        let identification = told.and_then(|(_, bytes)| {
            let quoted = &bytes[Ip::read(bytes)?.header + 8..];
            Some(u16::from_be_bytes([quoted[4], quoted[5]]))
        });
        let mut bytes = packet.bytes.clone();
        let identification = identification.filter(|_| !ip.is_atomic());
        let (source, source_port) = (Some(inside.0), Some(inside.1));
        rewrite(&mut bytes, Change { source, source_port, identification, ..Change::default() });
        let packet = Packet { bytes, of_fragment: None, counted: false };
        if let Some(bytes) = error(3, 3, from, inside.0, &packet) {
            expected.frames.push((Side::Inside, framed(Side::Inside, [8, 0], &bytes)));
            self.nat.count("turned SYNs answered");
        }
    }
}

/// Whatever became of it is right.
fn accept(packet: &Packet, seen: &Seen, expected: &mut Expected) {
    match number(&packet.bytes).and_then(|(serial, _)| seen.on(serial)) {
        Some((side, bytes)) => expected.frames.push((*side, framed(*side, [8, 0], bytes))),
        None => expected.dropped.push(vec!["nat-no-mapping", "nat-filtered"]),
    }
}

fn framed(to: Side, ether_type: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&NEXT[at(to)][..], &ROUTER[at(to)], &ether_type, packet].concat()
}

/// False if there is no hop left.
fn count_down(packet: &mut Packet) -> bool {
    if packet.bytes[8] <= 1 {
        return false;
    }
    packet.bytes[8] -= 1;
    fill_header_checksum(&mut packet.bytes);
    packet.counted = true;
    true
}

/// An ICMP error of the router's or the NAT's about a packet as it was sent; nothing if there may be
/// none: RFC 1812 section 4.3.2.7.
fn error(kind: u8, code: u8, from: Ipv4Addr, to: Ipv4Addr, about: &Packet) -> Option<Vec<u8>> {
    let ip = Ip::read(&about.bytes)?;
    let of_error = ip.protocol == ICMP && about.bytes.get(ip.header).is_none_or(|kind| is_error(*kind));
    if ip.offset != 0 || of_error {
        return None;
    }
    let mut quoted = about.bytes[..ip.length.min(576 - 28)].to_vec();
    if about.counted {
        quoted[8] += 1;
        fill_header_checksum(&mut quoted);
    }
    let length = u16::try_from(28 + quoted.len()).ok()?;
    let mut packet = vec![0x45, 0xc0];
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, ICMP, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend([kind, code, 0, 0, 0, 0, 0, 0]);
    packet.extend(quoted);
    fill_checksums(&mut packet);
    Some(packet)
}

/// How many of each.
pub(crate) fn tally<T: Ord + Clone>(of: &[T]) -> BTreeMap<T, usize> {
    let mut tally = BTreeMap::new();
    for each in of {
        *tally.entry(each.clone()).or_default() += 1;
    }
    tally
}
