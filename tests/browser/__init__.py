"""Tests of the page in Chromium: a package, so that its tests share one browser (see `windows` in conftest.py)."""
