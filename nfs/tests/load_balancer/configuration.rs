//! What a configuration may say, and what is said of one that makes no sense.

use super::bench::{VIP, VIP6, backend, config, service};
use nf_framework::Function;
use nfs::load_balancer::{Config, LoadBalancer};
use std::net::Ipv4Addr;

#[test]
fn what_makes_no_sense_is_refused_by_its_key() {
    let web = || service("dsr", "", &[11]);
    let with = |more: &str| format!("{more}\n{}", web());
    let second = |more: &str| {
        format!(
            "{}[[services]]\nname = \"two\"\naddress = \"{VIP}\"\nmode = \"dsr\"\n{more}\nbackends = [{{ address = \"{}\" }}]\n",
            web(),
            backend(12)
        )
    };
    let of_backend =
        |mode: &str, service_more: &str, more: &str| format!("{}{more}\n", service(mode, service_more, &[11]));
    for (text, key) in [
        (with("connections = 63"), "connections"),
        (with("connections_ipv6 = 1"), "connections_ipv6"),
        (with("insertions_per_second = 0"), "insertions_per_second"),
        (with("table_size = 65536"), "table_size"),
        (with("table_size = 5000077"), "table_size"),
        (with("timeouts.syn = 0"), "timeouts.syn"),
        (with("timeouts.established = 1000001"), "timeouts.established"),
        (with("source_addresses = [\"127.0.0.1\"]"), "source_addresses[0]"),
        (with(&format!("source_addresses = [\"10.0.0.9\", \"{VIP}\"]")), "source_addresses[1]"),
        (
            with(&format!(
                "source_addresses = {:?}",
                (1..=257).map(|n: u32| Ipv4Addr::from_bits(n << 8)).map(|of| of.to_string()).collect::<Vec<_>>()
            )),
            "source_addresses",
        ),
        (with("probe_addresses = [\"10.0.0.9\", \"10.0.0.9\"]"), "probe_addresses[1]"),
        (with("tunnel_sources = [\"12.0.0.0/8\", \"11.0.0.0/8\"]"), "tunnel_sources[1]"),
        (with("tunnel_sources = [\"224.0.0.0/8\"]"), "tunnel_sources[0]"),
        (with("tunnel_sources = [\"128.0.0.0/1\"]"), "tunnel_sources[0]"),
        (with("tunnel_sources = [\"96.0.0.0/3\"]"), "tunnel_sources[0]"),
        (with("tunnel_sources = [\"127.1.0.0/16\"]"), "tunnel_sources[0]"),
        (with("tunnel_sources = [\"12.0.0.0/8\", \"::/0\"]"), "tunnel_sources[1]"),
        (with("tunnel_sources = [\"12.0.0.0/8\", \"e000::/3\"]"), "tunnel_sources[1]"),
        (with("tunnel_sources = [\"203.0.113.0/24\"]"), "tunnel_sources[0]"),
        (with("tunnel_sources = [\"10.0.0.0/24\"]"), "tunnel_sources[0]"),
        (with("tunnel_sources = [\"10.9.0.0/24\"]\nsource_addresses = [\"10.9.0.2\"]"), "tunnel_sources[0]"),
        (with("tunnel_sources = [\"10.9.0.0/24\"]\nprobe_addresses = [\"10.9.0.9\"]"), "tunnel_sources[0]"),
        (with("gue_port = 0"), "gue_port"),
        ("services = []".to_owned(), "services"),
        (web().replace("\"web\"", "\"\""), "services[0].name"),
        (web().replace(&VIP.to_string(), "224.0.0.1"), "services[0].address"),
        (second("name2 = 1").replace("name2 = 1", "port = 81").replace("\"two\"", "\"web\""), "services[1].name"),
        (second("port = 80"), "services[1].port"),
        (second("port = \"79-81\""), "services[0].port"),
        (second("port = \"80-81\""), "services[1].port"),
        (service("full-nat", "", &[11]), "services[0].mode"),
        (service("dsr", "proxy_protocol = true", &[11]), "services[0].proxy_protocol"),
        (service("dsr", "hash = \"quic\"", &[11]), "services[0].hash"),
        (service("nat", "hash = \"quic\"\nprotocol = \"udp\"", &[11]), "services[0].hash"),
        (service("dsr", "dscp = 1", &[11]), "services[0].dscp"),
        (service("nat", "mtu = 1400", &[11]), "services[0].mtu"),
        (service("dsr", "too_big = \"fragment\"", &[11]), "services[0].too_big"),
        (
            of_backend("dsr", "", "weight = 5004\n[[services.backends]]\naddress = \"10.0.0.12\""),
            "services[0].backends[1].weight",
        ),
        (with("source_addresses = [\"10.0.0.11\"]"), "services[0].backends[0].address"),
        (with("probe_addresses = [\"10.0.0.11\"]"), "services[0].backends[0].address"),
        (
            second("port = 81").replace(&VIP.to_string(), "203.0.113.81").replace("10.0.0.12", "203.0.113.81"),
            "services[1].backends[0].address",
        ),
        (
            web() + &second("port = 80").replace(&web(), "").replace(&VIP.to_string(), "10.0.0.11"),
            "services[0].backends[0].address",
        ),
        (
            of_backend("nat", "", "port = 80\n[[services.backends]]\naddress = \"10.0.0.11\""),
            "services[0].backends[1].address",
        ),
        (service("dscp", "", &[11]), "services[0].backends[0].dscp"),
        (service("dscp", "dscp = 64", &[11]), "services[0].backends[0].dscp"),
        (service("dsr", "", &[11, 12, 11]), "services[0].backends[2].address"),
        (of_backend("dsr", "", "port = 8080"), "services[0].backends[0].port"),
        (of_backend("nat", "port = \"80-81\"", "port = 8080"), "services[0].backends[0].port"),
        (of_backend("dsr", "", "dscp = 8"), "services[0].backends[0].dscp"),
        (of_backend("dsr", "", "server_id = \"01\""), "services[0].backends[0].server_id"),
        (
            of_backend("dsr", "", &format!("[[services.backends]]\naddress = \"{VIP6}\"")),
            "services[0].backends[1].address",
        ),
        (
            of_backend("dsr", "", &format!("[[services.backends]]\naddress = \"{VIP}\"")),
            "services[0].backends[1].address",
        ),
        (
            of_backend("dsr", "", "name = \"a\"\n[[services.backends]]\naddress = \"10.0.0.12\"\nname = \"a\""),
            "services[0].backends[1].name",
        ),
        (
            of_backend(
                "dsr",
                "hash = \"quic\"\nprotocol = \"udp\"",
                "server_id = \"01\"\n[[services.backends]]\naddress = \"10.0.0.12\"\nserver_id = \"0102\"",
            ),
            "services[0].backends[1].server_id",
        ),
        (
            of_backend(
                "dsr",
                "hash = \"quic\"\nprotocol = \"udp\"",
                "server_id = \"01\"\n[[services.backends]]\naddress = \"10.0.0.12\"\nserver_id = \"01\"",
            ),
            "services[0].backends[1].server_id",
        ),
    ] {
        match LoadBalancer::new().policy(config(&text)) {
            Err(invalid) => assert_eq!(invalid.key, key, "{}\n{text}", invalid.message),
            Ok(_) => panic!("{key} is not refused:\n{text}"),
        }
    }
}

#[test]
fn what_is_refused_says_what_stands_in_its_way() {
    let backend = |port: &str| service("nat", port, &[11]) + "port = 8080\n";
    let two = format!("{}{}", service("dsr", "", &[11]), service("dsr", "", &[12]).replace("\"web\"", "\"two\""));
    let check = "[services.health]\nkind = \"tcp\"\n";
    for (text, expected) in [
        (
            backend("port = \"8000-8999\""),
            "the service has the ports 8000-8999: leave it out, and backends get the port that clients chose",
        ),
        (two, "the service \"web\" has port 80 of 203.0.113.80 by this protocol"),
        (
            service("dsr", "", &[11]) + check,
            "checks need an IPv4 address to be sent from: [load-balancer] probe_addresses = [\"...\"]",
        ),
    ] {
        match LoadBalancer::new().policy(config(&text)) {
            Err(invalid) => assert_eq!(invalid.message, expected, "{}\n{text}", invalid.key),
            Ok(_) => panic!("{expected}\n{text}"),
        }
    }
}

#[test]
fn services_of_one_address_may_share_it() {
    let one = |name: &str, protocol: &str, port: &str| {
        format!(
            "[[services]]\nname = \"{name}\"\naddress = \"{VIP}\"\nprotocol = \"{protocol}\"\nmode = \"dsr\"\n{port}\n\
             backends = [{{ address = \"10.0.0.11\" }}]\n"
        )
    };
    let text = [
        one("a", "tcp", "port = 80"),
        one("b", "udp", "port = 80"),
        one("c", "tcp", ""),
        one("d", "any", "port = \"1-90\""),
    ];
    let balancer = LoadBalancer::new();
    let policy = balancer.policy(config(&text.concat())).unwrap();
    let address = nf_framework::Prefix::new(VIP.into(), 32).unwrap();
    assert_eq!(balancer.addresses(&policy), [address]);
    assert_eq!(balancer.address_key(&policy, VIP.into()), "services[0].address");
    assert!(balancer.memory(&policy) > 4096 * 24);
}

#[test]
fn unknown_keys_are_refused() {
    for text in [
        "other = 1",
        "timeouts.other = 1",
        "services = [{ name = \"a\", address = \"10.0.0.1\", mode = \"dsr\", backends = [], other = 1 }]",
        "services = [{ name = \"a\", address = \"10.0.0.1\", mode = \"dsr\", backends = [{ address = \"10.0.0.2\", other = 1 }] }]",
        "services = [{ name = \"a\", address = \"10.0.0.1\", mode = \"other\", backends = [] }]",
    ] {
        assert!(toml::from_str::<Config>(text).is_err(), "{text}");
    }
}
