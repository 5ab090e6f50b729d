//! The router around a chain, on sequences of frames with time passing and routes changing.

use super::links::{Links, Setup, Step, step};
use super::{Target, stations};
use nf_framework::headers::Headers;
use nf_framework::testing::lab;
use nf_framework::{Context, Mbuf, PacketFunction, Steering, Tuple, Verdict, WorkerSetup};
use std::sync::Arc;

pub(crate) const TARGET: Target = Target {
    name: "router",
    about: "what leaves came in with one hop more and goes its route, or is an answer that may be given",
    seeds,
    run,
};

/// Neighbours become known on both sides, then every template comes from both, on every setup.
fn seeds() -> Vec<Vec<u8>> {
    let known = |frames: &mut Vec<u8>| {
        for kind in 0..6 {
            frames.extend([0, kind, 0, 0, 1, kind, 0, 0]);
        }
    };
    let mut seeds = Vec::new();
    for setup in 0..16 {
        for first in (stations::NEIGHBOURS..stations::ALL).step_by(13) {
            let mut seed = vec![setup];
            known(&mut seed);
            for kind in first..(first + 13).min(stations::ALL) {
                seed.extend([2, kind, 2, 0, 1, kind, 0, 0, 0xc0]);
            }
            seeds.push(seed);
        }
        // Long packets, a reload, and neighbours that nobody knows.
        let mut seed = vec![setup];
        known(&mut seed);
        seed.extend([0x0a, 0, 0, 0, 0x09, 0, 0, 0]);
        seed.extend([0, 25, 30, 0, 0, 26, 30, 0, 0, 12, 39, 0, 0, 13, 39, 0, 0xff, 0, 12, 1, 0, 1, 13, 1, 0, 0xc3]);
        seed.extend([0, 10, 0, 1, 33, 99, 0, 11, 0, 1, 53, 99, 0xc3, 0xc3, 0xc3, 0xc3]);
        seeds.push(seed);
    }
    seeds
}

/// Reads what it sees, and fails where a packet is another worker's.
struct Witness(Option<Arc<Steering>>, usize);

impl PacketFunction for Witness {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        if let Ok(mut headers) = Headers::parse(packet.data_mut()) {
            let _ = (headers.verify_checksums(), headers.quoted().is_some());
        }
        if let (Some(steering), Some(tuple)) = (&self.0, Tuple::of_packet(packet)) {
            assert_eq!(steering.owner(cx.direction(), &tuple), self.1, "{tuple:?}");
        }
        Verdict::Next
    }
}

/// The first byte is the setup; then [steps](step), 64 at most.
fn run(bytes: &[u8]) {
    let Some((&setup, steps)) = bytes.split_first() else { return };
    let (workers, is_set) = (1 + u16::from(setup & 1), |bit| setup & bit != 0);
    let setup = Setup { workers, one_armed: is_set(2), functions: is_set(4), offloads: is_set(8) };
    let steps = steps.to_vec();
    lab(move |lab| {
        let mut steps = &steps[..];
        let witness = |worker: &mut WorkerSetup| Witness(worker.steering().cloned(), worker.index()).into();
        let mut links = Links::new(lab, setup, witness);
        for _ in 0..64 {
            match step(&mut steps, stations::any) {
                Some(Step::Frame { outside, frame }) => links.send(outside, frame),
                Some(Step::Time(time)) => links.pass(time),
                Some(Step::Reload) => links.reload(),
                None => break,
            }
        }
        links.finish();
    });
}
