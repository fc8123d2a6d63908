-- SPDX-License-Identifier: Apache-2.0
-- Which of some messages must wait because an earlier message of their key is parked.
--   $1 topics  $2 keys  $3 seqs  $4 number of their batch
-- Returns places in the arrays, from 1.
select k.n
from unnest($1::text[], $2::bytea[], $3::bigint[]) with ordinality as k(topic, key, seq, n)
where exists (
  select from outbox.parked p
  where p.topic = k.topic and sha256(p.key) = sha256(k.key) and p.key = k.key
    and p.released_in is null and (p.parked_for < $4 or p.seq < k.seq))
order by k.n
