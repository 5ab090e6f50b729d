//! The address of an Ethernet station.

use core::fmt;
use core::str::FromStr;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A 48-bit MAC address, RFC 9542 section 2.1, its octets in the order of the wire.
///
/// ```
/// use nf_framework::headers::MacAddress;
///
/// let address: MacAddress = "02:00:00:00:00:0a".parse()?;
/// assert_eq!(address, MacAddress([2, 0, 0, 0, 0, 10]));
/// assert_eq!(address.to_string(), "02:00:00:00:00:0a");
/// # Ok::<(), nf_framework::headers::InvalidMacAddress>(())
/// ```
#[derive(
    Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct MacAddress(pub [u8; 6]);

/// A text is not six hexadecimal octets with colons between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidMacAddress;

impl MacAddress {
    /// The address of every station, `ff:ff:ff:ff:ff:ff`.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// The address of none: what an ARP request carries as its target's.
    pub const ZERO: Self = Self([0; 6]);

    /// The octets in the order of the wire.
    #[inline]
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether it names a group of stations; the broadcast address does.
    #[inline]
    #[must_use]
    pub const fn is_multicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 != 0
    }

    /// Whether it is the address of every station.
    #[inline]
    #[must_use]
    pub fn is_broadcast(self) -> bool {
        self == Self::BROADCAST
    }

    /// Whether it can be one station's own address: neither a group nor all zero.
    #[inline]
    #[must_use]
    pub fn is_unicast(self) -> bool {
        !self.is_multicast() && self != Self::ZERO
    }
}

impl From<[u8; 6]> for MacAddress {
    fn from(octets: [u8; 6]) -> Self {
        Self(octets)
    }
}

impl From<MacAddress> for [u8; 6] {
    fn from(address: MacAddress) -> Self {
        address.0
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// From text such as `02:00:00:00:00:01`, in a configuration.
impl<'de> serde::Deserialize<'de> for MacAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl FromStr for MacAddress {
    type Err = InvalidMacAddress;

    fn from_str(text: &str) -> Result<Self, InvalidMacAddress> {
        let mut parts = text.split(':');
        let mut octets = [0; 6];
        for octet in &mut octets {
            let part = parts.next().ok_or(InvalidMacAddress)?;
            // `from_str_radix` would take a sign.
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(InvalidMacAddress);
            }
            *octet = u8::from_str_radix(part, 16).map_err(|_| InvalidMacAddress)?;
        }
        match parts.next() {
            None => Ok(Self(octets)),
            Some(_) => Err(InvalidMacAddress),
        }
    }
}

impl fmt::Display for InvalidMacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a MAC address is six two-digit hexadecimal octets, as in 02:00:00:00:00:01")
    }
}

impl core::error::Error for InvalidMacAddress {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_an_address_only_as_six_two_digit_octets() {
        let ok = MacAddress([0x02, 0xab, 0, 0, 0, 0xff]);
        let cases = [
            ("02:ab:00:00:00:ff", Ok(ok)),
            ("02:AB:00:00:00:FF", Ok(ok)),
            ("", Err(InvalidMacAddress)),
            ("02:ab:00:00:00", Err(InvalidMacAddress)),
            ("02:ab:00:00:00:ff:00", Err(InvalidMacAddress)),
            ("02:ab:00:00:00:ff:", Err(InvalidMacAddress)),
            ("2:ab:00:00:00:ff", Err(InvalidMacAddress)),
            ("+2:ab:00:00:00:ff", Err(InvalidMacAddress)),
            ("02-ab-00-00-00-ff", Err(InvalidMacAddress)),
            ("02:ag:00:00:00:ff", Err(InvalidMacAddress)),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse(), expected, "{text:?}");
        }
    }

    #[test]
    fn an_address_is_of_one_station_or_of_a_group() {
        // address, unicast, multicast, broadcast
        let cases = [
            (MacAddress([2, 0, 0, 0, 0, 1]), true, false, false),
            (MacAddress([1, 0, 0x5e, 0, 0, 1]), false, true, false),
            (MacAddress::BROADCAST, false, true, true),
            (MacAddress::ZERO, false, false, false),
        ];
        for (address, unicast, multicast, broadcast) in cases {
            assert_eq!(address.is_unicast(), unicast, "{address}");
            assert_eq!(address.is_multicast(), multicast, "{address}");
            assert_eq!(address.is_broadcast(), broadcast, "{address}");
        }
    }
}
