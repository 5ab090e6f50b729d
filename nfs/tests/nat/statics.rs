//! What the configuration translates by itself: one to one, and ports that lead to servers.

use super::bench::{
    A, B, Bench, C, P, SYN_ACK, X, Y, came, dropped, from, from_outside, inside, left, outside, with_nat,
};
use nf_framework::Direction;
use nf_framework::headers::TcpFlags;
use nf_framework::testing::Frame;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

const SYN: TcpFlags = TcpFlags::SYN;
/// A and B are 10 and 20 of the prefix.
const PREFIX: &str = "one_to_one = [{ inside = \"192.168.1.0/27\", outside = \"198.51.100.160/27\" }]";
const OF_A: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 170);
const OF_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 180);

#[test]
fn one_to_one_changes_the_address_and_nothing_else() {
    with_nat(PREFIX, |nat| {
        let kinds: [fn(Frame) -> Frame; 8] = [
            |frame| frame.udp(5000, 53).payload(b"data"),
            |frame| frame.udp(5000, 53).without_udp_checksum().payload(b"data"),
            |frame| frame.tcp(1, 80).flags(SYN).tcp_options(&[2, 4, 5, 0xb4]),
            |frame| frame.tcp(1, 80).flags(TcpFlags::RST),
            |frame| frame.icmp_echo_request(7, 1).payload(b"ping"),
            |frame| frame.icmp_echo_reply(7, 1).payload(b"ping"),
            |frame| frame.protocol(50).payload(&[3; 40]),
            |frame| frame.ipv4_options(&[1; 4]).udp(5000, 53).payload(b"data"),
        ];
        for kind in kinds {
            for (host, external) in [(A, OF_A), (B, OF_B)] {
                let out = nat.out(&kind(from(host, X)));
                assert_eq!(out.outside, [kind(outside(external, X)).build()]);
                // From anybody, as nothing is filtered.
                for who in [X, Y] {
                    let back = nat.back(&kind(from_outside(who, external)));
                    assert_eq!(back.inside, [kind(inside(who, host)).build()]);
                }
            }
        }
        assert_eq!(nat.sessions(), 0);
        // 31 is the last of the prefix, and others use the pool.
        assert_eq!(
            left(&nat.out(&from(Ipv4Addr::new(192, 168, 1, 31), X).udp(1, 53))).source,
            Ipv4Addr::new(198, 51, 100, 191)
        );
        assert_eq!(left(&nat.out(&from(Ipv4Addr::new(192, 168, 1, 32), X).udp(1, 53))).source, P);
    });
}

#[test]
fn one_to_one_takes_fragments_as_they_are() {
    with_nat(PREFIX, |nat| {
        let payload = [5; 2000];
        let fragments = |frame: Frame| frame.identification(9).udp(5000, 53).payload(&payload).build_fragments(1000);
        let out = nat.burst(Direction::Outbound, &fragments(from(A, X)));
        assert_eq!(out.outside, fragments(outside(OF_A, X)));
        let back = nat.burst(Direction::Inbound, &fragments(from_outside(X, OF_A)));
        assert_eq!(back.inside, fragments(inside(X, A)));
    });
}

#[test]
fn one_to_one_turns() {
    with_nat(PREFIX, |nat| {
        let out = nat.out(&from(A, OF_B).udp(5000, 53));
        assert_eq!(out.inside, [inside(OF_A, B).udp(5000, 53).build()]);
        // To and from hosts behind the pool.
        let of_c = nat.udp_port(C, 6000, (X, 53));
        let out = nat.out(&from(A, P).udp(5000, of_c));
        assert_eq!(out.inside, [inside(OF_A, C).udp(5000, 6000).build()]);
        let out = nat.out(&from(C, OF_A).udp(6000, 5000));
        assert_eq!(out.inside, [inside(P, A).udp(of_c, 5000).build()]);
    });
}

const FORWARD: &str = r#"
forward = [
  { protocol = "tcp", outside = "198.51.100.100", ports = "80", to = ["192.168.1.10:8080"] },
  { protocol = "udp", outside = "198.51.100.100", ports = "7000-7009", to = ["192.168.1.20:9000"] },
  { protocol = "tcp", outside = "198.51.100.105", ports = "443", to = ["192.168.1.20:443"] },
]"#;

#[test]
fn a_forward_leads_to_its_server_and_back() {
    const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 105);
    with_nat(FORWARD, |nat| {
        for who in [X, Y] {
            for (flags, answer) in [(SYN, SYN_ACK), (TcpFlags::ACK, TcpFlags::ACK)] {
                let back = nat.back(&from_outside(who, P).tcp(999, 80).flags(flags).payload(b"in"));
                assert_eq!(back.inside, [inside(who, A).tcp(999, 8080).flags(flags).payload(b"in").build()]);
                let out = nat.out(&from(A, who).tcp(8080, 999).flags(answer).payload(b"out"));
                assert_eq!(out.outside, [outside(P, who).tcp(80, 999).flags(answer).payload(b"out").build()]);
            }
        }
        for (external, internal) in [(7000, 9000), (7005, 9005), (7009, 9009)] {
            let back = nat.back(&from_outside(X, P).udp(999, external));
            assert_eq!(back.inside, [inside(X, B).udp(999, internal).build()]);
            let out = nat.out(&from(B, X).udp(internal, 999));
            assert_eq!(out.outside, [outside(P, X).udp(external, 999).build()]);
        }
        let back = nat.back(&from_outside(X, OTHER).tcp(999, 443).flags(SYN));
        assert_eq!(back.inside, [inside(X, B).tcp(999, 443).flags(SYN).build()]);
        assert_eq!(nat.sessions(), 0);
        // Not of the other protocol, not the ports beside, not the other address.
        for frame in [
            from_outside(X, P).udp(999, 80),
            from_outside(X, P).tcp(999, 81),
            from_outside(X, P).tcp(999, 443),
            from_outside(X, P).udp(999, 6999),
            from_outside(X, P).udp(999, 7010),
            from_outside(X, OTHER).udp(999, 443),
        ] {
            assert_eq!(dropped(&nat.back(&frame)), "nat-no-mapping");
        }
    });
}

#[test]
fn fragments_are_forwarded_as_their_packet_is() {
    with_nat(FORWARD, |nat| {
        let fragments = |frame: Frame, ports: (u16, u16), number: u16| {
            frame.identification(number.into()).udp(ports.0, ports.1).payload(&[5; 2000]).build_fragments(1000)
        };
        let back = nat.burst(Direction::Inbound, &fragments(from_outside(X, P), (999, 7003), 9));
        assert_eq!(back.inside, fragments(inside(X, B), (999, 9003), 9));
        let out = nat.burst(Direction::Outbound, &fragments(from(B, X), (9003, 999), 9));
        let new = u16::from_be_bytes([out.outside[0][18], out.outside[0][19]]);
        assert_eq!(out.outside, fragments(outside(P, X), (7003, 999), new));
    });
}

#[test]
fn fragments_of_a_server_that_come_one_after_the_other_are_of_one_packet() {
    with_nat(FORWARD, |nat| {
        nat.pass(100);
        let fragments = |frame: Frame, new: u16| {
            frame.identification(new.into()).udp(9003, 999).payload(&[5; 2000]).build_fragments(1000)
        };
        let mut seen = BTreeSet::new();
        for fragment in fragments(from(B, X), 9) {
            let out = nat.burst(Direction::Outbound, &[fragment]);
            seen.insert([out.outside[0][18], out.outside[0][19]]);
            nat.trial.advance(Duration::from_millis(5));
        }
        assert_eq!(seen.len(), 1, "{seen:?}");
    });
}

#[test]
fn no_mapping_gets_a_port_that_leads_to_a_server() {
    const TEXT: &str = r#"
forward = [{ protocol = "udp", outside = "198.51.100.100", ports = "2000-2050", to = ["192.168.1.40:9000"] }]
[[pools]]
addresses = ["198.51.100.100"]
ports = "2000-2127""#;
    with_nat(TEXT, |nat| {
        let mut seen = BTreeSet::new();
        for (host, port) in [A, B].into_iter().flat_map(|host| (0..128).map(move |port| (host, port))) {
            let out = nat.out(&from(host, X).udp(5000 + port, 53));
            if !out.outside.is_empty() {
                assert!(seen.insert(left(&out).source_port));
            }
        }
        assert!(seen.iter().all(|port| (2051..=2127).contains(port)), "{seen:?}");
        assert!(nat.workers == 2 || seen.len() == 77, "{}", seen.len());
        // Its own host's packets from there are the server's.
        assert_eq!(left(&nat.out(&from(C, X).udp(9007, 53))).source_port, 2007);
    });
}

const SERVERS: &str = r#"
forward = [{ protocol = "tcp", outside = "198.51.100.100", ports = "80",
             to = ["192.168.1.10:8080", "192.168.1.20:8080", "192.168.1.40:8080"] }]"#;
const TWO: &str = r#"
forward = [{ protocol = "tcp", outside = "198.51.100.100", ports = "80",
             to = ["192.168.1.40:8080", "192.168.1.10:8080"] }]"#;

fn server(nat: &mut Bench, client: (Ipv4Addr, u16), flags: TcpFlags) -> Ipv4Addr {
    came(&nat.back(&from_outside(client.0, P).tcp(client.1, 80).flags(flags))).destination
}

#[test]
fn a_client_stays_with_its_server_of_several() {
    with_nat(SERVERS, |nat| {
        let clients =
            || (1..=10).flat_map(|host| (1..=30).map(move |port| (Ipv4Addr::new(203, 0, 113, host), 1000 + port)));
        let chosen: BTreeMap<_, _> = clients().map(|client| (client, server(nat, client, SYN))).collect();
        let mut load = BTreeMap::<_, u32>::new();
        for (client, first) in &chosen {
            *load.entry(*first).or_default() += 1;
            for flags in [TcpFlags::ACK, TcpFlags::RST] {
                assert_eq!(server(nat, *client, flags), *first);
            }
            let out = nat.out(&from(*first, client.0).tcp(8080, client.1).flags(SYN_ACK));
            assert_eq!((left(&out).source, left(&out).source_port), (P, 80));
        }
        // 100 each are to be expected.
        assert!(load.len() == 3 && load.values().all(|load| (50..=150).contains(load)), "{load:?}");
        // One goes: its clients alone are led elsewhere.
        nat.reload(super::bench::config(TWO)).unwrap();
        for (client, first) in &chosen {
            let now = server(nat, *client, TcpFlags::ACK);
            assert!(now != B && (*first == B || now == *first), "{client:?} {first} {now}");
        }
    });
}

#[test]
fn an_inside_host_reaches_a_server_by_its_external_port() {
    with_nat(FORWARD, |nat| {
        for client in [C, A] {
            let syn = nat.out(&from(client, P).tcp(5000, 80).flags(SYN));
            let of_client = came(&syn).source_port;
            assert_eq!(syn.inside, [inside(P, A).tcp(of_client, 8080).flags(SYN).build()]);
            let answer = nat.out(&from(A, P).tcp(8080, of_client).flags(SYN_ACK));
            assert_eq!(answer.inside, [inside(P, client).tcp(80, 5000).flags(SYN_ACK).build()]);
            let data = nat.out(&from(client, P).tcp(5000, 80).payload(b"data"));
            assert_eq!(data.inside, [inside(P, A).tcp(of_client, 8080).payload(b"data").build()]);
        }
    });
}

#[test]
fn pools_are_chosen_by_who_sends_and_where() {
    const TEXT: &str = r#"
[[pools]]
addresses = ["198.51.100.101"]
subscribers = ["192.168.1.10"]
to = ["203.0.113.2"]
[[pools]]
addresses = ["198.51.100.102"]
subscribers = ["192.168.1.0/24"]
[[pools]]
addresses = ["198.51.100.103"]
to = ["203.0.113.0/24"]
ports = "40000-50000""#;
    const OTHER: Ipv4Addr = Ipv4Addr::new(192, 168, 2, 1);
    with_nat(TEXT, |nat| {
        for (host, to, expected) in [(A, Y, 101), (A, X, 102), (B, Y, 102), (OTHER, X, 103)] {
            let out = left(&nat.out(&from(host, to).udp(5000, 53)));
            assert_eq!(out.source.octets()[3], expected, "{host} {to}");
            assert!(expected != 103 || (40_000..=50_000).contains(&out.source_port));
        }
        assert_eq!(dropped(&nat.out(&from(OTHER, Ipv4Addr::new(8, 8, 8, 8)).udp(5000, 53))), "nat-no-pool");
        // Each has its mapping, and answers find the host by either.
        for (address, to) in [(101, Y), (102, X)] {
            let address = Ipv4Addr::new(198, 51, 100, address);
            let port = left(&nat.out(&from(A, to).udp(5000, 53))).source_port;
            assert_eq!(came(&nat.back(&from_outside(to, address).udp(53, port))).destination, A);
        }
    });
}
