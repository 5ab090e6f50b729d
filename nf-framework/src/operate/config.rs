//! The table `[admin]` of a configuration file.

use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// By what a running program is looked at and told what to do: a Unix socket, and TCP if asked for.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Whether there is a door at all.
    #[serde(default = "usually")]
    pub enabled: bool,
    /// The path of the Unix socket; one of the program's name in a directory for such sockets unless given.
    pub socket: Option<PathBuf>,
    /// A TCP port of 127.0.0.1, such as `9464`, or an address with a port; none unless given.
    pub listen: Option<String>,
    /// Whether those who come by TCP may give orders too: reload, drain, clear, trace. Who may open the socket may.
    #[serde(default)]
    pub orders: bool,
}

fn usually() -> bool {
    true
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { enabled: true, socket: None, listen: None, orders: false }
    }
}

/// Bytes of a socket's path that Linux takes, without the NUL behind it (`sun_path`, unix(7)).
const LONGEST_PATH: usize = 107;

impl AdminConfig {
    /// The key that makes no sense, and why.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        if let Some(why) = self.socket.as_deref().and_then(path_fault) {
            return Some(("socket", why));
        }
        self.listen.as_deref().and_then(|listen| parse(listen).err()).map(|why| ("listen", why))
    }

    /// Where TCP clients are listened for.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        self.listen.as_deref().and_then(|listen| parse(listen).ok())
    }
}

fn path_fault(path: &Path) -> Option<String> {
    let bytes = path.as_os_str().len();
    if bytes > LONGEST_PATH {
        return Some(format!(
            "the path has {bytes} bytes, and a socket's has {LONGEST_PATH} at most (choose a shorter one)"
        ));
    }
    let fault = path.file_name().is_none() || !path.is_absolute() || path.as_os_str().as_encoded_bytes().contains(&0);
    fault.then(|| format!("{path:?} is not an absolute path of a file (write, for example, \"/run/nf/nat.sock\")"))
}

/// A port alone is one of the loopback's.
fn parse(listen: &str) -> Result<SocketAddr, String> {
    let port = listen.parse::<u16>().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let address = port.or_else(|_| listen.parse::<SocketAddr>()).map_err(|_| {
        let example = listen.parse::<IpAddr>().map_or_else(
            |_| "\"9464\", \"127.0.0.1:9464\" or \"[::1]:9464\"".to_owned(),
            |address| format!("{:?}", SocketAddr::new(address, 9464).to_string()),
        );
        format!("{listen:?} is not a port, or an IP address with a port (write, for example, {example})")
    })?;
    if address.port() == 0 {
        Err("the port 0 is none that clients could know (choose one)".to_owned())
    } else {
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigFile;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Top {
        #[serde(default)]
        admin: AdminConfig,
    }

    fn read(text: &str) -> Result<AdminConfig, String> {
        let file = ConfigFile::parse("f.toml", format!("[admin]\n{text}\n")).unwrap();
        let admin = file.framework::<Top>(&[]).map_err(|error| error.to_string())?.admin;
        match admin.fault() {
            Some((key, why)) => Err(file.error_at("admin", key, why).to_string()),
            None => Ok(admin),
        }
    }

    #[test]
    fn what_makes_no_sense_is_named_with_its_line() {
        for (text, expected) in [
            ("enable = true", "[admin] enable: unknown key (known: enabled, socket, listen, orders)"),
            ("socket = 1", "[admin] socket: expected a path, found 1"),
            (
                "socket = 'nat.sock'",
                "[admin] socket: \"nat.sock\" is not an absolute path of a file (write, for example, \"/run/nf/nat.sock\")",
            ),
            (
                "socket = '/'",
                "[admin] socket: \"/\" is not an absolute path of a file (write, for example, \"/run/nf/nat.sock\")",
            ),
            (
                "listen = 'localhost'",
                "[admin] listen: \"localhost\" is not a port, or an IP address with a port (write, for example, \"9464\", \
                 \"127.0.0.1:9464\" or \"[::1]:9464\")",
            ),
            (
                "listen = '::1'",
                "[admin] listen: \"::1\" is not a port, or an IP address with a port (write, for example, \"[::1]:9464\")",
            ),
            ("listen = '0'", "[admin] listen: the port 0 is none that clients could know (choose one)"),
            ("listen = 9464", "[admin] listen: expected a string, found 9464"),
        ] {
            assert_eq!(read(text), Err(format!("f.toml:2: {expected}")), "{text}");
        }
        let long = format!("socket = '/{}'", "x".repeat(107));
        assert!(read(&long).unwrap_err().contains("the path has 108 bytes, and a socket's has 107 at most"));
    }

    #[test]
    fn a_port_alone_is_the_loopbacks() {
        for (listen, expected) in [("9464", "127.0.0.1:9464"), ("0.0.0.0:1", "0.0.0.0:1"), ("[::1]:9464", "[::1]:9464")]
        {
            let config = read(&format!("listen = '{listen}'")).unwrap();
            assert_eq!(config.address().unwrap().to_string(), expected);
        }
        assert_eq!(read(""), Ok(AdminConfig::default()));
    }
}
