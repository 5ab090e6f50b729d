"""The archives that guests start from."""

import subprocess
from pathlib import Path

from image import Archive, Kernel
from machine import Tools

DRIVERS = ["mempool_ring", "net_e1000", "net_virtio", "net_vmxnet3"]
MODULES = ["igb", "vfio_iommu_type1", "vfio-pci", "uio_pci_generic"]
# What the load balancer's backends need.
BACKEND_MODULES = ["ipip", "ip_gre", "fou", "crc32c_generic", "nf_tables"]
HYPERVISOR_MODULES = ["igb", "vfio_iommu_type1", "vfio-pci", "kvm_amd"]
FIRMWARE = ["bios-256k.bin", "pvh.bin", "kvmvapic.bin", "linuxboot_dma.bin"]
HERE = Path(__file__).parent


def prepare(options, directory):
    """QEMU, the kernel, and the guests' images."""
    qemu = options.cache / "qemu"
    tools = Tools(
        qemu=qemu / "usr/bin/qemu-system-x86_64",
        # What is installed was not downloaded again.
        firmware=[root / "usr/share" / name for root in (qemu, Path("/")) for name in ("qemu", "seabios")],
        libraries=[qemu / name / "x86_64-linux-gnu" for name in ("usr/lib", "lib")],
        kernel=Kernel(options.cache / "kernel"),
    )
    guest = directory / "guest.cpio"
    with_programs(options, tools, directory).write(guest)
    hypervisor = directory / "hypervisor.cpio"
    with_qemu(options, tools, guest).write(hypervisor)
    return tools, {"guest": guest, "hypervisor": hypervisor}


def bare(options, tools, modules):
    archive = Archive()
    for path in ("/bin", "/dev", "/proc", "/run", "/sys", "/tmp", "/var"):
        archive.directory(path)
    archive.link("/var/run", "/run")
    (busybox,) = options.cache.glob("busybox/**/bin/busybox")
    archive.file("/bin/busybox", busybox, 0o755)
    archive.file("/init", HERE / "guest-init", 0o755)
    # That of busybox knows no virtual functions.
    archive.program("/bin/ip2", Path("/sbin/ip").resolve())
    tools.kernel.add(archive, modules)
    return archive


def with_programs(options, tools, directory):
    archive = bare(options, tools, MODULES + BACKEND_MODULES)
    archive.program("/bin/nft", Path("/usr/sbin/nft"))
    for name in ("firewall", "load-balancer", "nat", "nf-chain", "nf-doctor"):
        stripped = directory / name
        subprocess.run(["strip", "-o", stripped, options.programs / name], check=True)
        archive.program(f"/bin/{name}", stripped)
    # The EAL loads all that is in this directory.
    (plugins,) = Path("/usr/lib/x86_64-linux-gnu/dpdk").glob("pmds-*")
    for name in DRIVERS:
        (driver,) = plugins.glob(f"librte_{name}.so.*.*")
        archive.program(str(driver), driver)
    return archive


def with_qemu(options, tools, guest):
    """A hypervisor with the image of its guest."""
    archive = bare(options, tools, HYPERVISOR_MODULES)
    archive.program("/bin/qemu-system-x86_64", tools.qemu, tools.libraries)
    for name in FIRMWARE:
        archive.file(f"/usr/share/qemu/{name}", next(path / name for path in tools.firmware if (path / name).exists()))
    archive.file("/vmlinux", tools.kernel.image)
    archive.file("/guest.cpio", guest)
    return archive
