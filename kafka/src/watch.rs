//! Tasks that run as long as the log: what the consumer tells, where partitions end, and whether brokers
//! that were away are back.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::consumer::{Consumer as _, StreamConsumer};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tracing::debug;

use crate::acks::Unacked;
use crate::client::{Brokers, Context};
use crate::place::Place;

/// While the brokers are away, they are asked this often whether they are back.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How often to look where partitions end.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Longest wait for their answer.
const ASK_LIMIT: Duration = Duration::from_secs(2);

/// Serves what the library tells of all partitions. Messages come by the partitions' own queues; one
/// that was fetched before its queue was there is read again.
pub async fn serve_events(consumer: Arc<StreamConsumer<Context>>) {
    loop {
        if let Err(error) = consumer.recv().await {
            debug!(%error, "librdkafka: the consumer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Looks where the partitions that are read here end, for the count of records that are not stored.
pub async fn look_at_ends(client: Arc<StreamConsumer<Context>>, lanes: Vec<(Place, Arc<Unacked>)>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let read = lanes.iter().filter(|(_, lane)| lane.is_read());
        for (
            Place {
                topic, partition, ..
            },
            lane,
        ) in read
        {
            let (client, topic, number) =
                (Arc::clone(&client), topic.clone(), i32::from(*partition));
            let asked = tokio::task::spawn_blocking(move || {
                client.fetch_watermarks(&topic, number, ASK_LIMIT)
            });
            if let Ok(Ok((_, end))) = asked.await {
                lane.ends_at(end);
            }
        }
    }
}

/// Asks the brokers whether they are back while they are away: nothing is sent then that would tell.
///
/// Only an acknowledgement tells. Brokers that answer may still have too few replicas in sync. The
/// message goes to the replies, whose readers pass over one that is no reply.
pub async fn ask_while_away(
    brokers: Brokers,
    producer: FutureProducer<Context>,
    (topic, partition): (String, i32),
) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        if !brokers.are_away() {
            continue;
        }
        let message = FutureRecord::<(), [u8]>::to(&topic)
            .partition(partition)
            .payload(&[]);
        match producer.send(message, Duration::ZERO).await {
            Ok(_) => brokers.come_back(),
            Err((error, _)) => debug!(%error, "Kafka has not acknowledged a message yet"),
        }
    }
}
