//! A NAT between two links, and who is on them.

use nf_framework::headers::{Headers, MacAddress, Network, TcpFlags, Transport};
use nf_framework::testing::{Frame, Lab, Outcome, Trial, lab};
use nf_framework::{Direction, Function, SetupError, WorkerSetup};
use nfs::nat::{Config, Instance, Nat, Policy};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ROUTER: &str = r#"
[interfaces.lan]
side = "inside"
addresses = ["192.168.0.1/16"]

[interfaces.wan]
side = "outside"
addresses = ["198.51.100.1/24"]

[[routes]]
to = "0.0.0.0/0"
via = "198.51.100.2"
"#;

/// Inside hosts, behind one MAC address each.
pub(crate) const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 20);
/// Outside ones, behind the next router.
pub(crate) const X: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(crate) const Y: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// The pool's address.
pub(crate) const P: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

const NEXT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x99]);
const NEXT4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// A NAT in a trial.
pub(crate) struct Bench {
    pub(crate) trial: Trial,
    pub(crate) nat: Nat,
}

/// The MAC address of an inside host.
fn mac(host: Ipv4Addr) -> MacAddress {
    let [.., c, d] = host.octets();
    MacAddress([2, 0, 0, 1, c, d])
}

/// A configuration with one pool of one address, and what is said beside it.
pub(crate) fn config(more: &str) -> Config {
    let text = if more.contains("[[pools]]") {
        more.to_owned()
    } else {
        format!("{more}\n[[pools]]\naddresses = [\"{P}\"]\n")
    };
    toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Runs a test on one worker and on two with every packet at the wrong one, with this configuration.
pub(crate) fn with_nat(config_text: &'static str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    for workers in [1, 2] {
        lab(move |lab| {
            let mut bench = Bench::new(lab, workers, config(config_text));
            test(&mut bench);
            bench.trial.check_for_leaks();
        });
    }
}

impl Bench {
    pub(crate) fn new(lab: &Lab<'_>, workers: u16, config: Config) -> Self {
        let nat = Nat::new();
        let policy = Arc::new(nat.policy(config).unwrap());
        let addresses: Vec<String> = nat.addresses(&policy).iter().map(ToString::to_string).collect();
        let instance =
            |worker: &mut WorkerSetup| -> Result<Instance, SetupError> { nat.instance(Arc::clone(&policy), worker) };
        let trial = match workers {
            1 => lab.trial(|worker| instance(worker).unwrap().into()).with_fragments(Default::default()),
            _ => lab.trial_at_wrong_workers(workers, nat.affinity(&policy), |worker| instance(worker).unwrap().into()),
        };
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut bench = Self { trial: trial.with_router(ROUTER, &addresses), nat };
        bench.introduce();
        bench
    }

    /// Makes the hosts known to the router.
    fn introduce(&mut self) {
        let hello = |mac: MacAddress, address: Ipv4Addr, router: [u8; 4]| {
            Frame::new().ethernet(mac.0, MacAddress::BROADCAST.0).arp_request(address, router).build()
        };
        self.trial.advance(Duration::ZERO);
        let inside: Vec<_> = [A, B].map(|host| hello(mac(host), host, [192, 168, 0, 1])).into();
        let said = self.trial.send(Direction::Outbound, &inside);
        assert_eq!(said.inside.len(), 2, "{said:?}");
        let said = self.trial.send(Direction::Inbound, &[hello(NEXT, NEXT4, [198, 51, 100, 1])]);
        assert_eq!(said.outside.len(), 1, "{said:?}");
        // The announcements are over.
        self.trial.advance(Duration::from_secs(3));
        self.trial.advance(Duration::from_secs(3));
    }

    /// Another policy, as a reload brings it.
    pub(crate) fn reload(&mut self, running: &Policy, config: Config) -> Policy {
        self.nat.replace(config, running).unwrap()
    }

    /// A packet of an inside host.
    pub(crate) fn out(&mut self, frame: &Frame) -> Outcome {
        self.trial.send(Direction::Outbound, &[frame.build()])
    }

    /// A packet from outside.
    pub(crate) fn back(&mut self, frame: &Frame) -> Outcome {
        self.trial.send(Direction::Inbound, &[frame.build()])
    }

    pub(crate) fn pass(&mut self, seconds: u64) -> Outcome {
        self.trial.advance(Duration::from_secs(seconds))
    }
}

/// A frame from an inside host to this address.
pub(crate) fn from(host: Ipv4Addr, to: Ipv4Addr) -> Frame {
    Frame::new().ethernet(mac(host).0, Trial::INSIDE_MAC.0).ipv4(host, to).dont_fragment()
}

/// A frame from an outside host to this address.
pub(crate) fn from_outside(host: Ipv4Addr, to: Ipv4Addr) -> Frame {
    Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0).ipv4(host, to).dont_fragment()
}

/// Source, destination, ports (or the identifier twice) of a frame whose checksums are right.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Tuple {
    pub(crate) source: Ipv4Addr,
    pub(crate) source_port: u16,
    pub(crate) destination: Ipv4Addr,
    pub(crate) destination_port: u16,
    pub(crate) flags: TcpFlags,
}

pub(crate) fn tuple(frame: &[u8]) -> Tuple {
    let mut frame = frame.to_vec();
    let headers = Headers::parse(&mut frame).unwrap();
    assert_eq!(headers.verify_checksums(), Ok(()));
    let Network::Ipv4 { header, .. } = &headers.network else { panic!("not IPv4") };
    let (ports, flags) = match &headers.transport {
        Transport::Tcp { header, .. } => (headers.transport.ports().unwrap(), header.flags),
        Transport::Icmp(icmp) => ((icmp.identifier(), icmp.identifier()), TcpFlags(0)),
        transport => (transport.ports().unwrap(), TcpFlags(0)),
    };
    Tuple {
        source: header.source.into(),
        source_port: ports.0,
        destination: header.destination.into(),
        destination_port: ports.1,
        flags,
    }
}

/// The one frame that left by the outside port.
pub(crate) fn left(outcome: &Outcome) -> Tuple {
    assert_eq!((outcome.outside.len(), outcome.inside.len()), (1, 0), "{outcome:?}");
    tuple(&outcome.outside[0])
}

/// The one frame that came to an inside host.
pub(crate) fn came(outcome: &Outcome) -> Tuple {
    assert_eq!((outcome.outside.len(), outcome.inside.len()), (0, 1), "{outcome:?}");
    tuple(&outcome.inside[0])
}

/// Why the one packet was dropped.
pub(crate) fn dropped(outcome: &Outcome) -> &str {
    assert_eq!(outcome.dropped.len(), 1, "{outcome:?}");
    outcome.dropped.keys().next().unwrap()
}
