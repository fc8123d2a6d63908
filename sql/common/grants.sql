-- SPDX-License-Identifier: Apache-2.0
-- Grants rights to those roles of one schema that exist, at each init. Functions run with the
-- rights of their caller. The file 999_grants.sql of the schema is inserted.
do $grants$
declare
  granted record;
begin
  revoke all on all tables in schema @SCHEMA@ from public;
  revoke all on all functions in schema @SCHEMA@ from public;
  for granted in
    select g.role, g.privilege from (
@ROWS@
    ) as g(role, privilege)
    where exists (select from pg_catalog.pg_roles r where r.rolname = g.role)
  loop
    execute pg_catalog.format('grant %s to %I', granted.privilege, granted.role);
  end loop;
end
$grants$;
