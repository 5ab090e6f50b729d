//! What a configuration wants to be checked.

use super::{Check, HealthKind, ProbeAddresses, Target};
use crate::load_balancer::config::{Config, Mode, ServiceConfig};
use crate::load_balancer::policy::{Backend, Policy};
use nf_framework::Invalid;
use std::sync::Arc;

/// How the backends of a service are checked, if they are.
type Wanted = Option<Arc<Check>>;

/// The checks of all services that have one, and where they come from. Those of an earlier policy of which the
/// configuration is the same are taken over.
pub(crate) fn checks(config: &Config, before: &[Wanted]) -> Result<(ProbeAddresses, Vec<Wanted>), Invalid> {
    let probes = ProbeAddresses::new(&config.probe_addresses)?;
    let taken = config.probe_addresses.iter().position(|address| config.source_addresses.contains(address));
    if let Some(place) = taken {
        let message = format!("{} stands in source_addresses too", config.probe_addresses[place]);
        return Err(Invalid::new(format!("probe_addresses[{place}]"), message));
    }
    let check = |(place, service): (usize, &ServiceConfig)| {
        let Some(health) = &service.health else { return Ok(None) };
        let at = format!("services[{place}].health");
        if probes.towards(service.address).is_none() {
            let family = if service.address.is_ipv4() { "IPv4" } else { "IPv6" };
            let message =
                format!("checks need an {family} address to be sent from: [load-balancer] probe_addresses = [\"...\"]");
            return Err(Invalid::new(at, message));
        }
        if service.port.is_none() && health.port.is_none() && health.kind != HealthKind::Icmp {
            return Err(Invalid::new(format!("{at}.port"), "the service has no port: say which one is asked"));
        }
        let known = before.get(place).and_then(Option::as_ref).filter(|check| check.config == *health);
        known.map_or_else(|| Check::new(health.clone(), &at).map(Arc::new), |known| Ok(Arc::clone(known))).map(Some)
    };
    let checks = config.services.iter().enumerate().map(check).collect::<Result<_, _>>()?;
    Ok((probes, checks))
}

/// The backends that are checked under this policy.
pub(crate) fn targets(policy: &Policy) -> Vec<Target> {
    let target = |(slot, backend): (u16, &Option<Backend>)| {
        let backend = backend.as_ref()?;
        let place = usize::from(backend.service?);
        let check = Arc::clone(policy.checks.get(place)?.as_ref()?);
        let service = policy.config.services.get(place)?;
        let identity = &backend.identity;
        let served = service.port.map_or(0, |ports| ports.first);
        let (address, port) = match service.mode {
            // Backends have the service's address, or unpack what is for it.
            Mode::Dsr | Mode::Ipip | Mode::Gre | Mode::Gue | Mode::Dscp => (service.address, served),
            Mode::Nat | Mode::FullNat => (identity.address, identity.port.unwrap_or(served)),
        };
        let remote = (address, check.config.port.unwrap_or(port));
        let (service, name) = (Arc::from(service.name.as_str()), backend.name.clone());
        Some(Target { slot, service, name, remote, check, status: Arc::clone(&backend.status) })
    };
    (0..).zip(&policy.backends).filter_map(target).collect()
}
