//! The redirection table: which worker or queue each value of the hash's low bits is for.

use super::Random;
use std::num::NonZero;

/// A size that no redirection table here has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("an RSS table cannot have {0} entries: it takes a power of two from 2 to 4096")]
pub struct RssTableSizeError(pub usize);

/// Entries of a redirection table: a power of two, so that low bits of the hash choose one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RssTableSize(u16);

impl RssTableSize {
    /// Two entries.
    pub const SMALLEST: Self = Self(2);

    /// Checks a number of entries.
    ///
    /// # Errors
    ///
    /// [`RssTableSizeError`] unless it is a power of two from 2 to 4096.
    pub fn new(entries: u16) -> Result<Self, RssTableSizeError> {
        if entries.is_power_of_two() && (2..=4096).contains(&entries) {
            Ok(Self(entries))
        } else {
            Err(RssTableSizeError(entries.into()))
        }
    }

    /// How many entries.
    #[must_use]
    pub fn entries(self) -> u16 {
        self.0
    }

    /// Bits of the hash that choose an entry.
    pub(crate) fn bits(self) -> u32 {
        self.0.trailing_zeros()
    }
}

/// A redirection table. As a device has it, its entries are queues; before that they may be
/// workers, turned into each port's queues by [`map`](Self::map).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RssTable(Box<[u16]>);

impl RssTable {
    /// A table of these entries.
    ///
    /// # Errors
    ///
    /// [`RssTableSizeError`] unless there is a power of two of them, from 2 to 4096.
    pub fn new(entries: Vec<u16>) -> Result<Self, RssTableSizeError> {
        u16::try_from(entries.len())
            .map_err(|_| RssTableSizeError(entries.len()))
            .and_then(RssTableSize::new)
            .map(|_| Self(entries.into()))
    }

    /// A table that gives each of `workers` workers its share of the entries, one more or less,
    /// in an order that depends on the seed.
    ///
    /// Why not in turns: with a [key for one field](super::RssKey::of_field) neighbours stand
    /// far apart in the table, at a multiple of the number of workers, and would all meet
    /// on one worker.
    #[must_use]
    pub fn balanced(size: RssTableSize, workers: NonZero<u16>, seed: u64) -> Self {
        let mut entries: Box<[u16]> = (0..size.entries()).map(|entry| entry % workers).collect();
        // Fisher and Yates
        let mut random = Random(seed);
        for last in (1..entries.len()).rev() {
            entries.swap(last, random.below(last + 1));
        }
        Self(entries)
    }

    /// The same for a device with a larger table: as often as it goes in, so that the bits of
    /// the hash beyond this table's size do not count. `None` when `size` is smaller.
    #[must_use]
    pub fn repeat_to(&self, size: RssTableSize) -> Option<Self> {
        let times = usize::from(size.entries()) / self.0.len();
        (times > 0).then(|| Self(self.0.repeat(times).into()))
    }

    /// Each entry turned into another, as worker into queue.
    #[must_use]
    pub fn map(&self, to: impl FnMut(u16) -> u16) -> Self {
        Self(self.0.iter().copied().map(to).collect())
    }

    /// The entry that a hash chooses.
    #[inline]
    #[must_use]
    pub fn entry(&self, hash: u32) -> u16 {
        self.0[hash as usize & (self.0.len() - 1)]
    }

    /// All entries.
    #[must_use]
    pub fn entries(&self) -> &[u16] {
        &self.0
    }

    /// How many entries.
    #[must_use]
    pub fn size(&self) -> RssTableSize {
        // Lossless, as every constructor had a size.
        RssTableSize(u16::try_from(self.0.len()).unwrap_or_default())
    }
}
