//! Which backend a flow goes to: rows L2, L5, L9 and L16.

use super::bench::{Bench, SYN, VIP, backend, config, from_client, from_outside, service, went_to, with_balancer};
use nf_framework::testing::lab;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// How many new connections each backend gets.
fn shares(bench: &mut Bench, flows: u16) -> BTreeMap<u8, u32> {
    let mut shares = BTreeMap::new();
    for flow in 0..flows {
        let client = Ipv4Addr::new(192, 0, 2, flow.to_be_bytes()[1]);
        let frame = from_outside(client, VIP).tcp(1024 + flow * 7, 80).flags(SYN);
        *shares.entry(bench.backend_of(&frame)).or_default() += 1;
    }
    shares
}

#[test]
fn l02_new_connections_are_spread_evenly() {
    with_balancer(&service("dsr", "", &[11, 12, 13, 14]), |bench| {
        let shares = shares(bench, 2000);
        // 500 are expected, by a binomial distribution with a deviation of 19.4: five of them.
        assert_eq!(shares.len(), 4);
        assert!(shares.values().all(|count| (403..=597).contains(count)), "{shares:?}");
    });
}

#[test]
fn l16_new_connections_are_spread_by_weight() {
    let text =
        format!("{}[[services.backends]]\naddress = \"{}\"\nweight = 3\n", service("dsr", "", &[11]), backend(12));
    with_balancer(&text, |bench| {
        let shares = shares(bench, 2000);
        // 500 and 1500 are expected; five deviations.
        assert!((403..=597).contains(&shares[&11]) && (1403..=1597).contains(&shares[&12]), "{shares:?}");
    });
}

#[test]
fn l05_instances_agree_whatever_the_order_of_their_backends() {
    lab(|lab| {
        let answers = [&[11, 12, 13, 14][..], &[14, 12, 11, 13], &[13, 14, 12, 11]].map(|order| {
            let mut bench = Bench::new(lab, 1, super::bench::ROUTER, config(&service("dsr", "", order)));
            (1024..1424).map(|port| bench.backend_of(&from_client().tcp(port, 80).flags(SYN))).collect::<Vec<_>>()
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0], answers[2]);
        // One that has lost its connections sends what goes on to the same ones.
        let mut bench = Bench::new(lab, 2, super::bench::ROUTER, config(&service("dsr", "", &[12, 11, 14, 13])));
        let midst: Vec<_> = (1024..1424).map(|port| bench.backend_of(&from_client().tcp(port, 80))).collect();
        assert_eq!(answers[0], midst);
        // With another seed they go elsewhere.
        let text = format!("hash_seed = 1\n{}", service("dsr", "", &[11, 12, 13, 14]));
        let mut bench = Bench::new(lab, 1, super::bench::ROUTER, config(&text));
        let others: Vec<_> = (1024..1424).map(|port| bench.backend_of(&from_client().tcp(port, 80))).collect();
        assert_ne!(answers[0], others);
    });
}

#[test]
fn l09_a_service_is_found_by_address_protocol_and_port() {
    let one = |name: &str, protocol: &str, port: &str, number: u8| {
        format!(
            "[[services]]\nname = \"{name}\"\naddress = \"{VIP}\"\nmode = \"dsr\"\nprotocol = \"{protocol}\"\n{port}\n\
             [[services.backends]]\naddress = \"{}\"\n",
            backend(number)
        )
    };
    let text = [
        one("port", "tcp", "port = 443", 11),
        one("range", "tcp", "port = \"8000-8999\"", 12),
        one("all", "udp", "", 13),
        one("both", "any", "port = 53", 14),
        one("rest", "any", "", 11),
    ]
    .concat();
    with_balancer(&text, |bench| {
        for (what, frame, expected) in [
            ("its port", from_client().tcp(1000, 443), 11),
            ("the first of a range", from_client().tcp(1000, 8000), 12),
            ("the last of a range", from_client().tcp(1000, 8999), 12),
            ("behind the range", from_client().tcp(1000, 9000), 11),
            ("a port of both protocols", from_client().tcp(1000, 53), 14),
            ("the same by the other", from_client().udp(1000, 53), 14),
            ("all ports of one", from_client().udp(1000, 443), 13),
            ("another protocol", from_client().protocol(132).payload(&[0; 16]), 11),
        ] {
            assert_eq!(bench.backend_of(&frame), expected, "{what}");
        }
    });
}

#[test]
fn l09_by_source_all_flows_of_a_client_go_to_one_backend() {
    with_balancer(&service("dsr", "hash = \"source\"", &[11, 12, 13, 14]), |bench| {
        let mut seen = BTreeMap::<u8, u32>::new();
        for host in 1..=40 {
            let client = Ipv4Addr::new(192, 0, 2, host);
            let all: Vec<_> = (0..5)
                .map(|port| bench.backend_of(&from_outside(client, VIP).tcp(2000 + port, 80).flags(SYN)))
                .collect();
            assert!(all.iter().all(|number| *number == all[0]), "{all:?}");
            *seen.entry(all[0]).or_default() += 1;
        }
        assert_eq!(seen.len(), 4, "{seen:?}");
    });
}

#[test]
fn l09_by_destination_port_all_flows_to_a_port_go_to_one_backend() {
    let text = service("dsr", "hash = \"destination-port\"\nport = \"1000-2000\"", &[11, 12, 13, 14]);
    with_balancer(&text, |bench| {
        let mut seen = BTreeMap::<u8, u32>::new();
        for port in 1000..1040 {
            let all: Vec<_> = (1..=5)
                .map(|host| bench.backend_of(&from_outside([192, 0, 2, host].into(), VIP).tcp(999, port).flags(SYN)))
                .collect();
            assert!(all.iter().all(|number| *number == all[0]), "{all:?}");
            *seen.entry(all[0]).or_default() += 1;
        }
        assert_eq!(seen.len(), 4, "{seen:?}");
    });
}

#[test]
fn l09_a_quic_connection_stays_when_its_client_gets_another_address() {
    let mut text = service("dsr", "hash = \"quic\"\nprotocol = \"udp\"\nport = 443", &[]);
    for number in 11..=14 {
        let address = backend(number);
        text.push_str(&format!("[[services.backends]]\naddress = \"{address}\"\nserver_id = \"00{number:02x}\"\n"));
    }
    with_balancer(&text, |bench| {
        let initial = |port: u16| from_client().udp(port, 443).payload(&[0xc0, 0, 0, 0, 1, 8, 7, 0, 13, 1, 2, 3, 4, 5]);
        let short = |client: Ipv4Addr, port: u16, server: u8| {
            from_outside(client, VIP).udp(port, 443).payload(&[0x40, 0x07, 0, server, 1, 2, 3, 4, 5])
        };
        // What the client makes up names nobody: its tuple decides.
        let chosen: std::collections::BTreeSet<_> = (1000..1040).map(|port| bench.backend_of(&initial(port))).collect();
        assert_eq!(chosen.len(), 4);
        for number in 11..=14 {
            for host in 1..=10 {
                let client = Ipv4Addr::new(192, 0, 2, 100 + host);
                assert_eq!(bench.backend_of(&short(client, 5000, number)), number);
                assert_eq!(bench.backend_of(&short(client, 5000, number)), number, "known by now");
                // Another client has the address and port now.
                let other = if number == 14 { 11 } else { number + 1 };
                assert_eq!(bench.backend_of(&short(client, 5000, other)), other);
            }
        }
        assert!(bench.counter("quic-connections-migrated") > 0);
        // Nobody has this name: the tuple decides, and once it is known it stays.
        let number = bench.backend_of(&short([192, 0, 2, 77].into(), 6000, 99));
        assert_eq!(bench.backend_of(&short([192, 0, 2, 77].into(), 6000, 99)), number);
    });
}

#[test]
fn several_new_flows_and_known_ones_of_one_burst_all_arrive() {
    with_balancer(&service("dsr", "", &[11, 12, 13, 14]), |bench| {
        let known = bench.connect(1000..1010);
        let frames: Vec<_> = (1000..1020).map(|port| from_client().tcp(port, 80).build()).collect();
        let outcome = bench.burst(&frames);
        assert_eq!((outcome.inside.len(), outcome.dropped.len()), (20, 0), "{outcome:?}");
        for frame in &outcome.inside {
            let port = u16::from_be_bytes([frame[34], frame[35]]);
            if let Some((_, number)) = known.iter().find(|(known, _)| *known == port) {
                assert_eq!(frame[5], *number);
            }
        }
        assert_eq!(went_to(&bench.client(&from_client().tcp(1000, 80))), known[0].1);
    });
}
