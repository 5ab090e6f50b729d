//! The README shows the example as it is.

#[test]
fn the_readme_shows_the_example_as_it_is() {
    let readme = include_str!("../../README.md");
    let program = include_str!("../examples/port-block/main.rs");
    assert!(readme.contains(&format!("```rust\n{program}```")), "README.md shows another port-block");
    let config = include_str!("../examples/port-block/port-block.toml");
    assert!(readme.contains(&format!("```toml\n{config}```")), "README.md shows another port-block.toml");
}
