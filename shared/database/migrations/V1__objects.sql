-- One row for each object that was online when it was last seen.
--
-- Nearly every statement is an update of last_seen and expires_at by id. There is no index on either:
-- one would keep updates from being heap-only (HOT). A fill factor of 50 leaves room on every page for
-- the row versions of the next round, and autovacuum comes early and unthrottled, since every row
-- is dead within seconds.
create table objects (
    id bigint primary key,
    last_seen timestamptz not null,
    expires_at timestamptz not null,
    constraint expires_after_last_seen check (expires_at > last_seen)
) with (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 1000,
    autovacuum_vacuum_insert_scale_factor = 0.05,
    autovacuum_analyze_scale_factor = 0.1,
    autovacuum_vacuum_cost_delay = 0
);

comment on table objects is 'Objects that were online when last seen; a row is deleted when it expires';
comment on column objects.last_seen is 'When the look-up was stored, by this database''s clock; never goes backwards';
comment on column objects.expires_at is 'The moment of deletion, unless the object is seen again before';

-- Readers see the truth also while deletions are late, or the janitor is down.
create view live_objects as
    select id, last_seen, expires_at from objects where expires_at > clock_timestamp();

comment on view live_objects is 'Objects that have not expired: what readers should use';
