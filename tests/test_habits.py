"""What surrounds the code: workflows, forms, citation, releases; each file is read and checked."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

import lightning_stab

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def read(path):
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)  # `on` stays a word


def jobs(path):
    return read(path)["jobs"].items()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_a_workflow_is_whole_and_asks_for_little(path):
    assert {"name", "on", "permissions", "jobs"} <= set(read(path))
    assert read(path)["permissions"] == {"contents": "read"}
    names = {name for name, _ in jobs(path)}
    for name, job in jobs(path):
        assert job["runs-on"] == "ubuntu-latest"
        assert {job.get("needs", name)} <= names
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step), (name, step)
            assert re.search(r"@\S+$", step.get("uses", "@v")), step
            assert "secrets." not in str(step), "nothing here needs a password"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda p: p.stem)
def test_what_a_workflow_calls_is_there(path):
    sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text(), re.MULTILINE)
    for _, job in jobs(path):
        for line in "\n".join(step.get("run", "") for step in job["steps"]).splitlines():
            words = line.split()
            if words[:1] == ["bash"]:
                assert (ROOT / words[1]).is_file(), line
            if words[:2] == ["nox", "-s"]:
                assert words[2].partition("-")[0] in sessions, line
            if words[:2] == ["grep", "-qF"]:
                assert (ROOT / words[-1]).is_file(), line


def test_every_python_of_the_project_is_tested():
    tests = dict(jobs(ROOT / ".github" / "workflows" / "tests.yml"))
    assert tests["gate"]["strategy"]["matrix"]["python"] == PYTHONS
    assert tests["wheel"]["strategy"]["matrix"]["python"] == PYTHONS
    assert f"PYTHONS = {PYTHONS}".replace("'", '"') in (ROOT / "noxfile.py").read_text()


def test_a_release_is_published_without_a_password():
    publish = dict(jobs(ROOT / ".github" / "workflows" / "release.yml"))["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["needs"] == "build"
    assert "with" not in publish["steps"][-1]


@pytest.mark.parametrize("path", FORMS, ids=lambda p: p.stem)
def test_a_form_can_be_filled_in(path):
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids) > 0
    for part in form["body"]:
        assert part["type"] in ("textarea", "dropdown")
        assert part["attributes"]["label"]


def test_the_citation_names_the_version_and_the_licence():
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == lightning_stab.__version__
    assert citation["license"] == PROJECT["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_changelog_has_a_section_for_each_release_with_notes_for_upgrading():
    text = (ROOT / "CHANGELOG.md").read_text()
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    titles = [section.splitlines()[0] for section in sections]
    assert titles[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", title) for title in titles[1:])
    assert all("### Upgrading" in section for section in sections)


def test_what_the_pages_on_security_and_conduct_promise():
    security = (ROOT / "SECURITY.md").read_text()
    assert "weights_only=True" in security
    assert "yaml.safe_load" in security
    loads = [
        line
        for path in (ROOT / "lightning_stab").rglob("*.py")
        for line in path.read_text().splitlines()
        if re.search(r"\btorch\.load\(|\byaml\.load\(|\bpickle\.loads?\(", line)
    ]
    assert loads
    assert all("weights_only=True" in line or "Loader=_Loader" in line for line in loads), loads
    assert "Contributor Covenant" in (ROOT / "CODE_OF_CONDUCT.md").read_text()
