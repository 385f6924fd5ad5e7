"""The gateway: the five services' REST, on a real store.

Only this package knows SQLAlchemy, Alembic and boto3; :mod:`serving.core` and the predictor stay free of
them.
"""
