//! Where queues lie between a worker and the control thread.

use dpdk_rs::QueuePair;
use std::sync::{Arc, Mutex, PoisonError};

/// One worker's queues of one port, on their way. Queues have one owner: they are in here, or with one
/// side or the other.
#[derive(Debug)]
pub(crate) struct Berth<T = QueuePair>(Mutex<Option<T>>);

impl<T> Berth<T> {
    pub(crate) fn put(&self, queues: T) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace(queues);
        debug_assert!(before.is_none(), "a worker has one pair of a port");
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is in all of them; nothing if one is empty, and the others stay as they are. Looking first and
    /// taking then would not do: a slow worker may just be opening the letter that gave it its queues.
    pub(crate) fn take_all(berths: &[Arc<Self>]) -> Option<Vec<T>> {
        let taken: Vec<Option<T>> = berths.iter().map(|berth| berth.take()).collect();
        if taken.iter().all(Option::is_some) {
            return Some(taken.into_iter().flatten().collect());
        }
        for (berth, queues) in berths.iter().zip(taken) {
            queues.into_iter().for_each(|queues| berth.put(queues));
        }
        None
    }
}

impl<T> Default for Berth<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_taken_or_none_is() {
        for (full, taken) in [
            ([true, true, true], Some(vec![0, 1, 2])),
            ([true, false, true], None),
            ([false, false, true], None),
            ([false; 3], None),
        ] {
            let berths: Vec<Arc<Berth<usize>>> = full.iter().map(|_| Arc::default()).collect();
            (0..3).filter(|at| full[*at]).for_each(|at| berths[at].put(at));
            assert_eq!(Berth::take_all(&berths), taken);
            let left: Vec<Option<usize>> = berths.iter().map(|berth| berth.take()).collect();
            let expected = |at: usize| (full[at] && taken.is_none()).then_some(at);
            assert!(left.into_iter().eq((0..3).map(expected)), "{full:?}: each stays where it was");
        }
    }
}
