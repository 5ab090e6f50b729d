//! The IOMMU, its groups, and what this kernel has to do without it.

use super::machine::Machine;
use super::{Device, Finding, Patient};
use crate::eal_arguments::USER_DRIVERS;
use std::process::{Command, Stdio};

/// Whether vfio-pci works without an IOMMU here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoIommu {
    On,
    /// It is built in and not allowed.
    Off,
    /// The kernel was built without.
    NotBuilt,
    /// Neither the module nor the kernel's configuration is there to say.
    Unknown,
}

const SWITCH: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";

impl NoIommu {
    pub(super) fn of(machine: &Machine) -> Self {
        match machine.text(SWITCH).as_deref() {
            Some("Y" | "1") => return Self::On,
            Some(_) => return Self::Off,
            None => {}
        }
        match kernel_configuration(machine) {
            Some(text) if text.lines().any(|line| line == "CONFIG_VFIO_NOIOMMU=y") => Self::Off,
            Some(_) => Self::NotBuilt,
            None => Self::Unknown,
        }
    }
}

fn release(machine: &Machine) -> String {
    machine.text("proc/sys/kernel/osrelease").unwrap_or_default()
}

/// What the kernel was built with, where it says so.
fn kernel_configuration(machine: &Machine) -> Option<String> {
    machine.text(&format!("boot/config-{}", release(machine))).or_else(|| {
        let packed = machine.path("proc/config.gz");
        let mut command = Command::new("gzip");
        command.arg("-dc").arg(packed).stdin(Stdio::null()).stderr(Stdio::null());
        let output = command.output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    })
}

/// Whether a driver is loaded, built in, or among the kernel's modules.
pub(super) fn has_driver(machine: &Machine, driver: &str) -> bool {
    let file = format!("{driver}.ko").replace('-', "_");
    let lists = ["modules.dep", "modules.builtin"];
    let listed = |list: &&str| {
        let text = machine.text(&format!("lib/modules/{}/{list}", release(machine))).unwrap_or_default();
        let names = text.lines().filter_map(|line| line.split(':').next()?.rsplit('/').next());
        names.map(|name| name.replace('-', "_")).any(|name| name.starts_with(&file))
    };
    machine.exists(&format!("sys/bus/pci/drivers/{driver}")) || lists.iter().any(listed)
}

impl Patient {
    /// Whether an IOMMU stands between devices and memory. A group that vfio's no-IOMMU mode made is
    /// none.
    pub(super) fn iommu_is_on(&self) -> bool {
        self.groups() > 0
    }

    fn groups(&self) -> usize {
        let groups = self.machine.names("sys/kernel/iommu_groups");
        groups.iter().filter(|group| !self.is_no_iommu_group(group)).count()
    }

    fn is_no_iommu_group(&self, group: &str) -> bool {
        self.machine.text(&format!("sys/kernel/iommu_groups/{group}/name")).as_deref() == Some("vfio-noiommu")
    }

    /// What a device can be given to programs by on this machine, the best first.
    pub(super) fn drivers_to_give(&self) -> Vec<&'static str> {
        let vfio = self.iommu_is_on() || NoIommu::of(&self.machine) == NoIommu::On;
        let can = |driver: &&str| has_driver(&self.machine, driver) && (*driver != "vfio-pci" || vfio);
        USER_DRIVERS.into_iter().filter(can).collect()
    }
}

pub(super) fn examine(patient: &Patient) -> Vec<Finding> {
    if !patient.is_about_pci() {
        return Vec::new();
    }
    let mut findings = vec![on_or_off(patient)];
    for device in patient.concerned() {
        findings.extend(group(patient, device));
        if patient.iommu_is_on()
            && device.driver.as_deref().is_some_and(|driver| USER_DRIVERS[1..].contains(&driver))
            && !passes_through(&patient.machine, device)
        {
            let driver = device.driver_name();
            findings.push(
                Finding::fault(
                    "iommu",
                    "iommu-unused",
                    format!("it has the driver {driver}, which knows nothing of the IOMMU"),
                )
                .on(&device.address)
                .why("The IOMMU is on and stops every access of the device to memory: no packet comes or goes.")
                .mend(format!("scripts/bind vfio-pci {}", device.address))
                .mend("the kernel argument iommu=pt, then restart"),
            );
        }
    }
    findings
}

/// Whether the IOMMU lets a device through to all memory, as one that the kernel's drivers trust.
fn passes_through(machine: &Machine, device: &Device) -> bool {
    let kind = device.group.as_ref().and_then(|group| machine.text(&format!("sys/kernel/iommu_groups/{group}/type")));
    match kind {
        Some(kind) => kind == "identity",
        None => machine.kernel_argument("iommu").iter().any(|value| value.split(',').any(|value| value == "pt")),
    }
}

fn on_or_off(patient: &Patient) -> Finding {
    let machine = &patient.machine;
    if patient.iommu_is_on() {
        return Finding::ok("iommu", "iommu", format!("on, {} groups", patient.groups()));
    }
    let tables = machine.names("sys/firmware/acpi/tables");
    let arguments = [("DMAR", "intel_iommu=on iommu=pt"), ("IVRS", "amd_iommu=on iommu=pt"), ("VIOT", "iommu=pt")];
    let there = arguments.iter().find(|(table, _)| tables.iter().any(|name| name == table));
    let named_off = ["intel_iommu", "amd_iommu", "iommu"]
        .into_iter()
        .find(|name| machine.kernel_argument(name).iter().any(|value| value.split(',').any(|value| value == "off")));
    let what = match (there, named_off) {
        (Some(_), Some(name)) => format!("the machine has one, and the kernel argument {name}=off keeps it off"),
        (Some((table, _)), None) => format!("the machine has one (ACPI table {table}), and the kernel has it off"),
        (None, _) if machine.is_virtual() => "this virtual machine has none".to_owned(),
        (None, _) => "none is to be seen: the machine has none, or the firmware's setup has it off".to_owned(),
    };
    let mut finding = Finding::note("iommu", "iommu-absent", what).why(format!(
        "Without one a device reaches all memory, programs need root, and these drivers give devices to programs: {}.",
        choices(machine)
    ));
    finding = match there {
        Some((_, arguments)) => finding.mend(format!("the kernel arguments {arguments}, then restart")),
        None if machine.is_virtual() => {
            finding.mend("give the virtual machine one (libvirt: <iommu model='intel'>; QEMU: -device intel-iommu)")
        }
        None => finding.mend("switch VT-d or AMD-Vi on in the firmware's setup, and intel_iommu=on for the kernel"),
    };
    if NoIommu::of(machine) == NoIommu::Off {
        finding = finding.mend(format!("modprobe vfio enable_unsafe_noiommu_mode=1; echo 1 > /{SWITCH}"));
    }
    finding
}

/// What there is in place of an IOMMU.
fn choices(machine: &Machine) -> String {
    let vfio = match NoIommu::of(machine) {
        _ if !has_driver(machine, "vfio-pci") => "vfio-pci no (this kernel has no such driver)",
        NoIommu::On => "vfio-pci yes (its no-IOMMU mode is on)",
        NoIommu::Off => "vfio-pci if its no-IOMMU mode is allowed",
        NoIommu::NotBuilt => "vfio-pci no (this kernel has no CONFIG_VFIO_NOIOMMU)",
        NoIommu::Unknown => "vfio-pci if the kernel has CONFIG_VFIO_NOIOMMU, which cannot be told here",
    };
    let other = |driver, otherwise| if has_driver(machine, driver) { "yes" } else { otherwise };
    format!(
        "{vfio}; uio_pci_generic {}; igb_uio {}",
        other("uio_pci_generic", "no (this kernel has no such driver)"),
        other("igb_uio", "no (Debian: apt-get install dpdk-kmods-dkms)"),
    )
}

/// Whether all of a device's group can be given to a program.
fn group(patient: &Patient, device: &Device) -> Option<Finding> {
    let group = device.group.as_ref().filter(|group| !patient.is_no_iommu_group(group))?;
    let members = patient.machine.names(&format!("sys/kernel/iommu_groups/{group}/devices"));
    let of_other_driver = |member: &String| {
        let driver = patient.machine.target(&format!("sys/bus/pci/devices/{member}/driver"))?;
        let viable = driver.contains("vfio") || ["pcieport", "pci-stub"].contains(&driver.as_str());
        (!viable && member != &device.address).then(|| (member.clone(), driver))
    };
    let others: Vec<(String, String)> = members.iter().filter_map(of_other_driver).collect();
    if others.is_empty() || device.driver.as_deref().is_some_and(|driver| driver != "vfio-pci") {
        return None;
    }
    let names: Vec<String> = others.iter().map(|(member, driver)| format!("{member} ({driver})")).collect();
    let finding = Finding::fault(
        "iommu",
        "group-not-viable",
        format!("its IOMMU group {group} is not viable: {}", names.join(", ")),
    )
    .on(&device.address)
    .why("The IOMMU cannot tell the devices of a group apart, so vfio gives out all of them or none.")
    .mend("put the card into a slot of its own (in QEMU: behind a pcie-root-port of its own)");
    // Without its NIC's driver a virtual function is none.
    if others.iter().any(|(member, _)| device.nic.as_ref() == Some(member)) {
        return Some(finding);
    }
    let addresses: Vec<&str> = others.iter().map(|(member, _)| member.as_str()).collect();
    Some(finding.mend(format!("scripts/bind vfio-pci {}", addresses.join(" "))))
}
