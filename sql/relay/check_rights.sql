-- SPDX-License-Identifier: Apache-2.0
-- Which rights the relay lacks: rows with a text, or null.
select string_agg(r.priv || ' on ' || r.rel, ', ')
from (values ('outbox.message', 'SELECT'), ('outbox.message', 'DELETE'),
             ('outbox.scheduled', 'SELECT'), ('outbox.scheduled', 'DELETE'),
             ('outbox.batch', 'SELECT'), ('outbox.batch', 'INSERT'), ('outbox.batch', 'DELETE'),
             ('outbox.parked', 'SELECT'), ('outbox.parked', 'INSERT'), ('outbox.parked', 'DELETE'),
             ('outbox.lease', 'SELECT')) as r(rel, priv)
where not has_table_privilege(r.rel, r.priv)
union all
select string_agg(c.priv || ' (' || c.col || ') on ' || c.rel, ', ')
from (values ('outbox.batch', 'delivered_at', 'UPDATE'), ('outbox.batch', 'offsets', 'UPDATE'),
             ('outbox.parked', 'released_in', 'UPDATE'), ('outbox.parked', 'resolution', 'UPDATE'),
             ('outbox.parked', 'decided_by', 'UPDATE'), ('outbox.parked', 'decided_at', 'UPDATE'),
             ('outbox.parked', 'decided_why', 'UPDATE'), ('outbox.lease', 'relay', 'UPDATE'),
             ('outbox.lease', 'holder', 'UPDATE'), ('outbox.lease', 'epoch', 'UPDATE'),
             ('outbox.lease', 'expires_at', 'UPDATE'), ('outbox.lease', 'cluster', 'UPDATE'),
             ('outbox.message', 'topic', 'INSERT'), ('outbox.message', 'key', 'INSERT'),
             ('outbox.message', 'payload', 'INSERT'), ('outbox.message', 'headers', 'INSERT'),
             ('outbox.message', 'dedup_key', 'INSERT'), ('outbox.message', 'id', 'INSERT'),
             ('outbox.message', 'created_at', 'INSERT')) as c(rel, col, priv)
where not has_column_privilege(c.rel, c.col, c.priv)
