//! Saying where addresses of ours are, unasked.

use super::message::Frame;
use super::{NeighbourConfig, Neighbours, Outlet};
use crate::time::Instant;
use std::net::IpAddr;

impl Neighbours {
    /// Sends announcements that are due, as far as the rate allows; whether any are left, now or
    /// later.
    pub(super) fn announce_due(&mut self, now: Instant, out: &mut impl Outlet) -> bool {
        let mut any = false;
        for index in 0..self.interfaces.len() {
            let count = self.interfaces[index].as_ref().map_or(0, |interface| interface.link.own.len());
            for own in 0..count {
                while let Some(due) = self.announcement_due(index, own) {
                    any = true;
                    if due > now || !self.announcements.take(now) || !self.announce_next(index, own, now, out) {
                        break;
                    }
                }
            }
        }
        any
    }

    /// When an address is next to be announced, if it is.
    fn announcement_due(&self, index: usize, own: usize) -> Option<Instant> {
        let own = &self.interfaces[index].as_ref()?.link.own[own];
        (own.announcements > 0 && own.announced() > 0).then_some(own.due)
    }

    /// Announces the next address; false if there was no buffer for it.
    fn announce_next(&mut self, index: usize, own: usize, now: Instant, out: &mut impl Outlet) -> bool {
        let Some(link) = self.interfaces[index].as_ref().map(|interface| &interface.link) else { return false };
        let (mac, before) = (link.mac(), link.own[own]);
        let address = before.address(before.next);
        let interface = u16::try_from(index).unwrap_or(u16::MAX);
        if let IpAddr::V6(address) = address
            && before.announcements == NeighbourConfig::ANNOUNCEMENTS
            && !self.say(interface, &Frame::duplicate_question(mac, address), out)
        {
            return false;
        }
        if !self.say(interface, &Frame::announcement(mac, address), out) {
            return false;
        }
        self.count(|counters| &counters.announcements);
        if let Some(interface) = &mut self.interfaces[index] {
            let own = &mut interface.link.own[own];
            own.next += 1;
            if own.next >= own.announced() {
                (own.next, own.announcements) = (0, own.announcements - 1);
                own.due = now + NeighbourConfig::ANNOUNCE_INTERVAL;
            }
        }
        true
    }
}
