-- Partitions of a table, and what is wrong with rows in them. Postgres keeps a row within its
-- partition's bounds; nothing keeps a name and its bounds together, nor rows out of a partition
-- without a range. Bounds are literals in an expression, which Postgres casts itself; the suffix of a
-- name is a day (YYYY_MM_DD) or a month (YYYY_MM), or says nothing.
SELECT oid, name || CASE
         WHEN begins IS NULL THEN ', which has no range'
         WHEN suffix ~ '^\d{4}_\d\d(_\d\d)?$'
              AND to_char(begins, 'YYYY_MM_DD') <> suffix || CASE length(suffix) WHEN 7 THEN '_01' ELSE '' END
         THEN ', which begins at ' || begins || ' in truth' END AS wrong
FROM (SELECT c.oid, c.relname::text AS name, substr(c.relname, length('TABLE') + 2) AS suffix,
             (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''(.*?)''\)'))[1]::timestamptz AS begins
      FROM pg_partition_tree('TABLE') t JOIN pg_class c ON c.oid = t.relid
      WHERE t.isleaf) AS partitions
