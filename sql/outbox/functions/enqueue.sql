-- SPDX-License-Identifier: Apache-2.0
-- What applications call to write a message, in the transaction of their own changes.

create or replace function outbox.enqueue(
  topic text, key bytea, payload bytea, headers jsonb default null, dedup_key text default null,
  deliver_at timestamptz default null)
returns uuid language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  new_id uuid;
begin
  if enqueue.deliver_at is null then
    insert into outbox.message (topic, key, payload, headers, dedup_key)
    values (enqueue.topic, enqueue.key, enqueue.payload, enqueue.headers, enqueue.dedup_key)
    returning message.id into new_id;
  else
    insert into outbox.scheduled (deliver_at, topic, key, payload, headers, dedup_key)
    values (enqueue.deliver_at, enqueue.topic, enqueue.key, enqueue.payload, enqueue.headers,
            enqueue.dedup_key)
    returning scheduled.id into new_id;
  end if;
  return new_id;
end
$$;
comment on function outbox.enqueue(text, bytea, bytea, jsonb, text, timestamptz) is
  'Writes a message in the calling transaction and returns its id. For order within a key, '
  'lock the key first.';

create or replace function outbox.enqueue(
  topic text, key text, payload text, headers jsonb default null, dedup_key text default null,
  deliver_at timestamptz default null)
returns uuid language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  return outbox.enqueue(topic, pg_catalog.convert_to(key, 'UTF8'),
                        pg_catalog.convert_to(payload, 'UTF8'), headers, dedup_key, deliver_at);
end
$$;
comment on function outbox.enqueue(text, text, text, jsonb, text, timestamptz) is
  'As enqueue(text, bytea, bytea), key and payload as UTF-8 text.';

create or replace function outbox.enqueue(
  topic text, key text, payload jsonb, headers jsonb default null, dedup_key text default null,
  deliver_at timestamptz default null)
returns uuid language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  return outbox.enqueue(topic, pg_catalog.convert_to(key, 'UTF8'),
                        pg_catalog.convert_to(payload::text, 'UTF8'), headers, dedup_key,
                        deliver_at);
end
$$;
comment on function outbox.enqueue(text, text, jsonb, jsonb, text, timestamptz) is
  'As enqueue(text, bytea, bytea), key as UTF-8 text and payload as JSON text. A value of type '
  'json needs a cast.';
