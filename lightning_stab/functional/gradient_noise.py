"""How noisy a gradient is: the batch size at which its noise equals its signal."""

from __future__ import annotations


def noise_and_signal(
    small_norm: float, large_norm: float, small_size: float, large_size: float
) -> tuple[float, float]:
    """Return unbiased estimates of the gradient's noise ``tr(S)`` and signal ``|G|^2``.

    ``|G|^2 = (B |g_B|^2 - b |g_b|^2) / (B - b)`` and
    ``tr(S) = (|g_b|^2 - |g_B|^2) / (1/b - 1/B)``, from the norms of the mean gradient over ``b``
    and over ``B > b`` examples. A single pair is noisy and may be negative: average both numbers
    over steps before taking their ratio, the noise scale ``tr(S) / |G|^2`` in examples.

    Args:
        small_norm: ``|g_b|``, the norm over the small batch.
        large_norm: ``|g_B|``, the norm over the large batch.
        small_size: ``b``, examples in the small batch, > 0.
        large_size: ``B``, examples in the large batch, > ``b``.

    Example:
        >>> noise_and_signal(small_norm=2.0, large_norm=1.0, small_size=1, large_size=4)
        (4.0, 0.0)

    Source: McCandlish, Kaplan, Amodei and others, 2018, appendix A.1.
    """
    small, large = small_norm * small_norm, large_norm * large_norm
    signal = (large_size * large - small_size * small) / (large_size - small_size)
    noise = (small - large) / (1.0 / small_size - 1.0 / large_size)
    return noise, signal
