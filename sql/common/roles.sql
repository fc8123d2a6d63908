-- SPDX-License-Identifier: Apache-2.0
-- Creates the roles of one schema, at each init, unless --no-roles. All are NOLOGIN: grant them to
-- your logins. The file 000_roles.sql of the schema is inserted.
do $roles$
declare
  wanted record;
begin
  for wanted in
    select r.name, r.purpose from (
@ROWS@
    ) as r(name, purpose)
  loop
    if not exists (select from pg_catalog.pg_roles p where p.rolname = wanted.name) then
      begin
        execute pg_catalog.format('create role %I nologin', wanted.name);
        execute pg_catalog.format('comment on role %I is %L', wanted.name, wanted.purpose);
      exception when duplicate_object or unique_violation then
        null;  -- an init in another database of the server has just created it
      end;
    end if;
  end loop;
  -- Since PostgreSQL 16, the creator of a role is a member of it, but may not SET ROLE to it.
  if not pg_catalog.pg_has_role(
    current_user, '@SCHEMA@_owner',
    case when pg_catalog.current_setting('server_version_num')::integer < 160000
         then 'member' else 'set' end) then
    execute pg_catalog.format('grant @SCHEMA@_owner to %I', current_user);
  end if;
end
$roles$;
