//! How a test says that it cannot run here.

use std::io::Write;

/// Says that a test cannot run here, also in the file that `NF_SKIP_LOG` names.
pub(crate) fn skip(name: &str, why: &str) {
    println!("skipped: {name}: {why}");
    if let Some(log) = std::env::var_os("NF_SKIP_LOG") {
        let mut log = std::fs::OpenOptions::new().append(true).create(true).open(log).expect("NF_SKIP_LOG");
        log.write_all(format!("{name}: {why}\n").as_bytes()).expect("NF_SKIP_LOG");
    }
}
