//! The testing module itself: what it finds, and what it says then.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::{Always, Mark, free_hugepages, panic_of};
use nf_framework::testing::{Case, Frame, Trial, lab, trial};
use nf_framework::{
    Affinity, Batch, Budget, Chain, Context, Counter, Direction, DropReason, Function, Instant, Invalid, Mbuf,
    NetworkFunction, PacketFunction, PortIx, SetupError, Then, Verdict, WorkerSetup,
};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn a_case_that_fails_says_what_was_expected_and_what_was_found() {
    for (chain, case, expected) in [
        (
            (|| Mark(0x31).into()) as fn() -> Chain,
            Case::new("the packet is as it was").outbound(vec![0xab]).leaves_unchanged(),
            "\"the packet is as it was\" does not hold\n\
             expected:\n  leaves outside: ab\n  dropped {}, consumed 0, held +0\n\
             found:\n  leaves outside: ab31\n  dropped {}, consumed 0, held +0\n",
        ),
        (
            || Always(Verdict::Drop(DropReason::POLICY)).into(),
            Case::new("the packet is sent back").inbound(vec![1]).leaves_outside(vec![1]),
            "\"the packet is sent back\" does not hold\n\
             expected:\n  leaves outside: 01\n  dropped {}, consumed 0, held +0\n\
             found:\n  dropped {\"policy\": 1}, consumed 0, held +0\n",
        ),
        (
            || Keep::default().into(),
            Case::new("all is consumed").outbound(vec![1]).outbound(vec![2]).consumed().consumed(),
            "\"all is consumed\" does not hold\n\
             expected:\n  dropped {}, consumed 2, held +0\n\
             found:\n  dropped {}, consumed 0, held +2\n",
        ),
        (
            || Always(Verdict::Next).into(),
            Case::new("two are dropped, for two reasons").inbound(vec![1]).dropped("b").dropped("a").dropped("b"),
            "\"two are dropped, for two reasons\" does not hold\n\
             expected:\n  dropped {\"a\": 1, \"b\": 2}, consumed 0, held +0\n\
             found:\n  leaves inside: 01\n  dropped {}, consumed 0, held +0\n",
        ),
    ] {
        assert_eq!(panic_of(|| trial(move |_| chain(), [case])), expected);
    }
}

#[test]
fn a_case_that_fails_does_not_spoil_the_next_test() {
    for _ in 0..3 {
        let doomed = || trial(|_| Keep::default().into(), [Case::new("kept").outbound(vec![1]).leaves_unchanged()]);
        assert!(panic_of(doomed).starts_with("\"kept\" does not hold"));
        trial(|_| Mark(1).into(), [Case::new("marked").outbound(vec![0]).leaves_outside(vec![0, 1])]);
    }
}

/// Shows what there is by a counter.
struct Falling(Counter);

impl NetworkFunction for Falling {
    fn batch(&mut self, batch: &mut Batch, _: &mut Context<'_>) {
        let now = batch.undecided().count() as u64;
        self.0.add(now.wrapping_sub(self.0.value()));
    }
}

#[test]
fn a_counter_of_a_functions_own_does_not_go_down() {
    let few_after_many = || {
        lab(|lab| {
            let mut trial = lab.trial(|worker| Falling(worker.counter("sessions")).into());
            trial.send(Direction::Outbound, &[vec![1], vec![2], vec![3]]);
            trial.send(Direction::Outbound, &[vec![1]]);
        });
    };
    assert!(panic_of(few_after_many).starts_with("the counter test.sessions goes down, from 3 to 1"));
}

/// Holds all packets, and says so or not.
#[derive(Default)]
struct Keep {
    kept: Vec<Mbuf>,
    secretly: bool,
}

impl NetworkFunction for Keep {
    fn batch(&mut self, batch: &mut Batch, _: &mut Context<'_>) {
        self.kept.extend(batch.undecided().filter_map(|slot| batch.take(slot)));
    }

    fn held(&self) -> usize {
        if self.secretly { 0 } else { self.kept.len() }
    }
}

/// Takes packets out and frees them, and tells nobody.
struct Lose;

impl NetworkFunction for Lose {
    fn batch(&mut self, batch: &mut Batch, _: &mut Context<'_>) {
        for slot in batch.undecided() {
            drop(batch.take(slot));
        }
    }
}

/// Makes a packet behind the framework's back, and keeps or forgets it.
struct Hoard {
    pool: nf_framework::Mempool,
    hoard: Vec<Mbuf>,
    forget: bool,
}

impl NetworkFunction for Hoard {
    fn batch(&mut self, _: &mut Batch, _: &mut Context<'_>) {
        let packet = self.pool.alloc().unwrap();
        if self.forget { std::mem::forget(packet) } else { self.hoard.push(packet) }
    }
}

#[test]
fn a_packet_that_is_lost_is_found() {
    let case = || [Case::new("one packet").outbound(vec![1]).leaves_unchanged()];
    let lost = panic_of(|| trial(|_| Lose.into(), case()));
    assert!(lost.contains("the packet balance does not close") && lost.contains("+ 1 unaccounted for"), "{lost}");
    let secret = || trial(|_| Keep { secretly: true, ..Keep::default() }.into(), case());
    assert!(panic_of(secret).contains("the packet balance does not close"));
    let hoard = |forget| {
        let make = move |worker: &mut nf_framework::WorkerSetup| {
            Hoard { pool: worker.pool().clone(), hoard: Vec::new(), forget }.into()
        };
        panic_of(|| trial(make, case()))
    };
    assert!(hoard(false).contains("packets out of the pool, and packets that functions hold"));
    assert!(hoard(true).contains("packets out of the pool, and packets that functions hold"));
    let leaked = panic_of(|| lab(|lab| std::mem::forget(lab.pool.alloc())));
    assert_eq!(leaked.lines().next(), Some("assertion `left == right` failed: the test leaked 1 packet(s)"));
    // Two packets are gone for good; that is no other test's business.
    trial(|_| Mark(1).into(), [Case::new("marked").outbound(vec![0]).leaves_outside(vec![0, 1])]);
}

/// Notes the time of each batch and tick.
#[derive(Default)]
struct Times(Vec<(char, u64)>);

impl NetworkFunction for Times {
    fn batch(&mut self, _: &mut Batch, cx: &mut Context<'_>) {
        self.0.push(('b', cx.now().as_nanoseconds()));
    }

    fn tick(&mut self, cx: &mut Context<'_>, _: Budget) {
        self.0.push(('t', cx.now().as_nanoseconds()));
    }
}

#[test]
fn time_moves_only_when_it_is_told_to() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Times::default().into());
        let day = Duration::from_secs(86_400);
        assert_eq!(trial.now(), Instant::START);
        let _ = trial.send(Direction::Outbound, &[vec![1]]);
        let _ = trial.send(Direction::Outbound, &[vec![1]]);
        let _ = trial.advance(day);
        let _ = trial.send(Direction::Inbound, &[vec![1]]);
        let _ = trial.advance(Duration::ZERO);
        assert_eq!(trial.now().since(Instant::START), day);
        let day = u64::try_from(day.as_nanos()).unwrap();
        let mut times = trial.command(0, |times: &mut Times, _| times.0.clone());
        let ticks = times.iter().filter(|(what, _)| *what == 't').count();
        assert_eq!(ticks, 256 + 1, "a day has more ticks than a test has patience for");
        times.dedup();
        assert_eq!(times, [('b', 0), ('t', day), ('b', day), ('t', day)]);
    });
}

#[test]
fn a_mistake_in_a_test_is_said() {
    let send = |frames: Vec<Vec<u8>>| {
        panic_of(move || lab(move |lab| drop(lab.trial(|_| Chain::new()).send(Direction::Outbound, &frames))))
    };
    assert_eq!(send(vec![vec![1]; 65]), "more than 64 frames at once");
    assert_eq!(send(vec![vec![1; 4000]]), "a frame of 4000 bytes does not fit into a packet");
    let command = || lab(|lab| lab.trial(|_| Mark(1).into()).command(1, |_: &mut Mark, _| ()));
    assert_eq!(panic_of(command), "there is a function of this type at this place");
}

#[test]
fn a_chain_knows_its_functions() {
    let mut chain = Mark(1).then(Always(Verdict::Send(PortIx(1)))).then(Keep::default());
    assert_eq!(chain.names().collect::<Vec<_>>(), ["Mark", "Always", "Keep"]);
    assert_eq!((chain.len(), chain.is_empty()), (3, false));
    assert!(chain.function_mut::<Mark>(0).is_some_and(|mark| mark.0 == 1));
    assert!(chain.function_mut::<Mark>(1).is_none() && chain.function_mut::<Mark>(3).is_none());
    assert_eq!(format!("{chain:?}"), "[\"Mark\", \"Always\", \"Keep\"]");
}

/// Runs this test program again with other EAL arguments, on the test of [`Times`].
fn again_with(arguments: &str) -> std::process::Output {
    let test = std::env::current_exe().unwrap();
    let mut command = Command::new(test);
    command.args(["--exact", "time_moves_only_when_it_is_told_to"]).env("NF_TEST_EAL", arguments);
    command.output().unwrap()
}

#[test]
fn the_lab_takes_its_arguments_from_the_environment() {
    let good = again_with("--no-huge --no-shconf --no-telemetry --no-pci -m 64 --vdev=net_null0");
    assert!(good.status.success(), "{good:?}");
    assert!(String::from_utf8_lossy(&good.stdout).contains("1 passed"), "{good:?}");
    if free_hugepages() {
        let huge = again_with("--in-memory --no-pci --no-telemetry --iova-mode=va");
        assert!(huge.status.success(), "{huge:?}");
    }
    let bad = again_with("--no-huge --no-shconf --no-telemetry --no-pci --vdev=net_foo0");
    assert!(!bad.status.success(), "{bad:?}");
    let said = [bad.stdout, bad.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(said.contains("net_foo0") && said.contains("DPDK did not start for the tests"), "{said}");
}

/// Every packet begins a session; none while the program is being drained.
struct Sessions(u64);

impl PacketFunction for Sessions {
    fn packet(&mut self, _: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        if cx.draining() {
            return Verdict::Drop(DropReason::DRAINING);
        }
        self.0 += 1;
        Verdict::Next
    }

    fn sessions(&self) -> u64 {
        self.0
    }
}

#[test]
fn a_trial_can_be_drained() {
    lab(|lab| {
        let mut trial = lab.trial(|_| Sessions(0).into());
        let frames = vec![vec![0x5a; 60]; 3];
        for (draining, left, dropped, sessions) in [(false, 3, None, 3), (true, 0, Some(&3), 3), (false, 3, None, 6)] {
            trial.set_draining(draining);
            let outcome = trial.send(Direction::Outbound, &frames);
            assert_eq!((outcome.outside.len(), outcome.dropped.get("draining")), (left, dropped));
            assert_eq!(trial.report().functions[0].sessions, sessions);
        }
    });
}

/// Passes packets and writes the last octet that its policy says.
struct Stamp(Arc<u8>);
struct StampControl;

impl PacketFunction for Stamp {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        let generation = u8::try_from(cx.generation()).unwrap();
        packet.append(2).unwrap().copy_from_slice(&[*self.0, generation]);
        Verdict::Next
    }
}

impl Function for StampControl {
    type Config = ();
    type Policy = u8;
    type Instance = Stamp;

    fn name(&self) -> &str {
        "stamp"
    }

    fn policy(&self, (): ()) -> Result<u8, Invalid> {
        Ok(0)
    }

    fn instance(&self, policy: Arc<u8>, _: &mut WorkerSetup) -> Result<Stamp, SetupError> {
        Ok(Stamp(policy))
    }

    fn adopt(stamp: &mut Stamp, policy: Arc<u8>) {
        stamp.0 = policy;
    }
}

#[test]
fn a_trial_hands_a_new_policy_to_every_worker_one_generation_later() {
    lab(|lab| {
        let make = |_: &mut WorkerSetup| Chain::from(Stamp(Arc::new(b'a')));
        let mut trial = lab.trial_at_wrong_workers(3, Affinity::Flow, make);
        let flow = |port| Frame::new().ipv4([10, 0, 0, 1], [192, 0, 2, 1]).udp(port, 53).build();
        let frames: Vec<Vec<u8>> = (1000..1030).map(flow).collect();
        let stamps = |trial: &mut Trial| {
            let mut stamps: Vec<[u8; 2]> = trial
                .send(Direction::Outbound, &frames)
                .outside
                .iter()
                .map(|frame| *frame.last_chunk().unwrap())
                .collect();
            stamps.dedup();
            stamps
        };
        let before = stamps(&mut trial)[0];
        assert_eq!(stamps(&mut trial), [before], "the same everywhere");
        trial.publish(0, &StampControl, b'b');
        assert_eq!(stamps(&mut trial), [[b'b', before[1] + 1]]);
    });
}
