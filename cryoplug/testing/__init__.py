"""Contract tests: inherit one, set what it tests, and pytest runs the laws that cryoplug's own parts pass, too.

::

    from cryoplug.testing import ModelContract

    class TestMyNet(ModelContract):
        spec = MY_NET

Each law is one test with its own name. If a law cannot hold, set it to None in the class, and give the reason beside it, so
that readers see it: ``test_opening_reads_no_pixels = None  # ...``. This needs pytest; see docs/plugins.md.
"""

import pytest

# Before the modules are imported, so that a failed assert shows its values.
pytest.register_assert_rewrite(
    *(f"cryoplug.testing.{name}" for name in ("command", "format", "model", "movie_format", "store"))
)

from cryoplug.testing.command import CommandContract  # noqa: E402
from cryoplug.testing.format import FormatContract  # noqa: E402
from cryoplug.testing.model import ModelContract  # noqa: E402
from cryoplug.testing.movie_format import MovieFormatContract  # noqa: E402
from cryoplug.testing.store import StoreContract  # noqa: E402

__all__ = ["CommandContract", "FormatContract", "ModelContract", "MovieFormatContract", "StoreContract"]
