"""The database: connections under the right role, row-level security, tables, migrations and the embedded server.

What a version or a pointer means does not belong here (``ml_core.registry``); nothing above this package and
``ml_core.registry`` imports SQLAlchemy or psycopg.
"""
