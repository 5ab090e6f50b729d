//! One target under libFuzzer: `NF_FUZZ_TARGET` names it. `scripts/fuzz` is the way to run it.
//!
//! With `NF_FUZZ_LIST` it prints the targets and ends, and with `NF_FUZZ_SEEDS` it writes what the
//! target begins with into that directory and ends.
#![no_main]

mod targets;

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::OnceLock;
use targets::Target;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("NF_FUZZ_TARGET").expect("NF_FUZZ_TARGET names a target");
        targets::ALL.iter().find(|target| target.name == name).expect("there is a target of this name")
    })
}

fn answer_instead() {
    if std::env::var_os("NF_FUZZ_LIST").is_some() {
        targets::ALL.iter().for_each(|target| println!("{:<12}{}", target.name, target.about));
        std::process::exit(0);
    }
    if let Some(directory) = std::env::var_os("NF_FUZZ_SEEDS") {
        for (number, seed) in (target().seeds)().iter().enumerate() {
            let file = Path::new(&directory).join(format!("seed-{number:03}"));
            std::fs::write(file, seed).expect("a directory to write into");
        }
        std::process::exit(0);
    }
}

fuzz_target!(
    init: {
        answer_instead();
    },
    |bytes: &[u8]| (target().run)(bytes)
);
