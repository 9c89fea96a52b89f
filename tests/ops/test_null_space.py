"""The null space of captions: by hand, against `scipy.linalg.null_space` (NS-Net, equations 5 to 10) and against a full SVD.

What follows from equality with SciPy's projector P is not tested again: V P = 0, null vectors stay, P P = P, Pythagoras, the
rank of P, columns that are orthonormal, and that only the span of the basis counts.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nullscope.core.config import ParamsError, validate
from nullscope.model_folder import kept, restore
from nullscope.ops.null_space import NullSpace, NullSpaceParams, basis_of_gram, batch_basis, gram, remove, remove_own

properties = settings(derandomize=True, deadline=None, max_examples=60)
widths = st.integers(2, 48)
counts = st.integers(1, 40)
seeds = st.integers(0, 2**32 - 1)


def captions(count: int, width: int, seed: int = 0, *, decay: float = 1.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Text features (count, width) whose k-th direction has about ``decay ** k`` of the first one's strength."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(width, width)))[0]
    return torch.from_numpy(rng.normal(size=(count, width)) * decay ** np.arange(width) @ directions).to(dtype)


def dependent_captions(count: int, width: int, seed: int) -> Tensor:
    """Captions of a rank below the width, with two more that the others span: a multiple of the first and the mean."""
    text = captions(min(count, width - 1), width, seed)
    return torch.cat([2 * text[:1], text, text.mean(0, keepdim=True)])


def features(count: int, width: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    """Image features (count, width)."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(count, width))).to(dtype)


def paper_projector(text: Tensor) -> np.ndarray:
    """P_V of equation 7: the columns of N whose singular value is zero, from a full decomposition in float64."""
    wide = text.double().numpy()
    null_vectors = scipy.linalg.null_space(wide, rcond=1e-6)
    return null_vectors @ null_vectors.T


def test_by_hand() -> None:
    """Captions along x and in the x-y plane span that plane: of (3, 4, 5) only the 5 stays.

    The last rows of a thin decomposition, which peers took for null vectors, would give (3, 4, 0).
    """
    text, image = torch.tensor([[2.0, 0, 0], [1, 1, 0], [5, 5, 0]]).double(), torch.tensor([[3.0, 4, 5]]).double()
    left = torch.tensor([[0.0, 0, 5]]).double()
    torch.testing.assert_close(remove(image, batch_basis(text)), left, rtol=0, atol=1e-12)
    torch.testing.assert_close(remove(image, basis_of_gram(gram([text]))), left, rtol=0, atol=1e-12)
    torch.testing.assert_close(remove_own(image, text[1:2]), torch.tensor([[-0.5, 0.5, 5]]).double(), rtol=0, atol=1e-12)


# Fewer captions than dimensions: the paper taken literally


@properties
@given(count=counts, width=widths, seed=seeds)
def test_batch_removal_equals_the_papers_projector(count: int, width: int, seed: int) -> None:
    """f = U P_V, with P_V from scipy's null space."""
    text, image = dependent_captions(count, width, seed), features(5, width, seed)
    expected = image.numpy() @ paper_projector(text)
    np.testing.assert_allclose(remove(image, batch_basis(text)), expected, atol=1e-9)


@properties
@given(count=counts, width=widths, seed=seeds)
def test_global_basis_without_a_rule_equals_the_papers_projector(count: int, width: int, seed: int) -> None:
    """The same through the Gram matrix, which never sees all captions at once."""
    text, image = dependent_captions(count, width, seed), features(5, width, seed)
    basis = basis_of_gram(gram([text]))
    assert basis.shape == (width, min(count, width - 1))
    np.testing.assert_allclose(remove(image, basis), image.numpy() @ paper_projector(text), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("count", "distinct", "width"), [(32, 20, 768), (48, 3, 512), (128, 1, 64)])
def test_a_batch_of_repeated_captions_has_the_rank_of_its_distinct_ones(
    dtype: torch.dtype, count: int, distinct: int, width: int
) -> None:
    """BLIP gives many images one caption. Their rounding errors are no direction: removing one more would remove noise."""
    for seed in range(40):
        rng = torch.Generator().manual_seed(seed)
        around = 0.2 * torch.randn(distinct, width, generator=rng)
        base = around + torch.randn(1, width, generator=rng)  # text features of CLIP share a large mean
        repeated = torch.randint(0, distinct, (count - distinct,), generator=rng)
        text = base[torch.cat([torch.arange(distinct), repeated])].to(dtype)
        assert batch_basis(text).shape == (width, distinct), f"seed {seed}"


def test_repeated_captions_do_not_add_to_the_global_rank() -> None:
    """The same through the Gram matrix."""
    base = captions(20, 64, dtype=torch.float32)
    assert basis_of_gram(gram([base[torch.arange(3000) % 20]])).shape == (64, 20)


# More captions than dimensions: rank and energy


def full_decomposition(text: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Singular values and right-singular vectors (as columns) from the captions themselves."""
    _, values, rows = np.linalg.svd(text.numpy(), full_matrices=True)
    return values, rows.T


@properties
@given(width=st.integers(3, 32), seed=seeds, energy=st.floats(0.01, 0.999), decay=st.floats(0.5, 0.95))
def test_energy_keeps_the_fewest_directions_that_hold_it(width: int, seed: int, energy: float, decay: float) -> None:
    """Against the squared singular values of a full decomposition."""
    text = captions(4 * width, width, seed, decay=decay)
    values, directions = full_decomposition(text)
    share = np.cumsum(values**2) / np.sum(values**2)
    fewest = next(k for k in range(1, width + 1) if share[k - 1] >= energy)
    if fewest == width:
        with pytest.raises(ValueError, match="null space is empty"):
            basis_of_gram(gram([text]), energy=energy)
        return
    basis = basis_of_gram(gram([text]), energy=energy)
    assert basis.shape == (width, fewest)
    expected = directions[:, :fewest] @ directions[:, :fewest].T
    np.testing.assert_allclose(basis @ basis.T, expected, atol=1e-6)


@properties
@given(width=st.integers(2, 32), seed=seeds, data=st.data())
def test_rank_keeps_the_leading_directions(width: int, seed: int, data: st.DataObject) -> None:
    """Each column is a leading right-singular direction, strongest first, up to its sign."""
    rank = data.draw(st.integers(1, width - 1))
    text = captions(4 * width, width, seed, decay=0.7)
    _, directions = full_decomposition(text)
    basis = basis_of_gram(gram([text]), rank=rank)
    assert basis.dtype == torch.float64
    torch.testing.assert_close(basis.T @ basis, torch.eye(rank, dtype=basis.dtype), atol=1e-10, rtol=0)
    np.testing.assert_allclose(np.abs(np.diag(directions[:, :rank].T @ basis.numpy())), 1, atol=1e-5)


@properties
@given(width=st.integers(2, 32), count=st.integers(1, 90), seed=seeds, chunk=st.integers(1, 40))
def test_a_gram_matrix_over_chunks_equals_one_pass(width: int, count: int, seed: int, chunk: int) -> None:
    """V^T V is a sum over captions, whatever the size of the chunks they come in."""
    text = captions(count, width, seed)
    total = gram(text.split(chunk))
    assert total.dtype == torch.float64
    np.testing.assert_allclose(total, text.numpy().T @ text.numpy(), atol=1e-10 * count)


def test_a_gram_matrix_reads_its_captions_once_and_as_they_come() -> None:
    """A generator serves: no chunk is asked for before the last one has been used."""
    text, alive = captions(30, 8), []

    def chunks():
        for chunk in text.split(10):
            alive.append(len(alive))
            yield chunk

    torch.testing.assert_close(gram(chunks()), text.T @ text)
    assert alive == [0, 1, 2]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_gram_matrix_of_narrow_floats_is_summed_in_double(dtype: torch.dtype) -> None:
    """Ten thousand copies of one caption: a sum in the captions' own type would stall far below the true one."""
    text = captions(1, 16).to(dtype)
    one = text.double().T @ text.double()
    torch.testing.assert_close(gram([text.expand(10, 16)] * 1000), one * 10_000, rtol=1e-12, atol=0)


# Errors that say why


@pytest.mark.parametrize("count", [16, 40])
def test_an_empty_null_space_is_an_error_that_says_why(count: int) -> None:
    """As many captions as dimensions, or more, span everything: there is nothing left to detect with."""
    text = captions(count, 16)
    with pytest.raises(ValueError, match=r"null space is empty.*16 dimensions"):
        batch_basis(text)
    with pytest.raises(ValueError, match=r"null space is empty.*16 dimensions.*rank.*energy"):
        basis_of_gram(gram([text]))
    with pytest.raises(ValueError, match="null space is empty"):
        basis_of_gram(gram([text]), rank=16)


@pytest.mark.parametrize("rank", [6, 15, 16, 17])
def test_a_rank_above_the_span_is_an_error_that_names_the_span(rank: int) -> None:
    """Five captions have five directions: a sixth would be an arbitrary one."""
    text = captions(5, 16)
    with pytest.raises(ValueError, match=r"span only 5 directions.*rank <= 5"):
        basis_of_gram(gram([text]), rank=rank)
    assert basis_of_gram(gram([text]), rank=5).shape == (16, 5)


def test_the_remedy_for_a_rank_above_the_width_is_a_rank_that_works() -> None:
    """Captions that span all 8 dimensions leave ranks up to 7; an error that proposes 8 would lead to the next error."""
    total = gram([captions(40, 8)])
    with pytest.raises(ValueError) as error:
        basis_of_gram(total, rank=9)
    assert "rank <= 8" not in str(error.value)
    assert basis_of_gram(total, rank=7).shape == (8, 7)


def test_no_captions_are_an_error() -> None:
    """Not a basis of nothing, nor an index out of range deep inside."""
    with pytest.raises(ValueError, match="no captions"):
        gram([])
    with pytest.raises(ValueError, match="captions"):
        batch_basis(torch.empty(0, 8))


@pytest.mark.parametrize("rule", [{"rank": 1}, {"energy": 0.5}, {}])
def test_captions_of_zeros_are_an_error_or_remove_nothing(rule: dict[str, float]) -> None:
    """Zero features span nothing: a rule that asks for a direction is refused, none removes none; never NaN."""
    total = gram([torch.zeros(5, 4)])
    if rule:
        with pytest.raises(ValueError, match="span only 0 directions"):
            basis_of_gram(total, **rule)
    else:
        assert basis_of_gram(total).shape == (4, 0)
        assert batch_basis(torch.zeros(5, 4)).shape == (4, 0)


# Removal


@properties
@given(width=widths, count=counts, seed=seeds, dtype=st.sampled_from([torch.float32, torch.float64]))
def test_removal_is_idempotent_and_never_lengthens(width: int, count: int, seed: int, dtype: torch.dtype) -> None:
    """A projection: twice is once, and no norm grows; types stay as they come."""
    image, text = features(9, width, seed, dtype), captions(min(count, width - 1), width, seed, dtype=dtype)
    epsilon = 100 * torch.finfo(dtype).eps
    for once, twice in (
        (remove(image, batch_basis(text)), lambda left: remove(left, batch_basis(text))),
        (remove_own(image, text[:1].expand(9, width)), lambda left: remove_own(left, text[:1].expand(9, width))),
    ):
        assert once.dtype == dtype
        assert (once.norm(dim=1) <= image.norm(dim=1) * (1 + epsilon)).all()
        torch.testing.assert_close(twice(once), once, atol=epsilon * float(image.norm(dim=1).max()), rtol=0)


@pytest.mark.parametrize("scale", [1e-9, 1e12])
def test_removal_does_not_depend_on_the_length_of_captions(scale: float) -> None:
    """The null space of V is that of a multiple of V: tolerances are relative."""
    text, image = dependent_captions(4, 32, seed=0), features(4, 32)
    for basis in (batch_basis, lambda some: basis_of_gram(gram([some])), lambda some: basis_of_gram(gram([some]), rank=3)):
        torch.testing.assert_close(remove(image, basis(text * scale)), remove(image, basis(text)), rtol=0, atol=1e-7)
    torch.testing.assert_close(remove_own(image, text[:4] * scale), remove_own(image, text[:4]))


def test_remove_own_takes_every_row_off_its_own_caption() -> None:
    """Row by row it is the paper's projector of that one caption, and no other row's caption matters."""
    image, text = features(6, 24), captions(6, 24)
    left = remove_own(image, text)
    for row in range(6):
        np.testing.assert_allclose(left[row], image[row].numpy() @ paper_projector(text[row : row + 1]), atol=1e-12)
    others = text.clone()
    others[1:] = captions(5, 24, seed=9)
    assert torch.equal(remove_own(image, others)[0], left[0])


def test_remove_own_with_a_zero_caption_removes_nothing() -> None:
    """No direction, no removal, no NaN; the neighbours are treated as ever."""
    image, text = features(3, 24), captions(3, 24)
    text[1] = 0
    left = remove_own(image, text)
    assert torch.equal(left[1], image[1])
    assert (left[[0, 2]] * text[[0, 2]]).sum(1).abs().max() < 1e-12


@pytest.mark.parametrize("project", ["remove", "remove_own"])
def test_removal_keeps_its_precision_under_autocast(project: str) -> None:
    """Training runs under bfloat16 autocast. A product in bfloat16 would leave 0.4 % of every caption in the features."""
    image, text = features(32, 768, dtype=torch.float32), captions(32, 768, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        left = remove(image, batch_basis(text)) if project == "remove" else remove_own(image, text)
    assert left.dtype == torch.float32
    assert (left * text).sum(1).abs().max() < 1e-4 * (image * text).sum(1).abs().max()


# Signs


@properties
@given(width=st.integers(2, 32), seed=seeds)
def test_every_column_has_its_largest_entry_positive(width: int, seed: int) -> None:
    """The sign of an eigenvector is a whim of LAPACK; the stored basis must not be."""
    basis = basis_of_gram(gram([captions(3 * width, width, seed, decay=0.8)]), rank=width - 1)
    assert (basis.gather(0, basis.abs().argmax(0, keepdim=True)) > 0).all()


def test_the_basis_is_the_same_twice_and_in_any_order_of_captions() -> None:
    """Bit by bit for the same captions; to rounding for the same captions in another order."""
    text = captions(200, 24, decay=0.8)
    first = basis_of_gram(gram([text]), rank=7)
    assert torch.equal(basis_of_gram(gram([text]), rank=7), first)
    torch.testing.assert_close(basis_of_gram(gram([text.flip(0)]), rank=7), first, rtol=0, atol=1e-9)


# Parameters


@pytest.mark.parametrize(
    "values",
    [
        {"scope": "global", "rank": 8},
        {"scope": "global", "energy": 0.9},
        {"scope": "global", "rank": 8, "energy": None},
        {"scope": "batch"},
        {"scope": "sample"},
        {"scope": "none"},
    ],
)
def test_parameters_that_state_one_rule_are_accepted(values: dict[str, object]) -> None:
    """Exactly one rule for ``global``, none for the others."""
    params = validate("null_space", values, NullSpaceParams)
    assert params.scope == values["scope"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scope": "global"}, "exactly one of rank and energy.*none"),
        ({"scope": "global", "rank": 8, "energy": 0.9}, "exactly one of rank and energy.*rank.*energy"),
        ({"scope": "batch", "rank": 8}, "neither rank nor energy.*rank"),
        ({"scope": "sample", "energy": 0.9}, "neither rank nor energy.*energy"),
        ({"scope": "none", "rank": 1}, "neither rank nor energy"),
        ({"scope": "global", "rank": 0}, "rank"),
        ({"scope": "global", "rank": 2.5}, "rank"),
        ({"scope": "global", "rank": True}, "rank"),
        ({"scope": "global", "energy": 0}, "energy"),
        ({"scope": "global", "energy": 1}, "energy"),
        ({"scope": "global", "energy": float("nan")}, "energy"),
        ({"scope": "captions"}, "global.*batch.*sample"),
        ({"rank": 3}, "scope"),
    ],
)
def test_other_parameters_are_refused_with_their_name(values: dict[str, object], message: str) -> None:
    """Each error names the key, and what was expected."""
    with pytest.raises(ParamsError, match=f"(?s){message}"):
        validate("null_space", values, NullSpaceParams)


# As a part of a detector

SCOPES: list[dict[str, object]] = [
    {"scope": "none"},
    {"scope": "global", "rank": 3},
    {"scope": "global", "energy": 0.9},
    {"scope": "batch"},
    {"scope": "sample"},
]


def part(width: int = 24, *, training: bool = True, dtype: torch.dtype = torch.float64, **params: object) -> NullSpace:
    """A null space as a detector holds it."""
    return NullSpace(NullSpaceParams(**params), width).to(dtype).train(training)


def unit(text: Tensor) -> Tensor:
    """Captions of length one, so that each counts the same."""
    return text / text.norm(dim=1, keepdim=True)


def expected_removal(params: dict[str, object], image: Tensor, text: Tensor, all_text: Tensor, training: bool) -> np.ndarray:
    """What every scope should leave of image features, each by the paper's projector of the captions it is meant to see."""
    if params["scope"] == "none":
        return image.numpy()
    if params["scope"] == "global":
        _, values, rows = np.linalg.svd(unit(all_text).numpy(), full_matrices=True)
        share = np.cumsum(values**2) / np.sum(values**2)
        count = params.get("rank") or int(np.flatnonzero(share >= params["energy"])[0]) + 1
        return image.numpy() @ (np.eye(len(rows)) - rows[:count].T @ rows[:count])
    if params["scope"] == "batch" and training:
        return image.numpy() @ paper_projector(text)
    return np.stack([image[row].numpy() @ paper_projector(text[row : row + 1]) for row in range(len(image))])


@pytest.mark.parametrize("params", SCOPES, ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["training", "testing"])
def test_every_scope_removes_what_it_says(params: dict[str, object], training: bool) -> None:
    """``batch`` in testing is a batch of one; the others do not ask whether they train."""
    image, text, all_text = features(6, 24), captions(6, 24, seed=2), captions(200, 24, seed=3, decay=0.7)
    projection = part(training=training, **params)
    projection.fit(all_text.split(33))
    found = projection(image, text)
    np.testing.assert_allclose(found, expected_removal(params, image, text, all_text, training), rtol=0, atol=1e-9)


@pytest.mark.parametrize("params", SCOPES, ids=str)
def test_a_test_image_does_not_depend_on_its_neighbours(params: dict[str, object]) -> None:
    """Nor on their captions."""
    image, text = features(6, 24), captions(6, 24, seed=2)
    projection = part(training=False, **params)
    projection.fit([captions(200, 24, seed=3, decay=0.7)])
    alone = torch.cat([projection(image[row : row + 1], text[row : row + 1]) for row in range(6)])
    torch.testing.assert_close(projection(image, text), alone, rtol=0, atol=1e-13)


@pytest.mark.parametrize("params", SCOPES, ids=str)
def test_needs_of_captions_are_announced_and_are_what_it_needs(params: dict[str, object]) -> None:
    """Where they are announced a batch without them is refused, in training and testing; elsewhere they change nothing."""
    projection, image = part(**params), features(3, 24)
    projection.fit([captions(200, 24, decay=0.7)])
    assert projection.needs_captions == (params["scope"] != "none")
    assert projection.captions_at_inference == (params["scope"] in ("batch", "sample"))
    for training in (True, False):
        projection.train(training)
        if projection.captions_at_inference:
            with pytest.raises(ValueError, match=f"{params['scope']}.*expected the captions of the images, found none"):
                projection(image, None)
        else:
            assert torch.equal(projection(image, None), projection(image, captions(3, 24)))


def test_scope_none_gives_back_the_feature_itself() -> None:
    """In any type."""
    image = features(3, 24).bfloat16()
    assert part(scope="none")(image, None) is image


def test_every_caption_counts_the_same_however_long_its_feature_is() -> None:
    """Lengths of text features differ by chance; without this the longest caption would be the first direction."""
    text = captions(80, 12, decay=0.8)
    plain, stretched = part(12, scope="global", rank=4), part(12, scope="global", rank=4)
    plain.fit([text])
    stretched.fit([text * torch.linspace(0.01, 100, 80, dtype=torch.float64)[:, None]])
    torch.testing.assert_close(stretched.basis_DK, plain.basis_DK, rtol=0, atol=1e-9)
    assert not torch.allclose(basis_of_gram(gram([text]), rank=4).abs(), plain.basis_DK.abs(), atol=1e-3)


@pytest.mark.parametrize("scope", ["none", "batch", "sample"])
def test_other_scopes_look_at_no_caption_in_advance(scope: str) -> None:
    """Not even at the stream, which is a pass over the training set."""

    def never():
        raise AssertionError("asked for a caption")
        yield

    projection = part(scope=scope)
    projection.fit(never())
    assert projection.basis_DK.shape == (24, 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_basis_has_the_type_of_the_detector_and_is_found_in_double(dtype: torch.dtype) -> None:
    """A basis found in float32 would be another one behind the sixth digit."""
    text = captions(300, 24, decay=0.8, dtype=torch.float32)
    projection = part(dtype=dtype, scope="global", rank=5)
    projection.fit([text])
    assert projection.basis_DK.dtype == dtype
    assert torch.equal(projection.basis_DK, basis_of_gram(gram([unit(text.double())]), rank=5).to(dtype))


@pytest.mark.parametrize("ranks", [(3, 3), (3, 7), (7, 3), (3, None), (None, 3)], ids=str)
def test_a_basis_of_another_width_is_saved_and_restored(ranks: tuple[int | None, int | None]) -> None:
    """Whatever the part held before: another energy of other captions gives another number of directions."""

    class Detector(torch.nn.Module):
        def __init__(self, rank: int | None) -> None:
            super().__init__()
            self.null_space = part(dtype=torch.float32, scope="global", rank=3)
            if rank is not None:
                self.null_space.params = NullSpaceParams(scope="global", rank=rank)
                self.null_space.fit([captions(100, 24, seed=rank, decay=0.8)])

        def kept_state(self):
            yield from self.named_buffers()

    trained, fresh = (Detector(rank) for rank in ranks)
    weights = {name: tensor.clone() for name, tensor in kept(trained).items()}
    restore(fresh, weights)
    image = features(5, 24, dtype=torch.float32)
    assert torch.equal(fresh.null_space(image, None), trained.null_space(image, None))
    assert fresh.null_space.basis_DK.shape == (24, ranks[0] or 0)
    assert list(fresh.state_dict()) == ["null_space.basis_DK"]  # it is still a buffer, and is saved again
    assert torch.equal(kept(fresh)["null_space.basis_DK"], weights["null_space.basis_DK"])


def test_a_batch_that_spans_everything_is_refused_in_training_and_scored_in_testing() -> None:
    """In training nothing would be left of the features; in testing each image loses one direction of many."""
    image, text = features(24, 24), captions(24, 24)
    projection = part(scope="batch")
    with pytest.raises(ValueError, match="null space is empty"):
        projection(image, text)
    assert projection.eval()(image, text).norm(dim=1).min() > 1


@pytest.mark.parametrize("params", SCOPES[1:], ids=str)
def test_no_gradient_flows_along_what_is_removed(params: dict[str, object]) -> None:
    """In a detector: a step of the tower changes nothing that the projection would take away."""
    text = captions(6, 24, seed=2)
    projection = part(**params)
    projection.fit([captions(200, 24, seed=3, decay=0.7)])
    image = features(6, 24).requires_grad_()
    projection(image, text).pow(3).sum().backward()
    left = projection(image.grad, text)
    torch.testing.assert_close(left, image.grad, rtol=0, atol=1e-9)
    assert image.grad.abs().max() > 0.1
