//! The program's ports: found, planned, started, and told how to spread packets.

use super::config::{ForwardingKind, PortsConfig, RuntimeConfig, SteeringKind};
use super::error::RuntimeError;
use crate::direction::Direction;
use crate::eal_arguments::{device_behind, environment, why_nothing_is_behind};
use crate::headers::MacAddress;
use crate::idle::Idle;
use crate::router::{PortOffloads, RouterConfig, Side};
use crate::steering::{Affinity, Steering};
use dpdk_rs::{
    Eal, HashKey, Mempool, Offloads, Port, PortBuilder, PortError, PortId, PortInfo, QueuePair, RssFunctions,
    RssProblem, RssTableSize,
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

#[derive(Clone, Debug)]
pub(super) struct PlannedPort {
    pub(super) id: PortId,
    direction: Direction,
    /// How many of the workers, from the first on, have a queue pair.
    pub(super) queues: NonZero<u16>,
    /// Of each queue, receive and transmit.
    pub(super) descriptors: (u16, u16),
    /// Whether the device shall be told who owns what.
    told: bool,
    /// Why it cannot be.
    obstacle: Option<RssProblem>,
    /// What is left to the device, of what arrives and of what is sent.
    offloads: (Offloads, Offloads),
    /// VLANs that the device shall let through.
    filtered: Vec<u16>,
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
        config: &RuntimeConfig,
        workers: NonZero<u16>,
        affinity: Affinity,
    ) -> Result<Self, RuntimeError> {
        let (forwarding, router, config) = (config.forwarding, config.routed(), &config.ports);
        if let Some(queues) = config.queues.filter(|queues| !(1..=workers.get()).contains(queues)) {
            return Err(RuntimeError::Queues { queues, workers: workers.get() });
        }
        let ids = find(eal, config)?;
        let look = |id: &PortId| {
            let refused = |errno| PortError::Refused { port: id.to_string(), step: "information", errno };
            PortInfo::new(eal, *id).map_err(refused)
        };
        let infos = ids.iter().map(look).collect::<Result<Vec<PortInfo>, _>>()?;
        check_wire(forwarding, config, &infos)?;
        let several = workers.get() > 1;
        // A router tells the sides of a port apart by VLAN.
        if several && ids.len() < 2 && affinity.has_sides() && router.is_none() {
            return Err(RuntimeError::OneSide { affinity });
        }
        let table = |info: &PortInfo| RssTableSize::new(info.rss_table_size).ok();
        let tellable = |info: &PortInfo| info.rss_obstacle().is_none();
        let queues = |info: &PortInfo| queues_of(info, config, workers, affinity);
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
        let asked = config.descriptors.unwrap_or(PortBuilder::DESCRIPTORS);
        let planned = |(info, (id, direction)): (&PortInfo, (PortId, Direction))| {
            let vlans = router.map_or_else(Vec::new, |router| vlans_at(router, direction, infos.len()));
            let offloads = offloads(info, router.filter(|_| config.offloads), &vlans);
            let filtered = offloads.0.contains(Offloads::RX_VLAN_FILTER);
            PlannedPort {
                id,
                direction,
                queues: queues(info),
                descriptors: info.adjusted_descriptors((asked, asked)),
                told: told(info),
                obstacle: info.rss_obstacle(),
                offloads,
                filtered: if filtered { vlans } else { Vec::new() },
            }
        };
        let mut ports: Vec<PlannedPort> = infos.iter().zip(ids.into_iter().zip(directions)).map(planned).collect();
        let sides = ports.len();
        for (interface, host) in router.into_iter().flat_map(RouterConfig::hosts) {
            let key = format!("[router] interfaces.{interface}.host");
            let id = find_one(eal, &key, host)?;
            if ports.iter().any(|port| port.id == id) {
                return Err(RuntimeError::HostPort { key, name: host.to_owned() });
            }
            let refused = |errno| PortError::Refused { port: host.to_owned(), step: "information", errno };
            ports.push(PlannedPort {
                id,
                direction: Direction::Outbound,
                queues: NonZero::<u16>::MIN,
                descriptors: PortInfo::new(eal, id).map_err(refused)?.adjusted_descriptors((asked, asked)),
                told: false,
                obstacle: None,
                offloads: Default::default(),
                filtered: Vec::new(),
            });
        }
        Ok(Self { ports, sides, steering })
    }

    /// How many of the workers have a queue of each port.
    pub(super) fn queues(&self) -> Vec<usize> {
        self.ports.iter().map(|port| usize::from(port.queues.get())).collect()
    }

    /// Descriptors of each queue of each port, receive and transmit.
    pub(super) fn descriptors(&self) -> Vec<(u16, u16)> {
        self.ports.iter().map(|port| port.descriptors).collect()
    }

    /// Starts the ports. When one fails, those before it are stopped again.
    pub(super) fn start(
        &self,
        eal: &Eal,
        config: &PortsConfig,
        pool: &Mempool,
        workers: NonZero<u16>,
        idle: Idle,
    ) -> Result<Vec<StartedPort>, RuntimeError> {
        let steering = |place: usize| self.steering.as_deref().filter(|_| place < self.sides);
        let start = |(place, port): (usize, &PlannedPort)| {
            let builder = port.builder(eal, config).pool(pool).rx_interrupts(idle == Idle::Sleep);
            let started = port.start(builder, workers, steering(place), config.steering)?;
            if idle == Idle::Sleep && !started.queues.iter().all(|queues| queues.rx.has_interrupt()) {
                let (name, driver) = (started.port.name(), started.port.driver());
                log::info!("{name} ({driver}) has no receive interrupts: idle workers look at it every 0.3 ms");
            }
            Ok(started)
        };
        self.ports.iter().enumerate().map(start).collect()
    }
}

impl PlannedPort {
    /// The port with its queues, without a pool.
    pub(super) fn builder<'eal>(&self, eal: &'eal Eal, config: &PortsConfig) -> PortBuilder<'eal> {
        let (rx, tx) = self.offloads;
        let builder = PortBuilder::new(eal, self.id).queues(self.queues.get()).vlans(self.filtered.iter().copied());
        let builder = builder.rx_offloads(rx).tx_offloads(tx);
        let builder = config.descriptors.into_iter().fold(builder, |builder, count| builder.descriptors(count, count));
        config.mtu.into_iter().fold(builder, PortBuilder::mtu)
    }

    fn start(
        &self,
        builder: PortBuilder<'_>,
        workers: NonZero<u16>,
        steering: Option<&Steering>,
        kind: SteeringKind,
    ) -> Result<StartedPort, RuntimeError> {
        let (port, queues) = builder.start()?;
        if self.offloads != Default::default() {
            let (rx, tx) = self.offloads;
            log::info!("{}: left to the device: {}", port.name(), PortOffloads::new(rx, tx));
        }
        look_at_mac_address(&port);
        let trusted = self.tell(&port, workers, steering, kind)?;
        Ok(StartedPort { port, queues, trusted })
    }

    /// VLANs of a router's interfaces on this one of so many ports.
    pub(super) fn vlans(&self, router: &RouterConfig, ports: usize) -> Vec<u16> {
        vlans_at(router, self.direction, ports)
    }

    /// Tells a started device who owns what, where it shall be told. Returns whether it said that it does
    /// as it was told, and every worker has a queue.
    pub(super) fn tell(
        &self,
        port: &Port,
        workers: NonZero<u16>,
        steering: Option<&Steering>,
        kind: SteeringKind,
    ) -> Result<bool, RuntimeError> {
        let Some(steering) = steering else { return Ok(false) };
        let affinity = steering.affinity();
        // Packets of owners without a queue come to workers that have one.
        let table = steering.owners().map(|owner| owner % self.queues);
        let told = self.told.then(|| port.set_rss(steering.key(self.direction), &table, RssFunctions::FLOWS));
        let refused = match told {
            Some(Ok(())) => {
                log::info!("{}: the device keeps {affinity} together by receive side scaling", port.name());
                return Ok(self.queues == workers);
            }
            Some(Err(error)) if kind == SteeringKind::Rss => return Err(RuntimeError::Rss(error)),
            Some(Err(error)) => Some(error.problem),
            None => None,
        };
        let why = why_by_hand(refused.as_ref(), self.obstacle.as_ref());
        let level = if refused.is_some() { log::Level::Warn } else { log::Level::Info };
        log::log!(level, "{}: workers hand packets over to each other, to keep {affinity} together{why}", port.name());
        Ok(false)
    }
}

/// How many of the workers have a queue of a device.
fn queues_of(info: &PortInfo, config: &PortsConfig, workers: NonZero<u16>, affinity: Affinity) -> NonZero<u16> {
    // All packets of a virtual function that hashes nothing come to its first queue.
    let first_only = info.is_virtual_function() && info.rss_functions == 0;
    let spreads = match config.steering {
        _ if affinity == Affinity::Any => !first_only,
        SteeringKind::Auto => info.rss_obstacle().is_none(),
        SteeringKind::Rss => true,
        SteeringKind::Software => false,
    };
    let most = info.max_rx_queues.min(info.max_tx_queues).min(workers.get());
    // More than the device has is its own error, when it is started.
    NonZero::new(config.queues.unwrap_or(if spreads { most } else { 1 })).unwrap_or(NonZero::<u16>::MIN)
}

/// Why workers sort packets themselves: what a device that was told refused, or cannot.
fn why_by_hand(refused: Option<&RssProblem>, obstacle: Option<&RssProblem>) -> String {
    refused.or(obstacle).map_or_else(String::new, |problem| format!(": the device {problem}"))
}

/// A wire is no use on a port that gets nothing to carry.
fn check_wire(
    forwarding: Option<ForwardingKind>,
    config: &PortsConfig,
    infos: &[PortInfo],
) -> Result<(), RuntimeError> {
    let deaf = infos.iter().find(|info| info.is_virtual_function() && !config.vf_promiscuous);
    match deaf {
        Some(PortInfo { name, driver, .. }) if forwarding == Some(ForwardingKind::Wire) => {
            Err(RuntimeError::WireOnVirtualFunction { port: name.clone(), driver: driver.clone() })
        }
        _ => Ok(()),
    }
}

/// Those of the interfaces on the port that is this end of the chain.
fn vlans_at(router: &RouterConfig, end: Direction, ports: usize) -> Vec<u16> {
    let side = if end == Direction::Outbound { Side::Inside } else { Side::Outside };
    let here = router.interfaces.values().filter(|interface| ports < 2 || interface.side == side);
    here.filter_map(|interface| interface.vlan).collect()
}

/// What is left to a device that can. A physical function lets those VLANs through to a virtual one that
/// it was asked for, and may take their tags off unasked (Linux's igb does), so both are asked for.
fn offloads(info: &PortInfo, router: Option<&RouterConfig>, vlans: &[u16]) -> (Offloads, Offloads) {
    let (rx, tx) = router.map_or_else(Default::default, PortOffloads::wanted);
    let asked = Offloads::RX_VLAN_FILTER | Offloads::RX_VLAN_STRIP;
    let filtered = filters(info, vlans);
    ((if filtered { rx | asked } else { rx }) & info.rx_offloads, tx & info.tx_offloads)
}

/// Whether a device has to be told of these VLANs, to let their frames through.
pub(super) fn filters(info: &PortInfo, vlans: &[u16]) -> bool {
    info.is_virtual_function() && !vlans.is_empty()
}

/// Says so when a virtual function has no address of its own.
pub(super) fn look_at_mac_address(port: &Port) {
    if let Ok(info) = port.info()
        && info.has_invented_mac_address()
    {
        log::warn!(
            "{} ({}): its driver has invented its MAC address, {}: the physical function is down, or has none for it, and \
             frames may not arrive (on the hypervisor: ip link set PF up, ip link set PF vf N mac ..)",
            port.name(),
            port.driver(),
            MacAddress(info.mac_address)
        );
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
        if let Some(why) = why_nothing_is_behind(&environment(), name) {
            return RuntimeError::NothingBehind { key: key.to_owned(), name: name.to_owned(), why };
        }
        RuntimeError::NoSuchPort { key: key.to_owned(), name: name.to_owned(), have }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    /// What a device of the tests says of itself.
    fn info(driver: &str, rx_offloads: Offloads) -> PortInfo {
        PortInfo {
            id: PortId(0),
            name: "0000:01:10.0".to_owned(),
            driver: driver.to_owned(),
            mac_address: [2, 0, 0, 0, 0, 1],
            socket: None,
            kernel_interface: None,
            max_mtu: 1500,
            min_mtu: 68,
            max_rx_queues: 2,
            max_tx_queues: 2,
            rx_descriptors: 32..=4096,
            tx_descriptors: 32..=4096,
            descriptors_align: (128, 128),
            interrupts: dpdk_rs::Interrupts::default(),
            rx_offloads,
            tx_offloads: Offloads::TX_VLAN_INSERT,
            rss_functions: 0,
            rss_table_size: 0,
            rss_key_size: 0,
        }
    }

    #[test]
    fn a_wire_on_a_virtual_function_is_refused_unless_it_is_said_to_see_every_frame() {
        let (vf, other) = (info("net_e1000_igb_vf", Offloads::NONE), info("net_tap", Offloads::NONE));
        let wire = Some(ForwardingKind::Wire);
        for (forwarding, vf_promiscuous, infos, refused) in [
            (wire, false, vec![vf.clone()], true),
            (wire, false, vec![other.clone(), vf.clone()], true),
            (wire, true, vec![vf.clone(), vf.clone()], false),
            (wire, false, vec![other.clone(), other], false),
            (Some(ForwardingKind::Router), false, vec![vf.clone()], false),
            (None, false, vec![vf], false),
        ] {
            let config = PortsConfig { vf_promiscuous, ..PortsConfig::new("a") };
            let found = check_wire(forwarding, &config, &infos).map_err(|error| error.to_string());
            assert_eq!(found.is_err(), refused, "{forwarding:?} {infos:?}");
            let Err(message) = found else { continue };
            for part in ["forwarding = \"wire\"", "0000:01:10.0 (net_e1000_igb_vf)", "vf_promiscuous = true", "router"]
            {
                assert!(message.contains(part), "{part}: {message}");
            }
        }
    }

    #[test]
    fn a_device_that_cannot_spread_packets_gets_one_queue_and_the_log_says_why() {
        let vf = PortInfo { max_rx_queues: 2, max_tx_queues: 2, ..info("net_e1000_igb_vf", Offloads::NONE) };
        let tap = PortInfo { driver: "net_tap".to_owned(), ..vf.clone() };
        let functions = RssFunctions::FLOWS.0;
        let igb = PortInfo {
            rss_key_size: 40,
            rss_table_size: 128,
            rss_functions: functions,
            ..info("net_e1000_igb", Offloads::NONE)
        };
        let hashes_nothing = PortInfo { rss_functions: 0, ..igb.clone() };
        let workers = NonZero::new(4).unwrap();
        let auto = PortsConfig::new("a");
        let software = PortsConfig { steering: SteeringKind::Software, ..auto.clone() };
        let rss = PortsConfig { steering: SteeringKind::Rss, ..auto.clone() };
        let key = "takes an RSS key of 0 bytes, 40 or more are needed";
        for (info, config, affinity, queues, why) in [
            (&vf, &auto, Affinity::Flow, 1, key),
            (&vf, &auto, Affinity::Any, 1, key),
            (&vf, &rss, Affinity::Flow, 2, key),
            // Each queue of a virtual device is fed for itself.
            (&tap, &auto, Affinity::Any, 2, key),
            (&tap, &auto, Affinity::Flow, 1, key),
            (&igb, &auto, Affinity::Flow, 2, ""),
            (&igb, &software, Affinity::Flow, 1, ""),
            (&hashes_nothing, &auto, Affinity::Flow, 1, "cannot hash "),
        ] {
            assert_eq!(queues_of(info, config, workers, affinity).get(), queues, "{info:?} {config:?} {affinity}");
            let said = why_by_hand(None, info.rss_obstacle().as_ref());
            let starts = if why.is_empty() { String::new() } else { format!(": the device {why}") };
            assert!(said.starts_with(&starts) && said.is_empty() == why.is_empty(), "{said:?}");
        }
        let refused = RssProblem::KeyNotKept { byte: 3 };
        assert_eq!(why_by_hand(Some(&refused), None), ": the device took an RSS key and has another, from byte 3 on");
    }

    #[test]
    fn a_virtual_function_is_told_of_the_vlans_on_its_port_and_takes_their_tags_off() {
        let text = "forwarding = 'router'\n[ports]\ninside = 'a'\n\
                    [router.interfaces.a]\nside = 'inside'\nvlan = 10\naddresses = ['192.0.2.1/24']\n\
                    [router.interfaces.b]\nside = 'outside'\nvlan = 20\naddresses = ['198.51.100.1/24']\n\
                    [router.interfaces.c]\nside = 'outside'\naddresses = ['203.0.113.1/24']\n";
        let config: RuntimeConfig = ConfigFile::parse("f.toml", text).unwrap().framework(&[]).unwrap();
        let router = config.router.unwrap();
        let (outbound, inbound) = (Direction::Outbound, Direction::Inbound);
        for (end, ports, expected) in [(outbound, 1, vec![10, 20]), (outbound, 2, vec![10]), (inbound, 2, vec![20])] {
            assert_eq!(vlans_at(&router, end, ports), expected);
        }

        let all = Offloads::RX_VLAN_FILTER | Offloads::RX_VLAN_STRIP | Offloads::RX_IPV4_CHECKSUM;
        let (filter, strip) = (Offloads::RX_VLAN_FILTER, Offloads::RX_VLAN_STRIP);
        let insert = Offloads::TX_VLAN_INSERT;
        let vf = "net_e1000_igb_vf";
        for (driver, offered, wanted, vlans, expected) in [
            // What the device is left with where offloads are off is what it takes to get the frames.
            (vf, all, None, &[10][..], (filter | strip, Offloads::NONE)),
            (vf, all, Some(&router), &[10], (all, insert)),
            (vf, all, None, &[], (Offloads::NONE, Offloads::NONE)),
            (vf, strip, None, &[10], (strip, Offloads::NONE)),
            ("net_e1000_igb", all, None, &[10], (Offloads::NONE, Offloads::NONE)),
            ("net_e1000_igb", all, Some(&router), &[10], (strip | Offloads::RX_IPV4_CHECKSUM, insert)),
        ] {
            assert_eq!(offloads(&info(driver, offered), wanted, vlans), expected, "{driver} {vlans:?}");
        }
    }
}
