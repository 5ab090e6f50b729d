//! A burst against a model: a vector of slots, some of them empty.

mod common;

use common::{Random, number, numbered};
use dpdk_rs::{Burst, Ring};
use std::collections::VecDeque;

const SEED: u64 = 0x00d9_d4b0_0175;
const STEPS: usize = 20_000;

#[test]
fn a_burst_does_what_a_vector_of_slots_does() {
    let eal = common::eal(&[]);
    let pools = [common::pool(&eal, "even"), common::pool(&eal, "odd")];
    eprintln!("seed {SEED:#x}");
    let mut random = Random(SEED);

    for limit in [1, 32, 64] {
        let mut burst = Burst::with_limit(limit);
        let mut model: Vec<Option<u32>> = Vec::new();
        // As a transmit queue that is often too full.
        let (mut producer, mut consumer) = Ring::pair(&eal, "model", 40).unwrap();
        let mut queued = VecDeque::new();
        let mut next = 0;
        for step in 0..STEPS {
            let what = random.below(12);
            match what {
                0..5 => {
                    next += 1;
                    let full = model.len() == Burst::CAPACITY;
                    assert_eq!(burst.is_full(), full);
                    match burst.push(numbered(&pools[next as usize % 2], next)) {
                        Ok(()) => model.push(Some(next)),
                        Err(packet) => assert!(full && number(&packet) == next),
                    }
                }
                5..7 => {
                    let index = random.below(Burst::CAPACITY + 4);
                    let taken = model.get_mut(index).and_then(Option::take);
                    assert_eq!(burst.take(index).map(|packet| number(&packet)), taken);
                }
                7 => {
                    let before: Vec<u32> = model.drain(..).flatten().collect();
                    let sent = producer.send(&mut burst);
                    assert_eq!(sent, before.len().min(40 - queued.len()));
                    queued.extend(&before[..sent]);
                    model.extend(before[sent..].iter().copied().map(Some));
                }
                8 => {
                    let room = limit.saturating_sub(model.len());
                    let count = consumer.receive(&mut burst);
                    assert_eq!(count, room.min(queued.len()));
                    model.extend(queued.drain(..count).map(Some));
                }
                9 if random.below(8) == 0 => {
                    assert_eq!(burst.clear(), model.drain(..).flatten().count());
                }
                10 if random.below(8) == 0 => {
                    let some = random.below(10);
                    let drained: Vec<u32> = burst.drain().take(some).map(|packet| number(&packet)).collect();
                    assert_eq!(drained, model.drain(..).flatten().take(some).collect::<Vec<_>>());
                }
                11 if random.below(8) == 0 => {
                    burst.reset();
                    model.clear();
                }
                _ => {
                    let index = random.below(Burst::CAPACITY);
                    if let Some(packet) = burst.packet_mut(index) {
                        let contents = packet.data().to_vec();
                        assert!(packet.set_contents(&contents));
                    }
                }
            }
            let slots: Vec<Option<u32>> = (0..burst.len()).map(|index| burst.packet(index).map(number)).collect();
            assert_eq!(slots, model, "limit {limit}, step {step}, operation {what}");
            assert_eq!(burst.is_empty(), model.is_empty());
            assert!(burst.iter().map(number).eq(model.iter().flatten().copied()));
            assert!(burst.iter_mut().map(|packet| number(packet)).eq(model.iter().flatten().copied()));
            assert_eq!(burst.packet(model.len()).map(number), None, "nothing past the last slot");
            let out = model.iter().flatten().count() + queued.len();
            let home: u32 = pools.iter().map(|pool| pool.available()).sum();
            assert_eq!(home as usize + out, 2 * 1023, "limit {limit}, step {step}, operation {what}");
        }
    }
}
