//! Every reason for which the NAT drops, provoked.

use super::bench::{A, B, C, P, R, ROUTER, X, Y, dropped, from, from_outside, inside, left, packet, with_nat};
use nf_framework::Direction;
use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;

/// What this file, alone, shows to happen; the others do it again.
const ALL: [&str; 15] = [
    "nat-filtered",
    "nat-icmp-checksum",
    "nat-icmp-fragment",
    "nat-ipv6",
    "nat-no-mapping",
    "nat-no-pool",
    "nat-no-session",
    "nat-not-translated",
    "nat-ports-exhausted",
    "nat-protocol",
    "nat-sessions-full",
    "nat-spoofed",
    "nat-subscriber-limit",
    "nat-subscribers-full",
    "nat-unsolicited-syn",
];

#[test]
fn every_reason_has_something_that_provokes_it() {
    const TEXT: &str = r#"
sessions = 64
subscribers = 64
ports_per_subscriber = 130
filtering.udp = "address-dependent"
[[pools]]
addresses = ["198.51.100.100"]
subscribers = ["192.168.1.10"]
ports = "2000-2127"
[[pools]]
addresses = ["198.51.100.101"]
subscribers = ["192.168.1.20", "192.168.64.0/18"]"#;
    with_nat(TEXT, |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        let error = from_outside(X, P).icmp(3, 3, [0; 4]).payload(&packet(&Frame::new().ipv4(P, X).udp(port, 53)));
        let mut wrong = error.build();
        *wrong.last_mut().unwrap() ^= 1;
        let mut seen = std::collections::BTreeSet::new();
        for (direction, frames, reason) in [
            (Direction::Inbound, vec![from_outside(Y, P).udp(53, port).build()], "nat-filtered"),
            (Direction::Inbound, vec![wrong], "nat-icmp-checksum"),
            (
                Direction::Inbound,
                from_outside(X, P).icmp(3, 3, [0; 4]).payload(&[0; 100]).build_fragments(64),
                "nat-icmp-fragment",
            ),
            (Direction::Inbound, vec![from_outside(X, P).udp(53, port ^ 1).build()], "nat-no-mapping"),
            (Direction::Outbound, vec![from(C, X).udp(5000, 53).build()], "nat-no-pool"),
            (Direction::Outbound, vec![from(A, X).tcp(5000, 80).build()], "nat-no-session"),
            (Direction::Inbound, vec![from_outside(X, A).udp(53, 5000).build()], "nat-not-translated"),
            (Direction::Outbound, vec![from(A, X).protocol(47).build()], "nat-protocol"),
            (Direction::Inbound, vec![from_outside(P, P).udp(53, port).build()], "nat-spoofed"),
        ] {
            let outcome = nat.burst(direction, &frames);
            assert_eq!(dropped(&outcome), reason, "{outcome:?}");
            seen.insert(reason.to_owned());
        }
        // What takes more than a packet.
        seen.extend(nat.back(&from_outside(X, P).tcp(80, 4000).flags(TcpFlags::SYN)).dropped.into_keys());
        seen.extend(nat.pass(6).dropped.into_keys());
        for number in 0..200 {
            let frame = from(A, X).tcp(6000 + number, 80).flags(TcpFlags::SYN);
            seen.extend(nat.out(&frame).dropped.into_keys());
        }
        for number in 0..131 {
            seen.extend(nat.out(&from(B, X).icmp_echo_request(number, 1)).dropped.into_keys());
        }
        for number in 0..=255 {
            let many = std::net::Ipv4Addr::new(192, 168, 64, number);
            let out = nat.out(&from(many, X).tcp(5000, 80).flags(TcpFlags::SYN));
            seen.extend(out.dropped.into_keys());
            let many = std::net::Ipv4Addr::new(192, 168, 65, number);
            seen.extend(nat.out(&from(many, X).udp(5000, 80)).dropped.into_keys());
        }
        let expected: Vec<_> = ALL.into_iter().filter(|reason| !BY_OTHERS.contains(reason)).collect();
        let seen: Vec<_> = seen.iter().map(String::as_str).filter(|reason| reason.starts_with("nat-")).collect();
        assert_eq!(seen, expected);
    });
}

/// Of which the test above has none: they have one below, or stand where their matter is.
const BY_OTHERS: [&str; 3] = ["nat-ipv6", "nat-sessions-full", "nat-subscriber-limit"];

#[test]
fn what_comes_from_outside_does_not_say_that_it_comes_from_us() {
    const TEXT: &str = r#"
one_to_one = [{ inside = "192.168.1.20", outside = "198.51.100.110" }]
forward = [{ protocol = "tcp", outside = "198.51.100.105", ports = "80", to = ["192.168.1.10:8080"] }]
[[pools]]
addresses = ["198.51.100.100"]
draining = ["198.51.100.101"]"#;
    with_nat(TEXT, |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        for source in [[198, 51, 100, 100], [198, 51, 100, 101], [198, 51, 100, 105], [198, 51, 100, 110]] {
            for frame in [
                from_outside(source.into(), P).udp(53, port),
                from_outside(source.into(), P).tcp(53, 80).flags(TcpFlags::SYN),
                from_outside(source.into(), P).icmp_echo_reply(1, 1),
                from_outside(source.into(), P).protocol(47),
                from_outside(source.into(), P).ipv4_options(&[1; 4]).udp(53, port),
                from_outside(source.into(), A).udp(53, 5000),
            ] {
                assert_eq!(dropped(&nat.back(&frame)), "nat-spoofed", "{source:?}");
            }
        }
    });
}

#[test]
fn ipv6_is_dropped_or_goes_on_as_it_is() {
    let router = ROUTER
        .replace("\"192.168.0.1/16\"", "\"192.168.0.1/16\", \"2001:db8:1::1/64\"")
        .replace("\"198.51.100.1/24\"", "\"198.51.100.1/24\", \"2001:db8:2::1/64\"");
    const INSIDE: [u16; 8] = [0x2001, 0xdb8, 1, 0, 0, 0, 0, 9];
    const OUTSIDE: [u16; 8] = [0x2001, 0xdb8, 2, 0, 0, 0, 0, 9];
    for (text, passes) in [("", false), ("ipv6 = \"drop\"", false), ("ipv6 = \"forward\"", true)] {
        super::bench::with_nat_between(&router, text, move |nat| {
            let frame = |from, to| Frame::new().ipv6(from, to).udp(5000, 53);
            let station = super::bench::mac(A).0;
            let out = nat.out(&frame(INSIDE, OUTSIDE).ethernet(station, nf_framework::testing::Trial::INSIDE_MAC.0));
            let station = super::bench::NEXT.0;
            let back = nat.back(&frame(OUTSIDE, INSIDE).ethernet(station, nf_framework::testing::Trial::OUTSIDE_MAC.0));
            for outcome in [out, back] {
                if passes {
                    // It waits for its neighbour.
                    assert_eq!((outcome.dropped.len(), outcome.held), (0, 1), "{outcome:?}");
                } else {
                    assert_eq!(dropped(&outcome), "nat-ipv6");
                }
            }
        });
    }
}

#[test]
fn a_header_that_contradicts_itself_is_malformed() {
    with_nat("", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        // A UDP length beyond the packet, and one below its header; a TCP header of 16 octets, and one
        // beyond the packet.
        let udp = |frame: Frame, ports: (u16, u16)| frame.udp(ports.0, ports.1).payload(&[1; 8]).build();
        let tcp = |frame: Frame, ports: (u16, u16)| frame.tcp(ports.0, ports.1).flags(TcpFlags::SYN).build();
        let out = (from(A, X), (5000, 53), Direction::Outbound);
        let back = (from_outside(R, P), (53, port), Direction::Inbound);
        for (frame, ports, direction) in [out, back] {
            let cases = [
                (udp(frame.clone(), ports), 39, 17),
                (udp(frame.clone(), ports), 39, 7),
                (tcp(frame.clone(), ports), 46, 0x40),
                (tcp(frame.clone(), ports), 46, 0x60),
            ];
            for (mut bytes, at, octet) in cases {
                bytes[at] = octet;
                assert_eq!(dropped(&nat.burst(direction, &[bytes])), "malformed", "{at}: {octet}");
            }
            for protocol in [6, 17, 1] {
                let short = frame.clone().protocol(protocol).payload(&[0x13, 0x88, 0]).build();
                assert_eq!(dropped(&nat.burst(direction, &[short])), "malformed", "{protocol}");
            }
        }
    });
}

#[test]
fn options_and_padding_make_no_difference() {
    with_nat("", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        let options = [1, 1, 1, 0];
        let out = nat.out(&from(A, X).ipv4_options(&options).udp(5000, 53).payload(b"x"));
        let expected = super::bench::outside(P, X).ipv4_options(&options).udp(port, 53).payload(b"x");
        assert_eq!(out.outside, [expected.build()]);
        let back = nat.back(&from_outside(X, P).ipv4_options(&options).udp(53, port).payload(b"x"));
        assert_eq!(back.inside, [inside(X, A).ipv4_options(&options).udp(53, 5000).payload(b"x").build()]);
        let out = nat.out(&from(A, X).udp(5000, 53).payload(b"x").pad_to(60));
        assert_eq!(left(&out).source_port, port);
    });
}
