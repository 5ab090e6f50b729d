"""The set-ups: what is in each machine, and what has to be seen there."""

import os
import re
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

import configs
import traffic
from machine import Machine, Program, qemu_arguments, root_port
from packets import Wrong, expect
from stations import Link, Station
from traffic import ISP, LAN, LAN_VLAN, SERVER, SERVER2, WAN, WAN_VLAN, HOST, Exchange, Sides
from vhost import VhostLink

IGB, IGB_VF = "0x8086:0x10c9", "0x8086:0x10ca"
# As the hypervisor gives them: to the physical functions, and by them to the virtual ones.
PF_MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
VF_MACS = ["02:00:00:00:00:10", "02:00:00:00:01:10"]
HOST_MAC = "02:aa:00:00:01:{:02x}"
NESTED_MEMORY = 448  # MiB
NESTED_END = 30  # seconds for a nested guest to end
ISP_MAC = "02:aa:00:00:00:fe"
EAL = ["-l", "0", "--in-memory", "--no-telemetry"]


class Skipped(Exception):
    """A set-up cannot be tried here."""


@dataclass
class Lab:
    """What a set-up is tried in."""

    loop: object
    tools: object
    directory: str
    images: dict
    programs: Path
    patience: int  # seconds for all of it
    began: float = field(default_factory=time.monotonic)

    def say(self, text):
        print(f"    {time.monotonic() - self.began:5.1f} s  {text}", flush=True)

    def machine(self, image="guest", **settings):
        return Machine(self.loop, self.tools, self.directory, self.images[image], **settings)

    def link(self, name):
        return Link(self.loop, self.directory, name)


@dataclass
class Result:
    driver: str
    iova: str
    first: float
    notes: str = ""


@dataclass(frozen=True)
class Setup:
    name: str
    about: str
    attempt: object  # a function of a Lab that returns a Result
    seconds: int  # limit of an attempt
    quick: bool = False


def sides(inside, outside, macs, vlans=False, hosts=2):
    """Hosts inside and a provider outside, none of whom has heard of anybody."""
    lan, wan = (LAN_VLAN, WAN_VLAN) if vlans else (None, None)
    hosts = [Station(inside, HOST_MAC.format(host), HOST.format(host), LAN, vlan=lan) for host in range(10, 10 + hosts)]
    return Sides(hosts, Station(outside, ISP_MAC, ISP, WAN, behind=(SERVER, SERVER2), vlan=wan), *macs)


def check_iova(program, mode, iommu):
    """What the EAL says of addresses, and of the IOMMU."""
    said = re.search(r"Selected IOVA mode '(\w+)'", program.log)
    expect(f"the IOVA mode that {program.name} logs", said and said[1], mode)
    expect(f"whether {program.name} logs an IOMMU", "Using IOMMU type 1" in program.log, iommu)


def check_closing(tables):
    """The balance of the closing table."""
    balance = re.search(r"^balance: .*", tables, re.MULTILINE)
    if not balance or "unaccounted" in balance[0]:
        raise Wrong(f"the closing table says: {balance and balance[0]}")
    return balance[0]


def check_faults(machine, *guests, excused="(?!)"):
    faults = machine.faults() + [line for guest in guests for line in guest.faults()]
    faults = [line for line in faults if not re.search(excused, line)]
    if faults:
        raise Wrong(f"{len(faults)} accesses were refused by an IOMMU, such as {faults[0]!r}")


def run_programs(lab, machine, guest, devices, around, iova, iommu, programs, flows=24, vlans=False, eal=()):
    """Programs one after the other, each with traffic through it, stopped as a service manager would."""
    arguments = [*EAL, *eal, *(argument for device in devices for argument in ("-a", device))]
    for name, functions in programs:
        config = configs.router(configs.ports(*devices), functions, vlans)
        program = Program(guest, name, config, arguments)
        program.wait_until_it_runs()
        lab.say(f"{name} runs")
        check_iova(program, iova, iommu)
        around.forget()
        around.check_macs()
        exchange = Exchange(machine)
        (traffic.through_nat if "nat" in functions else traffic.through_router)(around, exchange, flows)
        around.check_strays()
        balance = check_closing(program.stop())
        lab.say(f"{name}, {' '.join(functions) or 'an empty chain'}: {exchange.count} packets are right; {balance}")


EVERY_FUNCTION = [
    ("nat", ["nat"]),
    ("nf-chain", []),
    ("nf-chain", ["monitor", "rate-limit"]),
    ("nf-chain", ["monitor", "nat", "rate-limit"]),
]


def vfs(lab):
    """The machine is a hypervisor too: it has the physical functions, and makes a virtual one of each."""
    links = [lab.link("inside"), lab.link("outside")]
    with lab.machine(iommu=True) as machine:
        for link, mac in zip(links, PF_MACS):
            machine.add_nic(link, f"igb,mac={mac}")
        machine.start(lab.patience)
        guest = machine.guest
        guest.wait_for_boot()
        lab.say("the guest is up")
        guest.run("load igb")
        devices = [guest.run(f"vf {pf} {mac}") for pf, mac in zip(guest.devices(IGB), VF_MACS)]
        take(guest, "vfio-pci", devices)
        run_programs(lab, machine, guest, devices, sides(*links, VF_MACS), "VA", True, EVERY_FUNCTION)
        check_faults(machine, guest)
        machine.power_off()
        return Result("vfio-pci", "VA, IOMMU", machine.seen)


BOTH = [("nat", ["nat"]), ("nf-chain", ["monitor", "rate-limit"])]


def nics(lab, device, kind, driver, iommu, programs=BOTH, excused="(?!)", **settings):
    """The machine has two NICs that are wholly its own."""
    links = [lab.link("inside"), lab.link("outside")]
    with lab.machine(iommu=iommu, **settings) as machine:
        for link, mac in zip(links, PF_MACS):
            machine.add_nic(link, f"{device},mac={mac}")
        machine.start(lab.patience)
        guest = machine.guest
        guest.wait_for_boot()
        lab.say("the guest is up")
        devices = take(guest, driver, guest.devices(kind))
        around = sides(*links, PF_MACS)
        run_programs(lab, machine, guest, devices, around, "VA" if iommu else "PA", iommu, programs)
        check_faults(machine, guest, excused=excused)
        machine.power_off()
        return Result(driver, "VA, IOMMU" if iommu else "PA", machine.seen)


def take(guest, driver, devices):
    """Binds devices to a driver for user space."""
    guest.run("load vfio_iommu_type1 vfio-pci" if driver == "vfio-pci" else f"load {driver}")
    guest.run(f"bind {driver} {' '.join(devices)}")
    return devices


VIRTIO, VMXNET3 = "0x1af4:0x1041", "0x15ad:0x07b0"


def virtio(lab):
    return nics(lab, "virtio-net-pci", VIRTIO, "uio_pci_generic", iommu=False)


def virtio_iommu(lab):
    return nics(lab, "virtio-net-pci,iommu_platform=on,ats=on", VIRTIO, "vfio-pci", iommu=True)


# The driver asks the device to look at its settings before it has said where they are: at offset 0x18 of address 0.
# dpdk-testpmd provokes the same.
SETTINGS_OF_NOBODY = r"iova=0x18\b|fault addr 0x0\b"


def vmxnet3(lab):
    return nics(lab, "vmxnet3", VMXNET3, "vfio-pci", iommu=True, excused=SETTINGS_OF_NOBODY)


def vhost_user(lab):
    """Inside by vhost-user, from a program of ours on this machine; outside as QEMU has it."""
    if os.geteuid():
        raise Skipped("there is no root for an interface of the kernel's")
    with lab.machine(shared=True) as machine:
        inside = VhostLink(lab.loop, lab.directory, "inside", lab.programs / "nf-chain")
        machine.add_nic(inside, f"virtio-net-pci,mac={PF_MACS[0]}")
        inside.open()
        outside = lab.link("outside")
        machine.add_nic(outside, f"virtio-net-pci,mac={PF_MACS[1]}")
        machine.start(lab.patience)
        guest = machine.guest
        guest.wait_for_boot()
        lab.say("the guest is up")
        devices = take(guest, "uio_pci_generic", guest.devices(VIRTIO))
        run_programs(lab, machine, guest, devices, sides(inside, outside, PF_MACS), "PA", False, BOTH)
        check_faults(machine, guest)
        machine.power_off()
        status, tables = inside.stop()
        expect("the status of the program on this machine", status, 0)
        lab.say(f"nf-chain on this machine: {check_closing(tables)}")
        return Result("uio_pci_generic", "PA", machine.seen)


WORKERS = 2
RSS_FLOWS = 12  # of each host; a quarter is ICMP
HOSTS = 16  # that all of them are one worker's happens once in 32768 runs


def igb_rss(lab):
    """Two workers, each with a queue: the physical functions really spread packets by a hash."""
    links = [lab.link("inside"), lab.link("outside")]
    with lab.machine(iommu=True) as machine:
        for link, mac in zip(links, PF_MACS):
            machine.add_nic(link, f"igb,mac={mac}")
        machine.start(lab.patience)
        guest = machine.guest
        guest.wait_for_boot()
        lab.say("the guest is up")
        devices = take(guest, "vfio-pci", guest.devices(IGB))
        around = sides(*links, PF_MACS, hosts=HOSTS)
        for steering in ("auto", "rss", "software"):
            steered(lab, machine, guest, devices, around, steering)
        check_faults(machine, guest)
        machine.power_off()
        return Result("vfio-pci", "VA, IOMMU", machine.seen)


def steered(lab, machine, guest, devices, around, steering):
    """A NAT on two workers: replies come home to the one that has the session."""
    config = configs.router(configs.ports(*devices, steering=f'"{steering}"'), ["nat"])
    eal = ["-l", f"0-{WORKERS - 1}", *EAL[2:], *(argument for device in devices for argument in ("-a", device))]
    program = Program(guest, "nat", config, eal)
    program.wait_until_it_runs()
    check_iova(program, "VA", True)
    told = len(re.findall(r"the device keeps .* together by receive side scaling", program.log))
    expect(f"how many devices spread packets with steering = {steering}", told, 0 if steering == "software" else 2)
    around.forget()
    around.check_macs()
    exchange = Exchange(machine)
    traffic.through_nat(around, exchange, flows=RSS_FLOWS)
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
    # A device spreads ICMP by addresses alone, and a NAT's sessions are shared out by port.
    icmp = 2 * HOSTS * RSS_FLOWS // 4
    if steering != "software" and sum(handed_over) > icmp:
        raise Wrong(f"{sum(handed_over)} packets were handed over, which is more than the {icmp} of ICMP")
    if steering != "software" and min(received) < RSS_FLOWS:
        raise Wrong(f"the workers received {received} packets")


def vf_only(lab):
    """No IOMMU, and so physical addresses."""
    return nested(lab, "uio_pci_generic", iommu=False)


def vf_only_iommu(lab):
    return nested(lab, "vfio-pci", iommu=True)


def nested(lab, driver, iommu):
    """A hypervisor passes one virtual function on to a guest that has nothing else, and so both sides on one port."""
    link = lab.link("wire")
    with lab.machine("hypervisor", iommu=True, memory=2048, hugepages=NESTED_MEMORY // 2, lines=4) as machine:
        machine.add_nic(link, f"igb,mac={PF_MACS[0]}")
        machine.start(lab.patience)
        hypervisor = machine.guest
        hypervisor.wait_for_boot()
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
        lab.say("the guest is up")
        devices = take(guest, driver, guest.devices(IGB_VF))
        around = sides(link, link, VF_MACS[:1] * 2, vlans=True)
        mode = "VA" if iommu else "PA"
        run_programs(lab, machine, guest, devices, around, mode, iommu, BOTH, vlans=True)
        check_faults(machine, guest, hypervisor)
        guest.commands.send("poweroff -f\n")
        hypervisor.run("wait $program", NESTED_END)
        machine.power_off()
        return Result(driver, "VA, IOMMU" if iommu else "PA", machine.seen)


SETUPS = [
    Setup("vhost-user", "virtio-net by vhost-user, nf-chain at its other end", vhost_user, 60),
    Setup("vf-only", "a virtual function and nothing else, uio_pci_generic, sides by VLAN", vf_only, 150, quick=True),
    Setup("vf-only-iommu", "the same, vfio-pci behind an IOMMU in that VM", vf_only_iommu, 200),
    Setup("igb-rss", "two igb with two queues each: receive side scaling, a NAT on two workers", igb_rss, 120),
    Setup("vfs", "two virtual functions (igb), vfio-pci behind an emulated VT-d: each function", vfs, 120, quick=True),
    Setup("virtio", "two virtio-net, uio_pci_generic, no IOMMU", virtio, 60),
    Setup("virtio-iommu", "two virtio-net, vfio-pci behind an emulated VT-d", virtio_iommu, 60),
    Setup("vmxnet3", "two vmxnet3, vfio-pci behind an emulated VT-d", vmxnet3, 60),
]
