//! Packets traced on their way through a chain: what is told of them, and that nothing else changes.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use nf_framework::testing::{Frame, Trial, lab};
use nf_framework::{
    Affinity, Batch, Chain, Context, Direction, DropReason, FragmentsConfig, Mbuf, NetworkFunction, Note,
    PacketFunction, TracedPacket, Verdict,
};
use std::fmt::Write as _;

const A: [u8; 4] = [10, 0, 0, 5];
const B: [u8; 4] = [198, 51, 100, 7];
const OUT: Direction = Direction::Outbound;

/// A function that knows nothing of traces.
struct Custom<F>(F);

impl<F: FnMut(&mut Mbuf, &mut Context<'_>) -> Verdict + 'static> PacketFunction for Custom<F> {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        (self.0)(packet, cx)
    }
}

/// Takes all packets.
struct Holder<F>(F);

impl<F: FnMut(Mbuf, &mut Context<'_>) + 'static> NetworkFunction for Holder<F> {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        for slot in batch.undecided() {
            batch.take(slot).into_iter().for_each(|packet| (self.0)(packet, cx));
        }
    }
}

fn chain(function: impl FnMut(&mut Mbuf, &mut Context<'_>) -> Verdict + 'static) -> Chain {
    Custom(function).into()
}

fn udp(port: u16) -> Frame {
    Frame::new().ipv4(A, B).udp(port, 53)
}

fn traced(trial: &mut Trial, filter: &str, frames: &[Frame]) -> String {
    trial.begin_trace(10, filter);
    trial.send(OUT, &frames.iter().map(Frame::build).collect::<Vec<_>>());
    trial.end_trace().to_string()
}

#[test]
fn a_function_of_ones_own_shows_up_with_what_it_changed_and_decided() {
    lab(|lab| {
        let mut trial = lab.trial(|_| {
            let dscp = chain(|packet, _| {
                packet.data_mut()[15] = 46 << 2;
                packet.data_mut()[22] -= 1;
                Verdict::Next
            });
            dscp.then(Custom(|_: &mut Mbuf, _: &mut Context<'_>| Verdict::Next))
        });
        assert_eq!(
            traced(&mut trial, "", &[udp(4321)]),
            "packet 1: udp 10.0.0.5:4321 > 198.51.100.7:53, 42 bytes
  arrives  by inside, worker 0
  Custom   next; TTL 64 -> 63; DSCP 0 -> 46
  Custom   next
  (egress) send by outside
  leaves   by outside
"
        );
        trial.check_for_leaks();
    });
}

#[test]
fn only_what_the_filter_means_is_traced_and_no_more_than_was_asked_for() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Chain::new());
        let frames: Vec<_> = (1..=20).map(|port| udp(port).build()).collect();
        trial.begin_trace(3, "udp src portrange 5-15");
        let outcome = trial.send(OUT, &frames);
        assert_eq!(outcome.outside, frames, "all go on, in their order");
        let traces = trial.end_trace();
        let ports = [5, 6, 7].map(|port| format!("udp 10.0.0.5:{port} > 198.51.100.7:53, 42 bytes"));
        assert_eq!(traces.packets.iter().map(|trace| trace.packet.clone()).collect::<Vec<_>>(), ports);
        assert_eq!(traced(&mut trial, "tcp", &[udp(7)]), "no packet came that was meant\n");
        // And when it is over nothing is followed any more.
        trial.send(OUT, &frames);
        trial.check_for_leaks();
    });
}

#[test]
fn a_drop_says_its_reason_and_a_turn_comes_back() {
    lab(|lab| {
        let mut trial = lab.trial(|_| {
            chain(|packet, cx| match packet.data()[35] {
                1 => Verdict::Drop(DropReason::POLICY),
                2 if !cx.turned() => Verdict::Turn,
                _ => Verdict::Next,
            })
        });
        let text = traced(&mut trial, "", &[udp(1), udp(2)]);
        assert_eq!(
            text,
            "packet 1: udp 10.0.0.5:1 > 198.51.100.7:53, 42 bytes
  arrives by inside, worker 0
  Custom  drop policy

packet 2: udp 10.0.0.5:2 > 198.51.100.7:53, 42 bytes
  arrives  by inside, worker 0
  Custom   turn
  enters   turned, from outside
  Custom   next
  (egress) send by inside
  leaves   by inside
"
        );
        trial.check_for_leaks();
    });
}

#[test]
fn what_a_function_takes_holds_makes_and_lets_go_is_followed() {
    lab(|lab| {
        let mut trial = lab.trial(|_| {
            Chain::from(Holder(|mut packet: Mbuf, cx: &mut Context<'_>| match packet.data()[35] {
                1 => cx.consume(packet),
                2 => cx.drop_held(packet, DropReason::POLICY),
                _ => {
                    let mut made = cx.allocate().unwrap();
                    assert!(made.set_contents(&udp(99).build()));
                    cx.emit(made, cx.direction().reversed());
                    packet.data_mut()[22] = 9;
                    cx.resume(packet, cx.position());
                }
            }))
        });
        let text = traced(&mut trial, "", &[udp(1), udp(2), udp(3)]);
        assert_eq!(
            text,
            "packet 1: udp 10.0.0.5:1 > 198.51.100.7:53, 42 bytes
  arrives by inside, worker 0
  Holder  taken for good

packet 2: udp 10.0.0.5:2 > 198.51.100.7:53, 42 bytes
  arrives by inside, worker 0
  Holder  drop policy

packet 3: udp 10.0.0.5:3 > 198.51.100.7:53, 42 bytes
  arrives  by inside, worker 0
  Holder   taken, and goes on; TTL 64 -> 9
  enters   from Holder
  (egress) send by outside
  leaves   by outside

packet 4: udp 10.0.0.5:99 > 198.51.100.7:53, 42 bytes, for the sake of packet 3
  made     at Holder
  enters   from Holder
  (egress) send by inside
  leaves   by inside
"
        );
        trial.check_for_leaks();
    });
}

#[test]
fn a_function_may_say_what_decided() {
    struct Wise;
    impl PacketFunction for Wise {
        fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
            Verdict::Drop(DropReason::POLICY)
        }

        fn trace_note(&mut self, packet: &mut TracedPacket<'_>, cx: &Context<'_>, note: &mut Note) {
            let _ = write!(note, "{:?} {} {:?}", cx.direction(), packet.frame.len(), packet.verdict.is_some());
        }
    }
    lab(|lab| {
        let mut trial = lab.trial(|_| Wise.into());
        assert!(traced(&mut trial, "", &[udp(7)]).ends_with("\n  Wise    drop policy; Outbound 42 true\n"));
    });
}

#[test]
fn a_packet_that_is_handed_over_is_followed_to_the_other_worker() {
    lab(|lab| {
        let mut trial = lab.trial_at_wrong_workers(2, Affinity::Flow, |_| chain(|_, _| Verdict::Next));
        let text = traced(&mut trial, "", &[udp(1000)]);
        let (from, to) = if text.contains("inside, worker 0") { (0, 1) } else { (1, 0) };
        assert_eq!(
            text,
            format!(
                "packet 1: udp 10.0.0.5:1000 > 198.51.100.7:53, 42 bytes
  arrives  by inside, worker {from}
  ends     handed over to another worker
  enters   worker {to} takes it over, from inside
  Custom   next
  (egress) send by outside
  leaves   by outside
"
            )
        );
        trial.check_for_leaks();
    });
}

#[test]
fn a_later_fragment_waits_for_the_first_and_goes_on() {
    lab(|lab| {
        let mut trial = lab.trial(|_| chain(|_, _| Verdict::Next)).with_fragments(FragmentsConfig::default());
        let mut frames = udp(1000).payload(&[7; 64]).identification(9).build_fragments(40);
        frames.reverse();
        assert_eq!(frames.len(), 2);
        trial.begin_trace(10, "");
        trial.send(OUT, &frames);
        assert_eq!(
            trial.end_trace().to_string(),
            "packet 1: udp 10.0.0.5 > 198.51.100.7, fragment at 40, 66 bytes
  arrives  by inside, worker 0
  waits    for the first fragment of its packet
  enters   from inside
  Custom   next
  (egress) send by outside
  leaves   by outside

packet 2: udp 10.0.0.5:1000 > 198.51.100.7:53, fragment at 0, 74 bytes
  arrives  by inside, worker 0
  Custom   next
  (egress) send by outside
  leaves   by outside
"
        );
        trial.check_for_leaks();
    });
}

#[test]
fn a_flood_while_tracing_loses_nothing_that_it_would_not_lose_without() {
    lab(|lab| {
        let mut trial = lab.trial(|_| chain(|_, _| Verdict::Next));
        let frames: Vec<_> = (0..64).map(|port| udp(port).build()).collect();
        trial.begin_trace(1000, "");
        let mut sent = 0;
        for _ in 0..100 {
            let outcome = trial.send(OUT, &frames);
            assert_eq!(outcome.outside, frames);
            sent += outcome.outside.len();
        }
        assert_eq!((sent, trial.report().drops), (6400, vec![]));
        let traces = trial.end_trace();
        assert_eq!((traces.packets.len(), traces.lost), (1000, 0));
        assert!(traces.packets.iter().all(|trace| trace.steps.last().is_some_and(|step| step.place == "leaves")));
        trial.check_for_leaks();
    });
}
