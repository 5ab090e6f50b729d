//! Address prefixes.

use std::fmt;
use std::net::{AddrParseError, IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// An IPv4 or IPv6 prefix, `192.0.2.0/24` or `2001:db8::/32`; an address alone is the prefix of
/// itself. A length of 0 is all addresses of its family. An IPv4-mapped IPv6 prefix
/// (`::ffff:0:0/96`) is IPv6: it contains no IPv4 address.
///
/// ```
/// use nf_framework::Prefix;
///
/// let net: Prefix = "192.0.2.0/24".parse()?;
/// assert!(net.contains([192, 0, 2, 7].into()));
/// assert_eq!("192.0.2.1/24".parse::<Prefix>().unwrap_err().to_string(),
///     "192.0.2.1/24 has bits set behind its length: write 192.0.2.0/24");
/// # Ok::<(), nf_framework::InvalidPrefix>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Whether an address is one that a host may have: not of a group, of nobody, of itself, or
/// reserved (RFC 1122 section 3.2.1.3, RFC 4291 section 2.4).
pub(crate) fn is_host(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !matches!(v4.octets()[0], 0 | 127 | 224..),
        IpAddr::V6(v6) => {
            !v6.is_unspecified() && !v6.is_loopback() && !v6.is_multicast() && v6.to_ipv4_mapped().is_none()
        }
    }
}

/// What is not a [`Prefix`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPrefix {
    /// No address stands before the slash.
    #[error("{text:?} does not begin with an IPv4 or IPv6 address")]
    Address {
        /// What was given.
        text: String,
        /// What the standard library says of it.
        source: AddrParseError,
    },
    /// What stands behind the slash is not a number that the family has.
    #[error("{text:?} is not a prefix: the length is from 0 to {most}")]
    Length {
        /// What was given.
        text: String,
        /// Bits in an address of the family.
        most: u8,
    },
    /// Bits behind the length are set, so that it is unclear what was meant.
    #[error("{address}/{length} has bits set behind its length: write {meant}")]
    HostBits {
        /// The address given.
        address: IpAddr,
        /// The length given.
        length: u8,
        /// The prefix of this length that has the address.
        meant: Prefix,
    },
}

impl Prefix {
    /// The prefix that has the first `length` bits of `address`, and no other bit set.
    ///
    /// # Errors
    ///
    /// When the length is more than the family has, or a bit behind it is set.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, InvalidPrefix> {
        let most = bits(address);
        if length > most {
            return Err(InvalidPrefix::Length { text: format!("{address}/{length}"), most });
        }
        let first = match address {
            IpAddr::V4(v4) => IpAddr::V4(Ipv4Addr::from_bits(v4.to_bits() & !host_bits_v4(length))),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !host_bits_v6(length))),
        };
        let prefix = Self { address: first, length };
        if first == address { Ok(prefix) } else { Err(InvalidPrefix::HostBits { address, length, meant: prefix }) }
    }

    /// Its first address.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.address
    }

    /// Bits that all its addresses have in common.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// Whether an address is in it.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(first), IpAddr::V4(address)) => {
                first.to_bits() ^ address.to_bits() <= host_bits_v4(self.length)
            }
            (IpAddr::V6(first), IpAddr::V6(address)) => {
                first.to_bits() ^ address.to_bits() <= host_bits_v6(self.length)
            }
            _ => false,
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits that a prefix of IPv4 leaves open.
pub(super) fn host_bits_v4(length: u8) -> u32 {
    u32::MAX.checked_shr(length.into()).unwrap_or(0)
}

/// The bits that a prefix of IPv6 leaves open.
pub(super) fn host_bits_v6(length: u8) -> u128 {
    u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self { address, length: bits(address) }
    }
}

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr =
            address.parse().map_err(|source| InvalidPrefix::Address { text: text.to_owned(), source })?;
        let most = bits(address);
        let Some(length) = length else { return Ok(address.into()) };
        // Digits alone: `parse` would take a plus sign.
        let number = length.bytes().all(|byte| byte.is_ascii_digit()).then(|| length.parse().ok()).flatten();
        let length = number.filter(|length| *length <= most);
        Self::new(address, length.ok_or_else(|| InvalidPrefix::Length { text: text.to_owned(), most })?)
    }
}

impl TryFrom<String> for Prefix {
    type Error = InvalidPrefix;

    fn try_from(text: String) -> Result<Self, InvalidPrefix> {
        text.parse()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_as_a_prefix_is_read_or_refused_with_the_reason() {
        let cases = [
            ("0.0.0.0/0", Ok("0.0.0.0/0")),
            ("::/0", Ok("::/0")),
            ("192.0.2.1", Ok("192.0.2.1/32")),
            ("192.0.2.0/24", Ok("192.0.2.0/24")),
            ("2001:db8::", Ok("2001:db8::/128")),
            ("2001:db8::/32", Ok("2001:db8::/32")),
            ("2001:db8::1/128", Ok("2001:db8::1/128")),
            ("::ffff:0:0/96", Ok("::ffff:0.0.0.0/96")),
            ("", Err("begin with")),
            ("/8", Err("begin with")),
            ("10.0.0/8", Err("begin with")),
            ("10.0.0.0/33", Err("0 to 32")),
            ("10.0.0.0/", Err("0 to 32")),
            ("10.0.0.0/+8", Err("0 to 32")),
            ("10.0.0.0/8/8", Err("0 to 32")),
            ("10.0.0.0/256", Err("0 to 32")),
            ("::/129", Err("0 to 128")),
            ("10.0.0.1/8", Err("write 10.0.0.0/8")),
            ("2001:db8::1/64", Err("write 2001:db8::/64")),
        ];
        for (text, expected) in cases {
            let read: Result<Prefix, InvalidPrefix> = text.parse();
            match (read, expected) {
                (Ok(prefix), Ok(expected)) => assert_eq!(prefix.to_string(), expected),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{text}: {error}"),
                (read, _) => panic!("{text}: {read:?}"),
            }
        }
    }

    #[test]
    fn a_prefix_contains_its_first_and_its_last_address_and_none_beside() {
        let cases = [
            ("10.0.0.0/8", "10.0.0.0", true),
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "9.255.255.255", false),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::", false),
            ("::/0", "0.0.0.0", false),
            ("::ffff:0:0/96", "1.2.3.4", false),
            ("::ffff:0:0/96", "::ffff:1.2.3.4", true),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.0", false),
            ("2001:db8::/127", "2001:db8::1", true),
            ("2001:db8::/127", "2001:db8::2", false),
        ];
        for (prefix, address, inside) in cases {
            let prefix: Prefix = prefix.parse().unwrap();
            assert_eq!(prefix.contains(address.parse().unwrap()), inside, "{prefix} {address}");
        }
    }
}
