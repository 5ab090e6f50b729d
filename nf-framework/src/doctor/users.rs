//! Who uses the devices and the names already.

use super::{Device, Finding, Patient};

/// A process and a file that it has open.
struct Open {
    process: u32,
    file: String,
}

pub(super) fn examine(patient: &Patient) -> Vec<Finding> {
    const CAP_SYS_PTRACE: u32 = 19;
    let mut findings = Vec::new();
    let any_device = patient.concerned().next().is_some();
    if !any_device && patient.request.prefix.is_none() {
        return findings;
    }
    let open = open_files(patient);
    for device in patient.concerned() {
        let files = files_of(patient, device);
        if let Some(open) = open.iter().find(|open| files.contains(&open.file)) {
            findings.push(in_use(patient, device, open));
        }
    }
    if let Some(prefix) = &patient.request.prefix {
        let is_lock = |open: &&Open| open.file.ends_with(&format!("/dpdk/{prefix}/config"));
        if let Some(open) = open.iter().find(is_lock) {
            let what = format!("{} runs under the --file-prefix {prefix}", name_of(patient, open));
            findings.push(
                Finding::fault("device", "prefix-in-use", what)
                    .why("Two programs under one prefix share their memory's files: the second one does not start.")
                    .mend("--file-prefix another")
                    .mend("--in-memory    # shares nothing, needs no prefix"),
            );
        }
    }
    if any_device && !patient.machine.is_capable_of(CAP_SYS_PTRACE) {
        findings.push(
            Finding::note("device", "users-unseen", "whether another user's program has the devices is not to be seen")
                .why("Only root sees what processes of others have open.")
                .mend("run nf-doctor as root"),
        );
    }
    findings
}

/// What all processes but this one have open, of those that can be looked into.
fn open_files(patient: &Patient) -> Vec<Open> {
    let machine = &patient.machine;
    let own = machine.target("proc/self");
    let mut found = Vec::new();
    for name in machine.names("proc") {
        let Ok(process) = name.parse() else { continue };
        if own.as_ref() == Some(&name) {
            continue;
        }
        for descriptor in machine.names(&format!("proc/{name}/fd")) {
            if let Some(file) = machine.link(&format!("proc/{name}/fd/{descriptor}")) {
                found.push(Open { process, file });
            }
        }
    }
    found
}

/// The files by which a program has a device.
fn files_of(patient: &Patient, device: &Device) -> Vec<String> {
    let of_group = |group: &String| [format!("/dev/vfio/{group}"), format!("/dev/vfio/noiommu-{group}")];
    let mut files: Vec<String> = device.group.iter().flat_map(of_group).collect();
    files.extend(patient.machine.names(&format!("{}/uio", device.path())).iter().map(|name| format!("/dev/{name}")));
    files
}

fn name_of(patient: &Patient, open: &Open) -> String {
    let name = patient.machine.text(&format!("proc/{}/comm", open.process)).unwrap_or_else(|| "a program".to_owned());
    format!("{name} (process {})", open.process)
}

fn in_use(patient: &Patient, device: &Device, open: &Open) -> Finding {
    let what = format!("{} has it ({})", name_of(patient, open), open.file);
    let new = if patient.wants(device) { Finding::fault } else { Finding::note };
    new("device", "device-in-use", what)
        .on(&device.address)
        .why("One program at a time can have a device: a second one does not get it, or takes it from under the first.")
        .mend(format!("stop it (kill {}), or give this program another device", open.process))
}
