//! Which packets must meet on one worker, and what a whole chain asks for.

use std::fmt;

/// Which packets a function needs to see on one worker, because it keeps state of them there
/// and shares it with nobody. Declared by [`Function::affinity`](crate::Function::affinity).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Affinity {
    /// None: any worker can handle any packet.
    #[default]
    Any,
    /// Both directions of a flow, as long as nothing rewrites its addresses and ports: what a
    /// firewall that tracks connections asks for.
    Flow,
    /// All flows of one inside host, in both directions. An ICMP error goes with the flow that it
    /// quotes, whoever sent it: a host can make its errors arrive anywhere.
    InsideHost,
    /// All flows of one outside host, in both directions; ICMP errors as above.
    OutsideHost,
    /// All packets with one port of the outside hosts: those from outside are known by their source port,
    /// those from inside by their destination port. The function may give outside hosts ports of its
    /// own towards inside; it promises to take such as belong to the worker, see
    /// [`Steering::owner`](crate::Steering::owner). What a load balancer asks for.
    OutsidePort,
    /// All flows of one inside host, where the function gives them ports of its own towards
    /// outside: packets from outside are known by their destination port. The function
    /// promises to take a port that belongs to the host's worker, see
    /// [`Steering::owner`](crate::Steering::owner). This is NAPT, RFC 2663 section 4.1.2. What it lets go on by other
    /// ports than those (static mappings, packets untranslated) belongs to one worker by its inside host and to another
    /// by its port: such a packet it names by [`Context::cross`](crate::Context::cross), so that functions on either
    /// side see both directions on one worker.
    TranslatedPort {
        /// Ports belong to workers in aligned blocks of 2 to the power of this; there must be a block for each worker.
        block_bits: u8,
    },
}

/// Two functions of a chain that cannot both have what they need.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{inside} needs {inside_needs} on one worker and {outside}, outside of it, {outside_needs}: both at once are not \
     possible with several workers (run the program on one lcore, or split the chain into two programs)"
)]
pub struct AffinityConflict {
    /// The function nearer to the inside end.
    pub inside: String,
    /// What it needs.
    pub inside_needs: Affinity,
    /// The other.
    pub outside: String,
    /// What it needs.
    pub outside_needs: Affinity,
}

impl Affinity {
    /// Whether packets from inside and from outside are told apart by it.
    pub(crate) fn has_sides(self) -> bool {
        !matches!(self, Self::Any | Self::Flow)
    }

    /// The most entries that a table of owners may have: one for each block of ports.
    pub(crate) fn most_entries(self) -> u32 {
        match self {
            Self::TranslatedPort { block_bits } => (1_u32 << 16).checked_shr(block_bits.into()).unwrap_or(0),
            _ => u32::MAX,
        }
    }

    /// What the functions of a chain need together, given from inside to outside.
    ///
    /// # Errors
    ///
    /// [`AffinityConflict`] names two that exclude each other.
    pub fn compose<'a>(chain: impl IntoIterator<Item = (&'a str, Self)>) -> Result<Self, AffinityConflict> {
        let mut sofar = ("", Self::Any);
        for (name, needs) in chain {
            let joined = sofar.1.join(needs).ok_or_else(|| AffinityConflict {
                inside: sofar.0.to_owned(),
                inside_needs: sofar.1,
                outside: name.to_owned(),
                outside_needs: needs,
            })?;
            if joined != sofar.1 {
                sofar = (name, joined);
            }
        }
        Ok(sofar.1)
    }

    /// What gives both what they need; `outside` is nearer to the outside end.
    fn join(self, outside: Self) -> Option<Self> {
        match (self, outside) {
            (Self::Any, other) | (other, Self::Any) => Some(other),
            // A translation's own ports mean nothing to a second one.
            (Self::TranslatedPort { .. }, Self::TranslatedPort { .. }) => None,
            // All flows of a host together are each flow together, a translated one too.
            (Self::Flow, other) | (other, Self::Flow) => Some(other),
            (same, other) if same == other => Some(same),
            // Outside of a translation there are no inside hosts to be seen.
            (Self::InsideHost, translated @ Self::TranslatedPort { .. }) => Some(translated),
            _ => None,
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("nothing"),
            Self::Flow => f.write_str("both directions of a flow"),
            Self::InsideHost => f.write_str("all flows of an inside host"),
            Self::OutsideHost => f.write_str("all flows of an outside host"),
            Self::OutsidePort => f.write_str("all flows with one port of outside hosts"),
            Self::TranslatedPort { block_bits } => {
                write!(f, "all flows of an inside host, translated to ports in blocks of 2^{block_bits}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAPT: Affinity = Affinity::TranslatedPort { block_bits: 0 };

    fn names(conflict: AffinityConflict) -> (String, String) {
        (conflict.inside, conflict.outside)
    }

    #[test]
    fn a_chain_gets_the_closest_affinity_that_serves_all_or_names_two_that_exclude_each_other() {
        use Affinity::{Any, Flow, InsideHost, OutsideHost, OutsidePort};
        let conflict = |inside: &str, outside: &str| Err((inside.to_owned(), outside.to_owned()));
        for (chain, expected) in [
            (&[][..], Ok(Any)),
            (&[("a", Any), ("b", Any)], Ok(Any)),
            (&[("a", Any), ("b", Flow), ("c", Any)], Ok(Flow)),
            (&[("a", Flow), ("b", InsideHost), ("c", Flow)], Ok(InsideHost)),
            (&[("a", OutsideHost), ("b", Flow)], Ok(OutsideHost)),
            (&[("firewall", Flow), ("balancer", OutsidePort)], Ok(OutsidePort)),
            (&[("balancer", OutsidePort), ("nat", NAPT)], conflict("balancer", "nat")),
            (&[("firewall", Flow), ("nat", NAPT)], Ok(NAPT)),
            (&[("nat", NAPT), ("firewall", Flow)], Ok(NAPT)),
            (&[("limit", InsideHost), ("nat", NAPT)], Ok(NAPT)),
            (&[("nat", NAPT), ("limit", InsideHost)], conflict("nat", "limit")),
            (&[("nat", NAPT), ("other", NAPT)], conflict("nat", "other")),
            (&[("syn-limit", OutsideHost), ("nat", NAPT)], conflict("syn-limit", "nat")),
            (&[("a", InsideHost), ("b", OutsideHost)], conflict("a", "b")),
            // The one that decided is named, not the last one before.
            (&[("a", InsideHost), ("b", Flow), ("c", Any), ("d", OutsideHost)], conflict("a", "d")),
        ] {
            let composed = Affinity::compose(chain.iter().copied()).map_err(names);
            assert_eq!(composed, expected, "{chain:?}");
        }
    }

    #[test]
    fn a_conflict_says_what_each_function_needs() {
        let conflict = Affinity::compose([("limit", Affinity::OutsideHost), ("nat", NAPT)]).unwrap_err();
        assert_eq!(
            conflict.to_string(),
            "limit needs all flows of an outside host on one worker and nat, outside of it, all flows of an inside \
             host, translated to ports in blocks of 2^0: both at once are not possible with several workers (run the \
             program on one lcore, or split the chain into two programs)"
        );
    }
}
