//! docs/drops.md lists every reason for which a packet is dropped.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use nf_framework::testing::lab;
use nf_framework::{Chain, Function, WorkerSetup};
use nfs::{firewall::Firewall, load_balancer::LoadBalancer, nat::Nat, rate_limit::RateLimit};
use std::fmt::Write;
use std::sync::Arc;

const CONNECTIONS: &str = "connections = 64\nconnections_v6 = 64";
const SERVICE: &str = r#"
connections = 64
connections_ipv6 = 64
[[services]]
name = "web"
address = "203.0.113.80"
protocol = "tcp"
port = 80
mode = "dsr"
backends = [{ name = "one", address = "10.0.0.11" }]
"#;
const POOL: &str = "sessions = 64\n[[pools]]\naddresses = [\"198.51.100.8\"]";
const RATE: &str = "packets_per_second = 1";

const HEAD: &str = "# Why packets are dropped

Every packet that is dropped is counted under one of these names: in `/metrics` (`nf_dropped_packets_total`), in `nf-ctl drops`,
in the tables that a program prints, and as the comment of each packet in a file of `nf-ctl drops-to`. A program has the
framework's and those of the functions in its chain; a function of your own adds its own (`WorkerSetup::drop_reason`). This
list is made from the code by `nfs/tests/drop_reasons.rs`, with `NF_WRITE_DOCS=1`.
";

/// The names and sentences of a program whose chain is what `make` makes.
fn reasons(make: impl FnOnce(&mut WorkerSetup) -> Chain + Send + 'static) -> Vec<(String, String)> {
    lab(|lab| lab.trial(make).drop_reasons())
}

fn with<F: Function + Send + 'static>(function: F, config: &str) -> Vec<(String, String)> {
    let policy = Arc::new(function.policy(toml::from_str(config).unwrap()).unwrap());
    reasons(move |worker| {
        let mut chain = Chain::new();
        chain.push("of", Box::new(function.instance(policy, worker).unwrap()));
        chain
    })
}

#[test]
fn the_list_in_the_docs_is_what_the_code_has() {
    let built_in = reasons(|_| Chain::new());
    let of_functions = [
        ("`firewall`", with(Firewall, CONNECTIONS)),
        ("`load-balancer`", with(LoadBalancer::without_clock(), SERVICE)),
        ("`nat`", with(Nat::new(), POOL)),
        ("`rate-limit`", with(RateLimit, RATE)),
    ];
    let mut list = HEAD.to_owned();
    let mut section = |title: &str, reasons: &[(String, String)]| {
        assert!(!reasons.is_empty(), "{title}");
        let _ = writeln!(list, "\n## {title}\n\n| reason | the packet |\n|---|---|");
        for (name, help) in reasons {
            assert!(!help.is_empty(), "{name} says nothing");
            let _ = writeln!(list, "| `{name}` | {help} |");
        }
    };
    section("The framework, with its router", &built_in);
    for (title, all) in &of_functions {
        section(title, &all[built_in.len()..]);
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/drops.md");
    if std::env::var_os("NF_WRITE_DOCS").is_some() {
        std::fs::write(path, &list).unwrap();
    }
    let there = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        there == list,
        "docs/drops.md is not what the code has: NF_WRITE_DOCS=1 cargo test -p nfs --test drop_reasons"
    );
}
