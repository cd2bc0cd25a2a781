"""Sessions for `nox`: the tests on each Python, the site, and the wheel in a bare environment.

``nox`` builds the site and the wheel, ``nox -s tests`` runs the tests of the gate on Python 3.11 to
3.13, as far as they are there, ``nox -s wheel-3.12`` one session.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import nox

PYTHONS = ["3.11", "3.12", "3.13"]
PINNED = ("--constraint", "constraints.txt")
EXTRAS = nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"]
FROM_OUTSIDE = ("callbacks", "cli", "reporting")  # folders of tests/

nox.options.sessions = ["site", "wheel-3.11"]


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests of the gate; what else is given goes to pytest."""
    session.install(*PINNED, "--editable", ".[dev]")
    session.run("python", "-m", "pytest", "-m", "not nightly", *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """Build the site. It reads the sources and imports nothing, so it needs no torch."""
    session.install(*PINNED, *EXTRAS["docs"])
    session.run("mkdocs", "build", "--strict", *session.posargs)


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """Build wheel and sdist into dist/, check them, and test what the wheel installs."""
    session.install(*PINNED, *EXTRAS["release"])
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    (built,), (packed,) = Path("dist").glob("*.whl"), Path("dist").glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(built), str(packed))
    session.run("check-wheel-contents", str(built))
    testers = [need for need in EXTRAS["dev"] if need.startswith(("hypothesis", "pytest"))]
    session.install(*PINNED, f"{built}[all]", *testers)
    outside = Path(session.create_tmp()) / packed.name.removesuffix(".tar.gz")
    shutil.rmtree(outside, ignore_errors=True)
    with tarfile.open(packed) as archive:
        archive.extractall(outside.parent, filter="data")
    shutil.rmtree(outside / "lightning_stab")  # the installed one alone is left to be imported
    session.chdir(outside)
    chosen = session.posargs or [f"tests/{name}" for name in FROM_OUTSIDE]
    session.run("python", "-m", "pytest", "-m", "not nightly and not slow", "-q", *chosen)
