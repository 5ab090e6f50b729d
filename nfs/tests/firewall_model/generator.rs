//! Traffic: mostly what hosts do, some of it at the edges of what they may, and some of what they should not.

use super::Side;
use super::bytes::{ICMP, ICMPV6, Ip, TCP, UDP, link};
use super::model::{Connection, End, Key, Model};
use super::random::Random;
use super::setting::{Action, Limit, Rule, Term};
use super::tcp::{ACK, FIN, Kind, PSH, RST, SYN, State, kind};
use nf_framework::testing::Frame;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) struct Generator {
    pub(crate) random: Random,
    identification: u32,
    /// Fragments that come later.
    late: [Vec<Vec<u8>>; 2],
}

const SERVICES: [u16; 5] = [22, 53, 80, 443, 8080];

fn at(side: Side) -> usize {
    usize::from(side == Side::Outside)
}

/// An address of this side by its number.
pub(crate) fn host(side: Side, six: bool, number: u8) -> IpAddr {
    match (side, six) {
        (Side::Inside, false) => Ipv4Addr::new(10, 0, 0, number).into(),
        (Side::Outside, false) => Ipv4Addr::new(192, 0, 2, number).into(),
        (Side::Inside, true) => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, number.into()).into(),
        (Side::Outside, true) => Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, number.into()).into(),
    }
}

fn ip(source: IpAddr, destination: IpAddr) -> Frame {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => Frame::new().ipv4(source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => Frame::new().ipv6(source, destination),
        _ => panic!("{source} and {destination} are of two families"),
    }
}

/// The tags of a connection; nothing if they are none of ours.
fn tagged(frame: Frame, tags: u32) -> Option<Frame> {
    match tags {
        0 => Some(frame),
        7 => Some(frame.vlan(7)),
        0x100_7008 => Some(frame.service_vlan(7).vlan(8)),
        0x100_0007 => Some(frame.service_vlan(3 << 13).vlan(7)),
        _ => None,
    }
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), identification: 0, late: [Vec::new(), Vec::new()] }
    }

    fn byte(&mut self, end: u64) -> u8 {
        u8::try_from(self.random.below(end)).expect("a few")
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        *self.random.pick(of).expect("there is one")
    }

    fn word(&mut self) -> u32 {
        let [a, b, c, d, ..] = self.random.next().to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// A burst, and the side that it comes in from.
    pub(crate) fn burst(&mut self, model: &Model) -> (Side, Vec<Vec<u8>>) {
        let side = if self.random.percent(50) { Side::Inside } else { Side::Outside };
        let length = match self.random.below(4) {
            _ if model.setting.counts() => 1,
            0 => 1,
            1 => 1 + self.random.index(4),
            2 => 1 + self.random.index(16),
            _ => 1 + self.random.index(56),
        };
        let mut frames = Vec::new();
        if self.random.percent(50) {
            let late = &mut self.late[at(side)];
            let some = late.len().min(4);
            frames.extend(late.drain(..some));
        }
        while frames.len() < length {
            frames.extend(self.some(side, model));
        }
        frames.retain(|frame| !is_ambiguous(frame, model));
        frames.truncate(64);
        (side, frames)
    }

    fn some(&mut self, side: Side, model: &Model) -> Vec<Vec<u8>> {
        if model.setting.has_cookies() && self.random.percent(20) {
            return self.returning(side, model).map(|frame| self.finish(side, frame)).unwrap_or_default();
        }
        let frame = match self.random.below(100) {
            0..58 => self.on_some_connection(side, model),
            58..78 => Some(self.beginning(side)),
            78..86 => self.error(side, model),
            86..88 => Some(self.message(side)),
            88..90 => Some(self.neighbours(side)),
            90..92 => return vec![self.no_ip()],
            92..96 => Some(self.odd(side)),
            _ => {
                let (source, destination) = self.hosts(side);
                let flags = self.flags();
                let frame = ip(source, destination).tcp(self.port(), self.one_of(&SERVICES)).flags(flags);
                let (sequence, acknowledgment) = (self.word(), self.word());
                Some(frame.sequence_number(sequence).acknowledgment_number(acknowledgment))
            }
        };
        frame.map(|frame| self.finish(side, frame)).unwrap_or_default()
    }

    /// Whole, or in fragments, of which some come late; sometimes with octets altered.
    fn finish(&mut self, side: Side, frame: Frame) -> Vec<Vec<u8>> {
        self.identification += 1;
        let frame = frame.identification(self.identification & 0xffff);
        if self.random.percent(5) {
            let mut parts = frame.build_fragments(self.one_of(&[8, 16, 64, 256]));
            parts.truncate(8);
            match self.random.below(6) {
                _ if parts.is_empty() => {}
                0 => parts.reverse(),
                1 if parts.len() > 1 => {
                    let last = parts.pop().expect("there is one");
                    self.late[at(side)].push(last);
                }
                2 => drop(parts.remove(self.random.index(parts.len()))),
                3 => {
                    let twice = self.one_of(&(0..parts.len()).collect::<Vec<_>>());
                    parts.push(parts[twice].clone());
                }
                4 => {
                    parts.push(frame.fragment(self.one_of(&[8, 24]), self.random.percent(50)).payload(&[7; 40]).build())
                }
                _ => {}
            }
            return parts.into_iter().map(|part| self.altered(part, 2)).collect();
        }
        let frame = if self.random.percent(5) { frame.pad_to(100) } else { frame };
        let frame = frame.build();
        vec![self.altered(frame, 3)]
    }

    fn altered(&mut self, mut frame: Vec<u8>, percent: u64) -> Vec<u8> {
        if self.random.percent(percent) {
            let place = self.random.index(frame.len());
            if self.random.percent(15) {
                frame.truncate(place.max(1));
            } else {
                frame[place] ^= 1 << self.random.below(8);
            }
        }
        frame
    }

    fn hosts(&mut self, side: Side) -> (IpAddr, IpAddr) {
        let six = self.random.percent(40);
        let most = if six { 4 } else { 6 };
        let (one, other) = (1 + self.byte(most), 1 + self.byte(most));
        (host(side, six, one), host(side.other(), six, other))
    }

    fn port(&mut self) -> u16 {
        1024 + self.random.between(0, 30)
    }

    fn payload(&mut self) -> Vec<u8> {
        let length = self.one_of(&[0, 1, 5, 20, 100]);
        self.random.bytes(length)
    }

    fn option(&mut self, chance: u64, of: &[u8]) -> Vec<u8> {
        if self.random.percent(chance) { of.to_vec() } else { Vec::new() }
    }

    fn flags(&mut self) -> u8 {
        let usual = [SYN, SYN | ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK];
        if self.random.percent(70) { self.one_of(&usual) } else { self.random.next().to_be_bytes()[0] }
    }

    /// The first packet of something.
    fn beginning(&mut self, side: Side) -> Frame {
        let (source, destination) = self.hosts(side);
        let class = if self.random.percent(20) { self.one_of(&[0xb8, 0x28, 0xff, 3]) } else { 0 };
        let frame = ip(source, destination).traffic_class(class);
        let frame = match self.random.below(20) {
            0 => frame.vlan(7),
            1 => frame.service_vlan(7).vlan(8),
            2 => frame.service_vlan(3 << 13).vlan(7),
            3 if self.random.percent(30) => frame.vlan(5 << 13),
            _ => frame,
        };
        let payload = self.payload();
        let (from, to) = (self.port(), self.one_of(&SERVICES));
        match self.random.below(100) {
            0..50 => {
                let (sequence, window) = (self.word(), self.window());
                let scale = self.byte(16);
                let [high, low] = self.one_of(&[1460_u16, 1459, 1220, 9000, 100, 1400]).to_be_bytes();
                let size = self.option(80, &[2, 4, high, low]);
                let (sack, scale) = (self.option(50, &[1, 1, 4, 2]), self.option(60, &[1, 3, 3, scale]));
                let options = [size, sack, scale].concat();
                let frame = frame.tcp(from, to).flags(SYN).sequence_number(sequence).window(window);
                frame.tcp_options(&options).payload(if self.random.percent(10) { &payload } else { &[] })
            }
            50..75 => frame.udp(from, to).payload(&payload),
            75..90 if source.is_ipv4() => {
                let kind = self.one_of(&[8, 8, 8, 13, 0, 14]);
                let [high, low] = self.port().to_be_bytes();
                frame.icmp(kind, 0, [high, low, 0, 1]).payload(&payload)
            }
            75..90 => {
                let kind = self.one_of(&[128, 128, 129]);
                let [high, low] = self.port().to_be_bytes();
                frame.icmpv6(kind, 0, [high, low, 0, 1]).payload(&payload)
            }
            _ => frame
                .protocol(self.one_of(&[47, 50, 132, 132, 136, 33, 253, ICMP, ICMPV6]))
                .payload(&[&(from & 3).to_be_bytes()[..], &to.to_be_bytes(), &[0; 4], &payload[..], &[0; 4]].concat()),
        }
    }

    fn window(&mut self) -> u16 {
        self.one_of(&[0, 1, 1000, 1000, 5000, 65535])
    }

    fn some_connection<'a>(&mut self, model: &'a Model) -> Option<(&'a Key, &'a Connection)> {
        if model.connections.is_empty() {
            return None;
        }
        // More often one of those that were begun first in the map, so that there are long ones.
        let most = if self.random.percent(70) { model.connections.len().min(40) } else { model.connections.len() };
        model.connections.iter().nth(self.random.index(most))
    }

    /// A packet of a connection that there is, mostly the sensible next one.
    fn on_some_connection(&mut self, side: Side, model: &Model) -> Option<Frame> {
        let (key, connection) = self.some_connection(model)?;
        let by_originator = (connection.side == side) != self.random.percent(2);
        let (source, destination) = if by_originator {
            (connection.source, connection.destination)
        } else {
            (connection.destination, connection.source)
        };
        let frame = tagged(ip(source.0, destination.0), key.1)?;
        let payload = self.payload();
        Some(match connection.protocol {
            TCP => self.segment(frame, connection, usize::from(!by_originator), (source, destination)),
            UDP => {
                let frame = frame.udp(source.1, destination.1).payload(&payload);
                if self.random.percent(5) { frame.without_udp_checksum() } else { frame }
            }
            ICMP if source.0.is_ipv4() => {
                let (identifier, kind) = (connection.source.1, usize::from(connection.destination.1 != 0));
                let of_type = [[0, 14], [8, 13]][usize::from(by_originator != self.random.percent(5))][kind];
                let [high, low] = identifier.to_be_bytes();
                frame.icmp(of_type, 0, [high, low, 0, 1]).payload(&payload)
            }
            ICMPV6 if source.0.is_ipv6() => {
                let [high, low] = connection.source.1.to_be_bytes();
                let of_type = if by_originator != self.random.percent(5) { 128 } else { 129 };
                frame.icmpv6(of_type, 0, [high, low, 0, 1]).payload(&payload)
            }
            protocol => {
                let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
                frame.protocol(protocol).payload(&[&ports[..], &[0; 8], &payload].concat())
            }
        })
    }

    /// A client's answer to a cookie, mostly as it should be.
    fn returning(&mut self, side: Side, model: &Model) -> Option<Frame> {
        let all: usize = model.cookies.len();
        // The newest of a client's, as the map goes.
        let ((key, source, number), cookies) = model.cookies.iter().nth(self.random.index(all.max(1)))?;
        let cookie = cookies.last()?;
        if (cookie.side == side) == self.random.percent(2) {
            return None;
        }
        let mut destination = if key.2 == *source { key.3 } else { key.2 };
        let (mut sequence, mut acknowledgment) = (number.wrapping_add(1), cookie.number.wrapping_add(1));
        let mut flags = ACK | if self.random.percent(30) { PSH } else { 0 };
        match self.random.below(24) {
            0 => acknowledgment = acknowledgment.wrapping_sub(self.one_of(&[1, u32::MAX])),
            1 => acknowledgment ^= 1 << self.random.below(32),
            2 => sequence = sequence.wrapping_sub(self.one_of(&[1, u32::MAX])),
            3 => flags = self.flags(),
            4 => destination.1 = self.one_of(&SERVICES),
            _ => {}
        }
        let frame = tagged(ip(source.0, destination.0), key.1)?;
        let (window, payload) = (self.window(), self.payload());
        let frame = frame.tcp(source.1, destination.1).flags(flags).window(window).sequence_number(sequence);
        Some(frame.acknowledgment_number(acknowledgment).payload(&payload))
    }

    fn segment(&mut self, frame: Frame, connection: &Connection, of: usize, ends: (End, End)) -> Frame {
        let Some(tcp) = connection.tcp else { return frame };
        let (sender, receiver) = (tcp.sides[of], tcp.sides[1 - of]);
        let flags = match (tcp.state, of, self.random.below(12)) {
            (_, _, 0) => self.flags(),
            (State::SynSent, 0, 1..9) if connection.proxy.is_some() => self.one_of(&[ACK, ACK, ACK | PSH, FIN | ACK]),
            (State::SynSent, 0, 1..8) => SYN,
            (State::SynSent, 1, 1..8) => SYN | ACK,
            (State::SynSent, 1, 8) => RST | ACK,
            (State::SynSent, 1, 9) => SYN,
            (State::SynSent2, _, 1..8) => SYN | ACK,
            (State::SynReceived, 0, 1..9) => ACK,
            (State::SynReceived, 1, 1..4) => SYN | ACK,
            (State::Established, _, 1..3) | (State::FinWait | State::CloseWait, _, 1..5) => FIN | ACK,
            (State::TimeWait | State::Close, _, 1..6) => SYN,
            (_, _, 11) => RST,
            _ => ACK | if self.random.percent(30) { PSH } else { 0 },
        };
        let data = self.one_of(&[0, 0, 0, 1, 10, 500, 1000]);
        let edge = |number: u32, random: &mut Random| {
            let by = [0, 0, 1, u32::MAX][random.index(4)];
            number.wrapping_add(by)
        };
        let low = |number: u64| u32::try_from(number & 0xffff_ffff).expect("masked");
        let length = u32::try_from(data).expect("a few");
        let sequence = match self.random.below(20) {
            // Of another connection.
            0..10 if flags == SYN && matches!(tcp.state, State::TimeWait | State::Close) => {
                edge(sender.end, &mut self.random)
            }
            // Of a SYN that is sent again.
            0..14 if flags & SYN != 0 && sender.window != 0 => sender.end.wrapping_sub(1),
            0..14 if sender.window != 0 => sender.end,
            14 => edge(receiver.acknowledged.unwrap_or(0), &mut self.random),
            15 => edge(sender.most.wrapping_sub(length), &mut self.random),
            16 => edge(sender.most, &mut self.random),
            17 => edge(sender.end.wrapping_sub(low(receiver.window)).wrapping_sub(length), &mut self.random),
            18 => 0,
            _ => self.word(),
        };
        let acknowledgment = match self.random.below(20) {
            0..15 => receiver.end,
            15 => edge(sender.acknowledged.unwrap_or(0), &mut self.random),
            16 => edge(receiver.end.wrapping_sub(66_000), &mut self.random),
            17 => edge(receiver.end, &mut self.random),
            18 => 0,
            _ => self.word(),
        };
        // A client knows its server by other numbers.
        let ahead = connection.proxy.filter(|_| of == 0).map_or(0, |proxy| proxy.ahead);
        let acknowledgment = match connection.proxy {
            Some(proxy) if of == 0 && connection.is_waiting() && !self.random.percent(10) => {
                proxy.cookie.wrapping_add(1)
            }
            _ => acknowledgment.wrapping_sub(ahead),
        };
        let options = match self.random.below(10) {
            0..4 if flags & SYN != 0 => vec![1, 3, 3, self.byte(16)],
            0..2 => {
                let up = edge(receiver.end.wrapping_sub(ahead), &mut self.random);
                let at: &[u8] = if self.random.percent(30) { &[1, 5, 10] } else { &[1, 1, 5, 10] };
                let pad: &[u8] = if at.len() == 3 { &[1] } else { &[] };
                [at, &acknowledgment.to_be_bytes(), &up.to_be_bytes(), pad].concat()
            }
            2..5 => vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            _ => Vec::new(),
        };
        let with_syn = connection.proxy.is_some() && self.random.percent(20);
        let data = if flags & SYN == 0 || with_syn { data } else { 0 };
        let window = self.window();
        let (from, to) = (ends.0.1, ends.1.1);
        let frame = frame.tcp(from, to).flags(flags).sequence_number(sequence).acknowledgment_number(acknowledgment);
        frame.window(window).tcp_options(&options).payload(&vec![9; data])
    }

    /// An ICMP error, mostly about a packet of a connection.
    fn error(&mut self, side: Side, model: &Model) -> Option<Frame> {
        let (key, connection) = self.some_connection(model)?;
        // It goes the other way.
        let by_originator = (connection.side != side) != self.random.percent(5);
        let (source, mut destination) = if by_originator {
            (connection.source, connection.destination)
        } else {
            (connection.destination, connection.source)
        };
        if self.random.percent(5) {
            destination.1 ^= 1;
        }
        let about = ip(source.0, destination.0);
        let about = match connection.protocol {
            TCP => {
                let sides = connection.tcp?.sides;
                let of = &sides[usize::from(!by_originator)];
                let sequence = match self.random.below(6) {
                    0 => self.word(),
                    1 => of.end.wrapping_add(1),
                    2 => of.end.wrapping_sub(65_999 + self.one_of(&[0, 1, 2])),
                    _ => of.end,
                };
                let ahead = connection.proxy.filter(|_| !by_originator).map_or(0, |proxy| proxy.ahead);
                about.tcp(source.1, destination.1).sequence_number(sequence.wrapping_sub(ahead))
            }
            UDP => about.udp(source.1, destination.1).payload(&[1; 20]),
            ICMP if source.0.is_ipv4() => {
                let kind = usize::from(connection.destination.1 != 0);
                let of_type = [[0, 14], [8, 13]][usize::from(by_originator)][kind];
                let [high, low] = connection.source.1.to_be_bytes();
                about.icmp(of_type, 0, [high, low, 0, 1])
            }
            ICMPV6 if source.0.is_ipv6() => {
                let [high, low] = connection.source.1.to_be_bytes();
                about.icmpv6(if by_originator { 128 } else { 129 }, 0, [high, low, 0, 1])
            }
            protocol => {
                let ports = [source.1.to_be_bytes(), destination.1.to_be_bytes()].concat();
                about.protocol(protocol).payload(&[&ports[..], &[1; 20]].concat())
            }
        };
        let six = source.0.is_ipv6();
        let about = if self.random.percent(3) {
            about.fragment(8 * u16::from(self.byte(2)), true).payload(&[1; 16])
        } else {
            about
        };
        let mut quoted = about.build()[14..].to_vec();
        let least = if six { 48 } else { 28 };
        match self.random.below(10) {
            0..3 => quoted.truncate(least),
            3 => quoted.truncate(self.random.index(least)),
            _ => {}
        }
        let from = host(side, six, 1 + self.byte(8));
        let to = if self.random.percent(5) { host(side.other(), six, 9) } else { source.0 };
        let frame = tagged(ip(from, to), key.1)?;
        Some(if six {
            frame.icmpv6(self.one_of(&[1, 1, 2, 3, 4, 100]), self.byte(6), [0, 0, 5, 0]).payload(&quoted)
        } else {
            frame.icmp(self.one_of(&[3, 3, 3, 11, 12, 4, 5]), self.byte(6), [0, 0, 5, 0]).payload(&quoted)
        })
    }

    /// An ICMP message that is neither a query nor an error.
    fn message(&mut self, side: Side) -> Frame {
        let (source, destination) = self.hosts(side);
        let rest = [0, self.byte(3), 0, 0];
        if source.is_ipv4() {
            ip(source, destination).icmp(self.one_of(&[9, 10, 15, 17, 40]), 0, rest).payload(&[0; 12])
        } else {
            let kinds = [0, 100, 127, 132, 138, 139, 144, 147, 148, 200];
            ip(source, destination).icmpv6(self.one_of(&kinds), 0, rest).payload(&[0; 12])
        }
    }

    fn neighbours(&mut self, side: Side) -> Frame {
        let local = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9);
        let source = self.one_of(&[local.into(), host(side, true, 1), Ipv6Addr::UNSPECIFIED.into()]);
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let destination = self.one_of(&[group.into(), host(side.other(), true, 1)]);
        let hops = self.one_of(&[255, 255, 254, 1, 1]);
        let kind = self.one_of(&[130, 131, 132, 133, 134, 135, 136, 137, 143]);
        ip(source, destination).hop_limit(hops).icmpv6(kind, 0, [0; 4]).payload(&[0; 20])
    }

    /// What carries no IP packet.
    fn no_ip(&mut self) -> Vec<u8> {
        let frame = match self.random.below(5) {
            0 => Frame::new().arp_request([10, 0, 0, 1], [192, 0, 2, 1]),
            1 => Frame::new().arp_reply([10, 0, 0, 1], [192, 0, 2, 1]).vlan(7),
            2 => Frame::new().ether_type(0x88cc).payload(&[0; 46]),
            3 => Frame::new().ether_type(38).payload(&[0x42; 38]),
            _ => Frame::new().vlan(7).vlan(8).vlan(9).ipv4([10, 0, 0, 1], [192, 0, 2, 1]).udp(1, 2),
        };
        let frame = frame.build();
        self.altered(frame, 10)
    }

    /// The first packet of something, with something about it.
    fn odd(&mut self, side: Side) -> Frame {
        let frame = self.beginning(side);
        let (six, four) = (self.hosts_of(side, true), self.hosts_of(side, false));
        match self.random.below(10) {
            0 => ip(four.0, four.1)
                .ipv4_options(self.one_of(&[&[131, 7, 4, 10, 0, 0, 1][..], &[1, 137, 3, 4], &[148, 4, 0, 0]]))
                .udp(5, 53),
            1 => ip(four.0, four.0).udp(5, 53),
            2 => {
                let no_hosts = [[224, 0, 0, 1], [127, 0, 0, 1], [255; 4], [240, 0, 0, 1], [0, 1, 2, 3]];
                ip(Ipv4Addr::from(self.one_of(&no_hosts)).into(), four.1).udp(5, 53)
            }
            3 => ip(
                four.0,
                Ipv4Addr::from(self.one_of(&[[255; 4], [224, 0, 0, 5], [127, 0, 0, 1], [0; 4], [240; 4]])).into(),
            )
            .udp(68, 67),
            4 => ip(Ipv4Addr::UNSPECIFIED.into(), Ipv4Addr::BROADCAST.into()).udp(68, 67),
            5 => ip(six.0, six.1).extension(0, &[1, 4, 0, 0, 0, 0]).tcp(self.port(), 80).flags(SYN),
            6 => ip(six.0, six.1).extension(43, &[0, self.byte(2), 0, 0, 0, 0]).udp(self.port(), 53),
            7 => ip(six.0, six.1).extension(self.one_of(&[60, 51]), &[0; 6]).udp(self.port(), 53),
            8 if self.random.percent(50) => {
                let no_hosts =
                    [Ipv6Addr::LOCALHOST, Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped(), Ipv6Addr::UNSPECIFIED];
                let odd = self.one_of(&no_hosts).into();
                let (from, to) = if self.random.percent(50) { (odd, six.1) } else { (six.0, odd) };
                ip(from, to).udp(5, 53)
            }
            8 => {
                ip(six.0, six.1).extension(60, &[0; 6]).icmpv6(self.one_of(&[1, 128]), 0, [0, 9, 0, 0]).payload(&[0; 8])
            }
            // An atomic fragment, and a first one with all but all of it.
            _ if self.random.percent(50) => ip(six.0, six.1).udp(self.port(), 53).fragment(0, false),
            _ => frame,
        }
    }

    fn hosts_of(&mut self, side: Side, six: bool) -> (IpAddr, IpAddr) {
        (host(side, six, 1 + self.byte(4)), host(side.other(), six, 1 + self.byte(4)))
    }

    /// Rules of all kinds, with the name of their place.
    pub(crate) fn rules(&mut self, count: usize, prefix: &str) -> Vec<Rule> {
        (0..count).map(|number| self.rule(format!("{prefix}{number}"))).collect()
    }

    fn rule(&mut self, name: String) -> Rule {
        let action = match self.random.below(10) {
            0..6 => Action::Accept,
            6..9 => Action::Drop,
            _ => Action::Reject,
        };
        let mut rule = Rule::new(name, action);
        let six = self.random.percent(40);
        for side in [Side::Inside, Side::Outside] {
            let terms = match self.random.below(6) {
                0 => vec![Term::Set(self.random.index(2))],
                1 => {
                    let address = host(side, six, 1 + self.byte(6));
                    vec![Term::Prefix(address, if six { 128 } else { 32 }), Term::Set(self.random.index(2))]
                }
                2 => vec![Term::Prefix(host(side, six, self.one_of(&[0, 4])), if six { 126 } else { 30 })],
                3 => vec![Term::Prefix(host(side, six, 0), if six { 120 } else { 24 })],
                _ => Vec::new(),
            };
            // Of those inside mostly the source.
            if (side == Side::Inside) != self.random.percent(35) {
                rule.sources = terms
            } else {
                rule.destinations = terms
            }
        }
        match self.random.below(8) {
            0 => {
                rule.protocols = vec![TCP];
                rule.flags = Some(self.one_of(&[(SYN, ACK), (SYN, 0), (0, ACK), (0, 8)]));
            }
            1 => {
                rule.protocols = vec![TCP, UDP];
                rule.destination_ports = vec![(53, 53), (80, 90)];
            }
            2 => rule.source_ports = vec![(1024, 1024 + u16::from(self.byte(31)))],
            3 => {
                rule.protocols = vec![if six { ICMPV6 } else { ICMP }];
                rule.icmp = vec![[(self.one_of(&[0, 8, 100]), self.one_of(&[130, 180])), (0, self.one_of(&[0, 255]))]];
            }
            4 => rule.protocols = vec![self.one_of(&[47, 50, 132])],
            5 => rule.destination_ports = vec![(0, 100), (8000, 9000)],
            _ => {}
        }
        if self.random.percent(35) {
            rule.from = Some(self.one_of(&[Side::Inside, Side::Outside]));
        }
        if self.random.percent(10) {
            rule.dscp = vec![46];
        }
        if self.random.percent(10) {
            rule.vlans = self.one_of(&[&[7][..], &[0]]).to_vec();
        }
        if self.random.percent(10) {
            rule.fragment = Some(self.random.percent(50));
        }
        if self.random.percent(15) && rule.flags.is_none() && rule.source_ports.is_empty() {
            let icmp = [ICMP, ICMPV6][usize::from(six)];
            let types = if six { (1, self.one_of(&[1, 4])) } else { (3, self.one_of(&[3, 12])) };
            // Errors are not answered, and come whole.
            let action = if rule.action == Action::Reject { Action::Drop } else { rule.action };
            let fragment = rule.fragment.filter(|fragment| !fragment);
            rule = Rule {
                related: true,
                action,
                fragment,
                protocols: vec![icmp],
                icmp: vec![[types, (0, self.one_of(&[1, 255]))]],
                destination_ports: Vec::new(),
                ..rule
            };
        }
        rule
    }

    /// A bound for what a rule accepts.
    pub(crate) fn limit(&mut self) -> Limit {
        let rate =
            |random: &mut Random| random.percent(50).then(|| 1 + u32::try_from(random.below(40)).expect("a few"));
        let connections = rate(&mut self.random);
        let packets = rate(&mut self.random).or(connections.is_none().then_some(5));
        let embryonic = self.random.percent(30).then_some(2);
        let (burst, per_source) = (rate(&mut self.random), self.random.percent(40));
        Limit { connections, packets, burst, per_source, embryonic }
    }
}

/// Whether it hangs on how far its connection is, whether its checksum is looked at.
fn is_ambiguous(frame: &[u8], model: &Model) -> bool {
    if model.setting.all_checksums {
        return false;
    }
    let Some(link) = link(frame).filter(|link| link.tags.is_empty()) else { return false };
    let ip = match link.ether_type {
        0x0800 => Ip::read(&frame[link.start..], false),
        0x86dd => Ip::read(&frame[link.start..], true),
        _ => return false,
    };
    let Ok(ip) = ip else { return false };
    let carries =
        ip.protocol == UDP || ip.protocol == TCP && kind(ip.message.get(13).copied().unwrap_or(0)) == Some(Kind::Ack);
    ip.piece.is_none() && ip.transport_can_be() && carries && !ip.is_sound()
}
