"""Clients and servers around a NAT, one after the other, in network namespaces that exist.

nat-peers.py dns SERVER NAMESPACE...           each host asks a name server, from the same port
nat-peers.py mapping SERVER OTHER INSIDE       one port towards two servers, then somebody else calls
nat-peers.py hairpin SERVER INSIDE INSIDE      two hosts meet that know each other's external port
nat-peers.py connections SERVER COUNT INSIDE...  TCP connections that are opened, used and closed

SERVER and OTHER are NAMESPACE=ADDRESS, INSIDE is a namespace. It says what it saw, or why that is wrong.
"""

import asyncio
import ctypes
import os
import resource
import socket
import struct
import sys
import time

PATIENCE = 5.0  # seconds for a datagram
LONG_PATIENCE = 30.0  # and for a connection: that of some lost segments
AT_ONCE = 1000  # connections
CLONE_NEWNET = 0x40000000  # linux/sched.h
DNS_ID, DNS_PORT, INSIDE_PORT = 0x4E41, 53, 5353
NAME, ANSWER = "www.example.", "203.0.113.80"

libc = ctypes.CDLL(None, use_errno=True)


def socket_in(namespace, kind=socket.SOCK_DGRAM, address="", port=0):
    """A socket stays in the namespace in which it was made."""
    with open(f"/run/netns/{namespace}") as file:
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    made = socket.socket(socket.AF_INET, kind)
    made.settimeout(PATIENCE)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address or port:
        made.bind((address, port))
    return made


def host(server):
    """Namespace and address."""
    return server.split("=")


def receive(at, what):
    try:
        return at.recvfrom(2048)
    except TimeoutError:
        sys.exit(f"{what} does not come through in {PATIENCE:.0f} s")


def expect(what, seen, right):
    if seen != right:
        sys.exit(f"{what}: {seen} and not {right}")


def say(who, what):
    print(f"{who:<22} {what}")


def shown(endpoint):
    return "{}:{}".format(*endpoint)


def dns_question():
    name = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split("."))
    return struct.pack("!6H", DNS_ID, 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)  # RFC 1035: A, IN


def dns_reply(question):
    header = question[:2] + struct.pack("!5H", 0x8180, 1, 1, 0, 0)
    answer = struct.pack("!3HIH", 0xC00C, 1, 1, 60, 4) + socket.inet_aton(ANSWER)
    return header + question[12:] + answer


def dns(server, *inside):
    namespace, address = host(server)
    responder = socket_in(namespace, address=address, port=DNS_PORT)
    resolvers = [socket_in(of, port=INSIDE_PORT) for of in inside]
    for resolver in resolvers:
        resolver.sendto(dns_question(), (address, DNS_PORT))
    seen = []
    for _ in resolvers:
        question, source = receive(responder, "a question")
        expect("the question", question, dns_question())
        responder.sendto(dns_reply(question), source)
        seen.append(source)
    expect("two hosts look like", len(set(seen)), len(seen))
    for of, resolver in zip(inside, resolvers):
        answer, source = receive(resolver, "an answer")
        expect("the answer is from", source, (address, DNS_PORT))
        expect("the answer", answer, dns_reply(dns_question()))
        say(of.rsplit("-")[-1], f"port {INSIDE_PORT}, question {DNS_ID:#06x}: {NAME} is {socket.inet_ntoa(answer[-4:])}")
    say("the server saw", ", ".join(map(shown, sorted(seen))))


def external(inside, server, address, port):
    """Sends to a server, and returns what it sees."""
    inside.sendto(b"who am I?", (address, port))
    return receive(server, "a datagram from inside")[1]


def mapping(first, second, inside):
    (namespace, one), (other_namespace, two) = host(first), host(second)
    servers = [socket_in(namespace, address=one, port=3478), socket_in(other_namespace, address=two, port=3479)]
    client = socket_in(inside, port=4500)
    seen = [external(client, server, *server.getsockname()) for server in servers]
    for server, source in zip(servers, seen):
        say(shown(server.getsockname()), f"sees {shown(source)}")
    expect("both servers see the same", seen[1], seen[0])
    stranger = socket_in(other_namespace, address=two, port=7000)
    stranger.sendto(b"hello", seen[0])
    greeting, source = receive(client, "a datagram of somebody whom the host has not called")
    expect("the greeting", greeting, b"hello")
    expect("the greeting is from", source, (two, 7000))
    say(shown(source), f"whom the host has not called, reaches it at {shown(seen[0])}")


def hairpin(server, *inside):
    namespace, address = host(server)
    rendezvous = socket_in(namespace, address=address, port=3478)
    clients = [socket_in(of, port=4501) for of in inside]
    seen = [external(client, rendezvous, address, 3478) for client in clients]
    for (here, there), (of_here, of_there), names in (
        (clients, seen, inside),
        (clients[::-1], seen[::-1], inside[::-1]),
    ):
        here.sendto(b"from one host to the other", of_there)
        _, source = receive(there, "a datagram that turns")
        expect("it comes from", source, of_here)
        say(names[0].rsplit("-")[-1], f"sends to {shown(of_there)}, and is seen as {shown(source)}")


async def echo(reader, writer):
    """Until the client closes."""
    try:
        while data := await reader.read(64):
            writer.write(data)
    except ConnectionError:
        pass
    writer.close()


async def connection(number, namespace, address, port):
    client = socket_in(namespace, socket.SOCK_STREAM)
    client.setblocking(False)
    async with asyncio.timeout(LONG_PATIENCE):
        await asyncio.get_running_loop().sock_connect(client, (address, port))
        reader, writer = await asyncio.open_connection(sock=client)
        writer.write(struct.pack("!Q", number))
        data = await reader.readexactly(8)
        if data != struct.pack("!Q", number):
            raise ValueError(f"the echo of {number} is {data.hex()}")
        writer.write_eof()
        if await reader.read():
            raise ValueError("there is more than the echo")
        writer.close()


async def all_connections(server, count, inside):
    namespace, address = host(server)
    seen, failures = set(), {}
    listener = socket_in(namespace, socket.SOCK_STREAM, address)
    port = listener.getsockname()[1]

    async def accept(reader, writer):
        seen.add(writer.get_extra_info("peername"))
        await echo(reader, writer)

    room = asyncio.Semaphore(AT_ONCE)

    async def one(number):
        async with room:
            try:
                await connection(number, inside[number % len(inside)], address, port)
            except (OSError, ValueError, EOFError) as error:
                why = str(error) or type(error).__name__
                failures[why] = failures.get(why, 0) + 1

    async with await asyncio.start_server(accept, sock=listener, backlog=AT_ONCE):
        begun = time.monotonic()
        await asyncio.gather(*map(one, range(count)))
        took = time.monotonic() - begun
    for why, times in failures.items():
        say(f"{times} failed", why)
    say(f"{count} connections", f"{sum(failures.values())} failed, in {took:.1f} s, up to {AT_ONCE} at once")
    addresses = ", ".join(sorted({address for address, _ in seen}))
    say("the server saw", f"{len(seen)} ports of {addresses}")
    if failures:
        sys.exit("not all connections succeed")
    expect("the connections that the server saw", len(seen), count)


def connections(server, count, *inside):
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(all_connections(server, int(count), inside))


{"dns": dns, "mapping": mapping, "hairpin": hairpin, "connections": connections}[sys.argv[1]](*sys.argv[2:])
