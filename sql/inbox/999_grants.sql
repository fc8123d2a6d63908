-- SPDX-License-Identifier: Apache-2.0
-- Rights of the roles; applied at each init to those roles that exist. Functions run with the rights of their caller.
do $grants$
declare
  granted record;
begin
  revoke all on all tables in schema inbox from public;
  revoke all on all functions in schema inbox from public;
  for granted in
    select * from (values
      ('inbox_consumer', 'usage on schema inbox'),
      ('inbox_consumer', 'select, insert, update (keep, oldest_span, forgotten) on inbox.consumer'),
      -- The right to update is what holding a row takes.
      ('inbox_consumer', 'select, insert, delete, update (number) on inbox.span'),
      ('inbox_consumer', 'select, insert (consumer, span, dedup_key), delete on inbox.accepted'),
      ('inbox_consumer', 'select, insert (consumer, duplicates, expired), delete on inbox.tally'),
      ('inbox_consumer', 'select, insert (consumer, topic, "partition", record_offset, sent_at, key, payload, headers, dedup_key, error_class, '
                         'error_text) on inbox.parked'),
      ('inbox_consumer', 'update (error_class, error_text, parked_at, resolution, decided_by, decided_at, decided_why, handled_at) on inbox.parked'),
      ('inbox_consumer', 'select on inbox.schema_version, inbox.statistics'),
      ('inbox_consumer', 'execute on all functions in schema inbox'),

      ('inbox_operator', 'usage on schema inbox'),
      ('inbox_operator', 'select on all tables in schema inbox'),
      ('inbox_operator', 'update (resolution, decided_by, decided_at, decided_why) on inbox.parked'),
      ('inbox_operator', 'execute on function inbox.decide(bigint[], text, text, text), inbox.keep_handled()'),

      ('inbox_observer', 'usage on schema inbox'),
      ('inbox_observer', 'select on inbox.consumer, inbox.span, inbox.accepted, inbox.tally, inbox.schema_version, inbox.statistics'),
      ('inbox_observer', 'select (id, consumer, topic, "partition", record_offset, sent_at, dedup_key, error_class, error_text, parked_at, '
                         'resolution, decided_by, decided_at, decided_why, handled_at) on inbox.parked')
    ) as g(role, privilege)
    where exists (select from pg_catalog.pg_roles r where r.rolname = g.role)
  loop
    execute pg_catalog.format('grant %s to %I', granted.privilege, granted.role);
  end loop;
end
$grants$;
