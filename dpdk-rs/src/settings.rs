//! What is asked of a port, kept for as long as the port is ours: it is brought up by the same
//! settings each time.

use crate::Errno;
use crate::events;
use crate::log_sink;
use crate::mempool::Mempool;
use crate::port_error::PortError;
use crate::port_info::{Interrupts, Offloads, PortId, PortInfo, control};
use crate::queue::QueuePair;
use crate::reception::{self, Reception};
use crate::rss::RssFunctions;
use crate::rx_interrupt::{self, RxInterrupt};
use crate::started::{Claim, Started};
use dpdk_sys as sys;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// Receive offloads that make packets of several segments.
const RX_UNSOUND: Offloads =
    Offloads(sys::RTE_ETH_RX_OFFLOAD_SCATTER | sys::RTE_ETH_RX_OFFLOAD_TCP_LRO | sys::RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT);
/// Transmit offloads that rest on promises which a safe caller could break. With
/// MBUF_FAST_FREE the device puts every packet into the first one's pool: a pool that has
/// strangers in it looks complete while its own packets are out.
const TX_UNSOUND: Offloads = Offloads(sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE | sys::RTE_ETH_TX_OFFLOAD_MULTI_SEGS);

/// Descriptors of each queue unless asked for.
pub(crate) const DESCRIPTORS: u16 = 1024;
/// Bytes of a frame beside its MTU: Ethernet header, two VLAN tags, frame check sequence.
const OVERHEAD: u32 = 14 + 8 + 4;

/// What is asked of a port.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) queues: u16,
    pub(crate) descriptors: Option<(u16, u16)>,
    pub(crate) mtu: Option<u16>,
    pub(crate) rx_offloads: Offloads,
    pub(crate) tx_offloads: Offloads,
    pub(crate) rss: RssFunctions,
    pub(crate) reception: Reception,
    /// Of receive queues, where the device has them.
    pub(crate) rx_interrupts: bool,
    pub(crate) pool: Option<Mempool>,
}

impl Settings {
    /// Looks whether the device can do it, as far as it says so itself.
    pub(crate) fn check(&self, info: &PortInfo) -> Result<(), PortError> {
        let (port, driver) = (info.name.clone(), info.driver.clone());
        if self.queues == 0 {
            return Err(PortError::NoQueues { port });
        }
        for (kind, unsound) in [
            ("receive", Offloads(self.rx_offloads.0 & RX_UNSOUND.0)),
            ("transmit", Offloads(self.tx_offloads.0 & TX_UNSOUND.0)),
        ] {
            if unsound != Offloads::NONE {
                return Err(PortError::UnsoundOffloads { port, kind, unsound });
            }
        }
        for (kind, have) in [("receive", info.max_rx_queues), ("transmit", info.max_tx_queues)] {
            if have < self.queues {
                return Err(PortError::TooFewQueues { port, driver, kind, have, need: self.queues });
            }
        }
        for (kind, have, want) in
            [("receive", info.rx_offloads, self.rx_offloads), ("transmit", info.tx_offloads, self.tx_offloads)]
        {
            let missing = Offloads(want.0 & !have.0);
            if missing != Offloads::NONE {
                return Err(PortError::Offloads { port, driver, kind, missing, have });
            }
        }
        let (rx, tx) = self.descriptors.unzip();
        for (kind, asked, range) in [("receive", rx, &info.rx_descriptors), ("transmit", tx, &info.tx_descriptors)] {
            if let Some(asked) = asked.filter(|asked| !range.contains(asked)) {
                let (min, max) = (*range.start(), *range.end());
                return Err(PortError::Descriptors { port, driver, kind, min, max, asked });
            }
        }
        if let Some(mtu) = self.mtu
            && !(info.min_mtu..=info.max_mtu).contains(&mtu)
        {
            return Err(PortError::Mtu { port, driver, min: info.min_mtu, max: info.max_mtu, mtu });
        }
        let mtu = self.mtu.unwrap_or(1500);
        let need = u32::from(mtu) + OVERHEAD;
        match &self.pool {
            Some(pool) if u32::from(pool.config().data_room) < need => {
                let (have, pool) = (pool.config().data_room, pool.name().to_owned());
                Err(PortError::DataRoom { port, mtu, need, have, pool })
            }
            _ => Ok(()),
        }
    }

    /// Configures and starts a port that is stopped, `alone` if it may be without its physical function. The
    /// claim comes back with the error.
    pub(crate) fn bring_up(
        &self,
        mut claim: Claim,
        info: &PortInfo,
        alone: bool,
    ) -> Result<(Arc<Started>, Vec<QueuePair>), (Claim, PortError)> {
        match self.start(&mut claim, info, alone) {
            Ok((pool, interrupts)) => {
                let started = Arc::new(Started { claim, interrupts: Mutex::new(()), _pool: pool.clone() });
                let prepare = self.tx_offloads != Offloads::NONE;
                let pair = |(queue, interrupt)| QueuePair::new(&started, queue, &pool, prepare, interrupt);
                let queues = (0..self.queues).zip(interrupts).map(pair).collect();
                Ok((started, queues))
            }
            Err(error) => {
                if let Err(errno) = claim.stop() {
                    log::warn!("port {} did not stop: {errno}", info.name);
                }
                Err((claim, error))
            }
        }
    }

    /// The interrupts are those of the receive queues.
    fn start(
        &self,
        claim: &mut Claim,
        info: &PortInfo,
        alone: bool,
    ) -> Result<(Mempool, Vec<Option<RxInterrupt>>), PortError> {
        self.check(info)?;
        let port = || info.name.clone();
        let pool = self.pool.clone().ok_or_else(|| PortError::NoPool { port: port() })?;
        let refused = |step| move |errno| PortError::Refused { port: port(), step, errno };
        let asked = self.descriptors.unwrap_or((DESCRIPTORS, DESCRIPTORS));
        let descriptors = info.adjusted_descriptors(asked);
        if descriptors != asked {
            let ((rx, tx), (asked_rx, asked_tx)) = (descriptors, asked);
            log::info!(
                "{}: {rx} receive and {tx} transmit descriptors in place of {asked_rx} and {asked_tx}, as the \
                 device ({}) takes them",
                info.name,
                info.driver
            );
        }
        let _control = control();
        let id = claim.port();
        events::watch(id).map_err(refused("events"))?;
        let rx = self.rx_interrupts && rx_interrupt::are_apart(Path::new(rx_interrupt::PCI_DEVICES), &info.name);
        let with = with_or_without(Asked { device: info.interrupts, rx }, |asked| {
            let mut start = || self.start_with(claim, info, &pool, descriptors, asked);
            if asked.rx { log_sink::trying(start) } else { start() }
        })?;
        // SAFETY: the port is started with these queues, of which nobody else has heard yet.
        let interrupt = |queue| with.rx.then(|| unsafe { RxInterrupt::of(id, queue, &info.driver) }).flatten();
        let interrupts = (0..self.queues).map(interrupt).collect();
        if !alone && !reception::answers(&id, &info.driver) {
            return Err(PortError::NoAnswer { port: info.name.clone(), driver: info.driver.clone() });
        }
        let unseen = self.reception.ask(&id, info.is_virtual_function()).map_err(refused("promiscuous mode"))?;
        for frames in unseen {
            log::warn!("{} ({}) does not let through {frames}", info.name, info.driver);
        }
        Ok((pool, interrupts))
    }

    fn start_with(
        &self,
        claim: &mut Claim,
        info: &PortInfo,
        pool: &Mempool,
        (rx, tx): (u16, u16),
        Asked { device, rx: rx_interrupts }: Asked,
    ) -> Result<(), PortError> {
        let refused = |step| move |errno| PortError::Refused { port: info.name.clone(), step, errno };
        let PortId(id) = claim.port();
        let config = sys::shim_port_config {
            rx_queues: self.queues,
            tx_queues: self.queues,
            mtu: self.mtu.unwrap_or(0),
            rx_offloads: self.rx_offloads.0 | (reception::asked_beside(&info.driver) & info.rx_offloads).0,
            tx_offloads: self.tx_offloads.0,
            rss_functions: if self.queues > 1 { self.rss.0 & info.rss_functions } else { 0 },
            rss_key: std::ptr::null_mut(),
            rss_key_size: 0,
            link_interrupt: device.link,
            removal_interrupt: device.removal,
            rx_interrupts,
        };
        // SAFETY: the port exists and is claimed, so no other `Port` can be using it; it is stopped.
        Errno::check(unsafe { sys::shim_port_configure(id, &raw const config) }).map_err(refused("configure"))?;
        for queue in 0..self.queues {
            // SAFETY: as above; the pool outlives the queue (`Started` and these settings hold it).
            Errno::check(unsafe { sys::shim_rx_queue_setup(id, queue, rx, self.rx_offloads.0, pool.raw()) })
                .map_err(refused("receive queue"))?;
            // SAFETY: as above.
            Errno::check(unsafe { sys::shim_tx_queue_setup(id, queue, tx, self.tx_offloads.0) })
                .map_err(refused("transmit queue"))?;
        }
        // SAFETY: configured with all its queues.
        Errno::check(unsafe { sys::rte_eth_dev_start(id) }).map_err(refused("start"))?;
        claim.starts();
        Ok(())
    }
}

/// Interrupts that a device is started with: its own, and those of its receive queues.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Asked {
    device: Interrupts,
    rx: bool,
}

/// Starts a device with these interrupts, and if it then refuses, as some do on a kernel driver without interrupts, with
/// fewer: those of receive queues are the first to go. Returns those that it has.
fn with_or_without<E>(asked: Asked, mut start: impl FnMut(Asked) -> Result<(), E>) -> Result<Asked, E> {
    match start(asked) {
        Ok(()) => Ok(asked),
        Err(_) if asked.rx => with_or_without(Asked { rx: false, ..asked }, start),
        Err(_) if asked != Asked::default() => with_or_without(Asked::default(), start),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_refuses_its_interrupts_is_started_without() {
        let none = Asked::default();
        let link = Asked { device: Interrupts { link: true, removal: false }, rx: false };
        let both = Asked { device: Interrupts { link: true, removal: true }, rx: false };
        let all = Asked { rx: true, ..both };
        let rx = Asked { rx: true, ..none };
        for (have, refuses, tried, outcome) in [
            (both, &[][..], &[both][..], Ok(both)),
            (none, &[], &[none], Ok(none)),
            (link, &[link], &[link, none], Ok(none)),
            (both, &[both, none], &[both, none], Err(2)),
            (none, &[none], &[none], Err(1)),
            (all, &[], &[all], Ok(all)),
            (all, &[all], &[all, both], Ok(both)),
            (all, &[all, both], &[all, both, none], Ok(none)),
            (all, &[all, both, none], &[all, both, none], Err(3)),
            (rx, &[rx], &[rx, none], Ok(none)),
            (rx, &[rx, none], &[rx, none], Err(2)),
        ] {
            let mut asked = Vec::new();
            let start = |interrupts| {
                asked.push(interrupts);
                if refuses.contains(&interrupts) { Err(asked.len()) } else { Ok(()) }
            };
            assert_eq!(with_or_without(have, start), outcome);
            assert_eq!(asked, tried);
        }
    }

    fn settings() -> Settings {
        Settings {
            queues: 1,
            descriptors: None,
            mtu: None,
            rx_offloads: Offloads::NONE,
            tx_offloads: Offloads::NONE,
            rss: RssFunctions::NONE,
            reception: Reception { promiscuous: true, vlans: Vec::new() },
            rx_interrupts: false,
            pool: None,
        }
    }

    #[test]
    fn counts_and_sizes_that_were_asked_for_are_within_what_the_device_says() {
        // vmxnet3 says that its frames have 16384 octets, and that their MTU is at most 9000.
        let vmxnet3 = PortInfo {
            driver: "net_vmxnet3".to_owned(),
            rx_descriptors: 128..=4096,
            tx_descriptors: 512..=4096,
            min_mtu: 60,
            max_mtu: 9000,
            ..PortInfo::fake()
        };
        let refused = |text: &str| Err(format!("port fake (net_vmxnet3) takes {text}"));
        for (descriptors, mtu, expected) in [
            (None, None, Ok(())),
            (None, Some(1500), Ok(())),
            (Some((512, 512)), Some(9000), Ok(())),
            (Some((256, 256)), None, refused("512 to 4096 transmit descriptors, not 256")),
            (Some((64, 512)), None, refused("128 to 4096 receive descriptors, not 64")),
            (Some((8192, 4096)), None, refused("128 to 4096 receive descriptors, not 8192")),
            (None, Some(9001), refused("an MTU from 60 to 9000, not 9001")),
            (None, Some(59_670), refused("an MTU from 60 to 9000, not 59670")),
        ] {
            let settings = Settings { descriptors, mtu, ..settings() };
            let found = settings.check(&vmxnet3).map_err(|error| error.to_string());
            assert_eq!(found, expected);
        }
    }
}
