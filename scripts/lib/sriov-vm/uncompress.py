"""uncompress.py VMLINUZ VMLINUX: the kernel that is packed into a boot image."""

import lzma
import subprocess
import sys

source, destination = sys.argv[1:]
with open(source, "rb") as file:
    image = file.read()
xz, zstd = image.find(b"\xfd7zXZ\0"), image.find(b"\x28\xb5\x2f\xfd")
if xz >= 0:
    # What follows is not of it.
    kernel = lzma.LZMADecompressor().decompress(image[xz:])
elif zstd >= 0:
    kernel = subprocess.run(["zstd", "-dc"], input=image[zstd:], capture_output=True, check=False).stdout
else:
    sys.exit(f"{source} is packed in a way that is not known here")
with open(destination, "wb") as file:
    file.write(kernel)
