//! nf-doctor as its users run it, on this machine as it is and with virtual devices.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use serde_json::Value;
use std::process::{Command, Stdio};

/// What it prints on standard output, and its status.
fn doctor(arguments: &str, environment: &[(&str, &str)]) -> (String, i32) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    // Lcore 0 on whatever CPU this process may use.
    let arguments = arguments.replace("LCORES", &format!("--lcores=0@({cpus}),1@({cpus})"));
    let arguments = arguments.replace("LCORE", &format!("--lcores=0@({cpus})"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_nf-doctor"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PCIDEVICE_")) {
        command.env_remove(name);
    }
    command.args(arguments.split_whitespace()).envs(environment.iter().copied());
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.code().unwrap())
}

fn json(arguments: &str, environment: &[(&str, &str)]) -> (Value, i32) {
    let (text, status) = doctor(&format!("{arguments} --json"), environment);
    (serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}:\n{text}")), status)
}

/// The finding of this name, about this device if it has one.
fn finding<'a>(value: &'a Value, id: &str, device: &str) -> Option<&'a Value> {
    let is_it = |finding: &&Value| finding["id"] == id && finding["device"].as_str().unwrap_or_default() == device;
    value["findings"].as_array().unwrap().iter().find(is_it)
}

#[test]
fn this_machine_is_described_as_it_is() {
    let (value, status) = json("", &[]);
    assert_eq!(status, i32::from(value["faults"] != 0), "{value:#}");
    for level in ["fault", "warning", "note"] {
        let findings = value["findings"].as_array().unwrap();
        let count = findings.iter().filter(|finding| finding["level"] == level).count();
        assert_eq!(value[format!("{level}s")], count);
    }

    // The same by other ways than its own.
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let line = |name: &str| meminfo.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    match (line("HugePages_Total:"), line("HugePages_Free:"), line("Hugetlb:")) {
        (Some("0"), _, Some("0 kB")) => assert!(finding(&value, "hugepages-absent", "").is_some(), "{value:#}"),
        (Some(_), _, _) => assert!(finding(&value, "hugepages-absent", "").is_none(), "{value:#}"),
        (None, _, _) => assert!(finding(&value, "hugepages-unsupported", "").is_some(), "{value:#}"),
    }
    let groups = std::fs::read_dir("/sys/kernel/iommu_groups").map_or(0, Iterator::count);
    let (on, off) = (finding(&value, "iommu", "").is_some(), finding(&value, "iommu-absent", "").is_some());
    assert_eq!((on, off), (groups > 0, groups == 0), "{value:#}");

    let (text, status_of_text) = doctor("", &[]);
    let counted = format!("\n{} fault", value["faults"]);
    assert!(text.contains(&counted) && !text.contains('\x1b') && status == status_of_text, "{text}");
}

#[test]
fn virtual_devices_are_started_and_looked_at() {
    let virtual_ones = "LCORE --no-huge --no-shconf --no-telemetry --no-pci -m 64 --vdev=net_ring0 --vdev net_null0";
    let (value, status) = json(virtual_ones, &[]);
    assert_eq!((status, &value["faults"]), (0, &0.into()), "{value:#}");
    for port in ["net_ring0", "net_null0"] {
        let what = finding(&value, "port", port).unwrap()["what"].as_str().unwrap();
        assert!(what.starts_with(port.trim_end_matches('0')) && what.contains("link up"), "{what}");
        // One has no table, the other takes no key and says that it had taken it.
        // It matters to several workers only.
        let none = finding(&value, "rss-none", port).unwrap();
        let (what, part) = (&none["what"], if port == "net_ring0" { "table of 0 entries" } else { "key of 0 bytes" });
        assert!(what.as_str().unwrap().contains(part) && none["level"] == "ok", "{none:#}");
    }
    let (value, status) = json(&virtual_ones.replace("LCORE", "LCORES"), &[]);
    let none = finding(&value, "rss-none", "net_null0").unwrap();
    assert_eq!((status, &none["level"]), (0, &"note".into()), "{value:#}");
    for id in ["device-none", "iommu", "iommu-absent", "vf-unseen"] {
        assert!(finding(&value, id, "").is_none(), "{id} is not about virtual devices: {value:#}");
    }
    let (value, _) = json(&format!("{virtual_ones} --files"), &[]);
    assert!(finding(&value, "port", "net_ring0").is_none(), "only files were to be looked at: {value:#}");
}

#[test]
fn what_keeps_dpdk_from_starting_is_a_fault_with_its_words() {
    let without = "LCORE --no-huge --no-shconf --no-telemetry -m 64";
    for (arguments, id, device, words) in [
        (format!("{without} --no-pci"), "eal-without-ports", "", "has no port"),
        (format!("{without} --no-pci --vdev net_nothing0"), "eal-not-started", "", "net_nothing0"),
        (format!("{without} --no-pci --fast"), "eal-not-started", "", "--fast"),
        (format!("{without} -a fffe:ff:1f.7"), "device-absent", "fffe:ff:1f.7", "there is no such PCI device"),
        (format!("{without} -a nothing0"), "arguments-wrong", "", "there is no interface nothing0"),
    ] {
        let (value, status) = json(&arguments, &[]);
        let finding = finding(&value, id, device).unwrap_or_else(|| panic!("{arguments}: {value:#}"));
        assert!(finding["what"].as_str().unwrap().contains(words) && status == 1, "{finding:#}");
    }
}

#[test]
fn devices_of_the_environment_are_looked_at_and_not_started() {
    let (value, status) = json("", &[("PCIDEVICE_INTEL_COM_NET", "fffe:ff:1f.7")]);
    assert!(finding(&value, "device-absent", "fffe:ff:1f.7").is_some() && status == 1, "{value:#}");
    let arguments = finding(&value, "arguments", "").unwrap();
    assert_eq!(arguments["what"], "-a fffe:ff:1f.7 is from the environment (PCIDEVICE_INTEL_COM_NET)");
    assert!(finding(&value, "eal-not-tried", "").is_none(), "nothing was to be started: {value:#}");
}

#[test]
fn misuse_ends_with_2_and_help_teaches() {
    for arguments in ["eth1", "--need much", "--need", "--need=-1G", "-- --config x", "--json=1"] {
        assert_eq!(doctor(arguments, &[]), (String::new(), 2), "{arguments}");
    }
    let (help, status) = doctor("-a x --help", &[]);
    for part in ["nf-doctor -l 1 -a 0000:01:10.0", "--json", "FAULT: no program starts", "exit status is 0"] {
        assert!(help.contains(part) && status == 0, "{part} in\n{help}");
    }
    let (need, _) = json("--need 4096G", &[]);
    let found = ["hugepages-too-few", "hugepages-absent", "hugepages-unsupported", "hugepages-used-up"];
    assert!(found.into_iter().any(|id| finding(&need, id, "").is_some()), "{need:#}");
}
