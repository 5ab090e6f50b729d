//! A port's time in use: claimed once, stopped when the last of its queues is gone, and let go.

use crate::Errno;
use crate::mempool::Mempool;
use crate::port_info::{PortId, control};
use crate::running::Running;
use dpdk_sys as sys;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// The right to configure a port: one at a time. Stops the port when it goes; the device
/// stays, and is closed with the EAL.
pub(crate) struct Claim {
    running: Arc<Running>,
    port: PortId,
    /// Whether it may have been started since it was stopped.
    started: bool,
}

impl Claim {
    pub(crate) fn new(running: &Arc<Running>, port: PortId) -> Option<Self> {
        let mut claimed = running.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.insert(port).then(|| Self { running: Arc::clone(running), port, started: false })
    }

    pub(crate) fn port(&self) -> PortId {
        self.port
    }

    /// It is about to be started.
    pub(crate) fn starts(&mut self) {
        self.started = true;
    }

    pub(crate) fn stop(&mut self) -> Result<(), Errno> {
        if !std::mem::take(&mut self.started) {
            return Ok(());
        }
        let _control = control();
        // SAFETY: the port is claimed by us, and whatever used its queues is gone: queues
        // and `Port` hold `Started`, which holds this.
        Errno::check(unsafe { sys::rte_eth_dev_stop(self.port.0) }).map(|_| ())
    }

    /// The port's device was let go: whatever device comes next may have its number.
    pub(crate) fn leave(&mut self) {
        self.running.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
        self.port = PortId::NONE;
    }

    /// The device came back as this port. Says whether that was free.
    pub(crate) fn come_as(&mut self, port: PortId) -> bool {
        let free = self.running.claimed.lock().unwrap_or_else(PoisonError::into_inner).insert(port);
        if free {
            self.port = port;
        }
        free
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Err(errno) = self.stop() {
            log::warn!("{} did not stop: {errno}", self.port);
        }
        self.running.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Claim").field(&self.port).finish()
    }
}

/// A started port, held by its [`Port`] and by each of its queues.
#[derive(Debug)]
pub(crate) struct Started {
    pub(crate) claim: Claim,
    /// Held while the interrupt of one of its queues is enabled or disabled: queues of a device may share the register.
    pub(crate) interrupts: Mutex<()>,
    /// The device's queues hold packets of it; declared last, so it goes after the stop.
    pub(crate) _pool: Mempool,
}

impl Started {
    #[inline]
    pub(crate) fn id(&self) -> PortId {
        self.claim.port
    }
}
