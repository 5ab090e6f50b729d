//! What a configuration needs beside what a started DPDK has.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::{Scratch, write_capture};
use dpdk_rs::Eal;
use nf_framework::config::ConfigFile;
use nf_framework::{Affinity, Configuration, Functions, Runtime};
use std::sync::OnceLock;

#[derive(serde::Deserialize)]
struct Empty {}

fn on_eal<T: Send + 'static>(test: impl FnOnce(&Eal) -> T + Send + 'static) -> T {
    common::on_eal(devices, test)
}

/// One of them has a single queue.
fn devices() -> Vec<String> {
    static FILES: OnceLock<Scratch> = OnceLock::new();
    let file = FILES.get_or_init(|| Scratch::new("check")).path("none");
    write_capture(&file, &[]);
    vec!["net_null0".to_owned(), "net_null1".to_owned(), format!("net_pcap0,rx_pcap={file}")]
}

fn configuration(text: &str) -> Configuration {
    let known = Functions::new().with_closure("nothing", Affinity::Any, |_: &Empty, _| Ok(common::Mark(b'1')));
    Configuration::load(&ConfigFile::parse("f.toml", text).unwrap(), &known).unwrap()
}

#[test]
fn lcores_are_workers_and_ports_and_memory_are_looked_at() {
    on_eal(|eal| {
        let text =
            "packets = 8191\n[ports]\ninside = 'net_null0'\noutside = 'net_null1'\ndescriptors = 512\nmtu = 1500\n";
        let configuration = configuration(text);
        let check = configuration.check(Some(eal));
        let table = check.to_string();
        assert_eq!(check.problems(), [""; 0], "{table}");
        for part in [
            "With 2 workers:\n",
            "packets                          8191\n",
            "memory for packets               34 MiB\n",
            "memory for nothing               0 MiB\n",
            "memory in all                    34 MiB  ",
            "net_null0: receive queues        2       1024\n",
            "net_null1: transmit queues       2       1024\n",
            "net_null1: receive descriptors   512     0 to 65535\n",
            "net_null0: MTU                   1500    ",
        ] {
            assert!(table.contains(part), "{part:?} in:\n{table}");
        }
        // Two workers with one queue hand packets over: a ring each way, and one to the sender.
        let shared = crate::configuration("packets = 8191\n[ports]\ninside = 'net_pcap0'\n").check(Some(eal));
        let table = shared.to_string();
        assert_eq!(shared.problems(), [""; 0], "{table}");
        for cells in [&["memory between workers", "14 KiB"][..], &["net_pcap0: receive queues", "1", "1"]] {
            let cells_of = |line: &str| -> Vec<String> {
                line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
            };
            assert!(table.lines().any(|line| cells_of(line) == cells), "{cells:?} in:\n{table}");
        }
        // It has taken nothing.
        assert!(Runtime::configured(eal, configuration).is_ok());
    });
}

#[test]
fn what_does_not_fit_is_the_sentence_that_a_start_would_end_with() {
    on_eal(|eal| {
        for (text, starts_with) in [
            (
                "[ports]\ninside = 'net_foo0'\n",
                "[ports] inside: there is no port \"net_foo0\"; the EAL found net_null0",
            ),
            (
                "[ports]\ninside = 'net_pcap0'\nqueues = 2\n",
                "port net_pcap0 (net_pcap) has 1 receive queue(s), 2 are needed",
            ),
            ("[ports]\ninside = 'net_null0'\nmtu = 10\n", "[ports] mtu: port net_null0 (net_null) takes an MTU from "),
            ("packets = 100\n[ports]\ninside = 'net_null0'\n", "packets: 100 are too few"),
        ] {
            let configuration = configuration(text);
            let problems = configuration.check(Some(eal)).problems().to_vec();
            assert_eq!(problems.len(), 1, "{text}: {problems:?}");
            assert!(problems[0].starts_with(starts_with), "{text}: {problems:?}");
            let error = Runtime::configured(eal, configuration).map(|_| ()).unwrap_err();
            assert_eq!(error.to_string(), problems[0], "{text}");
        }
        let text = "packets = 1000000\n[ports]\ninside = 'net_null0'\n";
        let problems = configuration(text).check(Some(eal)).problems().to_vec();
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert!(problems[0].starts_with("3916 MiB of memory are needed, and 2"), "{problems:?}");
        assert!(
            problems[0].ends_with("give the EAL more by -m 3948, or hugepages in place of --no-huge"),
            "{problems:?}"
        );
    });
}

#[test]
fn a_pool_has_room_for_all_packets_that_wait_for_neighbours() {
    on_eal(|eal| {
        for (waiting, packets) in [(512, 8191), (4096, 16383), (65536, 131_071)] {
            let text = format!(
                "forwarding = 'router'\n[ports]\ninside = 'net_null0'\noutside = 'net_null1'\ndescriptors = 256\n\
                 [router.neighbours]\nwaiting = {waiting}\n\
                 [router.interfaces.lan]\nside = 'inside'\naddresses = ['192.0.2.1/24']\n"
            );
            let table = configuration(&text).check(Some(eal)).to_string();
            let line = table.lines().find(|line| line.starts_with("packets ")).unwrap_or_default();
            assert_eq!(line.split_whitespace().last(), Some(packets.to_string().as_str()), "{waiting}: {table}");
        }
    });
}

#[test]
fn a_pool_takes_the_memory_that_is_said_of_it() {
    on_eal(|eal| {
        for config in [
            dpdk_rs::MempoolConfig { size: 8191, ..Default::default() },
            dpdk_rs::MempoolConfig { size: 20_000, cache: 0, ..Default::default() },
            dpdk_rs::MempoolConfig { size: 1023, data_room: 9216, ..Default::default() },
        ] {
            // Making a pool frees those of earlier tests.
            let small = dpdk_rs::MempoolConfig { size: 1, cache: 0, ..config };
            let small = dpdk_rs::Mempool::new(eal, "small", small).unwrap();
            let before = eal.free_memory();
            let pool = dpdk_rs::Mempool::new(eal, "measured", config).unwrap();
            let taken = (before - eal.free_memory()) as u64;
            // But for small things, and for the end of the last page.
            let said = config.bytes(eal.has_hugepages());
            assert!(taken.abs_diff(said) < (64 << 10), "{config:?}: {said} said, {taken} taken");
            drop((small, pool));
        }
    });
}
