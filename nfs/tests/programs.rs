//! The programs as their users run them, with the examples of their configurations.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

#[path = "../../nf-framework/tests/common/namespace.rs"]
mod namespace;

use namespace::{in_a_namespace, ip, silence, skip};
use nf_framework::capture::{CaptureWriter, CapturedPacket};
use nf_framework::testing::Frame;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const NF_CHAIN: &str = env!("CARGO_BIN_EXE_nf-chain");
const FIREWALL: &str = env!("CARGO_BIN_EXE_firewall");
const NAT: &str = env!("CARGO_BIN_EXE_nat");
const LOAD_BALANCER: &str = env!("CARGO_BIN_EXE_load-balancer");
const EAL: [&str; 10] = [
    "-l",
    "0",
    "--no-huge",
    "--no-shconf",
    "--no-telemetry",
    "--no-pci",
    "-m",
    "128",
    "--vdev=net_null0",
    "--vdev=net_null1",
];

/// An example with ports that every machine has.
fn on_null_ports(example: &str) -> String {
    example.replace("net_tap0", "net_null0").replace("net_tap1", "net_null1")
}

fn chain_example() -> String {
    on_null_ports(include_str!("../examples/nf-chain.toml"))
}

fn router_example() -> String {
    on_null_ports(include_str!("../examples/router.toml"))
}

fn nat_example() -> String {
    on_null_ports(include_str!("../examples/nat.toml"))
}

/// One of each mode.
const LOAD_BALANCER_EXAMPLES: [&str; 7] = [
    include_str!("../examples/load-balancer.toml"),
    include_str!("../examples/load-balancer-ipip.toml"),
    include_str!("../examples/load-balancer-gre.toml"),
    include_str!("../examples/load-balancer-gue.toml"),
    include_str!("../examples/load-balancer-dscp.toml"),
    include_str!("../examples/load-balancer-nat.toml"),
    include_str!("../examples/load-balancer-full-nat.toml"),
];

/// Writes a configuration to a file of its own: tests that run at the same time may give the same name.
fn file(name: &str, text: &str) -> PathBuf {
    static FILES: AtomicU32 = AtomicU32::new(0);
    let number = FILES.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("nfs-test-{}-{number}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

/// A program with a configuration.
fn command(program: &str, config: &PathBuf) -> Command {
    let mut command = Command::new(program);
    // Lcore 0 on whatever CPU this process may use.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    command.arg(format!("--lcores=0@({cpus})")).args(&EAL[2..]).args(["--", "--config"]).arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Each of these configurations, by a name, ends the program with a sentence that ends so.
fn assert_refused(program: &str, cases: &[(&str, String, &str)]) {
    for (name, text, sentence) in cases {
        let config = file(name, text);
        let output = command(program, &config).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let (path, line) = (config.to_str().unwrap(), error.strip_suffix('\n').unwrap());
        let is_right = line.starts_with(&format!("error: {path}:")) && line.ends_with(&sentence.replace("FILE", path));
        assert!(is_right && !line.contains('\n'), "{name}:\n{error}{sentence}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{name}");
        std::fs::remove_file(config).unwrap();
    }
}

/// The program runs with a configuration, and says a line of each change: what is replaced, by what, the line.
fn assert_reloads(program: &str, name: &str, text: &str, changes: &[(&str, &str, &str)]) {
    let steps = changes.iter().map(|(old, new, line)| {
        assert!(text.contains(old), "{old} is not in the configuration");
        let change = move |config: &PathBuf| std::fs::write(config, text.replacen(old, new, 1)).unwrap();
        (change, *line)
    });
    assert_says(program, name, text, steps);
}

/// The program runs with a configuration, and says a line when each of these has been done and a signal tells it to
/// read it again.
fn assert_says<'a>(program: &str, name: &str, text: &str, steps: impl Iterator<Item = (impl Fn(&PathBuf), &'a str)>) {
    let config = file(name, text);
    let mut child = command(program, &config).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut seen = String::new();
    let mut wait_for = |line: &str| {
        while !seen.contains(line) {
            let read = log.read_line(&mut seen).unwrap();
            assert!(read > 0, "it ended early: {seen}");
        }
    };
    let tell = |signal: &str| {
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", child.id())).status().unwrap();
        assert!(sent.success());
    };
    wait_for("runs on net_null0 and net_null1 with 1 worker");
    for (change, line) in steps {
        change(&config);
        tell("HUP");
        wait_for(&line.replace("FILE", config.to_str().unwrap()));
    }
    tell("INT");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::remove_file(config).unwrap();
}

#[test]
fn the_annotated_example_runs_until_a_signal_and_its_balance_closes() {
    let config = file("example", &chain_example());
    for signal in ["INT", "TERM"] {
        let mut child = command(NF_CHAIN, &config).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("runs on net_null0 and net_null1 with 1 worker") {
            let read = log.read_line(&mut seen).unwrap();
            assert!(read > 0, "it ended early: {seen}");
        }
        // A new rate, on the way.
        std::fs::write(&config, chain_example().replace("100_000", "200_000")).unwrap();
        assert!(Command::new("sh").arg("-c").arg(format!("kill -HUP {}", child.id())).status().unwrap().success());
        while !seen.contains("generation 2: [rate-limit] packets_per_second: 100000 -> 200000") {
            let read = log.read_line(&mut seen).unwrap();
            assert!(read > 0, "it ended early: {seen}");
        }
        std::fs::write(&config, chain_example()).unwrap();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {}", child.id())).status().unwrap();
        assert!(sent.success());
        log.read_to_string(&mut seen).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "after SIG{signal}: {seen}");
        let table = String::from_utf8(output.stdout).unwrap();
        for word in ["net_null0", "net_null1", "monitor", "rate-limit", "balance: "] {
            assert!(table.contains(word), "{word} is not in:\n{table}");
        }
        assert!(!table.contains("unaccounted"), "{table}");
    }
    std::fs::remove_file(config).unwrap();
}

#[test]
fn a_configuration_that_makes_no_sense_is_one_sentence_with_its_line() {
    let cases = [
        (
            "unknown-function",
            chain_example().replace(r#"["monitor", "#, r#"["monitr", "#),
            r#"FILE:7: chain[0]: there is no function "monitr" (known: firewall, load-balancer, monitor, nat, rate-limit)"#,
        ),
        (
            "twice",
            chain_example().replace(r#""rate-limit"]"#, r#""monitor"]"#),
            r#"FILE:7: chain[1]: the function "monitor" is in the chain twice (name it once)"#,
        ),
        (
            "no-chain",
            chain_example().replace("chain = ", "# "),
            "FILE: chain: missing key (list the functions from inside to outside; known: firewall, load-balancer, monitor, nat, rate-limit)",
        ),
        ("burst", chain_example().replace("burst = 32", "burst = 65"), "FILE:14: burst: 65 is not from 1 to 64"),
        (
            "rate",
            chain_example().replace("100_000", "0"),
            "FILE:31: [rate-limit] packets_per_second: 0 is not from 1 to 1000000000",
        ),
        (
            "unknown-key",
            chain_example().replace("[monitor]", "[monitor]\nverbose = true"),
            "FILE:29: [monitor] verbose: unknown key (none are known here)",
        ),
        (
            "unknown-table",
            chain_example().replace("[monitor]", "[monitoring]"),
            "FILE:28: [monitoring]: unknown table (known: chain, forwarding, router, ports, burst, packets, fragments, admin, firewall, load-balancer, monitor, nat, rate-limit)",
        ),
    ];
    assert_refused(NF_CHAIN, &cases);
}

#[test]
fn where_nothing_can_be_said_programs_end_as_they_would() {
    let config = file("full", "forwarding = 1");
    let config = config.to_str().unwrap();
    let tools = ["nf-ctl", "nf-top", "nf-doctor"].map(|name| PathBuf::from(NAT).with_file_name(name));
    let [ctl, top, doctor] = tools.each_ref().map(|path| path.to_str().unwrap());
    for (program, arguments, code) in [
        (NAT, &["--config", config][..], 2),
        (NAT, &["-l", "0", "--replay", config, "--write", "x", "--config", config], 2),
        (NAT, &["--", "--nonsense"], 2),
        (NAT, &["--", "--config", config], 1),
        (NF_CHAIN, &["--", "--config", "/no/such.toml"], 1),
        (ctl, &["--socket", "/no/such.sock", "stats"], 3),
        (ctl, &["nonsense"], 2),
        (top, &["--socket", "/no/such.sock", "--once"], 3),
        (doctor, &["nonsense"], 2),
        (doctor, &["--need", "much"], 2),
    ] {
        let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
        for is_full in [false, true] {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(if is_full { full().into() } else { Stdio::null() });
            assert_eq!(command.status().unwrap().code(), Some(code), "{program} {arguments:?}, full: {is_full}");
        }
    }
}

#[test]
fn devices_come_by_interface_and_from_the_environment() {
    let config = file("devices", &chain_example());
    for (arguments, environment, sentence) in [
        // Every machine has it, and nowhere is it a PCI device.
        ("-a lo", "fffe:ff:1f.7", "error: -a lo: this interface is no PCI device"),
        ("-a nothing0", "fffe:ff:1f.7", "error: -a nothing0: there is no interface nothing0"),
        ("", "eth0", "error: the environment's PCIDEVICE_X names \"eth0\", which is no device"),
        ("", "fffe:ff:1f.7", "the device \"fffe:ff:1f.7\" that the command line asks for did not start"),
        ("", "fffe:ff:1f.7", "-a fffe:ff:1f.7 is from the environment (PCIDEVICE_X)"),
    ] {
        let mut command = Command::new(NF_CHAIN);
        command.args(["--no-huge", "--no-shconf", "--no-telemetry", "-m", "64"]).args(arguments.split_whitespace());
        command.args(["--", "--config"]).arg(&config).env("PCIDEVICE_X", environment);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(sentence) && output.status.code() == Some(1), "{arguments} {environment}:\n{said}");
    }
    // Beside a running program the devices are not touched.
    let mut check = Command::new(NF_CHAIN);
    check.args(["--", "--check", "--config"]).arg(&config).env("PCIDEVICE_X", "fffe:ff:1f.7");
    let said = String::from_utf8(check.output().unwrap().stderr).unwrap();
    assert!(!said.contains("fffe:ff:1f.7"), "{said}");
    std::fs::remove_file(config).unwrap();
}

#[test]
fn the_routers_example_runs_and_takes_other_routes_on_the_way() {
    let changes = [
        ("198.51.100.254", "198.51.100.253", "generation 2: [router] routes"),
        ("198.51.100.254", "192.0.2.300", "reload refused, generation 2 stays in force"),
        ("198.51.100.254", "203.0.113.1", "203.0.113.1 is on no interface's prefix"),
        ("vlan = 20", "vlan = 21", "generation 3: [router]"),
        (
            "# [router]\n# icmp_errors_per_second = 1000",
            "[router]\nicmp_errors_per_second = 7",
            "icmp_errors_per_second: 1000 -> 7 is a change that a running program cannot make",
        ),
    ];
    assert_reloads(NF_CHAIN, "router", &router_example(), &changes);
}

#[test]
fn a_router_that_makes_no_sense_is_one_sentence_with_its_line() {
    let of = |old: &str, new: &str| router_example().replacen(old, new, 1);
    let cases = [
        (
            "no-table",
            "forwarding = \"router\"\nchain = []\n[ports]\ninside = \"net_null0\"\n".to_owned(),
            "FILE:1: forwarding: a router needs a table [router] with its interfaces",
        ),
        ("wire", of("\"router\"", "\"wire\""), "FILE:30: [router]: this table is for forwarding = \"router\""),
        (
            "no-length",
            of("198.51.100.1/24", "198.51.100.1"),
            "FILE:36: [router] interfaces.wan.addresses[0]: \"198.51.100.1\" has no prefix length: write 198.51.100.1/24 or the like",
        ),
        (
            "no-host",
            of("198.51.100.1/24", "198.51.100.255/24"),
            "FILE:36: [router] interfaces.wan.addresses[0]: 198.51.100.255 is the first or the last address of 198.51.100.0/24, which no host has",
        ),
        (
            "overlap",
            of("198.51.100.1/24", "192.0.2.9/25"),
            "FILE:36: [router] interfaces.wan.addresses[0]: 192.0.2.9/25 overlaps with 192.0.2.1/24 of \"lan\": each link has prefixes of its own",
        ),
        (
            "vlan",
            of("vlan = 20", "vlan = 4095"),
            "FILE:46: [router] interfaces.guests.vlan: 4095 is not from 1 to 4094",
        ),
        ("same-vlan", of("vlan = 20\n", ""), "the interface \"guests\" already (give each a VLAN of its own)"),
        (
            "mtu",
            of("mtu = 1400", "mtu = 1279"),
            "FILE:37: [router] interfaces.wan.mtu: 1279 is not from 1280 to 65535, the port's",
        ),
        (
            "via",
            of("198.51.100.254", "203.0.113.1"),
            "FILE:52: [router] routes[0].via: 203.0.113.1 is on no interface's prefix (name the interface that it is on)",
        ),
        (
            "own",
            of("198.51.100.254", "198.51.100.1"),
            "FILE:52: [router] routes[0].via: 198.51.100.1 is this router's own address",
        ),
        (
            "special",
            of("10.0.0.0/8", "127.1.0.0/16"),
            "routes[2].to: 127.1.0.0/16 is never forwarded, whatever a route says",
        ),
        ("link", of("10.0.0.0/8", "192.0.2.0/24"), "routes[2].to: 192.0.2.0/24 is the link of the interface \"lan\""),
        (
            "via-broadcast",
            of("198.51.100.254", "198.51.100.255"),
            "routes[0].via: 198.51.100.255 is the first or the last address of a link, which no host has",
        ),
        (
            "family",
            of("198.51.100.254", "2001:db8:2::9"),
            "FILE:52: [router] routes[0].via: 2001:db8:2::9 is of another IP version than 0.0.0.0/0",
        ),
        (
            "interface",
            of("interface = \"wan\"", "interface = \"wann\""),
            "FILE:57: [router] routes[1].interface: there is no interface \"wann\" (there are: guests, lan, wan)",
        ),
        (
            "both",
            of("interface = \"wan\"", "refuse = \"blackhole\""),
            "a route has either via, with an interface or without, or interface, or refuse",
        ),
        (
            "twice",
            of("10.0.0.0/8", "0.0.0.0/0"),
            "FILE:61: [router] routes[2].to: 0.0.0.0/0 stands in routes[0] already",
        ),
    ];
    assert_refused(NF_CHAIN, &cases);
}

#[test]
fn the_examples_of_services_are_valid_with_their_options() {
    for (program, configuration, environment) in [
        (NAT, include_str!("../../deploy/examples/nat.toml"), include_str!("../../deploy/examples/nat.env")),
        (
            FIREWALL,
            include_str!("../../deploy/examples/firewall.toml"),
            include_str!("../../deploy/examples/firewall.env"),
        ),
        (
            LOAD_BALANCER,
            include_str!("../../deploy/examples/load-balancer.toml"),
            include_str!("../../deploy/examples/load-balancer.env"),
        ),
    ] {
        // Prometheus asks where they listen.
        let name = program.rsplit('/').next().unwrap();
        let port = configuration.lines().find_map(|line| line.strip_prefix("listen = \"")?.strip_suffix('"')).unwrap();
        let prometheus = include_str!("../../deploy/prometheus/prometheus.yml");
        assert!(prometheus.contains(&format!("- 127.0.0.1:{port} # {name}\n")), "{name} listens at {port}");
        let config = file("service", configuration);
        let options = environment.lines().find_map(|line| line.strip_prefix("OPTIONS=")).unwrap();
        let devices = environment.lines().find_map(|line| line.strip_prefix("EAL_ARGUMENTS=")).unwrap();
        for device in devices.split(" -a ").skip(1) {
            assert!(configuration.contains(&format!(" = \"{device}\"")), "{device} is no port of {program}'s");
        }
        let mut check = Command::new(program);
        check.args(["--", "--check", "--config"]).arg(&config).args(options.split(' '));
        let output = check.output().unwrap();
        // Not every machine has the hugepages for them.
        assert!(matches!(output.status.code(), Some(0 | 3)), "{program}: {output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(said.contains("the configuration is valid"), "{program}:\n{said}");
        std::fs::remove_file(config).unwrap();
    }
}

/// The example with all that is commented out in it, but for comments in words.
fn whole_nat_example() -> String {
    let is_configuration = |line: &str| line.starts_with('[') || line.split(' ').nth(1) == Some("=");
    let example = nat_example();
    let lines = example.lines().map(|line| {
        let uncommented = line.strip_prefix("# ").filter(|rest| is_configuration(rest));
        format!("{}\n", uncommented.unwrap_or(line))
    });
    lines.collect::<String>().replace("/var/log/nf/nat.jsonl", "/dev/null")
}

#[test]
fn the_nats_example_runs_and_changes_on_the_way() {
    let changes = [
        ("198.51.100.8/31", "198.51.100.8/30", "reload refused, generation 1 stays in force"),
        (
            "[\"198.51.100.8/31\"]",
            "[\"198.51.100.8/31\", \"198.51.100.12\"]",
            "generation 2: + [nat] pools[0].addresses[1] = \"198.51.100.12\"",
        ),
        (
            "via = \"198.51.100.254\"",
            "via = \"198.51.100.9\"",
            "generation 2 stays in force: FILE:72: [nat] pools[0].addresses[0]: 198.51.100.9 is the next router of routes[0]",
        ),
        ("keep_parity = false", "keep_parity = true", "generation 3: [nat] keep_parity: false -> true"),
        ("10.0.0.10:80", "10.0.0.11:80", "generation 4: [nat] forward[0].to[0]"),
        (
            "draining = [\"198.51.100.10\"]",
            "draining = []",
            "nat: a reload ends all sessions of 198.51.100.10, in no pool any more",
        ),
        ("sessions = 65536", "sessions = 131072", "sessions: cannot change while the program runs"),
    ];
    assert_reloads(NAT, "nat", &nat_example(), &changes);
    let changes = [
        ("icmp = 60", "icmp = 61", "generation 2: [nat] timeouts.icmp: 60 -> 61"),
        ("lines_per_second = 10000", "lines_per_second = 1", "log: cannot change while the program runs"),
    ];
    assert_reloads(NAT, "whole-nat", &whole_nat_example(), &changes);
}

#[test]
fn the_nats_example_gives_every_key_and_what_it_is_unless_given() {
    #[derive(serde::Deserialize)]
    struct File {
        nat: nfs::nat::Config,
    }
    let whole = whole_nat_example();
    let unusual = ["ports_per_subscriber", "sessions_per_subscriber", "mss = ", "exclude = "];
    let given: File = toml::from_str(&whole).unwrap();
    for scalars_of in ["[nat]\n", "[nat.filtering]\n", "[nat.timeouts]\n", "[nat.log]\n"] {
        let (before, table) = whole.split_once(scalars_of).unwrap();
        let (table, after) = table.split_at(table.find("\n[").map_or(table.len(), |at| at + 1));
        let is_kept = |line: &&str| line.starts_with("file = ") || unusual.iter().any(|key| line.starts_with(key));
        let kept: String = table.lines().filter(is_kept).flat_map(|line| [line, "\n"]).collect();
        let usual: File = toml::from_str(&format!("{before}{scalars_of}{kept}{after}")).unwrap();
        assert_eq!(usual.nat, given.nat, "{scalars_of}");
    }

    let tables =
        ["nat", "nat.filtering", "[nat.pools]", "[nat.forward]", "[nat.one_to_one]", "nat.timeouts", "nat.log"];
    for table in tables {
        let (before, keys) = whole.split_once(&format!("[{table}]\n")).unwrap();
        let config = file("unknown", &format!("{before}[{table}]\nunknown = 1\n{keys}"));
        let output = command(NAT, &config).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let known = error.split_once("(known: ").unwrap().1.trim_end().trim_end_matches(')');
        for key in known.split(", ") {
            let is_given = keys.lines().any(|line| line.starts_with(&format!("{key} = ")))
                || [format!("[nat.{key}]"), format!("[[nat.{key}]]")].iter().any(|of| whole.contains(of));
            assert!(is_given, "{key} of {table} is not in the example");
        }
        std::fs::remove_file(config).unwrap();
    }
}

#[test]
fn a_nat_that_makes_no_sense_is_one_sentence_with_its_line() {
    let of = |old: &str, new: &str| {
        assert!(nat_example().contains(old), "{old}");
        nat_example().replacen(old, new, 1)
    };
    let cases = [
        ("sessions", of("sessions = 65536", "sessions = 6"), "FILE:45: [nat] sessions: 6 is not from 64 to 268435456"),
        (
            "selection",
            of("\"random\"", "\"randomly\""),
            "FILE:53: [nat] port_selection: unknown value \"randomly\" (known: random, preserve)",
        ),
        ("mss", of("# mss = 1360", "mss = 100"), "[nat] mss: 100 is less than every host takes, 536 (RFC 9293)"),
        (
            "prefix",
            of("198.51.100.8/31", "198.51.100.8/33"),
            "FILE:72: [nat] pools[0].addresses[0]: \"198.51.100.8/33\" is not a prefix: the length is from 0 to 32",
        ),
        (
            "draining",
            of("\"198.51.100.10\"", "\"198.51.100.9\""),
            "FILE:73: [nat] pools[0].draining: an address is either in use (addresses) or draining",
        ),
        ("version", of("\"0.0.0.0/0\"]", "\"::/0\"]"), "FILE:75: [nat] pools[0].to: ::/0 is not IPv4"),
        (
            "ports",
            of("\"8080\"", "\"0\""),
            "FILE:82: [nat] forward[0].ports: \"0\" is not a range of ports: write \"1024-65535\", or \"80\" for one, from 1 to 65535",
        ),
        (
            "taken",
            of("outside = \"198.51.100.8\"", "outside = \"198.51.100.99\""),
            "FILE:81: [nat] forward[0].outside: 198.51.100.99 is an address of one_to_one",
        ),
        (
            "server",
            of("ports = \"8080\"", "ports = \"1-65500\""),
            "FILE:83: [nat] forward[0].to[0]: 1-65500 are 65500 ports, and from 80 to 65535 there are 65456",
        ),
        (
            "number",
            of("\"8080\"", "8080"),
            "FILE:82: [nat] forward[0].ports: expected a range of ports in quotes (\"1024-65535\", or \"80\" for one), found 8080",
        ),
        (
            "lengths",
            of("inside = \"10.0.0.99\"", "inside = \"10.0.1.0/24\""),
            "FILE:89: [nat] one_to_one[0].outside: 198.51.100.99/32 has not the length of 10.0.1.0/24",
        ),
        (
            "pool",
            of("outside = \"198.51.100.99\"", "outside = \"198.51.100.9\""),
            "FILE:89: [nat] one_to_one[0].outside: 198.51.100.9 is an address of a pool",
        ),
        (
            "next-router",
            of("via = \"198.51.100.254\"", "via = \"198.51.100.99\""),
            "FILE:89: [nat] one_to_one[0].outside: 198.51.100.99 is the next router of routes[0] (leave it out)",
        ),
        (
            "network",
            of("\"198.51.100.8/31\"", "\"198.51.100.4\", \"198.51.100.0/31\""),
            "FILE:72: [nat] pools[0].addresses[1]: 198.51.100.0 is the first address of 198.51.100.0/24 on the interface \"wan\", which stands for the network (leave it out)",
        ),
        (
            "broadcast",
            of("outside = \"198.51.100.8\"", "outside = \"198.51.100.255\""),
            "FILE:81: [nat] forward[0].outside: 198.51.100.255 is the last address of 198.51.100.0/24 on the interface \"wan\", its broadcast address (leave it out)",
        ),
        ("timeout", of("udp = 300", "udp = 0"), "FILE:93: [nat] timeouts.udp: 0 seconds are not from 1 to 1000000"),
        (
            "wire",
            of("forwarding = \"router\"", "forwarding = \"wire\""),
            "FILE:28: [router]: this table is for forwarding = \"router\"",
        ),
    ];
    assert_refused(NAT, &cases);
}

#[test]
fn a_check_of_a_nat_says_what_a_start_would() {
    let check = |name: &str, text: &str| {
        let config = file(name, text);
        let output = Command::new(NAT).args(["--", "--check", "--config"]).arg(&config).output().unwrap();
        std::fs::remove_file(&config).unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let directory = std::env::temp_dir().join(format!("nfs-test-{}-nowhere", std::process::id()));
    let log = whole_nat_example().replace("/dev/null", directory.join("nat.jsonl").to_str().unwrap());
    let (status, error) = check("check-log", &log);
    assert!(error.contains("[nat] log.file: there is no directory "), "{error}");
    assert_eq!((status, directory.exists()), (Some(1), false));

    // Without a router somebody else has to answer for the addresses.
    let (ports, nat) =
        nat_example().split_once("[router.").map(|(ports, _)| (ports.to_owned(), nat_example())).unwrap();
    let nat = nat.split_once("[nat]\n").unwrap().1;
    let (_, error) = check("check-wire", &format!("{}\n[nat]\n{nat}", ports.replace("\"router\"", "\"wire\"")));
    let warning = "[nat]: on a wire nobody answers ARP or Neighbor Discovery for 198.51.100.8/32 and 3 more: ";
    assert!(error.contains("WARN") && error.contains(warning), "{error}");
    let (_, error) = check("check-router", &nat_example());
    assert!(!error.contains("WARN"), "{error}");
}

#[test]
fn the_load_balancers_examples_load() {
    for (number, example) in LOAD_BALANCER_EXAMPLES.iter().enumerate() {
        let config = file(&format!("load-balancer-{number}"), &on_null_ports(example));
        let mut check = Command::new(LOAD_BALANCER);
        check.args(["--no-huge", "--no-pci", "-m", "512", "--vdev=net_null0", "--vdev=net_null1"]);
        let output = check.args(["--", "--check", "--config"]).arg(&config).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!said.contains("error"), "example {number}:\n{said}");
        assert_eq!(output.status.code(), Some(0), "example {number}:\n{said}");
        std::fs::remove_file(config).unwrap();
    }
}

#[test]
fn a_chain_may_have_a_load_balancer_behind_a_firewall() {
    let firewall = firewall_example();
    let rules = firewall.find("\n[firewall").map(|at| &firewall[at..]).unwrap();
    let text = on_null_ports(LOAD_BALANCER_EXAMPLES[0])
        .replace(r#"chain = ["load-balancer"]"#, r#"chain = ["load-balancer", "firewall"]"#)
        .replace("connections = 1048576", "connections = 4096");
    let changes = [("weight = 1 ", "weight = 0 ", "generation 2: [load-balancer]")];
    assert_reloads(NF_CHAIN, "chain-load-balancer", &format!("{text}\n{rules}"), &changes);
}

#[test]
fn the_load_balancers_example_runs_and_changes_on_the_way() {
    let changes = [
        ("weight = 1 ", "weight = 0 ", "generation 2: [load-balancer]"),
        ("weight = 1 ", "weight = 70000 ", "reload refused, generation 2 stays in force"),
        ("connections = 4096", "connections = 8192", "restart it"),
    ];
    let text = on_null_ports(LOAD_BALANCER_EXAMPLES[0]).replace("connections = 1048576", "connections = 4096");
    assert_reloads(LOAD_BALANCER, "load-balancer", &text, &changes);
}

#[test]
fn a_load_balancer_that_makes_no_sense_is_one_sentence_with_its_line() {
    let of = |from: &str, to: &str| on_null_ports(LOAD_BALANCER_EXAMPLES[0]).replace(from, to);
    let cases = [
        (
            "lb-table",
            of("table_size = 65537", "table_size = 65536"),
            "[load-balancer] table_size: 65536 is not a prime up to 5000011: take 65537",
        ),
        (
            "lb-family",
            of("\"10.0.0.12\"", "\"2001:db8::12\""),
            "[load-balancer] services[0].backends[1].address: 2001:db8::12 is not of the family of 203.0.113.80",
        ),
        (
            "lb-no-ports",
            of("[ports]\n", "[port]\n"),
            "[ports]: missing table (add it, with the EAL's names of ports: inside = \"...\", outside = \"...\")",
        ),
    ];
    assert_refused(LOAD_BALANCER, &cases);
}

#[test]
fn a_firewall_outside_of_a_nat_is_warned_of() {
    let text = on_null_ports(include_str!("../examples/firewall-nat.toml"));
    let order = "chain = [\"firewall\", \"nat\"]";
    let line = text.lines().position(|line| line == order).unwrap() + 1;
    let warning = "chain[1]: \"firewall\" is meant to stand inside of \"nat\": name it before that one";
    for (text, expected) in
        [(text.clone(), None), (text.replace(order, "chain = [\"nat\", \"firewall\"]"), Some(warning))]
    {
        let config = file("order", &text);
        let output = command(NF_CHAIN, &config).arg("--check").output().unwrap();
        let log = String::from_utf8(output.stderr).unwrap();
        let found = log.lines().find(|line| line.contains("is meant to stand"));
        let expected = expected.map(|expected| format!("{}:{line}: {expected}", config.display()));
        assert_eq!(found.is_some(), expected.is_some(), "{log}");
        assert!(found.zip(expected).is_none_or(|(found, expected)| found.ends_with(&expected)), "{log}");
        std::fs::remove_file(config).unwrap();
    }
}

#[test]
fn a_backend_that_cannot_be_reached_is_warned_of() {
    let text = on_null_ports(LOAD_BALANCER_EXAMPLES[0]).replace("connections = 1048576", "connections = 4096");
    let text = text.replace("\"10.0.0.12\"", "\"192.168.7.7\"");
    let config = file("no-way", &text);
    let output = command(LOAD_BALANCER, &config).arg("--check").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let warning = "[load-balancer] services[0].backends[1].address: 192.168.7.7 cannot be reached: it is on no link of the router";
    assert!(log.contains(warning) && log.matches("cannot be reached").count() == 1, "{log}");
    std::fs::remove_file(config).unwrap();
}

fn firewall_example() -> String {
    on_null_ports(include_str!("../examples/firewall.toml"))
}

#[test]
fn the_firewalls_example_runs_and_changes_on_the_way() {
    let changes = [
        ("udp = 30", "udp = 40", "generation 2: [firewall] timeouts.udp: 30 -> 40"),
        ("live = \"keep\"", "live = \"rejudge\"", "generation 3: [firewall] live: \"keep\" -> \"rejudge\""),
        ("connections = 65536", "connections = 131072", "connections: cannot change while the program runs"),
    ];
    assert_reloads(FIREWALL, "firewall", &firewall_example(), &changes);
}

#[test]
fn a_changed_file_of_a_firewalls_set_is_read_by_a_reload() {
    let list = file("list", "192.0.2.1\n192.0.2.2\n");
    let (set, lines) =
        ("[firewall.sets.blocked]\n", format!("[firewall.sets.blocked]\nfile = \"{}\"\n", list.display()));
    let text = firewall_example();
    assert!(text.contains(set));
    let text = text.replacen(set, &lines, 1);
    let steps = [
        ("192.0.2.1\n192.0.2.2\n192.0.2.3\n", "generation 2: [firewall] sets.blocked.file: 2 prefixes -> 3 prefixes"),
        ("# more\n192.0.2.1\n192.0.2.2\n192.0.2.3\n", "nothing to reload, generation 2 stays in force"),
        (
            "192.0.2.1\n192.0.2.2\n192.0.2.4\n",
            "generation 3: [firewall] sets.blocked.file: 3 prefixes -> 3 prefixes, others",
        ),
        ("ten\n", ":1: \"ten\" does not begin with an IPv4 or IPv6 address"),
        ("192.0.2.1\n", "generation 4: [firewall] sets.blocked.file: 3 prefixes -> 1 prefix"),
    ];
    let path = &list;
    let steps = steps.iter().map(|(content, line)| (move |_: &PathBuf| std::fs::write(path, content).unwrap(), *line));
    assert_says(FIREWALL, "sets", &text, steps);
    std::fs::remove_file(list).unwrap();
}

#[test]
fn a_table_that_is_not_in_use_is_validated_and_warned_of() {
    let off = firewall_example().replace("chain = [\"firewall\"]", "chain = []");
    let config = file("off", &off);
    let output = command(FIREWALL, &config).arg("--check").output().unwrap();
    let log = String::from_utf8(output.stderr).unwrap();
    let line = off.lines().position(|line| line == "[firewall]").unwrap() + 1;
    let warning =
        format!("{}:{line}: [firewall]: this table is not in use: the chain does not name it", config.display());
    assert!(output.status.success() && log.contains(&warning), "{log}");
    std::fs::remove_file(config).unwrap();
    let wrong = off.replace("icmp = 30", "icmp = 0");
    assert_refused(FIREWALL, &[("off-wrong", wrong, "timeouts.icmp: 0 seconds are not from 1 to 1000000")]);
    let used = [
        ("udp = 30", "udp = 0", "timeouts.udp: 0 seconds are not"),
        ("chain = []", "chain = [ ]", "this table is not in use"),
    ];
    assert_reloads(FIREWALL, "off-reload", &off, &used);
}

#[test]
fn the_example_of_a_firewall_and_a_nat_in_one_chain_runs_and_changes_on_the_way() {
    let example = on_null_ports(include_str!("../examples/firewall-nat.toml"));
    let changes = [
        ("[firewall]\n", "[firewall]\nlive = \"rejudge\"\n", "generation 2: + [firewall] live = \"rejudge\""),
        ("[nat]\n", "[nat]\nmss = 1360\n", "generation 3: + [nat] mss = 1360"),
    ];
    assert_reloads(NF_CHAIN, "firewall-nat", &example, &changes);
}

#[test]
fn a_firewall_that_makes_no_sense_is_one_sentence_with_its_line() {
    let of = |old: &str, new: &str| {
        assert!(firewall_example().contains(old), "{old}");
        firewall_example().replacen(old, new, 1)
    };
    let cases = [
        (
            "firewall-set",
            of("\"@office\"", "\"@ofice\""),
            "rules[1].source: there is no set \"ofice\" (known: blocked, office)",
        ),
        (
            "firewall-port",
            of("\"1024-65535\"", "\"1024-\""),
            "rules[4].source_ports: \"1024-\" is not a port or a range of ports: write 80, or \"1024-65535\", from 0 to 65535",
        ),
        ("firewall-timeout", of("icmp = 30", "icmp = 0"), "timeouts.icmp: 0 seconds are not from 1 to 1000000"),
    ];
    assert_refused(FIREWALL, &cases);
}

#[test]
fn the_firewall_explains_without_starting() {
    let config = file("explain", &firewall_example());
    let explain_by = |arguments: &[&str]| {
        let output = Command::new(FIREWALL).arg("--config").arg(&config).args(arguments).output().unwrap();
        let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), text)
    };
    let explain = |packet: &str| explain_by(&["--explain", packet]);
    let (status, text) = explain("tcp 203.0.113.9:4321 > 10.0.0.80:443 from outside");
    assert!(
        status == Some(0) && text.contains("  not office: it comes from outside\naccept, by web; under attack"),
        "{text}"
    );
    let (status, text) = explain("tcp 203.0.113.9 > 10.0.0.80");
    assert!(status == Some(1) && text.starts_with("error: \"203.0.113.9\" is not an address with a port"), "{text}");
    // A capture of one packet, and what is none.
    let frame = nf_framework::testing::Frame::new().ipv4([203, 0, 113, 9], [10, 0, 0, 80]).udp(4321, 443).build();
    let length = u32::try_from(frame.len()).unwrap();
    let words = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 0xffff, 1, 0, 0, length, length];
    let bytes = [words.map(u32::to_le_bytes).concat(), frame].concat();
    let capture = std::env::temp_dir().join(format!("nfs-explain-{}.pcap", std::process::id()));
    std::fs::write(&capture, bytes).unwrap();
    let (status, text) = explain(capture.to_str().unwrap());
    let expected = "#1 0.000000 udp 203.0.113.9:4321 > 10.0.0.80:443 from outside: accept, by web\n";
    assert!(status == Some(0) && text.starts_with(expected), "{text}");
    let (status, text) =
        explain_by(&[&format!("--explain={}", capture.display()), "--inside", "203.0.113.0/24,10.0.0.0/8"]);
    assert!(
        status == Some(0) && text.starts_with("#1 0.000000 udp 203.0.113.9:4321 > 10.0.0.80:443 from inside"),
        "{text}"
    );
    // Who reads may stop. So much fits no pipe.
    let bytes = std::fs::read(&capture).unwrap();
    std::fs::write(&capture, [&bytes[..24], &bytes[24..].repeat(5000)].concat()).unwrap();
    let mut command = Command::new(FIREWALL);
    command.arg("--explain").arg(&capture).arg("--config").arg(&config).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    std::fs::write(&capture, "nothing").unwrap();
    let (status, text) = explain(capture.to_str().unwrap());
    assert!(status == Some(1) && text.contains(".pcap: neither a pcap nor a pcapng file"), "{text}");
    let directory = std::env::temp_dir();
    for (packet, expected) in [
        ("/no/such.pcap", "error: /no/such.pcap: no such file, and no packet (write, for example, \"tcp "),
        (directory.to_str().unwrap(), ": this is a directory (name the capture file in it)"),
    ] {
        let (status, text) = explain(packet);
        assert!(status == Some(1) && text.contains(expected), "{text}");
    }
    // The side that is not written is guessed, and said.
    for (packet, inside, expected) in [
        (
            "tcp 203.0.113.9:4321 > 10.0.0.80:443",
            &[][..],
            "taken to come from outside, as 203.0.113.9 is not a private address (write \"from inside\" or \"from outside\")\n",
        ),
        ("tcp 10.0.0.5:4321 > 203.0.113.9:443", &[], "taken to come from inside, as 10.0.0.5 is a private address "),
        (
            "tcp 203.0.113.9:4321 > 10.0.0.80:443",
            &["--inside=203.0.113.0/24"],
            "taken to come from inside, as 203.0.113.9 is among those inside ",
        ),
        (
            "tcp 10.0.0.5:4321 > 203.0.113.9:443",
            &["--inside=203.0.113.0/24"],
            "taken to come from outside, as 10.0.0.5 is not among those inside ",
        ),
    ] {
        let (status, text) = explain_by(&[&["--explain", packet][..], inside].concat());
        assert!(status == Some(0) && text.starts_with(expected), "{packet}: {text}");
    }
    // Options like any others.
    for (arguments, expected) in [
        (&["--explain"][..], "error: a value is required for '--explain <PACKET|FILE>'"),
        (&["--explain", "tcp", "--inside", "10.0.0.1/8"], "error: invalid value '10.0.0.1/8' for '--inside"),
        (&["--inside", "10.0.0.0/8"], "error: the following required arguments were not provided:\n  <--replay "),
    ] {
        let (status, text) = explain_by(arguments);
        assert!(status == Some(2) && text.starts_with(expected), "{text}");
    }
    let help = Command::new(FIREWALL).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("--explain <PACKET|FILE>") && help.contains("--inside <PREFIX,PREFIX>"), "{help}");
    let is_its_own =
        help.contains("answers from the rules of [firewall] alone") && !help.contains("the configured chain");
    assert!(is_its_own, "{help}");
    std::fs::remove_file(capture).unwrap();
    std::fs::remove_file(config).unwrap();
}

#[test]
fn a_drain_takes_as_long_as_was_said_last() {
    let (socket, from_inside, nothing) = (file("drain", ""), file("inside", ""), file("outside", ""));
    std::fs::remove_file(&socket).unwrap();
    let frame = Frame::new().ipv4([10, 0, 0, 5], [203, 0, 113, 9]).udp(4000, 53).build();
    for (path, frames) in [(&from_inside, &[frame][..]), (&nothing, &[])] {
        let mut writer = CaptureWriter::new(std::fs::File::create(path).unwrap(), &["eth0"]).unwrap();
        for frame in frames {
            writer.write(&CapturedPacket::new(Duration::ZERO, frame)).unwrap();
        }
        writer.finish().unwrap();
    }
    let config = file(
        "drained",
        &format!(
            "forwarding = \"wire\"\npackets = 4095\n[ports]\ninside = \"net_pcap0\"\noutside = \"net_pcap1\"\n\
             descriptors = 256\n[admin]\nsocket = {socket:?}\n[firewall]\nconnections = 1024\n\
             [[firewall.rules]]\nname = \"out\"\nfrom = \"inside\"\naction = \"accept\"\n"
        ),
    );
    let devices = [(0, &from_inside), (1, &nothing)]
        .map(|(port, path)| format!("--vdev=net_pcap{port},rx_pcap={},tx_pcap=/dev/null", path.display()));
    let usual = command(FIREWALL, &config);
    let without_devices = usual.get_args().take_while(|argument| !argument.as_encoded_bytes().starts_with(b"--vdev="));
    let mut program = Command::new(FIREWALL);
    program.args(without_devices).args(devices).args(["--", "--config"]).arg(&config);
    let mut child = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let ask = |words: &[&str]| {
        let mut ctl = Command::new(env!("CARGO_BIN_EXE_nf-ctl"));
        ctl.arg("--json").arg("--socket").arg(&socket).args(words).output().unwrap()
    };
    while !String::from_utf8(ask(&["connections"]).stdout).unwrap().contains("10.0.0.5") {
        assert_eq!(child.try_wait().unwrap(), None, "it ended early");
    }
    for seconds in ["3600", "0"] {
        let told = ask(&["drain", "--seconds", seconds]);
        assert!(told.status.success(), "{told:?}");
        let told = String::from_utf8(told.stdout).unwrap();
        assert!(told.contains(&format!("\"seconds\":{seconds},\"sessions\":1")), "{told}");
    }
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && errors.contains("1 session"), "{errors}");
    for path in [from_inside, nothing, config] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn the_link_of_a_net_tap_in_another_namespace_is_unknown() {
    const TEST: &str = "the_link_of_a_net_tap_in_another_namespace_is_unknown";
    if !std::path::Path::new("/dev/net/tun").exists() {
        return skip(TEST, "there is no /dev/net/tun");
    }
    in_a_namespace(TEST, || {
        silence();
        let socket = std::env::temp_dir().join(format!("nf-link-{}.sock", std::process::id()));
        let door = format!("[admin]\nsocket = \"{}\"\n", socket.display());
        let config = file("link", &(include_str!("../examples/nat.toml").to_owned() + &door));
        // /sys tells of the namespace that it was mounted in.
        let mut nat = Command::new("unshare");
        nat.args(["--mount", "sh", "-c", "mount -t sysfs sysfs /sys && exec \"$0\" \"$@\"", NAT]).args(&EAL[..8]);
        nat.args(["--vdev=net_tap0,iface=in0", "--vdev=net_tap1,iface=out0", "--", "--config"]).arg(&config);
        let mut nat = nat.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let ask = |door: &[&str]| {
            let output = Command::new(env!("CARGO_BIN_EXE_nf-ctl")).arg("--socket").arg(&socket).args(door).output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        let begin = std::time::Instant::now();
        let mut until = |link: &str| loop {
            let said = ask(&["ports"]);
            if said.lines().any(|line| line.split_whitespace().take(2).eq(["net_tap0", link])) {
                break said;
            }
            let is_late = begin.elapsed() > Duration::from_secs(60);
            if is_late || nat.try_wait().unwrap().is_some() {
                let _ = nat.kill();
                panic!("{link} is not in:\n{said}");
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        until("10G");
        ip("link set in0 down\n");
        until("down");
        // It lives as long as somebody holds its input.
        let mut other = Command::new("unshare");
        other.args(["--net", "sh", "-c", "echo there; cat"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut other = other.spawn().unwrap();
        other.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
        ip(&format!("link set in0 netns {}\n", other.id()));
        let said = until("unknown");
        assert!(said.contains("\nnet_tap1  10G "), "{said}");
        drop(other.stdin.take());
        other.wait().unwrap();
        nat.kill().unwrap();
        nat.wait().unwrap();
        std::fs::remove_file(config).unwrap();
        let _ = std::fs::remove_file(socket);
    });
}
