//! Rules over keys: the first that matches, on every algorithm, reading nothing beside the keys.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::{Case, Random};
use dpdk_rs::{Acl, AclAlgorithm, AclError, AclField, AclRule, AclValue, Eal};
use std::num::NonZeroU32;
use std::ptr;

const FIELDS: [AclField; 6] = [
    AclField::Bits(1),
    AclField::Prefix(4),
    AclField::Range(2),
    AclField::Range(2),
    AclField::Bits(4),
    AclField::Bits(4),
];
const WORDS: usize = 5;

type Key = [u32; WORDS];
type Rule = AclRule<6>;

const ANY: [AclValue; 6] = [value(0, 0), value(0, 0), value(0, 65_535), value(0, 65_535), value(0, 0), value(0, 0)];

const fn value(value: u32, extent: u32) -> AclValue {
    AclValue { value, extent }
}

fn rule(answer: u32, change: impl FnOnce(&mut [AclValue; 6])) -> Rule {
    let mut fields = ANY;
    change(&mut fields);
    AclRule { answer: NonZeroU32::new(answer).unwrap(), fields }
}

fn key(protocol: u8, address: u32, ports: (u16, u16), bits: u32) -> Key {
    let ports = u32::from(ports.0) << 16 | u32::from(ports.1);
    [u32::from_ne_bytes([protocol, 0, 0, 0]), address.to_be(), ports.to_be(), bits.to_be(), 0]
}

fn build(eal: &Eal, rules: &[Rule]) -> Result<Acl<WORDS>, AclError> {
    Acl::new(&eal.memory(), &FIELDS, rules.iter().copied())
}

fn answers(acl: &Acl<WORDS>, keys: &[Key]) -> Vec<u32> {
    let mut answers = vec![u32::MAX; keys.len()];
    acl.classify(keys, &mut answers);
    answers
}

fn random_rules(random: &mut Random, count: u32) -> Vec<Rule> {
    let number = |random: &mut Random, limit| u32::try_from(random.below(limit)).unwrap();
    (1..=count)
        .map(|answer| {
            rule(answer, |fields| {
                fields[0] = value(6, [0, 0xff][random.below(2)]);
                let length = [8, 16, 24, 32][random.below(4)];
                fields[1] = value(0x0a00_0000 | number(random, 1 << 12) << 8, length);
                let port = number(random, 60_000);
                fields[3] = value(port, port + number(random, 5000));
            })
        })
        .collect()
}

fn random_keys(random: &mut Random, count: usize) -> Vec<Key> {
    (0..count)
        .map(|_| {
            let address = 0x0a00_0000 | u32::try_from(random.below(1 << 20)).unwrap();
            key([6, 17][random.below(2)], address, (1, u16::try_from(random.below(65_536)).unwrap()), 0)
        })
        .collect()
}

const CASES: &[Case] = &[
    ("the first rule that matches gives its answer", |eal| {
        let rules = [
            rule(7, |fields| fields[0] = value(6, 0xff)),
            rule(3, |fields| fields[1] = value(0x0a00_0000, 8)),
            rule(u32::MAX, |fields| fields[3] = value(53, 53)),
            rule(2, |fields| fields[4] = value(0x8000_0001, 0x8000_0001)),
        ];
        let acl = build(eal, &rules).unwrap();
        let cases = [
            (key(6, 0x0a01_0203, (1, 53), 0), 7),
            (key(17, 0x0a01_0203, (1, 53), 0), 3),
            (key(17, 0x0b01_0203, (1, 53), 0), u32::MAX),
            (key(17, 0x0b01_0203, (53, 54), 0xc000_0001), 2),
            (key(17, 0x0b01_0203, (53, 54), 0xc000_0000), 0),
        ];
        for (key, answer) in cases {
            assert_eq!(answers(&acl, &[key]), [answer], "{key:x?}");
        }
    }),
    ("no rules match nothing", |eal| {
        let mut acl = build(eal, &[]).unwrap();
        assert_eq!((acl.algorithm(), acl.bytes()), (AclAlgorithm::Scalar, 0));
        assert!(!acl.use_algorithm(AclAlgorithm::Sse));
        assert_eq!(answers(&acl, &[[0; WORDS]; 100]), [0; 100]);
    }),
    ("a rule without conditions matches everything", |eal| {
        let acl = build(eal, &[rule(1, |_| ())]).unwrap();
        assert_eq!(answers(&acl, &[[0; WORDS], [u32::MAX; WORDS]]), [1, 1]);
    }),
    ("any number of keys, and as many answers as both slices hold", |eal| {
        let acl = build(eal, &[rule(5, |fields| fields[0] = value(6, 0xff))]).unwrap();
        let keys: Vec<Key> = (0..200).map(|number| key([6, 17][number % 2], 0, (0, 0), 0)).collect();
        for count in (0..=200).filter(|count| *count < 70 || count % 31 == 0) {
            for room in [0, count / 2, count, 200] {
                let mut answers = vec![u32::MAX; room];
                acl.classify(&keys[..count], &mut answers);
                let expected = |index| if index >= count { u32::MAX } else { [5, 0][index % 2] };
                assert!(answers.iter().enumerate().all(|(index, answer)| *answer == expected(index)), "{count} {room}");
            }
        }
    }),
    ("all algorithms that there are agree, and the best one is taken", |eal| {
        let mut random = Random(1);
        let mut acl = build(eal, &random_rules(&mut random, 300)).unwrap();
        let keys = random_keys(&mut random, 10_000);
        let best = acl.algorithm();
        let expected = answers(&acl, &keys);
        let hits = expected.iter().filter(|answer| **answer != 0).count();
        assert!((1000..9000).contains(&hits), "{hits} hits");
        let mut there = Vec::new();
        for algorithm in AclAlgorithm::ALL {
            if acl.use_algorithm(algorithm) {
                assert_eq!(acl.algorithm(), algorithm);
                assert_eq!(answers(&acl, &keys), expected, "{algorithm}");
                there.push(algorithm);
            }
        }
        eprintln!("      {there:?}");
        assert_eq!(there.last(), Some(&best));
        assert_eq!(there.first(), Some(&AclAlgorithm::Scalar));
    }),
    ("nothing is read beside a key", |eal| {
        let mut acl = build(eal, &random_rules(&mut Random(2), 50)).unwrap();
        let page = 4096;
        // SAFETY: new pages at a place of the kernel's choice.
        let first = unsafe {
            libc::mmap(ptr::null_mut(), 3 * page, libc::PROT_NONE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert_ne!(first, libc::MAP_FAILED);
        // SAFETY: the second of the three pages.
        let middle = unsafe { first.byte_add(page) };
        // SAFETY: ours, and used by nobody.
        let code = unsafe { libc::mprotect(middle, page, libc::PROT_READ | libc::PROT_WRITE) };
        assert_eq!(code, 0);
        for count in 1..=70 {
            // Keys that end where the page ends, and keys that begin where it begins.
            for offset in [page - count * size_of::<Key>(), 0] {
                // SAFETY: within the page.
                let keys = unsafe { middle.byte_add(offset) };
                // SAFETY: `count` keys fit, aligned for words, zeroed by the kernel, and the page stays.
                let keys = unsafe { std::slice::from_raw_parts(keys.cast::<Key>(), count) };
                for algorithm in AclAlgorithm::ALL {
                    if acl.use_algorithm(algorithm) {
                        assert_eq!(answers(&acl, keys), vec![0; count], "{algorithm}");
                    }
                }
            }
        }
        // SAFETY: no reference into the pages is left.
        assert_eq!(unsafe { libc::munmap(first, 3 * page) }, 0);
    }),
    ("several at once keep their own rules, and memory comes back", |eal| {
        let mut random = Random(3);
        for round in 0..1000_u32 {
            let two = [1, 2].map(|number| build(eal, &[rule(round * 2 + number, |_| ())]).unwrap());
            for (acl, number) in two.iter().zip([1, 2]) {
                assert_eq!(answers(acl, &[[0; WORDS]]), [round * 2 + number]);
            }
        }
        let large = random_rules(&mut random, 500);
        let bytes: Vec<usize> = (0..20).map(|_| build(eal, &large).unwrap().bytes()).collect();
        assert!(bytes[0] > 500 * 100 && bytes.iter().all(|size| size.abs_diff(bytes[0]) < 4096), "{bytes:?}");
    }),
    ("threads that DPDK does not know build, share and drop", |eal| {
        let shared = build(eal, &random_rules(&mut Random(4), 100)).unwrap();
        let keys = random_keys(&mut Random(5), 1000);
        let expected = answers(&shared, &keys);
        std::thread::scope(|threads| {
            for seed in 0..4 {
                let (memory, shared, keys, expected) = (eal.memory(), &shared, &keys, &expected);
                threads.spawn(move || {
                    for round in 0..20 {
                        let rules = random_rules(&mut Random(seed * 100 + round), 20);
                        let own: Acl<WORDS> = Acl::new(&memory, &FIELDS, rules.into_iter()).unwrap();
                        assert_eq!(answers(shared, keys), *expected);
                        drop(own);
                    }
                });
            }
        });
        std::thread::spawn(move || drop(shared)).join().unwrap();
    }),
    ("fields that DPDK would read otherwise are refused", |eal| {
        use dpdk_rs::AclField::{Bits, Prefix, Range};
        fn made<const FIELDS: usize>(eal: &Eal, fields: [AclField; FIELDS]) -> Result<(), AclError> {
            Acl::<2>::new(&eal.memory(), &fields, [].into_iter()).map(drop)
        }
        let at = |field| Err(AclError::Field { field });
        assert_eq!(made(eal, [Bits(1), Prefix(4)]), Ok(()));
        assert_eq!(made(eal, [Bits(1), Bits(1), Range(1), Range(2)]), Ok(()));
        assert_eq!(made(eal, [Prefix(4), Bits(1)]), at(0), "the first has one byte");
        assert_eq!(made(eal, [Bits(0), Prefix(4)]), at(0));
        assert_eq!(made(eal, [Bits(1), Prefix(3), Bits(1)]), at(1), "there are 1, 2 and 4 bytes");
        assert_eq!(made(eal, [Bits(1), Prefix(8)]), at(1));
        assert_eq!(made(eal, [Bits(1), Range(2), Prefix(4)]), at(2), "a field in two words");
        assert_eq!(made(eal, [Bits(1), Bits(1), Range(2), Bits(1), Bits(1)]), at(4), "beyond the key");
        assert_eq!(made(eal, [Bits(1)]), at(1), "short of the key");
        assert_eq!(made(eal, [Bits(1), Range(2)]), at(2));
        assert_eq!(made(eal, []), at(0));
        assert_eq!(made(eal, [Bits(1), Prefix(4), Prefix(4)]), at(2));
        let many = Acl::<70>::new(&eal.memory(), &[Bits(1); 70], [].into_iter()).map(drop);
        assert_eq!(many, at(64), "DPDK has 64");
    }),
    ("what a rule cannot say is refused, with rule and field", |eal| {
        let cases = [
            (0, value(0x100, 0xff)),
            (0, value(0, 0x100)),
            (1, value(0, 33)),
            (2, value(2, 1)),
            (2, value(0, 65_536)),
            (2, value(65_536, 65_537)),
        ];
        for (field, value) in cases {
            let rules = [rule(1, |_| ()), rule(2, |fields| fields[field] = value)];
            assert_eq!(build(eal, &rules).map(drop), Err(AclError::Value { rule: 1, field, value }));
        }
        let text = AclError::Value { rule: 1, field: 2, value: value(2, 1) }.to_string();
        assert!(text.contains("rule 1") && text.contains("field 2"), "{text}");
    }),
    ("too many rules are refused before any memory is taken", |eal| {
        let many = |count: usize| (0..count).map(|_| rule(1, |_| ()));
        let memory = eal.memory();
        for count in [usize::try_from(u32::MAX).unwrap(), Acl::<WORDS>::MOST_RULES + 1] {
            let error = Acl::<WORDS>::new(&memory, &FIELDS, many(count)).unwrap_err();
            assert!(matches!(error, AclError::TooManyRules { rules, .. } if rules == count), "{error}");
        }
        // Room for so many is more than the EAL has.
        let error = Acl::<WORDS>::new(&memory, &FIELDS, many(10_000_000)).unwrap_err();
        assert_eq!(error, AclError::OutOfMemory { rules: 10_000_000 });
        assert!(error.to_string().contains("fewer"), "{error}");
        let error = Acl::<WORDS>::new(&memory.on_socket(u32::MAX), &FIELDS, many(1)).unwrap_err();
        assert_eq!(error, AclError::OutOfMemory { rules: 1 });
    }),
    ("rules that overlap in too many ways are refused, and leave nothing behind", |eal| {
        let overlapping: Vec<Rule> = (0..1024_u32)
            .map(|number| {
                rule(1 + number, |fields| {
                    fields[4] = value(1 << (number / 32), 1 << (number / 32));
                    fields[5] = value(1 << (number % 32), 1 << (number % 32));
                })
            })
            .collect();
        for _ in 0..3 {
            assert_eq!(build(eal, &overlapping).map(drop), Err(AclError::OutOfMemory { rules: 1024 }));
        }
        let few = build(eal, &[rule(1, |_| ())]).unwrap();
        assert!(few.bytes() < 100_000, "{few:?}");
    }),
];

#[test]
fn acl() {
    common::keep_log();
    let eal: Eal = common::eal(&["net_null0"]);
    common::run(&eal, CASES);

    eprintln!("case: one that outlives the EAL keeps DPDK running");
    let acl = build(&eal, &[rule(1, |_| ())]).unwrap();
    drop(eal);
    assert_eq!(common::logged().len(), 1, "the log says so");
    assert_eq!(answers(&acl, &[[0; WORDS]]), [1]);
}
