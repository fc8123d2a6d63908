-- SPDX-License-Identifier: Apache-2.0
-- One row while this backend works on a statement. One that waits for its client to take the answer
-- does not.
--   $1 its process id
select from pg_catalog.pg_stat_activity a
where a.pid = $1 and a.state = 'active' and a.wait_event is distinct from 'ClientWrite'
