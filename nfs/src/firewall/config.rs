//! The table `[firewall]` of a configuration file, as it stands there.

use crate::json_log;
use nf_framework::headers::EtherType;
use nf_framework::terms::{AddressTerm, DscpTerm, FlagsTerm, IcmpTerm, List, PortTerm, ProtocolTerm, Term, VlanTerm};
use nf_framework::{Direction, Prefix};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The table `[firewall]`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// IPv4 connections that each worker has room for.
    #[serde(default = "usual_connections")]
    pub connections: usize,
    /// IPv6 connections that each worker has room for; 0, as usual, for a quarter of `connections`.
    #[serde(default)]
    pub connections_v6: usize,
    /// What becomes of packets that begin a connection and match no rule.
    #[serde(default)]
    pub default: Denial,
    /// Addresses under names, for rules to name as `@name`.
    #[serde(default)]
    pub sets: BTreeMap<String, SetConfig>,
    /// Of the rules, the first that matches a packet decides.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
    /// Connections that one source may have begun at once; each worker counts its share of it.
    pub connections_per_source: Option<u32>,
    /// Sources that each worker remembers for each rule with limits of each.
    #[serde(default = "usual_sources")]
    pub sources: usize,
    /// Leading bits of an IPv6 address that are one source.
    #[serde(default = "usual_source_bits")]
    pub source_bits_v6: u8,
    /// Answers to what is rejected, in a second, all workers together.
    #[serde(default = "usual_rejections")]
    pub rejections_per_second: u32,
    /// Where flows are written down that rules have decided about; nowhere unless given.
    pub log: Option<LogConfig>,
    /// The longest segment that a SYN cookie lets clients send in IPv4, octets; in IPv6 20 less. No more than servers
    /// take.
    #[serde(default = "usual_mss")]
    pub syn_cookies_mss: u16,
    /// Whether a TCP connection that was not seen to begin may be picked up by an acknowledgment.
    #[serde(default)]
    pub mid_stream: bool,
    /// Of which packets the checksums are verified.
    #[serde(default)]
    pub checksums: Checksums,
    /// What becomes of live connections when the rules change.
    #[serde(default)]
    pub live: Live,
    /// Whether ICMPv6 that RFC 4890 wants to pass does so, behind all rules.
    #[serde(default = "yes")]
    pub rfc4890: bool,
    /// What becomes of fragments.
    #[serde(default)]
    pub fragments: Passage,
    /// What becomes of ARP on a wire; a router answers for itself.
    #[serde(default)]
    pub arp: Passage,
    /// Ethernet types that pass on a wire beside IP and ARP; 1536 and more.
    #[serde(default)]
    pub ether_types: Vec<u16>,
    /// What becomes of frames on a wire that have a length instead of a type (IEEE 802.3, LLC): spanning tree and IS-IS are
    /// such.
    #[serde(default = "drop")]
    pub llc: Passage,
    /// How long what is remembered.
    #[serde(default)]
    pub timeouts: TimeoutsConfig,
}

/// `[firewall.sets.NAME]`: addresses under a name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SetConfig {
    /// Prefixes of either family.
    pub prefixes: Vec<Prefix>,
    /// More of them, one on a line, with comments behind `#` or `;`. Each reload reads it again.
    pub file: Option<PathBuf>,
}

/// `[[firewall.rules]]`: what it asks of a packet, and what becomes of one that has all of it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// What it is called in counters and lists; `rules[3]` by its place unless given.
    pub name: Option<String>,
    /// For people.
    #[serde(default)]
    pub comment: String,
    /// The side that the packet comes in by; either unless given. It is to leave by the other one.
    pub from: Option<Side>,
    /// The VLANs that it comes in by, 0 for none; of two tags the outer one counts.
    #[serde(default)]
    pub vlans: List<VlanTerm>,
    /// Who sends; all unless given.
    #[serde(default)]
    pub source: List<AddressTerm>,
    /// Who is to receive.
    #[serde(default)]
    pub destination: List<AddressTerm>,
    /// The protocol.
    #[serde(default)]
    pub protocol: List<ProtocolTerm>,
    /// Source ports.
    #[serde(default)]
    pub source_ports: List<PortTerm>,
    /// Destination ports.
    #[serde(default)]
    pub destination_ports: List<PortTerm>,
    /// ICMP types and codes; the protocol is to be ICMP or ICMPv6 then.
    #[serde(default)]
    pub icmp: List<IcmpTerm>,
    /// TCP flags; the protocol is to be TCP then.
    pub flags: Option<Term<FlagsTerm>>,
    /// Differentiated services.
    #[serde(default)]
    pub dscp: List<DscpTerm>,
    /// Whether the packet is to be a first fragment, or a whole packet.
    pub fragment: Option<bool>,
    /// What the packet is to a connection.
    #[serde(default)]
    pub state: State,
    /// What becomes of the packet.
    pub action: Action,
    /// How much of what it accepts; the rest is dropped.
    pub limit: Option<LimitConfig>,
    /// When a SYN that it accepts is answered by a cookie.
    #[serde(default)]
    pub syn_cookies: SynCookies,
}

/// When a rule's TCP connections begin by a SYN cookie: the firewall answers the client, and goes on to the server
/// once the client has shown that it is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SynCookies {
    /// SYNs go to the server.
    #[default]
    Never,
    /// From the moment on that half as many connections are half open as `limit.embryonic` lets be, until a
    /// quarter are.
    UnderAttack,
    /// All of them.
    Always,
}

/// Where a packet comes in.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// By the inside end of the chain.
    Inside,
    /// By the outside end.
    Outside,
}

impl Side {
    /// The way that a packet takes from there.
    pub(super) fn direction(self) -> Direction {
        match self {
            Self::Inside => Direction::Outbound,
            Self::Outside => Direction::Inbound,
        }
    }
}

/// What a packet that rules are asked about is to a connection. What belongs to one that was
/// accepted passes without a rule, and what is invalid is dropped without one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It begins one.
    #[default]
    New,
    /// It is an ICMP error about one. These pass unless a rule says otherwise.
    Related,
}

/// What becomes of a packet that matches a rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It passes, and with it all that belongs to the connection that it begins.
    Accept,
    /// It is dropped.
    #[default]
    Drop,
    /// It is dropped, and its sender told: by a RST for TCP, by an ICMP error otherwise.
    Reject,
    /// It is written down, and later rules decide about it. Of several such rules the first writes.
    Log,
}

/// What becomes of what no rule accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Denial {
    /// It is dropped.
    #[default]
    Drop,
    /// It is dropped, and its sender told.
    Reject,
}

/// `[firewall.log]`: flows as lines of JSON.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// The file that they are added to; once it is renamed, it is made anew with the next line.
    pub file: PathBuf,
    /// Most lines in a second; what is more is lost, and how much is written down and counted.
    #[serde(default = "json_log::usual_lines")]
    pub lines_per_second: u32,
    /// Whether connections that begin are written down.
    #[serde(default = "yes")]
    pub accepted: bool,
    /// Whether packets are that rules, limits or their lack deny.
    #[serde(default = "yes")]
    pub denied: bool,
}

impl LogConfig {
    /// The file and its bounds.
    pub(super) fn file(&self) -> json_log::LogConfig {
        json_log::LogConfig { file: self.file.clone(), lines_per_second: self.lines_per_second }
    }
}

/// `limit` of a rule that accepts, all workers together: each has its share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitConfig {
    /// New connections per second; for `state = "related"`, ICMP errors.
    pub connections_per_second: Option<u32>,
    /// Packets per second of all connections that the rule accepts, in both directions together.
    pub packets_per_second: Option<u32>,
    /// How much of either at once after a pause; a tenth of a second's unless given, and at least 1.
    pub burst: Option<u32>,
    /// Whether each source may have so much, and not all together.
    pub per_source: bool,
    /// TCP connections of the rule that are half open at once; further ones do not begin.
    pub embryonic: Option<u32>,
}

/// Of which packets the checksums of TCP, UDP and ICMP are verified.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksums {
    /// Of those that begin, change or end something; segments of an established connection that
    /// only carry data move its window and nothing else.
    #[default]
    Signals,
    /// Of all.
    All,
}

/// What becomes of live connections when the rules change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Live {
    /// They stay.
    #[default]
    Keep,
    /// Each is judged by the new rules with its next packet, and ends if they would not have it.
    Rejudge,
}

/// Whether something passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Passage {
    /// It does.
    #[default]
    Accept,
    /// It does not.
    Drop,
}

/// `[firewall.timeouts]`, in seconds. Those of TCP are by the state of the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TimeoutsConfig {
    /// A SYN was seen.
    pub tcp_syn_sent: u32,
    /// A SYN and the answer to it.
    pub tcp_syn_received: u32,
    /// Both sides have agreed: two hours and four minutes, RFC 5382 REQ-5.
    pub tcp_established: u32,
    /// One side has ended, and was not acknowledged.
    pub tcp_fin_wait: u32,
    /// One side has ended.
    pub tcp_close_wait: u32,
    /// Both have, and the last one was not acknowledged.
    pub tcp_last_ack: u32,
    /// It is over.
    pub tcp_time_wait: u32,
    /// It was reset.
    pub tcp_close: u32,
    /// UDP, until who began it has gone on after an answer.
    pub udp: u32,
    /// And from then on: RFC 4787 REQ-5.
    pub udp_answered: u32,
    /// ICMP queries.
    pub icmp: u32,
    /// Any other protocol, until who began it has gone on after an answer.
    pub other: u32,
    /// And from then on.
    pub other_answered: u32,
}

impl Config {
    /// IPv6 connections that each worker has room for.
    pub(super) fn connections_v6(&self) -> usize {
        if self.connections_v6 == 0 { (self.connections / 4).max(LEAST_ENTRIES) } else { self.connections_v6 }
    }

    /// Whether what is neither IP nor ARP passes on a wire.
    pub(super) fn lets_through(&self, ether_type: EtherType) -> bool {
        if ether_type.value() < LEAST_ETHER_TYPE {
            return self.llc == Passage::Accept;
        }
        self.ether_types.contains(&ether_type.value())
    }
}

/// What is less is the length of a frame: IEEE 802.3 section 3.2.6.
pub(super) const LEAST_ETHER_TYPE: u16 = 0x600;

/// Of each table.
pub(super) const LEAST_ENTRIES: usize = 64;

impl Default for TimeoutsConfig {
    fn default() -> Self {
        Self {
            tcp_syn_sent: 120,
            tcp_syn_received: 60,
            tcp_established: 7440,
            tcp_fin_wait: 120,
            tcp_close_wait: 60,
            tcp_last_ack: 30,
            tcp_time_wait: 120,
            tcp_close: 10,
            udp: 30,
            udp_answered: 300,
            icmp: 30,
            other: 60,
            other_answered: 600,
        }
    }
}

fn usual_connections() -> usize {
    1 << 16
}

fn usual_rejections() -> u32 {
    1000
}

fn usual_mss() -> u16 {
    1460
}

fn usual_sources() -> usize {
    1 << 14
}

fn usual_source_bits() -> u8 {
    64
}

fn drop() -> Passage {
    Passage::Drop
}

fn yes() -> bool {
    true
}
