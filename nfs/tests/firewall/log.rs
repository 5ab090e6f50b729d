//! Flows as they are written down. The writer works in real time, so what is waited for is that it has ended: it
//! writes what it was told before it goes.

use super::bench::{A, A6, Bench, SYN, X, X6, config, denied, tcp, v4, v6};
use nf_framework::Function;
use nf_framework::testing::lab;
use nfs::firewall::Firewall;
use serde_json::Value;
use std::path::PathBuf;

/// A file of this test's own, gone when it ends.
struct File(PathBuf);

impl File {
    fn new(name: &str) -> Self {
        let file = Self(std::env::temp_dir().join(format!("firewall-log-{}-{name}", std::process::id())));
        let _ = std::fs::remove_file(&file.0);
        file
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What stands in the log when a firewall has gone, and what was lost before.
fn logged(
    name: &str,
    workers: u16,
    log: &str,
    rules: &str,
    test: impl Fn(&mut Bench) + Send + 'static,
) -> (Vec<Value>, u64) {
    let file = File::new(name);
    let text = format!("{rules}\n[log]\nfile = {:?}\n{log}", file.0);
    let lost = lab(move |lab| {
        let mut bench = Bench::new(lab, workers, config(&text), None);
        test(&mut bench);
        bench.pass(1);
        bench.counter("log-lines-lost")
    });
    let text = std::fs::read_to_string(&file.0).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")));
    (lines.collect(), lost)
}

const RULES: &str = r#"
[[rules]]
name = "all \"datagrams\""
protocol = "udp"
action = "log"
[[rules]]
name = "telnet"
protocol = "tcp"
destination_ports = 23
action = "reject"
[[rules]]
name = "web"
protocol = "tcp"
destination_ports = 80
action = "accept"
limit = { connections_per_second = 1, burst = 2 }
[[rules]]
name = "never"
protocol = "tcp"
destination_ports = 80
action = "log"
[[rules]]
name = "out"
from = "inside"
action = "accept"
"#;

fn traffic(bench: &mut Bench) {
    assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
    assert_eq!(bench.back(&v4(X, A).udp(53, 5000)), Ok(()), "of a connection: no line");
    assert_eq!(bench.back(&v6(X6, A6).udp(53, 5000)), denied("default"));
    assert_eq!(bench.out(&v4(A, X).icmp_echo_request(7, 1)), Ok(()));
    for port in 4000..4020 {
        let sent = bench.out(&tcp(A, X, port, 80, SYN));
        assert!([Ok(()), denied("rate-limit")].contains(&sent));
    }
    bench.send(nf_framework::Direction::Outbound, &[tcp(A, X, 4000, 23, SYN).build()]);
    assert_eq!(bench.out(&tcp(A, X, 4000, 81, 0x10)), denied("no-connection"), "what begins nothing is no flow");
}

/// What stands in a line: event, rule, protocol, ends, side.
type Line = [&'static str; 6];

const DATAGRAM: [&str; 4] = ["udp", "192.168.1.10:5000", "203.0.113.1:53", "inside"];
const SIX: [&str; 4] = ["udp", "[2001:db8:2::1]:53", "[2001:db8:1::10]:5000", "outside"];

#[test]
fn flows_are_written_down_with_the_rule_that_has_decided() {
    let of = |event, rule, [a, b, c, d]: [&'static str; 4]| -> Line { [event, rule, a, b, c, d] };
    let ping = ["icmp", "192.168.1.10", "203.0.113.1", "inside"];
    let telnet = ["tcp", "192.168.1.10:4000", "203.0.113.1:23", "inside"];
    let logged_lines = [of("logged", "all \"datagrams\"", DATAGRAM), of("logged", "all \"datagrams\"", SIX)];
    let accepted = [of("accepted", "out", DATAGRAM), of("accepted", "out", ping)];
    let denied = [of("dropped", "", SIX), of("rejected", "telnet", telnet)];
    for (log, expected, web) in [
        ("", [&logged_lines[..], &accepted, &denied].concat(), [2, 18]),
        ("accepted = false", [&logged_lines[..], &denied].concat(), [0, 18]),
        ("denied = false", [&logged_lines[..], &accepted].concat(), [2, 0]),
        ("accepted = false\ndenied = false", logged_lines.to_vec(), [0, 0]),
    ] {
        for workers in [1, 2] {
            let (lines, lost) = logged("lines", workers, log, RULES, traffic);
            assert_eq!(lost, 0);
            let (of_web, lines): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["rule"] == "web");
            let count = |event| of_web.iter().filter(|line| line["event"] == event).count();
            assert_eq!(["accepted", "limited"].map(count), web, "{log:?}");
            assert_eq!(of_web.len(), web[0] + web[1], "{log:?}");
            let mut found: Vec<_> = lines
                .iter()
                .map(|line| {
                    let text = |key| line[key].as_str().unwrap_or("");
                    ["event", "rule", "protocol", "source", "destination", "from"].map(text)
                })
                .collect();
            let mut expected = expected.clone();
            found.sort_unstable();
            expected.sort_unstable();
            assert_eq!(found, expected, "{log:?} with {workers}");
            assert!(lines.iter().all(|line| line["time"].as_f64().unwrap() > 1.7e9));
        }
    }
}

#[test]
fn what_is_refused_by_a_program_that_is_drained_is_called_so() {
    let (lines, _) = logged("drained", 1, "", RULES, |bench| {
        bench.trial.set_draining(true);
        assert_eq!(bench.out(&v4(A, X).icmp_echo_request(7, 1)), Err("draining".to_owned()));
    });
    assert_eq!((lines.len(), &lines[0]["event"], &lines[0]["rule"]), (1, &"draining".into(), &"out".into()));
}

#[test]
fn what_is_too_much_is_lost_and_counted() {
    const OUT: &str = super::bench::OUT;
    let (lines, lost) = logged("rate", 1, "lines_per_second = 1", OUT, |bench| {
        for port in 0..2000 {
            assert_eq!(bench.out(&v4(A, X).udp(5000 + port, 53)), Ok(()));
        }
    });
    let (told, flows): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line["event"] == "lost");
    let said: u64 = told.iter().map(|line| line["lines"].as_u64().unwrap()).sum();
    assert_eq!(flows.len() as u64 + said, 2000);
    // What the writer loses in the end is counted by nobody.
    assert!(!flows.is_empty() && said >= lost);
}

#[test]
fn a_reload_goes_on_writing_and_a_log_does_not_change() {
    let file = File::new("reload");
    let path = file.0.clone();
    lab(move |lab| {
        let text = format!("{}\n[log]\nfile = {path:?}\n", super::bench::OUT);
        let mut bench = Bench::new(lab, 1, config(&text), None);
        assert_eq!(bench.out(&v4(A, X).udp(5000, 53)), Ok(()));
        bench.reload(&text.replace("\"out\"", "\"still out\"")).unwrap();
        assert_eq!(bench.out(&v4(A, X).udp(5001, 53)), Ok(()));
        let invalid = bench.reload(super::bench::OUT).unwrap_err();
        assert_eq!((invalid.key.as_str(), invalid.message.contains("restart")), ("log", true));
    });
    let text = std::fs::read_to_string(&file.0).unwrap();
    let rules: Vec<_> = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["rule"].clone()).collect();
    assert_eq!(rules, ["out", "still out"]);
}

#[test]
fn a_log_that_cannot_be_is_refused() {
    let there = std::env::temp_dir();
    for (log, key) in [
        (format!("file = {:?}", there.join("missing/log")), "log.file"),
        (format!("file = {there:?}"), "log.file"),
        ("file = \"x\"\nlines_per_second = 0".to_owned(), "log.lines_per_second"),
    ] {
        let invalid = Firewall.policy(config(&format!("[log]\n{log}"))).err().unwrap();
        assert_eq!(invalid.key, key, "{log}");
    }
    let file = File::new("a-directory");
    let text = format!("[log]\nfile = {:?}", file.0);
    let path = file.0.clone();
    let message = lab(move |lab| {
        let policy = std::sync::Arc::new(Firewall.policy(config(&text)).unwrap());
        std::fs::create_dir(&path).unwrap();
        let mut message = None;
        drop(lab.trial(|worker| {
            message = Firewall.instance(policy, worker).err().map(|error| error.to_string());
            nf_framework::Chain::default()
        }));
        std::fs::remove_dir(&path).unwrap();
        message
    });
    assert!(message.unwrap().starts_with(&format!("log.file: {} cannot be written: ", file.0.display())));
}
