//! Virtual reassembly, on sequences of frames with time passing.

use super::{A4, A6, B4, B6, Target, frames, repair};
use nf_framework::headers::Headers;
use nf_framework::testing::{Frame, Outcome, lab};
use nf_framework::{Annotation, Context, Direction, FragmentsConfig, Mbuf, PacketFunction, Verdict};
use std::collections::HashMap;
use std::time::Duration;

pub(crate) const TARGET: Target = Target {
    name: "fragments",
    about: "what comes in goes on as it was, waits or is counted, whatever the order and the time",
    seeds,
    run,
};

/// Each frame has two bytes before it: what happens (see [`run`]), and its length.
fn sequence(frames: impl IntoIterator<Item = (u8, Vec<u8>)>) -> Vec<u8> {
    let packed = frames
        .into_iter()
        .filter_map(|(what, frame)| Some([&[what, u8::try_from(frame.len()).ok()?], &frame[..]].concat()));
    packed.collect::<Vec<_>>().concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let packets = [
        Frame::new().ipv4(A4, B4).udp(1000, 53),
        Frame::new().ipv6(A6, B6).tcp(1000, 80),
        Frame::new().vlan(3).ipv4(A4, B4).icmp_echo_request(1, 2),
    ];
    let mut seeds = Vec::new();
    for packet in packets {
        let fragments = packet.payload(&[7; 60]).build_fragments(24);
        let late = fragments.iter().rev().map(|fragment| (1 << 2, fragment.clone()));
        seeds.push(sequence(fragments.iter().map(|fragment| (2, fragment.clone()))));
        seeds.push(sequence(late.clone()));
        seeds.push(sequence(late.chain([(63 << 2, fragments[0].clone())])));
        seeds.push(sequence(fragments.iter().chain(&fragments).map(|fragment| (0, fragment.clone()))));
    }
    seeds.push(sequence(frames().iter().map(|frame| (3, frame.build()))));
    seeds
}

/// Fails where a fragment comes without what is known of the first one.
struct Witness;

impl PacketFunction for Witness {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let known = Annotation::of(packet);
        // Of one that cannot be read nobody asks.
        if let Ok(headers) = Headers::parse(packet.data_mut()) {
            let fragment = headers.network.fragment();
            assert_eq!(fragment.is_some(), known.ports.is_some(), "{fragment:?} {known:?}");
        }
        Verdict::Next
    }
}

/// Of what happens, bit 0 is the side, bit 1 says that the checksums are repaired, and the rest is
/// how much time passes before, in 40 ms. What comes from one side at one time comes together.
fn run(bytes: &[u8]) {
    let mut rest = bytes.to_vec();
    lab(move |lab| {
        let config = FragmentsConfig { timeout: 1, datagrams: 64, held: 64 };
        let mut trial = lab.trial(|_| Witness.into()).with_fragments(config);
        // How often each frame has come in and not gone out.
        let mut inside: HashMap<Vec<u8>, i64> = HashMap::new();
        let mut gone = |outcome: Outcome, came: &[Vec<u8>]| {
            came.iter().for_each(|frame| *inside.entry(frame.clone()).or_default() += 1);
            for frame in outcome.inside.iter().chain(&outcome.outside) {
                let count = inside.get_mut(frame).expect("it came in like this");
                *count -= 1;
                assert!(*count >= 0, "it goes on once");
            }
        };
        let (mut together, mut side) = (Vec::new(), Direction::Outbound);
        while let [what, length, ..] = rest[..] {
            let mut frame: Vec<u8> = rest.drain(..).skip(2).collect();
            rest = frame.split_off(usize::from(length).min(frame.len()));
            if what & 2 != 0 {
                repair(&mut frame);
            }
            let from = if what & 1 == 0 { Direction::Outbound } else { Direction::Inbound };
            let wait = Duration::from_millis(40 * u64::from(what >> 2));
            if from != side || !wait.is_zero() || together.len() == 64 {
                gone(trial.send(side, &together), &together);
                together.clear();
            }
            if !wait.is_zero() {
                let meanwhile = trial.advance(wait);
                assert!(meanwhile.inside.is_empty() && meanwhile.outside.is_empty(), "time lets nothing go on");
            }
            side = from;
            together.push(frame);
        }
        gone(trial.send(side, &together), &together);
        trial.advance(Duration::from_secs(2));
        assert_eq!(trial.report().balance.held, 0, "nothing waits for ever");
        trial.check_for_leaks();
    });
}
