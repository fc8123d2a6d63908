-- SPDX-License-Identifier: Apache-2.0
-- The lease, and whether a message or the position holds transaction ids of this server's future.
select l.relay, l.cluster,
       exists (select from outbox.message m
               where m.txid >= pg_snapshot_xmax(pg_current_snapshot())),
       exists (select from outbox.batch b
               where b.number = (select max(x.number) from outbox.batch x)
                 and (pg_snapshot_xmax(b.upto) > pg_snapshot_xmax(pg_current_snapshot())
                      or pg_snapshot_xmax(b.base) > pg_snapshot_xmax(pg_current_snapshot())))
from outbox.lease l
