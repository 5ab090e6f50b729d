//! Which external address and port an inside one gets: RFC 4787 section 4, RFC 5382 section 4.1.

use super::bench::{
    A, B, C, P, X, Y, Z, came, dropped, from, from_outside, inside, left, on_one_worker, outside, with_nat,
};
use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

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

#[test]
fn n03_identifiers_of_icmp_queries_are_mapped_independently_of_the_endpoint() {
    with_nat("", |nat| {
        let mut seen = Vec::new();
        for to in [X, Y] {
            for sequence in [1, 2] {
                let out = nat.out(&from(A, to).icmp_echo_request(77, sequence).payload(b"ping"));
                let identifier = left(&out).source_port;
                let expected = outside(P, to).icmp_echo_request(identifier, sequence).payload(b"ping");
                assert_eq!(out.outside, [expected.build()]);
                seen.push(identifier);
            }
        }
        seen.dedup();
        assert_eq!(seen.len(), 1, "{seen:?}");
        let back = nat.back(&from_outside(Y, P).icmp_echo_reply(seen[0], 2).payload(b"ping"));
        assert_eq!(back.inside, [inside(Y, A).icmp_echo_reply(77, 2).payload(b"ping").build()]);
        // Another host's same identifier is another one outside.
        assert_ne!(left(&nat.out(&from(B, X).icmp_echo_request(77, 1))).source_port, seen[0]);
    });
}

const FOUR: &str = "[[pools]]\naddresses = [\"198.51.100.100/30\"]";

#[test]
fn n04_all_mappings_of_a_host_have_one_address() {
    with_nat(FOUR, |nat| {
        let mut addresses = BTreeSet::new();
        for host in 1..=20 {
            let host = Ipv4Addr::new(192, 168, 2, host);
            let mut of_host = BTreeSet::new();
            for flow in 0..50 {
                let out = match flow % 3 {
                    0 => nat.out(&from(host, X).udp(2000 + flow, 53)),
                    1 => nat.out(&from(host, Y).tcp(2000 + flow, 80).flags(TcpFlags::SYN)),
                    _ => nat.out(&from(host, X).icmp_echo_request(flow, 1)),
                };
                of_host.insert(left(&out).source);
            }
            assert_eq!(of_host.len(), 1, "{host}");
            addresses.extend(of_host);
        }
        // Hosts are spread over the pool: that all 20 choose one of two is a chance of less than 1 in 2^19.
        assert!(addresses.len() > 1, "{addresses:?}");
    });
}

#[test]
fn arbitrary_pooling_goes_on_with_other_addresses_where_one_is_full() {
    const TEXT: &str = "pooling = \"arbitrary\"\n[[pools]]\naddresses = [\"198.51.100.100/31\"]\nports = \"2000-2127\"";
    with_nat(TEXT, |nat| {
        let mut by_address = BTreeMap::<_, u32>::new();
        for port in 0..257 {
            let out = nat.out(&from(A, X).udp(3000 + port, 53));
            if out.dropped.is_empty() {
                *by_address.entry(left(&out).source).or_default() += 1;
            }
        }
        let of_each = *by_address.values().next().unwrap();
        assert_eq!(by_address.len(), 2);
        assert!(by_address.values().all(|ports| *ports == of_each), "{by_address:?}");
        assert!(if nat.workers == 1 { of_each == 128 } else { of_each < 128 }, "{by_address:?}");
    });
}

#[test]
fn n05_no_external_port_is_shared() {
    with_nat("[[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-2127\"", |nat| {
        let (a, b) = (nat.udp_port(A, 5000, (X, 53)), nat.udp_port(B, 5000, (X, 53)));
        assert_ne!(a, b);
        for (host, port) in [(A, a), (B, b)] {
            assert_eq!(came(&nat.back(&from_outside(X, P).udp(53, port))).destination, host);
        }
        let mut taken = BTreeSet::from([a, b]);
        let mut refused = 0;
        for host in [A, B, C] {
            for port in 0..140 {
                let out = nat.out(&from(host, X).udp(6000 + port, 53));
                if out.outside.is_empty() {
                    assert_eq!(dropped(&out), "nat-ports-exhausted");
                    refused += 1;
                } else {
                    assert!(taken.insert(left(&out).source_port), "shared");
                }
            }
        }
        assert!(taken.iter().all(|port| (2000..=2127).contains(port)));
        assert_eq!(taken.len() + refused, 3 * 140 + 2);
        assert!(refused > 0);
        // All of them are used, where the hosts have all workers.
        if nat.workers == 1 {
            assert_eq!(taken.len(), 128);
        }
        // Those who have ports keep them, and another protocol has its own.
        assert_eq!(nat.udp_port(A, 5000, (Y, 53)), a);
        left(&nat.out(&from(A, X).tcp(5000, 80).flags(TcpFlags::SYN)));
    });
}

#[test]
fn n06_ports_below_1024_stay_there_and_others_above() {
    for (text, keeps) in [("", true), ("keep_range = false", false)] {
        with_nat(text, move |nat| {
            for host in [A, B] {
                for (port, is_low) in [(1, true), (500, true), (1023, true), (1024, false), (2000, false)] {
                    let udp = nat.udp_port(host, port, (X, 53));
                    let tcp = left(&nat.out(&from(host, X).tcp(port, 80).flags(TcpFlags::SYN))).source_port;
                    for external in [udp, tcp] {
                        assert_eq!((1..1024).contains(&external), keeps && is_low, "{port} -> {external}");
                    }
                }
                // An identifier has no range.
                let identifier = left(&nat.out(&from(host, X).icmp_echo_request(500, 1))).source_port;
                assert!(identifier >= 1024);
            }
        });
    }
}

#[test]
fn n07_parity_is_kept_where_asked_for() {
    with_nat("keep_parity = true", |nat| {
        for port in 700..740 {
            assert_eq!(nat.udp_port(A, port, (X, 53)) % 2, port % 2);
            assert_eq!(nat.udp_port(B, 4300 + port, (X, 53)) % 2, port % 2);
            let tcp = left(&nat.out(&from(A, X).tcp(5000 + port, 80).flags(TcpFlags::SYN))).source_port;
            assert_eq!(tcp % 2, port % 2);
        }
    });
    // Unless asked for, ports are random: RFC 7857 section 9. All 40 alike is a chance of 1 in 2^40.
    with_nat("", |nat| {
        let kept = (0..40).filter(|port| nat.udp_port(A, 5000 + port, (X, 53)) % 2 == port % 2).count();
        assert!(kept > 0 && kept < 40, "{kept}");
    });
}

#[test]
fn a_port_is_preserved_where_it_is_free_and_ours() {
    on_one_worker("port_selection = \"preserve\"", |nat| {
        assert_eq!(nat.udp_port(A, 5000, (X, 53)), 5000);
        assert_eq!(nat.udp_port(A, 500, (X, 53)), 500);
        let other = nat.udp_port(B, 5000, (X, 53));
        assert!(other >= 1024 && other != 5000, "{other}");
        assert_eq!(nat.udp_port(B, 5001, (X, 53)), 5001);
    });
}

#[test]
fn n14_what_is_said_of_one_flow_holds_among_many() {
    const TEXT: &str = "filtering.udp = \"address-dependent\"\n\
                        [[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-3023\"";
    with_nat(TEXT, |nat| {
        // 60 % of 1024 ports.
        let mut taken = BTreeSet::new();
        for host in 0..62 {
            for port in 0..10 {
                let host = Ipv4Addr::new(192, 168, 3, host);
                assert!(taken.insert(nat.udp_port(host, 5000 + port, (X, 53))));
            }
        }
        for round in 0..10 {
            let port = nat.udp_port(A, 5000 + round, (X, 53));
            assert!(!taken.contains(&port));
            for (to, to_port) in [(X, 54), (Y, 53), (Y, 54)] {
                assert_eq!(nat.udp_port(A, 5000 + round, (to, to_port)), port);
            }
            for (who, passes) in [(X, true), (Y, true), (Z, false)] {
                let back = nat.back(&from_outside(who, P).udp(999, port));
                if passes {
                    let back = came(&back);
                    assert_eq!((back.destination, back.destination_port), (A, 5000 + round));
                } else {
                    assert_eq!(dropped(&back), "nat-filtered");
                }
            }
        }
    });
}

#[test]
fn n33_other_protocols_go_one_to_one_or_not_at_all() {
    const IGMP: u8 = 2;
    const GRE: u8 = 47;
    const ESP: u8 = 50;
    const SCTP: u8 = 132;
    const TEXT: &str = "one_to_one = [{ inside = \"192.168.1.20\", outside = \"198.51.100.110\" }]";
    const OF_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 110);
    with_nat(TEXT, |nat| {
        let payload = [0x5a; 37];
        for protocol in [IGMP, GRE, ESP, SCTP, 253, 0, 255] {
            let other = |frame: Frame| frame.protocol(protocol).payload(&payload);
            assert_eq!(dropped(&nat.out(&other(from(A, X)))), "nat-protocol", "{protocol}");
            assert_eq!(dropped(&nat.back(&other(from_outside(X, P)))), "nat-protocol", "{protocol}");
            let out = nat.out(&other(from(B, X)));
            assert_eq!(out.outside, [other(outside(OF_B, X)).build()], "{protocol}");
            let back = nat.back(&other(from_outside(X, OF_B)));
            assert_eq!(back.inside, [other(inside(X, B)).build()], "{protocol}");
            // Nothing in them makes it stumble.
            for length in 0..8 {
                let short = |frame: Frame| frame.protocol(protocol).payload(&payload[..length]);
                assert_eq!(dropped(&nat.out(&short(from(A, X)))), "nat-protocol", "{protocol}");
                assert_eq!(nat.out(&short(from(B, X))).outside.len(), 1, "{protocol}");
            }
        }
        assert_eq!(nat.sessions(), 0);
    });
}

#[test]
fn n31_what_packets_carry_is_not_looked_into() {
    with_nat("", |nat| {
        let commands: [&[u8]; 3] = [
            b"PORT 192,168,1,10,200,10\r\n",
            b"227 Entering Passive Mode (192,168,1,10,19,136)\r\n",
            b"EPRT |1|192.168.1.10|5|",
        ];
        let port = nat.connect(A, 5000, (X, 21));
        for command in commands {
            let out = nat.out(&from(A, X).tcp(5000, 21).payload(command));
            assert_eq!(out.outside, [outside(P, X).tcp(port, 21).payload(command).build()]);
            let back = nat.back(&from_outside(X, P).tcp(21, port).payload(command));
            assert_eq!(back.inside, [inside(X, A).tcp(21, 5000).payload(command).build()]);
        }
        // And nothing is opened by it.
        assert_eq!(nat.sessions(), 1);
        let sip = b"INVITE sip:x SIP/2.0\r\nVia: SIP/2.0/UDP 192.168.1.10:5060\r\n";
        let port = nat.udp_port(A, 5060, (X, 5060));
        let out = nat.out(&from(A, X).udp(5060, 5060).payload(sip));
        assert_eq!(out.outside, [outside(P, X).udp(port, 5060).payload(sip).build()]);
    });
}
