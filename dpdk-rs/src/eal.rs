//! The environment abstraction layer: DPDK itself, started once.

use crate::launch::{self, Lcore};
use crate::packet_capture::PacketCapture;
use crate::port_info::{PortId, PortInfo};
use crate::running::Running;
use crate::version::Version;
use crate::{Errno, annotation, log_sink, virtual_function};
use std::cell::Cell;
use std::ffi::{CString, c_char, c_int};
use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};

/// Why the EAL did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EalError {
    /// There was an [`Eal`] in this process already; also after it was dropped.
    #[error("the EAL was initialised before in this process, and DPDK allows it once")]
    AlreadyInitialised,
    /// The dynamic linker found a DPDK that the program was not built for.
    #[error(
        "this program was built with the headers of DPDK {headers}, but DPDK {loaded} is loaded, \
         whose ABI differs: build it again on this machine, or point the loader (LD_LIBRARY_PATH) to DPDK {headers}"
    )]
    WrongLibrary {
        /// The headers' release.
        headers: Version,
        /// The loaded library's release.
        loaded: Version,
    },
    /// An argument has a zero byte, which C cannot take.
    #[error("the EAL argument {0:?} has a zero byte in it")]
    ZeroByte(String),
    /// Something before `--` that the EAL has no use for.
    #[error("the EAL does not know what to do with the argument {0:?}; the program's own arguments come after \"--\"")]
    UnexpectedArgument(String),
    /// No hugepage is free, or hugetlbfs is not mounted.
    #[error(
        "no free hugepages: reserve some as root (sysctl -w vm.nr_hugepages=512), give the EAL argument \
         --in-memory if hugetlbfs is not mounted, or --no-huge to do without them"
    )]
    NoHugepages,
    /// Another program holds the same runtime directory.
    #[error("another DPDK program is running under the same --file-prefix ({0}): give this one another --file-prefix")]
    PrefixInUse(String),
    /// One device is asked for twice; the EAL would ignore what the second says of it.
    #[error("the command line asks for the device {0:?} twice")]
    DeviceTwice(String),
    /// A device that the command line asks for is not there after the start.
    #[error("the device {name:?} that the command line asks for did not start{}", reasons(.log))]
    NoSuchDevice {
        /// As on the command line.
        name: String,
        /// What DPDK said.
        log: Vec<String>,
    },
    /// A device that the command line asks for needs a privilege that the process lacks.
    #[error("the device {name} needs {capability}: run this as root, or give it that capability (setcap)")]
    NoPermission {
        /// As on the command line.
        name: String,
        /// Such as `CAP_NET_ADMIN`.
        capability: &'static str,
    },
    /// `--proc-type` asks for a secondary process.
    #[error("secondary processes are not supported: leave --proc-type out")]
    Secondary,
    /// Anything else, in DPDK's own words.
    #[error("the EAL did not start{}", if .log.is_empty() { format!(": {errno}") } else { reasons(.log) })]
    Init {
        /// The error number.
        errno: Errno,
        /// What DPDK said.
        log: Vec<String>,
    },
}

/// What DPDK said, as the end of a sentence: each thing once, and what says nothing only
/// if there is nothing else.
fn reasons(log: &[String]) -> String {
    const HOLLOW: [&str; 6] = [
        "Invalid 'command line' arguments",
        "failed to initialize",
        "probe failed",
        // Of sizes that the machine has none of, and of a telemetry that nobody asked for.
        "hugepages reported on node",
        "No legacy callbacks",
        "cannot be used",
    ];
    let mut told: Vec<&str> = Vec::new();
    for line in log.iter().map(|line| line.trim().trim_end_matches('.')) {
        if !told.contains(&line) {
            told.push(line);
        }
    }
    let hollow = |line: &&str| HOLLOW.iter().any(|text| line.contains(text));
    if !told.iter().all(hollow) {
        told.retain(|line| !hollow(line));
    }
    if told.is_empty() { String::new() } else { format!(": {}", told.join("; ")) }
}

/// DPDK, started. There is one per process, it stays on the thread that made it (the
/// main lcore), and it cleans up when it goes, unless a port, pool or ring is still
/// there: then it leaves DPDK as it is and says so in the log.
///
/// ```compile_fail,E0277
/// # let (eal, _) = dpdk_rs::Eal::init(std::env::args()).unwrap();
/// std::thread::spawn(move || drop(eal)); // the EAL stays where it is
/// ```
pub struct Eal {
    running: Arc<Running>,
    affinity: launch::Affinity,
    /// How many scopes are open: while one is, lcores may be at work.
    scopes: Cell<u32>,
    capture: Option<PacketCapture>,
    /// Not `Send`, not `Sync`: rte_eal_cleanup and launching belong to the main lcore.
    _main_thread: PhantomData<*const ()>,
}

impl Eal {
    /// Starts DPDK with the arguments up to the first `--` (the first is the program's
    /// name) and returns the name and what follows `--` for the program itself. The EAL
    /// answers `--help` among them itself and ends the process.
    ///
    /// The EAL pins the calling thread to the main lcore's CPU; threads made by
    /// [`Scope::control`](crate::Scope::control) get the affinity from before. While the
    /// EAL starts, stdout and stderr of the process are put aside.
    ///
    /// The arguments are trusted: they can tell DPDK to load any library (`-d`), or to let
    /// two devices share one queue (net_ring's `nodeaction`).
    ///
    /// # Errors
    ///
    /// [`EalError`] says what is missing. Also when a device asked for by `--vdev` or `-a`
    /// did not appear: the EAL itself reports success then.
    pub fn init(args: impl IntoIterator<Item = String>) -> Result<(Self, Vec<String>), EalError> {
        static STARTED: AtomicBool = AtomicBool::new(false);

        let loaded = Version::loaded();
        if !loaded.can_stand_for(Version::HEADERS) {
            return Err(EalError::WrongLibrary { headers: Version::HEADERS, loaded });
        }
        let (ours, rest) = split(args);
        let c_strings = c_strings(&with_logs(&ours))?;
        let argc = c_int::try_from(c_strings.len()).unwrap_or(c_int::MAX);
        if ours.iter().any(|arg| arg == "secondary" || arg == "--proc-type=secondary") {
            // Without a primary process that it finds, it would wait for one for ever.
            return Err(EalError::Secondary);
        }
        if STARTED.swap(true, Ordering::SeqCst) {
            return Err(EalError::AlreadyInitialised);
        }

        let affinity = launch::Affinity::current();
        log_sink::install();
        let mut argv: Vec<*mut c_char> =
            c_strings.into_iter().map(CString::into_raw).chain([ptr::null_mut()]).collect();
        let mut said = vec![0_u8; if asks_for_help(&ours) { 0 } else { 16 * 1024 }];
        // SAFETY: `argv` has argc strings and a null after them, all leaked: the EAL keeps
        // pointers into them. The flag above makes this the process's only call.
        let consumed =
            unsafe { dpdk_sys::shim_eal_init(argc, argv.as_mut_ptr(), said.as_mut_ptr().cast(), said.len()) };
        let errno = Errno::last();
        let said = lines_said(&said, &ours[0]);
        if consumed < 0 {
            return Err(start_error(errno, said.into_iter().chain(log_sink::explain()).collect(), &ours));
        }
        let mut eal =
            Self { running: Arc::default(), affinity, scopes: Cell::new(0), capture: None, _main_thread: PhantomData };
        // From here on a failure drops `eal`, which cleans up; the log would hide its sentence.
        // SAFETY: the EAL is up.
        if unsafe { dpdk_sys::rte_eal_process_type() } != dpdk_sys::rte_proc_type_t::RTE_PROC_PRIMARY {
            log_sink::explain();
            return Err(EalError::Secondary);
        }
        let consumed = usize::try_from(consumed).unwrap_or_default();
        if let Some(left) = argv.get(consumed + 1).filter(|left| !left.is_null()) {
            // SAFETY: getopt permutes our own strings and nothing else (eal_parse_args).
            let left = unsafe { std::ffi::CStr::from_ptr(*left) };
            log_sink::explain();
            return Err(EalError::UnexpectedArgument(left.to_string_lossy().into_owned()));
        }
        let names = devices(&ours);
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|n| n == *name)) {
            return Err(EalError::DeviceTwice(twice.1.clone()));
        }
        for name in names {
            let c_name = CString::new(name.as_str()).map_err(|_| EalError::ZeroByte(name.clone()))?;
            // SAFETY: the EAL is up and the name is NUL-terminated.
            if !unsafe { dpdk_sys::shim_device_is_probed(c_name.as_ptr()) } {
                let obstacle = driver_obstacle(Path::new("/sys/bus/pci"), &name);
                let log = obstacle.into_iter().chain(said).chain(log_sink::explain()).collect();
                return Err(match missing_capability(&name) {
                    Some(capability) => EalError::NoPermission { name, capability },
                    None => EalError::NoSuchDevice { name, log },
                });
            }
        }
        if let Err(errno) = annotation::register() {
            return Err(EalError::Init { errno, log: log_sink::explain() });
        }
        // SAFETY: the EAL is up, and the `Eal` lets it go before it cleans up.
        eal.capture = unsafe { PacketCapture::offer(&ours) };
        log_sink::release();
        for line in said {
            log::warn!(target: "dpdk", "{line}");
        }
        Ok((eal, rest))
    }

    /// The Ethernet devices that are there, in the order of their ids; not those that
    /// another device (a bond) has made its own.
    pub fn ports(&self) -> impl Iterator<Item = PortId> + use<> {
        // SAFETY: the EAL is up; any id may be asked about.
        let next = |from: u16| unsafe { dpdk_sys::shim_next_port(from) };
        let mut ports = Vec::new();
        let mut from = 0;
        loop {
            let id = next(from);
            if u32::from(id) >= dpdk_sys::RTE_MAX_ETHPORTS {
                // Asked for now, as the iterator may outlive the EAL.
                return ports.into_iter();
            }
            ports.push(PortId(id));
            from = id + 1;
        }
    }

    /// The port of this name: a vdev's name (`net_tap0`) or a PCI address (`0000:01:00.0`).
    #[must_use]
    pub fn port_by_name(&self, name: &str) -> Option<PortId> {
        self.ports().find(|port| PortInfo::new(self, *port).is_ok_and(|info| info.name == name))
    }

    /// The lcores of the command line (`-l`, `--lcores`), the main one first.
    #[must_use]
    pub fn lcores(&self) -> Vec<Lcore> {
        launch::lcores(self)
    }

    pub(crate) fn running(&self) -> &Arc<Running> {
        &self.running
    }

    pub(crate) fn affinity(&self) -> &launch::Affinity {
        &self.affinity
    }

    pub(crate) fn scopes(&self) -> &Cell<u32> {
        &self.scopes
    }

    /// Closes every device that no [`Port`](crate::Port) uses; its queues give their packets back.
    fn close_ports(&self) {
        let claimed = self.running.claimed.lock().unwrap_or_else(PoisonError::into_inner);
        for port in self.ports().filter(|port| !claimed.contains(port)) {
            // SAFETY: the port exists and, not being claimed, is stopped and without queues.
            let code = unsafe { dpdk_sys::rte_eth_dev_close(port.0) };
            if let Err(errno) = Errno::check(code) {
                log::warn!("{port} did not close: {errno}");
            }
        }
    }

    /// Frees retired pools whose packets are all home, if no lcore can be at work.
    pub(crate) fn free_retired_pools(&self) {
        if self.scopes.get() > 0 {
            return;
        }
        // SAFETY: lcores work inside of scopes only, and none is open.
        unsafe { self.running.free_retired() };
    }
}

impl Drop for Eal {
    fn drop(&mut self) {
        log_sink::release();
        self.close_ports();
        self.free_retired_pools();
        let Some(running) = Arc::get_mut(&mut self.running) else {
            log::warn!("DPDK is left running: a port, a pool, a ring or a table is still in use");
            return;
        };
        // Some may have been retired on another thread since.
        // SAFETY: lcores work inside of scopes only, which borrow the `Eal`.
        unsafe { running.free_retired() };
        let retired = running.retired.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(pool) = retired.first() {
            log::warn!("DPDK is left running: {} are still in use", pool.describe());
            // Their memory must outlive them.
            return;
        }
        drop(self.capture.take());
        // SAFETY: this is the thread that started the EAL (`Eal` is not `Send`), and nothing
        // of DPDK's is in use: ports, pools and rings would hold `running`, and a packet
        // that is out would have kept its pool among the retired.
        unsafe { dpdk_sys::rte_eal_cleanup() };
    }
}

impl fmt::Debug for Eal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Eal").field("lcores", &self.lcores()).finish_non_exhaustive()
    }
}

/// The EAL's arguments, which are at least the program's name, and the program's own.
fn split(args: impl IntoIterator<Item = String>) -> (Vec<String>, Vec<String>) {
    let mut args = args.into_iter();
    let name = args.next().unwrap_or_else(|| "dpdk-rs".to_owned());
    let ours = std::iter::once(name.clone()).chain(args.by_ref().take_while(|arg| arg != "--")).collect();
    (ours, std::iter::once(name).chain(args).collect())
}

/// The same, and before those of the user, which count for more, what makes drivers say what is listened to.
fn with_logs(args: &[String]) -> Vec<String> {
    let levels = virtual_function::LOGS.map(|log| format!("--log-level={log}:info"));
    let (name, rest) = args.split_at(1.min(args.len()));
    name.iter().cloned().chain(levels).chain(rest.iter().cloned()).collect()
}

fn c_strings(args: &[String]) -> Result<Vec<CString>, EalError> {
    args.iter().map(|arg| CString::new(arg.as_str()).map_err(|_| EalError::ZeroByte(arg.clone()))).collect()
}

fn asks_for_help(args: &[String]) -> bool {
    args.iter().skip(1).any(|arg| arg == "-h" || arg == "--help")
}

/// What the EAL wrote past its log, without what it puts before it and without its usage.
fn lines_said(said: &[u8], program: &str) -> Vec<String> {
    let text = String::from_utf8_lossy(said);
    let text = text.split('\0').next().unwrap_or_default();
    text.lines()
        .take_while(|line| !line.starts_with("Usage:"))
        // Logged too, without the word.
        .filter(|line| !line.starts_with("EAL: FATAL:"))
        .map(|line| line.trim().trim_start_matches(program).trim_start_matches(": ").to_owned())
        .filter(|line| !line.is_empty())
        .collect()
}

/// What a device of this name needs that the process does not have.
fn missing_capability(device: &str) -> Option<&'static str> {
    // Numbers from linux/capability.h.
    let (number, capability) = match device {
        name if name.starts_with("net_tap") || name.starts_with("net_tun") => (12, "CAP_NET_ADMIN"),
        name if name.starts_with("net_af_packet") => (13, "CAP_NET_RAW"),
        name if name.starts_with("net_af_xdp") => (12, "CAP_NET_ADMIN"),
        _ => return None,
    };
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    let effective = u64::from_str_radix(effective.trim(), 16).ok()?;
    (effective & (1 << number) == 0).then_some(capability)
}

/// Why DPDK cannot have a PCI device, as far as its driver says.
fn driver_obstacle(sysfs: &Path, device: &str) -> Option<String> {
    // Those of user space, and those that share their device with it.
    const FIT: [&str; 6] = ["vfio-pci", "uio_pci_generic", "igb_uio", "mlx4_core", "mlx5_core", "mana"];
    let is_address = |name: &str| name.split([':', '.']).map(str::len).eq([4, 2, 2, 1]);
    let directory = Some(sysfs.join("devices").join(device)).filter(|_| is_address(device))?;
    if !directory.exists() {
        return Some("there is no PCI device of this address".to_owned());
    }
    let Ok(driver) = directory.join("driver").read_link() else {
        return Some("no driver has it: give it to vfio-pci, or without an IOMMU to uio_pci_generic".to_owned());
    };
    let driver = driver.file_name()?.to_str().filter(|driver| !FIT.contains(driver))?;
    Some(format!("the kernel's driver {driver} has it: give it to vfio-pci"))
}

/// The names of the devices that the arguments ask for.
fn devices(args: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        let device = match arg.split_once('=') {
            Some(("--vdev" | "--allow", device)) => Some(device),
            _ => match arg.as_str() {
                "--vdev" | "--allow" | "-a" => args.next().map(String::as_str),
                short => short.strip_prefix("-a").filter(|device| !device.is_empty()),
            },
        };
        if let Some(device) = device {
            let mut parts = device.split([',', '/']);
            let name = match device.starts_with("bus=") {
                // The long way to write it: bus=pci,addr=0000:01:00.0/class=eth
                true => parts.find_map(|part| part.strip_prefix("name=").or_else(|| part.strip_prefix("addr="))),
                false => parts.next(),
            };
            let name = name.unwrap_or_default();
            let bus = ["pci:", "vdev:", "auxiliary:", "vmbus:"].into_iter().find(|bus| name.starts_with(bus));
            let name = name.strip_prefix(bus.unwrap_or_default()).unwrap_or(name);
            let pci = name.chars().all(|c| c.is_ascii_hexdigit() || c == ':' || c == '.');
            names.push(match name.rsplit_once('.').filter(|_| pci).map(|(slot, _)| slot.split(':').count()) {
                // PCI addresses may leave out the domain: 01:00.0 for 0000:01:00.0.
                Some(2) => format!("0000:{}", name.to_lowercase()),
                Some(3) => name.to_lowercase(),
                _ => name.to_owned(),
            });
        }
    }
    names
}

/// What the log says about a start that failed, as a sentence where we know one.
fn start_error(errno: Errno, log: Vec<String>, args: &[String]) -> EalError {
    let says = |text: &str| log.iter().any(|line| line.contains(text));
    if says("Is another primary process running") {
        let prefix = args
            .iter()
            .position(|arg| arg == "--file-prefix")
            .and_then(|at| args.get(at + 1).cloned())
            .or_else(|| args.iter().find_map(|arg| arg.strip_prefix("--file-prefix=").map(str::to_owned)));
        return EalError::PrefixInUse(prefix.unwrap_or_else(|| "rte, the default".to_owned()));
    }
    if says("Cannot get hugepage information") || says("hugepages reported") || says("No mounted hugetlbfs found") {
        return EalError::NoHugepages;
    }
    EalError::Init { errno, log }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_in_every_way_to_write_them() {
        let args = [
            "prog",
            "-l",
            "0",
            "--vdev=net_null0,size=64",
            "--vdev",
            "net_tap0",
            "-a",
            "01:00.0,x=1",
            "-a0000:02:00.0",
            "--allow=03:00.1",
            "-a",
            "0000:0A:00.0",
            "--vdev=vdev:net_ring0",
            "--vdev=bus=vdev,name=net_null1/class=eth",
            "--no-pci",
        ];
        let args: Vec<String> = args.map(str::to_owned).to_vec();
        assert_eq!(
            devices(&args),
            [
                "net_null0",
                "net_tap0",
                "0000:01:00.0",
                "0000:02:00.0",
                "0000:03:00.1",
                "0000:0a:00.0",
                "net_ring0",
                "net_null1"
            ]
        );
    }

    #[test]
    fn the_first_double_dash_after_the_name_ends_the_eals_arguments() {
        for (args, ours, rest) in [
            ("", "dpdk-rs", "dpdk-rs"),
            ("prog", "prog", "prog"),
            ("--", "--", "--"),
            ("prog -l 0 -- --config x -- y", "prog -l 0", "prog --config x -- y"),
        ] {
            let (o, r) = split(args.split_whitespace().map(str::to_owned));
            assert_eq!((o.join(" ").as_str(), r.join(" ").as_str()), (ours, rest), "{args:?}");
        }
    }

    #[test]
    fn what_the_eal_says_becomes_one_sentence() {
        let said = b"./x/prog: unrecognized option '--y'\n./x/prog: unrecognized option '--y'\n\n\
                     EAL: FATAL: Invalid 'command line' arguments.\nUsage: prog\n  -c MASK\0\0";
        let mut lines = lines_said(said, "./x/prog");
        lines.push("EAL: Invalid 'command line' arguments.".to_owned());
        assert_eq!(reasons(&lines), ": unrecognized option '--y'");
        assert_eq!(reasons(&lines[2..]), ": EAL: Invalid 'command line' arguments");
        assert_eq!(reasons(&[]), "");
        let said = [
            "EAL: No free 1048576 kB hugepages reported on node 0",
            "TELEMETRY: No legacy callbacks",
            "EAL: 0000:02:10.0 VFIO group is not viable!",
            "EAL: Requested device 0000:02:10.0 cannot be used",
        ];
        assert_eq!(reasons(&said.map(str::to_owned)), ": EAL: 0000:02:10.0 VFIO group is not viable!");
    }

    #[test]
    fn a_device_without_a_driver_of_user_space_is_told_by_its_driver() {
        let sysfs = std::env::temp_dir().join(format!("dpdk-rs-drivers-{}", std::process::id()));
        for (slot, driver) in [("10.0", Some("igb")), ("10.1", Some("vfio-pci")), ("10.2", None)] {
            let device = sysfs.join("devices").join(format!("0000:01:{slot}"));
            std::fs::create_dir_all(&device).unwrap();
            if let Some(driver) = driver {
                std::os::unix::fs::symlink(format!("../../drivers/{driver}"), device.join("driver")).unwrap();
            }
        }
        for (device, expected) in [
            ("0000:01:10.0", Some("the kernel's driver igb has it: give it to vfio-pci")),
            ("0000:01:10.1", None),
            ("0000:01:10.2", Some("no driver has it: give it to vfio-pci, or without an IOMMU to uio_pci_generic")),
            ("0000:01:10.3", Some("there is no PCI device of this address")),
            ("net_tap0", None),
        ] {
            assert_eq!(driver_obstacle(&sysfs, device).as_deref(), expected, "{device}");
        }
        std::fs::remove_dir_all(sysfs).unwrap();
    }
}
