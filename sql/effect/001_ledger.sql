-- SPDX-License-Identifier: Apache-2.0
-- The effect ledger: effects outside the database (a charge, an e-mail, an upload), what is known about each, and the evidence.
--
-- plan() writes down what is asked. claim() is committed before the provider is called, and no transaction is held across the
-- call; settle() says how far the call got. What cannot be known is a state, in_doubt, and next_step() says what resolves it.
-- Which change of state is allowed, and on which evidence, is decided by the trigger keep_rules, for whoever writes.

comment on schema effect is 'Effect ledger: effects outside the database, each with its attempts, its doubts and the evidence.';

create table effect.schema_version (
  number     integer     primary key,
  name       text        not null,
  applied_at timestamptz not null default pg_catalog.clock_timestamp()
);
comment on table effect.schema_version is 'Migrations that have been applied.';
comment on column effect.schema_version.number is 'Number of the migration.';
comment on column effect.schema_version.name is 'Its name.';
comment on column effect.schema_version.applied_at is 'When it was applied.';

create table effect.provider (
  name             text        primary key check (name <> ''),
  on_doubt         text        not null check (on_doubt in ('resend', 'hold')),
  key_window       interval    check (key_window > interval '0'),
  window_margin    interval    not null default '5 minutes' check (window_margin >= interval '0'),
  can_ask          boolean     not null default false,
  absence_delay    interval    not null default '1 minute',
  claim_ttl        interval    not null default '2 minutes' check (claim_ttl > interval '0'),
  doubts_max       integer     not null default 8 check (doubts_max > 0),
  retry_first      interval    not null default '1 second' check (retry_first > interval '0'),
  retry_max        interval    not null default '10 minutes',
  retry_share      real        not null default 0.2 check (retry_share between 0 and 1),
  retry_reserve    integer     not null default 10 check (retry_reserve > 0),
  retry_per_minute real        not null default 6 check (retry_per_minute > 0),
  breaker_failures integer     not null default 5 check (breaker_failures > 0),
  probe_first      interval    not null default '1 second' check (probe_first > interval '0'),
  probe_max        interval    not null default '1 minute',
  constraint margin_within_window check (key_window is null or key_window > window_margin)
);
comment on table effect.provider is 'Accounts at providers, and the rules for their effects.';
comment on column effect.provider.name is 'Name of the account, as plan() is called with it.';
comment on column effect.provider.on_doubt is
  'What is done about a doubt that neither a repeat with the same key nor a question can resolve. resend: the effect may happen twice; '
  'hold: a person decides. It is declared, there is no default.';
comment on column effect.provider.key_window is 'How long the provider tells a repeat by its key; null: it cannot.';
comment on column effect.provider.window_margin is
  'A repeat must be over so long before the window ends; more than the clock of the database can ever be wrong.';
comment on column effect.provider.can_ask is 'Whether the provider can be asked what became of an effect.';
comment on column effect.provider.absence_delay is 'How long after an attempt the answer that there is no such effect may still be wrong.';
comment on column effect.provider.claim_ttl is 'How long one attempt may take; afterwards its effect is in doubt.';
comment on column effect.provider.doubts_max is 'Attempts that left a doubt after which a person decides.';
comment on column effect.provider.retry_first is 'Pause before the first retry; it doubles with each, and half of it is random.';
comment on column effect.provider.retry_max is 'Longest pause.';
comment on column effect.provider.retry_share is 'Retries that each first attempt pays for.';
comment on column effect.provider.retry_reserve is 'Most retries that are saved up, and those there are at first.';
comment on column effect.provider.retry_per_minute is 'Retries that time pays for, so that a provider without first attempts is not left in doubt.';
comment on column effect.provider.breaker_failures is 'Failures in a row after which the provider is left alone, but for one probe at a time.';
comment on column effect.provider.probe_first is 'Pause before the first probe; it doubles with each that fails.';
comment on column effect.provider.probe_max is 'Longest pause between probes.';

-- Apart from the settings, because each claim writes it.
create table effect.pressure (
  provider      text        primary key references effect.provider on delete cascade,
  tokens        real        not null,
  refilled_at   timestamptz not null default pg_catalog.clock_timestamp(),
  failures      integer     not null default 0,
  opened        integer     not null default 0,
  open_until    timestamptz,
  probing_until timestamptz
) with (fillfactor = 20);
comment on table effect.pressure is 'What all workers together may ask of a provider: retries that are left, and the breaker.';
comment on column effect.pressure.provider is 'The account.';
comment on column effect.pressure.tokens is 'Retries that are left.';
comment on column effect.pressure.refilled_at is 'Until when time has paid.';
comment on column effect.pressure.failures is 'Failures in a row.';
comment on column effect.pressure.opened is 'How often in a row the breaker opened; decides how long.';
comment on column effect.pressure.open_until is 'Nothing is claimed before; null: the breaker is closed.';
comment on column effect.pressure.probing_until is 'While a probe is under way, nothing else is claimed; null: none is.';

create table effect.effect (
  id               bigint      generated always as identity primary key,
  provider         text        not null references effect.provider,
  effect_key       text        not null check (pg_catalog.octet_length(effect_key) <= 1024),
  dedup_key        text        check (pg_catalog.octet_length(dedup_key) <= 1024),
  summary          text,
  target           jsonb       not null check (pg_catalog.jsonb_typeof(target) = 'object'),
  body             bytea       not null,
  request_hash     bytea       not null,
  planned_at       timestamptz not null default pg_catalog.clock_timestamp(),
  state            text        not null default 'planned'
                               check (state in ('planned', 'claimed', 'in_doubt', 'needs_human', 'done', 'failed')),
  epoch            bigint      not null default 0,
  generation       integer     not null default 1,
  attempts         integer     not null default 0,
  doubts           integer     not null default 0,
  not_before       timestamptz not null default pg_catalog.clock_timestamp(),
  worker           text,
  claim_expires_at timestamptz,
  key_valid_until  timestamptz,
  doubt_since      timestamptz,
  settled_at       timestamptz,
  object           text,
  evidence         text        check (evidence in ('answer', 'repeat', 'ask', 'late_answer', 'decision')),
  unique (provider, effect_key),
  constraint no_doubt_when_planned check (state <> 'planned' or doubt_since is null),
  constraint doubt_has_a_time      check (state not in ('in_doubt', 'needs_human') or doubt_since is not null),
  constraint claim_has_a_worker    check ((state = 'claimed') = (worker is not null) and (worker is null) = (claim_expires_at is null)),
  constraint settled_on_evidence   check ((state in ('done', 'failed')) = (settled_at is not null) and (settled_at is null) = (evidence is null))
) with (fillfactor = 80);
create index effect_first on effect.effect (provider, planned_at) where state = 'planned' and attempts = 0;
create index effect_retry on effect.effect (provider, not_before) where state = 'in_doubt' or (state = 'planned' and attempts > 0);
create index effect_claimed on effect.effect (provider, claim_expires_at) where state = 'claimed';
create index effect_unsettled on effect.effect (id) where state in ('in_doubt', 'needs_human');
create index effect_dedup_key on effect.effect (dedup_key) where dedup_key is not null;
create index effect_settled on effect.effect (settled_at) where settled_at is not null;
comment on table effect.effect is 'One row for each effect that was asked for, with what is known about it.';
comment on column effect.effect.id is 'Number of the effect.';
comment on column effect.effect.provider is 'Who is to carry it out.';
comment on column effect.effect.effect_key is 'Identity of the effect at this provider; planning it again is no second effect.';
comment on column effect.effect.dedup_key is 'Deduplication key of the message that asked for it.';
comment on column effect.effect.summary is 'What it is, for a person.';
comment on column effect.effect.target is 'Where the request goes, in the terms of the adapter: an object of strings.';
comment on column effect.effect.body is 'The bytes that are sent, the same at each attempt.';
comment on column effect.effect.request_hash is 'SHA-256 of target and body.';
comment on column effect.effect.planned_at is 'When it was asked for.';
comment on column effect.effect.state is
  'planned: nothing is under way; claimed: an attempt is; in_doubt: nobody knows, and a rule will tell; needs_human: nobody knows, and a '
  'person decides; done; failed: it was not and will not be carried out.';
comment on column effect.effect.epoch is 'Counts claims. Who writes under an older one is refused.';
comment on column effect.effect.generation is 'Counts the keys that the provider was given: another one is another request to it.';
comment on column effect.effect.attempts is 'Attempts so far.';
comment on column effect.effect.doubts is
  'Attempts of this generation that left a doubt. Not counted: those that cannot have had an effect, and those that the provider would tell '
  'by their key while the breaker was open, so that an outage calls for nobody.';
comment on column effect.effect.not_before is 'Not to be claimed before.';
comment on column effect.effect.worker is 'Who holds the claim.';
comment on column effect.effect.claim_expires_at is 'The claim is in doubt afterwards, never free.';
comment on column effect.effect.key_valid_until is 'Until then the provider tells a repeat by the key; null: it cannot.';
comment on column effect.effect.doubt_since is 'First attempt of which nobody knows; kept when a doubt is resolved for good.';
comment on column effect.effect.settled_at is 'When it became done or failed.';
comment on column effect.effect.object is 'What the provider calls the thing that it made.';
comment on column effect.effect.evidence is
  'How it is known. answer: of the only attempt; repeat: of a repeat; ask: the provider was asked; late_answer: of an attempt whose claim '
  'had expired; decision: a person said so.';

create table effect.attempt (
  effect      bigint      not null references effect.effect on delete cascade,
  epoch       bigint      not null,
  kind        text        not null check (kind in ('call', 'repeat', 'ask')),
  worker      text        not null,
  started_at  timestamptz not null default pg_catalog.clock_timestamp(),
  finished_at timestamptz,
  phase       text        check (phase in ('nothing', 'partly', 'sent', 'answered')),
  answer      text        check (answer in ('done', 'refused', 'not_now', 'in_progress', 'unauthorized', 'failing', 'absent')),
  status      integer,
  request_id  text,
  object      text,
  response    bytea       check (pg_catalog.octet_length(response) <= 65536),
  error       text,
  late        boolean     not null default false,
  primary key (effect, epoch),
  constraint finished_has_a_phase check ((finished_at is null) = (phase is null)),
  -- A request that can never be sent is refused before it is.
  constraint answered_has_an_answer check (phase is null or (phase = 'answered') = (answer is not null)
                                           or (phase = 'nothing' and answer = 'refused')),
  constraint absent_is_asked_for check (answer is distinct from 'absent' or kind = 'ask')
);
comment on table effect.attempt is 'The evidence: each attempt, how far it got, and what the provider said.';
comment on column effect.attempt.effect is 'The effect.';
comment on column effect.attempt.epoch is 'Epoch of its claim.';
comment on column effect.attempt.kind is 'call: nothing was in doubt; repeat: the same request again; ask: what became of it.';
comment on column effect.attempt.worker is 'Who made it.';
comment on column effect.attempt.started_at is 'When it was claimed.';
comment on column effect.attempt.finished_at is 'When its end was recorded; null: it is under way, or nobody knows.';
comment on column effect.attempt.phase is
  'nothing: nothing was written that could have an effect; partly, sent: part or all of it was, and no answer was read; answered.';
comment on column effect.attempt.answer is
  'done; refused; not_now: not carried out, try later; in_progress: another attempt is under way; unauthorized: not carried out, the '
  'provider does not know us; failing: it may have been carried out; absent: there is no such effect.';
comment on column effect.attempt.status is 'Status in the protocol of the provider.';
comment on column effect.attempt.request_id is 'What the provider calls this attempt.';
comment on column effect.attempt.object is 'What the provider calls the thing that it made.';
comment on column effect.attempt.response is 'The beginning of its answer.';
comment on column effect.attempt.error is 'What went wrong, for a person.';
comment on column effect.attempt.late is 'The claim was over when the end was recorded.';

create table effect.decision (
  effect     bigint      not null references effect.effect on delete cascade,
  decided_at timestamptz not null default pg_catalog.clock_timestamp(),
  decided_by text        not null check (decided_by <> ''),
  why        text        not null check (why <> ''),
  resolution text        not null check (resolution in ('done', 'failed', 'resend')),
  from_state text        not null,
  epoch      bigint      not null,
  primary key (effect, decided_at)
);
comment on table effect.decision is 'What people decided about effects, and why.';
comment on column effect.decision.effect is 'The effect.';
comment on column effect.decision.decided_at is 'When.';
comment on column effect.decision.decided_by is 'Who.';
comment on column effect.decision.why is 'Why.';
comment on column effect.decision.resolution is
  'done: it was carried out; failed: it was not and shall not be; resend: call the provider as if for the first time.';
comment on column effect.decision.from_state is 'State in which it was decided.';
comment on column effect.decision.epoch is 'Epoch of the effect at that time.';

-- the rules --------------------------------------------------------------------------------------------------------------

create function effect.hash_of(target jsonb, body bytea) returns bytea language sql stable as $$
  select pg_catalog.sha256(pg_catalog.convert_to(target::text, 'UTF8') || '\x00'::bytea || body)
$$;
comment on function effect.hash_of(jsonb, bytea) is 'SHA-256 of a request.';

create function effect.keep_planned() returns trigger language plpgsql as $$
begin
  if new.state <> 'planned' or new.epoch <> 0 or new.attempts <> 0 or new.generation <> 1 then
    raise exception 'effect % begins planned, not %', new.effect_key, new.state using errcode = 'object_not_in_prerequisite_state';
  end if;
  new.request_hash := effect.hash_of(new.target, new.body);
  return new;
end
$$;
comment on function effect.keep_planned() is 'A new effect is planned, and nothing else.';
create trigger keep_planned before insert on effect.effect for each row execute function effect.keep_planned();

-- Whether the evidence that an effect is settled on is there. A refusal of a repeat speaks for the attempt before as well only
-- while the provider would know it by its key, and never when the request was refused before it was sent.
create function effect.is_shown(o effect.effect, n effect.effect, a effect.attempt) returns boolean language plpgsql stable as $$
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
                                        and (o.doubt_since is null or (a.phase = 'answered' and a.started_at <= o.key_valid_until)) end, false);
end
$$;
comment on function effect.is_shown(effect.effect, effect.effect, effect.attempt) is
  'Whether the evidence is there that an effect is settled on. a is the attempt of its present claim.';

-- Whether an attempt cannot have had an effect, whatever came of others.
create function effect.is_harmless(a effect.attempt) returns boolean language sql immutable as $$
  select coalesce((a.phase = 'nothing' and a.answer is null) or a.answer in ('not_now', 'unauthorized'), false)
$$;
comment on function effect.is_harmless(effect.attempt) is 'Whether this attempt cannot have had an effect, whatever came of others.';

-- Why a change of state is illegal; null: it is legal. `a` is the attempt of the present claim.
create function effect.fault_of(o effect.effect, n effect.effect, a effect.attempt) returns text language plpgsql stable as $$
begin
  case o.state || ' ' || n.state
    when 'planned claimed' then return null;
    when 'in_doubt claimed' then
      return case when effect.next_step(o) not in ('repeat', 'ask') then 'nothing but a person can resolve it' end;
    when 'claimed planned' then
      if not coalesce(effect.is_harmless(a) or a.answer = 'absent', false) then return 'no attempt shows that there was no effect'; end if;
      return case when o.doubt_since is not null and a.answer is distinct from 'absent' then 'an earlier attempt is in doubt' end;
    when 'claimed in_doubt', 'claimed needs_human' then
      return case when a.finished_at is null and o.claim_expires_at > pg_catalog.clock_timestamp() then 'an attempt is under way' end;
    when 'claimed done', 'claimed failed', 'planned done', 'planned failed', 'in_doubt done', 'in_doubt failed',
         'needs_human done', 'needs_human failed' then
      return case when not effect.is_shown(o, n, a) then 'neither an answer nor a decision says so' end;
    when 'in_doubt planned', 'needs_human planned' then
      return case when n.generation = o.generation then 'what is sent again as new needs another key' end;
    when 'in_doubt needs_human', 'planned planned', 'in_doubt in_doubt' then return null;
    else return 'there is no such way';
  end case;
end
$$;
comment on function effect.fault_of(effect.effect, effect.effect, effect.attempt) is 'Why this change of an effect is illegal; null: it is legal.';

-- What is known about an effect decides what may be done about it: columns change with the state that they belong to.
create function effect.forgery_of(o effect.effect, n effect.effect, a effect.attempt) returns text language plpgsql stable as $$
declare
  resent    constant boolean := n.generation <> o.generation;
  to_doubt  constant boolean := o.state = 'claimed' and n.state in ('in_doubt', 'needs_human');
begin
  return case
    when n.epoch <> o.epoch + (n.state = 'claimed')::integer then 'the epoch counts claims'
    when n.attempts <> o.attempts + (n.state = 'claimed')::integer then 'an attempt counts'
    when resent and (n.state <> 'planned' or n.generation < o.generation or n.generation > 1 + (
      select pg_catalog.count(*) from effect.decision d where d.effect = o.id and d.resolution = 'resend'))
      then 'the key changes by a decision only'
    when n.key_valid_until is distinct from o.key_valid_until and not resent and not (
      o.state = 'planned' and n.state = 'claimed' and (n.key_valid_until is null or exists (
        select from effect.provider p
        where p.name = o.provider and n.key_valid_until <= pg_catalog.clock_timestamp() + p.key_window - p.window_margin)))
      then 'a key is valid as long as the provider says'
    when n.doubt_since is distinct from o.doubt_since and n.state <> 'planned' and not (to_doubt and o.doubt_since is null)
      then 'a doubt begins with an attempt'
    when n.doubts <> case when resent then 0 when to_doubt then o.doubts + 1 else o.doubts end and not (
      to_doubt and n.doubts = o.doubts and (effect.is_harmless(a) or o.key_valid_until > pg_catalog.clock_timestamp()))
      then 'a doubt counts'
    when n.object is distinct from o.object and n.state <> 'done' and not (o.state = 'claimed' and n.object = a.object)
      then 'no answer names the object'
  end;
end
$$;
comment on function effect.forgery_of(effect.effect, effect.effect, effect.attempt) is
  'Which change of an effect does not follow from an attempt or a decision; null: all do.';

create function effect.keep_rules() returns trigger language plpgsql as $$
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
create trigger keep_rules before update on effect.effect for each row execute function effect.keep_rules();

create function effect.keep_evidence() returns trigger language plpgsql as $$
declare
  e effect.effect;
begin
  if tg_op = 'UPDATE' then
    if old.finished_at is null and (new.effect, new.epoch, new.kind, new.worker, new.started_at)
                                   = (old.effect, old.epoch, old.kind, old.worker, old.started_at) then
      return new;
    end if;
  elsif new.finished_at is null and new.answer is null then
    -- By its id alone: with its state in the condition, a plan could walk all claims.
    select f.* into e from effect.effect f where f.id = new.effect;
    if e.state = 'claimed' and e.epoch = new.epoch and e.worker = new.worker
       and new.kind = (case when e.doubt_since is null then 'call' else effect.next_step(e) end) then
      return new;
    end if;
  end if;
  raise exception 'effect %: attempt % cannot be %', new.effect, new.epoch, case tg_op when 'UPDATE' then 'changed any more' else 'added' end
    using errcode = 'object_not_in_prerequisite_state';
end
$$;
comment on function effect.keep_evidence() is 'An attempt belongs to a claim, and is finished once.';
create trigger keep_evidence before insert or update on effect.attempt for each row execute function effect.keep_evidence();

create function effect.keep_unsettled() returns trigger language plpgsql as $$
begin
  raise exception 'effect % is % and cannot be deleted', old.id, old.state using errcode = 'object_not_in_prerequisite_state';
end
$$;
comment on function effect.keep_unsettled() is 'Only what is settled can be deleted.';
create trigger keep_unsettled before delete on effect.effect
  for each row when (old.state not in ('done', 'failed')) execute function effect.keep_unsettled();

-- What resolves a doubt. A repeat must be over before the provider forgets the key.
create function effect.next_step(e effect.effect) returns text language sql stable as $$
  select case when exists (select from effect.attempt a where a.effect = e.id and a.answer = 'done') then 'late_answer'
              when e.doubts >= p.doubts_max then 'person'
              when p.key_window is not null and pg_catalog.clock_timestamp() + p.claim_ttl <= e.key_valid_until then 'repeat'
              when p.can_ask then 'ask'
              when p.on_doubt = 'resend' then 'repeat'
              else 'person' end
  from effect.provider p where p.name = e.provider
$$;
comment on function effect.next_step(effect.effect) is
  'What resolves a doubt about this effect: late_answer, repeat (with the same key and bytes), ask (the provider), or person.';
