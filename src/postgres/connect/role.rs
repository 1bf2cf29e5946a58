//! libpq's `target_session_attrs`: which of several servers will do.
//!
//! The service writes, so only words that a server which takes writes can satisfy are taken.

use anyhow::{Result, bail};
use tokio_postgres::SimpleQueryMessage;

use super::connection::Connection;
use super::endpoint::Endpoint;
use super::error::ConnectError;
use super::parameters::Parameters;

/// What a server has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerRole {
    Any,
    /// Not a standby.
    Primary,
    /// Not a standby, and its sessions may write.
    ReadWrite,
}

impl ServerRole {
    pub(crate) fn of(parameters: &Parameters) -> Result<Self> {
        const NAME: &str = "target_session_attrs";
        let reading = [
            ("read-only", None),
            ("standby", None),
            ("prefer-standby", None),
        ];
        let writing = [
            ("any", Some(Self::Any)),
            ("primary", Some(Self::Primary)),
            ("read-write", Some(Self::ReadWrite)),
        ];
        match parameters.choice(NAME, &[writing, reading].concat())? {
            None => Ok(Self::Any),
            Some(Some(role)) => Ok(role),
            Some(None) => bail!(parameters.refusal(
                NAME,
                "events are written, and a standby takes no writes; use primary or read-write",
            )),
        }
    }

    /// Passes a connection on if its server will do.
    pub(crate) async fn check(
        self,
        endpoint: &Endpoint,
        connection: Connection,
    ) -> Result<Connection, ConnectError> {
        if self == Self::Any {
            return Ok(connection);
        }
        let refusal = |reason: &str| {
            ConnectError::away(
                &endpoint.place,
                reason,
                "name the server that takes writes, or wait until this one is promoted",
            )
        };
        let Connection {
            client,
            mut driver,
            clear_text,
        } = connection;
        let question = "SELECT pg_catalog.pg_is_in_recovery(), \
                        pg_catalog.current_setting('transaction_read_only')";
        let answer = tokio::select! {
            answer = client.simple_query(question) => answer,
            // The connection ended; the client says how.
            _ = &mut driver => return Err(refusal("the server closed the connection")),
        };
        let rows = answer.map_err(|error| refusal(&format!("cannot ask for its role: {error}")))?;
        let row = rows.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some((row.get(0), row.get(1))),
            _ => None,
        });
        match (row, self) {
            (Some((Some("t"), _)), _) => Err(refusal(
                "the server is a standby, and target_session_attrs asks for one that takes writes",
            )),
            (Some((_, Some("on"))), Self::ReadWrite) => Err(refusal(
                "sessions of the server are read-only (default_transaction_read_only), and target_session_attrs=read-write",
            )),
            _ => Ok(Connection {
                client,
                driver,
                clear_text,
            }),
        }
    }
}
