//! The admin door of a whole program, the example `port-block`, as its clients see it.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;
#[path = "common/door.rs"]
mod door;
#[path = "common/program.rs"]
mod program;

use common::{Scratch, eal_arguments};
use door::{Door, ask_by_tcp};
use program::{Program, port_block};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Two devices that packets come from without end, and that take all.
const DEVICES: [&str; 2] = ["net_null0", "net_null1"];

fn configuration(scratch: &Scratch, admin: &str) -> String {
    let socket = scratch.path("nf.sock");
    let admin = if admin.contains("socket") { admin.to_owned() } else { format!("socket = {socket:?}\n{admin}") };
    let text = format!(
        "forwarding = \"wire\"\npackets = 4095\n[ports]\ninside = \"net_null0\"\noutside = \"net_null1\"\n\
         descriptors = 256\n[port-block]\nblocked = [9]\n[admin]\n{admin}\n"
    );
    let path = scratch.path("port-block.toml");
    std::fs::write(&path, text).unwrap();
    path
}

fn start(scratch: &Scratch, admin: &str, more: &[&str]) -> (Program, Door) {
    let config = configuration(scratch, admin);
    let mut command = port_block();
    command.args(eal_arguments(2, &DEVICES)).args(["--", "--config", &config]).args(more);
    let program = Program::start(&mut command);
    let door = Door::at(scratch.path("nf.sock"));
    door.wait_for("/readyz", 200);
    (program, door)
}

/// Sorted: whether serde_json keeps their order depends on what else is built with it.
fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> =
        value.as_object().unwrap_or_else(|| panic!("{value}")).keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

#[test]
fn a_program_shows_what_it_is_and_does() {
    let scratch = Scratch::new("admin-shows");
    let (program, door) = start(&scratch, "", &[]);
    assert_eq!((door.get("/healthz").status, door.get("/healthz").body.as_str()), (200, "ok\n"));
    assert_eq!(door.get("/readyz").body, "ready\n");

    let of = door.get("/v1/program").json();
    assert_eq!(of["name"], "port-block");
    assert_eq!(of["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&of["workers"], &of["generation"]), (&json!(2), &json!(1)));
    assert_eq!((&of["ready"], &of["draining"]), (&json!(true), &json!(false)));
    assert_eq!(of["pid"], program.id());
    assert_eq!(of["config"], scratch.path("port-block.toml"));
    assert!(of["uptime_seconds"].as_f64().unwrap() > 0.0);

    // Until both have had packets there is not much to show.
    let has_begun = |worker: &Value| worker["rounds"].as_u64() > Some(0);
    while !door.get("/v1/workers").json().as_array().unwrap().iter().all(has_begun) {}
    let ports = door.get("/v1/ports").json();
    assert_eq!((&ports[0]["name"], &ports[1]["name"]), (&json!("net_null0"), &json!("net_null1")));
    assert_eq!(
        keys(&ports[0]),
        [
            "device",
            "down",
            "driver",
            "link",
            "link_downs",
            "mac",
            "misled",
            "name",
            "received",
            "removals",
            "resets",
            "sent",
            "side"
        ]
    );
    assert_eq!((&ports[0]["side"], &ports[1]["side"]), (&json!("inside"), &json!("outside")));
    assert_eq!(ports[0]["link"], json!({"up": true, "speed_mbps": 10_000}));
    assert!(ports[0]["received"].as_u64() > Some(0), "{ports}");

    let workers = door.get("/v1/workers").json();
    assert_eq!(workers.as_array().unwrap().len(), 2);
    for (number, worker) in workers.as_array().unwrap().iter().enumerate() {
        assert_eq!((&worker["worker"], &worker["lcore"]), (&json!(number), &json!(number)));
        assert!(worker["rounds"].as_u64() > Some(0) && worker["idle_share"].as_f64() <= Some(1.0), "{worker}");
    }

    let chain = door.get("/v1/chain").json();
    let parts: Vec<_> = chain.as_array().unwrap().iter().map(|row| row["function"].as_str().unwrap()).collect();
    assert_eq!(parts, ["(ingress)", "port-block", "(egress)", "(receive, send, other)"]);
    for key in ["seen", "passed", "calls", "packets", "cycles", "packets_per_call", "cycles_per_packet"] {
        assert!(chain[1][key].as_f64() > Some(0.0), "{key} in {chain}");
    }
    assert!(chain[1].get("worker").is_none() && chain[0].get("seen").is_none(), "{chain}");
    let by_worker = door.get("/v1/chain?by=worker").json();
    assert_eq!((&by_worker[0]["worker"], &by_worker[4]["worker"]), (&json!(0), &json!(1)));

    let stats = door.get("/v1/stats").json();
    assert_eq!(
        keys(&stats),
        [
            "balance",
            "counters",
            "cycles_per_second",
            "drops",
            "functions",
            "gauges",
            "generation",
            "handed_over",
            "ports",
            "tables",
            "workers"
        ]
    );
    assert_eq!(stats["counters"], json!([{"function": "port-block", "name": "hits", "value": 0}]));

    for router in ["/v1/neighbours", "/v1/routes", "/v1/interfaces"] {
        let reply = door.get(router);
        assert_eq!(reply.status, 404, "{router}");
        assert_eq!(reply.json()["error"], "this program has no router (forwarding = \"router\" makes one)");
    }

    let metrics = door.get("/metrics");
    assert!(metrics.head.contains("content-type: text/plain; version=0.0.4"), "{}", metrics.head);
    for line in [
        "nf_ready 1",
        "nf_function_own_total{function=\"port-block\",name=\"hits\"} 0",
        "nf_dropped_packets_total{reason=\"policy\"} 0",
        "nf_port_up{port=\"net_null0\"} 1",
    ] {
        assert!(metrics.body.lines().any(|there| there == line), "{line} in:\n{}", metrics.body);
    }
    let (status, out, _) = program.stop("TERM");
    assert!(status.success() && out.contains("0 held"), "{out}");
    assert!(!Path::new(&scratch.path("nf.sock")).exists(), "it goes with the program");
}

#[test]
fn a_reload_by_the_door_is_the_one_by_sighup() {
    let scratch = Scratch::new("admin-reload");
    let (program, door) = start(&scratch, "", &[]);
    // By result, whether the last one was carried out, and when one was.
    let reloads = || {
        let metrics = door.get("/metrics").body;
        let value = |name: &str| -> f64 {
            let line = metrics.lines().find(|line| line.split(' ').next() == Some(name));
            line.and_then(|line| line.rsplit(' ').next()).unwrap().parse().unwrap()
        };
        let results = ["changed", "unchanged", "refused", "unanswered"];
        let counts = results.map(|result| value(&format!("nf_reloads_total{{result=\"{result}\"}}")));
        let when = value("nf_config_last_reload_success_timestamp_seconds");
        (counts, value("nf_config_last_reload_successful"), when)
    };
    let (counts, successful, start) = reloads();
    assert_eq!((counts, successful), ([0.0; 4], 1.0));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    assert!(start > now - 3600.0 && start <= now, "{start} of {now}");
    assert_eq!(door.post("/v1/reload", "").json(), json!({"generation": 1, "changes": [], "warnings": []}));
    let path = scratch.path("port-block.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[9]", "[9, 53]")).unwrap();
    let expected = json!({"generation": 2, "changes": ["+ [port-block] blocked[1] = 53"], "warnings": []});
    assert_eq!(door.post("/v1/reload", "{}").json(), expected);
    assert_eq!(door.get("/v1/program").json()["generation"], 2);
    let (counts, successful, carried_out) = reloads();
    assert_eq!((counts, successful), ([1.0, 1.0, 0.0, 0.0], 1.0));
    assert!(carried_out > start);
    for (new, why) in [
        ("[9, 'x']", ":8: [port-block] blocked[1]: expected an integer from 0 to 65535, found a string \"x\""),
        ("[9]\nx = 1", ":9: [port-block] x: unknown key (known: blocked)"),
    ] {
        std::fs::write(&path, text.replace("[9]", new)).unwrap();
        let reply = door.post("/v1/reload", "");
        assert_eq!((reply.status, reply.json()["error"].as_str()), (422, Some(format!("{path}{why}").as_str())));
    }
    std::fs::write(&path, text.replace("[admin]", "[admin]\norders = true")).unwrap();
    let fixed = door.post("/v1/reload", "").json()["error"].to_string();
    assert!(fixed.contains("[admin] orders: false -> true is a change that a running program cannot make"), "{fixed}");
    assert_eq!(door.get("/v1/program").json()["generation"], 2);
    assert_eq!(reloads(), ([1.0, 1.0, 3.0, 0.0], 0.0, carried_out));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(door.post("/v1/reload", "").status, 422);
    std::fs::write(&path, &text).unwrap();
    assert_eq!(door.post("/v1/reload", "").status, 200);
    let (counts, successful, again) = reloads();
    assert_eq!((counts, successful), ([2.0, 1.0, 4.0, 0.0], 1.0));
    assert!(again > carried_out);
    assert!(program.stop("INT").0.success());
}

#[test]
fn a_drain_by_the_door_ends_the_program() {
    let scratch = Scratch::new("admin-drain");
    for (more, body, seconds) in [(&[][..], "", Value::Null), (&["--drain", "30"], "{\"seconds\": 7}", json!(7))] {
        let (program, door) = start(&scratch, "", more);
        let expected = json!({"draining": true, "seconds": seconds, "sessions": 0, "packets": 0});
        let reply = door.post("/v1/drain", body);
        assert_eq!((reply.status, reply.json()), (200, expected));
        let (status, _, errors) = program.end();
        assert!(status.success() && errors.contains("drained in 0 s"), "{errors}");
    }
}

#[test]
fn tcp_looks_and_gives_no_orders_unless_it_may() {
    for (orders, status, sentence) in
        [("", 403, Some("orders are given at the Unix socket")), ("orders = true", 200, None)]
    {
        let scratch = Scratch::new("admin-tcp");
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (program, door) = start(&scratch, &format!("listen = \"{port}\"\n{orders}"), &[]);
        let address = format!("127.0.0.1:{port}");
        assert_eq!(ask_by_tcp(&address, "GET", "/healthz", "").status, 200);
        assert!(ask_by_tcp(&address, "GET", "/metrics", "").body.contains("nf_ready 1"));
        let reply = ask_by_tcp(&address, "POST", "/v1/reload", "");
        assert_eq!(reply.status, status);
        assert!(sentence.is_none_or(|sentence| reply.body.contains(sentence)), "{reply:?}");
        let from_a_page = ask_by_tcp(&address, "POST", "/v1/reload", "Origin: http://evil.example\r\n");
        assert_eq!(from_a_page.status, 403);
        assert_eq!(door.post("/v1/reload", "").status, 200);
        assert!(program.stop("TERM").0.success());
    }
}

#[test]
fn a_door_that_is_asked_for_and_cannot_be_had_is_an_error_at_start() {
    let scratch = Scratch::new("admin-errors");
    let taken = scratch.path("taken.sock");
    let _theirs = UnixListener::bind(&taken).unwrap();
    let file = scratch.path("file");
    std::fs::write(&file, "").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for (admin, expected) in [
        (
            format!("socket = {taken:?}"),
            format!("error: [admin] socket: {taken} is another program's, which answers there"),
        ),
        (format!("socket = {file:?}"), format!("error: [admin] socket: {file} is there and is not a socket")),
        (format!("socket = \"{file}/s\""), format!("error: [admin] socket: the directory {file} cannot be used: ")),
        (
            format!("socket = {:?}\nlisten = \"{port}\"", scratch.path("free.sock")),
            format!("error: [admin] listen: 127.0.0.1:{port} cannot be listened at: Address already in use"),
        ),
        ("socket = \"nf.sock\"".to_owned(), "[admin] socket: \"nf.sock\" is not an absolute path".to_owned()),
    ] {
        let config = configuration(&scratch, &admin);
        let mut command = port_block();
        command.args(eal_arguments(1, &DEVICES)).args(["--", "--config", &config]);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && errors.contains(&expected), "{admin}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    assert!(!Path::new(&scratch.path("free.sock")).exists());
}

#[test]
fn programs_of_one_name_have_a_socket_each_at_the_usual_place() {
    let scratch = Scratch::new("admin-usual");
    let directory = scratch.path("run");
    // One that a killed program left behind.
    std::fs::create_dir_all(&directory).unwrap();
    drop(UnixListener::bind(format!("{directory}/port-block.sock")).unwrap());
    let config = configuration(&scratch, "");
    let text = std::fs::read_to_string(&config).unwrap();
    let without = text.lines().filter(|line| !line.starts_with("socket")).collect::<Vec<_>>().join("\n");
    std::fs::write(&config, without).unwrap();
    let begin = |directory: &str| {
        let mut command = port_block();
        command.args(eal_arguments(1, &DEVICES)).args(["--", "--config", &config]);
        Program::start(command.env("RUNTIME_DIRECTORY", directory))
    };
    let programs = ["port-block.sock", "port-block-2.sock"].map(|name| {
        let program = begin(&directory);
        let socket = format!("{directory}/{name}");
        let door = Door::at(&socket);
        door.wait_for("/readyz", 200);
        assert_eq!(door.get("/v1/program").json()["pid"], program.id());
        assert_eq!(std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o660);
        program
    });
    for program in programs {
        assert!(program.stop("TERM").0.success());
    }
    // DPDK has a directory of its own there.
    let left = std::fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.file_name());
    assert!(!left.into_iter().any(|name| name.to_string_lossy().contains("sock")));

    // Where there can be none, the program says what to do and works.
    let mut program = begin(&config);
    program.wait_for("Ctrl-C stops it");
    let (status, _, errors) = program.stop("TERM");
    assert!(status.success() && errors.contains("no admin socket: the directory"), "{errors}");
    assert!(errors.contains("[admin] enabled = false"), "{errors}");
}
