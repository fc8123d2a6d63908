-- SPDX-License-Identifier: Apache-2.0
-- Claiming effects for attempts, within the retry budget and the circuit breaker of their provider.

-- No effect key ends with ##N, so that no effect is given the key of another.
create or replace function effect.provider_key(e effect.effect)
returns text language sql stable
set search_path = pg_catalog, pg_temp as $$
  select e.effect_key || case when e.generation > 1 then '##' || e.generation else '' end
$$;
comment on function effect.provider_key(effect.effect) is
  'The deduplication key (idempotency key) that the provider receives.';

create or replace function effect.expire(
  provider text, since timestamptz default '-infinity')
returns integer language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  -- Not in the query: there the index would not be searched by a time that is volatile.
  now_at  constant timestamptz := pg_catalog.clock_timestamp();
  e       effect.effect;
  expired integer := 0;
begin
  for e in
    select f.* from effect.effect f
    where f.provider = expire.provider and f.state = 'claimed'
      and f.claim_expires_at >= since and f.claim_expires_at < now_at
    order by f.claim_expires_at limit 100 for update skip locked
  loop
    perform effect.mark_in_doubt(e, true, null);
    expired := expired + 1;
  end loop;
  return expired;
end
$$;
comment on function effect.expire(text, timestamptz) is
  'Marks effects whose claims have expired as in doubt, and returns how many. claim() calls it '
  'first.';

create or replace function effect.claim_one(
  candidate bigint, claimed_by text, p effect.provider)
returns effect.claimed language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  e         effect.effect;
  step      text;
  last      timestamptz;
  key_until timestamptz;
begin
  select f.* into e from effect.effect f where f.id = candidate;
  step := case when e.attempts = 0 then 'call' else effect.next_step(e) end;
  if step = 'late_answer' then
    perform effect.apply_late_answer(e);
    return null;
  elsif e.state = 'planned' then
    step := 'call';
    key_until := pg_catalog.clock_timestamp() + p.idempotency_window - p.window_margin;
    -- The provider may have received the key in an earlier attempt: then its window began earlier.
    if key_until is not null and e.attempts > 0 and exists (
      select from effect.attempt a
      where a.effect = e.id and a.phase is distinct from 'nothing') then
      key_until := least(key_until, e.key_valid_until);
    end if;
  elsif step = 'operator' then
    update effect.effect f set state = 'needs_review' where f.id = e.id;
    return null;
  elsif step = 'lookup' then
    select pg_catalog.max(coalesce(a.finished_at, a.started_at + p.claim_ttl)) into last
    from effect.attempt a where a.effect = e.id and a.kind <> 'lookup';
    if last + p.lookup_delay > pg_catalog.clock_timestamp() then
      update effect.effect f set not_before = last + p.lookup_delay where f.id = e.id;
      return null;
    end if;
  end if;
  update effect.effect f
  set state = 'claimed', epoch = e.epoch + 1, attempts = e.attempts + 1, worker = claimed_by,
      claim_expires_at = pg_catalog.clock_timestamp() + p.claim_ttl,
      key_valid_until = case step when 'call' then key_until else e.key_valid_until end
  where f.id = e.id;
  insert into effect.attempt (effect, epoch, kind, worker)
  values (e.id, e.epoch + 1, step, claimed_by);
  return row(e.id, e.epoch + 1, step, e.attempts + 1, e.effect_key, effect.provider_key(e),
             e.target, e.body, p.claim_ttl);
end
$$;
comment on function effect.claim_one(bigint, text, effect.provider) is
  'Claims one effect that the transaction has locked, or resolves it without an attempt; null: '
  'nothing was claimed. For claim().';

-- Settled effects stay in the indexes as long as anybody has an old snapshot open: a look that
-- begins at the head of an index walks over all of them. When that takes long, the next looks begin
-- at the oldest effect that is left. They miss what was planned a second before and committed
-- since, so that a look from the beginning follows, at most one part in 200 of the time.
create or replace function effect.begin_here(
  provider text, planned_from timestamptz, retry_from timestamptz, expire_from timestamptz,
  took interval)
returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off as $$
declare
  now_at constant timestamptz := pg_catalog.clock_timestamp();
  latest constant timestamptz := now_at - interval '1 second';
begin
  perform from effect.throttle r where r.provider = begin_here.provider for update skip locked;
  if not found then
    return;
  end if;
  update effect.throttle r
  set planned_from = least(latest, (
        select e.planned_at from effect.effect e
        where e.provider = begin_here.provider and e.state = 'planned' and e.attempts = 0
          and e.planned_at >= begin_here.planned_from
        order by e.planned_at limit 1)),
      retry_from = least(latest, (
        select e.not_before from effect.effect e
        where e.provider = begin_here.provider
          and (e.state = 'in_doubt' or (e.state = 'planned' and e.attempts > 0))
          and e.not_before >= begin_here.retry_from
        order by e.not_before limit 1)),
      expire_from = least(latest, (
        select e.claim_expires_at from effect.effect e
        where e.provider = begin_here.provider and e.state = 'claimed'
          and e.claim_expires_at >= begin_here.expire_from
        order by e.claim_expires_at limit 1)),
      noted_at = now_at,
      whole_look_at = case when begin_here.planned_from = '-infinity'
                           then now_at + least(200 * took, interval '1 minute')
                           else r.whole_look_at end
  where r.provider = begin_here.provider;
end
$$;
comment on function effect.begin_here(text, timestamptz, timestamptz, timestamptz, interval) is
  'Notes where claim() begins to look from now on, after a look that began there and took so '
  'long. For claim().';

-- Plans must not flip to a walk along all settled effects: the plans that remain use the partial
-- indexes.
create or replace function effect.claim(
  provider text, worker text, effects_max integer default 1)
returns setof effect.claimed
language plpgsql volatile
set search_path = pg_catalog, pg_temp set enable_seqscan = off set enable_sort = off as $$
declare
  now_at       constant timestamptz := pg_catalog.clock_timestamp();
  p            effect.provider;
  q            effect.throttle;
  room         integer := effects_max;
  ids          bigint[] := '{}';
  retries_max  integer := 0;
  counted      boolean := false;
  whole        boolean;
  planned_from timestamptz;
  retry_from   timestamptz;
  expire_from  timestamptz;
  waiting_from timestamptz;
  began        timestamptz := now_at;  -- later by what it waited for
  took         interval;
  one          effect.claimed;
begin
  perform effect.make_durable();
  select o.* into p from effect.provider o where o.name = claim.provider;
  if not found then
    raise exception 'provider "%" is not registered', claim.provider
      using errcode = 'undefined_object', hint = 'select effect.register(name, settings) once.';
  end if;
  -- Workers wait for each other only where something is counted.
  select r.* into q from effect.throttle r where r.provider = p.name;
  -- Where the clock ran back, what was noted lies in the future.
  whole := q.whole_look_at <= now_at or q.noted_at > now_at;
  planned_from := case when whole then '-infinity' else q.planned_from end;
  retry_from := case when whole then '-infinity' else q.retry_from end;
  expire_from := case when whole then '-infinity' else q.expire_from end;
  perform effect.expire(p.name, expire_from);
  if q.open_until is not null or q.tokens < p.retry_budget_burst or exists (
    select from effect.effect e
    where e.provider = p.name
      and (e.state = 'in_doubt' or (e.state = 'planned' and e.attempts > 0))
      and e.not_before >= retry_from and e.not_before <= now_at) then
    waiting_from := pg_catalog.clock_timestamp();
    select r.* into q from effect.throttle r where r.provider = p.name for update;
    began := began + (pg_catalog.clock_timestamp() - waiting_from);
    counted := true;
  end if;
  if q.open_until > now_at or q.probing_until > now_at then
    return;
  end if;
  if q.open_until is not null then
    room := 1;
  end if;
  q.tokens := least(p.retry_budget_burst,
                    q.tokens + extract(epoch from greatest(now_at - q.refilled_at, interval '0'))
                               / 60 * p.retry_per_minute);
  if counted then
    retries_max := least(room, pg_catalog.floor(q.tokens)::integer);
  end if;
  -- Failing retries must not be the only probes of a provider. But in an outage a first attempt
  -- used as a probe can end in doubt, while an effect that is in doubt already loses nothing.
  if q.open_until is not null and exists (
    select from effect.effect e
    where e.provider = p.name and e.state = 'planned' and e.attempts = 0
      and e.planned_at >= planned_from)
    and q.opened % (case when exists (
      select from effect.effect e
      where e.provider = p.name and e.state = 'in_doubt'
        and e.not_before >= retry_from and e.not_before <= now_at)
      then 16 else 2 end) = 1 then
    retries_max := 0;
  end if;

  if retries_max > 0 then
    ids := array(select e.id from effect.effect e
                 where e.provider = p.name
                   and (e.state = 'in_doubt' or (e.state = 'planned' and e.attempts > 0))
                   and e.not_before >= retry_from and e.not_before <= now_at
                 order by e.not_before limit retries_max for update skip locked);
  end if;
  ids := ids || array(select e.id from effect.effect e
                      where e.provider = p.name and e.state = 'planned' and e.attempts = 0
                        and e.planned_at >= planned_from
                      order by e.planned_at limit room - pg_catalog.cardinality(ids)
                      for update skip locked);
  took := pg_catalog.clock_timestamp() - began;
  if took > interval '1 millisecond'
     and (whole or q.noted_at < now_at - interval '500 milliseconds') then
    perform effect.begin_here(p.name, planned_from, retry_from, expire_from, took);
  end if;
  for i in 1 .. pg_catalog.cardinality(ids) loop
    one := effect.claim_one(ids[i], claim.worker, p);
    if one.effect_id is null then
      continue;
    end if;
    q.tokens := case when one.attempts = 1
                     then least(p.retry_budget_burst, q.tokens + p.retry_budget_ratio)
                     else q.tokens - 1 end;
    q.probing_until := case when q.open_until is not null then now_at + p.claim_ttl end;
    return next one;
  end loop;
  if counted and pg_catalog.cardinality(ids) > 0 then
    update effect.throttle r
    set tokens = q.tokens, refilled_at = now_at, probing_until = q.probing_until
    where r.provider = p.name;
  end if;
end
$$;
comment on function effect.claim(text, text, integer) is
  'Claims effects of a provider that are due, as far as the retry budget and the circuit '
  'breaker allow. Commit before the provider is called. One in a transaction.';
