//! The UUID that Kafka gave a topic when it was made. The crate `rdkafka` has no call for it, the
//! library below has.

#![expect(unsafe_code, reason = "calls librdkafka, as its documentation says")]

use std::ffi::{CStr, CString};
use std::ptr;

use anyhow::{Context as _, Result, bail, ensure};
use rdkafka::ClientContext;
use rdkafka::bindings as rd;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaRespErr;
use uuid::Uuid;

/// Longest wait for the brokers, in milliseconds.
const LIMIT_MS: i32 = 10_000;

/// The UUID of a topic. Blocks.
///
/// # Errors
/// The brokers do not answer, or do not know the topic.
pub fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Uuid> {
    let name = CString::new(topic).context("a topic's name has no NUL")?;
    let mut names = [name.as_ptr()];
    // SAFETY: the client outlives the call. The collection copies the names. Queue, collection and
    // event are destroyed once each, after their last use; what is read of the event is owned by it.
    unsafe {
        let client = client.native_ptr();
        let topics = rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let queue = rd::rd_kafka_queue_new(client);
        rd::rd_kafka_DescribeTopics(client, topics, ptr::null(), queue);
        let event = rd::rd_kafka_queue_poll(queue, LIMIT_MS);
        rd::rd_kafka_TopicCollection_destroy(topics);
        let found = match event.is_null() {
            true => Err(anyhow::anyhow!("the brokers did not answer within 10 s")),
            false => read(event),
        };
        if !event.is_null() {
            rd::rd_kafka_event_destroy(event);
        }
        rd::rd_kafka_queue_destroy(queue);
        found.with_context(|| format!("cannot ask Kafka for the id of the topic {topic}"))
    }
}

/// # Safety
/// `event` is one that a queue returned and that was not destroyed.
unsafe fn read(event: *mut rd::rd_kafka_event_t) -> Result<Uuid> {
    // SAFETY: as the caller says; each pointer is checked before it is followed, and belongs to the
    // event.
    unsafe {
        let code = rd::rd_kafka_event_error(event);
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            bail!("{}", text(rd::rd_kafka_err2str(code)));
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event);
        ensure!(!result.is_null(), "the answer is about something else");
        let mut count = 0;
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        ensure!(
            !topics.is_null() && count == 1,
            "the answer has {count} topics"
        );
        let topic = *topics;
        let error = rd::rd_kafka_TopicDescription_error(topic);
        let code = match error.is_null() {
            true => RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
            false => rd::rd_kafka_error_code(error),
        };
        if code != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            bail!("{}", text(rd::rd_kafka_err2str(code)));
        }
        let id = rd::rd_kafka_TopicDescription_topic_id(topic);
        ensure!(
            !id.is_null(),
            "the brokers give topics no ids: they are older than Kafka 2.8"
        );
        let high = rd::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
        let low = rd::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
        let id = Uuid::from_u64_pair(high, low);
        ensure!(
            !id.is_nil(),
            "the brokers give topics no ids: they are older than Kafka 2.8"
        );
        Ok(id)
    }
}

/// # Safety
/// `text` is a static string of the library.
unsafe fn text(text: *const std::ffi::c_char) -> String {
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
