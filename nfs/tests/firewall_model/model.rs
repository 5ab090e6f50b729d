//! The firewall in plain maps: rules one after the other, connections one by one.

use super::bytes::{ICMP, ICMPV6, Ip, Link, TCP, UDP, around, be16, be32, link};
use super::fragments::{Fragments, Said as Known};
use super::proxy::{Cookie, Made, Offer, PERIOD, Proxy, say};
use super::setting::{Action, Cookies, Limit, Rule, Setting};
use super::tcp::{ACK, FIN, Kind, RST, SYN, Segment, State, Tcp, Verdict, kind};
use super::{Nanoseconds, SECOND, Side};
use std::collections::BTreeMap;
use std::net::IpAddr;

pub(crate) type End = (IpAddr, u16);
/// Protocol, tags (see [`tags`]), and both ends, the lower one first.
pub(crate) type Key = (u8, u32, End, End);

#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) protocol: u8,
    pub(crate) source: End,
    pub(crate) destination: End,
    /// Where the originator is.
    pub(crate) side: Side,
    pub(crate) tcp: Option<Tcp>,
    /// If it began by a SYN cookie.
    pub(crate) proxy: Option<Proxy>,
    pub(crate) answered: bool,
    /// And the originator has gone on after that.
    pub(crate) assured: bool,
    /// That accepted it.
    pub(crate) rule: Option<String>,
    generation: u64,
    pub(crate) deadline: Nanoseconds,
}

/// What rules are asked about.
#[derive(Clone, Copy, Debug)]
struct Asked {
    related: bool,
    side: Side,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
    flags: u8,
    dscp: u8,
    /// Of the outer tag, 0 without one.
    vlan: u16,
    fragment: bool,
}

/// Tokens as nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    token: u64,
    most: u64,
    content: u64,
    filled: Nanoseconds,
}

impl Bucket {
    fn new(per_second: u32, burst: Option<u32>) -> Self {
        let token = SECOND / u64::from(per_second);
        let most = token * u64::from(burst.unwrap_or(per_second.div_ceil(10)).max(1));
        Self { token, most, content: most, filled: 0 }
    }

    fn take(&mut self, now: Nanoseconds) -> bool {
        self.content = self.most.min(self.content + (now - self.filled));
        self.filled = now;
        let enough = self.content >= self.token;
        self.content -= if enough { self.token } else { 0 };
        enough
    }
}

/// Of a rule, all together or of one source.
#[derive(Clone, Copy, Debug, Default)]
struct Buckets {
    connections: Option<Bucket>,
    packets: Option<Bucket>,
}

impl Buckets {
    fn new(limit: Limit) -> Self {
        let bucket = |per_second: u32| Bucket::new(per_second, limit.burst);
        Self { connections: limit.connections.map(bucket), packets: limit.packets.map(bucket) }
    }
}

/// What becomes of a burst, or of time that passes.
#[derive(Debug, Default)]
pub(crate) struct Expected {
    /// In their order.
    pub(crate) passed: Vec<Vec<u8>>,
    /// What is said to who sent it.
    pub(crate) answers: Vec<Vec<u8>>,
    pub(crate) dropped: Vec<&'static str>,
}

/// What the firewall says about a packet, and makes of it.
#[derive(Debug, Default)]
struct Said {
    /// To who sent it.
    back: Vec<Vec<u8>>,
    /// To where it goes.
    onward: Vec<Vec<u8>>,
    /// The packet itself, where it is not as it came.
    altered: Option<Vec<u8>>,
}

/// What becomes of a segment between two ends that count differently.
#[derive(Clone, Copy, Debug)]
enum Proxied {
    Passes,
    /// It is judged as its connection's, with the numbers of the server.
    Follows(Segment),
    /// Its connection is gone, and it may begin another.
    Begins,
}

/// What a packet of a connection says.
#[derive(Clone, Copy, Debug)]
enum Says {
    Tcp(Segment),
    Query { asks: bool },
    Datagram,
}

pub(crate) struct Model {
    pub(crate) setting: Setting,
    rules: Vec<Rule>,
    /// By the rule's name, and the source if each has its own.
    buckets: BTreeMap<(String, Option<IpAddr>), Buckets>,
    pub(crate) connections: BTreeMap<Key, Connection>,
    pub(crate) fragments: Fragments,
    generation: u64,
    pub(crate) now: Nanoseconds,
    pub(crate) draining: bool,
    /// What the firewall has just said to who sent the burst: of cookies it alone knows the numbers.
    pub(crate) told: Vec<Vec<u8>>,
    /// By connection, its client and the number of its SYN.
    pub(crate) cookies: BTreeMap<(Key, End, u32), Vec<Cookie>>,
    /// By rule, whether it is under attack.
    attacked: BTreeMap<String, bool>,
    /// There is no room for one more connection.
    pub(crate) full: bool,
    /// How often what has happened.
    pub(crate) counts: BTreeMap<String, u64>,
}

type Passes = Result<(), &'static str>;

impl Model {
    pub(crate) fn new(setting: Setting) -> Self {
        let rules = setting.all_rules();
        Self {
            setting,
            rules,
            buckets: BTreeMap::new(),
            connections: BTreeMap::new(),
            fragments: Fragments::default(),
            generation: 0,
            now: 0,
            draining: false,
            told: Vec::new(),
            cookies: BTreeMap::new(),
            attacked: BTreeMap::new(),
            full: false,
            counts: BTreeMap::new(),
        }
    }

    /// Other rules, without limits.
    pub(crate) fn reload(&mut self, setting: Setting) {
        self.setting = setting;
        self.rules = self.setting.all_rules();
        self.generation += u64::from(self.setting.rejudge);
    }

    pub(crate) fn count(&mut self, what: impl Into<String>) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// When something of what is here is over.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = Nanoseconds> {
        let connections = self.connections.values().map(|connection| connection.deadline);
        connections.chain(self.fragments.deadlines())
    }

    /// Time passes, up to this moment.
    pub(crate) fn advance(&mut self, now: Nanoseconds) -> Expected {
        self.now = now;
        let before = self.connections.len();
        self.connections.retain(|_, connection| now < connection.deadline);
        if self.connections.len() < before {
            self.count("expired");
        }
        for cookies in self.cookies.values_mut() {
            // Some time longer, to be offered in vain.
            cookies.retain(|cookie| now - cookie.made < 4 * PERIOD);
        }
        self.cookies.retain(|_, cookies| !cookies.is_empty());
        let expired = self.fragments.expire(now);
        Expected { dropped: vec!["fragment-expired"; expired], ..Expected::default() }
    }

    /// Frames that come in together.
    pub(crate) fn burst(&mut self, side: Side, frames: &[Vec<u8>]) -> Expected {
        let mut expected = Expected::default();
        for frame in frames {
            let Some(link) = link(frame) else {
                expected.dropped.push("malformed");
                continue;
            };
            let looked = self.fragments.look_at(side, frame, &link, self.now);
            expected.dropped.extend(looked.dropped);
            for (frame, known) in looked.on {
                let mut said = Said::default();
                match self.judge(side, &frame, &link, known, &mut said) {
                    Ok(()) => expected.passed.push(said.altered.unwrap_or(frame)),
                    Err(reason) => expected.dropped.push(reason),
                }
                expected.passed.extend(said.onward);
                expected.answers.extend(said.back);
            }
        }
        expected
    }

    fn judge(&mut self, side: Side, frame: &[u8], link: &Link, known: Option<Known>, said: &mut Said) -> Passes {
        let packet = &frame[link.start..];
        let six = match link.ether_type {
            0x0806 => {
                let is_arp = packet.len() >= 28 && packet[..6] == [0, 1, 8, 0, 6, 4];
                return match self.setting.drop_arp {
                    _ if !is_arp => Err("malformed"),
                    true => Err("firewall-arp"),
                    false => Ok(()),
                };
            }
            0x0800 => false,
            0x86dd => true,
            length if length < 1536 && self.setting.llc => return Ok(()),
            other if self.setting.ether_types.contains(&other) => return Ok(()),
            _ => return Err("firewall-ether-type"),
        };
        let ip = Ip::read(packet, six).ok().filter(Ip::transport_can_be).ok_or("malformed")?;
        if ip.is_source_routed {
            return Err("firewall-source-route");
        }
        if !can_send(ip.source) || !can_receive(ip.destination) || ip.source == ip.destination {
            return Err("firewall-address");
        }
        if !ip.is_sound() {
            return Err("firewall-checksum");
        }
        let fragment = ip.piece.is_some();
        let tags = tags(&link.tags).ok_or("malformed")?;
        let mut asked = Asked {
            related: false,
            side,
            source: ip.source,
            destination: ip.destination,
            protocol: ip.protocol,
            ports: None,
            icmp: None,
            flags: 0,
            dscp: ip.class >> 2,
            vlan: link.tags.first().copied().unwrap_or(0),
            fragment,
        };
        let message = &ip.message;
        if ip.is_later() {
            return self.later(&ip, tags, side, known);
        }
        let mut flow = |ports, says, asked: Asked, model: &mut Self| {
            if fragment && model.setting.drop_fragments {
                return Err("firewall-fragment");
            }
            model.of_flow(&asked, tags, ports, says, (frame, link, &ip), said)
        };
        match ip.protocol {
            TCP | UDP => {
                let ports = (be16(message, 0), be16(message, 2));
                asked.ports = Some(ports);
                let says = if ip.protocol == TCP {
                    asked.flags = message[13];
                    Says::Tcp(Segment::read(message, fragment))
                } else {
                    Says::Datagram
                };
                flow(ports, says, asked, self)
            }
            _ if ip.is_icmp() => {
                let (of_type, code) = (message[0], message[1]);
                asked.icmp = Some((of_type, code));
                if let Some((asks, kind)) = query(six, of_type) {
                    let identifier = be16(message, 4);
                    let ports = if asks { (identifier, kind) } else { (kind, identifier) };
                    return flow(ports, Says::Query { asks }, asked, self);
                }
                self.message(&ip, asked, tags, (frame, link), said)
            }
            _ => match least_with_ports(ip.protocol) {
                Some(least) if message.len() < least => Err("malformed"),
                Some(_) => flow((be16(message, 0), be16(message, 2)), Says::Datagram, asked, self),
                None => flow((0, 0), Says::Datagram, asked, self),
            },
        }
    }

    /// An ICMP message that is no query.
    fn message(
        &mut self,
        ip: &Ip,
        mut asked: Asked,
        tags: u32,
        (frame, link): (&[u8], &Link),
        said: &mut Said,
    ) -> Passes {
        let (of_type, fragment) = (ip.message[0], ip.piece.is_some());
        let is_error = if ip.is_six() { (1..=4).contains(&of_type) } else { matches!(of_type, 3 | 11 | 12) };
        let mut quotes_server = None;
        let is_local = match ip.source {
            IpAddr::V6(address) => address.is_unspecified() || address.to_bits() >> 118 == 0xfe80 >> 6,
            IpAddr::V4(_) => false,
        };
        match of_type {
            133..=137 if ip.is_six() => {
                let is_of_the_link = ip.hops == 255 && !fragment;
                return if is_of_the_link { Ok(()) } else { Err("firewall-neighbor-discovery") };
            }
            130..=132 | 143 if ip.is_six() && ip.hops == 1 && is_local && !fragment => return Ok(()),
            _ if is_error => {
                let about = self.related(ip, tags, asked.side).filter(|_| !fragment).ok_or("firewall-unrelated")?;
                let connection = &self.connections[&about];
                // It goes to who sent what it quotes.
                quotes_server =
                    connection.proxy.filter(|of| of.ahead != 0 && ip.destination == connection.destination.0);
                self.judge_again(&about)?;
                asked.related = true;
            }
            _ if fragment => return Err("firewall-fragment"),
            _ => {}
        }
        let (rule, action) = self.decide(&asked);
        self.enforce(rule.as_ref(), action, (frame, link, ip), said)?;
        self.take(rule.as_ref(), asked.source, !asked.related)?;
        if let Some(proxy) = quotes_server {
            said.altered = Some(proxy.renumbered_error((frame, link, ip)));
        }
        Ok(())
    }

    /// The connection that an error is about, if it goes back to who sent a packet of it.
    fn related(&self, ip: &Ip, tags: u32, side: Side) -> Option<Key> {
        let about = Ip::quoted(&ip.message[8..], ip.is_six()).filter(|about| !about.is_later())?;
        let message = &about.message;
        let is_plain = !ip.is_six() || about.whole.len() == message.len() + 40;
        let ports = match about.protocol {
            TCP | UDP if message.len() >= 8 => (be16(message, 0), be16(message, 2)),
            TCP | UDP => return None,
            _ if about.is_icmp() => {
                let (asks, kind) = message.get(..8).and_then(|message| query(ip.is_six(), message[0]))?;
                let identifier = be16(message, 4);
                if asks { (identifier, kind) } else { (kind, identifier) }
            }
            of if least_with_ports(of).is_none() => (0, 0),
            _ if is_plain && message.len() >= 4 => (be16(message, 0), be16(message, 2)),
            _ => return None,
        };
        let (source, destination) = ((about.source, ports.0), (about.destination, ports.1));
        let key = key(about.protocol, tags, source, destination);
        let connection = self.connections.get(&key)?;
        // It came the other way.
        let of = connection.side_of(source, side.other())?;
        let ahead = connection.proxy.filter(|_| of == 1).map_or(0, |proxy| proxy.ahead);
        let was_sent = connection.tcp.is_none_or(|tcp| tcp.may_have_sent(of, be32(message, 4).wrapping_add(ahead)));
        (ip.destination == about.source && was_sent).then_some(key)
    }

    fn later(&mut self, ip: &Ip, tags: u32, side: Side, known: Option<Known>) -> Passes {
        const DENIED: Passes = Err("firewall-fragment");
        let flows = match known {
            Some(Known::Ports(from, to)) => vec![(from, to)],
            // Nobody knows whether it asks or answers; it asks, if both can be.
            Some(Known::Identifier(identifier)) => vec![(identifier, 0), (0, identifier)],
            Some(Known::Nothing) if !ip.is_icmp() && least_with_ports(ip.protocol).is_none() => vec![(0, 0)],
            _ => return DENIED,
        };
        if self.setting.drop_fragments {
            return DENIED;
        }
        for (from, to) in flows {
            let (source, destination) = ((ip.source, from), (ip.destination, to));
            let key = key(ip.protocol, tags, source, destination);
            if !self.connections.contains_key(&key) {
                continue;
            }
            // It tells nothing that its first one has not told.
            self.admit(&key, source, side)?;
            self.spend(&key)?;
            return if self.connections[&key].is_waiting() { Err("firewall-syn-proxy") } else { Ok(()) };
        }
        DENIED
    }

    /// A packet of a connection that there is: whose it is, if it may pass as far as its end and the rules go.
    fn admit(&mut self, key: &Key, source: End, side: Side) -> Result<usize, &'static str> {
        let of = self.connections[key].side_of(source, side).ok_or("firewall-side")?;
        self.judge_again(key)?;
        Ok(of)
    }

    /// A connection that older rules have accepted; it ends if these would not, unless they are to keep what there is.
    fn judge_again(&mut self, key: &Key) -> Passes {
        let connection = &self.connections[key];
        if connection.generation == self.generation {
            return Ok(());
        }
        let generation = self.generation;
        if !self.setting.rejudge {
            self.connections.get_mut(key).expect("it is there").generation = generation;
            return Ok(());
        }
        let (rule, action) = self.decide(&first(connection, key.1));
        if action != Action::Accept {
            self.connections.remove(key);
            return Err("firewall-rejudged");
        }
        let connection = self.connections.get_mut(key).expect("it is there");
        (connection.generation, connection.rule) = (generation, rule.map(|rule| rule.name));
        Ok(())
    }

    /// One more packet of a connection, as far as its rule limits them.
    fn spend(&mut self, key: &Key) -> Passes {
        let Connection { rule, source: begun_by, .. } = self.connections[key].clone();
        let rule = self.rules.iter().find(|of| Some(&of.name) == rule.as_ref()).cloned();
        let now = self.now;
        let bucket = rule.and_then(|rule| self.buckets(&rule, begun_by.0).packets.as_mut());
        if bucket.is_some_and(|bucket| !bucket.take(now)) {
            return Err("firewall-rate-limit");
        }
        Ok(())
    }

    fn of_flow(
        &mut self,
        asked: &Asked,
        tags: u32,
        ports: (u16, u16),
        mut says: Says,
        packet: (&[u8], &Link, &Ip),
        said: &mut Said,
    ) -> Passes {
        let (source, destination) = ((asked.source, ports.0), (asked.destination, ports.1));
        let key = key(asked.protocol, tags, source, destination);
        let returned = self.returned(&key, source, &says, asked.fragment);
        if self.connections.contains_key(&key) {
            let of = self.admit(&key, source, asked.side)?;
            let mut begins = match (says, self.connections[&key].tcp) {
                (Says::Tcp(segment), Some(tcp)) => tcp.begins_anew(of, &segment) || tcp.is_over() && returned.is_some(),
                _ => false,
            };
            if begins {
                self.count("begun anew");
            } else {
                self.spend(&key)?;
                if let (Says::Tcp(segment), Some(proxy)) = (says, self.connections[&key].proxy) {
                    match self.proxied(&key, of, &segment, proxy, packet, said)? {
                        Proxied::Passes => return Ok(()),
                        Proxied::Follows(segment) => says = Says::Tcp(segment),
                        Proxied::Begins => begins = true,
                    }
                }
            }
            if !begins {
                return self.follow(&key, of, says);
            }
        }
        let mut asked = *asked;
        match says {
            Says::Tcp(segment) => match kind(segment.flags).ok_or("firewall-tcp-flags")? {
                Kind::Syn => {}
                // As its SYN would have been.
                Kind::Ack if returned.is_some() => asked.flags = SYN,
                Kind::Ack if self.setting.mid_stream => self.count("picked up"),
                _ => return Err("firewall-no-connection"),
            },
            Says::Query { asks: false } => return Err("firewall-no-connection"),
            _ => {}
        }
        let (rule, action) = self.decide(&asked);
        self.enforce(rule.as_ref(), action, packet, said)?;
        if let (Says::Tcp(segment), None) = (says, returned)
            && self.wants_cookies(rule.as_ref())
        {
            return self.offer(&key, source, &asked, &segment, packet, said);
        }
        let says = match (says, returned) {
            (Says::Tcp(segment), Some(cookie)) => Says::Tcp(cookie.syn(&segment)),
            _ => says,
        };
        self.take(rule.as_ref(), asked.source, true)?;
        if self.draining {
            return Err("draining");
        }
        let embryonic = rule.as_ref().and_then(|rule| rule.limit.embryonic);
        if let (Some(most), Says::Tcp(segment)) = (embryonic, says) {
            let count = self.half_open(rule.as_ref());
            if segment.flags & SYN != 0 && count >= usize::try_from(most).expect("a few") {
                return Err("firewall-embryonic-limit");
            }
        }
        // What is over makes place, once its successor may begin.
        if let Some(most) = self.setting.per_source {
            let others = self.connections.iter().filter(|(of, _)| **of != key);
            let begun = others.filter(|(_, of)| host(of.source.0) == host(asked.source));
            if begun.count() >= usize::try_from(most).expect("a few") {
                return Err("firewall-source-limit");
            }
        }
        self.connections.remove(&key);
        if self.full {
            return Err("firewall-connections-full");
        }
        let tcp = if let Says::Tcp(segment) = says { Some(Tcp::new(&segment)) } else { None };
        let connection = Connection {
            protocol: asked.protocol,
            source,
            destination,
            side: asked.side,
            tcp,
            proxy: returned.map(|cookie| Proxy { cookie: cookie.number, ahead: 0, offer: cookie.offer }),
            answered: false,
            assured: false,
            rule: rule.map(|rule| rule.name),
            generation: self.generation,
            deadline: 0,
        };
        let asks = connection.proxy.zip(connection.tcp);
        self.connections.insert(key, connection);
        self.settle(&key);
        if let Some((proxy, tcp)) = asks {
            self.count("begun by a cookie");
            said.onward.extend(proxy.ask(&tcp, packet));
            return Err("firewall-syn-proxy");
        }
        Ok(())
    }

    /// A packet of a connection that is not another's first.
    fn follow(&mut self, key: &Key, of: usize, says: Says) -> Passes {
        let connection = self.connections.get_mut(key).expect("it was admitted");
        match says {
            Says::Tcp(segment) => {
                let kind = kind(segment.flags).ok_or("firewall-tcp-flags")?;
                let tcp = connection.tcp.as_mut().expect("it is TCP");
                let before = tcp.state;
                match tcp.judge(of, kind, &segment) {
                    Verdict::Follows => {
                        let after = tcp.state;
                        if after != before {
                            self.count(format!("{before:?} to {after:?}"));
                        }
                        self.settle(key);
                    }
                    Verdict::Ignored => self.count("ignored"),
                    Verdict::Drop(reason) => return Err(reason),
                }
            }
            Says::Query { asks } if asks != (of == 0) => return Err("firewall-no-connection"),
            _ => {
                connection.assured |= of == 0 && connection.answered;
                connection.answered |= of == 1;
                self.settle(key);
            }
        }
        Ok(())
    }

    fn half_open(&self, rule: Option<&Rule>) -> usize {
        let name = rule.map(|rule| &rule.name);
        let half_open = |of: &&Connection| {
            let states = [State::SynSent, State::SynSent2, State::SynReceived];
            of.rule.as_ref() == name && of.tcp.is_some_and(|tcp| states.contains(&tcp.state))
        };
        self.connections.values().filter(half_open).count()
    }

    /// The cookie that a client acknowledges.
    fn returned(&self, key: &Key, source: End, says: &Says, fragment: bool) -> Option<Cookie> {
        let Says::Tcp(segment) = says else { return None };
        if fragment || kind(segment.flags) != Some(Kind::Ack) {
            return None;
        }
        let cookies = self.cookies.get(&(*key, source, segment.sequence.wrapping_sub(1)))?;
        let is_it =
            |cookie: &&Cookie| cookie.number == segment.acknowledgment.wrapping_sub(1) && cookie.is_good(self.now);
        cookies.iter().find(is_it).copied()
    }

    fn wants_cookies(&mut self, rule: Option<&Rule>) -> bool {
        let Some(rule) = rule else { return false };
        match rule.cookies {
            Cookies::Never => false,
            Cookies::Always => true,
            Cookies::UnderAttack => {
                let most = usize::try_from(rule.limit.embryonic.expect("it has a limit")).expect("a few");
                let count = self.half_open(Some(rule));
                let attacked = self.attacked.entry(rule.name.clone()).or_default();
                *attacked = count * (if *attacked { 4 } else { 2 }) >= most;
                *attacked
            }
        }
    }

    /// Answers a SYN by a cookie, if all but its number is as it has to be.
    fn offer(
        &mut self,
        key: &Key,
        source: End,
        asked: &Asked,
        syn: &Segment,
        packet: (&[u8], &Link, &Ip),
        said: &mut Said,
    ) -> Passes {
        if kind(syn.flags) != Some(Kind::Syn) {
            return Err("firewall-no-connection");
        }
        if asked.fragment {
            return Err("firewall-fragment");
        }
        if self.draining {
            return Err("draining");
        }
        let offer = Offer::of(&packet.2.message, packet.2.is_six());
        if offer.answer(syn, 0, packet).is_some() {
            let number = |frame: &[u8]| {
                let link = link(frame)?;
                let ip = Ip::read(&frame[link.start..], link.ether_type == 0x86dd).ok()?;
                (ip.protocol == TCP && ip.transport_can_be()).then(|| be32(&ip.message, 4))
            };
            let is_it = |frame: &Vec<u8>| {
                number(frame).is_some_and(|number| offer.answer(syn, number, packet).as_ref() == Some(frame))
            };
            let Some(place) = self.told.iter().position(is_it) else {
                said.back.extend(offer.answer(syn, 0, packet));
                return Err("firewall-syn-cookie");
            };
            let frame = self.told.remove(place);
            let number = number(&frame).expect("it has one");
            let cookie = Cookie { number, made: self.now, offer, side: asked.side };
            self.cookies.entry((*key, source, syn.sequence)).or_default().push(cookie);
            said.back.push(frame);
            self.count("cookies");
        }
        Err("firewall-syn-cookie")
    }

    /// A segment of a connection that began by a cookie.
    fn proxied(
        &mut self,
        key: &Key,
        of: usize,
        segment: &Segment,
        proxy: Proxy,
        packet: (&[u8], &Link, &Ip),
        said: &mut Said,
    ) -> Result<Proxied, &'static str> {
        const OWN: Result<Proxied, &str> = Err("firewall-syn-proxy");
        let kind = kind(segment.flags).ok_or("firewall-tcp-flags")?;
        let mut tcp = self.connections[key].tcp.expect("it is TCP");
        let first = tcp.sides[0].first;
        if tcp.state == State::SynSent && of == 0 {
            return match kind {
                Kind::Syn => {
                    self.connections.remove(key);
                    Ok(Proxied::Begins)
                }
                Kind::Rst if segment.sequence == first => {
                    self.connections.remove(key);
                    Ok(Proxied::Passes)
                }
                Kind::Rst => Err("firewall-tcp-reset"),
                Kind::SynAck => Err("firewall-tcp-state"),
                _ if segment.acknowledgment != proxy.cookie.wrapping_add(1) => Err("firewall-tcp-window"),
                _ => {
                    self.count("asked the server again");
                    said.onward.extend(proxy.ask(&tcp, packet));
                    OWN
                }
            };
        }
        if tcp.state == State::SynSent {
            if !matches!(kind, Kind::SynAck | Kind::Ack | Kind::Rst) {
                return Err("firewall-tcp-state");
            }
            match tcp.judge(1, kind, segment) {
                Verdict::Follows if kind == Kind::Rst => {
                    self.connections.remove(key);
                    self.count("refused by the server");
                    said.onward.extend(say(packet, false, Made { flags: RST | ACK, ..proxy.for_client(&tcp) }));
                }
                Verdict::Follows => {
                    let made = proxy.acknowledgment(&tcp, first, segment);
                    said.back.extend(say(packet, true, made));
                    let Made { sequence, acknowledgment, window, .. } = made;
                    let by_client = Segment {
                        flags: ACK,
                        sequence,
                        acknowledgment,
                        window,
                        data: 0,
                        scale: None,
                        sacked: None,
                        is_part: false,
                    };
                    assert_eq!(tcp.judge(0, Kind::Ack, &by_client), Verdict::Follows);
                    said.onward.extend(say(packet, false, proxy.opening(&tcp, segment)));
                    let connection = self.connections.get_mut(key).expect("it is there");
                    connection.tcp = Some(tcp);
                    connection.proxy = Some(Proxy { ahead: segment.sequence.wrapping_sub(proxy.cookie), ..proxy });
                    self.settle(key);
                    self.count("opened by the firewall");
                }
                // RFC 9293 section 3.10.7.3: it is about an older connection.
                Verdict::Ignored => {
                    let sequence = segment.acknowledgment;
                    let made = Made { sequence, acknowledgment: 0, flags: RST, window: 0, options: &[] };
                    said.back.extend(say(packet, true, made));
                }
                Verdict::Drop(reason) => return Err(reason),
            }
            return OWN;
        }
        match (of, kind) {
            // The acknowledgment of it is lost.
            (1, Kind::SynAck) if segment.sequence == proxy.cookie.wrapping_add(proxy.ahead) => {
                said.back.extend(say(packet, true, proxy.acknowledgment(&tcp, segment.acknowledgment, segment)));
                OWN
            }
            (_, Kind::Syn) => Ok(Proxied::Follows(*segment)),
            _ => {
                let frame = proxy.renumbered(&tcp, of, packet);
                let start = packet.1.start + packet.2.whole.len() - packet.2.message.len();
                let of_server = Segment::read(&frame[start..start + packet.2.message.len()], segment.is_part);
                said.altered = Some(frame);
                Ok(Proxied::Follows(if of == 0 { of_server } else { *segment }))
            }
        }
    }

    /// A connection lasts from now on as long as one of its state does.
    fn settle(&mut self, key: &Key) {
        let timeouts = self.setting.timeouts;
        let connection = self.connections.get_mut(key).expect("it is there");
        let seconds = match (connection.tcp, connection.protocol) {
            (Some(tcp), _) => match tcp.state {
                State::SynSent | State::SynSent2 => timeouts.syn_sent,
                State::SynReceived => timeouts.syn_received,
                State::Established => timeouts.established,
                State::FinWait => timeouts.fin_wait,
                State::CloseWait => timeouts.close_wait,
                State::LastAck => timeouts.last_ack,
                State::TimeWait => timeouts.time_wait,
                State::Close => timeouts.close,
            },
            (_, UDP) if connection.assured => timeouts.udp_answered,
            (_, UDP) => timeouts.udp,
            (_, ICMP | ICMPV6) => timeouts.icmp,
            _ if connection.assured => timeouts.other_answered,
            _ => timeouts.other,
        };
        connection.deadline = self.now + seconds * SECOND;
    }

    /// The first rule that matches.
    fn decide(&self, asked: &Asked) -> (Option<Rule>, Action) {
        match self.rules.iter().find(|rule| self.fits(rule, asked)) {
            Some(rule) => (Some(rule.clone()), rule.action),
            None if asked.related => (None, Action::Accept),
            None if self.setting.rejects => (None, Action::Reject),
            None => (None, Action::Drop),
        }
    }

    fn fits(&self, rule: &Rule, asked: &Asked) -> bool {
        let within = |ports: &[(u16, u16)], port: Option<u16>| {
            ports.is_empty() || port.is_some_and(|port| ports.iter().any(|(from, to)| (*from..=*to).contains(&port)))
        };
        let icmp = |[types, codes]: &[(u8, u8); 2]| {
            asked.icmp.is_some_and(|(of_type, code)| {
                (types.0..=types.1).contains(&of_type) && (codes.0..=codes.1).contains(&code)
            })
        };
        let in_any = |terms: &[super::setting::Term], address| {
            terms.is_empty() || terms.iter().any(|term| self.setting.contains(*term, address))
        };
        rule.related == asked.related
            && rule.from.is_none_or(|from| from == asked.side)
            && in_any(&rule.sources, asked.source)
            && in_any(&rule.destinations, asked.destination)
            && (rule.protocols.is_empty() || rule.protocols.contains(&asked.protocol))
            && within(&rule.source_ports, asked.ports.map(|ports| ports.0))
            && within(&rule.destination_ports, asked.ports.map(|ports| ports.1))
            && (rule.icmp.is_empty() || rule.icmp.iter().any(icmp))
            && rule.flags.is_none_or(|(set, unset)| asked.flags & set == set && asked.flags & unset == 0)
            && (rule.vlans.is_empty() || rule.vlans.contains(&asked.vlan))
            && (rule.dscp.is_empty() || rule.dscp.contains(&asked.dscp))
            && rule.fragment.is_none_or(|fragment| fragment == asked.fragment)
    }

    fn enforce(
        &mut self,
        rule: Option<&Rule>,
        action: Action,
        (frame, link, ip): (&[u8], &Link, &Ip),
        said: &mut Said,
    ) -> Passes {
        if action == Action::Accept {
            return Ok(());
        }
        if action == Action::Reject
            && let Some(answer) = rejection(frame, link, ip)
        {
            said.back.push(answer);
        }
        Err(if rule.is_some() { "firewall-denied" } else { "firewall-default" })
    }

    fn buckets(&mut self, rule: &Rule, source: IpAddr) -> &mut Buckets {
        let key = (rule.name.clone(), rule.limit.per_source.then(|| host(source)));
        self.buckets.entry(key).or_insert_with(|| Buckets::new(rule.limit))
    }

    /// One more connection of a rule, or error, and one more packet.
    fn take(&mut self, rule: Option<&Rule>, source: IpAddr, is_new: bool) -> Passes {
        let (Some(rule), now) = (rule, self.now) else { return Ok(()) };
        let buckets = self.buckets(rule, source);
        let connection = buckets.connections.as_mut().is_none_or(|bucket| bucket.take(now));
        let mut packet = || buckets.packets.as_mut().is_none_or(|bucket| bucket.take(now));
        if connection && (!is_new || packet()) { Ok(()) } else { Err("firewall-rate-limit") }
    }
}

/// What counts as one source.
fn host(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

impl Connection {
    /// Whether it is not given up for another one: both ends have taken part, and it is not over.
    pub(crate) fn is_established(&self) -> bool {
        let is_assured = self.assured && !self.is_ping();
        self.tcp.map_or(is_assured, |tcp| {
            let is_open = !matches!(
                tcp.state,
                State::SynSent | State::SynSent2 | State::SynReceived | State::TimeWait | State::Close
            );
            is_open && tcp.sides.iter().all(|side| side.acknowledged.is_some())
        })
    }

    /// Whether its server is still to answer the firewall.
    pub(crate) fn is_waiting(&self) -> bool {
        self.proxy.is_some() && self.tcp.is_some_and(|tcp| tcp.state == State::SynSent)
    }

    /// Whether it is given up for what is no ping, whatever it has said.
    pub(crate) fn is_ping(&self) -> bool {
        matches!(self.protocol, ICMP | ICMPV6)
    }

    /// Whose a packet is, 0 for the originator's; nothing if it comes in where that end is not.
    fn side_of(&self, source: End, side: Side) -> Option<usize> {
        let by_originator = source == self.source;
        ((side == self.side) == by_originator).then_some(usize::from(!by_originator))
    }
}

pub(crate) fn key(protocol: u8, tags: u32, source: End, destination: End) -> Key {
    (protocol, tags, source.min(destination), source.max(destination))
}

/// Two tags are not one, whatever stands in them; but one without a number is none. Nothing for what no frame may have.
fn tags(tags: &[u16]) -> Option<u32> {
    match tags {
        [] => Some(0),
        [tag] => Some(u32::from(*tag)),
        [0xfff, ..] => None,
        [outer, inner, ..] => Some(1 << 24 | u32::from(*outer) << 12 | u32::from(*inner)),
    }
}

/// DCCP, SCTP and UDP-Lite begin with ports too: how many octets their headers have at least.
fn least_with_ports(protocol: u8) -> Option<usize> {
    match protocol {
        33 | 132 => Some(12),
        136 => Some(8),
        _ => None,
    }
}

/// Whether a packet can be from there: from one host, or from one that has no address yet.
fn can_send(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            address.is_unspecified() || (1..=126).contains(&first) || (128..=223).contains(&first)
        }
        IpAddr::V6(address) => {
            let is_v4 = address.to_bits() >> 32 == 0xffff;
            !address.is_multicast() && address.to_bits() != 1 && !is_v4
        }
    }
}

/// Whether it can be for there: one host, or a group of them.
fn can_receive(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            address.is_broadcast() || (1..=126).contains(&first) || (128..=239).contains(&first)
        }
        IpAddr::V6(address) => address.to_bits() > 1 && address.to_bits() >> 32 != 0xffff,
    }
}

/// Of an ICMP type, whether it asks, and which kind of question it is.
fn query(six: bool, of_type: u8) -> Option<(bool, u16)> {
    match (six, of_type) {
        (false, 8) | (true, 128) => Some((true, 0)),
        (false, 0) | (true, 129) => Some((false, 0)),
        (false, 13) => Some((true, 1)),
        (false, 14) => Some((false, 1)),
        _ => None,
    }
}

/// What is known of a connection's first packet.
fn first(connection: &Connection, tags: u32) -> Asked {
    let Connection { protocol, source, destination, side, .. } = *connection;
    let ports = matches!(protocol, TCP | UDP).then_some((source.1, destination.1));
    let icmp = match (protocol, destination.1) {
        (ICMP, 0) => Some((8, 0)),
        (ICMP, _) => Some((13, 0)),
        (ICMPV6, _) => Some((128, 0)),
        _ => None,
    };
    let flags = match connection.tcp {
        Some(tcp) if tcp.picked_up => ACK,
        Some(_) => SYN,
        None => 0,
    };
    let (source, destination) = (source.0, destination.0);
    let vlan = u16::try_from(if tags > 0xfff { tags >> 12 & 0xfff } else { tags }).expect("12 bits");
    Asked { related: false, side, source, destination, protocol, ports, icmp, flags, dscp: 0, vlan, fragment: false }
}

/// What the sender of a rejected packet is told: RFC 9293 section 3.10.7.1, RFC 1812 section 5.2.7.1, RFC 4443
/// section 3.1. Nothing if it is not to be told, RFC 1122 section 3.2.2.
fn rejection(frame: &[u8], link: &Link, ip: &Ip) -> Option<Vec<u8>> {
    let is_host = |address: IpAddr| match address {
        IpAddr::V4(address) => !address.is_multicast() && !address.is_broadcast() && !address.is_unspecified(),
        IpAddr::V6(address) => !address.is_multicast(),
    };
    let six = ip.is_six();
    let is_error = ip.is_icmp() && if six { ip.message[0] < 128 } else { matches!(ip.message[0], 3 | 4 | 5 | 11 | 12) };
    if !is_host(ip.destination) || ip.source.is_unspecified() || frame[0] & 1 == 1 || is_error {
        return None;
    }
    let (protocol, message) = if ip.protocol == TCP {
        let segment = Segment::read(&ip.message, false);
        if segment.flags & RST != 0 {
            return None;
        }
        let bit = |flag| u32::from(segment.flags & flag != 0);
        let acknowledged = segment.sequence.wrapping_add(segment.data + bit(SYN) + bit(FIN));
        let (sequence, acknowledgment, flags) =
            if segment.flags & ACK == 0 { (0, acknowledged, RST | ACK) } else { (segment.acknowledgment, 0, RST) };
        let mut reset = [&ip.message[2..4], &ip.message[..2]].concat();
        reset.extend(sequence.to_be_bytes());
        reset.extend(acknowledgment.to_be_bytes());
        reset.extend([0x50, flags, 0, 0, 0, 0, 0, 0]);
        (TCP, reset)
    } else {
        let (start, most) = if six { ([1, 1], 1280 - 48) } else { ([3, 13], 576 - 28) };
        let quoted = &ip.whole[..ip.whole.len().min(most)];
        (if six { ICMPV6 } else { ICMP }, [&start[..], &[0; 6], quoted].concat())
    };
    Some(around((frame, link, ip), true, protocol, message))
}
