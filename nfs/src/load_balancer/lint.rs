//! What is right in a load balancer's table and of no use, or perhaps not what was meant.

use super::config::{Config, ServiceConfig, ServiceProtocol};
use nf_framework::Finding;

/// What who wrote the table should know of it.
pub(super) fn lint(config: &Config) -> Vec<Finding> {
    let services = config.services.iter().enumerate();
    services.flat_map(|(place, service)| of_service(config, service, &format!("services[{place}]"))).collect()
}

fn of_service(config: &Config, service: &ServiceConfig, key: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if service.backends.is_empty() {
        let message = "there is none, so nobody gets a flow of this service";
        findings.push(Finding::new(format!("{key}.backends"), message));
    } else if service.backends.iter().all(|backend| backend.weight == 0) {
        let message = "the weight of each is 0, so nobody gets a new flow of this service";
        findings.push(Finding::new(format!("{key}.backends"), message));
    }
    if let Some([tcp, udp]) = in_its_place(config, service) {
        let message = format!("no packet is for it: {tcp:?} has its ports by TCP, and {udp:?} by UDP");
        findings.push(Finding::new(key, message));
    }
    if let Some(health) = service.health.as_ref().filter(|health| health.timeout > health.interval) {
        let [timeout, interval] = [health.timeout, health.interval].map(|time| time.0.as_secs_f64());
        let message = format!(
            "a check may take {timeout} s, longer than the interval of {interval} s: a silent backend is asked again only \
             when the time is over"
        );
        findings.push(Finding::new(format!("{key}.health.timeout"), message));
    }
    findings
}

/// Of a service of any protocol: those of TCP and UDP that go before it on all its ports.
fn in_its_place<'a>(config: &'a Config, service: &ServiceConfig) -> Option<[&'a str; 2]> {
    let ports = service.port.filter(|_| service.protocol == ServiceProtocol::Any)?;
    let by = |protocol| {
        let has_all = |of: &&ServiceConfig| {
            let has = of.port.is_some_and(|of| of.first <= ports.first && ports.last <= of.last);
            (of.address, of.protocol) == (service.address, protocol) && has
        };
        config.services.iter().find(has_all).map(|of| of.name.as_str())
    };
    Some([by(ServiceProtocol::Tcp)?, by(ServiceProtocol::Udp)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, more: &str) -> String {
        format!("[[services]]\nname = '{name}'\naddress = '203.0.113.80'\nmode = 'nat'\n{more}\n")
    }

    #[test]
    fn what_is_of_no_use_is_found_and_what_is_not_is_left_alone() {
        let one = "backends = [{ address = '10.0.0.11' }]";
        let health = |more: &str| format!("{one}\n[services.health]\nkind = 'tcp'\n{more}\n");
        let ports = |protocol: &str, ports: &str| format!("protocol = '{protocol}'\nport = {ports}\n{one}");
        let covered = |udp: &str| {
            let tcp = service("web", &ports("tcp", "'80-90'"));
            tcp + &service("quic", &ports("udp", udp)) + &service("all", &ports("any", "'80-81'"))
        };
        for (text, expected) in [
            (service("web", one), &[][..]),
            (
                service("web", "backends = []"),
                &["services[0].backends: there is none, so nobody gets a flow of this service"],
            ),
            (
                service("web", "backends = [{ address = '10.0.0.11', weight = 0 }]"),
                &["services[0].backends: the weight of each is 0, so nobody gets a new flow of this service"],
            ),
            (service("web", "backends = [{ address = '10.0.0.11', weight = 0 }, { address = '10.0.0.12' }]"), &[]),
            (
                covered("'80-81'"),
                &["services[2]: no packet is for it: \"web\" has its ports by TCP, and \"quic\" by UDP"],
            ),
            (covered("80"), &[]),
            (service("web", &health("")), &[]),
            (
                service("web", &health("interval = 0.5\ntimeout = 1")),
                &[
                    "services[0].health.timeout: a check may take 1 s, longer than the interval of 0.5 s: a silent backend \
                   is asked again only when the time is over",
                ],
            ),
        ] {
            let config: Config = toml::from_str(&text).unwrap();
            let found: Vec<_> = lint(&config).iter().map(|of| format!("{}: {}", of.key, of.message)).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
