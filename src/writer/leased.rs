//! A lane of a log that several processes read: it stores a stream while it has the lease of it.
//!
//! Each time it gets the lease it starts again: with another opening, which takes over the stream's
//! ledger row, and with the records behind the row's watermark. So nothing that it held before
//! reaches Postgres once another writer had the stream.

use tokio_util::sync::CancellationToken;

use super::gather::Records;
use super::lane::Writer;
use super::leases::Lease;

/// Stores the stream of `lease` whenever this process has it, until `stop` is cancelled.
///
/// `begin` opens the stream. The writer leaves it once the token is cancelled.
pub async fn run<L: Records>(
    mut lease: Lease,
    begin: impl Fn(CancellationToken) -> (Writer, L) + Send,
    stop: CancellationToken,
) {
    loop {
        let leave = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            leave = lease.held() => leave,
        };
        let (writer, records) = begin(leave.clone());
        let storing = writer.run(records);
        let stopping = async {
            stop.cancelled().await;
            leave.cancel();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            () = storing => {}
            () = stopping => {}
        }
        lease.give_back();
    }
}
