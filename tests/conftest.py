"""What all tests share: no deadline for hypothesis, whose examples share two cores with other tests."""

from __future__ import annotations

from hypothesis import settings

pytest_plugins = ["pytester"]

settings.register_profile("project", deadline=None)
settings.load_profile("project")
