//! What is known of a connection, and under which key.

use super::tcp::{self, Tcp};
use super::timer::Timer;
use nf_framework::headers::IpProtocol;
use nf_framework::{Class, Direction};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A connection: with an IPv4 key, deadline and generation one line.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Connection {
    /// Of TCP.
    pub(super) tcp: Tcp,
    /// Of the rule that accepted it, or [`NO_SLOT`].
    pub(super) slot: u16,
    /// The generation of rules that it was judged by, and above it the high bits of its VLAN.
    judged: u8,
    marks: u8,
}

/// Which rules judged a connection: they are told apart by a number that comes again, so whoever counts on makes those
/// stale that have the next one still.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Generation(u8);

impl Generation {
    /// Of rules that are not in force.
    pub(super) const STALE: Self = Self(0);
    pub(super) const FIRST: Self = Self(1);
    const BITS: u32 = 4;
    const MASK: u8 = (1 << Self::BITS) - 1;

    pub(super) fn next(self) -> Self {
        if self.0 == Self::MASK { Self::FIRST } else { Self(self.0 + 1) }
    }
}

/// Of what is not established.
const BEGINNING: Class = match Class::new(1) {
    Some(class) => class,
    None => Class::EMBRYONIC,
};

/// Of what no rule accepted.
pub(super) const NO_SLOT: u16 = u16::MAX;

/// The originator is the end that comes first in the key.
const LOW_BEGAN: u8 = 1;
/// The originator is outside.
const INBOUND: u8 = 2;
/// The responder has sent something.
const ANSWERED: u8 = 4;
/// And the originator has gone on after that.
const ASSURED: u8 = 64;
/// Its rule limits packets.
const LIMITED: u8 = 8;
/// It is half open, and its rule limits how many are.
const COUNTED: u8 = 16;

/// The firewall has spoken for both ends while it began, so that they count differently.
const PROXIED: u8 = 32;

/// Which end sends a packet, and which way it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Course(u8);

impl Course {
    #[inline(always)]
    pub(super) fn new(from_low: bool, direction: Direction) -> Self {
        let inbound = if direction == Direction::Inbound { INBOUND } else { 0 };
        let low = if from_low { LOW_BEGAN } else { 0 };
        Self(low | inbound)
    }
}

impl Connection {
    pub(super) fn new(tcp: Tcp, low_began: bool, direction: Direction) -> Self {
        let Course(marks) = Course::new(low_began, direction);
        Self { tcp, slot: NO_SLOT, judged: 0, marks }
    }

    #[inline(always)]
    pub(super) fn generation(&self) -> Generation {
        Generation(self.judged & Generation::MASK)
    }

    pub(super) fn set_generation(&mut self, generation: Generation) {
        self.judged = self.judged & !Generation::MASK | generation.0;
    }

    /// The VLAN that its first packet came in by, 0 for none.
    pub(super) fn vlan(&self) -> u16 {
        u16::from(self.judged >> Generation::BITS) << 8 | u16::from(self.tcp.beside)
    }

    pub(super) fn set_vlan(&mut self, vlan: u16) {
        let [high, low] = vlan.to_be_bytes();
        self.judged = self.judged & Generation::MASK | high << Generation::BITS;
        self.tcp.beside = low;
    }

    pub(super) fn low_began(&self) -> bool {
        self.marks & LOW_BEGAN != 0
    }

    /// The way that the originator's packets take.
    pub(super) fn direction(&self) -> Direction {
        if self.marks & INBOUND == 0 { Direction::Outbound } else { Direction::Inbound }
    }

    /// Whose packet it is, 0 for the originator's; nothing if it comes in where that end is not.
    #[inline(always)]
    pub(super) fn side(&self, Course(course): Course) -> Option<usize> {
        let differs = self.marks ^ course;
        let (other_end, other_way) = (differs & LOW_BEGAN, (differs & INBOUND) / INBOUND);
        (other_end == other_way).then_some(usize::from(other_end))
    }

    #[inline(always)]
    pub(super) fn is_answered(&self) -> bool {
        self.marks & ANSWERED != 0
    }

    /// Whether the originator has gone on after an answer: one datagram in its name provokes no more than that.
    #[inline(always)]
    pub(super) fn is_assured(&self) -> bool {
        self.marks & ASSURED != 0
    }

    /// A side has sent something.
    pub(super) fn hear(&mut self, side: usize) {
        self.marks |= match side {
            tcp::RESPONDER => ANSWERED,
            _ if self.is_answered() => ASSURED,
            _ => 0,
        };
    }

    #[inline(always)]
    pub(super) fn is_limited(&self) -> bool {
        self.marks & LIMITED != 0
    }

    /// Whether more is to be done with its packets than to follow them.
    #[inline(always)]
    pub(super) fn is_laborious(&self) -> bool {
        self.marks & (LIMITED | PROXIED) != 0
    }

    pub(super) fn is_proxied(&self) -> bool {
        self.marks & PROXIED != 0
    }

    pub(super) fn set_proxied(&mut self) {
        self.marks |= PROXIED;
    }

    pub(super) fn set_limited(&mut self, limited: bool) {
        self.marks = if limited { self.marks | LIMITED } else { self.marks & !LIMITED };
    }

    pub(super) fn is_counted(&self) -> bool {
        self.marks & COUNTED != 0
    }

    pub(super) fn set_counted(&mut self, counted: bool) {
        self.marks = if counted { self.marks | COUNTED } else { self.marks & !COUNTED };
    }

    pub(super) fn timer(&self, protocol: IpProtocol) -> Timer {
        match protocol {
            IpProtocol::TCP => self.tcp.timer(),
            IpProtocol::UDP if self.is_assured() => Timer::UdpAnswered,
            IpProtocol::UDP => Timer::Udp,
            IpProtocol::ICMP | IpProtocol::ICMPV6 => Timer::Icmp,
            _ if self.is_assured() => Timer::OtherAnswered,
            _ => Timer::Other,
        }
    }

    /// What it is worth when the table is full. One that both ends take part in is not given up for another one; a ping never
    /// is such, and takes the place of other pings alone.
    pub(super) fn class(&self, protocol: IpProtocol) -> Class {
        let is_established = match protocol {
            IpProtocol::TCP => self.tcp.is_live() && self.tcp.is_agreed(),
            IpProtocol::ICMP | IpProtocol::ICMPV6 => return Class::EMBRYONIC,
            _ => self.is_assured(),
        };
        if is_established { Class::ESTABLISHED } else { BEGINNING }
    }
}

/// Addresses of both ends, the lower end first; their ports; the protocol; the VLANs that the frames say.
pub(super) type KeyV4 = [u8; 16];
/// The same of IPv6.
pub(super) type KeyV6 = [u8; 40];

/// A key of either family: the same for both directions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum FlowKey {
    V4(KeyV4),
    V6(KeyV6),
}

impl FlowKey {
    pub(super) fn protocol(&self) -> IpProtocol {
        match self {
            Self::V4(key) => key.protocol(),
            Self::V6(key) => key.protocol(),
        }
    }
}

/// One end: its address and its port, or what stands for that.
pub(super) type End = (IpAddr, u16);

/// What a table of connections needs of its keys.
pub(super) trait Ends: nf_framework::FlowKey {
    /// The lower end and the other one.
    fn ends(&self) -> (End, End);
    fn protocol(&self) -> IpProtocol;
}

impl Ends for KeyV4 {
    fn ends(&self) -> (End, End) {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *self;
        let low = (Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([i, j]));
        (low, (Ipv4Addr::new(e, f, g, h).into(), u16::from_be_bytes([k, l])))
    }

    #[inline(always)]
    fn protocol(&self) -> IpProtocol {
        IpProtocol(self[12])
    }
}

impl Ends for KeyV6 {
    fn ends(&self) -> (End, End) {
        let address = |at: usize| {
            let mut octets = [0; 16];
            octets.copy_from_slice(&self[at..at + 16]);
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        let port = |at: usize| u16::from_be_bytes([self[at], self[at + 1]]);
        ((address(0), port(32)), (address(16), port(34)))
    }

    #[inline(always)]
    fn protocol(&self) -> IpProtocol {
        IpProtocol(self[36])
    }
}

/// The key of what goes from one end to another, and whether it comes from the lower end. Nothing for ends of
/// two families.
pub(super) fn key(source: End, destination: End, protocol: IpProtocol, vlan: [u8; 3]) -> Option<(FlowKey, bool)> {
    let from_low = source <= destination;
    let (low, high) = if from_low { (source, destination) } else { (destination, source) };
    let ([a, b], [c, d]) = (low.1.to_be_bytes(), high.1.to_be_bytes());
    let ports = [a, b, c, d];
    let key = match (low.0, high.0) {
        (IpAddr::V4(low), IpAddr::V4(high)) => {
            let mut key = [0; 16];
            key[..4].copy_from_slice(&low.octets());
            key[4..8].copy_from_slice(&high.octets());
            key[8..12].copy_from_slice(&ports);
            key[12] = protocol.0;
            key[13..].copy_from_slice(&vlan);
            FlowKey::V4(key)
        }
        (IpAddr::V6(low), IpAddr::V6(high)) => {
            let mut key = [0; 40];
            key[..16].copy_from_slice(&low.octets());
            key[16..32].copy_from_slice(&high.octets());
            key[32..36].copy_from_slice(&ports);
            key[36] = protocol.0;
            key[37..].copy_from_slice(&vlan);
            FlowKey::V6(key)
        }
        _ => return None,
    };
    Some((key, from_low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generation_and_a_vlan_share_an_octet_and_the_first_one_comes_again() {
        let mut connection = Connection::default();
        let (mut generation, mut seen) = (Generation::FIRST, Vec::new());
        for vlan in [1, 0xabc, 0xfff, 0, 0x100] {
            connection.set_vlan(vlan);
            for _ in 0..20 {
                connection.set_generation(generation);
                assert_eq!((connection.generation(), connection.vlan()), (generation, vlan));
                seen.push(generation);
                generation = generation.next();
            }
        }
        assert!(!seen.contains(&Generation::STALE));
        assert!(seen.iter().zip(&seen[15..]).all(|(one, later)| one == later));
        assert!((1..15).all(|apart| seen[0] != seen[apart]));
    }

    #[test]
    fn an_entry_of_ipv4_is_one_line_and_a_key_the_same_both_ways() {
        assert_eq!(size_of::<Connection>(), 40);
        let ends: [(&str, &str); 3] =
            [("10.0.0.1", "192.0.2.1"), ("192.0.2.1", "10.0.0.1"), ("2001:db8::2", "2001:db8::1")];
        for (one, other) in ends {
            let (one, other) = ((one.parse().unwrap(), 5000), (other.parse().unwrap(), 53));
            let there = key(one, other, IpProtocol::UDP, [0, 1, 2]).unwrap();
            let back = key(other, one, IpProtocol::UDP, [0, 1, 2]).unwrap();
            assert_eq!((there.0, there.1), (back.0, !back.1));
            let (low, high) = match there.0 {
                FlowKey::V4(key) => key.ends(),
                FlowKey::V6(key) => key.ends(),
            };
            assert_eq!((low, high), if there.1 { (one, other) } else { (other, one) });
        }
        let four = (Ipv4Addr::LOCALHOST.into(), 1);
        assert_eq!(key(four, (Ipv6Addr::LOCALHOST.into(), 1), IpProtocol::UDP, [0; 3]), None);
    }
}
