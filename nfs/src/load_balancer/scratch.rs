//! What the short way knows of a batch, between its loops.

use super::connections::Connection;
use super::flow::{Head, KeyV4, KeyV6};
use nf_framework::Handle;

/// As many as a batch has slots.
pub(super) const MOST: usize = 64;

/// Of a batch; kept, as to clear it each time takes a while.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) v4: Looked<KeyV4>,
    pub(super) v6: Looked<KeyV6>,
    pub(super) found: [Option<Handle>; MOST],
    /// By slot.
    pub(super) steps: [Step; MOST],
}

/// What was seen of the usual packets of a family, one after the other.
#[derive(Debug)]
pub(super) struct Looked<K> {
    pub(super) keys: [K; MOST],
    pub(super) heads: [Head; MOST],
}

/// What is still to be done with a packet.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Step {
    pub(super) connection: Connection,
    /// Which of the keys is its own.
    pub(super) number: u8,
}

impl Default for Scratch {
    fn default() -> Self {
        let heads = [Head::default(); MOST];
        let (v4, v6) = (Looked { keys: [[0; 16]; MOST], heads }, Looked { keys: [[0; 40]; MOST], heads });
        Self { v4, v6, found: [None; MOST], steps: [Step::default(); MOST] }
    }
}
