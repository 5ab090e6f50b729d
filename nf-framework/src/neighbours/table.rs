//! What all workers read: the addresses of neighbours, written by their owner alone.
//!
//! # Where an entry is
//!
//! Slots come in buckets of eight. A keyed hash gives each neighbour two buckets, and a new one
//! goes where there is more room, so that a table which is half full has room for all and nobody
//! outside can fill two buckets on purpose. A word beside each bucket holds one byte of each
//! entry's hash; a neighbour that is not there costs two such words.
//!
//! # Why a reader never sees half an entry
//!
//! Each slot is under a sequence number, which is odd while the owner writes. The owner stores an
//! odd number, then after a release fence the fields, then with release the next even number. A
//! reader loads the number (acquire), the fields (relaxed), and after an acquire fence the number
//! again, and believes the fields only if both numbers are the same and even.
//!
//! Say that one of the fields it loaded was stored in a later write than the first number is of.
//! That store comes after the owner's release fence, and the load before the reader's acquire
//! fence, so the fences synchronise: the odd number stored before the one is seen by loads after
//! the other, and the second number is at least that one, which is not the first. Say that one of
//! the fields was stored in an earlier write. The first number was stored with release after all
//! stores of its own write, and loaded with acquire, so these happened before the loads, which
//! cannot give anything older. What is left is that all fields are of the write whose number was
//! read twice. A number has 64 bits and does not come round.
//!
//! A slot that is being written is not waited for, as its owner may have lost its CPU: the
//! neighbour is then not found, and whoever asks the owner gets the answer.

use super::counters::{Cells, DuplicateAddress, NeighbourCounters};
use crate::headers::MacAddress;
use dpdk_rs::HashKey;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering, fence};

/// Slots of a bucket: one for each byte of a word of tags.
pub(super) const BUCKET: usize = 8;
/// Where a neighbour may be.
pub(super) const CANDIDATES: usize = 2 * BUCKET;
/// How often a reader looks at a slot that changes under its eyes.
const LOOKS: usize = 4;
/// Reports that are kept for whoever reads them.
const REPORTS: usize = 16;

/// What is known of a neighbour, RFC 4861 section 7.3.2, for both families.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, Default)]
pub enum NeighbourState {
    /// Asked for, not yet answered.
    #[default]
    Incomplete,
    /// It answered a short time ago.
    Reachable,
    /// It was there once; nobody has needed it since.
    Stale,
    /// It is needed again and may show by itself that it is there.
    Delay,
    /// It is being asked whether it is still there.
    Probe,
    /// It did not answer.
    Unreachable,
}

impl NeighbourState {
    pub(crate) const ALL: [Self; 6] =
        [Self::Incomplete, Self::Reachable, Self::Stale, Self::Delay, Self::Probe, Self::Unreachable];

    /// As `ip neighbour` writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "INCOMPLETE",
            Self::Reachable => "REACHABLE",
            Self::Stale => "STALE",
            Self::Delay => "DELAY",
            Self::Probe => "PROBE",
            Self::Unreachable => "UNREACHABLE",
        }
    }

    fn read(number: u8) -> Self {
        Self::ALL.get(usize::from(number)).copied().unwrap_or_default()
    }
}

/// One line of the neighbour table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Neighbour {
    /// The interface that it is at.
    pub interface: u16,
    /// Its address.
    pub address: IpAddr,
    /// Its station's address, unless it is not known yet or any more.
    pub mac: Option<MacAddress>,
    /// What is known of it.
    pub state: NeighbourState,
}

/// What a neighbour is found by: its address, and its interface with a mark for the family, as
/// words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Key {
    address: [u64; 2],
    link: u64,
}

/// Above the interface's number in a key's last word; no key has a zero there.
const IPV4: u64 = 4 << 16;
const IPV6: u64 = 6 << 16;

impl Key {
    const NONE: Self = Self { address: [0; 2], link: 0 };

    #[inline]
    pub(super) fn new(interface: u16, address: IpAddr) -> Self {
        let (bits, family) = match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()), IPV4),
            IpAddr::V6(v6) => (v6.to_bits(), IPV6),
        };
        #[allow(clippy::cast_possible_truncation, reason = "that is what halves are")]
        let address = [(bits >> 64) as u64, bits as u64];
        Self { address, link: u64::from(interface) | family }
    }

    fn interface(self) -> u16 {
        #[allow(clippy::cast_possible_truncation, reason = "the family's mark stands above it")]
        let interface = self.link as u16;
        interface
    }

    fn address(self) -> IpAddr {
        let [high, low] = self.address;
        #[allow(clippy::cast_possible_truncation, reason = "an IPv4 address")]
        let low_half = low as u32;
        match self.link & !0xffff {
            IPV4 => IpAddr::V4(low_half.into()),
            _ => IpAddr::V6(Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))),
        }
    }

    #[inline]
    fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let words = [self.address[0], self.address[1], self.link];
        bytes.as_chunks_mut::<8>().0.iter_mut().zip(words).for_each(|(to, word)| *to = word.to_ne_bytes());
        bytes
    }
}

/// A cache line of its own, so that a neighbour costs one.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Slot {
    sequence: AtomicU64,
    address: [AtomicU64; 2],
    /// Zero in an empty slot.
    link: AtomicU64,
    /// Zero while the neighbour's is not known.
    mac: AtomicU64,
    /// Somebody has used the entry since the owner looked. Outside of the sequence: what is
    /// written here to the wrong entry does no more than keep it for longer.
    used: AtomicBool,
    /// For people to look at; also outside.
    state: AtomicU8,
}

impl Slot {
    /// Key and MAC address, as one write left them; `None` if writes do not end.
    #[inline]
    fn read(&self) -> Option<(Key, MacAddress)> {
        for _ in 0..LOOKS {
            let before = self.sequence.load(Ordering::Acquire);
            let address = [self.address[0].load(Ordering::Relaxed), self.address[1].load(Ordering::Relaxed)];
            let link = self.link.load(Ordering::Relaxed);
            let mac = self.mac.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.sequence.load(Ordering::Relaxed) == before {
                let [a, b, c, d, e, f, ..] = mac.to_le_bytes();
                return Some((Key { address, link }, MacAddress([a, b, c, d, e, f])));
            }
        }
        None
    }

    /// By the owner alone: no two writes overlap.
    fn write(&self, key: Key, mac: MacAddress) {
        let before = self.sequence.load(Ordering::Relaxed);
        self.sequence.store(before + 1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.address.iter().zip(key.address).for_each(|(word, value)| word.store(value, Ordering::Relaxed));
        self.link.store(key.link, Ordering::Relaxed);
        let [a, b, c, d, e, f] = mac.octets();
        self.mac.store(u64::from_le_bytes([a, b, c, d, e, f, 0, 0]), Ordering::Relaxed);
        self.sequence.store(before + 2, Ordering::Release);
    }
}

/// The neighbours of all interfaces as workers see them: memory of fixed size, one writer, any
/// number of readers, no locks.
#[derive(Debug)]
pub struct NeighbourTable {
    key: HashKey,
    /// One for each bucket: a byte for each slot, zero where that is empty.
    tags: Box<[AtomicU64]>,
    slots: Box<[Slot]>,
    generation: AtomicU64,
    counters: Cells,
    /// The last reports, each at its number modulo their count, and how many there have been.
    reports: [Slot; REPORTS],
    reported: AtomicU64,
}

/// The two buckets of a key, and its tag.
#[derive(Clone, Copy)]
struct Place {
    buckets: [usize; 2],
    tag: u8,
}

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

impl NeighbourTable {
    /// The MAC address of a neighbour, if it is known. Whoever asks wants to send there, so the
    /// owner keeps such an entry alive.
    #[inline]
    #[must_use]
    pub fn find(&self, interface: u16, address: IpAddr) -> Option<MacAddress> {
        let (slot, mac) = self.look_up(Key::new(interface, address))?;
        if mac == MacAddress::ZERO {
            return None;
        }
        let used = &self.slots[slot].used;
        if !used.load(Ordering::Relaxed) {
            used.store(true, Ordering::Relaxed);
        }
        Some(mac)
    }

    /// Moves after each change of what [`find`](Self::find) says, and when the owner wants to know
    /// who is still needed. What was found after reading it may be used without asking again until
    /// it has moved.
    #[inline]
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// All neighbours, in no order, for people to look at: one that changes meanwhile may be
    /// missing.
    pub fn list(&self) -> impl Iterator<Item = Neighbour> {
        self.list_from(0).map(|(_, neighbour)| neighbour)
    }

    /// Those in the slots from this one on, each with its slot.
    pub(crate) fn list_from(&self, from: usize) -> impl Iterator<Item = (usize, Neighbour)> {
        self.slots.iter().enumerate().skip(from).filter_map(|(at, slot)| {
            let state = NeighbourState::read(slot.state.load(Ordering::Relaxed));
            let (key, mac) = slot.read().filter(|(key, _)| *key != Key::NONE)?;
            let mac = Some(mac).filter(|mac| *mac != MacAddress::ZERO);
            Some((at, Neighbour { interface: key.interface(), address: key.address(), mac, state }))
        })
    }

    /// How many are in each state, under its name.
    pub(crate) fn count_by_state(&self) -> Vec<(&'static str, u64)> {
        let mut counts = NeighbourState::ALL.map(|state| (state, 0));
        for neighbour in self.list() {
            counts.iter_mut().filter(|(state, _)| *state == neighbour.state).for_each(|(_, count)| *count += 1);
        }
        counts.map(|(state, count)| (state.name(), count)).to_vec()
    }

    /// What has happened.
    #[must_use]
    pub fn counters(&self) -> NeighbourCounters {
        self.counters.read()
    }

    /// Who has claimed addresses of ours since this was last asked with the same `seen`, which is 0
    /// at first. Of very many, the last are given.
    pub fn duplicates(&self, seen: &mut u64) -> Vec<DuplicateAddress> {
        let reported = self.reported.load(Ordering::Acquire);
        let first = (*seen).max(reported.saturating_sub(REPORTS as u64));
        *seen = reported;
        let reports = (first..reported).filter_map(|number| self.reports[report_index(number)].read());
        reports.map(|(key, mac)| DuplicateAddress { interface: key.interface(), address: key.address(), mac }).collect()
    }

    pub(super) fn cells(&self) -> &Cells {
        &self.counters
    }

    #[inline]
    fn place(&self, key: Key) -> Place {
        let hash = self.key.hash(&key.bytes());
        let [tag, ..] = hash.to_le_bytes();
        // The number of buckets is a power of two, and at least two.
        let mask = self.tags.len() - 1;
        #[allow(clippy::cast_possible_truncation, reason = "usize has 64 bits")]
        let (first, step) = ((hash >> 8) as usize & mask, (hash >> 36) as usize & mask);
        Place { buckets: [first, first ^ step.max(1)], tag: tag.max(1) }
    }

    #[inline]
    fn look_up(&self, key: Key) -> Option<(usize, MacAddress)> {
        let place = self.place(key);
        for bucket in place.buckets {
            // Bytes that are zero where the tag matches; the borrow of one may show another above
            // it that does not, which the key then tells.
            let difference = self.tags[bucket].load(Ordering::Acquire) ^ (u64::from(place.tag) * LOW_BITS);
            let mut matching = difference.wrapping_sub(LOW_BITS) & !difference & HIGH_BITS;
            while matching != 0 {
                let slot = bucket * BUCKET + matching.trailing_zeros() as usize / 8;
                if let Some((found, mac)) = self.slots[slot].read()
                    && found == key
                {
                    return Some((slot, mac));
                }
                matching &= matching - 1;
            }
        }
        None
    }
}

fn report_index(number: u64) -> usize {
    #[allow(clippy::cast_possible_truncation, reason = "less than the number of reports")]
    let index = (number % REPORTS as u64) as usize;
    index
}

/// The owner's end of a [`NeighbourTable`]: there is one.
#[derive(Debug)]
pub(super) struct TableWriter(Arc<NeighbourTable>);

impl TableWriter {
    /// An empty table for at least `capacity` neighbours.
    pub(super) fn new(capacity: usize, key: HashKey) -> Self {
        // At most two in three slots are then taken, for which two choices of bucket do.
        let buckets = (capacity + capacity / 2).div_ceil(BUCKET).next_power_of_two().max(2);
        Self(Arc::new(NeighbourTable {
            key,
            tags: (0..buckets).map(|_| AtomicU64::default()).collect(),
            slots: (0..buckets * BUCKET).map(|_| Slot::default()).collect(),
            generation: AtomicU64::new(0),
            counters: Cells::default(),
            reports: Default::default(),
            reported: AtomicU64::new(0),
        }))
    }

    pub(super) fn readers(&self) -> &Arc<NeighbourTable> {
        &self.0
    }

    pub(super) fn slots(&self) -> usize {
        self.0.slots.len()
    }

    /// The slot of a neighbour.
    pub(super) fn slot(&self, key: Key) -> Option<usize> {
        self.0.look_up(key).map(|(slot, _)| slot)
    }

    /// The slots where a neighbour may be, those of the emptier bucket first.
    pub(super) fn candidates(&self, key: Key) -> [usize; CANDIDATES] {
        let [first, second] = self.0.place(key).buckets;
        let taken = |bucket: usize| {
            let tags = self.0.tags[bucket].load(Ordering::Relaxed).to_le_bytes();
            tags.iter().filter(|tag| **tag != 0).count()
        };
        let order = if taken(second) < taken(first) { [second, first] } else { [first, second] };
        std::array::from_fn(|index| order[index / BUCKET] * BUCKET + index % BUCKET)
    }

    /// Puts a neighbour whose MAC address is not known yet into an empty slot of its
    /// [`candidates`](Self::candidates).
    pub(super) fn insert(&mut self, slot: usize, key: Key) {
        self.0.slots[slot].write(key, MacAddress::ZERO);
        self.0.slots[slot].used.store(false, Ordering::Relaxed);
        self.set_tag(slot, self.0.place(key).tag);
    }

    pub(super) fn remove(&mut self, slot: usize) {
        self.set_tag(slot, 0);
        self.0.slots[slot].write(Key::NONE, MacAddress::ZERO);
        self.changed();
    }

    /// Says where the neighbour in a slot is, or with zero that it is not known.
    pub(super) fn set_mac(&mut self, slot: usize, mac: MacAddress) {
        let Some((key, before)) = self.0.slots[slot].read() else { return };
        if before != mac {
            self.0.slots[slot].write(key, mac);
            self.changed();
        }
    }

    pub(super) fn set_state(&mut self, slot: usize, state: NeighbourState) {
        self.0.slots[slot].state.store(state as u8, Ordering::Relaxed);
    }

    /// Whether somebody has used the entry since this was asked.
    pub(super) fn take_used(&mut self, slot: usize) -> bool {
        let used = &self.0.slots[slot].used;
        used.load(Ordering::Relaxed) && {
            used.store(false, Ordering::Relaxed);
            true
        }
    }

    /// Whether somebody has.
    pub(super) fn is_used(&self, slot: usize) -> bool {
        self.0.slots[slot].used.load(Ordering::Relaxed)
    }

    /// Says that somebody else claims an address of ours.
    pub(super) fn report(&mut self, interface: u16, address: IpAddr, mac: MacAddress) {
        let number = self.0.reported.load(Ordering::Relaxed);
        self.0.reports[report_index(number)].write(Key::new(interface, address), mac);
        self.0.reported.store(number + 1, Ordering::Release);
    }

    /// Makes readers ask again what they keep.
    pub(super) fn changed(&mut self) {
        let next = self.0.generation.load(Ordering::Relaxed) + 1;
        self.0.generation.store(next, Ordering::Release);
    }

    fn set_tag(&self, slot: usize, tag: u8) {
        let word = &self.0.tags[slot / BUCKET];
        let mut tags = word.load(Ordering::Relaxed).to_le_bytes();
        tags[slot % BUCKET] = tag;
        word.store(u64::from_le_bytes(tags), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::sync::atomic::AtomicBool;

    /// Puts a neighbour where there is room.
    fn insert(writer: &mut TableWriter, interface: u16, address: IpAddr, mac: MacAddress) -> Option<usize> {
        let key = Key::new(interface, address);
        let free = |slot: &usize| writer.0.slots[*slot].read().unwrap().0 == Key::NONE;
        let slot = writer.candidates(key).into_iter().find(free)?;
        writer.insert(slot, key);
        writer.set_mac(slot, mac);
        Some(slot)
    }

    fn v4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0a00_0000 | number).into()
    }

    fn mac(number: u32) -> MacAddress {
        let [a, b, c, d] = number.to_be_bytes();
        MacAddress([2, 0, a, b, c, d])
    }

    #[test]
    fn an_address_is_known_at_its_interface_and_in_its_family_alone() {
        let mut writer = TableWriter::new(16, HashKey::from_seed(1));
        let table = Arc::clone(writer.readers());
        let cases: [(u16, IpAddr); 6] = [
            (0, v4(1)),
            (1, v4(1)),
            (u16::MAX, v4(1)),
            (0, "::10.0.0.1".parse().unwrap()),
            (0, "::ffff:10.0.0.1".parse().unwrap()),
            (0, "fe80::1".parse().unwrap()),
        ];
        for (number, (interface, address)) in (1..).zip(cases) {
            assert_eq!(table.find(interface, address), None, "{address} at {interface}");
            insert(&mut writer, interface, address, mac(number)).unwrap();
        }
        for (number, (interface, address)) in (1..).zip(cases) {
            assert_eq!(table.find(interface, address), Some(mac(number)), "{address} at {interface}");
        }
        let mut listed: Vec<_> = table.list().map(|line| (line.interface, line.address, line.mac)).collect();
        listed.sort();
        let mut expected: Vec<_> =
            (1..).zip(cases).map(|(number, (interface, address))| (interface, address, Some(mac(number)))).collect();
        expected.sort();
        assert_eq!(listed, expected);
    }

    #[test]
    fn as_many_as_were_asked_for_fit_with_any_key() {
        for (seed, capacity) in (0..20).flat_map(|seed| [1, 8, 85, 4096, 2730].map(|capacity| (seed, capacity))) {
            let mut writer = TableWriter::new(capacity, HashKey::from_seed(seed));
            let table = Arc::clone(writer.readers());
            let numbers = 0..u32::try_from(capacity).unwrap();
            for number in numbers.clone() {
                assert!(insert(&mut writer, 0, v4(number), mac(number)).is_some(), "{number} of {capacity}");
            }
            for number in numbers {
                assert_eq!(table.find(0, v4(number)), Some(mac(number)), "{number} of {capacity}");
            }
        }
    }

    #[test]
    fn what_comes_and_goes_is_what_a_map_says() {
        let mut writer = TableWriter::new(64, HashKey::from_seed(3));
        let table = Arc::clone(writer.readers());
        let mut model = BTreeMap::new();
        let random = HashKey::from_seed(4);
        for step in 0_u64..20_000 {
            let draw = random.hash(&step.to_le_bytes());
            let number = u32::try_from(draw % 128).unwrap();
            match writer.slot(Key::new(0, v4(number))) {
                Some(slot) if draw & 0x10000 == 0 => {
                    writer.remove(slot);
                    model.remove(&number);
                }
                Some(slot) => {
                    writer.set_mac(slot, mac(number + 1000));
                    model.insert(number, mac(number + 1000));
                }
                None => {
                    if insert(&mut writer, 0, v4(number), mac(number)).is_some() {
                        model.insert(number, mac(number));
                    }
                }
            }
            assert_eq!(table.find(0, v4(number)), model.get(&number).copied(), "step {step}");
        }
        assert_eq!(table.list().count(), model.len());
    }

    #[test]
    fn the_generation_moves_with_what_readers_see_and_not_without() {
        let mut writer = TableWriter::new(8, HashKey::from_seed(1));
        let table = Arc::clone(writer.readers());
        let slot = insert(&mut writer, 0, v4(1), MacAddress::ZERO).unwrap();
        assert_eq!((table.generation(), table.find(0, v4(1))), (0, None));
        for (address, generation) in [(mac(1), 1), (mac(1), 1), (mac(2), 2), (MacAddress::ZERO, 3), (mac(2), 4)] {
            writer.set_mac(slot, address);
            assert_eq!(table.generation(), generation);
        }
        writer.set_state(slot, NeighbourState::Probe);
        assert_eq!(table.list().next().unwrap().state, NeighbourState::Probe);
        assert_eq!(table.generation(), 4);
        writer.remove(slot);
        assert_eq!((table.generation(), table.find(0, v4(1))), (5, None));
    }

    #[test]
    fn finding_marks_an_entry_and_listing_does_not() {
        let mut writer = TableWriter::new(8, HashKey::from_seed(1));
        let table = Arc::clone(writer.readers());
        let slot = insert(&mut writer, 0, v4(1), mac(1)).unwrap();
        assert_eq!(table.list().count(), 1);
        assert!(!writer.take_used(slot));
        assert_eq!(table.find(0, v4(1)), Some(mac(1)));
        assert!(writer.take_used(slot) && !writer.take_used(slot));
        writer.set_mac(slot, MacAddress::ZERO);
        assert_eq!(table.find(0, v4(1)), None);
        assert!(!writer.take_used(slot), "nothing was found");
    }

    #[test]
    fn readers_on_other_threads_never_see_a_mixed_entry() {
        // Neighbours come, move and go in few slots; a MAC address says whose it is.
        const ADDRESSES: u32 = 24;
        let mut writer = TableWriter::new(8, HashKey::from_seed(1));
        let stop = AtomicBool::new(false);
        let found: u64 = std::thread::scope(|scope| {
            let readers = [0, 1].map(|_| {
                let (table, stop) = (Arc::clone(writer.readers()), &stop);
                scope.spawn(move || {
                    let (mut found, mut last) = (0_u64, 0);
                    while !stop.load(Ordering::Relaxed) {
                        for number in 0..ADDRESSES {
                            let generation = table.generation();
                            assert!(generation >= last);
                            last = generation;
                            if let Some(MacAddress([kind, move_, a, b, c, d])) = table.find(0, v4(number)) {
                                found += 1;
                                assert_eq!((kind, u32::from_be_bytes([a, b, c, d])), (2, number), "moved {move_}");
                            }
                        }
                        for line in table.list() {
                            let MacAddress([_, _, a, b, c, d]) = line.mac.unwrap_or(mac(0));
                            let number = u32::from_be_bytes([a, b, c, d]);
                            assert!(line.mac.is_none() || line.address == v4(number), "{line:?}");
                        }
                    }
                    found
                })
            });
            let random = HashKey::from_seed(2);
            // Until the readers have had their turns, also on one CPU.
            for step in 0_u64..400_000 {
                let draw = random.hash(&step.to_le_bytes());
                let number = u32::try_from(draw % u64::from(ADDRESSES)).unwrap();
                let MacAddress([_, _, a, b, c, d]) = mac(number);
                let moved = MacAddress([2, draw.to_le_bytes()[3], a, b, c, d]);
                match writer.slot(Key::new(0, v4(number))) {
                    Some(slot) if draw & 0x10000 == 0 => writer.remove(slot),
                    Some(slot) => writer.set_mac(slot, moved),
                    None => drop(insert(&mut writer, 0, v4(number), moved)),
                }
                if step % 4096 == 0 {
                    std::thread::yield_now();
                }
            }
            stop.store(true, Ordering::Relaxed);
            readers.into_iter().map(|reader| reader.join().unwrap()).sum()
        });
        assert!(found > 0);
    }
}
