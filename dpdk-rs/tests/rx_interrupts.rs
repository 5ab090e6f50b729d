//! Receive queues whose interrupts end a wait.
#![allow(clippy::unwrap_used, reason = "in the helpers too, the line is the message")]

mod common;

use common::{number, numbered, pool};
use dpdk_rs::{Burst, Eal, Errno, Mempool, Port, PortBuilder, QueuePair, RxInterrupts, RxQueue};
use dpdk_sys as sys;
use std::ffi::CString;
use std::time::{Duration, Instant};

/// Longer than anything here takes: a wait that ends by time is a failure.
const FOR_EVER: Duration = Duration::from_secs(60);

/// A device of DPDK's that raises interrupts, without root: a virtio device whose other end is in this process too.
#[test]
fn interrupts_of_receive_queues() {
    common::keep_log();
    let socket = std::env::temp_dir().join(format!("nf-rx-interrupts-{}", std::process::id()));
    let socket = socket.to_str().unwrap();
    let eal = common::eal(&[&format!("net_vhost0,iface={socket}"), "net_null0"]);
    a_queue_without_an_interrupt_says_so(&eal);
    let pool = pool(&eal, "interrupts");
    let (far, mut there) = start(&eal, "net_vhost0", &pool, false);
    attach("net_virtio_user0", &format!("path={socket},mac=02:00:00:00:00:01"));
    let (near, mut here) = start(&eal, "net_virtio_user0", &pool, true);
    assert!(here[0].rx.has_interrupt());
    wait_for_link(&near);
    packets_end_a_wait(&pool, &mut there[0], &mut here[0].rx);
    // The queue that comes then is another one.
    near.take_down(here).unwrap();
    let mut here = near.bring_up().unwrap();
    assert!(here[0].rx.has_interrupt());
    wait_for_link(&near);
    packets_end_a_wait(&pool, &mut there[0], &mut here[0].rx);
    near.stop(here).unwrap();

    let (near, here) = start(&eal, "net_virtio_user0", &pool, false);
    assert!(!here[0].rx.has_interrupt(), "none was asked for");
    near.stop(here).unwrap();
    far.stop(there).unwrap();
    assert_eq!(common::logged(), [""; 0]);
    // Both ends of a cable cannot be cleaned up in one process: now and then the thread of DPDK 22.11 that handles virtio's
    // interrupts still sees the other end go when the device is freed, and crashes.
    std::mem::forget(eal);
}

fn start(eal: &Eal, name: &str, pool: &Mempool, interrupts: bool) -> (Port, Vec<QueuePair>) {
    PortBuilder::new(eal, eal.port_by_name(name).unwrap()).pool(pool).rx_interrupts(interrupts).start().unwrap()
}

/// It looks for its other end at once, so it can only come when that is there.
fn attach(device: &str, arguments: &str) {
    let [bus, device, arguments] = ["vdev", device, arguments].map(|text| CString::new(text).unwrap());
    // SAFETY: texts of C that live longer than the call.
    assert_eq!(unsafe { sys::rte_eal_hotplug_add(bus.as_ptr(), device.as_ptr(), arguments.as_ptr()) }, 0);
}

fn wait_for_link(port: &Port) {
    let give_up = Instant::now() + FOR_EVER;
    while !port.link().unwrap().up {
        assert!(Instant::now() < give_up, "no link");
        std::thread::yield_now();
    }
}

fn a_queue_without_an_interrupt_says_so(eal: &Eal) {
    let pool = pool(eal, "without");
    let (port, mut queues) = start(eal, "net_null0", &pool, true);
    let queue = &mut queues[0].rx;
    assert!(!queue.has_interrupt());
    assert_eq!(RxInterrupts::new().unwrap().enable(queue), Err(Errno(libc::ENOTSUP)));
    queue.disable_interrupt();
    port.stop(queues).unwrap();
}

fn packets_end_a_wait(pool: &Mempool, there: &mut QueuePair, queue: &mut RxQueue) {
    let mut burst = Burst::new();
    for interrupts in [RxInterrupts::new().unwrap(), RxInterrupts::new().unwrap()] {
        // What was raised while nobody waited is no reason to look again for ever.
        interrupts.enable(queue).unwrap();
        while interrupts.wait(Duration::ZERO) {}
        assert_eq!(queue.receive(&mut burst), 0);
        for n in 0..10 {
            // It comes between the last look and the wait.
            send(pool, there, n);
            assert!(interrupts.wait(FOR_EVER), "a packet was slept through");
            queue.disable_interrupt();
            receive(queue, &mut burst, n);
            interrupts.enable(queue).unwrap();
            assert_eq!(queue.receive(&mut burst), 0);
        }
        // It comes while the thread waits.
        let woken = std::thread::scope(|threads| {
            let sleeper = threads.spawn(|| interrupts.wait(FOR_EVER));
            send(pool, there, 10);
            sleeper.join().unwrap()
        });
        assert!(woken, "a packet was slept through");
        receive(queue, &mut burst, 10);
        queue.disable_interrupt();
    }
}

fn send(pool: &Mempool, queues: &mut QueuePair, n: u32) {
    let give_up = Instant::now() + FOR_EVER;
    let mut refused = queues.tx.send_one(numbered(pool, n)).err();
    while let Some(packet) = refused {
        assert!(Instant::now() < give_up, "nothing is sent");
        refused = queues.tx.send_one(packet).err();
    }
}

fn receive(queue: &mut RxQueue, burst: &mut Burst, n: u32) {
    assert_eq!(queue.receive(burst), 1);
    assert!(burst.drain().map(|packet| number(&packet)).eq([n]));
}
