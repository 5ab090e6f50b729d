//! What rules say, and what of it makes no sense.

use super::{IpFamily, Key, Prefix};
use crate::headers::{IpProtocol, TcpFlags};
use std::ops::RangeInclusive;

/// A rule: it matches a key that has all that it asks for. What is left at its default matches
/// every key.
///
/// ```
/// use nf_framework::headers::{IpProtocol, TcpFlags};
/// use nf_framework::{Addresses, FlagsMatch, Rule};
///
/// let new_connections = Rule {
///     source: Addresses::Set("customers".into()),
///     destination: Addresses::Prefix("192.0.2.0/24".parse()?),
///     protocol: Some(IpProtocol::TCP),
///     destination_ports: Some(443..=443),
///     tcp_flags: Some(FlagsMatch { set: TcpFlags::SYN, of: TcpFlags::SYN | TcpFlags::ACK }),
///     ..Rule::default()
/// };
/// # let _ = new_connections;
/// # Ok::<(), nf_framework::InvalidPrefix>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub struct Rule {
    /// Who sends. A rule that names a prefix here or as destination is of its family.
    pub source: Addresses,
    /// Who is to receive.
    pub destination: Addresses,
    /// The protocol.
    pub protocol: Option<IpProtocol>,
    /// Source ports, with both ends. Matches no key without ports, `0..=65535` neither.
    pub source_ports: Option<RangeInclusive<u16>>,
    /// Destination ports, likewise.
    pub destination_ports: Option<RangeInclusive<u16>>,
    /// TCP flags; the protocol is to be TCP then.
    pub tcp_flags: Option<FlagsMatch>,
    /// Types and codes of ICMP; the protocol says whether those of ICMP or of ICMPv6 are meant.
    pub icmp: Option<IcmpMatch>,
    /// Marks that a key is to have, of [`Key::MARKS`](super::Key::MARKS), and perhaps others beside them.
    pub marks: u8,
}

/// Addresses that a rule matches.
#[derive(Clone, PartialEq, Eq, Debug, Default, Hash)]
pub enum Addresses {
    /// All, of both families.
    #[default]
    Any,
    /// Those of a prefix.
    Prefix(Prefix),
    /// Those of the set of this name.
    Set(String),
}

impl Addresses {
    /// The name of the set, if it is one.
    pub(super) fn set(&self) -> Option<&str> {
        match self {
            Self::Set(name) => Some(name),
            Self::Any | Self::Prefix(_) => None,
        }
    }
}

impl From<Prefix> for Addresses {
    fn from(prefix: Prefix) -> Self {
        Self::Prefix(prefix)
    }
}

/// TCP flags that a rule matches: of the flags `of`, those in `set` and no others are set.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct FlagsMatch {
    /// To be set; those of `of` that are not here are to be clear.
    pub set: TcpFlags,
    /// Flags that are looked at.
    pub of: TcpFlags,
}

/// ICMP messages that a rule matches.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
pub struct IcmpMatch {
    /// Types, with both ends.
    pub types: RangeInclusive<u8>,
    /// Codes, with both ends; `0..=255` for all.
    pub codes: RangeInclusive<u8>,
}

/// Addresses under a name, for rules to name. A rule on a set costs the same whatever the set
/// has. Prefixes may overlap, within a set and between sets, and be of both families; a set may
/// be empty, and then matches nothing.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct AddressSet {
    /// What rules call it.
    pub name: String,
    /// What is in it.
    pub prefixes: Vec<Prefix>,
}

/// Why a rule makes no sense.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuleFault {
    /// No set has the name.
    #[error("there is no set {name:?} (known: {known})")]
    UnknownSet {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Source and destination are of two families.
    #[error("{source_prefix} and {destination_prefix} are of two families, which no packet is: make it two rules")]
    TwoFamilies {
        /// The source.
        source_prefix: Prefix,
        /// The destination.
        destination_prefix: Prefix,
    },
    /// A range ends before it begins.
    #[error("the {what} from {first} to {last} end before they begin")]
    Reversed {
        /// Ports, types or codes.
        what: &'static str,
        /// Where they are to begin.
        first: u16,
        /// Where they are to end.
        last: u16,
    },
    /// Ports of a protocol that has none.
    #[error("protocol {0} has no ports: leave the ports away, or name TCP (6) or UDP (17)")]
    PortsOfIcmp(IpProtocol),
    /// TCP flags of another protocol, or of any.
    #[error("only TCP has TCP flags: name protocol 6")]
    FlagsWithoutTcp,
    /// A flag is to be set and not looked at.
    #[error("{set:?} are to be set and not all of them are among those looked at, {of:?}")]
    FlagsNotLookedAt {
        /// To be set.
        set: TcpFlags,
        /// Looked at.
        of: TcpFlags,
    },
    /// Marks that no key has.
    #[error("the marks {0:#x} are not all of 0x1f")]
    UnknownMarks(u8),
    /// Types and codes of ICMP without saying of which.
    #[error("an ICMP type has its meaning by the protocol: name protocol 1 (ICMP) or 58 (ICMPv6)")]
    IcmpOfWhich,
    /// ICMP in IPv6, or ICMPv6 in IPv4.
    #[error("{prefix} has no messages of protocol {protocol}: ICMP (1) is of IPv4 and ICMPv6 (58) of IPv6")]
    IcmpOfOtherFamily {
        /// The prefix that gives the family.
        prefix: Prefix,
        /// ICMP or ICMPv6.
        protocol: IpProtocol,
    },
}

impl Rule {
    /// What makes no sense in it, if anything does, when there are sets of these names.
    pub(super) fn fault(&self, sets: &[&str]) -> Option<RuleFault> {
        self.set_fault(sets)
            .or_else(|| self.addresses_fault())
            .or_else(|| self.ranges_fault())
            .or_else(|| self.protocol_fault())
            .or_else(|| self.marks_fault())
    }

    fn marks_fault(&self) -> Option<RuleFault> {
        (self.marks & !Key::MARKS != 0).then_some(RuleFault::UnknownMarks(self.marks))
    }

    fn set_fault(&self, sets: &[&str]) -> Option<RuleFault> {
        let named = [&self.source, &self.destination].into_iter().filter_map(Addresses::set);
        let name = named.into_iter().find(|name| !sets.contains(name))?;
        Some(RuleFault::UnknownSet { name: name.to_owned(), known: sets.join(", ") })
    }

    fn addresses_fault(&self) -> Option<RuleFault> {
        let (Addresses::Prefix(source_prefix), Addresses::Prefix(destination_prefix)) =
            (&self.source, &self.destination)
        else {
            return None;
        };
        let (source_prefix, destination_prefix) = (*source_prefix, *destination_prefix);
        (source_prefix.address().is_ipv4() != destination_prefix.address().is_ipv4())
            .then_some(RuleFault::TwoFamilies { source_prefix, destination_prefix })
    }

    fn ranges_fault(&self) -> Option<RuleFault> {
        let ports = [("source ports", &self.source_ports), ("destination ports", &self.destination_ports)];
        let ports = ports.into_iter().filter_map(|(what, range)| Some((what, range.clone()?)));
        let icmp = self.icmp.iter().flat_map(|icmp| [("ICMP types", &icmp.types), ("ICMP codes", &icmp.codes)]);
        let icmp = icmp.map(|(what, range)| (what, u16::from(*range.start())..=u16::from(*range.end())));
        let reversed = ports.chain(icmp).find(|(_, range)| range.is_empty());
        reversed.map(|(what, range)| RuleFault::Reversed { what, first: *range.start(), last: *range.end() })
    }

    fn protocol_fault(&self) -> Option<RuleFault> {
        let icmp = self.protocol.filter(|protocol| [IpProtocol::ICMP, IpProtocol::ICMPV6].contains(protocol));
        if let Some(protocol) = icmp
            && (self.source_ports.is_some() || self.destination_ports.is_some())
        {
            return Some(RuleFault::PortsOfIcmp(protocol));
        }
        if let Some(FlagsMatch { set, of }) = self.tcp_flags {
            if self.protocol != Some(IpProtocol::TCP) {
                return Some(RuleFault::FlagsWithoutTcp);
            }
            if !of.contains(set) {
                return Some(RuleFault::FlagsNotLookedAt { set, of });
            }
        }
        self.icmp.as_ref()?;
        let Some(protocol) = icmp else { return Some(RuleFault::IcmpOfWhich) };
        let prefix = self.prefixes().find(|prefix| prefix.address().is_ipv4() != (protocol == IpProtocol::ICMP))?;
        Some(RuleFault::IcmpOfOtherFamily { prefix, protocol })
    }

    fn prefixes(&self) -> impl Iterator<Item = Prefix> {
        [&self.source, &self.destination].into_iter().filter_map(|addresses| match addresses {
            Addresses::Prefix(prefix) => Some(*prefix),
            Addresses::Any | Addresses::Set(_) => None,
        })
    }

    /// The family that it is of; nothing when it is of both.
    pub(super) fn family(&self) -> Option<IpFamily> {
        self.prefixes().map(|prefix| if prefix.address().is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }).next()
    }
}
