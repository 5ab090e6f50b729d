//! Whole programs as their users run them: the example `port-block` as a child process.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;
#[path = "common/program.rs"]
mod program;

use common::{Scratch, cpus, eal_arguments, floating_lcores, free_hugepages, read_capture, write_capture};
use nf_framework::testing::Frame;
use program::{Program, port_block};
use std::path::{Path, PathBuf};
use std::process::Output;

/// The example's own test runs here; its program is built beside.
#[path = "../examples/port-block/main.rs"]
#[allow(dead_code, reason = "its main is not called here")]
mod port_block;

/// A configuration file that blocks ports 9 and 8081, with something in place of something.
fn configuration(scratch: &Scratch, from: &str, to: &str) -> String {
    let text = "forwarding = \"wire\"\npackets = 4095\n\n[ports]\ninside = \"net_pcap0\"\noutside = \"net_pcap1\"\n\
                descriptors = 256\n\n[port-block]\nblocked = [9, 8081]\n";
    assert!(text.contains(from), "{from}");
    let path = scratch.path("port-block.toml");
    std::fs::write(&path, text.replacen(from, to, 1)).unwrap();
    path
}

fn frames(source_ports: std::ops::Range<u16>) -> Vec<Vec<u8>> {
    let destinations = [9, 53, 80, 8081, 443];
    let frame = |(port, destination)| {
        let frame = Frame::new().ipv4([192, 0, 2, 1], [198, 51, 100, 1]);
        let frame = if port % 2 == 0 { frame.udp(port, destination) } else { frame.tcp(port, destination) };
        frame.payload(&vec![0x5a; usize::from(port % 1000)]).build()
    };
    source_ports.zip(destinations.into_iter().cycle()).map(frame).collect()
}

/// Two ports that read from and write to capture files.
fn capture_ports(scratch: &Scratch) -> [String; 2] {
    [0, 1].map(|port| {
        let (rx, tx) = (scratch.path(&format!("in{port}.pcap")), scratch.path(&format!("out{port}.pcap")));
        format!("net_pcap{port},rx_pcap={rx},tx_pcap={tx}")
    })
}

#[test]
fn all_but_the_blocked_packets_leave_as_they_came_and_a_signal_ends_it() {
    for signal in ["INT", "TERM"] {
        let scratch = Scratch::new(&format!("programs-{signal}"));
        let (outbound, inbound) = (frames(1000..1100), frames(2000..2050));
        write_capture(scratch.path("in0.pcap"), &outbound);
        write_capture(scratch.path("in1.pcap"), &inbound);
        let config = configuration(&scratch, "", "");
        let devices = capture_ports(&scratch);
        let mut command = port_block();
        command.args(eal_arguments(1, &devices.each_ref().map(String::as_str)));
        command.args(["--", "--config", &config, "--stats-interval", "1"]);

        let mut program = Program::start(&mut command);
        program.wait_for_output("--- port-block after 1 s");
        program.wait_for_output("balance: 150 received");
        program.signal(signal);
        let (status, out, errors) = program.end();
        assert_eq!(status.code(), Some(0), "SIG{signal}: {status}\n{errors}");

        let two_of_five = |frames: &[Vec<u8>]| -> Vec<Vec<u8>> {
            let index_and_frame = frames.iter().enumerate();
            index_and_frame
                .filter(|(index, _)| ![0, 3].contains(&(index % 5)))
                .map(|(_, frame)| frame.clone())
                .collect()
        };
        assert_eq!(read_capture(scratch.path("out1.pcap")), two_of_five(&outbound));
        assert_eq!(read_capture(scratch.path("out0.pcap")), two_of_five(&inbound));

        let (_, last) = out.rsplit_once("--- port-block has stopped\n").unwrap();
        let balance = "balance: 150 received + 0 originated = 90 sent + 60 dropped + 0 consumed + 0 held";
        assert_eq!(last.trim_end().lines().last(), Some(balance), "{out}");
        for row in [
            "port       received  sent  missed  no mbuf",
            "net_pcap0       100    30       0        0",
            "net_pcap1        50    60       0        0",
            "function    seen  passed  sent  dropped  taken  held  sessions",
            "port-block   150      90     0       60      0     0         0",
            "port-block.hits     60",
            "policy                60  a function's rules forbid it",
        ] {
            assert!(last.lines().any(|line| line == row), "{row:?} in:\n{out}");
        }
        assert!(
            errors.contains("port-block runs on net_pcap0 and net_pcap1 with 1 worker; Ctrl-C stops it"),
            "{errors}"
        );
    }
}

#[test]
fn help_and_version_are_answered_wherever_they_are_asked_for() {
    for arguments in [&["--help"][..], &["-h"], &["--", "--help"], &["-l", "0", "--help", "--", "--config", "x"]] {
        let output = port_block().args(arguments).output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        for part in [
            "Usage: port-block [EAL ARGUMENTS] -- ",
            "--config <FILE>",
            "--stats-interval",
            "--drain <SECONDS>",
            "--check",
            "SIGHUP reads the configuration file again",
            "-l 0-1",
        ] {
            assert!(out.contains(part), "{arguments:?}: {part:?} in {out}");
        }
    }
    for arguments in [&["--version"][..], &["-V"], &["--", "--version"], &["--no-huge", "-V", "--"]] {
        let output = port_block().args(arguments).output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{arguments:?}: {output:?}");
        let version = format!("port-block {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(String::from_utf8_lossy(&output.stdout), version, "{arguments:?}");
    }
}

/// What a program that refuses to run has to do: one sentence on stderr, a code, nothing
/// else, and no file that was not there before.
fn assert_refuses(case: &str, output: &Output, parts: &[&str]) {
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.code().is_some_and(|code| code != 0), "{case}: {:?}, stderr: {errors}", output.status);
    assert_eq!(out, "", "{case}: nothing on stdout");
    assert!(errors.starts_with("error: "), "{case}: {errors}");
    assert_eq!(errors.trim_end().lines().count(), 1, "{case}: one line on stderr, not: {errors}");
    for part in parts {
        assert!(errors.contains(part), "{case}: {part:?} in: {errors}");
    }
}

#[test]
fn a_bad_configuration_is_refused_before_anything_is_started() {
    let scratch = Scratch::new("programs-config");
    // The device would make this file, if DPDK were started.
    let trace = scratch.path("trace.pcap");
    let device = format!("net_pcap0,tx_pcap={trace}");
    let cases = [
        ("unknown key", "blocked", "bloked", "port-block.toml:10: [port-block] bloked: unknown key (known: blocked)"),
        (
            "unknown key of ours",
            "packets",
            "packtes",
            ":2: packtes: unknown key (known: chain, forwarding, router, ports",
        ),
        ("unknown table", "[port-block]", "[port-blok]", ":9: [port-blok]: unknown table (known: "),
        ("wrong type", "[9, 8081]", "9", ":10: [port-block] blocked: expected an array, found 9"),
        (
            "wrong type of an element",
            "8081",
            "70000",
            ":10: [port-block] blocked[1]: expected an integer from 0 to 65535, found 70000",
        ),
        ("wrong type of ours", "\"net_pcap0\"", "7", ":5: [ports] inside: expected a string, found 7"),
        ("missing key", "blocked = [9, 8081]\n", "", ":9: [port-block] blocked: missing key (add it to the table)"),
        ("missing key of ours", "inside = \"net_pcap0\"\n", "", ":4: [ports] inside: missing key"),
        ("unknown value", "\"wire\"", "\"wired\"", ":1: forwarding: unknown value \"wired\" (known: wire, router)"),
        ("no TOML", "[ports]", "[ports", ":4: not valid TOML: "),
        ("unknown function", "packets", "chain = ['nat']\npackets", ":2: chain[0]: there is no function \"nat\""),
        (
            "function twice",
            "packets",
            "chain = ['port-block', 'port-block']\npackets",
            ":2: chain[1]: the function \"port-block\" is in the chain twice",
        ),
    ];
    for (case, from, to, expected) in cases {
        let config = configuration(&scratch, from, to);
        let mut command = port_block();
        let output = command.args(eal_arguments(1, &[&device])).args(["--", "--config", &config]).output().unwrap();
        assert_refuses(case, &output, &[expected, &config]);
        assert!(!Path::new(&trace).exists(), "{case}: DPDK was started");
    }
    let output = port_block().args(["--", "--config", "/no/such/file.toml"]).output().unwrap();
    assert_refuses("missing file", &output, &["/no/such/file.toml: no such file"]);
}

#[test]
fn what_the_machine_cannot_do_is_refused_in_one_sentence() {
    let scratch = Scratch::new("programs-machine");
    for name in ["in0.pcap", "in1.pcap"] {
        write_capture(scratch.path(name), &[]);
    }
    let devices = capture_ports(&scratch);
    let [first, second] = devices.each_ref().map(String::as_str);
    type Case<'a> = (&'a str, usize, &'a [&'a str], (&'a str, &'a str), &'a [&'a str]);
    let cases: [Case<'_>; 7] = [
        (
            "no such port",
            1,
            &[first, second],
            ("net_pcap1", "net_pcap7"),
            &["[ports] outside: there is no port \"net_pcap7\"; the EAL found net_pcap0, net_pcap1"],
        ),
        ("no port at all", 1, &[], ("", ""), &["there is no port \"net_pcap0\"; the EAL found none"]),
        ("same port", 1, &[first, second], ("net_pcap1", "net_pcap0"), &["[ports] outside: the same port as inside"]),
        (
            "a device that fails",
            1,
            &[first, "net_pcap1,rx_pcap=/no/such/file.pcap"],
            ("", ""),
            &["the device \"net_pcap1\"", "/no/such/file.pcap"],
        ),
        (
            "too few queues",
            2,
            &[first, second],
            ("[ports]", "[ports]\nqueues = 2"),
            &["port net_pcap0 (net_pcap) has 1 ", "2 are needed"],
        ),
        ("a burst of 65", 1, &[first, second], ("packets", "burst = 65\npackets"), &["burst: 65 is not from 1 to 64"]),
        ("too few packets", 1, &[first, second], ("4095", "100"), &["packets: 100 are too few"]),
    ];
    for (case, lcores, devices, (from, to), expected) in cases {
        let config = configuration(&scratch, from, to);
        let mut command = port_block();
        let output = command.args(eal_arguments(lcores, devices)).args(["--", "--config", &config]).output().unwrap();
        assert_refuses(case, &output, expected);
    }
}

#[test]
fn an_unknown_option_is_refused() {
    for (arguments, expected) in [
        (&["--", "--nonsense"][..], "error: unexpected argument '--nonsense' found"),
        (&["--", "--config"], "error: a value is required for '--config <FILE>' but none was supplied"),
        (&["--"], "error: the following required arguments were not provided:"),
        (&[], "error: the following required arguments were not provided:"),
        (
            &["--", "--config", "x", "--stats-interval", "0"],
            "error: invalid value '0' for '--stats-interval <SECONDS>'",
        ),
    ] {
        let output = port_block().args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty() && errors.starts_with(expected), "{arguments:?}: {errors}");
        assert!(errors.contains("try '--help'"), "{arguments:?}: {errors}");
    }
    let scratch = Scratch::new("programs-option");
    let config = configuration(&scratch, "", "");
    for (arguments, expected) in [("--nonsense", "--nonsense"), ("surplus", "the program's own arguments come after")] {
        let mut command = port_block();
        let output = command.args(eal_arguments(1, &[])).args([arguments, "--", "--config", &config]).output().unwrap();
        assert_refuses(arguments, &output, &[expected]);
    }
}

#[test]
fn a_machine_without_free_hugepages_is_told_what_to_do() {
    let scratch = Scratch::new("programs-hugepages");
    let config = configuration(&scratch, "", "");
    let prefix = Prefix::new("hugepages");
    let mut command = port_block();
    command.args(["--no-telemetry", "--no-pci", "--file-prefix", &prefix.0, "--lcores", &floating_lcores(1)]);
    if free_hugepages() {
        // None of them are here.
        command.args(["--huge-dir", &scratch.path("")]);
    }
    let output = command.args(["--", "--config", &config]).output().unwrap();
    assert_refuses("no hugepages", &output, &["no free hugepages", "vm.nr_hugepages", "--no-huge"]);
}

#[test]
fn sighup_reads_the_configuration_again_and_keeps_the_old_one_if_the_new_one_is_wrong() {
    let scratch = Scratch::new("programs-reload");
    let config = configuration(&scratch, "", "");
    for name in ["in0.pcap", "in1.pcap"] {
        write_capture(scratch.path(name), &[]);
    }
    let mut command = port_block();
    command.args(eal_arguments(1, &capture_ports(&scratch).each_ref().map(String::as_str)));
    command.args(["--", "--config", &config]);
    let mut program = Program::start(&mut command);
    program.wait_for("port-block runs on net_pcap0 and net_pcap1 with 1 worker");
    let fixed = "is a change that a running program cannot make (restart it)";
    let refused = "reload refused, generation";
    for (from, to, expected) in [
        ("", "# a comment\n", "nothing to reload, generation 1 stays in force".to_owned()),
        ("8081]", "8082]", "generation 2: [port-block] blocked[1]: 8081 -> 8082".to_owned()),
        ("8081]", "8082, 53]", "generation 3: + [port-block] blocked[2] = 53".to_owned()),
        ("[ports]", "[ports", format!("{refused} 3 stays in force: {config}:4: not valid TOML: ")),
        (
            "8081]",
            "70000]",
            format!("{refused} 3 stays in force: {config}:10: [port-block] blocked[1]: expected an int"),
        ),
        ("256", "512", format!("{refused} 3 stays in force: {config}:7: [ports] descriptors: 256 -> 512 {fixed}")),
        ("9, 8081", "9, 53", "generation 4: - [port-block] blocked[1] = 8082".to_owned()),
    ] {
        configuration(&scratch, from, to);
        program.signal("HUP");
        program.wait_for(&expected);
    }
    program.signal("INT");
    let (status, _, log) = program.end();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_check_without_eal_arguments_starts_no_dpdk_and_says_what_one_worker_needs() {
    let scratch = Scratch::new("programs-check");
    let config = configuration(&scratch, "", "");
    let output = port_block().args(["--", "--check", "--config", &config]).output().unwrap();
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    // Whether it fits is the machine's affair.
    let fits = output.status.code() == Some(0);
    assert!(fits == errors.is_empty() && (fits || output.status.code() == Some(3)), "{output:?}");
    assert!(fits || errors.starts_with("error: 12 MiB of hugepages are needed, and "), "{errors}");
    for line in [
        "With 1 worker:",
        "packets                4095",
        "memory for packets     12 MiB",
        "memory for port-block  0 MiB",
        "port inside            net_pcap0  not looked at (give the EAL arguments too)",
        "port outside           net_pcap1  not looked at (give the EAL arguments too)",
    ] {
        assert!(out.lines().any(|found| found == line), "{line:?} in:\n{out}");
    }
    let bad = configuration(&scratch, "8081", "70000");
    // No "--" is needed where nothing stands before it.
    for arguments in
        [&["--", "--check", "--config", &bad][..], &["--check", "--config", &bad], &["--config", &bad, "--check"]]
    {
        let output = port_block().args(arguments).output().unwrap();
        assert_refuses("a bad one", &output, &["port-block.toml:10: [port-block] blocked[1]: expected an integer"]);
        assert_eq!(output.status.code(), Some(1));
    }
    // DPDK would take what is meant for us.
    let output = port_block().args(["-l", "0", "--check", "--config", &bad]).output().unwrap();
    assert_refuses("EAL arguments", &output, &["port-block [EAL ARGUMENTS] -- --config FILE"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_check_with_eal_arguments_looks_at_ports_and_starts_nothing() {
    let scratch = Scratch::new("programs-check-eal");
    for name in ["in0.pcap", "in1.pcap"] {
        write_capture(scratch.path(name), &frames(1000..1010));
    }
    let config = configuration(&scratch, "", "");
    let devices = capture_ports(&scratch);
    let check = |lcores, config: &str| {
        let mut command = port_block();
        command.args(eal_arguments(lcores, &devices.each_ref().map(String::as_str)));
        let output = command.args(["--", "--check", "--config", config]).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, out, errors) = check(1, &config);
    assert_eq!((code, errors.as_str()), (Some(0), ""), "{out}");
    for part in ["net_pcap0: receive queues", "net_pcap1: MTU", "the configuration is valid, and fits"] {
        assert!(out.contains(part), "{part:?} in:\n{out}");
    }
    // No port was started: nobody has read the frames and written them.
    assert!(!Path::new(&scratch.path("out0.pcap")).exists() || read_capture(scratch.path("out0.pcap")).is_empty());
    let config = configuration(&scratch, "[ports]", "[ports]\nqueues = 2");
    let (code, out, errors) = check(2, &config);
    assert_eq!(code, Some(3), "{out}{errors}");
    assert!(out.contains("the configuration is valid, and does not fit"), "{out}");
    let sentences: Vec<&str> = errors.lines().collect();
    for (port, sentence) in sentences.iter().enumerate() {
        let expected = format!("error: port net_pcap{port} (net_pcap) has 1 receive queue(s), 2 are needed");
        assert!(sentence.starts_with(&expected), "{sentence}");
    }
    assert_eq!(sentences.len(), 2, "{errors}");
}

#[test]
fn a_program_that_drains_says_how_it_ended() {
    let scratch = Scratch::new("programs-drain");
    let config = configuration(&scratch, "", "");
    for name in ["in0.pcap", "in1.pcap"] {
        write_capture(scratch.path(name), &[]);
    }
    for signal in ["INT", "TERM"] {
        let mut command = port_block();
        command.args(eal_arguments(1, &capture_ports(&scratch).each_ref().map(String::as_str)));
        command.args(["--", "--config", &config, "--drain", "3600"]);
        let mut program = Program::start(&mut command);
        program.wait_for("port-block runs on net_pcap0 and net_pcap1 with 1 worker");
        program.signal(signal);
        program.wait_for("no new sessions: draining for up to 3600 s");
        // It has none.
        program.wait_for("drained in ");
        let (status, _, log) = program.end();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}

/// A `--file-prefix` of this test's own, whose directories go with it.
struct Prefix(String);

impl Prefix {
    fn new(name: &str) -> Self {
        Self(format!("nf-framework-{name}-{}", std::process::id()))
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        for base in ["/var/run", "/tmp"].map(PathBuf::from).into_iter().chain(runtime) {
            let _ = std::fs::remove_dir_all(base.join("dpdk").join(&self.0));
        }
    }
}

#[test]
fn a_second_program_on_one_file_prefix_is_refused_and_the_first_goes_on() {
    let scratch = Scratch::new("programs-prefix");
    write_capture(scratch.path("in0.pcap"), &frames(1000..1010));
    write_capture(scratch.path("in1.pcap"), &[]);
    let config = configuration(&scratch, "", "");
    let devices = capture_ports(&scratch);
    let prefix = Prefix::new("second");
    let program = |interval: &[&str]| {
        let mut command = port_block();
        command.args(["--no-huge", "--no-telemetry", "--no-pci", "-m", "128", "--file-prefix", &prefix.0]);
        command.args(["--lcores", &format!("0@({})", cpus())]);
        command.args(devices.iter().map(|device| format!("--vdev={device}")));
        command.args(["--", "--config", &config]).args(interval);
        command
    };
    let mut first = Program::start(&mut program(&["--stats-interval", "1"]));
    first.wait_for_output("balance: 10 received");
    let sentence = format!("another DPDK program is running under the same --file-prefix ({})", prefix.0);
    assert_refuses("second", &program(&[]).output().unwrap(), &[&sentence]);
    first.wait_for_output("balance: 10 received");
    first.signal("INT");
    let (status, out, errors) = first.end();
    assert!(status.success(), "{out}{errors}");
}
