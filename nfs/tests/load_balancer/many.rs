//! Rows L4 and L6 with many connections: how many of them move when a backend goes, each asked.
//!
//! Some thousands with the other tests. For a million:
//!
//! ```sh
//! NF_CONNECTIONS=1000000 NF_TEST_EAL="--no-huge --no-shconf --no-telemetry --no-pci -m 256" \
//!     cargo test --release -p nfs --test load_balancer many -- --nocapture
//! ```

use super::bench::{ACK, BACKENDS, Bench, ROUTER, SYN, VIP, config, from_outside, service};
use nf_framework::headers::TcpFlags;
use nf_framework::testing::lab;
use nfs::load_balancer::Config;
use std::env;
use std::net::Ipv4Addr;

/// Places of the service's table, as by default.
const PLACES: usize = 65_537;
/// Nobody.
const NONE: u8 = 0;

fn count() -> u32 {
    env::var("NF_CONNECTIONS").map_or(10_000, |text| text.parse().expect("NF_CONNECTIONS is a number"))
}

/// Ten backends, or without the one that has this number.
fn backends(without: Option<u8>) -> Vec<u8> {
    let all: Vec<u8> = BACKENDS.filter(|number| Some(*number) != without).collect();
    assert_eq!(all.len(), 10 - usize::from(without.is_some()));
    all
}

/// With room for the connections and as many new ones in a second.
fn with(backends: &[u8]) -> Config {
    let room = count() + count() / 4;
    let numbers = format!("connections = {room}\ninsertions_per_second = 4000000000\ntable_size = {PLACES}\n");
    config(&format!("{numbers}{}", service("dsr", "", backends)))
}

/// A client's address and port, by the number of its connection.
fn client(number: u32) -> (Ipv4Addr, u16) {
    (Ipv4Addr::from_bits(0x1400_0001 + number / 50_000), u16::try_from(1024 + number % 50_000).unwrap())
}

/// The backend that a packet of each connection goes to.
fn go_to(bench: &mut Bench, flags: TcpFlags) -> Vec<u8> {
    let (mut all, numbers) = (vec![NONE; count() as usize], (0..count()).collect::<Vec<_>>());
    for numbers in numbers.chunks(64) {
        let frame = |number: &u32| {
            let (address, port) = client(*number);
            from_outside(address, VIP).tcp(port, 80).flags(flags).build()
        };
        let frames: Vec<_> = numbers.iter().map(frame).collect();
        let outcome = bench.burst(&frames);
        assert_eq!(outcome.inside.len(), numbers.len(), "{outcome:?}");
        for left in outcome.inside {
            let address = u32::from_be_bytes(left[26..30].try_into().unwrap());
            let port = u32::from(left[34]) << 8 | u32::from(left[35]);
            let number = (address - 0x1400_0001) * 50_000 + port - 1024;
            assert_eq!(left[..5], [2, 0, 0, 1, 0]);
            all[number as usize] = left[5];
        }
    }
    assert!(!all.contains(&NONE), "each connection was heard of");
    all
}

/// Of the connections whose backend is still there, those that go to another one now.
fn moved(before: &[u8], after: &[u8], gone: u8) -> usize {
    before.iter().zip(after).filter(|(before, after)| **before != gone && before != after).count()
}

/// What Maglev moves without need, as a share of the places of those that stay, when the last of ten backends goes:
/// NSDI 2016 section 3.4 to the letter, with orders of its own.
fn disruption() -> f64 {
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let orders: Vec<(usize, usize)> = (0..10).map(|_| (random(PLACES), 1 + random(PLACES - 1))).collect();
    let fill = |count: usize| {
        let (mut table, mut next, mut filled) = (vec![usize::MAX; PLACES], vec![0; count], 0);
        'all: loop {
            for backend in 0..count {
                let (offset, skip) = orders[backend];
                let place = loop {
                    let place = (offset + next[backend] * skip) % PLACES;
                    next[backend] += 1;
                    if table[place] == usize::MAX {
                        break place;
                    }
                };
                table[place] = backend;
                filled += 1;
                if filled == PLACES {
                    break 'all table;
                }
            }
        }
    };
    let (before, after) = (fill(10), fill(9));
    let stays: Vec<_> = before.iter().zip(&after).filter(|(before, _)| **before != 9).collect();
    stays.iter().filter(|(before, after)| before != after).count() as f64 / stays.len() as f64
}

#[test]
fn l06_of_many_connections_none_moves_when_another_backend_goes() {
    lab(|lab| {
        let gone = *BACKENDS.end();
        let mut bench = Bench::new(lab, 1, ROUTER, with(&backends(None)));
        let before = go_to(&mut bench, SYN);
        assert_eq!(go_to(&mut bench, ACK), before);
        assert_eq!((bench.connections(), bench.counter("packets-without-entry")), (count().into(), 0));
        let of_gone = before.iter().filter(|backend| **backend == gone).count();
        assert!(of_gone.abs_diff(before.len() / 10) < before.len() / 50, "{of_gone} are on it");
        bench.reload(with(&backends(Some(gone)))).unwrap();
        let after = go_to(&mut bench, ACK);
        assert_eq!(moved(&before, &after, gone), 0);
        // Its own go on too: it was removed and is not down.
        assert_eq!(after, before);
        assert_eq!(bench.counter("connections-moved"), 0);
        bench.trial.check_for_leaks();
    });
}

#[test]
fn l04_without_the_connections_too_only_as_many_move_as_maglev_moves() {
    lab(|lab| {
        let gone = *BACKENDS.end();
        let mut bench = Bench::new(lab, 1, ROUTER, with(&backends(None)));
        let before = go_to(&mut bench, SYN);
        bench.trial.check_for_leaks();
        drop(bench);
        // Another instance, which knows nothing.
        let mut other = Bench::new(lab, 1, ROUTER, with(&backends(Some(gone))));
        let after = go_to(&mut other, ACK);
        let stay = before.iter().filter(|backend| **backend != gone).count();
        let moved = moved(&before, &after, gone);
        let (share, of_maglev) = (moved as f64 / stay as f64, disruption());
        println!(
            "{stay} connections of nine backends, a tenth removed and the connection table lost: {moved} have moved, \
             {:.3} %; Maglev with other orders moves {:.3} % of places",
            100.0 * share,
            100.0 * of_maglev
        );
        // How many move differs by orders, and in a few thousand by chance.
        assert!(share < 2.0 * of_maglev, "{share} and {of_maglev}");
        other.trial.check_for_leaks();
    });
}
