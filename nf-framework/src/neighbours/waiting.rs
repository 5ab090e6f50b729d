//! Packets that wait for their neighbours' addresses, in fixed memory.

use dpdk_rs::Mbuf;

/// The end of a list.
const NONE: u32 = u32::MAX;

/// The packets that wait for one neighbour, by their places, in the order in which they came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Queue {
    first: u32,
    last: u32,
    length: u8,
}

impl Queue {
    pub(super) const EMPTY: Self = Self { first: NONE, last: NONE, length: 0 };

    pub(super) fn length(&self) -> u8 {
        self.length
    }
}

/// Places for packets, in lists: one for each queue, and one of those that are free.
#[derive(Debug)]
pub(super) struct Waiting {
    places: Box<[(Option<Mbuf>, u32)]>,
    free: u32,
    held: usize,
}

impl Waiting {
    pub(super) fn new(capacity: u32) -> Self {
        let next = |place: u32| if place + 1 == capacity { NONE } else { place + 1 };
        Self { places: (0..capacity).map(|place| (None, next(place))).collect(), free: 0, held: 0 }
    }

    /// Packets in all queues.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Whether all places are taken.
    pub(super) fn is_full(&self) -> bool {
        self.held == self.places.len()
    }

    /// Puts a packet at the end of a queue, or gives it back if all places are taken.
    pub(super) fn push(&mut self, queue: &mut Queue, packet: Mbuf) -> Result<(), Mbuf> {
        let place = self.free;
        let Some((content, next)) = self.places.get_mut(place as usize) else { return Err(packet) };
        self.free = std::mem::replace(next, NONE);
        *content = Some(packet);
        match self.places.get_mut(queue.last as usize) {
            Some((_, next)) => *next = place,
            None => queue.first = place,
        }
        queue.last = place;
        queue.length += 1;
        self.held += 1;
        Ok(())
    }

    /// Takes the first packet of a queue.
    pub(super) fn pop(&mut self, queue: &mut Queue) -> Option<Mbuf> {
        let place = queue.first;
        let (content, next) = self.places.get_mut(place as usize)?;
        let packet = content.take();
        queue.first = std::mem::replace(next, self.free);
        self.free = place;
        if queue.first == NONE {
            queue.last = NONE;
        }
        queue.length -= 1;
        self.held -= 1;
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;

    #[test]
    fn queues_share_their_places_and_keep_their_order() {
        lab(|lab| {
            let packet = |number| {
                let mut packet = lab.pool.alloc().unwrap();
                assert!(packet.set_contents(&[number]));
                packet
            };
            let mut waiting = Waiting::new(3);
            let (mut one, mut other) = (Queue::EMPTY, Queue::EMPTY);
            // Several rounds: places come back.
            for _ in 0..3 {
                waiting.push(&mut one, packet(1)).unwrap();
                waiting.push(&mut other, packet(2)).unwrap();
                waiting.push(&mut one, packet(3)).unwrap();
                assert_eq!(waiting.push(&mut other, packet(4)).unwrap_err().data(), [4]);
                assert_eq!((waiting.held(), one.length(), other.length()), (3, 2, 1));
                assert_eq!(waiting.pop(&mut one).unwrap().data(), [1]);
                waiting.push(&mut other, packet(5)).unwrap();
                assert_eq!(waiting.pop(&mut one).unwrap().data(), [3]);
                assert!(waiting.pop(&mut one).is_none());
                assert_eq!(waiting.pop(&mut other).unwrap().data(), [2]);
                assert_eq!(waiting.pop(&mut other).unwrap().data(), [5]);
                assert_eq!((waiting.held(), one.length(), other.length()), (0, 0, 0));
            }
        });
    }
}
