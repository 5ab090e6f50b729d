//! Tests in a network namespace that nobody else is in.

#[path = "../../../dpdk-rs/tests/common/skip.rs"]
mod skip;

#[allow(unused_imports, reason = "some tests need more than a namespace")]
pub(crate) use skip::skip;
use std::process::{Command, Stdio};

/// Says to a test that it is in its namespace.
const INSIDE: &str = "NF_TEST_NAMESPACE";

/// Runs a test's body in a new network namespace: this program starts itself again there, for this one test, which
/// is named with its modules.
pub(crate) fn in_a_namespace(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let name = test.rsplit("::").next().unwrap_or(test);
    if !Command::new("unshare").args(["--net", "true"]).output().is_ok_and(|output| output.status.success()) {
        return skip(name, "only root can make a network namespace");
    }
    if Command::new("ip").arg("-V").output().is_err() {
        return skip(name, "there is no ip (the package iproute2)");
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--"]).arg(std::env::current_exe().unwrap()).env(INSIDE, name);
    let output = command.args(["--exact", test, "--nocapture"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "in the namespace: {said}");
}

/// Runs lines of `ip`.
pub(crate) fn ip(lines: &str) {
    let mut ip = Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut ip.stdin.take().unwrap(), lines.as_bytes()).unwrap();
    assert!(ip.wait().unwrap().success(), "{lines}");
}

/// The interfaces that come from now on say nothing of their own, as they would to have IPv6 addresses.
#[allow(dead_code, reason = "not all tests mind")]
pub(crate) fn silence() {
    for family in ["all", "default"] {
        let _ = std::fs::write(format!("/proc/sys/net/ipv6/conf/{family}/disable_ipv6"), "1");
    }
}
