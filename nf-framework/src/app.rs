//! A whole program around functions: arguments, configuration, signals, counters.

use crate::classifier::Prefix;
use crate::config::{ConfigError, ConfigFile};
use crate::crash::{self, CrashReports};
use crate::described::{AskedPackets, NoPackets};
use crate::eal_arguments::{self, EalArgumentsError};
use crate::function::{Function, NetworkFunction, SetupError, WorkerSetup};
use crate::idle::Idle;
use crate::logging::{self, LogFormat};
use crate::offline::{self, OfflineError, OfflineOptions};
use crate::operate::{AdminDoor, AdminError};
use crate::runtime::{AdminOrder, Configuration, Control, Functions, InUse, Runtime, RuntimeError};
use crate::service::Service;
use crate::steering::Affinity;
use clap::Parser;
use dpdk_rs::{Eal, EalError};
use serde::de::DeserializeOwned;
use std::io::Write as _;
use std::path::{Path, PathBuf};
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

    /// Validate the configuration, show what it needs beside what is there, and start nothing
    #[arg(long)]
    check: bool,

    /// When told to stop, begin no new sessions and wait so long for the others to end
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=86_400))]
    drain: u64,

    /// What a worker does while no packets come
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    idle: Idle,

    /// What the log on stderr looks like
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    log_format: LogFormat,

    /// Where a report is written when a function panics: what it had in hand, what had been counted [default: with
    /// --replay its --write; a service's STATE_DIRECTORY or LOGS_DIRECTORY, else the working directory]
    #[arg(long, value_name = "DIR")]
    crash_dir: Option<PathBuf>,

    #[command(flatten)]
    offline: OfflineOptions,
}

const EAL_HELP: &str = "\
DPDK's own arguments come first, then \"--\", then the options above. The usual ones:
  -l 0-1                      one worker on each of these CPUs
  -a 0000:01:00.0             use this PCI device (scripts/bind vfio-pci gives it to DPDK)
  -a eth1                     the same by its interface, where the kernel keeps it (mlx5, mana)
  --vdev=net_tap0             make a virtual port: a kernel interface dtap0
  --vdev=net_pcap0,rx_pcap=in.pcap,tx_pcap=out.pcap
                              a port that reads one capture file and writes another
                              (the program goes on when the file is at its end)
  --no-pci                    leave the machine's own PCI devices alone
  --in-memory                 hugepages without files: needs no mount, leaves nothing behind
  --no-huge --no-shconf -m 256
                              do without hugepages, with 256 MiB
If none of -a, -b, --vdev and --no-pci is given, the devices that Kubernetes' SR-IOV device plugin names
in the environment (PCIDEVICE_...) are taken. nf-doctor says what is wrong with a machine.

--check needs no EAL arguments and then no \"--\", and may be used beside the running program: it looks at
the machine's hugepages for one worker. With EAL arguments it starts DPDK and looks at lcores,
ports and memory too. It exits with 0 if all fits, with 1 if the configuration is wrong, and
with 3 if it is valid and does not fit.

--replay needs no EAL arguments and takes none, needs no port, hugepages or root, and may be used beside the
running program: yesterday's captures, tomorrow's rules. The configuration is the same, with its ports,
which are not looked for. What is not there: neighbours (a router sends to 02:00:00:00:00:01 whoever it
is for, and takes each frame that is for one station for its own), the kernel, health checks (backends are
taken for up), log files. Time is that of the captures: timers end in their gaps.";

const EXPLAIN_HELP: &str = "\
--explain needs as little. Each packet goes through the configured chain with nobody out there, and what every function
did with it and why is printed; of a packet in words, such as
  udp 10.0.0.5:5000 > 203.0.113.9:53      (and behind it: from inside|outside, vlan 10, dscp ef, fragment)
  tcp 10.0.0.5:4321 > 203.0.113.9:443 flags syn
  icmp 10.0.0.5 > 203.0.113.9 echo-request
only the beginning of a session is seen, of a capture also what follows.";

const LAST_HELP: &str = "\
RUST_LOG=debug shows more, RUST_LOG=info,dpdk=debug shows DPDK's own messages.
Ctrl-C or SIGTERM stops the program and prints the counters; with --drain the first one
drains it, and the second one stops it. What comes within 0.2 s of another one is the same one; a later one
that comes while the program is stopping ends it at once, without the counters. SIGHUP reads the configuration file again: what has
changed in the functions' tables and in [router] is put in force for all packets at once, or, if anything
is wrong with it, nothing is, and the log says why.";

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
    affinity: Affinity,
    functions: Functions,
    /// What `--help` says of it, and the answer.
    explain: Option<(&'static str, Box<Explain>)>,
}

type Explain = dyn FnOnce(&ConfigFile, &AskedPackets, &[Prefix]) -> Result<String, Box<dyn std::error::Error>>;

impl App {
    /// A program of this name.
    #[must_use]
    pub fn new(name: &'static str) -> Self {
        Self { name, about: None, version: None, affinity: Affinity::Any, functions: Functions::new(), explain: None }
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

    /// Which packets each instance of [`App::run`]'s function needs to see together; unless said,
    /// any worker may have any packet. A [`Function`] says so itself.
    #[must_use]
    pub fn affinity(mut self, affinity: Affinity) -> Self {
        self.affinity = affinity;
        self
    }

    /// Adds a function that the configuration's chain may name.
    #[must_use]
    pub fn function(mut self, function: impl Function) -> Self {
        self.functions = self.functions.with(function);
        self
    }

    /// Has `--explain` answered by the program itself, in words of its own, and not by a trace of the chain: for who can
    /// say more, or without DPDK. `help` is what `--help` says of it. `explain` is given the configuration file, the packets
    /// and the prefixes that are inside (private addresses, if there are none); what it returns is printed.
    #[must_use]
    pub fn explaining(
        mut self,
        help: &'static str,
        explain: impl FnOnce(&ConfigFile, &AskedPackets, &[Prefix]) -> Result<String, Box<dyn std::error::Error>> + 'static,
    ) -> Self {
        self.explain = Some((help, Box::new(explain)));
        self
    }

    /// Runs a program of one function, which has the program's name and whose instances
    /// `make` makes: it is called on every worker's lcore with the function's table of the
    /// configuration.
    ///
    /// On SIGHUP the instances are made anew if that table has changed: each worker makes one
    /// between two bursts, while packets wait, and when all have succeeded they take the place
    /// of the old ones. So what instances know is lost then, packets that they hold are dropped
    /// as `reloaded`, and their counters go on; for a moment there is memory for both. A
    /// [`Function`]'s instances stay, and [adopt](Function::adopt) the new policy.
    ///
    /// Returns what `main` should: success after a signal, failure after printing in one
    /// sentence what stands in the way of starting, or made a worker stop.
    pub fn run<C, I>(
        mut self,
        make: impl Fn(&C, &mut WorkerSetup) -> Result<I, SetupError> + Send + Sync + 'static,
    ) -> ExitCode
    where
        C: DeserializeOwned + Send + Sync + 'static,
        I: NetworkFunction,
    {
        self.functions = self.functions.with_closure(self.name, self.affinity, make);
        self.run_functions()
    }

    /// Runs the functions that the configuration's `chain` names; returns as [`App::run`] does.
    pub fn run_functions(self) -> ExitCode {
        let name = self.name;
        match self.start_and_supervise() {
            Ok(()) => ExitCode::SUCCESS,
            Err(AppError::DoesNotFit(problems)) => {
                problems.iter().for_each(|problem| logging::say_error(name, problem));
                ExitCode::from(DOES_NOT_FIT)
            }
            Err(error) => {
                logging::say_error(name, &error);
                ExitCode::FAILURE
            }
        }
    }

    fn start_and_supervise(mut self) -> Result<(), AppError> {
        let (eal_args, options) = self.arguments();
        logging::begin(options.log_format, "info,dpdk=error");
        crash::scene::listen(logging::is_structured());
        let file = ConfigFile::read(&options.config)?;
        let inside = &options.offline.inside;
        let asked = options.offline.explain.as_deref().map(|asked| AskedPackets::new(asked, inside)).transpose()?;
        if let (Some(packets), Some((_, explain))) = (&asked, self.explain.take()) {
            let text = explain(&file, packets, inside).map_err(AppError::Explain)?;
            return answer(format_args!("{text}"));
        }
        let configuration = Configuration::load(&file, &self.functions)?;
        if options.check {
            // Without arguments it may stand beside the running program, whose devices it leaves alone.
            let eal = if eal_args.len() > 1 { Some(start(eal_args)?) } else { None };
            return check(&configuration, eal.as_ref());
        }
        let signals = Signals::new().map_err(AppError::Signals)?;
        let name = self.name;
        let forwards = configuration.runtime().forwarding.is_some();
        if let Some(packets) = asked {
            warn_unless(forwards);
            let mut answered = Ok(());
            let say = |text: std::fmt::Arguments<'_>| {
                if answered.is_ok() {
                    answered = answer(text);
                }
            };
            offline::explain(name, configuration, packets, inside, &signals.stop, say)?;
            return answered;
        }
        if !options.offline.replay.is_empty() {
            warn_unless(forwards);
            let reports = self.crash_reports(options.crash_dir.as_ref().or(options.offline.write.as_ref()));
            let (counters, result) = offline::run(name, configuration, &options.offline, &signals.stop, &reports)?;
            answer(format_args!("{counters}"))?;
            return Ok(result?);
        }
        let door = open_door(self.name, self.version, &configuration, &options)?;
        let eal = start(eal_args)?;
        let runtime = Runtime::configured(&eal, configuration.idle(options.idle))?;
        warn_unless(forwards);
        let runtime = runtime.admin(door).crash_reports(self.crash_reports(options.crash_dir.as_ref()));
        let ((), report) = runtime.run(|control| supervise(name, control, &options, &signals))?;
        print(format_args!("--- {name} has stopped\n{report}"));
        Ok(())
    }

    /// Where reports go if it was said, or else the usual place.
    fn crash_reports(&self, directory: Option<&PathBuf>) -> CrashReports {
        let usual = || CrashReports::usual_directory(|variable| std::env::var(variable).ok());
        let version = self.version.unwrap_or(env!("CARGO_PKG_VERSION"));
        CrashReports::new(directory.cloned().unwrap_or_else(usual), self.name, version)
    }

    /// Splits the command line at `--`. Help and version are answered here, before DPDK
    /// would answer them, and wherever they stand.
    fn arguments(&self) -> (Vec<String>, Options) {
        let text = |arg: std::ffi::OsString| {
            arg.into_string()
                .unwrap_or_else(|arg| refuse(self.name, format_args!("the argument {} is not UTF-8", arg.display())))
        };
        let mut args: Vec<String> = std::env::args_os().map(text).collect();
        let is_offline = |arg: &String| {
            let name = arg.split('=').next().unwrap_or_default();
            ["--replay", "--write", "--explain", "--inside"].contains(&name)
        };
        // No ports are started then, so all of them are ours.
        if args.iter().take_while(|arg| *arg != "--").any(is_offline) {
            args.retain(|arg| arg != "--");
            args.insert(1, "--".to_owned());
        }
        let misplaced = |arg: &&String| {
            let own = ["--config", "--check", "--stats-interval", "--drain", "--idle", "--log-format", "--crash-dir"];
            own.iter().any(|own| arg.starts_with(own))
        };
        // A check needs none of DPDK's: where none stands first, all are ours.
        let is_check = args.iter().any(|arg| arg == "--check") && !args.iter().any(|arg| arg == "--");
        if is_check && args.get(1).as_ref().is_some_and(misplaced) {
            args.insert(1, "--".to_owned());
        }
        let split = args.iter().position(|arg| arg == "--").unwrap_or(args.len());
        let (eal_args, own) = args.split_at(split);
        let offline = own.iter().find(|arg| is_offline(arg)).and_then(|arg| arg.split('=').next());
        if let (Some(argument), Some(option)) = (eal_args.get(1), offline) {
            refuse(
                self.name,
                format_args!(
                    "{option} takes no EAL arguments, as it needs no ports: leave out {argument} and what else stands \
                     before \"--\""
                ),
            );
        }
        if let Some(option) = eal_args.iter().find(misplaced) {
            let name = self.name;
            refuse(
                name,
                format_args!("{option} is an option of {name} itself: {name} [EAL ARGUMENTS] -- --config FILE"),
            );
        }
        let asked = |arg: &&String| ["-h", "--help", "-V", "--version"].contains(&arg.as_str());
        let own = eal_args.iter().skip(1).filter(asked).chain(own.iter().skip(1));
        // Without either there are no packets that come from a side that could be said.
        let judged = clap::ArgGroup::new("judged").args(["replay", "explain"]).multiple(true);
        let command = <Options as clap::CommandFactory>::command()
            .group(judged)
            .name(self.name)
            .bin_name(format!("{} [EAL ARGUMENTS] --", self.name))
            .version(self.version.unwrap_or(env!("CARGO_PKG_VERSION")))
            .about(self.about.unwrap_or("A network function on DPDK"));
        let explain = self.explain.as_ref().map_or(EXPLAIN_HELP, |(help, _)| help);
        let command = command.after_help(format!("{EAL_HELP}\n\n{explain}\n\n{LAST_HELP}"));
        let program = [self.name.to_owned()];
        let matches = command.try_get_matches_from(program.iter().chain(own)).unwrap_or_else(|error| {
            if let (Some(option), clap::error::ErrorKind::UnknownArgument) = (offline, error.kind()) {
                let _ = writeln!(std::io::stderr(), "{option} takes no EAL arguments, as it needs no ports");
            }
            error.exit()
        });
        let options = <Options as clap::FromArgMatches>::from_arg_matches(&matches);
        (eal_args.to_vec(), options.unwrap_or_else(|error| error.exit()))
    }
}

impl std::fmt::Debug for App {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("App").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The status of a program whose configuration is valid and asks for more than there is.
const DOES_NOT_FIT: u8 = 3;

/// Starts DPDK on the devices that the arguments or the environment name.
fn start(mut eal_args: Vec<String>) -> Result<Eal, AppError> {
    let words = eal_args.split_off(eal_args.len().min(1));
    let root = Path::new("/");
    let completed = eal_arguments::complete(root, &eal_arguments::environment(), &words)?;
    completed.notes.iter().for_each(|note| log::info!("{note}"));
    eal_arguments::check_drivers(root, &completed.words)?;
    eal_args.extend(completed.words);
    Ok(Eal::init(eal_args)?.0)
}

/// Opens the admin door, before anything else is started: what is asked for and cannot be had ends the program.
fn open_door(
    name: &str,
    version: Option<&str>,
    configuration: &Configuration,
    options: &Options,
) -> Result<AdminDoor, AdminError> {
    let version = version.unwrap_or(env!("CARGO_PKG_VERSION"));
    AdminDoor::open(&configuration.runtime().admin, name, version, Some(&options.config))
}

fn warn_unless(forwards: bool) {
    if !forwards {
        log::warn!(
            "nothing forwards what the functions let pass: it is dropped (forwarding = \"wire\" or \"router\" would)"
        );
    }
}

/// Shows what a configuration needs.
fn check(configuration: &Configuration, eal: Option<&Eal>) -> Result<(), AppError> {
    let check = configuration.check(eal);
    if check.problems().is_empty() {
        return answer(format_args!("{check}the configuration is valid, and fits"));
    }
    answer(format_args!("{check}the configuration is valid, and does not fit"))?;
    Err(AppError::DoesNotFit(check.problems().to_vec()))
}

/// Why a program ends with a failure.
#[derive(Debug, thiserror::Error)]
enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the signals' handlers cannot be installed: {0}")]
    Signals(std::io::Error),
    #[error(transparent)]
    EalArguments(#[from] EalArgumentsError),
    #[error(transparent)]
    Eal(#[from] EalError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error(transparent)]
    Offline(#[from] OfflineError),
    #[error(transparent)]
    NoPackets(#[from] NoPackets),
    #[error("{0}")]
    Explain(Box<dyn std::error::Error>),
    #[error("the answer cannot be written: {0}")]
    Output(std::io::Error),
    #[error("{}", .0.join("; "))]
    DoesNotFit(Vec<String>),
}

/// The control thread's work: do what signals ask for, show counters meanwhile.
fn supervise(name: &str, control: &Control, options: &Options, signals: &Signals) {
    let ports: Vec<&str> = control.ports().iter().map(dpdk_rs::Port::name).collect();
    let workers = match control.workers() {
        1 => "1 worker".to_owned(),
        workers => format!("{workers} workers"),
    };
    log::info!("{name} runs on {} with {workers}; Ctrl-C stops it", ports.join(" and "));
    let mut service = Service::from_environment();
    let start = Instant::now();
    let interval = options.stats_interval.map(Duration::from_secs);
    let mut next = interval.map(|interval| start + interval);
    let mut limit = Duration::from_secs(options.drain);
    let mut draining: Option<Instant> = None;
    let neighbours = control.neighbours();
    let mut untended = None;
    let mut duplicates = 0;
    while !control.stopping() {
        match control.serve(Duration::from_millis(20)) {
            Some(AdminOrder::Reload(order)) => service.reloading(|| order.carry_out(control)),
            Some(AdminOrder::Drain { limit: asked }) if draining.is_none() => {
                limit = asked.or(Some(limit).filter(|limit| !limit.is_zero())).unwrap_or(Duration::MAX);
                draining = Some(Instant::now());
                service.stopping(&status(control, true));
            }
            // One that is under way takes as long from now on as was said last.
            Some(AdminOrder::Drain { limit: Some(asked) }) => {
                limit = draining.map_or(asked, |since| since.elapsed().saturating_add(asked));
            }
            Some(AdminOrder::Drain { limit: None }) | None => {}
        }
        if signals.reload.swap(false, Ordering::Relaxed) {
            // The result is in the log.
            let _ = service.reloading(|| control.reload_from(&options.config));
        }
        service.tend(Instant::now(), || control.rounds(), || status(control, draining.is_some()));
        control.tend_ports();
        let failed = control.tend_functions().err().map(|error| error.to_string());
        // It is tried again all the time, and said once.
        if let Some(error) = failed.as_ref().filter(|_| failed != untended) {
            log::error!("a function's new policy does not take over: {error}");
        }
        untended = failed;
        if let Err(error) = control.follow_kernel() {
            log::error!("the kernel's addresses and routes are not taken over: {error}");
        }
        for claim in neighbours.iter().flat_map(|neighbours| neighbours.duplicates(&mut duplicates)) {
            let interface = control.interface(claim.interface).unwrap_or_default();
            log::warn!("{interface}: {} has our address {}", claim.mac, claim.address);
        }
        let asked = signals.stop.load(Ordering::Relaxed);
        match Step::next(asked, limit, draining.map(|since| (since.elapsed(), control.in_use()))) {
            Step::GoOn => {}
            Step::BeginToDrain => {
                // From here on one more signal stops the program, and another one ends it.
                signals.stop.store(false, Ordering::Relaxed);
                draining = Some(Instant::now());
                service.stopping(&status(control, true));
                log::info!("no new sessions: draining for up to {} s", limit.as_secs());
                if let Err(error) = control.begin_drain() {
                    log::error!("{error}");
                }
            }
            Step::Stop(why) => {
                why.into_iter().for_each(|why| log::info!("{why}"));
                break;
            }
        }
        if let (Some(at), Some(interval)) = (next, interval)
            && Instant::now() >= at
        {
            let (seconds, report) = (start.elapsed().as_secs(), control.report());
            print(format_args!("--- {name} after {seconds} s, generation {}\n{report}\n", report.generation));
            next = Some(at + interval);
        }
    }
    service.stopping("stopping");
}

/// A line on what the program does, for a service manager to show.
fn status(control: &Control, is_draining: bool) -> String {
    match (is_draining, control.workers(), control.generation()) {
        (true, ..) => format!("draining: {} left", control.in_use()),
        (false, 1, generation) => format!("forwarding with 1 worker by generation {generation}"),
        (false, workers, generation) => format!("forwarding with {workers} workers by generation {generation}"),
    }
}

/// What is done when the program was told to stop, or not.
#[derive(PartialEq, Eq, Debug)]
enum Step {
    GoOn,
    BeginToDrain,
    /// For a reason that is worth a line.
    Stop(Option<String>),
}

impl Step {
    /// `draining` is for how long it has been drained, and what is left.
    fn next(asked: bool, limit: Duration, draining: Option<(Duration, InUse)>) -> Self {
        match draining {
            None if asked && limit.is_zero() => Self::Stop(None),
            None if asked => Self::BeginToDrain,
            None => Self::GoOn,
            Some((elapsed, InUse::NOTHING)) => Self::Stop(Some(format!("drained in {} s", elapsed.as_secs()))),
            Some((_, left)) if asked => Self::Stop(Some(format!("told to stop a second time: {left} left"))),
            Some((elapsed, left)) if elapsed >= limit => {
                Self::Stop(Some(format!("time limit of {} s: {left} left", limit.as_secs())))
            }
            Some(_) => Self::GoOn,
        }
    }
}

/// Ends the program over what its arguments say.
fn refuse(program: &str, why: std::fmt::Arguments<'_>) -> ! {
    logging::say_error(program, &why);
    std::process::exit(2)
}

/// Prints for whoever reads it. A function goes on forwarding when nobody does any more.
fn print(text: std::fmt::Arguments<'_>) {
    let _ = answer(text);
}

/// Prints what was asked for. Who reads it may stop, as `head` does.
fn answer(text: std::fmt::Arguments<'_>) -> Result<(), AppError> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{text}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(AppError::Output(error)),
        _ => Ok(()),
    }
}

/// What signals have asked for.
struct Signals {
    /// By SIGINT or SIGTERM; one more while it is set ends the program at once, unless it comes within [`Self::ECHO`].
    stop: Arc<AtomicBool>,
    /// By SIGHUP.
    reload: Arc<AtomicBool>,
}

impl Signals {
    /// A shell, a terminal and a service manager may all pass one on: what comes so soon after another is the same.
    const ECHO: Duration = Duration::from_millis(200);

    fn new() -> std::io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        let signals = Self { stop: Arc::default(), reload: Arc::default() };
        let (stop, reload) = (Arc::clone(&signals.stop), Arc::clone(&signals.reload));
        let mut heard = signal_hook::iterator::Signals::new([SIGHUP, SIGINT, SIGTERM])?;
        // Whatever hangs, this thread does not.
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let mut last: Option<Instant> = None;
            for signal in heard.forever() {
                if signal == SIGHUP {
                    reload.store(true, Ordering::Relaxed);
                } else if last.replace(Instant::now()).is_none_or(|last| last.elapsed() >= Self::ECHO)
                    && stop.swap(true, Ordering::Relaxed)
                {
                    signal_hook::low_level::exit(128 + signal);
                }
            }
        })?;
        Ok(signals)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_drains_and_the_second_one_stops() {
        let (none, limit) = (Duration::ZERO, Duration::from_secs(30));
        let left = |sessions| InUse { sessions, packets: 0 };
        let stop = |why: &str| Step::Stop(Some(why.to_owned()));
        for (asked, limit, draining, expected) in [
            (false, none, None, Step::GoOn),
            (true, none, None, Step::Stop(None)),
            (false, limit, None, Step::GoOn),
            (true, limit, None, Step::BeginToDrain),
            (false, limit, Some((29, left(17))), Step::GoOn),
            (false, limit, Some((30, left(17))), stop("time limit of 30 s: 17 sessions are left")),
            (false, limit, Some((3, left(0))), stop("drained in 3 s")),
            (false, limit, Some((31, left(0))), stop("drained in 31 s")),
            (true, limit, Some((3, left(1))), stop("told to stop a second time: 1 session is left")),
        ] {
            let draining = draining.map(|(seconds, left)| (Duration::from_secs(seconds), left));
            assert_eq!(Step::next(asked, limit, draining), expected, "{asked} {limit:?} {draining:?}");
        }
    }
}
