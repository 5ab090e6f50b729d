"""A switch whose access ports are hosts' interfaces, and whose trunk carries their frames with tags.

vlan-switch.py TRUNK NAME=VLAN...   makes an interface NAME in its network namespace, which may then
                                    be moved, and connects it with this VLAN of the interface TRUNK

The kernel does the same with its VLAN interfaces, but not every kernel has them.
"""

import fcntl
import os
import select
import socket
import struct
import sys

LARGEST = 1 << 14  # bytes of a frame
TAG = 0x8100  # IEEE 802.1Q
# linux/if_tun.h
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000
# linux/if_packet.h, linux/if_ether.h
SOL_PACKET, PACKET_AUXDATA, TP_STATUS_VLAN_VALID = 263, 8, 1 << 4
AUXDATA = struct.Struct("=3I4H")  # status, two lengths, two offsets, the tag, its type
ETH_P_ALL = 3


def access_port(name):
    tap = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    return tap


def trunk_port(name):
    trunk = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    trunk.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    trunk.bind((name, ETH_P_ALL))
    return trunk


def from_trunk(trunk):
    """A frame and its VLAN, or None for what has none. The kernel has taken the tag out of the frame."""
    frame, ancillary, _, address = trunk.recvmsg(LARGEST, socket.CMSG_SPACE(AUXDATA.size))
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_PACKET, PACKET_AUXDATA) and address[2] != socket.PACKET_OUTGOING:
            status, _, _, _, _, tag, _ = AUXDATA.unpack(data)
            return frame, tag & 0xFFF if status & TP_STATUS_VLAN_VALID else None
    return frame, None


def switch(trunk, taps):
    """Taps by their VLANs."""
    vlans = {tap: vlan for vlan, tap in taps.items()}
    while True:
        for ready in select.select([trunk, *vlans], [], [])[0]:
            try:
                if ready is trunk:
                    frame, vlan = from_trunk(trunk)
                    if vlan in taps:
                        os.write(taps[vlan], frame)
                else:
                    frame = os.read(ready, LARGEST)
                    trunk.send(frame[:12] + struct.pack("!2H", TAG, vlans[ready]) + frame[12:])
            except OSError as error:
                # An interface that is down, or a queue that is full: a switch loses the frame.
                print(error, file=sys.stderr)


ports = dict(argument.split("=") for argument in sys.argv[2:])
switch(trunk_port(sys.argv[1]), {int(vlan): access_port(name) for name, vlan in ports.items()})
