//! A NAT for captures: every frame comes in from inside and from outside, and once more from both to
//! what stands outside for its destination, where the NAT has said.

use crate::replay::Subject;
use nf_framework::headers::{Headers, checksum};
use nf_framework::testing::Trial;
use nf_framework::{
    Affinity, Batch, Chain, Context, Counter, Direction, Function as _, NetworkFunction, Then as _, WorkerSetup,
};
use nfs::nat::{Nat, Policy};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Tables that long captures fill.
const NAT: &str = r#"
sessions = 256
subscribers = 64
exclude = ["150.46.0.0/16"]
filtering = { tcp = "address-and-port-dependent" }
mss = 1300
timeouts = { udp = 120, port_quiet = 5 }
[[pools]]
addresses = ["198.51.100.100", "198.51.100.101"]
[[one_to_one]]
inside = "10.168.56.0/24"
outside = "203.0.113.0/24"
[[forward]]
protocol = "tcp"
outside = "198.51.100.100"
ports = "80-81"
to = ["10.0.0.1:80", "10.0.0.2:80"]
"#;

const ROUTER: &str = r#"
[interfaces.inside]
side = "inside"
addresses = ["192.168.255.1/16"]

[interfaces.outside]
side = "outside"
addresses = ["198.51.100.1/24"]
mtu = 1400

[[routes]]
to = "10.0.0.0/8"
via = "192.168.255.2"

[[routes]]
to = "0.0.0.0/0"
via = "198.51.100.2"
"#;

/// What hosts of captures have for the first octet of their address, inside and outside: so the router
/// knows on which side they are.
const FIRST: [u8; 2] = [10, 150];

/// Protocol, address, port (or the identifier of an ICMP query).
type Endpoint = (u8, [u8; 4], u16);
/// What stands outside for inside hosts.
type Externals = Arc<Mutex<HashMap<Endpoint, Endpoint>>>;

/// A NAT, and what it has made of those who sent something.
pub(crate) struct Natted {
    nat: Nat,
    policy: Arc<Policy>,
    externals: Externals,
}

impl Natted {
    pub(crate) fn new() -> Self {
        let nat = Nat::new();
        let config = toml::from_str(NAT).expect("the NAT's configuration");
        let policy = nat.policy(config).unwrap_or_else(|invalid| panic!("{}: {}", invalid.key, invalid.message));
        Self { nat, policy: Arc::new(policy), externals: Externals::default() }
    }
}

impl Subject for Natted {
    fn chain(&self, worker: &mut WorkerSetup) -> Chain {
        let nat = self.nat.instance(Arc::clone(&self.policy), worker).expect("memory for a small NAT");
        let sources: Sources = Arc::new(Mutex::new([None; 64]));
        let translated = worker.counter("sources translated");
        let behind = Behind { sources: Arc::clone(&sources), externals: Arc::clone(&self.externals), translated };
        Before(sources).then(nat).then(behind)
    }

    fn affinity(&self) -> Affinity {
        self.nat.affinity(&self.policy)
    }

    fn router(&self) -> (&'static str, Vec<String>) {
        (ROUTER, self.nat.addresses(&self.policy).iter().map(ToString::to_string).collect())
    }

    fn arriving(&self, frame: &[u8], direction: Direction) -> Vec<Vec<u8>> {
        let [sender, receiver] = if direction == Direction::Outbound { FIRST } else { [FIRST[1], FIRST[0]] };
        let mut plain = frame.to_vec();
        if let Some(station) = plain.first_chunk_mut().filter(|station: &&mut [u8; 6]| station[0] & 1 == 0) {
            *station = if direction == Direction::Outbound { Trial::INSIDE_MAC } else { Trial::OUTSIDE_MAC }.0;
        }
        let moved = |first| {
            move |(protocol, [a, b, c, d], port): Endpoint| match a {
                0 | 127 | 224.. => None,
                _ => Some((protocol, [first, b, c, d], port)),
            }
        };
        readdress(&mut plain, End::Source, moved(sender));
        readdress(&mut plain, End::Destination, moved(receiver));
        let mut answer = plain.clone();
        let known = self.externals.lock().unwrap_or_else(PoisonError::into_inner);
        let of_receiver =
            |(protocol, [_, b, c, d], port): Endpoint| known.get(&(protocol, [FIRST[0], b, c, d], port)).copied();
        if readdress(&mut answer, End::Destination, of_receiver) { vec![plain, answer] } else { vec![plain] }
    }
}

/// Who sent the packets of a batch.
type Sources = Arc<Mutex<[Option<Endpoint>; 64]>>;

/// Looks at packets from inside before the NAT does.
struct Before(Sources);

impl NetworkFunction for Before {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if cx.direction() == Direction::Outbound {
            let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in batch.undecided() {
                sources[slot] = batch.packet(slot).and_then(|packet| source(packet.data()));
            }
        }
    }
}

/// And behind it.
struct Behind {
    sources: Sources,
    externals: Externals,
    translated: Counter,
}

impl NetworkFunction for Behind {
    fn batch(&mut self, batch: &mut Batch, cx: &mut Context<'_>) {
        if cx.direction() == Direction::Outbound {
            let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            let mut externals = self.externals.lock().unwrap_or_else(PoisonError::into_inner);
            for slot in batch.undecided() {
                let now = batch.packet(slot).and_then(|packet| source(packet.data()));
                if let (Some(before), Some(now)) = (sources[slot], now)
                    && before != now
                {
                    externals.insert(before, now);
                    self.translated.add(1);
                }
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    Source,
    Destination,
}

impl End {
    fn other(self) -> Self {
        if self == Self::Source { Self::Destination } else { Self::Source }
    }
}

const IP: usize = 14;

/// Who sent a frame of IPv4, if it says from which port.
fn source(frame: &[u8]) -> Option<Endpoint> {
    let place = Place::of(frame, IP, End::Source)?;
    place.port?;
    Some(place.read(frame))
}

/// Where an end of an IPv4 packet stands.
struct Place {
    protocol: u8,
    address: usize,
    port: Option<usize>,
    behind: usize,
}

impl Place {
    /// Of the packet that begins at this octet.
    fn of(frame: &[u8], ip: usize, end: End) -> Option<Self> {
        let (ethernet, head) = (frame.get(12..IP)?, frame.get(ip..ip + 20)?);
        let behind = ip + usize::from(head[0] & 15) * 4;
        if ethernet != [0x08, 0x00] || head[0] >> 4 != 4 || frame.len() < behind + 8 {
            return None;
        }
        let (protocol, is_source) = (head[9], end == End::Source);
        let port = match (protocol, frame[behind]) {
            _ if head[6] & 0x1f != 0 || head[7] != 0 => None,
            (6 | 17, _) => Some(if is_source { behind } else { behind + 2 }),
            (1, 0 | 8 | 13 | 14) => Some(behind + 4),
            _ => None,
        };
        Some(Self { protocol, address: ip + if is_source { 12 } else { 16 }, port, behind })
    }

    fn read(&self, frame: &[u8]) -> Endpoint {
        let address = std::array::from_fn(|index| frame[self.address + index]);
        (self.protocol, address, self.port.map_or(0, |at| u16::from_be_bytes([frame[at], frame[at + 1]])))
    }

    fn write(&self, frame: &mut [u8], (_, address, port): Endpoint) {
        frame[self.address..self.address + 4].copy_from_slice(&address);
        if let Some(at) = self.port {
            frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
        }
    }
}

/// Writes an end of a packet, and of what an ICMP error quotes; whether there was something to write.
/// Checksums that were right are right again.
fn readdress(frame: &mut [u8], end: End, to: impl Fn(Endpoint) -> Option<Endpoint>) -> bool {
    let Some(outer) = Place::of(frame, IP, end) else { return false };
    let right = Headers::parse(frame).is_ok_and(|headers| headers.verify_checksums().is_ok());
    let is_error = outer.protocol == 1 && matches!(frame[outer.behind], 3 | 4 | 5 | 11 | 12);
    let quoted = outer.behind + 8;
    // It went the other way.
    let of_quoted = if is_error { Place::of(frame, quoted, end.other()) } else { None };
    let Some(new) = to(of_quoted.as_ref().unwrap_or(&outer).read(frame)) else { return false };
    outer.write(frame, new);
    if let Some(place) = of_quoted {
        place.write(frame, new);
        fill_header_checksum(frame, quoted, place.behind);
    }
    fill_header_checksum(frame, IP, outer.behind);
    if right && let Ok(mut headers) = Headers::parse(frame) {
        headers.fill_checksums();
    }
    true
}

fn fill_header_checksum(frame: &mut [u8], from: usize, to: usize) {
    frame[from + 10..from + 12].fill(0);
    let sum = checksum::checksum(&frame[from..to]);
    frame[from + 10..from + 12].copy_from_slice(&sum.to_be_bytes());
}
