//! Ports are looked after by the control thread, now and then, and built anew for who asks.

use super::control::Control;
use super::life::Life;
use super::ports::filters;
use crate::router::RouterConfig;
use dpdk_rs::{Offloads, Port};
use std::time::{Duration, Instant};

/// How long workers may take to give queues back to somebody who waits; it takes microseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a port is not up again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The program has no such port.
    #[error("there is no port {name:?}; there are: {have}")]
    NoSuchPort {
        /// As asked for.
        name: String,
        /// Those that there are.
        have: String,
    },
    /// It does not start. It is still tried, now and then.
    #[error("port {port} is down: {why}")]
    Down {
        /// Its name.
        port: String,
        /// What stood in the way the last time.
        why: String,
    },
    /// A worker has not given its queue back: it has stopped, or a function keeps it busy.
    #[error("port {port}: a worker has not given its queues back: it has stopped, or a function keeps it busy")]
    QueuesOut {
        /// Its name.
        port: String,
    },
}

impl Control {
    /// Looks after the ports: takes note of links that have gone down or come up, resets devices that
    /// ask for it, lets those go that are taken away, and looks for them. [`App`](crate::App) does so
    /// all the time; a program that runs by [`Runtime`](crate::Runtime) calls it now and then. It does
    /// not wait for workers. What it finds and does is in the log and in the [report](Self::report).
    pub fn tend_ports(&self) {
        for index in 0..self.ports.len() {
            self.tend_port(index);
        }
    }

    /// Has a port built anew, as after a reset of its device: the workers give its queues back, it is
    /// stopped and started by its settings, and they get new ones. Packets that are to leave by it are
    /// dropped meanwhile (`port-down`), and functions keep what they know. A port that is down is tried
    /// at once. Returns when it is up, or when it does not start.
    ///
    /// # Errors
    ///
    /// [`RebuildError`]. The port is then still down, and [`tend_ports`](Self::tend_ports) goes on.
    pub fn rebuild_port(&self, name: &str) -> Result<(), RebuildError> {
        let index = self.ports.iter().position(|port| port.name() == name).ok_or_else(|| RebuildError::NoSuchPort {
            name: name.to_owned(),
            have: self.ports.iter().map(Port::name).collect::<Vec<_>>().join(", "),
        })?;
        if let Some(life) = self.lives.borrow_mut().get_mut(index) {
            life.ask();
        }
        let give_up = Instant::now() + PATIENCE;
        loop {
            self.tend_port(index);
            let lives = self.lives.borrow();
            let Some(life) = lives.get(index) else { return Ok(()) };
            if life.is_up() && !life.is_asked() {
                return Ok(());
            }
            if self.ports.get(index).is_some_and(Port::is_up) && (self.stopping() || Instant::now() > give_up) {
                return Err(RebuildError::QueuesOut { port: name.to_owned() });
            }
            if !life.why_down().is_empty() || self.stopping() {
                let why =
                    if life.why_down().is_empty() { "the program is stopping" } else { life.why_down() }.to_owned();
                return Err(RebuildError::Down { port: name.to_owned(), why });
            }
            drop(lives);
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Has devices that filter VLANs let those of a router's interfaces through.
    pub(super) fn admit_vlans(&self, router: &RouterConfig) {
        for (port, life) in self.ports.iter().zip(self.lives.borrow().iter()).take(self.telling.sides) {
            let vlans = life.vlans(router, self.telling.sides);
            if port.rx_offloads().contains(Offloads::RX_VLAN_FILTER) {
                port.admit_vlans(&vlans);
            } else if port.info().is_ok_and(|info| filters(&info, &vlans)) {
                log::warn!(
                    "{}: a virtual function that began without VLANs gets no frames of theirs: restart",
                    port.name()
                );
            }
        }
    }

    /// Whether all ports are up.
    pub(super) fn ports_are_up(&self) -> bool {
        self.lives.borrow().iter().all(Life::is_up)
    }

    fn tend_port(&self, index: usize) {
        let mut lives = self.lives.borrow_mut();
        let (Some(port), Some(life)) = (self.ports.get(index), lives.get_mut(index)) else { return };
        if let Some(mac) = life.tend(index, port, &self.telling, &self.shared.mailboxes)
            && let Err(error) = self.change_mac_address(index, mac)
        {
            log::error!("{}: the router keeps its old MAC address: {error}", port.name());
        }
    }
}
