//! Packets in fragments: RFC 4787 section 11, RFC 6864.

use super::bench::{A, B, Bench, C, NEXT, P, X, Y, came, dropped, from_outside, left, mac, with_nat};
use nf_framework::Direction;
use nf_framework::headers::TcpFlags;
use nf_framework::testing::{Frame, Outcome, Trial};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

// As in the bench, of packets that may be fragmented.

fn from(host: Ipv4Addr, to: Ipv4Addr) -> Frame {
    Frame::new().ethernet(mac(host).0, Trial::INSIDE_MAC.0).ipv4(host, to)
}

fn back_from(host: Ipv4Addr, to: Ipv4Addr) -> Frame {
    Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0).ipv4(host, to)
}

fn outside(source: Ipv4Addr, destination: Ipv4Addr) -> Frame {
    Frame::new().ethernet(Trial::OUTSIDE_MAC.0, NEXT.0).ipv4(source, destination).time_to_live(63)
}

fn inside(source: Ipv4Addr, host: Ipv4Addr) -> Frame {
    Frame::new().ethernet(Trial::INSIDE_MAC.0, mac(host).0).ipv4(source, host).time_to_live(63)
}

fn identification(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[18], frame[19]])
}

/// Frames by where in their packet they begin.
fn in_order(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.sort_by_key(|frame| u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff);
    frames
}

type Kind = fn(Frame, u16, u16) -> Frame;
/// What makes a packet of a frame and two ports, the inside host's first; the same from outside.
const KINDS: [(Kind, Kind); 3] = [
    (|frame, port, other| frame.udp(port, other), |frame, port, other| frame.udp(other, port)),
    (|frame, port, other| frame.tcp(port, other).flags(TcpFlags::SYN), |frame, port, other| frame.tcp(other, port)),
    (|frame, port, _| frame.icmp_echo_request(port, 9), |frame, port, _| frame.icmp_echo_reply(port, 9)),
];

/// All orders of three fragments.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

#[test]
fn n18_fragments_pass_in_and_out_of_order() {
    with_nat("", |nat| {
        let payload: Vec<u8> = (0..2500_u16).map(|byte| byte.to_le_bytes()[0]).collect();
        let mut number = 0;
        for ((out, back), client) in KINDS.into_iter().zip(5000..) {
            for (order, together) in ORDERS.into_iter().flat_map(|order| [(order, true), (order, false)]) {
                number += 1;
                let send = |nat: &mut Bench, direction, fragments: Vec<Vec<u8>>| {
                    let fragments: Vec<_> = order.iter().map(|place| fragments[*place].clone()).collect();
                    if together {
                        return nat.burst(direction, &fragments);
                    }
                    let mut all = Outcome::default();
                    for fragment in fragments {
                        let one = nat.burst(direction, &[fragment]);
                        assert_eq!(one.dropped.len(), 0, "{one:?}");
                        all.inside.extend(one.inside);
                        all.outside.extend(one.outside);
                    }
                    all
                };
                let sent = out(from(A, X).identification(number), client, 53).payload(&payload);
                let left = in_order(send(nat, Direction::Outbound, sent.build_fragments(1000)).outside);
                assert_eq!(left.len(), 3, "{order:?}");
                let (new, port) = (identification(&left[0]), &left[0][34..36]);
                // An identifier stands behind type, code and checksum.
                let port = if client == 5002 { &left[0][38..40] } else { port };
                let port = u16::from_be_bytes([port[0], port[1]]);
                let expected = out(outside(P, X).identification(new.into()), port, 53).payload(&payload);
                assert_eq!(left, expected.build_fragments(1000), "{order:?}");

                let sent = back(back_from(X, P).identification(number), port, 53).payload(&payload);
                let came = in_order(send(nat, Direction::Inbound, sent.build_fragments(1000)).inside);
                let expected = back(inside(X, A).identification(number), client, 53).payload(&payload);
                assert_eq!(came, expected.build_fragments(1000), "{order:?}");
            }
        }
    });
}

#[test]
fn n18_fragments_of_nobodys_packets_do_not_pass() {
    with_nat("filtering.udp = \"address-dependent\"", |nat| {
        let port = left(&nat.out(&from(A, X).udp(5000, 53).dont_fragment())).source_port;
        for (who, to, reason) in [(X, port ^ 1, "nat-no-mapping"), (Y, port, "nat-filtered")] {
            let fragments = back_from(who, P).identification(5).udp(53, to).payload(&[1; 2000]).build_fragments(1000);
            let back = nat.burst(Direction::Inbound, &fragments);
            assert_eq!((back.dropped.get(reason), back.inside.len()), (Some(&3), 0), "{back:?}");
        }
        // Later ones alone are held, and go with their time.
        let fragments = back_from(X, P).identification(6).udp(53, port).payload(&[1; 2000]).build_fragments(1000);
        let back = nat.burst(Direction::Inbound, &fragments[1..]);
        assert_eq!((back.held, back.inside.len()), (2, 0));
        let gone = nat.pass(3);
        assert_eq!((dropped(&gone), gone.held), ("fragment-expired", -2));
    });
}

#[test]
fn n18_a_flood_of_first_fragments_hurts_nobody_else() {
    with_nat("", |nat| {
        let port = left(&nat.out(&from(A, X).udp(5000, 53).dont_fragment())).source_port;
        let whole = nat.connect(A, 5001, (X, 80));
        let mut number = 0_u32;
        for round in 0..157 {
            // From one outside host, from many, and from inside.
            let flood: Vec<_> = (0..64_u16)
                .map(|_| {
                    number += 1;
                    let [.., high, low] = number.to_be_bytes();
                    let many = Ipv4Addr::new(192, 0, high, low);
                    let (frame, to) = match round % 4 {
                        0 => (back_from(Y, P), 4000),
                        1 => (back_from(Y, P), port),
                        2 => (back_from(many, P), 4000),
                        _ => (from(C, X), 4000),
                    };
                    frame.identification(number & 0xffff).udp(4001, to).payload(&[1; 24]).fragment(0, true).build()
                })
                .collect();
            nat.burst(if round % 4 == 3 { Direction::Outbound } else { Direction::Inbound }, &flood);
            // Whole packets, and fragments, of others.
            assert_eq!(came(&nat.back(&from_outside(X, P).tcp(80, whole))).destination, A);
            let fragments = |frame: Frame, ports: (u16, u16)| {
                frame.identification(round).udp(ports.0, ports.1).payload(&[3; 1200]).build_fragments(800)
            };
            let back = nat.burst(Direction::Inbound, &fragments(back_from(X, P), (53, port)));
            assert_eq!(back.inside, fragments(inside(X, A), (53, 5000)), "round {round}");
            let out = nat.burst(Direction::Outbound, &fragments(from(A, X), (5000, 53)));
            assert_eq!(out.outside.len(), 2, "round {round}");
        }
        assert!(number >= 10_000);
        nat.pass(3);
        assert_eq!(came(&nat.back(&from_outside(X, P).tcp(80, whole))).destination, A);
    });
}

#[test]
fn n30_fragments_of_two_hosts_with_the_same_identification_never_mix() {
    with_nat("", |nat| {
        let fragments = |host: Ipv4Addr, byte: u8| {
            from(host, X).identification(7).udp(5000, 53).payload(&[byte; 2000]).build_fragments(1000)
        };
        let (of_a, of_b) = (fragments(A, 1), fragments(B, 2));
        // One of each in turn, as a receiver would mix them.
        let mixed = [&of_a[0], &of_b[0], &of_a[1], &of_b[1], &of_b[2], &of_a[2]].map(Clone::clone);
        let out = nat.burst(Direction::Outbound, &mixed).outside;
        assert_eq!(out.len(), 6);
        let of = |byte| -> BTreeSet<u16> {
            let is_of = |frame: &&Vec<u8>| frame.last() == Some(&byte);
            out.iter().filter(is_of).map(|frame| identification(frame)).collect()
        };
        let (of_a, of_b) = (of(1), of(2));
        assert_eq!((of_a.len(), of_b.len()), (1, 1), "the same in all fragments of a packet");
        assert_ne!(of_a, of_b);
    });
}

#[test]
fn n30_what_may_be_fragmented_gets_an_identification_of_its_own() {
    with_nat("", |nat| {
        let mut seen = BTreeSet::new();
        for round in 0..500 {
            for (host, protocol) in [(A, true), (B, true), (A, false), (B, false)] {
                let frame = from(host, X).identification(7);
                let frame = if protocol { frame.udp(5000, 53) } else { frame.icmp_echo_request(5000, 1) };
                let out = nat.out(&frame);
                left(&out);
                assert!(seen.insert(identification(&out.outside[0])), "round {round}");
            }
        }
        // An atomic one means nothing, and stays: RFC 6864 section 4.1.
        let out = nat.out(&from(A, X).identification(7).dont_fragment().udp(5000, 53));
        assert_eq!(identification(&out.outside[0]), 7);
        // From outside it is the sender's.
        let port = left(&out).source_port;
        let back = nat.back(&back_from(X, P).identification(7).udp(53, port));
        assert_eq!(identification(&back.inside[0]), 7);
    });
}
