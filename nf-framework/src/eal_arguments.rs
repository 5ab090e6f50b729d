//! The EAL's arguments: what they ask for, as far as others than the EAL need to know.

use std::path::Path;

/// Options of the EAL that take a value, by their short and their long name (eal_options.h), as far as
/// one of them has a value that could be taken for an option.
const WITH_VALUE: [(&str, &str); 20] = [
    ("-a", "--allow"),
    ("-b", "--block"),
    ("-c", ""),
    ("-d", ""),
    ("-l", ""),
    ("-m", ""),
    ("-n", ""),
    ("-r", ""),
    ("-s", ""),
    ("-S", ""),
    ("", "--base-virtaddr"),
    ("", "--file-prefix"),
    ("", "--huge-dir"),
    ("", "--iova-mode"),
    ("", "--lcores"),
    ("", "--log-level"),
    ("", "--main-lcore"),
    ("", "--proc-type"),
    ("", "--socket-mem"),
    ("", "--vdev"),
];

/// One option, and where its value stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Argument<'a> {
    /// Its long name, if it has one: `--allow`.
    pub(crate) name: &'a str,
    /// Empty if it takes none.
    pub(crate) value: &'a str,
    /// The word that the value ends.
    pub(crate) word: usize,
}

/// The options among the EAL's arguments, without the program's name.
pub(crate) fn arguments<'a>(words: &'a [String]) -> Vec<Argument<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(text) = words.get(at).map(String::as_str) {
        let (given, attached) = match text.split_once('=') {
            Some((name, value)) if text.starts_with("--") => (name, Some(value)),
            _ if text.starts_with('-') && !text.starts_with("--") && text.is_char_boundary(2) && text.len() > 2 => {
                (&text[..2], Some(&text[2..]))
            }
            _ => (text, None),
        };
        let known = WITH_VALUE.iter().find(|(short, long)| !given.is_empty() && (given == *short || given == *long));
        let name = known.map_or(given, |(short, long)| if long.is_empty() { short } else { long });
        let value = match (known, attached) {
            (_, Some(value)) => value,
            (Some(_), None) => {
                at += 1;
                words.get(at).map_or("", String::as_str)
            }
            (None, None) => "",
        };
        found.push(Argument { name, value, word: at });
        at += 1;
    }
    found
}

/// The PCI address in its whole and small form, from `01:00.0` or `0000:01:00.0`; `None` if this is
/// none.
pub(crate) fn pci_address(text: &str) -> Option<String> {
    let (slot, function) = text.split_once('.')?;
    let parts: Vec<&str> = slot.split(':').collect();
    let hex = |part: &str, lengths: std::ops::RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.chars().all(|c| c.is_ascii_hexdigit())
    };
    let domain = match *parts {
        [bus, device] if hex(bus, 2..=2) && hex(device, 2..=2) => "0000:",
        [domain, bus, device] if hex(domain, 4..=8) && hex(bus, 2..=2) && hex(device, 2..=2) => "",
        _ => return None,
    };
    let function_is = function.len() == 1 && function.chars().all(|c| ('0'..='7').contains(&c));
    function_is.then(|| format!("{domain}{}", text.to_lowercase()))
}

/// The device of a value of `-a`, without what follows it: `0000:01:00.0,arg=1`.
pub(crate) fn device_name(value: &str) -> &str {
    let name = value.split([',', '/']).next().unwrap_or_default();
    name.strip_prefix("pci:").unwrap_or(name)
}

/// The PCI device of a network interface of the kernel's: `Ok(None)` if it has none, `Err` if there is
/// no such interface. `root` is `/` but for tests.
pub(crate) fn pci_device_of(root: &Path, interface: &str) -> Result<Option<String>, NoSuchInterface> {
    let class = root.join("sys/class/net").join(interface);
    if interface.is_empty() || interface.contains('/') || interface.starts_with('.') || !class.exists() {
        return Err(NoSuchInterface);
    }
    // A virtio device stands below its PCI device.
    let device = std::fs::canonicalize(class.join("device")).ok();
    let ancestors = device.iter().flat_map(|device| device.ancestors());
    Ok(ancestors.filter_map(|path| path.file_name()?.to_str()).find_map(pci_address))
}

/// The kernel has no such interface.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct NoSuchInterface;

/// Drivers of the kernel's that hand a whole device to a program.
pub(crate) const USER_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];
/// Drivers of the kernel's that stay while a program uses their device.
pub(crate) const BIFURCATED_DRIVERS: [&str; 3] = ["mlx4_core", "mlx5_core", "mana"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_found_in_every_way_to_write_them() {
        let words: Vec<String> = "-l 0-1 -a 01:00.0 -a02:00.0,x=1 --allow=03:00.0 --allow 04:00.0 --no-pci --vdev \
                                  net_ring0 --vdev=net_tap0,iface=-a -m64 --file-prefix -a stray --log-level=lib.eal:8 -a"
            .split_whitespace()
            .map(str::to_owned)
            .collect();
        let found: Vec<String> =
            arguments(&words).iter().map(|found| format!("{} {} {}", found.word, found.name, found.value)).collect();
        let expected = [
            "1 -l 0-1",
            "3 --allow 01:00.0",
            "4 --allow 02:00.0,x=1",
            "5 --allow 03:00.0",
            "7 --allow 04:00.0",
            "8 --no-pci ",
            "10 --vdev net_ring0",
            "11 --vdev net_tap0,iface=-a",
            "12 -m 64",
            "14 --file-prefix -a",
            "15 stray ",
            "16 --log-level lib.eal:8",
            "18 --allow ",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn pci_addresses_are_told_from_names() {
        for (text, address) in [
            ("0000:01:10.2", Some("0000:01:10.2")),
            ("01:1F.7", Some("0000:01:1f.7")),
            ("10000:e1:00.0", Some("10000:e1:00.0")),
            ("01:10.8", None),
            ("1:10.0", None),
            ("eth1", None),
            ("eth1.100", None),
            ("net_ring0", None),
            ("dead:beef", None),
            ("", None),
        ] {
            assert_eq!(pci_address(text).as_deref(), address, "{text}");
        }
    }
}
