//! Inside hosts that speak to each other by their external addresses: RFC 4787 section 6, RFC 5382
//! REQ-8, RFC 5508 REQ-7.

use super::bench::{A, B, P, SYN_ACK, X, came, dropped, from, inside, left, packet, with_nat};
use nf_framework::Direction;
use nf_framework::headers::TcpFlags;

#[test]
fn n12_udp_turns_and_shows_external_addresses_alone() {
    with_nat("", |nat| {
        let of_b = nat.udp_port(B, 6000, (X, 53));
        let question = nat.out(&from(A, P).udp(5000, of_b).payload(b"question"));
        let of_a = came(&question).source_port;
        let expected = inside(P, B).udp(of_a, 6000).payload(b"question");
        assert_eq!(question.inside, [expected.build()]);
        let answer = nat.out(&from(B, P).udp(6000, of_a).payload(b"answer"));
        assert_eq!(answer.inside, [inside(P, A).udp(of_b, 5000).payload(b"answer").build()]);
        // It is the port that the world sees too.
        assert_eq!(nat.udp_port(A, 5000, (X, 53)), of_a);
        // Packets that know their way turn as well.
        for round in 0..3 {
            let question = nat.out(&from(A, P).udp(5000, of_b).payload(&[round]));
            assert_eq!(question.inside, [inside(P, B).udp(of_a, 6000).payload(&[round]).build()]);
        }
        assert_eq!(nat.counter("hairpin-packets"), 5);
        // A host speaks to itself.
        let own = nat.out(&from(A, P).udp(5000, of_a));
        assert_eq!(own.inside, [inside(P, A).udp(of_a, 5000).build()]);
        // Nobody has this one.
        let nobody = nat.out(&from(A, P).udp(5000, of_b ^ 1));
        assert_eq!((dropped(&nobody), nobody.outside.len(), nobody.inside.len()), ("nat-no-mapping", 0, 0));
    });
}

#[test]
fn n12_tcp_turns_and_shows_external_addresses_alone() {
    with_nat("", |nat| {
        let of_b = left(&nat.out(&from(B, X).tcp(6000, 80).flags(TcpFlags::SYN))).source_port;
        let syn = nat.out(&from(A, P).tcp(5000, of_b).flags(TcpFlags::SYN));
        let of_a = came(&syn).source_port;
        assert_eq!(syn.inside, [inside(P, B).tcp(of_a, 6000).flags(TcpFlags::SYN).build()]);
        let syn_ack = nat.out(&from(B, P).tcp(6000, of_a).flags(SYN_ACK));
        assert_eq!(syn_ack.inside, [inside(P, A).tcp(of_b, 5000).flags(SYN_ACK).build()]);
        let data = nat.out(&from(A, P).tcp(5000, of_b).payload(b"data"));
        assert_eq!(data.inside, [inside(P, B).tcp(of_a, 6000).payload(b"data").build()]);
        // Both are established.
        nat.pass(7439);
        let late = nat.out(&from(A, P).tcp(5000, of_b).payload(b"late"));
        assert_eq!(late.inside, [inside(P, B).tcp(of_a, 6000).payload(b"late").build()]);
    });
}

#[test]
fn n20_a_syn_to_an_external_port_of_nobody_is_refused_like_one_from_outside() {
    for (text, filters) in [("", false), ("filtering.tcp = \"address-and-port-dependent\"", true)] {
        with_nat(text, move |nat| {
            // Where a filter lets nobody in, another host's port is nobody's too.
            let of_b = nat.connect(B, 6000, (X, 80));
            let syn = from(A, P).tcp(5000, if filters { of_b } else { of_b ^ 1 }).flags(TcpFlags::SYN);
            // The second time it knows its way.
            for _ in 0..2 {
                let out = nat.out(&syn);
                assert_eq!((out.dropped.len(), out.inside.len(), out.held), (0, 0, 1), "{out:?}");
                assert_eq!(nat.pass(5).inside.len(), 0);
                let told = nat.pass(1);
                assert_eq!((dropped(&told), told.outside.len()), ("nat-unsolicited-syn", 0));
                let about = packet(&syn);
                let expected = inside(P, A).time_to_live(64).traffic_class(0xc0).icmp(3, 3, [0; 4]).payload(&about);
                assert_eq!(told.inside, [expected.build()]);
            }
        });
    }
}

#[test]
fn n12_a_filter_knows_those_who_turn_by_their_external_addresses() {
    with_nat("filtering.udp = \"address-and-port-dependent\"", |nat| {
        let of_b = nat.udp_port(B, 6000, (X, 53));
        let of_a = nat.udp_port(A, 5000, (X, 53));
        assert_eq!(dropped(&nat.out(&from(A, P).udp(5000, of_b))), "nat-filtered");
        // By this B lets it in; A has sent to B before.
        let question = nat.out(&from(B, P).udp(6000, of_a));
        assert_eq!(question.inside, [inside(P, A).udp(of_b, 5000).build()]);
        let answer = nat.out(&from(A, P).udp(5000, of_b));
        assert_eq!(answer.inside, [inside(P, B).udp(of_a, 6000).build()]);
    });
}

#[test]
fn n13_errors_about_packets_that_turned_turn() {
    for text in ["", "filtering.udp = \"address-and-port-dependent\""] {
        with_nat(text, move |nat| {
            let of_b = nat.udp_port(B, 6000, (X, 53));
            let of_a = nat.udp_port(A, 5000, (X, 53));
            nat.out(&from(B, P).udp(6000, of_a));
            let question = nat.out(&from(A, P).udp(5000, of_b).payload(b"question"));
            assert_eq!(question.inside, [inside(P, B).udp(of_a, 6000).payload(b"question").build()]);
            // B says that nobody listens, about what it got.
            let about = packet(&inside(P, B).udp(of_a, 6000).payload(b"question"));
            let error = nat.out(&from(B, P).icmp(3, 3, [0; 4]).payload(&about));
            // A hears it from the address that it sent to, about what it sent.
            let about = packet(&inside(A, P).udp(5000, of_b).payload(b"question"));
            assert_eq!(error.inside, [inside(P, A).icmp(3, 3, [0; 4]).payload(&about).build()]);
            assert_eq!(error.outside.len(), 0);
            // One about nothing that was sent does not turn.
            let about = packet(&inside(P, B).udp(of_a ^ 1, 6001));
            let error = nat.out(&from(B, P).icmp(3, 3, [0; 4]).payload(&about));
            assert_eq!(dropped(&error), "nat-no-mapping");
        });
    }
}

#[test]
fn a_packet_that_turns_without_hops_is_told_of() {
    with_nat("", |nat| {
        let of_b = nat.udp_port(B, 6000, (X, 53));
        nat.udp_port(A, 5000, (X, 53));
        for hops in [0, 1] {
            let out = nat.out(&from(A, P).time_to_live(hops).udp(5000, of_b).payload(b"question"));
            assert_eq!(out.dropped.get("ttl-expired"), Some(&1), "{out:?}");
            // From the address that was to be reached, about what was sent.
            let about = packet(&from(A, P).time_to_live(hops).udp(5000, of_b).payload(b"question"));
            let expected = inside(P, A).time_to_live(64).traffic_class(0xc0).icmp(11, 0, [0; 4]).payload(&about);
            assert_eq!(out.inside, [expected.build()]);
        }
        let out = nat.out(&from(A, P).time_to_live(2).udp(5000, of_b));
        assert_eq!(out.inside.len(), 1);
        assert_eq!(out.inside[0][22], 1);
    });
}

#[test]
fn n12_fragments_turn() {
    with_nat("", |nat| {
        let of_b = nat.udp_port(B, 6000, (X, 53));
        let of_a = nat.udp_port(A, 5000, (X, 53));
        for order in [[0, 1, 2], [2, 1, 0]] {
            let sent = from(A, P).identification(5).udp(5000, of_b).payload(&[7; 2500]).build_fragments(1000);
            let out = nat.burst(Direction::Outbound, &order.map(|place| sent[place].clone()));
            let mut came = out.inside;
            came.sort_by_key(|frame| u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff);
            let new = u16::from_be_bytes([came[0][18], came[0][19]]);
            let expected = inside(P, B).identification(new.into()).udp(of_a, 6000).payload(&[7; 2500]);
            assert_eq!(came, expected.build_fragments(1000));
        }
    });
}
