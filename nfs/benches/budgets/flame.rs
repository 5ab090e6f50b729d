//! A flame graph: each function lies on its caller, as wide as the instructions spent in it.
//!
//! One picture without a script in it, and the same stacks as text, for those who have a viewer.

use crate::stacks::{Frame, Stacks};
use std::collections::BTreeMap;
use std::fmt::Write as _;

const WIDTH: f64 = 1400.0;
const ROW: f64 = 18.0;
const MARGIN: f64 = 30.0;
/// Of a letter of the font.
const LETTER: f64 = 6.6;
/// What is narrower cannot be seen.
const NARROWEST: f64 = 0.2;

/// A function above its caller.
#[derive(Default)]
struct Node {
    cost: f64,
    above: BTreeMap<String, Self>,
}

impl Node {
    fn height(&self) -> usize {
        1 + self.above.values().map(Self::height).max().unwrap_or(0)
    }
}

/// The functions of a stack that say something: the standard library's iterators and the like
/// count to those that use them.
fn telling(stack: &[Frame]) -> impl Iterator<Item = &str> {
    let standard = |name: &str| {
        let of = name.trim_start_matches('<');
        ["core::", "alloc::", "std::"]
            .iter()
            .any(|library| of.starts_with(library) || of.contains(&format!(" as {library}")))
    };
    stack.iter().map(|frame| frame.function.as_str()).filter(move |name| !standard(name))
}

/// Stacks as lines "outermost;..;innermost thousandths": what flame graph viewers read.
pub(crate) fn folded(stacks: &Stacks) -> String {
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for (stack, cost) in stacks {
        *sums.entry(telling(stack).collect::<Vec<_>>().join(";")).or_default() += cost;
    }
    sums.iter().map(|(stack, cost)| format!("{stack} {:.0}\n", cost * 1000.0)).collect()
}

/// The picture.
pub(crate) fn svg(title: &str, stacks: &Stacks) -> String {
    let mut root = Node::default();
    for (stack, cost) in stacks {
        root.cost += cost;
        let mut node = &mut root;
        for name in telling(stack) {
            node = node.above.entry(name.to_owned()).or_default();
            node.cost += cost;
        }
    }
    let height = root.height() as f64 * ROW + 2.0 * MARGIN;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" font-size=\"11\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fdfdfd\"/>\n\
         <text x=\"{MARGIN}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    let scale = (WIDTH - 2.0 * MARGIN) / root.cost;
    draw(&mut svg, &root, ("all", root.cost), (MARGIN, height - MARGIN), scale);
    svg + "</svg>\n"
}

fn draw(svg: &mut String, node: &Node, (name, all): (&str, f64), (mut x, y): (f64, f64), scale: f64) {
    let width = node.cost * scale;
    if width < NARROWEST {
        return;
    }
    let fits = |(_, letters): &(char, u32)| f64::from(letters + 1) * LETTER < width;
    let label: String = short(name).chars().zip(1..).take_while(fits).map(|(letter, _)| letter).collect();
    let _ = writeln!(
        svg,
        "<g><title>{}: {:.1} instructions per packet, {:.1} %</title>\
         <rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\" stroke=\"#fdfdfd\" stroke-width=\"0.5\"/>\
         <text x=\"{:.1}\" y=\"{:.1}\">{}</text></g>",
        escaped(name),
        node.cost,
        node.cost / all * 100.0,
        y - ROW,
        ROW - 1.0,
        colour(name),
        x + 3.0,
        y - 5.0,
        escaped(&label),
    );
    for (name, above) in &node.above {
        draw(svg, above, (name, all), (x, y - ROW), scale);
        x += above.cost * scale;
    }
}

/// By who has written it.
fn colour(name: &str) -> &'static str {
    let of = |part| name.contains(part);
    match () {
        () if of("nfs::") || of("budgets::") => "#9fd08c",
        () if of("nf_framework::headers") => "#f2c14e",
        () if of("nf_framework::") || of("NetworkFunction") => "#8fb8de",
        () if of("dpdk_rs::") => "#f3a683",
        () if of("shim_") => "#e8b4a0",
        () => "#cccccc",
    }
}

/// A type and its method, without their paths.
fn short(name: &str) -> String {
    let (of, method) = name.rsplit_once(">::").map_or(("", name), |(of, method)| (of, method));
    let of = of.trim_start_matches('<').split(" as ").next().unwrap_or(of);
    let last = |path: &str, parts: usize| {
        let path: Vec<&str> = path.rsplit("::").take(parts).collect();
        path.into_iter().rev().collect::<Vec<_>>().join("::")
    };
    if of.is_empty() { last(method, 2) } else { format!("{}::{method}", last(of, 1)) }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
