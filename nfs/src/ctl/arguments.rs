//! The command line.

use crate::door::Whereabouts;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use std::path::PathBuf;

const HELP: &str = "\
Examples:
  nf-ctl stats                          all counters, and where every packet went
  nf-ctl chain                          what each function costs: cycles per packet, packets per call
  nf-ctl sessions inside=10.0.0.5       the NAT's sessions of one host
  nf-ctl functions                      what each function can be asked and told, with all filters
  nf-ctl query nat occupancy            the same for any function of your own: FUNCTION TOPIC [KEY=VALUE]..
  nf-ctl backend web/b1 drain           no new flows for a server; serve puts it back
  nf-ctl reload                         takes the changed configuration file over, or says what is wrong with it
  nf-ctl trace 20 --filter 'host 10.0.0.5 and tcp port 443'
  nf-ctl drops-to /tmp/drops.pcapng     dropped packets, with the reason as comment
  nf-ctl --program nat sessions --json | jq '.items[].remote'
  nf-ctl completions bash > /etc/bash_completion.d/nf-ctl

A program opens its door when it starts: a Unix socket NAME.sock in /run/nf, if root or a service started it, else in
$XDG_RUNTIME_DIR/nf or /tmp/nf-UID. With one program running nothing need be said; with several, --program NAME.

The exit status is 0 when all went well, 1 for what the program refused (its reason is printed) and for a
trace that no packet came for, 2 if the arguments make no sense, and 3 if no program was reached.";

/// Looks at a running program, and tells it what to do
#[derive(Debug, Parser)]
#[command(name = "nf-ctl", version, after_help = HELP, subcommand_required = true, arg_required_else_help = true)]
#[command(max_term_width = 100)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) whereabouts: Whereabouts,

    /// Print the program's JSON as it comes, as one document
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// At most so many items of a list (all, if nothing is said)
    #[arg(long, global = true, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) limit: Option<u64>,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    #[command(flatten)]
    Question(Question),
    #[command(flatten)]
    Order(Order),
    /// Print a script that completes nf-ctl's arguments in a shell
    Completions {
        /// Which
        shell: Shell,
    },
}

/// What can be asked.
#[derive(Debug, Subcommand)]
pub(super) enum Question {
    /// Show who runs: name, version, since when, whether it is ready
    Program,
    /// Show all counters, and where every packet went
    Stats,
    /// Show ports: link, packets, bytes, what was missed
    Ports,
    /// Show workers: packets, packets per round, the share of time without packets
    Workers,
    /// Show what each function does and costs: packets per call, cycles per packet
    Chain {
        /// Each worker for itself
        #[arg(long)]
        workers: bool,
    },
    /// Show why packets were dropped
    Drops,
    /// Show the sessions of a NAT
    Sessions(Filter),
    /// Show the connections of a firewall or load balancer
    Connections(Filter),
    /// Show the servers of a load balancer, with their health
    Backends(Filter),
    /// Show the services of a load balancer
    Services(Filter),
    /// Show the rules of a firewall, with their hits
    Rules(Filter),
    /// Show the neighbours of a router: addresses on its links
    Neighbours,
    /// Show the routes of a router
    Routes,
    /// Show the interfaces of a router
    Interfaces,
    /// Show what each function can be asked and told
    Functions,
    /// Ask a function something (nf-ctl functions lists what)
    Query(Topic),
}

/// What can be told.
#[derive(Debug, Subcommand)]
pub(super) enum Order {
    /// Tell a function something (nf-ctl functions lists what)
    #[command(name = "order")]
    Tell(Topic),
    /// Read the configuration file again: all of it is taken over, or nothing
    Reload,
    /// Begin no new sessions, wait for the others, and end
    Drain {
        /// How long to wait for them (as the program was started, if nothing is said)
        #[arg(long, value_name = "SECONDS")]
        seconds: Option<u64>,
    },
    /// Forget sessions or connections; all that the filters mean
    Clear(Filter),
    /// Put a load balancer's server out of service, or back
    Backend {
        /// Which, as SERVICE/BACKEND
        #[arg(value_parser = backend)]
        backend: (String, String),
        /// What it is to do
        state: BackendState,
        /// The load balancer, if there are several
        #[arg(long)]
        function: Option<String>,
    },
    /// Show the way of the next packets through the chain
    Trace {
        /// How many packets, 1000 at most
        #[arg(value_parser = clap::value_parser!(u64).range(1..=1000))]
        count: u64,
        /// Which packets, as tcpdump takes them: 'host 10.0.0.5 and tcp port 443'
        #[arg(long, value_name = "EXPRESSION")]
        filter: Option<String>,
        /// How long to wait for them, 300 at most
        #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=300))]
        seconds: u64,
    },
    /// Write dropped packets to a pcapng file of the program's, with the reason as comment
    DropsTo {
        /// The file, which the program makes
        #[arg(required_unless_present = "end")]
        file: Option<PathBuf>,
        /// Only those for this reason; may be said several times
        #[arg(long = "reason", value_name = "REASON")]
        reasons: Vec<String>,
        /// At most so many packets a second
        #[arg(long, value_name = "COUNT")]
        per_second: Option<u64>,
        /// Stop writing
        #[arg(long, conflicts_with_all = ["file", "reasons", "per_second"])]
        end: bool,
    },
}

/// Some of what a function has.
#[derive(Debug, Args)]
pub(super) struct Filter {
    /// The function, if several have such a thing, and filters, such as inside=10.0.0.5
    #[arg(value_name = "FUNCTION|KEY=VALUE")]
    pub(super) words: Vec<String>,
}

/// A topic of a function's, with what is said with it.
#[derive(Debug, Args)]
pub(super) struct Topic {
    /// The function
    pub(super) function: String,
    /// What about
    pub(super) topic: String,
    /// Filters or arguments
    #[arg(value_name = "KEY=VALUE", value_parser = pair)]
    pub(super) pairs: Vec<(String, String)>,
}

/// What a backend is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum BackendState {
    /// Serve, if its health check says so
    Serve,
    /// Take no new flows, and keep those that it has
    Drain,
    /// Be down, whatever a health check says
    Down,
}

/// KEY=VALUE
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a filter or argument is KEY=VALUE, such as inside=10.0.0.5".to_owned()),
    }
}

/// SERVICE/BACKEND
fn backend(text: &str) -> Result<(String, String), String> {
    match text.split_once('/') {
        Some((service, backend)) if !service.is_empty() && !backend.is_empty() => {
            Ok((service.to_owned(), backend.to_owned()))
        }
        _ => Err("a backend is SERVICE/BACKEND, such as web/b1".to_owned()),
    }
}

/// A function, if one is named, and keys with their values.
pub(super) type Named<'a> = (Option<&'a str>, Vec<(String, String)>);

impl Filter {
    /// The function, if one is named, and what is said with it.
    pub(super) fn split(&self) -> Result<Named<'_>, String> {
        let (pairs, names): (Vec<&String>, Vec<&String>) = self.words.iter().partition(|word| word.contains('='));
        let pairs = pairs.into_iter().map(|text| pair(text)).collect::<Result<_, _>>()?;
        match names.as_slice() {
            [] => Ok((None, pairs)),
            [name] => Ok((Some(name), pairs)),
            [first, second, ..] => Err(format!(
                "{first:?} and {second:?} cannot both be the function's name; a filter is KEY=VALUE (nf-ctl functions \
                 lists them)"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_function_is_a_word_without_an_equals_sign() {
        let split = |words: &[&str]| {
            let filter = Filter { words: words.iter().map(|&word| word.to_owned()).collect() };
            filter.split().map(|(name, pairs)| (name.map(str::to_owned), pairs.len()))
        };
        assert_eq!(split(&["inside=10.0.0.5", "nat", "protocol=tcp"]), Ok((Some("nat".to_owned()), 2)));
        assert_eq!(split(&[]), Ok((None, 0)));
        assert!(split(&["nat", "inside"]).unwrap_err().starts_with("\"nat\" and \"inside\" cannot both be"));
        assert!(split(&["=5"]).unwrap_err().starts_with("a filter or argument is KEY=VALUE"));
        assert!(backend("web").is_err() && backend("/b1").is_err());
        assert_eq!(backend("web/b1"), Ok(("web".to_owned(), "b1".to_owned())));
    }
}
