//! DPDK's log lines go into the `log` crate under the target `dpdk`. What it says while
//! the EAL starts becomes part of the error, if the start fails.

use crate::{packet_capture, virtual_function};
use std::cell::Cell;
use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines held back while the EAL starts: they go into its error, or into the log after it.
static HELD: Mutex<Option<Vec<(log::Level, String)>>> = Mutex::new(None);
/// A start that logs more than this has said enough.
const MOST_HELD: usize = 256;

/// Takes DPDK's log over, and holds its lines back until [`release`] or [`explain`].
pub(crate) fn install() {
    *held() = Some(Vec::new());
    // SAFETY: `sink` lives as long as the program and cannot unwind into C.
    let result = unsafe { dpdk_sys::shim_log_to(Some(sink)) };
    if result != 0 {
        log::warn!("DPDK's log stays on stderr: no stream could be opened for it");
    }
}

thread_local! {
    /// Whether what goes wrong on this thread is no news.
    static IS_TRYING: Cell<bool> = const { Cell::new(false) };
}

/// Does what may fail and will be done in another way then: what DPDK says of it is for debugging.
pub(crate) fn trying<T>(attempt: impl FnOnce() -> T) -> T {
    IS_TRYING.set(true);
    let outcome = attempt();
    IS_TRYING.set(false);
    outcome
}

/// Logs what was held back.
pub(crate) fn release() {
    // Not in the loop's head, where the lock would be held while the logger runs.
    let lines = held().take().unwrap_or_default();
    for (level, line) in lines {
        log::log!(target: "dpdk", level, "{line}");
    }
}

/// What was held back and is an error or a warning.
pub(crate) fn explain() -> Vec<String> {
    let lines = held().take().unwrap_or_default();
    lines.into_iter().filter(|(level, _)| *level <= log::Level::Warn).map(|(_, line)| line).collect()
}

fn held() -> MutexGuard<'static, Option<Vec<(log::Level, String)>>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

unsafe extern "C" fn sink(line: *const c_char, length: usize, level: u32) {
    // SAFETY: the shim passes `length` readable bytes (shim.c, log_write).
    let bytes = unsafe { std::slice::from_raw_parts(line.cast::<u8>(), length) };
    // A logger that panics must not unwind into C.
    let _ = std::panic::catch_unwind(|| {
        let level = match level {
            0..=dpdk_sys::RTE_LOG_ERR => log::Level::Error,
            dpdk_sys::RTE_LOG_WARNING => log::Level::Warn,
            dpdk_sys::RTE_LOG_NOTICE | dpdk_sys::RTE_LOG_INFO => log::Level::Info,
            _ => log::Level::Debug,
        };
        let level = if IS_TRYING.get() { level.max(log::Level::Debug) } else { level };
        let text = packet_capture::explained(String::from_utf8_lossy(bytes).trim().to_owned());
        virtual_function::hear(&text);
        if let Some(lines) = held().as_mut() {
            if lines.len() < MOST_HELD {
                lines.push((level, text));
            }
            return;
        }
        log::log!(target: "dpdk", level, "{text}");
    });
}
