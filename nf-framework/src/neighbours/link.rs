//! What a router says of itself on one of its interfaces: whom it answers for, and who can be a
//! neighbour there.

use crate::classifier::{Prefix, is_host};
use crate::headers::MacAddress;
use crate::time::Instant;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The first bits of all link-local addresses, RFC 4291 section 2.5.6.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0);

/// An interface as its neighbours know it. It is made off the packet path and given to the owner
/// of the neighbours whole.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    mac: MacAddress,
    /// Which port and VLAN it is: on another one there are other neighbours.
    place: (u16, Option<u16>),
    /// The interface's own addresses, for what it asks; those of functions are not used for that.
    addresses: Vec<(IpAddr, Prefix)>,
    /// Who else can be reached without a gateway.
    on_link: Vec<Prefix>,
    /// All that is answered for, in order; none is part of another.
    pub(super) own: Vec<Own>,
}

/// Addresses that are answered for: one of the interface, or a prefix that a function registered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Own {
    pub(super) prefix: Prefix,
    /// How often it is still to be announced, which of its addresses is next, and when.
    pub(super) announcements: u8,
    pub(super) next: u32,
    pub(super) due: Instant,
    /// When it was last defended.
    pub(super) defended: Option<Instant>,
    /// Who was last reported to claim it.
    pub(super) claimed_by: MacAddress,
}

impl Own {
    fn new(prefix: Prefix) -> Self {
        let (announcements, next, due) = (0, 0, Instant::START);
        Self { prefix, announcements, next, due, defended: None, claimed_by: MacAddress::ZERO }
    }

    /// How many of its addresses are announced: all, unless there are so many that no host on the
    /// link can be meant to have them in its table.
    pub(super) fn announced(&self) -> u32 {
        let bits = if self.prefix.address().is_ipv4() { 32 } else { 128 } - self.prefix.length();
        if bits <= Link::ANNOUNCED_BITS { 1 << bits } else { 0 }
    }

    /// One of its addresses.
    pub(super) fn address(&self, index: u32) -> IpAddr {
        match self.prefix.address() {
            IpAddr::V4(first) => Ipv4Addr::from_bits(first.to_bits() | index).into(),
            IpAddr::V6(first) => Ipv6Addr::from_bits(first.to_bits() | u128::from(index)).into(),
        }
    }
}

impl Link {
    /// The largest prefix whose addresses are all announced when it comes has so many host bits.
    pub(crate) const ANNOUNCED_BITS: u8 = 8;

    /// An interface that is `mac` on its link and has these addresses, each with the length of the
    /// prefix that it shares with its neighbours. With an IPv6 address it also has a link-local one
    /// (RFC 4291 section 2.1): [`link_local`](Self::link_local), unless another is given.
    ///
    /// What is no address of a host (unspecified, multicast, broadcast, loopback), or has a length
    /// that its family does not have, is left out; configurations are checked before.
    #[must_use]
    pub(crate) fn new(mac: MacAddress, addresses: &[(IpAddr, u8)]) -> Self {
        let mut addresses: Vec<_> =
            addresses.iter().filter_map(|&(address, length)| Some((address, prefix(address, length)?))).collect();
        addresses.retain(|(address, _)| is_host(*address));
        let is_link_local = |address: &IpAddr| matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        let has_ipv6 = addresses.iter().any(|(address, _)| address.is_ipv6());
        if has_ipv6 && !addresses.iter().any(|(address, _)| is_link_local(address)) {
            let address = Self::link_local(mac).into();
            addresses.extend(prefix(address, 64).map(|prefix| (address, prefix)));
        }
        let own = addresses.iter().map(|(address, _)| Own::new((*address).into())).collect();
        let mut link = Self { mac, place: (0, None), addresses, on_link: Vec::new(), own };
        link.sort();
        link
    }

    /// The port and the VLAN that it is.
    #[must_use]
    pub(crate) fn at(self, place: (u16, Option<u16>)) -> Self {
        Self { place, ..self }
    }

    /// The link-local address that is made of a MAC address, RFC 4291 appendix A.
    #[must_use]
    pub(crate) fn link_local(mac: MacAddress) -> Ipv6Addr {
        let [a, b, c, d, e, f] = mac.octets();
        let interface = u64::from_be_bytes([a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
        Ipv6Addr::from_bits(LINK_LOCAL.to_bits() | u128::from(interface))
    }

    /// Addresses that functions registered: they are answered for and announced like the
    /// interface's own.
    #[must_use]
    pub(crate) fn with_services(mut self, services: &[Prefix]) -> Self {
        self.own.extend(services.iter().copied().map(Own::new));
        self.sort();
        self
    }

    /// Prefixes that are on the link beside those of the addresses, as routes without a gateway
    /// say.
    #[must_use]
    pub(crate) fn with_on_link(mut self, prefixes: &[Prefix]) -> Self {
        self.on_link.extend_from_slice(prefixes);
        self
    }

    fn sort(&mut self) {
        self.own.sort_by_key(|own| (own.prefix.address(), own.prefix.length()));
        // Of two that overlap the larger has the lower first address or the shorter length, so it
        // comes first.
        self.own.dedup_by(|later, earlier| earlier.prefix.contains(later.prefix.address()));
    }

    /// Whether it is another station than this one, or elsewhere.
    #[must_use]
    pub(crate) fn is_elsewhere(&self, other: &Self) -> bool {
        (self.mac, self.place) != (other.mac, other.place)
    }

    /// Its MAC address.
    #[must_use]
    pub(crate) fn mac(&self) -> MacAddress {
        self.mac
    }

    /// The place of an address among those that are answered for.
    pub(super) fn own_index(&self, address: IpAddr) -> Option<usize> {
        let index = self.own.partition_point(|own| own.prefix.address() <= address).checked_sub(1)?;
        self.own[index].prefix.contains(address).then_some(index)
    }

    /// Whether an address can be a neighbour's: of a host, in a prefix of the link, not ours.
    pub(super) fn can_be_neighbour(&self, address: IpAddr) -> bool {
        is_host(address)
            && self.own_index(address).is_none()
            && (self.addresses.iter().any(|(_, prefix)| is_host_in(address, *prefix))
                || self.on_link.iter().any(|prefix| prefix.contains(address)))
    }

    /// Whether an address is that of a host on another link.
    pub(super) fn is_off_link(&self, address: IpAddr) -> bool {
        let is_near = |prefix: &Prefix| prefix.contains(address);
        is_host(address) && !self.addresses.iter().any(|(_, prefix)| is_near(prefix))
    }

    /// The address that a neighbour is asked from: one in its prefix if there is one, else any
    /// of its family (RFC 4861 section 7.2.2).
    pub(super) fn source_towards(&self, neighbour: IpAddr) -> Option<IpAddr> {
        let near = self.addresses.iter().find(|(_, prefix)| prefix.contains(neighbour));
        let any = || self.addresses.iter().find(|(address, _)| address.is_ipv4() == neighbour.is_ipv4());
        near.or_else(any).map(|(address, _)| *address)
    }

    /// Takes over what is known of addresses that an earlier state of the interface had, and has
    /// the others announced.
    pub(super) fn follow(&mut self, before: Option<&Self>, announcements: u8, now: Instant) {
        for own in &mut self.own {
            let before = before.filter(|before| before.mac == self.mac);
            let known = before.and_then(|before| before.own.iter().find(|known| known.prefix == own.prefix));
            *own = known.copied().unwrap_or(Own { announcements, next: 0, due: now, ..*own });
        }
    }
}

fn prefix(address: IpAddr, length: u8) -> Option<Prefix> {
    let first: IpAddr = match address {
        IpAddr::V4(v4) => {
            let host_bits = u32::MAX.checked_shr(length.into()).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & !host_bits).into()
        }
        IpAddr::V6(v6) => {
            let host_bits = u128::MAX.checked_shr(length.into()).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & !host_bits).into()
        }
    };
    Prefix::new(first, length).ok()
}

/// Whether an address is in a prefix and is not the prefix itself or its broadcast address, which
/// IPv4 prefixes of up to 30 bits have (RFC 1122 section 3.2.1.3, RFC 3021).
fn is_host_in(address: IpAddr, prefix: Prefix) -> bool {
    if !prefix.contains(address) {
        return false;
    }
    match address {
        IpAddr::V4(v4) if prefix.length() <= 30 => {
            let host_bits = u32::MAX >> prefix.length();
            v4.to_bits() & host_bits != 0 && v4.to_bits() & host_bits != host_bits
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);

    fn link() -> Link {
        let addresses = ["192.0.2.1/24", "198.51.100.0/31", "2001:db8::1/64", "224.0.0.1/4", "10.0.0.1/33"];
        let parse = |text: &str| {
            let (address, length) = text.split_once('/').unwrap();
            (address.parse().unwrap(), length.parse().unwrap())
        };
        let services = ["203.0.113.0/28", "203.0.113.8/32", "192.0.2.9", "2001:db8:1::/64"];
        Link::new(MAC, &addresses.map(parse))
            .with_services(&services.map(|text| text.parse().unwrap()))
            .with_on_link(&["172.31.1.1".parse().unwrap()])
    }

    #[test]
    fn who_is_answered_for_and_who_can_be_a_neighbour() {
        let link = link();
        // address, is ours, can be a neighbour
        let cases = [
            ("192.0.2.1", true, false),
            ("192.0.2.2", false, true),
            ("192.0.2.9", true, false),
            ("192.0.2.0", false, false),
            ("192.0.2.255", false, false),
            ("192.0.3.1", false, false),
            ("198.51.100.0", true, false),
            ("198.51.100.1", false, true),
            ("198.51.100.2", false, false),
            ("203.0.113.0", true, false),
            ("203.0.113.15", true, false),
            ("203.0.113.16", false, false),
            ("172.31.1.1", false, true),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
            ("0.0.0.0", false, false),
            ("127.0.0.1", false, false),
            ("10.0.0.1", false, false),
            ("2001:db8::1", true, false),
            ("2001:db8::2", false, true),
            ("2001:db8:1::77", true, false),
            ("2001:db8:2::1", false, false),
            ("fe80::ff:fe00:1", true, false),
            ("fe80::2", false, true),
            ("ff02::1", false, false),
            ("::", false, false),
            ("::ffff:192.0.2.2", false, false),
        ];
        for (address, ours, neighbour) in cases {
            let parsed = address.parse().unwrap();
            assert_eq!(link.own_index(parsed).is_some(), ours, "{address}");
            assert_eq!(link.can_be_neighbour(parsed), neighbour, "{address}");
        }
    }

    #[test]
    fn a_neighbour_is_asked_from_an_address_of_its_own_prefix_where_there_is_one() {
        let link = link();
        for (neighbour, source) in [
            ("192.0.2.7", Some("192.0.2.1")),
            ("198.51.100.1", Some("198.51.100.0")),
            ("172.31.1.1", Some("192.0.2.1")),
            ("2001:db8::7", Some("2001:db8::1")),
            ("fe80::7", Some("fe80::ff:fe00:1")),
        ] {
            let source = source.map(|text| text.parse().unwrap());
            assert_eq!(link.source_towards(neighbour.parse().unwrap()), source, "{neighbour}");
        }
        let ipv4_only = Link::new(MAC, &[("192.0.2.1".parse().unwrap(), 24)]);
        assert_eq!(ipv4_only.source_towards("fe80::7".parse().unwrap()), None);
        assert_eq!(ipv4_only.own.len(), 1, "no IPv6 where none was asked for");
    }

    #[test]
    fn a_link_local_address_is_made_of_the_mac_address_unless_one_is_given() {
        let link_local = Link::link_local(MacAddress([0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]));
        // The example of RFC 4291, appendix A.
        assert_eq!(link_local, "fe80::3656:78ff:fe9a:bcde".parse::<Ipv6Addr>().unwrap());
        let given = Link::new(MAC, &[("2001:db8::1".parse().unwrap(), 64), ("fe80::1".parse().unwrap(), 64)]);
        assert_eq!(given.own_index("fe80::1".parse().unwrap()), Some(1));
        assert_eq!(given.own_index(Link::link_local(MAC).into()), None);
    }

    #[test]
    fn small_prefixes_are_announced_address_by_address_and_large_ones_not() {
        for (prefix, count, last) in [
            ("192.0.2.1/32", 1, "192.0.2.1"),
            ("192.0.2.16/28", 16, "192.0.2.31"),
            ("192.0.2.0/24", 256, "192.0.2.255"),
            ("192.0.2.0/23", 0, ""),
            ("2001:db8::/120", 256, "2001:db8::ff"),
            ("2001:db8::/64", 0, ""),
            ("0.0.0.0/0", 0, ""),
        ] {
            let own = Own::new(prefix.parse().unwrap());
            assert_eq!(own.announced(), count, "{prefix}");
            if count > 0 {
                assert_eq!(own.address(count - 1), last.parse::<IpAddr>().unwrap(), "{prefix}");
            }
        }
    }
}
