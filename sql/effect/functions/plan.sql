-- SPDX-License-Identifier: Apache-2.0
-- Registering providers and planning effects.

create or replace function effect.register(provider text, settings jsonb)
returns void language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  wrong text;
  p     effect.provider;
begin
  select k into wrong from pg_catalog.jsonb_object_keys(settings) k
  where k = 'name'
        or not pg_catalog.to_jsonb(
                 pg_catalog.jsonb_populate_record(null::effect.provider, '{}')) ? k
  limit 1;
  if found then
    raise exception 'provider %: there is no setting "%"', provider, wrong
      using errcode = 'undefined_parameter',
            hint = 'The settings are the columns of effect.provider.';
  end if;
  if not exists (select from effect.provider o where o.name = register.provider) then
    insert into effect.provider (name, in_doubt_policy)
    values (register.provider, settings ->> 'in_doubt_policy') on conflict (name) do nothing;
  end if;
  -- A stronger lock would wait for every transaction that has planned an effect.
  select o.* into p from effect.provider o where o.name = register.provider for no key update;
  p := pg_catalog.jsonb_populate_record(p, settings);
  update effect.provider o
  set (in_doubt_policy, key_bytes_max,
       idempotency_window, window_margin, supports_lookup, lookup_delay, claim_ttl,
       in_doubt_attempts_max, retry_first, retry_max, retry_budget_ratio, retry_budget_burst,
       retry_per_minute, breaker_failures, probe_first, probe_max)
    = (p.in_doubt_policy, p.key_bytes_max,
       p.idempotency_window, p.window_margin, p.supports_lookup, p.lookup_delay,
       p.claim_ttl, p.in_doubt_attempts_max, p.retry_first, p.retry_max, p.retry_budget_ratio,
       p.retry_budget_burst, p.retry_per_minute, p.breaker_failures, p.probe_first, p.probe_max)
  where o.name = p.name and o is distinct from p;
  insert into effect.throttle (provider, tokens) values (p.name, p.retry_budget_burst)
    on conflict do nothing;
end
$$;
comment on function effect.register(text, jsonb) is
  'Registers a provider, or changes its settings: the columns of effect.provider. '
  'in_doubt_policy is required the first time.';

create or replace function effect.hash_of(target jsonb, body bytea)
returns bytea language sql stable
set search_path = pg_catalog, pg_temp as $$
  select pg_catalog.sha256(pg_catalog.convert_to(target::text, 'UTF8') || '\x00'::bytea || body)
$$;
comment on function effect.hash_of(jsonb, bytea) is 'SHA-256 of a request.';

create or replace function effect.plan(
  provider text, effect_key text, target jsonb, body bytea, dedup_key text default null,
  summary text default null)
returns bigint language plpgsql volatile
set search_path = pg_catalog, pg_temp as $$
declare
  planned bigint;
  hash    bytea;
begin
  -- As the table does, with a hint.
  if plan.effect_key = '' or plan.effect_key <> pg_catalog.btrim(plan.effect_key, E' \t')
     or plan.effect_key ~ '##[0-9]+$' then
    raise exception 'effect key "%" is empty, has blanks around it, or ends with ##N',
      plan.effect_key
      using errcode = 'invalid_parameter_value',
            hint = 'Derive it from the message, without blanks around it. The suffix ##N is of '
                   'resent effects.';
  end if;
  insert into effect.effect (provider, effect_key, target, body, dedup_key, summary)
  values (plan.provider, plan.effect_key, plan.target, plan.body, plan.dedup_key, plan.summary)
  on conflict on constraint effect_provider_effect_key_key do nothing returning id into planned;
  if found then
    return planned;
  end if;
  select e.id, e.request_hash into planned, hash from effect.effect e
  where e.provider = plan.provider and e.effect_key = plan.effect_key;
  if hash is distinct from effect.hash_of(plan.target, plan.body) then
    raise exception 'effect "%" at % was planned with another request (effect %)',
      plan.effect_key, plan.provider, planned
      using errcode = 'unique_violation',
            hint = 'An effect key identifies one request forever: derive it from the message, and '
                   'plan the same request from the same message.';
  end if;
  return planned;
end
$$;
comment on function effect.plan(text, text, jsonb, bytea, text, text) is
  'Plans an effect, in the transaction that handles the message that asks for it. The same '
  'request again is the same effect.';
