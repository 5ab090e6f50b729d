//! Backends come, go, fail and are drained: rows L6, L7 and L8, and floods.

use super::bench::{
    ACK, Bench, FIN, RST, SYN, VIP, X, backend, config, dropped, from_client, from_outside, service, with_balancer,
};
use nf_framework::headers::IpProtocol;
use nfs::load_balancer::{Order, ServiceView};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

const ALL: &[u8] = &[11, 12, 13, 14];

/// Connections that are not where they were.
fn moved(bench: &mut Bench, connections: &[(u16, u8)]) -> usize {
    let still = connections.to_vec();
    still.iter().filter(|(port, number)| bench.backend_of(&from_client().tcp(*port, 80)) != *number).count()
}

/// The backends that new connections from these ports go to.
fn new(bench: &mut Bench, ports: std::ops::Range<u16>) -> BTreeSet<u8> {
    bench.connect(ports).into_iter().map(|(_, number)| number).collect()
}

/// The service, as a query shows it.
fn shown(bench: &mut Bench) -> ServiceView {
    bench.command(|instance| instance.services()).remove(0)
}

fn order(bench: &mut Bench, number: u8, order: Order) {
    bench.command(|instance| instance.order("web", &backend(number).to_string(), order)).unwrap();
    assert!(bench.tend(), "there is something new");
    assert!(!bench.tend(), "and then there is not");
}

#[test]
fn l06_live_connections_stay_when_backends_come_and_go() {
    for mode in ["dsr", "ipip"] {
        with_balancer(&service(mode, "", &[11, 12, 13]), move |bench| {
            let connections = bench.connect(1000..1100);
            for backends in [ALL, &[13, 12, 11], &[14, 11, 12, 13], &[12, 14], &[14], ALL] {
                bench.reload(config(&service(mode, "", backends))).unwrap();
                assert_eq!(moved(bench, &connections), 0, "with {backends:?}");
                // New ones go by the new table.
                let first = 2000 + 100 * u16::try_from(backends.len()).unwrap();
                assert_eq!(new(bench, first..first + 60), backends.iter().copied().collect(), "with {backends:?}");
            }
        });
    }
}

#[test]
fn l06_a_flow_is_known_from_its_syn_on() {
    with_balancer(&service("dsr", "", &[11]), |bench| {
        for port in 1000..1040 {
            assert_eq!(bench.backend_of(&from_client().tcp(port, 80).flags(SYN)), 11);
        }
        bench.reload(config(&service("dsr", "", ALL))).unwrap();
        for port in 1000..1040 {
            assert_eq!(bench.backend_of(&from_client().tcp(port, 80).flags(SYN)), 11, "the SYN again");
            assert_eq!(bench.backend_of(&from_client().tcp(port, 80).flags(ACK)), 11);
            assert_eq!(
                bench.backend_of(&from_client().tcp(port, 80).flags(SYN)),
                11,
                "a SYN ends nothing that goes on"
            );
        }
    });
}

#[test]
fn l06_a_new_connection_of_the_same_ports_goes_by_the_new_table() {
    for end in [FIN, RST] {
        with_balancer(&service("dsr", "", &[11]), move |bench| {
            bench.connect(1000..1060);
            for port in 1000..1060 {
                assert_eq!(bench.backend_of(&from_client().tcp(port, 80).flags(end)), 11);
            }
            bench.reload(config(&service("dsr", "", ALL))).unwrap();
            assert_eq!(new(bench, 1000..1060), ALL.iter().copied().collect());
        });
    }
}

#[test]
fn l06_a_new_connection_of_the_same_ports_is_counted_as_one() {
    with_balancer(&service("dsr", "", &[11]), |bench| {
        for flags in [SYN, ACK, FIN, SYN, SYN, ACK, RST, SYN] {
            bench.backend_of(&from_client().tcp(1000, 80).flags(flags));
        }
        bench.pass(40);
        bench.pass(1);
        let totals = shown(bench).backends[0].totals;
        assert_eq!((totals.begun, totals.live, totals.failed), (3, 0, 1));
    });
}

#[test]
fn l06_connections_end_in_their_time() {
    let text = format!(
        "timeouts = {{ syn = 5, established = 100, closing = 20, udp = 50 }}\n{}",
        service("dsr", "protocol = \"any\"", &[11])
    );
    with_balancer(&text, |bench| {
        bench.backend_of(&from_client().tcp(1, 80).flags(SYN));
        bench.connect(2..3);
        bench.connect(3..4);
        bench.backend_of(&from_client().tcp(3, 80).flags(FIN));
        bench.backend_of(&from_client().udp(4, 80));
        assert_eq!(bench.connections(), 4);
        for (seconds, left) in [(4, 4), (2, 3), (13, 3), (2, 2), (28, 2), (2, 1), (48, 1), (2, 0)] {
            bench.pass(seconds);
            assert_eq!(bench.connections(), left, "{seconds} s later");
        }
        let totals = shown(bench).backends[0].totals;
        assert_eq!((totals.begun, totals.live, totals.failed), (4, 0, 1), "one of which nothing was heard but a SYN");
        assert_eq!(totals.packets, 7);
    });
}

#[test]
fn l06_what_was_seen_once_ends_as_soon_as_a_beginning() {
    for mode in ["dsr", "nat"] {
        with_balancer(&format!("timeouts.syn = 5\n{}", service(mode, "", &[11])), move |bench| {
            for (flags, port) in [SYN, ACK, FIN, RST].into_iter().zip(1000..) {
                bench.backend_of(&from_client().tcp(port, 80).flags(flags));
            }
            assert!(bench.connections() >= 3);
            bench.pass(6);
            bench.pass(1);
            assert_eq!(bench.connections(), 0, "{mode}");
        });
    }
}

#[test]
fn l07_weight_0_moves_new_connections_only() {
    with_balancer(&service("dsr", "", &[12, 13, 11]), |bench| {
        let connections = bench.connect(1000..1060);
        let drained = format!("{}weight = 0\n", service("dsr", "", &[12, 13, 11]));
        bench.reload(config(&drained)).unwrap();
        assert_eq!(moved(bench, &connections), 0);
        assert_eq!(new(bench, 2000..2060), [12, 13].into());
        assert_eq!(moved(bench, &connections), 0);
        // And back.
        bench.reload(config(&service("dsr", "", &[12, 13, 11]))).unwrap();
        assert_eq!(new(bench, 3000..3060), [11, 12, 13].into());
    });
}

#[test]
fn l07_a_backend_is_drained_and_put_back_by_a_command() {
    with_balancer(&service("dsr", "", ALL), |bench| {
        let connections = bench.connect(1000..1060);
        order(bench, 12, Order::Drain);
        assert_eq!(moved(bench, &connections), 0);
        assert_eq!(new(bench, 2000..2060), [11, 13, 14].into());
        // It holds over a reload.
        bench.reload(config(&format!("timeouts.udp = 50\n{}", service("dsr", "", ALL)))).unwrap();
        assert_eq!(new(bench, 3000..3060), [11, 13, 14].into());
        let of = shown(bench).backends.into_iter().find(|of| of.name == "10.0.0.12").unwrap();
        assert_eq!((of.order, of.share, of.weight), (Order::Drain, 1000, 1));
        order(bench, 12, Order::Serve);
        assert_eq!(new(bench, 4000..4060), [11, 12, 13, 14].into());
        assert_eq!(moved(bench, &connections), 0);
        let error = bench.command(|instance| instance.order("web", "nobody", Order::Drain)).unwrap_err();
        assert_eq!(error.to_string(), "there is no backend \"nobody\" of a service \"web\"");
    });
}

#[test]
fn l08_connections_of_a_backend_that_is_down_get_another() {
    with_balancer(&service("ipip", "", ALL), |bench| {
        let connections = bench.connect(1000..1060);
        order(bench, 12, Order::Down);
        let mut found = BTreeSet::new();
        for (port, number) in &connections {
            let now = bench.backend_of(&from_client().tcp(*port, 80));
            if *number == 12 {
                assert_ne!(now, 12);
                found.insert(now);
            } else {
                assert_eq!(now, *number, "the others stay");
            }
        }
        assert_eq!(found, [11, 13, 14].into());
        let of_12 = connections.iter().filter(|(_, number)| *number == 12).count();
        assert_eq!(bench.counter("connections-moved"), of_12 as u64);
        // They stay there when it comes back.
        let now: Vec<_> =
            connections.iter().map(|(port, _)| (*port, bench.backend_of(&from_client().tcp(*port, 80)))).collect();
        order(bench, 12, Order::Serve);
        assert_eq!(moved(bench, &now), 0);
        let shown = shown(bench);
        let live: u64 = shown.backends.iter().map(|of| of.totals.live).sum();
        assert_eq!(live, 60);
    });
}

#[test]
fn l07_new_connections_of_used_ports_leave_a_backend_that_is_removed() {
    for mode in ["dsr", "ipip", "nat"] {
        for end in [FIN, RST] {
            with_balancer(&service(mode, "", &[11, 12]), move |bench| {
                for (port, number) in bench.connect(1000..1040) {
                    assert_eq!(bench.backend_of(&from_client().tcp(port, 80).flags(end)), number);
                }
                bench.reload(config(&service(mode, "", &[12]))).unwrap();
                assert_eq!(new(bench, 1000..1040), [12].into(), "{mode}");
            });
        }
    }
}

#[test]
fn l07_new_connections_of_used_ports_go_by_the_service_as_it_is_now() {
    let nat = |port: u16| format!("{}port = {port}\n", service("nat", "", &[11]));
    let own = |mode: &str| format!("source_addresses = [\"10.0.0.2\"]\n{}", service(mode, "", &[11]));
    for (what, from, to) in [
        ("a mode", service("dsr", "", &[11]), service("ipip", "", &[11])),
        ("a mode that translates", own("dsr"), own("nat")),
        ("one that does not", own("full-nat"), own("dsr")),
        ("a name", service("dsr", "", &[11]), service("dsr", "", &[11]).replace("\"web\"", "\"site\"")),
        ("a backend's port", nat(8080), nat(8081)),
    ] {
        let to: &'static str = to.leak();
        with_balancer(&from, move |bench| {
            for (port, _) in bench.connect(1000..1020) {
                bench.backend_of(&from_client().tcp(port, 80).flags(FIN));
            }
            bench.reload(config(to)).unwrap();
            assert_eq!(bench.connect(1000..1020).len(), 20, "another {what}");
        });
    }
}

#[test]
fn l08_connections_of_a_backend_that_is_down_move_also_when_it_is_removed() {
    for mode in ["dsr", "nat"] {
        with_balancer(&service(mode, "", &[11, 12]), move |bench| {
            let connections = bench.connect(1000..1040);
            order(bench, 11, Order::Down);
            bench.reload(config(&service(mode, "", &[12]))).unwrap();
            for (port, _) in connections {
                assert_eq!(bench.backend_of(&from_client().tcp(port, 80)), 12, "{mode}");
            }
        });
    }
}

#[test]
fn l07_a_backend_that_is_ordered_and_removed_at_once_does_both_and_then_nothing() {
    for (given, remains) in [(Order::Drain, 11), (Order::Down, 12)] {
        with_balancer(&service("dsr", "", &[11, 12]), move |bench| {
            let connections = bench.connect(1000..1040);
            bench.command(|instance| instance.order("web", "10.0.0.11", given)).unwrap();
            bench.reload(config(&service("dsr", "", &[12]))).unwrap();
            for (port, number) in connections {
                let expected = if number == 11 { remains } else { number };
                assert_eq!(bench.backend_of(&from_client().tcp(port, 80)), expected, "{given:?}");
            }
            assert!(!bench.tend(), "{given:?}: there is nothing new");
        });
    }
}

#[test]
fn of_backends_of_one_host_each_is_taken_to_be_as_it_was() {
    let of = |name: &str, mode: &str, backends: &str| {
        format!("[[services]]\nname = \"{name}\"\naddress = \"{VIP}\"\nmode = \"{mode}\"\n{backends}")
    };
    // Two ports behind one service, and one port each behind two.
    let ports = |name: &str, mode: &str| {
        let backend =
            |port| format!("[[services.backends]]\nname = \"{port}\"\naddress = \"10.0.0.11\"\nport = {port}\n");
        let backends = format!("port = 80\n{}{}", backend(8080), backend(8090));
        format!("source_addresses = [\"10.0.0.2\"]\n{}", of(name, mode, &backends))
    };
    let services = |names: [&str; 2]| {
        let one = |(name, port): (&str, u16)| {
            let backend = format!("port = {port}\n[[services.backends]]\nname = \"{port}\"\naddress = \"10.0.0.11\"\n");
            of(name, "nat", &backend)
        };
        format!("source_addresses = [\"10.0.0.2\"]\n{}{}", one((names[0], 8080)), one((names[1], 8090)))
    };
    for (what, from, of_8090, to, asked) in [
        ("another mode", ports("web", "nat"), "web", ports("web", "full-nat"), [80, 80]),
        ("another name", ports("web", "nat"), "web", ports("site", "nat"), [80, 80]),
        ("other names", services(["web", "tls"]), "tls", services(["site", "safe"]), [8080, 8090]),
    ] {
        for down in [8080, 8090] {
            let (service, to) = (if down == 8090 { of_8090 } else { "web" }.to_owned(), to.clone());
            let (service, to): (&'static str, &'static str) = (service.leak(), to.leak());
            with_balancer(&from, move |bench| {
                bench.command(|instance| instance.order(service, &down.to_string(), Order::Down)).unwrap();
                assert!(bench.tend());
                bench.reload(config(to)).unwrap();
                let mut served = BTreeSet::new();
                for port in 1000..1040 {
                    for asked in asked {
                        let outcome = bench.client(&from_client().tcp(port, asked).flags(SYN));
                        served.extend(outcome.inside.first().map(|frame| u16::from_be_bytes([frame[36], frame[37]])));
                    }
                }
                assert_eq!(served, [8080 + 8090 - down].into(), "{what}");
            });
        }
    }
}

#[test]
fn l08_or_they_are_dropped_until_it_comes_back() {
    with_balancer(&service("dsr", "on_backend_down = \"drop\"", ALL), |bench| {
        let connections = bench.connect(1000..1060);
        order(bench, 12, Order::Down);
        for (port, number) in &connections {
            let outcome = bench.client(&from_client().tcp(*port, 80));
            if *number == 12 {
                assert_eq!(dropped(&outcome), "lb-backend-down");
            } else {
                assert_eq!(super::bench::went_to(&outcome), *number);
            }
        }
        // A new connection of the same ports begins elsewhere.
        let (port, _) = *connections.iter().find(|(_, number)| *number == 12).unwrap();
        let other = bench.backend_of(&from_client().tcp(port, 80).flags(SYN));
        assert_ne!(other, 12);
        order(bench, 12, Order::Serve);
        for (of, number) in &connections {
            let expected = if *of == port { other } else { *number };
            assert_eq!(bench.backend_of(&from_client().tcp(*of, 80)), expected);
        }
    });
}

#[test]
fn new_connections_meet_what_the_configuration_says_while_nobody_is_ready() {
    for (when_empty, told, taken) in [("refuse", 1, true), ("drop", 0, true), ("withdraw", 0, false)] {
        with_balancer(&service("dsr", &format!("when_empty = \"{when_empty}\""), &[11]), move |bench| {
            let connections = bench.connect(1000..1001);
            order(bench, 11, Order::Drain);
            // It is up and has connections: the address stays.
            assert_eq!(moved(bench, &connections), 0);
            let outcome = bench.client(&from_client().tcp(2000, 80).flags(SYN));
            assert_eq!((dropped(&outcome), outcome.outside.len()), ("lb-no-backend", told), "{when_empty}");
            if told == 1 {
                assert_eq!(
                    (&outcome.outside[0][26..30], &outcome.outside[0][34..36]),
                    (&VIP.octets()[..], &[3, 3][..])
                );
            }
            order(bench, 11, Order::Down);
            use nf_framework::Function as _;
            assert_eq!(!bench.balancer.addresses(&bench.running).is_empty(), taken, "{when_empty}");
            assert!(!shown(bench).is_ready);
            order(bench, 11, Order::Serve);
            assert!(!bench.balancer.addresses(&bench.running).is_empty());
            assert_eq!(new(bench, 3000..3001), [11].into());
        });
    }
}

#[test]
fn a_flood_of_beginnings_moves_no_live_connection() {
    // The table is full of them, many times over.
    let text = format!("connections = 1024\ninsertions_per_second = 1000000\n{}", service("dsr", "", &[11, 12, 13]));
    with_balancer(&text, |bench| {
        let connections = bench.connect(1000..1300);
        for burst in 0..200_u16 {
            let frames: Vec<_> = (0..64)
                .map(|number| {
                    let source = Ipv4Addr::from_bits(0x0b00_0000 + u32::from(burst) * 64 + number);
                    from_outside(source, VIP).tcp(5000, 80).flags(SYN).build()
                })
                .collect();
            assert_eq!(bench.burst(&frames).inside.len(), 64, "they are served");
        }
        assert!(bench.connections() <= 2 * (1024 + 128));
        // All of the table's is forgotten: what they are on is known by their entries alone.
        bench.reload(config(&text_with(&[14]))).unwrap();
        assert_eq!(moved(bench, &connections), 0);
    });

    fn text_with(backends: &[u8]) -> String {
        format!("connections = 1024\ninsertions_per_second = 1000000\n{}", service("dsr", "", backends))
    }
}

#[test]
fn so_many_flows_are_remembered_in_a_second_and_what_goes_on_is_not_held_up_by_what_begins() {
    let text = format!("insertions_per_second = 100\n{}", service("dsr", "", &[11, 12, 13]));
    with_balancer(&text, |bench| {
        for source in 0..200_u32 {
            let source = Ipv4Addr::from_bits(0x0b00_0000 + source);
            bench.backend_of(&from_outside(source, VIP).tcp(5000, 80).flags(SYN));
        }
        // A tenth of a second's at once, on each worker.
        let kept = bench.connections();
        assert_eq!(kept, 10, "all have one port, so they are of one worker");
        assert_eq!(bench.counter("packets-without-entry"), 190);
        // What proves that it goes on is remembered all the same.
        for source in 190..195_u32 {
            let source = Ipv4Addr::from_bits(0x0b00_0000 + source);
            bench.backend_of(&from_outside(source, VIP).tcp(5000, 80).flags(ACK));
        }
        assert_eq!(bench.connections(), kept + 5);
        bench.pass(1);
        bench.backend_of(&from_outside(Ipv4Addr::new(11, 1, 1, 1), VIP).tcp(5000, 80).flags(SYN));
        assert_eq!(bench.connections(), kept + 6);
    });
}

#[test]
fn a_backend_that_is_gone_is_shown_as_long_as_it_has_connections() {
    let text = |backends: &[u8]| format!("timeouts = {{ established = 100 }}\n{}", service("dsr", "", backends));
    with_balancer(&text(ALL), move |bench| {
        bench.connect(1000..1060);
        bench.reload(config(&text(&[11]))).unwrap();
        let names =
            |bench: &mut Bench| shown(bench).backends.iter().map(|of| (of.name.clone(), of.weight)).collect::<Vec<_>>();
        assert_eq!(names(bench).len(), 4);
        assert_eq!(names(bench)[1], ("10.0.0.12".to_owned(), 0));
        bench.pass(101);
        assert_eq!(bench.connections(), 0);
        bench.reload(config(&text(&[11, 14]))).unwrap();
        assert_eq!(names(bench).len(), 2);
        assert_eq!(new(bench, 2000..2060), [11, 14].into());
    });
}

#[test]
fn a_connection_is_found_by_its_addresses_and_ports() {
    with_balancer(&service("dsr", "", &[11]), |bench| {
        if bench.workers > 1 {
            return;
        }
        bench.backend_of(&from_client().tcp(1000, 80).flags(SYN));
        let ask = |bench: &mut Bench, port: u16| {
            let (client, service) = ((IpAddr::from(X), port).into(), (IpAddr::from(VIP), 80).into());
            bench.command(move |instance| instance.connection(IpProtocol::TCP, client, service))
        };
        let found = ask(bench, 1000).unwrap();
        assert_eq!((found.service.as_str(), found.backend.as_str(), found.established), ("web", "10.0.0.11", false));
        bench.backend_of(&from_client().tcp(1000, 80));
        assert!(ask(bench, 1000).unwrap().established);
        assert_eq!(ask(bench, 1001), None);
    });
}

#[test]
fn while_the_program_drains_nothing_begins_and_everything_goes_on() {
    with_balancer(&service("dsr", "protocol = \"any\"", &[11]), |bench| {
        let connections = bench.connect(1000..1003);
        bench.trial.set_draining(true);
        for frame in [from_client().tcp(2000, 80).flags(SYN), from_client().udp(2000, 80)] {
            assert_eq!(dropped(&bench.client(&frame)), "draining");
        }
        assert_eq!(moved(bench, &connections), 0);
        bench.backend_of(&from_client().tcp(1000, 80).flags(FIN));
        assert_eq!(dropped(&bench.client(&from_client().tcp(1000, 80).flags(SYN))), "draining");
        // Another instance's, perhaps: it goes where that would send it.
        assert_eq!(bench.backend_of(&from_client().tcp(2001, 80)), 11);
        bench.trial.set_draining(false);
        bench.connect(2000..2001);
    });
}

#[test]
fn connections_of_a_service_whose_mode_changes_go_on_by_the_old_one() {
    with_balancer(&service("dsr", "", &[11]), |bench| {
        bench.connect(1000..1001);
        bench.reload(config(&service("ipip", "", &[11]))).unwrap();
        let old = bench.client(&from_client().tcp(1000, 80));
        assert_eq!(old.inside[0][23], 6, "TCP");
        let new = bench.client(&from_client().tcp(1001, 80).flags(SYN));
        assert_eq!(new.inside[0][23], 4, "in a tunnel");
    });
}

#[test]
fn what_tables_were_made_for_changes_by_a_restart_only() {
    with_balancer(&service("dsr", "", &[11]), |bench| {
        for (text, key) in [
            ("connections = 8192", "connections"),
            ("connections_ipv6 = 8192", "connections_ipv6"),
            ("insertions_per_second = 1", "insertions_per_second"),
            ("source_addresses = [\"10.0.0.2\"]", "source_addresses"),
        ] {
            refused(bench, &format!("{text}\n{}", service("dsr", "", &[11])), key);
        }
        // Without room for answers nothing can be translated.
        let second = service("nat", "", &[12]).replace("web", "other").replace("113.80", "113.81");
        refused(bench, &format!("{}{second}", service("dsr", "", &[11])), "services[1].mode");
        bench.connect(1000..1001);
    });
}

fn refused(bench: &mut Bench, text: &str, key: &str) {
    let invalid = bench.reload(config(text)).unwrap_err();
    assert_eq!(invalid.key, key);
    assert!(invalid.message.contains("restart"), "{}", invalid.message);
}

#[test]
fn a_mode_that_translates_may_come_where_there_is_room_for_answers() {
    let own = "source_addresses = [\"10.0.0.2\"]";
    with_balancer(&format!("{own}\n{}", service("dsr", "", &[11])), move |bench| {
        for (mode, port) in [("nat", 1000), ("full-nat", 1001)] {
            bench.reload(config(&format!("{own}\n{}", service(mode, "", &[12])))).unwrap();
            let sent = bench.client(&from_client().tcp(port, 80).flags(SYN));
            assert_eq!(sent.inside[0][30..34], backend(12).octets(), "{mode}: {sent:?}");
        }
    });
}
