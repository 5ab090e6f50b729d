//! Rules that change while a program runs: built off the data path, and swapped whole.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use dpdk_rs::Eal;
use nf_framework::config::ConfigFile;
use nf_framework::headers::IpProtocol;
use nf_framework::{
    Addresses, Affinity, Classifier, Configuration, Context, Control, DropReason, Function, Functions, Invalid, Key,
    Loaded, Mbuf, Memory, PacketFunction, Prefix, Rule, Runtime, SetupError, Verdict, WorkerSetup,
};
use serde::Deserialize;
use std::net::Ipv4Addr;
use std::sync::{Arc, OnceLock};

fn on_eal<T: Send + 'static>(test: impl FnOnce(&Eal) -> T + Send + 'static) -> T {
    common::on_eal(|| ["net_null0", "net_null1"].map(str::to_owned).to_vec(), test)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    deny: Vec<Prefix>,
    #[serde(default)]
    per_host: bool,
}

struct Policy {
    rules: Vec<Rule>,
    affinity: Affinity,
    classifier: OnceLock<Classifier>,
}

struct Deny;
struct Instance(Arc<Policy>);

impl Instance {
    fn denies(&self, source: [u8; 4]) -> bool {
        let key = Key::ipv4(Ipv4Addr::from(source), Ipv4Addr::UNSPECIFIED, IpProtocol::UDP);
        self.0.classifier.get().is_some_and(|classifier| classifier.classify_one(&key).is_some())
    }
}

impl PacketFunction for Instance {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        if self.denies([10, 0, 0, 1]) { Verdict::Drop(DropReason::POLICY) } else { Verdict::Next }
    }
}

impl Function for Deny {
    type Config = Config;
    type Policy = Policy;
    type Instance = Instance;

    fn name(&self) -> &str {
        "deny"
    }

    fn policy(&self, Config { deny, per_host }: Config) -> Result<Policy, Invalid> {
        let rule = |prefix| Rule { source: Addresses::Prefix(prefix), ..Rule::default() };
        let affinity = if per_host { Affinity::InsideHost } else { Affinity::Any };
        Ok(Policy { rules: deny.into_iter().map(rule).collect(), affinity, classifier: OnceLock::new() })
    }

    fn affinity(&self, policy: &Policy) -> Affinity {
        policy.affinity
    }

    fn build(&self, policy: &Policy, memory: &Memory) -> Result<(), SetupError> {
        if policy.classifier.get().is_some() {
            return Ok(());
        }
        let classifier = Classifier::new(memory, &[], &policy.rules)?;
        policy.classifier.set(classifier).map_err(|_| "built already".into())
    }

    fn instance(&self, policy: Arc<Policy>, _: &mut WorkerSetup) -> Result<Instance, SetupError> {
        Ok(Instance(policy))
    }

    fn adopt(instance: &mut Instance, policy: Arc<Policy>) {
        instance.0 = policy;
    }
}

fn file(deny: &str) -> ConfigFile {
    let text = format!(
        "forwarding = 'wire'\npackets = 4095\n[ports]\ndescriptors = 256\ninside = 'net_null0'\noutside = 'net_null1'\n{deny}"
    );
    ConfigFile::parse("f.toml", text).unwrap()
}

/// More rules than there can be.
fn too_many() -> String {
    let prefixes: Vec<String> = (0..20_000).map(|n| format!("'10.{}.{}.0/24'", n / 256, n % 256)).collect();
    format!("[deny]\ndeny = [{}]\n", prefixes.join(", "))
}

fn denied(control: &Control, source: [u8; 4]) -> Vec<bool> {
    control.command::<Deny, _>("deny", move |deny, _| deny.denies(source)).unwrap()
}

#[test]
fn a_classifier_is_swapped_whole_and_one_that_cannot_be_built_is_not() {
    on_eal(|eal| {
        let known = Functions::new().with(Deny);
        let configuration = Configuration::load(&file("[deny]\ndeny = ['10.0.0.0/8']\n"), &known).unwrap();
        let check = configuration.check(Some(eal));
        assert!(check.problems().is_empty() && check.to_string().contains("memory for deny's policy"), "{check}");
        let runtime = Runtime::configured(eal, configuration).unwrap();
        let ((), report) = runtime
            .run(|control| {
                assert_eq!(denied(control, [10, 1, 1, 1]), [true, true]);
                assert_eq!(denied(control, [192, 0, 2, 1]), [false, false]);

                control.reload(&file("[deny]\ndeny = ['192.0.2.0/24']\n")).unwrap();
                assert_eq!(denied(control, [10, 1, 1, 1]), [false, false]);
                assert_eq!(denied(control, [192, 0, 2, 1]), [true, true]);

                for (text, expected) in [
                    (too_many(), "the policy of deny cannot be built: 20000 rules are more than 16384: put addresses"),
                    (
                        "[deny]\ndeny = []\nper_host = true\n".to_owned(),
                        "f.toml:7: [deny]: needs all flows of an inside host on one worker in place of nothing, which \
                         cannot change in a running program (restart it)",
                    ),
                    ("[deny]\ndeny = ['10.0.0.0/33']\n".to_owned(), "f.toml:8: [deny] deny[0]: "),
                ] {
                    let error = control.reload(&file(&text)).unwrap_err().to_string();
                    assert!(error.starts_with(expected), "{error}");
                }
                assert_eq!(denied(control, [192, 0, 2, 1]), [true, true], "the old rules are in force");
                assert_eq!(control.generation(), 2);

                let policy = Deny.policy(Config { deny: vec!["0.0.0.0/0".parse().unwrap()], per_host: false }).unwrap();
                let policy = Arc::new(policy);
                for _ in 0..2 {
                    control.publish::<Deny>("deny", Arc::clone(&policy)).unwrap();
                    assert_eq!(denied(control, [10, 1, 1, 1]), [true, true]);
                }

                let policy = Deny.policy(Config { deny: Vec::new(), per_host: true }).unwrap();
                let error = control.publish::<Deny>("deny", Arc::new(policy)).unwrap_err().to_string();
                assert_eq!(
                    error,
                    "the policy of deny needs all flows of an inside host on one worker in place of nothing: restart \
                     the program"
                );
                let policy = Policy {
                    classifier: OnceLock::new(),
                    rules: vec![Rule::default(); 20_000],
                    affinity: Affinity::Any,
                };
                let error = control.publish::<Deny>("deny", Arc::new(policy)).unwrap_err().to_string();
                assert!(error.starts_with("the policy of deny cannot be built: 20000 rules are more"), "{error}");
                assert_eq!(denied(control, [10, 1, 1, 1]), [true, true]);
            })
            .unwrap();
        assert_eq!(report.balance.unaccounted(), 0, "{report}");
    });
}

#[test]
fn too_many_rules_are_an_error_at_start_and_leave_nothing_behind() {
    on_eal(|eal| {
        let known = Functions::new().with(Deny);
        let configuration = Configuration::load(&file(&too_many()), &known).unwrap();
        let before = eal.free_memory();
        let check = configuration.check(Some(eal));
        assert!(check.problems()[0].starts_with("the policy of deny cannot be built: 20000 rules"), "{check}");
        let error = Runtime::configured(eal, configuration).unwrap_err().to_string();
        assert!(error.starts_with("the policy of deny cannot be built: 20000 rules are more than 16384"), "{error}");
        assert_eq!(eal.free_memory(), before);
        // Neither a pool nor a started port is in the way.
        let policy = Deny.policy(Config { deny: Vec::new(), per_host: false }).unwrap();
        let configuration = Configuration::load(&file("[deny]\ndeny = []\n"), &known).unwrap();
        assert!(Runtime::new(eal, configuration.runtime(), vec![Loaded::new(Deny, policy)]).is_ok());
    });
}
