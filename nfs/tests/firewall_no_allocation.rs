//! A firewall allocates nothing for a packet: Rust's, C's and DPDK's allocations are counted while packets of all
//! kinds pass, begin something, are denied, limited, rejected and written down.
#![allow(clippy::unwrap_used, reason = "tests")]

use dpdk_rs::allocation_count::{AllocationCount, CountingAllocator};
use nf_framework::testing::{Frame, lab};
use nf_framework::{Batch, Budget, Chain, Context, Direction, Function, NetworkFunction};
use nfs::firewall::{Config, Firewall, Instance};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A firewall, and what is allocated while it works.
struct Watched {
    firewall: Instance,
    allocated: Arc<AtomicU64>,
}

impl Watched {
    fn watch(&mut self, work: impl FnOnce(&mut Instance)) {
        let before = AllocationCount::of_this_thread();
        work(&mut self.firewall);
        let after = AllocationCount::of_this_thread();
        let made = after.rust - before.rust + after.c - before.c + after.dpdk - before.dpdk;
        self.allocated.fetch_add(made, Ordering::Relaxed);
    }
}

impl NetworkFunction for Watched {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        self.watch(|firewall| firewall.batch(batch, cx));
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        self.watch(|firewall| firewall.tick(cx, budget));
    }
}

const TEXT: &str = r#"
connections = 256
connections_v6 = 256
connections_per_source = 500
default = "reject"
rejections_per_second = 100000
[[rules]]
name = "all"
action = "log"
[[rules]]
name = "limited"
protocol = "udp"
destination_ports = 53
action = "accept"
limit = { connections_per_second = 100, packets_per_second = 2, burst = 2, per_source = true }
[[rules]]
name = "half open"
protocol = "tcp"
action = "accept"
limit = { embryonic = 100 }
[[rules]]
name = "pings"
dscp = "ef"
protocol = ["icmp", "icmpv6"]
action = "accept"
"#;

/// Of all kinds, and each time others.
fn frames(round: u16) -> Vec<Vec<u8>> {
    let [high, low] = round.to_be_bytes();
    let (host, other) = (Ipv4Addr::new(10, 0, high, low), Ipv4Addr::new(192, 0, 2, 1));
    let six = |address: u16| std::net::Ipv6Addr::new(0x2001, 0xdb8, address, 0, 0, 0, 0, 1);
    let four = || Frame::new().ipv4(host, other);
    let quoted = Frame::new().ipv4(other, host).udp(53, 5000).build()[14..].to_vec();
    let fragments = four().udp(5000, 53).payload(&[1; 100]).identification(round.into()).build_fragments(32);
    let mut frames = vec![
        four().udp(5000, 53).payload(b"who").build(),
        four().udp(5000, 53).payload(b"again").build(),
        four().udp(5000, 54).build(),
        four().tcp(4000, 80).flags(2).sequence_number(999).build(),
        four().tcp(4000, 80).flags(4).sequence_number(999).build(),
        four().tcp(4001, 80).flags(0).build(),
        four().traffic_class(0xb8).icmp_echo_request(7, 1).build(),
        four().icmp(3, 1, [0; 4]).payload(&quoted).build(),
        Frame::new().ipv6(six(1 + round), six(0)).udp(5000, 53).build(),
        Frame::new().ipv6(six(1 + round), six(0)).tcp(5000, 53).build(),
        Frame::new().ipv6(six(1 + round), six(0)).icmpv6(135, 0, [0; 4]).hop_limit(255).payload(&[0; 16]).build(),
        Frame::new().arp_request(host, other).build(),
        Frame::new().payload(&[0; 50]).build(),
    ];
    frames.extend(fragments);
    frames
}

#[test]
fn no_packet_takes_memory_from_a_heap() {
    let file = std::env::temp_dir().join(format!("firewall-no-allocation-{}", std::process::id()));
    let text = format!("{TEXT}[log]\nfile = {file:?}\n");
    let config: Config = toml::from_str(&text).unwrap();
    lab(move |lab| {
        let policy = Arc::new(Firewall.policy(config).unwrap());
        let before = AllocationCount::of_this_thread();
        Firewall.build(&policy, &lab.eal.memory()).unwrap();
        let allocated = Arc::new(AtomicU64::new(0));
        let trial = lab.trial(|worker| {
            let firewall = Firewall.instance(policy, worker).unwrap();
            Chain::from(Watched { firewall, allocated: Arc::clone(&allocated) })
        });
        let built = AllocationCount::of_this_thread();
        assert!(built.rust > before.rust && built.c > before.c && built.dpdk > before.dpdk, "building is counted");
        let mut trial = trial.with_fragments(Default::default());
        trial.advance(Duration::ZERO);
        let mut passed = 0;
        for round in 0..600 {
            for direction in [Direction::Outbound, Direction::Inbound] {
                passed += trial.send(direction, &frames(round)).outside.len();
            }
            trial.advance(Duration::from_millis(200));
        }
        assert!(passed > 2000, "{passed}");
        let drops = trial.report().drops;
        let count =
            |reason: &str| drops.iter().filter(|drop| drop.reason == reason).map(|drop| drop.count).sum::<u64>();
        for reason in ["firewall-default", "firewall-rate-limit", "firewall-tcp-flags", "firewall-side"] {
            assert!(count(reason) > 100, "{reason}: {drops:?}");
        }
        assert_eq!(allocated.load(Ordering::Relaxed), 0);
    });
    std::fs::remove_file(file).unwrap();
}
