//! A device as its bus knows it, which it is found by when it was away.

use crate::Errno;
use crate::port_info::{PortId, control};
use crate::started::Claim;
use dpdk_sys as sys;
use std::ffi::{CStr, c_char};
use std::fmt;
use std::path::Path;

/// Bus, name and arguments of a device.
#[derive(Clone)]
pub(crate) struct Device(Box<sys::shim_device>);

impl Device {
    pub(crate) fn of_port(port: PortId) -> Result<Self, Errno> {
        let _control = control();
        let mut device = Box::new(sys::shim_device { bus: [0; _], name: [0; _], arguments: [0; _], port: [0; _] });
        // SAFETY: any id may be asked about; `device` is ours.
        Errno::check(unsafe { sys::shim_port_device(port.0, &raw mut *device) })?;
        Ok(Self(device))
    }

    /// Takes the device of a stopped port away from its driver, and the port's number from the claim.
    ///
    /// # Errors
    ///
    /// Also `EBUSY` when the device has other ports.
    pub(crate) fn detach(claim: &mut Claim) -> Result<(), Errno> {
        // Held until the number is nobody's: the next device to come gets it.
        let _control = control();
        // SAFETY: the port is claimed and stopped, so nobody uses it or will; the shim sees to it that
        // the device has no other.
        Errno::check(unsafe { sys::shim_device_remove(claim.port().0) })?;
        claim.leave();
        Ok(())
    }

    /// Looks for the device and gives it to its driver. The claim is for the port that it is now.
    pub(crate) fn attach(&self, claim: &mut Claim) -> Result<(), Errno> {
        // DPDK logs an error when it does not find it, and this is asked again and again.
        if self.bus() == "pci" && !Path::new("/sys/bus/pci/devices").join(self.name()).exists() {
            return Err(Errno(libc::ENODEV));
        }
        let _control = control();
        let mut port = 0;
        // SAFETY: the shim has written NUL-terminated text into each part; `port` is ours.
        Errno::check(unsafe { sys::shim_device_add(&raw const *self.0, &raw mut port) })?;
        if claim.come_as(PortId(port)) { Ok(()) } else { Err(Errno(libc::EBUSY)) }
    }

    fn bus(&self) -> String {
        text(&self.0.bus)
    }

    fn name(&self) -> String {
        text(&self.0.name)
    }
}

fn text(chars: &[c_char]) -> String {
    // SAFETY: the shim NUL-terminates what it writes, and what it does not write is zero.
    unsafe { CStr::from_ptr(chars.as_ptr()) }.to_string_lossy().into_owned()
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device").field("bus", &self.bus()).field("name", &self.name()).finish_non_exhaustive()
    }
}
