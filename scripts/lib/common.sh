# shellcheck shell=bash
# What the scripts share: how they speak, and how they get what is missing. To be sourced.

# Debian packages by purpose; the names hold on Debian 12 and 13.
# shellcheck disable=SC2034 # the scripts that source this file use them
{
    # A C compiler for the shim, libclang for bindgen, and DPDK with all its drivers.
    BUILD_PACKAGES=(build-essential pkg-config libclang-dev dpdk-dev)
    # Two network namespaces, ping, and an HTTP server and client.
    DEMO_PACKAGES=(iproute2 iputils-ping curl python3)
    # dpdk-testpmd, which on both releases is in dpdk-dev.
    BENCH_PACKAGES=(dpdk-dev)
    # Namespaces, what joins segments, and rules: for the kernel as a peer.
    KERNEL_PACKAGES=(iproute2 ethtool nftables)
    # Callgrind, and addr2line, which knows what is inlined where.
    PROFILE_PACKAGES=(valgrind binutils)
    # perf, for time in place of instructions.
    SAMPLING_PACKAGES=(linux-perf binutils)
}

if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    BOLD=$'\e[1m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
else
    BOLD='' RED='' GREEN='' YELLOW='' PLAIN=''
fi
# shellcheck disable=SC2034 # not every script uses every colour
readonly BOLD RED GREEN YELLOW PLAIN

# A heading: what happens next.
say() {
    printf '%s==> %s%s\n' "$BOLD" "$*" "$PLAIN"
}

# One sentence, and out.
die() {
    printf '%s%s:%s %s\n' "$RED" "${0##*/}" "$PLAIN" "$*" >&2
    exit 1
}

# Prints the comment at the top of the calling script: that is its help text.
show_help() {
    sed -n '2,/^$/ s/^# \{0,1\}//p' "$0"
}

# install_packages WHY PACKAGE...: installs through apt-get those of the packages that are missing.
install_packages() {
    local why=$1 package missing=() as_root=() log
    shift
    for package in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0

    command -v apt-get >/dev/null ||
        die "this is not a Debian system, so install what these packages hold and is missing: ${missing[*]}"
    local install=(apt-get install -y --no-install-recommends "${missing[@]}")
    if ((EUID != 0)); then
        command -v sudo >/dev/null ||
            die "packages are missing for $why, so run this as root first: apt-get update && ${install[*]}"
        as_root=(sudo)
        # Nobody is there to type a password.
        [[ -t 0 ]] || as_root+=(-n)
    fi

    say "installing with apt-get, for $why: ${missing[*]}"
    log=$(mktemp)
    if ! {
        "${as_root[@]}" apt-get update -q &&
            "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
                "${install[@]}" -q -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0
    } >"$log" 2>&1 </dev/null; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        die "the packages could not be installed (apt-get's last lines are above)"
    fi
    rm -f "$log"
}

# Finds cargo, also where rustup has just put it and no shell knows of it yet.
need_cargo() {
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
    command -v cargo >/dev/null ||
        die "cargo is missing: install Rust as https://rustup.rs says, then run this again"
    cargo --version >/dev/null 2>&1 ||
        die "cargo does not run: install a toolchain with 'rustup default stable', then run this again"
}

# bench_program NAME: builds a benchmark of the crate nfs as users get it, and prints where it is.
bench_program() {
    local built
    built=$(cargo bench --quiet -p nfs --bench "$1" --no-run --message-format=json-render-diagnostics) ||
        die "the benchmark $1 does not build"
    sed -n 's/.*"kind":\["bench"\].*"executable":"\([^"]*\)".*/\1/p' <<<"$built"
}
