-- SPDX-License-Identifier: Apache-2.0
-- The roles of the schema effect: name and purpose. See common/roles.sql.
values
  ('effect_owner',    'Owns the schema effect; used by init only.'),
  ('effect_planner',  'May plan effects; for consumers that leave them to workers.'),
  ('effect_worker',   'May plan and execute effects; for workers.'),
  ('effect_operator', 'May see everything and decide about effects in doubt.'),
  ('effect_observer', 'May see what is known about effects, but neither requests nor answers.')
