//! Backends for tests of the engine: each with a stack of its own, on virtual time.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use super::arrival::PORTS;
use super::check::Check;
use super::engine::{BackendHealth, Engine, ProbeAddresses, Slot, Target};
use super::probe::{Incoming, LONGEST_PACKET, Outgoing};
use crate::load_balancer::status::Status;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr};
use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// What a backend does.
#[derive(Clone)]
pub(super) enum Behaviour {
    /// Nothing at all.
    Silent,
    /// What a host does that nobody listens on: resets, port unreachable, echo replies.
    Nobody,
    /// Takes TCP connections, and closes them when the other side does.
    Accepts,
    /// Takes a request, says this, and closes.
    Says(Vec<u8>),
    /// Takes a request, and says this again and again, a byte in so many milliseconds, or as fast as it goes.
    GoesOn(Vec<u8>, u64),
    /// Takes a request, and resets.
    Resets,
    /// The same as `Says`, by TLS.
    SaysByTls(Vec<u8>, Arc<ServerConfig>),
    /// Answers a datagram with this.
    Answers(Vec<u8>),
}

/// A server's side of TLS, of a certificate for these names; and the certificate, in PEM.
pub(super) fn tls_server(names: &[&str]) -> (Arc<ServerConfig>, String) {
    let names = names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let certified = rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (Arc::new(config), certified.cert.pem())
}

/// A host with servers at one port.
pub(super) struct Peer {
    address: IpAddr,
    behaviour: Behaviour,
    interface: Interface,
    sockets: SocketSet<'static>,
    served: Vec<Served>,
    datagrams: Option<SocketHandle>,
    wire: Wire,
    /// Where to go on saying something, and when.
    pub(super) connections: usize,
}

struct Served {
    socket: SocketHandle,
    tls: Option<ServerConnection>,
    requested: bool,
    said: usize,
    next: Duration,
    was_open: bool,
}

#[derive(Default)]
struct Wire {
    incoming: VecDeque<Vec<u8>>,
    outgoing: Vec<Vec<u8>>,
}

/// Connections that a peer takes at once.
const LISTENERS: usize = 4;

impl Peer {
    pub(super) fn new(address: IpAddr, port: u16, behaviour: Behaviour) -> Self {
        let mut wire = Wire::default();
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = u64::from(port);
        let mut interface = Interface::new(config, &mut wire, Instant::from_millis(0));
        interface.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address.into(), if address.is_ipv4() { 32 } else { 128 })).unwrap();
        });
        interface.routes_mut().add_default_ipv4_route(Ipv4Addr::UNSPECIFIED).unwrap();
        interface.routes_mut().add_default_ipv6_route(Ipv6Addr::UNSPECIFIED).unwrap();
        let (mut sockets, mut served, mut datagrams) = (SocketSet::new(Vec::new()), Vec::new(), None);
        match behaviour {
            Behaviour::Silent | Behaviour::Nobody => {}
            Behaviour::Answers(_) => {
                let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 4096]);
                let mut socket = udp::Socket::new(buffer(), buffer());
                socket.bind((IpAddress::from(address), port)).unwrap();
                datagrams = Some(sockets.add(socket));
            }
            _ => {
                for _ in 0..LISTENERS {
                    let buffer = || tcp::SocketBuffer::new(vec![0; 8192]);
                    let mut socket = tcp::Socket::new(buffer(), buffer());
                    socket.listen(port).unwrap();
                    let socket = sockets.add(socket);
                    let (tls, requested, was_open) = (None, false, false);
                    served.push(Served { socket, tls, requested, said: 0, next: Duration::ZERO, was_open });
                }
            }
        }
        Self { address, behaviour, interface, sockets, served, datagrams, wire, connections: 0 }
    }

    /// Takes packets, and gives those that it answers with.
    fn step(&mut self, now: Duration, port: u16, packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        if matches!(self.behaviour, Behaviour::Silent) {
            return Vec::new();
        }
        self.wire.outgoing.extend(packets.iter().filter_map(|packet| echo(packet)));
        self.wire.incoming.extend(packets);
        let at = Instant::from_micros(i64::try_from(now.as_micros()).unwrap());
        self.interface.poll(at, &mut self.wire, &mut self.sockets);
        for served in &mut self.served {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(served.socket);
            serve(socket, served, &self.behaviour, now);
            if socket.is_active() && !served.was_open {
                self.connections += 1;
            }
            served.was_open = socket.is_active();
            if !socket.is_open() {
                socket.abort();
                *served = Served { tls: None, requested: false, said: 0, was_open: false, ..*served };
            }
        }
        if let (Some(socket), Behaviour::Answers(answer)) = (self.datagrams, &self.behaviour) {
            let socket = self.sockets.get_mut::<udp::Socket<'_>>(socket);
            while let Ok((_, from)) = socket.recv() {
                socket.send_slice(answer, from.endpoint).unwrap();
            }
        }
        self.interface.poll(at, &mut self.wire, &mut self.sockets);
        for served in &self.served {
            let socket = self.sockets.get_mut::<tcp::Socket<'_>>(served.socket);
            if !socket.is_open() {
                socket.listen(port).unwrap();
            }
        }
        std::mem::take(&mut self.wire.outgoing)
    }
}

fn serve(socket: &mut tcp::Socket<'_>, served: &mut Served, behaviour: &Behaviour, now: Duration) {
    let mut received = Vec::new();
    while let Ok(1..) = socket.recv(|bytes| {
        received.extend_from_slice(bytes);
        (bytes.len(), bytes.len())
    }) {}
    served.requested |= !received.is_empty();
    match behaviour {
        Behaviour::Says(answer) if served.requested => {
            served.said += socket.send_slice(&answer[served.said..]).unwrap_or(0);
        }
        Behaviour::GoesOn(answer, 0) if served.requested => while let Ok(1..) = socket.send_slice(answer) {},
        Behaviour::GoesOn(answer, pause) if served.requested && now >= served.next => {
            let byte = answer[served.said % answer.len()];
            if let Ok(1) = socket.send_slice(&[byte]) {
                served.said += 1;
            }
            served.next = now + Duration::from_millis(*pause);
        }
        Behaviour::Resets if served.requested => socket.abort(),
        Behaviour::SaysByTls(answer, config) => {
            let tls = served.tls.get_or_insert_with(|| ServerConnection::new(Arc::clone(config)).unwrap());
            let mut bytes = &received[..];
            while !bytes.is_empty() {
                tls.read_tls(&mut bytes).unwrap();
                let _ = tls.process_new_packets();
            }
            let mut request = [0; 2048];
            if matches!(tls.reader().read(&mut request), Ok(1..)) {
                tls.writer().write_all(answer).unwrap();
                tls.send_close_notify();
            }
            let mut outgoing = Vec::new();
            while tls.wants_write() {
                tls.write_tls(&mut outgoing).unwrap();
            }
            assert_eq!(socket.send_slice(&outgoing).unwrap_or(0), outgoing.len());
        }
        _ => {}
    }
    let has_said = matches!(behaviour, Behaviour::Says(answer) if served.requested && served.said == answer.len());
    if (!socket.may_recv() || has_said) && socket.may_send() && !matches!(behaviour, Behaviour::GoesOn(..)) {
        socket.close();
    }
}

impl Device for Wire {
    type RxToken<'a> = Taken;
    type TxToken<'a> = Sent<'a>;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = LONGEST_PACKET;
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Taken, Sent<'_>)> {
        let packet = self.incoming.pop_front()?;
        Some((Taken(packet), Sent(&mut self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Sent<'_>> {
        Some(Sent(&mut self.outgoing))
    }
}

struct Taken(Vec<u8>);

impl smoltcp::phy::RxToken for Taken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        Incoming(&self.0).consume(take)
    }
}

struct Sent<'a>(&'a mut Vec<Vec<u8>>);

impl smoltcp::phy::TxToken for Sent<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        Outgoing(&mut |packet| self.0.push(packet.to_vec())).consume(length, write)
    }
}

/// An engine and its backends, a millisecond from each other.
pub(super) struct World {
    pub(super) engine: Engine,
    statuses: BTreeMap<Slot, Arc<Status>>,
    pub(super) now: Duration,
    pub(super) peers: BTreeMap<Slot, (u16, Peer)>,
    /// Every packet that went to a backend, with its time.
    pub(super) sent: Vec<(Duration, Slot, Vec<u8>)>,
    pub(super) keeps: bool,
    on_their_way: Vec<Vec<u8>>,
}

pub(super) const PROBE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
pub(super) const PROBE6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 9);

/// A check of this text.
pub(super) fn check(text: &str) -> Arc<Check> {
    Arc::new(Check::new(toml::from_str(text).unwrap(), "health").unwrap_or_else(|error| panic!("{error:?}")))
}

/// A backend of the service `web`.
pub(super) fn target(slot: Slot, remote: (IpAddr, u16), check: &Arc<Check>) -> Target {
    let (service, check) = (Arc::from("web"), Arc::clone(check));
    Target { slot, service, name: slot.to_string(), remote, check, status: Arc::new(Status::new(true)) }
}

impl World {
    pub(super) fn new() -> Self {
        let addresses = ProbeAddresses::new(&[PROBE.into(), PROBE6.into()]).unwrap();
        let engine = Engine::new(addresses, 7);
        let (now, sent, on_their_way) = (Duration::from_secs(1), Vec::new(), Vec::new());
        Self { engine, statuses: BTreeMap::new(), now, peers: BTreeMap::new(), sent, keeps: true, on_their_way }
    }

    /// One backend, at this address and port 80, checked so.
    pub(super) fn of_one(address: &str, text: &str, behaviour: Behaviour) -> Self {
        let mut world = Self::new();
        let remote = (address.parse().unwrap(), 80);
        world.follow(vec![target(0, remote, &check(text))]);
        world.place(0, remote, behaviour);
        world
    }

    pub(super) fn follow(&mut self, targets: Vec<Target>) {
        let addresses = ProbeAddresses::new(&[PROBE.into(), PROBE6.into()]).unwrap();
        let statuses = targets.iter().map(|target| (target.slot, Arc::clone(&target.status)));
        self.statuses.extend(statuses);
        let (now, sent) = (self.now, &mut self.sent);
        self.engine.follow(now, addresses, targets, &mut |slot, packet| sent.push((now, slot, packet.to_vec())));
    }

    /// Puts a server there, in the place of any that there was.
    pub(super) fn place(&mut self, slot: Slot, remote: (IpAddr, u16), behaviour: Behaviour) {
        self.peers.insert(slot, (remote.1, Peer::new(remote.0, remote.1, behaviour)));
    }

    /// Lets so many milliseconds go by.
    pub(super) fn run(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds {
            self.step();
        }
    }

    pub(super) fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let now = self.now;
        let mut outgoing: BTreeMap<Slot, Vec<Vec<u8>>> = BTreeMap::new();
        let mut send = |slot, packet: &[u8]| {
            assert!(packet.len() <= LONGEST_PACKET);
            outgoing.entry(slot).or_default().push(packet.to_vec());
        };
        for packet in std::mem::take(&mut self.on_their_way) {
            self.engine.receive(now, &packet, &mut send);
        }
        self.engine.poll(now, &mut send);
        for (slot, packets) in &outgoing {
            if self.keeps {
                self.sent.extend(packets.iter().map(|packet| (now, *slot, packet.clone())));
            }
        }
        for (slot, (port, peer)) in &mut self.peers {
            let packets = outgoing.remove(slot).unwrap_or_default();
            // One that is for another is nobody's.
            let is_its_own = |packet: &Vec<u8>| destination(packet) == peer.address;
            let packets = packets.into_iter().filter(is_its_own).collect();
            self.on_their_way.extend(peer.step(now, *port, packets));
        }
    }

    /// How many tenths of its weight a backend may get.
    pub(super) fn tenths(&self, slot: Slot) -> u16 {
        self.statuses[&slot].share(true) / 100
    }

    /// The same backends once more, each in its slot.
    pub(super) fn again(&self, target: Target) -> Target {
        Target { status: Arc::clone(&self.statuses[&target.slot]), ..target }
    }

    pub(super) fn health(&self, slot: Slot) -> BackendHealth {
        self.engine.states(self.now).find(|(of, _)| *of == slot).unwrap().1
    }

    /// Runs until a check of this backend has ended, and says how, and after how many milliseconds.
    pub(super) fn first_end(&mut self, slot: Slot) -> (Result<(), super::Failure>, u64) {
        let begun = (0..20_000).find(|_| {
            self.step();
            self.sent.iter().any(|(_, of, _)| *of == slot)
        });
        begun.expect("a check begins");
        let start = self.now;
        for _ in 0..20_000 {
            if let Some(last) = self.health(slot).last {
                return (last, u64::try_from((self.now - start).as_millis()).unwrap());
            }
            self.step();
        }
        panic!("no check ends");
    }
}

/// The reply to an echo request.
fn echo(packet: &[u8]) -> Option<Vec<u8>> {
    let (addresses, length, message, difference) = match (packet[0] >> 4, packet[9], packet[6]) {
        (4, 1, _) if packet[20] == 8 => (12, 4, 20, 8_u16 << 8),
        (6, _, 58) if packet[40] == 128 => (8, 16, 40, u16::MAX - (1 << 8)),
        _ => return None,
    };
    let mut reply = packet.to_vec();
    let (source, destination) = reply[addresses..addresses + 2 * length].split_at_mut(length);
    source.swap_with_slice(destination);
    reply[message] = if length == 4 { 0 } else { 129 };
    let checksum = u16::from_be_bytes([reply[message + 2], reply[message + 3]]);
    let (sum, carry) = checksum.overflowing_add(difference);
    reply[message + 2..message + 4].copy_from_slice(&(sum + u16::from(carry)).to_be_bytes());
    Some(reply)
}

fn destination(packet: &[u8]) -> IpAddr {
    match packet[0] >> 4 {
        4 => IpAddr::from(<[u8; 4]>::try_from(&packet[16..20]).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(&packet[24..40]).unwrap()),
    }
}

/// The flags of a packet of TCP over IPv4, and its local port.
pub(super) fn tcp(packet: &[u8]) -> (u8, u16) {
    let port = u16::from_be_bytes([packet[20], packet[21]]);
    assert!(PORTS.contains(&port) && packet[9] == 6);
    (packet[33], port)
}
