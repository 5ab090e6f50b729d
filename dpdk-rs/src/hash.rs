//! A hash for tables that strangers fill: fast for short keys, and different in every process.

use crate::rss::Random;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// A keyed hash of bytes by folded multiplication: each 16 bytes cost one multiplication of
/// 64 by 64 bits, the two halves of whose product are put together.
///
/// Who does not know the key cannot tell which keys of a table meet in one place, so a flood
/// of chosen packets fills a table no worse than any other. It is no cryptographic hash:
/// never show its values to strangers.
///
/// ```
/// use dpdk_rs::HashKey;
/// let (mine, yours) = (HashKey::from_seed(1), HashKey::from_seed(2));
/// assert_eq!(mine.hash(b"a flow"), HashKey::from_seed(1).hash(b"a flow"));
/// assert_ne!(mine.hash(b"a flow"), yours.hash(b"a flow"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct HashKey([u64; 4]);

impl HashKey {
    /// A key that nobody can guess, from the operating system's random numbers.
    #[must_use]
    pub fn random() -> Self {
        // The standard library's way to ask for them, without a failure to handle: SipHash
        // under a key from getrandom.
        let system = RandomState::new();
        Self([0, 1, 2, 3].map(|part: u64| system.hash_one(part)))
    }

    /// The same key for the same seed: for tests, and for runs to be repeated. Whoever knows
    /// the seed can fill a table badly.
    #[must_use]
    pub fn from_seed(seed: u64) -> Self {
        let mut random = Random(seed);
        Self([0; 4].map(|_: u64| random.next()))
    }

    /// The hash of some bytes. Fastest where the compiler knows how many: 1.5 ns for 16.
    #[inline(always)]
    #[must_use]
    pub fn hash(&self, bytes: &[u8]) -> u64 {
        let [first, second, third, last] = self.0;
        let mut state = first;
        let (pieces, rest) = bytes.as_chunks::<16>();
        for piece in pieces {
            let (low, high) = words(piece);
            state = fold(low ^ state, high ^ second);
        }
        if !rest.is_empty() {
            let mut piece = [0; 16];
            piece.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            let (low, high) = words(&piece);
            state = fold(low ^ state, high ^ second);
        }
        // The product of one multiplication shows too much of a key of 16 bytes. The length
        // makes bytes of zero at the end count.
        fold(state ^ third, last ^ bytes.len() as u64)
    }
}

/// The key stays out of logs.
impl std::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKey(..)")
    }
}

#[inline(always)]
fn words(piece: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*piece);
    halves(both)
}

#[inline(always)]
fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = halves(u128::from(a) * u128::from(b));
    low ^ high
}

#[inline(always)]
#[allow(clippy::cast_possible_truncation, reason = "that is what halves are")]
fn halves(both: u128) -> (u64, u64) {
    (both as u64, (both >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_length_and_every_bit_counts() {
        let key = HashKey::from_seed(1);
        let mut seen = HashSet::new();
        for len in 0..=48 {
            let mut bytes = vec![0; len];
            assert!(seen.insert(key.hash(&bytes)), "{len} zeros");
            for bit in 0..len * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                assert!(seen.insert(key.hash(&bytes)), "bit {bit} of {len} bytes");
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn a_changed_bit_changes_half_of_the_hash() {
        for (seed, len) in (0..100).flat_map(|seed| [16, 32, 40].map(|len| (seed, len))) {
            let key = HashKey::from_seed(seed);
            let mut bytes = vec![0xa5_u8; len];
            let before = key.hash(&bytes);
            let mut flipped = 0;
            for bit in 0..len * 8 {
                bytes[bit / 8] ^= 1 << (bit % 8);
                flipped += (key.hash(&bytes) ^ before).count_ones();
                bytes[bit / 8] ^= 1 << (bit % 8);
            }
            let mean = f64::from(flipped) / (len * 8) as f64;
            assert!((30.0..34.0).contains(&mean), "seed {seed}, {len} bytes: {mean} bits of 64");
        }
    }

    #[test]
    fn neighbouring_flows_spread_over_all_bytes_of_the_hash() {
        // Addresses and ports in rows, as in one network behind one router.
        let key = HashKey::from_seed(7);
        let mut counts = [[0_u32; 256]; 8];
        for flow in 0..1_u32 << 16 {
            let mut bytes = [0; 16];
            bytes[3] = flow.to_le_bytes()[1];
            bytes[9] = flow.to_le_bytes()[0];
            for (counts, byte) in counts.iter_mut().zip(key.hash(&bytes).to_le_bytes()) {
                counts[usize::from(byte)] += 1;
            }
        }
        for (byte, counts) in counts.iter().enumerate() {
            // 256 expected in each; chi squared with 255 degrees of freedom.
            let chi: f64 = counts.iter().map(|count| (f64::from(*count) - 256.0).powi(2) / 256.0).sum();
            assert!((150.0..400.0).contains(&chi), "byte {byte}: chi squared {chi}");
        }
    }

    #[test]
    fn two_random_keys_differ_and_hide_themselves() {
        let (one, other) = (HashKey::random(), HashKey::random());
        assert!(one != other);
        assert_eq!(format!("{one:?}"), "HashKey(..)");
    }
}
