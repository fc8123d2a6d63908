-- SPDX-License-Identifier: Apache-2.0
-- What operators see: the effects with an unknown outcome.

create or replace view effect.unsettled as
select e.id, e.provider, e.effect_key, e.summary, e.dedup_key,
       coalesce(e.in_doubt_since, a.started_at) as in_doubt_since, e.attempts,
       e.in_doubt_attempts, a.kind, a.started_at, a.finished_at, a.phase, a.answer, a.status,
       a.request_id, a.error, e.key_valid_until,
       case e.state when 'needs_review' then 'operator' else effect.next_step(e) end as next_step,
       case e.state when 'claimed' then e.claim_expires_at
                    when 'in_doubt' then e.not_before end as next_at,
       e.state
from effect.effect e
left join effect.attempt a on a.effect = e.id and a.epoch = e.epoch
where e.state in ('in_doubt', 'needs_review')
      or (e.state = 'claimed' and e.claim_expires_at < pg_catalog.clock_timestamp());
comment on view effect.unsettled is
  'Effects with an unknown outcome, with the last attempt and what resolves them.';
comment on column effect.unsettled.next_step is
  'What resolves it: late_answer, repeat, lookup or operator.';
comment on column effect.unsettled.next_at is 'When that is due; null: when an operator decides.';

create or replace view effect.in_doubt as
select u.id, u.provider, u.effect_key, u.summary, u.dedup_key, u.in_doubt_since, u.attempts,
       u.in_doubt_attempts, u.kind, u.started_at, u.finished_at, u.phase, u.answer, u.status,
       u.request_id, u.error, u.key_valid_until, u.next_step, u.next_at
from effect.unsettled u where u.state <> 'needs_review';
comment on view effect.in_doubt is
  'Effects whose unknown outcome a rule resolves: see next_step and next_at.';

create or replace view effect.needs_review as
select u.id, u.provider, u.effect_key, u.summary, u.dedup_key, u.in_doubt_since, u.attempts,
       u.in_doubt_attempts, u.kind, u.started_at, u.finished_at, u.phase, u.answer, u.status,
       u.request_id, u.error, u.key_valid_until
from effect.unsettled u where u.state = 'needs_review';
comment on view effect.needs_review is
  'Effects whose unknown outcome an operator must resolve: effect.resolve().';
