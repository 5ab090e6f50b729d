//! What a port says of itself: abilities, link, counters.

use crate::{Eal, Errno};
use dpdk_sys as sys;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Held during ethdev's control functions, two of which must not run at once on one port
/// (rte_ethdev.h): a [`Port`](crate::Port) may be on one thread and the
/// [`Eal`] on another.
pub(crate) fn control() -> MutexGuard<'static, ()> {
    static CONTROL: Mutex<()> = Mutex::new(());
    CONTROL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// DPDK's number of an Ethernet device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct PortId(pub u16);

impl PortId {
    /// The number that no port has.
    pub const NONE: Self = Self(u16::MAX);
}

impl fmt::Display for PortId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}", self.0)
    }
}

/// A set of `RTE_ETH_RX_OFFLOAD_*` or `RTE_ETH_TX_OFFLOAD_*` bits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offloads(pub u64);

impl Offloads {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Receive: IPv4, UDP and TCP checksums are checked and flagged.
    pub const RX_CHECKSUM: Self = Self(sys::RTE_ETH_RX_OFFLOAD_CHECKSUM);
    /// Receive: the checksums of IPv4 headers are checked and flagged.
    pub const RX_IPV4_CHECKSUM: Self = Self(sys::RTE_ETH_RX_OFFLOAD_IPV4_CKSUM);
    /// Receive: the outer VLAN tag is taken out of the packet into the mbuf.
    pub const RX_VLAN_STRIP: Self = Self(sys::RTE_ETH_RX_OFFLOAD_VLAN_STRIP);
    /// Receive: only frames of VLANs that the device was told of
    /// ([`PortBuilder::vlans`](crate::PortBuilder::vlans)) arrive, and those without a tag.
    pub const RX_VLAN_FILTER: Self = Self(sys::RTE_ETH_RX_OFFLOAD_VLAN_FILTER);
    /// Receive: the RSS hash is written into the mbuf.
    pub const RX_RSS_HASH: Self = Self(sys::RTE_ETH_RX_OFFLOAD_RSS_HASH);
    /// Send: the IPv4 header checksum is computed where a packet asks for it.
    pub const TX_IPV4_CHECKSUM: Self = Self(sys::RTE_ETH_TX_OFFLOAD_IPV4_CKSUM);
    /// Send: the UDP checksum is computed where a packet asks for it.
    pub const TX_UDP_CHECKSUM: Self = Self(sys::RTE_ETH_TX_OFFLOAD_UDP_CKSUM);
    /// Send: the TCP checksum is computed where a packet asks for it.
    pub const TX_TCP_CHECKSUM: Self = Self(sys::RTE_ETH_TX_OFFLOAD_TCP_CKSUM);
    /// Send: a VLAN tag is inserted where a packet asks for it.
    pub const TX_VLAN_INSERT: Self = Self(sys::RTE_ETH_TX_OFFLOAD_VLAN_INSERT);

    /// Whether all of `others` are in this set.
    #[must_use]
    pub fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// DPDK's names of them, as those of one way: `receive` or `transmit`.
    pub(crate) fn names(self, kind: &str) -> String {
        let name_of =
            if kind == "receive" { sys::rte_eth_dev_rx_offload_name } else { sys::rte_eth_dev_tx_offload_name };
        let bits = (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| self.0 & bit != 0);
        // SAFETY: any number may be asked about; the answer is static text.
        let names: Vec<String> = bits.map(|bit| text(unsafe { name_of(bit) })).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

impl std::ops::BitAnd for Offloads {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl std::ops::BitOr for Offloads {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl fmt::Display for Offloads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

/// What a device can do, and where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortInfo {
    /// DPDK's number.
    pub id: PortId,
    /// The vdev's name or the PCI address.
    pub name: String,
    /// The driver, such as `net_tap` or `net_iavf`.
    pub driver: String,
    /// The port's own MAC address.
    pub mac_address: [u8; 6],
    /// NUMA node, if known.
    pub socket: Option<u32>,
    /// The index of the kernel's interface behind the port, where there is one (net_tap,
    /// net_af_packet) and the driver says it.
    pub kernel_interface: Option<NonZeroU32>,
    /// Largest MTU in bytes.
    pub max_mtu: u16,
    /// Smallest MTU in bytes.
    pub min_mtu: u16,
    /// Receive queues that it has.
    pub max_rx_queues: u16,
    /// Transmit queues that it has.
    pub max_tx_queues: u16,
    /// Descriptors that a receive queue may have.
    pub rx_descriptors: std::ops::RangeInclusive<u16>,
    /// Descriptors that a transmit queue may have.
    pub tx_descriptors: std::ops::RangeInclusive<u16>,
    /// What the counts of both are a multiple of, at least 1.
    pub descriptors_align: (u16, u16),
    /// Whether it can tell by itself when its link changes, and when it is taken away.
    pub interrupts: Interrupts,
    /// Receive offloads that it says it has.
    pub rx_offloads: Offloads,
    /// Transmit offloads that it says it has.
    pub tx_offloads: Offloads,
    /// `RTE_ETH_RSS_*` functions that it says it has; some devices say so and do not.
    pub rss_functions: u64,
    /// Entries of the RSS redirection table, 0 without.
    pub rss_table_size: u16,
    /// Bytes of the RSS key, 0 if it takes none.
    pub rss_key_size: u8,
}

impl PortInfo {
    /// Asks the device.
    ///
    /// # Errors
    ///
    /// `ENODEV` when there is no such port.
    pub fn new(_eal: &Eal, port: PortId) -> Result<Self, Errno> {
        Self::read(port)
    }

    pub(crate) fn read(port: PortId) -> Result<Self, Errno> {
        let _control = control();
        let mut info = sys::shim_port_info::default();
        // SAFETY: any id may be asked about; `info` is ours.
        Errno::check(unsafe { sys::shim_port_info(port.0, &raw mut info) })?;
        let mut mac_address = [0; 6];
        // SAFETY: six bytes, as the shim writes.
        Errno::check(unsafe { sys::shim_port_mac_address(port.0, mac_address.as_mut_ptr()) })?;
        Ok(Self {
            id: port,
            name: name(port)?,
            driver: text(info.driver),
            mac_address,
            socket: u32::try_from(info.socket).ok(),
            kernel_interface: NonZeroU32::new(info.interface_index),
            max_mtu: info.max_mtu,
            min_mtu: info.min_mtu,
            max_rx_queues: info.max_rx_queues,
            max_tx_queues: info.max_tx_queues,
            // A limit of 0 is none (eth_dev_adjust_nb_desc).
            rx_descriptors: info.min_rx_descriptors..=limit(info.max_rx_descriptors),
            tx_descriptors: info.min_tx_descriptors..=limit(info.max_tx_descriptors),
            descriptors_align: (info.rx_descriptors_align.max(1), info.tx_descriptors_align.max(1)),
            interrupts: Interrupts { link: info.link_interrupt, removal: info.removal_interrupt },
            rx_offloads: Offloads(info.rx_offloads),
            tx_offloads: Offloads(info.tx_offloads),
            rss_functions: info.rss_functions,
            rss_table_size: info.rss_table_size,
            rss_key_size: info.rss_key_size,
        })
    }
}

/// What a device can tell by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Interrupts {
    /// When its link changes (`RTE_ETH_DEV_INTR_LSC`).
    pub link: bool,
    /// When it is taken away (`RTE_ETH_DEV_INTR_RMV`).
    pub removal: bool,
}

fn limit(most: u16) -> u16 {
    if most == 0 { u16::MAX } else { most }
}

impl PortInfo {
    /// The numbers of receive and of transmit descriptors that the device has when it is asked for
    /// these: within its limits, and multiples of what it counts in, as
    /// `rte_eth_dev_adjust_nb_rx_tx_desc` makes them.
    #[must_use]
    pub fn adjusted_descriptors(&self, (rx, tx): (u16, u16)) -> (u16, u16) {
        let adjusted = |count: u16, limits: &std::ops::RangeInclusive<u16>, align: u16| {
            let multiple = u32::from(count).next_multiple_of(align.into());
            u16::try_from(multiple).unwrap_or(u16::MAX).min(*limits.end()).max(*limits.start())
        };
        let (rx_align, tx_align) = self.descriptors_align;
        (adjusted(rx, &self.rx_descriptors, rx_align), adjusted(tx, &self.tx_descriptors, tx_align))
    }

    #[cfg(test)]
    pub(crate) fn fake() -> Self {
        Self {
            id: PortId(0),
            name: "fake".to_owned(),
            driver: "net_fake".to_owned(),
            mac_address: [0; 6],
            socket: None,
            kernel_interface: None,
            max_mtu: 1500,
            min_mtu: 68,
            max_rx_queues: 8,
            max_tx_queues: 8,
            rx_descriptors: 0..=1024,
            tx_descriptors: 0..=1024,
            descriptors_align: (1, 1),
            interrupts: Interrupts::default(),
            rx_offloads: Offloads::NONE,
            tx_offloads: Offloads::NONE,
            rss_functions: 0,
            rss_table_size: 0,
            rss_key_size: 0,
        }
    }
}

fn name(port: PortId) -> Result<String, Errno> {
    let mut name = [0 as c_char; sys::RTE_ETH_NAME_MAX_LEN as usize];
    // SAFETY: the buffer has the length that DPDK writes at most (rte_ethdev.h).
    Errno::check(unsafe { sys::rte_eth_dev_get_name_by_port(port.0, name.as_mut_ptr()) })?;
    Ok(text(name.as_ptr()))
}

/// A C string that DPDK filled or keeps in static storage.
fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: non-null, and NUL-terminated by DPDK.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// The state of a port's link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// Whether there is one.
    pub up: bool,
    /// Mbit/s, if known.
    pub speed: Option<u32>,
    /// Both directions at once.
    pub full_duplex: bool,
    /// Negotiated with the other end.
    pub autonegotiated: bool,
}

impl Link {
    pub(crate) fn read(port: PortId) -> Result<Self, Errno> {
        let _control = control();
        let mut link = sys::shim_link::default();
        // SAFETY: any id may be asked about; `link` is ours.
        Errno::check(unsafe { sys::shim_link(port.0, &raw mut link) })?;
        // RTE_ETH_SPEED_NUM_NONE is 0, RTE_ETH_SPEED_NUM_UNKNOWN is all ones.
        let speed = (link.speed != 0 && link.speed != u32::MAX).then_some(link.speed);
        Ok(Self { up: link.up, speed, full_duplex: link.full_duplex, autonegotiated: link.autonegotiated })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.up, self.speed) {
            (false, _) => f.write_str("down"),
            (true, Some(speed)) => write!(f, "up, {speed} Mbit/s"),
            (true, None) => f.write_str("up"),
        }
    }
}

/// A device's counters since its start (`struct rte_eth_stats`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
pub struct PortStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Dropped by the device as its queue was full (`imissed`).
    pub rx_missed: u64,
    /// Arrived broken.
    pub rx_errors: u64,
    /// Not sent.
    pub tx_errors: u64,
    /// Dropped by the driver as the pool was empty (`rx_nombuf`).
    pub rx_no_mbuf: u64,
}

impl PortStats {
    pub(crate) fn read(port: PortId) -> Result<Self, Errno> {
        let _control = control();
        let mut stats = sys::shim_port_stats::default();
        // SAFETY: any id may be asked about; `stats` is ours.
        Errno::check(unsafe { sys::shim_port_stats(port.0, &raw mut stats) })?;
        Ok(Self {
            rx_packets: stats.rx_packets,
            tx_packets: stats.tx_packets,
            rx_bytes: stats.rx_bytes,
            tx_bytes: stats.tx_bytes,
            rx_missed: stats.rx_missed,
            rx_errors: stats.rx_errors,
            tx_errors: stats.tx_errors,
            rx_no_mbuf: stats.rx_no_mbuf,
        })
    }
}

/// One of a driver's own counters.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct XStat {
    /// The driver's name for it.
    pub name: String,
    /// Its value.
    pub value: u64,
}

impl XStat {
    pub(crate) fn read_all(port: PortId) -> Result<Vec<Self>, Errno> {
        let _control = control();
        // SAFETY: with a null table DPDK returns how many there are.
        let count = Errno::check(unsafe { sys::rte_eth_xstats_get_names(port.0, std::ptr::null_mut(), 0) })?;
        let count = u32::try_from(count).unwrap_or_default();
        let mut names = vec![sys::rte_eth_xstat_name { name: [0; 64] }; count as usize];
        // SAFETY: room for `count` entries.
        let named = Errno::check(unsafe { sys::rte_eth_xstats_get_names(port.0, names.as_mut_ptr(), count) })?;
        let mut values = vec![sys::rte_eth_xstat { id: 0, value: 0 }; count as usize];
        // SAFETY: room for `count` entries.
        let valued = Errno::check(unsafe { sys::rte_eth_xstats_get(port.0, values.as_mut_ptr(), count) })?;
        // A driver whose count changed in between filled nothing and returned more.
        if named > i32::try_from(count).unwrap_or(i32::MAX) || valued != named {
            return Err(Errno(libc::EAGAIN));
        }
        values
            .iter()
            .take(usize::try_from(valued).unwrap_or_default())
            .map(|stat| {
                let index = usize::try_from(stat.id).unwrap_or(usize::MAX);
                let name = names.get(index).ok_or(Errno(libc::EAGAIN))?;
                Ok(Self { name: text(name.name.as_ptr()), value: stat.value })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_descriptors_are_made_what_the_device_takes() {
        // What vmxnet3, igb and virtual devices say.
        let vmxnet3 = (128..=4096, 512..=4096, (8, 1));
        let igb = (32..=4096, 32..=4096, (128, 128));
        let any = (0..=u16::MAX, 0..=u16::MAX, (1, 1));
        for ((rx_descriptors, tx_descriptors, descriptors_align), asked, expected) in [
            (&vmxnet3, (1024, 1024), (1024, 1024)),
            (&vmxnet3, (256, 256), (256, 512)),
            (&vmxnet3, (100, 8192), (128, 4096)),
            (&igb, (1, 129), (128, 256)),
            (&igb, (65535, 4096), (4096, 4096)),
            (&any, (1, 65535), (1, 65535)),
        ] {
            let (rx_descriptors, tx_descriptors) = (rx_descriptors.clone(), tx_descriptors.clone());
            let info =
                PortInfo { rx_descriptors, tx_descriptors, descriptors_align: *descriptors_align, ..PortInfo::fake() };
            assert_eq!(info.adjusted_descriptors(asked), expected, "{asked:?} of {info:?}");
        }
    }
}
