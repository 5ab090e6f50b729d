//! Clients of the admin door that mean no good: nothing of it is felt in forwarding.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;
#[path = "common/door.rs"]
#[allow(dead_code, reason = "it is for other tests too")]
mod door;
#[path = "common/program.rs"]
mod program;

use common::{Scratch, eal_arguments};
use door::{Door, read, request};
use program::{Program, port_block};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// KiB of the program's memory that are in RAM.
fn resident(program: &Program) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn received(door: &Door) -> u64 {
    door.get("/v1/stats").json()["balance"]["received"].as_u64().unwrap()
}

/// Sends these bytes, and returns the status of what is answered, if anything is.
fn status_of(door: &Door, bytes: &[u8]) -> Option<u16> {
    let mut stream = door.connect();
    // Who has heard enough may close before all is written.
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    text.split(' ').nth(1).and_then(|status| status.parse().ok())
}

#[test]
fn hostile_clients_are_not_felt_in_forwarding() {
    let scratch = Scratch::new("admin-hostile");
    let socket = scratch.path("nf.sock");
    let config = scratch.path("port-block.toml");
    let text = format!(
        "forwarding = \"wire\"\npackets = 4095\n[ports]\ninside = \"net_null0\"\noutside = \"net_null1\"\n\
         descriptors = 256\n[port-block]\nblocked = [9]\n[admin]\nsocket = {socket:?}\n"
    );
    std::fs::write(&config, text).unwrap();
    let mut command = port_block();
    command.args(eal_arguments(2, &["net_null0", "net_null1"])).args(["--", "--config", &config]);
    let program = Program::start(&mut command);
    let door = Door::at(&socket);
    door.wait_for("/readyz", 200);
    let before = resident(&program);

    let long = "x".repeat(70_000);
    let cases: [(&str, Vec<u8>, &[u16]); 11] = [
        ("garbage", (0..=255).cycle().take(10_000).collect(), &[400]),
        ("zeros", vec![0; 100_000], &[400, 431]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(10), &[400]),
        ("a path too long", request("GET", &format!("/{long}"), "").into_bytes(), &[414, 431]),
        ("headers too long", format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {long}\r\n\r\n").into_bytes(), &[431]),
        (
            "many headers",
            format!("GET /healthz HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(1000)).into_bytes(),
            &[431],
        ),
        ("a body too long", request("POST", "/v1/reload", &long).into_bytes(), &[413]),
        ("an unknown method", request("BREW", "/v1/stats", "").into_bytes(), &[405]),
        ("a NUL", request("GET", "/v1/%00", "").into_bytes(), &[400]),
        ("percent-encoding", request("GET", "/%76%31/stats", "").into_bytes(), &[200]),
        (
            "two lengths",
            b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
            &[400],
        ),
    ];
    for (case, bytes, expected) in cases {
        let packets = received(&door);
        let status = status_of(&door, &bytes);
        assert!(status.is_some_and(|status| expected.contains(&status)), "{case}: {status:?}");
        while received(&door) == packets {}
    }
    let chunks = format!("2000\r\n{}\r\n", "y".repeat(0x2000)).repeat(10);
    let endless = format!("POST /v1/drain HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
    assert_eq!(status_of(&door, endless.as_bytes()), Some(413), "chunks without end");

    let head = door.ask("HEAD", "/v1/stats", "");
    assert!(head.status == 200 && head.body.is_empty() && head.head.contains("content-length: "), "{head:?}");

    // Two requests at once get two answers, in their order.
    let mut stream = door.connect();
    let one = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(format!("{one}{}", request("GET", "/v1/program", "")).as_bytes()).unwrap();
    let answers = read(&mut stream).unwrap();
    assert!(answers.body.starts_with("ok\nHTTP/1.1 200 OK") && answers.body.contains("\"port-block\""), "{answers:?}");

    // Clients that say half of something and wait, and one that does not read what it asks for.
    let mut silent: Vec<UnixStream> = (0..20).map(|_| door.connect()).collect();
    silent.iter_mut().for_each(|stream| stream.write_all(b"GET /v1/stats HTTP/1.1\r\nHos").unwrap());
    let mut greedy = door.connect();
    greedy.set_nonblocking(true).unwrap();
    while greedy.write(one.replace("healthz", "metrics").as_bytes()).is_ok() {}
    assert_eq!(door.get("/healthz").status, 200);

    // A thousand at once: those that find no place are told so, or are not listened to, and the others are answered.
    let crowd: Vec<UnixStream> = (0..1000)
        .map_while(|_| {
            let stream = UnixStream::connect(&socket).ok()?;
            stream.set_nonblocking(true).ok()?;
            (&stream).write_all(request("GET", "/v1/stats", "").as_bytes()).ok()?;
            Some(stream)
        })
        .collect();
    assert!(crowd.len() >= 64, "{}", crowd.len());
    drop(crowd);
    drop(silent);
    drop(greedy);
    door.wait_for("/healthz", 200);
    let packets = received(&door);
    while received(&door) == packets {}
    let grown = resident(&program).saturating_sub(before);
    assert!(grown < 32 * 1024, "{grown} KiB more than before");

    let (status, out, errors) = program.stop("TERM");
    assert!(status.success(), "{errors}");
    let balance = out.lines().last().unwrap();
    assert!(balance.contains("+ 0 dropped + 0 consumed + 0 held") && !balance.contains("unaccounted"), "{out}");
    assert!(!errors.contains("panicked"), "{errors}");
}
