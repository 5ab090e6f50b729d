//! What goes with a packet beside its bytes.

use crate::next_hop::NextHop;
use crate::steering::Ports;
use dpdk_rs::Mbuf;

/// What the framework and functions know of a packet that does not stand in its bytes. It travels
/// with the packet, to other workers too, until the packet is sent or dropped.
///
/// Each fragment that reaches a function has been to virtual reassembly before, if any function
/// of the chain cares about flows (its [`Affinity`](crate::Affinity) is not `Any`): then `ports`
/// are those of the packet that it is a fragment of, for the first fragment as for the later
/// ones, which carry none. A function that gives a packet other ports writes them here too, so
/// that those behind it see the same in every fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct Annotation {
    /// Of a fragment: what stands in the packet's first one. `None` for a whole packet, whose own
    /// header says it.
    pub ports: Option<Ports>,
    /// Where to send the packet instead of where its destination leads.
    pub next_hop: Option<NextHop>,
    /// Its source is not written yet: the address of the interface that it leaves by, of
    /// [`Context::refuse`](crate::Context::refuse).
    pub unsigned: bool,
    /// A function has chosen its way: where that leads back to the side that it came from, it turns
    /// (as by [`Verdict::Turn`](crate::Verdict::Turn)) instead of being dropped as `same-side`.
    pub may_turn: bool,
}

/// The 64 bits: 16 each for source port, destination port and next hop, from the lowest up; and
/// which of them mean something.
const PORTS: u64 = 1 << 63;
const NEXT_HOP: u64 = 1 << 62;
/// With [`PORTS`]: an ICMP identifier in the place of the source port.
const IDENTIFIER: u64 = 1 << 61;
/// With [`PORTS`]: the packet's protocol has no ports.
const NO_PORTS: u64 = 1 << 60;
const UNSIGNED: u64 = 1 << 59;
const MAY_TURN: u64 = 1 << 58;

impl Annotation {
    /// What is known of a packet.
    #[must_use]
    #[inline]
    pub fn of(packet: &Mbuf) -> Self {
        packet.annotation().map_or(Self::default(), Self::decode)
    }

    /// Puts it in the place of what was known of the packet.
    #[inline]
    pub fn write(self, packet: &mut Mbuf) {
        packet.set_annotation((self != Self::default()).then(|| self.encode()));
    }

    #[inline]
    fn decode(bits: u64) -> Self {
        let field = |shift: u32| u16::try_from((bits >> shift) & 0xffff).unwrap_or_default();
        let ports = match bits & (PORTS | IDENTIFIER | NO_PORTS) {
            PORTS => Some(Ports::Both(field(0), field(16))),
            with if with == PORTS | IDENTIFIER => Some(Ports::Identifier(field(0))),
            0 => None,
            _ => Some(Ports::None),
        };
        let next_hop = (bits & NEXT_HOP != 0).then(|| NextHop(field(32)));
        Self { ports, next_hop, unsigned: bits & UNSIGNED != 0, may_turn: bits & MAY_TURN != 0 }
    }

    #[inline]
    fn encode(self) -> u64 {
        let ports = match self.ports {
            None => 0,
            Some(Ports::Both(source, destination)) => PORTS | u64::from(source) | u64::from(destination) << 16,
            Some(Ports::Identifier(identifier)) => PORTS | IDENTIFIER | u64::from(identifier),
            Some(Ports::None) => PORTS | NO_PORTS,
        };
        let next_hop = self.next_hop.map_or(0, |next_hop| NEXT_HOP | u64::from(next_hop.0) << 32);
        let flag = |is_set, bit| if is_set { bit } else { 0 };
        ports | next_hop | flag(self.unsigned, UNSIGNED) | flag(self.may_turn, MAY_TURN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::lab;

    #[test]
    fn what_is_written_is_read_and_the_parts_do_not_touch_each_other() {
        lab(|lab| {
            let mut packet = lab.pool.alloc().unwrap();
            assert_eq!(Annotation::of(&packet), Annotation::default());
            let ports = [
                None,
                Some(Ports::None),
                Some(Ports::Both(0, 0)),
                Some(Ports::Both(0xffff, 0)),
                Some(Ports::Both(0x1234, 0xfedc)),
                Some(Ports::Identifier(0)),
                Some(Ports::Identifier(0xffff)),
            ];
            for ports in ports {
                for next_hop in [None, Some(0), Some(0x8001), Some(0xffff)] {
                    for (unsigned, may_turn) in [(false, false), (false, true), (true, false), (true, true)] {
                        let annotation = Annotation { ports, next_hop: next_hop.map(NextHop), unsigned, may_turn };
                        annotation.write(&mut packet);
                        assert_eq!(Annotation::of(&packet), annotation);
                    }
                }
            }
            Annotation::default().write(&mut packet);
            assert_eq!(packet.annotation(), None, "nothing costs nothing");
        });
    }
}
