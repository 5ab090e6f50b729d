//! Whether a port has a link, as far as that can be known.

use dpdk_rs::{Link, Port};

/// A port's link; `None` where nobody can know it.
pub(crate) fn link_of(port: &Port) -> Option<Link> {
    port.link().ok().filter(|link| link.up || !is_elsewhere(port))
}

/// Whether the kernel's interface behind a port is in another network namespace: net_tap asks for its
/// state by a name that is not there then, and takes the link for down. What is here is what /sys tells, which
/// has to be of the program's own namespace (`ip netns exec` sees to that).
fn is_elsewhere(port: &Port) -> bool {
    let Some(index) = port.info().ok().and_then(|info| info.kernel_interface) else { return false };
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let index_of = |entry: std::fs::DirEntry| std::fs::read_to_string(entry.path().join("ifindex")).ok();
    !interfaces.filter_map(index_of).any(|text| text.trim().parse() == Ok(index))
}
