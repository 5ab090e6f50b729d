//! What keys and tables promise, judged bit by bit.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::Random;
use dpdk_rs::{
    FlowTuple, IpVersion, PortBlocksError, RssField, RssKey, RssTable, RssTableSize, RssTableSizeError, Toeplitz,
};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZero;

use IpVersion::{V4, V6};
use RssField::{DestinationAddress, DestinationPort, SourceAddress, SourcePort};

/// The key of Microsoft's "Verifying the RSS Hash Calculation".
const PUBLISHED: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b,
    0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac,
    0x01, 0xfa,
];

/// Every field under every version that its key is for.
const FIELDS: [(RssField, IpVersion); 8] = [
    (SourceAddress, V4),
    (SourceAddress, V6),
    (DestinationAddress(V4), V4),
    (DestinationAddress(V6), V6),
    (SourcePort(V4), V4),
    (SourcePort(V6), V6),
    (DestinationPort(V4), V4),
    (DestinationPort(V6), V6),
];

fn sizes() -> impl Iterator<Item = RssTableSize> {
    (1..=12).map(|bits| RssTableSize::new(1 << bits).unwrap())
}

fn bit(bytes: &[u8], at: usize) -> bool {
    bytes[at / 8] & (0x80 >> (at % 8)) != 0
}

/// The hash by its definition: result bit `b` is the sum of key bits `i + b` over the set
/// input bits `i`.
fn hash_of_bits(key: &RssKey, input: &[u8], results: std::ops::RangeInclusive<usize>) -> u32 {
    results.fold(0, |hash, b| {
        let result = (0..input.len() * 8).filter(|i| bit(input, *i) && bit(key.bytes(), i + b)).count() % 2;
        hash << 1 | u32::try_from(result).unwrap()
    })
}

/// The entry that a tuple comes to: the low bits of the hash.
fn index(key: &RssKey, size: RssTableSize, tuple: &FlowTuple) -> u32 {
    let bits = size.entries().trailing_zeros() as usize;
    hash_of_bits(key, tuple.bytes(), 32 - bits..=31)
}

/// A packet in parts. Of an address of version 4 the low 32 bits count.
#[derive(Clone, Copy)]
struct Packet {
    version: IpVersion,
    addresses: [u128; 2],
    ports: Option<[u16; 2]>,
}

impl Packet {
    fn random(version: IpVersion, random: &mut Random) -> Self {
        let mut wide = || (0..8).fold(0, |wide, _| wide << 16 | random.below(1 << 16) as u128);
        let addresses = [wide(), wide()];
        let ports = wide().to_be_bytes();
        let ports = [[ports[0], ports[1]], [ports[2], ports[3]]].map(u16::from_be_bytes);
        Self { version, addresses, ports: Some(ports) }
    }

    fn tuple(self) -> FlowTuple {
        let [source, destination] = self.addresses;
        let tuple = match self.version {
            V4 => {
                let address = |address: u128| Ipv4Addr::from_bits(u32::try_from(address & 0xffff_ffff).unwrap());
                FlowTuple::v4(address(source), address(destination))
            }
            V6 => FlowTuple::v6(Ipv6Addr::from_bits(source), Ipv6Addr::from_bits(destination)),
        };
        self.ports.map_or(tuple, |[source, destination]| tuple.with_ports(source, destination))
    }

    /// The same with another value in a field.
    fn with(mut self, field: RssField, value: u128) -> Self {
        let port = u16::try_from(value & 0xffff).unwrap();
        match field {
            SourceAddress => self.addresses[0] = value,
            DestinationAddress(_) => self.addresses[1] = value,
            SourcePort(_) => self.ports.as_mut().unwrap()[0] = port,
            DestinationPort(_) => self.ports.as_mut().unwrap()[1] = port,
        }
        self
    }

    fn value(self, field: RssField) -> u128 {
        match field {
            SourceAddress => self.addresses[0],
            DestinationAddress(_) => self.addresses[1],
            SourcePort(_) => self.ports.unwrap()[0].into(),
            DestinationPort(_) => self.ports.unwrap()[1].into(),
        }
    }
}

#[test]
fn the_published_values_come_out() {
    let toeplitz = Toeplitz::new(&RssKey::new(PUBLISHED));
    // Source, destination, hash by addresses, hash with ports.
    for (source, destination, by_addresses, with_ports) in [
        ("66.9.149.187:2794", "161.142.100.80:1766", 0x323e_8fc2, 0x51cc_c178),
        ("199.92.111.2:14230", "65.69.140.83:4739", 0xd718_262a, 0xc626_b0ea),
        ("24.19.198.95:12898", "12.22.207.184:38024", 0xd2d0_a5de, 0x5c2b_394a),
        ("38.27.205.30:48228", "209.142.163.6:2217", 0x8298_9176, 0xafc7_327f),
        ("153.39.163.191:44251", "202.188.127.2:1303", 0x5d18_09c5, 0x10e8_28a2),
        ("[3ffe:2501:200:1fff::7]:2794", "[3ffe:2501:200:3::1]:1766", 0x2cc1_8cd5, 0x4020_7d3d),
        ("[3ffe:501:8::260:97ff:fe40:efab]:14230", "[ff02::1]:4739", 0x0f0c_461c, 0xdde5_1bbf),
        ("[3ffe:1900:4545:3:200:f8ff:fe21:67cf]:44251", "[fe80::200:f8ff:fe21:67cf]:38024", 0x4b61_e985, 0x02d1_feef),
    ] {
        let tuple = match (source.parse().unwrap(), destination.parse().unwrap()) {
            (SocketAddr::V4(source), SocketAddr::V4(destination)) => FlowTuple::v4(*source.ip(), *destination.ip()),
            (SocketAddr::V6(source), SocketAddr::V6(destination)) => FlowTuple::v6(*source.ip(), *destination.ip()),
            mixed => panic!("{mixed:?}"),
        };
        assert_eq!(toeplitz.hash(tuple.bytes()), by_addresses, "{source}");
        let port = |end: &str| end.parse::<SocketAddr>().unwrap().port();
        let tuple = tuple.with_ports(port(source), port(destination));
        assert_eq!(toeplitz.hash(tuple.bytes()), with_ports, "{source}");
    }
}

#[test]
fn a_hash_is_what_its_definition_says_for_every_length() {
    let mut random = Random(1);
    for length in 0..=36 {
        for _ in 0..10 {
            let key = RssKey::new(std::array::from_fn(|_| u8::try_from(random.below(256)).unwrap()));
            let mut input: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
            let toeplitz = Toeplitz::new(&key);
            assert_eq!(toeplitz.hash(&input), hash_of_bits(&key, &input, 0..=31), "{length} bytes");
            let before = toeplitz.hash(&input);
            input.resize(36, 0);
            input.extend([0xff; 5]);
            assert_eq!(toeplitz.hash(&input), before, "bytes after the 36th do not count");
        }
    }
}

#[test]
fn a_tuple_is_laid_out_as_devices_hash_it() {
    let v4 = FlowTuple::v4([1, 2, 3, 4], [5, 6, 7, 8]);
    assert_eq!(v4.bytes(), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(v4.reversed().bytes(), [5, 6, 7, 8, 1, 2, 3, 4]);
    assert_eq!(v4.with_ports(0x090a, 0x0b0c).bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(v4.with_ports(0x090a, 0x0b0c).reversed().bytes(), [5, 6, 7, 8, 1, 2, 3, 4, 11, 12, 9, 10]);
    let v6 = FlowTuple::v6([1; 16], [2; 16]);
    assert_eq!(v6.bytes(), [[1; 16], [2; 16]].concat());
    assert_eq!(v6.with_ports(0x0304, 0x0506).bytes(), [&[1; 16][..], &[2; 16], &[3, 4, 5, 6]].concat());
    assert_eq!(v6.with_ports(0x0304, 0x0506).reversed().bytes(), [&[2; 16][..], &[1; 16], &[5, 6, 3, 4]].concat());
}

#[test]
fn the_index_depends_on_the_field_and_on_nothing_else() {
    for (case, (size, (field, version))) in sizes().flat_map(|size| FIELDS.map(|field| (size, field))).enumerate() {
        let mut random = Random(case as u64);
        for seed in 0..20 {
            let key = RssKey::of_field(field, size, seed);
            let one = Packet::random(version, &mut random);
            let expected = index(&key, size, &one.tuple());
            for _ in 0..5 {
                let other = Packet::random(version, &mut random).with(field, one.value(field));
                assert_eq!(
                    index(&key, size, &other.tuple()),
                    expected,
                    "{field:?}, {version:?}, {size:?}, seed {seed}"
                );
                if matches!(field, SourceAddress | DestinationAddress(_)) {
                    let fragment = Packet { ports: None, ..other };
                    assert_eq!(index(&key, size, &fragment.tuple()), expected, "{field:?} by addresses alone");
                }
            }
        }
    }
}

#[test]
fn every_aligned_block_of_values_fills_each_entry_once() {
    for (case, (size, (field, version))) in sizes().flat_map(|size| FIELDS.map(|field| (size, field))).enumerate() {
        let mut random = Random(case as u64);
        let entries = u128::from(size.entries());
        for seed in 0..if entries > 512 { 2 } else { 10 } {
            let key = RssKey::of_field(field, size, seed);
            let toeplitz = Toeplitz::new(&key);
            let packet = Packet::random(version, &mut random);
            let first = packet.value(field) & !(entries - 1);
            let mut times = vec![0; usize::from(size.entries())];
            for value in first..first + entries {
                let tuple = packet.with(field, value).tuple();
                times[toeplitz.hash(tuple.bytes()) as usize % usize::from(size.entries())] += 1;
            }
            assert!(times.iter().all(|times| *times == 1), "{field:?}, {version:?}, {size:?}, seed {seed}: {times:?}");
        }
    }
}

#[test]
fn the_bits_are_those_that_were_tried_on_devices() {
    // Table 64, 128, 512: the last bit that is set of those that the version looks at, and the
    // first that may be.
    let cases = [
        (SourceAddress, 0..=95, 31, [57, 56, 54]),
        (SourceAddress, 96..=319, 127, [153, 152, 150]),
        (DestinationAddress(V4), 0..=319, 63, [89, 88, 86]),
        (DestinationAddress(V6), 200..=319, 255, [281, 280, 278]),
        (DestinationAddress(V6), 0..=200, 159, [185, 184, 182]),
        (SourcePort(V4), 0..=319, 95, [105, 104, 102]),
        (SourcePort(V6), 0..=319, 287, [297, 296, 294]),
        (DestinationPort(V4), 0..=319, 111, [121, 120, 118]),
        (DestinationPort(V6), 0..=319, 303, [313, 312, 310]),
    ];
    for (field, looked_at, first, last) in cases {
        for (entries, last) in [64, 128, 512].into_iter().zip(last) {
            let mut seen = std::collections::BTreeSet::new();
            for seed in 0..100 {
                let key = RssKey::of_field(field, RssTableSize::new(entries).unwrap(), seed);
                let set: Vec<usize> = looked_at.clone().filter(|at| bit(key.bytes(), *at)).collect();
                assert_eq!(set.last(), Some(&last), "{field:?}, {entries}, seed {seed}");
                seen.extend(set);
            }
            assert!(
                seen.into_iter().eq(first..=last),
                "all that may be set are set by some seed: {field:?}, {entries}"
            );
        }
    }
}

#[test]
fn hosts_at_any_stride_spread_over_the_entries() {
    let size = RssTableSize::new(128).unwrap();
    for (stride, seed) in
        [1, 2, 64, 128, 256, 1024].into_iter().flat_map(|stride| (0..20).map(move |seed| (stride, seed)))
    {
        let toeplitz = Toeplitz::new(&RssKey::of_field(SourceAddress, size, seed));
        let mut hosts = BTreeMap::new();
        for host in 0..1024 {
            let source = Ipv4Addr::from_bits(0x0a00_0000 + host * stride);
            let hash = toeplitz.hash(FlowTuple::v4(source, [192, 0, 2, 1]).bytes());
            *hosts.entry(hash % 128).or_insert(0) += 1;
        }
        let most = hosts.values().max().unwrap();
        assert!(*most <= 64, "stride {stride}, seed {seed}: {most} of 1024 hosts at one of 128 entries");
    }
}

#[test]
fn blocks_of_ports_stay_together_and_fill_each_entry_once() {
    for (version, size) in sizes().flat_map(|size| [(V4, size), (V6, size)]) {
        let bits = size.entries().trailing_zeros();
        for block_bits in 0..=16 - bits {
            let seed = u64::from(block_bits);
            let key = RssKey::of_port_blocks(version, block_bits, size, seed).unwrap();
            let last = if version == V4 { 127 } else { 319 } - (bits + block_bits) as usize;
            assert_eq!((0..320).rev().find(|at| bit(key.bytes(), *at)), Some(last));
            let toeplitz = Toeplitz::new(&key);
            let mut random = Random(seed);
            let mut at = |port: usize| {
                let packet = Packet::random(version, &mut random).with(DestinationPort(version), port as u128);
                toeplitz.hash(packet.tuple().bytes()) & u32::from(size.entries() - 1)
            };
            let (block, row) = (1_usize << block_bits, 1_usize << (bits + block_bits));
            let first = 40_000 & !(row - 1);
            let mut entries: Vec<u32> = (first..first + row)
                .step_by(block)
                .map(|port| {
                    let entry = at(port);
                    assert_eq!((at(port + block / 2), at(port + block - 1)), (entry, entry), "{size:?}, {block}");
                    entry
                })
                .collect();
            entries.sort_unstable();
            assert!(entries.into_iter().eq(0..u32::from(size.entries())), "{version:?}, {size:?}, blocks of {block}");
        }
        let error = RssKey::of_port_blocks(version, 17 - bits, size, 1).unwrap_err();
        assert_eq!(error, PortBlocksError { block_bits: 17 - bits, entries: size.entries() });
        assert!(RssKey::of_port_blocks(version, 40, size, 1).is_err());
    }
    let error = RssKey::of_port_blocks(V4, 10, RssTableSize::new(128).unwrap(), 1).unwrap_err().to_string();
    assert!(error.contains("2^10") && error.contains("128 entries"), "{error}");
}

#[test]
fn an_address_comes_to_the_same_entry_from_either_side() {
    let mut random = Random(3);
    for (size, version) in sizes().flat_map(|size| [(size, V4), (size, V6)]) {
        for seed in 0..30 {
            let inside = RssKey::of_field(SourceAddress, size, seed);
            let outside = RssKey::of_field(DestinationAddress(version), size, seed);
            let sent = Packet::random(version, &mut random);
            let reply = Packet::random(version, &mut random).with(DestinationAddress(version), sent.addresses[0]);
            assert_eq!(
                index(&inside, size, &sent.tuple()),
                index(&outside, size, &reply.tuple()),
                "{version:?} {size:?}"
            );
            assert_eq!(sent.tuple().reversed().bytes().len(), sent.tuple().bytes().len());
            assert_eq!(index(&inside, size, &sent.tuple()), index(&outside, size, &sent.tuple().reversed()));
        }
    }
}

#[test]
fn what_is_hashed_by_addresses_alone_comes_to_entry_0_under_a_key_for_ports() {
    let mut random = Random(4);
    for (size, version) in sizes().flat_map(|size| [(size, V4), (size, V6)]) {
        for field in [SourcePort(version), DestinationPort(version)] {
            let key = RssKey::of_field(field, size, 5);
            let fragment = Packet { ports: None, ..Packet::random(version, &mut random) };
            assert_eq!(index(&key, size, &fragment.tuple()), 0, "{field:?}, {size:?}");
        }
    }
}

#[test]
fn both_directions_hash_alike_under_the_symmetric_key() {
    let mut random = Random(2);
    let key = RssKey::symmetric();
    assert_eq!(key.bytes(), &[0x6d, 0x5a].repeat(20)[..], "as published");
    for _ in 0..100 {
        for version in [V4, V6] {
            for ports in [false, true] {
                let packet = Packet::random(version, &mut random);
                let tuple = Packet { ports: packet.ports.filter(|_| ports), ..packet }.tuple();
                let [there, back] = [tuple, tuple.reversed()].map(|tuple| hash_of_bits(&key, tuple.bytes(), 0..=31));
                assert_eq!(there, back, "{tuple:?}");
            }
        }
    }
    let hashes: std::collections::BTreeSet<u32> =
        (0..1000).map(|_| hash_of_bits(&key, Packet::random(V4, &mut random).tuple().bytes(), 0..=31)).collect();
    assert!(hashes.len() > 950, "different flows have different hashes: {}", hashes.len());
}

#[test]
fn a_key_is_the_same_for_the_same_seed_only() {
    let size = RssTableSize::new(128).unwrap();
    for (field, _) in FIELDS {
        assert_eq!(RssKey::of_field(field, size, 7), RssKey::of_field(field, size, 7));
        assert_ne!(RssKey::of_field(field, size, 7), RssKey::of_field(field, size, 8));
    }
    assert_eq!(
        RssTable::balanced(size, NonZero::new(3).unwrap(), 7),
        RssTable::balanced(size, NonZero::new(3).unwrap(), 7)
    );
    assert_ne!(
        RssTable::balanced(size, NonZero::new(3).unwrap(), 7),
        RssTable::balanced(size, NonZero::new(3).unwrap(), 8)
    );
}

#[test]
fn a_balanced_table_gives_every_worker_its_share() {
    for size in sizes() {
        for workers in [1, 2, 3, 4, 5, 6, 7, 8, 11, 13, 61, 127, 4096, 5000] {
            for seed in 0..5 {
                let table = RssTable::balanced(size, NonZero::new(workers).unwrap(), seed);
                assert_eq!((table.size(), table.entries().len()), (size, usize::from(size.entries())));
                let mut shares = vec![0; usize::from(workers)];
                table.entries().iter().for_each(|worker| shares[usize::from(*worker)] += 1);
                let share = size.entries() / workers;
                assert!(shares.iter().all(|had| (share..=share + 1).contains(had)), "{size:?}, {workers}: {shares:?}");
            }
        }
    }
}

#[test]
fn the_first_hosts_of_a_network_are_spread_over_the_workers() {
    // With the one bit alone, and entries given to workers in turns, these all meet on one worker.
    for entries in [64, 128, 512] {
        let size = RssTableSize::new(entries).unwrap();
        for (workers, seed) in (2..=8_u16).flat_map(|workers| (0..100).map(move |seed| (workers, seed))) {
            let key = Toeplitz::new(&RssKey::of_field(SourceAddress, size, seed));
            let table = RssTable::balanced(size, NonZero::new(workers).unwrap(), seed);
            let mut hosts = vec![0; usize::from(workers)];
            for host in 1..=62 {
                let hash = key.hash(FlowTuple::v4([192, 0, 2, host], [198, 51, 100, 1]).bytes());
                hosts[usize::from(table.entry(hash))] += 1;
            }
            let (fewest, most) = (*hosts.iter().min().unwrap(), *hosts.iter().max().unwrap());
            let share = 62 / workers;
            assert!(fewest > 0 && most <= 3 * share, "{entries}, {workers} workers, seed {seed}: {hosts:?}");
        }
    }
}

#[test]
fn a_table_is_chosen_from_by_the_low_bits_of_the_hash() {
    let table = RssTable::new(vec![7, 5, 3, 1]).unwrap();
    assert_eq!([0, 1, 2, 3, 4, 0xffff_fffe].map(|hash| table.entry(hash)), [7, 5, 3, 1, 7, 3]);
    let doubled = table.map(|worker| worker * 2);
    assert_eq!(doubled.entries(), [14, 10, 6, 2]);
    let size = RssTableSize::new(16).unwrap();
    let repeated = table.repeat_to(size).unwrap();
    assert_eq!((repeated.size(), repeated.entries()), (size, &[7, 5, 3, 1].repeat(4)[..]));
    assert!((0..64).all(|hash| repeated.entry(hash) == table.entry(hash)));
    assert_eq!(table.repeat_to(table.size()).as_ref(), Some(&table));
    assert_eq!(table.repeat_to(RssTableSize::new(2).unwrap()), None);
}

#[test]
fn a_size_that_no_table_has_is_refused() {
    for entries in [0, 1, 3, 127, 129, 8192, u16::MAX] {
        assert_eq!(RssTableSize::new(entries), Err(RssTableSizeError(entries.into())), "{entries}");
        assert_eq!(RssTable::new(vec![0; entries.into()]), Err(RssTableSizeError(entries.into())), "{entries}");
    }
    assert_eq!(RssTable::new(vec![0; 65536 + 2]), Err(RssTableSizeError(65538)));
    assert_eq!(
        RssTableSizeError(3).to_string(),
        "an RSS table cannot have 3 entries: it takes a power of two from 2 to 4096"
    );
    assert!((1..=12).all(|bits| RssTableSize::new(1 << bits).is_ok_and(|size| size.entries() == 1 << bits)));
}
