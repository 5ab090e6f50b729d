//! What scripts/budgets makes of counts: the program itself has no test harness.
#![allow(clippy::unwrap_used, reason = "a test that unwraps fails with the line that it is about")]

#[path = "../benches/budgets/budget.rs"]
mod budget;
#[path = "../benches/budgets/callgrind.rs"]
#[allow(dead_code, reason = "nothing is run here")]
mod callgrind;
#[path = "../benches/budgets/report.rs"]
mod report;
#[path = "../benches/budgets/stacks.rs"]
#[allow(dead_code, reason = "nothing is run here")]
mod stacks;

use budget::{Budgets, Line, Tools};
use callgrind::{Case, parse};
use report::Report;
use stacks::{Frame, Stacks};

fn case(name: &str) -> Case {
    Case { name: name.to_owned(), packets: 100, packets_per_tick: 50, above: None, help: "a case".to_owned() }
}

#[test]
fn a_case_that_is_off_its_budget_says_so_and_what_to_do() {
    for (counted, budget, complaint) in [
        (100.0, Some(100.0), None),
        (102.9, Some(100.0), None),
        (97.1, Some(100.0), None),
        (103.1, Some(100.0), Some("nat takes 103.1 instructions per packet and may take 100.0: `scripts/profile nat`")),
        (96.9, Some(100.0), Some("nat takes only 96.9 instructions per packet of 100.0: `scripts/budgets --update`")),
        (5.0, None, Some("nat has no budget: `scripts/budgets --update` gives it one of 5.0")),
    ] {
        let said = Line::new(case("nat"), counted, budget).complaint();
        match complaint {
            None => assert_eq!(said, None, "{counted} {budget:?}"),
            Some(complaint) => assert!(said.unwrap().starts_with(complaint), "{counted} {budget:?}"),
        }
    }
}

#[test]
fn an_update_changes_the_budgets_that_are_not_kept_and_no_others() {
    let tools = Tools { dpdk: "22.11.1".to_owned(), rustc: "1.95.0".to_owned() };
    let lines = [
        Line::new(case("kept"), 102.0, Some(100.0)),
        Line::new(case("raised"), 150.0, Some(100.0)),
        Line::new(case("lowered"), 50.0, Some(100.0)),
        Line::new(case("new"), 7.25, None),
    ];
    let budgets = Budgets::parse(&budget::file(&tools, &lines)).unwrap();
    assert_eq!(budgets.tools(), tools);
    let of = |name| budgets.of(&case(name)).unwrap();
    assert_eq!(["kept", "raised", "lowered", "new"].map(of), [100.0, 150.0, 50.0, 7.2]);
    assert_eq!(budgets.left_over(&["kept", "raised", "new"].map(case)), ["lowered"]);
}

/// A worker that took 1000 instructions for 100 packets, and 4 ticks of 50 instructions each.
const WRITTEN: &str = "\
# callgrind format
positions: instr line
events: Ir
summary: 1200

ob=/program
fl=worker.rs
fn=nf_framework::worker::Worker::run'main
0x10 1 600
cob=/lib/librte_net_ring.so.23.0
cfi=???
cfn=0x30'nf_framework::worker::Worker::run'main
calls=8 0x30 0
0x14 2 400
cfi=worker.rs
cfn=nf_framework::worker::Worker::housekeeping'nf_framework::worker::Worker::run'main
calls=4 0x20 3
0x18 3 200

fn=nf_framework::worker::Worker::housekeeping'nf_framework::worker::Worker::run'main
0x20 5 200

ob=/lib/librte_net_ring.so.23.0
fl=???
fn=0x30'nf_framework::worker::Worker::run'main
0x30 0 400

totals: 1200
";

#[test]
fn a_profile_is_what_callgrind_wrote_with_as_many_ticks_as_a_busy_worker_has() {
    let profile = parse(&case("worker"), WRITTEN).unwrap();
    assert_eq!(profile.total, 1200);
    let functions: Vec<(&str, &str)> =
        profile.nodes.iter().map(|node| (node.object.as_str(), node.function.as_str())).collect();
    assert_eq!(
        functions,
        [
            ("/program", "nf_framework::worker::Worker::run"),
            ("/lib/librte_net_ring.so.23.0", "0x30"),
            ("/program", "nf_framework::worker::Worker::housekeeping"),
        ]
    );
    assert_eq!(profile.nodes[0].own, [(0x10, 600)]);
    let calls: Vec<_> = profile.nodes[0].calls.iter().map(|call| (call.at, call.to, call.count, call.cost)).collect();
    assert_eq!(calls, [(0x14, 1, 8, 400), (0x18, 2, 4, 200)]);
    // 100 packets are two ticks, of the four that there were.
    assert_eq!(profile.per_packet(), 11.0);
    for (wrong, said) in [("", "no totals"), ("totals: 1\n0x10 600\n", "a line \"0x10 600\"")] {
        assert_eq!(parse(&case("worker"), wrong).err().unwrap().to_string(), said);
    }
}

#[test]
fn a_report_gives_each_instruction_to_the_innermost_stage_and_line() {
    let frame = |function: &str, line: &str| Frame {
        function: function.to_owned(),
        line: Some(line.to_owned()).filter(|line| !line.is_empty()),
    };
    let run = frame("nf_framework::worker::Worker::run", "a.rs:1");
    let function = frame("<nfs::nat::Instance as nf_framework::function::PacketFunction>::packet", "nfs/nat.rs:2");
    let parse = frame("nf_framework::headers::parse::Headers::parse", "b.rs:3");
    let library = frame("memcpy", "");
    let stacks = Stacks::from([
        (vec![run.clone()], 10.0),
        (vec![run.clone(), function.clone()], 20.0),
        (vec![run.clone(), function.clone(), parse.clone()], 30.0),
        (vec![run, function, parse, library], 40.0),
    ]);
    let report = |lines_of| Report { stacks: &stacks, lines_of }.to_string();
    for (lines_of, rows) in [
        (
            "",
            &[
                "10.0   10.0 %  worker's round",
                "20.0   20.0 %  function",
                "70.0   70.0 %  headers",
                "70.0   70.0 %  b.rs:3",
            ][..],
        ),
        ("nfs/", &["90.0   90.0 %  nfs/nat.rs:2"]),
    ] {
        let report = report(lines_of);
        assert!(rows.iter().all(|row| report.contains(row)), "{report}");
    }
}
