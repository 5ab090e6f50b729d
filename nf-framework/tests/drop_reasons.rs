//! Each of the framework's own drop reasons, provoked. `stopped` and `not-one-segment` need
//! a program that runs: they are in `runtime.rs`.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::{Always, Mark};
use nf_framework::testing::{Outcome, lab};
use nf_framework::{Batch, Chain, Context, Direction, DropReason, NetworkFunction, PortIx, Then, Verdict};
use std::collections::BTreeMap;

/// What becomes of three packets in this chain, with and without something around it.
fn three_packets(chain: fn() -> Chain, forwarding: bool, ports_full: bool) -> Outcome {
    lab(move |lab| {
        let mut trial = lab.trial(|_| chain());
        if !forwarding {
            trial = trial.without_forwarding();
        }
        trial.set_ports_full(ports_full);
        let outcome = trial.send(Direction::Outbound, &[b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        trial.check_for_leaks();
        outcome
    })
}

fn only(reason: &str, count: u64) -> Outcome {
    Outcome { dropped: BTreeMap::from([(reason.to_owned(), count)]), ..Outcome::default() }
}

#[test]
fn what_nobody_decides_about_and_nothing_forwards_is_undecided() {
    for chain in [|| Chain::new(), || Mark(b'1').then(Mark(b'2'))] {
        assert_eq!(three_packets(chain, false, false), only("undecided", 3));
    }
}

#[test]
fn what_a_full_queue_refuses_is_tx_full() {
    assert_eq!(three_packets(Chain::new, true, true), only("tx-full", 3));
    assert_eq!(three_packets(|| Always(Verdict::Send(PortIx(0))).into(), false, true), only("tx-full", 3));
}

#[test]
fn a_packet_that_the_driver_cannot_send_is_tx_refused_and_holds_nobody_up() {
    for (lengths, sent, reasons) in [
        (&[60, 1600, 60, 60][..], 3, &[("tx-refused", 1)][..]),
        (&[1600, 60, 1600, 1601, 60], 2, &[("tx-refused", 3)]),
        // With nothing behind it, or too many of its kind, nobody can tell.
        (&[60, 60, 1600], 2, &[("tx-full", 1)]),
        (&[1600, 1600, 1600, 1600, 60], 1, &[("tx-refused", 4)]),
        (&[1600, 1600, 1600, 1600, 1600, 60], 0, &[("tx-full", 6)]),
    ] {
        let frames: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0; length]).collect();
        let outcome = lab(move |lab| {
            let mut trial = lab.trial(|_| Chain::new());
            trial.set_longest_frame(1514);
            trial.send(Direction::Outbound, &frames)
        });
        assert_eq!(outcome.outside.len(), sent, "{lengths:?}");
        let reasons = reasons.iter().map(|&(reason, count)| (reason.to_owned(), count)).collect();
        assert_eq!(outcome.dropped, reasons, "{lengths:?}");
    }
}

/// Answers every packet with one that has so many bytes.
struct Answers(usize);

impl NetworkFunction for Answers {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        for _ in batch.undecided() {
            let mut packet = cx.allocate().unwrap();
            assert!(packet.set_contents(&vec![0; self.0]));
            cx.emit(packet, cx.direction().reversed());
        }
        batch.decide_all(Verdict::Drop(DropReason::POLICY));
    }
}

#[test]
fn what_is_emitted_without_data_is_empty() {
    for (bytes, answers, empty) in [(0, 0, Some(&3)), (1, 3, None)] {
        let outcome = lab(move |lab| {
            let mut trial = lab.trial(move |_| Answers(bytes).into());
            trial.send(Direction::Outbound, &vec![vec![0; 60]; 3])
        });
        assert_eq!(outcome.dropped.get("empty"), empty, "{bytes} bytes");
        assert_eq!(outcome.inside.len(), answers, "{bytes} bytes");
    }
}

#[test]
fn what_is_sent_to_a_port_that_is_not_there_is_no_such_port() {
    for port in [4, 5, u16::MAX] {
        let outcome = lab(move |lab| {
            let mut trial = lab.trial(|_| Always(Verdict::Send(PortIx(port))).into());
            trial.send(Direction::Inbound, &[b"a".to_vec()])
        });
        assert_eq!(outcome, only("no-such-port", 1));
    }
}

#[test]
fn what_a_functions_rules_forbid_is_policy() {
    assert_eq!(three_packets(|| Always(Verdict::Drop(DropReason::POLICY)).into(), true, false), only("policy", 3));
}

#[test]
fn what_turns_a_second_time_is_turned_twice() {
    assert_eq!(three_packets(|| Always(Verdict::Turn).into(), true, false), only("turned-twice", 3));
}

/// Emits so many packets at every batch of its own direction.
struct Flood(usize);

impl NetworkFunction for Flood {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        batch.decide_all(Verdict::Drop(DropReason::POLICY));
        for _ in 0..self.0 {
            let mut packet = cx.allocate().unwrap();
            assert!(packet.set_contents(b"new"));
            cx.emit(packet, Direction::Outbound);
        }
    }
}

#[test]
fn what_is_emitted_beyond_what_may_wait_is_pending_full() {
    for (emitted, refused) in [(256, 0), (257, 1), (1000, 744)] {
        let outcome = lab(move |lab| {
            let mut trial = lab.trial(|_| Flood(emitted).into());
            let outcome = trial.send(Direction::Outbound, &[b"a".to_vec()]);
            trial.check_for_leaks();
            outcome
        });
        assert_eq!(outcome.outside.len(), 256);
        assert_eq!(outcome.dropped.get("pending-full").copied().unwrap_or(0), refused);
    }
}

#[test]
fn packets_that_wait_in_two_places_do_not_wait_for_each_other() {
    /// Takes every packet, and lets it go on one way and a new one the other way.
    struct Both;
    impl NetworkFunction for Both {
        fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
            for slot in batch.undecided() {
                if let (Some(packet), Some(mut answer)) = (batch.take(slot), cx.allocate()) {
                    assert!(answer.set_contents(b"new"));
                    cx.resume(packet, cx.position());
                    cx.emit(answer, cx.direction().reversed());
                }
            }
        }
    }
    let outcome = lab(|lab| lab.trial(|_| Both.into()).send(Direction::Outbound, &vec![b"x".to_vec(); 64]));
    assert_eq!((outcome.outside.len(), outcome.inside.len(), outcome.held), (64, 64, 0));
}
