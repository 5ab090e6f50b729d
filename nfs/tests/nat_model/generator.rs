//! Traffic: mostly what hosts do, and some of what they should not.

use crate::nat_model::Side;
use crate::nat_model::bytes::{
    ETHERNET, ICMP, Ip, TCP, UDP, be16, checksum, fill_checksums, fill_header_checksum, put16, transport_checksum,
};
use crate::nat_model::model::{ACK, FIN, RST, SYN, SessionKey, State};
use crate::nat_model::random::Random;
use crate::nat_model::seen::{self, Serial, is_error};
use crate::nat_model::setting::{Endpoint, Filtering, Setting};
use crate::nat_model::world::{NEXT, OWN, ROUTER, World};
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// Packets of the last bursts that are answered, or that errors are about.
const REMEMBERED: usize = 400;
const PSH: u8 = 8;

pub(crate) struct Generator {
    pub(crate) random: Random,
    serial: Serial,
    /// Packets that left by each side.
    left: [VecDeque<Vec<u8>>; 2],
    hosts: u8,
    /// Whether sessions may be gone unseen.
    tables_are_small: bool,
    /// Fragments that come later.
    late: [Vec<Vec<u8>>; 2],
}

/// A packet in the making.
struct Draft {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    message: Vec<u8>,
    /// Whether what becomes of it is known, though nobody may see it.
    foreseen: bool,
}

impl Draft {
    fn new(source: Ipv4Addr, destination: Ipv4Addr, protocol: u8, message: Vec<u8>) -> Self {
        Self { source, destination, protocol, message, foreseen: true }
    }
}

impl Generator {
    pub(crate) fn new(seed: u64, hosts: u8, tables_are_small: bool) -> Self {
        let (left, late) = Default::default();
        Self { random: Random::new(seed), serial: 0, left, hosts, tables_are_small, late }
    }

    /// Remembers what left, but for what the router says itself.
    pub(crate) fn note(&mut self, side: Side, frame: &[u8]) {
        if Ip::read(&frame[ETHERNET..]).is_none_or(|ip| OWN.contains(&ip.source)) {
            return;
        }
        let left = &mut self.left[usize::from(side == Side::Outside)];
        left.push_back(frame[ETHERNET..].to_vec());
        if left.len() > REMEMBERED {
            left.pop_front();
        }
    }

    fn next_serial(&mut self) -> Serial {
        self.serial = self.serial % seen::MOST + 1;
        self.serial
    }

    fn host(&mut self) -> Ipv4Addr {
        let number = u8::try_from(self.random.below(self.hosts.into())).expect("a few");
        Ipv4Addr::new(10, number % 2, 0, 1 + number / 2)
    }

    fn remote(&mut self) -> Ipv4Addr {
        Ipv4Addr::new(8, 8, self.random.next().to_be_bytes()[0] % 2, 1 + self.random.next().to_be_bytes()[0] % 6)
    }

    /// A few, so that they meet: well-known, odd and even.
    fn host_port(&mut self) -> u16 {
        let number = u16::try_from(self.random.below(20)).expect("a few");
        if number < 4 { 500 + number } else { 2000 + 517 * number }
    }

    fn remote_port(&mut self) -> u16 {
        [53, 80, 443, 1234][self.random.index(4)]
    }

    /// A burst, and the side that it comes in from.
    pub(crate) fn burst(&mut self, world: &World) -> (Side, Vec<Vec<u8>>) {
        let side = if self.random.percent(55) { Side::Inside } else { Side::Outside };
        let length = match self.random.below(4) {
            0 => 1,
            1 => 1 + self.random.index(4),
            2 => 1 + self.random.index(16),
            _ => 1 + self.random.index(60),
        };
        let mut frames = Vec::new();
        let late = &mut self.late[usize::from(side == Side::Outside)];
        if self.random.percent(50) {
            let some = late.len().min(4);
            frames.extend(late.drain(..some));
        }
        while frames.len() < length {
            let more = match side {
                Side::Inside => self.hosts_send(world),
                Side::Outside => self.remotes_send(world),
            };
            if frames.len() + more.len() > 64 {
                break;
            }
            frames.extend(more);
        }
        without_data_behind_a_reset(&mut frames);
        if self.tables_are_small {
            one_of_each_port(&mut frames);
        }
        (side, frames)
    }

    /// Packets by which mappings show the external ports that they have.
    pub(crate) fn probes(&mut self, world: &World) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for (protocol, inside, pool) in world.nat.unknown().into_iter().take(64) {
            let remotes = (1..=6).flat_map(|last| [0, 1].map(|third| Ipv4Addr::new(8, 8, third, last)));
            let fits = |remote: &Ipv4Addr| world.nat.setting.pool_for(inside.0, *remote) == Some(pool);
            let Some(remote) = remotes.into_iter().find(fits) else { continue };
            let draft = match protocol {
                TCP => self.tcp(inside, (remote, 9), SYN),
                UDP => self.udp(inside, (remote, 9)),
                _ => self.query(inside, remote, 8),
            };
            frames.push(self.whole(Side::Inside, draft));
        }
        frames
    }

    fn hosts_send(&mut self, world: &World) -> Vec<Vec<u8>> {
        let setting = &world.nat.setting;
        let draft = match self.random.below(100) {
            0..45 => self.on_some_session(world),
            45..47 if !world.nat.awaited().is_empty() => {
                let awaited = world.nat.awaited();
                let (inside, remote) = awaited[self.random.index(awaited.len())];
                self.tcp(inside, remote, SYN)
            }
            45..58 => {
                let (inside, remote) = ((self.host(), self.host_port()), (self.remote(), self.remote_port()));
                self.udp(inside, remote)
            }
            58..70 => {
                let (inside, remote) = ((self.host(), self.host_port()), (self.remote(), self.remote_port()));
                let flags = if self.random.percent(80) { SYN } else { self.flags() };
                self.tcp(inside, remote, flags)
            }
            70..75 => {
                let (inside, remote) = ((self.host(), self.host_port()), self.remote());
                let kind = [8, 8, 8, 13, 0, 14, 17][self.random.index(7)];
                self.query(inside, remote, kind)
            }
            // Where sessions may be gone, what turned and was dropped then would tell nobody whether its was.
            75..82 if self.tables_are_small => return Vec::new(),
            75..82 => {
                let mut draft = self.hairpin(world);
                let port = if draft.protocol == ICMP { be16(&draft.message, 4) } else { be16(&draft.message, 0) };
                let inside = (draft.source, port);
                draft.foreseen = world.nat.is_mapped(draft.protocol, inside, draft.destination);
                // Of few ports one that nobody has seen yet would be met by chance; and a filter would go by
                // its address.
                let filters = [setting.tcp, setting.udp] != [Filtering::EndpointIndependent; 2];
                if !draft.foreseen && (filters || has_few_ports(setting)) {
                    return Vec::new();
                }
                draft
            }
            82..88 => return self.error(Side::Inside),
            88..90 => {
                let (inside, port) = ((self.host(), self.host_port()), self.remote_port());
                self.any((inside.0, inside.1), (Ipv4Addr::new(9, 9, 9, 1), port))
            }
            90..93 => {
                let remote = (self.remote(), self.remote_port());
                let Some((inside, _)) = self.random.pick(&setting.one_to_one).copied() else { return Vec::new() };
                let port = self.host_port();
                self.any((inside, port), remote)
            }
            93..96 => {
                let Some(server) = self.server(setting) else { return Vec::new() };
                let remote = (self.remote(), self.remote_port());
                let flags = self.flags();
                if server.0 == TCP { self.tcp(server.1, remote, flags) } else { self.udp(server.1, remote) }
            }
            96 => {
                let (source, destination) = (self.host(), self.remote());
                self.other(source, destination)
            }
            97 => {
                let (source, destination) = (self.host(), self.host());
                self.other(source, destination)
            }
            _ => return vec![self.no_ipv4(Side::Inside)],
        };
        self.finish(Side::Inside, draft)
    }

    fn remotes_send(&mut self, world: &World) -> Vec<Vec<u8>> {
        let setting = &world.nat.setting;
        let draft = match self.random.below(100) {
            0..50 => match self.answer() {
                Some(draft) => draft,
                None => return Vec::new(),
            },
            50..64 => {
                let externals = world.nat.externals();
                let Some((protocol, external, _)) = self.random.pick(&externals).copied() else { return Vec::new() };
                let remote = (self.remote(), self.remote_port());
                let flags = self.flags();
                match protocol {
                    TCP => self.tcp(remote, external, flags),
                    UDP => self.udp(remote, external),
                    _ => {
                        let kind = [0, 0, 14, 8][self.random.index(4)];
                        self.query((remote.0, external.1), external.0, kind)
                    }
                }
            }
            64..70 => {
                let external = (self.pool_address(setting), self.some_port(setting));
                let remote = (self.remote(), self.remote_port());
                self.any(remote, external)
            }
            70..80 => return self.error(Side::Outside),
            80..84 => {
                let remote = (self.remote(), self.remote_port());
                let Some((_, outside)) = self.random.pick(&setting.one_to_one).copied() else { return Vec::new() };
                let port = self.host_port();
                self.any(remote, (outside, port))
            }
            84..90 => {
                let remote = (self.remote(), self.remote_port());
                let Some(forward) = self.random.pick(&setting.forward).cloned() else { return Vec::new() };
                let external = (forward.outside, self.random.between(forward.ports.0, forward.ports.1));
                let flags = self.flags();
                if forward.protocol == TCP { self.tcp(remote, external, flags) } else { self.udp(remote, external) }
            }
            90..92 => {
                let source = (self.pool_address(setting), self.host_port());
                let external = (self.pool_address(setting), self.some_port(setting));
                self.any(source, external)
            }
            92..94 => {
                let inside = (self.host(), self.host_port());
                let remote = (self.remote(), self.remote_port());
                self.any(remote, inside)
            }
            94..96 => {
                let inside = (self.host(), self.host_port());
                let port = self.remote_port();
                self.any((Ipv4Addr::new(9, 9, 9, 1), port), inside)
            }
            96 => {
                let (source, destination) = (self.remote(), self.pool_address(setting));
                self.other(source, destination)
            }
            97 => {
                let (source, destination) = (self.remote(), self.remote());
                self.other(source, destination)
            }
            _ => return vec![self.no_ipv4(Side::Outside)],
        };
        self.finish(Side::Outside, draft)
    }

    fn pool_address(&mut self, setting: &Setting) -> Ipv4Addr {
        let pool = self.random.pick(&setting.pools).expect("there is a pool");
        *self.random.pick(&pool.addresses).expect("with an address")
    }

    fn some_port(&mut self, setting: &Setting) -> u16 {
        let (first, last) = setting.pools[0].ports;
        self.random.between(first, last)
    }

    fn server(&mut self, setting: &Setting) -> Option<(u8, Endpoint)> {
        let forward = self.random.pick(&setting.forward)?.clone();
        let (address, port) = *self.random.pick(&forward.to)?;
        let further = self.random.between(0, forward.ports.1 - forward.ports.0);
        Some((forward.protocol, (address, port + further)))
    }

    /// A packet of a session that there is: the sensible next one, mostly.
    fn on_some_session(&mut self, world: &World) -> Draft {
        let count = world.nat.sessions.len();
        let at = self.random.index(count.max(1));
        let Some((key, session)) = world.nat.sessions.iter().nth(at) else {
            let (inside, remote) = ((self.host(), self.host_port()), (self.remote(), self.remote_port()));
            return self.udp(inside, remote);
        };
        let (protocol, inside, remote): SessionKey = *key;
        match protocol {
            UDP => self.udp(inside, remote),
            ICMP => {
                let kind = if self.random.percent(90) { 8 } else { 13 };
                self.query(inside, remote.0, kind)
            }
            _ => {
                let flags = match (session.state, self.random.below(10)) {
                    (_, 0) => self.flags(),
                    (State::Opening, 1..6) => SYN,
                    (State::Opening, 6..8) => SYN | ACK,
                    (State::Established, 1..4) => FIN | ACK,
                    (State::Established, 4) | (State::Opening, 8) => RST,
                    (State::Closing, 1..4) => SYN,
                    _ => ACK | if self.random.percent(30) { PSH } else { 0 },
                };
                self.tcp(inside, remote, flags)
            }
        }
    }

    /// From an inside host to an external address.
    fn hairpin(&mut self, world: &World) -> Draft {
        let setting = &world.nat.setting;
        let externals = world.nat.externals();
        let mut source = (self.host(), self.host_port());
        if let Some((_, _, inside)) = self.random.pick(&externals).copied()
            && self.random.percent(70)
        {
            source = inside;
        }
        let one_to_one = self.random.pick(&setting.one_to_one).copied();
        let forward = self.random.pick(&setting.forward).cloned();
        let flags = if self.random.percent(60) { SYN } else { self.flags() };
        match (self.random.below(10), one_to_one, forward) {
            (0, Some((_, outside)), _) => {
                let port = self.host_port();
                self.any(source, (outside, port))
            }
            (1, Some((inside, _)), _) => {
                let Some((_, external, _)) = self.random.pick(&externals).copied() else {
                    return self.any(source, (setting.pools[0].addresses[0], 9));
                };
                self.any((inside, source.1), external)
            }
            (2, _, Some(forward)) => {
                let external = (forward.outside, forward.ports.0);
                if forward.protocol == TCP { self.tcp(source, external, flags) } else { self.udp(source, external) }
            }
            (3, ..) => {
                let port = self.some_port(setting);
                let address = self.pool_address(setting);
                self.any(source, (address, port))
            }
            _ => match self.random.pick(&externals).copied() {
                Some((TCP, external, _)) => self.tcp(source, external, flags),
                Some((UDP, external, _)) => self.udp(source, external),
                Some((_, external, _)) => self.query(source, external.0, 8),
                None => self.udp(source, (setting.pools[0].addresses[0], 9)),
            },
        }
    }

    /// What a remote host answers to a packet that left.
    fn answer(&mut self) -> Option<Draft> {
        let at = self.random.index(self.left[1].len().max(1));
        let packet = self.left[1].get(at)?.clone();
        let ip = Ip::read(&packet).filter(|ip| ip.offset == 0)?;
        let message = &packet[ip.header..ip.length];
        let from = |at| (ip.destination, be16(message, at));
        match ip.protocol {
            TCP => {
                let flags = match (message[13] & (SYN | ACK), self.random.below(10)) {
                    (_, 0) => self.flags(),
                    (SYN, 1..7) => SYN | ACK,
                    (SYN, 7) => RST | ACK,
                    (SYN, 8) => SYN,
                    (_, 1..3) => FIN | ACK,
                    (_, 3) => RST,
                    _ => ACK,
                };
                Some(self.tcp(from(2), (ip.source, be16(message, 0)), flags))
            }
            UDP => Some(self.udp(from(2), (ip.source, be16(message, 0)))),
            ICMP if matches!(message[0], 8 | 13) => {
                let kind = if message[0] == 8 { 0 } else { 14 };
                Some(self.query(from(4), ip.source, kind))
            }
            _ => None,
        }
    }

    /// Any flags that come to mind.
    fn flags(&mut self) -> u8 {
        let usual = [SYN, SYN | ACK, ACK, ACK | PSH, FIN | ACK, RST, RST | ACK, FIN, SYN | FIN, SYN | RST, 0, 0x3f];
        usual[self.random.index(usual.len())]
    }

    fn any(&mut self, source: Endpoint, destination: Endpoint) -> Draft {
        match self.random.below(5) {
            0 | 1 => self.udp(source, destination),
            2 | 3 => {
                let flags = self.flags();
                self.tcp(source, destination, flags)
            }
            _ => {
                let kind = [8, 0, 13, 14, 17][self.random.index(5)];
                self.query(source, destination.0, kind)
            }
        }
    }

    fn payload(&mut self) -> Vec<u8> {
        let most = if self.random.percent(20) { 120 } else { 20 };
        let length = 3 + self.random.index(most);
        self.random.bytes(length)
    }

    fn udp(&mut self, source: Endpoint, destination: Endpoint) -> Draft {
        let payload = self.payload();
        let mut message = Vec::new();
        message.extend(source.1.to_be_bytes());
        message.extend(destination.1.to_be_bytes());
        message.extend(u16::try_from(8 + payload.len()).expect("short").to_be_bytes());
        message.extend([0, 0]);
        message.extend(payload);
        Draft::new(source.0, destination.0, UDP, message)
    }

    fn tcp(&mut self, source: Endpoint, destination: Endpoint, flags: u8) -> Draft {
        let payload = self.payload();
        let options: &[u8] = match self.random.below(8) {
            _ if flags & SYN == 0 => [&[][..], &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]][self.random.index(2)],
            0 => &[],
            1 => &[1, 1, 1, 0],
            2 => &[2, 4, 2, 0, 0, 0, 0, 0],
            3 => &[1, 2, 4, 0x20, 0, 1, 3, 3, 7, 4, 2, 0],
            4 => &[2, 3, 1, 0],
            _ => &[2, 4, 5, 0xb4, 4, 2, 1, 3, 3, 7, 0, 0],
        };
        let mut message = Vec::new();
        message.extend(source.1.to_be_bytes());
        message.extend(destination.1.to_be_bytes());
        message.extend(self.random.bytes(8));
        message.extend([u8::try_from(5 + options.len() / 4).expect("short") << 4, flags]);
        message.extend([0xff, 0xff, 0, 0, 0, 0]);
        message.extend(options);
        message.extend(payload);
        Draft::new(source.0, destination.0, TCP, message)
    }

    /// The identifier is the source's port.
    fn query(&mut self, source: Endpoint, destination: Ipv4Addr, kind: u8) -> Draft {
        let mut message = vec![kind, 0, 0, 0];
        message.extend(source.1.to_be_bytes());
        message.extend(self.random.bytes(2));
        message.extend(self.payload());
        Draft::new(source.0, destination, ICMP, message)
    }

    fn other(&mut self, source: Ipv4Addr, destination: Ipv4Addr) -> Draft {
        let protocol = [2, 47, 50, 132][self.random.index(4)];
        Draft::new(source, destination, protocol, [vec![0; 8], self.payload()].concat())
    }

    /// A packet of these parts, or fragments of it.
    fn finish(&mut self, side: Side, draft: Draft) -> Vec<Vec<u8>> {
        if self.random.percent(8) && draft.foreseen && !self.tables_are_small {
            return self.fragments(side, draft);
        }
        let foreseen = draft.foreseen && !(side == Side::Inside && draft.destination.octets()[0] == 203);
        let mut frame = self.whole(side, draft);
        match self.random.below(60) {
            0 if foreseen => self.flip(&mut frame),
            1 => {
                let keep = ETHERNET + self.random.index(frame.len() - ETHERNET);
                frame.truncate(keep);
            }
            2 | 3 => frame.extend(vec![0; 1 + self.random.index(20)]),
            _ => {}
        }
        vec![frame]
    }

    /// The IPv4 header of a draft.
    fn header(&mut self, side: Side, draft: &Draft, length: usize) -> Vec<u8> {
        let options: &[u8] = match self.random.below(40) {
            0 => &[1, 1, 1, 0],
            1 => &[148, 4, 0, 0],
            2 => &[7, 7, 4, 0, 0, 0, 0, 0],
            _ => &[],
        };
        let ttl = match self.random.below(40) {
            0 if draft.foreseen => 1,
            1 => 2,
            2 => 255,
            _ => 64,
        };
        let length = 20 + options.len() + length;
        let mut header = vec![0x40 | u8::try_from(5 + options.len() / 4).expect("short"), 0];
        header.extend(u16::try_from(length).expect("short").to_be_bytes());
        header.extend(self.random.between(0, 300).to_be_bytes());
        // Nobody would see which identification a packet got that turns and is dropped then, but in
        // errors about it.
        let turns = side == Side::Inside && draft.destination.octets()[0] == 203;
        let whole = turns || self.random.percent(60);
        header.extend([if whole { 0x40 } else { 0 }, 0, ttl, draft.protocol, 0, 0]);
        header.extend(draft.source.octets());
        header.extend(draft.destination.octets());
        header.extend(options);
        header
    }

    fn whole(&mut self, side: Side, mut draft: Draft) -> Vec<u8> {
        let serial = self.next_serial();
        let length = draft.message.len();
        draft.message[length - 3..].copy_from_slice(&seen::octets(serial));
        let mut packet = self.header(side, &draft, length);
        let transport = packet.len();
        packet.extend(draft.message);
        fill_checksums(&mut packet);
        match (draft.protocol, self.random.below(40)) {
            (UDP, 0..8) => put16(&mut packet, transport + 6, 0),
            // 0xffff is one that comes to zero.
            (UDP, 8..10) => self.aim_at_zero(&mut packet, transport),
            (TCP | UDP, 10) => packet[transport + 6] ^= 1,
            _ => {}
        }
        framed(side, &packet)
    }

    /// Makes the checksum come to zero, by the octets of the payload before the number, if there are
    /// any at an even place.
    fn aim_at_zero(&mut self, packet: &mut [u8], transport: usize) {
        if packet.len() < transport + 14 {
            return;
        }
        let found = be16(packet, transport + 6);
        let word = be16(packet, transport + 8);
        let sum = u32::from(word) + u32::from(found);
        let sum = u16::try_from(if sum > 0xffff { sum - 0xffff } else { sum }).expect("one carry");
        put16(packet, transport + 8, sum);
        fill_checksums(packet);
    }

    /// Fragments of one consistent datagram, mostly in order.
    fn fragments(&mut self, side: Side, mut draft: Draft) -> Vec<Vec<u8>> {
        let most = 64 + self.random.index(100);
        while draft.message.len() < most {
            let more = self.random.bytes(8);
            draft.message.extend(more);
        }
        if draft.protocol == UDP {
            let length = u16::try_from(draft.message.len()).expect("short");
            put16(&mut draft.message, 4, length);
        }
        let first = 5 + self.random.index(3);
        let mut cuts = vec![0, first * 8];
        while cuts[cuts.len() - 1] + 16 < draft.message.len() && cuts.len() < 5 {
            let next = cuts[cuts.len() - 1] + 8 * (1 + self.random.index(4));
            if next + 8 < draft.message.len() {
                cuts.push(next);
            } else {
                break;
            }
        }
        cuts.push(draft.message.len());
        for end in &cuts[1..] {
            let serial = self.next_serial();
            draft.message[end - 3..*end].copy_from_slice(&seen::octets(serial));
        }
        let sum = transport_checksum(draft.protocol, draft.source, draft.destination, &draft.message);
        match draft.protocol {
            TCP => put16(&mut draft.message, 16, sum),
            UDP if self.random.percent(80) => put16(&mut draft.message, 6, sum),
            ICMP => put16(&mut draft.message, 2, sum),
            _ => {}
        }
        draft.foreseen = false;
        let header = self.header(side, &draft, 0);
        // One that lies over the one before it.
        let over = if self.random.percent(5) { 1 + self.random.index(cuts.len() - 1) } else { cuts.len() };
        let mut frames = Vec::new();
        for (number, (start, end)) in cuts.iter().zip(&cuts[1..]).enumerate() {
            let mut packet = header.clone();
            let more = if *end == draft.message.len() { 0 } else { 0x2000 };
            let length = u16::try_from(packet.len() + end - start).expect("short");
            put16(&mut packet, 2, length);
            let place = u16::try_from(start / 8).expect("short") - u16::from(number == over);
            put16(&mut packet, 6, place | more);
            packet.extend(&draft.message[*start..*end]);
            fill_header_checksum(&mut packet);
            frames.push(framed(side, &packet));
        }
        match self.random.below(8) {
            0 | 1 => frames.reverse(),
            2 | 3 => {
                let (one, other) = (self.random.index(frames.len()), self.random.index(frames.len()));
                frames.swap(one, other);
            }
            4 => {
                let gone = self.random.index(frames.len());
                frames.remove(gone);
            }
            5 => {
                let again = self.random.index(frames.len());
                frames.push(frames[again].clone());
            }
            _ => {}
        }
        if self.random.percent(30) && frames.len() > 1 {
            let later = frames.split_off(1 + self.random.index(frames.len() - 1));
            self.late[usize::from(side == Side::Outside)].extend(later);
        }
        frames
    }

    /// An ICMP error about something that left by this side.
    fn error(&mut self, side: Side) -> Vec<Vec<u8>> {
        let left = &self.left[usize::from(side == Side::Outside)];
        let at = self.random.index(left.len().max(1));
        let Some(mut about) = self.left[usize::from(side == Side::Outside)].get(at).cloned() else {
            return Vec::new();
        };
        let ip = Ip::read(&about).expect("it left");
        about.truncate(ip.length);
        let full = about.len();
        // As it was when it was dropped.
        about[8] = about[8].saturating_sub(1);
        fill_header_checksum(&mut about);
        match self.random.below(30) {
            0 => about[12 + self.random.index(8)] ^= 1 << self.random.below(8),
            1 if full > ip.header + 8 => about[ip.header + self.random.index(8)] ^= 1 << self.random.below(8),
            2 => about[9] = 47,
            _ => {}
        }
        if self.random.percent(70) {
            fill_header_checksum(&mut about);
        }
        let cut = match self.random.below(10) {
            0 => self.random.index(ip.header + 9),
            1..5 => ip.header + 8,
            5..7 => ip.header + 8 + self.random.index(14),
            _ => full,
        };
        about.truncate(cut.max(1));
        let mut length = 0;
        if self.random.percent(10) {
            // RFC 4884: 128 octets, and an extension behind them.
            about.resize(128, 0);
            length = 32;
            about.extend([0x20, 0, 0xdf, 0xff, 0, 8, 1, 1, 1, 2, 3, 4]);
        }
        let from = match self.random.below(3) {
            0 => ip.destination,
            _ if side == Side::Inside => self.host(),
            _ => self.remote(),
        };
        let (kind, code) =
            [(3, 0), (3, 1), (3, 3), (3, 4), (3, 13), (4, 0), (11, 0), (11, 1), (12, 0), (5, 1)][self.random.index(10)];
        let [a, b, c] = seen::octets(self.next_serial());
        let mut message = vec![kind, code, 0, 0, a, length, b, c];
        message.extend(about);
        let sum = checksum(&message);
        put16(&mut message, 2, sum);
        if self.random.percent(4) {
            message[3] ^= 1;
        }
        let draft = Draft { foreseen: false, ..Draft::new(from, ip.source, ICMP, message) };
        let mut packet = self.header(side, &draft, draft.message.len());
        packet.extend(&draft.message);
        if self.random.percent(3) {
            packet[6] |= 0x20;
        }
        fill_header_checksum(&mut packet);
        vec![framed(side, &packet)]
    }

    /// One bit is another one, but for those of the number.
    fn flip(&mut self, frame: &mut [u8]) {
        let Some(ip) = Ip::read(&frame[ETHERNET..]) else { return };
        let end = ETHERNET + ip.length - 3;
        let at = ETHERNET + self.random.index(end - ETHERNET);
        let of_error = ip.protocol == ICMP && is_error(frame[ETHERNET + ip.header]);
        if !of_error {
            frame[at] ^= 1 << self.random.below(8);
        }
    }

    fn no_ipv4(&mut self, side: Side) -> Vec<u8> {
        if self.random.percent(50) {
            let packet = vec![0xaa; 20 + self.random.index(40)];
            return [&ROUTER[at(side)][..], &NEXT[at(side)], &[0x88, 0xcc], &packet].concat();
        }
        let (source, destination): ([u8; 4], [u8; 4]) = match side {
            Side::Inside => ([0x20, 0x01, 0x0d, 0xb8], [0, 8, 0, 9]),
            Side::Outside => ([0x20, 0x01, 0x0d, 0xb8], [0, 9, 0, 8]),
        };
        let mut packet = vec![0x60, 0, 0, 0, 0, 12, UDP, 64];
        packet.extend([&source[..], &destination[..2], &[0; 9], &[7]].concat());
        packet.extend([&source[..], &destination[2..], &[0; 9], &[7]].concat());
        packet.extend([0, 1, 0, 2, 0, 12, 0, 0]);
        packet.extend(self.random.bytes(4));
        [&ROUTER[at(side)][..], &NEXT[at(side)], &[0x86, 0xdd], &packet].concat()
    }
}

fn has_few_ports(setting: &Setting) -> bool {
    setting.pools.iter().any(|pool| pool.ports.1 - pool.ports.0 < 2000)
}

/// In which order a burst's packets find that their session has gone, nobody can say.
fn one_of_each_port(frames: &mut Vec<Vec<u8>>) {
    let mut seen = Vec::new();
    frames.retain(|frame| {
        let Some(ip) = frame.get(ETHERNET..).and_then(Ip::read) else { return true };
        let Some(message) = frame.get(ETHERNET + ip.header..).filter(|rest| rest.len() >= 8) else { return true };
        let at = if ip.protocol == ICMP { 4 } else { 0 };
        let port = (ip.source, ip.protocol, be16(message, at));
        let first = !seen.contains(&port);
        seen.push(port);
        first
    });
}

/// A function may look at a burst's plain packets first and at those with flags then; so what a burst
/// says of one connection does not hang on their order.
fn without_data_behind_a_reset(frames: &mut Vec<Vec<u8>>) {
    let mut reset = Vec::new();
    frames.retain(|frame| {
        let Some(ip) = frame.get(ETHERNET..).and_then(Ip::read).filter(|ip| ip.protocol == TCP) else { return true };
        let Some(message) = frame.get(ETHERNET + ip.header..).filter(|rest| rest.len() >= 20) else { return true };
        let connection = (ip.source, ip.destination, message[..4].to_vec());
        if ip.offset == 0 && message[13] & RST != 0 {
            reset.push(connection.clone());
        }
        message[13] & RST != 0 || !reset.contains(&connection)
    });
}

fn at(side: Side) -> usize {
    usize::from(side == Side::Outside)
}

fn framed(side: Side, packet: &[u8]) -> Vec<u8> {
    [&ROUTER[at(side)][..], &NEXT[at(side)], &[8, 0], packet].concat()
}
