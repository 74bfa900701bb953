-- The sweep finds overdue rows by this index, whatever the size of the table. Rows that were stored by
-- one statement expire together, so that the index is small: a few bytes a row.
--
-- expires_at changes with every update, so updates are not heap-only (HOT) any more. The fill factor of 50
-- keeps the row versions of the next round on the page of the row all the same.
--
-- Writers wait while the index is built: half a second for a million rows, half a minute for 50 million.
-- Nothing is lost meanwhile.
-- Where that is too long an operator builds the index before, which blocks nobody:
--     create index concurrently objects_by_expiry on objects (expires_at);
-- This file cannot do so, because it is applied in a transaction.
create index if not exists objects_by_expiry on objects (expires_at);

comment on column objects.last_seen is
    'When the look-up was stored, by this database''s clock; goes backwards only where the clock did';
