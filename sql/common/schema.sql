-- SPDX-License-Identifier: Apache-2.0
-- Creates one schema, at each init, unless it exists; its owner need not have rights on the
-- database. init inserts the name of the owner.
--
-- The files that follow use `create or replace`, which keeps the owner of what exists already.
-- Therefore nothing in the schema may belong to another role: its owner could change it later.
do $schema$
declare
  wanted constant name := %OWNER%;
  owner  name;
  alien  text;
begin
  if pg_catalog.to_regnamespace('@SCHEMA@') is null then
    execute pg_catalog.format('create schema @SCHEMA@ authorization %I', wanted);
    return;
  end if;
  select pg_catalog.pg_get_userbyid(n.nspowner) into owner
  from pg_catalog.pg_namespace n where n.nspname = '@SCHEMA@';
  if owner <> wanted then
    raise exception 'the schema @SCHEMA@ belongs to "%", not to "%"', owner, wanted
      using errcode = 'insufficient_privilege',
            hint = 'Drop it, change its owner, or run init as its owner with --no-roles.';
  end if;
  select o.name into alien
  from (select c.relname::text, c.relowner from pg_catalog.pg_class c
        where c.relnamespace = pg_catalog.to_regnamespace('@SCHEMA@')
        union all
        select p.proname || '()', p.proowner from pg_catalog.pg_proc p
        where p.pronamespace = pg_catalog.to_regnamespace('@SCHEMA@')
        union all
        select t.typname::text, t.typowner from pg_catalog.pg_type t
        where t.typnamespace = pg_catalog.to_regnamespace('@SCHEMA@')) as o(name, owner)
  where pg_catalog.pg_get_userbyid(o.owner) <> wanted
  order by o.name limit 1;
  if alien is not null then
    raise exception '@SCHEMA@.% does not belong to "%", the owner of the schema', alien, wanted
      using errcode = 'insufficient_privilege', hint = 'Drop it, or change its owner.';
  end if;
end
$schema$;
