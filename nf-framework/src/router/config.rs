//! The router's part of a configuration file.

use crate::classifier::{Prefix, is_host};
use crate::neighbours::NeighbourConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// The table `[router]`: what the host's interfaces are, and where packets go.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouterConfig {
    /// By name. Each stands at one end of the chain.
    pub interfaces: BTreeMap<String, InterfaceConfig>,
    /// Routes beside those of the interfaces' own prefixes.
    #[serde(default)]
    pub routes: Vec<RouteConfig>,
    /// ICMP errors that each worker sends in a second, RFC 1812 section 4.3.2.8 and RFC 4443
    /// section 2.4 (f).
    #[serde(default = "usual_errors")]
    pub icmp_errors_per_second: u32,
    /// How neighbours are found, kept and forgotten.
    #[serde(default)]
    pub neighbours: NeighbourConfig,
}

fn usual_errors() -> u32 {
    1000
}

impl RouterConfig {
    /// The interfaces that the kernel is on, and by which port.
    pub(crate) fn hosts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.interfaces.iter().filter_map(|(name, interface)| Some((name.as_str(), interface.host.as_deref()?)))
    }

    /// What stands in the way of packets to an address, or to it as a neighbour, as far as the configuration alone can
    /// tell: the kernel may have more addresses and routes.
    pub(crate) fn no_way_to(&self, address: IpAddr, on_link: bool) -> Option<&'static str> {
        if self.hosts().next().is_some() {
            return None;
        }
        let own = self.interfaces.values().flat_map(|interface| &interface.addresses);
        let is_link_local = match address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        let routes = || self.routes.iter().filter(|route| route.to.contains(address));
        let is_neighbour = is_link_local
            || own.map(|own| own.prefix).any(|prefix| prefix.contains(address))
            || routes().any(|route| route.via.is_none() && route.refuse.is_none());
        if is_neighbour {
            None
        } else if on_link {
            Some("it is on no link of the router")
        } else if routes().all(|route| route.refuse.is_some()) {
            Some("no route leads there")
        } else {
            None
        }
    }

    /// What no function can take packets for, and what it is: to answer for a next router would cut off all
    /// that is behind it, and no host has the first or last address of a link.
    pub(crate) fn not_for_functions(&self) -> BTreeMap<IpAddr, String> {
        let mut all = BTreeMap::new();
        for (name, interface) in &self.interfaces {
            for own in &interface.addresses {
                let Some(broadcast) = own.broadcast() else { continue };
                let (first, of) = (own.prefix.address(), format!("of {} on the interface {name:?}", own.prefix));
                all.insert(first, format!("the first address {of}, which stands for the network"));
                all.insert(broadcast.into(), format!("the last address {of}, its broadcast address"));
            }
        }
        for (index, via) in self.routes.iter().enumerate().filter_map(|(index, route)| Some((index, route.via?))) {
            all.entry(via).or_insert_with(|| format!("the next router of routes[{index}]"));
        }
        all
    }
}

/// An interface of the router: a port, or a VLAN on it.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct InterfaceConfig {
    /// The end of the chain that it stands at.
    pub side: Side,
    /// The VLAN (IEEE 802.1Q) whose frames are its own, 1 to 4094; frames without a tag unless
    /// given. With VLANs both sides may be on one port.
    pub vlan: Option<u16>,
    /// Its addresses, each with the length of the prefix that its neighbours share:
    /// `192.0.2.1/24`. With a `host` they may be left to the kernel.
    #[serde(default)]
    pub addresses: Vec<InterfaceAddress>,
    /// Bytes in the largest IP packet that it sends; the port's MTU unless given.
    pub mtu: Option<u16>,
    /// A device's name, such as `net_tap2`, whose other end is an interface of the kernel: there the
    /// kernel is a host on this link under the same MAC address. It gets what is for the router
    /// itself, and addresses and routes that it has there are the router's too.
    pub host: Option<String>,
}

/// An end of the chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// The inside end.
    Inside,
    /// The outside end.
    Outside,
}

/// Where packets to some destinations go.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RouteConfig {
    /// The destinations; `0.0.0.0/0` and `::/0` are all that no longer prefix has.
    #[serde(with = "text")]
    pub to: Prefix,
    /// The router that they go to, which has to be on an interface's prefix.
    pub via: Option<IpAddr>,
    /// For a link-local `via`, or without one for destinations that are neighbours themselves.
    pub interface: Option<String>,
    /// In place of both: what becomes of packets there.
    pub refuse: Option<Refuse>,
}

/// What becomes of packets that are not forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refuse {
    /// They are dropped without a word.
    Blackhole,
    /// The sender is told that there is no way.
    Unreachable,
    /// The sender is told that it is forbidden.
    Prohibited,
}

/// An address, and how many of its bits its neighbours share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// The prefix that it lies in.
    pub prefix: Prefix,
}

impl InterfaceAddress {
    /// The address to which the neighbours all listen, RFC 919; IPv6 has none, and neither do
    /// prefixes of two addresses or one (RFC 3021).
    #[must_use]
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match (self.prefix.address(), self.prefix.length()) {
            (IpAddr::V4(first), length @ ..31) => Some(Ipv4Addr::from_bits(first.to_bits() | u32::MAX >> length)),
            _ => None,
        }
    }
}

impl FromStr for InterfaceAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = text
            .split_once('/')
            .ok_or_else(|| format!("{text:?} has no prefix length: write {text}/24 or the like"))?;
        let address: IpAddr = address.parse().map_err(|_| format!("{text:?} does not begin with an IP address"))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length: u8 = length
            .parse()
            .ok()
            .filter(|length| *length <= most)
            .ok_or_else(|| format!("{text:?}: the length is from 0 to {most}"))?;
        let prefix = match Prefix::new(address, length) {
            Ok(prefix) | Err(crate::InvalidPrefix::HostBits { meant: prefix, .. }) => prefix,
            Err(error) => return Err(error.to_string()),
        };
        let this = Self { address, prefix };
        if !is_host(address) {
            return Err(format!("{address} is not an address that a host can have"));
        }
        if this.broadcast().is_some_and(|broadcast| address == broadcast || address == prefix.address()) {
            return Err(format!("{address} is the first or the last address of {prefix}, which no host has"));
        }
        Ok(this)
    }
}

impl TryFrom<String> for InterfaceAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix.length())
    }
}

impl Serialize for InterfaceAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Values that are written as text.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::fmt::Display;

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        T::deserialize(deserializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_has_an_address_that_a_host_can_have() {
        let parsed = |text: &str| text.parse::<InterfaceAddress>().map(|address| address.to_string());
        for good in ["192.0.2.1/24", "192.0.2.0/31", "192.0.2.1/31", "192.0.2.255/32", "2001:db8::1/64", "fe80::1/64"] {
            assert_eq!(parsed(good), Ok(good.to_owned()));
        }
        for (bad, why) in [
            ("192.0.2.1", "no prefix length"),
            ("192.0.2/24", "does not begin with an IP address"),
            ("192.0.2.1/33", "from 0 to 32"),
            ("2001:db8::1/129", "from 0 to 128"),
            ("192.0.2.1/x", "from 0 to 32"),
            ("192.0.2.0/24", "first or the last"),
            ("192.0.2.255/24", "first or the last"),
            ("0.0.0.1/8", "a host can have"),
            ("127.0.0.1/8", "a host can have"),
            ("224.0.0.1/24", "a host can have"),
            ("255.255.255.255/32", "a host can have"),
            ("::/128", "a host can have"),
            ("::1/128", "a host can have"),
            ("ff02::1/64", "a host can have"),
        ] {
            let error = parsed(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn what_the_configuration_has_no_way_to_is_told() {
        let interface = "[interfaces.lan]\nside = 'inside'\naddresses = ['10.0.0.1/24', '2001:db8::1/64']\n";
        let route = |to: &str, way: &str| format!("{interface}[[routes]]\nto = '{to}'\n{way}\n");
        let no_route = Some("no route leads there");
        let no_link = Some("it is on no link of the router");
        for (text, address, way, link) in [
            (interface.to_owned(), "10.0.0.11", None, None),
            (interface.to_owned(), "2001:db8::11", None, None),
            (interface.to_owned(), "fe80::11", None, None),
            (interface.to_owned(), "192.168.7.7", no_route, no_link),
            (route("192.168.0.0/16", "via = '10.0.0.254'"), "192.168.7.7", None, no_link),
            (route("192.168.0.0/16", "interface = 'lan'"), "192.168.7.7", None, None),
            (route("192.168.0.0/16", "refuse = 'blackhole'"), "192.168.7.7", no_route, no_link),
            (route("0.0.0.0/0", "via = '10.0.0.254'"), "2001:db8:1::1", no_route, no_link),
            // The kernel knows.
            (format!("{interface}host = 'net_tap2'\n"), "192.168.7.7", None, None),
        ] {
            let config: RouterConfig = toml::from_str(&text).unwrap();
            let found = [false, true].map(|on_link| config.no_way_to(address.parse().unwrap(), on_link));
            assert_eq!(found, [way, link], "{address}\n{text}");
        }
    }

    #[test]
    fn the_last_address_of_a_prefix_is_its_broadcast_address() {
        for (address, broadcast) in [
            ("192.0.2.1/24", Some([192, 0, 2, 255])),
            ("10.0.0.1/8", Some([10, 255, 255, 255])),
            ("192.0.2.1/30", Some([192, 0, 2, 3])),
            ("192.0.2.1/31", None),
            ("192.0.2.1/32", None),
            ("2001:db8::1/64", None),
        ] {
            let address: InterfaceAddress = address.parse().unwrap();
            assert_eq!(address.broadcast(), broadcast.map(Ipv4Addr::from), "{address}");
        }
    }
}
