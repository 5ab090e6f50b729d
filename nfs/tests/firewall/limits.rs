//! Full tables, limits and rates: row F15.

use super::bench::{A, ACK, B, Bench, OUT, RST, SYN, SYN_ACK, X, X6, config, denied, tcp, v4, v6, with_firewall};
use nf_framework::Direction;
use nf_framework::testing::lab;
use std::net::{Ipv4Addr, Ipv6Addr};

#[test]
fn f15_a_flood_of_syns_takes_no_established_connection() {
    let text =
        format!("connections = 64\nconnections_v6 = 64\n{OUT}[[rules]]\nfrom = \"outside\"\naction = \"accept\"\n");
    with_firewall(&text, |bench| {
        for port in 4000..4020 {
            bench.connect(port);
        }
        for number in 0..2000_u16 {
            let [high, low] = number.to_be_bytes();
            let stranger = Ipv4Addr::new(198, 51, high, low);
            assert_eq!(bench.back(&tcp(stranger, A, 1000, 80, SYN)), Ok(()), "{number}");
        }
        for port in 4000..4020 {
            let data = tcp(X, A, 80, port, ACK).sequence_number(5000).acknowledgment_number(1000).payload(&[1; 10]);
            assert_eq!(bench.back(&data), Ok(()), "{port}");
        }
        bench.pass(1);
        assert!(bench.counter("connections-evicted") > 1500);
    });
}

#[test]
fn f15_a_table_full_of_established_connections_takes_no_more() {
    let text = format!("connections = 64\nconnections_v6 = 64\n{OUT}");
    with_firewall(&text, |bench| {
        let mut refused = 0;
        for port in 4000..4600 {
            let numbers = |frame: nf_framework::testing::Frame, sequence, acknowledgment| {
                frame.sequence_number(sequence).acknowledgment_number(acknowledgment)
            };
            match bench.out(&numbers(tcp(A, X, port, 80, SYN), 999, 0)) {
                Ok(()) => {}
                Err(reason) => {
                    assert_eq!(reason, "firewall-connections-full");
                    refused += 1;
                    continue;
                }
            }
            assert_eq!(bench.back(&numbers(tcp(X, A, 80, port, SYN_ACK), 4999, 1000)), Ok(()));
            assert_eq!(bench.out(&numbers(tcp(A, X, port, 80, ACK), 1000, 5000)), Ok(()));
        }
        // A table has at least 64 places, and here 128 on each worker.
        assert!(refused >= 300, "{refused}");
        assert_eq!(bench.connections() + refused, 600);
        // As soon as there is room again.
        bench.pass(8000);
        bench.connect(4000);
    });
}

#[test]
fn a_source_has_as_many_connections_as_it_may() {
    let text = format!("connections_per_source = 20\n{OUT}");
    with_firewall(&text, |bench| {
        let udp = |host, port| v4(host, X).udp(port, 53);
        let mut begun = 0;
        for port in 5000..5100 {
            match bench.out(&udp(A, port)) {
                Ok(()) => begun += 1,
                Err(reason) => assert_eq!(reason, "firewall-source-limit"),
            }
        }
        // Each worker has half of it, and flows are not spread quite evenly before all have theirs.
        assert_eq!(begun, 20);
        assert_eq!(bench.out(&udp(B, 5000)), Ok(()), "another source");
        bench.pass(31);
        assert_eq!(bench.connections(), 0);
        assert_eq!(bench.out(&udp(A, 6000)), Ok(()), "those that are over do not count");
    });
}

#[test]
fn what_is_over_stays_until_its_successor_is_within_all_limits() {
    let accept = |limit: &str| format!("[[rules]]\nprotocol = \"tcp\"\naction = \"accept\"\n{limit}\n");
    // The second connection takes all that the outside host may have.
    for (text, reason) in [
        (format!("connections_per_source = 1\n{}", accept("")), "source-limit"),
        (accept("limit = { embryonic = 1 }"), "embryonic-limit"),
        (accept("limit = { connections_per_second = 1, burst = 2 }"), "rate-limit"),
    ] {
        let config = config(&text);
        lab(move |lab| {
            let mut bench = Bench::new(lab, 1, config, None);
            bench.connect(4000);
            let reset = tcp(A, X, 4000, 80, RST).sequence_number(1000);
            assert_eq!(bench.out(&reset), Ok(()));
            assert_eq!(bench.back(&tcp(X, B, 1000, 80, SYN)), Ok(()));
            assert_eq!(bench.back(&tcp(X, A, 80, 4000, SYN)), denied(reason));
            // What belongs to nothing would be dropped.
            assert_eq!((bench.out(&reset), bench.connections()), (Ok(()), 2), "{reason}");
        });
    }
}

#[test]
fn what_comes_instead_of_a_sources_own_is_not_too_much_for_it() {
    let text = "connections_per_source = 1\n[[rules]]\nprotocol = \"tcp\"\naction = \"accept\"\n";
    with_firewall(text, |bench| {
        for _ in 0..3 {
            bench.connect(4000);
            assert_eq!(bench.out(&tcp(A, X, 4000, 80, RST).sequence_number(1000)), Ok(()));
        }
        assert_eq!(bench.connections(), 1);
    });
}

#[test]
fn a_rule_accepts_so_much_in_a_second() {
    const TEXT: &str = r#"
[[rules]]
protocol = "udp"
action = "accept"
limit = { connections_per_second = 10, burst = 4 }
[[rules]]
action = "accept"
limit = { packets_per_second = 10, burst = 4 }
"#;
    with_firewall(TEXT, |bench| {
        let mut begun = 0;
        for port in 5000..5100 {
            begun += u32::from(bench.out(&v4(A, X).udp(port, 53)).is_ok());
        }
        assert_eq!(begun, 4);
        bench.pass(10);
        assert_eq!(bench.out(&v4(A, X).udp(6000, 53)), Ok(()));
        for _ in 0..20 {
            assert_eq!(bench.out(&v4(A, X).udp(6000, 53)), Ok(()), "its connections are not limited");
        }
        let found: Vec<_> = (0..20).map(|number| bench.out(&v4(A, X).icmp_echo_request(7, number))).collect();
        assert!(found[0].is_ok() && found[19] == denied("rate-limit"), "{found:?}");
    });
}

#[test]
fn a_program_that_is_drained_begins_nothing() {
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        bench.trial.set_draining(true);
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Err("draining".to_owned()));
        let data = tcp(A, X, 4000, 80, ACK).sequence_number(1000).acknowledgment_number(5000).payload(&[1; 10]);
        assert_eq!(bench.out(&data), Ok(()));
    });
}

#[test]
fn each_source_has_a_rate_of_its_own() {
    const TEXT: &str = r#"
sources = 64
[[rules]]
name = "datagrams"
protocol = "udp"
action = "accept"
limit = { connections_per_second = 10, burst = 4, per_source = true }
[[rules]]
action = "accept"
limit = { packets_per_second = 10, burst = 4, per_source = true }
"#;
    with_firewall(TEXT, |bench| {
        for host in [A, B] {
            let begun: u32 = (5000..5100).map(|port| u32::from(bench.out(&v4(host, X).udp(port, 53)).is_ok())).sum();
            // Each worker has half of it.
            assert_eq!(begun, 4, "{host}");
            let pings: Vec<_> = (0..20).map(|number| bench.out(&v4(host, X).icmp_echo_request(7, number))).collect();
            assert!(pings[0].is_ok() && pings[19] == denied("rate-limit"), "{host} {pings:?}");
            let answer = bench.back(&v4(X, host).icmp_echo_reply(7, 1));
            assert_eq!(answer, denied("rate-limit"), "an answer counts for who asks");
        }
        bench.pass(10);
        assert_eq!(bench.out(&v4(A, X).udp(6000, 53)), Ok(()), "after a pause");
        // More sources than are remembered: those that were quiet the longest are forgotten, and nobody is shut out.
        for number in 0..1000_u16 {
            let [high, low] = number.to_be_bytes();
            assert_eq!(bench.out(&v4(Ipv4Addr::new(10, 0, high, low), X).udp(6000, 53)), Ok(()), "{number}");
        }
        // A limit for each source is there already, so that another rule may have one.
        bench.reload(&TEXT.replace("protocol = \"udp\"\n", "")).unwrap();
    });
    let text = format!("{OUT}limit = {{ connections_per_second = 10, per_source = true }}\n");
    with_firewall(OUT, move |bench| {
        let invalid = bench.reload(&text).unwrap_err();
        assert_eq!(invalid.key, "rules[0].limit.per_source");
    });
}

#[test]
fn f15_a_rule_has_so_many_half_open_connections_and_no_more() {
    let text = format!("{OUT}limit = {{ embryonic = 4 }}\n");
    with_firewall(&text.clone(), move |bench| {
        let flood = |bench: &mut Bench, ports: std::ops::Range<u16>| {
            let sent = ports.map(|port| bench.out(&tcp(A, X, port, 80, SYN)));
            let found: Vec<_> = sent.collect();
            assert!(found.iter().all(|of| [Ok(()), denied("embryonic-limit")].contains(of)), "{found:?}");
            found.iter().filter(|of| of.is_ok()).count()
        };
        // Those that are open do not count, nor those that are over or no TCP.
        for port in 4000..4006 {
            bench.connect(port);
            assert_eq!(bench.out(&v4(A, X).udp(port, 53)), Ok(()));
        }
        assert_eq!(flood(bench, 5000..5050), 4);
        // After their time there is room for others, as after a reset.
        bench.pass(121);
        assert_eq!(flood(bench, 6000..6050), 4);
        bench.reload(OUT).unwrap();
        assert_eq!(flood(bench, 7000..7050), 50, "a reload may lift it");
        bench.reload(&text).unwrap();
        bench.pass(121);
        assert_eq!(flood(bench, 8000..8050), 4, "and set it again");
    });
}

#[test]
fn answers_to_what_is_rejected_are_bounded() {
    with_firewall("default = \"reject\"\nrejections_per_second = 20", |bench| {
        let told = |bench: &mut Bench| -> usize {
            (0..100)
                .map(|port| bench.send(Direction::Inbound, &[v4(X, A).udp(1000 + port, 53).build()]).outside.len())
                .sum()
        };
        // Two at once, of all workers together.
        assert_eq!(told(bench), 2);
        bench.pass(10);
        assert_eq!(told(bench), 2);
        bench.pass(1);
        assert_eq!((bench.counter("rejections-sent"), bench.counter("rejections-not-sent")), (4, 196));
        bench.reload("default = \"reject\"\nrejections_per_second = 4000").unwrap();
        assert_eq!(told(bench), 100);
    });
}

#[test]
fn f15_answered_datagrams_and_pings_do_not_fill_the_table_for_good() {
    const DNS: &str = "[[rules]]\nfrom = \"outside\"\nprotocol = [\"udp\", \"icmp\"]\naction = \"accept\"\n";
    type Said = fn(Ipv4Addr, Ipv4Addr, bool) -> nf_framework::testing::Frame;
    let said: [Said; 2] = [
        |from, to, asks| if asks { v4(from, to).udp(1000, 53) } else { v4(from, to).udp(53, 1000) },
        |from, to, asks| {
            let frame = v4(from, to);
            if asks { frame.icmp_echo_request(7, 1) } else { frame.icmp_echo_reply(7, 1) }
        },
    ];
    for said in said {
        with_firewall(&format!("connections = 64\nconnections_v6 = 64\n{OUT}{DNS}"), move |bench| {
            for number in 0..1000_u16 {
                let [high, low] = number.to_be_bytes();
                let stranger = Ipv4Addr::new(198, 51, high, low);
                if bench.back(&said(stranger, A, true)).is_ok() {
                    assert_eq!(bench.out(&said(A, stranger, false)), Ok(()), "{number}");
                }
            }
            for port in 4000..4020 {
                assert_eq!(bench.out(&tcp(B, X, port, 80, SYN)), Ok(()), "{port}");
            }
        });
    }
}

#[test]
fn f15_a_ping_takes_the_place_of_no_other_connection() {
    with_firewall(&format!("connections = 64\nconnections_v6 = 64\n{OUT}"), |bench| {
        for port in 0..600 {
            assert_eq!(bench.out(&v4(A, X).udp(5000 + port, 53)), Ok(()));
        }
        for number in 0..200 {
            let ping = bench.out(&v4(B, X).icmp_echo_request(number, 1));
            assert!([Ok(()), denied("connections-full")].contains(&ping), "{ping:?}");
        }
        let known: u32 = (0..600).map(|port| u32::from(bench.back(&v4(X, A).udp(53, 5000 + port)).is_ok())).sum();
        // A table has 128 places, of which some may still have been free for a ping.
        assert!(known >= 120 * u32::from(bench.workers), "{known}");
    });
}

#[test]
fn f15_a_source_has_no_more_connections_because_others_come() {
    let text = "connections_per_source = 20\nsources = 64\nconnections = 16384\nconnections_v6 = 64\n";
    with_firewall(&format!("{text}{OUT}"), |bench| {
        let some = |a: u8, b: u16| {
            let [high, low] = b.to_be_bytes();
            Ipv4Addr::new(10, a, high, low)
        };
        let begun = |bench: &mut Bench, host, ports: std::ops::Range<u16>| -> usize {
            ports.filter(|port| bench.out(&v4(host, X).udp(*port, 53)).is_ok()).count()
        };
        let early: usize = (0..20).map(|number| begun(bench, some(1, number), 5000..5040)).sum();
        for number in 0..2000 {
            assert_eq!(begun(bench, some(2, number), 1000..1001), 1, "nobody is shut out: {number}");
        }
        assert_eq!(early, 20 * 20);
        let later: usize = (0..20).map(|number| begun(bench, some(1, number), 6000..6040)).sum();
        assert_eq!((later, begun(bench, some(3, 0), 7000..7100)), (0, 20));
    });
}

#[test]
fn f15_a_source_of_ipv6_is_none_of_ipv4() {
    let text = format!("connections_per_source = 4\nsource_bits_v6 = 128\n{OUT}");
    with_firewall(&text, |bench| {
        let [a, b, c, d] = B.octets();
        let low = [a, b, c, d].map(u16::from);
        let alike = Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, low[0] << 8 | low[1], low[2] << 8 | low[3]);
        for port in 0..40 {
            let found = bench.out(&v6(alike, X6).udp(5000 + port, 53));
            assert!([Ok(()), denied("source-limit")].contains(&found), "{found:?}");
        }
        assert_eq!(bench.out(&v4(B, X).udp(1, 2)), Ok(()));
    });
}

#[test]
fn what_has_no_answer_takes_none_from_others() {
    with_firewall("default = \"reject\"\nrejections_per_second = 20", |bench| {
        for port in 0..50 {
            let group = v4(X, Ipv4Addr::new(224, 0, 0, 5)).udp(1000 + port, 53).build();
            assert!(bench.send(Direction::Inbound, &[group]).outside.is_empty());
        }
        let told = bench.send(Direction::Inbound, &[v4(X, A).udp(1000, 53).build()]).outside.len();
        bench.pass(1);
        assert_eq!((told, bench.counter("rejections-not-sent")), (1, 0));
    });
}
