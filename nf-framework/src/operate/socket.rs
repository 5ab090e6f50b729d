//! The Unix socket of a program: where it is, whose it is, and that it goes with the program.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::{UnixListener, UnixSocket};

/// The owner and the group may come in.
const SOCKET_MODE: u32 = 0o660;
const DIRECTORY_MODE: u32 = 0o750;
/// Connections that the kernel keeps until they are taken.
const BACKLOG: u32 = 128;
/// Programs of one name.
const MOST_OF_ONE_NAME: u32 = 99;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The directory is not there and cannot be made, or cannot be used.
    #[error("the directory {path} cannot be used: {source}")]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could put another socket in the place of ours.
    #[error("the directory {path} belongs to the user {owner} and not to this one")]
    NotOurs {
        /// Which.
        path: PathBuf,
        /// Whose.
        owner: u32,
    },
    /// A program that runs has it.
    #[error("{0} is another program's, which answers there")]
    Taken(PathBuf),
    /// What is there is no socket, and stays.
    #[error("{0} is there and is not a socket")]
    NotASocket(PathBuf),
    /// The system says no.
    #[error("{path} cannot be made: {source}")]
    Bind {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// A socket that is listened at. When it goes, so does its file.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) path: PathBuf,
    /// Device and inode, by which it is known that the file is still this one's.
    file: (u64, u64),
    pub(crate) listener: UnixListener,
}

impl Socket {
    /// At the path that somebody has chosen. To be called in a tokio runtime.
    pub(crate) fn at(path: &Path) -> Result<Self, SocketError> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let _lock = make_directory(directory)?;
        Self::bind(path)?.ok_or_else(|| SocketError::Taken(path.to_owned()))
    }

    /// Where programs that were not told otherwise have theirs: the first name that no running program has. To be
    /// called in a tokio runtime.
    pub(crate) fn of_program(name: &str) -> Result<Self, SocketError> {
        let user = effective_user();
        let directory = default_directory(user, |variable| std::env::var_os(variable).map(PathBuf::from));
        let _lock = make_directory(&directory)?;
        let owner = fs::symlink_metadata(&directory).map_err(|source| cannot(&directory, source))?.uid();
        if owner != user {
            return Err(SocketError::NotOurs { path: directory, owner });
        }
        for number in 1..=MOST_OF_ONE_NAME {
            let file = if number == 1 { format!("{name}.sock") } else { format!("{name}-{number}.sock") };
            if let Some(socket) = Self::bind(&directory.join(file))? {
                return Ok(socket);
            }
        }
        Err(SocketError::Taken(directory.join(format!("{name}.sock"))))
    }

    /// `None` if a program answers there. What a program left behind is replaced.
    fn bind(path: &Path) -> Result<Option<Self>, SocketError> {
        let failed = |source| SocketError::Bind { path: path.to_owned(), source };
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(path).map_err(failed)?;
                }
                // One that may not be asked, or is too busy to answer, is somebody's.
                _ => return Ok(None),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let socket = UnixSocket::new_stream().map_err(failed)?;
        socket.bind(path).map_err(failed)?;
        // Before anybody can connect, which needs somebody who listens.
        let permitted = fs::set_permissions(path, Permissions::from_mode(SOCKET_MODE));
        let file = permitted.and_then(|()| fs::symlink_metadata(path)).map_err(failed)?;
        let listener = socket.listen(BACKLOG).map_err(failed)?;
        Ok(Some(Self { path: path.to_owned(), file: (file.dev(), file.ino()), listener }))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _lock = self.path.parent().map(lock);
        if fs::symlink_metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn cannot(path: &Path, source: io::Error) -> SocketError {
    SocketError::Directory { path: path.to_owned(), source }
}

/// Makes a directory that is not there, and has it for ourselves until the lock is dropped: of two programs that
/// find an old socket, one would remove the other's new one.
fn make_directory(path: &Path) -> Result<Option<File>, SocketError> {
    match DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path) {
        // By whatever umask there is.
        Ok(()) if fs::symlink_metadata(path).is_ok_and(|made| made.is_dir()) => {}
        Ok(()) => return Err(cannot(path, io::ErrorKind::NotADirectory.into())),
        Err(source) => return Err(cannot(path, source)),
    }
    Ok(lock(path))
}

/// `None` where directories cannot be locked: then two programs must not begin at once.
fn lock(path: &Path) -> Option<File> {
    let directory = File::open(path).ok()?;
    directory.lock().ok()?;
    Some(directory)
}

/// What systemd made for the program (`RuntimeDirectory=`), else the usual place of the user.
fn default_directory(user: u32, variable: impl Fn(&str) -> Option<PathBuf>) -> PathBuf {
    let given = |name| variable(name).filter(|path| path.is_absolute());
    // It may have made several, with colons between them (systemd.exec(5)).
    let of_service = given("RUNTIME_DIRECTORY").and_then(|paths| std::env::split_paths(&paths).next());
    match of_service {
        Some(of_service) => of_service,
        None if user == 0 => PathBuf::from("/run/nf"),
        None => given("XDG_RUNTIME_DIR")
            .map_or_else(|| PathBuf::from(format!("/tmp/nf-{user}")), |of_user| of_user.join("nf")),
    }
}

/// The user by whose rights the program runs (proc(5): real, effective, saved, file system).
fn effective_user() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let effective = line.and_then(|users| users.split_whitespace().nth(1)?.parse().ok());
    effective.unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("nf-socket-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn in_runtime<R>(then: impl FnOnce() -> R) -> R {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        let _guard = runtime.enter();
        then()
    }

    #[test]
    fn a_socket_is_for_owner_and_group_and_goes_with_its_program() {
        let scratch = Scratch::new("modes");
        let path = scratch.0.join("made/here/a.sock");
        in_runtime(|| {
            let socket = Socket::at(&path).unwrap();
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode(&path), SOCKET_MODE);
            assert_eq!(mode(path.parent().unwrap()) & !DIRECTORY_MODE, 0);
            UnixStream::connect(&path).unwrap();
            drop(socket);
        });
        assert!(!path.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let scratch = Scratch::new("stale");
        let path = scratch.0.join("a.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        in_runtime(|| {
            let socket = Socket::at(&path).unwrap();
            assert_eq!(
                Socket::at(&path).unwrap_err().to_string(),
                format!("{} is another program's, which answers there", path.display())
            );
            // Another one took the place: it stays.
            fs::remove_file(&path).unwrap();
            let other = std::os::unix::net::UnixListener::bind(&path).unwrap();
            drop(socket);
            assert!(path.exists());
            drop(other);
            let file = scratch.0.join("file");
            fs::write(&file, "mine").unwrap();
            assert_eq!(
                Socket::at(&file).unwrap_err().to_string(),
                format!("{} is there and is not a socket", file.display())
            );
            assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
            let beneath = file.join("a.sock");
            assert!(matches!(Socket::at(&beneath), Err(SocketError::Directory { .. })));
        });
    }

    #[test]
    fn the_directory_is_systemds_or_the_users() {
        for (user, variables, expected) in [
            (0, &[][..], "/run/nf"),
            (0, &[("XDG_RUNTIME_DIR", "/run/user/0")], "/run/nf"),
            (0, &[("RUNTIME_DIRECTORY", "/run/nat")], "/run/nat"),
            (7, &[], "/tmp/nf-7"),
            (7, &[("XDG_RUNTIME_DIR", "/run/user/7")], "/run/user/7/nf"),
            (7, &[("XDG_RUNTIME_DIR", "")], "/tmp/nf-7"),
            (7, &[("XDG_RUNTIME_DIR", "/run/user/7"), ("RUNTIME_DIRECTORY", "/run/nf:/run/other")], "/run/nf"),
        ] {
            let variable =
                |name: &str| variables.iter().find(|(of, _)| *of == name).map(|(_, value)| PathBuf::from(value));
            assert_eq!(default_directory(user, variable), Path::new(expected), "{user} {variables:?}");
        }
    }
}
