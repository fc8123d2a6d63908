-- SPDX-License-Identifier: Apache-2.0
-- Rights of the roles of the schema inbox: role and privilege. See common/grants.sql.
values
  ('inbox_consumer', 'usage on schema inbox'),
  ('inbox_consumer', 'select, insert, update (keep, oldest_span, pruned_to, forgotten) '
   'on inbox.consumer'),
  ('inbox_consumer', 'select, insert (consumer, topic, "partition", read_to), '
   'update (read_to, reported_at), delete on inbox.position'),
  -- The right to update is what holding a row takes.
  ('inbox_consumer', 'select, insert, delete, update (number) on inbox.span'),
  ('inbox_consumer', 'select, insert (name) on inbox.topic'),
  ('inbox_consumer', 'select, insert (consumer, span, topic, dedup_key), delete '
   'on inbox.accepted'),
  ('inbox_consumer', 'select, insert (consumer, duplicates, expired), delete on inbox.tally'),
  ('inbox_consumer', 'select, insert (consumer, topic, "partition", record_offset, sent_at, '
                     'key, payload, headers, dedup_key, error_class, error_text) on '
                     'inbox.parked'),
  ('inbox_consumer', 'update (error_class, error_text, parked_at, resolution, decided_by, '
                     'decided_at, decided_why, handled_at) on inbox.parked'),
  ('inbox_consumer', 'delete on inbox.parked'),
  ('inbox_consumer', 'select on inbox.schema_version, inbox.statistics'),
  ('inbox_consumer', 'execute on all functions in schema inbox'),

  ('inbox_operator', 'usage on schema inbox'),
  ('inbox_operator', 'select on all tables in schema inbox'),
  ('inbox_operator', 'update (resolution, decided_by, decided_at, decided_why) on inbox.parked'),
  ('inbox_operator', 'execute on function inbox.decide(bigint[], text, text, text), '
                     'inbox.keep_handled()'),

  ('inbox_observer', 'usage on schema inbox'),
  ('inbox_observer', 'select on inbox.consumer, inbox.position, inbox.span, inbox.topic, '
                     'inbox.accepted, inbox.tally, inbox.schema_version, inbox.statistics'),
  ('inbox_observer', 'select (id, consumer, topic, "partition", record_offset, sent_at, '
                     'dedup_key, error_class, error_text, parked_at, resolution, decided_by, '
                     'decided_at, decided_why, handled_at) on inbox.parked')
