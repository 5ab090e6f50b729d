//! Where queues lie between a worker and the control thread.

use dpdk_rs::QueuePair;
use std::sync::{Mutex, PoisonError};

/// One worker's queues of one port, on their way. Queues have one owner: they are in here, or with one
/// side or the other.
#[derive(Debug, Default)]
pub(crate) struct Berth(Mutex<Option<QueuePair>>);

impl Berth {
    pub(crate) fn put(&self, queues: QueuePair) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(queues);
        debug_assert!(before.is_none(), "a worker has one pair of a port");
    }

    pub(crate) fn take(&self) -> Option<QueuePair> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}
