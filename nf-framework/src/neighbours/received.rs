//! What a message that was received changes, and what is answered.

use super::message::{Frame, Malformed, Message};
use super::table::Key;
use super::{NeighbourConfig, NeighbourState, Neighbours, Outlet};
use crate::headers::MacAddress;
use crate::time::Instant;
use crate::verdict::DropReason;
use dpdk_rs::Mbuf;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What becomes of a message that was received.
enum Outcome {
    /// It has been acted on.
    Done,
    /// Its buffer takes the answer.
    Answer(Frame),
    Drop(DropReason),
}

impl Neighbours {
    /// Takes in a frame that arrived by an interface and carries ARP or ICMPv6 of the types 133
    /// to 137, tagged or not.
    pub(crate) fn receive(&mut self, interface: u16, mut packet: Mbuf, now: Instant, out: &mut impl Outlet) {
        let outcome = match Message::parse(packet.data_mut()) {
            Ok(message) => {
                self.act(interface, message, now, out).unwrap_or(Outcome::Drop(DropReason::NEIGHBOUR_IGNORED))
            }
            Err(Malformed) => Outcome::Drop(DropReason::NEIGHBOUR_INVALID),
        };
        match outcome {
            Outcome::Answer(frame) if packet.set_contents(frame.bytes()) => {
                self.count(|counters| &counters.answers);
                out.send(interface, packet);
            }
            Outcome::Answer(_) | Outcome::Done => out.consume(packet),
            Outcome::Drop(reason) => out.drop(packet, reason),
        }
    }

    /// `None` of a message that is of no concern to us.
    fn act(&mut self, interface: u16, message: Message, now: Instant, out: &mut impl Outlet) -> Option<Outcome> {
        match message {
            Message::Arp { is_request, sender, mac, target } => {
                self.arp(interface, is_request, (mac, sender), target, now, out)
            }
            Message::Solicitation { source, station, mac, target } => {
                self.solicitation(interface, source, (station, mac), target, now, out)
            }
            Message::Advertisement { station, mac, target, solicited, replaces } => {
                let at = mac.unwrap_or(station);
                if let Some(own) = self.link(interface)?.own_index(target.into()) {
                    return self.claimed(interface, own, target.into(), at, now, out);
                }
                self.advertisement(interface, mac, target, (solicited, replaces), now, out)
            }
            Message::Other => None,
        }
    }

    /// RFC 826, "Packet Reception", without its creation of entries for whom nobody asked.
    fn arp(
        &mut self,
        interface: u16,
        is_request: bool,
        (mac, sender): (MacAddress, Ipv4Addr),
        target: Ipv4Addr,
        now: Instant,
        out: &mut impl Outlet,
    ) -> Option<Outcome> {
        let link = self.link(interface)?;
        if let Some(own) = link.own_index(sender.into()) {
            return self.claimed(interface, own, sender.into(), mac, now, out);
        }
        let (our_mac, asks_us) = (link.mac(), link.own_index(target.into()).is_some());
        // A probe (RFC 5227 section 2.1.1) says nothing of its sender, but is to be answered.
        let is_probe = sender.is_unspecified();
        if mac == our_mac {
            return Some(Outcome::Drop(DropReason::OWN_MAC));
        }
        // One with an address of another link is answered, and nothing is learned of it: a router may ask
        // from a loopback address.
        let is_stranger = link.is_off_link(sender.into());
        if !(is_probe || link.can_be_neighbour(sender.into()) || is_stranger && is_request && asks_us) {
            return None;
        }
        let known = self.table.slot(Key::new(interface, sender.into()));
        if let Some(slot) = known {
            let waits = self.entries[slot].is_some_and(|entry| {
                matches!(entry.state, NeighbourState::Incomplete | NeighbourState::Delay | NeighbourState::Probe)
            });
            self.told(slot, mac, asks_us && !is_request && waits, now, out);
        }
        if !is_request || !asks_us {
            return known.map(|_| Outcome::Done);
        }
        if !self.may_answer(interface, now) {
            return Some(Outcome::Drop(DropReason::NEIGHBOUR_FLOOD));
        }
        if known.is_none() && !is_probe && !is_stranger {
            self.learn(interface, sender.into(), mac, now, out);
        }
        Some(Outcome::Answer(Frame::arp_reply((our_mac, target), (mac, sender))))
    }

    /// RFC 4861 section 7.2.3.
    fn solicitation(
        &mut self,
        interface: u16,
        source: Option<Ipv6Addr>,
        (station, mac): (MacAddress, Option<MacAddress>),
        target: Ipv6Addr,
        now: Instant,
        out: &mut impl Outlet,
    ) -> Option<Outcome> {
        let link = self.link(interface)?;
        let our_mac = link.mac();
        if let Some(source) = source {
            if let Some(own) = link.own_index(source.into()) {
                return self.claimed(interface, own, source.into(), mac.unwrap_or(station), now, out);
            }
            if !link.can_be_neighbour(source.into()) {
                return None;
            }
        }
        // What we ask ourselves comes back on some links.
        if station == our_mac || mac == Some(our_mac) {
            return Some(Outcome::Drop(DropReason::OWN_MAC));
        }
        link.own_index(target.into())?;
        if !self.may_answer(interface, now) {
            return Some(Outcome::Drop(DropReason::NEIGHBOUR_FLOOD));
        }
        if let (Some(source), Some(mac)) = (source, mac) {
            match self.table.slot(Key::new(interface, source.into())) {
                Some(slot) => self.told(slot, mac, false, now, out),
                None => self.learn(interface, source.into(), mac, now, out),
            }
        }
        // One that is known to have us in its table need not say where it is; the answer then goes
        // back to where the question came from, and nothing is learned.
        let asked = source.map(|source| (mac.unwrap_or(station), source));
        Some(Outcome::Answer(Frame::advertisement((our_mac, target), asked)))
    }

    /// RFC 4861 section 7.2.5.
    fn advertisement(
        &mut self,
        interface: u16,
        mac: Option<MacAddress>,
        target: Ipv6Addr,
        (solicited, replaces): (bool, bool),
        now: Instant,
        out: &mut impl Outlet,
    ) -> Option<Outcome> {
        let slot = self.table.slot(Key::new(interface, target.into()))?;
        let entry = self.entries[slot]?;
        let mac = match (entry.state, mac) {
            (NeighbourState::Incomplete | NeighbourState::Unreachable, mac) => mac?,
            (NeighbourState::Reachable, Some(mac)) if mac != entry.mac && !replaces => {
                self.make_stale(slot, now);
                return Some(Outcome::Done);
            }
            (_, Some(mac)) if mac != entry.mac && !replaces => return None,
            (_, mac) => mac.unwrap_or(entry.mac),
        };
        if self.link(interface)?.mac() == mac {
            return None;
        }
        self.told(slot, mac, solicited, now, out);
        Some(Outcome::Done)
    }

    /// Somebody else speaks for an address of ours: RFC 5227 section 2.4, and the same for IPv6.
    fn claimed(
        &mut self,
        interface: u16,
        own: usize,
        address: IpAddr,
        by: MacAddress,
        now: Instant,
        out: &mut impl Outlet,
    ) -> Option<Outcome> {
        let link = &mut self.interfaces.get_mut(usize::from(interface))?.as_mut()?.link;
        let our_mac = link.mac();
        if by == our_mac {
            return None;
        }
        let own = &mut link.own[own];
        let is_due = own.defended.is_none_or(|last| now.since(last) >= NeighbourConfig::DEFEND_INTERVAL);
        let is_news = is_due && own.claimed_by != by;
        if is_due {
            (own.defended, own.claimed_by) = (Some(now), by);
            self.say(interface, &Frame::announcement(our_mac, address), out);
        }
        self.count(|counters| &counters.duplicates);
        if is_news {
            self.table.report(interface, address, by);
        }
        Some(Outcome::Done)
    }

    fn may_answer(&mut self, interface: u16, now: Instant) -> bool {
        let interface = self.interfaces.get_mut(usize::from(interface)).and_then(Option::as_mut);
        interface.is_some_and(|interface| interface.answers.take(now))
    }
}
