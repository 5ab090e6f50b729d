//! The flow table against a plain map: random operations on virtual time, and no difference.
//!
//! The model is a `HashMap` that shares nothing with the table. Where the choice is the
//! table's own (which entry makes room, when an expired one goes), the model follows the
//! report of the removal and checks that it was allowed.
//!
//! `NF_MODEL_OPERATIONS` sets how many operations (a million unless told), `NF_MODEL_SEED` the
//! seed, which is printed. A hundred million:
//! `NF_MODEL_OPERATIONS=100000000 cargo test --release -p nf-framework --test flow_table_model -- --nocapture`

use nf_framework::testing::{Lab, lab};
use nf_framework::{Class, FlowTable, FlowTableCounters, Full, Handle, HashKey, Insertion, Instant, Removal, Removed};
use std::collections::HashMap;
use std::env;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

/// An address, a port and a protocol, and what fills them up.
type Key = [u8; 16];
type Table = FlowTable<Key, u64>;

/// splitmix64
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn class(&mut self) -> Class {
        const ALL: [Option<Class>; Class::COUNT] = [Class::new(0), Class::new(1), Class::new(2), Class::new(3)];
        ALL[index(self.below(4))].expect("there are four")
    }
}

/// What the model knows of an entry.
#[derive(Clone, Copy, Debug)]
struct Entry {
    handle: Handle,
    value: u64,
    class: Class,
    /// In nanoseconds.
    deadline: u64,
}

/// An entry may go so long after its deadline, and stay until it is met.
const UNIT: u64 = 1 << 20;
/// Most slots that a key can be in.
const REACH: usize = 128;
/// Those that are searched first; all that the smallest table has.
const ROW: usize = 64;

struct Model {
    table: Table,
    map: HashMap<u64, Entry>,
    by_class: [usize; Class::COUNT],
    /// Numbers that may be in the map: so that a random one can be had.
    keys: Vec<u64>,
    now: u64,
    /// A lookup may ask for one of these: their keys are not in the table.
    gone: Vec<(u64, Handle)>,
    /// Whether entries go faster than they come.
    hurrying: bool,
    /// Longest time to live, in nanoseconds.
    life: u64,
    /// Numbers of flows that there are.
    flows: u64,
    counted: FlowTableCounters,
    occupancy: (f64, f64),
}

fn key(number: u64) -> Key {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(number * 3).to_le_bytes());
    key[12..].copy_from_slice(&[1, 2, 3, 6]);
    key
}

fn index(number: u64) -> usize {
    usize::try_from(number).expect("64 bits")
}

fn number(key: Key) -> u64 {
    let [bytes, _] = key.as_chunks::<8>().0 else { panic!("16 bytes") };
    u64::from_le_bytes(*bytes) / 3
}

impl Model {
    fn new(lab: &Lab<'_>, entries: usize, random: &mut Random) -> Self {
        let table = Table::with_capacity(&lab.eal.memory(), entries, HashKey::from_seed(random.next()))
            .expect("memory for a small table");
        Self {
            map: HashMap::new(),
            by_class: [0; Class::COUNT],
            keys: Vec::new(),
            // Any time of the first four months: the table's own units overflow twice.
            now: random.below(120 * 24 * 3600) * 1_000_000_000,
            gone: Vec::new(),
            hurrying: false,
            life: 1_000_000_000,
            flows: table.slots() as u64 * 4,
            counted: FlowTableCounters::default(),
            occupancy: (1.0, 0.0),
            table,
        }
    }

    fn instant(&self) -> Instant {
        Instant::from_nanoseconds(self.now)
    }

    fn deadline(&self, random: &mut Random) -> u64 {
        self.now + random.below(self.life)
    }

    /// Some flow: mostly one that is likely to be there.
    fn flow(&self, random: &mut Random) -> u64 {
        let some = random.below(self.flows);
        match random.below(4) {
            0 => some,
            _ => self.keys.get(index(some) % self.keys.len().max(1)).copied().unwrap_or(some),
        }
    }

    /// Follows the report of an entry that has gone.
    fn forget(&mut self, removed: Removed<Key, u64>) -> Entry {
        let number = number(removed.key);
        let entry = self.map.remove(&number).expect("only what is there goes, and once");
        assert_eq!((removed.value, removed.class), (entry.value, entry.class));
        assert_eq!(self.table.entry(entry.handle), None, "its handle leads to nothing");
        self.by_class[usize::from(entry.class.rank())] -= 1;
        match removed.reason {
            Removal::Expired => {
                assert!(entry.deadline <= self.now, "expired {} ns early", entry.deadline - self.now);
                self.counted.expired += 1;
            }
            Removal::Evicted => {
                assert!(entry.deadline + UNIT > self.now, "it had expired, which is another reason");
                self.counted.evicted[usize::from(entry.class.rank())] += 1;
            }
            Removal::Removed => self.counted.removed += 1,
        }
        let place = index(entry.value % 64);
        self.gone.resize(self.gone.len().max(place + 1), (number, entry.handle));
        self.gone[place] = (number, entry.handle);
        entry
    }

    fn insert(&mut self, random: &mut Random) {
        let number = if random.below(5) == 0 { self.flow(random) } else { random.below(self.flows) };
        let class = random.class();
        let (deadline, value, before) = (self.deadline(random), random.next(), self.map.len());
        let mut gone = Vec::new();
        let note = |removed| gone.push(removed);
        let expires = Instant::from_nanoseconds(deadline);
        let outcome = self.table.insert(key(number), value, class, self.instant(), expires, note);
        assert!(gone.len() <= 2, "two go at most");
        let one = gone.len() == 1;
        let nobody = gone.is_empty();
        for removed in gone {
            let evicted = self.forget(removed);
            if removed.reason == Removal::Evicted {
                assert!(one, "who is evicted makes room enough");
                assert!(evicted.class <= class, "nothing dearer goes");
                assert!(before >= ROW, "{before} entries are no pressure");
                if self.table.slots() == ROW {
                    assert!(self.by_class[..usize::from(evicted.class.rank())].iter().all(|count| *count == 0));
                }
            }
        }
        match outcome {
            Ok(Insertion::New(handle)) => {
                let entry = Entry { handle, value, class, deadline };
                assert!(self.map.insert(number, entry).is_none(), "there was no such key");
                self.by_class[usize::from(class.rank())] += 1;
                self.counted.inserted += 1;
                let place = index(value) % self.table.slots();
                self.keys.resize(self.keys.len().max(place + 1), number);
                self.keys[place] = number;
            }
            Ok(Insertion::Existing(handle, back)) => {
                let entry = self.map.get(&number).expect("there is such a key");
                assert_eq!((entry.handle, back), (handle, value));
                assert!(nobody);
                self.counted.existing += 1;
            }
            Err(Full(back)) => {
                assert_eq!(back, value);
                assert!(!self.map.contains_key(&number));
                assert!(nobody);
                let above: usize = self.by_class[usize::from(class.rank()) + 1..].iter().sum();
                assert!(above >= REACH.min(self.table.slots()), "{above} are above class {class:?}");
                self.counted.refused += 1;
            }
        }
    }

    fn lookup(&mut self, random: &mut Random) {
        let number = self.flow(random);
        let found = self.table.lookup(&key(number));
        assert_eq!(found, self.map.get(&number).map(|entry| entry.handle));
        if let Some(handle) = found {
            let found = self.table.entry_mut(handle).expect("found just now");
            assert_eq!(*found.key, key(number));
            let entry = self.map.get_mut(&number).expect("found in both");
            assert_eq!(*found.value, entry.value);
            assert_eq!(self.table.class(handle), Some(entry.class));
        }
    }

    /// Returns how many keys were looked up.
    fn lookup_batch(&mut self, random: &mut Random) -> u64 {
        let count = index(1 + random.below(70));
        let numbers: Vec<u64> = (0..count).map(|_| self.flow(random)).collect();
        let keys: Vec<Key> = numbers.iter().map(|number| key(*number)).collect();
        let mut found = vec![None; count];
        self.table.lookup_batch(&keys, &mut found);
        for (number, found) in numbers.iter().zip(found) {
            assert_eq!(found, self.map.get(number).map(|entry| entry.handle));
        }
        count as u64
    }

    fn change(&mut self, random: &mut Random) {
        let (number, value) = (self.flow(random), random.next());
        let Some(entry) = self.map.get_mut(&number) else { return };
        *self.table.entry_mut(entry.handle).expect("it is there").value = value;
        entry.value = value;
    }

    fn touch(&mut self, random: &mut Random) {
        let (number, deadline) = (self.flow(random), self.deadline(random));
        let Some(entry) = self.map.get_mut(&number) else { return };
        assert!(self.table.touch(entry.handle, Instant::from_nanoseconds(deadline)));
        entry.deadline = deadline;
    }

    fn reclassify(&mut self, random: &mut Random) {
        let (number, class) = (self.flow(random), random.class());
        let Some(entry) = self.map.get_mut(&number) else { return };
        assert!(self.table.reclassify(entry.handle, class));
        self.by_class[usize::from(entry.class.rank())] -= 1;
        self.by_class[usize::from(class.rank())] += 1;
        entry.class = class;
    }

    fn remove(&mut self, random: &mut Random) {
        let number = self.flow(random);
        let Some(entry) = self.map.get(&number).copied() else { return };
        let removed = self.table.remove(entry.handle).expect("it is there");
        assert_eq!((removed.key, removed.reason), (key(number), Removal::Removed));
        self.forget(removed);
    }

    fn use_what_is_gone(&mut self, random: &mut Random) {
        let at = index(random.below(64));
        let Some((number, old)) = self.gone.get(at).copied() else { return };
        // Its key may be back, under another handle; the old one leads nowhere.
        assert_ne!(self.map.get(&number).map(|entry| entry.handle), Some(old));
        assert_eq!(self.table.entry(old), None);
        assert_eq!(self.table.remove(old), None);
        assert!(!self.table.touch(old, self.instant()));
        assert!(!self.table.reclassify(old, Class::KEPT));
    }

    fn expire(&mut self, random: &mut Random) {
        let budget = u32::try_from(random.below(64)).expect("below 64");
        let mut gone = Vec::new();
        let count = self.table.expire(self.instant(), budget, |removed| gone.push(removed));
        assert_eq!(count, gone.len());
        assert!(count <= budget.next_multiple_of(16) as usize);
        for removed in gone {
            assert_eq!(removed.reason, Removal::Expired);
            self.forget(removed);
        }
    }

    /// A whole sweep leaves nothing that is past its deadline by a unit.
    fn sweep(&mut self) {
        let mut gone = Vec::new();
        self.table.expire(self.instant(), u32::MAX, |removed| gone.push(removed));
        for removed in gone {
            self.forget(removed);
        }
        let late = self.map.values().filter(|entry| entry.deadline + UNIT <= self.now).count();
        assert_eq!(late, 0, "expired entries after a whole sweep");
    }

    /// The table has what the model has, no more and no less.
    fn compare(&mut self) {
        let mut seen = 0;
        for (handle, key, value) in self.table.entries_in(0..self.table.slots()) {
            let entry = self.map.get(&number(*key)).expect("only what was put in");
            assert_eq!((entry.handle, entry.value), (handle, *value));
            assert_eq!(self.table.class(handle), Some(entry.class));
            seen += 1;
        }
        assert_eq!((seen, self.table.len()), (self.map.len(), self.map.len()));
        let counters = *self.table.counters();
        assert_eq!(counters.distance.iter().sum::<u64>(), counters.inserted);
        assert_eq!(counters, FlowTableCounters { distance: counters.distance, ..self.counted });
    }

    /// One random operation, or a batch of look-ups; returns how many.
    fn step(&mut self, random: &mut Random) -> u64 {
        assert_eq!(self.table.len(), self.map.len());
        let (len, slots) = (self.map.len() as u64, self.table.slots() as u64);
        let small = slots < 1000;
        let full = len as f64 / slots as f64;
        self.occupancy = (self.occupancy.0.min(full), self.occupancy.1.max(full));
        // Between half and full, by turns: time hurries until it is emptier, and stands nearly
        // still until it is full and has been for a while.
        if self.hurrying {
            // What has expired unseen goes even then: in a small table that is a larger share.
            self.hurrying = len * 100 > slots * if small { 85 } else { 65 };
        } else {
            self.hurrying = len * 100 > slots * 97 && random.below(slots * 2) == 0;
        }
        let pace = match (self.hurrying, small) {
            (false, _) => 2,
            (true, true) => 8,
            (true, false) => 24,
        };
        self.now += random.below(pace) * self.life / (slots * 16);
        match random.below(100) {
            0..40 => self.insert(random),
            40..60 => self.lookup(random),
            60 => return self.lookup_batch(random),
            61..70 => self.change(random),
            70..82 => self.touch(random),
            82..85 => self.reclassify(random),
            85..93 if self.hurrying => self.remove(random),
            93..96 if self.hurrying => self.expire(random),
            96..99 => self.use_what_is_gone(random),
            _ => self.insert(random),
        }
        1
    }

    fn fill(&mut self, random: &mut Random) {
        while self.map.len() * 100 < self.table.slots() * 75 {
            self.insert(random);
        }
    }
}

fn run(lab: &Lab<'_>, entries: usize, operations: u64, seed: u64) {
    let mut random = Random(seed ^ entries as u64);
    let mut model = Model::new(lab, entries, &mut random);
    model.fill(&mut random);
    let (mut done, mut compared) = (0, 0);
    let pause = 1_000_000.max(operations / 20).min(operations / 2);
    while done < operations {
        done += model.step(&mut random);
        if done - compared >= pause {
            model.compare();
            compared = done;
        }
    }
    model.compare();
    let (least, most) = model.occupancy;
    println!(
        "{} slots, {done} operations: {:.1} to {:.1} % full; {:?}",
        model.table.slots(),
        least * 100.0,
        most * 100.0,
        model.table.counters()
    );
    assert!(least >= 0.5, "the table was to be half full at least");
    if operations > 100_000 {
        let counted = model.counted;
        assert!(counted.expired > 0 && counted.removed > 0 && counted.existing > 0);
        assert!(counted.evicted[..2].iter().all(|count| *count > 0));
    }
    model.sweep();
    model.now += 2 * model.life;
    model.sweep();
    assert!(model.table.is_empty() && model.map.is_empty(), "all expires in the end");
    model.compare();
}

fn given<T: FromStr>(variable: &str) -> Option<T> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is to be a number, not {text:?}")))
}

#[test]
fn the_table_and_a_plain_map_agree_on_every_operation() {
    let operations = given("NF_MODEL_OPERATIONS").unwrap_or(1_000_000_u64);
    // Another one on every run: what is found is replayed by its seed.
    let of_the_day = || SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO).subsec_nanos().into();
    let seed: u64 = given("NF_MODEL_SEED").unwrap_or_else(of_the_day);
    println!("NF_MODEL_SEED={seed} NF_MODEL_OPERATIONS={operations}");
    lab(move |lab| {
        // One row, two rows, many; the larger ones get more of the operations.
        for (entries, share) in [(56, 10), (112, 10), (1000, 30), (20_000, 50)] {
            run(lab, entries, operations * share / 100, seed);
        }
    });
}
