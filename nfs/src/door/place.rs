//! Which door is meant, out of those that there are.

use super::DoorError;
use clap::Args;
use std::fmt;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The options that say which program is meant.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Which program (the only one that runs here, if nothing is said)")]
pub struct Whereabouts {
    /// The one of this name: its socket is NAME.sock
    #[arg(long, short, global = true, value_name = "NAME", conflicts_with_all = ["socket", "address"])]
    program: Option<String>,

    /// The one with this socket
    #[arg(long, short, global = true, value_name = "PATH", conflicts_with = "address")]
    socket: Option<PathBuf>,

    /// The one that listens there for TCP ([admin] listen)
    #[arg(long, short, global = true, value_name = "HOST:PORT", value_parser = address)]
    address: Option<String>,

    /// How long to wait for each answer
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,
}

/// Where a door is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A Unix socket.
    Socket(PathBuf),
    /// Host and port.
    Address(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "{}", path.display()),
            Self::Address(address) => f.write_str(address),
        }
    }
}

/// 9464, localhost:9464, [::1]:9464.
fn address(text: &str) -> Result<String, String> {
    let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
    let is_host = !host.is_empty() && (!host.contains(':') || (host.starts_with('[') && host.ends_with(']')));
    match port.parse::<u16>() {
        Ok(1..) if is_host => Ok(format!("{host}:{port}")),
        _ => Err("a host and a port, such as 127.0.0.1:9464 or [::1]:9464".to_owned()),
    }
}

/// More than nothing, at most a day.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 5 or 0.5".to_owned())?;
    if (0.01..=86400.0).contains(&seconds) {
        Ok(Duration::from_secs_f64(seconds))
    } else {
        Err("from 0.01 to 86400 seconds".to_owned())
    }
}

impl Whereabouts {
    /// How long to wait for each answer.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The one door that is meant.
    ///
    /// # Errors
    ///
    /// When there is none, or several.
    pub fn find(&self) -> Result<Place, DoorError> {
        match (&self.address, &self.socket) {
            (Some(address), _) => Ok(Place::Address(address.clone())),
            (_, Some(socket)) => Ok(Place::Socket(socket.clone())),
            _ => find(&directories(user(), |name| std::env::var_os(name)), self.program.as_deref()),
        }
    }
}

/// Where programs have their sockets: this user's, then those of services and of root.
fn directories(user: u32, variable: impl Fn(&str) -> Option<std::ffi::OsString>) -> Vec<PathBuf> {
    let of_system = PathBuf::from("/run/nf");
    if user == 0 {
        return vec![of_system];
    }
    let of_session = variable("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let own = of_session.map_or_else(|| PathBuf::from(format!("/tmp/nf-{user}")), |session| session.join("nf"));
    vec![own, of_system]
}

/// Who we are: a process's own directory is its user's.
fn user() -> u32 {
    std::fs::metadata("/proc/self").map_or(u32::MAX, |this| this.uid())
}

fn find(directories: &[PathBuf], name: Option<&str>) -> Result<Place, DoorError> {
    let (mut there, mut dead, mut closed) = (Vec::new(), Vec::new(), None);
    for directory in directories {
        match sockets(directory) {
            Ok(sockets) => {
                there.extend(sockets.there);
                dead.extend(sockets.dead);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => closed = Some(directory),
            Err(_) => {}
        }
    }
    let named = |path: &&PathBuf| name.is_none_or(|name| program(path) == name);
    let candidates: Vec<&PathBuf> = there.iter().filter(named).collect();
    match (candidates.as_slice(), closed, name) {
        ([socket], ..) => Ok(Place::Socket((*socket).clone())),
        ([], Some(directory), _) => Err(DoorError::Denied { place: directory.display().to_string() }),
        ([], None, Some(name)) if !there.is_empty() => {
            let there = there.iter().map(|path| program(path)).collect();
            Err(DoorError::NoSuchProgram { name: name.to_owned(), there })
        }
        ([], ..) => Err(DoorError::NoProgram { directories: directories.to_vec(), dead }),
        // One name in two directories: ours comes first.
        ([first, ..], _, Some(_)) => Ok(Place::Socket((*first).clone())),
        (several, ..) => Err(DoorError::Several(several.iter().map(|path| program(path)).collect())),
    }
}

/// The sockets in a directory.
#[derive(Default)]
struct Sockets {
    /// Somebody is behind them, or may be.
    there: Vec<PathBuf>,
    /// A program that was killed left them behind.
    dead: Vec<PathBuf>,
}

fn sockets(directory: &Path) -> io::Result<Sockets> {
    let mut found = Sockets::default();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let path = entry.path();
        let is_socket =
            entry.file_type().is_ok_and(|kind| kind.is_socket()) && path.extension() == Some("sock".as_ref());
        let is_stale = || {
            let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
            UnixStream::connect(&path).is_err_and(refused)
        };
        if is_socket {
            let of = if is_stale() { &mut found.dead } else { &mut found.there };
            of.push(path);
        }
    }
    found.there.sort();
    found.dead.sort();
    Ok(found)
}

/// The name of the program whose socket this is.
fn program(socket: &Path) -> String {
    socket.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn sockets_are_looked_for_where_programs_put_them() {
        for (user, session, expected) in [
            (0, Some("/run/user/0"), &["/run/nf"][..]),
            (7, Some("/run/user/7"), &["/run/user/7/nf", "/run/nf"]),
            (7, Some("relative"), &["/tmp/nf-7", "/run/nf"]),
            (7, None, &["/tmp/nf-7", "/run/nf"]),
        ] {
            let expected: Vec<_> = expected.iter().map(PathBuf::from).collect();
            assert_eq!(directories(user, |_| session.map(Into::into)), expected);
        }
    }

    #[test]
    fn the_only_program_is_meant_and_one_of_several_has_to_be_named() {
        let scratch = std::env::temp_dir().join(format!("nf-place-{}", std::process::id()));
        std::fs::create_dir_all(&scratch).unwrap();
        let at = |name: &str| scratch.join(name);
        let find =
            |name: Option<&str>| find(&[at("nothing"), scratch.clone()], name).map_err(|error| error.to_string());
        assert!(find(None).unwrap_err().starts_with("no program with an admin door runs here: there is no socket in "));

        std::fs::write(at("note.sock"), "a file").unwrap();
        drop(UnixListener::bind(at("killed.sock")).unwrap());
        let dead =
            format!("runs here: none answers at {}, which a program that was killed", at("killed.sock").display());
        assert!(find(None).unwrap_err().contains(&dead), "{:?}", find(None));
        let _other = UnixListener::bind(at("another")).unwrap();
        let _nat = UnixListener::bind(at("nat.sock")).unwrap();
        assert_eq!(find(None), Ok(Place::Socket(at("nat.sock"))));
        assert_eq!(find(Some("firewall")).unwrap_err(), "no program \"firewall\" runs here; there is nat");

        let _second = UnixListener::bind(at("nat-2.sock")).unwrap();
        let sentence = "several programs run here: nat, nat-2\nSay which: --program NAME";
        assert_eq!(find(None).unwrap_err().replace("nat-2, nat", "nat, nat-2"), sentence);
        assert_eq!(find(Some("nat-2")), Ok(Place::Socket(at("nat-2.sock"))));
        assert_eq!(find(Some("x")).unwrap_err(), "no program \"x\" runs here; there are nat-2, nat");
        std::fs::remove_dir_all(&scratch).unwrap();
    }

    #[test]
    fn addresses_have_a_port() {
        for (text, expected) in [
            ("9464", Some("127.0.0.1:9464")),
            ("localhost:9464", Some("localhost:9464")),
            ("[::1]:9464", Some("[::1]:9464")),
            ("::1", None),
            ("localhost", None),
            (":9464", None),
            ("127.0.0.1:0", None),
        ] {
            assert_eq!(address(text).ok().as_deref(), expected, "{text}");
        }
        assert!(seconds("0").is_err() && seconds("x").is_err() && seconds("NaN").is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
    }
}
