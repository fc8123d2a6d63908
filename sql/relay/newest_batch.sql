-- SPDX-License-Identifier: Apache-2.0
-- The position: the newest batch of the journal.
select
-- @include relay/batch_columns.sql
from outbox.batch b order by b.number desc limit 1
