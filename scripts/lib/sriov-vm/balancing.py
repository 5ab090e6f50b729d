"""What goes through a load balancer in a guest: to a service for each mode, with the hosts inside for backends."""

from collections import deque
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_network

from packets import ACK, ECHO_REPLY, ECHO_REQUEST, NOBODY, PUSH, SYN, TCP, Icmp, Packet, Tcp, Tunnelled, Udp
from packets import Wrong, expect
from traffic import HOST, SERVER, SERVER2, WEB, describe, forwarded, payload

SERVICES = {"dsr": "198.18.0.80", "nat": "198.18.0.81", "full-nat": "198.18.0.82", "ipip": "198.18.0.83"}
BACKENDS = [HOST.format(10), HOST.format(11)]
OWN, TUNNELS = "10.0.0.2", "10.9.0.0/24"
HOPS = 64  # of what begins in the load balancer
SIZES = [4, 5, 18, 19, 512, 1400]
WAITING = 3  # packets for a neighbour that is still being looked for; of more the oldest is dropped


@dataclass
class Backends:
    """All hosts as one that receives: who gets a connection is the load balancer's to say."""

    hosts: list
    link: object
    inbox: deque = field(default_factory=deque)

    def __enter__(self):
        for host in self.hosts:
            host.inbox = self.inbox
        return self

    def __exit__(self, *_):
        for host in self.hosts:
            host.inbox = deque()

    def which(self, mac):
        for host in self.hosts:
            if host.mac == mac:
                return host
        raise Wrong(f"{mac} is no backend's")


def through(sides, exchange, flows=16):
    """Connections of UDP and TCP with each service, and answers as a backend of its mode gives them."""
    number = 0
    with Backends(sides.hosts, sides.hosts[0].link) as backends:
        for mode, service in SERVICES.items():
            where, ports = {}, set()  # by connection: the backend, and what it takes for the client
            sent = []
            for flow in range(flows):
                number += 1
                data = payload(SIZES[flow % len(SIZES)], number)
                tcp = Tcp(4000 + flow, WEB, number << 8, 0, SYN, options=bytes.fromhex("020405b4"))
                body = tcp if flow % 2 else Udp(4000 + flow, WEB, data)
                client = SERVER if flow % 3 else SERVER2
                sent.append(sides.isp.packet(service, body, client, identification=number, hops=2 + flow))
            there = arrives(sides, backends, mode, where)
            exchange.many([(sides.isp, packet) for packet in sent], backends, there, in_flight=WAITING)
            back, further = [], []
            for packet in sent:
                host, seen = where[connection(packet)]
                ports.add((host.mac, packet.body.protocol, seen))
                old = packet.body
                if old.protocol == TCP:
                    answer = Tcp(WEB, seen[1], 0x70000000 + old.sequence, old.sequence + 1, SYN | ACK)
                    body = replace(old, sequence=old.sequence + 1, flags=ACK | PUSH, options=b"", payload=b"a page, please")
                    further.append((sides.isp, replace(packet, body=replace(body, acknowledged=answer.sequence + 1))))
                else:
                    answer = replace(old, source=WEB, destination=seen[1])
                source = host.address if "nat" in mode else service
                back.append((host, host.packet(seen[0], answer, source)))
            expect(f"of {flows} connections by {mode} different ones", len(ports), flows)
            exchange.many(back, sides.isp, answered(sides, service, where))
            exchange.many(further, backends, there)
            expect(f"the backends of {mode}", {host.address for host, _ in where.values()}, set(BACKENDS))
    for service in SERVICES.values():
        body = Icmp(ECHO_REQUEST, 0, b"\x01\x02\0\x01", payload(64, number))
        exchange.one(sides.isp, sides.isp, sides.isp.packet(service, body, SERVER), echoed(sides))


def connection(packet):
    return packet.body.protocol, packet.source, packet.body.source, packet.destination


def arrives(sides, backends, mode, where):
    """The work of each mode, at a backend that stays the same."""

    def expected(packet, got):
        host = backends.which(got.to_mac)
        if mode == "ipip":
            if ip_address(got.source) not in ip_network(TUNNELS):
                raise Wrong(f"{describe(got)} is from none of {TUNNELS}")
            inner = Tunnelled(replace(packet, to_mac=NOBODY, from_mac=NOBODY, vlan=None))
            right = Packet(host.mac, sides.inside_mac, got.source, host.address, inner, HOPS, vlan=host.vlan)
        else:
            right = forwarded(host, sides.inside_mac)(packet, got)
        seen = packet.source, packet.body.source
        if mode == "full-nat":
            seen = OWN, got.body.source
            right = replace(right, source=OWN).with_ports(source=got.body.source)
        if "nat" in mode:
            right = replace(right, destination=host.address)
        expect(f"where {describe(packet)} is", (host, seen), where.setdefault(connection(packet), (host, seen)))
        return right

    return expected


def answered(sides, service, where):
    """What a backend says to whom it takes for the client comes to the client, from the service."""
    out = forwarded(sides.isp, sides.outside_mac)
    clients = {
        (host.mac, protocol, *seen): (address, port) for (protocol, address, port, _), (host, seen) in where.items()
    }

    def expected(packet, got):
        body = packet.body
        address, port = clients[packet.from_mac, body.protocol, packet.destination, body.destination]
        return replace(out(packet, got), source=service, destination=address).with_ports(destination=port)

    return expected


def echoed(sides):
    def expected(packet, _got):
        body = replace(packet.body, kind=ECHO_REPLY)
        ends = {"source": packet.destination, "destination": packet.source}
        return replace(packet, to_mac=sides.isp.mac, from_mac=sides.outside_mac, hops=HOPS, body=body, **ends)

    return expected
