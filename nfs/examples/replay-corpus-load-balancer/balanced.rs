//! A load balancer for captures: every frame comes from a client to a service, from a backend as what it answers, and past
//! both. Which service a host of the capture stands for, its address says.

use crate::readdress::{End, Endpoint, endpoint, party, readdress, to_router};
use crate::replay::Subject;
use nf_framework::{
    Affinity, Batch, Chain, Context, Counter, Direction, Function as _, NetworkFunction, Then as _, WorkerSetup,
};
use nfs::load_balancer::{LoadBalancer, Policy};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Tables that long captures fill.
const TABLES: &str = r#"
connections = 256
connections_ipv6 = 64
insertions_per_second = 500
table_size = 251
tunnel_sources = ["10.200.0.0/16", "2001:db8:2:99::/64"]
source_addresses = ["10.0.0.2", "2001:db8:2::2"]
probe_addresses = ["10.0.0.9", "2001:db8:2::9"]
timeouts = { established = 300 }
"#;

/// A service for each, by the last part of its address.
const SERVICES: [&str; 12] = [
    "mode = \"dsr\"",
    "mode = \"ipip\"\nmtu = 1360\ntoo_big = \"fragment\"",
    "mode = \"gre\"\nmtu = 1360",
    "mode = \"gue\"\nmtu = 1360\nhash = \"source\"",
    "mode = \"dscp\"\ndscp = 8",
    "mode = \"nat\"",
    "mode = \"full-nat\"",
    "mode = \"nat\"\nhash = \"destination-port\"\non_backend_down = \"drop\"",
    "mode = \"full-nat\"\nprotocol = \"tcp\"\nproxy_protocol = true",
    "mode = \"ipip\"\nmtu = 1360\nprotocol = \"udp\"\nhash = \"quic\"",
    "mode = \"dsr\"\nport = \"1-1023\"\nwhen_empty = \"drop\"",
    "mode = \"nat\"\nprotocol = \"udp\"\nport = 53",
];

/// Those of them whose backends answer from their own addresses.
const TRANSLATED: [usize; 5] = [5, 6, 7, 8, 11];

const ROUTER: &str = r#"
[interfaces.inside]
side = "inside"
addresses = ["10.255.255.1/8", "2001:db8:2::1/48"]

[interfaces.outside]
side = "outside"
addresses = ["198.51.100.1/24", "2001:db8:1::1/64"]
mtu = 1400

[[routes]]
to = "0.0.0.0/0"
via = "198.51.100.2"

[[routes]]
to = "::/0"
via = "2001:db8:1::2"
"#;

/// A client and a service, or whom the backend takes for the client and the backend.
type Parties = (Endpoint, Endpoint);
/// What the load balancer has made of them.
type Translations = Arc<Mutex<HashMap<Parties, Parties>>>;

/// A load balancer, and what it has made of who sent something.
pub(crate) struct Balanced {
    balancer: LoadBalancer,
    policy: Arc<Policy>,
    translations: Translations,
}

impl Balanced {
    pub(crate) fn new() -> Self {
        let services = (0..).zip(SERVICES).flat_map(|(number, service)| {
            let more = if service.contains("protocol") { "" } else { "protocol = \"any\"" };
            let id = |host: u8| {
                if service.contains("quic") { format!("server_id = \"{host:02x}\"\n") } else { String::new() }
            };
            [service_v4(number), service_v6(number)].map(|address| {
                let backends: String = (12..15).map(|host| backend(address, host) + &id(host)).collect();
                format!("[[services]]\nname = \"{address}\"\naddress = \"{address}\"\n{more}\n{service}\n{backends}")
            })
        });
        let text: String = std::iter::once(TABLES.to_owned()).chain(services).collect();
        let config = toml::from_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let balancer = LoadBalancer::without_clock();
        let policy = balancer.policy(config).unwrap_or_else(|invalid| panic!("{}: {}", invalid.key, invalid.message));
        Self { balancer, policy: Arc::new(policy), translations: Translations::default() }
    }
}

fn service_v4(number: u8) -> IpAddr {
    Ipv4Addr::new(203, 0, 113, 80 + number).into()
}

fn service_v6(number: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x80, 0, 0, 0, 0, 80 + u16::from(number)).into()
}

/// Those with an odd number do not answer when they are asked for.
fn backend(service: IpAddr, number: u8) -> String {
    let of = match service {
        IpAddr::V4(_) => format!("10.0.0.{number}"),
        IpAddr::V6(_) => format!("2001:db8:2::{number:x}"),
    };
    format!("[[services.backends]]\naddress = \"{of}\"\n")
}

/// The service that a host of a capture stands for.
fn service_of((protocol, address, port): Endpoint) -> Option<Endpoint> {
    let service = match address {
        IpAddr::V4(address) => service_v4(address.octets()[3] % 12),
        IpAddr::V6(address) => service_v6(address.octets()[15] % 12),
    };
    beside(address, 0).map(|_| (protocol, service, port))
}

fn is_translated(service: IpAddr) -> bool {
    TRANSLATED.iter().any(|number| {
        let number = u8::try_from(*number).unwrap_or_default();
        service == service_v4(number) || service == service_v6(number)
    })
}

/// The address of a host on one of the sides.
fn beside(address: IpAddr, side: usize) -> Option<IpAddr> {
    const FIRST: [u8; 2] = [10, 150];
    const FIRST_V6: [[u8; 6]; 2] = [[0x20, 0x01, 0x0d, 0xb8, 0, 2], [0x3f, 0xff, 0, 0, 0, 0]];
    match address {
        IpAddr::V4(address) => match address.octets() {
            [0 | 127 | 224.., ..] => None,
            [_, b, c, d] => Some([FIRST[side], b, c, d].into()),
        },
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            if octets[0] == 0xff || octets[..15] == [0; 15] {
                return None;
            }
            octets[..6].copy_from_slice(&FIRST_V6[side]);
            Some(octets.into())
        }
    }
}

fn inside((protocol, address, port): Endpoint) -> Option<Endpoint> {
    Some((protocol, beside(address, 0)?, port))
}

fn outside((protocol, address, port): Endpoint) -> Option<Endpoint> {
    Some((protocol, beside(address, 1)?, port))
}

impl Subject for Balanced {
    fn chain(&self, worker: &mut WorkerSetup) -> Chain {
        let balancer = self.balancer.instance(Arc::clone(&self.policy), worker).expect("memory for a small balancer");
        let parties: Seen = Arc::new(Mutex::new([None; 64]));
        let (translated, answers) = (worker.counter("connections translated"), worker.counter("answers translated"));
        let translations = Arc::clone(&self.translations);
        let behind = Behind { parties: Arc::clone(&parties), translations, translated };
        behind.then(balancer).then(Before { parties, answers })
    }

    fn affinity(&self) -> Affinity {
        self.balancer.affinity(&self.policy)
    }

    fn router(&self) -> (&'static str, Vec<String>) {
        (ROUTER, self.balancer.addresses(&self.policy).iter().map(ToString::to_string).collect())
    }

    fn arriving(&self, frame: &[u8], direction: Direction) -> Vec<Vec<u8>> {
        let with = |source: &dyn Fn(Endpoint) -> Option<Endpoint>,
                    destination: &dyn Fn(Endpoint) -> Option<Endpoint>| {
            let mut frame = to_router(frame, direction);
            readdress(&mut frame, End::Source, source);
            readdress(&mut frame, End::Destination, destination);
            frame
        };
        if direction == Direction::Inbound {
            return vec![with(&outside, &inside), with(&outside, &service_of)];
        }
        let parties =
            party(frame, End::Destination).and_then(outside).zip(party(frame, End::Source).and_then(service_of));
        let known = self.translations.lock().unwrap_or_else(PoisonError::into_inner);
        let past = with(&inside, &outside);
        match parties.map(|parties| (parties.1.1, known.get(&parties).copied())) {
            Some((_, Some((client, backend)))) => vec![past, with(&|_| Some(backend), &|_| Some(client))],
            // By itself, through the same router.
            Some((service, None)) if !is_translated(service) => vec![past, with(&service_of, &outside)],
            _ => vec![past],
        }
    }
}

/// Whose the packets of a batch are.
type Seen = Arc<Mutex<[Option<Parties>; 64]>>;

/// Looks at packets from outside before the load balancer does, and at those from inside behind it.
struct Before {
    parties: Seen,
    answers: Counter,
}

impl NetworkFunction for Before {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        let mut seen = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
        for slot in batch.undecided() {
            let parties = batch.packet(slot).and_then(|packet| parties(packet.data()));
            match cx.direction() {
                Direction::Inbound => seen[slot] = parties,
                Direction::Outbound => self.answers.add(parties.is_some_and(|(of, _)| is_translated(of.1)).into()),
            }
        }
    }
}

/// And behind it.
struct Behind {
    parties: Seen,
    translations: Translations,
    translated: Counter,
}

impl NetworkFunction for Behind {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if cx.direction() == Direction::Inbound {
            let mut seen = self.parties.lock().unwrap_or_else(PoisonError::into_inner);
            let mut translations = self.translations.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in batch.undecided() {
                let now = batch.packet(slot).and_then(|packet| parties(packet.data()));
                // What the load balancer sends of its own has not been here before.
                if let (Some(before @ (client, service)), Some(now)) = (seen[slot].take(), now)
                    && is_translated(service.1)
                    && translations.insert(before, now) != Some(now)
                {
                    self.translated.add(1);
                    // Of what says no ports, by the addresses.
                    let hosts = |((protocol, a, _), (_, b, _)): Parties| ((protocol, a, 0), (protocol, b, 0));
                    translations.insert(hosts((client, service)), hosts(now));
                }
            }
        }
    }
}

fn parties(frame: &[u8]) -> Option<Parties> {
    Some((endpoint(frame, End::Source)?, endpoint(frame, End::Destination)?))
}
