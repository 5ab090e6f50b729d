//! Connections that begin by a SYN cookie: between client and server stands the firewall until both have shown that
//! they are there.
//!
//! The client's SYN is answered by a cookie and a window of nothing, so that the client sends no data yet. Its
//! acknowledgment begins the connection, in `SYN_SENT`, and becomes the SYN to the server; each further segment of
//! the client's becomes that SYN again. The server's answer is acknowledged to it, and told to the client as a window.
//! From there on both are followed as they count at the server, and what goes between them is renumbered.

use super::answer::{self, Made, To};
use super::config::{State as Asks, SynCookies};
use super::connection::{Connection, Course, FlowKey};
use super::cookies::{Beginning, Cookies, Offer};
use super::fate::Fate;
use super::limits::Limits;
use super::packet::{Flow, Kind, Quoted, Says, Seen, is_sound, options, usual_segment, usual_v4, usual_v6};
use super::policy::Policy;
use super::reasons::{Counters, Reasons};
use super::rule::Rule;
use super::tcp::{self, Event, Judgement, ORIGINATOR, RESPONDER, Segment, State, Tcp};
use super::tracking::{Place, Tracking};
use crate::rewrite::{self, Renumbering};
use nf_framework::headers::{Headers, IpProtocol, TcpFlags, Transport};
use nf_framework::{Context, DropReason, HugeSlice, Instant, Mbuf, Memory, SetupError};
use std::ops::ControlFlow;

/// What a worker knows beside its connections.
#[derive(Debug)]
pub(super) struct SynProxy {
    cookies: Cookies,
    /// By the slots of both tables.
    numbers: [HugeSlice<Numbers>; 2],
    /// By the slot of a rule.
    attacked: Vec<bool>,
}

/// How a connection's server counts for the client.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    /// What was told to the client as the number of the server's SYN.
    cookie: u32,
    /// How far the server's own is ahead of it.
    ahead: u32,
}

/// The window scale that a client is told, before the server is asked for its own: up to 8 MB in flight.
const TOLD_SCALE: u8 = 7;
/// What an IPv6 header is longer than that of IPv4.
const LONGER_V6: u16 = 20;
const SYN_ACK: TcpFlags = TcpFlags(TcpFlags::SYN.0 | TcpFlags::ACK.0);
const RST_ACK: TcpFlags = TcpFlags(TcpFlags::RST.0 | TcpFlags::ACK.0);

impl SynProxy {
    /// Of a program that starts; nothing where no rule has cookies.
    pub(super) fn new(policy: &Policy, tracking: &Tracking, memory: &Memory) -> Result<Option<Self>, SetupError> {
        if !policy.makes_cookies() {
            return Ok(None);
        }
        let numbers = |slots| memory.slice(slots, |_| Numbers::default());
        let numbers = [numbers(tracking.v4.slots())?, numbers(tracking.v6.slots())?];
        Ok(Some(Self { cookies: Cookies::new(), numbers, attacked: Vec::new() }))
    }

    /// Bytes that it takes of a worker's memory.
    pub(super) fn bytes(policy: &Policy) -> usize {
        // Tables have an eighth more slots, in rows of 64.
        let slots = |entries: usize| entries + entries / 8 + 64;
        let config = &policy.config;
        let all = slots(config.connections) + slots(config.connections_v6());
        if policy.makes_cookies() { all * size_of::<Numbers>() } else { 0 }
    }

    /// Goes on with rules that have so many slots.
    pub(super) fn adopt(&mut self, slots: usize) {
        self.attacked.resize(slots.max(self.attacked.len()), false);
    }

    /// A slot will stand for another rule.
    pub(super) fn forget(&mut self, slot: usize) {
        if let Some(attacked) = self.attacked.get_mut(slot) {
            *attacked = false;
        }
    }

    pub(super) fn tick(&mut self, now: Instant) {
        self.cookies.turn(now);
    }

    /// Whether a rule is under attack, of whose connections so many are half open.
    fn is_attacked(&mut self, slot: u16, embryonic: u32, most: u32) -> bool {
        let Some(attacked) = self.attacked.get_mut(usize::from(slot)) else { return false };
        *attacked = embryonic.saturating_mul(if *attacked { 4 } else { 2 }) >= most;
        *attacked
    }

    fn numbers(&self, place: Place) -> Option<Numbers> {
        let [v4, v6] = &self.numbers;
        match place {
            Place::V4(handle) => v4.get(handle.slot()).copied(),
            Place::V6(handle) => v6.get(handle.slot()).copied(),
        }
    }

    fn set_numbers(&mut self, place: Place, numbers: Numbers) {
        let [v4, v6] = &mut self.numbers;
        let known = match place {
            Place::V4(handle) => v4.get_mut(handle.slot()),
            Place::V6(handle) => v6.get_mut(handle.slot()),
        };
        if let Some(known) = known {
            *known = numbers;
        }
    }

    /// What the client has offered whose cookie comes back with this acknowledgment.
    pub(super) fn returned(&self, seen: &Seen) -> Option<(Segment, Offer)> {
        let Kind::Flow(flow, Says::Tcp(segment)) = seen.kind else { return None };
        if seen.fragment || tcp::event(segment.flags) != Some(Event::Ack) {
            return None;
        }
        let of = beginning(&flow, segment.sequence.wrapping_sub(1));
        Some((segment, self.cookies.check(&of, segment.acknowledgment.wrapping_sub(1))?))
    }

    /// Whether a rule wants cookies now.
    pub(super) fn wants_cookies(&mut self, rule: &Rule, limits: &Limits, tracking: &Tracking) -> bool {
        match rule.syn_cookies {
            SynCookies::Never => false,
            SynCookies::Always => true,
            SynCookies::UnderAttack => {
                let most = limits.embryonic(rule.slot).unwrap_or(u32::MAX);
                self.is_attacked(rule.slot, tracking.embryonic(rule.slot), most)
            }
        }
    }

    /// Answers a SYN by a cookie; why it is dropped.
    pub(super) fn offer_cookie(
        &self,
        packet: &mut Mbuf,
        seen: &Seen,
        (flow, segment): (&Flow, &Segment),
        (policy, reasons, counters): (&Policy, &Reasons, &mut Counters),
        cx: &mut Context<'_>,
    ) -> DropReason {
        if tcp::event(segment.flags) != Some(Event::Syn) {
            return reasons.no_connection;
        }
        if seen.fragment {
            return reasons.fragment;
        }
        if cx.draining() {
            return DropReason::DRAINING;
        }
        let mut offer = Offer { mss: 0, scale: segment.scale, sack: false };
        if let Ok(headers) = Headers::parse(packet.data_mut())
            && let Transport::Tcp { options: all, .. } = &headers.transport
        {
            for (kind, option) in options(all) {
                match (kind, option) {
                    (2, [high, low]) => offer.mss = u16::from_be_bytes([*high, *low]),
                    (4, []) => offer.sack = true,
                    _ => {}
                }
            }
        }
        let mss = policy.config.syn_cookies_mss - if seen.source.is_ipv4() { 0 } else { LONGER_V6 };
        let (words, length) = words(&Offer { mss, scale: offer.scale.map(|_| TOLD_SCALE), ..offer });
        let made = Made {
            sequence: self.cookies.make(&beginning(flow, segment.sequence), offer),
            acknowledgment: segment.sequence.wrapping_add(1),
            flags: SYN_ACK,
            window: 0,
            options: &words[..length],
        };
        if answer::say(packet, To::Sender, &made, cx) {
            counters.cookies.add(1);
        }
        reasons.syn_cookie
    }

    /// A connection has begun by this acknowledgment of a cookie: asks the server.
    pub(super) fn ask_server(
        &mut self,
        packet: &mut Mbuf,
        place: Place,
        cookie: u32,
        tracking: &mut Tracking,
        cx: &mut Context<'_>,
    ) {
        self.set_numbers(place, Numbers { cookie, ahead: 0 });
        if let Some(connection) = tracking.get_mut(place) {
            connection.set_proxied();
        }
        self.say_syn(packet, place, tracking, cx);
    }

    fn say_syn(&self, packet: &mut Mbuf, place: Place, tracking: &Tracking, cx: &mut Context<'_>) {
        let Some((tcp, _, offer)) = self.known(place, tracking) else { return };
        let client = tcp.sides[ORIGINATOR];
        let (words, length) = words(&offer);
        let made = Made {
            sequence: client.acknowledged.wrapping_sub(1),
            acknowledgment: 0,
            flags: TcpFlags::SYN,
            window: u16::try_from(client.window).unwrap_or(u16::MAX),
            options: &words[..length],
        };
        answer::say(packet, To::Receiver, &made, cx);
    }

    fn known(&self, place: Place, tracking: &Tracking) -> Option<(Tcp, Numbers, Offer)> {
        let numbers = self.numbers(place)?;
        let four = matches!(place, Place::V4(_));
        Some((tracking.get(place)?.tcp, numbers, Offer::kept_in(numbers.cookie, four)))
    }

    /// A packet of a connection whose ends count differently. As it comes back it counts as the server does; or the
    /// firewall has acted on it itself.
    pub(super) fn proxied(
        &mut self,
        packet: &mut Mbuf,
        (place, seen, side): (Place, &Seen, usize),
        says: Says,
        (tracking, reasons): (&mut Tracking, &Reasons),
        cx: &mut Context<'_>,
    ) -> ControlFlow<Fate, Says> {
        let done = ControlFlow::Break(Fate::Drop(reasons.syn_proxy));
        let Some((tcp, numbers, offer)) = self.known(place, tracking) else { return done };
        let opens = tcp.state == State::SynSent;
        let Says::Tcp(mut segment) = says else { return if opens { done } else { ControlFlow::Continue(says) } };
        let Some(event) = tcp::event(segment.flags) else {
            return ControlFlow::Break(Fate::Drop(reasons.tcp_flags));
        };
        match (opens, side, event) {
            (true, ORIGINATOR, _) => {
                return ControlFlow::Break(self.of_waiting_client(
                    packet,
                    (place, seen),
                    (event, &segment),
                    (tracking, reasons),
                    cx,
                ));
            }
            (true, ..) => {
                return ControlFlow::Break(self.of_asked_server(
                    packet,
                    place,
                    (event, &segment),
                    (tracking, reasons),
                    cx,
                ));
            }
            // The acknowledgment of it is lost.
            (false, RESPONDER, Event::SynAck) if segment.sequence == numbers.cookie.wrapping_add(numbers.ahead) => {
                acknowledge(packet, &tcp, segment.acknowledgment, &segment, cx);
                return done;
            }
            (false, _, Event::Syn) => return ControlFlow::Continue(says),
            _ => {}
        }
        let by = renumbering(&tcp, numbers, &offer, side, segment.window);
        rewrite::renumber(packet, by);
        if side == ORIGINATOR {
            segment.acknowledgment = segment.acknowledgment.wrapping_add(numbers.ahead);
            segment.sacked = segment.sacked.map(|edge| edge.wrapping_add(numbers.ahead));
            segment.window = by.window;
        }
        ControlFlow::Continue(Says::Tcp(segment))
    }

    /// Lets a usual segment through of an established connection whose ends count differently. False, and no change, if
    /// it needs a closer look, or is of no such connection.
    pub(super) fn carry_renumbered(
        &self,
        packet: &mut Mbuf,
        verify: bool,
        tracking: &mut Tracking,
        cx: &Context<'_>,
    ) -> bool {
        let frame = packet.data();
        let found = usual_v4(frame).map(|usual| (FlowKey::V4(usual.key), usual.from_low));
        let found = found.or_else(|| usual_v6(frame).map(|usual| (FlowKey::V6(usual.key), usual.from_low)));
        let Some((key, from_low)) = found else { return false };
        let Some(place) = tracking.find(&key) else { return false };
        let Some(connection) = tracking.get(place) else { return false };
        let is_known =
            connection.is_proxied() && !connection.is_limited() && connection.generation() == tracking.generation();
        let side = connection.side(Course::new(from_low, cx.direction()));
        let (Some(side), Some((tcp, numbers, offer))) = (side.filter(|_| is_known), self.known(place, tracking)) else {
            return false;
        };
        let Some((sequence, acknowledgment, window, payload)) = usual_segment(frame, matches!(place, Place::V6(_)))
        else {
            return false;
        };
        let by = renumbering(&tcp, numbers, &offer, side, window);
        if verify && !is_sound(packet) {
            return false;
        }
        let Some(connection) = tracking.get_mut(place) else { return false };
        let (acknowledgment, window) = match side {
            ORIGINATOR => (acknowledgment.wrapping_add(numbers.ahead), by.window),
            _ => (acknowledgment, window),
        };
        let carried = connection.tcp.carry(side, sequence, acknowledgment, window, payload);
        if carried {
            rewrite::renumber(packet, by);
            tracking.settle(place, IpProtocol::TCP);
        }
        carried
    }

    /// A segment of a client whose server has not answered.
    fn of_waiting_client(
        &self,
        packet: &mut Mbuf,
        (place, seen): (Place, &Seen),
        (event, segment): (Event, &Segment),
        (tracking, reasons): (&mut Tracking, &Reasons),
        cx: &mut Context<'_>,
    ) -> Fate {
        let Some((tcp, numbers, _)) = self.known(place, tracking) else { return Fate::Drop(reasons.syn_proxy) };
        match event {
            // It begins anew, by another cookie.
            Event::Syn => {
                tracking.end(place);
                return Fate::Ask(*seen, Asks::New);
            }
            Event::Rst if segment.sequence == tcp.sides[ORIGINATOR].acknowledged => {
                tracking.end(place);
                return Fate::Pass;
            }
            Event::Rst => return Fate::Drop(reasons.tcp_reset),
            Event::SynAck => return Fate::Drop(reasons.tcp_state),
            Event::Ack | Event::Fin if segment.acknowledgment != numbers.cookie.wrapping_add(1) => {
                return Fate::Drop(reasons.tcp_window);
            }
            Event::Ack | Event::Fin => {}
        }
        self.say_syn(packet, place, tracking, cx);
        Fate::Drop(reasons.syn_proxy)
    }

    /// A segment of a server that was asked.
    fn of_asked_server(
        &mut self,
        packet: &mut Mbuf,
        place: Place,
        (event, segment): (Event, &Segment),
        (tracking, reasons): (&mut Tracking, &Reasons),
        cx: &mut Context<'_>,
    ) -> Fate {
        let done = Fate::Drop(reasons.syn_proxy);
        if !matches!(event, Event::SynAck | Event::Ack | Event::Rst) {
            return Fate::Drop(reasons.tcp_state);
        }
        let Some((mut tcp, Numbers { cookie, .. }, offer)) = self.known(place, tracking) else { return done };
        let first = tcp.sides[ORIGINATOR].acknowledged;
        let to_client = |flags, window| Made {
            sequence: cookie.wrapping_add(1),
            acknowledgment: first,
            flags,
            window,
            options: &[],
        };
        match tcp.follow(RESPONDER, event, segment) {
            Judgement::Follows if event == Event::Rst => {
                tracking.end(place);
                answer::say(packet, To::Receiver, &to_client(RST_ACK, 0), cx);
            }
            Judgement::Follows => {
                let acknowledgment = acknowledge(packet, &tcp, first, segment, cx);
                tcp.follow(ORIGINATOR, Event::Ack, &acknowledgment);
                if let Some(connection) = tracking.get_mut(place) {
                    connection.tcp = tcp;
                }
                self.set_numbers(place, Numbers { cookie, ahead: segment.sequence.wrapping_sub(cookie) });
                tracking.settle(place, IpProtocol::TCP);
                let window = scaled(segment.window, 0, told_scale(&offer));
                answer::say(packet, To::Receiver, &to_client(TcpFlags::ACK, window), cx);
            }
            // It is about an older connection, as RFC 9293 section 3.10.7.3 has it.
            Judgement::Ignored => {
                let (sequence, flags) = (segment.acknowledgment, TcpFlags::RST);
                let made = Made { sequence, acknowledgment: 0, flags, window: 0, options: &[] };
                answer::say(packet, To::Sender, &made, cx);
            }
            Judgement::InexactReset => return Fate::Drop(reasons.tcp_reset),
            Judgement::OutOfWindow => return Fate::Drop(reasons.tcp_window),
            Judgement::WrongState | Judgement::BeginsAnew => return Fate::Drop(reasons.tcp_state),
        }
        done
    }

    /// How far a side of a connection is ahead of what the other one sees of it.
    pub(super) fn ahead(&self, place: Place, side: usize, tracking: &Tracking) -> u32 {
        let is_proxied = tracking.get(place).is_some_and(Connection::is_proxied);
        let numbers = if is_proxied && side == RESPONDER { self.numbers(place) } else { None };
        numbers.map_or(0, |numbers| numbers.ahead)
    }

    /// An ICMP error that goes to a server quotes what the client has seen.
    pub(super) fn renumber_quoted(&self, packet: &mut Mbuf, quoted: &Quoted, tracking: &Tracking, cx: &Context<'_>) {
        let Some(place) = tracking.find(&quoted.flow.key) else { return };
        let course = Course::new(quoted.flow.from_low, cx.direction().reversed());
        let side = tracking.get(place).and_then(|connection| connection.side(course));
        match side.map(|side| self.ahead(place, side, tracking)) {
            None | Some(0) => {}
            Some(ahead) => rewrite::renumber_quoted(packet, ahead),
        }
    }
}

/// The SYN that a client has sent, as far as is known by its acknowledgment of the cookie.
pub(super) fn syn_of(returned: &Segment, offer: &Offer) -> Segment {
    Segment {
        flags: TcpFlags::SYN,
        sequence: returned.sequence.wrapping_sub(1),
        window: scaled(returned.window, offer.scale.unwrap_or(0).into(), 0),
        payload: 0,
        scale: offer.scale,
        sacked: None,
        ..*returned
    }
}

fn beginning(flow: &Flow, number: u32) -> Beginning {
    Beginning { key: flow.key, from_low: flow.from_low, number }
}

/// Acknowledges a server's SYN in the client's name.
fn acknowledge(packet: &mut Mbuf, tcp: &Tcp, sequence: u32, syn: &Segment, cx: &mut Context<'_>) -> Segment {
    let window = u16::try_from(tcp.sides[ORIGINATOR].window >> tcp.scale(ORIGINATOR)).unwrap_or(u16::MAX);
    let (acknowledgment, flags) = (syn.sequence.wrapping_add(1), TcpFlags::ACK);
    answer::say(packet, To::Sender, &Made { sequence, acknowledgment, flags, window, options: &[] }, cx);
    // Of the server's data and fragments it has nothing.
    Segment { flags, sequence, acknowledgment, window, payload: 0, scale: None, sacked: None, is_part: false }
}

/// What becomes of a segment of a side, with this window.
fn renumbering(tcp: &Tcp, numbers: Numbers, offer: &Offer, side: usize, window: u16) -> Renumbering {
    if side == ORIGINATOR {
        let window = scaled(window, offer.scale.unwrap_or(0).into(), tcp.scale(ORIGINATOR));
        Renumbering { sequence: 0, acknowledgment: numbers.ahead, window }
    } else {
        let window = scaled(window, tcp.scale(RESPONDER), told_scale(offer));
        Renumbering { sequence: numbers.ahead.wrapping_neg(), acknowledgment: 0, window }
    }
}

/// A window field for who shifts it by another scale than its sender.
fn scaled(window: u16, from: u32, to: u32) -> u16 {
    u16::try_from(u32::from(window) << from >> to).unwrap_or(u16::MAX)
}

/// The window scale that a client has taken over.
fn told_scale(offer: &Offer) -> u32 {
    offer.scale.map_or(0, |_| TOLD_SCALE.into())
}

/// An offer as options of a SYN.
fn words(offer: &Offer) -> ([u8; 12], usize) {
    let [high, low] = offer.mss.to_be_bytes();
    let mut words = [2, 4, high, low, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut length = 4;
    let mut put = |word: [u8; 4]| {
        words[length..length + 4].copy_from_slice(&word);
        length += 4;
    };
    if offer.sack {
        put([1, 1, 4, 2]);
    }
    if let Some(scale) = offer.scale {
        put([1, 3, 3, scale]);
    }
    (words, length)
}
