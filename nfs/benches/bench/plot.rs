//! Line plots as SVG, drawn here: a plot is a hundred lines of text, and a crate for it would be
//! the largest one that the benchmarks have.

use crate::results::{Axis, Related, Relation, Suite};
use crate::statistics::all;
use std::fmt::Write as _;

const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 48.0;
/// Told apart by colour-blind readers too (Okabe and Ito), and the markers differ.
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000", "#999999"];

/// One plot of a suite.
pub(crate) struct Plot {
    pub(crate) title: String,
    x_label: &'static str,
    y_label: &'static str,
    x_is_log: bool,
    series: Vec<(String, Vec<(f64, Related)>)>,
}

impl Plot {
    /// The plots that a suite's rows have points for.
    pub(crate) fn of(suite: &Suite) -> Vec<Self> {
        let axes = [Axis::Flows, Axis::Rules, Axis::Burst, Axis::Mbufs, Axis::Functions, Axis::Workers, Axis::Bytes];
        axes.into_iter().filter_map(|axis| Self::over(suite, axis)).collect()
    }

    fn over(suite: &Suite, axis: Axis) -> Option<Self> {
        // Over flows and rules it is the look-up that counts, and not what stands around it, if
        // anything does.
        let is_net = |relation: &Relation| matches!(relation, Relation::Net { .. });
        let mut on_axis = suite.rows.iter().filter(|row| row.points.iter().any(|point| point.axis == axis));
        let net = matches!(axis, Axis::Flows | Axis::Rules) && on_axis.any(|row| row.relations.iter().any(is_net));
        let mut series: Vec<(String, Vec<(f64, Related)>)> = Vec::new();
        for row in &suite.rows {
            for point in row.points.iter().filter(|point| point.axis == axis) {
                let base = row.relations.iter().find(|relation| is_net(relation));
                let cost = if net {
                    suite.relation(row, base?)?
                } else {
                    Related { figure: row.cost(&all(&row.rounds())), rounds: row.cpu() }
                };
                match series.iter_mut().find(|(name, _)| *name == point.series) {
                    Some((_, points)) => points.push((point.x, cost)),
                    None => series.push((point.series.clone(), vec![(point.x, cost)])),
                }
            }
        }
        series.iter_mut().for_each(|(_, points)| points.sort_by(|one, other| one.0.total_cmp(&other.0)));
        let (title, x_label) = match axis {
            Axis::Flows => ("flows", "flows in the table"),
            Axis::Rules => ("rules", "rules"),
            Axis::Burst => ("burst", "packets received at once"),
            Axis::Mbufs => ("rotating mbufs", "mbufs in rotation"),
            Axis::Workers => ("workers", "cores that forward"),
            Axis::Functions => ("functions in a row", "functions"),
            Axis::Bytes => ("the length of frames", "bytes of a frame"),
        };
        (!series.is_empty()).then(|| Self {
            title: format!("Cost over {title}"),
            x_label,
            y_label: if net { "CPU ns per packet over the base" } else { "CPU ns per packet, all cores" },
            x_is_log: !matches!(axis, Axis::Workers | Axis::Functions),
            series,
        })
    }

    /// The drawing. Marks are costs of quiet rounds; between the ends of a bar is the middle half of the rounds.
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|(_, points)| points);
        let x = Scale::new(points().map(|(x, _)| *x), self.x_is_log, false, [LEFT, WIDTH - RIGHT]);
        let costs = points().flat_map(|(_, cost)| [cost.rounds.quartiles[0], cost.figure, cost.rounds.quartiles[1]]);
        let most = costs.clone().fold(0.0, f64::max);
        let least = costs.clone().fold(f64::INFINITY, f64::min);
        let y_is_log = least > 0.0 && most / least > 20.0;
        let y = Scale::new(costs, y_is_log, true, [HEIGHT - BOTTOM, TOP]);

        let height = HEIGHT + 20.0 * self.series.len().div_ceil(2) as f64;
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\" font-size=\"12\">\n",
            escape(&self.title)
        );
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for tick in y.ticks() {
            let at = y.place(tick);
            let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                at + 4.0,
                short(tick)
            );
        }
        let mut stations: Vec<f64> = points().map(|(x, _)| *x).collect();
        stations.sort_by(f64::total_cmp);
        stations.dedup();
        for station in stations {
            let at = x.place(station);
            let _ = writeln!(svg, "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#eee\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                bottom + 16.0,
                short_binary(station)
            );
        }
        let _ = writeln!(svg, "<path d=\"M{LEFT} {TOP}V{bottom}H{right}\" fill=\"none\" stroke=\"#444\"/>");
        let log = |is_log| if is_log { " (log scale)" } else { "" };
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 12.0,
            self.x_label,
            log(self.x_is_log)
        );
        let _ = writeln!(
            svg,
            "<text transform=\"translate(14 {:.0}) rotate(-90)\" text-anchor=\"middle\">{}{}</text>",
            (TOP + bottom) / 2.0,
            self.y_label,
            log(y_is_log)
        );
        for (number, (name, points)) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let line: Vec<String> =
                points.iter().map(|(at, cost)| format!("{:.1} {:.1}", x.place(*at), y.place(cost.figure))).collect();
            let _ = writeln!(
                svg,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.8\"/>",
                line.join("L")
            );
            for (at, cost) in points {
                let at = x.place(*at);
                let [low, high] = cost.rounds.quartiles.map(|cost| y.place(cost));
                let middle = y.place(cost.figure);
                let _ = writeln!(svg, "<path d=\"M{at:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\"/>");
                let _ =
                    writeln!(svg, "{}", mark(number, at, middle, colour, &format!("{name}: {:.2} ns", cost.figure)));
            }
            let (column, line) = (number % 2, number / 2);
            let (at, down) = (LEFT + column as f64 * 280.0, HEIGHT + 6.0 + 20.0 * line as f64);
            let _ = writeln!(svg, "<path d=\"M{at} {down}h24\" stroke=\"{colour}\" stroke-width=\"1.8\"/>");
            let _ = writeln!(svg, "{}", mark(number, at + 12.0, down, colour, name));
            let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{}</text>", at + 32.0, down + 4.0, escape(name));
        }
        svg + "</svg>\n"
    }
}

/// A mark that says its figure to whoever points at it.
fn mark(number: usize, x: f64, y: f64, colour: &str, title: &str) -> String {
    let shape = match number % 3 {
        0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\""),
        1 => format!("<rect x=\"{:.1}\" y=\"{:.1}\" width=\"7\" height=\"7\"", x - 3.5, y - 3.5),
        _ => format!("<path d=\"M{x:.1} {:.1}l4.5 8h-9z\"", y - 5.0),
    };
    let tag = shape[1..].split(' ').next().unwrap_or("path").to_owned();
    format!("{shape} fill=\"{colour}\"><title>{}</title></{tag}>", escape(title))
}

/// From figures to places.
struct Scale {
    is_log: bool,
    from: f64,
    to: f64,
    places: [f64; 2],
}

impl Scale {
    /// Around these figures; linear ones of costs begin at zero, unless some are below.
    fn new(figures: impl Iterator<Item = f64>, is_log: bool, is_cost: bool, places: [f64; 2]) -> Self {
        let transformed = figures.map(|figure| if is_log { figure.max(1e-9).log10() } else { figure });
        let (mut from, mut to) =
            transformed.fold((f64::INFINITY, f64::NEG_INFINITY), |(from, to), at| (at.min(from), at.max(to)));
        if is_cost && !is_log {
            from = from.min(0.0);
            to += (to - from) * 0.05;
        } else {
            let margin = ((to - from) * 0.06).max(0.02);
            (from, to) = (from - margin, to + margin);
        }
        Self { is_log, from, to, places }
    }

    fn place(&self, figure: f64) -> f64 {
        let at = if self.is_log { figure.max(1e-9).log10() } else { figure };
        self.places[0] + (at - self.from) / (self.to - self.from) * (self.places[1] - self.places[0])
    }

    /// Round figures, five or so.
    fn ticks(&self) -> Vec<f64> {
        if self.is_log {
            let decades = (-3..9).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| digit * 10_f64.powi(power)));
            return decades.filter(|tick| (self.from..=self.to).contains(&tick.log10())).collect();
        }
        let rough = (self.to - self.from) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power).into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let first = (self.from / step).ceil();
        (0..12).map(|number| (first + f64::from(number)) * step).filter(|tick| *tick <= self.to).collect()
    }
}

fn short(figure: f64) -> String {
    // Without the -0 that steps around zero leave.
    let figure = figure + 0.0;
    if figure.fract().abs() < 1e-9 { format!("{figure:.0}") } else { format!("{figure:.1}") }
}

/// 65536 and 64000 as "64k".
fn short_binary(figure: f64) -> String {
    for (unit, size) in [("M", 1e6), ("k", 1e3)] {
        let binary = if unit == "M" { 1_048_576.0 } else { 1024.0 };
        if figure >= size {
            let of = if (figure / binary).fract() == 0.0 { figure / binary } else { figure / size };
            return format!("{:.0}{unit}", of);
        }
    }
    short(figure)
}

/// Text for XML.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
