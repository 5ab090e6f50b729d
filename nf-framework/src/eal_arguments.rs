//! The EAL's arguments: what they ask for, as far as others than the EAL need to know.

use std::ffi::OsString;
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

/// One lcore on whatever CPUs this process may run on.
pub(crate) fn floating_lcore() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    format!("--lcores=0@({})", list.map_or("0", str::trim))
}

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

/// Why arguments cannot be given to the EAL.
#[derive(PartialEq, Eq, Debug, thiserror::Error)]
pub(crate) enum EalArgumentsError {
    /// Neither an address nor an interface.
    #[error("-a {name}: there is no interface {name}, and no PCI address is like this (scripts/bind --status)")]
    NoSuchInterface {
        /// As on the command line.
        name: String,
    },
    /// An interface that is no PCI device: a veth, a bridge, a tap.
    #[error(
        "-a {interface}: this interface is no PCI device; DPDK shares it with the kernel by \
         --vdev net_af_packet0,iface={interface}, and makes one of its own by --vdev net_tap0"
    )]
    NoPciDevice {
        /// As on the command line.
        interface: String,
    },
    /// The kernel uses the device, and would go on.
    #[error(
        "-a {name}: the kernel has this device, by its driver {driver}; give it to DPDK by \
         scripts/bind vfio-pci {address}, and name it {address} from then on (nf-doctor -a {address} says more)"
    )]
    KernelDriver {
        /// As on the command line.
        name: String,
        /// PCI address.
        address: String,
        /// Driver of the kernel's.
        driver: String,
    },
    /// A variable that the SR-IOV device plugin sets has something else in it.
    #[error("the environment's {variable} names {value:?}, which is no device (0000:18:0a.2)")]
    Variable {
        /// Its name.
        variable: String,
        /// What is in it.
        value: String,
    },
}

/// What the EAL is to be given in place of what was given to a program, and a line on each difference.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Completed {
    /// Without the program's name.
    pub(crate) words: Vec<String>,
    pub(crate) notes: Vec<String>,
}

/// Replaces interfaces by their PCI addresses, and takes devices from the environment if the
/// arguments do not say anything of devices. `root` is `/` but for tests.
pub(crate) fn complete(
    root: &Path,
    environment: &[(String, String)],
    words: &[String],
) -> Result<Completed, EalArgumentsError> {
    let mut completed = Completed { words: words.to_vec(), notes: Vec::new() };
    let given = arguments(words);
    for argument in given.iter().filter(|argument| argument.name == "--allow") {
        let interface = device_name(argument.value);
        if !is_interface(root, interface) {
            // Devices of other buses have marks in their names, and the EAL may know them.
            if interface.is_empty() || interface.contains([':', '.', '_', '-', '=']) {
                continue;
            }
            return Err(EalArgumentsError::NoSuchInterface { name: interface.to_owned() });
        }
        let none = || EalArgumentsError::NoPciDevice { interface: interface.to_owned() };
        let address = pci_device_of(root, interface).ok_or_else(none)?;
        if let Some(word) = completed.words.get_mut(argument.word) {
            let option = word.len() - argument.value.len();
            *word = word[..option].to_owned() + &argument.value.replacen(interface, &address, 1);
        }
        completed.notes.push(format!("-a {interface} is -a {address}"));
    }
    let speak_of_devices = ["--allow", "--block", "--vdev", "--no-pci"];
    let variables = variables(environment);
    if let Some(argument) = given.iter().find(|argument| speak_of_devices.contains(&argument.name)) {
        let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
        if !names.is_empty() {
            let (names, option) = (names.join(", "), argument.name);
            completed.notes.push(format!("{names} of the environment adds no devices, as {option} was given"));
        }
        return Ok(completed);
    }
    for (variable, value) in variables {
        for device in devices_of(variable, value)? {
            let words = ["-a".to_owned(), device];
            if !completed.words.ends_with(&words) && !completed.words.contains(&words[1]) {
                completed.notes.push(format!("-a {} is from the environment ({variable})", words[1]));
                completed.words.extend(words);
            }
        }
    }
    Ok(completed)
}

/// Looks for devices that the kernel would not let go.
pub(crate) fn check_drivers(root: &Path, words: &[String]) -> Result<(), EalArgumentsError> {
    for argument in arguments(words).iter().filter(|argument| argument.name == "--allow") {
        let Some(address) = pci_address(device_name(argument.value)) else { continue };
        let device = root.join("sys/bus/pci/devices").join(&address);
        let is_network = std::fs::read_to_string(device.join("class")).is_ok_and(|class| class.starts_with("0x02"));
        let driver = std::fs::read_link(device.join("driver")).ok();
        let driver = driver.as_ref().and_then(|driver| driver.file_name()?.to_str()).filter(|_| is_network);
        if let Some(driver) = driver.filter(|name| !USER_DRIVERS.contains(name) && !BIFURCATED_DRIVERS.contains(name)) {
            let (name, driver) = (device_name(argument.value).to_owned(), driver.to_owned());
            return Err(EalArgumentsError::KernelDriver { name, address, driver });
        }
    }
    Ok(())
}

/// What Kubernetes' SR-IOV device plugin sets: `PCIDEVICE_INTEL_COM_SRIOV=0000:18:0a.2,0000:18:0a.3`; by
/// name, so that their order is always the same.
fn variables(environment: &[(String, String)]) -> Vec<(&str, &str)> {
    let of_plugin = |(name, value): &&(String, String)| {
        // ..._INFO has the same and more as JSON.
        name.starts_with("PCIDEVICE_") && !value.starts_with('{') && !value.is_empty()
    };
    let mut found: Vec<(&str, &str)> =
        environment.iter().filter(of_plugin).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    found.sort_unstable();
    found
}

/// The devices that such a variable names, as `-a` takes them.
fn devices_of(variable: &str, value: &str) -> Result<Vec<String>, EalArgumentsError> {
    let device = |text: &str| {
        // Subfunctions: mlx5_core.sf.4.
        let auxiliary =
            || (!text.contains([':', ' ']) && text.split('.').count() == 3).then(|| format!("auxiliary:{text}"));
        let wrong = || EalArgumentsError::Variable { variable: variable.to_owned(), value: text.to_owned() };
        pci_address(text).or_else(auxiliary).ok_or_else(wrong)
    };
    value.split(',').map(str::trim).filter(|text| !text.is_empty()).map(device).collect()
}

/// The device that a name in a configuration stands for, if it is the kernel's name of an interface,
/// or a variable of the SR-IOV device plugin's: `PCIDEVICE_INTEL_COM_SRIOV`, or with the number of one of
/// several devices behind it, `PCIDEVICE_INTEL_COM_SRIOV[1]`.
pub(crate) fn device_behind(root: &Path, environment: &[(String, String)], name: &str) -> Option<String> {
    if !name.starts_with("PCIDEVICE_") {
        return is_interface(root, name).then(|| pci_device_of(root, name)).flatten();
    }
    let (variable, number) = match name.split_once('[') {
        Some((variable, number)) => (variable, Some(number.strip_suffix(']')?.parse::<usize>().ok()?)),
        None => (name, None),
    };
    let (variable, value) = variables(environment).into_iter().find(|(name, _)| *name == variable)?;
    let devices = devices_of(variable, value).ok()?;
    let only = || (devices.len() == 1).then_some(0);
    devices.get(number.or_else(only)?).cloned()
}

/// Why a name that looks like a variable of the SR-IOV device plugin's stands for no port; `None` if it does not look so.
pub(crate) fn why_nothing_is_behind(environment: &[(String, String)], name: &str) -> Option<String> {
    let variable = name.split('[').next().filter(|name| name.starts_with("PCIDEVICE_"))?;
    let variables = variables(environment);
    let Some((_, value)) = variables.iter().find(|(of, _)| *of == variable) else {
        let names: Vec<&str> = variables.iter().map(|(name, _)| *name).collect();
        let have = if names.is_empty() { "no PCIDEVICE_... at all".to_owned() } else { names.join(", ") };
        return Some(format!("the environment has no {variable}, but {have}"));
    };
    let devices = match devices_of(variable, value) {
        Ok(devices) => devices,
        Err(error) => return Some(error.to_string()),
    };
    let device = device_behind(Path::new("/"), environment, name);
    Some(match (device, devices.len()) {
        (Some(device), _) => format!("it is {device}, which the EAL has not found"),
        (None, 1) => format!("{variable} has one device: write {variable} or {variable}[0]"),
        (None, count) => format!("{variable} has {count} devices: write {variable}[0] to {variable}[{}]", count - 1),
    })
}

fn is_interface(root: &Path, name: &str) -> bool {
    let is_name = !name.is_empty() && !name.contains('/') && !name.starts_with('.');
    is_name && root.join("sys/class/net").join(name).exists()
}

/// The PCI address of an interface's device, if it is on that bus.
fn pci_device_of(root: &Path, interface: &str) -> Option<String> {
    let device = std::fs::canonicalize(root.join("sys/class/net").join(interface).join("device")).ok()?;
    // A virtio device stands below its PCI device, and is all of it; a USB device or a subfunction is not.
    let is_virtio = device.file_name()?.to_str()?.starts_with("virtio");
    let device = if is_virtio { device.parent()? } else { &device };
    pci_address(device.file_name()?.to_str()?)
}

/// The environment's text; what is no text names no device.
pub(crate) fn environment() -> Vec<(String, String)> {
    let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
    std::env::vars_os().filter_map(text).collect()
}

/// Drivers of the kernel's that hand a whole device to a program.
pub(crate) const USER_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];
/// Drivers of the kernel's that stay while a program uses their device.
pub(crate) const BIFURCATED_DRIVERS: [&str; 3] = ["mlx4_core", "mlx5_core", "mana"];

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

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

    /// A machine with two PCI interfaces, one of them virtio, a veth, a USB interface, and a NIC that mlx5 has.
    struct Tree(std::path::PathBuf);

    impl Tree {
        fn new(name: &str) -> Self {
            let tree = Self(std::env::temp_dir().join(format!("nf-eal-arguments-{name}-{}", std::process::id())));
            let devices = [
                ("0000:00:03.0", "virtio0/net/eth0", "virtio-pci"),
                ("0000:01:10.0", "net/eth1", "igbvf"),
                ("0000:05:00.0", "net/eth5", "mlx5_core"),
                ("0000:06:00.0", "", "vfio-pci"),
                ("0000:07:00.0", "", ""),
                ("0000:08:00.0", "usb1/1-1:1.0/net/usb0", "xhci_hcd"),
            ];
            for (address, interface, driver) in devices {
                let device = tree.0.join("sys/bus/pci/devices").join(address);
                std::fs::create_dir_all(device.join(interface)).unwrap();
                std::fs::write(device.join("class"), "0x020000\n").unwrap();
                if !driver.is_empty() {
                    symlink(format!("../../drivers/{driver}"), device.join("driver")).unwrap();
                }
                if let Some(name) = interface.rsplit('/').next().filter(|name| !name.is_empty()) {
                    symlink("../..", device.join(interface).join("device")).unwrap();
                    std::fs::create_dir_all(tree.0.join("sys/class/net")).unwrap();
                    symlink(device.join(interface), tree.0.join("sys/class/net").join(name)).unwrap();
                }
            }
            std::fs::create_dir_all(tree.0.join("sys/class/net/veth0")).unwrap();
            tree
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn environment_of(text: &str) -> Vec<(String, String)> {
        let variables = text.split_whitespace().filter_map(|variable| variable.split_once('='));
        variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn interfaces_and_the_environment_become_addresses() {
        let tree = Tree::new("complete");
        for (words, environment, expected) in [
            ("-l 0", "PATH=/bin", Ok("-l 0")),
            ("-a eth1", "", Ok("-a 0000:01:10.0")),
            ("-aeth1,x=eth1", "", Ok("-a0000:01:10.0,x=eth1")),
            ("--allow=eth0 --allow eth5,y=1", "", Ok("--allow=0000:00:03.0 --allow 0000:05:00.0,y=1")),
            (
                "-a 01:10.0 -a net_ring0 -a auxiliary:mlx5_core.sf.4 -a",
                "",
                Ok("-a 01:10.0 -a net_ring0 -a auxiliary:mlx5_core.sf.4 -a"),
            ),
            (
                "-a eth9",
                "",
                Err("-a eth9: there is no interface eth9, and no PCI address is like this (scripts/bind --status)"),
            ),
            (
                "-a usb0",
                "",
                Err("-a usb0: this interface is no PCI device; DPDK shares it with the kernel by --vdev \
                     net_af_packet0,iface=usb0, and makes one of its own by --vdev net_tap0"),
            ),
            (
                "-a veth0",
                "",
                Err("-a veth0: this interface is no PCI device; DPDK shares it with the kernel by --vdev \
                     net_af_packet0,iface=veth0, and makes one of its own by --vdev net_tap0"),
            ),
            ("-l 0", "PCIDEVICE_INTEL_COM_NET=0000:18:0a.2", Ok("-l 0 -a 0000:18:0a.2")),
            (
                "",
                "PCIDEVICE_B=0000:18:0a.3 PCIDEVICE_A=0000:18:0B.1,0000:18:0a.2 PCIDEVICE_C=0000:18:0a.2 \
                 PCIDEVICE_B_INFO={\"0000:18:0a.3\":{}} PCIDEVICE_D=",
                Ok("-a 0000:18:0b.1 -a 0000:18:0a.2 -a 0000:18:0a.3"),
            ),
            ("", "PCIDEVICE_SF=mlx5_core.sf.4", Ok("-a auxiliary:mlx5_core.sf.4")),
            ("-a 06:00.0", "PCIDEVICE_A=0000:18:0a.2", Ok("-a 06:00.0")),
            ("-b 06:00.0", "PCIDEVICE_A=0000:18:0a.2", Ok("-b 06:00.0")),
            ("--vdev net_ring0", "PCIDEVICE_A=0000:18:0a.2", Ok("--vdev net_ring0")),
            ("--no-pci", "PCIDEVICE_A=0000:18:0a.2", Ok("--no-pci")),
            (
                "",
                "PCIDEVICE_A=0000:18:0a.2,eth1",
                Err("the environment's PCIDEVICE_A names \"eth1\", which is no device (0000:18:0a.2)"),
            ),
        ] {
            let given: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            let completed = complete(&tree.0, &environment_of(environment), &given);
            let said = completed.as_ref().map(|completed| completed.words.join(" ")).map_err(ToString::to_string);
            assert_eq!(said, expected.map(str::to_owned).map_err(str::to_owned), "{words} {environment}");
            let Ok(completed) = completed else { continue };
            let (ignored, changes): (Vec<String>, Vec<String>) =
                completed.notes.into_iter().partition(|note| note.contains("adds no devices"));
            assert_eq!(changes.is_empty(), expected == Ok(words), "{words} {environment}: what changes is said");
            let is_ignored = environment.contains("PCIDEVICE_") && expected == Ok(words);
            assert_eq!(ignored.len(), usize::from(is_ignored), "{words} {environment}: so is what does not");
        }
        let words = ["--no-huge", "--vdev", "net_ring0"].map(str::to_owned);
        let note = complete(&tree.0, &environment_of("PCIDEVICE_B=0000:18:0a.2 PCIDEVICE_A=x"), &words).unwrap().notes;
        assert_eq!(note, ["PCIDEVICE_A, PCIDEVICE_B of the environment adds no devices, as --vdev was given"]);
        let note = complete(&tree.0, &environment_of("PCIDEVICE_A=0000:18:0a.2"), &[]).unwrap().notes;
        assert_eq!(note, ["-a 0000:18:0a.2 is from the environment (PCIDEVICE_A)"]);
    }

    #[test]
    fn a_device_that_the_kernel_keeps_is_an_error_that_says_what_to_do() {
        let tree = Tree::new("drivers");
        for (words, error) in [
            ("-a 06:00.0 -a 0000:07:00.0 -a 0000:05:00.0 -a 0000:09:00.0 -a net_ring0 --vdev 01:10.0", None),
            (
                "-a 06:00.0 -a 01:10.0,x=1",
                Some(
                    "-a 01:10.0: the kernel has this device, by its driver igbvf; give it to DPDK by scripts/bind \
                      vfio-pci 0000:01:10.0, and name it 0000:01:10.0 from then on (nf-doctor -a 0000:01:10.0 says more)",
                ),
            ),
        ] {
            let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
            let said = check_drivers(&tree.0, &words).err().map(|error| error.to_string());
            assert_eq!(said.as_deref(), error, "{words:?}");
        }
    }

    #[test]
    fn a_configuration_may_name_a_port_as_the_kernel_or_the_environment_does() {
        let tree = Tree::new("names");
        let environment =
            environment_of("PCIDEVICE_ONE=0000:18:0a.2 PCIDEVICE_TWO=0000:18:0a.3,0000:18:0a.4 PCIDEVICE_X=x");
        for (name, device) in [
            ("eth5", Some("0000:05:00.0")),
            ("veth0", None),
            ("eth9", None),
            ("", None),
            ("../net/eth5", None),
            ("PCIDEVICE_ONE", Some("0000:18:0a.2")),
            ("PCIDEVICE_TWO", None),
            ("PCIDEVICE_TWO[0]", Some("0000:18:0a.3")),
            ("PCIDEVICE_TWO[1]", Some("0000:18:0a.4")),
            ("PCIDEVICE_TWO[2]", None),
            ("PCIDEVICE_TWO[1", None),
            ("PCIDEVICE_THREE", None),
            ("PCIDEVICE_X", None),
        ] {
            assert_eq!(device_behind(&tree.0, &environment, name).as_deref(), device, "{name}");
        }
        for (name, why) in [
            ("net_tap0", None),
            ("PCIDEVICE_ONE[7]", Some("PCIDEVICE_ONE has one device: write PCIDEVICE_ONE or PCIDEVICE_ONE[0]")),
            ("PCIDEVICE_TWO", Some("PCIDEVICE_TWO has 2 devices: write PCIDEVICE_TWO[0] to PCIDEVICE_TWO[1]")),
            ("PCIDEVICE_TWO[2]", Some("PCIDEVICE_TWO has 2 devices: write PCIDEVICE_TWO[0] to PCIDEVICE_TWO[1]")),
            ("PCIDEVICE_TWO[1]", Some("it is 0000:18:0a.4, which the EAL has not found")),
            (
                "PCIDEVICE_THREE[0]",
                Some("the environment has no PCIDEVICE_THREE, but PCIDEVICE_ONE, PCIDEVICE_TWO, PCIDEVICE_X"),
            ),
            ("PCIDEVICE_X", Some("the environment's PCIDEVICE_X names \"x\", which is no device (0000:18:0a.2)")),
        ] {
            assert_eq!(why_nothing_is_behind(&environment, name).as_deref(), why, "{name}");
        }
    }
}
