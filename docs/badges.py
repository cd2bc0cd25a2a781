"""The badges of the README, drawn from pyproject.toml: true without a network.

python docs/badges.py     writes docs/images/badges.svg
"""

import re
import tomllib
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs/images/badges.svg"
WIDTH_OF_A_LETTER, HEIGHT, GAP = 6.6, 20, 6
GREY, COLOUR = "#555", "#0072b2"


def facts() -> list[tuple[str, str]]:
    """Return what the badges say, as name and value."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(project["classifiers"]))
    needs = dict(re.match(r"([\w-]+)>=([\d.]+)", need).groups() for need in needed(project))
    return [
        ("Python", f"{pythons[0]} to {pythons[-1]}"),
        ("torch", f"{needs['torch']} or later"),
        ("Lightning", needs["lightning"]),
        ("types", "mypy --strict"),
        ("licence", project["license"]),
    ]


def needed(project: dict) -> list[str]:
    """Return the requirements of torch and Lightning."""
    return [need for need in project["dependencies"] if need.startswith(("torch>", "lightning>"))]


def drawn() -> str:
    """Return the picture."""
    parts, x = [], 0.0
    for name, value in facts():
        left, right = (len(text) * WIDTH_OF_A_LETTER + 12 for text in (name, value))
        parts += [
            f'<rect x="{x:.0f}" width="{left:.0f}" height="{HEIGHT}" fill="{GREY}"/>',
            f'<rect x="{x + left:.0f}" width="{right:.0f}" height="{HEIGHT}" fill="{COLOUR}"/>',
            f'<text x="{x + left / 2:.0f}" y="14">{escape(name)}</text>',
            f'<text x="{x + left + right / 2:.0f}" y="14">{escape(value)}</text>',
        ]
        x += left + right + GAP
    said = escape(", ".join(f"{name} {value}" for name, value in facts()))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{x:.0f}" height="{HEIGHT}" role="img" '
        f'font-family="Verdana, DejaVu Sans, sans-serif" font-size="11" fill="#fff" '
        f'text-anchor="middle"><title>{said}</title>\n' + "\n".join(parts) + "\n</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(drawn())
