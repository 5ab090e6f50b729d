"""The set-ups in which everything is right: what is in each machine, and what has to be seen there."""

import os
import re
import shlex

import backend
import checker
import configs
import doctor
import libvirt
import negative
import reset
import traffic
from lab import (
    IGB,
    IGB_VF,
    MACS,
    NEVER,
    VF_MACS,
    VIRTIO,
    VLANS,
    VMXNET3,
    Result,
    Setup,
    Skipped,
    check_closing,
    check_faults,
    check_iova,
    eal,
    iova,
    run_programs,
    sides,
    take,
)
from machine import Program, qemu_arguments, root_port
from packets import Wrong, expect
from traffic import Exchange
from vhost import VhostLink

EVERY_FUNCTION = [
    ("nat", ["nat"]),
    ("load-balancer", ["load-balancer"]),
    ("firewall", ["firewall"]),
    ("nf-chain", []),
    ("nf-chain", ["monitor", "rate-limit"]),
    ("nf-chain", ["firewall", "monitor", "nat", "rate-limit"]),
]
BOTH = [("nat", ["nat"]), ("nf-chain", ["monitor", "rate-limit"])]


def vfs(lab):
    """The machine is a hypervisor too: it has the physical functions, and makes a virtual one of each."""
    links = [lab.link("inside"), lab.link("outside")]
    with lab.machine(iommu=True) as machine:
        for link, mac in zip(links, MACS):
            machine.add_nic(link, f"igb,mac={mac}")
        guest = lab.start(machine)
        guest.run("load igb")
        pfs = guest.devices(IGB)
        devices = take(guest, "vfio-pci", [guest.run(f"vf {pf} {mac}") for pf, mac in zip(pfs, VF_MACS)])
        around = sides(*links, VF_MACS)
        run_programs(lab, machine, guest, devices, around, True, EVERY_FUNCTION)
        # VLANs that the physical functions set are not seen in the guest, and are there on the wire.
        for pf, vlan, stations in zip(pfs, VLANS, (around.hosts, [around.isp])):
            guest.run(f"ip2 link set $(interface {pf}) vf 0 vlan {vlan}")
            for station in stations:
                station.vlan = vlan
        run_programs(lab, machine, guest, devices, around, True, BOTH[:1])
        check_faults(machine, guest)
        machine.power_off()
        return Result("vfio-pci", iova(True), machine.seen)


def vf_only(lab):
    return nested(lab, "uio_pci_generic", iommu=False)


def vf_only_iommu(lab):
    return nested(lab, "vfio-pci", iommu=True)


NESTED_MEMORY = 448  # MiB
NESTED_END = 30  # seconds for a nested guest to end


def nested(lab, driver, iommu):
    """A hypervisor passes one virtual function on to a guest that has nothing else, and so both sides on one port."""
    link = lab.link("wire")
    with lab.machine("hypervisor", iommu=True, memory=2048, hugepages=NESTED_MEMORY // 2, lines=4) as machine:
        machine.add_nic(link, f"igb,mac={MACS[0]}")
        hypervisor = lab.start(machine)
        hypervisor.run("load igb kvm_amd")
        (pf,) = hypervisor.devices(IGB)
        (vf,) = take(hypervisor, "vfio-pci", [hypervisor.run(f"vf {pf} {VF_MACS[0]}")])
        arguments = qemu_arguments("kvm", NESTED_MEMORY, 1, "/vmlinux", "/guest.cpio", 64, iommu)
        # All of it is mapped for the device before the guest starts, which in small pages takes long.
        arguments += ["-mem-path", "/dev/hugepages"]
        for line in (2, 3):
            arguments += ["-chardev", f"serial,id=line{line},path=/dev/ttyS{line}", "-serial", f"chardev:line{line}"]
        arguments += [*root_port(1), "-device", f"vfio-pci,host={vf},bus=port1"]
        hypervisor.run(f"launch qemu-system-x86_64 {shlex.join(map(str, arguments))}")
        lab.say("the hypervisor has started its guest")
        guest = machine.nested()
        guest.wait_for_boot()
        lab.say("the nested guest is up")
        devices = take(guest, driver, guest.devices(IGB_VF))
        around = sides(link, link, VF_MACS[:1] * 2, VLANS)
        run_programs(lab, machine, guest, devices, around, iommu, BOTH, vlans=True)
        check_faults(machine, guest, hypervisor)
        guest.commands.send("poweroff -f\n")
        hypervisor.run("wait $program", NESTED_END)
        machine.power_off()
        return Result(driver, iova(iommu), machine.seen)


def virtio(lab):
    return nics(lab, "virtio-net-pci", VIRTIO, "uio_pci_generic", iommu=False)


def virtio_iommu(lab):
    return nics(lab, "virtio-net-pci,iommu_platform=on,ats=on", VIRTIO, "vfio-pci", iommu=True)


# The driver asks the device to look at its settings before it has said where they are: at offset 0x18 of address 0.
# dpdk-testpmd provokes the same.
SETTINGS_OF_NOBODY = r"iova=0x18\b|fault addr 0x0\b"


def vmxnet3(lab):
    return nics(lab, "vmxnet3", VMXNET3, "vfio-pci", iommu=True, excused=SETTINGS_OF_NOBODY)


def nics(lab, device, kind, driver, iommu, excused=NEVER):
    """The machine has two NICs that are wholly its own."""
    links = [lab.link("inside"), lab.link("outside")]
    with lab.machine(iommu=iommu) as machine:
        for link, mac in zip(links, MACS):
            machine.add_nic(link, f"{device},mac={mac}")
        guest = lab.start(machine)
        devices = take(guest, driver, guest.devices(kind))
        run_programs(lab, machine, guest, devices, sides(*links, MACS), iommu, BOTH)
        check_faults(machine, guest, excused=excused)
        machine.power_off()
        return Result(driver, iova(iommu), machine.seen)


def vhost_user(lab):
    """Inside by vhost-user, from a program of ours on this machine; outside as QEMU has it."""
    if os.geteuid():
        raise Skipped("there is no root for an interface of the kernel's")
    with lab.machine(shared=True) as machine:
        inside = VhostLink(lab.loop, lab.directory, "inside", lab.programs / "nf-chain")
        machine.add_nic(inside, f"virtio-net-pci,mac={MACS[0]}")
        inside.open()
        outside = lab.link("outside")
        machine.add_nic(outside, f"virtio-net-pci,mac={MACS[1]}")
        guest = lab.start(machine)
        devices = take(guest, "uio_pci_generic", guest.devices(VIRTIO))
        run_programs(lab, machine, guest, devices, sides(inside, outside, MACS), False, BOTH)
        check_faults(machine, guest)
        machine.power_off()
        status, tables = inside.stop()
        expect("the status of the program on this machine", status, 0)
        lab.say(f"nf-chain on this machine: {check_closing(tables)}")
        return Result("uio_pci_generic", iova(False), machine.seen)


WORKERS = 2
HOSTS = 16  # that all of them are one worker's happens once in 32768 runs
FLOWS = 12  # of each host; a quarter is ICMP


def igb_rss(lab):
    """Two workers, each with a queue: the physical functions really spread packets by a hash."""
    links = [lab.link("inside"), lab.link("outside")]
    with lab.machine(iommu=True) as machine:
        for link, mac in zip(links, MACS):
            machine.add_nic(link, f"igb,mac={mac}")
        guest = lab.start(machine)
        devices = take(guest, "vfio-pci", guest.devices(IGB))
        around = sides(*links, MACS, hosts=HOSTS)
        for steering in ("auto", "rss", "software"):
            steered(lab, machine, guest, devices, around, steering)
        check_faults(machine, guest)
        machine.power_off()
        return Result("vfio-pci", iova(True), machine.seen)


def steered(lab, machine, guest, devices, around, steering):
    """A NAT on two workers: replies come home to the one that has the session."""
    config = configs.router(configs.ports(*devices, steering=f'"{steering}"'), ["nat"])
    program = Program(guest, "nat", config, eal(devices, f"0-{WORKERS - 1}"))
    program.wait_until_it_runs()
    check_iova(program, True)
    told = len(re.findall(r"the device keeps .* together by receive side scaling", program.log))
    expect(f"how many devices spread packets with steering = {steering}", told, 0 if steering == "software" else 2)
    around.forget()
    around.check_macs()
    exchange = Exchange(machine)
    traffic.through_nat(around, exchange, FLOWS)
    around.check_strays()
    tables = program.stop()
    balance = check_closing(tables)
    if "does not spread packets as it was told" in tables:
        raise Wrong("the device is said to spread packets otherwise than it was told")
    workers = re.findall(r"^\d+ +(\d+) +(\d+) +(\d+)$", tables, re.MULTILINE)
    expect("workers in the closing table", len(workers), WORKERS)
    received, _, handed_over = zip(*(map(int, worker) for worker in workers))
    lab.say(
        f"nat, steering = {steering}: {exchange.count} packets are right; workers received "
        f"{' and '.join(map(str, received))}, and handed over {sum(handed_over)}; {balance}"
    )
    if steering == "software":
        return
    # A device spreads ICMP by addresses alone, and a NAT's sessions are shared out by port on the way back.
    icmp = HOSTS * FLOWS // 4
    if sum(handed_over) > icmp:
        raise Wrong(f"{sum(handed_over)} packets were handed over, which is more than the {icmp} replies of ICMP")
    if min(received) < FLOWS:
        raise Wrong(f"the workers received {received} packets")


SETUPS = [
    Setup("vfs", "two virtual functions, vfio-pci behind an emulated VT-d; every function", vfs, 120, quick=True),
    Setup("vf-only", "nothing but a virtual function, uio_pci_generic; sides by VLAN", vf_only, 150, quick=True),
    Setup("vf-only-iommu", "the same, vfio-pci behind an IOMMU in that VM", vf_only_iommu, 200),
    Setup("virtio", "two virtio-net, uio_pci_generic", virtio, 60),
    Setup("virtio-iommu", "two virtio-net, vfio-pci behind an emulated VT-d", virtio_iommu, 60),
    Setup("vhost-user", "a virtio-net by vhost-user, nf-chain on this machine at its other end", vhost_user, 60),
    Setup("vmxnet3", "two vmxnet3, vfio-pci behind an emulated VT-d", vmxnet3, 60),
    Setup("igb-rss", "two igb with two queues each: receive side scaling, a NAT on two workers", igb_rss, 120),
    *backend.SETUPS,
    *reset.SETUPS,
    *negative.SETUPS,
    *doctor.SETUPS,
    *libvirt.SETUPS,
    *checker.SETUPS,
]
