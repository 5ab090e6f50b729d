"""A backend of the load balancer's as its examples say: their commands, on Debian's kernel in a machine, to which we send
what each mode of the load balancer sends."""

import re
import struct
from dataclasses import dataclass
from pathlib import Path

from lab import HOST_MAC, IGB, MACS, Result, Setup
from packets import ACK, IPV4, NOBODY, PUSH, SYN, Packet, Tcp, Tunnelled, Wrong, expect
from stations import Station
from traffic import ARRIVAL, LAN, SERVER, WEB

EXAMPLES = Path(__file__).parents[3] / "nfs/examples"
SERVICE, BACKEND, TUNNEL = "203.0.113.80", "10.0.0.11", "10.200.0.7"
GRE, UDP, GUE_PORT, DSCP = 47, 17, 6080, 10
QUESTION = b"GET / HTTP/1.0\r\n\r\n"
PAGE = b"a page of the backend"
# As some distributions have it, so that what is said about it is needed.
STRICT = "for file in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >$file; done"


@dataclass(frozen=True)
class Raw:
    """What follows the IP header, as it is."""

    protocol: int
    data: bytes

    def packed(self, _pseudo):
        return self.data


def plain(client, body):
    """By direct return."""
    return client.packet(SERVICE, body, SERVER)


def marked(client, body):
    return client.packet(BACKEND, body, SERVER, tos=DSCP << 2)


def translated(client, body):
    return client.packet(BACKEND, body, SERVER)


def inner(body):
    return Tunnelled(Packet(NOBODY, NOBODY, SERVER, SERVICE, body))


def ipip(client, body):
    return client.packet(BACKEND, inner(body), TUNNEL)


def gre(client, body):
    """RFC 2784."""
    return client.packet(BACKEND, Raw(GRE, struct.pack("!2H", 0, IPV4) + inner(body).packed(None)), TUNNEL)


def gue(client, body):
    """Variant 1, without a checksum."""
    data = inner(body).packed(None)
    return client.packet(BACKEND, Raw(UDP, struct.pack("!4H", 50000, GUE_PORT, 8 + len(data), 0) + data), TUNNEL)


MODES = [
    ("load-balancer", plain, SERVICE),
    ("load-balancer-dscp", marked, SERVICE),
    ("load-balancer-nat", translated, BACKEND),
    ("load-balancer-ipip", ipip, SERVICE),
    ("load-balancer-gre", gre, SERVICE),
    ("load-balancer-gue", gue, SERVICE),
]


def commands(example):
    """What an example has its backends do."""
    text = (EXAMPLES / f"{example}.toml").read_text()
    _, _, text = text.partition("(Linux)")
    found = []
    for line in text.partition("\n")[2].splitlines():
        if not line.startswith("#"):
            break
        if line.startswith("#   "):
            found.append(re.sub(r"\s+# .*", "", line[1:].strip()))
    if not found:
        raise Wrong(f"{example}.toml has no commands for a backend")
    return found


def backend(lab):
    link = lab.link("wire")
    with lab.machine() as machine:
        machine.add_nic(link, f"igb,mac={MACS[0]}")
        guest = lab.start(machine)
        guest.run('modprobe() { load "$@"; }; ip() { ip2 "$@"; }')
        # That nf_tables needs a checksum, none of its dependencies says.
        guest.run("load igb crc32c_generic nf_tables")
        (device,) = guest.devices(IGB)
        guest.run(f"ip link set $(interface {device}) name eth0 && ip link set lo up")
        guest.run(f"ip addr add {BACKEND}/24 dev eth0 && ip link set eth0 up && mkdir /tmp/www")
        guest.run("echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6")
        guest.write("/tmp/www/index.html", PAGE.decode())
        guest.run(f"httpd -p {WEB} -h /tmp/www")
        client = Station(link, HOST_MAC.format(1), LAN, BACKEND)
        expect("the guest's MAC address", client.resolve(BACKEND), MACS[0])
        for number, (example, send, service) in enumerate(MODES):
            if example != "load-balancer-nat":
                # Its way to the clients is one of the commands.
                guest.run(f"ip route replace default via {LAN}")
            guest.run(STRICT)
            done = commands(example)
            for command in done:
                guest.run(command)
            ask(lab, machine, client, send, service, 4000 + number)
            if service == SERVICE and example == "load-balancer":
                keeps_quiet(client)
            lab.say(f"{example}.toml: a page came, after: {'; '.join(done)}")
            guest.run("ip route del default; ip addr flush dev lo; nft flush ruleset; ip link set tunl0 down || :")
        machine.power_off()
        return Result("igb", "-", machine.seen)


def ask(lab, machine, client, send, service, port):
    """A client's connection from its beginning to a page."""
    body = Tcp(port, WEB, 1000, 0, SYN, options=bytes.fromhex("020405b4"))
    client.inbox.clear()
    client.send(send(client, body))
    answer = comes(lab, client, lambda body: body.flags == SYN | ACK, "an answer")
    machine.mark()
    ends = answer.source, answer.destination, answer.body.source, answer.body.destination
    expect("from whom to whom the answer is", ends, (service, SERVER, WEB, port))
    expect("what it acknowledges", answer.body.acknowledged, 1001)
    client.send(send(client, Tcp(port, WEB, 1001, answer.body.sequence + 1, ACK | PUSH, QUESTION)))
    comes(lab, client, lambda body: PAGE in body.payload, "the page")


def comes(lab, client, right, what):
    """Waits for one packet; others, as those that come again, go by."""
    found = None

    def came():
        nonlocal found
        while client.inbox and not found:
            packet = Packet.read(client.inbox.popleft())
            if isinstance(packet.body, Tcp) and right(packet.body):
                found = packet
        return found

    lab.loop.until(came, ARRIVAL, f"{what} of the backend")
    return found


def keeps_quiet(client):
    """It has the service's address, and does not say so."""
    try:
        client.resolve(SERVICE, questions=2)
    except Wrong:
        return
    raise Wrong(f"the backend answers for {SERVICE}")


SETUPS = [Setup("backend", "the commands that the load balancer's examples have for a backend, on Debian's kernel", backend, 120)]
