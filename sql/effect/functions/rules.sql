-- SPDX-License-Identifier: Apache-2.0
-- The rules of the ledger: which change of an effect is legal, and on which evidence. Triggers
-- enforce them for every client, the functions of the ledger included.

create or replace function effect.is_harmless(a effect.attempt)
returns boolean language sql immutable
set search_path = pg_catalog, pg_temp as $$
  select coalesce((a.phase = 'nothing' and a.answer is null)
                  or a.answer in ('not_now', 'unauthorized'), false)
$$;
comment on function effect.is_harmless(effect.attempt) is
  'Whether this attempt cannot have had an effect, whatever became of others.';

-- A repeat must end before the provider stops deduplicating by the key.
create or replace function effect.next_step(e effect.effect)
returns text language sql stable
set search_path = pg_catalog, pg_temp as $$
  select case when exists (select from effect.attempt a where a.effect = e.id and a.answer = 'done')
                then 'late_answer'
              when e.in_doubt_attempts >= p.in_doubt_attempts_max then 'operator'
              when p.idempotency_window is not null
                   and pg_catalog.clock_timestamp() + p.claim_ttl <= e.key_valid_until then 'repeat'
              when p.supports_lookup then 'lookup'
              when p.in_doubt_policy = 'resend' then 'repeat'
              else 'operator' end
  from effect.provider p where p.name = e.provider
$$;
comment on function effect.next_step(effect.effect) is
  'What resolves the unknown outcome of this effect: late_answer, repeat (with the same key '
  'and bytes), lookup (ask the provider), or operator.';

-- A refusal of a repeat covers the earlier attempts only while the provider deduplicates by the
-- key, and never when the request was refused before it was sent. The time is that of the answer:
-- a repeat that was claimed in time can arrive too late.
create or replace function effect.has_evidence(
  o effect.effect, n effect.effect, a effect.attempt)
returns boolean language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
begin
  if n.evidence = 'decision' then
    return o.state <> 'claimed' and (o.state, n.state) <> ('planned', 'done')
           and n.state is not distinct from (
             select d.resolution from effect.decision d
             where d.effect = o.id and d.epoch = o.epoch order by d.decided_at desc limit 1);
  elsif n.evidence = 'late_answer' then
    return n.state = 'done' and exists (
      select from effect.attempt l
      where l.effect = o.id and l.answer = 'done' and (o.state <> 'claimed' or l.epoch <> o.epoch));
  end if;
  return coalesce(
    o.state = 'claimed'
    and n.evidence = case a.kind when 'call' then 'answer' else a.kind end
    and case n.state
          when 'done' then a.answer = 'done'
          else a.answer = 'refused' and a.kind <> 'lookup'
               and (o.in_doubt_since is null
                    or (a.phase = 'answered' and a.finished_at <= o.key_valid_until)) end, false);
end
$$;
comment on function effect.has_evidence(effect.effect, effect.effect, effect.attempt) is
  'Whether there is evidence for settling an effect: o before, n after the change, a the '
  'attempt of the present claim.';

create or replace function effect.transition_error(
  o effect.effect, n effect.effect, a effect.attempt)
returns text language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
begin
  case o.state || ' ' || n.state
    when 'planned claimed' then return null;
    when 'in_doubt claimed' then
      return case when effect.next_step(o) not in ('repeat', 'lookup')
                  then 'only an operator can resolve it' end;
    when 'claimed planned' then
      if not coalesce(effect.is_harmless(a) or a.answer = 'absent', false) then
        return 'no attempt shows that there was no effect';
      end if;
      return case when o.in_doubt_since is not null and a.answer is distinct from 'absent'
                  then 'an earlier attempt is in doubt' end;
    when 'claimed in_doubt', 'claimed needs_review' then
      return case when a.finished_at is null and o.claim_expires_at > pg_catalog.clock_timestamp()
                  then 'an attempt is under way' end;
    when 'claimed done', 'claimed failed', 'planned done', 'planned failed',
         'in_doubt done', 'in_doubt failed', 'needs_review done', 'needs_review failed' then
      return case when not effect.has_evidence(o, n, a)
                  then 'neither an answer nor a decision supports it' end;
    when 'in_doubt planned', 'needs_review planned' then
      return case when n.generation = o.generation then 'a resent effect needs a new key' end;
    when 'in_doubt needs_review', 'planned planned', 'in_doubt in_doubt' then return null;
    else return 'there is no such transition';
  end case;
end
$$;
comment on function effect.transition_error(effect.effect, effect.effect, effect.attempt) is
  'Why this change of state is illegal; null: it is legal. o before, n after the change, a the '
  'attempt of the present claim.';

-- Columns change with the state that they belong to.
create or replace function effect.column_error(o effect.effect, n effect.effect, a effect.attempt)
returns text language plpgsql stable
set search_path = pg_catalog, pg_temp as $$
declare
  resent   constant boolean := n.generation <> o.generation;
  to_doubt constant boolean := o.state = 'claimed' and n.state in ('in_doubt', 'needs_review');
begin
  return case
    when n.epoch <> o.epoch + (n.state = 'claimed')::integer then 'the epoch counts claims'
    when n.attempts <> o.attempts + (n.state = 'claimed')::integer then 'an attempt counts'
    when resent
         and (n.state <> 'planned' or n.generation < o.generation or n.generation > 1 + (
           select pg_catalog.count(*) from effect.decision d
           where d.effect = o.id and d.resolution = 'resend'))
      then 'the key changes by a decision only'
    when n.key_valid_until is distinct from o.key_valid_until and not resent and not (
           o.state = 'planned' and n.state = 'claimed' and (n.key_valid_until is null or exists (
             select from effect.provider p
             where p.name = o.provider
               and n.key_valid_until <= pg_catalog.clock_timestamp() + p.idempotency_window
                                        - p.window_margin)))
      then 'a key is valid no longer than idempotency_window'
    when n.in_doubt_since is distinct from o.in_doubt_since and n.state <> 'planned'
         and not (to_doubt and o.in_doubt_since is null)
      then 'an effect becomes in doubt by an attempt only'
    when n.in_doubt_attempts
         <> case when resent then 0
                 when to_doubt then o.in_doubt_attempts + 1
                 else o.in_doubt_attempts end
         and not (
           to_doubt and n.in_doubt_attempts = o.in_doubt_attempts
           and (effect.is_harmless(a) or o.key_valid_until > pg_catalog.clock_timestamp()))
      then 'an attempt in doubt counts'
    when n.object is distinct from o.object and n.state <> 'done'
         and not (o.state = 'claimed' and n.object = a.object)
      then 'no answer names the object'
  end;
end
$$;
comment on function effect.column_error(effect.effect, effect.effect, effect.attempt) is
  'Which changed column follows neither from an attempt nor from a decision; null: all do. o '
  'before, n after the change, a the attempt of the present claim.';

create or replace function effect.keep_planned() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  bytes_max integer;
begin
  if (new.state, new.epoch, new.attempts, new.in_doubt_attempts, new.generation,
      new.key_valid_until, new.object)
     is distinct from ('planned', 0, 0, 0, 1, null::timestamptz, null::text) then
    raise exception 'effect % begins planned and without attempts', new.effect_key
      using errcode = 'object_not_in_prerequisite_state';
  end if;
  select p.key_bytes_max - 4 into bytes_max from effect.provider p where p.name = new.provider;
  if not found then
    raise exception 'provider "%" is not registered', new.provider
      using errcode = 'foreign_key_violation',
            hint = 'Start a worker for it, or select effect.register(name, settings) once.';
  end if;
  if pg_catalog.octet_length(new.effect_key) > bytes_max then
    raise exception 'effect key "%" has % bytes; for provider "%" at most %', new.effect_key,
      pg_catalog.octet_length(new.effect_key), new.provider, bytes_max
      using errcode = 'invalid_parameter_value',
            hint = 'Use a hash of it, or raise key_bytes_max if the provider takes longer keys.';
  end if;
  new.request_hash := effect.hash_of(new.target, new.body);
  return new;
end
$$;
comment on function effect.keep_planned() is
  'A new effect is planned, of a registered provider, and nothing else.';

create or replace function effect.keep_provider() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  -- Ends once every transaction that has planned an effect has ended; what plans later finds no
  -- provider.
  lock table effect.effect in share row exclusive mode;
  if exists (select from effect.effect e where e.provider = old.name) then
    raise exception 'provider "%" has effects and keeps its name', old.name
      using errcode = 'foreign_key_violation',
            hint = 'Register another one for new effects; effect.prune() deletes settled effects.';
  end if;
  return case tg_op when 'DELETE' then old else new end;
end
$$;
comment on function effect.keep_provider() is
  'A provider that has effects is neither deleted nor renamed.';

create or replace function effect.keep_rules() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  a     effect.attempt;
  fault text;
begin
  select t.* into a from effect.attempt t where t.effect = old.id and t.epoch = old.epoch;
  fault := case
    when (new.id, new.provider, new.effect_key, new.dedup_key, new.target, new.body,
          new.request_hash, new.planned_at)
         is distinct from
         (old.id, old.provider, old.effect_key, old.dedup_key, old.target, old.body,
          old.request_hash, old.planned_at)
      then 'a request never changes'
    else coalesce(effect.column_error(old, new, a), effect.transition_error(old, new, a))
  end;
  if fault is not null then
    raise exception 'effect %: % cannot become %: %', old.id, old.state, new.state, fault
      using errcode = 'object_not_in_prerequisite_state',
            hint = 'See effect.attempt and effect.decision; effect.resolve() records a decision.';
  end if;
  return new;
end
$$;
comment on function effect.keep_rules() is
  'Refuses illegal changes of an effect, for every client.';

create or replace function effect.keep_evidence() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
declare
  e effect.effect;
begin
  if tg_op = 'UPDATE' then
    if old.finished_at is null
       and (new.effect, new.epoch, new.kind, new.worker, new.started_at)
           = (old.effect, old.epoch, old.kind, old.worker, old.started_at) then
      return new;
    end if;
  elsif new.finished_at is null and new.answer is null then
    -- By its id alone: with its state in the condition, a plan could walk all claims.
    select f.* into e from effect.effect f where f.id = new.effect;
    if e.state = 'claimed' and e.epoch = new.epoch and e.worker = new.worker
       and new.kind = (case when e.in_doubt_since is null then 'call'
                            else effect.next_step(e) end) then
      return new;
    end if;
  end if;
  raise exception 'effect %: attempt % cannot be %', new.effect, new.epoch,
    case tg_op when 'UPDATE' then 'changed any more' else 'added' end
    using errcode = 'object_not_in_prerequisite_state';
end
$$;
comment on function effect.keep_evidence() is
  'An attempt belongs to a claim, and is finished once.';

create or replace function effect.keep_unsettled() returns trigger language plpgsql
set search_path = pg_catalog, pg_temp as $$
begin
  raise exception 'effect % is % and cannot be deleted', old.id, old.state
    using errcode = 'object_not_in_prerequisite_state';
end
$$;
comment on function effect.keep_unsettled() is 'Only settled effects can be deleted.';

do $triggers$
begin
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'effect.effect'::regclass and t.tgname = 'keep_planned') then
    create trigger keep_planned before insert on effect.effect
      for each row execute function effect.keep_planned();
  end if;
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'effect.provider'::regclass
                   and t.tgname = 'keep_deleted') then
    create trigger keep_deleted before delete on effect.provider
      for each row execute function effect.keep_provider();
    create trigger keep_renamed before update of name on effect.provider
      for each row when (old.name is distinct from new.name)
      execute function effect.keep_provider();
  end if;
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'effect.effect'::regclass and t.tgname = 'keep_rules') then
    create trigger keep_rules before update on effect.effect
      for each row execute function effect.keep_rules();
  end if;
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'effect.attempt'::regclass and t.tgname = 'keep_evidence') then
    create trigger keep_evidence before insert or update on effect.attempt
      for each row execute function effect.keep_evidence();
  end if;
  if not exists (select from pg_catalog.pg_trigger t
                 where t.tgrelid = 'effect.effect'::regclass and t.tgname = 'keep_unsettled') then
    create trigger keep_unsettled before delete on effect.effect
      for each row when (old.state not in ('done', 'failed'))
      execute function effect.keep_unsettled();
  end if;
end
$triggers$;
