//! What stands around a worker's work, and does something only while a panic unwinds.

use super::scene::{Doing, Place, Scene};
use crate::batch::Batch;
use crate::context::Context;
use std::panic::{self, AssertUnwindSafe};
use std::sync::OnceLock;

/// What a worker handles and what surrounds that, to be let go by [`InHand::done`]: otherwise a panic unwinds, and what
/// is known is kept.
pub(crate) struct InHand<'w, B: Packets> {
    /// A batch, or nothing.
    pub(crate) batch: B,
    pub(crate) cx: Context<'w>,
    doing: Doing,
}

/// What a worker may have in hand.
pub(crate) trait Packets {
    fn batch(&self) -> Option<&Batch>;
}

impl Packets for &mut Batch {
    fn batch(&self) -> Option<&Batch> {
        Some(self)
    }
}

impl Packets for () {
    fn batch(&self) -> Option<&Batch> {
        None
    }
}

impl<'w, B: Packets> InHand<'w, B> {
    #[inline(always)]
    pub(crate) fn new(batch: B, cx: Context<'w>, doing: Doing) -> Self {
        Self { batch, cx, doing }
    }

    #[inline(always)]
    pub(crate) fn done(self) {
        std::mem::forget(self);
    }
}

impl<B: Packets> Drop for InHand<'_, B> {
    #[cold]
    fn drop(&mut self) {
        let place = Place { doing: self.doing, position: self.cx.position };
        // A second panic would end the program here and now.
        let _ = panic::catch_unwind(AssertUnwindSafe(|| {
            Scene::now(Some(place), self.batch.batch()).keep(&self.cx.counters.scene);
        }));
    }
}

/// Keeps what is known of a panic outside of the chain.
pub(crate) struct Outermost<'w>(pub(crate) &'w OnceLock<Box<Scene>>);

impl Drop for Outermost<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = panic::catch_unwind(AssertUnwindSafe(|| Scene::now(None, None).keep(self.0)));
        }
    }
}
