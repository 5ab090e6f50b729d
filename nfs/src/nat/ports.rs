//! External ports: who has which, which are free, and which rest.
//!
//! A worker gives out the ports that come back to it and knows of no others. Each has a record of 8
//! bytes, found by address, protocol and port without a search; a bit beside says whether it is free.
//! One that is given back rests for a while, in a queue that goes through the records themselves.

use super::config::PortRange;
use super::flow::Protocol;
use super::policy::MOST_ADDRESSES;
use crate::random::Random;
use nf_framework::Instant;
use std::net::Ipv4Addr;
use std::ops::Range;

/// Ports belong to workers in blocks of 2 to the power of this: as many as have their records in one
/// cache line.
pub(super) const BLOCK_BITS: u8 = 3;
const BLOCK: usize = 1 << BLOCK_BITS;
const BLOCKS: usize = (1 << 16) / BLOCK;

/// An external port, or its absence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Record {
    /// In use: the inside host. At rest: the next one that rests.
    inside: u32,
    /// In use: the inside port. At rest: the second, modulo 2^16, since when.
    port: u16,
    /// 0 unless in use; the highest bit says that something came back.
    sessions: u16,
}

const ANSWERED: u16 = 1 << 15;
/// The end of the queue.
const NONE: u32 = u32::MAX;

/// What an external port stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Mapping {
    pub(super) inside: Ipv4Addr,
    pub(super) port: u16,
    /// Whether a packet came back since the mapping is there.
    pub(super) answered: bool,
}

/// A port of ours: the address's number, the protocol, and the port's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Slot {
    address: u16,
    /// Among the records of the address.
    record: u32,
}

impl Slot {
    /// The number of its address.
    pub(super) fn address(self) -> u16 {
        self.address
    }
}

/// Which port is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) range: PortRange,
    /// Even or odd.
    pub(super) parity: Option<u16>,
    /// This one if it is free.
    pub(super) rather: Option<u16>,
}

/// What may become of an address's mappings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Status {
    Active,
    Draining,
    /// It is ours no more; what mappings there are still go.
    Cut,
}

#[derive(Debug)]
struct Address {
    address: Ipv4Addr,
    group: u8,
    status: Status,
    /// Of another pool, when the mappings are gone that it has of an earlier one.
    then: Option<(u8, Status)>,
    /// By protocol and place.
    records: Vec<Record>,
    /// The same as bits, 1 for free.
    free: Vec<u64>,
    in_use: u32,
    resting: u32,
    /// By protocol: those that are not free.
    taken: [u32; Protocol::COUNT],
}

/// Where a worker's own ports are among all.
#[derive(Debug)]
struct Places {
    /// By block of ports: its place in `blocks`, or all ones.
    places: Vec<u16>,
    /// By block of ports, and behind the last: blocks of this worker below it.
    below: Vec<u16>,
    /// The blocks of this worker, from the lowest.
    blocks: Vec<u16>,
}

/// The external ports of one worker.
#[derive(Debug)]
pub(super) struct Ports {
    addresses: Vec<Address>,
    places: Places,
    /// The first and last that rest.
    queue: (u32, u32),
    random: Random,
}

impl Places {
    fn new(owns: impl Fn(u16) -> bool) -> Self {
        let mut places = vec![u16::MAX; BLOCKS];
        let (mut blocks, mut below) = (Vec::new(), Vec::with_capacity(BLOCKS + 1));
        let count = |blocks: &Vec<u16>| u16::try_from(blocks.len()).unwrap_or(u16::MAX);
        for (block, place) in (0..).zip(&mut places) {
            below.push(count(&blocks));
            if owns(block << BLOCK_BITS) {
                *place = count(&blocks);
                blocks.push(block);
            }
        }
        below.push(count(&blocks));
        Self { places, below, blocks }
    }

    fn len(&self) -> usize {
        self.blocks.len() * BLOCK
    }

    /// Nothing if the port is another worker's.
    #[inline]
    fn of(&self, port: u16) -> Option<usize> {
        let place = *self.places.get(usize::from(port >> BLOCK_BITS))?;
        (place != u16::MAX).then_some(usize::from(place) * BLOCK + usize::from(port) % BLOCK)
    }

    fn port(&self, place: usize) -> u16 {
        let block = self.blocks.get(place / BLOCK).copied().unwrap_or(0);
        #[allow(clippy::cast_possible_truncation, reason = "below 8")]
        let within = (place % BLOCK) as u16;
        block << BLOCK_BITS | within
    }

    /// The first place whose port is not below this.
    fn from(&self, port: u32) -> usize {
        let block = port as usize / BLOCK;
        let below = usize::from(self.below.get(block).or(self.below.last()).copied().unwrap_or(0));
        // Of a block that is not this worker's there is nothing to be within.
        let is_own = self.places.get(block).is_some_and(|place| *place != u16::MAX);
        below * BLOCK + if is_own { port as usize % BLOCK } else { 0 }
    }
}

impl Address {
    /// Makes a port free, if it is not.
    fn set_free(&mut self, record: usize) {
        if is_set(&self.free, record) {
            return;
        }
        set(&mut self.free, record, true);
        let of_protocol = record.checked_div(self.records.len() / Protocol::COUNT);
        if let Some(taken) = of_protocol.and_then(|protocol| self.taken.get_mut(protocol)) {
            *taken -= 1;
        }
    }
}

impl Ports {
    /// `owns` says whether the block of ports that begins with this one comes back to this worker.
    pub(super) fn new(owns: impl Fn(u16) -> bool) -> Self {
        Self { addresses: Vec::new(), places: Places::new(owns), queue: (NONE, NONE), random: Random::new() }
    }

    /// Takes an address in, or gives it another status; its number.
    pub(super) fn set_address(&mut self, address: Ipv4Addr, group: u8, status: Status) -> Option<u16> {
        let known = self.addresses.iter().position(|known| known.address == address);
        let gone = |known: &Address| known.status == Status::Cut && known.in_use == 0 && known.resting == 0;
        let index = known.or_else(|| self.addresses.iter().position(gone));
        // Half of them may be on their way out.
        let index = match index {
            Some(index) => index,
            None if self.addresses.len() < 2 * MOST_ADDRESSES => self.addresses.len(),
            None => return None,
        };
        if known.is_none() {
            let records = self.places.len() * Protocol::COUNT;
            let mut free = vec![u64::MAX; records.div_ceil(64)];
            for protocol in 0..Protocol::COUNT {
                // Nobody has port 0.
                if let Some(place) = self.places.of(0) {
                    set(&mut free, protocol * self.places.len() + place, false);
                }
            }
            let records = vec![Record::default(); records];
            let new = Address {
                address,
                group,
                status,
                then: None,
                records,
                free,
                in_use: 0,
                resting: 0,
                taken: [0; Protocol::COUNT],
            };
            match self.addresses.get_mut(index) {
                Some(place) => *place = new,
                None => self.addresses.push(new),
            }
        }
        let known = self.addresses.get_mut(index)?;
        if known.in_use > 0 && known.group != group {
            // It was gone, and comes back in another pool.
            (known.status, known.then) = (Status::Cut, Some((group, status)));
        } else {
            (known.group, known.status, known.then) = (group, status, None);
        }
        u16::try_from(index).ok()
    }

    /// Cuts all addresses that `keep` does not know.
    pub(super) fn cut(&mut self, keep: impl Fn(Ipv4Addr) -> bool) {
        for address in &mut self.addresses {
            if !keep(address.address) {
                (address.status, address.then) = (Status::Cut, None);
            }
        }
    }

    /// The addresses of a group that get new mappings, by their numbers, from this one on.
    fn active(&self, group: u8, from: u16) -> impl Iterator<Item = u16> {
        let is_active =
            move |(_, address): &(u16, &Address)| address.group == group && address.status == Status::Active;
        let rest = self.addresses.get(usize::from(from)..).unwrap_or_default();
        (from..).zip(rest).filter(is_active).map(|(number, _)| number)
    }

    pub(super) fn address(&self, number: u16) -> Option<Ipv4Addr> {
        self.addresses.get(usize::from(number)).map(|address| address.address)
    }

    pub(super) fn group(&self, number: u16) -> Option<u8> {
        self.addresses.get(usize::from(number)).map(|address| address.group)
    }

    pub(super) fn status(&self, number: u16) -> Option<Status> {
        self.addresses.get(usize::from(number)).map(|address| address.status)
    }

    /// Address, status, ports in use and at rest, of each.
    pub(super) fn occupancy(&self) -> impl Iterator<Item = (Ipv4Addr, Status, u32, u32)> {
        self.addresses.iter().map(|of| (of.address, of.status, of.in_use, of.resting))
    }

    /// Addresses that are known, also those that are gone.
    pub(super) fn addresses(&self) -> usize {
        self.addresses.len()
    }

    /// Adds what some addresses have, by protocol: ports that are not free, and all that are given out. `range` says of
    /// a group which these are. Addresses that get no new mappings have none.
    pub(super) fn add_up(
        &self,
        addresses: Range<usize>,
        range: impl Fn(u8) -> Option<PortRange>,
        sums: &mut [(usize, usize); Protocol::COUNT],
    ) {
        let addresses = self.addresses.get(addresses.start..addresses.end.min(self.addresses.len()));
        for address in addresses.unwrap_or_default().iter().filter(|of| of.status == Status::Active) {
            let Some(range) = range(address.group) else { continue };
            let (from, to) = (self.places.from(range.first.into()), self.places.from(u32::from(range.last) + 1));
            for ((entries, limit), taken) in sums.iter_mut().zip(address.taken) {
                *entries += taken as usize;
                *limit += to.saturating_sub(from);
            }
        }
    }

    /// Ports of one address and protocol that this worker has.
    pub(super) fn per_address(&self) -> usize {
        self.places.len()
    }

    /// An address for a new host: the emptier of two by chance, which keeps all about equally full.
    pub(super) fn any_address(&mut self, group: u8) -> Option<u16> {
        let count = self.active(group, 0).count();
        if count == 0 {
            return None;
        }
        let pair = [self.random.below(count), self.random.below(count)];
        let pair = pair.map(|at| self.active(group, 0).nth(at));
        let in_use = |number: &u16| self.addresses.get(usize::from(*number)).map_or(u32::MAX, |of| of.in_use);
        pair.into_iter().flatten().min_by_key(in_use)
    }

    /// The next address of a group that gets new mappings, from this number on.
    pub(super) fn next_address(&self, group: u8, from: u16) -> Option<u16> {
        self.active(group, from).next()
    }

    /// The number of an address, of one that is cut too.
    pub(super) fn number_of(&self, address: Ipv4Addr) -> Option<u16> {
        u16::try_from(self.addresses.iter().position(|known| known.address == address)?).ok()
    }

    /// The port itself.
    pub(super) fn port(&self, slot: Slot) -> u16 {
        let place = (slot.record as usize).checked_rem(self.places.len());
        place.map_or(0, |place| self.places.port(place))
    }

    /// The place of an external port, if it is this worker's.
    #[inline]
    pub(super) fn slot(&self, address: u16, protocol: Protocol, port: u16) -> Option<Slot> {
        let place = self.places.of(port)?;
        let record = u32::try_from(protocol.index() * self.places.len() + place).ok()?;
        Some(Slot { address, record })
    }

    #[inline]
    fn record(&self, slot: Slot) -> Option<&Record> {
        self.addresses.get(usize::from(slot.address))?.records.get(slot.record as usize)
    }

    #[inline]
    fn record_mut(&mut self, slot: Slot) -> Option<&mut Record> {
        self.addresses.get_mut(usize::from(slot.address))?.records.get_mut(slot.record as usize)
    }

    /// Asks for the record's line.
    #[inline]
    pub(super) fn prefetch(&self, slot: Slot) {
        if let Some(record) = self.record(slot) {
            nf_framework::prefetch(record);
        }
    }

    /// What a port stands for.
    #[inline]
    pub(super) fn mapping(&self, slot: Slot) -> Option<Mapping> {
        let Record { inside, port, sessions } = *self.record(slot)?;
        let mapping = Mapping { inside: Ipv4Addr::from_bits(inside), port, answered: sessions & ANSWERED != 0 };
        (sessions & !ANSWERED != 0).then_some(mapping)
    }

    /// Notes that a packet came back.
    #[inline]
    pub(super) fn answered(&mut self, slot: Slot) {
        if let Some(record) = self.record_mut(slot) {
            record.sessions |= ANSWERED;
        }
    }

    /// Takes a free port for an inside one, with its first session; `may` says which ports are ours.
    pub(super) fn take(
        &mut self,
        address: u16,
        protocol: Protocol,
        wanted: Wanted,
        inside: (Ipv4Addr, u16),
        may: impl Fn(u16) -> bool,
    ) -> Option<(Slot, u16)> {
        let count = self.places.len();
        let (from, to) =
            (self.places.from(wanted.range.first.into()), self.places.from(u32::from(wanted.range.last) + 1));
        let start = from + self.random.below(to.saturating_sub(from).max(1));
        // Ports of a parity stand at places of that parity, as blocks are aligned.
        let mask = match wanted.parity {
            None => u64::MAX,
            Some(parity) if parity & 1 == 1 => 0xaaaa_aaaa_aaaa_aaaa,
            Some(_) => 0x5555_5555_5555_5555,
        };
        let rather = wanted.rather.and_then(|port| self.places.of(port)).filter(|place| (from..to).contains(place));
        let Self { addresses, places, .. } = self;
        let all = addresses.get_mut(usize::from(address))?;
        let base = protocol.index() * count;
        let mut rather = rather.filter(|place| is_set(&all.free, base + place));
        loop {
            let found = rather.take().map(|place| base + place);
            let found = found.or_else(|| first(&all.free, base + start..base + to, mask));
            let record = found.or_else(|| first(&all.free, base + from..base + start, mask))?;
            set(&mut all.free, record, false);
            all.taken[protocol.index()] += 1;
            let port = places.port(record - base);
            // One that is not ours leaves the free ones for good, and is met no more.
            if may(port) {
                let (inside, port_inside) = inside;
                *all.records.get_mut(record)? = Record { inside: inside.to_bits(), port: port_inside, sessions: 1 };
                all.in_use += 1;
                return Some((Slot { address, record: u32::try_from(record).ok()? }, port));
            }
        }
    }

    /// One session more; false if there are as many as can be counted.
    pub(super) fn join(&mut self, slot: Slot) -> bool {
        let Some(record) = self.record_mut(slot) else { return false };
        let more = record.sessions & !ANSWERED < !ANSWERED;
        record.sessions += u16::from(more);
        more
    }

    /// One session less. If it was the last one the port rests, and what it stood for comes back.
    pub(super) fn leave(&mut self, slot: Slot, now: Instant, quiet: u16) -> Option<Mapping> {
        let mapping = self.mapping(slot)?;
        let record = self.record_mut(slot)?;
        record.sessions -= 1;
        if record.sessions & !ANSWERED != 0 {
            return None;
        }
        self.rest(slot, now, quiet);
        Some(mapping)
    }

    fn rest(&mut self, slot: Slot, now: Instant, quiet: u16) {
        let Some(all) = self.addresses.get_mut(usize::from(slot.address)) else { return };
        all.in_use -= 1;
        if let Some(then) = all.then.take_if(|_| all.in_use == 0) {
            (all.group, all.status) = then;
        }
        let Some(record) = all.records.get_mut(slot.record as usize) else { return };
        if quiet == 0 {
            *record = Record::default();
            return all.set_free(slot.record as usize);
        }
        *record = Record { inside: NONE, port: seconds(now), sessions: 0 };
        all.resting += 1;
        let number = self.number(slot);
        let (first, last) = self.queue;
        self.queue = (if first == NONE { number } else { first }, number);
        let last = self.slot_of(last);
        if let Some(last) = last.and_then(|last| self.record_mut(last)) {
            last.inside = number;
        }
    }

    /// Sets ports free that have rested for long enough, so many at most.
    pub(super) fn wake(&mut self, now: Instant, quiet: u16, most: usize) {
        for _ in 0..most {
            let Some(slot) = self.slot_of(self.queue.0) else { return };
            let Some(record) = self.record(slot).copied() else { return };
            // One more, as both are rounded down.
            if seconds(now).wrapping_sub(record.port) <= quiet {
                return;
            }
            self.queue.0 = record.inside;
            if record.inside == NONE {
                self.queue.1 = NONE;
            }
            if let Some(all) = self.addresses.get_mut(usize::from(slot.address)) {
                all.resting -= 1;
                all.set_free(slot.record as usize);
                if let Some(record) = all.records.get_mut(slot.record as usize) {
                    *record = Record::default();
                }
            }
        }
    }

    /// Makes a port free that had been left out of the free ones as not ours.
    pub(super) fn give_back(&mut self, address: Ipv4Addr, protocol: Protocol, port: u16) {
        let slot = self.number_of(address).and_then(|number| self.slot(number, protocol, port));
        let Some(slot) = slot else { return };
        if let Some(all) = self.addresses.get_mut(usize::from(slot.address))
            && all.records.get(slot.record as usize) == Some(&Record::default())
        {
            all.set_free(slot.record as usize);
        }
    }

    /// A number for each record of each address, below [`NONE`].
    #[allow(clippy::cast_possible_truncation, reason = "8192 addresses with 196608 records each")]
    fn number(&self, slot: Slot) -> u32 {
        u32::from(slot.address) * self.records() as u32 + slot.record
    }

    #[allow(clippy::cast_possible_truncation, reason = "8192 addresses with 196608 records each")]
    fn slot_of(&self, number: u32) -> Option<Slot> {
        let records = self.records() as u32;
        let address = u16::try_from(number.checked_div(records)?).ok().filter(|_| number != NONE)?;
        Some(Slot { address, record: number % records })
    }

    fn records(&self) -> usize {
        self.places.len() * Protocol::COUNT
    }
}

/// Seconds, modulo 2^16.
fn seconds(now: Instant) -> u16 {
    let seconds = now.since(Instant::START).as_secs();
    #[allow(clippy::cast_possible_truncation, reason = "modulo 2^16")]
    let seconds = seconds as u16;
    seconds
}

fn set(bits: &mut [u64], index: usize, to: bool) {
    if let Some(word) = bits.get_mut(index / 64) {
        let bit = 1 << (index % 64);
        *word = if to { *word | bit } else { *word & !bit };
    }
}

fn is_set(bits: &[u64], index: usize) -> bool {
    bits.get(index / 64).is_some_and(|word| word >> (index % 64) & 1 != 0)
}

/// The first bit that is set of a range, and of the bits of a mask over each word.
fn first(bits: &[u64], range: Range<usize>, mask: u64) -> Option<usize> {
    if range.is_empty() {
        return None;
    }
    let (first, last) = (range.start / 64, (range.end - 1) / 64);
    for (index, word) in (first..=last).zip(bits.get(first..=last)?) {
        let mut word = word & mask;
        if index == first {
            word &= u64::MAX << (range.start % 64);
        }
        if index == last {
            word &= u64::MAX >> (63 - (range.end - 1) % 64);
        }
        if word != 0 {
            return Some(index * 64 + word.trailing_zeros() as usize);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::time::Duration;

    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const INSIDE: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 168, 1, 1), 5000);

    /// One address, of a worker that has the ports that `owns` says.
    fn ports(owns: impl Fn(u16) -> bool) -> Ports {
        let mut ports = Ports::new(owns);
        assert_eq!(ports.set_address(OUTSIDE, 0, Status::Active), Some(0));
        ports
    }

    /// Every other block, as the second of two workers might have.
    fn odd_blocks(port: u16) -> bool {
        port >> BLOCK_BITS & 1 == 1
    }

    fn wanted(first: u16, last: u16) -> Wanted {
        Wanted { range: PortRange { first, last }, parity: None, rather: None }
    }

    /// Takes ports until there are no more.
    fn take_all(ports: &mut Ports, protocol: Protocol, wanted: Wanted) -> Vec<(Slot, u16)> {
        std::iter::from_fn(|| ports.take(0, protocol, wanted, INSIDE, |_| true)).collect()
    }

    fn at(seconds: u64) -> Instant {
        Instant::START + Duration::from_secs(seconds)
    }

    #[test]
    fn exactly_the_ports_of_a_range_and_worker_are_given_out_once() {
        for (first, last) in [
            (1, 1023),
            (1024, 65535),
            (1, 65535),
            (80, 80),
            (2003, 2010),
            (2000, 2063),
            (65535, 65535),
            (7, 8),
            (1023, 1025),
            (1024, 65523),
            (65521, 65523),
        ] {
            for owns in [(|_| true) as fn(u16) -> bool, odd_blocks, |port| port < 40_000] {
                let mut ports = ports(owns);
                for protocol in [Protocol::Tcp, Protocol::Udp, Protocol::Icmp] {
                    let taken = take_all(&mut ports, protocol, wanted(first, last));
                    let given: BTreeSet<_> = taken.iter().map(|(_, port)| *port).collect();
                    assert_eq!(given.len(), taken.len(), "one twice of {first}-{last}");
                    let expected: BTreeSet<_> = (first..=last).filter(|port| owns(*port)).collect();
                    assert_eq!(given, expected, "{first}-{last}");
                    for (slot, port) in taken {
                        assert_eq!(ports.port(slot), port);
                        assert_eq!(ports.slot(0, protocol, port), Some(slot));
                    }
                }
            }
        }
    }

    #[test]
    fn port_0_is_nobodys_and_anothers_ports_have_no_place() {
        let mut all = ports(|_| true);
        assert_eq!(all.take(0, Protocol::Udp, Wanted { rather: Some(0), ..wanted(0, 0) }, INSIDE, |_| true), None);
        let odd = ports(odd_blocks);
        assert_eq!(odd.per_address(), 1 << 15);
        assert_eq!(odd.slot(0, Protocol::Tcp, 16), None);
        assert!(odd.slot(0, Protocol::Tcp, 15).is_some());
    }

    #[test]
    fn a_parity_is_kept_to_the_last_port() {
        for parity in [0, 1] {
            let mut ports = ports(odd_blocks);
            let wanted = Wanted { parity: Some(parity), ..wanted(2001, 2101) };
            let given: BTreeSet<_> =
                take_all(&mut ports, Protocol::Udp, wanted).into_iter().map(|(_, port)| port).collect();
            let expected: BTreeSet<_> = (2001..=2101).filter(|port| odd_blocks(*port) && port % 2 == parity).collect();
            assert_eq!(given, expected);
        }
    }

    #[test]
    fn a_port_is_had_rather_if_it_is_free_and_in_the_range() {
        let mut all = ports(|_| true);
        let rather = |port| Wanted { rather: Some(port), ..wanted(2000, 2999) };
        let mut take = |port| all.take(0, Protocol::Udp, rather(port), INSIDE, |_| true).map(|(_, port)| port).unwrap();
        assert_eq!(take(2500), 2500);
        assert!((2000..=2999).contains(&take(2500)));
        assert!((2000..=2999).contains(&take(3500)));
        let mut odd = ports(odd_blocks);
        let (_, port) = odd.take(0, Protocol::Udp, rather(2512), INSIDE, |_| true).unwrap();
        assert!(odd_blocks(port), "2512 is another worker's");
    }

    #[test]
    fn what_is_not_ours_is_passed_over_until_it_is_given_back() {
        let mut all = ports(|_| true);
        let may = |port| port != 2000;
        let first = all.take(0, Protocol::Udp, Wanted { rather: Some(2000), ..wanted(2000, 2001) }, INSIDE, may);
        assert_eq!(first.map(|(_, port)| port), Some(2001));
        assert_eq!(all.take(0, Protocol::Udp, wanted(2000, 2001), INSIDE, |_| true), None);
        // One that is in use stays in use.
        all.give_back(OUTSIDE, Protocol::Udp, 2001);
        assert_eq!(all.take(0, Protocol::Udp, wanted(2001, 2001), INSIDE, |_| true), None);
        all.give_back(OUTSIDE, Protocol::Udp, 2000);
        assert_eq!(all.take(0, Protocol::Udp, wanted(2000, 2001), INSIDE, |_| true).map(|(_, port)| port), Some(2000));
        // Nobody's address, and another worker's port.
        all.give_back(Ipv4Addr::LOCALHOST, Protocol::Udp, 2000);
        ports(odd_blocks).give_back(OUTSIDE, Protocol::Udp, 16);
    }

    #[test]
    fn a_mapping_lasts_as_long_as_its_sessions() {
        let mut ports = ports(|_| true);
        let (slot, _) = ports.take(0, Protocol::Tcp, wanted(2000, 2000), INSIDE, |_| true).unwrap();
        let mapping = Mapping { inside: INSIDE.0, port: INSIDE.1, answered: false };
        assert_eq!(ports.mapping(slot), Some(mapping));
        assert!(ports.join(slot));
        ports.answered(slot);
        let mapping = Mapping { answered: true, ..mapping };
        assert_eq!(ports.mapping(slot), Some(mapping));
        assert_eq!(ports.leave(slot, at(0), 0), None);
        assert_eq!(ports.mapping(slot), Some(mapping));
        assert_eq!(ports.leave(slot, at(0), 0), Some(mapping));
        assert_eq!(ports.mapping(slot), None);
        // What is gone cannot go again, and the next one begins unanswered.
        assert_eq!(ports.leave(slot, at(0), 0), None);
        let (slot, _) = ports.take(0, Protocol::Tcp, wanted(2000, 2000), INSIDE, |_| true).unwrap();
        assert_eq!(ports.mapping(slot), Some(Mapping { answered: false, ..mapping }));
    }

    #[test]
    fn sessions_are_counted_as_far_as_there_is_room_for_the_count() {
        let mut ports = ports(|_| true);
        let (slot, _) = ports.take(0, Protocol::Tcp, wanted(2000, 2000), INSIDE, |_| true).unwrap();
        ports.answered(slot);
        let joined = (0..40_000).filter(|_| ports.join(slot)).count();
        assert_eq!(joined + 1, usize::from(!ANSWERED));
        for _ in 0..joined {
            assert_eq!(ports.leave(slot, at(0), 0), None);
        }
        assert!(ports.leave(slot, at(0), 0).is_some());
    }

    #[test]
    fn ports_rest_in_the_order_in_which_they_were_given_back() {
        let mut ports = ports(|_| true);
        let range = wanted(2000, 2003);
        let taken = take_all(&mut ports, Protocol::Udp, range);
        // A second apart, the last one last; of two protocols, as one queue has both.
        let (other, _) = ports.take(0, Protocol::Tcp, range, INSIDE, |_| true).unwrap();
        for (second, (slot, _)) in (0..).zip(&taken) {
            assert!(ports.leave(*slot, at(second), 120).is_some());
        }
        assert!(ports.leave(other, at(3), 120).is_some());
        let resting = |ports: &Ports| ports.occupancy().next().map(|(.., in_use, resting)| (in_use, resting)).unwrap();
        assert_eq!(resting(&ports), (0, 5));
        ports.wake(at(120), 120, 64);
        assert_eq!(resting(&ports), (0, 5));
        for (second, (_, port)) in (121..).zip(&taken) {
            assert_eq!(ports.take(0, Protocol::Udp, range, INSIDE, |_| true), None, "after {second} s");
            ports.wake(at(second), 120, 64);
            let (_, woken) = ports.take(0, Protocol::Udp, range, INSIDE, |_| true).unwrap();
            assert_eq!(woken, *port);
        }
        assert_eq!(resting(&ports), (4, 0));
    }

    #[test]
    fn so_many_wake_at_once() {
        let mut ports = ports(|_| true);
        for (slot, _) in take_all(&mut ports, Protocol::Udp, wanted(2000, 2099)) {
            ports.leave(slot, at(0), 10);
        }
        for woken in [64, 100, 100] {
            ports.wake(at(20), 10, 64);
            assert_eq!(ports.occupancy().map(|(.., resting)| 100 - resting).next(), Some(woken));
        }
        assert_eq!(take_all(&mut ports, Protocol::Udp, wanted(2000, 2099)).len(), 100);
    }

    #[test]
    fn the_quiet_time_outlasts_the_count_of_seconds() {
        let mut ports = ports(|_| true);
        let (slot, _) = ports.take(0, Protocol::Udp, wanted(2000, 2000), INSIDE, |_| true).unwrap();
        ports.leave(slot, at(65_530), 120);
        ports.wake(at(65_530 + 120), 120, 64);
        assert_eq!(ports.take(0, Protocol::Udp, wanted(2000, 2000), INSIDE, |_| true), None);
        ports.wake(at(65_530 + 121), 120, 64);
        assert!(ports.take(0, Protocol::Udp, wanted(2000, 2000), INSIDE, |_| true).is_some());
    }

    #[test]
    fn an_address_takes_the_place_of_one_that_is_gone_and_empty() {
        let address = |last| Ipv4Addr::new(198, 51, 100, last);
        let mut ports = Ports::new(|_| true);
        assert_eq!(ports.set_address(address(1), 0, Status::Active), Some(0));
        assert_eq!(ports.set_address(address(2), 0, Status::Active), Some(1));
        let (slot, port) = ports.take(0, Protocol::Udp, wanted(2000, 2000), INSIDE, |_| true).unwrap();
        ports.cut(|kept| kept == address(2));
        assert_eq!((ports.status(0), ports.status(1)), (Some(Status::Cut), Some(Status::Active)));
        // It still has a port in use, and then one that rests.
        assert_eq!(ports.set_address(address(3), 0, Status::Active), Some(2));
        assert!(ports.leave(slot, at(0), 10).is_some());
        assert_eq!(ports.set_address(address(4), 0, Status::Active), Some(3));
        ports.wake(at(11), 10, 64);
        assert_eq!(ports.set_address(address(5), 7, Status::Active), Some(0));
        assert_eq!((ports.address(0), ports.group(0)), (Some(address(5)), Some(7)));
        assert!(ports.take(0, Protocol::Udp, wanted(port, port), INSIDE, |_| true).is_some());
        // A new host gets an address of its group that is active.
        ports.set_address(address(2), 0, Status::Draining);
        for _ in 0..50 {
            assert!([Some(2), Some(3)].contains(&ports.any_address(0)));
            assert_eq!(ports.any_address(7), Some(0));
            assert_eq!(ports.any_address(1), None);
        }
    }

    #[test]
    fn bits_are_found_by_range_and_mask() {
        let bits = [1 << 3 | 1 << 63, 1 << 0 | 1 << 5, 0, 1 << 10];
        for (range, mask, expected) in [
            (0..256, u64::MAX, Some(3)),
            (3..4, u64::MAX, Some(3)),
            (4..63, u64::MAX, None),
            (4..64, u64::MAX, Some(63)),
            (64..65, u64::MAX, Some(64)),
            (65..202, u64::MAX, Some(69)),
            (70..202, u64::MAX, None),
            (70..203, u64::MAX, Some(202)),
            (0..256, 0x5555_5555_5555_5555, Some(64)),
            (65..256, 0x5555_5555_5555_5555, Some(202)),
            (5..5, u64::MAX, None),
            (250..300, u64::MAX, None),
        ] {
            assert_eq!(first(&bits, range.clone(), mask), expected, "{range:?}");
        }
    }
}
