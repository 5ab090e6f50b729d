//! What is right in a NAT's table and of no use, or perhaps not what was meant.

use super::config::PoolConfig;
use super::policy::{Nets, Policy, Pool};
use nf_framework::{Finding, Prefix};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

impl Policy {
    /// What who wrote the table should know of it.
    pub(super) fn lint(&self) -> Vec<Finding> {
        let mut findings = self.short_timeouts();
        findings.extend(self.limits_never_reached());
        findings.extend(self.unused_pools());
        findings.extend(within_others("exclude", &self.config.exclude));
        for (index, PoolConfig { subscribers, to, .. }) in self.config.pools.iter().enumerate() {
            findings.extend(within_others(&format!("pools[{index}].subscribers"), subscribers));
            findings.extend(within_others(&format!("pools[{index}].to"), to));
        }
        findings.extend(self.servers_nowhere());
        findings
    }

    /// What the RFCs ask for at least: RFC 4787 REQ-5 (its two minutes), RFC 5508 REQ-2, RFC 5382 REQ-5.
    fn short_timeouts(&self) -> Vec<Finding> {
        let of = &self.config.timeouts;
        let least = [
            ("udp", of.udp, 120),
            ("icmp", of.icmp, 60),
            ("tcp_opening", of.tcp_opening, 240),
            ("tcp_established", of.tcp_established, 7440),
            ("tcp_closing", of.tcp_closing, 240),
        ];
        let is_short = |(key, seconds, least): (&str, u32, u32)| {
            let message = format!("{seconds} is less than the {least} seconds that the RFCs ask for");
            (seconds < least).then(|| Finding::new(format!("timeouts.{key}"), message))
        };
        least.into_iter().filter_map(is_short).collect()
    }

    /// A port takes a session, too.
    fn limits_never_reached(&self) -> Vec<Finding> {
        let config = &self.config;
        let limits = [
            ("ports_per_subscriber", config.ports_per_subscriber),
            ("sessions_per_subscriber", config.sessions_per_subscriber),
        ];
        let is_above = |(key, limit): (&str, Option<u32>)| {
            let limit = limit.filter(|limit| *limit as usize > config.sessions)?;
            let message =
                format!("{limit} is never reached: a worker has room for {} sessions (`sessions`)", config.sessions);
            Some(Finding::new(key, message))
        };
        limits.into_iter().filter_map(is_above).collect()
    }

    fn unused_pools(&self) -> Vec<Finding> {
        let own: Vec<Prefix> = self.config.one_to_one.iter().map(|config| config.inside).collect();
        // With more than may be in a list, none is looked at.
        let own = Nets::new(&own, "one_to_one").unwrap_or_else(|_| Nets::none());
        let why = |index: usize, pool: &Pool| {
            let before = self.pools.iter().take(index).position(|before| takes_all_of(before, pool));
            if let Some(before) = before {
                return Some(format!("pools[{before}] before it is for all that it is for"));
            }
            if !pool.subscribers.is_empty() && own.cover(&pool.subscribers) {
                return Some("all its subscribers have addresses by one_to_one".to_owned());
            }
            let excluded = !pool.to.is_empty() && self.exclude.cover(&pool.to);
            excluded.then(|| "exclude has all destinations that it is for".to_owned())
        };
        // One that has none left but draining addresses is on its way out.
        let in_use = self.pools.iter().enumerate().filter(|(_, pool)| !pool.addresses.is_empty());
        let unused = in_use.filter_map(|(index, pool)| {
            let message = format!("no host uses it: {}", why(index, pool)?);
            Some(Finding::new(format!("pools[{index}]"), message))
        });
        unused.collect()
    }

    /// Packets for an external address never leave here on the inside. (A host that has its own one outside, with
    /// another port, is such a server on a wire.)
    fn servers_nowhere(&self) -> Vec<Finding> {
        let external: BTreeSet<Ipv4Addr> = self.external().collect();
        let mut findings = Vec::new();
        for (index, forward) in self.config.forward.iter().enumerate() {
            for (place, server) in forward.to.iter().enumerate() {
                if *server.ip() != forward.outside && external.contains(server.ip()) {
                    let message = format!("{} is an external address of this NAT's: no server has it", server.ip());
                    findings.push(Finding::new(format!("forward[{index}].to[{place}]"), message));
                }
            }
        }
        findings
    }
}

/// Whether nothing is left to the later of two pools.
fn takes_all_of(earlier: &Pool, later: &Pool) -> bool {
    let takes = |earlier: &Nets, later: &Nets| {
        earlier.is_empty() || if later.is_empty() { earlier.cover(&Nets::all()) } else { earlier.cover(later) }
    };
    takes(&earlier.subscribers, &later.subscribers) && takes(&earlier.to, &later.to)
}

/// Prefixes of a list that are in others of it.
fn within_others(key: &str, prefixes: &[Prefix]) -> Vec<Finding> {
    let mut ordered: Vec<(Prefix, usize)> = prefixes.iter().copied().zip(0..).collect();
    // Two prefixes are one in the other, or have nothing in common.
    ordered.sort_by_key(|(prefix, place)| (prefix.address(), prefix.length(), *place));
    let (mut findings, mut outer) = (Vec::new(), None::<(Prefix, usize)>);
    for (prefix, place) in ordered {
        match outer {
            Some((of, first)) if of.contains(prefix.address()) => {
                let message = format!("{prefix} is in {of} ({key}[{first}]): it says nothing more");
                findings.push(Finding::new(format!("{key}[{place}]"), message));
            }
            _ => outer = Some((prefix, place)),
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_is_found_and_what_is_not_is_left_alone() {
        const POOL: &str = "[[pools]]\naddresses = ['198.51.100.8']\n";
        const NEXT: &str = "[[pools]]\naddresses = ['198.51.100.9']\n";
        const FORWARD: &str = "[[forward]]\nprotocol = 'tcp'\noutside = '198.51.100.7'\nports = '80'\n";
        const ONE: &str = "[[one_to_one]]\ninside = '10.0.0.0/30'\noutside = '198.51.100.64/30'\n";
        let unused = "pools[1]: no host uses it: pools[0] before it is for all that it is for";
        for (text, expected) in [
            (POOL.to_owned(), &[][..]),
            (format!("{POOL}{NEXT}"), &[unused]),
            (format!("{POOL}subscribers = ['10.0.0.0/8']\n{NEXT}"), &[]),
            (format!("{POOL}subscribers = ['0.0.0.0/1', '128.0.0.0/1']\n{NEXT}"), &[unused]),
            (format!("{POOL}subscribers = ['10.0.0.0/8']\n{NEXT}subscribers = ['10.1.0.0/16']\n"), &[unused]),
            (
                format!("{POOL}subscribers = ['10.0.0.0/9', '10.128.0.0/9']\n{NEXT}subscribers = ['10.0.0.0/8']\n"),
                &[unused],
            ),
            (format!("{POOL}subscribers = ['10.0.0.0/9']\n{NEXT}subscribers = ['10.0.0.0/8']\n"), &[]),
            (format!("{POOL}to = ['192.0.2.0/24']\n{NEXT}"), &[]),
            (format!("{POOL}to = ['192.0.2.0/24']\n{NEXT}to = ['192.0.2.7']\n"), &[unused]),
            (format!("{POOL}[[pools]]\naddresses = []\ndraining = ['198.51.100.9']\n"), &[]),
            (
                format!("{POOL}subscribers = ['10.0.0.2']\n{ONE}"),
                &["pools[0]: no host uses it: all its subscribers have addresses by one_to_one"],
            ),
            (format!("{POOL}subscribers = ['10.0.0.2', '10.0.0.4']\n{ONE}"), &[]),
            (
                format!("exclude = ['192.0.2.0/24']\n{POOL}to = ['192.0.2.0/25']\n"),
                &["pools[0]: no host uses it: exclude has all destinations that it is for"],
            ),
            (
                format!("exclude = ['10.1.0.0/16', '10.0.0.0/8', '10.0.0.0/8', '11.0.0.0/8']\n{POOL}"),
                &[
                    "exclude[2]: 10.0.0.0/8 is in 10.0.0.0/8 (exclude[1]): it says nothing more",
                    "exclude[0]: 10.1.0.0/16 is in 10.0.0.0/8 (exclude[1]): it says nothing more",
                ],
            ),
            (
                format!("ports_per_subscriber = 65\nsessions_per_subscriber = 64\nsessions = 64\n{POOL}"),
                &["ports_per_subscriber: 65 is never reached: a worker has room for 64 sessions (`sessions`)"],
            ),
            (format!("{POOL}{FORWARD}to = ['10.0.0.7:80', '198.51.100.7:8080']\n"), &[]),
            (
                format!("{POOL}{FORWARD}to = ['10.0.0.7:80', '198.51.100.8:80']\n"),
                &["forward[0].to[1]: 198.51.100.8 is an external address of this NAT's: no server has it"],
            ),
            (
                format!("{POOL}[timeouts]\nudp = 119\n"),
                &["timeouts.udp: 119 is less than the 120 seconds that the RFCs ask for"],
            ),
        ] {
            let policy = Policy::new(toml::from_str(&text).unwrap()).unwrap();
            let found: Vec<_> = policy.lint().iter().map(|of| format!("{}: {}", of.key, of.message)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
