//! A property: whatever functions do with packets, the balance closes after every step and
//! no packet is lost.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::Random;
use nf_framework::testing::lab;
use nf_framework::{
    Batch, Budget, Chain, Context, Direction, DropReason, Mbuf, NetworkFunction, PortIx, Position, Verdict,
};
use std::time::Duration;

/// Does at random all that a function may do.
struct Anything {
    random: Random,
    held: Vec<(Mbuf, Position)>,
}

impl Anything {
    /// Holds at most this many.
    const ROOM: usize = 40;

    fn direction(&mut self) -> Direction {
        [Direction::Outbound, Direction::Inbound][self.random.below(2)]
    }

    fn get_rid_of(&mut self, packet: Mbuf, position: Position, cx: &mut Context<'_>) {
        match self.random.below(5) {
            0 => cx.consume(packet),
            1 => cx.drop_held(packet, DropReason::POLICY),
            2 => cx.resume(packet, position),
            3 => cx.emit(packet, self.direction()),
            _ if self.held.len() < Self::ROOM => self.held.push((packet, position)),
            _ => cx.consume(packet),
        }
    }

    fn make(&mut self, most: usize, cx: &mut Context<'_>) {
        for _ in 0..self.random.below(most) {
            if let Some(packet) = cx.allocate() {
                self.get_rid_of(packet, cx.position(), cx);
            }
        }
    }
}

impl NetworkFunction for Anything {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        for slot in batch.undecided() {
            match self.random.below(12) {
                0 => batch.decide(slot, Verdict::Drop(DropReason::POLICY)),
                1 => batch.decide(slot, Verdict::Turn),
                2 => batch.decide(slot, Verdict::Send(cx.exit())),
                3 => batch.decide(slot, Verdict::Send(PortIx(u16::MAX))),
                4 | 5 => {
                    if let Some(packet) = batch.take(slot) {
                        self.get_rid_of(packet, cx.position(), cx);
                    }
                }
                // Twice, and out of range: without effect.
                6 => {
                    batch.decide(slot, Verdict::Send(cx.exit()));
                    batch.decide(slot, Verdict::Drop(DropReason::POLICY));
                    assert!(batch.take(slot).is_none() && batch.take(slot + 64).is_none());
                }
                _ => {}
            }
        }
        self.make(4, cx);
        if self.random.below(40) == 0 {
            batch.decide_all(Verdict::Turn);
        }
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        for _ in 0..self.random.below(usize::try_from(budget.0).unwrap()) {
            let Some((packet, position)) = self.held.pop() else { break };
            self.get_rid_of(packet, position, cx);
        }
        self.make(20, cx);
    }

    fn held(&self) -> usize {
        self.held.len()
    }
}

#[test]
fn the_balance_closes_after_every_step_of_any_functions() {
    let given = std::env::var("NF_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = given.map_or(0..60, |seed: u64| seed..seed + 1);
    for seed in seeds {
        println!("NF_TEST_SEED={seed}");
        lab(move |lab| steps(lab, seed));
    }
}

fn steps(lab: &nf_framework::testing::Lab<'_>, seed: u64) {
    let mut random = Random(seed);
    let functions = random.below(5);
    let mut trial = lab.trial(|_| {
        let mut chain = Chain::new();
        for index in 0..functions {
            let random = Random(seed + 1000 * (index as u64 + 1));
            chain.push(format!("{index}"), Box::new(Anything { random, held: Vec::new() }));
        }
        chain
    });
    if random.below(4) == 0 {
        trial = trial.without_forwarding();
    }
    for step in 0..60 {
        let outcome = match random.below(10) {
            0..6 => {
                let direction = [Direction::Outbound, Direction::Inbound][random.below(2)];
                trial.send(direction, &vec![vec![0; 60]; random.below(65)])
            }
            6..8 => trial.advance(Duration::from_millis(1)),
            8 => {
                trial.set_ports_full(random.below(4) == 0);
                continue;
            }
            _ if functions == 0 => continue,
            _ => {
                let index = random.below(functions);
                trial.command(index, |function: &mut Anything, cx| function.make(30, cx));
                trial.advance(Duration::ZERO)
            }
        };
        // That the balance closes is checked by every outcome.
        trial.check_for_leaks();
        let held = trial.report().balance.held;
        assert!(held <= (functions * Anything::ROOM + 256) as u64, "step {step}: {outcome:?}");
    }
}
