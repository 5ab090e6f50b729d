//! The DPDK that is loaded must be the one of the headers: a stranger is refused before it
//! is asked for anything else.

mod common;

use common::{Running, Scratch, assert_refuses, skip};
use std::io::{BufRead, BufReader};
use std::process::Command;

#[test]
fn a_library_of_another_release_is_refused_before_a_port_is_touched() {
    if cfg!(feature = "static") {
        skip("a_library_of_another_release_is_refused_before_a_port_is_touched", "DPDK is linked into the program");
        return;
    }
    let scratch = Scratch::new("wrong-library");
    let (source, library) = (scratch.0.join("version.c"), scratch.0.join("libversion.so"));
    std::fs::write(&source, "const char *rte_version(void) { return \"DPDK 21.11.3\"; }\n").unwrap();
    let cc = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status().unwrap();
    assert!(cc.success());

    // A device that leaves a trace as soon as it is made.
    let capture = scratch.0.join("out.pcap");
    let device = format!("net_pcap0,tx_pcap={}", capture.display());
    let reflect = || {
        let mut command = Command::new(common::reflect());
        command.args(common::arguments(&[&device]).into_iter().skip(1));
        command.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
        command
    };
    let output = reflect().env("LD_PRELOAD", &library).output().unwrap();
    let built = dpdk_rs::Version::HEADERS;
    let built = format!("this program was built with the headers of DPDK {built}, but DPDK 21.11.3 is loaded");
    assert_refuses("another release", &output, &[&built, "build it again", "LD_LIBRARY_PATH"]);
    assert!(!capture.exists(), "no device was made");

    let mut running = Running::start(&mut reflect());
    let mut line = String::new();
    BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim_end(), "reflecting on net_pcap0");
    assert!(capture.exists());
}
