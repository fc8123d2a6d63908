-- SPDX-License-Identifier: Apache-2.0
-- Creates one schema, at each init, unless it exists; its owner need not have rights on the
-- database. init inserts the name of the owner.
--
-- The files that follow use `create or replace`, which keeps the owner of what exists already.
-- Therefore nothing in the schema may belong to another role: its owner could change it later.
-- Refusals have an error code that differs from that of a missing privilege.
do $schema$
declare
  wanted constant name := %OWNER%;
  owner     name;
  alien     text;
  has_table boolean;
  versioned boolean;
begin
  -- As the relay's start-up checks have it.
  if '@SCHEMA@' = 'outbox'
     and pg_catalog.current_setting('server_encoding') not in ('UTF8', 'LATIN1') then
    raise exception 'the database has the encoding %, in which a message can have a text '
                    'without a UTF-8 form', pg_catalog.current_setting('server_encoding')
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Install the outbox in a database with the encoding UTF8.';
  end if;
  if pg_catalog.to_regnamespace('@SCHEMA@') is null then
    execute pg_catalog.format('create schema @SCHEMA@ authorization %I', wanted);
    return;
  end if;
  select pg_catalog.pg_get_userbyid(n.nspowner) into owner
  from pg_catalog.pg_namespace n where n.nspname = '@SCHEMA@';
  if owner <> wanted then
    raise exception 'the schema @SCHEMA@ belongs to "%", not to "%"', owner, wanted
      using errcode = 'object_not_in_prerequisite_state',
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
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Drop it, or change its owner.';
  end if;
  select c.relname into alien
  from pg_catalog.pg_class c
  where c.relnamespace = pg_catalog.to_regnamespace('@SCHEMA@')
  order by c.relname = 'schema_version', c.relname limit 1;
  if alien is null then
    return;  -- empty
  end if;
  select exists (
    select from pg_catalog.pg_attribute a
    where a.attrelid = pg_catalog.to_regclass('@SCHEMA@.schema_version')
      and a.attname = 'number' and not a.attisdropped) into has_table;
  if not has_table then
    raise exception 'the schema @SCHEMA@ belongs to another program: '
                    'init did not create @SCHEMA@.%', alien
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Rename that schema, or use another database.';
  end if;
  execute 'select exists (select from @SCHEMA@.schema_version)' into versioned;
  if not versioned then
    raise exception 'the schema @SCHEMA@ has tables, but @SCHEMA@.schema_version is empty: it was '
                    'loaded from a dump without data'
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'If its tables are empty, drop the schema with CASCADE and run init again; '
                   'otherwise load the rows of @SCHEMA@.schema_version as well.';
  end if;
end
$schema$;
