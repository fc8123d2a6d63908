-- SPDX-License-Identifier: Apache-2.0
-- What operators do: decisions about unknown outcomes, and retention.

create or replace function effect.resolve(
  effect_id bigint, resolution text, decided_by text, why text, object text default null)
returns text language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  e effect.effect;
begin
  perform effect.make_durable();
  select f.* into e from effect.effect f where f.id = resolve.effect_id for update;
  if not found then
    raise exception 'there is no effect %', resolve.effect_id using errcode = 'no_data_found';
  end if;
  if e.state = 'claimed' and e.claim_expires_at < pg_catalog.clock_timestamp() then
    -- Without a worker, nobody else marks it.
    perform effect.mark_in_doubt(e, true, null);
    select f.* into e from effect.effect f where f.id = resolve.effect_id;
  end if;
  if e.state = 'claimed' then
    raise exception 'effect % is under way until %', e.id, e.claim_expires_at
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'Wait until then: it will be settled, or in doubt.';
  end if;
  if e.state = 'planned' and resolve.resolution = 'resend' then
    raise exception 'effect % is planned and cannot become planned: it is not in doubt', e.id
      using errcode = 'object_not_in_prerequisite_state', hint = 'A worker executes it.';
  end if;
  insert into effect.decision (effect, decided_by, why, resolution, from_state, epoch)
  values (e.id, resolve.decided_by, resolve.why, resolve.resolution, e.state, e.epoch);
  if resolve.resolution = 'resend' then
    update effect.effect f
    set state = 'planned', generation = e.generation + 1, in_doubt_since = null,
        in_doubt_attempts = 0, key_valid_until = null, not_before = pg_catalog.clock_timestamp()
    where f.id = e.id;
    return 'planned';
  end if;
  update effect.effect f
  set state = resolve.resolution, settled_at = pg_catalog.clock_timestamp(), evidence = 'decision',
      object = coalesce(resolve.object, f.object)
  where f.id = e.id;
  return resolve.resolution;
end
$$;
comment on function effect.resolve(bigint, text, text, text, text) is
  'Records a decision about an effect in doubt: done, failed or resend (as a new request, so '
  'that it may happen twice). A planned effect can become failed.';

create or replace function effect.prune(keep interval, rows_max integer default 1000)
returns bigint language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  until constant timestamptz := pg_catalog.clock_timestamp() - keep;  -- a constant, for the index
  gone  bigint;
begin
  delete from effect.effect e where e.id = any (array(
    select d.id from effect.effect d
    where d.settled_at < until order by d.settled_at limit rows_max));
  get diagnostics gone = row_count;
  return gone;
end
$$;
comment on function effect.prune(interval, integer) is
  'Deletes effects that were settled longer ago than keep, with their evidence, and returns '
  'how many. A message that is delivered again later would plan them again.';
