-- SPDX-License-Identifier: Apache-2.0
-- Examples of docs/sql.md: the object, and the role that runs the statements. Tests execute them
-- in this order.

-- effect.register, as effect_worker
select effect.register('bank', '{"idempotency_window": "24 hours", "in_doubt_policy": "hold"}');

-- effect.plan, as effect_planner
select effect.plan('bank', 'order-1001-charge', '{"path": "/charges"}', 'amount=4200&currency=eur',
                   dedup_key => 'order-1001-charge', summary => '42.00 EUR of customer 7');

-- effect.claim, as effect_worker
select effect_id, epoch, kind, provider_key, target, body, ttl
from effect.claim('bank', 'worker-1');

-- effect.settle, as effect_worker
select effect.settle(1, 1, 'answered', 'done', 201, request_id => 'req_81', object => 'ch_4711');

-- effect.resolve, as effect_operator
select effect.resolve(id, 'resend', 'ann', 'the bank has no record of it')
from effect.needs_review where provider = 'bank';

-- effect.unsettled, as effect_observer
select provider, state, count(*), min(in_doubt_since)
from effect.unsettled group by provider, state;

-- effect.throttle, as effect_observer
select provider, open_until, failures from effect.throttle where open_until is not null;

-- effect.prune, as effect_operator
select effect.prune('90 days');
