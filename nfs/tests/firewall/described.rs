//! A packet in words is judged as the same packet is that comes first into an empty firewall.

use super::bench::{A, A6, Bench, X, X6, config, denied, packet, v4, v6, with_firewall};
use super::captured::pcap;
use nf_framework::Described;
use nf_framework::testing::Frame;
use nf_framework::{Direction, Function};
use nfs::firewall::{Firewall, SynCookies, Why};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// From, to, and a frame between them.
type Ends = (IpAddr, IpAddr);

fn between((source, destination): Ends) -> Frame {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => v4(source, destination),
        (IpAddr::V6(source), IpAddr::V6(destination)) => v6(source, destination),
        _ => panic!("{source} {destination}"),
    }
}

/// A packet in words, without its side, and as a frame.
type Case = (String, Frame);

fn with_ports(protocol: &str, (source, destination): Ends) -> String {
    let end = |address: IpAddr, port| std::net::SocketAddr::new(address, port).to_string();
    format!("{protocol} {} > {}", end(source, 4000), end(destination, 80))
}

const FLAGS: [&str; 8] = ["fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr"];

fn tcp(ends: Ends, flags: u8) -> Case {
    let set: Vec<&str> =
        FLAGS.into_iter().enumerate().filter(|(bit, _)| flags >> bit & 1 == 1).map(|of| of.1).collect();
    let set = if set.is_empty() { "!syn".to_owned() } else { set.join(",") };
    let frame = between(ends).tcp(4000, 80).flags(flags).sequence_number(0).acknowledgment_number(0).payload(&[0; 20]);
    (with_ports("tcp", ends) + " flags " + &set, frame)
}

fn udp(ends: Ends) -> Case {
    (with_ports("udp", ends), between(ends).udp(4000, 80).payload(&[0; 24]))
}

/// Of ICMP in IPv4 and ICMPv6 in IPv6: an error is about a datagram that its receiver has sent.
fn message(ends: Ends, number: u8, code: u8) -> Case {
    let six = ends.0.is_ipv6();
    let name = if six { "icmpv6" } else { "icmp" };
    let frame = between(ends);
    let frame = match number {
        133..=137 if six => frame.hop_limit(255),
        130..=132 | 143 if six => frame.hop_limit(1),
        _ => frame,
    };
    let frame = if six { frame.icmpv6(number, code, [0; 4]) } else { frame.icmp(number, code, [0; 4]) };
    let mut quoted = packet(&between((ends.1, ends.0)).udp(80, 4000));
    // Fragments have units of 8.
    quoted.resize(quoted.len().next_multiple_of(8), 0);
    (format!("{name} {} > {} {number}/{code}", ends.0, ends.1), frame.payload(&quoted))
}

fn other(ends: Ends, protocol: u8) -> Case {
    (format!("{protocol} {} > {}", ends.0, ends.1), between(ends).protocol(protocol).payload(&[0; 24]))
}

/// Every kind of packet between two hosts.
fn kinds(ends: Ends) -> Vec<Case> {
    let mut kinds: Vec<Case> = (0..64).map(|flags| tcp(ends, flags)).collect();
    kinds.extend([0x42, 0xc2, 0x80, 0xd2].map(|flags| tcp(ends, flags)));
    kinds.push(udp(ends));
    let six = ends.0.is_ipv6();
    let messages: &[u8] = if six {
        &[
            0, 1, 2, 3, 4, 5, 100, 127, 128, 129, 130, 131, 132, 133, 134, 135, 136, 137, 138, 139, 141, 143, 144, 147,
            148,
        ]
    } else {
        &[0, 3, 4, 5, 8, 9, 10, 11, 12, 13, 14, 15, 17, 30, 42]
    };
    for number in messages {
        kinds.extend([0, 1, 4].map(|code| message(ends, *number, code)));
    }
    // ICMP of the other family, GRE, ESP, SCTP, DCCP, UDP-Lite, IGMP, nothing, an experiment; and in IPv4 numbers of IPv6's.
    let others: &[u8] = if six { &[1] } else { &[58, 0, 43, 44, 51, 60] };
    kinds.extend(others.iter().chain(&[47, 50, 132, 33, 136, 2, 59, 253]).map(|protocol| other(ends, *protocol)));
    kinds
}

/// A packet of each family from and to what may be no host.
fn places() -> Vec<Ends> {
    let four = |source: [u8; 4], destination: [u8; 4]| -> Ends {
        (Ipv4Addr::from(source).into(), Ipv4Addr::from(destination).into())
    };
    let six = |source: &str, destination: &str| -> Ends {
        let [source, destination] = [source, destination].map(|text| text.parse::<Ipv6Addr>().unwrap());
        (source.into(), destination.into())
    };
    let host = [198, 51, 100, 1];
    let no_hosts = [[0; 4], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [239, 1, 2, 3], [240, 0, 0, 1], [255; 4]];
    let mut places = vec![four(host, host), six("2001:db8::1", "2001:db8::1"), four([0; 4], [255; 4]), six("::", "::")];
    places.push(four([169, 254, 0, 1], [10, 255, 255, 255]));
    places.push(six("fe80::1", "ff02::16"));
    places.push(six("::", "ff02::1"));
    for no_host in no_hosts {
        places.extend([four(no_host, host), four(host, no_host)]);
    }
    for no_host in ["::", "::1", "ff02::1", "ff0e::1", "::ffff:192.0.2.1", "fe80::1", "fd00::1"] {
        places.extend([six(no_host, "2001:db8::1"), six("2001:db8::1", no_host)]);
    }
    places
}

fn cases() -> Vec<Case> {
    let usual: [Ends; 2] = [(A.into(), X.into()), (A6.into(), X6.into())];
    let mut cases: Vec<Case> = usual.into_iter().flat_map(kinds).collect();
    let fragments = cases.iter().map(|(words, frame)| (format!("{words} fragment"), frame.clone().fragment(0, true)));
    let marked = cases
        .iter()
        .step_by(3)
        .map(|(words, frame)| (format!("{words} vlan 7 dscp ef"), frame.clone().vlan(7).traffic_class(46 << 2)));
    let more: Vec<Case> = fragments.chain(marked).collect();
    cases.extend(more);
    for ends in places() {
        let reply = if ends.0.is_ipv6() { [128, 129, 1, 135, 143] } else { [8, 0, 3, 13, 5] };
        cases.extend([tcp(ends, 2), tcp(ends, 16), udp(ends), other(ends, 47)]);
        cases.extend(reply.map(|number| message(ends, number, 0)));
    }
    cases
}

/// Whether a packet passes that comes first; why not otherwise.
fn comes_first(bench: &mut Bench, direction: Direction, frame: &[u8]) -> Option<String> {
    let outcome = bench.send(direction, &[frame.to_vec()]);
    assert!(outcome.dropped.len() <= 1, "{outcome:?}");
    let reason = outcome.dropped.into_keys().next();
    let there = if direction == Direction::Outbound { outcome.outside } else { outcome.inside };
    assert_eq!(there == [frame], reason.is_none(), "{reason:?}");
    // Connections are gone after a second.
    if bench.connections() > 0 {
        bench.pass(2);
    }
    assert_eq!(bench.connections(), 0);
    reason
}

const TIMEOUTS: &str =
    "timeouts = { tcp_syn_sent = 1, tcp_syn_received = 1, tcp_established = 1, udp = 1, icmp = 1, other = 1 }\n";
const ALL: &str = "[[rules]]\nname = 'all'\naction = 'accept'\n";

#[test]
fn a_described_packet_is_judged_as_the_first_one_of_an_empty_firewall() {
    for (text, least) in [
        (ALL.to_owned(), 300),
        (format!("fragments = 'drop'\nrfc4890 = false\n{ALL}"), 200),
        (format!("mid_stream = true\n{ALL}syn_cookies = 'always'\n"), 200),
        (format!("mid_stream = true\n{ALL}syn_cookies = 'under-attack'\nlimit = {{ embryonic = 1000 }}\n"), 300),
        ("default = 'reject'\n".to_owned(), 10),
        (
            [
                "[[rules]]\nprotocol = ['icmp', 'icmpv6']\nicmp = 'echo-request'\naction = 'drop'\n",
                "[[rules]]\nprotocol = ['icmp', 'icmpv6']\naction = 'accept'\n",
                "[[rules]]\nprotocol = 'tcp'\nflags = 'syn !ece'\nfrom = 'inside'\naction = 'accept'\n",
                "[[rules]]\nfragment = true\naction = 'reject'\n",
                "[[rules]]\nvlans = 0\naction = 'accept'\nprotocol = ['udp', '132', '50']\n",
                "[[rules]]\ndscp = 'ef'\naction = 'accept'\n",
            ]
            .concat(),
            100,
        ),
    ] {
        let text = format!("{TIMEOUTS}{text}");
        let whole = text.clone();
        with_firewall(&text, move |bench| {
            let policy = Firewall.policy(config(&whole)).unwrap();
            let mut accepted = 0;
            for (number, (words, frame)) in cases().into_iter().enumerate() {
                let (side, direction) =
                    if number % 2 == 0 { ("inside", Direction::Outbound) } else { ("outside", Direction::Inbound) };
                let words = format!("{words} from {side}");
                let explained = policy.explain(&words.parse::<Described>().unwrap());
                let expected = match &explained {
                    // It passes by and by.
                    Why::Rules(of) if of.syn_cookies == SynCookies::Always => denied::<()>("syn-cookie").err(),
                    explained => explained.reason().map(str::to_owned),
                };
                // Of no datagram that another case has left a fragment of.
                let frame = frame.identification(u32::try_from(number + 1).unwrap()).build();
                let found = comes_first(bench, direction, &frame);
                accepted += u32::from(found.is_none());
                assert_eq!(found, expected, "{words}\n{explained}\n{whole}");
                assert_eq!(explained.passes(), explained.reason().is_none(), "{words}");
                // In a capture as well, with everybody on one side.
                let everybody: &[&str] = if side == "inside" { &["0.0.0.0/0", "::/0"] } else { &["192.0.2.99"] };
                let inside: Vec<_> = everybody.iter().map(|prefix| prefix.parse().unwrap()).collect();
                let captured = policy.explain_capture(&pcap([&frame], false, false)[..], &inside).unwrap();
                assert_eq!(captured[0].why.reason(), explained.reason(), "{words}\n{}", captured[0]);
            }
            assert!(accepted >= least, "{accepted} were accepted\n{whole}");
        });
    }
}

#[test]
fn an_error_that_is_said_to_be_related_is_judged_as_one_about_a_live_connection() {
    let rules = ["", "[[rules]]\nstate = 'related'\nprotocol = ['icmp', 'icmpv6']\nicmp = '3/1'\naction = 'drop'\n"];
    for rules in rules {
        let text = format!("{rules}[[rules]]\nprotocol = 'udp'\naction = 'accept'\n");
        with_firewall(&text.clone(), move |bench| {
            let policy = Firewall.policy(config(&text)).unwrap();
            for ends in [(X.into(), A.into()), (X6.into(), A6.into())] {
                let asked = between((ends.1, ends.0)).udp(80, 4000);
                assert_eq!(bench.out(&asked), Ok(()));
                let numbers: &[u8] = if ends.0.is_ipv6() { &[1, 2, 3, 4] } else { &[3, 11, 12] };
                for (number, code) in numbers.iter().flat_map(|number| [(*number, 0), (*number, 1)]) {
                    let (words, frame) = message(ends, number, code);
                    let explained = policy.explain(&format!("{words} related").parse().unwrap());
                    let found = bench.back(&frame).err();
                    assert_eq!(found.as_deref(), explained.reason(), "{words}\n{explained}");
                }
            }
        });
    }
}

#[test]
fn what_is_dropped_is_said_by_its_reason_and_why() {
    let policy = Firewall.policy(config(ALL)).unwrap();
    for (words, expected) in [
        (
            "tcp 10.0.0.5:1 > 192.0.2.1:80 flags ack",
            "drop (firewall-no-connection), belongs to no connection and begins none",
        ),
        (
            "tcp 10.0.0.5:1 > 192.0.2.1:80 flags syn,fin",
            "drop (firewall-tcp-flags), a set of TCP flags that means nothing",
        ),
        (
            "udp 10.0.0.5:1 > 10.0.0.5:1",
            "drop (firewall-address), from or to what is no host, or from and to the same address",
        ),
        (
            "icmp 10.0.0.5 > 192.0.2.1 3/1",
            "drop (firewall-unrelated), an ICMP error about nothing (write \"related\" for one about a live connection)",
        ),
        ("icmp 10.0.0.5 > 192.0.2.1 3/1 related", "accept, as no rule matches"),
        ("icmpv6 fe80::1 > ff02::1 neighbor-solicitation", "accept, as Neighbor Discovery is never blocked"),
        (
            "icmp 10.0.0.5 > 192.0.2.1 9 fragment",
            "drop (firewall-fragment), a fragment of a packet that was not accepted",
        ),
        ("gre 10.0.0.5 > 192.0.2.1", "accept, by all"),
    ] {
        let explained = policy.explain(&words.parse().unwrap()).to_string();
        assert!(explained.lines().last().is_some_and(|line| line.starts_with(expected)), "{words}\n{explained}");
    }
    let policy = Firewall.policy(config(&format!("fragments = 'drop'\n{ALL}"))).unwrap();
    let explained = policy.explain(&"udp 10.0.0.5:1 > 192.0.2.1:1 fragment".parse().unwrap()).to_string();
    assert_eq!(explained, "drop (firewall-fragment), as fragments are not let through");
}

#[test]
fn what_is_no_packet_is_refused() {
    for (words, expected) in [
        (
            "udp 10.0.0.5:1 > 10.0.0.6:1 related",
            "udp is not related to a connection: ICMP errors are, such as 3/1 related",
        ),
        ("icmp 10.0.0.5 > 10.0.0.6 related", "icmp is not related to a connection"),
        ("icmp 2001:db8::1 > 2001:db8::2 3/1 related", "icmp is not related to a connection"),
        ("udp 10.0.0.5:1 > 10.0.0.6:1 flags syn", "udp has no TCP flags"),
        ("icmp 10.0.0.5 > 10.0.0.6 3-5", "\"3-5\" names several types: a packet has one, as in 3/1"),
        ("icmp 10.0.0.5 > 10.0.0.6 3/0-4 related", "\"3/0-4\" names several codes: a packet has one, as in 3/1"),
        ("44 2001:db8::1 > 2001:db8::2", "44 is an extension header of IPv6, behind which a protocol stands"),
    ] {
        let error = words.parse::<Described>().unwrap_err().to_string();
        assert!(error.starts_with(expected), "{words}\n{error}");
    }
    for words in ["44 10.0.0.5 > 10.0.0.6", "icmp 10.0.0.5 > 10.0.0.6 8-8", "icmp 10.0.0.5 > 10.0.0.6 8/0-255"] {
        assert!(words.parse::<Described>().is_ok(), "{words}");
    }
}
