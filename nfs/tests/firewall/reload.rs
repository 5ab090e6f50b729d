//! Other rules while the program runs; what it says of itself, and what it is told to end.

use super::bench::{A, A6, B, OUT, R, X, X6, denied, packet, v4, v6, with_firewall};
use nf_framework::Piece;
use nf_framework::headers::IpProtocol;
use nfs::firewall::{ConnectionFilter, ConnectionView, Instance};

const NONE: &str = "rfc4890 = false\n";

#[test]
fn live_connections_are_kept() {
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        bench.reload(NONE).unwrap();
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        assert_eq!(bench.back(&v4(X, A).udp(53, 5000)), Ok(()));
        assert_eq!(bench.out(&v4(A, X).udp(5001, 53)), denied("default"), "new ones go by the new rules");
    });
}

#[test]
fn or_judged_by_the_new_rules() {
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        assert_eq!(bench.out(&v4(B, X).udp(5000, 53)), Ok(()));
        assert_eq!(bench.out(&v4(A, X).icmp_echo_request(9, 1)), Ok(()));
        let rules = "live = \"rejudge\"\n[[rules]]\nsource = \"192.168.1.10\"\nprotocol = [\"udp\", \"icmp\"]\naction = \
                     \"accept\"\n";
        bench.reload(rules).unwrap();
        assert_eq!(bench.back(&v4(X, A).udp(53, 5000)), Ok(()), "by the packet that began it");
        assert_eq!(bench.back(&v4(X, A).icmp_echo_reply(9, 1)), Ok(()));
        assert_eq!(bench.back(&v4(X, B).udp(53, 5000)), denied("rejudged"));
        assert_eq!(bench.back(&v4(X, B).udp(53, 5000)), denied("default"), "it is gone");
        let data = super::bench::tcp(A, X, 4000, 80, 16).sequence_number(1000).acknowledgment_number(5000);
        assert_eq!(bench.out(&data), denied("rejudged"));
        assert_eq!(bench.connections(), 2);
    });
}

/// Generations of rules are told apart by few bits.
#[test]
fn however_many_reloads_came_in_between() {
    const RELOADS: u16 = 300;
    for seconds in [None, Some(0), Some(1)] {
        with_firewall(&format!("live = \"rejudge\"\ntimeouts = {{ udp = 1000 }}\n{OUT}"), move |bench| {
            for port in 0..RELOADS {
                assert_eq!(bench.out(&v4(A, X).udp(5000 + port, 53)), Ok(()));
                assert_eq!(bench.out(&v6(A6, X6).udp(5000 + port, 53)), Ok(()));
                let rules = if port == RELOADS - 1 { NONE } else { OUT };
                bench.reload(&format!("live = \"rejudge\"\ntimeouts = {{ udp = 1000 }}\n{rules}")).unwrap();
                if let Some(seconds) = seconds.filter(|_| port % 7 == 0) {
                    bench.pass(seconds);
                }
            }
            for port in 0..RELOADS {
                assert_eq!(bench.out(&v4(A, X).udp(5000 + port, 53)), denied("rejudged"), "{port}");
                assert_eq!(bench.back(&v6(X6, A6).udp(53, 5000 + port)), denied("rejudged"), "{port}");
            }
            assert_eq!(bench.connections(), 0);
        });
    }
}

#[test]
fn timeouts_change_and_sizes_do_not() {
    with_firewall(OUT, |bench| {
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        bench.reload(&format!("timeouts = {{ udp = 100 }}\n{OUT}")).unwrap();
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        bench.pass(90);
        assert_eq!(bench.back(&v4(X, A).udp(53, 5000)), Ok(()));
        for (text, key) in [
            ("connections = 128\nconnections_v6 = 2048", "connections"),
            ("connections_v6 = 128\nconnections = 2048", "connections_v6"),
            ("sources = 128", "sources"),
            ("source_bits_v6 = 48", "source_bits_v6"),
            ("connections_per_source = 1", "connections_per_source"),
        ] {
            let invalid = bench.reload(&format!("{text}\n{OUT}")).unwrap_err();
            assert_eq!((invalid.key.as_str(), invalid.message.contains("restart")), (key, true));
        }
    });
}

fn list(bench: &mut super::bench::Bench, filter: &ConnectionFilter) -> Vec<ConnectionView> {
    let (mut all, mut from) = (Vec::new(), Some(0));
    while let Some(part) = from {
        let filter = filter.clone();
        let Piece { items, next } =
            bench.trial.command(0, move |instance: &mut Instance, _| instance.list(&filter, part));
        all.extend(items.into_iter().map(|(_, connection)| connection));
        from = next;
    }
    all
}

#[test]
fn connections_are_listed_and_cleared_by_filter_and_rules_have_hits() {
    with_firewall(OUT, |bench| {
        if bench.workers > 1 {
            return;
        }
        bench.connect(4000);
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        assert_eq!(bench.out(&v4(B, X).udp(5000, 53)), Ok(()));
        assert_eq!(bench.out(&v6(A6, X6).udp(5000, 53)), Ok(()));
        let all = ConnectionFilter::default();
        assert_eq!(list(bench, &all).len(), 4);
        let tcp = ConnectionFilter { protocol: Some(IpProtocol::TCP), ..all.clone() };
        let views = list(bench, &tcp);
        assert_eq!((views.len(), views[0].state, views[0].rule.as_deref()), (1, "ESTABLISHED", Some("out")));
        assert_eq!((views[0].source, views[0].destination), ((A.into(), 4000), (X.into(), 80)));
        let of = |text: &str| ConnectionFilter { address: Some(text.parse().unwrap()), ..ConnectionFilter::default() };
        for (filter, count) in [
            (of("192.168.1.20"), 1),
            (of("203.0.113.0/24"), 3),
            (of("2001:db8::/32"), 1),
            (ConnectionFilter { port: Some(53), ..all.clone() }, 3),
            (ConnectionFilter { rule: Some("in".to_owned()), ..all.clone() }, 0),
            (ConnectionFilter { rule: Some("out".to_owned()), ..all.clone() }, 4),
        ] {
            assert_eq!(list(bench, &filter).len(), count, "{filter:?}");
        }
        assert_eq!(bench.back(&v4(X, A).udp(53, 6000)), denied("default"));
        let hits = bench.trial.command(0, |instance: &mut Instance, _| instance.rule_hits());
        let hits: Vec<_> = hits.iter().map(|of| (of.name.as_str(), of.hits)).collect();
        assert_eq!(hits, [("out", 4), ("rfc4890", 0)]);
        let filter = of("192.168.1.20");
        let cleared = bench.trial.command(0, move |instance: &mut Instance, _| {
            let (mut cleared, mut from) = (0, Some(0));
            while let Some(part) = from {
                let (of_part, next) = instance.clear(&filter, part);
                (cleared, from) = (cleared + of_part, next);
            }
            cleared
        });
        assert_eq!((cleared, bench.connections()), (1, 3));
        assert_eq!(bench.back(&v4(X, B).udp(53, 5000)), denied("default"));
    });
}

#[test]
fn an_error_is_about_what_the_new_rules_accept() {
    with_firewall(OUT, |bench| {
        let (error, sent) = (|to| v4(R, to).icmp(3, 1, [0; 4]), |from| v4(from, X).udp(5000, 53));
        for host in [A, B] {
            assert_eq!(bench.out(&sent(host)), Ok(()));
        }
        bench.reload("live = \"rejudge\"\n[[rules]]\nsource = \"192.168.1.10\"\naction = \"accept\"\n").unwrap();
        assert_eq!(bench.back(&error(A).payload(&packet(&sent(A)))), Ok(()));
        assert_eq!(bench.back(&error(B).payload(&packet(&sent(B)))), denied("rejudged"));
        assert_eq!(bench.connections(), 1);
    });
}

#[test]
fn what_was_picked_up_is_rejudged_by_an_acknowledgment() {
    let text = "mid_stream = true\nlive = \"rejudge\"\n[[rules]]\nprotocol = \"tcp\"\nflags = \"ack\"\naction = \
                \"accept\"\n";
    with_firewall(text, move |bench| {
        let segment = |number| super::bench::tcp(A, X, 4000, 80, super::bench::ACK).sequence_number(number);
        assert_eq!(bench.out(&segment(1000).acknowledgment_number(5000)), Ok(()));
        bench.reload(text).unwrap();
        assert_eq!(bench.out(&segment(1010).acknowledgment_number(5000)), Ok(()));
    });
}

#[test]
fn what_a_reload_keeps_is_kept_whatever_one_before_was_to_do() {
    with_firewall(OUT, |bench| {
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        bench.reload(&format!("live = \"rejudge\"\n{OUT}")).unwrap();
        bench.reload(NONE).unwrap();
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        bench.reload(&format!("live = \"rejudge\"\n{NONE}")).unwrap();
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), denied("rejudged"));
    });
}

#[test]
fn a_rule_without_a_name_is_known_again_wherever_it_stands() {
    let (dns, more) = ("[[rules]]\nprotocol = \"udp\"\naction = \"accept\"\n", "[[rules]]\naction = \"drop\"\n");
    with_firewall(&format!("rfc4890 = false\n{dns}{more}"), move |bench| {
        if bench.workers > 1 {
            return;
        }
        for port in 0..50 {
            assert_eq!(bench.out(&v4(A, X).udp(5000 + port, 53)), Ok(()));
        }
        let other = "[[rules]]\nsource = \"192.0.2.0/24\"\naction = \"drop\"\n";
        // Twice the same is two rules, of which the first is the one that was there.
        bench.reload(&format!("rfc4890 = false\n{other}{dns}{dns}{more}")).unwrap();
        let hits = bench.trial.command(0, |instance: &mut Instance, _| instance.rule_hits());
        let hits: Vec<_> = hits.iter().map(|of| (of.name.as_str(), of.hits)).collect();
        assert_eq!(hits, [("rules[0]", 0), ("rules[1]", 50), ("rules[2]", 0), ("rules[3]", 0)]);
        let views = list(bench, &ConnectionFilter { rule: Some("rules[1]".to_owned()), ..ConnectionFilter::default() });
        assert_eq!(views.len(), 50);
    });
}

#[test]
fn a_table_that_was_made_at_the_start_is_there_for_rules_that_come_back() {
    let limit = "limit = { connections_per_second = 1, burst = 2, per_source = true }\n";
    for (more, key) in [(limit, "limit.per_source"), ("syn_cookies = \"always\"\n", "syn_cookies")] {
        let rule = format!("[[rules]]\nprotocol = \"tcp\"\naction = \"accept\"\n{more}");
        with_firewall(&rule.clone(), move |bench| {
            bench.reload(OUT).unwrap();
            bench.reload(&rule).unwrap();
            let syns: Vec<_> =
                (1..=4).map(|port| super::bench::tcp(A, X, port, 80, super::bench::SYN).build()).collect();
            let sent = bench.send(nf_framework::Direction::Outbound, &syns);
            assert!(!sent.dropped.is_empty(), "{key} is in force");
        });
        let rule = format!("[[rules]]\nprotocol = \"tcp\"\naction = \"accept\"\n{more}");
        with_firewall(OUT, move |bench| {
            bench.reload(OUT).unwrap();
            assert_eq!(bench.reload(&rule).unwrap_err().key, format!("rules[0].{key}"));
        });
    }
}

/// A list of today may have one family alone, or nothing that is a host: that is no reason to refuse a reload.
#[test]
fn the_file_of_a_set_may_hold_anything() {
    let path = std::env::temp_dir().join(format!("firewall-any-set-{}", std::process::id()));
    std::fs::write(&path, "2001:db8:2::1\n").unwrap();
    let rules = ["destination = \"2001:db8::/32\"", "destination = \"0.0.0.0/0\"", "protocol = \"icmpv6\"", ""];
    let rules: String =
        rules.iter().map(|rule| format!("[[rules]]\nsource = \"@list\"\n{rule}\naction = \"drop\"\n")).collect();
    let text = format!("[sets.list]\nfile = \"{}\"\n{rules}[[rules]]\naction = \"accept\"\n", path.display());
    let file = path.clone();
    with_firewall(&text.clone(), move |bench| {
        let mut port = 5000;
        for (list, four, six) in [
            ("203.0.113.1", false, true),
            ("2001:db8:2::1", true, false),
            ("127.0.0.1\n::1", true, true),
            ("# none", true, true),
        ] {
            std::fs::write(&file, list).unwrap();
            bench.reload(&text).unwrap();
            port += 1;
            assert_eq!(bench.back(&v4(X, A).udp(port, 53)).is_ok(), four, "{list}");
            assert_eq!(bench.back(&v6(X6, A6).udp(port, 53)).is_ok(), six, "{list}");
        }
        std::fs::write(&file, "2001:db8:2::1\n").unwrap();
    });
    std::fs::remove_file(path).unwrap();
}

#[test]
fn what_a_rule_without_a_name_has_accepted_is_not_anothers_that_has_its_place() {
    let rule = |protocol: &str| format!("rfc4890 = false\n[[rules]]\nprotocol = \"{protocol}\"\naction = \"accept\"\n");
    with_firewall(&rule("udp"), move |bench| {
        if bench.workers > 1 {
            return;
        }
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        for (protocol, name) in [("tcp", "rules[0] of before"), ("icmp", "rules[0] of before"), ("udp", "rules[0]")] {
            bench.reload(&rule(protocol)).unwrap();
            let views = list(bench, &ConnectionFilter::default());
            assert_eq!(views[0].rule.as_deref(), Some(name), "{protocol}");
        }
    });
}

#[test]
fn what_is_kept_is_limited_as_its_rule_was_that_is_gone() {
    let rule = |port: u16| {
        let limit = "limit = { packets_per_second = 1, burst = 2 }";
        format!(
            "rfc4890 = false\n[[rules]]\nprotocol = \"udp\"\ndestination_ports = {port}\naction = \"accept\"\n{limit}\n"
        )
    };
    with_firewall(&rule(53), move |bench| {
        let packet = v4(A, X).udp(5000, 53);
        assert_eq!(bench.out(&packet), Ok(()));
        for text in [rule(54), NONE.to_owned(), rule(55)] {
            bench.reload(&text).unwrap();
            let limited = denied("rate-limit");
            let sent: Vec<_> = (0..10).map(|_| bench.out(&packet)).collect();
            assert!(sent.contains(&limited), "{text}");
            bench.pass(10);
            assert_eq!(bench.out(&packet), Ok(()), "{text}");
        }
        bench.reload(&format!("live = \"rejudge\"\n{OUT}")).unwrap();
        assert!((0..10).all(|_| bench.out(&packet).is_ok()), "a rule without a limit has it now");
    });
}

#[test]
fn a_trace_names_the_rule_that_forbids_what_is_about_a_connection() {
    let text = format!("[[rules]]\nname = \"no-errors\"\nstate = \"related\"\naction = \"drop\"\n{OUT}");
    with_firewall(&text, |bench| {
        let sent = v4(A, X).udp(5000, 53);
        assert_eq!(bench.out(&sent), Ok(()));
        bench.trial.begin_trace(1, "");
        assert_eq!(bench.back(&v4(R, A).icmp(3, 1, [0; 4]).payload(&packet(&sent))), denied("denied"));
        let said = bench.trial.end_trace().to_string();
        assert!(said.contains("drop firewall-denied; rule no-errors\n"), "{said}");
        // In the place of one that was reset.
        let segment = |flags| super::bench::tcp(A, X, 4000, 80, flags);
        bench.connect(4000);
        assert_eq!(bench.out(&segment(super::bench::RST).sequence_number(1000)), Ok(()));
        bench.reload(NONE).unwrap();
        bench.trial.begin_trace(1, "");
        assert_eq!(bench.out(&segment(super::bench::SYN)), denied("default"));
        let said = bench.trial.end_trace().to_string();
        assert!(said.contains("drop firewall-default; no rule matches\n"), "{said}");
    });
}
