"""The one image that every step runs in, and the decorator that makes a function a step.

A step is thin: its imports stand inside the function, because KFP copies the function's source into the compiled
pipeline; the work is done by the rooms, which are installed in the image and in the local environment alike. For the
same reason nothing is installed when a step starts. Modules that define steps must not postpone their annotations
(``from __future__ import annotations``): KFP reads the types of inputs and outputs from them.
"""

import functools
from collections.abc import Callable
from typing import Any, Final

from kfp import dsl

IMAGE: Final = "plumbline-python:0.1.0"
"""Name and tag baked into compiled pipelines; KFP's cache key holds it, so a tag must never be moved."""

component: Callable[..., Any] = functools.partial(dsl.component, base_image=IMAGE, install_kfp_package=False)
"""Turns a typed function into a KFP step that runs in ``IMAGE``."""
