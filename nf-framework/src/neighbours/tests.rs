//! The owner of the neighbours on virtual time: what it says, keeps and gives back.

use super::*;
use crate::testing::{Frame as Test, lab};
use dpdk_rs::Mempool;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// Stations are known by their last octet.
const US: u8 = 0xaa;
const B: u8 = 0xbb;
const C: u8 = 0xcc;

fn mac(station: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, station])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().unwrap()
}

fn v4(text: &str) -> Ipv4Addr {
    text.parse().unwrap()
}

const ALL: [u8; 6] = [0xff; 6];

fn arp_request(from: u8, sender: &str, target: &str) -> Vec<u8> {
    Test::new().ethernet(mac(from), ALL).arp_request(v4(sender), v4(target)).pad_to(60).build()
}

fn arp_reply(from: u8, sender: &str, target: &str) -> Vec<u8> {
    Test::new().ethernet(mac(from), mac(US)).arp_reply(v4(sender), v4(target)).pad_to(60).build()
}

fn discovery(message: u8, flags: u8, target: &str, option: Option<(u8, u8)>, frame: Test) -> Vec<u8> {
    let option = option.map(|(kind, station)| [&[kind, 1], &mac(station).octets()[..]].concat());
    let body = [&v6(target).octets()[..], &option.unwrap_or_default()].concat();
    frame.hop_limit(255).icmpv6(message, 0, [flags, 0, 0, 0]).payload(&body).build()
}

/// Asks for `target`, with the sender's address as an option if it is another's than the frame's.
fn solicitation(from: u8, source: &str, target: &str, option: Option<u8>) -> Vec<u8> {
    let frame = Test::new().ethernet(mac(from), mac(US)).ipv6(v6(source), v6(target));
    discovery(135, 0, target, option.map(|station| (1, station)), frame)
}

/// Somebody wants to have `target`.
fn duplicate_question(from: u8, target: &str) -> Vec<u8> {
    let [.., a, b, c] = v6(target).octets();
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let frame = Test::new().ethernet(mac(from), [0x33, 0x33, 0xff, a, b, c]).ipv6(Ipv6Addr::UNSPECIFIED, group);
    discovery(135, 0, target, None, frame)
}

const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

fn advertisement(from: u8, target: &str, flags: u8, option: Option<u8>) -> Vec<u8> {
    let to = if flags & SOLICITED == 0 { "ff02::1" } else { "2001:db8::1" };
    let frame = Test::new().ethernet(mac(from), mac(US)).ipv6(v6(target), v6(to));
    discovery(136, flags, target, option.map(|station| (2, station)), frame)
}

/// What a frame of ours says, read octet by octet.
fn describe(frame: &[u8], us: u8) -> String {
    let station = |octets: &[u8]| match octets {
        [0xff, 0xff, ..] => "all".to_owned(),
        [0x33, 0x33, ..] => "group".to_owned(),
        octets => format!("{:x}", octets[5]),
    };
    assert_eq!(frame[6..12], mac(us).octets(), "sent from another station");
    let to = station(&frame[..6]);
    if frame[12..14] == [8, 6] {
        assert_eq!((frame.len(), &frame[22..28]), (60, &frame[6..12]));
        let address = |at: usize| Ipv4Addr::from(*frame[at..].first_chunk::<4>().unwrap()).to_string();
        let (sender, target) = (address(28), address(38));
        return match frame[21] {
            1 if sender == target => format!("announce {target}"),
            1 => format!("ask {to}: {target} from {sender}"),
            2 => format!("tell {to}: {sender}"),
            operation => panic!("operation {operation}"),
        };
    }
    assert_eq!((&frame[12..14], frame[20], frame[21]), (&[0x86, 0xdd][..], 58, 255));
    let address = |at: usize| Ipv6Addr::from(*frame[at..].first_chunk::<16>().unwrap());
    let (source, destination, target) = (address(22), address(38), address(62));
    match (frame[54], frame[58]) {
        (135, 0) if source.is_unspecified() => format!("duplicate? {target}"),
        (135, 0) => format!("ask {to}: {target} from {source}"),
        (136, 0xe0) => format!("tell {to}: {target}"),
        (136, 0xa0) if destination == v6("ff02::1") => format!("announce {target}"),
        other => panic!("{other:?}"),
    }
}

/// The world around the owner: it writes down what comes out, and counts packets.
struct Outside<'a> {
    pool: &'a Mempool,
    us: u8,
    is_empty: bool,
    said: Vec<String>,
    dropped: BTreeMap<&'static str, u64>,
    packets_in: usize,
    packets_out: usize,
}

impl Outside<'_> {
    fn packet(&mut self, bytes: &[u8]) -> Mbuf {
        let mut packet = self.pool.alloc().expect("the pool is large enough");
        assert!(packet.set_contents(bytes));
        self.packets_in += 1;
        packet
    }

    fn out(&mut self, said: String) {
        self.packets_out += 1;
        self.said.push(said);
    }
}

impl Outlet for Outside<'_> {
    fn allocate(&mut self) -> Option<Mbuf> {
        (!self.is_empty).then(|| self.packet(&[]))
    }

    fn send(&mut self, interface: u16, frame: Mbuf) {
        let at = if interface == 0 { String::new() } else { format!(" at {interface}") };
        self.out(describe(frame.data(), self.us) + &at);
    }

    fn forward(&mut self, _: u16, mac: MacAddress, packet: Mbuf) {
        self.out(format!("forward {} to {:x}", packet.data()[0], mac.octets()[5]));
    }

    fn unreachable(&mut self, _: u16, packet: Mbuf) {
        self.out(format!("unreachable {}", packet.data()[0]));
    }

    fn consume(&mut self, _: Mbuf) {
        self.packets_out += 1;
    }

    fn drop(&mut self, _: Mbuf, reason: DropReason) {
        self.packets_out += 1;
        let name = match reason {
            DropReason::NEIGHBOUR_INVALID => "invalid",
            DropReason::NEIGHBOUR_IGNORED => "ignored",
            DropReason::NEIGHBOUR_QUEUE_FULL => "queue-full",
            DropReason::NEIGHBOUR_LIMIT => "limit",
            DropReason::NEIGHBOUR_FLOOD => "flood",
            DropReason::OWN_MAC => "own-mac",
            DropReason::STOPPED => "stopped",
            other => panic!("{other:?}"),
        };
        *self.dropped.entry(name).or_default() += 1;
    }
}

struct World<'a> {
    neighbours: Neighbours,
    outside: Outside<'a>,
    now: Instant,
}

impl World<'_> {
    /// What has come out since this was last asked, drops at the end.
    fn said(&mut self) -> Vec<String> {
        let dropped = std::mem::take(&mut self.outside.dropped);
        let dropped = dropped.into_iter().map(|(name, count)| format!("{count} {name}"));
        std::mem::take(&mut self.outside.said).into_iter().chain(dropped).collect()
    }

    fn receive_at(&mut self, interface: u16, frame: &[u8]) -> Vec<String> {
        let packet = self.outside.packet(frame);
        self.neighbours.receive(interface, packet, self.now, &mut self.outside);
        self.said()
    }

    fn receive(&mut self, frame: &[u8]) -> Vec<String> {
        self.receive_at(0, frame)
    }

    fn resolve(&mut self, address: &str, number: u8) -> Vec<String> {
        let packet = self.outside.packet(&[number]);
        self.neighbours.resolve(0, ip(address), packet, self.now, &mut self.outside);
        self.said()
    }

    /// Time passes, in steps of a tenth of a second.
    fn pass(&mut self, milliseconds: u64) -> Vec<String> {
        for _ in 0..milliseconds / 100 {
            self.now = self.now + Duration::from_millis(100);
            self.neighbours.tick(self.now, usize::MAX, &mut self.outside);
        }
        self.said()
    }

    fn set_link(&mut self, link: Option<Link>) -> Vec<String> {
        self.neighbours.set_link(0, link, self.now, &mut self.outside);
        self.said()
    }

    fn state(&self, address: &str) -> Option<(NeighbourState, Option<u8>)> {
        let line = self.neighbours.table().list().find(|line| line.address == ip(address))?;
        Some((line.state, line.mac.map(|mac| mac.octets()[5])))
    }

    fn counters(&self) -> NeighbourCounters {
        self.neighbours.table().counters()
    }
}

fn usual_link() -> Link {
    Link::new(mac(US), &[(ip("192.0.2.1"), 24), (ip("2001:db8::1"), 64), (ip("fe80::1"), 64)])
}

/// Runs a test on an interface whose addresses were announced, and checks that all packets have
/// come out when it ends.
fn world_of(config: NeighbourConfig, test: impl FnOnce(&mut World<'_>) + Send + 'static) {
    lab(move |lab| {
        let outside = Outside {
            pool: lab.pool,
            us: US,
            is_empty: false,
            said: Vec::new(),
            dropped: BTreeMap::new(),
            packets_in: 0,
            packets_out: 0,
        };
        let neighbours = Neighbours::new(config, HashKey::from_seed(1));
        let mut world = World { neighbours, outside, now: Instant::START };
        world.set_link(Some(usual_link()));
        world.pass(10_000);
        test(&mut world);
        world.neighbours.stop(&mut world.outside);
        assert_eq!(world.neighbours.held(), 0);
        assert_eq!(world.outside.packets_in, world.outside.packets_out);
    });
}

/// The usual, for few neighbours: every tick looks at all slots.
fn few() -> NeighbourConfig {
    NeighbourConfig { capacity: 64, ..NeighbourConfig::default() }
}

fn world(test: impl FnOnce(&mut World<'_>) + Send + 'static) {
    world_of(few(), test);
}

fn none() -> Vec<String> {
    Vec::new()
}

/// The same in both families.
#[derive(Clone, Copy)]
struct Family {
    host: &'static str,
    other: &'static str,
    ours: &'static str,
    everyone: &'static str,
    answer: fn(u8, &str) -> Vec<u8>,
    question: fn(u8, &str) -> Vec<u8>,
}

const FAMILIES: [Family; 2] = [
    Family {
        host: "192.0.2.2",
        other: "192.0.2.3",
        ours: "192.0.2.1",
        everyone: "all",
        answer: |from, sender| arp_reply(from, sender, "192.0.2.1"),
        question: |from, sender| arp_request(from, sender, "192.0.2.1"),
    },
    Family {
        host: "2001:db8::2",
        other: "2001:db8::3",
        ours: "2001:db8::1",
        everyone: "group",
        answer: |from, target| advertisement(from, target, SOLICITED | OVERRIDE, Some(from)),
        question: |from, source| solicitation(from, source, "2001:db8::1", Some(from)),
    },
];

impl Family {
    fn ask(&self) -> Vec<String> {
        vec![format!("ask {}: {} from {}", self.everyone, self.host, self.ours)]
    }

    fn probe(&self) -> Vec<String> {
        vec![format!("ask bb: {} from {}", self.host, self.ours)]
    }
}

use NeighbourState::{Delay, Incomplete, Probe, Reachable, Stale, Unreachable};

#[test]
fn one_that_does_not_answer_is_asked_for_three_times_and_then_unreachable_for_a_while() {
    for family in FAMILIES {
        world(move |world| {
            assert_eq!(world.resolve(family.host, 1), family.ask());
            assert_eq!(world.state(family.host), Some((Incomplete, None)));
            // No second question for a second packet: RFC 1122 section 2.3.2.1.
            assert_eq!(world.resolve(family.host, 2), none());
            for _ in 0..2 {
                assert_eq!(world.pass(900), none());
                assert_eq!(world.pass(100), family.ask());
            }
            assert_eq!((world.pass(900), world.neighbours.held()), (none(), 2));
            assert_eq!(world.pass(100), ["unreachable 1", "unreachable 2"]);
            assert_eq!(world.state(family.host), Some((Unreachable, None)));
            assert_eq!(world.resolve(family.host, 3), ["unreachable 3"]);
            world.pass(2900);
            assert_eq!(world.resolve(family.host, 4), ["unreachable 4"]);
            world.pass(100);
            assert_eq!(world.resolve(family.host, 5), family.ask());
            let counters = world.counters();
            assert_eq!((counters.questions, counters.failed, counters.expired), (4, 1, 1));
        });
    }
}

#[test]
fn what_waited_goes_on_in_order_when_the_answer_comes() {
    for family in FAMILIES {
        world(move |world| {
            world.resolve(family.host, 1);
            world.resolve(family.other, 2);
            world.resolve(family.host, 3);
            let table = Arc::clone(world.neighbours.table());
            let generation = table.generation();
            assert_eq!((table.find(0, ip(family.host)), world.neighbours.held()), (None, 3));
            let answer = (family.answer)(B, family.host);
            assert_eq!(world.receive(&answer), ["forward 1 to bb", "forward 3 to bb"]);
            assert_eq!(world.state(family.host), Some((Reachable, Some(B))));
            assert_eq!(table.find(0, ip(family.host)), Some(mac(B)));
            assert!(table.generation() > generation);
            assert_eq!((world.neighbours.held(), table.find(1, ip(family.host))), (1, None));
            assert_eq!(world.resolve(family.host, 4), ["forward 4 to bb"]);
        });
    }
}

#[test]
fn one_that_asks_us_while_we_look_for_it_is_found_but_not_confirmed() {
    for family in FAMILIES {
        world(move |world| {
            world.resolve(family.host, 1);
            let question = (family.question)(B, family.host);
            assert_eq!(world.receive(&question), ["forward 1 to bb".to_owned(), format!("tell bb: {}", family.ours)]);
            assert_eq!(world.state(family.host), Some((Delay, Some(B))), "a packet went, so it is to be confirmed");
        });
    }
}

#[test]
fn one_that_asks_for_us_is_learned_as_stale_and_forgotten_when_nobody_needs_it() {
    for family in FAMILIES {
        world(move |world| {
            let question = (family.question)(B, family.host);
            assert_eq!(world.receive(&question), [format!("tell bb: {}", family.ours)]);
            assert_eq!(world.state(family.host), Some((Stale, Some(B))));
            assert_eq!(world.pass(599_900), none());
            assert_eq!(world.state(family.host), Some((Stale, Some(B))));
            let generation = world.neighbours.table().generation();
            assert_eq!(world.pass(100), none());
            assert_eq!(world.state(family.host), None);
            assert!(world.neighbours.table().generation() > generation);
        });
    }
}

/// Lets it become stale; it is reachable for 15 to 45 seconds.
fn until_stale(world: &mut World<'_>, host: &str) {
    assert_eq!(world.state(host).map(|(state, _)| state), Some(Reachable));
    for _ in 0..450 {
        assert_eq!(world.pass(100), none());
        if world.state(host).map(|(state, _)| state) == Some(Stale) {
            return;
        }
    }
    panic!("reachable for more than 45 seconds");
}

#[test]
fn one_that_is_needed_is_probed_and_forgotten_when_it_does_not_answer() {
    for family in FAMILIES {
        world(move |world| {
            world.resolve(family.host, 1);
            world.receive(&(family.answer)(B, family.host));
            assert_eq!(world.pass(14_900), none());
            assert_eq!(world.state(family.host), Some((Reachable, Some(B))));
            let table = Arc::clone(world.neighbours.table());
            // What was needed while it was reachable does not count.
            assert!(table.find(0, ip(family.host)).is_some());
            until_stale(world, family.host);
            world.pass(60_000);
            assert_eq!(world.state(family.host), Some((Stale, Some(B))));
            assert!(table.find(0, ip(family.host)).is_some());
            assert_eq!(world.pass(100), none());
            assert_eq!(world.state(family.host), Some((Delay, Some(B))));
            assert_eq!(world.pass(4900), none());
            for _ in 0..3 {
                assert_eq!(world.pass(100), family.probe());
                assert_eq!(world.state(family.host), Some((Probe, Some(B))));
                assert_eq!(world.pass(900), none());
                // It is used until it is known to be gone.
                assert_eq!(world.resolve(family.host, 2), ["forward 2 to bb"]);
            }
            assert_eq!(world.pass(100), none());
            assert_eq!((world.state(family.host), table.find(0, ip(family.host))), (None, None));
            assert_eq!(world.resolve(family.host, 3), family.ask(), "it may have moved");
        });
    }
}

#[test]
fn one_that_answers_a_probe_is_reachable_again_and_so_is_one_that_moved() {
    for (family, station) in FAMILIES.into_iter().flat_map(|family| [(family, B), (family, C)]) {
        world(move |world| {
            world.resolve(family.host, 1);
            world.receive(&(family.answer)(B, family.host));
            until_stale(world, family.host);
            assert_eq!(world.resolve(family.host, 2), ["forward 2 to bb"]);
            assert_eq!(world.state(family.host), Some((Delay, Some(B))));
            assert_eq!(world.pass(5000), family.probe());
            assert_eq!(world.receive(&(family.answer)(station, family.host)), none());
            assert_eq!(world.state(family.host), Some((Reachable, Some(station))));
            assert_eq!(world.counters().moved, u64::from(station != B));
            until_stale(world, family.host);
        });
    }
}

#[test]
fn times_of_being_reachable_differ_and_are_within_half_and_one_and_a_half() {
    world(|world| {
        let times: Vec<_> = (0..1000).map(|_| world.neighbours.reachable_time().as_millis()).collect();
        assert!(times.iter().all(|time| (15_000..45_000).contains(time)));
        let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
        assert!(*least < 16_000 && *most > 44_000, "{least} to {most}");
    });
}

#[test]
fn readers_are_made_to_ask_again_when_a_neighbour_goes_stale() {
    world(|world| {
        world.resolve("192.0.2.2", 1);
        world.receive(&arp_reply(B, "192.0.2.2", "192.0.2.1"));
        let generation = world.neighbours.table().generation();
        until_stale(world, "192.0.2.2");
        assert_eq!(world.neighbours.table().generation(), generation + 1);
    });
}

#[test]
fn with_one_more_than_may_wait_the_oldest_is_dropped() {
    world(|world| {
        world.resolve("192.0.2.2", 1);
        world.resolve("192.0.2.2", 2);
        assert_eq!(world.resolve("192.0.2.2", 3), none());
        assert_eq!(world.resolve("192.0.2.2", 4), ["1 queue-full"]);
        let forwarded = ["forward 2 to bb", "forward 3 to bb", "forward 4 to bb"];
        assert_eq!(world.receive(&arp_reply(B, "192.0.2.2", "192.0.2.1")), forwarded);
    });
    let two = NeighbourConfig { waiting: 2, ..few() };
    world_of(two, |world| {
        world.resolve("192.0.2.2", 1);
        world.resolve("192.0.2.2", 2);
        assert_eq!(world.resolve("192.0.2.2", 3), ["1 queue-full"]);
        // Others have all the places: it is still asked for.
        assert_eq!(world.resolve("192.0.2.3", 4), ["ask all: 192.0.2.3 from 192.0.2.1", "1 queue-full"]);
        assert_eq!(world.receive(&arp_reply(C, "192.0.2.3", "192.0.2.1")), none());
        let forwarded = ["forward 2 to bb", "forward 3 to bb"];
        assert_eq!(world.receive(&arp_reply(B, "192.0.2.2", "192.0.2.1")), forwarded);
    });
}

#[test]
fn who_cannot_be_a_neighbour_is_not_asked_for() {
    world(|world| {
        for address in [
            "192.0.2.1",
            "192.0.2.0",
            "192.0.2.255",
            "198.51.100.1",
            "224.0.0.1",
            "0.0.0.0",
            "2001:db8::1",
            "2001:db8:1::1",
            "ff02::1",
            "::",
            "::ffff:192.0.2.2",
        ] {
            assert_eq!(world.resolve(address, 7), ["unreachable 7"], "{address}");
        }
        let packet = world.outside.packet(&[8]);
        world.neighbours.resolve(1, ip("192.0.2.2"), packet, world.now, &mut world.outside);
        assert_eq!(world.said(), ["unreachable 8"], "no such interface");
        assert_eq!(world.resolve("fe80::2", 9), ["ask group: fe80::2 from fe80::1"]);
    });
}

/// What is said to a frame, and the state of one neighbour afterwards.
type Reaction = (&'static str, Vec<u8>, &'static [&'static str], Option<(NeighbourState, Option<u8>)>);

#[test]
fn arp_is_answered_and_learned_from_by_its_rfcs() {
    let (us, host) = ("192.0.2.1", "192.0.2.2");
    let tell: &[&str] = &["tell bb: 192.0.2.1"];
    let ignored: &[&str] = &["1 ignored"];
    let own_mac: &[&str] = &["1 own-mac"];
    let from_elsewhere = Test::new().ethernet(mac(C), mac(US)).arp_request(v4(host), v4(us)).build();
    // Its sender is B; the frame has come from C.
    let mut for_another = from_elsewhere;
    for_another[22..28].copy_from_slice(&mac(B).octets());
    let unknown: Vec<Reaction> = vec![
        ("826: who asks for us is answered and learned", arp_request(B, host, us), tell, Some((Stale, Some(B)))),
        ("826: it is the packet that says where", for_another, tell, Some((Stale, Some(B)))),
        (
            "a tagged one too",
            Test::new().vlan(5).ethernet(mac(B), ALL).arp_request(v4(host), v4(us)).build(),
            tell,
            Some((Stale, Some(B))),
        ),
        ("826: who asks for others is neither", arp_request(B, host, "192.0.2.3"), ignored, None),
        ("an answer without a question is none", arp_reply(B, host, us), ignored, None),
        ("5227 2.3: an announcement adds nothing", arp_request(B, host, host), ignored, None),
        ("5227 3: nor one by reply", arp_reply(B, host, host), ignored, None),
        ("5227 2.1.1: a probe is answered and nothing learned", arp_request(B, "0.0.0.0", us), tell, None),
        ("5227 2.1.1: a probe for others is not", arp_request(B, "0.0.0.0", "192.0.2.3"), ignored, None),
        ("a sender of another network is answered, and not learned", arp_request(B, "198.51.100.2", us), tell, None),
        ("a sender that is the broadcast address", arp_request(B, "192.0.2.255", us), ignored, None),
        ("a sender that is multicast", arp_request(B, "224.0.0.1", us), ignored, None),
        ("what we have sent ourselves", arp_request(US, host, us), own_mac, None),
        ("a sender that is no station", arp_request(1, host, us).of_group(), &["1 invalid"], None),
        ("a frame that ends early", arp_request(B, host, us)[..40].to_vec(), &["1 invalid"], None),
        ("no ARP at all", Test::new().ethernet(mac(B), mac(US)).build(), ignored, None),
    ];
    for (description, frame, said, state) in unknown {
        world(move |world| {
            assert_eq!(world.receive(&frame), said, "{description}");
            assert_eq!(world.state(host), state, "{description}");
            let others = world.neighbours.table().list().filter(|line| line.address != ip(host)).count();
            assert_eq!(others, 0, "{description}");
        });
    }
    let known: Vec<Reaction> = vec![
        ("the same again changes nothing", arp_reply(B, host, us), &[], Some((Reachable, Some(B)))),
        (
            "826: another address is taken over",
            arp_request(C, host, us),
            &["tell cc: 192.0.2.1"],
            Some((Stale, Some(C))),
        ),
        ("826: also from what is for others", arp_request(C, host, "192.0.2.3"), &[], Some((Stale, Some(C)))),
        ("5227 2.3: also from an announcement", arp_request(C, host, host), &[], Some((Stale, Some(C)))),
        ("an answer that was not asked for confirms nothing", arp_reply(C, host, us), &[], Some((Stale, Some(C)))),
        ("our own address is not a neighbour's", arp_reply(US, host, us), own_mac, Some((Reachable, Some(B)))),
    ];
    for (description, frame, said, state) in known {
        world(move |world| {
            world.resolve(host, 1);
            world.receive(&arp_reply(B, host, us));
            assert_eq!(world.receive(&frame), said, "{description}");
            assert_eq!(world.state(host), state, "{description}");
        });
    }
}

#[test]
fn only_an_answer_to_us_confirms_a_neighbour() {
    let (host4, host6) = ("192.0.2.2", "2001:db8::2");
    let cases = [
        ("to us", host4, arp_reply(B, host4, "192.0.2.1"), Reachable),
        ("to another", host4, arp_reply(B, host4, "192.0.2.3"), Delay),
        ("to us", host6, advertisement(B, host6, SOLICITED | OVERRIDE, Some(B)), Reachable),
        ("to all", host6, advertisement(B, host6, OVERRIDE, Some(B)), Delay),
    ];
    for (description, host, frame, state) in cases {
        world(move |world| {
            world.resolve(host, 1);
            assert_eq!(world.receive(&frame), ["forward 1 to bb"], "{description}");
            assert_eq!(world.state(host), Some((state, Some(B))), "{description}");
            let ours = advertisement(B, host6, SOLICITED | OVERRIDE, Some(US));
            assert_eq!(world.receive(&ours), ["1 ignored"], "our station is not a neighbour's");
            assert_eq!(world.state(host), Some((state, Some(B))), "{description}");
        });
    }
}

trait OfGroup {
    fn of_group(self) -> Self;
}

impl OfGroup for Vec<u8> {
    /// Its sender's hardware address is of a group.
    fn of_group(mut self) -> Self {
        self[22] |= 1;
        self
    }
}

#[test]
fn neighbour_discovery_is_answered_and_learned_from_by_its_rfc() {
    let (us, host) = ("2001:db8::1", "2001:db8::2");
    let tell: &[&str] = &["tell bb: 2001:db8::1"];
    let ignored: &[&str] = &["1 ignored"];
    let own_mac: &[&str] = &["1 own-mac"];
    let router = |kind: u8, option: u8| {
        let frame = Test::new().ethernet(mac(B), mac(US)).ipv6(v6("fe80::2"), v6("ff02::2"));
        discovery(kind, 0, us, Some((option, B)), frame)
    };
    let mut far = solicitation(B, host, us, Some(B));
    far[21] = 254;
    let cases: Vec<Reaction> = vec![
        (
            "7.2.3: who asks for us is answered and learned",
            solicitation(B, host, us, Some(B)),
            tell,
            Some((Stale, Some(B))),
        ),
        ("7.2.3: it is the option that says where", solicitation(C, host, us, Some(B)), tell, Some((Stale, Some(B)))),
        ("7.2.4: without the option it is answered", solicitation(B, host, us, None), tell, None),
        ("7.2.3: who asks for others is neither", solicitation(B, host, "2001:db8::3", Some(B)), ignored, None),
        (
            "4862 5.4.3: who wants our address is told, with all",
            duplicate_question(B, us),
            &["announce 2001:db8::1"],
            None,
        ),
        ("4862 5.4.3: who wants another is not", duplicate_question(B, host), ignored, None),
        ("4862 5.4.3: our own question comes back", duplicate_question(US, us), own_mac, None),
        ("a sender of another network", solicitation(B, "2001:db8:9::2", us, Some(B)), ignored, None),
        ("what we have sent ourselves", solicitation(US, host, us, Some(US)), own_mac, None),
        ("who says that our station is its own", solicitation(B, host, us, Some(US)), own_mac, None),
        ("7.2.5: an answer without a question is none", advertisement(B, host, 0x60, Some(B)), ignored, None),
        ("7.2.6: an unsolicited one adds nothing", advertisement(B, host, 0x20, Some(B)), ignored, None),
        ("7.1.1: what has come from beyond the link", far, &["1 invalid"], None),
        ("6.2.6: we advertise no routes", router(133, 1), ignored, None),
        ("6.1.2: we learn no routes from others", router(134, 1), ignored, None),
        ("8: nor what is nearer", router(137, 2), ignored, None),
    ];
    for (description, frame, said, state) in cases {
        world(move |world| {
            assert_eq!(world.receive(&frame), said, "{description}");
            assert_eq!(world.state(host), state, "{description}");
        });
    }
}

/// RFC 4861 appendix C, in the order of its table; B is known, C is another.
#[test]
fn an_advertisement_changes_each_state_as_appendix_c_says() {
    let (us, host) = ("2001:db8::1", "2001:db8::2");
    type Row = (&'static str, NeighbourState, u8, Option<u8>, NeighbourState, Option<u8>);
    let s = SOLICITED;
    let o = OVERRIDE;
    let rows: [Row; 19] = [
        ("unsolicited", Incomplete, 0, Some(B), Delay, Some(B)),
        ("unsolicited, override", Incomplete, o, Some(B), Delay, Some(B)),
        ("solicited", Incomplete, s, Some(B), Reachable, Some(B)),
        ("without an address", Incomplete, s | o, None, Incomplete, None),
        ("solicited, same", Reachable, s, Some(B), Reachable, Some(B)),
        ("solicited, none", Reachable, s, None, Reachable, Some(B)),
        ("solicited, another", Reachable, s, Some(C), Stale, Some(B)),
        ("solicited, another", Stale, s, Some(C), Stale, Some(B)),
        ("solicited, another", Delay, s, Some(C), Delay, Some(B)),
        ("solicited, another", Probe, s, Some(C), Probe, Some(B)),
        ("solicited, override, same", Stale, s | o, Some(B), Reachable, Some(B)),
        ("solicited, override, another", Stale, s | o, Some(C), Reachable, Some(C)),
        ("solicited, same", Probe, s, Some(B), Reachable, Some(B)),
        ("solicited, none", Delay, s | o, None, Reachable, Some(B)),
        ("unsolicited, same", Probe, 0, Some(B), Probe, Some(B)),
        ("unsolicited, another", Reachable, 0, Some(C), Stale, Some(B)),
        ("unsolicited, another", Delay, 0, Some(C), Delay, Some(B)),
        ("unsolicited, override, same", Reachable, o, Some(B), Reachable, Some(B)),
        ("unsolicited, override, another", Probe, o, Some(C), Stale, Some(C)),
    ];
    for (description, from, flags, station, to, known) in rows {
        world(move |world| {
            world.resolve(host, 1);
            if from != Incomplete {
                world.receive(&advertisement(B, host, s | o, Some(B)));
            }
            if !matches!(from, Incomplete | Reachable) {
                until_stale(world, host);
            }
            if matches!(from, Delay | Probe) {
                world.resolve(host, 2);
            }
            if from == Probe {
                world.pass(5000);
            }
            assert_eq!(world.state(host).unwrap().0, from);
            world.receive(&advertisement(station.unwrap_or(B), host, flags, station));
            assert_eq!(world.state(host), Some((to, known)), "{description}, {from:?}");
            // A solicitation of the neighbour never confirms that it hears us.
            let before = world.state(host).unwrap().0;
            world.receive(&solicitation(known.unwrap_or(B), host, us, Some(known.unwrap_or(B))));
            let expected = if before == Incomplete { Delay } else { before };
            assert_eq!(world.state(host).unwrap().0, expected, "{description}, {from:?}, then asked");
            world.receive(&solicitation(0xdd, host, us, Some(0xdd)));
            assert_eq!(world.state(host), Some((Stale, Some(0xdd))), "{description}, {from:?}, then moved");
        });
    }
}

#[test]
fn one_that_comes_up_is_found_although_it_was_unreachable() {
    for family in FAMILIES {
        world(move |world| {
            world.resolve(family.host, 1);
            assert_eq!(world.pass(3000).last().unwrap(), "unreachable 1");
            world.receive(&(family.question)(B, family.host));
            assert_eq!(world.state(family.host), Some((Stale, Some(B))));
            assert_eq!(world.resolve(family.host, 2), ["forward 2 to bb"]);
        });
    }
}

#[test]
fn addresses_are_announced_twice_when_they_come_and_not_when_they_stay() {
    world(|world| {
        let services = ["192.0.2.9", "203.0.113.0/31", "2001:db8::99", "2001:db8:1::/64"];
        let services = services.map(|text| text.parse().unwrap());
        let now = [
            "announce 192.0.2.9",
            "announce 203.0.113.0",
            "announce 203.0.113.1",
            "duplicate? 2001:db8::99",
            "announce 2001:db8::99",
        ];
        let again = now.into_iter().filter(|said| !said.starts_with("duplicate")).collect::<Vec<_>>();
        assert_eq!(world.set_link(Some(usual_link().with_services(&services))), none());
        assert_eq!(world.pass(100), now);
        assert_eq!(world.pass(1900), none());
        assert_eq!(world.pass(100), again);
        assert_eq!(world.pass(60_000), none());
        assert!(!world.neighbours.announcing);
        world.set_link(Some(usual_link().with_services(&services)));
        assert_eq!(world.pass(10_000), none(), "nothing has come");
        world.neighbours.announce_all(world.now);
        assert_eq!(world.pass(5000).len(), 2 * 7 + 3);
        // What came is answered for, and what went is not.
        assert_eq!(world.receive(&arp_request(B, "192.0.2.2", "203.0.113.1")), ["tell bb: 203.0.113.1"]);
        let deep = solicitation(B, "2001:db8::2", "2001:db8:1::77", Some(B));
        assert_eq!(world.receive(&deep), ["tell bb: 2001:db8:1::77"]);
        world.set_link(Some(usual_link()));
        assert_eq!(world.receive(&arp_request(B, "192.0.2.2", "203.0.113.1")), none(), "a neighbour by now");
        assert_eq!(world.receive(&deep), ["1 ignored"]);
    });
}

#[test]
fn many_addresses_are_announced_at_a_bounded_rate_and_none_is_left_out() {
    world(|world| {
        world.set_link(Some(usual_link().with_services(&["203.0.113.0/24".parse().unwrap()])));
        let first = world.pass(100).len();
        assert_eq!(first, 32, "a burst");
        assert_eq!(world.pass(100).len(), 50 - 18, "what the rate allows, as far as the burst");
        assert_eq!(world.pass(20_000).len(), 2 * 256 - 32 - 32);
    });
}

#[test]
fn a_duplicate_is_counted_each_time_reported_once_and_answered_every_ten_seconds() {
    let (us4, us6) = ("192.0.2.1", "2001:db8::1");
    type Case = (&'static str, &'static str, fn(u8) -> Vec<u8>);
    let cases: [Case; 5] = [
        ("5227 2.4: a request from our address", us4, |from| arp_request(from, "192.0.2.1", "192.0.2.2")),
        ("5227 2.4: an announcement of it", us4, |from| arp_request(from, "192.0.2.1", "192.0.2.1")),
        ("5227 2.4: a reply from it", us4, |from| arp_reply(from, "192.0.2.1", "192.0.2.1")),
        ("4862 5.4.4: an advertisement of it", us6, |from| advertisement(from, "2001:db8::1", 0x20, Some(from))),
        ("a solicitation from it", us6, |from| solicitation(from, "2001:db8::1", "2001:db8::2", Some(from))),
    ];
    for (description, ours, claim) in cases {
        world(move |world| {
            let table = Arc::clone(world.neighbours.table());
            let mut seen = 0;
            let defence = vec![format!("announce {ours}")];
            assert_eq!(world.receive(&claim(US)), ["1 ignored"], "{description}: our own comes back");
            assert_eq!(world.receive(&claim(B)), defence, "{description}");
            let report = |station| vec![DuplicateAddress { interface: 0, address: ip(ours), mac: mac(station) }];
            assert_eq!(table.duplicates(&mut seen), report(B), "{description}");
            assert_eq!(world.pass(9900), none());
            assert_eq!(world.receive(&claim(B)), none(), "{description}");
            world.pass(100);
            assert_eq!(world.receive(&claim(B)), defence, "{description}");
            assert_eq!(table.duplicates(&mut seen), [], "{description}: the same again");
            world.pass(10_000);
            assert_eq!(world.receive(&claim(C)), defence, "{description}");
            assert_eq!(table.duplicates(&mut seen), report(C), "{description}: another");
            assert_eq!(world.counters().duplicates, 4);
            assert_eq!(world.state(ours), None, "{description}");
        });
    }
}

#[test]
fn of_many_reports_the_last_are_kept() {
    world(|world| {
        let table = Arc::clone(world.neighbours.table());
        for station in 1..=40 {
            world.receive(&arp_request(station, "192.0.2.1", "192.0.2.2"));
            world.pass(10_000);
        }
        let mut seen = 3;
        let stations: Vec<_> = table.duplicates(&mut seen).iter().map(|report| report.mac.octets()[5]).collect();
        assert_eq!((stations, seen), ((25..=40).collect(), 40));
    });
}

#[test]
fn a_scan_of_the_link_begins_so_many_questions_and_the_rest_is_dropped() {
    let config = NeighbourConfig { new_per_second: 10, ..few() };
    world_of(config, |world| {
        let mut scan = |hosts: std::ops::Range<u32>| {
            let said: Vec<_> = hosts.flat_map(|host| world.resolve(&format!("2001:db8::1:{host:x}"), 1)).collect();
            let dropped = said.iter().filter(|said| *said == "1 limit").count();
            world.pass(500);
            (said.len() - dropped, dropped)
        };
        assert_eq!(scan(0..100), (20, 80));
        assert_eq!(scan(100..200), (5, 95));
    });
}

#[test]
fn a_full_table_gives_up_who_is_not_needed_and_nobody_else() {
    // Two buckets of eight: each neighbour may be in any slot.
    let config = NeighbourConfig { capacity: 8, unreachable_seconds: 60, ..NeighbourConfig::default() };
    world_of(config, |world| {
        let host = |number: u8| format!("192.0.2.{number}");
        let table = Arc::clone(world.neighbours.table());
        for number in 100..116 {
            world.resolve(&host(number), number);
        }
        assert_eq!(world.resolve(&host(116), 1), ["1 limit"], "all are being looked for");
        // Ten answer and two of them are needed; then six are unreachable.
        for number in 100..110 {
            world.receive(&arp_reply(number, &host(number), "192.0.2.1"));
        }
        assert_eq!(world.resolve(&host(116), 1), ["1 limit"], "all are reachable or being looked for");
        world.pass(3000);
        let states = |state| table.list().filter(|line| line.state == state).count();
        assert_eq!((states(Reachable), states(Unreachable)), (10, 6));
        for number in 120..126 {
            assert_eq!(world.resolve(&host(number), 1).len(), 1);
            world.receive(&arp_reply(number, &host(number), "192.0.2.1"));
        }
        assert_eq!((states(Reachable), states(Unreachable)), (16, 0), "who does not answer goes first");
        for _ in 0..46 {
            world.pass(1000);
        }
        assert_eq!(states(Stale), 16);
        let needed = [host(100), host(101)];
        needed.iter().for_each(|host| assert!(table.find(0, ip(host)).is_some()));
        for number in 130..144 {
            assert_eq!(world.receive(&arp_request(number, &host(number), "192.0.2.1")).len(), 1);
        }
        for host in needed {
            assert!(world.state(&host).is_some(), "{host} is needed");
        }
        assert_eq!((130..144).filter(|number| world.state(&host(*number)).is_some()).count(), 14);
        assert_eq!(world.counters().evicted, 6 + 14);
        assert_eq!(world.resolve(&host(150), 1).len(), 1);
        assert_eq!(world.pass(3000).last().unwrap(), "unreachable 1");
        world.receive(&arp_request(151, &host(151), "192.0.2.1"));
        let is_there = |number: u8| world.state(&host(number)).is_some();
        assert_eq!((is_there(150), is_there(151)), (false, true), "who does not answer goes before who is not needed");
        // Asking us is answered also where there is no room to learn from it.
        let everyone: Vec<_> = table.list().collect();
        everyone.iter().for_each(|line| assert!(table.find(line.interface, line.address).is_some()));
        assert_eq!(world.receive(&arp_request(B, "192.0.2.200", "192.0.2.1")), ["tell bb: 192.0.2.1"]);
        assert_eq!(world.state("192.0.2.200"), None);
    });
}

#[test]
fn who_floods_a_link_with_questions_is_answered_at_a_bounded_rate_and_teaches_no_more() {
    let config = NeighbourConfig { answers_per_second: 10, ..few() };
    for family in FAMILIES {
        let config = config.clone();
        world_of(config, move |world| {
            let prefix = family.host.trim_end_matches('2');
            let flood = |world: &mut World<'_>, hosts: std::ops::Range<u8>| {
                let frames = hosts.map(|host| (family.question)(host, &format!("{prefix}{host}")));
                let said: Vec<_> = frames.flat_map(|frame| world.receive(&frame)).collect();
                let dropped = said.iter().filter(|said| *said == "1 flood").count();
                (said.len() - dropped, dropped)
            };
            assert_eq!(flood(world, 100..150), (10, 40));
            assert_eq!(world.neighbours.table().list().count(), 10);
            world.pass(500);
            assert_eq!(flood(world, 150..160), (5, 5));
            world.set_link(Some(usual_link()));
            assert_eq!(flood(world, 150..160), (0, 10), "a link that is set again gives no new burst");
            // The other link does not suffer.
            let other = Link::new(mac(US), &[(ip("198.51.100.1"), 24)]);
            world.neighbours.set_link(1, Some(other), world.now, &mut world.outside);
            let question = arp_request(B, "198.51.100.2", "198.51.100.1");
            assert_eq!(world.receive_at(1, &question), ["tell bb: 198.51.100.1 at 1"]);
        });
    }
}

#[test]
fn a_link_that_changes_or_goes_takes_its_neighbours_along() {
    fn other_network() -> Link {
        Link::new(mac(US), &[(ip("198.51.100.1"), 24), (ip("2001:db8::1"), 64)])
    }
    fn other_station() -> Link {
        Link::new(mac(C), &[(ip("192.0.2.1"), 24), (ip("2001:db8::1"), 64)])
    }
    fn now_ours() -> Link {
        usual_link().with_services(&["192.0.2.2", "192.0.2.3"].map(|text| text.parse().unwrap()))
    }
    // description, link, what waited for 192.0.2.3, whether 192.0.2.2 and 2001:db8::2 stay, how
    // many addresses are announced
    type Row = (&'static str, fn() -> Option<Link>, &'static [&'static str], [bool; 2], usize);
    let rows: [Row; 5] = [
        ("the same", || Some(usual_link()), &[], [true, true], 0),
        ("another IPv4 network", || Some(other_network()), &["unreachable 9"], [false, true], 2),
        ("another MAC address", || Some(other_station()), &["unreachable 9"], [false, false], 3),
        ("addresses that are ours now", || Some(now_ours()), &["unreachable 9"], [false, true], 2),
        ("none", || None, &["unreachable 9"], [false, false], 0),
    ];
    for (description, link, said, stay, announced) in rows {
        world(move |world| {
            for family in FAMILIES {
                world.resolve(family.host, 1);
                world.receive(&(family.answer)(B, family.host));
            }
            world.resolve("192.0.2.3", 9);
            assert_eq!(world.set_link(link()), said, "{description}");
            assert_eq!(FAMILIES.map(|family| world.state(family.host).is_some()), stay, "{description}");
            world.outside.us = link().map_or(US, |link| link.mac().octets()[5]);
            let said = world.pass(100);
            let announces = said.iter().filter(|said| said.starts_with("announce")).count();
            assert_eq!(announces, announced, "{description}: {said:?}");
            if link().is_none() {
                assert_eq!(world.receive(&arp_request(B, "192.0.2.2", "192.0.2.1")), ["1 ignored"]);
            }
        });
    }
}

#[test]
fn without_a_buffer_a_question_is_asked_another_time_and_an_announcement_waits() {
    world(|world| {
        world.outside.is_empty = true;
        assert_eq!(world.resolve("192.0.2.2", 1), none());
        world.set_link(Some(usual_link().with_services(&["2001:db8::9".parse().unwrap()])));
        assert_eq!(world.pass(500), none());
        assert!(world.counters().no_buffer >= 2);
        world.outside.is_empty = false;
        assert_eq!(world.pass(100), ["duplicate? 2001:db8::9", "announce 2001:db8::9"]);
        assert_eq!(world.pass(400), ["ask all: 192.0.2.2 from 192.0.2.1"]);
    });
}

#[test]
fn what_waits_when_the_program_stops_is_dropped_as_that() {
    world(|world| {
        world.resolve("192.0.2.2", 1);
        world.resolve("2001:db8::2", 2);
        world.said();
        world.neighbours.stop(&mut world.outside);
        assert_eq!((world.said(), world.neighbours.held()), (vec!["2 stopped".to_owned()], 0));
    });
}

#[test]
fn a_tick_looks_at_no_more_than_its_budget_and_at_all_in_turn() {
    world(|world| {
        for host in 10..20 {
            world.resolve(&format!("192.0.2.{host}"), host);
        }
        world.now = world.now + Duration::from_millis(1000);
        let slots = world.neighbours.entries.len();
        for _ in 0..slots / 8 {
            world.neighbours.tick(world.now, 8, &mut world.outside);
        }
        assert_eq!(world.said().len(), 10);
    });
}

/// One thing that happens to the owner.
#[derive(Clone, Debug)]
enum Event {
    Receive(u8, u8, u8, u8),
    Broken(u8, usize, u8),
    Resolve(u8),
    Pass(u16),
    SetLink(u8),
    PoolEmpty(bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0_u8..9, 0_u8..6, 0_u8..6, 0_u8..4).prop_map(|(a, b, c, d)| Event::Receive(a, b, c, d)),
        2 => (0_u8..9, 0_usize..90, any::<u8>()).prop_map(|(a, b, c)| Event::Broken(a, b, c)),
        6 => (0_u8..40).prop_map(Event::Resolve),
        4 => (0_u16..100).prop_map(Event::Pass),
        1 => (0_u8..4).prop_map(Event::SetLink),
        1 => any::<bool>().prop_map(Event::PoolEmpty),
    ];
    proptest::collection::vec(event, 1..120)
}

fn host(number: u8) -> String {
    if number.is_multiple_of(2) { format!("192.0.2.{number}") } else { format!("2001:db8::{number:x}") }
}

fn any_frame(kind: u8, station: u8, address: u8, flags: u8) -> Vec<u8> {
    let (v4, v6) = (format!("192.0.2.{address}"), format!("2001:db8::{address:x}"));
    match kind {
        0 => arp_request(station, &v4, "192.0.2.1"),
        1 => arp_reply(station, &v4, "192.0.2.1"),
        2 => arp_request(station, &v4, &v4),
        3 => arp_request(station, &v4, "192.0.2.77"),
        4 => solicitation(station, &v6, "2001:db8::1", Some(station)),
        5 => solicitation(station, &v6, "2001:db8::77", None),
        6 => advertisement(station, &v6, flags << 5, Some(station)),
        7 => advertisement(station, &v6, flags << 5, None),
        _ => duplicate_question(station, &v6),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn whatever_happens_it_stays_bounded_speaks_for_itself_alone_and_loses_no_packet(events in events()) {
        let config = NeighbourConfig { capacity: 8, waiting: 6, answers_per_second: 20, ..NeighbourConfig::default() };
        world_of(config.clone(), move |world| {
            for event in events {
                let what = format!("{event:?}");
                match event {
                    Event::Receive(kind, station, address, flags) => {
                        let packet = world.outside.packet(&any_frame(kind, station, address, flags));
                        world.neighbours.receive(0, packet, world.now, &mut world.outside);
                    }
                    Event::Broken(kind, at, value) => {
                        let mut frame = any_frame(kind, 3, 3, 3);
                        let at = at % frame.len();
                        frame[at] ^= value;
                        let packet = world.outside.packet(&frame);
                        world.neighbours.receive(0, packet, world.now, &mut world.outside);
                    }
                    Event::Resolve(number) => {
                        let packet = world.outside.packet(&[number]);
                        world.neighbours.resolve(0, ip(&host(number)), packet, world.now, &mut world.outside);
                    }
                    Event::Pass(time) => {
                        world.now = world.now + Duration::from_millis(u64::from(time) * 97);
                        world.neighbours.tick(world.now, usize::MAX, &mut world.outside);
                    }
                    Event::SetLink(which) => {
                        let link = match which {
                            0 => None,
                            1 => Some(usual_link().with_services(&["192.0.2.2".parse().unwrap()])),
                            _ => Some(usual_link()),
                        };
                        world.neighbours.set_link(0, link, world.now, &mut world.outside);
                    }
                    Event::PoolEmpty(is_empty) => world.outside.is_empty = is_empty,
                }
                let (neighbours, outside) = (&world.neighbours, &world.outside);
                assert!(neighbours.held() <= config.waiting as usize, "{what}");
                assert_eq!(outside.packets_in, outside.packets_out + neighbours.held(), "{what}");
                let queues = neighbours.entries.iter().flatten().map(|entry| entry.queue.length());
                assert_eq!(queues.map(usize::from).sum::<usize>(), neighbours.held(), "{what}");
                // What readers see is what the owner knows, and nobody is us.
                let listed: Vec<_> = neighbours.table().list().collect();
                assert!(listed.len() <= 16 && listed.len() == neighbours.entries.iter().flatten().count(), "{what}");
                for line in listed {
                    let slot = neighbours.table.slot(Key::new(line.interface, line.address)).expect("in the table");
                    let entry = neighbours.entries[slot].expect("the owner's");
                    let unknown = matches!(entry.state, Incomplete | Unreachable);
                    assert_eq!(line.mac, (!unknown).then_some(entry.mac), "{what}");
                    assert_eq!((line.state, line.address), (entry.state, entry.address), "{what}");
                    assert!(entry.state == Incomplete || entry.queue.length() == 0, "{what}");
                    assert!(line.address != ip("192.0.2.1") && line.address != ip("2001:db8::1"), "{what}");
                    assert!(entry.mac.is_unicast() || unknown, "{what}: {entry:?}");
                }
                for said in world.said() {
                    let ours = ["192.0.2.1", "2001:db8::1", "fe80::1", "192.0.2.2"];
                    let speaks_for = said.split_once(": ").filter(|_| said.starts_with("tell")).map(|(_, address)| address);
                    let speaks_for = speaks_for.or_else(|| said.strip_prefix("announce "));
                    assert!(speaks_for.is_none_or(|address| ours.contains(&address)), "{what}: {said}");
                }
            }
        });
    }
}
