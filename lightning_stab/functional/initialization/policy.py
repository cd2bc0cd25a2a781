"""What is drawn for which weight, and which weights are left alone, and why."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import Tensor, nn

from lightning_stab.arguments import one_of, real
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.initialization.data_flow import EMBEDDINGS, RECURRENT, WeightSite
from lightning_stab.functional.initialization.fans import DENSE
from lightning_stab.functional.initialization.schemes import AUTO, SCHEMES, check_random

EMBEDDING = "embedding"


@dataclass(frozen=True)
class InitializationSettings:
    """The wishes of the user, validated.

    Args:
        scheme: ``auto`` or the name of a scheme, for every weight.
        gain: above 0; replaces the gain of the preceding activation, for every layer.
        bias: ``zeros`` or ``keep``, for the biases of the weights that are drawn.
        exclude: patterns of parameter or layer names that stay as they are.
        embedding_std: above 0; draws embeddings from N(0, std^2). None leaves them alone.

    Raises:
        InvalidArgumentError: if an argument breaks its rule, or the scheme is not random.

    Example:
        >>> InitializationSettings("orthogonal", exclude=["head.*"]).scheme
        'orthogonal'
    """

    scheme: str = AUTO
    gain: float | None = None
    bias: str = "zeros"
    exclude: Sequence[str] = ()
    embedding_std: float | None = None

    def __post_init__(self) -> None:
        check_random(self.scheme)
        one_of("scheme", self.scheme, (AUTO, *SCHEMES))
        one_of("bias", self.bias, ("zeros", "keep"))
        if self.gain is not None:
            real("gain", self.gain, above=0, hint="Leave it out for the activation's own gain.")
        if self.embedding_std is not None:
            real("embedding_std", self.embedding_std, above=0, hint="None leaves embeddings alone.")
        if isinstance(self.exclude, str) or not all(isinstance(p, str) for p in self.exclude):
            raise InvalidArgumentError(
                f"`exclude` must be a list of name patterns, got {self.exclude!r}. "
                "Write ['head.*'] to leave the layer `head` alone."
            )


def choose(settings: InitializationSettings, site: WeightSite) -> tuple[str, float]:
    """Return the scheme and the gain for a weight.

    ``auto`` is Kaiming after a ReLU-like activation and Xavier otherwise. The gain is the one of
    the preceding activation, but LeCun's is 1, as published.
    """
    scheme, gain = settings.scheme, settings.gain
    if scheme == AUTO:
        scheme = "kaiming_normal" if site.preceding.rectifier else "xavier_normal"
    if gain is None:
        gain = 1.0 if scheme.startswith("lecun") else site.preceding.gain
    return scheme, gain


def is_embedding(sites: Sequence[WeightSite]) -> bool:
    """Return whether one of the places where a weight is used is an embedding."""
    return any(isinstance(site.owner, EMBEDDINGS) for site in sites)


def reason_to_leave(settings: InitializationSettings, sites: Sequence[WeightSite]) -> str:
    """Return why a weight stays as it is, or an empty string.

    Args:
        settings: the user's wishes.
        sites: every place where this one weight is used.
    """
    weight = sites[0].weight
    if weight is None:
        return "computed from other tensors (parametrized)"
    return _reason_of_tensor(weight) or _reason_of_place(settings, sites)


def matches(settings: InitializationSettings, names: Collection[str]) -> bool:
    """Return whether a pattern of ``exclude`` matches one of ``names``."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in settings.exclude)


def _reason_of_tensor(weight: Tensor) -> str:
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return "lazy: it has no shape before the first batch"
    if weight.is_meta:
        return "on the meta device: it has no values"
    if not weight.is_floating_point():
        return "not floating point (quantised)"
    if hasattr(weight, "placements") or weight.dim() < 2:
        return "sharded or flattened"
    if weight.numel() == 0:
        return "empty"
    return "" if weight.requires_grad else "frozen"


def _reason_of_place(settings: InitializationSettings, sites: Sequence[WeightSite]) -> str:
    owner = sites[0].owner
    if matches(settings, [name for site in sites for name in (site.name, site.layer)]):
        return "excluded"
    if is_embedding(sites):
        return "" if settings.embedding_std is not None else "embedding, not asked for"
    if isinstance(owner, RECURRENT):
        return "recurrent: keeps its own initialisation"
    return "" if isinstance(owner, DENSE) else f"no rule for {type(owner).__name__}"
