//! Checks the server: encoding, connections, poolers.

use std::time::Duration;

use super::facts::{self, Server};
use crate::finding::{Finding, Severity};
use crate::postgres::connect::Target;
use crate::postgres::error::Error;
use crate::postgres::session::Session;

/// How long a start waits for the database. After that the database counts as unreachable: events
/// are accepted, and the checks run once it answers.
const FIRST_CONTACT_MAX: Duration = Duration::from_secs(2);

/// The result of the first check.
#[derive(Clone, Debug, Default)]
pub struct FirstContact {
    /// A fault that cannot be fixed while the service runs: refuse to start.
    pub refusal: Option<Finding>,
    /// Findings that are only reported.
    pub notes: Vec<Finding>,
}

/// Checks the database before anything is accepted. The service needs this many `connections`. An
/// unreachable database is not a finding.
pub async fn first_contact(target: &Target, connections: u32) -> FirstContact {
    tokio::time::timeout(FIRST_CONTACT_MAX, look(target, connections))
        .await
        .unwrap_or_default()
}

async fn look(target: &Target, connections: u32) -> FirstContact {
    let mut found = FirstContact::default();
    // Two sessions, one after the other: the second one sees what the first left on a server
    // connection that a pooler does not reset.
    for _ in 0..2 {
        let session = match Session::open(target, None).await {
            Ok(session) => session,
            Err(Error::Unfit(refusal)) => {
                found.refusal = Some(refusal);
                return found;
            }
            Err(_) => return found,
        };
        if let Ok(facts) = facts::read(&session.client).await {
            found.refusal = encoding(&facts.server);
            found.notes = free_connections(&facts.server, connections)
                .into_iter()
                .collect();
        }
        if found.refusal.is_some() {
            return found;
        }
    }
    found
}

/// COPY gets text as UTF-8, and nothing converts it.
pub(crate) fn encoding(server: &Server) -> Option<Finding> {
    let Server {
        encoding, database, ..
    } = server;
    (encoding != "UTF8").then(|| {
        Finding::new(
            Severity::Fault,
            "encoding_not_utf8",
            format!("the database {database} has the encoding {encoding}, not UTF8"),
            "events are UTF-8 and can hold characters that it cannot store",
            "make a database WITH ENCODING 'UTF8' TEMPLATE template0 and move the data there",
        )
    })
}

/// A connection for which `sslmode=prefer` found no TLS.
pub(crate) fn clear_text(reason: &str) -> Finding {
    Finding::new(
        Severity::Note,
        "clear_text",
        format!("connections to PostgreSQL are not encrypted: {reason}"),
        "sslmode=prefer allows that, and whatever is between here and there can read along",
        "mend TLS at the server, or set sslmode=require, or sslmode=disable to say that it is meant",
    )
}

/// Compares the limits on connections with the number needed: too low even without other clients.
pub(crate) fn connections(server: &Server, needed: u32) -> Option<Finding> {
    limits(server).into_iter().find_map(|limit| {
        (limit.max < i64::from(needed)).then(|| {
            Finding::new(
                Severity::Degraded,
                "connections_too_few",
                format!("{} may have {} connections; the service needs {needed}", limit.holder, limit.max),
                "some writers, or what looks after keys and partitions, wait for a connection for ever",
                limit.raised_for(i64::from(needed)),
            )
        })
    })
}

/// The same with the connections of other clients now. They may close, so this is a note.
fn free_connections(server: &Server, needed: u32) -> Option<Finding> {
    limits(server).into_iter().find_map(|limit| {
        let Limit { max, used, .. } = limit;
        let is_short = max >= i64::from(needed) && max - used < i64::from(needed);
        is_short.then(|| {
            Finding::new(
                Severity::Note,
                "connections_scarce",
                format!("{} may have {max} connections and others used {used} at the start; the service needs {needed}", limit.holder),
                "some writers, or what looks after keys and partitions, wait until others leave",
                limit.raised_for(used.saturating_add(i64::from(needed))),
            )
        })
    })
}

/// A limit on connections that applies to the role.
struct Limit {
    max: i64,
    /// Without the session that asks.
    used: i64,
    holder: String,
    /// Connections that the limit counts and the role cannot have.
    reserved: i64,
    /// What raises it: the words before and after the number.
    remedy: [String; 2],
}

impl Limit {
    /// What is to be done for so many connections.
    fn raised_for(&self, connections: i64) -> String {
        let [before, after] = &self.remedy;
        let most = connections.saturating_add(self.reserved);
        format!("{before} {most}{after}, or lower --writers")
    }
}

fn limits(server: &Server) -> Vec<Limit> {
    let Server { role, database, .. } = server;
    // Reserved connections and the limits of role and database do not apply to a superuser.
    let reserved = match server.is_superuser {
        true => 0,
        false => server.connections_reserved,
    };
    let mut limits = vec![Limit {
        max: server.connections_max - reserved,
        used: server.connections_used,
        holder: "the server".to_owned(),
        reserved,
        remedy: [
            "raise max_connections to".to_owned(),
            " and start PostgreSQL again".to_owned(),
        ],
    }];
    if !server.is_superuser && server.role_connections_max >= 0 {
        limits.push(Limit {
            max: server.role_connections_max,
            used: server.role_connections_used,
            holder: format!("the role {role}"),
            reserved: 0,
            remedy: [format!("ALTER ROLE {role} CONNECTION LIMIT"), String::new()],
        });
    }
    if !server.is_superuser && server.database_connections_max >= 0 {
        limits.push(Limit {
            max: server.database_connections_max,
            used: server.database_connections_used,
            holder: format!("the database {database}"),
            reserved: 0,
            remedy: [
                format!("ALTER DATABASE {database} CONNECTION LIMIT"),
                String::new(),
            ],
        });
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_on_connections_is_told_with_the_number_that_it_has_to_be() {
        let server = Server {
            role: "r".to_owned(),
            database: "d".to_owned(),
            connections_max: 100,
            connections_reserved: 3,
            role_connections_max: -1,
            database_connections_max: -1,
            ..Server::default()
        };
        let told = |server: Server| connections(&server, 7).map(|finding| finding.remedy);
        assert_eq!(told(server.clone()), None);
        for (server, remedy) in [
            (
                Server {
                    role_connections_max: 3,
                    ..server.clone()
                },
                "ALTER ROLE r CONNECTION LIMIT 7, or lower --writers",
            ),
            (
                Server {
                    database_connections_max: 6,
                    ..server.clone()
                },
                "ALTER DATABASE d CONNECTION LIMIT 7, or lower --writers",
            ),
            (
                Server {
                    connections_max: 9,
                    ..server
                },
                "raise max_connections to 10 and start PostgreSQL again, or lower --writers",
            ),
        ] {
            assert_eq!(told(server).as_deref(), Some(remedy));
        }
    }
}
