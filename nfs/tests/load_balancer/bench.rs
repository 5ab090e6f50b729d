//! A load balancer between two links, and who is on them.

use nf_framework::headers::{MacAddress, TcpFlags};
use nf_framework::testing::{Frame, Lab, Outcome, Trial, lab};
use nf_framework::{Direction, Function, Invalid, SetupError, WorkerSetup};
use nfs::load_balancer::{Config, Instance, LoadBalancer, Policy};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

pub(crate) const ROUTER: &str = r#"
[interfaces.lan]
side = "inside"
addresses = ["10.0.0.1/16", "2001:db8:2::1/64"]

[interfaces.wan]
side = "outside"
addresses = ["198.51.100.1/24", "2001:db8:1::1/64"]

[[routes]]
to = "0.0.0.0/0"
via = "198.51.100.2"

[[routes]]
to = "::/0"
via = "2001:db8:1::2"
"#;

/// The service's addresses.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 80);
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 0x80);
/// Clients, behind the next router.
pub(crate) const X: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const X6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 1);
/// A router on the way to them.
pub(crate) const R: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 200);
pub(crate) const R6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 0x99);

pub(crate) const SYN: TcpFlags = TcpFlags::SYN;
pub(crate) const ACK: TcpFlags = TcpFlags::ACK;
pub(crate) const FIN: TcpFlags = TcpFlags(TcpFlags::FIN.0 | TcpFlags::ACK.0);
pub(crate) const RST: TcpFlags = TcpFlags::RST;

pub(crate) const NEXT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0x99]);
const NEXT4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const NEXT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
const OUTSIDE4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const OUTSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const INSIDE4: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const INSIDE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);

/// Hosts inside that the router knows, by number.
pub(crate) const BACKENDS: std::ops::RangeInclusive<u8> = 11..=20;

/// The address of a backend by its number.
pub(crate) fn backend(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, number)
}

/// The same in IPv6.
pub(crate) fn backend6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, number.into())
}

/// Its MAC address.
pub(crate) fn mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 1, 0, number])
}

/// A load balancer in a trial.
pub(crate) struct Bench {
    pub(crate) trial: Trial,
    pub(crate) balancer: LoadBalancer,
    pub(crate) workers: u16,
    pub(crate) running: Arc<Policy>,
    /// Frames that left by the inside port while hosts showed themselves or a policy was published.
    pub(crate) aside: Vec<Vec<u8>>,
}

/// A service on [`VIP`], port 80 by TCP, with these backends by number; what is said stands before them.
pub(crate) fn service(mode: &str, more: &str, backends: &[u8]) -> String {
    let mut text = format!("[[services]]\nname = \"web\"\naddress = \"{VIP}\"\nmode = \"{mode}\"\n");
    for line in ["port = 80", "hash_kind"] {
        let key = line.split(' ').next().unwrap();
        if line.contains('=') && !more.contains(&format!("{key} =")) {
            text.push_str(&format!("{line}\n"));
        }
    }
    text.push_str(&format!("{more}\n"));
    for number in backends {
        text.push_str(&format!("[[services.backends]]\naddress = \"{}\"\n", backend(*number)));
    }
    text
}

/// A configuration for tests: small tables unless it says something else, and sources for tunnels.
pub(crate) fn config(text: &str) -> Config {
    let mut whole = String::new();
    for (key, line) in [
        ("connections", "connections = 4096"),
        ("connections_ipv6", "connections_ipv6 = 1024"),
        ("table_size", "table_size = 5003"),
        ("tunnel_sources", "tunnel_sources = [\"10.9.0.0/16\", \"2001:db8:99::/64\"]"),
    ] {
        if !text.contains(&format!("{key} =")) {
            whole.push_str(&format!("{line}\n"));
        }
    }
    whole.push_str(text);
    toml::from_str(&whole).unwrap_or_else(|error| panic!("{error}\n{whole}"))
}

/// Runs a test on one worker and on two with every packet at the wrong one, with this configuration.
pub(crate) fn with_balancer(config_text: &str, test: impl Fn(&mut Bench) + Send + Copy + 'static) {
    with_balancer_between(ROUTER, config_text, test);
}

/// As [`with_balancer`], with other interfaces and routes.
pub(crate) fn with_balancer_between(
    router: &str,
    config_text: &str,
    test: impl Fn(&mut Bench) + Send + Copy + 'static,
) {
    for workers in [1, 2] {
        let (router, config) = (router.to_owned(), config(config_text));
        lab(move |lab| {
            let mut bench = Bench::new(lab, workers, &router, config);
            test(&mut bench);
            bench.trial.check_for_leaks();
        });
    }
}

impl Bench {
    pub(crate) fn new(lab: &Lab<'_>, workers: u16, router: &str, config: Config) -> Self {
        let balancer = LoadBalancer::without_clock();
        let policy = Arc::new(balancer.policy(config).unwrap_or_else(|error| panic!("{error:?}")));
        let instance = |worker: &mut WorkerSetup| -> Result<Instance, SetupError> {
            balancer.instance(Arc::clone(&policy), worker)
        };
        let trial = match workers {
            1 => lab.trial(|worker| instance(worker).unwrap().into()).with_fragments(Default::default()),
            _ => lab
                .trial_at_wrong_workers(workers, balancer.affinity(&policy), |worker| instance(worker).unwrap().into()),
        };
        let addresses = addresses(&balancer, &policy);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let trial = trial.with_router(router, &addresses);
        let mut bench = Self { trial, balancer, workers, running: policy, aside: Vec::new() };
        bench.trial.advance(Duration::ZERO);
        bench.introduce();
        // The announcements are over.
        bench.pass(3);
        bench.pass(3);
        bench
    }

    /// Makes the hosts known to the router.
    fn introduce(&mut self) {
        let inside: Vec<_> = BACKENDS
            .flat_map(|number| {
                [
                    hello(mac(number), backend(number).into(), INSIDE4.into()),
                    hello(mac(number), backend6(number).into(), INSIDE6.into()),
                ]
            })
            .collect();
        let outcome = self.trial.send(Direction::Outbound, &inside);
        self.aside.extend(outcome.inside);
        let outside = [hello(NEXT, NEXT4.into(), OUTSIDE4.into()), hello(NEXT, NEXT6.into(), OUTSIDE6.into())];
        let outcome = self.trial.send(Direction::Inbound, &outside);
        self.aside.extend(outcome.inside);
    }

    /// Another configuration, as a reload brings it.
    pub(crate) fn reload(&mut self, config: Config) -> Result<(), Invalid> {
        // Twice the same: one for the workers, one for the reload after it.
        let policy = self.balancer.replace(config.clone(), &self.running)?;
        self.running = Arc::new(self.balancer.replace(config, &self.running)?);
        self.publish(policy);
        Ok(())
    }

    /// What the control thread does again and again; whether there was a new policy.
    pub(crate) fn tend(&mut self) -> bool {
        let (Some(policy), Some(same)) = (self.balancer.tend(&self.running), self.balancer.tend(&self.running)) else {
            return false;
        };
        self.running = Arc::new(same);
        self.publish(policy);
        true
    }

    fn publish(&mut self, policy: Policy) {
        let addresses = addresses(&self.balancer, &policy);
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.trial.reload_router(ROUTER, &addresses);
        self.trial.publish(0, &self.balancer, policy);
        // New addresses are announced.
        for _ in 0..2 {
            let outcome = self.pass(3);
            self.aside.extend(outcome.inside);
        }
    }

    /// A packet of a client.
    pub(crate) fn client(&mut self, frame: &Frame) -> Outcome {
        self.trial.send(Direction::Inbound, &[frame.build()])
    }

    /// Several of them at once.
    pub(crate) fn burst(&mut self, frames: &[Vec<u8>]) -> Outcome {
        self.trial.send(Direction::Inbound, frames)
    }

    /// Time passes, and the hosts show themselves again.
    pub(crate) fn pass(&mut self, seconds: u64) -> Outcome {
        let outcome = self.trial.advance(Duration::from_secs(seconds));
        self.introduce();
        outcome
    }

    /// The number of the backend that a packet went to, and nowhere else.
    pub(crate) fn backend_of(&mut self, frame: &Frame) -> u8 {
        went_to(&self.client(frame))
    }

    /// Opens connections from these ports, and says on which backend each is.
    pub(crate) fn connect(&mut self, ports: std::ops::Range<u16>) -> Vec<(u16, u8)> {
        let mut all = Vec::new();
        for port in ports {
            let number = self.backend_of(&from_client().tcp(port, 80).flags(SYN));
            assert_eq!(self.backend_of(&from_client().tcp(port, 80).flags(ACK)), number);
            all.push((port, number));
        }
        all
    }

    /// A counter of the load balancer's, over all workers.
    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.trial.report().counters.iter().filter(|counter| counter.name == name).map(|counter| counter.value).sum()
    }

    /// Connections, over all workers.
    pub(crate) fn connections(&self) -> u64 {
        self.trial.report().functions.iter().map(|function| function.sessions).sum()
    }

    /// Asks the first worker, or tells it something.
    pub(crate) fn command<R>(&mut self, command: impl FnOnce(&mut Instance) -> R) -> R {
        self.trial.command(0, |instance: &mut Instance, _| command(instance))
    }
}

/// A question after a router's address, by which it learns who asks.
fn hello(mac: MacAddress, address: IpAddr, router: IpAddr) -> Vec<u8> {
    match (address, router) {
        (IpAddr::V4(address), IpAddr::V4(router)) => {
            Frame::new().ethernet(mac.0, MacAddress::BROADCAST.0).arp_request(address, router).build()
        }
        (IpAddr::V6(address), IpAddr::V6(router)) => {
            Frame::new().ethernet(mac.0, MacAddress::BROADCAST.0).neighbour_solicitation(address, router).build()
        }
        _ => panic!("two families"),
    }
}

/// What a backend says when the router asks whether it is there, by ARP or Neighbor Discovery.
pub(crate) fn here(frame: &[u8]) -> Option<Vec<u8>> {
    const ARP_REQUEST: [u8; 10] = [0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1];
    const SOLICITATION: u8 = 135;
    let from = |number: u8| Frame::new().ethernet(mac(number).0, Trial::INSIDE_MAC.0);
    if frame[12..].starts_with(&ARP_REQUEST) {
        let number = frame[41];
        return Some(from(number).arp_reply(backend(number), INSIDE4).build());
    }
    (frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && frame[54] == SOLICITATION)
        .then(|| from(frame[77]).neighbour_advertisement(backend6(frame[77]), INSIDE6).build())
}

/// A frame from outside between these addresses.
pub(crate) fn from_outside(source: Ipv4Addr, destination: Ipv4Addr) -> Frame {
    Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0).ipv4(source, destination).dont_fragment()
}

/// The same of IPv6.
pub(crate) fn from_outside6(source: Ipv6Addr, destination: Ipv6Addr) -> Frame {
    Frame::new().ethernet(NEXT.0, Trial::OUTSIDE_MAC.0).ipv6(source, destination)
}

/// A frame of the client's to the service.
pub(crate) fn from_client() -> Frame {
    from_outside(X, VIP)
}

/// The number of the backend that the one packet went to: by its MAC address.
pub(crate) fn went_to(outcome: &Outcome) -> u8 {
    assert_eq!((outcome.outside.len(), outcome.inside.len()), (0, 1), "{outcome:?}");
    let frame = &outcome.inside[0];
    assert_eq!(frame[..5], [2, 0, 0, 1, 0], "{outcome:?}");
    frame[5]
}

/// Why the one packet was dropped.
pub(crate) fn dropped(outcome: &Outcome) -> &str {
    assert_eq!(outcome.dropped.len(), 1, "{outcome:?}");
    outcome.dropped.keys().next().unwrap()
}

/// All addresses that the router takes packets for on behalf of the load balancer.
fn addresses(balancer: &LoadBalancer, policy: &Policy) -> Vec<String> {
    balancer.addresses(policy).iter().map(ToString::to_string).collect()
}

/// The packet in a frame.
pub(crate) fn packet(frame: &Frame) -> Vec<u8> {
    frame.build()[14..].to_vec()
}
