//! The rules as a packet of one kind meets them.
//!
//! A classifier knows addresses, protocols, ports, flags and ICMP types, and by marks from which side a packet comes and
//! whether it is a fragment. What else rules ask for splits them into views, each with the rules that can match there:
//! by the VLAN that a packet comes in by, by what it is to a connection, and by its DSCP. Most configurations have one
//! or two.

use super::config::State;
use super::marks;
use super::rule::{ALL_DSCP, Conditions, Rule};
use nf_framework::{AddressSet, Classifier, ClassifierError, Direction, Invalid, Key, Memory, SetupError};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

/// Most views: each is a classifier with nearly all rules.
const MOST: usize = 64;
/// Most classes of VLANs or DSCP.
const CLASSES: usize = 1 << 8;
/// Numbers of VLANs, with 0 for none.
const VLANS: u16 = 1 << 12;

/// A packet that rules are asked about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) key: Key,
    pub(super) state: State,
    pub(super) direction: Direction,
    pub(super) dscp: u8,
    pub(super) vlan: u16,
    pub(super) fragment: bool,
}

pub(super) struct Views {
    views: Vec<View>,
    /// A class for each DSCP and for each VLAN: those of one class are in the same rules.
    dscp_classes: Vec<u8>,
    vlan_classes: Vec<u8>,
    /// How many classes of VLANs there are.
    vlans: usize,
    /// Which view, by class of DSCP and of VLAN, and state.
    of: Vec<u8>,
}

struct View {
    rules: Vec<nf_framework::Rule>,
    /// By rule of the classifier, the place among all rules.
    places: Vec<usize>,
    /// Built once DPDK runs; none is needed where no rule can match.
    classifier: OnceLock<Classifier>,
}

impl Views {
    /// Of those rules that are chosen; they have the places that they have among all.
    pub(super) fn new(rules: &[Rule], is_chosen: impl Fn(&Rule) -> bool, sets: &[AddressSet]) -> Result<Self, Invalid> {
        let chosen = || rules.iter().filter(|rule| is_chosen(rule)).map(|rule| &rule.conditions);
        let dscp: Vec<_> = chosen().map(|of| of.dscp).filter(|list| *list != ALL_DSCP).collect();
        let vlans: Vec<_> = chosen().filter(|of| !of.vlans.is_empty()).collect();
        let many = |what: &str| {
            let message = format!("their lists of {what} tell more than {CLASSES} groups apart: name fewer of them");
            Invalid::new("rules", message)
        };
        let dscp_classes = classes(64, &dscp, |list, value| list >> value & 1 == 1).ok_or_else(|| many("DSCP"))?;
        let vlan_classes = classes(VLANS, &vlans, |of, vlan| of.has_vlan(vlan)).ok_or_else(|| many("VLANs"))?;
        let count = |classes: &[u8]| usize::from(classes.iter().copied().max().unwrap_or(0)) + 1;
        let vlans = count(&vlan_classes);
        let mut known: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        let (mut views, mut of) = (Vec::new(), Vec::new());
        for class in 0..count(&dscp_classes) * vlans {
            let dscp = dscp_classes.iter().position(|of| usize::from(*of) == class / vlans).unwrap_or(0);
            let vlan = (0..).zip(&vlan_classes).find(|(_, of)| usize::from(**of) == class % vlans).map_or(0, |of| of.0);
            for state in [State::New, State::Related] {
                let applies = |conditions: &Conditions| {
                    conditions.dscp >> dscp & 1 == 1 && conditions.has_vlan(vlan) && conditions.state == state
                };
                let numbered =
                    rules.iter().enumerate().filter(|(_, rule)| is_chosen(rule) && applies(&rule.conditions));
                let numbers: Vec<usize> = numbered.map(|(number, _)| number).collect();
                let place = match known.get(&numbers) {
                    Some(place) => *place,
                    None => {
                        views.push(View::new(rules, &numbers, sets)?);
                        known.insert(numbers, views.len() - 1);
                        views.len() - 1
                    }
                };
                if views.len() > MOST {
                    let message = format!(
                        "more than {MOST} combinations of states, VLANs and DSCP: name fewer different lists of VLANs and \
                         DSCP"
                    );
                    return Err(Invalid::new("rules", message));
                }
                of.push(u8::try_from(place).unwrap_or(u8::MAX));
            }
        }
        Ok(Self { views, dscp_classes, vlan_classes, vlans, of })
    }

    pub(super) fn build(&self, memory: &Memory, sets: &[AddressSet]) -> Result<(), SetupError> {
        for view in &self.views {
            if view.classifier.get().is_none() && !view.rules.is_empty() {
                let classifier = Classifier::new(memory, sets, &view.rules)?;
                view.classifier.set(classifier).map_err(|_| "the rules were built twice at once")?;
            }
        }
        Ok(())
    }

    /// The place of the first rule that matches each packet; `found` is told of it by the packet's place.
    pub(super) fn classify(&self, asked: &[Asked], mut found: impl FnMut(usize, Option<usize>)) {
        const MOST_AT_ONCE: usize = Classifier::BURST;
        for (asked, first) in asked.chunks(MOST_AT_ONCE).zip((0..).step_by(MOST_AT_ONCE)) {
            // The packets of a batch are nearly always of one view: then all are asked about at once.
            let mut left = u64::MAX >> (MOST_AT_ONCE - asked.len()).min(63);
            while left != 0 {
                let next = left.trailing_zeros() as usize;
                let Some(view) = asked.get(next).map(|asked| self.view_of(asked)) else { return };
                let mut keys = [None; MOST_AT_ONCE];
                let mut places = [0; MOST_AT_ONCE];
                let mut count = 0;
                for (place, packet) in asked.iter().enumerate() {
                    if left >> place & 1 == 1 && self.view_of(packet) == view {
                        left &= !(1 << place);
                        let marks = marks::of(Some(packet.direction), Some(packet.fragment));
                        (keys[count], places[count]) = (Some(packet.key.marks(marks)), first + place);
                        count += 1;
                    }
                }
                self.classify_in(view, &keys[..count], &places[..count], &mut found);
            }
        }
    }

    fn classify_in(
        &self,
        view: usize,
        keys: &[Option<Key>],
        places: &[usize],
        found: &mut impl FnMut(usize, Option<usize>),
    ) {
        let Some(view) = self.views.get(view) else { return };
        let Some(Some(first)) = keys.first() else { return };
        let mut row = [*first; Classifier::BURST];
        for (place, key) in row.iter_mut().zip(keys) {
            *place = key.unwrap_or(*first);
        }
        let mut rules = [None; Classifier::BURST];
        if let Some(classifier) = view.classifier.get() {
            classifier.classify(&row[..keys.len()], &mut rules);
        }
        for (place, rule) in places.iter().zip(rules) {
            found(*place, rule.and_then(|rule| view.places.get(rule.index()).copied()));
        }
    }

    fn view_of(&self, asked: &Asked) -> usize {
        let class_in = |classes: &[u8], value: usize| classes.get(value).copied().unwrap_or(0).into();
        let dscp: usize = class_in(&self.dscp_classes, (asked.dscp & 63).into());
        let vlan: usize = class_in(&self.vlan_classes, (asked.vlan & 0xfff).into());
        let class = dscp * self.vlans + vlan;
        self.of
            .get(class * 2 + usize::from(asked.state == State::Related))
            .map_or(usize::MAX, |view| usize::from(*view))
    }
}

impl View {
    fn new(all: &[Rule], numbers: &[usize], sets: &[AddressSet]) -> Result<Self, Invalid> {
        let (mut rules, mut places) = (Vec::new(), Vec::new());
        let mut combinations = 0_usize;
        for &number in numbers {
            // Before they are made: a few lists of a hundred values each are more than there is memory for.
            combinations = combinations.saturating_add(all[number].conditions.combinations());
            if combinations > Classifier::MAX_RULES {
                let message = format!(
                    "with each combination of its lists there are {combinations} rules, and {} are the most: put addresses \
                     into a set, or ports into ranges",
                    Classifier::MAX_RULES
                );
                return Err(Invalid::new(format!("rules[{number}]"), message));
            }
            let of_rule = all[number].conditions.classifier_rules();
            if of_rule.is_empty() {
                let message = "no packet is of two families: its addresses and its protocol exclude each other";
                return Err(Invalid::new(format!("rules[{number}]"), message));
            }
            places.extend(std::iter::repeat_n(number, of_rule.len()));
            rules.extend(of_rule);
        }
        Classifier::check(sets, &rules).map_err(|error| match error {
            ClassifierError::Rule { rule, fault } => {
                Invalid::new(format!("rules[{}]", places.get(rule).copied().unwrap_or(rule)), fault.to_string())
            }
            error => Invalid::new("rules", format!("with each combination of their lists: {error}")),
        })?;
        Ok(Self { rules, places, classifier: OnceLock::new() })
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").field("views", &self.views.len()).finish_non_exhaustive()
    }
}

/// Numbers as many values by the lists that they are in. Nothing if there are more than [`CLASSES`] kinds of them.
fn classes<T>(values: u16, lists: &[T], has: impl Fn(&T, u16) -> bool) -> Option<Vec<u8>> {
    let mut known: BTreeMap<Vec<bool>, usize> = BTreeMap::new();
    let class = |value| {
        let signature = lists.iter().map(|list| has(list, value)).collect();
        let next = known.len();
        u8::try_from(*known.entry(signature).or_insert(next)).ok()
    };
    (0..values).map(class).collect()
}
