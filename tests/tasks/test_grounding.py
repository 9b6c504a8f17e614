"""Grounding: features of boxes, padding that changes nothing, a head that learns what sentences say."""

from dataclasses import replace

import numpy as np
import torch

from pointloom.tasks.grounding import (
    GroundingHead,
    Questions,
    SceneObjects,
    SentenceFeatures,
    box_features,
    chance,
    chosen_boxes,
    distance_bias,
    fit_grounding,
    grounding_accuracy,
    pad_objects,
)


def scenes(seed: int, num: int = 30) -> tuple[SceneObjects, Questions]:
    """Boxes with a colour and a kind; a sentence of two words names both."""
    rng = np.random.default_rng(seed)
    words = np.eye(8, dtype=np.float32)
    features, centers, texts, scene, target, unique = [], [], [], [], [], []
    for number in range(num):
        size = int(rng.integers(3, 7))
        kinds = rng.permutation(16)[:size]
        features.append(np.concatenate([words[kinds // 4], words[4 + kinds % 4]], axis=1))
        centers.append(rng.random((size, 3)).astype(np.float32))
        for box, kind in enumerate(kinds):
            texts.append([words[kind // 4], words[4 + kind % 4]])
            scene.append(number)
            target.append(box)
            unique.append((kinds // 4 == kind // 4).sum() == 1)
    word = torch.from_numpy(np.array(texts))
    text = SentenceFeatures(word, torch.ones(word.shape[:2], dtype=torch.bool), word.sum(1))
    questions = Questions(text, torch.tensor(scene), torch.tensor(target), torch.tensor(np.array(unique)))
    return pad_objects(features, centers), questions


def test_box_feature_is_the_mean_inside_and_zero_where_nothing_is() -> None:
    coord = np.array([[0.1, 0, 0], [0.4, 0, 0], [2, 0, 0]], dtype=np.float32)
    feature = np.array([[1, 0], [3, 2], [9, 9]], dtype=np.float32)
    center, size = np.array([[0, 0, 0], [0, 5, 0]], dtype=np.float32), np.ones((2, 3), dtype=np.float32)
    found = box_features(coord, feature, center=center, size=size)
    np.testing.assert_allclose(found, [[2, 1], [0, 0]])


def test_head_learns_what_sentences_mean_and_beats_chance_by_far() -> None:
    (train, asked), (test, questions) = scenes(0), scenes(1)
    head = fit_grounding(train, asked, epochs=15, lr=2e-3, batch_size=16, seed=0)
    accuracy = grounding_accuracy(chosen_boxes(head, test, questions), questions)
    assert accuracy["overall"] is not None
    assert accuracy["overall"] > 80 > 2 * chance(test, questions)


def test_padding_changes_no_score() -> None:
    objects, questions = scenes(2, num=4)
    torch.manual_seed(0)
    head = GroundingHead(16, text_dim=8).eval()
    text, batch = questions.text, questions.take(torch.arange(len(questions.scene)))
    wide = SceneObjects(
        torch.cat([objects.feature, torch.randn(4, 3, 16)], dim=1),
        torch.cat([objects.center, torch.randn(4, 3, 3)], dim=1),
        torch.cat([objects.valid, torch.zeros(4, 3, dtype=torch.bool)], dim=1),
    )
    longer = SentenceFeatures(
        torch.cat([text.word, torch.randn(len(text.word), 2, 8)], dim=1),
        torch.cat([text.valid, torch.zeros(len(text.word), 2, dtype=torch.bool)], dim=1),
        text.sentence,
    )
    theirs, wider = _at(objects, batch.scene), _at(wide, batch.scene)
    plain = head.scores(head.embedded(theirs), theirs, text)
    padded = head.scores(head.embedded(wider), wider, longer)
    torch.testing.assert_close(padded[:, : plain.shape[1]], plain, atol=1e-5, rtol=1e-5)


def _at(objects: SceneObjects, scene: torch.Tensor) -> SceneObjects:
    return SceneObjects(objects.feature[scene], objects.center[scene], objects.valid[scene])


def test_distance_enters_two_heads_as_described() -> None:
    center = torch.tensor([[[0.0, 0, 0], [3, 4, 0], [0, 0, 0]]])
    objects = SceneObjects(torch.zeros(1, 3, 2), center, torch.tensor([[True, True, False]]))
    bias = distance_bias(objects)
    near = np.array([1 / 0.01, 1 / 5.01])
    np.testing.assert_allclose(bias[0, 0, 0, :2], near / near.sum(), rtol=1e-5)
    np.testing.assert_allclose(bias[0, 1, 0, :2], [0, -5], atol=1e-5)
    assert (bias[0, 2:, :2, :2] == 0).all()
    assert (bias[..., 2] < -1000).all()


def test_accuracy_is_counted_apart_for_unique_and_multiple() -> None:
    _, questions = scenes(3, num=6)
    chosen = questions.target.clone()
    chosen[questions.unique] += 1
    found = grounding_accuracy(chosen, questions)
    assert (found["unique"], found["multiple"]) == (0.0, 100.0)
    assert found["overall"] == 100 * float((~questions.unique).float().mean())
    only = questions.take(torch.nonzero(questions.unique).squeeze(1))
    assert grounding_accuracy(only.target, only)["multiple"] is None


def test_boxes_are_contrasted_with_sentences_before_they_see_a_word() -> None:
    objects, questions = scenes(4, num=4)
    torch.manual_seed(0)
    head = GroundingHead(16, text_dim=8).eval()
    other = replace(questions, text=replace(questions.text, word=questions.text.word.flip(0)))
    theirs = _at(objects, questions.scene)
    losses, changed = head(theirs, questions), head(theirs, other)
    assert torch.equal(losses["contrast"], changed["contrast"])  # words in a box would give its sentence away
    assert not torch.equal(losses["choice"], changed["choice"])


def test_score_has_two_hidden_layers_as_published() -> None:
    hidden = 128 * 128 + 128 + 2 * 128 + 1  # linear, batch norm, PReLU
    found = sum(parameter.numel() for parameter in GroundingHead(16, text_dim=8).score.parameters())
    assert found == 2 * hidden + 128 + 1


def test_every_parameter_gets_a_gradient() -> None:
    objects, questions = scenes(4, num=4)
    head = GroundingHead(16, text_dim=8)
    head(_at(objects, questions.scene), questions)["loss"].backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
