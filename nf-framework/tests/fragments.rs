//! Fragments on their way into a chain: on one worker, and when all arrive at the wrong one.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::Random;
use nf_framework::testing::{Case, Frame, Outcome, Trial, lab};
use nf_framework::{
    Affinity, Annotation, Context, Direction, FragmentsConfig, Mbuf, PacketFunction, Ports, Steering, Tuple, Verdict,
    WorkerSetup,
};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const A4: [u8; 4] = [192, 0, 2, 1];
const B4: [u8; 4] = [198, 51, 100, 1];
const A6: [u16; 8] = [0x2001, 0xdb8, 0, 1, 0, 0, 0, 1];
const B6: [u16; 8] = [0x2001, 0xdb8, 0, 2, 0, 0, 0, 2];
const OUT: Direction = Direction::Outbound;

fn v4() -> Frame {
    Frame::new().ipv4(A4, B4)
}

fn v6() -> Frame {
    Frame::new().ipv6(A6, B6)
}

/// Where each packet was seen, and with which ports.
type Seen = Arc<Mutex<Vec<(usize, Option<Ports>)>>>;

/// Notes what every packet is known by; fails where it is not this worker's.
struct Witness {
    worker: usize,
    steering: Option<Arc<Steering>>,
    seen: Seen,
}

impl Witness {
    fn new(worker: &WorkerSetup, seen: &Seen) -> Self {
        Self { worker: worker.index(), steering: worker.steering().cloned(), seen: Arc::clone(seen) }
    }
}

impl PacketFunction for Witness {
    fn packet(&mut self, packet: &mut Mbuf, cx: &mut Context<'_>) -> Verdict {
        let tuple = Tuple::of_packet(packet);
        if let (Some(steering), Some(tuple)) = (&self.steering, &tuple) {
            assert_eq!(steering.owner(cx.direction(), tuple), self.worker, "{tuple:?}");
        }
        self.seen.lock().unwrap().push((self.worker, tuple.map(|tuple| tuple.ports)));
        Verdict::Next
    }
}

/// A trial with a witness on one worker, and one on two where every packet arrives at the wrong one.
fn both_ways(test: impl Fn(&mut Trial, &Seen, &str) + Send + 'static) {
    lab(move |lab| {
        let seen = Seen::default();
        let mut one = lab.trial(|worker| Witness::new(worker, &seen).into()).with_fragments(FragmentsConfig::default());
        test(&mut one, &seen, "one worker");
        one.check_for_leaks();
        drop(one);
        let seen = Seen::default();
        let mut two = lab.trial_at_wrong_workers(2, Affinity::Flow, |worker| Witness::new(worker, &seen).into());
        test(&mut two, &seen, "at the wrong one of two workers");
        two.check_for_leaks();
    });
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![vec![]];
    for thing in 0..count {
        orders = orders
            .into_iter()
            .flat_map(|order: Vec<usize>| {
                (0..=order.len()).map(move |at| [&order[..at], &[thing], &order[at..]].concat())
            })
            .collect();
    }
    orders
}

#[test]
fn n18_every_order_gives_the_same_bytes_and_every_fragment_reaches_the_owner_of_its_flow() {
    both_ways(|trial, seen, way| {
        for port in 1..8_u16 {
            for (packet, ports) in [
                (v4().udp(port, 53).payload(&[7; 60]), Ports::Both(port, 53)),
                (v6().tcp(port, 80).payload(&[8; 60]), Ports::Both(port, 80)),
                (v4().vlan(9).icmp_echo_request(port, 1).payload(&[9; 60]), Ports::Identifier(port)),
                (v6().extension(0, &[]).udp(port, 53).payload(&[1; 60]), Ports::Both(port, 53)),
                (v4().protocol(47).payload(&[2; 60]), Ports::None),
            ] {
                let fragments = packet.identification(port.into()).build_fragments(24);
                for order in orders(fragments.len()) {
                    for together in [true, false] {
                        let arriving: Vec<Vec<u8>> = order.iter().map(|&at| fragments[at].clone()).collect();
                        let outcomes = match together {
                            true => vec![trial.send(OUT, &arriving)],
                            false => {
                                arriving.iter().map(|frame| trial.send(OUT, std::slice::from_ref(frame))).collect()
                            }
                        };
                        // The first, and then the others as they came.
                        let first = order.iter().position(|&at| at == 0).unwrap();
                        let mut expected = vec![fragments[0].clone()];
                        expected.extend(arriving.iter().filter(|frame| **frame != fragments[0]).cloned());
                        let left: Vec<Vec<u8>> = outcomes.iter().flat_map(|outcome| outcome.outside.clone()).collect();
                        assert_eq!(left, expected, "{way}, {order:?}");
                        let held: i64 = outcomes.iter().map(|outcome| outcome.held).sum();
                        assert_eq!(held, 0);
                        assert!(together || outcomes[..first].iter().all(|outcome| outcome.held == 1), "{order:?}");
                        let seen = std::mem::take(&mut *seen.lock().unwrap());
                        assert_eq!(seen.len(), fragments.len());
                        assert!(seen.iter().all(|(_, with)| *with == Some(ports)), "{way}, {order:?}: {seen:?}");
                    }
                }
            }
        }
        assert_eq!(trial.report().handed_over > 0, way != "one worker");
    });
}

#[test]
fn what_a_first_fragment_sets_free_goes_on_though_it_is_more_than_a_batch_holds() {
    both_ways(|trial, seen, way| {
        let large = |identification: u32| {
            let packet = v4().identification(identification).udp(1000, 53).payload(&[7; 40_000]);
            packet.build_fragments(800)
        };
        let (one, other) = (large(1), large(2));
        let mut held = 0;
        for late in [&one[1..], &other[1..]] {
            let outcome = trial.send(OUT, late);
            held += late.len();
            assert_eq!(outcome, Outcome { held: late.len().try_into().unwrap(), ..Outcome::default() }, "{way}");
        }
        assert_eq!(held, 100);
        let whole = v4().udp(1, 2).build();
        let outcome = trial.send(OUT, &[one[0].clone(), whole.clone(), other[0].clone(), whole.clone()]);
        assert_eq!((outcome.held, outcome.outside.len()), (-100, 104), "{way}");
        // One worker keeps them in order; on two, whole packets of another flow may overtake.
        let fragments = |identification: u8| -> Vec<Vec<u8>> {
            outcome
                .outside
                .iter()
                .filter(|frame| frame[14 + 5] == identification && frame[20] | frame[21] != 0)
                .cloned()
                .collect()
        };
        assert_eq!((fragments(1), fragments(2)), (one, other), "{way}");
        assert_eq!(seen.lock().unwrap().len(), 104);
    });
}

/// What comes back of fragments that go through a chain with nothing in it.
fn with_fragments(config: FragmentsConfig, cases: Vec<Case>) {
    lab(move |lab| {
        let seen = Seen::default();
        let mut trial = lab.trial(|worker| Witness::new(worker, &seen).into()).with_fragments(config);
        trial.check(cases);
    });
}

#[test]
fn f11_each_reason_to_drop_a_fragment_is_named() {
    let part = |of: Frame, offset: u16, octets: usize, more: bool| {
        let payload = octets - if offset == 0 { 8 } else { 0 };
        of.udp(1000, 53).payload(&vec![7; payload]).fragment(offset, more).build()
    };
    let of = |identification: u32| v4().identification(identification);
    let tiny = v4().protocol(6).payload(&[0; 16]).fragment(0, true).build();
    let over_tcp = v4().protocol(6).payload(&[0; 16]).fragment(8, true).build();
    let ragged = v4().protocol(17).payload(&[0; 13]).fragment(8, true).build();
    let long = v6().protocol(17).payload(&[0; 16]).fragment(65528, false).build();
    let many = |from: u16, to: u16| (from..to).map(|number| part(of(9), 16 * number, 8, true)).collect::<Vec<_>>();
    let case = Case::new;
    let comes = |case: Case, frames: Vec<Vec<u8>>| frames.into_iter().fold(case, Case::outbound);
    with_fragments(
        FragmentsConfig { timeout: 2, datagrams: 64, held: 64 },
        vec![
            case("a tiny first fragment").outbound(tiny).dropped("fragment-headers"),
            case("TCP where its header should be").outbound(over_tcp).dropped("fragment-headers"),
            case("13 octets and more to come").outbound(ragged).dropped("fragment-length"),
            case("beyond the longest packet").outbound(long).dropped("fragment-length"),
            case("a first fragment goes on").outbound(part(of(1), 0, 48, true)).leaves_unchanged(),
            case("and not again").outbound(part(of(1), 0, 48, true)).dropped("fragment-duplicate"),
            case("one that overlaps it").outbound(part(of(1), 40, 48, true)).dropped("fragment-overlap"),
            case("and all that follow").outbound(part(of(1), 88, 8, false)).dropped("fragment-overlap"),
            case("one that is early waits").outbound(part(of(2), 48, 8, false)).held(1),
            case("until an overlap ends it")
                .outbound(part(of(2), 48, 16, true))
                .held(-1)
                .dropped("fragment-overlap")
                .dropped("fragment-overlap"),
            case("another that is early").outbound(part(of(3), 48, 8, false)).held(1),
            case("waits for 2 seconds").after(Duration::from_millis(1999)),
            case("and is dropped then").after(Duration::from_millis(1)).held(-1).dropped("fragment-expired"),
            comes(case("64 fragments of a packet"), many(0, 64)).leaves_unchanged(),
            comes(case("and no more"), many(64, 65)).dropped("fragment-many"),
            comes(case("64 fragments may wait"), (1..64).map(|at| part(of(10), 8 * at, 8, true)).collect()).held(63),
            case("of another packet").outbound(part(of(11), 8, 8, true)).held(1),
            (0..63)
                .fold(case("one more takes the place of the oldest that waits"), |case, _| {
                    case.dropped("fragments-full")
                })
                .outbound(part(of(11), 16, 8, true))
                .held(-62),
        ],
    );
}

#[test]
fn n18_a_flood_of_first_fragments_and_one_of_later_ones_stay_within_bounds() {
    lab(|lab| {
        let seen = Seen::default();
        let mut trial =
            lab.trial(|worker| Witness::new(worker, &seen).into()).with_fragments(FragmentsConfig::default());
        let host = |number: u8| {
            let packet = Frame::new().ipv4([10, 0, number, 1], B4).udp(1000, 53).payload(&[7; 80]);
            packet.identification(5).build_fragments(48)
        };
        for number in 0..50 {
            assert_eq!(trial.send(OUT, &host(number)[..1]).outside.len(), 1);
        }
        let mut random = Random(1);
        let flood: Vec<Vec<u8>> = (0..10_000)
            .map(|_| {
                let (identification, offset) = (random.below(1 << 16), 48 * random.below(2));
                let packet = Frame::new().ipv4([172, 16, 0, 1], B4).identification(identification.try_into().unwrap());
                packet.udp(1, 2).payload(&[7; 40]).fragment(offset.try_into().unwrap(), true).build()
            })
            .collect();
        for frames in flood.chunks(64) {
            trial.send(OUT, frames);
        }
        assert!(trial.report().balance.held <= 128, "{}", trial.report());
        let went = (0..50).filter(|&number| trial.send(OUT, &host(number)[1..]).outside.len() == 1).count();
        assert!(went >= 48, "{went} of 50 are not in the flood's bucket");
        let rest = trial.advance(Duration::from_secs(3));
        assert_eq!(trial.report().balance.held, 0, "{rest:?}");
        trial.check_for_leaks();
    });
}

#[test]
fn without_virtual_reassembly_fragments_go_on_as_they_come() {
    lab(|lab| {
        let seen = Seen::default();
        let mut trial = lab.trial(|worker| Witness::new(worker, &seen).into());
        let frames = v4().udp(1, 2).payload(&[7; 80]).build_fragments(48);
        assert_eq!(trial.send(OUT, &frames[1..]).outside, frames[1..]);
        assert_eq!(trial.send(OUT, &frames[..1]).outside, frames[..1]);
        assert!(seen.lock().unwrap().iter().all(|(_, ports)| *ports == Some(Ports::None)));
    });
}

#[test]
fn a_function_that_gives_a_packet_other_ports_tells_those_behind_it() {
    /// Puts port 9 in the place of the source port.
    struct Rewrite;
    impl PacketFunction for Rewrite {
        fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
            let known = Annotation::of(packet);
            if let Some(Ports::Both(_, destination)) = known.ports {
                Annotation { ports: Some(Ports::Both(9, destination)), ..known }.write(packet);
            }
            Verdict::Next
        }
    }
    lab(|lab| {
        let seen = Seen::default();
        let chain = |worker: &mut WorkerSetup| nf_framework::Then::then(Rewrite, Witness::new(worker, &seen));
        let mut trial = lab.trial(chain).with_fragments(FragmentsConfig::default());
        trial.send(OUT, &v4().udp(1, 2).payload(&[7; 80]).build_fragments(48));
        assert_eq!(*seen.lock().unwrap(), [(0, Some(Ports::Both(9, 2))), (0, Some(Ports::Both(9, 2)))]);
    });
}

#[test]
fn random_fragments_of_many_packets_leave_no_packet_unaccounted_for() {
    both_ways(|trial, _, way| {
        let mut random = Random(7);
        let mut dropped = BTreeMap::<String, u64>::new();
        for _ in 0..300 {
            let frames: Vec<Vec<u8>> = (0..random.below(64))
                .map(|_| {
                    let base = if random.below(2) == 0 { v4() } else { v6() };
                    let base = base.identification(random.below(20).try_into().unwrap()).udp(1, 2);
                    let offset = u16::try_from(8 * random.below(20)).unwrap();
                    base.payload(&vec![7; 8 * random.below(6)]).fragment(offset, random.below(5) > 0).build()
                })
                .collect();
            // The trial itself fails where the balance does not close.
            let outcome = trial.send(OUT, &frames);
            let later = trial.advance(Duration::from_millis(random.below(400).try_into().unwrap()));
            for (reason, count) in outcome.dropped.into_iter().chain(later.dropped) {
                *dropped.entry(reason).or_default() += count;
            }
        }
        for reason in ["fragment-length", "fragment-overlap", "fragment-duplicate", "fragment-expired"] {
            assert!(dropped.contains_key(reason), "{way}: {dropped:?}");
        }
        trial.advance(Duration::from_secs(3));
        trial.advance(Duration::from_millis(100));
        assert_eq!(trial.report().balance.held, 0, "{way}");
    });
}
