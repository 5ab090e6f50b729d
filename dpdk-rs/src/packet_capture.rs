//! Lets dpdk-dumpcap attach to this process, by the library that it speaks to (`rte_pdump`).
//!
//! That costs packets nothing until it does: it then has the library put callbacks on the queues that it asks for,
//! on DPDK's own thread, and takes them away when it ends.

use crate::Errno;
use dpdk_sys as sys;

/// Captures can be asked for while it lives.
pub(crate) struct PacketCapture(());

impl PacketCapture {
    /// Offers captures, if another process can attach to one with these EAL arguments at all. That it does not work
    /// is in the log: a program forwards without.
    ///
    /// # Safety
    ///
    /// The EAL is up, and is not cleaned up before this has been dropped.
    pub(crate) unsafe fn offer(arguments: &[String]) -> Option<Self> {
        if !can_attach(arguments) {
            return None;
        }
        // SAFETY: the EAL is up, by this function's precondition.
        let code = unsafe { sys::rte_pdump_init() };
        if code < 0 {
            log::warn!("dpdk-dumpcap cannot attach to this program: {}", Errno::last());
            return None;
        }
        Some(Self(()))
    }
}

impl Drop for PacketCapture {
    fn drop(&mut self) {
        // SAFETY: `rte_pdump_init` has succeeded, and the EAL is still up (`offer`).
        if unsafe { sys::rte_pdump_uninit() } < 0 {
            log::warn!("the offer to dpdk-dumpcap was not taken back: {}", Errno::last());
        }
    }
}

/// Whether another process finds this one's configuration and its memory.
fn can_attach(arguments: &[String]) -> bool {
    !arguments.iter().any(|argument| matches!(argument.as_str(), "--in-memory" | "--no-shconf" | "--no-huge"))
}

/// What DPDK says of a capture that it refuses, with what that means: to who captures it only says that it was refused.
pub(crate) fn explained(line: String) -> String {
    const REFUSED: &str = "already exists";
    if !(line.starts_with("pdump_register_") && line.ends_with(REFUSED)) {
        return line;
    }
    line + ": another dpdk-dumpcap has that port, or one was killed and left it so (docs/admin.md says what clears it)"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_that_is_refused_is_told_with_the_reason() {
        let refused = "pdump_register_rx_callbacks(): rx callback for port=0 queue=0, already exists";
        for (line, expected) in [(refused, ": another dpdk-dumpcap has that port, "), ("the file already exists", "")] {
            let said = explained(line.to_owned());
            assert!(said.strip_prefix(line).is_some_and(|rest| rest.starts_with(expected)), "{said}");
            assert_eq!(said == line, expected.is_empty());
        }
    }

    #[test]
    fn another_process_attaches_only_where_it_finds_configuration_and_memory() {
        for (arguments, can) in [
            ("prog -l 0", true),
            ("prog --file-prefix nat --vdev=net_null0", true),
            ("prog --in-memory", false),
            ("prog --no-shconf", false),
            ("prog -l 0 --no-huge -m 64", false),
        ] {
            let arguments: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
            assert_eq!(can_attach(&arguments), can, "{arguments:?}");
        }
    }
}
