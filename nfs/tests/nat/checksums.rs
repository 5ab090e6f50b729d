//! Checksums that are where one's complement has two zeros: RFC 1624 section 3, RFC 768.

use super::bench::{A, P, X, from, from_outside, inside, left, outside, with_nat};
use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;

const UDP: usize = 40;
const TCP: usize = 50;
const HEADER: usize = 24;

fn word(frame: &[u8], at: usize) -> [u8; 2] {
    [frame[at], frame[at + 1]]
}

/// The payload by which a frame's transport sums up to nothing: what the checksum is with zeros there.
fn balance(frame: &Frame, at: usize) -> [u8; 2] {
    let payload = word(&frame.clone().payload(&[0, 0]).build(), at);
    let zero = word(&frame.clone().payload(&payload).build(), at);
    assert_eq!(zero, if at == UDP { [0xff, 0xff] } else { [0, 0] });
    payload
}

#[test]
fn n32_a_udp_checksum_of_0_stays_0() {
    with_nat("", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        for payload in [&b""[..], b"odd", b"even"] {
            let bare =
                |frame: Frame, ports: (u16, u16)| frame.udp(ports.0, ports.1).without_udp_checksum().payload(payload);
            let out = nat.out(&bare(from(A, X), (5000, 53)));
            assert_eq!(out.outside, [bare(outside(P, X), (port, 53)).build()]);
            let back = nat.back(&bare(from_outside(X, P), (53, port)));
            assert_eq!(back.inside, [bare(inside(X, A), (53, 5000)).build()]);
        }
        // The first of a session goes another way.
        let out = nat.out(&from(A, X).udp(5001, 53).without_udp_checksum());
        assert_eq!(word(&out.outside[0], UDP), [0, 0]);
    });
}

#[test]
fn n32_a_udp_checksum_that_comes_to_0_is_written_as_all_ones() {
    with_nat("", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        let (sent, leaves) = (from(A, X).udp(5000, 53), outside(P, X).udp(port, 53));
        let (came, arrives) = (from_outside(X, P).udp(53, port), inside(X, A).udp(53, 5000));
        // All ones before, and after.
        for payload in [balance(&sent, UDP), balance(&leaves, UDP)] {
            let out = nat.out(&sent.clone().payload(&payload));
            assert_eq!(out.outside, [leaves.clone().payload(&payload).build()]);
        }
        for payload in [balance(&came, UDP), balance(&arrives, UDP)] {
            let back = nat.back(&came.clone().payload(&payload));
            assert_eq!(back.inside, [arrives.clone().payload(&payload).build()]);
        }
    });
}

#[test]
fn n32_a_tcp_checksum_of_0_is_a_checksum() {
    with_nat("", |nat| {
        let port = nat.connect(A, 5000, (X, 80));
        for flags in [TcpFlags::ACK, TcpFlags::SYN] {
            // A SYN takes another way than an acknowledgment.
            let (sent, leaves) = (from(A, X).tcp(5000, 80).flags(flags), outside(P, X).tcp(port, 80).flags(flags));
            let (came, arrives) =
                (from_outside(X, P).tcp(80, port).flags(flags), inside(X, A).tcp(80, 5000).flags(flags));
            for payload in [balance(&sent, TCP), balance(&leaves, TCP)] {
                let out = nat.out(&sent.clone().payload(&payload));
                assert_eq!(out.outside, [leaves.clone().payload(&payload).build()]);
            }
            for payload in [balance(&came, TCP), balance(&arrives, TCP)] {
                let back = nat.back(&came.clone().payload(&payload));
                assert_eq!(back.inside, [arrives.clone().payload(&payload).build()]);
            }
        }
    });
}

#[test]
fn n32_header_and_icmp_checksums_have_one_zero() {
    with_nat("", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        let identifier = left(&nat.out(&from(A, X).icmp_echo_request(7, 1))).source_port;
        // An identification by which the header sums up to nothing, before and after.
        for frame in [from(A, X), outside(P, X)] {
            let header = word(&frame.udp(5000, 53).build(), HEADER);
            let with = |frame: Frame| frame.identification(u16::from_be_bytes(header).into());
            let out = nat.out(&with(from(A, X)).udp(5000, 53));
            assert_eq!(out.outside, [with(outside(P, X)).udp(port, 53).build()]);
        }
        // Of ICMP the checksum begins at 36.
        for frame in [from(A, X).icmp_echo_request(7, 1), outside(P, X).icmp_echo_request(identifier, 1)] {
            let payload = balance(&frame, 36);
            let out = nat.out(&from(A, X).icmp_echo_request(7, 1).payload(&payload));
            assert_eq!(out.outside, [outside(P, X).icmp_echo_request(identifier, 1).payload(&payload).build()]);
        }
    });
}

#[test]
fn wrong_checksums_stay_wrong() {
    with_nat("", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        let mut frame = from(A, X).udp(5000, 53).payload(b"damaged").build();
        *frame.last_mut().unwrap() ^= 4;
        let out = nat.burst(nf_framework::Direction::Outbound, &[frame]);
        let mut expected = outside(P, X).udp(port, 53).payload(b"damaged").build();
        *expected.last_mut().unwrap() ^= 4;
        assert_eq!(out.outside, [expected]);
    });
}
