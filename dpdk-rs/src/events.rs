//! What devices say of themselves between two looks: a link that changes, a reset asked for, a
//! removal. DPDK says so on its interrupt thread, where nothing is done but to note it.

use crate::Errno;
use crate::port_info::PortId;
use dpdk_sys as sys;
use std::sync::atomic::{AtomicU32, Ordering};

/// What a device has said since it was last asked ([`Port::events`](crate::Port::events)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PortEvents {
    /// Its link has changed: `RTE_ETH_EVENT_INTR_LSC`.
    pub link: bool,
    /// It wants to be reset, as a virtual function does when its physical function was:
    /// `RTE_ETH_EVENT_INTR_RESET`.
    pub reset: bool,
    /// It is being taken away: `RTE_ETH_EVENT_INTR_RMV`, or its bus says so.
    pub removed: bool,
}

/// What was said by each port and nobody has taken yet. It lives as long as the process, so a
/// callback needs no owner.
static SAID: [AtomicU32; sys::RTE_MAX_ETHPORTS as usize] =
    [const { AtomicU32::new(0) }; sys::RTE_MAX_ETHPORTS as usize];

/// Has the events of a port that is about to be started noted. A reset that it wanted is what it gets;
/// that it is being taken away stays true.
pub(crate) fn watch(port: PortId) -> Result<(), Errno> {
    if let Some(said) = SAID.get(usize::from(port.0)) {
        said.fetch_and(sys::SHIM_EVENT_REMOVED, Ordering::Relaxed);
    }
    // SAFETY: any id may be asked for; `note` may be called at any time, on any thread.
    Errno::check(unsafe { sys::shim_port_watch(port.0, Some(note)) }).map(|_| ())
}

/// Notes what something else than the device has said.
pub(crate) fn add(port: PortId, events: PortEvents) {
    let PortEvents { link, reset, removed } = events;
    let kinds = [(link, sys::SHIM_EVENT_LINK), (reset, sys::SHIM_EVENT_RESET), (removed, sys::SHIM_EVENT_REMOVED)];
    let bits = kinds.into_iter().filter(|(said, _)| *said).fold(0, |bits, (_, bit)| bits | bit);
    if let Some(said) = SAID.get(usize::from(port.0)) {
        said.fetch_or(bits, Ordering::Relaxed);
    }
}

/// Those since the last call.
pub(crate) fn take(port: PortId) -> PortEvents {
    let said = SAID.get(usize::from(port.0)).map_or(0, |said| said.swap(0, Ordering::Relaxed));
    let has = |event| said & event != 0;
    PortEvents {
        link: has(sys::SHIM_EVENT_LINK),
        reset: has(sys::SHIM_EVENT_RESET),
        removed: has(sys::SHIM_EVENT_REMOVED),
    }
}

/// Called by DPDK. It cannot panic.
unsafe extern "C" fn note(port: u16, event: u32) {
    if let Some(said) = SAID.get(usize::from(port)) {
        said.fetch_or(event, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As DPDK's interrupt thread does.
    fn say(port: u16, event: u32) {
        // SAFETY: it has no precondition.
        unsafe { note(port, event) };
    }

    #[test]
    fn what_a_port_has_said_is_told_once() {
        let port = PortId(3);
        let (link, reset, removed) = (sys::SHIM_EVENT_LINK, sys::SHIM_EVENT_RESET, sys::SHIM_EVENT_REMOVED);
        for (said, expected) in [
            (vec![], PortEvents::default()),
            (vec![link], PortEvents { link: true, ..PortEvents::default() }),
            (vec![reset, reset], PortEvents { reset: true, ..PortEvents::default() }),
            (vec![removed, link], PortEvents { link: true, removed: true, reset: false }),
        ] {
            std::thread::scope(|threads| {
                threads.spawn(|| said.iter().for_each(|event| say(port.0, *event)));
            });
            assert_eq!(take(PortId(2)), PortEvents::default(), "of another port");
            assert_eq!(take(port), expected);
            assert_eq!(take(port), PortEvents::default());
            add(port, expected);
            assert_eq!(take(port), expected);
        }
    }

    #[test]
    fn a_port_that_cannot_be_is_no_trouble() {
        for port in [32, 33, u16::MAX] {
            say(port, u32::MAX);
            assert_eq!(take(PortId(port)), PortEvents::default());
        }
    }
}
