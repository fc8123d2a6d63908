-- SPDX-License-Identifier: Apache-2.0
-- Decides that the messages of a topic that exists now are released.
--   $1 epoch  $2 holder  $3 topic  $4 rows at most
with
-- @include relay/fence.sql
update outbox.parked p
set resolution = 'release', decided_by = 'outbox-relay', decided_at = clock_timestamp(),
    decided_why = 'the topic exists now'
from fence
where (p.parked_for, p.seq) in (
  select w.parked_for, w.seq from outbox.parked w
  where w.released_in is null and w.resolution is null and w.topic = $3
    and w.error_class = 'topic_missing'
  order by w.parked_for, w.seq limit $4 for update of w skip locked)
