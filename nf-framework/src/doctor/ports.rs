//! The devices themselves, looked at by DPDK: link, MAC, MTU, offloads, queues, RSS.

use super::Finding;
use super::links::random_mac;
use crate::eal_arguments::pci_address;
use dpdk_rs::{
    Eal, Mempool, MempoolConfig, Offloads, Port, PortBuilder, PortError, PortId, PortInfo, RssFunctions, RssKey,
    RssProblem, RssTable, RssTableSize,
};
use std::num::NonZero;
use std::time::Duration;

/// Starts DPDK with these arguments, and looks at each port that it has then.
pub(super) fn examine(words: &[String]) -> Vec<Finding> {
    let eal = match Eal::init(std::iter::once("nf-doctor".to_owned()).chain(words.iter().cloned())) {
        Ok((eal, _)) => eal,
        Err(error) => {
            return vec![
                Finding::fault("eal", "eal-not-started", error.to_string())
                    .why("This is what DPDK said with these arguments; a program would hear the same."),
            ];
        }
    };
    let ports: Vec<PortId> = eal.ports().collect();
    if ports.is_empty() {
        return vec![
            Finding::fault("eal", "eal-without-ports", "DPDK has started, and has no port")
                .why("No device was named, or none of those that DPDK may take is one that it has a driver for.")
                .mend("-a 0000:01:10.0    # a device that scripts/bind --status shows")
                .mend("--vdev net_tap0    # a virtual one"),
        ];
    }
    ports.into_iter().flat_map(|port| examine_port(&eal, port)).collect()
}

fn examine_port(eal: &Eal, id: PortId) -> Vec<Finding> {
    let gone = |error: String| vec![Finding::fault("port", "port-not-started", error)];
    let info = match PortInfo::new(eal, id) {
        Ok(info) => info,
        Err(errno) => return gone(format!("{id}: {errno}")),
    };
    // Those of virtual devices are theirs to choose.
    let mut findings: Vec<Finding> = pci_address(&info.name).and_then(|_| mac(&info)).into_iter().collect();
    let workers = eal.lcores().len();
    findings.extend(few_queues(workers, &info));
    let started = start(eal, &info);
    let (port, queues) = match started {
        Ok(started) => started,
        Err(error) => {
            findings.extend(gone(error).into_iter().map(|finding| {
                finding.on(&info.name).why("A program that uses this port would end with the same sentence.")
            }));
            return findings;
        }
    };
    findings.extend(link(&port, &info));
    findings.extend(mtu(&port, &info));
    findings.push(rss(workers, &port, &info, u16::try_from(queues.len()).unwrap_or(u16::MAX)));
    findings.push(Finding::ok("port", "port", described(&port, &info)).on(&info.name));
    if let Err(error) = port.stop(queues) {
        findings.push(Finding::warning("port", "port-not-stopped", error.to_string()).on(&info.name));
    }
    findings
}

/// With two queues if it has them, so that RSS is at work.
fn start(eal: &Eal, info: &PortInfo) -> Result<(Port, Vec<dpdk_rs::QueuePair>), String> {
    const DESCRIPTORS: u16 = 512;
    let queues = info.max_rx_queues.min(info.max_tx_queues).clamp(1, 2);
    let rx =
        DESCRIPTORS.clamp(*info.rx_descriptors.start(), (*info.rx_descriptors.end()).max(*info.rx_descriptors.start()));
    let tx =
        DESCRIPTORS.clamp(*info.tx_descriptors.start(), (*info.tx_descriptors.end()).max(*info.tx_descriptors.start()));
    let size = (u32::from(rx) + u32::from(tx)) * u32::from(queues) + 1023;
    let config = MempoolConfig { size, ..MempoolConfig::default() };
    let pool = Mempool::new(eal, &format!("doctor-{}", info.id.0), config).map_err(|error| error.to_string())?;
    let builder = PortBuilder::new(eal, info.id).queues(queues).descriptors(rx, tx).pool(&pool);
    builder.start().map_err(|error: PortError| error.to_string())
}

/// A MAC as people write it.
fn mac_text(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

/// Drivers of virtual functions that say so when they make a MAC up.
const DRIVERS_THAT_TELL: [&str; 3] = ["net_e1000_igb_vf", "net_ixgbe_vf", "net_txgbe_vf"];

fn mac(info: &PortInfo) -> Option<Finding> {
    let mac = mac_text(info.mac_address);
    if info.mac_address == [0; 6] || info.mac_address[0] & 1 != 0 {
        return Some(
            Finding::fault("vf", "mac-none", format!("its MAC is {mac}, which is none of a station"))
                .on(&info.name)
                .why("Nobody can send to it. A virtual function gets its MAC from the NIC on the hypervisor.")
                .mend("ip link set dev PF vf N mac 02:00:00:00:00:10    # on the hypervisor"),
        );
    }
    if info.has_invented_mac_address() {
        return Some(random_mac(&info.name, &format!("its MAC {mac} is made up by DPDK's driver")));
    }
    let is_local = info.mac_address[0] & 2 != 0;
    if !info.is_virtual_function() || !is_local || DRIVERS_THAT_TELL.contains(&info.driver.as_str()) {
        return None;
    }
    Some(
        Finding::note("vf", "mac-local", format!("its MAC {mac} was set by the hypervisor, or made up by the driver"))
            .on(&info.name)
            .why("It cannot be told from here. One that is made up is another one after the next start.")
            .mend("ip link show dev PF    # on the hypervisor: does it name this MAC?"),
    )
}

/// Whether there is a queue for each worker.
fn few_queues(workers: usize, info: &PortInfo) -> Option<Finding> {
    let queues = info.max_rx_queues.min(info.max_tx_queues);
    if workers <= usize::from(queues) {
        return None;
    }
    Some(
        Finding::note("port", "queues-few", format!("it has {queues} queue(s), for {workers} workers"))
            .on(&info.name)
            .why("Workers without a queue get their packets handed over by others: that works, and costs time.")
            .mend(format!("-l with {queues} CPU(s)"))
            .mend("a device, or a setting of it on the hypervisor, with more queues"),
    )
}

/// How long a link may take to come up after the start, in steps of the pause.
const PATIENCE: u32 = 50;
const PAUSE: Duration = Duration::from_millis(100);

fn link(port: &Port, info: &PortInfo) -> Option<Finding> {
    let is_up = |attempt| {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        port.link().is_ok_and(|link| link.up)
    };
    if (0..PATIENCE).any(is_up) {
        return None;
    }
    let finding = Finding::warning("link", "link-down", "the link is down")
        .on(&info.name)
        .why("No packet comes or goes while it is. A virtual function has the link of its NIC.");
    Some(match info.kernel_interface {
        Some(_) => finding.mend(format!("ip link set dev INTERFACE up    # the one behind {}", info.name)),
        None => finding
            .mend("ip link set dev PF up; ip link set dev PF vf N state auto    # on the hypervisor")
            .mend("look at the cable and the switch"),
    })
}

/// An MTU that an ordinary Ethernet packet does not fit.
fn mtu(port: &Port, info: &PortInfo) -> Option<Finding> {
    let mtu = port.mtu().ok().filter(|mtu| *mtu < 1500)?;
    Some(
        Finding::warning("link", "mtu-small", format!("its MTU is {mtu}"))
            .on(&info.name)
            .why("Ordinary packets have up to 1500 bytes; larger ones than the MTU are lost.")
            .mend("mtu = 1500 under [ports]")
            .mend("ip link set dev PF mtu 1500    # on the hypervisor: a virtual function has no more than its NIC"),
    )
}

/// The honesty test: settings and their opposite, each read back.
fn rss(workers: usize, port: &Port, info: &PortInfo, queues: u16) -> Finding {
    // One worker has all packets anyway.
    let none = |what: String| match workers {
        1 => Finding::ok("rss", "rss-none", what + "; one worker needs none").on(&info.name),
        _ => Finding::note("rss", "rss-none", what).on(&info.name).why(
            "Each packet's owner among the workers is found by the program, and handed over if it came to another one: \
             that works, and costs time.",
        ),
    };
    if queues < 2 {
        return none("it has one queue, so no RSS".to_owned());
    }
    let Ok(size) = RssTableSize::new(info.rss_table_size) else {
        return none(format!("it cannot be told where packets go (RSS table of {} entries)", info.rss_table_size));
    };
    let table = RssTable::balanced(size, NonZero::new(queues).unwrap_or(NonZero::<u16>::MIN), 1);
    let result = port.set_rss(&RssKey::symmetric(), &table, RssFunctions::FLOWS);
    let error = match result {
        Ok(()) => {
            let what =
                format!("does as it is told: key of {} bytes, table of {}", info.rss_key_size, info.rss_table_size);
            return Finding::ok("rss", "rss", what).on(&info.name);
        }
        Err(error) => error,
    };
    match error.problem {
        RssProblem::KeyNotKept { .. } | RssProblem::FunctionsNotKept { .. } | RssProblem::TableNotKept { .. } => {
            Finding::warning("rss", "rss-dishonest", format!("it {}", error.problem)).on(&info.name).why(
                "It says that it can be told where packets go, and does otherwise. The programs do not believe it, but \
                 find each packet's owner themselves; do not force it by steering = \"rss\".",
            )
        }
        problem => none(format!("it {problem}")),
    }
}

/// What a device is and can do, in a line.
fn described(port: &Port, info: &PortInfo) -> String {
    let link = port.link().map_or_else(|_| "unknown".to_owned(), |link| link.to_string());
    let mtu = port.mtu().map_or_else(|_| "unknown".to_owned(), |mtu| mtu.to_string());
    let offloads = [
        (info.rx_offloads, Offloads::RX_IPV4_CHECKSUM, "checks IPv4 headers"),
        (info.rx_offloads, Offloads::RX_VLAN_STRIP, "takes VLAN tags off"),
        (info.tx_offloads, Offloads::TX_VLAN_INSERT, "puts them on"),
        (info.tx_offloads, Offloads::TX_IPV4_CHECKSUM, "sums IPv4 headers"),
        (info.tx_offloads, Offloads(Offloads::TX_UDP_CHECKSUM.0 | Offloads::TX_TCP_CHECKSUM.0), "sums UDP and TCP"),
    ];
    let can: Vec<&str> =
        offloads.into_iter().filter(|(has, all, _)| has.contains(*all)).map(|(_, _, text)| text).collect();
    format!(
        "{}, MAC {}, link {link}, MTU {mtu} ({} to {}), {} queues to receive and {} to send by, {}",
        info.driver,
        mac_text(info.mac_address),
        info.min_mtu,
        info.max_mtu,
        info.max_rx_queues,
        info.max_tx_queues,
        if can.is_empty() { "no offloads".to_owned() } else { can.join(", ") },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_is_doubted_where_nobody_says_that_it_was_given() {
        for (driver, mac_address, expected) in [
            ("net_e1000_igb_vf", [2, 0, 0, 0, 0, 0x10], None),
            ("net_iavf", [2, 0, 0, 0, 0, 0x10], Some("mac-local")),
            ("net_iavf", [0x52, 0x54, 0, 0, 0, 1], Some("mac-local")),
            ("net_iavf", [0, 0x1b, 0x21, 0, 0, 1], None),
            ("net_ixgbe", [2, 0, 0, 0, 0, 0x10], None),
            ("net_iavf", [0; 6], Some("mac-none")),
            ("net_ixgbe", [1, 0, 0x5e, 0, 0, 1], Some("mac-none")),
        ] {
            let info = info(driver, mac_address);
            assert_eq!(mac(&info).map(|finding| finding.id), expected, "{driver} {}", mac_text(mac_address));
        }
    }

    #[test]
    fn fewer_queues_than_workers_are_said() {
        let info = info("net_iavf", [2; 6]);
        for (workers, expected) in [(1, false), (4, false), (5, true)] {
            assert_eq!(few_queues(workers, &info).is_some(), expected, "{workers}");
        }
    }

    /// A device with four queues.
    fn info(driver: &str, mac_address: [u8; 6]) -> PortInfo {
        PortInfo {
            id: PortId(0),
            name: "0000:01:10.0".to_owned(),
            driver: driver.to_owned(),
            mac_address,
            socket: None,
            kernel_interface: None,
            max_mtu: 1500,
            min_mtu: 68,
            max_rx_queues: 4,
            max_tx_queues: 8,
            rx_descriptors: 32..=4096,
            tx_descriptors: 32..=4096,
            descriptors_align: (8, 8),
            interrupts: dpdk_rs::Interrupts::default(),
            rx_offloads: Offloads::NONE,
            tx_offloads: Offloads::NONE,
            rss_functions: 0,
            rss_table_size: 0,
            rss_key_size: 0,
        }
    }
}
