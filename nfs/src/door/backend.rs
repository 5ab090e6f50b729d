//! A server of a load balancer, as people see it.

use serde::Deserialize;
use serde_json::Value;

/// One of a function's `backends`.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Backend {
    /// The service that it is of.
    pub service: String,
    /// What it is called.
    #[serde(alias = "backend")]
    pub name: String,
    /// Its address, with a port if it has one.
    pub address: String,
    /// Its share of new flows by the configuration.
    pub weight: u64,
    /// How much of that it may get, in thousandths; 0 if it is down.
    pub share: Option<u64>,
    /// `serve`, `drain` or `down`.
    pub order: String,
    /// Packets that it was sent.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Connections that it was given.
    pub begun: u64,
    /// Those that it has.
    pub live: u64,
    /// Those that came to nothing.
    pub failed: u64,
}

impl Backend {
    /// One as the door has it, whose totals may stand beside its other fields or in a table of their own.
    #[must_use]
    pub fn of(mut item: Value) -> Option<Self> {
        if let Some(Value::Object(totals)) = item.get_mut("totals").map(Value::take) {
            item.as_object_mut()?.extend(totals);
        }
        serde_json::from_value(item).ok()
    }

    /// SERVICE/BACKEND, as one says it to nf-ctl.
    #[must_use]
    pub fn full_name(&self) -> String {
        let service = if self.service.is_empty() { String::new() } else { format!("{}/", self.service) };
        format!("{service}{}", self.name)
    }

    /// What it is told, or else what its checks say.
    #[must_use]
    pub fn state(&self) -> String {
        match (self.order.as_str(), self.share) {
            ("drain", _) => "drains".to_owned(),
            ("down", _) => "put down".to_owned(),
            (_, Some(0)) => "down".to_owned(),
            (_, Some(share @ 1..1000)) => format!("up {}%", share / 10),
            _ => "up".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn totals_stand_inside_or_beside() {
        let flat = json!({"service": "web", "name": "b1", "address": "10.0.0.1", "weight": 1, "packets": 7, "live": 2});
        let nested = json!({"service": "web", "backend": "b1", "address": "10.0.0.1", "weight": 1, "totals": {"packets": 7, "live": 2}});
        assert_eq!(Backend::of(flat), Backend::of(nested));
        assert_eq!(Backend::of(json!(1)), None);
    }
}
