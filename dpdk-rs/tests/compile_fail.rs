//! What safe code must not be able to write. One EAL, one owner of each packet and queue:
//! these programs break a rule each and do not compile, for the reason in the file beside.

#![allow(clippy::unwrap_used, reason = "the line is the message")]

mod common;

#[test]
fn misuse_does_not_compile() {
    // trybuild builds in the target directory.
    let test = std::env::current_exe().unwrap();
    if let Err(error) = std::fs::File::create(test.with_extension("writable")) {
        common::skip("misuse_does_not_compile", &format!("the target directory cannot be written: {error}"));
        return;
    }
    std::fs::remove_file(test.with_extension("writable")).unwrap();
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
