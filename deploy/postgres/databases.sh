#!/usr/bin/env bash
# A database and a role per service; nobody but the owner may connect. Run once by the postgres
# image, when its volume is empty.
set -euo pipefail

create() {
  psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    --set name="$1" --set password="$2" <<'SQL'
CREATE ROLE :"name" LOGIN PASSWORD :'password';
CREATE DATABASE :"name" OWNER :"name";
REVOKE ALL ON DATABASE :"name" FROM PUBLIC;
\connect :"name"
ALTER SCHEMA public OWNER TO :"name";
SQL
}

create baza_contacts "$CONTACTS_DB_PASSWORD"
create baza_scoring "$SCORING_DB_PASSWORD"
create baza_routing "$ROUTING_DB_PASSWORD"
create baza_notifications "$NOTIFICATIONS_DB_PASSWORD"
