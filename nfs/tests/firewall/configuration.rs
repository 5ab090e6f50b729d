//! What a configuration is told before anything runs, and which rule decides about what.

use super::bench::config;
use nf_framework::Described;
use nf_framework::Function;
use nfs::firewall::{Config, Firewall};

fn said(text: &str) -> String {
    match toml::from_str::<Config>(text) {
        Ok(config) => match Firewall.policy(config) {
            Ok(_) => "nothing".to_owned(),
            Err(invalid) => format!("{}: {}", invalid.key, invalid.message),
        },
        Err(error) => error.message().to_owned(),
    }
}

#[test]
fn what_makes_no_sense_is_named_by_its_key() {
    let rule = |text: &str| format!("[sets.s]\nprefixes = [\"10.0.0.0/8\"]\n[[rules]]\naction = \"accept\"\n{text}");
    for (text, expected) in [
        (rule("vlans = 4095"), "\"4095\" is not a VLAN: 1 to 4094, or 0 for none"),
        (rule("source = \"@t\""), "rules[0].source: there is no set \"t\" (known: s)"),
        (rule("source = \"10.0.0.1/8\""), "is not an address, a prefix or the @name of a set"),
        (
            rule("source = \"10.0.0.1\"\ndestination = \"2001:db8::1\""),
            "rules[0].destination: no packet is of two families",
        ),
        (rule("source = \"2001:db8::1\"\nprotocol = \"icmp\""), "rules[0].protocol: no packet is of two families"),
        (rule("protocol = \"icmp\"\ndestination_ports = 1"), "rules[0].destination_ports: icmp has no ports"),
        (rule("protocol = [\"tcp\", \"gre\"]\nsource_ports = 1"), "rules[0].source_ports: gre has no ports"),
        (rule("icmp = 3"), "rules[0].icmp: an ICMP type has its meaning by the protocol"),
        (rule("protocol = \"icmpv6\"\nicmp = [1, \"timestamp\"]"), "rules[0].icmp[1]: icmpv6 has no such type"),
        (rule("flags = \"syn\""), "rules[0].flags: only TCP has TCP flags"),
        (rule("protocol = [\"tcp\", \"udp\"]\nflags = \"syn\""), "rules[0].flags: only TCP has TCP flags"),
        (rule("state = \"related\"\nprotocol = \"tcp\""), "rules[0].protocol: what is related"),
        (rule("limit = {}"), "rules[0].limit: a limit is of"),
        (rule("limit = { burst = 1 }"), "rules[0].limit.burst: a burst is of a rate"),
        (rule("limit = { burst = 1, embryonic = 5 }"), "rules[0].limit.burst: a burst is of a rate"),
        (rule("protocol = \"udp\"\nlimit = { embryonic = 5 }"), "rules[0].limit.embryonic: only connections of TCP"),
        (
            rule("protocol = [\"udp\", \"icmp\"]\nlimit = { embryonic = 5 }"),
            "rules[0].limit.embryonic: only connections",
        ),
        (
            rule("state = \"related\"\ndestination_ports = 80"),
            "rules[0].destination_ports: what is related is an ICMP error",
        ),
        (rule("state = \"related\"\nsource_ports = 80"), "rules[0].source_ports: what is related is an ICMP error"),
        (rule("state = \"related\"").replace("accept", "reject"), "rules[0].action: what is related is an ICMP error"),
        (rule("state = \"related\"\nfragment = true"), "rules[0].fragment: what is related is an ICMP error"),
        (
            rule("state = \"related\"\nprotocol = \"icmp\"\nicmp = \"echo-request\""),
            "rules[0].icmp: what is related is an ICMP error, and this is none",
        ),
        (
            rule("protocol = \"icmp\"\nicmp = \"echo-reply\""),
            "rules[0].icmp: icmp 0 begins nothing, and no rule is asked",
        ),
        (rule("protocol = \"icmp\"\nicmp = [\"3/1\", \"11-12\"]"), "rules[0].icmp: icmp 3 begins nothing"),
        (rule("protocol = \"icmpv6\"\nicmp = \"133-137\""), "rules[0].icmp: icmpv6 133-137 begins nothing"),
        (
            rule("protocol = \"tcp\"\nflags = \"ack\""),
            "rules[0].flags: rules are asked about what begins a connection, a SYN, and",
        ),
        (rule("protocol = \"tcp\"\nflags = \"syn ack\""), "rules[0].flags: rules are asked about what begins"),
        (rule("protocol = \"tcp\"\nflags = \"!syn\""), "rules[0].flags: rules are asked about what begins"),
        (
            format!("mid_stream = true\n{}", rule("protocol = \"tcp\"\nflags = \"fin\"")),
            "rules[0].flags: rules are asked about what begins a connection, a SYN or an acknowledgment, and",
        ),
        (format!("mid_stream = true\n{}", rule("protocol = \"tcp\"\nflags = \"!syn\"")), "nothing"),
        (
            format!("fragments = \"drop\"\n{}", rule("fragment = true")),
            "rules[0].fragment: fragments = \"drop\" leaves none for a rule",
        ),
        (
            rule("source = \"@s\"\nprotocol = \"icmpv6\""),
            "rules[0].protocol: no packet is of two families: icmpv6 is IPv6, the",
        ),
        (rule("destination = \"10.0.0.1\"\nprotocol = \"icmpv6\""), "rules[0].protocol: no packet is of two families"),
        (rule("source = \"@s\"\ndestination = \"2001:db8::1\""), "rules[0].destination: no packet is of two families"),
        (rule("source = \"224.0.0.0/4\""), "rules[0].source: what is from 224.0.0.0/4 is dropped before any rule"),
        (rule("source = [\"ff02::/16\", \"127.0.0.1\"]"), "rules[0].source: what is from ff02::/16 is dropped"),
        (rule("destination = \"127.0.0.0/8\""), "rules[0].destination: what is to 127.0.0.0/8 is dropped before"),
        ("ether_types = [0x800]".to_owned(), "ether_types[0]: this is IP, about which rules decide: leave it out"),
        ("ether_types = [0x88cc, 0x86dd]".to_owned(), "ether_types[1]: this is IP"),
        ("ether_types = [0x806]".to_owned(), "ether_types[0]: this is ARP, which passes by arp = \"accept\""),
        (
            format!("rejections_per_second = 0\n{}", rule("").replace("accept", "reject")),
            "rejections_per_second: 0 would answer nobody, and rules[0] has action = \"reject\"",
        ),
        (
            "rejections_per_second = 0\ndefault = \"reject\"".to_owned(),
            "rejections_per_second: 0 would answer nobody, and there is default = \"reject\"",
        ),
        (format!("rejections_per_second = 0\n{}", rule("")), "nothing"),
        (rule("limit = { per_source = true }"), "rules[0].limit.per_source: what each source may have is"),
        (rule("limit = { embryonic = 0 }"), "rules[0].limit.embryonic: 0 would let nothing through"),
        (
            rule("state = \"related\"\nlimit = { embryonic = 1 }"),
            "rules[0].limit.embryonic: what is related begins no connection",
        ),
        (rule("[[rules]]\naction = \"log\""), "rules[1].action: there is no log: give it a file in [firewall.log]"),
        (rule("limit = { packets_per_second = 0 }"), "rules[0].limit.packets_per_second: 0 would let nothing through"),
        (
            rule("state = \"related\"\nlimit = { packets_per_second = 1 }"),
            "rules[0].limit.packets_per_second: what is related is limited by connections_per_second",
        ),
        (
            rule("[[rules]]\naction = \"drop\"\nlimit = { connections_per_second = 1 }"),
            "rules[1].limit: only what is accepted can be limited",
        ),
        (
            rule("name = \"a\"\n[[rules]]\naction = \"drop\"\nname = \"a\""),
            "rules[1].name: \"a\" is the name of another",
        ),
        (rule("name = \"rfc4890\""), "rules[0].name: \"rfc4890\" is the name of our own rule for ICMPv6"),
        (rule("name = \"\""), "rules[0].name: a name is not empty: give it one, or leave it out"),
        (rule("action = \"pass\"").replace("action = \"accept\"\n", ""), "unknown variant `pass`"),
        ("connections = 1".to_owned(), "connections: 1 is not from 64 to "),
        ("connections_v6 = 1".to_owned(), "connections_v6: 1 is not from 64 to "),
        ("sources = 1".to_owned(), "sources: 1 is not from 64 to "),
        ("source_bits_v6 = 129".to_owned(), "source_bits_v6: 129 is not from 16 to 128"),
        ("connections_per_source = 0".to_owned(), "connections_per_source: 0 would let nobody through"),
        ("ether_types = [0x88cc, 5]".to_owned(), "ether_types[1]: Ethernet types begin at 1536"),
        ("llc = \"pass\"".to_owned(), "unknown variant `pass`"),
        (
            rule("protocol = \"udp\"\nsyn_cookies = \"always\""),
            "rules[0].syn_cookies: only what begins a TCP connection is answered by SYN cookies",
        ),
        (
            rule("syn_cookies = \"always\"").replace("\"accept\"", "\"reject\""),
            "rules[0].syn_cookies: only what begins a TCP connection",
        ),
        (
            rule("state = \"related\"\nsyn_cookies = \"always\""),
            "rules[0].syn_cookies: only what begins a TCP connection",
        ),
        (
            rule("syn_cookies = \"under-attack\""),
            "rules[0].syn_cookies: an attack is known by limit = { embryonic = N }",
        ),
        (
            rule("fragment = true\nsyn_cookies = \"always\""),
            "rules[0].syn_cookies: a SYN in fragments is answered by no cookie",
        ),
        (rule("fragment = false\nsyn_cookies = \"always\""), "nothing"),
        (rule("syn_cookies = \"sometimes\""), "unknown variant `sometimes`"),
        ("syn_cookies_mss = 100".to_owned(), "syn_cookies_mss: 100 is not from 536 to 9216"),
        ("timeouts = { udp = 0 }".to_owned(), "timeouts.udp: 0 seconds are not from 1 to 1000000"),
        ("[sets.empty]\n".to_owned(), "sets.empty: a set without addresses matches nothing"),
    ] {
        let found = said(&text);
        assert!(found.contains(expected), "{text}\n{found}");
    }
    let dscp: String = (0..64).map(|dscp| format!("[[rules]]\ndscp = {dscp}\naction = \"accept\"\n")).collect();
    assert!(said(&dscp).starts_with("rules: more than 64 combinations of states, VLANs and DSCP"));
}

/// Of what nobody has the memory for.
#[test]
fn rules_whose_lists_have_too_many_combinations_are_refused_before_they_are_made() {
    let list = |of: &dyn Fn(u32) -> String| {
        let all: Vec<_> = (1..=100).map(|number| format!("{:?}", of(number))).collect();
        all.join(", ")
    };
    let [hosts, others] = [10, 11].map(|net| list(&|number| format!("{net}.0.0.{number}")));
    let ports = list(&|number| number.to_string());
    let rule = format!(
        "protocol = \"tcp\"\nsource = [{hosts}]\ndestination = [{others}]\nsource_ports = [{ports}]\ndestination_ports = \
         [{ports}]\naction = \"accept\"\n"
    );
    let found = said(&format!("[[rules]]\n{rule}"));
    assert!(found.starts_with("rules[0]: with each combination of its lists there are 100000000 rules, and 16384 are"));
    let some = format!("[[rules]]\nsource = [{hosts}]\ndestination = [{others}]\naction = \"accept\"\n");
    assert_eq!(said(&some), "nothing");
    assert!(said(&some.repeat(2)).starts_with("rules[1]: with each combination"));
}

/// Each is told apart from the others by two lists: of rules about what begins, and of those about errors.
#[test]
fn more_groups_of_vlans_than_there_are_numbers_are_refused() {
    let mut rules = String::new();
    for (state, group) in ["new", "related"].into_iter().flat_map(|state| (0..20).map(move |group| (state, group))) {
        let is_in = |vlan: &u16| if state == "new" { (vlan - 1) % 20 == group } else { (vlan - 1) / 20 == group };
        let vlans: Vec<u16> = (1..=400).filter(is_in).collect();
        rules += &format!("[[rules]]\nvlans = {vlans:?}\nstate = \"{state}\"\naction = \"accept\"\n");
    }
    assert!(
        said(&rules).starts_with("rules: their lists of VLANs tell more than 256 groups apart"),
        "{}",
        said(&rules)
    );
}

const RULES: &str = r#"
[sets.office]
prefixes = ["10.0.0.0/24"]
[[rules]]
name = "no-telnet"
protocol = "tcp"
destination_ports = 23
action = "reject"
[[rules]]
name = "office"
comment = "who works here"
from = "inside"
source = "@office"
action = "accept"
[[rules]]
name = "ef"
vlans = [0, 7]
dscp = "ef"
fragment = false
action = "accept"
[[rules]]
name = "ping"
protocol = ["icmp", "icmpv6"]
icmp = "echo-request"
action = "accept"
"#;

#[test]
fn there_is_room_for_a_quarter_of_the_connections_in_ipv6_unless_told_otherwise() {
    let memory = |text: &str| Firewall.memory(&Firewall.policy(toml::from_str(text).unwrap()).unwrap());
    assert_eq!(memory("connections = 65536"), memory("connections = 65536\nconnections_v6 = 16384"));
    assert!(memory("connections = 65536\nconnections_v6 = 65536") > memory("connections = 65536"));
    // A table for what sources have begun, and one for the rates of each.
    let limit = "\n[[rules]]\naction = \"accept\"\nlimit = { packets_per_second = 1, per_source = true }";
    assert!(memory("connections_per_source = 1") > memory("") && memory(limit) > memory(""));
    let cookies = "\n[[rules]]\naction = \"accept\"\nsyn_cookies = \"always\"";
    assert!(memory(cookies) > memory(""));
}

#[test]
fn a_rule_that_writes_down_leaves_the_decision_to_later_ones() {
    let rules = "rfc4890 = false\n[log]\nfile = \"x\"\n[[rules]]\nname = \"all\"\naction = \"log\"\n[[rules]]\nname = \"again\"\naction \
                 = \"log\"\n[[rules]]\nname = \"out\"\nfrom = \"inside\"\naction = \"accept\"\n";
    let policy = Firewall.policy(config(rules)).unwrap();
    let explained = |packet: &str| policy.explain(&packet.parse::<Described>().unwrap()).to_string();
    assert_eq!(explained("udp 10.0.0.5:1 > 10.0.0.6:1"), "  logged, by all\naccept, by out");
    let from_outside = explained("udp 10.0.0.5:1 > 10.0.0.6:1 from outside");
    assert_eq!(
        from_outside,
        "  not out: it comes from outside\n  logged, by all\ndrop (firewall-default), as no rule matches"
    );
}

#[test]
fn a_described_packet_is_explained() {
    let policy = Firewall.policy(config(RULES)).unwrap();
    for (packet, expected) in [
        ("tcp 10.0.0.5:4321 > 198.51.100.7:443 from inside", "accept, by office"),
        ("tcp 10.0.0.5:4321 > 198.51.100.7:23 from inside", "reject (firewall-denied), by no-telnet"),
        ("tcp 10.0.1.5:4321 > 198.51.100.7:443", "  not office: source 10.0.1.5 is not in @office\n"),
        ("tcp 10.0.0.5:4321 > 198.51.100.7:443 from outside", "  not office: it comes from outside\n"),
        ("udp [2001:db8::1]:1 > [2001:db8::2]:2 from outside dscp ef", "accept, by ef"),
        (
            "udp [2001:db8::1]:1 > [2001:db8::2]:2 from outside dscp ef fragment",
            "drop (firewall-default), as no rule matches",
        ),
        ("icmp 192.0.2.1 > 10.0.0.5 from outside", "accept, by ping"),
        ("icmp 192.0.2.1 > 10.0.0.5 from outside timestamp", "  not ping: the ICMP type is another\n"),
        ("icmpv6 2001:db8::1 > 2001:db8::2 from outside 144/0", "accept, by rfc4890"),
        ("icmp 192.0.2.1 > 10.0.0.5 from outside 3/1 related", "accept, as no rule matches"),
        ("udp 10.0.1.1:1 > 10.0.2.2:2 from outside dscp ef vlan 7", "accept, by ef"),
        ("udp 10.0.1.1:1 > 10.0.2.2:2 from outside dscp ef vlan 8", "  not ef: its VLAN is 8\n"),
        ("gre 192.0.2.1 > 10.0.0.5 from outside", "  not no-telnet: the protocol is not tcp\n"),
    ] {
        let explained = policy.explain(&packet.parse::<Described>().unwrap()).to_string();
        assert!(explained.contains(expected), "{packet}\n{explained}");
    }
    let said = |cookies: &str| {
        let limit = "limit = { embryonic = 10 }";
        let text = format!("[[rules]]\nname = \"web\"\naction = \"accept\"\n{limit}\nsyn_cookies = \"{cookies}\"\n");
        let policy = Firewall.policy(config(&text)).unwrap();
        ["tcp 10.0.0.5:1 > 10.0.0.6:80", "udp 10.0.0.5:1 > 10.0.0.6:80", "tcp 10.0.0.5:1 > 10.0.0.6:80 flags ack"]
            .map(|packet| policy.explain(&packet.parse::<Described>().unwrap()).to_string())
    };
    const NONE: &str = "drop (firewall-no-connection), belongs to no connection and begins none";
    assert_eq!(said("never"), ["accept, by web", "accept, by web", NONE]);
    assert_eq!(said("always")[0], "accept, by web; its SYN is answered by a cookie first");
    assert_eq!(said("under-attack")[0], "accept, by web; under attack its SYN is answered by a cookie first");
    assert_eq!(said("always")[1..], ["accept, by web", NONE]);
    assert_eq!((policy.comment("office"), policy.comment("ef")), (Some("who works here"), None));
    for (packet, expected) in [
        ("", "the protocol is missing"),
        ("tcp", "the source is missing"),
        ("tcp 10.0.0.5 > 10.0.0.6", "\"10.0.0.5\" is not an address with a port"),
        ("tcp 10.0.0.5:1 10.0.0.6:1", "the \">\" between source and destination is missing"),
        ("udp 10.0.0.5:1 > [::1]:1", "10.0.0.5 and ::1 are of two families"),
        ("udp 10.0.0.5:1 > 10.0.0.6:1 from above", "\"above\" is no side"),
        ("udp 10.0.0.5:1 > 10.0.0.6:1 from", "what follows \"from\" is missing"),
        ("udp 10.0.0.5:1 > 10.0.0.6:1 vlan ten", "\"ten\" is not a VLAN"),
        ("udp 10.0.0.5:1 > 10.0.0.6:1 from inside from outside", "from is said twice"),
        ("icmp 10.0.0.5 > 10.0.0.6 3/1 echo-request", "the type is said twice"),
        ("udp 10.0.0.5:1 > 10.0.0.6:1 quickly", "\"quickly\" says nothing"),
        ("icmp 10.0.0.5 > 10.0.0.6 packet-too-big", "icmp has no type packet-too-big"),
    ] {
        let error = packet.parse::<Described>().unwrap_err().to_string();
        assert!(error.contains(expected), "{packet}\n{error}");
    }
}

/// What is only written, as the log is, holds nothing that a reload could find changed.
#[test]
fn each_file_that_is_read_is_told_to_reloads() {
    let path = std::env::temp_dir().join(format!("firewall-files-{}", std::process::id()));
    std::fs::write(&path, "10.0.0.0/8\n").unwrap();
    let file = path.display();
    let text = format!(
        "log = {{ file = '/tmp/firewall-files.jsonl' }}\n[sets.a]\nfile = '{file}'\n[sets.b]\nprefixes = ['192.0.2.1']\n\
         [sets.unused]\nprefixes = ['192.0.2.1']\nfile = '{file}'\n[[rules]]\nsource = ['@a', '@b']\naction = 'accept'\n"
    );
    let held = || {
        let policy = Firewall.policy(config(&text)).unwrap();
        let files = Firewall.files(&policy);
        files.into_iter().map(|file| (file.key, file.digest)).collect::<Vec<_>>()
    };
    let before = held();
    assert_eq!(before.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["sets.a.file", "sets.unused.file"]);
    std::fs::write(&path, "10.0.0.0/9\n").unwrap();
    assert!(before.iter().zip(held()).all(|(before, now)| before.0 == now.0 && before.1 != now.1));
    std::fs::remove_file(path).unwrap();
    // Who adds a key that names a file adds it here, and to `Function::files` if it is read.
    let source = include_str!("../../src/firewall/config.rs");
    assert_eq!(source.matches("PathBuf,").count() + source.matches("PathBuf>").count(), 2);
}
