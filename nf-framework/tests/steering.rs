//! Who owns a packet: reckoned as devices do, and the same for both directions.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::{Flow, Random, flow_of};
use dpdk_rs::RssTableSize;
use nf_framework::testing::{Frame, Outcome, lab};
use nf_framework::{
    Affinity, Batch, Chain, Context, Direction, DropReason, FragmentsConfig, Mbuf, NetworkFunction, PacketFunction,
    Ports, Steering, Tuple, Verdict, WorkerSetup,
};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZero;

use Direction::{Inbound, Outbound};

/// The hash as its definition says: for each bit of the input that is set, the 32 bits of the
/// key from there on.
fn plain_toeplitz(key: &[u8], input: &[u8]) -> u32 {
    let bit = |bytes: &[u8], at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
    let mut result = 0;
    for i in (0..input.len() * 8).filter(|&i| bit(input, i) == 1) {
        for b in 0..32 {
            result ^= bit(key, i + b) << (31 - b);
        }
    }
    result
}

/// Addresses, and ports if there are, one behind the other.
fn plain_input(tuple: &Tuple) -> Vec<u8> {
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let mut input = [octets(tuple.source), octets(tuple.destination)].concat();
    if let Ports::Both(source, destination) = tuple.ports {
        input.extend([source.to_be_bytes(), destination.to_be_bytes()].concat());
    }
    input
}

fn plain_owner(steering: &Steering, direction: Direction, tuple: &Tuple) -> usize {
    let entries = steering.owners().entries();
    let hash = plain_toeplitz(steering.key(direction).bytes(), &plain_input(tuple));
    usize::from(entries[hash as usize % entries.len()])
}

fn address(random: &mut Random, six: bool) -> IpAddr {
    let mut octet = || u8::try_from(random.below(256)).unwrap();
    if six {
        Ipv6Addr::from(std::array::from_fn::<u8, 16, _>(|_| octet())).into()
    } else {
        Ipv4Addr::from(std::array::from_fn::<u8, 4, _>(|_| octet())).into()
    }
}

fn port(random: &mut Random) -> u16 {
    u16::try_from(random.below(65536)).unwrap()
}

#[test]
fn both_directions_have_the_owner_that_a_device_finds_with_the_key() {
    let random = &mut Random(20_261_122);
    for (entries, workers) in [64, 128, 512].into_iter().flat_map(|size| (1..=8).map(move |workers| (size, workers))) {
        let size = RssTableSize::new(entries).unwrap();
        let seed = random.below(usize::MAX) as u64;
        let of = |affinity| Steering::new(affinity, NonZero::new(workers).unwrap(), size, seed).unwrap();
        let (flow, inside, outside) = (of(Affinity::Flow), of(Affinity::InsideHost), of(Affinity::OutsideHost));
        let block_bits = u8::try_from(random.below(8)).unwrap();
        let translated = of(Affinity::TranslatedPort { block_bits });
        let outside_port = of(Affinity::OutsidePort);
        let mut seen = vec![0_u32; usize::from(workers)];
        for round in 0..400 {
            let six = round % 2 == 1;
            let (host, peer) = (address(random, six), address(random, six));
            let ports = if random.below(4) == 0 { Ports::None } else { Ports::Both(port(random), port(random)) };
            let sent = Tuple { source: host, destination: peer, ports };
            let reply = sent.reversed();
            let what = format!("{entries} entries, {workers} workers, seed {seed}: {sent:?}");

            let owner = flow.owner(Outbound, &sent);
            seen[owner] += 1;
            assert_eq!(owner, flow.owner(Inbound, &reply), "{what}");
            assert_eq!(owner, plain_owner(&flow, Outbound, &sent), "{what}");
            assert_eq!(owner, plain_owner(&flow, Inbound, &reply), "{what}");

            // A host's packets to and from anybody.
            let other = Tuple { destination: address(random, six), ports: Ports::Both(port(random), 53), ..sent };
            let owner = inside.owner(Outbound, &sent);
            assert_eq!(owner, inside.owner(Outbound, &other), "{what}");
            assert_eq!(owner, inside.owner(Inbound, &other.reversed()), "{what}");
            assert_eq!(owner, plain_owner(&inside, Outbound, &sent), "{what}");
            let owner = outside.owner(Inbound, &sent);
            assert_eq!(owner, outside.owner(Outbound, &other.reversed()), "{what}");
            assert_eq!(owner, plain_owner(&outside, Inbound, &sent), "{what}");
            if !six {
                assert_eq!(inside.owner(Inbound, &reply), plain_owner(&inside, Inbound, &reply), "{what}");
                assert_eq!(outside.owner(Outbound, &reply), plain_owner(&outside, Outbound, &reply), "{what}");
            }

            // An outside port's packets, whoever has it, and whatever they are sent to.
            let client = port(random);
            let request = Tuple { ports: Ports::Both(client, port(random)), ..sent };
            let answer = Tuple { ports: Ports::Both(port(random), client), ..other };
            let owner = outside_port.owner(Inbound, &request);
            assert_eq!(owner, outside_port.owner(Outbound, &answer), "{what}");
            assert_eq!(owner, outside_port.owner(Outbound, &Tuple { ports: Ports::Identifier(client), ..sent }));
            if !six {
                assert_eq!(owner, plain_owner(&outside_port, Inbound, &request), "{what}");
                assert_eq!(owner, plain_owner(&outside_port, Outbound, &answer), "{what}");
            }

            // Translated, replies are known by the port alone, and a block has one owner.
            let owner = translated.owner(Outbound, &sent);
            assert_eq!(owner, translated.owner(Outbound, &other), "{what}");
            assert_eq!(owner, plain_owner(&translated, Outbound, &sent), "{what}");
            let external = port(random);
            let to_port = |port, from| Tuple { source: from, destination: peer, ports: Ports::Both(443, port) };
            let owner = translated.owner(Inbound, &to_port(external, host));
            let neighbour = external ^ (port(random) & ((1 << block_bits) - 1));
            assert_eq!(owner, translated.owner(Inbound, &to_port(neighbour, peer)), "{what}");
            let echo = Tuple { ports: Ports::Identifier(external), ..sent };
            assert_eq!(owner, translated.owner(Inbound, &echo), "{what}");
            if !six {
                let reply = to_port(external, host);
                assert_eq!(owner, plain_owner(&translated, Inbound, &reply), "{what}");
            }
        }
        assert!(seen.iter().all(|&count| count > 0), "every worker owns some of 400 flows: {seen:?}");
    }
}

/// Writes behind each packet how many of its flow came before it, of both directions: what it
/// can only know where all of them are. Some it answers, some it turns back.
#[derive(Default)]
struct Numbered(HashMap<Flow, u8>);

impl PacketFunction for Numbered {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        let Some(tuple) = Tuple::of_packet(packet) else { return Verdict::Next };
        let number = self.0.entry(flow_of(tuple)).or_default();
        *number += 1;
        packet.append(1).unwrap().fill(*number);
        match (tuple.ports, cx.direction()) {
            (Ports::Both(_, 7), Outbound) => Verdict::Turn,
            (Ports::Both(_, 9), _) => Verdict::Drop(DropReason::POLICY),
            _ => Verdict::Next,
        }
    }
}

fn frames(random: &mut Random, count: usize) -> Vec<Vec<u8>> {
    let frame = |_| {
        let (a, b) = (u8::try_from(random.below(4)).unwrap(), u8::try_from(random.below(4)).unwrap());
        let ports = (1000 + u16::try_from(random.below(3)).unwrap(), [7, 9, 53, 80][random.below(4)]);
        let v4 = || Frame::new().ipv4([10, 0, 0, a], [192, 0, 2, b]);
        let v6 = || Frame::new().ipv6([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, a], [0xfe; 16]);
        match random.below(8) {
            0 => v4().tcp(ports.0, ports.1),
            1 => v6().udp(ports.0, ports.1),
            2 => v4().vlan(3).udp(ports.0, ports.1),
            3 => v4().icmp_echo_request(ports.0, 1),
            // Flows of their own: fragments arrive by their addresses, so elsewhere than whole packets.
            4 => v4().udp(2000, ports.1).payload(&[0; 16]).fragment([0, 24][random.below(2)], true),
            5 => {
                let quoted = &v4().udp(ports.0, ports.1).build()[14..];
                Frame::new().ipv4([192, 0, 2, b], [10, 0, 0, a]).icmp(3, 1, [0; 4]).payload(quoted)
            }
            6 => Frame::new().arp_request([10, 0, 0, a], [10, 0, 0, b]),
            _ => v4().udp(ports.0, ports.1),
        }
    };
    (0..count).map(frame).map(|frame| frame.build()).collect()
}

/// Sends what comes from inside back to another inside host, as a hairpin does, and numbers what
/// each of them gets: its new owner is another worker more often than not.
#[derive(Default)]
struct Hairpin(HashMap<IpAddr, u8>);

impl PacketFunction for Hairpin {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        if cx.direction() == Outbound {
            // The destination's last octet says which host; its first ones make it an inside one.
            packet.data_mut()[30..33].copy_from_slice(&[10, 0, 0]);
            return Verdict::Turn;
        }
        let Some(tuple) = Tuple::of_frame(packet.data_mut()) else { return Verdict::Drop(DropReason::POLICY) };
        let number = self.0.entry(tuple.destination).or_default();
        *number += 1;
        packet.append(1).unwrap().fill(*number);
        Verdict::Next
    }
}

/// Sends a packet of its own for each that it sees from inside, in its place.
struct Maker;

impl NetworkFunction for Maker {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        for slot in batch.undecided() {
            if cx.direction() == Outbound
                && let Some(packet) = batch.take(slot)
                && let Some(mut own) = cx.allocate()
            {
                assert!(own.set_contents(packet.data()));
                cx.consume(packet);
                cx.emit(own, Outbound);
            }
        }
    }
}

#[test]
fn what_turns_goes_in_again_at_its_new_owner() {
    for (workers, made) in [(1, false), (1, true), (2, false), (2, true), (5, true)] {
        let outcome = lab(move |lab| {
            let make = move |_: &mut WorkerSetup| {
                let mut chain = Chain::new();
                if made {
                    chain.push("maker", Box::new(Maker));
                }
                chain.push("hairpin", Box::new(Hairpin::default()));
                chain
            };
            let mut trial = match workers {
                1 => lab.trial(make),
                several => lab.trial_at_wrong_workers(several, Affinity::InsideHost, make),
            };
            let from = |host: u8| Frame::new().ipv4([10, 0, 0, 1], [192, 0, 2, host]).udp(7, 7).without_udp_checksum();
            let frames: Vec<Vec<u8>> = (0..60).map(|n| from(10 + n % 20).payload(&[n]).build()).collect();
            let mut outcome = trial.send(Outbound, &frames);
            outcome.inside.sort();
            trial.check_for_leaks();
            (outcome, trial.report().handed_over)
        });
        let (outcome, handed_over) = outcome;
        assert_eq!((outcome.inside.len(), &outcome.dropped), (60, &Default::default()), "{workers} {made}");
        let last = |frame: &Vec<u8>| *frame.last().unwrap();
        assert!(outcome.inside.iter().all(|frame| (1..=3).contains(&last(frame))), "three packets for each host");
        assert_eq!(outcome.inside.iter().filter(|frame| last(frame) == 3).count(), 20, "{workers} {made}");
        // To the sender's owner once, and most of them to the new owner then.
        assert!(if workers == 1 { handed_over == 0 } else { handed_over > 70 }, "{workers} {made}: {handed_over}");
    }
}

#[test]
fn a_function_that_keeps_flows_and_does_not_say_so_is_found_out_on_two_workers() {
    lab(|lab| {
        let make = |_: &mut WorkerSetup| Chain::from(Numbered::default());
        let mut trial = lab.trial_at_wrong_workers(2, Affinity::Any, make);
        let frame = Frame::new().ipv4([10, 0, 0, 1], [192, 0, 2, 1]).udp(1, 2).build();
        let outcome = trial.send(Outbound, &[frame.clone(), frame.clone(), frame.clone()]);
        let numbers: Vec<u8> = outcome.outside.iter().map(|frame| *frame.last().unwrap()).collect();
        // The first and the third at one worker, the second at the other.
        assert_eq!(numbers, [1, 2, 1]);
    });
}

#[test]
fn what_arrives_at_the_wrong_worker_leaves_as_from_a_single_one() {
    for seed in 1..=20 {
        let outcomes = [1, 2, 3, 8].map(|workers| {
            lab(move |lab| {
                let random = &mut Random(seed);
                let make = |_: &mut WorkerSetup| Chain::from(Numbered::default());
                let mut trial = if workers == 1 {
                    lab.trial(make).with_fragments(FragmentsConfig::default())
                } else {
                    lab.trial_at_wrong_workers(workers, Affinity::Flow, make)
                };
                let mut outcomes: Vec<Outcome> = Vec::new();
                for round in 0..20 {
                    let direction = if round % 2 == 0 { Outbound } else { Inbound };
                    // One flow's packets come in one after the other, several flows at once.
                    let mut outcome = trial.send(direction, &frames(random, 40));
                    outcome.inside.sort();
                    outcome.outside.sort();
                    outcomes.push(outcome);
                    trial.check_for_leaks();
                }
                (outcomes, trial.report().handed_over)
            })
        });
        let [(alone, none), several @ ..] = outcomes;
        assert_eq!(none, 0);
        assert!(alone.iter().any(|outcome| outcome.dropped.contains_key("policy") && !outcome.inside.is_empty()));
        for (outcomes, handed_over) in several {
            // All but ARP and the fragments that are dropped before.
            assert!(handed_over > 500, "{handed_over}");
            assert_eq!(outcomes, alone, "seed {seed}");
        }
    }
}

/// Lets packets go on by what the configuration says and no port of its own, as static mappings do.
struct Static;

impl NetworkFunction for Static {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        batch.undecided().for_each(|slot| cx.cross(slot));
    }
}

/// Packets of a few hosts on both sides, as they come in at this end.
fn two_sided(random: &mut Random, direction: Direction, count: usize) -> Vec<Vec<u8>> {
    let frame = |_| {
        let [inside, outside] = [10, 20].map(|first| first + u8::try_from(random.below(4)).unwrap());
        let ports = (1000 + u16::try_from(random.below(40)).unwrap(), [53, 80][random.below(2)]);
        let turned = |ends: (u8, u8)| if direction == Outbound { ends } else { (ends.1, ends.0) };
        let (from, to) = turned((inside, outside));
        let ports = if direction == Outbound { ports } else { (ports.1, ports.0) };
        let v4 = || Frame::new().ipv4([10, 0, 0, from], [10, 0, 0, to]);
        match random.below(6) {
            0 => v4().tcp(ports.0, ports.1),
            1 => Frame::new().ipv6([from; 16], [to; 16]).udp(ports.0, ports.1),
            2 => v4().icmp_echo_request(ports.0.min(ports.1), 1),
            3 => v4().protocol(47).payload(&[0; 8]),
            4 => {
                let quoted = &Frame::new().ipv4([10, 0, 0, to], [10, 0, 0, from]).udp(ports.1, ports.0).build()[14..];
                Frame::new().ipv4([10, 0, 0, 99], [10, 0, 0, to]).icmp(3, 1, [0; 4]).payload(quoted)
            }
            _ => v4().udp(ports.0, ports.1),
        }
    };
    (0..count).map(frame).map(|frame| frame.build()).collect()
}

#[test]
fn what_goes_on_by_a_static_mapping_has_one_owner_on_either_side_of_it() {
    for seed in 1..=5 {
        let outcomes = [1, 2, 5].map(|workers| {
            lab(move |lab| {
                let random = &mut Random(seed);
                let make = |_: &mut WorkerSetup| {
                    let mut chain = Chain::new();
                    chain.push("inside", Box::new(Numbered::default()));
                    chain.push("static", Box::new(Static));
                    chain.push("outside", Box::new(Numbered::default()));
                    chain
                };
                let mut trial = match workers {
                    1 => lab.trial(make).with_fragments(FragmentsConfig::default()),
                    _ => lab.trial_at_wrong_workers(workers, Affinity::TranslatedPort { block_bits: 3 }, make),
                };
                let mut outcomes: Vec<Outcome> = Vec::new();
                for round in 0..20 {
                    let direction = if round % 2 == 0 { Outbound } else { Inbound };
                    let mut outcome = trial.send(direction, &two_sided(random, direction, 60));
                    outcome.inside.sort();
                    outcome.outside.sort();
                    outcomes.push(outcome);
                    trial.check_for_leaks();
                }
                (outcomes, trial.report().handed_over)
            })
        });
        let [(alone, none), several @ ..] = outcomes;
        assert_eq!(none, 0);
        assert!(alone.iter().all(|outcome| outcome.inside.len() + outcome.outside.len() == 60));
        for (outcomes, handed_over) in several {
            // To the owner in front of the mapping, and some to another one behind it.
            assert!((1400..2400).contains(&handed_over), "{handed_over}");
            assert_eq!(outcomes, alone, "seed {seed}");
        }
    }
}
