//! Keys whose bits are chosen so that a field of the packet, and nothing else, decides.
//!
//! Result bit `b` (0 is the most significant) depends on input bit `i` by key bit `i + b`, and a
//! table of 2^n entries looks at the result bits 32 - n to 31. So key bit `k` lets the input
//! bits `k - 31` to `k - 32 + n` count, and for a field of `w` bits that starts at input bit `f`
//! the bits `f + 31` to `f + w + 31 - n` are free: they reach bits of that field only.
//!
//! The last of them is always set. It alone makes the index the field's low n bits, in
//! reversed order; those before it add combinations of higher bits to that, and so leave it
//! true that each aligned block of 2^n values fills each entry exactly once. They are
//! random, so that values with equal low bits spread too.

use super::{IpVersion, Random, RssTableSize};

/// A field of the packet that a key can let decide alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RssField {
    /// The source address, of IPv4 and IPv6 under one key. Of an IPv6 address the first and
    /// the last 32 bits count: those between would reach past IPv4's source address.
    SourceAddress,
    /// The destination address of one version; packets of the other are spread too, but not
    /// by their destination alone. Of an IPv6 address the same bits count as of the source.
    DestinationAddress(IpVersion),
    /// The source port of TCP and UDP, over one version. Packets that are hashed by addresses
    /// alone (ICMP, fragments) all come to entry 0.
    SourcePort(IpVersion),
    /// The destination port of TCP and UDP, over one version. Packets that are hashed by
    /// addresses alone (ICMP, fragments) all come to entry 0.
    DestinationPort(IpVersion),
}

/// There are fewer blocks of ports than entries of the table, so that some would get none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("blocks of 2^{block_bits} ports are too few for an RSS table of {entries} entries: make them smaller")]
pub struct PortBlocksError {
    /// Logarithm of a block's ports.
    pub block_bits: u32,
    /// Entries of the table.
    pub entries: u16,
}

/// A key of the Toeplitz hash: 40 bytes, enough for IPv6 addresses and ports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RssKey([u8; Self::LEN]);

impl RssKey {
    /// Bytes of a key: the longest input's 36, and 4 for the last bits of the result.
    pub const LEN: usize = 40;

    /// A key of these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }

    /// The key of S. Woo and K. Park ("Scalable TCP Session Monitoring with Symmetric Receive-side
    /// Scaling", 2012): both directions of a flow have the same hash, in both versions of IP.
    /// As it repeats after 16 bits, a hash has 16 random bits at most.
    #[must_use]
    pub const fn symmetric() -> Self {
        let mut bytes = [0x6d; Self::LEN];
        let mut at = 1;
        while at < Self::LEN {
            bytes[at] = 0x5a;
            at += 2;
        }
        Self(bytes)
    }

    /// A key under which one field alone decides about the entry of a table of this size, and
    /// each aligned block of as many values as the table has entries comes once to each entry.
    ///
    /// With the same seed and size an address, or a port, comes to the same entry as a
    /// source and as a destination. So a host is found by its address in both directions, by
    /// a key for the source on the one port and a key for the destination on the other.
    ///
    /// ```
    /// use dpdk_rs::{FlowTuple, IpVersion, RssField, RssKey, RssTable, RssTableSize, Toeplitz};
    /// use std::num::NonZero;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let size = RssTableSize::new(128)?;
    /// let workers = NonZero::new(3).ok_or("at least one")?;
    /// let owner = RssTable::balanced(size, workers, 1);
    /// let inside = Toeplitz::new(&RssKey::of_field(RssField::SourceAddress, size, 1));
    /// let outside = Toeplitz::new(&RssKey::of_field(RssField::DestinationAddress(IpVersion::V4), size, 1));
    ///
    /// let sent = FlowTuple::v4([192, 0, 2, 7], [198, 51, 100, 1]).with_ports(40_000, 443);
    /// let reply = sent.reversed();
    /// assert_eq!(owner.entry(inside.hash(sent.bytes())), owner.entry(outside.hash(reply.bytes())));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn of_field(field: RssField, size: RssTableSize, seed: u64) -> Self {
        use IpVersion::{V4, V6};
        let mut random = Random(seed);
        let mut address = || bits_of_field(32, size, &mut random);
        match field {
            RssField::SourceAddress => Self::of_bits(&[(0, address()), (12, address())]),
            RssField::DestinationAddress(V4) => Self::of_bits(&[(4, address())]),
            RssField::DestinationAddress(V6) => Self::of_bits(&[(16, address()), (28, address())]),
            RssField::SourcePort(version) => {
                Self::of_bits(&[(ports_at(version), bits_of_field(16, size, &mut random))])
            }
            RssField::DestinationPort(version) => {
                Self::of_bits(&[(ports_at(version) + 2, bits_of_field(16, size, &mut random))])
            }
        }
    }

    /// [`RssField::DestinationPort`] by blocks of 2^`block_bits` ports: all ports of an aligned
    /// block come to the same entry.
    ///
    /// # Errors
    ///
    /// [`PortBlocksError`] when there are fewer blocks than entries.
    pub fn of_port_blocks(
        version: IpVersion,
        block_bits: u32,
        size: RssTableSize,
        seed: u64,
    ) -> Result<Self, PortBlocksError> {
        let width = 16_u32.checked_sub(block_bits).filter(|width| *width >= size.bits());
        let width = width.ok_or(PortBlocksError { block_bits, entries: size.entries() })?;
        Ok(Self::of_bits(&[(ports_at(version) + 2, bits_of_field(width, size, &mut Random(seed)))]))
    }

    /// The key's bytes.
    #[must_use]
    pub const fn bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }

    /// A key of 64 bits at each of some bytes, and zero elsewhere. What would go beyond the
    /// key is zero.
    fn of_bits(parts: &[(usize, u64)]) -> Self {
        let mut bytes = [0; Self::LEN];
        for (at, bits) in parts {
            bytes.iter_mut().skip(*at).zip(bits.to_be_bytes()).for_each(|(byte, part)| *byte |= part);
        }
        Self(bytes)
    }

    /// The 32 bits from `bit` on, zero beyond the key.
    pub(super) fn window(&self, bit: usize) -> u32 {
        let five = self.0.iter().skip(bit / 8).chain(&[0; 5]).take(5);
        let five = five.fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        let window = (five >> (8 - bit % 8)) & u64::from(u32::MAX);
        u32::try_from(window).unwrap_or_default()
    }
}

/// Key bits for a field of `width` bits, relative to its first bit: 31 to `width + 31 - n`, the
/// last one set, the others random. At most 63 of them, as no field here has more than 32 bits.
fn bits_of_field(width: u32, size: RssTableSize, random: &mut Random) -> u64 {
    let last = 1 << (32 - width + size.bits());
    let free = (u64::MAX >> 31) & !(last - 1);
    random.next() & free | last
}

/// Bytes before the source port.
fn ports_at(version: IpVersion) -> usize {
    2 * version.address_len()
}
