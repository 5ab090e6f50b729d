//! The program `nf-chain` as its users run it.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const EXAMPLE: &str = include_str!("../examples/nf-chain.toml");
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

/// The example with ports that every machine has.
fn example() -> String {
    EXAMPLE.replace("net_tap0", "net_null0").replace("net_tap1", "net_null1")
}

/// The router's example with such ports.
fn router_example() -> String {
    include_str!("../examples/router.toml").replace("net_tap0", "net_null0").replace("net_tap1", "net_null1")
}

/// Writes a configuration that no other test of this file writes to.
fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("nf-chain-test-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    path
}

fn nf_chain(config: &PathBuf) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nf-chain"));
    // Lcore 0 on whatever CPU this process may use.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    command.arg(format!("--lcores=0@({cpus})")).args(&EAL[2..]).args(["--", "--config"]).arg(config);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

#[test]
fn the_annotated_example_runs_until_a_signal_and_its_balance_closes() {
    let config = file("example", &example());
    for signal in ["INT", "TERM"] {
        let mut child = nf_chain(&config).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        while !seen.contains("runs on net_null0 and net_null1 with 1 worker") {
            let read = log.read_line(&mut seen).unwrap();
            assert!(read > 0, "it ended early: {seen}");
        }
        // A new rate, on the way.
        std::fs::write(&config, example().replace("100_000", "200_000")).unwrap();
        assert!(Command::new("sh").arg("-c").arg(format!("kill -HUP {}", child.id())).status().unwrap().success());
        while !seen.contains("generation 2: [rate-limit] packets_per_second: 100000 -> 200000") {
            let read = log.read_line(&mut seen).unwrap();
            assert!(read > 0, "it ended early: {seen}");
        }
        std::fs::write(&config, example()).unwrap();
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
            example().replace(r#"["monitor", "#, r#"["monitr", "#),
            r#"FILE:7: chain[0]: there is no function "monitr" (known: monitor, rate-limit)"#,
        ),
        (
            "twice",
            example().replace(r#""rate-limit"]"#, r#""monitor"]"#),
            r#"FILE:7: chain[1]: the function "monitor" is in the chain twice (name it once)"#,
        ),
        (
            "no-chain",
            example().replace("chain = ", "# "),
            "FILE: chain: missing key (list the functions from inside to outside; known: monitor, rate-limit)",
        ),
        ("burst", example().replace("burst = 32", "burst = 65"), "FILE:14: burst: 65 is not from 1 to 64"),
        (
            "rate",
            example().replace("100_000", "0"),
            "FILE:30: [rate-limit] packets_per_second: 0 is not from 1 to 1000000000",
        ),
        (
            "unknown-key",
            example().replace("[monitor]", "[monitor]\nverbose = true"),
            "FILE:28: [monitor] verbose: unknown key (none are known here)",
        ),
        (
            "unknown-table",
            example().replace("[monitor]", "[monitoring]"),
            "FILE:27: [monitoring]: unknown table (known: chain, forwarding, router, ports, burst, packets, fragments, monitor, rate-limit)",
        ),
    ];
    for (name, text, sentence) in cases {
        let config = file(name, &text);
        let output = nf_chain(&config).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let expected = format!("error: {}\n", sentence.replace("FILE", config.to_str().unwrap()));
        assert_eq!(error, expected, "{name}");
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(output.stdout.is_empty(), "{name}");
        std::fs::remove_file(config).unwrap();
    }
}

#[test]
fn the_routers_example_runs_and_takes_other_routes_on_the_way() {
    let config = file("router", &router_example());
    let mut child = nf_chain(&config).spawn().unwrap();
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
    for (old, new, line) in [
        ("198.51.100.254", "198.51.100.253", "generation 2: [router] routes"),
        ("198.51.100.254", "192.0.2.300", "reload refused, generation 2 stays in force"),
        ("198.51.100.254", "203.0.113.1", "203.0.113.1 is on no interface's prefix"),
        ("vlan = 20", "vlan = 21", "generation 3: [router]"),
        (
            "# [router]\n# icmp_errors_per_second = 1000",
            "[router]\nicmp_errors_per_second = 7",
            "icmp_errors_per_second: 1000 -> 7 is a change that a running program cannot make",
        ),
    ] {
        std::fs::write(&config, router_example().replacen(old, new, 1)).unwrap();
        tell("HUP");
        wait_for(line);
    }
    tell("INT");
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    std::fs::remove_file(config).unwrap();
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
    for (name, text, sentence) in cases {
        let config = file(name, &text);
        let output = nf_chain(&config).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        let sentence = sentence.replace("FILE", config.to_str().unwrap());
        assert!(error.starts_with("error: ") && error.contains(&sentence), "{name}:\n{error}{sentence}");
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{name}");
        std::fs::remove_file(config).unwrap();
    }
}
