"""Packets around a firewall between two hosts, one by one, and which of them come out on the other side.

firewall-packets.py judge FAMILY INSIDE OUTSIDE FILE  sends them from both sides, and writes a line for each case
firewall-packets.py expect FILE...                    fails unless the verdicts are those that are right for this firewall
firewall-packets.py compare OURS LINUX                says where two such files differ, and fails where nobody knows why
firewall-packets.py flood SIDE ADDRESS RATE PORT...   SYNs from many addresses outside to these ports of one address, so many
                                                      a second as far as the machine allows, until it is told to stop

FAMILY is 4 or 6. INSIDE, OUTSIDE and SIDE are NAMESPACE=INTERFACE=MAC, the MAC address being whom packets are sent to there.
No host has the addresses of these packets, so nobody answers. Both firewalls have the same rules: everything may begin
inside, TCP to port 80 and UDP to ports 53 and 4999 outside, over IPv6 also pings, and nothing else.

What a packet was judged is seen by the packets behind it, which may pass and say a number: when they have come through
twice, what came through before was judged as well, and nobody has waited for a time.
"""

import ctypes
import itertools
import os
import random
import signal
import socket
import struct
import sys
import time
from ipaddress import ip_address

CLONE_NEWNET = 0x40000000  # linux/sched.h
PATIENCE = 30.0  # seconds for a packet that has to pass
AGAIN = 1.0  # until it is sent once more
INSIDE, OUTSIDE = "inside", "outside"
ADDRESSES = {
    4: {INSIDE: ip_address("10.66.0.66").packed, OUTSIDE: ip_address("203.0.113.66").packed},
    6: {INSIDE: ip_address("2001:db8:66::66").packed, OUTSIDE: ip_address("2001:db8:77::66").packed},
}
ICMP, TCP, UDP, GRE, ICMPV6 = 1, 6, 17, 47, 58
FIN, SYN, RST, PSH, ACK, URG = 1, 2, 4, 8, 16, 32
WEB, DNS, FENCE, CLOSED = 80, 53, 4999, 81
FENCE_FROM = 4998
FLOOD_FROM, FLOOD_SOURCES = int(ip_address("198.18.0.0")), 1 << 17  # RFC 2544
FLOOD_PACKETS = 1 << 14
WINDOW = 8192


def other(side):
    return OUTSIDE if side == INSIDE else INSIDE


def checksum(data):
    """The Internet checksum of RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class Packets:
    """Packets of one family."""

    def __init__(self, family):
        self.family, self.addresses, self.number = family, ADDRESSES[family], 0

    def ends(self, side):
        return self.addresses[side], self.addresses[other(side)]

    def ip(self, side, protocol, payload, options=b"", fragment=(0, False), length=None, source=None, identification=None):
        """A packet, or a fragment that begins at an offset and has others behind it."""
        source, destination = source or self.ends(side)[0], self.ends(side)[1]
        self.number += 1
        identification = identification or self.number
        offset, more = fragment
        if self.family == 6:
            if offset or more:
                payload = struct.pack("!BBHI", protocol, 0, offset | more, identification) + payload
                protocol = 44
            return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + source + destination + payload
        words = 5 + len(options) // 4
        total = words * 4 + len(payload) if length is None else length
        header = struct.pack(
            "!BBHHHBBH", 0x40 | words, 0, total, identification & 0xFFFF, more << 13 | offset >> 3, 64, protocol, 0
        )
        header += source + destination + options
        return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + payload

    def pseudo(self, side, protocol, length, source=None):
        source, destination = source or self.ends(side)[0], self.ends(side)[1]
        return source + destination + struct.pack("!II", length, protocol)

    def sealed(self, side, protocol, message, at, source=None):
        """With the checksum of a transport, which stands there."""
        sum_ = checksum(self.pseudo(side, protocol, len(message), source) + message)
        return message[:at] + struct.pack("!H", sum_ or 0xFFFF) + message[at + 2 :]

    def segment(self, side, ports, flags, sequence=0, acknowledgment=0, data=b"", offset=5, wrong=0, source=None):
        header = struct.pack("!HHIIBBHHH", *ports, sequence, acknowledgment, offset << 4, flags, WINDOW, 0, 0)
        segment = self.sealed(side, TCP, header + data, 16, source)
        return segment[:16] + struct.pack("!H", int.from_bytes(segment[16:18], "big") ^ wrong) + segment[18:]

    def tcp(self, side, *segment, options=b"", source=None, **more):
        return self.ip(side, TCP, self.segment(side, *segment, source=source, **more), options, source=source)

    def datagram(self, side, ports, data=b"some data", wrong=0, zero=False, length=None):
        header = struct.pack("!HHHH", *ports, 8 + len(data) if length is None else length, 0)
        datagram = self.sealed(side, UDP, header + data, 6)
        sum_ = 0 if zero else int.from_bytes(datagram[6:8], "big") ^ wrong
        return datagram[:6] + struct.pack("!H", sum_) + datagram[8:]

    def udp(self, side, ports, options=b"", **more):
        return self.ip(side, UDP, self.datagram(side, ports, **more), options)

    def icmp(self, side, kind, code, rest, data=b""):
        """`kind` is the type in IPv4 and in IPv6."""
        message = struct.pack("!BBH", kind[self.family == 6], code, 0) + rest + data
        if self.family == 6:
            return self.ip(side, ICMPV6, self.sealed(side, ICMPV6, message, 2))
        return self.ip(side, ICMP, message[:2] + struct.pack("!H", checksum(message)) + message[4:])

    def echo(self, side, asks, identifier):
        return self.icmp(side, (8, 128) if asks else (0, 129), 0, struct.pack("!HH", identifier, 1), b"echo")

    def error(self, side, kind, code, about, rest=b"\0" * 4):
        return self.icmp(side, kind, code, rest, about[:64])

    def fragments(self, side, protocol, message, cuts, identification):
        """Of a message, from each of these offsets to another one."""
        return [
            self.ip(side, protocol, message[begin:end], fragment=(begin, end < len(message)), identification=identification)
            for begin, end in cuts
        ]

    def extended(self, side, headers, protocol, payload):
        """IPv6 with extension headers, each its type and what is behind its first two octets."""
        kinds = [kind for kind, _ in headers] + [protocol]
        chain = b"".join(
            struct.pack("!BB", following, (len(rest) + 2) // 8 - 1) + rest
            for (_, rest), following in zip(headers, kinds[1:])
        )
        return self.ip(side, kinds[0], chain + payload)


PAD = b"\1\4\0\0\0\0"  # PadN: with two octets before it 8
HOP_BY_HOP, DESTINATION, ROUTING = 0, 60, 43


def cases(family):
    """Name, steps, and the verdict about each step. A step is a side, and frames that are sent from there."""
    p = Packets(family)
    found = []
    port = 20000

    def case(name, verdicts, *steps):
        found.append((name, verdicts, [(side, frames if isinstance(frames, list) else [frames]) for side, frames in steps]))

    def fresh():
        nonlocal port
        port += 1
        return port

    def opened(side, to=WEB):
        """A connection that is open: its steps, and what makes segments of it, by side."""
        mine = fresh()
        numbers = {side: 1001, other(side): 5001}

        def ports(of):
            return (mine, to) if of == side else (to, mine)

        def segment(of, flags, sequence=0, data=b"", acknowledgment=0, **more):
            sequence = numbers[of] + sequence & 0xFFFFFFFF
            acknowledgment = numbers[other(of)] + acknowledgment & 0xFFFFFFFF
            return (of, p.tcp(of, ports(of), flags, sequence, acknowledgment, data, **more))

        steps = [
            (side, p.tcp(side, ports(side), SYN, 1000)),
            (other(side), p.tcp(other(side), ports(other(side)), SYN | ACK, 5000, 1001)),
            segment(side, ACK),
        ]
        return steps, segment

    begin, segment = opened(INSIDE)
    case(
        "TCP from inside opens, carries data, closes",
        "+" * 9,
        *begin,
        segment(INSIDE, ACK | PSH, data=b"request"),
        segment(OUTSIDE, ACK, acknowledgment=7),
        segment(OUTSIDE, ACK | PSH, data=b"response", acknowledgment=7),
        segment(INSIDE, ACK | FIN, 7, acknowledgment=8),
        segment(OUTSIDE, ACK | FIN, 8, acknowledgment=8),
        segment(INSIDE, ACK, 8, acknowledgment=9),
    )
    begin, segment = opened(OUTSIDE)
    case("TCP from outside to the open port", "++++", *begin, segment(OUTSIDE, ACK | PSH, data=b"request"))
    case("TCP from outside to a closed port", "-", (OUTSIDE, p.tcp(OUTSIDE, (fresh(), CLOSED), SYN, 1)))
    sets = {
        "no flags": 0,
        "FIN": FIN,
        "FIN+PSH+URG": FIN | PSH | URG,
        "SYN+FIN": SYN | FIN,
        "SYN+RST": SYN | RST,
        "all flags": 63,
        "ACK": ACK,
        "SYN+ACK": SYN | ACK,
        "FIN+ACK": FIN | ACK,
        "RST": RST,
    }
    for name, flags in sets.items():
        case(f"{name} to the open port, of no connection", "-", (OUTSIDE, p.tcp(OUTSIDE, (fresh(), WEB), flags, 1, 1)))
    for name in ("no flags", "FIN", "FIN+PSH+URG", "SYN+FIN"):
        begin, segment = opened(INSIDE)
        case(f"{name} on an open connection", "+++-", *begin, segment(OUTSIDE, sets[name]))
    begin, segment = opened(INSIDE)
    case("data far beyond the window", "+++-", *begin, segment(OUTSIDE, ACK, 1 << 20, b"data"))
    begin, segment = opened(INSIDE)
    case("data far before the window, as if it was sent again", "++++", *begin, segment(OUTSIDE, ACK, -(1 << 20), b"data"))
    begin, segment = opened(INSIDE)
    case("an acknowledgment of what was not sent", "+++-", *begin, segment(OUTSIDE, ACK, acknowledgment=100_000))
    begin, segment = opened(INSIDE)
    case("data sent once more", "+++++", *begin, *[segment(INSIDE, ACK | PSH, data=b"again")] * 2)
    begin, segment = opened(INSIDE)
    case("a SYN once more, while its connection is open", "++++", *begin, (INSIDE, begin[0][1]))
    begin, segment = opened(INSIDE)
    case("a RST with the next number, and data behind it", "+++++", *begin, segment(OUTSIDE, RST), segment(INSIDE, ACK))
    begin, segment = opened(INSIDE)
    case("a RST in the window, but not the next number", "+++-+", *begin, segment(OUTSIDE, RST, 100), segment(INSIDE, ACK))
    begin, segment = opened(INSIDE)
    case("a RST far beyond the window", "+++-", *begin, segment(OUTSIDE, RST, 1 << 20))
    begin, segment = opened(INSIDE)
    case("a packet of a connection from the wrong side", "+++-", *begin, (OUTSIDE, segment(INSIDE, ACK)[1]))
    case("a SYN with a wrong checksum", "-", (INSIDE, p.tcp(INSIDE, (fresh(), WEB), SYN, 1, wrong=0x55)))
    begin, segment = opened(INSIDE)
    case("data with a wrong checksum on an open connection", "++++", *begin, segment(OUTSIDE, ACK, data=b"data", wrong=0x55))
    case("a TCP header of 16 octets", "-", (INSIDE, p.tcp(INSIDE, (fresh(), WEB), SYN, 1, offset=4)))
    case("a TCP header longer than the packet", "-", (INSIDE, p.tcp(INSIDE, (fresh(), WEB), SYN, 1, offset=15)))
    case("half a TCP header", "-", (INSIDE, p.ip(INSIDE, TCP, p.segment(INSIDE, (fresh(), WEB), SYN, 1)[:10])))

    mine = fresh()
    case("UDP from inside, and what answers it", "++", (INSIDE, p.udp(INSIDE, (mine, 7))), (OUTSIDE, p.udp(OUTSIDE, (7, mine))))
    mine = fresh()
    case("an answer from another port", "+-", (INSIDE, p.udp(INSIDE, (mine, 7))), (OUTSIDE, p.udp(OUTSIDE, (8, mine))))
    case("UDP from outside to the open port", "+", (OUTSIDE, p.udp(OUTSIDE, (fresh(), DNS))))
    case("UDP from outside to a closed port", "-", (OUTSIDE, p.udp(OUTSIDE, (fresh(), CLOSED))))
    case("UDP with a wrong checksum", "-", (INSIDE, p.udp(INSIDE, (fresh(), 7), wrong=0x55)))
    case("UDP without a checksum", "+" if family == 4 else "-", (INSIDE, p.udp(INSIDE, (fresh(), 7), zero=True)))
    case("UDP longer than its packet", "-", (INSIDE, p.udp(INSIDE, (fresh(), 7), length=1000)))
    case("half a UDP header", "-", (INSIDE, p.ip(INSIDE, UDP, p.datagram(INSIDE, (fresh(), 7))[:4])))

    case("a ping from inside, and the reply", "++", (INSIDE, p.echo(INSIDE, True, 1)), (OUTSIDE, p.echo(OUTSIDE, False, 1)))
    case("a ping from outside", "-" if family == 4 else "+", (OUTSIDE, p.echo(OUTSIDE, True, 2)))
    case("a reply that nobody has asked for", "-", (OUTSIDE, p.echo(OUTSIDE, False, 3)))
    unreachable, too_big, exceeded = (3, 1), (3, 2), (11, 3)
    mine = fresh()
    asked = p.udp(INSIDE, (mine, 7))
    case("an ICMP error about a live flow", "++", (INSIDE, asked), (OUTSIDE, p.error(OUTSIDE, unreachable, 3, asked)))
    case("an ICMP error about no flow", "-", (OUTSIDE, p.error(OUTSIDE, unreachable, 3, p.udp(INSIDE, (fresh(), 7)))))
    mine = fresh()
    asked = p.udp(INSIDE, (mine, 7))
    case("hops exceeded, of a live flow", "++", (INSIDE, asked), (OUTSIDE, p.error(OUTSIDE, exceeded, 0, asked)))
    begin, segment = opened(INSIDE)
    about = segment(INSIDE, ACK, data=b"data")
    larger = p.error(OUTSIDE, too_big, 4 if family == 4 else 0, about[1], struct.pack("!I", 1400))
    case("a packet is too big, of an open connection", "+++++", *begin, about, (OUTSIDE, larger))
    begin, segment = opened(INSIDE)
    never = segment(INSIDE, ACK, 1 << 30)[1]
    case("an ICMP error about numbers that were never sent", "+++-", *begin, (OUTSIDE, p.error(OUTSIDE, unreachable, 1, never)))
    mine = fresh()
    asked = p.udp(INSIDE, (mine, 7))
    back = p.error(INSIDE, unreachable, 3, asked)
    case("an ICMP error about a flow, going the way of the flow", "+-", (INSIDE, asked), (INSIDE, back))
    if family == 4:
        mine = fresh()
        asked = p.udp(INSIDE, (mine, 7))
        case("a redirect about a live flow", "+-", (INSIDE, asked), (OUTSIDE, p.error(OUTSIDE, (5, 0), 1, asked)))
        case("an ICMP address mask request from outside", "-", (OUTSIDE, p.icmp(OUTSIDE, (17, 0), 0, b"\0" * 8)))

    case("a protocol that has no ports, from inside and back", "++", (INSIDE, p.ip(INSIDE, GRE, b"\0" * 20)), (OUTSIDE, p.ip(OUTSIDE, GRE, b"\0" * 20)))
    case("a protocol that has no ports, from outside", "-", (OUTSIDE, p.ip(OUTSIDE, 103, b"\0" * 20)))

    def split(name, verdicts, protocol, message, *orders):
        identification = fresh()
        case(name, verdicts, *[(OUTSIDE, p.fragments(OUTSIDE, protocol, message, cuts, identification)) for cuts in orders])

    def large(to):
        return p.datagram(OUTSIDE, (fresh(), to), data=b"0123456789abcdef" * 8)

    split("two fragments to the open port", "+", UDP, large(DNS), [(0, 64), (64, 136)])
    split("two fragments to the open port, the second one first", "+", UDP, large(DNS), [(64, 136), (0, 64)])
    split("two fragments to a closed port", "-", UDP, large(CLOSED), [(0, 64), (64, 136)])
    split("a later fragment alone", "-", UDP, large(DNS), [(64, 136)])
    split("a first fragment alone", "+", UDP, large(DNS), [(0, 64)])
    split("a fragment that overlaps the first", "~", UDP, large(DNS), [(0, 64), (32, 136)])
    split("a fragment that begins before the ports of another end", "-", UDP, large(CLOSED), [(8, 136), (0, 64)])
    web = p.segment(OUTSIDE, (fresh(), WEB), SYN, 1)
    split("a tiny first fragment: 8 octets of TCP", "-", TCP, web, [(0, 8), (8, 20)])
    web = p.segment(OUTSIDE, (fresh(), WEB), SYN, 1, data=b"x" * 12)
    split("a first fragment with 16 octets of TCP, without the flags' checksum", "-", TCP, web, [(0, 16), (16, 32)])

    if family == 4:
        group = ip_address("224.0.0.66").packed
        case("a source that is a group", "-", (INSIDE, p.tcp(INSIDE, (fresh(), WEB), SYN, 1, source=group)))
        case("options: a timestamp's room", "+", (INSIDE, p.udp(INSIDE, (fresh(), 7), options=b"\1\1\1\0")))
        lsrr = b"\x83\7\4" + p.addresses[OUTSIDE] + b"\0"
        case("options: a source route", "-", (INSIDE, p.udp(INSIDE, (fresh(), 7), options=lsrr)))
        case("a packet shorter than it says", "-", (INSIDE, p.ip(INSIDE, UDP, p.datagram(INSIDE, (fresh(), 7)), length=500)))
        return found
    for name, kind in (("hop-by-hop options", HOP_BY_HOP), ("destination options", DESTINATION)):
        message = p.datagram(INSIDE, (fresh(), 7))
        case(f"UDP behind {name}, from inside", "+", (INSIDE, p.extended(INSIDE, [(kind, PAD)], UDP, message)))
    for name, to, verdict in (("the open", WEB, "+"), ("a closed", CLOSED, "-")):
        message = p.segment(OUTSIDE, (fresh(), to), SYN, 1)
        packet = p.extended(OUTSIDE, [(DESTINATION, PAD)], TCP, message)
        case(f"TCP behind destination options to {name} port", verdict, (OUTSIDE, packet))
        message = p.segment(OUTSIDE, (fresh(), to), SYN, 1)
        packet = p.extended(OUTSIDE, [(DESTINATION, PAD)] * 3, TCP, message)
        case(f"TCP behind three extension headers to {name} port", verdict, (OUTSIDE, packet))
    message = p.segment(OUTSIDE, (fresh(), WEB), SYN, 1)
    packet = p.extended(OUTSIDE, [(DESTINATION, PAD)] * 40, TCP, message)
    case("TCP behind forty extension headers", "-", (OUTSIDE, packet))
    message = p.segment(OUTSIDE, (fresh(), WEB), SYN, 1)
    route = struct.pack("!BBI", 0, 1, 0) + p.addresses[INSIDE]
    case("a routing header with a stop to come", "-", (OUTSIDE, p.extended(OUTSIDE, [(ROUTING, route)], TCP, message)))
    message = p.segment(OUTSIDE, (fresh(), WEB), SYN, 1)
    packet = p.extended(OUTSIDE, [(DESTINATION, PAD), (HOP_BY_HOP, PAD)], TCP, message)
    case("hop-by-hop options behind other ones", "-", (OUTSIDE, packet))
    for name, to, verdict in (("the open", DNS, "+"), ("a closed", CLOSED, "-")):
        message = p.datagram(OUTSIDE, (fresh(), to))
        atomic = struct.pack("!BBHI", UDP, 0, 0, fresh()) + message
        case(f"a fragment that is the whole packet, to {name} port", verdict, (OUTSIDE, p.ip(OUTSIDE, 44, atomic)))
    identification = fresh()
    chain = struct.pack("!BB", TCP, 0) + PAD + p.segment(OUTSIDE, (fresh(), WEB), SYN, 1, data=b"x" * 4)
    case(
        "a first fragment that ends before the chain of headers does",
        "-",
        (OUTSIDE, p.fragments(OUTSIDE, DESTINATION, chain, [(0, 8), (8, len(chain))], identification)),
    )
    case("no next header", "-", (OUTSIDE, p.ip(OUTSIDE, 59, b"")))
    return found


# Where Linux judges otherwise, with net.netfilter.nf_conntrack_tcp_loose = 0. By the beginning of a case's name.
WHY = {
    "a RST in the window, but not the next number": "Linux lets it pass and waits whether the other end believes it; here it is "
    "dropped, as RFC 5961 section 3 has the receiver do",
    "data with a wrong checksum on an open connection": "here data moves the window and nothing else, and its checksum is left "
    "to the receiver, unless `checksums = \"all\"`",
    "an ICMP error about numbers that were never sent": "Linux does not look at them; here RFC 5927 section 4.1 is followed",
    "a redirect about a live flow": "Linux takes it for related; here only errors are, and a redirect is between neighbours",
    "a first fragment alone": "Linux waits for the others and puts the packet together; here a first fragment is judged when "
    "it comes, and the others follow it",
    "a fragment that overlaps the first": "of both the packet never comes to be; here its first fragment has passed by then",
    "a tiny first fragment": "Linux judges the whole packet once all is there; here a first fragment without its whole header "
    "is dropped (RFC 1858, RFC 3128)",
    "a first fragment with 16 octets of TCP": "the same",
    "a first fragment that ends before the chain": "Linux puts the packet together first; here RFC 7112 is followed",
    "UDP without a checksum": "RFC 8200 section 8.1: in IPv6 it has one; Linux takes 0 for none",
    "TCP behind forty extension headers": "here the work for a packet has a bound, and a longer chain of headers is dropped",
    "a routing header with a stop to come": "RFC 5095; Linux leaves it to rules, which nobody has written here",
    "hop-by-hop options behind other ones": "RFC 8200 section 4.1: they stand first; Linux does not look",
}


class Side:
    """One side's interface: frames go to a MAC address, and what comes in is looked at."""

    def __init__(self, family, argument):
        namespace, interface, mac = argument.split("=")
        with open(f"/run/netns/{namespace}") as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
                sys.exit(f"setns {namespace}: {os.strerror(ctypes.get_errno())}")
        with open("/proc/net/dev") as devices:
            if not any(line.split(":")[0].strip() == interface for line in devices):
                sys.exit(f"there is no {interface} in {namespace}")
        everything = 3  # ETH_P_ALL, linux/if_ether.h
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(everything))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.bind((interface, everything))
        own = self.socket.getsockname()[4]
        self.header = bytes.fromhex(mac.replace(":", "")) + own + (b"\x08\0" if family == 4 else b"\x86\xdd")

    def send(self, packet):
        self.socket.send((self.header + packet).ljust(60, b"\0"))

    def received(self, seconds):
        """The next packet that has come in, or nothing."""
        self.socket.settimeout(seconds)
        try:
            frame, (_, _, kind, *_) = self.socket.recvfrom(1 << 16)
        except TimeoutError:
            return None
        outgoing = 4  # PACKET_OUTGOING, linux/if_packet.h
        return b"" if kind == outgoing or frame[12:14] != self.header[12:14] else frame[14:]


class Judge:
    def __init__(self, family, inside, outside):
        self.packets = Packets(family)
        self.sides = {INSIDE: Side(family, inside), OUTSIDE: Side(family, outside)}
        self.sent = 0
        self.source, self.ports = ((12, 20), (8, 40))[family == 6]

    def number_of(self, packet):
        """What a packet says that is only to come through, or nothing."""
        at = self.ports
        protocol = packet[9] if self.packets.family == 4 else packet[6]
        if protocol != UDP or packet[at : at + 4] != struct.pack("!HH", FENCE_FROM, FENCE):
            return None
        return int.from_bytes(packet[at + 8 : at + 16], "big")

    def behind(self, side):
        """Counts what has come through from this side, up to a packet that is sent now."""
        address = self.packets.ends(side)[0]
        found, deadline = 0, time.monotonic() + PATIENCE
        while True:
            self.sent += 1
            self.sides[side].send(self.packets.udp(side, (FENCE_FROM, FENCE), data=struct.pack("!Q", self.sent)))
            again = time.monotonic() + AGAIN
            while (left := again - time.monotonic()) > 0:
                packet = self.sides[other(side)].received(left)
                if not packet or packet[self.source : self.source + len(address)] != address:
                    continue
                number = self.number_of(packet)
                if number == self.sent:
                    return found
                found += number is None
            if time.monotonic() > deadline:
                sys.exit(f"from {side} nothing comes through in {PATIENCE:.0f} s")

    def verdict(self, side, frames):
        # Twice: a packet may have been with another processor when the first one passed it.
        self.behind(side)
        for frame in frames:
            self.sides[side].send(frame)
        passed = self.behind(side) + self.behind(side)
        return "-" if passed == 0 else "+" if passed >= len(frames) else "~"


def judge(family, inside, outside, file):
    # One after the other, as they are sent.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    judges = Judge(int(family), inside, outside)
    with open(file, "w") as lines:
        for name, _, steps in cases(int(family)):
            verdicts = "".join(judges.verdict(*step) for step in steps)
            print(f"IPv{family}: {name}", verdicts, sep="\t", file=lines)


def read(file):
    with open(file) as lines:
        return dict(line.rstrip("\n").split("\t") for line in lines)


def expect(*files):
    right = {f"IPv{family}: {name}": verdicts for family in (4, 6) for name, verdicts, _ in cases(family)}
    wrong = packets = 0
    for file in files:
        for name, verdicts in read(file).items():
            packets += len(verdicts)
            if verdicts != right[name]:
                wrong += 1
                print(f"{name}: {verdicts}, and not {right[name]}")
    print(f"{packets} packets in {sum(len(read(file)) for file in files)} cases, {wrong} cases judged wrongly")
    sys.exit(wrong > 0)


def compare(ours, linux):
    ours, linux = read(ours), read(linux)
    unknown = differences = 0
    for name, verdicts in ours.items():
        if linux[name] == verdicts:
            continue
        differences += 1
        why = next((why for begin, why in WHY.items() if name.split(": ", 1)[1].startswith(begin)), None)
        unknown += why is None
        print(f"{name}: {verdicts}, Linux {linux[name]}")
        print(f"    {why or 'nobody knows why'}")
    print(f"{differences} of {len(ours)} cases differ, {unknown} of them without a reason")
    sys.exit(unknown > 0)


def flood(side, address, rate, *ports):
    packets = Packets(4)
    packets.addresses = {INSIDE: ip_address(address).packed, OUTSIDE: None}
    made = []
    for port, _ in zip(itertools.cycle(map(int, ports)), range(FLOOD_PACKETS)):
        source = struct.pack("!I", FLOOD_FROM + random.randrange(FLOOD_SOURCES))
        made.append(packets.tcp(OUTSIDE, (random.randrange(1024, 65536), port), SYN, random.getrandbits(32), source=source))
    outside = Side(4, side)
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(True))
    begun, sent = time.monotonic(), 0
    for packet in itertools.cycle(made):
        if told:
            break
        try:
            outside.send(packet)
            sent += 1
        except OSError:
            pass  # there is no room
        if sent % 64 == 0:
            time.sleep(max(0.0, begun + sent / int(rate) - time.monotonic()))
    seconds = time.monotonic() - begun
    print(f"{sent} SYNs in {seconds:.1f} s, {sent / seconds:.0f} a second")


{"judge": judge, "expect": expect, "compare": compare, "flood": flood}[sys.argv[1]](*sys.argv[2:])
