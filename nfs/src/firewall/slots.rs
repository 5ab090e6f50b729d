//! Numbers by which connections and counters know rules, over reloads as well.
//!
//! A rule that is known again has the number that it had. Those of rules that are gone stay theirs while there are others,
//! as connections that they have accepted live on; then whoever has been gone for the longest makes room. A connection that
//! is older than that is the new rule's from then on, in lists, counts and limits: only workers know which slots live
//! connections have, and one would have to look through all of them for a case that takes 65 535 rules to come and go.

use super::config::{Config, RuleConfig};
use super::rule::Rule;
use nf_framework::Invalid;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

/// Slots are numbered in 16 bits, and one stands for none.
const MOST: usize = u16::MAX as usize;

/// Stands behind what a rule without a name was called that is gone.
const GONE: &str = " of before";

/// What slots stand for, also of rules that are gone.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    names: Vec<SlotName>,
    most: usize,
    /// Those of the rules in force.
    used: Vec<bool>,
    /// Where a slot is looked for next, once all stand for something.
    next: usize,
}

/// What a slot stands for.
#[derive(Clone, Debug)]
struct SlotName {
    /// For people.
    name: String,
    identity: Identity,
    /// How many other rules it stood for before.
    turn: u32,
}

impl Default for Slots {
    fn default() -> Self {
        Self::of_at_most(MOST)
    }
}

/// By what a rule is known again after a reload: by its name, or without one by all that it says, as others may come before
/// it. Of several that say the same the order counts.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Identity {
    Name(String),
    Text(u64),
}

impl Slots {
    /// Of none, with room for so many.
    pub(super) fn of_at_most(most: usize) -> Self {
        Self { names: Vec::new(), most, used: Vec::new(), next: 0 }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.names.len()
    }

    /// The name of the rule that a slot stands for.
    pub(super) fn name(&self, slot: u16) -> Option<&str> {
        self.names.get(usize::from(slot)).map(|slot| slot.name.as_str())
    }

    /// Those that stand for another rule now than they did before.
    pub(super) fn reused_since(&self, before: &Self) -> impl Iterator<Item = usize> {
        let both = self.names.iter().zip(&before.names);
        both.enumerate().filter(|(_, (now, before))| now.turn != before.turn).map(|(slot, _)| slot)
    }

    /// Gives each of the rules that come next the slot that it had before, or another one; what slots stand for then.
    pub(super) fn followed_by(&self, rules: &mut [Rule], config: &Config) -> Result<Self, Invalid> {
        let names = rules.iter().enumerate().map(|(index, rule)| SlotName {
            name: rule.name.clone(),
            identity: Identity::new(rule, config.rules.get(index)),
            turn: 0,
        });
        let (slots, numbers) = self.followed_with(names.collect())?;
        for (rule, slot) in rules.iter_mut().zip(numbers) {
            rule.slot = slot;
        }
        Ok(slots)
    }

    /// As [`followed_by`](Self::followed_by), by names alone.
    fn followed_with(&self, rules: Vec<SlotName>) -> Result<(Self, Vec<u16>), Invalid> {
        let Self { names, most, used: before, next } = self;
        let (mut names, most, mut next) = (names.clone(), *most, *next);
        let mut used = vec![false; names.len()];
        let is_in = |list: &[bool], slot: usize| list.get(slot).copied().unwrap_or(false);
        // Of one identity the slots of those before come first.
        let mut known: HashMap<Identity, VecDeque<usize>> = HashMap::new();
        for (slot, of) in names.iter().enumerate() {
            known.entry(of.identity.clone()).or_default().push_back(slot);
        }
        let mut again = |rule: &SlotName| {
            let slot = known.get_mut(&rule.identity)?.pop_front()?;
            used[slot] = true;
            Some(slot)
        };
        let places: Vec<Option<usize>> = rules.iter().map(&mut again).collect();
        let mut numbers = Vec::with_capacity(rules.len());
        for (rule, place) in rules.into_iter().zip(places) {
            let slot = match place {
                Some(slot) => slot,
                None if names.len() < most => names.len(),
                None => {
                    let from_next = (next..most).chain(0..next);
                    let mut free = from_next.filter(|slot| !is_in(&used, *slot) && !is_in(before, *slot));
                    let slot = free.next().ok_or_else(|| Invalid::new("rules", format!("more than {most} rules")))?;
                    next = slot + 1;
                    slot
                }
            };
            // One without a name may have another place.
            match names.get_mut(slot) {
                Some(before) => {
                    let turn = before.turn.wrapping_add(u32::from(place.is_none()));
                    *before = SlotName { turn, ..rule };
                }
                None => names.push(rule),
            }
            used.resize(names.len(), false);
            used[slot] = true;
            numbers.push(u16::try_from(slot).map_err(|_| Invalid::new("rules", format!("more than {MOST} rules")))?);
        }
        // Another rule may have the place by which it was called.
        for (of, _) in names.iter_mut().zip(&used).filter(|(_, used)| !**used) {
            if matches!(of.identity, Identity::Text(_)) && !of.name.ends_with(GONE) {
                of.name += GONE;
            }
        }
        Ok((Self { names, most, used, next }, numbers))
    }
}

impl Identity {
    fn new(rule: &Rule, config: Option<&RuleConfig>) -> Self {
        match config.filter(|config| config.name.is_none()) {
            Some(config) => {
                let mut hasher = DefaultHasher::new();
                format!("{config:?}").hash(&mut hasher);
                Self::Text(hasher.finish())
            }
            None => Self::Name(rule.name.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(numbers: impl Iterator<Item = usize>) -> Vec<SlotName> {
        let of = |number: usize| number.to_string();
        numbers.map(|number| SlotName { name: of(number), identity: Identity::Name(of(number)), turn: 0 }).collect()
    }

    #[test]
    fn a_rule_keeps_its_slot_over_any_number_of_reloads() {
        const MOST: usize = 1000;
        let (mut slots, first) = Slots::of_at_most(MOST).followed_with(names(0..100)).unwrap();
        assert_eq!(first, (0..100).collect::<Vec<u16>>());
        // A hundred others each time, between two that stay: 5000 names in all.
        let mut before: Vec<u16> = Vec::new();
        for reload in 1..=50 {
            let others = 1000 + reload * 100..1100 + reload * 100;
            let (next, numbers) = slots.followed_with(names([7].into_iter().chain(others).chain([9]))).unwrap();
            assert_eq!((numbers[0], numbers[101], next.name(7), next.name(9)), (7, 9, Some("7"), Some("9")));
            let mut all = numbers.clone();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), 102, "each has its own");
            assert!(
                numbers[1..101].iter().all(|slot| !before.contains(slot)),
                "reload {reload}: live connections have it"
            );
            (slots, before) = (next, numbers);
        }
        assert_eq!(slots.len(), MOST);
    }

    #[test]
    fn who_has_been_gone_for_the_longest_makes_room() {
        let mut slots = Slots::of_at_most(5);
        let mut given = Vec::new();
        for number in 0..12 {
            let (next, numbers) = slots.followed_with(names([number].into_iter())).unwrap();
            given.extend(numbers);
            slots = next;
        }
        assert_eq!(given, [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]);
        // Known again as long as nobody has it.
        let (slots, numbers) = slots.followed_with(names([8].into_iter())).unwrap();
        assert_eq!((numbers, slots.name(3)), (vec![3], Some("8")));
        let Err(refused) = slots.followed_with(names(20..25)) else { panic!("more than there is room for") };
        assert_eq!((refused.key.as_str(), refused.message.as_str()), ("rules", "more than 5 rules"));
    }
}
