//! Fragments in a whole program: two workers on devices of software.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::{Scratch, run_until, write_capture};
use dpdk_rs::Eal;
use nf_framework::config::ConfigFile;
use nf_framework::testing::Frame;
use nf_framework::{
    Affinity, Context, Counter, Function, Invalid, Loaded, Mbuf, PacketFunction, Ports, Report, RuntimeConfig,
    SetupError, Tuple, Verdict, WorkerSetup,
};
use std::sync::{Arc, OnceLock};

/// Counts the packets of one flow.
struct Count(Counter);

impl PacketFunction for Count {
    fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        let ours = Tuple::of_packet(packet).is_some_and(|tuple| tuple.ports == Ports::Both(1000, 53));
        self.0.add(ours.into());
        Verdict::Next
    }
}

/// Its control object, with what it needs.
struct Counting(Affinity);

impl Function for Counting {
    type Config = ();
    type Policy = ();
    type Instance = Count;

    fn name(&self) -> &str {
        "counting"
    }

    fn affinity(&self, (): &()) -> Affinity {
        self.0
    }

    fn policy(&self, (): ()) -> Result<(), Invalid> {
        Ok(())
    }

    fn instance(&self, _: Arc<()>, worker: &mut WorkerSetup) -> Result<Count, SetupError> {
        Ok(Count(worker.counter("of-the-flow")))
    }

    fn adopt(_: &mut Count, _: Arc<()>) {}
}

/// Three fragments with the first in the middle, and three whose first one is missing.
fn devices() -> Vec<String> {
    static FILES: OnceLock<Scratch> = OnceLock::new();
    let files = FILES.get_or_init(|| Scratch::new("fragments"));
    let packet = Frame::new().ipv4([10, 0, 0, 1], [192, 0, 2, 1]).udp(1000, 53).payload(&[7; 100]);
    let whole = packet.clone().identification(1).build_fragments(40);
    let broken = packet.identification(2).build_fragments(32);
    let frames = [&whole[1], &whole[0], &whole[2], &broken[1], &broken[3], &broken[2]].map(Clone::clone);
    [0, 1]
        .map(|number| {
            let path = files.path(&number.to_string());
            write_capture(&path, &frames);
            format!("net_pcap{number},rx_pcap={path}")
        })
        .to_vec()
}

fn run(port: &'static str, affinity: Affinity, enough: fn(&Report) -> bool) -> Report {
    common::on_eal(devices, move |eal: &Eal| {
        let text = format!("forwarding = 'wire'\npackets = 4095\n[ports]\ndescriptors = 256\ninside = '{port}'\n");
        let config: RuntimeConfig = ConfigFile::parse("f.toml", &text).unwrap().framework(&[]).unwrap();
        run_until(eal, &config, vec![Loaded::new(Counting(affinity), ())], enough)
    })
}

#[test]
fn functions_that_care_about_flows_see_ports_in_every_fragment_and_what_waits_at_the_end_is_stopped() {
    // What is held when all others have gone is dropped by the end.
    let all = |report: &Report| report.balance.received == 6 && report.balance.sent == 3;
    let report = run("net_pcap0", Affinity::Flow, all);
    assert_eq!(report.counter("counting", "of-the-flow"), Some(3), "{report}");
    assert_eq!((report.dropped("stopped"), report.balance.held), (3, 0), "{report}");
}

#[test]
fn functions_that_do_not_care_see_fragments_as_they_come() {
    let report = run("net_pcap1", Affinity::Any, |report| report.balance.sent == 6);
    assert_eq!(report.counter("counting", "of-the-flow"), Some(0), "{report}");
    assert_eq!(report.dropped("stopped"), 0, "{report}");
}
