//! The interrupt of one receive queue.

use crate::Errno;
use crate::log_sink;
use crate::port_info::PortId;
use crate::started::Started;
use dpdk_sys as sys;
use std::ffi::c_int;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, PoisonError};

/// A receive queue's interrupt.
#[derive(Debug)]
pub(crate) struct RxInterrupt {
    /// The driver's, which tells of it. Open as long as the port is started.
    file: RawFd,
    /// Whether it has to be enabled.
    is_switched: bool,
    is_enabled: bool,
    /// Where it is waited for.
    watched_by: Option<Arc<OwnedFd>>,
}

/// Its queues' files are those that it reads packets from: they always tell, and there is nothing to enable.
const ALWAYS_TELLS: &str = "net_tap";

impl RxInterrupt {
    /// That of a queue, if it has one that works as far as the driver says.
    ///
    /// # Safety
    ///
    /// The port is started with this queue, and nobody else enables or disables interrupts of its queues.
    pub(crate) unsafe fn of(port: PortId, queue: u16, driver: &str) -> Option<Self> {
        log_sink::trying(|| {
            // SAFETY: any port and queue may be asked about.
            let file = unsafe { sys::rte_eth_dev_rx_intr_ctl_q_get_fd(port.0, queue) };
            // A driver that has set none up leaves 0, or says that there is none.
            if file <= 0 {
                return None;
            }
            // SAFETY: the caller's.
            let switched = Errno::check(unsafe { sys::rte_eth_dev_rx_intr_enable(port.0, queue) });
            // SAFETY: the caller's.
            unsafe { sys::rte_eth_dev_rx_intr_disable(port.0, queue) };
            let is_switched = match switched {
                Ok(_) => true,
                Err(Errno(libc::ENOTSUP)) if driver == ALWAYS_TELLS => false,
                Err(_) => return None,
            };
            Some(Self { file, is_switched, is_enabled: false, watched_by: None })
        })
    }

    pub(crate) fn watch(&mut self, epoll: &Arc<OwnedFd>) -> Result<(), Errno> {
        if self.watched_by.as_ref().is_some_and(|watched_by| Arc::ptr_eq(watched_by, epoll)) {
            return Ok(());
        }
        self.unwatch();
        // By its edges, as nobody reads the file: it stays readable. Each interrupt is an edge.
        let mut event = libc::epoll_event { events: (libc::EPOLLIN | libc::EPOLLET) as u32, u64: 0 };
        // SAFETY: both files are open, the second as the port is started; `event` is ours.
        checked(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, self.file, &raw mut event) })?;
        self.watched_by = Some(Arc::clone(epoll));
        Ok(())
    }

    fn unwatch(&mut self) {
        if let Some(epoll) = self.watched_by.take() {
            // SAFETY: as in `watch`; no event is needed to delete one (epoll_ctl(2)).
            unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_DEL, self.file, std::ptr::null_mut()) };
        }
    }

    pub(crate) fn enable(&mut self, port: &Started, queue: u16) -> Result<(), Errno> {
        if self.is_switched && !self.is_enabled {
            let _interrupts = port.interrupts.lock().unwrap_or_else(PoisonError::into_inner);
            // SAFETY: the port is started, as `Started` says, and has this queue; the lock makes this the only change
            // of its queues' interrupts.
            Errno::check(unsafe { sys::rte_eth_dev_rx_intr_enable(port.id().0, queue) })?;
            self.is_enabled = true;
        }
        Ok(())
    }

    pub(crate) fn disable(&mut self, port: &Started, queue: u16) {
        if std::mem::take(&mut self.is_enabled) {
            let _interrupts = port.interrupts.lock().unwrap_or_else(PoisonError::into_inner);
            // One that stays enabled costs time, and no packet: what the driver says does not matter.
            // SAFETY: as in `enable`.
            unsafe { sys::rte_eth_dev_rx_intr_disable(port.id().0, queue) };
        }
    }
}

impl Drop for RxInterrupt {
    fn drop(&mut self) {
        self.unwatch();
    }
}

/// The kernel's list of PCI devices.
pub(crate) const PCI_DEVICES: &str = "/sys/bus/pci/devices";

/// Whether a device's interrupts are apart from each other, by the kernel's list of those on its bus. Behind uio it has one for everything, and a driver that is
/// asked to tell of packets by that one tells of nothing else any more.
pub(crate) fn are_apart(devices: &Path, device: &str) -> bool {
    let driver = std::fs::read_link(devices.join(device).join("driver"));
    !driver.is_ok_and(|driver| driver.file_name().is_some_and(|name| name.to_string_lossy().contains("uio")))
}

/// What a system call says.
pub(crate) fn checked(code: c_int) -> Result<c_int, Errno> {
    if code >= 0 { Ok(code) } else { Err(Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or_default())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn behind_uio_a_device_has_one_interrupt_for_everything() {
        let devices = std::env::temp_dir().join(format!("dpdk-rs-interrupts-{}", std::process::id()));
        for (device, driver, apart) in [
            ("0000:01:00.0", Some("vfio-pci"), true),
            ("0000:01:00.1", Some("uio_pci_generic"), false),
            ("0000:01:00.2", Some("igb_uio"), false),
            ("0000:01:00.3", Some("mlx5_core"), true),
            ("net_tap0", None, true),
        ] {
            if let Some(driver) = driver {
                std::fs::create_dir_all(devices.join(device)).unwrap();
                symlink(Path::new("../../drivers").join(driver), devices.join(device).join("driver")).unwrap();
            }
            assert_eq!(are_apart(&devices, device), apart, "{device} {driver:?}");
        }
        std::fs::remove_dir_all(devices).unwrap();
    }
}
