//! A machine as its files tell of it: `/` in life, a made-up tree in tests.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The tree that everything is read from. What is not there, or may not be read, is `None` or
/// empty: a kernel without something has no file for it.
#[derive(Debug)]
pub(super) struct Machine {
    root: PathBuf,
}

impl Machine {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where a path of the machine is for us.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text without white space around it.
    pub(super) fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    /// A file's number.
    pub(super) fn number<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// What a link points to, as it is written.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        Some(std::fs::read_link(self.path(path)).ok()?.to_string_lossy().into_owned())
    }

    /// The last name of what a link points to: a driver, a group.
    pub(super) fn target(&self, path: &str) -> Option<String> {
        self.link(path)?.rsplit('/').next().map(str::to_owned)
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.path(path).symlink_metadata().is_ok()
    }

    /// Whether this is a virtual machine, as its processor says.
    pub(super) fn is_virtual(&self) -> bool {
        let flags = self.text("proc/cpuinfo").unwrap_or_default();
        flags.lines().any(|line| line.starts_with("flags") && line.split_whitespace().any(|flag| flag == "hypervisor"))
    }

    /// The values of an argument that the kernel was started with, such as `isolcpus`.
    pub(super) fn kernel_argument(&self, name: &str) -> Vec<String> {
        let arguments = self.text("proc/cmdline").unwrap_or_default();
        let of_name = |argument: &str| {
            let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
            (key == name).then(|| value.to_owned())
        };
        arguments.split_whitespace().filter_map(of_name).collect()
    }

    /// A line of this process's status, such as `CapEff`.
    pub(super) fn own_status(&self, key: &str) -> Option<String> {
        let status = self.text("proc/self/status")?;
        let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        Some(value.trim().to_owned())
    }

    /// Whether this process has a capability, by its number in linux/capability.h.
    pub(super) fn is_capable_of(&self, number: u32) -> bool {
        let effective = self.own_status("CapEff").and_then(|text| u64::from_str_radix(&text, 16).ok());
        effective.is_some_and(|effective| effective & (1 << number) != 0)
    }
}

/// The numbers of a kernel's list, such as `0-3,8`.
pub(super) fn number_list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// Numbers as such a list.
pub(super) fn listed(numbers: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for &number in numbers {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let text = |(first, last): (u32, u32)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    ranges.into_iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for (text, numbers) in [("", vec![]), ("0", vec![0]), ("0-3,8", vec![0, 1, 2, 3, 8]), ("1,3", vec![1, 3])] {
            assert_eq!((number_list(text), listed(&numbers).as_str()), (numbers.clone(), text));
        }
        assert_eq!(number_list("managed_irq,domain,2-3"), [2, 3]);
    }
}
