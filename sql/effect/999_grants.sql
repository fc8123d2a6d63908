-- SPDX-License-Identifier: Apache-2.0
-- Rights of the roles of the schema effect: role and privilege. See common/grants.sql.
values
  ('effect_planner', 'usage on schema effect'),
  ('effect_planner', 'insert (provider, effect_key, target, body, dedup_key, summary) on '
                     'effect.effect'),
  ('effect_planner', 'select (id, provider, effect_key, request_hash) on effect.effect'),
  ('effect_planner', 'select (name, key_bytes_max) on effect.provider'),
  ('effect_planner', 'execute on function effect.plan(text, text, jsonb, bytea, text, text), '
                     'effect.hash_of(jsonb, bytea), effect.keep_planned()'),

  ('effect_worker', 'usage on schema effect'),
  ('effect_worker', 'select, insert, update on effect.provider'),
  ('effect_worker', 'select, insert, update on effect.throttle'),
  ('effect_worker', 'insert (provider, effect_key, target, body, dedup_key, summary) on '
                    'effect.effect'),
  ('effect_worker', 'update (state, epoch, generation, attempts, in_doubt_attempts, '
                    'not_before, worker, claim_expires_at, key_valid_until, in_doubt_since, '
                    'settled_at, object, evidence) on effect.effect'),
  ('effect_worker', 'select on all tables in schema effect'),
  ('effect_worker', 'insert (effect, epoch, kind, worker) on effect.attempt'),
  ('effect_worker', 'update (finished_at, phase, answer, status, request_id, object, response, '
                    'error, late) on effect.attempt'),
  ('effect_worker', 'execute on all functions in schema effect'),

  ('effect_operator', 'usage on schema effect'),
  ('effect_operator', 'select on all tables in schema effect'),
  ('effect_operator', 'insert, update on effect.provider'),
  ('effect_operator', 'insert on effect.throttle'),
  ('effect_operator', 'insert (effect, decided_by, why, resolution, from_state, epoch) on '
                      'effect.decision'),
  ('effect_operator', 'update (state, generation, in_doubt_attempts, not_before, worker, '
                      'claim_expires_at, key_valid_until, in_doubt_since, settled_at, object, '
                      'evidence) on effect.effect'),
  ('effect_operator', 'delete on effect.effect'),
  ('effect_operator', 'execute on all functions in schema effect'),

  ('effect_observer', 'usage on schema effect'),
  ('effect_observer', 'select on effect.provider, effect.throttle, effect.decision, '
                      'effect.schema_version, effect.unsettled, effect.in_doubt, '
                      'effect.needs_review'),
  ('effect_observer', 'select (id, provider, effect_key, dedup_key, summary, request_hash, '
                      'planned_at, state, epoch, generation, attempts, '
                      'in_doubt_attempts, not_before, worker, claim_expires_at, '
                      'key_valid_until, in_doubt_since, settled_at, object, evidence) on '
                      'effect.effect'),
  ('effect_observer', 'select (effect, epoch, kind, worker, started_at, finished_at, phase, '
                      'answer, status, request_id, object, error, late) on effect.attempt'),
  ('effect_observer', 'execute on function effect.next_step(effect.effect)')
