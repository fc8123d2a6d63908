-- SPDX-License-Identifier: Apache-2.0
-- Recording the end of an attempt, its consequences for the effect and for the circuit breaker.

-- @include common/make_durable.sql

create or replace function effect.backoff(first interval, longest interval, n integer)
returns interval language sql volatile
set search_path = pg_catalog, pg_temp as $$
  select least(longest, first * pg_catalog.power(2, least(n, 20)))
         * (0.5 + pg_catalog.random() / 2)
$$;
comment on function effect.backoff(interval, interval, integer) is
  'A backoff that doubles with n, of which half is random.';

create or replace function effect.mark_in_doubt(
  e effect.effect, counts boolean, retry_after interval)
returns text language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  p    effect.provider;
  step text;
begin
  select o.* into p from effect.provider o where o.name = e.provider;
  e.in_doubt_attempts := e.in_doubt_attempts + counts::integer;
  step := effect.next_step(e);
  update effect.effect f
  set state = case step when 'operator' then 'needs_review' else 'in_doubt' end,
      worker = null, claim_expires_at = null, in_doubt_attempts = e.in_doubt_attempts,
      in_doubt_since = coalesce(
        f.in_doubt_since,
        (select a.started_at from effect.attempt a where a.effect = e.id and a.epoch = e.epoch),
        f.claim_expires_at),
      not_before = pg_catalog.clock_timestamp()
                   + greatest(effect.backoff(p.retry_first, p.retry_max, e.attempts - 1),
                              coalesce(retry_after, interval '0'),
                              case step when 'lookup' then p.lookup_delay end)
  where f.id = e.id;
  return case step when 'operator' then 'needs_review' else 'in_doubt' end;
end
$$;
comment on function effect.mark_in_doubt(effect.effect, boolean, interval) is
  'Ends a claim with an unknown outcome, which counts for in_doubt_attempts or not. Returns '
  'the new state: whether a rule or an operator resolves it.';

create or replace function effect.apply_late_answer(e effect.effect)
returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
begin
  update effect.effect f
  set state = 'done', settled_at = pg_catalog.clock_timestamp(), evidence = 'late_answer',
      worker = null, claim_expires_at = null,
      object = (select a.object from effect.attempt a where a.effect = e.id and a.answer = 'done'
                order by a.epoch limit 1)
  where f.id = e.id;
end
$$;
comment on function effect.apply_late_answer(effect.effect) is
  'Settles an effect that was executed by an attempt whose claim was over when its answer came.';

-- A provider that remembers an answer for a key repeats it, and some answers concern one request
-- alone: while others are answered, the same effect failing again says nothing about the provider.
create or replace function effect.failed_before(a effect.attempt)
returns boolean language sql stable
set search_path = pg_catalog, pg_temp as $$
  select a.answer in ('failing', 'unauthorized', 'not_now') and exists (
    select from effect.attempt l
    where l.effect = a.effect and l.epoch < a.epoch
      and l.answer in ('failing', 'unauthorized', 'not_now'))
$$;
comment on function effect.failed_before(effect.attempt) is
  'Whether the provider has answered that the effect fails, not for the first time.';

-- A probe that fails opens the breaker for longer. Attempts that were under way when it opened do
-- not change it.
create or replace function effect.record_breaker_result(
  p effect.provider, failed boolean, again boolean, at_once boolean, started_at timestamptz,
  retry_after interval)
returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  now_at constant timestamptz := pg_catalog.clock_timestamp();
  q      effect.throttle;
begin
  if not failed and retry_after is null then
    perform from effect.throttle r
    where r.provider = p.name and (r.failures > 0 or r.open_until is not null);
    if not found then
      return;
    end if;
  end if;
  select r.* into q from effect.throttle r where r.provider = p.name for update;
  if not failed and retry_after is null then
    q.failures := 0;
    if q.open_until <= record_breaker_result.started_at then
      q.opened := 0;
      q.open_until := null;
      q.probing_until := null;
    end if;
  else
    q.failures := case when not failed or again then q.failures
                       when at_once then greatest(q.failures + 1, p.breaker_failures)
                       else q.failures + 1 end;
    if (retry_after is not null or q.open_until is not null or q.failures >= p.breaker_failures)
       and coalesce(q.open_until <= record_breaker_result.started_at, true) then
      q.open_until := now_at + greatest(effect.backoff(p.probe_first, p.probe_max, q.opened),
                                        coalesce(retry_after, interval '0'));
      q.opened := q.opened + failed::integer;
      q.probing_until := null;
    elsif retry_after is not null then
      q.open_until := greatest(q.open_until, now_at + retry_after);
    end if;
  end if;
  update effect.throttle r
  set failures = q.failures, opened = q.opened, open_until = q.open_until,
      probing_until = q.probing_until
  where r.provider = p.name;
end
$$;
comment on function effect.record_breaker_result(
  effect.provider, boolean, boolean, boolean, timestamptz, interval) is
  'Records the end of an attempt for the circuit breaker. again: does not count, but as a probe; '
  'at_once: opens it without counting.';

create or replace function effect.settle(
  effect_id bigint, epoch bigint, phase text, answer text default null,
  status integer default null, request_id text default null, object text default null,
  response bytea default null, error text default null, retry_after interval default null,
  tried boolean default true)
returns text language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  e      effect.effect;
  a      effect.attempt;
  p      effect.provider;
  again  boolean;
  result text;
begin
  perform effect.make_durable();
  select f.* into e from effect.effect f where f.id = settle.effect_id for update;
  select t.* into a from effect.attempt t
  where t.effect = settle.effect_id and t.epoch = settle.epoch;
  if not found then
    raise exception 'effect % has no attempt %', settle.effect_id, settle.epoch
      using errcode = 'no_data_found';
  end if;
  if a.finished_at is null then
    update effect.attempt t
    set finished_at = pg_catalog.clock_timestamp(), phase = settle.phase, answer = settle.answer,
        status = settle.status, request_id = settle.request_id, object = settle.object,
        response = pg_catalog.substr(settle.response, 1, 65536), error = settle.error,
        late = e.state <> 'claimed' or e.epoch <> a.epoch
    where t.effect = a.effect and t.epoch = a.epoch
    returning t.* into a;
  elsif e.epoch = a.epoch and not a.late
        and (a.phase, a.answer) is not distinct from (settle.phase, settle.answer) then
    return e.state;
  end if;
  if e.state <> 'claimed' or e.epoch <> a.epoch then
    if a.answer = 'done' and e.state in ('planned', 'in_doubt', 'needs_review') then
      perform effect.apply_late_answer(e);
    end if;
    return 'stale';
  end if;

  -- A provider's figure must not stop it for years.
  if settle.retry_after > interval '1 day' then
    settle.retry_after := interval '1 day';
  end if;
  select o.* into p from effect.provider o where o.name = e.provider;
  again := coalesce(effect.failed_before(a), false);
  if a.answer = 'done' then
    result := 'done';
  elsif e.attempts > 1 and exists (
    select from effect.attempt l where l.effect = e.id and l.answer = 'done') then
    result := 'late';
  elsif a.answer = 'refused' and a.kind <> 'lookup'
        and (e.in_doubt_since is null
             or (a.phase = 'answered' and a.finished_at <= e.key_valid_until)) then
    result := 'failed';
  elsif a.answer = 'absent' or (e.in_doubt_since is null and effect.is_harmless(a)) then
    result := 'planned';
  end if;
  if result is null then
    result := effect.mark_in_doubt(
      e,
      not effect.is_harmless(a) and not (
        coalesce(e.key_valid_until > pg_catalog.clock_timestamp(), false)
        and (again or exists (select from effect.throttle r
                              where r.provider = p.name and r.open_until is not null))),
      settle.retry_after);
  elsif result = 'late' then
    perform effect.apply_late_answer(e);
    result := 'done';
  else
    update effect.effect f
    set state = result, worker = null, claim_expires_at = null,
        object = coalesce(a.object, f.object),
        settled_at = case when result <> 'planned' then pg_catalog.clock_timestamp() end,
        evidence = case when result <> 'planned'
                        then case a.kind when 'call' then 'answer' else a.kind end end,
        in_doubt_since = case when result <> 'planned' then f.in_doubt_since end,
        not_before = case when result <> 'planned' then f.not_before
                          when tried then
                            pg_catalog.clock_timestamp()
                            + greatest(effect.backoff(p.retry_first, p.retry_max, e.attempts - 1),
                                       settle.retry_after)
                          else pg_catalog.clock_timestamp() end
    where f.id = e.id;
  end if;
  if not tried then
    -- Another attempt can be the probe.
    update effect.throttle r set probing_until = null
    where r.provider = p.name and r.open_until <= a.started_at and r.probing_until is not null;
    return result;
  end if;
  perform effect.record_breaker_result(
    p,
    a.answer in ('failing', 'unauthorized', 'not_now')
    or (a.phase <> 'answered' and a.answer is null),
    again, a.answer is not distinct from 'unauthorized', a.started_at, settle.retry_after);
  return result;
end
$$;
comment on function effect.settle(
  bigint, bigint, text, text, integer, text, text, bytea, text, interval, boolean) is
  'Records the end of an attempt, and returns the new state of its effect; stale: the claim '
  'was over, and the evidence was kept (the answer done settles the effect even then). Can be '
  'repeated. tried is false when the provider was not involved: the claim is given back. One '
  'in a transaction: several could wait for each other.';
