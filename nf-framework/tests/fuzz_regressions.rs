//! What fuzzing has ever found, once more: each file in `tests/fuzz_regressions/TARGET`. And what it
//! begins with, so that the targets themselves hold.

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

use std::path::Path;

#[test]
fn what_has_made_a_target_fail_does_not_again() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz_regressions");
    for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let target = targets::ALL.iter().find(|target| *target.name == name);
        let target = target.unwrap_or_else(|| panic!("there is no target {name:?}"));
        for file in std::fs::read_dir(entry.path()).expect("a directory").flatten() {
            println!("{}: {}", target.name, file.path().display());
            (target.run)(&std::fs::read(file.path()).expect("a file"));
        }
    }
}

#[test]
fn every_target_holds_for_what_it_begins_with_and_for_parts_of_it() {
    for target in targets::ALL {
        let seeds = (target.seeds)();
        assert!(!seeds.is_empty(), "{}: {}", target.name, target.about);
        for seed in seeds {
            (target.run)(&seed);
            (target.run)(&seed[..seed.len() / 2]);
        }
    }
}
