//! Which partition, and what is said of it when it cannot be read on.

use anyhow::{Result, bail};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use recsys_ingest::log::read::LogAway;
use tracing::error;
use uuid::Uuid;

/// Which partition.
#[derive(Clone, Debug)]
pub struct Place {
    /// The topic's own id.
    pub id: Uuid,
    pub topic: String,
    pub partition: u16,
}

impl Place {
    /// Refuses to read on where records are missing.
    pub fn check(&self, next: i64, begin: i64) -> Result<()> {
        let Self {
            id,
            topic,
            partition,
        } = self;
        if next < begin {
            bail!(
                "partition {partition} of the topic {topic} begins at offset {begin}, and the ledger has it \
                 stored up to {next}: the topic's retention removed {} messages that were never stored. \
                 To go on with what is left, UPDATE ingest_ledger SET settled = {begin} WHERE \
                 instance_id = '{id}' AND stream = {partition} and restart this writer",
                begin - next
            );
        }
        Ok(())
    }

    /// What failed; as [`LogAway`] unless an operator has to act.
    pub fn failed(&self, error: KafkaError) -> anyhow::Error {
        let Place {
            topic, partition, ..
        } = self;
        let is_fault = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::TopicAuthorizationFailed
                    | RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SaslAuthenticationFailed
            )
        );
        let error = anyhow::Error::new(error);
        let error = match is_fault {
            true => error,
            false => error.context(LogAway),
        };
        error.context(format!(
            "cannot read partition {partition} of the topic {topic}"
        ))
    }

    /// Says that the partition lost records: it was read up to `next`, and ends at `end`.
    pub fn say_cut(&self, next: u64, end: i64) {
        let Place {
            topic, partition, ..
        } = self;
        error!(
            topic,
            partition,
            read_up_to = next,
            end,
            "partition {partition} of the topic {topic} lost records: it was read up to offset {next}, and ends \
             at {end} now, by an unclean election of a leader or a restore. What was read of them is stored; \
             others that were acknowledged are lost. Other events get the same offsets, so the partition is \
             read from its beginning: those that are stored already count as duplicates"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_retention_removed_is_a_fault_that_names_its_cause() {
        let place = Place {
            id: Uuid::from_u128(5),
            topic: "t.exposures".to_owned(),
            partition: 3,
        };
        for (next, begin) in [(0, 0), (5, 0), (5, 5)] {
            assert!(place.check(next, begin).is_ok(), "{next} from {begin}");
        }
        let error = place.check(4, 6).expect_err("a gap").to_string();
        let remedy = format!(
            "SET settled = 6 WHERE instance_id = '{}' AND stream = 3",
            place.id
        );
        assert!(error.contains("retention removed 2 "), "{error}");
        assert!(error.contains(&remedy), "{error}");
    }
}
