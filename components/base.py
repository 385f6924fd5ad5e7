"""What every component shares: the image it runs in, and no installing of anything at run time."""

import os
from collections.abc import Callable
from typing import Any

from kfp import dsl

IMAGE = os.environ.get("RETIDERM_IMAGE", "retiderm/pipelines:0.1.0")


def component(function: Callable[..., Any]) -> Any:
    """Make a Kubeflow component of a function that imports what it needs from the installed package.

    The project's image holds the code, so kfp installs nothing; locally the same function runs in a
    subprocess of the current interpreter. ``RETIDERM_IMAGE`` names another image when compiling.
    """
    return dsl.component(function, base_image=IMAGE, install_kfp_package=False)
