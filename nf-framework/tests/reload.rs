//! A running program takes a new configuration over, as a whole or not at all.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

mod common;

use common::{Mirror, Scratch};
use dpdk_rs::Eal;
use nf_framework::config::ConfigFile;
use nf_framework::{
    Affinity, Batch, Budget, Change, CommandError, Configuration, Context, Control, Counter, Direction, DropReason,
    Finding, Function, Functions, Invalid, Loaded, Mbuf, NetworkFunction, PacketFunction, Reload, ReloadError, Report,
    Runtime, SetupError, Verdict, WorkerSetup,
};
use serde::Deserialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::ThreadId;

fn on_eal<T: Send + 'static>(test: impl FnOnce(&Eal) -> T + Send + 'static) -> T {
    common::on_eal(|| ["net_null0", "net_null1", "net_ring0"].map(str::to_owned).to_vec(), test)
}

const FRAMEWORK: &str = "chain = ['rules', 'limits']\nforwarding = 'wire'\npackets = 4095\n\
                         [ports]\ninside = 'net_null0'\noutside = 'net_null1'\ndescriptors = 256\n";
const SECTIONS: &str = "[rules]\nblocked = [9, 80]\n[limits]\nrate = 5\n";

fn file(text: &str) -> ConfigFile {
    ConfigFile::parse("f.toml", text).unwrap()
}

/// The configuration that programs start with, with something in place of something.
fn changed(from: &str, to: &str) -> String {
    let text = format!("{FRAMEWORK}{SECTIONS}");
    assert!(text.contains(from), "{from}");
    text.replacen(from, to, 1)
}

type Freed = Arc<Mutex<Vec<(Vec<u16>, ThreadId)>>>;

/// A function of two, each called by its name, that have a policy.
struct Rules {
    name: &'static str,
    freed: Freed,
    /// What it wants to have in force of its own accord.
    wants: Arc<Mutex<Vec<u16>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Config {
    blocked: Vec<u16>,
    rate: u16,
    capacity: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self { blocked: Vec::new(), rate: 7, capacity: 100 }
    }
}

/// Tells when and where it is freed.
struct Policy {
    blocked: Vec<u16>,
    capacity: usize,
    freed: Freed,
}

impl Drop for Policy {
    fn drop(&mut self) {
        let freed = (std::mem::take(&mut self.blocked), std::thread::current().id());
        self.freed.lock().unwrap_or_else(PoisonError::into_inner).push(freed);
    }
}

struct Instance {
    policy: Arc<Policy>,
    adopted: u64,
}

impl PacketFunction for Instance {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        Verdict::Next
    }
}

impl Function for Rules {
    type Config = Config;
    type Policy = Policy;
    type Instance = Instance;

    fn name(&self) -> &str {
        self.name
    }

    fn policy(&self, Config { mut blocked, rate, capacity }: Config) -> Result<Policy, Invalid> {
        assert!(rate != 13, "an unlucky number");
        if let Some(at) = blocked.iter().position(|port| *port == 0) {
            return Err(Invalid::new(format!("blocked[{at}]"), "there is no port 0"));
        }
        blocked.push(rate);
        Ok(Policy { blocked, capacity, freed: Arc::clone(&self.freed) })
    }

    fn replace(&self, config: Config, running: &Policy) -> Result<Policy, Invalid> {
        if config.capacity != running.capacity {
            let message = format!("{} -> {} needs a restart", running.capacity, config.capacity);
            return Err(Invalid::new("capacity", message));
        }
        self.policy(config)
    }

    fn lint(&self, policy: &Policy) -> Vec<Finding> {
        let twice = |at: usize| policy.blocked[..at].contains(&policy.blocked[at]);
        let found = (0..policy.blocked.len()).filter(|at| twice(*at));
        found.map(|at| Finding::new(format!("blocked[{at}]"), "is blocked already")).collect()
    }

    fn tend(&self, running: &Policy) -> Option<Policy> {
        let wanted = self.wants.lock().unwrap().clone();
        let differs = !wanted.is_empty() && wanted != running.blocked;
        differs.then(|| Policy { blocked: wanted, capacity: running.capacity, freed: Arc::clone(&self.freed) })
    }

    fn instance(&self, policy: Arc<Policy>, _: &mut WorkerSetup) -> Result<Instance, SetupError> {
        Ok(Instance { policy, adopted: 0 })
    }

    fn adopt(instance: &mut Instance, policy: Arc<Policy>) {
        instance.policy = policy;
        instance.adopted += 1;
    }
}

fn rules(name: &'static str, freed: &Freed) -> Rules {
    Rules { name, freed: Arc::clone(freed), wants: Arc::default() }
}

fn functions() -> (Functions, Freed) {
    let freed = Freed::default();
    let [rules, limits, other] = ["rules", "limits", "other"].map(|name| rules(name, &freed));
    (Functions::new().with(rules).with(limits).with(other), freed)
}

/// What the instances of a function work by, and how often they changed, on both workers.
fn in_force(control: &Control, name: &str) -> Vec<(Vec<u16>, u64)> {
    let look = |instance: &mut Instance, _: &mut Context<'_>| (instance.policy.blocked.clone(), instance.adopted);
    control.command::<Rules, _>(name, look).unwrap()
}

fn run<T: Send>(eal: &Eal, text: &str, known: &Functions, control: impl FnOnce(&Control) -> T + Send) -> (T, Report) {
    let configuration = Configuration::load(&file(text), known).unwrap();
    let (value, report) = Runtime::configured(eal, configuration).unwrap().run(control).unwrap();
    assert_eq!(report.balance.unaccounted(), 0, "{report}");
    (value, report)
}

#[test]
fn a_reload_puts_all_changes_in_force_on_every_worker_and_says_what_they_are() {
    on_eal(|eal| {
        let steps = [
            (changed("80]", "81]"), vec!["[rules] blocked[1]: 80 -> 81"], vec![9, 81, 7], vec![5]),
            (
                changed("[9, 80]", "[9, 22, 81]\nrate = 1").replace("rate = 5", "rate = 6"),
                vec!["[limits] rate: 5 -> 6", "+ [rules] blocked[1] = 22", "+ [rules] rate = 1"],
                vec![9, 22, 81, 1],
                vec![6],
            ),
            // A function that the file says nothing of any more works by its defaults.
            (
                changed(SECTIONS, "[limits]\nrate = 6\n"),
                vec!["- [rules] blocked = [9, 22, 81]", "- [rules] rate = 1"],
                vec![7],
                vec![6],
            ),
        ];
        let (known, freed) = functions();
        let control = |control: &Control| {
            assert_eq!((control.generation(), control.report().generation), (1, 1));
            for (generation, (text, expected, rules, limits)) in (2..).zip(steps) {
                let Reload::Changed { generation: new, changes, .. } = control.reload(&file(&text)).unwrap() else {
                    panic!("no change: {text}");
                };
                assert_eq!(
                    (new, control.generation(), control.report().generation),
                    (generation, generation, generation)
                );
                assert_eq!(changes.iter().map(Change::to_string).collect::<Vec<_>>(), expected);
                let of = |name| in_force(control, name).into_iter().map(|(blocked, _)| blocked).collect::<Vec<_>>();
                assert_eq!(of("rules"), [rules.clone(), rules]);
                assert_eq!(of("limits"), [limits.clone(), limits]);
            }
            // Old policies are freed here; the three steps have replaced four.
            let me = std::thread::current().id();
            let expected = [&[9, 80, 7][..], &[9, 81, 7], &[5], &[9, 22, 81, 1]].map(|policy| (policy.to_vec(), me));
            let mut so_far = freed.lock().unwrap().clone();
            so_far.sort_by_key(|(policy, _)| expected.iter().position(|(expected, _)| expected == policy));
            assert_eq!(so_far, expected);
        };
        run(eal, &changed("", ""), &known, control);
        assert_eq!(freed.lock().unwrap().len(), 6, "the last ones go with the program");
    });
}

#[test]
fn who_asks_for_a_reload_is_told_its_warnings() {
    on_eal(|eal| {
        let control = |control: &Control| {
            let twice = changed("[9, 80]", "[9, 80, 9]").replace("[rules]", "[other]\n[rules]");
            let unused = "f.toml:8: [other]: this table is not in use: the chain does not name it";
            let twice_blocked = "f.toml:10: [rules] blocked[2]: is blocked already";
            match control.reload(&file(&twice)) {
                Ok(Reload::Changed { generation: 2, warnings, .. }) => assert_eq!(warnings, [unused, twice_blocked]),
                other => panic!("{other:?}"),
            }
            // What a function finds is of what is new, and is not said again.
            let again = Reload::Unchanged { generation: 2, warnings: vec![unused.to_owned()] };
            assert_eq!(control.reload(&file(&twice)).unwrap(), again);
        };
        run(eal, &changed("", ""), &functions().0, control);
    });
}

#[test]
fn a_file_that_says_the_same_in_other_words_touches_nothing() {
    on_eal(|eal| {
        let same = [
            changed("", ""),
            changed("", "# a comment\n"),
            changed("[9, 80]", "[\n  9, # discard\n  0x50,\n]"),
            format!("{FRAMEWORK}[limits]\nrate = 5\n[rules]\nblocked = [9, 80]\n"),
            // Defaults of the framework's, written out.
            changed("forwarding", "burst = 32\nforwarding"),
            // What belongs to a function that is not in the chain.
            changed("[rules]", "[other]\nrate = 99\n[rules]"),
        ];
        let control = |control: &Control| {
            for text in same {
                assert!(matches!(control.reload(&file(&text)), Ok(Reload::Unchanged { generation: 1, .. })), "{text}");
            }
            for (name, policy) in [("rules", vec![9, 80, 7]), ("limits", vec![5])] {
                assert_eq!(in_force(control, name), [(policy.clone(), 0), (policy, 0)]);
            }
            // One that has not changed is not touched when another has.
            control.reload(&file(&changed("rate = 5", "rate = 6"))).unwrap();
            assert_eq!(in_force(control, "rules")[0].1, 0);
            assert_eq!(in_force(control, "limits")[0].1, 1);
        };
        run(eal, &changed("", ""), &functions().0, control);
    });
}

#[test]
fn whatever_is_wrong_with_a_file_leaves_the_old_rules_in_force_and_is_named() {
    let cannot = "is a change that a running program cannot make (restart it)";
    let cases = [
        (changed("blocked", "bloked"), "FILE:9: [rules] bloked: unknown key (known: blocked, rate, capacity)".to_owned()),
        (changed("[9, 80]", "80"), "FILE:9: [rules] blocked: expected an array, found 80".to_owned()),
        (changed("[rules]", "[rules"), "FILE:8: not valid TOML: unclosed table, expected `]`".to_owned()),
        (changed("[rules]", "[ruls]"), "FILE:8: [ruls]: unknown table (known: chain, forwarding, router, ports, burst, packets, fragments, admin, rules, limits, other)".to_owned()),
        // The function before it has changed too, and is well.
        (
            changed("80]", "81]").replace("rate = 5", "rate = 5\nblocked = [1, 0]"),
            "FILE:12: [limits] blocked[1]: there is no port 0".to_owned(),
        ),
        (
            changed("rate = 5", "rate = 5\ncapacity = 200"),
            "FILE:12: [limits] capacity: 100 -> 200 needs a restart".to_owned(),
        ),
        (changed("rate = 5", "rate = 13"), "the policy of limits cannot be prepared: it panicked: an unlucky number".to_owned()),
        (changed("'net_null1'", "'net_null7'"), format!("FILE:6: [ports] outside: \"net_null1\" -> \"net_null7\" {cannot}")),
        (changed("outside = 'net_null1'", ""), format!("FILE:4: [ports] outside: \"net_null1\" -> nothing {cannot}")),
        (changed("descriptors = 256", "descriptors = 256\nmtu = 1500"), format!("FILE:8: [ports] mtu: nothing -> 1500 {cannot}")),
        (changed("packets", "burst = 64\npackets"), format!("FILE:3: burst: 32 -> 64 {cannot}")),
        (changed("[rules]", "[fragments]\nheld = 64\n[rules]"), format!("FILE:9: [fragments] held: 1024 -> 64 {cannot}")),
        (changed("[rules]", "[fragments]\ntimeout = 0\n[rules]"), "FILE:9: [fragments] timeout: 0 is not from 1 to 60".to_owned()),
        (changed("packets = 4095\n", ""), format!("FILE: packets: 4095 -> nothing {cannot}")),
        (changed("descriptors = 256", "offloads = false\ndescriptors = 256"), format!("FILE:7: [ports] offloads: true -> false {cannot}")),
        (changed("descriptors = 256\n", ""), format!("FILE:4: [ports] descriptors: 256 -> nothing {cannot}")),
        (changed("'limits']", "'other']"), format!("FILE:1: chain[1]: \"limits\" -> \"other\" {cannot}")),
        (
            changed("'rules', 'limits'", "'limits', 'rules'"),
            "FILE:1: chain[0]: \"rules\" -> \"limits\" is a change that a running program cannot make (restart it), and 1 more".to_owned(),
        ),
        (changed("'limits']", "'limit']"), "FILE:1: chain[1]: there is no function \"limit\" (known: rules, limits, other)".to_owned()),
    ];
    on_eal(move |eal| {
        let scratch = Scratch::new("reload-wrong");
        let path = scratch.path("f.toml");
        let control = |control: &Control| {
            for (text, sentence) in cases {
                std::fs::write(&path, &text).unwrap();
                let error = control.reload_from(&path).unwrap_err();
                assert_eq!(error.to_string(), sentence.replace("FILE", &path));
                assert_eq!((control.generation(), control.report().generation), (1, 1), "{text}");
            }
            let error = control.reload_from(scratch.path("none.toml")).unwrap_err();
            assert!(error.to_string().ends_with("none.toml: no such file (check the path)"), "{error}");
            for (name, policy) in [("rules", vec![9, 80, 7]), ("limits", vec![5])] {
                assert_eq!(in_force(control, name), [(policy.clone(), 0), (policy, 0)]);
            }
            // And the next one that is right is carried out.
            std::fs::write(&path, changed("80]", "81]")).unwrap();
            assert!(matches!(control.reload_from(&path), Ok(Reload::Changed { generation: 2, .. })));
        };
        run(eal, &changed("", ""), &functions().0, control);
    });
}

#[test]
fn what_a_program_publishes_is_a_generation_too_and_stays_until_the_file_says_something_else() {
    on_eal(|eal| {
        let (known, freed) = functions();
        let control = |control: &Control| {
            let policy = Policy { blocked: vec![1], capacity: 100, freed: Arc::clone(&freed) };
            control.publish::<Rules>("rules", Arc::new(policy)).unwrap();
            assert_eq!((control.generation(), control.report().generation), (2, 2));
            let same = control.reload(&file(&changed("", ""))).unwrap();
            assert_eq!(same, Reload::Unchanged { generation: 2, warnings: Vec::new() });
            assert_eq!(in_force(control, "rules"), [(vec![1], 1), (vec![1], 1)]);
            control.reload(&file(&changed("80]", "81]"))).unwrap();
            assert_eq!(in_force(control, "rules"), [(vec![9, 81, 7], 2), (vec![9, 81, 7], 2)]);

            let unknown = control.publish::<Rules>("ruls", Arc::new(Policy { blocked: vec![], capacity: 0, freed }));
            assert!(matches!(unknown.unwrap_err(), CommandError::NoSuchFunction(name) if name == "ruls"));
            assert_eq!(control.generation(), 3);
        };
        run(eal, &changed("", ""), &known, control);
    });
}

#[test]
fn what_a_function_wants_itself_is_in_force_once_it_is_tended_and_asked_for_no_more() {
    on_eal(|eal| {
        let freed = Freed::default();
        let (rules, limits) = (rules("rules", &freed), rules("limits", &freed));
        let wants = Arc::clone(&limits.wants);
        let control = |control: &Control| {
            control.tend_functions().unwrap();
            assert_eq!(control.generation(), 1, "nobody wants anything");
            *wants.lock().unwrap() = vec![1, 2];
            for _ in 0..3 {
                control.tend_functions().unwrap();
                assert_eq!(control.generation(), 2);
            }
            assert_eq!(in_force(control, "limits"), [(vec![1, 2], 1), (vec![1, 2], 1)]);
            assert_eq!(in_force(control, "rules")[0].1, 0);
            assert_eq!(freed.lock().unwrap().len(), 1, "the old one is");
            // A reload is not held up by it, and prepares what follows on what is in force.
            control.reload(&file(&changed("80]", "81]"))).unwrap();
            control.tend_functions().unwrap();
            assert_eq!(control.generation(), 3);
            assert_eq!(in_force(control, "rules"), [(vec![9, 81, 7], 1), (vec![9, 81, 7], 1)]);
            assert_eq!(in_force(control, "limits"), [(vec![1, 2], 1), (vec![1, 2], 1)]);
        };
        run(eal, &changed("", ""), &Functions::new().with(rules).with(limits), control);
    });
}

#[test]
fn a_function_that_was_not_made_from_a_file_takes_one_over_too() {
    on_eal(|eal| {
        let freed = Freed::default();
        let rules = rules("rules", &freed);
        let policy = rules.policy(Config::default()).unwrap();
        let text = changed("'rules', 'limits'", "'rules'").replace("[limits]\nrate = 5\n", "");
        let config = file(&text).framework(&["rules"]).unwrap();
        let runtime = Runtime::new(eal, &config, vec![Loaded::new(rules, policy)]).unwrap();
        let control = |control: &Control| {
            assert!(matches!(control.reload(&file(&text)), Ok(Reload::Changed { generation: 2, .. })));
            assert_eq!(in_force(control, "rules"), [(vec![9, 80, 7], 1), (vec![9, 80, 7], 1)]);
        };
        runtime.run(control).unwrap();
    });
}

/// What a closure makes: holds the first so many packets that it meets, and counts all.
struct Holder {
    hold: usize,
    held: Vec<Mbuf>,
    seen: Counter,
    dropped_by_us: DropReason,
}

impl NetworkFunction for Holder {
    fn batch(&mut self, batch: &mut Batch, _: &mut Context<'_>) {
        for slot in batch.undecided() {
            self.seen.add(1);
            if self.held.len() < self.hold {
                self.held.extend(batch.take(slot));
            } else {
                batch.decide(slot, Verdict::Drop(self.dropped_by_us));
            }
        }
    }

    fn held(&self) -> usize {
        self.held.len()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HolderConfig {
    hold: usize,
    #[serde(default)]
    refuse_on: Option<usize>,
    #[serde(default)]
    panic_on: Option<usize>,
}

fn holder(config: &HolderConfig, worker: &mut WorkerSetup) -> Result<Holder, SetupError> {
    if config.refuse_on == Some(worker.index()) {
        return Err("there is no table".into());
    }
    assert!(config.panic_on != Some(worker.index()), "out of luck");
    let dropped_by_us = worker.drop_reason("not-held", "the holder is full")?;
    let held = Vec::with_capacity(config.hold);
    Ok(Holder { hold: config.hold, held, seen: worker.counter("seen"), dropped_by_us })
}

const HOLDER: &str = "chain = ['rules', 'holder']\npackets = 4095\n[ports]\ninside = 'net_null0'\n\
                      outside = 'net_null1'\ndescriptors = 256\n[holder]\nhold = 3\n";

fn wait_for(control: &Control, what: impl Fn(&Report) -> bool) -> Report {
    loop {
        let report = control.report();
        if what(&report) {
            return report;
        }
        assert!(!control.stopping(), "it ended early: {report}");
        std::thread::yield_now();
    }
}

#[test]
fn what_a_closure_makes_is_made_anew_and_what_it_held_is_dropped_and_counted() {
    on_eal(|eal| {
        let known = functions().0.with_closure("holder", Affinity::Any, holder);
        let control = |control: &Control| {
            let before = wait_for(control, |report| report.functions[1].held == 6 && report.dropped("not-held") > 100);
            for (hold, dropped) in [(5, 6), (2, 16), (4, 20)] {
                let text = HOLDER.replace("hold = 3", &format!("hold = {hold}"));
                assert!(matches!(control.reload(&file(&text)), Ok(Reload::Changed { .. })));
                let report = wait_for(control, |report| report.functions[1].held == 2 * hold);
                assert_eq!(report.dropped("reloaded"), dropped);
                // Two counters and one reason, however often they are asked for.
                assert_eq!(report.counters.len(), before.counters.len());
                assert!(report.counter("holder", "seen") > before.counter("holder", "seen"));
            }
        };
        let (_, report) = run(eal, HOLDER, &known, control);
        assert_eq!(report.counter("holder", "seen"), Some(report.functions[1].seen), "{report}");
        let (dropped, named) = (report.balance.dropped, report.dropped("not-held") + report.dropped("reloaded"));
        // Those that were held at the end.
        assert_eq!((dropped, report.balance.held), (named, 8), "{report}");
    });
}

#[test]
fn an_instance_that_cannot_be_made_on_one_worker_rolls_back_all() {
    on_eal(|eal| {
        let known = functions().0.with_closure("holder", Affinity::Any, holder);
        let control = |control: &Control| {
            wait_for(control, |report| report.functions[1].held == 6);
            for culprit in [0, 1] {
                for (key, reason) in [("refuse_on", "there is no table"), ("panic_on", "it panicked: out of luck")] {
                    let text = HOLDER.replace("hold = 3", &format!("hold = 2\n{key} = {culprit}\n[rules]\nrate = 3"));
                    let error = control.reload(&file(&text)).unwrap_err();
                    assert!(matches!(&error, ReloadError::Setup { worker, .. } if *worker == culprit), "{error:?}");
                    let sentence = format!("function holder cannot be set up on worker {culprit}: {reason}");
                    assert_eq!(error.to_string(), sentence);
                    assert_eq!((control.generation(), control.report().generation), (1, 1));
                    assert_eq!(in_force(control, "rules"), [(vec![7], 0), (vec![7], 0)]);
                }
            }
            let report = control.report();
            assert_eq!((report.functions[1].held, report.dropped("reloaded")), (6, 0));
            let text = HOLDER.replace("hold = 3", "hold = 1\n[rules]\nrate = 3");
            control.reload(&file(&text)).unwrap();
            wait_for(control, |report| report.functions[1].held == 2);
            assert_eq!(in_force(control, "rules"), [(vec![3], 1), (vec![3], 1)]);
        };
        run(eal, HOLDER, &known, control);
    });
}

/// Panics on one worker when it adopts, or when it is told to.
struct Bomb;

static LIT: AtomicBool = AtomicBool::new(false);

struct BombInstance(usize);

impl PacketFunction for BombInstance {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        Verdict::Next
    }

    fn tick(&mut self, _: &mut Context<'_>, _: Budget) {
        assert!(self.0 == 0 || !LIT.load(Ordering::Relaxed), "told to");
    }
}

impl Function for Bomb {
    type Config = Config;
    type Policy = u16;
    type Instance = BombInstance;

    fn name(&self) -> &str {
        "bomb"
    }

    fn policy(&self, config: Config) -> Result<u16, Invalid> {
        Ok(config.rate)
    }

    fn instance(&self, _: Arc<u16>, worker: &mut WorkerSetup) -> Result<BombInstance, SetupError> {
        Ok(BombInstance(worker.index()))
    }

    fn adopt(instance: &mut BombInstance, _: Arc<u16>) {
        assert!(instance.0 == 0, "while it adopts");
    }
}

#[test]
fn a_worker_that_does_not_answer_is_named_and_what_is_in_force_is_said() {
    on_eal(|eal| {
        let known = functions().0.with(Bomb).with_closure("holder", Affinity::Any, holder);
        let text = HOLDER.replace("'rules'", "'bomb'");
        type Case = (&'static str, &'static str, fn(&Control), fn(&ReloadError) -> bool, u64);
        let cases: [Case; 2] = [
            (
                "[bomb]\nrate = 3\n",
                "worker 1 panicked: while it adopts",
                |_| (),
                |error| matches!(error, ReloadError::Unanswered { generation: 2, .. }),
                2,
            ),
            (
                "",
                "worker 1 panicked: told to",
                |control| {
                    LIT.store(true, Ordering::Relaxed);
                    while !control.stopping() {
                        std::thread::yield_now();
                    }
                },
                |error| matches!(error, ReloadError::NotStaged(_)),
                1,
            ),
        ];
        for (more, panic, before, expected, generation) in cases {
            let hold = if more.is_empty() { "hold = 4" } else { "hold = 3" };
            let changed = text.replace("hold = 3", hold) + more;
            let configuration = Configuration::load(&file(&text), &known).unwrap();
            let result = Runtime::configured(eal, configuration).unwrap().run(|control| {
                before(control);
                // What asks for nothing new asks no worker.
                let same = Reload::Unchanged { generation: 1, warnings: Vec::new() };
                assert_eq!(control.reload(&file(&text)).unwrap(), same);
                let error = control.reload(&file(&changed)).unwrap_err();
                assert!(expected(&error), "{error:?}");
                assert!(error.to_string().contains("has not answered"), "{error}");
                assert_eq!(control.generation(), generation);
                while !control.stopping() {
                    std::thread::yield_now();
                }
            });
            LIT.store(false, Ordering::Relaxed);
            assert_eq!(result.unwrap_err().to_string(), panic);
        }
    });
}

#[derive(Deserialize)]
struct Empty {}

/// Makes so many packets.
struct Source(u32);

impl PacketFunction for Source {
    fn packet(&mut self, _: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
        Verdict::Next
    }

    fn tick(&mut self, cx: &mut Context<'_>, budget: Budget) {
        for _ in 0..self.0.min(budget.0) {
            let Some(mut packet) = cx.allocate() else { return };
            assert!(packet.set_contents(&[0; 60]));
            cx.emit(packet, Direction::Outbound);
            self.0 -= 1;
        }
    }
}

#[test]
fn packets_that_go_round_for_ever_do_not_see_two_generations_and_are_dropped_by_name() {
    on_eal(|eal| {
        // All packets end up between two mirrors.
        let known = functions()
            .0
            .with_closure("source", Affinity::Any, |_: &Empty, _| Ok(Source(50)))
            .with_closure("inner", Affinity::Any, |_: &Empty, _| Ok(Mirror(Direction::Inbound)))
            .with_closure("outer", Affinity::Any, |_: &Empty, _| Ok(Mirror(Direction::Outbound)));
        let text = "chain = ['source', 'inner', 'rules', 'outer']\nforwarding = 'wire'\npackets = 4095\n[ports]\n\
                    inside = 'net_ring0'\ndescriptors = 256\n";
        let control = |control: &Control| {
            wait_for(control, |report| report.balance.originated == 100 && report.functions[2].seen > 1000);
            // A command does not care.
            assert_eq!(in_force(control, "rules"), [(vec![7], 0), (vec![7], 0)]);
            assert_eq!(control.report().dropped("reloaded"), 0);
            control.reload(&file(&format!("{text}[rules]\nrate = 1\n"))).unwrap();
            assert_eq!(control.report().dropped("reloaded"), 100);
        };
        let (_, report) = run(eal, text, &known, control);
        assert_eq!((report.balance.dropped, report.balance.originated), (100, 100), "{report}");
    });
}
