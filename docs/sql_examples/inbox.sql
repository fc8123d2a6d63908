-- SPDX-License-Identifier: Apache-2.0
-- Examples of docs/sql.md: the object, and the role that runs the statements. Tests execute them
-- in this order.

-- inbox.register, as inbox_consumer
select inbox.register('mailer', keep => interval '7 days');

-- inbox.accept, as inbox_consumer
begin;
select inbox.accept('mailer', 'shop.emails', 'order-1001-email', timestamptz '2026-11-25 10:00+00');
-- new: send the e-mail's row to the table from which it is sent
commit;

-- inbox.accept_all, as inbox_consumer
select inbox.accept_all('mailer', array['shop.emails', 'shop.emails'],
                        array['order-1002-email', 'order-1003-email'],
                        array['2026-11-25 10:00+00', '2026-11-25 10:01+00']::timestamptz[]);

-- inbox.park, as inbox_consumer
select inbox.park('mailer', 'shop.emails', 3, 812, timestamptz '2026-11-25 10:02+00',
                  'account-7'::bytea, '{"to": ""}'::bytea, '[["trace", "34"]]', 'order-1004-email',
                  'handler', 'the address is empty');

-- inbox.parked, as inbox_observer
select id, topic, dedup_key, error_class, error_text, parked_at
from inbox.parked where handled_at is null and resolution is null;

-- inbox.blocked, as inbox_consumer
select inbox.blocked('mailer', array['shop.emails'], array['account-7'::bytea]);

-- inbox.decide, as inbox_operator
select inbox.decide(array(select id from inbox.parked where dedup_key = 'order-1004-email'),
                    'release', 'ann', 'the address is corrected');

-- inbox.next_released, as inbox_consumer
begin;
select id, topic, key, payload from inbox.next_released('mailer', by_key => true);
-- handle it; if this fails again, roll back to here and call park_again() in place of handled()
select inbox.handled(id) from inbox.parked where dedup_key = 'order-1004-email';
commit;

-- inbox.report, as inbox_consumer
select inbox.report('mailer', array['shop.emails', 'shop.emails'], array[0, 1],
                    array[timestamptz '2026-11-25 10:02+00', null]);

-- inbox.prune, as inbox_consumer
select inbox.prune('mailer');

-- inbox.statistics, as inbox_observer
select consumer, parked, duplicates, expired, remembers_since, read_to from inbox.statistics;
