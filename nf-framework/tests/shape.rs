//! A function that does all that the traits allow, and the places that its packets go to.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::Mark;
use nf_framework::testing::{Case, lab, trial};
use nf_framework::{
    Batch, Budget, Chain, Context, Counter, Direction, DropReason, Function, Instant, Invalid, Mbuf, NetworkFunction,
    Position, SetupError, Then, Verdict, WorkerSetup,
};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// Treats a packet as its first letter says:
///
/// - `h`: hold it for a while, then let it go on
/// - `a`: keep it and answer `r` to the sender
/// - `c`: let it pass, and send a copy `k` onward ahead of it
/// - `t`, `T`: turn it, the small one only once
/// - `s`: send it out at once
/// - `d`: drop it
struct Toy {
    policy: Arc<Policy>,
    held: VecDeque<(Instant, Position, Mbuf)>,
    full: DropReason,
    answers: Counter,
}

/// How long a packet is held, and how many at once.
struct Policy {
    time: Duration,
    most: usize,
}

#[derive(serde::Deserialize)]
struct Config {
    milliseconds: u64,
    most: usize,
}

/// Its control object.
struct ToyControl;

impl Function for ToyControl {
    type Config = Config;
    type Policy = Policy;
    type Instance = Toy;

    fn name(&self) -> &str {
        "toy"
    }

    fn policy(&self, config: Config) -> Result<Policy, Invalid> {
        if config.most == 0 {
            return Err(Invalid::new("most", "must be above 0"));
        }
        Ok(Policy { time: Duration::from_millis(config.milliseconds), most: config.most })
    }

    fn instance(&self, policy: Arc<Policy>, worker: &mut WorkerSetup) -> Result<Toy, SetupError> {
        let held = VecDeque::with_capacity(policy.most);
        let full = worker.drop_reason("toy-full", "more packets than it may hold")?;
        Ok(Toy { policy, held, full, answers: worker.counter("answers") })
    }

    fn adopt(toy: &mut Toy, policy: Arc<Policy>) {
        toy.policy = policy;
    }
}

impl Toy {
    fn hold(&mut self, packet: Mbuf, cx: &mut Context<'_>) {
        if self.held.len() < self.policy.most {
            self.held.push_back((cx.now() + self.policy.time, cx.position(), packet));
        } else {
            cx.drop_held(packet, self.full);
        }
    }

    fn answer(&mut self, packet: Mbuf, cx: &mut Context<'_>) {
        cx.consume(packet);
        if let Some(answer) = letter(cx, b'r') {
            cx.emit(answer, cx.direction().reversed());
            self.answers.add(1);
        }
    }

    /// A command: drops what is held, and says how many that were.
    fn clear(&mut self, cx: &mut Context<'_>) -> usize {
        let count = self.held.len();
        self.held.drain(..).for_each(|(_, _, packet)| cx.drop_held(packet, DropReason::POLICY));
        count
    }
}

fn letter(cx: &mut Context<'_>, letter: u8) -> Option<Mbuf> {
    let mut packet = cx.allocate()?;
    packet.set_contents(&[letter]).then_some(packet)
}

impl NetworkFunction for Toy {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        for slot in batch.undecided() {
            let first = batch.packet_mut(slot).and_then(|packet| packet.data_mut().first_mut());
            match first {
                Some(b'h') => batch.take(slot).into_iter().for_each(|packet| self.hold(packet, cx)),
                Some(b'a') => batch.take(slot).into_iter().for_each(|packet| self.answer(packet, cx)),
                Some(b'c') => {
                    if let Some(copy) = letter(cx, b'k') {
                        cx.emit(copy, cx.direction());
                    }
                }
                Some(turn @ b't') => {
                    *turn = b'u';
                    batch.decide(slot, Verdict::Turn);
                }
                Some(b'T') => batch.decide(slot, Verdict::Turn),
                Some(b's') => batch.decide(slot, Verdict::Send(cx.exit())),
                Some(b'd') => batch.decide(slot, Verdict::Drop(DropReason::POLICY)),
                _ => {}
            }
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        for _ in 0..budget.0 {
            match self.held.front() {
                Some((due, _, _)) if *due <= cx.now() => {}
                _ => return,
            }
            if let Some((_, position, packet)) = self.held.pop_front() {
                cx.resume(packet, position);
            }
        }
    }

    fn held(&self) -> usize {
        self.held.len()
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn toy(worker: &mut WorkerSetup, most: usize) -> Toy {
    let policy = ToyControl.policy(Config { milliseconds: 1000, most }).unwrap();
    ToyControl.instance(Arc::new(policy), worker).unwrap()
}

/// `1` is inside of the toy, `2` outside of it.
fn between_marks(worker: &mut WorkerSetup) -> Chain {
    Mark(b'1').then(toy(worker, 4)).then(Mark(b'2'))
}

fn out(name: &str, frame: &str) -> Case {
    Case::new(name).outbound(frame.into())
}

fn in_(name: &str, frame: &str) -> Case {
    Case::new(name).inbound(frame.into())
}

#[test]
fn a_packet_meets_the_functions_in_the_order_of_its_direction() {
    trial(
        |_| Mark(b'1').then(Mark(b'2')).then(Mark(b'3')),
        [
            out("first to last from inside", "x").leaves_outside("x123".into()),
            in_("last to first from outside", "x").leaves_inside("x321".into()),
        ],
    );
    trial(
        |_| Mark(b'1').into(),
        [
            out("one function, from inside", "x").leaves_outside("x1".into()),
            in_("one function, from outside", "x").leaves_inside("x1".into()),
        ],
    );
    trial(
        |_| Chain::new(),
        [
            out("no function, from inside", "x").leaves_unchanged(),
            in_("no function, from outside", "x").leaves_unchanged(),
        ],
    );
}

#[test]
fn each_packet_meets_the_functions_between_its_place_and_its_exit_and_no_other() {
    trial(
        between_marks,
        [
            out("what it lets pass meets all", "x").leaves_outside("x12".into()),
            in_("also inwards", "x").leaves_inside("x21".into()),
            out("an answer goes back through those it came through", "a").consumed().leaves_inside("r1".into()),
            in_("also outwards", "a").consumed().leaves_outside("r2".into()),
            out("a copy goes onward through the rest", "c").leaves_outside("c12".into()).leaves_outside("k2".into()),
            in_("also inwards", "c").leaves_inside("c21".into()).leaves_inside("k1".into()),
            out("what is sent meets no other", "s").leaves_outside("s1".into()),
            in_("also inwards", "s").leaves_inside("s2".into()),
            out("what is dropped meets no other", "d").dropped("policy"),
            out("held", "hx").held(1),
            out("nothing comes of waiting too short", "x").after(SECOND / 2).leaves_outside("x12".into()),
            out("resumed after its time, it meets the rest", "x")
                .after(SECOND / 2)
                .held(-1)
                .leaves_outside("hx12".into())
                .leaves_outside("x12".into()),
            in_("held on the way in", "hy").held(1),
            in_("resumed, it goes on inwards", "x")
                .after(SECOND)
                .held(-1)
                .leaves_inside("hy21".into())
                .leaves_inside("x21".into()),
        ],
    );
}

#[test]
fn a_hairpin_sees_both_passes_and_turns_once() {
    trial(
        between_marks,
        [
            out("back in from the outside end, through all", "t").leaves_inside("u121".into()),
            in_("back in from the inside end, through all", "t").leaves_outside("u212".into()),
            out("the second turn is the last", "T").dropped("turned-twice"),
            in_("also inwards", "T").dropped("turned-twice"),
        ],
    );
    // The answer to a packet that has turned goes the other way from there.
    trial(
        |worker| {
            let turn = |packet: &[u8]| packet == b"a1";
            Mark(b'1').then(TurnIf(turn)).then(toy(worker, 4)).then(Mark(b'2'))
        },
        [out("turned, then answered outwards", "a").consumed().leaves_outside("r2".into())],
    );
}

/// Turns the packets that a closure picks.
struct TurnIf(fn(&[u8]) -> bool);

impl nf_framework::PacketFunction for TurnIf {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        if (self.0)(packet.data()) { Verdict::Turn } else { Verdict::Next }
    }
}

#[test]
fn answers_of_several_functions_pass_each_other() {
    trial(
        |worker| {
            let (a, b) = (toy(worker, 4), toy(worker, 4));
            a.then(Mark(b'1')).then(b)
        },
        [
            out("the first one answers", "a").consumed().leaves_inside("r".into()),
            in_("the last one answers", "a").consumed().leaves_outside("r".into()),
            out("both hold it, one after the other", "h").held(1),
            in_("the first lets it go, the other holds it", "x").after(SECOND).leaves_inside("x1".into()),
            in_("then it is through", "x")
                .after(SECOND)
                .held(-1)
                .leaves_outside("h1".into())
                .leaves_inside("x1".into()),
            // Each makes a copy, and the other does not copy the copy.
            out("both copy it", "c").leaves_outside("c1".into()).leaves_outside("k1".into()).leaves_outside("k".into()),
        ],
    );
}

#[test]
fn what_is_held_is_bounded_and_the_rest_dropped_under_its_own_reason() {
    let many = (0..6).fold(Case::new("six at once, four fit"), |case, _| case.outbound("h".into()));
    trial(
        between_marks,
        [
            many.held(4).dropped("toy-full").dropped("toy-full"),
            (0..4)
                .fold(out("all go on", "x").after(SECOND).held(-4), |case, _| case.leaves_outside("h12".into()))
                .leaves_outside("x12".into()),
        ],
    );
}

#[test]
fn a_tick_does_no_more_than_its_budget() {
    lab(|lab| {
        let mut trial = lab.trial(|worker| toy(worker, 200).into());
        for _ in 0..4 {
            assert_eq!(trial.send(Direction::Outbound, &vec![b"h".to_vec(); 50]).held, 50);
        }
        // What is held is due after a second, and one tick is left of it.
        let last = Duration::from_micros(100);
        assert_eq!(trial.advance(SECOND - last).held, 0);
        let first = trial.advance(last);
        assert_eq!((first.outside.len(), first.held), (128, -128), "the budget is 128");
        let second = trial.advance(Duration::ZERO);
        assert_eq!((second.outside.len(), second.held), (72, -72));
        trial.check_for_leaks();
    });
}

#[test]
fn a_policy_is_adopted_between_two_bursts() {
    lab(|lab| {
        let mut trial = lab.trial(between_marks);
        assert_eq!(trial.send(Direction::Outbound, &[b"h".to_vec()]).held, 1);
        let policy = Arc::new(Policy { time: 5 * SECOND, most: 2 });
        trial.command(1, |toy: &mut Toy, _| ToyControl::adopt(toy, policy));
        let outcome = trial.send(Direction::Outbound, &[b"h".to_vec(), b"h".to_vec()]);
        assert_eq!((outcome.held, outcome.dropped["toy-full"]), (1, 1), "two at once now");
        assert_eq!(trial.advance(SECOND).outside, [b"h12"], "the first was taken under the old policy");
        assert_eq!(trial.advance(3 * SECOND).outside, [[0; 0]; 0]);
        assert_eq!(trial.advance(SECOND).outside, [b"h12"]);
    });
}

#[test]
fn a_command_is_answered_and_may_emit_from_its_functions_place() {
    lab(|lab| {
        let mut trial = lab.trial(between_marks);
        let _ = trial.send(Direction::Inbound, &[b"h".to_vec(), b"h".to_vec()]);
        assert_eq!(trial.command(1, |toy: &mut Toy, cx| toy.clear(cx)), 2);
        trial.command(1, |_: &mut Toy, cx| {
            for direction in [Direction::Outbound, Direction::Inbound] {
                let packet = letter(cx, b'n').unwrap();
                cx.emit(packet, direction);
            }
        });
        let outcome = trial.advance(Duration::ZERO);
        assert_eq!((outcome.held, outcome.dropped["policy"]), (-2, 2));
        assert_eq!((outcome.outside, outcome.inside), (vec![b"n2".to_vec()], vec![b"n1".to_vec()]));
        trial.check_for_leaks();
    });
}

#[test]
fn counters_say_what_each_function_did() {
    lab(|lab| {
        let mut trial = lab.trial(between_marks);
        let frames: Vec<Vec<u8>> = ["a", "a", "c", "h", "d", "s", "T", "x"].map(|text| text.as_bytes().to_vec()).into();
        let _ = trial.send(Direction::Outbound, &frames);
        let report = trial.report();
        let rows: Vec<(&str, [u64; 6])> = report
            .functions
            .iter()
            .map(|f| (f.name.as_str(), [f.seen, f.passed(), f.sent, f.dropped, f.taken, f.held]))
            .collect();
        assert_eq!(
            rows,
            [
                // Eight came in, the two answers pass on the way out.
                ("Mark", [10, 10, 0, 0, 0, 0]),
                // The hairpin comes a second time.
                ("Toy", [9, 2, 3, 1, 3, 1]),
                // The copied one and its copy, the one that passes, and the hairpin.
                ("Mark", [4, 4, 0, 0, 0, 0]),
            ]
        );
        assert_eq!(report.counter("test", "answers"), Some(2));
        assert_eq!(report.counter("test", "questions"), None);
        let balance = report.balance;
        assert_eq!((balance.received, balance.originated, balance.consumed, balance.held), (8, 3, 2, 1));
        assert_eq!((balance.sent, balance.dropped, balance.unaccounted()), (6, 2, 0));
    });
}

#[test]
fn a_control_object_refuses_what_makes_no_sense() {
    let refused = ToyControl.policy(Config { milliseconds: 1, most: 0 }).err();
    assert_eq!(refused, Some(Invalid::new("most", "must be above 0")));
}
