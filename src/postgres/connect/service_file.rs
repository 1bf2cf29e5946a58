//! libpq's connection service files: named groups of parameters.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::environment::LibpqEnvironment;

/// Where systems keep the file that is for all users.
const SYSTEM_FOLDERS: [&str; 2] = ["/etc/postgresql-common", "/etc"];

/// Finds a service. Returns the file that has it, and its parameters.
///
/// `named` is a file that the connection string names.
pub(crate) fn find(
    service: &str,
    named: Option<&str>,
    environment: &LibpqEnvironment,
) -> Result<(PathBuf, Vec<(String, String)>)> {
    let own = named
        .or_else(|| environment.get("PGSERVICEFILE"))
        .map(PathBuf::from);
    let own = own.or_else(|| environment.in_home(".pg_service.conf"));
    let system = match environment.get("PGSYSCONFDIR") {
        Some(folder) => vec![folder],
        None => SYSTEM_FOLDERS.to_vec(),
    };
    let system = system
        .into_iter()
        .map(|folder| Path::new(folder).join("pg_service.conf"));
    let mut looked = Vec::new();
    for file in own.into_iter().chain(system) {
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) => {
                looked.push(format!("{} ({error})", file.display()));
                continue;
            }
        };
        match group(&text, service) {
            Ok(Some(pairs)) => return Ok((file, pairs)),
            Ok(None) => looked.push(file.display().to_string()),
            Err((line, why)) => bail!("line {line} of the service file {}: {why}", file.display()),
        }
    }
    bail!(
        "there is no service \"{service}\" in {}; add it, correct its name (service in the database URL, PGSERVICE), or name another file in PGSERVICEFILE",
        looked.join(", ")
    )
}

/// Names and values of parameters.
type Pairs = Vec<(String, String)>;

/// The parameters of a group, or the line that cannot be read.
pub(crate) fn group(text: &str, service: &str) -> Result<Option<Pairs>, (usize, &'static str)> {
    let mut found: Option<Pairs> = None;
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            let name = header.split_once(']').map(|(name, _)| name);
            found = (name == Some(service)).then(Vec::new);
            continue;
        }
        let Some(pairs) = &mut found else { continue };
        if line.starts_with("ldap") && line.contains("://") {
            return Err((
                i + 1,
                "parameters are not looked up in LDAP here; write them down",
            ));
        }
        let Some((name, value)) = line.split_once('=') else {
            return Err((i + 1, "a parameter has no `=`"));
        };
        pairs.push((name.trim_end().to_owned(), value.trim_start().to_owned()));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# services\n[other]\nhost=elsewhere\n\n[events]\nhost = db.test\n  port=6000\n# no\npassword=a=b c\n[last]\nldap://x/y\nbroken\n";

    #[test]
    fn a_service_is_the_lines_behind_its_name() {
        let pairs = group(FILE, "events").unwrap().unwrap();
        let expected = [("host", "db.test"), ("port", "6000"), ("password", "a=b c")];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(group(FILE, "event"), Ok(None));
        assert_eq!(group(FILE, "last").unwrap_err().0, 11);
        assert_eq!(
            group("[a]\nbroken", "a"),
            Err((2, "a parameter has no `=`"))
        );
    }
}
