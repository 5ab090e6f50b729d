//! What can be set about neighbours.

use crate::function::Invalid;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How neighbours are found, kept and forgotten. The times are those of RFC 4861 section 10, for
/// IPv4 too.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NeighbourConfig {
    /// Neighbours that there is room for, of both families on all interfaces.
    pub capacity: u32,
    /// How long a neighbour is believed to be there after it has shown it; each time between half
    /// and one and a half of it.
    pub reachable_seconds: u32,
    /// How long after that a neighbour that nobody needs is remembered.
    pub unused_seconds: u32,
    /// How long one that did not answer is taken to be away without asking again.
    pub unreachable_seconds: u32,
    /// Packets that wait for one neighbour's address; with one more, the oldest is dropped.
    pub waiting_for_one: u8,
    /// Packets that wait for all of them.
    pub waiting: u32,
    /// How many neighbours are begun to be looked for in a second; twice as many at once.
    pub new_per_second: u32,
    /// How many questions of others are answered in a second on one interface, and at once.
    pub answers_per_second: u32,
}

impl Default for NeighbourConfig {
    fn default() -> Self {
        Self {
            capacity: 4096,
            reachable_seconds: 30,
            unused_seconds: 600,
            unreachable_seconds: 3,
            waiting_for_one: 3,
            waiting: 512,
            new_per_second: 256,
            answers_per_second: 1000,
        }
    }
}

impl NeighbourConfig {
    /// RetransTimer, also the most often that a host may be asked for (RFC 1122 section 2.3.2.1).
    pub(super) const RETRANSMIT: Duration = Duration::from_secs(1);
    /// DELAY_FIRST_PROBE_TIME.
    pub(super) const DELAY: Duration = Duration::from_secs(5);
    /// MAX_MULTICAST_SOLICIT and MAX_UNICAST_SOLICIT.
    pub(super) const TRIES: u8 = 3;
    /// ANNOUNCE_NUM and ANNOUNCE_INTERVAL of RFC 5227 section 1.1.
    pub(super) const ANNOUNCEMENTS: u8 = 2;
    pub(super) const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
    /// DEFEND_INTERVAL there.
    pub(super) const DEFEND_INTERVAL: Duration = Duration::from_secs(10);
    /// Announcements in a second, for many addresses that come at once.
    pub(super) const ANNOUNCEMENTS_PER_SECOND: u32 = 500;

    /// Whether the values make sense.
    ///
    /// # Errors
    ///
    /// Names the key and says what it may be.
    pub fn check(&self) -> Result<(), Invalid> {
        const HOUR: u32 = 3600;
        for (key, value, least, most) in [
            ("capacity", self.capacity, 1, 1 << 20),
            ("reachable_seconds", self.reachable_seconds, 1, HOUR),
            ("unused_seconds", self.unused_seconds, 1, 24 * HOUR),
            ("unreachable_seconds", self.unreachable_seconds, 0, HOUR),
            ("waiting_for_one", self.waiting_for_one.into(), 1, 64),
            ("waiting", self.waiting, 1, 1 << 16),
            ("new_per_second", self.new_per_second, 1, 1 << 20),
            ("answers_per_second", self.answers_per_second, 1, 1 << 20),
        ] {
            if !(least..=most).contains(&value) {
                return Err(Invalid::new(key, format!("{value} is not from {least} to {most}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_usual_and_what_makes_no_sense_is_refused_by_its_key() {
        let read = |text: &str| toml::from_str::<NeighbourConfig>(text);
        assert_eq!(read("").unwrap(), NeighbourConfig::default());
        assert!(NeighbourConfig::default().check().is_ok());
        assert!(read("capasity = 1").is_err());
        for (text, wrong) in [
            ("capacity = 1", None),
            ("capacity = 0", Some("0 is not from 1 to 1048576")),
            ("reachable_seconds = 0", Some("0 is not from 1 to 3600")),
            ("unused_seconds = 86401", Some("86401 is not from 1 to 86400")),
            ("unreachable_seconds = 0", None),
            ("waiting_for_one = 65", Some("65 is not from 1 to 64")),
            ("waiting = 65537", Some("65537 is not from 1 to 65536")),
            ("new_per_second = 0", Some("0 is not from 1 to 1048576")),
            ("answers_per_second = 0", Some("0 is not from 1 to 1048576")),
        ] {
            let said = read(text).unwrap().check().err().map(|error| format!("{error:?}"));
            assert_eq!(said.is_some(), wrong.is_some(), "{text}: {said:?}");
            assert!(said.unwrap_or_default().contains(wrong.unwrap_or_default()), "{text}");
        }
    }
}
