//! One check of one backend, from its first packet to its last.
//!
//! Each has a stack of its own, with one socket in it: what comes in is known by its port, so nobody searches
//! among sockets; what goes out is known to be for this backend, also where many share an address; and one that
//! a hostile backend has upset is gone with its check.

use super::check::{Check, HttpCheck, Kind};
use super::failure::Failure;
use super::http::{self, Answer};
use super::tls::TlsSession;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, ChecksumCapabilities, Device, DeviceCapabilities, Medium};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{
    HardwareAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr, IpEndpoint,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// The longest packet, in bytes: IPv6's smallest MTU (RFC 8200 section 5), so that it fits into any tunnel.
pub(crate) const LONGEST_PACKET: usize = 1280;
/// What a socket keeps of what came, and of what is to go, in bytes.
const RECEIVED: usize = 4096;
const SENT: usize = 2048;
/// How long a connection may take to end.
const GOOD_BYE: Duration = Duration::from_secs(1);
/// What of a body that nobody reads is taken until its server closes, in bytes.
const MOST_UNREAD: usize = 64 << 10;
/// Datagrams and echo requests in one check: TCP sends again what is lost, and these would not.
const TRIES: u32 = 3;
/// What an echo request has in it.
const ECHO: &[u8] = b"load-balancer";

/// Where a check goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ends {
    pub(super) local: IpAddr,
    /// Of [`PORTS`](super::arrival::PORTS).
    pub(super) port: u16,
    pub(super) remote: (IpAddr, u16),
}

/// A check that is under way.
pub(super) struct Probe {
    ends: Ends,
    check: Arc<Check>,
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    talk: Talk,
    deadline: Duration,
    /// When it has to be looked at again, whatever comes.
    wake: Duration,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    Asking,
    /// It is known how it ends, and a connection is being ended, until then at the latest.
    Leaving,
    Over,
}

/// What is said.
enum Talk {
    /// The connection is all.
    Connect,
    Http {
        request: Vec<u8>,
        tls: Option<Box<TlsSession>>,
        answer: Answer,
        is_connected: bool,
        unread: usize,
    },
    Udp {
        tries: u32,
        next: Duration,
    },
    Echo {
        tries: u32,
        next: Duration,
    },
}

impl Probe {
    /// Begins; packets go out when it is first looked at.
    pub(super) fn new(ends: Ends, check: &Arc<Check>, seed: u64, now: Duration) -> Result<Self, Failure> {
        let mut nothing = |_: &[u8]| {};
        let mut link = Link { incoming: None, outgoing: &mut nothing };
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, &mut link, at(now));
        let local = IpAddress::from(ends.local);
        interface.update_ip_addrs(|addresses| {
            let _ = addresses.push(IpCidr::new(local, if ends.local.is_ipv4() { 32 } else { 128 }));
        });
        // Where there are no neighbours, it does not matter which router: only that there is a route.
        let routes = interface.routes_mut();
        let _ = routes.add_default_ipv4_route(Ipv4Addr::UNSPECIFIED);
        let _ = routes.add_default_ipv6_route(Ipv6Addr::UNSPECIFIED);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let (talk, socket) = match &check.kind {
            Kind::Tcp | Kind::Http(..) => {
                let buffer = |length| tcp::SocketBuffer::new(vec![0; length]);
                let mut socket = tcp::Socket::new(buffer(RECEIVED), buffer(SENT));
                let remote = IpEndpoint::new(ends.remote.0.into(), ends.remote.1);
                socket.connect(interface.context(), remote, (local, ends.port)).map_err(|_| Failure::Refused)?;
                (Self::talk_by_tcp(&ends, &check.kind)?, sockets.add(socket))
            }
            Kind::Udp { .. } => {
                let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 4], vec![0; SENT]);
                let mut socket = udp::Socket::new(buffer(), buffer());
                socket.bind((local, ends.port)).map_err(|_| Failure::Refused)?;
                (Talk::Udp { tries: 0, next: now }, sockets.add(socket))
            }
            Kind::Icmp => {
                let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; SENT]);
                let mut socket = icmp::Socket::new(buffer(), buffer());
                socket.bind(icmp::Endpoint::Ident(ends.port)).map_err(|_| Failure::Refused)?;
                (Talk::Echo { tries: 0, next: now }, sockets.add(socket))
            }
        };
        let deadline = now + check.timeout();
        let check = Arc::clone(check);
        Ok(Self { ends, check, interface, sockets, socket, talk, deadline, wake: now, stage: Stage::Asking })
    }

    fn talk_by_tcp(ends: &Ends, kind: &Kind) -> Result<Talk, Failure> {
        let Kind::Http(check, tls) = kind else { return Ok(Talk::Connect) };
        let mut request = http::request(check, ends.remote.into(), tls.is_some());
        let tls = match tls {
            None => None,
            Some(client) => {
                let session =
                    TlsSession::begin(client, ends.remote.0, &request).map_err(|error| tls_failure(&error))?;
                request.clear();
                Some(Box::new(session))
            }
        };
        Ok(Talk::Http { request, tls, answer: Answer::default(), is_connected: false, unread: 0 })
    }

    pub(super) fn wake(&self) -> Duration {
        self.wake
    }

    pub(super) fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }

    /// Gives it time that has passed without anybody looking.
    pub(super) fn forgive(&mut self, time: Duration) {
        self.deadline += time;
    }

    /// Whether it is asked from here to there.
    pub(super) fn is_between(&self, local: Option<IpAddr>, remote: (IpAddr, u16)) -> bool {
        (local, remote) == (Some(self.ends.local), self.ends.remote)
    }

    /// Somebody has said that nobody listens there.
    pub(super) fn nobody_at(&self, remote: (IpAddr, u16)) -> bool {
        self.stage == Stage::Asking && matches!(self.talk, Talk::Udp { .. }) && remote == self.ends.remote
    }

    /// Ends it without an answer: a connection is reset.
    pub(super) fn abort(&mut self, now: Duration, outgoing: &mut dyn FnMut(&[u8])) {
        if matches!(self.talk, Talk::Connect | Talk::Http { .. }) {
            self.sockets.get_mut::<tcp::Socket<'_>>(self.socket).abort();
            self.exchange(now, None, outgoing);
        }
        self.stage = Stage::Over;
    }

    /// Takes a packet, if there is one, does what time has come for, and says how the check ends, once.
    pub(super) fn step(
        &mut self,
        now: Duration,
        incoming: Option<&[u8]>,
        outgoing: &mut dyn FnMut(&[u8]),
    ) -> Option<Result<(), Failure>> {
        self.exchange(now, incoming, outgoing);
        let end = match self.stage {
            Stage::Asking => self.talk(now),
            Stage::Leaving => {
                self.leave(now);
                None
            }
            Stage::Over => return None,
        };
        if end.is_some() {
            self.stage = Stage::Leaving;
            self.deadline = now + GOOD_BYE;
            self.leave(now);
        }
        self.exchange(now, None, outgoing);
        let stack = self.interface.poll_at(at(now), &self.sockets);
        let stack = stack.map_or(self.deadline, |at| Duration::from_micros(at.total_micros().unsigned_abs()));
        let own = match self.talk {
            Talk::Udp { next, .. } | Talk::Echo { next, .. } => next,
            _ => self.deadline,
        };
        self.wake = self.deadline.min(stack).min(own);
        end
    }

    /// Lets the stack take a packet and send what it has to.
    fn exchange(&mut self, now: Duration, incoming: Option<&[u8]>, outgoing: &mut dyn FnMut(&[u8])) {
        let mut link = Link { incoming, outgoing };
        self.interface.poll(at(now), &mut link, &mut self.sockets);
    }

    fn talk(&mut self, now: Duration) -> Option<Result<(), Failure>> {
        let Self { ends, check, sockets, socket, talk, deadline, .. } = self;
        let is_late = now >= *deadline;
        let retry = check.timeout() / TRIES;
        let end = match (&mut *talk, &check.kind) {
            (Talk::Connect, _) => match sockets.get_mut::<tcp::Socket<'_>>(*socket).state() {
                tcp::State::SynSent | tcp::State::SynReceived => None,
                tcp::State::Closed => Some(Err(Failure::Refused)),
                _ => Some(Ok(())),
            },
            (Talk::Http { request, tls, answer, is_connected, .. }, Kind::Http(check, _)) => {
                let socket = sockets.get_mut::<tcp::Socket<'_>>(*socket);
                *is_connected |= socket.may_send();
                let end = talk_http(socket, request, tls.as_deref_mut(), answer, check);
                end.or_else(|| match socket.state() {
                    tcp::State::SynSent | tcp::State::SynReceived | tcp::State::Established => None,
                    tcp::State::Closed if *is_connected => Some(Err(Failure::Reset)),
                    tcp::State::Closed => Some(Err(Failure::Refused)),
                    _ => Some(Err(answer.end())),
                })
            }
            (Talk::Udp { tries, next }, Kind::Udp { payload, answer }) => {
                let socket = sockets.get_mut::<udp::Socket<'_>>(*socket);
                let to = IpEndpoint::new(ends.remote.0.into(), ends.remote.1);
                if now >= *next && *tries < TRIES && !is_late {
                    let _ = socket.send_slice(payload, to);
                    (*tries, *next) = (*tries + 1, now + retry);
                }
                let mut end = None;
                while let Ok((datagram, from)) = socket.recv() {
                    if from.endpoint == to && end.is_none() {
                        let expect = answer.as_deref().unwrap_or_default();
                        let is_there = expect.is_empty() || datagram.windows(expect.len()).any(|part| part == expect);
                        end = Some(if is_there { Ok(()) } else { Err(Failure::Unexpected) });
                    }
                }
                // Nobody has said that it is not there.
                end.or_else(|| (is_late && answer.is_none()).then_some(Ok(())))
            }
            (Talk::Echo { tries, next }, _) => {
                let socket = sockets.get_mut::<icmp::Socket<'_>>(*socket);
                if now >= *next && *tries < TRIES && !is_late {
                    send_echo(socket, ends, *tries);
                    (*tries, *next) = (*tries + 1, now + retry);
                }
                let mut end = None;
                while let Ok((message, from)) = socket.recv() {
                    if is_reply(message, ends, from.into()) {
                        end = Some(Ok(()));
                    }
                }
                end
            }
            _ => None,
        };
        if let Talk::Udp { tries, next } | Talk::Echo { tries, next } = talk
            && *tries == TRIES
        {
            *next = *deadline;
        }
        end.or_else(|| is_late.then_some(Err(Failure::Silent)))
    }

    /// Ends a connection: by a FIN of ours where nothing more is to come. Where a server is to close, it is waited
    /// for and then reset, so that its kernel has no TIME-WAIT to keep.
    fn leave(&mut self, now: Duration) {
        let is_late = now >= self.deadline;
        self.stage = match &mut self.talk {
            Talk::Udp { .. } | Talk::Echo { .. } => Stage::Over,
            Talk::Connect => {
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
                match socket.state() {
                    tcp::State::Closed | tcp::State::TimeWait => Stage::Over,
                    tcp::State::SynSent | tcp::State::CloseWait => reset(socket),
                    _ if is_late => reset(socket),
                    _ => {
                        socket.close();
                        Stage::Leaving
                    }
                }
            }
            Talk::Http { unread, .. } => {
                let socket = self.sockets.get_mut::<tcp::Socket<'_>>(self.socket);
                while let Ok(length @ 1..) = socket.recv(|bytes| (bytes.len(), bytes.len())) {
                    *unread += length;
                }
                let waits = socket.state() == tcp::State::Established && *unread < MOST_UNREAD && !is_late;
                if waits { Stage::Leaving } else { reset(socket) }
            }
        };
    }
}

/// The reset goes when the stack is next looked at, which is at once.
fn reset(socket: &mut tcp::Socket<'_>) -> Stage {
    socket.abort();
    Stage::Over
}

fn talk_http(
    socket: &mut tcp::Socket<'_>,
    request: &mut Vec<u8>,
    mut tls: Option<&mut TlsSession>,
    answer: &mut Answer,
    check: &HttpCheck,
) -> Option<Result<(), Failure>> {
    // What came before a reset counts.
    let mut end = None;
    while end.is_none()
        && let Ok(1..) = socket.recv(|bytes| {
            match &mut tls {
                None => end = answer.receive(bytes, check),
                Some(tls) => {
                    let received =
                        tls.receive(bytes, |plain| end = end.take().or_else(|| answer.receive(plain, check)));
                    if let Err(error) = received {
                        end = end.take().or_else(|| Some(Err(tls_failure(&error))));
                    }
                }
            }
            (bytes.len(), bytes.len())
        })
    {}
    match tls {
        None => {
            if let Ok(sent @ 1..) = socket.send_slice(request) {
                request.drain(..sent);
            }
        }
        Some(tls) => {
            if let Ok(sent @ 1..) = socket.send_slice(tls.outgoing()) {
                tls.sent(sent);
            }
        }
    }
    end
}

fn tls_failure(error: &rustls::Error) -> Failure {
    Failure::Tls(error.to_string())
}

fn send_echo(socket: &mut icmp::Socket<'_>, ends: &Ends, tries: u32) {
    let (ident, seq_no) = (ends.port, u16::try_from(tries).unwrap_or(0));
    let checksums = ChecksumCapabilities::default();
    // The first is for another family than the other.
    match (ends.local, ends.remote.0) {
        (IpAddr::V4(_), to @ IpAddr::V4(_)) => {
            let message = Icmpv4Repr::EchoRequest { ident, seq_no, data: ECHO };
            if let Ok(bytes) = socket.send(message.buffer_len(), to.into()) {
                message.emit(&mut Icmpv4Packet::new_unchecked(bytes), &checksums);
            }
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let message = Icmpv6Repr::EchoRequest { ident, seq_no, data: ECHO };
            if let Ok(bytes) = socket.send(message.buffer_len(), to.into()) {
                message.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(bytes), &checksums);
            }
        }
        _ => {}
    }
}

/// Whether this is an answer to an echo request; the stack has looked at its checksum and identifier.
fn is_reply(message: &[u8], ends: &Ends, from: IpAddr) -> bool {
    let is_echoed = |data: &[u8]| from == ends.remote.0 && data == ECHO;
    match (ends.local, from) {
        (IpAddr::V4(_), _) => {
            let packet = Icmpv4Packet::new_checked(message);
            let message = packet.as_ref().map(|packet| Icmpv4Repr::parse(packet, &ChecksumCapabilities::ignored()));
            matches!(message, Ok(Ok(Icmpv4Repr::EchoReply { data, .. })) if is_echoed(data))
        }
        (IpAddr::V6(local), IpAddr::V6(from)) => {
            let packet = Icmpv6Packet::new_checked(message);
            let ignored = ChecksumCapabilities::ignored();
            let message = packet.as_ref().map(|packet| Icmpv6Repr::parse(&from, &local, packet, &ignored));
            matches!(message, Ok(Ok(Icmpv6Repr::EchoReply { data, .. })) if is_echoed(data))
        }
        _ => false,
    }
}

fn at(now: Duration) -> Instant {
    Instant::from_micros(i64::try_from(now.as_micros()).unwrap_or(i64::MAX))
}

/// What the stack takes for a device: one packet in, any number out.
struct Link<'a> {
    incoming: Option<&'a [u8]>,
    outgoing: &'a mut dyn FnMut(&[u8]),
}

impl Device for Link<'_> {
    type RxToken<'a>
        = Incoming<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = Outgoing<'a>
    where
        Self: 'a;

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = LONGEST_PACKET;
        capabilities
    }

    fn receive(&mut self, _: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let incoming = self.incoming.take()?;
        Some((Incoming(incoming), Outgoing(self.outgoing)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(self.outgoing))
    }
}

pub(super) struct Incoming<'a>(pub(super) &'a [u8]);

impl phy::RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, take: F) -> R {
        take(self.0)
    }
}

pub(super) struct Outgoing<'a>(pub(super) &'a mut dyn FnMut(&[u8]));

impl phy::TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, write: F) -> R {
        let mut packet = [0; LONGEST_PACKET];
        let packet = &mut packet[..length.min(LONGEST_PACKET)];
        let written = write(packet);
        (self.0)(packet);
        written
    }
}
