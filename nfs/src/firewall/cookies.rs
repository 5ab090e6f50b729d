//! SYN cookies, RFC 4987 section 3.6: what has to be known of a SYN is in the number of the answer to it, and comes
//! back with the client's acknowledgment. Nothing is remembered meanwhile.
//!
//! Of the 32 bits 24 are a keyed hash (SipHash) of both ends, the client's number and the other 8, which say what the
//! client's SYN has offered: an index of segment sizes, the window scale and whether SACK is permitted, and which secret
//! it was. There are two at a time: each is drawn anew after two periods, so that a cookie is good for one to two.
//! Timestamps find no room, and are not agreed on.

use super::connection::FlowKey;
use nf_framework::Instant;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// What makes cookies and knows its own.
#[derive(Debug)]
pub(super) struct Cookies {
    /// By whether the period is odd.
    secrets: [RandomState; 2],
    period: u64,
}

/// What a client's SYN offers, as far as a cookie keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Offer {
    /// Octets of data in a segment.
    pub(super) mss: u16,
    pub(super) scale: Option<u8>,
    pub(super) sack: bool,
}

/// A connection that a client begins, as a cookie stands for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Beginning {
    pub(super) key: FlowKey,
    pub(super) from_low: bool,
    /// The number of the client's SYN.
    pub(super) number: u32,
}

/// How long a secret is the newest: RFC 4987 leaves it open, and Linux has a minute.
const PERIOD: Duration = Duration::from_secs(64);
/// Sizes that an offer is rounded down to: what any host takes (RFC 9293 section 3.7.1), and what is usual behind
/// tunnels, with PPPoE and on Ethernet.
const MSS_V4: [u16; 4] = [536, 1300, 1440, 1460];
const MSS_V6: [u16; 4] = [1220, 1360, 1420, 1440];
const NO_SCALE: u8 = 15;
/// The low octet: secret, SACK, window scale and size, from the highest bit on.
const SECRET: u32 = 0x80;
const SACK: u32 = 0x40;
const OFFER: u32 = 0xff;

impl Cookies {
    pub(super) fn new() -> Self {
        Self { secrets: [RandomState::new(), RandomState::new()], period: 0 }
    }

    /// Draws new secrets in time.
    pub(super) fn turn(&mut self, now: Instant) {
        let period = now.as_nanoseconds() / u64::try_from(PERIOD.as_nanos()).unwrap_or(u64::MAX);
        match period.saturating_sub(self.period) {
            0 => return,
            1 => self.secrets[usize::from(period % 2 == 1)] = RandomState::new(),
            _ => self.secrets = [RandomState::new(), RandomState::new()],
        }
        self.period = period;
    }

    /// The number to answer a SYN with.
    pub(super) fn make(&self, of: &Beginning, offer: Offer) -> u32 {
        let size = sizes(is_v4(&of.key)).iter().rposition(|size| *size <= offer.mss).unwrap_or(0);
        let secret = if self.period % 2 == 1 { SECRET } else { 0 };
        let sack = if offer.sack { SACK } else { 0 };
        let scale = u32::from(offer.scale.map_or(NO_SCALE, |scale| scale.min(14)));
        self.hash(of, secret | sack | scale << 2 | u32::try_from(size).unwrap_or(0))
    }

    /// What the client has offered, if this is a cookie of ours for it, and not too old.
    pub(super) fn check(&self, of: &Beginning, cookie: u32) -> Option<Offer> {
        (self.hash(of, cookie & OFFER) == cookie).then(|| Offer::kept_in(cookie, is_v4(&of.key)))
    }

    fn hash(&self, of: &Beginning, offer: u32) -> u32 {
        let secret = &self.secrets[usize::from(offer & SECRET != 0)];
        let [a, b, c, ..] = secret.hash_one((of, offer)).to_be_bytes();
        u32::from_be_bytes([a, b, c, 0]) | offer
    }
}

impl Offer {
    /// That of a cookie which was found to be good.
    pub(super) fn kept_in(cookie: u32, four: bool) -> Self {
        let [.., bits] = cookie.to_be_bytes();
        let scale = Some(bits >> 2 & 15).filter(|scale| *scale != NO_SCALE);
        Self { mss: sizes(four)[usize::from(bits & 3)], scale, sack: cookie & SACK != 0 }
    }
}

fn sizes(four: bool) -> &'static [u16; 4] {
    if four { &MSS_V4 } else { &MSS_V6 }
}

fn is_v4(key: &FlowKey) -> bool {
    matches!(key, FlowKey::V4(_))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOMEBODY: Beginning = Beginning { key: FlowKey::V4([7; 16]), from_low: true, number: 1000 };

    #[test]
    fn a_cookie_keeps_what_the_client_has_offered() {
        let cookies = Cookies::new();
        for (key, offered, kept) in [
            (FlowKey::V4([7; 16]), 1460, 1460),
            (FlowKey::V4([7; 16]), 8960, 1460),
            (FlowKey::V4([7; 16]), 1459, 1440),
            (FlowKey::V4([7; 16]), 100, 536),
            (FlowKey::V6([7; 40]), 1440, 1440),
            (FlowKey::V6([7; 40]), 1400, 1360),
            (FlowKey::V6([7; 40]), 0, 1220),
        ] {
            for (scale, sack) in [(None, false), (Some(0), true), (Some(14), false), (Some(7), true)] {
                let of = Beginning { key, ..SOMEBODY };
                let cookie = cookies.make(&of, Offer { mss: offered, scale, sack });
                assert_eq!(cookies.check(&of, cookie), Some(Offer { mss: kept, scale, sack }));
            }
        }
        let cookie = cookies.make(&SOMEBODY, Offer { mss: 1460, scale: Some(200), sack: true });
        assert_eq!(cookies.check(&SOMEBODY, cookie).unwrap().scale, Some(14), "RFC 7323 section 2.3");
    }

    #[test]
    fn a_cookie_is_for_one_beginning_alone() {
        let cookies = Cookies::new();
        let offer = Offer { mss: 1460, scale: Some(7), sack: true };
        // One of some sixteen million would fit all the same.
        let found: Vec<_> = (0..100)
            .map(|number| {
                let of = Beginning { number, ..SOMEBODY };
                let cookie = cookies.make(&of, offer);
                let others = [
                    cookies.check(&Beginning { key: FlowKey::V4([8; 16]), ..of }, cookie),
                    cookies.check(&Beginning { from_low: false, ..of }, cookie),
                    cookies.check(&Beginning { number: number + 1000, ..of }, cookie),
                    cookies.check(&of, cookie ^ 1),
                    cookies.check(&of, cookie ^ 0x8000_0000),
                    cookies.check(&of, cookie ^ SECRET),
                    Cookies::new().check(&of, cookie),
                ];
                others.into_iter().flatten().count()
            })
            .collect();
        assert!(found.iter().filter(|count| **count > 0).count() <= 1, "{found:?}");
    }

    #[test]
    fn a_cookie_is_good_for_one_to_two_periods() {
        let offer = Offer { mss: 1460, scale: None, sack: false };
        // Seconds: made, and of the checks the last good and the first bad one.
        for (made, good, bad) in [(0, 127, 128), (63, 127, 128), (64, 191, 192), (100, 191, 500), (64, 65, 100_000)] {
            let mut cookies = Cookies::new();
            let at = |cookies: &mut Cookies, second: u64| {
                cookies.turn(Instant::START + Duration::from_secs(second));
            };
            at(&mut cookies, made);
            let cookie = cookies.make(&SOMEBODY, offer);
            at(&mut cookies, good);
            assert_eq!(cookies.check(&SOMEBODY, cookie), Some(offer), "{made} {good}");
            at(&mut cookies, bad);
            assert_eq!(cookies.check(&SOMEBODY, cookie), None, "{made} {bad}");
        }
    }
}
