//! Who may send to an external port: RFC 4787 section 5, RFC 5382 section 4.3.

use super::bench::{A, Bench, P, SYN_ACK, X, Y, came, dropped, from, from_outside, inside, left, with_nat};
use nf_framework::headers::TcpFlags;
use std::net::Ipv4Addr;

/// Whether a packet from outside comes to the inside host, or is filtered.
fn passes(nat: &mut Bench, frame: &nf_framework::testing::Frame) -> bool {
    let back = nat.back(frame);
    if back.inside.is_empty() {
        assert_eq!(dropped(&back), "nat-filtered");
        return false;
    }
    came(&back).destination == A
}

/// Who: from the address and port that was sent to, its other port, another address.
const WHO: [(Ipv4Addr, u16); 4] = [(X, 53), (X, 54), (Y, 53), (Y, 54)];

#[test]
fn n11_udp_is_filtered_as_configured() {
    const INDEPENDENT: &str = "filtering.tcp = \"address-and-port-dependent\"";
    const ADDRESS: &str = "filtering = { udp = \"address-dependent\", tcp = \"address-and-port-dependent\" }";
    const PORT: &str = "filtering.udp = \"address-and-port-dependent\"";
    for (text, expected) in [
        ("", [true; 4]),
        (INDEPENDENT, [true; 4]),
        (ADDRESS, [true, true, false, false]),
        (PORT, [true, false, false, false]),
    ] {
        with_nat(text, move |nat| {
            let port = nat.udp_port(A, 5000, (X, 53));
            for ((who, its_port), expected) in WHO.into_iter().zip(expected) {
                let frame = from_outside(who, P).udp(its_port, port);
                assert_eq!(passes(nat, &frame), expected, "{text}: {who}:{its_port}");
            }
            // Who has been sent to may answer.
            assert_eq!(nat.udp_port(A, 5000, (Y, 54)), port);
            assert!(passes(nat, &from_outside(Y, P).udp(54, port)));
            assert_eq!(passes(nat, &from_outside(Y, P).udp(53, port)), expected[1], "{text}");
            // A port that nobody has is a matter of no filter.
            let nobody = nat.back(&from_outside(X, P).udp(53, port ^ 1));
            assert_eq!(dropped(&nobody), "nat-no-mapping");
        });
    }
}

#[test]
fn n11_tcp_is_filtered_as_configured() {
    const INDEPENDENT: &str = "filtering.udp = \"address-and-port-dependent\"";
    const ADDRESS: &str = "filtering.tcp = \"address-dependent\"";
    const PORT: &str = "filtering = { tcp = \"address-and-port-dependent\", udp = \"endpoint-independent\" }";
    for (text, expected) in [
        ("", [true; 4]),
        (INDEPENDENT, [true; 4]),
        (ADDRESS, [true, true, false, false]),
        (PORT, [true, false, false, false]),
    ] {
        with_nat(text, move |nat| {
            let port = left(&nat.out(&from(A, X).tcp(5000, 53).flags(TcpFlags::SYN))).source_port;
            for flags in [TcpFlags::ACK, SYN_ACK, TcpFlags::RST] {
                for ((who, its_port), expected) in WHO.into_iter().zip(expected) {
                    let frame = from_outside(who, P).tcp(its_port, port).flags(flags);
                    assert_eq!(passes(nat, &frame), expected, "{text}: {who}:{its_port}");
                }
            }
        });
    }
}

#[test]
fn n11_connections_from_outside_reach_who_listens_to_all() {
    with_nat("", |nat| {
        let port = left(&nat.out(&from(A, X).tcp(5000, 80).flags(TcpFlags::SYN))).source_port;
        let syn = nat.back(&from_outside(Y, P).tcp(999, port).flags(TcpFlags::SYN));
        assert_eq!(syn.inside, [inside(Y, A).tcp(999, 5000).flags(TcpFlags::SYN).build()]);
        // A packet from outside begins no session: the answer does.
        assert_eq!(nat.sessions(), 1);
        assert_eq!(left(&nat.out(&from(A, Y).tcp(5000, 999).flags(SYN_ACK))).source_port, port);
        assert_eq!(nat.sessions(), 2);
    });
}

#[test]
fn answers_to_icmp_queries_are_filtered_as_udp_is() {
    const ADDRESS: &str = "filtering.udp = \"address-dependent\"";
    const PORT: &str = "filtering.udp = \"address-and-port-dependent\"";
    for (text, other) in [("", true), (ADDRESS, false), (PORT, false)] {
        with_nat(text, move |nat| {
            let identifier = left(&nat.out(&from(A, X).icmp_echo_request(7, 1))).source_port;
            assert!(passes(nat, &from_outside(X, P).icmp_echo_reply(identifier, 1)));
            assert_eq!(passes(nat, &from_outside(Y, P).icmp_echo_reply(identifier, 1)), other, "{text}");
            // A question is no answer, whoever asks.
            let question = nat.back(&from_outside(X, P).icmp_echo_request(identifier, 1));
            assert_eq!(dropped(&question), "nat-no-mapping");
        });
    }
}

#[test]
fn a_permission_goes_with_the_last_session_that_gave_it() {
    const ADDRESS: &str = "timeouts.udp = 10\nfiltering.udp = \"address-dependent\"";
    const PORT: &str = "timeouts.udp = 10\nfiltering.udp = \"address-and-port-dependent\"";
    for (text, by_port) in [(ADDRESS, false), (PORT, true)] {
        with_nat(text, move |nat| {
            let port = nat.udp_port(A, 5000, (X, 53));
            nat.pass(5);
            nat.udp_port(A, 5000, (X, 54));
            nat.pass(3);
            nat.udp_port(A, 5000, (Y, 53));
            // The first is over, the second not.
            nat.pass(4);
            assert_eq!(passes(nat, &from_outside(X, P).udp(53, port)), !by_port);
            assert!(passes(nat, &from_outside(X, P).udp(54, port)));
            // That one too; the mapping is there for another one.
            nat.pass(4);
            assert!(!passes(nat, &from_outside(X, P).udp(54, port)));
            assert!(passes(nat, &from_outside(Y, P).udp(53, port)));
        });
    }
}
