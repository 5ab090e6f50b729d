//! What a configuration needs beside what is there, without starting anything.

use super::configuration::Configuration;
use super::error::RuntimeError;
use super::loaded::{Loaded, affinity};
use super::needs::Needs;
use super::ports::PortPlan;
use super::workers_of;
use crate::table::Table;
use dpdk_rs::{Eal, PortInfo};
use std::fmt;
use std::num::NonZero;
use std::path::Path;

/// What a configuration needs beside what is there: displays as a table.
#[derive(Debug)]
pub struct Check {
    workers: u16,
    /// What, how much of it is needed, and how much there is.
    rows: Vec<[String; 3]>,
    problems: Vec<String>,
}

impl Configuration {
    /// Compares what the configuration needs with what is there. Nothing is configured or started.
    /// What policies [build](crate::Function::build) is built, to see whether it can be, and stays
    /// as long as this configuration.
    ///
    /// With an EAL each of its lcores is a worker, its memory and its ports are looked at.
    /// Without one the needs are those of one worker, and the machine's hugepages are looked at.
    #[must_use]
    pub fn check(&self, eal: Option<&Eal>) -> Check {
        self.check_on(eal, Path::new("/sys"))
    }

    fn check_on(&self, eal: Option<&Eal>, sysfs: &Path) -> Check {
        let (workers, hugepages) =
            eal.map_or((NonZero::<u16>::MIN, true), |eal| (workers_of(eal), eal.has_hugepages()));
        let mut check = Check { workers: workers.get(), rows: Vec::new(), problems: Vec::new() };
        let plan = eal.map(|eal| {
            let affinity = affinity(&self.functions)?;
            PortPlan::new(eal, &self.runtime, workers, affinity)
        });
        let plan = plan.transpose().unwrap_or_else(|error: RuntimeError| {
            check.problems.push(error.to_string());
            None
        });
        let needs = Needs::new(&self.runtime, &self.functions, workers, plan.as_ref(), hugepages);
        check.problems.extend(needs.check_packets().err().map(|error| error.to_string()));
        check.row("packets", needs.pool.size, "");
        check.row("memory for packets", Bytes(needs.packet_bytes), "");
        if needs.ring_bytes > 0 {
            check.row("memory between workers", Bytes(needs.ring_bytes), "");
        }
        for (function, bytes) in &needs.functions {
            check.row(&format!("memory for {function}"), Bytes(*bytes), "");
        }
        if let Some(eal) = eal {
            check.policies_of(eal, &self.functions);
        }
        let hugepages = Hugepages::read(sysfs);
        match eal {
            Some(eal) => {
                check.memory_of(eal, &needs, &hugepages);
                check.ports_of(eal, self, plan.as_ref());
            }
            None => {
                check.memory_of_machine(&needs, &hugepages);
                let ports =
                    [("inside", Some(&self.runtime.ports.inside)), ("outside", self.runtime.ports.outside.as_ref())];
                for (side, name) in ports.into_iter().filter_map(|(side, name)| Some((side, name?))) {
                    check.row(&format!("port {side}"), name, "not looked at (give the EAL arguments too)");
                }
            }
        }
        check
    }
}

impl Check {
    /// What does not fit, a sentence for each; empty if all does.
    #[must_use]
    pub fn problems(&self) -> &[String] {
        &self.problems
    }

    fn row(&mut self, what: &str, needs: impl fmt::Display, there_is: impl fmt::Display) {
        self.rows.push([what.to_owned(), needs.to_string(), there_is.to_string()]);
    }

    /// What functions build for their policies is there for all workers once, and while a reload
    /// builds the next, twice.
    fn policies_of(&mut self, eal: &Eal, functions: &[Loaded]) {
        for Loaded { function, policy, .. } in functions {
            let before = eal.free_memory();
            match function.build(policy, &eal.memory()) {
                Ok(()) => match before.saturating_sub(eal.free_memory()) {
                    0 => {}
                    bytes => self.row(&format!("memory for {}'s policy", function.name()), Bytes(bytes as u64), ""),
                },
                Err(error) => {
                    self.problems.push(format!("the policy of {} cannot be built: {error}", function.name()));
                }
            }
        }
    }

    fn memory_of(&mut self, eal: &Eal, needs: &Needs, hugepages: &[Hugepages]) {
        let (need, mapped) = (needs.bytes(), eal.free_memory() as u64);
        let more: u64 = hugepages.iter().map(|pages| pages.size.saturating_mul(pages.free)).sum();
        let (there_is, advice) = if eal.has_hugepages() {
            self.hugepages(need, hugepages);
            (mapped.saturating_add(more), "reserve more hugepages".to_owned())
        } else {
            // What the EAL has for itself comes on top.
            let all = (need + (32 << 20)).div_ceil(1 << 20);
            (mapped, format!("give the EAL more by -m {all}, or hugepages in place of --no-huge"))
        };
        self.row("memory in all", Bytes(need), format!("{} free", Bytes(there_is)));
        if there_is < need {
            self.problems.push(format!(
                "{} of memory are needed, and {} are free: {advice}",
                Bytes(need),
                Bytes(there_is)
            ));
        }
    }

    /// A program that is running has some of them, and gives them back; so all count.
    fn memory_of_machine(&mut self, needs: &Needs, hugepages: &[Hugepages]) {
        let need = needs.bytes();
        let there_are: u64 = hugepages.iter().map(|pages| pages.size.saturating_mul(pages.all)).sum();
        self.hugepages(need, hugepages);
        self.row("memory in all", Bytes(need), format!("{} of hugepages", Bytes(there_are)));
        if there_are < need {
            let size = hugepages.iter().map(|pages| pages.size).min().unwrap_or(2 << 20).max(1);
            let mut problem = format!(
                "{} of hugepages are needed, and {} are reserved: reserve more as root (sysctl -w vm.nr_hugepages={})",
                Bytes(need),
                Bytes(there_are),
                need.div_ceil(size),
            );
            problem += ", or give the EAL arguments too if they say --no-huge";
            self.problems.push(problem);
        }
    }

    fn hugepages(&mut self, need: u64, hugepages: &[Hugepages]) {
        for Hugepages { node, size, all, free } in hugepages {
            let node = node.map(|node| format!(", NUMA node {node}")).unwrap_or_default();
            let what = format!("hugepages of {}{node}", Bytes(*size));
            self.row(&what, need.div_ceil((*size).max(1)), format!("{all}, {free} of them free"));
        }
    }

    fn ports_of(&mut self, eal: &Eal, configuration: &Configuration, plan: Option<&PortPlan>) {
        let config = &configuration.runtime.ports;
        for port in plan.into_iter().flat_map(|plan| &plan.ports) {
            if let Ok(info) = PortInfo::new(eal, port.id) {
                let range = |range: &std::ops::RangeInclusive<u16>| format!("{} to {}", range.start(), range.end());
                let name = &info.name;
                self.row(&format!("{name}: receive queues"), port.queues, info.max_rx_queues);
                self.row(&format!("{name}: transmit queues"), port.queues, info.max_tx_queues);
                let (rx, tx) = config.descriptors.map_or(port.descriptors, |asked| (asked, asked));
                self.row(&format!("{name}: receive descriptors"), rx, range(&info.rx_descriptors));
                self.row(&format!("{name}: transmit descriptors"), tx, range(&info.tx_descriptors));
                let mtu = config.mtu.map_or("its own".to_owned(), |mtu| mtu.to_string());
                self.row(&format!("{name}: MTU"), mtu, range(&(info.min_mtu..=info.max_mtu)));
            }
            self.problems
                .extend(port.builder(eal, config).check().err().map(|error| RuntimeError::from(error).to_string()));
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.workers {
            1 => writeln!(f, "With 1 worker:\n")?,
            workers => writeln!(f, "With {workers} workers:\n")?,
        }
        let mut table = Table::new(&["", "needs", "there is"]);
        for row in &self.rows {
            table.row(row.iter().cloned());
        }
        write!(f, "{table}")
    }
}

/// In the unit that leaves a number for people.
#[derive(Clone, Copy)]
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0 MiB"),
            bytes if bytes < 10 << 20 && !bytes.is_multiple_of(1 << 20) => write!(f, "{} KiB", bytes.div_ceil(1 << 10)),
            bytes if bytes >= 1 << 30 && bytes.is_multiple_of(1 << 30) => write!(f, "{} GiB", bytes >> 30),
            bytes => write!(f, "{} MiB", bytes.div_ceil(1 << 20)),
        }
    }
}

/// The hugepages of one size, on one NUMA node if the machine says which.
#[derive(PartialEq, Eq, Debug)]
struct Hugepages {
    node: Option<u32>,
    /// Bytes of each.
    size: u64,
    all: u64,
    free: u64,
}

impl Hugepages {
    /// What the kernel says (Documentation/admin-guide/mm/hugetlbpage.rst), by node where there
    /// are several.
    fn read(sysfs: &Path) -> Vec<Self> {
        let node_of = |name: &str| name.strip_prefix("node")?.parse().ok();
        let mut nodes: Vec<u32> =
            entries(&sysfs.join("devices/system/node")).iter().filter_map(|name| node_of(name)).collect();
        nodes.sort_unstable();
        if nodes.len() < 2 {
            return Self::read_in(&sysfs.join("kernel/mm/hugepages"), None);
        }
        let of_node =
            |node| Self::read_in(&sysfs.join(format!("devices/system/node/node{node}/hugepages")), Some(node));
        nodes.into_iter().flat_map(of_node).collect()
    }

    fn read_in(directory: &Path, node: Option<u32>) -> Vec<Self> {
        let of_size = |name: &String| {
            let kibibytes: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
            let number =
                |file: &str| std::fs::read_to_string(directory.join(name).join(file)).ok()?.trim().parse().ok();
            let (all, free) = (number("nr_hugepages")?, number("free_hugepages")?);
            Some(Self { node, size: kibibytes << 10, all, free })
        };
        let mut found: Vec<Self> = entries(directory).iter().filter_map(of_size).collect();
        found.sort_by_key(|pages| pages.size);
        // A size of which there are none says nothing beside others.
        let some = found.iter().any(|pages| pages.all > 0);
        found.retain(|pages| pages.all > 0 || !some);
        found
    }
}

/// The names in a directory; none if it is not there.
fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;
    use crate::function::{Function, Invalid, PacketFunction, SetupError, WorkerSetup};
    use crate::runtime::Functions;
    use crate::{Context, Mbuf, Verdict};
    use std::sync::Arc;

    /// A machine's sysfs, as far as hugepages go: file and number.
    fn sysfs(name: &str, files: &[(&str, u64)]) -> std::path::PathBuf {
        let root = std::env::temp_dir().join(format!("nf-check-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        for (file, number) in files {
            let path = root.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, format!("{number}\n")).unwrap();
        }
        root
    }

    /// Needs so many MiB on each worker.
    struct Tables;

    impl Function for Tables {
        type Config = std::collections::BTreeMap<String, usize>;
        type Policy = usize;
        type Instance = Nothing;

        fn name(&self) -> &'static str {
            "tables"
        }

        fn policy(&self, config: Self::Config) -> Result<usize, Invalid> {
            Ok(config.values().sum())
        }

        fn memory(&self, mebibytes: &usize) -> usize {
            mebibytes << 20
        }

        fn instance(&self, _: Arc<usize>, _: &mut WorkerSetup) -> Result<Nothing, SetupError> {
            Ok(Nothing)
        }

        fn adopt(_: &mut Nothing, _: Arc<usize>) {}
    }

    struct Nothing;

    impl PacketFunction for Nothing {
        fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
            Verdict::Next
        }
    }

    fn check(name: &str, text: &str, files: &[(&str, u64)]) -> (String, Vec<String>) {
        let file = ConfigFile::parse("f.toml", text).unwrap();
        let configuration = Configuration::load(&file, &Functions::new().with(Tables)).unwrap();
        let root = sysfs(name, files);
        let check = configuration.check_on(None, &root);
        std::fs::remove_dir_all(root).unwrap();
        (check.to_string(), check.problems)
    }

    const PORTS: &str = "[ports]\ninside = 'a'\noutside = 'b'\n";

    #[test]
    fn the_needs_of_one_worker_stand_beside_the_machines_hugepages() {
        let text = format!("packets = 8191\n{PORTS}[tables]\nsessions = 30\n");
        let pages = [("nr_hugepages", 64), ("free_hugepages", 7)];
        let none = [("nr_hugepages", 0), ("free_hugepages", 0)];
        let in_size = |size: &str, files: [(&str, u64); 2]| {
            files.map(|(file, number)| (format!("kernel/mm/hugepages/hugepages-{size}kB/{file}"), number))
        };
        let files: Vec<_> = in_size("2048", pages).into_iter().chain(in_size("1048576", none)).collect();
        let files: Vec<(&str, u64)> = files.iter().map(|(file, number)| (file.as_str(), *number)).collect();
        let (table, problems) = check("fits", &text, &files);
        // 8191 objects of 2368 bytes, 885 in a page, a ring of 64 KiB, and caches for 128 lcores.
        let expected = "\
With 1 worker:

                    needs   there is
packets             8191
memory for packets  22 MiB
memory for tables   30 MiB
hugepages of 2 MiB  26      64, 7 of them free
memory in all       52 MiB  128 MiB of hugepages
port inside         a       not looked at (give the EAL arguments too)
port outside        b       not looked at (give the EAL arguments too)

";
        assert_eq!(table, expected);
        assert_eq!(problems, [""; 0]);
    }

    #[test]
    fn what_does_not_fit_is_a_sentence() {
        let text = |packets, mebibytes| format!("packets = {packets}\n{PORTS}[tables]\nsessions = {mebibytes}\n");
        let nodes = [
            ("devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", 10),
            ("devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", 9),
            ("devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", 20),
            ("devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", 1),
            ("kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", 99),
        ];
        let advice = "or give the EAL arguments too if they say --no-huge";
        for (name, text, files, row, expected) in [
            (
                "none",
                text(8191, 0),
                &[][..],
                "memory in all       22 MiB  0 MiB of hugepages",
                vec![format!(
                    "22 MiB of hugepages are needed, and 0 MiB are reserved: reserve more as root \
                     (sysctl -w vm.nr_hugepages=11), {advice}"
                )],
            ),
            (
                "nodes",
                text(8191, 60),
                &nodes,
                "hugepages of 2 MiB, NUMA node 1  41      20, 1 of them free",
                vec![format!(
                    "82 MiB of hugepages are needed, and 60 MiB are reserved: reserve more as root \
                     (sysctl -w vm.nr_hugepages=41), {advice}"
                )],
            ),
            ("enough", text(8191, 30), &nodes, "hugepages of 2 MiB, NUMA node 0  26      10, 9 of them free", vec![]),
            (
                "packets",
                text(2000, 0),
                &nodes,
                "packets                          2000",
                vec![
                    "packets: 2000 are too few, the receive queues alone take 2048 (or give [ports] descriptors fewer)"
                        .to_owned(),
                ],
            ),
        ] {
            let (table, problems) = check(name, &text, files);
            assert!(table.lines().any(|line| line == row), "{name}: {row:?} in:\n{table}");
            assert_eq!(problems, expected, "{name}");
        }
    }

    #[test]
    fn bytes_are_shown_in_the_unit_that_fits() {
        for (bytes, expected) in [
            (0, "0 MiB"),
            (1, "1 KiB"),
            (4 << 10, "4 KiB"),
            (1 << 20, "1 MiB"),
            ((1 << 20) + 1, "1025 KiB"),
            (50_000_000, "48 MiB"),
            (1 << 30, "1 GiB"),
            ((1 << 30) + 1, "1025 MiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), expected);
        }
    }
}
