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
  'As enqueue(text, bytea, bytea), key as UTF-8 text and payload as JSON text.';

create or replace function outbox.enqueue(
  topic text, key text, payload json, headers jsonb default null, dedup_key text default null,
  deliver_at timestamptz default null)
returns uuid language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  return outbox.enqueue(topic, pg_catalog.convert_to(key, 'UTF8'),
                        pg_catalog.convert_to(payload::text, 'UTF8'), headers, dedup_key,
                        deliver_at);
end
$$;
comment on function outbox.enqueue(text, text, json, jsonb, text, timestamptz) is
  'As enqueue(text, text, text), with the text of the JSON value as it is.';

create or replace function outbox.enqueue(
  topic text, key text, payload bytea, headers jsonb default null, dedup_key text default null,
  deliver_at timestamptz default null)
returns uuid language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  return outbox.enqueue(topic, pg_catalog.convert_to(key, 'UTF8'),
                        payload, headers, dedup_key, deliver_at);
end
$$;
comment on function outbox.enqueue(text, text, bytea, jsonb, text, timestamptz) is
  'As enqueue(text, bytea, bytea), key as UTF-8 text: for Avro, Protobuf and other binary formats.';

-- A door for INSERT statements with text. In a statement on outbox.message, a text literal or a
-- parameter without a type would be read in the input syntax of bytea, where a backslash begins an
-- escape.
create or replace view outbox.text_message as
select null::uuid as id, null::text as topic, null::text as key, null::text as payload,
       null::jsonb as headers, null::text as dedup_key, null::timestamptz as deliver_at,
       null::timestamptz as created_at
where false;
comment on view outbox.text_message is
  'For INSERT: writes a message whose key and payload are text, as enqueue() does. RETURNING gives '
  'its id and created_at. Shows nothing.';
comment on column outbox.text_message.key is 'Kafka record key, as UTF-8.';
comment on column outbox.text_message.payload is 'Kafka record value, as UTF-8.';
comment on column outbox.text_message.deliver_at is
  'When it is due; null: at once. The id of a scheduled message cannot be chosen.';

create or replace function outbox.insert_text_message() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  new.created_at := pg_catalog.clock_timestamp();
  if new.deliver_at is null then
    insert into outbox.message as m (id, topic, key, payload, headers, dedup_key)
    values (coalesce(new.id, outbox.uuid7()), new.topic, pg_catalog.convert_to(new.key, 'UTF8'),
            pg_catalog.convert_to(new.payload, 'UTF8'), new.headers, new.dedup_key)
    returning m.id, m.created_at into new.id, new.created_at;
  elsif new.id is not null then
    raise exception 'the id of a scheduled message cannot be chosen'
      using errcode = 'feature_not_supported', hint = 'Leave id out: RETURNING gives it.';
  else
    new.id := outbox.enqueue(new.topic, new.key, new.payload, new.headers, new.dedup_key,
                             new.deliver_at);
  end if;
  return new;
end
$$;
comment on function outbox.insert_text_message() is
  'Writes what is inserted into outbox.text_message.';

do $trigger$
begin
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'outbox.text_message'::regclass
                   and t.tgname = 'insert_text_message') then
    create trigger insert_text_message instead of insert on outbox.text_message
      for each row execute function outbox.insert_text_message();
  end if;
end
$trigger$;
