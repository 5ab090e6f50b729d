//! Words for what packets have, as configurations and people write them: addresses, protocols, ports, ICMP types, TCP flags,
//! DSCP, VLANs.

use crate::classifier::{FlagsMatch, IcmpMatch, Prefix};
use crate::headers::{IpProtocol, TcpFlags};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;

/// One value or a list of them, each a number or a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct List<T>(pub Vec<T>);

impl<T> Default for List<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: FromStr<Err = InvalidTerm>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

impl<'de, T: FromStr<Err = InvalidTerm>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number, or a list of them")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<List<T>, E> {
        text.parse().map(|term| List(vec![term])).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<List<T>, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<List<T>, A::Error> {
        let mut terms = Vec::new();
        while let Some(Term(term)) = list.next_element()? {
            terms.push(term);
        }
        if terms.is_empty() {
            return Err(serde::de::Error::custom(
                "an empty list would match nothing: leave it out to match everything",
            ));
        }
        Ok(List(terms))
    }
}

/// One value that is written as a number or a text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term<T>(pub T);

impl<'de, T: FromStr<Err = InvalidTerm>> Deserialize<'de> for Term<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TermVisitor(PhantomData))
    }
}

struct TermVisitor<T>(PhantomData<T>);

impl<T: FromStr<Err = InvalidTerm>> Visitor<'_> for TermVisitor<T> {
    type Value = Term<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or a number")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Term<T>, E> {
        text.parse().map(Term).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Term<T>, E> {
        self.visit_str(&number.to_string())
    }
}

/// What is not a word of a rule, and what would be one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct InvalidTerm {
    text: String,
    what: String,
}

impl InvalidTerm {
    fn new(text: &str, what: impl fmt::Display) -> Self {
        Self { text: text.to_owned(), what: what.to_string() }
    }
}

/// Addresses: a prefix, or `@name` for a set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AddressTerm {
    /// A prefix, or a single address.
    Prefix(Prefix),
    /// The set of this name.
    Set(String),
}

impl FromStr for AddressTerm {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        if let Some(name) = text.strip_prefix('@') {
            return Ok(Self::Set(name.to_owned()));
        }
        text.parse()
            .map(Self::Prefix)
            .map_err(|error| InvalidTerm::new(text, format!("an address, a prefix or the @name of a set: {error}")))
    }
}

impl fmt::Display for AddressTerm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "{prefix}"),
            Self::Set(name) => write!(f, "@{name}"),
        }
    }
}

/// A protocol by its name or its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProtocolTerm(pub IpProtocol);

const PROTOCOLS: [(&str, IpProtocol); 9] = [
    ("tcp", IpProtocol::TCP),
    ("udp", IpProtocol::UDP),
    ("icmp", IpProtocol::ICMP),
    ("icmpv6", IpProtocol::ICMPV6),
    ("igmp", IpProtocol::IGMP),
    ("gre", IpProtocol::GRE),
    ("esp", IpProtocol::ENCAPSULATING_SECURITY_PAYLOAD),
    ("sctp", IpProtocol::SCTP),
    ("vrrp", IpProtocol::VRRP),
];

impl FromStr for ProtocolTerm {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        let by_name = PROTOCOLS.iter().find(|(name, _)| *name == text).map(|(_, protocol)| *protocol);
        by_name.or_else(|| text.parse().ok().map(IpProtocol)).map(Self).ok_or_else(|| {
            let names: Vec<_> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
            InvalidTerm::new(text, format!("a protocol: {}, or a number from 0 to 255", names.join(", ")))
        })
    }
}

/// The name of a protocol, or its number.
#[must_use]
pub fn protocol_name(protocol: IpProtocol) -> String {
    let name = PROTOCOLS.iter().find(|(_, known)| *known == protocol);
    name.map_or_else(|| protocol.0.to_string(), |(name, _)| (*name).to_owned())
}

/// Ports from one to another: `"80"`, `"1024-65535"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortTerm {
    /// The first.
    pub first: u16,
    /// The last, not below the first.
    pub last: u16,
}

impl FromStr for PortTerm {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        range(text).map(|(first, last)| Self { first, last }).ok_or_else(|| {
            InvalidTerm::new(text, "a port or a range of ports: write 80, or \"1024-65535\", from 0 to 65535")
        })
    }
}

/// A VLAN by its number; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VlanTerm(pub u16);

impl FromStr for VlanTerm {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        let number = text.parse().ok().filter(|number| *number < 4095);
        number.map(Self).ok_or_else(|| InvalidTerm::new(text, "a VLAN: 1 to 4094, or 0 for none"))
    }
}

fn range<T: FromStr + PartialOrd>(text: &str) -> Option<(T, T)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    (first <= last).then_some((first, last))
}

/// Types of ICMP or ICMPv6, and codes of them: `"echo-request"`, `"3"`, `"3/1"`, `"9-10"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct IcmpTerm {
    types: IcmpTypes,
    codes: (u8, u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum IcmpTypes {
    Numbers(u8, u8),
    /// A place in [`ICMP_NAMES`].
    Name(usize),
}

/// By name, the type of ICMP and of ICMPv6.
const ICMP_NAMES: [(&str, Option<u8>, Option<u8>); 16] = [
    ("echo-request", Some(8), Some(128)),
    ("echo-reply", Some(0), Some(129)),
    ("destination-unreachable", Some(3), Some(1)),
    ("packet-too-big", None, Some(2)),
    ("time-exceeded", Some(11), Some(3)),
    ("parameter-problem", Some(12), Some(4)),
    ("source-quench", Some(4), None),
    ("redirect", Some(5), Some(137)),
    ("router-advertisement", Some(9), Some(134)),
    ("router-solicitation", Some(10), Some(133)),
    ("timestamp", Some(13), None),
    ("timestamp-reply", Some(14), None),
    ("neighbor-solicitation", None, Some(135)),
    ("neighbor-advertisement", None, Some(136)),
    ("mld-query", None, Some(130)),
    ("mld-report", None, Some(143)),
];

impl FromStr for IcmpTerm {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        let (types, codes) = text.split_once('/').map_or((text, None), |(types, codes)| (types, Some(codes)));
        let by_name = || ICMP_NAMES.iter().position(|(name, ..)| *name == types).map(IcmpTypes::Name);
        let types = range(types).map(|(first, last)| IcmpTypes::Numbers(first, last)).or_else(by_name);
        let codes = codes.map_or(Some((0, u8::MAX)), range);
        types.zip(codes).map(|(types, codes)| Self { types, codes }).ok_or_else(|| {
            let names: Vec<_> = ICMP_NAMES.iter().map(|(name, ..)| *name).collect();
            let what = "an ICMP type: a number, a range such as \"9-10\", a type with its code such as \"3/1\", or";
            InvalidTerm::new(text, format!("{what} one of {}", names.join(", ")))
        })
    }
}

impl IcmpTerm {
    /// What it means with this protocol, ICMP or ICMPv6; nothing if there is no such type.
    #[must_use]
    pub fn of(self, protocol: IpProtocol) -> Option<IcmpMatch> {
        let types = match self.types {
            IcmpTypes::Numbers(first, last) => first..=last,
            IcmpTypes::Name(place) => {
                let (_, four, six) = ICMP_NAMES.get(place)?;
                let number = if protocol == IpProtocol::ICMP { (*four)? } else { (*six)? };
                number..=number
            }
        };
        Some(IcmpMatch { types, codes: self.codes.0..=self.codes.1 })
    }
}

/// TCP flags that are to be set, or with a `!` clear: `"syn !ack"`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FlagsTerm(pub FlagsMatch);

const FLAGS: [(&str, TcpFlags); 8] = [
    ("fin", TcpFlags::FIN),
    ("syn", TcpFlags::SYN),
    ("rst", TcpFlags::RST),
    ("psh", TcpFlags::PSH),
    ("ack", TcpFlags::ACK),
    ("urg", TcpFlags::URG),
    ("ece", TcpFlags::ECE),
    ("cwr", TcpFlags::CWR),
];

impl FromStr for FlagsTerm {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        let invalid = || {
            let what =
                "a list of TCP flags such as \"syn !ack\": fin, syn, rst, psh, ack, urg, ece, cwr, each once, and";
            InvalidTerm::new(text, format!("{what} ! before those that are to be clear"))
        };
        let mut flags = FlagsMatch { set: TcpFlags(0), of: TcpFlags(0) };
        for word in text.split_whitespace() {
            let name = word.strip_prefix('!').unwrap_or(word);
            let (_, flag) = FLAGS.iter().find(|(known, _)| *known == name).ok_or_else(invalid)?;
            if flags.of.intersects(*flag) {
                return Err(invalid());
            }
            flags.of = flags.of | *flag;
            if name == word {
                flags.set = flags.set | *flag;
            }
        }
        if flags.of == TcpFlags(0) { Err(invalid()) } else { Ok(Self(flags)) }
    }
}

/// A class of differentiated services, RFC 2474: a name or a number from 0 to 63.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DscpTerm(pub u8);

impl FromStr for DscpTerm {
    type Err = InvalidTerm;

    fn from_str(text: &str) -> Result<Self, InvalidTerm> {
        let digits = |prefix: &str| text.strip_prefix(prefix).map(str::as_bytes);
        let by_name = match (text, digits("cs"), digits("af")) {
            ("ef", ..) => Some(46),
            (_, Some([class @ b'0'..=b'7']), _) => Some((class - b'0') * 8),
            (_, _, Some([class @ b'1'..=b'4', drop @ b'1'..=b'3'])) => Some((class - b'0') * 8 + (drop - b'0') * 2),
            _ => None,
        };
        by_name
            .or_else(|| text.parse().ok().filter(|number| *number < 64))
            .map(Self)
            .ok_or_else(|| InvalidTerm::new(text, "a DSCP: a number from 0 to 63, ef, cs0 to cs7, or af11 to af43"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::RangeInclusive;

    #[test]
    fn addresses_are_prefixes_or_sets() {
        for (text, expected) in [
            ("10.0.0.0/8", Some("10.0.0.0/8")),
            ("192.0.2.1", Some("192.0.2.1/32")),
            ("2001:db8::/32", Some("2001:db8::/32")),
            ("@servers", Some("@servers")),
            ("servers", None),
            ("10.0.0.1/8", None),
            ("", None),
        ] {
            let found = text.parse::<AddressTerm>().ok().map(|term| term.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn protocols_and_ports_are_names_numbers_and_ranges() {
        for (text, expected) in
            [("tcp", Some(6)), ("icmpv6", Some(58)), ("47", Some(47)), ("255", Some(255)), ("256", None), ("TCP", None)]
        {
            assert_eq!(text.parse::<ProtocolTerm>().ok().map(|term| term.0.0), expected, "{text}");
        }
        for (text, expected) in [
            ("80", Some((80, 80))),
            ("0", Some((0, 0))),
            ("1024-65535", Some((1024, 65535))),
            ("1024 - 2048", Some((1024, 2048))),
            ("2-1", None),
            ("-1", None),
            ("65536", None),
            ("http", None),
        ] {
            let found = text.parse::<PortTerm>().ok().map(|term| (term.first, term.last));
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(
            (protocol_name(IpProtocol::GRE), protocol_name(IpProtocol(99))),
            ("gre".to_owned(), "99".to_owned())
        );
    }

    #[test]
    fn icmp_types_have_a_meaning_by_protocol() {
        /// Types and codes.
        type Found = Option<(RangeInclusive<u8>, RangeInclusive<u8>)>;
        let all = 0..=255;
        let cases: [(&str, Found, Found); 8] = [
            ("echo-request", Some((8..=8, all.clone())), Some((128..=128, all.clone()))),
            ("3/1", Some((3..=3, 1..=1)), Some((3..=3, 1..=1))),
            ("9-10", Some((9..=10, all.clone())), Some((9..=10, all.clone()))),
            ("destination-unreachable/0-4", Some((3..=3, 0..=4)), Some((1..=1, 0..=4))),
            ("packet-too-big", None, Some((2..=2, all.clone()))),
            ("timestamp", Some((13..=13, all)), None),
            ("ping", None, None),
            ("3/x", None, None),
        ];
        for (text, four, six) in cases {
            let term = text.parse::<IcmpTerm>();
            let of = |protocol| {
                let found = term.clone().ok()?.of(protocol)?;
                Some((found.types, found.codes))
            };
            assert_eq!((of(IpProtocol::ICMP), of(IpProtocol::ICMPV6)), (four, six), "{text}");
        }
    }

    #[test]
    fn flags_are_set_or_clear_and_stand_once() {
        for (text, expected) in [
            ("syn", Some((2, 2))),
            ("syn !ack", Some((2, 0x12))),
            ("!fin !syn !rst !ack", Some((0, 0x17))),
            ("syn syn", None),
            ("syn !syn", None),
            ("all", None),
            ("", None),
        ] {
            let found = text.parse::<FlagsTerm>().ok().map(|FlagsTerm(flags)| (flags.set.0, flags.of.0));
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn a_dscp_is_a_number_or_a_name() {
        for (text, expected) in [
            ("0", Some(0)),
            ("63", Some(63)),
            ("64", None),
            ("ef", Some(46)),
            ("cs6", Some(48)),
            ("cs8", None),
            ("af11", Some(10)),
            ("af43", Some(38)),
            ("af44", None),
            ("best", None),
        ] {
            assert_eq!(text.parse::<DscpTerm>().ok().map(|term| term.0), expected, "{text}");
        }
    }

    #[test]
    fn a_list_is_one_term_or_several_of_texts_and_numbers() {
        #[derive(Deserialize)]
        struct Ports {
            ports: List<PortTerm>,
        }
        let ports = |text: &str| {
            let parsed = toml::from_str::<Ports>(text).map(|of| of.ports.0.iter().map(|port| port.first).collect());
            parsed.map_err(|error| error.message().to_owned())
        };
        let known = Ok::<Vec<u16>, String>;
        assert_eq!(ports("ports = 80"), known(vec![80]));
        assert_eq!(ports("ports = \"80-81\""), known(vec![80]));
        assert_eq!(ports("ports = [80, \"443\"]"), known(vec![80, 443]));
        assert!(ports("ports = []").unwrap_err().contains("an empty list would match nothing"));
        assert!(ports("ports = [true]").unwrap_err().contains("expected a text or a number"));
        assert!(ports("ports = true").unwrap_err().contains("or a list of them"));
    }
}
