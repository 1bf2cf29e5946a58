//! Facts from the catalog, read in one round trip.
//!
//! Does not judge them.

use tokio_postgres::{Client, Error, SimpleQueryMessage, SimpleQueryRow};

/// One simple query, so that its three results cost one round trip and nothing is prepared: behind
/// a transaction pooler a prepared statement may be gone before it runs.
const FACTS: &str = "
SELECT current_setting('server_encoding') AS encoding,
       quote_ident(session_user::text) AS role,
       quote_ident(current_database()::text) AS database,
       r.rolsuper AS is_superuser,
       current_setting('max_connections') AS connections_max,
       current_setting('superuser_reserved_connections')::int
           + coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int
           AS connections_reserved,
       r.rolconnlimit AS role_connections_max,
       d.datconnlimit AS database_connections_max,
       used.in_all AS connections_used,
       used.of_role AS role_connections_used,
       used.of_database AS database_connections_used
  FROM pg_roles AS r, pg_database AS d,
       (SELECT count(*) AS in_all,
               count(*) FILTER (WHERE usename = session_user) AS of_role,
               count(*) FILTER (WHERE datname = current_database()) AS of_database
          FROM pg_stat_activity
         WHERE pid <> pg_backend_pid() AND datid IS NOT NULL AND usesysid IS NOT NULL) AS used
 WHERE r.rolname = session_user AND d.datname = current_database();

SELECT wanted.name,
       n.nspname AS schema,
       c.relkind AS kind,
       pg_get_partkeydef(c.oid) AS partition_key,
       quote_ident(pg_get_userbyid(c.relowner)::text) AS owner,
       pg_has_role(c.relowner, 'USAGE') AS is_owner,
       has_schema_privilege(c.relnamespace, 'CREATE') AS may_create,
       row_security_active(c.oid) AS has_row_security,
       has_table_privilege(c.oid, 'SELECT') AS may_select,
       has_table_privilege(c.oid, 'INSERT') AS may_insert,
       has_table_privilege(c.oid, 'UPDATE') AS may_update,
       has_table_privilege(c.oid, 'DELETE') AS may_delete,
       EXISTS (SELECT FROM pg_index AS i
                WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid
                  AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indnkeyatts = 3
                  AND (SELECT array_agg(a.attname::text ORDER BY a.attname::text)
                         FROM pg_attribute AS a
                        WHERE a.attrelid = c.oid
                          AND a.attnum IN (i.indkey[0], i.indkey[1], i.indkey[2]))
                      = ARRAY['event_id', 'occurred_at', 'tenant_id']) AS has_key,
       (SELECT string_agg(x.relname, ', ' ORDER BY x.relname)
          FROM pg_index AS i JOIN pg_class AS x ON x.oid = i.indexrelid
         WHERE i.indrelid = c.oid AND c.relkind = 'p' AND NOT i.indisunique) AS further_indexes,
       (SELECT d.relname FROM pg_partitioned_table AS p JOIN pg_class AS d ON d.oid = p.partdefid
         WHERE p.partrelid = c.oid) AS default_partition,
       (SELECT string_agg(quote_ident(e.nspname), ', ')
          FROM pg_class AS o JOIN pg_namespace AS e ON e.oid = o.relnamespace
         WHERE o.relname = wanted.name AND c.oid IS NULL
           AND has_schema_privilege(e.oid, 'USAGE')) AS usable_schemas,
       (SELECT string_agg(quote_ident(e.nspname), ', ')
          FROM pg_class AS o JOIN pg_namespace AS e ON e.oid = o.relnamespace
         WHERE o.relname = wanted.name AND c.oid IS NULL
           AND NOT has_schema_privilege(e.oid, 'USAGE')) AS closed_schemas
  FROM (VALUES ('exposure_events'), ('interaction_events'), ('ingest_assignments'),
               ('ingest_ledger'), ('ingest_holders'),
               ('ingest_changed_days'), ('ingest_retention'),
               ('ingest_erased_subjects'), ('ingest_removed_rows'),
               ('ingest_quarantine'), ('ingest_partition_log'), ('tenants'),
               ('tenant_api_keys'), ('ingest_publish_keys'), ('ingest_key_settings'),
               ('ingest_tenant_settings')) AS wanted(name)
  LEFT JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
  LEFT JOIN pg_namespace AS n ON n.oid = c.relnamespace;

SELECT wanted.name AS table_name,
       a.attname AS name,
       format_type(a.atttypid, a.atttypmod) AS type,
       base.typname AS base,
       base.typcategory AS category,
       CASE WHEN a.atttypmod >= 0 THEN a.atttypmod ELSE base.modifier END AS modifier,
       a.attnotnull AS is_not_null,
       a.atthasdef OR a.attidentity <> '' AS has_default,
       a.attgenerated <> '' AS is_generated,
       has_column_privilege(c.oid, a.attnum, 'INSERT') AS may_insert,
       has_column_privilege(c.oid, a.attnum, 'SELECT') AS may_select,
       (SELECT string_agg(enumlabel, ',') FROM pg_enum WHERE enumtypid = base.oid) AS labels
  FROM (VALUES ('exposure_events'), ('interaction_events'), ('ingest_assignments')) AS wanted(name)
  JOIN pg_class AS c ON c.oid = to_regclass(wanted.name)
  JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 CROSS JOIN LATERAL (
       WITH RECURSIVE step AS (
            SELECT t.oid, t.typname, t.typcategory, t.typbasetype, t.typtypmod AS modifier
              FROM pg_type AS t WHERE t.oid = a.atttypid
             UNION ALL
            SELECT t.oid, t.typname, t.typcategory, t.typbasetype,
                   CASE WHEN step.modifier >= 0 THEN step.modifier ELSE t.typtypmod END
              FROM step JOIN pg_type AS t ON t.oid = step.typbasetype)
       SELECT * FROM step WHERE typbasetype = 0) AS base
 ORDER BY wanted.name, a.attnum";

/// All facts that are judged.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) server: Server,
    pub(crate) relations: Vec<Relation>,
    pub(crate) columns: Vec<ColumnFacts>,
}

/// The server, the database, and the role of the session. Names are as SQL has them, quoted where they
/// have to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    pub(crate) encoding: String,
    pub(crate) role: String,
    pub(crate) database: String,
    pub(crate) is_superuser: bool,
    pub(crate) connections_max: i64,
    /// Reserved for superusers and other reserved roles.
    pub(crate) connections_reserved: i64,
    /// -1 means no limit, here and below.
    pub(crate) role_connections_max: i64,
    pub(crate) database_connections_max: i64,
    /// Without the session that asks, here and below.
    pub(crate) connections_used: i64,
    pub(crate) role_connections_used: i64,
    pub(crate) database_connections_used: i64,
}

/// A table by the name in our statements.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relation {
    pub(crate) name: String,
    /// `None`: there is no such table on the search path.
    pub(crate) schema: Option<String>,
    pub(crate) kind: String,
    pub(crate) partition_key: Option<String>,
    pub(crate) owner: String,
    pub(crate) is_owner: bool,
    pub(crate) may_create: bool,
    pub(crate) has_row_security: bool,
    pub(crate) may_select: bool,
    pub(crate) may_insert: bool,
    pub(crate) may_update: bool,
    pub(crate) may_delete: bool,
    /// A unique index on tenant_id, occurred_at and event_id.
    pub(crate) has_key: bool,
    /// Indexes of a parent that every partition has beside its keys.
    pub(crate) further_indexes: Option<String>,
    pub(crate) default_partition: Option<String>,
    /// Schemas off the search path that have a table of that name.
    pub(crate) usable_schemas: Option<String>,
    /// The same for schemas that the role may not use.
    pub(crate) closed_schemas: Option<String>,
}

/// A column of an event table.
#[derive(Clone, Debug, Default)]
pub(crate) struct ColumnFacts {
    pub(crate) table: String,
    pub(crate) name: String,
    /// The type as SQL text.
    pub(crate) full_type: String,
    /// The base type's name, below all domains.
    pub(crate) base: String,
    /// The base type's category, `S` for strings.
    pub(crate) category: String,
    /// Its length or precision, -1 if none.
    pub(crate) modifier: i32,
    pub(crate) is_not_null: bool,
    pub(crate) has_default: bool,
    pub(crate) is_generated: bool,
    pub(crate) may_insert: bool,
    pub(crate) may_select: bool,
    /// The labels of an enum.
    pub(crate) labels: Option<Vec<String>>,
}

pub(crate) async fn read(client: &Client) -> Result<Facts, Error> {
    let mut answers = client.simple_query(FACTS).await?.into_iter();
    let mut next = || -> Vec<SimpleQueryRow> {
        let mut rows = Vec::new();
        for message in answers.by_ref() {
            match message {
                SimpleQueryMessage::Row(row) => rows.push(row),
                SimpleQueryMessage::CommandComplete(_) => break,
                _ => {}
            }
        }
        rows
    };
    Ok(Facts {
        server: next().first().map(Server::of).unwrap_or_default(),
        relations: next().iter().map(Relation::of).collect(),
        columns: next().iter().map(ColumnFacts::of).collect(),
    })
}

fn text(row: &SimpleQueryRow, column: &str) -> String {
    row.get(column).unwrap_or_default().to_owned()
}

fn is(row: &SimpleQueryRow, column: &str) -> bool {
    row.get(column) == Some("t")
}

fn number(row: &SimpleQueryRow, column: &str) -> i64 {
    row.get(column)
        .and_then(|text| text.parse().ok())
        .unwrap_or(-1)
}

impl Server {
    fn of(row: &SimpleQueryRow) -> Self {
        Self {
            encoding: text(row, "encoding"),
            role: text(row, "role"),
            database: text(row, "database"),
            is_superuser: is(row, "is_superuser"),
            connections_max: number(row, "connections_max"),
            connections_reserved: number(row, "connections_reserved"),
            role_connections_max: number(row, "role_connections_max"),
            database_connections_max: number(row, "database_connections_max"),
            connections_used: number(row, "connections_used"),
            role_connections_used: number(row, "role_connections_used"),
            database_connections_used: number(row, "database_connections_used"),
        }
    }
}

impl Relation {
    fn of(row: &SimpleQueryRow) -> Self {
        let optional = |column| row.get(column).map(str::to_owned);
        Self {
            name: text(row, "name"),
            schema: optional("schema"),
            kind: text(row, "kind"),
            partition_key: optional("partition_key"),
            owner: text(row, "owner"),
            is_owner: is(row, "is_owner"),
            may_create: is(row, "may_create"),
            has_row_security: is(row, "has_row_security"),
            may_select: is(row, "may_select"),
            may_insert: is(row, "may_insert"),
            may_update: is(row, "may_update"),
            may_delete: is(row, "may_delete"),
            has_key: is(row, "has_key"),
            further_indexes: optional("further_indexes"),
            default_partition: optional("default_partition"),
            usable_schemas: optional("usable_schemas"),
            closed_schemas: optional("closed_schemas"),
        }
    }
}

impl ColumnFacts {
    fn of(row: &SimpleQueryRow) -> Self {
        let labels = |text: &str| text.split(',').map(str::to_owned).collect();
        Self {
            table: text(row, "table_name"),
            name: text(row, "name"),
            full_type: text(row, "type"),
            base: text(row, "base"),
            category: text(row, "category"),
            modifier: i32::try_from(number(row, "modifier")).unwrap_or(-1),
            is_not_null: is(row, "is_not_null"),
            has_default: is(row, "has_default"),
            is_generated: is(row, "is_generated"),
            may_insert: is(row, "may_insert"),
            may_select: is(row, "may_select"),
            labels: row.get("labels").map(labels),
        }
    }
}
