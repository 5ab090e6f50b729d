//! The network devices on the PCI bus.

use super::Patient;
use super::machine::Machine;
use crate::eal_arguments::{BIFURCATED_DRIVERS, USER_DRIVERS};

/// One of them, or any other device that the arguments name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Device {
    pub(super) address: String,
    /// PCI vendor and device.
    pub(super) id: (u16, u16),
    pub(super) driver: Option<String>,
    /// The number of its IOMMU group, also of one that stands for no IOMMU at all.
    pub(super) group: Option<String>,
    /// NUMA node, where the machine has several.
    pub(super) node: Option<u32>,
    /// Its interfaces of the kernel's.
    pub(super) interfaces: Vec<String>,
    /// The PCI address of the NIC whose virtual function it is, where that NIC is on this machine.
    pub(super) nic: Option<String>,
}

impl Device {
    /// All network devices, and those that are asked for.
    pub(super) fn all(machine: &Machine, wanted: &[String]) -> Vec<Self> {
        let is_network = |address: &String| {
            let class = machine.text(&format!("sys/bus/pci/devices/{address}/class"));
            class.is_some_and(|class| class.starts_with("0x02")) || wanted.contains(address)
        };
        let addresses = machine.names("sys/bus/pci/devices").into_iter().filter(is_network);
        addresses.map(|address| Self::read(machine, address)).collect()
    }

    fn read(machine: &Machine, address: String) -> Self {
        let at = format!("sys/bus/pci/devices/{address}");
        let hex = |file: &str| {
            let text = machine.text(&format!("{at}/{file}")).unwrap_or_default();
            u16::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or_default()
        };
        let mut interfaces = machine.names(&format!("{at}/net"));
        for below in machine.names(&at).iter().filter(|name| name.starts_with("virtio")) {
            interfaces.extend(machine.names(&format!("{at}/{below}/net")));
        }
        let several = machine.names("sys/devices/system/node").iter().filter(|name| is_node(name)).count() > 1;
        Self {
            id: (hex("vendor"), hex("device")),
            driver: machine.target(&format!("{at}/driver")),
            group: machine.target(&format!("{at}/iommu_group")),
            node: machine.number(&format!("{at}/numa_node")).filter(|_| several),
            interfaces,
            nic: machine.target(&format!("{at}/physfn")),
            address,
        }
    }

    /// Whether its driver hands it to a program as a whole.
    pub(super) fn is_given(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| USER_DRIVERS.contains(&driver))
    }

    /// Whether its driver lets a program work beside the kernel.
    pub(super) fn is_shared(&self) -> bool {
        self.driver.as_deref().is_some_and(|driver| BIFURCATED_DRIVERS.contains(&driver))
    }

    pub(super) fn driver_name(&self) -> &str {
        self.driver.as_deref().unwrap_or("none")
    }

    /// Where its files are.
    pub(super) fn path(&self) -> String {
        format!("sys/bus/pci/devices/{}", self.address)
    }
}

fn is_node(name: &str) -> bool {
    name.strip_prefix("node").is_some_and(|number| number.parse::<u32>().is_ok())
}

impl Patient {
    /// Whether the arguments ask for this device.
    pub(super) fn wants(&self, device: &Device) -> bool {
        self.request.devices.contains(&device.address)
    }

    /// Whether devices on the PCI bus matter at all.
    pub(super) fn is_about_pci(&self) -> bool {
        !self.request.is_virtual || !self.request.devices.is_empty()
    }

    /// The devices that it is about: those that are asked for; if none is, those that were given to
    /// programs.
    pub(super) fn concerned(&self) -> impl Iterator<Item = &Device> {
        let any = self.request.devices.is_empty() && !self.request.is_virtual;
        self.devices.iter().filter(move |device| if any { device.is_given() } else { self.wants(device) })
    }

    /// The interfaces that default routes go by, and those that they stand on (the main table).
    pub(super) fn carriers(&self) -> Vec<String> {
        let text = |file| self.machine.text(file).unwrap_or_default();
        let (v4, v6) = (text("proc/net/route"), text("proc/net/ipv6_route"));
        let of_v4 = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")).then(|| fields[0].to_owned())
        };
        let of_v6 = |line: &str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let is_default = fields.first()?.chars().all(|c| c == '0') && fields.get(1) == Some(&"00");
            // One on lo rejects.
            fields.get(9).filter(|name| is_default && **name != "lo").map(|name| (*name).to_owned())
        };
        let mut carriers: Vec<String> = v4.lines().filter_map(of_v4).chain(v6.lines().filter_map(of_v6)).collect();
        let mut at = 0;
        while let Some(interface) = carriers.get(at) {
            let names = self.machine.names(&format!("sys/class/net/{interface}"));
            let lower = names.iter().filter_map(|name| name.strip_prefix("lower_"));
            let new: Vec<String> =
                lower.filter(|name| !carriers.iter().any(|c| c == name)).map(str::to_owned).collect();
            carriers.extend(new);
            at += 1;
        }
        carriers
    }
}
