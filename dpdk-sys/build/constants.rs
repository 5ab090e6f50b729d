//! Typed constants. Macros that go through `RTE_BIT64()` or a cast are invisible to
//! bindgen, and others get the smallest type that holds them. So each is put into a
//! `static const uint64_t` for bindgen to find, and given back its own name.

use crate::probe::Dpdk;

/// Families of flags in 64-bit words, by prefix, and the header that defines each.
pub const FAMILIES: [&str; 5] =
    ["RTE_ETH_RX_OFFLOAD_", "RTE_ETH_TX_OFFLOAD_", "RTE_ETH_RSS_", "RTE_ETH_LINK_SPEED_", "RTE_MBUF_F_"];
const HEADERS: [&str; 2] = ["rte_ethdev.h", "rte_mbuf_core.h"];
const PREFIX: &str = "DPDK_TYPED_";

/// C text with one constant for each macro of the families that the installed headers define.
pub fn typed(dpdk: &Dpdk) -> Result<String, String> {
    let mut text = String::from("#include <rte_ethdev.h>\n#include <rte_mbuf.h>\n");
    for header in HEADERS {
        let path =
            dpdk.header(header).ok_or_else(|| format!("{header} is not among the headers of DPDK {}", dpdk.version))?;
        let source = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        for name in source.lines().filter_map(defined) {
            text.push_str(&format!("static const uint64_t {PREFIX}{name} = (uint64_t)({name});\n"));
        }
    }
    Ok(text)
}

/// The macro that a line defines, if it is of a family and takes no arguments.
fn defined(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("#define")?.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (name, value) = rest.split_at(end);
    (FAMILIES.iter().any(|family| name.starts_with(family)) && !value.starts_with('(') && !value.trim().is_empty())
        .then_some(name)
}

#[derive(Debug)]
pub struct OriginalNames;

impl bindgen::callbacks::ParseCallbacks for OriginalNames {
    fn item_name(&self, item: bindgen::callbacks::ItemInfo<'_>) -> Option<String> {
        item.name.strip_prefix(PREFIX).map(str::to_owned)
    }
}
