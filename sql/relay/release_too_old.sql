-- SPDX-License-Identifier: Apache-2.0
-- Decides that messages are sent again that their topic found too old: a release bears a new time.
-- Once within an hour: where that is too old as well, an operator must look.
--   $1 epoch  $2 holder  $3 rows at most
with
-- @include relay/fence.sql
update outbox.parked p
set resolution = 'release', decided_by = 'outbox-relay', decided_at = clock_timestamp(),
    decided_why = 'it is sent with a new time'
from fence
where (p.parked_for, p.seq) in (
  select w.parked_for, w.seq from outbox.parked w
  where w.released_in is null and w.resolution is null and w.error_class = 'too_old'
    and not exists (
      select from outbox.parked e
      where e.seq = w.seq and e.error_class = 'too_old' and e.decided_by = 'outbox-relay'
        and e.decided_at > clock_timestamp() - interval '1 hour')
  order by w.seq limit $3 for update of w skip locked)
