//! Receive side scaling: which queue, and so which worker, a packet comes to.
//!
//! A device hashes a packet's addresses and ports with a key ([`Toeplitz`]), and the low bits
//! of the hash choose an entry of its redirection table ([`RssTable`]), which holds a queue.
//! With a key whose bits are chosen well ([`RssKey`]) the entry depends on one field of the
//! packet and on nothing else, and then the worker that sees a packet is known beforehand.

mod device;
mod functions;
mod key;
mod table;
mod toeplitz;
mod tuple;

pub(crate) use device::set;
pub use device::{RssError, RssProblem};
pub use functions::RssFunctions;
pub use key::{PortBlocksError, RssField, RssKey};
pub use table::{RssTable, RssTableSize, RssTableSizeError};
pub use toeplitz::Toeplitz;
pub use tuple::{FlowTuple, IpVersion};

/// Numbers that are the same for the same seed (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is small beside 2^64.
    fn below(&mut self, limit: usize) -> usize {
        let scaled = (u128::from(self.next()) * limit as u128) >> 64;
        usize::try_from(scaled).unwrap_or_default()
    }
}
