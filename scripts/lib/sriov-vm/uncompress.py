"""uncompress.py VMLINUZ VMLINUX [ZSTD]: the kernel that is packed into a boot image; ZSTD is a program to unpack it."""

import lzma
import subprocess
import sys

XZ, ZSTD, ELF = b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x7fELF"

source, destination, *zstd = sys.argv[1:]
with open(source, "rb") as file:
    image = file.read()
kernel = b""
# Neither minds that it ends before the image does.
if XZ in image:
    kernel = lzma.LZMADecompressor().decompress(image[image.index(XZ) :])
elif ZSTD in image and zstd:
    packed = image[image.index(ZSTD) :]
    kernel = subprocess.run([*zstd, "-dc"], input=packed, capture_output=True, check=False).stdout
if not kernel.startswith(ELF):
    sys.exit(f"{source} is packed in a way that is not known here")
with open(destination, "wb") as file:
    file.write(kernel)
