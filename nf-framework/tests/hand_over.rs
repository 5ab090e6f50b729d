//! Programs of two workers whose devices bring packets to the wrong one.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::{Scratch, flow_of, read_capture, run_until, write_capture};
use dpdk_rs::Eal;
use nf_framework::config::ConfigFile;
use nf_framework::testing::Frame;
use nf_framework::{
    Affinity, Context, Control, Direction, Drained, Function, Invalid, Loaded, Mbuf, PacketFunction, Report, Runtime,
    RuntimeConfig, RuntimeError, SetupError, Tuple, Verdict, WorkerSetup,
};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use Direction::{Inbound, Outbound};

/// Writes the number of its worker over the last octet of every packet.
struct Signed {
    worker: u8,
    /// The second worker waits, with a packet in its hand, until the first has ended.
    waits_for: Option<Arc<AtomicBool>>,
    /// The second worker takes longer for a packet than the first for a hundred.
    slow: bool,
}

struct SignedControl {
    affinity: Affinity,
    first_has_ended: Option<Arc<AtomicBool>>,
    slow: bool,
}

impl PacketFunction for Signed {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        if let Some(ended) = self.waits_for.as_ref().filter(|_| self.worker == 1) {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        if self.slow && self.worker == 1 {
            std::thread::sleep(Duration::from_micros(100));
        }
        *packet.data_mut().last_mut().unwrap() = self.worker;
        Verdict::Next
    }
}

impl Drop for Signed {
    fn drop(&mut self) {
        if let Some(ended) = self.waits_for.as_ref().filter(|_| self.worker == 0) {
            ended.store(true, Ordering::Relaxed);
        }
    }
}

impl Function for SignedControl {
    type Config = ();
    type Policy = ();
    type Instance = Signed;

    fn name(&self) -> &str {
        "signed"
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn affinity(&self, (): &()) -> Affinity {
        self.affinity
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<Signed, SetupError> {
        let owner_is_one_of_us = worker.steering().is_some_and(|steering| steering.affinity() == self.affinity);
        assert!(owner_is_one_of_us, "two workers and something to keep together");
        Ok(Signed { worker: u8::try_from(worker.index())?, waits_for: self.first_has_ended.clone(), slow: self.slow })
    }

    fn adopt(_: &mut Signed, _: Arc<()>) {}
}

fn signed(affinity: Affinity) -> Vec<Loaded> {
    vec![Loaded::new(SignedControl { affinity, first_has_ended: None, slow: false }, ())]
}

/// Six packets of each are no more than the ring between two workers holds, however long the second is not run.
const FLOWS: u16 = 80;

/// Three packets of each of so many flows that cross between two ports, as seen from inside
/// or from outside.
fn crossing(direction: Direction) -> Vec<Vec<u8>> {
    let both = |flow: u16| {
        let host = [10, 0, 0, u8::try_from(flow % 50).unwrap()];
        match direction {
            Outbound => Frame::new().ipv4(host, [192, 0, 2, 1]).udp(1000 + flow, 443),
            Inbound => Frame::new().ipv4([192, 0, 2, 1], host).udp(443, 1000 + flow),
        }
    };
    (0..3 * FLOWS).map(|number| both(number % FLOWS).payload(&[0; 20]).build()).collect()
}

/// The files of the capture devices, kept as long as the process runs.
fn files() -> &'static Scratch {
    static FILES: std::sync::OnceLock<Scratch> = std::sync::OnceLock::new();
    FILES.get_or_init(|| {
        let files = Scratch::new("hand-over");
        write_capture(files.path("inside"), &crossing(Outbound));
        write_capture(files.path("outside"), &crossing(Inbound));
        files
    })
}

fn devices() -> Vec<String> {
    let files = files();
    let [inside, outside] = ["inside", "outside"].map(|name| files.path(name));
    let [from_inside, from_outside] = ["from-inside", "from-outside"].map(|name| files.path(name));
    vec![
        format!("net_pcap0,rx_pcap={inside},tx_pcap={from_outside}"),
        format!("net_pcap1,rx_pcap={outside},tx_pcap={from_inside}"),
        // One for each test: such a device starts only once.
        format!("net_pcap2,rx_pcap={inside},infinite_rx=1"),
        format!("net_pcap3,rx_pcap={inside},infinite_rx=1"),
        "net_null0".to_owned(),
        "net_null1".to_owned(),
        "net_ring0".to_owned(),
    ]
}

fn on_eal<T: Send + 'static>(test: impl FnOnce(&Eal) -> T + Send + 'static) -> T {
    common::on_eal(devices, test)
}

fn config(ports: &str) -> RuntimeConfig {
    let text = format!("forwarding = 'wire'\n[ports]\ndescriptors = 256\n{ports}");
    ConfigFile::parse("test.toml", text).unwrap().framework(&[]).unwrap()
}

#[test]
fn a_device_of_one_queue_feeds_two_workers_and_sends_for_both() {
    on_eal(|eal| {
        let config = config("inside = 'net_pcap0'\noutside = 'net_pcap1'");
        let all = |report: &Report| report.balance.sent == 6 * u64::from(FLOWS);
        let report = run_until(eal, &config, signed(Affinity::Flow), all);
        assert!(report.drops.is_empty() && report.balance.received == 6 * u64::from(FLOWS), "{report}");
        assert!(report.to_string().contains("times a packet was handed over"), "{report}");

        // Both directions of a flow have met on one worker, and both workers had some.
        let mut owners: HashMap<_, Vec<u8>> = HashMap::new();
        for (name, came_in) in [("from-inside", crossing(Outbound)), ("from-outside", crossing(Inbound))] {
            let mut left = read_capture(files().path(name));
            for frame in &mut left {
                let signature = std::mem::take(frame.last_mut().unwrap());
                owners.entry(flow_of(Tuple::of_frame(frame).unwrap())).or_default().push(signature);
            }
            let (mut left, mut came_in) = (left, came_in);
            left.sort();
            came_in.sort();
            assert!(left == came_in, "{name}: the same packets leave");
        }
        assert_eq!(owners.len(), usize::from(FLOWS));
        for (flow, owners) in &owners {
            assert!(owners.len() == 6 && owners.iter().all(|owner| owner == &owners[0]), "{flow:?}: {owners:?}");
        }
        let second = u64::try_from(owners.values().filter(|owners| owners[0] == 1).count()).unwrap();
        assert!((1..u64::from(FLOWS)).contains(&second), "{second} flows at the second worker");
        // Each of its packets came to it, and went back to be sent.
        assert_eq!(report.handed_over, second * 6 * 2);
    });
}

#[test]
fn a_worker_that_stays_behind_costs_only_packets_that_are_counted() {
    on_eal(|eal| {
        let first_has_ended = Some(Arc::default());
        let function = Loaded::new(SignedControl { affinity: Affinity::Flow, first_has_ended, slow: false }, ());
        let config = config("inside = 'net_pcap2'");
        let report = run_until(eal, &config, vec![function], |report| report.dropped("hand-over-full") > 1000);
        // What was in the ring to the worker that hung.
        assert!(report.dropped("stopped") >= 511 - 64, "{report}");
    });
}

#[test]
fn draining_does_not_wait_for_packets_that_only_pass() {
    on_eal(|eal| {
        // The ring to the second worker is never empty.
        let function = SignedControl { affinity: Affinity::Flow, first_has_ended: None, slow: true };
        let functions = vec![Loaded::new(function, ())];
        let runtime = Runtime::new(eal, &config("inside = 'net_pcap3'"), functions).unwrap();
        let control = |control: &Control| {
            while control.report().dropped("hand-over-full") == 0 {
                std::thread::yield_now();
            }
            control.drain(Duration::from_secs(10)).unwrap()
        };
        let (drained, report) = runtime.run(control).unwrap();
        assert!(matches!(drained, Drained::Empty(_)), "{drained:?}");
        assert_eq!(report.balance.unaccounted(), 0, "{report}");
    });
}

#[test]
fn what_cannot_be_steered_is_an_error_and_leaves_nothing_behind() {
    on_eal(|eal| {
        let null = "inside = 'net_null0'\noutside = 'net_null1'\n";
        let ring = "inside = 'net_ring0'\nsteering = 'rss'";
        let refused = |ports: &str, functions| -> RuntimeError {
            Runtime::new(eal, &config(ports), functions).map(drop).unwrap_err()
        };
        let error = refused(ring, signed(Affinity::Flow)).to_string();
        assert_eq!(
            error,
            "port net_ring0 (net_ring) takes an RSS key of 0 bytes, 40 or more are needed (steering = \"auto\" under \
             [ports] hands packets over between workers instead)"
        );
        let one_queue = refused("inside = 'net_pcap0'\nsteering = 'rss'", signed(Affinity::Flow)).to_string();
        assert!(one_queue.starts_with("port net_pcap0 (net_pcap) was started with one queue"), "{one_queue}");

        // 2^15 ports in each of two blocks, for two workers.
        let halves = Affinity::TranslatedPort { block_bits: 15 };
        assert!(Runtime::new(eal, &config(null), signed(halves)).is_ok());
        let one_side = refused("inside = 'net_null0'", signed(Affinity::InsideHost)).to_string();
        assert!(one_side.starts_with("[ports] outside: missing, and the functions need all flows of an"), "{one_side}");
        let blocks = Affinity::TranslatedPort { block_bits: 16 };
        let error = refused(null, signed(blocks)).to_string();
        assert!(error.starts_with("all flows of an inside host, translated to ports in blocks of 2^16, shared out in 1 part(s), is too little"), "{error}");

        struct Other;
        impl Function for Other {
            type Config = ();
            type Policy = ();
            type Instance = Signed;
            fn name(&self) -> &str {
                "other"
            }
            fn policy(&self, (): ()) -> Result<(), Invalid> {
                Ok(())
            }
            fn affinity(&self, (): &()) -> Affinity {
                Affinity::OutsideHost
            }
            fn instance(&self, _: Arc<()>, _: &mut WorkerSetup) -> Result<Signed, SetupError> {
                Err("never made".into())
            }
            fn adopt(_: &mut Signed, _: Arc<()>) {}
        }
        let mut functions = signed(Affinity::InsideHost);
        functions.push(Loaded::new(Other, ()));
        let error = refused(null, functions).to_string();
        assert!(error.starts_with("signed needs all flows of an inside host on one worker and other, "), "{error}");

        // All ports are free again.
        for affinity in [Affinity::Flow, Affinity::TranslatedPort { block_bits: 14 }] {
            let report = run_until(eal, &config(null), signed(affinity), |report| report.balance.sent > 1000);
            assert!(report.balance.received > 1000);
        }
    });
}
