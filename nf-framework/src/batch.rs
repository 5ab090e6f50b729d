//! The packets of one burst on their way through a chain, with a verdict for each.

use crate::verdict::{PortIx, Verdict};
use dpdk_rs::{Burst, Mbuf, RxQueue};

/// Up to 64 packets that came in together. Packets stay in their slots; functions write
/// verdicts beside them and look only at what is still undecided.
#[derive(Debug)]
pub struct Batch {
    burst: Burst,
    verdicts: [Verdict; Burst::CAPACITY],
    /// Bit i: slot i holds a packet that no one has decided about.
    undecided: u64,
    /// What was decided about all of its packets at once, if it was: then it is settled whole.
    unanimous: Option<Verdict>,
    /// The slot that a panic has found somebody looking at.
    looked_at: Option<usize>,
}

/// Notes which slot is looked at, if that ends in a panic: otherwise it is forgotten.
struct LookingAt<'b> {
    slot: usize,
    note: &'b mut Option<usize>,
}

impl Drop for LookingAt<'_> {
    #[cold]
    fn drop(&mut self) {
        *self.note = Some(self.slot);
    }
}

impl Batch {
    /// An empty batch that receives up to `limit` packets at once, between 1 and 64.
    pub(crate) fn with_limit(limit: usize) -> Self {
        let verdicts = [Verdict::Next; Burst::CAPACITY];
        Self { burst: Burst::with_limit(limit), verdicts, undecided: 0, unanimous: None, looked_at: None }
    }

    /// The slots whose packets are undecided now; deciding while iterating is fine.
    #[inline]
    #[must_use]
    pub fn undecided(&self) -> Slots {
        Slots(self.undecided)
    }

    /// The packet in a slot, if there is one.
    #[inline]
    #[must_use]
    pub fn packet(&self, slot: usize) -> Option<&Mbuf> {
        self.burst.packet(slot)
    }

    /// The packet in a slot, to be changed.
    #[inline]
    pub fn packet_mut(&mut self, slot: usize) -> Option<&mut Mbuf> {
        self.burst.packet_mut(slot)
    }

    /// The undecided packets, each with its slot, to be changed: for loops that decide afterwards.
    #[inline]
    pub fn undecided_packets(&mut self) -> impl Iterator<Item = (usize, &mut Mbuf)> {
        self.burst.packets_mut(self.undecided)
    }

    /// The packets in these slots, each with its slot, to be changed.
    #[inline]
    pub fn packets_in(&mut self, slots: Slots) -> impl Iterator<Item = (usize, &mut Mbuf)> {
        self.burst.packets_mut(slots.0)
    }

    /// Gives a verdict on an undecided packet; without effect on any other slot.
    #[inline]
    pub fn decide(&mut self, slot: usize, verdict: Verdict) {
        if slot >= Burst::CAPACITY || self.undecided & (1 << slot) == 0 || verdict == Verdict::Next {
            return;
        }
        self.verdicts[slot] = verdict;
        self.undecided &= !(1 << slot);
    }

    /// Gives the same verdict on every packet that is undecided.
    #[inline]
    pub fn decide_all(&mut self, verdict: Verdict) {
        let len = self.burst.len();
        if len > 0 && self.undecided == mask(len) && verdict != Verdict::Next {
            self.verdicts[..len].fill(verdict);
            self.undecided = 0;
            self.unanimous = Some(verdict);
            return;
        }
        for slot in self.undecided() {
            self.decide(slot, verdict);
        }
    }

    /// Looks at each undecided packet and writes the verdict that comes back.
    #[inline]
    pub fn each(&mut self, mut judge: impl FnMut(&mut Mbuf) -> Verdict) {
        self.prefetch();
        for (slot, packet) in self.burst.packets_mut(self.undecided) {
            let looking = LookingAt { slot, note: &mut self.looked_at };
            let verdict = judge(packet);
            std::mem::forget(looking);
            if verdict != Verdict::Next {
                self.verdicts[slot] = verdict;
                self.undecided &= !(1 << slot);
            }
        }
    }

    /// Takes an undecided packet out; it is then the caller's to hold, to emit or resume, or to
    /// consume, and counts as held until then.
    #[inline]
    pub fn take(&mut self, slot: usize) -> Option<Mbuf> {
        if slot >= Burst::CAPACITY || self.undecided & (1 << slot) == 0 {
            return None;
        }
        self.undecided &= !(1 << slot);
        self.burst.take(slot)
    }

    /// Asks for the first cache line of every undecided packet, ahead of a loop that reads them.
    #[inline]
    pub fn prefetch(&self) {
        self.burst.prefetch(self.undecided);
    }

    /// What was decided about a slot's packet, [`Verdict::Next`] while nothing was.
    #[inline]
    #[must_use]
    pub fn verdict(&self, slot: usize) -> Verdict {
        if slot < Burst::CAPACITY && self.undecided & (1 << slot) == 0 { self.verdicts[slot] } else { Verdict::Next }
    }

    /// The packets that are in it, each with its slot.
    pub(crate) fn packets(&self) -> impl Iterator<Item = (usize, &Mbuf)> {
        (0..self.burst.len()).filter_map(|slot| Some((slot, self.packet(slot)?)))
    }

    /// After a panic: the slot whose packet [`Batch::each`] had shown to somebody.
    pub(crate) fn looked_at(&self) -> Option<usize> {
        self.looked_at
    }

    pub(crate) fn undecided_mask(&self) -> u64 {
        self.undecided
    }

    /// Fills the batch from a queue; returns how many packets came.
    #[inline]
    pub(crate) fn receive(&mut self, queue: &mut RxQueue) -> usize {
        self.burst.reset();
        let count = queue.receive(&mut self.burst);
        self.undecided = mask(count);
        self.unanimous = None;
        count
    }

    /// Adds a packet behind the others, undecided.
    ///
    /// # Errors
    ///
    /// Gives it back when the batch is full.
    pub(crate) fn push(&mut self, packet: Mbuf) -> Result<(), Mbuf> {
        let slot = self.burst.len();
        self.burst.push(packet)?;
        self.undecided |= 1 << slot;
        self.unanimous = None;
        Ok(())
    }

    /// Moves the packets together after some were taken, before anybody has decided about one.
    #[inline]
    pub(crate) fn close_ranks(&mut self) {
        self.burst.compact();
        self.undecided = mask(self.burst.len());
    }

    /// The port that all packets leave by and the packets, if that was decided about all at
    /// once.
    #[inline]
    pub(crate) fn all_to_one_port(&mut self) -> Option<(PortIx, &mut Burst)> {
        match self.unanimous {
            Some(Verdict::Send(port)) => Some((port, &mut self.burst)),
            _ => None,
        }
    }

    /// Takes every packet with its verdict and leaves the batch empty.
    #[inline]
    pub(crate) fn settle(&mut self, mut to: impl FnMut(Mbuf, Verdict)) {
        for slot in 0..self.burst.len() {
            let verdict = self.verdict(slot);
            if let Some(packet) = self.burst.take(slot) {
                to(packet, verdict);
            }
        }
        self.empty();
    }

    /// Whether any of its packets is being traced.
    pub(crate) fn is_traced(&self) -> bool {
        self.burst.iter().any(Mbuf::is_traced)
    }

    /// How many slots are in use, those included whose packets were taken.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.burst.len()
    }

    /// Whether no packet is left in it, before anybody has decided about one.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.undecided == 0
    }

    /// Leaves the batch empty.
    #[inline]
    pub(crate) fn empty(&mut self) {
        self.burst.reset();
        self.undecided = 0;
        self.unanimous = None;
    }
}

#[inline]
fn mask(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// Slots of a batch, in order.
#[derive(Clone, Copy, Debug, Default)]
pub struct Slots(u64);

impl Slots {
    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds a slot, which a batch has.
    #[inline]
    pub fn insert(&mut self, slot: usize) {
        self.0 |= 1 << (slot % Burst::CAPACITY);
    }

    /// The same if that is so, without a branch.
    #[inline]
    pub(crate) fn insert_if(&mut self, so: bool, slot: usize) {
        self.0 |= u64::from(so) << (slot % Burst::CAPACITY);
    }
}

impl Iterator for Slots {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let slot = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;
    use crate::verdict::DropReason;

    const SEND: Verdict = Verdict::Send(PortIx(1));
    const DROP: Verdict = Verdict::Drop(DropReason::POLICY);

    /// A batch of packets that carry their number.
    fn with_batch(count: u8, test: impl FnOnce(&mut Batch) + Send + 'static) {
        lab(move |lab| {
            let mut batch = Batch::with_limit(Burst::USUAL);
            for number in 0..count {
                let mut packet = lab.pool.alloc().unwrap();
                assert!(packet.set_contents(&[number]));
                assert!(batch.push(packet).is_ok());
            }
            test(&mut batch);
        });
    }

    fn settled(batch: &mut Batch) -> Vec<(u8, Verdict)> {
        let mut settled = Vec::new();
        batch.settle(|packet, verdict| settled.push((packet.data()[0], verdict)));
        settled
    }

    #[test]
    fn the_first_decision_stands() {
        with_batch(4, |batch| {
            for (slot, verdict, expected) in [
                (0, Verdict::Next, Verdict::Next),
                (0, SEND, SEND),
                (0, DROP, SEND),
                (3, DROP, DROP),
                (3, Verdict::Next, DROP),
                (4, DROP, Verdict::Next),
                (64, DROP, Verdict::Next),
                (usize::MAX, DROP, Verdict::Next),
            ] {
                batch.decide(slot, verdict);
                assert_eq!(batch.verdict(slot), expected, "{slot} {verdict:?}");
            }
            assert_eq!(batch.undecided().collect::<Vec<_>>(), [1, 2]);
            batch.decide_all(Verdict::Next);
            assert_eq!(batch.undecided().count(), 2);
            batch.decide_all(Verdict::Turn);
            batch.decide_all(DROP);
            assert_eq!(settled(batch), [(0, SEND), (1, Verdict::Turn), (2, Verdict::Turn), (3, DROP)]);
            assert_eq!(settled(batch), []);
        });
    }

    #[test]
    fn what_is_undecided_at_the_end_goes_on() {
        with_batch(2, |batch| {
            batch.decide(1, DROP);
            assert_eq!(settled(batch), [(0, Verdict::Next), (1, DROP)]);
        });
    }

    #[test]
    fn only_what_is_undecided_can_be_taken_and_the_others_keep_their_slots() {
        with_batch(4, |batch| {
            batch.decide(1, SEND);
            for (slot, expected) in
                [(0, Some(0)), (0, None), (1, None), (2, Some(2)), (4, None), (64, None), (usize::MAX, None)]
            {
                assert_eq!(batch.take(slot).map(|packet| packet.data()[0]), expected, "{slot}");
            }
            assert!(batch.packet(0).is_none() && batch.packet_mut(2).is_none() && batch.packet(4).is_none());
            batch.decide(0, DROP);
            let mut seen = Vec::new();
            batch.each(|packet| {
                seen.push(packet.data()[0]);
                Verdict::Next
            });
            assert_eq!(seen, [3]);
            assert_eq!(settled(batch), [(1, SEND), (3, Verdict::Next)]);
        });
    }

    #[test]
    fn a_batch_is_settled_whole_only_if_all_go_to_one_port() {
        let all = |prepare: fn(&mut Batch)| {
            let (answer, answers) = std::sync::mpsc::channel();
            with_batch(3, move |batch| {
                prepare(batch);
                let whole = batch.all_to_one_port().map(|(port, burst)| (port.0, burst.len()));
                answer.send((whole, settled(batch).len())).unwrap();
            });
            answers.recv().unwrap()
        };
        assert_eq!(all(|batch| batch.decide_all(SEND)), (Some((1, 3)), 3));
        assert_eq!(all(|batch| batch.decide_all(DROP)), (None, 3));
        assert_eq!(all(|batch| batch.decide_all(Verdict::Turn)), (None, 3));
        assert_eq!(all(|batch| batch.decide_all(Verdict::Next)), (None, 3));
        assert_eq!(all(|batch| (batch.decide(0, DROP), batch.decide_all(SEND)).1), (None, 3));
        assert_eq!(all(|batch| (drop(batch.take(2)), batch.decide_all(SEND)).1), (None, 2));
        assert_eq!(all(|batch| (batch.settle(|_, _| ()), batch.decide_all(SEND)).1), (None, 0));
        let refilled = |batch: &mut Batch| {
            batch.decide_all(SEND);
            let mut packets = Vec::new();
            batch.settle(|packet, _| packets.push(packet));
            packets.into_iter().for_each(|packet| batch.push(packet).unwrap());
        };
        assert_eq!(all(refilled), (None, 3));
    }

    #[test]
    fn a_batch_takes_sixty_four() {
        with_batch(64, |batch| {
            let packet = batch.take(63).unwrap();
            let packet = batch.push(packet).unwrap_err();
            assert_eq!(batch.undecided().count(), 63);
            drop(packet);
            batch.decide_all(SEND);
            assert_eq!(settled(batch).len(), 63);
        });
        with_batch(64, |batch| {
            assert!(batch.undecided().eq(0..64));
            batch.decide_all(DROP);
            assert!(batch.undecided().next().is_none());
        });
    }
}
