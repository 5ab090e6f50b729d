//! A whole program around functions: arguments, configuration, signals, counters.

use crate::config::{ConfigError, ConfigFile};
use crate::function::{Function, Invalid, NetworkFunction, SetupError, WorkerSetup};
use crate::runtime::{AnyFunction, Control, Loaded, Runtime, RuntimeConfig, RuntimeError};
use clap::Parser;
use dpdk_rs::{Eal, EalError};
use serde::de::DeserializeOwned;
use std::io::Write as _;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The program's own arguments, after `--`.
#[derive(Debug, Parser)]
struct Options {
    /// Configuration file (TOML): the ports, the forwarding, and a table for each function
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Print the counters every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    stats_interval: Option<u64>,
}

const EAL_HELP: &str = "\
DPDK's own arguments come first, then \"--\", then the options above. The usual ones:
  -l 0-1                      one worker on each of these CPUs
  -a 0000:01:00.0             use this PCI device (bound to vfio-pci)
  --vdev=net_tap0             make a virtual port: a kernel interface dtap0
  --vdev=net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap
                              a port that reads one capture file and writes another
                              (the program goes on when the file is at its end)
  --no-pci                    leave the machine's own PCI devices alone
  --in-memory                 hugepages without files: needs no mount, leaves nothing behind
  --no-huge --no-shconf -m 256
                              do without hugepages, with 256 MiB

RUST_LOG=debug shows more, RUST_LOG=info,dpdk=debug shows DPDK's own messages.
Ctrl-C, SIGTERM or SIGHUP stops the program and prints the counters.";

/// A program made of functions.
///
/// A function that has a configuration and nothing to do with control needs a closure:
///
/// ```no_run
/// use nf_framework::{App, Context, DropReason, Mbuf, PacketFunction, Verdict};
///
/// #[derive(serde::Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Config { longest: usize }
///
/// struct LengthLimit(usize);
///
/// impl PacketFunction for LengthLimit {
///     fn packet(&mut self, packet: &mut Mbuf, _: &mut Context<'_>) -> Verdict {
///         if packet.len() > self.0 { Verdict::Drop(DropReason::POLICY) } else { Verdict::Next }
///     }
/// }
///
/// fn main() -> std::process::ExitCode {
///     App::new("length-limit").run(|config: &Config, _worker| Ok(LengthLimit(config.longest)))
/// }
/// ```
///
/// A program of several functions, in an order that its configuration file names, gives
/// [`App::function`] a control object for each, and calls [`App::run_functions`].
pub struct App {
    name: &'static str,
    about: Option<&'static str>,
    version: Option<&'static str>,
    functions: Vec<Arc<dyn AnyFunction>>,
}

impl App {
    /// A program of this name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, about: None, version: None, functions: Vec::new() }
    }

    /// One line for `--help`.
    #[must_use]
    pub fn about(mut self, about: &'static str) -> Self {
        self.about = Some(about);
        self
    }

    /// What `--version` prints, usually `env!("CARGO_PKG_VERSION")`.
    #[must_use]
    pub fn version(mut self, version: &'static str) -> Self {
        self.version = Some(version);
        self
    }

    /// Adds a function that the configuration's chain may name.
    #[must_use]
    pub fn function(mut self, function: impl Function) -> Self {
        self.functions.push(Arc::new(function));
        self
    }

    /// Runs a program of one function, which has the program's name and whose instances
    /// `make` makes: it is called on every worker's lcore with the function's table of the
    /// configuration.
    ///
    /// Returns what `main` should: success after a signal, failure after printing in one
    /// sentence what stands in the way of starting, or made a worker stop.
    pub fn run<C, I>(
        self,
        make: impl Fn(&C, &mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
    ) -> ExitCode
    where
        C: DeserializeOwned + Send + Sync + 'static,
        I: NetworkFunction,
    {
        let function = FromClosure { name: self.name, make, config: PhantomData };
        self.function(function).run_functions()
    }

    /// Runs the functions that the configuration's `chain` names; returns as [`App::run`] does.
    pub fn run_functions(self) -> ExitCode {
        match self.start_and_supervise() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn start_and_supervise(self) -> Result<(), AppError> {
        let (eal_args, options) = self.arguments();
        let filter = env_logger::Env::default().default_filter_or("info,dpdk=error");
        // A program may have set its own logger up; that one stays.
        let _ = env_logger::Builder::from_env(filter).format_target(true).try_init();

        let (config, functions) = self.load(&options.config)?;
        let stop = stop_signals().map_err(AppError::Signals)?;
        let (eal, _) = Eal::init(eal_args)?;
        let runtime = Runtime::new(&eal, &config, functions)?;
        if config.forwarding.is_none() {
            log::warn!("nothing forwards what the functions let pass: it is dropped (forwarding = \"wire\" would)");
        }
        let name = self.name;
        let interval = options.stats_interval.map(Duration::from_secs);
        let ((), report) = runtime.run(|control| supervise(name, control, &stop, interval))?;
        print(format_args!("--- {name} has stopped\n{report}"));
        Ok(())
    }

    /// Splits the command line at `--`. Help and version are answered here, before DPDK
    /// would answer them, and wherever they stand.
    fn arguments(&self) -> (Vec<String>, Options) {
        let text = |arg: std::ffi::OsString| {
            arg.into_string().unwrap_or_else(|arg| {
                eprintln!("error: the argument {} is not UTF-8", arg.display());
                std::process::exit(2)
            })
        };
        let args: Vec<String> = std::env::args_os().map(text).collect();
        let split = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
        let (eal_args, own) = args.split_at(split);
        let misplaced = |arg: &&String| arg.starts_with("--config") || arg.starts_with("--stats-interval");
        if let Some(option) = eal_args.iter().find(misplaced) {
            eprintln!("error: {option} is an option of {0} itself: {0} [EAL ARGUMENTS] -- --config FILE", self.name);
            std::process::exit(2);
        }
        let asked = |arg: &&String| ["-h", "--help", "-V", "--version"].contains(&arg.as_str());
        let own = eal_args.iter().skip(1).filter(asked).chain(own.iter().skip(1));
        let command = <Options as clap::CommandFactory>::command()
            .name(self.name)
            .bin_name(format!("{} [EAL ARGUMENTS] --", self.name))
            .version(self.version.unwrap_or(env!("CARGO_PKG_VERSION")))
            .about(self.about.unwrap_or("A network function on DPDK"))
            .after_help(EAL_HELP);
        let program = [self.name.to_owned()];
        let matches = command.get_matches_from(program.iter().chain(own));
        let options = <Options as clap::FromArgMatches>::from_arg_matches(&matches);
        (eal_args.to_vec(), options.unwrap_or_else(|error| error.exit()))
    }

    /// Reads and validates the whole configuration, before anything is started.
    fn load(&self, path: &std::path::Path) -> Result<(RuntimeConfig, Vec<Loaded>), ConfigError> {
        let file = ConfigFile::read(path)?;
        let names: Vec<&str> = self.functions.iter().map(|function| function.name()).collect();
        let config: RuntimeConfig = file.framework(&names)?;
        if !(1..=dpdk_rs::Burst::CAPACITY).contains(&config.burst) {
            return Err(file.error_at(
                "",
                "burst",
                format!("{} is not from 1 to {}", config.burst, dpdk_rs::Burst::CAPACITY),
            ));
        }
        if config.ports.outside.as_ref() == Some(&config.ports.inside) {
            let message = "the same port as inside (leave outside away for a program with one port)";
            return Err(file.error_at("ports", "outside", message));
        }
        if config.ports.descriptors == 0 {
            return Err(file.error_at("ports", "descriptors", "a queue needs at least one"));
        }
        let chain = match &config.chain {
            Some(chain) => chain.clone(),
            None if names.len() == 1 => vec![names.concat()],
            None => {
                let message =
                    format!("missing key (list the functions from inside to outside; known: {})", names.join(", "));
                return Err(file.error_at("", "chain", message));
            }
        };
        let mut loaded: Vec<Loaded> = Vec::new();
        for (index, name) in chain.iter().enumerate() {
            let at = |message: String| file.error_at("", &format!("chain[{index}]"), message);
            let function = self.functions.iter().find(|function| function.name() == name);
            let function =
                function.ok_or_else(|| at(format!("there is no function {name:?} (known: {})", names.join(", "))))?;
            if loaded.iter().any(|earlier| earlier.function.name() == name) {
                return Err(at(format!("the function {name:?} is in the chain twice (name it once)")));
            }
            loaded.push(Loaded { function: Arc::clone(function), policy: function.prepare(&file)? });
        }
        Ok((config, loaded))
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a program ends with a failure.
#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the handlers of SIGINT and SIGTERM cannot be installed: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    Eal(#[from] EalError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// The control thread's work: wait for a signal, show counters meanwhile.
fn supervise(name: &str, control: &Control, stop: &AtomicBool, interval: Option<Duration>) {
    let ports: Vec<&str> = control.ports().iter().map(dpdk_rs::Port::name).collect();
    let workers = match control.workers() {
        1 => "1 worker".to_owned(),
        workers => format!("{workers} workers"),
    };
    log::info!("{name} runs on {} with {workers}; Ctrl-C stops it", ports.join(" and "));
    let start = Instant::now();
    let mut next = interval.map(|interval| start + interval);
    while !stop.load(Ordering::Relaxed) && !control.stopping() {
        std::thread::sleep(Duration::from_millis(20));
        if let (Some(at), Some(interval)) = (next, interval)
            && Instant::now() >= at
        {
            print(format_args!("--- {name} after {} s\n{}\n", start.elapsed().as_secs(), control.report()));
            next = Some(at + interval);
        }
    }
}

/// Prints for whoever reads it. A function goes on forwarding when nobody does any more.
fn print(text: std::fmt::Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Set by SIGINT, SIGTERM or SIGHUP; a second one ends the program at once.
fn stop_signals() -> std::io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&stop))?;
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// A function whose instances a closure makes from the configuration.
struct FromClosure<C, M> {
    name: &'static str,
    make: M,
    config: PhantomData<fn() -> C>,
}

impl<C, I, M> Function for FromClosure<C, M>
where
    C: DeserializeOwned + Send + Sync + 'static,
    I: NetworkFunction,
    M: Fn(&C, &mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
{
    type Config = C;
    type Policy = C;
    type Instance = I;

    fn name(&self) -> &str {
        self.name
    }

    fn policy(&self, config: C) -> Result<C, Invalid> {
        Ok(config)
    }

    fn instance(&self, config: Arc<C>, worker: &mut WorkerSetup) -> Result<I, SetupError> {
        (self.make)(&config, worker)
    }

    /// An instance that a closure made does not change while it runs; nothing publishes to it.
    fn adopt(_: &mut I, _: Arc<C>) {}
}
