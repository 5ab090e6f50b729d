use super::*;
use crate::testing::{Lab, lab};
use std::time::Duration;

type Table = FlowTable<[u8; 16], u64>;
type Gone = Vec<(u64, Class, Removal)>;

fn table(lab: &Lab<'_>, entries: usize) -> Table {
    Table::with_capacity(&lab.eal.memory(), entries, HashKey::from_seed(1)).unwrap()
}

fn key(number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[4..12].copy_from_slice(&number.to_be_bytes());
    key
}

fn at(milliseconds: u64) -> Instant {
    Instant::START + Duration::from_millis(milliseconds)
}

/// Inserts number `number`, to expire at `deadline` ms; notes its value and who went.
fn put(table: &mut Table, number: u64, class: Class, now: u64, deadline: u64, gone: &mut Gone) -> Option<Handle> {
    let note = |entry: Removed<_, _>| {
        assert_eq!(entry.key, key(entry.value));
        gone.push((entry.value, entry.class, entry.reason));
    };
    match table.insert(key(number), number, class, at(now), at(deadline), note) {
        Ok(Insertion::New(handle)) => Some(handle),
        Ok(Insertion::Existing(..)) => panic!("{number} is new"),
        Err(Full(value)) => {
            assert_eq!(value, number);
            None
        }
    }
}

/// Fills all 64 slots of a table of one row, in which every slot is every key's.
fn full(lab: &Lab<'_>, class: impl Fn(u64) -> Class, deadline: impl Fn(u64) -> u64) -> (Table, Vec<Handle>) {
    let (mut table, mut gone) = (table(lab, 56), Gone::new());
    assert_eq!(table.slots(), 64);
    let mut fill = |number| put(&mut table, number, class(number), 0, deadline(number), &mut gone).unwrap();
    let handles = (0..64).map(&mut fill).collect();
    assert_eq!(gone, []);
    assert_eq!(table.len(), 64);
    (table, handles)
}

#[test]
fn what_was_put_in_is_found_until_it_is_taken_out() {
    lab(|lab| {
        let (mut table, mut gone) = (table(lab, 1000), Gone::new());
        let handles: Vec<_> =
            (0..1000).map(|n| put(&mut table, n, Class::ESTABLISHED, 0, 1000, &mut gone).unwrap()).collect();
        for (number, handle) in (0..).zip(&handles) {
            assert_eq!(table.lookup(&key(number)), Some(*handle));
            assert_eq!(table.entry(*handle), Some((&key(number), &number)));
        }
        assert_eq!(table.lookup(&key(1000)), None);
        for (number, handle) in (0..).zip(&handles).filter(|(number, _)| number % 3 == 0) {
            let entry = table.remove(*handle).unwrap();
            assert_eq!((entry.key, entry.value, entry.reason), (key(number), number, Removal::Removed));
            assert_eq!(table.remove(*handle), None, "twice");
        }
        for (number, handle) in (0..).zip(&handles) {
            assert_eq!(table.lookup(&key(number)).is_some(), number % 3 != 0);
            assert_eq!(table.entry(*handle).is_some(), number % 3 != 0);
        }
        assert_eq!((gone.len(), table.len()), (0, 666));
        table.clear(|entry| gone.push((entry.value, entry.class, entry.reason)));
        assert_eq!((gone.len(), table.len()), (666, 0));
        assert!(table.away.iter().all(|away| away.near == 0 && away.far == 0), "nothing is elsewhere");
    });
}

#[test]
fn a_batch_finds_what_single_look_ups_find_at_every_length() {
    lab(|lab| {
        let (mut table, mut gone) = (table(lab, 3000), Gone::new());
        // To the last slot that takes one, so that many are far from home.
        for number in 0..3300 {
            put(&mut table, number, Class::EMBRYONIC, 0, 1000, &mut gone);
        }
        assert!(table.counters().distance[4..].iter().sum::<u64>() > 0, "{:?}", table.counters());
        let keys: Vec<_> = (0..10_000).map(|n| key((n * 7919) % 5000)).collect();
        for len in (0..=130).chain([10_000]) {
            let mut found = vec![None; len];
            table.lookup_batch(&keys[..len], &mut found);
            let single: Vec<_> = keys[..len].iter().map(|key| table.lookup(key)).collect();
            assert_eq!(found, single);
        }
        let mut found = [None; 3];
        table.lookup_batch(&keys, &mut found);
        assert_eq!(found[2], table.lookup(&keys[2]), "as far as both go");
    });
}

#[test]
fn the_second_packet_of_a_new_flow_gets_the_entry_of_the_first() {
    lab(|lab| {
        let mut table = table(lab, 100);
        let never = |_| panic!("nobody goes");
        let first = table.insert(key(1), 10, Class::EMBRYONIC, at(0), at(5), never).unwrap();
        let second = table.insert(key(1), 20, Class::KEPT, at(0), at(500), never).unwrap();
        assert_eq!(second, Insertion::Existing(first.handle(), 20));
        assert_eq!(table.entry(first.handle()), Some((&key(1), &10)));
        assert_eq!(table.class(first.handle()), Some(Class::EMBRYONIC));
        assert_eq!((table.len(), table.counters().existing), (1, 1));
    });
}

#[test]
fn a_handle_does_not_lead_to_the_next_entry_of_its_slot() {
    lab(|lab| {
        let (mut table, handles) = full(lab, |_| Class::EMBRYONIC, |_| 1000);
        let old = handles[5];
        let _ = table.remove(old).unwrap();
        let mut gone = Gone::new();
        let new = put(&mut table, 100, Class::EMBRYONIC, 0, 1000, &mut gone).unwrap();
        assert_eq!((old.index, gone.len()), (new.index, 0));
        assert_eq!(table.entry(old), None);
        assert!(table.entry_mut(old).is_none());
        assert_eq!(table.class(old), None);
        assert!(!table.touch(old, at(5)));
        assert!(!table.reclassify(old, Class::KEPT));
        assert_eq!(table.remove(old), None);
        assert_eq!(table.entry(new), Some((&key(100), &100)));
    });
}

#[test]
fn when_full_the_lowest_class_goes_first_and_in_it_the_one_that_would_expire_first() {
    lab(|lab| {
        let class = |number| if number % 4 == 0 { Class::EMBRYONIC } else { Class::ESTABLISHED };
        let (mut table, _) = full(lab, class, |number| 10_000 + (number * 37 % 64) * 10);
        let mut gone = Gone::new();
        for newcomer in 100..164 {
            assert!(put(&mut table, newcomer, Class::KEPT, 1, 50_000, &mut gone).is_some());
        }
        let mut expected: Vec<u64> = (0..64).collect();
        expected.sort_by_key(|number| (class(*number), number * 37 % 64));
        assert_eq!(gone.iter().map(|gone| gone.0).collect::<Vec<_>>(), expected);
        assert!(gone.iter().all(|(number, of, reason)| *of == class(*number) && *reason == Removal::Evicted));
        assert_eq!(table.counters().evicted, [16, 0, 48, 0]);
    });
}

#[test]
fn a_newcomer_never_evicts_what_is_above_it() {
    lab(|lab| {
        let (mut table, handles) = full(lab, |_| Class::ESTABLISHED, |_| 1000);
        let mut gone = Gone::new();
        assert_eq!(put(&mut table, 100, Class::EMBRYONIC, 0, 1000, &mut gone), None);
        assert_eq!((gone.len(), table.counters().refused), (0, 1));
        assert!(table.reclassify(handles[9], Class::EMBRYONIC));
        assert!(put(&mut table, 100, Class::EMBRYONIC, 0, 1000, &mut gone).is_some());
        assert_eq!(gone, [(9, Class::EMBRYONIC, Removal::Evicted)]);
    });
}

#[test]
fn an_expired_entry_goes_before_any_other_whatever_its_class() {
    lab(|lab| {
        let (mut table, _) =
            full(lab, |n| if n == 7 { Class::KEPT } else { Class::EMBRYONIC }, |n| if n == 7 { 10 } else { 1000 });
        let mut gone = Gone::new();
        assert!(put(&mut table, 100, Class::EMBRYONIC, 12, 1000, &mut gone).is_some());
        assert_eq!(gone, [(7, Class::KEPT, Removal::Expired)]);
    });
}

#[test]
fn a_touch_saves_an_entry_from_eviction_and_expiry() {
    lab(|lab| {
        let (mut table, handles) = full(lab, |_| Class::EMBRYONIC, |n| 100 + n * 5);
        let mut gone = Gone::new();
        for handle in &handles[..6] {
            assert!(table.touch(*handle, at(5000)));
        }
        assert!(put(&mut table, 100, Class::EMBRYONIC, 1, 6000, &mut gone).is_some());
        assert_eq!(gone, [(6, Class::EMBRYONIC, Removal::Evicted)]);
        assert_eq!(table.expire(at(1000), 64, |_| ()), 57);
        assert_eq!(table.len(), 7);
        assert_eq!(table.expire(at(5002), 64, |_| ()), 6);
        assert_eq!(table.expire(at(6002), 64, |_| ()), 1);
    });
}

#[test]
fn a_touch_may_bring_the_end_nearer() {
    lab(|lab| {
        let (mut table, handles) = full(lab, |_| Class::EMBRYONIC, |_| 100_000);
        assert!(table.touch(handles[3], at(10)));
        let mut gone = Vec::new();
        assert_eq!(table.expire(at(12), 64, |entry| gone.push(entry.value)), 1);
        assert_eq!(gone, [3]);
    });
}

#[test]
fn a_sweep_looks_at_its_budget_and_goes_on_where_it_stopped() {
    lab(|lab| {
        let (mut table, mut gone) = (table(lab, 10_000), Gone::new());
        for number in 0..8000 {
            put(&mut table, number, Class::EMBRYONIC, 0, 1000, &mut gone);
        }
        assert_eq!(table.expire(at(999), u32::MAX, |_| panic!("too early")), 0);
        let sweeps = table.slots().div_ceil(128);
        let mut total = 0;
        for _ in 0..sweeps {
            let count = table.expire(at(1002), 128, |entry| assert_eq!(entry.reason, Removal::Expired));
            assert!(count <= 128);
            total += count;
        }
        assert_eq!((total, table.len(), gone.len()), (8000, 0, 0));
        assert_eq!(table.counters().expired, 8000);
    });
}

#[test]
fn an_insertion_reuses_an_expired_entry_that_it_meets_without_a_sweep() {
    lab(|lab| {
        let (mut table, mut gone) = (table(lab, 1000), Gone::new());
        for number in 0..100_000 {
            // Each lives for 500 insertions.
            assert!(put(&mut table, number, Class::EMBRYONIC, number * 2, number * 2 + 1000, &mut gone).is_some());
        }
        assert!(gone.iter().all(|(_, _, reason)| *reason == Removal::Expired), "nobody was evicted");
        assert!(table.len() < 1000, "{} in the table", table.len());
    });
}

#[test]
fn a_table_holds_the_entries_that_were_asked_for() {
    lab(|lab| {
        for entries in [64, 1000, 10_000, 100_000] {
            for seed in 0..5 {
                let mut table = Table::with_capacity(&lab.eal.memory(), entries, HashKey::from_seed(seed)).unwrap();
                let mut evicted = 0;
                for number in 0..entries as u64 {
                    table.insert(key(number), 0, Class::EMBRYONIC, at(0), at(1000), |_| evicted += 1).unwrap();
                }
                let share = f64::from(evicted) / entries as f64;
                println!("{entries} entries, seed {seed}: {evicted} evicted, {:?}", table.counters().distance);
                assert!(share < 0.005, "{share} evicted");
            }
        }
    });
}

#[test]
fn values_are_dropped_once_whatever_becomes_of_them() {
    use std::rc::Rc;
    lab(|lab| {
        let reference = Rc::new(());
        let mut table: FlowTable<[u8; 16], Option<Rc<()>>> =
            FlowTable::with_capacity(&lab.eal.memory(), 56, HashKey::from_seed(1)).unwrap();
        for number in 0..1000_u64 {
            let value = Some(Rc::clone(&reference));
            let _ = table.insert(key(number), value, Class::EMBRYONIC, at(number), at(number + 40), drop);
            assert_eq!(Rc::strong_count(&reference), 1 + table.len());
        }
        table.expire(at(5000), 16, drop);
        assert_eq!(Rc::strong_count(&reference), 1 + table.len());
        drop(table);
        assert_eq!(Rc::strong_count(&reference), 1);
    });
}

#[test]
fn what_does_not_fit_is_refused_with_its_size() {
    lab(|lab| {
        let of = |entries| Table::with_capacity(&lab.eal.memory(), entries, HashKey::from_seed(1)).unwrap_err();
        assert_eq!(of(0).to_string(), "a flow table has 1 to 2147483648 entries, not 0");
        assert!(matches!(of(usize::MAX), FlowTableError::Capacity { .. }));
        let text = of(100_000_000).to_string();
        assert!(text.starts_with("the flow table for 100000000 entries of 39 bytes has no memory for 3600"), "{text}");
        assert!(text.contains("hugepages"), "{text}");
    });
}

#[test]
fn a_flow_of_56_bytes_fills_one_line_and_a_handle_8_bytes() {
    assert_eq!(size_of::<Slot<[u8; 16], [u64; 5]>>(), 64);
    assert_eq!(size_of::<Slot<[u8; 40], [u64; 2]>>(), 64);
    assert_eq!(size_of::<Slot<[u8; 16], u64>>(), 32);
    assert_eq!(FlowTable::<[u8; 16], [u64; 5]>::SLOT_BYTES, 71);
    assert_eq!(size_of::<Option<Handle>>(), 8);
}

#[test]
fn how_full_it_is_is_shown_as_of_the_last_sweep_and_as_long_as_it_is_there() {
    lab(|lab| {
        let (registry, mut gone) = (crate::registry::Registry::default(), Gone::new());
        let shown = || registry.tables().iter().map(|of| (of.worker, of.entries, of.limit)).collect::<Vec<_>>();
        let shown_table = |worker, entries| {
            let mut table = table(lab, entries);
            table.show(Occupancy::of(registry.room("f", "flows", worker)));
            table
        };
        let (mut first, second) = (shown_table(0, 1000), shown_table(1, 500));
        assert_eq!(shown(), [(Some(0), 0, 1000), (Some(1), 0, 500)]);
        for number in 0..7 {
            put(&mut first, number, Class::KEPT, 0, 100 + number, &mut gone);
        }
        first.expire(at(50), 16, |_| ());
        assert_eq!(shown()[0], (Some(0), 7, 1000));
        // One that is to take its place waits.
        let next = shown_table(0, 2000);
        assert_eq!(shown()[0], (Some(0), 7, 1000));
        assert_eq!(first.expire(at(200), 2000, |_| ()), 7);
        assert_eq!(shown()[0], (Some(0), 0, 1000));
        drop((first, second));
        assert_eq!(shown(), [(Some(0), 0, 2000)]);
        drop(next);
        assert_eq!(shown(), []);
    });
}
