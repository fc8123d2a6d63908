-- SPDX-License-Identifier: Apache-2.0
-- Whether a decision about a parked message can be executed now.
--   $1 by key
select case when exists (select from outbox.parked p
                         where p.released_in is null and p.resolution is not null)
            then exists (select from outbox.releasable($1::boolean, 1, 1)) else false end
