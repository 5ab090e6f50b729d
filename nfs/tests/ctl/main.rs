//! nf-ctl as its users run it, at a door without a program behind it.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod fake;

use fake::{Answer, Fake};
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const STATS: &str = r#"{"ports":[
  {"name":"net_tap0","side":"inside","received":1200345678,"sent":7,"misled":0,"link_downs":2,"resets":0,"removals":1,"down":false,
   "link":{"up":true,"speed_mbps":10000},"mac":"02:00:00:00:00:01",
   "device":{"rx_packets":1,"tx_packets":2,"rx_bytes":76543210987,"tx_bytes":0,"rx_missed":12,"rx_errors":1,"tx_errors":2,"rx_no_mbuf":5}},
  {"name":"net_tap1","side":"outside","received":0,"sent":0,"misled":1,"link_downs":0,"resets":0,"removals":0,"down":true,"link":null,"mac":null,"device":null},
  {"name":"net_tap2","received":0,"sent":0,"misled":0,"link_downs":0,"resets":0,"removals":0,"down":false,"link":null,"mac":null,"device":null}],
 "functions":[{"name":"nat","calls":3,"cycles":600,"seen":12,"passed":8,"sent":0,"dropped":4,"taken":0,"held":0,"sessions":3}],
 "drops":[{"reason":"policy","help":"a rule","count":3},{"reason":"no-port","help":"all ports are taken, by whom and for how long the list of sessions tells, or there are none","count":40}],
 "counters":[{"function":"nat","name":"mappings_made","value":4}],
 "gauges":[{"function":"nat","name":"subscribers","value":2}],
 "workers":[{"worker":0,"lcore":1,"cpu":null,"received":640,"sent":7,"handed_over":5,"rounds":1000,"idle_rounds":980,"idle_share":0.98}],
 "handed_over":5,"balance":{"received":640,"originated":0,"sent":597,"dropped":43,"consumed":0,"held":0,"unaccounted":0},"generation":1}"#;

const FUNCTIONS: &str = r#"[
 {"name":"firewall","topics":[{"name":"connections","kind":"list","help":"Its connections.","parameters":[]},
  {"name":"clear","kind":"order","help":"Forgets connections.","parameters":[]}]},
 {"name":"monitor","topics":[]},
 {"name":"nat","topics":[
  {"name":"sessions","kind":"list","help":"Its sessions.","parameters":[{"name":"inside","help":"the inside host"}]},
  {"name":"occupancy","kind":"state","help":"How full it is.","parameters":[]},
  {"name":"clear","kind":"order","help":"Forgets sessions.","parameters":[]}]},
 {"name":"lb","topics":[{"name":"order","kind":"order","help":"What a backend is to do.","parameters":[]}]}]"#;

fn sessions(request: &str) -> Answer {
    let Some(target) = request.strip_prefix("GET /v1/functions/nat/sessions?") else {
        return Answer::Json(200, FUNCTIONS.to_owned());
    };
    let item = |n: u32| format!("{{\"protocol\":\"tcp\",\"inside\":\"10.0.0.{n}:1000\",\"packets\": {n}}}");
    let page = |items: &[u32], next: &str| {
        let items = items.iter().map(|&n| item(n)).collect::<Vec<_>>().join(",");
        Answer::Json(200, format!("{{\"items\":[{items}],\"next\":{next}}}"))
    };
    // A piece of a table may be empty and not the last.
    match target {
        _ if target.contains("inside=10.9.9.9") => page(&[], "null"),
        _ if target.contains("cursor=b%2Fc") => page(&[200], "null"),
        _ if target.contains("cursor=a") => page(&[], "\"b/c\""),
        _ => page(&[1, 2], "\"a\""),
    }
}

#[test]
fn stats_are_all_tables_of_the_program() {
    let fake = Fake::of(&[("GET /v1/stats", STATS)]);
    let expected = "\
port      link     rx packets  tx packets  rx bytes  tx bytes  missed  errors
net_tap0  10G      1200345678           7     76.5G         0      17       3
net_tap1  gone              0           0         -         -       -       -
net_tap2  unknown           0           0         -         -       -       -
net_tap0 is inside, net_tap1 is outside
net_tap0: its link went down 2 times, its device went away once
net_tap0: 5 of the missed packets found no mbuf
net_tap1: does not spread packets as it was told; 1 worker(s) have seen it

worker  lcore  cpu  received  sent  handed over  packets/round  idle
0           1    -       640     7            5           32.0   98%

function  packets  packets/call  cycles/packet  held  sessions
nat            12           4.0           50.0     0         3

function  passed  sent  dropped  taken
nat            8     0        4      0

counter            value
nat.mappings_made      4

gauge            value
nat.subscribers      2

dropped because  packets
no-port               40  all ports are taken, by whom and for how long the list
                          of sessions tells, or there are none
policy                 3  a rule

5 times a packet went from one worker to another
balance: 640 received + 0 originated = 597 sent + 43 dropped + 0 consumed + 0 held
";
    let printed = fake.prints(&["stats"]);
    assert_eq!(printed, expected);
    assert_eq!(printed.lines().find(|line| !line.starts_with("balance") && line.chars().count() > 80), None);
    assert_eq!(fake.prints(&["stats", "--json"]).trim_end(), STATS);
    let drops = r#"[{"reason":"policy","help":"a rule","count":3},{"reason":"no-port","help":"all ports are taken, by whom and for how long the list of sessions tells, or there are none","count":40}]"#;
    assert_eq!(fake.prints(&["drops", "--json"]).trim_end(), drops);
    assert!(fake.prints(&["drops"]).starts_with("dropped because  packets\nno-port "));
}

#[test]
fn a_chain_shows_what_is_measured_and_leaves_out_what_is_not() {
    let chain = r#"[{"function":"(ingress)","calls":10,"packets":320,"cycles":3200},
        {"function":"nat","calls":10,"packets":315,"cycles":31500,"seen":315,"passed":300,"sent":0,"dropped":15,"taken":0,"held":0,"sessions":9}]"#;
    let fake = Fake::of(&[
        ("GET /v1/chain", chain),
        ("GET /v1/chain?by=worker", "[{\"function\":\"nat\",\"worker\":1,\"seen\":3}]"),
    ]);
    let expected = "\
function   packets  packets/call  cycles/packet  held  sessions
(ingress)      320          32.0           10.0     -         -
nat            315          31.5          100.0     0         9

function  passed  sent  dropped  taken
nat          300     0       15      0
";
    assert_eq!(fake.prints(&["chain"]), expected);
    assert_eq!(fake.prints(&["chain", "--workers"]), "function  worker  packets\nnat            1        3\n");
}

#[test]
fn a_program_says_who_it_is() {
    let program = r#"{"name":"nat","version":"0.1.0","dpdk":"22.11.7","pid":7,"uptime_seconds":3725.2,"generation":2,"workers":1,"ready":true,"draining":false,"config":"/etc/nf/nat.toml"}"#;
    let fake = Fake::of(&[("GET /v1/program", program)]);
    let expected = "\
program        nat 0.1.0 on DPDK 22.11.7
state          ready
process        7
running for    1 h 2 min
workers        1
generation     2
configuration  /etc/nf/nat.toml
";
    assert_eq!(fake.prints(&["program"]), expected);
}

#[test]
fn a_list_comes_in_pieces_and_is_one_table_and_one_document() {
    let fake = Fake::new(sessions);
    // Small pieces are set together.
    let table = "\
protocol  inside           packets
tcp       10.0.0.1:1000          1
tcp       10.0.0.2:1000          2
tcp       10.0.0.200:1000      200
";
    assert_eq!(fake.prints(&["sessions"]), table);
    assert_eq!(
        fake.asked()[1..],
        [
            "GET /v1/functions/nat/sessions?limit=1000",
            "GET /v1/functions/nat/sessions?limit=1000&cursor=a",
            "GET /v1/functions/nat/sessions?limit=1000&cursor=b%2Fc",
        ]
    );
    let json = fake.prints(&["query", "nat", "sessions", "--json"]);
    let item = |n: u32| format!("{{\"protocol\":\"tcp\",\"inside\":\"10.0.0.{n}:1000\",\"packets\": {n}}}");
    assert_eq!(json, format!("{{\"items\":[{},{},{}],\"next\":null}}\n", item(1), item(2), item(200)));
    let some = fake.prints(&["sessions", "--limit", "2", "--json"]);
    assert_eq!(some, format!("{{\"items\":[{},{}],\"next\":\"a\"}}\n", item(1), item(2)));
    let output = fake.ctl(&["--limit", "2", "sessions", "nat", "protocol=tcp"]);
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "there are more than these 2 sessions\n");
    assert_eq!(fake.asked().last().unwrap(), "GET /v1/functions/nat/sessions?protocol=tcp&limit=2");
    assert_eq!(fake.prints(&["sessions", "inside=10.9.9.9"]), "no sessions\n");
}

#[test]
fn whatever_a_function_says_becomes_tables() {
    let occupancy = r#"{"sessions":12,"is_full":false,"rest":{"ports":[1,2]},"addresses":[{"address":"192.0.2.1","in_use":7},{"address":"192.0.2.22","in_use":10,"of":{"worker":1}}]}"#;
    let fake = Fake::of(&[("GET /v1/functions", FUNCTIONS), ("GET /v1/functions/nat/occupancy?a=b", occupancy)]);
    let expected = "\
sessions    12
is_full     no
rest.ports  1,2

addresses:
address     in use  of.worker
192.0.2.1        7          -
192.0.2.22      10          1
";
    assert_eq!(fake.prints(&["query", "nat", "occupancy", "a=b"]), expected);
    let workers = r#"[{"worker":0,"sessions":12,"addresses":[{"address":"192.0.2.1","in_use":7}],"last":{"at":[{"x":1}]}},{"worker":1,"sessions":3,"addresses":[{"address":"192.0.2.1","in_use":5},{"address":"192.0.2.2","in_use":0}],"last":{"at":[]}}]"#;
    let by_worker = Fake::of(&[("GET /v1/functions", FUNCTIONS), ("GET /v1/functions/nat/occupancy", workers)]);
    let expected = "\
worker  sessions  last.at
0             12  x=1
1              3  -

addresses:
worker  address    in use
0       192.0.2.1       7
1       192.0.2.1       5
1       192.0.2.2       0
";
    assert_eq!(by_worker.prints(&["query", "nat", "occupancy"]), expected);
    let functions = fake.prints(&["functions"]);
    assert!(functions.contains("monitor: cannot be asked anything\n"), "{functions}");
    let sessions = "  nf-ctl query nat sessions [inside=..]\n      Its sessions.\n      inside=: the inside host\n";
    assert!(functions.contains(sessions), "{functions}");
}

#[test]
fn orders_are_given_as_they_were_said() {
    let fake = Fake::new(|request| match request {
        "GET /v1/functions" => Answer::Json(200, FUNCTIONS.to_owned()),
        "POST /v1/reload {}" => {
            let answer =
                r#"{"generation":3,"changes":["[nat] pool changed"],"warnings":["f.toml:3: [nat] x: of no use"]}"#;
            Answer::Json(200, answer.to_owned())
        }
        "POST /v1/functions/nat/clear inside=10.0.0.5" => Answer::Json(200, "{\"sessions\":2}".to_owned()),
        "POST /v1/drain {\"seconds\":30}" | "DELETE /v1/drops" => Answer::Json(200, "{}".to_owned()),
        _ => Answer::Json(200, "null".to_owned()),
    });
    for (words, printed) in [
        (&["reload"][..], "[nat] pool changed\nwarning: f.toml:3: [nat] x: of no use\ngeneration 3\n"),
        (&["clear", "nat", "inside=10.0.0.5"], "sessions  2\n"),
        (&["order", "nat", "clear", "x=a b"], "done\n"),
        (&["backend", "web/b1", "drain"], "done\n"),
        (&["drain", "--seconds", "30"], "draining\n"),
        (
            &["drops-to", "/tmp/d", "--reason", "policy", "--reason", "no-port", "--per-second", "9"],
            "writing to /tmp/d\n",
        ),
        (&["drops-to", "--end"], "no more drops are written\n"),
    ] {
        assert_eq!(fake.prints(words), printed, "{words:?}");
    }
    let orders: Vec<String> = fake.asked().into_iter().filter(|asked| !asked.starts_with("GET")).collect();
    assert_eq!(
        orders,
        [
            "POST /v1/reload {}",
            "POST /v1/functions/nat/clear inside=10.0.0.5",
            "POST /v1/functions/nat/clear x=a+b",
            "POST /v1/functions/lb/order service=web&backend=b1&order=drain",
            "POST /v1/drain {\"seconds\":30}",
            "POST /v1/drops {\"file\":\"/tmp/d\",\"reasons\":[\"policy\",\"no-port\"],\"per_second\":9}",
            "DELETE /v1/drops",
        ]
    );
}

#[test]
fn a_trace_is_a_line_for_each_step() {
    let traces = r#"{"packets":[
        {"number":1,"packet":"tcp 10.0.0.5:4321 > 192.0.2.9:443 SYN","made_for":null,"steps":[
            {"nanoseconds":0,"worker":0,"place":"arrives","towards":null,"verdict":"by net_tap0","note":"","changes":[]},
            {"nanoseconds":850,"worker":0,"place":"nat","towards":"outside","verdict":"next","note":"new session","changes":["source 10.0.0.5:4321 -> 198.51.100.7:1024"]}]},
        {"number":2,"packet":"icmp","made_for":1,"steps":[]}],"lost":3}"#;
    let fake = Fake::of(&[("POST /v1/trace {\"count\":1,\"seconds\":10}", traces)]);
    let expected = "\
packet 1: tcp 10.0.0.5:4321 > 192.0.2.9:443 SYN
      0 ns arrives  by net_tap0
    850 ns nat      next; new session;
                    source 10.0.0.5:4321 -> 198.51.100.7:1024

packet 2: icmp, for the sake of packet 1

3 more steps found no room
";
    assert_eq!(fake.prints(&["trace", "1"]), expected);
    assert_eq!(fake.prints(&["trace", "1", "--json"]).trim_end(), traces);
}

#[test]
fn a_trace_says_what_it_waits_for_and_fails_if_nothing_came() {
    let nothing = r#"{"packets":[],"lost":0}"#;
    let fake = Fake::of(&[
        ("POST /v1/trace {\"count\":20,\"seconds\":5,\"filter\":\"tcp port 443\"}", nothing),
        ("POST /v1/trace {\"count\":1,\"seconds\":10}", nothing),
    ]);
    let said = "waiting up to 5 s for the next 20 packets of \"tcp port 443\"\nerror: within 5 s no packet came that was meant\n";
    assert_eq!(fake.fails(&["trace", "20", "--filter", "tcp port 443", "--seconds", "5"]), (Some(1), said.to_owned()));
    let output = fake.ctl(&["trace", "1", "--json"]);
    assert_eq!((output.status.code(), output.stdout), (Some(1), format!("{nothing}\n").into_bytes()));
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.starts_with("waiting up to 10 s for the next packet\n"), "{errors}");
}

#[test]
fn backends_fit_a_terminal_and_have_all_fields_as_json() {
    let backend = |service: &str, name: &str, share: u32, order: &str| {
        format!(
            r#"{{"service":"{service}","backend":"{name}","address":"10.0.0.111","weight":1,"share":{share},"up":true,"order":"{order}","packets":9123456,"bytes":9876543210,"begun":654321,"live":2015,"failed":0}}"#
        )
    };
    let items = [("web", "one", 1000, "serve"), ("web", "three", 450, "serve"), ("echo", "one", 1000, "drain")];
    let items = items.map(|(service, name, share, order)| backend(service, name, share, order)).join(",");
    let page = format!("{{\"items\":[{items}],\"next\":null}}");
    let functions =
        r#"[{"name":"lb","topics":[{"name":"backends","kind":"list","help":"Its servers.","parameters":[]}]}]"#;
    let fake = Fake::of(&[("GET /v1/functions", functions), ("GET /v1/functions/lb/backends?limit=1000", &page)]);
    let expected = "\
backend    address     state   weight  packets  bytes   begun  live  failed
web/one    10.0.0.111  up           1  9123456  9.88G  654321  2015       0
web/three  10.0.0.111  up 45%       1  9123456  9.88G  654321  2015       0
echo/one   10.0.0.111  drains       1  9123456  9.88G  654321  2015       0
";
    assert_eq!(fake.prints(&["backends"]), expected);
    assert_eq!(fake.prints(&["backends", "--json"]).trim_end(), page);
}

#[test]
fn what_is_wrong_is_said_in_one_sentence_with_a_status() {
    let fake = Fake::of(&[("GET /v1/functions", FUNCTIONS)]);
    for (words, status, sentence) in [
        (&["rules"][..], 1, "no function of this program has rules (nf-ctl functions lists what they have)"),
        (&["sessions", "na"], 1, "the program has no function \"na\"; it has firewall, monitor, nat, lb"),
        (&["query", "monitor", "x"], 1, "monitor has no topic \"x\"; nothing can be asked of it"),
        (&["query", "lb", "x"], 1, "lb has no topic \"x\"; there are order"),
        (&["clear"], 2, "several functions have something to clear: firewall, nat; say which: nf-ctl clear firewall"),
        (&["query", "nat", "clear"], 2, "clear is an order: nf-ctl order nat clear"),
        (&["order", "nat", "occupancy"], 2, "occupancy is no order: nf-ctl query nat occupancy"),
        (&["neighbours"], 1, "there is nothing at this address"),
        (&["reload"], 1, "there is nothing at this address"),
    ] {
        assert_eq!(fake.fails(words), (Some(status), format!("error: {sentence}\n")), "{words:?}");
    }
    let several = r#"[{"name":"a","topics":[{"name":"order"}]},{"name":"b","topics":[{"name":"order"}]}]"#;
    for (functions, status, sentence) in [
        ("[]", 1, "no function of this program has backends (nf-ctl functions lists what they have)"),
        (several, 2, "several functions have backends: a, b; say which: nf-ctl backend .. --function a"),
    ] {
        let fake = Fake::of(&[("GET /v1/functions", functions)]);
        assert_eq!(fake.fails(&["backend", "web/b1", "drain"]), (Some(status), format!("error: {sentence}\n")));
    }
    let (status, text) = fake.fails(&["query", "nat", "sessions", "inside"]);
    assert!(status == Some(2) && text.contains("a filter or argument is KEY=VALUE, such as inside=10.0.0.5"), "{text}");
}

#[test]
fn a_program_that_does_not_answer_as_one_is_named() {
    type Case = (fn(&str) -> Answer, &'static str);
    let cases: [Case; 7] = [
        (|_| Answer::Bytes(Vec::new()), "SOCKET: the program went away before it had answered ("),
        (
            |_| Answer::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"name".to_vec()),
            "SOCKET: the program went away before it had answered (",
        ),
        (
            |_| Answer::Bytes(b"220 mail.example ESMTP\r\n".to_vec()),
            "SOCKET: what answers there is not an admin door: ",
        ),
        (|_| Answer::Json(200, "[]]".to_owned()), "SOCKET: what answers there is not an admin door: its answer is not"),
        (
            |_| Answer::Json(500, "oh".to_owned()),
            "SOCKET: what answers there is not an admin door: it says 500 without",
        ),
        (
            |_| Answer::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n\xff\xff".to_vec()),
            "SOCKET: what answers there is not an admin door: its answer is no text",
        ),
        (|_| Answer::Never, "SOCKET: no answer within 0.2 s (--timeout SECONDS waits longer)"),
    ];
    for (answer, sentence) in cases {
        let (status, text) = Fake::new(answer).fails(&["program", "--timeout", "0.2"]);
        assert!(status == Some(3) && text.starts_with(&format!("error: {sentence}")), "{text}, not {sentence}");
    }
    let fake = Fake::new(|_| {
        let mut long = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n".to_vec();
        long.resize((64 << 20) + 1000, b' ');
        Answer::Bytes(long)
    });
    let long = (Some(3), "error: SOCKET: the answer is longer than 67108864 bytes, which no door's is\n".to_owned());
    assert_eq!(fake.fails(&["stats"]), long);
    std::fs::remove_file(&fake.socket).unwrap();
    let (status, text) = fake.fails(&["stats"]);
    assert!(status == Some(3) && text.starts_with("error: SOCKET: nobody answers ("), "{text}");
}

#[test]
fn names_give_the_terminal_no_orders() {
    // As JSON has them, and as UTF-8: what begins an order of a terminal's, in 7 and in 8 bits.
    let name = r"\u001b]0;title\u0007\u001b[2J\u009b31m";
    let answers = [
        ("GET /v1/program", r#"{"name":"NAME","version":"NAME","config":"NAME"}"#),
        ("GET /v1/stats", r#"{"drops":[{"reason":"NAME","help":"NAME","count":1}],"ports":[{"name":"NAME"}]}"#),
        ("GET /v1/functions", r#"[{"name":"NAME","topics":[{"name":"NAME","help":"NAME"}]}]"#),
        ("POST /v1/trace", r#"{"packets":[{"packet":"NAME","steps":[{"place":"NAME","note":"NAME"}]}]}"#),
        ("GET /v1/interfaces", r#"[{"NAME":"NAME"}]"#),
        ("POST /v1/reload", r#"{"generation":1,"changes":["NAME"]}"#),
    ];
    let answers = answers.map(|(request, answer)| (request, answer.replace("NAME", name)));
    let fake = Fake::new(move |request| {
        let answer = answers.iter().find(|(known, _)| request.starts_with(known)).map(|(_, answer)| answer.clone());
        answer.map_or(Answer::Json(400, r#"{"error":"\u001b[2J"}"#.to_owned()), |answer| Answer::Json(200, answer))
    });
    for words in
        [&["program"][..], &["stats"], &["drops"], &["functions"], &["trace", "1"], &["interfaces"], &["reload"]]
    {
        let text = fake.prints(words);
        assert!(text.contains("]0;title") && !text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    }
    assert_eq!(fake.fails(&["routes"]), (Some(1), "error:  [2J\n".to_owned()));
}

#[test]
fn what_is_printed_as_json_is_json_or_nothing() {
    for answer in ["<html></html>", "", "{\"a\":1}}"] {
        let fake = Fake::new(|_| Answer::Json(200, answer.to_owned()));
        for words in [&["stats", "--json"][..], &["program", "--json"], &["reload", "--json"], &["routes", "--json"]] {
            let output = fake.ctl(words);
            assert_eq!((output.status.code(), output.stdout.len()), (Some(3), 0), "{answer} {words:?}");
        }
    }
    let fake = Fake::new(|_| Answer::Json(400, r#"{"error":"no"}"#.to_owned()));
    let output = fake.ctl(&["routes", "--json"]);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "of a refusal nothing is part of a list");
}

#[test]
fn whoever_reads_may_stop_reading() {
    // More than a pipe takes, and each time another place to go on at.
    let asked = AtomicU32::new(0);
    let fake = Fake::new(move |request| match request {
        "GET /v1/functions" => Answer::Json(200, FUNCTIONS.to_owned()),
        _ => {
            let next = asked.fetch_add(1, Ordering::Relaxed);
            Answer::Json(
                200,
                format!("{{\"items\":[{}1],\"next\":\"{next}\"}}", "\"some text of a line\",".repeat(999)),
            )
        }
    });
    let mut ctl = Command::new(env!("CARGO_BIN_EXE_nf-ctl"));
    ctl.arg("--socket").arg(&fake.socket).arg("sessions").stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = ctl.spawn().unwrap();
    let mut some = [0; 64];
    child.stdout.take().unwrap().read_exact(&mut some).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
}

#[test]
fn a_list_that_goes_in_a_circle_is_not_followed() {
    // The first goes on where it is, the second comes back by another place.
    for (last, again) in [("a", "a"), ("b", "a")] {
        let fake = Fake::new(move |request| {
            let next = if request.contains("cursor=a") { last } else { "a" };
            Answer::Json(200, format!("{{\"items\":[],\"next\":\"{next}\"}}"))
        });
        let sentence = format!("its list has no end: it goes on at {again:?} a second time");
        let expected = format!("error: SOCKET: what answers there is not an admin door: {sentence}\n");
        assert_eq!(fake.fails(&["routes"]), (Some(3), expected));
    }
}

#[test]
fn help_teaches_and_shells_complete() {
    let run = |words: &[&str]| Command::new(env!("CARGO_BIN_EXE_nf-ctl")).args(words).output().unwrap();
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(help.contains("nf-ctl sessions inside=10.0.0.5"), "{help}");
    assert!(help.contains("The exit status is 0 when all went well, 1"), "{help}");
    for shell in ["bash", "zsh", "fish"] {
        let script = run(&["completions", shell]);
        assert!(script.status.success() && String::from_utf8(script.stdout).unwrap().contains("neighbours"), "{shell}");
    }
    for words in [
        &[][..],
        &["nothing"],
        &["trace", "0"],
        &["backend", "b1", "drain"],
        &["drops-to"],
        &["program", "--timeout", "0"],
    ] {
        assert_eq!(run(words).status.code(), Some(2), "{words:?}");
    }
}

/// What bash offers for the last of the words, asked as readline asks.
fn completed(words: &[&str], session: &Path) -> Vec<String> {
    const ASK: &str = r#"
        source <("$0" completions bash)
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        _nf__ctl nf-ctl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}""#;
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", ASK, env!("CARGO_BIN_EXE_nf-ctl")]).args(words);
    let output = bash.env("XDG_RUNTIME_DIR", session).current_dir(session).output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{words:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_what_follows_a_command() {
    let session = std::env::temp_dir().join(format!("nf-completions-{}", std::process::id()));
    std::fs::create_dir_all(session.join("nf")).unwrap();
    for name in ["a-file", "nf/quite-a-nat.sock", "nf/quite-another.txt"] {
        std::fs::write(session.join(name), "").unwrap();
    }
    for (words, expected) in [
        (&["nf-ctl", "neig"][..], &["neighbours"][..]),
        (&["nf-ctl", "trace", "--f"], &["--filter"]),
        (&["nf-ctl", "completions", "b"], &["bash"]),
        (&["nf-ctl", "backend", "web/b1", "dr"], &["drain"]),
        (&["nf-ctl", "drops-to", "--rea"], &["--reason"]),
        (&["nf-ctl", "help", "neig"], &["neighbours"]),
        (&["nf-ctl", "--program", "quite-"], &["quite-a-nat"]),
        (&["nf-ctl", "sessions", "-p", "quite-"], &["quite-a-nat"]),
        (&["nf-ctl", "sessions", "--socket", "a-"], &["a-file"]),
    ] {
        let offered = completed(words, &session);
        let offered: Vec<&str> = offered.iter().map(String::as_str).collect();
        let is_there = expected.iter().all(|word| offered.contains(word));
        // After `backend web/b1` options and values of both arguments are offered, by their beginning.
        assert!(is_there && offered.len() == expected.len(), "{words:?}: {offered:?}");
    }
    std::fs::remove_dir_all(&session).unwrap();
}
