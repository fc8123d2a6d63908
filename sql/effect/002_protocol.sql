-- SPDX-License-Identifier: Apache-2.0
-- What workers and operators call: plan, claim, settle, resolve. The rules themselves are in 001_ledger.sql.

create function effect.make_durable() returns void language plpgsql volatile as $$
begin
  if pg_catalog.current_setting('synchronous_commit') not in ('on', 'remote_apply') then
    perform pg_catalog.set_config('synchronous_commit', 'on', true);
  end if;
end
$$;
comment on function effect.make_durable() is
  'Makes the current transaction wait for its commit to be durable, whatever the session says: a claim that is forgotten is a second charge.';

create function effect.pause(first interval, longest interval, n integer) returns interval language sql volatile as $$
  select least(longest, first * pg_catalog.power(2, least(n, 20))) * (0.5 + pg_catalog.random() / 2)
$$;
comment on function effect.pause(interval, interval, integer) is 'A pause that doubles with n; between half of it and all of it.';

create function effect.register(provider text, settings jsonb) returns void language plpgsql volatile as $$
declare
  wrong text;
  p     effect.provider;
begin
  select k into wrong from pg_catalog.jsonb_object_keys(settings) k
  where k = 'name' or not pg_catalog.to_jsonb(pg_catalog.jsonb_populate_record(null::effect.provider, '{}')) ? k limit 1;
  if found then
    raise exception 'provider %: there is no setting "%"', provider, wrong
      using errcode = 'undefined_parameter', hint = 'The settings are the columns of effect.provider.';
  end if;
  if not exists (select from effect.provider o where o.name = register.provider) then
    insert into effect.provider (name, on_doubt) values (register.provider, settings ->> 'on_doubt') on conflict (name) do nothing;
  end if;
  -- A stronger lock would wait for every transaction that has planned something.
  select o.* into p from effect.provider o where o.name = register.provider for no key update;
  p := pg_catalog.jsonb_populate_record(p, settings);
  update effect.provider o
  set (on_doubt, key_window, window_margin, can_ask, absence_delay, claim_ttl, doubts_max, retry_first, retry_max, retry_share, retry_reserve,
       retry_per_minute, breaker_failures, probe_first, probe_max)
    = (p.on_doubt, p.key_window, p.window_margin, p.can_ask, p.absence_delay, p.claim_ttl, p.doubts_max, p.retry_first, p.retry_max,
       p.retry_share, p.retry_reserve, p.retry_per_minute, p.breaker_failures, p.probe_first, p.probe_max)
  where o.name = p.name and o is distinct from p;
  insert into effect.pressure (provider, tokens) values (p.name, p.retry_reserve) on conflict do nothing;
end
$$;
comment on function effect.register(text, jsonb) is
  'Makes a provider known, or changes its settings: the columns of effect.provider. on_doubt is required at first.';

create function effect.plan(provider text, effect_key text, target jsonb, body bytea, dedup_key text default null, summary text default null)
returns bigint language plpgsql volatile as $$
declare
  planned bigint;
  hash    bytea;
begin
  insert into effect.effect (provider, effect_key, target, body, dedup_key, summary)
  values (plan.provider, plan.effect_key, plan.target, plan.body, plan.dedup_key, plan.summary)
  on conflict on constraint effect_provider_effect_key_key do nothing returning id into planned;
  if found then
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

create type effect.claimed as (effect_id bigint, epoch bigint, kind text, attempts integer, effect_key text, provider_key text,
                               target jsonb, body bytea, ttl interval);
comment on type effect.claimed is
  'What a worker is to do: kind is call, repeat (the same request again) or ask (what became of it); within ttl, counted from before the '
  'claim was asked for.';

create function effect.provider_key(e effect.effect) returns text language sql stable as $$
  select e.effect_key || case when e.generation > 1 then '#' || e.generation else '' end
$$;
comment on function effect.provider_key(effect.effect) is 'What the provider is to tell repeats by.';

-- The state of an effect after an attempt of which nobody knows.
create function effect.doubt(e effect.effect, counts boolean, retry_after interval) returns text language plpgsql volatile as $$
declare
  p    effect.provider;
  step text;
begin
  select o.* into p from effect.provider o where o.name = e.provider;
  e.doubts := e.doubts + counts::integer;
  step := effect.next_step(e);
  update effect.effect f
  set state = case step when 'person' then 'needs_human' else 'in_doubt' end, worker = null, claim_expires_at = null, doubts = e.doubts,
      doubt_since = coalesce(f.doubt_since, (select a.started_at from effect.attempt a where a.effect = e.id and a.epoch = e.epoch),
                             f.claim_expires_at),
      not_before = pg_catalog.clock_timestamp()
                   + greatest(effect.pause(p.retry_first, p.retry_max, e.attempts - 1), coalesce(retry_after, interval '0'),
                              case step when 'ask' then p.absence_delay end)
  where f.id = e.id;
  return case step when 'person' then 'needs_human' else 'in_doubt' end;
end
$$;
comment on function effect.doubt(effect.effect, boolean, interval) is
  'Ends a claim with a doubt, which counts or not; says whether a rule or a person will resolve it.';

create function effect.believe(e effect.effect) returns void language plpgsql volatile as $$
begin
  update effect.effect f
  set state = 'done', settled_at = pg_catalog.clock_timestamp(), evidence = 'late_answer', worker = null, claim_expires_at = null,
      object = (select a.object from effect.attempt a where a.effect = e.id and a.answer = 'done' order by a.epoch limit 1)
  where f.id = e.id;
end
$$;
comment on function effect.believe(effect.effect) is 'Settles an effect that an attempt carried out whose claim was over when its answer came.';

create function effect.expire(provider text) returns integer language plpgsql volatile as $$
declare
  e       effect.effect;
  expired integer := 0;
begin
  for e in
    select f.* from effect.effect f
    where f.provider = expire.provider and f.state = 'claimed' and f.claim_expires_at < pg_catalog.clock_timestamp()
    order by f.claim_expires_at limit 100 for update skip locked
  loop
    perform effect.doubt(e, true, null);
    expired := expired + 1;
  end loop;
  return expired;
end
$$;
comment on function effect.expire(text) is 'Puts effects in doubt whose claims have expired; says how many. claim() does it first.';

-- Takes one effect for one attempt, or resolves it without; null: there is nothing to do.
create function effect.take(taken bigint, taker text, p effect.provider) returns effect.claimed language plpgsql volatile as $$
declare
  e    effect.effect;
  step text;
  last timestamptz;
  key_until timestamptz;
begin
  select f.* into e from effect.effect f where f.id = taken;
  step := case when e.attempts = 0 then 'call' else effect.next_step(e) end;
  if step = 'late_answer' then
    perform effect.believe(e);
    return null;
  elsif e.state = 'planned' then
    step := 'call';
    key_until := pg_catalog.clock_timestamp() + p.key_window - p.window_margin;
    -- The provider may have known the key since an earlier attempt, and forget it so much earlier.
    if key_until is not null and e.attempts > 0 and exists (
      select from effect.attempt a where a.effect = e.id and a.phase is distinct from 'nothing') then
      key_until := least(key_until, e.key_valid_until);
    end if;
  elsif step = 'person' then
    update effect.effect f set state = 'needs_human' where f.id = e.id;
    return null;
  elsif step = 'ask' then
    select pg_catalog.max(coalesce(a.finished_at, a.started_at + p.claim_ttl)) into last
    from effect.attempt a where a.effect = e.id and a.kind <> 'ask';
    if last + p.absence_delay > pg_catalog.clock_timestamp() then
      update effect.effect f set not_before = last + p.absence_delay where f.id = e.id;
      return null;
    end if;
  end if;
  update effect.effect f
  set state = 'claimed', epoch = e.epoch + 1, attempts = e.attempts + 1, worker = taker,
      claim_expires_at = pg_catalog.clock_timestamp() + p.claim_ttl,
      key_valid_until = case step when 'call' then key_until else e.key_valid_until end
  where f.id = e.id;
  insert into effect.attempt (effect, epoch, kind, worker) values (e.id, e.epoch + 1, step, taker);
  return row(e.id, e.epoch + 1, step, e.attempts + 1, e.effect_key, effect.provider_key(e), e.target, e.body, p.claim_ttl);
end
$$;
comment on function effect.take(bigint, text, effect.provider) is 'Claims one effect that is held by the transaction. For claim().';

-- Plans must not flip to a walk along what is settled long ago: those that remain use the partial indexes.
create function effect.claim(provider text, worker text, effects_max integer default 1) returns setof effect.claimed
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

-- A probe that fails opens the breaker for longer; what was under way when it opened says nothing new.
create function effect.weigh(p effect.provider, failed boolean, at_once boolean, started_at timestamptz, retry_after interval)
returns void language plpgsql volatile as $$
declare
  now_at constant timestamptz := pg_catalog.clock_timestamp();
  q      effect.pressure;
begin
  if not failed and retry_after is null then
    perform from effect.pressure r where r.provider = p.name and (r.failures > 0 or r.open_until is not null);
    if not found then
      return;
    end if;
  end if;
  select r.* into q from effect.pressure r where r.provider = p.name for update;
  if not failed and retry_after is null then
    q.failures := 0;
    if q.open_until <= weigh.started_at then
      q.opened := 0;
      q.open_until := null;
      q.probing_until := null;
    end if;
  else
    q.failures := case when not failed then q.failures when at_once then greatest(q.failures + 1, p.breaker_failures) else q.failures + 1 end;
    if (retry_after is not null or q.failures >= p.breaker_failures) and coalesce(q.open_until <= weigh.started_at, true) then
      q.open_until := now_at + greatest(effect.pause(p.probe_first, p.probe_max, q.opened), coalesce(retry_after, interval '0'));
      q.opened := q.opened + failed::integer;
      q.probing_until := null;
    elsif retry_after is not null then
      q.open_until := greatest(q.open_until, now_at + retry_after);
    end if;
  end if;
  update effect.pressure r
  set failures = q.failures, opened = q.opened, open_until = q.open_until, probing_until = q.probing_until
  where r.provider = p.name;
end
$$;
comment on function effect.weigh(effect.provider, boolean, boolean, timestamptz, interval) is 'Counts the end of an attempt for the breaker.';

create function effect.settle(effect_id bigint, epoch bigint, phase text, answer text default null, status integer default null,
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
        and (e.doubt_since is null or (a.phase = 'answered' and a.started_at <= e.key_valid_until)) then
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

create function effect.resolve(effect_id bigint, resolution text, decided_by text, why text, object text default null) returns text
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
  insert into effect.decision (effect, decided_by, why, resolution, from_state, epoch)
  values (e.id, resolve.decided_by, resolve.why, resolve.resolution, e.state, e.epoch);
  if resolve.resolution = 'resend' then
    update effect.effect f
    set state = 'planned', generation = e.generation + 1, doubt_since = null, doubts = 0, key_valid_until = null,
        not_before = pg_catalog.clock_timestamp()
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

create function effect.prune(keep interval, rows_max integer default 1000) returns bigint language plpgsql volatile as $$
declare
  gone bigint;
begin
  delete from effect.effect e where e.id = any (array(
    select d.id from effect.effect d where d.settled_at < pg_catalog.clock_timestamp() - keep order by d.settled_at limit rows_max));
  get diagnostics gone = row_count;
  return gone;
end
$$;
comment on function effect.prune(interval, integer) is
  'Deletes effects that were settled longer ago, with their evidence; says how many. A message that comes again later would plan them anew.';

create view effect.unsettled as
select e.id, e.provider, e.effect_key, e.summary, e.dedup_key, coalesce(e.doubt_since, a.started_at) as doubt_since, e.attempts, e.doubts,
       a.kind, a.started_at, a.finished_at, a.phase, a.answer, a.status, a.request_id, a.error, e.key_valid_until,
       case e.state when 'needs_human' then 'person' else effect.next_step(e) end as next_step,
       case e.state when 'claimed' then e.claim_expires_at when 'in_doubt' then e.not_before end as next_at, e.state
from effect.effect e
left join effect.attempt a on a.effect = e.id and a.epoch = e.epoch
where e.state in ('in_doubt', 'needs_human') or (e.state = 'claimed' and e.claim_expires_at < pg_catalog.clock_timestamp());
comment on view effect.unsettled is 'Effects of which nobody knows whether they were carried out, with the last attempt and what resolves them.';
comment on column effect.unsettled.next_step is 'What resolves the doubt: late_answer, repeat, ask or person.';
comment on column effect.unsettled.next_at is 'When that is due; null: when a person decides.';

create view effect.in_doubt as
select u.id, u.provider, u.effect_key, u.summary, u.dedup_key, u.doubt_since, u.attempts, u.doubts, u.kind, u.started_at, u.finished_at,
       u.phase, u.answer, u.status, u.request_id, u.error, u.key_valid_until, u.next_step, u.next_at
from effect.unsettled u where u.state <> 'needs_human';
comment on view effect.in_doubt is 'Those that a rule resolves: see next_step and next_at.';

create view effect.needs_human as
select u.id, u.provider, u.effect_key, u.summary, u.dedup_key, u.doubt_since, u.attempts, u.doubts, u.kind, u.started_at, u.finished_at,
       u.phase, u.answer, u.status, u.request_id, u.error, u.key_valid_until
from effect.unsettled u where u.state = 'needs_human';
comment on view effect.needs_human is 'Those that a person has to decide about: effect.resolve().';
