//! Promise: a row that PostgreSQL refuses affects no other row.

use crate::harness::{Database, Mix, POISON, Plan, Rig};

/// Makes the table refuse poisoned rows.
pub async fn refuse_poison(database: &Database) {
    database
        .execute(&format!(
            "ALTER TABLE interaction_events ADD CONSTRAINT no_poison CHECK (position <> {POISON})"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_poisoned_rows_are_set_aside() {
    let rig = Rig::start(|settings| settings).await;
    refuse_poison(&rig.database).await;
    let plan = Plan {
        ack: "committed",
        mix: Mix::Poisoned { every: 1000 },
        bodies: 200,
        ..Plan::default()
    };
    let sent = rig.traffic(plan).finish();
    let audit = rig.assert_kept(&[&sent]).await;
    assert_eq!(audit.acknowledged, 20_000);
    // What the senders were told, event by event.
    assert_eq!(sent.tally.settled, (19_980, 0, 20));
    assert_eq!(rig.database.count("ingest_quarantine").await, 20);
    assert_eq!(rig.rows().await, [20_000, 19_980, 0, 20, 0]);
}
