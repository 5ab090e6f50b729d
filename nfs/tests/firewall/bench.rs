//! A firewall between two links, and the packets of those behind them.

use nf_framework::headers::TcpFlags;
use nf_framework::testing::{Frame, Lab, Outcome, Trial, lab};
use nf_framework::{Direction, Function, Invalid, SetupError, WorkerSetup};
use nfs::firewall::{Config, Firewall, Instance, Policy};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// Inside hosts.
pub(crate) const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);
pub(crate) const A6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
/// Outside hosts.
pub(crate) const X: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(crate) const Y: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(crate) const X6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
/// A router on the way to them.
pub(crate) const R: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
pub(crate) const R6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1);

pub(crate) const SYN: u8 = TcpFlags::SYN.0;
pub(crate) const ACK: u8 = TcpFlags::ACK.0;
pub(crate) const RST: u8 = TcpFlags::RST.0;
pub(crate) const SYN_ACK: u8 = SYN | ACK;
pub(crate) const FIN_ACK: u8 = TcpFlags::FIN.0 | ACK;

/// Everything may begin inside, and nothing outside.
pub(crate) const OUT: &str = "[[rules]]\nname = \"out\"\nfrom = \"inside\"\naction = \"accept\"\n";

pub(crate) struct Bench {
    pub(crate) trial: Trial,
    pub(crate) workers: u16,
    running: Arc<Policy>,
}

pub(crate) fn config(text: &str) -> Config {
    let mut config: Config = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    if !text.contains("connections = ") {
        // As many as one passage of time looks through.
        (config.connections, config.connections_v6) = (2048, 2048);
    }
    config
}

/// Runs a test on a wire, on one worker and on two with every packet at the wrong one.
pub(crate) fn with_firewall(text: &str, test: impl Fn(&mut Bench) + Send + Clone + 'static) {
    for workers in [1, 2] {
        let (config, test) = (config(text), test.clone());
        lab(move |lab| {
            let mut bench = Bench::new(lab, workers, config, None);
            test(&mut bench);
            // What is held of fragments goes with its time.
            bench.pass(10);
            bench.trial.check_for_leaks();
        });
    }
}

impl Bench {
    pub(crate) fn new(lab: &Lab<'_>, workers: u16, config: Config, router: Option<&str>) -> Self {
        let policy = Firewall.policy(config).unwrap_or_else(|invalid| panic!("{}: {}", invalid.key, invalid.message));
        let policy = Arc::new(policy);
        Firewall.build(&policy, &lab.eal.memory()).unwrap();
        let instance = |worker: &mut WorkerSetup| -> Result<Instance, SetupError> {
            Firewall.instance(Arc::clone(&policy), worker)
        };
        let trial = match workers {
            1 => lab.trial(|worker| instance(worker).unwrap().into()).with_fragments(Default::default()),
            _ => {
                let affinity = Firewall.affinity(&policy);
                lab.trial_at_wrong_workers(workers, affinity, |worker| instance(worker).unwrap().into())
            }
        };
        let trial = match router {
            Some(router) => trial.with_router(router, &[]),
            None => trial,
        };
        let mut bench = Self { trial, workers, running: policy };
        bench.trial.advance(Duration::ZERO);
        bench
    }

    /// Another configuration, as a reload brings it.
    pub(crate) fn reload(&mut self, text: &str) -> Result<(), Invalid> {
        // Twice the same: one for the workers, one for the reload after it.
        let policy = Firewall.replace(config(text), &self.running)?;
        self.running = Arc::new(Firewall.replace(config(text), &self.running)?);
        self.trial.publish(0, &Firewall, policy);
        Ok(())
    }

    pub(crate) fn send(&mut self, direction: Direction, frames: &[Vec<u8>]) -> Outcome {
        self.trial.send(direction, frames)
    }

    /// Whether a packet from inside passes, unchanged; why not otherwise.
    pub(crate) fn out(&mut self, frame: &Frame) -> Result<(), String> {
        self.goes(Direction::Outbound, frame.build())
    }

    /// Whether a packet from outside passes.
    pub(crate) fn back(&mut self, frame: &Frame) -> Result<(), String> {
        self.goes(Direction::Inbound, frame.build())
    }

    pub(crate) fn goes(&mut self, direction: Direction, frame: Vec<u8>) -> Result<(), String> {
        let outcome = self.send(direction, std::slice::from_ref(&frame));
        let (there, here) = match direction {
            Direction::Outbound => (outcome.outside, outcome.inside),
            Direction::Inbound => (outcome.inside, outcome.outside),
        };
        assert!(here.is_empty(), "{here:?} came back");
        match outcome.dropped.keys().next() {
            None => {
                assert_eq!(there, [frame], "it passes as it was");
                Ok(())
            }
            Some(reason) => {
                assert!(there.is_empty() && outcome.dropped.len() == 1);
                Err(reason.clone())
            }
        }
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, seconds: u64) -> Outcome {
        self.trial.advance(Duration::from_secs(seconds))
    }

    /// Connections, over all workers.
    pub(crate) fn connections(&self) -> u64 {
        self.trial.report().functions.iter().map(|function| function.sessions).sum()
    }

    /// A counter of the firewall's, over all workers.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.trial.report().counters.iter().filter(|counter| counter.name == name).map(|counter| counter.value).sum()
    }

    /// Opens a TCP connection from inside: the next numbers are 1000 of the inside host and 5000 of the other.
    pub(crate) fn connect(&mut self, port: u16) {
        assert_eq!(self.out(&tcp(A, X, port, 80, SYN).sequence_number(999)), Ok(()));
        let answer = tcp(X, A, 80, port, SYN_ACK).sequence_number(4999).acknowledgment_number(1000);
        assert_eq!(self.back(&answer), Ok(()));
        assert_eq!(self.out(&tcp(A, X, port, 80, ACK).sequence_number(1000).acknowledgment_number(5000)), Ok(()));
        // Its numbers are known of both sides from here on.
        assert_eq!(self.back(&tcp(X, A, 80, port, ACK).sequence_number(5000).acknowledgment_number(1000)), Ok(()));
    }
}

pub(crate) fn v4(source: Ipv4Addr, destination: Ipv4Addr) -> Frame {
    Frame::new().ipv4(source, destination)
}

pub(crate) fn v6(source: Ipv6Addr, destination: Ipv6Addr) -> Frame {
    Frame::new().ipv6(source, destination)
}

/// A segment with a window of 1000.
pub(crate) fn tcp(source: Ipv4Addr, destination: Ipv4Addr, from: u16, to: u16, flags: u8) -> Frame {
    v4(source, destination).tcp(from, to).flags(flags).window(1000)
}

/// The packet in a frame, as an ICMP error quotes it.
pub(crate) fn packet(frame: &Frame) -> Vec<u8> {
    frame.build()[14..].to_vec()
}

pub(crate) fn denied<T>(reason: &str) -> Result<T, String> {
    Err(format!("firewall-{reason}"))
}
