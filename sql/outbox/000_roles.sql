-- SPDX-License-Identifier: Apache-2.0
-- The roles of the schema outbox: name and purpose. See common/roles.sql.
values
  ('outbox_owner',    'Owns the schema outbox; used by init and adopt only.'),
  ('outbox_writer',   'May enqueue messages and ask for their state; for applications.'),
  ('outbox_relay',    'May read messages and keep the journal; for the relay process.'),
  ('outbox_operator', 'May see everything and decide about parked messages.'),
  ('outbox_observer', 'May see the state of the outbox, but no payload.')
