//! What becomes of a packet by its destination.

use crate::direction::Direction;

/// What becomes of a packet by its destination, as a number that a tree can hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Target(u32);

/// What a [`Target`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Nobody knows a way there.
    None,
    /// Dropped without a word.
    Blackhole,
    /// The sender is told that it is forbidden.
    Prohibited,
    /// For this host.
    Own,
    /// For a function of the chain, and for this host if none takes it.
    Function,
    /// No host has this address.
    Martian,
    Multicast,
    Broadcast,
    /// Does not leave its link.
    LinkLocal,
    /// The destination is a neighbour on this interface.
    Connected(u16),
    /// By this next hop.
    Via(u16),
}

impl Target {
    pub(crate) const NONE: Self = Self(0);
    const KINDS: [Way; 9] = [
        Way::None,
        Way::Blackhole,
        Way::Prohibited,
        Way::Own,
        Way::Function,
        Way::Martian,
        Way::Multicast,
        Way::Broadcast,
        Way::LinkLocal,
    ];
    const CONNECTED: u32 = 1 << 16;
    const VIA: u32 = 2 << 16;
    const FORWARDED: u32 = Self::CONNECTED | Self::VIA;
    /// By direction: set where packets that are forwarded leave at its end.
    const LEADS: [u32; 2] = [4 << 16, 8 << 16];

    pub(crate) fn new(way: Way) -> Self {
        match way {
            Way::Connected(interface) => Self(Self::CONNECTED | u32::from(interface)),
            Way::Via(next_hop) => Self(Self::VIA | u32::from(next_hop)),
            way => Self((0..).zip(Self::KINDS).find(|(_, kind)| *kind == way).map_or(0, |(number, _)| number)),
        }
    }

    /// The same, for packets that leave by an interface that others enter this way.
    pub(super) fn leaving_where(self, enters: Direction) -> Self {
        Self(self.0 | Self::LEADS[enters.reversed() as usize])
    }

    /// Whether packets there are forwarded to the end of this direction.
    #[inline]
    pub(crate) fn leads(self, direction: Direction) -> bool {
        self.0 & Self::LEADS[direction as usize] != 0
    }

    /// The next hop, if it is one at the end of this direction.
    #[inline]
    pub(crate) fn via_towards(self, direction: Direction) -> Option<usize> {
        let leads = Self::LEADS[direction as usize];
        (self.0 & (Self::FORWARDED | leads) == Self::VIA | leads).then_some(self.0 as usize & 0xffff)
    }

    #[inline]
    #[allow(clippy::cast_possible_truncation, reason = "the low half is the index")]
    pub(crate) fn way(self) -> Way {
        let index = self.0 as u16;
        match self.0 & Self::FORWARDED {
            Self::CONNECTED => Way::Connected(index),
            Self::VIA => Way::Via(index),
            _ => Self::KINDS.get(usize::from(index)).copied().unwrap_or(Way::None),
        }
    }
}

impl From<u32> for Target {
    #[inline]
    fn from(number: u32) -> Self {
        Self(number)
    }
}

impl From<Target> for u32 {
    fn from(target: Target) -> Self {
        target.0
    }
}
