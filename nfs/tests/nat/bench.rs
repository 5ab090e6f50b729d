//! A NAT between two links, and who is on them.

use nf_framework::headers::{Headers, MacAddress, Network, TcpFlags, Transport};
use nf_framework::testing::{Frame, Lab, Outcome, Trial, lab};
use nf_framework::{Direction, Function, Invalid, SetupError, WorkerSetup};
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
pub(crate) const C: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 40);
/// Outside ones, behind the next router.
pub(crate) const X: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
pub(crate) const Y: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
pub(crate) const Z: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 3);
/// A router on the way to them.
pub(crate) const R: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 200);
/// The pool's address.
pub(crate) const P: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 100);

pub(crate) const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
/// Of a frame that does not say it.
const HOPS: u8 = 64;

pub(crate) const NEXT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x99]);
const NEXT4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// A NAT in a trial.
pub(crate) struct Bench {
    pub(crate) trial: Trial,
    pub(crate) nat: Nat,
    pub(crate) workers: u16,
    running: Arc<Policy>,
}

/// The MAC address of an inside host.
pub(crate) fn mac(host: Ipv4Addr) -> MacAddress {
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
    let mut config: Config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    if !more.contains("sessions = ") {
        // As many as one passage of time looks through.
        config.sessions = 4096;
    }
    config
}

/// Runs a test on one worker and on two with every packet at the wrong one, with this configuration.
pub(crate) fn with_nat(config_text: &str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    with_nat_between(ROUTER, config_text, test);
}

/// As [`with_nat`], with other interfaces and routes.
pub(crate) fn with_nat_between(router: &str, config_text: &str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    for workers in [1, 2] {
        run(workers, router, config_text, test);
    }
}

/// As [`with_nat`], for what one worker answers alone.
pub(crate) fn on_one_worker(config_text: &str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    run(1, ROUTER, config_text, test);
}

fn run(workers: u16, router: &str, config_text: &str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    let (router, config) = (router.to_owned(), config(config_text));
    lab(move |lab| {
        let mut bench = Bench::new(lab, workers, &router, config);
        test(&mut bench);
        // What is held goes with its time.
        bench.pass(10);
        bench.trial.check_for_leaks();
    });
}

impl Bench {
    pub(crate) fn new(lab: &Lab<'_>, workers: u16, router: &str, config: Config) -> Self {
        let nat = Nat::new();
        let policy = Arc::new(nat.policy(config).unwrap());
        let instance =
            |worker: &mut WorkerSetup| -> Result<Instance, SetupError> { nat.instance(Arc::clone(&policy), worker) };
        let trial = match workers {
            1 => lab.trial(|worker| instance(worker).unwrap().into()).with_fragments(Default::default()),
            _ => lab.trial_at_wrong_workers(workers, nat.affinity(&policy), |worker| instance(worker).unwrap().into()),
        };
        let addresses = addresses(&nat, &policy);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let trial = trial.with_router(router, &addresses);
        let mut bench = Self { trial, nat, workers, running: policy };
        bench.trial.advance(Duration::ZERO);
        bench.introduce();
        // The announcements are over.
        bench.pass(3);
        bench.pass(3);
        bench
    }

    /// Makes the hosts known to the router.
    fn introduce(&mut self) {
        let hello = |mac: MacAddress, address: Ipv4Addr, router: [u8; 4]| {
            Frame::new().ethernet(mac.0, MacAddress::BROADCAST.0).arp_request(address, router).build()
        };
        let inside: Vec<_> = [A, B, C].map(|host| hello(mac(host), host, [192, 168, 0, 1])).into();
        let said = self.trial.send(Direction::Outbound, &inside);
        assert_eq!(said.inside.len(), 3, "{said:?}");
        let said = self.trial.send(Direction::Inbound, &[hello(NEXT, NEXT4, [198, 51, 100, 1])]);
        assert_eq!(said.outside.len(), 1, "{said:?}");
    }

    /// Another configuration, as a reload brings it.
    pub(crate) fn reload(&mut self, config: Config) -> Result<(), Invalid> {
        // Twice the same: one for the workers, one for the reload after it.
        let policy = self.nat.replace(config.clone(), &self.running)?;
        self.running = Arc::new(self.nat.replace(config, &self.running)?);
        let addresses = addresses(&self.nat, &policy);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.trial.reload_router(ROUTER, &addresses);
        self.trial.publish(0, &self.nat, policy);
        // New addresses are announced.
        self.pass(3);
        self.pass(3);
        Ok(())
    }

    /// A packet of an inside host.
    pub(crate) fn out(&mut self, frame: &Frame) -> Outcome {
        self.trial.send(Direction::Outbound, &[frame.build()])
    }

    /// A packet from outside.
    pub(crate) fn back(&mut self, frame: &Frame) -> Outcome {
        self.trial.send(Direction::Inbound, &[frame.build()])
    }

    /// Several packets of one end at once.
    pub(crate) fn burst(&mut self, direction: Direction, frames: &[Vec<u8>]) -> Outcome {
        self.trial.send(direction, frames)
    }

    /// Time passes, and the hosts show themselves again; what is left out is what the router asks them.
    pub(crate) fn pass(&mut self, seconds: u64) -> Outcome {
        let mut outcome = self.trial.advance(Duration::from_secs(seconds));
        self.introduce();
        let is_ip = |frame: &Vec<u8>| frame[12..14] == [8, 0];
        outcome.inside.retain(is_ip);
        outcome.outside.retain(is_ip);
        outcome
    }

    /// A counter of the NAT's, over all workers.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.trial.report().counters.iter().filter(|counter| counter.name == name).map(|counter| counter.value).sum()
    }

    /// The gauge of mappings, over all workers.
    pub(crate) fn mappings(&self) -> u64 {
        self.trial.report().gauges.iter().filter(|gauge| gauge.name == "mappings").map(|gauge| gauge.value).sum()
    }

    /// Sessions, over all workers.
    pub(crate) fn sessions(&self) -> u64 {
        self.trial.report().functions.iter().map(|function| function.sessions).sum()
    }

    /// The external port that a UDP port of an inside host has towards this one.
    pub(crate) fn udp_port(&mut self, host: Ipv4Addr, port: u16, to: (Ipv4Addr, u16)) -> u16 {
        left(&self.out(&from(host, to.0).udp(port, to.1))).source_port
    }

    /// Opens a TCP connection from inside, and gives its external port.
    pub(crate) fn connect(&mut self, host: Ipv4Addr, port: u16, to: (Ipv4Addr, u16)) -> u16 {
        let external = left(&self.out(&from(host, to.0).tcp(port, to.1).flags(TcpFlags::SYN))).source_port;
        let syn_ack = from_outside(to.0, P).tcp(to.1, external).flags(SYN_ACK);
        assert_eq!(came(&self.back(&syn_ack)).destination, host);
        left(&self.out(&from(host, to.0).tcp(port, to.1)));
        external
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

/// A frame as it leaves by the outside port; what else it carries is to be said.
pub(crate) fn outside(source: Ipv4Addr, destination: Ipv4Addr) -> Frame {
    Frame::new().ethernet(Trial::OUTSIDE_MAC.0, NEXT.0).ipv4(source, destination).dont_fragment().time_to_live(HOPS - 1)
}

/// A frame as it comes to an inside host.
pub(crate) fn inside(source: Ipv4Addr, host: Ipv4Addr) -> Frame {
    Frame::new().ethernet(Trial::INSIDE_MAC.0, mac(host).0).ipv4(source, host).dont_fragment().time_to_live(HOPS - 1)
}

/// The packet in a frame, as an ICMP error quotes it.
pub(crate) fn packet(frame: &Frame) -> Vec<u8> {
    frame.build()[14..].to_vec()
}

/// Makes an IPv4 header's checksum right again, by RFC 1071.
pub(crate) fn mend_header(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let length = packet.len().min(usize::from(packet[0] & 15) * 4);
    let sum: u32 = packet[..length].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from(sum).unwrap();
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// All addresses that the router takes packets for on behalf of the NAT.
fn addresses(nat: &Nat, policy: &Policy) -> Vec<String> {
    nat.addresses(policy).iter().map(ToString::to_string).collect()
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
    assert_eq!(header.time_to_live, HOPS - 1);
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
