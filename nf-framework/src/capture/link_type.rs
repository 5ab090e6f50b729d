//! How captured packets begin.

use std::fmt;

/// How a packet begins, by the numbers of <https://www.tcpdump.org/linktypes.html>. Displays as the link's name, if it
/// is a usual one, with its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// An Ethernet header, without preamble and, usually, without frame check sequence.
    pub const ETHERNET: Self = Self(1);
    /// An IPv4 or IPv6 header.
    pub const RAW: Self = Self(101);
    /// What Linux gives of the interface "any": 16 octets of its own, the last two an Ethernet type.
    pub const LINUX_SLL: Self = Self(113);
    /// An IPv4 header.
    pub const IPV4: Self = Self(228);
    /// An IPv6 header.
    pub const IPV6: Self = Self(229);
    /// What Linux gives of the interface "any": 20 octets of its own, the first two an Ethernet type.
    pub const LINUX_SLL2: Self = Self(276);
}

impl fmt::Display for LinkType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.0 {
            0 | 108 => "BSD loopback",
            1 => "Ethernet",
            6 => "Token Ring",
            9 | 50 => "PPP",
            51 => "PPPoE",
            101 => "raw IP",
            104 => "Cisco HDLC",
            105 => "IEEE 802.11",
            107 => "Frame Relay",
            113 | 276 => "Linux cooked",
            127 => "IEEE 802.11 with radiotap",
            189 | 220 | 249 => "USB",
            187 | 201 | 254 => "Bluetooth",
            195 | 230 | 283 => "IEEE 802.15.4",
            227 => "CAN",
            228 => "raw IPv4",
            229 => "raw IPv6",
            239 => "NFLOG",
            247 => "InfiniBand",
            _ => return write!(f, "number {}", self.0),
        };
        write!(f, "{name} ({})", self.0)
    }
}
