//! What was counted, beside what is allowed.

use crate::callgrind::Case;
use anyhow::Context as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;

/// How far a figure may be from its budget, either way.
const TOLERANCE: f64 = 0.03;

/// What counts depend on, besides the code.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Tools {
    pub(crate) dpdk: String,
    pub(crate) rustc: String,
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DPDK {} and rustc {}", self.dpdk, self.rustc)
    }
}

/// The committed file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Budgets {
    dpdk: String,
    rustc: String,
    /// Per packet, by case.
    instructions: BTreeMap<String, f64>,
}

/// Whether a case keeps to its budget.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Judgement {
    Kept,
    Above,
    Below,
    /// There is no budget for it.
    None,
}

/// What was counted in one case.
pub(crate) struct Line {
    case: Case,
    counted: f64,
    budget: Option<f64>,
}

impl Budgets {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        toml::from_str(text).context("the file of budgets")
    }

    pub(crate) fn tools(&self) -> Tools {
        Tools { dpdk: self.dpdk.clone(), rustc: self.rustc.clone() }
    }

    /// Budgets without a case.
    pub(crate) fn left_over(&self, cases: &[Case]) -> Vec<&str> {
        let names = self.instructions.keys().map(String::as_str);
        names.filter(|name| cases.iter().all(|case| case.name != *name)).collect()
    }

    /// The budget of a case.
    pub(crate) fn of(&self, case: &Case) -> Option<f64> {
        self.instructions.get(&case.name).copied()
    }
}

impl Line {
    pub(crate) fn new(case: Case, counted: f64, budget: Option<f64>) -> Self {
        Self { case, counted, budget }
    }

    fn judgement(&self) -> Judgement {
        match self.budget {
            None => Judgement::None,
            Some(budget) if self.counted > budget * (1.0 + TOLERANCE) => Judgement::Above,
            Some(budget) if self.counted < budget * (1.0 - TOLERANCE) => Judgement::Below,
            Some(_) => Judgement::Kept,
        }
    }

    /// What is wrong, and what to do about it.
    pub(crate) fn complaint(&self) -> Option<String> {
        let Self { case: Case { name, .. }, counted, budget } = self;
        let budget = budget.unwrap_or_default();
        match self.judgement() {
            Judgement::Kept => None,
            Judgement::Above => Some(format!(
                "{name} takes {counted:.1} instructions per packet and may take {budget:.1}: `scripts/profile {name}` \
                 shows where they go; if they are worth it, `scripts/budgets --update` raises the budget, and the \
                 commit says why"
            )),
            Judgement::Below => Some(format!(
                "{name} takes only {counted:.1} instructions per packet of {budget:.1}: `scripts/budgets --update` \
                 lowers the budget, so that it stays so"
            )),
            Judgement::None => {
                Some(format!("{name} has no budget: `scripts/budgets --update` gives it one of {counted:.1}"))
            }
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { case, counted, budget } = self;
        match budget {
            Some(budget) => {
                let change = (counted / budget - 1.0) * 100.0;
                // No minus before a zero.
                let change = if change.abs() < 0.05 { 0.0 } else { change };
                write!(f, "{:<16} {counted:>9.1} {budget:>9.1} {change:>+8.1} %", case.name)?;
            }
            None => write!(f, "{:<16} {counted:>9.1} {:>9} {:>10}", case.name, "-", "-")?,
        }
        let judgement = match self.judgement() {
            Judgement::Kept => "ok",
            Judgement::Above => "above",
            Judgement::Below => "below",
            Judgement::None => "new",
        };
        write!(f, "  {judgement:<5}  {}", case.help)
    }
}

/// The file with these figures. A budget that is kept stays as it is, so that what changes in
/// the file is what has changed.
pub(crate) fn file(tools: &Tools, lines: &[Line]) -> String {
    let mut text = format!(
        "# Instructions per packet, as scripts/budgets counts them. It fails where they are 3 % off, either way.\n\
         # `scripts/budgets --update` writes this file. The commit that raises a budget says what it is raised for.\n\
         dpdk = \"{}\"\nrustc = \"{}\"\n\n[instructions]\n",
        tools.dpdk, tools.rustc
    );
    for line in lines {
        let budget = line.budget.filter(|_| line.judgement() == Judgement::Kept).unwrap_or(line.counted);
        text += &format!("{} = {budget:.1}\n", line.case.name);
    }
    text
}
