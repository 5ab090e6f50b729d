//! Whether what is written makes sense: numbers, types and limits, each by itself and beside its neighbours.

use super::config::{Action, Config, Denial, LEAST_ENTRIES, LEAST_ETHER_TYPE, RuleConfig, State, SynCookies};
use nf_framework::Invalid;
use nf_framework::headers::{EtherType, IpProtocol};
use nf_framework::terms::AddressTerm;

/// What is of no rule.
pub(super) fn check(config: &Config) -> Result<(), Invalid> {
    numbers(config)?;
    ether_types(config)?;
    rejections(config)
}

/// A rule as it is written; `key` is where it stands.
pub(super) fn check_rule(config: &Config, rule: &RuleConfig, key: &str) -> Result<(), Invalid> {
    sets(config, rule, key)?;
    related(rule, key)?;
    limit(rule, key)?;
    cookies(rule, key)
}

fn numbers(config: &Config) -> Result<(), Invalid> {
    for (key, value) in
        [("connections", config.connections), ("connections_v6", config.connections_v6()), ("sources", config.sources)]
    {
        if !(LEAST_ENTRIES..=1 << 28).contains(&value) {
            return Err(Invalid::new(key, format!("{value} is not from {LEAST_ENTRIES} to {}", 1 << 28)));
        }
    }
    if config.connections_per_source == Some(0) {
        let message = "0 would let nobody through: leave it out for no limit";
        return Err(Invalid::new("connections_per_source", message));
    }
    if !(536..=9216).contains(&config.syn_cookies_mss) {
        return Err(Invalid::new("syn_cookies_mss", format!("{} is not from 536 to 9216", config.syn_cookies_mss)));
    }
    if !(16..=128).contains(&config.source_bits_v6) {
        return Err(Invalid::new("source_bits_v6", format!("{} is not from 16 to 128", config.source_bits_v6)));
    }
    Ok(())
}

fn ether_types(config: &Config) -> Result<(), Invalid> {
    for (index, number) in config.ether_types.iter().copied().enumerate() {
        let message = match EtherType::from(number) {
            EtherType::IPV4 | EtherType::IPV6 => "this is IP, about which rules decide: leave it out",
            EtherType::ARP => "this is ARP, which passes by arp = \"accept\": leave it out",
            _ if number < LEAST_ETHER_TYPE => {
                "Ethernet types begin at 1536: what is less is a length, and passes by llc = \"accept\""
            }
            _ => continue,
        };
        return Err(Invalid::new(format!("ether_types[{index}]"), message));
    }
    Ok(())
}

fn rejections(config: &Config) -> Result<(), Invalid> {
    if config.rejections_per_second != 0 {
        return Ok(());
    }
    let who = match config.rules.iter().position(|rule| rule.action == Action::Reject) {
        Some(index) => format!("rules[{index}] has action = \"reject\""),
        None if config.default == Denial::Reject => "there is default = \"reject\"".to_owned(),
        None => return Ok(()),
    };
    let message = format!("0 would answer nobody, and {who}: give a number, or write \"drop\" there");
    Err(Invalid::new("rejections_per_second", message))
}

fn sets(config: &Config, rule: &RuleConfig, key: &str) -> Result<(), Invalid> {
    for (field, list) in [("source", &rule.source), ("destination", &rule.destination)] {
        for term in &list.0 {
            if let AddressTerm::Set(name) = term
                && !config.sets.contains_key(name)
            {
                let known: Vec<_> = config.sets.keys().map(String::as_str).collect();
                let message = format!("there is no set {name:?} (known: {})", known.join(", "));
                return Err(Invalid::new(format!("{key}.{field}"), message));
            }
        }
    }
    Ok(())
}

fn limit(rule: &RuleConfig, key: &str) -> Result<(), Invalid> {
    let Some(limit) = rule.limit else { return Ok(()) };
    let invalid = |field: &str, message: &str| Err(Invalid::new(format!("{key}.limit{field}"), message));
    if rule.action != Action::Accept {
        return invalid("", "only what is accepted can be limited");
    }
    for (field, value) in [
        (".connections_per_second", limit.connections_per_second),
        (".packets_per_second", limit.packets_per_second),
        (".burst", limit.burst),
        (".embryonic", limit.embryonic),
    ] {
        if value == Some(0) {
            return invalid(field, "0 would let nothing through: write action = \"drop\" instead");
        }
    }
    if limit.embryonic.is_some() && rule.state == State::Related {
        return invalid(".embryonic", "what is related begins no connection");
    }
    if limit.embryonic.is_some() && !may_be_tcp(rule) {
        return invalid(".embryonic", "only connections of TCP are half open: leave it out, or name tcp");
    }
    if limit.burst.is_some() && limit.connections_per_second.or(limit.packets_per_second).is_none() {
        let message = "a burst is of a rate: give connections_per_second or packets_per_second, or leave it out";
        return invalid(".burst", message);
    }
    match (limit.connections_per_second, limit.packets_per_second) {
        (None, None) if limit.per_source => {
            invalid(".per_source", "what each source may have is connections_per_second, packets_per_second or both")
        }
        (None, None) if limit.embryonic.is_none() => {
            invalid("", "a limit is of connections_per_second, packets_per_second or embryonic")
        }
        (_, Some(_)) if rule.state == State::Related => {
            invalid(".packets_per_second", "what is related is limited by connections_per_second")
        }
        _ => Ok(()),
    }
}

fn cookies(rule: &RuleConfig, key: &str) -> Result<(), Invalid> {
    let begins = rule.action == Action::Accept && rule.state == State::New;
    let has_limit = rule.limit.is_some_and(|limit| limit.embryonic.is_some());
    let message = match rule.syn_cookies {
        SynCookies::Never => return Ok(()),
        _ if !begins || !may_be_tcp(rule) => "only what begins a TCP connection is answered by SYN cookies",
        SynCookies::UnderAttack if !has_limit => {
            "an attack is known by limit = { embryonic = N }: give it, or write \"always\""
        }
        SynCookies::Always if rule.fragment == Some(true) => {
            "a SYN in fragments is answered by no cookie, so that none of TCP would begin: leave this out, or fragment = true"
        }
        SynCookies::UnderAttack | SynCookies::Always => return Ok(()),
    };
    Err(Invalid::new(format!("{key}.syn_cookies"), message))
}

fn may_be_tcp(rule: &RuleConfig) -> bool {
    rule.protocol.0.is_empty() || rule.protocol.0.iter().any(|protocol| protocol.0 == IpProtocol::TCP)
}

/// What is related to a connection is an ICMP error about it.
fn related(rule: &RuleConfig, key: &str) -> Result<(), Invalid> {
    if rule.state != State::Related {
        return Ok(());
    }
    const NO_PORTS: &str = "what is related is an ICMP error, which has no ports: leave them out";
    let (field, message) = if !rule.source_ports.0.is_empty() {
        ("source_ports", NO_PORTS)
    } else if !rule.destination_ports.0.is_empty() {
        ("destination_ports", NO_PORTS)
    } else if rule.action == Action::Reject {
        ("action", "what is related is an ICMP error, and errors are not answered: write \"drop\"")
    } else if rule.fragment == Some(true) {
        (
            "fragment",
            "what is related is an ICMP error, which is dropped without a rule if it is in fragments: leave it out",
        )
    } else {
        return Ok(());
    };
    Err(Invalid::new(format!("{key}.{field}"), message))
}
