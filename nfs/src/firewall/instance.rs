//! A batch: what is established passes, the rest is looked at closely, and the rules are asked about what begins
//! something, all at once.

use super::config::{Checksums, State};
use super::fate::Fate;
use super::packet::{Kind, Seen};
use super::policy::{Decision, Policy};
use super::usual::{MOST, UsualPackets};
use super::views::Asked;
use super::worker_state::WorkerState;
use nf_framework::{Batch, Budget, Context, Direction, NetworkFunction, Note, TracedPacket, Verdict};
use std::sync::Arc;

/// What handles the packets of one worker.
#[derive(Debug)]
pub struct Instance {
    pub(super) state: WorkerState,
    scratch: Box<Scratch>,
}

/// The packets of a batch.
#[derive(Debug)]
struct Scratch {
    usual: UsualPackets,
    /// Those that rules are asked about: slot, and whether it only waits for what those before it begin.
    asked: Vec<(usize, Seen, bool)>,
    questions: Vec<Asked>,
    decisions: Vec<Decision>,
}

impl Default for Scratch {
    fn default() -> Self {
        Self {
            usual: UsualPackets::default(),
            asked: Vec::with_capacity(MOST),
            questions: Vec::with_capacity(MOST),
            decisions: Vec::with_capacity(MOST),
        }
    }
}

impl NetworkFunction for Instance {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let Self { state, scratch } = self;
        state.tracking.reckon(&state.policy, cx.now());
        let verify = state.policy.config.checksums == Checksums::All;
        if let Some(passed) = scratch.usual.pass(batch, cx.direction(), &mut state.tracking, verify) {
            scratch.judge(state, batch, passed, cx);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.state.tick(cx, budget);
    }

    fn sessions(&self) -> u64 {
        let (v4, v6) = self.state.tracking.lengths();
        (v4 + v6) as u64
    }

    fn trace_note(&mut self, packet: &mut TracedPacket<'_>, cx: &Context<'_>, note: &mut Note) {
        self.note(packet, cx.direction(), note);
    }
}

impl Instance {
    pub(super) fn new(state: WorkerState) -> Self {
        Self { state, scratch: Box::default() }
    }

    pub(super) fn adopt(&mut self, policy: Arc<Policy>) {
        self.state.adopt(policy);
    }
}

impl Scratch {
    /// What is behind the first packets of a batch, which have passed: in the order in which the packets came, so that
    /// those of one connection stay in theirs.
    fn judge(&mut self, state: &mut WorkerState, batch: &mut Batch, passed: usize, cx: &mut Context<'_>) {
        let Self { usual, asked, questions, decisions } = self;
        asked.clear();
        questions.clear();
        for slot in batch.undecided().skip(passed) {
            let Some(packet) = batch.packet_mut(slot) else { continue };
            if usual.passes(slot, packet, &mut state.tracking) {
                continue;
            }
            match state.closer(packet, !asked.is_empty(), cx) {
                Fate::Pass => {}
                Fate::Drop(reason) => batch.decide(slot, Verdict::Drop(reason)),
                Fate::Wait(_, reason) if asked.is_empty() => batch.decide(slot, Verdict::Drop(reason)),
                Fate::Wait(seen, _) => {
                    let state = if matches!(seen.kind, Kind::Error(_)) { State::Related } else { State::New };
                    asked.push((slot, seen, true));
                    questions.push(question(&seen, state, cx.direction()));
                }
                Fate::Ask(seen, state) => {
                    asked.push((slot, seen, false));
                    questions.push(question(&seen, state, cx.direction()));
                }
            }
        }
        if asked.is_empty() {
            return;
        }
        decisions.clear();
        decisions.extend(questions.iter().map(|_| Decision::default()));
        state.policy.decide(questions, decisions);
        for ((slot, seen, waits), (question, decision)) in asked.iter().zip(questions.iter().zip(decisions.iter())) {
            let Some(packet) = batch.packet_mut(*slot) else { continue };
            let fate = match seen.kind {
                // Another packet of this batch may have begun it.
                Kind::Flow(flow, says) => state.of_flow(packet, seen, (&flow, says), false, cx),
                Kind::Error(quoted) if *waits => state.error(seen, &quoted, false, cx),
                _ => Fate::Ask(*seen, question.state),
            };
            let reason = match fate {
                Fate::Pass => None,
                Fate::Drop(reason) | Fate::Wait(_, reason) => Some(reason),
                Fate::Ask(..) => state.answered(packet, seen, question.state, *decision, cx),
            };
            if let Some(reason) = reason {
                batch.decide(*slot, Verdict::Drop(reason));
            }
        }
    }
}

/// What the rules are asked about a packet.
pub(super) fn question(seen: &Seen, state: State, direction: Direction) -> Asked {
    Asked { key: seen.key, state, direction, dscp: seen.dscp, vlan: seen.vlan, fragment: seen.fragment }
}
