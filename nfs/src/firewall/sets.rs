//! Sets of addresses, from the configuration and from files.

use super::config::SetConfig;
use nf_framework::{AddressSet, Invalid, Prefix};
use std::collections::BTreeMap;

/// The sets as rules name them, with what their files say.
pub(super) fn read(sets: &BTreeMap<String, SetConfig>) -> Result<Vec<AddressSet>, Invalid> {
    sets.iter().map(|(name, config)| set(name, config)).collect()
}

fn set(name: &str, config: &SetConfig) -> Result<AddressSet, Invalid> {
    let invalid = |key: &str, message| Err(Invalid::new(format!("sets.{name}{key}"), message));
    let mut prefixes = config.prefixes.clone();
    if let Some(path) = &config.file {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return invalid(".file", format!("{} cannot be read: {error}", path.display())),
        };
        match parse(&text) {
            Ok(more) => prefixes.extend(more),
            Err((line, fault)) => return invalid(".file", format!("{}:{line}: {fault}", path.display())),
        }
    } else if prefixes.is_empty() {
        return invalid("", "a set without addresses matches nothing: give prefixes or a file".to_owned());
    }
    Ok(AddressSet { name: name.to_owned(), prefixes })
}

/// One prefix on a line; comments go from `#` to the line's end. An error has its line, from 1.
fn parse(text: &str) -> Result<Vec<Prefix>, (usize, String)> {
    let mut prefixes = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let said = line.split('#').next().unwrap_or_default().trim();
        if !said.is_empty() {
            prefixes.push(said.parse().map_err(|error: nf_framework::InvalidPrefix| (number, error.to_string()))?);
        }
    }
    Ok(prefixes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_a_prefix_on_a_line_and_comments() {
        let found = parse("# a list\n10.0.0.0/8\n\n 2001:db8::/32 # documentation\r\n192.0.2.1").unwrap();
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.1/32"]);
        assert_eq!(parse("10.0.0.0/8\n10.0.0.1/8").unwrap_err().0, 2);
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn a_set_that_cannot_be_is_named_with_what_is_wrong() {
        let said = |config: SetConfig| {
            let invalid = read(&BTreeMap::from([("bad".to_owned(), config)])).unwrap_err();
            format!("{}: {}", invalid.key, invalid.message)
        };
        assert!(said(SetConfig::default()).starts_with("sets.bad: a set without addresses"));
        let missing = SetConfig { file: Some("/nonexistent/list".into()), ..SetConfig::default() };
        assert!(said(missing).starts_with("sets.bad.file: /nonexistent/list cannot be read: "));
        let path = std::env::temp_dir().join(format!("firewall-sets-{}", std::process::id()));
        std::fs::write(&path, "10.0.0.0/8\nten\n").unwrap();
        let broken = SetConfig { file: Some(path.clone()), ..SetConfig::default() };
        assert!(said(broken.clone()).contains(":2: \"ten\" does not begin with an IPv4 or IPv6 address"));
        std::fs::write(&path, "10.0.0.0/8\n").unwrap();
        let mixed = SetConfig { prefixes: vec!["192.0.2.1".parse().unwrap()], ..broken };
        let sets = read(&BTreeMap::from([("good".to_owned(), mixed)])).unwrap();
        assert_eq!((sets[0].name.as_str(), sets[0].prefixes.len()), ("good", 2));
        std::fs::remove_file(path).unwrap();
    }
}
