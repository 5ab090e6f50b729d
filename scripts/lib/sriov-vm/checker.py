"""The checker itself, without a machine: it has to refuse what is wrong."""

from dataclasses import replace
from struct import error as StructError

from lab import Result, Setup
from packets import ACK, NOBODY, PUSH, Icmp, Packet, Tcp, Tunnelled, Udp, Wrong, checksum, expect

# The header of an IPv4 packet as RFC 1071's method makes it; the last number is what its checksum has to be.
HEADER = bytes.fromhex("4500 0073 0000 4000 4011 0000 c0a8 0001 c0a8 00c7")
CHECKSUM = 0xB861


def checker(lab):
    expect("a checksum", checksum(HEADER), CHECKSUM)
    packet = Packet("02:00:00:00:00:01", "02:00:00:00:00:02", "10.0.0.10", "203.0.113.10", None, 64, 7)
    bodies = [Udp(1024, 53, b"odd"), Tcp(1024, 80, 1, 2, ACK | PUSH, b"a page"), Icmp(8, 0, b"\0\1\0\2", b"ping")]
    inner = Packet(NOBODY, NOBODY, "203.0.113.10", "198.18.0.80", bodies[1], 9)
    for body in [*bodies, Tunnelled(inner)]:
        for vlan in (None, 10):
            right = replace(packet, body=body, vlan=vlan)
            data = right.packed()
            expect("what was written, read", Packet.read(data), right)
            for place in range(14 if vlan is None else 18, len(data)):
                refuse(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :], place)
    lab.say("a packet whose headers, payload or padding are not what its sums say is refused, whichever byte is changed")
    return Result("-", "-", 0)


def refuse(data, place):
    try:
        Packet.read(data)
    except (Wrong, IndexError, ValueError, StructError):
        return
    raise Wrong(f"byte {place} may be anything: {data.hex()}")


SETUPS = [Setup("checker", "the checker itself, without a machine", checker, 20, quick=True)]
