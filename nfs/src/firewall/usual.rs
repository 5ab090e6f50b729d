//! The packet path of established packets: all usual ones of a batch are looked up at once, and those of a connection in
//! which nothing new happens pass. It knows tables and packets; rules it never asks.

use super::connection::{Course, Ends, Generation, KeyV4, KeyV6};
use super::packet::{Usual, is_sound, usual_segment, usual_v4, usual_v6};
use super::tcp;
use super::timer::Timer;
use super::tracking::{Table, Tracking};
use nf_framework::headers::IpProtocol;
use nf_framework::{Batch, Deadline, Direction, Handle, Mbuf};

/// As many as a batch has slots.
pub(super) const MOST: usize = 64;

/// What a connection is judged by that lets usual packets through.
#[derive(Clone, Copy, Debug)]
struct Bearings {
    generation: Generation,
    /// Whether all checksums are verified.
    verify: bool,
}

/// The usual packets of a batch, by family.
#[derive(Debug)]
pub(super) struct UsualPackets {
    v4: Looked<KeyV4>,
    v6: Looked<KeyV6>,
    by: Bearings,
}

#[derive(Debug)]
struct Looked<K> {
    keys: [K; MOST],
    courses: [Course; MOST],
    found: [Option<Handle>; MOST],
    count: usize,
    /// Those of the batch that they are of, a bit for each slot.
    slots: u64,
    /// How many of them were asked about again, one at a time.
    next: usize,
}

impl Default for UsualPackets {
    fn default() -> Self {
        Self {
            v4: Looked::new([0; 16]),
            v6: Looked::new([0; 40]),
            by: Bearings { generation: Generation::FIRST, verify: true },
        }
    }
}

impl UsualPackets {
    /// Looks the usual packets of a batch up, and lets the first ones through, up to one that needs a closer look: how
    /// many, or nothing where that were all.
    #[inline(always)]
    pub(super) fn pass(
        &mut self,
        batch: &mut Batch,
        direction: Direction,
        tracking: &mut Tracking,
        verify: bool,
    ) -> Option<usize> {
        let Self { v4, v6, .. } = self;
        v4.clear();
        v6.clear();
        let mut all = 0;
        for (slot, packet) in batch.undecided_packets() {
            all += 1;
            if let Some(usual) = usual_v4(packet.data()) {
                v4.push(slot, usual, direction);
            } else if let Some(usual) = usual_v6(packet.data()) {
                v6.push(slot, usual, direction);
            }
        }
        tracking.v4.lookup_batch(&v4.keys[..v4.count.min(MOST)], &mut v4.found);
        if v6.count > 0 {
            tracking.v6.lookup_batch(&v6.keys[..v6.count.min(MOST)], &mut v6.found);
        }
        let by = Bearings { generation: tracking.generation(), verify };
        let Tracking { v4: table_v4, v6: table_v6, deadlines, .. } = tracking;
        // Nearly always all packets are usual and of one family.
        let passed = if v4.count == all {
            pass_known(table_v4, deadlines, batch, v4, (by, false))
        } else if v6.count == all {
            pass_known(table_v6, deadlines, batch, v6, (by, true))
        } else {
            0
        };
        if passed == all {
            return None;
        }
        (v4.next, v6.next, self.by) = (passed.min(v4.count), passed.min(v6.count), by);
        Some(passed)
    }

    /// Whether the next packet of the batch is usual, and passes.
    #[inline(always)]
    pub(super) fn passes(&mut self, slot: usize, packet: &mut Mbuf, tracking: &mut Tracking) -> bool {
        let by = self.by;
        let Tracking { v4: table_v4, v6: table_v6, deadlines, .. } = tracking;
        if self.v4.has(slot) {
            self.v4.next().is_some_and(|found| known(table_v4, deadlines, packet, found, (by, false)))
        } else if self.v6.has(slot) {
            self.v6.next().is_some_and(|found| known(table_v6, deadlines, packet, found, (by, true)))
        } else {
            false
        }
    }
}

/// Lets the first of a batch's packets through, all of which are usual, up to one that needs a closer look; how many.
/// By itself, so that all that it needs is in registers.
#[inline(never)]
fn pass_known<K: Ends>(
    table: &mut Table<K>,
    deadlines: &[Deadline; Timer::COUNT],
    batch: &mut Batch,
    looked: &Looked<K>,
    by: (Bearings, bool),
) -> usize {
    let mut passed = 0;
    for (_, packet) in batch.undecided_packets() {
        let at = passed % MOST;
        let Some(handle) = looked.found[at] else { break };
        if !known(table, deadlines, packet, (handle, looked.courses[at]), by) {
            break;
        }
        passed += 1;
    }
    passed
}

/// Lets a usual packet through of a connection in which nothing new happens.
#[inline(always)]
fn known<K: Ends>(
    table: &mut Table<K>,
    deadlines: &[Deadline; Timer::COUNT],
    packet: &mut Mbuf,
    (handle, course): (Handle, Course),
    (by, six): (Bearings, bool),
) -> bool {
    let Some(mut entry) = table.entry_mut(handle) else { return false };
    let Some(side) = entry.value.side(course) else { return false };
    if entry.value.generation() != by.generation || entry.value.is_laborious() {
        return false;
    }
    let is_tcp = entry.key.protocol() == IpProtocol::TCP;
    if by.verify && !is_sound(packet) {
        return false;
    }
    if is_tcp {
        let segment = usual_segment(packet.data(), six);
        let carried = segment.is_some_and(|(sequence, acknowledgment, window, payload)| {
            entry.value.tcp.carry(side, sequence, acknowledgment, window, payload)
        });
        if carried {
            entry.touch(deadlines[Timer::TcpEstablished as usize]);
        }
        return carried;
    }
    let assured = entry.value.is_assured();
    // An answer, or what follows one, tells something new.
    if !assured && (side == tcp::RESPONDER) != entry.value.is_answered() {
        return false;
    }
    let timer = if assured { Timer::UdpAnswered } else { Timer::Udp };
    entry.touch(deadlines[timer as usize]);
    true
}

impl<K: Copy> Looked<K> {
    fn new(key: K) -> Self {
        Self { keys: [key; MOST], courses: [Course::default(); MOST], found: [None; MOST], count: 0, slots: 0, next: 0 }
    }

    fn clear(&mut self) {
        (self.count, self.slots) = (0, 0);
    }

    #[inline(always)]
    fn push(&mut self, slot: usize, usual: Usual<K>, direction: Direction) {
        let at = self.count % MOST;
        (self.keys[at], self.courses[at]) = (usual.key, Course::new(usual.from_low, direction));
        self.count += 1;
        self.slots |= 1 << (slot % MOST);
    }

    #[inline(always)]
    fn has(&self, slot: usize) -> bool {
        self.slots >> (slot % MOST) & 1 == 1
    }

    /// What was found for the next packet, of those that were pushed, in their order.
    #[inline(always)]
    fn next(&mut self) -> Option<(Handle, Course)> {
        let at = self.next % MOST;
        self.next += 1;
        Some((self.found[at]?, self.courses[at]))
    }
}
