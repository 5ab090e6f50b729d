//! The Internet checksum: whole (RFC 1071) and incremental (RFC 1624).
//!
//! A function that rewrites a field mends the checksums over it with [`ChecksumUpdate`], which
//! costs a few instructions and keeps a wrong checksum wrong, so that corruption is not hidden.
//! Who makes a packet fills its checksums whole: [`Headers::fill_checksums`], or the functions
//! here one by one.
//!
//! ```
//! use nf_framework::headers::checksum::checksum;
//!
//! // The example of RFC 1071, section 3.
//! assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
//! ```

use core::fmt;

use zerocopy::IntoBytes;
use zerocopy::network_endian::U16;

use super::{Headers, IcmpHeader, Icmpv6Header, IpProtocol, Ipv4Header, Network, TcpHeader, Transport, UdpHeader};

/// A one's complement sum in the making.
///
/// It adds the 16-bit words as they lie in memory: such a sum comes out in memory order too,
/// whatever the machine's order (RFC 1071 section 2(B)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

/// What a transport's checksum covers of the network layer: RFC 9293 section 3.1 for IPv4,
/// RFC 8200 section 8.1 for IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PseudoHeader {
    /// Of an IPv4 packet.
    Ipv4 {
        /// The sender's address, its octets.
        source: [u8; 4],
        /// The receiver's address, its octets.
        destination: [u8; 4],
    },
    /// Of an IPv6 packet.
    Ipv6 {
        /// The sender's address, its octets.
        source: [u8; 16],
        /// The final receiver's address, its octets.
        destination: [u8; 16],
    },
}

/// Fields that changed, and what that does to a checksum over them: RFC 1624 section 3,
/// equation 3.
///
/// The fields must begin at an even offset in what the checksum covers, as all fields of 16 bits
/// and more do in the headers here; take an 8-bit field with its neighbor as 16 bits. One update
/// may be applied to several checksums: an address is under the IPv4 header's and the transport's.
///
/// The result is the same as that of computing the checksum whole, with one exception that an
/// update cannot know of: where everything covered is zero, before or after. Only an ICMP echo
/// reply can be that, one with identifier, sequence number and data all zero.
///
/// ```
/// use nf_framework::headers::{ChecksumUpdate, Headers, Network};
/// use nf_framework::testing::Frame;
///
/// let packet = Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]).udp(1000, 53);
/// let mut frame = packet.clone().time_to_live(64).build();
///
/// // Time to live is the high half of a word whose low half is the protocol.
/// if let Network::Ipv4 { header, .. } = Headers::parse(&mut frame)?.network {
///     let word = |time_to_live, protocol| u16::from_be_bytes([time_to_live, protocol]);
///     let old = word(header.time_to_live, header.protocol.0);
///     header.time_to_live -= 1;
///     let new = word(header.time_to_live, header.protocol.0);
///     ChecksumUpdate::new().replace_u16(old, new).apply(&mut header.header_checksum);
/// }
/// assert_eq!(frame, packet.time_to_live(63).build());
/// # Ok::<(), nf_framework::headers::ParseError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "an update changes nothing until it is applied"]
pub struct ChecksumUpdate {
    /// The sum of `!old + new` over the fields' words, as they lie in memory (see [`Sum`]). Each field adds
    /// less than 2^34 for every 32 bits, so it takes 2^30 fields to overflow.
    sum: u64,
}

/// Which of a packet's checksums is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChecksumError {
    /// The IPv4 header's.
    Ipv4,
    /// The UDP datagram's, or it is missing in IPv6, which demands one.
    Udp,
    /// The TCP segment's.
    Tcp,
    /// The ICMP message's.
    Icmp,
    /// The ICMPv6 message's.
    Icmpv6,
}

impl Sum {
    /// The sum of nothing.
    #[inline]
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Adds bytes. What is added in several parts must have an even length in all but the last.
    #[inline]
    #[must_use]
    pub fn bytes(self, bytes: &[u8]) -> Self {
        let mut sum = u128::from(self.0);
        let (words, tail) = bytes.as_chunks::<8>();
        for word in words {
            sum += u128::from(u64::from_ne_bytes(*word));
        }
        let (words, tail) = tail.as_chunks::<4>();
        for word in words {
            sum += u128::from(u32::from_ne_bytes(*word));
        }
        let (words, tail) = tail.as_chunks::<2>();
        for word in words {
            sum += u128::from(u16::from_ne_bytes(*word));
        }
        if let [last] = tail {
            // An odd octet is the first of a word whose second is zero.
            sum += u128::from(u16::from_ne_bytes([*last, 0]));
        }
        Self(fold_128(sum))
    }

    /// Adds a word.
    #[inline]
    #[must_use]
    pub fn u16(self, word: u16) -> Self {
        self.bytes(&word.to_be_bytes())
    }

    /// The checksum: the complement of the sum.
    #[inline]
    #[must_use]
    pub fn checksum(self) -> u16 {
        !u16::from_be(fold_64(self.0))
    }

    /// Whether a sum that includes a checksum says that nothing changed on the way.
    #[inline]
    #[must_use]
    pub fn is_valid(self) -> bool {
        self.checksum() == 0
    }
}

impl PseudoHeader {
    /// The sum over the pseudo-header of a transport message of `length` octets.
    #[inline]
    #[must_use]
    pub fn sum(&self, protocol: IpProtocol, length: u32) -> Sum {
        let sum = match self {
            Self::Ipv4 { source, destination } => Sum::new().bytes(source).bytes(destination),
            Self::Ipv6 { source, destination } => Sum::new().bytes(source).bytes(destination),
        };
        // In IPv4 the length has 16 bits, in IPv6 32: the upper half adds zero where it is not.
        sum.bytes(&length.to_be_bytes()).u16(u16::from(protocol.0))
    }

    fn message(&self, protocol: IpProtocol, parts: [&[u8]; 3]) -> Sum {
        let length = parts.iter().map(|part| part.len()).sum::<usize>();
        // No IP packet is longer than its length fields can say.
        let length = u32::try_from(length).unwrap_or(u32::MAX);
        let [header, options, payload] = parts;
        self.sum(protocol, length).bytes(header).bytes(options).bytes(payload)
    }
}

impl ChecksumUpdate {
    /// Nothing changed so far.
    #[inline]
    pub const fn new() -> Self {
        Self { sum: 0 }
    }

    /// A 16-bit field changed.
    #[inline]
    pub fn replace_u16(mut self, old: u16, new: u16) -> Self {
        self.sum += u64::from(!old.to_be()) + u64::from(new.to_be());
        self
    }

    /// A 32-bit field changed, as an IPv4 address or a sequence number.
    #[inline]
    pub fn replace_u32(mut self, old: u32, new: u32) -> Self {
        // 2^16 is 1 modulo 2^16 - 1, so both halves count alike and folding joins them.
        self.sum += u64::from(!old.to_be()) + u64::from(new.to_be());
        self
    }

    /// A 128-bit field changed, as an IPv6 address.
    #[inline]
    pub fn replace_u128(self, old: u128, new: u128) -> Self {
        self.replace_bytes(old.to_be_bytes(), new.to_be_bytes())
    }

    /// Octets changed, as those of an address; an even number of them.
    #[inline]
    pub fn replace_bytes<const N: usize>(mut self, old: [u8; N], new: [u8; N]) -> Self {
        const { assert!(N.is_multiple_of(2), "a checksum is made of 16-bit words") };
        let (old, old_rest) = old.as_chunks::<4>();
        let (new, new_rest) = new.as_chunks::<4>();
        for (old, new) in old.iter().zip(new) {
            self.sum += u64::from(!u32::from_ne_bytes(*old)) + u64::from(u32::from_ne_bytes(*new));
        }
        if let (&[a, b], &[c, d]) = (old_rest, new_rest) {
            self.sum += u64::from(!u16::from_ne_bytes([a, b])) + u64::from(u16::from_ne_bytes([c, d]));
        }
        self
    }

    /// Mends the checksum of an IPv4 header, a TCP segment, an ICMP or an ICMPv6 message.
    #[inline]
    pub fn apply(self, checksum: &mut U16) {
        let old = u16::from_ne_bytes(checksum.to_bytes());
        *checksum = U16::from_bytes(self.applied(old).to_ne_bytes());
    }

    /// Mends the checksum of a UDP datagram: zero, which says that there is none, stays zero, and
    /// a sum that comes to zero is sent as `0xffff` (RFC 768).
    #[inline]
    pub fn apply_udp(self, checksum: &mut U16) {
        let old = u16::from_ne_bytes(checksum.to_bytes());
        if old != 0 {
            *checksum = U16::from_bytes(udp_zero(self.applied(old)).to_ne_bytes());
        }
    }

    /// A checksum after the changes, as it lies in memory.
    #[inline]
    fn applied(self, checksum: u16) -> u16 {
        !fold_64(u64::from(!checksum) + self.sum)
    }
}

impl Headers<'_> {
    /// Checks the IPv4 header's checksum and the transport's.
    ///
    /// What cannot be checked passes: the transport of a fragment, that of an IPv6 packet with
    /// waypoints before it, and UDP without a checksum in IPv4.
    ///
    /// # Errors
    ///
    /// The first checksum that is wrong, from the outside in.
    pub fn verify_checksums(&self) -> Result<(), ChecksumError> {
        if let Network::Ipv4 { header, options } = &self.network
            && !ipv4_header_is_valid(header, options)
        {
            return Err(ChecksumError::Ipv4);
        }
        let Some(pseudo_header) = self.transport_pseudo_header() else {
            return Ok(());
        };
        let (valid, error) = match &self.transport {
            Transport::Udp(header) => (udp_is_valid(&pseudo_header, header, self.payload), ChecksumError::Udp),
            Transport::Tcp { header, options } => {
                (tcp_is_valid(&pseudo_header, header, options, self.payload), ChecksumError::Tcp)
            }
            Transport::Icmp(header) => (icmp_is_valid(header, self.payload), ChecksumError::Icmp),
            Transport::Icmpv6(header) => (icmpv6_is_valid(&pseudo_header, header, self.payload), ChecksumError::Icmpv6),
            Transport::Fragment(_) | Transport::Other(_) | Transport::None => return Ok(()),
        };
        if valid { Ok(()) } else { Err(error) }
    }

    /// Computes the IPv4 header's checksum and the transport's whole, and writes them.
    ///
    /// It leaves alone what [`verify_checksums`](Self::verify_checksums) cannot check: in
    /// particular, a UDP datagram without a checksum in IPv4 stays without.
    pub fn fill_checksums(&mut self) {
        if let Network::Ipv4 { header, options } = &mut self.network {
            header.header_checksum = ipv4_header(header, options).into();
        }
        let Some(pseudo_header) = self.transport_pseudo_header() else {
            return;
        };
        match &mut self.transport {
            Transport::Udp(header) => {
                let none = header.checksum.get() == 0 && matches!(pseudo_header, PseudoHeader::Ipv4 { .. });
                if !none {
                    header.checksum = udp(&pseudo_header, header, self.payload).into();
                }
            }
            Transport::Tcp { header, options } => {
                header.checksum = tcp(&pseudo_header, header, options, self.payload).into();
            }
            Transport::Icmp(header) => header.checksum = icmp(header, self.payload).into(),
            Transport::Icmpv6(header) => {
                header.checksum = icmpv6(&pseudo_header, header, self.payload).into();
            }
            Transport::Fragment(_) | Transport::Other(_) | Transport::None => {}
        }
    }

    /// Completes the checksum of TCP or UDP if it is that of the pseudo-header alone, not
    /// complemented, as the kernel leaves it to devices, and says whether that was so. A checksum
    /// that is right stays, whatever it looks like.
    pub fn complete_partial_checksum(&mut self) -> bool {
        let Some(pseudo_header) = self.transport_pseudo_header() else { return false };
        let (protocol, found, length) = match &self.transport {
            Transport::Udp(header) => (IpProtocol::UDP, header.checksum.get(), UdpHeader::LENGTH),
            Transport::Tcp { header, options } => {
                (IpProtocol::TCP, header.checksum.get(), TcpHeader::LENGTH + options.len())
            }
            _ => return false,
        };
        let Ok(length) = u32::try_from(length + self.payload.len()) else { return false };
        let partial = found != 0 && !pseudo_header.sum(protocol, length).checksum() == found;
        let wrong = partial && matches!(self.verify_checksums(), Err(ChecksumError::Udp | ChecksumError::Tcp));
        if wrong {
            self.fill_checksums();
        }
        wrong
    }

    /// The pseudo-header, unless not all that the transport's checksum covers is here.
    fn transport_pseudo_header(&self) -> Option<PseudoHeader> {
        match self.network.fragment() {
            Some(_) => None,
            None => self.network.pseudo_header(),
        }
    }
}

/// The Internet checksum of `bytes`, RFC 1071.
#[inline]
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    Sum::new().bytes(bytes).checksum()
}

/// The checksum that an IPv4 header with these options should have, RFC 791 section 3.1.
#[inline]
#[must_use]
pub fn ipv4_header(header: &Ipv4Header, options: &[u8]) -> u16 {
    let mut header = *header;
    header.header_checksum = U16::ZERO;
    Sum::new().bytes(header.as_bytes()).bytes(options).checksum()
}

/// Whether an IPv4 header's checksum is right.
#[inline]
#[must_use]
pub fn ipv4_header_is_valid(header: &Ipv4Header, options: &[u8]) -> bool {
    Sum::new().bytes(header.as_bytes()).bytes(options).is_valid()
}

/// The checksum that a UDP datagram should have, RFC 768; never zero, which would mean none.
///
/// The payload is as long as the UDP length says.
#[must_use]
pub fn udp(pseudo_header: &PseudoHeader, header: &UdpHeader, payload: &[u8]) -> u16 {
    let mut header = *header;
    header.checksum = U16::ZERO;
    let sum = pseudo_header.message(IpProtocol::UDP, [header.as_bytes(), &[], payload]);
    udp_zero(sum.checksum())
}

/// Whether a UDP datagram's checksum is right. None at all (zero) is right in IPv4, and not in
/// IPv6 (RFC 8200 section 8.1).
#[must_use]
pub fn udp_is_valid(pseudo_header: &PseudoHeader, header: &UdpHeader, payload: &[u8]) -> bool {
    if header.checksum == U16::ZERO {
        return matches!(pseudo_header, PseudoHeader::Ipv4 { .. });
    }
    pseudo_header.message(IpProtocol::UDP, [header.as_bytes(), &[], payload]).is_valid()
}

/// The checksum that a TCP segment should have, RFC 9293 section 3.1.
#[must_use]
pub fn tcp(pseudo_header: &PseudoHeader, header: &TcpHeader, options: &[u8], payload: &[u8]) -> u16 {
    let mut header = *header;
    header.checksum = U16::ZERO;
    pseudo_header.message(IpProtocol::TCP, [header.as_bytes(), options, payload]).checksum()
}

/// Whether a TCP segment's checksum is right.
#[must_use]
pub fn tcp_is_valid(pseudo_header: &PseudoHeader, header: &TcpHeader, options: &[u8], payload: &[u8]) -> bool {
    pseudo_header.message(IpProtocol::TCP, [header.as_bytes(), options, payload]).is_valid()
}

/// The checksum that an ICMP message should have, RFC 792: it has no pseudo-header.
#[must_use]
pub fn icmp(header: &IcmpHeader, payload: &[u8]) -> u16 {
    let mut header = *header;
    header.checksum = U16::ZERO;
    Sum::new().bytes(header.as_bytes()).bytes(payload).checksum()
}

/// Whether an ICMP message's checksum is right.
#[must_use]
pub fn icmp_is_valid(header: &IcmpHeader, payload: &[u8]) -> bool {
    Sum::new().bytes(header.as_bytes()).bytes(payload).is_valid()
}

/// The checksum that an ICMPv6 message should have, RFC 4443 section 2.3.
#[must_use]
pub fn icmpv6(pseudo_header: &PseudoHeader, header: &Icmpv6Header, payload: &[u8]) -> u16 {
    let mut header = *header;
    header.checksum = U16::ZERO;
    pseudo_header.message(IpProtocol::ICMPV6, [header.as_bytes(), &[], payload]).checksum()
}

/// Whether an ICMPv6 message's checksum is right.
#[must_use]
pub fn icmpv6_is_valid(pseudo_header: &PseudoHeader, header: &Icmpv6Header, payload: &[u8]) -> bool {
    pseudo_header.message(IpProtocol::ICMPV6, [header.as_bytes(), &[], payload]).is_valid()
}

impl ChecksumError {
    /// A name for metrics: lower case, underscores between words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4_checksum",
            Self::Udp => "udp_checksum",
            Self::Tcp => "tcp_checksum",
            Self::Icmp => "icmp_checksum",
            Self::Icmpv6 => "icmpv6_checksum",
        }
    }
}

impl fmt::Display for ChecksumError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "the IPv4 header checksum is wrong",
            Self::Udp => "the UDP checksum is wrong or missing",
            Self::Tcp => "the TCP checksum is wrong",
            Self::Icmp => "the ICMP checksum is wrong",
            Self::Icmpv6 => "the ICMPv6 checksum is wrong",
        })
    }
}

impl core::error::Error for ChecksumError {}

/// Zero is not sent: it would say that there is no checksum.
#[inline]
fn udp_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// Folds to 64 bits, carries around.
#[inline]
fn fold_128(sum: u128) -> u64 {
    let low = (sum & 0xffff_ffff_ffff_ffff) as u64;
    let high = (sum >> 64) as u64;
    let (sum, carry) = low.overflowing_add(high);
    sum + u64::from(carry)
}

/// Folds to 16 bits, carries around. Only a sum of zero folds to zero.
#[inline]
fn fold_64(sum: u64) -> u16 {
    // A number and the same with its halves exchanged: above, the sum of both with its carry brought round.
    #[allow(clippy::cast_possible_truncation, reason = "shifted so far")]
    let sum = (sum.wrapping_add(sum.rotate_left(32)) >> 32) as u32;
    #[allow(clippy::cast_possible_truncation, reason = "shifted so far")]
    let sum = (sum.wrapping_add(sum.rotate_left(16)) >> 16) as u16;
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::Frame;

    const A4: [u8; 4] = [192, 0, 2, 1];
    const B4: [u8; 4] = [198, 51, 100, 1];
    const A6: [u16; 8] = [0x2001, 0xdb8, 0, 1, 0, 0, 0, 1];
    const B6: [u16; 8] = [0x2001, 0xdb8, 0, 2, 0, 0, 0, 2];

    /// The reference: a loop over pairs of bytes that shares nothing with the code it judges.
    fn naive(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            let high = u32::from(pair[0]) * 256;
            let low = pair.get(1).map_or(0, |low| u32::from(*low));
            sum += high + low;
            if sum > 0xffff {
                sum -= 0xffff;
            }
        }
        0xffff - u16::try_from(sum).unwrap()
    }

    #[test]
    fn published_examples_come_out_as_published() {
        // description, bytes, checksum
        let cases: [(&str, &[u8], u16); 5] = [
            ("nothing", &[], 0xffff),
            ("one octet", &[0x12], !0x1200),
            ("three octets", &[0x00, 0x01, 0xf2], !0xf201),
            ("RFC 1071 section 3", &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7], !0xddf2),
            (
                "an IPv4 header",
                &[
                    0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8, 0x00, 0x01,
                    0xc0, 0xa8, 0x00, 0xc7,
                ],
                0xb861,
            ),
        ];
        for (description, bytes, expected) in cases {
            assert_eq!(checksum(bytes), expected, "{description}");
            assert_eq!(naive(bytes), expected, "{description}");
        }
    }

    #[test]
    fn an_update_follows_the_zero_rules() {
        // description, checksum, old, new, other checksum after, UDP checksum after
        let cases = [
            ("RFC 1624 section 4", 0xdd2f, 0x5555, 0x3285, 0x0000, 0xffff),
            ("UDP without a checksum", 0x0000, 0x1111, 0x1112, 0xfffe, 0x0000),
            ("UDP whose sum was zero", 0xffff, 0x1111, 0x1112, 0xfffe, 0xfffe),
            ("a sum that wraps", 0x0001, 0x0000, 0x0003, 0xfffd, 0xfffd),
        ];
        for (description, before, old, new, other, udp) in cases {
            let update = ChecksumUpdate::new().replace_u16(old, new);
            let mut checksum = U16::new(before);
            update.apply(&mut checksum);
            assert_eq!(checksum.get(), other, "{description}");
            let mut checksum = U16::new(before);
            update.apply_udp(&mut checksum);
            assert_eq!(checksum.get(), udp, "{description}, UDP");
        }
    }

    #[test]
    fn an_update_of_nothing_changes_nothing() {
        for before in [0x0000, 0x0001, 0x8000, 0xfffe, 0xffff] {
            let mut checksum = U16::new(before);
            ChecksumUpdate::new().apply(&mut checksum);
            assert_eq!(checksum.get(), before);
            ChecksumUpdate::new().apply_udp(&mut checksum);
            assert_eq!(checksum.get(), before);
        }
    }

    #[test]
    fn a_wrong_checksum_is_told_by_its_layer() {
        let udp = |frame: Frame| frame.udp(1000, 53).payload(b"odd");
        let v4 = || Frame::new().ipv4(A4, B4);
        let v6 = || Frame::new().ipv6(A6, B6);
        // description, frame, octet to flip a bit of, expected
        let cases = [
            ("IPv4 header", udp(v4()), 22, Err(ChecksumError::Ipv4)),
            ("IPv4 options", udp(v4()).ipv4_options(&[1; 4]), 34, Err(ChecksumError::Ipv4)),
            ("UDP", udp(v4()), 44, Err(ChecksumError::Udp)),
            ("UDP without a checksum", udp(v4()).without_udp_checksum(), 44, Ok(())),
            ("UDP in IPv6", udp(v6()), 64, Err(ChecksumError::Udp)),
            ("address of IPv6", udp(v6()), 53, Err(ChecksumError::Udp)),
            ("TCP", v4().tcp(1, 2), 34, Err(ChecksumError::Tcp)),
            ("TCP options", v6().tcp(1, 2).tcp_options(&[1; 4]), 75, Err(ChecksumError::Tcp)),
            ("ICMP", v4().icmp_echo_request(1, 2), 39, Err(ChecksumError::Icmp)),
            ("ICMPv6", v6().icmpv6_echo_request(1, 2), 59, Err(ChecksumError::Icmpv6)),
            ("a fragment", udp(v4()).fragment(0, true), 44, Ok(())),
            ("a fragment", udp(v6()).fragment(0, true), 72, Ok(())),
            ("a destination that is a waypoint", udp(v6()).extension(43, &[4, 1]), 72, Ok(())),
        ];
        for (description, frame, octet, expected) in cases {
            let mut bytes = frame.build();
            let right = Headers::parse(&mut bytes).unwrap().verify_checksums();
            assert_eq!(right, Ok(()), "{description}");
            bytes[octet] ^= 0x10;
            let wrong = Headers::parse(&mut bytes).unwrap().verify_checksums();
            assert_eq!(wrong, expected, "{description}");
        }
    }

    #[test]
    fn a_udp_checksum_may_be_missing_in_ipv4_only() {
        let mut bytes = Frame::new().ipv6(A6, B6).udp(1, 2).without_udp_checksum().build();
        let mut headers = Headers::parse(&mut bytes).unwrap();
        assert_eq!(headers.verify_checksums(), Err(ChecksumError::Udp));
        headers.fill_checksums();
        assert_eq!(bytes, Frame::new().ipv6(A6, B6).udp(1, 2).build());

        let frame = Frame::new().ipv4(A4, B4).udp(1, 2).without_udp_checksum();
        let mut bytes = frame.build();
        Headers::parse(&mut bytes).unwrap().fill_checksums();
        assert_eq!(bytes, frame.build());
    }

    #[test]
    fn a_udp_checksum_that_comes_to_zero_is_sent_as_all_ones() {
        // Let the payload be what is missing to a sum of all ones.
        let mut bytes = Frame::new().ipv4(A4, B4).udp(1, 2).payload(&[0, 0]).build();
        let Transport::Udp(udp) = Headers::parse(&mut bytes).unwrap().transport else {
            panic!("not UDP");
        };
        let missing = udp.checksum.get().to_be_bytes();
        let mut bytes = Frame::new().ipv4(A4, B4).udp(1, 2).payload(&missing).build();
        let mut headers = Headers::parse(&mut bytes).unwrap();
        headers.fill_checksums();
        assert_eq!(headers.verify_checksums(), Ok(()));
        let Transport::Udp(udp) = headers.transport else {
            panic!("not UDP");
        };
        assert_eq!(udp.checksum.get(), 0xffff);
    }

    /// Bytes that carry much to fold, or little.
    fn bytes(length: impl Into<prop::collection::SizeRange>) -> impl Strategy<Value = Vec<u8>> {
        let octet = prop_oneof![any::<u8>(), Just(0), Just(0xff)];
        prop::collection::vec(octet, length)
    }

    fn frames() -> impl Strategy<Value = Frame> {
        let kind = prop::sample::select(vec![
            Frame::new().ipv4(A4, B4).udp(1000, 53),
            Frame::new().ipv4(A4, B4).udp(1000, 53).without_udp_checksum(),
            Frame::new().ipv4(A4, B4).ipv4_options(&[1; 12]).tcp(1, 2),
            Frame::new().ipv4(A4, B4).icmp_echo_reply(0, 1),
            Frame::new().ipv6(A6, B6).udp(1000, 53),
            Frame::new().ipv6(A6, B6).tcp(1, 2).tcp_options(&[1; 8]),
            Frame::new().ipv6(A6, B6).extension(60, &[]).icmpv6_echo_request(1, 2),
        ]);
        (kind, bytes(0..80)).prop_map(|(frame, payload)| frame.payload(&payload))
    }

    #[test]
    fn a_partial_checksum_is_completed_and_a_right_one_stays() {
        use crate::testing::Frame;
        let v4 = || Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]);
        let v6 = || Frame::new().ipv6([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1], [0x2001, 0xdb8, 0, 2, 0, 0, 0, 2]);
        for (what, frame, place) in [
            ("TCP", v4().tcp(1, 2).payload(b"hello"), 34 + 16),
            ("TCP with options", v4().tcp(1, 2).tcp_options(&[1, 1, 1, 1]).payload(b"hi"), 34 + 16),
            ("UDP", v4().udp(1, 2).payload(b"hello"), 34 + 6),
            ("TCP in IPv6", v6().tcp(1, 2).payload(b"hello"), 54 + 16),
            ("UDP in IPv6", v6().udp(1, 2).payload(b"hello"), 54 + 6),
        ] {
            let right = frame.build();
            let mut frame = right.clone();
            assert!(!Headers::parse(&mut frame).unwrap().complete_partial_checksum(), "{what}");
            assert_eq!(frame, right, "{what}");
            // The sum of the pseudo-header, word by word.
            let v4 = frame[12] == 8;
            let (addresses, protocol, start) = if v4 { (26..34, frame[23], 34) } else { (22..54, frame[20], 54) };
            let mut sum: u32 =
                frame[addresses].chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1])).sum();
            sum += u32::from(protocol) + u32::try_from(frame.len() - start).unwrap();
            let folded = (sum & 0xffff) + (sum >> 16);
            let partial = u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap();
            frame[place..place + 2].copy_from_slice(&partial.to_be_bytes());
            assert!(Headers::parse(&mut frame).unwrap().complete_partial_checksum(), "{what}");
            assert_eq!(frame, right, "{what}");
            // Another wrong one is not ours to mend.
            frame[place] ^= 0x55;
            let wrong = frame.clone();
            assert!(!Headers::parse(&mut frame).unwrap().complete_partial_checksum(), "{what}");
            assert_eq!(frame, wrong, "{what}");
        }
    }

    proptest! {
        #[test]
        fn a_whole_checksum_is_the_naive_one(bytes in bytes(0..1600)) {
            prop_assert_eq!(checksum(&bytes), naive(&bytes));
        }

        #[test]
        fn parts_of_even_length_add_up(bytes in bytes(0..200), cut in 0usize..100) {
            let (first, second) = bytes.split_at((cut * 2).min(bytes.len() / 2 * 2));
            let sum = Sum::new().bytes(first).bytes(second);
            prop_assert_eq!(sum.checksum(), naive(&bytes));
        }

        #[test]
        fn the_builder_and_this_module_agree(frame in frames()) {
            let expected = frame.build();
            let mut bytes = expected.clone();
            let mut headers = Headers::parse(&mut bytes).unwrap();
            prop_assert_eq!(headers.verify_checksums(), Ok(()));
            headers.fill_checksums();
            prop_assert_eq!(bytes, expected);
        }

        #[test]
        fn an_update_is_as_good_as_computing_anew(
            mut message in bytes(64usize),
            new in bytes(22usize),
            places in Just([0usize, 2, 6, 22, 26]),
        ) {
            // Something that does not change is not zero, as the version of IP never is.
            message[63] |= 1;
            let mut updated = U16::new(naive(&message));
            let take = |message: &[u8], place, length| message[place..place + length].to_vec();
            let mut update = ChecksumUpdate::new();

            let old = take(&message, places[0], 2);
            message[places[0]..][..2].copy_from_slice(&new[..2]);
            update = update.replace_u16(
                u16::from_be_bytes(old.try_into().unwrap()),
                u16::from_be_bytes(new[..2].try_into().unwrap()),
            );
            let old = take(&message, places[1], 4);
            message[places[1]..][..4].copy_from_slice(&new[2..6]);
            update = update.replace_u32(
                u32::from_be_bytes(old.try_into().unwrap()),
                u32::from_be_bytes(new[2..6].try_into().unwrap()),
            );
            let old = take(&message, places[2], 16);
            message[places[2]..][..16].copy_from_slice(&new[6..]);
            update = update.replace_u128(
                u128::from_be_bytes(old.try_into().unwrap()),
                u128::from_be_bytes(new[6..].try_into().unwrap()),
            );
            let old = take(&message, places[3], 4);
            message[places[3]..][..4].copy_from_slice(&new[8..12]);
            update = update.replace_bytes::<4>(
                old.try_into().unwrap(),
                new[8..12].try_into().unwrap(),
            );

            update.apply(&mut updated);
            prop_assert_eq!(updated.get(), naive(&message));
        }

        #[test]
        fn a_udp_update_is_as_good_as_computing_anew(
            source in any::<[u8; 4]>(),
            new_source in any::<[u8; 4]>(),
            port in any::<u16>(),
            new_port in any::<u16>(),
            payload in bytes(0..20),
        ) {
            let frame = |source, port| Frame::new().ipv4(source, B4).udp(port, 53).payload(&payload);
            let mut bytes = frame(source, port).build();
            let Headers { network, transport, .. } = Headers::parse(&mut bytes).unwrap();
            let (Network::Ipv4 { header, .. }, Transport::Udp(udp)) = (network, transport) else {
                panic!("not UDP in IPv4");
            };
            let address = ChecksumUpdate::new().replace_bytes(header.source, new_source);
            header.source = new_source;
            address.apply(&mut header.header_checksum);
            udp.source_port.set(new_port);
            address.replace_u16(port, new_port).apply_udp(&mut udp.checksum);
            prop_assert_eq!(bytes, frame(new_source, new_port).build());
        }

        #[test]
        fn an_update_keeps_a_wrong_checksum_wrong(
            mut message in bytes(20usize),
            new in any::<u32>(),
            error in 1u16..0xffff,
        ) {
            message[19] |= 1;
            let right = naive(&message);
            // A checksum that differs in more than the two ways to write zero.
            let wrong = (u32::from(right) + u32::from(error)) % 0xffff;
            let mut updated = U16::new(u16::try_from(wrong).unwrap());
            let old = u32::from_be_bytes(message[4..8].try_into().unwrap());
            message[4..8].copy_from_slice(&new.to_be_bytes());
            ChecksumUpdate::new().replace_u32(old, new).apply(&mut updated);
            prop_assert_ne!(updated.get() % 0xffff, naive(&message) % 0xffff);
        }
    }
}
