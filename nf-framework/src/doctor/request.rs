//! What a program is going to ask of the machine.

use super::machine::number_list;
use crate::eal_arguments::{arguments, device_name, pci_address};

/// What the EAL's arguments ask for.
#[derive(Debug, Default)]
pub(super) struct Request {
    /// PCI addresses of `-a`.
    pub(super) devices: Vec<String>,
    /// The CPUs of `-l` and `--lcores`, each once; none if they are not given.
    pub(super) cpus: Vec<u32>,
    pub(super) no_huge: bool,
    pub(super) in_memory: bool,
    /// `--file-prefix`; none if the program shares nothing under a prefix.
    pub(super) prefix: Option<String>,
    /// Where else drivers are loaded from (`-d`).
    pub(super) plugins: Vec<String>,
    /// Bytes of hugepages.
    pub(super) need: Option<u64>,
    /// Whether it works with virtual devices, or without PCI devices.
    pub(super) is_virtual: bool,
    /// Whether there are arguments: then it is known how the program will be run.
    pub(super) is_known: bool,
}

impl Request {
    /// From arguments without the program's name, and how much memory is needed.
    pub(super) fn new(words: &[String], need: Option<u64>) -> Self {
        let mut request = Self { need, is_known: !words.is_empty(), ..Self::default() };
        let mut prefix = "rte";
        let mut private = words.is_empty();
        for argument in arguments(words) {
            match argument.name {
                "--allow" => request.devices.extend(pci_address(device_name(argument.value))),
                "-l" => request.cpus.extend(number_list(argument.value)),
                "--lcores" => request.cpus.extend(cpus_of_lcores(argument.value)),
                "--no-huge" => request.no_huge = true,
                "--in-memory" => request.in_memory = true,
                "--file-prefix" => prefix = argument.value,
                "--no-shconf" => private = true,
                "--vdev" | "--no-pci" => request.is_virtual = true,
                "-d" => request.plugins.push(argument.value.to_owned()),
                _ => {}
            }
        }
        request.prefix = (!private && !request.in_memory).then(|| prefix.to_owned());
        request.cpus.sort_unstable();
        request.cpus.dedup();
        request
    }
}

/// The CPUs of `--lcores`: `0,2-3`, `0@4`, `(0-1)@(4,6)`.
fn cpus_of_lcores(text: &str) -> Vec<u32> {
    let mut depth = 0;
    let split = |c: char| {
        depth += i32::from(c == '(') - i32::from(c == ')');
        c == ',' && depth == 0
    };
    let of_part = |part: &str| number_list(part.rsplit('@').next().unwrap_or(part).trim_matches(['(', ')']));
    text.split(split).flat_map(of_part).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_tell_what_will_be_asked_for() {
        let request = |text: &str| {
            let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
            Request::new(&words, None)
        };
        for (text, cpus) in [
            ("", vec![]),
            ("-l 0-2,5", vec![0, 1, 2, 5]),
            ("--lcores 0@(0-1)", vec![0, 1]),
            ("--lcores=0@4,1@4,(2-3)@(6,8),9", vec![4, 6, 8, 9]),
            ("-l what", vec![]),
        ] {
            assert_eq!(request(text).cpus, cpus, "{text}");
        }
        for (text, prefix) in [
            ("", None),
            ("-l 0", Some("rte")),
            ("--file-prefix a", Some("a")),
            ("--file-prefix=a --in-memory", None),
            ("--no-huge --no-shconf", None),
        ] {
            assert_eq!(request(text).prefix.as_deref(), prefix, "{text}");
        }
        assert_eq!(request("-a 01:00.0,x=1 -a pci:0000:02:00.1 -a eth1").devices, ["0000:01:00.0", "0000:02:00.1"]);
    }
}
