"""One bundle for all tests of it: it takes seconds to come to."""

from __future__ import annotations

import pytest

from tests.cli.certificate.bundle_maker import Made, make_bundle


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Delta left a real consortium and gave a receipt; operator and officer have signed."""
    return make_bundle(tmp_path_factory.mktemp("bundle"))
