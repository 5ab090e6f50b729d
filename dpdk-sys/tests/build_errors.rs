//! What a build says when a part is missing. Runs the build script that cargo has built,
//! with an environment in which the part cannot be found.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

#[test]
fn a_missing_part_is_named_with_the_package_to_install() {
    let scratch = std::env::temp_dir().join(format!("dpdk-sys-build-{}", std::process::id()));
    std::fs::create_dir_all(&scratch).unwrap();
    for (variable, package) in [
        ("PKG_CONFIG", "pkg-config is not installed; install it, on Debian: apt-get install pkg-config"),
        (
            "PKG_CONFIG_LIBDIR",
            "DPDK's development files are not installed; install them, on Debian: apt-get install dpdk-dev",
        ),
        ("LIBCLANG_PATH", "libclang is not installed; install it, on Debian: apt-get install libclang-dev"),
    ] {
        let output = Command::new(build_script())
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env("OUT_DIR", &scratch)
            .envs(["TARGET", "HOST"].map(|name| (name, "x86_64-unknown-linux-gnu")))
            .env_remove("PKG_CONFIG_PATH")
            .env(variable, "/nonexistent/part")
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout);
        let errors: Vec<&str> = out.lines().filter_map(|line| line.strip_prefix("cargo::error=")).collect();
        assert_eq!(errors.len(), 1, "{variable}: one sentence in {out}");
        assert!(errors[0].starts_with(package), "{variable}: {}", errors[0]);
        // Cargo surrounds the sentence with all of this if the code is not 0.
        assert!(output.status.success() && output.stderr.is_empty(), "{variable}: {output:?}");
        assert!(!scratch.join("bindings.rs").exists());
    }
    std::fs::remove_dir_all(&scratch).unwrap();
}

/// The newest build script of this crate: target/PROFILE/build/dpdk-sys-HASH/build-script-main.
fn build_script() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let built = |path: &Path| path.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
    std::fs::read_dir(profile.join("build"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("dpdk-sys-"))
        .map(|entry| entry.path().join("build-script-main"))
        .filter(|path| path.is_file())
        .max_by_key(|path| built(path))
        .unwrap()
}
