//! nf-top: whole screens for fixed input, and the program as it is run in a pipe.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

#[allow(dead_code, reason = "the other program's tests need more of it")]
#[path = "../ctl/fake.rs"]
mod fake;

use fake::{Answer, Fake};
use nfs::door::{ChainRow, Counter, Device, Drop, Link, Occupancy, Port, Program, Stats, Worker};
use nfs::top::picture::Picture;
use nfs::top::screen::{Shown, draw, extent};
use nfs::top::{Answered, Backend, Key, Looks, Sample, View};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::layout::Rect;
use ratatui::style::Color;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A load balancer behind a firewall, of which all counters stand at multiples of `n`.
fn sample(at: Instant, n: u64) -> Sample {
    let device = |n: u64| Device { rx_bytes: 800 * n, tx_bytes: 640 * n, rx_missed: n / 100, ..Device::default() };
    let port = |name: &str, up, factor: u64| Port {
        name: name.into(),
        received: n * factor,
        sent: n * factor / 2,
        link: Some(Link { up, speed_mbps: up.then_some(25_000) }),
        device: up.then(|| device(n * factor)),
        ..Port::default()
    };
    let worker = |number: u64, idle: u64| Worker {
        worker: number,
        cpu: Some(number + 2),
        received: n,
        sent: n / 2,
        handed_over: number * n / 8,
        rounds: 100 * n,
        idle_rounds: idle * n,
        busy_cycles: (100 - idle) * n,
        idle_cycles: idle * n,
        ..Worker::default()
    };
    let row = |function: &str, cycles: u64, sessions| ChainRow {
        function: function.into(),
        calls: Some(n / 10),
        packets: Some(n * 2),
        cycles: Some(cycles * n),
        seen: Some(n * 2),
        passed: Some(n * 2 - n / 50),
        sent: Some(0),
        dropped: Some(n / 50),
        taken: Some(0),
        held: Some(0),
        sessions,
        ..ChainRow::default()
    };
    let table = |function: &str, table: &str, worker, (entries, limit)| Occupancy {
        function: function.into(),
        table: table.into(),
        worker,
        entries,
        limit,
    };
    let reason = |reason: &str, help: &str, count| Drop { reason: reason.into(), help: help.into(), count };
    let backend = |name: &str, share, order: &str| Backend {
        service: "web".into(),
        name: name.into(),
        address: "10.0.0.11".into(),
        weight: 1,
        share: Some(share),
        order: order.into(),
        packets: n / 3,
        bytes: n * 200,
        begun: n / 1000,
        live: 321,
        failed: 0,
    };
    Sample {
        at: Answered::at_once(at),
        program: Program {
            name: "edge".into(),
            version: "0.1.0".into(),
            pid: 7,
            uptime_seconds: 3725.0,
            generation: 3,
            workers: 2,
            ready: true,
            ..Program::default()
        },
        stats: Stats {
            ports: vec![port("0000:01:00.0", true, 2), port("net_tap0", false, 0)],
            workers: vec![worker(0, 40), worker(1, 98)],
            drops: vec![
                reason("policy", "a rule says so", n / 50),
                reason("no-backend", "a service has no backend that could take a new flow, so that it is refused", 12),
                reason("hop-limit", "it has gone too far", 3),
                reason("ttl", "", 1),
            ],
            tables: vec![
                table("(router)", "neighbours", None, (17, 4096)),
                table("load-balancer", "connections-ipv4", Some(0), (642, 1_000_000)),
                table("load-balancer", "connections-ipv4", Some(1), (0, 1_000_000)),
                table("firewall", "connections-ipv4", Some(0), (234_567, 1_500_000)),
                table("firewall", "connections-ipv4", Some(1), (1_240_000, 1_500_000)),
            ],
            gauges: vec![Counter { function: "firewall".into(), name: "sources".into(), value: 17 }],
            generation: 3,
            ..Stats::default()
        },
        chain: vec![
            row("(ingress)", 30, None),
            row("firewall", 240, Some(1_234_567)),
            row("load-balancer", 180, Some(642)),
        ],
        backends: vec![backend("b1", 1000, "serve"), backend("b2", 0, "serve"), backend("b3", 1000, "drain")],
    }
}

fn shown() -> Shown {
    let start = Instant::now();
    let picture = Picture::between(&sample(start, 3_000_000), &sample(start + Duration::from_secs(1), 4_000_000));
    Shown { picture, since_start: false, gone: None, interval: Duration::from_secs(1), colours: false }
}

fn screen(shown: &Shown, looks: &Looks, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, shown, looks)).unwrap();
    let text = terminal.backend().to_string();
    text.lines().map(|line| format!("{}\n", line.trim_matches('"').trim_end())).collect()
}

fn view(view: View) -> Looks {
    Looks { view, ..Looks::default() }
}

/// Compares with a file beside this one. With `NF_WRITE_SCREENS` in the environment it is written, to be looked at.
fn assert_screen(name: &str, expected: &str, screen: &str) {
    if std::env::var_os("NF_WRITE_SCREENS").is_some() {
        let path = format!("{}/tests/top/screens/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, screen).unwrap();
        return;
    }
    assert_eq!(screen, expected, "{name} is\n{screen}");
}

macro_rules! assert_screens {
    ($($name:literal: $screen:expr;)*) => {
        $(assert_screen($name, include_str!(concat!("screens/", $name, ".txt")), &$screen);)*
    };
}

#[test]
fn screens_of_eighty_columns_are_these() {
    let shown = shown();
    let mut many = shown.clone();
    many.picture.backends = (0..40)
        .map(|number| {
            let mut line = shown.picture.backends[0].clone();
            line.backend.name = format!("b{number}");
            line
        })
        .collect();
    let scrolled = Looks { scroll: 100, ..view(View::Backends) };
    let gone = Shown { gone: Some("nobody answers".into()), ..shown.clone() };
    let empty = Shown { picture: Picture::default(), since_start: true, ..shown.clone() };
    assert_screens! {
        "all": screen(&shown, &Looks::default(), 80, 24);
        "ports": screen(&shown, &view(View::Ports), 80, 24);
        "chain": screen(&shown, &view(View::Chain), 80, 24);
        "drops": screen(&shown, &view(View::Drops), 80, 24);
        "backends": screen(&shown, &view(View::Backends), 80, 24);
        "many": screen(&many, &Looks::default(), 80, 24);
        "scrolled": screen(&many, &scrolled, 80, 24);
        "help": screen(&shown, &Looks { help: true, ..Looks::default() }, 80, 24);
        "gone": screen(&gone, &Looks { paused: true, ..Looks::default() }, 80, 24);
        "nothing": screen(&empty, &view(View::Drops), 80, 24);
        "wide": screen(&shown, &Looks::default(), 140, 32);
    }
}

#[test]
fn any_size_can_be_drawn() {
    for (width, height) in [(1, 1), (5, 2), (20, 3), (79, 10), (300, 100)] {
        for looks in View::ALL.map(view) {
            screen(&shown(), &looks, width, height);
            screen(&shown(), &Looks { help: true, scroll: 7, ..looks }, width, height);
        }
    }
}

#[test]
fn scrolling_ends_at_the_last_line() {
    let shown = shown();
    let area = Rect::new(0, 0, 80, 4);
    let mut looks = view(View::Drops);
    let (lines, page) = extent(&shown, &looks, area);
    assert_eq!((lines, page), (5, 1), "the heads stay");
    looks.press(Key::End, lines, page);
    assert_eq!(screen(&shown, &looks, 80, 4).lines().last().unwrap().split_whitespace().next(), Some("ttl"));
}

#[test]
fn colours_say_what_does_not_work_unless_there_are_to_be_none() {
    let colour = |colours| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        terminal.draw(|frame| draw(frame, &Shown { colours, ..shown() }, &Looks::default())).unwrap();
        let cells = terminal.backend().buffer().content().to_vec();
        let of = |row: usize| cells[row * 80].fg;
        // The heads, a port that forwards and misses packets, and one that is down.
        ([of(2), of(3), of(4)], cells.iter().all(|cell| cell.fg == Color::Reset))
    };
    assert_eq!(colour(true), ([Color::Cyan, Color::Yellow, Color::Red], false));
    assert_eq!(colour(false), ([Color::Reset; 3], true));
}

fn top(fake: &Fake, words: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_nf-top")).arg("--socket").arg(&fake.socket).args(words).output().unwrap()
}

#[test]
fn in_a_pipe_pictures_are_text() {
    let (asked, program) = (AtomicU64::new(0), |pid: u32| {
        format!(
            "{{\"name\":\"nat\",\"version\":\"0.1.0\",\"pid\":{pid},\"uptime_seconds\":61.0,\"generation\":1,\"workers\":1,\"ready\":true}}"
        )
    });
    let fake = Fake::new(move |request| match request {
        "GET /v1/program" => Answer::Json(200, program(7)),
        "GET /v1/stats" => {
            let received = 1000 * asked.fetch_add(1, Ordering::Relaxed);
            let port = format!("{{\"name\":\"net_null0\",\"received\":{received},\"sent\":0}}");
            let table = "{\"function\":\"lb\",\"table\":\"connections\",\"worker\":0,\"entries\":5,\"limit\":10}";
            let functions = "[{\"name\":\"nat\",\"seen\":5,\"sessions\":3}]";
            Answer::Json(200, format!("{{\"ports\":[{port}],\"functions\":{functions},\"tables\":[{table}]}}"))
        }
        "GET /v1/functions" => {
            let topics = "{\"name\":\"backends\",\"kind\":\"list\"}";
            Answer::Json(200, format!("[{{\"name\":\"lb\",\"topics\":[{topics}]}}]"))
        }
        "GET /v1/functions/lb/backends?limit=200" => {
            let backend = "{\"service\":\"web\",\"name\":\"b1\",\"address\":\"10.0.0.1\",\"weight\":1,\"share\":0}";
            Answer::Json(200, format!("{{\"items\":[{backend}],\"next\":null}}"))
        }
        _ => Answer::Json(404, "{\"error\":\"nothing\"}".to_owned()),
    });
    let output = top(&fake, &["--count", "2", "-i", "0.01"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("nat 0.1.0, ready, up 1 min 1 s, generation 1\n").count(), 2, "{text}");
    for part in [
        "\nport       link     rx pkt/s",
        "\nnet_null0  unknown  ",
        "\nweb/b1   10.0.0.1  down",
        "\nlb.connections      5        10   50% █████░░░░░\n",
    ] {
        assert_eq!(text.matches(part).count(), 2, "{part:?} in {text}");
    }
    assert!(!text.contains('\x1b'), "{text}");
    assert_eq!(top(&fake, &["--once", "-i", "0.01"]).status.code(), Some(0));
}

#[test]
fn without_a_program_it_says_so() {
    let fake = Fake::new(|_| Answer::Bytes(Vec::new()));
    for words in [&["--once"][..], &[]] {
        let output = top(&fake, words);
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(3) && error.contains("the program went away before"), "{error}");
    }
    assert_eq!(top(&fake, &["--interval", "0"]).status.code(), Some(2));
}
