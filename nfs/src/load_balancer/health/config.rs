//! The table `[load-balancer.services.health]` of a configuration file, as it stands there.

use serde::{Deserialize, Deserializer};
use std::path::PathBuf;
use std::time::Duration;

/// `[load-balancer.services.health]`: how it is found out which backends of a service are ready.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    /// What is asked of a backend.
    pub kind: HealthKind,
    /// The port that is asked; the one that clients' packets arrive at unless given.
    pub port: Option<u16>,
    /// From the beginning of one check to that of the next.
    #[serde(default = "usual_interval")]
    pub interval: Seconds,
    /// What a check may take; what has not succeeded by then has failed.
    #[serde(default = "usual_timeout")]
    pub timeout: Seconds,
    /// Checks in a row that have to succeed for a backend to come back. (One that is new needs one.)
    #[serde(default = "usual_rise")]
    pub rise: u32,
    /// Checks in a row that have to fail for a backend to go down.
    #[serde(default = "usual_fall")]
    pub fall: u32,
    /// How far an interval may be longer or shorter, in percent of it, so that checks spread.
    #[serde(default = "usual_jitter")]
    pub jitter: u8,
    /// How long the weight of a backend that comes back grows, from a tenth to all of it.
    #[serde(default)]
    pub slow_start: Seconds,
    /// The half-life of what is held against a backend that goes down again and again; 0 holds nothing
    /// against it.
    #[serde(default = "usual_damping")]
    pub damping: Seconds,
    /// What is asked for by HTTP; `/` unless given.
    pub path: Option<String>,
    /// The host that is asked for by HTTP; the address unless given.
    pub host: Option<String>,
    /// The status codes of HTTP that are right: `"200-299"`, or `"204"`; `"200-399"` unless given.
    pub status: Option<String>,
    /// What has to stand in HTTP's body, or in UDP's answer.
    pub expect: Option<String>,
    /// Whose certificates are believed, in PEM.
    pub ca_file: Option<PathBuf>,
    /// Whether a server has to prove who it is; it has to unless this is `false`.
    pub verify: Option<bool>,
    /// Who a TLS server has to be; `host`, or else the address, unless given.
    pub server_name: Option<String>,
    /// What is sent by UDP; nothing, which is a datagram too, unless given.
    pub send: Option<String>,
    /// Whether UDP has to be answered. Otherwise silence is right, and only what says that nobody is there is wrong.
    pub answer: Option<bool>,
    /// What the traffic itself says of a backend; not listened to unless given.
    pub passive: Option<PassiveConfig>,
}

/// What is asked of a backend.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthKind {
    /// To take a TCP connection.
    Tcp,
    /// To answer a GET.
    Http,
    /// The same by TLS.
    Https,
    /// To take a datagram, or to answer it.
    Udp,
    /// To answer an echo request.
    Icmp,
}

/// `passive`: a backend of which too many connections fail goes down without being asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassiveConfig {
    /// How many of the connections that begin may fail, in percent.
    #[serde(default = "usual_failed")]
    pub failed: u8,
    /// Fewer connections than this say nothing.
    #[serde(default = "usual_least")]
    pub least: u64,
    /// The time in which they are counted, and for which a backend then stays down at least.
    #[serde(default = "usual_window")]
    pub window: Seconds,
}

/// A time: in a file, seconds as a number, `2` or `0.5`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Seconds(pub Duration);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        let time = Duration::try_from_secs_f64(seconds);
        time.map(Self).map_err(|_| serde::de::Error::custom(format!("{seconds} is not a time in seconds")))
    }
}

fn usual_interval() -> Seconds {
    Seconds(Duration::from_secs(2))
}

fn usual_timeout() -> Seconds {
    Seconds(Duration::from_secs(2))
}

fn usual_rise() -> u32 {
    2
}

fn usual_fall() -> u32 {
    3
}

fn usual_jitter() -> u8 {
    10
}

fn usual_damping() -> Seconds {
    Seconds(Duration::from_secs(60))
}

fn usual_failed() -> u8 {
    50
}

fn usual_least() -> u64 {
    20
}

fn usual_window() -> Seconds {
    Seconds(Duration::from_secs(10))
}
