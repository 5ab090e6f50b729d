//! What a configuration may not say, and what the answer is.

use nf_framework::Function;
use nfs::nat::{Config, Nat};

const POOL: &str = "[[pools]]\naddresses = [\"198.51.100.100\"]\n";

/// The key and message of a configuration that is no policy.
fn invalid(text: &str) -> (String, String) {
    let config: Config = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let invalid = Nat::new().policy(config).map(drop).expect_err(text);
    (invalid.key, invalid.message)
}

#[test]
fn what_cannot_be_is_said_with_its_key() {
    for (text, key, message) in [
        ("sessions = 63", "sessions", "63 is not from 64 to 268435456"),
        ("sessions = 268435457", "sessions", "268435457 is not from 64 to 268435456"),
        ("subscribers = 0", "subscribers", "0 is not from 64 to 268435456"),
        ("ports_per_subscriber = 0", "ports_per_subscriber", "0 would let nobody through: leave it out for no limit"),
        (
            "sessions_per_subscriber = 0",
            "sessions_per_subscriber",
            "0 would let nobody through: leave it out for no limit",
        ),
        ("mss = 535", "mss", "535 is less than every host takes, 536 (RFC 9293)"),
        (
            "log = { file = \"x\", lines_per_second = 0 }",
            "log.lines_per_second",
            "0 lines in a second would write nothing to x",
        ),
        ("timeouts.udp = 0", "timeouts.udp", "0 seconds are not from 1 to 1000000"),
        ("timeouts.icmp = 1000001", "timeouts.icmp", "1000001 seconds are not from 1 to 1000000"),
        ("timeouts.tcp_opening = 0", "timeouts.tcp_opening", "0 seconds are not from 1 to 1000000"),
        ("timeouts.tcp_established = 0", "timeouts.tcp_established", "0 seconds are not from 1 to 1000000"),
        ("timeouts.tcp_closing = 0", "timeouts.tcp_closing", "0 seconds are not from 1 to 1000000"),
        ("timeouts.port_quiet = 16385", "timeouts.port_quiet", "16385 seconds are not from 0 to 16384"),
        ("exclude = [\"2001:db8::/32\"]", "exclude", "2001:db8::/32 is not IPv4"),
        (
            "[[pools]]\naddresses = [\"223.255.255.255\", \"224.0.0.0/28\"]",
            "pools[0].addresses",
            "224.0.0.0 is not an address that a host can have",
        ),
        (
            "one_to_one = [{ inside = \"192.168.1.1\", outside = \"127.0.0.1\" }]",
            "one_to_one[0].outside",
            "127.0.0.1 is not an address that a host can have",
        ),
        (
            "forward = [{ protocol = \"udp\", outside = \"0.0.0.0\", ports = \"53\", to = [\"192.168.1.1:53\"] }]",
            "forward[0].outside",
            "0.0.0.0 is not an address that a host can have",
        ),
        (
            "one_to_one = [{ inside = \"192.168.1.0/24\", outside = \"198.51.100.0/25\" }]",
            "one_to_one[0].outside",
            "198.51.100.0/25 has not the length of 192.168.1.0/24",
        ),
        (
            "one_to_one = [{ inside = \"192.168.1.1\", outside = \"2001:db8::1\" }]",
            "one_to_one[0].outside",
            "2001:db8::1/128 is not IPv4",
        ),
        (
            "one_to_one = [{ inside = \"192.168.1.1\", outside = \"198.51.100.9\" }, { inside = \"192.168.1.1\", outside = \"198.51.100.8\" }]",
            "one_to_one[1].inside",
            "192.168.1.1 has an outside address already",
        ),
        (
            "one_to_one = [{ inside = \"192.168.1.1\", outside = \"198.51.100.9\" }, { inside = \"192.168.1.2\", outside = \"198.51.100.9\" }]",
            "one_to_one[1].outside",
            "198.51.100.9 stands for another inside address",
        ),
        (
            "one_to_one = [{ inside = \"192.168.1.1\", outside = \"198.51.100.100\" }]",
            "one_to_one[0].outside",
            "198.51.100.100 is an address of a pool",
        ),
        (
            "one_to_one = [{ inside = \"10.0.0.0/8\", outside = \"11.0.0.0/8\" }]",
            "one_to_one[0].inside",
            "there are more than 65536 addresses",
        ),
        (
            "one_to_one = [{ inside = \"192.168.1.1\", outside = \"198.51.100.9\" }]\n\
             forward = [{ protocol = \"tcp\", outside = \"198.51.100.9\", ports = \"80\", to = [\"192.168.1.2:80\"] }]",
            "forward[0].outside",
            "198.51.100.9 is an address of one_to_one",
        ),
        (
            "forward = [{ protocol = \"tcp\", outside = \"198.51.100.9\", ports = \"80\", to = [] }]",
            "forward[0].to",
            "there is no server",
        ),
        (
            "one_to_one = [{ inside = \"192.168.1.0/24\", outside = \"203.0.113.0/24\" }]\n\
             forward = [{ protocol = \"tcp\", outside = \"198.51.100.9\", ports = \"80\", to = [\"192.168.1.2:80\"] }]",
            "forward[0].to",
            "192.168.1.2 answers from the address that one_to_one gives it",
        ),
        (
            "forward = [{ protocol = \"tcp\", outside = \"198.51.100.9\", ports = \"1-65535\", to = [\"192.168.1.2:1\"] }, \
                        { protocol = \"udp\", outside = \"198.51.100.9\", ports = \"1-2\", to = [\"192.168.1.2:1\"] }]",
            "forward[1].ports",
            "there are more than 65536 ports",
        ),
        (
            "forward = [{ protocol = \"tcp\", outside = \"198.51.100.9\", ports = \"80-90\", to = [\"192.168.1.2:65530\"] }]",
            "forward[0].to[0]",
            "80-90 are 11 ports, and from 65530 to 65535 there are 6",
        ),
        (
            "forward = [{ protocol = \"tcp\", outside = \"198.51.100.9\", ports = \"80\", to = [\"192.168.1.3:1\", \"192.168.1.2:0\"] }]",
            "forward[0].to[1]",
            "there is no port 0 (write 192.168.1.2:80 or the like)",
        ),
        (
            "forward = [{ protocol = \"tcp\", outside = \"198.51.100.9\", ports = \"80-81\", to = [\"192.168.1.2:80\", \"192.168.1.2:81\"] }]",
            "forward[0].to",
            "192.168.1.2:81 has an external port already",
        ),
        (
            "forward = [{ protocol = \"tcp\", outside = \"198.51.100.9\", ports = \"80\", to = [\"192.168.1.2:80\"] }, \
                        { protocol = \"tcp\", outside = \"198.51.100.9\", ports = \"79-81\", to = [\"192.168.1.3:79\"] }]",
            "forward[1].ports",
            "198.51.100.9:80 leads to other servers already",
        ),
    ] {
        assert_eq!(invalid(&format!("{text}\n{POOL}")), (key.to_owned(), message.to_owned()), "{text}");
    }
}

#[test]
fn pools_that_cannot_be_are_said_with_their_key() {
    let many = POOL.repeat(65);
    for (text, key, message) in [
        ("", "pools", "there is nothing to translate to: give a pool, one_to_one or forward"),
        (&many, "pools", "there are more than 64"),
        ("[[pools]]\naddresses = [\"2001:db8::1\"]", "pools[0].addresses", "2001:db8::1/128 is not IPv4"),
        ("[[pools]]\naddresses = [\"10.0.0.0/19\"]", "pools[0].addresses", "there are more than 4096 addresses"),
        (
            "[[pools]]\naddresses = [\"10.0.0.0/20\", \"10.1.0.0\"]",
            "pools[0].addresses",
            "there are more than 4096 addresses",
        ),
        (
            "[[pools]]\naddresses = [\"10.0.0.0/20\"]\n[[pools]]\naddresses = [\"10.1.0.0\"]",
            "pools",
            "there are more than 4096 addresses",
        ),
        (
            "[[pools]]\naddresses = [\"10.0.0.1\"]\ndraining = [\"10.0.0.1\"]",
            "pools[0].draining",
            "an address is either in use (addresses) or draining",
        ),
        (
            "[[pools]]\naddresses = [\"10.0.0.1\"]\n[[pools]]\naddresses = [\"10.0.0.2\"]\ndraining = [\"10.0.0.0/31\"]",
            "pools[1].addresses",
            "10.0.0.1 is in pool 0 already (they count from 0)",
        ),
        (
            "[[pools]]\naddresses = [\"10.0.0.1\"]\nsubscribers = [\"2001:db8::/64\"]",
            "pools[0].subscribers",
            "2001:db8::/64 is not IPv4",
        ),
        ("[[pools]]\naddresses = [\"10.0.0.1\"]\nto = [\"::/0\"]", "pools[0].to", "::/0 is not IPv4"),
    ] {
        assert_eq!(invalid(text), (key.to_owned(), message.to_owned()), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_said_where_it_stands() {
    for (text, message) in [
        ("pool = 1", "unknown field `pool`"),
        ("filtering.tcp = \"none\"", "unknown variant `none`"),
        ("filtering.icmp = \"endpoint-independent\"", "unknown field `icmp`"),
        ("timeouts.tcp = 5", "unknown field `tcp`"),
        ("timeouts.port_quiet = 70000", "invalid value: integer `70000`"),
        ("log.lines_per_second = 5", "missing field `file`"),
        ("[[pools]]\nports = \"80\"", "missing field `addresses`"),
        (
            "[[pools]]\naddresses = []\nports = 80",
            "invalid type: integer `80`, expected a range of ports in quotes (\"1024-65535\", or \"80\" for one)",
        ),
        ("[[pools]]\naddresses = []\nports = \"0\"", "\"0\" is not a range of ports"),
        ("[[pools]]\naddresses = []\nports = \"0-5\"", "\"0-5\" is not a range of ports"),
        ("[[pools]]\naddresses = []\nports = \"5-4\"", "\"5-4\" is not a range of ports"),
        ("[[pools]]\naddresses = []\nports = \"5-\"", "\"5-\" is not a range of ports"),
        ("[[pools]]\naddresses = []\nports = \"1-65536\"", "\"1-65536\" is not a range of ports"),
        ("[[pools]]\naddresses = [\"198.51.100.100/24\"]", "198.51.100.100"),
        (
            "forward = [{ protocol = \"icmp\", outside = \"10.0.0.1\", ports = \"1\", to = [] }]",
            "unknown variant `icmp`",
        ),
        (
            "forward = [{ protocol = \"tcp\", outside = \"2001:db8::1\", ports = \"1\", to = [] }]",
            "invalid IPv4 address",
        ),
        (
            "forward = [{ protocol = \"tcp\", outside = \"10.0.0.1\", ports = \"1\", to = [\"10.0.0.1\"] }]",
            "invalid IPv4 socket address",
        ),
    ] {
        let error = toml::from_str::<Config>(text).expect_err(text).to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
}

#[test]
fn what_may_be_at_the_limits_is_taken() {
    for text in [
        "sessions = 64\nsubscribers = 64\nmss = 536\nports_per_subscriber = 1\nsessions_per_subscriber = 1\n",
        "timeouts = { udp = 1, icmp = 1, tcp_opening = 1, tcp_established = 1000000, tcp_closing = 1, port_quiet = 16384 }\n",
        "exclude = [\"0.0.0.0/0\"]\n",
        "log = { file = \"x\", lines_per_second = 1 }\n",
    ] {
        let config: Config = toml::from_str(&format!("{text}{POOL}")).unwrap();
        Nat::new().policy(config).unwrap();
    }
    for text in [
        "one_to_one = [{ inside = \"10.0.0.0/16\", outside = \"11.0.0.0/16\" }]",
        "forward = [{ protocol = \"udp\", outside = \"10.0.0.1\", ports = \"1-65535\", to = [\"192.168.1.1:1\"] }]",
        "forward = [{ protocol = \"udp\", outside = \"10.0.0.1\", ports = \"80-90\", to = [\"192.168.1.1:65525\"] }]",
        "[[pools]]\naddresses = [\"10.0.0.0/20\"]\nports = \"1-65535\"",
        "[[pools]]\naddresses = []\ndraining = [\"10.0.0.1\"]",
    ] {
        Nat::new().policy(toml::from_str(text).unwrap()).unwrap();
    }
}

#[test]
fn lists_have_a_length_that_they_are_held_to() {
    let list = |count: u32, item: &dyn Fn(u32) -> String| {
        let items: Vec<_> = (0..count).map(|number| format!("\"{}\"", item(number))).collect();
        format!("[{}]", items.join(", "))
    };
    let address = |number| std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).to_string();
    let server = |number| format!("{}:80", address(number));
    let prefixes = |count| list(count, &address);
    let forward = |index: u32, ports: &str, servers: u32| {
        let servers = list(servers, &|number| server(index << 16 | number));
        format!("{{ protocol = \"tcp\", outside = \"198.51.100.{index}\", ports = \"{ports}\", to = {servers} }}")
    };
    let exclude = |count| format!("exclude = {}\n{POOL}", prefixes(count));
    let subscribers = |count| format!("{POOL}subscribers = {}\n", prefixes(count));
    let to = |count| format!("{POOL}to = {}\n", prefixes(count));
    let addresses = |count| format!("[[pools]]\naddresses = {}\n", prefixes(count));
    let servers = |count| format!("forward = [{}]\n", forward(1, "80", count));
    // Each of 4096 ports has 64 servers.
    let all_servers = |more: u32| {
        let all = [forward(1, "1-2048", 64), forward(2, "1-2048", 64)];
        let others = (3..3 + more).map(|index| forward(index, "80", 1));
        format!("forward = [{}]\n", all.into_iter().chain(others).collect::<Vec<_>>().join(", "))
    };
    for (good, bad, key, message) in [
        (exclude(4096), exclude(4097), "exclude", "there are more than 4096 prefixes"),
        (subscribers(4096), subscribers(4097), "pools[0].subscribers", "there are more than 4096 prefixes"),
        (to(4096), to(4097), "pools[0].to", "there are more than 4096 prefixes"),
        (addresses(4096), addresses(4097), "pools[0].addresses", "there are more than 4096 addresses"),
        (servers(64), servers(65), "forward[0].to", "there are more than 64 servers"),
        (all_servers(0), all_servers(1), "forward[2].to", "there are more than 262144 servers, counted for each port"),
    ] {
        Nat::new().policy(toml::from_str(&good).unwrap()).unwrap();
        assert_eq!(invalid(&bad), (key.to_owned(), message.to_owned()));
    }
}
