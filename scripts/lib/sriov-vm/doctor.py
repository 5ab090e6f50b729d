"""nf-doctor in a guest where all is right, and with one thing after the other broken: it names that, and no other."""

import json
import shlex

from lab import IGB, MACS, VF_MACS, Result, Setup, eal, iova, take
from packets import expect

PATIENCE = 60  # seconds for it to look, and to try DPDK
ALARMS = ("fault", "warning")  # levels of findings


def doctor(lab):
    """A hypervisor with a NIC, and another one behind a port that isolates nothing."""
    links = [lab.link("first"), lab.link("second")]
    with lab.machine(iommu=True) as machine:
        machine.add_nic(links[0], f"igb,mac={MACS[0]}")
        machine.add_nic(links[1], f"igb,mac={MACS[1]}", port="ioh3420")
        guest = lab.start(machine)
        guest.run("load igb")
        first, second = guest.devices(IGB)
        vf = guest.run(f"vf {first} {VF_MACS[0]}")
        take(guest, "vfio-pci", [vf])
        other = guest.run(f"vf {second} {VF_MACS[1]}")
        take(guest, "vfio-pci", [other])

        diagnose(lab, guest, "all is right", vf)
        diagnose(lab, guest, "a group has others in it", other, fault="group-not-viable")
        guest.run(f"echo {vf} >$DEVICES/{vf}/driver/unbind")
        diagnose(lab, guest, "no driver", vf, fault="driver-none")
        take(guest, "vfio-pci", [vf])
        diagnose(lab, guest, "no such device", "0000:01:1f.7", fault="device-absent")
        guest.run(f"ip2 link set $(interface {first}) down")
        diagnose(lab, guest, "the physical function is down", vf, warnings={"nic-down", "mac-random"})
        guest.run(f"ip2 link set $(interface {first}) up")
        before = guest.run("cat /proc/sys/vm/nr_hugepages; echo 0 >/proc/sys/vm/nr_hugepages")
        diagnose(lab, guest, "no hugepages", vf, fault="hugepages-absent")
        guest.run("echo 4 >/proc/sys/vm/nr_hugepages")
        diagnose(lab, guest, "few hugepages", vf, "--need", "100M", fault="hugepages-too-few")
        guest.run(f"echo {before} >/proc/sys/vm/nr_hugepages")
        diagnose(lab, guest, "all is right again", vf)
        machine.power_off()
    with lab.machine() as machine:
        machine.add_nic(lab.link("first"), f"igb,mac={MACS[0]}")
        guest = lab.start(machine)
        guest.run("load igb vfio_iommu_type1 vfio-pci")
        (pf,) = guest.devices(IGB)
        vf = guest.run(f"vf {pf} {VF_MACS[0]}")
        diagnose(lab, guest, "no IOMMU, no driver", vf, fault="driver-none")
        take(guest, "uio_pci_generic", [vf])
        diagnose(lab, guest, "no IOMMU, uio_pci_generic", vf)
        machine.power_off()
    return Result("vfio-pci", iova(True), 0)


def diagnose(lab, guest, what, device, *more, fault=None, warnings=()):
    """What it raises an alarm about is what was planted, and its status says whether that is a fault."""
    command = shlex.join(["nf-doctor", "--json", *more, *eal([device])])
    said, status = guest.status(f"timeout {PATIENCE} {command} 2>/tmp/log", PATIENCE + 5)
    findings = [finding for finding in json.loads(said[said.index("{") :])["findings"]]
    alarms = {(finding["level"], finding["id"]) for finding in findings if finding["level"] in ALARMS}
    planted = {("warning", name) for name in warnings} | ({("fault", fault)} if fault else set())
    expect(f"what nf-doctor finds where {what}", sorted(alarms), sorted(planted))
    expect(f"nf-doctor's status where {what}", status, 1 if fault else 0)
    named = ", ".join(f"{level} {name}" for level, name in sorted(alarms)) or "no alarm"
    lab.say(f"nf-doctor, {what}: {named}")


SETUPS = [Setup("doctor", "nf-doctor with everything right, and with one thing after the other broken", doctor, 200)]
