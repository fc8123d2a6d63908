-- SPDX-License-Identifier: Apache-2.0
create or replace function @SCHEMA@.make_durable() returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
begin
  if pg_catalog.current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform pg_catalog.set_config('synchronous_commit', 'on', true);
  end if;
end
$$;
comment on function @SCHEMA@.make_durable() is
  'Makes the current transaction wait until its commit is durable, whatever the session has '
  'set: what a crash of the server loses would be executed a second time.';
