-- The roles that work with the database, none of them a superuser. To be run once, in the pipeline's database, by a
-- role that may create roles:
--     psql --file=deploy/postgres/roles.sql "$DATABASE_URL_OF_A_SUPERUSER"
-- They have no passwords yet, so that none of them can log in: \password fetcher in psql gives one.
create role pipeline_owner login;
create role fetcher login;
create role janitor login;
create role reader login;

-- The owner lays the schema, and grants the others their rights: `setup` does both.
revoke create on schema public from public;
grant usage, create on schema public to pipeline_owner;
