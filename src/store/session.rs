//! A connection that drives itself for as long as someone holds it.

use std::time::Duration;

use tokio::task::AbortHandle;
use tokio_postgres::Client;

use super::checks::pooler;
use super::connect::{Connection, Reused, Target, prepare_session};
use super::error::Trouble;

/// An open connection, set up for our statements; dropping it closes it.
#[derive(Debug)]
pub struct Session {
    /// What statements are sent with.
    pub client: Client,
    /// Why there is no TLS, where it was preferred.
    pub(super) clear_text: Option<String>,
    driver: AbortHandle,
}

impl Session {
    /// Connects, within the target's limit.
    pub async fn open(
        target: &Target,
        statement_timeout: Option<Duration>,
    ) -> Result<Self, Trouble> {
        let Connection {
            client,
            driver,
            clear_text,
        } = target.connect().await?;
        #[expect(
            clippy::disallowed_methods,
            reason = "the one task outside the service's set: it ends with the session that holds it"
        )]
        let driver = tokio::spawn(async move {
            // Whatever ends the connection is also the result of the statement
            // that was waiting, where it is handled.
            drop(driver.await);
        })
        .abort_handle();
        let session = Self {
            client,
            clear_text,
            driver,
        };
        prepare_session(&session.client, statement_timeout)
            .await
            .map_err(|error| match error.is::<Reused>() {
                true => Trouble::Unfit(pooler()),
                false => Trouble::Session(error),
            })?;
        Ok(session)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
