"""Captures for scripts/demo.

demo-capture.py make ALL PASSING     writes a capture of all sorts of frames, and one of those that
                                     port-block lets pass; prints how many it made and how many of
                                     them are to be dropped
demo-capture.py compare EXPECTED GOT  fails unless both hold the same frames in the same order
"""

import struct
import sys
from ipaddress import ip_address

ROUNDS = 100
CLIENT_MAC, SERVER_MAC = bytes.fromhex("020000000001"), bytes.fromhex("020000000002")
CLIENT, SERVER = ip_address("192.0.2.1").packed, ip_address("192.0.2.2").packed
CLIENT6, SERVER6 = ip_address("2001:db8::1").packed, ip_address("2001:db8::2").packed
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58


def checksum(data):
    """The Internet checksum of RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def ethernet(ether_type, payload):
    return (SERVER_MAC + CLIENT_MAC + struct.pack("!H", ether_type) + payload).ljust(60, b"\0")


def ip(source, destination, protocol, segment, checksum_at):
    """IPv4 or IPv6 around a segment whose checksum is still to be filled in."""
    pseudo = b"" if protocol == ICMP else source + destination + struct.pack("!2I", len(segment), protocol)
    filled = struct.pack("!H", checksum(pseudo + segment))
    segment = segment[:checksum_at] + filled + segment[checksum_at + 2 :]
    if len(source) == 16:
        return ethernet(0x86DD, struct.pack("!IHBB", 6 << 28, len(segment), protocol, 64) + source + destination + segment)
    fields = [0x45, 0, 20 + len(segment), 0, 0, 64, protocol, 0, source, destination]
    fields[7] = checksum(struct.pack("!BBHHHBBH4s4s", *fields))
    return ethernet(0x0800, struct.pack("!BBHHHBBH4s4s", *fields) + segment)


def udp(source, destination, source_port, port):
    data = b"port-block"
    segment = struct.pack("!4H", source_port, port, 8 + len(data), 0) + data
    return ip(source, destination, UDP, segment, 6)


def tcp_syn(source, destination, source_port, port):
    segment = struct.pack("!2H2I4H", source_port, port, 1, 0, 0x5002, 65535, 0, 0)
    return ip(source, destination, TCP, segment, 16)


def frames(turn):
    """One frame of each sort, with whether port-block drops it."""
    port = 40000 + turn
    echo = struct.pack("!BBHHH", 8, 0, 0, 1, turn) + bytes(32)
    solicitation = struct.pack("!BBHI", 135, 0, 0, 0) + SERVER6
    request = struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1) + CLIENT_MAC + CLIENT + bytes(6) + SERVER
    return [
        (ethernet(0x0806, request), False),
        (ip(CLIENT, SERVER, ICMP, echo, 2), False),
        (udp(CLIENT, SERVER, port, 53), False),
        (udp(CLIENT, SERVER, port, 9), True),
        (tcp_syn(CLIENT, SERVER, port, 8080), False),
        (tcp_syn(CLIENT, SERVER, port, 8081), True),
        (tcp_syn(CLIENT, SERVER, 8081, port), False),  # from a blocked port, not to one
        (ip(CLIENT6, SERVER6, ICMPV6, solicitation, 2), False),
        (udp(CLIENT6, SERVER6, port, 53), False),
        (tcp_syn(CLIENT6, SERVER6, port, 8081), True),
    ]


def write(path, packets):
    with open(path, "wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        for number, packet in enumerate(packets):
            file.write(struct.pack("<4I", 0, number, len(packet), len(packet)) + packet)


def read(path):
    with open(path, "rb") as file:
        data = file.read()
    packets, at = [], 24
    while at < len(data):
        length = struct.unpack_from("=I", data, at + 8)[0]
        packets.append(data[at + 16 : at + 16 + length])
        at += 16 + length
    return packets


def make(everything, passing):
    made = [pair for turn in range(ROUNDS) for pair in frames(turn)]
    write(everything, [frame for frame, _ in made])
    write(passing, [frame for frame, dropped in made if not dropped])
    print(len(made), sum(dropped for _, dropped in made))


def compare(expected, got):
    expected, got = read(expected), read(got)
    if len(expected) != len(got):
        sys.exit(f"{len(got)} frames came out instead of {len(expected)}")
    for number, (one, other) in enumerate(zip(expected, got), 1):
        if one != other:
            sys.exit(f"frame {number} came out as {other.hex()} instead of {one.hex()}")


{"make": make, "compare": compare}[sys.argv[1]](*sys.argv[2:])
