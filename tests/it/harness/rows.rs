//! Rows as PostgreSQL returns them: text, and jsonb as JSON.

use serde_json::{Map, Value};
use tokio_postgres::SimpleQueryMessage;

use super::database::Database;

/// The columns of a row; each value is PostgreSQL's text, except jsonb.
pub type Row = Map<String, Value>;

/// The columns of type jsonb.
const JSON: [&str; 4] = ["request", "response", "context", "meta"];

/// All rows of a table by time and id, without `received_at`, which has to be close to now.
pub async fn rows(database: &Database, table: &str) -> Vec<Row> {
    let all = rows_as_text(
        database,
        &format!(
            "SELECT *, abs(extract(epoch FROM now() - received_at)) < 60 AS received_now
               FROM {table} ORDER BY occurred_at, event_id"
        ),
    )
    .await;
    let typed = |mut row: Row| {
        assert_eq!(row.remove("received_now"), Some("t".into()), "{row:?}");
        drop(row.remove("received_at"));
        for name in JSON {
            if let Some(Value::String(text)) = row.get(name) {
                let value = serde_json::from_str(text).unwrap();
                row.insert(name.to_owned(), value);
            }
        }
        row
    };
    all.into_iter().map(typed).collect()
}

/// The result of `sql`, all of it as text.
pub async fn rows_as_text(database: &Database, sql: &str) -> Vec<Row> {
    let client = database.connect().await;
    let messages = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let text = |message| match message {
        SimpleQueryMessage::Row(row) => Some(
            row.columns()
                .iter()
                .enumerate()
                .map(|(at, column)| (column.name().to_owned(), row.get(at).into()))
                .collect(),
        ),
        _ => None,
    };
    messages.into_iter().filter_map(text).collect()
}
