//! The edges of what rules can say, and what is refused.

use super::*;
use crate::headers::{IpProtocol, TcpFlags};
use crate::testing::{Lab, lab};
use std::net::IpAddr;

const TCP: Option<IpProtocol> = Some(IpProtocol::TCP);

fn prefix(text: &str) -> Addresses {
    Addresses::Prefix(text.parse().unwrap())
}

fn from(text: &str) -> Rule {
    Rule { source: prefix(text), ..Rule::default() }
}

fn set(name: &str, prefixes: &[&str]) -> AddressSet {
    AddressSet { name: name.to_owned(), prefixes: prefixes.iter().map(|text| text.parse().unwrap()).collect() }
}

fn from_set(name: &str) -> Rule {
    Rule { source: Addresses::Set(name.to_owned()), ..Rule::default() }
}

/// A key from an address to itself.
fn key(text: &str) -> Key {
    match text.parse().unwrap() {
        IpAddr::V4(address) => Key::ipv4(address, address, IpProtocol::TCP),
        IpAddr::V6(address) => Key::ipv6(address, address, IpProtocol::TCP),
    }
}

fn classifier(lab: &Lab<'_>, sets: &[AddressSet], rules: &[Rule]) -> Classifier {
    Classifier::new(&lab.eal.memory(), sets, rules).unwrap()
}

fn first(classifier: &Classifier, key: &Key) -> Option<usize> {
    classifier.classify_one(key).map(RuleIndex::index)
}

#[test]
fn a_rule_matches_up_to_its_edges_and_not_beyond() {
    let port = |first, last| Rule { destination_ports: Some(first..=last), ..Rule::default() };
    let from_port = |first, last| Rule { source_ports: Some(first..=last), ..Rule::default() };
    let flags = |set, of| Rule {
        protocol: TCP,
        tcp_flags: Some(FlagsMatch { set: TcpFlags(set), of: TcpFlags(of) }),
        ..Rule::default()
    };
    let icmp = |types, codes| Rule {
        protocol: Some(IpProtocol::ICMP),
        icmp: Some(IcmpMatch { types, codes }),
        ..Rule::default()
    };
    let four = key("10.0.0.1");
    let message = Key::ipv4([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), IpProtocol::ICMP);
    let cases = [
        ("nothing is asked", Rule::default(), four, true),
        ("nothing is asked of IPv6", Rule::default(), key("::"), true),
        ("/0 is the family", from("0.0.0.0/0"), four, true),
        ("/0 is not the other family", from("0.0.0.0/0"), key("::"), false),
        ("/0 of IPv6", from("::/0"), key("::"), true),
        ("/0 of IPv6 is not IPv4", from("::/0"), key("0.0.0.0"), false),
        ("/32", from("10.0.0.1"), four, true),
        ("beside /32", from("10.0.0.1"), key("10.0.0.0"), false),
        ("/128", from("::1"), key("::1"), true),
        ("beside /128", from("::1"), key("::"), false),
        ("/33 in IPv6", from("2001:db8:8000::/33"), key("2001:db8:8000::1"), true),
        ("beside /33 in IPv6", from("2001:db8:8000::/33"), key("2001:db8:7fff::1"), false),
        ("an IPv4-mapped address is IPv6", from("10.0.0.0/8"), key("::ffff:10.0.0.1"), false),
        ("an IPv4-mapped prefix is IPv6", from("::ffff:0:0/96"), key("::ffff:10.0.0.1"), true),
        ("IPv4 is not IPv4-mapped", from("::ffff:0:0/96"), four, false),
        ("port 0", port(0, 0), four.ports(1, 0), true),
        ("no port is not port 0", port(0, 0), four, false),
        ("every port", port(0, 65_535), four.ports(0, 65_535), true),
        ("no port is not any port", port(0, 65_535), four, false),
        ("no source port either", from_port(0, 65_535), four, false),
        ("port 65535", port(65_535, 65_535), four.ports(0, 65_535), true),
        ("below port 65535", port(65_535, 65_535), four.ports(65_535, 65_534), false),
        ("a range's first", port(255, 256), four.ports(0, 255), true),
        ("a range's last", port(255, 256), four.ports(0, 256), true),
        ("above a range", port(255, 256), four.ports(255, 257), false),
        ("a source port", from_port(7, 7), four.ports(7, 8), true),
        ("not the destination's", from_port(7, 7), four.ports(8, 7), false),
        ("the flags", flags(2, 0x12), four.tcp_flags(TcpFlags(0x82)), true),
        ("a flag that is to be clear", flags(2, 0x12), four.tcp_flags(TcpFlags(0x12)), false),
        ("no flags looked at are TCP with flags", flags(0, 0), four.tcp_flags(TcpFlags(0)), true),
        ("no flags at all are another thing", flags(0, 0), four, false),
        ("type and code", icmp(3..=3, 4..=4), message.icmp(3, 4), true),
        ("another code", icmp(3..=3, 4..=4), message.icmp(3, 3), false),
        ("any code", icmp(3..=3, 0..=255), message.icmp(3, 255), true),
        ("no type is not type 0", icmp(0..=0, 0..=0), message, false),
        ("a mark", Rule { marks: 16, ..port(7, 7) }, four.ports(1, 7).marks(16), true),
        ("and others", Rule { marks: 16, ..Rule::default() }, four.marks(31), true),
        ("none of two", Rule { marks: 3, ..Rule::default() }, four, false),
        ("one of two", Rule { marks: 3, ..Rule::default() }, four.marks(30), false),
        ("a mark is no port", port(0, 65_535), four.marks(31), false),
        ("the last marks count", Rule { marks: 1, ..Rule::default() }, four.marks(1).marks(2), false),
        ("protocol 0", Rule { protocol: Some(IpProtocol(0)), ..Rule::default() }, four, false),
    ];
    lab(move |lab| {
        for (description, rule, key, matches) in cases {
            let classifier = classifier(lab, &[], &[rule]);
            assert_eq!(first(&classifier, &key), matches.then_some(0), "{description}");
        }
    });
}

#[test]
fn the_first_of_several_rules_is_found() {
    lab(|lab| {
        let same = [from("10.0.0.0/8"), from("10.0.0.0/8"), from("10.0.0.1"), Rule::default()];
        let same = classifier(lab, &[], &same);
        assert_eq!(first(&same, &key("10.0.0.1")), Some(0), "of identical ones, and of those that shadow others");
        assert_eq!(first(&same, &key("11.0.0.1")), Some(3));
        assert_eq!(first(&same, &key("::")), Some(3));
        let special = classifier(lab, &[], &[from("10.0.0.1"), from("10.0.0.0/8")]);
        assert_eq!(first(&special, &key("10.0.0.1")), Some(0));
        assert_eq!(first(&special, &key("10.0.0.2")), Some(1));
    });
}

#[test]
fn without_rules_nothing_matches() {
    lab(|lab| {
        let mut none = classifier(lab, &[set("unused", &["0.0.0.0/0"])], &[]);
        assert!(none.is_empty());
        assert_eq!((first(&none, &key("10.0.0.1")), first(&none, &key("::"))), (None, None));
        assert_eq!(none.algorithm(), AclAlgorithm::Scalar);
        assert!(none.use_algorithm(AclAlgorithm::Scalar) && !none.use_algorithm(AclAlgorithm::Sse));
        none.classify(&[], &mut []);
        // One family alone.
        let six = classifier(lab, &[], &[from("::/0")]);
        assert_eq!((first(&six, &key("10.0.0.1")), first(&six, &key("::"))), (None, Some(0)));
        assert_eq!(classifier(lab, &[], &[Rule::default()]).algorithm(), six.algorithm());
    });
}

#[test]
fn sets_match_what_is_in_them_on_either_side() {
    lab(|lab| {
        let sets = [
            set("ten", &["10.0.0.0/8", "2001:db8::/32"]),
            set("inner", &["10.1.0.0/16", "10.1.0.0/24"]),
            set("empty", &[]),
            set("four", &["0.0.0.0/0"]),
            set("last", &["255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]),
        ];
        let to = |name: &str| Rule { destination: Addresses::Set(name.to_owned()), ..Rule::default() };
        let rules = [from_set("empty"), from_set("inner"), from_set("last"), to("ten"), from_set("four")];
        let classifier = classifier(lab, &sets, &rules);
        let cases = [
            ("10.1.2.3", Some(1)),
            ("10.2.0.0", Some(3)),
            ("9.255.255.255", Some(4)),
            ("0.0.0.0", Some(4)),
            ("255.255.255.255", Some(2)),
            ("255.255.255.254", Some(4)),
            ("2001:db8::", Some(3)),
            ("2001:db9::", None),
            ("::", None),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(2)),
        ];
        for (address, expected) in cases {
            assert_eq!(first(&classifier, &key(address)), expected, "{address}");
        }
    });
}

#[test]
fn as_many_sets_as_there_can_be() {
    lab(|lab| {
        let name = |number: usize| format!("set {number}");
        let rules: Vec<Rule> = (0..MAX_SETS)
            .map(|number| Rule {
                source: Addresses::Set(name(number)),
                destination: Addresses::Set(name(MAX_SETS - 1 - number)),
                ..Rule::default()
            })
            .collect();
        let apart: Vec<AddressSet> =
            (0..MAX_SETS).map(|number| set(&name(number), &[&format!("10.{number}.0.0/16")])).collect();
        let classifier = classifier(lab, &apart, &rules);
        for number in 0..MAX_SETS {
            let [source, destination] =
                [number, MAX_SETS - 1 - number].map(|set| [10, u8::try_from(set).unwrap(), 0, 1]);
            let key = Key::ipv4(source.into(), destination.into(), IpProtocol::TCP);
            assert_eq!(first(&classifier, &key), Some(number));
            assert_eq!(first(&classifier, &Key::ipv4(source.into(), source.into(), IpProtocol::TCP)), None);
        }
        // Each within the one before: an address is in all sets up to some.
        let nested: Vec<AddressSet> =
            (0..30).map(|number| set(&name(number), &[&format!("0.0.0.0/{number}")])).collect();
        let deepest_first: Vec<Rule> = (0..30).rev().map(|number| from_set(&name(number))).collect();
        let classifier = Classifier::new(&lab.eal.memory(), &nested, &deepest_first).unwrap();
        for number in 0..29_u32 {
            // The first address that is not in the next one.
            let address = 1_u32.checked_shl(31 - number).unwrap();
            let key = Key::ipv4(address.into(), address.into(), IpProtocol::TCP);
            assert_eq!(first(&classifier, &key), Some(29 - usize::try_from(number).unwrap()), "{number}");
        }
    });
}

#[test]
fn a_large_set_has_what_its_prefixes_have() {
    lab(|lab| {
        let mut number = 1_u64;
        let mut random = || {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            number >> 32
        };
        let mut large = set("large", &[]);
        for _ in 0..20_000 {
            let (length, low) = (random() % 17 + 12, u32::try_from(random()).unwrap());
            let length = u8::try_from(length).unwrap();
            let four = low & (u32::MAX << (32 - u32::from(length)));
            large.prefixes.push(Prefix::new(IpAddr::V4(four.into()), length).unwrap());
            let six = u128::from(0x2001_0db8_u32) << 96 | u128::from(four) << 64;
            large.prefixes.push(Prefix::new(IpAddr::V6(six.into()), length + 32).unwrap());
        }
        let classifier = classifier(lab, std::slice::from_ref(&large), &[from_set("large")]);
        let mut hits = 0;
        for _ in 0..300 {
            let low = u32::try_from(random()).unwrap();
            let four = low.into();
            let six = (u128::from(0x2001_0db8_u32) << 96 | u128::from(low) << 64 | 7).into();
            for (address, key) in [
                (IpAddr::V4(four), Key::ipv4(four, four, IpProtocol::UDP)),
                (IpAddr::V6(six), Key::ipv6(six, six, IpProtocol::UDP)),
            ] {
                let inside = large.prefixes.iter().any(|prefix| prefix.contains(address));
                assert_eq!(first(&classifier, &key), inside.then_some(0), "{address}");
                hits += usize::from(inside);
            }
        }
        assert!((100..=590).contains(&hits), "{hits}");
        assert!(classifier.memory() > 20_000 * 10, "{classifier:?}");
    });
}

#[test]
fn a_burst_of_both_families_has_each_answer_in_its_place() {
    lab(|lab| {
        let classifier = classifier(lab, &[], &[from("10.0.0.1"), from("::1")]);
        let some = [
            (key("10.0.0.1"), Some(0)),
            (key("::1"), Some(1)),
            (key("10.0.0.2"), None),
            (key("::2"), None),
            (key("::1"), Some(1)),
        ];
        let (keys, expected): (Vec<Key>, Vec<Option<usize>>) = some.into_iter().cycle().take(200).unzip();
        for count in [0, 1, 2, 31, 32, 33, 63, 64, 65, 200] {
            for room in [0, 1, count / 2, count, 200] {
                let stale = classifier.classify_one(&keys[0]);
                let mut found = vec![stale; room];
                classifier.classify(&keys[..count], &mut found);
                let found: Vec<Option<usize>> = found.into_iter().map(|found| found.map(RuleIndex::index)).collect();
                let reached = count.min(room);
                assert_eq!(found[..reached], expected[..reached], "{count} {room}");
                assert!(found[reached..].iter().all(|rest| *rest == Some(0)), "the rest is left alone");
            }
        }
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place_and_what_to_do() {
    let sets = [set("one", &[]), set("two", &[])];
    let ports = |ports| Rule { destination_ports: Some(ports), ..Rule::default() };
    let flags = |protocol, set, of| Rule {
        protocol,
        tcp_flags: Some(FlagsMatch { set: TcpFlags(set), of: TcpFlags(of) }),
        ..Rule::default()
    };
    let icmp = |protocol, types, codes| Rule { protocol, icmp: Some(IcmpMatch { types, codes }), ..Rule::default() };
    let (icmp4, icmp6) = (Some(IpProtocol::ICMP), Some(IpProtocol::ICMPV6));
    let to = |source: &str, destination| Rule {
        source: prefix(source),
        destination: prefix(destination),
        ..Rule::default()
    };
    #[allow(clippy::reversed_empty_ranges, reason = "that is what is to be refused")]
    let cases = [
        (from_set("three"), "no set \"three\" (known: one, two)"),
        (Rule { destination: Addresses::Set(String::new()), ..Rule::default() }, "no set \"\""),
        (Rule { marks: 32, ..Rule::default() }, "the marks 0x20 are not all of 0x1f"),
        (to("10.0.0.0/8", "::/0"), "10.0.0.0/8 and ::/0 are of two families"),
        (to("::/0", "10.0.0.0/8"), "make it two rules"),
        (ports(2..=1), "destination ports from 2 to 1"),
        (Rule { source_ports: Some(65_535..=0), ..Rule::default() }, "source ports from 65535 to 0"),
        (icmp(icmp4, 1..=0, 0..=255), "ICMP types from 1 to 0"),
        (icmp(icmp6, 0..=0, 9..=8), "ICMP codes from 9 to 8"),
        (Rule { protocol: icmp4, ..ports(1..=1) }, "protocol 1 has no ports"),
        (Rule { protocol: icmp6, source_ports: Some(1..=1), ..Rule::default() }, "protocol 58 has no ports"),
        (flags(None, 2, 2), "name protocol 6"),
        (flags(Some(IpProtocol::UDP), 2, 2), "only TCP"),
        (flags(TCP, 3, 2), "TcpFlags(FIN SYN) are to be set"),
        (icmp(None, 8..=8, 0..=0), "name protocol 1 (ICMP) or 58"),
        (icmp(TCP, 8..=8, 0..=0), "name protocol 1 (ICMP) or 58"),
        (Rule { source: prefix("::/0"), ..icmp(icmp4, 8..=8, 0..=0) }, "::/0 has no messages of protocol 1"),
        (Rule { destination: prefix("10.0.0.0/8"), ..icmp(icmp6, 8..=8, 0..=0) }, "no messages of protocol 58"),
    ];
    for (rule, part) in cases {
        let error = Classifier::check(&sets, &[Rule::default(), rule.clone()]).unwrap_err();
        assert!(matches!(error, ClassifierError::Rule { rule: 1, .. }), "{error}");
        assert!(error.to_string().starts_with("rule 1: ") && error.to_string().contains(part), "{error}");
        let fault = lab(move |lab| {
            Classifier::new(&lab.eal.memory(), &[set("one", &[]), set("two", &[])], &[Rule::default(), rule]).map(drop)
        });
        assert_eq!(fault, Err(error));
    }
}

#[test]
fn too_many_are_refused_before_anything_is_made() {
    let rules = vec![Rule::default(); Classifier::MAX_RULES + 1];
    let sets: Vec<AddressSet> = (0..=MAX_SETS).map(|number| set(&number.to_string(), &[])).collect();
    let prefixes = vec!["10.0.0.0/8".parse().unwrap(); Classifier::MAX_PREFIXES / 2 + 1];
    let large = ["a", "b"].map(|name| AddressSet { name: name.to_owned(), prefixes: prefixes.clone() });
    let twice = [set("same", &[]), set("other", &[]), set("same", &[])];
    let cases = [
        (Classifier::check(&[], &rules), "16385 rules are more than 16384"),
        (Classifier::check(&sets, &[]), "65 sets are more than 64"),
        (Classifier::check(&large, &[]), "1048578 prefixes in sets are more than 1048576"),
        (Classifier::check(&twice, &[]), "two sets of the name \"same\""),
    ];
    for (result, part) in cases {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(Classifier::check(&sets[1..], &rules[1..]), Ok(()));
}

#[test]
fn what_does_not_fit_is_refused_and_leaves_nothing_behind() {
    lab(|lab| {
        let memory = lab.eal.memory();
        // Sets that overlap in every way.
        let name = |number: usize| format!("set {number}");
        let every_way: Vec<AddressSet> = (0..20)
            .map(|set| AddressSet {
                name: name(set),
                prefixes: (0..2000_u32)
                    .filter(|part| part.wrapping_mul(0x9e37_79b9) >> (set + 8) & 1 == 1)
                    .map(|part| Prefix::from(IpAddr::V4(part.into())))
                    .collect(),
            })
            .collect();
        let rules: Vec<Rule> = (0..1000_u16)
            .map(|number| Rule {
                source: Addresses::Set(name(usize::from(number / 20 % 20))),
                destination: Addresses::Set(name(usize::from(number % 20))),
                destination_ports: Some(number * 31..=number * 65),
                ..Rule::default()
            })
            .collect();
        for _ in 0..3 {
            let error = Classifier::new(&memory, &every_way, &rules).unwrap_err();
            assert!(matches!(error, ClassifierError::TooLarge { family: IpFamily::V4, rules: 1000, .. }), "{error}");
            assert!(error.to_string().contains("1000 IPv4 rules"), "{error}");
        }

        // Sets larger than what is left.
        let mut held = Vec::new();
        while let Ok(slice) = memory.slice(1 << 8, |_| [0_u8; 4096]) {
            held.push(slice);
        }
        let most = held.len();
        held.truncate(most - 2);
        let large = AddressSet {
            name: "large".to_owned(),
            prefixes: (0..200_000_u32).map(|part| Prefix::from(IpAddr::V4((part * 2).into()))).collect(),
        };
        let error = Classifier::new(&memory, std::slice::from_ref(&large), &[from_set("large")]).unwrap_err();
        assert!(matches!(error, ClassifierError::Sets { family: IpFamily::V4, ranges: 400_000, .. }), "{error}");
        assert!(error.to_string().contains("IPv4 ranges have no memory"), "{error}");
        while let Ok(slice) = memory.slice(1 << 8, |_| [0_u8; 4096]) {
            held.push(slice);
        }
        assert_eq!(held.len(), most, "all of it came back");
        drop(held);
        let classifier = Classifier::new(&memory, &[large], &[from_set("large")]).unwrap();
        assert_eq!(first(&classifier, &key("0.0.0.4")), Some(0));
        assert_eq!(first(&classifier, &key("0.0.0.5")), None);
    });
}

#[test]
fn many_rules_that_overlap_in_many_ways_are_refused_by_what_a_part_of_them_takes() {
    lab(|lab| {
        let memory = lab.eal.memory();
        let mut number = 37_u64;
        let mut below = |limit: u64| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (number >> 33) % limit
        };
        // Wildcards in every field, and after each what tells nearly every rule from the others.
        let rules: Vec<Rule> = (0..4000)
            .map(|_| {
                let port = u16::try_from(below(60_000)).unwrap();
                let few = u16::try_from(below(10)).unwrap();
                let net =
                    |number: u64| Prefix::new(IpAddr::V4((u32::try_from(number).unwrap() << 8).into()), 24).unwrap();
                Rule {
                    protocol: (below(10) >= 3).then(|| IpProtocol(u8::try_from(100 + below(100)).unwrap())),
                    source: if below(10) < 3 { Addresses::Any } else { net(below(2)).into() },
                    destination: if below(10) == 0 { Addresses::Any } else { net(below(60_000)).into() },
                    source_ports: Some(port..=port),
                    destination_ports: (below(10) >= 3).then_some(few..=few),
                    ..Rule::default()
                }
            })
            .collect();
        let error = Classifier::new(&memory, &[], &rules).unwrap_err();
        assert!(matches!(error, ClassifierError::TooManyOverlaps { family: IpFamily::V4, rules: 4000, .. }), "{error}");
        assert!(error.to_string().contains("4000 IPv4 rules overlap too much"), "{error}");
        assert_eq!(Classifier::new(&memory, &[], &rules[..200]).unwrap().len(), 200);
    });
}
