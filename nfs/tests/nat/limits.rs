//! What there is too little of: RFC 6888, RFC 5508 REQ-8.

use super::bench::{
    A, B, Bench, C, P, ROUTER, X, Y, came, dropped, from, from_outside, inside, left, packet, with_nat,
    with_nat_between,
};
use nf_framework::headers::TcpFlags;
use nf_framework::testing::{Frame, Outcome};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const SYN: TcpFlags = TcpFlags::SYN;
const LAN: Ipv4Addr = Ipv4Addr::new(192, 168, 0, 1);

/// That a host's packet was dropped, and the host told.
fn refused(nat: &mut Bench, host: Ipv4Addr, frame: &Frame, reason: &str) {
    let out = nat.out(frame);
    assert_eq!((dropped(&out), out.outside.len()), (reason, 0));
    let about = packet(frame);
    let error = inside(LAN, host).time_to_live(64).traffic_class(0xc0).icmp(3, 13, [0; 4]).payload(&about);
    assert_eq!(out.inside, [error.build()], "{reason}");
}

#[test]
fn n28_who_gets_nothing_is_told() {
    with_nat("[[pools]]\naddresses = [\"198.51.100.100\"]\nsubscribers = [\"192.168.1.10\"]", |nat| {
        for frame in [from(B, X).udp(5000, 53), from(B, X).tcp(5000, 80).flags(SYN), from(B, X).icmp_echo_request(5, 1)]
        {
            refused(nat, B, &frame.time_to_live(33), "nat-no-pool");
        }
        left(&nat.out(&from(A, X).udp(5000, 53)));
    });
    with_nat("ports_per_subscriber = 1", |nat| {
        nat.udp_port(A, 5000, (X, 53));
        refused(nat, A, &from(A, X).udp(5001, 53), "nat-subscriber-limit");
        refused(nat, A, &from(A, X).icmp_echo_request(5001, 1), "nat-subscriber-limit");
    });
    with_nat("[[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-2127\"", |nat| {
        for port in 0..128 {
            nat.out(&from(A, X).udp(5000 + port, 53));
        }
        refused(nat, A, &from(A, X).udp(6000, 53), "nat-ports-exhausted");
    });
}

#[test]
fn n28_who_is_told_is_not_who_floods() {
    with_nat_between(&format!("icmp_errors_per_second = 10\n{ROUTER}"), "ports_per_subscriber = 1", |nat| {
        nat.udp_port(A, 5000, (X, 53));
        let mut told = 0;
        for port in 0..1000 {
            told += nat.out(&from(A, X).udp(6000 + port, 53)).inside.len();
        }
        assert!(told > 0 && told <= 20, "{told}");
        // No error is about an error, or about what begins nothing.
        for frame in [from(A, X).tcp(6000, 80), from(A, X).icmp_echo_reply(6000, 1)] {
            assert!(nat.out(&frame).inside.is_empty());
        }
    });
}

#[test]
fn n34_a_host_has_so_many_ports_and_no_more() {
    with_nat("ports_per_subscriber = 4\ntimeouts.udp = 10", |nat| {
        for host in [A, B] {
            nat.udp_port(host, 5000, (X, 53));
            nat.udp_port(host, 5001, (X, 53));
            left(&nat.out(&from(host, X).tcp(5000, 80).flags(SYN)));
            left(&nat.out(&from(host, X).icmp_echo_request(5000, 1)));
            refused(nat, host, &from(host, X).udp(5002, 53), "nat-subscriber-limit");
            refused(nat, host, &from(host, X).tcp(5001, 80).flags(SYN), "nat-subscriber-limit");
            // What it has it may use, towards others too.
            nat.udp_port(host, 5000, (Y, 53));
        }
        // One that goes makes place for one.
        nat.pass(11);
        nat.udp_port(A, 5002, (X, 53));
        nat.udp_port(A, 5003, (X, 53));
        refused(nat, A, &from(A, X).udp(5004, 53), "nat-subscriber-limit");
    });
}

#[test]
fn n34_a_host_has_so_many_sessions_and_no_more() {
    with_nat("sessions_per_subscriber = 3\ntimeouts.udp = 10", |nat| {
        for host in [A, B] {
            for to in [53, 54, 55] {
                nat.udp_port(host, 5000, (X, to));
            }
            refused(nat, host, &from(host, X).udp(5000, 56), "nat-subscriber-limit");
            refused(nat, host, &from(host, X).udp(5001, 53), "nat-subscriber-limit");
            // Those that it has go on.
            nat.udp_port(host, 5000, (X, 54));
        }
        nat.pass(11);
        nat.udp_port(A, 5000, (X, 56));
    });
}

#[test]
fn n34_a_port_that_was_given_back_is_quiet_for_two_minutes() {
    for (text, quiet) in [
        ("timeouts.udp = 10\n[[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-2063\"", 120),
        (
            "timeouts = { udp = 10, port_quiet = 20 }\n[[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-2063\"",
            20,
        ),
        (
            "timeouts = { udp = 10, port_quiet = 0 }\n[[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-2063\"",
            0,
        ),
    ] {
        with_nat(text, move |nat| {
            let fill = |nat: &mut Bench, from_port: u16| -> BTreeSet<u16> {
                let mut ports = BTreeSet::new();
                for port in from_port..from_port + 64 {
                    let out = nat.out(&from(A, X).udp(port, 53));
                    if !out.outside.is_empty() {
                        assert!(ports.insert(left(&out).source_port));
                    }
                }
                ports
            };
            let first = fill(nat, 5000);
            assert!(if nat.workers == 1 { first.len() == 64 } else { !first.is_empty() });
            refused(nat, A, &from(A, X).udp(4999, 53), "nat-ports-exhausted");
            nat.pass(11);
            assert_eq!(nat.sessions(), 0);
            if quiet > 0 {
                // They were given back up to a second ago.
                nat.pass(quiet - 2);
                refused(nat, A, &from(A, X).udp(4999, 53), "nat-ports-exhausted");
                // Not even to the host that had them, or from who was there.
                let port = *first.first().unwrap();
                assert_eq!(dropped(&nat.back(&from_outside(X, P).udp(53, port))), "nat-no-mapping");
                nat.pass(4);
            }
            // All of them are free again, and no others.
            assert_eq!(fill(nat, 6000), first);
        });
    }
}

#[test]
fn limits_are_for_each_pool() {
    const POOLS: &str = "[[pools]]\naddresses = [\"198.51.100.101\"]\nto = [\"203.0.113.1\"]\n\
                         [[pools]]\naddresses = [\"198.51.100.102\"]";
    for limit in ["ports_per_subscriber = 1", "sessions_per_subscriber = 1"] {
        with_nat(&format!("{limit}\n{POOLS}"), |nat| {
            for (to, address) in [(X, 101), (Y, 102)] {
                assert_eq!(left(&nat.out(&from(A, to).udp(5000, 53))).source.octets()[3], address);
                refused(nat, A, &from(A, to).udp(5001, 53), "nat-subscriber-limit");
            }
        });
    }
}

#[test]
fn n34_excluded_destinations_are_reached_untranslated() {
    const OFFICE: Ipv4Addr = Ipv4Addr::new(10, 1, 2, 3);
    with_nat("exclude = [\"10.0.0.0/8\", \"203.0.113.2\"]\nports_per_subscriber = 1", |nat| {
        nat.udp_port(A, 5000, (X, 53));
        for to in [OFFICE, Y] {
            for frame in [
                |frame: Frame| frame.udp(5000, 53).payload(b"question"),
                |frame: Frame| frame.tcp(5001, 80),
                |frame: Frame| frame.icmp_echo_request(5, 1),
                |frame: Frame| frame.protocol(47).payload(&[1; 9]),
                |frame: Frame| frame.udp(5000, 53).fragment(0, true).payload(&[1; 32]),
            ] {
                let out = nat.out(&frame(from(A, to)));
                assert_eq!(out.outside, [frame(super::bench::outside(A, to)).build()]);
                let back = nat.back(&frame(from_outside(to, A)));
                assert_eq!(back.inside, [frame(inside(to, A)).build()]);
            }
        }
        // They count for nothing, and from others nothing comes untranslated.
        assert_eq!(nat.sessions(), 1);
        assert_eq!(dropped(&nat.back(&from_outside(X, A).udp(53, 5000))), "nat-not-translated");
        assert_eq!(left(&nat.out(&from(A, X).udp(5000, 53))).source, P);
    });
}

#[test]
fn external_addresses_are_excluded_by_no_prefix_and_one_to_one_hosts_by_their_destination() {
    const TEXT: &str = "exclude = [\"198.51.100.0/24\", \"192.168.0.0/16\"]\n\
                        one_to_one = [{ inside = \"192.168.1.20\", outside = \"198.51.100.110\" }]";
    const NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
    const OF_B: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 110);
    with_nat(TEXT, |nat| {
        // Inside hosts meet at their external addresses.
        let of_c = nat.udp_port(C, 6000, (X, 53));
        assert_eq!(came(&nat.out(&from(A, P).udp(5000, of_c))).source, P);
        assert_eq!(came(&nat.out(&from(A, OF_B).udp(5000, 53))).source, P);
        assert_eq!(dropped(&nat.out(&from(A, P).protocol(47))), "nat-protocol");
        assert_eq!(nat.counter("hairpin-packets"), 2);
        // Their neighbours are excluded, for a host with an address of its own too, which is translated elsewhere.
        for host in [A, B] {
            let out = nat.out(&from(host, NEIGHBOUR).udp(5000, 53));
            assert_eq!(out.outside, [super::bench::outside(host, NEIGHBOUR).udp(5000, 53).build()]);
        }
        assert_eq!(left(&nat.out(&from(B, X).udp(5000, 53))).source, OF_B);
        assert_eq!(came(&nat.back(&from_outside(X, OF_B).udp(53, 5000))).destination, B);
    });
}

#[test]
fn n34_ports_cannot_be_guessed() {
    with_nat("", |nat| {
        for kind in [0, 1, 2] {
            let ports: Vec<u16> = (0..256)
                .map(|port| {
                    let frame = match kind {
                        0 => from(A, X).udp(5000 + port, 53),
                        1 => from(A, X).tcp(5000 + port, 80).flags(SYN),
                        _ => from(A, X).icmp_echo_request(5000 + port, 1),
                    };
                    left(&nat.out(&frame)).source_port
                })
                .collect();
            // One port does not tell the next one. By chance about 256 / 64512 do.
            let steps: Vec<i32> = ports.windows(2).map(|pair| i32::from(pair[1]) - i32::from(pair[0])).collect();
            assert!(steps.iter().filter(|step| step.abs() < 16).count() < 16, "{steps:?}");
            let different: BTreeSet<_> = steps.iter().collect();
            assert!(different.len() > 200, "{different:?}");
            // All parts of the range are used: 16 of each 4032 are to be expected.
            let mut parts = [0; 16];
            for port in &ports {
                parts[usize::from((port - 1024) / 4033)] += 1;
            }
            assert!(parts.iter().all(|count| (1..=48).contains(count)), "{parts:?}");
            // Nor does the inside port tell it.
            assert!(ports.iter().zip(5000..).filter(|(external, port)| **external == *port).count() < 4);
        }
    });
    // Another start of the same program gives others.
    let first = std::sync::Arc::new(std::sync::Mutex::new(BTreeSet::new()));
    for _ in 0..4 {
        let first = std::sync::Arc::clone(&first);
        nf_framework::testing::lab(move |lab| {
            let mut nat = Bench::new(lab, 1, ROUTER, super::bench::config(""));
            first.lock().unwrap().insert(nat.udp_port(A, 5000, (X, 53)));
        });
    }
    assert!(first.lock().unwrap().len() > 1);
}

/// A host of which there are many.
fn host(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(192, 168, 64 + high, low)
}

fn tcp(nat: &mut Bench, host: Ipv4Addr, port: u16, flags: TcpFlags) -> Outcome {
    nat.out(&from(host, X).tcp(port, 80).flags(flags))
}

#[test]
fn established_sessions_outlive_a_flood_of_others() {
    const FILTERED: &str = "sessions = 512\nsubscribers = 512\nfiltering.tcp = \"address-and-port-dependent\"";
    for text in ["sessions = 512\nsubscribers = 512", FILTERED] {
        with_nat(text, outlives_a_flood);
    }
}

fn outlives_a_flood(nat: &mut Bench) {
    let connections: Vec<_> = (0..100).map(|port| (5000 + port, nat.connect(A, 5000 + port, (X, 80)))).collect();
    // A question that was answered, and asked again, is as good.
    let udp = nat.udp_port(A, 7000, (X, 53));
    came(&nat.back(&from_outside(X, P).udp(53, udp)));
    nat.udp_port(A, 7000, (X, 53));
    let (mut passed, mut last) = (0, 0);
    for number in 0..5000_u16 {
        let out = tcp(nat, host(number % 256), 10_000 + number, SYN);
        passed += out.outside.len();
        last = if out.outside.is_empty() { last } else { number };
    }
    nat.pass(0);
    assert!(nat.counter("sessions-evicted") > 1000, "{}", nat.counter("sessions-evicted"));
    // The flood itself goes on as if there were room.
    assert!(passed > 4900 && last > 4990, "{passed} of 5000, the last {last}");
    for (client, port) in &connections {
        assert_eq!(came(&nat.back(&from_outside(X, P).tcp(80, *port))).destination_port, *client);
        assert_eq!(left(&nat.out(&from(A, X).tcp(*client, 80))).source_port, *port);
    }
    assert_eq!(came(&nat.back(&from_outside(X, P).udp(53, udp))).destination, A);
    // A new connection opens in the middle of it.
    nat.connect(B, 5000, (X, 80));
    // Afterwards everything is as it was before.
    nat.pass(301);
    assert_eq!(nat.sessions(), 101);
    for port in 0..100 {
        nat.connect(C, 5000 + port, (X, 80));
    }
}

#[test]
fn a_table_that_is_full_of_established_sessions_has_room_again_when_they_end() {
    with_nat("sessions = 64\ntimeouts = { tcp_established = 100, port_quiet = 0 }", |nat| {
        let mut open = Vec::new();
        for port in 0..400 {
            let out = tcp(nat, A, 5000 + port, SYN);
            if out.outside.is_empty() {
                assert_eq!(dropped(&out), "nat-sessions-full");
                continue;
            }
            let external = left(&out).source_port;
            came(&nat.back(&from_outside(X, P).tcp(80, external).flags(super::bench::SYN_ACK)));
            open.push((5000 + port, external));
        }
        assert!(open.len() >= 64 && open.len() < 400, "{}", open.len());
        for (client, external) in &open {
            assert_eq!(left(&tcp(nat, A, *client, TcpFlags::ACK)).source_port, *external);
        }
        nat.pass(101);
        assert_eq!(nat.sessions(), 0);
        nat.connect(A, 5000, (X, 80));
    });
}

#[test]
fn so_many_hosts_and_no_more() {
    with_nat("subscribers = 64\ntimeouts.udp = 10", |nat| {
        let (mut served, mut refused) = (0, 0);
        for number in 0..600 {
            let out = nat.out(&from(host(number), X).udp(5000, 53));
            if out.outside.is_empty() {
                assert_eq!(dropped(&out), "nat-subscribers-full");
                refused += 1;
            } else {
                served += 1;
            }
        }
        assert!(served >= 64 && refused > 0, "{served} {refused}");
        // Who is known is served.
        nat.udp_port(host(0), 5001, (X, 53));
        nat.pass(11);
        nat.udp_port(A, 5000, (X, 53));
    });
}

#[test]
fn what_begins_nothing_is_no_matter_of_limits() {
    for text in ["sessions_per_subscriber = 1", "ports_per_subscriber = 1"] {
        with_nat(text, |nat| {
            nat.udp_port(A, 5000, (X, 53));
            for frame in [from(A, X).tcp(5001, 80), from(A, X).icmp_echo_reply(5001, 1)] {
                let out = nat.out(&frame);
                assert_eq!((dropped(&out), out.inside.len()), ("nat-no-session", 0));
            }
            nat.trial.set_draining(true);
            assert_eq!(dropped(&nat.out(&from(A, X).tcp(5001, 80))), "nat-no-session");
        });
    }
    with_nat("subscribers = 64", |nat| {
        for number in 0..600 {
            nat.out(&from(host(number), X).udp(5000, 53));
        }
        for number in 600..1200 {
            assert_eq!(dropped(&nat.out(&from(host(number), X).tcp(5000, 80))), "nat-no-session");
        }
    });
}

#[test]
fn a_worker_without_ports_refuses_its_own_hosts_and_no_others() {
    const PORTS: u16 = 1024;
    for hosts in [20_u8, 80] {
        with_nat("[[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-3023\"", move |nat| {
            let host = |number: u8| Ipv4Addr::new(192, 168, 7, number);
            let (mut given, mut at_first) = (BTreeSet::new(), None);
            // Hosts that were refused once.
            let mut refused = BTreeSet::new();
            for round in 0..PORTS {
                if refused.len() == usize::from(hosts) {
                    break;
                }
                for number in
                    (1..=hosts).filter(|number| round % 8 == 0 || !refused.contains(number)).collect::<Vec<_>>()
                {
                    let out = nat.out(&from(host(number), X).udp(10_000 + round, 53));
                    // (What they are told waits for their addresses.)
                    if !out.dropped.contains_key("nat-ports-exhausted") {
                        assert!(!refused.contains(&number), "a host of a worker that has no ports got one");
                        assert!(given.insert(left(&out).source_port), "a port twice");
                    } else {
                        at_first = at_first.or(Some(given.len()));
                        refused.insert(number);
                    }
                }
            }
            assert_eq!(refused.len(), usize::from(hosts));
            let at_first = at_first.unwrap();
            println!(
                "{hosts} hosts: {at_first} of {PORTS} ports in use when the first was refused, {} at last",
                given.len()
            );
            assert_eq!(given.len(), usize::from(PORTS), "every port has a host");
        });
    }
}
