-- SPDX-License-Identifier: Apache-2.0
create table @SCHEMA@.schema_version (
  number     integer     primary key,
  name       text        not null,
  applied_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table @SCHEMA@.schema_version is
  'Versions of this schema that were applied. outbox-relay refuses a version that is too new.';
comment on column @SCHEMA@.schema_version.number is 'Number of the version.';
comment on column @SCHEMA@.schema_version.name is 'Name of the file that made it.';
comment on column @SCHEMA@.schema_version.applied_at is 'When it was applied.';
