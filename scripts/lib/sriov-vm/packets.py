"""Packets as bytes. All of it is written down here once more, so that it shares nothing with what it judges.

A packet that is read has been checked: its lengths, and every checksum by adding it up again.
"""

import struct
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

ARP, IPV4, TAG = 0x0806, 0x0800, 0x8100
ICMP, IPIP, TCP, UDP = 1, 4, 6, 17
ECHO_REPLY, ECHO_REQUEST, TIME_EXCEEDED = 0, 8, 11
FIN, SYN, PUSH, ACK = 1, 2, 8, 16
BROADCAST, NOBODY = "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00"
SHORTEST = 60  # bytes of a frame without its check sequence


class Wrong(Exception):
    """A packet is not as it has to be."""


def expect(what, seen, right):
    if seen != right:
        raise Wrong(f"{what}: {seen} and not {right}")


def mac_bytes(mac):
    return bytes.fromhex(mac.replace(":", ""))


def mac_text(raw):
    return raw.hex(":")


def checksum(*parts):
    """RFC 1071."""
    data = b"".join(parts)
    data += bytes(len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def checksummed(header, at, *around):
    """The header with the checksum over it, and over what is around it, in its place; only the last part may be odd."""
    total = checksum(header[:at], b"\0\0", header[at + 2 :], *around)
    return header[:at] + struct.pack("!H", total) + header[at + 2 :]


@dataclass(frozen=True)
class Udp:
    source: int
    destination: int
    payload: bytes = b""
    protocol = UDP

    def packed(self, pseudo):
        length = 8 + len(self.payload)
        header = struct.pack("!4H", self.source, self.destination, length, 0)
        header = checksummed(header, 6, pseudo(UDP, length), self.payload)
        # RFC 768: a sum of zero is sent as its other form.
        return header[:6] + (header[6:].replace(b"\0\0", b"\xff\xff")) + self.payload

    @classmethod
    def read(cls, data, pseudo):
        source, destination, length, _ = struct.unpack("!4H", data[:8])
        expect("the UDP length", length, len(data))
        expect("the UDP checksum, added up", checksum(pseudo(UDP, len(data)), data), 0)
        return cls(source, destination, data[8:])


@dataclass(frozen=True)
class Tcp:
    source: int
    destination: int
    sequence: int
    acknowledged: int
    flags: int
    payload: bytes = b""
    options: bytes = b""
    window: int = 0xFFFF
    protocol = TCP

    def packed(self, pseudo):
        offset_and_flags = (5 + len(self.options) // 4) << 12 | self.flags
        fields = (self.source, self.destination, self.sequence, self.acknowledged, offset_and_flags, self.window, 0, 0)
        header = struct.pack("!2H2I4H", *fields) + self.options
        return checksummed(header, 16, pseudo(TCP, len(header) + len(self.payload)), self.payload) + self.payload

    @classmethod
    def read(cls, data, pseudo):
        expect("the TCP checksum, added up", checksum(pseudo(TCP, len(data)), data), 0)
        *fields, offset_and_flags, window, _, urgent = struct.unpack("!2H2I4H", data[:20])
        expect("the urgent pointer", urgent, 0)
        length = (offset_and_flags >> 12) * 4
        return cls(*fields, offset_and_flags & 0xFFF, data[length:], data[20:length], window)


@dataclass(frozen=True)
class Icmp:
    kind: int
    code: int
    rest: bytes  # of the header: an echo's identifier and sequence number
    payload: bytes = b""
    protocol = ICMP

    def packed(self, _pseudo):
        return checksummed(struct.pack("!2BH", self.kind, self.code, 0) + self.rest, 2, self.payload) + self.payload

    @classmethod
    def read(cls, data, _pseudo):
        expect("the ICMP checksum, added up", checksum(data), 0)
        return cls(data[0], data[1], data[4:8], data[8:])


@dataclass(frozen=True)
class Tunnelled:
    """IP in IP: RFC 2003."""

    packet: "Packet"  # whose MAC addresses mean nothing
    protocol = IPIP

    def packed(self, _pseudo):
        packed = self.packet.packed()[14:]
        return packed[: int.from_bytes(packed[2:4], "big")]

    @classmethod
    def read(cls, data, _pseudo):
        return cls(Packet.read(frame(NOBODY, NOBODY, IPV4, data)))


@dataclass(frozen=True)
class Packet:
    """IPv4 in an Ethernet frame."""

    to_mac: str
    from_mac: str
    source: str
    destination: str
    body: Udp | Tcp | Icmp | Tunnelled
    hops: int = 64
    identification: int = 0
    may_fragment: bool = False
    vlan: int | None = None
    tos: int = 0

    def with_ports(self, source=None, destination=None):
        ports = {"source": source, "destination": destination}
        known = {name: port for name, port in ports.items() if port is not None}
        return replace(self, body=replace(self.body, **known))

    def packed(self):
        addresses = IPv4Address(self.source).packed + IPv4Address(self.destination).packed

        def pseudo(protocol, length):
            return addresses + struct.pack("!2H", protocol, length)

        body = self.body.packed(pseudo)
        flags = 0 if self.may_fragment else 0x4000
        fields = (0x45, self.tos, 20 + len(body), self.identification, flags, self.hops, self.body.protocol, 0)
        header = checksummed(struct.pack("!2B3H2BH", *fields) + addresses, 10)
        return frame(self.to_mac, self.from_mac, IPV4, header + body, self.vlan)

    @classmethod
    def read(cls, data):
        to_mac, from_mac, kind, vlan, data = split(data)
        expect("the type", kind, IPV4)
        version, tos, length, identification, flags, hops, protocol, _ = struct.unpack("!2B3H2BH", data[:12])
        expect("version and header length", version, 0x45)
        expect("the IPv4 checksum, added up", checksum(data[:20]), 0)
        source, destination = (str(IPv4Address(data[at : at + 4])) for at in (12, 16))
        addresses, padding, data = data[12:20], data[length:], data[20:length]
        expect("what stands behind the packet", padding.strip(b"\0"), b"")

        def pseudo(protocol, length):
            return addresses + struct.pack("!2H", protocol, length)

        bodies = {UDP: Udp, TCP: Tcp, ICMP: Icmp, IPIP: Tunnelled}
        if protocol not in bodies:
            raise Wrong(f"a packet of protocol {protocol}")
        body = bodies[protocol].read(data, pseudo)
        may_fragment = {0: True, 0x4000: False}.get(flags)
        if may_fragment is None:
            raise Wrong(f"a fragment: {flags:#06x}")
        return cls(to_mac, from_mac, source, destination, body, hops, identification, may_fragment, vlan, tos)


def frame(to_mac, from_mac, kind, data, vlan=None):
    tag = b"" if vlan is None else struct.pack("!2H", TAG, vlan)
    whole = mac_bytes(to_mac) + mac_bytes(from_mac) + tag + struct.pack("!H", kind) + data
    return whole.ljust(SHORTEST, b"\0")


def split(data):
    """MAC addresses, type, VLAN, and what the frame carries."""
    to_mac, from_mac, (kind,) = mac_text(data[:6]), mac_text(data[6:12]), struct.unpack("!H", data[12:14])
    if kind == TAG:
        tag, kind = struct.unpack("!2H", data[14:18])
        return to_mac, from_mac, kind, tag & 0xFFF, data[18:]
    return to_mac, from_mac, kind, None, data[14:]


@dataclass(frozen=True)
class Arp:
    """RFC 826."""

    is_reply: bool
    sender_mac: str
    sender: str
    target_mac: str
    target: str

    def packed(self):
        head = struct.pack("!2H2BH", 1, IPV4, 6, 4, 2 if self.is_reply else 1)
        parts = [(self.sender_mac, self.sender), (self.target_mac, self.target)]
        return head + b"".join(mac_bytes(mac) + IPv4Address(address).packed for mac, address in parts)

    @classmethod
    def read(cls, data):
        expect("the ARP header", data[:6], struct.pack("!2H2B", 1, IPV4, 6, 4))
        operation, sender_mac, sender, target_mac, target = struct.unpack("!H6s4s6s4s", data[6:28])
        mac = mac_text
        return cls(operation == 2, mac(sender_mac), str(IPv4Address(sender)), mac(target_mac), str(IPv4Address(target)))
