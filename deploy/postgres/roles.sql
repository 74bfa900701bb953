-- The roles that work with the database, none of them a superuser. To be run in the pipeline's database, by a superuser:
--     psql --file=deploy/postgres/roles.sql "$DATABASE_URL_OF_A_SUPERUSER"
-- To run it again changes nothing. The roles have no passwords yet, so that none of them can log in: \password fetcher in
-- psql gives one.
do $$
begin
    if to_regrole('pipeline_owner') is null then create role pipeline_owner login; end if;
    if to_regrole('fetcher') is null then create role fetcher login; end if;
    if to_regrole('janitor') is null then create role janitor login; end if;
    if to_regrole('reader') is null then create role reader login; end if;
end $$;

-- The owner lays the schema, and grants the others their rights: `setup` does both.
revoke create on schema public from public;
grant usage, create on schema public to pipeline_owner;

-- What another role has laid before becomes the owner's.
do $$
declare
    part text;
begin
    for part in
        select relname from pg_class
        where relnamespace = 'public'::regnamespace and relowner <> to_regrole('pipeline_owner')
            and relname in ('objects', 'objects_schema', 'live_objects')
    loop
        execute format('alter table public.%I owner to pipeline_owner', part);
    end loop;
end $$;
