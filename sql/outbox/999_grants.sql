-- SPDX-License-Identifier: Apache-2.0
-- Rights of the roles of the schema outbox: role and privilege. See common/grants.sql.
values
  ('outbox_writer', 'usage on schema outbox'),
  ('outbox_writer', 'insert (topic, key, payload, headers, dedup_key, id) on outbox.message'),
  ('outbox_writer', 'select (id, seq, txid, topic, dedup_key, created_at) on outbox.message'),
  ('outbox_writer', 'select, insert on outbox.text_message'),
  ('outbox_writer', 'insert (deliver_at, topic, key, payload, headers, dedup_key) on '
                    'outbox.scheduled'),
  ('outbox_writer', 'select (id, topic, dedup_key, deliver_at), delete on outbox.scheduled'),
  ('outbox_writer', 'select on outbox.batch, outbox.lease'),
  ('outbox_writer', 'select (parked_for, seq, id, topic, dedup_key, released_in, error_class, '
                    'error_text, resolution, decided_by, decided_why, edited_topic) on '
                    'outbox.parked'),
  ('outbox_writer', 'execute on all functions in schema outbox'),

  ('outbox_relay', 'usage on schema outbox'),
  ('outbox_relay', 'select, delete on outbox.message, outbox.scheduled'),
  ('outbox_relay', 'update (deliver_at) on outbox.scheduled'),  -- to lock a row; it changes none
  ('outbox_relay', 'insert (topic, key, payload, headers, dedup_key, id, created_at) on '
                   'outbox.message'),
  ('outbox_relay', 'select, insert, delete on outbox.batch, outbox.parked'),
  ('outbox_relay', 'update (delivered_at, offsets) on outbox.batch'),
  ('outbox_relay', 'update (released_in, resolution, decided_by, decided_at, decided_why) on '
                   'outbox.parked'),
  ('outbox_relay', 'select, update (relay, holder, epoch, expires_at, cluster) on outbox.lease'),
  ('outbox_relay', 'select on outbox.schema_version'),
  ('outbox_relay', 'select on sequence outbox.message_seq_seq'),
  ('outbox_relay', 'execute on all functions in schema outbox'),

  ('outbox_observer', 'usage on schema outbox'),
  ('outbox_observer', 'select (seq, txid, id, topic, dedup_key, created_at) on outbox.message'),
  ('outbox_observer', 'select (id, deliver_at, seq, topic, dedup_key, created_at) on '
                      'outbox.scheduled'),
  ('outbox_observer', 'select on outbox.batch, outbox.lease, outbox.schema_version, '
                      'outbox.replay'),
  ('outbox_observer', 'select (parked_for, seq, id, topic, dedup_key, created_at, released_in, '
                      'error_class, error_text, parked_at, resolution, decided_by, decided_at, '
                      'decided_why, edited_topic) on outbox.parked'),
  ('outbox_observer', 'execute on function outbox.batch_covers(outbox.batch, xid8, bigint), '
                      'outbox.batch_of(xid8, bigint), outbox.batch_state(outbox.batch, '
                      'outbox.lease), outbox.status_of_seq(bigint), outbox.status_of(uuid), '
                      'outbox.status_of_key(text)'),

  ('outbox_operator', 'usage on schema outbox'),
  ('outbox_operator', 'select on all tables in schema outbox'),
  ('outbox_operator', 'update (resolution, decided_by, decided_at, decided_why, edited_topic, '
                      'edited_key, edited_payload, edited_headers) on outbox.parked'),
  ('outbox_operator', 'insert (topic, key, payload, headers, dedup_key) on outbox.message'),
  ('outbox_operator', 'insert (since, until, topic, asked_by, why), update (upto_batch, '
                      'messages, finished_at) on outbox.replay'),
  ('outbox_operator', 'execute on function outbox.uuid7()'),
  ('outbox_operator', 'delete on outbox.scheduled'),
  ('outbox_operator', 'execute on function outbox.batch_covers(outbox.batch, xid8, bigint), '
                      'outbox.batch_of(xid8, bigint), outbox.batch_state(outbox.batch, '
                      'outbox.lease), outbox.status_of_seq(bigint), outbox.status_of(uuid), '
                      'outbox.status_of_key(text)')
