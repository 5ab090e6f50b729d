//! Who is on the links, on sequences of ARP and Neighbour Discovery with packets that wait.

use super::links::{Links, Setup, Step, step};
use super::{Target, stations};
use nf_framework::Chain;
use nf_framework::testing::lab;
use std::collections::HashMap;
use std::time::Duration;

pub(crate) const TARGET: Target = Target {
    name: "neighbours",
    about: "who is asked for is on the link and asked once a second, and packets go where somebody said",
    seeds: || {
        let mut seeds = Vec::new();
        for setup in 0..2 {
            for outside in 0..2 {
                // Asked for, answered, used until it is to be asked again; and one that never answers.
                let packets = [1 - outside, 10, 0, 0, 1 - outside, 11, 0, 0];
                let answers = [outside, 2, 0, 0, outside, 4, 0, 0, 0xc1];
                let silent = [1 - outside, 10, 0, 1, 33, 99, 0xc2, 0xc2, 0xc2, 0xc2];
                seeds.push([&[setup], &packets[..], &[0xc0], &answers, &packets, &[0xc5], &packets, &silent].concat());
            }
            let all = (0..=stations::NEIGHBOURS + 3).flat_map(|kind| [0, kind, 0, 0, 1, kind, 0, 0, 0xc2]);
            seeds.push([setup].into_iter().chain(all).collect());
        }
        seeds
    },
    run,
};

/// The first byte is the setup; then [steps](step), 96 at most.
fn run(bytes: &[u8]) {
    let Some((&setup, steps)) = bytes.split_first() else { return };
    let setup =
        Setup { workers: 1 + u16::from(setup & 1), one_armed: setup & 2 != 0, functions: false, offloads: false };
    let steps = steps.to_vec();
    lab(move |lab| {
        let mut steps = &steps[..];
        let mut links = Links::new(lab, setup, |_| Chain::new());
        let mut frames = 0;
        for _ in 0..96 {
            match step(&mut steps, stations::about_neighbours) {
                Some(Step::Frame { outside, frame }) => {
                    frames += 1;
                    links.send(outside, frame);
                    assert!(links.answers <= frames, "nobody is answered who did not ask");
                }
                Some(Step::Time(time)) => links.pass(time),
                Some(Step::Reload) | None => break,
            }
        }
        // RFC 1122 section 2.3.2.1, RFC 4861 section 7.2.2. With more than there is room for, some are
        // forgotten and asked for again.
        let mut asked: HashMap<_, Vec<Duration>> = HashMap::new();
        for (time, interface, target) in &links.questions {
            asked.entry((*interface, *target)).or_default().push(*time);
        }
        if asked.len() < 8 {
            for (who, times) in &asked {
                let apart = times.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1));
                assert!(apart, "{who:?} is asked at {times:?}");
            }
        }
        links.finish();
    });
}
