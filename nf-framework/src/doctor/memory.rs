//! Hugepages: whether there are any, free ones, enough, mounted, and where the device is.

use super::{Finding, Patient};

/// The hugepages of one size.
#[derive(Debug)]
struct Pages {
    /// Bytes of each.
    size: u64,
    all: u64,
    free: u64,
}

pub(super) fn examine(patient: &Patient) -> Vec<Finding> {
    if patient.request.no_huge {
        return vec![Finding::ok("hugepages", "hugepages", "not needed (--no-huge)")];
    }
    let pages = read(patient, "sys/kernel/mm/hugepages");
    let reserve = format!("scripts/hugepages {}M", patient.request.need.unwrap_or(1 << 30).div_ceil(1 << 20));
    if pages.is_empty() {
        return vec![
            Finding::fault("hugepages", "hugepages-unsupported", "this kernel has none (CONFIG_HUGETLBFS)")
                .why("DPDK keeps packets and tables in them. Without them it is slower and works with few devices.")
                .mend("run the programs with --no-huge --no-shconf -m 256"),
        ];
    }
    let sum = |of: fn(&Pages) -> u64| pages.iter().map(|pages| pages.size.saturating_mul(of(pages))).sum::<u64>();
    let (all, free) = (sum(|pages| pages.all), sum(|pages| pages.free));
    let free_mebibytes = free >> 20;
    if all == 0 {
        return vec![
            Finding::fault("hugepages", "hugepages-absent", "none are reserved")
                .why("DPDK keeps packets and tables in them, and does not start without.")
                .mend(reserve)
                .mend("run the programs with --no-huge --no-shconf -m 256 (slower, and not with every device)"),
        ];
    }
    if free == 0 {
        return vec![
            Finding::fault("hugepages", "hugepages-used-up", format!("all are in use: {}", described(&pages)))
                .why("A program that starts now gets none. Files that a killed program left keep them too.")
                .mend("stop the program that has them (lsof /dev/hugepages/*)")
                .mend("rm /dev/hugepages/rtemap_*    # if no DPDK program runs")
                .mend(format!(
                    "scripts/hugepages {}M",
                    (all >> 20) + patient.request.need.unwrap_or(1 << 30).div_ceil(1 << 20)
                )),
        ];
    }
    let mut findings = Vec::new();
    if let Some(need) = patient.request.need.filter(|need| *need > free) {
        let needed = need.div_ceil(1 << 20);
        findings.push(
            Finding::fault(
                "hugepages",
                "hugepages-too-few",
                format!("{needed} MiB are needed, and {free_mebibytes} MiB are free: {}", described(&pages)),
            )
            .why("The program cannot make its pool of packets or its tables.")
            .mend(format!("scripts/hugepages {}M", needed + ((all - free) >> 20))),
        );
    }
    findings.extend(mount(patient, &pages));
    findings.extend(nodes(patient));
    if findings.is_empty() {
        findings.push(Finding::ok("hugepages", "hugepages", described(&pages)));
    }
    findings
}

fn read(patient: &Patient, directory: &str) -> Vec<Pages> {
    let of_size = |name: &String| {
        let kibibytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let number = |file: &str| patient.machine.number(&format!("{directory}/{name}/{file}"));
        Some(Pages { size: kibibytes << 10, all: number("nr_hugepages")?, free: number("free_hugepages")? })
    };
    patient.machine.names(directory).iter().filter_map(of_size).collect()
}

/// Bytes that are reserved.
pub(super) fn reserved(patient: &Patient) -> u64 {
    let pages = read(patient, "sys/kernel/mm/hugepages");
    pages.iter().map(|pages| pages.all.saturating_mul(pages.size)).sum()
}

fn described(pages: &[Pages]) -> String {
    let some = pages.iter().filter(|pages| pages.all > 0);
    let text =
        |pages: &Pages| format!("{} of {} MiB reserved, {} of them free", pages.all, pages.size >> 20, pages.free);
    some.map(text).collect::<Vec<_>>().join("; ")
}

/// Whether a file system gives access to them; with `--in-memory` none is needed.
fn mount(patient: &Patient, pages: &[Pages]) -> Option<Finding> {
    let default = patient.machine.text("proc/meminfo").and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("Hugepagesize:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    });
    let default = default.unwrap_or(2048) << 10;
    let mounts = patient.machine.text("proc/mounts").unwrap_or_default();
    let size_of = |line: &str| {
        let mut fields = line.split_whitespace().skip(2);
        let options = fields.next().filter(|kind| *kind == "hugetlbfs").and_then(|_| fields.next())?;
        Some(options.split(',').find_map(|option| bytes(option.strip_prefix("pagesize=")?)).unwrap_or(default))
    };
    let mounted: Vec<u64> = mounts.lines().filter_map(size_of).collect();
    let is_mounted = pages.iter().any(|pages| pages.all > 0 && mounted.contains(&pages.size));
    if is_mounted || patient.request.in_memory {
        return None;
    }
    let new = if patient.request.is_known { Finding::fault } else { Finding::warning };
    let size = pages.iter().find(|pages| pages.all > 0).map_or(2, |pages| pages.size >> 20);
    Some(
        new("hugepages", "hugepages-unmounted", format!("no hugetlbfs is mounted that has pages of {size} MiB"))
            .why("DPDK reaches hugepages by files, unless it is told to do without them.")
            .mend("run the programs with --in-memory")
            .mend(format!("mkdir -p /dev/hugepages && mount -t hugetlbfs -o pagesize={size}M none /dev/hugepages")),
    )
}

/// 2M, 1G, 2048k.
fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let shift = match unit {
        "" => 0,
        "k" | "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_shl(shift)
}

/// Whether there are some on the NUMA node of each device.
fn nodes(patient: &Patient) -> Vec<Finding> {
    let mut findings = Vec::new();
    for device in patient.concerned() {
        let Some(node) = device.node else { continue };
        let pages = read(patient, &format!("sys/devices/system/node/node{node}/hugepages"));
        if !pages.is_empty() && pages.iter().all(|pages| pages.free == 0) {
            findings.push(
                Finding::warning(
                    "hugepages",
                    "hugepages-remote",
                    format!("no hugepages are free on its NUMA node {node}"),
                )
                .on(&device.address)
                .why("Packets would lie in the memory of another node: each one crosses between the sockets twice.")
                .mend(format!("scripts/hugepages 1024M --node {node}")),
            );
        }
    }
    findings
}
