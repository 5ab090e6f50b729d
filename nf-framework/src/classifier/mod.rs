//! Which rule is the first that matches a packet: addresses, sets of addresses, protocol,
//! ports, TCP flags, ICMP types, a burst at a time.
//!
//! It knows what rules ask of packets and which one comes first, and nothing of what they then
//! do: it answers with the rule's index, and its user keeps the actions beside.
//!
//! - `rule` and `prefix` are what is said, `key` what is asked about.
//! - `set_tags` turns sets into a few bits per address, `address_map` finds an address's bits.
//! - `family` puts it all into the keys and rules of DPDK's `rte_acl`, one family at a time.

mod address_map;
mod family;
mod key;
mod prefix;
mod rule;
mod set_tags;
#[cfg(test)]
mod tests;

pub use key::Key;
pub(crate) use prefix::is_host;
pub use prefix::{InvalidPrefix, Prefix};
pub use rule::{AddressSet, Addresses, FlagsMatch, IcmpMatch, Rule, RuleFault};

use dpdk_rs::{AclAlgorithm, AclError, Memory, OutOfMemory};
use family::FamilyRules;
use std::fmt;
use std::num::NonZeroU32;

/// Most sets.
const MAX_SETS: usize = 64;

/// A rule by its place among the rules that a classifier was made from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct RuleIndex(NonZeroU32);

impl RuleIndex {
    /// Its place, from 0.
    #[inline]
    #[must_use]
    pub fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// An address family.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl fmt::Display for IpFamily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// Why there is no classifier; nothing is left behind then. Rules are counted from 0.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClassifierError {
    /// A rule makes no sense.
    #[error("rule {rule}: {fault}")]
    Rule {
        /// Its place.
        rule: usize,
        /// Why.
        fault: RuleFault,
    },
    /// More rules than there can be.
    #[error("{rules} rules are more than {most}: put addresses that are treated alike into a set")]
    TooManyRules {
        /// Rules given.
        rules: usize,
        /// [`Classifier::MAX_RULES`]
        most: usize,
    },
    /// More sets than there can be.
    #[error("{sets} sets are more than {most}: put together what is always treated alike")]
    TooManySets {
        /// Sets given.
        sets: usize,
        /// [`Classifier::MAX_SETS`]
        most: usize,
    },
    /// More prefixes in all sets than there can be.
    #[error("{prefixes} prefixes in sets are more than {most}: put neighbours together into shorter prefixes")]
    TooManyPrefixes {
        /// Prefixes given, in all sets.
        prefixes: usize,
        /// [`Classifier::MAX_PREFIXES`]
        most: usize,
    },
    /// Two sets have one name.
    #[error("there are two sets of the name {name:?}: give one another name")]
    SetTwice {
        /// The name.
        name: String,
    },
    /// The sets do not fit into memory.
    #[error("the sets' {ranges} {family} ranges have {source}")]
    Sets {
        /// Of which family.
        family: IpFamily,
        /// Ranges of addresses that are in the same sets.
        ranges: usize,
        /// What did not fit.
        source: OutOfMemory,
    },
    /// The rules overlap in so many ways that building them might take all memory.
    #[error(
        "the {rules} {family} rules overlap too much: together they would take about {bytes} bytes, and {most} are the \
         most; use fewer, or put addresses that are treated alike into sets"
    )]
    TooManyOverlaps {
        /// Of which family.
        family: IpFamily,
        /// Rules that can match in the family.
        rules: usize,
        /// What a part of them lets expect.
        bytes: usize,
        /// The limit.
        most: usize,
    },
    /// The rules together do not fit: into the memory, or into what DPDK can build.
    #[error("the {rules} {family} rules are too large together: {source}; rules on sets that overlap cost the most")]
    TooLarge {
        /// Of which family.
        family: IpFamily,
        /// Rules that can match in the family.
        rules: usize,
        /// What DPDK says.
        source: AclError,
    },
}

/// Rules, of which the first that matches a key is found. It never changes; any number of
/// threads may ask it at once.
///
/// ```
/// use nf_framework::headers::IpProtocol;
/// use nf_framework::testing::lab;
/// use nf_framework::{AddressSet, Addresses, Classifier, Key, Rule};
///
/// lab(|lab| {
///     let blocked = AddressSet {
///         name: "blocked".into(),
///         prefixes: ["203.0.113.0/24", "2001:db8:bad::/48"].map(|prefix| prefix.parse().unwrap()).into(),
///     };
///     let rules = [
///         Rule { source: Addresses::Set("blocked".into()), ..Rule::default() },
///         Rule { protocol: Some(IpProtocol::TCP), destination_ports: Some(443..=443), ..Rule::default() },
///     ];
///     let classifier = Classifier::new(&lab.eal.memory(), &[blocked], &rules).unwrap();
///
///     let from = |source: [u8; 4]| Key::ipv4(source.into(), [192, 0, 2, 1].into(), IpProtocol::TCP).ports(1024, 443);
///     let mut found = [None; 2];
///     classifier.classify(&[from([203, 0, 113, 9]), from([198, 51, 100, 1])], &mut found);
///     assert_eq!(found.map(|rule| rule.map(|rule| rule.index())), [Some(0), Some(1)]);
/// });
/// ```
///
/// Addresses are looked up in the sets before the rules, and only if a rule names a set: so a
/// set of any size counts as one prefix in a rule. What a rule costs in memory and in time to
/// build depends on how it overlaps the others. Rules on many sets that have addresses in common
/// cost the most: half a dozen such sets are no burden, a dozen may be too many together. Sets
/// apart from each other may be 64. What would be too large is refused: a part of many rules is
/// built first, to see what all would take ([`ClassifierError::TooManyOverlaps`]).
///
/// # Swapped whole
///
/// New rules are a new classifier: checked with the configuration, built off the data path once
/// DPDK runs ([`Function::build`](crate::Function::build)), and handed to the workers with the
/// policy that it is part of:
///
/// ```no_run
/// use nf_framework::headers::Headers;
/// use nf_framework::*;
/// use std::sync::{Arc, OnceLock};
///
/// /// What instances work by, shared by all workers.
/// struct Policy {
///     sets: Vec<AddressSet>,
///     rules: Vec<Rule>,
///     /// Built before any instance sees the policy.
///     classifier: OnceLock<Classifier>,
///     /// By rule.
///     verdicts: Vec<Verdict>,
/// }
///
/// /// A stateless filter.
/// struct Filter(Arc<Policy>);
///
/// impl NetworkFunction for Filter {
///     fn batch(&mut self, batch: &mut Batch, _: &mut Context<'_>) {
///         // The keys of a burst, all asked about at once.
///         let mut keys = [Key::ipv4([0; 4].into(), [0; 4].into(), 0.into()); Classifier::BURST];
///         let mut slots = [None; Classifier::BURST];
///         let mut count = 0;
///         for slot in batch.undecided() {
///             let Some(packet) = batch.packet_mut(slot) else { continue };
///             match Headers::parse(packet.data_mut()).map(|headers| Key::of(&headers)) {
///                 Ok(Some(key)) => {
///                     (keys[count], slots[count]) = (key, Some(slot));
///                     count += 1;
///                 }
///                 // What is not IP goes on to the next function.
///                 Ok(None) => {}
///                 Err(_) => batch.decide(slot, Verdict::Drop(DropReason::POLICY)),
///             }
///         }
///         let mut found = [None; Classifier::BURST];
///         let Some(classifier) = self.0.classifier.get() else { return };
///         classifier.classify(&keys[..count], &mut found);
///         for (slot, rule) in slots.into_iter().flatten().zip(found) {
///             let verdict = rule.and_then(|rule: RuleIndex| self.0.verdicts.get(rule.index()));
///             batch.decide(slot, verdict.copied().unwrap_or(Verdict::Drop(DropReason::POLICY)));
///         }
///     }
/// }
///
/// /// Its control object.
/// struct FilterControl;
///
/// impl Function for FilterControl {
///     type Config = ();
///     type Policy = Policy;
///     type Instance = Filter;
/// #    fn name(&self) -> &str { "filter" }
///
///     fn policy(&self, (): ()) -> Result<Policy, Invalid> {
///         let sets = [AddressSet { name: "friends".into(), prefixes: vec!["192.0.2.0/24".parse().unwrap()] }];
///         let rules = [Rule { source: Addresses::Set("friends".into()), ..Rule::default() }];
///         Classifier::check(&sets, &rules).map_err(|error| Invalid::new("rules", error.to_string()))?;
///         let (sets, rules) = (sets.into(), rules.into());
///         Ok(Policy { sets, rules, classifier: OnceLock::new(), verdicts: vec![Verdict::Next] })
///     }
///
///     fn build(&self, policy: &Policy, memory: &Memory) -> Result<(), SetupError> {
///         if policy.classifier.get().is_some() {
///             return Ok(());
///         }
///         let classifier = Classifier::new(memory, &policy.sets, &policy.rules)?;
///         policy.classifier.set(classifier).map_err(|_| "built twice".into())
///     }
///
///     fn instance(&self, policy: Arc<Policy>, _: &mut WorkerSetup) -> Result<Filter, SetupError> {
///         Ok(Filter(policy))
///     }
///
///     fn adopt(filter: &mut Filter, policy: Arc<Policy>) {
///         filter.0 = policy;
///     }
/// }
/// ```
pub struct Classifier {
    v4: FamilyRules<u32, 9>,
    v6: FamilyRules<u128, 15>,
    len: usize,
}

impl Classifier {
    /// Most keys for which [`classify`](Self::classify) is called at once; more go as well.
    pub const BURST: usize = dpdk_rs::Burst::CAPACITY;

    /// Most rules. Building takes 10 to 50 kB of heap per rule, as a rule: DPDK sets no limit.
    pub const MAX_RULES: usize = 1 << 14;

    /// Most sets.
    pub const MAX_SETS: usize = MAX_SETS;

    /// Most prefixes in all sets together.
    pub const MAX_PREFIXES: usize = 1 << 20;

    /// Builds the rules; an earlier one comes before a later one. Takes milliseconds for a
    /// hundred rules and a second or two for ten thousand, and memory: for a control thread.
    ///
    /// # Errors
    ///
    /// [`ClassifierError`] names the rule or the limit; nothing is half made then.
    pub fn new(memory: &Memory, sets: &[AddressSet], rules: &[Rule]) -> Result<Self, ClassifierError> {
        Self::check(sets, rules)?;
        Ok(Self {
            v4: FamilyRules::new::<13>(memory, sets, rules)?,
            v6: FamilyRules::new::<19>(memory, sets, rules)?,
            len: rules.len(),
        })
    }

    /// Whether rules make sense, as [`new`](Self::new) does it first: for who validates a
    /// configuration before DPDK is there.
    ///
    /// # Errors
    ///
    /// Those of [`new`](Self::new) that are not about memory.
    pub fn check(sets: &[AddressSet], rules: &[Rule]) -> Result<(), ClassifierError> {
        if rules.len() > Self::MAX_RULES {
            return Err(ClassifierError::TooManyRules { rules: rules.len(), most: Self::MAX_RULES });
        }
        if sets.len() > Self::MAX_SETS {
            return Err(ClassifierError::TooManySets { sets: sets.len(), most: Self::MAX_SETS });
        }
        let prefixes: usize = sets.iter().map(|set| set.prefixes.len()).sum();
        if prefixes > Self::MAX_PREFIXES {
            return Err(ClassifierError::TooManyPrefixes { prefixes, most: Self::MAX_PREFIXES });
        }
        let mut names: Vec<&str> = sets.iter().map(|set| set.name.as_str()).collect();
        names.sort_unstable();
        if let Some([name, _]) = names.array_windows().find(|[one, other]| one == other) {
            return Err(ClassifierError::SetTwice { name: (*name).to_owned() });
        }
        for (index, rule) in rules.iter().enumerate() {
            if let Some(fault) = rule.fault(&names) {
                return Err(ClassifierError::Rule { rule: index, fault });
            }
        }
        Ok(())
    }

    /// Writes the first rule that matches each key, or nothing where none does, into the place
    /// beside it, as far as both slices go. The keys may be of both families. Allocates
    /// nothing.
    #[inline]
    pub fn classify(&self, keys: &[Key], found: &mut [Option<RuleIndex>]) {
        self.v4.classify(keys, found);
        self.v6.classify(keys, found);
    }

    /// The first rule that matches a key. For several keys at once use
    /// [`classify`](Self::classify).
    #[inline]
    #[must_use]
    pub fn classify_one(&self, key: &Key) -> Option<RuleIndex> {
        let mut found = [None];
        self.classify(std::slice::from_ref(key), &mut found);
        let [found] = found;
        found
    }

    /// Rules that it was made from.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no rules: then nothing matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How keys are looked up: the best that the processor has and the EAL allows.
    #[must_use]
    pub fn algorithm(&self) -> AclAlgorithm {
        if self.v4.has_rules() { self.v4.algorithm() } else { self.v6.algorithm() }
    }

    /// Looks keys up in another way, to compare; false, and nothing is changed, where the
    /// processor does not have it or the EAL does not allow it.
    pub fn use_algorithm(&mut self, algorithm: AclAlgorithm) -> bool {
        let v4 = self.v4.has_rules().then(|| self.v4.use_algorithm(algorithm));
        let v6 = self.v6.has_rules().then(|| self.v6.use_algorithm(algorithm));
        v4.or(v6).unwrap_or(algorithm == AclAlgorithm::Scalar)
    }

    /// Bytes of the EAL's memory that it takes, by the EAL's account: what other threads
    /// allocated while it was built is in it too.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.v4.bytes() + self.v6.bytes()
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classifier")
            .field("rules", &self.len)
            .field("algorithm", &self.algorithm())
            .field("bytes", &self.memory())
            .finish_non_exhaustive()
    }
}
