//! What DPDK's own dpdk-telemetry.py shows of a whole program, the example `port-block`.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;
#[allow(dead_code, reason = "what other tests need of it")]
#[path = "common/door.rs"]
mod door;
#[path = "common/program.rs"]
mod program;

use common::{Scratch, eal_arguments};
use door::Door;
use program::{Program, port_block};
use serde_json::{Value, json};
use std::io::Write;
use std::process::{Command, Stdio};

const DEVICES: [&str; 2] = ["net_null0", "net_null1"];

/// What the program that has this runtime directory answers, command by command.
fn ask(scratch: &Scratch, commands: &[&str]) -> Vec<Value> {
    let mut client = Command::new("dpdk-telemetry.py");
    client.args(["-f", "nf"]).env("RUNTIME_DIRECTORY", &scratch.0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut client = client.spawn().expect("dpdk-telemetry.py, which comes with DPDK's development files");
    let text = commands.iter().map(|command| format!("{command}\n")).collect::<String>();
    client.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = client.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    let answers: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(answers.len(), commands.len(), "{text}");
    let of = |(answer, command): (Value, &&str)| answer[command.split(',').next().unwrap()].clone();
    answers.into_iter().zip(commands).map(of).collect()
}

#[test]
fn dpdk_telemetry_shows_what_the_door_does() {
    let scratch = Scratch::new("telemetry");
    let (config, socket) = (scratch.path("port-block.toml"), scratch.path("nf.sock"));
    let text = format!(
        "forwarding = \"wire\"\npackets = 4095\n[ports]\ninside = \"net_null0\"\noutside = \"net_null1\"\n\
         descriptors = 256\n[port-block]\nblocked = [9]\n[admin]\nsocket = {socket:?}\n"
    );
    std::fs::write(&config, text).unwrap();
    let arguments = eal_arguments(2, &DEVICES).into_iter().filter(|argument| argument != "--no-telemetry");
    let mut command = port_block();
    command.args(arguments).args(["--file-prefix=nf", "--", "--config", &config]).env("RUNTIME_DIRECTORY", &scratch.0);
    let program = Program::start(&mut command);
    let door = Door::at(&socket);
    door.wait_for("/readyz", 200);

    let commands = &ask(&scratch, &["/"])[0];
    for command in ["program", "stats", "ports", "workers", "chain", "drops", "neighbours", "routes", "topic"] {
        let command = json!(format!("/nf/{command}"));
        assert!(commands.as_array().unwrap().contains(&command), "{command} in {commands}");
    }
    let asked = [
        "/nf/program",
        "/nf/stats",
        "/nf/ports",
        "/nf/workers",
        "/nf/chain",
        "/nf/chain,by=worker",
        "/nf/drops",
        "/nf/functions",
        "/nf/neighbours",
        "/nf/ports,x=1",
        "/nf/topic,port-block/none",
        "/help,/nf/chain",
    ];
    let answers = ask(&scratch, &asked);
    let of = |command: &str| &answers[asked.iter().position(|asked| *asked == command).unwrap()];
    let about = of("/nf/program");
    assert_eq!(
        (&about["name"], &about["pid"], &about["ready"]),
        (&json!("port-block"), &json!(program.id()), &json!(1))
    );
    assert_eq!(of("/nf/stats")["counters"], json!({"port_block/hits": 0}));
    assert!(of("/nf/stats")["balance"]["received"].as_u64() > Some(0), "{answers:?}");
    let ports = of("/nf/ports");
    assert_eq!(ports["net_null1"]["link"], json!({"speed_mbps": 10_000, "up": 1}));
    assert!(ports["net_null0"]["received"].as_u64() > Some(0), "{ports}");
    assert_eq!(of("/nf/workers")["1"]["worker"], 1);
    assert_eq!(of("/nf/chain")["1"]["function"], "port-block");
    assert!(of("/nf/chain")["1"]["packets"].as_u64() > Some(0), "{answers:?}");
    assert_eq!(of("/nf/chain,by=worker")["4"]["worker"], 1);
    assert!(of("/nf/drops").is_object(), "{answers:?}");
    assert_eq!(of("/nf/functions")["port_block"]["name"], "port-block");
    assert_eq!(of("/nf/neighbours"), "this program has no router (forwarding = \"router\" makes one)");
    assert!(of("/nf/ports,x=1").as_str().unwrap().contains("unknown field `x`"), "{answers:?}");
    assert!(of("/nf/topic,port-block/none").as_str().is_some_and(|text| !text.is_empty()), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.get("left_out").is_none()), "{answers:?}");
    let (status, out, log) = program.stop("TERM");
    assert!(status.success() && out.contains("0 held"), "{out}{log}");
}
