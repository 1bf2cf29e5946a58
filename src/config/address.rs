//! Addresses to listen on, as other programs spell them.
//!
//! | spelling | means |
//! |---|---|
//! | `127.0.0.1:8080`, `[::1]:8080` | this address |
//! | `127.0.0.1`, `localhost`, `[::1]` | port 8080 of it |
//! | `localhost:8080` | 127.0.0.1 and ::1 |
//! | `:8080`, `*:8080` | every address of this machine, IPv4 and IPv6 |
//! | `[::]:8080` | the same; IPv6 alone where `0.0.0.0:8080` is listed too |
//! | `ingest.internal:8080` | the addresses of this name |
//!
//! A port alone is refused: other programs take it either for every address or for the machine's
//! own programs. Opens no sockets.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, ToSocketAddrs as _};
use std::str::FromStr;

/// The port of an address that names none.
const PORT: u16 = 8080;

/// One address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// Every address of this machine.
    Every,
    /// Both loopback addresses.
    Localhost,
    Ip(IpAddr),
    /// A link-local address with its interface's number.
    Scoped(Ipv6Addr, u32),
    Name(String),
}

impl ListenAddress {
    /// The addresses of sockets. Looks names up, which blocks.
    ///
    /// # Errors
    /// If a name cannot be resolved.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        let at = |ip: IpAddr| SocketAddr::new(ip, self.port);
        Ok(match &self.host {
            Host::Every => vec![at(Ipv6Addr::UNSPECIFIED.into())],
            Host::Localhost => vec![
                at(Ipv4Addr::LOCALHOST.into()),
                at(Ipv6Addr::LOCALHOST.into()),
            ],
            Host::Ip(ip) => vec![at(*ip)],
            Host::Scoped(ip, scope) => vec![SocketAddrV6::new(*ip, self.port, 0, *scope).into()],
            Host::Name(name) => (name.as_str(), self.port).to_socket_addrs()?.collect(),
        })
    }

    /// Whether an address that this machine does not have may be left out, as others stand for the
    /// same.
    #[must_use]
    pub fn takes_what_there_is(&self) -> bool {
        matches!(self.host, Host::Localhost)
    }

    /// Whether IPv4 alone is enough where there is no IPv6.
    #[must_use]
    pub fn is_every(&self) -> bool {
        self.host == Host::Every
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            host: Host::Ip(address.ip()),
            port: address.port(),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let (host, port) = split(text)?;
        let port = match port {
            None => PORT,
            Some(port) => parse_port(port)?,
        };
        Ok(Self { host, port })
    }
}

/// The host, and the text of the port.
fn split(text: &str) -> Result<(Host, Option<&str>), String> {
    const FORMS: &str = "an address is like 127.0.0.1:8080, localhost:8080, [::1]:8080, or :8080 for every address of this machine";
    if text.is_empty() {
        return Err(format!("it is empty; {FORMS}"));
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Err(format!("leave {scheme}:// out: write {rest}"));
    }
    if text.contains('/') {
        return Err(format!(
            "paths and Unix sockets cannot be listened on; {FORMS}"
        ));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (inside, rest) = rest
            .split_once(']')
            .ok_or_else(|| format!("its bracket is not closed; {FORMS}"))?;
        let port = match rest.strip_prefix(':') {
            Some(port) => Some(port),
            None if rest.is_empty() => None,
            None => return Err(format!("a port stands behind `]:`; {FORMS}")),
        };
        return Ok((ipv6(inside)?, port));
    }
    if text.matches(':').count() > 1 {
        return Err(ipv6_hint(text));
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!(
            "a port alone does not say where: write :{text} for every address of this machine, or 127.0.0.1:{text} for programs on this machine only"
        ));
    }
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (text, None),
    };
    let host = match host {
        "" | "*" => Host::Every,
        name if name.eq_ignore_ascii_case("localhost") => Host::Localhost,
        name => match name.parse::<Ipv4Addr>() {
            Ok(ip) => Host::Ip(ip.into()),
            Err(_) if is_name(name) => Host::Name(name.to_owned()),
            Err(_) => return Err(format!("it names no host; {FORMS}")),
        },
    };
    Ok((host, port))
}

fn ipv6(text: &str) -> Result<Host, String> {
    let (address, scope) = match text.split_once('%') {
        None => (text, None),
        Some((address, scope)) => (address, Some(scope)),
    };
    let ip: Ipv6Addr = address
        .parse()
        .map_err(|_| "what stands in brackets has to be an IPv6 address".to_owned())?;
    match scope {
        None => Ok(Host::Ip(ip.into())),
        Some(scope) => scope
            .parse()
            .map(|scope| Host::Scoped(ip, scope))
            .map_err(|_| {
                "the interface behind % has to be its number, as `ip link` shows it".to_owned()
            }),
    }
}

/// How an IPv6 address without brackets is to be written. Its last part may be the port.
fn ipv6_hint(text: &str) -> String {
    const RULE: &str = "an IPv6 address with a port stands in brackets";
    let is_ipv6 = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    match text.rsplit_once(':') {
        // `::8080` is not an address that anyone has.
        Some((":", port)) if port.len() > 1 && parse_port(port).is_ok() => {
            format!("{RULE}: write [::]:{port}, or :{port}")
        }
        Some((address, port)) if is_ipv6(address) && parse_port(port).is_ok() => {
            format!("{RULE}: write [{address}]:{port}")
        }
        _ if is_ipv6(text) => format!("{RULE}: write [{text}]:{PORT}"),
        _ => format!("it has more than one colon; {RULE}: [::1]:{PORT}"),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    match text.parse() {
        Ok(port) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(port),
        _ => Err("the port has to be a number from 0 to 65535; 0 takes any free one".to_owned()),
    }
}

/// Whether a text may be a host's name. One of digits and dots alone is a mistyped address.
fn is_name(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.trim_end_matches('.').split('.').all(is_label)
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let port = self.port;
        match &self.host {
            Host::Every => write!(f, ":{port}"),
            Host::Localhost => write!(f, "localhost:{port}"),
            Host::Ip(ip) => SocketAddr::new(*ip, port).fmt(f),
            Host::Scoped(ip, scope) => write!(f, "[{ip}%{scope}]:{port}"),
            Host::Name(name) => write!(f, "{name}:{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ListenAddress, String> {
        text.parse()
    }

    #[test]
    fn every_usual_spelling_is_taken() {
        for (text, sockets) in [
            ("127.0.0.1:8081", &["127.0.0.1:8081"][..]),
            (" 127.0.0.1:8081\n", &["127.0.0.1:8081"]),
            ("127.0.0.1:0", &["127.0.0.1:0"]),
            ("127.0.0.1", &["127.0.0.1:8080"]),
            ("0.0.0.0:80", &["0.0.0.0:80"]),
            (":8081", &["[::]:8081"]),
            ("*:8081", &["[::]:8081"]),
            ("[::]:8081", &["[::]:8081"]),
            ("[::1]:8081", &["[::1]:8081"]),
            ("[::1]", &["[::1]:8080"]),
            ("[fe80::1%2]:8081", &["[fe80::1%2]:8081"]),
            ("localhost:8081", &["127.0.0.1:8081", "[::1]:8081"]),
            ("LocalHost", &["127.0.0.1:8080", "[::1]:8080"]),
        ] {
            let address = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let resolved: Vec<_> = address.resolve().unwrap();
            let expected: Vec<SocketAddr> = sockets.iter().map(|s| s.parse().unwrap()).collect();
            assert_eq!(resolved, expected, "{text}");
            assert_eq!(parse(&address.to_string()), Ok(address), "{text}");
        }
        let named = parse("ingest.internal:8081").unwrap();
        assert_eq!(named.host, Host::Name("ingest.internal".to_owned()));
    }

    #[test]
    fn what_is_refused_says_how_it_is_written() {
        for (text, hint) in [
            ("::1:8080", "write [::1]:8080"),
            ("fd00::5:80", "write [fd00::5]:80"),
            ("::1", "write [::1]:8080"),
            ("fe80::1:2:3:abcd", "write [fe80::1:2:3:abcd]:8080"),
            ("::8080", "write [::]:8080, or :8080"),
            ("127.0.0.1:80:80", "more than one colon"),
            ("8080", "write :8080 for every address"),
            ("http://127.0.0.1:8080/", "write 127.0.0.1:8080"),
            ("unix:/run/ingest.sock", "Unix sockets"),
            ("127.0.0.1:65536", "from 0 to 65535"),
            ("127.0.0.1:+80", "from 0 to 65535"),
            ("127.0.0.1:", "from 0 to 65535"),
            ("127.0.0.1:http", "from 0 to 65535"),
            ("256.0.0.1:80", "names no host"),
            ("10.0.0:80", "names no host"),
            ("a b:80", "names no host"),
            ("[::1:80", "not closed"),
            ("[::1]80", "behind `]:`"),
            ("[127.0.0.1]:80", "an IPv6 address"),
            ("[fe80::1%eth0]:80", "its number"),
            ("", "is empty"),
        ] {
            let refusal = parse(text).unwrap_err();
            assert!(refusal.contains(hint), "{text}: {refusal}");
        }
    }
}
