//! Health checks on the packet path: what they send goes the way of clients' packets, and what comes back to a probe
//! address goes to them.

use super::config::Mode;
use super::connections::Connection;
use super::flow::{ETHERNET, Kind, look};
use super::instance::{WorkerState, ip_length};
use super::policy::Policy;
use nf_framework::{Annotation, Context, Direction, Mbuf, Verdict};

/// Packets that checks send in one tick.
const MOST: usize = 32;

impl WorkerState {
    /// Sends what checks have to send.
    pub(super) fn send_probes(&mut self, policy: &Policy, cx: &mut Context<'_>) {
        for _ in 0..MOST {
            let write = |slot, bytes: &[u8]| {
                let mut packet = cx.allocate();
                if packet.as_mut().is_some_and(|packet| !write_frame(packet, bytes)) {
                    packet.take().into_iter().for_each(|packet| cx.consume(packet));
                }
                (slot, packet)
            };
            match self.door.give(write) {
                None => break,
                Some((slot, Some(packet))) => self.send_probe(slot, packet, policy, cx),
                Some((_, None)) => self.door.lose(),
            }
        }
        self.door.follow();
    }

    fn send_probe(&mut self, slot: u16, mut packet: Mbuf, policy: &Policy, cx: &mut Context<'_>) {
        let seen = look(&mut packet).ok();
        let mode = policy.ways.get(usize::from(slot)).map(|way| way.mode);
        let is_sent = match (seen, mode) {
            (None, _) | (_, None) => false,
            // It is for the backend itself, and has our address already.
            (Some(_), Some(Mode::Nat | Mode::FullNat)) => {
                Annotation { may_turn: true, ..Annotation::default() }.write(&mut packet);
                true
            }
            (Some(seen), Some(_)) => {
                let connection = Connection { backend: slot, ..Connection::default() };
                self.forward(&mut packet, &seen, (&seen.flow.key(), &connection), policy, cx) == Verdict::Next
            }
        };
        if is_sent {
            cx.emit(packet, Direction::Inbound);
        } else {
            self.door.lose();
            cx.consume(packet);
        }
    }

    /// Hands a packet for a probe address to the checks, if it is an answer to one; whether it is.
    pub(super) fn is_for_check(&mut self, packet: &Mbuf, kind: Kind) -> bool {
        let length = ip_length(packet.data());
        let packet = packet.data().get(ETHERNET..).map(|packet| &packet[..length.min(packet.len())]);
        !matches!(kind, Kind::Discovery) && packet.is_some_and(|packet| self.door.take(packet))
    }
}

/// Puts an IP packet into a frame, which is addressed where it leaves; whether there is room.
fn write_frame(packet: &mut Mbuf, bytes: &[u8]) -> bool {
    let is_v4 = bytes.first().is_some_and(|first| first >> 4 == 4);
    let Some(frame) = packet.append(ETHERNET + bytes.len()) else { return false };
    let (ethernet, ip) = frame.split_at_mut(ETHERNET);
    ethernet[..12].fill(0);
    ethernet[12..].copy_from_slice(if is_v4 { &[0x08, 0x00] } else { &[0x86, 0xdd] });
    ip.copy_from_slice(bytes);
    true
}
