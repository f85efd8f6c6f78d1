"""Codes of frames: nearest, likeliest, random; and what is said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from benchmark.errors import SuperbError
from upstreams.loading.load import load_upstream
from upstreams.pretraining.objective import Batch
from upstreams.pretraining.targets import CODERS, Targets, code_measures, purity


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def blobs():
    """Three clouds far apart: (features, which cloud)."""
    centres = torch.tensor([[0.0, 9.0], [9.0, 0.0], [-9.0, -9.0]])
    label = torch.arange(300) % 3
    return centres[label] + 0.3 * torch.randn(300, 2, generator=generator()), label


@pytest.mark.parametrize("kind", ["kmeans", "gmm"])
def test_clouds_get_a_code_each(blobs, kind):
    features, label = blobs
    coder = CODERS[kind](2, 3)
    coder.fit(features, generator())
    assert purity(coder(features).numpy(), label.numpy())["nmi"] == pytest.approx(1.0)


def test_the_code_of_a_mixture_is_scikit_learns(blobs):
    from sklearn.mixture import GaussianMixture

    features = torch.randn(400, 3, generator=generator(1))
    coder = CODERS["gmm"](3, 5)
    coder.fit(features, generator())
    theirs = GaussianMixture(5, covariance_type="diag")
    theirs.means_, theirs.precisions_ = coder.means.numpy(), coder.precisions.numpy()
    theirs.precisions_cholesky_ = np.sqrt(theirs.precisions_)
    theirs.weights_ = np.exp(coder.log_weights.numpy())
    np.testing.assert_array_equal(coder(features).numpy(), theirs.predict(features.numpy()))


def test_random_projections_learn_nothing_and_use_most_codes():
    features = 5 + 3 * torch.randn(4000, 20, generator=generator())
    coder = CODERS["random-projection"](20, 32)
    coder.fit(features, generator(1))
    codes = coder(features)
    assert code_measures(features, [codes[None]])["code_perplexity"] > 16
    # Equation 1 of the paper, written out for one frame.
    x = (features[0] - features.mean(0)) / features.std(0)
    projected = x @ coder.projection
    distance = (coder.directions - projected / projected.norm()).norm(dim=1)
    assert int(codes[0]) == int(distance.argmin())


@pytest.mark.parametrize("kind", sorted(CODERS))
def test_the_same_seed_gives_the_same_codes(kind):
    features = torch.randn(500, 4, generator=generator())
    coders = [CODERS[kind](4, 6) for _ in range(2)]
    for coder in coders:
        coder.fit(features, generator(7))
    assert torch.equal(coders[0](features), coders[1](features))


@pytest.mark.parametrize("kind", ["kmeans", "gmm"])
def test_more_clusters_than_frames_are_refused(kind):
    with pytest.raises(SuperbError, match="fewer clusters"):
        CODERS[kind](4, 50).fit(torch.zeros(10, 4), generator())


def test_measures_of_codes_known_by_hand():
    features = torch.tensor([[0.0], [0.0], [2.0], [2.0], [0.0], [0.0], [2.0], [2.0]])
    codes = [torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 1]])]
    found = code_measures(features, codes)
    assert found["code_perplexity"] == pytest.approx(2.0)
    assert found["code_frames"] == pytest.approx(2.0)  # a run does not go on in the next file
    assert found["explained_variance"] == pytest.approx(1.0)


def test_purity_by_hand():
    codes, labels = np.array([0, 0, 0, 1, 1, 1]), np.array([5, 5, 6, 6, 6, 6])
    found = purity(codes, labels)
    assert found["label_purity"] == pytest.approx(5 / 6)
    assert found["code_purity"] == pytest.approx((2 + 3) / 6)
    entropy = -(1 / 3) * math.log(1 / 3) - (2 / 3) * math.log(2 / 3)
    left = 0.5 * (-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3))
    assert found["nmi"] == pytest.approx((entropy - left) / entropy)
    with pytest.raises(SuperbError, match="a label for every code"):
        purity(codes, labels[:3])


@pytest.fixture
def batch(babble):
    return Batch(
        torch.stack([torch.from_numpy(babble(seed, 1.5)) for seed in range(4)]),
        torch.tensor([0, 0, 1, 1]),
    )


def test_targets_have_a_code_for_every_frame_of_the_encoder(batch):
    targets = Targets(load_upstream("mfcc"), 0, "kmeans", 8, 320)
    (found,) = targets.fit([batch], generator())
    assert set(found) == {"code_perplexity", "code_frames", "explained_variance", "speaker_nmi"}
    encoder_frames = (24_000 - 400) // 320 + 1
    codes = targets(batch.waveforms, encoder_frames)
    assert codes.shape == (4, encoder_frames, 1)
    # The frame's own window, every second of the teacher's 10 ms frames.
    features = load_upstream("mfcc")(list(batch.waveforms)).values[0][:, ::2]
    assert torch.equal(codes[:, :, 0], targets.coders[0](features)[:, :encoder_frames])
    assert targets(batch.waveforms, features.shape[1] + 2).shape[1] == features.shape[1] + 2


@pytest.mark.parametrize("kind", sorted(CODERS))
def test_half_the_bits_give_the_codes_of_all_of_them(batch, kind):
    targets = Targets(load_upstream("mfcc"), 0, kind, 8, 320)
    targets.fit([batch], generator())
    codes = targets(batch.waveforms, 74)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(targets(batch.waveforms, 74), codes)


def test_a_teacher_that_gives_no_numbers_is_named(batch):
    teacher = load_upstream("mfcc")
    teacher.features = lambda waveform: torch.full((148, 39), float("nan"))
    with pytest.raises(SuperbError, match=r"teacher mfcc gives .* no numbers in layer 0"):
        Targets(teacher, 0, "kmeans", 8, 320).fit([batch], generator())


def test_random_projections_stack_the_frames_that_a_hop_joins(batch):
    targets = Targets(load_upstream("fbank"), 0, "random-projection", 8, 320)
    assert targets.features(batch.waveforms).shape[2] == 480
    parts = Targets(load_upstream("mfcc"), 0, "random-projection", 8, 320, parts=3)
    frames = load_upstream("mfcc")(list(batch.waveforms)).values[0]
    own = torch.cat([frames[:, 0:148:2, 13:26], frames[:, 1:148:2, 13:26]], dim=2)
    assert torch.equal(parts.features(batch.waveforms).chunk(3, dim=2)[1], own)


def test_the_teacher_is_no_part_of_what_is_trained_or_saved():
    targets = Targets(load_upstream("hubert"), 3, "kmeans", 8, 320)
    assert not list(targets.parameters())
    assert set(targets.state_dict()) == {"coders.0.centroids"}


def test_parts_of_the_features_have_a_codebook_each(batch):
    targets = Targets(load_upstream("mfcc"), 0, "kmeans", 8, 320, parts=3)
    found = targets.fit([batch], generator())
    codes = targets(batch.waveforms, 74)
    assert codes.shape == (4, 74, 3)
    features = load_upstream("mfcc")(list(batch.waveforms)).values[0][:, ::2]
    for part in range(3):
        own = features[:, :, 13 * part : 13 * part + 13]
        centroids = targets.coders[part].centroids
        nearest = (own.unsqueeze(2) - centroids).square().sum(3).argmin(2)
        assert torch.equal(codes[:, :, part], nearest[:, :74])
        assert found[part]["explained_variance"] == pytest.approx(
            code_measures(own.flatten(0, 1), [nearest])["explained_variance"]
        )
    with pytest.raises(SuperbError, match="39 numbers a frame, which parts=2 does not divide"):
        Targets(load_upstream("mfcc"), 0, "kmeans", 8, 320, parts=2)


def test_a_layer_or_hop_that_the_teacher_has_not_is_refused():
    with pytest.raises(SuperbError, match="layers 0 to 0; layer=3"):
        Targets(load_upstream("mfcc"), 3, "kmeans", 8, 320)
    with pytest.raises(SuperbError, match="divisor of 160"):
        Targets(load_upstream("hubert"), 0, "kmeans", 8, 160)
