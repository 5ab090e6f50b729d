//! The framework's part of a configuration file.

use crate::fragments::FragmentsConfig;
use crate::operate::AdminConfig;
use crate::router::RouterConfig;
use serde::{Deserialize, Serialize};

/// The framework's part of a configuration file: everything outside of the functions' tables.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RuntimeConfig {
    /// The functions in order, from inside to outside. May be left out by a program that
    /// has one function.
    pub chain: Option<Vec<String>>,
    /// What becomes of packets that no function decided about. Nothing is forwarded unless
    /// this says so.
    pub forwarding: Option<ForwardingKind>,
    /// The host's addresses and routes, for `forwarding = "router"`.
    pub router: Option<RouterConfig>,
    /// Which port is which end of the chain.
    pub ports: PortsConfig,
    /// Packets received at once, 1 to 64.
    #[serde(default = "usual_burst")]
    pub burst: usize,
    /// Packets in the pool; enough for every queue and worker unless given.
    pub packets: Option<u32>,
    /// What is remembered of packets that come in fragments.
    #[serde(default)]
    pub fragments: FragmentsConfig,
    /// By what the running program is looked at and told what to do.
    #[serde(default)]
    pub admin: AdminConfig,
}

fn usual_burst() -> usize {
    dpdk_rs::Burst::USUAL
}

impl RuntimeConfig {
    /// The router, if that is what stands around the chain.
    pub(super) fn routed(&self) -> Option<&RouterConfig> {
        self.router.as_ref().filter(|_| self.forwarding == Some(ForwardingKind::Router))
    }
}

/// The two ends of the chain.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct PortsConfig {
    /// A device's name: `net_tap0`, or a PCI address such as `0000:01:00.0`.
    pub inside: String,
    /// The other device. Without it the program has one port: all packets come from inside,
    /// and what is forwarded leaves by the port that it came in by.
    pub outside: Option<String>,
    /// MTU of both, in bytes; the devices' own unless given.
    pub mtu: Option<u16>,
    /// Descriptors of every queue; about 1024, as the device takes them, unless given.
    pub descriptors: Option<u16>,
    /// Queues of every port; 1 for a device that cannot spread packets as the functions need it,
    /// else one for each worker, as far as the device has them.
    pub queues: Option<u16>,
    /// How packets come to the worker that owns their flow.
    #[serde(default)]
    pub steering: SteeringKind,
    /// Whether a router leaves to the devices what they say they can do: tags of VLANs, and a look at
    /// the checksums of IPv4 headers. Some say more than they can.
    #[serde(default = "usual_offloads")]
    pub offloads: bool,
    /// Whether a virtual function's promiscuous mode is real, so that a wire may be on it: its physical
    /// function lets it see frames for other stations, and send under other MAC addresses.
    #[serde(default)]
    pub vf_promiscuous: bool,
}

/// How packets come to the worker that owns their flow, where functions need that.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SteeringKind {
    /// By the devices' receive side scaling where it can be told how, and by hand-over between
    /// workers for the rest.
    #[default]
    Auto,
    /// By receive side scaling: a device that cannot be told how is an error. What lands on the
    /// wrong worker is still handed over.
    Rss,
    /// By hand-over alone.
    Software,
}

impl PortsConfig {
    /// One port, and all else as usual.
    #[must_use]
    pub fn new(inside: impl Into<String>) -> Self {
        Self {
            inside: inside.into(),
            outside: None,
            mtu: None,
            descriptors: None,
            queues: None,
            steering: SteeringKind::default(),
            offloads: usual_offloads(),
            vf_promiscuous: false,
        }
    }
}

fn usual_offloads() -> bool {
    true
}

/// How packets that passed the chain are forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardingKind {
    /// [`Wire`](crate::Wire): out of the other side's port, unchanged.
    Wire,
    /// To where the destination's route leads, as the table `[router]` says.
    Router,
}
