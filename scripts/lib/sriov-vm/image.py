"""What a guest starts from: archives for initramfs (cpio, "newc"), with programs, their libraries and modules."""

import lzma
import os
import re
import stat
import subprocess
from pathlib import Path

ALIGNMENT = 4
TRAILER = "TRAILER!!!"


class Archive:
    """Files and directories of a guest, written by `write`; nothing needs root, as no device nodes are in it."""

    def __init__(self):
        # The root itself, as the EAL loads no plugins from where everybody might put some.
        self.entries = {".": (stat.S_IFDIR | 0o755, b"")}  # path without the first slash: mode, and bytes or the file that holds them

    def directory(self, path):
        path = path.strip("/")
        if path and path not in self.entries:
            self.directory(os.path.dirname(path))
            self.entries[path] = (stat.S_IFDIR | 0o755, b"")

    def file(self, path, content, mode=0o644):
        """`content` is bytes, or a Path to copy."""
        path = path.strip("/")
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFREG | mode, content)

    def link(self, path, target):
        path = path.strip("/")
        self.directory(os.path.dirname(path))
        self.entries[path] = (stat.S_IFLNK | 0o777, target.encode())

    def program(self, path, source, libraries=None):
        """A program and what the loader needs for it, at the places where the loader looks for them."""
        self.file(path, Path(source), 0o755)
        for library in needed(source, libraries):
            self.library(library)

    def library(self, source):
        """Found by its name, wherever it was found here."""
        interpreter = "ld-linux" in source.name
        self.file(f"/lib64/{source.name}" if interpreter else f"/usr/lib/{source.name}", source.resolve(), 0o755)

    def write(self, to):
        with open(to, "wb") as out:
            for number, (path, (mode, content)) in enumerate(self.entries.items(), start=1):
                write_entry(out, number, path, mode, content.read_bytes() if isinstance(content, Path) else content)
            write_entry(out, 0, TRAILER, 0, b"")


def write_entry(out, number, path, mode, content):
    """Kernel: Documentation/driver-api/early-userspace/buffer-format.rst."""
    name = path.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0)
    for part in (b"070701" + b"".join(b"%08X" % field for field in fields) + name, content):
        out.write(part)
        out.write(bytes(-out.tell() % ALIGNMENT))


def needed(program, libraries=None):
    """The libraries of a program, as the loader finds them; first in the directory `libraries`, if one is given."""
    environment = dict(os.environ, LD_LIBRARY_PATH=":".join(map(str, libraries or [])))
    listed = subprocess.run(["ldd", program], env=environment, capture_output=True, text=True, check=True).stdout
    missing = re.findall(r"(\S+) => not found", listed)
    if missing:
        raise SystemExit(f"{program} needs {', '.join(missing)}, which is not here")
    return [Path(found) for found in re.findall(r"(/\S+) \(0x", listed)]


class Kernel:
    """An unpacked package linux-image-*: the kernel as a PVH image, and its modules."""

    def __init__(self, root):
        self.image = root / "vmlinux"
        self.files = {}  # a module's name: its file
        # Below /usr from Debian 13 on.
        for path in root.glob("**/lib/modules/*/kernel/**/*.ko*"):
            self.files[path.name.split(".")[0].replace("-", "_")] = path

    def add(self, archive, modules):
        """Each with a list beside it of what has to be loaded before it, in this order, and itself."""
        for module in modules:
            order = []
            self.collect(module.replace("-", "_"), order)
            archive.file(f"/modules/{module}.order", "".join(f"{name}\n" for name in order).encode())
            for name in order:
                archive.file(f"/modules/{name}.ko", self.content(name))

    def collect(self, name, order):
        """A module that the kernel has built in has no file."""
        if name in order or name not in self.files:
            return
        for other in re.search(rb"\0depends=([^\0]*)\0", self.content(name))[1].decode().split(","):
            self.collect(other.replace("-", "_"), order)
        order.append(name)

    def content(self, name):
        path = self.files[name]
        if path.suffix == ".xz":
            return lzma.decompress(path.read_bytes())
        return path.read_bytes()
