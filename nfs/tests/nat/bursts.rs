//! Many packets at once, of all kinds: each is translated as it would be alone.

use super::bench::{A, B, Bench, P, R, X, Y, from, from_outside, inside, left, outside, packet, with_nat};
use nf_framework::Direction;
use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;
use std::collections::BTreeMap;

/// Frames in an order that does not depend on which worker sent them.
fn sorted(mut frames: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    frames.sort();
    frames
}

#[test]
fn packets_of_one_burst_do_not_disturb_each_other() {
    const FILTERED: &str = "filtering = { udp = \"address-dependent\", tcp = \"address-and-port-dependent\" }";
    for text in ["", FILTERED] {
        with_nat(text, move |nat| {
            let udp: Vec<_> = (0..12).map(|port| nat.udp_port(A, 5000 + port, (X, 53))).collect();
            let tcp: Vec<_> = (0..12).map(|port| nat.connect(B, 6000 + port, (X, 80))).collect();
            let query = left(&nat.out(&from(A, X).icmp_echo_request(7, 1))).source_port;
            let (mut sent, mut leaves) = (Vec::new(), Vec::new());
            let (mut came, mut arrives) = (Vec::new(), Vec::new());
            for (number, (udp, tcp)) in (0..).zip(udp.iter().zip(&tcp)) {
                let body = [number; 9];
                let client = u16::from(number);
                sent.push(from(A, X).udp(5000 + client, 53).payload(&body));
                leaves.push(outside(P, X).udp(*udp, 53).payload(&body));
                sent.push(from(B, X).tcp(6000 + client, 80).payload(&body));
                leaves.push(outside(P, X).tcp(*tcp, 80).payload(&body));
                sent.push(from(A, X).ipv4_options(&[1; 4]).udp(5000 + client, 53).payload(&body));
                leaves.push(outside(P, X).ipv4_options(&[1; 4]).udp(*udp, 53).payload(&body));
                sent.push(from(A, X).icmp_echo_request(7, client));
                leaves.push(outside(P, X).icmp_echo_request(query, client));
                // What is dropped stands between.
                sent.push(from(A, X).tcp(9000, 80));
                came.push(from_outside(X, P).udp(53, *udp).payload(&body));
                arrives.push(inside(X, A).udp(53, 5000 + client).payload(&body));
                came.push(from_outside(X, P).tcp(80, *tcp).payload(&body));
                arrives.push(inside(X, B).tcp(80, 6000 + client).payload(&body));
                came.push(from_outside(X, P).icmp_echo_reply(query, client));
                arrives.push(inside(X, A).icmp_echo_reply(7, client));
                let about = |source, port| packet(&Frame::new().ipv4(source, X).udp(port, 53).payload(&body));
                came.push(from_outside(R, P).icmp(11, 0, [0; 4]).payload(&about(P, *udp)));
                arrives.push(inside(R, A).icmp(11, 0, [0; 4]).payload(&about(A, 5000 + client)));
                came.push(from_outside(Y, P).protocol(47));
            }
            let build = |frames: &[Frame]| frames.iter().map(Frame::build).collect::<Vec<_>>();
            let out = nat.burst(Direction::Outbound, &build(&sent));
            assert_eq!(sorted(out.outside), sorted(build(&leaves)));
            assert_eq!(out.dropped, BTreeMap::from([("nat-no-session".to_owned(), 12)]));
            let back = nat.burst(Direction::Inbound, &build(&came));
            assert_eq!(sorted(back.inside), sorted(build(&arrives)));
            assert_eq!(back.dropped, BTreeMap::from([("nat-protocol".to_owned(), 12)]));
        });
    }
}

#[test]
fn the_first_packets_of_a_session_make_one_session_and_mapping() {
    with_nat("", |nat: &mut Bench| {
        let frames: Vec<_> = (0..64).map(|number| from(A, X).udp(5000, 53).payload(&[number]).build()).collect();
        let out = nat.burst(Direction::Outbound, &frames);
        let port = nat.udp_port(A, 5000, (X, 53));
        let expected: Vec<_> = (0..64).map(|number| outside(P, X).udp(port, 53).payload(&[number]).build()).collect();
        // In order.
        assert_eq!(out.outside, expected);
        assert_eq!((nat.sessions(), nat.counter("sessions-created")), (1, 1));
        let syn = from(A, X).tcp(5000, 80).flags(TcpFlags::SYN).build();
        assert_eq!(nat.burst(Direction::Outbound, &vec![syn; 64]).outside.len(), 64);
        assert_eq!(nat.sessions(), 2);
    });
}

#[test]
fn a_burst_full_of_new_sessions_gives_each_its_port() {
    with_nat("", |nat| {
        let frames: Vec<_> = (0..64).map(|port| from(A, X).udp(5000 + port, 53).payload(b"x").build()).collect();
        let out = nat.burst(Direction::Outbound, &frames);
        let ports: Vec<_> = (0..64).map(|port| nat.udp_port(A, 5000 + port, (X, 53))).collect();
        let expected: Vec<_> = ports.iter().map(|port| outside(P, X).udp(*port, 53).payload(b"x").build()).collect();
        assert_eq!(out.outside, expected);
        assert_eq!(nat.sessions(), 64);
    });
}
