//! The router around a chain, packet by packet: RFC 1812 for IPv4, RFC 8200 and 4443 for IPv6.
#![allow(clippy::unwrap_used, reason = "tests")]

use nf_framework::headers::{Headers, IcmpType, Icmpv6Type, MacAddress, Network, Transport};
use nf_framework::testing::{Frame, Outcome, Trial, lab};
use nf_framework::{
    Affinity, Annotation, Chain, Context, Direction, DropReason, IcmpError, Mbuf, NextHop, PacketFunction, Steering,
    Then, Tuple, Verdict, WorkerSetup,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

const ROUTER: &str = r#"
[interfaces.lan]
side = "inside"
addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]

[interfaces.wan]
side = "outside"
addresses = ["198.51.100.1/24", "2001:db8:2::1/64"]
mtu = 1400

[[routes]]
to = "203.0.113.0/24"
via = "198.51.100.9"

[[routes]]
to = "2001:db8:9::/48"
via = "2001:db8:2::9"

[[routes]]
to = "10.1.0.0/16"
refuse = "blackhole"

[[routes]]
to = "10.2.0.0/16"
refuse = "prohibited"

[[routes]]
to = "10.3.0.0/16"
refuse = "unreachable"
"#;

/// A host on either side, and a router behind the outside one's link.
const HOST: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x11]);
const PEER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x22]);
const NEXT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x33]);
const HOST4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const PEER4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const NEXT4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 9);
const FAR4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);
const OWN4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
const PEER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x20);
const NEXT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 9);
const FAR6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 7);
const OWN6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const OUTSIDE4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

/// What a neighbour says so that the router knows it: it asks for the router's address.
fn hello(mac: MacAddress, address: IpAddr, router: IpAddr) -> Vec<u8> {
    match (address, router) {
        (IpAddr::V4(address), IpAddr::V4(router)) => {
            Frame::new().ethernet(mac.0, MacAddress::BROADCAST.0).arp_request(address, router).build()
        }
        (IpAddr::V6(address), IpAddr::V6(router)) => {
            Frame::new().ethernet(mac.0, MacAddress::BROADCAST.0).neighbour_solicitation(address, router).build()
        }
        _ => panic!("one family"),
    }
}

/// A router that knows its neighbours, with nothing on its way.
fn introduce(trial: &mut Trial) {
    trial.advance(Duration::ZERO);
    let inside = [hello(HOST, HOST4.into(), OWN4.into()), hello(HOST, HOST6.into(), OWN6.into())];
    let outside = [
        hello(PEER, PEER4.into(), OUTSIDE4.into()),
        hello(NEXT, NEXT4.into(), OUTSIDE4.into()),
        hello(PEER, PEER6.into(), OUTSIDE6.into()),
        hello(NEXT, NEXT6.into(), OUTSIDE6.into()),
    ];
    for (direction, hellos) in [(Direction::Outbound, &inside[..]), (Direction::Inbound, &outside)] {
        let said = trial.send(direction, hellos);
        let answers = said.inside.len() + said.outside.len();
        assert_eq!((answers, said.dropped.len()), (hellos.len(), 0), "{said:?}");
    }
    // The announcements are over.
    trial.advance(Duration::from_secs(3));
    trial.advance(Duration::from_secs(3));
}

/// On one worker, and on two with every packet at the wrong one: what comes out is the same.
fn with_router(test: impl Fn(&mut Trial) + Send + Copy + 'static) {
    for workers in [1, 2] {
        lab(move |lab| {
            let trial = match workers {
                1 => lab.trial(|_| Chain::new()),
                _ => lab.trial_at_wrong_workers(workers, Affinity::Flow, |_| Chain::new()),
            };
            let mut trial = trial.with_router(ROUTER, &[]);
            introduce(&mut trial);
            test(&mut trial);
            trial.check_for_leaks();
        });
    }
}

fn from_host() -> Frame {
    Frame::new().ethernet(HOST.0, Trial::INSIDE_MAC.0)
}

fn from_peer() -> Frame {
    Frame::new().ethernet(PEER.0, Trial::OUTSIDE_MAC.0)
}

fn send(trial: &mut Trial, direction: Direction, frame: &Frame) -> Outcome {
    trial.send(direction, &[frame.build()])
}

/// What left, on the one side that anything left by.
fn only(outcome: &Outcome) -> Vec<u8> {
    let all: Vec<_> = outcome.inside.iter().chain(&outcome.outside).collect();
    assert_eq!(all.len(), 1, "{outcome:?}");
    all[0].clone()
}

#[test]
fn a_packet_goes_to_its_next_hop_with_one_hop_less() {
    with_router(|trial| {
        let v4 = |to, hops| from_host().ipv4(HOST4, to).time_to_live(hops).udp(1, 2).payload(b"hello");
        let v6 = |to, hops| from_host().ipv6(HOST6, to).hop_limit(hops).udp(1, 2).payload(b"hello");
        let whole = |hops| v4(PEER4, hops).payload(b"multiple").identification(hops.into());
        let gone = |from: MacAddress, to: MacAddress, frame: Frame| frame.ethernet(from.0, to.0).build();
        let out = Trial::OUTSIDE_MAC;
        for (what, frame, expected) in [
            ("to a neighbour", v4(PEER4, 64), gone(out, PEER, v4(PEER4, 63))),
            ("through a next hop", v4(FAR4, 2), gone(out, NEXT, v4(FAR4, 1))),
            ("the largest TTL", v4(FAR4, 255), gone(out, NEXT, v4(FAR4, 254))),
            ("IPv6 to a neighbour", v6(PEER6, 64), gone(out, PEER, v6(PEER6, 63))),
            ("IPv6 through a next hop", v6(FAR6, 2), gone(out, NEXT, v6(FAR6, 1))),
            (
                "with options",
                v4(PEER4, 9).ipv4_options(&[7, 7, 4, 0, 0, 0, 0, 0]),
                gone(out, PEER, v4(PEER4, 8).ipv4_options(&[7, 7, 4, 0, 0, 0, 0, 0])),
            ),
            ("a fragment", whole(9).fragment(0, true), gone(out, PEER, whole(8).identification(9).fragment(0, true))),
        ] {
            let outcome = send(trial, Direction::Outbound, &frame);
            assert_eq!(outcome, Outcome { outside: vec![expected], ..Outcome::default() }, "{what}");
        }
        let back = from_peer().ipv4(PEER4, HOST4).time_to_live(64).tcp(80, 1000);
        let expected = gone(Trial::INSIDE_MAC, HOST, back.clone().time_to_live(63));
        let outcome = send(trial, Direction::Inbound, &back);
        assert_eq!(outcome, Outcome { inside: vec![expected], ..Outcome::default() });
    });
}

/// All header checksums that there can be, down to those around zero.
#[test]
fn the_header_checksum_stays_right_for_every_identification() {
    with_router(|trial| {
        for identification in (0..=u16::MAX).step_by(7).chain(0xff00..=u16::MAX) {
            let frame = from_host().ipv4(HOST4, FAR4).identification(identification.into()).udp(1, 2);
            let mut sent = only(&send(trial, Direction::Outbound, &frame));
            assert_eq!(Headers::parse(&mut sent).unwrap().verify_checksums(), Ok(()), "{identification}");
        }
    });
}

#[test]
fn what_may_not_be_forwarded_is_dropped_under_a_name() {
    with_router(|trial| {
        let udp = |source: [u8; 4], to: [u8; 4]| from_host().ipv4(source, to).udp(1, 2);
        let udp6 = |source: &str, to: &str| {
            from_host().ipv6(source.parse::<Ipv6Addr>().unwrap(), to.parse::<Ipv6Addr>().unwrap()).udp(1, 2)
        };
        let host = HOST4.octets();
        let broken = |place: usize, value: u8, frame: Frame| {
            let mut frame = frame.build();
            frame[place] = value;
            frame
        };
        for (what, frame, reason) in [
            (
                "another station",
                udp(host, PEER4.octets()).ethernet(HOST.0, [2, 9, 9, 9, 9, 9]).build(),
                "other-station",
            ),
            (
                "a unicast packet to all stations",
                udp(host, PEER4.octets()).ethernet(HOST.0, MacAddress::BROADCAST.0).build(),
                "other-station",
            ),
            (
                "a host with the router's own MAC address",
                Frame::new().ethernet(Trial::INSIDE_MAC.0, MacAddress::BROADCAST.0).arp_request(HOST4, OWN4).build(),
                "own-mac",
            ),
            ("a VLAN that nobody has", udp(host, PEER4.octets()).vlan(7).build(), "unknown-vlan"),
            ("another protocol", from_host().ether_type(0x88cc).build(), "not-ip"),
            ("no frame at all", vec![2; 9], "malformed"),
            ("cut short", udp(host, PEER4.octets()).build()[..30].to_vec(), "malformed"),
            ("another version", broken(14, 0x65, udp(host, PEER4.octets())), "malformed"),
            ("a header of 16 octets", broken(14, 0x44, udp(host, PEER4.octets())), "malformed"),
            ("a longer packet than frame", broken(17, 200, udp(host, PEER4.octets())), "malformed"),
            ("IPv6 cut short", udp6("2001:db8:1::10", "2001:db8:2::20").build()[..50].to_vec(), "malformed"),
            ("a longer IPv6 packet than frame", broken(19, 9, udp6("2001:db8:1::10", "2001:db8:2::20")), "malformed"),
            ("a wrong checksum", broken(25, 1, udp(host, PEER4.octets())), "bad-checksum"),
            ("from this network", udp([0, 0, 0, 1], PEER4.octets()).build(), "martian"),
            ("from loopback", udp([127, 0, 0, 1], PEER4.octets()).build(), "martian"),
            ("from a group", udp([224, 0, 0, 1], PEER4.octets()).build(), "martian"),
            ("from everybody", udp([255; 4], PEER4.octets()).build(), "martian"),
            ("from an automatic address", udp([169, 254, 1, 1], PEER4.octets()).build(), "link-local"),
            ("to an automatic address", udp(host, [169, 254, 169, 254]).build(), "link-local"),
            ("from a mapped address", udp6("::ffff:127.0.0.1", "2001:db8:2::20").build(), "martian"),
            ("to a mapped address", udp6("2001:db8:1::10", "::ffff:10.0.0.1").build(), "martian"),
            (
                "from a group of stations",
                udp(host, PEER4.octets()).ethernet([3, 0, 0, 0, 0, 1], Trial::INSIDE_MAC.0).build(),
                "malformed",
            ),
            (
                "IPv6 from a group of stations",
                udp6("2001:db8:1::10", "2001:db8:2::20").ethernet([3, 0, 0, 0, 0, 1], Trial::INSIDE_MAC.0).build(),
                "malformed",
            ),
            ("to loopback", udp(host, [127, 0, 0, 1]).build(), "martian"),
            ("to a reserved address", udp(host, [240, 0, 0, 1]).build(), "martian"),
            ("to this network", udp(host, [0, 1, 2, 3]).build(), "martian"),
            ("from an IPv6 group", udp6("ff02::1", "2001:db8:2::20").build(), "martian"),
            ("from nobody", udp6("::", "2001:db8:2::20").build(), "martian"),
            ("from IPv6 loopback", udp6("::1", "2001:db8:2::20").build(), "martian"),
            ("to IPv6 loopback", udp6("2001:db8:1::10", "::1").build(), "martian"),
            ("a loose source route", udp(host, PEER4.octets()).ipv4_options(&[131, 3, 4, 0]).build(), "source-routed"),
            (
                "a strict one, behind another",
                udp(host, PEER4.octets()).ipv4_options(&[1, 137, 3, 4]).build(),
                "source-routed",
            ),
            (
                "options that lead nowhere",
                udp(host, PEER4.octets()).ipv4_options(&[7, 1, 0, 0]).build(),
                "source-routed",
            ),
            ("a group", udp(host, [224, 0, 0, 5]).build(), "multicast"),
            (
                "an IPv6 group",
                udp6("2001:db8:1::10", "ff05::2").ethernet(HOST.0, [0x33, 0x33, 0, 0, 0, 2]).build(),
                "multicast",
            ),
            ("everybody", udp(host, [255; 4]).build(), "broadcast"),
            ("a link's broadcast address", udp(host, [198, 51, 100, 255]).build(), "broadcast"),
            ("the other link's", udp(host, [192, 0, 2, 255]).build(), "broadcast"),
            ("a link's first address", udp(host, [198, 51, 100, 0]).build(), "broadcast"),
            ("to a link-local address", udp6("2001:db8:1::10", "fe80::99").build(), "link-local"),
            ("from a link-local address", udp6("fe80::99", "2001:db8:2::20").build(), "link-local"),
            ("a blackhole", udp(host, [10, 1, 2, 3]).build(), "blackhole"),
            (
                "an echo request from our own address",
                from_host().ipv4(OWN4, OWN4).icmp_echo_request(1, 2).build(),
                "martian",
            ),
            (
                "an echo request from everybody on a link",
                from_host().ipv4([198, 51, 100, 255], OWN4).icmp_echo_request(1, 2).build(),
                "martian",
            ),
            (
                "no route back to everybody on a link",
                from_host().ipv4([192, 0, 2, 255], [8, 8, 8, 8]).udp(1, 2).build(),
                "no-route",
            ),
            ("TCP to the router", from_host().ipv4(HOST4, OWN4).tcp(1, 22).build(), "no-listener"),
        ] {
            let outcome = trial.send(Direction::Outbound, &[frame]);
            let dropped = [(reason.to_owned(), 1)].into();
            assert_eq!(outcome, Outcome { dropped, ..Outcome::default() }, "{what}");
        }
    });
}

/// The error that came back, checked whole: from whom, to whom, type, code, the four octets behind
/// the checksum, and what it quotes.
fn error(outcome: &Outcome) -> (IpAddr, IpAddr, u8, u8, [u8; 4], Vec<u8>) {
    let mut frame = only(outcome);
    let headers = Headers::parse(&mut frame).unwrap();
    assert_eq!(headers.verify_checksums(), Ok(()));
    assert_eq!((headers.ethernet.source, headers.ethernet.destination), (Trial::INSIDE_MAC, HOST));
    let quoted = headers.payload.to_vec();
    match (&headers.network, &headers.transport) {
        (Network::Ipv4 { header, .. }, Transport::Icmp(icmp)) => {
            assert_eq!(header.time_to_live, 64);
            let (from, to) = (Ipv4Addr::from(header.source), Ipv4Addr::from(header.destination));
            (from.into(), to.into(), icmp.message_type.0, icmp.code, icmp.rest_of_header, quoted)
        }
        (Network::Ipv6 { header, .. }, Transport::Icmpv6(icmp)) => {
            assert_eq!(header.hop_limit, 64);
            let (from, to) = (Ipv6Addr::from(header.source), Ipv6Addr::from(header.destination));
            (from.into(), to.into(), icmp.message_type.0, icmp.code, icmp.rest_of_header, quoted)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_sender_is_told_why_and_sees_what_it_sent() {
    with_router(|trial| {
        let v4 = |to: [u8; 4]| from_host().ipv4(HOST4, to).udp(1, 2);
        let v6 = |to: &str| from_host().ipv6(HOST6, to.parse::<Ipv6Addr>().unwrap()).udp(1, 2);
        let big = |frame: Frame| frame.payload(&[7; 1400]);
        for (what, frame, reason, expected) in [
            ("no hops left", v4([203, 0, 113, 7]).time_to_live(1), "ttl-expired", (11, 0, [0; 4])),
            ("none at all", v4([203, 0, 113, 7]).time_to_live(0), "ttl-expired", (11, 0, [0; 4])),
            ("no route", v4([8, 8, 8, 8]), "no-route", (3, 0, [0; 4])),
            ("an unreachable route", v4([10, 3, 0, 1]), "no-route", (3, 0, [0; 4])),
            ("prohibited", v4([10, 2, 0, 1]), "prohibited", (3, 13, [0; 4])),
            ("nobody listens", v4([192, 0, 2, 1]), "no-listener", (3, 3, [0; 4])),
            ("too big", big(v4([203, 0, 113, 7])).dont_fragment(), "too-big", (3, 4, [0, 0, 5, 0x78])),
            ("IPv6 without hops", v6("2001:db8:9::7").hop_limit(1), "ttl-expired", (3, 0, [0; 4])),
            ("IPv6 without a route", v6("2001:db8:8::7"), "no-route", (1, 0, [0; 4])),
            ("IPv6 where nobody listens", v6("2001:db8:1::1"), "no-listener", (1, 4, [0; 4])),
            ("IPv6 too big", big(v6("2001:db8:9::7")), "too-big", (2, 0, [0, 0, 5, 0x78])),
        ] {
            let frame = frame.build();
            let outcome = trial.send(Direction::Outbound, std::slice::from_ref(&frame));
            assert_eq!(outcome.dropped, [(reason.to_owned(), 1)].into(), "{what}");
            let (from, to, message_type, code, rest, quoted) = error(&outcome);
            let addresses: (IpAddr, IpAddr) =
                if from.is_ipv4() { (OWN4.into(), HOST4.into()) } else { (OWN6.into(), HOST6.into()) };
            assert_eq!((from, to), addresses, "{what}");
            assert_eq!((message_type, code, rest), expected, "{what}");
            let longest = if from.is_ipv4() { 576 - 28 } else { 1280 - 48 };
            assert_eq!(quoted, frame[14..][..(frame.len() - 14).min(longest)], "{what}");
            // The next one has a token again.
            trial.advance(Duration::from_millis(10));
        }
    });
}

#[test]
fn nobody_is_told_about_errors() {
    with_router(|trial| {
        let v4 = || from_host().ipv4(HOST4, [8, 8, 8, 8]);
        let v6 = || from_host().ipv6(HOST6, FAR6).hop_limit(1);
        for (what, frame, reason) in [
            ("an error", v4().icmp(3, 1, [0; 4]).payload(&[0x45; 28]), "no-route"),
            ("an IPv6 error", v6().icmpv6(1, 0, [0; 4]).payload(&[0x60; 48]), "ttl-expired"),
            ("an unknown error", v6().icmpv6(100, 0, [0; 4]), "ttl-expired"),
        ] {
            let outcome = send(trial, Direction::Outbound, &frame);
            let dropped = [(reason.to_owned(), 1)].into();
            assert_eq!(outcome, Outcome { dropped, ..Outcome::default() }, "{what}");
        }
        for (what, frame) in [
            ("an echo request", v4().icmp_echo_request(1, 2)),
            ("a first fragment", v4().udp(1, 2).payload(&[0; 64]).fragment(0, true)),
            ("an unknown informational message", v6().icmpv6(200, 0, [0; 4])),
        ] {
            let outcome = send(trial, Direction::Outbound, &frame);
            assert_eq!(outcome.inside.len(), 1, "{what}: {outcome:?}");
        }
    });
}

/// Without virtual reassembly, which would have them wait for their first ones.
#[test]
fn nobody_is_told_about_later_fragments() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Chain::new()).with_router(ROUTER, &[]);
        introduce(&mut trial);
        let v4 = from_host().ipv4(HOST4, [8, 8, 8, 8]).udp(1, 2).payload(&[0; 64]).fragment(8, false);
        let v6 = from_host().ipv6(HOST6, FAR6).hop_limit(1).udp(1, 2).payload(&[0; 64]).fragment(8, false);
        for (frame, reason) in [(v4, "no-route"), (v6, "ttl-expired")] {
            let outcome = send(&mut trial, Direction::Outbound, &frame);
            assert_eq!(outcome, Outcome { dropped: [(reason.to_owned(), 1)].into(), ..Outcome::default() });
        }
        trial.check_for_leaks();
    });
}

#[test]
fn errors_are_limited_and_packets_are_dropped_all_the_same() {
    lab(|lab| {
        let text = format!("icmp_errors_per_second = 100\n{ROUTER}");
        let mut trial = lab.trial(|_| Chain::new()).with_router(&text, &[]);
        introduce(&mut trial);
        let frames = vec![from_host().ipv4(HOST4, [8, 8, 8, 8]).udp(1, 2).build(); 64];
        // milliseconds passed, errors sent
        for (passed, errors) in [(0, 10), (0, 0), (20, 2), (10_000, 10)] {
            trial.advance(Duration::from_millis(passed));
            let outcome = trial.send(Direction::Outbound, &frames);
            assert_eq!((outcome.inside.len(), outcome.dropped["no-route"]), (errors, 64), "after {passed} ms");
        }
        trial.check_for_leaks();
    });
}

#[test]
fn the_router_answers_an_echo_request_to_any_of_its_addresses() {
    with_router(|trial| {
        let v4 = |to: Ipv4Addr| from_host().ipv4(HOST4, to).icmp_echo_request(7, 8).payload(b"abcdefg");
        let v6 = |to: Ipv6Addr| from_host().ipv6(HOST6, to).icmpv6_echo_request(7, 8).payload(b"abcdefg");
        let link_local: Ipv6Addr = "fe80::ff:fe00:101".parse().unwrap();
        for frame in [v4(OWN4), v4(OUTSIDE4), v4(OWN4).vlan(0), v6(OWN6), v6(OUTSIDE6), v6(link_local)] {
            let outcome = send(trial, Direction::Outbound, &frame);
            if outcome.inside.is_empty() {
                // A tag, even of no VLAN, is nothing that this router was told of.
                assert_eq!(outcome.dropped, [("unknown-vlan".to_owned(), 1)].into());
                continue;
            }
            let (mut asked, mut said) = (frame.build(), only(&outcome));
            let (asked, said) = (Headers::parse(&mut asked).unwrap(), Headers::parse(&mut said).unwrap());
            assert_eq!(said.verify_checksums(), Ok(()));
            assert_eq!((said.ethernet.source, said.ethernet.destination), (Trial::INSIDE_MAC, HOST));
            assert_eq!(said.payload, b"abcdefg");
            match (asked.network, said.network, said.transport) {
                (Network::Ipv4 { header: asked, .. }, Network::Ipv4 { header, .. }, Transport::Icmp(icmp)) => {
                    assert_eq!((header.source, header.destination), (asked.destination, asked.source));
                    assert_eq!((icmp.message_type, icmp.rest_of_header), (IcmpType::ECHO_REPLY, [0, 7, 0, 8]));
                }
                (Network::Ipv6 { header: asked, .. }, Network::Ipv6 { header, .. }, Transport::Icmpv6(icmp)) => {
                    assert_eq!((header.source, header.destination), (asked.destination, asked.source));
                    assert_eq!((icmp.message_type, icmp.rest_of_header), (Icmpv6Type::ECHO_REPLY, [0, 7, 0, 8]));
                }
                other => panic!("{other:?}"),
            }
        }
        let mut broken = v4(OWN4).build();
        *broken.last_mut().unwrap() ^= 1;
        let outcome = trial.send(Direction::Outbound, &[broken]);
        assert_eq!(outcome.dropped, [("no-listener".to_owned(), 1)].into());
    });
}

/// Sees packets pass.
struct Seen(u64);

impl PacketFunction for Seen {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        self.0 += 1;
        Verdict::Next
    }
}

/// Translates one address to another, as a NAT would.
struct Translate;

impl PacketFunction for Translate {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        let pool = [198, 51, 100, 77];
        let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return Verdict::Drop(DropReason::MALFORMED) };
        let Network::Ipv4 { header, .. } = &mut headers.network else { return Verdict::Next };
        let translated = match cx.direction() {
            Direction::Outbound => header.source == HOST4.octets(),
            Direction::Inbound => header.destination == pool,
        };
        match cx.direction() {
            _ if !translated => return Verdict::Next,
            Direction::Outbound => header.source = pool,
            Direction::Inbound => header.destination = HOST4.octets(),
        }
        headers.fill_checksums();
        // What the error quotes is translated back, as far as this test looks at it.
        if let Some(quoted) = headers.quoted()
            && let Network::Ipv4 { header, options } = quoted.network
        {
            header.source = HOST4.octets();
            header.header_checksum.set(nf_framework::headers::checksum::ipv4_header(header, options));
        }
        headers.fill_checksums();
        if cx.direction() == Direction::Outbound && hairpin(packet.data()) { Verdict::Turn } else { Verdict::Next }
    }
}

fn hairpin(frame: &[u8]) -> bool {
    frame[30..34] == [198, 51, 100, 77]
}

fn with_nat(test: impl Fn(&mut Trial) + Send + Copy + 'static) {
    for workers in [1, 2] {
        lab(move |lab| {
            let make = |_: &mut WorkerSetup| Seen(0).then(Translate);
            let trial = match workers {
                1 => lab.trial(make),
                _ => lab.trial_at_wrong_workers(workers, Affinity::InsideHost, make),
            };
            let mut trial = trial.with_router(ROUTER, &["198.51.100.77"]);
            introduce(&mut trial);
            test(&mut trial);
            trial.check_for_leaks();
        });
    }
}

#[test]
fn a_packet_to_a_functions_address_finds_its_way_behind_the_function() {
    with_nat(|trial| {
        let out = from_host().ipv4(HOST4, FAR4).time_to_live(64).udp(1, 2);
        let expected = Frame::new()
            .ethernet(Trial::OUTSIDE_MAC.0, NEXT.0)
            .ipv4([198, 51, 100, 77], FAR4)
            .time_to_live(63)
            .udp(1, 2);
        let outcome = send(trial, Direction::Outbound, &out);
        assert_eq!(outcome, Outcome { outside: vec![expected.build()], ..Outcome::default() });
        let back = from_peer().ipv4(FAR4, [198, 51, 100, 77]).time_to_live(9).udp(2, 1);
        let expected = Frame::new().ethernet(Trial::INSIDE_MAC.0, HOST.0).ipv4(FAR4, HOST4).time_to_live(8).udp(2, 1);
        let outcome = send(trial, Direction::Inbound, &back);
        assert_eq!(outcome, Outcome { inside: vec![expected.build()], ..Outcome::default() });
    });
}

#[test]
fn a_function_address_is_answered_for_by_arp() {
    with_nat(|trial| {
        let outcome = trial.send(Direction::Inbound, &[hello(PEER, PEER4.into(), IpAddr::from([198, 51, 100, 77]))]);
        let expected = Frame::new().ethernet(Trial::OUTSIDE_MAC.0, PEER.0).arp_reply([198, 51, 100, 77], PEER4);
        assert_eq!(only(&outcome)[..42], expected.build()[..42]);
        let outcome = trial.send(Direction::Inbound, &[hello(PEER, PEER4.into(), IpAddr::from([198, 51, 100, 78]))]);
        // Nobody's, so it is only about the sender, who is known.
        assert_eq!(outcome, Outcome { consumed: 1, ..Outcome::default() });
    });
}

#[test]
fn an_error_from_behind_the_chain_goes_back_through_it() {
    with_nat(|trial| {
        let big = from_host().ipv4(HOST4, FAR4).dont_fragment().udp(1, 2).payload(&[7; 1400]).build();
        let outcome = trial.send(Direction::Outbound, std::slice::from_ref(&big));
        assert_eq!(outcome.dropped, [("too-big".to_owned(), 1)].into());
        let (from, to, message_type, code, rest, quoted) = error(&outcome);
        assert_eq!((from, to), (OWN4.into(), HOST4.into()));
        assert_eq!((message_type, code, rest), (3, 4, [0, 0, 5, 0x78]));
        // All but the transport's checksum, which this NAT leaves alone.
        assert_eq!((&quoted[..26], &quoted[28..]), (&big[14..][..26], &big[14..][28..548]));
    });
}

/// RFC 5508 section 7.2: the hop counts for a packet to a function's address too.
#[test]
fn a_packet_to_a_functions_address_may_have_no_hops_left() {
    with_nat(|trial| {
        let back = from_peer().ipv4(PEER4, [198, 51, 100, 77]).time_to_live(1).udp(2, 1);
        let outcome = send(trial, Direction::Inbound, &back);
        assert_eq!(outcome.dropped, [("ttl-expired".to_owned(), 1)].into());
        assert_eq!((outcome.outside.len(), outcome.inside.len()), (1, 0), "{outcome:?}");
    });
}

/// Says of every UDP packet from inside that nobody listens.
struct Deaf;

impl PacketFunction for Deaf {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        if cx.direction() == Direction::Outbound && packet.data()[23] == 17 {
            cx.refuse_as([198, 51, 100, 78].into(), packet, IcmpError::PortUnreachable, Direction::Inbound);
            return Verdict::Drop(DropReason::POLICY);
        }
        Verdict::Next
    }
}

#[test]
fn what_a_function_says_to_a_functions_address_comes_back_through_the_chain() {
    for workers in [1, 2] {
        lab(move |lab| {
            let make = |_: &mut WorkerSetup| Deaf.then(Translate);
            let trial = match workers {
                1 => lab.trial(make),
                _ => lab.trial_at_wrong_workers(workers, Affinity::InsideHost, make),
            };
            let mut trial = trial.with_router(ROUTER, &["198.51.100.77", "198.51.100.79"]);
            introduce(&mut trial);
            let about = |source: [u8; 4]| from_host().ipv4(source, FAR4).udp(1, 2);
            let outcome = send(&mut trial, Direction::Outbound, &about([198, 51, 100, 77]));
            assert_eq!(outcome.dropped, [("policy".to_owned(), 1)].into());
            let (from, to, message_type, code, ..) = error(&outcome);
            assert_eq!((from, to), (IpAddr::from([198, 51, 100, 78]), HOST4.into()));
            assert_eq!((message_type, code), (3, 3));
            // That none takes there goes round once.
            let outcome = send(&mut trial, Direction::Outbound, &about([198, 51, 100, 79]));
            assert_eq!(outcome.dropped, [("no-listener".to_owned(), 1), ("policy".to_owned(), 1)].into());
            trial.check_for_leaks();
        });
    }
}

#[test]
fn a_hairpin_is_one_hop() {
    with_nat(|trial| {
        let there = from_host().ipv4(HOST4, [198, 51, 100, 77]).time_to_live(64).udp(1, 2);
        let outcome = send(trial, Direction::Outbound, &there);
        let expected = Frame::new()
            .ethernet(Trial::INSIDE_MAC.0, HOST.0)
            .ipv4([198, 51, 100, 77], HOST4)
            .time_to_live(63)
            .udp(1, 2);
        assert_eq!(outcome, Outcome { inside: vec![expected.build()], ..Outcome::default() });
    });
}

#[test]
fn with_functions_a_packet_does_not_go_back_to_its_side_past_them() {
    const MORE: &str = "[[routes]]\nto = \"172.16.0.0/12\"\nvia = \"192.0.2.99\"\n";
    lab(|lab| {
        let text = format!("{ROUTER}\n{MORE}");
        let frame = from_host().ipv4(HOST4, [172, 16, 0, 1]).udp(1, 2);
        let mut trial = lab.trial(|_| Seen(0).into()).with_router(&text, &[]);
        introduce(&mut trial);
        let outcome = send(&mut trial, Direction::Outbound, &frame);
        assert_eq!(outcome.dropped, [("same-side".to_owned(), 1)].into());
        trial.check_for_leaks();
        // Without any it waits for its next hop.
        let mut trial = lab.trial(|_| Chain::new()).with_router(&text, &[]);
        introduce(&mut trial);
        let outcome = send(&mut trial, Direction::Outbound, &frame);
        assert_eq!((outcome.held, outcome.inside.len()), (1, 1));
        let answer = Frame::new().ethernet(NEXT.0, Trial::INSIDE_MAC.0).arp_reply([192, 0, 2, 99], OWN4).build();
        let outcome = trial.send(Direction::Outbound, &[answer]);
        assert_eq!((outcome.held, outcome.inside.len()), (-1, 1));
        trial.check_for_leaks();
    });
}

#[test]
fn a_packet_waits_for_its_neighbour_and_its_sender_hears_if_there_is_none() {
    with_router(|trial| {
        let silent = Ipv4Addr::new(198, 51, 100, 200);
        let frame = from_host().ipv4(HOST4, silent).time_to_live(64).udp(1, 2).build();
        let outcome = trial.send(Direction::Outbound, std::slice::from_ref(&frame));
        assert_eq!(outcome.held, 1);
        let question =
            Frame::new().ethernet(Trial::OUTSIDE_MAC.0, MacAddress::BROADCAST.0).arp_request(OUTSIDE4, silent);
        assert_eq!(only(&outcome)[..42], question.build()[..42]);
        let (mut errors, mut questions) = (Vec::new(), 0);
        for _ in 0..8 {
            let outcome = trial.advance(Duration::from_millis(500));
            questions += outcome.outside.len();
            errors.extend(outcome.inside.first().map(|_| outcome.clone()));
        }
        let [told] = &errors[..] else { panic!("{errors:?}") };
        assert_eq!((told.held, questions), (-1, 2));
        assert_eq!(told.dropped, [("neighbour-unreachable".to_owned(), 1)].into());
        let (from, to, message_type, code, _, quoted) = error(told);
        assert_eq!((from, to), (OWN4.into(), HOST4.into()));
        assert_eq!((message_type, code), (3, 1));
        assert_eq!(quoted, frame[14..]);
    });
}

#[test]
fn a_packet_that_waited_is_held_to_what_its_link_takes() {
    with_router(|trial| {
        let silent = [198, 51, 100, 200];
        let mac = MacAddress([2, 0, 0, 0, 0, 0x44]);
        let long = |may: bool| {
            let frame = from_host().ipv4(HOST4, silent).udp(1, 2).payload(&[7; 1440]);
            if may { frame } else { frame.dont_fragment() }
        };
        let held = trial.send(Direction::Outbound, &[long(true).build(), long(false).build()]);
        assert_eq!((held.held, held.outside.len(), held.inside.len()), (2, 1, 0));
        let answer = Frame::new().ethernet(mac.0, Trial::OUTSIDE_MAC.0).arp_reply(silent, OUTSIDE4).build();
        let outcome = trial.send(Direction::Inbound, &[answer]);
        assert_eq!(outcome.dropped, [("too-big".to_owned(), 1)].into());
        assert_eq!((outcome.held, outcome.outside.len(), outcome.inside.len()), (-2, 2, 1), "{outcome:?}");
        assert!(outcome.outside.iter().all(|fragment| fragment.len() <= 14 + 1400 && fragment[..6] == mac.0));
        let quoted = &outcome.inside[0];
        assert_eq!((quoted[34..36].to_vec(), &quoted[40..42]), (vec![3, 4], &1400_u16.to_be_bytes()[..]));
    });
}

#[test]
fn a_translated_packet_that_waits_has_a_hop_less() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Seen(0).then(Translate)).with_router(ROUTER, &["198.51.100.77"]);
        trial.advance(Duration::ZERO);
        let back = |hops| from_peer().ipv4(FAR4, [198, 51, 100, 77]).time_to_live(hops).udp(2, 1);
        assert_eq!(send(&mut trial, Direction::Inbound, &back(9)).held, 1);
        let answer = Frame::new().ethernet(HOST.0, Trial::INSIDE_MAC.0).arp_reply(HOST4, OWN4);
        let outcome = send(&mut trial, Direction::Outbound, &answer);
        let expected = Frame::new().ethernet(Trial::INSIDE_MAC.0, HOST.0).ipv4(FAR4, HOST4).time_to_live(8).udp(2, 1);
        assert_eq!((outcome.held, outcome.inside), (-1, vec![expected.build()]));
        trial.check_for_leaks();
    });
}

/// Fails where a packet of a flow comes by that another worker owns.
struct Owned(Option<Arc<Steering>>, usize);

impl PacketFunction for Owned {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        if let (Some(steering), Some(tuple)) = (&self.0, Tuple::of_packet(packet)) {
            assert_eq!(steering.owner(cx.direction(), &tuple), self.1, "{tuple:?}");
        }
        Verdict::Next
    }
}

#[test]
fn an_error_about_a_silent_neighbour_goes_back_through_the_functions_of_the_flow_s_owner() {
    lab(|lab| {
        let make = |worker: &mut WorkerSetup| Owned(worker.steering().cloned(), worker.index()).into();
        let mut trial = lab.trial_at_wrong_workers(2, Affinity::Flow, make).with_router(ROUTER, &[]);
        introduce(&mut trial);
        for flow in 0..16 {
            let silent = Ipv4Addr::new(198, 51, 100, 200 + flow);
            let frame = from_host().ipv4(HOST4, silent).udp(flow.into(), 2);
            assert_eq!(send(&mut trial, Direction::Outbound, &frame).held, 1);
        }
        let mut told = BTreeSet::new();
        for _ in 0..8 {
            let outcome = trial.advance(Duration::from_millis(500));
            // The ports of the quoted packets.
            told.extend(outcome.inside.iter().map(|frame| frame[62..64].to_vec()));
        }
        assert_eq!(told, (0..16).map(|flow| vec![0, flow]).collect());
        assert!(trial.report().handed_over > 16, "some errors are others'");
        trial.check_for_leaks();
    });
}

const ONE_ARMED: &str = r#"
[interfaces.lan]
side = "inside"
vlan = 10
addresses = ["192.0.2.1/24", "2001:db8:1::1/64"]

[interfaces.wan]
side = "outside"
vlan = 20
addresses = ["198.51.100.1/24", "2001:db8:2::1/64"]

[interfaces.management]
side = "inside"
addresses = ["10.0.0.1/24"]
"#;

#[test]
fn on_one_port_the_vlan_tells_the_sides_apart() {
    for workers in [1, 2] {
        lab(move |lab| {
            let make = |_: &mut WorkerSetup| Chain::from(Seen(0));
            let trial = match workers {
                1 => lab.trial(make),
                _ => lab.trial_at_wrong_workers(workers, Affinity::InsideHost, make),
            };
            let mut trial = trial.with_router_on_one_port(ONE_ARMED, &[]);
            trial.advance(Duration::ZERO);
            let tag = |frame: Vec<u8>, vlan: u16| {
                let [high, low] = vlan.to_be_bytes();
                [&frame[..12], &[0x81, 0, high, low], &frame[12..]].concat()
            };
            let hellos = [
                tag(hello(HOST, HOST4.into(), OWN4.into()), 10),
                tag(hello(PEER, PEER4.into(), OUTSIDE4.into()), 20),
                hello(NEXT, IpAddr::from([10, 0, 0, 2]), IpAddr::from([10, 0, 0, 1])),
            ];
            let outcome = trial.send(Direction::Outbound, &hellos);
            assert_eq!((outcome.inside.len(), outcome.dropped.len()), (3, 0), "{outcome:?}");
            let tags = outcome.inside.iter().map(|answer| {
                let mut answer = answer.clone();
                Headers::parse(&mut answer).unwrap().vlan.first().map(|tag| tag.id())
            });
            assert_eq!(tags.collect::<BTreeSet<_>>(), [Some(10), Some(20), None].into());
            // Priorities do not matter, and are not handed on.
            let there = from_host().vlan(10 | 5 << 13).ipv4(HOST4, PEER4).time_to_live(9).udp(1, 2);
            let back = from_host().ethernet(PEER.0, Trial::INSIDE_MAC.0).vlan(20).ipv4(PEER4, HOST4).udp(2, 1);
            let stray = from_host().vlan(30).ipv4(HOST4, PEER4).udp(1, 2);
            let deep = from_host().vlan(10).vlan(20).ipv4(HOST4, PEER4).udp(1, 2);
            let to_management = from_host().vlan(10).ipv4(HOST4, [10, 0, 0, 2]).udp(1, 2);
            let frames = [&there, &back, &stray, &deep, &to_management].map(Frame::build);
            let mut outcome = trial.send(Direction::Outbound, &frames);
            let gone =
                |to: MacAddress, vlan, frame: Frame| frame.ethernet(Trial::INSIDE_MAC.0, to.0).vlan(vlan).build();
            let expected = {
                let plain = Frame::new().ipv4(HOST4, PEER4).time_to_live(8).udp(1, 2);
                let reply = Frame::new().ipv4(PEER4, HOST4).time_to_live(63).udp(2, 1);
                let mut both = vec![gone(PEER, 20, plain), gone(HOST, 10, reply)];
                both.sort();
                both
            };
            outcome.inside.sort();
            assert_eq!(outcome.inside, expected);
            assert_eq!(outcome.dropped, [("unknown-vlan".to_owned(), 2), ("same-side".to_owned(), 1)].into());
            trial.check_for_leaks();
        });
    }
}

#[test]
fn n17_a_packet_that_may_be_fragmented_leaves_in_order() {
    with_router(|trial| {
        let frame = from_host().ipv4(HOST4, FAR4).time_to_live(9).identification(77).udp(1, 2).payload(&[7; 1450]);
        let outcome = send(trial, Direction::Outbound, &frame);
        let gone = frame.ethernet(Trial::OUTSIDE_MAC.0, NEXT.0).time_to_live(8);
        // 1400 octets less the header, in units of 8.
        let expected = Outcome { outside: gone.build_fragments(1376), consumed: 1, ..Outcome::default() };
        assert_eq!(outcome, expected);
    });
}

/// Sends packets to this port to a backend, which has the service's address itself.
struct ToOne(NextHop);

impl PacketFunction for ToOne {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        if packet.data()[36..38] == [0, 80] {
            Annotation { next_hop: Some(self.0), ..Annotation::of(packet) }.write(packet);
        }
        Verdict::Next
    }
}

#[test]
fn a_next_hop_that_a_function_has_chosen_gets_the_packet_as_it_is() {
    for backend in [IpAddr::from(NEXT4), IpAddr::from(NEXT6)] {
        lab(move |lab| {
            let make = |worker: &mut WorkerSetup| ToOne(worker.next_hops().at(backend).unwrap()).into();
            let mut trial = lab.trial(make).with_router(ROUTER, &["203.0.113.80/32"]);
            introduce(&mut trial);
            let frame = from_host().ipv4(HOST4, [203, 0, 113, 80]).time_to_live(64).tcp(1000, 80);
            let outcome = send(&mut trial, Direction::Outbound, &frame);
            let expected = frame.clone().ethernet(Trial::OUTSIDE_MAC.0, NEXT.0).time_to_live(63).build();
            assert_eq!(outcome, Outcome { outside: vec![expected], ..Outcome::default() });
            // To the service's address, which nobody else has.
            let other = from_host().ipv4(HOST4, [203, 0, 113, 80]).tcp(1000, 81);
            let outcome = send(&mut trial, Direction::Outbound, &other);
            assert_eq!(outcome.dropped, [("no-listener".to_owned(), 1)].into());
            trial.check_for_leaks();
        });
    }
    // On a usual way, where all is known already.
    lab(|lab| {
        let make = |worker: &mut WorkerSetup| ToOne(worker.next_hops().at(PEER4.into()).unwrap()).into();
        let mut trial = lab.trial(make).with_router(ROUTER, &[]);
        introduce(&mut trial);
        for (port, to) in [(81, NEXT), (80, PEER), (81, NEXT), (80, PEER)] {
            let frame = from_host().ipv4(HOST4, FAR4).time_to_live(64).tcp(1000, port);
            let outcome = send(&mut trial, Direction::Outbound, &frame);
            let expected = frame.clone().ethernet(Trial::OUTSIDE_MAC.0, to.0).time_to_live(63).build();
            assert_eq!(outcome, Outcome { outside: vec![expected], ..Outcome::default() });
        }
        trial.check_for_leaks();
    });
    // One that is nobody's neighbour.
    lab(|lab| {
        let make = |worker: &mut WorkerSetup| ToOne(worker.next_hops().at(IpAddr::from([9, 9, 9, 9])).unwrap()).into();
        let mut trial = lab.trial(make).with_router(ROUTER, &[]);
        introduce(&mut trial);
        let outcome = send(&mut trial, Direction::Outbound, &from_host().ipv4(HOST4, FAR4).tcp(1000, 80));
        assert_eq!(outcome.dropped, [("no-route".to_owned(), 1)].into());
        trial.check_for_leaks();
    });
}

/// Sends all packets to a neighbour wherever it is, if they may turn.
struct Anywhere {
    to: NextHop,
    may_turn: bool,
}

impl PacketFunction for Anywhere {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        if !cx.turned() {
            let annotation = Annotation { next_hop: Some(self.to), may_turn: self.may_turn, ..Annotation::of(packet) };
            annotation.write(packet);
        }
        Verdict::Next
    }
}

#[test]
fn what_may_turn_leaves_by_the_side_that_it_came_from_with_one_hop_less() {
    for (may_turn, workers) in [(false, 1), (true, 1), (true, 2)] {
        lab(move |lab| {
            let make = move |worker: &mut WorkerSetup| {
                Anywhere { to: worker.next_hops().at(NEXT4.into()).unwrap(), may_turn }.into()
            };
            let trial = match workers {
                1 => lab.trial(make),
                several => lab.trial_at_wrong_workers(several, Affinity::OutsidePort, make),
            };
            let mut trial = trial.with_router(ROUTER, &["203.0.113.80/32"]);
            introduce(&mut trial);
            // To a function's address, and to somebody to whom the way leads back.
            let to_function = from_peer().ipv4(PEER4, [203, 0, 113, 80]).time_to_live(64).tcp(1000, 80);
            let outcome = send(&mut trial, Direction::Inbound, &to_function);
            let turned = to_function.clone().ethernet(Trial::OUTSIDE_MAC.0, NEXT.0).time_to_live(63).build();
            let expected = if may_turn {
                Outcome { outside: vec![turned], ..Outcome::default() }
            } else {
                Outcome { dropped: [("same-side".to_owned(), 1)].into(), ..Outcome::default() }
            };
            assert_eq!(outcome, expected);
            // The other side is reached without.
            let outcome = send(&mut trial, Direction::Outbound, &from_host().ipv4(HOST4, FAR4).tcp(1000, 80));
            assert_eq!((outcome.outside.len(), outcome.dropped.len()), (1, 0));
            trial.check_for_leaks();
        });
    }
}

/// Sends all that goes in to this neighbour.
struct InToOne(NextHop);

impl PacketFunction for InToOne {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        if cx.direction() == Direction::Inbound {
            Annotation { next_hop: Some(self.0), ..Annotation::of(packet) }.write(packet);
        }
        Verdict::Next
    }
}

/// Lets nothing out, and says so.
struct Refuses;

impl PacketFunction for Refuses {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        cx.refuse(packet, IcmpError::Prohibited);
        Verdict::Drop(DropReason::PROHIBITED)
    }
}

#[test]
fn an_error_of_a_function_has_its_interfaces_address_by_a_chosen_next_hop_too() {
    lab(|lab| {
        let make = |worker: &mut WorkerSetup| {
            let chosen = worker.next_hops().at(HOST4.into()).unwrap();
            InToOne(chosen).then(Refuses)
        };
        let mut trial = lab.trial(make).with_router(ROUTER, &[]);
        introduce(&mut trial);
        let mut outcome = send(&mut trial, Direction::Outbound, &from_host().ipv4(HOST4, FAR4).udp(1000, 80));
        let headers = Headers::parse(&mut outcome.inside[0]).unwrap();
        assert_eq!(headers.verify_checksums(), Ok(()));
        let Network::Ipv4 { header, .. } = headers.network else { panic!("not IPv4") };
        assert_eq!((header.source, header.destination), (OWN4.octets(), HOST4.octets()));
        trial.check_for_leaks();
    });
}

/// Leaves no room before a packet.
struct Front;

impl PacketFunction for Front {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let room = packet.headroom();
        packet.prepend(room).unwrap();
        packet.data_mut().copy_within(room.., 0);
        assert!(packet.trim(room));
        Verdict::Next
    }
}

#[test]
fn a_packet_without_room_for_its_tag_is_dropped() {
    lab(|lab| {
        let text = ROUTER.replace("side = \"outside\"", "side = \"outside\"\nvlan = 7");
        let mut trial = lab.trial(|_| Front.into()).with_router(&text, &[]);
        trial.advance(Duration::ZERO);
        let mut hello = hello(PEER, PEER4.into(), OUTSIDE4.into());
        hello.splice(12..12, [0x81, 0, 0, 7]);
        assert_eq!(trial.send(Direction::Inbound, &[hello]).outside.len(), 1);
        let outcome = send(&mut trial, Direction::Outbound, &from_host().ipv4(HOST4, PEER4).udp(1, 2));
        assert_eq!(outcome.dropped, [("no-headroom".to_owned(), 1)].into());
        trial.check_for_leaks();
    });
}

#[test]
fn a_packet_that_cannot_be_fragmented_for_want_of_packets_is_dropped() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Chain::new()).with_router(ROUTER, &[]);
        introduce(&mut trial);
        let mut all: Vec<Mbuf> = std::iter::from_fn(|| lab.pool.alloc()).collect();
        // One to arrive in.
        drop(all.pop());
        let big = from_host().ipv4(HOST4, FAR4).udp(1, 2).payload(&[7; 1450]);
        let outcome = send(&mut trial, Direction::Outbound, &big);
        assert_eq!(outcome, Outcome { dropped: [("no-buffers".to_owned(), 1)].into(), ..Outcome::default() });
        drop(all);
        trial.check_for_leaks();
    });
}

/// The kernel stands on the outside link, and has an address of its own there.
fn with_kernel() -> String {
    ROUTER.replace("mtu = 1400", "mtu = 1400\nhost = 'net_tap2'")
}

#[test]
fn the_kernel_gets_what_is_for_the_router_itself_and_nothing_else() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Seen(0).into()).with_router(&with_kernel(), &["198.51.100.77"]);
        introduce(&mut trial);
        let multicast = [1, 0, 0x5e, 0, 0, 5];
        for (what, frame) in [
            ("TCP to an address of ours", from_peer().ipv4(PEER4, OUTSIDE4).tcp(1, 22)),
            ("UDP", from_peer().ipv4(PEER4, OUTSIDE4).udp(1, 53)),
            ("to the other link's address", from_peer().ipv4(PEER4, OWN4).tcp(1, 22)),
            ("IPv6", from_peer().ipv6(PEER6, OUTSIDE6).tcp(1, 22)),
            ("a fragment", from_peer().ipv4(PEER4, OUTSIDE4).udp(1, 2).payload(&[0; 16]).fragment(0, true)),
            ("an error", from_peer().ipv4(PEER4, OUTSIDE4).icmp(3, 4, [0; 4]).payload(&[0x45; 28])),
            ("a group", from_peer().ethernet(PEER.0, multicast).ipv4(PEER4, [224, 0, 0, 5]).protocol(89)),
            ("everybody", from_peer().ethernet(PEER.0, [255; 6]).ipv4(PEER4, [255; 4]).udp(67, 68)),
            ("the link's broadcast address", from_peer().ipv4(PEER4, [198, 51, 100, 255]).udp(1, 2)),
            (
                "the same to all stations",
                from_peer().ethernet(PEER.0, [255; 6]).ipv4(PEER4, [198, 51, 100, 255]).udp(1, 2),
            ),
            ("another protocol", from_peer().ethernet(PEER.0, multicast).ether_type(0x88cc)),
            ("a function's address that none has taken", from_peer().ipv4(PEER4, [198, 51, 100, 77]).tcp(1, 22)),
        ] {
            let outcome = send(&mut trial, Direction::Inbound, &frame);
            assert_eq!(outcome, Outcome { host: vec![frame.build()], ..Outcome::default() }, "{what}");
        }
        // It is not on the inside link.
        let outcome = send(&mut trial, Direction::Outbound, &from_host().ipv4(HOST4, OWN4).tcp(1, 22));
        assert_eq!(outcome.dropped, [("no-listener".to_owned(), 1)].into());
        // Ping is answered here.
        let outcome = send(&mut trial, Direction::Inbound, &from_peer().ipv4(PEER4, OUTSIDE4).icmp_echo_request(1, 2));
        assert_eq!((outcome.outside.len(), outcome.host.len()), (1, 0));
        // An answer of a neighbour's is for both of us.
        let answer = from_peer().arp_reply(PEER4, OUTSIDE4).build();
        let outcome = trial.send(Direction::Inbound, std::slice::from_ref(&answer));
        assert_eq!((outcome.host, outcome.consumed), (vec![answer], 1));
        // What the kernel sends leaves as it is.
        let said = Frame::new().ethernet(Trial::OUTSIDE_MAC.0, PEER.0).ipv4(OUTSIDE4, PEER4).tcp(22, 1).build();
        let outcome = trial.send_from_host(std::slice::from_ref(&said));
        assert_eq!(outcome, Outcome { outside: vec![said], ..Outcome::default() });
        trial.check_for_leaks();
    });
}

#[test]
fn the_kernel_is_in_its_interfaces_vlan() {
    lab(|lab| {
        let text = with_kernel().replace("host = ", "vlan = 7\nhost = ");
        let mut trial = lab.trial(|_| Chain::new()).with_router(&text, &[]);
        trial.advance(Duration::ZERO);
        let frame = from_peer().ipv4(PEER4, OUTSIDE4).tcp(1, 22);
        let outcome = send(&mut trial, Direction::Inbound, &frame.clone().vlan(7));
        assert_eq!(outcome, Outcome { host: vec![frame.build()], ..Outcome::default() });
        let outcome = trial.send_from_host(&[frame.build()]);
        assert_eq!(outcome, Outcome { outside: vec![frame.vlan(7).build()], ..Outcome::default() });
        trial.check_for_leaks();
    });
}

/// A later fragment must not become the first one of anything, by being split.
#[test]
fn no_packet_ends_behind_the_longest_there_can_be() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Chain::new()).with_router(ROUTER, &[]);
        introduce(&mut trial);
        let late = |octets: usize| {
            from_host().ipv4(HOST4, FAR4).protocol(6).payload(&vec![7; octets]).fragment(8020 * 8, false)
        };
        let outcome = send(&mut trial, Direction::Outbound, &late(1376 + 20));
        assert_eq!(outcome.dropped, [("malformed".to_owned(), 1)].into());
        let outcome = send(&mut trial, Direction::Outbound, &late(1375));
        assert_eq!((outcome.outside.len(), outcome.dropped.len()), (1, 0));
        trial.check_for_leaks();
    });
}

/// Redirects packets to some ports to hosts, as a load balancer would.
struct Redirect;

impl PacketFunction for Redirect {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let Ok(mut headers) = Headers::parse(packet.data_mut()) else { return Verdict::Next };
        let to = match headers.transport.ports() {
            Some((_, 7)) => [192, 0, 2, 200],
            Some((_, 8)) => HOST4.octets(),
            _ => return Verdict::Next,
        };
        if let Network::Ipv4 { header, .. } = &mut headers.network {
            header.destination = to;
        }
        headers.fill_checksums();
        Verdict::Next
    }
}

#[test]
fn one_packet_whose_neighbour_is_silent_does_not_turn_the_others_of_its_batch_round() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Redirect.into()).with_router(ROUTER, &["203.0.113.80"]);
        introduce(&mut trial);
        // Somebody inside whom nobody finds.
        let from_outside = from_peer().ipv4(PEER4, [192, 0, 2, 200]).udp(1, 2);
        send(&mut trial, Direction::Inbound, &from_outside);
        trial.advance(Duration::from_millis(3500));
        let frame = |port| from_host().ipv4(HOST4, [203, 0, 113, 80]).udp(1, port).build();
        let good = from_host().ipv4(HOST4, FAR4).udp(1, 2).build();
        // To him, back to our own side, and out.
        let outcome = trial.send(Direction::Outbound, &[good.clone(), frame(7), frame(8), good]);
        assert_eq!(outcome.outside.len(), 2, "{outcome:?}");
        assert_eq!(outcome.inside.len(), 0, "{outcome:?}");
        assert_eq!(outcome.dropped, [("same-side".to_owned(), 2)].into());
        trial.check_for_leaks();
    });
}

#[test]
fn a_neighbours_probe_for_a_functions_address_is_answered() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Seen(0).into()).with_router(ROUTER, &["2001:db8:2::77"]);
        introduce(&mut trial);
        let service: Ipv6Addr = "2001:db8:2::77".parse().unwrap();
        let probe = from_peer().ipv6(PEER6, service).hop_limit(255).icmpv6(135, 0, [0; 4]).payload(&service.octets());
        let mut answer = only(&send(&mut trial, Direction::Inbound, &probe));
        let headers = Headers::parse(&mut answer).unwrap();
        let Transport::Icmpv6(icmp) = headers.transport else { panic!("{headers:?}") };
        assert_eq!(icmp.message_type, Icmpv6Type::NEIGHBOR_ADVERTISEMENT);
        trial.check_for_leaks();
    });
}

#[test]
fn without_an_address_the_kernel_gets_what_dhcp_servers_say_and_nothing_else() {
    lab(|lab| {
        let text = with_kernel()
            .replace("\"198.51.100.1/24\", ", "")
            .replace("203.0.113.0/24\"\nvia = \"198.51.100.9", "203.0.113.0/24\"\nvia = \"192.0.2.9");
        let mut trial = lab.trial(|_| Seen(0).into()).with_router(&text, &[]);
        trial.advance(Duration::ZERO);
        let offer = from_peer().ipv4(PEER4, [198, 51, 100, 1]).udp(67, 68);
        let outcome = send(&mut trial, Direction::Inbound, &offer);
        assert_eq!(outcome, Outcome { host: vec![offer.build()], ..Outcome::default() });
        for other in [
            from_peer().ipv4(PEER4, [198, 51, 100, 1]).udp(67, 69),
            from_peer().ipv4(PEER4, [198, 51, 100, 1]).tcp(67, 68),
            from_peer().ipv6(PEER6, "2001:db8:ff::1".parse::<Ipv6Addr>().unwrap()).udp(67, 68),
        ] {
            let outcome = send(&mut trial, Direction::Inbound, &other);
            // The error about it finds no way back, either.
            assert_eq!(
                (outcome.host.len(), outcome.dropped.keys().collect::<Vec<_>>()),
                (0, vec![&"no-route".to_owned()])
            );
        }
    });
}
