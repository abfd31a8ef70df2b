"""What every part of Reconsent shares: errors, the consortium's configuration, and safe files.

This package imports none of the others; see ``docs/architecture.md`` for the arrows.
"""

__version__ = "0.1.0"
