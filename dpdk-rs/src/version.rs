//! Whether the library that was loaded is the one that the headers describe.

use std::ffi::CStr;
use std::fmt;

/// A DPDK release, `YEAR.MONTH.MINOR`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    /// Two digits, as in 22.11.
    pub year: u32,
    /// Month of the release.
    pub month: u32,
    /// Minor (stable) release.
    pub minor: u32,
}

impl Version {
    /// The release whose headers this program was built with.
    pub const HEADERS: Self = {
        let (year, month, minor) = dpdk_sys::HEADERS_VERSION;
        Self { year, month, minor }
    };

    /// The release of the library that the dynamic linker found.
    #[must_use]
    pub fn loaded() -> Self {
        // SAFETY: takes nothing; returns a string in static storage (rte_version.h).
        let text = unsafe { dpdk_sys::rte_version() };
        // SAFETY: non-null and NUL-terminated, as above.
        let text = unsafe { CStr::from_ptr(text) };
        Self::parse(&text.to_string_lossy()).unwrap_or(Self { year: 0, month: 0, minor: 0 })
    }

    /// `"DPDK 22.11.11"` and the like.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.rsplit(' ').next()?.split(['.', '-']).map(str::parse);
        Some(Self { year: parts.next()?.ok()?, month: parts.next()?.ok()?, minor: parts.next()?.ok()? })
    }

    /// The ABI counts by years that begin with the November release: 22.11, 23.03 and
    /// 23.07 share one (DPDK's ABI policy).
    fn abi(self) -> u32 {
        if self.month >= 11 { self.year + 1 } else { self.year }
    }

    /// Same ABI, and not older than the headers within it.
    pub(crate) fn can_stand_for(self, headers: Self) -> bool {
        self.abi() == headers.abi() && (self.year, self.month) >= (headers.year, headers.month)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:02}.{}", self.year, self.month, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_of_another_abi_year_or_older_than_the_headers_is_refused() {
        for (headers, loaded, fits) in [
            ("DPDK 22.11.11", "DPDK 22.11.11", true),
            ("DPDK 22.11.11", "DPDK 22.11.2", true),
            ("DPDK 22.11.11", "DPDK 23.03.0", true),
            ("DPDK 23.03.0", "DPDK 22.11.11", false),
            ("DPDK 22.11.11", "DPDK 23.11.0", false),
            ("DPDK 22.11.11", "DPDK 24.11.4", false),
            ("DPDK 24.11.4", "DPDK 22.11.11", false),
            ("DPDK 24.11.4", "DPDK 25.07.0-rc1", true),
        ] {
            let version = |text| Version::parse(text).unwrap();
            assert_eq!(version(loaded).can_stand_for(version(headers)), fits, "{loaded} for {headers}");
        }
    }
}
