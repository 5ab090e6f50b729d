//! No heap allocation between receive and send: Rust's, C's and DPDK's are all counted,
//! on the worker's own thread.

mod common;

use common::{Scratch, write_capture};

use dpdk_rs::allocation_count::{AllocationCount, CountingAllocator};
use dpdk_rs::{Eal, Mempool, MempoolConfig};
use nf_framework::config::ConfigFile;
use nf_framework::testing::Frame;
use nf_framework::{
    Batch, Budget, Context, Control, Counter, DropReason, Function, Invalid, Loaded, Mbuf, NetworkFunction,
    PacketFunction, PortsConfig, Position, Runtime, RuntimeConfig, SetupError, Verdict, WorkerSetup,
};
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// Each worker's part.
const PACKETS: u64 = 5_000_000;

/// What this thread has allocated since its first batch, and how many packets came by.
#[derive(Default)]
struct Watch {
    first: Option<AllocationCount>,
    packets: u64,
    allocated: [u64; 3],
    /// Allocates at the next batch, to show that it is seen.
    spill: Option<usize>,
    spilled: Vec<u8>,
    policies: u64,
}

impl NetworkFunction for Watch {
    fn batch(&mut self, batch: &mut Batch, _: &mut Context<'_>) {
        if let Some(size) = self.spill.take() {
            self.spilled = Vec::with_capacity(size);
        }
        let now = AllocationCount::of_this_thread();
        let first = *self.first.get_or_insert(now);
        self.allocated = [now.rust - first.rust, now.c - first.c, now.dpdk - first.dpdk];
        self.packets += batch.undecided().count() as u64;
    }
}

/// Does with packets all that a function may do.
struct Busy {
    seen: u64,
    held: VecDeque<(Mbuf, Position)>,
    reason: DropReason,
    counter: Counter,
}

impl Busy {
    const ROOM: usize = 64;
}

impl NetworkFunction for Busy {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        for slot in batch.undecided() {
            self.seen += 1;
            match self.seen % 64 {
                0 => batch.decide(slot, Verdict::Drop(self.reason)),
                1 => batch.decide(slot, Verdict::Turn),
                2 => batch.decide(slot, Verdict::Send(cx.exit())),
                3 if self.held.len() < Self::ROOM => {
                    self.held.extend(batch.take(slot).map(|packet| (packet, cx.position())));
                }
                4 => {
                    if let Some(packet) = batch.take(slot) {
                        cx.consume(packet);
                    }
                }
                5 => {
                    if let Some(packet) = cx.allocate() {
                        cx.emit(packet, cx.direction().reversed());
                    }
                }
                _ => {}
            }
        }
        self.counter.add(1);
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        for _ in 0..budget.0 {
            let Some((packet, position)) = self.held.pop_front() else { return };
            cx.resume(packet, position);
        }
    }

    fn held(&self) -> usize {
        self.held.len()
    }
}

/// Reads and writes every packet.
struct Touch;

impl PacketFunction for Touch {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        if let Some(first) = packet.data_mut().first_mut() {
            *first = first.wrapping_add(1);
        }
        Verdict::Next
    }
}

macro_rules! control {
    ($name:literal, $control:ident, $instance:ty, $adopt:expr, $make:expr) => {
        struct $control;

        impl Function for $control {
            type Config = ();
            type Policy = [u8; 100];
            type Instance = $instance;

            fn name(&self) -> &str {
                $name
            }

            fn policy(&self, (): ()) -> Result<[u8; 100], Invalid> {
                Ok([0; 100])
            }

            fn instance(&self, _: Arc<[u8; 100]>, worker: &mut WorkerSetup) -> Result<$instance, SetupError> {
                ($make)(worker)
            }

            fn adopt(instance: &mut $instance, _: Arc<[u8; 100]>) {
                ($adopt)(instance);
            }
        }
    };
}

control!("watch", WatchControl, Watch, |watch: &mut Watch| watch.policies += 1, |_| Ok(Watch::default()));
control!("touch", TouchControl, Touch, |_| (), |_| Ok(Touch));
control!("busy", BusyControl, Busy, |_| (), |worker: &mut WorkerSetup| {
    let held = VecDeque::with_capacity(Busy::ROOM);
    let reason = worker.drop_reason("busy", "every 64th")?;
    Ok(Busy { seen: 0, held, reason, counter: worker.counter("batches") })
});

fn config() -> RuntimeConfig {
    let text = "forwarding = 'wire'\npackets = 8191\n[ports]\ninside = 'net_null0'\noutside = 'net_null1'\n";
    ConfigFile::parse("test.toml", text).and_then(|file| file.framework(&[])).expect("a good configuration")
}

fn functions() -> Vec<Loaded> {
    vec![Loaded::new(TouchControl, [0; 100]), Loaded::new(BusyControl, [0; 100]), Loaded::new(WatchControl, [0; 100])]
}

/// A device of one queue repeats a capture of many flows for ever, with a packet in fragments among
/// them whose first one comes last.
fn devices() -> Vec<String> {
    static FILES: OnceLock<Scratch> = OnceLock::new();
    let files = FILES.get_or_init(|| Scratch::new("no-allocation"));
    let flow = |port| Frame::new().ipv4([10, 0, 0, 1], [192, 0, 2, 1]).udp(port, 53).build();
    let capture = files.path("flows");
    let fragmented = Frame::new().ipv4([10, 0, 0, 2], [192, 0, 2, 1]).udp(7, 8).payload(&[0; 100]);
    write_capture(
        &capture,
        &(1000..1128).map(flow).chain(fragmented.build_fragments(40).into_iter().rev()).collect::<Vec<_>>(),
    );
    let flows = format!("net_pcap0,rx_pcap={capture},infinite_rx=1");
    vec!["net_null0".to_owned(), "net_null1".to_owned(), flows]
}

fn on_eal<T: Send + 'static>(test: impl FnOnce(&Eal) -> T + Send + 'static) -> T {
    common::on_eal(devices, test)
}

#[test]
fn handing_packets_over_between_workers_allocates_nothing() {
    on_eal(|eal| {
        let config = RuntimeConfig { ports: PortsConfig::new("net_pcap0"), ..config() };
        let functions = vec![Loaded::new(TouchControl, [0; 100]), Loaded::new(WatchControl, [0; 100])];
        let control = |control: &Control| loop {
            let watched = control.command::<WatchControl, _>("watch", |watch, _| (watch.packets, watch.allocated));
            let watched = watched.unwrap();
            if watched.iter().all(|(packets, _)| *packets >= PACKETS / 20) {
                return watched;
            }
            std::thread::yield_now();
        };
        let (watched, report) = Runtime::new(eal, &config, functions).unwrap().run(control).unwrap();
        println!("{report}");
        assert!(watched.iter().all(|(_, allocated)| *allocated == [0; 3]), "{watched:?}");
        // To the second worker, and back to be sent as far as the first one keeps up.
        assert!(report.handed_over > PACKETS / 20 * 3 / 2, "{report}");
        assert_eq!(report.balance.unaccounted(), 0, "{report}");
    });
}

#[test]
fn ten_million_packets_through_two_workers_allocate_nothing() {
    on_eal(|eal| {
        let runtime = Runtime::new(eal, &config(), functions()).unwrap();
        let control = |control: &Control| loop {
            // Commands and policies come between the bursts, and the worker allocates nothing for them.
            control.publish::<WatchControl>("watch", Arc::new([1; 100])).unwrap();
            let watched = control
                .command::<WatchControl, _>("watch", |watch, _| (watch.packets, watch.policies, watch.allocated));
            let watched = watched.unwrap();
            if watched.iter().all(|(packets, _, _)| *packets >= PACKETS) {
                return watched;
            }
            std::thread::yield_now();
        };
        let (watched, report) = runtime.run(control).unwrap();
        for (worker, (packets, policies, [rust, c, dpdk])) in watched.iter().enumerate() {
            println!(
                "worker {worker}: {packets} packets and {policies} policies, \
                 allocations: {rust} by Rust, {c} by C, {dpdk} by DPDK"
            );
        }
        println!("{report}");
        assert!(watched.iter().all(|(_, _, allocated)| *allocated == [0; 3]), "{watched:?}");
        assert_eq!(report.balance.unaccounted(), 0, "{report}");
        let balance = report.balance;
        assert!(balance.originated > 0 && balance.consumed > 0 && report.dropped("busy") > 0, "{report}");
        assert!(report.functions[1].taken > report.balance.consumed, "some are held and resumed: {report}");
    });
}

#[test]
fn what_a_worker_does_allocate_is_counted() {
    on_eal(|eal| {
        let runtime = Runtime::new(eal, &config(), functions()).unwrap();
        let control = |control: &Control| {
            let watch = |command: fn(&mut Watch, &mut Context<'_>) -> [u64; 3]| {
                control.command::<WatchControl, _>("watch", command).unwrap()
            };
            while control.report().functions[2].seen == 0 {}
            watch(|watch, _| {
                watch.spill = Some(1000);
                [0; 3]
            });
            // Rust's allocator stands on C's.
            while watch(|watch, _| watch.allocated).iter().any(|[rust, c, _]| *rust == 0 || *c == 0) {}
        };
        runtime.run(control).unwrap();

        let before = AllocationCount::of_this_thread();
        let pool = Mempool::new(eal, "counted", MempoolConfig { size: 127, cache: 0, ..MempoolConfig::default() });
        let after = AllocationCount::of_this_thread();
        assert!(pool.is_ok() && after.dpdk > before.dpdk && after.c > before.c, "{before:?} {after:?}");
    });
}
