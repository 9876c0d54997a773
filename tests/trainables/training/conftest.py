"""What tests of training share."""

from __future__ import annotations

import pytest


@pytest.fixture
def start():
    """Start a trainable in this process, without Tune."""

    def started(kind, config, **parameters):
        class Bound(kind):
            def setup(self, config):
                super().setup(config, **parameters)
                self.go_on()

        return Bound(config=config)

    return started
