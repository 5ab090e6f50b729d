//! Which part of a NAT's table a first packet is for, and why none before it is.

use super::flow::{Kind, Protocol, Seen, look_at};
use super::policy::{Endpoint, Policy, Pool};
use nf_framework::Direction;
use std::net::Ipv4Addr;

impl Policy {
    /// By the table alone, in the order in which the packet path asks.
    pub(super) fn explain(&self, frame: &mut [u8], direction: Direction) -> Option<String> {
        let seen = look_at(frame, None).ok()?;
        if matches!(seen.kind, Kind::Error { .. } | Kind::Redirect) {
            return None;
        }
        match direction {
            Direction::Outbound => self.explain_outbound(&seen),
            Direction::Inbound => Some(self.explain_inbound(&seen)),
        }
    }

    fn explain_outbound(&self, seen: &Seen) -> Option<String> {
        let (source, destination) = (seen.source, seen.destination);
        if self.is_excluded(destination) {
            return Some(format!("untranslated, as {destination} is in exclude"));
        }
        if let Some(outside) = self.one_to_one_outside(source) {
            return Some(format!("{}, which gives {source} the address {outside}", self.one_to_one_key(outside)));
        }
        let server = |(protocol, port)| self.external_of_server(&Endpoint { protocol, address: source, port });
        let ports = match seen.kind {
            Kind::Flow(protocol, source, ..) => Some((protocol, source)),
            _ => None,
        };
        if let Some(external) = ports.and_then(server) {
            return Some(format!("{}, of which it is a server", self.forward_key(&external)?));
        }
        if matches!(seen.kind, Kind::Other) {
            return None;
        }
        let mut text = String::new();
        for (index, pool) in self.pools.iter().enumerate() {
            match lack(pool, source, destination) {
                None => return Some(format!("{text}pools[{index}]")),
                Some(lack) => text += &format!("  not pools[{index}]: {lack}\n"),
            }
        }
        Some(text + "no pool is for it")
    }

    fn explain_inbound(&self, seen: &Seen) -> String {
        let (source, destination) = (seen.source, seen.destination);
        if let Some(inside) = self.one_to_one_inside(destination) {
            return format!("{}, by which {destination} is {inside}", self.one_to_one_key(destination));
        }
        if let Kind::Flow(protocol, _, port, _) = seen.kind
            && let Some(key) = self.forward_key(&Endpoint { protocol, address: destination, port })
        {
            return key;
        }
        let has = |pool: &Pool| pool.addresses.contains(&destination) || pool.draining.contains(&destination);
        if let Some(index) = self.pools.iter().position(has) {
            return format!("pools[{index}] has {destination}: what comes in is for what hosts inside have begun");
        }
        if self.external().any(|address| address == destination) {
            return format!("no forward leads to a server from that port of {destination}");
        }
        match self.is_excluded(source) {
            true => format!("untranslated, as {source} is in exclude"),
            false => format!("{destination} is no external address of this NAT's"),
        }
    }

    fn one_to_one_key(&self, outside: Ipv4Addr) -> String {
        let place = self.config.one_to_one.iter().position(|of| of.outside.contains(outside.into()));
        place.map_or_else(String::new, |place| format!("one_to_one[{place}]"))
    }

    fn forward_key(&self, external: &Endpoint) -> Option<String> {
        self.forward.get(external)?;
        let place = self.config.forward.iter().position(|of| {
            let of_protocol = Protocol::from(of.protocol) == external.protocol;
            of_protocol && of.outside == external.address && (of.ports.first..=of.ports.last).contains(&external.port)
        });
        place.map(|place| format!("forward[{place}]"))
    }
}

/// The first thing that a packet has not of what a pool is for.
fn lack(pool: &Pool, source: Ipv4Addr, destination: Ipv4Addr) -> Option<String> {
    let misses = |nets: &super::policy::Nets, address| !nets.is_empty() && !nets.contains(address);
    if misses(&pool.subscribers, source) {
        return Some(format!("{source} is not among its subscribers"));
    }
    misses(&pool.to, destination).then(|| format!("{destination} is not among the destinations that it is for (`to`)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nf_framework::Described;

    #[test]
    fn the_part_of_the_table_is_named_and_why_it_is_none_before_it() {
        let text = "
            exclude = ['192.168.0.0/16']
            [[pools]]
            addresses = ['198.51.100.8']
            subscribers = ['10.1.0.0/16']
            [[pools]]
            addresses = ['198.51.100.9']
            to = ['203.0.113.0/24']
            [[one_to_one]]
            inside = '10.0.0.99'
            outside = '198.51.100.99'
            [[forward]]
            protocol = 'tcp'
            outside = '198.51.100.10'
            ports = '80-81'
            to = ['10.0.0.10:8080']
        ";
        let policy = Policy::new(toml::from_str(text).unwrap()).unwrap();
        let not_first = "  not pools[0]: 10.0.0.5 is not among its subscribers\n";
        let no_host = "what comes in is for what hosts inside have begun";
        for (packet, expected) in [
            ("udp 10.1.0.5:5 > 203.0.113.9:53 from inside", "pools[0]".to_owned()),
            ("udp 10.0.0.5:5 > 203.0.113.9:53 from inside", format!("{not_first}pools[1]")),
            (
                "icmp 10.0.0.5 > 192.0.2.9 from inside",
                format!(
                    "{not_first}  not pools[1]: 192.0.2.9 is not among the destinations that it is for (`to`)\n\
                     no pool is for it"
                ),
            ),
            ("udp 10.1.0.5:5 > 192.168.7.7:53 from inside", "untranslated, as 192.168.7.7 is in exclude".to_owned()),
            (
                "gre 10.0.0.99 > 203.0.113.9 from inside",
                "one_to_one[0], which gives 10.0.0.99 the address 198.51.100.99".to_owned(),
            ),
            ("tcp 10.0.0.10:8081 > 192.0.2.9:5 from inside", "forward[0], of which it is a server".to_owned()),
            ("tcp 192.0.2.9:5 > 198.51.100.10:81 from outside", "forward[0]".to_owned()),
            (
                "udp 192.0.2.9:5 > 198.51.100.10:81 from outside",
                "no forward leads to a server from that port of 198.51.100.10".to_owned(),
            ),
            (
                "tcp 192.0.2.9:5 > 198.51.100.99:81 from outside",
                "one_to_one[0], by which 198.51.100.99 is 10.0.0.99".to_owned(),
            ),
            ("tcp 192.0.2.9:5 > 198.51.100.9:81 from outside", format!("pools[1] has 198.51.100.9: {no_host}")),
            ("udp 192.168.7.7:5 > 10.0.0.5:81 from outside", "untranslated, as 192.168.7.7 is in exclude".to_owned()),
            ("udp 192.0.2.9:5 > 10.0.0.5:81 from outside", "10.0.0.5 is no external address of this NAT's".to_owned()),
        ] {
            let described: Described = packet.parse().unwrap();
            let said = policy.explain(&mut described.frame(), described.direction());
            assert_eq!(said, Some(expected), "{packet}");
        }
        let error: Described = "icmp 192.0.2.9 > 198.51.100.8 3/1 from outside".parse().unwrap();
        assert_eq!(policy.explain(&mut error.frame(), error.direction()), None, "an error is about another packet");
    }
}
