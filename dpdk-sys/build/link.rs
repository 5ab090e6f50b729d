//! What to link. Shared by default: the EAL then loads the drivers from the
//! distribution's plug-in directory at start. `--features static` takes the core and
//! the drivers that `DPDK_PMDS` names into the program.

use crate::probe::Dpdk;

/// The libraries whose functions are called, beside those they bring themselves.
const CORE: [&str; 12] =
    ["eal", "log", "ethdev", "acl", "hash", "mbuf", "mempool", "ring", "net", "net_ring", "telemetry", "pdump"];

/// What static programs need of DPDK, in link order: users before what they use.
const STATIC_CORE: [&str; 28] = [
    "mempool_ring",
    "pdump",
    "pcapng",
    "bpf",
    "gso",
    "vhost",
    "dmadev",
    "security",
    "cryptodev",
    "timer",
    "acl",
    "hash",
    "ip_frag",
    "rcu",
    "ethdev",
    "meter",
    "net",
    "mbuf",
    "mempool",
    "ring",
    "pci",
    "kvargs",
    "telemetry",
    "eal",
    "argparse",
    "log",
    "common_iavf",
    "bus_pci",
];

/// Drivers that need nothing outside Debian's base, libnuma and libpcap.
const STATIC_PMDS: &str = "bus_vdev net_null net_ring net_tap net_pcap net_af_packet net_virtio net_vmxnet3 \
                           net_e1000 net_ixgbe net_i40e net_iavf net_ice net_memif net_vhost";

/// Outside libraries that DPDK's own code calls, as Debian builds it.
const STATIC_SYSTEM: [&str; 5] = ["bsd", "numa", "pcap", "m", "dl"];

pub fn emit(dpdk: &Dpdk) -> Result<(), String> {
    println!("cargo::rerun-if-env-changed=DPDK_PMDS");
    for dir in &dpdk.library_dirs {
        println!("cargo::rustc-link-search=native={}", dir.display());
    }
    if !cfg!(feature = "static") {
        for library in CORE {
            if exists(dpdk, &format!("librte_{library}.so")) {
                println!("cargo::rustc-link-lib=dylib=rte_{library}");
            }
        }
        // Compiles filters; DPDK's own libraries need it too, so it is there.
        println!("cargo::rustc-link-lib=dylib=pcap");
        return Ok(());
    }
    let pmds = std::env::var("DPDK_PMDS").unwrap_or_else(|_| STATIC_PMDS.to_owned());
    let pmds: Vec<&str> = pmds.split([' ', ',']).filter(|name| !name.is_empty()).collect();
    if let Some(missing) = pmds.iter().find(|name| !exists(dpdk, &format!("librte_{name}.a"))) {
        return Err(format!(
            "DPDK_PMDS names {missing}, but there is no librte_{missing}.a beside DPDK {}'s libraries",
            dpdk.version
        ));
    }
    for library in pmds.into_iter().chain(STATIC_CORE) {
        if exists(dpdk, &format!("librte_{library}.a")) {
            // Drivers register by constructors that nothing refers to.
            println!("cargo::rustc-link-lib=static:+whole-archive,-bundle=rte_{library}");
        }
    }
    for library in STATIC_SYSTEM {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    Ok(())
}

fn exists(dpdk: &Dpdk, file: &str) -> bool {
    dpdk.library_dirs.iter().any(|dir| dir.join(file).is_file())
}
