//! Which external address and port an inside one gets: RFC 4787 section 4, RFC 5382 section 4.1.

use super::bench::{A, P, X, Y, came, dropped, from, from_outside, left, with_nat};
use nf_framework::headers::TcpFlags;

#[test]
fn n01_udp_mappings_are_endpoint_independent() {
    with_nat("", |nat| {
        let mut seen = Vec::new();
        for to in [X, Y] {
            for port in [53, 5353] {
                let out = left(&nat.out(&from(A, to).udp(5000, port)));
                assert_eq!((out.source, out.destination, out.destination_port), (P, to, port));
                assert!(out.source_port >= 1024);
                seen.push(out.source_port);
            }
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
        let back = came(&nat.back(&from_outside(X, P).udp(53, seen[0]).payload(b"answer")));
        assert_eq!((back.source, back.source_port, back.destination, back.destination_port), (X, 53, A, 5000));
    });
}

#[test]
fn n02_tcp_mappings_are_endpoint_independent() {
    with_nat("", |nat| {
        let mut seen = Vec::new();
        for to in [X, Y] {
            for port in [80, 443] {
                seen.push(left(&nat.out(&from(A, to).tcp(5000, port).flags(TcpFlags::SYN))).source_port);
            }
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
        assert_eq!(dropped(&nat.out(&from(A, X).tcp(5001, 80).flags(TcpFlags::ACK))), "nat-no-session");
    });
}
