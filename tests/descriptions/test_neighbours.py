"""Confusable classes: nearest by cosine, a table that survives editing, and encoders of two sorts."""

from pathlib import Path

import numpy as np
import pytest
from testing_utils import run_cli, tiny_clip_config
from transformers import CLIPModel, CLIPTextModel

from kinetext.data.small_tokenizer import small_tokenizer
from kinetext.descriptions.neighbours import nearest_neighbours, read_neighbours, write_neighbours
from kinetext.evaluation.name_embeddings import embed_names

NAMES = ("clap", "slap", "wave", "walk")
EMBEDDINGS = np.array([[1, 0], [2, 0.2], [0, 3], [-1, 0.1]])


def table(path: Path, rows: str, *, header: str = "class,neighbour,rank,similarity") -> Path:
    path.write_text(f"{header}\n{rows}", "utf-8")
    return path


def test_neighbours_are_the_largest_cosines_whatever_the_lengths() -> None:
    pairs = nearest_neighbours(NAMES, EMBEDDINGS, 2)
    assert [(p.class_name, p.neighbour, p.rank) for p in pairs[:4]] == [
        ("clap", "slap", 0), ("clap", "wave", 1), ("slap", "clap", 0), ("slap", "wave", 1),
    ]  # fmt: skip
    assert pairs[0].similarity == pytest.approx(2 / np.hypot(2, 0.2))
    assert len(pairs) == 8


def test_equal_cosines_keep_the_order_of_the_classes() -> None:
    pairs = nearest_neighbours(("a", "b", "c"), np.ones((3, 4)), 2)
    assert [p.neighbour for p in pairs] == ["b", "c", "a", "c", "a", "b"]


@pytest.mark.parametrize(
    ("embeddings", "k", "message"),
    [
        (EMBEDDINGS[:3], 1, r"shape \(3, 2\); \(4, D\)"),
        (EMBEDDINGS, 4, "4 classes have 1 to 3 neighbours"),
        (EMBEDDINGS, 0, "k=0"),
        (EMBEDDINGS * [[1], [1], [0], [1]], 1, "'wave' is zero"),
        (EMBEDDINGS * [[1], [np.nan], [1], [1]], 1, "'slap' is zero or not finite"),
    ],
)
def test_what_has_no_neighbours_is_refused(embeddings: np.ndarray, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(NAMES, embeddings, k)


def test_the_table_reads_back_and_a_person_may_exchange_a_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "neighbours.csv"
    write_neighbours(nearest_neighbours(NAMES, EMBEDDINGS, 2), path)
    assert read_neighbours(path)["clap"] == ["slap", "wave"]
    path.write_text(path.read_text("utf-8").replace("clap,slap,0,", "clap,walk,0,"), "utf-8-sig")
    assert read_neighbours(path)["clap"] == ["walk", "wave"]


def test_similarities_and_ranks_are_for_the_reader(tmp_path: Path) -> None:
    assert read_neighbours(table(tmp_path / "n.csv", "a,c\na,b\n", header="class,neighbour")) == {"a": ["c", "b"]}


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ("a,b\n", "name,other", "no column class and no column neighbour"),
        ("a,\n", "class,neighbour", "line 2: class 'a', neighbour ''"),
        ("a,b\na,B\n", "class,neighbour", "line 3: 'B' is 'a' itself or its neighbour twice"),
        ("Push up,push_up\n", "class,neighbour", "line 2: 'push_up' is 'Push up' itself"),
        ('a,"b\n', "class,neighbour", "line 2: unexpected end of data"),
        (f"a,{'b' * 200_000}\n", "class,neighbour", "line 2: field larger than field limit"),
    ],
)
def test_a_broken_table_is_refused_with_its_line(rows: str, header: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        read_neighbours(table(tmp_path / "n.csv", rows, header=header))


@pytest.mark.parametrize("kind", ["clip", "text model"])
def test_names_are_embedded_one_by_one_whatever_stands_beside_them(kind: str, tmp_path: Path) -> None:
    encoder = saved_encoder(tmp_path, CLIPModel if kind == "clip" else CLIPTextModel)
    together = embed_names([*NAMES, "a much longer name than these"], encoder)
    assert together.shape[0] == 5 and together.dtype == np.float32
    for index, name in enumerate(NAMES):
        np.testing.assert_allclose(embed_names([name], encoder)[0], together[index], atol=1e-5)


def test_the_verb_writes_the_table(tmp_path: Path) -> None:
    encoder = saved_encoder(tmp_path, CLIPModel)
    out = tmp_path / "n.csv"
    arguments = ["describe", "neighbours", "weizmann", "--encoder", str(encoder), "--k", "3", "--out", str(out)]
    result = run_cli(*arguments)
    assert result.exit_code == 0, result.output
    assert {name: len(own) for name, own in read_neighbours(out).items()} == dict.fromkeys(
        ("bend", "jack", "jump", "pjump", "run", "side", "skip", "walk", "wave1", "wave2"), 3
    )
    out.write_text("edited by hand")
    result = run_cli(*arguments, columns=300)
    assert result.exit_code == 1 and "is there already, perhaps edited; remove it or give another" in result.output
    assert out.read_text() == "edited by hand"


def saved_encoder(folder: Path, model_class: type) -> Path:
    tokenizer = small_tokenizer([*NAMES, "a much longer name than these waving one hand in place"], max_tokens=600)
    config = tiny_clip_config(vocab_size=len(tokenizer), max_tokens=77)
    model = model_class(config if model_class is CLIPModel else config.text_config)
    model.save_pretrained(folder / "encoder")
    tokenizer.save_pretrained(folder / "encoder")
    return folder / "encoder"
