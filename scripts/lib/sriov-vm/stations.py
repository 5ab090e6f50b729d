"""Hosts and routers on a link to a guest: they know no neighbours, ask by ARP, and answer."""

import os
import socket
from collections import deque

from packets import ARP, BROADCAST, IPV4, Arp, Packet, Wrong, expect, frame, split

LONGEST = 1 << 14  # bytes of a frame
PATIENCE = 0.5  # seconds until one asks again
QUESTIONS = 30  # before one gives up: a port needs a while until its link is up


class Link:
    """A network interface of a guest, as QEMU's -netdev dgram has it: a datagram is a frame."""

    def __init__(self, loop, directory, name):
        self.loop, self.name = loop, name
        self.ours, self.theirs = f"{directory}/{name}", f"{directory}/{name}-nic"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(self.ours)
        self.stations = []
        self.strays = []  # frames to one station that there is not
        loop.add(self.socket, self.receive)

    def netdev(self):
        """QEMU's arguments for it."""
        local, remote = f"local.type=unix,local.path={self.theirs}", f"remote.type=unix,remote.path={self.ours}"
        return ["-netdev", f"dgram,id={self.name},{local},{remote}"]

    def send(self, data):
        """A guest that is down, or slow, loses the frame."""
        try:
            self.socket.sendto(data, self.theirs)
        except (BlockingIOError, ConnectionRefusedError, FileNotFoundError):
            pass

    def receive(self):
        self.deliver(self.socket.recv(LONGEST))

    def deliver(self, data):
        to_mac, _, kind, vlan, _ = split(data)
        here = [station for station in self.stations if station.vlan == vlan and to_mac in (station.mac, BROADCAST)]
        for station in here:
            station.take(data)
        # The kernel's own interfaces in the guest greet their links by multicast.
        if not here and kind in (ARP, IPV4) and not int(to_mac[:2], 16) & 1:
            self.strays.append(data)

    def close(self):
        self.loop.remove(self.socket)
        self.socket.close()
        for path in (self.ours, self.theirs):
            if os.path.exists(path):
                os.unlink(path)


class Station:
    """One host on a link, or a router with what is behind it."""

    def __init__(self, link, mac, address, gateway, behind=(), vlan=None):
        self.link, self.mac, self.address, self.gateway = link, mac, address, gateway
        self.addresses = [address, *behind]
        self.vlan = vlan
        self.neighbours = {}
        self.inbox = deque()
        link.stations.append(self)

    def take(self, data):
        _, from_mac, kind, _, payload = split(data)
        if kind == IPV4:
            self.inbox.append(data)
        elif kind == ARP:
            arp = Arp.read(payload)
            expect("who says it in ARP", arp.sender_mac, from_mac)
            if arp.target == self.address and not arp.is_reply:
                self.say(from_mac, ARP, Arp(True, self.mac, self.address, from_mac, arp.sender).packed())
            elif arp.target == self.address:
                self.neighbours[arp.sender] = arp.sender_mac

    def say(self, to_mac, kind, payload):
        self.link.send(frame(to_mac, self.mac, kind, payload, self.vlan))

    def resolve(self, address, questions=QUESTIONS):
        """The MAC address of a neighbour."""
        question = Arp(False, self.mac, self.address, "00:00:00:00:00:00", address).packed()
        for _ in range(questions):
            if address in self.neighbours:
                return self.neighbours[address]
            self.say(BROADCAST, ARP, question)
            self.link.loop.briefly_until(lambda: address in self.neighbours, PATIENCE)
        raise Wrong(f"nobody on {self.link.name} answers for {address}")

    def packet(self, destination, body, source=None, **fields):
        """A packet of this station's to its gateway."""
        return Packet(
            self.resolve(self.gateway), self.mac, source or self.address, destination, body, vlan=self.vlan, **fields
        )

    def send(self, packet):
        self.link.send(packet.packed())

    def forget(self):
        """As a host that starts anew."""
        self.neighbours.clear()
        self.inbox.clear()
