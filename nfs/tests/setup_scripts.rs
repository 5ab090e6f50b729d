//! The scripts that set a machine up, on machines that are made up: a tree with sys, proc and dev in
//! it, a kernel that answers writes to it, and commands that note that they were called.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts");

/// What Linux does when FILE has been written. It forgets what was written where it keeps nothing.
const KERNEL: &str = r#"#!/usr/bin/env bash
set -eu
file=$1 value=$2 pci=$NF_ROOT/sys/bus/pci
case $file in
*/driver_override) [[ -n $value ]] || echo '(null)' >"$file" ;;
*/driver/unbind)
    : >"$file"
    rm "$pci/devices/$value/driver"
    rm -f "$NF_ROOT"/sys/class/net/eth1
    ;;
*/drivers_probe)
    : >"$file"
    device=$pci/devices/$value
    driver=$(<"$device/driver_override")
    [[ $driver != '(null)' ]] || driver=$(<"$NF_ROOT/native")
    [[ ! -e $NF_ROOT/refuses-$driver && -n $driver ]] || exit 1
    ln -s "../../drivers/$driver" "$device/driver"
    [[ $driver != igbvf ]] || ln -s "../../bus/pci/devices/$value/net/eth1" "$NF_ROOT/sys/class/net/eth1"
    ;;
*/sriov_numvfs)
    pf=${file%/*}
    [[ $value == 0 || ! -e $NF_ROOT/refuses-vfs ]] || { echo 0 >"$file"; exit 1; }
    for link in "$pf"/virtfn*; do
        [[ ! -e $link ]] || { rm -r "$(readlink -f "$link")"; rm "$link"; }
    done
    for ((vf = 0; vf < value; vf++)); do
        mkdir "$pci/devices/0000:01:10.$vf"
        ln -s "../0000:01:10.$vf" "$pf/virtfn$vf"
    done
    [[ ! -e $NF_ROOT/interrupts ]] || kill -TERM "$PPID"
    ;;
*/nr_hugepages)
    [[ ! -e $NF_ROOT/most ]] || ((value <= $(<"$NF_ROOT/most"))) || cp "$NF_ROOT/most" "$file"
    [[ ! -e $NF_ROOT/fewest ]] || ((value >= $(<"$NF_ROOT/fewest"))) || cp "$NF_ROOT/fewest" "$file"
    ;;
*/compact_memory)
    : >"$file"
    [[ ! -e $NF_ROOT/most-after-compaction ]] || cp "$NF_ROOT/most-after-compaction" "$NF_ROOT/most"
    ;;
esac
"#;

/// modprobe, ip, mount and umount.
const COMMAND: &str = r#"#!/usr/bin/env bash
set -eu
[[ "${0##*/} $*" == "ip -o addr show to "* ]] || echo "${0##*/} $*" >>"$NF_ROOT.log"
[[ ! -e $NF_ROOT/refuses-${0##*/} ]] || exit 1
case ${0##*/} in
modprobe)
    [[ $1 == -q ]] || mkdir -p "$NF_ROOT/sys/module/${1//-/_}"
    [[ $1 == -q || $1 == vfio_iommu_type1 ]] || mkdir -p "$NF_ROOT/sys/bus/pci/drivers/$1"
    [[ $1 != vfio-pci ]] || mkdir -p "$NF_ROOT/sys/module/vfio"
    ;;
mount) echo "$5 ${6#"$NF_ROOT"} hugetlbfs rw,$4 0 0" >>"$NF_ROOT/proc/mounts" ;;
umount) sed -i '/^nf-hugepages /d' "$NF_ROOT/proc/mounts" ;;
ip) [[ $1 != -o ]] || echo "2: eth1    inet $5/24 scope global eth1" ;;
esac
"#;

struct Machine {
    scratch: PathBuf,
}

impl Machine {
    /// A NIC with its interface eth0, and a VF with its interface eth1 in IOMMU group 7; the default
    /// routes go by eth0. There is room for VFs and hugepages.
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let scratch = std::env::temp_dir().join(format!("nfs-setup-{}-{number}", std::process::id()));
        fs::create_dir(&scratch).unwrap();
        let machine = Self { scratch };
        let bin = machine.scratch.join("bin");
        fs::create_dir(&bin).unwrap();
        for (name, text) in
            [("kernel", KERNEL), ("modprobe", COMMAND), ("ip", COMMAND), ("mount", COMMAND), ("umount", COMMAND)]
        {
            fs::write(bin.join(name), text).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        for directory in ["sys/class/net", "sys/bus/pci/drivers", "proc/net", "proc/sys/vm", "dev"] {
            fs::create_dir_all(machine.root().join(directory)).unwrap();
        }
        for (file, text) in [
            ("sys/bus/pci/drivers_probe", ""),
            ("native", "igbvf"),
            ("proc/mounts", "proc /proc proc rw 0 0\n"),
            ("proc/meminfo", "MemTotal: 8388608 kB\nHugepagesize:       2048 kB\n"),
            ("proc/sys/vm/compact_memory", ""),
            ("proc/net/route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n"),
            ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "0"),
            ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0"),
            ("sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages", "0"),
            ("sys/devices/system/node/node1/hugepages/hugepages-2048kB/free_hugepages", "0"),
        ] {
            machine.write(file, text);
        }
        machine.add("proc/net/route", "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\n");
        machine.add("proc/net/route", "eth1\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\n");
        machine.device("0000:01:00.0", "igb", "eth0", 1);
        machine.device("0000:01:10.0", "igbvf", "eth1", 7);
        machine.write("sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs", "7");
        machine.write("sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", "0");
        machine.write("sys/bus/pci/devices/0000:01:00.0/sriov_drivers_autoprobe", "1");
        machine
    }

    fn root(&self) -> PathBuf {
        self.scratch.join("root")
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{}\n", text.trim_end())).unwrap();
    }

    fn add(&self, file: &str, line: &str) {
        let text = fs::read_to_string(self.root().join(file)).unwrap();
        self.write(file, &(text + line));
    }

    fn link(&self, link: &str, to: &str) {
        symlink(to, self.root().join(link)).unwrap();
    }

    fn device(&self, address: &str, driver: &str, interface: &str, group: u32) {
        let device = format!("sys/bus/pci/devices/{address}");
        self.write(&format!("{device}/class"), "0x020000");
        self.write(&format!("{device}/vendor"), "0x8086");
        self.write(&format!("{device}/device"), "0x10ca");
        self.write(&format!("{device}/numa_node"), "-1");
        self.write(&format!("{device}/modalias"), "pci:v8086");
        self.write(&format!("{device}/driver_override"), "(null)");
        if !driver.is_empty() {
            self.write(&format!("sys/bus/pci/drivers/{driver}/unbind"), "");
            self.link(&format!("{device}/driver"), &format!("../../drivers/{driver}"));
        }
        if !interface.is_empty() {
            fs::create_dir_all(self.root().join(format!("{device}/net/{interface}"))).unwrap();
            self.link(&format!("{device}/net/{interface}/device"), "../..");
            self.link(
                &format!("sys/class/net/{interface}"),
                &format!("../../bus/pci/devices/{address}/net/{interface}"),
            );
        }
        if group > 0 {
            let members = format!("sys/kernel/iommu_groups/{group}/devices");
            fs::create_dir_all(self.root().join(&members)).unwrap();
            self.link(&format!("{members}/{address}"), &format!("../../../../bus/pci/devices/{address}"));
            self.link(&format!("{device}/iommu_group"), &format!("../../../../kernel/iommu_groups/{group}"));
        }
    }

    /// Runs a script; returns its status and what it said.
    fn run(&self, command: &str) -> (i32, String) {
        self.run_in(command, &[])
    }

    fn command(&self, command: &str, environment: &[(&str, &str)]) -> Command {
        let mut words = command.split_whitespace();
        let script = Path::new(SCRIPTS).join(words.next().unwrap());
        let path = format!("{}:{}", self.scratch.join("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new(script);
        command.args(words).env("NF_ROOT", self.root()).env("NF_KERNEL", self.scratch.join("bin/kernel"));
        command.env("PATH", path).env_remove("SSH_CONNECTION").envs(environment.iter().copied());
        command.stdin(Stdio::null());
        command
    }

    fn run_in(&self, command: &str, environment: &[(&str, &str)]) -> (i32, String) {
        let output = self.command(command, environment).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8(text).unwrap().replace(self.root().to_str().unwrap(), ""))
    }

    /// The commands that were run, and forgets them.
    fn commands(&self) -> String {
        let log = self.scratch.join("root.log");
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(log);
        text.replace(self.root().to_str().unwrap(), "")
    }

    /// Everything that is in the tree.
    fn state(&self) -> BTreeMap<PathBuf, String> {
        let mut state = BTreeMap::new();
        let mut directories = vec![self.root()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                let kind = fs::symlink_metadata(&path).unwrap().file_type();
                let what = if kind.is_symlink() {
                    fs::read_link(&path).unwrap().display().to_string()
                } else if kind.is_dir() {
                    directories.push(path.clone());
                    String::new()
                } else {
                    fs::read_to_string(&path).unwrap().trim_end().to_owned()
                };
                state.insert(path, what);
            }
        }
        state
    }

    fn driver(&self, address: &str) -> String {
        let link = fs::read_link(self.root().join(format!("sys/bus/pci/devices/{address}/driver")));
        link.map(|link| link.file_name().unwrap().to_str().unwrap().to_owned()).unwrap_or_default()
    }

    fn text(&self, file: &str) -> String {
        fs::read_to_string(self.root().join(file)).unwrap().trim().to_owned()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// A command, what the machine is prepared by, and a part of what is said.
type Case = (&'static str, fn(&Machine), &'static str);

/// Each of these commands, on a machine that was prepared, fails with a sentence that has this in it,
/// and leaves the machine as it was.
fn assert_refused(cases: &[Case]) {
    for (command, prepare, sentence) in cases {
        let machine = Machine::new();
        prepare(&machine);
        let before = machine.state();
        let (status, said) = machine.run(command);
        assert!(status == 1 && said.contains(sentence), "{command}: {status}\n{said}");
        let changed: Vec<_> =
            machine.state().into_iter().filter(|(path, what)| before.get(path) != Some(what)).collect();
        // The driver may have been loaded by then.
        let drivers = |path: &Path| path.to_str().unwrap().contains("/vfio") || path.ends_with("sys/module");
        assert!(changed.iter().all(|(path, _)| drivers(path)), "{command}: {changed:?}");
        assert!(machine.state().len() >= before.len(), "{command}");
    }
}

const UNCHANGED: fn(&Machine) = |_| {};

#[test]
fn a_device_that_had_better_stay_is_not_taken() {
    assert_refused(&[
        ("bind", UNCHANGED, "say which driver"),
        ("bind vfio-pci", UNCHANGED, "say which devices"),
        ("bind --kernel", UNCHANGED, "say which devices"),
        ("bind igb eth1", UNCHANGED, "the driver is one of vfio-pci uio_pci_generic igb_uio, not igb"),
        ("bind --fast vfio-pci eth1", UNCHANGED, "unknown argument --fast"),
        ("bind vfio-pci eth7", UNCHANGED, "eth7 is neither a PCI address"),
        ("bind vfio-pci 0000:09:00.0", UNCHANGED, "there is no PCI device 0000:09:00.0"),
        (
            "bind vfio-pci tap0",
            |machine| fs::create_dir(machine.root().join("sys/class/net/tap0")).unwrap(),
            "the interface tap0 has no PCI device (DPDK reaches it by --vdev net_af_packet0,iface=tap0)",
        ),
        (
            "bind vfio-pci usb0",
            |machine| {
                let device = "sys/bus/pci/devices/0000:01:00.0/usb1/1-1:1.0";
                fs::create_dir_all(machine.root().join(device)).unwrap();
                fs::create_dir(machine.root().join("sys/class/net/usb0")).unwrap();
                machine.link("sys/class/net/usb0/device", &format!("../../../../{device}"));
            },
            "the interface usb0 has no PCI device",
        ),
        (
            "bind vfio-pci 0000:02:00.0",
            |machine| {
                machine.device("0000:02:00.0", "nvme", "", 9);
                machine.write("sys/bus/pci/devices/0000:02:00.0/class", "0x010802");
            },
            "0000:02:00.0 is no network device",
        ),
        ("bind vfio-pci eth0", UNCHANGED, "0000:01:00.0 is eth0, which the default route or this SSH session goes by"),
        ("bind vfio-pci 01:10.0 01:00.0", UNCHANGED, "0000:01:00.0 is eth0, which the default route"),
        (
            "bind vfio-pci eth1",
            |machine| {
                let zero = "0".repeat(32);
                let route = format!("{zero} 00 {zero} 00 fe80 00000400 00000003 00000000 00000003     eth1");
                machine.write("proc/net/ipv6_route", &route);
            },
            "0000:01:10.0 is eth1, which the default route",
        ),
        (
            "bind vfio-pci eth1",
            |machine| {
                machine.write("proc/net/route", "br0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000");
                for lower in ["br0/lower_eth9", "br0/lower_bond0", "bond0/lower_eth1"] {
                    fs::create_dir_all(machine.root().join("sys/class/net").join(lower)).unwrap();
                }
            },
            "0000:01:10.0 is eth1, which the default route",
        ),
        (
            "bind vfio-pci 0000:02:00.0",
            |machine| machine.device("0000:02:00.0", "mlx5_core", "eth2", 9),
            "0000:02:00.0 has the driver mlx5_core, which DPDK works beside: leave it, and give DPDK -a 0000:02:00.0",
        ),
        (
            "bind vfio-pci eth1",
            |machine| {
                machine.device("0000:00:01.0", "pcieport", "", 7);
                machine.device("0000:01:10.2", "", "", 7);
                machine.device("0000:01:11.0", "igb", "", 7);
                machine.device("0000:01:12.0", "ahci", "", 7);
            },
            "the IOMMU group 7 of 0000:01:10.0 is not viable: 0000:01:11.0 (igb), 0000:01:12.0 (ahci) belongs to it too",
        ),
        (
            "bind vfio-pci 0000:02:00.0",
            |machine| machine.device("0000:02:00.0", "igb", "", 0),
            "0000:02:00.0 is in no IOMMU group, and vfio of this kernel has no no-IOMMU mode",
        ),
        (
            "bind vfio-pci 0000:02:00.0",
            |machine| {
                machine.device("0000:02:00.0", "igb", "", 0);
                machine.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", "N");
            },
            "echo 1 > /sys/module/vfio/parameters/enable_unsafe_noiommu_mode",
        ),
        ("bind vfio-pci eth1", |machine| machine.write("refuses-modprobe", ""), "the driver vfio-pci cannot be loaded"),
        (
            "bind vfio-pci eth1",
            |machine| machine.write("refuses-vfio-pci", ""),
            "vfio-pci did not take 0000:01:10.0, which has igbvf now (the kernel's log says why",
        ),
    ]);
    let machine = Machine::new();
    let (status, said) = machine.run_in("bind vfio-pci eth1", &[("SSH_CONNECTION", "192.0.2.9 5 192.0.2.1 22")]);
    assert!(status == 1 && said.contains("is eth1, which the default route or this SSH session"), "{said}");

    // Under sudo only what called it knows of the session: here the parent of ours.
    let machine = Machine::new();
    let process = format!("proc/{}", std::process::id());
    machine.write(&format!("{process}/environ"), "HOME=/root\0");
    machine.write(&format!("{process}/status"), "Name:\tsudo\nPPid:\t77\n");
    machine.write("proc/77/environ", "HOME=/root\0SSH_CONNECTION=192.0.2.9 5 192.0.2.1 22\0");
    machine.write("proc/77/status", "Name:\tbash\nPPid:\t1\n");
    let (status, said) = machine.run("bind vfio-pci eth1");
    assert!(status == 1 && said.contains("is eth1, which the default route or this SSH session"), "{said}");
}

#[test]
fn a_device_goes_to_dpdk_and_comes_back() {
    let machine = Machine::new();
    let before = machine.state();
    let (status, said) = machine.run("bind --dry-run vfio-pci eth1");
    let writes = "modprobe vfio-pci\nmodprobe vfio_iommu_type1\n\
        echo vfio-pci > /sys/bus/pci/devices/0000:01:10.0/driver_override\n\
        echo 0000:01:10.0 > /sys/bus/pci/devices/0000:01:10.0/driver/unbind\n\
        echo 0000:01:10.0 > /sys/bus/pci/drivers_probe\n";
    assert_eq!((status, said.as_str()), (0, writes));
    assert_eq!((machine.state(), machine.commands().as_str()), (before.clone(), ""), "a dry run");

    let (status, said) = machine.run("bind vfio-pci eth1");
    assert_eq!((status, said), (0, format!("{writes}0000:01:10.0: vfio-pci in place of igbvf\n")));
    assert_eq!(
        (machine.driver("0000:01:10.0").as_str(), machine.commands().as_str()),
        ("vfio-pci", "modprobe vfio-pci\nmodprobe vfio_iommu_type1\n")
    );
    let once = machine.state();
    for address in ["0000:01:10.0", "01:10.0", "0000:01:10.0 01:10.0"] {
        let (status, said) = machine.run(&format!("bind vfio-pci {address}"));
        assert!(status == 0 && said.starts_with("0000:01:10.0 has the driver vfio-pci already\n"), "{said}");
        assert_eq!((machine.state(), machine.commands().as_str()), (once.clone(), ""), "the same a second time");
    }

    let (status, said) = machine.run("bind --kernel 0000:01:10.0");
    assert!(status == 0 && said.ends_with("0000:01:10.0: igbvf, eth1\n"), "{said}");
    fs::remove_dir_all(machine.root().join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    fs::remove_dir_all(machine.root().join("sys/module")).unwrap();
    assert!(machine.state() == before, "something is left, beside the driver, which stays loaded");
    let (status, said) = machine.run("bind --kernel eth1");
    assert_eq!((status, said.as_str()), (0, "0000:01:10.0 has its kernel driver igbvf already\n"));
}

#[test]
fn what_is_refused_is_done_if_it_is_forced() {
    for (command, prepare, driver) in [
        ("uio_pci_generic 0000:01:00.0", UNCHANGED, "uio_pci_generic"),
        ("vfio-pci eth0", |machine: &Machine| machine.device("0000:01:11.0", "igb", "", 1), "vfio-pci"),
        ("igb_uio eth0", |machine: &Machine| machine.write("sys/module/vfio/version", "0.3"), "igb_uio"),
    ] {
        let machine = Machine::new();
        prepare(&machine);
        let (status, said) = machine.run(&format!("bind --force {command}"));
        assert_eq!((status, machine.driver("0000:01:00.0").as_str()), (0, driver), "{said}");
    }
}

#[test]
fn without_an_iommu_the_modes_that_need_none_are_taken() {
    for (driver, noiommu) in [("vfio-pci", Some("Y")), ("vfio-pci", Some("1")), ("uio_pci_generic", None)] {
        let machine = Machine::new();
        machine.device("0000:02:00.0", "igb", "", 0);
        if let Some(noiommu) = noiommu {
            machine.write("sys/module/vfio/parameters/enable_unsafe_noiommu_mode", noiommu);
        }
        let (status, said) = machine.run(&format!("bind {driver} 02:00.0"));
        assert_eq!((status, machine.driver("0000:02:00.0").as_str()), (0, driver), "{said}");
    }
}

#[test]
fn a_device_that_the_kernel_has_no_driver_for_is_given_back_all_the_same() {
    let machine = Machine::new();
    machine.write("native", "");
    assert_eq!(machine.run("bind vfio-pci eth1").0, 0);
    let (status, said) = machine.run("bind --kernel 0000:01:10.0");
    assert!(status == 0 && said.ends_with("0000:01:10.0: no driver, as the kernel has none for it\n"), "{said}");
    assert_eq!(machine.driver("0000:01:10.0"), "");
    // Here the kernel has none but vfio-pci.
    machine.write("native", "vfio-pci");
    let (status, said) = machine.run("bind --kernel 0000:01:10.0");
    assert!(status == 1 && said.contains("0000:01:10.0 stays with vfio-pci"), "{said}");
}

#[test]
fn the_status_is_a_table_of_all_network_devices() {
    let machine = Machine::new();
    machine.device("0000:02:00.0", "", "", 0);
    machine.write("sys/bus/pci/devices/0000:03:00.0/class", "0x010802");
    machine.link("sys/bus/pci/devices/0000:01:10.0/physfn", "../0000:01:00.0");
    let (status, said) = machine.run("bind --status");
    let table = "\
ADDRESS        ID         DRIVER           GROUP  NUMA  INTERFACE     NOTE
0000:01:00.0   8086:10ca  igb              1      -     eth0          0 of 7 VFs, eth0: default route or SSH
0000:01:10.0   8086:10ca  igbvf            7      -     eth1          VF of 0000:01:00.0
0000:02:00.0   8086:10ca  -                -      -     -             
";
    assert_eq!((status, said.as_str()), (0, table));
}

#[test]
fn hugepages_are_reserved_and_given_back() {
    let pages = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    let machine = Machine::new();
    let before = machine.state();
    let (status, said) = machine.run("hugepages 1024M --dry-run");
    let writes = "echo 512 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages\n";
    let mount = "mkdir -p /dev/hugepages\nmount -t hugetlbfs -o pagesize=2M nf-hugepages /dev/hugepages\n";
    assert_eq!((status, said), (0, format!("{writes}{mount}")));
    assert_eq!((machine.state(), machine.commands().as_str()), (before.clone(), ""), "a dry run");

    let (status, said) = machine.run("hugepages 1023M");
    assert_eq!((status, said), (0, format!("{writes}512 pages of 2 MiB: 1024 MiB\n{mount}")));
    assert_eq!(machine.text(pages), "512");
    let once = machine.state();
    let (status, said) = machine.run("hugepages 1G");
    assert_eq!((status, said.as_str()), (0, "there are 512 pages of 2 MiB already\n"));
    assert_eq!(machine.state(), once, "the same a second time");
    machine.commands();

    let (status, _) = machine.run("hugepages 0");
    assert_eq!((status, machine.commands().as_str()), (0, "umount /dev/hugepages\n"));
    fs::remove_dir(machine.root().join("dev/hugepages")).unwrap();
    assert_eq!(machine.state(), before, "but for an empty directory");
}

#[test]
fn a_mount_of_others_stays_and_other_sizes_and_nodes_are_their_own() {
    let machine = Machine::new();
    machine.add("proc/mounts", "hugetlbfs /dev/hugepages hugetlbfs rw,relatime,pagesize=2M 0 0");
    for command in ["hugepages 64M", "hugepages 0"] {
        assert_eq!((machine.run(command).0, machine.commands().as_str()), (0, ""), "{command}");
    }
    assert_eq!(machine.run("hugepages 2G --size 1G").0, 0);
    assert_eq!(machine.text("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages"), "2");
    assert!(machine.text("proc/mounts").ends_with("nf-hugepages /dev/hugepages1024M hugetlbfs rw,pagesize=1024M 0 0"));
    assert_eq!(machine.run("hugepages 03M --node 1").0, 0);
    assert_eq!(machine.text("sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages"), "2");
    assert_eq!(machine.text("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"), "0");
    let (_, table) = machine.run("hugepages");
    assert!(table.contains("2 MiB     1            2         0  /dev/hugepages\n"), "{table}");
    let (_, said) = machine.run("hugepages 1G --size 1G --persistent --dry-run");
    assert!(said.contains("kernel arguments: default_hugepagesz=2M hugepagesz=1024M hugepages=1\n"), "{said}");
    let (_, said) = machine.run("hugepages 1G --persistent --dry-run");
    assert!(said.contains("/etc/sysctl.d/hugepages.conf: vm.nr_hugepages = 512\n"), "{said}");
}

#[test]
fn what_the_kernel_gives_of_hugepages_is_said() {
    let pages = "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";
    for (most, after, had, status, sentence) in [
        ("100", "100", "7", 1, "the kernel gave 100 of 512 pages (200 MiB of 1024 MiB)"),
        ("100", "100", "7", 1, "There are 7 again, as before"),
        ("7", "7", "7", 1, "the kernel gave 7 of 512 pages (14 MiB of 1024 MiB)"),
        ("100", "600", "512", 0, "512 pages of 2 MiB: 1024 MiB"),
    ] {
        let machine = Machine::new();
        machine.write(pages, "7");
        machine.write("most", most);
        machine.write("most-after-compaction", after);
        let (exit, said) = machine.run("hugepages 1024M");
        assert!(exit == status && said.contains(sentence), "{said}");
        assert_eq!(machine.text(pages), had);
    }
    let machine = Machine::new();
    machine.write(pages, "9");
    machine.write("fewest", "3");
    let (status, said) = machine.run("hugepages 0");
    assert!(status == 1 && said.contains("3 pages are in use: stop the programs that use them"), "{said}");
    assert_refused(&[
        ("hugepages 12x", UNCHANGED, "12x is no amount of memory"),
        ("hugepages 010G", UNCHANGED, "010G is more than the 8192 MiB that this machine has"),
        ("hugepages 1G --size 0M", UNCHANGED, "0M is no size of a page"),
        ("hugepages 1G 2G", UNCHANGED, "one amount at a time"),
        ("hugepages --size", UNCHANGED, "--size needs a value"),
        ("hugepages --quick", UNCHANGED, "unknown argument --quick"),
        ("hugepages 1G --size 4M", UNCHANGED, "this machine has no pages of 4 MiB"),
        ("hugepages 1G --node 2", UNCHANGED, "there is no NUMA node 2"),
        ("hugepages 1G --node first", UNCHANGED, "--node needs a number"),
        ("hugepages 1G", |machine| machine.write("proc/meminfo", "MemTotal: 1 kB"), "this kernel has no hugepages"),
    ]);
}

#[test]
fn virtual_functions_are_made_and_taken_away() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.root().join("sys/bus/pci/devices/0000:01:10.0")).unwrap();
    let before = machine.state();
    let arguments = "sriov-vfs eth0 2 --mac 02:00:00:00:0f:ff --vlan 100 --trust on --spoofchk off";
    let (status, said) = machine.run(&format!("{arguments} --dry-run"));
    let pf = "/sys/bus/pci/devices/0000:01:00.0";
    let make = format!(
        "echo 0 > {pf}/sriov_drivers_autoprobe\necho 2 > {pf}/sriov_numvfs\necho 1 > {pf}/sriov_drivers_autoprobe\n"
    );
    let set = "ip link set dev eth0 up
ip link set dev eth0 vf 0 mac 02:00:00:00:0f:ff
ip link set dev eth0 vf 0 vlan 100
ip link set dev eth0 vf 0 trust on
ip link set dev eth0 vf 0 spoofchk off
ip link set dev eth0 vf 1 mac 02:00:00:00:10:00
ip link set dev eth0 vf 1 vlan 100
ip link set dev eth0 vf 1 trust on
ip link set dev eth0 vf 1 spoofchk off
";
    assert_eq!((status, said), (0, format!("{make}{set}")));
    assert_eq!((machine.state(), machine.commands().as_str()), (before.clone(), ""), "a dry run");

    let table = "VF   ADDRESS        DRIVER\n0    0000:01:10.0   \n1    0000:01:10.1   \n";
    let (status, said) = machine.run(arguments);
    assert_eq!((status, said), (0, format!("{make}{set}{table}")));
    assert_eq!(machine.commands(), set);
    let once = machine.state();
    let (status, said) = machine.run(arguments);
    assert_eq!((status, said), (0, format!("eth0 (0000:01:00.0) has 2 VFs already\n{set}{table}")));
    assert_eq!((machine.state(), machine.commands().as_str()), (once, set), "the same a second time");

    let (status, said) = machine.run("sriov-vfs eth0 0");
    assert_eq!((status, said), (0, format!("echo 0 > {pf}/sriov_numvfs\n")));
    assert_eq!(machine.state(), before);
    let (_, said) = machine.run("sriov-vfs eth0");
    assert_eq!(said, "eth0 (0000:01:00.0): 0 of 7 VFs\n");
}

#[test]
fn drivers_are_looked_for_again_after_an_interruption() {
    let machine = Machine::new();
    fs::remove_dir_all(machine.root().join("sys/bus/pci/devices/0000:01:10.0")).unwrap();
    machine.write("interrupts", "");
    let command = machine.command("sriov-vfs eth0 2", &[]).output().unwrap();
    assert!(!command.status.success());
    let pf = "sys/bus/pci/devices/0000:01:00.0";
    assert_eq!(machine.text(&format!("{pf}/sriov_drivers_autoprobe")), "1");
    assert_eq!(machine.text(&format!("{pf}/sriov_numvfs")), "2");
}

#[test]
fn virtual_functions_that_cannot_be_or_are_in_use_are_refused() {
    let two = |machine: &Machine| assert_eq!(machine.run("sriov-vfs eth0 2").0, 0);
    let without_vf =
        |machine: &Machine| fs::remove_dir_all(machine.root().join("sys/bus/pci/devices/0000:01:10.0")).unwrap();
    assert_refused(&[
        ("sriov-vfs", UNCHANGED, "say which interface"),
        ("sriov-vfs eth0 two", UNCHANGED, "two is no number of VFs"),
        ("sriov-vfs eth0 2 --mac 02:00", UNCHANGED, "02:00 is no MAC address"),
        ("sriov-vfs eth0 2 --mac 03:00:00:00:00:01", UNCHANGED, "03:00:00:00:00:01 is a group's address"),
        ("sriov-vfs eth0 2 --vlan 4095", UNCHANGED, "4095 is no VLAN"),
        ("sriov-vfs eth0 2 --trust yes", UNCHANGED, "--trust is on or off, not yes"),
        ("sriov-vfs eth0 2 --trust", UNCHANGED, "--trust needs a value"),
        ("sriov-vfs eth0 0 --trust on", UNCHANGED, "there are no VFs to say anything of"),
        ("sriov-vfs eth0 2 --qos 1", UNCHANGED, "unknown argument --qos"),
        ("sriov-vfs eth7 2", UNCHANGED, "eth7 is neither"),
        (
            "sriov-vfs eth1 2",
            UNCHANGED,
            "eth1 (0000:01:10.0) cannot be divided: the card or its driver igbvf has no SR-IOV",
        ),
        (
            "sriov-vfs eth1 2",
            |machine| machine.link("sys/bus/pci/devices/0000:01:10.0/physfn", "../0000:01:00.0"),
            "eth1 (0000:01:10.0) is itself a virtual function; its NIC is 0000:01:00.0",
        ),
        ("sriov-vfs eth0 08", UNCHANGED, "eth0 (0000:01:00.0) can have 7 VFs, not 8 (sriov_totalvfs;"),
        (
            "sriov-vfs eth0 2",
            |machine| machine.write("refuses-vfs", ""),
            "eth0 (0000:01:00.0) makes no VFs: the kernel's log says why",
        ),
        (
            "sriov-vfs 0000:02:00.0 2 --trust on",
            |machine| {
                machine.device("0000:02:00.0", "vfio-pci", "", 0);
                machine.write("sys/bus/pci/devices/0000:02:00.0/sriov_totalvfs", "7");
            },
            "has no interface of the kernel to set its VFs by",
        ),
    ]);
    for (command, bound, sentence) in [
        ("sriov-vfs eth0 3", false, "has 2 VFs, and all of them go when their number changes"),
        ("sriov-vfs eth0 0", true, "the VF 0000:01:10.0 is bound to vfio-pci"),
    ] {
        let machine = Machine::new();
        without_vf(&machine);
        two(&machine);
        if bound {
            machine.write("sys/bus/pci/drivers/vfio-pci/unbind", "");
            machine.link("sys/bus/pci/devices/0000:01:10.0/driver", "../../drivers/vfio-pci");
        }
        let before = machine.state();
        let (status, said) = machine.run(command);
        assert!(status == 1 && said.contains(sentence), "{said}");
        assert_eq!(machine.state(), before);
        let (status, said) = machine.run(&format!("{command} --force"));
        assert_eq!(
            (status, machine.text("sys/bus/pci/devices/0000:01:00.0/sriov_numvfs").as_str()),
            (0, &command[15..]),
            "{said}"
        );
    }
    let machine = Machine::new();
    without_vf(&machine);
    machine.write("refuses-ip", "");
    let (status, said) = machine.run("sriov-vfs eth0 1 --trust on");
    assert!(status != 0 && said.contains("ip link set dev eth0 up"), "{said}");
}

#[test]
fn nothing_real_is_changed_without_root() {
    // Where a user finds them who gave root up.
    let machine = Machine::new();
    for file in ["bind", "hugepages", "sriov-vfs", "lib/common.sh", "lib/setup.sh"] {
        let copy = machine.scratch.join("scripts").join(file);
        fs::create_dir_all(copy.parent().unwrap()).unwrap();
        fs::copy(Path::new(SCRIPTS).join(file), copy).unwrap();
    }
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    for script in ["bind vfio-pci eth0", "bind --kernel eth0", "hugepages 1024M", "sriov-vfs eth0 2"] {
        let command = format!("{}/scripts/{script}", machine.scratch.display());
        let user = if is_root { "setpriv --reuid 65534 --regid 65534 --clear-groups " } else { "" };
        let output = Command::new("sh").args(["-c", &format!("{user}{command}")]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && said.contains(": this needs root (sudo "), "{script}: {said}");
        assert_eq!(output.stdout, b"", "{script}");
    }
}

#[test]
fn each_script_explains_itself() {
    for script in ["bind", "hugepages", "sriov-vfs"] {
        let (status, said) = Machine::new().run(&format!("{script} --help"));
        assert!(status == 0 && said.contains(&format!("scripts/{script} ")) && said.contains("--dry-run"), "{said}");
    }
}
