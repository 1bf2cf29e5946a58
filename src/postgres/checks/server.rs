//! The server and what stands before it: encoding, connections, poolers.

use std::time::Duration;

use super::facts::{self, Server};
use crate::finding::{Finding, Severity};
use crate::postgres::connect::Target;
use crate::postgres::error::Error;
use crate::postgres::session::Session;

/// Longest wait of a start for the database. One that takes longer counts as
/// away: events are taken all the same, and the checks run once it is there.
const FIRST_CONTACT_MAX: Duration = Duration::from_secs(2);

/// What a first look at the database found.
#[derive(Clone, Debug, Default)]
pub struct FirstContact {
    /// What no operator mends under a running service: a start makes no sense.
    pub refusal: Option<Finding>,
    /// What is worth knowing.
    pub notes: Vec<Finding>,
}

/// Looks at the database before anything is accepted; the service is going to
/// need as many `connections`. A database that is away is no finding.
pub async fn first_contact(target: &Target, connections: u32) -> FirstContact {
    tokio::time::timeout(FIRST_CONTACT_MAX, look(target, connections))
        .await
        .unwrap_or_default()
}

async fn look(target: &Target, connections: u32) -> FirstContact {
    let mut found = FirstContact::default();
    // Two sessions, one after the other: what the first leaves on its server
    // connection shows in the second one where a pooler does not clean up.
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

/// Text goes into COPY as UTF-8, and nothing converts it.
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

/// The connections that may be open at once, against those that are needed: too
/// few even if there were no others.
pub(crate) fn connections(server: &Server, needed: u32) -> Option<Finding> {
    limits(server).into_iter().find_map(|limit| {
        (limit.max < i64::from(needed)).then(|| {
            Finding::new(
                Severity::Degraded,
                "connections_too_few",
                format!("{} may have {} connections; the service needs {needed}", limit.holder, limit.max),
                "some writers, or what looks after keys and partitions, wait for a connection for ever",
                format!("{}, or lower --writers", limit.remedy),
            )
        })
    })
}

/// The same with what others use now. Some may leave, so it is a note.
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
                format!("{}, or lower --writers", limit.remedy),
            )
        })
    })
}

/// A limit on connections that applies to us.
struct Limit {
    max: i64,
    /// Without the one that asks.
    used: i64,
    holder: String,
    remedy: String,
}

fn limits(server: &Server) -> Vec<Limit> {
    let Server { role, database, .. } = server;
    // A superuser is not held to reserves, nor to the limits of role and database.
    let reserved = match server.is_superuser {
        true => 0,
        false => server.connections_reserved,
    };
    let mut limits = vec![Limit {
        max: server.connections_max - reserved,
        used: server.connections_used,
        holder: "the server".to_owned(),
        remedy: "raise max_connections".to_owned(),
    }];
    if !server.is_superuser && server.role_connections_max >= 0 {
        limits.push(Limit {
            max: server.role_connections_max,
            used: server.role_connections_used,
            holder: format!("the role {role}"),
            remedy: format!("raise it with ALTER ROLE {role} CONNECTION LIMIT"),
        });
    }
    if !server.is_superuser && server.database_connections_max >= 0 {
        limits.push(Limit {
            max: server.database_connections_max,
            used: server.database_connections_used,
            holder: format!("the database {database}"),
            remedy: format!("raise it with ALTER DATABASE {database} CONNECTION LIMIT"),
        });
    }
    limits
}
