//! Finds the installed DPDK and what is needed to read it, or says what to install.

use std::path::PathBuf;
use std::process::Command;

/// The oldest release that the shim is written for.
const OLDEST: (u32, u32) = (22, 11);

pub struct Dpdk {
    pub version: String,
    pub year: u32,
    pub month: u32,
    /// Compiler flags exactly as pkg-config prints them.
    pub cflags: Vec<String>,
    pub library_dirs: Vec<PathBuf>,
}

impl Dpdk {
    /// Directory of headers, by the file that must be in it.
    pub fn header(&self, name: &str) -> Option<PathBuf> {
        self.cflags
            .iter()
            .filter_map(|flag| flag.strip_prefix("-I"))
            .map(|dir| PathBuf::from(dir).join(name))
            .find(|path| path.is_file())
    }
}

pub fn dpdk() -> Result<Dpdk, String> {
    // The crate explains well what is missing and watches the right environment
    // variables, but it keeps only part of the flags: `-include rte_config.h` and
    // `-march` are dropped. So the flags come from the program, word by word.
    let library = pkg_config::Config::new().cargo_metadata(false).probe("libdpdk").map_err(|error| match error {
        pkg_config::Error::Command { .. } => {
            "pkg-config is not installed; install it, on Debian: apt-get install pkg-config".to_owned()
        }
        pkg_config::Error::ProbeFailure { .. } | pkg_config::Error::Failure { .. } => {
            "DPDK's development files are not installed; install them, on Debian: apt-get install dpdk-dev \
                 (or let PKG_CONFIG_PATH lead to libdpdk.pc)"
                .to_owned()
        }
        other => one_line(&other),
    })?;
    let version = library.version.clone();
    let mut numbers = version.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let (Some(year), Some(month)) = (numbers.next(), numbers.next()) else {
        return Err(format!("pkg-config gives DPDK's version as {version:?}, which is not YEAR.MONTH"));
    };
    if (year, month) < OLDEST {
        return Err(format!("DPDK {version} is installed, {}.{:02} or newer is needed", OLDEST.0, OLDEST.1));
    }
    Ok(Dpdk { cflags: cflags()?, version, year, month, library_dirs: library.link_paths })
}

fn cflags() -> Result<Vec<String>, String> {
    let program = std::env::var("PKG_CONFIG").unwrap_or_else(|_| "pkg-config".to_owned());
    let output = Command::new(&program)
        .args(["--cflags", "libdpdk"])
        .output()
        .map_err(|error| format!("{program} does not start: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program} --cflags libdpdk: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).split_whitespace().map(str::to_owned).collect())
}

/// bindgen panics without libclang; ask first.
pub fn libclang() -> Result<(), String> {
    clang_sys::load().map_err(|_| {
        "libclang is not installed; install it, on Debian: apt-get install libclang-dev \
         (or let LIBCLANG_PATH lead to libclang.so)"
            .to_owned()
    })
}

fn one_line(error: &dyn std::fmt::Display) -> String {
    error.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}
