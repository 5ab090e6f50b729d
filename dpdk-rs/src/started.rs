//! A port's time in use: claimed once, and stopped when the last of its queues is gone.

use crate::Errno;
use crate::mempool::Mempool;
use crate::port_info::{PortId, control};
use crate::running::Running;
use dpdk_sys as sys;
use std::fmt;
use std::sync::{Arc, PoisonError};

/// The right to configure a port: one at a time. Stops the port when it goes; the device
/// stays, and is closed with the EAL.
pub(crate) struct Claim {
    running: Arc<Running>,
    port: PortId,
    stopped: bool,
}

impl Claim {
    pub(crate) fn new(running: &Arc<Running>, port: PortId) -> Option<Self> {
        let mut claimed = running.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.insert(port).then(|| Self { running: Arc::clone(running), port, stopped: false })
    }

    pub(crate) fn stop(&mut self) -> Result<(), Errno> {
        self.stopped = true;
        let control = control();
        // SAFETY: the port is claimed by us, and whatever used its queues is gone: queues
        // and `Port` hold `Started`, which holds this.
        let code = unsafe { sys::rte_eth_dev_stop(self.port.0) };
        drop(control);
        self.running.claimed.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.port);
        Errno::check(code).map(|_| ())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.stopped {
            return;
        }
        if let Err(errno) = self.stop() {
            log::warn!("{} did not stop: {errno}", self.port);
        }
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
    /// The device's queues hold packets of it; declared last, so it goes after the stop.
    pub(crate) _pool: Mempool,
}

impl Started {
    #[inline]
    pub(crate) fn id(&self) -> PortId {
        self.claim.port
    }
}
