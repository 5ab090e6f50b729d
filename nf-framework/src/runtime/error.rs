//! Why a program does not run, or a command is not carried out.

use crate::function::SetupError;
use crate::kernel::KernelError;
use crate::mailbox::WorkerStopped;
use crate::router::RouterError;
use crate::steering::{Affinity, AffinityConflict};
use dpdk_rs::{LaunchError, MempoolError, PortBlocksError, PortError, RingError, RssError};

/// Why a program does not run, or did not go on running.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// A port of the configuration is not there.
    #[error("{key}: there is no port {name:?}; the EAL found {have} (give it more by -a or --vdev)")]
    NoSuchPort {
        /// The key that names it.
        key: String,
        /// As configured.
        name: String,
        /// Names of those that are there.
        have: String,
    },
    /// A port is named by a variable of the environment that does not name it.
    #[error("{key}: there is no port {name:?}: {why}")]
    NothingBehind {
        /// The key that names it.
        key: String,
        /// As configured.
        name: String,
        /// What the environment has in place of it.
        why: String,
    },
    /// A way to the kernel is an end of the chain too.
    #[error("{key}: the port {name:?} has another part already (give the kernel one of its own by --vdev=net_tap2)")]
    HostPort {
        /// The key that names it.
        key: String,
        /// Its name.
        name: String,
    },
    /// There is no kernel at the other end of a way to the kernel.
    #[error("{key}: the port {name:?} is no interface of the kernel's (give it one by --vdev=net_tap2)")]
    NoKernelInterface {
        /// The key that names it.
        key: String,
        /// Its name.
        name: String,
    },
    /// Both ends are the same port.
    #[error("[ports] inside and outside are both {0:?}; leave outside away for a program with one port")]
    SamePort(String),
    /// The burst is out of range.
    #[error("burst: {0} packets at once are not possible, 1 to 64 are")]
    Burst(usize),
    /// The receive queues cannot be filled.
    #[error("packets: {have} are too few, the receive queues alone take {need} (or give [ports] descriptors fewer)")]
    TooFewPackets {
        /// As configured.
        have: u32,
        /// One for each receive descriptor.
        need: u32,
    },
    /// Queues without descriptors.
    #[error("[ports] descriptors: a queue needs at least one")]
    NoDescriptors,
    /// Fragments are to be remembered for longer than makes sense, or more or fewer of them.
    #[error("[fragments] {key}: {why}")]
    Fragments {
        /// Of the value that cannot be.
        key: &'static str,
        /// Why not.
        why: String,
    },
    /// More queues than the program has workers, or none.
    #[error("[ports] queues: {queues} are not possible with {workers} worker(s), 1 to {workers} are")]
    Queues {
        /// As configured.
        queues: u16,
        /// Workers, one for each lcore.
        workers: u16,
    },
    /// Two functions of the chain cannot both have what they need.
    #[error(transparent)]
    Affinity(#[from] AffinityConflict),
    /// Packets from inside and from outside arrive at one port, and cannot be told apart.
    #[error(
        "[ports] outside: missing, and the functions need {affinity} on one worker: with several workers that takes a \
         port for each side (give it, or run the program on one lcore)"
    )]
    OneSide {
        /// What they need.
        affinity: Affinity,
    },
    /// There is not something for each worker to own.
    #[error("{affinity}, shared out in {entries} part(s), is too little for {workers} workers (use fewer lcores)")]
    TooFewShares {
        /// What the functions need on one worker.
        affinity: Affinity,
        /// Parts.
        entries: u16,
        /// Workers, one for each lcore.
        workers: u16,
    },
    /// The router cannot work with these ports.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The kernel's addresses and routes cannot be followed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A function wants its ports in blocks of which there are too few.
    #[error(transparent)]
    PortBlocks(#[from] PortBlocksError),
    /// A device does not spread packets as it is told, and nothing else was allowed.
    #[error("{0} (steering = \"auto\" under [ports] hands packets over between workers instead)")]
    Rss(RssError),
    /// There is no memory for the rings between workers.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Two functions of one name: nobody could tell their tables and counters apart.
    #[error("there are two functions called {0:?}")]
    TwoFunctions(String),
    /// A port cannot be as a key of the configuration says.
    #[error("{key}: {error}")]
    PortSetting {
        /// The key.
        key: &'static str,
        /// What the device takes.
        error: PortError,
    },
    /// A wire on a port that sees no frames but its own.
    #[error(
        "forwarding = \"wire\": the port {port} ({driver}) is a virtual function, which gets only frames for its own \
         MAC address, so the wire would carry nothing (use forwarding = \"router\", or have promiscuous mode granted \
         on the hypervisor by `ip link set PF vf N trust on spoofchk off` and say [ports] vf_promiscuous = true)"
    )]
    WireOnVirtualFunction {
        /// Its name.
        port: String,
        /// Its driver.
        driver: String,
    },
    /// A port does not start.
    #[error(transparent)]
    Port(PortError),
    /// There is no memory for packets.
    #[error(transparent)]
    Mempool(#[from] MempoolError),
    /// An lcore does not start.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// The control thread does not start.
    #[error("the control thread does not start: {0}")]
    Control(#[from] std::io::Error),
    /// Something ended before every worker was ready, and no worker says why.
    #[error("stopped before every worker was ready")]
    NotReady,
    /// A function's policy could not be built.
    #[error("the policy of {function} cannot be built: {error}")]
    Build {
        /// Its name.
        function: String,
        /// What it said.
        error: SetupError,
    },
    /// A function could not be set up.
    #[error("function {function} cannot be set up on worker {worker}: {error}")]
    Setup {
        /// Its name.
        function: String,
        /// Which worker.
        worker: usize,
        /// What it said.
        error: SetupError,
    },
    /// A worker panicked; the others were stopped.
    #[error("worker {worker} panicked: {message}")]
    WorkerPanicked {
        /// Which worker.
        worker: usize,
        /// The panic's message.
        message: String,
    },
}

impl From<PortError> for RuntimeError {
    fn from(error: PortError) -> Self {
        match error {
            PortError::Mtu { .. } => Self::PortSetting { key: "[ports] mtu", error },
            PortError::Descriptors { .. } => Self::PortSetting { key: "[ports] descriptors", error },
            error => Self::Port(error),
        }
    }
}

/// Why a command was not carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The router cannot work with the addresses that the policy has.
    #[error(transparent)]
    Router(#[from] RouterError),
    /// The chain has none of that name and type.
    #[error("the chain has no function {0:?} of this type")]
    NoSuchFunction(String),
    /// The policy needs other packets on one worker than the one that the program started with.
    #[error("the policy of {function} needs {new} on one worker in place of {old}: restart the program")]
    Affinity {
        /// The function.
        function: String,
        /// As started.
        old: Affinity,
        /// As asked.
        new: Affinity,
    },
    /// The policy could not be built.
    #[error("the policy of {function} cannot be built: {error}")]
    Build {
        /// The function.
        function: String,
        /// What it said.
        error: SetupError,
    },
    /// It has stopped, or is stopping.
    #[error(transparent)]
    WorkerStopped(#[from] WorkerStopped),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_does_not_take_is_named_with_its_key() {
        let (port, driver) = ("0000:0b:00.0".to_owned(), "net_vmxnet3".to_owned());
        let descriptors = PortError::Descriptors {
            port: port.clone(),
            driver: driver.clone(),
            kind: "transmit",
            min: 512,
            max: 4096,
            asked: 256,
        };
        let mtu = PortError::Mtu { port: port.clone(), driver, min: 60, max: 9000, mtu: 9500 };
        for (error, message) in [
            (
                descriptors,
                "[ports] descriptors: port 0000:0b:00.0 (net_vmxnet3) takes 512 to 4096 transmit descriptors, not 256",
            ),
            (mtu, "[ports] mtu: port 0000:0b:00.0 (net_vmxnet3) takes an MTU from 60 to 9000, not 9500"),
            (PortError::NoPool { port }, "port 0000:0b:00.0 was given no mempool to receive into"),
        ] {
            assert_eq!(RuntimeError::from(error).to_string(), message);
        }
    }
}
