//! What the devices of the router's ports do for it, where they can. It does the rest itself, and the
//! same bytes leave either way.
//!
//! No checksum is left to a device at sending. What a hop or a function changes is mended in a few
//! instructions (RFC 1624), less than it takes to ask. The transport checksums that are computed whole
//! are those that came in partial, by virtual ports, which copy every packet and cost more than the sum;
//! and to leave them open any longer, each function would have to know of such checksums. Nor does a
//! device look at transport checksums on arrival: a router has no use for that, and net_vhost and
//! net_virtio take it as leave to hand over partial ones.

use super::RouterConfig;
use dpdk_rs::{ChecksumStatus, Mbuf, Offloads};
use std::fmt;

/// What the device of a port does for the router.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct PortOffloads {
    /// Takes the tags of VLANs off.
    pub(crate) strips_vlans: bool,
    /// Puts them on, where a packet says so.
    pub(crate) inserts_vlans: bool,
    /// Looks at the checksums of IPv4 headers.
    pub(crate) checks_ipv4: bool,
}

impl PortOffloads {
    /// What a router has a use for, of what arrives and of what is sent.
    pub(crate) fn wanted(config: &RouterConfig) -> (Offloads, Offloads) {
        // Without VLANs a tag stays where it is, for the packet to be refused.
        if config.interfaces.values().any(|interface| interface.vlan.is_some()) {
            (Offloads::RX_IPV4_CHECKSUM | Offloads::RX_VLAN_STRIP, Offloads::TX_VLAN_INSERT)
        } else {
            (Offloads::RX_IPV4_CHECKSUM, Offloads::NONE)
        }
    }

    /// What a port does that was started with these.
    pub(crate) fn new(rx: Offloads, tx: Offloads) -> Self {
        Self {
            strips_vlans: rx.contains(Offloads::RX_VLAN_STRIP),
            inserts_vlans: tx.contains(Offloads::TX_VLAN_INSERT),
            checks_ipv4: rx.contains(Offloads::RX_IPV4_CHECKSUM),
        }
    }

    /// Whether the device has found the checksum of a packet's IPv4 header right. What it calls wrong,
    /// or does not know, is for the router to find out. If it errs the packet's next router drops it,
    /// as a wrong checksum stays wrong when a hop is counted (RFC 1624).
    #[inline]
    pub(super) fn has_good_checksum(self, packet: &Mbuf) -> bool {
        self.checks_ipv4 && packet.ipv4_checksum() == ChecksumStatus::Good
    }
}

impl fmt::Display for PortOffloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            (self.strips_vlans, "taking VLAN tags off"),
            (self.inserts_vlans, "putting VLAN tags on"),
            (self.checks_ipv4, "checking IPv4 headers"),
        ];
        let done: Vec<&str> = parts.iter().filter(|(does, _)| *does).map(|(_, what)| *what).collect();
        f.write_str(&if done.is_empty() { "nothing".to_owned() } else { done.join(", ") })
    }
}
