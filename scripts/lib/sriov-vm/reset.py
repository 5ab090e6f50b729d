"""A NAT with many sessions, whose virtual functions are reset under it by what happens to the physical ones."""

import re
import time
from dataclasses import replace

import configs
from lab import IGB, MACS, VF_MACS, Result, Setup, check_closing, check_faults, eal, iova, sides, take
from machine import Program
from packets import Packet, Udp, Wrong, expect
from traffic import SERVER, Exchange, payload, translated, untranslated, key

SESSIONS = 100_000
# The hosts share the ports of both addresses, as one of them has too few.
NAT = 'sessions = 131072\npooling = "arbitrary"'
TIMEOUTS = "udp = 3000"
FIRST_PORT = 1024
DOWN = 2.0  # seconds for which a physical function is down
RECOVERED = 60.0  # seconds for the program to forward again
PROBE = 0.05  # seconds between packets that ask whether it does


def vf_reset(lab):
    links = [lab.link("inside"), lab.link("outside")]
    with lab.machine(iommu=True) as machine:
        for link, mac in zip(links, MACS):
            machine.add_nic(link, f"igb,mac={mac}")
        guest = lab.start(machine)
        guest.run("load igb")
        pfs = guest.devices(IGB)
        devices = take(guest, "vfio-pci", [guest.run(f"vf {pf} {mac}") for pf, mac in zip(pfs, VF_MACS)])
        around = sides(*links, VF_MACS)
        config = configs.router(configs.ports(*devices), ["nat"], nat=NAT, timeouts=TIMEOUTS)
        program = Program(guest, "nat", config, eal(devices))
        program.wait_until_it_runs()
        around.check_macs()
        exchange = Exchange(machine)
        sent, came = open_sessions(around, exchange)
        lab.say(f"{len(came)} sessions are open")
        for side, pf in zip(("inside", "outside"), pfs):
            seconds = reset(guest, pf, around, sent[0])
            lab.say(f"the {side} physical function was down for {DOWN:.0f} s, and nothing was forwarded for {seconds:.1f} s")
        answer(around, exchange, sent, came)
        lab.say(f"all {len(came)} sessions are as they were: {exchange.count} packets are right")
        tables = program.stop()
        balance = check_closing(tables)
        sessions = int(re.search(r"^nat +.* (\d+)$", tables, re.MULTILINE)[1])
        expect("sessions in the closing table", sessions, SESSIONS)
        log = [re.sub(r"^\[\S+ (\w+) +\S+\]", r"\1", line) for line in program.log.splitlines() if "runtime" in line]
        for line in log[-12:]:
            lab.say(line)
        for line in re.findall(r"^.*(?:built anew|its link|went away).*$", tables, re.MULTILINE):
            lab.say(line)
        lab.say(balance)
        check_faults(machine, guest)
        machine.power_off()
        return Result("vfio-pci", iova(True), machine.seen)


def open_sessions(around, exchange):
    """Each with a packet out; what was sent, and what came."""
    sent = []
    for number in range(SESSIONS):
        host = around.hosts[number % len(around.hosts)]
        body = Udp(FIRST_PORT + number // len(around.hosts), 53, payload(4, number))
        sent.append((host, host.packet(SERVER, body, identification=number & 0xFFFF)))
    came = exchange.many(sent, around.isp, translated(around))
    expect("different external ports", len({(got.source, got.body.source) for got in came}), SESSIONS)
    return sent, came


def answer(around, exchange, sent, came):
    """Every session's answer comes home: to the host and port that it had before."""
    for host in around.hosts:
        back, before = [], {}
        for (sender, packet), got in zip(sent, came):
            if sender is host:
                body = Udp(got.body.destination, got.body.source, packet.body.payload)
                reply = around.isp.packet(got.source, body, SERVER)
                before[key(reply)] = packet.body.source
                back.append((around.isp, reply))
        exchange.many(back, host, untranslated(host, around.inside_mac, before))


def reset(guest, pf, around, probe):
    """Takes a physical function down and up; for how many seconds nothing came through, in and after that time."""
    host, packet = probe
    isp = around.isp
    isp.inbox.clear()
    guest.run(f"ip2 link set $(interface {pf}) down")
    began = time.monotonic()
    host.link.loop.briefly(DOWN)
    guest.run(f"ip2 link set $(interface {pf}) up")
    isp.inbox.clear()
    number = 1 << 24
    while time.monotonic() - began < RECOVERED:
        number += 1
        host.send(replace(packet, body=replace(packet.body, payload=payload(4, number))))
        if host.link.loop.briefly_until(lambda: isp.inbox, PROBE):
            got = Packet.read(isp.inbox.popleft())
            expect("what came through after a reset", got.body.payload[:1], b"\1")
            # What was sent meanwhile may still be on its way.
            host.link.loop.briefly(1.0)
            isp.inbox.clear()
            return time.monotonic() - 1.0 - began
    raise Wrong(f"nothing came through for {RECOVERED:.0f} s after a reset")


SETUPS = [Setup("vf-reset", f"a NAT with {SESSIONS} sessions outlives resets of its virtual functions", vf_reset, 600)]
