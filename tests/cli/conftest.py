"""Commands that run inside the test's process leave its log as it was."""

from own_log import restored_log  # noqa: F401 - a fixture
