//! An Ethernet device, from asking to started to stopped.

use crate::mempool::Mempool;
use crate::port_info::{Link, Offloads, PortId, PortInfo, PortStats, XStat, control};
use crate::queue::QueuePair;
use crate::rss::{self, RssError, RssFunctions, RssKey, RssProblem, RssTable};
use crate::started::{Claim, Started};
use crate::{Eal, Errno};
use dpdk_sys as sys;
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::Arc;

/// Why a port does not do what was asked. `port` is its name as the EAL knows it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PortError {
    /// DPDK knows no such port.
    #[error("there is no {0}; there are: {1}")]
    NoSuchPort(PortId, String),
    /// A [`Port`] for it exists.
    #[error("port {port} is in use already")]
    InUse {
        /// Its name.
        port: String,
    },
    /// No pool was named to receive into.
    #[error("port {port} was given no mempool to receive into")]
    NoPool {
        /// Its name.
        port: String,
    },
    /// No queues were asked for; DPDK would configure one that nobody sets up.
    #[error("port {port} was asked to start without queues")]
    NoQueues {
        /// Its name.
        port: String,
    },
    /// The device has fewer queues than asked for.
    #[error("port {port} ({driver}) has {have} {kind} queue(s), {need} are needed: one for each worker lcore")]
    TooFewQueues {
        /// Its name.
        port: String,
        /// Its driver.
        driver: String,
        /// Receive or transmit.
        kind: &'static str,
        /// What it has.
        have: u16,
        /// What was asked for.
        need: u16,
    },
    /// The device cannot have this MTU.
    #[error("port {port} ({driver}) takes an MTU from {min} to {max}, not {mtu}")]
    Mtu {
        /// Its name.
        port: String,
        /// Its driver.
        driver: String,
        /// Smallest.
        min: u16,
        /// Largest.
        max: u16,
        /// Asked for.
        mtu: u16,
    },
    /// A frame of this MTU would not fit into one buffer of the pool.
    #[error(
        "an MTU of {mtu} needs packets of {need} bytes, but those of the mempool {pool:?} hold {have}: port {port}"
    )]
    DataRoom {
        /// Its name.
        port: String,
        /// The MTU asked for, or the device's own.
        mtu: u16,
        /// Bytes needed.
        need: u32,
        /// Bytes there.
        have: u16,
        /// The pool's name.
        pool: String,
    },
    /// The device lacks offloads that were asked for.
    #[error("port {port} ({driver}) has no {kind} offload {}; it has: {}", missing.names(kind), have.names(kind))]
    Offloads {
        /// Its name.
        port: String,
        /// Its driver.
        driver: String,
        /// Receive or transmit.
        kind: &'static str,
        /// Those that it lacks of what was asked for.
        missing: Offloads,
        /// Those that it has.
        have: Offloads,
    },
    /// Offloads that break what a packet is here: one segment, of any pool.
    #[error(
        "port {port}: the {kind} offloads {} are not for packets of one segment from any mempool",
        unsound.names(kind)
    )]
    UnsoundOffloads {
        /// Its name.
        port: String,
        /// Receive or transmit.
        kind: &'static str,
        /// Those that it must not have.
        unsound: Offloads,
    },
    /// [`Port::stop`] did not get every queue pair of the port.
    #[error("port {port} cannot stop: {missing} of its {queues} queue pairs were not given back")]
    QueuesOut {
        /// Its name.
        port: String,
        /// Queue pairs not there.
        missing: usize,
        /// Queue pairs in all.
        queues: u16,
    },
    /// DPDK refused.
    #[error("port {port}: {step}: {errno}")]
    Refused {
        /// Its name.
        port: String,
        /// What was tried.
        step: &'static str,
        /// Why not.
        errno: Errno,
    },
}

/// Receive offloads that make packets of several segments.
const RX_UNSOUND: Offloads =
    Offloads(sys::RTE_ETH_RX_OFFLOAD_SCATTER | sys::RTE_ETH_RX_OFFLOAD_TCP_LRO | sys::RTE_ETH_RX_OFFLOAD_BUFFER_SPLIT);
/// Transmit offloads that rest on promises which a safe caller could break. With
/// MBUF_FAST_FREE the device puts every packet into the first one's pool: a pool that has
/// strangers in it looks complete while its own packets are out.
const TX_UNSOUND: Offloads = Offloads(sys::RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE | sys::RTE_ETH_TX_OFFLOAD_MULTI_SEGS);

/// Bytes of a frame beside its MTU: Ethernet header, two VLAN tags, frame check sequence.
const OVERHEAD: u32 = 14 + 8 + 4;

/// What is asked of a port. Anything that the device cannot do is an error of
/// [`PortBuilder::start`] that names the port, what it has and what is needed.
#[derive(Debug)]
pub struct PortBuilder<'eal> {
    eal: &'eal Eal,
    port: PortId,
    queues: u16,
    descriptors: (u16, u16),
    mtu: Option<u16>,
    rx_offloads: Offloads,
    tx_offloads: Offloads,
    rss: RssFunctions,
    promiscuous: bool,
    pool: Option<Mempool>,
}

impl<'eal> PortBuilder<'eal> {
    /// One queue pair with 1024 descriptors each way, the device's MTU, no offloads,
    /// promiscuous.
    #[must_use]
    pub fn new(eal: &'eal Eal, port: PortId) -> Self {
        Self {
            eal,
            port,
            queues: 1,
            descriptors: (1024, 1024),
            mtu: None,
            rx_offloads: Offloads::NONE,
            tx_offloads: Offloads::NONE,
            rss: RssFunctions::FLOWS,
            promiscuous: true,
            pool: None,
        }
    }

    /// Queue pairs, one for each lcore that polls the port.
    #[must_use]
    pub fn queues(mut self, queues: u16) -> Self {
        self.queues = queues;
        self
    }

    /// Descriptors of each receive and each transmit queue; the driver may round them.
    #[must_use]
    pub fn descriptors(mut self, rx: u16, tx: u16) -> Self {
        self.descriptors = (rx, tx);
        self
    }

    /// Largest network-layer packet in bytes.
    #[must_use]
    pub fn mtu(mut self, mtu: u16) -> Self {
        self.mtu = Some(mtu);
        self
    }

    /// What the device shall do for every packet that arrives.
    #[must_use]
    pub fn rx_offloads(mut self, offloads: Offloads) -> Self {
        self.rx_offloads = offloads;
        self
    }

    /// What packets may ask of the device when they are sent.
    #[must_use]
    pub fn tx_offloads(mut self, offloads: Offloads) -> Self {
        self.tx_offloads = offloads;
        self
    }

    /// How packets are spread if there is more than one queue; what the device lacks of it
    /// is left out.
    #[must_use]
    pub fn rss(mut self, functions: RssFunctions) -> Self {
        self.rss = functions;
        self
    }

    /// Whether frames for other stations are received too.
    #[must_use]
    pub fn promiscuous(mut self, promiscuous: bool) -> Self {
        self.promiscuous = promiscuous;
        self
    }

    /// The pool that arriving packets are put into.
    #[must_use]
    pub fn pool(mut self, pool: &Mempool) -> Self {
        self.pool = Some(pool.clone());
        self
    }

    /// Configures and starts the port.
    ///
    /// # Errors
    ///
    /// [`PortError`]; the port is then closed again.
    pub fn start(self) -> Result<(Port, Vec<QueuePair>), PortError> {
        let info = self.check()?;
        let port = info.name.clone();
        let pool = self.pool.clone().ok_or_else(|| PortError::NoPool { port: port.clone() })?;
        let claim = Claim::new(self.eal.running(), self.port).ok_or_else(|| PortError::InUse { port: port.clone() })?;
        let refused = |step| move |errno| PortError::Refused { port: info.name.clone(), step, errno };

        let config = sys::shim_port_config {
            rx_queues: self.queues,
            tx_queues: self.queues,
            mtu: self.mtu.unwrap_or(0),
            rx_offloads: self.rx_offloads.0,
            tx_offloads: self.tx_offloads.0,
            rss_functions: if self.queues > 1 { self.rss.0 & info.rss_functions } else { 0 },
            rss_key: std::ptr::null_mut(),
            rss_key_size: 0,
        };
        let id = self.port.0;
        // SAFETY: the port exists and is claimed, so no other `Port` can be using it.
        Errno::check(unsafe { sys::shim_port_configure(id, &raw const config) })
            .map_err(refused.clone()("configure"))?;
        let (mut rx, mut tx) = self.descriptors;
        // SAFETY: as above; the driver rounds the numbers to what it can do.
        Errno::check(unsafe { sys::rte_eth_dev_adjust_nb_rx_tx_desc(id, &raw mut rx, &raw mut tx) })
            .map_err(refused.clone()("descriptors"))?;
        for queue in 0..self.queues {
            // SAFETY: as above; the pool outlives the queue (`Started` holds it).
            Errno::check(unsafe { sys::shim_rx_queue_setup(id, queue, rx, self.rx_offloads.0, pool.raw()) })
                .map_err(refused.clone()("receive queue"))?;
            // SAFETY: as above.
            Errno::check(unsafe { sys::shim_tx_queue_setup(id, queue, tx, self.tx_offloads.0) })
                .map_err(refused.clone()("transmit queue"))?;
        }
        // SAFETY: configured with all its queues.
        Errno::check(unsafe { sys::rte_eth_dev_start(id) }).map_err(refused.clone()("start"))?;
        let started = Arc::new(Started { claim, _pool: pool.clone() });
        if self.promiscuous {
            // SAFETY: the port is started.
            let code = unsafe { sys::rte_eth_promiscuous_enable(id) };
            // Many virtual devices have no filter to switch off.
            if let Err(errno) =
                Errno::check(code).or_else(|errno| if errno.0 == libc::ENOTSUP { Ok(0) } else { Err(errno) })
            {
                return Err(refused("promiscuous mode")(errno));
            }
        }
        let prepare = self.tx_offloads != Offloads::NONE;
        let queues = (0..self.queues).map(|queue| QueuePair::new(&started, queue, &pool, prepare)).collect();
        let port = Port {
            started,
            name: port,
            driver: info.driver,
            queues: self.queues,
            rx_offloads: self.rx_offloads,
            tx_offloads: self.tx_offloads,
            _not_sync: PhantomData,
        };
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
            _ => Ok(info),
        }
    }
}

/// A started port, for everything but packets: link, counters, stopping. It may move to a
/// control thread; its queues go to the lcores.
///
/// ```compile_fail,E0277
/// fn one_thread_at_a_time(port: &dpdk_rs::Port) {
///     std::thread::scope(|scope| {
///         scope.spawn(|| port.link());
///     });
/// }
/// ```
#[derive(Debug)]
pub struct Port {
    started: Arc<Started>,
    name: String,
    driver: String,
    queues: u16,
    rx_offloads: Offloads,
    tx_offloads: Offloads,
    /// ethdev's control functions are not safe to call from two threads at once.
    _not_sync: PhantomData<Cell<()>>,
}

impl Port {
    /// DPDK's number.
    #[must_use]
    pub fn id(&self) -> PortId {
        self.started.id()
    }

    /// The vdev's name or the PCI address.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the device was asked to do for every packet that arrives.
    #[must_use]
    pub fn rx_offloads(&self) -> Offloads {
        self.rx_offloads
    }

    /// What packets may ask of the device when they are sent.
    #[must_use]
    pub fn tx_offloads(&self) -> Offloads {
        self.tx_offloads
    }

    /// What the device can do.
    ///
    /// # Errors
    ///
    /// [`PortError::Refused`] when the device is gone.
    pub fn info(&self) -> Result<PortInfo, PortError> {
        PortInfo::read(self.id()).map_err(self.refused("information"))
    }

    /// The state of the link, without waiting for it.
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
        rss::set(&self.id(), &info, self.queues, key, table, functions).map_err(error)
    }

    /// Stops the port. It takes every queue pair of the port, so nobody can be polling.
    ///
    /// # Errors
    ///
    /// [`PortError::QueuesOut`] when one is missing. The port then stays up until the last
    /// of them is dropped. [`PortError::Refused`] when the device does not stop.
    pub fn stop(self, queues: Vec<QueuePair>) -> Result<(), PortError> {
        let ours = queues.iter().filter(|pair| pair.belongs_to(&self.started)).count();
        let missing = usize::from(self.queues).saturating_sub(ours);
        if missing > 0 {
            return Err(PortError::QueuesOut { port: self.name, missing, queues: self.queues });
        }
        let refused = self.refused("stop");
        drop(queues);
        // The last reference, as all queues were here.
        Arc::into_inner(self.started).map_or(Ok(()), |mut started| started.claim.stop()).map_err(refused)
    }

    fn refused(&self, step: &'static str) -> impl FnOnce(Errno) -> PortError + use<> {
        let port = self.name.clone();
        move |errno| PortError::Refused { port, step, errno }
    }
}
