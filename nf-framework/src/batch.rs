//! The packets of one burst on their way through a chain, with a verdict for each.

use crate::verdict::Verdict;
use dpdk_rs::{Burst, Mbuf, RxQueue};

/// Up to 64 packets that came in together. Packets stay in their slots; functions write
/// verdicts beside them and look only at what is still undecided.
#[derive(Debug)]
pub struct Batch {
    burst: Burst,
    verdicts: [Verdict; Burst::CAPACITY],
    /// Bit i: slot i holds a packet that no one has decided about.
    undecided: u64,
}

impl Default for Batch {
    fn default() -> Self {
        Self::with_limit(Burst::USUAL)
    }
}

impl Batch {
    /// An empty batch that receives up to `limit` packets at once, between 1 and 64.
    #[must_use]
    pub fn with_limit(limit: usize) -> Self {
        Self { burst: Burst::with_limit(limit), verdicts: [Verdict::Next; Burst::CAPACITY], undecided: 0 }
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
        for slot in self.undecided() {
            self.decide(slot, verdict);
        }
    }

    /// Looks at each undecided packet and writes the verdict that comes back.
    #[inline]
    pub fn each(&mut self, mut judge: impl FnMut(&mut Mbuf) -> Verdict) {
        self.prefetch();
        for slot in self.undecided() {
            if let Some(packet) = self.burst.packet_mut(slot) {
                let verdict = judge(packet);
                self.decide(slot, verdict);
            }
        }
    }

    /// Takes an undecided packet out; it is then the caller's to hold, resume or consume.
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
        for slot in self.undecided() {
            if let Some(packet) = self.burst.packet(slot) {
                packet.prefetch();
            }
        }
    }

    /// What was decided about a slot's packet, [`Verdict::Next`] while nothing was.
    #[inline]
    #[must_use]
    pub fn verdict(&self, slot: usize) -> Verdict {
        if slot < Burst::CAPACITY && self.undecided & (1 << slot) == 0 { self.verdicts[slot] } else { Verdict::Next }
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
        Ok(())
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
        self.burst.reset();
        self.undecided = 0;
    }
}

fn mask(count: usize) -> u64 {
    if count >= 64 { u64::MAX } else { (1 << count) - 1 }
}

/// Slots of a batch, in order.
#[derive(Clone, Copy, Debug)]
pub struct Slots(u64);

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
