//! Values of settings, and libpq's files.

use crate::config::address::ListenAddress;
use crate::config::parse;
use crate::http::connection::proxies::TrustedProxies;
use crate::http::flag;
use crate::postgres::connect::dsn;
use crate::postgres::connect::password::{Account, password};
use crate::postgres::connect::service_file;

pub(super) fn value_seeds() -> Vec<Vec<u8>> {
    [
        "true",
        " OFF ",
        "5ms",
        "1h30m",
        "1.5h",
        "90d",
        "64KiB",
        "8 MiB",
        "1e3",
        ":8080",
        "localhost:8080",
        "[::1]:80",
        "::1:8080",
        "10.0.0.0/8,fd00::/8,::1",
        "0.0.0.0/0",
        "https://shop.example,https://*.shop.example,null,*",
        "http://localhost:3000",
        "[fe80::1%eth0]:80",
        "18446744073709551615GiB",
        "9999999999999999999d",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// A value is taken as what it prints as, or refused with a short sentence.
pub(super) fn values(data: &[u8]) {
    let text = super::input::text(data);
    let short = |error: String| assert!(error.len() <= 6 * text.len() + 400, "{error}");
    assert!(flag::parse(text).is_none() || text.trim().len() <= 5);
    parse::boolean(text).map_err(short).ok();
    parse::size(text).map_err(short).ok();
    if let Ok(time) = parse::duration(text).map_err(short) {
        let again = humantime::format_duration(time).to_string();
        assert_eq!(parse::duration(&again), Ok(time), "{again}");
    }
    if let Ok(origins) = parse::origins(text).map_err(short) {
        let all: Vec<String> = origins.clone().into();
        assert_eq!(parse::origins(&all.join(",")), Ok(origins));
    }
    if let Ok(proxies) = text.parse::<TrustedProxies>().map_err(short) {
        assert_eq!(proxies.to_string().parse(), Ok(proxies));
    }
    if let Ok(address) = text.parse::<ListenAddress>().map_err(short) {
        let again: Result<ListenAddress, _> = address.to_string().parse();
        assert_eq!(
            again.map(|again| again.to_string()),
            Ok(address.to_string())
        );
    }
}

pub(super) fn dsn_seeds() -> Vec<Vec<u8>> {
    [
        "postgres://user:p%40ss@host:5432/db?sslmode=require&target_session_attrs=primary",
        "postgresql://[::1]:6000,other:/db",
        "host=/run/postgresql dbname='a b' password='it\\'s'",
        "[events]\nhost=db\nport=6000\n# no\n[other]\n",
        "localhost:5432:*:user:pass\\:word",
        "jdbc:postgresql://host/db",
        "\"postgres://host\"",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// libpq's texts are read, or refused without their values.
pub(super) fn dsn(data: &[u8]) {
    let text = super::input::text(data);
    if let Ok((_, pairs)) = dsn::split(text) {
        let bytes: usize = pairs
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(bytes <= 2 * text.len() + 100, "{pairs:?}");
    }
    // A password that no text of the parser's has.
    let secret = "Zq7Xw9";
    let told = dsn::split(&text.replace("pass", secret));
    if let Err(error) = told {
        assert!(
            !format!("{error:#}").contains(secret) || text.contains(secret),
            "{error:#}"
        );
    }
    drop(service_file::group(text, "events"));
    let account = Account {
        host: "localhost".to_owned(),
        port: 5432,
        database: "db".to_owned(),
        user: "user".to_owned(),
    };
    for line in text.lines() {
        let found = password(line, &account);
        assert!(found.is_none_or(|found| !found.is_empty() && found.len() < line.len()));
    }
}
