"""Set-ups in which something is wrong: a program says in one sentence what, and leaves the machine as it was."""

import re
import shlex
from dataclasses import replace

import configs
from lab import (
    IGB,
    MACS,
    VF_MACS,
    VLANS,
    VMXNET3,
    Result,
    Setup,
    check_closing,
    check_faults,
    eal,
    iova,
    run_programs,
    sides,
    take,
)
from machine import GuestError, Program
from packets import Udp, Wrong, expect
from traffic import IN_FLIGHT, ISP, LAN

REFUSED = 1  # a program's status
ENOUGH = 15  # seconds for a program to see that it cannot run
LOG = "info,dpdk=error"  # as it is unless asked otherwise
FOREIGN = "02:bb:00:00:00:0b"
FRAMES = 50
VLAN_OF_PF = 100


def faults(lab):
    """A hypervisor with two NICs, the second of them behind a port that isolates nothing, and one of VMware's."""
    links = [lab.link("first"), lab.link("second"), lab.link("third")]
    with lab.machine(iommu=True) as machine:
        machine.add_nic(links[0], f"igb,mac={MACS[0]}")
        machine.add_nic(links[1], f"igb,mac={MACS[1]}", port="ioh3420")
        machine.add_nic(links[2], "vmxnet3")
        guest = lab.start(machine)
        guest.run("load igb")
        first, second = guest.devices(IGB)
        vf = guest.run(f"make_vf {first}")
        take(guest, "vfio-pci", [vf])
        pf_down(lab, guest, vf)
        guest.run(f"vf {first} {VF_MACS[0]}")
        foreign_unicast(lab, guest, vf, links[0])
        filtered_vlan(lab, guest, vf, links[0], first)
        shared_group(lab, guest, second)
        few_descriptors(lab, guest, *guest.devices(VMXNET3))
        no_hugepages(lab, guest, vf)
        # And nothing is broken by all that.
        around = sides(links[0], links[0], VF_MACS[:1] * 2, VLANS)
        run_programs(lab, machine, guest, [vf], around, True, [("nat", ["nat"])], vlans=True)
        check_faults(machine, guest)
        machine.power_off()
        return Result("vfio-pci", iova(True), machine.seen)


def no_iommu(lab):
    """No IOMMU, and a kernel that has no option to do without one, as Debian's."""
    link = lab.link("wire")
    with lab.machine() as machine:
        machine.add_nic(link, f"igb,mac={MACS[0]}")
        guest = lab.start(machine)
        guest.run("load igb vfio_iommu_type1 vfio-pci")
        (pf,) = guest.devices(IGB)
        vf = guest.run(f"vf {pf} {VF_MACS[0]}")
        try:
            guest.run(f"bind vfio-pci {vf}")
        except GuestError:
            pass
        else:
            raise Wrong("vfio-pci takes a device without an IOMMU")
        refused(lab, guest, [vf], router(vf), f'the device "{vf}" .* did not start: no driver has it: .*uio_pci_generic')
        around = sides(link, link, VF_MACS[:1] * 2, VLANS)
        take(guest, "uio_pci_generic", [vf])
        run_programs(lab, machine, guest, [vf], around, False, [("nat", ["nat"])], vlans=True)
        machine.power_off()
        return Result("uio_pci_generic", iova(False), machine.seen)


def router(device, **ports):
    return configs.router(configs.ports(device, **ports), ["monitor"], vlans=True)


def refused(lab, guest, devices, config, sentence):
    """A program that does not start: its status, and its last line, which is its only error."""
    guest.write("/tmp/config.toml", config)
    arguments = shlex.join(["nf-chain", *eal(devices), "--", "--config", "/tmp/config.toml"])
    said, status = guest.status(f"RUST_LOG={LOG} try {ENOUGH} {arguments}", ENOUGH + 5)
    expect(f"the status, after {said!r}", status, REFUSED)
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    if len(errors) != 1 or not re.search(sentence, errors[0]):
        raise Wrong(f"the program says {errors}, and not {sentence!r}")
    lab.say(errors[0])


def warned(lab, program, sentence):
    """A program that runs, and has warned in one sentence."""
    warnings = [line for line in program.log.splitlines() if " WARN " in line and re.search(sentence, line)]
    expect(f"how many lines say {sentence!r} in {program.log}", len(warnings), 1)
    lab.say(re.sub(r"^\[\S+ WARN +\S+\] ", "", warnings[0]))


def pf_down(lab, guest, vf):
    """Nobody has told the virtual function its MAC address."""
    program = Program(guest, "nf-chain", router(vf), eal([vf]), LOG)
    program.wait_until_it_runs()
    warned(lab, program, "its driver has invented its MAC address, .*: the physical function is down")
    check_closing(program.stop())


def foreign_unicast(lab, guest, vf, link):
    """What is for others does not come, though the program asks for everything."""
    wire = 'chain = ["monitor"]\nforwarding = "wire"\n' + configs.ports(vf) + "[monitor]\n"
    refused(lab, guest, [vf], wire, 'forwarding = "wire": the port .* is a virtual function, which gets only frames')
    program, (host, *_) = router_and_hosts(guest, vf, link)
    packet = host.packet(ISP, Udp(1024, 9, b"for somebody else"))
    for number in range(FRAMES):
        host.send(replace(packet, to_mac=FOREIGN))
        if number % IN_FLIGHT == 0:
            # When it answers, it has seen what came before.
            host.forget()
            host.resolve(LAN)
    tables = program.stop()
    balance = check_closing(tables)
    received = received_by(vf, tables)
    if received >= FRAMES:
        raise Wrong(f"of {FRAMES} frames for another station some have come: {balance}")
    lab.say(f"of {FRAMES} frames for another station none has come, of all {received}")


def filtered_vlan(lab, guest, vf, link, pf):
    """The physical function lets one VLAN through, and its driver does not tell a virtual one of refusals."""
    guest.run(f"ip2 link set $(interface {pf}) vf 0 vlan {VLAN_OF_PF}")
    program, stations = router_and_hosts(guest, vf, link)
    for station in stations:
        try:
            station.resolve(station.gateway, questions=3)
        except Wrong:
            continue
        raise Wrong(f"VLAN {station.vlan} comes through, though {VLAN_OF_PF} is what the physical function says")
    tables = program.stop()
    balance = check_closing(tables)
    # The emulated device gives a virtual function its own broadcasts back.
    if received_by(vf, tables) > int(re.search(r"(\d+) originated", balance)[1]):
        raise Wrong(f"frames came through the filter: {balance}")
    lab.say(f"with the VLAN {VLAN_OF_PF} of the physical function, frames of others are not seen")
    guest.run(f"ip2 link set $(interface {pf}) vf 0 vlan 0")


def router_and_hosts(guest, vf, link):
    """A program on one port, and a host on each side."""
    program = Program(guest, "nf-chain", router(vf), eal([vf]), LOG)
    program.wait_until_it_runs()
    link.stations.clear()
    around = sides(link, link, VF_MACS[:1] * 2, VLANS)
    return program, [around.hosts[0], around.isp]


def received_by(port, tables):
    return int(re.search(rf"^{re.escape(port)} +(\d+)", tables, re.MULTILINE)[1])


def shared_group(lab, guest, pf):
    """The physical function is in the group too, and the kernel's."""
    vf = guest.run(f"vf {pf} {VF_MACS[1]}")
    take(guest, "vfio-pci", [vf])
    refused(lab, guest, [vf], router(vf), "VFIO group is not viable! Not all devices in IOMMU group bound to VFIO")


def few_descriptors(lab, guest, device):
    take(guest, "vfio-pci", [device])
    sentence = r"\[ports\] descriptors: port .* takes 512 to 4096 transmit descriptors, not 256$"
    refused(lab, guest, [device], router(device, descriptors=256), sentence)


def no_hugepages(lab, guest, vf):
    reserved = "/proc/sys/vm/nr_hugepages"
    before = guest.run(f"cat {reserved}; echo 0 >{reserved}")
    refused(lab, guest, [vf], router(vf), r"no free hugepages: reserve some as root \(sysctl -w vm.nr_hugepages=")
    guest.run(f"echo {before} >{reserved}")


SETUPS = [
    Setup("faults", "what can be wrong with a virtual function, a NIC, or the memory, on one machine", faults, 150),
    Setup("no-iommu", "vfio-pci without an IOMMU, and then uio_pci_generic", no_iommu, 60),
]
