-- SPDX-License-Identifier: Apache-2.0
-- The effect ledger: effects outside the database (a charge, an e-mail, an upload), what is known
-- about each, and the evidence.
--
-- plan() records what is requested. claim() is committed before the provider is called, and no
-- transaction is held across the call; settle() records how far the call got. An unknown outcome is
-- a state, in_doubt, and next_step() returns what resolves it. The trigger keep_rules decides which
-- change of state is legal, and on which evidence, for every client that writes.

comment on schema effect is
  'Effect ledger: effects outside the database, each with its attempts, its unknown outcomes '
  'and the evidence.';

-- @include common/schema_version.sql

-- provider -------------------------------------------------------------------------------------

create table effect.provider (
  name                  text     collate "C" primary key check (name <> ''),
  in_doubt_policy       text     not null check (in_doubt_policy in ('resend', 'hold')),
  key_bytes_max         integer  not null default 255 check (key_bytes_max between 16 and 1028),
  idempotency_window    interval check (idempotency_window > interval '0'),
  window_margin         interval not null default '5 minutes'
                                 check (window_margin >= interval '0'),
  supports_lookup       boolean  not null default false,
  lookup_delay          interval not null default '1 minute',
  claim_ttl             interval not null default '2 minutes' check (claim_ttl > interval '0'),
  in_doubt_attempts_max integer  not null default 8 check (in_doubt_attempts_max > 0),
  retry_first           interval not null default '1 second' check (retry_first > interval '0'),
  retry_max             interval not null default '10 minutes',
  retry_budget_ratio    real     not null default 0.2 check (retry_budget_ratio between 0 and 1),
  retry_budget_burst    integer  not null default 10 check (retry_budget_burst > 0),
  retry_per_minute      real     not null default 6 check (retry_per_minute > 0),
  breaker_failures      integer  not null default 5 check (breaker_failures > 0),
  probe_first           interval not null default '1 second' check (probe_first > interval '0'),
  probe_max             interval not null default '1 minute',
  constraint margin_within_window
    check (idempotency_window is null or idempotency_window > window_margin)
);
comment on table effect.provider is 'Accounts at providers, and the rules for their effects.';
comment on column effect.provider.name is 'Name of the account, as plan() is called with it.';
comment on column effect.provider.in_doubt_policy is
  'What happens to an unknown outcome that neither a repeat with the same key nor a lookup can '
  'resolve. resend: the effect may happen twice; hold: an operator decides. Required, without '
  'a default.';
comment on column effect.provider.key_bytes_max is
  'Longest idempotency key that the provider takes. An effect key has at most 4 bytes less, for '
  'the suffix ##N of a resent effect.';
comment on column effect.provider.idempotency_window is
  'How long the provider deduplicates by the key; null: it does not.';
comment on column effect.provider.window_margin is
  'A repeat must end so long before the window does. Must exceed every error of the clock of '
  'the database.';
comment on column effect.provider.supports_lookup is
  'Whether the provider can be asked for the outcome of an effect.';
comment on column effect.provider.lookup_delay is
  'How long after an attempt the answer that there is no such effect may still be wrong.';
comment on column effect.provider.claim_ttl is
  'How long one attempt may take; afterwards its effect is in doubt.';
comment on column effect.provider.in_doubt_attempts_max is
  'Attempts with an unknown outcome after which an operator decides.';
comment on column effect.provider.retry_first is
  'Backoff before the first retry; it doubles with each, and half of it is random.';
comment on column effect.provider.retry_max is 'Longest backoff.';
comment on column effect.provider.retry_budget_ratio is
  'Retries that each first attempt adds to the budget.';
comment on column effect.provider.retry_budget_burst is
  'Most retries that the budget holds, and the retries that it starts with.';
comment on column effect.provider.retry_per_minute is
  'Retries that each minute adds to the budget, so that a provider without first attempts does '
  'not stay in doubt.';
comment on column effect.provider.breaker_failures is
  'Consecutive failures that open the breaker: then there is one probe at a time. Of several '
  'answers that the same effect fails, the first counts.';
comment on column effect.provider.probe_first is
  'Backoff before the first probe; it doubles with each probe that fails.';
comment on column effect.provider.probe_max is 'Longest backoff between probes.';

-- throttle -------------------------------------------------------------------------------------

-- Apart from the settings, because claims write it.
create table effect.throttle (
  provider      text        collate "C" primary key references effect.provider on delete cascade,
  tokens        real        not null,
  refilled_at   timestamptz not null default pg_catalog.clock_timestamp(),
  failures      integer     not null default 0,
  opened        integer     not null default 0,
  open_until    timestamptz,
  probing_until timestamptz,
  planned_from  timestamptz not null default '-infinity',
  retry_from    timestamptz not null default '-infinity',
  expire_from   timestamptz not null default '-infinity',
  noted_at      timestamptz not null default '-infinity',
  whole_look_at timestamptz not null default '-infinity'
) with (fillfactor = 20);
comment on table effect.throttle is
  'What all workers together may ask of a provider: the retry budget and the circuit breaker.';
comment on column effect.throttle.provider is 'The account.';
comment on column effect.throttle.tokens is 'Retries that are left.';
comment on column effect.throttle.refilled_at is 'Until when retry_per_minute was added.';
comment on column effect.throttle.failures is 'Consecutive failures.';
comment on column effect.throttle.opened is
  'How often in succession the breaker opened; decides how long it stays open.';
comment on column effect.throttle.open_until is
  'Nothing is claimed before; null: the breaker is closed.';
comment on column effect.throttle.probing_until is
  'While a probe is under way, nothing else is claimed; null: none is.';
comment on column effect.throttle.planned_from is
  'Where claim() begins to look for planned effects (planned_at).';
comment on column effect.throttle.retry_from is
  'Where claim() begins to look for effects to retry (not_before).';
comment on column effect.throttle.expire_from is
  'Where claim() begins to look for expired claims (claim_expires_at).';
comment on column effect.throttle.noted_at is 'When these three were noted.';
comment on column effect.throttle.whole_look_at is
  'When claim() looks from the beginning again.';

-- effect ---------------------------------------------------------------------------------------

-- keep_planned and keep_provider stand for a foreign key to effect.provider. It would lock the row
-- of the provider in each transaction that plans: n at a time make multixacts of n members each.
create table effect.effect (
  id                bigint      generated always as identity primary key,
  provider          text        collate "C" not null,
  effect_key        text        collate "C" not null
                                check (pg_catalog.octet_length(effect_key) between 1 and 1024),
  dedup_key         text        collate "C"
                                check (pg_catalog.octet_length(dedup_key) between 1 and 1024),
  summary           text,
  target            jsonb       not null check (pg_catalog.jsonb_typeof(target) = 'object'),
  body              bytea       not null,
  request_hash      bytea       not null,
  planned_at        timestamptz not null default pg_catalog.clock_timestamp(),
  state             text        not null default 'planned'
                                check (state in ('planned', 'claimed', 'in_doubt', 'needs_review',
                                                 'done', 'failed')),
  epoch             bigint      not null default 0,
  generation        integer     not null default 1,
  attempts          integer     not null default 0,
  in_doubt_attempts integer     not null default 0,
  not_before        timestamptz not null default pg_catalog.clock_timestamp(),
  worker            text,
  claim_expires_at  timestamptz,
  key_valid_until   timestamptz,
  in_doubt_since    timestamptz,
  settled_at        timestamptz,
  object            text,
  evidence          text        check (evidence in ('answer', 'repeat', 'lookup', 'late_answer',
                                                    'decision')),
  unique (provider, effect_key),
  -- HTTP strips blanks around a value, and the suffix ##N is of resent effects: with either, a
  -- provider could answer for another effect.
  constraint effect_key_is_its_own
    check (effect_key = pg_catalog.btrim(effect_key, E' \t') and effect_key !~ '##[0-9]+$'),
  constraint no_doubt_when_planned check (state <> 'planned' or in_doubt_since is null),
  constraint doubt_has_a_time
    check (state not in ('in_doubt', 'needs_review') or in_doubt_since is not null),
  constraint claim_has_a_worker
    check ((state = 'claimed') = (worker is not null)
           and (worker is null) = (claim_expires_at is null)),
  constraint settled_on_evidence
    check ((state in ('done', 'failed')) = (settled_at is not null)
           and (settled_at is null) = (evidence is null))
) with (fillfactor = 80);
create index effect_first on effect.effect (provider, planned_at)
  where state = 'planned' and attempts = 0;
create index effect_retry on effect.effect (provider, not_before)
  where state = 'in_doubt' or (state = 'planned' and attempts > 0);
create index effect_claimed on effect.effect (provider, claim_expires_at) where state = 'claimed';
create index effect_unsettled on effect.effect (id) where state in ('in_doubt', 'needs_review');
create index effect_dedup_key on effect.effect (dedup_key) where dedup_key is not null;
create index effect_settled on effect.effect (settled_at) where settled_at is not null;

comment on table effect.effect is 'One row for each planned effect, with what is known about it.';
comment on column effect.effect.id is 'Number of the effect.';
comment on column effect.effect.provider is 'The account that is to execute it.';
comment on column effect.effect.effect_key is
  'Identity of the effect at this provider; planning it again makes no second effect.';
comment on column effect.effect.dedup_key is
  'Deduplication key of the message that asked for it (1 to 1024 bytes).';
comment on column effect.effect.summary is 'What it is, for the operator.';
comment on column effect.effect.target is
  'Where the request goes, in the terms of the adapter: an object of strings.';
comment on column effect.effect.body is 'The bytes that are sent, the same at each attempt.';
comment on column effect.effect.request_hash is 'SHA-256 of target and body.';
comment on column effect.effect.planned_at is 'When it was planned.';
comment on column effect.effect.state is
  'planned: nothing is under way; claimed: an attempt is under way; in_doubt: the outcome is '
  'unknown and a rule will resolve it; needs_review: the outcome is unknown and an operator '
  'decides; done; failed: it was not and will not be executed.';
comment on column effect.effect.epoch is
  'Counts claims. Writes under an older epoch are refused.';
comment on column effect.effect.generation is
  'Counts the keys that the provider was given. A new key is a new request: KEY is followed by '
  'KEY##2. See effect.provider_key().';
comment on column effect.effect.attempts is 'Attempts so far.';
comment on column effect.effect.in_doubt_attempts is
  'Attempts of this generation with an unknown outcome. Not counted: attempts that cannot have '
  'had an effect, and attempts that the provider would deduplicate by the key while the '
  'breaker was open or after it had answered that the effect fails, so that an outage needs no '
  'operator.';
comment on column effect.effect.not_before is 'Not to be claimed before.';
comment on column effect.effect.worker is 'The worker that holds the claim.';
comment on column effect.effect.claim_expires_at is
  'When the claim expires. The effect is in doubt afterwards, never free.';
comment on column effect.effect.key_valid_until is
  'Until when the provider deduplicates by the key; null: it does not.';
comment on column effect.effect.in_doubt_since is
  'Begin of the first attempt with an unknown outcome; kept when the effect is settled.';
comment on column effect.effect.settled_at is 'When it became done or failed.';
comment on column effect.effect.object is 'What the provider calls the object that it made.';
comment on column effect.effect.evidence is
  'How the outcome is known. answer: of the only attempt; repeat: of a repeat; lookup: the '
  'provider was asked; late_answer: of an attempt whose claim had expired; decision: of an '
  'operator.';

-- attempt --------------------------------------------------------------------------------------

create table effect.attempt (
  effect      bigint      not null references effect.effect on delete cascade,
  epoch       bigint      not null,
  kind        text        not null check (kind in ('call', 'repeat', 'lookup')),
  worker      text        not null,
  started_at  timestamptz not null default pg_catalog.clock_timestamp(),
  finished_at timestamptz,
  phase       text        check (phase in ('nothing', 'partly', 'sent', 'answered')),
  answer      text        check (answer in ('done', 'refused', 'not_now', 'in_progress',
                                            'unauthorized', 'failing', 'absent')),
  status      integer,
  request_id  text,
  object      text,
  response    bytea       check (pg_catalog.octet_length(response) <= 65536),
  error       text,
  late        boolean     not null default false,
  primary key (effect, epoch),
  constraint finished_has_a_phase check ((finished_at is null) = (phase is null)),
  -- A request that can never be sent is refused before it is.
  constraint answered_has_an_answer
    check (phase is null or (phase = 'answered') = (answer is not null)
           or (phase = 'nothing' and answer = 'refused')),
  constraint absent_is_asked_for check (answer is distinct from 'absent' or kind = 'lookup')
);
comment on table effect.attempt is
  'The evidence: each attempt, how far it got, and what the provider answered.';
comment on column effect.attempt.effect is 'The effect.';
comment on column effect.attempt.epoch is 'Epoch of its claim.';
comment on column effect.attempt.kind is
  'call: nothing was in doubt; repeat: the same request again; lookup: the outcome was asked '
  'for.';
comment on column effect.attempt.worker is 'The worker that made it.';
comment on column effect.attempt.started_at is 'When it was claimed.';
comment on column effect.attempt.finished_at is
  'When its end was recorded; null: it is under way, or its outcome is unknown.';
comment on column effect.attempt.phase is
  'nothing: nothing was written that could have an effect; partly, sent: part or all of it '
  'was, and no answer was read; answered.';
comment on column effect.attempt.answer is
  'done; refused; not_now: not executed, try later; in_progress: another attempt is under way; '
  'unauthorized: not executed, the credentials were refused; failing: it may have been '
  'executed; absent: there is no such effect.';
comment on column effect.attempt.status is 'Status in the protocol of the provider.';
comment on column effect.attempt.request_id is 'What the provider calls this attempt.';
comment on column effect.attempt.object is 'What the provider calls the object that it made.';
comment on column effect.attempt.response is 'The beginning of its answer.';
comment on column effect.attempt.error is 'What went wrong, for the operator.';
comment on column effect.attempt.late is 'The claim was over when the end was recorded.';

-- decision -------------------------------------------------------------------------------------

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
comment on table effect.decision is 'What operators decided about effects, and why.';
comment on column effect.decision.effect is 'The effect.';
comment on column effect.decision.decided_at is 'When it was decided.';
comment on column effect.decision.decided_by is 'Who decided.';
comment on column effect.decision.why is 'Why.';
comment on column effect.decision.resolution is
  'done: it was executed; failed: it was not and shall not be; resend: call the provider as if '
  'for the first time.';
comment on column effect.decision.from_state is 'State in which it was decided.';
comment on column effect.decision.epoch is 'Epoch of the effect at that time.';

-- What claim() returns -------------------------------------------------------------------------

create type effect.claimed as (
  effect_id    bigint,
  epoch        bigint,
  kind         text,
  attempts     integer,
  effect_key   text,
  provider_key text,
  target       jsonb,
  body         bytea,
  ttl          interval
);
comment on type effect.claimed is
  'What a worker is to do with one effect.';
comment on column effect.claimed.effect_id is 'The effect, for settle().';
comment on column effect.claimed.epoch is 'Epoch of the claim, for settle().';
comment on column effect.claimed.kind is
  'call: send the request; repeat: send the same request again; lookup: ask for the outcome.';
comment on column effect.claimed.attempts is 'Attempts so far, this one included.';
comment on column effect.claimed.effect_key is 'Key of the effect, as it was planned.';
comment on column effect.claimed.provider_key is
  'Idempotency key to send; differs from effect_key where an operator resent the effect.';
comment on column effect.claimed.target is 'Where the request goes, as it was planned.';
comment on column effect.claimed.body is 'The bytes of the request.';
comment on column effect.claimed.ttl is
  'The attempt must end within this time, counted from before claim() was called.';
