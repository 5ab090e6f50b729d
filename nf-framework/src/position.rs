//! A place on a packet's way.

use crate::direction::Direction;
use crate::verdict::PortIx;

/// A place on a packet's way: at a function, in a direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Position {
    /// The function that the packet has come to, by its place in the chain; -1 is the inside
    /// end and the number of functions the outside end. It goes on behind it.
    pub(crate) at: isize,
    pub(crate) direction: Direction,
    pub(crate) turned: bool,
}

impl Position {
    /// At the end of a chain of so many functions where packets that go this way come in.
    pub(crate) fn entrance(direction: Direction, functions: usize) -> Self {
        let at = match direction {
            Direction::Outbound => -1,
            Direction::Inbound => functions.cast_signed(),
        };
        Self { at, direction, turned: false }
    }

    /// At the other end: where packets that go this way leave.
    pub(crate) fn exit(direction: Direction, functions: usize) -> Self {
        Self { direction, ..Self::entrance(direction.reversed(), functions) }
    }

    /// Behind everything: a frame that is ready leaves by this port.
    pub(crate) fn out_by(port: PortIx) -> Self {
        Self { at: Self::OUT + isize::from(port.0.cast_signed()), direction: Direction::Outbound, turned: false }
    }

    /// The port, if it is the place behind everything.
    #[inline]
    pub(crate) fn port_out(self) -> Option<PortIx> {
        let port = self.at.checked_sub(Self::OUT).filter(|port| *port < Self::CHAINS);
        port.and_then(|port| u16::try_from(port).ok()).map(PortIx)
    }

    /// Places from here on are ports.
    const OUT: isize = isize::MIN;
    const CHAINS: isize = 1 << 15;
}
