//! How the NAT is configured, as the model knows it and as its configuration file says it.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

/// An address and how many of its leading bits count.
pub(crate) type Prefix = (Ipv4Addr, u8);
pub(crate) type Endpoint = (Ipv4Addr, u16);

pub(crate) fn contains(prefix: Prefix, address: Ipv4Addr) -> bool {
    let shift = 32 - u32::from(prefix.1);
    u32::from(prefix.0).checked_shr(shift) == u32::from(address).checked_shr(shift)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Filtering {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pub(crate) addresses: Vec<Ipv4Addr>,
    pub(crate) draining: Vec<Ipv4Addr>,
    pub(crate) subscribers: Vec<Prefix>,
    pub(crate) to: Vec<Prefix>,
    pub(crate) ports: (u16, u16),
}

#[derive(Clone, Debug)]
pub(crate) struct Forward {
    pub(crate) protocol: u8,
    pub(crate) outside: Ipv4Addr,
    pub(crate) ports: (u16, u16),
    pub(crate) to: Vec<Endpoint>,
}

/// In seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    pub(crate) udp: u64,
    pub(crate) tcp_opening: u64,
    pub(crate) tcp_established: u64,
    pub(crate) tcp_closing: u64,
    pub(crate) icmp: u64,
    pub(crate) port_quiet: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) sessions: usize,
    pub(crate) subscribers: usize,
    pub(crate) pools: Vec<Pool>,
    pub(crate) ports_per_subscriber: Option<usize>,
    pub(crate) sessions_per_subscriber: Option<usize>,
    pub(crate) tcp: Filtering,
    pub(crate) udp: Filtering,
    pub(crate) paired: bool,
    pub(crate) preserve: bool,
    pub(crate) keep_range: bool,
    pub(crate) keep_parity: bool,
    pub(crate) refuse_syn: bool,
    pub(crate) mss: Option<u16>,
    pub(crate) forward_ipv6: bool,
    pub(crate) exclude: Vec<Prefix>,
    pub(crate) one_to_one: Vec<(Ipv4Addr, Ipv4Addr)>,
    pub(crate) forward: Vec<Forward>,
    pub(crate) timeouts: Timeouts,
}

impl Setting {
    /// The table `[nat]` of a configuration file, without its name.
    pub(crate) fn toml(&self) -> String {
        let mut text = String::new();
        let filtering = |filtering| match filtering {
            Filtering::EndpointIndependent => "endpoint-independent",
            Filtering::AddressDependent => "address-dependent",
            Filtering::AddressAndPortDependent => "address-and-port-dependent",
        };
        let prefixes = |prefixes: &[Prefix]| {
            let each: Vec<String> = prefixes.iter().map(|(address, bits)| format!("\"{address}/{bits}\"")).collect();
            format!("[{}]", each.join(", "))
        };
        let addresses = |of: &[Ipv4Addr]| prefixes(&of.iter().map(|address| (*address, 32)).collect::<Vec<_>>());
        let mut line = |arguments: std::fmt::Arguments<'_>| text.write_fmt(arguments).expect("a string takes all");
        line(format_args!("sessions = {}\nsubscribers = {}\n", self.sessions, self.subscribers));
        if let Some(most) = self.ports_per_subscriber {
            line(format_args!("ports_per_subscriber = {most}\n"));
        }
        if let Some(most) = self.sessions_per_subscriber {
            line(format_args!("sessions_per_subscriber = {most}\n"));
        }
        line(format_args!("filtering = {{ tcp = \"{}\", udp = \"{}\" }}\n", filtering(self.tcp), filtering(self.udp)));
        line(format_args!("pooling = \"{}\"\n", if self.paired { "paired" } else { "arbitrary" }));
        line(format_args!("port_selection = \"{}\"\n", if self.preserve { "preserve" } else { "random" }));
        line(format_args!("keep_range = {}\nkeep_parity = {}\n", self.keep_range, self.keep_parity));
        line(format_args!("unsolicited_syn = \"{}\"\n", if self.refuse_syn { "refuse" } else { "silent" }));
        if let Some(mss) = self.mss {
            line(format_args!("mss = {mss}\n"));
        }
        line(format_args!("ipv6 = \"{}\"\n", if self.forward_ipv6 { "forward" } else { "drop" }));
        line(format_args!("exclude = {}\n", prefixes(&self.exclude)));
        let Timeouts { udp, tcp_opening, tcp_established, tcp_closing, icmp, port_quiet } = self.timeouts;
        line(format_args!(
            "[timeouts]\nudp = {udp}\ntcp_opening = {tcp_opening}\ntcp_established = {tcp_established}\n\
             tcp_closing = {tcp_closing}\nicmp = {icmp}\nport_quiet = {port_quiet}\n"
        ));
        for pool in &self.pools {
            line(format_args!(
                "[[pools]]\naddresses = {}\ndraining = {}\nsubscribers = {}\nto = {}\nports = \"{}-{}\"\n",
                addresses(&pool.addresses),
                addresses(&pool.draining),
                prefixes(&pool.subscribers),
                prefixes(&pool.to),
                pool.ports.0,
                pool.ports.1
            ));
        }
        for (inside, outside) in &self.one_to_one {
            line(format_args!("[[one_to_one]]\ninside = \"{inside}\"\noutside = \"{outside}\"\n"));
        }
        for Forward { protocol, outside, ports, to } in &self.forward {
            let protocol = if *protocol == super::bytes::TCP { "tcp" } else { "udp" };
            let to: Vec<String> = to.iter().map(|(address, port)| format!("\"{address}:{port}\"")).collect();
            line(format_args!(
                "[[forward]]\nprotocol = \"{protocol}\"\noutside = \"{outside}\"\nports = \"{}-{}\"\nto = [{}]\n",
                ports.0,
                ports.1,
                to.join(", ")
            ));
        }
        text
    }

    /// Whether sessions are evicted; in other settings there are never as many as there is room for.
    pub(crate) fn has_small_tables(&self) -> bool {
        self.sessions < 1000
    }

    pub(crate) fn is_excluded(&self, address: Ipv4Addr) -> bool {
        !self.is_external(address) && self.exclude.iter().any(|prefix| contains(*prefix, address))
    }

    pub(crate) fn is_pool_address(&self, address: Ipv4Addr) -> bool {
        self.pools.iter().any(|pool| pool.addresses.contains(&address) || pool.draining.contains(&address))
    }

    pub(crate) fn is_external(&self, address: Ipv4Addr) -> bool {
        self.is_pool_address(address)
            || self.one_to_one.iter().any(|(_, outside)| *outside == address)
            || self.forward.iter().any(|forward| forward.outside == address)
    }

    pub(crate) fn outside_of(&self, inside: Ipv4Addr) -> Option<Ipv4Addr> {
        self.one_to_one.iter().find(|pair| pair.0 == inside).map(|pair| pair.1)
    }

    pub(crate) fn inside_of(&self, outside: Ipv4Addr) -> Option<Ipv4Addr> {
        self.one_to_one.iter().find(|pair| pair.1 == outside).map(|pair| pair.0)
    }

    /// The servers behind an external port, each with its own.
    pub(crate) fn servers(&self, protocol: u8, external: Endpoint) -> Option<Vec<Endpoint>> {
        let forward = self.forward.iter().find(|forward| {
            let within = (forward.ports.0..=forward.ports.1).contains(&external.1);
            forward.protocol == protocol && forward.outside == external.0 && within
        })?;
        let further = external.1 - forward.ports.0;
        Some(forward.to.iter().map(|(address, port)| (*address, port + further)).collect())
    }

    /// The external port that a server stands behind.
    pub(crate) fn external_of_server(&self, protocol: u8, server: Endpoint) -> Option<Endpoint> {
        self.forward.iter().filter(|forward| forward.protocol == protocol).find_map(|forward| {
            (forward.ports.0..=forward.ports.1)
                .map(|port| (forward.outside, port))
                .find(|external| self.servers(protocol, *external).is_some_and(|servers| servers.contains(&server)))
        })
    }

    pub(crate) fn pool_for(&self, inside: Ipv4Addr, destination: Ipv4Addr) -> Option<usize> {
        let fits = |prefixes: &[Prefix], address| {
            prefixes.is_empty() || prefixes.iter().any(|prefix| contains(*prefix, address))
        };
        self.pools.iter().position(|pool| fits(&pool.subscribers, inside) && fits(&pool.to, destination))
    }
}
