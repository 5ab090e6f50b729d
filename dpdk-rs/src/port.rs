//! An Ethernet device, from asking to started to stopped.

use crate::device::Device;
use crate::events;
use crate::mempool::Mempool;
use crate::port_error::PortError;
use crate::port_info::{Link, Offloads, PortId, PortInfo, PortStats, XStat, control};
use crate::queue::QueuePair;
use crate::reception::{self, Reception};
use crate::rss::{self, RssError, RssFunctions, RssKey, RssProblem, RssTable};
use crate::settings::{self, Settings};
use crate::started::{Claim, Started};
use crate::{Eal, Errno, PortEvents};
use dpdk_sys as sys;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// What is asked of a port. Anything that the device cannot do is an error of
/// [`PortBuilder::start`] that names the port, what it has and what is needed.
#[derive(Debug)]
pub struct PortBuilder<'eal> {
    eal: &'eal Eal,
    port: PortId,
    settings: Settings,
}

impl<'eal> PortBuilder<'eal> {
    /// Descriptors of each queue unless asked for, as far as the device takes them.
    pub const DESCRIPTORS: u16 = settings::DESCRIPTORS;

    /// One queue pair with [`DESCRIPTORS`](Self::DESCRIPTORS) each way, the device's MTU, no offloads,
    /// promiscuous.
    #[must_use]
    pub fn new(eal: &'eal Eal, port: PortId) -> Self {
        let settings = Settings {
            queues: 1,
            descriptors: None,
            mtu: None,
            rx_offloads: Offloads::NONE,
            tx_offloads: Offloads::NONE,
            rss: RssFunctions::FLOWS,
            reception: Reception { promiscuous: true, vlans: Vec::new() },
            rx_interrupts: false,
            pool: None,
        };
        Self { eal, port, settings }
    }

    /// Queue pairs, one for each lcore that polls the port.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.settings.queues = queues;
        self
    }

    /// Descriptors of each receive and each transmit queue. What the device counts in is rounded up to,
    /// with a line in the log; what is beyond its limits is an error.
    #[must_use]
    pub fn descriptors(mut self, rx: u16, tx: u16) -> Self {
        self.settings.descriptors = Some((rx, tx));
        self
    }

    /// Largest network-layer packet in bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.settings.mtu = Some(mtu);
        self
    }

    /// What the device shall do for every packet that arrives.
    #[must_use]
    pub fn rx_offloads(mut self, offloads: Offloads) -> Self {
        self.settings.rx_offloads = offloads;
        self
    }

    /// What packets may ask of the device when they are sent.
    #[must_use]
    pub fn tx_offloads(mut self, offloads: Offloads) -> Self {
        self.settings.tx_offloads = offloads;
        self
    }

    /// How packets are spread if there is more than one queue; what the device lacks of it
    /// is left out.
    #[must_use]
    pub fn rss(mut self, functions: RssFunctions) -> Self {
        self.settings.rss = functions;
        self
    }

    /// Whether frames for other stations are received too. A virtual function that may not is started
    /// without, with a line in the log.
    #[must_use]
    pub fn promiscuous(mut self, promiscuous: bool) -> Self {
        self.settings.reception.promiscuous = promiscuous;
        self
    }

    /// VLANs whose frames a device lets through that was asked for
    /// [`Offloads::RX_VLAN_FILTER`], beside those without a tag.
    #[must_use]
    pub fn vlans(mut self, vlans: impl IntoIterator<Item = u16>) -> Self {
        self.settings.reception.vlans = vlans.into_iter().collect();
        self
    }

    /// Whether receive queues shall have interrupts, for threads that sleep while nothing comes
    /// ([`RxInterrupts`](crate::RxInterrupts)); without this no device is asked for them. One that refuses is started
    /// without, and [`RxQueue::has_interrupt`](crate::RxQueue::has_interrupt) tells.
    #[must_use]
    pub fn rx_interrupts(mut self, wanted: bool) -> Self {
        self.settings.rx_interrupts = wanted;
        self
    }

    /// The pool that arriving packets are put into.
    #[must_use]
    pub fn pool(mut self, pool: &Mempool) -> Self {
        self.settings.pool = Some(pool.clone());
        self
    }

    /// Configures and starts the port.
    ///
    /// # Errors
    ///
    /// [`PortError`]; the port is then closed again.
    pub fn start(self) -> Result<(Port, Vec<QueuePair>), PortError> {
        let info = self.check()?;
        let name = || info.name.clone();
        if self.settings.pool.is_none() {
            return Err(PortError::NoPool { port: name() });
        }
        let claim = Claim::new(self.eal.running(), self.port).ok_or_else(|| PortError::InUse { port: name() })?;
        events::take(self.port);
        let device = Device::of_port(self.port).ok();
        let (started, queues) = self.settings.bring_up(claim, &info, true).map_err(|(_, error)| error)?;
        let (id, state) = (Cell::new(self.port), RefCell::new(State::Up(started)));
        let settings = RefCell::new(self.settings);
        let port = Port { state, id, name: info.name, driver: info.driver, settings, device };
        Ok((port, queues))
    }

    /// Looks whether the device can do what is asked, as far as it says so itself, without
    /// touching it. A pool that is not given is not looked at.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn check(&self) -> Result<PortInfo, PortError> {
        // A device that belongs to another device (a bond's member) is polled by that one.
        let there = self.eal.ports().any(|port| port == self.port);
        let info = PortInfo::read(self.port).ok().filter(|_| there).ok_or_else(|| {
            let names: Vec<String> =
                self.eal.ports().filter_map(|port| PortInfo::read(port).ok()).map(|info| info.name).collect();
            PortError::NoSuchPort(self.port, if names.is_empty() { "none".to_owned() } else { names.join(", ") })
        })?;
        self.settings.check(&info)?;
        Ok(info)
    }
}

/// A port that was started, for everything but packets: link, counters, taking down and up again,
/// stopping. It may move to a control thread; its queues go to the lcores.
///
/// ```compile_fail,E0277
/// fn one_thread_at_a_time(port: &dpdk_rs::Port) {
///     std::thread::scope(|scope| {
///         scope.spawn(|| port.link());
///     });
/// }
/// ```
// ethdev's control functions are not safe to call from two threads at once: the cells see to that.
#[derive(Debug)]
pub struct Port {
    state: RefCell<State>,
    /// Another one when the device was away, and none while it is.
    id: Cell<PortId>,
    name: String,
    driver: String,
    settings: RefCell<Settings>,
    /// Where it is found again, if it can be.
    device: Option<Device>,
}

/// Whose the port is.
#[derive(Debug)]
enum State {
    /// Its queues' too.
    Up(Arc<Started>),
    /// It has none.
    Down(Claim),
    /// It is not there.
    Detached(Claim),
    /// Somebody is changing its state.
    Changing,
}

impl Port {
    /// DPDK's number; [`PortId::NONE`] while it is [detached](Self::detach).
    #[must_use]
    pub fn id(&self) -> PortId {
        self.id.get()
    }

    /// The vdev's name or the PCI address.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the device was asked to do for every packet that arrives.
    #[must_use]
    pub fn rx_offloads(&self) -> Offloads {
        self.settings.borrow().rx_offloads
    }

    /// What packets may ask of the device when they are sent.
    #[must_use]
    pub fn tx_offloads(&self) -> Offloads {
        self.settings.borrow().tx_offloads
    }

    /// What the device can do.
    ///
    /// # Errors
    ///
    /// [`PortError::Refused`] when the device is gone.
    pub fn info(&self) -> Result<PortInfo, PortError> {
        PortInfo::read(self.id()).map_err(self.refused("information"))
    }

    /// Its driver.
    #[must_use]
    pub fn driver(&self) -> &str {
        &self.driver
    }

    /// The state of the link, without waiting for it. A device that tells when it changes
    /// ([`PortInfo::interrupts`]) is not asked, another one each time.
    ///
    /// # Errors
    ///
    /// [`PortError::Refused`] when the device is gone.
    pub fn link(&self) -> Result<Link, PortError> {
        Link::read(self.id()).map_err(self.refused("link"))
    }

    /// The device's counters.
    ///
    /// # Errors
    ///
    /// [`PortError::Refused`] when the device has none.
    pub fn stats(&self) -> Result<PortStats, PortError> {
        PortStats::read(self.id()).map_err(self.refused("counters"))
    }

    /// The driver's own counters.
    ///
    /// # Errors
    ///
    /// [`PortError::Refused`] when the device has none.
    pub fn xstats(&self) -> Result<Vec<XStat>, PortError> {
        XStat::read_all(self.id()).map_err(self.refused("extended counters"))
    }

    /// The MTU in bytes.
    ///
    /// # Errors
    ///
    /// [`PortError::Refused`] when the device does not say.
    pub fn mtu(&self) -> Result<u16, PortError> {
        let mut mtu = 0;
        let _control = control();
        // SAFETY: the port exists; `mtu` is ours.
        Errno::check(unsafe { sys::rte_eth_dev_get_mtu(self.id().0, &raw mut mtu) }).map_err(self.refused("MTU"))?;
        Ok(mtu)
    }

    /// Gives the port another MAC address; that of the kernel's interface behind it too, where there
    /// is one (net_tap).
    ///
    /// # Errors
    ///
    /// [`PortError::Refused`] when the device keeps its own, or the address is none of a station.
    pub fn set_mac_address(&self, address: [u8; 6]) -> Result<(), PortError> {
        let _control = control();
        // SAFETY: the port exists; the shim reads six bytes.
        let code = unsafe { sys::shim_port_set_mac_address(self.id().0, address.as_ptr()) };
        Errno::check(code).map(drop).map_err(self.refused("MAC address"))
    }

    /// Makes the device choose queues by a key and a table, for the packets that `functions`
    /// name, and sees to it that it has them: the opposite of both is set first and read back,
    /// then what is wanted. A device with a larger table than this one has it several times
    /// over; the key is one for the size of this one.
    ///
    /// A device that keeps its settings may still not follow them. Packets show whether it
    /// does, by the queue that they come by and by [`Mbuf::rss_hash`](crate::Mbuf::rss_hash).
    /// Those that arrived before this returns were spread by other settings.
    ///
    /// # Errors
    ///
    /// [`RssError`], which names what the device lacks, refused or did not keep. After the
    /// last two it may have settings that nobody wants, and the port should be stopped, or all
    /// of its packets be spread by the program.
    pub fn set_rss(&self, key: &RssKey, table: &RssTable, functions: RssFunctions) -> Result<(), RssError> {
        let error = |problem| RssError { port: self.name.clone(), driver: self.driver.clone(), problem };
        let gone = |errno| RssProblem::Refused { step: "say what it can do", errno };
        let info = PortInfo::read(self.id()).map_err(gone).map_err(error)?;
        rss::set(&self.id(), &info, self.settings.borrow().queues, key, table, functions).map_err(error)
    }

    /// Lets frames of these VLANs through too, as [`PortBuilder::vlans`] does, from now on. What the device
    /// refuses is in the log.
    pub fn admit_vlans(&self, vlans: &[u16]) {
        let known = self.settings.borrow().reception.vlans.clone();
        let new: Vec<u16> = vlans.iter().copied().filter(|vlan| !known.contains(vlan)).collect();
        if self.is_up() {
            let _control = control();
            for frames in reception::admit(&self.id(), &new) {
                log::warn!("{} ({}) does not let through {frames}", self.name, self.driver);
            }
        }
        self.settings.borrow_mut().reception.vlans.extend(new);
    }

    /// Whether its physical function answers, if it is a virtual one whose driver does not see to that itself.
    /// One that does not is started all the same, by [`PortBuilder::start`] and not by
    /// [`bring_up`](Self::bring_up), and gets no packets. It may take a second.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        let _control = control();
        reception::answers(&self.id(), &self.driver)
    }

    /// What the device has said since the last call.
    #[must_use]
    pub fn events(&self) -> PortEvents {
        events::take(self.id())
    }

    /// Notes events as if the device had said them: for what DPDK is not told, and for tests of what is
    /// done about them.
    pub fn note(&self, events: PortEvents) {
        events::add(self.id(), events);
    }

    /// Whether it is started, and not [taken down](Self::take_down).
    #[must_use]
    pub fn is_up(&self) -> bool {
        matches!(&*self.state.borrow(), State::Up(_))
    }

    /// Stops the port and keeps it, to be [brought up](Self::bring_up) again. It takes every queue pair
    /// of the port, so nobody can be polling; packets in the device's queues go home.
    ///
    /// # Errors
    ///
    /// [`PortError::QueuesOut`] when one is missing. The port then stays up until the last of them is
    /// dropped. [`PortError::Refused`] when the device does not stop, as one that is gone does not; the
    /// port is down all the same. It is no error that it was down.
    pub fn take_down(&self, queues: Vec<QueuePair>) -> Result<(), PortError> {
        let mut state = self.state.borrow_mut();
        let State::Up(started) = &*state else { return Ok(()) };
        self.all_of(started, &queues)?;
        drop(queues);
        let State::Up(started) = std::mem::replace(&mut *state, State::Changing) else { return Ok(()) };
        // The last reference, as all queues were here.
        let Some(Started { mut claim, .. }) = Arc::into_inner(started) else { return Ok(()) };
        let stopped = claim.stop();
        *state = State::Down(claim);
        stopped.map_err(self.refused("stop"))
    }

    /// Starts a port that was [taken down](Self::take_down), by the settings that it was started with,
    /// and returns its queues. A driver that can reset its device does so first (`rte_eth_dev_reset`),
    /// and a device that was [detached](Self::detach) is looked for. What
    /// [`set_rss`](Self::set_rss) did has to be done again. The device may have another MAC address.
    ///
    /// # Errors
    ///
    /// [`PortError`]; the port is down then, or detached, and can be tried again.
    pub fn bring_up(&self) -> Result<Vec<QueuePair>, PortError> {
        let mut state = self.state.borrow_mut();
        let attach = |mut claim: Claim| {
            let attached = self.device.as_ref().map_or(Err(Errno(libc::ENODEV)), |device| device.attach(&mut claim));
            match attached {
                Ok(()) => {
                    // What was said of whatever had this number before.
                    events::take(claim.port());
                    Ok(claim)
                }
                Err(errno) => Err((State::Detached(claim), self.refused("attach")(errno))),
            }
        };
        let attempt = match std::mem::replace(&mut *state, State::Changing) {
            State::Down(claim) => self.reset(claim),
            State::Detached(claim) => attach(claim),
            other => {
                *state = other;
                return Err(PortError::Up { port: self.name.clone() });
            }
        };
        let started = attempt.and_then(|claim| {
            self.id.set(claim.port());
            match PortInfo::read(claim.port()) {
                Ok(info) => self
                    .settings
                    .borrow()
                    .bring_up(claim, &info, false)
                    .map_err(|(claim, error)| (State::Down(claim), error)),
                Err(errno) => Err((State::Down(claim), self.refused("information")(errno))),
            }
        });
        match started {
            Ok((started, queues)) => {
                *state = State::Up(started);
                Ok(queues)
            }
            Err((after, error)) => {
                *state = after;
                Err(error)
            }
        }
    }

    /// Has the driver reset its device, if it can.
    fn reset(&self, claim: Claim) -> Result<Claim, (State, PortError)> {
        let _control = control();
        // SAFETY: the port is claimed by us and stopped.
        match Errno::check(unsafe { sys::rte_eth_dev_reset(claim.port().0) }) {
            Ok(_) | Err(Errno(libc::ENOTSUP)) => Ok(claim),
            Err(errno) => Err((State::Down(claim), self.refused("reset")(errno))),
        }
    }

    /// Gives up the device of a port that was [taken down](Self::take_down): the driver lets go of it.
    /// So a kernel that wants it back gets it, and one that comes back is found by
    /// [`bring_up`](Self::bring_up). It is no error that it was detached.
    ///
    /// # Errors
    ///
    /// [`PortError::Refused`], also when the device has other ports, and [`PortError::Up`].
    pub fn detach(&self) -> Result<(), PortError> {
        let mut state = self.state.borrow_mut();
        match std::mem::replace(&mut *state, State::Changing) {
            State::Down(mut claim) => {
                let detached = match &self.device {
                    Some(_) => Device::detach(&mut claim),
                    None => Err(Errno(libc::ENOTSUP)),
                };
                self.id.set(claim.port());
                let outcome = detached.map_err(self.refused("detach"));
                *state = if outcome.is_ok() { State::Detached(claim) } else { State::Down(claim) };
                outcome
            }
            State::Detached(claim) => {
                *state = State::Detached(claim);
                Ok(())
            }
            other => {
                *state = other;
                Err(PortError::Up { port: self.name.clone() })
            }
        }
    }

    /// Stops the port. It takes every queue pair of the port, so nobody can be polling. One that was
    /// taken down has none.
    ///
    /// # Errors
    ///
    /// [`PortError::QueuesOut`] when one is missing. The port then stays up until the last
    /// of them is dropped. [`PortError::Refused`] when the device does not stop.
    pub fn stop(self, queues: Vec<QueuePair>) -> Result<(), PortError> {
        self.take_down(queues)
    }

    /// Whether these are the queues of this start of the port.
    fn all_of(&self, started: &Arc<Started>, queues: &[QueuePair]) -> Result<(), PortError> {
        let ours = queues.iter().filter(|pair| pair.belongs_to(started)).count();
        let queues = self.settings.borrow().queues;
        match usize::from(queues).saturating_sub(ours) {
            0 => Ok(()),
            missing => Err(PortError::QueuesOut { port: self.name.clone(), missing, queues }),
        }
    }

    fn refused(&self, step: &'static str) -> impl FnOnce(Errno) -> PortError + use<> {
        let port = self.name.clone();
        move |errno| PortError::Refused { port, step, errno }
    }
}
