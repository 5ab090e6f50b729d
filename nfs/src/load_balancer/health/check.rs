//! A validated check: what is asked of a backend, how often, and what is made of the answers.

use super::config::{HealthConfig, HealthKind, PassiveConfig};
use super::tls::{self, TlsClient};
use nf_framework::Invalid;
use std::ops::RangeInclusive;
use std::time::Duration;

/// What is shorter costs more than it tells.
const SHORTEST: Duration = Duration::from_millis(50);
/// What is longer is no check.
const LONGEST: Duration = Duration::from_secs(3600);
/// What is sent by UDP, looked for in an answer, or asked for by HTTP, in bytes.
const LONGEST_TEXT: usize = 512;

/// How a service's backends are checked.
#[derive(Debug)]
pub(crate) struct Check {
    /// As it was asked for: two checks of the same configuration are the same.
    pub(crate) config: HealthConfig,
    pub(super) kind: Kind,
}

/// What is asked.
#[derive(Debug)]
pub(super) enum Kind {
    Tcp,
    Http(HttpCheck, Option<TlsClient>),
    Udp {
        payload: Vec<u8>,
        /// What has to be in the answer; without any, silence is right.
        answer: Option<Vec<u8>>,
    },
    Icmp,
}

/// What is asked by HTTP.
#[derive(Debug)]
pub(super) struct HttpCheck {
    pub(super) path: String,
    pub(super) host: Option<String>,
    pub(super) status: RangeInclusive<u16>,
    pub(super) expect: Option<Vec<u8>>,
}

impl Check {
    /// Validates a table, whose place in the function's is `at`, such as `services[0].health`. Reads the
    /// file of certificates.
    ///
    /// # Errors
    ///
    /// [`Invalid`] names the key.
    pub(crate) fn new(config: HealthConfig, at: &str) -> Result<Self, Invalid> {
        let invalid = |key: &str, message: String| Err(Invalid::new(format!("{at}.{key}"), message));
        let times = [("interval", config.interval), ("timeout", config.timeout)];
        for (key, time) in times {
            if !(SHORTEST..=LONGEST).contains(&time.0) {
                return invalid(key, format!("{} is not from 0.05 to 3600 seconds", time.0.as_secs_f64()));
            }
        }
        for (key, time) in [("slow_start", config.slow_start), ("damping", config.damping)] {
            if time.0 > LONGEST {
                return invalid(key, format!("{:?} is more than 3600 seconds", time.0));
            }
        }
        for (key, count) in [("rise", config.rise), ("fall", config.fall)] {
            if !(1..=1000).contains(&count) {
                return invalid(key, format!("{count} is not from 1 to 1000"));
            }
        }
        if config.jitter > 50 {
            return invalid("jitter", format!("{} is more than 50 percent of the interval", config.jitter));
        }
        if config.port == Some(0) {
            return invalid("port", "there is no port 0: leave it out for the port of the service".to_owned());
        }
        if let Some((key, of)) = misplaced(&config) {
            return invalid(key, format!("this is for {of} only: leave it out"));
        }
        if let Some(PassiveConfig { failed, least, window }) = config.passive {
            if !(1..=100).contains(&failed) {
                return invalid("passive.failed", format!("{failed} is not from 1 to 100 percent"));
            }
            if least == 0 {
                return invalid("passive.least", "one connection at least has to have begun".to_owned());
            }
            if !(Duration::from_secs(1)..=LONGEST).contains(&window.0) {
                return invalid("passive.window", format!("{:?} is not from 1 to 3600 seconds", window.0));
            }
        }
        let kind = kind(&config).map_err(|(key, message)| Invalid::new(format!("{at}.{key}"), message))?;
        Ok(Self { config, kind })
    }

    pub(super) fn interval(&self) -> Duration {
        self.config.interval.0
    }

    pub(super) fn timeout(&self) -> Duration {
        self.config.timeout.0
    }
}

/// A key that has nothing to say in a check of this kind, and what it is for.
fn misplaced(config: &HealthConfig) -> Option<(&'static str, &'static str)> {
    use HealthKind::{Http, Https, Icmp, Udp};
    let HealthConfig { kind, .. } = config;
    let is_http = matches!(kind, Http | Https);
    let keys = [
        ("path", config.path.is_some(), is_http, "http and https"),
        ("host", config.host.is_some(), is_http, "http and https"),
        ("status", config.status.is_some(), is_http, "http and https"),
        ("expect", config.expect.is_some(), is_http || *kind == Udp, "http, https and udp"),
        ("ca_file", config.ca_file.is_some(), *kind == Https, "https"),
        ("verify", config.verify.is_some(), *kind == Https, "https"),
        ("server_name", config.server_name.is_some(), *kind == Https, "https"),
        ("send", config.send.is_some(), *kind == Udp, "udp"),
        ("answer", config.answer.is_some(), *kind == Udp, "udp"),
        ("port", config.port.is_some(), *kind != Icmp, "what has ports"),
    ];
    keys.into_iter().find(|(_, given, belongs, _)| *given && !belongs).map(|(key, _, _, of)| (key, of))
}

fn kind(config: &HealthConfig) -> Result<Kind, (&'static str, String)> {
    let expect = text("expect", config.expect.as_deref())?;
    Ok(match config.kind {
        HealthKind::Tcp => Kind::Tcp,
        HealthKind::Icmp => Kind::Icmp,
        HealthKind::Udp => {
            let answer = match (config.answer, expect) {
                (Some(false), Some(_)) => {
                    return Err(("answer", "something is expected, so there has to be an answer".to_owned()));
                }
                (None | Some(false), None) => None,
                (_, expect) => Some(expect.unwrap_or_default()),
            };
            Kind::Udp { payload: text("send", config.send.as_deref())?.unwrap_or_default(), answer }
        }
        HealthKind::Http => Kind::Http(http(config, expect)?, None),
        HealthKind::Https => Kind::Http(http(config, expect)?, Some(tls::client(config)?)),
    })
}

fn http(config: &HealthConfig, expect: Option<Vec<u8>>) -> Result<HttpCheck, (&'static str, String)> {
    for (key, value) in [("path", &config.path), ("host", &config.host)] {
        let is_visible = |text: &String| text.bytes().all(|byte| byte.is_ascii_graphic());
        text(key, value.as_deref())?;
        if !value.as_ref().is_none_or(is_visible) {
            return Err((key, "a request cannot have this in it: write what is not plain ASCII as %XX".to_owned()));
        }
    }
    let path = config.path.clone().unwrap_or_else(|| "/".to_owned());
    if !path.starts_with('/') {
        return Err(("path", format!("{path:?} does not begin with a slash")));
    }
    let status = match &config.status {
        None => 200..=399,
        Some(text) => status(text)
            .ok_or_else(|| ("status", format!("{text:?} is no status: write \"200-299\", or \"204\" for one")))?,
    };
    Ok(HttpCheck { path, host: config.host.clone(), status, expect })
}

fn status(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let code = |text: &str| text.trim().parse().ok().filter(|code| (200..=599).contains(code));
    let (first, last) = (code(first)?, code(last)?);
    (first <= last).then_some(first..=last)
}

fn text(key: &'static str, text: Option<&str>) -> Result<Option<Vec<u8>>, (&'static str, String)> {
    match text {
        Some("") if key != "send" => Err((key, "it is empty: leave it out".to_owned())),
        Some(text) if text.len() > LONGEST_TEXT => {
            Err((key, format!("{} bytes are too much: {LONGEST_TEXT} at most", text.len())))
        }
        text => Ok(text.map(|text| text.as_bytes().to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Check, String> {
        let config: HealthConfig = toml::from_str(text).map_err(|error| error.message().to_owned())?;
        Check::new(config, "services[0].health").map_err(|invalid| format!("{}: {}", invalid.key, invalid.message))
    }

    #[test]
    fn what_is_wrong_is_said_by_its_key() {
        let cases = [
            ("kind = 'ping'", "unknown variant `ping`"),
            ("kind = 'tcp'\nevery = 1", "unknown field `every`"),
            ("kind = 'tcp'\ninterval = 0", "services[0].health.interval: 0 is not from 0.05"),
            ("kind = 'tcp'\ninterval = -1", "-1 is not a time in seconds"),
            ("kind = 'tcp'\ntimeout = 4000", "health.timeout: 4000 is not from"),
            ("kind = 'tcp'\nslow_start = 4000", "health.slow_start: 4000s is more"),
            ("kind = 'tcp'\ndamping = 4000", "health.damping: 4000s is more"),
            ("kind = 'tcp'\nrise = 0", "health.rise: 0 is not from 1"),
            ("kind = 'tcp'\nfall = 0", "health.fall: 0 is not from 1"),
            ("kind = 'tcp'\njitter = 51", "health.jitter: 51 is more than 50"),
            ("kind = 'tcp'\nport = 0", "health.port: there is no port 0"),
            ("kind = 'icmp'\nport = 80", "health.port: this is for what has ports only"),
            ("kind = 'tcp'\npath = '/'", "health.path: this is for http and https only"),
            ("kind = 'udp'\nhost = 'a'", "health.host: this is for http and https only"),
            ("kind = 'tcp'\nstatus = '200'", "health.status: this is for http and https only"),
            ("kind = 'tcp'\nexpect = 'a'", "health.expect: this is for http, https and udp only"),
            ("kind = 'http'\nca_file = 'a'", "health.ca_file: this is for https only"),
            ("kind = 'http'\nverify = false", "health.verify: this is for https only"),
            ("kind = 'http'\nserver_name = 'a'", "health.server_name: this is for https only"),
            ("kind = 'http'\nsend = 'a'", "health.send: this is for udp only"),
            ("kind = 'http'\nanswer = true", "health.answer: this is for udp only"),
            ("kind = 'udp'\nanswer = false\nexpect = 'a'", "health.answer: something is expected"),
            ("kind = 'http'\npath = 'a'", "health.path: \"a\" does not begin with a slash"),
            ("kind = 'http'\npath = \"/a b\"", "health.path: a request cannot have this"),
            ("kind = 'http'\nhost = \"a\\r\\nb\"", "health.host: a request cannot have this"),
            ("kind = 'http'\nexpect = ''", "health.expect: it is empty"),
            ("kind = 'http'\nstatus = '299-200'", "health.status: \"299-200\" is no status"),
            ("kind = 'http'\nstatus = '100'", "health.status: \"100\" is no status"),
            ("kind = 'https'", "health.ca_file: name a file of certificates"),
            ("kind = 'https'\nca_file = '/nowhere'", "health.ca_file: /nowhere"),
            ("kind = 'https'\nca_file = '/dev/null'", "health.ca_file: there is no certificate in /dev/null"),
            ("kind = 'https'\nverify = false\nca_file = 'a'", "health.ca_file: nothing is verified"),
            ("kind = 'https'\nverify = false\nserver_name = 'a b'", "health.server_name: \"a b\" is no name"),
            ("kind = 'tcp'\npassive = { failed = 0 }", "health.passive.failed: 0 is not from 1"),
            ("kind = 'tcp'\npassive = { least = 0 }", "health.passive.least: one connection"),
            ("kind = 'tcp'\npassive = { window = 0.5 }", "health.passive.window: 500ms is not from 1"),
        ];
        for (text, message) in cases {
            let error = check(text).unwrap_err();
            assert!(error.contains(message), "{text}: {error}");
        }
        let long = format!("kind = 'udp'\nsend = '{}'", "x".repeat(513));
        assert!(check(&long).unwrap_err().contains("health.send: 513 bytes are too much"));
    }

    #[test]
    fn what_is_left_out_is_the_usual() {
        let Kind::Http(http, None) = check("kind = 'http'").unwrap().kind else { panic!("this is HTTP") };
        assert_eq!((http.path.as_str(), http.host, http.status, http.expect), ("/", None, 200..=399, None));
        let answers = [("", false), ("answer = true", true), ("expect = 'pong'", true), ("answer = false", false)];
        for (line, expected) in answers {
            let Kind::Udp { answer, payload } = check(&format!("kind = 'udp'\n{line}")).unwrap().kind else {
                panic!("this is UDP")
            };
            assert_eq!((answer.is_some(), payload.len()), (expected, 0), "{line}");
        }
        let tcp = check("kind = 'tcp'\ninterval = 0.5").unwrap();
        assert_eq!((tcp.interval(), tcp.timeout()), (Duration::from_millis(500), Duration::from_secs(2)));
        assert_eq!(status("204"), Some(204..=204));
    }
}
