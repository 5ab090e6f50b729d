//! What is wrong with a machine, before DPDK is to blame: for each thing what, why it matters, and
//! the command that mends it.
//!
//! ```no_run
//! use nf_framework::doctor::{Doctor, Level};
//!
//! let doctor = Doctor::new(&["-a".to_owned(), "0000:01:10.0".to_owned()]);
//! let diagnosis = doctor.examine("/".as_ref());
//! println!("{diagnosis}");
//! assert_eq!(diagnosis.count(Level::Fault), 0);
//! ```
//!
//! Files are all that [`Doctor::examine`] looks at: it changes nothing, and any user may do it;
//! [`Doctor::examine_with_dpdk`] looks at the devices too, as no file says what they do. Each
//! subject has a file here, with a function of the machine's files and of what is asked of it.

mod device;
mod drivers;
mod finding;
mod iommu;
mod links;
mod machine;
mod memory;
mod ports;
mod privileges;
mod processors;
mod request;
#[cfg(test)]
mod tests;
mod users;

pub use finding::{Diagnosis, Finding, Level};

use crate::eal_arguments;
use device::Device;
use drivers::PollModeDrivers;
use machine::Machine;
use request::Request;
use std::path::Path;

/// Looks at a machine for those who are going to run a DPDK program on it.
#[derive(Debug)]
pub struct Doctor {
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    need: Option<u64>,
}

impl Doctor {
    /// For a program with these arguments of the EAL's, without the program's name. Without any it is
    /// looked at what every program needs.
    #[must_use]
    pub fn new(arguments: &[String]) -> Self {
        Self { arguments: arguments.to_vec(), environment: eal_arguments::environment(), need: None }
    }

    /// How many bytes of hugepages the program needs, as its `--check` says.
    #[must_use]
    pub fn need(mut self, bytes: u64) -> Self {
        self.need = Some(bytes);
        self
    }

    /// Looks at the files of a machine, which has them under `root`.
    #[must_use]
    pub fn examine(&self, root: &Path) -> Diagnosis {
        Diagnosis::new(self.files(root).0)
    }

    /// Looks at the files of this machine, and then, if there are arguments and no fault, starts DPDK
    /// with them and looks at its ports: once in a process.
    #[must_use]
    pub fn examine_with_dpdk(&self) -> Diagnosis {
        let (mut findings, words) = self.files(Path::new("/"));
        if self.arguments.is_empty() {
            return Diagnosis::new(findings);
        }
        if findings.iter().any(|finding| finding.level == Level::Fault) {
            findings.push(
                Finding::note("eal", "eal-not-tried", "DPDK was not started, and the ports were not looked at")
                    .why("It would fail by what is a fault above, or get in the way of others."),
            );
        } else {
            findings.extend(ports::examine(&words));
        }
        Diagnosis::new(findings)
    }

    /// What files tell, and the arguments for the EAL.
    fn files(&self, root: &Path) -> (Vec<Finding>, Vec<String>) {
        let mut findings = Vec::new();
        let words = match eal_arguments::complete(root, &self.environment, &self.arguments) {
            Ok(completed) => {
                findings.extend(completed.notes.into_iter().map(|note| Finding::ok("arguments", "arguments", note)));
                completed.words
            }
            Err(error) => {
                findings.push(Finding::fault("arguments", "arguments-wrong", error.to_string()));
                self.arguments.clone()
            }
        };
        let request = Request { is_known: !self.arguments.is_empty(), ..Request::new(&words, self.need) };
        let patient = Patient::new(Machine::new(root), request);
        let subjects = [
            memory::examine,
            privileges::examine,
            iommu::examine,
            drivers::examine,
            users::examine,
            links::examine,
            processors::examine,
        ];
        findings.extend(subjects.into_iter().flat_map(|examine| examine(&patient)));
        (findings, words)
    }
}

/// A machine and what is asked of it.
#[derive(Debug)]
struct Patient {
    machine: Machine,
    request: Request,
    /// Network devices, and those asked for.
    devices: Vec<Device>,
    /// DPDK's, unless they cannot be found.
    drivers: Option<PollModeDrivers>,
}

impl Patient {
    fn new(machine: Machine, request: Request) -> Self {
        let devices = Device::all(&machine, &request.devices);
        let mut patient = Self { machine, request, devices, drivers: None };
        patient.drivers = PollModeDrivers::of(&patient);
        patient
    }
}
