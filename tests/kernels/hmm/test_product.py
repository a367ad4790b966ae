"""What CUDA multiplies where E is stored in float16, as far as it can be checked without a device."""

from __future__ import annotations

import torch

from ctrldecode.kernels.hmm import _product


def test_two_halves_keep_twenty_bits() -> None:
    rng = torch.Generator().manual_seed(0)
    vectors = 10.0 ** (-30 * torch.rand(3, 1, generator=rng, dtype=torch.float64)) * torch.rand(3, 1000, generator=rng)
    vectors = vectors.float()
    vectors[1, ::2] *= 1e-4
    vectors[2] = 0
    high, low, unit = _product.halves(vectors)
    assert (high.dtype, low.dtype) == (torch.float16, torch.float16)
    both = (high.double() + low.double() * 2.0**-11) * unit.double()
    assert torch.all((both - vectors).abs() <= 2.0**-21 * vectors + 2.0**-50 * vectors.amax(1, keepdim=True))


def test_no_product_of_halves_is_out_of_range() -> None:
    """Entries of E go up to 2**15, those of a vector too: 30 of the 127 binary orders that float32 has."""
    high, _, _ = _product.halves(torch.tensor([[1.0, 0.5], [3e38, 0.0], [1e-30, 0.0]]))
    assert high.isfinite().all()
    assert high.amax(1).tolist() == [2.0**15] * 3


def test_shapes_and_dtypes_of_the_product() -> None:
    """On the meta device, which has the signature that CUDA has."""
    values, vectors = torch.empty(7, 4, dtype=torch.float16, device="meta"), torch.empty(2, 4, device="meta")
    found = _product._half_product(values, vectors)
    assert (tuple(found.shape), found.dtype) == ((2, 7), torch.float32)
