//! What is accepted, and what passes with it: rows F1, F13 and F14.

use super::bench::{A, A6, B, OUT, SYN, X, X6, Y, denied, tcp, v4, v6, with_firewall};
use nf_framework::Direction;
use nf_framework::testing::Frame;
use std::net::{Ipv4Addr, Ipv6Addr};

#[test]
fn f01_replies_pass_and_nothing_else_from_outside() {
    with_firewall(OUT, |bench| {
        bench.connect(4000);
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53).payload(b"who")), Ok(()));
        assert_eq!(bench.back(&v4(X, A).udp(53, 5000).payload(b"it")), Ok(()));
        assert_eq!(bench.out(&v6(A6, X6).udp(5000, 53)), Ok(()));
        assert_eq!(bench.back(&v6(X6, A6).udp(53, 5000)), Ok(()));
        assert_eq!(bench.out(&v4(A, X).icmp_echo_request(7, 1)), Ok(()));
        assert_eq!(bench.back(&v4(X, A).icmp_echo_reply(7, 1)), Ok(()));
        assert_eq!(bench.out(&v4(A, X).protocol(47).payload(&[0; 8])), Ok(()));
        assert_eq!(bench.back(&v4(X, A).protocol(47).payload(&[0; 8])), Ok(()));
        for (what, frame) in [
            ("another host", v4(Y, A).udp(53, 5000)),
            ("another port of it", v4(X, A).udp(54, 5000)),
            ("another port", v4(X, A).udp(53, 5001)),
            ("another inside host", v4(X, B).udp(53, 5000)),
            ("a connection", tcp(X, A, 80, 4001, SYN)),
            ("a connection in IPv6", v6(X6, A6).tcp(1, 2).flags(SYN)),
            ("a ping", v4(X, A).icmp_echo_request(7, 1)),
            ("another protocol", v4(Y, A).protocol(47).payload(&[0; 8])),
        ] {
            assert_eq!(bench.back(&frame), denied("default"), "{what}");
        }
        assert_eq!(bench.back(&v4(X, A).icmp_echo_reply(8, 1)), denied("no-connection"));
        // No state for what is denied.
        assert_eq!(bench.connections(), 5);
    });
}

#[test]
fn f01_without_a_rule_nothing_passes() {
    with_firewall("rfc4890 = false", |bench| {
        for frame in [v4(A, X).udp(1, 2), v6(A6, X6).icmpv6_echo_request(1, 1), tcp(A, X, 1, 2, SYN)] {
            assert_eq!(bench.out(&frame), denied("default"));
            assert_eq!(bench.back(&frame), denied("default"));
        }
        assert_eq!(bench.connections(), 0);
    });
}

#[test]
fn f01_what_is_not_ip_is_let_through_as_configured() {
    let arp = || Frame::new().arp_request(A, X);
    let lldp = || Frame::new().ether_type(0x88cc).payload(&[0; 46]);
    with_firewall("", move |bench| {
        assert_eq!(bench.out(&arp()), Ok(()));
        assert_eq!(bench.out(&lldp()), denied("ether-type"));
    });
    with_firewall("arp = \"drop\"\nether_types = [0x88cc]", move |bench| {
        assert_eq!(bench.out(&arp()), denied("arp"));
        assert_eq!(bench.out(&lldp()), Ok(()));
    });
}

#[test]
fn a_packet_of_a_connection_comes_from_its_ends_side() {
    with_firewall(OUT, |bench| {
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        assert_eq!(bench.back(&v4(A, X).udp(5000, 53)), denied("side"));
        assert_eq!(bench.out(&v4(X, A).udp(53, 5000)), denied("side"));
        assert_eq!(bench.back(&v4(X, A).udp(53, 5000)), Ok(()));
        // Tags are part of it: another customer's connection is another one.
        assert_eq!(bench.back(&v4(X, A).vlan(7).udp(53, 5000)), denied("default"));
    });
}

#[test]
fn f13_an_active_flow_survives_behind_idle_ones() {
    with_firewall(&format!("timeouts = {{ udp = 30, udp_answered = 100 }}\n{OUT}"), |bench| {
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        for port in 0..200 {
            assert_eq!(bench.out(&v4(B, X).udp(6000 + port, 53)), Ok(()));
        }
        assert_eq!(bench.back(&v4(X, A).udp(53, 5000)), Ok(()));
        for _ in 0..5 {
            bench.pass(25);
            assert_eq!(bench.back(&v4(X, A).udp(53, 5000)), Ok(()));
        }
        // Nobody answered these, nor said more.
        assert_eq!(bench.back(&v4(X, B).udp(53, 6000)), denied("default"));
        assert_eq!(bench.connections(), 1);
        bench.pass(101);
        assert_eq!(bench.back(&v4(X, A).udp(53, 5000)), denied("default"));
    });
}

#[test]
fn f13_each_protocol_has_its_times() {
    let gre = |source, destination| v4(source, destination).protocol(47).payload(&[0; 8]);
    // What begins it, what answers, and for how many seconds it is known at first, and once it goes on after the answer.
    let cases = [
        ("UDP", v4(A, X).udp(5000, 53), v4(X, A).udp(53, 5000), 30, 300),
        ("UDP in IPv6", v6(A6, X6).udp(5000, 53), v6(X6, A6).udp(53, 5000), 30, 300),
        ("a ping", v4(A, X).icmp_echo_request(7, 1), v4(X, A).icmp_echo_reply(7, 1), 30, 30),
        ("a time stamp", v4(A, X).icmp(13, 0, [0, 7, 0, 1]), v4(X, A).icmp(14, 0, [0, 7, 0, 1]), 30, 30),
        ("a ping in IPv6", v6(A6, X6).icmpv6_echo_request(7, 1), v6(X6, A6).icmpv6_echo_reply(7, 1), 30, 30),
        ("another protocol", gre(A, X), gre(X, A), 60, 600),
    ];
    for (what, question, answer, unanswered, answered) in cases {
        with_firewall(&format!("rfc4890 = false\n{OUT}"), move |bench| {
            for seconds in [unanswered, answered] {
                assert_eq!(bench.out(&question), Ok(()), "{what}");
                if seconds == answered {
                    assert_eq!(bench.back(&answer), Ok(()), "{what}");
                    assert_eq!(bench.out(&question), Ok(()), "{what}: it goes on");
                }
                bench.pass(seconds - 1);
                assert_eq!(bench.connections(), 1, "{what}");
                bench.pass(2);
                assert_eq!(bench.connections(), 0, "{what}");
                assert!(bench.back(&answer).is_err(), "{what}");
            }
        });
    }
}

#[test]
fn f14_the_first_rule_that_matches_decides() {
    const TEXT: &str = r#"
[sets.servers]
prefixes = ["192.168.1.10", "2001:db8:1::/64"]
[[rules]]
name = "not-y"
source = "203.0.113.2"
action = "drop"
[[rules]]
name = "web"
from = "outside"
destination = "@servers"
protocol = "tcp"
destination_ports = [80, "8000-8099"]
action = "accept"
[[rules]]
name = "but-one"
protocol = "tcp"
destination_ports = 443
source_ports = 7
action = "drop"
[[rules]]
name = "ef"
protocol = "udp"
dscp = "ef"
action = "accept"
[[rules]]
name = "dns"
protocol = "udp"
destination_ports = 53
destination = ["203.0.113.1", "203.0.113.2"]
action = "accept"
[[rules]]
name = "sctp"
protocol = ["sctp", 253]
action = "accept"
[[rules]]
name = "echo"
protocol = "icmp"
icmp = ["echo-request", "13/0"]
from = "inside"
action = "accept"
"#;
    with_firewall(TEXT, |bench| {
        let syn = |source, destination, port| tcp(source, destination, 1000, port, SYN);
        let (drop, accept) = (|| denied("denied"), || Ok::<(), String>(()));
        let cases = [
            ("a set", Direction::Inbound, syn(X, A, 80), accept()),
            ("the first port of a range", Direction::Inbound, syn(X, A, 8000), accept()),
            ("the last", Direction::Inbound, syn(X, A, 8099), accept()),
            ("the one behind it", Direction::Inbound, syn(X, A, 8100), denied("default")),
            ("the other side", Direction::Outbound, syn(X, A, 80), denied("side")),
            ("the other side, first", Direction::Outbound, syn(B, A, 80), denied("default")),
            ("an earlier rule", Direction::Inbound, syn(Y, A, 80), drop()),
            ("outside of the set", Direction::Inbound, syn(X, B, 80), denied("default")),
            ("a set in IPv6", Direction::Inbound, v6(X6, A6).tcp(1, 80).flags(SYN), accept()),
            ("another protocol", Direction::Inbound, v4(X, A).udp(1000, 80), denied("default")),
            ("a class", Direction::Inbound, v4(X, A).traffic_class(46 << 2 | 1).udp(1000, 80), accept()),
            ("another class", Direction::Inbound, v4(X, B).traffic_class(45 << 2).udp(1000, 80), denied("default")),
            ("a list of destinations", Direction::Outbound, v4(A, Y).udp(1000, 53), accept()),
            ("a protocol without ports", Direction::Outbound, v4(A, Y).protocol(132).payload(&[0; 12]), accept()),
            ("a protocol by number", Direction::Outbound, v4(A, Y).protocol(253), accept()),
            ("an ICMP type", Direction::Outbound, v4(A, X).icmp_echo_request(1, 1), accept()),
            ("a type with a code", Direction::Outbound, v4(A, X).icmp(13, 0, [0, 1, 0, 1]), accept()),
            ("another type", Direction::Outbound, v4(A, X).icmp(10, 0, [0; 4]), denied("default")),
        ];
        for (what, direction, frame, expected) in cases {
            assert_eq!(bench.goes(direction, frame.build()), expected, "{what}");
        }
    });
}

#[test]
fn f14_a_rule_asks_for_the_vlan_that_a_packet_comes_in_by() {
    const TEXT: &str = r#"
[[rules]]
name = "guests"
vlans = [10, 11]
destination = "203.0.113.2"
action = "drop"
[[rules]]
name = "tagged"
vlans = [10, 20]
action = "accept"
[[rules]]
name = "untagged"
vlans = 0
protocol = "udp"
action = "accept"
"#;
    with_firewall(TEXT, |bench| {
        let udp = |to| v4(A, to).udp(5000, 53);
        for (what, frame, expected) in [
            ("a guest", udp(Y).vlan(10), denied("denied")),
            ("another one", udp(Y).vlan(11), denied("denied")),
            ("to another host", udp(X).vlan(10), Ok(())),
            ("where no rule is for it", udp(X).vlan(11), denied("default")),
            ("with a priority", udp(Y).vlan(20 | 3 << 13), Ok(())),
            ("two tags, of which the outer one counts", udp(Y).service_vlan(20).vlan(10), Ok(())),
            ("and it alone", udp(X).service_vlan(30).vlan(20), denied("default")),
            ("without a tag", udp(Y), Ok(())),
            ("a tag for the priority alone", udp(X).vlan(5 << 13), Ok(())),
            ("another protocol", tcp(A, X, 1, 2, SYN), denied("default")),
        ] {
            assert_eq!(bench.out(&frame), expected, "{what}");
        }
        // Replies, and rules that change.
        assert_eq!(bench.back(&v4(X, A).vlan(10).udp(53, 5000)), Ok(()));
        bench.reload(&format!("live = \"rejudge\"\n{}", TEXT.replace("[10, 20]", "20"))).unwrap();
        assert_eq!(bench.back(&v4(X, A).vlan(10).udp(53, 5000)), denied("rejudged"));
        assert_eq!(bench.out(&udp(Y).vlan(20)), Ok(()));
        assert_eq!(bench.out(&udp(Y).service_vlan(20).vlan(10)), Ok(()));
    });
}

#[test]
fn packets_of_one_burst_are_judged_in_their_order() {
    with_firewall(OUT, |bench| {
        let frames: Vec<_> = (0..60)
            .map(|number| match number % 3 {
                0 => v4(A, X).udp(5000 + number % 7, 53).build(),
                1 => v6(A6, X6).udp(5000 + number % 5, 53).build(),
                _ => v4(B, X).icmp_echo_request(number % 4, 1).build(),
            })
            .collect();
        let mut sent = bench.send(Direction::Outbound, &frames);
        assert_eq!((sent.outside.len(), sent.dropped.len()), (60, 0));
        if bench.workers == 1 {
            assert_eq!(sent.outside, frames);
        }
        sent.outside.sort();
        let mut expected = frames;
        expected.sort();
        assert_eq!(sent.outside, expected);
        assert_eq!(bench.connections(), 7 + 5 + 4);
    });
}

#[test]
fn what_follows_a_beginning_in_one_burst_belongs_to_it() {
    with_firewall(OUT, |bench| {
        let syn = tcp(A, X, 4000, 80, SYN).sequence_number(999).build();
        let reset = tcp(A, X, 4000, 80, super::bench::RST).sequence_number(1000).build();
        let sent = bench.send(Direction::Outbound, &[syn, reset.clone()]);
        assert_eq!((sent.outside.len(), sent.dropped.len()), (2, 0));
        let other = tcp(A, X, 4001, 80, super::bench::RST).sequence_number(1000).build();
        let ping = v4(A, X).icmp_echo_request(1, 1).build();
        let sent = bench.send(Direction::Outbound, &[ping, other]);
        assert_eq!((sent.outside.len(), sent.dropped["firewall-no-connection"]), (1, 1));
    });
}

#[test]
fn what_is_rejected_is_told_so() {
    let text = "[[rules]]\nfrom = \"outside\"\nsource = \"203.0.113.2\"\naction = \"reject\"\n";
    for (text, host) in [(text, Y), ("default = \"reject\"", X)] {
        with_firewall(text, move |bench| {
            let back = |frame: Frame| frame.ethernet(Frame::DESTINATION, Frame::SOURCE);
            let syn = tcp(host, A, 1000, 80, SYN).sequence_number(77).payload(b"x");
            let answer = back(tcp(A, host, 80, 1000, RST_ACK).acknowledgment_number(79).window(0)).dont_fragment();
            let said = bench.send(Direction::Inbound, &[syn.build()]);
            assert_eq!((said.outside, said.dropped.len()), (vec![answer.build()], 1));
            let udp = v4(host, A).vlan(5).udp(1000, 53).payload(b"hello");
            let quoted = udp.build()[18..].to_vec();
            let answer = back(v4(A, host).vlan(5)).dont_fragment().icmp(3, 13, [0; 4]).payload(&quoted);
            assert_eq!(bench.send(Direction::Inbound, &[udp.build()]).outside, [answer.build()]);
            // Groups are not answered for.
            let group = v4(host, [224, 0, 0, 5].into()).udp(1, 2).build();
            assert_eq!(bench.send(Direction::Inbound, &[group]).outside, Vec::<Vec<u8>>::new());
            assert_eq!(bench.connections(), 0);
        });
    }
    with_firewall("default = \"reject\"", |bench| {
        let udp = v6(X6, A6).udp(1000, 53).payload(b"hello");
        let quoted = udp.build()[14..].to_vec();
        let answer = v6(A6, X6).ethernet(Frame::DESTINATION, Frame::SOURCE).icmpv6(1, 1, [0; 4]).payload(&quoted);
        assert_eq!(bench.send(Direction::Inbound, &[udp.build()]).outside, [answer.build()]);
        bench.pass(1);
        assert_eq!(bench.counter("rejections-sent"), 1);
    });
}

const RST_ACK: u8 = super::bench::RST | super::bench::ACK;

/// Four hundred classes of VLANs, if rules of both kinds are taken together.
#[test]
fn f14_rules_that_decide_tell_vlans_apart_beside_rules_that_write_down() {
    let file = std::env::temp_dir().join(format!("firewall-vlans-{}.jsonl", std::process::id()));
    let list = |of: &dyn Fn(u16) -> bool| (1..=400).filter(|vlan| of(vlan - 1)).collect::<Vec<u16>>();
    let mut rules = format!("rfc4890 = false\nlog = {{ file = {file:?}, accepted = false, denied = false }}\n");
    for group in 0..20 {
        let vlans = list(&|vlan| vlan % 20 == group);
        rules += &format!("[[rules]]\nvlans = {vlans:?}\naction = \"log\"\n");
    }
    for group in 0..20 {
        let (vlans, action) = (list(&|vlan| vlan / 20 == group), if group % 3 == 0 { "accept" } else { "drop" });
        rules += &format!("[[rules]]\nvlans = {vlans:?}\naction = \"{action}\"\n");
    }
    with_firewall(&rules, |bench| {
        for vlan in (1..=400).step_by(3) {
            let expected = if (vlan - 1) / 20 % 3 == 0 { Ok(()) } else { denied("denied") };
            assert_eq!(bench.out(&v4(A, X).vlan(vlan).udp(5000, 53)), expected, "VLAN {vlan}");
        }
    });
    std::fs::remove_file(file).unwrap();
}

#[test]
fn f14_a_tag_for_the_priority_around_another_one_is_not_its_vlan() {
    with_firewall("[[rules]]\nvlans = 0\nfrom = \"inside\"\naction = \"accept\"\n", |bench| {
        let (out, back) = (v4(A, X).udp(5000, 53), v4(X, A).udp(53, 5000));
        assert_eq!(bench.out(&out.clone().service_vlan(3 << 13).vlan(5)), Ok(()));
        assert_eq!(bench.back(&back.clone().service_vlan(3 << 13).vlan(5)), Ok(()), "its answer");
        assert_eq!(bench.back(&back.clone().vlan(5)), denied("default"), "VLAN 5 has no rule");
        assert_eq!(bench.out(&out.clone().vlan(5)), denied("default"));
        assert_eq!(bench.back(&back.clone()), denied("default"), "nor is it what has no tag");
        // Alone it is as none.
        assert_eq!(bench.out(&out.clone().vlan(3 << 13)), Ok(()));
        assert_eq!(bench.back(&back), Ok(()));
        let reserved = bench.out(&out.service_vlan(0xfff).vlan(5));
        assert_eq!(reserved, Err("malformed".to_owned()), "a number that no VLAN has");
    });
}

#[test]
fn f14_many_groups_of_vlans_are_judged_each_by_its_rules() {
    let list = |of: &dyn Fn(u16) -> bool| {
        let all: Vec<_> = (1..=400).filter(|vlan| of(*vlan)).map(|vlan: u16| vlan.to_string()).collect();
        all.join(", ")
    };
    let directory = std::env::temp_dir();
    let mut rules = format!(
        "rfc4890 = false\nlog = {{ file = \"{}/firewall-vlans-{}\", accepted = false, denied = false }}\n",
        directory.display(),
        std::process::id()
    );
    for group in 0..20 {
        rules += &format!("[[rules]]\nvlans = [{}]\naction = \"log\"\n", list(&|vlan| (vlan - 1) % 20 == group));
    }
    for group in 0..20 {
        let action = if group == 12 { "accept" } else { "drop" };
        rules += &format!("[[rules]]\nvlans = [{}]\naction = \"{action}\"\n", list(&|vlan| (vlan - 1) / 20 == group));
    }
    with_firewall(&rules, |bench| {
        for vlan in 1..=400 {
            let expected = if (241..=260).contains(&vlan) { Ok(()) } else { denied("denied") };
            assert_eq!(bench.out(&v4(A, X).vlan(vlan).udp(5000, 53)), expected, "{vlan}");
        }
    });
    let _ = std::fs::remove_file(directory.join(format!("firewall-vlans-{}", std::process::id())));
}

#[test]
fn f01_protocols_that_begin_with_ports_are_told_apart_by_them() {
    for (protocol, least) in [(132_u8, 12), (136, 8), (33, 12)] {
        with_firewall(OUT, move |bench| {
            let ends = |from: u16, to: u16| [from.to_be_bytes(), to.to_be_bytes()].concat();
            let one = |from: u16, to: u16| [ends(from, to), vec![0; 20]].concat();
            let out = |from, to| v4(A, X).protocol(protocol).payload(&one(from, to));
            let back = |from, to| v4(X, A).protocol(protocol).payload(&one(from, to));
            assert_eq!(bench.out(&out(5000, 36412)), Ok(()));
            assert_eq!(bench.back(&back(36412, 5000)), Ok(()));
            assert_eq!(bench.back(&back(36412, 22)), denied("default"), "{protocol}: another association");
            assert_eq!(bench.back(&back(5000, 36412)), denied("default"), "{protocol}: ports the other way round");
            let error = |about: &Frame| v4(X, A).icmp(3, 2, [0; 4]).payload(&super::bench::packet(about)[..28]);
            assert_eq!(bench.back(&error(&out(5000, 36412))), Ok(()));
            assert_eq!(bench.back(&error(&out(5001, 36412))), denied("unrelated"));
            let short = v4(A, X).protocol(protocol).payload(&one(1, 2)[..least - 1]);
            assert_eq!(bench.out(&short), Err("malformed".to_owned()));
            // Nobody says which ports later fragments have.
            let parts = out(5000, 36412).build_fragments(16);
            let sent = bench.send(Direction::Outbound, &parts);
            assert_eq!((sent.outside.len(), sent.dropped["firewall-fragment"]), (1, parts.len() as u64 - 1));
        });
    }
    with_firewall(OUT, |bench| {
        let payload = [&5000_u16.to_be_bytes()[..], &36412_u16.to_be_bytes(), &[0; 20]].concat();
        let association = v6(A6, X6).protocol(132).payload(&payload);
        assert_eq!(bench.out(&association), Ok(()));
        let about = super::bench::packet(&association);
        assert_eq!(bench.back(&v6(X6, A6).icmpv6(1, 4, [0; 4]).payload(&about)), Ok(()));
        let other = super::bench::packet(&v6(A6, X6).protocol(132).payload(&[1; 24]));
        assert_eq!(bench.back(&v6(X6, A6).icmpv6(1, 4, [0; 4]).payload(&other)), denied("unrelated"));
    });
}

#[test]
fn what_is_from_or_to_no_host_does_not_pass_and_is_not_answered() {
    for default in ["[[rules]]\naction = \"accept\"", "default = \"reject\""] {
        with_firewall(default, |bench| {
            let mapped = Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped();
            let no_hosts = [[255; 4], [127, 0, 0, 1], [240, 0, 0, 1], [0, 1, 2, 3], [224, 0, 0, 1]].map(Ipv4Addr::from);
            let from = no_hosts.into_iter().map(|source| v4(source, A));
            let six = [Ipv6Addr::LOCALHOST, mapped].into_iter().flat_map(|odd| [v6(odd, A6), v6(X6, odd)]);
            let to = [[127, 0, 0, 1], [0; 4], [240, 0, 0, 1]].map(|odd| v4(X, odd.into())).into_iter();
            for frame in from.chain(six).chain(to).chain([v6(X6, Ipv6Addr::UNSPECIFIED)]) {
                assert_eq!(bench.back(&frame.udp(1, 2)), denied("address"));
            }
        });
    }
    with_firewall("[[rules]]\naction = \"accept\"", |bench| {
        let dhcp = v4(Ipv4Addr::UNSPECIFIED, Ipv4Addr::BROADCAST).udp(68, 67);
        assert_eq!(bench.out(&dhcp), Ok(()), "who has no address yet");
    });
}

#[test]
fn f01_spanning_tree_passes_if_it_may() {
    let bridges = || Frame::new().ether_type(38).payload(&[0x42; 38]).pad_to(60);
    with_firewall("ether_types = [0x88cc]", move |bench| assert_eq!(bench.out(&bridges()), denied("ether-type")));
    with_firewall("llc = \"accept\"", move |bench| {
        assert_eq!(bench.out(&bridges()), Ok(()));
        assert_eq!(bench.out(&Frame::new().ether_type(0x88cc).payload(&[0; 46])), denied("ether-type"));
    });
}
