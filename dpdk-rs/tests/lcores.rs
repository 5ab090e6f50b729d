//! Closures on lcores and control threads, rings between them, and the clock.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::{number, numbered, pool, pool_of};
use dpdk_rs::{Burst, Clock, Eal, LaunchError, Lcore, Mempool, MempoolError, Ring, Ticks};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

#[test]
fn lcores_rings_and_the_clock() {
    common::keep_log();
    let eal = common::eal(&["net_ring0"]);
    common::run(
        &eal,
        &[
            ("the main lcore comes first", the_main_lcore_comes_first),
            ("closures run on their lcores, borrow and return", closures_borrow_and_return),
            ("the main lcore's closure runs when the scope's has returned", the_main_lcore_runs_last),
            ("the main lcore's closure runs when it is joined", the_main_lcore_runs_when_joined),
            ("an lcore runs one closure at a time", an_lcore_runs_one_closure_at_a_time),
            ("an lcore may be used again, joined or not", an_lcore_may_be_used_again),
            ("a join does not wait for what came after", a_join_does_not_wait_for_what_came_after),
            ("scopes nest", scopes_nest),
            ("a panic is told to whoever joins", a_panic_is_told_to_whoever_joins),
            ("a panic that nobody joined comes out of the scope", a_panic_comes_out_of_the_scope),
            ("when the scope's closure panics its lcores are waited for", a_panicking_scope_waits),
            ("forgotten joins are waited for", forgotten_joins_are_waited_for),
            ("a closure that never runs gives its packets back", a_closure_that_never_runs_drops_its_packets),
            ("no pool is freed while lcores work", no_pool_is_freed_while_lcores_work),
            ("queues move to an lcore and come back", queues_move_to_an_lcore_and_back),
            ("a million packets go through a ring in order", a_million_packets_in_order),
            ("the clock only goes forward, as fast as others", the_clock_goes_forward),
        ],
    );
    drop(eal);
    assert_eq!(common::logged(), [""; 0], "everything was cleaned up");
}

fn both(eal: &Eal) -> (Lcore, Lcore) {
    let lcores = eal.lcores();
    assert_eq!(lcores.len(), 2);
    (lcores[0], lcores[1])
}

fn the_main_lcore_comes_first(eal: &Eal) {
    let (main, worker) = both(eal);
    assert_eq!((main.id(), worker.id(), worker.to_string().as_str()), (0, 1, "lcore 1"));
    assert_eq!(main.socket(), main.socket());
    // SAFETY: reads a thread-local variable.
    let here = || unsafe { dpdk_sys::shim_lcore_id() };
    assert_eq!(here(), 0);
    let (there, ordinary) = eal.scope(|scope| {
        let there = scope.launch(worker, here).unwrap();
        let ordinary = scope.control("control", here).unwrap();
        (there.join().unwrap(), ordinary.join().unwrap())
    });
    assert_eq!((there, ordinary), (1, u32::MAX));
}

fn closures_borrow_and_return(eal: &Eal) {
    let (_, worker) = both(eal);
    let mut theirs = [1, 2, 3];
    let shared = AtomicU32::new(0);
    let sum = eal.scope(|scope| {
        let join = scope
            .launch(worker, || {
                shared.fetch_add(1, Ordering::Relaxed);
                theirs[0] = 10;
                theirs.iter().sum::<i32>()
            })
            .unwrap();
        let control = scope
            .control("named", || {
                shared.fetch_add(1, Ordering::Relaxed);
                thread::current().name().map(str::to_owned)
            })
            .unwrap();
        assert_eq!(control.join().unwrap().as_deref(), Some("named"));
        join.join().unwrap()
    });
    assert_eq!((sum, theirs, shared.into_inner()), (15, [10, 2, 3], 2));
}

fn the_main_lcore_runs_last(eal: &Eal) {
    let (main, _) = both(eal);
    let order = Mutex::new(Vec::new());
    let here = thread::current().id();
    eal.scope(|scope| {
        scope
            .launch(main, || {
                assert_eq!(thread::current().id(), here);
                order.lock().unwrap().push("main lcore");
            })
            .unwrap();
        order.lock().unwrap().push("scope");
    });
    assert_eq!(order.into_inner().unwrap(), ["scope", "main lcore"]);
}

fn the_main_lcore_runs_when_joined(eal: &Eal) {
    let (main, _) = both(eal);
    eal.scope(|scope| {
        for n in 0..3 {
            let join = scope.launch(main, move || n).unwrap();
            assert!(matches!(scope.launch(main, || ()), Err(LaunchError::Busy(lcore)) if lcore == main));
            assert_eq!(join.join().unwrap(), n);
        }
    });
}

fn an_lcore_runs_one_closure_at_a_time(eal: &Eal) {
    let (_, worker) = both(eal);
    let go = AtomicBool::new(false);
    eal.scope(|scope| {
        let first = scope.launch(worker, || wait_for(&go)).unwrap();
        let packet = numbered(&pool(eal, "busy"), 1);
        let error = scope.launch(worker, move || drop(packet)).unwrap_err();
        assert_eq!(error.to_string(), "lcore 1 is busy with what was launched on it before");
        eal.scope(|inner| assert!(inner.launch(worker, || ()).is_err(), "also for another scope"));
        go.store(true, Ordering::Release);
        first.join().unwrap();
        scope.launch(worker, || ()).unwrap();
    });
}

fn wait_for(flag: &AtomicBool) {
    while !flag.load(Ordering::Acquire) {
        thread::yield_now();
    }
}

fn an_lcore_may_be_used_again(eal: &Eal) {
    let (_, worker) = both(eal);
    let count = AtomicU32::new(0);
    for _ in 0..100 {
        eal.scope(|scope| scope.launch(worker, || count.fetch_add(1, Ordering::Relaxed)).map(drop).unwrap());
    }
    eal.scope(|scope| {
        for n in 100..200 {
            assert_eq!(scope.launch(worker, || count.fetch_add(1, Ordering::Relaxed)).unwrap().join().unwrap(), n);
        }
    });
    assert_eq!(count.into_inner(), 200);
}

fn a_join_does_not_wait_for_what_came_after(eal: &Eal) {
    let (_, worker) = both(eal);
    let go = AtomicBool::new(false);
    eal.scope(|scope| {
        let first = scope.launch(worker, || 1).unwrap();
        let second = loop {
            match scope.launch(worker, || wait_for(&go)) {
                Ok(join) => break join,
                Err(_) => thread::yield_now(),
            }
        };
        assert_eq!(first.join().unwrap(), 1);
        go.store(true, Ordering::Release);
        second.join().unwrap();
    });
}

fn scopes_nest(eal: &Eal) {
    let (main, worker) = both(eal);
    let ran = Mutex::new(Vec::new());
    let note = |what| ran.lock().unwrap().push(what);
    eal.scope(|outer| {
        outer.launch(main, || note("outer main")).unwrap();
        let local = 5;
        let inner = eal.scope(|inner| {
            inner.launch(main, || note("inner main")).unwrap();
            inner.launch(worker, || local + 1).unwrap().join().unwrap()
        });
        assert_eq!(inner, 6);
        note("outer");
    });
    assert_eq!(ran.into_inner().unwrap(), ["inner main", "outer", "outer main"]);
}

/// The message of a panic.
fn message(payload: &(dyn std::any::Any + Send)) -> &str {
    payload.downcast_ref::<&str>().copied().unwrap_or("not a string")
}

fn a_panic_is_told_to_whoever_joins(eal: &Eal) {
    let (main, worker) = both(eal);
    eal.scope(|scope| {
        for lcore in [worker, main] {
            let join = scope.launch(lcore, || panic!("of the lcore")).unwrap();
            let payload = join.join().map(|()| "no panic").unwrap_err();
            assert_eq!(message(&*payload), "of the lcore");
        }
        let join = scope.control("panics", || panic!("of the control thread")).unwrap();
        assert_eq!(message(&*join.join().map(|()| "no panic").unwrap_err()), "of the control thread");
    });
}

fn a_panic_comes_out_of_the_scope(eal: &Eal) {
    let (main, worker) = both(eal);
    for lcore in [worker, main] {
        let other = AtomicBool::new(false);
        let result = catch_unwind(AssertUnwindSafe(|| {
            eal.scope(|scope| {
                scope.launch(lcore, || panic!("of the lcore")).map(drop).unwrap();
                let rest = if lcore == main { worker } else { main };
                scope.launch(rest, || other.store(true, Ordering::Relaxed)).unwrap();
            });
        }));
        assert_eq!(message(&*result.unwrap_err()), "of the lcore");
        assert!(other.into_inner(), "the others ran to their end");
    }
}

fn a_panicking_scope_waits(eal: &Eal) {
    let (main, worker) = both(eal);
    let packets = pool(eal, "unwound");
    let (at_work, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let result = catch_unwind(AssertUnwindSafe(|| {
        eal.scope(|scope| {
            let packet = numbered(&packets, 1);
            scope.launch(main, move || panic!("never run: {packet:?}")).map(drop).unwrap();
            let packet = numbered(&packets, 2);
            let (at_work, done) = (&at_work, &done);
            scope
                .launch(worker, move || {
                    at_work.store(true, Ordering::Release);
                    for _ in 0..1000 {
                        thread::yield_now();
                    }
                    drop(packet);
                    done.store(true, Ordering::Release);
                })
                .unwrap();
            wait_for(at_work);
            panic!("of the scope");
        });
    }));
    assert_eq!(message(&*result.unwrap_err()), "of the scope");
    assert!(done.into_inner());
    assert_eq!(packets.available(), 1023);
}

fn forgotten_joins_are_waited_for(eal: &Eal) {
    let (_, worker) = both(eal);
    let mut borrowed = vec![0_u8; 1000];
    eal.scope(|scope| {
        let join = scope
            .launch(worker, || {
                for byte in &mut borrowed {
                    *byte = 1;
                    thread::yield_now();
                }
            })
            .unwrap();
        std::mem::forget(join);
    });
    assert!(borrowed.iter().all(|byte| *byte == 1));
}

fn a_closure_that_never_runs_drops_its_packets(eal: &Eal) {
    let (main, _) = both(eal);
    let packets = pool(eal, "never run");
    eal.scope(|scope| {
        let (first, second) = (numbered(&packets, 1), numbered(&packets, 2));
        scope.launch(main, move || drop(first)).unwrap();
        scope.launch(main, move || drop(second)).unwrap_err();
        assert_eq!(packets.available(), 1022);
    });
    assert_eq!(packets.available(), 1023);
}

fn no_pool_is_freed_while_lcores_work(eal: &Eal) {
    let (_, worker) = both(eal);
    let first = pool(eal, "at work");
    let config = first.config();
    eal.scope(|scope| {
        let worked = scope.launch(worker, move || drop(numbered(&first, 1))).unwrap();
        worked.join().unwrap();
        let second = Mempool::new(eal, "at work", config);
        assert!(matches!(second, Err(MempoolError::Exists(_))), "a scope is open");
    });
    Mempool::new(eal, "at work", config).unwrap();
}

fn queues_move_to_an_lcore_and_back(eal: &Eal) {
    let (main, worker) = both(eal);
    let packets = pool(eal, "queues");
    let port = eal.port_by_name("net_ring0").unwrap();
    let (port, mut queues) = dpdk_rs::PortBuilder::new(eal, port).pool(&packets).queues(2).start().unwrap();
    let (second, first) = (queues.pop().unwrap(), queues.pop().unwrap());
    let work = |mut pair: dpdk_rs::QueuePair| {
        let packets = packets.clone();
        move || {
            let mut burst = Burst::new();
            for n in 0..5000 {
                pair.tx.send_one(numbered(&packets, n)).unwrap();
                assert_eq!(pair.rx.receive(&mut burst), 1);
                assert_eq!(burst.drain().map(|packet| number(&packet)).next(), Some(n));
            }
            pair
        }
    };
    let back = eal.scope(|scope| {
        let one = scope.launch(main, work(first)).unwrap();
        let two = scope.launch(worker, work(second)).unwrap();
        vec![one.join().unwrap(), two.join().unwrap()]
    });
    assert_eq!(port.stats().unwrap().rx_packets, 10_000);
    port.stop(back).unwrap();
}

fn a_million_packets_in_order(eal: &Eal) {
    const PACKETS: u32 = 1_000_000;
    let (main, worker) = both(eal);
    let packets = pool_of(eal, "million", 4095);
    let (mut producer, mut consumer) = Ring::pair(eal, "million", 500).unwrap();
    eal.scope(|scope| {
        let (give, take) = (packets.clone(), packets.clone());
        scope
            .launch(main, move || {
                let mut burst = Burst::new();
                let mut next = 0;
                while next < PACKETS || !burst.is_empty() {
                    while next < PACKETS && burst.len() < 32 {
                        let Some(mut packet) = give.alloc() else { break };
                        assert!(packet.set_contents(&next.to_be_bytes()));
                        burst.push(packet).unwrap();
                        next += 1;
                    }
                    if producer.send(&mut burst) == 0 {
                        thread::yield_now();
                    }
                }
            })
            .unwrap();
        let received = scope
            .launch(worker, move || {
                let mut burst = Burst::new();
                let mut next: u32 = 0;
                while next < PACKETS {
                    if consumer.receive(&mut burst) == 0 {
                        thread::yield_now();
                    }
                    for packet in burst.iter() {
                        assert_eq!(packet.data(), next.to_be_bytes());
                        next += 1;
                    }
                    burst.clear();
                }
                drop(take);
                next
            })
            .unwrap();
        // The main lcore runs here, before the worker is waited for.
        drop(received);
    });
    assert_eq!(packets.available(), 4095);
}

fn the_clock_goes_forward(eal: &Eal) {
    let (_, worker) = both(eal);
    let clock = Clock::new(eal);
    let start = Instant::now();
    let mut last = Ticks::now();
    for _ in 0..100_000 {
        let now = Ticks::now();
        assert!(now >= last);
        last = now;
    }
    let (sender, receiver) = mpsc::channel();
    eal.scope(|scope| {
        scope.launch(worker, move || sender.send(clock.elapsed()).unwrap()).unwrap();
    });
    let elsewhere = receiver.recv().unwrap();
    while start.elapsed() < Duration::from_millis(50) {
        thread::yield_now();
    }
    // Read inside of what the other clock says on both sides, so no pause can disturb it.
    let (least, ours, most) = (start.elapsed(), clock.elapsed(), start.elapsed());
    assert!(ours > least / 2 && ours < most * 2, "{least:?} <= {ours:?} <= {most:?}");
    assert!(elsewhere <= ours);
    assert!(clock.hertz() > 1_000_000);
}
