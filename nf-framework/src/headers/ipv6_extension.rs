//! The chain of IPv6 extension headers between the fixed header and the transport.

use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{Fragment, IpProtocol, ParseError};

/// How many extension headers the parser walks before it refuses the packet.
pub const MAX_IPV6_EXTENSIONS: usize = 8;

/// An IPv6 fragment header, RFC 8200 section 4.5: 8 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6FragmentHeader {
    /// What the original packet's fragmentable part begins with.
    pub next_header: IpProtocol,
    /// Zero when sent, ignored when received.
    pub reserved: u8,
    /// Fragment offset in 8-octet units (13 bits), reserved (2 bits), more fragments (1 bit).
    pub offset_and_more: U16,
    /// What the fragments of one packet have in common.
    pub identification: U32,
}

impl Ipv6FragmentHeader {
    /// Where in the original packet's fragmentable part this one's begins, in octets.
    #[inline]
    #[must_use]
    pub fn fragment_offset(&self) -> u16 {
        self.offset_and_more.get() & 0xfff8
    }

    /// Whether this is not the last fragment.
    #[inline]
    #[must_use]
    pub fn more_fragments(&self) -> bool {
        self.offset_and_more.get() & 1 != 0
    }
}

/// What a walk over the chain found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// Octets in the chain.
    pub(super) length: usize,
    /// What follows the chain.
    pub(super) protocol: IpProtocol,
    /// What the fragment header said, if there was one.
    pub(super) fragment: Option<Fragment>,
    /// Whether a routing header still has waypoints, so that the fixed header's destination is
    /// not the final one.
    pub(super) has_waypoints: bool,
}

/// The first octets of the extension headers that are neither fragment nor authentication.
#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct ExtensionStart {
    next_header: IpProtocol,
    /// In 8-octet units without the first (RFC 8200 section 4.3), but in 4-octet units without
    /// the first two for the authentication header (RFC 4302 section 2.2).
    length: u8,
    /// A routing header's type, something else elsewhere.
    routing_type: u8,
    /// A routing header's waypoints still to visit, something else elsewhere.
    segments_left: u8,
}

/// One extension header.
pub(crate) struct Ipv6Extension<'a> {
    pub(crate) kind: IpProtocol,
    /// What follows it.
    pub(crate) next_header: IpProtocol,
    pub(crate) bytes: &'a [u8],
    segments_left: u8,
}

impl Ipv6Extension<'_> {
    /// What it says of the packet's place in a greater one, if it is a fragment header.
    #[inline]
    pub(crate) fn fragment(&self) -> Option<Fragment> {
        if self.kind != IpProtocol::IPV6_FRAGMENT {
            return None;
        }
        let (header, _) = Ipv6FragmentHeader::ref_from_prefix(self.bytes).ok()?;
        Some(Fragment {
            identification: header.identification.get(),
            offset: header.fragment_offset(),
            more: header.more_fragments(),
        })
    }
}

/// The extension headers that begin with one of kind `next` at the start of `rest`, up to the
/// first header that is not known here as one.
pub(crate) struct Ipv6Extensions<'a> {
    next: IpProtocol,
    rest: &'a [u8],
    walked: usize,
}

impl<'a> Ipv6Extensions<'a> {
    #[inline]
    pub(crate) fn new(first: IpProtocol, bytes: &'a [u8]) -> Self {
        Self { next: first, rest: bytes, walked: 0 }
    }

    #[inline]
    fn step(&mut self) -> Result<Ipv6Extension<'a>, ParseError> {
        let kind = self.next;
        if self.walked == MAX_IPV6_EXTENSIONS {
            return Err(ParseError::Ipv6TooManyExtensions);
        }
        // RFC 8200 section 4.1: they stand behind the fixed header and nowhere else.
        if kind == IpProtocol::HOP_BY_HOP_OPTIONS && self.walked > 0 {
            return Err(ParseError::Ipv6MisplacedHopByHop);
        }
        self.walked += 1;
        let (start, _) = ExtensionStart::ref_from_prefix(self.rest).map_err(|_| ParseError::Ipv6ExtensionShort)?;
        let length = match kind {
            IpProtocol::IPV6_FRAGMENT => 8,
            IpProtocol::AUTHENTICATION_HEADER => (usize::from(start.length) + 2) * 4,
            _ => (usize::from(start.length) + 1) * 8,
        };
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or(ParseError::Ipv6ExtensionShort)?;
        (self.next, self.rest) = (start.next_header, rest);
        let segments_left = if kind == IpProtocol::IPV6_ROUTE { start.segments_left } else { 0 };
        Ok(Ipv6Extension { kind, next_header: start.next_header, bytes, segments_left })
    }
}

impl<'a> Iterator for Ipv6Extensions<'a> {
    type Item = Result<Ipv6Extension<'a>, ParseError>;

    /// Without end after an error: whoever meets one stops.
    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.next.is_ipv6_extension().then(|| self.step())
    }
}

/// Walks the chain that begins with a header of kind `first` at the start of `bytes`.
///
/// It ends before the first header that is not an extension known here, or behind a fragment
/// header that is not a packet's first: what follows that one is data.
pub(super) fn walk(first: IpProtocol, bytes: &[u8]) -> Result<Chain, ParseError> {
    let mut chain = Chain { length: 0, protocol: first, fragment: None, has_waypoints: false };
    for extension in Ipv6Extensions::new(first, bytes) {
        let extension = extension.map_err(|error| match error {
            // RFC 7112: the chain has to be whole in the first fragment.
            ParseError::Ipv6ExtensionShort if chain.fragment.is_some_and(|fragment| fragment.more) => {
                ParseError::FirstFragmentShort
            }
            error => error,
        })?;
        chain.has_waypoints |= extension.segments_left != 0;
        if let Some(fragment) = extension.fragment()
            && chain.fragment.replace(fragment).is_some()
        {
            return Err(ParseError::Ipv6RepeatedFragment);
        }
        chain.protocol = extension.next_header;
        chain.length += extension.bytes.len();
        if chain.fragment.is_some_and(|fragment| fragment.offset != 0) {
            break;
        }
    }
    Ok(chain)
}

/// What follows the extension headers and the bytes of it, unless they are a later fragment's or
/// the chain is broken.
#[inline]
pub(crate) fn upper_layer(first: IpProtocol, bytes: &[u8]) -> Option<(IpProtocol, &[u8])> {
    if !first.is_ipv6_extension() {
        return Some((first, bytes));
    }
    let chain = walk(first, bytes).ok().filter(|chain| chain.fragment.is_none_or(|fragment| fragment.offset == 0))?;
    Some((chain.protocol, bytes.get(chain.length..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DESTINATION: IpProtocol = IpProtocol::IPV6_DESTINATION_OPTIONS;

    fn chain(length: usize, protocol: IpProtocol) -> Chain {
        Chain { length, protocol, fragment: None, has_waypoints: false }
    }

    #[test]
    fn each_kind_of_header_has_its_own_length_unit() {
        const UDP: u8 = IpProtocol::UDP.0;
        // description, kind of the first header, bytes, expected
        type Case = (&'static str, IpProtocol, &'static [u8], Result<Chain, ParseError>);
        let cases: [Case; 13] = [
            ("no extension header", IpProtocol::UDP, &[], Ok(chain(0, IpProtocol::UDP))),
            (
                "an unknown header ends the chain",
                IpProtocol::ENCAPSULATING_SECURITY_PAYLOAD,
                &[1, 2, 3],
                Ok(chain(0, IpProtocol::ENCAPSULATING_SECURITY_PAYLOAD)),
            ),
            (
                "hop-by-hop options count 8 octets beyond the first 8",
                IpProtocol::HOP_BY_HOP_OPTIONS,
                &[UDP, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9],
                Ok(chain(16, IpProtocol::UDP)),
            ),
            (
                "authentication counts 4 octets beyond the first 8",
                IpProtocol::AUTHENTICATION_HEADER,
                &[UDP, 1, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2],
                Ok(chain(12, IpProtocol::UDP)),
            ),
            (
                "a fragment header has no length, whatever stands there",
                IpProtocol::IPV6_FRAGMENT,
                &[UDP, 255, 0, 1, 0, 0, 0, 7],
                Ok(Chain {
                    fragment: Some(Fragment { identification: 7, offset: 0, more: true }),
                    ..chain(8, IpProtocol::UDP)
                }),
            ),
            (
                "what follows a later fragment's header is data",
                IpProtocol::IPV6_FRAGMENT,
                &[DESTINATION.0, 0, 0x05, 0xa8, 0, 0, 0, 7],
                Ok(Chain {
                    fragment: Some(Fragment { identification: 7, offset: 1448, more: false }),
                    ..chain(8, DESTINATION)
                }),
            ),
            (
                "a routing header with segments left has waypoints",
                IpProtocol::IPV6_ROUTE,
                &[UDP, 0, 4, 1, 0, 0, 0, 0],
                Ok(Chain { has_waypoints: true, ..chain(8, IpProtocol::UDP) }),
            ),
            ("a header that begins beyond the end", DESTINATION, &[UDP], Err(ParseError::Ipv6ExtensionShort)),
            (
                "a header that ends beyond the end",
                DESTINATION,
                &[UDP, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                Err(ParseError::Ipv6ExtensionShort),
            ),
            (
                "a header that ends beyond the end of a first fragment",
                IpProtocol::IPV6_FRAGMENT,
                &[DESTINATION.0, 0, 0, 1, 0, 0, 0, 7, UDP, 1, 0, 0, 0, 0, 0, 0],
                Err(ParseError::FirstFragmentShort),
            ),
            (
                "a header that ends beyond the end of an atomic fragment",
                IpProtocol::IPV6_FRAGMENT,
                &[DESTINATION.0, 0, 0, 0, 0, 0, 0, 7, UDP, 1, 0, 0, 0, 0, 0, 0],
                Err(ParseError::Ipv6ExtensionShort),
            ),
            (
                "hop-by-hop options behind another header",
                DESTINATION,
                &[0, 0, 1, 4, 0, 0, 0, 0, UDP, 0, 1, 4, 0, 0, 0, 0],
                Err(ParseError::Ipv6MisplacedHopByHop),
            ),
            (
                "a fragment of a fragment",
                IpProtocol::IPV6_FRAGMENT,
                &[44, 0, 0, 0, 0, 0, 0, 7, UDP, 0, 0, 0, 0, 0, 0, 8],
                Err(ParseError::Ipv6RepeatedFragment),
            ),
        ];
        for (description, first, bytes, expected) in cases {
            assert_eq!(walk(first, bytes), expected, "{description}");
        }
    }

    #[test]
    fn the_walk_is_bounded() {
        let headers = |count: usize| {
            let mut bytes = [DESTINATION.0, 0, 1, 4, 0, 0, 0, 0].repeat(count);
            bytes[(count - 1) * 8] = IpProtocol::TCP.0;
            bytes
        };
        assert_eq!(
            walk(DESTINATION, &headers(MAX_IPV6_EXTENSIONS)),
            Ok(chain(MAX_IPV6_EXTENSIONS * 8, IpProtocol::TCP))
        );
        assert_eq!(walk(DESTINATION, &headers(MAX_IPV6_EXTENSIONS + 1)), Err(ParseError::Ipv6TooManyExtensions));
    }
}
