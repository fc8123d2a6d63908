-- SPDX-License-Identifier: Apache-2.0
-- The columns of a batch b, in the order in which batch_of() reads them.
b.number, b.epoch, b.token::text, b.kind, b.mode, b.base::text, b.upto::text, b.fresh_from,
b.after_seq, b.upto_seq, b.exhausted, b.messages, b.bytes,
(extract(epoch from b.opened_at) * 1000000)::bigint, b.delivered_at is not null
