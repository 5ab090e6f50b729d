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
//! Files are all that [`Doctor::examine`] looks at: it changes nothing, and any user may do it. Each
//! subject has a file here, with a function of the machine's files and of what is asked of it.

mod device;
mod drivers;
mod finding;
mod iommu;
mod links;
mod machine;
mod memory;
mod processors;
mod request;
#[cfg(test)]
mod tests;
mod users;

pub use finding::{Diagnosis, Finding, Level};

use device::Device;
use drivers::PollModeDrivers;
use machine::Machine;
use request::Request;
use std::path::Path;

/// Looks at a machine for those who are going to run a DPDK program on it.
#[derive(Debug)]
pub struct Doctor {
    arguments: Vec<String>,
    need: Option<u64>,
}

impl Doctor {
    /// For a program with these arguments of the EAL's, without the program's name. Without any it is
    /// looked at what every program needs.
    #[must_use]
    pub fn new(arguments: &[String]) -> Self {
        Self { arguments: arguments.to_vec(), need: None }
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
        Diagnosis::new(self.findings(root))
    }

    fn findings(&self, root: &Path) -> Vec<Finding> {
        let patient = Patient::new(Machine::new(root), Request::new(&self.arguments, self.need));
        [
            memory::examine,
            memory::privileges,
            iommu::examine,
            drivers::examine,
            users::examine,
            links::examine,
            processors::examine,
        ]
        .into_iter()
        .flat_map(|examine| examine(&patient))
        .collect()
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
