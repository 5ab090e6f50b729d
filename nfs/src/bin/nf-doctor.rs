//! Says what is wrong with a machine, before DPDK is to blame.
#![forbid(unsafe_code)]
#![warn(clippy::print_stderr, clippy::print_stdout, reason = "they panic where nothing can be written")]

use clap::{CommandFactory as _, FromArgMatches as _, Parser};
use nf_framework::doctor::{Diagnosis, Doctor, Level};
use nfs::door::say_error;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// What is nf-doctor's own among the arguments.
#[derive(Debug, Parser)]
struct Options {
    /// Print all findings as JSON
    #[arg(long)]
    json: bool,

    /// Only look at files, and do not start DPDK on the devices
    #[arg(long)]
    files: bool,

    /// So much memory is needed, such as 300M or 2G (a program's --check says how much)
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    need: Option<u64>,
}

const HELP: &str = "\
Without arguments it looks at files: hugepages, IOMMU, drivers, devices, CPUs. That changes nothing, and
any user may do it. With the arguments that a program will give DPDK,

  nf-doctor -l 1 -a 0000:01:10.0

it looks at that device and these CPUs, and, if nothing stands in the way, starts DPDK on it: link, MAC, MTU,
offloads, queues, and whether RSS does what it says. So not while a program uses the device.

  -l 0-1                   the CPUs of the workers
  -a 0000:01:10.0          a device by its PCI address
  -a eth1                  the same by the kernel's interface, as long as the kernel has it
  --vdev=net_tap0          a virtual device
  --no-huge --no-shconf -m 256
                           without hugepages
The environment's PCIDEVICE_... (Kubernetes' SR-IOV device plugin) stand for -a. nf-chain --help says more.

Each finding has a level. FAULT: no program starts like this, or no packet goes through it. WARNING: it works,
but slower or otherwise than one may think. note: good to know.

The exit status is 0 without a fault, 1 with one, such as a device that is not there, and 2 if the arguments make no
sense whatever the machine is like.";

fn main() -> ExitCode {
    let (eal, own) = arguments();
    let command = Options::command()
        .name("nf-doctor")
        .bin_name("nf-doctor [EAL ARGUMENTS]")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Says what is wrong with a machine, before DPDK is to blame")
        .after_help(HELP);
    let matches = command.get_matches_from(std::iter::once("nf-doctor".to_owned()).chain(own));
    let options = Options::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());

    let doctor = options.need.into_iter().fold(Doctor::new(&eal), Doctor::need);
    let diagnosis = if options.files { doctor.examine(Path::new("/")) } else { doctor.examine_with_dpdk() };
    show(diagnosis, options.json)
}

/// Splits the arguments into the EAL's and our own, which may stand anywhere.
fn arguments() -> (Vec<String>, Vec<String>) {
    let (mut eal, mut own) = (Vec::new(), Vec::new());
    let mut words = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" | "--files" | "--help" | "-h" | "--version" | "-V" => own.push(word),
            "--need" => own.extend([Some(word), words.next()].into_iter().flatten()),
            "--" => own.extend(words.by_ref()),
            _ if word.starts_with("--need=") || word.starts_with("--json") || word.starts_with("--files") => {
                own.push(word)
            }
            _ => eal.push(word),
        }
    }
    if let Some(word) = eal.first().filter(|word| !word.starts_with('-')) {
        say_error(&format_args!("{word:?} is no argument of nf-doctor's: a device is named -a {word} (see --help)"));
        std::process::exit(2);
    }
    (eal, own)
}

fn show(diagnosis: Diagnosis, json: bool) -> ExitCode {
    let faults = diagnosis.count(Level::Fault);
    let mut stdout = std::io::stdout().lock();
    let text = if json {
        diagnosis.json() + "\n"
    } else {
        let is_plain =
            std::env::var_os("NO_COLOR").is_some() || std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        let colours = stdout.is_terminal() && !is_plain;
        diagnosis.coloured(colours).to_string()
    };
    // Nobody may be reading any more.
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    ExitCode::from(u8::from(faults > 0))
}

/// 300M, 2G.
fn bytes(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.strip_suffix(['M', 'G']) {
        Some(number) => (number, if text.ends_with('M') { 20 } else { 30 }),
        None => (text, 0),
    };
    let number: u64 = number.parse().map_err(|_| "an amount of memory such as 300M or 2G".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "more than any machine has".to_owned())
}
