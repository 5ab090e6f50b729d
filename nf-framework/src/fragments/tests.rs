//! Virtual reassembly on bytes and virtual time, and against a model that knows nothing of it.

use super::piece::{Piece, may_be_fragment};
use super::table::{Limits, MOST_PIECES, Outcome, Table, WAYS};
use super::{Fragments, FragmentsConfig};
use crate::annotation::Annotation;
use crate::batch::Batch;
use crate::counters::WorkerCounters;
use crate::direction::Direction;
use crate::steering::Ports;
use crate::testing::{Frame, lab};
use crate::time::Instant;
use crate::verdict::{DropReason, Verdict};
use dpdk_rs::HashKey;
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

const A4: [u8; 4] = [192, 0, 2, 1];
const B4: [u8; 4] = [198, 51, 100, 1];
const A6: [u16; 8] = [0x2001, 0xdb8, 0, 1, 0, 0, 0, 1];
const B6: [u16; 8] = [0x2001, 0xdb8, 0, 2, 0, 0, 0, 2];
const IN: Direction = Direction::Outbound;
const PORTS: Ports = Ports::Both(1000, 53);
const TIMEOUT: Duration = Duration::from_secs(2);

fn v4() -> Frame {
    Frame::new().ipv4(A4, B4)
}

fn v6() -> Frame {
    Frame::new().ipv6(A6, B6)
}

/// A fragment of this many octets at this offset, of a UDP packet if it is the first.
fn part(of: &Frame, offset: u16, octets: usize, more: bool) -> Vec<u8> {
    let header = if offset == 0 { 8 } else { 0 };
    of.clone().udp(1000, 53).payload(&vec![7; octets - header]).fragment(offset, more).build()
}

fn piece(frame: &[u8]) -> Piece {
    Piece::of_frame(frame, IN, None).expect("a fragment").expect("one that is not dropped at once")
}

fn at(milliseconds: u64) -> Instant {
    Instant::START + Duration::from_millis(milliseconds)
}

/// A table with packets that are numbers, and what became of them since the last look.
struct Bench {
    table: Table<usize>,
    out: Vec<(usize, Outcome)>,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Self::with(Limits { timeout: TIMEOUT, datagrams: 4096, held: 1024 })
    }

    fn with(limits: Limits) -> Self {
        Self { table: Table::new(limits, HashKey::from_seed(1)), out: Vec::new(), now: Instant::START }
    }

    fn take(&mut self, frame: &[u8], number: usize) {
        match Piece::of_frame(frame, IN, None).expect("a fragment") {
            Err(reason) => self.out.push((number, Outcome::Drop(reason))),
            Ok(piece) => {
                self.table.take(&piece, number, self.now, &mut |number, outcome| self.out.push((number, outcome)));
            }
        }
    }

    /// As many looks at buckets as there are.
    fn expire(&mut self) {
        self.table.expire(self.now, usize::MAX, &mut |number, outcome| self.out.push((number, outcome)));
    }

    fn out(&mut self) -> Vec<(usize, Outcome)> {
        std::mem::take(&mut self.out)
    }
}

fn on(number: usize) -> (usize, Outcome) {
    (number, Outcome::On(PORTS))
}

fn dropped(number: usize, reason: DropReason) -> (usize, Outcome) {
    (number, Outcome::Drop(reason))
}

#[test]
fn only_fragments_are_looked_at_and_none_is_missed() {
    let payload = |frame: Frame| frame.payload(&[0; 16]);
    // description, frame, may be one, is one
    let cases = [
        ("UDP", v4().udp(1, 2), false, false),
        ("do not fragment", v4().dont_fragment().udp(1, 2), false, false),
        ("a first fragment", payload(v4().udp(1, 2)).fragment(0, true), true, true),
        ("a second fragment", payload(v4().udp(1, 2)).fragment(8, true), true, true),
        ("a last fragment", payload(v4().udp(1, 2)).fragment(65480, false), true, true),
        ("behind a tag", payload(v4().vlan(1).udp(1, 2)).fragment(8, true), true, true),
        ("behind two tags", payload(v4().service_vlan(2).vlan(1).udp(1, 2)).fragment(8, true), true, true),
        ("behind three tags", payload(v4().vlan(3).vlan(2).vlan(1).udp(1, 2)).fragment(8, true), false, false),
        ("tagged and whole", v4().vlan(1).udp(1, 2), false, false),
        ("UDP in IPv6", v6().udp(1, 2), false, false),
        ("options in IPv6", v6().extension(60, &[]).udp(1, 2), true, false),
        ("f12: an atomic fragment", v6().udp(1, 2).fragment(0, false), true, false),
        ("a first fragment of IPv6", payload(v6().udp(1, 2)).fragment(0, true), true, true),
        ("a last fragment of IPv6", payload(v6().vlan(1).udp(1, 2)).fragment(8, false), true, true),
        ("a fragment behind options", payload(v6().extension(0, &[]).udp(1, 2)).fragment(8, false), true, true),
        ("ARP", Frame::new().arp_request(A4, B4), false, false),
        ("nothing", Frame::new(), false, false),
    ];
    for (description, frame, may_be, is) in cases {
        let bytes = frame.build();
        assert_eq!(may_be_fragment(&bytes), may_be, "{description}");
        assert_eq!(matches!(Piece::of_frame(&bytes, IN, None), Some(Ok(_))), is, "{description}");
        for cut in 0..bytes.len() {
            // Its lengths cannot be believed.
            let cut = &bytes[..cut];
            assert!(!is || Piece::of_frame(cut, IN, None).is_none(), "{description}, cut to {}", cut.len());
        }
    }
}

#[test]
fn f11_a_fragment_that_cannot_be_right_is_dropped_for_what_it_is() {
    let cut = |mut frame: Vec<u8>, total: u8| {
        frame[14 + 3] = total;
        frame
    };
    let octets = |of: Frame, offset, count: usize, more| of.payload(&vec![0; count]).fragment(offset, more).build();
    let raw4 = |protocol| v4().protocol(protocol);
    let raw6 = |protocol| v6().protocol(protocol);
    let headers = Some(DropReason::FRAGMENT_HEADERS);
    let length = Some(DropReason::FRAGMENT_LENGTH);
    // description, frame, reason
    let cases = [
        ("TCP, whole", octets(v4().tcp(1, 2), 0, 4, true), None),
        ("TCP with options, whole", octets(v4().tcp(1, 2).tcp_options(&[1; 12]), 0, 8, true), None),
        ("16 octets of TCP (RFC 1858: the flags are in, the rest is not)", octets(raw4(6), 0, 16, true), headers),
        ("8 octets of TCP", octets(raw4(6), 0, 8, true), headers),
        ("TCP options cut off", cut(octets(v4().tcp(1, 2).tcp_options(&[1; 12]), 0, 8, true), 44), headers),
        ("TCP at 8 octets (RFC 3128)", octets(raw4(6), 8, 16, true), headers),
        ("TCP at 16 octets", octets(raw4(6), 16, 16, true), None),
        ("UDP at 8 octets", octets(raw4(17), 8, 16, true), None),
        ("8 octets of UDP", octets(raw4(17), 0, 8, true), None),
        ("8 octets of ICMP", octets(raw4(1), 0, 8, true), None),
        ("8 octets of what nobody knows", octets(raw4(253), 0, 8, true), None),
        ("TCP in IPv6, 16 octets (RFC 7112)", octets(raw6(6), 0, 16, true), headers),
        ("TCP at 8 octets in IPv6", octets(raw6(6), 8, 16, true), headers),
        ("nothing, and more to come", octets(raw4(17), 8, 0, true), length),
        ("nothing at the end", octets(raw4(17), 8, 0, false), length),
        ("nothing in IPv6", octets(raw6(17), 8, 0, false), length),
        ("12 octets, and more to come", octets(raw4(17), 8, 12, true), length),
        ("12 octets at the end", octets(raw4(17), 8, 12, false), None),
        ("12 octets in IPv6, and more to come", octets(raw6(17), 8, 12, true), length),
        ("up to the longest packet", octets(raw4(17), 65504, 11, false), None),
        ("beyond the longest packet (ping of death)", octets(raw4(17), 65504, 12, false), length),
        ("beyond, by its options", octets(v4().ipv4_options(&[1; 4]).protocol(17), 65504, 8, false), length),
        ("up to the longest packet of IPv6", octets(raw6(17), 65520, 15, false), None),
        ("beyond the longest packet of IPv6", octets(raw6(17), 65520, 16, false), length),
        ("beyond, by its extension headers", octets(v6().extension(0, &[]).protocol(17), 65520, 8, false), length),
    ];
    for (description, frame, reason) in cases {
        let found = Piece::of_frame(&frame, IN, None).expect(description);
        assert_eq!(found.err(), reason, "{description}");
    }
    // RFC 7112: what the chain in a first fragment of IPv6 begins with, behind its fragment header.
    for (description, protocol, start, reason) in [
        ("options, and nothing behind", 60, [59, 0, 1, 4, 0, 0, 0, 0], None),
        ("options, and TCP left out", 60, [6, 0, 1, 4, 0, 0, 0, 0], headers),
        ("options cut off", 60, [6, 1, 1, 12, 0, 0, 0, 0], headers),
        ("hop-by-hop options, where they may not stand", 0, [59, 0, 1, 4, 0, 0, 0, 0], headers),
        ("a fragment of a fragment", 44, [17, 0, 0, 1, 0, 0, 0, 9], headers),
    ] {
        let frame = raw6(protocol).payload(&start).fragment(0, true).build();
        assert_eq!(Piece::of_frame(&frame, IN, None).expect(description).err(), reason, "{description}");
    }
}

#[test]
fn the_first_fragment_tells_ports_or_identifier_whatever_stands_before_them() {
    for (description, frame, expected) in [
        ("UDP", v4().udp(1000, 53), PORTS),
        ("TCP", v6().tcp(1000, 53).tcp_options(&[1; 4]), PORTS),
        ("UDP behind options", v4().ipv4_options(&[1; 40]).udp(1000, 53), PORTS),
        ("UDP behind extension headers", v6().extension(0, &[]).extension(60, &[0; 14]).udp(1000, 53), PORTS),
        ("an echo request", v4().icmp_echo_request(7, 8), Ports::Identifier(7)),
        ("an echo reply of IPv6", v6().icmpv6_echo_reply(7, 8), Ports::Identifier(7)),
        ("ICMP without identifier", v4().icmp(3, 0, [0; 4]), Ports::None),
        ("ICMPv6 in IPv4", v4().protocol(58), Ports::None),
        ("another protocol", v4().protocol(47), Ports::None),
    ] {
        let first = frame.payload(&[0; 16]).fragment(0, true).build();
        assert_eq!(piece(&first).ports, Some(expected), "{description}");
    }
    assert_eq!(piece(&part(&v4(), 8, 8, true)).ports, None);
    // Destination options in the fragmentable part, as RFC 8200 section 4.5 has them.
    let options = [&[17, 0, 1, 4, 0, 0, 0, 0][..], &[3, 232, 0, 53, 0, 16, 0, 0], &[0; 8]].concat();
    assert_eq!(piece(&v6().protocol(60).payload(&options).fragment(0, true).build()).ports, Some(PORTS));
}

#[test]
fn n18_later_fragments_go_on_behind_the_first_in_whatever_order_they_come() {
    for of in [v4(), v6(), v4().vlan(5), v6().extension(0, &[])] {
        let parts = [part(&of, 0, 48, true), part(&of, 48, 48, true), part(&of, 96, 20, false)];
        for (order, expected) in [
            ([0, 1, 2], vec![on(0), on(1), on(2)]),
            ([0, 2, 1], vec![on(0), on(2), on(1)]),
            ([1, 0, 2], vec![on(0), on(1), on(2)]),
            ([1, 2, 0], vec![on(0), on(1), on(2)]),
            ([2, 0, 1], vec![on(0), on(2), on(1)]),
            ([2, 1, 0], vec![on(0), on(2), on(1)]),
        ] {
            let mut bench = Bench::new();
            // Twice: what is complete is forgotten, and its identification can be used again.
            for round in 0..2 {
                for (step, number) in order.into_iter().enumerate() {
                    bench.take(&parts[number], number);
                    let first_has_come = order[..=step].contains(&0);
                    assert_eq!(bench.table.held(), if first_has_come { 0 } else { step + 1 }, "{order:?} {round}");
                }
                assert_eq!(bench.out(), expected, "{order:?}");
            }
            bench.now = at(10_000);
            bench.expire();
            assert_eq!(bench.out(), [], "{order:?}");
        }
    }
}

#[test]
fn sixty_four_kilobytes_in_reverse_order_are_held_and_let_go() {
    for size in [1480, 1232, 1024] {
        let frames = v4().udp(1000, 53).payload(&vec![3; 65000]).build_fragments(size);
        let mut bench = Bench::new();
        for (number, frame) in frames.iter().enumerate().rev() {
            bench.take(frame, number);
        }
        let expected: Vec<_> = std::iter::once(0).chain((1..frames.len()).rev()).map(on).collect();
        assert_eq!(bench.out(), expected, "{size}");
        assert_eq!(bench.table.held(), 0);
    }
}

#[test]
fn n30_fragments_that_have_not_everything_in_common_are_never_joined() {
    let first = part(&v4().identification(1), 0, 48, true);
    let other_protocol = v4().identification(1).protocol(6).payload(&[0; 16]).fragment(48, false).build();
    for (description, later, side) in [
        ("another source", part(&Frame::new().ipv4([192, 0, 2, 9], B4).identification(1), 48, 8, false), IN),
        ("another destination", part(&Frame::new().ipv4(A4, [192, 0, 2, 9]).identification(1), 48, 8, false), IN),
        ("another identification", part(&v4().identification(2), 48, 8, false), IN),
        ("another protocol", other_protocol, IN),
        ("another VLAN", part(&v4().vlan(1).identification(1), 48, 8, false), IN),
        ("the other side", part(&v4().identification(1), 48, 8, false), Direction::Inbound),
        ("the other version", part(&v6().identification(1), 48, 8, false), IN),
    ] {
        let mut bench = Bench::new();
        bench.take(&first, 0);
        let piece = Piece::of_frame(&later, side, None).unwrap().unwrap();
        bench.table.take(&piece, 1, bench.now, &mut |_, _| panic!("{description}"));
        assert_eq!((bench.out(), bench.table.held()), (vec![on(0)], 1), "{description}");
    }
    // A priority is not a VLAN, and in IPv6 the protocol tells nothing (RFC 8200 section 4.5).
    for (first, later) in [
        (part(&v4().vlan(5), 0, 48, true), part(&v4().vlan(0xe005), 48, 8, false)),
        (part(&v6(), 0, 48, true), v6().protocol(60).payload(&[0; 8]).fragment(48, false).build()),
    ] {
        let mut bench = Bench::new();
        bench.take(&first, 0);
        bench.take(&later, 1);
        assert_eq!(bench.out(), [on(0), on(1)]);
    }
}

#[test]
fn f12_an_atomic_fragment_is_joined_with_nothing() {
    let atomic = v6().identification(1).udp(1000, 53).payload(&[0; 40]).fragment(0, false).build();
    assert_eq!(Piece::of_frame(&atomic, IN, None), None);
}

#[test]
fn f11_overlapping_fragments_end_their_datagram_and_exact_duplicates_do_not() {
    let overlap = DropReason::FRAGMENT_OVERLAP;
    // description, fragments (offset, octets, more) in order of arrival, what becomes of them
    type Case = (&'static str, &'static [(u16, usize, bool)], Vec<(usize, Outcome)>);
    let cases: [Case; 16] = [
        (
            "a duplicate goes alone",
            &[(0, 48, true), (48, 8, true), (48, 8, true), (56, 8, false)],
            vec![on(0), on(1), dropped(2, DropReason::FRAGMENT_DUPLICATE), on(3)],
        ),
        (
            "a duplicate of the first",
            &[(0, 48, true), (0, 48, true), (48, 8, false)],
            vec![on(0), dropped(1, DropReason::FRAGMENT_DUPLICATE), on(2)],
        ),
        (
            "a duplicate of one that is held",
            &[(48, 8, false), (48, 8, false), (0, 48, true)],
            vec![dropped(1, DropReason::FRAGMENT_DUPLICATE), on(2), on(0)],
        ),
        (
            "one that overlaps the first",
            &[(0, 48, true), (40, 16, true), (56, 8, true)],
            vec![on(0), dropped(1, overlap), dropped(2, overlap)],
        ),
        (
            "one within another",
            &[(0, 48, true), (8, 8, true), (48, 8, false)],
            vec![on(0), dropped(1, overlap), dropped(2, overlap)],
        ),
        (
            "one around another",
            &[(48, 8, true), (48, 16, true), (0, 48, true)],
            vec![dropped(0, overlap), dropped(1, overlap), dropped(2, overlap)],
        ),
        (
            "one that is held and the first",
            &[(40, 16, true), (80, 8, true), (0, 48, true)],
            vec![dropped(0, overlap), dropped(1, overlap), dropped(2, overlap)],
        ),
        ("another first fragment", &[(0, 48, true), (0, 56, true)], vec![on(0), dropped(1, overlap)]),
        (
            "the same part, now the last",
            &[(0, 48, true), (48, 8, true), (48, 8, false)],
            vec![on(0), on(1), dropped(2, overlap)],
        ),
        (
            "the same part, no longer the last",
            &[(48, 8, false), (48, 8, true)],
            vec![dropped(0, overlap), dropped(1, overlap)],
        ),
        ("two ends", &[(48, 8, false), (80, 8, false)], vec![dropped(0, overlap), dropped(1, overlap)]),
        ("beyond the end", &[(48, 8, false), (56, 8, true)], vec![dropped(0, overlap), dropped(1, overlap)]),
        (
            "an end before what has come",
            &[(80, 8, true), (48, 8, false)],
            vec![dropped(0, overlap), dropped(1, overlap)],
        ),
        (
            "touching is not overlapping",
            &[(96, 4, false), (48, 24, true), (72, 24, true), (0, 48, true)],
            vec![on(3), on(0), on(1), on(2)],
        ),
        ("the first may be the last to come", &[(48, 1, false), (0, 48, true)], vec![on(1), on(0)]),
        ("holes are not overlaps", &[(0, 48, true), (800, 8, true), (400, 8, true)], vec![on(0), on(1), on(2)]),
    ];
    for (description, fragments, expected) in cases {
        for of in [v4(), v6()] {
            let mut bench = Bench::new();
            for (number, &(offset, octets, more)) in fragments.iter().enumerate() {
                bench.take(&part(&of, offset, octets, more), number);
            }
            let mut out = bench.out();
            if expected.iter().all(|(_, outcome)| matches!(outcome, Outcome::Drop(_))) {
                // Which of those that end together is told first says nothing.
                out.sort_by_key(|(number, _)| *number);
            }
            assert_eq!(out, expected, "{description}");
            assert_eq!(bench.table.held(), 0, "{description}");
        }
    }
}

#[test]
fn what_an_overlap_has_ended_stays_so_until_it_is_forgotten() {
    let mut bench = Bench::new();
    let of = v6();
    bench.take(&part(&of, 48, 16, true), 0);
    bench.take(&part(&of, 56, 16, true), 1);
    bench.now = at(1999);
    bench.expire();
    bench.take(&part(&of, 0, 48, true), 2);
    let overlap = |number| dropped(number, DropReason::FRAGMENT_OVERLAP);
    assert_eq!(bench.out(), [overlap(0), overlap(1), overlap(2)]);
    bench.now = at(2000);
    bench.take(&part(&of, 0, 48, true), 3);
    assert_eq!(bench.out(), [on(3)], "another packet, by now");
}

#[test]
fn f11_what_waits_in_vain_is_dropped_two_seconds_after_the_first_of_its_packet_came() {
    for by_tick in [true, false] {
        let mut bench = Bench::new();
        bench.take(&part(&v4(), 48, 8, true), 0);
        bench.now = at(1500);
        bench.take(&part(&v4(), 56, 8, true), 1);
        bench.now = at(1999);
        bench.expire();
        assert_eq!((bench.out(), bench.table.held()), (vec![], 2));
        bench.now = at(2000);
        if by_tick {
            bench.expire();
        } else {
            // The tick has not come to it yet: it is found, and found to be too old.
            bench.take(&part(&v4(), 0, 48, true), 2);
        }
        let expired = [dropped(0, DropReason::FRAGMENT_EXPIRED), dropped(1, DropReason::FRAGMENT_EXPIRED)];
        assert_eq!(bench.out()[..2], expired);
        assert_eq!(bench.table.held(), 0);
    }
    // Ports that nobody asked for are forgotten too.
    let mut bench = Bench::new();
    bench.take(&part(&v4(), 0, 48, true), 0);
    bench.now = at(2000);
    bench.take(&part(&v4(), 48, 8, false), 1);
    assert_eq!((bench.out(), bench.table.held()), (vec![on(0)], 1));
}

#[test]
fn one_tick_looks_at_a_part_and_a_few_ticks_at_all() {
    let mut bench = Bench::new();
    for source in 0..200 {
        bench.take(&part(&Frame::new().ipv4([10, 0, 0, source], B4), 48, 8, true), source.into());
    }
    bench.now = at(5000);
    let mut most = 0;
    for _ in 0..4096 / WAYS / 2 {
        bench.table.expire(bench.now, 2, &mut |number, outcome| bench.out.push((number, outcome)));
        most = most.max(bench.out().len());
    }
    assert_eq!(bench.table.held(), 0);
    assert!(most <= 2 * WAYS, "{most} at once");
}

#[test]
fn a_datagram_of_more_fragments_than_are_kept_track_of_ends() {
    let mut bench = Bench::new();
    let offset = |number: usize| u16::try_from(8 * number).unwrap();
    bench.take(&part(&v4(), 0, 8, true), 0);
    for number in 1..MOST_PIECES + 2 {
        bench.take(&part(&v4(), offset(2 * number), 8, true), number);
    }
    let out = bench.out();
    assert_eq!(out[..MOST_PIECES], (0..MOST_PIECES).map(on).collect::<Vec<_>>());
    assert_eq!(
        out[MOST_PIECES..],
        [dropped(MOST_PIECES, DropReason::FRAGMENT_MANY), dropped(MOST_PIECES + 1, DropReason::FRAGMENT_MANY)]
    );
}

#[test]
fn n18_a_flood_from_one_source_leaves_the_packets_of_others_alone() {
    for (what, offset) in [("first fragments", 0), ("later fragments", 48)] {
        let mut bench = Bench::new();
        // Hosts whose packets are half here, one in each of the two ways.
        let host = |host: u8| Frame::new().ipv4([10, 0, host, 1], B4).identification(7);
        for number in 0..100 {
            let offset = if number % 2 == 0 { 0 } else { 48 };
            bench.take(&part(&host(number), offset, 48, true), number.into());
        }
        bench.out();
        for identification in 0..10_000 {
            let of = Frame::new().ipv4([172, 16, 0, 1], B4).identification(identification);
            bench.take(&part(&of, offset, 48, true), 1000);
        }
        bench.out();
        for number in 0..100 {
            let offset = if number % 2 == 0 { 48 } else { 0 };
            bench.take(&part(&host(number), offset, 48, true), number.into());
        }
        let out = bench.out();
        let went = out.iter().filter(|(_, outcome)| matches!(outcome, Outcome::On(_))).count();
        // Two of each pair went on but where the flood's bucket is theirs: 1 in 64.
        assert!(went >= 145 - 10, "{what}: {went} of 150");
        assert!(bench.table.held() <= 128 + 100, "{what}: the flood holds its share at most");
    }
}

#[test]
fn n18_a_flood_from_everywhere_does_not_push_out_what_has_its_first_fragment() {
    let limits = Limits { timeout: TIMEOUT, datagrams: 64, held: 64 };
    let mut bench = Bench::with(limits);
    bench.take(&part(&v4(), 0, 48, true), 0);
    bench.out();
    for host in 0..=u16::MAX {
        let [high, low] = host.to_be_bytes();
        bench.take(&part(&Frame::new().ipv4([10, 9, high, low], B4), 48, 8, true), 1);
    }
    assert!(bench.out().iter().all(|out| *out == dropped(1, DropReason::FRAGMENTS_FULL)));
    bench.take(&part(&v4(), 48, 8, false), 2);
    assert_eq!(bench.out(), [on(2)]);
}

#[test]
fn when_there_is_no_room_the_oldest_without_a_first_fragment_goes_and_then_the_oldest() {
    let limits = Limits { timeout: TIMEOUT, datagrams: WAYS, held: 64 };
    let of = |number: usize| Frame::new().ipv4(A4, B4).identification(u32::try_from(number).unwrap());
    let mut bench = Bench::with(limits);
    // As many as there are places: the first two have their first fragment.
    for number in 0..WAYS {
        bench.now = at(number as u64);
        bench.take(&part(&of(number), if number < 2 { 0 } else { 48 }, 48, true), number);
    }
    assert_eq!(bench.out(), [on(0), on(1)]);
    bench.take(&part(&of(100), 48, 8, true), 100);
    assert_eq!(bench.out(), [dropped(2, DropReason::FRAGMENTS_FULL)], "the oldest that waits");
    for number in 101..101 + WAYS - 2 {
        bench.now = at(number as u64);
        bench.take(&part(&of(number), 0, 48, true), number);
    }
    let out = bench.out();
    assert_eq!(
        out.iter().filter(|(_, outcome)| *outcome == Outcome::Drop(DropReason::FRAGMENTS_FULL)).count(),
        WAYS - 2
    );
    assert_eq!(bench.table.held(), 0, "all that waited made room");
    bench.take(&part(&of(500), 48, 8, true), 500);
    assert_eq!(bench.out(), [dropped(500, DropReason::FRAGMENTS_FULL)], "it is worth less than each that is there");
    bench.now = at(1000);
    bench.take(&part(&of(501), 0, 48, true), 501);
    bench.take(&part(&of(1), 48, 8, true), 1);
    assert_eq!(bench.out(), [on(501), on(1)], "the oldest made room");
    bench.take(&part(&of(0), 48, 8, true), 0);
    assert_eq!(bench.out(), [dropped(0, DropReason::FRAGMENTS_FULL)], "it was the oldest");
}

#[test]
fn no_datagram_holds_more_than_there_is_room_for() {
    let limits = Limits { timeout: TIMEOUT, datagrams: 64, held: 10 };
    let mut bench = Bench::with(limits);
    for number in 1..=12 {
        bench.take(&part(&v4(), 8 * u16::try_from(number).unwrap(), 8, true), number);
    }
    assert_eq!(bench.out(), [dropped(11, DropReason::FRAGMENTS_FULL), dropped(12, DropReason::FRAGMENTS_FULL)]);
    bench.take(&part(&v6(), 48, 8, true), 13);
    assert_eq!(bench.table.held(), 1, "another datagram's fragment took their place: they are the oldest");
    assert_eq!(bench.out(), (1..=10).map(|number| dropped(number, DropReason::FRAGMENTS_FULL)).collect::<Vec<_>>());
    let nothing = Limits { timeout: TIMEOUT, datagrams: 64, held: 0 };
    let mut bench = Bench::with(nothing);
    bench.take(&part(&v4(), 48, 8, true), 1);
    bench.take(&part(&v4(), 0, 48, true), 2);
    bench.take(&part(&v4(), 48, 8, true), 3);
    assert_eq!(bench.out(), [dropped(1, DropReason::FRAGMENTS_FULL), on(2), on(3)]);
}

#[test]
fn nothing_is_left_when_it_is_cleared() {
    let mut bench = Bench::new();
    for number in 1..=20 {
        bench.take(&part(&v4().identification(number % 3), 8 * u16::try_from(number).unwrap(), 8, true), 1);
    }
    let mut given_back = 0;
    bench.table.clear(|_| given_back += 1);
    assert_eq!((given_back, bench.table.held()), (20, 0));
    bench.take(&part(&v4(), 0, 8, true), 0);
    assert_eq!(bench.out(), [on(0)]);
}

#[test]
fn a_configuration_is_within_bounds_or_says_which_key_is_not() {
    let usual = FragmentsConfig::default();
    for (config, fault) in [
        (usual, None),
        (FragmentsConfig { timeout: 60, datagrams: 64, held: 64 }, None),
        (FragmentsConfig { timeout: 0, ..usual }, Some(("timeout", "0 is not from 1 to 60"))),
        (FragmentsConfig { timeout: 61, ..usual }, Some(("timeout", "61 is not from 1 to 60"))),
        (FragmentsConfig { datagrams: 63, ..usual }, Some(("datagrams", "63 is not from 64 to 1048576"))),
        (FragmentsConfig { held: 65537, ..usual }, Some(("held", "65537 is not from 64 to 65536"))),
    ] {
        assert_eq!(config.fault().as_ref().map(|(key, why)| (*key, why.as_str())), fault);
    }
}

#[test]
fn a_packet_that_has_just_arrived_knows_nothing_of_another_life() {
    lab(|lab| {
        let counters = WorkerCounters::new(2, 0);
        let mut fragments = Fragments::new(&FragmentsConfig::default(), HashKey::from_seed(1));
        let (mut batch, whole) = (Batch::with_limit(64), v4().udp(1, 2).build());
        let stale =
            Annotation { ports: Some(Ports::Both(3, 4)), next_hop: Some(crate::NextHop(5)), ..Annotation::default() };
        let later = part(&v4(), 48, 8, false);
        for frame in [&whole, &later, &whole] {
            let mut packet = lab.pool.alloc().unwrap();
            assert!(packet.set_contents(frame));
            stale.write(&mut packet);
            batch.push(packet).unwrap();
        }
        fragments.look_at(&mut batch, IN, Instant::START, &counters);
        assert_eq!((fragments.held(), batch.undecided().count()), (1, 2));
        batch.each(|packet| {
            assert_eq!((packet.data(), Annotation::of(packet)), (&*whole, Annotation::default()));
            Verdict::Next
        });
        batch.empty();
        fragments.stop(&counters);
        assert_eq!(counters.drops[DropReason::STOPPED.index()].load(Ordering::Relaxed), 1);
        assert_eq!((fragments.held(), counters.fragments.load(Ordering::Relaxed)), (0, 0));
    });
}

/// What the model knows of one datagram: every octet that has come.
#[derive(Default)]
struct Model {
    since: u64,
    octets: Vec<bool>,
    parts: Vec<(u16, usize, bool)>,
    ended: bool,
    first: bool,
    waiting: Vec<usize>,
}

#[derive(Clone, Debug)]
struct Arrival {
    datagram: u8,
    offset: u16,
    octets: usize,
    more: bool,
    wait: u64,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (0..3_u8, 0..12_u16, 1..5_usize, prop::bool::weighted(0.8), prop::sample::select(vec![0, 0, 0, 300]));
    let arrival = arrival.prop_map(|(datagram, offset, units, more, wait)| {
        // Without an offset and with nothing to come it is a whole packet.
        let more = more || offset == 0;
        let octets = if more { 8 * units } else { 8 * units - 3 };
        Arrival { datagram, offset: 8 * offset, octets, more, wait }
    });
    prop::collection::vec(arrival, 1..60)
}

proptest! {
    #[test]
    fn a_naive_model_that_marks_octets_comes_to_the_same(arrivals in arrivals(), six in any::<bool>()) {
        let mut bench = Bench::new();
        let mut model: HashMap<u8, Model> = HashMap::new();
        let mut now = 0;
        for (number, Arrival { datagram, offset, octets, more, wait }) in arrivals.into_iter().enumerate() {
            now += wait;
            bench.now = at(now);
            let of = if six { v6() } else { v4() }.identification(datagram.into());
            bench.take(&part(&of, offset, octets, more), number);

            let mut expected = Vec::new();
            if let Some(old) = model.get(&datagram).filter(|old| now - old.since >= 2000) {
                expected.extend(old.waiting.iter().map(|&waiting| dropped(waiting, DropReason::FRAGMENT_EXPIRED)));
                model.remove(&datagram);
            }
            let known = model.entry(datagram).or_insert_with(|| Model { since: now, ..Model::default() });
            let range = usize::from(offset)..usize::from(offset) + octets;
            let end = known.parts.iter().find(|part| !part.2).map(|part| usize::from(part.0) + part.1);
            let furthest = known.parts.iter().map(|part| usize::from(part.0) + part.1).max().unwrap_or(0);
            let taken = range.clone().any(|octet| known.octets.get(octet) == Some(&true));
            if known.ended {
                expected.push(dropped(number, DropReason::FRAGMENT_OVERLAP));
            } else if known.parts.contains(&(offset, octets, more)) {
                expected.push(dropped(number, DropReason::FRAGMENT_DUPLICATE));
            } else if taken
                || end.is_some_and(|end| range.end > end || (!more && range.end != end))
                || (!more && furthest > range.end)
            {
                known.ended = true;
                expected.extend(known.waiting.drain(..).map(|waiting| dropped(waiting, DropReason::FRAGMENT_OVERLAP)));
                expected.push(dropped(number, DropReason::FRAGMENT_OVERLAP));
            } else {
                known.parts.push((offset, octets, more));
                known.octets.resize(known.octets.len().max(range.end), false);
                known.octets[range].fill(true);
                known.first |= offset == 0;
                if known.first {
                    expected.push(on(number));
                    expected.extend(known.waiting.drain(..).map(on));
                } else {
                    known.waiting.push(number);
                }
                let last = known.parts.iter().any(|part| !part.2);
                if last && known.first && known.octets.iter().all(|&octet| octet) {
                    model.remove(&datagram);
                }
            }
            prop_assert_eq!(bench.out(), expected);
            prop_assert_eq!(bench.table.held(), model.values().map(|known| known.waiting.len()).sum::<usize>());
        }
    }

    #[test]
    fn no_bytes_make_it_panic_and_none_that_it_takes_would_be_missed(
        mut bytes in prop::collection::vec(any::<u8>(), 0..120),
        ether_type in prop::sample::select(vec![[0x08, 0x00], [0x86, 0xdd], [0x81, 0x00]]),
        version in prop::sample::select(vec![0x45, 0x46, 0x60]),
    ) {
        if let Some(place) = bytes.get_mut(12..14) {
            place.copy_from_slice(&ether_type);
        }
        if let Some(place) = bytes.get_mut(14) {
            *place = version;
        }
        if Piece::of_frame(&bytes, IN, None).is_some() {
            prop_assert!(may_be_fragment(&bytes));
        }
    }
}

#[test]
fn how_full_it_is_is_known() {
    let mut bench = Bench::with(Limits { timeout: TIMEOUT, datagrams: 100, held: 70 });
    assert_eq!(bench.table.occupancy(), [(0, 128), (0, 70)], "whole buckets");
    bench.take(&part(&v4(), 0, 16, true), 1);
    bench.take(&part(&v6(), 16, 8, true), 2);
    bench.take(&part(&v6(), 24, 8, true), 3);
    assert_eq!(bench.table.occupancy(), [(2, 128), (2, 70)]);
    bench.take(&part(&v4(), 16, 8, false), 4);
    assert_eq!(bench.table.occupancy(), [(1, 128), (2, 70)], "one has come whole");
    bench.now = at(3000);
    bench.expire();
    assert_eq!(bench.table.occupancy(), [(0, 128), (0, 70)]);
}
