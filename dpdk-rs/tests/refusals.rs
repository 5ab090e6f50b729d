//! What a user sees who gives a program something that it cannot run with: one sentence on
//! stderr, nothing on stdout, a code that is not 0, and nothing left behind.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::{Running, Scratch, assert_refuses, skip};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const NOBODY: u32 = 65_534;

/// The example program with arguments, and none of our environment that changes what it says.
fn reflect(arguments: impl IntoIterator<Item = String>) -> Command {
    quiet(Command::new(common::reflect()), arguments)
}

/// The same, for a start that has to fail: one that does not is stopped.
fn refused(arguments: impl IntoIterator<Item = String>) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", "30"]).arg(common::reflect());
    quiet(command, arguments)
}

fn quiet(mut command: Command, arguments: impl IntoIterator<Item = String>) -> Command {
    command.args(arguments).env_remove("RUST_BACKTRACE").env_remove("RUST_LIB_BACKTRACE").env_remove("RUST_LOG");
    command
}

/// The arguments that always work, and more.
fn usual(more: &[&str]) -> Vec<String> {
    let more = more.iter().map(|arg| (*arg).to_owned());
    common::arguments(&[]).into_iter().skip(1).chain(more).collect()
}

fn first_cpu() -> String {
    common::cpus().split([',', '-']).next().unwrap_or_default().to_owned()
}

#[test]
fn bad_arguments_are_refused_in_one_sentence() {
    let cases: &[(&str, Vec<String>, &[&str])] = &[
        ("unknown device", usual(&["--vdev=net_foo0"]), &["Error: the EAL did not start", "net_foo0"]),
        (
            "device that fails",
            usual(&["--vdev=net_pcap0,rx_pcap=/no/such/file.pcap"]),
            &[
                "the device \"net_pcap0\" that the command line asks for did not start",
                "/no/such/file.pcap",
                "No such file",
            ],
        ),
        (
            "one device of two fails",
            usual(&["--vdev=net_null0", "--vdev", "net_pcap0,rx_pcap=/no/such/file.pcap"]),
            &["the device \"net_pcap0\"", "/no/such/file.pcap"],
        ),
        (
            "unexpected argument",
            usual(&["--vdev=net_null0", "surplus"]),
            &["the EAL does not know what to do with the argument \"surplus\"", "come after \"--\""],
        ),
        (
            "device asked for twice",
            usual(&["--vdev=net_null0", "--vdev=net_null0,size=99"]),
            &["the command line asks for the device \"net_null0\" twice"],
        ),
        ("unknown option", usual(&["--nonsense"]), &["the EAL did not start: ", "'--nonsense'"]),
        ("option without its value", usual(&["--vdev"]), &["the EAL did not start: ", "vdev"]),
        (
            "options that exclude each other",
            usual(&["--in-memory"]),
            &["the EAL did not start: ", "not compatible with --in-memory"],
        ),
        ("lcore that is not there", one_lcore("4000"), &["the EAL did not start: ", "4000"]),
        ("lcore that is no number", one_lcore("x"), &["the EAL did not start: ", "core list"]),
        ("no device", usual(&[]), &["Error: no port: give one by -a or --vdev"]),
        (
            "secondary process",
            usual(&["--proc-type=secondary"]),
            &["secondary processes are not supported: leave --proc-type out"],
        ),
        ("secondary process", usual(&["--proc-type", "secondary"]), &["secondary processes are not supported"]),
    ];
    for (case, arguments, parts) in cases {
        eprintln!("case: {case}");
        let output = refused(arguments.iter().cloned()).output().unwrap();
        assert_refuses(case, &output, parts);
    }
}

fn one_lcore(list: &str) -> Vec<String> {
    let fixed = ["--no-huge", "--no-shconf", "--no-telemetry", "--no-pci", "-m", "128", "-l", list, "--vdev=net_null0"];
    fixed.map(str::to_owned).to_vec()
}

#[test]
fn help_is_the_eals_own() {
    let output = refused(usual(&["--help"])).output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && out.contains("--no-huge"), "{output:?}");
}

#[test]
fn who_has_no_hugepages_is_told_what_to_do() {
    let prefix = Prefix::new("nohuge");
    // No hugetlbfs is mounted there, so the machine has none to offer.
    let scratch = Scratch::new("nohuge");
    let directory = scratch.0.display().to_string();
    let arguments =
        ["--no-telemetry", "--no-pci", "--file-prefix", &prefix.0, "-l", &first_cpu(), "--huge-dir", &directory];
    let output = refused(arguments.map(str::to_owned)).output().unwrap();
    assert_refuses("no hugepages", &output, &["no free hugepages", "vm.nr_hugepages", "--no-huge"]);
}

#[test]
fn an_ordinary_user_is_told_which_capability_a_device_needs() {
    let scratch = Scratch::new("user");
    // Where an ordinary user may run it.
    let program = scratch.0.join("reflect");
    std::fs::copy(common::reflect(), &program).unwrap();
    for (device, capability) in [("net_tap0", "CAP_NET_ADMIN"), ("net_af_packet0,iface=lo", "CAP_NET_RAW")] {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "30"]).arg(&program);
        command.args(usual(&["--vdev", device])).env_clear();
        if common::is_root() {
            std::fs::set_permissions(&scratch.0, PermissionsExt::from_mode(0o755)).unwrap();
            command.uid(NOBODY).gid(NOBODY);
        }
        let name = device.split(',').next().unwrap();
        let needs = format!("the device {name} needs {capability}");
        assert_refuses(device, &command.output().unwrap(), &[&needs, "run this as root"]);
    }
}

#[test]
fn a_start_that_fails_leaves_no_interface() {
    if !common::is_root() {
        skip("a_start_that_fails_leaves_no_interface", "only root can make a tap interface");
        return;
    }
    if !Path::new("/dev/net/tun").exists() {
        skip("a_start_that_fails_leaves_no_interface", "there is no /dev/net/tun");
        return;
    }
    let interface = format!("nft{}", std::process::id());
    let tap = format!("--vdev=net_tap0,iface={interface}");
    let there = || Path::new("/sys/class/net").join(&interface).exists();

    // It does appear if nothing fails.
    let working = reporting(reflect(usual(&[&tap])));
    assert!(there());
    drop(working);
    assert!(!there(), "gone with the program, even by a kill");

    for bad in ["--vdev=net_pcap0,rx_pcap=/no/such/file.pcap", "surplus"] {
        let output = refused(usual(&[&tap, bad])).output().unwrap();
        assert_refuses(bad, &output, &[bad.rsplit('=').next().unwrap()]);
        assert!(!there(), "{bad}");
    }
}

/// A `--file-prefix` of this test's own, whose directories go with it.
struct Prefix(String);

impl Prefix {
    fn new(name: &str) -> Self {
        Self(format!("dpdk-rs-{name}-{}", std::process::id()))
    }
}

impl Drop for Prefix {
    fn drop(&mut self) {
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        for base in ["/var/run", "/run", "/tmp"].map(PathBuf::from).into_iter().chain(runtime) {
            let _ = std::fs::remove_dir_all(base.join("dpdk").join(&self.0));
        }
    }
}

/// Waits until the program polls its port.
fn reporting(mut command: Command) -> Running {
    let mut running = Running::start(&mut command);
    let mut line = String::new();
    let out = running.0.stdout.take().unwrap();
    BufReader::new(out).read_line(&mut line).unwrap();
    if !line.starts_with("reflecting on ") {
        let mut error = String::new();
        let err = running.0.stderr.take().unwrap();
        for line in BufReader::new(err).lines().map_while(Result::ok) {
            error.push_str(&line);
        }
        panic!("it did not start: {line}{error}");
    }
    running
}

#[test]
fn a_second_program_on_one_file_prefix_is_refused_until_the_first_is_gone() {
    let prefix = Prefix::new("twice");
    let cpus = common::cpus();
    let arguments = [
        "--no-huge",
        "--no-telemetry",
        "--no-pci",
        "-m",
        "64",
        "--file-prefix",
        &prefix.0,
        "--lcores",
        &format!("0@({cpus})"),
        "--vdev=net_null0",
    ]
    .map(str::to_owned);
    // The example's pool wants more than 64 MiB hold, and says so.
    let output = refused(arguments.clone()).output().unwrap();
    assert_refuses("little memory", &output, &["no memory for the mempool \"packets\" of 16383 packets", "by -m"]);

    let arguments = arguments.map(|arg| if arg == "64" { "128".to_owned() } else { arg });
    let first = reporting(reflect(arguments.clone()));
    let output = refused(arguments.clone()).output().unwrap();
    let sentence = format!("another DPDK program is running under the same --file-prefix ({})", prefix.0);
    assert_refuses("second", &output, &[&sentence]);
    drop(first);
    drop(reporting(reflect(arguments)));
}
