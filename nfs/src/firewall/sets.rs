//! Sets of addresses, from the configuration and from files.

use super::config::SetConfig;
use nf_framework::{AddressSet, FileContent, Invalid, Prefix};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The sets as rules name them, with what their files say.
pub(super) fn read(sets: &BTreeMap<String, SetConfig>) -> Result<Vec<AddressSet>, Invalid> {
    sets.iter().map(|(name, config)| set(name, config)).collect()
}

/// Of the sets that were read so, what their files held.
pub(super) fn files(configs: &BTreeMap<String, SetConfig>, sets: &[AddressSet]) -> Vec<FileContent> {
    let of = |(AddressSet { name, prefixes }, config): (&AddressSet, &SetConfig)| {
        config.file.as_ref()?;
        let from_file = prefixes.get(config.prefixes.len()..).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        from_file.hash(&mut hasher);
        let summary = match from_file.len() {
            1 => "1 prefix".to_owned(),
            many => format!("{many} prefixes"),
        };
        Some(FileContent { key: format!("sets.{name}.file"), digest: hasher.finish(), summary })
    };
    sets.iter().filter_map(|set| of((set, configs.get(&set.name)?))).collect()
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

/// One prefix on a line; comments go from `#` or `;` to the line's end. An error has its line, from 1.
fn parse(text: &str) -> Result<Vec<Prefix>, (usize, String)> {
    let mut prefixes = Vec::new();
    // Some editors mark UTF-8 by a byte order mark.
    for (line, number) in text.trim_start_matches('\u{feff}').lines().zip(1..) {
        let said = line.split(['#', ';']).next().unwrap_or_default().trim();
        if let [first, more, ..] = said.split_whitespace().collect::<Vec<_>>()[..] {
            let message = format!("{more:?} behind {first:?}: write one prefix on a line, and comments behind # or ;");
            return Err((number, message));
        }
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
        let text = "\u{feff}# a list\n10.0.0.0/8\n\n 2001:db8::/32 # documentation\r\n192.0.2.0/24 ; SBL1\n192.0.2.1";
        let found: Vec<_> = parse(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.0/24", "192.0.2.1/32"]);
        let (line, said) = parse("10.0.0.0/8 office").unwrap_err();
        let expected = "\"office\" behind \"10.0.0.0/8\": write one prefix on a line, and comments behind # or ;";
        assert_eq!((line, said.as_str()), (1, expected));
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

    #[test]
    fn what_a_file_held_is_told_by_a_digest_and_a_count() {
        let path = std::env::temp_dir().join(format!("firewall-set-files-{}", std::process::id()));
        let of = |first: &str, text: &str| {
            std::fs::write(&path, text).unwrap();
            let prefixes = vec![first.parse().unwrap()];
            let inline = SetConfig { file: None, prefixes: prefixes.clone() };
            let with_file = SetConfig { file: Some(path.clone()), prefixes };
            let configs = BTreeMap::from([("a".to_owned(), inline), ("b".to_owned(), with_file)]);
            let [file] = <[FileContent; 1]>::try_from(files(&configs, &read(&configs).unwrap())).unwrap();
            assert_eq!(file.key, "sets.b.file");
            (file.digest, file.summary)
        };
        let one = of("192.0.2.1", "10.0.0.0/8");
        assert_eq!(one.1, "1 prefix");
        assert_eq!(of("192.0.2.2", "# in other words\n10.0.0.0/8\n"), one, "the rest stands in the table");
        for other in ["10.0.0.0/9", "11.0.0.0/8", "10.0.0.0/8\n11.0.0.0/8"] {
            assert_ne!(of("192.0.2.1", other).0, one.0, "{other}");
        }
        assert_eq!(of("192.0.2.1", "10.0.0.0/8\n11.0.0.0/8").1, "2 prefixes");
        std::fs::remove_file(path).unwrap();
    }
}
