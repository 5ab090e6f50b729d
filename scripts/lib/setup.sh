# shellcheck shell=bash
# What the scripts share that set a machine up for DPDK: devices, and writes that a dry run only
# shows. To be sourced after common.sh.

# Where /sys, /proc and /dev are. Tests make such a tree up: then nobody needs to be root, and
# $NF_KERNEL FILE VALUE is run after every write and does what the kernel would.
readonly ROOT=${NF_ROOT:-}
readonly PCI=$ROOT/sys/bus/pci
# shellcheck disable=SC2034 # the scripts that source this file use it
DPDK_DRIVERS=(vfio-pci uio_pci_generic igb_uio)

dry_run=0

# Everything but a look needs root.
need_root() {
    ((EUID == 0 || dry_run)) || [[ -n $ROOT ]] ||
        die "this needs root (sudo $0 ..., or --dry-run to see what it would do)"
}

# put VALUE FILE: writes a value as the kernel takes it; fails if the kernel does.
put() {
    if [[ -n $1 ]]; then echo "echo $1 > $2"; else echo "echo > $2"; fi
    ((dry_run)) || {
        { printf '%s\n' "$1" >"$2"; } 2>/dev/null && { [[ -z ${NF_KERNEL:-} ]] || "$NF_KERNEL" "$2" "$1"; }
    }
}

# run COMMAND...: shows a command and runs it.
run() {
    echo "$*"
    ((dry_run)) || "$@"
}

# content FILE: its only line, or nothing.
content() {
    local line=''
    { read -r line <"$1"; } 2>/dev/null || true
    printf '%s' "$line"
}

# target LINK: the last name of what a link points to, or nothing.
target() {
    local to
    to=$(readlink "$1") || return 0
    printf '%s' "${to##*/}"
}

# address_of DEVICE: the PCI address of what is named by address, with or without its domain, or by
# interface.
address_of() {
    local name=${1,,} at
    [[ $name =~ ^[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$ ]] && name=0000:$name
    if [[ $name =~ ^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$ ]]; then
        [[ -e $PCI/devices/$name ]] || die "there is no PCI device $name (see lspci -D)"
        echo "$name"
        return
    fi
    [[ $1 != */* && -e $ROOT/sys/class/net/$1 ]] ||
        die "$1 is neither a PCI address (such as 0000:01:10.0) nor an interface of the kernel (see scripts/bind --status)"
    at=$(readlink -f "$ROOT/sys/class/net/$1/device") || at=''
    # A virtio device stands below its PCI device, and is all of it; a USB device or a subfunction is not.
    [[ ! ${at##*/} =~ ^virtio[0-9]+$ ]] || at=${at%/*}
    [[ ${at##*/} =~ ^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$ ]] ||
        die "the interface $1 has no PCI device (DPDK reaches it by --vdev net_af_packet0,iface=$1)"
    echo "${at##*/}"
}

# driver_of ADDRESS: the driver that has the device, or nothing.
driver_of() {
    target "$PCI/devices/$1/driver"
}

# interfaces_of ADDRESS: the kernel's network interfaces of a device, one on a line.
interfaces_of() {
    local path
    for path in "$PCI/devices/$1/net"/* "$PCI/devices/$1"/virtio*/net/*; do
        [[ ! -e $path ]] || echo "${path##*/}"
    done
}
