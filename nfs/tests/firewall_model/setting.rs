//! How the firewall is configured, as the model knows it and as its configuration file says it.

use super::Side;
use super::bytes::ICMPV6;
use std::fmt::Write as _;
use std::net::IpAddr;

/// Addresses: so many leading bits of one, or a set by its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Term {
    Prefix(IpAddr, u8),
    Set(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Action {
    Accept,
    Drop,
    Reject,
}

/// When a SYN is answered by a cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cookies {
    Never,
    UnderAttack,
    Always,
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Limit {
    pub(crate) connections: Option<u32>,
    pub(crate) packets: Option<u32>,
    pub(crate) burst: Option<u32>,
    pub(crate) per_source: bool,
    pub(crate) embryonic: Option<u32>,
}

/// An empty list asks for nothing.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) name: String,
    pub(crate) related: bool,
    pub(crate) from: Option<Side>,
    pub(crate) sources: Vec<Term>,
    pub(crate) destinations: Vec<Term>,
    pub(crate) protocols: Vec<u8>,
    pub(crate) source_ports: Vec<(u16, u16)>,
    pub(crate) destination_ports: Vec<(u16, u16)>,
    /// Types and codes, from and to.
    pub(crate) icmp: Vec<[(u8, u8); 2]>,
    /// Flags that are set, and flags that are not.
    pub(crate) flags: Option<(u8, u8)>,
    pub(crate) dscp: Vec<u8>,
    pub(crate) vlans: Vec<u16>,
    pub(crate) fragment: Option<bool>,
    pub(crate) action: Action,
    pub(crate) limit: Limit,
    pub(crate) cookies: Cookies,
}

impl Rule {
    pub(crate) fn new(name: impl Into<String>, action: Action) -> Self {
        Self {
            name: name.into(),
            related: false,
            from: None,
            sources: Vec::new(),
            destinations: Vec::new(),
            protocols: Vec::new(),
            source_ports: Vec::new(),
            destination_ports: Vec::new(),
            icmp: Vec::new(),
            flags: None,
            dscp: Vec::new(),
            vlans: Vec::new(),
            fragment: None,
            action,
            limit: Limit::default(),
            cookies: Cookies::Never,
        }
    }
}

/// In seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) syn_sent: u64,
    pub(crate) syn_received: u64,
    pub(crate) established: u64,
    pub(crate) fin_wait: u64,
    pub(crate) close_wait: u64,
    pub(crate) last_ack: u64,
    pub(crate) time_wait: u64,
    pub(crate) close: u64,
    pub(crate) udp: u64,
    pub(crate) udp_answered: u64,
    pub(crate) icmp: u64,
    pub(crate) other: u64,
    pub(crate) other_answered: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) rules: Vec<Rule>,
    pub(crate) sets: Vec<Vec<(IpAddr, u8)>>,
    /// For how many connections of either family there is room. Of few, nobody outside knows which one goes for another.
    pub(crate) room: usize,
    pub(crate) rejects: bool,
    pub(crate) per_source: Option<u32>,
    pub(crate) mid_stream: bool,
    pub(crate) all_checksums: bool,
    pub(crate) rejudge: bool,
    pub(crate) rfc4890: bool,
    pub(crate) drop_fragments: bool,
    pub(crate) drop_arp: bool,
    pub(crate) ether_types: Vec<u16>,
    pub(crate) llc: bool,
    pub(crate) timeouts: Timeouts,
    /// Whether its rules are replaced now and then.
    pub(crate) reloads: bool,
}

impl Setting {
    /// Whether what becomes of a packet hangs on others' number, not only on their order within a connection.
    pub(crate) fn counts(&self) -> bool {
        self.per_source.is_some()
            || self.is_small()
            || self.rules.iter().any(|rule| rule.cookies == Cookies::UnderAttack)
            || self.rules.iter().any(|rule| rule.limit.connections.or(rule.limit.packets).is_some())
    }

    /// Whether some rule has SYN cookies.
    pub(crate) fn has_cookies(&self) -> bool {
        self.rules.iter().any(|rule| rule.cookies != Cookies::Never)
    }

    /// Whether its tables may be full.
    pub(crate) fn is_small(&self) -> bool {
        self.room < 1000
    }

    /// The rules, and what RFC 4890 adds to them.
    pub(crate) fn all_rules(&self) -> Vec<Rule> {
        let mut rules = self.rules.clone();
        if self.rfc4890 {
            let types = |from, to| [(from, to), (0, 255)];
            let icmp = vec![types(128, 128), types(144, 147)];
            rules.push(Rule { protocols: vec![ICMPV6], icmp, ..Rule::new("rfc4890", Action::Accept) });
        }
        rules
    }

    pub(crate) fn contains(&self, term: Term, address: IpAddr) -> bool {
        match term {
            Term::Prefix(prefix, length) => contains(prefix, length, address),
            Term::Set(set) => self.sets[set].iter().any(|(prefix, length)| contains(*prefix, *length, address)),
        }
    }

    pub(crate) fn toml(&self) -> String {
        let passage = |drop: bool| if drop { "drop" } else { "accept" };
        let Timeouts {
            syn_sent,
            syn_received,
            established,
            fin_wait,
            close_wait,
            last_ack,
            time_wait,
            close,
            udp,
            udp_answered,
            icmp,
            other,
            other_answered,
        } = self.timeouts;
        let mut text = format!(
            "connections = {}\nconnections_v6 = {}\nrejections_per_second = 1000000000\ndefault = \"{}\"\nmid_stream = {}\nchecksums = \"{}\"\nlive = \
             \"{}\"\nrfc4890 = {}\nfragments = \"{}\"\narp = \"{}\"\nether_types = {:?}\nllc = \"{}\"\n",
            self.room,
            self.room,
            if self.rejects { "reject" } else { "drop" },
            self.mid_stream,
            if self.all_checksums { "all" } else { "signals" },
            if self.rejudge { "rejudge" } else { "keep" },
            self.rfc4890,
            passage(self.drop_fragments),
            passage(self.drop_arp),
            self.ether_types,
            passage(!self.llc),
        );
        if let Some(most) = self.per_source {
            let _ = writeln!(text, "connections_per_source = {most}");
        }
        let _ = writeln!(
            text,
            "timeouts = {{ tcp_syn_sent = {syn_sent}, tcp_syn_received = {syn_received}, tcp_established = \
             {established}, tcp_fin_wait = {fin_wait}, tcp_close_wait = {close_wait}, tcp_last_ack = {last_ack}, \
             tcp_time_wait = {time_wait}, tcp_close = {close}, udp = {udp}, udp_answered = {udp_answered}, icmp = \
             {icmp}, other = {other}, other_answered = {other_answered} }}"
        );
        for (number, set) in self.sets.iter().enumerate() {
            let prefixes: Vec<_> = set.iter().map(|(prefix, length)| format!("{prefix}/{length}")).collect();
            let _ = writeln!(text, "[sets.s{number}]\nprefixes = {prefixes:?}");
        }
        for rule in &self.rules {
            text += &rule.toml();
        }
        text
    }
}

impl Rule {
    /// Whether connections of it may be half open.
    pub(crate) fn may_be_tcp(&self) -> bool {
        self.protocols.is_empty() || self.protocols.contains(&6)
    }

    /// Whether it may have SYN cookies.
    pub(crate) fn takes_cookies(&self) -> bool {
        let begins = self.action == Action::Accept && !self.related && self.icmp.is_empty();
        begins && self.may_be_tcp() && self.flags.is_none() && self.fragment != Some(true)
    }

    fn toml(&self) -> String {
        let side = |side| if side == Side::Inside { "inside" } else { "outside" };
        let action = match self.action {
            Action::Accept => "accept",
            Action::Drop => "drop",
            Action::Reject => "reject",
        };
        let mut text = format!("[[rules]]\nname = \"{}\"\naction = \"{action}\"\n", self.name);
        let mut put = |key: &str, list: Vec<String>| {
            if !list.is_empty() {
                let _ = writeln!(text, "{key} = {list:?}");
            }
        };
        let addresses = |terms: &[Term]| -> Vec<String> {
            let text = |term: &Term| match term {
                Term::Prefix(prefix, length) => format!("{prefix}/{length}"),
                Term::Set(set) => format!("@s{set}"),
            };
            terms.iter().map(text).collect()
        };
        let ports = |list: &[(u16, u16)]| list.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        put("source", addresses(&self.sources));
        put("destination", addresses(&self.destinations));
        put("protocol", self.protocols.iter().map(ToString::to_string).collect());
        put("source_ports", ports(&self.source_ports));
        put("destination_ports", ports(&self.destination_ports));
        let icmp = |[types, codes]: &[(u8, u8); 2]| format!("{}-{}/{}-{}", types.0, types.1, codes.0, codes.1);
        put("icmp", self.icmp.iter().map(icmp).collect());
        put("vlans", self.vlans.iter().map(ToString::to_string).collect());
        put("dscp", self.dscp.iter().map(ToString::to_string).collect());
        if let Some(from) = self.from {
            let _ = writeln!(text, "from = \"{}\"", side(from));
        }
        if let Some((set, unset)) = self.flags {
            let names = ["fin", "syn", "rst", "psh", "ack", "urg"];
            let named = |bits: u8, sign: &'static str| {
                let has = move |(at, _): &(usize, &&str)| bits >> at & 1 == 1;
                names.iter().enumerate().filter(has).map(move |(_, name)| format!("{sign}{name}")).collect::<Vec<_>>()
            };
            let _ = writeln!(text, "flags = \"{}\"", [named(set, ""), named(unset, "!")].concat().join(" "));
        }
        if let Some(fragment) = self.fragment {
            let _ = writeln!(text, "fragment = {fragment}");
        }
        if self.related {
            text += "state = \"related\"\n";
        }
        match self.cookies {
            Cookies::Never => {}
            Cookies::UnderAttack => text += "syn_cookies = \"under-attack\"\n",
            Cookies::Always => text += "syn_cookies = \"always\"\n",
        }
        let Limit { connections, packets, burst, per_source, embryonic } = self.limit;
        let mut limits: Vec<_> = [
            ("connections_per_second", connections),
            ("packets_per_second", packets),
            ("burst", burst),
            ("embryonic", embryonic),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key} = {}", value?)))
        .collect();
        if per_source {
            limits.push("per_source = true".to_owned());
        }
        if !limits.is_empty() {
            let _ = writeln!(text, "limit = {{ {} }}", limits.join(", "));
        }
        text
    }
}

fn contains(prefix: IpAddr, length: u8, address: IpAddr) -> bool {
    let shift = |bits: u32| bits - u32::from(length);
    match (prefix, address) {
        (IpAddr::V4(prefix), IpAddr::V4(address)) => {
            prefix.to_bits().checked_shr(shift(32)) == address.to_bits().checked_shr(shift(32))
        }
        (IpAddr::V6(prefix), IpAddr::V6(address)) => {
            prefix.to_bits().checked_shr(shift(128)) == address.to_bits().checked_shr(shift(128))
        }
        _ => false,
    }
}
