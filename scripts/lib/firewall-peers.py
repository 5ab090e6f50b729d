"""Clients and servers around a firewall, each in the network namespace that it is started in.

firewall-peers.py echo PORT...               says back what it hears, by TCP and by UDP on each of these ports
firewall-peers.py idle ADDRESS PORT          opens a connection, says so, and says nothing on it until SIGUSR1 comes; then
                                             it has to be there still
firewall-peers.py flows COUNT ADDRESS PORT SOURCE...  so many flows of UDP from these addresses, each of which is answered
                                             once and not used any more
"""

import os
import resource
import select
import signal
import socket
import sys
import threading
import time

PATIENCE = 30.0  # seconds: those of some lost segments
AT_ONCE = 256  # flows that wait for an answer
FIRST_PORT = 2000


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def any_address(kind, port):
    """A socket of both families."""
    made = socket.socket(socket.AF_INET6, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    made.bind(("::", port))
    return made


def echo_datagrams(made):
    while True:
        data, source = made.recvfrom(2048)
        try:
            made.sendto(data, source)
        except OSError:
            pass  # somebody has told that nobody is there


def echo_stream(connection):
    with connection:
        try:
            while data := connection.recv(2048):
                connection.sendall(data)
        except OSError:
            pass  # one that has gone again


def accept(listener):
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=echo_stream, args=(connection,), daemon=True).start()


def echo(*ports):
    for port in map(int, ports):
        listener = any_address(socket.SOCK_STREAM, port)
        listener.listen(64)
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
        made = any_address(socket.SOCK_DGRAM, port)
        threading.Thread(target=echo_datagrams, args=(made,), daemon=True).start()
    print("ready", flush=True)
    signal.pause()


def idle(address, port):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    begun = time.monotonic()
    with socket.create_connection((address, int(port)), PATIENCE) as connection:
        for word in (b"hello", b"still here"):
            connection.sendall(word)
            got = b""
            while len(got) < len(word):
                data = connection.recv(2048)
                if not data:
                    sys.exit(f"the connection to {address} has ended")
                got += data
            if word == b"hello":
                print("open", flush=True)
                signal.sigwait({signal.SIGUSR1})
    print(f"{address} port {port}: after {time.monotonic() - begun:.0f} s without a word the connection is there")


def flows(count, address, port, *sources):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    to, count = (address, int(port)), int(count)
    each = -(-count // len(sources))
    ends = ((source, FIRST_PORT + number) for source in sources for number in range(each))
    poll, waiting = select.poll(), {}
    begun, answered, heard = time.monotonic(), 0, time.monotonic()
    while answered < count:
        while len(waiting) < AT_ONCE and (end := next(ends, None)):
            made = socket.socket(family_of(address), socket.SOCK_DGRAM)
            made.bind(end)
            made.sendto(b"once", to)
            poll.register(made, select.POLLIN)
            waiting[made.fileno()] = made
        ready = poll.poll(1000)
        for number, _ in ready:
            made = waiting.pop(number)
            made.recv(64)
            poll.unregister(number)
            made.close()
            answered += 1
            heard = time.monotonic()
        if time.monotonic() - heard > PATIENCE:
            sys.exit(f"only {answered} of {count} flows are answered")
        if not ready:
            for made in waiting.values():
                made.sendto(b"once", to)
    print(f"{count} flows of UDP, each answered once, in {time.monotonic() - begun:.1f} s")


{"echo": echo, "idle": idle, "flows": flows}[sys.argv[1]](*sys.argv[2:])
