//! Networks of trusted proxies, and the address that a connection counts for.
//!
//! Strict: a network with bits beyond its prefix is refused as a typing error.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Proxies: each connection from them carries the requests of many clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<Network>);

/// An address with a prefix length, as in `10.0.0.0/8`. A single address has the longest prefix.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u8,
}

impl TrustedProxies {
    /// Whether an address is in one of the networks.
    pub fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    /// Parses networks separated by commas. A blank text is no network.
    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let networks = text.split(',').map(|part| part.trim().parse());
        networks.collect::<Result<_, _>>().map(Self)
    }
}

impl fmt::Display for TrustedProxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, network) in self.0.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(f, "{comma}{network:?}")?;
        }
        Ok(())
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4()
            && masked(address, self.prefix) == masked(self.address, self.prefix)
    }
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            format!(
                "'{text}' is neither an IP address nor a network such as 10.0.0.0/8 or fd00::/8; names are not looked up"
            )
        })?;
        if address != address.to_canonical() {
            return Err(format!(
                "'{text}' is an IPv4 address in IPv6's form; write it as an IPv4 address"
            ));
        }
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => longest,
            Some(digits) => digits
                .parse::<u8>()
                .ok()
                .filter(|prefix| *prefix <= longest && digits.bytes().all(|b| b.is_ascii_digit()))
                .ok_or_else(|| {
                    format!("the prefix of '{text}' is not a number from 0 to {longest}")
                })?,
        };
        if prefix == 0 {
            return Err(format!(
                "'{text}' is every address there is; name the proxies' networks"
            ));
        }
        let network = Self {
            address: masked(address, prefix),
            prefix,
        };
        if network.address != address {
            return Err(format!(
                "'{text}' has bits beyond its prefix; write {network:?} for the network or {address} for the one address"
            ));
        }
        Ok(network)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// The address that counts as one client: for IPv6 its /64, the least that a household or a machine
/// is given.
pub(crate) fn client(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        address @ IpAddr::V4(_) => address,
        address @ IpAddr::V6(_) => masked(address, 64),
    }
}

fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(address.to_bits() & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & mask))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<TrustedProxies, String> {
        text.parse()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn networks_and_single_addresses_hold_what_they_say() {
        let proxies = parse("10.0.0.0/8, 192.168.1.5,fd00::/8,2001:db8::1").unwrap();
        for inside in [
            "10.255.0.1", "192.168.1.5", "fdff::1", "2001:db8::1", "::ffff:10.1.2.3",
        ] {
            assert!(proxies.contain(ip(inside)), "{inside}");
        }
        for outside in [
            "11.0.0.1", "192.168.1.4", "fe00::1", "2001:db8::2", "::a00:1",
        ] {
            assert!(!proxies.contain(ip(outside)), "{outside}");
        }
        assert_eq!(
            proxies.to_string(),
            "10.0.0.0/8,192.168.1.5/32,fd00::/8,2001:db8::1/128"
        );
        assert!(!parse(" ").unwrap().contain(ip("127.0.0.1")));
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_sentence() {
        for (text, words) in [
            ("proxy.example", "neither an IP address nor a network"),
            ("10.0.0.0/8,", "neither an IP address nor a network"),
            ("10.0.0", "neither an IP address nor a network"),
            ("10.0.0.1/8", "write 10.0.0.0/8 for the network or 10.0.0.1"),
            ("fd00::1/64", "write fd00::/64 for the network"),
            ("10.0.0.0/33", "from 0 to 32"),
            ("fd00::/129", "from 0 to 128"),
            ("10.0.0.0/+8", "from 0 to 32"),
            ("10.0.0.0/", "from 0 to 32"),
            ("0.0.0.0/0", "every address there is"),
            ("::ffff:10.0.0.1", "write it as an IPv4 address"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_a_64_of_ipv6() {
        assert_eq!(client(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
        assert_eq!(
            client(ip("2001:db8:1:2:3::4")),
            client(ip("2001:db8:1:2:ffff::1"))
        );
        assert_ne!(client(ip("2001:db8:1:2::1")), client(ip("2001:db8:1:3::1")));
    }
}
