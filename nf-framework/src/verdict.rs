//! What becomes of a packet, and why.

use std::sync::{Mutex, PoisonError};

/// A port's place among the ports of a program (not DPDK's number).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PortIx(pub u16);

/// What a function says of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Verdict {
    /// Nothing: the next function sees it.
    Next,
    /// It leaves by this port as it is; no other function sees it. Behind a router its MAC addresses
    /// are still those that it came with: to choose who gets a packet, see
    /// [`NextHop`](crate::NextHop).
    Send(PortIx),
    /// It comes in again from the chain's other end (hairpin); no other function of this
    /// pass sees it. With a router it is also the way to answer a packet: exchange its addresses and
    /// turn it, and it is routed like any other.
    Turn,
    /// It is freed and counted under this reason.
    Drop(DropReason),
}

/// Why a packet was dropped: an index into the program's [`DropReasons`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct DropReason(u16);

impl DropReason {
    /// The place of its counter.
    #[must_use]
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The reason with the counter at this place.
    pub(crate) fn at(index: usize) -> Option<Self> {
        u16::try_from(index).ok().map(Self)
    }
}

/// Constants for the reasons that the framework knows without being told, and the list of them in
/// the same order.
macro_rules! built_in {
    ($($(#[$doc:meta])* $constant:ident = $name:literal: $help:literal;)*) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms, reason = "named like the constants")]
        enum Place {
            $($constant,)*
        }

        impl DropReason {
            $($(#[$doc])* pub const $constant: Self = Self(Place::$constant as u16);)*
        }

        const BUILT_IN: &[(&str, &str)] = &[$(($name, $help),)*];
    };
}

built_in! {
    /// No function decided and nothing forwards what is undecided: fail closed.
    UNDECIDED = "undecided": "no function decided, and nothing forwards what is undecided";
    /// The port took nothing more: its transmit queue is full, or its link is down.
    TX_FULL = "tx-full": "the port took nothing more: its transmit queue is full, or its link is down";
    /// A function sent it to a port that the program does not have.
    NO_SUCH_PORT = "no-such-port": "a function sent it to a port that the program does not have";
    /// More packets were emitted and resumed than wait at once.
    PENDING_FULL = "pending-full": "more packets were emitted and resumed than wait at once";
    /// It turned twice: a hairpin that leads to itself.
    TURNED_TWICE = "turned-twice": "a hairpin led to itself";
    /// It arrived in several segments or with shared data.
    NOT_ONE_SEGMENT = "not-one-segment": "arrived in several segments or with shared data";
    /// It was still waiting to go on when the program stopped.
    STOPPED = "stopped": "was still waiting to go on when the program stopped";
    /// A function's rules forbid it.
    POLICY = "policy": "a function's rules forbid it";
    /// A function emitted it without data.
    EMPTY = "empty": "a function emitted it without data";
    /// The port's driver would not send it, and sent what was behind it: too long for the
    /// port, or too short.
    TX_REFUSED = "tx-refused": "the port's driver would not send it: too long for the port, or too short";
    /// The worker that owns it, or that has a queue to send it by, is behind: the ring to that
    /// worker is full.
    HAND_OVER_FULL = "hand-over-full": "the worker that it was to be handed over to is behind: the ring to that worker is full";
    /// It would have begun a session while the program is being drained; for functions to
    /// use ([`Context::draining`](crate::Context::draining)).
    DRAINING = "draining": "no new sessions: the program is draining";
    /// A function that a new configuration replaced held it, or functions passed it to each
    /// other without end when their policies changed.
    RELOADED = "reloaded": "was held by a function, or went round between functions, that a reload changed";
    /// A first fragment without all its headers (RFC 1858, RFC 7112), or TCP data where its header
    /// should be (RFC 3128).
    FRAGMENT_HEADERS = "fragment-headers": "a first fragment without all its headers, or TCP data where its header should be";
    /// A fragment that is empty, no multiple of 8 octets and not the last, or beyond the longest
    /// packet.
    FRAGMENT_LENGTH = "fragment-length": "a fragment that is empty, no multiple of 8 octets, or beyond the longest packet";
    /// It overlaps another fragment of its packet, or they tell different lengths: all that still
    /// comes of the packet is dropped (RFC 5722).
    FRAGMENT_OVERLAP = "fragment-overlap": "overlaps another fragment of its packet, or they tell different lengths";
    /// The same fragment was here before.
    FRAGMENT_DUPLICATE = "fragment-duplicate": "the same fragment was here before";
    /// Its packet has more fragments than are kept track of.
    FRAGMENT_MANY = "fragment-many": "its packet has more fragments than are kept track of";
    /// There is no room for one more packet in fragments, or to hold one more fragment.
    FRAGMENTS_FULL = "fragments-full": "no room for one more packet in fragments, or to hold one more fragment";
    /// It was held for the first fragment of its packet, which did not come in time.
    FRAGMENT_EXPIRED = "fragment-expired": "was held for the first fragment of its packet, which did not come in time";
    /// An ARP packet or a message of Neighbour Discovery that breaks the rules of its RFC.
    NEIGHBOUR_INVALID = "neighbour-invalid": "ARP or Neighbour Discovery that breaks the rules of its RFC";
    /// An ARP packet or a message of Neighbour Discovery that is for others, or that nothing is
    /// to be learned from.
    NEIGHBOUR_IGNORED = "neighbour-ignored": "ARP or Neighbour Discovery that is for others, or that nothing is to be learned from";
    /// It waited for its neighbour's address, and others came behind it, or too many wait.
    NEIGHBOUR_QUEUE_FULL = "neighbour-queue-full": "waited for its neighbour's address while others came, or too many waited";
    /// Its neighbour is not known, and too many others are being looked for or in use.
    NEIGHBOUR_LIMIT = "neighbour-limit": "its neighbour is not known, and too many others are being looked for or in use";
    /// It asks for an address of ours, and too many on its link do.
    NEIGHBOUR_FLOOD = "neighbour-flood": "asked for an address of ours while too many on its link did";
    /// The router: its frame is for another station on the link.
    OTHER_STATION = "other-station": "its frame is for another station on the link";
    /// The router: no interface has its VLAN tag, or frames without one.
    UNKNOWN_VLAN = "unknown-vlan": "no interface has its VLAN tag, or frames without one";
    /// The router: it is neither IP nor ARP.
    NOT_IP = "not-ip": "neither IP nor ARP";
    /// The router: a header is cut short, or contradicts itself or the frame.
    MALFORMED = "malformed": "a header is cut short, or contradicts itself or the frame";
    /// The router: the IPv4 header's checksum is wrong.
    BAD_CHECKSUM = "bad-checksum": "the IPv4 header's checksum is wrong";
    /// The router: an address that no host has (RFC 1812 section 5.3.7).
    MARTIAN = "martian": "an address that no host has: unspecified, loopback, reserved, or a group as the source";
    /// The router: it has a source route among its IPv4 options (RFC 7126 section 4.3).
    SOURCE_ROUTED = "source-routed": "has a source route among its IPv4 options";
    /// The router: there is no route to its destination.
    NO_ROUTE = "no-route": "no route to its destination";
    /// The router: the route to its destination is a blackhole.
    BLACKHOLE = "blackhole": "the route to its destination is a blackhole";
    /// The router: the route to its destination is prohibited.
    PROHIBITED = "prohibited": "the route to its destination is prohibited";
    /// The router: it is for a group of hosts, which is not forwarded.
    MULTICAST = "multicast": "for a group of hosts, which is not forwarded";
    /// The router: it is for all hosts of a link, which is not forwarded (RFC 2644).
    BROADCAST = "broadcast": "for all hosts of a link, which is not forwarded";
    /// The router: it is from or to an address that does not leave its link (RFC 4291 section 2.5.6).
    LINK_LOCAL = "link-local": "from or to an address that does not leave its link";
    /// The router: it has no hops left.
    TTL_EXPIRED = "ttl-expired": "no hops left";
    /// The router: it is longer than its next link takes, and must not be fragmented.
    TOO_BIG = "too-big": "longer than its next link takes, and not to be fragmented";
    /// The router: its route leads back to the side of the chain that it came from.
    SAME_SIDE = "same-side": "its route leads back to the side of the chain that it came from";
    /// The router: it is for the router itself, where nobody takes it.
    NO_LISTENER = "no-listener": "for the router itself, where nobody takes it";
    /// The router: there is no room in its buffer for a VLAN tag.
    NO_HEADROOM = "no-headroom": "no room in its buffer for a VLAN tag";
    /// The router: it says that a neighbour has our own MAC address.
    OWN_MAC = "own-mac": "a neighbour has our own MAC address: the host on a net_tap interface needs another one";
    /// The router: there was no packet for another fragment of it.
    NO_BUFFERS = "no-buffers": "no packet left in the pool for another fragment of it";
    /// The port that it was to leave by is down: it is being built anew, or its device is away.
    PORT_DOWN = "port-down": "the port that it was to leave by is being built anew, or its device is away";
    /// The router: its neighbour does not answer, or cannot be one.
    NEIGHBOUR_UNREACHABLE = "neighbour-unreachable": "its neighbour does not answer, or cannot be one";
}

/// The drop reasons of a program: those of the framework and those that functions register
/// while they are set up.
#[derive(Debug)]
pub struct DropReasons(Mutex<Vec<(String, String)>>);

impl DropReasons {
    /// The framework's own; a program has one table, so that a reason means the same everywhere.
    pub(crate) fn built_in() -> Self {
        Self(Mutex::new(BUILT_IN.iter().map(|(name, help)| ((*name).to_owned(), (*help).to_owned())).collect()))
    }
}

impl DropReasons {
    /// How many there may be in one program.
    pub const CAPACITY: usize = 128;

    /// The reason of this name, registered if it is new. The name is how it is shown
    /// (`port-blocked`), the help says when it happens.
    ///
    /// # Errors
    ///
    /// When a program has more than [`DropReasons::CAPACITY`].
    pub fn register(&self, name: &str, help: &str) -> Result<DropReason, TooManyDropReasons> {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let index = reasons.iter().position(|(known, _)| known == name).unwrap_or(reasons.len());
        if index >= Self::CAPACITY {
            return Err(TooManyDropReasons { name: name.to_owned() });
        }
        if index == reasons.len() {
            reasons.push((name.to_owned(), help.to_owned()));
        }
        u16::try_from(index).map(DropReason).map_err(|_| TooManyDropReasons { name: name.to_owned() })
    }

    /// Name and help of each, by index.
    #[must_use]
    pub fn list(&self) -> Vec<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// More drop reasons than there are counters for.
#[derive(Debug, thiserror::Error)]
#[error("no room for the drop reason {name:?}: a program may have {}", DropReasons::CAPACITY)]
pub struct TooManyDropReasons {
    name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_name_their_own_line_and_no_name_stands_twice() {
        let reasons = DropReasons::built_in();
        for (reason, name) in [
            (DropReason::UNDECIDED, "undecided"),
            (DropReason::RELOADED, "reloaded"),
            (DropReason::NEIGHBOUR_UNREACHABLE, "neighbour-unreachable"),
        ] {
            assert_eq!(reasons.register(name, "").unwrap(), reason);
        }
        for (index, (name, _)) in reasons.list().iter().enumerate() {
            assert_eq!(reasons.register(name, "").unwrap().index(), index, "{name}");
        }
    }

    #[test]
    fn a_name_is_registered_once_and_the_table_is_bounded() {
        let reasons = DropReasons::built_in();
        let first = reasons.register("mine", "help").unwrap();
        assert_eq!(reasons.register("mine", "other help").unwrap(), first);
        for index in reasons.list().len()..DropReasons::CAPACITY {
            reasons.register(&format!("reason-{index}"), "").unwrap();
        }
        assert!(reasons.register("one-more", "").is_err());
        assert_eq!(reasons.register("mine", "").unwrap(), first);
    }
}
