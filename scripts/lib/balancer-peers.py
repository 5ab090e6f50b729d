"""Clients and servers around a load balancer, each in the network namespace that it is started in.

balancer-peers.py serve NAME                   an HTTP server on port 80 of all addresses, that says its name
balancer-peers.py decapsulate TUN              unpacks IP in IP of all four kinds, into a TUN interface
balancer-peers.py load FILE THREADS NAME=ADDRESS...  requests, one connection each, until it is told to stop; FILE
                                               gets a line for each: start, end, name, and who answered or what failed
balancer-peers.py report EVENTS FILE CHECK     what came of the requests around each event; EVENTS has lines of name,
                                               time, time when it had taken effect, and the servers that then serve;
                                               CHECK is the time in which a dead server has to be out of use
balancer-peers.py flood ADDRESS SECONDS        small datagrams, as many as go
"""

import collections
import fcntl
import itertools
import math
import os
import select
import signal
import socket
import struct
import sys
import threading
import time

PORT = 80
PATIENCE = 5.0  # seconds for a request: some lost segments
REQUEST = b"GET / HTTP/1.1\r\nHost: demo\r\nConnection: close\r\n\r\n"
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000  # linux/if_tun.h
UDP_SEGMENT = 103  # linux/udp.h
DEVIATIONS = 5  # of a binomial distribution; more than these come once in a million


def serve(name):
    body = name.encode() + b"\n"
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (len(body), body)
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    # None keeps the others waiting that has nothing to say yet: tcp(7).
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, int(PATIENCE))
    listener.bind(("::", PORT))
    listener.listen(1024)
    while True:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE)
        with connection:
            try:
                if connection.recv(4096):
                    connection.sendall(reply)
            except OSError:
                pass  # one that has gone again


def decapsulate(name):
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
    ipip, ipv6 = 4, 41
    kinds = itertools.product((socket.AF_INET, socket.AF_INET6), (ipip, ipv6))
    sockets = {s.fileno(): (s, f) for f, p in kinds for s in [socket.socket(f, socket.SOCK_RAW, p)]}
    poll = select.poll()
    for number in sockets:
        poll.register(number, select.POLLIN)
    while True:
        for number, _ in poll.poll():
            made, family = sockets[number]
            packet = made.recv(65535)
            # IPv4 comes with its header, IPv6 without.
            inner = packet[(packet[0] & 15) * 4 :] if family == socket.AF_INET else packet
            try:
                os.write(tun, inner)
            except OSError:
                pass  # while the interface is down


def ask(address):
    """Who answers."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.settimeout(PATIENCE)
        made.connect((address, PORT))
        made.sendall(REQUEST)
        reply = b""
        while part := made.recv(4096):
            reply += part
    if not reply.startswith(b"HTTP/1.1 200 "):
        raise ConnectionError("cut off")
    return reply.split()[-1].decode()


def load(path, threads, *services):
    services = [service.split("=") for service in services]
    following, lock, stop = itertools.cycle(services), threading.Lock(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    with open(path, "w", buffering=1) as file:

        def work():
            while not stop.is_set():
                with lock:
                    name, address = next(following)
                start = time.time()
                try:
                    who = ask(address)
                except OSError as error:
                    who = "failed:" + type(error).__name__
                with lock:
                    file.write(f"{start:.6f} {time.time():.6f} {name} {who}\n")

        workers = [threading.Thread(target=work) for _ in range(int(threads))]
        for worker in workers:
            worker.start()
        while not stop.is_set():
            signal.pause()
        for worker in workers:
            worker.join()


def report(events_path, path, check):
    events, requests = [], []
    with open(events_path) as file:
        for name, at, settled, servers in map(str.split, file):
            events.append((name, float(at), float(settled), servers.split(",")))
    with open(path) as file:
        for start, end, service, who in map(str.split, file):
            requests.append((float(start), float(end), service, who))
    services = list(dict.fromkeys(service for _, _, service, _ in sorted(requests)))
    wrong = []
    ends = [at for _, at, _, _ in events[1:]] + [math.inf]
    # One that fails does so for what has happened by then.
    when = [(end if who.startswith("failed") else start, (start, who, service)) for start, end, service, who in requests]
    during = [[r for time, r in when if at <= time < end] for (_, at, _, _), end in zip(events, ends)]

    print("failed requests, after an event and before the next:")
    table = [["", *(name for name, _, _, _ in events), "requests"]]
    for service in services:
        row = [service]
        for (name, _, _, _), phase in zip(events, during):
            failed = sum(who.startswith("failed") for _, who, of in phase if of == service)
            row.append(failed)
            if failed and name != "kill":
                wrong.append(f"{failed} requests to {service} failed after {name}")
        table.append([*row, sum(of == service for _, _, of, _ in requests)])
    table.append(["requests", *map(len, during), len(requests)])
    show(table)

    print("how far servers are from equal parts once an event has taken effect, in standard deviations of chance:")
    table = [["", *(name for name, _, _, _ in events)]]
    for service in services:
        row = [service]
        for (name, _, settled, servers), phase in zip(events, during):
            answers = [who for start, who, of in phase if of == service and start >= settled]
            row.append(deviation(answers, servers, f"{service} after {name}", wrong))
        table.append(row)
    show(table)

    for (name, at, _, _), phase in zip(events, during):
        if name == "kill":
            lost = [start - at for start, who, _ in phase if who.startswith("failed")]
            last = max(lost, default=0.0)
            print(f"the last connection to the dead server began {last:.2f} s after its death; its checks take {check} s at most")
    longest = max(end - start for start, end, _, who in requests if not who.startswith("failed"))
    print(f"the longest request took {longest:.2f} s, and all together {max(r[1] for r in requests) - min(r[0] for r in requests):.0f} s")
    if wrong:
        sys.exit("\n".join(wrong))


def deviation(answers, servers, what, wrong):
    """The largest difference from an equal part, as a multiple of the binomial distribution's deviation."""
    counts = collections.Counter(answers)
    others = {who: count for who, count in counts.items() if who not in servers}
    if others:
        wrong.append(f"{what}, {others}")
    total = sum(counts.values())
    if total < 30:
        return "-"
    part = 1 / len(servers)
    if part == 1:
        return "0.0"
    spread = math.sqrt(total * part * (1 - part))
    largest = max(abs(counts[server] - total * part) for server in servers) / spread
    if largest > DEVIATIONS:
        wrong.append(f"{what}: {dict(counts)} are not equal parts")
    return f"{largest:.1f}"


def show(rows):
    widths = [max(len(str(row[column])) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [str(cell).rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join([str(row[0]).ljust(widths[0]), *cells]))


def flood(address, seconds):
    made = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    size, segments = 18, 60
    made.setsockopt(socket.SOL_UDP, UDP_SEGMENT, size)
    made.connect((address, 9))
    data, sent, end = bytes(size * segments), 0, time.time() + float(seconds)
    while time.time() < end:
        try:
            made.send(data)
            sent += segments
        except OSError:
            pass  # what ICMP says of those before, and full queues
    print(sent)


if len(sys.argv) < 2 or sys.argv[1] not in ("serve", "decapsulate", "load", "report", "flood"):
    sys.exit(__doc__)
globals()[sys.argv[1]](*sys.argv[2:])
