//! A firewall for captures: every frame comes in from inside and from outside, each time as if its receiver were on the
//! other side.

use crate::readdress::{End, Endpoint, readdress, to_router};
use crate::replay::Subject;
use nf_framework::{Affinity, Chain, Direction, Function as _, WorkerSetup};
use nfs::firewall::{Firewall, Policy};
use std::net::IpAddr;
use std::sync::Arc;

/// Tables that long captures fill, and rules of every kind.
const FIREWALL: &str = r#"
connections = 256
connections_v6 = 64
connections_per_source = 100
sources = 64
mid_stream = true
default = "reject"
[sets.few]
prefixes = ["150.0.0.0/10", "3fff:0:8000::/33"]
[[rules]]
source = "@few"
fragment = true
action = "drop"
[[rules]]
from = "inside"
action = "accept"
[[rules]]
protocol = "tcp"
destination_ports = ["0-79", 443]
action = "reject"
[[rules]]
protocol = "udp"
source_ports = 53
action = "accept"
limit = { packets_per_second = 5 }
[[rules]]
protocol = ["icmp", "icmpv6"]
action = "accept"
limit = { connections_per_second = 1 }
[[rules]]
source = "@few"
action = "accept"
[timeouts]
tcp_established = 300
"#;

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

/// A firewall, and nothing beside it.
pub(crate) struct Guarded(Arc<Policy>);

impl Guarded {
    pub(crate) fn new() -> Self {
        let config = toml::from_str(FIREWALL).expect("the firewall's configuration");
        let policy = Firewall.policy(config).unwrap_or_else(|invalid| panic!("{}: {}", invalid.key, invalid.message));
        Self(Arc::new(policy))
    }
}

impl Subject for Guarded {
    fn chain(&self, worker: &mut WorkerSetup) -> Chain {
        // What the rules are looked up by is built once, by whichever worker comes first.
        Firewall.build(&self.0, &worker.memory()).expect("memory for a few rules");
        Firewall.instance(Arc::clone(&self.0), worker).expect("memory for a small firewall").into()
    }

    fn affinity(&self) -> Affinity {
        Firewall.affinity(&self.0)
    }

    fn router(&self) -> (&'static str, Vec<String>) {
        (ROUTER, Vec::new())
    }

    fn arriving(&self, frame: &[u8], direction: Direction) -> Vec<Vec<u8>> {
        let mut frame = to_router(frame, direction);
        let [source, destination] = match direction {
            Direction::Outbound => [inside, outside],
            Direction::Inbound => [outside, inside],
        };
        let moved = |to: fn(IpAddr) -> Option<IpAddr>| {
            move |(protocol, address, port): Endpoint| Some((protocol, to(address)?, port))
        };
        readdress(&mut frame, End::Source, moved(source));
        readdress(&mut frame, End::Destination, moved(destination));
        vec![frame]
    }
}

/// A host's address as that of one inside.
fn inside(address: IpAddr) -> Option<IpAddr> {
    beside(address, 10, [0x20, 0x01, 0x0d, 0xb8, 0, 2])
}

/// And of one outside.
fn outside(address: IpAddr) -> Option<IpAddr> {
    beside(address, 150, [0x3f, 0xff, 0, 0, 0, 0])
}

fn beside(address: IpAddr, first: u8, six: [u8; 6]) -> Option<IpAddr> {
    match address {
        IpAddr::V4(address) => match address.octets() {
            [0 | 127 | 224.., ..] => None,
            [_, b, c, d] => Some([first, b, c, d].into()),
        },
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            if octets[0] == 0xff || octets[..15] == [0; 15] {
                return None;
            }
            octets[..6].copy_from_slice(&six);
            Some(octets.into())
        }
    }
}
