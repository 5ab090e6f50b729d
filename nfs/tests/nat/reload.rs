//! Other configurations while the program runs, and its end.

use super::bench::{A, B, Bench, C, P, X, Y, came, config, dropped, from, from_outside, left, with_nat};
use nf_framework::headers::TcpFlags;
use std::net::Ipv4Addr;

const Q: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 101);
const SYN: TcpFlags = TcpFlags::SYN;

fn pools(addresses: &str, draining: &str) -> String {
    format!("[[pools]]\naddresses = [{addresses}]\ndraining = [{draining}]\n")
}

const OLD: &str = "\"198.51.100.100\"";
const NEW: &str = "\"198.51.100.101\"";

/// Whether a packet for a mapping of A's comes to it.
fn lives(nat: &mut Bench, external: Ipv4Addr, port: u16) -> bool {
    let back = nat.back(&from_outside(X, external).udp(53, port));
    if back.inside.is_empty() {
        return false;
    }
    came(&back).destination == A
}

#[test]
fn sessions_stay_when_nothing_is_said_of_them() {
    with_nat("", |nat| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        let tcp = nat.connect(A, 5001, (X, 80));
        for text in [
            "timeouts.udp = 100",
            "ports_per_subscriber = 3",
            "exclude = [\"203.0.113.2\"]",
            "mss = 1300",
            "unsolicited_syn = \"silent\"",
            "one_to_one = [{ inside = \"192.168.1.20\", outside = \"198.51.100.110\" }]",
            "keep_parity = true",
        ] {
            nat.reload(config(text)).unwrap();
            assert!(lives(nat, P, udp), "{text}");
            assert_eq!(nat.udp_port(A, 5000, (X, 53)), udp, "{text}");
            assert_eq!(left(&nat.out(&from(A, X).tcp(5001, 80))).source_port, tcp, "{text}");
            assert_eq!(came(&nat.back(&from_outside(X, P).tcp(80, tcp))).destination_port, 5001, "{text}");
        }
        assert_eq!(nat.sessions(), 2);
    });
}

#[test]
fn a_new_timeout_holds_from_the_next_packet_on() {
    with_nat("timeouts.udp = 100", |nat| {
        let (asked, silent) = (nat.udp_port(A, 5000, (X, 53)), nat.udp_port(A, 5001, (X, 53)));
        nat.reload(config("timeouts.udp = 1000")).unwrap();
        nat.udp_port(A, 5000, (X, 53));
        nat.pass(110);
        assert!(lives(nat, P, asked));
        assert!(!lives(nat, P, silent));
        nat.pass(880);
        assert!(lives(nat, P, asked));
        nat.reload(config("timeouts.udp = 10")).unwrap();
        nat.udp_port(A, 5000, (X, 53));
        nat.pass(11);
        assert!(!lives(nat, P, asked));
    });
}

#[test]
fn a_session_goes_on_when_its_destination_is_excluded_and_none_begins() {
    with_nat("", |nat| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        nat.reload(config("exclude = [\"203.0.113.0/24\"]")).unwrap();
        assert_eq!(nat.udp_port(A, 5000, (X, 53)), udp);
        assert!(lives(nat, P, udp));
        assert_eq!(left(&nat.out(&from(A, X).udp(5000, 54))).source, A);
        assert_eq!(left(&nat.out(&from(A, Y).udp(5001, 53))).source, A);
        assert_eq!(nat.sessions(), 1);
    });
}

#[test]
fn a_new_limit_ends_nothing_that_is_there() {
    with_nat("", |nat| {
        let ports: Vec<_> = (0..4).map(|port| nat.udp_port(A, 5000 + port, (X, 53))).collect();
        nat.reload(config("ports_per_subscriber = 2")).unwrap();
        assert_eq!(dropped(&nat.out(&from(A, X).udp(6000, 53))), "nat-subscriber-limit");
        assert!(ports.iter().all(|port| lives(nat, P, *port)));
        nat.reload(config("")).unwrap();
        nat.udp_port(A, 6000, (X, 53));
    });
}

#[test]
fn an_address_comes_is_drained_and_goes() {
    with_nat("[[pools]]\naddresses = [\"198.51.100.100\"]", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        // It comes: who has an address keeps it, new hosts get either.
        nat.reload(config(&pools(&format!("{OLD}, {NEW}"), ""))).unwrap();
        assert_eq!(left(&nat.out(&from(A, X).udp(5001, 53))).source, P);
        let hosts = (1..=40).map(|host| Ipv4Addr::new(192, 168, 2, host));
        let new = hosts.filter(|host| left(&nat.out(&from(*host, X).udp(5000, 53))).source == Q).count();
        assert!(new > 0 && new < 40, "{new}");
        // The old one is drained: what it has goes on, towards new hosts too, and nothing new begins.
        nat.reload(config(&pools(NEW, OLD))).unwrap();
        assert!(lives(nat, P, port));
        assert_eq!(nat.udp_port(A, 5000, (Y, 53)), port);
        assert_eq!(left(&nat.out(&from(A, X).udp(5002, 53))).source, Q);
        assert_eq!(left(&nat.out(&from(B, X).udp(5000, 53))).source, Q);
        // A host whose address is drained has a new one from there on.
        assert_eq!(left(&nat.out(&from(A, X).udp(5003, 53))).source, Q);
        // It goes: what it had is cut.
        nat.reload(config(&pools(NEW, ""))).unwrap();
        assert!(!lives(nat, P, port));
        let out = left(&nat.out(&from(A, X).udp(5000, 53)));
        assert_eq!(out.source, Q);
        // And comes back, empty.
        nat.reload(config(&pools(&format!("{OLD}, {NEW}"), ""))).unwrap();
        assert_eq!(dropped(&nat.back(&from_outside(X, P).udp(53, port))), "nat-no-mapping");
        assert_eq!(nat.udp_port(A, 5000, (X, 53)), out.source_port);
    });
}

#[test]
fn an_address_that_was_gone_may_come_back_in_another_pool() {
    const BOTH: &str = "[[pools]]\naddresses = [\"198.51.100.100/31\"]";
    const TWO: &str = "[[pools]]\naddresses = [\"198.51.100.101\"]\nsubscribers = [\"192.168.1.10\"]\n\
                       [[pools]]\naddresses = [\"198.51.100.100\"]";
    with_nat(BOTH, |nat| {
        for host in 1..=20 {
            nat.out(&from(Ipv4Addr::new(192, 168, 2, host), X).udp(5000, 53));
        }
        nat.reload(config(&pools(NEW, ""))).unwrap();
        nat.reload(config(TWO)).unwrap();
        for port in 0..20 {
            assert_eq!(left(&nat.out(&from(A, X).udp(5000 + port, 53))).source, Q);
            let host = Ipv4Addr::new(192, 168, 3, port.to_be_bytes()[1]);
            assert_eq!(left(&nat.out(&from(host, X).udp(5000, 53))).source, P);
        }
    });
}

#[test]
fn what_is_sent_to_an_address_turns_as_long_as_it_is_ours() {
    with_nat("[[pools]]\naddresses = [\"198.51.100.100\"]", |nat| {
        let question = from(A, Q).udp(5000, 53);
        assert_eq!(nat.out(&question).held, 1, "Q is somebody on the outer link, who is looked for");
        nat.pass(5);
        nat.reload(config(&pools(&format!("{OLD}, {NEW}"), ""))).unwrap();
        assert_eq!(dropped(&nat.out(&question)), "nat-no-mapping");
        nat.reload(config(&pools(OLD, ""))).unwrap();
        assert_eq!(nat.out(&question).held, 1);
        nat.pass(5);
    });
}

#[test]
fn a_host_gets_no_address_of_another_pool_in_the_place_of_one_that_is_gone() {
    const BOTH: &str = "pooling = \"arbitrary\"\ntimeouts.port_quiet = 0\n\
                        [[pools]]\naddresses = [\"198.51.100.100/31\"]\nports = \"2000-2063\"";
    with_nat(BOTH, |nat| {
        let first = left(&nat.out(&from(A, X).udp(5000, 53))).source;
        // More than one address has.
        for port in 1..100 {
            nat.out(&from(A, X).udp(5000 + port, 53));
        }
        let other = if first == P { Q } else { P };
        let text = format!(
            "pooling = \"arbitrary\"\ntimeouts.port_quiet = 0\n[[pools]]\naddresses = [\"{other}\"]\nports = \"2000-2063\"\n"
        );
        nat.reload(config(&text)).unwrap();
        nat.reload(config(&format!("{text}[[pools]]\naddresses = [\"198.51.100.102\"]\n"))).unwrap();
        assert_eq!(left(&nat.out(&from(A, X).icmp_echo_request(1, 1))).source, other);
    });
}

#[test]
fn without_an_address_that_is_not_drained_there_are_no_new_mappings() {
    with_nat("[[pools]]\naddresses = [\"198.51.100.100\"]", |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        nat.reload(config(&pools("", OLD))).unwrap();
        assert!(lives(nat, P, port));
        for host in [A, B] {
            assert_eq!(dropped(&nat.out(&from(host, X).udp(6000, 53))), "nat-ports-exhausted");
        }
        nat.reload(config(&pools(OLD, ""))).unwrap();
        nat.udp_port(A, 6000, (X, 53));
        assert!(lives(nat, P, port));
    });
}

#[test]
fn a_forward_takes_the_port_from_who_has_it_and_gives_it_back() {
    const TEXT: &str = "[[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-2015\"\n";
    const FORWARD: &str = "forward = [{ protocol = \"udp\", outside = \"198.51.100.100\", ports = \"2000-2014\", to = [\"192.168.1.40:9000\"] }]\n";
    super::bench::on_one_worker(
        "timeouts.port_quiet = 0\n[[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-2015\"",
        |nat| {
            let taken: Vec<_> = (0..16).map(|port| (nat.udp_port(A, 5000 + port, (X, 53)), 5000 + port)).collect();
            let text = format!("timeouts.port_quiet = 0\n{FORWARD}{TEXT}");
            nat.reload(config(&text)).unwrap();
            assert_eq!(nat.sessions(), 1);
            for (external, _) in &taken {
                let back = came(&nat.back(&from_outside(X, P).udp(53, *external)));
                assert_eq!(back.destination, if *external == 2015 { A } else { C });
            }
            let (_, kept) = taken.iter().find(|(external, _)| *external == 2015).unwrap();
            for (_, client) in &taken {
                let out = nat.out(&from(A, X).udp(*client, 53));
                if client == kept {
                    assert_eq!(left(&out).source_port, 2015);
                } else {
                    assert_eq!(dropped(&out), "nat-ports-exhausted");
                }
            }
            nat.reload(config(&format!("timeouts.port_quiet = 0\n{TEXT}"))).unwrap();
            assert_eq!(dropped(&nat.back(&from_outside(X, P).udp(53, 2000))), "nat-no-mapping");
            for (_, client) in &taken {
                nat.udp_port(A, *client, (X, 53));
            }
            assert_eq!(nat.sessions(), 16);
        },
    );
}

#[test]
fn what_a_table_was_made_for_changes_by_a_restart_only() {
    const TWO: &str = "[[pools]]\naddresses = [\"198.51.100.100\"]\n[[pools]]\naddresses = [\"198.51.100.101\"]";
    with_nat(TWO, |nat| {
        let port = nat.udp_port(A, 5000, (X, 53));
        let both = |more: &str| format!("{more}\n{TWO}");
        for (text, key) in [
            (both("sessions = 128"), "sessions"),
            (both("subscribers = 128"), "subscribers"),
            (both("filtering.udp = \"address-dependent\""), "filtering"),
            (both("log = { file = \"nowhere\" }"), "log"),
            (pools(&format!("{OLD}, {NEW}"), ""), "pools[0].addresses"),
        ] {
            let invalid = nat.reload(config(&text)).unwrap_err();
            assert_eq!(invalid.key, key, "{text}");
            assert!(invalid.message.contains("restart"), "{}", invalid.message);
        }
        assert!(lives(nat, P, port));
    });
    with_nat("[[pools]]\naddresses = [\"198.51.100.100/31\"]", |nat| {
        let invalid = nat.reload(config(TWO)).unwrap_err();
        assert_eq!(invalid.key, "pools[1]");
        assert!(invalid.message.contains("restart"), "{}", invalid.message);
    });
}

#[test]
fn pools_may_change_places() {
    const TWO: &str = "[[pools]]\naddresses = [\"198.51.100.100\"]\nsubscribers = [\"192.168.1.10\"]\n[[pools]]\naddresses = [\"198.51.100.101\"]";
    const SWAPPED: &str = "[[pools]]\naddresses = [\"198.51.100.101\"]\nsubscribers = [\"192.168.1.20\"]\n[[pools]]\naddresses = [\"198.51.100.100\"]";
    with_nat(TWO, |nat| {
        let (a, b) = (nat.udp_port(A, 5000, (X, 53)), left(&nat.out(&from(B, X).udp(5000, 53))));
        assert_eq!(b.source, Q);
        nat.reload(config(SWAPPED)).unwrap();
        assert_eq!(nat.udp_port(A, 5000, (Y, 53)), a);
        let again = left(&nat.out(&from(B, Y).udp(5000, 53)));
        assert_eq!((again.source, again.source_port), (b.source, b.source_port));
    });
}

#[test]
fn while_the_program_drains_nothing_begins_and_everything_goes_on() {
    with_nat("one_to_one = [{ inside = \"192.168.1.20\", outside = \"198.51.100.110\" }]", |nat| {
        let udp = nat.udp_port(A, 5000, (X, 53));
        nat.connect(A, 5001, (X, 80));
        nat.trial.set_draining(true);
        for frame in [
            from(A, X).udp(5002, 53),
            from(A, Y).udp(5000, 53),
            from(A, X).tcp(5003, 80).flags(SYN),
            from(A, X).icmp_echo_request(1, 1),
        ] {
            let out = nat.out(&frame);
            assert_eq!((dropped(&out), out.inside.len()), ("draining", 0));
        }
        assert_eq!(nat.udp_port(A, 5000, (X, 53)), udp);
        left(&nat.out(&from(A, X).tcp(5001, 80)));
        assert!(lives(nat, P, udp));
        // What has no sessions is no session's end.
        left(&nat.out(&from(B, X).udp(5000, 53)));
        nat.pass(301);
        assert_eq!(nat.sessions(), 1);
        nat.pass(7200);
        assert_eq!(nat.sessions(), 0);
        nat.trial.set_draining(false);
        nat.udp_port(A, 5000, (X, 53));
    });
}

#[test]
fn nothing_begins_on_an_address_that_goes() {
    // More than the time between the reload and the packets looks through.
    const BOTH: &str = "sessions = 131072\n[[pools]]\naddresses = [\"198.51.100.100/31\"]";
    const ONE: &str = "sessions = 131072\n[[pools]]\naddresses = [\"198.51.100.101\"]";
    with_nat(BOTH, |nat| {
        let hosts = (1..=100).map(|host| Ipv4Addr::new(192, 168, 2, host));
        let out = |nat: &mut Bench, host, to| nat.out(&from(host, to).udp(5000, 53));
        for host in hosts.clone() {
            left(&out(nat, host, X));
        }
        nat.reload(config(ONE)).unwrap();
        let mut refused = 0;
        for host in hosts.clone() {
            let outcome = out(nat, host, Y);
            if outcome.outside.is_empty() {
                assert_eq!(dropped(&outcome), "nat-no-session");
                refused += 1;
            } else {
                assert_eq!(left(&outcome).source, Q, "{host}");
            }
        }
        assert!(refused > 0, "no old session was there still");
        for _ in 0..8 {
            nat.pass(1);
        }
        for host in hosts {
            assert_eq!(left(&out(nat, host, Y)).source, Q, "{host}");
        }
    });
}

#[test]
fn nothing_begins_on_a_port_that_becomes_a_servers() {
    const WITH: &str = "sessions = 131072\n[[pools]]\naddresses = [\"198.51.100.100\"]\nports = \"2000-2063\"";
    const SERVER: &str = "sessions = 131072\nforward = [{ protocol = \"udp\", outside = \"198.51.100.100\", \
                          ports = \"2000-2063\", to = [\"192.168.1.20:3000\"] }]\n\
                          [[pools]]\naddresses = [\"198.51.100.100\"]";
    with_nat(WITH, |nat| {
        let ports = 5000..5020;
        for port in ports.clone() {
            nat.udp_port(A, port, (X, 53));
        }
        nat.reload(config(SERVER)).unwrap();
        for port in ports.clone() {
            nat.out(&from(A, Y).udp(port, 53));
        }
        for _ in 0..8 {
            nat.pass(1);
        }
        for port in ports {
            let external = nat.udp_port(A, port, (Y, 53));
            assert!(!(2000..=2063).contains(&external), "{external}");
        }
    });
}

#[test]
fn an_address_that_comes_back_in_another_pool_is_its_when_what_it_had_is_gone() {
    const BOTH: &str = "sessions = 131072\n[[pools]]\naddresses = [\"198.51.100.100/31\"]";
    const ONE: &str = "sessions = 131072\n[[pools]]\naddresses = [\"198.51.100.101\"]";
    const TWO: &str = "sessions = 131072\n[[pools]]\naddresses = [\"198.51.100.101\"]\n\
                       subscribers = [\"192.168.1.10\"]\n[[pools]]\naddresses = [\"198.51.100.100\"]";
    with_nat(BOTH, |nat| {
        let sources = (1..=100).map(|host| {
            let host = Ipv4Addr::new(192, 168, 2, host);
            left(&nat.out(&from(host, X).udp(5000, 53))).source
        });
        let stay = sources.filter(|source| *source == Q).count() as u64;
        nat.reload(config(ONE)).unwrap();
        nat.reload(config(TWO)).unwrap();
        assert!(nat.sessions() > stay, "none is to go still");
        for _ in 0..8 {
            nat.pass(1);
        }
        assert_eq!(nat.sessions(), stay);
        assert_eq!(left(&nat.out(&from(B, X).udp(5000, 53))).source, P);
        assert_eq!(left(&nat.out(&from(A, X).udp(5000, 53))).source, Q);
    });
}
