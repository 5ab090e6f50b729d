//! What devices do for a router, packet by packet: the same bytes leave as without them.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use common::Random;
use nf_framework::testing::{Frame, Lab, Outcome, Trial, honest_checksum, lab};
use nf_framework::{Affinity, Chain, ChecksumStatus, Context, Direction, Mbuf, PacketFunction, Verdict};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

/// For one port and for two; two interfaces are VLANs.
const ROUTER: &str = r#"
[interfaces.lan]
side = "inside"
vlan = 10
addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]

[interfaces.management]
side = "inside"
addresses = ["10.0.0.1/24"]
host = "net_tap2"

[interfaces.wan]
side = "outside"
vlan = 20
addresses = ["198.51.100.1/24", "2001:db8:2::1/64"]
mtu = 1400
host = "net_tap3"

[[routes]]
to = "10.2.0.0/16"
refuse = "prohibited"
"#;

const HOST: [u8; 6] = [2, 0, 0, 0, 0, 0x11];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 0x22];
const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x20);

/// A trial that is made the same way twice, with devices and without.
fn with_and_without(test: impl Fn(&Lab<'_>, &dyn Fn(Trial) -> Trial) -> Vec<Outcome> + Send + Copy + 'static) {
    let left = |with: bool| {
        lab(move |lab| test(lab, &|trial| if with { trial.with_offloads(honest_checksum) } else { trial }))
    };
    let (with, without) = (left(true), left(false));
    assert_eq!(with.len(), without.len());
    for (place, (with, without)) in with.iter().zip(&without).enumerate() {
        assert_eq!(with, without, "step {place}");
    }
}

/// What leaves as time passes, in an order of its own: neighbours are asked in the order of a random hash.
fn wait(trial: &mut Trial, time: Duration) -> Outcome {
    let mut outcome = trial.advance(time);
    outcome.inside.sort();
    outcome.outside.sort();
    outcome
}

fn udp(vlan: impl Fn(Frame) -> Frame) -> Frame {
    vlan(Frame::new().ethernet(HOST, Trial::INSIDE_MAC.0)).ipv4(HOST4, PEER4).time_to_live(9).udp(1, 2)
}

fn changed(place: usize, mut frame: Vec<u8>) -> Vec<u8> {
    frame[place] ^= 1;
    frame
}

/// Neighbours that are known afterwards, and all that a router does with a packet.
fn traffic(one_port: bool) -> Vec<(Direction, Vec<u8>)> {
    let inside = |frame: Frame| frame.ethernet(HOST, Trial::INSIDE_MAC.0).vlan(10);
    let outside =
        |frame: Frame| frame.ethernet(PEER, if one_port { Trial::INSIDE_MAC.0 } else { Trial::OUTSIDE_MAC.0 }).vlan(20);
    let (hello, answer) = (
        Frame::new().ethernet(HOST, [0xff; 6]).vlan(10).arp_request(HOST4, Ipv4Addr::new(192, 0, 2, 1)),
        Frame::new().ethernet(PEER, [0xff; 6]).vlan(20).arp_request(PEER4, Ipv4Addr::new(198, 51, 100, 1)),
    );
    let v4 = |frame: Frame| inside(frame).ipv4(HOST4, PEER4).identification(7);
    let new = Frame::new;
    let outbound = [
        v4(new()).time_to_live(9).udp(1, 2).build(),
        v4(new()).ipv4_options(&[7, 7, 4, 0, 0, 0, 0, 0]).tcp(1, 2).build(),
        v4(new()).udp(1, 2).payload(&[7; 1450]).build(),
        v4(new()).dont_fragment().udp(1, 2).payload(&[7; 1450]).build(),
        v4(new()).time_to_live(1).udp(1, 2).build(),
        inside(new()).ipv4(HOST4, [10, 2, 0, 1]).udp(1, 2).build(),
        inside(new()).ipv4(HOST4, [10, 9, 0, 1]).udp(1, 2).build(),
        inside(new()).ipv4(HOST4, [192, 0, 2, 1]).icmp_echo_request(1, 2).payload(b"hello").build(),
        inside(new()).ipv4(HOST4, [198, 51, 100, 99]).udp(1, 2).build(),
        inside(new()).ipv6(HOST6, PEER6).udp(1, 2).build(),
        changed(14 + 4 + 10, v4(new()).udp(1, 2).build()),
        udp(|frame| frame.vlan(10 | 5 << 13)).build(),
        udp(|frame| frame.vlan(0)).build(),
        udp(|frame| frame.vlan(30)).build(),
        udp(|frame| frame.vlan(10).vlan(20)).build(),
        udp(|frame| frame.service_vlan(10)).build(),
        udp(|frame| frame.service_vlan(5).vlan(10)).build(),
        udp(|frame| frame.vlan(10 | 0xf000)).build(),
        new().ethernet(HOST, Trial::INSIDE_MAC.0).ipv4([10, 0, 0, 2], PEER4).udp(1, 2).build(),
        udp(|frame| frame.vlan(10)).build()[..15].to_vec(),
        udp(|frame| frame.vlan(10)).build()[..17].to_vec(),
    ];
    let inbound = [
        outside(new()).ipv4(PEER4, HOST4).udp(1, 2).build(),
        outside(new()).ipv4(PEER4, [198, 51, 100, 1]).tcp(1, 22).build(),
        outside(new()).ipv6(PEER6, HOST6).udp(1, 2).build(),
    ];
    let (there, back) = (Direction::Outbound, if one_port { Direction::Outbound } else { Direction::Inbound });
    let hellos = [(there, hello.build()), (back, answer.build())].into_iter();
    hellos.chain(outbound.map(|frame| (there, frame))).chain(inbound.map(|frame| (back, frame))).collect()
}

#[test]
fn the_same_bytes_leave_whatever_devices_do() {
    for (workers, one_port) in [(1, false), (2, false), (1, true), (2, true)] {
        with_and_without(move |lab, device| {
            let trial = match workers {
                1 => lab.trial(|_| Chain::new()),
                _ => lab.trial_at_wrong_workers(workers, Affinity::Flow, |_| Chain::new()),
            };
            let trial = device(trial);
            let mut trial =
                if one_port { trial.with_router_on_one_port(ROUTER, &[]) } else { trial.with_router(ROUTER, &[]) };
            let mut outcomes = vec![trial.advance(Duration::ZERO)];
            for (direction, frame) in traffic(one_port) {
                outcomes.push(trial.send(direction, &[frame]));
            }
            // What waits for its neighbour, and the errors about what it does not find.
            outcomes.extend((0..40).map(|_| wait(&mut trial, Duration::from_millis(100))));
            let said = Frame::new().ethernet(Trial::OUTSIDE_MAC.0, PEER).ipv4([198, 51, 100, 1], PEER4).tcp(22, 1);
            outcomes.push(trial.send_from_host(&[said.build()]));
            let sent: usize = outcomes.iter().map(|outcome| outcome.inside.len() + outcome.outside.len()).sum();
            assert!(sent > 12 && outcomes.iter().any(|outcome| !outcome.host.is_empty()), "{outcomes:?}");
            trial.check_for_leaks();
            outcomes
        });
    }
}

#[test]
fn the_same_bytes_leave_of_frames_with_random_faults() {
    with_and_without(|lab, device| {
        let mut trial = device(lab.trial(|_| Chain::new())).with_router_on_one_port(ROUTER, &[]);
        let (mut random, traffic) = (Random(1), traffic(true));
        let mut outcomes = vec![trial.advance(Duration::ZERO)];
        outcomes
            .extend(traffic[..2].iter().map(|(direction, frame)| trial.send(*direction, std::slice::from_ref(frame))));
        for _ in 0..3000 {
            let (direction, mut frame) = traffic[random.below(traffic.len())].clone();
            for _ in 0..random.below(3) {
                // Mostly in the headers.
                let place = random.below(40.min(frame.len()));
                frame[place] ^= 1 << random.below(8);
            }
            frame.truncate(frame.len() - random.below(2) * random.below(frame.len()));
            outcomes.push(trial.send(direction, &[frame]));
            outcomes.push(wait(&mut trial, Duration::from_micros(100)));
        }
        outcomes
    });
}

/// A device that was started for VLANs goes on taking tags off when there are none left.
#[test]
fn after_the_last_vlan_is_gone_tagged_frames_are_refused_either_way() {
    with_and_without(|lab, device| {
        let mut trial = device(lab.trial(|_| Chain::new())).with_router(ROUTER, &[]);
        trial.advance(Duration::ZERO);
        trial.reload_router(UNTAGGED, &[]);
        trial.advance(Duration::ZERO);
        let echo = |vlan: fn(Frame) -> Frame| {
            let frame = vlan(Frame::new().ethernet(HOST, Trial::INSIDE_MAC.0));
            frame.ipv4(HOST4, [192, 0, 2, 1]).icmp_echo_request(1, 2).build()
        };
        let frames = [echo(|frame| frame.vlan(0)), echo(|frame| frame.vlan(10)), echo(|frame| frame)];
        let outcomes: Vec<Outcome> = frames.map(|frame| trial.send(Direction::Outbound, &[frame])).into();
        let refused: Vec<u64> = outcomes.iter().map(|outcome| outcome.dropped.values().sum()).collect();
        assert_eq!(refused, [1, 1, 0], "{outcomes:?}");
        outcomes
    });
}

/// Leaves as little room before a packet as it was told.
struct Front(usize);

impl PacketFunction for Front {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let room = packet.headroom() - self.0;
        packet.prepend(room).unwrap();
        packet.data_mut().copy_within(room.., 0);
        assert!(packet.trim(room));
        Verdict::Next
    }
}

#[test]
fn a_packet_without_room_for_its_tag_is_dropped_either_way() {
    for (room, dropped) in [(3, Some("no-headroom")), (4, None)] {
        with_and_without(move |lab, device| {
            let mut trial = device(lab.trial(|_| Front(room).into())).with_router(ROUTER, &[]);
            trial.advance(Duration::ZERO);
            let mut outcomes: Vec<Outcome> = traffic(false)[..3]
                .iter()
                .map(|(direction, frame)| trial.send(*direction, std::slice::from_ref(frame)))
                .collect();
            let last = outcomes.pop().unwrap();
            assert_eq!(last.dropped.keys().map(String::as_str).next(), dropped, "{last:?}");
            vec![last]
        });
    }
}

#[test]
fn what_a_device_calls_good_is_believed_and_what_it_calls_bad_is_looked_at() {
    for (says, frame, dropped) in [
        ((|_| ChecksumStatus::Good) as fn(&[u8]) -> ChecksumStatus, "wrong", None),
        (|_| ChecksumStatus::Good, "right", None),
        (|_| ChecksumStatus::Bad, "wrong", Some("bad-checksum")),
        (|_| ChecksumStatus::Bad, "right", None),
        (|_| ChecksumStatus::Unknown, "wrong", Some("bad-checksum")),
        (|_| ChecksumStatus::Unknown, "right", None),
    ] {
        // In VLANs, and without, where most packets go a shorter way; with options none does.
        for (text, options) in [(ROUTER, false), (UNTAGGED, false), (UNTAGGED, true)] {
            let tags = text == ROUTER;
            lab(move |lab| {
                let mut trial = lab.trial(|_| Chain::new()).with_offloads(says).with_router(text, &[]);
                trial.advance(Duration::ZERO);
                let frame_of = |frame: Frame, vlan| if tags { frame.vlan(vlan) } else { frame };
                let answer = frame_of(Frame::new().ethernet(PEER, [0xff; 6]), 20).arp_request(PEER4, [198, 51, 100, 1]);
                trial.send(Direction::Inbound, &[answer.build()]);
                let packet = frame_of(Frame::new().ethernet(HOST, Trial::INSIDE_MAC.0), 10).ipv4(HOST4, PEER4);
                let packet = if options { packet.ipv4_options(&[1; 4]) } else { packet };
                let mut bytes = packet.time_to_live(9).udp(1, 2).build();
                let checksum = if tags { 28 } else { 24 };
                if frame == "wrong" {
                    bytes[checksum + 1] ^= 1;
                }
                let outcome = trial.send(Direction::Outbound, &[bytes.clone()]);
                let found = outcome.dropped.keys().map(String::as_str).next();
                assert_eq!(found, dropped, "{frame}, {options}, {tags}: {outcome:?}");
                if let Some(sent) = outcome.outside.first() {
                    // RFC 1624: what was wrong is as wrong as before.
                    let word = |frame: &[u8]| u16::from_be_bytes([frame[checksum], frame[checksum + 1]]);
                    assert_eq!(word(sent), word(&bytes) + 0x0100);
                }
            });
        }
    }
}

/// Without VLANs.
const UNTAGGED: &str = r#"
[interfaces.lan]
side = "inside"
addresses = ["192.0.2.1/24"]

[interfaces.wan]
side = "outside"
addresses = ["198.51.100.1/24"]
"#;
