//! What this user may do, where a device and DPDK need it.

use super::{Device, Finding, Patient};
use crate::eal_arguments::USER_DRIVERS;
use std::os::unix::fs::MetadataExt as _;

pub(super) fn examine(patient: &Patient) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in patient.concerned() {
        let is_vfio = device.driver.as_deref() == USER_DRIVERS.first().copied();
        if is_vfio && patient.iommu_is_on() {
            findings.extend(group_file(patient, device));
        } else if device.is_given() {
            findings.extend(physical_addresses(patient, device));
        }
    }
    let is_vfio = |device: &&Device| device.driver.as_deref() == USER_DRIVERS.first().copied();
    let device = patient.concerned().find(is_vfio).filter(|_| patient.iommu_is_on());
    findings.extend(device.map(|device| locked_memory(patient, device)));
    findings
}

/// How much may be pinned, beside what is there to be pinned.
fn locked_memory(patient: &Patient, device: &Device) -> Finding {
    const CAP_IPC_LOCK: u32 = 14;
    let limit = patient.machine.text("proc/self/limits").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    });
    let Some(limit) = limit.filter(|_| !patient.machine.is_capable_of(CAP_IPC_LOCK)) else {
        return Finding::ok("memlock", "memlock", "no limit for this user");
    };
    let need = patient.request.need.unwrap_or_else(|| super::memory::reserved(patient));
    let what = format!("this user may lock {} MiB of memory (RLIMIT_MEMLOCK)", limit >> 20);
    if limit >= need.max(1) {
        return Finding::ok("memlock", "memlock", what);
    }
    Finding::fault("memlock", "memlock-too-low", what)
        .on(&device.address)
        .why("vfio pins all memory that a device can reach, hugepages too; mapping more than that fails.")
        .mend("ulimit -l unlimited    # in the shell; LimitMEMLOCK=infinity in a systemd unit")
        .mend("setcap cap_ipc_lock+ep PROGRAM")
}

/// Whether this user may open the device's group.
fn group_file(patient: &Patient, device: &Device) -> Option<Finding> {
    const CAP_DAC_OVERRIDE: u32 = 1;
    let machine = &patient.machine;
    let path = format!("/dev/vfio/{}", device.group.as_ref()?);
    let file = machine.path(&path).metadata().ok()?;
    let numbers = |key: &str| -> Vec<u32> {
        let text = machine.own_status(key).unwrap_or_default();
        text.split_whitespace().filter_map(|number| number.parse().ok()).collect()
    };
    // Real, effective, saved and file system's: the last is what counts (proc(5)).
    let (user, mut groups) = (numbers("Uid").last().copied(), numbers("Groups"));
    groups.extend(numbers("Gid").last());
    let shift = match () {
        () if user == Some(file.uid()) => 6,
        () if groups.contains(&file.gid()) => 3,
        () => 0,
    };
    const READ_AND_WRITE: u32 = 0o6;
    if machine.is_capable_of(CAP_DAC_OVERRIDE) || file.mode() >> shift & READ_AND_WRITE == READ_AND_WRITE {
        return None;
    }
    Some(
        Finding::fault("privilege", "group-forbidden", format!("this user may not open {path}"))
            .on(&device.address)
            .why(
                "A program has a device by the file of its IOMMU group, which is root's until it is given to somebody.",
            )
            .mend(format!("chown USER {path}    # as root")),
    )
}

/// Without an IOMMU a device is told where memory really is.
fn physical_addresses(patient: &Patient, device: &Device) -> Option<Finding> {
    const CAP_SYS_ADMIN: u32 = 21;
    (!patient.machine.is_capable_of(CAP_SYS_ADMIN)).then(|| {
        let what = "this user may not see physical addresses (CAP_SYS_ADMIN)";
        Finding::fault("privilege", "physical-addresses", what)
            .on(&device.address)
            .why("Without an IOMMU a device is told physical addresses, and only root may know them.")
            .mend("run the program as root")
    })
}
