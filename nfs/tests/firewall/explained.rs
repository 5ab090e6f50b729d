//! What the packet path decides is what `explain` says: rules one after the other, as they are written, against
//! rte_acl and the views of it.

use super::bench::{SYN, with_firewall};
use nf_framework::Described;
use nf_framework::testing::Frame;
use nf_framework::{Direction, Function};
use nfs::firewall::Firewall;
use std::fmt::Write as _;

/// SplitMix64.
#[derive(Clone, Copy)]
struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % most as u64).unwrap()
    }

    fn of<'a>(&mut self, list: &[&'a str]) -> &'a str {
        list[self.below(list.len())]
    }
}

const SETS: &str = "[sets.a]\nprefixes = [\"10.0.0.0/30\", \"2001:db8::/126\"]\n[sets.b]\nprefixes = [\"10.0.0.2\", \
                    \"10.0.1.0/24\", \"2001:db8::1\"]\n";

fn rule(random: &mut Random) -> String {
    let mut rule = "[[rules]]\n".to_owned();
    let action = random.of(&["accept", "drop"]);
    let _ = writeln!(rule, "action = \"{action}\"");
    let addresses = ["@a", "@b", "10.0.0.0/31", "10.0.1.0/24", "2001:db8::/127", "2001:db8::2", "10.0.0.3"];
    for side in ["source", "destination"] {
        if random.below(2) == 0 {
            let _ = writeln!(rule, "{side} = \"{}\"", random.of(&["@a", "@b"]));
        } else if side == "source" || random.below(3) == 0 {
            let _ = writeln!(rule, "{side} = [\"{}\", \"{}\"]", random.of(&addresses), random.of(&["@a", "@b"]));
        }
    }
    match random.below(6) {
        0 => rule += "protocol = \"tcp\"\nflags = \"syn !ack\"\n",
        1 => rule += "protocol = [\"tcp\", \"udp\"]\ndestination_ports = [53, \"80-90\"]\n",
        2 => rule += "source_ports = \"1000-1500\"\n",
        3 => rule += "protocol = [\"icmp\", \"icmpv6\"]\nicmp = \"echo-request\"\n",
        4 => rule += "protocol = \"gre\"\n",
        _ => {}
    }
    if random.below(3) == 0 {
        let _ = writeln!(rule, "from = \"{}\"", random.of(&["inside", "outside"]));
    }
    if random.below(8) == 0 {
        rule += "dscp = \"ef\"\n";
    }
    rule
}

/// A packet in words, and as a frame; each has ports or an identifier of its own.
fn packet(random: &mut Random, number: u16) -> (String, Direction, Frame) {
    let six = random.below(2) == 0;
    let hosts: &[&str] = if six {
        &["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::7"]
    } else {
        &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.1.9", "10.0.2.9"]
    };
    let source = random.of(hosts);
    let others: Vec<&str> = hosts.iter().copied().filter(|host| *host != source).collect();
    let destination = random.of(&others);
    let (from, to) = (1000 + number, [53, 80, 91][random.below(3)]);
    let ef = random.below(2) == 0;
    let frame = match (source.parse(), destination.parse()) {
        (Ok(std::net::IpAddr::V4(source)), Ok(std::net::IpAddr::V4(destination))) => {
            Frame::new().ipv4(source, destination)
        }
        (Ok(std::net::IpAddr::V6(source)), Ok(std::net::IpAddr::V6(destination))) => {
            Frame::new().ipv6(source, destination)
        }
        _ => panic!("{source} {destination}"),
    };
    let frame = frame.traffic_class(if ef { 46 << 2 } else { 0 });
    let end = |host: &str, port: u16| if six { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    let ends = format!("{} > {}", end(source, from), end(destination, to));
    let (words, frame) = match random.below(3) {
        0 => (format!("tcp {ends}"), frame.tcp(from, to).flags(SYN)),
        1 => (format!("udp {ends}"), frame.udp(from, to)),
        _ if six => (format!("icmpv6 {source} > {destination}"), frame.icmpv6_echo_request(number, 1)),
        _ => (format!("icmp {source} > {destination}"), frame.icmp_echo_request(number, 1)),
    };
    let inside = random.below(2) == 0;
    let words =
        format!("{words} from {}{}", if inside { "inside" } else { "outside" }, if ef { " dscp ef" } else { "" });
    (words, if inside { Direction::Outbound } else { Direction::Inbound }, frame)
}

#[test]
fn the_packet_path_decides_as_the_rules_are_written() {
    for seed in 0..12 {
        let mut random = Random(seed);
        let rules: String = (0..40).map(|_| rule(&mut random)).collect();
        let text = format!("rfc4890 = {}\n{SETS}{rules}", seed % 2 == 0);
        let whole = text.clone();
        with_firewall(&text, move |bench| {
            let policy = Firewall.policy(super::bench::config(&whole)).unwrap();
            let (mut random, mut accepted) = (Random(seed + 1000), 0);
            for number in 0..800 {
                let (words, direction, frame) = packet(&mut random, number);
                let explained = policy.explain(&words.parse::<Described>().unwrap());
                let expected = explained.reason().map_or(Ok(()), |reason| Err(reason.to_owned()));
                accepted += u32::from(expected.is_ok());
                assert_eq!(
                    bench.goes(direction, frame.build()),
                    expected,
                    "seed {seed}: {words}\n{explained}\n{whole}"
                );
            }
            assert!((20..780).contains(&accepted), "seed {seed}: {accepted} of 800 were accepted");
        });
    }
}
