//! A NAT for captures: every frame comes in from inside and from outside, and once more from both to
//! what stands outside for its destination, where the NAT has said.

use crate::readdress::{End, Endpoint, endpoint, readdress, to_router};
use crate::replay::Subject;
use nf_framework::{
    Affinity, Batch, Chain, Context, Counter, Direction, Function as _, NetworkFunction, Then as _, WorkerSetup,
};
use nfs::nat::{Nat, Policy};
use std::collections::HashMap;
use std::net::IpAddr;
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
        let mut plain = to_router(frame, direction);
        let moved = |first| move |(protocol, address, port): Endpoint| Some((protocol, beside(first, address)?, port));
        readdress(&mut plain, End::Source, moved(sender));
        readdress(&mut plain, End::Destination, moved(receiver));
        let mut answer = plain.clone();
        let known = self.externals.lock().unwrap_or_else(PoisonError::into_inner);
        let of_receiver =
            |(protocol, address, port): Endpoint| known.get(&(protocol, beside(FIRST[0], address)?, port)).copied();
        if readdress(&mut answer, End::Destination, of_receiver) { vec![plain, answer] } else { vec![plain] }
    }
}

/// The address of IPv4 with another first octet, if a host can have it.
fn beside(first: u8, address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => match address.octets() {
            [0 | 127 | 224.., ..] => None,
            [_, b, c, d] => Some([first, b, c, d].into()),
        },
        IpAddr::V6(_) => None,
    }
}

/// Who sent a frame of IPv4, if it says from which port.
fn source(frame: &[u8]) -> Option<Endpoint> {
    endpoint(frame, End::Source).filter(|(_, address, _)| address.is_ipv4())
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
