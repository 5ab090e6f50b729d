"""A virtual machine of QEMU's, without KVM, and what its guest is told to do."""

import base64
import os
import re
import shlex
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from loop import TooLate
from packets import Wrong

BOOTED = 60  # seconds
COMMAND = 40  # seconds, of a busy machine
STARTED = 60  # seconds until a program forwards
STOPPED = 20  # seconds
LAST_WORDS = 5  # seconds for a guest in trouble
# Without these a boot takes twice as long in an emulated CPU.
KERNEL = "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check"
FAULTS = r"vtd_[a-z_]+:|DMAR: \[.*fault|IOMMU fault"


class GuestError(Exception):
    """A command in a guest has failed."""


@dataclass
class Tools:
    """What the guests are made of and run by."""

    qemu: Path
    firmware: list  # directories
    libraries: list  # directories; empty if QEMU is installed
    kernel: object


class Serial:
    """A serial line of QEMU's, and what has come by it."""

    def __init__(self, loop, path):
        self.loop, self.path = loop, path
        self.text = ""
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listening.bind(path)
        self.listening.listen(1)
        self.connection = None
        loop.add(self.listening, self.accept)

    def accept(self):
        self.connection, _ = self.listening.accept()
        self.loop.add(self.connection, self.receive)

    def receive(self):
        try:
            data = self.connection.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        if not data:
            self.loop.remove(self.connection)
            self.connection.close()
            self.connection = None
        self.text += data.decode("utf-8", "replace").replace("\r", "")

    def send(self, text):
        # QEMU takes it as the guest does.
        self.connection.setblocking(True)
        self.connection.sendall(text.encode())

    def close(self):
        for open_socket in (self.listening, self.connection):
            if open_socket:
                self.loop.remove(open_socket)
                open_socket.close()
        os.unlink(self.path)
        Path(self.path + ".log").write_text(self.text)


class Guest:
    """What runs in a machine: its console, and the line by which guest-init is told what to do."""

    def __init__(self, loop, console, commands, name="the guest"):
        self.loop, self.console, self.commands, self.name = loop, console, commands, name
        self.answered = 0

    def answer(self, what, seconds):
        """What a command has said, and its status."""
        end = re.compile(r"\n\x1e (\d+)\n")
        found = None

        def complete():
            nonlocal found
            found = end.search(self.commands.text, self.answered)
            return found

        self.loop.until(complete, seconds, f"{what} in {self.name}")
        said = self.commands.text[self.answered : found.start()]
        self.answered = found.end()
        return said.strip("\n"), int(found[1])

    def wait_for_boot(self, seconds=BOOTED):
        self.answer("the start", seconds)

    def status(self, command, seconds=COMMAND):
        """What a command says, and its status."""
        self.commands.send(command + "\n")
        return self.answer(command.split("\n")[0][:60], seconds)

    def run(self, command, seconds=COMMAND):
        said, status = self.status(command, seconds)
        if status:
            raise GuestError(f"{command[:200]!r} in {self.name} ends with the status {status}: {said}")
        return said

    def write(self, path, text):
        encoded = base64.b64encode(text.encode()).decode()
        self.run(f"echo {encoded} | base64 -d >{path}")

    def devices(self, kind):
        return self.run(f"devices {kind}").split()

    def faults(self):
        """What the kernel says of accesses that an IOMMU has refused."""
        # Not all of it: a line takes a nested guest a while.
        return self.run(f"dmesg | grep -E '{FAULTS}' || :").splitlines()


class Program:
    """One of ours in a guest, from its start to its end."""

    def __init__(self, guest, name, config, eal, log="info,dpdk=info"):
        self.guest, self.name = guest, name
        guest.write("/tmp/config.toml", config)
        arguments = shlex.join([name, *eal, "--", "--config", "/tmp/config.toml"])
        guest.run(f"RUST_LOG={log} launch {arguments}")

    def wait_until_it_runs(self):
        try:
            self.guest.run(f"settled '{self.name} runs on' {STARTED}", STARTED + COMMAND)
        except (GuestError, TooLate) as error:
            raise GuestError(f"{self.name} does not start: {self.last_words(error)}") from None
        self.log = self.guest.run("cat /tmp/log")

    def last_words(self, otherwise):
        try:
            return self.guest.run("tail -n 5 /tmp/log")
        except (GuestError, TooLate):
            return otherwise

    def stop(self):
        """Its closing table."""
        _, status = self.guest.status("stop", STOPPED)
        self.log = self.guest.run("cat /tmp/log")
        tables = self.guest.run("cat /tmp/tables")
        if status:
            raise GuestError(f"{self.name} ends with the status {status}: {self.log[-500:]}")
        return tables


def qemu_arguments(accelerator, memory, cpus, kernel, image, hugepages, iommu):
    """A machine of so many MiB without any device; `hugepages` of 2 MiB."""
    append = f"{KERNEL} hugepages={hugepages}" + (" intel_iommu=on iommu=pt" if iommu else "")
    # Caching mode: the IOMMU hears of every mapping, as one that is passed on to a nested guest needs.
    vtd = ["-device", "intel-iommu,intremap=on,caching-mode=on"] if iommu else []
    return [
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-monitor", "none"),
        *("-M", "q35,kernel-irqchip=split", "-accel", accelerator, "-cpu", "max", "-smp", cpus, "-m", memory),
        *("-kernel", kernel, "-initrd", image, "-append", append, *vtd),
    ]


def root_port(number, kind="pcie-root-port"):
    """The arguments for a port behind which a device has an IOMMU group of its own, if it is of the usual kind."""
    return ["-device", f"{kind},id=port{number},chassis={number},slot={number},addr={number + 1}"]


class Machine:
    """QEMU with a guest. To be used in a `with`."""

    def __init__(self, loop, tools, directory, image, memory=1024, cpus=2, iommu=False, hugepages=128, lines=2, shared=False):
        self.loop, self.tools, self.directory = loop, tools, directory
        self.serials = [Serial(loop, f"{directory}/serial{line}") for line in range(lines)]
        self.links = []
        self.process = None
        self.seen = 0.0  # when the first packet came back, in seconds after the start
        self.arguments = [
            *qemu_arguments("tcg,thread=multi", memory, cpus, tools.kernel.image, image, hugepages, iommu),
            *(argument for path in tools.firmware for argument in ("-L", path)),
        ]
        if shared:
            # Somebody else maps the guest's memory too.
            self.arguments += ["-object", f"memory-backend-memfd,id=memory,size={memory}M,share=on"]
            self.arguments += ["-machine", "memory-backend=memory"]
        for line, serial in enumerate(self.serials):
            self.arguments += ["-chardev", f"socket,id=serial{line},path={serial.path}", "-serial", f"chardev:serial{line}"]

    def add_nic(self, link, device, port="pcie-root-port"):
        self.links.append(link)
        number = len(self.links)
        self.arguments += root_port(number, port) + link.netdev()
        self.arguments += ["-device", f"{device},bus=port{number},netdev={link.name},romfile="]

    def start(self, seconds):
        """The machine is gone after so many seconds, whatever happens."""
        environment = dict(os.environ)
        if self.tools.libraries:
            environment["LD_LIBRARY_PATH"] = ":".join(map(str, self.tools.libraries))
        self.errors = open(f"{self.directory}/qemu.log", "wb")
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            # It is gone with this program, too.
            ["setpriv", "--pdeathsig", "TERM", "timeout", "-k", "3", *map(str, [seconds, self.tools.qemu, *self.arguments])],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=self.errors,
            stderr=self.errors,
            start_new_session=True,
        )
        self.guest = Guest(self.loop, *self.serials[:2])

    def mark(self):
        """A packet has come back."""
        self.seen = self.seen or time.monotonic() - self.began

    def faults(self):
        """What the emulated IOMMU says of accesses that it has refused."""
        return re.findall(f".*(?:{FAULTS}).*", self.said())

    def said(self):
        return Path(self.errors.name).read_text("utf-8", "replace")

    def nested(self):
        """The guest of its guest, which has the other two lines."""
        return Guest(self.loop, *self.serials[2:4], "the nested guest")

    def power_off(self):
        self.guest.commands.send("poweroff -f\n")
        self.loop.until(lambda: self.process.poll() is not None, STOPPED, "the guest's end")

    def ask_for_last_words(self):
        """Leaves what the program has logged, and the end of the kernel's log, in the logs of the serial lines."""
        try:
            self.loop.limit(LAST_WORDS)
            self.guest.status("tail -n 20 /tmp/log; dmesg | tail -n 10", LAST_WORDS)
        except (AttributeError, GuestError, TooLate, OSError):
            pass

    def __enter__(self):
        return self

    def __exit__(self, _kind, error, _traceback):
        if isinstance(error, (GuestError, TooLate, Wrong)):
            self.ask_for_last_words()
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, 9)
                self.process.wait()
        if self.process:
            self.errors.close()
        for part in (*self.serials, *self.links):
            part.close()
