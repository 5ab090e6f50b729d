//! Machines that are made up: one where all is well, and what one fault after the other, planted alone,
//! makes of it.

use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A tree of files that goes when its test ends.
struct Tree(PathBuf);

const VF: &str = "0000:01:10.0";
const PAGES: &str = "sys/kernel/mm/hugepages/hugepages-2048kB";

impl Tree {
    fn empty() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("nf-doctor-{}-{number}", std::process::id()));
        fs::create_dir(&root).unwrap();
        Self(root)
    }

    /// A virtual machine with an IOMMU: eth0 has the default route, a VF of an 82576 is for DPDK, CPU 1 is
    /// for a worker. It has two NUMA nodes. We are root.
    fn healthy() -> Self {
        let tree = Self::empty();
        for (file, text) in [
            (&*format!("{PAGES}/nr_hugepages"), "512"),
            (&format!("{PAGES}/free_hugepages"), "512"),
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0"),
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages", "0"),
            ("sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "512"),
            ("sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "512"),
            ("sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "0"),
            ("sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "0"),
            ("sys/devices/system/node/node0/cpulist", "0-1"),
            ("sys/devices/system/cpu/online", "0-3"),
            ("sys/devices/system/cpu/possible", "0-3"),
            ("sys/devices/system/cpu/isolated", "1"),
            ("sys/devices/system/cpu/nohz_full", "1"),
            ("proc/meminfo", "MemTotal: 1 kB\nHugepagesize:       2048 kB"),
            ("proc/mounts", "proc /proc proc rw 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0"),
            ("proc/cpuinfo", "processor : 0\nflags\t\t: fpu hypervisor sse4_2"),
            ("proc/cmdline", "quiet intel_iommu=on isolcpus=managed_irq,domain,1 nohz_full=1"),
            ("proc/stat", "cpu  1000 0 1000 8000 0 0 0 5 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0"),
            ("proc/net/route", "Iface Destination\neth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"),
            ("proc/sys/kernel/osrelease", "6.1.0-1-amd64"),
            ("dev/vfio/7", ""),
            (
                "proc/7/status",
                "Name:\tnf-doctor\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\nGroups:\t0\nCapEff:\t000001ffffffffff\nCpus_allowed_list:\t0-3",
            ),
            (
                "proc/7/limits",
                "Limit Soft Hard\nMax locked memory         8388608              8388608              bytes",
            ),
            (
                "proc/7/maps",
                "7f00-7f01 r--p 00000000 fd:00 12  /lib/x/librte_ring.so.23.0\n\
                 7f02-7f03 r--p 00000000 fd:00 13                         /lib/x/librte_eal.so.23.0",
            ),
            ("lib/modules/6.1.0-1-amd64/modules.dep", "kernel/drivers/vfio/pci/vfio-pci.ko.xz: kernel/vfio.ko.xz"),
            ("boot/config-6.1.0-1-amd64", "CONFIG_VFIO=m\n# CONFIG_VFIO_NOIOMMU is not set"),
        ] {
            tree.write(file, text);
        }
        tree.link("proc/self", "7");
        tree.directory("sys/module/vfio_iommu_type1");
        for cpu in 0..4 {
            let at = format!("sys/devices/system/cpu/cpu{cpu}");
            tree.write(&format!("{at}/topology/thread_siblings_list"), &cpu.to_string());
            tree.directory(&format!("{at}/node{}", cpu / 2));
        }
        tree.device("0000:00:03.0", "0x1af4", "0x1041", "virtio-pci", Some(3), 0);
        tree.interface("0000:00:03.0", "virtio0/net/eth0");
        tree.device(VF, "0x8086", "0x10ca", "vfio-pci", Some(7), 0);
        tree.device("0000:00:01.0", "0x1b36", "0x000c", "pcieport", Some(7), -1);
        tree.write("sys/bus/pci/devices/0000:00:01.0/class", "0x060400");
        tree.write("lib/x/librte_eal.so.23.0", "ELF\0/usr/lib/x/dpdk/pmds-23.0\0");
        tree.pmd("librte_net_e1000.so.23.0", "net_e1000_igb_vf", "* igb_uio | vfio-pci", &[(0x8086, 0x10ca)]);
        tree.pmd("librte_net_virtio.so", "net_virtio", "* igb_uio | uio_pci_generic | vfio-pci", &[(0x1af4, 0x1041)]);
        tree.pmd("librte_net_mlx5.so.23.0", "mlx5_pci", "* ib_uverbs & mlx5_core & mlx5_ib", &[(0x15b3, 0x1018)]);
        // Not one of the names that the EAL loads.
        tree.pmd("librte_net_ixgbe.so.23", "net_ixgbe_vf", "* igb_uio | vfio-pci", &[(0x8086, 0x10ed)]);
        tree
    }

    fn directory(&self, path: &str) {
        fs::create_dir_all(self.0.join(path)).unwrap();
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    fn replace(&self, file: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.0.join(file)).unwrap();
        assert!(text.contains(from), "{from} in {file}");
        self.write(file, text.trim_end().replace(from, to).as_str());
    }

    fn link(&self, link: &str, to: &str) {
        let path = self.0.join(link);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _ = fs::remove_file(&path);
        symlink(to, path).unwrap();
    }

    fn remove(&self, path: &str) {
        let path = self.0.join(path);
        if path.symlink_metadata().unwrap().is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
            .unwrap();
    }

    fn device(&self, address: &str, vendor: &str, device: &str, driver: &str, group: Option<u32>, node: i32) {
        let at = format!("sys/bus/pci/devices/{address}");
        self.write(&format!("{at}/class"), "0x020000");
        self.write(&format!("{at}/vendor"), vendor);
        self.write(&format!("{at}/device"), device);
        self.write(&format!("{at}/numa_node"), &node.to_string());
        self.driver(address, driver);
        if let Some(group) = group {
            self.link(&format!("{at}/iommu_group"), &format!("../../../../kernel/iommu_groups/{group}"));
            self.directory(&format!("sys/kernel/iommu_groups/{group}/devices/{address}"));
        }
    }

    fn driver(&self, address: &str, driver: &str) {
        let link = format!("sys/bus/pci/devices/{address}/driver");
        let _ = fs::remove_file(self.0.join(&link));
        if !driver.is_empty() {
            self.directory(&format!("sys/bus/pci/drivers/{driver}"));
            self.link(&link, &format!("../../../../bus/pci/drivers/{driver}"));
        }
    }

    /// The driver of a device.
    fn driver_of(&self, address: &str) -> String {
        let link = fs::read_link(self.0.join(format!("sys/bus/pci/devices/{address}/driver")));
        link.map_or_else(|_| String::new(), |link| link.file_name().unwrap().to_str().unwrap().to_owned())
    }

    fn interface(&self, address: &str, path: &str) {
        let at = format!("sys/bus/pci/devices/{address}/{path}");
        self.directory(&at);
        let name = path.rsplit('/').next().unwrap();
        self.link(&format!("sys/class/net/{name}"), &format!("../../../{at}"));
        self.write(&format!("{at}/addr_assign_type"), "0");
        self.write(&format!("{at}/address"), "52:54:00:00:00:01");
        self.write(&format!("{at}/operstate"), "up");
        self.write(&format!("{at}/flags"), "0x1003");
    }

    fn pmd(&self, file: &str, name: &str, kmod: &str, ids: &[(u16, u16)]) {
        let ids: Vec<String> = ids.iter().map(|(vendor, id)| format!("[{vendor}, {id}, 65535, 65535]")).collect();
        let text = format!(
            "ELF\0PMD_INFO_STRING= {{\"name\": \"{name}\", \"kmod\": \"{kmod}\", \"pci_ids\": [{}]}}\0rest",
            ids.join(", ")
        );
        self.write(&format!("usr/lib/x/dpdk/pmds-23.0/{file}"), &text);
    }

    /// Without an IOMMU.
    fn without_iommu(&self) {
        self.remove("sys/kernel/iommu_groups");
        for address in ["0000:00:03.0", VF, "0000:00:01.0"] {
            self.remove(&format!("sys/bus/pci/devices/{address}/iommu_group"));
        }
        self.replace("proc/cmdline", "intel_iommu=on ", "");
    }

    fn examine(&self, arguments: &str) -> Diagnosis {
        let words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
        // This machine's own is none of the tests' business.
        Doctor { environment: Vec::new(), ..Doctor::new(&words) }.examine(&self.0)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What is not as it should be: level and name of each.
fn troubles(diagnosis: &Diagnosis) -> Vec<String> {
    let troubles = diagnosis.findings().iter().filter(|finding| finding.level > Level::Ok);
    troubles.map(|finding| format!("{:?} {}", finding.level, finding.id)).collect()
}

const USUAL: &str = "-l 1 -a 0000:01:10.0";
/// Of a virtual function not everything can be seen, which is always said.
const ALWAYS: &str = "Note vf-unseen";
/// Where a virtual function has the driver uio_pci_generic.
const WITH_UIO: &str = "Note interrupts-absent";

#[test]
fn where_all_is_well_nothing_is_found() {
    let tree = Tree::healthy();
    for arguments in [USUAL, "-l 1 --allow=01:10.0 --in-memory", "-l 1 -a 0000:01:10.0,x=1 -- ", ""] {
        let diagnosis = tree.examine(arguments);
        assert_eq!(troubles(&diagnosis), [ALWAYS], "{arguments}:\n{diagnosis}");
    }
    let ok: Vec<String> = tree.examine(USUAL).findings().iter().map(|finding| finding.what.clone()).collect();
    assert_eq!(
        ok[1..],
        [
            "512 of 2 MiB reserved, 512 of them free",
            "no limit for this user",
            "on, 2 groups",
            "net_e1000_igb_vf by vfio-pci, IOMMU group 7, NUMA node 0",
            "1 isolated, without tick and RCU's callbacks",
        ]
    );
}

/// A machine that all is well with too, and what is different.
type Prepared = (&'static str, fn(&Tree));

#[test]
fn what_is_not_usual_and_works_is_no_fault() {
    let cases: &[Prepared] = &[
        ("uio where the IOMMU lets it through", |tree| {
            tree.driver(VF, "igb_uio");
            tree.write("sys/kernel/iommu_groups/7/type", "identity");
        }),
        ("a user whom the group's file was given", |tree| {
            fs::set_permissions(tree.0.join("dev/vfio/7"), fs::Permissions::from_mode(0o600)).unwrap();
            let user = fs::metadata(&tree.0).unwrap().uid();
            tree.replace("proc/7/status", "Uid:\t0\t0\t0\t0", &format!("Uid:\t9\t9\t9\t{user}"));
            tree.replace("proc/7/status", "000001ffffffffff", "000001ffffffbffd");
            tree.replace("proc/7/limits", "8388608 ", "unlimited ");
        }),
        ("a limit above what is reserved", |tree| {
            tree.replace("proc/7/status", "000001ffffffffff", "000001ffffffbfff");
            tree.replace("proc/7/limits", "8388608 ", "1073741824 ");
        }),
        ("a member of the group that another program may have", |tree| {
            tree.device("0000:01:10.2", "0x8086", "0x10ca", "mlx5_vfio_pci", Some(7), 0);
        }),
    ];
    for (case, prepare) in cases {
        let tree = Tree::healthy();
        prepare(&tree);
        let diagnosis = tree.examine(USUAL);
        assert_eq!(troubles(&diagnosis), [ALWAYS], "{case}: {diagnosis}");
    }
}

#[test]
fn a_machine_without_devices_for_dpdk_hears_nothing_of_virtual_functions() {
    let tree = Tree::healthy();
    tree.remove(&format!("sys/bus/pci/devices/{VF}"));
    let diagnosis = tree.examine("");
    assert_eq!(troubles(&diagnosis), ["Note device-none"], "{diagnosis}");
    let note = &diagnosis.findings()[0];
    assert_eq!(note.why, "There is: 0000:00:03.0 eth0, default route, (kernel: virtio-pci, DPDK: net_virtio).");
    assert_eq!(note.mend, ["--vdev net_tap0    # and other virtual devices work without"]);
    tree.remove("sys/bus/pci/devices/0000:00:03.0");
    assert_eq!(tree.examine("").findings()[0].why, "There is no network device on the PCI bus.");
}

#[test]
fn of_a_program_with_virtual_devices_only_what_it_uses_is_looked_at() {
    let tree = Tree::healthy();
    tree.without_iommu();
    for arguments in ["-l 1 --vdev net_tap0", "-l 1 --no-pci"] {
        let diagnosis = tree.examine(arguments);
        assert_eq!(troubles(&diagnosis), [""; 0], "{diagnosis}");
    }
}

#[test]
fn the_nic_of_a_virtual_function_is_not_proposed_to_go() {
    for (is_its_nic, mends) in [(true, 1), (false, 2)] {
        let tree = Tree::healthy();
        tree.device("0000:01:00.0", "0x8086", "0x10c9", "igb", Some(7), 0);
        if is_its_nic {
            tree.link(&format!("sys/bus/pci/devices/{VF}/physfn"), "../0000:01:00.0");
        }
        let diagnosis = tree.examine(USUAL);
        assert_eq!(diagnosis.findings()[0].id, "group-not-viable");
        assert_eq!(diagnosis.findings()[0].mend.len(), mends, "{diagnosis}");
    }
}

#[test]
fn what_nobody_uses_is_proposed_first() {
    let tree = Tree::healthy();
    tree.device("0000:01:00.0", "0x8086", "0x10c9", "igb", Some(8), 0);
    tree.interface("0000:01:00.0", "net/eth1");
    tree.device("0000:02:00.0", "0x8086", "0x10c9", "igb", Some(9), 0);
    tree.link(&format!("sys/bus/pci/devices/{VF}/physfn"), "../0000:01:00.0");
    for (driver, proposed) in [("", VF), ("igbvf", VF)] {
        tree.driver(VF, driver);
        let diagnosis = tree.examine("");
        assert_eq!(diagnosis.findings()[0].mend, [format!("scripts/bind vfio-pci {proposed}")], "{diagnosis}");
    }
    tree.remove(&format!("sys/bus/pci/devices/{VF}"));
    assert_eq!(tree.examine("").findings()[0].mend, ["scripts/bind vfio-pci 0000:01:00.0"]);
}

/// The machine on which all is well, with one thing planted.
type Case = (&'static str, fn(&Tree), &'static str, &'static str);

/// Each of these makes one finding, whose sentences have this in them, and no other.
const PLANTED: &[Case] = &[
    (
        "Fault hugepages-absent",
        |tree| tree.write(&format!("{PAGES}/nr_hugepages"), "0"),
        USUAL,
        "scripts/hugepages 1024M",
    ),
    ("Fault hugepages-unsupported", |tree| tree.remove("sys/kernel/mm"), USUAL, "--no-huge"),
    ("Fault hugepages-used-up", |tree| tree.write(&format!("{PAGES}/free_hugepages"), "0"), USUAL, "rtemap_"),
    ("Fault hugepages-unmounted", |tree| tree.write("proc/mounts", "proc /proc proc rw 0 0"), USUAL, "--in-memory"),
    ("Warning hugepages-unmounted", |tree| tree.write("proc/mounts", ""), "", "pagesize=2M none /dev/hugepages"),
    (
        "Fault hugepages-unmounted",
        |tree| tree.replace("proc/mounts", "pagesize=2M", "pagesize=1024M"),
        USUAL,
        "no hugetlbfs is mounted that has pages of 2 MiB",
    ),
    (
        "Warning hugepages-remote",
        |tree| tree.write("sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "0"),
        USUAL,
        "scripts/hugepages 1024M --node 0",
    ),
    (
        "Fault memlock-too-low",
        |tree| tree.replace("proc/7/status", "000001ffffffffff", "000001ffffffbfff"),
        USUAL,
        "this user may lock 8 MiB of memory",
    ),
    (
        "Fault group-forbidden",
        |tree| {
            fs::set_permissions(tree.0.join("dev/vfio/7"), fs::Permissions::from_mode(0o600)).unwrap();
            let other = fs::metadata(&tree.0).unwrap().uid() + 1;
            tree.replace("proc/7/status", "000001ffffffffff", "000001fffffffffd");
            tree.replace("proc/7/status", "Uid:\t0\t0\t0\t0", &format!("Uid:\t0\t0\t0\t{other}"));
        },
        USUAL,
        "this user may not open /dev/vfio/7",
    ),
    (
        "Fault iommu-unused",
        |tree| {
            tree.driver(VF, "igb_uio");
            tree.write("sys/kernel/iommu_groups/7/type", "DMA-FQ");
            tree.replace("proc/cmdline", "quiet", "iommu=pt");
        },
        USUAL,
        "it has the driver igb_uio, which knows nothing of the IOMMU",
    ),
    (
        "Fault group-not-viable",
        |tree| {
            tree.device("0000:01:00.0", "0x8086", "0x10c9", "igb", Some(7), 0);
            tree.device("0000:01:10.4", "0x8086", "0x10ca", "vfio-pci", Some(7), 0);
            tree.device("0000:01:10.6", "0x8086", "0x10ca", "", Some(7), 0);
        },
        USUAL,
        "its IOMMU group 7 is not viable: 0000:01:00.0 (igb)",
    ),
    ("Fault iommu-unused", |tree| tree.driver(VF, "igb_uio"), USUAL, "scripts/bind vfio-pci 0000:01:10.0"),
    ("Fault vfio-type1-absent", |tree| tree.remove("sys/module/vfio_iommu_type1"), USUAL, "modprobe vfio_iommu_type1"),
    ("Fault device-absent", |tree| tree.remove(&format!("sys/bus/pci/devices/{VF}")), USUAL, "0000:00:03.0"),
    ("Fault driver-kernel", |tree| tree.driver(VF, "igbvf"), USUAL, "scripts/bind vfio-pci 0000:01:10.0"),
    ("Fault driver-none", |tree| tree.driver(VF, ""), USUAL, "scripts/bind vfio-pci 0000:01:10.0"),
    (
        "Fault driver-kernel",
        |tree| {
            tree.driver(VF, "igbvf");
            tree.interface(VF, "net/eth1");
            tree.replace("proc/net/route", "eth0", "br0");
            tree.directory("sys/class/net/br0/lower_eth1");
        },
        USUAL,
        "the default route goes by eth1",
    ),
    (
        "Fault poll-mode-driver-absent",
        |tree| tree.remove("usr/lib/x/dpdk/pmds-23.0/librte_net_e1000.so.23.0"),
        USUAL,
        "DPDK has no driver for 8086:10ca",
    ),
    (
        "Warning poll-mode-driver-absent",
        |tree| tree.write(&format!("sys/bus/pci/devices/{VF}/device"), "0x10ed"),
        "",
        "None of the 3",
    ),
    (
        "Fault device-in-use",
        |tree| {
            tree.write("proc/1234/comm", "dpdk-testpmd");
            tree.link("proc/1234/fd/5", "/dev/vfio/7");
        },
        USUAL,
        "dpdk-testpmd (process 1234) has it (/dev/vfio/7)",
    ),
    ("Note device-in-use", |tree| tree.link("proc/1234/fd/5", "/dev/vfio/7"), "", "a program (process 1234)"),
    (
        "Fault prefix-in-use",
        |tree| tree.link("proc/1234/fd/5", "/run/dpdk/rte/config"),
        USUAL,
        "a program (process 1234) runs under the --file-prefix rte",
    ),
    (
        "Note users-unseen",
        |tree| tree.replace("proc/7/status", "000001ffffffffff", "000001fffff7ffff"),
        USUAL,
        "run nf-doctor as root",
    ),
    ("Fault cpu-not-allowed", |tree| tree.replace("proc/7/status", "0-3", "0,2-3"), USUAL, "may run on 0,2-3 only"),
    (
        "Warning numa-remote",
        |tree| {
            tree.write(&format!("sys/bus/pci/devices/{VF}/numa_node"), "1");
            tree.write("sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "9");
        },
        USUAL,
        "it is on NUMA node 1, CPU 1 is not",
    ),
    (
        "Warning cpu-siblings",
        |tree| {
            tree.write("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "0-1");
            for list in ["isolated", "nohz_full"] {
                tree.write(&format!("sys/devices/system/cpu/{list}"), "0-1");
            }
        },
        "-l 0-1 -a 0000:01:10.0",
        "the CPUs 0-1 are threads of one core",
    ),
    ("Note cpu-not-isolated", |tree| tree.write("sys/devices/system/cpu/isolated", ""), USUAL, "1 is not in isolcpus"),
    (
        "Note cpu-not-isolated",
        |tree| tree.write("sys/devices/system/cpu/isolated", ""),
        "",
        "isolcpus=managed_irq,domain,1-3",
    ),
    (
        "Note cpu-not-isolated",
        |_| {},
        "-l 0-1 -a 0000:01:10.0",
        "-l 1, and the kernel arguments isolcpus=managed_irq,domain,1",
    ),
    ("Note cpu-not-isolated", |_| {}, "-l 0 -a 0000:01:10.0", "-l with other CPUs than 0"),
    (
        "Note cpu-not-isolated",
        |tree| tree.write("sys/devices/system/cpu/nohz_full", "(null)"),
        USUAL,
        "1 is not in nohz_full, rcu_nocbs",
    ),
    (
        "Warning cpu-governor",
        |tree| tree.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave"),
        USUAL,
        "CPU 1 has the frequency governor powersave",
    ),
    (
        "Warning cpu-stolen",
        |tree| tree.replace("proc/stat", " 5 0 0\n", " 900 0 0\n"),
        USUAL,
        "the hypervisor kept 8 %",
    ),
    (
        "Warning mac-random",
        |tree| {
            tree.device("0000:01:11.0", "0x8086", "0x10ca", "igbvf", Some(8), 0);
            tree.interface("0000:01:11.0", "net/eth1");
            tree.write("sys/bus/pci/devices/0000:01:11.0/net/eth1/addr_assign_type", "1");
        },
        USUAL,
        "eth1 has the MAC 52:54:00:00:00:01, which its driver made up",
    ),
    (
        "Warning nic-down",
        |tree| {
            tree.device("0000:01:00.0", "0x8086", "0x10c9", "igb", Some(9), 0);
            tree.interface("0000:01:00.0", "net/eth1");
            tree.write("sys/bus/pci/devices/0000:01:00.0/net/eth1/flags", "0x1002");
            tree.link(&format!("sys/bus/pci/devices/{VF}/physfn"), "../0000:01:00.0");
        },
        USUAL,
        "eth1 is down, and with it its virtual functions (1)",
    ),
];

#[test]
fn a_fault_that_is_planted_alone_is_found_and_nothing_else() {
    for (found, plant, arguments, part) in PLANTED {
        let tree = Tree::healthy();
        plant(&tree);
        let diagnosis = tree.examine(arguments);
        let troubles = troubles(&diagnosis);
        let others: Vec<&String> = troubles.iter().filter(|trouble| trouble != found && *trouble != ALWAYS).collect();
        assert!(
            troubles.iter().any(|trouble| trouble == found) && others.is_empty(),
            "{found}: {troubles:?}\n{diagnosis}"
        );
        let text = diagnosis.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(&part.split_whitespace().collect::<Vec<_>>().join(" ")), "{found}: {part}\n{diagnosis}");
    }
}

#[test]
fn a_device_that_dpdk_uses_beside_the_kernel_needs_no_other_driver() {
    const SHARED: &str = "-l 1 -a 0000:05:00.0";
    let shared = |tree: &Tree, driver: &str| {
        tree.device("0000:05:00.0", "0x15b3", "0x1018", driver, Some(9), 0);
        tree.interface("0000:05:00.0", "net/eth5");
        tree.directory("sys/module/mlx5_ib");
        tree.directory("sys/module/ib_uverbs");
    };
    let cases: &[Case] = &[
        ("", |_| {}, SHARED, "mlx5_pci by mlx5_core"),
        ("Fault rdma-absent", |tree| tree.remove("sys/module/mlx5_ib"), SHARED, "modprobe mlx5_ib"),
        (
            "Warning link-down",
            |tree| tree.write("sys/bus/pci/devices/0000:05:00.0/net/eth5/operstate", "down"),
            SHARED,
            "ip link set dev eth5 up",
        ),
        (
            "Fault driver-taken-away",
            |tree| tree.driver("0000:05:00.0", "vfio-pci"),
            SHARED,
            "bind --kernel 0000:05:00.0",
        ),
        ("Note driver-taken-away", |tree| tree.driver("0000:05:00.0", "vfio-pci"), "", "bind --kernel 0000:05:00.0"),
        ("Fault driver-none", |tree| tree.driver("0000:05:00.0", ""), SHARED, "bind --kernel 0000:05:00.0"),
    ];
    for (found, plant, arguments, part) in cases {
        let tree = Tree::healthy();
        shared(&tree, "mlx5_core");
        plant(&tree);
        let diagnosis = tree.examine(arguments);
        let mut troubles = troubles(&diagnosis);
        troubles.retain(|trouble| trouble != ALWAYS);
        assert_eq!(troubles.join(", "), *found, "{diagnosis}");
        assert!(diagnosis.to_string().contains(part), "{part} in\n{diagnosis}");
    }
}

#[test]
fn without_an_iommu_it_is_said_what_this_kernel_has_instead() {
    const SWITCH: &str = "sys/module/vfio/parameters/enable_unsafe_noiommu_mode";
    const MODULES: &str = "lib/modules/6.1.0-1-amd64/modules.dep";
    // On the device: findings beside the IOMMU's note, which has the part in it.
    let cases: &[Case] = &[
        ("Fault driver-kernel", |_| {}, USUAL, "none of vfio-pci, uio_pci_generic and igb_uio works on this kernel"),
        ("Fault driver-kernel", |_| {}, USUAL, "vfio-pci no (this kernel has no CONFIG_VFIO_NOIOMMU)"),
        ("Fault driver-kernel", |tree| tree.write(SWITCH, "N"), USUAL, "vfio-pci if its no-IOMMU mode is allowed"),
        ("Fault driver-kernel", |tree| tree.write(SWITCH, "N"), USUAL, "echo 1 > /sys/module/vfio"),
        ("Fault driver-kernel", |tree| tree.write(SWITCH, "Y"), USUAL, "scripts/bind vfio-pci 0000:01:10.0"),
        (
            "Fault driver-kernel",
            |tree| {
                tree.replace("boot/config-6.1.0-1-amd64", "# CONFIG_VFIO_NOIOMMU is not set", "CONFIG_VFIO_NOIOMMU=y")
            },
            USUAL,
            "vfio-pci if its no-IOMMU mode is allowed",
        ),
        (
            "Fault driver-kernel",
            |tree| tree.remove("boot"),
            USUAL,
            "vfio-pci if the kernel has CONFIG_VFIO_NOIOMMU, which cannot be told here",
        ),
        ("Fault driver-kernel", |tree| tree.remove("lib"), USUAL, "vfio-pci no (this kernel has no such driver)"),
        (
            "Fault driver-kernel",
            |tree| tree.write(MODULES, "kernel/drivers/uio/uio_pci_generic.ko.xz: a\nkernel/vfio-pci.ko:"),
            USUAL,
            "scripts/bind uio_pci_generic 0000:01:10.0",
        ),
        ("", |tree| tree.driver(VF, "uio_pci_generic"), USUAL, "uio_pci_generic yes"),
        (
            "Fault physical-addresses",
            |tree| {
                tree.driver(VF, "igb_uio");
                tree.replace("proc/7/status", "000001ffffffffff", "000001ffffdfffff");
            },
            USUAL,
            "run the program as root",
        ),
        (
            "Fault device-in-use",
            |tree| {
                tree.driver(VF, "uio_pci_generic");
                tree.directory(&format!("sys/bus/pci/devices/{VF}/uio/uio0"));
                tree.link("proc/99/fd/3", "/dev/uio0");
            },
            USUAL,
            "(/dev/uio0)",
        ),
        (
            "",
            |tree| {
                tree.write(SWITCH, "Y");
                tree.device(VF, "0x8086", "0x10ca", "vfio-pci", Some(0), 0);
                tree.write("sys/kernel/iommu_groups/0/name", "vfio-noiommu");
            },
            USUAL,
            "vfio-pci yes (its no-IOMMU mode is on)",
        ),
    ];
    for (found, plant, arguments, part) in cases {
        let tree = Tree::healthy();
        tree.without_iommu();
        tree.driver(VF, "igbvf");
        tree.remove("sys/bus/pci/drivers/vfio-pci");
        plant(&tree);
        let diagnosis = tree.examine(arguments);
        let mut troubles = troubles(&diagnosis);
        let with_uio = troubles.iter().any(|trouble| trouble == WITH_UIO);
        let has_uio = tree.driver_of(VF) == "uio_pci_generic";
        assert_eq!(with_uio, has_uio, "{diagnosis}");
        troubles.retain(|trouble| ![ALWAYS, WITH_UIO].contains(&trouble.as_str()));
        let expected = [found, "Note iommu-absent"].map(str::to_owned);
        assert_eq!(troubles, expected[usize::from(found.is_empty())..], "{diagnosis}");
        let text = diagnosis.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(part), "{part} in\n{diagnosis}");
    }
}

#[test]
fn why_an_iommu_is_not_on_is_told_as_far_as_it_is_to_be_seen() {
    for (tables, arguments, is_virtual, what, mend) in [
        (
            &["DMAR"][..],
            "quiet",
            false,
            "ACPI table DMAR",
            "the kernel arguments intel_iommu=on iommu=pt, then restart",
        ),
        (&["IVRS"], "quiet", false, "ACPI table IVRS", "the kernel arguments amd_iommu=on iommu=pt, then restart"),
        (
            &["DMAR"],
            "intel_iommu=off",
            false,
            "the kernel argument intel_iommu=off keeps it off",
            "the kernel arguments",
        ),
        (&["FACP"], "quiet", true, "this virtual machine has none", "give the virtual machine one"),
        (&[], "quiet", false, "none is to be seen", "switch VT-d or AMD-Vi on"),
    ] {
        let tree = Tree::healthy();
        tree.without_iommu();
        tree.driver(VF, "uio_pci_generic");
        tables.iter().for_each(|table| tree.write(&format!("sys/firmware/acpi/tables/{table}"), ""));
        tree.write("proc/cmdline", arguments);
        if !is_virtual {
            tree.write("proc/cpuinfo", "flags\t\t: fpu");
        }
        let diagnosis = tree.examine(USUAL);
        let note = diagnosis.findings().iter().find(|finding| finding.id == "iommu-absent").unwrap();
        assert!(note.what.contains(what) && note.mend[0].starts_with(mend), "{note:?}");
    }
}

#[test]
fn a_packed_kernel_configuration_is_read_too() {
    let tree = Tree::healthy();
    tree.write("proc/config", "CONFIG_VFIO_NOIOMMU=y");
    tree.remove("boot");
    let packed = std::process::Command::new("gzip").arg(tree.0.join("proc/config")).status().unwrap();
    assert!(packed.success());
    assert_eq!(iommu::NoIommu::of(&Machine::new(&tree.0)), iommu::NoIommu::Off);
    tree.remove("proc/config.gz");
    assert_eq!(iommu::NoIommu::of(&Machine::new(&tree.0)), iommu::NoIommu::Unknown);
}

#[test]
fn what_a_program_needs_is_compared_with_what_is_free() {
    let tree = Tree::healthy();
    tree.write(&format!("{PAGES}/free_hugepages"), "100");
    for (need, found) in [(200 << 20, &[ALWAYS][..]), (201 << 20, &["Fault hugepages-too-few", ALWAYS])] {
        let words: Vec<String> = USUAL.split(' ').map(str::to_owned).collect();
        let diagnosis = Doctor::new(&words).need(need).examine(&tree.0);
        assert_eq!(troubles(&diagnosis), found, "{diagnosis}");
    }
    let words: Vec<String> = format!("{USUAL} --no-huge").split(' ').map(str::to_owned).collect();
    tree.remove("sys/kernel/mm");
    assert_eq!(troubles(&Doctor::new(&words).need(1 << 40).examine(&tree.0)), [ALWAYS]);
}

#[test]
fn interfaces_and_the_environment_name_devices_too() {
    let tree = Tree::healthy();
    tree.device("0000:05:00.0", "0x8086", "0x10ca", "igbvf", Some(9), 0);
    tree.interface("0000:05:00.0", "net/eth5");
    tree.link("sys/bus/pci/devices/0000:05:00.0/net/eth5/device", "../..");
    tree.directory("sys/class/net/veth0");
    let environment = |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    for (words, variable, found, on) in [
        ("-l 1 -a eth5", "", "Fault driver-kernel", "0000:05:00.0"),
        ("-l 1", "PCIDEVICE_X=0000:05:00.0", "Fault driver-kernel", "0000:05:00.0"),
        ("", "PCIDEVICE_X=0000:05:00.0", "Fault driver-kernel", "0000:05:00.0"),
        ("-l 1", "PCIDEVICE_X=eth5", "Fault arguments-wrong", ""),
        ("-l 1 -a veth0", "", "Fault arguments-wrong", ""),
        ("-l 1 -a eth9", "", "Fault arguments-wrong", ""),
    ] {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        let environment = environment(variable).into_iter().collect();
        let diagnosis = Doctor { environment, ..Doctor::new(&words) }.examine(&tree.0);
        assert_eq!(troubles(&diagnosis), [found, ALWAYS], "{diagnosis}");
        assert_eq!(diagnosis.findings()[0].device.as_deref().unwrap_or_default(), on);
    }
}

#[test]
fn a_tree_without_anything_is_no_reason_to_panic() {
    let diagnosis = Tree::empty().examine("");
    assert_eq!(
        troubles(&diagnosis),
        ["Fault hugepages-unsupported", "Note iommu-absent", "Note device-none", "Note cpu-not-isolated"],
        "{diagnosis}"
    );
    let value: serde_json::Value = serde_json::from_str(&diagnosis.json()).unwrap();
    assert_eq!(value["findings"].as_array().unwrap().len(), diagnosis.findings().len());
}
