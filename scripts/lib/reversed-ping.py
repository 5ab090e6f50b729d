"""Sends an echo request whose fragments go last to first, and fails unless the same data comes back.

reversed-ping.py ADDRESS BYTES    prints how many fragments the request had

Sockets that take whole IP packets leave the sending order to us, and routes and neighbours to the
kernel; those that read ICMP get the reply when the kernel has put it together.
"""

import os
import socket
import struct
import sys

PIECE = 1200  # bytes of data in a fragment, a multiple of 8; with all headers it fits into any link's MTU
PATIENCE = 5.0  # seconds
IDENTIFIER = os.getpid() & 0xFFFF


def checksum(data):
    """The Internet checksum of RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def echo(kind, data, pseudo=b""):
    message = struct.pack("!BBHHH", kind, 0, 0, IDENTIFIER, 1) + data
    return message[:2] + struct.pack("!H", checksum(pseudo + message)) + message[4:]


def pieces(message):
    """Offset, whether more follow, and data, in the order in which a host would send them."""
    return [(at, at + PIECE < len(message), message[at : at + PIECE]) for at in range(0, len(message), PIECE)]


def fragments4(source, destination, data):
    message = echo(8, data)
    for at, more, piece in pieces(message):
        # The kernel writes the lengths and the header's checksum (raw(7)).
        header = struct.pack("!BBHHHBBH", 0x45, 0, 0, IDENTIFIER, more << 13 | at >> 3, 64, socket.IPPROTO_ICMP, 0)
        yield header + source + destination + piece


def fragments6(source, destination, data):
    pseudo = source + destination + struct.pack("!2I", 8 + len(data), socket.IPPROTO_ICMPV6)
    message = echo(128, data, pseudo)
    for at, more, piece in pieces(message):
        header = struct.pack("!IHBB", 6 << 28, 8 + len(piece), socket.IPPROTO_FRAGMENT, 64)
        fragment = struct.pack("!BBHI", socket.IPPROTO_ICMPV6, 0, at | more, IDENTIFIER)
        yield header + source + destination + fragment + piece


def source_to(family, address):
    """The address from which the kernel would send there."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return socket.inet_pton(family, probe.getsockname()[0])


def main(address, size):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    is_v6 = family == socket.AF_INET6
    icmp = socket.IPPROTO_ICMPV6 if is_v6 else socket.IPPROTO_ICMP
    data = os.urandom(size)
    make = fragments6 if is_v6 else fragments4
    fragments = list(make(source_to(family, address), socket.inet_pton(family, address), data))

    replies = socket.socket(family, socket.SOCK_RAW, icmp)
    replies.settimeout(PATIENCE)
    sender = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW)
    for fragment in reversed(fragments):
        sender.sendto(fragment, (address, 0))

    wanted = struct.pack("!BB", 129 if is_v6 else 0, 0)
    while True:
        try:
            packet = replies.recv(1 << 17)
        except TimeoutError:
            sys.exit(f"no reply in {PATIENCE:.0f} s to a request in {len(fragments)} fragments")
        message = packet if is_v6 else packet[(packet[0] & 0xF) * 4 :]
        if message[:2] == wanted and message[4:8] == struct.pack("!HH", IDENTIFIER, 1):
            break
    if message[8:] != data:
        sys.exit(f"the reply has {len(message) - 8} bytes, and not those that were sent")
    print(len(fragments))


main(sys.argv[1], int(sys.argv[2]))
