//! Listening sockets, from the addresses of a setting.
//!
//! A failure names the setting, the address, and what to do.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Result, anyhow};
use rustix::io::Errno;
use rustix::net::sockopt::set_ipv6_v6only;
use tokio::net::{TcpListener, TcpSocket};

use crate::config::address::ListenAddress;

/// Connections that may wait to be accepted; the kernel's own limit is usually the same. With mio's
/// 128, a burst of clients is dropped, and each tries again after a second.
const BACKLOG: u32 = 4096;

/// The setting of the addresses for events, as messages name it.
pub(crate) const LISTEN: &str = "--listen, INGEST_LISTEN";

/// Binds sockets to all addresses of `setting`, which messages name.
///
/// # Errors
/// If a name cannot be resolved, or an address cannot be listened on.
pub(crate) fn bind(setting: &str, addresses: &[ListenAddress]) -> Result<Vec<TcpListener>> {
    let mut wanted: Vec<(&ListenAddress, SocketAddr)> = Vec::new();
    for address in addresses {
        let resolved = address.resolve().map_err(|error| {
            anyhow!("cannot listen on {address} ({setting}): the name is not known here ({error}); check it, or write an IP address")
        })?;
        wanted.extend(resolved.into_iter().map(|socket| (address, socket)));
    }
    let sockets: Vec<SocketAddr> = wanted.iter().map(|(_, socket)| *socket).collect();
    let mut listeners = Vec::new();
    for (i, (address, mut socket)) in wanted.into_iter().enumerate() {
        if sockets[..i].contains(&socket) && socket.port() != 0
            || sockets.iter().any(|other| covers(*other, socket))
        {
            continue;
        }
        let siblings = listeners.iter().filter(|(of, _)| *of == address);
        let sibling = siblings
            .map(|(_, listener): &(_, TcpListener)| listener)
            .next();
        if let (0, Some(sibling)) = (socket.port(), sibling) {
            // One port for all sockets of `localhost:0`.
            socket.set_port(sibling.local_addr()?.port());
        }
        let is_beside_ipv4 = sockets.contains(&every_ipv4(socket.port())) && socket.port() != 0;
        match listen(socket, is_beside_ipv4) {
            Ok(listener) => listeners.push((address, listener)),
            Err(error)
                if is_absent(&error) && address.takes_what_there_is() && sibling.is_some() => {}
            Err(error) if is_absent(&error) && address.is_every() => {
                let socket = every_ipv4(socket.port());
                let listener = listen(socket, false)
                    .map_err(|error| failure(setting, address, socket, &error))?;
                listeners.push((address, listener));
            }
            Err(error) => return Err(failure(setting, address, socket, &error)),
        }
    }
    Ok(listeners
        .into_iter()
        .map(|(_, listener)| listener)
        .collect())
}

/// The sockets' addresses, with commas between.
pub(crate) fn addresses(listeners: &[TcpListener]) -> io::Result<String> {
    let addresses: io::Result<Vec<String>> = listeners
        .iter()
        .map(|listener| Ok(listener.local_addr()?.to_string()))
        .collect();
    Ok(addresses?.join(", "))
}

fn listen(address: SocketAddr, only_ipv6: bool) -> io::Result<TcpListener> {
    let socket = match address.is_ipv4() {
        true => TcpSocket::new_v4()?,
        false => TcpSocket::new_v6()?,
    };
    // Without it, a start right after a stop finds the address in use.
    socket.set_reuseaddr(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // Not left to the machine's default.
        set_ipv6_v6only(&socket, only_ipv6)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn every_ipv4(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)
}

/// Whether a socket on `other` takes the connections to `address` as well.
fn covers(other: SocketAddr, address: SocketAddr) -> bool {
    let has_same_port = other.port() == address.port() && address.port() != 0;
    let is_wider = other.ip().is_unspecified() && !address.ip().is_unspecified();
    has_same_port && is_wider && (other.is_ipv6() || address.is_ipv4())
}

/// Whether this machine does not have an address.
fn is_absent(error: &io::Error) -> bool {
    matches!(
        Errno::from_io_error(error),
        Some(Errno::ADDRNOTAVAIL | Errno::AFNOSUPPORT)
    )
}

fn failure(
    setting: &str,
    address: &ListenAddress,
    socket: SocketAddr,
    error: &io::Error,
) -> anyhow::Error {
    let (shown, socket_shown) = (address.to_string(), socket.to_string());
    let place = match shown == socket_shown {
        true => shown,
        false => format!("{shown}, as {socket_shown}"),
    };
    let port = socket.port();
    let why = match Errno::from_io_error(error) {
        Some(Errno::ADDRINUSE) => {
            "another program listens there; stop it (`ss -ltnp` names it), or choose another port"
                .to_owned()
        }
        Some(Errno::ACCESS) => format!(
            "port {port} needs a privilege; choose 1024 or above, or let the program have CAP_NET_BIND_SERVICE"
        ),
        Some(Errno::ADDRNOTAVAIL) => format!(
            "this machine has no such address; choose one that `ip address` lists, or :{port} for all of them"
        ),
        Some(Errno::AFNOSUPPORT) => "this machine has no IPv6; choose an IPv4 address".to_owned(),
        _ => format!("{error}; choose another address"),
    };
    anyhow!("cannot listen on {place} ({setting}): {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(texts: &[&str]) -> Vec<ListenAddress> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn ips(listeners: &[TcpListener]) -> Vec<String> {
        let ip = |listener: &TcpListener| listener.local_addr().unwrap().ip().to_string();
        listeners.iter().map(ip).collect()
    }

    #[tokio::test]
    async fn several_addresses_are_bound_and_those_that_are_covered_are_not() {
        let free = bind(LISTEN, &parsed(&["127.0.0.1:0"])).unwrap();
        let port = free[0].local_addr().unwrap().port();
        drop(free);
        let at = |host: &str| format!("{host}:{port}");
        let v4 = [at("127.0.0.1"), at("127.0.0.2"), at("127.0.0.1")];
        let bound = bind(LISTEN, &parsed(&v4.each_ref().map(|text| text.as_str()))).unwrap();
        assert_eq!(ips(&bound), ["127.0.0.1", "127.0.0.2"]);
        drop(bound);
        let local = bind(LISTEN, &parsed(&["localhost:0"])).unwrap();
        assert_eq!(ips(&local)[0], "127.0.0.1");
        let ports: Vec<_> = local
            .iter()
            .map(|l| l.local_addr().unwrap().port())
            .collect();
        assert!(ports.iter().all(|port| *port == ports[0]), "{ports:?}");
        let covers =
            |wide: &str, narrow: &str| covers(wide.parse().unwrap(), narrow.parse().unwrap());
        assert!(covers("[::]:80", "127.0.0.1:80"));
        assert!(covers("0.0.0.0:80", "127.0.0.1:80"));
        assert!(!covers("0.0.0.0:80", "[::1]:80"));
        assert!(!covers("[::]:80", "0.0.0.0:80"));
        assert!(!covers("[::]:81", "127.0.0.1:80"));
    }

    #[tokio::test]
    async fn a_failure_names_setting_address_and_remedy() {
        let taken = bind(LISTEN, &parsed(&["127.0.0.1:0"])).unwrap();
        let port = taken[0].local_addr().unwrap().port();
        for (text, why) in [
            (format!("127.0.0.1:{port}"), "another program listens there"),
            ("192.0.2.1:0".to_owned(), "this machine has no such address"),
            (
                "no-such-host.invalid:80".to_owned(),
                "the name is not known here",
            ),
        ] {
            let error = bind(LISTEN, &parsed(&[&text])).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{text} ({LISTEN}): {why}")),
                "{error}"
            );
        }
        let address = "127.0.0.1:80".parse().unwrap();
        let socket = "127.0.0.1:80".parse().unwrap();
        for (errno, why) in [
            (
                Errno::ACCESS,
                "port 80 needs a privilege; choose 1024 or above",
            ),
            (Errno::AFNOSUPPORT, "has no IPv6"),
        ] {
            let error = failure(LISTEN, &address, socket, &errno.into()).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
