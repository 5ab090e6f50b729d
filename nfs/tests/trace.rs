//! Traces of the functions: firewall and NAT in one chain, as text.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use nf_framework::headers::{MacAddress, TcpFlags};
use nf_framework::testing::{Frame, Lab, Trial, lab};
use nf_framework::{Affinity, Chain, Direction, Function, WorkerSetup};
use nfs::firewall::Firewall;
use nfs::nat::Nat;
use std::sync::Arc;
use std::time::Duration;

const FIREWALL: &str = r#"
connections = 64
connections_v6 = 64
[[rules]]
name = "web"
from = "inside"
protocol = "tcp"
destination_ports = ["443"]
action = "accept"
[[rules]]
name = "no-mail"
from = "inside"
protocol = "tcp"
destination_ports = ["25"]
action = "drop"
"#;

const NAT: &str = r#"
sessions = 64
[[pools]]
addresses = ["198.51.100.100"]
"#;

const ROUTER: &str = r#"
[interfaces.lan]
side = "inside"
addresses = ["10.0.0.1/24"]
[interfaces.wan]
side = "outside"
addresses = ["198.51.100.1/24"]
"#;

const A: [u8; 4] = [10, 0, 0, 5];
const X: [u8; 4] = [198, 51, 100, 7];
const X_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 7]);
const A_MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 5]);
const SYN: u8 = TcpFlags::SYN.0;
const SYN_ACK: u8 = SYN | TcpFlags::ACK.0;

fn trial(lab: &Lab<'_>, workers: u16) -> Trial {
    let nat = Nat::new();
    let of_nat = Arc::new(nat.policy(toml::from_str(NAT).unwrap()).unwrap());
    let policy = Arc::new(Firewall.policy(toml::from_str(FIREWALL).unwrap()).unwrap());
    Firewall.build(&policy, &lab.eal.memory()).unwrap();
    let chain = |worker: &mut WorkerSetup| -> Chain {
        let mut chain = Chain::new();
        chain.push("firewall", Box::new(Firewall.instance(Arc::clone(&policy), worker).unwrap()));
        chain.push("nat", Box::new(nat.instance(Arc::clone(&of_nat), worker).unwrap()));
        chain
    };
    let affinities = [("firewall", Firewall.affinity(&policy)), ("nat", nat.affinity(&of_nat))];
    match workers {
        1 => lab.trial(chain).with_fragments(Default::default()),
        _ => lab.trial_at_wrong_workers(workers, Affinity::compose(affinities).unwrap(), chain),
    }
}

/// The identification that a frame was given.
fn identification(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[18], frame[19]])
}

/// The external port that a frame was given.
fn port(frame: &[u8]) -> u16 {
    u16::from_be_bytes([frame[34], frame[35]])
}

#[test]
fn a_syn_goes_out_and_its_reply_comes_back() {
    lab(|lab| {
        let mut trial = trial(lab, 1);
        trial.begin_trace(2, "host 198.51.100.7 and tcp port 443");
        let syn = Frame::new().ipv4(A, X).tcp(4321, 443).flags(SYN).build();
        let out = trial.send(Direction::Outbound, &[syn]).outside.remove(0);
        let (external, identification) = (port(&out), identification(&out));
        let reply = Frame::new()
            .ipv4(X, [198, 51, 100, 100])
            .tcp(443, external)
            .flags(SYN_ACK)
            .acknowledgment_number(1)
            .build();
        assert_eq!(trial.send(Direction::Inbound, &[reply]).inside.len(), 1);
        let expected = format!(
            "packet 1: tcp 10.0.0.5:4321 > 198.51.100.7:443 [S], 54 bytes
  arrives  by inside, worker 0
  firewall next; connection SYN_SENT, rule web
  nat      next; session behind 198.51.100.100:{external}, begun;
           source 10.0.0.5:4321 -> 198.51.100.100:{external}; identification 0 -> {identification}
  (egress) send by outside
  leaves   by outside

packet 2: tcp 198.51.100.7:443 > 198.51.100.100:{external} [S.], 54 bytes
  arrives  by outside, worker 0
  nat      next; mapping to 10.0.0.5:4321; destination 198.51.100.100:{external} -> 10.0.0.5:4321
  firewall next; connection SYN_RECV, rule web
  (egress) send by inside
  leaves   by inside
"
        );
        assert_eq!(trial.end_trace().to_string(), expected);
        trial.advance(Duration::from_secs(3600));
        trial.check_for_leaks();
    });
}

#[test]
fn a_packet_that_is_dropped_says_the_rule() {
    lab(|lab| {
        let mut trial = trial(lab, 1);
        trial.begin_trace(10, "");
        let syn = |port| Frame::new().ipv4(A, X).tcp(4321, port).flags(SYN).build();
        trial.send(Direction::Outbound, &[syn(25), syn(80)]);
        assert_eq!(
            trial.end_trace().to_string(),
            "packet 1: tcp 10.0.0.5:4321 > 198.51.100.7:25 [S], 54 bytes
  arrives  by inside, worker 0
  firewall drop firewall-denied; rule no-mail

packet 2: tcp 10.0.0.5:4321 > 198.51.100.7:80 [S], 54 bytes
  arrives  by inside, worker 0
  firewall drop firewall-default; no rule matches
"
        );
        trial.check_for_leaks();
    });
}

#[test]
fn between_two_workers_and_through_a_router_a_packet_is_followed_to_its_end() {
    lab(|lab| {
        let mut trial = trial(lab, 2).with_router(ROUTER, &["198.51.100.100/32"]);
        trial.advance(Duration::ZERO);
        // Whoever asks is known.
        let asks = |from: MacAddress, sender: [u8; 4], to: [u8; 4]| {
            Frame::new().ethernet(from.0, MacAddress::BROADCAST.0).arp_request(sender, to).build()
        };
        trial.send(Direction::Inbound, &[asks(X_MAC, X, [198, 51, 100, 1])]);
        trial.send(Direction::Outbound, &[asks(A_MAC, A, [10, 0, 0, 1])]);
        for _ in 0..2 {
            trial.advance(Duration::from_secs(3));
        }
        trial.begin_trace(1, "tcp");
        let syn = Frame::new().ethernet(A_MAC.0, Trial::INSIDE_MAC.0);
        let out = trial.send(Direction::Outbound, &[syn.ipv4(A, X).tcp(4321, 443).flags(SYN).build()]);
        let (external, identification) = (port(&out.outside[0]), identification(&out.outside[0]));
        let text = trial.end_trace().to_string();
        let (from, to) = if text.contains("inside, worker 0") { (0, 1) } else { (1, 0) };
        let expected = format!(
            "packet 1: tcp 10.0.0.5:4321 > 198.51.100.7:443 [S], 54 bytes
  arrives   by inside, worker {from}
  ends      handed over to another worker
  enters    worker {to} takes it over, from inside
  (ingress) next; route 198.51.100.7 on wan; TTL 64 -> 63
  firewall  next; connection SYN_SENT, rule web
  nat       next; session behind 198.51.100.100:{external}, begun;
            source 10.0.0.5:4321 -> 198.51.100.100:{external}; identification 0 -> {identification}
  (egress)  send by outside; next hop 198.51.100.7 on wan;
            source MAC 02:00:00:00:00:05 -> 02:00:00:00:01:02;
            destination MAC 02:00:00:00:01:01 -> 02:00:00:00:00:07
  leaves    by outside
"
        );
        assert_eq!(text, expected);
        trial.advance(Duration::from_secs(3600));
        trial.check_for_leaks();
    });
}
