//! The report: one HTML file that needs nothing else.

use crate::compare::Comparison;
use crate::goals;
use crate::plot::{Plot, escape};
use crate::results::{Relation, Results, Suite};
use crate::statistics::all;
use crate::table::{method, others, said};
use std::fmt::Write as _;

const STYLE: &str = "
body { font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; max-width: 1700px; margin: 2em auto; padding: 0 1.5em; }
h1 { font-size: 1.6em; } h2 { margin-top: 2em; border-bottom: 1px solid #ccc; } h3 { margin: 1em 0 .2em; font-size: 1em; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 9px; text-align: left; border-bottom: 1px solid #eee; vertical-align: top; }
th { background: #f5f5f5; } td.n, th.n { text-align: right; white-space: nowrap; }
.side { display: flex; flex-wrap: wrap; gap: 1.5em 2.5em; align-items: flex-start; }
.side > table { flex: 0 1 auto; max-width: 100%; } td:first-child { white-space: nowrap; }
.plots { flex: 1 1 420px; max-width: 640px; min-width: 340px; } .plots svg { width: 100%; height: auto; font-family: inherit; }
.reached { color: #00694a; } .missed { color: #a33b00; } .absent { color: #777; }
ul { padding-left: 1.2em; } .warning { background: #fff3d6; padding: .5em 1em; }
";

const SCORES: &str = "<p>Score = 1 + (own &minus; base) / macswap, costs of quiet rounds of the same run, in CPU time: <i>own</i> is the whole \
worker with the function, <i>base</i> the same worker and source with Wire alone, <i>macswap</i> testpmd's on \
net_null at burst 32. So it counts what a function costs in units that travel between machines. Hot packets \
stay in cache, those of 16k and 256k mbufs in rotation come cold, as from a NIC: from the cache that cores \
share, and from memory.</p>\n";

/// The whole report.
pub(crate) fn html(results: &Results, comparison: Option<&Comparison>) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>What a packet costs</title>\n<style>{STYLE}</style>\n<h1>What a packet costs</h1>\n"
    );
    let Results { taken, quick, machine, load, suites, absent, .. } = results;
    let kind = if *quick { "a quick run: figures are rough" } else { "a full run" };
    let _ = writeln!(
        page,
        "<p>Taken {} ({kind}), load average {:.1} when it began and {:.1} when it ended.</p>\n<table>",
        escape(taken),
        load[0],
        load[1]
    );
    for (name, value) in machine.lines() {
        let _ = writeln!(page, "<tr><th>{name}<td>{}", escape(&value));
    }
    page += "</table>\n";
    if !goals::reached(results).is_empty() {
        page += "<h2>Where it stands</h2>\n";
        page += &goals_table(results);
        page += SCORES;
    }
    if let Some(comparison) = comparison {
        page += &compared(comparison);
    }
    for suite in suites {
        page += &of_suite(suite);
    }
    if !absent.is_empty() {
        page += "<h2>Without figures</h2>\n<table>\n";
        for absent in absent {
            let _ = writeln!(page, "<tr><th>{}<td>{}", escape(&absent.suite), escape(&absent.why));
        }
        page += "</table>\n";
    }
    page + "</html>\n"
}

fn goals_table(results: &Results) -> String {
    let mut table = "<table>\n<tr><th>work<th class=\"n\">hot<th class=\"n\">16k mbufs<th class=\"n\">256k mbufs\
                     <th class=\"n\">aim<th><th>best peer\n"
        .to_owned();
    for goal in goals::reached(results) {
        let _ = write!(table, "<tr><td>{}", escape(&goal.work));
        for figure in goal.figures {
            let _ = write!(
                table,
                "<td class=\"n\">{}",
                figure.map_or("&ndash;".to_owned(), |figure| format!("{figure:.2}"))
            );
        }
        let class = match goal.verdict {
            "reached" => "reached",
            "not built yet" | "not measured" => "absent",
            _ => "missed",
        };
        let aim = goal.aim.map_or(String::new(), |aim| aim.to_string());
        let _ = writeln!(table, "<td class=\"n\">{aim}<td class=\"{class}\">{}<td>{}", goal.verdict, escape(goal.peer));
    }
    table + "</table>\n"
}

fn of_suite(suite: &Suite) -> String {
    let mut part = format!(
        "<h2 id=\"{0}\">{0}: {1}</h2>\n<p>{2}; {3}; {4}.</p>\n<ul>\n",
        suite.name,
        suite.about,
        method(suite),
        suite.memory,
        others(suite)
    );
    for note in &suite.notes {
        let _ = writeln!(part, "<li>{}", escape(note));
    }
    part += "</ul>\n<div class=\"side\">\n<table>\n<tr><th rowspan=\"2\">variant<th class=\"n\" colspan=\"4\">CPU ns per packet\
             <th class=\"n\">wall<th class=\"n\">Mpps<th class=\"n\" rowspan=\"2\">score<th rowspan=\"2\">quiet rounds (least to most of one)\n\
             <tr><th class=\"n\">quiet<th class=\"n\">min<th class=\"n\">median<th class=\"n\">max<th class=\"n\">median<th class=\"n\">per core\n";
    for row in &suite.rows {
        let (quiet, cpu, wall) = (row.cost(&all(&row.rounds())), row.cpu(), row.wall());
        let _ = write!(part, "<tr><td>{}", escape(&row.name));
        for figure in [quiet, cpu.min, cpu.median, cpu.max, wall.median] {
            let _ = write!(part, "<td class=\"n\">{figure:.2}");
        }
        let is_score = |relation: &&Relation| matches!(relation, Relation::Score { .. });
        let score = row.relations.iter().find(is_score).and_then(|relation| suite.relation(row, relation));
        let score = score.map_or(String::new(), |score| format!("{:.2}", score.figure));
        let related = row.relations.iter().filter_map(|relation| said(suite, row, relation));
        let related: Vec<String> = related.map(|said| escape(&said)).collect();
        let _ =
            writeln!(part, "<td class=\"n\">{:.1}<td class=\"n\">{score}<td>{}", 1000.0 / quiet, related.join("<br>"));
    }
    part += "</table>\n<div class=\"plots\">\n";
    for plot in Plot::of(suite) {
        let _ = writeln!(part, "<h3>{}</h3>\n{}", escape(&plot.title), plot.svg());
    }
    part += "<p class=\"absent\">Marks: quiet rounds. Bars: the middle half of all rounds.</p>\n";
    part + "</div>\n</div>\n"
}

fn compared(comparison: &Comparison) -> String {
    let mut part = format!("<h2>Compared with the figures of {}</h2>\n<ul>\n", escape(&comparison.base));
    for remark in comparison.remarks() {
        let class = if remark.starts_with("NOT") { " class=\"warning\"" } else { "" };
        let _ = writeln!(part, "<li{class}>{}", escape(&remark));
    }
    part += "</ul>\n";
    let real = comparison.real();
    let _ = writeln!(part, "<p>Changed: {} of {} figures.</p>", real.len(), comparison.lines.len());
    part += "<details><summary>All figures</summary>\n";
    let all: Vec<_> = comparison.lines.iter().collect();
    part += &changes(&all);
    part += "</details>\n";
    if !real.is_empty() {
        part += &changes(&real);
    }
    part
}

fn changes(lines: &[&crate::compare::Line]) -> String {
    let mut table =
        "<table>\n<tr><th>suite<th>variant<th>figure<th class=\"n\">then<th class=\"n\">now<th class=\"n\">change \
                     (99 % interval)<th class=\"n\">sure to\n"
            .to_owned();
    for line in lines {
        let _ = writeln!(
            table,
            "<tr><td>{}<td>{}<td>{}<td class=\"n\">{:.3}<td class=\"n\">{:.3}<td class=\"n\">{}<td class=\"n\">{:.1} %",
            escape(&line.suite),
            escape(&line.row),
            escape(&line.figure),
            line.old,
            line.new,
            line.percent(),
            line.change.sure * 100.0
        );
    }
    table + "</table>\n"
}
