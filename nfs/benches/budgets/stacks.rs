//! From addresses to the functions and lines that they stand for, inlined ones too.
//!
//! In a program that was optimised most functions are inlined into others, so a profile by
//! function says little. The debug information knows for each instruction the row of functions
//! that it is from, and addr2line of the binutils reads it.

use crate::callgrind::{Profile, Program, TICK};
use anyhow::{Context as _, ensure};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::process::{Command, Stdio};

/// The directory of the sources, whose lines are ours.
pub(crate) const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../");
/// Deeper than any stack but those of a recursion.
const DEEPEST: usize = 100;

/// A function on a stack, and where in it the next one is called, or the instruction is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Frame {
    pub(crate) function: String,
    /// A file of ours and a line in it.
    pub(crate) line: Option<String>,
}

/// By stack, from the outermost function to the innermost: instructions per packet spent there.
pub(crate) type Stacks = BTreeMap<Vec<Frame>, f64>;

/// Every stack of a profile.
pub(crate) fn stacks(program: &Program, profile: &Profile) -> anyhow::Result<Stacks> {
    let program = program.0.display().to_string();
    let ours = profile.nodes.iter().filter(|node| node.object == program);
    let own = ours.clone().flat_map(|node| node.own.iter().map(|(at, _)| *at));
    let calls = ours.flat_map(|node| node.calls.iter().map(|call| call.at));
    let symbols = Symbols { program: &program, frames: frames(&program, own.chain(calls).collect())? };

    let mut called = vec![0; profile.nodes.len()];
    let calls = profile.nodes.iter().flat_map(|node| &node.calls).filter(|call| call.ended());
    calls.for_each(|call| called[call.to] += call.cost);
    let mut walk = Walk { profile, symbols: &symbols, called: &called, stacks: Stacks::new() };
    for root in (0..profile.nodes.len()).filter(|node| called[*node] == 0) {
        walk.node(root, &[], 1.0 / profile.case.packets as f64);
    }
    Ok(walk.stacks)
}

struct Walk<'a> {
    profile: &'a Profile,
    symbols: &'a Symbols<'a>,
    /// Instructions in all calls of a node.
    called: &'a [u64],
    stacks: Stacks,
}

impl Walk<'_> {
    /// Adds the stacks below a node, of which a share belongs to this way of reaching it.
    fn node(&mut self, index: usize, above: &[Frame], share: f64) {
        if above.len() > DEEPEST {
            return;
        }
        let Self { profile, symbols, called, .. } = *self;
        let node = &profile.nodes[index];
        let share = if node.function == TICK { share * profile.tick_share() } else { share };
        let stack = |at| [above, &symbols.of(&node.object, &node.function, at)].concat();
        for (at, cost) in &node.own {
            *self.stacks.entry(stack(*at)).or_default() += *cost as f64 * share;
        }
        for call in node.calls.iter().filter(|call| call.ended()) {
            self.node(call.to, &stack(call.at), share * call.cost as f64 / called[call.to] as f64);
        }
    }
}

struct Symbols<'a> {
    program: &'a str,
    frames: HashMap<u64, Vec<Frame>>,
}

impl Symbols<'_> {
    /// The functions that an instruction is from, outermost first.
    fn of(&self, object: &str, function: &str, at: u64) -> Vec<Frame> {
        match self.frames.get(&at) {
            Some(frames) if object == self.program => frames.clone(),
            _ => {
                // A distribution's library without debug information: there is no more than its name.
                let library = object.rsplit('/').next().and_then(|name| name.split(".so").next()).unwrap_or(object);
                let function = if function.starts_with("0x") { library } else { function };
                vec![Frame { function: function.to_owned(), line: None }]
            }
        }
    }
}

/// Asks addr2line about all addresses at once.
fn frames(program: &str, addresses: BTreeSet<u64>) -> anyhow::Result<HashMap<u64, Vec<Frame>>> {
    let mut child = Command::new("addr2line")
        .args(["--inlines", "--functions", "--demangle", "--addresses", "--exe", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("addr2line does not start: install the package binutils")?;
    let mut input = child.stdin.take().context("no input")?;
    let questions: String = addresses.iter().map(|address| format!("{address:#x}\n")).collect();
    // Beside the reading of its answers, so that neither waits for the other.
    let asking = std::thread::spawn(move || input.write_all(questions.as_bytes()));
    let output = child.wait_with_output()?;
    ensure!(asking.join().is_ok_and(|asked| asked.is_ok()) && output.status.success(), "addr2line has failed");

    let mut frames: HashMap<u64, Vec<Frame>> = HashMap::new();
    let (mut address, text) = (0, String::from_utf8_lossy(&output.stdout));
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(digits) = line.strip_prefix("0x") {
            address = u64::from_str_radix(digits, 16)?;
            continue;
        }
        let place = lines.next().unwrap_or_default();
        let frame = Frame { function: without_hash(line).to_owned(), line: own_line(place) };
        // It names the innermost first.
        frames.entry(address).or_default().insert(0, frame);
    }
    Ok(frames)
}

/// A name of the legacy mangling ends with a hash.
fn without_hash(name: &str) -> &str {
    name.rsplit_once("::h").map_or(name, |(rest, hash)| if hash.len() == 16 { rest } else { name })
}

/// File and line below the sources, if they are there and known.
fn own_line(place: &str) -> Option<String> {
    let place = place.split(" (").next()?;
    let sources = std::path::Path::new(SOURCES).canonicalize().ok()?;
    let place = place.strip_prefix(sources.to_str()?)?.strip_prefix('/')?;
    (!place.ends_with('?')).then(|| place.to_owned())
}
