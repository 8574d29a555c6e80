"""Settings of the whole suite."""

import os

import hypothesis
import pytest

# Shapes come from short lists, so that an example costs a run and not a compilation.
hypothesis.settings.register_profile("local", deadline=None, max_examples=15)
hypothesis.settings.register_profile("ci", deadline=None, max_examples=15, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_collection_modifyitems(items):
    """A donation that cannot be used doubles the memory: an error here, whatever the config."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings("error:.*donated buffers were not usable"))
