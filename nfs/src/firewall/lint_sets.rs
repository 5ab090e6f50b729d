//! Sets that no rule names, and rules that name none but empty ones.

use super::lint::Finding;
use super::rule::Rule;
use nf_framework::{AddressSet, Addresses};

/// A finding for each such set and rule.
pub(super) fn lint(rules: &[Rule], sets: &[AddressSet]) -> Vec<Finding> {
    let lists = |rule: &Rule| [&rule.conditions.sources, &rule.conditions.destinations].map(|list| list.clone());
    let names = |set: &AddressSet| Addresses::Set(set.name.clone());
    let is_used = |set: &AddressSet| rules.iter().any(|rule| lists(rule).iter().any(|list| list.contains(&names(set))));
    let empty: Vec<Addresses> = sets.iter().filter(|set| set.prefixes.is_empty()).map(names).collect();
    let unused = sets.iter().filter(|set| !is_used(set)).map(|set| Finding::UnusedSet { set: set.name.clone() });
    let nothing = rules.iter().filter_map(|rule| {
        let list = lists(rule).into_iter().find(|list| !list.is_empty() && list.iter().all(|of| empty.contains(of)))?;
        let [Addresses::Set(set), ..] = &list[..] else { return None };
        Some(Finding::EmptySet { rule: rule.name.clone(), set: set.clone() })
    });
    unused.chain(nothing).collect()
}

#[cfg(test)]
mod tests {
    use super::super::Firewall;
    use super::*;
    use nf_framework::Function;

    #[test]
    fn a_set_without_rules_and_a_rule_of_empty_sets_are_found() {
        let sets = "[sets.some]\nprefixes = ['10.0.0.0/8']\n[sets.none]\nfile = '/dev/null'\n";
        let rule = |conditions: &str| format!("[[rules]]\nname = 'r'\naction = 'accept'\n{conditions}\n");
        let unused = |set: &str| format!("the set {set:?} is not used: no rule names it");
        let nothing = "rule \"r\" matches nothing: the set \"none\" is empty".to_owned();
        for (rules, expected) in [
            (String::new(), vec![unused("none"), unused("some")]),
            (rule("source = ['@some', '@none']"), vec![]),
            (rule("source = '@some'\ndestination = ['192.0.2.1', '@none']"), vec![]),
            (rule("source = '@none'"), vec![unused("some"), nothing.clone()]),
            (rule("source = '@some'\ndestination = '@none'"), vec![nothing]),
        ] {
            let policy = Firewall.policy(toml::from_str(&format!("{sets}{rules}")).unwrap()).unwrap();
            let said: Vec<_> = lint(&policy.rules, &policy.sets).iter().map(ToString::to_string).collect();
            assert_eq!(said, expected, "{rules}");
        }
    }

    #[test]
    fn our_own_rule_is_not_found_fault_with() {
        let all = "[[rules]]\nname = 'all'\naction = 'drop'";
        let policy = Firewall.policy(toml::from_str(all).unwrap()).unwrap();
        assert_eq!((policy.rules.len(), policy.findings()), (2, vec![]));
        let twice = format!("{all}\n{}", all.replace("'all'", "'again'"));
        let policy = Firewall.policy(toml::from_str(&twice).unwrap()).unwrap();
        assert_eq!(policy.findings().len(), 1, "but with those that were written");
    }
}
