-- SPDX-License-Identifier: Apache-2.0
-- One page of the messages that retention deletes: visible in the base of the horizon, and not in
-- the snapshot up to which everything is deleted. As long as an old snapshot is open, the deleted
-- rows stay in the table and its indexes; looked at again for each page, they would cost more and
-- more. Reads only: however long it takes, it holds no lock that others wait for.
--   $1 snapshot up to which all is deleted  $2 base of the horizon
--   $3 transaction id and  $4 seq of the last message of the page before  $5 rows at most
select p.txid::text, p.seq from (
  (select m.txid, m.seq from pg_snapshot_xip($1::pg_snapshot) as late(txid)
   cross join lateral (
     select w.txid, w.seq from outbox.message w
     where w.txid = late.txid and (w.txid, w.seq) > ($3::xid8, $4::bigint)
     order by w.txid, w.seq limit $5) m
   where pg_visible_in_snapshot(late.txid, $2::pg_snapshot)
   order by m.txid, m.seq limit $5)
  union all
  (select m.txid, m.seq from outbox.message m
   where m.txid >= pg_snapshot_xmax($1::pg_snapshot)
     and m.txid < pg_snapshot_xmax($2::pg_snapshot)
     and (m.txid, m.seq) > ($3::xid8, $4::bigint)
     and pg_visible_in_snapshot(m.txid, $2::pg_snapshot)
   order by m.txid, m.seq limit $5)) p
order by p.txid, p.seq limit $5
