"""Evidence of forgetting: each check takes plain arrays, gives a plain dataclass, and can be used alone.

Every module has a text ``LIMITS``: what its check cannot show. Reports and certificates print it.
``docs/evidence.md`` explains each check in words.
"""
