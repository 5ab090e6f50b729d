"""The set-ups: what is in each machine, and what has to be seen there."""

import re
from dataclasses import dataclass

import configs
import traffic
from machine import Guest, Machine, Program
from packets import Wrong, expect
from stations import Link, Station
from traffic import ISP, LAN, LAN_VLAN, SERVER, SERVER2, WAN, WAN_VLAN, A, B, Exchange, Sides

IGB = "0x8086:0x10c9"
# As the hypervisor gives them: to the physical functions, and by them to the virtual ones.
PF_MACS = ["52:54:00:00:00:01", "52:54:00:00:00:02"]
VF_MACS = ["02:00:00:00:00:10", "02:00:00:00:01:10"]
HOST_MACS = ["02:aa:00:00:00:0a", "02:aa:00:00:00:0b"]
ISP_MAC = "02:aa:00:00:00:fe"
EAL = ["-l", "0", "--in-memory", "--no-telemetry"]


@dataclass
class Lab:
    """What a set-up is tried in."""

    loop: object
    tools: object
    directory: str
    images: dict
    patience: int

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


def sides(inside, outside, macs, vlans=False):
    """Hosts inside and a provider outside, none of whom has heard of anybody."""
    lan, wan = (LAN_VLAN, WAN_VLAN) if vlans else (None, None)
    hosts = [Station(inside, mac, address, LAN, vlan=lan) for mac, address in zip(HOST_MACS, (A, B))]
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


def check_faults(machine, *guests):
    faults = machine.faults() + [line for guest in guests for line in guest.faults()]
    if faults:
        raise Wrong(f"{len(faults)} accesses were refused by an IOMMU, such as {faults[0]!r}")


def run_programs(machine, guest, devices, around, iova, iommu, programs, flows=24, vlans=False, eal=()):
    """Programs one after the other, each with traffic through it, stopped as a service manager would."""
    arguments = [*EAL, *eal, *(argument for device in devices for argument in ("-a", device))]
    for name, functions in programs:
        config = configs.router(configs.ports(*devices), functions, vlans)
        program = Program(guest, name, config, arguments)
        program.wait_until_it_runs()
        check_iova(program, iova, iommu)
        around.forget()
        around.check_macs()
        exchange = Exchange(machine)
        (traffic.through_nat if "nat" in functions else traffic.through_router)(around, exchange, flows)
        around.check_strays()
        check_closing(program.stop())
    return exchange


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
        guest.run("load igb vfio_iommu_type1 vfio-pci")
        devices = [guest.run(f"vf {pf} {mac}") for pf, mac in zip(guest.devices(IGB), VF_MACS)]
        guest.run(f"bind vfio-pci {' '.join(devices)}")
        run_programs(machine, guest, devices, sides(*links, VF_MACS), "VA", True, EVERY_FUNCTION)
        check_faults(machine, guest)
        machine.power_off()
        return Result("vfio-pci", "VA, IOMMU", machine.seen)


SETUPS = [
    Setup("vfs", "two virtual functions (igb), vfio-pci behind an emulated VT-d: each function", vfs, 120, quick=True),
]
