"""Where a set-up is tried: machines, links, who stands around them, and what every one of them has to show."""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import balancing
import configs
import traffic
from machine import Machine, Program
from packets import Wrong, expect
from stations import Link, Station
from traffic import HOST, ISP, LAN, LAN_VLAN, SERVER, SERVER2, WAN, WAN_VLAN, Exchange, Sides

# PCI's numbers of vendor and device.
IGB, IGB_VF, VIRTIO, VMXNET3 = "0x8086:0x10c9", "0x8086:0x10ca", "0x1af4:0x1041", "0x15ad:0x07b0"
# As the hypervisor gives them: to NICs, physical functions among them, and by these to virtual functions.
MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
VF_MACS = ["02:00:00:00:00:10", "02:00:00:00:01:10"]
HOST_MAC, ISP_MAC = "02:aa:00:00:01:{:02x}", "02:aa:00:00:00:fe"
NEVER = "(?!)"  # matches nothing


class Skipped(Exception):
    """A set-up cannot be tried here."""


@dataclass
class Lab:
    loop: object
    tools: object
    directory: str
    images: dict
    programs: Path
    cache: Path  # what was downloaded
    patience: int  # seconds for all of it
    began: float = field(default_factory=time.monotonic)

    def say(self, text):
        print(f"    {time.monotonic() - self.began:5.1f} s  {text}", flush=True)

    def machine(self, image="guest", **settings):
        return Machine(self.loop, self.tools, self.directory, self.images[image], **settings)

    def link(self, name):
        return Link(self.loop, self.directory, name)

    def start(self, machine):
        """The machine's guest, when it is up."""
        machine.start(self.patience)
        machine.guest.wait_for_boot()
        self.say("the guest is up")
        return machine.guest


@dataclass
class Result:
    driver: str
    iova: str
    first: float  # seconds from the machine's start to the first packet that came through; 0 if none was to


@dataclass(frozen=True)
class Setup:
    name: str
    about: str
    attempt: object  # a function of a Lab that returns a Result
    seconds: int  # limit of an attempt
    quick: bool = False


def sides(inside, outside, macs, vlans=(None, None), hosts=2):
    """Hosts inside and a provider outside, none of whom has heard of anybody."""
    numbers = range(10, 10 + hosts)
    inside = [Station(inside, HOST_MAC.format(host), HOST.format(host), LAN, vlan=vlans[0]) for host in numbers]
    isp = Station(outside, ISP_MAC, ISP, WAN, behind=(SERVER, SERVER2), vlan=vlans[1])
    return Sides(inside, isp, *macs)


VLANS = (LAN_VLAN, WAN_VLAN)


def take(guest, driver, devices):
    """Binds devices to a driver for user space."""
    guest.run("load vfio_iommu_type1 vfio-pci" if driver == "vfio-pci" else f"load {driver}")
    guest.run(f"bind {driver} {' '.join(devices)}")
    return devices


def eal(devices, lcores="0"):
    allowed = (argument for device in devices for argument in ("-a", device))
    return ["-l", lcores, "--in-memory", "--no-telemetry", *allowed]


# By the function that has most to say about it.
TRAFFIC = {"nat": traffic.through_nat, "load-balancer": balancing.through, "firewall": traffic.through_firewall}


def run_programs(lab, machine, guest, devices, around, iommu, programs, vlans=False, **ports):
    """Programs one after the other, each with traffic through it, stopped as a service manager would."""
    for name, functions in programs:
        program = Program(guest, name, configs.router(configs.ports(*devices, **ports), functions, vlans), eal(devices))
        program.wait_until_it_runs()
        check_iova(program, iommu)
        around.forget()
        around.check_macs()
        exchange = Exchange(machine)
        through = (traffic for function, traffic in TRAFFIC.items() if function in functions)
        next(through, traffic.through_router)(around, exchange)
        around.check_strays()
        balance = check_closing(program.stop())
        lab.say(f"{name}, {' '.join(functions) or 'an empty chain'}: {exchange.count} packets are right; {balance}")


def iova(iommu):
    return "VA" if iommu else "PA"


def check_iova(program, iommu):
    """What the EAL says of addresses, and of the IOMMU."""
    said = re.search(r"Selected IOVA mode '(\w+)'", program.log)
    expect(f"the IOVA mode that {program.name} logs", said and said[1], iova(iommu))
    expect(f"whether {program.name} logs an IOMMU", "Using IOMMU type 1" in program.log, iommu)


def check_closing(tables):
    """The balance of the closing table."""
    balance = re.search(r"^balance: .*", tables, re.MULTILINE)
    if not balance or "unaccounted" in balance[0]:
        raise Wrong(f"the closing table says: {balance and balance[0]}")
    return balance[0]


def check_faults(machine, *guests, excused=NEVER):
    """That no IOMMU has refused anything, says QEMU, and say the guests' kernels."""
    faults = machine.faults() + [line for guest in guests for line in guest.faults()]
    faults = [line for line in faults if not re.search(excused, line)]
    if faults:
        raise Wrong(f"{len(faults)} accesses were refused by an IOMMU, such as {faults[0]!r}")
