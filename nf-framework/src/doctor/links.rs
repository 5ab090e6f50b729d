//! Interfaces and virtual functions, as far as the kernel of this machine sees them.

use super::{Device, Finding, Patient};

pub(super) fn examine(patient: &Patient) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in &patient.devices {
        let shared_or_wanted = patient.wants(device) || device.is_shared() && patient.request.devices.is_empty();
        for interface in &device.interfaces {
            findings.extend(mac(patient, device, interface));
            if shared_or_wanted && device.is_shared() {
                findings.extend(link(patient, device, interface));
            }
        }
    }
    findings.extend(nics_that_are_down(patient));
    findings.extend(unseen(patient));
    findings
}

/// A VF whose driver made its address up was not given one.
fn mac(patient: &Patient, device: &Device, interface: &str) -> Option<Finding> {
    // NET_ADDR_RANDOM of linux/netdevice.h.
    const RANDOM: u32 = 1;
    let class = format!("sys/class/net/{interface}");
    if patient.machine.number::<u32>(&format!("{class}/addr_assign_type")) != Some(RANDOM) {
        return None;
    }
    let address = patient.machine.text(&format!("{class}/address")).unwrap_or_default();
    Some(random_mac(device.address.as_str(), &format!("{interface} has the MAC {address}, which its driver made up")))
}

pub(super) fn random_mac(device: &str, what: &str) -> Finding {
    Finding::warning("vf", "mac-random", what)
        .on(device)
        .why(
            "A virtual function gets its MAC from the NIC on the hypervisor. It got none: the NIC is down, or nobody \
             set one. With the NIC down no packet comes; without a MAC it is another one after every start.",
        )
        .mend("ip link set dev PF up                            # on the hypervisor")
        .mend("ip link set dev PF vf N mac 02:00:00:00:00:10    # on the hypervisor, before the machine starts")
}

fn link(patient: &Patient, device: &Device, interface: &str) -> Option<Finding> {
    let class = format!("sys/class/net/{interface}");
    let state = patient.machine.text(&format!("{class}/operstate"))?;
    if state == "up" {
        return None;
    }
    Some(
        Finding::warning("link", "link-down", format!("{interface} is {state}"))
            .on(&device.address)
            .why("No packet comes or goes while it is.")
            .mend(format!("ip link set dev {interface} up")),
    )
}

/// NICs of this machine that have virtual functions, and are down.
fn nics_that_are_down(patient: &Patient) -> Vec<Finding> {
    const IFF_UP: u32 = 1;
    let mut findings = Vec::new();
    for nic in &patient.devices {
        let functions = patient.devices.iter().filter(|device| device.nic.as_ref() == Some(&nic.address)).count();
        for interface in nic.interfaces.iter().filter(|_| functions > 0) {
            let flags = patient.machine.text(&format!("sys/class/net/{interface}/flags")).unwrap_or_default();
            let flags = u32::from_str_radix(flags.trim_start_matches("0x"), 16).unwrap_or(IFF_UP);
            if flags & IFF_UP == 0 {
                findings.push(
                    Finding::warning(
                        "vf",
                        "nic-down",
                        format!("{interface} is down, and with it its virtual functions ({functions})"),
                    )
                    .on(&nic.address)
                    .why("They have no link then, and some no MAC.")
                    .mend(format!("ip link set dev {interface} up")),
                );
            }
        }
    }
    findings
}

/// What of a virtual function only its NIC knows.
fn unseen(patient: &Patient) -> Option<Finding> {
    let drivers = patient.drivers.as_ref();
    let is_function = |device: &&Device| match drivers {
        Some(drivers) => drivers.is_virtual_function(device),
        None => device.nic.is_some(),
    };
    let functions: Vec<&Device> = patient.concerned().filter(is_function).collect();
    let first = functions.first()?;
    let nic = first.nic.as_ref().and_then(|nic| patient.devices.iter().find(|device| device.address == *nic));
    let interface = nic.and_then(|nic| nic.interfaces.first()).map_or("PF", String::as_str);
    let place = if interface == "PF" { "    # on the hypervisor" } else { "" };
    let names: Vec<&str> = functions.iter().map(|device| device.address.as_str()).collect();
    Some(
        Finding::note(
            "vf",
            "vf-unseen",
            "whether it is trusted, checked for spoofing, or in a VLAN is not to be seen from it",
        )
        .on(&names.join(", "))
        .why(
            "Only the NIC knows. Untrusted, it hears little multicast (so no IPv6 neighbours, with some NICs) and \
                 no packets for other MACs; with the spoof check on, packets from other MACs than its own are lost. A \
                 router or NAT of IPv4 needs neither trust nor leave to spoof, a transparent function needs both.",
        )
        .mend(format!("ip link show dev {interface}{place}"))
        .mend(format!("ip link set dev {interface} vf N trust on spoofchk off{place}")),
    )
}
