"""A link by vhost-user: at its other end is a program of ours on this machine, a wire to an interface of the kernel."""

import ctypes
import os
import socket
import subprocess
from pathlib import Path

from stations import LONGEST, Link

CLONE_NEWNET = 0x40000000  # linux/sched.h
ETH_P_ALL = 3  # linux/if_ether.h
STARTED, STOPPED = 30, 10  # seconds
CONFIG = """
chain = ["monitor"]
forwarding = "wire"
[ports]
inside = "net_vhost0"
outside = "net_tap0"
[monitor]
"""

libc = ctypes.CDLL(None, use_errno=True)


class VhostLink(Link):
    """The program and the interface are in a network namespace of their own, which ends with the program."""

    def __init__(self, loop, directory, name, program):
        self.loop, self.name = loop, name
        self.stations, self.strays = [], []
        self.path, self.socket = f"{directory}/{name}-vhost", None
        self.log, self.tables = Path(directory, f"{name}.log"), Path(directory, f"{name}.tables")
        config = Path(directory, f"{name}.toml")
        config.write_text(CONFIG)
        cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
        eal = ["--lcores", f"0@({cpus})", "--no-pci", "--no-huge", "--no-shconf", "--no-telemetry", "-m", "256"]
        eal += [f"--vdev=net_vhost0,iface={self.path}", "--vdev=net_tap0,iface=wire"]
        # Linux would greet the link by IPv6.
        quiet = 'echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6; exec "$@"'
        with open(self.log, "wb") as log, open(self.tables, "wb") as tables:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", quiet]
                + ["sh", program, *eal, "--", "--config", config],
                env=dict(os.environ, RUNTIME_DIRECTORY=directory, RUST_LOG="info"),
                stdin=subprocess.DEVNULL,
                stdout=tables,
                stderr=log,
                start_new_session=True,
            )

    def open(self):
        """Waits until the program runs, and then listens on its interface."""
        runs = lambda: "runs on" in self.log.read_text() or self.process.poll() is not None  # noqa: E731
        self.loop.until(runs, STARTED, f"{self.name}'s program on this machine")
        with open("/proc/self/ns/net") as ours, open(f"/proc/{self.process.pid}/ns/net") as theirs:
            enter(theirs)
            try:
                self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_NONBLOCK)
                self.socket.bind(("wire", ETH_P_ALL))
            finally:
                enter(ours)
        self.loop.add(self.socket, self.receive)

    def netdev(self):
        return ["-chardev", f"socket,id={self.name}-vhost,path={self.path}"] + [
            *("-netdev", f"vhost-user,id={self.name},chardev={self.name}-vhost"),
        ]

    def send(self, data):
        try:
            self.socket.send(data)
        except BlockingIOError:
            pass

    def receive(self):
        data, address = self.socket.recvfrom(LONGEST)
        if address[2] != socket.PACKET_OUTGOING:
            self.deliver(data)

    def stop(self):
        """The program's status and closing table."""
        self.process.terminate()
        self.process.wait(STOPPED)
        return self.process.returncode, self.tables.read_text()

    def close(self):
        if self.socket:
            self.loop.remove(self.socket)
            self.socket.close()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def enter(namespace):
    if libc.setns(namespace.fileno(), CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
