//! The program's ports: found, planned, started, and told how to spread packets.

use super::config::{PortsConfig, SteeringKind};
use super::error::RuntimeError;
use crate::context::Direction;
use crate::eal_arguments::{device_behind, environment};
use crate::router::{PortOffloads, RouterConfig};
use crate::steering::{Affinity, Steering};
use dpdk_rs::{
    Eal, HashKey, Mempool, Offloads, Port, PortBuilder, PortError, PortId, PortInfo, QueuePair, RssFunctions, RssKey,
    RssTableSize,
};
use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

/// Entries of the table of owners where no device has one.
const USUAL_TABLE: u16 = 512;

/// What will be done with the ports, from what is known before they are started.
#[derive(Debug)]
pub(super) struct PortPlan {
    pub(super) ports: Vec<PlannedPort>,
    /// How many of them are ends of the chain; the others are ways to the kernel.
    pub(super) sides: usize,
    /// Who owns what, unless any worker may have any packet as it arrives.
    pub(super) steering: Option<Arc<Steering>>,
}

#[derive(Debug)]
pub(super) struct PlannedPort {
    pub(super) id: PortId,
    direction: Direction,
    /// How many of the workers, from the first on, have a queue pair.
    pub(super) queues: NonZero<u16>,
    /// Whether the device shall be told who owns what.
    told: bool,
    /// What is left to the device, of what arrives and of what is sent.
    offloads: (Offloads, Offloads),
}

/// A started port and its workers' queues.
pub(super) struct StartedPort {
    pub(super) port: Port,
    /// From the first worker on.
    pub(super) queues: Vec<QueuePair>,
    /// Whether the device said that it does as it was told, and every worker has a queue.
    pub(super) trusted: bool,
}

impl PortPlan {
    /// Finds the ports and shares them out between so many workers.
    pub(super) fn new(
        eal: &Eal,
        config: &PortsConfig,
        router: Option<&RouterConfig>,
        workers: NonZero<u16>,
        affinity: Affinity,
    ) -> Result<Self, RuntimeError> {
        if let Some(queues) = config.queues.filter(|queues| !(1..=workers.get()).contains(queues)) {
            return Err(RuntimeError::Queues { queues, workers: workers.get() });
        }
        let ids = find(eal, config)?;
        let look = |id: &PortId| {
            let refused = |errno| PortError::Refused { port: id.to_string(), step: "information", errno };
            PortInfo::new(eal, *id).map_err(refused)
        };
        let infos = ids.iter().map(look).collect::<Result<Vec<PortInfo>, _>>()?;
        let several = workers.get() > 1;
        // A router tells the sides of a port apart by VLAN.
        if several && ids.len() < 2 && affinity.has_sides() && router.is_none() {
            return Err(RuntimeError::OneSide { affinity });
        }
        let table = |info: &PortInfo| RssTableSize::new(info.rss_table_size).ok();
        let tellable = |info: &PortInfo| usize::from(info.rss_key_size) >= RssKey::LEN && table(info).is_some();
        let queues = |info: &PortInfo| {
            let spreads = match config.steering {
                _ if affinity == Affinity::Any => true,
                SteeringKind::Auto => tellable(info),
                SteeringKind::Rss => true,
                SteeringKind::Software => false,
            };
            let most = info.max_rx_queues.min(info.max_tx_queues).min(workers.get());
            // More than the device has is its own error, when it is started.
            NonZero::new(config.queues.unwrap_or(if spreads { most } else { 1 })).unwrap_or(NonZero::<u16>::MIN)
        };
        let steered = several && (affinity != Affinity::Any || infos.iter().any(|info| queues(info) < workers));
        let told = |info: &PortInfo| match config.steering {
            _ if !steered => false,
            SteeringKind::Auto => tellable(info) && queues(info).get() > 1,
            SteeringKind::Rss => true,
            SteeringKind::Software => false,
        };
        let size = infos.iter().filter(|info| told(info)).filter_map(table).min();
        let entries = size.map_or(USUAL_TABLE, RssTableSize::entries);
        let entries = u16::try_from(affinity.most_entries()).map_or(entries, |most| entries.min(most));
        if steered && entries < workers.get() {
            return Err(RuntimeError::TooFewShares { affinity, entries, workers: workers.get() });
        }
        let size = RssTableSize::new(entries).unwrap_or(RssTableSize::SMALLEST);
        let seed = HashKey::random().hash(b"steering");
        let steering = if steered { Some(Arc::new(Steering::new(affinity, workers, size, seed)?)) } else { None };
        let directions = [Direction::Outbound, Direction::Inbound];
        let (rx, tx) = router.filter(|_| config.offloads).map_or_else(Default::default, PortOffloads::wanted);
        let planned = |(info, (id, direction)): (&PortInfo, (PortId, Direction))| PlannedPort {
            id,
            direction,
            queues: queues(info),
            told: told(info),
            offloads: (rx & info.rx_offloads, tx & info.tx_offloads),
        };
        let mut ports: Vec<PlannedPort> = infos.iter().zip(ids.into_iter().zip(directions)).map(planned).collect();
        let sides = ports.len();
        for (interface, host) in router.into_iter().flat_map(RouterConfig::hosts) {
            let key = format!("[router] interfaces.{interface}.host");
            let id = find_one(eal, &key, host)?;
            if ports.iter().any(|port| port.id == id) {
                return Err(RuntimeError::HostPort { key, name: host.to_owned() });
            }
            let (direction, queues) = (Direction::Outbound, NonZero::<u16>::MIN);
            ports.push(PlannedPort { id, direction, queues, told: false, offloads: Default::default() });
        }
        Ok(Self { ports, sides, steering })
    }

    /// How many of the workers have a queue of each port.
    pub(super) fn queues(&self) -> Vec<usize> {
        self.ports.iter().map(|port| usize::from(port.queues.get())).collect()
    }

    /// Starts the ports. When one fails, those before it are stopped again.
    pub(super) fn start(
        &self,
        eal: &Eal,
        config: &PortsConfig,
        pool: &Mempool,
        workers: NonZero<u16>,
    ) -> Result<Vec<StartedPort>, RuntimeError> {
        let steering = |place: usize| self.steering.as_deref().filter(|_| place < self.sides);
        let start = |(place, port): (usize, &PlannedPort)| port.start(eal, config, pool, workers, steering(place));
        self.ports.iter().enumerate().map(start).collect()
    }
}

impl PlannedPort {
    /// The port with its queues, without a pool.
    pub(super) fn builder<'eal>(&self, eal: &'eal Eal, config: &PortsConfig) -> PortBuilder<'eal> {
        let descriptors = config.descriptors;
        let (rx, tx) = self.offloads;
        let builder = PortBuilder::new(eal, self.id).queues(self.queues.get()).descriptors(descriptors, descriptors);
        let builder = builder.rx_offloads(rx).tx_offloads(tx);
        config.mtu.into_iter().fold(builder, PortBuilder::mtu)
    }

    fn start(
        &self,
        eal: &Eal,
        config: &PortsConfig,
        pool: &Mempool,
        workers: NonZero<u16>,
        steering: Option<&Steering>,
    ) -> Result<StartedPort, RuntimeError> {
        let (port, queues) = self.builder(eal, config).pool(pool).start()?;
        if self.offloads != Default::default() {
            let (rx, tx) = self.offloads;
            log::info!("{}: left to the device: {}", port.name(), PortOffloads::new(rx, tx));
        }
        let told = match steering.filter(|_| self.told) {
            Some(steering) => tell(&port, steering, self, config.steering)?,
            None => false,
        };
        if let (Some(steering), false) = (steering, told) {
            log::info!(
                "{}: workers hand packets over to each other, to keep {} together",
                port.name(),
                steering.affinity()
            );
        }
        Ok(StartedPort { port, queues, trusted: told && self.queues == workers })
    }
}

/// Tells a device who owns what. `false` if it does not take it, and need not.
fn tell(port: &Port, steering: &Steering, plan: &PlannedPort, kind: SteeringKind) -> Result<bool, RuntimeError> {
    // Packets of owners without a queue come to workers that have one.
    let table = steering.owners().map(|owner| owner % plan.queues);
    match port.set_rss(steering.key(plan.direction), &table, RssFunctions::FLOWS) {
        Ok(()) => {
            log::info!("{}: the device keeps {} together by receive side scaling", port.name(), steering.affinity());
            Ok(true)
        }
        Err(error) if kind == SteeringKind::Rss => Err(RuntimeError::Rss(error)),
        Err(error) => {
            log::warn!("{error}");
            Ok(false)
        }
    }
}

fn find(eal: &Eal, config: &PortsConfig) -> Result<Vec<PortId>, RuntimeError> {
    if config.outside.as_ref() == Some(&config.inside) {
        return Err(RuntimeError::SamePort(config.inside.clone()));
    }
    let inside = find_one(eal, "[ports] inside", &config.inside)?;
    let outside = config.outside.as_ref().map(|name| find_one(eal, "[ports] outside", name)).transpose()?;
    Ok([Some(inside), outside].into_iter().flatten().collect())
}

/// The port that a key of the configuration names.
fn find_one(eal: &Eal, key: &str, name: &str) -> Result<PortId, RuntimeError> {
    let behind = || device_behind(Path::new("/"), &environment(), name);
    eal.port_by_name(name).or_else(|| eal.port_by_name(&behind()?)).ok_or_else(|| {
        let names: Vec<String> =
            eal.ports().filter_map(|port| PortInfo::new(eal, port).ok()).map(|info| info.name).collect();
        let have = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        RuntimeError::NoSuchPort { key: key.to_owned(), name: name.to_owned(), have }
    })
}
