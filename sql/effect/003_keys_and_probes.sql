-- SPDX-License-Identifier: Apache-2.0
-- Keys of what is sent again that no other effect can have; refusals that come when the key is forgotten; a turn for first attempts
-- while a provider is probed.

alter table effect.effect add column resent_as text;
comment on column effect.effect.resent_as is 'What the provider is to tell repeats by since somebody decided to resend; null: the effect key.';

-- Before this version the suffix was #2, which the key of another effect can end with.
create or replace function effect.provider_key(e effect.effect) returns text language sql stable as $$
  select coalesce(e.resent_as, e.effect_key || case when e.generation > 1 then '#' || e.generation else '' end)
$$;
comment on function effect.provider_key(effect.effect) is 'What the provider is to tell repeats by.';

create or replace function effect.keep_rules() returns trigger language plpgsql as $$
declare
  a     effect.attempt;
  fault text;
begin
  select t.* into a from effect.attempt t where t.effect = old.id and t.epoch = old.epoch;
  fault := case
    when (new.id, new.provider, new.effect_key, new.dedup_key, new.target, new.body, new.request_hash, new.planned_at)
         is distinct from
         (old.id, old.provider, old.effect_key, old.dedup_key, old.target, old.body, old.request_hash, old.planned_at)
      then 'what is asked for never changes'
    when new.resent_as is distinct from old.resent_as and new.generation = old.generation
      then 'the key changes by a decision only'
    else coalesce(effect.forgery_of(old, new, a), effect.fault_of(old, new, a))
  end;
  if fault is not null then
    raise exception 'effect %: % cannot become %: %', old.id, old.state, new.state, fault
      using errcode = 'object_not_in_prerequisite_state', hint = 'See effect.attempt and effect.decision; effect.resolve() records a decision.';
  end if;
  return new;
end
$$;
comment on function effect.keep_rules() is 'Refuses illegal changes of an effect, whoever makes them.';

create or replace function effect.plan(provider text, effect_key text, target jsonb, body bytea, dedup_key text default null,
                                       summary text default null)
returns bigint language plpgsql volatile as $$
declare
  planned bigint;
  hash    bytea;
begin
  insert into effect.effect (provider, effect_key, target, body, dedup_key, summary)
  values (plan.provider, plan.effect_key, plan.target, plan.body, plan.dedup_key, plan.summary)
  on conflict on constraint effect_provider_effect_key_key do nothing returning id into planned;
  if found then
    -- HTTP carries no blanks around a value, and a provider takes an empty key for none.
    if plan.effect_key = '' or plan.effect_key <> pg_catalog.btrim(plan.effect_key, E' \t') or plan.effect_key ~ '##[0-9]+$' then
      raise exception 'effect key "%" is empty, has blanks around it, or ends like the key of what is sent again', plan.effect_key
        using errcode = 'invalid_parameter_value', hint = 'Make it of the message that asks, without blanks around it or ##N at its end.';
    end if;
    return planned;
  end if;
  select e.id, e.request_hash into planned, hash from effect.effect e where e.provider = plan.provider and e.effect_key = plan.effect_key;
  if hash is distinct from effect.hash_of(plan.target, plan.body) then
    raise exception 'effect "%" at % was planned with another request (effect %)', plan.effect_key, plan.provider, planned
      using errcode = 'unique_violation',
            hint = 'An effect key stands for one request for ever: make it of the message that asks, and plan the same request from it.';
  end if;
  return planned;
end
$$;
comment on function effect.plan(text, text, jsonb, bytea, text, text) is
  'Writes down an effect that is to be carried out, in the transaction that handles the message that asks for it. '
  'The same again is the same effect.';

-- When the answer was recorded: what was claimed while the provider knew the key can have come when it did not any more.
create or replace function effect.is_shown(o effect.effect, n effect.effect, a effect.attempt) returns boolean language plpgsql stable as $$
begin
  if n.evidence = 'decision' then
    return o.state <> 'claimed' and (o.state, n.state) <> ('planned', 'done')
           and n.state is not distinct from (
             select d.resolution from effect.decision d where d.effect = o.id and d.epoch = o.epoch order by d.decided_at desc limit 1);
  elsif n.evidence = 'late_answer' then
    return n.state = 'done' and exists (
      select from effect.attempt l where l.effect = o.id and l.answer = 'done' and (o.state <> 'claimed' or l.epoch <> o.epoch));
  end if;
  return coalesce(o.state = 'claimed' and n.evidence = case a.kind when 'call' then 'answer' else a.kind end
                  and case n.state when 'done' then a.answer = 'done'
                                   else a.answer = 'refused' and a.kind <> 'ask'
                                        and (o.doubt_since is null or (a.phase = 'answered' and a.finished_at <= o.key_valid_until)) end, false);
end
$$;
comment on function effect.is_shown(effect.effect, effect.effect, effect.attempt) is
  'Whether the evidence is there that an effect is settled on. a is the attempt of its present claim.';

create or replace function effect.settle(effect_id bigint, epoch bigint, phase text, answer text default null, status integer default null,
                              request_id text default null, object text default null, response bytea default null,
                              error text default null, retry_after interval default null, tried boolean default true)
returns text language plpgsql volatile as $$
declare
  e      effect.effect;
  a      effect.attempt;
  p      effect.provider;
  result text;
begin
  perform effect.make_durable();
  select f.* into e from effect.effect f where f.id = settle.effect_id for update;
  select t.* into a from effect.attempt t where t.effect = settle.effect_id and t.epoch = settle.epoch;
  if not found then
    raise exception 'effect % has no attempt %', settle.effect_id, settle.epoch using errcode = 'no_data_found';
  end if;
  if a.finished_at is null then
    update effect.attempt t
    set finished_at = pg_catalog.clock_timestamp(), phase = settle.phase, answer = settle.answer, status = settle.status,
        request_id = settle.request_id, object = settle.object, response = pg_catalog.substr(settle.response, 1, 65536), error = settle.error,
        late = e.state <> 'claimed' or e.epoch <> a.epoch
    where t.effect = a.effect and t.epoch = a.epoch
    returning t.* into a;
  elsif e.epoch = a.epoch and not a.late and (a.phase, a.answer) is not distinct from (settle.phase, settle.answer) then
    return e.state;
  end if;
  if e.state <> 'claimed' or e.epoch <> a.epoch then
    if a.answer = 'done' and e.state in ('planned', 'in_doubt', 'needs_human') then
      perform effect.believe(e);
    end if;
    return 'stale';
  end if;

  -- So that no figure of a provider's stops it for years.
  if settle.retry_after > interval '1 day' then
    settle.retry_after := interval '1 day';
  end if;
  select o.* into p from effect.provider o where o.name = e.provider;
  if a.answer = 'done' then
    result := 'done';
  elsif e.attempts > 1 and exists (select from effect.attempt l where l.effect = e.id and l.answer = 'done') then
    result := 'late';
  elsif a.answer = 'refused' and a.kind <> 'ask'
        and (e.doubt_since is null or (a.phase = 'answered' and a.finished_at <= e.key_valid_until)) then
    result := 'failed';
  elsif a.answer = 'absent' or (e.doubt_since is null and effect.is_harmless(a)) then
    result := 'planned';
  end if;
  if result is null then
    result := effect.doubt(e, not effect.is_harmless(a) and not (
      coalesce(e.key_valid_until > pg_catalog.clock_timestamp(), false)
      and exists (select from effect.pressure r where r.provider = p.name and r.open_until is not null)), settle.retry_after);
  elsif result = 'late' then
    perform effect.believe(e);
    result := 'done';
  else
    update effect.effect f
    set state = result, worker = null, claim_expires_at = null,
        object = coalesce(a.object, f.object),
        settled_at = case when result <> 'planned' then pg_catalog.clock_timestamp() end,
        evidence = case when result <> 'planned' then case a.kind when 'call' then 'answer' else a.kind end end,
        doubt_since = case when result <> 'planned' then f.doubt_since end,
        not_before = case when result <> 'planned' then f.not_before
                          when tried then pg_catalog.clock_timestamp()
                               + greatest(effect.pause(p.retry_first, p.retry_max, e.attempts - 1), settle.retry_after)
                          else pg_catalog.clock_timestamp() end
    where f.id = e.id;
  end if;
  if not tried then
    return result;
  end if;
  perform effect.weigh(p, a.answer in ('failing', 'unauthorized', 'not_now') or (a.phase <> 'answered' and a.answer is null),
                       a.answer is not distinct from 'unauthorized', a.started_at, settle.retry_after);
  return result;
end
$$;
comment on function effect.settle(bigint, bigint, text, text, integer, text, text, bytea, text, interval, boolean) is
  'Records the end of an attempt, and returns the new state of its effect; stale: the claim was over, and the evidence was kept '
  '(that it is done is believed even then). Can be repeated. tried is false when the provider has nothing '
  'to do with it: the claim is given back. One in a transaction: several could wait for each other.';

create or replace function effect.claim(provider text, worker text, effects_max integer default 1) returns setof effect.claimed
language plpgsql volatile set enable_seqscan = off set enable_sort = off as $$
declare
  now_at constant timestamptz := pg_catalog.clock_timestamp();
  p      effect.provider;
  q      effect.pressure;
  room   integer := effects_max;
  ids    bigint[] := '{}';
  retries_max integer := 0;
  counted     boolean := false;
  one    effect.claimed;
begin
  perform effect.make_durable();
  select o.* into p from effect.provider o where o.name = claim.provider;
  if not found then
    raise exception 'provider "%" is not registered', claim.provider
      using errcode = 'undefined_object', hint = 'select effect.register(name, settings) once.';
  end if;
  perform effect.expire(p.name);
  -- Where nothing is to be counted, workers do not wait for each other.
  select r.* into q from effect.pressure r where r.provider = p.name;
  if q.open_until is not null or q.tokens < p.retry_reserve or exists (
    select from effect.effect e
    where e.provider = p.name and (e.state = 'in_doubt' or (e.state = 'planned' and e.attempts > 0)) and e.not_before <= now_at) then
    select r.* into q from effect.pressure r where r.provider = p.name for update;
    counted := true;
  end if;
  if q.open_until > now_at or q.probing_until > now_at then
    return;
  end if;
  if q.open_until is not null then
    room := 1;
  end if;
  q.tokens := least(p.retry_reserve, q.tokens + extract(epoch from greatest(now_at - q.refilled_at, interval '0')) / 60 * p.retry_per_minute);
  if counted then
    retries_max := least(room, pg_catalog.floor(q.tokens)::integer);
  end if;
  -- Retries that go on failing must not be all that a provider is ever probed with; but in an outage a probe can leave a doubt, and
  -- one that is in doubt already loses nothing by it.
  if q.open_until is not null and exists (
    select from effect.effect e where e.provider = p.name and e.state = 'planned' and e.attempts = 0)
    and q.opened % (case when exists (
      select from effect.effect e where e.provider = p.name and e.state = 'in_doubt' and e.not_before <= now_at) then 16 else 2 end) = 1 then
    retries_max := 0;
  end if;

  if retries_max > 0 then
    ids := array(select e.id from effect.effect e
                 where e.provider = p.name and (e.state = 'in_doubt' or (e.state = 'planned' and e.attempts > 0)) and e.not_before <= now_at
                 order by e.not_before limit retries_max for update skip locked);
  end if;
  ids := ids || array(select e.id from effect.effect e where e.provider = p.name and e.state = 'planned' and e.attempts = 0
                      order by e.planned_at limit room - pg_catalog.cardinality(ids) for update skip locked);
  for i in 1 .. pg_catalog.cardinality(ids) loop
    one := effect.take(ids[i], claim.worker, p);
    if one.effect_id is null then
      continue;
    end if;
    q.tokens := case when one.attempts = 1 then least(p.retry_reserve, q.tokens + p.retry_share) else q.tokens - 1 end;
    q.probing_until := case when q.open_until is not null then now_at + p.claim_ttl end;
    return next one;
  end loop;
  if counted and pg_catalog.cardinality(ids) > 0 then
    update effect.pressure r set tokens = q.tokens, refilled_at = now_at, probing_until = q.probing_until where r.provider = p.name;
  end if;
end
$$;
comment on function effect.claim(text, text, integer) is
  'Claims effects of a provider that are to be carried out now, as far as the retry budget and the breaker allow. '
  'Commit before the provider is called. One in a transaction.';

create or replace function effect.resolve(effect_id bigint, resolution text, decided_by text, why text, object text default null) returns text
language plpgsql volatile as $$
declare
  e effect.effect;
begin
  perform effect.make_durable();
  select f.* into e from effect.effect f where f.id = resolve.effect_id for update;
  if not found then
    raise exception 'there is no effect %', resolve.effect_id using errcode = 'no_data_found';
  end if;
  if e.state = 'claimed' and e.claim_expires_at < pg_catalog.clock_timestamp() then
    -- No worker need be there to find it out.
    perform effect.doubt(e, true, null);
    select f.* into e from effect.effect f where f.id = resolve.effect_id;
  end if;
  if e.state = 'claimed' then
    raise exception 'effect % is under way until %', e.id, e.claim_expires_at
      using errcode = 'object_not_in_prerequisite_state', hint = 'Wait until then: it will be settled, or in doubt.';
  end if;
  if e.state = 'planned' and resolve.resolution = 'resend' then
    raise exception 'effect % is planned and cannot become planned: it is not in doubt', e.id
      using errcode = 'object_not_in_prerequisite_state', hint = 'A worker carries it out.';
  end if;
  insert into effect.decision (effect, decided_by, why, resolution, from_state, epoch)
  values (e.id, resolve.decided_by, resolve.why, resolve.resolution, e.state, e.epoch);
  if resolve.resolution = 'resend' then
    update effect.effect f
    set state = 'planned', generation = e.generation + 1, resent_as = e.effect_key || '##' || (e.generation + 1), doubt_since = null,
        doubts = 0, key_valid_until = null, not_before = pg_catalog.clock_timestamp()
    where f.id = e.id;
    return 'planned';
  end if;
  update effect.effect f
  set state = resolve.resolution, settled_at = pg_catalog.clock_timestamp(), evidence = 'decision', object = coalesce(resolve.object, f.object)
  where f.id = e.id;
  return resolve.resolution;
end
$$;
comment on function effect.resolve(bigint, text, text, text, text) is
  'Records a decision about an effect in doubt: done, failed or resend (as another request, so that it may happen twice). '
  'A planned one can be failed.';

-- A time that is not the same in each row cannot be looked for in an index.
create or replace function effect.prune(keep interval, rows_max integer default 1000) returns bigint language plpgsql volatile as $$
declare
  until constant timestamptz := pg_catalog.clock_timestamp() - keep;
  gone  bigint;
begin
  delete from effect.effect e where e.id = any (array(
    select d.id from effect.effect d where d.settled_at < until order by d.settled_at limit rows_max));
  get diagnostics gone = row_count;
  return gone;
end
$$;
comment on function effect.prune(interval, integer) is
  'Deletes effects that were settled longer ago, with their evidence; says how many. A message that comes again later would plan them anew.';
