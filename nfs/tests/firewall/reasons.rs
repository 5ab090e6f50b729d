//! Every reason for which the firewall drops, provoked.

use super::bench::{A, A6, ACK, RST, SYN, X, X6, Y, packet, tcp, v4, v6, with_firewall};
use nf_framework::Direction;
use nf_framework::testing::Frame;

const ALL: [&str; 24] = [
    "firewall-address",
    "firewall-arp",
    "firewall-checksum",
    "firewall-connections-full",
    "firewall-default",
    "firewall-denied",
    "firewall-embryonic-limit",
    "firewall-ether-type",
    "firewall-fragment",
    "firewall-neighbor-discovery",
    "firewall-no-connection",
    "firewall-rate-limit",
    "firewall-rejudged",
    "firewall-side",
    "firewall-source-limit",
    "firewall-source-route",
    "firewall-sources-full",
    "firewall-syn-cookie",
    "firewall-syn-proxy",
    "firewall-tcp-flags",
    "firewall-tcp-reset",
    "firewall-tcp-state",
    "firewall-tcp-window",
    "firewall-unrelated",
];

const TEXT: &str = r#"
arp = "drop"
connections_per_source = 1000
[[rules]]
source = "203.0.113.2"
action = "drop"
[[rules]]
from = "inside"
protocol = "gre"
action = "accept"
limit = { packets_per_second = 1, burst = 1 }
[[rules]]
from = "inside"
protocol = "tcp"
destination_ports = 7000
action = "accept"
limit = { embryonic = 1 }
[[rules]]
from = "inside"
action = "accept"
"#;

#[test]
fn every_reason_has_something_that_provokes_it() {
    with_firewall(TEXT, |bench| {
        bench.connect(4000);
        let mut seen = std::collections::BTreeSet::new();
        let mut broken = v4(A, X).udp(1, 2).build();
        *broken.last_mut().unwrap() ^= 1;
        let gre = v4(A, X).protocol(47).payload(&[0; 8]).build();
        let segment = |flags| tcp(A, X, 4000, 80, flags);
        for (direction, frame, reason) in [
            (Direction::Outbound, v4(X, X).udp(1, 2).build(), "address"),
            (Direction::Outbound, Frame::new().arp_request(A, X).build(), "arp"),
            (Direction::Outbound, broken, "checksum"),
            (Direction::Inbound, v4(X, A).udp(1, 2).build(), "default"),
            (Direction::Inbound, v4(Y, A).udp(1, 2).build(), "denied"),
            (Direction::Outbound, Frame::new().payload(&[0; 46]).build(), "ether-type"),
            (Direction::Outbound, v6(A6, X6).icmpv6(135, 0, [0; 4]).payload(&[0; 16]).build(), "neighbor-discovery"),
            (Direction::Outbound, tcp(A, X, 4001, 80, ACK).build(), "no-connection"),
            (Direction::Inbound, segment(ACK).build(), "side"),
            (Direction::Outbound, v4(A, X).ipv4_options(&[131, 3, 4]).udp(1, 2).build(), "source-route"),
            (Direction::Outbound, segment(0).build(), "tcp-flags"),
            (Direction::Outbound, segment(RST).sequence_number(1042).build(), "tcp-reset"),
            (Direction::Inbound, tcp(X, A, 80, 4000, SYN).build(), "tcp-state"),
            (Direction::Outbound, segment(ACK).sequence_number(900_000).build(), "tcp-window"),
            (
                Direction::Inbound,
                v4(X, A).icmp(3, 1, [0; 4]).payload(&packet(&v4(A, X).udp(7, 8))).build(),
                "unrelated",
            ),
        ] {
            let found = bench.goes(direction, frame);
            assert_eq!(found, Err(format!("firewall-{reason}")));
            seen.extend(found.err());
        }
        // What takes more than a packet.
        assert_eq!(bench.goes(Direction::Outbound, gre.clone()), Ok(()));
        seen.extend(bench.goes(Direction::Outbound, gre).err());
        let parts = v4(X, A).udp(53, 5000).payload(&[1; 100]).build_fragments(32);
        seen.extend(bench.send(Direction::Inbound, &parts).dropped.into_keys());
        for port in 0..5 {
            seen.extend(bench.out(&tcp(A, X, 3000 + port, 7000, SYN)).err());
        }
        for port in 0..1100 {
            seen.extend(bench.out(&v4(A, X).udp(6000 + port, 53)).err());
        }
        bench
            .reload(&format!("live = \"rejudge\"\n{}", TEXT.replace("from = \"inside\"", "from = \"outside\"")))
            .unwrap();
        seen.extend(bench.out(&segment(ACK).sequence_number(1000).acknowledgment_number(5000)).err());
        // A table full of established connections has a test of its own, among the limits.
        seen.insert("firewall-connections-full".to_owned());
        // That sources find no place in a table takes a smaller one than connections have: its own tests.
        seen.insert("firewall-sources-full".to_owned());
        // As have SYN cookies.
        seen.extend(["firewall-syn-cookie", "firewall-syn-proxy"].map(str::to_owned));
        assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), ALL);
    });
}

#[test]
fn what_rules_deny_is_counted_by_packets_and_not_by_connections() {
    with_firewall("[[rules]]\nfrom = 'outside'\nprotocol = 'udp'\naction = 'reject'\n", |bench| {
        for _ in 0..3 {
            // One connection that never begins, by a rule and by the default.
            assert_eq!(bench.out(&tcp(A, X, 4000, 80, SYN)), super::bench::denied("default"));
            assert_eq!(bench.send(Direction::Inbound, &[v4(X, A).udp(1, 2).build()]).dropped["firewall-denied"], 1);
        }
        assert_eq!((bench.counter("packets-denied"), bench.counter("connections-accepted")), (6, 0));
    });
}
