-- SPDX-License-Identifier: Apache-2.0
-- The roles of the outbox. Run before the migrations, at each init, unless --no-roles. All are NOLOGIN: grant them to your logins.
do $roles$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('outbox_owner',    'Owns the schema outbox; used by init and rebase only.'),
      ('outbox_writer',   'May enqueue messages and ask for their state; for applications.'),
      ('outbox_relay',    'May read messages and keep the journal; for the relay process.'),
      ('outbox_operator', 'May see everything and decide about parked messages.'),
      ('outbox_observer', 'May see the state of the outbox, but no payload.')) as r(name, purpose)
  loop
    if not exists (select from pg_catalog.pg_roles p where p.rolname = wanted.name) then
      execute pg_catalog.format('create role %I nologin', wanted.name);
      execute pg_catalog.format('comment on role %I is %L', wanted.name, wanted.purpose);
    end if;
  end loop;
  -- Since PostgreSQL 16, whoever created a role is a member of it, but may not become it.
  if not pg_catalog.pg_has_role(current_user, 'outbox_owner',
                                case when pg_catalog.current_setting('server_version_num')::integer < 160000 then 'member' else 'set' end) then
    execute pg_catalog.format('grant outbox_owner to %I', current_user);
  end if;
end
$roles$;
