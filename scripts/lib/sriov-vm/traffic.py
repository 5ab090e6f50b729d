"""What goes through a program in a guest, and what has to come of it."""

from dataclasses import dataclass, replace

from packets import ACK, ECHO_REPLY, ECHO_REQUEST, FIN, ICMP, IPIP, PUSH, SYN, TCP, UDP, Icmp, Packet, Tcp, Udp, Wrong, expect

IN_FLIGHT = 8  # frames: a unix socket holds few
ARRIVAL = 15.0  # seconds for a packet, on a machine that may be busy

# The hosts inside, and the server behind the provider's router outside.
HOST, LAN = "10.0.0.{}", "10.0.0.1"
WAN, ISP, SERVER, SERVER2 = "198.51.100.1", "198.51.100.254", "203.0.113.10", "203.0.113.11"
POOL = ["198.51.100.8", "198.51.100.9"]
LAN_VLAN, WAN_VLAN = 10, 20
WEB = 80


@dataclass
class Sides:
    """Who stands around a router: two hosts inside, and a provider outside with servers behind it."""

    hosts: list
    isp: object
    inside_mac: str  # of our ports, as whoever made them has set them
    outside_mac: str

    def forget(self):
        for station in (*self.hosts, self.isp):
            station.forget()

    def check_macs(self):
        """Who answers by ARP has the address that the port was given."""
        expect("the MAC address of the port inside", self.hosts[0].resolve(LAN), self.inside_mac)
        expect("the MAC address of the port outside", self.isp.resolve(WAN), self.outside_mac)

    def check_strays(self):
        for link in {station.link.name: station.link for station in (*self.hosts, self.isp)}.values():
            if link.strays:
                raise Wrong(f"{len(link.strays)} frames on {link.name} are for nobody, such as {link.strays[0].hex()}")


class Exchange:
    """Packets that are sent by one station and come to another; each is looked at from the first byte to the last."""

    def __init__(self, machine):
        self.machine = machine
        self.count = 0

    def one(self, sender, receiver, packet, expected):
        return self.many([(sender, packet)], receiver, expected)[0]

    def many(self, sent, receiver, expected, in_flight=IN_FLIGHT):
        """`expected` makes of the packet that was sent and of the one that came what should have come. Packets of
        one flow keep their order, and others are told apart by what they carry."""
        came = []
        waiting = {}
        receiver.inbox.clear()
        loop = receiver.link.loop
        todo = list(reversed(sent))
        while todo or waiting:
            while todo and len(waiting) < in_flight:
                sender, packet = todo.pop()
                waiting[key(packet)] = packet
                sender.send(packet)
            some = next(iter(waiting.values()))
            what = f"{describe(some)} does not come through, nor do {len(waiting) - 1} others"
            loop.until(lambda: receiver.inbox, ARRIVAL, what)
            self.machine.mark()
            while receiver.inbox:
                data = receiver.inbox.popleft()
                got = Packet.read(data)
                packet = waiting.pop(key(got), None)
                if packet is None:
                    raise Wrong(f"nobody has sent what came as {describe(got)}")
                right = expected(packet, got)
                if right.packed() != data:
                    raise Wrong(f"{describe(packet)} has become {got}, and not {right}")
                self.count += 1
                came.append((packet, got))
        order = {id(packet): place for place, (_, packet) in enumerate(sent)}
        return [got for _, got in sorted(came, key=lambda pair: order[id(pair[0])])]


def key(packet):
    """What translation and tunnels leave as it is."""
    body = packet.body
    while body.protocol == IPIP:
        body = body.packet.body
    return body.protocol, body.payload, getattr(body, "sequence", None)


def describe(packet):
    body = packet.body
    if body.protocol == IPIP:
        return f"IP in IP of {packet.source} to {packet.destination}, {describe(body.packet)}"
    ports = (f" port {body.source}", f" port {body.destination}") if body.protocol != ICMP else ("", "")
    name = {UDP: "UDP", TCP: "TCP", ICMP: "ICMP"}[body.protocol]
    return f"{name} of {packet.source}{ports[0]} to {packet.destination}{ports[1]}, {len(body.payload)} bytes"


def forwarded(receiver, mac):
    """A router's work: the MAC addresses of the next link, its VLAN, and a hop less."""

    def expected(packet, _got):
        return replace(packet, to_mac=receiver.mac, from_mac=mac, vlan=receiver.vlan, hops=packet.hops - 1)

    return expected


def payload(size, number):
    """Bytes that no other packet has."""
    return (number.to_bytes(4, "big") + bytes(range(256)) * 6)[:size]


SIZES = [4, 5, 18, 19, 512, 1472]


def through_router(sides, exchange, flows=24):
    """Back and forth, as it is but for what a router does."""
    out = forwarded(sides.isp, sides.outside_mac)
    number = 0
    for host in sides.hosts:
        sent, back = [], []
        for flow in range(flows):
            number += 1
            data = payload(SIZES[flow % len(SIZES)], number)
            body = Udp(1024 + flow, 53, data) if flow % 2 else Tcp(1024 + flow, 80, number, 7, PUSH | ACK, data[:1460])
            if flow % 8 == 7:
                body = Icmp(ECHO_REQUEST, 0, number.to_bytes(4, "big"), data)
            sent.append((host, host.packet(SERVER, body, identification=number, hops=2 + flow)))
        for got in exchange.many(sent, sides.isp, out):
            body = got.body
            if body.protocol == ICMP:
                answer = replace(body, kind=ECHO_REPLY)
            else:
                answer = replace(body, source=body.destination, destination=body.source)
            back.append((sides.isp, sides.isp.packet(got.source, answer, SERVER)))
        exchange.many(back, host, forwarded(host, sides.inside_mac))


def translated(sides):
    """A NAT's work on the way out: an address of the pool, and a port that we can only learn."""
    out = forwarded(sides.isp, sides.outside_mac)

    def expected(packet, got):
        if got.source not in POOL:
            raise Wrong(f"{describe(packet)} came from {got.source}, which is not in the pool")
        right = replace(out(packet, got), source=got.source)
        if packet.may_fragment:
            right = replace(right, identification=got.identification)
        if got.body.protocol == ICMP:
            return replace(right, body=replace(packet.body, rest=got.body.rest[:2] + packet.body.rest[2:]))
        return right.with_ports(source=got.body.source)

    return expected


def untranslated(host, inside_mac, before):
    """And on the way back: what the host knows itself by."""
    home = forwarded(host, inside_mac)

    def expected(packet, got):
        right = replace(home(packet, got), destination=host.address)
        if packet.body.protocol == ICMP:
            return replace(right, body=replace(packet.body, rest=before[key(packet)] + packet.body.rest[2:]))
        return right.with_ports(destination=before[key(packet)])

    return expected


def through_nat(sides, exchange, flows=24):
    """Sessions of each host; returns the external ports by their protocol and inside endpoint."""
    external = {}
    home = lambda host, before: untranslated(host, sides.inside_mac, before)  # noqa: E731
    sessions(sides, exchange, flows, external, (translated(sides), home, known(sides, external)))
    for what in (UDP, TCP, ICMP):
        seen = [endpoint for (protocol, *_), endpoint in external.items() if protocol == what]
        expect(f"of {len(seen)} sessions' external ports different ones", len(set(seen)), len(seen))
    return external


def through_firewall(sides, exchange, flows=24):
    """Sessions that are let out, with their answers; and of what comes to hosts unasked, what a rule lets in."""
    out = forwarded(sides.isp, sides.outside_mac)
    home = lambda host, _: forwarded(host, sides.inside_mac)  # noqa: E731
    sessions(sides, exchange, flows, {}, (out, home, out))
    host = sides.hosts[0]
    for number, (port, flags) in enumerate([(WEB + 1, SYN), (WEB, ACK), (WEB + 2, SYN | ACK)]):
        refused = Tcp(5000 + number, port, 1, 1, flags, b"nobody has asked for this")
        sides.isp.send(sides.isp.packet(host.address, refused, source=SERVER))
        sides.isp.send(sides.isp.packet(host.address, Udp(5000 + number, WEB, b"nor for this"), source=SERVER))
        # What comes behind them comes alone.
        let_in = Tcp(6000 + number, WEB, number, 0, SYN)
        packet = sides.isp.packet(host.address, let_in, source=SERVER)
        exchange.one(sides.isp, host, packet, forwarded(host, sides.inside_mac))


def sessions(sides, exchange, flows, external, expected):
    """Sessions of UDP, TCP and ICMP of each host. What is expected: what becomes of a packet on the way out; on the way
    home, by the host and by what it knows itself by; and of those behind the first ones. `external` learns what the
    hosts are known by outside."""
    out, home, again = expected
    number = 0
    for host in sides.hosts:
        sent, before = [], {}
        for flow in range(flows):
            number += 1
            data = payload(SIZES[flow % len(SIZES)], number)
            match flow % 4:
                case 0 | 2:
                    body = Udp(2000 + flow, 53, data)
                case 1:
                    body = Tcp(2000 + flow, 80, number << 8, 0, SYN, options=bytes.fromhex("020405b4"))
                case 3:
                    body = Icmp(ECHO_REQUEST, 0, (3000 + flow).to_bytes(2, "big") + b"\0\1", data)
            fields = {"identification": number, "hops": 2 + flow % 60, "may_fragment": flow % 4 == 2}
            sent.append((host, host.packet(SERVER if flow % 5 else SERVER2, body, **fields)))
        came = exchange.many(sent, sides.isp, out)
        back, further = [], []
        for (_, packet), got in zip(sent, came):
            old, new = packet.body, got.body
            inside = old.source if old.protocol != ICMP else old.rest[:2]
            outside = new.source if new.protocol != ICMP else new.rest[:2]
            external[old.protocol, host.address, inside] = got.source, outside
            if new.protocol == ICMP:
                answer = replace(new, kind=ECHO_REPLY)
            elif new.protocol == UDP:
                answer = replace(new, source=new.destination, destination=new.source)
            else:
                sequence = 0x70000000 + new.sequence
                answer = Tcp(new.destination, new.source, sequence, new.sequence + 1, SYN | ACK)
                acknowledgement = replace(old, sequence=old.sequence + 1, acknowledged=sequence + 1, flags=ACK)
                acknowledgement = replace(acknowledgement, options=b"")
                push = replace(acknowledgement, flags=ACK | PUSH | FIN, payload=b"a page, please")
                further += [(host, replace(packet, body=body)) for body in (acknowledgement, push)]
            packet = sides.isp.packet(got.source, answer, source=packet.destination)
            before[key(packet)] = inside
            back.append((sides.isp, packet))
        exchange.many(back, host, home(host, before))
        exchange.many(further, sides.isp, again)


def known(sides, external):
    """What a session has had before, it has again."""
    first = translated(sides)

    def expected(packet, got):
        right = first(packet, got)
        seen = got.source, got.body.source
        expect("external address and port", seen, external[TCP, packet.source, packet.body.source])
        return right

    return expected
