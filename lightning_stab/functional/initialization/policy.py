"""What is drawn for which weight, and which weights are left alone, and why."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from fnmatch import fnmatchcase

from torch import nn

from lightning_stab.arguments import is_list, mapping, one_of, real
from lightning_stab.errors import InvalidArgumentError
from lightning_stab.functional.initialization.schemes import AUTO, DATA_SCHEMES, SCHEMES
from lightning_stab.functional.initialization.sites import WeightSite
from lightning_stab.functional.layer_kinds import RECURRENT, SCHEME_LAYERS

EMBEDDING = "embedding"
KEEP = "keep"
_EQUAL = ("zeros", "zero", "ones", "one", "constant")


@dataclass(frozen=True)
class InitializationSettings:
    """The settings of initialisation, validated.

    Args:
        scheme: ``auto`` or the name of a scheme, for every weight.
        gain: above 0; replaces the gain of the preceding activation, for every layer.
        bias: ``zeros`` or ``keep``, for the biases of the weights that are drawn.
        exclude: patterns of parameter or layer names that stay as they are.
        embedding_std: above 0; draws embeddings from N(0, std^2). None leaves them alone.
        include: patterns of parameter or layer names; if any are given, all others stay.
        schemes: a scheme, or ``keep``, for each pattern of parameter names, layer names or class
            names of layers, such as ``{"Conv2d": "kaiming_normal"}``; the first match counts.
        output_prior: the frequency of each class, above 0; the output layer's bias becomes its
            logarithm, so that the first predictions are the frequencies.

    Raises:
        InvalidArgumentError: if an argument breaks its rule, or the scheme is not random.

    Example:
        >>> InitializationSettings("orthogonal", exclude=["head.*"]).scheme
        'orthogonal'
    """

    scheme: str = AUTO
    gain: float | None = None
    _: KW_ONLY
    bias: str = "zeros"
    exclude: Sequence[str] = ()
    embedding_std: float | None = None
    include: Sequence[str] = ()
    schemes: Mapping[str, str] | None = None
    output_prior: Sequence[float] | None = None

    def __post_init__(self) -> None:
        _check_scheme("scheme", self.scheme, AUTO)
        for scheme in mapping("schemes", self.schemes, "schemes").values():
            _check_scheme("schemes", scheme, AUTO, KEEP)
        one_of("bias", self.bias, ("zeros", "keep"))
        if self.gain is not None:
            real("gain", self.gain, above=0, hint="Leave it out for the activation's own gain.")
        if self.embedding_std is not None:
            real("embedding_std", self.embedding_std, above=0, hint="None leaves embeddings alone.")
        for argument in ("exclude", "include"):
            object.__setattr__(self, argument, _name_patterns(argument, getattr(self, argument)))
        if self.schemes is not None:
            object.__setattr__(self, "schemes", dict(self.schemes))
        if self.output_prior is not None:
            if not is_list(self.output_prior):
                raise InvalidArgumentError(
                    f"`output_prior` must be a list of frequencies, got {self.output_prior!r}. "
                    "Give each class its share."
                )
            object.__setattr__(self, "output_prior", tuple(self.output_prior))
        for frequency in self.output_prior or ():
            real("output_prior", frequency, above=0, hint="Give each class its share.")

    def scheme_of(self, site: WeightSite) -> str:
        """Return the scheme for a weight: by its name, its layer's, or the layer's class."""
        names = [site.name, site.layer, type(site.owner).__name__]
        schemes = (self.schemes or {}).items()
        return next((s for pattern, s in schemes if any_matches([pattern], names)), self.scheme)

    @property
    def needs_data(self) -> bool:
        """Whether a scheme cannot do without a batch."""
        return not {self.scheme, *(self.schemes or {}).values()}.isdisjoint(DATA_SCHEMES)


def _check_scheme(argument: str, scheme: str, *more: str) -> None:
    if scheme in _EQUAL:
        raise InvalidArgumentError(
            f"`scheme` must draw random weights, got {scheme!r}: with equal weights all units of "
            "a layer get the same gradient and stay identical for ever. "
            f"Choose {AUTO!r} or one of {', '.join(SCHEMES)}."
        )
    one_of(argument, scheme, (*more, *SCHEMES, *DATA_SCHEMES))


def _name_patterns(argument: str, patterns: Sequence[str]) -> tuple[str, ...]:
    if not is_list(patterns) or not all(isinstance(pattern, str) for pattern in patterns):
        raise InvalidArgumentError(
            f"`{argument}` must be a list of name patterns, got {patterns!r}. "
            "Write ['head.*'] to name the layer `head` alone."
        )
    return tuple(patterns)


def choose(settings: InitializationSettings, site: WeightSite) -> tuple[str, float]:
    """Return the scheme and the gain for a weight.

    ``auto`` is Kaiming after a ReLU-like activation and Xavier otherwise. The gain is the one of
    the preceding activation, but LeCun's is 1, as published.
    """
    scheme, gain = settings.scheme_of(site), settings.gain
    if scheme == AUTO:
        scheme = "kaiming_normal" if site.preceding.rectifier else "xavier_normal"
    if scheme in DATA_SCHEMES:
        return "orthogonal", 1.0
    if gain is None:
        gain = 1.0 if scheme.startswith("lecun") else site.preceding.gain
    return scheme, gain


def any_matches(patterns: Collection[str], names: Collection[str]) -> bool:
    """Return whether one of the patterns matches one of the names."""
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def reason_to_leave(settings: InitializationSettings, site: WeightSite) -> str:
    """Return why a weight stays as it is, or an empty string."""
    weight = site.weight
    if weight is None:
        return "computed from other tensors (parametrized)"
    if isinstance(weight, nn.parameter.UninitializedParameter):
        return "lazy: no batch has given it a shape"
    if weight.is_meta:
        return "on the meta device: it has no values"
    if not weight.is_floating_point():
        return "not floating point (quantised)"
    if hasattr(weight, "placements") or weight.dim() < 2:
        return "sharded or flattened"
    if weight.numel() == 0:
        return "empty"
    return _reason_of_place(settings, site) if weight.requires_grad else "frozen"


def _reason_of_place(settings: InitializationSettings, site: WeightSite) -> str:
    owner, scheme = site.owner, settings.scheme_of(site)
    names = [name for place in site.places for name in (place.name, place.layer)]
    if any_matches(settings.exclude, names):
        return "excluded"
    if settings.include and not any_matches(settings.include, names):
        return "not included"
    if scheme == KEEP:
        return "to be kept"
    if site.is_embedding:
        return "" if settings.embedding_std is not None else "embedding, not asked for"
    if isinstance(owner, RECURRENT):
        return "" if scheme == AUTO else "recurrent: keeps its own initialisation"
    return "" if isinstance(owner, SCHEME_LAYERS) else f"no rule for {type(owner).__name__}"
