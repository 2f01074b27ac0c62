"""The roles and the database of a server, and the logins that the platform's URLs name, with their passwords."""

from __future__ import annotations

import contextlib
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from ml_core.database.security import APP_ROLE, INGEST_ROLE, OWNER_ROLE, ROLES, close_functions, limit_roles
from ml_core.database.urls import DatabaseUrls, parse
from ml_core.exceptions import ConfigurationError

CONNECT_TIMEOUT_S = 10


def make_logins(admin_url: str, urls: DatabaseUrls) -> list[str]:
    """Make the roles, the logins, their passwords and the database, as far as they are missing. Safe to repeat.

    A login may have the name of its role, or another one, which then becomes its member. A password that changed in a
    URL is changed in the database; a URL without one changes none.

    Args:
        admin_url: Of a superuser, or of a login that may create roles and databases.
        urls: The URLs that the platform will use. Their host is not looked at.

    Returns:
        The names of the logins.

    Raises:
        ConfigurationError: A URL names no login, or a superuser.
        psycopg.Error: Postgres can't be reached, or the administrator's login may not.
    """
    # The owner's login migrates, and so needs all roles.
    logins = [(parse(urls.app), (APP_ROLE,)), (parse(urls.ingest), (INGEST_ROLE,)), (parse(urls.owner), ROLES)]
    with _session(admin_url) as session:
        known = dict(session.execute("SELECT rolname, rolsuper FROM pg_roles").fetchall())
        for url, _ in logins:
            if not url.username or known.get(url.username):
                raise ConfigurationError(
                    f"The platform's login {url.username!r} is a superuser or has no name.",
                    remedy="Name an ordinary login in the database's URL, such as mlcore_app.",
                    setting="MLCORE_DATABASE_URL",
                )
        for name in {*ROLES, *(str(url.username) for url, _ in logins)} - known.keys():
            session.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
        for role in ROLES:
            session.execute(f"ALTER ROLE {role} RESET ALL")  # a role may give itself settings, such as read-only
        for statement in limit_roles():
            session.execute(statement)
        for url, roles in logins:
            _let_in(session, url, roles)
        database = parse(urls.app).database
        exists = session.execute("SELECT true FROM pg_database WHERE datname = %s", (database,)).fetchone()
        if not exists:
            made = sql.SQL("CREATE DATABASE {} OWNER {}")
            session.execute(made.format(sql.Identifier(str(database)), sql.Identifier(OWNER_ROLE)))
        is_superuser = session.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone()
    if not exists and is_superuser == (True,):
        with _session(admin_url, dbname=database) as session:
            for statement in close_functions():
                session.execute(statement)
    return sorted({str(url.username) for url, _ in logins})


def _session(url: str, **options: Any) -> contextlib.closing[psycopg.Connection[Any]]:
    plain = parse(url).set(drivername="postgresql").render_as_string(hide_password=False)
    return contextlib.closing(psycopg.connect(plain, autocommit=True, connect_timeout=CONNECT_TIMEOUT_S, **options))


def _let_in(session: psycopg.Connection[Any], url: URL, roles: tuple[str, ...]) -> None:
    name = str(url.username)
    login = sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(name))
    if url.password is not None:
        # Hashed here, so that the server's log can't have the password.
        hashed = session.pgconn.encrypt_password(str(url.password).encode(), name.encode(), b"scram-sha-256").decode()
        login = sql.SQL("{} PASSWORD {}").format(login, sql.Literal(hashed))
    session.execute(login)
    if name not in ROLES:
        for role in roles:
            session.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(role), sql.Identifier(name)))
