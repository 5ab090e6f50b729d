//! The one place where C's return codes become an error.

use std::ffi::c_int;
use std::fmt;

/// An error number as DPDK gives it (`errno.h` and `rte_errno.h`), positive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// `rte_errno` of this thread; right after the call that failed.
    pub(crate) fn last() -> Self {
        // SAFETY: reads a thread-local variable, no precondition.
        Self(unsafe { dpdk_sys::shim_errno() })
    }

    /// A return code that is negative on failure and then holds the error number.
    pub(crate) fn check(code: c_int) -> Result<c_int, Self> {
        if code >= 0 { Ok(code) } else { Err(Self(-code)) }
    }
}

impl fmt::Display for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = std::io::Error::from_raw_os_error(self.0).to_string();
        let text = text.split(" (os error").next().unwrap_or_default();
        write!(f, "{text} (errno {})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_code_is_the_error_number() {
        assert_eq!(Errno::check(-22), Err(Errno(22)));
        assert_eq!(Errno::check(7), Ok(7));
        assert_eq!(Errno(22).to_string(), "Invalid argument (errno 22)");
    }
}
