//! What is known of packets whose fragments have not all come: in fixed memory, on time passed in,
//! without a thought for what a packet is.

use super::piece::{Key, Piece, Source};
use crate::steering::Ports;
use crate::time::Instant;
use crate::verdict::DropReason;
use dpdk_rs::HashKey;
use std::time::Duration;
use zerocopy::IntoBytes;

/// Datagrams of one bucket: all those of one source share one.
pub(super) const WAYS: usize = 64;
/// Fragments of one datagram; 64 KiB in packets of 1500 octets are 45.
pub(super) const MOST_PIECES: usize = 64;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    /// It goes on, and these are its ports.
    On(Ports),
    /// It is dropped.
    Drop(DropReason),
}

/// How many, and for how long.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Limits {
    /// How long a datagram is known from its first fragment to arrive on.
    pub(super) timeout: Duration,
    /// Datagrams at once; rounded up to whole buckets.
    pub(super) datagrams: usize,
    /// Packets held at once.
    pub(super) held: usize,
}

/// The datagrams that are known, and the packets `P` that wait for the first fragment of theirs.
///
/// A source's datagrams are all in one bucket, which its address finds under a key that nobody can
/// guess. When that is full the newest comes in for the one that is worth least: without a first
/// fragment before with one, and then the oldest. So a flood from one source leaves the others
/// alone but for the few that share its bucket, and those still find room there.
#[derive(Debug)]
pub(super) struct Table<P> {
    hash: HashKey,
    timeout: Duration,
    buckets: Box<[Bucket]>,
    datagrams: Box<[Datagram]>,
    held: Held<P>,
    /// Datagrams in all buckets.
    known: usize,
    /// Packets that one bucket may hold.
    share: u32,
    /// The bucket that expiry looks at next.
    next_to_expire: usize,
}

/// What is looked through, close together.
#[derive(Clone, Debug)]
struct Bucket {
    /// Of the hash, and never 0 but where there is no datagram.
    tags: [u32; WAYS],
    worth: [Worth; WAYS],
    datagrams: u32,
    /// Packets that its datagrams hold.
    held: u32,
}

/// What is worth less makes room for more.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
struct Worth {
    has_first: bool,
    since: Instant,
}

#[derive(Clone, Debug)]
struct Datagram {
    key: Key,
    /// From the first fragment, once it has come.
    ports: Option<Ports>,
    /// Why what still comes is dropped.
    given_up: Option<DropReason>,
    /// Octets of the whole, once the last fragment has told.
    length: Option<u16>,
    /// Octets that have come.
    arrived: u16,
    count: u8,
    /// Where the fragments are that have come: from, and to before.
    pieces: [(u16, u16); MOST_PIECES],
    waiting: Queue,
}

/// Packets in the order of their arrival, by their places in [`Held`].
#[derive(Clone, Copy, Debug)]
struct Queue {
    head: u32,
    tail: u32,
}

const NOBODY: u32 = u32::MAX;

/// The packets that wait.
#[derive(Debug)]
struct Held<P> {
    places: Box<[(Option<P>, u32)]>,
    /// The first that is free; each leads to the next.
    free: u32,
    count: u32,
}

/// A datagram's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    bucket: usize,
    way: usize,
}

impl<P> Table<P> {
    pub(super) fn new(limits: Limits, hash: HashKey) -> Self {
        let buckets = limits.datagrams.div_ceil(WAYS).max(1).next_power_of_two();
        let bucket = Bucket { tags: [0; WAYS], worth: [Worth::default(); WAYS], datagrams: 0, held: 0 };
        let places = limits.held.min(NOBODY as usize);
        // An eighth, but one datagram's fragments find room if there is any.
        let share = u32::try_from((places / 8).max(MOST_PIECES)).unwrap_or(u32::MAX);
        Self {
            hash,
            timeout: limits.timeout,
            buckets: vec![bucket; buckets].into(),
            datagrams: vec![Datagram::new(Key::default()); buckets * WAYS].into(),
            held: Held::new(places),
            known: 0,
            share,
            next_to_expire: 0,
        }
    }

    /// Packets that wait.
    pub(super) fn held(&self) -> usize {
        self.held.count as usize
    }

    /// Datagrams that are known, and packets that wait, each with how many may.
    pub(super) fn occupancy(&self) -> [(usize, usize); 2] {
        [(self.known, self.datagrams.len()), (self.held(), self.held.places.len())]
    }

    /// Takes a fragment in. `to` is told what becomes of it and of those that waited for it, in the
    /// order in which they are to go on.
    pub(super) fn take(&mut self, piece: &Piece, packet: P, now: Instant, to: &mut impl FnMut(P, Outcome)) {
        let hash = self.hash.hash(piece.key.as_bytes());
        // Never 0. The cast keeps the low half, on purpose.
        #[allow(clippy::cast_possible_truncation, reason = "half of the hash is enough")]
        let tag = hash as u32 | 1;
        let bucket = self.bucket_of(&piece.key.source);
        let found = self.find(bucket, tag, &piece.key);
        if let Some(place) = found
            && now >= self.worth(place).since + self.timeout
        {
            self.remove(place, DropReason::FRAGMENT_EXPIRED, to);
        }
        let place = match found.filter(|place| self.tag(*place) != 0) {
            Some(place) => place,
            None => match self.room(bucket, piece.ports.is_some(), to) {
                Some(place) => {
                    self.put(place, tag, piece.key, now);
                    place
                }
                None => return to(packet, Outcome::Drop(DropReason::FRAGMENTS_FULL)),
            },
        };
        if let Some(refusal) = self.datagram(place).refusal(piece) {
            if matches!(refusal, DropReason::FRAGMENT_OVERLAP | DropReason::FRAGMENT_MANY) {
                self.give_up(place, refusal, to);
            }
            return to(packet, Outcome::Drop(refusal));
        }
        let ports = piece.ports.or(self.datagram(place).ports);
        let Some(ports) = ports else {
            return self.hold(place, piece, packet, to);
        };
        self.datagram_mut(place).add(piece);
        to(packet, Outcome::On(ports));
        if piece.ports.is_some() {
            self.datagram_mut(place).ports = Some(ports);
            self.worth_mut(place).has_first = true;
            self.let_go(place, Outcome::On(ports), to);
        }
        if self.datagram(place).is_complete() {
            self.forget(place);
        }
    }

    /// Drops what has waited for too long, in as many buckets as that; a few ticks see all.
    pub(super) fn expire(&mut self, now: Instant, buckets: usize, to: &mut impl FnMut(P, Outcome)) {
        for _ in 0..buckets.min(self.buckets.len()) {
            let bucket = self.next_to_expire;
            self.next_to_expire = (bucket + 1) % self.buckets.len();
            if self.buckets[bucket].datagrams == 0 {
                continue;
            }
            for way in 0..WAYS {
                let place = Place { bucket, way };
                if self.tag(place) != 0 && now >= self.worth(place).since + self.timeout {
                    self.remove(place, DropReason::FRAGMENT_EXPIRED, to);
                }
            }
        }
    }

    /// Forgets all datagrams and gives back what they hold.
    pub(super) fn clear(&mut self, mut to: impl FnMut(P)) {
        for bucket in 0..self.buckets.len() {
            for place in (0..WAYS).map(|way| Place { bucket, way }) {
                if self.tag(place) != 0 {
                    self.remove(place, DropReason::FRAGMENT_EXPIRED, &mut |packet, _| to(packet));
                }
            }
        }
    }

    /// Keeps a fragment until the first one comes, if there is room.
    fn hold(&mut self, place: Place, piece: &Piece, packet: P, to: &mut impl FnMut(P, Outcome)) {
        while self.held.is_full() || self.buckets[place.bucket].held >= self.share {
            let Some(victim) = self.least(place.bucket, |at| at != place && self.datagram(at).waiting.head != NOBODY)
            else {
                if self.datagram(place).count == 0 {
                    self.forget(place);
                }
                return to(packet, Outcome::Drop(DropReason::FRAGMENTS_FULL));
            };
            self.remove(victim, DropReason::FRAGMENTS_FULL, to);
        }
        let Some(at) = self.held.put(packet) else { return };
        self.buckets[place.bucket].held += 1;
        let Datagram { waiting, .. } = self.datagram_mut(place);
        let before = std::mem::replace(&mut waiting.tail, at);
        if before == NOBODY {
            waiting.head = at;
        } else {
            self.held.link(before, at);
        }
        self.datagram_mut(place).add(piece);
    }

    /// All packets that wait for this datagram's first fragment, in order.
    fn let_go(&mut self, place: Place, outcome: Outcome, to: &mut impl FnMut(P, Outcome)) {
        let waiting = std::mem::replace(&mut self.datagram_mut(place).waiting, Queue::EMPTY);
        let mut next = waiting.head;
        while let Some((packet, after)) = self.held.take(next) {
            self.buckets[place.bucket].held -= 1;
            to(packet, outcome);
            next = after;
        }
    }

    /// From now on nothing of this datagram goes on.
    fn give_up(&mut self, place: Place, reason: DropReason, to: &mut impl FnMut(P, Outcome)) {
        self.datagram_mut(place).given_up = Some(reason);
        self.worth_mut(place).has_first = false;
        self.let_go(place, Outcome::Drop(reason), to);
    }

    fn remove(&mut self, place: Place, reason: DropReason, to: &mut impl FnMut(P, Outcome)) {
        self.let_go(place, Outcome::Drop(reason), to);
        self.forget(place);
    }

    fn forget(&mut self, place: Place) {
        let bucket = &mut self.buckets[place.bucket];
        bucket.tags[place.way] = 0;
        bucket.datagrams -= 1;
        self.known -= 1;
    }

    /// A place for one more datagram, if need be that of one that is worth less.
    fn room(&mut self, bucket: usize, has_first: bool, to: &mut impl FnMut(P, Outcome)) -> Option<Place> {
        if let Some(way) = self.buckets[bucket].tags.iter().position(|tag| *tag == 0) {
            return Some(Place { bucket, way });
        }
        let victim = self.least(bucket, |at| has_first || !self.worth(at).has_first)?;
        self.remove(victim, DropReason::FRAGMENTS_FULL, to);
        Some(victim)
    }

    fn least(&self, bucket: usize, may_go: impl Fn(Place) -> bool) -> Option<Place> {
        let places = (0..WAYS).map(|way| Place { bucket, way });
        places.filter(|place| self.tag(*place) != 0 && may_go(*place)).min_by_key(|place| self.worth(*place))
    }

    fn put(&mut self, place: Place, tag: u32, key: Key, now: Instant) {
        let bucket = &mut self.buckets[place.bucket];
        bucket.tags[place.way] = tag;
        bucket.datagrams += 1;
        self.known += 1;
        bucket.worth[place.way] = Worth { has_first: false, since: now };
        self.datagram_mut(place).begin(key);
    }

    fn find(&self, bucket: usize, tag: u32, key: &Key) -> Option<Place> {
        let tags = self.buckets[bucket].tags.iter().enumerate();
        let places = tags.filter(|(_, of_way)| **of_way == tag).map(|(way, _)| Place { bucket, way });
        places.into_iter().find(|place| self.datagram(*place).key == *key)
    }

    #[allow(clippy::cast_possible_truncation, reason = "masked")]
    fn bucket_of(&self, source: &Source) -> usize {
        self.hash.hash(source.as_bytes()) as usize & (self.buckets.len() - 1)
    }

    fn tag(&self, place: Place) -> u32 {
        self.buckets[place.bucket].tags[place.way]
    }

    fn worth(&self, place: Place) -> Worth {
        self.buckets[place.bucket].worth[place.way]
    }

    fn worth_mut(&mut self, place: Place) -> &mut Worth {
        &mut self.buckets[place.bucket].worth[place.way]
    }

    fn datagram(&self, place: Place) -> &Datagram {
        &self.datagrams[place.bucket * WAYS + place.way]
    }

    fn datagram_mut(&mut self, place: Place) -> &mut Datagram {
        &mut self.datagrams[place.bucket * WAYS + place.way]
    }
}

impl Datagram {
    fn new(key: Key) -> Self {
        let (pieces, waiting) = ([(0, 0); MOST_PIECES], Queue::EMPTY);
        Self { key, ports: None, given_up: None, length: None, arrived: 0, count: 0, pieces, waiting }
    }

    /// Begins anew; what stands in `pieces` behind `count` does not matter.
    fn begin(&mut self, key: Key) {
        let Self { key: at, ports, given_up, length, arrived, count, pieces: _, waiting } = self;
        (*at, *ports, *given_up, *length, *arrived, *count, *waiting) = (key, None, None, None, 0, 0, Queue::EMPTY);
    }

    fn pieces(&self) -> &[(u16, u16)] {
        &self.pieces[..usize::from(self.count)]
    }

    /// Why a fragment is not taken in.
    fn refusal(&self, piece: &Piece) -> Option<DropReason> {
        if let Some(reason) = self.given_up {
            return Some(reason);
        }
        let last_so_far = self.length == Some(piece.end);
        if self.pieces().contains(&(piece.start, piece.end)) && (piece.last == last_so_far) {
            return Some(DropReason::FRAGMENT_DUPLICATE);
        }
        let overlaps = self.pieces().iter().any(|&(start, end)| piece.start < end && start < piece.end);
        let beyond = self.length.is_some_and(|length| piece.end > length || (piece.last && piece.end != length));
        let short = piece.last && self.pieces().iter().any(|&(_, end)| end > piece.end);
        if overlaps || beyond || short {
            return Some(DropReason::FRAGMENT_OVERLAP);
        }
        (self.pieces().len() == MOST_PIECES).then_some(DropReason::FRAGMENT_MANY)
    }

    /// Notes a fragment that was not refused.
    fn add(&mut self, piece: &Piece) {
        if let Some(place) = self.pieces.get_mut(usize::from(self.count)) {
            *place = (piece.start, piece.end);
            self.count += 1;
        }
        // None overlaps another, so that all together are no more than a packet is long.
        self.arrived += piece.end - piece.start;
        if piece.last {
            self.length = Some(piece.end);
        }
    }

    fn is_complete(&self) -> bool {
        self.length == Some(self.arrived)
    }
}

impl Queue {
    const EMPTY: Self = Self { head: NOBODY, tail: NOBODY };
}

impl<P> Held<P> {
    fn new(places: usize) -> Self {
        let next = |at: usize| if at + 1 < places { u32::try_from(at + 1).unwrap_or(NOBODY) } else { NOBODY };
        let free = if places == 0 { NOBODY } else { 0 };
        Self { places: (0..places).map(|at| (None, next(at))).collect(), free, count: 0 }
    }

    fn is_full(&self) -> bool {
        self.free == NOBODY
    }

    fn put(&mut self, packet: P) -> Option<u32> {
        let at = self.free;
        let place = self.places.get_mut(at as usize)?;
        self.free = std::mem::replace(&mut place.1, NOBODY);
        place.0 = Some(packet);
        self.count += 1;
        Some(at)
    }

    fn link(&mut self, before: u32, at: u32) {
        if let Some(place) = self.places.get_mut(before as usize) {
            place.1 = at;
        }
    }

    /// The packet in a place, and the place of the next one.
    fn take(&mut self, at: u32) -> Option<(P, u32)> {
        let place = self.places.get_mut(at as usize)?;
        let packet = place.0.take()?;
        let next = std::mem::replace(&mut place.1, self.free);
        self.free = at;
        self.count -= 1;
        Some((packet, next))
    }
}
