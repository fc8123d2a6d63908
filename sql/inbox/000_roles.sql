-- SPDX-License-Identifier: Apache-2.0
-- The roles of the schema inbox: name and purpose. See common/roles.sql.
values
  ('inbox_owner',    'Owns the schema inbox; used by init only.'),
  ('inbox_consumer', 'May accept, park and expire messages; for consumers.'),
  ('inbox_operator', 'May see everything and decide about parked messages.'),
  ('inbox_observer', 'May see what consumers accepted, but no payload.')
