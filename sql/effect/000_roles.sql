-- SPDX-License-Identifier: Apache-2.0
-- The roles of the schema effect. Run before the migrations, at each init, unless --no-roles. All are NOLOGIN: grant them to your logins.
do $roles$
declare
  wanted record;
begin
  for wanted in
    select * from (values
      ('effect_owner',    'Owns the schema effect; used by init only.'),
      ('effect_planner',  'May ask for effects; for consumers that leave them to workers.'),
      ('effect_worker',   'May ask for effects and carry them out; for workers.'),
      ('effect_operator', 'May see everything and decide about effects in doubt.'),
      ('effect_observer', 'May see what is known about effects, but neither requests nor answers.')
    ) as r(name, purpose)
  loop
    if not exists (select from pg_catalog.pg_roles p where p.rolname = wanted.name) then
      execute pg_catalog.format('create role %I nologin', wanted.name);
      execute pg_catalog.format('comment on role %I is %L', wanted.name, wanted.purpose);
    end if;
  end loop;
  -- Since PostgreSQL 16, whoever created a role is a member of it, but may not become it.
  if not pg_catalog.pg_has_role(current_user, 'effect_owner',
                                case when pg_catalog.current_setting('server_version_num')::integer < 160000 then 'member' else 'set' end) then
    execute pg_catalog.format('grant effect_owner to %I', current_user);
  end if;
end
$roles$;
