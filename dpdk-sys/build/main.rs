//! Builds the bindings against the DPDK that is installed: finds it, compiles the
//! C shim with its flags, generates the declarations, and names what to link.

mod constants;
mod link;
mod probe;

use probe::Dpdk;
use std::path::PathBuf;

/// Versions at which the shape of something that Rust sees may differ.
const MILESTONES: [(u32, u32); 3] = [(23, 11), (24, 11), (25, 11)];

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=csrc");
    // The error line alone fails the build. A failing exit code too would make cargo put
    // all that was printed here around it.
    if let Err(sentence) = run() {
        println!("cargo::error={sentence}");
    }
}

fn run() -> Result<(), String> {
    let dpdk = probe::dpdk()?;
    probe::libclang()?;
    version_flags(&dpdk);
    compile_shim(&dpdk)?;
    generate_bindings(&dpdk)?;
    link::emit(&dpdk)
}

/// `cfg(dpdk_ge_24_11)` and the like, and `DEP_DPDK_VERSION` for the crates above.
fn version_flags(dpdk: &Dpdk) {
    for (year, month) in MILESTONES {
        let name = format!("dpdk_ge_{year}_{month:02}");
        println!("cargo::rustc-check-cfg=cfg({name})");
        if (dpdk.year, dpdk.month) >= (year, month) {
            println!("cargo::rustc-cfg={name}");
        }
    }
    println!("cargo::metadata=VERSION={}", dpdk.version);
}

fn compile_shim(dpdk: &Dpdk) -> Result<(), String> {
    let mut build = cc::Build::new();
    // DPDK's inline functions are written for an optimising compiler, in every profile.
    build.opt_level(3).warnings(true).file("csrc/shim.c");
    for flag in &dpdk.cflags {
        build.flag(flag);
    }
    build.try_compile("dpdk_shim").map_err(|error| {
        format!("the C shim does not compile against DPDK {} (is build-essential installed?): {error}", dpdk.version)
    })?;
    if cfg!(feature = "allocation-count") {
        let mut build = cc::Build::new();
        build.opt_level(2).warnings(true).file("csrc/allocation_count.c");
        if cfg!(feature = "static") {
            build.define("DPDK_STATIC", None);
        }
        build.try_compile("dpdk_allocation_count").map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn generate_bindings(dpdk: &Dpdk) -> Result<(), String> {
    let out = PathBuf::from(std::env::var("OUT_DIR").map_err(|error| error.to_string())?);
    let bindings = bindgen::Builder::default()
        .header("csrc/wrapper.h")
        .header_contents("dpdk_constants.h", &constants::typed(dpdk)?)
        .clang_args(&dpdk.cflags)
        .parse_callbacks(Box::new(constants::OriginalNames))
        .allowlist_function("shim_.*")
        .allowlist_type("shim_.*|dpdk_(mbuf_offset|size|acl)")
        .derive_default(true)
        .allowlist_function("rte_(eal|eth|lcore|log|mempool|pktmbuf|mbuf|ring|dev|thread|malloc|memzone)_.*")
        .allowlist_function("rte_(zmalloc|malloc|free|version|strerror|rand|get_(main|next)_lcore|get_t[is][cm][e]?r?_.*|openlog_stream|socket_.*)")
        .allowlist_function("rte_acl_(create|free|add_rules|build|classify|set_ctx_classify)")
        .allowlist_function("rte_(tel_data|telemetry)_.*|rte_pdump_(init|uninit)")
        .allowlist_function("rte_hash_(create|free|add_key|lookup_bulk)")
        .allowlist_function("pcap_(open_dead|compile|freecode|offline_filter|geterr|close)")
        .allowlist_var("DLT_EN10MB|PCAP_NETMASK_UNKNOWN")
        .allowlist_type("rte_acl_(classify_alg|config|param|rule)")
        .allowlist_type("rte_(eth|mbuf|mempool|ring|eal|lcore|log)_.*|rte_(mbuf|mempool|ring)")
        .allowlist_var("DPDK_.*|SHIM_.*|RTE_(TEL|ETH|ETHER|MAX|MBUF|MEMPOOL|RING|LOG|VER|PKTMBUF|CACHE)_.*|LCORE_ID_ANY|SOCKET_ID_ANY|RTE_MAX_.*|RING_F_.*")
        // Thread-local in DPDK: linked as ordinary variables they crash the program. The shim has functions.
        .blocklist_item("per_lcore_.*")
        // bindgen types these by value, u32 or u64; `constants` gives them again, all u64.
        .blocklist_var(constants::FAMILIES.map(|family| format!("{family}.*")).join("|"))
        // Packed and aligned at once, which Rust does not have; nobody here looks inside.
        .opaque_type("rte_(arp_hdr|arp_ipv4|l2tpv2_combined_msg_hdr|gtp_psc_generic_hdr)")
        .default_enum_style(bindgen::EnumVariation::ModuleConsts)
        .constified_enum("dpdk_(mbuf_offset|size|acl)|shim_event")
        .prepend_enum_name(false)
        .generate_comments(false)
        .layout_tests(true)
        .generate()
        .map_err(|error| format!("bindgen cannot read the headers of DPDK {}: {error}", dpdk.version))?;
    bindings.write_to_file(out.join("bindings.rs")).map_err(|error| error.to_string())
}
