-- SPDX-License-Identifier: Apache-2.0
-- Examples of docs/sql.md: the object, and the role that runs the statements. Tests execute them
-- in this order.

-- outbox.enqueue, as outbox_writer
begin;
select outbox.enqueue('shop.charges', 'account-7', '{"cents": 4200}'::jsonb,
                      headers => '{"trace": "4bf92f35"}', dedup_key => 'order-1001-charge');
commit;

-- outbox.message, as outbox_writer
insert into outbox.message (topic, key, payload)
values ('shop.charges', convert_to('account-7', 'UTF8'), convert_to('{"cents": 100}', 'UTF8'));

-- outbox.text_message, as outbox_writer
insert into outbox.text_message (topic, key, payload)
values ('shop.uploads', 'account-7', '{"path": "C:\\invoices\\7.pdf"}') returning id, created_at;

-- outbox.commit_status, as outbox_writer
begin;
select pg_current_xact_id();  -- 700; kept by the application
select outbox.enqueue('shop.charges', 'account-7', '{"cents": 4200}'::jsonb);
commit;                       -- the connection breaks here; then, on another one:
select outbox.commit_status('700');

-- outbox.scheduled, as outbox_writer
select outbox.enqueue('shop.emails', 'account-7', 'How was it?', dedup_key => 'order-1001-survey',
                      deliver_at => now() + interval '1 day');
delete from outbox.scheduled where dedup_key = 'order-1001-survey';

-- outbox.status_of, as outbox_observer
select state, batch, reason from outbox.status_of('018f4a7e-0000-7000-8000-000000000001');

-- outbox.status_of_key, as outbox_observer
select id, state, batch, delivered_at from outbox.status_of_key('order-1001-charge');

-- outbox.parked, as outbox_operator
select error_class, topic, count(*), min(parked_at)
from outbox.parked where released_in is null group by error_class, topic;

-- outbox.batch, as outbox_observer
select number, messages, opened_at, delivered_at, offsets
from outbox.batch order by number desc limit 10;

-- outbox.lease, as outbox_observer
select relay, holder, epoch, expires_at > clock_timestamp() as held from outbox.lease;
