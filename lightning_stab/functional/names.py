"""What a parameter or a module is called, whoever has wrapped it."""

from __future__ import annotations


def plain_name(name: str) -> str:
    """Return a parameter's or module's name without the parts that ``torch.compile`` adds.

    Example:
        >>> [plain_name(n) for n in ("net._orig_mod.0.weight", "_orig_mod", "my_orig_mod.0")]
        ['net.0.weight', '', 'my_orig_mod.0']
    """
    if "_orig_mod" not in name:
        return name
    return ".".join(part for part in name.split(".") if part != "_orig_mod")
