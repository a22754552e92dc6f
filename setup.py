"""The package's metadata is in setup.cfg; this file only lets an install leave the frameworks out.

An extra can add to the requirements and never take away. So a plain install requires both
frameworks, and with ALGOPERF_BARE=1 in the environment neither, which leaves it to the extras:

    ALGOPERF_BARE=1 pip install -c constraints.txt '.[jax]'
"""

import configparser
import os

import setuptools


def requirements(section: str, option: str) -> list[str]:
    """The lines of one list in setup.cfg."""
    config = configparser.ConfigParser()
    config.read("setup.cfg", encoding="utf-8")
    return [line for line in config[section][option].splitlines() if line]


def requirements_without_frameworks() -> list[str]:
    """What every install needs, whichever framework it has."""
    extras = "options.extras_require"
    frameworks = {*requirements(extras, "jax"), *requirements(extras, "torch")}
    return [line for line in requirements("options", "install_requires") if line not in frameworks]


bare = os.environ.get("ALGOPERF_BARE", "") not in ("", "0")
# An argument given here takes the place of setup.cfg's value.
setuptools.setup(**({"install_requires": requirements_without_frameworks()} if bare else {}))
