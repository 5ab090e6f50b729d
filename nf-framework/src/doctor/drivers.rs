//! Which driver each device has, and whether DPDK has one for it.

use super::{Device, Finding, Patient};
use serde::Deserialize;

/// A driver of DPDK's, as its library says of itself (rte_dev.h, RTE_PMD_EXPORT_NAME).
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub(super) struct PollModeDriver {
    pub(super) name: String,
    /// The kernel's modules that it works with: `* igb_uio | vfio-pci`.
    #[serde(default)]
    kmod: String,
    /// Vendor, device, and the same of the subsystem.
    #[serde(default)]
    pci_ids: Vec<Vec<u32>>,
}

impl PollModeDriver {
    fn is_for(&self, (vendor, device): (u16, u16)) -> bool {
        let is = |id: u32, of: u16| id == 0xffff || id == u32::from(of);
        self.pci_ids.iter().any(|id| is(id[0], vendor) && id.get(1).is_some_and(|id| is(*id, device)))
    }

    fn works_beside_the_kernel(&self) -> bool {
        self.kmod.contains("ib_uverbs")
    }

    /// Drivers of virtual functions say so in their names.
    fn is_of_virtual_functions(&self) -> bool {
        self.name.ends_with("vf")
    }
}

/// The drivers that a DPDK program like this one has: linked in, or loaded when it starts.
#[derive(Debug)]
pub(super) struct PollModeDrivers {
    drivers: Vec<PollModeDriver>,
    /// Where they were looked for.
    place: String,
}

impl PollModeDrivers {
    pub(super) fn of(patient: &Patient) -> Option<Self> {
        let machine = &patient.machine;
        let maps = machine.text("proc/self/maps").unwrap_or_default();
        let eal = maps
            .lines()
            .filter_map(|line| line.split_whitespace().nth(5))
            .find(|path| path.rsplit('/').next().is_some_and(|name| name.starts_with("librte_eal.so")));
        let (mut files, place) = match eal {
            Some(eal) => {
                let plugins = plugin_directory(&std::fs::read(machine.path(eal)).ok()?)?;
                let names = machine.names(&plugins);
                // The names that the EAL loads (eal_common_options.c).
                let abi = plugins.rsplit('-').next().unwrap_or_default();
                let is_loaded = |name: &&String| name.ends_with(".so") || name.ends_with(&format!(".so.{abi}"));
                (names.iter().filter(is_loaded).map(|name| format!("{plugins}/{name}")).collect(), plugins)
            }
            None => (vec!["proc/self/exe".to_owned()], "this program".to_owned()),
        };
        for plugin in &patient.request.plugins {
            let names = machine.names(plugin);
            files.extend(names.iter().map(|name| format!("{plugin}/{name}")));
            files.push(plugin.clone());
        }
        let mut seen = Vec::new();
        let mut drivers = Vec::new();
        for file in files {
            let Ok(path) = std::fs::canonicalize(machine.path(&file)) else { continue };
            if !seen.contains(&path) {
                drivers.extend(std::fs::read(&path).iter().flat_map(|bytes| exported(bytes)));
                seen.push(path);
            }
        }
        (!drivers.is_empty()).then_some(Self { drivers, place })
    }

    pub(super) fn of_device(&self, device: &Device) -> Option<&PollModeDriver> {
        self.drivers.iter().find(|driver| driver.is_for(device.id))
    }

    pub(super) fn is_virtual_function(&self, device: &Device) -> bool {
        device.nic.is_some() || self.of_device(device).is_some_and(PollModeDriver::is_of_virtual_functions)
    }
}

/// Where the EAL's library looks for drivers: `RTE_EAL_PMD_PATH`, as it was built.
fn plugin_directory(library: &[u8]) -> Option<String> {
    let at = find(library, b"/dpdk/pmds-")?;
    // It may stand in a text of several settings.
    let start = library[..at].iter().rposition(|byte| [0, b'='].contains(byte))? + 1;
    let end = at + library[at..].iter().position(|byte| *byte == 0)?;
    String::from_utf8(library[start..end].to_vec()).ok()
}

/// What a library says of the drivers in it.
fn exported(bytes: &[u8]) -> Vec<PollModeDriver> {
    const MARK: &[u8] = b"PMD_INFO_STRING= ";
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some(at) = find(rest, MARK) {
        rest = &rest[at + MARK.len()..];
        let end = rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len());
        found.extend(serde_json::from_slice::<PollModeDriver>(&rest[..end]));
        rest = &rest[end..];
    }
    found
}

fn find(bytes: &[u8], mark: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == mark[0]) {
        if bytes[from + at..].starts_with(mark) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

pub(super) fn examine(patient: &Patient) -> Vec<Finding> {
    let mut findings = Vec::new();
    for address in &patient.request.devices {
        if !patient.devices.iter().any(|device| device.address == *address) {
            let all: Vec<&str> = patient.devices.iter().map(|device| device.address.as_str()).collect();
            let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
            findings.push(
                Finding::fault("device", "device-absent", "there is no such PCI device")
                    .on(address)
                    .why(format!("The network devices of this machine are: {all}."))
                    .mend("scripts/bind --status"),
            );
        }
    }
    let before = findings.len();
    for device in patient.concerned() {
        findings.extend(driver(patient, device).or_else(|| poll_mode_driver(patient, device)));
        findings.extend(interrupts(patient, device));
    }
    if patient.concerned().next().is_none() && before == 0 && patient.is_about_pci() {
        findings.push(none_given(patient));
    }
    findings
}

/// What is wrong with the driver that the kernel has for a device.
fn driver(patient: &Patient, device: &Device) -> Option<Finding> {
    let wanted = patient.wants(device);
    let dpdk = patient.drivers.as_ref().and_then(|drivers| drivers.of_device(device));
    let beside = dpdk.is_some_and(PollModeDriver::works_beside_the_kernel);
    if beside && device.is_given() {
        let new = if wanted { Finding::fault } else { Finding::note };
        let driver = device.driver_name();
        return Some(
            new("driver", "driver-taken-away", format!("it has the driver {driver} in place of the kernel's own"))
                .on(&device.address)
                .why("DPDK works with this device beside the kernel's driver, and not without. (For a VM it is right.)")
                .mend(format!("scripts/bind --kernel {}", device.address)),
        );
    }
    if device.is_shared() {
        let modules =
            if device.driver.as_deref() == Some("mana") { ["mana_ib", "ib_uverbs"] } else { ["mlx5_ib", "ib_uverbs"] };
        let modules = if device.driver.as_deref() == Some("mlx4_core") { ["mlx4_ib", "ib_uverbs"] } else { modules };
        let missing = modules.into_iter().find(|module| !patient.machine.exists(&format!("sys/module/{module}")))?;
        return Some(
            Finding::fault("driver", "rdma-absent", format!("the kernel's module {missing} is not loaded"))
                .on(&device.address)
                .why("DPDK reaches this device by the kernel's RDMA interface (libibverbs).")
                .mend(format!("modprobe {missing}")),
        );
    }
    if device.is_given() {
        return iommu_driver(patient, device);
    }
    let carrier = patient.carriers().into_iter().find(|name| device.interfaces.contains(name));
    let (id, what) = match &device.driver {
        None => ("driver-none", "it has no driver".to_owned()),
        Some(driver) => ("driver-kernel", format!("the kernel has it, by the driver {driver}")),
    };
    let finding = Finding::fault("driver", id, what).on(&device.address);
    if beside {
        return Some(
            finding
                .why("DPDK works with this device beside the kernel's own driver, which is not there.")
                .mend(format!("scripts/bind --kernel {}", device.address)),
        );
    }
    if let Some(carrier) = carrier {
        return Some(
            finding
                .why(format!("DPDK needs a device for itself, and the default route goes by {carrier}: without it the machine is out of reach."))
                .mend("give DPDK another device (scripts/bind --status)")
                .mend(format!("--vdev net_af_packet0,iface={carrier}    # shares it with the kernel; slower")),
        );
    }
    let finding = finding.why("DPDK needs a driver that hands the device to a program.");
    let choices = patient.drivers_to_give();
    let bind = |driver: &&str| format!("scripts/bind {driver} {}", device.address);
    Some(match choices.first() {
        Some(best) => finding.mend(bind(best)),
        None => {
            finding.mend("none of vfio-pci, uio_pci_generic and igb_uio works on this kernel: see the IOMMU's note")
        }
    })
}

/// Whether what vfio-pci speaks to the IOMMU by is there.
fn iommu_driver(patient: &Patient, device: &Device) -> Option<Finding> {
    const MODULE: &str = "vfio_iommu_type1";
    let is_there = patient.machine.exists(&format!("sys/module/{MODULE}"));
    if is_there || device.driver_name() != "vfio-pci" || !patient.iommu_is_on() {
        return None;
    }
    Some(
        Finding::fault("driver", "vfio-type1-absent", format!("the kernel's module {MODULE} is not loaded"))
            .on(&device.address)
            .why("vfio-pci reaches the IOMMU by it; DPDK says that there are no supported IOMMU extensions.")
            .mend(format!("modprobe {MODULE}")),
    )
}

/// Whether a program would hear of what happens to its virtual function.
fn interrupts(patient: &Patient, device: &Device) -> Option<Finding> {
    let is_function = patient.drivers.as_ref().is_some_and(|drivers| drivers.is_virtual_function(device));
    if !is_function || device.driver_name() != "uio_pci_generic" {
        return None;
    }
    Some(
        Finding::note("driver", "interrupts-absent", "uio_pci_generic brings no interrupts of a virtual function")
            .on(&device.address)
            .why("Packets go all the same. But the program does not hear of it when the NIC is reset or goes away.")
            .mend("vfio-pci, or igb_uio"),
    )
}

fn poll_mode_driver(patient: &Patient, device: &Device) -> Option<Finding> {
    let (vendor, id) = device.id;
    let drivers = patient.drivers.as_ref()?;
    let Some(driver) = drivers.of_device(device) else {
        let new = if patient.wants(device) { Finding::fault } else { Finding::warning };
        return Some(
            new("driver", "poll-mode-driver-absent", format!("DPDK has no driver for {vendor:04x}:{id:04x}"))
                .on(&device.address)
                .why(format!("None of the {} in {} is for it.", drivers.drivers.len(), drivers.place))
                .mend("apt-get install dpdk-dev    # all drivers; or a newer DPDK")
                .mend("build with the driver's name in DPDK_PMDS, if the program is linked statically"),
        );
    };
    let part = |name: &str, value: &Option<String>| {
        value.as_ref().map(|value| format!(", {name} {value}")).unwrap_or_default()
    };
    let what = format!(
        "{} by {}{}{}",
        driver.name,
        device.driver_name(),
        part("IOMMU group", &device.group),
        part("NUMA node", &device.node.map(|node| node.to_string())),
    );
    Some(Finding::ok("device", "device", what).on(&device.address))
}

/// There is no device for DPDK, and nobody asked for one.
fn none_given(patient: &Patient) -> Finding {
    let carriers = patient.carriers();
    let is_taken = |device: &Device| device.interfaces.iter().any(|name| carriers.contains(name));
    let describe = |device: &Device| {
        let interfaces = device.interfaces.join(" ");
        let for_dpdk = patient.drivers.as_ref().map(|drivers| match drivers.of_device(device) {
            Some(driver) => format!(", DPDK: {}", driver.name),
            None => ", DPDK: none".to_owned(),
        });
        format!(
            "{}{}{interfaces}{} (kernel: {}{})",
            device.address,
            if interfaces.is_empty() { "" } else { " " },
            if is_taken(device) { ", default route," } else { "" },
            device.driver_name(),
            for_dpdk.unwrap_or_default(),
        )
    };
    let all: Vec<String> = patient.devices.iter().map(describe).collect();
    let shared = patient.devices.iter().filter(|device| device.is_shared());
    // One that nobody uses rather than one that the kernel has; and no NIC of which there are virtual functions.
    let is_divided = |nic: &Device| patient.devices.iter().any(|device| device.nic.as_ref() == Some(&nic.address));
    let can_go = |device: &&Device| !device.is_shared() && !is_taken(device) && !is_divided(device);
    let free = patient.devices.iter().filter(can_go).min_by_key(|device| device.driver.is_some());
    let finding = Finding::note("device", "device-none", "no network device is given to programs");
    if all.is_empty() {
        return finding
            .why("There is no network device on the PCI bus.")
            .mend("--vdev net_tap0    # and other virtual devices work without");
    }
    let mut finding = finding.why(format!("There is: {}.", all.join("; ")));
    let driver = patient.drivers_to_give().first().copied();
    if let (Some(driver), Some(device)) = (driver, free) {
        finding = finding.mend(format!("scripts/bind {driver} {}", device.address));
    }
    for device in shared {
        finding = finding.mend(format!("-a {}    # works beside the kernel's driver", device.address));
    }
    if finding.mend.is_empty() {
        finding = finding.mend("--vdev net_tap0    # and other virtual devices work without");
    }
    finding
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_found_in_libraries() {
        let library = b"\x7fELF PMD_INFO PMD_INFO_STRING= {\"name\": \"net_ixgbe_vf\", \"kmod\": \"* igb_uio | vfio-pci\", \
            \"pci_ids\": [[32902, 4333, 65535, 65535]]}\0.. PMD_INFO_STRING= {\"name\": \"net_tap\", \"params\": \"iface=\"}\0 \
            PMD_INFO_STRING= broken\0";
        let found = exported(library);
        assert_eq!(found.iter().map(|driver| driver.name.as_str()).collect::<Vec<_>>(), ["net_ixgbe_vf", "net_tap"]);
        assert!(found[0].is_for((0x8086, 0x10ed)) && !found[0].is_for((0x8086, 0x10ee)) && !found[1].is_for((0, 0)));
        assert!(found[0].is_of_virtual_functions() && !found[0].works_beside_the_kernel());

        let eal = b"\x7fELF\0PATH=/usr/lib/x/dpdk/pmds-23.0\0%s/librte\0";
        assert_eq!(plugin_directory(eal).as_deref(), Some("/usr/lib/x/dpdk/pmds-23.0"));
        assert_eq!(plugin_directory(b"\x7fELF\0nothing\0"), None);
    }
}
